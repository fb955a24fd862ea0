//! Columns stored as servers of long ago did.

use std::collections::BTreeMap;

use super::super::super::table::ColumnType;
use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "old-temporal",
        level: Level::Warn,
        about: "TIME, DATETIME and TIMESTAMP columns in the format of before MySQL 5.6.4.",
        why: "dbmove writes every row anew, so the target has the new format. But old servers cut fractions of a second that a client sends, and new ones round: `23:59:59.7` becomes the next day.",
        looks_at: &[Part::Catalog, Part::Details, Part::SourceSettings, Part::TargetSettings],
        never_accepted: None,
        look: old_temporal,
    },
    Check {
        id: "old-decimal",
        level: Level::Error,
        about: "DECIMAL columns in the format of MySQL 4.1.",
        why: "Their changes stand in the binary log in a form that dbmove can't read, so following would stop at the first one.",
        looks_at: &[Part::Catalog, Part::Details],
        never_accepted: None,
        look: old_decimal,
    },
];

/// One finding a database: on an old server it is every table.
fn old_temporal(gathered: &Gathered) -> Vec<Found> {
    let target_is_new = gathered.target.version.mariadb || gathered.target.version.mysql_from((5, 6, 4));
    if !target_is_new {
        return Vec::new();
    }
    let mut columns: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let all_are_old = !gathered.source.version.mariadb && !gathered.source.version.mysql_from((5, 6, 4));
    if all_are_old {
        for table in gathered.catalog.tables.values() {
            let temporal = |kind: ColumnType| matches!(kind, ColumnType::Time(_) | ColumnType::DateTime(_) | ColumnType::Timestamp(_));
            for column in table.columns.iter().filter(|column| temporal(column.kind)) {
                columns.entry(&table.name.database).or_default().push(format!("{}.{}", table.name.table, column.name));
            }
        }
    }
    for (table, column) in &gathered.old_temporals {
        columns.entry(&table.database).or_default().push(format!("{}.{column}", table.table));
    }
    let asked =
        if all_are_old { "SELECT VERSION(); information_schema.COLUMNS.COLUMN_TYPE" } else { "information_schema.COLUMNS.COLUMN_TYPE" };
    let found = columns.into_iter().map(|(database, columns)| {
        let first = columns.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let more = if columns.len() > 3 { ", …" } else { "" };
        Found::new(database, format!("{} of its columns are of the old format", columns.len()))
            .evidence(asked, format!("{}; {first}{more}", gathered.source.version))
            .fix("see that the application sends no fractions of a second; set TIME_TRUNCATE_FRACTIONAL in the `sql_mode` of MySQL 8 and later, TIME_ROUND_FRACTIONAL stays off on MariaDB")
    });
    found.collect()
}

fn old_decimal(gathered: &Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    for (name, details) in &gathered.details {
        let (Some(version), Some(table)) = (details.file_version.filter(|version| *version < 10), gathered.catalog.table(name)) else {
            continue;
        };
        for column in table.columns.iter().filter(|column| matches!(column.kind, ColumnType::Decimal { .. })) {
            found.push(
                Found::new(
                    format!("{name}.{}", column.name),
                    format!("its table was made before MySQL 5.0 (format {version}) and never rebuilt"),
                )
                .evidence("information_schema.TABLES.VERSION", version.to_string())
                .fix("rebuild the table on the source: `ALTER TABLE … ENGINE = …` with the engine that it has"),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::super::gather::tables::TableDetails;
    use super::super::testing::{objects, with_table};
    use super::*;
    use crate::mysql::connect::Version;
    use crate::mysql::names::TableName;

    #[test]
    fn a_decimal_is_old_by_its_table() {
        let of = |version: Option<u64>, kind| {
            let mut gathered = with_table("MyISAM", kind);
            gathered.details.insert(TableName::new("s", "t"), TableDetails { file_version: version, ..TableDetails::default() });
            objects("old-decimal", &gathered)
        };
        let decimal = ColumnType::Decimal { precision: 10, scale: 2 };
        assert_eq!(of(Some(9), decimal), ["s.t.c"]);
        assert!(of(Some(10), decimal).is_empty() && of(None, decimal).is_empty() && of(Some(9), ColumnType::Int).is_empty());
    }

    #[test]
    fn a_temporal_column_is_old_by_the_server_or_as_it_is_printed() {
        let mut gathered = with_table("InnoDB", ColumnType::DateTime(0));
        gathered.target.version = Version::parse("9.7.0");
        assert_eq!(objects("old-temporal", &gathered), ["s"]);
        gathered.source.version = Version::parse("5.6.24");
        assert!(objects("old-temporal", &gathered).is_empty());
        gathered.old_temporals = vec![(TableName::new("s", "t"), "c".to_owned())];
        assert_eq!(objects("old-temporal", &gathered), ["s"]);
        gathered.target.version = Version::parse("5.5.34");
        assert!(objects("old-temporal", &gathered).is_empty());
    }
}
