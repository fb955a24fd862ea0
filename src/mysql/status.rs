//! Where a server's binary log stands right now.

use super::connect::Session;
use super::error::{MysqlError, Result};
use super::position::Position;

/// The end of the server's binary log.
///
/// # Errors
/// If the account may not ask (REPLICATION CLIENT), or the server writes no binary log.
pub async fn current_position(session: &mut Session) -> Result<Position> {
    // MySQL 8.2 renamed the statement, 8.4 dropped the old name.
    let statement = if session.version.mysql_from((8, 2, 0)) { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let row = session.first(statement, "reading the end of the binary log").await?;
    let place = row.and_then(|row| {
        let mut cells = row.into_iter();
        Some((cells.next()??, cells.next()??.parse::<u64>().ok()?))
    });
    place.map(|(file, offset)| Position::new(file, offset)).ok_or_else(|| MysqlError::Setting {
        server: session.server().to_string(),
        setting: "log_bin".to_owned(),
        expected: "ON".to_owned(),
        actual: "OFF".to_owned(),
        hint: "set `log-bin` and `server-id` in the server's configuration and restart it".to_owned(),
    })
}

/// The oldest binary log file that the server still has.
///
/// # Errors
/// If the account may not ask.
pub async fn oldest_file(session: &mut Session) -> Result<Option<String>> {
    let row = session.first("SHOW BINARY LOGS", "listing the binary logs").await?;
    Ok(row.and_then(|row| row.into_iter().next().flatten()))
}
