//! The tables that move, with what copying and following have to know of each, worked out once.
//!
//! A table is referred to by its index here ([`TableId`]): row events, delete memory, gate and
//! touched keys all use it, so no name is hashed per row.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::cell::{Cell, Key};
use super::connect::Version;
use super::conversion::{Converted, ConvertedTables};
use super::error::{MysqlError, Result};
use super::names::TableName;
use super::table::{Column, ReferentialAction, Table};
use crate::playbook::model::CharsetConversion;

/// Index of a table in [`Tables`].
pub type TableId = usize;

/// A child table whose rows the server changes when a parent row goes or changes its key. None of
/// that is in the binary log: InnoDB does it below the SQL layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The child.
    pub table: TableId,
    /// The child's columns that refer to the parent.
    pub columns: Vec<usize>,
    /// The parent's columns, in the same order.
    pub parent_columns: Vec<usize>,
    /// What happens when the parent row is deleted.
    pub on_delete: ReferentialAction,
    /// What happens when the parent row's key changes.
    pub on_update: ReferentialAction,
}

/// A table that moves.
#[derive(Clone, Debug)]
pub struct MovedTable {
    /// Structure, from the catalog.
    pub table: Arc<Table>,
    /// The same, as the target names things (`utf8` is `utf8mb3` there) and as its text is converted.
    pub target: Arc<Table>,
    /// How its text is converted, if it is.
    pub conversion: Option<CharsetConversion>,
    /// Columns of the written table, by name, that hold UTF-8 though they are called otherwise there: on the way back to where text was
    /// converted from.
    pub hold_utf8: Vec<String>,
    /// Key columns; `None` for a keyless table.
    pub key: Option<Vec<usize>>,
    /// Columns of the other unique indexes.
    pub uniques: Vec<Vec<usize>>,
    /// Columns that are written: all but generated ones.
    pub written: Vec<usize>,
    /// Two keys or unique values with different bytes may be equal to the server, so rows of this
    /// table can't be told apart by their bytes when work is spread.
    pub by_collation: bool,
    /// The key is one integer column: ranges can be compared here.
    pub integer_key: Option<usize>,
    /// Children with cascading actions.
    pub children: Vec<Child>,
    /// This table is a child with cascading actions.
    pub is_cascade_child: bool,
}

impl MovedTable {
    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &TableName {
        &self.table.name
    }

    /// The written table as it has to be read: text that holds UTF-8 says so, or a comparison would convert it once more.
    #[must_use]
    pub fn as_it_holds(&self, written: &Arc<Table>) -> Arc<Table> {
        if self.hold_utf8.is_empty() {
            return written.clone();
        }
        let mut held = Table::clone(written);
        for column in held.columns.iter_mut().filter(|column| self.hold_utf8.contains(&column.name)) {
            column.charset = Some("utf8mb4".to_owned());
        }
        Arc::new(held)
    }

    /// The row's key.
    #[must_use]
    pub fn key_of(&self, row: &[Cell]) -> Option<Key> {
        self.key.as_ref().map(|columns| Key::of(row, columns))
    }

    /// The key columns.
    #[must_use]
    pub fn key_columns(&self) -> Vec<&Column> {
        self.key.iter().flatten().map(|&column| &self.table.columns[column]).collect()
    }

    /// The key as a number, where it is one integer column.
    #[must_use]
    pub fn integer(&self, key: &Key) -> Option<i128> {
        self.integer_key?;
        let cells = key.cells();
        std::str::from_utf8(cells.first()?.as_bytes()?).ok()?.parse().ok()
    }
}

/// All tables that move.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    tables: Vec<MovedTable>,
    by_name: HashMap<TableName, TableId>,
}

impl Tables {
    /// From the source's tables, for a target of this version.
    ///
    /// # Errors
    /// If two names differ only in a way that can't be told apart, or a foreign key names columns its parent does not have.
    pub fn new(tables: &[Arc<Table>], target: &Version) -> Result<Self> {
        Tables::converted(tables, &ConvertedTables::new(), target)
    }

    /// The same with these of them converted.
    ///
    /// # Errors
    /// As [`Tables::new`].
    pub fn converted(tables: &[Arc<Table>], converted: &ConvertedTables, target: &Version) -> Result<Self> {
        let by_name: HashMap<TableName, TableId> = tables.iter().enumerate().map(|(id, table)| (table.name.clone(), id)).collect();
        let mut moved: Vec<MovedTable> = tables.iter().map(|table| describe(table, converted.get(&table.name), target)).collect();
        for (id, table) in tables.iter().enumerate() {
            for foreign_key in &table.foreign_keys {
                let cascades = [foreign_key.on_delete, foreign_key.on_update].iter().any(|action| *action != ReferentialAction::Restrict);
                let Some(&parent) = by_name.get(&foreign_key.parent) else { continue };
                if !cascades {
                    continue;
                }
                let parent_columns =
                    foreign_key.parent_columns.iter().map(|name| tables[parent].column(name)).collect::<Option<Vec<_>>>().ok_or_else(
                        || MysqlError::Object {
                            message: format!(
                                "foreign key `{}` of `{}` names columns that `{}` does not have",
                                foreign_key.name, table.name, foreign_key.parent
                            ),
                            hint: "repair or drop the foreign key on the source".to_owned(),
                        },
                    )?;
                moved[parent].children.push(Child {
                    table: id,
                    columns: foreign_key.columns.clone(),
                    parent_columns,
                    on_delete: foreign_key.on_delete,
                    on_update: foreign_key.on_update,
                });
                moved[id].is_cascade_child = true;
            }
        }
        Ok(Tables { tables: moved, by_name })
    }

    /// The same, written to tables that are there already, as that server describes them; from there these were `converted`.
    #[must_use]
    pub fn onto(mut self, there: &BTreeMap<TableName, Arc<Table>>, converted: &ConvertedTables) -> Self {
        for moved in &mut self.tables {
            if let Some(table) = there.get(&moved.table.name) {
                moved.target = table.clone();
            }
            if let Some(converted) = converted.get(&moved.table.name) {
                moved.conversion = Some(converted.conversion);
                if converted.conversion == CharsetConversion::Latin1HoldsUtf8 {
                    moved.hold_utf8 = converted.columns.iter().map(|&column| converted.source.columns[column].name.clone()).collect();
                }
            }
        }
        self
    }

    /// The same where the log of the server that is followed holds what its foreign keys cascade: events on the children tell all of it.
    #[must_use]
    pub fn with_logged_cascades(mut self) -> Self {
        for moved in &mut self.tables {
            moved.children.clear();
            moved.is_cascade_child = false;
        }
        self
    }

    /// The table's index.
    #[must_use]
    pub fn id(&self, database: &str, table: &str) -> Option<TableId> {
        self.by_name.get(&TableName::new(database, table)).copied()
    }

    /// A table by its index.
    #[must_use]
    pub fn get(&self, id: TableId) -> &MovedTable {
        &self.tables[id]
    }

    /// All tables with their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (TableId, &MovedTable)> {
        self.tables.iter().enumerate()
    }

    /// The tables whose rows a cascade from this one may change, all levels down.
    #[must_use]
    pub fn cascade_reaches(&self, id: TableId) -> BTreeSet<TableId> {
        let mut reached = BTreeSet::new();
        let mut waiting = vec![id];
        while let Some(next) = waiting.pop() {
            for child in &self.tables[next].children {
                if reached.insert(child.table) {
                    waiting.push(child.table);
                }
            }
        }
        reached
    }

    /// Tables that a cascade reaches through another table it changes (or through themselves): while that one is not copied,
    /// the target lacks a link of the chain.
    #[must_use]
    pub fn below_cascades(&self) -> BTreeSet<TableId> {
        let links = self.tables.iter().filter(|table| table.is_cascade_child);
        links.flat_map(|table| table.children.iter().map(|child| child.table)).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether a table has no key and no cascade reaches it: it is copied from a position of its own (see
    /// [`crate::mysql::copy::keyless`]) and no other table's copy looks at its rows, so it needs neither the settle time
    /// nor its turn among the others.
    #[must_use]
    pub fn stands_alone(&self, id: TableId) -> bool {
        self.get(id).key.is_none() && !self.iter().any(|(_, table)| table.children.iter().any(|child| child.table == id))
    }

    /// Waves of tables in the order in which they are copied: keyless ones first (their events wait
    /// until they are there), then cascading parents before their children (so that a cascade finds
    /// on the target what it has to remove), inside a wave the largest first.
    #[must_use]
    pub fn copy_order(&self) -> Vec<Vec<TableId>> {
        let mut parents: BTreeMap<TableId, BTreeSet<TableId>> = BTreeMap::new();
        for (id, table) in self.iter() {
            parents.entry(id).or_default();
            for child in &table.children {
                if child.table != id {
                    parents.entry(child.table).or_default().insert(id);
                }
            }
        }
        let mut waves = Vec::new();
        // What a cascade reaches through another table comes after that one: events on a keyless table count from its copy on,
        // and then every link of the chain is there.
        let below = self.below_cascades();
        let keyless: Vec<TableId> =
            self.iter().filter(|(id, table)| table.key.is_none() && !below.contains(id)).map(|(id, _)| id).collect();
        let mut done: BTreeSet<TableId> = keyless.iter().copied().collect();
        if !keyless.is_empty() {
            waves.push(keyless);
        }
        while done.len() < self.tables.len() {
            let mut wave: Vec<TableId> = parents
                .iter()
                .filter(|(id, wanted)| !done.contains(*id) && wanted.iter().all(|parent| done.contains(parent)))
                .map(|(&id, _)| id)
                .collect();
            if wave.is_empty() {
                // A cycle of cascades: no order helps; verification looks at every row anyway.
                wave = parents.keys().copied().filter(|id| !done.contains(id)).collect();
            }
            wave.sort_by_key(|&id| std::cmp::Reverse(self.tables[id].table.data_bytes));
            done.extend(wave.iter().copied());
            waves.push(wave);
        }
        waves
    }
}

fn describe(table: &Arc<Table>, converted: Option<&Converted>, version: &Version) -> MovedTable {
    let (table, target) = converted.map_or((table, table), |converted| (&converted.source, &converted.target));
    let key = table.key();
    let uniques: Vec<Vec<usize>> = table.other_unique_indexes().map(|index| index.parts.iter().map(|part| part.column).collect()).collect();
    let prefix_unique = table.other_unique_indexes().any(|index| index.parts.iter().any(|part| part.prefix.is_some()));
    let by_collation =
        prefix_unique || key.iter().flatten().chain(uniques.iter().flatten()).any(|&column| table.columns[column].compares_by_collation());
    let integer_key = match key.as_deref() {
        Some([column]) if table.columns[*column].kind.is_integer() => Some(*column),
        _ => None,
    };
    MovedTable {
        written: (0..table.columns.len()).filter(|&column| !table.columns[column].generated).collect(),
        table: table.clone(),
        target: named_for(target, version),
        conversion: converted.map(|converted| converted.conversion),
        hold_utf8: Vec::new(),
        key,
        uniques,
        by_collation,
        integer_key,
        children: Vec::new(),
        is_cascade_child: false,
    }
}

/// The table with its charsets named as a server of this version names them: MySQL 8 and MariaDB
/// 10.6 call `utf8` what it is, `utf8mb3`, and older servers know only the old name.
#[must_use]
pub fn named_for(table: &Arc<Table>, version: &Version) -> Arc<Table> {
    let new_name = if version.mariadb { version.number >= (10, 6, 0) } else { version.number >= (8, 0, 0) };
    let (from, to) = if new_name { ("utf8", "utf8mb3") } else { ("utf8mb3", "utf8") };
    if !table.columns.iter().any(|column| column.charset.as_deref() == Some(from)) {
        return table.clone();
    }
    let mut named = Table::clone(table);
    for column in named.columns.iter_mut().filter(|column| column.charset.as_deref() == Some(from)) {
        column.charset = Some(to.to_owned());
        column.collation = column.collation.as_ref().map(|name| name.replacen(&format!("{from}_"), &format!("{to}_"), 1));
    }
    Arc::new(named)
}
