//! Every step there is, by name, with its word (what a playbook may say) and its [`Constructor`].
//!
//! | file | which steps |
//! | --- | --- |
//! | `general` | those of no store: `hook.exec`, `gate.approve` |
//! | `traffic` | those that move clients |
//! | `mysql` | those of a MySQL store |

mod general;
mod mysql;
mod traffic;

use std::sync::{Arc, LazyLock};

use serde::de::DeserializeOwned;

use super::deferred::Resolved;
use super::guards;
use super::shared::Materials;
use crate::engine::step::{Step, StepError};
use crate::hook::moment::MomentHook;
use crate::mysql::store::MysqlStore;
use crate::playbook::model::StageName::{self, Cutover};
use crate::playbook::vocabulary::{ArgumentError, GuardWord, StepWord, Vocabulary};

/// Makes a step of arguments whose references are resolved.
pub type Make = fn(&Resolved, &Materials) -> Result<Arc<dyn Step>, StepError>;

/// How a step is made from what the playbook says.
#[derive(Clone, Copy, Debug)]
pub enum Constructor {
    /// From its arguments and what it shares with others. What the arguments refer to is resolved each time it acts.
    Arguments {
        /// Makes it.
        make: Make,
        /// The arguments whose texts may hold references to what is not secret; `env` and `password` are secrets and always may.
        texts: &'static [&'static str],
    },
    /// From the MySQL store it works on, which all steps of the store share, and its arguments, which hold no references.
    Mysql(MakeMysql),
}

/// Makes a step of a MySQL store.
pub type MakeMysql = fn(Arc<MysqlStore>, &StepArguments) -> Result<Arc<dyn Step>, StepError>;

/// A step's arguments as written.
pub type StepArguments = serde_json::Map<String, serde_json::Value>;

/// One step of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What a playbook may say.
    pub word: StepWord,
    /// How it is made.
    pub constructor: Constructor,
}

const AT_THE_SWITCH: &[StageName] = &[Cutover];

/// All steps.
pub fn registry() -> impl Iterator<Item = &'static Entry> {
    [general::STEPS, traffic::STEPS, mysql::STEPS].into_iter().flatten()
}

/// The arguments of a step that takes no references.
pub(super) fn from_map<T: DeserializeOwned>(with: &StepArguments) -> Result<T, StepError> {
    serde_json::from_value(serde_json::Value::Object(with.clone()))
        .map_err(|error| StepError::definite(format!("the arguments can't be used: {error}")))
}

/// The arguments as the step's own type. The loader has checked them; a playbook made in memory is checked here.
fn read<T: DeserializeOwned>(resolved: &Resolved) -> Result<T, StepError> {
    from_map(&resolved.with)
}

/// What a step's constructor has against its arguments.
pub(super) fn of_step(error: StepError) -> ArgumentError {
    ArgumentError::all(match error.hint {
        Some(hint) => format!("{}; {hint}", error.message),
        None => error.message,
    })
}

/// The words of all steps and guards, for the playbook's loader.
#[must_use]
pub fn vocabulary() -> Vocabulary {
    static STEPS: LazyLock<Vec<StepWord>> = LazyLock::new(|| registry().map(|entry| entry.word).collect());
    static GUARDS: LazyLock<Vec<GuardWord>> = LazyLock::new(|| guards::GUARDS.iter().map(|entry| entry.word).collect());
    Vocabulary { steps: &STEPS, guards: &GUARDS, hook: |spec| MomentHook::new(spec).map(drop).map_err(of_step) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = registry().map(|entry| entry.word.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
