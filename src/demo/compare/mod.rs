//! The inspector: two databases read with plain SELECTs and compared row by row, column by column.
//!
//! It exists to catch dbmove's own mistakes, so it shares nothing with dbmove's verification: no
//! hashes, no tallies, no catalog, no chunks, no canonical form. Both servers are asked for every
//! row of every table in the order of the key, and the two streams are walked side by side. It is
//! slow, and certain.
//!
//! # How values are compared
//!
//! | column | as |
//! | --- | --- |
//! | FLOAT, DOUBLE | the bits of the binary protocol; −0 equals 0, see below |
//! | text and bytes | length and `HEX()` of what is stored |
//! | ENUM, SET | number and text, so that a changed definition shows |
//! | BIT | number |
//! | numbers, dates | the server's text, in UTC, zero dates as they are |
//!
//! MariaDB stores −0 as 0, whatever it is given, and no server tells the two apart when it compares. So
//! the sign of a zero is no difference of values; how many negative zeros each side holds is told
//! table by table, for those who move between servers that both keep them.
//!
//! # Order and memory
//!
//! Rows come ordered by the left side's primary key: integers and ENUMs by number, everything else by
//! bytes, never by a collation, which may differ between versions. The order is checked while
//! reading. So a row of each side is in memory at a time. A table without a primary key (or with a
//! float in that) is read whole into memory, and each distinct row is counted on both sides.
//!
//! Both databases must stand still meanwhile.

use serde::Serialize;

use super::Endpoint;

mod reading;
mod walk;

use reading::{Layout, Reader};

/// A database on a server.
#[derive(Clone, Debug)]
pub struct Side {
    /// The server.
    pub endpoint: Endpoint,
    /// The database.
    pub database: String,
}

/// A comparison that could not be carried through: nothing is known of what was not read.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A server could not be asked.
    #[error("`{database}` on {address} could not be read ({what}): {source}")]
    Server {
        /// The server.
        address: String,
        /// The database.
        database: String,
        /// What was being read.
        what: String,
        /// What the server or the driver said.
        source: Box<mysql_async::Error>,
    },
    /// Neither side has a table.
    #[error("neither side has a table in its database; there is nothing to compare")]
    NoTables,
    /// Rows did not come in the order asked for, or a key came twice.
    #[error("table `{table}` on {address}: rows do not come in the order of the key, at {key}")]
    Order {
        /// The table.
        table: String,
        /// The server.
        address: String,
        /// The key that came too late.
        key: String,
    },
    /// A value came in a form that this comparison does not know.
    #[error("table `{table}` on {address}: column `{column}` came as {what}")]
    Value {
        /// The table.
        table: String,
        /// The server.
        address: String,
        /// The column.
        column: String,
        /// What it was.
        what: String,
    },
}

/// How one row, table or definition differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DifferenceKind {
    /// The table is on the left only.
    TableMissing,
    /// The table is on the right only.
    TableExtra,
    /// The tables have other columns; their rows were not compared.
    Columns {
        /// Names on the left.
        left: Vec<String>,
        /// Names on the right.
        right: Vec<String>,
    },
    /// The row is on the left only (so many times, in a table without a key).
    RowMissing {
        /// How often it is missing.
        times: u64,
    },
    /// The row is on the right only (so many times, in a table without a key).
    RowExtra {
        /// How often it is too many.
        times: u64,
    },
    /// A value differs.
    Value {
        /// The column.
        column: String,
        /// The value on the left, shown for people.
        left: String,
        /// The value on the right.
        right: String,
    },
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// `column=value` of the key, or of the whole row in a table without one; empty for whole tables.
    pub key: String,
    /// What differs.
    #[serde(flatten)]
    pub kind: DifferenceKind,
}

/// One table's share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableComparison {
    /// The table.
    pub table: String,
    /// Rows on the left.
    pub left_rows: u64,
    /// Rows on the right.
    pub right_rows: u64,
    /// Rows that are on both sides and were compared column by column.
    pub rows_compared: u64,
    /// How many FLOAT and DOUBLE values are −0 on the left.
    pub left_negative_zeros: u64,
    /// And on the right.
    pub right_negative_zeros: u64,
    /// Differences found.
    pub differences: u64,
}

/// What the inspector found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Table by table, in the order of names.
    pub tables: Vec<TableComparison>,
    /// Rows that are on both sides and were compared.
    pub rows_compared: u64,
    /// How many differences there are.
    pub difference_count: u64,
    /// The first of them, as many as were asked for.
    pub differences: Vec<Difference>,
    #[serde(skip)]
    keep: usize,
}

impl Comparison {
    /// Whether both sides are the same.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.difference_count == 0
    }

    fn found(&mut self, table: &str, key: String, kind: DifferenceKind) {
        self.difference_count += 1;
        if self.differences.len() < self.keep {
            self.differences.push(Difference { table: table.to_owned(), key, kind });
        }
    }
}

/// Compares all base tables of two databases; keeps the first `keep` differences.
///
/// # Errors
/// If a side can't be read to its end. There is no partial result.
pub async fn compare(left: &Side, right: &Side, keep: usize) -> Result<Comparison, CompareError> {
    let (mut left, mut right) = (Reader::connect(left).await?, Reader::connect(right).await?);
    let (left_tables, right_tables) = (left.tables().await?, right.tables().await?);
    let all: std::collections::BTreeSet<&String> = left_tables.iter().chain(&right_tables).collect();
    if all.is_empty() {
        return Err(CompareError::NoTables);
    }
    let mut comparison = Comparison { keep, ..Comparison::default() };
    for table in all {
        let before = comparison.difference_count;
        let mut share = TableComparison { table: table.clone(), ..TableComparison::default() };
        if !right_tables.contains(table) {
            comparison.found(table, String::new(), DifferenceKind::TableMissing);
        } else if !left_tables.contains(table) {
            comparison.found(table, String::new(), DifferenceKind::TableExtra);
        } else {
            let (layout, other) = (left.layout(table).await?, right.layout(table).await?);
            if layout.names() == other.names() {
                compare_table(&layout, &mut left, &mut right, &mut share, &mut comparison).await?;
            } else {
                let (left, right) = (layout.names(), other.names());
                comparison.found(table, String::new(), DifferenceKind::Columns { left, right });
            }
        }
        share.differences = comparison.difference_count - before;
        comparison.rows_compared += share.rows_compared;
        comparison.tables.push(share);
    }
    left.close().await;
    right.close().await;
    Ok(comparison)
}

async fn compare_table(
    layout: &Layout,
    left: &mut Reader,
    right: &mut Reader,
    share: &mut TableComparison,
    comparison: &mut Comparison,
) -> Result<(), CompareError> {
    let (mut left, mut right) = tokio::try_join!(left.rows(layout), right.rows(layout))?;
    if layout.has_key() {
        walk::side_by_side(layout, &mut left, &mut right, share, comparison).await?;
    } else {
        walk::by_count(layout, &mut left, &mut right, share, comparison).await?;
    }
    (share.left_negative_zeros, share.right_negative_zeros) = (left.negative_zeros, right.negative_zeros);
    Ok(())
}
