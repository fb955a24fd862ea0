//! Sets right what cascades of several levels left on the target while it was being copied.
//!
//! # Why
//!
//! Cascades are not in the binary log; dbmove carries them out itself, from the parent down, by what the target holds
//! ([`cascade`](crate::mysql::apply::cascade)). While tables are copied a level in the middle may not be there yet: with
//! `a → b → c`, an event has put a row of `c` on the target, its row of `b` is not copied, and `a`'s row is deleted. The source
//! deletes all three; on the target nothing leads from `a` to `c`, and `c`'s row stays. A row of a table that refers to itself
//! may stay in the same way, and so may one that is written again when events are repeated after a crash. Found by random
//! schemas (`DBMOVE_SEED=16 cargo test --test random`).
//!
//! # What must hold
//!
//! * Only tables below a table that is itself below another ([`Tables::below_cascades`]) are looked at, once, when their rows and
//!   those of all tables above them are in: from then on every level is there whenever a cascade is carried out.
//! * A table gets its unique indexes after that ([`copier`](crate::mysql::copy::copier)): a row that was left may hold a unique value that
//!   the source gave to another row long ago, and an event that brings that one would find it taken.
//! * A row is believed to differ by the rules of every comparison ([`super::settle`]): the same and different over several
//!   looks, with no event on it, for longer than a commit may take to become visible.
//! * Only what a missed cascade leaves is set right: a row that is gone on the source is deleted; a row whose referring columns
//!   alone differ takes the source's, and where these are part of the key, so that the row is under another one, it is brought.
//!   Everything else stays for `mysql.verify` to find and name: it is no cascade's doing.
//! * A row is written as a chunk is: read on the source, its position waited for, and put in while events on the table wait,
//!   if no event came to it since it was read; else it is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Compared, Engine, Pair, Verifier};
use crate::engine::step::Epoch;
use crate::mysql::apply::write::{delete_keys, upsert_rows};
use crate::mysql::bookkeeping;
use crate::mysql::cell::{Key, Row};
use crate::mysql::checksum::Side;
use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::range::{self, KeyRange};
use crate::mysql::range_gate::Span;
use crate::mysql::read::{self, KEYS_PER_QUERY};
use crate::mysql::store::MysqlStore;
#[cfg(doc)]
use crate::mysql::tables::Tables;
use crate::mysql::tables::{MovedTable, TableId};

/// Rows of a range that is compared at once.
const ROWS: u64 = 20_000;
/// How often rows that events keep away are looked at again; what is left then is left to `mysql.verify`.
const ROUNDS: u32 = 5;

impl Verifier {
    /// One for [`Verifier::mend_cascades`], if there are tables to look at.
    ///
    /// # Errors
    /// As [`Verifier::new`].
    pub async fn mender(store: &Arc<MysqlStore>) -> Result<Option<Arc<Verifier>>> {
        if store.described().await?.shared.tables.below_cascades().is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Verifier::new(store, Engine::Auto, true).await?)))
    }

    /// Whether the table is one that cascades may leave rows in, and that can be looked at.
    #[must_use]
    pub fn mends(&self, id: TableId) -> bool {
        self.described.shared.tables.below_cascades().contains(&id) && self.described.shared.tables.get(id).key.is_some()
    }

    /// Sets right what cascades left in these tables; how many rows were, by table. See the module's comment.
    ///
    /// # Errors
    /// As the servers give them; if another driver has taken over.
    pub async fn mend_cascades(
        &self,
        tables: &BTreeSet<TableId>,
        epoch: Epoch,
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<String, u64>> {
        let mut mended = BTreeMap::new();
        // Marks of single keys tell whether an event came in between.
        self.described.shared.touches.track();
        let mut pair = Pair::open(&self.store).await?;
        let mut writer = self.described.shared.open_writer(&self.store.target).await?;
        for table in self.tables.iter().filter(|table| tables.contains(&table.table) && table.comparison.has_key()) {
            let mut rows = 0;
            for _ in 0..ROUNDS {
                let keys = self.differing_keys(&mut pair, table, cancel).await?;
                let mut now = 0;
                for some in keys.chunks(KEYS_PER_QUERY) {
                    now += self.mend(&mut pair, &mut writer, table.table, some, epoch, cancel).await?;
                }
                rows += now;
                // What no cascade left is not looked at again: it is for `mysql.verify` to name.
                if now == 0 || now == keys.len() as u64 {
                    break;
                }
            }
            if rows > 0 {
                mended.insert(table.comparison.name().to_string(), rows);
            }
        }
        writer.close().await;
        Ok(mended)
    }

    /// Every key of a table that differs for certain.
    async fn differing_keys(&self, pair: &mut Pair, table: &Compared, cancel: &CancellationToken) -> Result<Vec<Key>> {
        let described = table.comparison.table(Side::Source);
        let comparable = range::comparable(described, table.comparison.table(Side::Target));
        let mut keys = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            if cancel.is_cancelled() {
                return Err(MysqlError::Cancelled);
            }
            let through = if comparable { range::next_upper(&mut pair.source, described, after.as_ref(), ROWS).await? } else { None };
            let part = KeyRange { after: after.take(), through: through.clone() };
            let (_, _, settled) = self.chunk(pair, table, &part, cancel).await?;
            keys.extend(settled.keys);
            after = through;
            if after.is_none() {
                return Ok(keys);
            }
        }
    }

    async fn mend(
        &self,
        pair: &mut Pair,
        writer: &mut Session,
        id: TableId,
        keys: &[Key],
        epoch: Epoch,
        cancel: &CancellationToken,
    ) -> Result<u64> {
        let shared = &self.described.shared;
        let table = shared.tables.get(id);
        let touches = &shared.touches;
        let since = touches.now();
        let source: BTreeMap<Key, Row> = read::by_keys(&mut pair.source, &table.table, keys).await?.into_iter().collect();
        self.catch_up(&mut pair.source, cancel).await?;
        let _pass = tokio::select! {
            () = cancel.cancelled() => return Err(MysqlError::Cancelled),
            pass = shared.gate.enter_chunk(id, Span::Whole) => pass,
        };
        let target: BTreeMap<Key, Row> = read::by_keys(&mut pair.target, &table.target, keys).await?.into_iter().collect();
        let touched = |key: &Key| {
            let mark = if touches.saturated(id) { Some(touches.last(id)) } else { touches.of(id, key) };
            mark.is_some_and(|mark| mark >= since)
        };
        let referring = self.referring_columns(id);
        let rekeyed = table.key.iter().flatten().any(|column| referring.contains(column));
        let mut gone = Vec::new();
        let mut changed = Vec::new();
        for key in keys.iter().filter(|key| !touched(key)) {
            match (source.get(key), target.get(key)) {
                (None, Some(_)) => gone.push(key.clone()),
                (Some(ours), Some(theirs)) if only_differ_in(table, ours, theirs, &referring) => changed.push(ours),
                (Some(ours), None) if rekeyed => changed.push(ours),
                _ => {}
            }
        }
        if gone.is_empty() && changed.is_empty() {
            return Ok(0);
        }
        let rows = (gone.len() + changed.len()) as u64;
        writer.run("BEGIN", "opening a transaction").await?;
        bookkeeping::hold_lease(writer, &shared.store, epoch).await?;
        let replaced: Vec<Key> = changed.iter().filter_map(|row| table.key_of(row)).collect();
        delete_keys(writer, table, gone.iter().chain(&replaced)).await?;
        upsert_rows(writer, table, &changed).await?;
        writer.run("COMMIT", "setting right what a cascade left").await?;
        touches.mark(id, gone.into_iter().chain(replaced));
        Ok(rows)
    }

    /// The columns by which a table refers to parents whose changes cascade to it.
    fn referring_columns(&self, id: TableId) -> BTreeSet<usize> {
        let tables = &self.described.shared.tables;
        tables
            .iter()
            .flat_map(|(_, parent)| parent.children.iter().filter(|child| child.table == id))
            .flat_map(|child| child.columns.clone())
            .collect()
    }
}

/// Whether two rows of one key are equal but for these columns.
fn only_differ_in(table: &MovedTable, ours: &Row, theirs: &Row, columns: &BTreeSet<usize>) -> bool {
    table.written.iter().all(|&column| columns.contains(&column) || ours[column] == theirs[column])
}
