//! Memory is set by configuration, not by the size of tables, rows or transactions.
//!
//! The peak of the built program (`VmHWM` of its process) while it copies a table of large blobs and one of many
//! small rows, and while it follows a transaction of 200,000 rows and a row event of 48 MiB, stays under 200 MiB.
//! What was moved is compared row by row afterwards: a small memory is worth nothing if something got lost.
//!
//! About 300 MiB are copied; with `DBMOVE_SOAK=1` 2 GiB, and the transactions have a million rows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use dbmove::demo::dice::Dice;
use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use mysql_async::prelude::Queryable;
use tokio::process::{Child, Command};

const LIMIT: u64 = 200 << 20;
/// Rows of the large transaction; in the soak a million.
fn transaction() -> u64 {
    if std::env::var_os("DBMOVE_SOAK").is_some() { 1_000_000 } else { 200_000 }
}
/// The large row event. On its way it is there three times (the driver's packet, its copy as an event, the value or
/// the line that is sent), so this is about as large as a row may be within the limit: 64 MiB took 199 MiB.
const LARGE: usize = 48 << 20;

struct Moving {
    source: LocalServer,
    target: LocalServer,
    directory: tempfile::TempDir,
}

impl Moving {
    async fn start() -> Moving {
        let directory = tempfile::tempdir().unwrap();
        // A row event has to fit a packet, on both sides.
        let options = ServerOptions::default().argument("--max-allowed-packet=256M");
        let source = options.clone().buffer_pool(256 << 20);
        let source = LocalServer::start(ServerKind::Mysql55, &directory.path().join("source"), &source).await.unwrap();
        let target = options.rds_like(true).buffer_pool(256 << 20).argument("--innodb-redo-log-capacity=1G");
        let target = LocalServer::start(ServerKind::Mysql97, &directory.path().join("target"), &target).await.unwrap();
        let endpoint = |server: &LocalServer, user: &str| {
            format!("{{ url: \"mysql://{user}@127.0.0.1:{}/\", password: \"${{env:DBMOVE_TEST_PASSWORD}}\", tls: off }}", server.port())
        };
        let playbook = format!(
            r#"playbook: memory
max_write_gap: 30s
stores:
  large:
    kind: mysql
    source: {}
    target: {}
    include: ["large.*"]
stages:
  prepare:
    - {{ id: assess, run: mysql.assess, store: large }}
    - {{ id: schema, run: mysql.prepare, store: large }}
  sync:
    - {{ id: follow, run: mysql.replicate, store: large }}
    - {{ id: snapshot, run: mysql.snapshot, store: large }}
"#,
            endpoint(&source, "dbmove"),
            endpoint(&target, "admin")
        );
        std::fs::write(directory.path().join("memory.yaml"), playbook).unwrap();
        Moving { source, target, directory }
    }

    /// A table of large blobs (up to 6 MiB) and one of small rows, about half of the bytes each.
    async fn fill(&self, bytes: u64) {
        let mut conn = real::connect(&self.source, Account::Root).await;
        conn.query_drop("SET sql_log_bin = 0").await.unwrap();
        conn.query_drop("CREATE DATABASE large").await.unwrap();
        conn.query_drop("CREATE TABLE large.blobs (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, content LONGBLOB) ENGINE=InnoDB")
            .await
            .unwrap();
        conn.query_drop(
            "CREATE TABLE large.small (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, number BIGINT NOT NULL, text VARCHAR(60) NOT NULL, KEY (number)) ENGINE=InnoDB",
        )
        .await
        .unwrap();
        let mut dice = Dice::new(11, 0);
        let mut left = bytes / 2;
        while left > 0 {
            let length = (64 << 10) + dice.below(6 << 20).min(left);
            conn.exec_drop("INSERT INTO large.blobs (content) VALUES (?)", (dice.bytes(length as usize),)).await.unwrap();
            left = left.saturating_sub(length);
        }
        let row = "CONCAT('a row of a small table, number ', id)";
        conn.query_drop("INSERT INTO large.small (number, text) VALUES (1, 'the first')").await.unwrap();
        let mut rows: u64 = 1;
        while rows < bytes / 2 / 100 {
            conn.query_drop(format!("INSERT INTO large.small (number, text) SELECT number + {rows}, {row} FROM large.small"))
                .await
                .unwrap();
            rows *= 2;
        }
    }

    fn run(&self, more: &[&str]) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        Command::new(env!("CARGO_BIN_EXE_dbmove"))
            .args(["--yes", "run", &self.directory.path().join("memory.yaml").display().to_string()])
            .args(more)
            .env("DBMOVE_STATE_DIR", self.directory.path().join("state"))
            .env("DBMOVE_TEST_PASSWORD", "dbmove")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    fn log(&self) -> std::path::PathBuf {
        self.directory.path().join("dbmove.log")
    }

    /// Waits until the condition holds; the run must not end meanwhile.
    async fn until(&self, what: &str, run: &mut Child, mut there: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !there().await {
            let log = || std::fs::read_to_string(self.log()).unwrap();
            assert!(run.try_wait().unwrap().is_none(), "the run ended while waiting for {what}:\n{}", log());
            assert!(began.elapsed() < Duration::from_secs(900), "{what} took too long:\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn number(server: &LocalServer, query: &str) -> u64 {
        let mut conn = real::connect(server, Account::Root).await;
        conn.query_first::<Option<u64>, _>(query).await.unwrap().flatten().unwrap_or(0)
    }

    /// Rows and sums of their hashes, on both sides.
    async fn compare(&self) {
        for query in [
            "SELECT COUNT(*), CAST(SUM(CRC32(content)) AS CHAR) FROM large.blobs",
            "SELECT COUNT(*), CAST(SUM(CRC32(CONCAT(id, ' ', number, text))) AS CHAR) FROM large.small",
        ] {
            let mut sums: Vec<Option<(u64, String)>> = Vec::new();
            for server in [&self.source, &self.target] {
                let mut conn = real::connect(server, Account::Root).await;
                sums.push(conn.query_first(query).await.unwrap());
            }
            assert_eq!(sums[0], sums[1], "{query}");
            assert!(sums[0].as_ref().is_some_and(|(rows, _)| *rows > 10), "{sums:?}");
        }
    }
}

/// The most memory the process ever had resident, in bytes.
fn peak(run: &Child) -> u64 {
    let path = format!("/proc/{}/status", run.id().expect("the run is under way"));
    let status = std::fs::read_to_string(Path::new(&path)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_bounded_while_copying_and_following_soak() {
    if real::skipped("memory_stays_bounded_while_copying_and_following_soak", &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        return;
    }
    let bytes = if std::env::var_os("DBMOVE_SOAK").is_some() { 2 << 30 } else { 300 << 20 };
    let moving = Moving::start().await;
    moving.fill(bytes).await;

    let mut run = moving.run(&[]);
    moving.until("the copy", &mut run, async || std::fs::read_to_string(moving.log()).unwrap().contains("stage sync done")).await;
    let copying = peak(&run);
    moving.compare().await;
    eprintln!("copying {} MiB: peak {} MiB", bytes >> 20, copying >> 20);
    assert!(copying < LIMIT, "copying took {} MiB", copying >> 20);

    // A new process for each part: each has its own peak.
    run.kill().await.unwrap();
    let mut run = moving.run(&[]);
    let mut conn = real::connect(&moving.source, Account::Root).await;
    let rows = transaction();
    let row = "'followed, in one large transaction with many others'";
    conn.query_drop(format!(
        "INSERT INTO large.small (number, text) SELECT 1000000000 + id, {row} FROM large.small ORDER BY id LIMIT {rows}"
    ))
    .await
    .unwrap();
    conn.query_drop(format!("UPDATE large.small SET number = number + 7 ORDER BY id LIMIT {rows}")).await.unwrap();
    let sum = "SELECT SUM(number) FROM large.small";
    let expected = Moving::number(&moving.source, sum).await;
    moving.until("the large transaction", &mut run, async || Moving::number(&moving.target, sum).await == expected).await;
    let following = peak(&run);
    eprintln!("following two transactions of {rows} rows: peak {} MiB", following >> 20);
    assert!(following < LIMIT, "following took {} MiB", following >> 20);

    run.kill().await.unwrap();
    let log = || std::fs::read_to_string(moving.log()).unwrap();
    let before = log().len();
    let mut run = moving.run(&[]);
    moving.until("following", &mut run, async || log()[before..].contains("lag ")).await;
    eprintln!("following nothing: peak {} MiB", peak(&run) >> 20);
    conn.exec_drop("INSERT INTO large.blobs (content) VALUES (?)", (Dice::new(12, 0).bytes(LARGE),)).await.unwrap();
    let count = "SELECT COUNT(*) FROM large.blobs";
    let expected = Moving::number(&moving.source, count).await;
    moving.until("the large row", &mut run, async || Moving::number(&moving.target, count).await == expected).await;
    let large = peak(&run);
    eprintln!("following a row event of {} MiB: peak {} MiB", LARGE >> 20, large >> 20);
    moving.compare().await;
    assert!(large < LIMIT, "following a large row took {} MiB", large >> 20);
}
