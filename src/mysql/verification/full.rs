//! Every row of every table, chunk by chunk, several at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::settle::Settled;
use super::{Compared, Pair, Verifier};
use crate::engine::steering::Steering;
use crate::mysql::cell::Key;
use crate::mysql::checksum::{Side, keyless, listing, tally};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::range::{self, KeyRange};
use crate::mysql::read::Scope;
use crate::verify::merkle::{self, Digest, Level};
use crate::verify::report::{Coverage, NotCompared, TableResult, Verification};
use crate::verify::{Difference, Tally};

/// Rows of a chunk at most.
const ROWS: u64 = 20_000;
/// Bytes of a chunk, about.
const BYTES: u64 = 8 << 20;
/// Differences kept per keyless table.
const KEYLESS_DIFFERENCES: usize = 1000;

/// How far the comparison is.
#[derive(Debug, Default)]
pub struct VerifyProgress {
    /// Rows compared.
    pub rows: AtomicU64,
    /// Chunks compared.
    pub chunks: AtomicU64,
    /// Differences found.
    pub differences: AtomicU64,
    note: Mutex<String>,
}

impl VerifyProgress {
    /// What is being compared.
    #[must_use]
    pub fn note(&self) -> String {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn say(&self, note: String) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }
}

#[derive(Default)]
struct TableSum {
    rows: u64,
    chunks: BTreeMap<String, Digest>,
    differences: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    verified_at: Option<crate::mysql::position::Position>,
}

#[derive(Default)]
struct Sums {
    tables: BTreeMap<usize, TableSum>,
    verification: Verification,
}

type Work = (Arc<Compared>, u64, KeyRange);

/// When the next chunk may be compared.
#[derive(Clone)]
struct Turns {
    steering: Steering,
    cancel: CancellationToken,
}

impl Turns {
    async fn next(&self) -> Result<()> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(MysqlError::Cancelled),
            () = self.steering.compares() => Ok(()),
        }
    }
}

impl Verifier {
    /// Compares everything. `workers` chunks are compared at once; a paused run begins no new one.
    ///
    /// # Errors
    /// As the servers give them. Differences are no error: they are in the result.
    pub async fn full(
        self: &Arc<Self>,
        workers: usize,
        progress: &Arc<VerifyProgress>,
        steering: &Steering,
        cancel: &CancellationToken,
    ) -> Result<Verification> {
        let touches = &self.described.shared.touches;
        touches.track();
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for table in &self.tables {
            touches.start_over(table.table);
        }
        let sums = Arc::new(Mutex::new(Sums::default()));
        let (planned, work) = mpsc::channel::<Work>(workers * 2);
        let work = Arc::new(tokio::sync::Mutex::new(work));
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        let turns = Turns { steering: steering.clone(), cancel: cancel.clone() };
        tasks.spawn(self.clone().plan(planned, sums.clone(), progress.clone(), turns.clone()));
        for _ in 0..workers.max(1) {
            tasks.spawn(self.clone().compare_chunks(work.clone(), sums.clone(), progress.clone(), turns.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| MysqlError::Object {
                message: format!("a part of the comparison ended abnormally: {error}"),
                hint: "run it again".to_owned(),
            })??;
        }
        let sums = std::mem::take(&mut *sums.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(self.sum_up(sums))
    }

    async fn plan(
        self: Arc<Self>,
        planned: mpsc::Sender<Work>,
        sums: Arc<Mutex<Sums>>,
        progress: Arc<VerifyProgress>,
        turns: Turns,
    ) -> Result<()> {
        let cancel = turns.cancel.clone();
        let mut pair = Pair::open(&self.store).await?;
        for table in &self.tables {
            let described = table.comparison.table(Side::Source);
            progress.say(format!("comparing `{}`", described.name));
            if !table.comparison.has_key() {
                turns.next().await?;
                self.keyless(&mut pair, table, &sums, &progress, &cancel).await?;
                continue;
            }
            let comparable = range::comparable(described, table.comparison.table(Side::Target));
            let average = described.data_bytes.checked_div(described.row_estimate).unwrap_or(200).max(20);
            let rows = (BYTES / average).clamp(50, ROWS);
            let mut after: Option<Key> = None;
            let mut number = 0;
            loop {
                let through = if comparable { range::next_upper(&mut pair.source, described, after.as_ref(), rows).await? } else { None };
                let last = through.is_none();
                let work = (table.clone(), number, KeyRange { after: after.take(), through: through.clone() });
                tokio::select! {
                    () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                    sent = planned.send(work) => sent.map_err(|_| MysqlError::Cancelled)?,
                }
                number += 1;
                after = through;
                if last {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn compare_chunks(
        self: Arc<Self>,
        work: Arc<tokio::sync::Mutex<mpsc::Receiver<Work>>>,
        sums: Arc<Mutex<Sums>>,
        progress: Arc<VerifyProgress>,
        turns: Turns,
    ) -> Result<()> {
        let cancel = turns.cancel.clone();
        let mut pair = Pair::open(&self.store).await?;
        loop {
            let next = work.lock().await.recv().await;
            let Some((table, number, range)) = next else { return Ok(()) };
            turns.next().await?;
            let started = Instant::now();
            let (tally, position, settled) = self.chunk(&mut pair, &table, &range, &cancel).await?;
            progress.rows.fetch_add(tally.rows, Ordering::Relaxed);
            progress.chunks.fetch_add(1, Ordering::Relaxed);
            progress.differences.fetch_add(settled.count, Ordering::Relaxed);
            // Numbered with leading zeros, so that the map's order is the order of ranges.
            let name = format!("{number:010}");
            note(&sums, &table, &name, tally, position, (settled.differences, settled.count), started);
        }
    }

    /// Compares a range; what differs in it.
    pub(super) async fn chunk(
        &self,
        pair: &mut Pair,
        table: &Compared,
        range: &KeyRange,
        cancel: &CancellationToken,
    ) -> Result<(Tally, Option<crate::mysql::position::Position>, Settled)> {
        let scope = if range.is_all() { Scope::Table } else { Scope::Range(range) };
        let comparison = &table.comparison;
        let ours = tally(&mut pair.source, comparison, Side::Source, table.method, &scope).await?;
        let position = self.catch_up(&mut pair.source, cancel).await?;
        let theirs = tally(&mut pair.target, comparison, Side::Target, table.method, &scope).await?;
        if ours == theirs {
            return Ok((ours, position, Settled::default()));
        }
        let source = listing(&mut pair.source, comparison, Side::Source, table.method, &scope).await?;
        self.catch_up(&mut pair.source, cancel).await?;
        let target = listing(&mut pair.target, comparison, Side::Target, table.method, &scope).await?;
        let suspects: Vec<Key> = source.differing(&target).into_iter().collect();
        let settled = self.settle(pair, table, &suspects, cancel).await?;
        Ok((source.tally(), position, settled))
    }

    /// A keyless table as a whole: while moving, between two events on it.
    async fn keyless(
        &self,
        pair: &mut Pair,
        table: &Arc<Compared>,
        sums: &Mutex<Sums>,
        progress: &VerifyProgress,
        cancel: &CancellationToken,
    ) -> Result<()> {
        const LOOKS: u32 = 12;
        /// A table that never was quiet for so long will not be soon, and every look reads all of it on both servers.
        const HOT_PATIENCE: Duration = Duration::from_secs(30);
        let touches = &self.described.shared.touches;
        let started = Instant::now();
        let mut unequal = 0;
        for look in 1..=LOOKS {
            let mark = touches.last(table.table);
            let ours = tally(&mut pair.source, &table.comparison, Side::Source, table.method, &Scope::Table).await?;
            let position = self.catch_up(&mut pair.source, cancel).await?;
            let theirs = tally(&mut pair.target, &table.comparison, Side::Target, table.method, &Scope::Table).await?;
            let quiet = touches.last(table.table) == mark;
            if ours == theirs && quiet {
                self.store.keyless_verified.lock().unwrap_or_else(PoisonError::into_inner).insert(table.table, mark);
                progress.rows.fetch_add(ours.rows, Ordering::Relaxed);
                note(sums, table, "whole", ours, position, (Vec::new(), 0), started);
                return Ok(());
            }
            unequal = if quiet { unequal + 1 } else { 0 };
            if !quiet && look > 1 && started.elapsed() > HOT_PATIENCE {
                break;
            }
            if ours != theirs && (!self.moving || unequal >= 4) {
                let compared =
                    keyless::compare(&mut pair.source, &mut pair.target, &table.comparison, table.method, KEYLESS_DIFFERENCES).await?;
                progress.differences.fetch_add(compared.differences.len() as u64, Ordering::Relaxed);
                if !compared.differences.is_empty() {
                    self.found.lock().unwrap_or_else(PoisonError::into_inner).entry(table.table).or_default();
                }
                let count = compared.differences.len() as u64;
                note(sums, table, "whole", compared.source, position, (compared.differences, count), started);
                return Ok(());
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                () = tokio::time::sleep(Duration::from_millis(150 * u64::from(look))) => {}
            }
        }
        let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.verification.not_compared.push(NotCompared {
            object: table.comparison.name().to_string(),
            why: "it has no key and is written too often to be compared while it moves; it is compared at the fence".to_owned(),
        });
        Ok(())
    }

    fn sum_up(&self, sums: Sums) -> Verification {
        let mut verification = sums.verification;
        verification.not_compared.extend(self.not_comparable.iter().cloned());
        let mut roots = BTreeMap::new();
        for table in &self.tables {
            verification.not_compared.extend(table.comparison.left_out().iter().cloned());
            let Some(sum) = sums.tables.get(&table.table) else { continue };
            let name = table.comparison.name().to_string();
            let root = merkle::root(Level::Table, &name, &sum.chunks);
            roots.insert(name.clone(), root);
            let seconds = match (sum.first, sum.last) {
                (Some(first), Some(last)) => last.duration_since(first).as_secs_f64(),
                _ => 0.0,
            };
            verification.tables.push(TableResult {
                table: name,
                rows: sum.rows,
                bytes: table.comparison.table(Side::Source).data_bytes,
                chunks: sum.chunks.len() as u64,
                seconds,
                method: format!("{} ({})", table.method, table.why),
                coverage: Coverage::Full,
                verified_at: sum.verified_at.as_ref().filter(|_| sum.differences == 0).map(ToString::to_string),
                differences: sum.differences,
                root: Some(root),
            });
        }
        let store = merkle::root(Level::Store, &self.store.name, &roots);
        verification.run_root = Some(merkle::root(Level::Run, "", &BTreeMap::from([(self.store.name.clone(), store)])));
        verification
    }
}

fn note(
    sums: &Mutex<Sums>,
    table: &Compared,
    chunk: &str,
    tally: Tally,
    position: Option<crate::mysql::position::Position>,
    (differences, count): (Vec<Difference>, u64),
    started: Instant,
) {
    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    let name = table.comparison.name().to_string();
    let sum = sums.tables.entry(table.table).or_default();
    sum.rows += tally.rows;
    sum.chunks.insert(chunk.to_owned(), merkle::chunk(&name, chunk, &tally));
    sum.differences += count;
    sum.first = Some(sum.first.map_or(started, |first| first.min(started)));
    sum.last = Some(Instant::now());
    // What holds for the table is as of its earliest chunk.
    sum.verified_at = match (sum.verified_at.take(), position) {
        (Some(old), Some(new)) => Some(old.min(new)),
        (old, new) => old.or(new),
    };
    sums.verification.difference_count += count.saturating_sub(differences.len() as u64);
    for difference in differences {
        sums.verification.push(difference);
    }
}
