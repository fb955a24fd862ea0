//! Writes one transaction of the log as a client would, and makes each change come true by its key.
//!
//! | in the log | on the copy |
//! | --- | --- |
//! | insert | inserted; what has its key or a unique value of it is deleted first if there is something |
//! | update | the columns that changed are set where the old key is; inserted if it is not there |
//! | delete | deleted; nothing if it is not there |
//!
//! Rows of one event are inserted and deleted together, as the statement did that logged them; updates go one by one. A transaction of a single
//! change is a statement of its own. What the server refuses for the row's sake (a foreign key, a table that is gone) is counted, and the
//! transaction goes on: so does a client's. What it refuses for the session's sake is the caller's business ([`clients`](super::clients)).
//!
//! Warnings are not looked at: the rows come from a server that took them, and nobody compares the copy with it.

use super::figures::Done;
use crate::mysql::apply::write::{DUPLICATE_KEY, delete_keys, insert_statement, make_room_for, push_same_row};
use crate::mysql::cell::{Key, Row};
use crate::mysql::connect::{Session, Written};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::range;
use crate::mysql::rows::RowChange;
use crate::mysql::sql;
use crate::mysql::table::ColumnType;
use crate::mysql::tables::{MovedTable, Tables};
use crate::mysql::tail::Rows;

/// A foreign key's child or parent stands in the way.
const FOREIGN_KEY: [u16; 4] = [1216, 1217, 1451, 1452];
/// The table, or a column of it, is not there.
const NOT_THERE: [u16; 3] = [1146, 1054, 1136];
/// `read_only`, the global read lock, a read-only transaction, `super_read_only`: writes are held.
const HELD: [u16; 4] = [1290, 1223, 1792, 1836];
/// Privileges, also on single tables and columns.
const NOT_ALLOWED: [u16; 5] = [1044, 1142, 1143, 1227, 1370];

/// Whether the same transaction may go through later, on this connection or another.
#[must_use]
pub fn may_pass_later(error: &MysqlError) -> bool {
    error.transient() || error.code().is_some_and(|code| HELD.contains(&code))
}

/// Why a change was refused, if it was for its own sake; else the error.
fn refused(error: MysqlError) -> Result<String> {
    match error.code() {
        Some(code) if FOREIGN_KEY.contains(&code) => Ok("a foreign key: its parent or child on the copy is another".to_owned()),
        Some(code) if NOT_THERE.contains(&code) => Ok("its table or a column is not there any more".to_owned()),
        Some(code) if HELD.contains(&code) || NOT_ALLOWED.contains(&code) => Err(error),
        _ if error.transient() => Err(error),
        Some(code) => Ok(format!("the server's error {code}")),
        None if matches!(error, MysqlError::TooLong { .. }) => Ok("longer than the copy's `max_allowed_packet`".to_owned()),
        // A value that deleting by key was warned of.
        None if matches!(error, MysqlError::Warnings { .. }) => Ok("a key that the server can't find rows by".to_owned()),
        None => Err(error),
    }
}

/// Writes and commits it. What happened counts only if it returns.
///
/// # Errors
/// As the server gives them; the transaction is rolled back then, as far as the connection lives.
pub async fn transaction(session: &mut Session, rows: &[Rows], tables: &Tables) -> Result<Done> {
    let mut done = Done::default();
    if let [one] = rows
        && one.changes.len() == 1
    {
        event(session, tables.get(one.table), &one.changes, &mut done).await?;
        return Ok(done);
    }
    session.run("BEGIN", "opening a transaction of the load").await?;
    let filled = async {
        for rows in rows {
            event(session, tables.get(rows.table), &rows.changes, &mut done).await?;
        }
        session.run("COMMIT", "committing a transaction of the load").await
    };
    match filled.await {
        Ok(()) => Ok(done),
        Err(error) => {
            // If this fails too, the connection is gone and the server rolls back by itself.
            let _ = session.run("ROLLBACK", "rolling back").await;
            Err(error)
        }
    }
}

/// The changes of one event: all inserts, all updates or all deletes.
async fn event(session: &mut Session, table: &MovedTable, changes: &[RowChange], done: &mut Done) -> Result<()> {
    if changes.iter().all(|change| change.before.is_none()) {
        let rows: Vec<&Row> = changes.iter().filter_map(|change| change.after.as_ref()).collect();
        return insert(session, table, &rows, done).await;
    }
    if let Some(columns) = &table.key
        && changes.iter().all(|change| change.after.is_none())
    {
        let keys: Vec<Key> = changes.iter().filter_map(|change| change.before.as_ref()).map(|row| Key::of(row, columns)).collect();
        return delete(session, table, &keys, done).await;
    }
    for change in changes {
        let made = match (&change.before, &change.after) {
            (Some(before), Some(after)) => update(session, table, before, after, done).await,
            (Some(before), None) => delete_same(session, table, before, done).await,
            _ => Ok(()),
        };
        take(made, 1, done)?;
    }
    Ok(())
}

/// Counts changes that were refused for their own sake.
fn take(made: Result<()>, changes: u64, done: &mut Done) -> Result<()> {
    if let Err(error) = made {
        *done.refused.entry(refused(error)?).or_default() += changes;
    }
    Ok(())
}

async fn insert(session: &mut Session, table: &MovedTable, rows: &[&Row], done: &mut Done) -> Result<()> {
    let mut rest = rows;
    while !rest.is_empty() {
        let (statement, taken, _) = insert_statement(table, rest, false, session);
        match session.write_unchecked(&statement, &format!("inserting into `{}`", table.name())).await {
            Ok(_) => done.as_logged += taken as u64,
            Err(_) if taken > 1 => {
                // One of them is in the way of all.
                for row in &rest[..taken] {
                    let made = put_alone(session, table, row, done).await;
                    take(made, 1, done)?;
                }
            }
            Err(error) => {
                let made = put_in_place(session, table, rest[0], error, done).await;
                take(made, 1, done)?;
            }
        }
        rest = &rest[taken..];
    }
    Ok(())
}

async fn put_alone(session: &mut Session, table: &MovedTable, row: &Row, done: &mut Done) -> Result<()> {
    match insert_one(session, table, row).await {
        Ok(_) => {
            done.as_logged += 1;
            Ok(())
        }
        Err(error) => put_in_place(session, table, row, error, done).await,
    }
}

/// After an insert that failed: if something has the row's key or a unique value, it makes room and the row is inserted.
async fn put_in_place(session: &mut Session, table: &MovedTable, row: &Row, error: MysqlError, done: &mut Done) -> Result<()> {
    if error.code() != Some(DUPLICATE_KEY) {
        return Err(error);
    }
    make_way(session, table, row).await?;
    insert_one(session, table, row).await?;
    done.was_there += 1;
    Ok(())
}

async fn insert_one(session: &mut Session, table: &MovedTable, row: &Row) -> Result<Written> {
    let (statement, _, _) = insert_statement(table, &[row], false, session);
    session.write_unchecked(&statement, &format!("inserting into `{}`", table.name())).await
}

async fn make_way(session: &mut Session, table: &MovedTable, row: &Row) -> Result<()> {
    delete_keys(session, table, table.key_of(row).iter()).await?;
    make_room_for(session, table, &[row]).await
}

async fn update(session: &mut Session, table: &MovedTable, before: &Row, after: &Row, done: &mut Done) -> Result<()> {
    let columns = &table.table.columns;
    // A moment may be set to now by the update of another column (`ON UPDATE CURRENT_TIMESTAMP`) unless it is set too.
    let is_moment = |column: usize| matches!(columns[column].kind, ColumnType::Timestamp(_) | ColumnType::DateTime(_));
    let set = table.written.iter().copied().filter(|&column| before[column] != after[column] || is_moment(column));
    let set: Vec<usize> = set.collect();
    let set = if set.is_empty() { &table.written } else { &set };
    let mut statement = format!("UPDATE {} SET ", sql::table(table.name())).into_bytes();
    for (index, &column) in set.iter().enumerate() {
        if index > 0 {
            statement.extend_from_slice(b", ");
        }
        statement.extend_from_slice(sql::identifier(&columns[column].name).as_bytes());
        statement.extend_from_slice(b" = ");
        sql::push_stored(&mut statement, &after[column], &columns[column]);
    }
    statement.extend_from_slice(b" WHERE ");
    match &table.key {
        Some(key) => statement.extend_from_slice(range::one_of(&table.target, key, &[Key::of(before, key)]).as_bytes()),
        None => {
            push_same_row(&mut statement, &table.table, before);
            statement.extend_from_slice(b" LIMIT 1");
        }
    }
    match session.write_unchecked(&statement, &format!("updating `{}`", table.name())).await {
        // The session counts rows that were found.
        Ok(written) if written.affected > 0 => {
            done.as_logged += 1;
            done.without_effect += u64::from(changed_rows(&written) == Some(0));
            Ok(())
        }
        Ok(_) => {
            if let Err(error) = insert_one(session, table, after).await {
                if error.code() != Some(DUPLICATE_KEY) {
                    return Err(error);
                }
                make_way(session, table, after).await?;
                insert_one(session, table, after).await?;
            }
            done.was_not_there += 1;
            Ok(())
        }
        Err(error) if error.code() == Some(DUPLICATE_KEY) => {
            delete_keys(session, table, table.key_of(before).iter()).await?;
            make_way(session, table, after).await?;
            insert_one(session, table, after).await?;
            done.was_there += 1;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// `Rows matched: 1  Changed: 0  Warnings: 0`
fn changed_rows(written: &Written) -> Option<u64> {
    written.info.split_once("Changed: ")?.1.split_ascii_whitespace().next()?.parse().ok()
}

async fn delete(session: &mut Session, table: &MovedTable, keys: &[Key], done: &mut Done) -> Result<()> {
    match delete_keys(session, table, keys.iter()).await {
        Ok(deleted) => {
            count_deleted(deleted, keys.len() as u64, done);
            Ok(())
        }
        Err(_) if keys.len() > 1 => {
            // One of them may be what the server minds.
            for key in keys {
                let made = delete_keys(session, table, std::iter::once(key)).await;
                let made = made.map(|deleted| count_deleted(deleted, 1, done));
                take(made, 1, done)?;
            }
            Ok(())
        }
        Err(error) => take(Err(error), keys.len() as u64, done),
    }
}

fn count_deleted(deleted: u64, of: u64, done: &mut Done) {
    let missing = of.saturating_sub(deleted);
    done.as_logged += of - missing;
    done.was_not_there += missing;
    done.without_effect += missing;
}

/// A row of a table without key.
async fn delete_same(session: &mut Session, table: &MovedTable, row: &Row, done: &mut Done) -> Result<()> {
    let mut statement = format!("DELETE FROM {} WHERE ", sql::table(table.name())).into_bytes();
    push_same_row(&mut statement, &table.table, row);
    statement.extend_from_slice(b" LIMIT 1");
    let written = session.write_unchecked(&statement, &format!("deleting from `{}`", table.name())).await?;
    count_deleted(written.affected, 1, done);
    Ok(())
}
