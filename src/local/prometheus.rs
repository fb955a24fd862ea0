//! A private Prometheus that watches itself: something real to ask for what asks Prometheus.
//!
//! It scrapes its own figures once a second and keeps them in a directory of the caller's. It is ready when it says so.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use super::program::{Program, ProgramError, Running, free_port, write};

const PROMETHEUS: Program =
    Program { name: "Prometheus", cache_name: "prometheus-2.42", path: "bin/prometheus", start_limit: Duration::from_secs(60) };
/// One question.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Says whether Prometheus can be started here; if not, why, and what gets it.
///
/// # Errors
/// A sentence for a person.
pub fn prometheus_available() -> Result<(), String> {
    PROMETHEUS.available()
}

/// A running Prometheus. Dropping it kills the process.
#[derive(Debug)]
pub struct LocalPrometheus {
    port: u16,
    process: Running,
}

fn is_ready(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    ask().is_ok_and(|answer: String| answer.lines().next().is_some_and(|status| status.contains(" 200 ")))
}

impl LocalPrometheus {
    /// Starts it; its files are in `directory`, which has to be there.
    ///
    /// # Errors
    /// When it was not fetched, or it does not start; what it said is part of the error.
    pub async fn start(directory: &Path) -> Result<Self, ProgramError> {
        let mut command = PROMETHEUS.command()?;
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let scrapes = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- {{ job_name: itself, static_configs: [{{ targets: ['{address}'] }}] }}\n"
        );
        write(directory, "prometheus.yml", &scrapes)?;
        command.arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=data").arg(format!("--web.listen-address={address}"));
        let process = PROMETHEUS.start(command, directory, || is_ready(port)).await?;
        Ok(LocalPrometheus { port, process })
    }

    /// Where it is asked: `http://127.0.0.1:…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it, as `kill -9` would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}
