//! Which tables of a copy are whole and stay, when a fill goes on.
//!
//! A table stays if it was noted as whole, production still defines it in the same words, and all tables tied to it by foreign keys stay too:
//! another snapshot may lack a parent that rows of the first one refer to. Once views, triggers and the rest are there nothing may begin anew
//! below them (rows would fire triggers), so then either all tables stay, or all begins anew.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::origin::{Origin, without_counter};
use super::removal;
use crate::engine::step::Epoch;
use crate::mysql::bookkeeping::{self, number, own_table, text};
use crate::mysql::catalog::Catalog;
use crate::mysql::connect::Session;
use crate::mysql::error::Result;
use crate::mysql::names::TableName;
use crate::mysql::objects::notes;
use crate::mysql::sql;

/// What a whole table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// Rows.
    pub rows: u64,
    /// Bytes of rows, as they were read.
    pub bytes: u64,
}

/// Tells one definition from another.
fn digest(definition: &[u8]) -> String {
    hex::encode(Sha256::digest(without_counter(definition)))
}

/// Notes that a table is whole, if this driver still holds the lease.
///
/// # Errors
/// If the note can't be written, or another driver has taken over.
pub(super) async fn note(
    session: &mut Session,
    name: &str,
    epoch: Epoch,
    table: &TableName,
    definition: &[u8],
    whole: Whole,
) -> Result<()> {
    let statement = format!(
        "REPLACE INTO {} (store, database_name, table_name, definition, row_count, byte_count) VALUES ({}, {}, {}, {}, {}, {})",
        own_table("filled_table"),
        sql::text(name),
        sql::text(&table.database),
        sql::text(&table.table),
        sql::text(&digest(definition)),
        whole.rows,
        whole.bytes
    );
    session.run("BEGIN", "noting that a table is whole").await?;
    bookkeeping::hold_lease(session, name, epoch).await?;
    session.write(statement.as_bytes(), "noting that a table is whole").await?;
    session.run("COMMIT", "noting that a table is whole").await
}

/// Notes that all of the copy is there.
///
/// # Errors
/// As [`note`].
pub async fn note_all(session: &mut Session, name: &str, epoch: Epoch) -> Result<()> {
    note(session, name, epoch, &TableName::new("", ""), b"", Whole::default()).await
}

/// Whether all of the copy is there.
///
/// # Errors
/// If the notes can't be read.
pub async fn is_all(session: &mut Session, name: &str) -> Result<bool> {
    Ok(noted(session, name).await?.contains_key(&TableName::new("", "")))
}

async fn noted(session: &mut Session, name: &str) -> Result<BTreeMap<TableName, (String, Whole)>> {
    let query = format!(
        "SELECT database_name, table_name, definition, row_count, byte_count FROM {} WHERE store = {}",
        own_table("filled_table"),
        sql::text(name)
    );
    match session.rows(&query, "reading which tables are whole").await {
        Ok(rows) => Ok(rows
            .iter()
            .map(|row| {
                let whole = Whole { rows: number(row, 3), bytes: number(row, 4) };
                (TableName::new(text(row, 0), text(row, 1)), (text(row, 2), whole))
            })
            .collect()),
        Err(error) if matches!(error.code(), Some(1049 | 1146)) => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// What stays of what an earlier attempt made; everything else of it is gone when this returns.
///
/// # Errors
/// As the server gives them.
pub async fn settle(session: &mut Session, name: &str, origin: &Origin) -> Result<BTreeMap<TableName, Whole>> {
    let made: BTreeSet<String> = bookkeeping::created(session, name).await?.into_iter().map(|made| made.database).collect();
    if made.is_empty() {
        return Ok(BTreeMap::new());
    }
    let list = made.iter().map(|database| sql::text(database)).collect::<Vec<_>>().join(", ");
    let query = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ({list}) AND TABLE_TYPE = 'BASE TABLE'"
    );
    let rows = session.rows(&query, "reading the tables that are there").await?;
    let there: BTreeSet<TableName> = rows.iter().map(|row| TableName::new(text(row, 0), text(row, 1))).collect();
    let mut whole = BTreeMap::new();
    for (table, (definition, what)) in noted(session, name).await? {
        let same = origin.definitions.get(&table).is_some_and(|now| digest(now) == definition);
        if same && there.contains(&table) {
            whole.insert(table, what);
        }
    }
    for tied in tied_together(&origin.catalog) {
        if !tied.iter().all(|table| whole.contains_key(table)) {
            whole.retain(|table, _| !tied.contains(table));
        }
    }
    let all = whole.len() == origin.definitions.len() && there.len() == whole.len();
    if !all && !notes::all(session, name).await?.is_empty() {
        removal::databases(session, name).await?;
        return Ok(BTreeMap::new());
    }
    session.run("SET SESSION foreign_key_checks = 0", "setting up the session").await?;
    for table in there.iter().filter(|table| !whole.contains_key(table)) {
        let forget = format!(
            "DELETE FROM {} WHERE store = {} AND database_name = {} AND table_name = {}",
            own_table("filled_table"),
            sql::text(name),
            sql::text(&table.database),
            sql::text(&table.table)
        );
        session.write(forget.as_bytes(), "noting that a table begins anew").await?;
        session.run(&format!("DROP TABLE {}", sql::table(table)), &format!("dropping `{table}`, to copy it anew")).await?;
    }
    Ok(whole)
}

/// Tables that foreign keys tie together, directly or over others.
fn tied_together(catalog: &Catalog) -> Vec<BTreeSet<TableName>> {
    let mut groups: Vec<BTreeSet<TableName>> = Vec::new();
    for table in catalog.tables.values() {
        let mut tied: BTreeSet<TableName> = table.foreign_keys.iter().map(|key| key.parent.clone()).collect();
        tied.retain(|parent| catalog.tables.contains_key(parent));
        tied.insert(table.name.clone());
        groups.retain(|group| {
            let apart = group.is_disjoint(&tied);
            if !apart {
                tied.extend(group.iter().cloned());
            }
            apart
        });
        groups.push(tied);
    }
    groups
}
