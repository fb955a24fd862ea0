//! Keeps clients out of a server where our account may not set `read_only` (RDS): their accounts are locked.
//!
//! A global read lock ends with its session, and whoever waits for it, or comes a moment later, writes after all. `read_only` is what
//! stays. Where it can't be set, `ALTER USER … ACCOUNT LOCK` does the same for whoever connects from then on; those that are
//! connected have to be closed. Accounts that `read_only` would not stop (SUPER), those of the server itself ([`is_of_the_server`]), roles, our own, and those that are
//! locked already are left as they are, and so are those that our account may not change. What is to be locked is listed first, so that the
//! caller can keep it before anything is changed.

use serde::{Deserialize, Serialize};

use super::bookkeeping::text;
use super::connect::Session;
use super::error::Result;
use super::fence::NOT_ALLOWED;
use super::foreign::is_of_the_server;
use super::sql;

/// An account to be locked out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedOut {
    /// User.
    pub user: String,
    /// Host.
    pub host: String,
}

/// "Operation … failed": what a server says of an account that is not there, or that one may not change.
const CANNOT_USER: u16 = 1396;

/// The accounts that would be locked. Whether our account may change one is tried by unlocking it, which it is: of one that it may not, a
/// warning is all.
///
/// # Errors
/// If the server's accounts can't be read.
pub async fn accounts(session: &mut Session) -> Result<Vec<LockedOut>> {
    let rows = unlocked(session).await?;
    let own = session.first("SELECT CURRENT_USER()", "reading our account").await?.map(|row| text(&row, 0)).unwrap_or_default();
    let mut accounts = Vec::new();
    for account in rows {
        let ours = format!("{}@{}", account.user, account.host) == own;
        if !is_of_the_server(&account.user) && !ours && changed(session, &account, "UNLOCK").await? {
            accounts.push(account);
        }
    }
    Ok(accounts)
}

/// Accounts that are not locked, without roles and those with SUPER.
///
/// # Errors
/// If the server's accounts can't be read.
pub async fn unlocked(session: &mut Session) -> Result<Vec<LockedOut>> {
    let query = if session.version.mariadb {
        "SELECT g.User, g.Host FROM mysql.global_priv g JOIN mysql.user u ON u.User = g.User AND u.Host = g.Host \
         WHERE u.Super_priv = 'N' AND COALESCE(JSON_VALUE(g.Priv, '$.account_locked'), 'false') NOT IN ('true', '1') \
         AND COALESCE(JSON_VALUE(g.Priv, '$.is_role'), 'false') NOT IN ('true', '1') ORDER BY 1, 2"
    } else {
        "SELECT User, Host FROM mysql.user WHERE account_locked = 'N' AND Super_priv = 'N' ORDER BY 1, 2"
    };
    let rows = session.rows(query, "listing the accounts to keep out").await?;
    Ok(rows.iter().map(|row| LockedOut { user: text(row, 0), host: text(row, 1) }).collect())
}

/// Locks or unlocks them. One that our account may not change is named in a warning and left.
///
/// # Errors
/// If the server refuses for another reason.
pub async fn set(session: &mut Session, accounts: &[LockedOut], locked: bool) -> Result<()> {
    for account in accounts {
        changed(session, account, if locked { "LOCK" } else { "UNLOCK" }).await?;
    }
    Ok(())
}

/// `false` if our account may not, or there is no such account.
async fn changed(session: &mut Session, account: &LockedOut, word: &str) -> Result<bool> {
    let statement = format!("ALTER USER {} ACCOUNT {word}", sql::account(&account.user, &account.host));
    match session.run(&statement, "keeping clients out by their account").await {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.code(), Some(NOT_ALLOWED | CANNOT_USER)) => {
            tracing::warn!(user = %account.user, host = %account.host, %error, "the account stays as it is");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The statement that unlocks all of them at once, for a server that does it by itself. There has to be one at least.
#[must_use]
pub fn unlock_all(accounts: &[LockedOut]) -> String {
    let named: Vec<String> = accounts.iter().map(|account| sql::account(&account.user, &account.host)).collect();
    format!("ALTER USER IF EXISTS {} ACCOUNT UNLOCK", named.join(", "))
}

/// Whether our account may set `read_only` there: tried with the value it has.
///
/// # Errors
/// If the connection breaks.
pub async fn may_set_read_only(session: &mut Session) -> Result<bool> {
    let on = super::fence::read_only(session).await?;
    match super::fence::set_read_only(session, on).await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(NOT_ALLOWED) => Ok(false),
        Err(error) => Err(error),
    }
}
