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

/// Rows for every table of `fixtures/schema/odd.sql`; then what changes while they are followed.
const ODD_ROWS: [&str; 20] = [
    "INSERT INTO odd.online VALUES ('one', 1, NOW()), ('two', 2, NOW()), ('three', 3, NOW())",
    "INSERT INTO odd.exported VALUES (1, 'a, \"b\"'), (1, 'a, \"b\"'), (2, 'é')",
    "INSERT INTO odd.archived VALUES (7, 'seven'), (8, NULL)",
    "INSERT INTO odd.by_range VALUES (1, '2012-05-05'), (2, '2013-05-05'), (3, '0000-00-00')",
    "INSERT INTO odd.by_range_columns VALUES (1, '2011-05-05'), (2, '2012-05-05')",
    "INSERT INTO odd.by_list VALUES (1, 1), (2, 2), (3, 3)",
    "INSERT INTO odd.by_list_columns VALUES (1, 'Kiel'), (2, 'it''s')",
    "INSERT INTO odd.by_hash VALUES (-1), (0), (1), (99)",
    "INSERT INTO odd.by_linear_hash VALUES (-1), (0), (1), (99)",
    "INSERT INTO odd.by_key VALUES ('a'), ('b'), ('ß'), ('ss')",
    "INSERT INTO odd.by_linear_key VALUES (1), (2), (3)",
    "INSERT INTO odd.subpartitioned VALUES (1, '2009-01-01'), (1, '2009-01-01'), (2, '2011-01-01')",
    "INSERT INTO odd.`rank` (`groups`, `window`, `of`) VALUES (1, 2, 3), (2, NULL, 4)",
    "INSERT INTO odd.`a.b` (`c.d`, `per%cent`, `tick``s`, `# z`, `表`) VALUES (1, 2, 3, 4, 5), (2, 3, 4, 5, 6)",
    "INSERT INTO odd.`%` VALUES (1), (2)",
    "INSERT INTO odd.`select * from x; --` VALUES (1), (2)",
    "INSERT INTO odd.`Käse` VALUES (1), (2)",
    "INSERT INTO odd.case_differs VALUES (1), (2)",
    "INSERT INTO odd.Case_Differs VALUES (2, 3), (3, 4)",
    "INSERT INTO odd.t234567890123456789012345678901234567890123456789012345678901234 VALUES (1), (2)",
];
const ODD_CHANGES: [&str; 12] = [
    "UPDATE odd.online SET session = 'four', user_id = 4 WHERE session = 'one'",
    "DELETE FROM odd.online WHERE session = 'two'",
    "INSERT INTO odd.exported VALUES (3, 'three')",
    "INSERT INTO odd.archived VALUES (9, 'nine')",
    "UPDATE odd.by_range SET made = '2012-06-06' WHERE id = 2",
    "UPDATE odd.by_list SET kind = 4 WHERE id = 1",
    "DELETE FROM odd.subpartitioned WHERE id = 1 LIMIT 1",
    "UPDATE odd.`rank` SET `groups` = 3 WHERE `groups` = 1",
    "UPDATE odd.`a.b` SET `# z` = NULL, `c.d` = 3 WHERE `c.d` = 1",
    "DELETE FROM odd.`%` WHERE id = 1",
    "INSERT INTO odd.Case_Differs VALUES (1, 1)",
    "UPDATE odd.`select * from x; --` SET id = 5 WHERE id = 1",
];

/// Other engines, partitions of every kind, and names that look like something else: copied, followed and verified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_engines_partitions_and_odd_names() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("other_engines_partitions_and_odd_names", &kinds) {
        return;
    }
    let mut world = World::start(kinds[0], kinds[1], 0.01).await;
    let mut conn = world::connect(&world.source, Account::Root).await;
    conn.query_drop("SET NAMES utf8").await.unwrap();
    let schema = include_str!("../fixtures/schema/odd.sql").replace("academy", "odd");
    for statement in schema.split("\n\n").filter(|paragraph| !paragraph.starts_with("--")).chain(ODD_ROWS) {
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{error}\n{statement}"));
    }
    world.stop_at_the_fence();
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    std::fs::write(world.playbook(), text.replace("include: [\"school.*\"]", "include: [\"school.*\", \"odd.*\"]")).unwrap();
    let writers = world.write(50.0, 20.0).await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    for statement in ODD_CHANGES {
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{error}\n{statement}"));
    }
    // The cutover follows what was changed meanwhile and compares it; then everything is compared by plain SELECTs here.
    world.cut_over_and_judge(writers).await;
    let of = |server| dbmove::demo::compare::Side { database: "odd".to_owned(), ..world::side(server) };
    let comparison = dbmove::demo::compare::compare(&of(&world.source), &of(&world.target), 50).await.unwrap();
    assert!(comparison.is_equal(), "{comparison:#?}");
    assert_eq!(comparison.rows_compared, 52, "{comparison:?}");
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
