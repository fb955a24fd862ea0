//! The append-only record of every run: one SQLite file in the state directory.
//!
//! # What it promises
//!
//! * **Intent before effect.** [`RunJournal::append`] returns when the event is on disk (WAL with
//!   `synchronous=FULL`), so whatever acts after it can be found again after any crash. If it can't be written, the error
//!   is typed ([`JournalError::Full`], [`JournalError::Io`]) and nothing acts.
//! * **One voice.** Every write of a driver carries its epoch and is refused inside the same transaction if another
//!   driver holds the run by then. Events of all runs form one chain in the order of their commits.
//! * **Edits show.** Each event's hash is `sha256(previous hash ‖ canonical event)`; a second table keeps head and
//!   count, so that a truncated tail shows too. [`audit`](chain::audit) says where the chain breaks. Triggers refuse UPDATE
//!   and DELETE on events: they stop accidents; the chain is for the rest.
//! * **Readable without the driver.** [`JournalReader`] opens the file read-only, while a driver writes or when none
//!   runs; [`RunState`] is a fold over events, the same for `status`, `report` and a resumed driver.
//! * **Versioned.** `user_version` holds the format; a newer one is refused, an older one upgraded on open.
//!
//! # Why a reserve
//!
//! A full disk in the middle of a cutover must not keep the engine from undoing it: the undo needs written intents
//! too. The journal keeps one mebibyte beside it in a file called `reserve`, and gives it up when the driver has to
//! clean up after [`JournalError::Full`].
//!
//! # Blocking
//!
//! SQLite blocks. The async methods move to the blocking pool, at most [`WAITING`] at a time; a dropped future
//! doesn't take back a write under way. The synchronous ones (checkpoints, which steps save from where they stand) tell the
//! runtime that this thread is about to block, where the runtime can make use of it.

pub mod chain;
mod event;
mod file;
mod reader;
mod state;
mod writer;

pub use event::{Action, AfterUndo, Event, PlannedStep, RecordedError, RecordedEvent, RunStarted, StepResult, UndoScope};
pub use file::{FILE, FORMAT};
pub use reader::{Issued, JournalReader, RunSummary, SeriesPoint};
pub(super) use reader::{events_after, latest_run};
pub use state::{Finished, Phase, Rollback, RunState, StageState, StepState, UndoState, WriteGap};
pub use writer::{Journal, RunJournal, Sample};

use std::path::PathBuf;

use super::lease::LeaseError;
use super::outcome::ExitCode;
use super::step::{Failure, StepError};

/// How many journal writes may wait for the file at the same time.
pub const WAITING: usize = 64;

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Disk full.
    #[error(
        "the state directory `{directory}` is full: nothing acts without a written intent, so the run stops. Make room and give the same command again"
    )]
    Full {
        /// The state directory.
        directory: PathBuf,
    },
    /// Disk full before anything began.
    #[error(
        "the file system of the state directory `{directory}` is full, so the journal can't be opened; nothing was started, changed or undone. Make room on it (an empty journal takes about 2 MiB with its reserve) and give the same command again"
    )]
    NoRoom {
        /// The state directory.
        directory: PathBuf,
    },
    /// The disk or the file system failed.
    #[error(
        "the journal `{path}` can't be read or written: {error}. Nothing acts without a written intent; the run stops and can be resumed"
    )]
    Io {
        /// The journal, or the directory.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// Another process keeps it locked.
    #[error(
        "the journal `{path}` is locked by another process for longer than a write ever takes: a driver that was stopped in the middle of one? Nothing was touched. End that process (`dbmove status` names it) and give the same command again"
    )]
    Busy {
        /// The journal.
        path: PathBuf,
    },
    /// There is none.
    #[error("there is no journal in `{directory}`: no run was started with this state directory")]
    Missing {
        /// The state directory.
        directory: PathBuf,
    },
    /// The state directory or the journal is not what it should be.
    #[error("`{path}` is not safe to use as {what}: {reason}; nothing was touched")]
    Unsafe {
        /// The file or directory.
        path: PathBuf,
        /// `a state directory` or `a journal`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Written by a newer build.
    #[error(
        "the journal `{path}` has format {found}; this build reads up to {known}. Use the newer dbmove that wrote it; nothing was touched"
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// What this build knows.
        known: u32,
    },
    /// Not a journal, or a damaged one.
    #[error("the journal `{path}` is damaged{}: {reason}. `dbmove audit` says where; nothing was touched", .sequence.map(|n| format!(" at event {n}")).unwrap_or_default())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// The event, where one is to blame.
        sequence: Option<u64>,
        /// What is wrong.
        reason: String,
    },
    /// A run nobody has heard of.
    #[error("run `{0}` is not in the journal; `dbmove status` lists those that are")]
    UnknownRun(String),
    /// Another driver holds the run.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

impl JournalError {
    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            JournalError::Lease(_) | JournalError::Busy { .. } => ExitCode::LeaseHeld,
            JournalError::Missing { .. } | JournalError::UnknownRun(_) => ExitCode::Usage,
            _ => ExitCode::Error,
        }
    }
}

impl From<JournalError> for StepError {
    fn from(error: JournalError) -> Self {
        let failure = if matches!(error, JournalError::Lease(_)) { Failure::LeaseLost } else { Failure::Definite };
        StepError::new(failure, error.to_string())
    }
}
