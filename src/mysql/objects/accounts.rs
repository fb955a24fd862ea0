//! The accounts that the source has and the target lacks: named, not created.
//!
//! dbmove moves no accounts: a password can't be read, a hash of an old server is refused by a new one, and which grants a managed
//! target allows is its owner's to decide. So that nobody finds out at the switch, whoever could not log in then is named, in the plan
//! and when the schema is prepared.

use std::collections::BTreeSet;

use super::super::connect::{Purpose, Session};
use super::super::error::Result;
use super::super::store::MysqlStore;
use super::rewrite::AccountName;

/// Accounts of the servers themselves and of who runs them.
const OF_THE_SERVER: [&str; 8] =
    ["root", "mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "debian-sys-maint", "rdsadmin", "rdsrepladmin"];

/// Lines about accounts that the target lacks, or about why that can't be said. Nothing is changed.
///
/// # Errors
/// If a server can't be reached.
pub async fn missing(store: &MysqlStore) -> Result<Vec<String>> {
    let mut held = Vec::new();
    for server in [&store.source, &store.target] {
        let mut session = Session::open(server, Purpose::Catalog).await?;
        let rows = session.rows("SELECT User, Host FROM mysql.user", "reading the accounts").await;
        session.close().await;
        let cell = |row: &[Option<String>], at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        match rows {
            Ok(rows) => held.push(rows.iter().map(|row| AccountName { user: cell(row, 0), host: cell(row, 1) }).collect::<BTreeSet<_>>()),
            Err(error) if error.code().is_some() && !error.transient() => {
                return Ok(vec![format!("which accounts the target lacks can't be said: {error}")]);
            }
            Err(error) => return Err(error),
        }
    }
    let lacking = held[0].difference(&held[1]);
    let lacking = lacking.filter(|account| !OF_THE_SERVER.contains(&account.user.as_str()) && account.user != store.source.user);
    Ok(lacking
        .map(|account| {
            format!("account `{account}` is not on the target, and dbmove does not move accounts: create it there, with its grants, before the switch")
        })
        .collect())
}
