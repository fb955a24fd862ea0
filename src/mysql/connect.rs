//! Opening sessions on a server, each prepared for what it is used for and proven to be so.
//!
//! A session that reads or writes rows runs in UTC with `NAMES binary`: bytes stay bytes, and no
//! value depends on the server's own time zone or charset. `sql_mode` is `ALLOW_INVALID_DATES` for reading (no
//! strict mode, which may refuse to print an old date; and a stored `2010-02-31` that is part of a key has to be found by it: without
//! that mode MySQL 8+ refuses the question, and 5.5 looks in the wrong partition), with
//! `NO_AUTO_VALUE_ON_ZERO` for writing (a stored 0 stays 0). What was set is read back: a proxy or an `init_connect` that
//! changes it would change data silently.
//!
//! Warnings are errors here: [`Session::write`] looks at the warning count of every statement.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use secrecy::{ExposeSecret, SecretString};

use super::error::{MysqlError, Result};
use super::names::TableName;
use super::production::Sendings;
use super::sql;
use super::tls::{Protection, ProtectionError};

/// Where a server is and who we are there. Resolved: no `${…}` in it any more.
#[derive(Clone)]
pub struct Server {
    /// `source` or `target`, with the store's name: for messages.
    pub role: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Password, if the account has one.
    pub password: Option<SecretString>,
    /// How the connection is protected.
    pub tls: Protection,
    /// Set where it is production, which a rehearsal may only look at: sessions there send nothing but looks, each counted here.
    pub watched: Option<Sendings>,
}

impl Server {
    /// `source` or `target`, without the store's name.
    #[must_use]
    pub fn side(&self) -> &str {
        self.role.split(' ').next().unwrap_or_default()
    }

    /// What the driver has to be told to connect there as this account.
    ///
    /// # Errors
    /// [`ProtectionError`], if the authorities' file is not what it was.
    pub fn options(&self) -> std::result::Result<OptsBuilder, ProtectionError> {
        Ok(OptsBuilder::default()
            .ip_or_hostname(self.host.clone())
            .tcp_port(self.port)
            .user(Some(self.user.clone()))
            .pass(self.password.as_ref().map(|password| password.expose_secret().to_owned()))
            .prefer_socket(false)
            // Accounts of old servers may still have passwords of the old kind.
            .secure_auth(false)
            .ssl_opts(self.tls.options()?))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}@{}:{}`", self.role, self.user, self.host, self.port)
    }
}

/// What a session is for, which decides its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reads rows.
    Read,
    /// Writes rows.
    Write,
    /// Reads the catalog and runs DDL: text is UTF-8.
    Catalog,
}

/// Which family a server belongs to, and its version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// MariaDB, or MySQL and what is built from it (RDS, Aurora, Percona).
    pub mariadb: bool,
    /// Major, minor, patch.
    pub number: (u16, u16, u16),
    /// As the server prints it.
    pub text: String,
}

impl Version {
    /// From what `SELECT VERSION()` gives.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mariadb = text.to_ascii_lowercase().contains("mariadb");
        // Replication-compatible MariaDB servers print `5.5.5-10.11.6-MariaDB`.
        let plain = if mariadb { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        let mut parts = plain.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        Version { mariadb, number: (next(), next(), next()), text: text.to_owned() }
    }

    /// MySQL (not MariaDB) of at least this version.
    #[must_use]
    pub fn mysql_from(&self, number: (u16, u16, u16)) -> bool {
        !self.mariadb && self.number >= number
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.mariadb { "MariaDB" } else { "MySQL" }, self.text)
    }
}

/// One open connection with known settings.
pub struct Session {
    conn: Conn,
    server: Arc<Server>,
    purpose: Purpose,
    /// The server's version.
    pub version: Version,
    /// Its `max_allowed_packet`, in bytes: a statement is shorter than that by more than a byte.
    packet: usize,
}

/// What a writing statement did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Rows affected.
    pub affected: u64,
    /// Warnings the server counted.
    pub warnings: u16,
    /// `Records: 5  Deleted: 0  Skipped: 1  Warnings: 1`, where the server says so.
    pub info: String,
}

/// A row of text values, as the catalog gives them: NULL is `None`.
pub type TextRow = Vec<Option<String>>;

/// Warnings that say something of the statement or the schema is deprecated, and nothing of values.
pub const DEPRECATIONS: [u16; 5] = [1287, 1681, 3719, 3778, 4079];

/// "Invalid … character string".
const NO_CHARACTER: u16 = 1300;

/// What every server takes at least: the least that `max_allowed_packet` of an old one is by default.
const SMALLEST_PACKET: usize = 1 << 20;

/// Settings that are taken where the server has them.
const OPTIONAL: [&str; 4] = [
    "SET SESSION max_error_count = 65535",
    "SET SESSION max_statement_time = 0",
    "SET SESSION max_execution_time = 0",
    "SET SESSION in_predicate_conversion_threshold = 0",
];

/// How long a writer waits for a row, in seconds; nobody can say where InnoDB is the one built into 5.1, and where there is none.
const ROW_PATIENCE: &str = "SET SESSION innodb_lock_wait_timeout = 20";

/// Whether a server does without an optional setting: it does not know it (1193), or has it for all sessions at once (1238), or our account may
/// not set it (1227). The default is fine.
fn is_spared(error: &MysqlError) -> bool {
    matches!(error.code(), Some(1193 | 1227 | 1238))
}

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

impl Session {
    /// Opens a connection and sets it up.
    ///
    /// # Errors
    /// If the server can't be reached, refuses the account, or does not take the settings.
    pub async fn open(server: &Arc<Server>, purpose: Purpose) -> Result<Session> {
        let failed = |source: mysql_async::Error| MysqlError::Connect { server: server.to_string(), source: Box::new(source) };
        let options = server.options().map_err(|error| MysqlError::Object {
            message: format!("cannot connect to the {server}: {error}"),
            hint: error.hint().to_owned(),
        })?;
        let options = options
            .client_found_rows(true)
            .stmt_cache_size(64)
            .tcp_keepalive(Some(Duration::from_secs(20)))
            .max_allowed_packet(Some(1 << 30))
            .wait_timeout(Some(28_800));
        let conn = match tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(options)).await {
            Ok(opened) => opened.map_err(failed)?,
            Err(_) => {
                let late = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
                return Err(failed(mysql_async::Error::Io(mysql_async::IoError::Io(late))));
            }
        };
        let mut session = Session { conn, server: server.clone(), purpose, version: Version::parse(""), packet: usize::MAX };
        if server.watched.is_some() && session.conn.server_version() >= (5, 6, 5) {
            session.run("SET SESSION TRANSACTION READ ONLY", "setting up the session").await?;
        }
        session.set_up().await?;
        Ok(session)
    }

    async fn set_up(&mut self) -> Result<()> {
        let sql_mode = match self.purpose {
            Purpose::Catalog => "",
            Purpose::Read => "ALLOW_INVALID_DATES",
            Purpose::Write => "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES",
        };
        let charset = match self.purpose {
            Purpose::Catalog => "utf8",
            Purpose::Read | Purpose::Write => "binary",
        };
        self.run(&format!("SET NAMES {charset}"), "setting up the session").await?;
        let mut settings = format!(
            "SET SESSION time_zone = '+00:00', sql_mode = '{sql_mode}', wait_timeout = 28800, net_write_timeout = 600, net_read_timeout = 600, autocommit = 1"
        );
        if self.purpose == Purpose::Write {
            settings.push_str(", foreign_key_checks = 0");
        }
        self.run(&settings, "setting up the session").await?;
        for optional in OPTIONAL.into_iter().chain((self.purpose == Purpose::Write).then_some(ROW_PATIENCE)) {
            if let Err(error) = self.run(optional, "setting up the session").await
                && !is_spared(&error)
            {
                return Err(error);
            }
        }
        let row = self
            .rows(
                "SELECT VERSION(), @@session.time_zone, @@session.sql_mode, @@session.character_set_client, @@session.max_allowed_packet",
                "reading the session back",
            )
            .await?;
        let value = |index: usize| row.first().and_then(|row| row.get(index)).and_then(Clone::clone).unwrap_or_default();
        self.version = Version::parse(&value(0));
        self.packet = value(4).parse().unwrap_or(SMALLEST_PACKET);
        let expect_charset = |actual: &str| actual == charset || (charset == "utf8" && actual == "utf8mb3");
        for (setting, expected, actual, fine) in [
            ("time_zone", "+00:00", value(1), value(1) == "+00:00"),
            ("sql_mode", sql_mode, value(2), value(2) == sql_mode),
            ("character_set_client", charset, value(3), expect_charset(&value(3))),
        ] {
            if !fine {
                return Err(MysqlError::Setting {
                    server: self.server.to_string(),
                    setting: format!("session {setting}"),
                    expected: expected.to_owned(),
                    actual,
                    hint: "something between dbmove and the server changes session settings (a proxy, `init_connect`); connect to the server directly".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The server behind it.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The server's number for this connection (`SHOW PROCESSLIST`).
    #[must_use]
    pub fn id(&self) -> u32 {
        self.conn.id()
    }

    /// The driver's connection, for streaming reads. Settings must not be changed through it, and what is asked through it has to be told
    /// to [`Session::reads`] before.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Gives the driver's connection away (for the binary log stream).
    #[must_use]
    pub fn into_conn(self) -> Conn {
        self.conn
    }

    /// Wraps a driver error with what was being done.
    pub fn error(&self, what: impl Into<String>, source: mysql_async::Error) -> MysqlError {
        MysqlError::Statement { server: self.server.to_string(), what: what.into(), source: Box::new(source) }
    }

    /// The server's `max_allowed_packet` for this connection, in bytes.
    #[must_use]
    pub fn packet(&self) -> usize {
        self.packet
    }

    /// Whether the server takes a statement of so many bytes. It closes the connection over a longer one, often before it has said why.
    #[must_use]
    pub fn takes(&self, bytes: usize) -> bool {
        // One byte says that it is a statement, and the whole has to be shorter than the limit.
        bytes.saturating_add(1) < self.packet
    }

    /// That `what` takes a statement of so many bytes, too long for the server; `streams` if the row could go as a stream.
    pub(super) fn too_long(&self, what: String, bytes: usize, streams: bool) -> MysqlError {
        MysqlError::TooLong { server: self.server.to_string(), what, bytes, packet: self.packet, streams }
    }

    /// To be called before a statement is sent: the server has to take it; on production it has to be a look, and is counted.
    fn sends(&self, what: &str, statement: &[u8]) -> Result<()> {
        if !self.takes(statement.len()) {
            return Err(self.too_long(what.to_owned(), statement.len(), false));
        }
        match &self.server.watched {
            Some(sendings) => sendings.look(&self.server, statement, None),
            None => Ok(()),
        }
    }

    /// The same of a query for rows of this table.
    pub(super) fn reads(&self, table: &TableName, query: &str) -> Result<()> {
        match &self.server.watched {
            Some(sendings) => sendings.look(&self.server, query.as_bytes(), Some(table)),
            None => Ok(()),
        }
    }

    /// Runs a statement whose result does not matter (settings, transaction control).
    ///
    /// # Errors
    /// If the server refuses it or the connection breaks.
    pub async fn run(&mut self, statement: &str, what: &str) -> Result<()> {
        self.sends(what, statement.as_bytes())?;
        match self.conn.query_drop(statement).await {
            Ok(()) => Ok(()),
            Err(source) => Err(self.error(what, source)),
        }
    }

    /// Runs a statement that changes data or schema. A warning is an error.
    ///
    /// # Errors
    /// As [`Session::run`], and [`MysqlError::Warnings`].
    pub async fn write(&mut self, statement: &[u8], what: &str) -> Result<Written> {
        self.write_but_for(&[], statement, what).await
    }

    /// As [`Session::write`], for a statement whose literals are only keys to find rows by. Servers from 8.0 on warn of a literal
    /// with bytes that its character set has no character for, such as `_cp1257 X'81'`, and find the row all the same.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub async fn write_by_key(&mut self, statement: &[u8], what: &str) -> Result<Written> {
        self.write_but_for(&[NO_CHARACTER], statement, what).await
    }

    async fn write_but_for(&mut self, excused: &[u16], statement: &[u8], what: &str) -> Result<Written> {
        let written = self.write_unchecked(statement, what).await?;
        if written.warnings > 0 {
            let mut warnings = self.warnings().await?;
            warnings.retain(|(code, _)| !DEPRECATIONS.contains(code) && !excused.contains(code));
            if warnings.is_empty() {
                return Ok(written);
            }
            let worded = warnings.iter().take(5).map(|(code, text)| format!("{code} {text}")).collect::<Vec<_>>().join("; ");
            return Err(MysqlError::Warnings { server: self.server.to_string(), what: what.to_owned(), warnings: worded });
        }
        Ok(written)
    }

    /// Runs a statement that changes data; the caller judges the warnings ([`Session::warnings`]).
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn write_unchecked(&mut self, statement: &[u8], what: &str) -> Result<Written> {
        self.sends(what, statement)?;
        match self.conn.query_drop(statement).await {
            Ok(()) => {
                Ok(Written { affected: self.conn.affected_rows(), warnings: self.conn.get_warnings(), info: self.conn.info().into_owned() })
            }
            Err(source) => Err(self.error(what, source)),
        }
    }

    /// The warnings of the last statement: number and text.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn warnings(&mut self) -> Result<Vec<(u16, String)>> {
        self.sends("reading the warnings", b"SHOW WARNINGS")?;
        let rows: Vec<(String, u16, Vec<u8>)> = match self.conn.query("SHOW WARNINGS").await {
            Ok(rows) => rows,
            Err(source) => return Err(self.error("reading the warnings", source)),
        };
        Ok(rows.into_iter().map(|(_, code, text)| (code, String::from_utf8_lossy(&text).into_owned())).collect())
    }

    /// Reads a small result as text.
    ///
    /// # Errors
    /// If the server refuses the query or the connection breaks.
    pub async fn rows(&mut self, query: &str, what: &str) -> Result<Vec<TextRow>> {
        self.sends(what, query.as_bytes())?;
        let rows: Vec<mysql_async::Row> = match self.conn.query(query).await {
            Ok(rows) => rows,
            Err(source) => return Err(self.error(what, source)),
        };
        rows.into_iter().map(text_row).collect::<Option<_>>().ok_or_else(|| MysqlError::missing_value(&format!("{}: {what}", self.server)))
    }

    /// Reads a small result as the bytes that came: definitions whose charset is not the session's.
    ///
    /// # Errors
    /// If the server refuses the query or the connection breaks.
    pub async fn cells(&mut self, query: &str, what: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
        self.sends(what, query.as_bytes())?;
        let rows: Vec<mysql_async::Row> = match self.conn.query(query).await {
            Ok(rows) => rows,
            Err(source) => return Err(self.error(what, source)),
        };
        let bytes = |value: mysql_async::Value| match value {
            mysql_async::Value::Bytes(bytes) => Some(Some(bytes)),
            value => text_cell(value).map(|text| Some(text.into_bytes())).or(Some(None)),
        };
        let row = |row: mysql_async::Row| row.unwrap_raw().into_iter().map(|value| value.and_then(bytes)).collect::<Option<_>>();
        rows.into_iter().map(row).collect::<Option<_>>().ok_or_else(|| MysqlError::missing_value(&format!("{}: {what}", self.server)))
    }

    /// The first row of a small result.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn first(&mut self, query: &str, what: &str) -> Result<Option<TextRow>> {
        Ok(self.rows(query, what).await?.into_iter().next())
    }

    /// A global variable, or `None` if this server does not have it.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn global_variable(&mut self, name: &str) -> Result<Option<String>> {
        let query = format!("SHOW GLOBAL VARIABLES LIKE {}", sql::text(name));
        let rows = self.rows(&query, &format!("reading `{name}`")).await?;
        Ok(rows
            .into_iter()
            .find(|row| row.first().is_some_and(|cell| cell.as_deref() == Some(name)))
            .and_then(|mut row| row.pop())
            .flatten())
    }

    /// Closes the connection politely.
    pub async fn close(self) {
        // A server that is gone already has closed it for us.
        let _ = self.conn.disconnect().await;
    }
}

/// Values as text; bytes that are not UTF-8 are shown with replacement characters. `None` if a value is missing.
fn text_row(row: mysql_async::Row) -> Option<TextRow> {
    row.unwrap_raw().into_iter().map(|value| value.map(text_cell)).collect()
}

fn text_cell(value: mysql_async::Value) -> Option<String> {
    Some(match value {
        mysql_async::Value::NULL => return None,
        mysql_async::Value::Bytes(bytes) => match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        },
        mysql_async::Value::Int(value) => value.to_string(),
        mysql_async::Value::UInt(value) => value.to_string(),
        mysql_async::Value::Float(value) => value.to_string(),
        mysql_async::Value::Double(value) => value.to_string(),
        other => other.as_sql(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_every_family() {
        assert_eq!(Version::parse("5.5.34-log").number, (5, 5, 34));
        assert!(!Version::parse("5.1.63-0ubuntu0.10.04.1-log").mariadb);
        let mariadb = Version::parse("5.5.5-10.11.14-MariaDB-0+deb12u2-log");
        assert!(mariadb.mariadb);
        assert_eq!(mariadb.number, (10, 11, 14));
        assert!(Version::parse("9.7.4-1").mysql_from((8, 4, 0)));
        assert!(!mariadb.mysql_from((8, 4, 0)));
    }

    #[test]
    fn a_server_prints_without_its_password() {
        let server = Server {
            role: "source of `school`".into(),
            host: "db1".into(),
            port: 3306,
            user: "dbmove".into(),
            password: Some("s3cret".to_owned().into()),
            tls: Protection::Off,
            watched: None,
        };
        assert_eq!(format!("{server:?}"), "source of `school` `dbmove@db1:3306`");
    }
}
