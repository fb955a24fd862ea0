//! One question to HAProxy's control socket.
//!
//! A connection per question: HAProxy answers and closes. A command that changes something answers nothing, or, as text, why it
//! did not; some answer with a note of what they did. So an answer proves nothing, and callers read back.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::engine::step::StepError;
use crate::hook::message::printable;

/// For one question: HAProxy answers in well under a millisecond, also under load.
const LIMIT: Duration = Duration::from_secs(3);
/// `show sess` of a large proxy has a few hundred bytes for each of some ten thousand sessions.
const LARGEST: u64 = 64 << 20;
/// How much of an unexpected answer is shown.
const SHOWN: usize = 200;

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl Control {
    /// From the playbook: a full path, or `host:port`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(argument: &str, written: &str) -> Result<Control, StepError> {
        if written.starts_with('/') {
            return Ok(Control::Unix(PathBuf::from(written)));
        }
        match written.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0) => {
                Ok(Control::Tcp(written.to_owned()))
            }
            _ => Err(StepError::definite(format!("`{argument}`: `{}` is neither a full path nor `host:port`", printable(written)))
                .hint("it is what `stats socket` in HAProxy's `global` section says: `/run/haproxy/admin.sock`")),
        }
    }

    /// Asks one question.
    ///
    /// # Errors
    /// If the socket can't be reached, or does not answer in time; retrying may help.
    pub async fn ask(&self, command: &str) -> Result<String, StepError> {
        let asked = async {
            match self {
                Control::Unix(path) => exchange(UnixStream::connect(path).await?, command).await,
                Control::Tcp(address) => exchange(TcpStream::connect(address).await?, command).await,
            }
        };
        match tokio::time::timeout(LIMIT, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(StepError::transient(format!("HAProxy can't be asked at `{self}`: {error}"))
                .hint("see whether HAProxy runs, and whether the user dbmove runs as may use its `stats socket`")),
            Err(_) => Err(StepError::transient(format!("HAProxy did not answer `{command}` at `{self}` within {LIMIT:?}"))),
        }
    }

    /// Runs a command that changes something and says, for an error to come, what HAProxy answered.
    ///
    /// # Errors
    /// As [`Control::ask`]. That HAProxy refused is for the caller to find out.
    pub async fn change(&self, command: &str) -> Result<String, StepError> {
        let answer = self.ask(command).await?;
        let answer: String = answer.trim().chars().take(SHOWN).collect();
        Ok(if answer.is_empty() { "it answered nothing".to_owned() } else { format!("it answered \"{}\"", printable(&answer)) })
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, command: &str) -> std::io::Result<String> {
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

impl std::fmt::Display for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Control::Unix(path) => write!(f, "{}", path.display()),
            Control::Tcp(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_address() {
        assert_eq!(Control::parse("socket", "/run/admin.sock").unwrap(), Control::Unix("/run/admin.sock".into()));
        assert_eq!(Control::parse("socket", "10.0.0.4:9999").unwrap(), Control::Tcp("10.0.0.4:9999".to_owned()));
        for broken in ["admin.sock", "10.0.0.4", "10.0.0.4:0", ":99", "a/b:1", ""] {
            assert!(Control::parse("socket", broken).unwrap_err().message.contains("neither"), "{broken}");
        }
    }
}
