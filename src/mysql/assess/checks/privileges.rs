//! Whether our accounts may do what a run does on both servers, found now and not half way.

use std::collections::BTreeSet;

use super::super::super::names::DBMOVE_SCHEMA;
use super::super::super::sql;
use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "source-privileges",
        level: Level::Error,
        about: "The source's account lacks a privilege.",
        why: "Found half way it would stop the run at the copy or, worse, at the fence.",
        looks_at: &[Part::SourceSettings],
        never_accepted: Some("the run would stop where it is needed"),
        look: source_privileges,
    },
    Check {
        id: "target-privileges",
        level: Level::Error,
        about: "The target's account lacks a privilege on a database.",
        why: "Found half way it would leave a target that is half prepared.",
        looks_at: &[Part::TargetSettings, Part::Catalog],
        never_accepted: Some("the run would stop where it is needed"),
        look: target_privileges,
    },
];

fn source_privileges(gathered: &Gathered) -> Vec<Found> {
    let held = &gathered.source.privileges;
    let wanted = [
        (!held.has_replication_slave(), "REPLICATION SLAVE", "reading the binary log"),
        (!held.has_replication_client(), "REPLICATION CLIENT", "asking for the log's position"),
        (!held.has_super(), "SUPER", "setting `read_only` at the fence"),
        (!held.has_reload() && !held.has_super(), "RELOAD", "taking the global read lock at the fence"),
    ];
    let missing = wanted.into_iter().filter(|(missing, ..)| *missing);
    missing
        .map(|(_, privilege, what)| {
            Found::new(privilege, format!("the source's account lacks `{privilege}`, needed for {what}"))
                .evidence("SHOW GRANTS", format!("global: {}", list(&held.global)))
                .fix(format!("`GRANT {privilege} ON *.* TO` the account that dbmove uses"))
        })
        .collect()
}

fn list(privileges: &BTreeSet<String>) -> String {
    if privileges.is_empty() { "none".to_owned() } else { privileges.iter().cloned().collect::<Vec<_>>().join(", ") }
}

/// What dbmove does on the target, and the privilege for it.
const ON_THE_TARGET: [&str; 9] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES"];

fn target_privileges(gathered: &Gathered) -> Vec<Found> {
    let held = &gathered.target.privileges;
    let moved = gathered.catalog.tables.keys().map(|name| name.database.as_str());
    let databases: BTreeSet<&str> = moved.chain([DBMOVE_SCHEMA]).collect();
    let mut found = Vec::new();
    for database in databases {
        let missing: Vec<&str> = ON_THE_TARGET.into_iter().filter(|privilege| !held.has_on(privilege, database)).collect();
        if !missing.is_empty() {
            let (missing, name) = (missing.join(", "), sql::identifier(database));
            found.push(
                Found::new(database, format!("the target's account lacks {missing} on it"))
                    .evidence("SHOW GRANTS", format!("global: {}", list(&held.global)))
                    .fix(format!("`GRANT {missing} ON {name}.* TO` the account that dbmove uses on the target")),
            );
        }
    }
    found
}
