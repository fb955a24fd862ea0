//! Whether our accounts may do what a run does on both servers, found now and not half way: the playbook's own steps are asked for what they
//! need at the switch and behind it.

use std::collections::BTreeSet;

use super::super::super::catalog::facts::Privileges;
use super::super::super::fence::PROBED;
use super::super::super::names::DBMOVE_SCHEMA;
use super::super::super::reverse;
use super::super::super::sql;
use super::{Check, Found, Gathered, Level, Part};
use crate::playbook::model::ObjectsOption;

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
        id: "source-database-privileges",
        level: Level::Error,
        about: "The source's account lacks a privilege on a database that moves.",
        why: "A server does not list what an account may not see: tables, views and triggers would stay behind without a word.",
        looks_at: &[Part::SourceSettings, Part::Catalog],
        never_accepted: None,
        look: source_database_privileges,
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
    Check {
        id: "target-process",
        level: Level::Error,
        about: "The target's account does not see who is connected, and the playbook has `mysql.reverse` or `traffic.hold`.",
        why: "A rollback could not close clients there, and a way through HAProxy could not be proven to end there.",
        looks_at: &[Part::TargetSettings],
        never_accepted: Some("the cutover would be refused where it is needed"),
        look: target_process,
    },
    Check {
        id: "target-strangers-unseen",
        level: Level::Warn,
        about: "The target's account does not see who is connected.",
        why: "Who else writes there is told by statistics alone, if the server keeps any; a rehearsal is refused on such a server.",
        looks_at: &[Part::TargetSettings],
        never_accepted: None,
        look: target_strangers_unseen,
    },
    Check {
        id: "way-back-privileges",
        level: Level::Error,
        about: "The source's account lacks what `mysql.reverse` needs there.",
        why: "The cutover would be undone at that step, with writes held until then.",
        looks_at: &[Part::SourceSettings, Part::Catalog],
        never_accepted: Some("there would be no way back, and so no switch"),
        look: way_back_privileges,
    },
    Check {
        id: "canary-privileges",
        level: Level::Error,
        about: "An account of dbmove's lacks a privilege on the schema that `traffic.canary` makes.",
        why: "The canary could not begin, or its schema would be left on a server.",
        looks_at: &[Part::SourceSettings, Part::TargetSettings],
        never_accepted: Some("the cutover would stop there"),
        look: canary_privileges,
    },
];

fn source_privileges(gathered: &Gathered) -> Vec<Found> {
    let held = &gathered.source.privileges;
    let wanted = [
        (!held.has_replication_slave(), "REPLICATION SLAVE", "reading the binary log"),
        (!held.has_replication_client(), "REPLICATION CLIENT", "asking for the log's position"),
        (!held.has_process(), "PROCESS", "seeing who is connected, so that at the switch nobody is overlooked"),
        (!held.has_super(), "SUPER", "setting `read_only` at the fence"),
        (!held.has_reload() && !held.has_super(), "RELOAD", "taking the global read lock at the fence"),
    ];
    let missing = wanted.into_iter().filter(|(missing, ..)| *missing);
    let mut found: Vec<Found> = missing
        .map(|(_, privilege, what)| {
            Found::new(privilege, format!("the source's account lacks `{privilege}`, needed for {what}"))
                .evidence("SHOW GRANTS", format!("global: {}", list(&held.global)))
                .fix(format!("`GRANT {privilege} ON *.* TO` the account that dbmove uses"))
        })
        .collect();
    if !held.has_on("DROP", PROBED) {
        found.push(lacking("source", held, &["DROP"], PROBED, "needed for the fence's proof: a write that must not pass"));
    }
    found
}

fn list(privileges: &BTreeSet<String>) -> String {
    if privileges.is_empty() { "none".to_owned() } else { privileges.iter().cloned().collect::<Vec<_>>().join(", ") }
}

/// A finding about what our account lacks on a database; `why` may be empty.
fn lacking(side: &str, held: &Privileges, missing: &[&str], database: &str, why: &str) -> Found {
    let (missing, name) = (missing.join(", "), sql::identifier(database));
    let why = if why.is_empty() { String::new() } else { format!(", {why}") };
    let account = if side == "target" { "the account that dbmove uses on the target" } else { "the account that dbmove uses" };
    Found::new(database, format!("the {side}'s account lacks {missing} on it{why}"))
        .evidence("SHOW GRANTS", format!("global: {}", list(&held.global)))
        .fix(format!("`GRANT {missing} ON {name}.* TO` {account}"))
}

fn missing<'a>(held: &Privileges, wanted: &[&'a str], database: &str) -> Vec<&'a str> {
    wanted.iter().copied().filter(|privilege| !held.has_on(privilege, database)).collect()
}

/// The databases that something moves from.
fn moved(gathered: &Gathered) -> BTreeSet<&str> {
    gathered.catalog.tables.keys().map(|name| name.database.as_str()).collect()
}

/// What copying reads and locks by.
const ON_THE_SOURCE: [&str; 2] = ["SELECT", "LOCK TABLES"];
/// Without these a server lists no definitions of views, no triggers and no events.
const FOR_OBJECTS: [&str; 3] = ["SHOW VIEW", "TRIGGER", "EVENT"];

fn source_database_privileges(gathered: &Gathered) -> Vec<Found> {
    let held = &gathered.source.privileges;
    let mut found = Vec::new();
    for database in moved(gathered) {
        let tables = missing(held, &ON_THE_SOURCE, database);
        if !tables.is_empty() {
            found.push(lacking("source", held, &tables, database, "needed for its tables"));
        }
        let objects = if gathered.objects == ObjectsOption::Leave { Vec::new() } else { missing(held, &FOR_OBJECTS, database) };
        if !objects.is_empty() {
            let why = "needed for its views, triggers and events; with `objects: leave` they stay behind";
            found.push(lacking("source", held, &objects, database, why));
        }
    }
    found
}

/// What dbmove does on the target, and the privilege for it.
const ON_THE_TARGET: [&str; 9] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES"];

fn target_privileges(gathered: &Gathered) -> Vec<Found> {
    let held = &gathered.target.privileges;
    let mut databases = moved(gathered);
    databases.insert(DBMOVE_SCHEMA);
    let lacks = |database| (database, missing(held, &ON_THE_TARGET, database));
    let lacks = databases.into_iter().map(lacks).filter(|(_, missing)| !missing.is_empty());
    lacks.map(|(database, missing)| lacking("target", held, &missing, database, "")).collect()
}

/// That the target's account does not see who is connected, if so.
fn unseen(gathered: &Gathered) -> Vec<Found> {
    let held = &gathered.target.privileges;
    let lacks = (!held.has_process()).then(|| {
        Found::new("PROCESS", "the target's account lacks `PROCESS`, needed for seeing who is connected")
            .evidence("SHOW GRANTS", format!("global: {}", list(&held.global)))
            .fix("`GRANT PROCESS ON *.* TO` the account that dbmove uses on the target")
    });
    lacks.into_iter().collect()
}

fn needs_sight(gathered: &Gathered) -> bool {
    gathered.uses.way_back || gathered.uses.proxy
}

fn target_process(gathered: &Gathered) -> Vec<Found> {
    if needs_sight(gathered) { unseen(gathered) } else { Vec::new() }
}

fn target_strangers_unseen(gathered: &Gathered) -> Vec<Found> {
    if needs_sight(gathered) { Vec::new() } else { unseen(gathered) }
}

fn way_back_privileges(gathered: &Gathered) -> Vec<Found> {
    if !gathered.uses.way_back {
        return Vec::new();
    }
    let held = &gathered.source.privileges;
    let refusals = reverse::account_refusals(&gathered.source, &gathered.catalog).into_iter();
    refusals
        .map(|refusal| {
            Found::new("mysql.reverse", refusal)
                .evidence("SHOW GRANTS", format!("global: {}", list(&held.global)))
                .fix("grant it to the account that dbmove uses on the source (the README lists all of it), or take `mysql.reverse` out of the playbook")
        })
        .collect()
}

/// What setting up, marking and removing the canary's schema takes.
const ON_THE_CANARY: [&str; 5] = ["CREATE", "SELECT", "INSERT", "DELETE", "DROP"];

fn canary_privileges(gathered: &Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    for schema in &gathered.uses.canaries {
        for (side, held) in [("source", &gathered.source.privileges), ("target", &gathered.target.privileges)] {
            let missing = missing(held, &ON_THE_CANARY, schema);
            if !missing.is_empty() {
                found.push(lacking(side, held, &missing, schema, "which `traffic.canary` makes"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{gathered, objects, with_table};
    use super::*;
    use crate::mysql::table::ColumnType;

    fn grant(held: &mut Privileges, database: &str, privileges: &[&str]) {
        let privileges = privileges.iter().map(|privilege| (*privilege).to_owned()).collect();
        if database == "*" { held.global = privileges } else { held.databases.push((database.to_owned(), privileges)) }
    }

    #[test]
    fn what_the_playbooks_steps_need_is_asked_for() {
        let mut gathered = with_table("InnoDB", ColumnType::Int);
        grant(&mut gathered.source.privileges, "*", &["SUPER", "RELOAD", "REPLICATION SLAVE", "REPLICATION CLIENT"]);
        grant(&mut gathered.source.privileges, "\\_dbmove\\_fence\\_probe", &["DROP"]);
        assert_eq!(objects("source-privileges", &gathered), ["PROCESS"]);
        gathered.source.privileges.global.insert("PROCESS".to_owned());
        assert!(objects("source-privileges", &gathered).is_empty());
        assert_eq!(objects("source-database-privileges", &gathered), ["s", "s"]);
        grant(&mut gathered.source.privileges, "s", &["SELECT", "LOCK TABLES"]);
        assert_eq!(objects("source-database-privileges", &gathered), ["s"]);
        gathered.objects = ObjectsOption::Leave;
        assert!(objects("source-database-privileges", &gathered).is_empty());

        assert_eq!(objects("target-strangers-unseen", &gathered), ["PROCESS"]);
        assert!(objects("target-process", &gathered).is_empty() && objects("way-back-privileges", &gathered).is_empty());
        gathered.uses.way_back = true;
        assert!(objects("target-strangers-unseen", &gathered).is_empty());
        assert_eq!(objects("target-process", &gathered), ["PROCESS"]);
        // The table's database, and dbmove's own.
        assert_eq!(objects("way-back-privileges", &gathered).len(), 2);
        grant(&mut gathered.source.privileges, "s", &["INSERT", "UPDATE", "DELETE", "ALTER", "TRIGGER"]);
        grant(&mut gathered.source.privileges, "\\_dbmove", &["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP"]);
        assert!(objects("way-back-privileges", &gathered).is_empty());
    }

    #[test]
    fn a_canarys_schema_has_to_be_made_marked_and_dropped_on_both_sides() {
        let mut gathered = gathered();
        assert!(objects("canary-privileges", &gathered).is_empty());
        gathered.uses.canaries.insert("beats".to_owned());
        assert_eq!(objects("canary-privileges", &gathered), ["beats", "beats"]);
        grant(&mut gathered.target.privileges, "*", &["ALL PRIVILEGES"]);
        grant(&mut gathered.source.privileges, "beats", &["CREATE", "INSERT", "DELETE", "DROP"]);
        let found = canary_privileges(&gathered);
        assert_eq!(found.len(), 1);
        assert!(found[0].found.starts_with("the source's account lacks SELECT on it"), "{found:?}");
    }
}
