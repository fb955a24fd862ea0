//! Whether there is a binary log to follow, with whole rows in it, for long enough.

use super::super::super::catalog::{Database, ServerFacts};
use super::{Check, Found, Gathered, Level, Part};

/// Why none of it can be accepted.
const NEEDED: &str = "without it the target can't be kept equal while the source is written";

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "log-bin",
        level: Level::Error,
        about: "The source writes no binary log.",
        why: "Changes made while the copy runs are read from the binary log; without one they would be lost.",
        looks_at: &[Part::SourceSettings],
        never_accepted: Some(NEEDED),
        look: |gathered| log_bin(&gathered.source),
    },
    Check {
        id: "binlog-format",
        level: Level::Error,
        about: "The binary log holds statements instead of rows.",
        why: "A statement may do something else on the target; only rows are exact.",
        looks_at: &[Part::SourceSettings],
        never_accepted: Some(NEEDED),
        look: |gathered| binlog_format(&gathered.source),
    },
    Check {
        id: "binlog-row-image",
        level: Level::Error,
        about: "Rows in the binary log are not complete.",
        why: "With `MINIMAL` or `NOBLOB` the log holds only some columns of a changed row.",
        looks_at: &[Part::SourceSettings],
        never_accepted: Some(NEEDED),
        look: |gathered| binlog_row_image(&gathered.source),
    },
    Check {
        id: "binlog-row-value-options",
        level: Level::Error,
        about: "Documents in the binary log are not complete.",
        why: "With `PARTIAL_JSON` the log holds only the changed parts of a JSON document.",
        looks_at: &[Part::SourceSettings],
        never_accepted: Some(NEEDED),
        look: |gathered| binlog_row_value_options(&gathered.source),
    },
    Check {
        id: "binlog-filters",
        level: Level::Error,
        about: "The binary log leaves out a database that moves.",
        why: "With `binlog-ignore-db` or `binlog-do-db` in the server's configuration rows of some databases are not logged: what changes in them while the copy runs would be lost, and no one would notice.",
        looks_at: &[Part::SourceSettings, Part::Catalog],
        never_accepted: Some(NEEDED),
        look: binlog_filters,
    },
    Check {
        id: "server-id",
        level: Level::Error,
        about: "The source has no server id.",
        why: "A server whose `server_id` is 0 refuses to send its log.",
        looks_at: &[Part::SourceSettings],
        never_accepted: Some(NEEDED),
        look: |gathered| server_id(&gathered.source),
    },
    Check {
        id: "binlog-retention",
        level: Level::Warn,
        about: "Binary logs are kept for less than a day.",
        why: "A log that is purged before it was read means starting over.",
        looks_at: &[Part::SourceSettings],
        never_accepted: None,
        look: |gathered| binlog_retention(&gathered.source),
    },
    Check {
        id: "log-slave-updates",
        level: Level::Error,
        about: "The source is itself a replica and does not log what it replicates.",
        why: "Changes that come from its own source would never be seen.",
        looks_at: &[Part::SourceSettings],
        never_accepted: None,
        look: log_slave_updates,
    },
];

/// A setting as it was read.
fn setting(name: &str, found: String, returned: &str) -> Found {
    Found::new(name, found).evidence(format!("SHOW GLOBAL VARIABLES LIKE '{name}'"), returned)
}

/// A setting that the server has, with another value than the only one that will do.
fn other_than(wanted: &str, name: &str, value: Option<&str>, so: &str, fix: &str) -> Vec<Found> {
    let wrong = value.filter(|value| !value.eq_ignore_ascii_case(wanted));
    wrong.map(|value| setting(name, format!("`{name}` is `{value}`: {so}"), value).fix(fix)).into_iter().collect()
}

fn log_bin(facts: &ServerFacts) -> Vec<Found> {
    if facts.log_bin {
        return Vec::new();
    }
    let found = setting("log_bin", "the source writes no binary log: there is nothing to follow".to_owned(), "OFF");
    vec![found.fix("set `log-bin` and `server-id` and restart the source")]
}

fn binlog_format(facts: &ServerFacts) -> Vec<Found> {
    let fix = "`SET GLOBAL binlog_format = 'ROW'`, put it into the configuration, and let every application reconnect: a session keeps its format until then";
    other_than("ROW", "binlog_format", facts.binlog_format.as_deref(), "changed rows are not in the log", fix)
}

fn binlog_row_image(facts: &ServerFacts) -> Vec<Found> {
    let fix = "`SET GLOBAL binlog_row_image = 'FULL'`, and let every application reconnect";
    other_than("FULL", "binlog_row_image", facts.binlog_row_image.as_deref(), "rows are not complete in the log", fix)
}

fn binlog_row_value_options(facts: &ServerFacts) -> Vec<Found> {
    let value = facts.variables.get("binlog_row_value_options").map(String::as_str);
    let fix = "`SET GLOBAL binlog_row_value_options = ''`, and let every application reconnect";
    other_than("", "binlog_row_value_options", value, "documents are not complete in the log", fix)
}

fn binlog_filters(gathered: &Gathered) -> Vec<Found> {
    let left_out = |database: &Database| {
        let why = gathered.log_filters.leaves_out(&database.name)?;
        let found = Found::new(&database.name, format!("what is written to it is not in the source's log: {why}"))
            .evidence("SHOW MASTER STATUS", why)
            .fix("take the filter out of the source's configuration and restart it");
        Some(found)
    };
    gathered.catalog.databases.iter().filter_map(left_out).collect()
}

fn server_id(facts: &ServerFacts) -> Vec<Found> {
    if !facts.log_bin || facts.server_id != 0 {
        return Vec::new();
    }
    let found = setting("server_id", "`server_id` is 0: the source refuses to be followed".to_owned(), "0");
    vec![found.fix("`SET GLOBAL server_id = 1` (any number that no other server has)")]
}

fn binlog_retention(facts: &ServerFacts) -> Vec<Found> {
    let kept = facts.binlog_expire_seconds;
    if kept == 0 || kept >= 86_400 {
        return Vec::new();
    }
    let found = setting("expire_logs_days", format!("binary logs are kept for {kept} s only"), &format!("{kept} s"));
    vec![found.fix("keep them for at least as long as the copy takes and an interruption may last")]
}

fn log_slave_updates(gathered: &Gathered) -> Vec<Found> {
    let Some(channel) = gathered.replicates_from.first() else { return Vec::new() };
    if gathered.source.log_slave_updates {
        return Vec::new();
    }
    let (source, ran) = (&channel.from, if channel.applies { "yes" } else { "no" });
    let found = format!("the source replicates from `{source}` (SQL thread running: {ran}), and `log_slave_updates` is off");
    vec![
        Found::new("log_slave_updates", found)
            .evidence("SHOW SLAVE STATUS; SHOW GLOBAL VARIABLES LIKE 'log_slave_updates'", format!("{source}; OFF"))
            .fix("set `log-slave-updates` in its configuration and restart it, or move from its own source; or stop replicating for good and `RESET SLAVE ALL`"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, gathered, objects};
    use super::*;
    use crate::mysql::status::LogFilters;

    #[test]
    fn a_database_that_is_not_logged_is_found() {
        let mut gathered = gathered();
        let charset = || "latin1".to_owned();
        gathered.catalog.databases = vec![Database { name: "school".to_owned(), charset: charset(), collation: charset() }];
        assert_eq!(objects("binlog-filters", &gathered), Vec::<String>::new());
        gathered.log_filters = LogFilters { only: Vec::new(), ignored: vec!["school".to_owned()] };
        assert_eq!(objects("binlog-filters", &gathered), ["school"]);
        gathered.log_filters = LogFilters { only: vec!["school".to_owned()], ignored: Vec::new() };
        assert_eq!(objects("binlog-filters", &gathered), Vec::<String>::new());
    }

    #[test]
    fn settings_fire_and_are_quiet() {
        let good = facts(&[
            ("log_bin", "ON"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("binlog_row_value_options", ""),
            ("server_id", "7"),
            ("expire_logs_days", "7"),
        ]);
        for look in [log_bin, binlog_format, binlog_row_image, binlog_row_value_options, server_id, binlog_retention] {
            assert_eq!(look(&good), [], "fires on a good server");
        }
        let object = |found: Vec<Found>| found[0].object.clone();
        assert_eq!(object(log_bin(&facts(&[("log_bin", "OFF")]))), "log_bin");
        assert_eq!(object(binlog_format(&facts(&[("binlog_format", "MIXED")]))), "binlog_format");
        assert_eq!(object(binlog_row_image(&facts(&[("binlog_row_image", "MINIMAL")]))), "binlog_row_image");
        assert_eq!(object(binlog_row_value_options(&facts(&[("binlog_row_value_options", "PARTIAL_JSON")]))), "binlog_row_value_options");
        assert_eq!(object(server_id(&facts(&[("log_bin", "ON"), ("server_id", "0")]))), "server_id");
        assert_eq!(object(binlog_retention(&facts(&[("binlog_expire_logs_seconds", "3600")]))), "expire_logs_days");
    }
}
