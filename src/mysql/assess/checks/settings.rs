//! Settings that differ between the servers, and what the application notices of it.

use super::super::super::catalog::ServerFacts;
use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "sql-mode-drift",
        level: Level::Warn,
        about: "The servers' `sql_mode` differ.",
        why: "What the source accepted (too long texts, zero dates, missing values) may be an error on the target, or the other way round.",
        looks_at: &[Part::SourceSettings, Part::TargetSettings],
        never_accepted: None,
        look: |gathered| sql_mode_drift(&gathered.source, &gathered.target),
    },
    Check {
        id: "only-full-group-by",
        level: Level::Warn,
        about: "The target's `sql_mode` has ONLY_FULL_GROUP_BY, the source's has not.",
        why: "Queries that select columns outside of GROUP BY are refused there.",
        looks_at: &[Part::SourceSettings, Part::TargetSettings],
        never_accepted: None,
        look: |gathered| only_full_group_by(&gathered.source, &gathered.target),
    },
    Check {
        id: "group-by-order",
        level: Level::Info,
        about: "The source sorts by GROUP BY, the target does not.",
        why: "Up to MySQL 5.7 a GROUP BY sorted its result; from 8.0 on only ORDER BY does. Queries of the application are not seen from here.",
        looks_at: &[Part::SourceSettings, Part::TargetSettings],
        never_accepted: None,
        look: |gathered| group_by_order(&gathered.source, &gathered.target),
    },
    Check {
        id: "default-collation",
        level: Level::Warn,
        about: "The servers' default collations differ.",
        why: "Tables keep theirs, but databases and tables made later without one, and comparisons of literals, take the server's.",
        looks_at: &[Part::SourceSettings, Part::TargetSettings],
        never_accepted: None,
        look: |gathered| default_collation(&gathered.source, &gathered.target),
    },
    Check {
        id: "implicit-timestamp-defaults",
        level: Level::Warn,
        about: "TIMESTAMP columns get defaults of their own on the source and not on the target.",
        why: "Existing columns are carried with what the source printed; a TIMESTAMP added later without DEFAULT is NULL on the target, and an inserted NULL stays NULL.",
        looks_at: &[Part::SourceSettings, Part::TargetSettings],
        never_accepted: None,
        look: |gathered| implicit_timestamps(&gathered.source, &gathered.target),
    },
    Check {
        id: "time-zone-system-dst",
        level: Level::Warn,
        about: "The servers' time zones differ.",
        why: "Stored TIMESTAMPs are carried in UTC and are right; what NOW() and reading a TIMESTAMP print is in the server's zone.",
        looks_at: &[Part::SourceSettings, Part::TargetSettings],
        never_accepted: None,
        look: |gathered| time_zone(&gathered.source, &gathered.target),
    },
    Check {
        id: "max-row-vs-packet",
        level: Level::Warn,
        about: "The target takes smaller packets than the source.",
        why: "A row that fits the source's `max_allowed_packet` and not the target's can't be written there.",
        looks_at: &[Part::SourceSettings, Part::TargetSettings],
        never_accepted: None,
        look: |gathered| packet(gathered.source.max_allowed_packet, gathered.target.max_allowed_packet),
    },
    Check {
        id: "app-sessions",
        level: Level::Info,
        about: "Sessions of clients on the source.",
        why: "These are who has to be led to the target at the switch. Clients that connect for a moment only are not seen.",
        looks_at: &[Part::Sessions],
        never_accepted: None,
        look: app_sessions,
    },
];

fn both(name: &str, found: String, source: &str, target: &str) -> Found {
    Found::new(name, found).evidence(format!("SHOW GLOBAL VARIABLES LIKE '{name}' on both"), format!("source: {source}; target: {target}"))
}

fn modes(facts: &ServerFacts) -> Vec<&str> {
    let mut modes: Vec<&str> = facts.sql_mode.split(',').filter(|mode| !mode.is_empty()).collect();
    modes.sort_unstable();
    modes
}

fn sql_mode_drift(source: &ServerFacts, target: &ServerFacts) -> Vec<Found> {
    let (before, after) = (modes(source), modes(target));
    if before == after {
        return Vec::new();
    }
    let only = |these: &[&str], others: &[&str]| {
        let only: Vec<&str> = these.iter().filter(|mode| !others.contains(mode)).copied().collect();
        if only.is_empty() { "nothing".to_owned() } else { only.join(", ") }
    };
    let found = format!("only the source has {}, only the target has {}", only(&before, &after), only(&after, &before));
    let fix = format!("set the target's `sql_mode` to `{}` (parameter group), leaving out what it does not know", source.sql_mode);
    vec![both("sql_mode", found, &source.sql_mode, &target.sql_mode).fix(fix)]
}

fn only_full_group_by(source: &ServerFacts, target: &ServerFacts) -> Vec<Found> {
    let has = |facts: &ServerFacts| modes(facts).contains(&"ONLY_FULL_GROUP_BY");
    if has(source) || !has(target) {
        return Vec::new();
    }
    let found = both("sql_mode", "only the target has ONLY_FULL_GROUP_BY".to_owned(), &source.sql_mode, &target.sql_mode);
    vec![found.fix("take ONLY_FULL_GROUP_BY out of the target's `sql_mode`, or try the application's queries against the rehearsal target")]
}

fn group_by_order(source: &ServerFacts, target: &ServerFacts) -> Vec<Found> {
    let sorts = !source.version.mariadb && !source.version.mysql_from((8, 0, 0));
    if !sorts || !target.version.mysql_from((8, 0, 0)) {
        return Vec::new();
    }
    vec![
        Found::new("GROUP BY", format!("{} sorts by it, {} does not", source.version, target.version))
            .evidence("SELECT VERSION() on both", format!("source: {}; target: {}", source.version, target.version))
            .fix("add ORDER BY where the application relies on the order"),
    ]
}

fn default_collation(source: &ServerFacts, target: &ServerFacts) -> Vec<Found> {
    let of = |facts: &ServerFacts| facts.variables.get("collation_server").cloned().unwrap_or_default().replace("utf8mb3_", "utf8_");
    let (before, after) = (of(source), of(target));
    if before == after {
        return Vec::new();
    }
    let found = both("collation_server", format!("it is `{before}` on the source and `{after}` on the target"), &before, &after);
    vec![found.fix(format!("set `collation_server = {before}` and its `character_set_server` on the target, or always name both"))]
}

fn implicit_timestamps(source: &ServerFacts, target: &ServerFacts) -> Vec<Found> {
    // Where the variable is not known, the server has the old way.
    let explicit = |facts: &ServerFacts| {
        facts.variables.get("explicit_defaults_for_timestamp").is_some_and(|value| matches!(value.as_str(), "ON" | "1"))
    };
    if explicit(source) || !explicit(target) {
        return Vec::new();
    }
    let found = both("explicit_defaults_for_timestamp", "it is on at the target only".to_owned(), "OFF or not known", "ON");
    vec![found.fix("write DEFAULT and NULL or NOT NULL for every new TIMESTAMP column, and don't insert NULL for \"now\"")]
}

fn time_zone(source: &ServerFacts, target: &ServerFacts) -> Vec<Found> {
    let of = |facts: &ServerFacts| if facts.time_zone == "SYSTEM" { facts.system_time_zone.clone() } else { facts.time_zone.clone() };
    let same = |zone: &str| matches!(zone, "UTC" | "+00:00" | "GMT" | "Etc/UTC");
    let (before, after) = (of(source), of(target));
    if before == after || (same(&before) && same(&after)) {
        return Vec::new();
    }
    let found = both("time_zone", format!("the source's is `{before}`, the target's `{after}`"), &before, &after);
    vec![found.fix("set the target's `time_zone` to the source's zone by name (not an offset, if it has summer time)")]
}

fn packet(source: u64, target: u64) -> Vec<Found> {
    if target >= source {
        return Vec::new();
    }
    let found = both(
        "max_allowed_packet",
        format!("the source takes {source} bytes, the target {target}"),
        &source.to_string(),
        &target.to_string(),
    );
    vec![found.fix(format!("set `max_allowed_packet = {source}` on the target"))]
}

fn app_sessions(gathered: &Gathered) -> Vec<Found> {
    let mut users = std::collections::BTreeMap::<&str, usize>::new();
    for session in gathered.sessions.iter().filter(|session| session.user != "system user" && session.user != "event_scheduler") {
        *users.entry(&session.user).or_default() += 1;
    }
    let found = users.into_iter().map(|(user, count)| {
        Found::new(user, format!("{count} sessions of it are open"))
            .evidence("SELECT USER, HOST FROM information_schema.PROCESSLIST", count.to_string())
            .fix("know how it is told of the target's address; `mysql.disconnect` closes what stays")
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::facts;
    use super::*;

    #[test]
    fn each_fires_on_a_difference_and_on_nothing_else() {
        let same =
            facts(&[("sql_mode", "A,B"), ("collation_server", "latin1_swedish_ci"), ("time_zone", "SYSTEM"), ("system_time_zone", "UTC")]);
        let other = facts(&[
            ("sql_mode", "B,ONLY_FULL_GROUP_BY"),
            ("collation_server", "utf8mb4_0900_ai_ci"),
            ("time_zone", "SYSTEM"),
            ("system_time_zone", "CET"),
            ("explicit_defaults_for_timestamp", "ON"),
        ]);
        for look in [sql_mode_drift, only_full_group_by, group_by_order, default_collation, implicit_timestamps, time_zone] {
            assert_eq!(look(&same, &same), []);
        }
        for look in [sql_mode_drift, only_full_group_by, default_collation, implicit_timestamps, time_zone] {
            assert_eq!(look(&same, &other).len(), 1);
        }
        assert_eq!((packet(2, 1).len(), packet(1, 1).len()), (1, 0));
        let mut new = same.clone();
        new.version = crate::mysql::connect::Version::parse("9.7.0");
        assert_eq!((group_by_order(&same, &new).len(), group_by_order(&new, &new).len()), (1, 0));
    }
}
