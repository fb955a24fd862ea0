//! A server with very many tables moves like one with few: what a table costs does not grow with how many there are.
//!
//! Counted in statements, not in seconds: a machine may be slow, but a second query per table for every other table shows
//! in the servers' own counters. `DBMOVE_MANY_TABLES` sets the larger number (default 600; 4,800 in the soak), and the
//! seconds of each stage are printed, for the record.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use mysql_async::prelude::Queryable;
use world::{World, code, number, said};

/// Statements the server was sent, by anybody.
async fn statements(server: &LocalServer) -> u64 {
    let mut conn = world::connect(server, Account::Root).await;
    let (_, count): (String, u64) = conn.query_first("SHOW GLOBAL STATUS LIKE 'Questions'").await.unwrap().unwrap();
    count
}

/// So many small tables of different shapes, three rows each, in a database of their own; every tenth has no key, every
/// seventh a parent.
async fn fill(server: &LocalServer, database: &str, tables: usize) {
    let mut conn = world::connect(server, Account::Root).await;
    conn.query_drop(format!("CREATE DATABASE {database} DEFAULT CHARACTER SET utf8")).await.unwrap();
    conn.query_drop(format!("CREATE TABLE {database}.parent (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB")).await.unwrap();
    conn.query_drop(format!("INSERT INTO {database}.parent VALUES (1), (2), (3)")).await.unwrap();
    for table in 0..tables {
        let key = if table % 10 == 9 { "" } else { " AUTO_INCREMENT PRIMARY KEY" };
        let parent = if table % 7 == 6 {
            format!(", CONSTRAINT to_parent_{table} FOREIGN KEY (word) REFERENCES parent (id)")
        } else {
            String::new()
        };
        conn.query_drop(format!(
            "CREATE TABLE {database}.table_{table:05} (id INT NOT NULL{key}, word INT, made TIMESTAMP NULL, title VARCHAR(60), KEY (word), KEY (title){parent}) ENGINE=InnoDB"
        ))
        .await
        .unwrap();
        conn.query_drop(format!(
            "INSERT INTO {database}.table_{table:05} VALUES (1, 1, NOW(), 'one'), (2, 2, NULL, 'two'), (3, 3, NOW(), NULL)"
        ))
        .await
        .unwrap();
    }
}

/// What moving so many tables took: statements on the source and on the target.
async fn moved(world: &World, database: &str, tables: usize) -> (u64, u64) {
    fill(&world.source, database, tables).await;
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    // Another playbook and another store: the first one still claims its part of the target.
    let text = text.replace("playbook: school", &format!("playbook: {database}"));
    let text = text.replace("\n  school:\n", &format!("\n  {database}:\n")).replace("store: school", &format!("store: {database}"));
    let text = text.replace("include: [\"school.*\"]", &format!("include: [\"{database}.*\"]"));
    let playbook = world.path(&format!("{database}.yaml"));
    std::fs::write(&playbook, text).unwrap();
    let before = (statements(&world.source).await, statements(&world.target).await);
    let started = Instant::now();
    let patience = Duration::from_secs(240 + tables as u64 / 5);
    let ran = world.finished_within(patience, &["--yes", "run", &playbook.display().to_string(), "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let took = started.elapsed();
    let after = (statements(&world.source).await, statements(&world.target).await);
    let there = format!("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{database}'");
    assert_eq!(number(&world.target, &there).await, tables as u64 + 1);
    let (source, target) = (after.0 - before.0, after.1 - before.1);
    println!(
        "{tables} tables moved and verified in {:.1} s: {source} statements on the source, {target} on the target",
        took.as_secs_f64()
    );
    println!("{}", String::from_utf8_lossy(&ran.stderr).lines().filter(|line| line.contains(" done in ")).collect::<Vec<_>>().join("\n"));
    (source, target)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_table_costs_does_not_grow_with_their_number() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("what_a_table_costs_does_not_grow_with_their_number", &kinds) {
        return;
    }
    let many: usize = std::env::var("DBMOVE_MANY_TABLES").ok().and_then(|number| number.parse().ok()).unwrap_or(600);
    let few = many / 4;
    let mut world = World::start(kinds[0], kinds[1], 0.01).await;
    // A target that can't keep all of them open, as every server has a limit: closed, a table's next id reads as the last one given.
    let small = ["--table-definition-cache=400", "--table-open-cache=400"];
    let options = small.into_iter().fold(ServerOptions::default().rds_like(true), ServerOptions::argument);
    world.target = LocalServer::start(kinds[1], &world.path("small"), &options).await.unwrap();
    std::fs::write(world.playbook(), world.playbook_text("30s")).unwrap();
    let less = moved(&world, "few", few).await;
    let more = moved(&world, "many", many).await;
    compared_while_closed(&world).await;
    // Four times the tables may take four times the statements, and what waits for time asks more often on a slow machine.
    for (less, more, server) in [(less.0, more.0, "source"), (less.1, more.1, "target")] {
        assert!(more < less * 5, "{few} tables took {less} statements on the {server}, {many} took {more}");
    }
}

/// The server has closed some of the tables, and shows their last id where it shows the next one of the others: no reason to say that they differ.
async fn compared_while_closed(world: &World) {
    let closed = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'many' AND AUTO_INCREMENT = 3";
    let mut conn = world::connect(&world.target, Account::Root).await;
    conn.query_drop("SET SESSION information_schema_stats_expiry = 0").await.unwrap();
    let began = Instant::now();
    // It does so in the background, every 47 seconds (`SRV_MASTER_DICT_LRU_INTERVAL`).
    while conn.query_first::<u64, _>(closed).await.unwrap() == Some(0) {
        assert!(began.elapsed() < Duration::from_secs(180), "it keeps all of them open");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let playbook = world.path("many.yaml").display().to_string();
    let verified = world.finished(&["verify", &playbook]).await;
    assert_eq!(code(&verified), 0, "{}", said(&verified));
}
