//! What dbmove keeps on the target, beside the data it describes: the `_dbmove` schema.
//!
//! # What must hold
//!
//! * A position is saved in the target transaction whose data it describes, or after it, never
//!   before it. So after any crash the target holds at least what the position says.
//! * Before a batch is applied its end is saved as the *intent*. After a crash the target may be
//!   ahead of `applied`, but never beyond `intent`: between the two the applier knows that it is
//!   replaying and treats a clash of unique values as the trace of its own earlier work.
//! * A cascade can't be repeated together with what came before it in its transaction: the rows that led from the parent to the
//!   last level are gone, and a row of that level, written once more, would stay. So a cascade saves with itself the last event
//!   that is on the target for certain (*sure*); what comes before it is not written again.
//! * Every writing transaction first reads the lease's epoch with a shared lock. A driver that
//!   takes over writes a higher epoch, which waits for the commits under way and makes every
//!   later transaction of the old driver fail.
//!
//! # The tables
//!
//! | table | one row per | holds |
//! | --- | --- | --- |
//! | `lease` | store | run and epoch of the driver |
//! | `follow` | store | start, applied and intended position, and the last event that must not be repeated |
//! | `log_file` | file of the source's binary log | what tells it from another of its name |
//! | `lane` | lane of a batch, on the way back | how many batches it wrote: by that a transaction is known to be dbmove's in the log |
//! | `keyless` | keyless table | position through which its events are in |
//! | `copied_table` | table | how far chunks are planned, whether rows and indexes are there |
//! | `chunk` | chunk | key range, whether its rows are in |
//! | `definition` | table | what it was made from and where it begins (see [`super::definitions`]) |
//! | `created` | database or table made by dbmove | what undo may drop |
//! | `created_account` | account created by dbmove | the same, and what it has to hold (see [`super::accounts::notes`]) |
//! | `filled_table` | table of a rehearsal's source that dbmove fills | that its rows are whole (see [`super::fill`]) |
//! | `created_object` | view, routine, trigger or event made by dbmove | the same, and hashes of its definitions (see [`super::objects::notes`]) |

use super::connect::Session;
use super::error::{MysqlError, Result};
use super::names::{DBMOVE_SCHEMA, TableName};
use super::position::Position;
use super::sql;
use super::tail::LogFile;
use crate::engine::step::Epoch;

/// The tables' definitions. `LONGBLOB` keys: an encoded key may be longer than any VARBINARY index.
const TABLES: [(&str, &str); 12] = [
    ("lease", "(store VARBINARY(255) NOT NULL PRIMARY KEY, run VARBINARY(255) NOT NULL, epoch BIGINT UNSIGNED NOT NULL)"),
    (
        "follow",
        "(store VARBINARY(255) NOT NULL PRIMARY KEY, start_file VARBINARY(255) NOT NULL, start_offset BIGINT UNSIGNED NOT NULL, \
     applied_file VARBINARY(255) NOT NULL, applied_offset BIGINT UNSIGNED NOT NULL, intent_file VARBINARY(255) NOT NULL, intent_offset BIGINT UNSIGNED NOT NULL, \
     sure_file VARBINARY(255) NOT NULL, sure_offset BIGINT UNSIGNED NOT NULL)",
    ),
    (
        "log_file",
        "(store VARBINARY(255) NOT NULL, file VARBINARY(255) NOT NULL, created BIGINT UNSIGNED NOT NULL, server_id BIGINT UNSIGNED NOT NULL, \
     PRIMARY KEY (store, file))",
    ),
    (
        "lane",
        "(store VARBINARY(255) NOT NULL, number BIGINT UNSIGNED NOT NULL, batches BIGINT UNSIGNED NOT NULL, PRIMARY KEY (store, number))",
    ),
    (
        "keyless",
        "(store VARBINARY(255) NOT NULL, database_name VARBINARY(255) NOT NULL, table_name VARBINARY(255) NOT NULL, \
     file VARBINARY(255) NOT NULL, file_offset BIGINT UNSIGNED NOT NULL, PRIMARY KEY (store, database_name, table_name))",
    ),
    (
        "copied_table",
        "(store VARBINARY(255) NOT NULL, database_name VARBINARY(255) NOT NULL, table_name VARBINARY(255) NOT NULL, \
     planned_through LONGBLOB NULL, planned TINYINT NOT NULL, copied TINYINT NOT NULL, indexed TINYINT NOT NULL, PRIMARY KEY (store, database_name, table_name))",
    ),
    (
        "chunk",
        "(store VARBINARY(255) NOT NULL, database_name VARBINARY(255) NOT NULL, table_name VARBINARY(255) NOT NULL, number BIGINT UNSIGNED NOT NULL, \
     range_after LONGBLOB NULL, range_through LONGBLOB NULL, done TINYINT NOT NULL, row_count BIGINT UNSIGNED NOT NULL, byte_count BIGINT UNSIGNED NOT NULL, \
     PRIMARY KEY (store, database_name, table_name, number))",
    ),
    (
        "definition",
        "(store VARBINARY(255) NOT NULL, database_name VARBINARY(255) NOT NULL, table_name VARBINARY(255) NOT NULL, state VARBINARY(16) NOT NULL, \
     definition VARBINARY(64) NOT NULL, file VARBINARY(255) NOT NULL, file_offset BIGINT UNSIGNED NOT NULL, PRIMARY KEY (store, database_name, table_name))",
    ),
    (
        "created",
        "(store VARBINARY(255) NOT NULL, database_name VARBINARY(255) NOT NULL, table_name VARBINARY(255) NOT NULL, \
     PRIMARY KEY (store, database_name, table_name))",
    ),
    (
        "created_account",
        "(store VARBINARY(255) NOT NULL, user_name VARBINARY(255) NOT NULL, host_name VARBINARY(255) NOT NULL, expected LONGBLOB NULL, \
     PRIMARY KEY (store, user_name, host_name))",
    ),
    (
        "filled_table",
        "(store VARBINARY(255) NOT NULL, database_name VARBINARY(255) NOT NULL, table_name VARBINARY(255) NOT NULL, definition VARBINARY(64) NOT NULL, \
     row_count BIGINT UNSIGNED NOT NULL, byte_count BIGINT UNSIGNED NOT NULL, PRIMARY KEY (store, database_name, table_name))",
    ),
    (
        "created_object",
        "(store VARBINARY(255) NOT NULL, kind VARBINARY(32) NOT NULL, database_name VARBINARY(255) NOT NULL, object_name VARBINARY(255) NOT NULL, \
     source_hash VARBINARY(64) NOT NULL, target_hash VARBINARY(64) NOT NULL, to_enable TINYINT NOT NULL, changes LONGBLOB NOT NULL, \
     PRIMARY KEY (store, kind, database_name, object_name))",
    ),
];

/// One of dbmove's own tables, quoted.
#[must_use]
pub fn own_table(name: &str) -> String {
    sql::table(&TableName::new(DBMOVE_SCHEMA, name))
}

/// Creates the schema and its tables where they are missing.
///
/// # Errors
/// If the account may not create them.
pub async fn create(session: &mut Session) -> Result<()> {
    if !exists(session).await? {
        session.write(format!("CREATE DATABASE {}", sql::identifier(DBMOVE_SCHEMA)).as_bytes(), "creating `_dbmove`").await?;
    }
    let there = session
        .rows(
            &format!("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {}", sql::text(DBMOVE_SCHEMA)),
            "looking for dbmove's own tables",
        )
        .await?;
    for (name, columns) in TABLES {
        if !there.iter().any(|row| row[0].as_deref() == Some(name)) {
            let statement = format!("CREATE TABLE {} {columns} ENGINE = InnoDB", own_table(name));
            session.write(statement.as_bytes(), &format!("creating `_dbmove.{name}`")).await?;
        }
    }
    Ok(())
}

/// Whether the `_dbmove` schema is there.
///
/// # Errors
/// If the catalog can't be read.
pub async fn exists(session: &mut Session) -> Result<bool> {
    let query = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}", sql::text(DBMOVE_SCHEMA));
    Ok(session.first(&query, "looking for `_dbmove`").await?.is_some())
}

/// The lease's run and epoch, if the schema and the row are there.
///
/// # Errors
/// If the table can't be read.
pub async fn lease(session: &mut Session, store: &str) -> Result<Option<(String, Epoch)>> {
    let query = format!("SELECT run, epoch FROM {} WHERE store = {}", own_table("lease"), sql::text(store));
    match session.first(&query, "reading the lease").await {
        Ok(row) => Ok(row.map(|row| (text(&row, 0), Epoch(number(&row, 1))))),
        // No such database or table: nobody has claimed this target.
        Err(error) if matches!(error.code(), Some(1049 | 1146)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Claims the target for a run's epoch; waits for the commits of an older driver.
///
/// # Errors
/// [`MysqlError::LeaseLost`] if another run or a higher epoch stands there.
pub async fn claim(session: &mut Session, store: &str, run: &str, epoch: Epoch) -> Result<()> {
    session.run("BEGIN", "claiming the target").await?;
    let query = format!("SELECT run, epoch FROM {} WHERE store = {} FOR UPDATE", own_table("lease"), sql::text(store));
    let held = session.first(&query, "reading the lease").await?.map(|row| (text(&row, 0), Epoch(number(&row, 1))));
    if let Some((other, held_epoch)) = held
        && (other != run || held_epoch > epoch)
    {
        session.run("ROLLBACK", "claiming the target").await?;
        let message = if other == run {
            format!(
                "the target of `{store}` is driven by epoch {held_epoch} of this run; this process holds epoch {epoch}. Nothing was changed"
            )
        } else {
            format!("the target of `{store}` belongs to run `{other}`. Nothing was changed")
        };
        return Err(MysqlError::LeaseLost(message));
    }
    let statement =
        format!("REPLACE INTO {} (store, run, epoch) VALUES ({}, {}, {epoch})", own_table("lease"), sql::text(store), sql::text(run));
    session.write(statement.as_bytes(), "claiming the target").await?;
    session.run("COMMIT", "claiming the target").await
}

/// Checks inside a transaction that this driver still holds the lease, and keeps it so until the commit.
///
/// # Errors
/// [`MysqlError::LeaseLost`] if another driver has taken over.
pub async fn hold_lease(session: &mut Session, store: &str, epoch: Epoch) -> Result<()> {
    let query = format!("SELECT epoch FROM {} WHERE store = {} LOCK IN SHARE MODE", own_table("lease"), sql::text(store));
    let held = session.first(&query, "checking the lease").await?.map(|row| Epoch(number(&row, 0)));
    if held == Some(epoch) {
        return Ok(());
    }
    Err(MysqlError::LeaseLost(match held {
        Some(held) => format!("epoch {held} has taken over the target of `{store}`; this process (epoch {epoch}) writes nothing more"),
        None => format!("the lease on the target of `{store}` is gone; this process (epoch {epoch}) writes nothing more"),
    }))
}

/// Marks the transaction that is open as dbmove's: whoever reads the log finds this row changed in it.
#[must_use]
pub fn mark_lane(store: &str, lane: usize) -> String {
    format!(
        "INSERT INTO {} (store, number, batches) VALUES ({}, {lane}, 1) ON DUPLICATE KEY UPDATE batches = batches + 1",
        own_table("lane"),
        sql::text(store)
    )
}

/// How far following has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Where following started (`P0`).
    pub start: Position,
    /// Every transaction up to here is on the target.
    pub applied: Position,
    /// Nothing beyond here is on the target.
    pub intent: Position,
    /// Events up to here, the end of one in the middle of a transaction, are on the target and must not be written again.
    pub sure: Position,
}

/// Reads the positions of a store.
///
/// # Errors
/// If the table can't be read.
pub async fn followed(session: &mut Session, store: &str) -> Result<Option<Followed>> {
    let query = format!(
        "SELECT start_file, start_offset, applied_file, applied_offset, intent_file, intent_offset, sure_file, sure_offset FROM {} WHERE store = {}",
        own_table("follow"),
        sql::text(store)
    );
    let position = |row: &[Option<String>], at: usize| Position::new(text(row, at), number(row, at + 1));
    match session.first(&query, "reading the saved positions").await {
        Ok(row) => Ok(row.map(|row| Followed {
            start: position(&row, 0),
            applied: position(&row, 2),
            intent: position(&row, 4),
            sure: position(&row, 6),
        })),
        Err(error) if matches!(error.code(), Some(1049 | 1146)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Saves where following starts.
///
/// # Errors
/// If the table can't be written.
pub async fn start_following(session: &mut Session, store: &str, start: &Position) -> Result<()> {
    let place = format!("{}, {}", sql::text(&start.file), start.offset);
    let statement = format!(
        "INSERT INTO {} (store, start_file, start_offset, applied_file, applied_offset, intent_file, intent_offset, sure_file, sure_offset) VALUES ({}, {place}, {place}, {place}, {place})",
        own_table("follow"),
        sql::text(store)
    );
    session.write(statement.as_bytes(), "saving the start position").await?;
    Ok(())
}

/// The statement that saves positions; run it inside the transaction whose data it describes.
#[must_use]
pub fn save_positions(store: &str, applied: &Position, intent: &Position) -> String {
    format!(
        "UPDATE {} SET applied_file = {}, applied_offset = {}, intent_file = {}, intent_offset = {} WHERE store = {}",
        own_table("follow"),
        sql::text(&applied.file),
        applied.offset,
        sql::text(&intent.file),
        intent.offset,
        sql::text(store)
    )
}

/// The statement that saves up to which event nothing may be written again; run it inside the transaction of a cascade.
#[must_use]
pub fn save_sure(store: &str, sure: &Position) -> String {
    format!(
        "UPDATE {} SET sure_file = {}, sure_offset = {} WHERE store = {}",
        own_table("follow"),
        sql::text(&sure.file),
        sure.offset,
        sql::text(store)
    )
}

/// What was saved of a file of the source's log; saves it where nothing was. A target that was claimed before this was kept
/// has no such table: then nothing is known.
///
/// # Errors
/// If the table can't be read or written.
pub async fn log_file(session: &mut Session, store: &str, epoch: Epoch, seen: &LogFile) -> Result<Option<LogFile>> {
    let place = format!("store = {} AND file = {}", sql::text(store), sql::text(&seen.file));
    let query = format!("SELECT created, server_id FROM {} WHERE {place}", own_table("log_file"));
    let saved = match session.first(&query, "reading which log is followed").await {
        Ok(row) => row,
        Err(error) if error.code() == Some(1146) => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Some(row) = saved {
        let small = |at: usize| u32::try_from(number(&row, at)).unwrap_or(u32::MAX);
        return Ok(Some(LogFile { file: seen.file.clone(), created: small(0), server_id: small(1) }));
    }
    session.run("BEGIN", "saving which log is followed").await?;
    hold_lease(session, store, epoch).await?;
    let statement = format!(
        "INSERT INTO {} (store, file, created, server_id) VALUES ({}, {}, {}, {})",
        own_table("log_file"),
        sql::text(store),
        sql::text(&seen.file),
        seen.created,
        seen.server_id
    );
    session.write(statement.as_bytes(), "saving which log is followed").await?;
    session.run("COMMIT", "saving which log is followed").await?;
    Ok(None)
}

/// The statement that saves how far a keyless table's events are in; run it in their transaction.
#[must_use]
pub fn save_keyless(store: &str, table: &TableName, through: &Position) -> String {
    format!(
        "REPLACE INTO {} (store, database_name, table_name, file, file_offset) VALUES ({}, {}, {}, {}, {})",
        own_table("keyless"),
        sql::text(store),
        sql::text(&table.database),
        sql::text(&table.table),
        sql::text(&through.file),
        through.offset
    )
}

/// How far the events of each keyless table are in.
///
/// # Errors
/// If the table can't be read.
pub async fn keyless(session: &mut Session, store: &str) -> Result<Vec<(TableName, Position)>> {
    let query =
        format!("SELECT database_name, table_name, file, file_offset FROM {} WHERE store = {}", own_table("keyless"), sql::text(store));
    let rows = session.rows(&query, "reading the positions of keyless tables").await?;
    Ok(rows.iter().map(|row| (TableName::new(text(row, 0), text(row, 1)), Position::new(text(row, 2), number(row, 3)))).collect())
}

/// Notes that dbmove makes a database (`table` empty) or a table, so that undo may drop it. Written before the effect.
///
/// # Errors
/// If the table can't be written.
pub async fn note_created(session: &mut Session, store: &str, database: &str, table: &str) -> Result<()> {
    let statement = format!(
        "REPLACE INTO {} (store, database_name, table_name) VALUES ({}, {}, {})",
        own_table("created"),
        sql::text(store),
        sql::text(database),
        sql::text(table)
    );
    session.write(statement.as_bytes(), "noting what is created").await?;
    Ok(())
}

/// What dbmove has made: databases have an empty table name.
///
/// # Errors
/// If the table can't be read.
pub async fn created(session: &mut Session, store: &str) -> Result<Vec<TableName>> {
    let query = format!("SELECT database_name, table_name FROM {} WHERE store = {}", own_table("created"), sql::text(store));
    match session.rows(&query, "reading what was created").await {
        Ok(rows) => Ok(rows.iter().map(|row| TableName::new(text(row, 0), text(row, 1))).collect()),
        Err(error) if matches!(error.code(), Some(1049 | 1146)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Drops the store's rows, and the schema if no other store uses it.
///
/// # Errors
/// If the account may not.
pub async fn remove(session: &mut Session, store: &str) -> Result<()> {
    if !exists(session).await? {
        return Ok(());
    }
    let others = format!("SELECT COUNT(*) FROM {} WHERE store <> {}", own_table("lease"), sql::text(store));
    let others = match session.first(&others, "looking for other stores").await {
        Ok(row) => row.map_or(0, |row| number(&row, 0)),
        Err(error) if error.code() == Some(1146) => 0,
        Err(error) => return Err(error),
    };
    if others == 0 {
        session.write(format!("DROP DATABASE {}", sql::identifier(DBMOVE_SCHEMA)).as_bytes(), "dropping `_dbmove`").await?;
        return Ok(());
    }
    // The lease is the first of them, and the last to go.
    for (table, _) in TABLES.iter().rev() {
        let statement = format!("DELETE FROM {} WHERE store = {}", own_table(table), sql::text(store));
        match session.write(statement.as_bytes(), "removing the store's bookkeeping").await {
            // An older build did not make it.
            Err(error) if error.code() == Some(1146) => {}
            result => drop(result?),
        }
    }
    Ok(())
}

/// A text cell of a catalog row; empty for NULL.
#[must_use]
pub fn text(row: &[Option<String>], at: usize) -> String {
    row.get(at).and_then(Clone::clone).unwrap_or_default()
}

/// A number of a catalog row; 0 for NULL.
#[must_use]
pub fn number(row: &[Option<String>], at: usize) -> u64 {
    row.get(at).and_then(|cell| cell.as_deref()).and_then(|cell| cell.parse().ok()).unwrap_or(0)
}
