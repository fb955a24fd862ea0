//! Cuts tables into chunks, and remembers on the target which are planned and which are done.
//!
//! The next border is asked from the source (`… ORDER BY key LIMIT 1 OFFSET n`), so that gaps, skew
//! and text keys need no thought: the server's own order decides. The size follows what reading
//! the last chunks showed: about `chunk_time` and at most `chunk_bytes`.
//!
//! A chunk is saved as planned before it is read. After a crash the chunks that were planned and not
//! done are copied again, then planning goes on behind the last border: ranges never overlap and
//! leave no gap. The last chunk has no upper end.

use std::sync::Mutex;
use std::time::Duration;

use super::{Chunk, CopySettings};
use crate::engine::step::Epoch;
use crate::mysql::bookkeeping::{self, own_table};
use crate::mysql::cell::Key;
use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::TableName;
use crate::mysql::range::{self, KeyRange};
use crate::mysql::sql;
use crate::mysql::table::Table;
use crate::mysql::tables::TableId;

/// Rows of a chunk at least and at most.
const ROWS: (u64, u64) = (50, 100_000);

/// How many rows the next chunk of a table should have.
#[derive(Debug)]
pub struct Pace {
    state: Mutex<(f64, f64)>,
    bytes: f64,
    time: f64,
}

impl Pace {
    /// From the server's figures for the table.
    #[must_use]
    pub fn new(table: &Table, settings: &CopySettings) -> Self {
        let average = if table.row_estimate > 0 { table.data_bytes as f64 / table.row_estimate as f64 } else { 200.0 };
        Pace {
            state: Mutex::new((average.clamp(20.0, 1e8), 2e-6)),
            bytes: settings.chunk_bytes as f64,
            time: settings.chunk_time.as_secs_f64(),
        }
    }

    /// Rows for the next chunk.
    #[must_use]
    pub fn rows(&self) -> u64 {
        let (bytes, seconds) = *self.lock();
        // Below the limit, so that a chunk rarely has to be cut while it is read.
        let rows = (0.7 * self.bytes / bytes).min(self.time / seconds);
        (rows as u64).clamp(ROWS.0, ROWS.1)
    }

    /// A chunk was read: the figures move half way to what it showed.
    pub fn saw(&self, rows: usize, bytes: usize, took: Duration) {
        if rows < 10 {
            return;
        }
        let mut state = self.lock();
        state.0 = f64::midpoint(state.0, bytes as f64 / rows as f64);
        state.1 = f64::midpoint(state.1, (took.as_secs_f64() / rows as f64).max(1e-8));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (f64, f64)> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How far a table is, as saved on the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// Chunks are planned up to this key; with `planned` up to the end.
    pub planned_through: Option<Key>,
    /// All chunks are planned.
    pub planned: bool,
    /// All rows are in.
    pub copied: bool,
    /// The secondary indexes and foreign keys are there.
    pub indexed: bool,
    /// Chunks that are planned and not done.
    pub open: Vec<(u64, KeyRange)>,
    /// The number for the next chunk.
    pub next_number: u64,
    /// Rows in done chunks.
    pub rows: u64,
}

fn place(store: &str, table: &TableName) -> String {
    format!("store = {} AND database_name = {} AND table_name = {}", sql::text(store), sql::text(&table.database), sql::text(&table.table))
}

fn hex_key(key: Option<&Key>) -> String {
    key.map_or_else(|| "NULL".to_owned(), |key| format!("X'{}'", hex::encode(&key.0)))
}

/// Reads how far a table is.
///
/// # Errors
/// If the bookkeeping can't be read.
pub async fn load(session: &mut Session, store: &str, table: &TableName) -> Result<TableState> {
    let place = place(store, table);
    let query = format!("SELECT HEX(planned_through), planned, copied, indexed FROM {} WHERE {place}", own_table("copied_table"));
    let Some(row) = session.first(&query, "reading how far copying is").await? else { return Ok(TableState::default()) };
    let key = |cell: &Option<String>| -> Result<Option<Key>> {
        cell.as_deref()
            .map(|text| {
                hex::decode(text).map(|bytes| Key(bytes.into_boxed_slice())).map_err(|_| MysqlError::Object {
                    message: format!("the bookkeeping of `{table}` in `_dbmove` is damaged"),
                    hint: "something changed `_dbmove` on the target; give the run up with `dbmove undo PLAYBOOK` and start again"
                        .to_owned(),
                })
            })
            .transpose()
    };
    let mut state = TableState {
        planned_through: key(&row[0])?,
        planned: bookkeeping::number(&row, 1) == 1,
        copied: bookkeeping::number(&row, 2) == 1,
        indexed: bookkeeping::number(&row, 3) == 1,
        ..TableState::default()
    };
    let query = format!("SELECT COALESCE(MAX(number) + 1, 0), COALESCE(SUM(row_count), 0) FROM {} WHERE {place}", own_table("chunk"));
    if let Some(row) = session.first(&query, "reading how far copying is").await? {
        state.next_number = bookkeeping::number(&row, 0);
        state.rows = bookkeeping::number(&row, 1);
    }
    let query = format!(
        "SELECT number, HEX(range_after), HEX(range_through) FROM {} WHERE {place} AND done = 0 ORDER BY number",
        own_table("chunk")
    );
    for row in session.rows(&query, "reading the open chunks").await? {
        state.open.push((bookkeeping::number(&row, 0), KeyRange { after: key(&row[1])?, through: key(&row[2])? }));
    }
    Ok(state)
}

/// Chunks planned in one transaction, once a table's pace is known.
const AHEAD: usize = 4;

/// Plans the next chunks of a table, of about `rows` rows each, and saves them, as the `driver` (store and epoch) that holds
/// the lease. None when everything is planned.
///
/// # Errors
/// If the source can't be asked or the target can't be written.
pub async fn next(
    source: &mut Session,
    target: &mut Session,
    driver: (&str, Epoch),
    id: TableId,
    table: &Table,
    state: &mut TableState,
    rows: u64,
) -> Result<Vec<Chunk>> {
    let (store, epoch) = driver;
    let mut chunks = Vec::new();
    // The first chunk's size is a guess, so it is planned alone.
    let count = if state.next_number == 0 { 1 } else { AHEAD };
    while chunks.len() < count && !state.planned {
        let after = state.planned_through.take();
        let through = range::next_upper(source, table, after.as_ref(), rows).await?;
        state.planned = through.is_none();
        state.planned_through.clone_from(&through);
        chunks.push(Chunk { table: id, number: state.next_number, range: KeyRange { after, through } });
        state.next_number += 1;
    }
    if chunks.is_empty() {
        return Ok(chunks);
    }
    let name = &table.name;
    let values: Vec<String> = chunks
        .iter()
        .map(|chunk| {
            format!(
                "({}, {}, {}, {}, {}, {}, 0, 0, 0)",
                sql::text(store),
                sql::text(&name.database),
                sql::text(&name.table),
                chunk.number,
                hex_key(chunk.range.after.as_ref()),
                hex_key(chunk.range.through.as_ref())
            )
        })
        .collect();
    target.run("BEGIN", "planning chunks").await?;
    bookkeeping::hold_lease(target, store, epoch).await?;
    // REPLACE: a commit whose answer got lost may have planned chunks of these numbers, which nobody was given.
    let statement = format!(
        "REPLACE INTO {} (store, database_name, table_name, number, range_after, range_through, done, row_count, byte_count) VALUES {}",
        own_table("chunk"),
        values.join(", ")
    );
    target.write(statement.as_bytes(), "planning chunks").await?;
    let statement = format!(
        "REPLACE INTO {} (store, database_name, table_name, planned_through, planned, copied, indexed) VALUES ({}, {}, {}, {}, {}, 0, 0)",
        own_table("copied_table"),
        sql::text(store),
        sql::text(&name.database),
        sql::text(&name.table),
        hex_key(state.planned_through.as_ref()),
        u8::from(state.planned)
    );
    target.write(statement.as_bytes(), "planning chunks").await?;
    target.run("COMMIT", "planning chunks").await?;
    Ok(chunks)
}

/// The statement that saves what of a chunk is in; run it in the transaction of its rows.
#[must_use]
pub fn save_chunk(
    store: &str,
    table: &TableName,
    number: u64,
    written_through: Option<&Key>,
    more: bool,
    rows: usize,
    bytes: usize,
) -> String {
    let progress = if more { format!("range_after = {}", hex_key(written_through)) } else { "done = 1".to_owned() };
    format!(
        "UPDATE {} SET {progress}, row_count = row_count + {rows}, byte_count = byte_count + {bytes} WHERE {} AND number = {number}",
        own_table("chunk"),
        place(store, table)
    )
}

/// The statement that saves how many rows a table copied as a whole has; run it in the transaction of its rows.
#[must_use]
pub fn save_whole(store: &str, table: &TableName, rows: u64, bytes: usize) -> String {
    format!(
        "REPLACE INTO {} (store, database_name, table_name, number, range_after, range_through, done, row_count, byte_count) VALUES ({}, {}, {}, 0, NULL, NULL, 1, {rows}, {bytes})",
        own_table("chunk"),
        sql::text(store),
        sql::text(&table.database),
        sql::text(&table.table)
    )
}

/// The statement that saves that a table's rows, or its indexes, are there.
#[must_use]
pub fn save_table(store: &str, table: &TableName, indexed: bool) -> String {
    format!(
        "REPLACE INTO {} (store, database_name, table_name, planned_through, planned, copied, indexed) VALUES ({}, {}, {}, NULL, 1, 1, {})",
        own_table("copied_table"),
        sql::text(store),
        sql::text(&table.database),
        sql::text(&table.table),
        u8::from(indexed)
    )
}
