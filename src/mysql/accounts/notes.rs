//! The accounts that dbmove has created, noted on the target in `_dbmove.created_account`.
//!
//! A note is written before the account is created, and once more, with what it has to hold, when it does. A note without that is the trace
//! of a crash. No password and no hash is in it.

use serde::{Deserialize, Serialize};

use super::super::bookkeeping::{self, own_table};
use super::super::connect::Session;
use super::super::error::{MysqlError, Result};
use super::super::sql;
use super::fate::Moving;
use super::model::{AccountName, Grants, Limits, Place, Requires};
use crate::engine::step::Epoch;

/// An account that dbmove has created, or was about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its name.
    pub name: AccountName,
    /// What it has to hold; `None` until it did once.
    pub expected: Option<Expected>,
}

/// What an account has to hold, apart from its password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// How its connections have to be protected.
    pub requires: Requires,
    /// How much it may use.
    pub limits: Limits,
    /// What it may do. As a list, because a place is no name in JSON.
    grants: Vec<(Place, std::collections::BTreeSet<String>)>,
}

impl Expected {
    /// Of an account.
    #[must_use]
    pub fn of(account: &Moving) -> Expected {
        Expected {
            requires: account.requires.clone(),
            limits: account.limits.clone(),
            grants: account.grants.iter().map(|(place, granted)| (place.clone(), granted.clone())).collect(),
        }
    }
    /// What it may do.
    #[must_use]
    pub fn grants(&self) -> Grants {
        self.grants.iter().cloned().collect()
    }
}

/// Writes a note, if this driver still holds the lease.
///
/// # Errors
/// If the table can't be written, or another driver has taken over.
pub async fn write(session: &mut Session, store: &str, epoch: Epoch, noted: &Noted) -> Result<()> {
    let expected = noted.expected.as_ref().map(|expected| serde_json::json!(expected).to_string());
    let statement = format!(
        "REPLACE INTO {} (store, user_name, host_name, expected) VALUES ({}, {}, {}, {})",
        own_table("created_account"),
        sql::text(store),
        sql::text(&noted.name.user),
        sql::text(&noted.name.host),
        expected.map_or_else(|| "NULL".to_owned(), |text| sql::text(&text))
    );
    session.run("BEGIN", "noting which account is created").await?;
    bookkeeping::hold_lease(session, store, epoch).await?;
    session.write(statement.as_bytes(), "noting which account is created").await?;
    session.run("COMMIT", "noting which account is created").await
}

/// Takes a note away: its account is gone.
///
/// # Errors
/// If the table can't be written.
pub async fn forget(session: &mut Session, store: &str, name: &AccountName) -> Result<()> {
    let statement = format!(
        "DELETE FROM {} WHERE store = {} AND user_name = {} AND host_name = {}",
        own_table("created_account"),
        sql::text(store),
        sql::text(&name.user),
        sql::text(&name.host)
    );
    session.write(statement.as_bytes(), "noting which account is dropped").await?;
    Ok(())
}

/// All notes of a store.
///
/// # Errors
/// If the table can't be read.
pub async fn all(session: &mut Session, store: &str) -> Result<Vec<Noted>> {
    let query = format!(
        "SELECT user_name, host_name, expected FROM {} WHERE store = {} ORDER BY user_name, host_name",
        own_table("created_account"),
        sql::text(store)
    );
    let rows = match session.rows(&query, "reading which accounts were created").await {
        Ok(rows) => rows,
        // No such database or table: none was.
        Err(error) if matches!(error.code(), Some(1049 | 1146)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let noted = rows.into_iter().map(|row| {
        let name = AccountName { user: bookkeeping::text(&row, 0), host: bookkeeping::text(&row, 1) };
        let expected = match row.into_iter().nth(2).flatten() {
            None => None,
            Some(text) => Some(serde_json::from_str(&text).map_err(|error| MysqlError::Object {
                message: format!("`_dbmove.created_account` on the target says of `{name}` what can't be read: {error}"),
                hint: "drive the run with the build that began it".to_owned(),
            })?),
        };
        Ok(Noted { name, expected })
    });
    noted.collect()
}
