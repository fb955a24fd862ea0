//! Where a server's binary log stands right now, and which databases it leaves out.

use super::connect::{Session, TextRow};
use super::error::{MysqlError, Result};
use super::position::Position;

/// The end of the server's binary log.
///
/// # Errors
/// If the account may not ask (REPLICATION CLIENT), or the server writes no binary log.
pub async fn current_position(session: &mut Session) -> Result<Position> {
    let row = log_status(session).await?;
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

async fn log_status(session: &mut Session) -> Result<Option<TextRow>> {
    // MySQL 8.2 renamed the statement, 8.4 dropped the old name.
    let statement = if session.version.mysql_from((8, 2, 0)) { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    session.first(statement, "reading the end of the binary log").await
}

/// Which databases a server's log leaves out: `binlog-do-db` and `binlog-ignore-db` of its configuration. Rows go by the database of their table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilters {
    /// If any, only these are logged, and the others don't count.
    pub only: Vec<String>,
    /// These are not.
    pub ignored: Vec<String>,
}

impl LogFilters {
    /// From the columns that the server prints, separated by commas.
    fn of(only: &str, ignored: &str) -> LogFilters {
        let names = |text: &str| text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        LogFilters { only: names(only), ignored: names(ignored) }
    }

    /// Why rows of a database are not in the log, if so.
    #[must_use]
    pub fn leaves_out(&self, database: &str) -> Option<String> {
        // A server compares names as it stores them: what may be either is taken as left out.
        if !self.only.is_empty() {
            return (!self.only.iter().any(|name| name == database))
                .then(|| format!("`binlog-do-db` is {}, without `{database}`", quoted(&self.only)));
        }
        let ignored = self.ignored.iter().any(|name| name.eq_ignore_ascii_case(database));
        ignored.then(|| format!("`binlog-ignore-db` is {}, with `{database}`", quoted(&self.ignored)))
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The filters of a server's log; none if it writes no log.
///
/// # Errors
/// If the account may not ask (REPLICATION CLIENT).
pub async fn log_filters(session: &mut Session) -> Result<LogFilters> {
    let row = log_status(session).await?.unwrap_or_default();
    let cell = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
    Ok(LogFilters::of(&cell(2), &cell(3)))
}

/// The oldest binary log file that the server still has.
///
/// # Errors
/// If the account may not ask.
pub async fn oldest_file(session: &mut Session) -> Result<Option<String>> {
    let row = session.first("SHOW BINARY LOGS", "listing the binary logs").await?;
    Ok(row.and_then(|row| row.into_iter().next().flatten()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_leaves_databases_out() {
        let out = |only: &str, ignored: &str, database: &str| LogFilters::of(only, ignored).leaves_out(database);
        assert_eq!(out("", "", "school"), None);
        assert_eq!(out("school, shop", "", "school"), None);
        assert_eq!(out("", "mysql,logs", "school"), None);
        assert!(out("shop", "", "school").unwrap().contains("`binlog-do-db` is `shop`, without `school`"));
        assert!(out("School", "", "school").is_some());
        assert!(out("", "mysql,school", "school").unwrap().contains("`binlog-ignore-db` is `mysql`, `school`, with `school`"));
        assert!(out("", "SCHOOL", "school").is_some());
        // What is to be logged counts alone.
        assert_eq!(out("school", "school", "school"), None);
    }
}
