//! What the journal knows before a run is driven: rates for estimates, outputs for references. Makes no state directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::answer::Refusal;
use crate::engine::context::RunKind;
use crate::engine::control::Control;
use crate::engine::journal::{JournalError, JournalReader};
use crate::engine::step::Work;

/// What the journal has on one playbook and kind of run; empty where there is no journal yet.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The newest measured rate of each step.
    pub rates: BTreeMap<String, Work>,
    /// Outputs of the newest run's steps, for references to them.
    pub outputs: Arc<BTreeMap<String, BTreeMap<String, Value>>>,
    /// What people have told the newest run, as far as it stands.
    pub control: Control,
}

/// A view of the journal, if there is one.
///
/// # Errors
/// If there is one and it can't be read.
pub fn journal(directory: &Path) -> Result<Option<JournalReader>, Refusal> {
    match JournalReader::open(directory) {
        Ok(reader) => Ok(Some(reader)),
        Err(JournalError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Reading {
    /// Reads what the journal has.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn open(directory: &Path, playbook: &str, kind: RunKind) -> Result<Reading, Refusal> {
        let Some(reader) = journal(directory)? else { return Ok(Reading::default()) };
        let rates = reader.rates(playbook)?;
        let Some(latest) = reader.latest_run(playbook, kind)? else { return Ok(Reading { rates, ..Reading::default() }) };
        let state = reader.state(&latest.run)?;
        let outputs = state.outputs().into_iter().map(|(step, output)| (step, output.facts)).collect();
        Ok(Reading { rates, outputs: Arc::new(outputs), control: state.control })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_journal_nothing_is_known_and_nothing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("state");
        let reading = Reading::open(&missing, "p", RunKind::Production).unwrap();
        assert!(reading.rates.is_empty() && reading.outputs.is_empty());
        assert!(!missing.exists(), "reading made a state directory");
    }
}
