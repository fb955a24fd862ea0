//! The marked keys: what events touched since it was compared.
//!
//! While the source moves this runs in rounds and keeps the number of marked keys small ([`Verifier::round`]).
//! At the fence it runs once, nothing moves, and its result is the last word ([`Verifier::last`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use tokio_util::sync::CancellationToken;

use super::{Compared, Pair, Verifier};
use crate::mysql::cell::Key;
use crate::mysql::checksum::compare::{fetch_difference, rows};
use crate::mysql::checksum::{Side, keyless, tally};
use crate::mysql::error::Result;
use crate::mysql::read::{KEYS_PER_QUERY, Scope};
use crate::mysql::tables::TableId;
use crate::mysql::touches::TouchedKey;
use crate::verify::merkle::{self, Digest, Level};
use crate::verify::report::{Coverage, TableResult, Verification};
use crate::verify::{Difference, RowHash, Tally};

/// Marked keys compared in one round at most.
const ROUND: usize = 20_000;

/// What a round did.
#[derive(Default)]
pub struct Round {
    /// Keys found equal and unmarked.
    pub settled: u64,
    /// Keys still marked.
    pub left: u64,
    /// Rows that differ.
    pub differences: Vec<Difference>,
    /// Every key that was marked when the round began was looked at.
    pub complete: bool,
}

impl Verifier {
    fn compared(&self, table: TableId) -> Option<&std::sync::Arc<Compared>> {
        self.tables.iter().find(|compared| compared.table == table)
    }

    /// Compares the longest marked keys while everything moves.
    ///
    /// # Errors
    /// As the servers give them.
    pub async fn round(&self, pair: &mut Pair, cancel: &CancellationToken) -> Result<Round> {
        let touches = &self.described.shared.touches;
        let marked = touches.marked(ROUND);
        let mut round = Round { complete: marked.len() < ROUND, ..Round::default() };
        let mut by_table: BTreeMap<TableId, Vec<TouchedKey>> = BTreeMap::new();
        for touched in marked {
            by_table.entry(touched.table).or_default().push(touched);
        }
        for (id, touched) in by_table {
            let Some(table) = self.compared(id) else { continue };
            for some in touched.chunks(KEYS_PER_QUERY) {
                let keys: Vec<Key> = some.iter().map(|touched| touched.key.clone()).collect();
                let suspects = self.differing(pair, table, &keys, cancel).await?;
                let mut steady = Vec::new();
                for touched in some {
                    if !suspects.contains(&touched.key) {
                        round.settled += u64::from(touches.settle(touched));
                    } else if touches.of(id, &touched.key) == Some(touched.mark) {
                        steady.push(touched.key.clone());
                    }
                }
                if !steady.is_empty() {
                    round.differences.extend(self.settle(pair, table, &steady, cancel).await?.differences);
                }
            }
        }
        round.left = touches.count() as u64;
        Ok(round)
    }

    /// Keys of `keys`, or found under them, whose rows differ right now.
    async fn differing(&self, pair: &mut Pair, table: &Compared, keys: &[Key], cancel: &CancellationToken) -> Result<BTreeSet<Key>> {
        let source = rows(&mut pair.source, &table.comparison, Side::Source, keys).await?;
        self.catch_up(&mut pair.source, cancel).await?;
        let target = rows(&mut pair.target, &table.comparison, Side::Target, keys).await?;
        let found: BTreeSet<&Key> = source.keys().chain(target.keys()).collect();
        Ok(found.into_iter().filter(|key| source.get(*key) != target.get(*key)).cloned().collect())
    }

    /// The last check at the fence: every marked key, every keyless table with events since it was compared,
    /// every saturated table. Nothing moves, so one look is exact. `before` is the full comparison's result.
    ///
    /// # Errors
    /// As the servers give them.
    pub async fn last(&self, before: &Verification, cancel: &CancellationToken) -> Result<Verification> {
        let mut pair = Pair::open(&self.store).await?;
        let touches = &self.described.shared.touches;
        let mut result = Verification { tables: before.tables.clone(), ..Verification::default() };
        // A table that was dropped since is nothing to speak of.
        let names: BTreeSet<String> = self.described.shared.tables.iter().map(|(_, table)| table.name().to_string()).collect();
        result.tables.retain(|table| names.contains(&table.table));
        // What waited for the fence is compared now; what can never be compared stays named.
        let keyless_names: BTreeSet<String> =
            self.tables.iter().filter(|table| !table.comparison.has_key()).map(|table| table.comparison.name().to_string()).collect();
        result.not_compared = before.not_compared.iter().filter(|left| !keyless_names.contains(&left.object)).cloned().collect();
        for left in &self.not_comparable {
            if !result.not_compared.contains(left) {
                result.not_compared.push(left.clone());
            }
        }
        let mut digests: BTreeMap<String, Digest> = BTreeMap::new();
        let saturated = touches.saturated_tables();
        let marked = touches.marked(usize::MAX);
        let mut by_table: BTreeMap<TableId, Vec<Key>> = BTreeMap::new();
        for touched in marked {
            by_table.entry(touched.table).or_default().push(touched.key);
        }
        for table in &self.tables {
            let started = std::time::Instant::now();
            let name = table.comparison.name().to_string();
            let mut differences = Vec::new();
            let (rows_compared, coverage, tallied) = if !table.comparison.has_key() {
                let seen = self.store.keyless_verified.lock().unwrap_or_else(PoisonError::into_inner).get(&table.table).copied();
                if seen == Some(touches.last(table.table)) {
                    continue;
                }
                let compared = keyless::compare(&mut pair.source, &mut pair.target, &table.comparison, table.method, 1000).await?;
                differences.extend(compared.differences);
                (compared.source.rows, Coverage::Full, compared.source)
            } else if saturated.contains(&table.table) {
                let ours = tally(&mut pair.source, &table.comparison, Side::Source, table.method, &Scope::Table).await?;
                let theirs = tally(&mut pair.target, &table.comparison, Side::Target, table.method, &Scope::Table).await?;
                if ours != theirs {
                    let whole = crate::mysql::range::KeyRange::all();
                    let found = fetch_difference(&mut pair.source, &mut pair.target, &table.comparison, table.method, &whole, 1000).await?;
                    let keys: Vec<Key> = found.keys.into_iter().collect();
                    differences.extend(self.settle(&mut pair, table, &keys, cancel).await?.differences);
                }
                (ours.rows, Coverage::Full, ours)
            } else if let Some(keys) = by_table.get(&table.table) {
                let mut tally = Tally::default();
                for some in keys.chunks(KEYS_PER_QUERY) {
                    let source = rows(&mut pair.source, &table.comparison, Side::Source, some).await?;
                    let target = rows(&mut pair.target, &table.comparison, Side::Target, some).await?;
                    for (key, row) in &source {
                        let mut bytes = key.0.to_vec();
                        row.iter().for_each(|cell| cell.encode(&mut bytes));
                        tally.add(RowHash::of(&bytes));
                    }
                    let found: BTreeSet<&Key> = source.keys().chain(target.keys()).collect();
                    let unequal: Vec<Key> = found.into_iter().filter(|key| source.get(*key) != target.get(*key)).cloned().collect();
                    if !unequal.is_empty() {
                        differences.extend(self.settle(&mut pair, table, &unequal, cancel).await?.differences);
                    }
                }
                (keys.len() as u64, Coverage::Changed { keys: keys.len() as u64 }, tally)
            } else {
                continue;
            };
            digests.insert(name.clone(), merkle::chunk(&name, "changed", &tallied));
            record(&mut result, table, name, rows_compared, coverage, differences.len() as u64, started.elapsed().as_secs_f64());
            for difference in differences {
                result.push(difference);
            }
        }
        let changed = merkle::root(Level::Store, "changed", &digests);
        let mut parts = BTreeMap::from([(format!("{} changed", self.store.name), changed)]);
        parts.extend(before.run_root.map(|root| (format!("{} full", self.store.name), root)));
        result.run_root = Some(merkle::root(Level::Run, "", &parts));
        Ok(result)
    }
}

/// Puts a table's last check into the result: what was compared in full before stays so.
fn record(result: &mut Verification, table: &Compared, name: String, rows: u64, coverage: Coverage, differences: u64, seconds: f64) {
    if let Some(known) = result.tables.iter_mut().find(|known| known.table == name) {
        known.differences += differences;
        known.seconds += seconds;
        if coverage == Coverage::Full {
            known.rows = rows;
            known.coverage = Coverage::Full;
        }
        return;
    }
    result.tables.push(TableResult {
        table: name,
        rows,
        bytes: table.comparison.table(Side::Source).data_bytes,
        chunks: 1,
        seconds,
        method: format!("{} ({})", table.method, table.why),
        coverage,
        verified_at: None,
        differences,
        root: None,
    });
    result.tables.sort_by(|a, b| a.table.cmp(&b.table));
}
