//! How long nobody can write at the switch, over many cutovers of one school under load, as its own canary and its users saw it.
//!
//! Five cutovers, fifty with `DBMOVE_SOAK=1`. The times are printed for the record (`docs/benchmarks.md`) and not asserted: a machine may be
//! slow. Asserted is what must hold at any speed: every cutover succeeds, every acknowledged transfer is on the target once,
//! and the source takes no write afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::time::Duration;

use dbmove::demo::seed::seed;
use dbmove::local::{Account, ServerKind};
use mysql_async::prelude::Queryable;
use world::{DATABASE, World, code, connect, number, said, stopped};

const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];
/// Writes a second that are asked for: transfers, and other changes.
const LOAD: (f64, f64) = (500.0, 500.0);

/// What one cutover showed, in milliseconds.
#[derive(Debug)]
struct Shown {
    gap: u64,
    held: u64,
    stall: u64,
    writes_per_second: f64,
}

/// The value below which so many hundredths of the values are.
fn percentile(values: &mut [u64], hundredths: usize) -> u64 {
    values.sort_unstable();
    values[((values.len() * hundredths).div_ceil(100)).clamp(1, values.len()) - 1]
}

/// Makes the world what it was at the start.
async fn back(world: &mut World) {
    let mut target = connect(&world.target, Account::Root).await;
    for database in [DATABASE, "_dbmove", "_dbmove_canary"] {
        target.query_drop(format!("DROP DATABASE IF EXISTS {database}")).await.unwrap();
    }
    let mut source = connect(&world.source, Account::Root).await;
    source.query_drop("SET GLOBAL read_only = 0").await.unwrap();
    source.query_drop(format!("DROP DATABASE {DATABASE}")).await.unwrap();
    seed(&mut source, DATABASE, &world.size, 7).await.unwrap();
    std::fs::write(world.route(), format!("127.0.0.1:{}\n", world.source.port())).unwrap();
    std::fs::remove_dir_all(world.state()).unwrap();
    world.ledger = None;
    std::fs::remove_file(world.path("ledger")).unwrap();
}

async fn cutover(world: &mut World) -> Shown {
    let playbook = world.playbook_argument();
    let writers = world.write(LOAD.0, LOAD.1).await;
    let began = std::time::Instant::now();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let cutover = world.finished(&["--yes", "cutover", &playbook, "--without-rehearsal", "a measurement"]).await;
    assert_eq!(code(&cutover), 0, "{}", said(&cutover));
    tokio::time::sleep(Duration::from_millis(700)).await;
    let seconds = began.elapsed().as_secs_f64();
    let counts = stopped(writers).await;
    let verdict = world.ledger_on(&world.target).await;
    assert!(verdict.is_clean(), "{verdict:#?}\n{counts:?}");
    assert_eq!(number(&world.source, "SELECT @@global.read_only").await, 1);
    let report = world.finished(&["report", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let steps: Vec<&serde_json::Value> =
        report["stages"].as_array().unwrap().iter().flat_map(|stage| stage["steps"].as_array().unwrap()).collect();
    let smoke = steps.iter().find(|step| step["id"] == "smoke").unwrap();
    assert_eq!(smoke["facts"]["write_gap_exact"], true, "{smoke}");
    let held = report["write_gap"]["seconds"].as_f64().unwrap() * 1000.0;
    let writes = counts.transfers_acknowledged + counts.changes.values().sum::<u64>();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "for people")]
    Shown {
        gap: smoke["facts"]["write_gap_ms"].as_u64().unwrap(),
        held: held as u64,
        stall: counts.longest_stall_ms,
        writes_per_second: writes as f64 / seconds,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_switch_under_load_again_and_again() {
    if real::skipped("the_switch_under_load_again_and_again", &KINDS) {
        return;
    }
    let rounds = if std::env::var_os("DBMOVE_SOAK").is_some() { 50 } else { 5 };
    let mut world = World::start(KINDS[0], KINDS[1], 0.03).await;
    let mut shown = Vec::new();
    for round in 0..rounds {
        if round > 0 {
            back(&mut world).await;
        }
        shown.push(cutover(&mut world).await);
        eprintln!("cutover {}: {:?}", round + 1, shown.last().unwrap());
    }
    let least = shown.iter().map(|shown| shown.writes_per_second).fold(f64::INFINITY, f64::min);
    println!("under {least:.0} writes a second and more");
    for (what, value) in [("write gap", 0), ("writes held", 1), ("longest wait of a writer", 2)] {
        let mut values: Vec<u64> = shown.iter().map(|shown| [shown.gap, shown.held, shown.stall][value]).collect();
        println!(
            "{what} over {} cutovers: p50 {} ms, p99 {} ms, longest {} ms",
            values.len(),
            percentile(&mut values, 50),
            percentile(&mut values, 99),
            percentile(&mut values, 100)
        );
    }
}
