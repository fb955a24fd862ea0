//! Names that are reserved words of the target and were none of the source.
//!
//! dbmove quotes every name; the application's own queries may not. Words by the version that reserved them, from MySQL's list of
//! keywords; MariaDB has a list of its own, of which nothing is said here.

use super::super::super::connect::Version;
use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[Check {
    id: "reserved-words",
    level: Level::Warn,
    about: "A table or column whose name the target reserves and the source did not.",
    why: "A query that writes the name without backticks works on the source and is a syntax error on a MySQL target.",
    looks_at: &[Part::Catalog, Part::SourceSettings, Part::TargetSettings],
    never_accepted: None,
    look: reserved_words,
}];

/// Since which version, and which words.
type ReservedSince = ((u16, u16, u16), &'static [&'static str]);

/// The words, by the version that reserved them.
const RESERVED: [ReservedSince; 5] = [
    ((5, 5, 0), &["MAXVALUE", "RESIGNAL", "SIGNAL"]),
    ((5, 6, 0), &["GET", "IO_AFTER_GTIDS", "IO_BEFORE_GTIDS", "PARTITION"]),
    ((5, 7, 0), &["GENERATED", "OPTIMIZER_COSTS", "STORED", "VIRTUAL"]),
    (
        (8, 0, 0),
        &[
            "CUBE",
            "CUME_DIST",
            "DENSE_RANK",
            "EMPTY",
            "EXCEPT",
            "FIRST_VALUE",
            "FUNCTION",
            "GROUPING",
            "GROUPS",
            "INTERSECT",
            "JSON_TABLE",
            "LAG",
            "LAST_VALUE",
            "LATERAL",
            "LEAD",
            "NTH_VALUE",
            "NTILE",
            "OF",
            "OVER",
            "PERCENT_RANK",
            "RANK",
            "RECURSIVE",
            "ROW",
            "ROWS",
            "ROW_NUMBER",
            "SYSTEM",
            "WINDOW",
        ],
    ),
    ((8, 4, 0), &["MANUAL", "PARALLEL", "QUALIFY", "TABLESAMPLE"]),
];

/// Whether the target reserves the name and the source does not.
fn newly_reserved(name: &str, source: &Version, target: &Version) -> bool {
    let new = RESERVED.iter().filter(|(since, _)| target.mysql_from(*since) && !source.mysql_from(*since));
    new.flat_map(|(_, words)| words.iter()).any(|word| word.eq_ignore_ascii_case(name))
}

fn reserved_words(gathered: &Gathered) -> Vec<Found> {
    let reserved = |name: &str| newly_reserved(name, &gathered.source.version, &gathered.target.version);
    let mut all = Vec::new();
    let mut note = |object: String, name: &str, place: &str| {
        all.push(
            Found::new(object, format!("`{name}` is a reserved word of {}", gathered.target.version))
                .evidence(place, name)
                .fix("write it in backticks in every query of the application, or rename it"),
        );
    };
    for table in gathered.catalog.tables.values() {
        if reserved(&table.name.table) {
            note(table.name.to_string(), &table.name.table, "information_schema.TABLES.TABLE_NAME");
        }
        for column in table.columns.iter().filter(|column| reserved(&column.name)) {
            note(format!("{}.{}", table.name, column.name), &column.name, "information_schema.COLUMNS.COLUMN_NAME");
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_counts() {
        let (old, new) = (Version::parse("5.5.34"), Version::parse("9.7.0"));
        assert!(newly_reserved("Rank", &old, &new) && newly_reserved("partition", &old, &new));
        assert!(!newly_reserved("signal", &old, &new) && !newly_reserved("rank", &new, &new) && !newly_reserved("name", &old, &new));
        assert!(!newly_reserved("rank", &old, &Version::parse("10.11.6-MariaDB")));
    }
}
