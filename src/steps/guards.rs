//! The guards there are, by name: what a playbook may say of each, and how it is made.
//!
//! A guard of a store is bound as the store's steps are ([`shared`](super::shared)): to the pair of the kind of run, and where an address is the
//! output of a step, once that step has run. Until then there is nothing to look at.

use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::shared::Shared;
use super::{StepArguments, from_map, of_step};
use crate::engine::guards::{Guard, Look, Sight, Unseen};
use crate::engine::step::StepError;
use crate::guard::disk::{DiskArguments, DiskFree};
use crate::guard::http::{HttpProbe, ProbeArguments};
use crate::guard::prometheus::{PrometheusArguments, PrometheusQuery};
use crate::mysql::guards::lag::{Lag, LagArguments};
use crate::mysql::guards::load::{ErrorArguments, ErrorRate, ThreadsArguments, ThreadsRunning};
use crate::mysql::guards::replication::{Replication, ReplicationArguments};
use crate::mysql::store::MysqlStore;
use crate::playbook::model::StoreKind;
use crate::playbook::vocabulary::{ArgumentError, GuardWord, arguments};

/// How a guard is made from what the playbook says.
#[derive(Clone, Copy, Debug)]
pub enum Make {
    /// From its arguments.
    Alone(fn(&StepArguments) -> Result<Arc<dyn Guard>, StepError>),
    /// From its arguments and the MySQL store it looks at.
    Mysql(MakeMysql),
}

/// Makes a guard of a MySQL store.
pub type MakeMysql = fn(&StepArguments, &Arc<MysqlStore>) -> Result<Arc<dyn Guard>, StepError>;

/// One guard of the registry.
#[derive(Clone, Copy, Debug)]
pub struct GuardEntry {
    /// What a playbook may say.
    pub word: GuardWord,
    /// How it is made.
    pub make: Make,
}

/// Reads the arguments and has whoever makes the guard of them look at them.
fn checked<T: DeserializeOwned + schemars::JsonSchema, G>(
    with: &StepArguments,
    make: impl FnOnce(T) -> Result<G, StepError>,
) -> Result<(), ArgumentError> {
    make(arguments(with)?).map(drop).map_err(of_step)
}

/// All guards, by name.
pub const GUARDS: &[GuardEntry] = &[
    GuardEntry {
        word: GuardWord {
            name: Lag::NAME,
            about: "How far following is behind the source.",
            store: Some(StoreKind::Mysql),
            arguments: || schemars::schema_for!(LagArguments),
            check: |with| arguments::<LagArguments>(with).map(drop),
        },
        make: Make::Mysql(|with, store| Ok(Arc::new(Lag::new(Arc::clone(store), &from_map(with)?)))),
    },
    GuardEntry {
        word: GuardWord {
            name: Replication::NAME,
            about: "Whether a server that is a replica itself replicates.",
            store: Some(StoreKind::Mysql),
            arguments: || schemars::schema_for!(ReplicationArguments),
            check: |with| arguments::<ReplicationArguments>(with).map(drop),
        },
        make: Make::Mysql(|with, store| Ok(Arc::new(Replication::new(store, from_map(with)?)))),
    },
    GuardEntry {
        word: GuardWord {
            name: ThreadsRunning::NAME,
            about: "How many sessions run a statement on a server.",
            store: Some(StoreKind::Mysql),
            arguments: || schemars::schema_for!(ThreadsArguments),
            check: |with| arguments::<ThreadsArguments>(with).map(drop),
        },
        make: Make::Mysql(|with, store| Ok(Arc::new(ThreadsRunning::new(store, from_map(with)?)))),
    },
    GuardEntry {
        word: GuardWord {
            name: ErrorRate::NAME,
            about: "How many connections a second fail on a server.",
            store: Some(StoreKind::Mysql),
            arguments: || schemars::schema_for!(ErrorArguments),
            check: |with| checked(with, |read: ErrorArguments| ErrorRate::check(&read)),
        },
        make: Make::Mysql(|with, store| Ok(Arc::new(ErrorRate::new(store, from_map(with)?)))),
    },
    GuardEntry {
        word: GuardWord {
            name: DiskFree::NAME,
            about: "How much room the disk of the state directory has.",
            store: None,
            arguments: || schemars::schema_for!(DiskArguments),
            check: |with| checked(with, DiskFree::new),
        },
        make: Make::Alone(|with| Ok(Arc::new(DiskFree::new(from_map(with)?)?))),
    },
    GuardEntry {
        word: GuardWord {
            name: PrometheusQuery::NAME,
            about: "What Prometheus says of an expression.",
            store: None,
            arguments: || schemars::schema_for!(PrometheusArguments),
            check: |with| checked(with, PrometheusQuery::new),
        },
        make: Make::Alone(|with| Ok(Arc::new(PrometheusQuery::new(from_map(with)?)?))),
    },
    GuardEntry {
        word: GuardWord {
            name: HttpProbe::NAME,
            about: "Whether an address answers as it should.",
            store: None,
            arguments: || schemars::schema_for!(ProbeArguments),
            check: |with| checked(with, HttpProbe::new),
        },
        make: Make::Alone(|with| Ok(Arc::new(HttpProbe::new(from_map(with)?)?))),
    },
];

/// A guard of arguments as written.
///
/// # Errors
/// What it has against its arguments.
pub fn guard(with: &StepArguments, make: Make, shared: Option<Arc<Shared>>) -> Result<Arc<dyn Guard>, StepError> {
    let no_store = || StepError::definite("it looks at a MySQL store: name one with `store`");
    match make {
        Make::Alone(make) => make(with),
        Make::Mysql(make) => {
            let shared = shared.ok_or_else(no_store)?;
            let shape = make(with, shared.shape().mysql.as_ref().ok_or_else(no_store)?)?;
            if !shared.is_late() {
                return Ok(shape);
            }
            Ok(Arc::new(LateGuard { with: with.clone(), make, shared, shape, bound: Mutex::default() }))
        }
    }
}

/// A guard of a store whose address is an output of a step.
struct LateGuard {
    with: StepArguments,
    make: MakeMysql,
    shared: Arc<Shared>,
    /// Tells what it is; never looks.
    shape: Arc<dyn Guard>,
    bound: Mutex<Option<Arc<dyn Guard>>>,
}

#[async_trait]
impl Guard for LateGuard {
    fn name(&self) -> &'static str {
        self.shape.name()
    }
    fn condition(&self) -> String {
        self.shape.condition()
    }
    fn remarks(&self) -> Vec<String> {
        self.shape.remarks()
    }
    async fn look(&self, sight: &Sight) -> Result<Look, Unseen> {
        if self.shared.waits_for_a_step(&sight.outputs) {
            return Ok(Look::Nothing("its server is not known yet".to_owned()));
        }
        let mut bound = self.bound.lock().await;
        let guard = match &*bound {
            Some(guard) => Arc::clone(guard),
            None => {
                let unseen = |error: StepError| Unseen(error.message);
                let materials = self.shared.bound(&sight.run, &sight.outputs).await.map_err(unseen)?;
                let store = materials.mysql.as_ref().ok_or_else(|| Unseen("it looks at a MySQL store".to_owned()))?;
                let guard = (self.make)(&self.with, store).map_err(unseen)?;
                *bound = Some(Arc::clone(&guard));
                guard
            }
        };
        drop(bound);
        guard.look(sight).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = GUARDS.iter().map(|entry| entry.word.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), GUARDS.len());
    }
}
