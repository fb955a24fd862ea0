//! The tail: reads the source's binary log from a position and says what each event means.
//!
//! # What must hold
//!
//! * No row event of an included table is dropped. What can't be decoded exactly, or does not fit
//!   the catalog, stops the run and names the event's position.
//! * Only transaction ends are positions: an XID, a COMMIT, the last rows event of a lone
//!   non-transactional statement. Between transactions every event moves the position, so that a
//!   position read on the source by `SHOW MASTER STATUS` is always reached.
//! * A data-changing *statement* for an included table stops the run: its rows are not in the log. The exception is one that
//!   empties a table as a whole (`TRUNCATE`, and what a server logs of a MEMORY table that was lost with its process).
//! * A log that is another one under the same name (`RESET MASTER`, another server) is noticed before anything of it counts:
//!   each file is handed on with what identifies it ([`TailEvent::LogFile`]).
//! * An event that is not known and not marked as one that may be passed over stops the run.
//! * Memory is bounded: changes wait in a channel whose weight is limited by permits; a transaction
//!   larger than the limit is handed on in parts ([`TailEvent::Rows`] without a
//!   [`TailEvent::TransactionEnd`] yet).
//!
//! # Rolled-back transactions
//!
//! With mixed engines a transaction that was rolled back is in the log when it changed a
//! non-transactional table: its InnoDB rows must not count, its MyISAM rows must. So changes are
//! held until the transaction's end ([`transaction`]); if parts of it were handed on already
//! because of its size, the run stops instead of guessing.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`statement`] | what a statement in the log means |
//! | [`dialect`] | charset and quotes of a statement |
//! | [`load_data`] | `LOAD DATA` that was logged as a statement |
//! | [`xa`] | transactions between prepare and commit |
//! | [`event_type`] | the numbers of events |
//! | [`transaction`] | the changes of the transaction being read, with its savepoints |
//! | [`stream`] | the connection and the loop |
//! | `ends` | where transactions begin and end |
//! | `token` | the words of a statement |

pub mod dialect;
mod ends;
pub mod event_type;
pub mod load_data;
pub mod statement;
pub mod stream;
mod token;
pub mod transaction;
pub mod xa;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cell::Cell;
use super::position::Position;
use super::rows::RowChange;
use super::tables::TableId;

/// What the tail hands on, in the order of the log.
#[derive(Debug)]
pub enum TailEvent {
    /// Row changes of one table, from one event.
    Rows(Rows),
    /// The transaction ended: this is a position.
    TransactionEnd {
        /// Its end.
        position: Position,
        /// When it was logged: seconds since 1970 by the source's clock.
        at: u32,
    },
    /// Something between transactions that does not concern us: this is a position.
    Passed {
        /// Its end.
        position: Position,
        /// When it was logged: seconds since 1970 by the source's clock; 0 if unknown.
        at: u32,
    },
    /// A log file begins here, or reading began in it.
    LogFile(LogFile),
    /// Something a person should know (accounts changed on the source).
    Note(String),
}

/// What tells a log file from another of the same name: as it stands in the file's first event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its name.
    pub file: String,
    /// When it was begun: seconds since 1970 by the source's clock.
    pub created: u32,
    /// The number (`server_id`) of the server that wrote it.
    pub server_id: u32,
}

/// Row changes of one event.
#[derive(Debug)]
pub struct Rows {
    /// The table.
    pub table: TableId,
    /// The whole table was emptied (before these changes). A SELECT on the source that begins so much later than the event was
    /// handed on sees it empty for certain.
    pub emptied: Option<Duration>,
    /// The changes in order.
    pub changes: Vec<RowChange>,
    /// End of the event.
    pub end: Position,
    /// Memory held, roughly, in bytes.
    pub weight: usize,
    /// What holds that memory against the limit; returned when the changes are written.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Limits the memory of changes on their way, in KiB: one permit each.
#[derive(Clone)]
pub struct MemoryLimit {
    permits: Arc<Semaphore>,
    kib: u32,
}

impl MemoryLimit {
    /// A limit in bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let kib = u32::try_from((bytes / 1024).max(64)).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4);
        MemoryLimit { permits: Arc::new(Semaphore::new(kib as usize)), kib }
    }

    /// The limit, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.kib) * 1024
    }

    /// Waits until this much may be held. A single event larger than the limit waits for all of it.
    pub async fn hold(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(self.kib).min(self.kib);
        // The semaphore is never closed, so acquiring can't fail.
        self.permits.clone().acquire_many_owned(kib).await.ok()
    }
}

/// Memory that changes hold, roughly, in bytes.
#[must_use]
pub fn weight(changes: &[RowChange]) -> usize {
    changes
        .iter()
        .flat_map(|change| change.before.iter().chain(&change.after))
        .map(|row| 24 + row.iter().map(Cell::weight).sum::<usize>())
        .sum()
}
