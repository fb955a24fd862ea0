//! Types that the target has not, prints otherwise, or that dbmove can't follow.

use super::super::super::table::{Column, ColumnType};
use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "json-column",
        level: Level::Warn,
        about: "A JSON column of MySQL.",
        why: "Documents are carried as their text, as by every dump: a DECIMAL within one (`JSON_SET(c, '$.price', 19.90)` writes it) becomes a DOUBLE, and dates and bytes within become strings. Where that changes the text (19.90 to 19.9), verification finds the row and the cutover is refused.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: |gathered| {
            columns(
                gathered,
                |column| column.kind == ColumnType::Json,
                "it is JSON, and is carried as text",
                "nothing if documents are written as text, as applications do; else make each what its text says, in one transaction on the source: `UPDATE … SET c = JSON_ARRAY(c)`, and `UPDATE … SET c = CAST(CAST(c->'$[0]' AS CHAR) AS JSON)`",
            )
        },
    },
    Check {
        id: "year2",
        level: Level::Warn,
        about: "A YEAR(2) column.",
        why: "No server after 5.6 has it: it becomes YEAR, prints four digits, and sorts by the century.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: |gathered| {
            columns(
                gathered,
                |column| column.kind == ColumnType::Year2,
                "it is YEAR(2) and becomes YEAR",
                "check that the application reads four digits",
            )
        },
    },
    Check {
        id: "zerofill",
        level: Level::Warn,
        about: "A ZEROFILL column.",
        why: "ZEROFILL is deprecated; the target still pads, a later version may not.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: |gathered| columns(gathered, |column| column.zerofill, "it is ZEROFILL", "pad with LPAD where the application relies on it"),
    },
    Check {
        id: "float-precision-syntax",
        level: Level::Info,
        about: "A FLOAT or DOUBLE with digits, such as FLOAT(7,2).",
        why: "The form is deprecated since 8.0.17, and rounds what is stored to so many decimals.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: |gathered| {
            columns(
                gathered,
                |column| column.kind.is_float() && column.type_text.contains(','),
                "its digits are written in a form that is deprecated",
                "make it DECIMAL where digits matter, or a plain FLOAT or DOUBLE",
            )
        },
    },
    Check {
        id: "utf8mb3",
        level: Level::Info,
        about: "A table with columns in `utf8`, which holds three bytes of a character.",
        why: "Bytes are carried as they are, as `utf8mb3`; it is deprecated, and has no room for emoji. Converting is a step of its own, after the move.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: utf8mb3,
    },
];

fn columns(gathered: &Gathered, wanted: fn(&Column) -> bool, found: &str, fix: &str) -> Vec<Found> {
    let all = gathered.catalog.tables.values().flat_map(|table| table.columns.iter().map(move |column| (table, column)));
    all.filter(|(_, column)| wanted(column))
        .map(|(table, column)| {
            Found::new(format!("{}.{}", table.name, column.name), found)
                .evidence("information_schema.COLUMNS.COLUMN_TYPE", &column.type_text)
                .fix(fix)
        })
        .collect()
}

/// One finding a table: a database of the time is all in it.
fn utf8mb3(gathered: &Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    for table in gathered.catalog.tables.values() {
        let is_utf8 = |column: &&Column| matches!(column.charset.as_deref(), Some("utf8" | "utf8mb3"));
        let names: Vec<&str> = table.columns.iter().filter(is_utf8).map(|column| column.name.as_str()).collect();
        if !names.is_empty() {
            found.push(
                Found::new(table.name.to_string(), format!("{} of its columns are utf8 (utf8mb3)", names.len()))
                    .evidence("information_schema.COLUMNS.CHARACTER_SET_NAME", names.join(", "))
                    .fix("nothing now; after the move `ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4`"),
            );
        }
    }
    found
}
