//! What happens on the source while it is looked at: who is connected, what is open, what is logged.

use super::{Gathered, Part};
use crate::mysql::connect::{Session, TextRow};
use crate::mysql::error::Result;
use crate::mysql::names::Selection;
use crate::mysql::position::Position;
use crate::mysql::sql;
use crate::mysql::status::current_position;
use crate::mysql::tail::dialect::Dialect;
use crate::mysql::tail::statement::{Statement, classify};
use crate::mysql::upstream;

/// A session of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// User.
    pub user: String,
    /// From where.
    pub host: String,
}

/// A transaction that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// The connection's number.
    pub connection: u64,
    /// Since how many seconds.
    pub seconds: u64,
}

/// The part of the source's log that was written while it was assessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogWindow {
    /// From where.
    pub from: Position,
    /// The query.
    pub asked: String,
    /// How many events were looked at, at most [`EVENTS`].
    pub events: usize,
    /// Statements that changed rows of selected tables: where they begin, and their first characters.
    pub by_statement: Vec<(u64, String)>,
}

/// Old servers let nobody commit while they list events.
const EVENTS: usize = 1000;

impl Gathered {
    pub(super) async fn sessions(&mut self, source: &mut Session) -> Result<()> {
        if !self.source.privileges.has("PROCESS") {
            self.unread.insert(Part::Sessions, "our account lacks PROCESS, so it sees only its own sessions".to_owned());
            return Ok(());
        }
        let query = "SELECT USER, HOST FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID()";
        for row in self.rows(source, Part::Sessions, query).await? {
            let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            self.sessions.push(SessionRow { user: text(0), host: text(1) });
        }
        Ok(())
    }

    /// Open transactions of InnoDB. 5.1 shows them only with the InnoDB plugin.
    pub(super) async fn transactions(&mut self, source: &mut Session) -> Result<()> {
        if !self.source.privileges.has("PROCESS") {
            self.unread.insert(Part::Transactions, "our account lacks PROCESS".to_owned());
            return Ok(());
        }
        // The times are in the server's own zone, our session's are in UTC.
        let query = "SELECT trx_mysql_thread_id, TIMESTAMPDIFF(SECOND, trx_started, CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', 'SYSTEM')) \
                     FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id NOT IN (0, CONNECTION_ID())";
        for row in self.rows(source, Part::Transactions, query).await? {
            let number = |at: usize| row.get(at).and_then(Option::as_deref).and_then(|text| text.parse().ok()).unwrap_or(0);
            self.transactions.push(OpenTransaction { connection: number(0), seconds: number(1) });
        }
        Ok(())
    }

    /// What was logged since a position. A session keeps the `binlog_format` that it began with, and no old server shows it: a
    /// statement in the log is the one proof.
    pub(super) async fn logged_meanwhile(&mut self, source: &mut Session, before: Option<Position>, selection: &Selection) -> Result<()> {
        let Some(from) = before else { return Ok(()) };
        if !self.source.privileges.has_replication_slave() {
            self.unread.insert(Part::Log, "our account lacks REPLICATION SLAVE".to_owned());
            return Ok(());
        }
        let asked = format!("SHOW BINLOG EVENTS IN {} FROM {} LIMIT {EVENTS}", sql::text(&from.file), from.offset);
        let mut window = LogWindow { from: from.clone(), asked: asked.clone(), events: 0, by_statement: Vec::new() };
        // At its very end a log has no event to begin with, which some servers call an error.
        if current_position(source).await? != from {
            let events = self.rows(source, Part::Log, &asked).await?;
            window.events = events.len();
            window.by_statement = events.iter().filter_map(|event| data_by_statement(event, selection)).collect();
        }
        self.log_window = Some(window);
        Ok(())
    }

    /// Whether the source is a replica. What may not be asked is noted as a setting that was not read.
    pub(super) async fn replication(&mut self, source: &mut Session) -> Result<()> {
        if !self.source.privileges.has_replication_client() {
            // Said by `source-privileges`, which is never accepted.
            return Ok(());
        }
        self.replicates_from = upstream::channels(source).await?;
        Ok(())
    }
}

/// Where the event begins and its statement, if that changed rows of a selected table.
fn data_by_statement(event: &TextRow, selection: &Selection) -> Option<(u64, String)> {
    let text = |at: usize| event.get(at).and_then(Option::as_deref).unwrap_or_default();
    // Log_name, Pos, Event_type, Server_id, End_log_pos, Info: the same since 5.1.
    if text(2) != "Query" {
        return None;
    }
    let (database, statement) = in_database(text(5));
    let means = classify(statement, &database, selection, Dialect::default());
    let changes = matches!(means, Statement::DataByStatement | Statement::DeleteAll(_));
    changes.then(|| (text(1).parse().unwrap_or(0), statement.chars().take(80).collect()))
}

/// A statement as the server lists it: "use `database`; " and what ran there.
fn in_database(listed: &str) -> (String, &str) {
    let Some(rest) = listed.strip_prefix("use `") else { return (String::new(), listed) };
    let mut database = String::new();
    let mut characters = rest.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if character != '`' {
            database.push(character);
        } else if characters.next_if(|(_, next)| *next == '`').is_some() {
            database.push('`');
        } else {
            let statement = rest[at + 1..].trim_start_matches(';').trim_start();
            return (database, statement);
        }
    }
    (String::new(), listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_changed_by_statement_count() {
        let selection = Selection::new(&["shop.*".to_owned()], &[]).unwrap();
        let event = |kind: &str, info: &str| {
            ["log.1", "120", kind, "1", "200", info].iter().map(|cell| Some((*cell).to_owned())).collect::<TextRow>()
        };
        let found = |kind: &str, info: &str| data_by_statement(&event(kind, info), &selection);
        assert_eq!(found("Query", "use `shop`; INSERT INTO t VALUES (1)"), Some((120, "INSERT INTO t VALUES (1)".to_owned())));
        assert_eq!(found("Query", "use `shop`; BEGIN"), None);
        assert_eq!(found("Query", "BEGIN"), None);
        assert_eq!(found("Query", "use `other`; INSERT INTO t VALUES (1)"), None);
        assert_eq!(found("Write_rows", "table_id: 33 flags: STMT_END_F"), None);
        assert_eq!(in_database("use `a``b`; DELETE FROM t"), ("a`b".to_owned(), "DELETE FROM t"));
    }
}
