//! What a try has made on the target, in a schema of its own there, so that it is dropped again whatever happens.
//!
//! A database is noted before it is created and only if it was not there. Between the two somebody else may create one of that name, so
//! a noted database is dropped only while it holds no row: a try writes none.

use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::{TRY_SCHEMA, TableName};
use crate::mysql::sql;

/// Seconds to wait for the lock: a session that was closed gives it back a little later.
const PATIENCE: u32 = 10;

/// Keeps another try away from this server for as long as the session lives.
///
/// # Errors
/// If another one is under way.
pub async fn lock(session: &mut Session) -> Result<()> {
    let query = format!("SELECT GET_LOCK({}, {PATIENCE})", sql::text(TRY_SCHEMA));
    let row = session.first(&query, "waiting for other tries").await?;
    if row.and_then(|row| row.into_iter().next().flatten()).as_deref() == Some("1") {
        return Ok(());
    }
    Err(MysqlError::Object {
        message: format!("another `dbmove assess --try` is under way on the {}. Nothing was changed", session.server()),
        hint: "wait until it has ended".to_owned(),
    })
}

fn made() -> String {
    sql::table(&TableName::new(TRY_SCHEMA, "made"))
}

async fn exists(session: &mut Session, database: &str) -> Result<bool> {
    let query = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}", sql::text(database));
    Ok(session.first(&query, "looking for a database").await?.is_some())
}

/// Makes the schema of the notes.
///
/// # Errors
/// If the account may not.
pub async fn create(session: &mut Session) -> Result<()> {
    let schema = format!("CREATE DATABASE IF NOT EXISTS {}", sql::identifier(TRY_SCHEMA));
    session.run(&schema, &format!("creating `{TRY_SCHEMA}`")).await?;
    let table = format!("CREATE TABLE IF NOT EXISTS {} (database_name VARBINARY(255) NOT NULL PRIMARY KEY) ENGINE = InnoDB", made());
    session.run(&table, &format!("creating `{TRY_SCHEMA}.made`")).await
}

/// Notes a database that is going to be created.
///
/// # Errors
/// If the note can't be written.
pub async fn note(session: &mut Session, database: &str) -> Result<()> {
    session.run(&format!("INSERT INTO {} VALUES ({})", made(), sql::text(database)), "noting what is created").await
}

/// Takes a note back: the database was not made.
///
/// # Errors
/// If the note can't be removed.
pub async fn forget(session: &mut Session, database: &str) -> Result<()> {
    let forget = format!("DELETE FROM {} WHERE database_name = {}", made(), sql::text(database));
    session.run(&forget, "forgetting what is not there").await
}

/// Refuses names that are taken.
///
/// # Errors
/// [`MysqlError::Object`] naming the first.
pub async fn refuse_if_there(session: &mut Session, names: &[&str]) -> Result<()> {
    for name in names {
        if exists(session, name).await? {
            return Err(MysqlError::Object {
                message: format!("the database `{name}` is on the {} already, so nothing was tried there", session.server()),
                hint:
                    "drop it if it is not needed, or undo the rehearsal that made it; views and bodies name it, so no other name would do"
                        .to_owned(),
            });
        }
    }
    Ok(())
}

/// Drops every noted database, and the notes; the names of what was there.
///
/// # Errors
/// If one holds rows: then somebody else made it. It is named and kept, as is its note.
pub async fn clean(session: &mut Session) -> Result<Vec<String>> {
    if !exists(session, TRY_SCHEMA).await? {
        return Ok(Vec::new());
    }
    let noted = match session.rows(&format!("SELECT database_name FROM {}", made()), "reading what a try has made").await {
        Ok(rows) => rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect(),
        // It ended before the first note.
        Err(error) if error.code() == Some(1146) => Vec::new(),
        Err(error) => return Err(error),
    };
    session.run("SET SESSION foreign_key_checks = 0", "setting up the session").await?;
    let mut dropped = Vec::new();
    let mut kept = Vec::new();
    for database in noted {
        if exists(session, &database).await? {
            if let Some(table) = first_with_rows(session, &database).await? {
                kept.push(format!("`{table}`"));
                continue;
            }
            session.run(&format!("DROP DATABASE {}", sql::identifier(&database)), &format!("dropping database `{database}`")).await?;
            dropped.push(database.clone());
        }
        forget(session, &database).await?;
    }
    if kept.is_empty() {
        session.run(&format!("DROP DATABASE {}", sql::identifier(TRY_SCHEMA)), &format!("dropping `{TRY_SCHEMA}`")).await?;
        return Ok(dropped);
    }
    Err(MysqlError::Object {
        message: format!(
            "a try was interrupted before it made these databases, and somebody else did: {} hold rows. They were kept",
            kept.join(", ")
        ),
        hint: format!("drop the databases on the {} if they are not needed, else `DROP DATABASE {TRY_SCHEMA}` there", session.server()),
    })
}

/// The first table of a database that holds a row.
async fn first_with_rows(session: &mut Session, database: &str) -> Result<Option<TableName>> {
    let query = format!(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_TYPE = 'BASE TABLE'",
        sql::text(database)
    );
    for row in session.rows(&query, "listing the tables of a try").await? {
        let Some(name) = row.into_iter().next().flatten() else { continue };
        let table = TableName::new(database, name);
        let row =
            session.first(&format!("SELECT 1 FROM {} LIMIT 1", sql::table(&table)), &format!("looking for rows in `{table}`")).await?;
        if row.is_some() {
            return Ok(Some(table));
        }
    }
    Ok(None)
}
