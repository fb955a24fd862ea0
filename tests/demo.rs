//! `dbmove demo`, as a newcomer runs it: the verdict is true and complete, and nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dbmove::local::ServerKind;
use dbmove::report::model::{Outcome, Report, Serving};
use rustix::process::{Pid, Signal, kill_process};

const SERVERS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];

/// Everything a verdict has, and no more.
const FIELDS: [&str; 18] = [
    "source",
    "target",
    "tables",
    "rows_verified",
    "differences",
    "run_root",
    "write_gap_ms",
    "transfers_acknowledged",
    "transfers_lost",
    "transfers_doubled",
    "sum_before",
    "sum_after",
    "requests",
    "requests_failed",
    "longest_wait_ms",
    "rollback_ms",
    "killed_and_resumed",
    "report",
];

/// The built `dbmove demo` in a directory of its own, words to pipes.
fn demo(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbmove"));
    command.arg("demo").args(arguments).arg("--directory").arg(directory.join("private")).current_dir(directory);
    command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Processes that name the directory on their command line or work in it: the demo, its servers and its `dbmove`s.
fn processes_in(directory: &Path) -> Vec<String> {
    let name = directory.display().to_string();
    let of = |pid: std::fs::DirEntry| {
        let line = std::fs::read(pid.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let works_there = std::fs::read_link(pid.path().join("cwd")).is_ok_and(|path| path.starts_with(directory));
        (works_there || line.contains(&name)).then_some(line)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}

/// Nothing runs there any more and nothing lies there; a killed process takes a moment to be gone.
fn assert_nothing_left(directory: &Path) {
    let began = Instant::now();
    let private = directory.join("private");
    loop {
        let (running, lying) = (processes_in(&private), std::fs::read_dir(&private).map_or(0, Iterator::count));
        if running.is_empty() && lying == 0 {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "left behind: {lying} directories, {running:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn said(output: &Output) -> String {
    format!("{}\n--- stderr\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_verdict_is_true_and_complete() {
    if real::proxy_skipped("the_verdict_is_true_and_complete", &SERVERS) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = demo(directory.path(), &["--json", "--scale", "0.05"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_nothing_left(directory.path());
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let fields: Vec<&str> = verdict.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = FIELDS.to_vec();
    expected.sort_unstable();
    assert_eq!(fields, expected);
    let number = |name: &str| verdict[name].as_u64().unwrap_or_else(|| panic!("`{name}` in {verdict:#}"));
    assert!(verdict["source"].as_str().unwrap().starts_with("MySQL 5.5.34"), "{verdict:#}");
    assert!(verdict["target"].as_str().unwrap().starts_with("MySQL 9.7"), "{verdict:#}");
    assert_eq!((number("tables"), number("differences")), (14, 0));
    assert!(number("rows_verified") > 10_000, "{verdict:#}");
    assert_eq!(verdict["run_root"].as_str().unwrap().len(), 64);
    assert!((1..30_000).contains(&number("write_gap_ms")), "{verdict:#}");
    assert!(number("transfers_acknowledged") > 500, "{verdict:#}");
    assert_eq!((number("transfers_lost"), number("transfers_doubled")), (0, 0));
    // 100 accounts with 100.00 each.
    assert_eq!((number("sum_before"), number("sum_after")), (1_000_000, 1_000_000));
    assert_eq!(number("requests_failed"), 0, "{}", said(&output));
    assert!(number("requests") > 100 && number("longest_wait_ms") > 0 && number("rollback_ms") > 0, "{verdict:#}");
    assert_eq!(verdict["killed_and_resumed"], true);

    // The story is where it says it is, and so are report and journal: readable when everything else is gone.
    let story = String::from_utf8_lossy(&output.stderr);
    assert!(story.contains("kill -9 ") && story.contains("ALL IS WELL"), "{story}");
    let path = Path::new(verdict["report"].as_str().unwrap());
    let report: Report = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!((report.verdict.outcome, report.verdict.serving), (Outcome::Done, Serving::Target));
    assert!(report.run.drivers >= 2, "one copied, one switched: {}", report.run.drivers);
    assert!(story.contains("The old server serves again") && story.contains("second by second"), "{story}");
    let state = path.parent().unwrap().display().to_string();
    let audit = Command::new(env!("CARGO_BIN_EXE_dbmove")).args(["audit", "--state-dir", &state]).output().unwrap();
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    if real::proxy_skipped("ctrl_c_leaves_nothing_behind", &SERVERS) {
        return;
    }
    // Before there is any server, while the users write, and in the middle of it with a child at work.
    for words in ["Four private servers", "The users come", "follow ready"] {
        let directory = tempfile::tempdir().unwrap();
        let mut running = demo(directory.path(), &["--scale", "0.05"]).spawn().unwrap();
        let story = interrupt_when(&mut running, words);
        let status = running.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{words}: {story}");
        assert_nothing_left(directory.path());
        assert!(!directory.path().join("dbmove-demo").exists());
    }
}

/// Sends SIGINT once the story has come to these words; returns the story up to its end.
fn interrupt_when(running: &mut Child, words: &str) -> String {
    use std::io::{BufRead as _, BufReader};
    let pid = Pid::from_raw(i32::try_from(running.id()).unwrap()).unwrap();
    let mut story = String::new();
    let mut sent = false;
    for line in BufReader::new(running.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if !sent && line.contains(words) {
            kill_process(pid, Signal::INT).unwrap();
            sent = true;
        }
        story.push_str(&line);
        story.push('\n');
    }
    assert!(sent, "the story never came to `{words}`: {story}");
    story
}

#[test]
fn a_killed_demo_takes_its_servers_with_it() {
    if real::proxy_skipped("a_killed_demo_takes_its_servers_with_it", &SERVERS) {
        return;
    }
    use std::io::{BufRead as _, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let mut running = demo(directory.path(), &["--scale", "0.05"]).spawn().unwrap();
    let lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("follow ready")));
    let private = directory.path().join("private");
    assert!(processes_in(&private).len() >= 6, "the demo, four servers and a child were expected: {:#?}", processes_in(&private));
    running.kill().unwrap();
    running.wait().unwrap();
    let began = Instant::now();
    while !processes_in(&private).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "still there: {:#?}", processes_in(&private));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn without_servers_it_says_what_brings_them() {
    let directory = tempfile::tempdir().unwrap();
    let output = demo(directory.path(), &[]).env("DBMOVE_CACHE", directory.path().join("empty")).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("fixtures/servers/fetch mysql-5.5.34 mysql-9.7 haproxy-2.6"), "{words}");
    assert!(!directory.path().join("private").exists());
    let nonsense = demo(directory.path(), &["--scale", "0"]).output().unwrap();
    assert_eq!(nonsense.status.code(), Some(2), "{}", said(&nonsense));
}
