//! Looks at what sessions do, where a server tells it by SQL.
//!
//! From MySQL 8 on, the tables of `information_schema` that show statements can't be read while *any* session runs a statement that is not text in
//! the server's character set, such as an INSERT of bytes: the look fails with 3854, whichever columns it asks for. It passes as soon as that
//! statement has ended. So it is taken again for a while. `SHOW PROCESSLIST` knows no such trouble.

use std::time::{Duration, Instant};

use super::connect::{Session, TextRow};
use super::error::{MysqlError, Result};

/// "Cannot convert string … from … to …".
const NOT_TEXT: u16 = 3854;

/// How long a look is taken again, and how often.
const PATIENCE: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_millis(20);

/// Whether a look failed for what another session runs.
#[must_use]
pub fn is_unreadable(error: &MysqlError) -> bool {
    error.code() == Some(NOT_TEXT)
}

/// Takes a look, again while it fails for what another session runs.
///
/// # Errors
/// As the server gives them; the same if it could not be taken for [`PATIENCE`].
pub async fn rows(session: &mut Session, query: &str, what: &str) -> Result<Vec<TextRow>> {
    let began = Instant::now();
    loop {
        match session.rows(query, what).await {
            Err(error) if again(&error, began) => tokio::time::sleep(EVERY).await,
            seen => return seen,
        }
    }
}

/// Runs a statement that takes such a look, likewise.
///
/// # Errors
/// As [`rows`].
pub async fn run(session: &mut Session, statement: &str, what: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        match session.run(statement, what).await {
            Err(error) if again(&error, began) => tokio::time::sleep(EVERY).await,
            done => return done,
        }
    }
}

fn again(error: &MysqlError, began: Instant) -> bool {
    is_unreadable(error) && began.elapsed() < PATIENCE
}
