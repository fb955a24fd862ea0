//! The two ways that read from the source: `mysqldump | mysql`, and dbmove.

use std::process::Stdio;
use std::time::Instant;

use tokio::process::Command;

use crate::measure::{Failure, Used, Watch, load_average, moving, setting};
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
    let state = directory.join(moving::STATE);
    if state.exists() {
        std::fs::remove_dir_all(&state)?;
    }
    let snapshot: String = setting("DBMOVE_BENCH_SNAPSHOT", String::new())?;
    moving::write_playbook(directory, &pair.source, &pair.target, &snapshot)?;
    let started = Instant::now();
    let mut run = moving::start(directory, &["--no-follow"])?;
    let pids = [pair.source.pid(), pair.target.pid(), run.id().unwrap_or(0)];
    let watch = Watch::start(&pids);
    let ended = run.wait().await?;
    let seconds = started.elapsed().as_secs_f64();
    if !ended.success() {
        return Err(format!("`dbmove` ended with {ended}:\n{}", moving::said(directory)?).into());
    }
    if std::env::var_os("DBMOVE_BENCH_SHOW").is_some() {
        eprintln!("{}", moving::said(directory)?);
    }
    Ok(Took { seconds, load: load_average(), source: watch.of(pids[0]), target: watch.of(pids[1]), tool: watch.of(pids[2]) })
}
