//! What a parent row takes with it: deletes and key changes of a parent with cascading children.
//!
//! InnoDB carries cascades out below the SQL layer, so the binary log has only the parent's change.
//! Sessions on the target run with `foreign_key_checks=0` (and while rows are copied the foreign
//! keys are not there yet), so dbmove carries the cascade out itself, by statements, level by level,
//! as the source did:
//!
//! * ON DELETE CASCADE: children are deleted, and *their* children by the same rule;
//! * ON DELETE SET NULL, ON UPDATE SET NULL: the referring columns become NULL;
//! * ON UPDATE CASCADE: the referring columns take the new key, and so on for their children.
//!
//! The keys of every child row that changes are read first: they are marked for verification and,
//! if deleted, remembered so that no chunk brings them back.
//!
//! Values are compared by the target's server in the child column's own collation, as a foreign key
//! does. Everything runs inside the caller's transaction.

use std::future::Future;
use std::pin::Pin;

use crate::mysql::cell::{Cell, Key, Row};
use crate::mysql::connect::Session;
use crate::mysql::error::Result;
use crate::mysql::range;
use crate::mysql::read::{self, Order, Scope};
use crate::mysql::shared::Shared;
use crate::mysql::sql;
use crate::mysql::table::ReferentialAction;
use crate::mysql::tables::{Child, MovedTable, TableId, Tables};

use super::write::delete_keys;

/// What became of the parent row.
#[derive(Clone, Debug, PartialEq)]
pub enum ParentChange {
    /// It was deleted. Holds the row.
    Deleted(Row),
    /// Its key changed. Holds the row before and after.
    Rekeyed(Row, Row),
}

/// A child row that a cascade changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Cascaded {
    /// The child table.
    pub table: TableId,
    /// The row's key.
    pub key: Key,
    /// Whether the row is gone (else some of its values changed).
    pub deleted: bool,
    /// What became of it, if it is a parent itself: chunks of *its* children have to know too.
    pub as_parent: Option<ParentChange>,
}

/// Marks what a cascade changed, and remembers it for chunks that were read before. Call it before the commit.
pub fn remember(shared: &Shared, cascaded: Vec<Cascaded>) {
    for row in cascaded {
        shared.touches.mark(row.table, [row.key.clone()]);
        if row.deleted {
            shared.deletes.remember(row.table, [row.key]);
        }
        if let Some(change) = row.as_parent {
            shared.parents.remember(row.table, change);
        }
    }
}

/// Carries out what the parent's change does to its children, all levels down.
///
/// # Errors
/// As the server gives them.
pub async fn carry_out(session: &mut Session, tables: &Tables, parent: TableId, change: &ParentChange) -> Result<Vec<Cascaded>> {
    let mut cascaded = Vec::new();
    level(session, tables, parent, change, &mut cascaded).await?;
    Ok(cascaded)
}

type Level<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// One level; boxed because a level calls the next.
fn level<'a>(
    session: &'a mut Session,
    tables: &'a Tables,
    parent: TableId,
    change: &'a ParentChange,
    cascaded: &'a mut Vec<Cascaded>,
) -> Level<'a> {
    Box::pin(async move {
        for child in &tables.get(parent).children {
            let Some((action, values)) = effect(child, change) else { continue };
            let rows = referring(session, tables.get(child.table), child, &values).await?;
            if rows.is_empty() {
                continue;
            }
            child_rows(session, tables, child, action, change, rows, cascaded).await?;
        }
        Ok(())
    })
}

/// What the parent's change does to children that refer to which values; `None` if nothing.
#[must_use]
pub fn effect(child: &Child, change: &ParentChange) -> Option<(ReferentialAction, Row)> {
    let (row, action) = match change {
        ParentChange::Deleted(row) => (row, child.on_delete),
        ParentChange::Rekeyed(before, after) => {
            let same = child.parent_columns.iter().all(|&column| before[column] == after[column]);
            (before, if same { ReferentialAction::Restrict } else { child.on_update })
        }
    };
    let values: Row = child.parent_columns.iter().map(|&column| row[column].clone()).collect();
    // A NULL refers to nothing.
    let none = action == ReferentialAction::Restrict || values.iter().any(|value| matches!(value, Cell::Null));
    if none { None } else { Some((action, values)) }
}

/// Carries out on these child rows what the parent's change does to them, and to their own children.
///
/// # Errors
/// As the server gives them.
pub async fn child_rows(
    session: &mut Session,
    tables: &Tables,
    child: &Child,
    action: ReferentialAction,
    change: &ParentChange,
    rows: Vec<Row>,
    cascaded: &mut Vec<Cascaded>,
) -> Result<()> {
    let table = tables.get(child.table);
    let deletes = matches!(change, ParentChange::Deleted(_)) && action == ReferentialAction::Cascade;
    let is_parent = !table.children.is_empty();
    let note = |row: &Row, deleted: bool, change: &ParentChange| {
        let key = table.key_of(row)?;
        Some(Cascaded { table: child.table, key, deleted, as_parent: Some(change.clone()).filter(|_| is_parent) })
    };
    if deletes {
        let keys: Vec<Key> = rows.iter().filter_map(|row| table.key_of(row)).collect();
        delete_keys(session, table, keys.iter()).await?;
        for row in rows {
            let gone = ParentChange::Deleted(row.clone());
            cascaded.extend(note(&row, true, &gone));
            level(session, tables, child.table, &gone, cascaded).await?;
        }
        return Ok(());
    }
    let new_values: Vec<Cell> = match (action, change) {
        (ReferentialAction::Cascade, ParentChange::Rekeyed(_, after)) => {
            child.parent_columns.iter().map(|&column| after[column].clone()).collect()
        }
        _ => vec![Cell::Null; child.columns.len()],
    };
    for before in rows {
        let mut after = before.clone();
        for (&column, value) in child.columns.iter().zip(&new_values) {
            after[column] = value.clone();
        }
        set_columns(session, table, child, &before, &new_values).await?;
        let rekeyed = ParentChange::Rekeyed(before.clone(), after.clone());
        // The referring columns may be part of the key: then the old key is gone.
        let moved = table.key_of(&before) != table.key_of(&after);
        cascaded.extend(note(&before, moved, &rekeyed));
        cascaded.extend(note(&after, false, &rekeyed).map(|row| Cascaded { as_parent: None, ..row }));
        level(session, tables, child.table, &rekeyed, cascaded).await?;
    }
    Ok(())
}

/// The child's rows on the target that refer to the parent's values.
///
/// # Errors
/// As the server gives them.
pub async fn referring(session: &mut Session, table: &MovedTable, child: &Child, values: &[Cell]) -> Result<Vec<Row>> {
    let wanted = [Key::of(values, &(0..values.len()).collect::<Vec<_>>())];
    let columns: Vec<usize> = (0..table.target.columns.len()).collect();
    let scope = Scope::Matching { columns: &child.columns, values: &wanted };
    let mut rows = read::stream(session, &table.target, &columns, &scope, Order::Any).await?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().await? {
        found.push(row);
    }
    Ok(found)
}

async fn set_columns(session: &mut Session, table: &MovedTable, child: &Child, before: &Row, values: &[Cell]) -> Result<()> {
    let mut statement = format!("UPDATE {} SET ", sql::table(table.name())).into_bytes();
    for (index, (&column, value)) in child.columns.iter().zip(values).enumerate() {
        if index > 0 {
            statement.extend_from_slice(b", ");
        }
        let column = &table.table.columns[column];
        statement.extend_from_slice(sql::identifier(&column.name).as_bytes());
        statement.extend_from_slice(b" = ");
        sql::push_stored(&mut statement, value, column);
    }
    let key = table.key.as_deref().unwrap_or_default();
    let one = range::one_of(&table.target, key, &[Key::of(before, key)]);
    statement.extend_from_slice(format!(" WHERE {one}").as_bytes());
    session.write_by_key(&statement, &format!("carrying a cascade out in `{}`", table.name())).await?;
    Ok(())
}
