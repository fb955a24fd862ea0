//! The words a playbook may use after `run:`, and after `watch:`. Handed in from outside: the playbook knows no step.
//!
//! Each step brings its name, where it may stand, what it needs before it, and its arguments as
//! one serde type ([`arguments`] reads it). The JSON Schema of that type is what mistakes in
//! `with` are found by, so that a message can name the field, its line and the nearest valid name.

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::model::{HookSpec, StageName, StoreKind};
use super::{shape, yaml};

/// In the schema of an argument that is a duration: it has to be longer than the playbook's `max_write_gap`, which no schema can say.
/// `#[schemars(extend("x-longer-than-max-write-gap" = true))]`.
pub const LONGER_THAN_MAX_WRITE_GAP: &str = "x-longer-than-max-write-gap";
/// The same where as long is enough.
pub const AS_LONG_AS_MAX_WRITE_GAP: &str = "x-as-long-as-max-write-gap";

/// One step as a playbook may name it.
#[derive(Clone, Copy, Debug)]
pub struct StepWord {
    /// What stands after `run:`, such as `mysql.snapshot`.
    pub name: &'static str,
    /// What it does, in one sentence, for the schema and for messages.
    pub about: &'static str,
    /// The kind of store it works on; none if it works on no store.
    pub store: Option<StoreKind>,
    /// The stages it may stand in.
    pub stages: &'static [StageName],
    /// Names of steps that must come earlier for the same store.
    pub requires_before: &'static [&'static str],
    /// Whether clients reach the target from this step on: undo behind it would lose what they write there.
    pub moves_clients: MovesClients,
    /// The JSON Schema of its arguments: `|| schemars::schema_for!(Arguments)`.
    pub arguments: fn() -> Schema,
    /// Whether the arguments can be used; usually [`arguments`] and whatever a type can't say.
    pub check: fn(&Map<String, Value>) -> Result<(), ArgumentError>,
}

/// Whether a step lets clients reach the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovesClients {
    /// It never does.
    Never,
    /// It does.
    Always,
    /// It runs what the operator wrote, which may.
    Perhaps,
}

/// One thing that a guard can watch.
#[derive(Clone, Copy, Debug)]
pub struct GuardWord {
    /// What stands after `watch:`, such as `mysql.lag`.
    pub name: &'static str,
    /// What is looked at, in one sentence, for the schema and for messages.
    pub about: &'static str,
    /// The kind of store it looks at; none if it looks at no store.
    pub store: Option<StoreKind>,
    /// The JSON Schema of its arguments.
    pub arguments: fn() -> Schema,
    /// Whether the arguments can be used.
    pub check: fn(&Map<String, Value>) -> Result<(), ArgumentError>,
}

/// All words there are.
#[derive(Clone, Copy, Debug)]
pub struct Vocabulary {
    /// After `run:`.
    pub steps: &'static [StepWord],
    /// After `watch:`.
    pub guards: &'static [GuardWord],
    /// Whether a hook can be used.
    pub hook: fn(&HookSpec) -> Result<(), ArgumentError>,
}

/// The word of that name.
#[must_use]
pub fn find<'a>(vocabulary: &'a [StepWord], name: &str) -> Option<&'a StepWord> {
    vocabulary.iter().find(|word| word.name == name)
}

/// A wrong argument of a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ArgumentError {
    /// The field, with dots into nested ones (`route.path`); none if it is about all of them.
    pub field: Option<String>,
    /// What is wrong, object names in backticks.
    pub message: String,
    /// What would be valid here, where that can be listed.
    pub valid: Vec<String>,
}

impl ArgumentError {
    /// A wrong value of one field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        ArgumentError { field: Some(field.into()), message: message.into(), valid: Vec::new() }
    }
    /// Something about all arguments together.
    pub fn all(message: impl Into<String>) -> Self {
        ArgumentError { field: None, message: message.into(), valid: Vec::new() }
    }
    /// Adds what would be valid.
    #[must_use]
    pub fn valid(mut self, valid: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.valid = valid.into_iter().map(Into::into).collect();
        self
    }
}

/// The step's arguments as their own type. `T` is a struct with `deny_unknown_fields` and without
/// `flatten` (whose fields a schema can't list).
///
/// # Errors
/// The first argument that is wrong, in the order written.
pub fn arguments<T: DeserializeOwned + JsonSchema>(with: &Map<String, Value>) -> Result<T, ArgumentError> {
    let value = Value::Object(with.clone());
    let schema = schemars::schema_for!(T);
    if let Some(finding) = shape::check(schema.as_value(), &yaml::Node::from_json(&value), "`with`").into_iter().next() {
        let field = (!finding.path.is_empty()).then(|| finding.path.join("."));
        return Err(ArgumentError { field, message: finding.problem_text(), valid: finding.valid });
    }
    // What a schema can't say is left to the type itself.
    serde_json::from_value(value).map_err(|error| ArgumentError::all(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::quantity::{HumanDuration, HumanSize};
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        #[serde(default)]
        workers: Option<u32>,
        #[serde(default)]
        scope: Option<Scope>,
        #[serde(default)]
        window: Option<HumanDuration>,
        #[serde(default)]
        memory: Option<HumanSize>,
        route: Option<Route>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Route {
        #[allow(dead_code)]
        path: String,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Scope {
        All,
        Changed,
    }

    fn read(value: Value) -> Result<Arguments, ArgumentError> {
        arguments(value.as_object().unwrap())
    }

    #[test]
    fn reads_a_type() {
        let read = read(json!({"workers": 4, "scope": "changed", "window": "1h30m", "memory": "4MiB"})).unwrap();
        assert_eq!((read.workers, read.scope), (Some(4), Some(Scope::Changed)));
        assert_eq!(read.window.unwrap().0.as_secs(), 5400);
        assert_eq!(read.memory.unwrap().0, 4 << 20);
        assert!(read.route.is_none());
    }

    #[test]
    fn names_the_field_and_what_is_valid() {
        let error = read(json!({"worker": 4})).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("worker"));
        assert_eq!(error.message, "unknown field `worker` in `with`; did you mean `workers`?");
        assert!(error.valid.contains(&"workers".to_owned()));

        let error = read(json!({"scope": "chnged"})).unwrap_err();
        assert_eq!((error.field.as_deref(), error.valid), (Some("scope"), vec!["all".to_owned(), "changed".to_owned()]));

        let error = read(json!({"workers": "four"})).unwrap_err();
        assert_eq!(
            (error.field.as_deref(), error.message.as_str()),
            (Some("workers"), "`workers` is text where a whole number is expected")
        );

        let error = read(json!({"workers": -1})).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("workers"));

        let error = read(json!({"window": "30"})).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("window"));
        assert!(error.message.contains("a number has no unit"), "{}", error.message);

        let error = read(json!({"route": {"pth": "x"}})).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("route.pth"));
    }
}
