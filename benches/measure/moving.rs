//! `dbmove run` under measurement: the playbook of a school that is prepared, followed and copied, and the process.

use std::path::Path;
use std::process::Stdio;

use dbmove::local::LocalServer;
use tokio::process::{Child, Command};

use super::Failure;

/// What the program prints goes here, under the bench's directory.
const LOG: &str = "dbmove.log";
/// Its journal, likewise.
pub const STATE: &str = "state";
/// The playbook, likewise.
const PLAYBOOK: &str = "bench.yaml";

/// Writes the playbook. `snapshot`: arguments of `mysql.snapshot`, as YAML between braces; empty for the defaults.
///
/// # Errors
/// If the file can't be written.
pub fn write_playbook(directory: &Path, source: &LocalServer, target: &LocalServer, snapshot: &str) -> Result<(), Failure> {
    let endpoint = |server: &LocalServer, user: &str| {
        format!("{{ url: \"mysql://{user}@127.0.0.1:{}/\", password: \"${{env:DBMOVE_BENCH_PASSWORD}}\", tls: off }}", server.port())
    };
    let text = format!(
        r#"playbook: bench
max_write_gap: 30s
stores:
  school:
    kind: mysql
    source: {}
    target: {}
    include: ["school.*"]
stages:
  prepare:
    - {{ id: assess, run: mysql.assess, store: school }}
    - {{ id: schema, run: mysql.prepare, store: school }}
  sync:
    - {{ id: follow, run: mysql.replicate, store: school }}
    - {{ id: snapshot, run: mysql.snapshot, store: school, with: {{ {snapshot} }} }}
"#,
        endpoint(source, "dbmove"),
        endpoint(target, "admin"),
    );
    std::fs::write(directory.join(PLAYBOOK), text)?;
    Ok(())
}

/// Starts `dbmove run` of that playbook, as a user would. `more`: arguments behind it.
///
/// # Errors
/// If it can't be started.
pub fn start(directory: &Path, more: &[&str]) -> Result<Child, Failure> {
    let log = std::fs::File::create(directory.join(LOG))?;
    Ok(Command::new(env!("CARGO_BIN_EXE_dbmove"))
        .args(["--yes", "run"])
        .arg(directory.join(PLAYBOOK))
        .args(more)
        .env("DBMOVE_STATE_DIR", directory.join(STATE))
        .env("DBMOVE_BENCH_PASSWORD", "dbmove")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?)
}

/// What it has printed so far.
///
/// # Errors
/// If it was never started.
pub fn said(directory: &Path) -> Result<String, Failure> {
    Ok(std::fs::read_to_string(directory.join(LOG))?)
}
