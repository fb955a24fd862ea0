//! How a driver is asked for its run, and lets go of it.
//!
//! `dbmove cutover` takes over from a running `dbmove run`: it leaves a request, which the running driver sees with its
//! next heartbeat. That one *accepts* it, stops its steps at their checkpoints, releases the lease and ends; the asker then takes it as usual. A
//! driver that is inside `cutover` does not accept; after the asker's patience it gets [`LeaseError::Held`](super::lease::LeaseError::Held).
//!
//! Accepting and withdrawing are one transaction each, on the same row, so exactly one of them happens: a driver never stops
//! for somebody who has gone, and an asker never goes while a driver stops for it. Whose request was accepted waits on, for as long as
//! stopping takes ([`HANDOVER`] at most), whatever its patience was.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::journal::{Journal, JournalError};
use super::lease::Owner;

/// How long a driver that has accepted a request may take to let go: every step has its grace to stop, and is dropped after it.
pub const HANDOVER: Duration = Duration::from_secs(90);
/// A request that nobody has answered.
const OPEN: u8 = 0;
/// One that the driver lets go for.
const ACCEPTED: u8 = 1;
/// One that its asker has taken back, or that another driver has outrun. It stays in the file, so that no number is used twice.
const WITHDRAWN: u8 = 2;

/// A request for a run, as the journal numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(i64);

/// A request as the running driver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub id: RequestId,
    /// Who asks.
    pub by: String,
}

/// Asks the driver of a run to hand it over. The running driver sees it with its next heartbeat; whether it accepts shows in the lease.
///
/// # Errors
/// [`JournalError`] if the request can't be written.
pub async fn request_handover(journal: &Journal, run: &str) -> Result<RequestId, JournalError> {
    let run = run.to_owned();
    let asker = Owner::current();
    journal
        .write(move |journal| {
            journal.transaction(|transaction| {
                transaction
                    .execute(
                        "INSERT INTO requests (run, kind, asked_by, at) VALUES (?1, 'handover', ?2, ?3)",
                        params![run, format!("process {} on `{}`", asker.pid, asker.host), Timestamp::now().as_millisecond()],
                    )
                    .map_err(|error| journal.failed(&error))?;
                Ok(RequestId(transaction.last_insert_rowid()))
            })
        })
        .await
}

/// Takes a request back; false if the driver has accepted it, so that it is letting go.
///
/// # Errors
/// [`JournalError`] if it can't be written.
pub async fn withdraw_request(journal: &Journal, request: RequestId) -> Result<bool, JournalError> {
    journal
        .write(move |journal| {
            journal.transaction(|transaction| {
                let sql = |error: rusqlite::Error| journal.failed(&error);
                transaction
                    .execute("UPDATE requests SET answered = ?2 WHERE id = ?1 AND answered = ?3", params![request.0, WITHDRAWN, OPEN])
                    .map_err(sql)?;
                let answered: Option<u8> = transaction
                    .query_row("SELECT answered FROM requests WHERE id = ?1", params![request.0], |row| row.get(0))
                    .optional()
                    .map_err(sql)?;
                Ok(answered != Some(ACCEPTED))
            })
        })
        .await
}

/// Accepts a request; false if it was withdrawn.
///
/// # Errors
/// [`JournalError`] if it can't be written.
pub async fn accept_request(journal: &Journal, request: RequestId) -> Result<bool, JournalError> {
    journal
        .write(move |journal| {
            journal.transaction(|transaction| {
                transaction
                    .execute("UPDATE requests SET answered = ?2 WHERE id = ?1 AND answered = ?3", params![request.0, ACCEPTED, OPEN])
                    .map(|accepted| accepted > 0)
                    .map_err(|error| journal.failed(&error))
            })
        })
        .await
}

/// The oldest request for a run that nobody has answered.
pub(super) fn standing(transaction: &Transaction<'_>, run: &str) -> rusqlite::Result<Option<Asked>> {
    transaction
        .query_row(
            "SELECT id, asked_by FROM requests WHERE run = ?1 AND kind = 'handover' AND answered = ?2 ORDER BY id LIMIT 1",
            params![run, OPEN],
            |row| Ok(Asked { id: RequestId(row.get(0)?), by: row.get(1)? }),
        )
        .optional()
}

/// Settles every request for a run that a driver has just entered.
pub(super) fn outrun(transaction: &Transaction<'_>, run: &str) -> rusqlite::Result<()> {
    transaction.execute("UPDATE requests SET answered = ?2 WHERE run = ?1", params![run, WITHDRAWN]).map(drop)
}
