//! Writes one lane of a batch: one transaction on one connection.
//!
//! Order inside the transaction: lease check, deletes, upserts, keyless changes, positions, commit.
//!
//! # Upserts
//!
//! A table whose key is its only unique index takes `INSERT … ON DUPLICATE KEY UPDATE`: it can meet
//! only its own key. With other unique indexes that statement could silently overwrite *another*
//! row that holds one of the unique values, so there the keys are deleted first and the rows go in
//! by a plain INSERT, which fails instead.
//!
//! Such a failure has one good reason: while replaying after a crash the target may be ahead, and
//! the row in the way is the trace of a later event of the same stretch, which will be written
//! again. Then (and only then, [`Mode::Replay`]) rows in the way are deleted first.
//!
//! # Large rows
//!
//! A statement exists several times on its way: as text, and twice more in the driver. A row of more than
//! [`LARGE_ROW`] is therefore streamed by `LOAD DATA LOCAL` where the target allows it and the key is the
//! table's only unique index: deleted by key first, then loaded, in the same transaction.
//!
//! No statement is longer than the written server takes (its `max_allowed_packet`, 1 MiB by default before MySQL 5.6): rows are
//! gathered up to that, and one that is longer alone is streamed too, whatever indexes the table has. What can't be (the
//! server does not allow it, or a row without a key has to be found by its values) is an error that names the row.
//!
//! # Keyless tables
//!
//! A row is found by all its values with `LIMIT 1`, exactly one must be affected, and the position
//! through which the table's events are in is saved in the same transaction: applied once, whatever
//! happens.

use std::collections::BTreeMap;

use crate::engine::step::Epoch;
use crate::mysql::bookkeeping;
use crate::mysql::cell::{Cell, Key, Row};
use crate::mysql::connect::{Session, Version};
use crate::mysql::copy::{LoadPath, load};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::position::Position;
use crate::mysql::range;
use crate::mysql::sql;
use crate::mysql::table::{ColumnType, Table};
use crate::mysql::tables::{MovedTable, TableId, Tables};
use crate::mysql::well_formed::row_name;

use super::batch::{KeylessChange, Lane};

/// Rows in one statement at most.
const ROWS_PER_STATEMENT: usize = 250;
/// Bytes of one statement at most, unless one row alone is larger; less where the server takes less.
pub(in crate::mysql) const BYTES_PER_STATEMENT: usize = 1 << 20;

/// Rows that weigh more are streamed rather than put into a statement, in bytes.
const LARGE_ROW: usize = 4 << 20;

/// Whether the target may be ahead of the events that are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The target is at the position before these events.
    Forward,
    /// The target may hold later images: after a crash, up to the saved intent.
    Replay,
}

/// What a lane's transaction needs besides its changes.
pub struct LaneContext<'a> {
    /// The store's name in the playbook.
    pub store: &'a str,
    /// This driver's epoch.
    pub epoch: Epoch,
    /// The tables that move.
    pub tables: &'a Tables,
    /// Through which position each keyless table's events are in.
    pub keyless: &'a BTreeMap<TableId, Position>,
    /// Whether the target may be ahead.
    pub mode: Mode,
    /// Saved in the same transaction: applied and intended position.
    pub positions: Option<(&'a Position, &'a Position)>,
    /// The number by which the transaction marks itself as dbmove's, where it has no position in it and somebody asks the log.
    pub mark: Option<usize>,
}

/// Writes the lane and commits. On an error the transaction is rolled back, as far as the connection lives.
///
/// # Errors
/// As the server gives them; [`MysqlError::Drift`] if the target does not hold what it must.
pub async fn write_lane(session: &mut Session, lane: &Lane, context: &LaneContext<'_>) -> Result<()> {
    let first = match attempt(session, lane, context, false).await {
        Err(error) if error.code() == Some(DUPLICATE_KEY) => error,
        other => return other,
    };
    if context.mode == Mode::Replay {
        return attempt(session, lane, context, true).await;
    }
    let table = lane.keyed.iter().find(|(_, changes)| !changes.upserts.is_empty()).map_or(0, |(&id, _)| id);
    Err(MysqlError::Drift {
        table: context.tables.get(table).name().clone(),
        message: format!("a unique value is taken by a row that no event put there ({first}). Nothing of this batch was kept in this lane"),
    })
}

/// The server's error for a key or unique value that is taken.
pub const DUPLICATE_KEY: u16 = 1062;

async fn attempt(session: &mut Session, lane: &Lane, context: &LaneContext<'_>, make_room: bool) -> Result<()> {
    session.run("BEGIN", "opening a transaction").await?;
    let done = fill(session, lane, context, make_room).await;
    match done {
        Ok(()) => session.run("COMMIT", "committing applied events").await,
        Err(error) => {
            // If this fails too, the connection is gone and the server rolls back by itself.
            let _ = session.run("ROLLBACK", "rolling back").await;
            Err(error)
        }
    }
}

async fn fill(session: &mut Session, lane: &Lane, context: &LaneContext<'_>, make_room: bool) -> Result<()> {
    bookkeeping::hold_lease(session, context.store, context.epoch).await?;
    for (&id, changes) in &lane.keyed {
        let table = context.tables.get(id);
        let by_delete = !table.uniques.is_empty();
        let upserted = changes.upserts.iter().map(|(key, _)| key).filter(|_| by_delete);
        delete_keys(session, table, changes.deletes.iter().chain(upserted)).await?;
    }
    for (&id, changes) in &lane.keyed {
        let table = context.tables.get(id);
        let rows: Vec<&Row> = changes.upserts.iter().map(|(_, row)| row).collect();
        if make_room {
            make_room_for(session, table, &rows).await?;
        }
        upsert_rows(session, table, &rows).await?;
    }
    for (&id, events) in &lane.keyless {
        let table = context.tables.get(id);
        for event in events {
            // A transaction that was committed although its answer got lost is not applied again.
            if context.keyless.get(&id).is_some_and(|done| *done >= event.end) {
                continue;
            }
            for change in &event.changes {
                keyless_change(session, table, change).await?;
            }
        }
        if let Some(last) = events.last() {
            let statement = bookkeeping::save_keyless(context.store, table.name(), &last.end);
            session.write(statement.as_bytes(), "saving the position of a keyless table").await?;
        }
    }
    if let Some((applied, intent)) = context.positions {
        session.write(bookkeeping::save_positions(context.store, applied, intent).as_bytes(), "saving the applied position").await?;
    }
    if let Some(lane) = context.mark {
        session.write(bookkeeping::mark_lane(context.store, lane).as_bytes(), "marking the transaction as dbmove's").await?;
    }
    Ok(())
}

/// Deletes rows by key.
///
/// # Errors
/// As the server gives them.
pub async fn delete_keys<'a>(session: &mut Session, table: &MovedTable, keys: impl Iterator<Item = &'a Key>) -> Result<u64> {
    let mut deleted = 0;
    let keys: Vec<Key> = keys.cloned().collect();
    let what = format!("deleting from `{}`", table.name());
    let columns = table.key.as_deref().unwrap_or_default();
    for some in range::batches(&keys, ROWS_PER_STATEMENT) {
        let statement = format!("DELETE FROM {} WHERE {}", sql::table(table.name()), range::one_of(&table.target, columns, some));
        deleted += session.write_by_key(statement.as_bytes(), &what).await?.affected;
    }
    Ok(deleted)
}

/// Deletes rows that hold a unique value one of the `rows` is about to take.
///
/// # Errors
/// As the server gives them.
pub async fn make_room_for(session: &mut Session, table: &MovedTable, rows: &[&Row]) -> Result<()> {
    let what = format!("making room in `{}`", table.name());
    for unique in &table.uniques {
        let values: Vec<Key> = rows
            .iter()
            .filter(|row| unique.iter().all(|&column| !matches!(row[column], Cell::Null)))
            .map(|row| Key::of(row, unique))
            .collect();
        for some in range::batches(&values, ROWS_PER_STATEMENT) {
            let statement = format!("DELETE FROM {} WHERE {}", sql::table(table.name()), range::one_of(&table.target, unique, some));
            session.write_by_key(statement.as_bytes(), &what).await?;
        }
    }
    Ok(())
}

/// Writes rows by key, as the module's comment says. With other unique indexes the keys must have been deleted before.
///
/// # Errors
/// As the server gives them.
pub async fn upsert_rows(session: &mut Session, table: &MovedTable, rows: &[&Row]) -> Result<()> {
    let on_duplicate = table.uniques.is_empty();
    let (large, rows): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| on_duplicate && weight(row) > LARGE_ROW);
    let streamed = !large.is_empty() && load::choose(session, LoadPath::Auto).await? == LoadPath::LoadData;
    if streamed {
        for row in &large {
            stream_row(session, table, row).await?;
        }
    }
    for mut rest in [if streamed { &[] } else { large.as_slice() }, rows.as_slice()] {
        while !rest.is_empty() {
            let (statement, taken, excused) = insert_statement(table, rest, on_duplicate, session);
            if session.takes(statement.len()) {
                let what = format!("writing {taken} rows of `{}`", table.name());
                let named = |row: usize| rest.get(row).map(|row| name_of(table, row));
                execute(session, &statement, &what, excused).await.map_err(|error| error.at_row(named))?;
            } else {
                stream_too_long(session, table, rest[0], statement.len()).await?;
            }
            rest = &rest[taken..];
        }
    }
    Ok(())
}

/// A row's bytes, about.
fn weight(row: &Row) -> usize {
    row.iter().map(Cell::weight).sum()
}

/// How an error calls a row.
fn name_of(table: &MovedTable, row: &Row) -> String {
    row_name(&table.table, &table.key_of(row).map(|key| key.cells()).unwrap_or_default())
}

/// Writes a row as a stream whose statement, of so many bytes, the server does not take.
async fn stream_too_long(session: &mut Session, table: &MovedTable, row: &Row, bytes: usize) -> Result<()> {
    if load::choose(session, LoadPath::Auto).await? == LoadPath::LoadData {
        return stream_row(session, table, row).await;
    }
    Err(session.too_long(format!("writing a row of `{}` ({})", table.name(), name_of(table, row)), bytes, true))
}

/// Writes one row as a stream, in place of what its key has.
async fn stream_row(session: &mut Session, table: &MovedTable, row: &Row) -> Result<()> {
    delete_keys(session, table, table.key_of(row).iter()).await?;
    // Some room for escapes, so that the line is rarely moved to a larger place while it is made.
    let weight = weight(row);
    let mut line = Vec::with_capacity(weight + weight / 16);
    for (place, &column) in table.written.iter().enumerate() {
        if place > 0 {
            line.push(b'\t');
        }
        sql::push_field(&mut line, &row[column], table.table.columns[column].float_limit());
    }
    line.push(b'\n');
    let loaded = load::load(session, table, LoadPath::LoadData, line.into(), 1).await?;
    if loaded.inserted == 1 {
        return Ok(());
    }
    if !table.uniques.is_empty() {
        // What an INSERT would have said, and callers know what to do about.
        let message = format!("a unique value of {} is taken", name_of(table, row));
        let refused = mysql_async::ServerError { code: DUPLICATE_KEY, message, state: "23000".to_owned() };
        return Err(session.error(format!("writing a row of `{}`", table.name()), mysql_async::Error::Server(refused)));
    }
    Err(MysqlError::Drift {
        table: table.name().clone(),
        message: "a row whose key had just been deleted was refused as a duplicate. Nothing of this batch was kept in this lane".to_owned(),
    })
}

/// Runs an INSERT; warnings are errors but for `excused` ones that dbmove causes on purpose.
async fn execute(session: &mut Session, statement: &[u8], what: &str, excused: u16) -> Result<u64> {
    if excused == 0 {
        return Ok(session.write(statement, what).await?.affected);
    }
    let written = session.write_unchecked(statement, what).await?;
    if written.warnings > 0 {
        let warnings = session.warnings().await?;
        let truncated = warnings.iter().filter(|(code, _)| *code == DATA_TRUNCATED).count();
        if truncated != warnings.len() || truncated > usize::from(excused) {
            let worded = warnings.iter().take(5).map(|(code, text)| format!("{code} {text}")).collect::<Vec<_>>().join("; ");
            return Err(MysqlError::Warnings { server: session.server().to_string(), what: what.to_owned(), warnings: worded });
        }
    }
    Ok(written.affected)
}

/// "Data truncated for column": what a server says when an ENUM's error value (index 0) is stored as such.
const DATA_TRUNCATED: u16 = 1265;

/// How many ENUM cells hold the error value 0, each of which costs one warning that is none.
#[must_use]
pub fn enum_errors(table: &Table, row: &[Cell]) -> u16 {
    let errors =
        table.columns.iter().zip(row).filter(|(column, cell)| column.kind == ColumnType::Enum && cell.as_bytes() == Some(b"0")).count();
    u16::try_from(errors).unwrap_or(u16::MAX)
}

/// An INSERT of as many of the rows as fit a statement, one at least: its text, how many, and how many warnings are excused. The text may
/// be longer than the server takes only if it is of one row.
pub(in crate::mysql) fn insert_statement(
    table: &MovedTable,
    rows: &[&Row],
    on_duplicate: bool,
    session: &Session,
) -> (Vec<u8>, usize, u16) {
    insert_within(table, rows, on_duplicate, &session.version, session.packet().saturating_sub(2).min(BYTES_PER_STATEMENT))
}

/// The same for a server of that version, in so many bytes at most.
fn insert_within(table: &MovedTable, rows: &[&Row], on_duplicate: bool, version: &Version, most: usize) -> (Vec<u8>, usize, u16) {
    let written = &table.written;
    let columns = &table.table.columns;
    let names = sql::columns(written.iter().map(|&column| &columns[column]));
    let mut out = format!("INSERT INTO {} ({names}) VALUES ", sql::table(table.name())).into_bytes();
    let end = if on_duplicate { on_duplicate_key(table, version) } else { String::new() };
    let mut taken = 0;
    let mut excused: u16 = 0;
    for row in rows.iter().take(ROWS_PER_STATEMENT) {
        let before = out.len();
        if taken > 0 {
            out.extend_from_slice(b", ");
        }
        sql::push_tuple(&mut out, written.iter().map(|&column| (&row[column], &columns[column])));
        if taken > 0 && out.len() + end.len() > most {
            out.truncate(before);
            break;
        }
        excused = excused.saturating_add(enum_errors(&table.table, row));
        taken += 1;
    }
    out.extend_from_slice(end.as_bytes());
    (out, taken, excused)
}

/// What makes an INSERT take the place of the row with the same key.
fn on_duplicate_key(table: &MovedTable, version: &Version) -> String {
    // The row alias came with MySQL 8.0.19; `VALUES()` warns there and is the only way elsewhere.
    let alias = version.mysql_from((8, 0, 19));
    let assignments: Vec<String> = table
        .written
        .iter()
        .map(|&column| {
            let name = sql::identifier(&table.table.columns[column].name);
            if alias { format!("{name} = `_dbmove_new`.{name}") } else { format!("{name} = VALUES({name})") }
        })
        .collect();
    format!("{} ON DUPLICATE KEY UPDATE {}", if alias { " AS `_dbmove_new`" } else { "" }, assignments.join(", "))
}

async fn keyless_change(session: &mut Session, table: &MovedTable, change: &KeylessChange) -> Result<()> {
    let name = table.name();
    let columns = &table.table.columns;
    let excused = change.after.as_ref().map_or(0, |row| enum_errors(&table.table, row));
    let (statement, what) = match (&change.before, &change.after) {
        (None, Some(after)) => {
            let (statement, _, _) = insert_statement(table, &[after], false, session);
            if !session.takes(statement.len()) {
                return stream_too_long(session, table, after, statement.len()).await;
            }
            (statement, format!("inserting into `{name}`"))
        }
        (Some(before), None) => {
            let mut statement = format!("DELETE FROM {} WHERE ", sql::table(name)).into_bytes();
            push_same_row(&mut statement, &table.table, before);
            statement.extend_from_slice(b" LIMIT 1");
            (statement, format!("deleting a row of the keyless table `{name}`"))
        }
        (Some(before), Some(after)) => {
            let mut statement = format!("UPDATE {} SET ", sql::table(name)).into_bytes();
            for (index, &column) in table.written.iter().enumerate() {
                if index > 0 {
                    statement.extend_from_slice(b", ");
                }
                statement.extend_from_slice(sql::identifier(&columns[column].name).as_bytes());
                statement.extend_from_slice(b" = ");
                sql::push_stored(&mut statement, &after[column], &columns[column]);
            }
            statement.extend_from_slice(b" WHERE ");
            push_same_row(&mut statement, &table.table, before);
            statement.extend_from_slice(b" LIMIT 1");
            (statement, format!("updating a row of the keyless table `{name}`"))
        }
        (None, None) => return Ok(()),
    };
    let affected = execute(session, &statement, &what, excused).await?;
    if affected == 1 {
        return Ok(());
    }
    Err(MysqlError::Drift {
        table: name.clone(),
        message: "a row that an event changes is not there; the table has no key, so its rows can only be found by all their values"
            .to_owned(),
    })
}

/// Appends a condition that only rows with exactly these stored values meet.
pub(in crate::mysql) fn push_same_row(out: &mut Vec<u8>, table: &Table, row: &[Cell]) {
    for (index, (column, cell)) in table.columns.iter().zip(row).enumerate() {
        if index > 0 {
            out.extend_from_slice(b" AND ");
        }
        let name = sql::identifier(&column.name);
        match (cell, column.kind) {
            (Cell::Null, _) => out.extend_from_slice(format!("{name} IS NULL").as_bytes()),
            // Text by its bytes: 'a' and 'A' are different rows here.
            (Cell::Bytes(bytes), kind) if kind.is_text() || matches!(kind, ColumnType::Geometry | ColumnType::Json) => {
                out.extend_from_slice(format!("CAST({name} AS BINARY) = ").as_bytes());
                sql::push_quoted(out, bytes);
            }
            // A FLOAT compares as the double it widens to. The sum keeps MySQL 8+ from taking a value beyond the declared digits for one
            // that no row can have: a FLOAT(10,3) keeps 9999999.999 as 10000000.
            (Cell::Float(_) | Cell::Double(_), _) => {
                out.extend_from_slice(format!("{name} + 0e0 = ").as_bytes());
                let widened = match cell {
                    Cell::Float(value) => &Cell::Double(f64::from(*value)),
                    other => other,
                };
                sql::push_literal(out, widened, column);
            }
            _ => {
                out.extend_from_slice(format!("{name} = ").as_bytes());
                sql::push_literal(out, cell, column);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::names::TableName;
    use crate::mysql::table::{Column, Index, IndexPart};

    fn table() -> Tables {
        let table = Table {
            name: TableName::new("s", "t"),
            engine: "InnoDB".to_owned(),
            collation: String::new(),
            row_estimate: 0,
            data_bytes: 0,
            auto_increment: None,
            columns: vec![Column::plain("id", ColumnType::Int), Column::plain("body", ColumnType::Blob)],
            indexes: vec![Index {
                name: "PRIMARY".to_owned(),
                unique: true,
                method: "BTREE".to_owned(),
                parts: vec![IndexPart { column: 0, prefix: None }],
            }],
            foreign_keys: Vec::new(),
            lookups_fail: false,
        };
        Tables::new(&[std::sync::Arc::new(table)], &Version::parse("5.5.34")).unwrap()
    }

    #[test]
    fn a_statement_is_as_long_as_may_be_and_has_one_row_at_least() {
        let tables = table();
        let table = tables.get(0);
        let row = |id: &str, bytes: usize| vec![Cell::Bytes(id.into()), Cell::Bytes(vec![b'\''; bytes])];
        let rows: Vec<Row> = (0..9).map(|_| row("7", 100)).collect();
        let rows: Vec<&Row> = rows.iter().collect();
        let version = Version::parse("5.5.34");
        let (whole, taken, _) = insert_within(table, &rows, true, &version, usize::MAX);
        assert_eq!(taken, 9);
        for most in [1, 400, whole.len() / 2, whole.len() - 1] {
            let (text, taken, _) = insert_within(table, &rows, true, &version, most);
            assert!(text.len() <= most || taken == 1, "{} bytes of {most}", text.len());
            assert!(text.ends_with(b" ON DUPLICATE KEY UPDATE `id` = VALUES(`id`), `body` = VALUES(`body`)"));
            let (next, more, _) = insert_within(table, &rows, true, &version, text.len());
            assert_eq!((next.len(), more), (text.len(), taken), "what fits exactly is taken");
        }
        assert_eq!(insert_within(table, &rows, true, &version, whole.len()).1, 9);
        let many: Vec<Row> = (0..300).map(|_| row("7", 1)).collect();
        assert_eq!(insert_within(table, &many.iter().collect::<Vec<_>>(), true, &version, usize::MAX).1, ROWS_PER_STATEMENT);
    }
}
