//! Re-copies rows that a comparison found different, only when asked to (`dbmove verify --repair`).
//!
//! # What must hold
//!
//! The source may be written and the applier may be at work meanwhile, and a repair must never put an older row over a newer one:
//!
//! * a key is repaired only if no event touched it from [`STEADY_FOR`](super::settle::STEADY_FOR) before its row was read until the row is in. That time is
//!   longer than a commit takes to become visible after its event, so the row read holds every event applied so far. A key that was touched is left
//!   alone: its event wrote the whole row, and the next comparison looks at it again;
//! * the row goes in once the applier has passed the position read *after* the row, behind the gate that keeps chunks and events
//!   apart. So an event that comes later finds what the source had before it, and no unique value that is still to come;
//! * a cascade is no event on the rows it takes, and it marks only rows that it finds: a row that is missing on the target has no
//!   mark when its parent goes. So a row that refers to a parent which went lately ([`parents`](crate::mysql::apply::parents)) is left alone too;
//! * a row the source does not have is deleted; any other is deleted by key and inserted, all in one transaction under the lease. Foreign keys are not
//!   checked and so nothing cascades: what a cascade had removed is a difference of its own, and repaired as such;
//! * a unique value may be held by a row of another part. Parts that the target refused for that are tried again after the others, and then the
//!   row that holds the value goes: on the source that value is another row's, so it differs, and the next comparison finds it missing.
//!
//! A table without key has no address for a row. It is copied once more as a whole, from a position of its own, in place of what is there
//! ([`KeylessCopy::replace`]): its events up to that position are skipped, in the same transaction.
//!
//! A repair proves nothing: everything is compared once more after it. And it mends rows only, never a table's structure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::PoisonError;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::settle::STEADY_FOR;
use super::{Pair, Verifier};
use crate::engine::step::Epoch;
use crate::mysql::apply::cascade;
use crate::mysql::apply::parents::Lately;
use crate::mysql::apply::write::{DUPLICATE_KEY, delete_keys, make_room_for, upsert_rows};
use crate::mysql::bookkeeping;
use crate::mysql::cell::{Key, Row};
use crate::mysql::connect::Session;
use crate::mysql::copy::keyless::KeylessCopy;
use crate::mysql::copy::load;
use crate::mysql::copy::{CopySettings, LoadPath};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::range_gate::Span;
use crate::mysql::read::{self, KEYS_PER_QUERY};
use crate::mysql::tables::{MovedTable, TableId};
use crate::mysql::touches::{Mark, Touches};

/// What became of the rows that differed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Keys whose row is now as the source has it, and rows of tables without key.
    pub rows: u64,
    /// Keys that were touched meanwhile, or whose row the target refused.
    pub left: u64,
}

/// The mark that was the next one [`STEADY_FOR`] ago: a key with an older one was not touched since.
struct Steady {
    seen: VecDeque<(Instant, Mark)>,
}

impl Steady {
    fn begin(touches: &Touches) -> Self {
        Steady { seen: VecDeque::from([(Instant::now(), touches.now())]) }
    }

    fn since(&mut self, touches: &Touches) -> Mark {
        self.seen.push_back((Instant::now(), touches.now()));
        while self.seen.get(1).is_some_and(|(at, _)| at.elapsed() >= STEADY_FOR) {
            self.seen.pop_front();
        }
        self.seen.front().map_or(0, |(_, mark)| *mark)
    }
}

/// One repair under way.
struct Repair<'a> {
    verifier: &'a Verifier,
    pair: Pair,
    writer: Session,
    epoch: Epoch,
    steady: Steady,
    cancel: &'a CancellationToken,
}

impl Verifier {
    /// Re-copies the rows that the last comparison found different.
    ///
    /// # Errors
    /// As the servers give them; a part that failed is rolled back as a whole.
    pub async fn repair(&self, epoch: Epoch, cancel: &CancellationToken) -> Result<Repaired> {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        let shared = &self.described.shared;
        let (keyed, keyless): (BTreeMap<_, _>, BTreeMap<_, _>) =
            found.into_iter().partition(|(id, _)| shared.tables.get(*id).key.is_some());
        let mut repair = Repair {
            verifier: self,
            pair: Pair::open(&self.store).await?,
            writer: shared.open_writer(&self.store.target).await?,
            epoch,
            steady: Steady::begin(&shared.touches),
            cancel,
        };
        if !keyed.is_empty() {
            tokio::select! {
                () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                () = tokio::time::sleep(STEADY_FOR) => {}
            }
        }
        let mut repaired = Repaired::default();
        for (id, keys) in keyed {
            let keys: Vec<Key> = keys.into_iter().collect();
            let one = repair.table(id, &keys).await?;
            repaired.rows += one.rows;
            repaired.left += one.left;
        }
        for id in keyless.into_keys() {
            repaired.rows += repair.keyless(id).await?;
        }
        repair.writer.close().await;
        Ok(repaired)
    }
}

impl Repair<'_> {
    /// A table with a key. Its keys are marked when all of it is done, whatever came of it, so that whoever compares what was touched
    /// looks at them too; earlier the marks would pass for events.
    async fn table(&mut self, id: TableId, keys: &[Key]) -> Result<Repaired> {
        let repaired = self.parts(id, keys).await;
        self.verifier.described.shared.touches.mark(id, keys.iter().cloned());
        repaired
    }

    async fn parts(&mut self, id: TableId, keys: &[Key]) -> Result<Repaired> {
        let mut repaired = Repaired::default();
        let mut parts: Vec<&[Key]> = keys.chunks(KEYS_PER_QUERY).collect();
        for make_room in [false, true] {
            let mut refused = Vec::new();
            for part in parts {
                match self.part(id, part, make_room).await? {
                    Some(one) => {
                        repaired.rows += one.rows;
                        repaired.left += one.left;
                    }
                    None => refused.push(part),
                }
            }
            parts = refused;
        }
        repaired.left += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        Ok(repaired)
    }

    /// Some keys of a table in one transaction; `None` if a unique value is held by a row of another part.
    async fn part(&mut self, id: TableId, keys: &[Key], make_room: bool) -> Result<Option<Repaired>> {
        let shared = &self.verifier.described.shared;
        let table = shared.tables.get(id);
        let since = self.steady.since(&shared.touches);
        let read_started = Instant::now();
        let rows = read::by_keys(&mut self.pair.source, &table.table, keys).await?;
        self.verifier.catch_up(&mut self.pair.source, self.cancel).await?;
        let _pass = tokio::select! {
            () = self.cancel.cancelled() => return Err(MysqlError::Cancelled),
            pass = shared.gate.enter_chunk(id, Span::Whole) => pass,
        };
        let touched = |key: &Key| shared.touches.of(id, key).is_some_and(|mark| mark >= since);
        let lately = shared.parents.lately(&shared.tables, id, read_started);
        let orphaned: BTreeSet<&Key> = rows.iter().filter(|(_, row)| may_be_orphaned(table, row, &lately)).map(|(key, _)| key).collect();
        let mut all_left = shared.touches.saturated(id);
        // Where two spellings are one key to the server, what is done to a key is done to any spelling of it: the rows that are there count too.
        if table.key_columns().iter().any(|column| column.compares_by_collation()) {
            let there = read::by_keys(&mut self.pair.target, &table.target, keys).await?;
            all_left |= !orphaned.is_empty() || rows.iter().chain(&there).any(|(key, _)| touched(key));
        }
        let settled = |key: &Key| !all_left && !orphaned.contains(key) && !touched(key);
        let asked: BTreeSet<&Key> = keys.iter().filter(|key| settled(key)).collect();
        let kept: Vec<&(Key, Row)> = rows.iter().filter(|(key, _)| settled(key)).collect();
        let left = (keys.len() - asked.len()) as u64;
        if asked.is_empty() {
            return Ok(Some(Repaired { rows: 0, left }));
        }
        let deleted: BTreeSet<&Key> = asked.iter().copied().chain(kept.iter().map(|(key, _)| key)).collect();
        let rows: Vec<&Row> = kept.iter().map(|(_, row)| row).collect();
        let writer = &mut self.writer;
        writer.run("BEGIN", "opening a transaction").await?;
        let filled = async {
            bookkeeping::hold_lease(writer, &shared.store, self.epoch).await?;
            delete_keys(writer, table, deleted.into_iter()).await?;
            if make_room {
                make_room_for(writer, table, &rows).await?;
            }
            upsert_rows(writer, table, &rows).await?;
            writer.run("COMMIT", "committing a repair").await
        }
        .await;
        match filled {
            Ok(()) => Ok(Some(Repaired { rows: asked.len() as u64, left })),
            Err(error) => {
                // If this fails too, the connection is gone and the server rolls back by itself.
                let _ = writer.run("ROLLBACK", "rolling a repair back").await;
                if error.code() == Some(DUPLICATE_KEY) { Ok(None) } else { Err(error) }
            }
        }
    }

    /// A table without key, as a whole; its rows.
    async fn keyless(&mut self, id: TableId) -> Result<u64> {
        let shared = &self.verifier.described.shared;
        let path = load::choose(&mut self.writer, LoadPath::Auto).await?;
        let copy = KeylessCopy {
            shared,
            source: &self.verifier.store.source,
            epoch: self.epoch,
            path,
            chunk_bytes: CopySettings::default().chunk_bytes,
        };
        let loaded = copy.replace(id, &mut self.writer, self.cancel).await?;
        shared.touches.mark(id, []);
        Ok(loaded.inserted)
    }
}

/// Whether a row refers to a parent that went or changed its key lately, or might: where text is compared by collation, or where
/// what was lately can't be told, any row might.
fn may_be_orphaned(table: &MovedTable, row: &Row, lately: &Lately) -> bool {
    let Lately::Changes(changes) = lately else { return true };
    changes.iter().any(|(child, change)| {
        cascade::effect(child, change).is_some_and(|(_, values)| {
            child
                .columns
                .iter()
                .zip(&values)
                .all(|(&column, value)| table.table.columns[column].compares_by_collation() || row[column] == *value)
        })
    })
}
