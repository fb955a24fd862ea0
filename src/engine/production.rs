//! What a rehearsal sent to production, as its journal keeps it.
//!
//! A rehearsal promises to only look at production ([`mysql::production`](crate::mysql::production)). What it sent there is counted here, for the whole
//! run: every statement *before* it is sent, so that a driver that dies in between has counted once too often, and never too seldom, and the
//! next one goes on with the count. The report lists all of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::Checkpoints;
use super::journal::{JournalError, JournalReader};
use super::step::StepError;

/// A statement that was sent to production, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sent {
    /// Which server.
    pub server: String,
    /// Its text; the name of a lock and the columns that are read are left out.
    pub statement: String,
    /// How often.
    pub count: u64,
}

/// Whose results these are: not a step's, none of which has a blank in its id.
const OF: &str = "sent to production";
const KIND: &str = "sent";

/// Writes a count down in place of an earlier one.
///
/// # Errors
/// If the journal can't be written: the statement must not be sent.
pub fn note(checkpoints: &dyn Checkpoints, sent: &Sent) -> Result<(), StepError> {
    checkpoints.record(OF, KIND, &format!("{} {}", sent.server, sent.statement), &serde_json::json!(sent))
}

/// What this run's drivers have sent so far.
///
/// # Errors
/// If the journal can't be read.
pub fn noted(checkpoints: &dyn Checkpoints) -> Result<Vec<Sent>, StepError> {
    let unreadable =
        |key: &str, error: &serde_json::Error| StepError::definite(format!("the journal's count of `{key}` can't be read: {error}"));
    let noted = checkpoints.recorded(OF, KIND)?.into_iter();
    noted.map(|(key, sent)| serde_json::from_value(sent).map_err(|error| unreadable(&key, &error))).collect()
}

/// What a run sent, for its report.
///
/// # Errors
/// If the journal can't be read.
pub fn sent_by(reader: &JournalReader, run: &str) -> Result<Vec<Sent>, JournalError> {
    let damaged = |key: &str, error: &serde_json::Error| {
        let reason = format!("the count of `{key}` can't be read: {error}");
        JournalError::Damaged { path: reader.path().to_owned(), sequence: None, reason }
    };
    reader
        .results(run, OF, KIND)?
        .into_iter()
        .map(|(key, sent)| serde_json::from_value(sent).map_err(|error| damaged(&key, &error)))
        .collect()
}
