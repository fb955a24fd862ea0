//! How fast dbmove catches up: following is stopped, changes pile up on the source, and then it is started again.
//!
//! MySQL 5.5.34 → 9.7, the target committing durably and with its binary log on. The school is copied, dbmove is
//! interrupted, several writers make changes as applications do, and the time is taken from when dbmove is started
//! until the target's saved position is the end of the source's log. Counted are row changes as the source counted
//! them; the start of the program (reading both catalogs) is part of the time and given beside it.
//!
//! What is written, over and over: ten single-row updates of three tables, each its own transaction; five transfers
//! (two updates and an insert in one transaction); one update of forty rows of a table with a second unique key.
//!
//! Settings, from the environment: `DBMOVE_BENCH_CHANGES` (row changes, 500000), `DBMOVE_BENCH_ROUNDS` (3).

#[path = "../measure/mod.rs"]
mod measure;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dbmove::demo::dice::Dice;
use dbmove::demo::seed::{SchoolSize, seed};
use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use measure::{Failure, Watch, machine, median, moving, setting};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::process::Child;
use tokio::task::JoinSet;

/// Connections that write on the source while nobody follows.
const WRITERS: u64 = 4;
/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(600);

struct Round {
    changes: u64,
    transactions: u64,
    seconds: f64,
    until_first: f64,
    tool: measure::Used,
    target: measure::Used,
}

impl Round {
    fn rate(&self) -> f64 {
        self.changes as f64 / self.seconds
    }
    fn steady_rate(&self) -> f64 {
        self.changes as f64 / (self.seconds - self.until_first)
    }
}

/// Rows of a table and two sums over them, as the server prints them.
type Sums = (String, Option<String>, Option<String>);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let wanted: u64 = setting("DBMOVE_BENCH_CHANGES", 500_000)?;
    let rounds: u64 = setting("DBMOVE_BENCH_ROUNDS", 3)?;
    let directory = tempfile::tempdir()?;
    let options = ServerOptions::default().buffer_pool(512 << 20);
    let source = LocalServer::start(ServerKind::Mysql55, &directory.path().join("source"), &options).await?;
    let options = options.durable(true).rds_like(true).argument("--innodb-redo-log-capacity=1G");
    let target = LocalServer::start(ServerKind::Mysql97, &directory.path().join("target"), &options).await?;
    let size = SchoolSize::scaled(1.0);
    let mut conn = Conn::new(source.connect_options(Account::Root, None)).await?;
    seed(&mut conn, "school", &size, 7).await?;
    moving::write_playbook(directory.path(), &source, &target, "")?;
    let mut run = moving::start(directory.path(), &[])?;
    wait_for("the copy", &mut run, directory.path(), async || Ok(moving::said(directory.path())?.contains("stage sync done"))).await?;
    let mut measured = Vec::new();
    for round in 1..=rounds {
        interrupt(&mut run).await?;
        let (changes, transactions) = write(&source, &size, wanted, round).await?;
        let started = Instant::now();
        let before = applied(&target).await?;
        let end: (String, u64) = end_of_log(&mut conn).await?;
        run = moving::start(directory.path(), &[])?;
        let pids = [target.pid(), run.id().unwrap_or(0)];
        let watch = Watch::start(&pids);
        let mut until_first = 0.0;
        wait_for("catching up", &mut run, directory.path(), async || {
            let at = applied(&target).await?;
            if until_first == 0.0 && at != before {
                until_first = started.elapsed().as_secs_f64();
            }
            Ok(at >= end)
        })
        .await?;
        let seconds = started.elapsed().as_secs_f64();
        let this = Round { changes, transactions, seconds, until_first, tool: watch.of(pids[1]), target: watch.of(pids[0]) };
        eprintln!(
            "round {round}: {changes} changes of {transactions} transactions in {seconds:.1} s (the first after {until_first:.1} s): {:.0} rows/s; processor seconds: target {:.1}, dbmove {:.1}; peak {} MiB; load {:.1}",
            this.rate(),
            this.target.processor,
            this.tool.processor,
            this.tool.peak_memory >> 20,
            measure::load_average()
        );
        measured.push(this);
    }
    interrupt(&mut run).await?;
    compare(&source, &target).await?;
    measure::record("catch up", &table(&measured, &source, &target))
}

fn table(rounds: &[Round], source: &LocalServer, target: &LocalServer) -> String {
    let all = |what: fn(&Round) -> f64| rounds.iter().map(what).collect::<Vec<_>>();
    let mut text = format!(
        "MySQL {} → {}, target durable and with its binary log on.\n{}.\n\n| round | row changes | transactions | seconds | rows/s | rows/s from the first change on | processor seconds: target, dbmove | peak memory |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
        source.version(),
        target.version(),
        machine()
    );
    for (index, round) in rounds.iter().enumerate() {
        text.push_str(&format!(
            "| {} | {} | {} | {:.1} | {:.0} | {:.0} | {:.1}, {:.1} | {} MiB |\n",
            index + 1,
            round.changes,
            round.transactions,
            round.seconds,
            round.rate(),
            round.steady_rate(),
            round.target.processor,
            round.tool.processor,
            round.tool.peak_memory >> 20
        ));
    }
    text.push_str(&format!(
        "| median | | | {:.1} | {:.0} | {:.0} | | |\n",
        median(&all(|round| round.seconds)),
        median(&all(Round::rate)),
        median(&all(Round::steady_rate))
    ));
    text
}

/// The changes, from several connections at once; gives how many rows changed, in how many transactions.
async fn write(source: &LocalServer, size: &SchoolSize, wanted: u64, round: u64) -> Result<(u64, u64), Failure> {
    let (changes, transactions) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let started = Instant::now();
    let mut writers: JoinSet<Result<(), Failure>> = JoinSet::new();
    for writer in 0..WRITERS {
        let mut conn = Conn::new(source.connect_options(Account::Root, Some("school"))).await?;
        let (changes, transactions, size) = (changes.clone(), transactions.clone(), size.clone());
        let mut dice = Dice::new(round, writer);
        writers.spawn(async move {
            let mut number = 0_u64;
            while changes.load(Ordering::Relaxed) < wanted {
                number += 1;
                for _ in 0..10 {
                    let statement = match dice.below(3) {
                        0 => format!("UPDATE accounts SET version = version + 1 WHERE id = {}", dice.id(size.accounts)),
                        1 => format!("UPDATE submissions SET course_id = course_id ^ 1 WHERE id = {}", dice.id(size.submissions)),
                        _ => format!("UPDATE enrolments SET progress = progress ^ 1 WHERE student_id = {} LIMIT 1", dice.id(size.students)),
                    };
                    conn.query_drop(statement).await?;
                    changes.fetch_add(conn.affected_rows(), Ordering::Relaxed);
                    transactions.fetch_add(1, Ordering::Relaxed);
                }
                for transfer in 0..5 {
                    // In the order of the accounts, so that two writers don't wait for each other in a circle.
                    let (one, other) = (dice.id(size.accounts), dice.id(size.accounts));
                    let (from, to) = (one.min(other), one.max(other).max(one.min(other) + 1).min(size.accounts));
                    let amount = dice.below(100) + 1;
                    conn.query_drop(format!(
                        "BEGIN; UPDATE accounts SET balance = balance - {amount} WHERE id = {from}; \
                         UPDATE accounts SET balance = balance + {amount} WHERE id = {to}; \
                         INSERT INTO transfers (reference, from_account, to_account, amount) VALUES ('{round:04}-{writer:04}-{number:08}-{transfer}', {from}, {to}, {amount}); COMMIT"
                    ))
                    .await?;
                    changes.fetch_add(3, Ordering::Relaxed);
                    transactions.fetch_add(1, Ordering::Relaxed);
                }
                let first = dice.id(size.grades - 40);
                // Distinct writers change distinct stretches often enough; a deadlock would only be tried again.
                let several = format!("UPDATE grades SET remark = 'r{round}w{writer}n{number}' WHERE id BETWEEN {first} AND {first} + 39");
                if conn.query_drop(several).await.is_ok() {
                    changes.fetch_add(conn.affected_rows(), Ordering::Relaxed);
                    transactions.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    let (changes, transactions) = (changes.load(Ordering::Relaxed), transactions.load(Ordering::Relaxed));
    eprintln!("{changes} changes written at {:.0} rows/s", changes as f64 / started.elapsed().as_secs_f64());
    Ok((changes, transactions))
}

/// Kills it, as a crash would: nothing is saved that is not saved anyway.
async fn interrupt(run: &mut Child) -> Result<(), Failure> {
    run.kill().await?;
    Ok(())
}

async fn wait_for(
    what: &str,
    run: &mut Child,
    directory: &Path,
    mut there: impl AsyncFnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if there().await? {
            return Ok(());
        }
        if let Some(status) = run.try_wait()? {
            return Err(format!("`dbmove` ended with {status} while waiting for {what}:\n{}", moving::said(directory)?).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("{what} took longer than {} s", PATIENCE.as_secs()).into())
}

/// The position saved on the target.
async fn applied(target: &LocalServer) -> Result<(String, u64), Failure> {
    let mut conn = Conn::new(target.connect_options(Account::Root, None)).await?;
    let saved = conn.query_first("SELECT CAST(applied_file AS CHAR), applied_offset FROM `_dbmove`.follow").await?;
    conn.disconnect().await?;
    Ok(saved.unwrap_or_default())
}

async fn end_of_log(source: &mut Conn) -> Result<(String, u64), Failure> {
    let row: Option<(String, u64, String, String)> = source.query_first("SHOW MASTER STATUS").await?;
    row.map(|(file, offset, _, _)| (file, offset)).ok_or_else(|| "the source has no binary log".into())
}

/// Sums over what was written, on both sides: a fast applier that loses changes is not fast.
async fn compare(source: &LocalServer, target: &LocalServer) -> Result<(), Failure> {
    for query in [
        "SELECT COUNT(*), SUM(balance), SUM(version) FROM school.accounts",
        "SELECT COUNT(*), SUM(amount), SUM(CRC32(reference)) FROM school.transfers",
        "SELECT COUNT(*), SUM(course_id), SUM(id) FROM school.submissions",
        "SELECT COUNT(*), SUM(CRC32(remark)), SUM(id) FROM school.grades",
        "SELECT COUNT(*), SUM(progress), SUM(student_id) FROM school.enrolments",
    ] {
        let mut sums: Vec<Option<Sums>> = Vec::new();
        for server in [source, target] {
            let mut conn = Conn::new(server.connect_options(Account::Root, None)).await?;
            sums.push(conn.query_first(query).await?);
            conn.disconnect().await?;
        }
        if sums[0] != sums[1] {
            return Err(format!("the target differs: {query}: {sums:?}").into());
        }
    }
    Ok(())
}
