//! Whoever writes to the target before the switch is found by what they did, named, and stops the switch.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::time::Duration;

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use world::{DATABASE, World, code, connect, said};

/// A world whose target counts statements by account, as servers do unless told otherwise.
async fn counting(source: ServerKind, target: ServerKind, counts: bool) -> World {
    let mut world = World::start(source, target, 0.01).await;
    let mut options = ServerOptions::default().rds_like(true);
    if counts {
        options = options.argument("--performance-schema=ON");
    }
    world.target = LocalServer::start(target, &world.path("counting"), &options).await.unwrap();
    std::fs::write(world.playbook(), world.playbook_text("30s")).unwrap();
    world
}

async fn in_the_school(world: &World, account: Account) -> Conn {
    let options = OptsBuilder::from_opts(world.target.connect_options(account, None)).db_name(Some(DATABASE));
    Conn::new(options).await.unwrap()
}

fn foreign(report: &[u8]) -> Vec<String> {
    let report: serde_json::Value = serde_json::from_slice(report).unwrap();
    let writers = report["verifications"][0]["foreign"]["writers"].as_array().unwrap().clone();
    writers.iter().map(|writer| format!("{} {} certain={}", writer["account"], writer["what"], writer["certain"])).collect()
}

async fn named_and_refused(test: &str, target: ServerKind) {
    if real::skipped(test, &[ServerKind::Mysql55, target]) {
        return;
    }
    let mut world = counting(ServerKind::Mysql55, target, true).await;
    let playbook = world.playbook_argument();
    let writers = world.write(60.0, 30.0).await;
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let report = world.finished(&["report", "--json"]).await;
    assert_eq!(foreign(&report.stdout), Vec::<String>::new(), "nobody else was there");

    // The application, connected too early, by plain and by prepared statements; and a hand without a default database.
    let mut app = in_the_school(&world, Account::App).await;
    app.query_drop("UPDATE students SET name = 'foreign' ORDER BY id LIMIT 1").await.unwrap();
    let last: u64 = app.exec_first("SELECT MAX(id) FROM students WHERE id > ?", (0,)).await.unwrap().unwrap();
    app.exec_drop("UPDATE students SET name = 'foreign' WHERE id = ?", (last,)).await.unwrap();
    app.disconnect().await.unwrap();
    let mut root = connect(&world.target, Account::Root).await;
    root.query_drop("DELETE FROM school.settings LIMIT 1").await.unwrap();
    root.disconnect().await.unwrap();

    let found = world.finished(&["verify", &playbook]).await;
    let words = said(&found);
    eprintln!("{words}");
    assert_eq!(code(&found), 3, "{words}");
    let report = world.finished(&["report", "--json"]).await;
    let named = foreign(&report.stdout);
    for (account, what) in [("app@127.0.0.1", "update"), ("root@127.0.0.1", "1 delete")] {
        assert!(
            named.iter().any(|line| line.contains(account) && line.contains(what) && line.ends_with("certain=true")),
            "{account}: {named:#?}"
        );
    }
    if target == ServerKind::Mysql97 {
        // Its counts of statements leave out the prepared ones, so those are named by themselves.
        assert!(named.iter().any(|line| line.contains("app@127.0.0.1") && line.contains("2 runs of prepared statements")), "{named:#?}");
    }
    assert!(!named.iter().any(|line| line.contains("admin")), "dbmove took itself for another: {named:#?}");
    assert!(words.contains("foreign writer: `app@127.0.0.1` wrote to the target"), "{words}");

    // Repaired and equal: what they wrote before that is no reason to stop. What they write now is, before anything is held.
    let equal = world.finished(&["verify", &playbook, "--repair"]).await;
    assert_eq!(code(&equal), 0, "{}", said(&equal));
    let mut app = in_the_school(&world, Account::App).await;
    app.query_drop("UPDATE students SET name = name WHERE id < 0").await.unwrap();
    app.disconnect().await.unwrap();
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of foreign writers"];
    let refused = world.finished(&cutover).await;
    let words = said(&refused);
    eprintln!("{words}");
    assert_eq!(code(&refused), 4, "{words}");
    assert!(words.contains("somebody else wrote to the target") && words.contains("`app@127.0.0.1`"), "{words}");
    assert_eq!(world::number(&world.source, "SELECT @@global.read_only").await, 0);
    // Servers tell when a statement was last seen by the second: what ran in the second in which a comparison begins counts as after it.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let equal = world.finished(&["verify", &playbook]).await;
    assert_eq!(code(&equal), 0, "{}", said(&equal));
    let done = world.finished(&cutover).await;
    assert_eq!(code(&done), 0, "{}", said(&done));
    world::stopped(writers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_and_refused_on_mysql() {
    named_and_refused("named_and_refused_on_mysql", ServerKind::Mysql97).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_and_refused_on_mariadb() {
    named_and_refused("named_and_refused_on_mariadb", ServerKind::MariaDb).await;
}

/// A source that applies what another server sends it: behind the switch the target would miss that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_fed_by_another_is_not_fenced() {
    let (kind, target) = (ServerKind::Mysql55, ServerKind::Mysql97);
    if real::skipped("a_source_that_is_fed_by_another_is_not_fenced", &[kind, target]) {
        return;
    }
    let options = world::source_options(kind).argument("--log-slave-updates");
    let world = World::start_with(kind, &options, target, 0.01).await;
    let primary = LocalServer::start(kind, &world.path("primary"), &ServerOptions::default()).await.unwrap();
    let mut replica = real::replica::replicate(&primary, &world.source).await;
    let playbook = world.playbook_argument();
    let assessed = world.finished(&["assess", &playbook]).await;
    assert!(said(&assessed).contains("source-replicates"), "{}", said(&assessed));
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of a source that is fed"];
    let refused = world.finished(&cutover).await;
    let words = said(&refused);
    eprintln!("{words}");
    assert_eq!(code(&refused), 4, "{words}");
    assert!(words.contains("is itself a replica") && words.contains("Writes were not stopped"), "{words}");
    assert_eq!(world::number(&world.source, "SELECT @@global.read_only").await, 0);
    replica.query_drop("STOP SLAVE").await.unwrap();
    let done = world.finished(&cutover).await;
    assert_eq!(code(&done), 0, "{}", said(&done));
}

/// A server that counts nothing shows who is connected, and a statement while it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seen_in_the_process_list() {
    if real::skipped("seen_in_the_process_list", &[ServerKind::Mysql55, ServerKind::MariaDb]) {
        return;
    }
    let world = counting(ServerKind::Mysql55, ServerKind::MariaDb, false).await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let idle = in_the_school(&world, Account::App).await;
    let mut busy = connect(&world.target, Account::Root).await;
    let running = tokio::spawn(async move { busy.query_drop("UPDATE school.students SET name = name WHERE SLEEP(2) = 1 LIMIT 30").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let found = world.finished(&["verify", &playbook]).await;
    running.abort();
    assert_eq!(code(&found), 0, "{}", said(&found));
    let report = world.finished(&["report", "--json"]).await;
    let named = foreign(&report.stdout);
    assert!(
        named.iter().any(|line| line.contains("root@127.0.0.1") && line.contains("UPDATE") && line.ends_with("certain=true")),
        "{named:#?}"
    );
    assert!(
        named.iter().any(|line| line.contains("app@127.0.0.1") && line.contains("is connected") && line.ends_with("certain=false")),
        "{named:#?}"
    );
    assert!(said(&found).contains("with `performance_schema` on"), "{}", said(&found));
    drop(idle);
}
