//! The source's triggers that are put aside while the way back is open ([`crate::mysql::triggers_aside`]), and made again at its end.
//!
//! In a rollback they are made again before anything that may take its time, since clients write on the source next. One that can't be made doesn't
//! keep them waiting for ever: the fence is lifted as after every undo that fails, the rollback says that it did not come to its end, and the finding
//! `triggers-missing` has the statement of each, noted before the fence is lifted.

use crate::engine::context::StepContext;
use crate::engine::crash;
use crate::engine::step::StepError;
use crate::mysql::objects::named;
use crate::mysql::objects::read::Definition;
use crate::mysql::store::MysqlStore;
use crate::mysql::triggers_aside::{self, Missing};

/// Checkpoint of a store: the source's triggers that are put aside.
pub(super) const TRIGGERS: &str = "reverse.triggers";

/// Checkpoint of a store: that some could not be made again at once.
const MISSING: &str = "reverse.triggers_missing";

/// The finding of those that could not be made again.
const FINDING: &str = "triggers-missing";

/// The source's triggers that are put aside, if that has begun.
pub(super) fn aside(context: &StepContext, store: &MysqlStore) -> Result<Option<Vec<Definition>>, StepError> {
    match context.checkpoints.load(TRIGGERS, &store.name)? {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value)
            .map(Some)
            .map_err(|error| StepError::definite(format!("the checkpoint `{TRIGGERS}` of `{}` can't be read: {error}", store.name))),
    }
}

/// The names and statements of those that are put aside.
///
/// # Errors
/// If the journal can't be read.
pub(in crate::mysql::steps) fn put_aside(context: &StepContext, store: &MysqlStore) -> Result<Vec<(String, String)>, StepError> {
    let triggers = aside(context, store)?.unwrap_or_default();
    let words = |trigger: Definition| (named(&trigger.object), String::from_utf8_lossy(&trigger.statement).into_owned());
    Ok(triggers.into_iter().map(words).collect())
}

/// Makes the source's triggers again that were put aside.
///
/// # Errors
/// If the source can't be reached, or refuses one: each is named, and in a finding with its statement.
pub(in crate::mysql::steps) async fn bring_back(context: &StepContext, store: &MysqlStore) -> Result<(), StepError> {
    let Some(triggers) = aside(context, store)? else { return Ok(()) };
    let missing = match triggers_aside::make_again(store, &triggers).await {
        Ok(missing) => missing,
        Err(error) => {
            let why = error.to_string();
            let all: Vec<Missing> = triggers.into_iter().map(|trigger| Missing { trigger, why: why.clone() }).collect();
            note_missing(context, store, &all)?;
            return Err(error.into());
        }
    };
    if !missing.is_empty() {
        note_missing(context, store, &missing)?;
        let lines: Vec<String> = missing.iter().map(|missing| format!("  {}: {}", named(&missing.trigger.object), missing.why)).collect();
        return Err(StepError::definite(format!(
            "{} triggers could not be made again on the {}:\n{}",
            missing.len(),
            store.source,
            lines.join("\n")
        ))
        .hint("put right what the server says, then give the same command again; the statements are in the finding `triggers-missing` (`dbmove report`)"));
    }
    crash::point("reverse.triggers_back");
    if context.checkpoints.load(MISSING, &store.name)?.is_some_and(|noted| noted == true) {
        let finding = serde_json::json!({
            "level": "warning",
            "object": store.name,
            "found": format!("triggers on the {} could not be made again at once, and are there now", store.source),
            "fix": "if clients wrote there in between, what those triggers do is missing for these rows: look for it",
        });
        context.find(FINDING, &finding)?;
        context.checkpoints.save(MISSING, &store.name, &serde_json::Value::Null)?;
    }
    context.checkpoints.save(TRIGGERS, &store.name, &serde_json::Value::Null)
}

/// Notes which are missing, before anybody may write there.
fn note_missing(context: &StepContext, store: &MysqlStore, missing: &[Missing]) -> Result<(), StepError> {
    let statement = |missing: &Missing| String::from_utf8_lossy(&missing.trigger.statement).into_owned();
    let statements: Vec<String> = missing.iter().map(statement).collect();
    let names: Vec<String> = missing.iter().map(|missing| named(&missing.trigger.object)).collect();
    let found = format!("not on the {} as long as that is not put right: {}", store.source, names.join(", "));
    tracing::error!(store = %store.name, "{found}; rows that clients write there lack what these triggers do");
    let finding = serde_json::json!({
        "level": "warning",
        "object": store.name,
        "found": found,
        "fix": format!(
            "rows that clients write there lack what these triggers do. Give the same command again, or make them by hand:\n{};",
            statements.join(";\n")
        ),
    });
    context.find(FINDING, &finding)?;
    context.checkpoints.save(MISSING, &store.name, &serde_json::json!(true))
}
