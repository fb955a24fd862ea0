//! In a rehearsal: the only ways to production, which are to look.
//!
//! # What must hold
//!
//! * There are two ways. A [`Looker`] asks who a server is, and reads its log: it sends only the statements of [`Look`]. To fill a rehearsal's
//!   source ([`fill`](super::fill)) much more is asked, by the same code that reads any source; there the server is *watched*
//!   ([`Server::watched`]): every session on it hands each statement to [`Sendings::look`] first, which lets only looks pass ([`looks`]).
//! * A connection to production is a session that can't write, where the server knows such (from 5.6.5 on).
//! * Every statement and every command is counted before it is sent, in [`Sendings`], and the report lists them all. A general log on production shows
//!   the same (`tests/copies.rs`, `tests/replay.rs`, `tests/fill.rs`).
//! * Nobody there waits for us: no lock but a name that is looked at, and none on a table but for one query. Nothing is kept for us but what a
//!   snapshot keeps, while rows are copied. The log is read as a replica reads it, by a number that no other replica has.

mod looks;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, Row};

use super::connect::{Server, Version};
use super::error::{MysqlError, Result};
use super::names::TableName;
use super::position::Position;
use super::sql;
use crate::engine::context::Checkpoints;
use crate::engine::production::{self, Sent};
use crate::engine::step::StepError;

/// How long production may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// "Unknown system variable".
const UNKNOWN_VARIABLE: u16 = 1193;

/// What has been sent to production so far; cheap to clone.
#[derive(Clone, Default)]
pub struct Sendings(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    counts: BTreeMap<(String, String), u64>,
    /// Of the run, once it is known.
    journal: Option<Arc<dyn Checkpoints>>,
}

impl fmt::Debug for Sendings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sendings").field(&self.list()).finish()
    }
}

impl Sendings {
    /// From now on every count is in the run's journal before what it counts is sent ([`crate::engine::production`]), on top of what earlier
    /// drivers sent. What was counted before that, by a plan that no run existed for, comes first.
    ///
    /// # Errors
    /// If the journal can't be read or written. Nothing may be sent then.
    pub fn keep_in(&self, checkpoints: &Arc<dyn Checkpoints>) -> std::result::Result<(), StepError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.journal.is_some() || !checkpoints.of_a_run() {
            return Ok(());
        }
        let mut counts: BTreeMap<_, _> =
            production::noted(&**checkpoints)?.into_iter().map(|sent| ((sent.server, sent.statement), sent.count)).collect();
        for (key, unkept) in &kept.counts {
            let count = counts.entry(key.clone()).or_default();
            *count += unkept;
            production::note(&**checkpoints, &Sent { server: key.0.clone(), statement: key.1.clone(), count: *count })?;
        }
        *kept = Counts { counts, journal: Some(Arc::clone(checkpoints)) };
        Ok(())
    }

    fn count(&self, server: &Server, statement: String) -> Result<()> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (server.to_string(), statement);
        let count = counts.counts.get(&key).copied().unwrap_or(0) + 1;
        if let Some(journal) = &counts.journal {
            production::note(&**journal, &Sent { server: key.0.clone(), statement: key.1.clone(), count })?;
        }
        counts.counts.insert(key, count);
        Ok(())
    }

    /// Lets a look pass, counted: the rows of a table under the table's name, anything else as it is.
    ///
    /// # Errors
    /// If it is none, or the count can't be written down. Nothing may be sent then.
    pub(super) fn look(&self, server: &Server, statement: &[u8], table: Option<&TableName>) -> Result<()> {
        let text = String::from_utf8_lossy(statement);
        if !looks::is_one(&text) {
            let shown: String = text.chars().take(200).collect();
            return Err(MysqlError::Object {
                message: format!("`{shown}` is nothing that may be sent to the {server}, which a rehearsal only looks at. It was not sent"),
                hint: "this is a mistake in dbmove; please report it".to_owned(),
            });
        }
        self.count(server, table.map_or_else(|| text.into_owned(), looks::of_rows))
    }

    /// All of it.
    #[must_use]
    pub fn list(&self) -> Vec<Sent> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = counts.counts.iter();
        sent.map(|((server, statement), &count)| Sent { server: server.clone(), statement: statement.clone(), count }).collect()
    }
}

/// All that a [`Looker`] ever sends, besides the two commands that read a log.
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
        self.sendings.count(&self.server, look.listed())?;
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
        for sent in TO_READ_THE_LOG {
            self.sendings.count(&self.server, sent.to_owned())?;
        }
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
