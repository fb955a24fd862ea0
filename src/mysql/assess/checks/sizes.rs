//! Whether what is there fits into what it goes to.

use super::super::super::catalog::ServerFacts;
use super::super::super::table::{ColumnType, Table};
use super::{Check, Found, Gathered, Level, Part};
use crate::telemetry::human::bytes;

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "blob-vs-redo-log",
        level: Level::Error,
        about: "A table may hold values of more than a tenth of the target's redo log.",
        why: "InnoDB of MySQL 5.6 and 5.7 and of MariaDB before 10.3 refuses to write such a value. Later servers take it.",
        looks_at: &[Part::Catalog, Part::SourceSettings, Part::TargetSettings],
        never_accepted: None,
        look: blob_vs_redo_log,
    },
    Check {
        id: "tables-over-16tb",
        level: Level::Error,
        about: "A table of more than 16 TiB.",
        why: "RDS has no larger files, and a table (or a partition) is one file.",
        looks_at: &[Part::Catalog, Part::Details],
        never_accepted: None,
        look: tables_over_16tb,
    },
    Check {
        id: "disk-space",
        level: Level::Error,
        about: "The target's disk has less room than the data needs.",
        why: "A disk that fills up in the night stops the load. Needed are data and indexes and half as much again: pages are not full, and building indexes takes room for a while.",
        looks_at: &[Part::Catalog, Part::Details, Part::TargetDisk],
        never_accepted: None,
        look: disk_space,
    },
];

/// The target's redo log, where InnoDB measures values by it: the setting and its bytes.
fn measured_redo_log(target: &ServerFacts) -> Option<u64> {
    let version = &target.version;
    let measures =
        if version.mariadb { version.number < (10, 3, 0) } else { version.mysql_from((5, 6, 20)) && !version.mysql_from((8, 0, 0)) };
    let of = |name: &str| target.variables.get(name).and_then(|value| value.parse::<u64>().ok());
    measures
        .then(|| of("innodb_log_file_size").zip(of("innodb_log_files_in_group").or(Some(1))))
        .flatten()
        .map(|(size, files)| size * files)
}

/// The largest value that the table can hold: what its type, the source's packets and the table's own size allow.
fn largest_value(table: &Table, packet: u64) -> u64 {
    let of_type = |text: &str| match text.to_ascii_lowercase().as_str() {
        "tinytext" | "tinyblob" => 255,
        "text" | "blob" => 65_535,
        "mediumtext" | "mediumblob" => (1 << 24) - 1,
        _ => u64::from(u32::MAX),
    };
    let large = table.columns.iter().filter(|column| matches!(column.kind, ColumnType::Text | ColumnType::Blob));
    large.map(|column| of_type(&column.type_text)).max().unwrap_or(0).min(packet).min(table.data_bytes)
}

fn blob_vs_redo_log(gathered: &Gathered) -> Vec<Found> {
    let Some(log) = measured_redo_log(&gathered.target) else { return Vec::new() };
    let mut found = Vec::new();
    for table in gathered.catalog.tables.values() {
        let largest = largest_value(table, gathered.source.max_allowed_packet);
        if largest.saturating_mul(10) > log {
            found.push(
                Found::new(table.name.to_string(), format!("a value may have {}, ten times that is more than the target's redo log of {}", bytes(largest), bytes(log)))
                    .evidence(
                        "information_schema.TABLES.DATA_LENGTH, max_allowed_packet of the source; innodb_log_file_size × innodb_log_files_in_group of the target",
                        format!("{}, {}; {log}", table.data_bytes, gathered.source.max_allowed_packet),
                    )
                    .fix(format!("set `innodb_log_file_size` on the target so that the log has {} or more", bytes(largest.saturating_mul(10)))),
            );
        }
    }
    found
}

/// Data and indexes of a table.
fn size(gathered: &Gathered, table: &Table) -> u64 {
    table.data_bytes.saturating_add(gathered.details.get(&table.name).map_or(0, |details| details.index_bytes))
}

fn tables_over_16tb(gathered: &Gathered) -> Vec<Found> {
    let large = gathered.catalog.tables.values().filter(|table| size(gathered, table) > 16 << 40);
    large
        .map(|table| {
            Found::new(table.name.to_string(), format!("data and indexes have {}", bytes(size(gathered, table))))
                .evidence("information_schema.TABLES.DATA_LENGTH, INDEX_LENGTH", size(gathered, table).to_string())
                .fix("partition the table, so that each file is smaller, or move old rows to a table of their own")
        })
        .collect()
}

/// What the target needs.
fn needed(gathered: &Gathered) -> u64 {
    let sizes = gathered.catalog.tables.values().map(|table| size(gathered, table));
    let all = sizes.fold(0u64, u64::saturating_add);
    all.saturating_add(all / 2)
}

fn disk_space(gathered: &Gathered) -> Vec<Found> {
    let (Some(disk), needed) = (&gathered.target_disk, needed(gathered)) else { return Vec::new() };
    if needed <= disk.free {
        return Vec::new();
    }
    vec![
        Found::new(&gathered.target_name, format!("about {} are needed, {} are free", bytes(needed), bytes(disk.free)))
            .evidence(
                format!("information_schema.TABLES.DATA_LENGTH, INDEX_LENGTH of the source; {}", disk.said_by),
                format!("{needed} needed; {} free", disk.free),
            )
            .fix("enlarge the target's disk before the load"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::super::gather::tables::TableDetails;
    use super::super::super::gather::target::TargetDisk;
    use super::super::testing::{changed, facts, objects, with_table};
    use super::*;
    use crate::mysql::connect::Version;
    use crate::mysql::names::TableName;

    #[test]
    fn large_values_matter_where_innodb_measures_them() {
        let mut gathered = changed(with_table("InnoDB", ColumnType::Blob), |table| {
            (table.columns[0].type_text, table.data_bytes) = ("longblob".to_owned(), 1 << 30);
        });
        gathered.source = facts(&[("max_allowed_packet", "67108864")]);
        gathered.target = facts(&[("innodb_log_file_size", "50331648"), ("innodb_log_files_in_group", "2")]);
        gathered.target.version = Version::parse("5.7.44");
        assert_eq!(objects("blob-vs-redo-log", &gathered), ["s.t"]);
        gathered.target.version = Version::parse("9.7.0");
        assert!(objects("blob-vs-redo-log", &gathered).is_empty());
        gathered.target.version = Version::parse("5.7.44");
        let small = changed(gathered, |table| table.data_bytes = 1 << 20);
        assert!(objects("blob-vs-redo-log", &small).is_empty());
    }

    #[test]
    fn sizes_are_data_and_indexes() {
        let mut gathered = changed(with_table("InnoDB", ColumnType::Int), |table| table.data_bytes = 15 << 40);
        assert!(objects("tables-over-16tb", &gathered).is_empty());
        let details = TableDetails { index_bytes: 2 << 40, ..TableDetails::default() };
        gathered.details.insert(TableName::new("s", "t"), details);
        assert_eq!(objects("tables-over-16tb", &gathered), ["s.t"]);
        gathered.target_disk = Some(TargetDisk { free: 20 << 40, said_by: "x" });
        assert_eq!(objects("disk-space", &gathered), ["target"]);
        gathered.target_disk = Some(TargetDisk { free: 26 << 40, said_by: "x" });
        assert!(objects("disk-space", &gathered).is_empty());
    }
}
