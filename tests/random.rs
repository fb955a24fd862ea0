//! Schemas, data and writers made from a seed, moved between real servers while they are written to and `dbmove` is killed.
//!
//! In every second pair of seeds tables come and go beside the others. At the end every row of both sides is compared by plain SELECTs. The seed is
//! printed; `DBMOVE_SEED=n` repeats its schema, data and statements (how they interleave is up to the servers). A failure leaves `target/random/SEED/{schema,before,during}.sql`.
//! Eight rounds, about a minute; with `DBMOVE_SOAK=1` 120, with `DBMOVE_ROUNDS=n` so many.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "random/generated.rs"]
mod generated;
mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::path::Path;
use std::time::Duration;

use dbmove::demo::seed::SchoolSize;
use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use generated::Generated;
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use world::{DATABASE, World, code, connect, said};

const PAIRS: [(ServerKind, ServerKind); 2] = [(ServerKind::Mysql55, ServerKind::Mysql97), (ServerKind::MariaDb, ServerKind::MariaDb)];

/// How many rounds, and the first one's seed.
fn rounds() -> (u64, u64) {
    if let Ok(seed) = std::env::var("DBMOVE_SEED") {
        return (1, seed.parse().unwrap());
    }
    let asked = std::env::var("DBMOVE_ROUNDS").ok().map(|rounds| rounds.parse().unwrap());
    let usual = if std::env::var_os("DBMOVE_SOAK").is_some() { 120 } else { 8 };
    (asked.unwrap_or(usual), rand::random_range(0..1 << 40))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_seed_makes_arrives_exactly() {
    let (rounds, first) = rounds();
    for (turn, (source, target)) in PAIRS.into_iter().enumerate() {
        if real::skipped("what_a_seed_makes_arrives_exactly", &[source, target]) {
            continue;
        }
        let world = servers(source, target).await;
        // A seed says which pair it is for, so that it repeats alone.
        for seed in (first..first + rounds).filter(|seed| seed % 2 == turn as u64) {
            eprintln!("seed: DBMOVE_SEED={seed} ({source:?} to {target:?})");
            let generated = Generated::new(seed, seed & 2 != 0);
            let result = round(&world, &generated, seed).await;
            if let Err(why) = result {
                let kept = Path::new("target/random").join(seed.to_string());
                generated.keep(&kept);
                panic!("DBMOVE_SEED={seed}: {why}\nkept in {}", kept.display());
            }
        }
    }
}

async fn servers(source: ServerKind, target: ServerKind) -> World {
    let directory = tempfile::tempdir().unwrap();
    let source = LocalServer::start(source, &directory.path().join("source"), &world::source_options(source)).await.unwrap();
    let target = LocalServer::start(target, &directory.path().join("target"), &ServerOptions::default().rds_like(true)).await.unwrap();
    let world = World { source, target, rehearsal: None, directory, size: SchoolSize::scaled(0.01), ledger: None };
    std::fs::write(world.route(), format!("127.0.0.1:{}\n", world.source.port())).unwrap();
    let text = world.playbook_text("30s").replace("chunk_bytes: 256KiB", "chunk_bytes: 4KiB");
    let included = format!("include: [\"{DATABASE}.*\"]");
    let text = text.replace(&included, &format!("{included}\n    on_ddl: apply"));
    std::fs::write(world.playbook(), text).unwrap();
    world
}

async fn round(world: &World, generated: &Generated, seed: u64) -> Result<(), String> {
    let mut source = connect(&world.source, Account::Root).await;
    let mut target = connect(&world.target, Account::Root).await;
    for conn in [&mut source, &mut target] {
        conn.query_drop(format!("DROP DATABASE IF EXISTS {DATABASE}")).await.unwrap();
    }
    target.query_drop("DROP DATABASE IF EXISTS _dbmove").await.unwrap();
    let _ = std::fs::remove_dir_all(world.state());
    source.query_drop(format!("CREATE DATABASE {DATABASE} DEFAULT CHARACTER SET latin1")).await.unwrap();
    source.query_drop(format!("USE {DATABASE}")).await.unwrap();
    source.query_drop("SET sql_mode = ''").await.unwrap();
    for statement in generated.schema.iter().chain(&generated.before) {
        source.query_drop(statement).await.map_err(|error| format!("{statement}: {error}"))?;
    }
    let playbook = world.playbook_argument();
    let run = ["--yes", "run", playbook.as_str()];
    let mut dice = StdRng::seed_from_u64(seed ^ 1);
    let mut mover = world.started(&run, "run.log");
    let mut writers = tokio::task::JoinSet::new();
    for statements in generated.during.clone() {
        let mut conn = connect(&world.source, Account::Root).await;
        writers.spawn(async move {
            conn.query_drop(format!("USE {DATABASE}")).await.unwrap();
            conn.query_drop("SET sql_mode = ''").await.unwrap();
            // One that waits for a row while another waits for the table: no server sees that deadlock, and time ends it.
            conn.query_drop("SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1").await.unwrap();
            let mut done = 0;
            for statement in &statements {
                // A duplicate, a deadlock, a missing parent: the source refuses it, and that is life.
                done += u64::from(conn.query_drop(statement).await.is_ok());
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            let _ = conn.query_drop("ROLLBACK").await;
            done
        });
    }
    let mut kills = 0;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(dice.random_range(800..3500))).await;
        if mover.try_wait().unwrap().is_none() {
            mover.kill().await.unwrap();
            kills += 1;
        }
        mover = world.started(&run, "run.log");
    }
    let mut done = 0;
    while let Some(ended) = writers.join_next().await {
        done += ended.unwrap();
    }
    if mover.try_wait().unwrap().is_none() {
        mover.kill().await.unwrap();
        kills += 1;
    }
    let output = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    if code(&output) != 0 {
        return Err(format!("exit {}: {}\n{}", code(&output), said(&output), std::fs::read_to_string(world.path("run.log")).unwrap()));
    }
    // The run may have been complete before the last kill: comparing once more brings everything since to the target first.
    let output = world.finished(&["--yes", "verify", &playbook]).await;
    if code(&output) != 0 {
        return Err(format!("verify: exit {}: {}", code(&output), said(&output)));
    }
    let comparison = world.compare().await;
    eprintln!("  {done} statements carried out, {kills} kills, {} rows compared", comparison.rows_compared);
    if comparison.is_equal() { Ok(()) } else { Err(format!("{comparison:#?}")) }
}
