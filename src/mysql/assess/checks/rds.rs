//! What an RDS instance does not let its master user do, where that stands in the way of this migration.

use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[Check {
    id: "rds-limits",
    level: Level::Warn,
    about: "The target is an RDS instance, and a setting or name does not go with that.",
    why: "There is no SUPER and no `SET GLOBAL` there: settings are made in the parameter group, before the night. Some names are RDS's own.",
    looks_at: &[Part::TargetSettings, Part::Bodies, Part::Accounts],
    never_accepted: None,
    look: rds_limits,
}];

/// Accounts that RDS keeps for itself.
const RESERVED: [&str; 4] = ["rdsadmin", "rdsrepladmin", "rdsproxyadmin", "rds_superuser_role"];

fn rds_limits(gathered: &Gathered) -> Vec<Found> {
    let Some(seen) = &gathered.rds else { return Vec::new() };
    let of = |name: &str| gathered.target.variables.get(name).cloned().unwrap_or_default();
    let on = |name: &str| matches!(of(name).to_ascii_uppercase().as_str(), "ON" | "1");
    let mut found = Vec::new();
    let mut setting = |name: &str, what: String, fix: &str| {
        let returned = format!("{}; {seen}", of(name));
        found.push(Found::new(name, what).evidence(format!("SHOW GLOBAL VARIABLES LIKE '{name}' on the target"), returned).fix(fix));
    };
    let count = |kinds: &[&str]| gathered.bodies.iter().filter(|body| kinds.contains(&body.kind.as_str())).count();
    let logged = gathered.target.log_bin;
    let (made, events) = (count(&["function", "trigger"]), count(&["event"]));
    if logged && made > 0 && !on("log_bin_trust_function_creators") {
        setting(
            "log_bin_trust_function_creators",
            format!("{made} functions and triggers can't be created without SUPER while the target logs"),
            "set `log_bin_trust_function_creators = 1` in the target's parameter group",
        );
    }
    if events > 0 && gathered.source.event_scheduler && !gathered.target.event_scheduler {
        setting(
            "event_scheduler",
            format!("{events} events will not run: the scheduler is off, and can't be turned on by `SET GLOBAL`"),
            "set `event_scheduler = ON` in the target's parameter group, for after the switch",
        );
    }
    if logged && of("sync_binlog") == "1" && of("innodb_flush_log_at_trx_commit") == "1" {
        setting(
            "sync_binlog",
            "the load is slowed by automated backups (the binary log) and by waiting for the disk at every commit".to_owned(),
            "for the load only: no Multi-AZ, backup retention 0, `innodb_flush_log_at_trx_commit = 2`; set them right before the switch",
        );
    }
    for account in gathered.accounts.iter().filter(|account| RESERVED.contains(&account.user.as_str())) {
        found.push(
            Found::new(account.name(), "its name is one that RDS keeps for itself")
                .evidence("SELECT User, Host FROM mysql.user", format!("{}; {seen}", account.name()))
                .fix("give the application another account"),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::super::gather::Body;
    use super::super::super::gather::accounts::AccountRow;
    use super::super::testing::{facts, gathered, objects};

    #[test]
    fn only_on_rds_and_only_what_matters() {
        let mut gathered = gathered();
        let body = |kind: &str| Body {
            kind: kind.to_owned(),
            name: "s.x".to_owned(),
            database: "s".to_owned(),
            definer: String::new(),
            sql_mode: String::new(),
            text: String::new(),
            place: "x",
        };
        gathered.bodies = vec![body("function"), body("event")];
        gathered.accounts = vec![AccountRow {
            user: "rdsadmin".to_owned(),
            host: "%".to_owned(),
            hash_length: 41,
            plugin: String::new(),
            super_privilege: false,
        }];
        gathered.source = facts(&[("event_scheduler", "ON")]);
        gathered.target = facts(&[("log_bin", "ON"), ("sync_binlog", "1"), ("innodb_flush_log_at_trx_commit", "1")]);
        assert!(objects("rds-limits", &gathered).is_empty());
        gathered.rds = Some("procedure mysql.rds_kill".to_owned());
        assert_eq!(objects("rds-limits", &gathered), ["log_bin_trust_function_creators", "event_scheduler", "sync_binlog", "rdsadmin@%"]);
        gathered.bodies.clear();
        gathered.accounts.clear();
        gathered.target = facts(&[("log_bin", "OFF")]);
        assert!(objects("rds-limits", &gathered).is_empty());
    }
}
