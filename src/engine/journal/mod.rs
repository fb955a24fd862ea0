//! The append-only record of every run.

mod event;

pub use event::{Action, AfterUndo, Event, PlannedStep, RecordedError, RecordedEvent, RunStarted, StepResult, UndoScope};

use super::outcome::ExitCode;
use std::path::Path;

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Disk full.
    #[error(
        "the state directory `{0}` is full: nothing acts without a written intent, so the run has stopped cleanly. Make room and give the same command again"
    )]
    Full(String),
}
impl JournalError {
    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::Error
    }
}

/// The journal of a state directory; cheap to clone.
#[derive(Clone)]
pub struct Journal {}

impl Journal {
    /// Opens (and creates, if need be) the journal in a state directory.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(state_directory: &Path) -> Result<Journal, JournalError> {
        Err(JournalError::Full(state_directory.display().to_string()))
    }
}
