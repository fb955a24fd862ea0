//! Whether rows can be told apart.

use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "no-primary-key",
        level: Level::Warn,
        about: "A table without a primary key or a unique key of NOT NULL columns.",
        why: "It can't be copied in chunks, and a change in it is found by comparing whole rows.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: no_primary_key,
    },
    Check {
        id: "nullable-primary-key",
        level: Level::Error,
        about: "A primary key with a column that may be NULL.",
        why: "MySQL 5.7 and later refuse it. Servers make such columns NOT NULL by themselves, but a definition from elsewhere may have kept them.",
        looks_at: &[Part::Catalog],
        never_accepted: Some("the target refuses to create it"),
        look: nullable_primary_key,
    },
    Check {
        id: "nullable-unique-key",
        level: Level::Info,
        about: "A table whose only unique keys have columns that may be NULL.",
        why: "NULL is equal to nothing, so such a key does not tell rows apart; made NOT NULL, it would.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: nullable_unique_key,
    },
];

fn no_primary_key(gathered: &Gathered) -> Vec<Found> {
    let keyless = gathered.catalog.tables.values().filter(|table| table.key_index().is_none());
    keyless
        .map(|table| {
            let lock = if table.engine.eq_ignore_ascii_case("InnoDB") { "for a moment" } else { "for as long as it is read" };
            let found = format!(
                "no primary key and no unique key of NOT NULL columns: it is copied as a whole, locked {lock}, and its changes are found by all values"
            );
            Found::new(table.name.to_string(), found)
                .evidence("information_schema.STATISTICS", format!("{} indexes, none of them a key of whole NOT NULL columns", table.indexes.len()))
                .fix("add a primary key if the application allows it")
        })
        .collect()
}

fn nullable_primary_key(gathered: &Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    for table in gathered.catalog.tables.values() {
        let parts = table.indexes.iter().filter(|index| index.name == "PRIMARY").flat_map(|index| &index.parts);
        for column in parts.map(|part| &table.columns[part.column]).filter(|column| column.nullable) {
            found.push(
                Found::new(format!("{}.{}", table.name, column.name), "it is in the primary key and may be NULL")
                    .evidence("information_schema.COLUMNS.IS_NULLABLE", "YES")
                    .fix("`ALTER TABLE … MODIFY` it NOT NULL on the source"),
            );
        }
    }
    found
}

fn nullable_unique_key(gathered: &Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    for table in gathered.catalog.tables.values().filter(|table| table.key_index().is_none()) {
        for index in table.indexes.iter().filter(|index| index.unique) {
            let nullable: Vec<&str> = index
                .parts
                .iter()
                .map(|part| &table.columns[part.column])
                .filter(|column| column.nullable)
                .map(|column| column.name.as_str())
                .collect();
            if !nullable.is_empty() {
                found.push(
                    Found::new(format!("{}.{}", table.name, index.name), format!("the unique key allows NULL in {}", nullable.join(", ")))
                        .evidence("information_schema.COLUMNS.IS_NULLABLE", format!("YES: {}", nullable.join(", ")))
                        .fix("`ALTER TABLE … MODIFY` these columns NOT NULL if they never are"),
                );
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{changed, objects, with_table};
    use crate::mysql::table::{ColumnType, Index, IndexPart};

    #[test]
    fn a_primary_key_may_not_be_null() {
        let of = |name: &str, nullable| {
            let gathered = changed(with_table("InnoDB", ColumnType::Int), |table| {
                let parts = vec![IndexPart { column: 0, prefix: None }];
                table.indexes = vec![Index { name: name.to_owned(), unique: true, method: "BTREE".to_owned(), parts }];
                table.columns[0].nullable = nullable;
            });
            objects("nullable-primary-key", &gathered)
        };
        assert_eq!(of("PRIMARY", true), ["s.t.c"]);
        assert!(of("PRIMARY", false).is_empty() && of("u", true).is_empty());
    }
}
