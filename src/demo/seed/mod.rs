//! The rows the school starts with: the same, byte for byte, for the same seed and size.
//!
//! Rows are made table by table on a blocking thread, as `LOAD DATA` text in pieces of about
//! 256 KiB, and flow through a bounded channel into one `LOAD DATA LOCAL` per table: the server
//! loads one piece while the next is made, and memory stays at a few pieces whatever the size.
//! The text is loaded as `CHARACTER SET binary`, so what is written is what is stored, each column
//! in its own charset.
//!
//! A bad value would be a warning and a silently different row, so a load that ends with a warning
//! or another count than intended is an error.

use bytes::Bytes;
use futures_util::stream;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::Serialize;
use tokio::sync::mpsc;

use super::dice::Dice;
use super::school::{self, SchoolError};
use crate::mysql::sql;

mod rows;

/// What each account holds at the start.
pub const OPENING_BALANCE: i64 = 10_000;

/// How the references of seeded transfers begin; those of live ones never do.
pub const SEEDED_REFERENCE: &str = "00000000-";

const PIECE: usize = 256 * 1024;
const PIECES_IN_FLIGHT: usize = 4;

/// How many rows each table gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SchoolSize {
    /// Rows of `accounts`.
    pub accounts: u64,
    /// Rows of `transfers`.
    pub transfers: u64,
    /// Rows of `students`.
    pub students: u64,
    /// Rows of `courses`.
    pub courses: u64,
    /// Rows of `enrolments`.
    pub enrolments: u64,
    /// Rows of `submissions`.
    pub submissions: u64,
    /// Rows of `grades`.
    pub grades: u64,
    /// Rows of `page_hits`.
    pub page_hits: u64,
    /// Rows of `audit_log`.
    pub audit_log: u64,
    /// Rows of `forums`.
    pub forums: u64,
    /// Rows of `posts`.
    pub posts: u64,
    /// Rows of `attachments`.
    pub attachments: u64,
    /// Rows of `settings`.
    pub settings: u64,
    /// Rows of `devices`.
    pub devices: u64,
}

impl SchoolSize {
    /// The usual school (about 300,000 rows) times `factor`; every table has at least a few rows.
    #[must_use]
    pub fn scaled(factor: f64) -> Self {
        let rows = |usual: u64| ((usual as f64 * factor).round() as u64).max(20);
        let (students, courses) = (rows(40_000), rows(500));
        SchoolSize {
            accounts: rows(2_000),
            transfers: rows(30_000),
            students,
            courses,
            enrolments: rows(80_000).min(students * courses / 2),
            submissions: rows(12_000),
            grades: rows(60_000),
            page_hits: rows(30_000),
            audit_log: rows(15_000),
            forums: rows(300),
            posts: rows(20_000),
            attachments: rows(8_000),
            settings: rows(400),
            devices: rows(5_000),
        }
    }

    /// Rows by table, in the order of [`school::TABLES`].
    #[must_use]
    pub fn by_table(&self) -> [(&'static str, u64); 14] {
        [
            ("accounts", self.accounts),
            ("transfers", self.transfers),
            ("students", self.students),
            ("courses", self.courses),
            ("enrolments", self.enrolments),
            ("submissions", self.submissions),
            ("grades", self.grades),
            ("page_hits", self.page_hits),
            ("audit_log", self.audit_log),
            ("forums", self.forums),
            ("posts", self.posts),
            ("attachments", self.attachments),
            ("settings", self.settings),
            ("devices", self.devices),
        ]
    }

    /// All rows.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_table().iter().map(|(_, rows)| rows).sum()
    }
}

impl Default for SchoolSize {
    fn default() -> Self {
        SchoolSize::scaled(1.0)
    }
}

/// Seeding that failed. What was loaded before is left in the database: drop it and seed again.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The schema could not be created.
    #[error(transparent)]
    School(#[from] SchoolError),
    /// A table could not be loaded.
    #[error("table `{table}` could not be loaded: {source}; drop the database and seed again")]
    Load {
        /// The table.
        table: &'static str,
        /// What the server or the driver said.
        source: mysql_async::Error,
    },
    /// The server changed or left out rows.
    #[error(
        "table `{table}` took {loaded} of {intended} rows with {warnings} warning(s), the first: {first}; drop the database and seed again"
    )]
    NotAsIntended {
        /// The table.
        table: &'static str,
        /// Rows that went in.
        loaded: u64,
        /// Rows that were sent.
        intended: u64,
        /// How many warnings there were.
        warnings: u16,
        /// The first of them.
        first: String,
    },
}

/// Creates the database `database` with the school's tables and fills them. The account needs
/// CREATE and INSERT there, and the server `local_infile`. Returns the rows that are now in each table.
///
/// # Errors
/// If the database exists, a statement is refused, or a row did not arrive as it was sent.
pub async fn seed(conn: &mut Conn, database: &str, size: &SchoolSize, seed: u64) -> Result<SchoolSize, SeedError> {
    school::create(conn, database).await?;
    for (stream, (table, rows)) in size.by_table().into_iter().enumerate() {
        let failed = |source| SeedError::Load { table, source };
        conn.query_drop("SET foreign_key_checks = 0, unique_checks = 0").await.map_err(failed)?;
        load(conn, table, rows, size.clone(), Dice::new(seed, stream as u64)).await?;
    }
    conn.query_drop("SET foreign_key_checks = 1, unique_checks = 1")
        .await
        .map_err(|source| SeedError::Load { table: "devices", source })?;
    Ok(size.clone())
}

async fn load(conn: &mut Conn, table: &'static str, rows: u64, size: SchoolSize, dice: Dice) -> Result<(), SeedError> {
    let failed = |source| SeedError::Load { table, source };
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES_IN_FLIGHT);
    // Ends by itself when the receiver is gone: its next send fails.
    let maker = tokio::task::spawn_blocking(move || make(table, rows, &size, dice, &sender));
    conn.set_infile_handler(async move { Ok(Box::pin(stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|piece| piece.map(Ok)))) as _) });
    let (columns, settings) = rows::load_clause(table);
    conn.query_drop(format!(
        "LOAD DATA LOCAL INFILE 'rows' INTO TABLE {} CHARACTER SET binary FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' ({columns}) {settings}",
        sql::identifier(table)
    ))
    .await
    .map_err(failed)?;
    let (loaded, warnings) = (conn.affected_rows(), conn.get_warnings());
    maker.await.map_err(|ended| failed(mysql_async::Error::Other(Box::new(ended))))?;
    if loaded != rows || warnings > 0 {
        let first: Option<(String, u32, String)> = conn.query_first("SHOW WARNINGS LIMIT 1").await.map_err(failed)?;
        let first = first.map_or_else(|| "none".to_owned(), |(_, code, message)| format!("{code} {message}"));
        return Err(SeedError::NotAsIntended { table, loaded, intended: rows, warnings, first });
    }
    Ok(())
}

fn make(table: &str, rows: u64, size: &SchoolSize, mut dice: Dice, sender: &mpsc::Sender<Bytes>) {
    let mut piece = Vec::with_capacity(PIECE + 64 * 1024);
    for number in 0..rows {
        rows::push_row(&mut piece, table, number, size, &mut dice);
        if piece.len() >= PIECE
            && sender.blocking_send(Bytes::from(std::mem::replace(&mut piece, Vec::with_capacity(PIECE + 64 * 1024)))).is_err()
        {
            return;
        }
    }
    if !piece.is_empty() {
        // Nobody listening means that the load failed, which the loader reports itself.
        let _ = sender.blocking_send(Bytes::from(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_school_has_about_three_hundred_thousand_rows() {
        let size = SchoolSize::default();
        assert!((295_000..=310_000).contains(&size.total()), "{}", size.total());
        let names: Vec<_> = size.by_table().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, school::TABLES.map(|table| table.name));
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let size = SchoolSize::scaled(0.001);
        let all = |seed| {
            let mut text = Vec::new();
            for (stream, (table, rows)) in size.by_table().into_iter().enumerate() {
                let mut dice = Dice::new(seed, stream as u64);
                (0..rows).for_each(|number| rows::push_row(&mut text, table, number, &size, &mut dice));
            }
            text
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
    }
}
