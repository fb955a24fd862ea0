//! A private server that is no database: started, waited for, killed.
//!
//! What HAProxy, Prometheus and BIND have in common: a directory of the caller's with a configuration written into it, one process
//! in the foreground whose output goes into a file there, ready when it answers in its own way. It listens on loopback only,
//! ends with this process (`kill -9` included), and is killed when the value is dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::installation::{cache_directory, debian_command, debian_loader};
use super::{keeper, server};

/// Between two looks whether it is ready.
const POLL: Duration = Duration::from_millis(10);

/// Why such a server could not be started or asked.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not in the cache.
    #[error("{program} is not in the cache: run `fixtures/servers/fetch {cache_name}`")]
    NotFetched {
        /// What it is.
        program: &'static str,
        /// What `fixtures/servers/fetch` calls it.
        cache_name: &'static str,
    },
    /// A file operation, or a control socket.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be run, or waited for.
    #[error("cannot run {program}")]
    Run {
        /// What it is.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It ended, or stayed silent, instead of starting.
    #[error("{program} did not start; it said:\n{log}")]
    NotStarted {
        /// What it is.
        program: &'static str,
        /// What it printed.
        log: String,
    },
    /// No loopback port is free.
    #[error("no free loopback port was found")]
    NoPort,
}

/// One such program: what it is, what the cache calls it, where it is in there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    /// For people.
    pub(super) name: &'static str,
    /// What `fixtures/servers/fetch` calls it.
    pub(super) cache_name: &'static str,
    /// Its path in the fetched tree.
    pub(super) path: &'static str,
    /// From the start of the process until it answers.
    pub(super) start_limit: Duration,
}

impl Program {
    /// The command that runs it, on the libraries it was fetched with.
    pub(super) fn command(&self) -> Result<Command, ProgramError> {
        let not_fetched = ProgramError::NotFetched { program: self.name, cache_name: self.cache_name };
        let Ok(cache) = cache_directory() else { return Err(not_fetched) };
        let root = cache.join("servers").join(self.cache_name);
        let program = root.join(self.path);
        if !program.exists() {
            return Err(not_fetched);
        }
        Ok(match debian_loader(&root) {
            Some(loader) => debian_command(&root, &loader, &program),
            None => Command::new(program),
        })
    }

    /// Says whether it can be started here; if not, why, and what gets it.
    pub(super) fn available(&self) -> Result<(), String> {
        self.command().map(drop).map_err(|error| error.to_string())
    }

    /// Starts `command` in `directory`, which holds what it needs, and waits until it is `ready`.
    pub(super) async fn start(&self, mut command: Command, directory: &Path, ready: impl Fn() -> bool) -> Result<Running, ProgramError> {
        let log = directory.join(format!("{}.log", self.cache_name));
        let output = std::fs::File::create(&log).map_err(|source| ProgramError::File { action: "create", path: log.clone(), source })?;
        let failed = |source| ProgramError::Run { program: self.name, source };
        command.current_dir(directory);
        let child = keeper::start(command, output, true).await.map_err(failed)?;
        let mut running = Running { directory: directory.to_owned(), log, child };
        let began = Instant::now();
        while !ready() {
            let ended = running.child.try_wait().map_err(failed)?.is_some();
            if ended || began.elapsed() > self.start_limit {
                return Err(ProgramError::NotStarted { program: self.name, log: running.log() });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(running)
    }
}

/// Writes one file of its configuration.
pub(super) fn write(directory: &Path, name: &str, text: &str) -> Result<(), ProgramError> {
    let path = directory.join(name);
    std::fs::write(&path, text).map_err(|source| ProgramError::File { action: "write", path, source })
}

/// A loopback port nothing listens on at this moment.
pub(super) fn free_port() -> Result<u16, ProgramError> {
    server::free_port().map_err(|_| ProgramError::NoPort)
}

/// The process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) directory: PathBuf,
    log: PathBuf,
    child: Child,
}

impl Running {
    /// Whether the process still runs: one that crashed does not.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has printed.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as `kill -9` would, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
