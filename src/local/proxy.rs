//! A private HAProxy in TCP mode, in front of private servers.
//!
//! It is started with a configuration of the caller's, which says where it listens and whom it leads to; a port that nothing
//! listens on comes from [`LocalProxy::free_port`]. As the servers do, it listens on loopback only, ends with this process
//! (`kill -9` included), and is killed when the value is dropped. It is ready when its control socket answers.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::installation::{cache_directory, debian_command, debian_loader};
use super::{keeper, server};

/// What `fixtures/servers/fetch` calls it.
const CACHE_NAME: &str = "haproxy-2.6";
/// From the start of the process until its control socket answers.
const START_LIMIT: Duration = Duration::from_secs(20);
/// One question on the control socket.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Why a private HAProxy could not be started or asked.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Its programs are not in the cache.
    #[error("HAProxy is not in the cache: run `fixtures/servers/fetch {CACHE_NAME}`")]
    NotFetched,
    /// A file operation, or the control socket.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended, or stayed silent, instead of starting.
    #[error("HAProxy did not start; it said:\n{log}")]
    NotStarted {
        /// What it printed.
        log: String,
    },
    /// No loopback port is free.
    #[error("no free loopback port was found")]
    NoPort,
}

/// Says whether HAProxy can be started here; if not, why, and what gets it.
///
/// # Errors
/// A sentence for a person.
pub fn proxy_available() -> Result<(), String> {
    program().map(drop).map_err(|error| error.to_string())
}

fn program() -> Result<Command, ProxyError> {
    let root = cache_directory().map_err(|_| ProxyError::NotFetched)?.join("servers").join(CACHE_NAME);
    let program = root.join("usr/sbin/haproxy");
    match debian_loader(&root) {
        Some(loader) if program.exists() => Ok(debian_command(&root, &loader, &program)),
        _ => Err(ProxyError::NotFetched),
    }
}

/// A running HAProxy. Dropping it kills the process.
#[derive(Debug)]
pub struct LocalProxy {
    directory: PathBuf,
    child: Child,
}

impl LocalProxy {
    /// Starts it with `sections` (`defaults`, `frontend` …) behind a `global` section that opens two control sockets in `directory`,
    /// [`LocalProxy::socket`] at level `admin` and [`LocalProxy::user_socket`] at level `user`. `directory` has to be there.
    ///
    /// # Errors
    /// When it was not fetched, or it does not start; what it said is part of the error.
    pub async fn start(directory: &Path, sections: &str) -> Result<Self, ProxyError> {
        let mut command = program()?;
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ProxyError::File { action, path, source }
        };
        let (configuration, log) = (directory.join("haproxy.cfg"), directory.join("haproxy.log"));
        // Relative, because the path of a socket may not be longer than 107 bytes.
        let global = "global\n    maxconn 4000\n    nbthread 2\n    stats socket unix@admin.sock level admin mode 600\n    stats socket unix@user.sock level user mode 600\n";
        std::fs::write(&configuration, format!("{global}{sections}")).map_err(failed("write", &configuration))?;
        let output = std::fs::File::create(&log).map_err(failed("create", &log))?;
        // In the foreground: the process started is the one that serves.
        command.arg("-db").arg("-f").arg("haproxy.cfg").current_dir(directory);
        let child = keeper::start(command, output, true).await.map_err(failed("start HAProxy with", &configuration))?;
        let mut proxy = LocalProxy { directory: directory.to_owned(), child };
        let began = Instant::now();
        while proxy.ask("show info").is_err() {
            let ended = proxy.child.try_wait().map_err(failed("wait for HAProxy with", &configuration))?.is_some();
            if ended || began.elapsed() > START_LIMIT {
                return Err(ProxyError::NotStarted { log: proxy.log() });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(proxy)
    }

    /// A loopback port nothing listens on at this moment.
    ///
    /// # Errors
    /// When none was found.
    pub fn free_port() -> Result<u16, ProxyError> {
        server::free_port().map_err(|_| ProxyError::NoPort)
    }

    /// The control socket at level `admin`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    /// The control socket at level `user`, where nothing can be changed.
    #[must_use]
    pub fn user_socket(&self) -> PathBuf {
        self.directory.join("user.sock")
    }

    /// What HAProxy answers to one command at level `admin`. Blocks; for tests.
    ///
    /// # Errors
    /// When the socket can't be used.
    pub fn ask(&self, command: &str) -> Result<String, ProxyError> {
        let path = self.socket();
        let ask = || {
            let mut stream = UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            stream.write_all(format!("{command}\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().map_err(|source| ProxyError::File { action: "ask HAProxy at", path: path.clone(), source })
    }

    /// Whether the process still runs: one that crashed does not.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("haproxy.log")).unwrap_or_default()
    }

    /// Kills it, as `kill -9` would, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for LocalProxy {
    fn drop(&mut self) {
        self.kill();
    }
}
