//! The two ways that read from the source: `mysqldump | mysql`, and dbmove.

use std::process::Stdio;
use std::time::Instant;

use tokio::process::Command;

use crate::measure::{Failure, Used, Watch, load_average, setting};
use crate::{DATABASE, Pair, Took};

/// `mysqldump | mysql`, with the settings such a move is made with.
///
/// # Errors
/// If one of both programs fails.
pub async fn dump(pair: &Pair) -> Result<Took, Failure> {
    let mut from = pair.source.client("mysqldump")?;
    from.args(["--single-transaction", "--quick", "--hex-blob", "--default-character-set=utf8", "--databases", DATABASE]);
    let mut into = pair.target.client("mysql")?;
    into.args(["--default-character-set=utf8mb3", "--init-command=SET SESSION sql_mode = ''"]);
    let started = Instant::now();
    let mut dump = Command::from(from).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let pipe: Stdio = dump.stdout.take().ok_or("`mysqldump` has no output")?.try_into()?;
    let mut load = Command::from(into).stdin(pipe).kill_on_drop(true).spawn()?;
    let pids = [pair.source.pid(), pair.target.pid(), dump.id().unwrap_or(0), load.id().unwrap_or(0)];
    let watch = Watch::start(&pids);
    let (dumped, loaded) = tokio::try_join!(dump.wait(), load.wait())?;
    let seconds = started.elapsed().as_secs_f64();
    if !dumped.success() || !loaded.success() {
        return Err(format!("`mysqldump` ended with {dumped}, `mysql` with {loaded}").into());
    }
    let (dump, load) = (watch.of(pids[2]), watch.of(pids[3]));
    let tool = Used { processor: dump.processor + load.processor, peak_memory: dump.peak_memory + load.peak_memory };
    Ok(Took { seconds, load: load_average(), source: watch.of(pids[0]), target: watch.of(pids[1]), tool })
}

/// `dbmove run`, preparing and copying while it follows.
///
/// # Errors
/// If it fails; what it said is part of the error.
pub async fn dbmove(pair: &Pair) -> Result<Took, Failure> {
    let directory = pair.directory.path();
    let state = directory.join("state");
    if state.exists() {
        std::fs::remove_dir_all(&state)?;
    }
    let snapshot: String = setting("DBMOVE_BENCH_SNAPSHOT", String::new())?;
    let endpoint = |port: u16, user: &str| {
        format!("{{ url: \"mysql://{user}@127.0.0.1:{port}/\", password: \"${{env:DBMOVE_BENCH_PASSWORD}}\", tls: off }}")
    };
    let text = format!(
        r#"playbook: bench
max_write_gap: 30s
stores:
  school:
    kind: mysql
    source: {}
    target: {}
    include: ["{DATABASE}.*"]
stages:
  prepare:
    - {{ id: assess, run: mysql.assess, store: school }}
    - {{ id: schema, run: mysql.prepare, store: school }}
  sync:
    - {{ id: follow, run: mysql.replicate, store: school }}
    - {{ id: snapshot, run: mysql.snapshot, store: school, with: {{ {snapshot} }} }}
"#,
        endpoint(pair.source.port(), "dbmove"),
        endpoint(pair.target.port(), "admin"),
    );
    let playbook = directory.join("bench.yaml");
    std::fs::write(&playbook, text)?;
    let log = std::fs::File::create(directory.join("dbmove.log"))?;
    let started = Instant::now();
    let mut run = Command::new(env!("CARGO_BIN_EXE_dbmove"))
        .args(["--yes", "run"])
        .arg(&playbook)
        .arg("--no-follow")
        .env("DBMOVE_STATE_DIR", &state)
        .env("DBMOVE_BENCH_PASSWORD", "dbmove")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    let pids = [pair.source.pid(), pair.target.pid(), run.id().unwrap_or(0)];
    let watch = Watch::start(&pids);
    let ended = run.wait().await?;
    let seconds = started.elapsed().as_secs_f64();
    if !ended.success() {
        return Err(format!("`dbmove` ended with {ended}:\n{}", std::fs::read_to_string(directory.join("dbmove.log"))?).into());
    }
    if std::env::var_os("DBMOVE_BENCH_SHOW").is_some() {
        eprintln!("{}", std::fs::read_to_string(directory.join("dbmove.log"))?);
    }
    Ok(Took { seconds, load: load_average(), source: watch.of(pids[0]), target: watch.of(pids[1]), tool: watch.of(pids[2]) })
}
