//! What can go wrong with a MySQL server, and whether trying again can help.
//!
//! Every error names the server (by its role and address) and the object. [`MysqlError::transient`]
//! is the one place that decides whether a failure may heal by itself.

use crate::engine::step::{Failure, StepError};

use super::definitions::Change;
use super::names::TableName;
use super::position::Position;

/// Result of this module's functions.
pub type Result<T> = std::result::Result<T, MysqlError>;

/// A failure while talking to a server or about what it holds.
#[derive(Debug, thiserror::Error)]
pub enum MysqlError {
    /// No connection could be opened.
    #[error("cannot connect to the {server}: {}", plain(.source))]
    Connect {
        /// Role and address.
        server: String,
        /// The driver's error.
        source: Box<mysql_async::Error>,
    },
    /// A statement failed.
    #[error("{server}: {what}: {}", plain(.source))]
    Statement {
        /// Role and address.
        server: String,
        /// What dbmove was doing, object names in backticks.
        what: String,
        /// The driver's error.
        source: Box<mysql_async::Error>,
    },
    /// A statement went through with warnings that mean a changed or lost value.
    #[error("{server}: {what}: the server warned: {warnings}. Nothing of this statement was kept")]
    Warnings {
        /// Role and address.
        server: String,
        /// What dbmove was doing.
        what: String,
        /// The warnings, as the server worded them.
        warnings: String,
    },
    /// A statement that is longer than the server takes. It was not sent: the server would close the connection, often before it has said why.
    #[error(
        "{server}: {what}: that takes a statement of {bytes} bytes, and the server takes less than {packet} (`max_allowed_packet`). It was not sent"
    )]
    TooLong {
        /// Role and address.
        server: String,
        /// What dbmove was doing, object names in backticks.
        what: String,
        /// Bytes of the statement.
        bytes: usize,
        /// The server's `max_allowed_packet`.
        packet: usize,
        /// Whether it is a row that could go as a stream if the server took any.
        streams: bool,
    },
    /// A server setting is not as it must be.
    #[error("{server}: `{setting}` is `{actual}`, it has to be `{expected}`")]
    Setting {
        /// Role and address.
        server: String,
        /// The variable.
        setting: String,
        /// What it has to be.
        expected: String,
        /// What it is.
        actual: String,
        /// What to do.
        hint: String,
    },
    /// A named object cannot be handled as it is.
    #[error("{message}")]
    Object {
        /// The object and what is wrong with it.
        message: String,
        /// What to do.
        hint: String,
    },
    /// An event in the binary log that must stop the run.
    #[error("binary log at {position}: {message}")]
    Stream {
        /// Where the event ends.
        position: Position,
        /// What was found.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A statement in the binary log by which tables begin anew: no failure, following goes on once that is done.
    #[error("binary log at {}: {}", .0.position, .0.statement)]
    DefinitionChanged(Box<Change>),
    /// The target does not hold what it must hold at this point.
    #[error("`{table}` on the target: {message}")]
    Drift {
        /// The table.
        table: TableName,
        /// What was found.
        message: String,
    },
    /// Another driver has taken over.
    #[error("{0}")]
    LeaseLost(String),
    /// The work was asked to stop.
    #[error("stopped on request")]
    Cancelled,
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// Server errors that may heal: too many connections, lock wait, deadlock, shutdown and start-up, killed statements and connections.
const TRANSIENT_CODES: &[u16] = &[
    1040, 1041, 1053, 1077, 1078, 1079, 1080, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226, 1317, 1927, 2002, 2003, 2006, 2013, 3168,
    3169,
];

/// The driver's error as people read it: it prefixes what the system said with "Input/output error", twice.
fn plain(error: &mysql_async::Error) -> String {
    match error {
        mysql_async::Error::Io(mysql_async::IoError::Io(error)) => error.to_string(),
        other => other.to_string(),
    }
}

/// Whether TLS failed for what the server showed, and not for the network: trying again can't help.
fn distrusted(error: &mysql_async::IoError) -> bool {
    match error {
        mysql_async::IoError::Tls(_) => true,
        // So the TLS library reports what it read and could not accept.
        mysql_async::IoError::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
    }
}

impl MysqlError {
    /// The source's binary log is not the one that was followed, whatever its files are called.
    pub(in crate::mysql) fn another_log(position: &Position, why: &str) -> MysqlError {
        MysqlError::Stream {
            position: position.clone(),
            message: format!("the source's binary log is not the one that was followed: {why}. Nothing of it was applied"),
            hint: "somebody ran `RESET MASTER`, or this is another server or one put back from a backup: what happened in between is not known. Give this run up with `dbmove undo PLAYBOOK`, which drops what it made on the target, then start again with `dbmove run PLAYBOOK --new-run`".to_owned(),
        }
    }

    /// A row without one of its values: the driver has no other word for it than a panic, and a NULL would be a lie.
    pub(super) fn missing_value(of: &str) -> MysqlError {
        MysqlError::Object {
            message: format!("{of}: a row came without one of its values. The row was not used"),
            hint: "start the command again; if it happens again, report it as a mistake of dbmove's".to_owned(),
        }
    }

    /// A server's warning counts the rows of its statement ("at row 7"), from 1. With the row's name a person can find it.
    pub(super) fn at_row(self, name: impl FnOnce(usize) -> Option<String>) -> MysqlError {
        let MysqlError::Warnings { server, what, warnings } = self else { return self };
        let digits = warnings.split_once(" at row ").map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        let row = digits.and_then(|digits| digits.parse::<usize>().ok()).and_then(|row| name(row.checked_sub(1)?));
        let warnings = row.map_or_else(|| warnings.clone(), |row| format!("{warnings} (the first: {row})"));
        MysqlError::Warnings { server, what, warnings }
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn transient(&self) -> bool {
        match self {
            MysqlError::Connect { source, .. } | MysqlError::Statement { source, .. } => match source.as_ref() {
                mysql_async::Error::Io(error) => !distrusted(error),
                mysql_async::Error::Driver(error) => matches!(
                    error,
                    mysql_async::DriverError::ConnectionClosed
                        | mysql_async::DriverError::PacketOutOfOrder
                        | mysql_async::DriverError::PoolDisconnected
                ),
                mysql_async::Error::Server(error) => TRANSIENT_CODES.contains(&error.code),
                _ => false,
            },
            MysqlError::Step(error) => error.failure == Failure::Transient,
            _ => false,
        }
    }

    /// The server's error number, where the server said no.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            MysqlError::Connect { source, .. } | MysqlError::Statement { source, .. } => match source.as_ref() {
                mysql_async::Error::Server(error) => Some(error.code),
                _ => None,
            },
            _ => None,
        }
    }

    /// What to do next, where there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let fixed = match self {
            MysqlError::TooLong { bytes, streams, .. } => {
                let wanted = bytes.saturating_add(2).next_power_of_two();
                let or = if *streams { ", or let it take rows as a stream: `SET GLOBAL local_infile = ON`" } else { "" };
                return Some(format!(
                    "raise it there (`SET GLOBAL max_allowed_packet = {wanted}`, and in its configuration; on RDS in the parameter group){or}"
                ));
            }
            MysqlError::Setting { hint, .. } | MysqlError::Object { hint, .. } | MysqlError::Stream { hint, .. } => {
                return Some(hint.clone());
            }
            MysqlError::Warnings { warnings, .. } if warnings.contains("Incorrect string value") => {
                "the source holds bytes that are no text in the column's character set, and the target does not take them: correct them on the source, or make the column VARBINARY or BLOB there; `dbmove assess PLAYBOOK --deep` names all such columns. If they came by the log they are still in it: drop on the target the databases that this run made and `_dbmove`, then start again with `dbmove run PLAYBOOK --new-run`"
            }
            MysqlError::LeaseLost(_) => "another `dbmove` drives this run; look at it with `dbmove status`",
            MysqlError::Drift { .. } => {
                "something else wrote to the target, or its schema was changed; `dbmove verify PLAYBOOK` names every differing row"
            }
            MysqlError::Connect { source, .. } if matches!(source.as_ref(), mysql_async::Error::Io(error) if distrusted(error)) => {
                "the server's identity could not be proven: check `ca` (for RDS and Aurora Amazon's `global-bundle.pem`) and that the url has the name that is in its certificate"
            }
            MysqlError::Connect { source, .. }
                if matches!(source.as_ref(), mysql_async::Error::Driver(mysql_async::DriverError::NoClientSslFlagFromServer)) =>
            {
                "the server offers no TLS: turn it on there, or say `tls: off` if the network between is private"
            }
            MysqlError::Connect { source, .. } if matches!(source.as_ref(), mysql_async::Error::Io(_)) => {
                "check host and port, that the server runs, and that it can be reached from here"
            }
            _ => match self.code() {
                Some(1044 | 1142 | 1143 | 1227 | 1370) => "the account lacks a privilege; the statement above says which",
                Some(1045 | 1698) => "check user, password and the host the account is allowed from",
                Some(1049) => "check the database name",
                Some(1130) => "the server does not allow this host; check the account's host part",
                Some(1236) if !self.to_string().contains("Could not find first log") => {
                    if self.to_string().contains("impossible position") {
                        "the source's log ends before the saved position: somebody ran `RESET MASTER`, or the server lost the end of its log in a crash (`sync_binlog`). Give this run up with `dbmove undo PLAYBOOK`, which drops what it made on the target, then start again with `dbmove run PLAYBOOK --new-run`"
                    } else {
                        "the source ended the binary log for the reason it gives above; if that does not heal, give this run up with `dbmove undo PLAYBOOK`, which drops what it made on the target, then start again with `dbmove run PLAYBOOK --new-run`"
                    }
                }
                Some(1236) => {
                    "the binary log that is needed is gone; keep logs longer (`expire_logs_days`, on RDS `mysql.rds_set_configuration('binlog retention hours', …)`) and start again"
                }
                _ => return None,
            },
        };
        Some(fixed.to_owned())
    }
}

impl From<MysqlError> for StepError {
    fn from(error: MysqlError) -> Self {
        if let MysqlError::Step(inner) = error {
            return inner;
        }
        let failure = match &error {
            MysqlError::Cancelled => Failure::Cancelled,
            MysqlError::LeaseLost(_) => Failure::LeaseLost,
            error if error.transient() => Failure::Transient,
            _ => Failure::Definite,
        };
        let hint = error.hint();
        StepError { failure, message: error.to_string(), hint }
    }
}
