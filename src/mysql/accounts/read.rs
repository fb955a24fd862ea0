//! The accounts of a server, from its own tables.
//!
//! | from | what | where |
//! | --- | --- | --- |
//! | `mysql.user` | accounts, passwords, requirements, limits, privileges on everything | every server; its columns differ, so they are asked for first |
//! | `mysql.db`, `tables_priv`, `columns_priv`, `procs_priv` | grants on databases, tables, columns, routines | every server |
//! | `mysql.proxies_priv` | who may act in whose name | 5.5.7 and later |
//! | `mysql.global_grants`, `role_edges` | privileges that have no column, roles | MySQL 8.0 and later |
//! | `mysql.global_priv`, `roles_mapping`, `information_schema.USER_PRIVILEGES` | the same, and whether an account is locked | MariaDB |
//!
//! What a password is compared with is read as hexadecimal digits: it need not be text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::connect::{Purpose, Server, Session, TextRow};
use super::super::error::{MysqlError, Result};
use super::model::{Account, AccountName, Accounts, Credential, GRANT_OPTION, Limits, PROXY, Place, Requires};

/// What the columns of `mysql.user` and `mysql.db` are called in GRANT, where it is not their name without `_priv`.
const COLUMNS: [(&str, &str); 7] = [
    ("Grant_priv", GRANT_OPTION),
    ("Show_db_priv", "SHOW DATABASES"),
    ("Create_tmp_table_priv", "CREATE TEMPORARY TABLES"),
    ("Repl_slave_priv", "REPLICATION SLAVE"),
    ("Repl_client_priv", "REPLICATION CLIENT"),
    ("Delete_history_priv", "DELETE HISTORY"),
    ("Show_create_routine_priv", "SHOW CREATE ROUTINE"),
];

/// Reads them.
///
/// # Errors
/// If the server can't be reached, or our account may not read its tables of accounts.
pub async fn accounts(server: &Arc<Server>) -> Result<Accounts> {
    let mut session = Session::open(server, Purpose::Catalog).await?;
    let read = Reading { session: &mut session, accounts: Accounts::default() }.all().await;
    session.close().await;
    read.map_err(|error| match error.code() {
        // "Access denied", "command denied".
        Some(1044 | 1142 | 1143) => MysqlError::Object {
            message: format!("the accounts can't be read: {error}"),
            hint: format!(
                "`GRANT SELECT ON mysql.* TO` the account that dbmove connects with on the {server}, or say `accounts: leave` in the playbook"
            ),
        },
        _ => error,
    })
}

struct Reading<'a> {
    session: &'a mut Session,
    accounts: Accounts,
}

fn cell(row: &TextRow, at: usize) -> String {
    row.get(at).and_then(Clone::clone).unwrap_or_default()
}

/// A privilege as GRANT calls it, from the name of a column.
fn privilege(column: &str) -> Option<String> {
    let plain = column.strip_suffix("_priv")?;
    let known = COLUMNS.iter().find(|(name, _)| *name == column);
    Some(known.map_or_else(|| plain.replace('_', " ").to_ascii_uppercase(), |(_, name)| (*name).to_owned()))
}

/// Privileges as GRANT calls them, from a SET of a server's table.
fn set(text: &str) -> BTreeSet<String> {
    let name = |word: &str| match word {
        "Grant" => GRANT_OPTION.to_owned(),
        "Delete versioning rows" => "DELETE HISTORY".to_owned(),
        word => word.to_ascii_uppercase(),
    };
    text.split(',').filter(|word| !word.is_empty()).map(name).collect()
}

impl Reading<'_> {
    async fn all(mut self) -> Result<Accounts> {
        self.users().await?;
        self.databases().await?;
        self.tables().await?;
        let version = self.session.version.clone();
        if version.mariadb {
            if version.number >= (10, 4, 0) {
                self.mariadb().await?;
            }
            if version.number >= (10, 0, 5) {
                self.roles("SELECT User, Host, Role FROM mysql.roles_mapping").await?;
            }
        } else if version.mysql_from((8, 0, 0)) {
            self.dynamic().await?;
            self.roles("SELECT TO_USER, TO_HOST, CONCAT(FROM_USER, '@', FROM_HOST) FROM mysql.role_edges").await?;
        }
        if version.number >= (5, 5, 7) {
            self.proxies().await?;
        }
        Ok(self.accounts)
    }

    async fn rows(&mut self, query: &str) -> Result<Vec<TextRow>> {
        self.session.rows(query, "reading the accounts").await
    }

    async fn columns(&mut self, table: &str) -> Result<Vec<String>> {
        Ok(self.rows(&format!("SHOW COLUMNS FROM mysql.{table}")).await?.iter().map(|row| cell(row, 0)).collect())
    }

    /// Adds what is granted at a place.
    fn grant(&mut self, account: AccountName, place: Place, privileges: BTreeSet<String>) {
        match self.accounts.accounts.get_mut(&account) {
            // A table's row for the sake of its columns.
            _ if privileges.is_empty() => {}
            Some(account) => account.grants.entry(place).or_default().extend(privileges),
            None => self.accounts.orphans.push((account, place)),
        }
    }

    async fn users(&mut self) -> Result<()> {
        let columns = self.columns("user").await?;
        let privileges: Vec<&String> = columns.iter().filter(|column| privilege(column).is_some()).collect();
        let has = |name: &str| columns.iter().any(|column| column == name);
        let or = |name: &str, default: &str| if has(name) { name.to_owned() } else { default.to_owned() };
        let stored = match (has("Password"), has("authentication_string")) {
            (true, true) => "HEX(IF(LENGTH(Password) > 0, Password, authentication_string))",
            (true, false) => "HEX(Password)",
            _ => "HEX(authentication_string)",
        };
        let mut wanted = vec![
            "User".to_owned(),
            "Host".to_owned(),
            stored.to_owned(),
            or("plugin", "''"),
            "ssl_type".to_owned(),
            "ssl_cipher".to_owned(),
            "x509_issuer".to_owned(),
            "x509_subject".to_owned(),
            "max_questions".to_owned(),
            "max_updates".to_owned(),
            "max_connections".to_owned(),
            or("max_user_connections", "0"),
            or("max_statement_time", "0"),
            or("account_locked", "'N'"),
            or("password_expired", "'N'"),
            or("is_role", "'N'"),
        ];
        let plain = wanted.len();
        wanted.extend(privileges.iter().map(|column| (*column).clone()));
        let rows = self.rows(&format!("SELECT {} FROM mysql.user", wanted.join(", "))).await?;
        for row in &rows {
            let text = |at: usize| cell(row, at);
            let yes = |at: usize| cell(row, at) == "Y";
            let name = AccountName { user: text(0), host: text(1) };
            let requires = match text(4).as_str() {
                "ANY" => Requires::Ssl,
                "X509" => Requires::X509,
                "SPECIFIED" => Requires::Specified { cipher: text(5), issuer: text(6), subject: text(7) },
                _ => Requires::Nothing,
            };
            let limits = Limits {
                queries: text(8),
                updates: text(9),
                connections: text(10),
                user_connections: text(11),
                statement_seconds: text(12).trim_end_matches('0').trim_end_matches('.').to_owned(),
            };
            let granted = (0..privileges.len()).filter(|at| yes(plain + at)).filter_map(|at| privilege(privileges[at]));
            let grants = match granted.collect::<BTreeSet<_>>() {
                none if none.is_empty() => BTreeMap::new(),
                granted => BTreeMap::from([(Place::Server, granted)]),
            };
            let account = Account {
                name: name.clone(),
                credential: Credential { plugin: text(3), stored: text(2).into(), or_others: false },
                requires,
                limits,
                locked: yes(13),
                expired: yes(14),
                role: yes(15),
                roles: BTreeSet::new(),
                grants,
            };
            self.accounts.accounts.insert(name, account);
        }
        Ok(())
    }

    async fn databases(&mut self) -> Result<()> {
        let columns = self.columns("db").await?;
        let privileges: Vec<(String, String)> =
            columns.into_iter().filter_map(|column| privilege(&column).map(|name| (column, name))).collect();
        let list: Vec<&str> = privileges.iter().map(|(column, _)| column.as_str()).collect();
        for row in self.rows(&format!("SELECT User, Host, Db, {} FROM mysql.db", list.join(", "))).await? {
            let account = AccountName { user: cell(&row, 0), host: cell(&row, 1) };
            let granted = privileges.iter().enumerate().filter(|(at, _)| cell(&row, 3 + at) == "Y");
            let granted = granted.map(|(_, (_, name))| name.clone()).collect();
            self.grant(account, Place::Database(cell(&row, 2)), granted);
        }
        Ok(())
    }

    async fn tables(&mut self) -> Result<()> {
        let account = |row: &TextRow| AccountName { user: cell(row, 0), host: cell(row, 1) };
        for row in self.rows("SELECT User, Host, Db, Table_name, Table_priv FROM mysql.tables_priv").await? {
            self.grant(account(&row), Place::Table(cell(&row, 2), cell(&row, 3)), set(&cell(&row, 4)));
        }
        for row in self.rows("SELECT User, Host, Db, Table_name, Column_name, Column_priv FROM mysql.columns_priv").await? {
            self.grant(account(&row), Place::Column(cell(&row, 2), cell(&row, 3), cell(&row, 4)), set(&cell(&row, 5)));
        }
        for row in self.rows("SELECT User, Host, Db, Routine_name, Routine_type, Proc_priv FROM mysql.procs_priv").await? {
            let (database, name) = (cell(&row, 2), cell(&row, 3));
            let place = match cell(&row, 4).as_str() {
                "FUNCTION" => Place::Function(database, name),
                "PROCEDURE" => Place::Procedure(database, name),
                // MariaDB's packages: dbmove moves none and names each.
                _ => continue,
            };
            self.grant(account(&row), place, set(&cell(&row, 5)));
        }
        Ok(())
    }

    async fn proxies(&mut self) -> Result<()> {
        for row in self.rows("SELECT User, Host, Proxied_user, Proxied_host, With_grant FROM mysql.proxies_priv").await? {
            let account = AccountName { user: cell(&row, 0), host: cell(&row, 1) };
            let proxied = AccountName { user: cell(&row, 2), host: cell(&row, 3) };
            let mut granted = BTreeSet::from([PROXY.to_owned()]);
            if cell(&row, 4) == "1" {
                granted.insert(GRANT_OPTION.to_owned());
            }
            self.grant(account, Place::Proxy(proxied), granted);
        }
        Ok(())
    }

    /// Privileges of MySQL 8.0 and later that are no columns. One that may be passed on is told by its name.
    async fn dynamic(&mut self) -> Result<()> {
        for row in self.rows("SELECT USER, HOST, PRIV, WITH_GRANT_OPTION FROM mysql.global_grants").await? {
            let account = AccountName { user: cell(&row, 0), host: cell(&row, 1) };
            let mut granted = BTreeSet::from([cell(&row, 2)]);
            if cell(&row, 3) == "Y" {
                granted.insert(passed_on(&cell(&row, 2)));
            }
            self.grant(account, Place::Server, granted);
        }
        Ok(())
    }

    async fn mariadb(&mut self) -> Result<()> {
        // No table shows them but as JSON with numbers, and this one prints accounts without escaping them.
        let mut printed: BTreeMap<String, Vec<AccountName>> = BTreeMap::new();
        for name in self.accounts.accounts.keys() {
            printed.entry(format!("'{}'@'{}'", name.user, name.host)).or_default().push(name.clone());
        }
        let query = "SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE <> 'USAGE'";
        for row in self.rows(query).await? {
            match printed.get(&cell(&row, 0)).map(Vec::as_slice) {
                Some([one]) => self.grant(one.clone(), Place::Server, BTreeSet::from([binlog_monitor(cell(&row, 1))])),
                Some([first, second, ..]) => {
                    return Err(MysqlError::Object {
                        message: format!("the accounts `{first}` and `{second}` of the {} can't be told apart", self.session.server()),
                        hint: "rename one of them, or say `accounts: leave` in the playbook".to_owned(),
                    });
                }
                // A role is printed without a host; what it may do is not moved.
                _ => {}
            }
        }
        for account in self.accounts.accounts.values_mut() {
            let granted = account.grants.remove(&Place::Server);
            if let Some(granted) = granted {
                account.grants.insert(Place::Server, granted.into_iter().map(binlog_monitor).collect());
            }
        }
        let query =
            "SELECT User, Host, JSON_VALUE(Priv, '$.account_locked'), JSON_EXTRACT(Priv, '$.auth_or') IS NOT NULL FROM mysql.global_priv";
        for row in self.rows(query).await? {
            let name = AccountName { user: cell(&row, 0), host: cell(&row, 1) };
            if let Some(account) = self.accounts.accounts.get_mut(&name) {
                account.locked |= matches!(cell(&row, 2).as_str(), "1" | "true");
                account.credential.or_others = cell(&row, 3) == "1";
            }
        }
        Ok(())
    }

    async fn roles(&mut self, query: &str) -> Result<()> {
        for row in self.rows(query).await? {
            let name = AccountName { user: cell(&row, 0), host: cell(&row, 1) };
            let role = cell(&row, 2);
            if let Some(of) = AccountName::parse(&role)
                && let Some(account) = self.accounts.accounts.get_mut(&of)
            {
                account.role = true;
            }
            if let Some(account) = self.accounts.accounts.get_mut(&name) {
                account.roles.insert(role);
            }
        }
        Ok(())
    }
}

/// MariaDB from 10.5 on has one privilege under two names.
fn binlog_monitor(privilege: String) -> String {
    if privilege == "REPLICATION CLIENT" { "BINLOG MONITOR".to_owned() } else { privilege }
}

/// How it is told that an account may pass a single privilege on.
#[must_use]
pub fn passed_on(privilege: &str) -> String {
    format!("{privilege} (GRANT OPTION)")
}

/// The privilege that may be passed on, if that is what is told.
#[must_use]
pub fn passed(privilege: &str) -> Option<&str> {
    privilege.strip_suffix(" (GRANT OPTION)")
}

/// Whether it is a privilege of MySQL 8.0 and later that has no column: each of these is passed on by itself.
#[must_use]
pub fn stands_alone(privilege: &str) -> bool {
    !privilege.contains(' ') && privilege.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_are_called_as_in_grant() {
        for (column, name) in [
            ("Select_priv", Some("SELECT")),
            ("Create_tmp_table_priv", Some("CREATE TEMPORARY TABLES")),
            ("Repl_client_priv", Some("REPLICATION CLIENT")),
            ("Create_role_priv", Some("CREATE ROLE")),
            ("Grant_priv", Some("GRANT OPTION")),
            ("ssl_type", None),
        ] {
            assert_eq!(privilege(column).as_deref(), name, "{column}");
        }
        assert_eq!(set("Select,Show view,Grant"), ["SELECT", "SHOW VIEW", "GRANT OPTION"].map(str::to_owned).into());
        assert!(set("").is_empty());
    }
}
