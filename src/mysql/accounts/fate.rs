//! What becomes of each account: it moves, with every change named, or stays, with the reason.
//!
//! | rule | when | what becomes of it |
//! | --- | --- | --- |
//! | `not-granted` | our account on the target may not grant it (RDS: SUPER, FILE, SHUTDOWN …), or the target does not know it | left out |
//! | `super` | SUPER can't be granted, but parts of it can | the parts: SET_ANY_DEFINER, CONNECTION_ADMIN … |
//! | `renamed` | the other family has it under another name | that name |
//! | `stays` | what it is granted on does not move, or is gone | left out |
//! | `pattern` | `%` and `_` in a database's name are mere characters on the target (`partial_revokes`, as on RDS) | each moved database by name |
//! | `proxy` | our account may not let others act in another's name | left out |
//! | `role` | it was given a role | left out: roles do not move |
//! | `limit` | a limit that only MariaDB knows | left out |
//! | `password` | the target does not take what the source stores | locked, with a password nobody knows; or as the playbook gives it |
//! | `host` | it is for clients on the server's own machine | as it is: they come from elsewhere now |
//!
//! A privilege on everything (`*.*`) stays one on everything: which databases the target has beside those that move is its owner's to know.

use std::collections::BTreeSet;

use secrecy::{ExposeSecret, SecretString};

use super::model::{Account, AccountName, Accounts, GRANT_OPTION, Grants, Limits, PROXY, Place, Requires, list};
use super::read::{passed, passed_on, stands_alone};
use super::terms::Terms;
use crate::mysql::names::TableName;
use crate::playbook::model::Template;

/// Accounts of the servers themselves and of who runs them.
const OF_THE_SERVER: [&str; 11] = [
    "root",
    "mysql.sys",
    "mysql.session",
    "mysql.infoschema",
    "mariadb.sys",
    "debian-sys-maint",
    "rdsadmin",
    "rdsrepladmin",
    "rdsproxyadmin",
    "rds_superuser_role",
    "PUBLIC",
];

/// Privileges on everything that are about the server and not about what it holds.
const ABOUT_DATA: [&str; 18] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "REFERENCES",
    "INDEX",
    "ALTER",
    "CREATE TEMPORARY TABLES",
    "LOCK TABLES",
    "EXECUTE",
    "CREATE VIEW",
    "SHOW VIEW",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "EVENT",
    "TRIGGER",
];

/// What SUPER was divided into, where the target gives no SUPER: by MySQL's and by MariaDB's names.
const PARTS_OF_SUPER: [&str; 11] = [
    "SET_ANY_DEFINER",
    "SET_USER_ID",
    "CONNECTION_ADMIN",
    "SYSTEM_VARIABLES_ADMIN",
    "SESSION_VARIABLES_ADMIN",
    "BINLOG_ADMIN",
    "REPLICATION_SLAVE_ADMIN",
    "SET USER",
    "CONNECTION ADMIN",
    "BINLOG ADMIN",
    "REPLICATION SLAVE ADMIN",
];

/// One privilege by the names of the families; the first that the target knows is meant.
const RENAMED: [(&str, &[&str]); 8] = [
    ("REPLICATION CLIENT", &["BINLOG MONITOR"]),
    ("BINLOG MONITOR", &["REPLICATION CLIENT"]),
    ("SLAVE MONITOR", &["REPLICATION CLIENT"]),
    ("SET USER", &["SET_ANY_DEFINER", "SET_USER_ID"]),
    ("CONNECTION ADMIN", &["CONNECTION_ADMIN"]),
    ("BINLOG ADMIN", &["BINLOG_ADMIN"]),
    ("REPLICATION SLAVE ADMIN", &["REPLICATION_SLAVE_ADMIN"]),
    ("SET_USER_ID", &["SET_ANY_DEFINER"]),
];

/// Plugins whose stored form one server takes from another.
const CARRIED: [&str; 4] = ["mysql_native_password", "sha256_password", "caching_sha2_password", "ed25519"];

/// Users of MySQL may be so long, in characters.
const LONGEST_USER: usize = 32;

/// What becomes of an account.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It is created on the target.
    Moves(Box<Moving>),
    /// It is not.
    Stays {
        /// Why.
        why: String,
        /// Clients of what moves come in by it, as far as its privileges tell.
        client: bool,
    },
}

impl Fate {
    /// Whether clients of what moves come in by it.
    #[must_use]
    pub fn is_client(&self) -> bool {
        matches!(self, Fate::Moves(_) | Fate::Stays { client: true, .. })
    }
}

/// How the account on the target proves who it is.
#[derive(Clone, Debug)]
pub enum Password {
    /// By what the source stores, in hexadecimal digits, with this plugin.
    Carried {
        /// The plugin.
        plugin: String,
        /// What it compares with.
        stored: SecretString,
    },
    /// By a password that the playbook refers to.
    Given(Template),
    /// Not at all: the account is locked until it gets a new password.
    Unknown {
        /// Why.
        why: String,
    },
}

/// An account as it has to be on the target.
#[derive(Clone, Debug)]
pub struct Moving {
    /// Its name.
    pub name: AccountName,
    /// How it proves who it is.
    pub password: Password,
    /// How its connections have to be protected.
    pub requires: Requires,
    /// How much it may use.
    pub limits: Limits,
    /// Nobody comes in by it, as on the source.
    pub locked: bool,
    /// Its password has to be changed, as on the source.
    pub expired: bool,
    /// What it may do.
    pub grants: Grants,
    /// What is not as on the source: a rule's name, what was, what becomes of it.
    pub changes: Vec<String>,
}

impl Moving {
    /// Why people have to give it a password before anybody comes in, if so.
    #[must_use]
    pub fn needs_password(&self) -> Option<&str> {
        match &self.password {
            Password::Unknown { why } => Some(why),
            Password::Carried { .. } | Password::Given(_) => None,
        }
    }
}

/// What becomes of every account of the source, in the order of names.
#[must_use]
pub fn all(source: &Accounts, terms: &Terms) -> Vec<(AccountName, Fate)> {
    let mut fates: Vec<(AccountName, Fate)> = source.accounts.values().map(|account| (account.name.clone(), of(account, terms))).collect();
    // To act in the name of an account that is not there means nothing.
    let moving: BTreeSet<AccountName> =
        fates.iter().filter(|(_, fate)| matches!(fate, Fate::Moves(_))).map(|(name, _)| name.clone()).collect();
    for (_, fate) in &mut fates {
        let Fate::Moves(account) = fate else { continue };
        let alone: Vec<Place> =
            account.grants.keys().filter(|place| matches!(place, Place::Proxy(of) if !moving.contains(of))).cloned().collect();
        for place in alone {
            account.grants.remove(&place);
            account.changes.push(change("proxy", format!("{PROXY} on {place}"), "left out: that account does not move"));
        }
    }
    fates
}

fn change(rule: &str, before: impl std::fmt::Display, after: impl std::fmt::Display) -> String {
    format!("{rule}: {before} → {after}")
}

/// Whether the account may do something with what moves, or moved objects run in its name.
fn concerns(account: &Account, terms: &Terms) -> bool {
    terms.definers.contains(&account.name.to_string())
        || account.grants.iter().any(|(place, granted)| match place {
            Place::Server => granted.iter().any(|privilege| ABOUT_DATA.contains(&privilege.as_str())),
            Place::Database(pattern) => !terms.meant(pattern).is_empty(),
            Place::Table(..) | Place::Column(..) | Place::Procedure(..) | Place::Function(..) => stays(place, terms).is_none(),
            Place::Proxy(_) => false,
        })
}

/// Why a grant on a single object does not move; `None` if it does.
fn stays(place: &Place, terms: &Terms) -> Option<&'static str> {
    const ELSEWHERE: &str = "left out: it does not move";
    const GONE: &str = "left out: there is no such column any more";
    match place {
        Place::Table(database, name) => {
            let name = TableName::new(database, name);
            (!terms.tables.contains_key(&name) && !terms.views.contains(&name)).then_some(ELSEWHERE)
        }
        Place::Column(database, table, column) => {
            let name = TableName::new(database, table);
            match terms.tables.get(&name) {
                // Names of columns have no case.
                Some(columns) => (!columns.iter().any(|there| there.to_lowercase() == column.to_lowercase())).then_some(GONE),
                None => (!terms.views.contains(&name)).then_some(ELSEWHERE),
            }
        }
        Place::Procedure(database, name) => (!has(&terms.procedures, database, name)).then_some(ELSEWHERE),
        Place::Function(database, name) => (!has(&terms.functions, database, name)).then_some(ELSEWHERE),
        Place::Server | Place::Database(_) | Place::Proxy(_) => None,
    }
}

/// Names of routines have no case, and `procs_priv` keeps them in lower case.
fn has(names: &BTreeSet<TableName>, database: &str, name: &str) -> bool {
    names.iter().any(|there| there.database == database && there.table.to_lowercase() == name.to_lowercase())
}

fn of(account: &Account, terms: &Terms) -> Fate {
    let name = &account.name;
    let stays = |why: &str, client: bool| Fate::Stays { why: why.to_owned(), client };
    if account.role {
        return stays("it is a role, and roles do not move", concerns(account, terms));
    }
    if OF_THE_SERVER.contains(&name.user.as_str()) {
        return stays("it is of the server itself, or of who runs it: the target has its own", false);
    }
    if terms.own.contains(&name.user) {
        return stays("dbmove itself connects as this user", false);
    }
    if !concerns(account, terms) {
        let about: Vec<String> = account.grants.get(&Place::Server).into_iter().flatten().cloned().collect();
        return match about.is_empty() {
            true => stays("it has no privilege on what moves", false),
            false => stays(&format!("it has no privilege on what moves: {} is about the server", list(&about)), false),
        };
    }
    if name.user.is_empty() {
        return stays("it is anonymous: anybody could come in by it, and managed targets have none", true);
    }
    if !terms.version.mariadb && name.user.chars().count() > LONGEST_USER {
        return stays("its name is longer than the 32 characters that the target takes", true);
    }
    let mut changes = Vec::new();
    let grants = grants(account, terms, &mut changes);
    for role in &account.roles {
        changes.push(change("role", format!("the role {role}"), "left out: roles do not move; grant what it gives to the account itself"));
    }
    let mut limits = account.limits.clone();
    if !limits.statement_seconds.is_empty() && limits.statement_seconds != "0" && !terms.version.mariadb {
        changes.push(change("limit", format!("MAX_STATEMENT_TIME {}", limits.statement_seconds), "left out"));
        "0".clone_into(&mut limits.statement_seconds);
    }
    if matches!(name.host.as_str(), "localhost" | "127.0.0.1" | "::1") {
        changes.push(change("host", "clients on the source's own machine", "the same host: on the target they may come from elsewhere"));
    }
    let password = password(account, terms);
    match &password {
        Password::Unknown { why } => changes.push(change("password", why, "locked, with a random password that nobody knows")),
        Password::Given(_) => changes.push(change("password", "as on the source", "as the playbook gives it")),
        Password::Carried { .. } => {}
    }
    Fate::Moves(Box::new(Moving {
        name: name.clone(),
        expired: account.expired && matches!(password, Password::Carried { .. }),
        password,
        requires: account.requires.clone(),
        limits,
        locked: account.locked,
        grants,
        changes,
    }))
}

fn password(account: &Account, terms: &Terms) -> Password {
    if let Some(given) = terms.passwords.get(&account.name.to_string()) {
        return Password::Given(given.clone());
    }
    let credential = &account.credential;
    let stored = hex::decode(credential.stored.expose_secret()).map(SecretBytes).unwrap_or(SecretBytes(Vec::new()));
    let unknown = |why: String| Password::Unknown { why };
    let native = matches!(credential.plugin.as_str(), "" | "mysql_native_password");
    let plugin = if native { "mysql_native_password" } else { credential.plugin.as_str() };
    if credential.or_others {
        return unknown("it has several ways in on the source".to_owned());
    }
    if native || plugin == "mysql_old_password" {
        if stored.0.is_empty() {
            return unknown("it has no password on the source".to_owned());
        }
        if stored.0.len() == 16 {
            return unknown("its password's hash is of before 4.1 and has 16 characters".to_owned());
        }
        let is_hash = stored.0.len() == 41 && stored.0[0] == b'*' && stored.0[1..].iter().all(u8::is_ascii_hexdigit);
        if !is_hash {
            return unknown("what the source stores is the hash of no password: nobody comes in by it there".to_owned());
        }
    }
    if !CARRIED.contains(&plugin) || stored.0.is_empty() {
        return unknown(format!("on the source the plugin `{plugin}` judges who it is"));
    }
    if !terms.plugins.contains(plugin) {
        return unknown(format!("the target has no `{plugin}`, so it does not take the source's hash"));
    }
    Password::Carried { plugin: plugin.to_owned(), stored: credential.stored.clone() }
}

/// Overwritten when it is not needed any more.
struct SecretBytes(Vec<u8>);

impl Drop for SecretBytes {
    fn drop(&mut self) {
        secrecy::zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// What it may do on the target; what is not as it was is added to the changes.
fn grants(account: &Account, terms: &Terms, changes: &mut Vec<String>) -> Grants {
    let mut grants = Grants::new();
    for (place, granted) in &account.grants {
        if let Some(why) = stays(place, terms) {
            changes.push(change("stays", format!("{} on {place}", list(granted)), why));
            continue;
        }
        let places = match place {
            Place::Database(pattern) => {
                let meant = terms.meant(pattern);
                if meant.is_empty() {
                    changes.push(change("stays", format!("{} on {place}", list(granted)), "left out: it means no database that moves"));
                    continue;
                }
                if terms.literal_names && !meant.iter().all(|name| *name == pattern) {
                    let named: Vec<Place> = meant.iter().map(|name| Place::Database((*name).clone())).collect();
                    let shown = named.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    changes.push(change("pattern", format!("{} on {place}", list(granted)), format!("on {shown}")));
                    named
                } else {
                    vec![place.clone()]
                }
            }
            Place::Proxy(_) => {
                if terms.proxies {
                    grants.insert(place.clone(), granted.clone());
                } else {
                    let why = "left out: our account on the target may not grant it";
                    changes.push(change("proxy", format!("{} on {place}", list(granted)), why));
                }
                continue;
            }
            place => vec![place.clone()],
        };
        let mapped = privileges(granted, place, terms, changes);
        for place in places {
            if !mapped.is_empty() {
                grants.entry(place).or_default().extend(mapped.iter().cloned());
            }
        }
    }
    grants
}

/// Privileges at a place, as the target has them.
fn privileges(granted: &BTreeSet<String>, place: &Place, terms: &Terms, changes: &mut Vec<String>) -> BTreeSet<String> {
    let (mut mapped, mut new) = (BTreeSet::new(), BTreeSet::new());
    let (mut unknown, mut refused) = (Vec::new(), Vec::new());
    for privilege in granted {
        let possible = |name: &str| terms.known.contains(name) && terms.may_grant(name, place);
        if let Some(plain) = passed(privilege) {
            // If it can't be granted at all, that is said of the privilege itself.
            if possible(plain) {
                mapped.insert(privilege.clone());
            }
            continue;
        }
        if possible(privilege) {
            mapped.insert(privilege.clone());
            continue;
        }
        if privilege == "SUPER" {
            let parts: BTreeSet<String> = PARTS_OF_SUPER.iter().filter(|part| possible(part)).map(|part| (*part).to_owned()).collect();
            if !parts.is_empty() {
                changes.push(change("super", format!("SUPER on {place}"), list(&parts)));
                new.extend(parts);
                continue;
            }
        }
        let other = RENAMED.iter().filter(|(name, _)| name == privilege).flat_map(|(_, others)| others.iter()).find(|name| possible(name));
        match other {
            Some(other) => {
                if !terms.known.contains(privilege) {
                    changes.push(change("renamed", format!("{privilege} on {place}"), other));
                }
                new.insert((*other).to_owned());
            }
            None if terms.known.contains(privilege) => refused.push(privilege.clone()),
            None => unknown.push(privilege.clone()),
        }
    }
    if !refused.is_empty() {
        let before = format!("{} on {place}", list(&refused));
        changes.push(change("not-granted", before, "left out: our account on the target may not grant it"));
    }
    if !unknown.is_empty() {
        changes.push(change("not-granted", format!("{} on {place}", list(&unknown)), "left out: the target does not know it"));
    }
    // What came from a privilege that could be passed on can be, too.
    if mapped.contains(GRANT_OPTION) {
        mapped.extend(new.iter().filter(|privilege| stands_alone(privilege)).map(|privilege| passed_on(privilege)));
    }
    mapped.extend(new);
    mapped
}

#[cfg(test)]
mod tests {
    use super::super::model::Credential;
    use super::*;
    use crate::mysql::connect::Version;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// A target that knows and lets us grant these, and to which a database `school` with a table `t (a)` moves.
    fn terms(version: &str, granted: &[&str]) -> Terms {
        let mut terms = Terms { version: Version::parse(version), known: set(granted), ..Terms::default() };
        terms.known.extend(set(&["FILE", "SUPER"]));
        terms.privileges.global = set(granted);
        terms.databases = set(&["school", "school_1"]);
        terms.tables.insert(TableName::new("school", "t"), set(&["a"]));
        terms.own = set(&["dbmove", "admin"]);
        terms
    }

    fn account(user: &str, plugin: &str, stored: &str, grants: &[(Place, &[&str])]) -> Account {
        Account {
            name: AccountName { user: user.to_owned(), host: "%".to_owned() },
            credential: Credential { plugin: plugin.to_owned(), stored: hex::encode(stored).into(), or_others: false },
            requires: Requires::Nothing,
            limits: Limits::default(),
            locked: false,
            expired: false,
            role: false,
            roles: BTreeSet::new(),
            grants: grants.iter().map(|(place, words)| (place.clone(), set(words))).collect(),
        }
    }

    fn moves(account: &Account, terms: &Terms) -> Moving {
        match of(account, terms) {
            Fate::Moves(moving) => *moving,
            Fate::Stays { why, .. } => panic!("it stays: {why}"),
        }
    }

    const HASH: &str = "*16863C23B2E91537AEAEDDE9D1B40DA2A975C5DC";
    const NATIVE: &str = "mysql_native_password";

    fn school(words: &'static [&'static str]) -> (Place, &'static [&'static str]) {
        (Place::Database("school".to_owned()), words)
    }

    #[test]
    fn who_stays_and_why() {
        let terms = terms("9.7.0", &["SELECT", GRANT_OPTION]);
        for (user, grants, expected, is_client) in [
            ("root", vec![(Place::Server, &["SELECT"][..])], "of the server itself", false),
            ("rdsadmin", vec![school(&["SELECT"])], "of the server itself", false),
            ("admin", vec![school(&["SELECT"])], "dbmove itself", false),
            ("", vec![school(&["SELECT"])], "anonymous", true),
            ("monitor", vec![(Place::Server, &["PROCESS"][..])], "PROCESS is about the server", false),
            ("other", vec![(Place::Database("other".to_owned()), &["SELECT"][..])], "no privilege on what moves", false),
            ("other", vec![(Place::Table("school".to_owned(), "u".to_owned()), &["SELECT"][..])], "no privilege on what moves", false),
            ("a-name-of-thirty-three-characters", vec![school(&["SELECT"])], "longer than the 32", true),
        ] {
            match of(&account(user, "", HASH, &grants), &terms) {
                Fate::Stays { why, client } => assert!(why.contains(expected) && client == is_client, "{user}: {why}, {client}"),
                Fate::Moves(_) => panic!("`{user}` moves"),
            }
        }
        let mut owner = account("owner", "", HASH, &[]);
        assert!(matches!(of(&owner, &terms), Fate::Stays { .. }));
        let mut named = terms.clone();
        named.definers = set(&["owner@%"]);
        assert!(matches!(of(&owner, &named), Fate::Moves(_)), "objects belong to it");
        owner.role = true;
        assert!(matches!(of(&owner, &named), Fate::Stays { .. }));
    }

    #[test]
    fn a_password_is_carried_only_if_the_target_takes_it() {
        let mut terms = terms("8.4.0", &["SELECT", GRANT_OPTION]);
        terms.plugins = set(&["caching_sha2_password", NATIVE]);
        let password = |plugin: &str, stored: &str, terms: &Terms| match password(&account("a", plugin, stored, &[]), terms) {
            Password::Carried { plugin, .. } => format!("carried by {plugin}"),
            Password::Given(_) => "given".to_owned(),
            Password::Unknown { why } => why,
        };
        assert_eq!(password("", HASH, &terms), format!("carried by {NATIVE}"));
        assert_eq!(password(NATIVE, HASH, &terms), format!("carried by {NATIVE}"));
        assert!(password("", "", &terms).contains("no password"));
        assert!(password("", "606718316665bfa2", &terms).contains("16 characters"));
        assert!(password("mysql_old_password", "606718316665bfa2", &terms).contains("16 characters"));
        assert!(password("", "*THISISNOTAVALIDPASSWORDTHATCANBEUSEDHERE", &terms).contains("of no password"));
        assert!(password("auth_socket", "", &terms).contains("`auth_socket`"));
        assert!(password("sha256_password", "$5$x", &terms).contains("the target has no `sha256_password`"));
        terms.plugins.remove(NATIVE);
        assert!(password("", HASH, &terms).contains("the target has no `mysql_native_password`"));
        terms.passwords.insert("a@%".to_owned(), Template("${env:X}".to_owned()));
        assert_eq!(password("", HASH, &terms), "given");
    }

    #[test]
    fn what_can_not_be_granted_is_named() {
        let terms = terms("9.7.0", &["SELECT", "PROCESS", "SET_ANY_DEFINER", GRANT_OPTION]);
        let moving =
            moves(&account("a", "", HASH, &[(Place::Server, &["SELECT", "FILE", "SUPER", "DELETE HISTORY", GRANT_OPTION])]), &terms);
        assert_eq!(moving.grants[&Place::Server], set(&["SELECT", GRANT_OPTION, "SET_ANY_DEFINER", "SET_ANY_DEFINER (GRANT OPTION)"]));
        let said = moving.changes.join("\n");
        for expected in [
            "not-granted: FILE on *.* → left out: our account on the target may not grant it",
            "not-granted: DELETE HISTORY on *.* → left out: the target does not know it",
            "super: SUPER on *.* → SET_ANY_DEFINER",
        ] {
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn one_privilege_of_two_names() {
        let mysql = terms("9.7.0", &["SELECT", "REPLICATION CLIENT", GRANT_OPTION]);
        let moving = moves(&account("a", "", HASH, &[(Place::Server, &["SELECT", "BINLOG MONITOR"])]), &mysql);
        assert_eq!(moving.grants[&Place::Server], set(&["SELECT", "REPLICATION CLIENT"]));
        assert!(
            moving.changes.iter().any(|change| change == "renamed: BINLOG MONITOR on *.* → REPLICATION CLIENT"),
            "{:?}",
            moving.changes
        );
        let mariadb = terms("10.11.6-MariaDB", &["SELECT", "BINLOG MONITOR", GRANT_OPTION]);
        let moving = moves(&account("a", "", HASH, &[(Place::Server, &["SELECT", "REPLICATION CLIENT"])]), &mariadb);
        assert_eq!(moving.grants[&Place::Server], set(&["SELECT", "BINLOG MONITOR"]));
    }

    #[test]
    fn a_pattern_stays_one_unless_it_means_nothing_there() {
        let mut terms = terms("9.7.0", &["SELECT", GRANT_OPTION]);
        let pattern = account("a", "", HASH, &[(Place::Database("school\\_%".to_owned()), &["SELECT"])]);
        assert_eq!(moves(&pattern, &terms).grants.keys().cloned().collect::<Vec<_>>(), [Place::Database("school\\_%".to_owned())]);
        terms.literal_names = true;
        let moving = moves(&pattern, &terms);
        assert_eq!(moving.grants.keys().cloned().collect::<Vec<_>>(), [Place::Database("school_1".to_owned())]);
        assert!(moving.changes[0].starts_with("pattern: SELECT on `school\\_%`.* → on `school_1`.*"), "{:?}", moving.changes);
    }

    #[test]
    fn a_column_that_is_gone_is_named() {
        let terms = terms("9.7.0", &["SELECT", GRANT_OPTION]);
        let column = |name: &str| Place::Column("school".to_owned(), "t".to_owned(), name.to_owned());
        let moving = moves(&account("a", "", HASH, &[(column("A"), &["SELECT"]), (column("gone"), &["SELECT"])]), &terms);
        assert_eq!(moving.grants.len(), 1);
        assert!(
            moving.changes.iter().any(|change| change.contains("`t`.`gone` → left out: there is no such column")),
            "{:?}",
            moving.changes
        );
    }
}
