//! A private Prometheus that watches itself: something real to ask for what asks Prometheus.
//!
//! It scrapes its own figures once a second and keeps them in a directory of the caller's. As the servers do, it listens on loopback only, ends with
//! this process (`kill -9` included), and is killed when the value is dropped. It is ready when it says so.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::installation::cache_directory;
use super::{keeper, server};

/// What `fixtures/servers/fetch` calls it.
const CACHE_NAME: &str = "prometheus-2.42";
/// From the start of the process until it is ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// One question.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// Why a private Prometheus could not be started.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// It is not in the cache.
    #[error("Prometheus is not in the cache: run `fixtures/servers/fetch {CACHE_NAME}`")]
    NotFetched,
    /// A file operation.
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
    #[error("Prometheus did not start; it said:\n{log}")]
    NotStarted {
        /// What it printed.
        log: String,
    },
    /// No loopback port is free.
    #[error("no free loopback port was found")]
    NoPort,
}

/// Says whether Prometheus can be started here; if not, why, and what gets it.
///
/// # Errors
/// A sentence for a person.
pub fn prometheus_available() -> Result<(), String> {
    program().map(drop).map_err(|error| error.to_string())
}

fn program() -> Result<PathBuf, PrometheusError> {
    let root = cache_directory().map_err(|_| PrometheusError::NotFetched)?.join("servers").join(CACHE_NAME);
    Some(root.join("bin/prometheus")).filter(|program| program.exists()).ok_or(PrometheusError::NotFetched)
}

/// A running Prometheus. Dropping it kills the process.
#[derive(Debug)]
pub struct LocalPrometheus {
    port: u16,
    child: Child,
}

impl LocalPrometheus {
    /// Starts it; its files are in `directory`, which has to be there.
    ///
    /// # Errors
    /// When it was not fetched, or it does not start; what it said is part of the error.
    pub async fn start(directory: &Path) -> Result<Self, PrometheusError> {
        let mut command = Command::new(program()?);
        let port = server::free_port().map_err(|_| PrometheusError::NoPort)?;
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| PrometheusError::File { action, path, source }
        };
        let (configuration, log) = (directory.join("prometheus.yml"), directory.join("prometheus.log"));
        let address = format!("127.0.0.1:{port}");
        let scrapes = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- {{ job_name: itself, static_configs: [{{ targets: ['{address}'] }}] }}\n"
        );
        std::fs::write(&configuration, scrapes).map_err(failed("write", &configuration))?;
        let output = std::fs::File::create(&log).map_err(failed("create", &log))?;
        command
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(directory);
        let child = keeper::start(command, output, true).await.map_err(failed("start Prometheus with", &configuration))?;
        let mut prometheus = LocalPrometheus { port, child };
        let began = Instant::now();
        while !prometheus.is_ready() {
            let ended = prometheus.child.try_wait().map_err(failed("wait for Prometheus with", &configuration))?.is_some();
            if ended || began.elapsed() > START_LIMIT {
                return Err(PrometheusError::NotStarted { log: std::fs::read_to_string(&log).unwrap_or_default() });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(prometheus)
    }

    /// Where it is asked: `http://127.0.0.1:…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn is_ready(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        ask().is_ok_and(|answer: String| answer.lines().next().is_some_and(|status| status.contains(" 200 ")))
    }

    /// Kills it, as `kill -9` would, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for LocalPrometheus {
    fn drop(&mut self) {
        self.kill();
    }
}
