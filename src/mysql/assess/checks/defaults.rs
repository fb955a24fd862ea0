//! Defaults that strict modes refuse.

use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[Check {
    id: "zero-date-defaults",
    level: Level::Warn,
    about: "A column whose default is a zero date.",
    why: "dbmove creates it as it is; the target's default `sql_mode` refuses the next `ALTER TABLE` of that table, and inserts that rely on the default.",
    looks_at: &[Part::Defaults],
    never_accepted: None,
    look: zero_date_defaults,
}];

fn zero_date_defaults(gathered: &Gathered) -> Vec<Found> {
    let zero = |default: &str| default.trim_matches('\'').starts_with("0000-00-00");
    let mut found = Vec::new();
    for column in &gathered.defaults {
        let temporal = ["date", "datetime", "timestamp"].iter().any(|kind| column.column_type.to_ascii_lowercase().starts_with(kind));
        if let Some(default) = column.default.as_deref().filter(|default| temporal && zero(default)) {
            found.push(
                Found::new(format!("{}.{}", column.table, column.column), format!("its default is `{default}`"))
                    .evidence("information_schema.COLUMNS.COLUMN_DEFAULT", default)
                    .fix("give it another default or NULL, or leave NO_ZERO_DATE and strict mode out of the target's `sql_mode`"),
            );
        }
    }
    found
}
