//! A live database moves, end to end: real servers, live writers, the built program.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[path = "moving/world.rs"]
mod world;

use dbmove::local::ServerKind;
use world::{World, code, said, stopped};

/// Writers write from before the copy to after the switch; everything is on the target, once.
async fn moves(test: &str, source: ServerKind, target: ServerKind) {
    if real::skipped(test, &[source, target]) {
        return;
    }
    let mut world = World::start(source, target, 0.05).await;
    let writers = world.write(250.0, 100.0).await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let cut =
        world.finished(&["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the switch alone"]).await;
    assert_eq!(code(&cut), 0, "{}", said(&cut));
    eprintln!("{}", said(&cut));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let counts = stopped(writers).await;
    eprintln!("{counts:?}");
    let verdict = world.ledger_on(&world.target).await;
    assert!(verdict.is_clean(), "{verdict:?}");
    assert!(verdict.acknowledged > 200, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_55_to_mysql_97() {
    moves("mysql_55_to_mysql_97", ServerKind::Mysql55, ServerKind::Mysql97).await;
}
