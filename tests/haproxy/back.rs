//! Back from the target while clients wait at HAProxy: none fails, and everything they wrote on the target is on the source.

use std::time::Duration;

use dbmove::local::Account;
use mysql_async::prelude::Queryable as _;
use tokio::process::Child;

use crate::cutover::{KINDS, clients, done, more_accepted, proxied};
use crate::real::proxy_skipped;
use crate::world::{World, code, connect, number, said, says};

/// The way back, and a person who would close it.
fn with_way_back(world: &World) {
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let back = "    - { id: back, run: mysql.reverse, store: school }\n    - { id: switch";
    let settle = "  settle:\n    - { id: trusted, run: gate.approve, with: { question: \"May the way back be closed?\" } }\n\
                  \x20   - { id: retire, run: mysql.retire, store: school }\n";
    std::fs::write(world.playbook(), text.replace("    - { id: switch", back) + settle).unwrap();
}

/// A cutover in the background, until clients are on the target.
async fn cut_over(world: &World, arguments: &[&str]) -> Child {
    let mut child = world.started(arguments, "cutover.log");
    for _ in 0..2400 {
        if says(&world.path("cutover.log"), "stage cutover done") {
            return child;
        }
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}\n{}", std::fs::read_to_string(world.path("cutover.log")).unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no switch:\n{}", std::fs::read_to_string(world.path("cutover.log")).unwrap());
}

/// There and back: the rehearsal does it on its own pair, then production. Killed once while clients wait for the rollback: they are served by
/// the target then, and it is begun again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_behind_haproxy_fails_no_request() {
    if proxy_skipped("a_rollback_behind_haproxy_fails_no_request", &KINDS) {
        return;
    }
    let _alone = crate::ALONE.lock().await;
    let (mut world, proxied) = proxied(None).await;
    with_way_back(&world);
    let playbook = world.playbook_argument();
    let writers = world.write(100.0, 50.0).await;
    let clients = clients(&proxied, 100, 4);
    done(&world, "rehearse.log", &["--yes", "rehearse", &playbook]).await;
    done(&world, "run.log", &["--yes", "run", &playbook, "--no-follow"]).await;
    let mut cutover = cut_over(&world, &["--yes", "cutover", &playbook, "--deadline", "1h"]).await;
    more_accepted(&clients, 200, "after the cutover").await;

    let rollback = ["--yes", "rollback", &playbook];
    let killed = world.dbmove(&rollback).env("DBMOVE_CRASH_AT", "rollback.clients_held").output().await.unwrap();
    assert_eq!(code(&killed), -9, "{}", said(&killed));
    assert!(cutover.wait().await.unwrap().success(), "{}", std::fs::read_to_string(world.path("cutover.log")).unwrap());
    more_accepted(&clients, 100, "killed while clients waited for the rollback").await;
    let before = clients.counts.failures();
    clients.counts.measure_anew();
    done(&world, "rollback.log", &rollback).await;
    more_accepted(&clients, 200, "after the rollback").await;

    let slowest = clients.counts.slowest();
    let counts = clients.stop().await;
    writers.stop().await.unwrap();
    eprintln!("a rollback while clients waited: {slowest}");
    assert_eq!(counts.failures(), before, "{}", std::fs::read_to_string(world.path("rollback.log")).unwrap());
    assert!(before.is_empty(), "{before:?}");
    let verdict = world.ledger_on(&world.source).await;
    assert!(verdict.is_clean(), "{verdict:#?}");
    let rows: Vec<u64> =
        connect(&world.source, Account::Root).await.query("SELECT number FROM school.request ORDER BY number").await.unwrap();
    let lost: Vec<u64> = counts.sorted().into_iter().filter(|number| rows.binary_search(number).is_err()).collect();
    assert!(lost.is_empty(), "accepted and not on the source: {lost:?}");
    assert_eq!(number(&world.source, "SELECT @@global.read_only").await, 0);
    let state = proxied.proxy.ask("show servers state school").unwrap();
    assert!(state.lines().any(|line| line.contains(" main ") && line.contains(&format!(" {} ", world.source.port()))), "{state}");
    let limits = proxied.proxy.ask("show stat").unwrap();
    assert!(!limits.lines().any(|line| line.starts_with("school,main,") && line.split(',').nth(6) == Some("24")), "{limits}");
}
