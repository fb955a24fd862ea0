//! Accounts and grants of the source, from its own tables: `information_schema` shows an account only what it may see itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Gathered, Part};
use crate::mysql::accounts::fate::Fate;
use crate::mysql::accounts::model::AccountName;
use crate::mysql::accounts::{fates_for, read};
use crate::mysql::connect::Session;
use crate::mysql::error::Result;
use crate::mysql::store::MysqlStore;
use crate::playbook::model::AccountsOption;

/// What becomes of the source's accounts.
#[derive(Clone, Debug, Default)]
pub struct Fates {
    /// What the playbook says of accounts.
    pub option: AccountsOption,
    /// Each account, and what becomes of it if accounts move.
    pub all: Vec<(AccountName, Fate)>,
    /// Accounts that the target has already.
    pub on_target: BTreeSet<AccountName>,
}

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

    /// What becomes of each account. The definers are known from the bodies: they are not asked for twice.
    pub(super) async fn fates(&mut self, store: &Arc<MysqlStore>) -> Result<()> {
        self.fates.option = store.settings.accounts;
        let definers = self.bodies.iter().map(|body| body.definer.clone()).collect();
        let read = match fates_for(store, definers).await {
            Ok(all) => read::accounts(&store.target).await.map(|target| (all, target)),
            Err(error) => Err(error),
        };
        match read {
            Ok((all, target)) => {
                self.fates.all = all;
                self.fates.on_target = target.accounts.into_keys().collect();
            }
            Err(error) if !error.transient() => {
                self.unread.entry(Part::Fates).or_insert_with(|| error.to_string());
            }
            Err(error) => return Err(error),
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
