//! A private name server (BIND): authoritative for the zones it is given, or a resolver that keeps what it was told.
//!
//! It is started with the statements of a configuration of the caller's (`zone`, `key`, more `options`), and is ready when it answers on its
//! port. [`LocalNameServer::reconfigure`] changes them while it runs, as an operator would.

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use super::program::{Program, ProgramError, Running, free_port, write};

const BIND: Program = Program { name: "BIND", cache_name: "bind-9.18", path: "usr/sbin/named", start_limit: Duration::from_secs(20) };
/// For an answer while it starts: the next question comes after it.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);
/// What it says when it has read its configuration again.
const TAKEN: &str = "reloading configuration succeeded";
const POLL: Duration = Duration::from_millis(10);
/// A question for the root's name servers, in the wire's form: any answer will do, a refusal too.
const QUESTION: [u8; 17] = [0xd, 0xb, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Says whether BIND can be started here; if not, why, and what gets it.
///
/// # Errors
/// A sentence for a person.
pub fn name_server_available() -> Result<(), String> {
    BIND.available()
}

/// A running BIND. Dropping it kills the process.
#[derive(Debug)]
pub struct LocalNameServer {
    port: u16,
    process: Running,
}

fn answers(port: u16) -> bool {
    let ask = || {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        socket.connect(("127.0.0.1", port))?;
        socket.send(&QUESTION)?;
        socket.recv(&mut [0; 512])
    };
    ask().is_ok_and(|length| length >= 12)
}

fn configuration(port: u16, options: &str, statements: &str) -> String {
    format!(
        "options {{ directory \".\"; pid-file none; session-keyfile none; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; \
         dnssec-validation no; empty-zones-enable no; {options} }};\ncontrols {{ }};\n{statements}"
    )
}

impl LocalNameServer {
    /// Starts it on a port from [`LocalNameServer::free_port`], with `options` (what stands inside `options { … }`) and `statements` of a
    /// configuration. `directory` has to be there, with the zones' files that `statements` name.
    ///
    /// # Errors
    /// When it was not fetched, or it does not start; what it said is part of the error.
    pub async fn start(directory: &Path, port: u16, options: &str, statements: &str) -> Result<Self, ProgramError> {
        let mut command = BIND.command()?;
        write(directory, "named.conf", &configuration(port, options, statements))?;
        // In the foreground, saying what it does on its standard error.
        command.args(["-g", "-n", "1", "-c", "named.conf"]);
        let process = BIND.start(command, directory, || answers(port)).await?;
        Ok(LocalNameServer { port, process })
    }

    /// A loopback port nothing listens on at this moment.
    ///
    /// # Errors
    /// When none was found.
    pub fn free_port() -> Result<u16, ProgramError> {
        free_port()
    }

    /// Where it is asked: `127.0.0.1:…`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Gives it other options and statements, and waits until it has read them.
    ///
    /// # Errors
    /// When the file can't be written, the process is gone, or it does not take them.
    pub async fn reconfigure(&self, options: &str, statements: &str) -> Result<(), ProgramError> {
        write(&self.process.directory, "named.conf", &configuration(self.port, options, statements))?;
        let failed = |source| ProgramError::Run { program: BIND.name, source };
        let gone = || failed(std::io::ErrorKind::NotFound.into());
        let id = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw).ok_or_else(gone)?;
        let taken = || self.log().matches(TAKEN).count();
        let (before, began) = (taken(), Instant::now());
        rustix::process::kill_process(id, rustix::process::Signal::HUP).map_err(|error| failed(error.into()))?;
        while taken() == before {
            if began.elapsed() > BIND.start_limit {
                return Err(ProgramError::NotStarted { program: BIND.name, log: self.log() });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
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
