//! What a verification found: the model behind the terminal summary and `report.json`.
//!
//! The verdict is computed, never set: equal only if every object was compared in full and nothing
//! differed. What was *not* compared is in the report with its reason, and keeps the verdict from
//! being "equal".

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::difference::{Difference, printable};
use super::merkle::Digest;
use super::structure::StructureDifference;

/// How many differences are listed per report; all are counted.
pub const LISTED_DIFFERENCES: usize = 1000;

/// How many of them may be of one table, so that one that is lost as a whole does not hide what differs in others.
pub const LISTED_OF_A_TABLE: usize = 200;

/// The result of one verification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Tables, in order of name.
    pub tables: Vec<TableResult>,
    /// The first [`LISTED_DIFFERENCES`] differences.
    pub differences: Vec<Difference>,
    /// All differences, listed or not.
    pub difference_count: u64,
    /// What differs around the rows.
    #[serde(default)]
    pub structure: Vec<StructureDifference>,
    /// How many tables' structure was compared.
    #[serde(default)]
    pub structure_tables: u64,
    /// A digest of what the target's catalog said of each table when its structure was compared: what is unchanged at the fence need not be compared again.
    #[serde(default)]
    pub structure_seen: BTreeMap<String, String>,
    /// Who else wrote to the target, and how that was looked for.
    #[serde(default)]
    pub foreign: Option<ForeignLook>,
    /// What was left out, and why.
    pub not_compared: Vec<NotCompared>,
    /// What is in the databases that move and does not move itself, and why: it was not to be compared.
    #[serde(default)]
    pub outside: Vec<NotCompared>,
    /// How many differences are gone because rows were copied once more; they are not among the others.
    #[serde(default)]
    pub repaired_count: u64,
    /// The first [`LISTED_DIFFERENCES`] of them, as they were found.
    #[serde(default)]
    pub repaired: Vec<Difference>,
    /// The root over everything verified.
    pub run_root: Option<Digest>,
}

/// One table's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableResult {
    /// Its name.
    pub table: String,
    /// Rows compared (on the source).
    pub rows: u64,
    /// The server's figure for the table's data, in bytes.
    pub bytes: u64,
    /// Chunks compared.
    pub chunks: u64,
    /// How long it took.
    pub seconds: f64,
    /// How rows were hashed: `client, SHA-256`, `server, SHA2`, with the reason for the choice.
    pub method: String,
    /// How much of the table was compared.
    pub coverage: Coverage,
    /// The source's position as of which the rows were equal; `None` where nothing moved or rows differ.
    pub verified_at: Option<String>,
    /// Differences found in it.
    pub differences: u64,
    /// The table's Merkle root.
    pub root: Option<Digest>,
}

/// How much of a table was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum Coverage {
    /// Every row.
    Full,
    /// Every row whose key changed since the last full comparison.
    Changed {
        /// How many keys.
        keys: u64,
    },
    /// Stopped before the end.
    Partial {
        /// Chunks that were not compared.
        chunks_left: u64,
    },
}

/// Something that was not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotCompared {
    /// The table, column or other object.
    pub object: String,
    /// Why.
    pub why: String,
}

/// A look for others that write to the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForeignLook {
    /// From when on, by the target's clock, in UTC.
    pub since: String,
    /// By what means: what they can't show is not known.
    pub how: String,
    /// Who was found.
    pub writers: Vec<ForeignWriter>,
}

impl ForeignLook {
    /// Those who wrote to a database that moves for certain.
    pub fn certain(&self) -> impl Iterator<Item = &ForeignWriter> {
        self.writers.iter().filter(|writer| writer.certain)
    }
}

/// Somebody who writes to the target, or may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForeignWriter {
    /// The account: user and host, as the target tells them.
    pub account: String,
    /// What it did, without values.
    pub what: String,
    /// Since when, by the target's clock, in UTC.
    pub since: String,
    /// It wrote to a database that moves for certain; else it may have.
    pub certain: bool,
}

impl ForeignWriter {
    /// One line for a terminal or a log.
    #[must_use]
    pub fn line(&self) -> String {
        let sure = if self.certain { "" } else { " (maybe not in what moves)" };
        format!("`{}` {}, since {} UTC{sure}", printable(&self.account), printable(&self.what), printable(&self.since))
    }
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything was compared and is equal.
    Equal,
    /// Something differs.
    Different,
    /// Nothing differs so far, but not everything was compared.
    Incomplete,
}

impl Verification {
    /// The verdict. A difference outweighs a gap.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let partial = self.tables.iter().any(|table| matches!(table.coverage, Coverage::Partial { .. }));
        if self.difference_count > 0 || !self.structure.is_empty() || self.tables.iter().any(|table| table.differences > 0) {
            Verdict::Different
        } else if partial || !self.not_compared.is_empty() || self.tables.is_empty() {
            Verdict::Incomplete
        } else {
            Verdict::Equal
        }
    }

    /// Counts a difference, and lists it while there is room.
    pub fn push(&mut self, difference: Difference) {
        self.difference_count += 1;
        let of_its_table = self.differences.iter().filter(|listed| listed.table == difference.table).count();
        if self.differences.len() < LISTED_DIFFERENCES && of_its_table < LISTED_OF_A_TABLE {
            self.differences.push(difference);
        }
    }

    /// Takes over what earlier comparisons found and this one, made after a repair, does not find any more.
    pub fn repaired_since(&mut self, before: Verification) {
        let still: BTreeSet<(&str, &str)> = self.differences.iter().map(|found| (found.table.as_str(), found.key.as_str())).collect();
        let gone = |found: &Difference| !still.contains(&(found.table.as_str(), found.key.as_str()));
        let repaired: Vec<Difference> =
            before.repaired.into_iter().chain(before.differences).filter(gone).take(LISTED_DIFFERENCES).collect();
        let unlisted = before.difference_count.saturating_sub(self.difference_count);
        self.repaired_count = (before.repaired_count + unlisted).max(repaired.len() as u64);
        self.repaired = repaired;
    }

    /// Rows compared.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Without any value of the data.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        self.differences = self.differences.into_iter().map(Difference::redacted).collect();
        self.repaired = self.repaired.into_iter().map(Difference::redacted).collect();
        self
    }
}

/// The first of every table, then the second of every table, and so on: what a person reads first shows every table that differs.
#[must_use]
pub fn foremost<'a, T>(differences: &'a [T], table: impl Fn(&'a T) -> &'a str, most: usize) -> Vec<&'a T> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ordered: Vec<(usize, &T)> = Vec::with_capacity(differences.len());
    for difference in differences {
        let before = seen.entry(table(difference)).or_default();
        ordered.push((*before, difference));
        *before += 1;
    }
    ordered.sort_by_key(|(before, _)| *before);
    ordered.into_iter().take(most).map(|(_, difference)| difference).collect()
}

#[cfg(test)]
mod tests {
    use super::super::difference::DifferenceKind;
    use super::*;

    fn table(coverage: Coverage) -> TableResult {
        TableResult {
            table: "school.t".into(),
            rows: 5,
            bytes: 100,
            chunks: 1,
            seconds: 0.1,
            method: "client, SHA-256".into(),
            coverage,
            verified_at: None,
            differences: 0,
            root: None,
        }
    }

    #[test]
    fn nothing_compared_is_not_equal() {
        assert_eq!(Verification::default().verdict(), Verdict::Incomplete);
    }

    #[test]
    fn gaps_and_differences_show_in_the_verdict() {
        let mut report = Verification { tables: vec![table(Coverage::Full)], ..Verification::default() };
        assert_eq!(report.verdict(), Verdict::Equal);
        report.not_compared.push(NotCompared { object: "school.t.g".into(), why: "generated".into() });
        assert_eq!(report.verdict(), Verdict::Incomplete);
        report.push(Difference { table: "school.t".into(), key: "id = 1".into(), kind: DifferenceKind::Missing, repair_sql: None });
        assert_eq!(report.verdict(), Verdict::Different);
        let partial = Verification { tables: vec![table(Coverage::Partial { chunks_left: 2 })], ..Verification::default() };
        assert_eq!(partial.verdict(), Verdict::Incomplete);
    }

    #[test]
    fn what_a_repair_mended_is_told_from_what_still_differs() {
        let found = |ids: &[u32]| {
            let mut report = Verification::default();
            for id in ids {
                report.push(Difference { table: "t".into(), key: format!("id = {id}"), kind: DifferenceKind::Extra, repair_sql: None });
            }
            report
        };
        let mut second = found(&[3, 4]);
        second.repaired_since(found(&[1, 2, 3]));
        let mut third = found(&[4]);
        third.repaired_since(second);
        let keys: Vec<&str> = third.repaired.iter().map(|found| found.key.as_str()).collect();
        assert_eq!((keys, third.repaired_count, third.difference_count), (vec!["id = 1", "id = 2", "id = 3"], 3, 1));
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let mut report = Verification::default();
        for id in 0..LISTED_DIFFERENCES + 5 {
            report.push(Difference { table: "t".into(), key: format!("id = {id}"), kind: DifferenceKind::Extra, repair_sql: None });
        }
        report.push(Difference { table: "u".into(), key: "id = 1".into(), kind: DifferenceKind::Extra, repair_sql: None });
        assert_eq!((report.differences.len(), report.difference_count), (LISTED_OF_A_TABLE + 1, LISTED_DIFFERENCES as u64 + 6));
        for table in 0..LISTED_DIFFERENCES {
            report.push(Difference { table: format!("t{table}"), key: "id = 1".into(), kind: DifferenceKind::Extra, repair_sql: None });
        }
        assert_eq!(report.differences.len(), LISTED_DIFFERENCES);
        let foremost: Vec<&str> = foremost(&report.differences, |found| &found.table, 3).iter().map(|found| found.table.as_str()).collect();
        assert_eq!(foremost, ["t", "u", "t0"], "one of each table before the second of any");
    }
}
