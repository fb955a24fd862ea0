//! The words: an account, a place where something is granted, and what.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::super::sql;

/// An account: a user, and the hosts it comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountName {
    /// User.
    pub user: String,
    /// Host, or a pattern of hosts.
    pub host: String,
}

impl AccountName {
    /// From `user@host`, as a person writes it: a host has no `@`, a user may.
    #[must_use]
    pub fn parse(text: &str) -> Option<AccountName> {
        let (user, host) = text.rsplit_once('@')?;
        Some(AccountName { user: user.to_owned(), host: host.to_owned() })
    }
}

impl std::fmt::Display for AccountName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

/// Where something is granted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// `*.*`.
    Server,
    /// A database, or a pattern with `%` and `_` in which `\` takes their meaning away.
    Database(String),
    /// A table or view.
    Table(String, String),
    /// A column of one.
    Column(String, String, String),
    /// A procedure.
    Procedure(String, String),
    /// A function.
    Function(String, String),
    /// Another account, in whose name it may act.
    Proxy(AccountName),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Server => f.write_str("*.*"),
            Place::Database(database) => write!(f, "{}.*", sql::identifier(database)),
            Place::Table(database, name) => write!(f, "{}.{}", sql::identifier(database), sql::identifier(name)),
            Place::Column(database, table, column) => {
                write!(f, "{}.{}.{}", sql::identifier(database), sql::identifier(table), sql::identifier(column))
            }
            Place::Procedure(database, name) => write!(f, "procedure {}.{}", sql::identifier(database), sql::identifier(name)),
            Place::Function(database, name) => write!(f, "function {}.{}", sql::identifier(database), sql::identifier(name)),
            Place::Proxy(account) => write!(f, "account {}", sql::account(&account.user, &account.host)),
        }
    }
}

/// The privilege to pass on what one has.
pub const GRANT_OPTION: &str = "GRANT OPTION";

/// The privilege to act in another account's name.
pub const PROXY: &str = "PROXY";

/// Privileges by their names in GRANT, in upper case, by place.
pub type Grants = BTreeMap<Place, BTreeSet<String>>;

/// Privileges as a list.
#[must_use]
pub fn list<'a>(privileges: impl IntoIterator<Item = &'a String>) -> String {
    privileges.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// How a connection has to be protected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requires {
    /// It need not be.
    #[default]
    Nothing,
    /// TLS.
    Ssl,
    /// A certificate that the server trusts.
    X509,
    /// These; what is empty is not asked for.
    Specified {
        /// Cipher.
        cipher: String,
        /// Who gave the certificate out.
        issuer: String,
        /// Whom it is for.
        subject: String,
    },
}

/// How much it may use; 0 for no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Statements per hour.
    pub queries: String,
    /// Changing statements per hour.
    pub updates: String,
    /// Connections per hour.
    pub connections: String,
    /// Connections at once.
    pub user_connections: String,
    /// Seconds that a statement may take: MariaDB only.
    pub statement_seconds: String,
}

/// How an account proves who it is. Not shown by `Debug`.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The plugin that judges it; empty for the server's own of before 5.5.7.
    pub plugin: String,
    /// What the plugin compares with, in hexadecimal digits: empty if there is no password.
    pub stored: SecretString,
    /// There are other ways in beside this one (MariaDB's `OR`).
    pub or_others: bool,
}

/// An account as a server holds it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name.
    pub name: AccountName,
    /// How it proves who it is.
    pub credential: Credential,
    /// How its connections have to be protected.
    pub requires: Requires,
    /// How much it may use.
    pub limits: Limits,
    /// Nobody comes in by it.
    pub locked: bool,
    /// Its password has to be changed.
    pub expired: bool,
    /// It is a role.
    pub role: bool,
    /// The roles it was given.
    pub roles: BTreeSet<String>,
    /// What it may do.
    pub grants: Grants,
}

/// The accounts of a server.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// By name.
    pub accounts: BTreeMap<AccountName, Account>,
    /// Grants of accounts that do not exist.
    pub orphans: Vec<(AccountName, Place)>,
}
