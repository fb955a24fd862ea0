//! Accounts and grants of the source, from its own tables: `information_schema` shows an account only what it may see itself.

use super::{Gathered, Part};
use crate::mysql::connect::Session;
use crate::mysql::error::Result;

/// An account of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// User.
    pub user: String,
    /// Host.
    pub host: String,
    /// The length of the password's hash; the hash itself is not kept.
    pub hash_length: usize,
    /// The plugin that judges the password; empty for the server's own.
    pub plugin: String,
    /// SUPER.
    pub super_privilege: bool,
}

impl AccountRow {
    /// As a definer is written.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}@{}", self.user, self.host)
    }
}

/// A grant on a database, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseGrant {
    /// The database, or a pattern with `%` and `_`; `\\` takes their meaning away.
    pub database: String,
    /// User.
    pub user: String,
    /// Host.
    pub host: String,
}

impl Gathered {
    pub(super) async fn accounts(&mut self, source: &mut Session) -> Result<()> {
        // The columns differ from version to version; what is not there is left out by name.
        let columns = self.rows(source, Part::Accounts, "SHOW COLUMNS FROM mysql.user").await?;
        if self.unread.contains_key(&Part::Accounts) {
            return Ok(());
        }
        let has = |name: &str| columns.iter().any(|row| row.first().and_then(Option::as_deref) == Some(name));
        let password = match (has("Password"), has("authentication_string")) {
            (true, true) => "IF(LENGTH(Password) > 0, LENGTH(Password), LENGTH(authentication_string))",
            (true, false) => "LENGTH(Password)",
            _ => "LENGTH(authentication_string)",
        };
        let plugin = if has("plugin") { "plugin" } else { "''" };
        let query = format!("SELECT User, Host, {password}, {plugin}, Super_priv FROM mysql.user");
        for row in self.rows(source, Part::Accounts, &query).await? {
            let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            self.accounts.push(AccountRow {
                user: text(0),
                host: text(1),
                hash_length: text(2).parse().unwrap_or(0),
                plugin: text(3),
                super_privilege: text(4) == "Y",
            });
        }
        Ok(())
    }

    /// Grants on databases; single tables and columns have no patterns.
    pub(super) async fn grants(&mut self, source: &mut Session) -> Result<()> {
        for row in self.rows(source, Part::Accounts, "SELECT Db, User, Host FROM mysql.db").await? {
            let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            self.grants.push(DatabaseGrant { database: text(0), user: text(1), host: text(2) });
        }
        let databases = self.rows(source, Part::Accounts, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA").await?;
        self.all_databases = databases.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        Ok(())
    }
}
