//! Why a demo could not be carried through.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::demo::ledger::LedgerError;
use crate::demo::seed::SeedError;
use crate::demo::writers::WritersError;
use crate::engine::journal::JournalError;
use crate::engine::outcome::ExitCode;
use crate::local::{LocalError, ProgramError};
use crate::telemetry::human;

/// A demo that could not be carried through. Its servers and directory are gone, unless they were to be kept.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The servers are not there.
    #[error("{why}")]
    NotFetched {
        /// Which one, and where it was looked for.
        why: String,
    },
    /// A server could not be started.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// HAProxy could not be started.
    #[error(transparent)]
    Proxy(#[from] ProgramError),
    /// The school could not be made.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The users could not write.
    #[error(transparent)]
    Writers(#[from] WritersError),
    /// The bank's book.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// dbmove's journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file operation failed.
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A server could not be asked.
    #[error("{server} could not be asked: {source}")]
    Server {
        /// The server.
        server: String,
        /// What the driver or the server said.
        source: mysql_async::Error,
    },
    /// A child process could not be started or followed.
    #[error("`{command}` could not be run: {source}")]
    Start {
        /// What was to run.
        command: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A child ended badly.
    #[error("`{command}` ended with {status}: {said}")]
    Command {
        /// What ran.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// A child did not end.
    #[error("`{command}` was not done after {}", human::duration(*after))]
    TooLong {
        /// What ran.
        command: &'static str,
        /// For how long.
        after: Duration,
    },
    /// There was no middle of the copy to be killed in.
    #[error("the plug could not be pulled in the middle of the copy: {found}; a larger `--scale` gives it more of a middle")]
    TooQuick {
        /// What was found instead.
        found: String,
    },
    /// A command ended by itself while it should have gone on.
    #[error("`{command}` ended before it should, with {status}: {said}")]
    EndedEarly {
        /// What ran.
        command: String,
        /// How.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// A transfer is missing on the old server behind the rollback.
    #[error("behind the rollback the bank's book does not balance on the old server: {notes}")]
    RolledBackShort {
        /// What is wrong.
        notes: String,
    },
    /// No report was written.
    #[error("no report was written")]
    NoReport,
    /// The old server can be written to after the switch.
    #[error("the old server is not `read_only` after the switch")]
    NotFrozen,
    /// A transfer is not on the new server as it was on the old one.
    #[error("a transfer differs: {old} on the old server, {new} on the new one")]
    TransfersDiffer {
        /// On the old server.
        old: String,
        /// On the new one.
        new: String,
    },
}

impl DemoError {
    /// What the process ends with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            DemoError::TransfersDiffer { .. } | DemoError::RolledBackShort { .. } => ExitCode::Differences,
            DemoError::Command { status, .. } if status.code() == Some(i32::from(ExitCode::Differences.code())) => ExitCode::Differences,
            _ => ExitCode::Error,
        }
    }
}
