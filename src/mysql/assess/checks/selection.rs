//! Whether what the playbook names is there, can be converted, and is all carried.

use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "include-names-nothing",
        level: Level::Error,
        about: "A pattern of `include` names no table.",
        why: "A mistyped name would leave data behind without a word.",
        looks_at: &[Part::Catalog],
        never_accepted: None,
        look: names_nothing,
    },
    Check {
        id: "schema-conversion",
        level: Level::Error,
        about: "A table can't be made on the target from its definition, or (looked at with `--deep`) its text not be converted as `charset` asks for.",
        why: "What can't be converted is refused, never left out. Of definitions the first is named; there may be more.",
        looks_at: &[],
        never_accepted: Some("the table could not be created; leave it out with `exclude`"),
        look: conversion,
    },
    Check {
        id: "not-carried",
        level: Level::Warn,
        about: "An object that dbmove does not carry.",
        why: "The target will not have it until somebody creates it.",
        looks_at: &[Part::Schema],
        never_accepted: None,
        look: not_carried,
    },
];

fn names_nothing(gathered: &Gathered) -> Vec<Found> {
    let patterns = gathered.unmatched.iter();
    patterns
        .map(|pattern| {
            Found::new(pattern, "this pattern of `include` names no table of the source")
                .evidence("information_schema.TABLES of the source", "no table of that name")
                .fix("correct it or leave it out; also check that the account may see the tables (SELECT)")
        })
        .collect()
}

fn conversion(gathered: &Gathered) -> Vec<Found> {
    // The first name in backticks is the table's, or the column's.
    let object = |message: &str| message.split('`').nth(1).unwrap_or("schema").to_owned();
    let texts = gathered.unproven.iter().map(|(message, hint)| {
        Found::new(object(message), message).evidence("all text of the table, and its unique keys", message).fix(hint)
    });
    let reason = gathered.unconverted.iter();
    reason
        .map(|(message, hint)| {
            Found::new(object(message), message).evidence("SHOW CREATE TABLE, information_schema.COLUMNS", message).fix(hint)
        })
        .chain(texts)
        .collect()
}

fn not_carried(gathered: &Gathered) -> Vec<Found> {
    let left = gathered.not_carried.iter();
    left.map(|left| {
        Found::new(&left.name, format!("{}: {}", left.kind, left.why))
            .evidence("information_schema of the source", format!("{} `{}`", left.kind, left.name))
            .fix("create it on the target by hand")
    })
    .collect()
}
