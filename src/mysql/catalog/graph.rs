//! Who references whom.
//!
//! InnoDB carries out CASCADE and SET NULL below the SQL layer, so their effects on child rows are
//! not in the binary log. Whoever replays a delete or a key change of a parent has to know every
//! table it reaches, over several levels: [`Catalog::cascades`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::names::TableName;
use super::super::table::{ForeignKey, ReferentialAction, Table};
use super::Catalog;

/// What happens to a parent's row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParentChange {
    /// It is deleted.
    Delete,
    /// These of its columns change (names, as stored).
    Update(BTreeSet<String>),
}

/// What the server does to the child's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CascadeEffect {
    /// It deletes them.
    Delete,
    /// It sets their key columns to NULL.
    SetNull,
    /// It gives their key columns the parent's new values.
    Update,
}

/// One edge of a cascade.
#[derive(Clone, Debug)]
pub struct Cascade<'a> {
    /// The referenced table.
    pub parent: TableName,
    /// The referencing table.
    pub child: &'a Arc<Table>,
    /// Its foreign key.
    pub foreign_key: &'a ForeignKey,
    /// What happens to the child's rows.
    pub effect: CascadeEffect,
    /// 1 for children of the table asked about, 2 for theirs.
    pub depth: usize,
}

impl Catalog {
    /// Selected tables that reference the table, with the foreign key each does it by.
    pub fn children_of<'a>(&'a self, parent: &'a TableName) -> impl Iterator<Item = (&'a Arc<Table>, &'a ForeignKey)> {
        self.tables
            .values()
            .flat_map(|table| table.foreign_keys.iter().map(move |key| (table, key)))
            .filter(move |(_, key)| key.parent == *parent)
    }

    /// Every edge along which a change of a row of `table` changes rows of other tables (or other
    /// rows of itself) without a trace in the log; parents before their children's children. It looks
    /// at every table: ask once per table and keep the answer.
    #[must_use]
    pub fn cascades(&self, table: &TableName, change: ParentChange) -> Vec<Cascade<'_>> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut waiting = VecDeque::from([(table.clone(), change, 1)]);
        while let Some((parent, change, depth)) = waiting.pop_front() {
            if !seen.insert((parent.clone(), change.clone())) {
                continue;
            }
            for child in self.tables.values() {
                for key in child.foreign_keys.iter().filter(|key| key.parent == parent) {
                    let action = match &change {
                        ParentChange::Delete => key.on_delete,
                        ParentChange::Update(columns) if key.parent_columns.iter().any(|column| columns.contains(column)) => key.on_update,
                        ParentChange::Update(_) => continue,
                    };
                    let own_columns =
                        || ParentChange::Update(key.columns.iter().map(|&column| child.columns[column].name.clone()).collect());
                    let (effect, next) = match (action, &change) {
                        (ReferentialAction::Restrict, _) => continue,
                        (ReferentialAction::SetNull, _) => (CascadeEffect::SetNull, own_columns()),
                        (ReferentialAction::Cascade, ParentChange::Delete) => (CascadeEffect::Delete, ParentChange::Delete),
                        (ReferentialAction::Cascade, ParentChange::Update(_)) => (CascadeEffect::Update, own_columns()),
                    };
                    found.push(Cascade { parent: parent.clone(), child, foreign_key: key, effect, depth });
                    waiting.push_back((child.name.clone(), next, depth + 1));
                }
            }
        }
        found
    }

    /// All tables, parents before children; otherwise, and inside a cycle, by name.
    #[must_use]
    pub fn parents_first(&self) -> Vec<&Arc<Table>> {
        let mut waits_for: BTreeMap<&TableName, BTreeSet<&TableName>> = BTreeMap::new();
        let mut children: BTreeMap<&TableName, Vec<&TableName>> = BTreeMap::new();
        for table in self.tables.values() {
            let known = |key: &&ForeignKey| key.parent != table.name && self.tables.contains_key(&key.parent);
            let parents: BTreeSet<&TableName> = table.foreign_keys.iter().filter(known).map(|key| &key.parent).collect();
            for &parent in &parents {
                children.entry(parent).or_default().push(&table.name);
            }
            waits_for.insert(&table.name, parents);
        }
        let mut ready: BTreeSet<&TableName> = waits_for.iter().filter(|(_, parents)| parents.is_empty()).map(|(&name, _)| name).collect();
        let mut order = Vec::with_capacity(waits_for.len());
        // With nothing ready, what is left waits for itself: the first by name breaks the cycle.
        while let Some(next) = ready.pop_first().or_else(|| waits_for.keys().next().copied()) {
            waits_for.remove(next);
            order.extend(self.tables.get(next));
            for &child in children.get(next).into_iter().flatten() {
                if let Some(parents) = waits_for.get_mut(child) {
                    parents.remove(next);
                    if parents.is_empty() {
                        ready.insert(child);
                    }
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::table::{Column, ColumnType};

    fn name(table: &str) -> TableName {
        TableName::new("s", table)
    }

    /// `(child, parent, on_delete, on_update)`: column 1 of the child references `id` of the parent.
    fn catalog(tables: &[&str], keys: &[(&str, &str, ReferentialAction, ReferentialAction)]) -> Catalog {
        let column = |name: &str| Column {
            name: name.to_owned(),
            kind: ColumnType::Int,
            type_text: "int".to_owned(),
            unsigned: false,
            zerofill: false,
            nullable: true,
            charset: None,
            collation: None,
            auto_increment: false,
            generated: false,
        };
        let mut catalog = Catalog::default();
        for &table in tables {
            let foreign_keys = keys
                .iter()
                .filter(|key| key.0 == table)
                .map(|&(_, parent, on_delete, on_update)| ForeignKey {
                    name: format!("{table}_{parent}"),
                    columns: vec![if parent == "person" { 0 } else { 1 }],
                    parent: name(parent),
                    parent_columns: vec!["id".to_owned()],
                    on_delete,
                    on_update,
                })
                .collect();
            let table = Table {
                name: name(table),
                engine: "InnoDB".to_owned(),
                collation: "utf8_general_ci".to_owned(),
                row_estimate: 0,
                data_bytes: 0,
                auto_increment: None,
                columns: vec![column("id"), column("other")],
                indexes: Vec::new(),
                foreign_keys,
                lookups_fail: false,
            };
            catalog.tables.insert(table.name.clone(), Arc::new(table));
        }
        catalog
    }

    fn edges(cascades: &[Cascade<'_>]) -> Vec<(String, CascadeEffect, usize)> {
        cascades.iter().map(|cascade| (cascade.child.name.table.clone(), cascade.effect, cascade.depth)).collect()
    }

    use ReferentialAction::{Cascade as C, Restrict as R, SetNull as N};

    #[test]
    fn deletes_cascade_over_levels() {
        let catalog = catalog(&["a", "b", "c", "d", "e"], &[("b", "a", C, R), ("c", "b", C, R), ("d", "c", N, R), ("e", "d", C, C)]);
        let found = catalog.cascades(&name("a"), ParentChange::Delete);
        // `d` loses its reference only; `e` references `d.id`, which does not change.
        assert_eq!(
            edges(&found),
            [
                ("b".to_owned(), CascadeEffect::Delete, 1),
                ("c".to_owned(), CascadeEffect::Delete, 2),
                ("d".to_owned(), CascadeEffect::SetNull, 3)
            ]
        );
    }

    #[test]
    fn key_changes_travel_as_far_as_the_key_does() {
        // `student.id` references `person.id` and is referenced itself.
        let catalog = catalog(
            &["person", "student", "grade", "note"],
            &[("student", "person", R, C), ("grade", "student", R, C), ("note", "grade", R, C)],
        );
        let found = catalog.cascades(&name("person"), ParentChange::Update(["id".to_owned()].into()));
        assert_eq!(edges(&found), [("student".to_owned(), CascadeEffect::Update, 1), ("grade".to_owned(), CascadeEffect::Update, 2)]);
        assert!(catalog.cascades(&name("person"), ParentChange::Update(["other".to_owned()].into())).is_empty());
        assert!(catalog.cascades(&name("person"), ParentChange::Delete).is_empty());
    }

    #[test]
    fn trees_in_one_table_and_cycles_end() {
        let catalog = catalog(&["a", "b"], &[("a", "a", C, R), ("a", "b", C, R), ("b", "a", C, R)]);
        assert_eq!(catalog.cascades(&name("a"), ParentChange::Delete).len(), 3);
        assert_eq!(catalog.parents_first().len(), 2);
        assert_eq!(catalog.children_of(&name("a")).count(), 2);
    }

    #[test]
    fn parents_come_first() {
        let catalog = catalog(&["a", "b", "c"], &[("a", "b", R, R), ("b", "c", R, R), ("a", "elsewhere", R, R)]);
        let order: Vec<&str> = catalog.parents_first().into_iter().map(|table| table.name.table.as_str()).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }
}
