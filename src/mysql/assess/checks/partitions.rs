//! Partitions that the target makes otherwise, or not at all.

use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "partitioned-myisam",
        level: Level::Warn,
        about: "A partitioned table of another engine than InnoDB.",
        why: "No other engine has partitions from MySQL 8.0 on: table and partitions become InnoDB on the target, with its locking and room.",
        looks_at: &[Part::Catalog, Part::Details],
        never_accepted: None,
        look: partitioned_myisam,
    },
    Check {
        id: "partition-prefix-key",
        level: Level::Error,
        about: "A table partitioned by its primary key, of which only a prefix of a column is in the key.",
        why: "Old servers left that column out of the partitioning without a word; MySQL refuses the table from 8.4 on and warns from 8.0.21 on.",
        looks_at: &[Part::Catalog, Part::Details, Part::TargetSettings],
        never_accepted: Some("the target refuses to create it"),
        look: partition_prefix_key,
    },
    Check {
        id: "list-columns-lookups",
        level: Level::Warn,
        about: "A table partitioned by LIST COLUMNS on MySQL 5.5 or 5.6.",
        why: "The server looks for a key, or a range of keys, in the wrong partition and finds nothing there, for the application too (seen on 5.5.34). So dbmove asks for no row by its key: the table is copied as a whole under a read lock, its changes are found by comparing whole rows, and it is compared as a whole.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: list_columns_lookups,
    },
];

fn list_columns_lookups(gathered: &Gathered) -> Vec<Found> {
    let tables = gathered.catalog.tables.values().filter(|table| table.lookups_fail);
    tables
        .map(|table| {
            Found::new(
                table.name.to_string(),
                format!("it is partitioned by LIST COLUMNS, has about {} rows, and is handled as if it had no key", table.row_estimate),
            )
            .evidence("information_schema.PARTITIONS.PARTITION_METHOD", "LIST COLUMNS")
            .fix("partition it by LIST of an integer, or not at all (`ALTER TABLE … REMOVE PARTITIONING`), before the night if it is large")
        })
        .collect()
}

fn partitioned_myisam(gathered: &Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    for (name, details) in &gathered.details {
        let (Some((method, expression)), Some(table)) = (&details.partitions, gathered.catalog.table(name)) else { continue };
        if !table.engine.eq_ignore_ascii_case("InnoDB") {
            found.push(
                Found::new(name.to_string(), format!("it is {} and partitioned by {method} ({expression})", table.engine))
                    .evidence("information_schema.TABLES.ENGINE, PARTITIONS.PARTITION_METHOD", format!("{}; {method}", table.engine))
                    .fix("nothing: dbmove makes it InnoDB; check FULLTEXT searches and table-level locking in the application"),
            );
        }
    }
    found
}

fn partition_prefix_key(gathered: &Gathered) -> Vec<Found> {
    if !gathered.target.version.mysql_from((8, 0, 21)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (name, details) in &gathered.details {
        let (Some((method, expression)), Some(table)) = (&details.partitions, gathered.catalog.table(name)) else { continue };
        if !method.ends_with("KEY") || !expression.trim().is_empty() {
            continue;
        }
        let prefixed = table.indexes.iter().find(|index| index.name == "PRIMARY").and_then(|index| {
            let part = index.parts.iter().find(|part| part.prefix.is_some())?;
            Some((table.columns[part.column].name.as_str(), part.prefix.unwrap_or_default()))
        });
        if let Some((column, prefix)) = prefixed {
            found.push(
                Found::new(name.to_string(), format!("it is partitioned by {method} () and its primary key has `{column}`({prefix})"))
                    .evidence(
                        "information_schema.PARTITIONS.PARTITION_METHOD, PARTITION_EXPRESSION; STATISTICS.SUB_PART",
                        format!("{method}, no expression; {prefix}"),
                    )
                    .fix("name the other columns on the source (`ALTER TABLE … PARTITION BY KEY (…)`): rows stay where they are"),
            );
        }
    }
    found
}
