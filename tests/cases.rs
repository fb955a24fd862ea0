//! The cases of `fixtures/cases/`, each moved by the built program between real servers: a case needs no Rust.
//!
//! One pair of servers per combination, one move for all its cases: every case has a database `case_NAME` of its own.
//! `before.sql` is copied, `during.sql` followed: either while the copy runs, or after it, when every event has to
//! find what the copy brought. What must hold is said in `fixtures/cases/README.md`; that both sides are equal is found
//! by plain SELECTs that share nothing with dbmove's own comparison (`cases/compare.rs`), besides that comparison, after a
//! cutover up to the switch. Counters are compared then, and both engines of verification have to find the same.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "cases/case.rs"]
mod case;
#[path = "cases/compare.rs"]
mod compare;
#[path = "cases/engines.rs"]
mod engines;
mod real;
#[path = "cases/world.rs"]
mod world;

use case::Case;
use dbmove::local::ServerKind;
use world::{Moment, World};

async fn all_cases(test: &str, source: ServerKind, target: ServerKind, moment: Moment) {
    if real::skipped(test, &[source, target]) {
        return;
    }
    let cases = Case::all(source, target);
    let some_alone = std::env::var_os("DBMOVE_CASE").is_some();
    assert!(some_alone || cases.len() > 115, "only {} cases apply", cases.len());
    let world = World::start(source, target, moment).await;
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| case.refusal.is_some()) {
        wrong.extend(world.refuses(case).await);
    }
    let moved: Vec<&Case> = cases.iter().filter(|case| case.refusal.is_none()).collect();
    wrong.extend(world.moves(&moved).await);
    assert!(wrong.is_empty(), "{test}: the move did not go well:\n{}", wrong.join("\n"));
    let mut rows = 0;
    for case in &moved {
        match compare::compare(&world.source, &world.target, case).await {
            Ok(compared) => rows += compared,
            Err(differences) => wrong.extend(differences.into_iter().map(|difference| format!("{}: {difference}", case.name))),
        }
        wrong.extend(world.expectation_unmet(case).await);
    }
    wrong.extend(world.counters_behind(&moved).await);
    wrong.extend(engines::disagreements(&world, &moved).await);
    eprintln!("{test}: {} cases, {rows} rows compared", cases.len());
    assert!(wrong.is_empty(), "{} of {} cases: {} are wrong:\n{}", test, cases.len(), wrong.len(), wrong.join("\n"));
    assert!(some_alone || rows > 40_000, "only {rows} rows were compared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_55_to_mysql_97() {
    all_cases("mysql_55_to_mysql_97", ServerKind::Mysql55, ServerKind::Mysql97, Moment::Followed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_56_to_mysql_97() {
    all_cases("mysql_56_to_mysql_97", ServerKind::Mysql56, ServerKind::Mysql97, Moment::Followed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_to_mysql_97() {
    all_cases("mariadb_to_mysql_97", ServerKind::MariaDb, ServerKind::Mysql97, Moment::Followed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_55_to_mariadb() {
    all_cases("mysql_55_to_mariadb", ServerKind::Mysql55, ServerKind::MariaDb, Moment::Copied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_to_mariadb() {
    all_cases("mariadb_to_mariadb", ServerKind::MariaDb, ServerKind::MariaDb, Moment::Followed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_5614_to_mysql_97_with_kills() {
    all_cases("mysql_5614_to_mysql_97_with_kills", ServerKind::Mysql5614, ServerKind::Mysql97, Moment::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_559_to_mysql_97() {
    all_cases("mysql_559_to_mysql_97", ServerKind::Mysql559, ServerKind::Mysql97, Moment::Copied).await;
}

/// A source as new as its target: row events of version 2, JSON, and definitions that only new servers have. Every way back from 9.7 reads them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_97_to_mysql_97() {
    all_cases("mysql_97_to_mysql_97", ServerKind::Mysql97, ServerKind::Mysql97, Moment::Followed).await;
}
