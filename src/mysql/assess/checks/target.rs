//! Whether the target is free for this run.

use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "target-claimed",
        level: Level::Error,
        about: "Another run has claimed the target.",
        why: "Two runs would write into each other's tables.",
        looks_at: &[Part::TargetContents],
        never_accepted: Some("two runs would write into each other's tables"),
        look: target_claimed,
    },
    Check {
        id: "target-not-empty",
        level: Level::Error,
        about: "A table that would be created is on the target already.",
        why: "dbmove never writes into a table that it did not create.",
        looks_at: &[Part::TargetContents, Part::Catalog],
        never_accepted: Some("dbmove never writes into a table that it did not create"),
        look: target_not_empty,
    },
    Check {
        id: "target-read-only",
        level: Level::Error,
        about: "The target is read only.",
        why: "Nothing can be written to it.",
        looks_at: &[Part::TargetSettings],
        never_accepted: Some("nothing can be written to it"),
        look: target_read_only,
    },
];

fn target_claimed(gathered: &Gathered) -> Vec<Found> {
    let holder = gathered.claimed_by.iter();
    holder
        .map(|holder| {
            Found::new(&gathered.target_name, format!("run `{holder}` has claimed this target (`_dbmove.lease`)"))
                .evidence("SELECT run FROM _dbmove.lease", holder)
                .fix("finish or undo that run; if it is given up, drop the schema `_dbmove` and what it created on the target")
        })
        .collect()
}

fn target_not_empty(gathered: &Gathered) -> Vec<Found> {
    let there = gathered.on_target.iter();
    there
        .map(|name| {
            Found::new(name.to_string(), "the table is on the target already, and this run did not create it")
                .evidence("information_schema.TABLES of the target", name.to_string())
                .fix("drop it on the target if it is not needed, or leave it out with `exclude`; what an interrupted `dbmove assess --try` left there, the next one drops")
        })
        .collect()
}

fn target_read_only(gathered: &Gathered) -> Vec<Found> {
    if !gathered.target.read_only {
        return Vec::new();
    }
    let returned = gathered.target.variables.get("read_only").cloned().unwrap_or_default();
    vec![
        Found::new(&gathered.target_name, "`read_only` is on")
            .evidence("SHOW GLOBAL VARIABLES LIKE 'read_only'", returned)
            .fix("set it off, or check that this is the writer and not a replica"),
    ]
}
