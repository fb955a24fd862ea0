//! A live database moves, end to end: real servers, live writers, the built program.
//!
//! In each case writers write from before the copy to after the switch. At the fence every row of both sides is
//! compared by plain SELECTs that share no code with dbmove's own verification; after the switch every acknowledged
//! transfer is on the target exactly once and no money came or went.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::prelude::Queryable;
use world::{World, code, said};

/// How many `LOAD DATA` statements the server has run.
async fn loads(server: &LocalServer) -> u64 {
    let mut conn = world::connect(server, Account::Root).await;
    let (_, count): (String, u64) = conn.query_first("SHOW GLOBAL STATUS LIKE 'Com_load'").await.unwrap().unwrap();
    count
}

async fn moves(test: &str, source: ServerKind, target: ServerKind) {
    moves_included(test, source, target, "school.*").await;
}

async fn moves_included(test: &str, source: ServerKind, target: ServerKind, include: &str) {
    if real::skipped(test, &[source, target]) {
        return;
    }
    let mut world = World::start(source, target, 0.05).await;
    world.stop_at_the_fence();
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    std::fs::write(world.playbook(), text.replace("include: [\"school.*\"]", &format!("include: [\"{include}\"]"))).unwrap();
    let writers = world.write(250.0, 120.0).await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let verdict = world.cut_over_and_judge(writers).await;
    assert!(verdict.acknowledged > 200, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_55_to_mysql_97() {
    moves("mysql_55_to_mysql_97", ServerKind::Mysql55, ServerKind::Mysql97).await;
}

/// The oldest 5.5 there is, and all of it but what belongs to the server or to dbmove.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_mysql_559_to_mysql_97() {
    moves_included("a_whole_mysql_559_to_mysql_97", ServerKind::Mysql559, ServerKind::Mysql97, "*.*").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_insert_where_load_data_is_not_to_be_had() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("by_insert_where_load_data_is_not_to_be_had", &kinds) {
        return;
    }
    let mut world = World::start(kinds[0], kinds[1], 0.02).await;
    world.stop_at_the_fence();
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    std::fs::write(world.playbook(), text.replace("chunk_bytes: 256KiB", "chunk_bytes: 256KiB, load: insert")).unwrap();
    let before = loads(&world.target).await;
    let writers = world.write(100.0, 60.0).await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    assert_eq!(before, loads(&world.target).await, "LOAD DATA was used");
    world.cut_over_and_judge(writers).await;
}

/// A target that a step provides: its port is only known once the run has begun, and found again by every driver after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_a_target_that_a_step_provides() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("to_a_target_that_a_step_provides", &kinds) {
        return;
    }
    let mut world = World::start(kinds[0], kinds[1], 0.02).await;
    world.stop_at_the_fence();
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let port = world.target.port();
    let (known, provided) = (format!("mysql://admin@127.0.0.1:{port}/"), "mysql://admin@127.0.0.1:${step:provision.port}/");
    assert!(text.contains(&known));
    let hook =
        format!("  prepare:\n    - {{ id: provision, run: hook.exec, with: {{ command: [echo, '{{\"port\": {port}}}'], undo: none }} }}\n");
    std::fs::write(world.playbook(), text.replace(&known, provided).replace("  prepare:\n", &hook)).unwrap();
    let writers = world.write(100.0, 60.0).await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    world.cut_over_and_judge(writers).await;
    let mut conn = world::connect(&world.target, Account::Root).await;
    let left: Vec<String> = conn.query("SELECT schema_name FROM information_schema.schemata WHERE schema_name = '_dbmove'").await.unwrap();
    assert!(left.is_empty(), "the claim outlived the run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_56_with_old_row_events_to_mysql_97() {
    moves("mysql_56_with_old_row_events_to_mysql_97", ServerKind::Mysql56, ServerKind::Mysql97).await;
}

/// The early 5.6 as it comes: row events of version 2 and binary log checksums.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_5614_to_mysql_97() {
    moves("mysql_5614_to_mysql_97", ServerKind::Mysql5614, ServerKind::Mysql97).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_to_mariadb() {
    moves("mariadb_to_mariadb", ServerKind::MariaDb, ServerKind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_55_to_mariadb() {
    moves("mysql_55_to_mariadb", ServerKind::Mysql55, ServerKind::MariaDb).await;
}
