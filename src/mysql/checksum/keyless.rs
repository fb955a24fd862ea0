//! Tables without a key: rows have no address, so two tables are compared as multisets.
//!
//! 1. Tallies of both sides. Equal: done, in one pass and no memory. SUM counts duplicates, so a row
//!    that is there once more is seen.
//! 2. Unequal: each side's rows are counted by hash, one share of the hashes per pass, so that memory is
//!    bounded by [`HASHES_PER_PASS`] and not by the table. What is left are the hashes whose counts differ.
//! 3. One more pass fetches the content behind these hashes (a row that is on the target only can only be read there).
//!
//! Rows are always hashed here in steps 2 and 3, whatever the method of step 1: their content has to travel anyway.

use std::collections::BTreeMap;
use std::collections::HashMap;

use super::super::cell::Row;
use super::super::connect::Session;
use super::super::error::Result;
use super::super::read::{self, Order, Scope};
use super::client;
use super::compare::{named, show_column};
use super::comparison::{Comparison, Side};
use super::listing::tally;
use super::method::Method;
use super::repair;
use crate::verify::difference::{Difference, DifferenceKind};
use crate::verify::{RowHash, Tally};

/// Distinct rows counted in memory at a time.
pub const HASHES_PER_PASS: u64 = 1_000_000;

/// Two tables compared as multisets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The source's tally.
    pub source: Tally,
    /// The target's tally.
    pub target: Tally,
    /// The differences, at most as many as asked for.
    pub differences: Vec<Difference>,
    /// False if there are more.
    pub complete: bool,
}

impl Compared {
    /// Whether the tables hold the same rows, each as often.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.source == self.target
    }
}

/// Compares two whole tables that are not being written to, and gives at most `most` differences.
///
/// # Errors
/// If a server refuses a query or a connection breaks.
pub async fn compare(source: &mut Session, target: &mut Session, comparison: &Comparison, method: Method, most: usize) -> Result<Compared> {
    compare_in_passes(source, target, comparison, method, most, HASHES_PER_PASS).await
}

/// As [`compare`], counting so many rows at a time.
///
/// # Errors
/// As [`compare`].
pub async fn compare_in_passes(
    source: &mut Session,
    target: &mut Session,
    comparison: &Comparison,
    method: Method,
    most: usize,
    rows_per_pass: u64,
) -> Result<Compared> {
    let (ours, theirs) = tokio::try_join!(
        tally(source, comparison, Side::Source, method, &Scope::Table),
        tally(target, comparison, Side::Target, method, &Scope::Table)
    )?;
    let mut compared = Compared { source: ours, target: theirs, differences: Vec::new(), complete: true };
    if ours == theirs {
        return Ok(compared);
    }
    // Counts on both sides of the rows whose counts differ; ordered, so that two runs list the same.
    let mut differing: BTreeMap<RowHash, (u64, u64)> = BTreeMap::new();
    let passes = ours.rows.max(theirs.rows).div_ceil(rows_per_pass.max(1)).max(1);
    for pass in 0..passes {
        let (ours, theirs) = tokio::try_join!(
            counts(source, comparison, Side::Source, passes, pass),
            counts(target, comparison, Side::Target, passes, pass)
        )?;
        for (hash, count) in &ours {
            let other = theirs.get(hash).copied().unwrap_or(0);
            if *count != other {
                differing.insert(*hash, (*count, other));
            }
        }
        for (hash, count) in theirs {
            if !ours.contains_key(&hash) {
                differing.insert(hash, (0, count));
            }
        }
        while differing.len() > most {
            differing.pop_last();
            compared.complete = false;
        }
    }
    for (side, session) in [(Side::Source, source), (Side::Target, target)] {
        contents(session, comparison, side, &differing, &mut compared.differences).await?;
    }
    Ok(compared)
}

/// How often each row of one share of the hashes is there.
async fn counts(session: &mut Session, comparison: &Comparison, side: Side, passes: u64, pass: u64) -> Result<HashMap<RowHash, u64>> {
    let mut counts = HashMap::new();
    let count = |_: &[u8], hash: RowHash| {
        if hash.first % passes == pass {
            *counts.entry(hash).or_insert(0) += 1;
        }
    };
    client::hashes(session, comparison, side, &Scope::Table, false, count).await?;
    Ok(counts)
}

/// Reads the table once more and describes the differing rows that this side has to show: the source shows what it has, the target the rest.
async fn contents(
    session: &mut Session,
    comparison: &Comparison,
    side: Side,
    differing: &BTreeMap<RowHash, (u64, u64)>,
    differences: &mut Vec<Difference>,
) -> Result<()> {
    let mut wanted: BTreeMap<RowHash, (u64, u64)> =
        differing.iter().filter(|(_, (ours, _))| (*ours > 0) == (side == Side::Source)).map(|(hash, counts)| (*hash, *counts)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (select, _, binary) = comparison.select(side, false)?;
    let table = comparison.table(side);
    let mut rows = read::Rows::of(read::Answers::open(session, table, &select, binary, &Scope::Table, Order::Any, None).await?);
    let mut canonical = Vec::new();
    while !wanted.is_empty() {
        let Some(row) = rows.next().await? else { break };
        canonical.clear();
        row.iter().for_each(|cell| cell.encode(&mut canonical));
        if let Some((source, target)) = wanted.remove(&RowHash::of(&canonical)) {
            differences.push(describe(comparison, side, &row, source, target));
        }
    }
    Ok(())
}

fn describe(comparison: &Comparison, side: Side, row: &Row, source: u64, target: u64) -> Difference {
    let kind = match (source, target) {
        (1, 0) => DifferenceKind::Missing,
        (0, 1) => DifferenceKind::Extra,
        (source, target) => DifferenceKind::DuplicateCount { source, target },
    };
    let shown: Vec<String> = (0..row.len()).map(|index| show_column(comparison, side, index, row)).collect();
    let repair_sql = if source > target {
        repair::insert(comparison, row, source - target)
    } else {
        repair::delete(comparison, row, Some(target - source))
    };
    Difference { repair_sql, ..named(comparison, shown.join(", "), kind) }
}
