//! What a step of a route keeps in the journal, as a value of its own type.

use serde::Serialize;

use crate::engine::context::StepContext;
use crate::engine::step::StepError;

/// A checkpoint of the step in `context`; `None` where there is none, or it was cleared.
pub(super) fn kept<T: serde::de::DeserializeOwned>(context: &StepContext, key: &str) -> Result<Option<T>, StepError> {
    match context.load_checkpoint(key)? {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value)
            .map(Some)
            .map_err(|error| StepError::definite(format!("the checkpoint `{key}` of `{}` can't be read: {error}", context.step))),
    }
}

/// Saves one; `None` clears it.
pub(super) fn keep<T: Serialize>(context: &StepContext, key: &str, value: Option<&T>) -> Result<(), StepError> {
    let value = serde_json::to_value(value)
        .map_err(|error| StepError::definite(format!("the checkpoint `{key}` of `{}` can't be written: {error}", context.step)))?;
    context.save_checkpoint(key, &value)
}
