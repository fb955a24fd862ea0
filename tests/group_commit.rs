//! MariaDB commits transactions in groups, and logs one of a group that holds nothing but a savepoint taken back with a GTID event
//! longer than it can itself write over for replicas that know no GTIDs: its log could not be read any further ("corrupt event").
//! Found by `DBMOVE_SEED=454166385563` of `tests/random.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use dbmove::local::{Account, ServerKind};
use mysql_async::prelude::Queryable;
use world::{World, code, number, said};

/// Transactions of each of two connections.
const EACH: u32 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_odd_transactions_are_followed() {
    let kinds = [ServerKind::MariaDb, ServerKind::MariaDb];
    if real::skipped("groups_of_odd_transactions_are_followed", &kinds) {
        return;
    }
    let world = World::start(kinds[0], kinds[1], 0.01).await;
    let mut conn = world::connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE TABLE school.kept (id INT NOT NULL PRIMARY KEY, word VARCHAR(40)) ENGINE=InnoDB",
        // One each: a MyISAM table is locked until its statement is committed.
        "CREATE TABLE school.plain_1 (id INT NOT NULL PRIMARY KEY, word VARCHAR(40)) ENGINE=MyISAM",
        "CREATE TABLE school.plain_2 (id INT NOT NULL PRIMARY KEY, word VARCHAR(40)) ENGINE=MyISAM",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    // A commit waits for another one, so that groups of two come about.
    conn.query_drop("SET GLOBAL binlog_commit_wait_count = 2, GLOBAL binlog_commit_wait_usec = 500000").await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 1..=2 {
        let mut conn = world::connect(&world.source, Account::Root).await;
        writers.spawn(async move {
            for turn in 1..=EACH {
                let id = writer * 1000 + turn;
                for statement in [
                    "BEGIN".to_owned(),
                    format!("INSERT INTO school.kept VALUES ({id}, 'kept')"),
                    format!("INSERT INTO school.plain_{writer} VALUES ({id}, 'plain')"),
                    "COMMIT".to_owned(),
                    // Of this the log has the savepoint alone, and apart from it what the plain table got.
                    "BEGIN".to_owned(),
                    format!("INSERT INTO school.kept VALUES ({id} + 5000, 'once'), ({id} + 5000, 'twice')"),
                    "SAVEPOINT s".to_owned(),
                    format!("INSERT INTO school.plain_{writer} VALUES ({id} + 5000, 'stays')"),
                    "ROLLBACK TO s".to_owned(),
                    "COMMIT".to_owned(),
                ] {
                    let fails = statement.contains("twice");
                    assert_eq!(conn.query_drop(&statement).await.is_err(), fails, "{statement}");
                }
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let counted = |name: &str| {
        format!("SELECT CAST(variable_value AS UNSIGNED) FROM information_schema.global_status WHERE variable_name = '{name}'")
    };
    let [commits, groups] =
        [number(&world.source, &counted("binlog_commits")).await, number(&world.source, &counted("binlog_group_commits")).await];
    assert!(commits > groups, "{commits} commits in {groups} groups: no two transactions were committed together");
    let verified = world.finished(&["--yes", "verify", &playbook]).await;
    assert_eq!(code(&verified), 0, "{}", said(&verified));
    for (table, rows) in [("kept", 2 * EACH), ("plain_1", 2 * EACH), ("plain_2", 2 * EACH)] {
        assert_eq!(number(&world.target, &format!("SELECT COUNT(*) FROM school.{table}")).await, u64::from(rows), "{table}");
    }
    let comparison = world.compare().await;
    assert!(comparison.is_equal(), "{comparison:#?}");
}
