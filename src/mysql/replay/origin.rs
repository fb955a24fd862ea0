//! Where the events of a load come from: a server's log, read as a replica reads it, or files that were captured from one. From the event on both
//! are the same to [`log`](super::log).

use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use mysql_async::BinlogStream;
use mysql_async::binlog::events::Event;

use super::captured::{CapturedEvents, InFiles, Surveyed};
use super::window::Window;
use crate::mysql::connect::Server;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::position::Position;
use crate::mysql::production::{Looker, Sendings};
use crate::mysql::tail::stream::SILENCE;

/// A stretch of a log, and how it is read. It does not move: each pass over it reads the same.
#[derive(Debug)]
pub enum Origin {
    /// Of a server's log.
    Server(ServerLog),
    /// Of files on this machine.
    Files(Arc<Surveyed>),
}

/// A stretch of a server's log.
#[derive(Debug)]
pub struct ServerLog {
    /// Whose log.
    pub server: Arc<Server>,
    /// What is sent there is counted here.
    pub sendings: Sendings,
    /// A replica's number that nobody else uses.
    pub server_id: u32,
    /// Which stretch.
    pub window: Window,
}

/// Events, in their order.
pub enum Events<'a> {
    /// As a server sends them.
    Server(&'a ServerLog, Box<BinlogStream>),
    /// As files hold them.
    Files(Box<CapturedEvents>),
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// An event.
    Event(Box<Event>),
    /// A file begins here; what the one before left open was never ended in it.
    File(Position),
    /// There is no more. A server's log has no such end.
    End,
}

impl Origin {
    /// Where reading begins.
    #[must_use]
    pub fn start(&self) -> Position {
        match self {
            Origin::Server(log) => log.window.start.clone(),
            Origin::Files(files) => files.start(),
        }
    }

    /// Transactions that were begun before are passed over: seconds since 1970 by the clock of the server that wrote the log.
    #[must_use]
    pub fn from(&self) -> u32 {
        match self {
            Origin::Server(log) => log.window.from,
            Origin::Files(files) => files.from,
        }
    }

    /// Whether what comes behind this place is not part of it. Files end by themselves.
    #[must_use]
    pub fn ends_at(&self, position: &Position) -> bool {
        match self {
            Origin::Server(log) => *position >= log.window.end,
            Origin::Files(_) => false,
        }
    }

    /// Its events: a server's from this place on, those of files from the beginning, as they are never lost.
    ///
    /// # Errors
    /// If the server can't be reached, or refuses.
    pub async fn open(&self, position: &Position) -> Result<Events<'_>> {
        match self {
            Origin::Server(log) => {
                let looker = Looker::open(&log.server, &log.sendings).await?;
                let stream = looker.read_log(&log.window.version, log.server_id, position).await?;
                Ok(Events::Server(log, Box::new(stream)))
            }
            Origin::Files(files) => Ok(Events::Files(Box::new(CapturedEvents::of(Arc::clone(files))))),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Server(log) => log.server.fmt(f),
            Origin::Files(files) => files.fmt(f),
        }
    }
}

impl Events<'_> {
    /// What comes next. `position` is where reading is, for errors.
    ///
    /// # Errors
    /// If the server's connection is lost, which may heal, or it refuses; if a file is not what it was.
    pub async fn next(&mut self, position: &Position) -> Result<Next> {
        match self {
            Events::Server(log, stream) => log.next(stream, position).await.map(|event| Next::Event(Box::new(event))),
            Events::Files(files) => Ok(match files.next().await? {
                InFiles::Event(event) => Next::Event(Box::new(event)),
                InFiles::File(position) => Next::File(position),
                InFiles::End => Next::End,
            }),
        }
    }
}

impl ServerLog {
    async fn next(&self, stream: &mut BinlogStream, position: &Position) -> Result<Event> {
        let lost = |source| MysqlError::Statement {
            server: self.server.to_string(),
            what: format!("reading the binary log from {position}"),
            source: Box::new(source),
        };
        let gone = |why: &str| {
            let source = std::io::Error::new(std::io::ErrorKind::ConnectionReset, why.to_owned());
            lost(mysql_async::Error::Io(mysql_async::IoError::Io(source)))
        };
        match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Some(event)) => event.map_err(lost),
            Ok(None) => Err(gone("the server ended the stream")),
            Err(_) => Err(gone("the server has been silent, heartbeats too")),
        }
    }
}
