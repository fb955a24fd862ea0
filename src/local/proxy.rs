//! A private HAProxy in TCP mode, in front of private servers.
//!
//! It is started with a configuration of the caller's, which says where it listens and whom it leads to; a port that nothing
//! listens on comes from [`LocalProxy::free_port`]. It is ready when its control socket answers.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::program::{Program, ProgramError, Running, free_port, write};

const HAPROXY: Program =
    Program { name: "HAProxy", cache_name: "haproxy-2.6", path: "usr/sbin/haproxy", start_limit: Duration::from_secs(20) };
/// One question on the control socket.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Says whether HAProxy can be started here; if not, why, and what gets it.
///
/// # Errors
/// A sentence for a person.
pub fn proxy_available() -> Result<(), String> {
    HAPROXY.available()
}

/// A running HAProxy. Dropping it kills the process.
#[derive(Debug)]
pub struct LocalProxy {
    process: Running,
}

fn ask(path: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("admin.sock")
}

impl LocalProxy {
    /// Starts it with `sections` (`defaults`, `frontend` …) behind a `global` section that opens two control sockets in `directory`,
    /// [`LocalProxy::socket`] at level `admin` and [`LocalProxy::user_socket`] at level `user`. `directory` has to be there.
    ///
    /// # Errors
    /// When it was not fetched, or it does not start; what it said is part of the error.
    pub async fn start(directory: &Path, sections: &str) -> Result<Self, ProgramError> {
        let mut command = HAPROXY.command()?;
        // Relative, because the path of a socket may not be longer than 107 bytes.
        let global = "global\n    maxconn 4000\n    nbthread 2\n    stats socket unix@admin.sock level admin mode 600\n    stats socket unix@user.sock level user mode 600\n";
        write(directory, "haproxy.cfg", &format!("{global}{sections}"))?;
        // In the foreground: the process started is the one that serves.
        command.arg("-db").arg("-f").arg("haproxy.cfg");
        let socket = socket_in(directory);
        let process = HAPROXY.start(command, directory, || ask(&socket, "show info").is_ok()).await?;
        Ok(LocalProxy { process })
    }

    /// A loopback port nothing listens on at this moment.
    ///
    /// # Errors
    /// When none was found.
    pub fn free_port() -> Result<u16, ProgramError> {
        free_port()
    }

    /// The control socket at level `admin`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.process.directory)
    }

    /// The control socket at level `user`, where nothing can be changed.
    #[must_use]
    pub fn user_socket(&self) -> PathBuf {
        self.process.directory.join("user.sock")
    }

    /// What HAProxy answers to one command at level `admin`. Blocks; for tests.
    ///
    /// # Errors
    /// When the socket can't be used.
    pub fn ask(&self, command: &str) -> Result<String, ProgramError> {
        let path = self.socket();
        ask(&path, command).map_err(|source| ProgramError::File { action: "ask HAProxy at", path, source })
    }

    /// Whether the process still runs: one that crashed does not.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Kills it, as `kill -9` would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}
