//! Accounts that the target refuses, or that work otherwise there.

use std::collections::BTreeSet;

use super::super::super::catalog::facts::like;
use super::super::gather::accounts::AccountRow;
use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "missing-definers",
        level: Level::Error,
        about: "A view, routine, trigger or event whose definer does not exist.",
        why: "It fails when it is used, on the target as on the source, and creating it there needs a privilege that managed targets don't give.",
        looks_at: &[Part::Bodies, Part::Accounts],
        never_accepted: None,
        look: missing_definers,
    },
    Check {
        id: "old-passwords",
        level: Level::Error,
        about: "An account with a password hash of 16 characters.",
        why: "Such a hash is from before 4.1; no target takes it, and whoever uses it can't log in there.",
        looks_at: &[Part::Accounts],
        never_accepted: None,
        look: |gathered| {
            let old = |account: &AccountRow| account.hash_length == 16 && matches!(account.plugin.as_str(), "" | "mysql_old_password");
            let fix = "`SET SESSION old_passwords = 0; SET PASSWORD FOR … = PASSWORD('…')` on the source, or drop the account";
            accounts(gathered, old, "its password's hash has 16 characters", "LENGTH(Password)", fix)
        },
    },
    Check {
        id: "super-accounts",
        level: Level::Warn,
        about: "An account that holds SUPER, other than `root` on the server's own machine.",
        why: "It writes though a server is `read_only`, also on the old source behind the switch, and no managed target gives SUPER to anyone.",
        looks_at: &[Part::Accounts],
        never_accepted: None,
        look: super_accounts,
    },
    Check {
        id: "anonymous-users",
        level: Level::Warn,
        about: "An account without a user name.",
        why: "It takes the place of `user`@`%` for clients from its host, which then fail or see less; managed targets have none.",
        looks_at: &[Part::Accounts],
        never_accepted: None,
        look: |gathered| accounts(gathered, |account| account.user.is_empty(), "its user name is empty", "User", "`DROP USER ''@'…'`"),
    },
    Check {
        id: "wildcard-grants",
        level: Level::Warn,
        about: "A grant on a pattern of database names that means a moved database and others too.",
        why: "It gives what nobody wrote down, and on a target with `partial_revokes` (as on RDS) `%` and `_` are no patterns but characters: the account then has nothing.",
        looks_at: &[Part::Accounts, Part::Catalog],
        never_accepted: None,
        look: wildcard_grants,
    },
];

fn accounts(gathered: &Gathered, wanted: fn(&AccountRow) -> bool, found: &str, column: &str, fix: &str) -> Vec<Found> {
    let accounts = gathered.accounts.iter().filter(|account| wanted(account));
    accounts
        .map(|account| {
            let returned = match column {
                "LENGTH(Password)" => account.hash_length.to_string(),
                _ => format!("'{}'", account.user),
            };
            Found::new(account.name(), found).evidence(format!("SELECT User, Host, {column} FROM mysql.user"), returned).fix(fix)
        })
        .collect()
}

/// `root` on the machine itself is an administrator; one that may come from elsewhere is what a program is left with.
fn super_accounts(gathered: &Gathered) -> Vec<Found> {
    let here = ["localhost", "127.0.0.1", "::1", gathered.source.hostname.as_str()];
    let at_home = |account: &AccountRow| account.user == "root" && here.contains(&account.host.as_str());
    let holds = gathered.accounts.iter().filter(|account| account.super_privilege && !at_home(account));
    holds
        .map(|account| {
            Found::new(account.name(), "it holds SUPER")
                .evidence("SELECT User, Host, Super_priv FROM mysql.user", "Y")
                .fix("`REVOKE SUPER ON *.* FROM …` unless it is dbmove's or an administrator's")
        })
        .collect()
}

/// A `_` that was meant as a character, as in `school_1`, is no finding unless it means another database too.
fn wildcard_grants(gathered: &Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    for grant in &gathered.grants {
        let means: Vec<&str> = gathered.all_databases.iter().map(String::as_str).filter(|name| like(&grant.database, name)).collect();
        let moved = gathered.catalog.databases.iter().any(|database| means.contains(&database.name.as_str()));
        let any = grant.database.replace("\\%", "").contains('%');
        if moved && (any || means.len() > 1) {
            let account = format!("{}@{}", grant.user, grant.host);
            found.push(
                Found::new(&account, format!("its grant on `{}` means {}", grant.database, means.join(", ")))
                    .evidence("SELECT Db, User, Host FROM mysql.db", format!("{}, {account}", grant.database))
                    .fix("grant on each database by name (`\\_` for a `_`), and revoke the pattern"),
            );
        }
    }
    found
}

fn missing_definers(gathered: &Gathered) -> Vec<Found> {
    let known: BTreeSet<String> = gathered.accounts.iter().map(AccountRow::name).collect();
    let missing = gathered.bodies.iter().filter(|body| !body.definer.is_empty() && !known.contains(&body.definer));
    missing
        .map(|body| {
            Found::new(&body.name, format!("{} of the definer `{}`, which is no account", body.kind, body.definer))
                .evidence(format!("{}.DEFINER; SELECT User, Host FROM mysql.user", body.place), &body.definer)
                .fix("create the account, or the object again with a definer that exists; accepted as it is, the object gets dbmove's own account on the target")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::gather::accounts::{AccountRow, DatabaseGrant};
    use super::super::testing::{gathered, objects};
    use crate::mysql::catalog::Database;

    #[test]
    fn root_counts_if_it_may_come_from_elsewhere() {
        let mut gathered = gathered();
        gathered.source.hostname = "db1".to_owned();
        let account = |user: &str, host: &str, super_privilege| AccountRow {
            user: user.to_owned(),
            host: host.to_owned(),
            super_privilege,
            hash_length: 41,
            plugin: String::new(),
        };
        gathered.accounts = vec![
            account("root", "localhost", true),
            account("root", "db1", true),
            account("root", "%", true),
            account("cron", "localhost", true),
            account("app", "%", false),
        ];
        assert_eq!(objects("super-accounts", &gathered), ["root@%", "cron@localhost"]);
    }

    #[test]
    fn a_pattern_counts_if_it_means_more_than_a_name() {
        let mut gathered = gathered();
        gathered.all_databases = ["school_1", "schoolx1", "other"].map(str::to_owned).to_vec();
        let charset = || "latin1".to_owned();
        gathered.catalog.databases = vec![Database { name: "school_1".to_owned(), charset: charset(), collation: charset() }];
        let mut found = |pattern: &str| {
            gathered.grants = vec![DatabaseGrant { database: pattern.to_owned(), user: "app".to_owned(), host: "%".to_owned() }];
            objects("wildcard-grants", &gathered).len()
        };
        assert_eq!((found("school_1"), found(r"school\_1"), found("school%"), found("o%"), found("other")), (1, 0, 1, 0, 0));
    }
}
