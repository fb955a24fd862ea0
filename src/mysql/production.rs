//! In a rehearsal: the only way to production, which is to look.
//!
//! # What must hold
//!
//! * A connection to production is a session that can't write, where the server knows such, and sends only the statements of [`Look`]: there is no other
//!   way to send one through [`Looker`]. Text that goes into them is made here.
//! * Every statement and every command is counted before it is sent, in [`Sendings`], and the report lists them all. A general log on production shows
//!   the same (`tests/copies.rs`, `tests/replay.rs`).
//! * Nothing there waits for us, and nothing is kept for us: no lock but a name that is looked at, no transaction, no purge held up. The log is
//!   read as a replica reads it, by a number that no other replica has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, Row};

use super::connect::{Server, Version};
use super::error::{MysqlError, Result};
use super::position::Position;
use super::sql;
use crate::engine::load::Sent;

/// How long production may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// "Unknown system variable".
const UNKNOWN_VARIABLE: u16 = 1193;

/// What has been sent to production so far; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sendings(Arc<Mutex<BTreeMap<(String, String), u64>>>);

impl Sendings {
    fn count(&self, server: &Server, statement: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((server.to_string(), statement)).or_default() += 1;
    }

    /// All of it.
    #[must_use]
    pub fn list(&self) -> Vec<Sent> {
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter().map(|((server, statement), &count)| Sent { server: server.clone(), statement: statement.clone(), count }).collect()
    }
}

/// All that is ever sent to production in a rehearsal, besides the two commands that read its log.
#[derive(Clone, Debug)]
pub(super) enum Look {
    /// A session that can't write, where the server knows such.
    ReadOnly,
    /// The server's name for itself, from MySQL 5.6 on.
    Uuid,
    /// Whether anybody holds the lock.
    Lock(String),
    /// Which server it is.
    Version,
    /// Its clock, in seconds since 1970.
    Clock,
    /// Whether rows are in its log.
    LogFormat,
    /// Whether they are whole, from MySQL 5.6 on.
    RowImage,
    /// Where its log ends, as MySQL up to 8.1 and MariaDB are asked.
    LogEnd,
    /// The same from MySQL 8.2 on.
    NewLogEnd,
    /// Which files its log has.
    LogFiles,
    /// A word every second in which nothing is logged.
    Heartbeats,
    /// That events with a MariaDB GTID are understood.
    UnderstandsGtids,
    /// That we read slowly at times, and are alive all the same.
    ReadsSlowly,
}

/// What the driver sends before it reads a log, and the two commands, as the report lists them.
const TO_READ_THE_LOG: [&str; 3] = ["SET @master_binlog_checksum='ALL'", "COM_REGISTER_SLAVE", "COM_BINLOG_DUMP"];

impl Look {
    fn text(&self) -> String {
        match self {
            Look::ReadOnly => "SET SESSION TRANSACTION READ ONLY",
            Look::Uuid => "SELECT @@global.server_uuid",
            Look::Lock(name) => return format!("SELECT IS_USED_LOCK({})", sql::text(name)),
            Look::Version => "SELECT VERSION()",
            Look::Clock => "SELECT UNIX_TIMESTAMP()",
            Look::LogFormat => "SELECT @@global.binlog_format",
            Look::RowImage => "SELECT @@global.binlog_row_image",
            Look::LogEnd => "SHOW MASTER STATUS",
            Look::NewLogEnd => "SHOW BINARY LOG STATUS",
            Look::LogFiles => "SHOW BINARY LOGS",
            Look::Heartbeats => "SET @master_heartbeat_period = 1000000000",
            Look::UnderstandsGtids => "SET @mariadb_slave_capability = 4",
            Look::ReadsSlowly => "SET SESSION net_write_timeout = 28800",
        }
        .to_owned()
    }

    fn listed(&self) -> String {
        match self {
            Look::Lock(_) => "SELECT IS_USED_LOCK('…')".to_owned(),
            other => other.text(),
        }
    }
}

/// A connection to production that knows the statements of [`Look`] and no others.
pub(super) struct Looker {
    server: Arc<Server>,
    conn: Conn,
    sendings: Sendings,
}

impl Looker {
    /// Connects.
    pub(super) async fn open(server: &Arc<Server>, sendings: &Sendings) -> Result<Looker> {
        let options = server.options().map_err(|error| MysqlError::Object {
            message: format!("cannot connect to the {server}: {error}"),
            hint: error.hint().to_owned(),
        })?;
        // With these two the driver asks nothing of its own.
        let options = options.max_allowed_packet(Some(1 << 30)).wait_timeout(Some(60)).tcp_keepalive(Some(Duration::from_secs(20)));
        let failed = |source| MysqlError::Connect { server: server.to_string(), source: Box::new(source) };
        let conn = within(Conn::new(options)).await.map_err(failed)?;
        let mut looker = Looker { server: server.clone(), conn, sendings: sendings.clone() };
        if looker.conn.server_version() >= (5, 6, 5) {
            looker.rows(&Look::ReadOnly).await?;
        }
        Ok(looker)
    }

    async fn rows(&mut self, look: &Look) -> Result<Vec<Row>> {
        self.sendings.count(&self.server, look.listed());
        let answer = within(self.conn.query::<Row, _>(look.text())).await;
        answer.map_err(|source| MysqlError::Statement { server: self.server.to_string(), what: look.listed(), source: Box::new(source) })
    }

    /// One value; `None` where it is NULL, or the server does not know the variable.
    pub(super) async fn ask(&mut self, look: &Look) -> Result<Option<String>> {
        match self.rows(look).await {
            Ok(rows) => Ok(rows.into_iter().next().and_then(|row| cell(&row, 0))),
            Err(error) if error.code() == Some(UNKNOWN_VARIABLE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Which server it is.
    pub(super) async fn version(&mut self) -> Result<Version> {
        Ok(Version::parse(&self.ask(&Look::Version).await?.unwrap_or_default()))
    }

    /// Where its log ends; `None` if it writes none.
    pub(super) async fn log_end(&mut self, version: &Version) -> Result<Option<Position>> {
        let look = if version.mysql_from((8, 2, 0)) { Look::NewLogEnd } else { Look::LogEnd };
        let rows = self.rows(&look).await?;
        Ok(rows.first().and_then(|row| Some(Position::new(cell(row, 0)?, cell(row, 1)?.parse::<u64>().ok()?))))
    }

    /// The files of its log, the oldest first.
    pub(super) async fn log_files(&mut self) -> Result<Vec<String>> {
        Ok(self.rows(&Look::LogFiles).await?.iter().filter_map(|row| cell(row, 0)).collect())
    }

    /// Reads its log from there on. Gives the connection away: it can't be asked anything after that.
    pub(super) async fn read_log(mut self, version: &Version, server_id: u32, start: &Position) -> Result<BinlogStream> {
        if version.mariadb || version.number >= (5, 5, 0) {
            self.rows(&Look::Heartbeats).await?;
        }
        if version.mariadb {
            self.rows(&Look::UnderstandsGtids).await?;
        }
        self.rows(&Look::ReadsSlowly).await?;
        TO_READ_THE_LOG.iter().for_each(|sent| self.sendings.count(&self.server, (*sent).to_owned()));
        let request = BinlogStreamRequest::new(server_id).with_filename(start.file.as_bytes()).with_pos(start.offset);
        let stream = within(self.conn.get_binlog_stream(request)).await;
        stream.map_err(|source| MysqlError::Statement {
            server: self.server.to_string(),
            what: format!("reading the binary log from {start}"),
            source: Box::new(source),
        })
    }

    /// Closes the connection. Whether it goes orderly is no matter: it has been asked.
    pub(super) async fn close(self) {
        let _ = self.conn.disconnect().await;
    }
}

fn cell(row: &Row, at: usize) -> Option<String> {
    row.get_opt::<Option<String>, _>(at)?.ok().flatten()
}

async fn within<T>(answer: impl Future<Output = mysql_async::Result<T>>) -> mysql_async::Result<T> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs()));
            Err(mysql_async::Error::Io(mysql_async::IoError::Io(late)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_listed_without_its_name() {
        let look = Look::Lock("dbmove_1'2".to_owned());
        assert_eq!((look.text(), look.listed()), ("SELECT IS_USED_LOCK('dbmove_1\\'2')".to_owned(), "SELECT IS_USED_LOCK('…')".to_owned()));
    }
}
