//! Private real servers, for `dbmove demo` and for every test: databases, and what stands between them and their clients.
//!
//! Nothing is mocked that can be run: a [`LocalServer`] is an actual `mysqld` or `mariadbd` process that belongs to
//! this process, listens on a loopback port of its own, and keeps its data in a directory the caller names.
//!
//! - [`kind`]: which servers there are.
//! - [`installation`]: where `fixtures/servers/fetch` left their programs, and how each is run.
//! - [`options`]: how a server is to be set up; the command line made from it.
//! - [`accounts`]: the accounts each server comes with, and what makes a target RDS-like.
//! - [`template`]: a server is initialised once; each start copies that template.
//! - [`keeper`]: starts processes so that they die with this one, `kill -9` included.
//! - [`server`]: start, stop, kill, restart.
//! - [`program`]: the same for servers that are no databases:
//!   [`proxy`] (HAProxy in front of such servers), [`prometheus`], [`name_server`] (BIND).
//! - [`php()`]: PHP as a client of them.
//!
//! A server that was not fetched is not an error of the tests: [`available`] says why it cannot be had, and what
//! gets it, so that a test can skip loudly.

mod accounts;
mod installation;
mod keeper;
mod kind;
mod name_server;
mod options;
mod php;
mod program;
mod prometheus;
mod proxy;
mod server;
mod template;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use accounts::{Account, DEFAULT_PASSWORD};
pub use kind::ServerKind;
pub use name_server::{LocalNameServer, name_server_available};
pub use options::ServerOptions;
pub use php::{NoPhp, php};
pub use program::ProgramError;
pub use prometheus::{LocalPrometheus, prometheus_available};
pub use proxy::{LocalProxy, proxy_available};
pub use server::LocalServer;

/// Says whether a server of this kind can be started here; if not, why, and what gets it.
///
/// # Errors
/// A sentence for a person: what is missing and the command that brings it.
pub fn available(kind: ServerKind) -> Result<(), String> {
    installation::Installation::find(kind).map(|_| ()).map_err(|error| error.to_string())
}

/// Why a private server could not be started or steered.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The server's programs are not in the cache.
    #[error("{kind} is not in the cache at `{}`: run `fixtures/servers/fetch {}`", path.display(), kind.cache_name())]
    NotFetched {
        /// The server asked for.
        kind: ServerKind,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Neither `DBMOVE_CACHE` nor `HOME` says where the cache is.
    #[error("cannot tell where the server cache is: set `DBMOVE_CACHE`, or `HOME`")]
    NoCache,
    /// A program that comes with the server, or with the system, is not there.
    #[error("{kind} comes without the program `{program}`")]
    NoProgram {
        /// The server whose program was asked for.
        kind: ServerKind,
        /// The program's name.
        program: String,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be run at all.
    #[error("cannot run `{program}`")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("`{program}` failed ({status}) while it {action}; it said:\n{output}")]
    Failed {
        /// The program.
        program: String,
        /// What it was doing.
        action: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// The server process ended before it answered.
    #[error("{kind} ended ({status}) instead of starting; the end of its error log:\n{log}")]
    Died {
        /// The server.
        kind: ServerKind,
        /// Its exit status.
        status: String,
        /// The end of its error log.
        log: String,
    },
    /// The server process lives but did not answer in time.
    #[error("{kind} did not answer on port {port} within {waited:?} ({reason}); the end of its error log:\n{log}")]
    NoAnswer {
        /// The server.
        kind: ServerKind,
        /// The loopback port it should answer on.
        port: u16,
        /// How long it was given.
        waited: Duration,
        /// The last thing that went wrong when asking.
        reason: String,
        /// The end of its error log.
        log: String,
    },
    /// No free loopback port was found, or the server's own port was taken while it was down.
    #[error("{kind} cannot have loopback port {port}: another program listens on it")]
    PortTaken {
        /// The server.
        kind: ServerKind,
        /// The port.
        port: u16,
    },
    /// A statement that sets the server up was refused.
    #[error("{kind} refused to {action}")]
    Sql {
        /// The server.
        kind: ServerKind,
        /// What was being set up.
        action: String,
        /// What the server said.
        source: mysql_async::Error,
    },
}
