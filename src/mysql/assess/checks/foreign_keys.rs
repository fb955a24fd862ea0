//! Foreign keys that stricter targets refuse, or that need care.

use super::super::super::table::{ForeignKey, ReferentialAction, Table};
use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "fk-non-unique-parent",
        level: Level::Error,
        about: "A foreign key whose parent columns are no unique key.",
        why: "MySQL 8.4 and later refuse it (`restrict_fk_on_non_standard_key`), and what a cascade of it does depends on which row is seen.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: non_unique_parent,
    },
    Check {
        id: "fk-type-mismatch",
        level: Level::Error,
        about: "A foreign key between columns of different types.",
        why: "Old servers let them differ after an ALTER with checks off; creating the key on the target fails.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: type_mismatch,
    },
    Check {
        id: "fk-cascade",
        level: Level::Info,
        about: "A foreign key that changes child rows by itself.",
        why: "Cascades are not in the binary log: dbmove lets the target do them again, and verifies the children.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: cascade,
    },
];

fn keys(gathered: &Gathered) -> impl Iterator<Item = (&Table, &ForeignKey)> {
    gathered.catalog.tables.values().flat_map(|table| table.foreign_keys.iter().map(move |key| (&**table, key)))
}

fn object(table: &Table, key: &ForeignKey) -> String {
    format!("{}.{}", table.name, key.name)
}

fn non_unique_parent(gathered: &Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    for (table, key) in keys(gathered) {
        let Some(parent) = gathered.catalog.table(&key.parent) else { continue };
        if !parent.is_unique_over(&key.parent_columns) {
            let columns = key.parent_columns.join(", ");
            found.push(
                Found::new(object(table, key), format!("it references ({columns}) of `{}`, which is no unique key there", key.parent))
                    .evidence("information_schema.KEY_COLUMN_USAGE, STATISTICS", format!("no unique index over exactly ({columns})"))
                    .fix(format!("make ({columns}) of `{}` UNIQUE, drop the foreign key, or set `restrict_fk_on_non_standard_key = OFF` on the target and accept this", key.parent)),
            );
        }
    }
    found
}

fn type_mismatch(gathered: &Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    for (table, key) in keys(gathered) {
        let Some(parent) = gathered.catalog.table(&key.parent) else { continue };
        for (child, name) in key.columns.iter().zip(&key.parent_columns) {
            let (child, Some(other)) = (&table.columns[*child], parent.column(name).map(|place| &parent.columns[place])) else { continue };
            // Lengths may differ; kind, sign and collation may not.
            let same = std::mem::discriminant(&child.kind) == std::mem::discriminant(&other.kind)
                && child.unsigned == other.unsigned
                && child.collation == other.collation;
            if !same {
                let types = format!(
                    "{} {} and {} {}",
                    child.type_text,
                    child.collation.as_deref().unwrap_or(""),
                    other.type_text,
                    other.collation.as_deref().unwrap_or("")
                );
                found.push(
                    Found::new(object(table, key), format!("`{}` and `{}.{name}` are of different types", child.name, key.parent))
                        .evidence("information_schema.COLUMNS.COLUMN_TYPE, COLLATION_NAME", types)
                        .fix("`ALTER TABLE … MODIFY` one of them to the other's type, or drop the foreign key"),
                );
            }
        }
    }
    found
}

fn cascade(gathered: &Gathered) -> Vec<Found> {
    let acting =
        keys(gathered).filter(|(_, key)| [key.on_delete, key.on_update].iter().any(|action| *action != ReferentialAction::Restrict));
    acting
        .map(|(table, key)| {
            let rules = format!("ON DELETE {:?}, ON UPDATE {:?}", key.on_delete, key.on_update);
            Found::new(object(table, key), format!("it changes rows of `{}` when `{}` changes", table.name, key.parent))
                .evidence("information_schema.REFERENTIAL_CONSTRAINTS", rules)
                .fix("nothing to do")
        })
        .collect()
}
