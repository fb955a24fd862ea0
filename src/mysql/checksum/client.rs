//! Hashing rows here.
//!
//! Rows are streamed, encoded ([`super::super::cell::Cell::encode`]) into a buffer, and hashed a buffer
//! at a time on the blocking pool: SHA-256 of a hundred thousand rows must not hold up the sockets of
//! other sessions. While one buffer is hashed the next is filled, at most two are on their
//! way, so memory is bounded by the buffers (and the largest row), not by the table.

use std::collections::VecDeque;

use tokio::task::JoinHandle;

use super::super::cell::Key;
use super::super::connect::Session;
use super::super::error::{MysqlError, Result};
use super::super::read::{Answers, Order, Scope};
use super::comparison::{Comparison, Side};
use crate::verify::{RowHash, Tally};

/// A buffer is hashed when it holds this many bytes.
const BUFFER: usize = 256 << 10;

/// Buffers hashed while the next is filled.
const IN_FLIGHT: usize = 2;

/// The tally of the rows in a scope.
///
/// # Errors
/// If the server refuses the query or the connection breaks.
pub async fn tally(session: &mut Session, comparison: &Comparison, side: Side, scope: &Scope<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    hashes(session, comparison, side, scope, false, |_, hash| tally.add(hash)).await?;
    Ok(tally)
}

/// Each row's key and hash, handed to `each`.
///
/// # Errors
/// As [`tally`].
pub async fn list(
    session: &mut Session,
    comparison: &Comparison,
    side: Side,
    scope: &Scope<'_>,
    mut each: impl FnMut(Key, RowHash),
) -> Result<()> {
    hashes(session, comparison, side, scope, true, |key, hash| each(Key(key.into()), hash)).await
}

/// Rows as bytes, one behind the other: where each row's key ends, and where the row ends.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<(usize, usize)>,
}

impl Batch {
    fn hash(self) -> (Batch, Vec<RowHash>) {
        let mut start = 0;
        let hashes = self
            .ends
            .iter()
            .map(|&(key_end, end)| {
                let hash = RowHash::of(&self.bytes[key_end..end]);
                debug_assert!(start <= key_end);
                start = end;
                hash
            })
            .collect();
        (self, hashes)
    }
}

/// Streams the rows and hands each key's bytes (empty unless `with_key`) and hash to `each`.
pub(super) async fn hashes(
    session: &mut Session,
    comparison: &Comparison,
    side: Side,
    scope: &Scope<'_>,
    with_key: bool,
    mut each: impl FnMut(&[u8], RowHash),
) -> Result<()> {
    let (select, keys, binary) = comparison.select(side, with_key)?;
    let mut answers = Answers::open(session, comparison.table(side), &select, binary, scope, Order::Any, None).await?;
    let mut waiting: VecDeque<JoinHandle<(Batch, Vec<RowHash>)>> = VecDeque::new();
    let mut give = |(batch, hashes): (Batch, Vec<RowHash>)| {
        let mut start = 0;
        for (&(key_end, end), hash) in batch.ends.iter().zip(hashes) {
            each(&batch.bytes[start..key_end], hash);
            start = end;
        }
        batch
    };
    let mut batch = Batch::default();
    while let Some(row) = answers.next().await? {
        let mut key_end = batch.bytes.len();
        for index in 0..row.len() {
            answers.encode(&row, index, &mut batch.bytes)?;
            if index + 1 == keys {
                key_end = batch.bytes.len();
            }
        }
        batch.ends.push((key_end, batch.bytes.len()));
        if batch.bytes.len() >= BUFFER {
            let full = std::mem::take(&mut batch);
            waiting.push_back(tokio::task::spawn_blocking(move || full.hash()));
            if waiting.len() >= IN_FLIGHT
                && let Some(oldest) = waiting.pop_front()
            {
                batch = give(joined(oldest).await?);
                batch.bytes.clear();
                batch.ends.clear();
            }
        }
    }
    while let Some(oldest) = waiting.pop_front() {
        give(joined(oldest).await?);
    }
    // What is left is less than a buffer: too little to be worth a thread.
    give(batch.hash());
    Ok(())
}

async fn joined<T>(handle: JoinHandle<T>) -> Result<T> {
    // The hashing itself can't fail; the runtime is going down.
    handle.await.map_err(|_| MysqlError::Cancelled)
}
