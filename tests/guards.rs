//! Guards on real servers and a real Prometheus: what each sees, that it sees it go and come back, and a move that is paused, stopped and undone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmove::engine::context::RunKind;
use dbmove::engine::guards::{Guard, Look, Sight, Unseen};
use dbmove::guard::prometheus::{PrometheusArguments, PrometheusQuery};
use dbmove::local::{Account, LocalPrometheus, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::connect::Server;
use dbmove::mysql::guards::load::{ErrorArguments, ErrorRate, ThreadsArguments, ThreadsRunning};
use dbmove::mysql::guards::replication::{Replication, ReplicationArguments};
use dbmove::mysql::guards::{WatchedSide, lag};
use dbmove::mysql::names::Selection;
use dbmove::mysql::store::{MysqlStore, StoreSettings};
use dbmove::mysql::tls::Protection;
use dbmove::playbook::quantity::HumanDuration;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use real::replica::replicate;
use serde_json::{Value, json};
use world::{World, code, connect, said, says};

fn server(of: &LocalServer, user: &str, password: &str) -> Server {
    Server {
        role: "source of `school`".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: of.port(),
        user: user.to_owned(),
        password: Some(password.to_owned().into()),
        tls: Protection::Off,
        watched: None,
    }
}

fn store(of: &LocalServer, user: &str) -> Arc<MysqlStore> {
    let selection = Selection::new(&["school.*".to_owned()], &[]).unwrap();
    MysqlStore::open("school", server(of, user, "dbmove"), server(of, user, "dbmove"), selection, StoreSettings::default())
}

fn sight() -> Sight {
    let closing = tokio::sync::watch::channel(false).1;
    Sight { run: "r".into(), kind: RunKind::Production, outputs: Arc::default(), state_directory: std::env::temp_dir(), closing }
}

async fn look(guard: &dyn Guard) -> Result<Look, Unseen> {
    guard.look(&sight()).await
}

/// Looks until it is so.
async fn look_until(guard: &dyn Guard, what: &str, is_so: impl Fn(&Result<Look, Unseen>) -> bool) -> Result<Look, Unseen> {
    let began = Instant::now();
    loop {
        let found = look(guard).await;
        if is_so(&found) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what} was never seen: {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sessions that run a statement until they are dropped.
async fn busy(server: &LocalServer, sessions: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let mut running = Vec::new();
    for _ in 0..sessions {
        let mut conn = connect(server, Account::App).await;
        running.push(tokio::spawn(async move { drop(conn.query_drop("SELECT SLEEP(300)").await) }));
    }
    running
}

/// Waits until the table has come over.
async fn look_until_there(here: &mut Conn) {
    let began = Instant::now();
    while here.query_drop("SELECT * FROM test.there_already").await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "the table never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stands_still_is_seen_on_every_family() {
    for kind in [ServerKind::Mysql55, ServerKind::Mysql97, ServerKind::MariaDb] {
        if real::skipped(&format!("a_replica_that_stands_still_is_seen_on_every_family on {kind}"), &[kind]) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let primary = LocalServer::start(kind, &directory.path().join("primary"), &ServerOptions::default()).await.unwrap();
        let replica = LocalServer::start(kind, &directory.path().join("replica"), &ServerOptions::default()).await.unwrap();
        let alone = Replication::new(&store(&primary, "dbmove"), ReplicationArguments::default());
        assert_eq!(look(&alone).await, Ok(Look::Fails("the source replicates from nobody".to_owned())), "{kind}");

        for server in [&primary, &replica] {
            connect(server, Account::Root).await.query_drop("CREATE DATABASE IF NOT EXISTS test").await.unwrap();
        }
        let mut here = replicate(&primary, &replica).await;
        let bounded = ReplicationArguments { above: Some(HumanDuration(Duration::from_secs(20))), side: WatchedSide::Source };
        let guard = Replication::new(&store(&replica, "dbmove"), bounded);
        look_until(&guard, "replicating", |found| matches!(found, Ok(Look::Holds(_)))).await.unwrap();
        let word = if kind == ServerKind::Mysql97 { "REPLICA" } else { "SLAVE" };
        for (thread, words) in [("SQL_THREAD", "the source has stopped applying"), ("IO_THREAD", "the source has stopped reading")] {
            here.query_drop(format!("STOP {word} {thread}")).await.unwrap();
            let found = look(&guard).await;
            assert!(matches!(&found, Ok(Look::Fails(found)) if found.starts_with(words)), "{kind} {thread}: {found:?}");
            here.query_drop(format!("START {word} {thread}")).await.unwrap();
            look_until(&guard, "replicating again", |found| matches!(found, Ok(Look::Holds(_)))).await.unwrap();
        }
        // What can't be applied is named with the server's own words.
        let mut there = connect(&primary, Account::Root).await;
        there.query_drop("CREATE TABLE test.there_already (id INT PRIMARY KEY)").await.unwrap();
        look_until_there(&mut here).await;
        here.query_drop("INSERT INTO test.there_already VALUES (1)").await.unwrap();
        there.query_drop("INSERT INTO test.there_already VALUES (1)").await.unwrap();
        let broken = look_until(&guard, "the error", |found| matches!(found, Ok(Look::Fails(found)) if found.contains("applying"))).await;
        // 9.7 says only which transaction it is.
        let named = if kind == ServerKind::Mysql97 { "failed executing transaction" } else { "there_already" };
        assert!(matches!(&broken, Ok(Look::Fails(found)) if found.contains(named)), "{kind}: {broken:?}");

        // An account that may not ask, and a server that is gone: unseen, and not quiet.
        let forbidden = Replication::new(&store(&replica, "app"), ReplicationArguments::default());
        assert!(look(&forbidden).await.is_err(), "{kind}");
        drop(replica);
        assert!(look(&guard).await.is_err(), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_counts_is_seen_on_every_family() {
    for kind in [ServerKind::Mysql55, ServerKind::Mysql97, ServerKind::MariaDb] {
        if real::skipped(&format!("what_a_server_counts_is_seen_on_every_family on {kind}"), &[kind]) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let source = LocalServer::start(kind, directory.path(), &ServerOptions::default()).await.unwrap();
        let store = store(&source, "dbmove");
        let threads = ThreadsRunning::new(&store, ThreadsArguments { above: 12, side: WatchedSide::Source });
        assert!(matches!(look(&threads).await, Ok(Look::Holds(_))), "{kind}");
        let running = busy(&source, 15).await;
        look_until(&threads, "fifteen threads", |found| matches!(found, Ok(Look::Fails(_)))).await.unwrap();
        let mut root = connect(&source, Account::Root).await;
        let sleeping: Vec<u64> = root.query("SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%'").await.unwrap();
        assert_eq!(sleeping.len(), 15, "{kind}");
        for id in sleeping {
            root.query_drop(format!("KILL {id}")).await.unwrap();
        }
        look_until(&threads, "their end", |found| matches!(found, Ok(Look::Holds(_)))).await.unwrap();
        drop(running);

        let errors = ErrorRate::new(&store, ErrorArguments { above: 0.0, side: WatchedSide::Source });
        assert!(matches!(look(&errors).await, Ok(Look::Nothing(_))), "{kind}: a rate from one look");
        look_until(&errors, "a quiet moment", |found| matches!(found, Ok(Look::Holds(_)))).await.unwrap();
        for _ in 0..5 {
            // A connection that says nothing and goes: it never got in.
            drop(tokio::net::TcpStream::connect(("127.0.0.1", source.port())).await.unwrap());
        }
        look_until(&errors, "failed connections", |found| matches!(found, Ok(Look::Fails(_)))).await.unwrap();
        look_until(&errors, "their end", |found| matches!(found, Ok(Look::Holds(_)))).await.unwrap();
        drop(source);
        assert!(look(&errors).await.is_err() && look(&threads).await.is_err(), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_prometheus_is_asked() {
    if real::prometheus_skipped("the_real_prometheus_is_asked") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut prometheus = LocalPrometheus::start(directory.path()).await.unwrap();
    let guard = |query: &str, more: Value| {
        let mut arguments = json!({ "url": prometheus.url(), "query": query });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        PrometheusQuery::new(serde_json::from_value::<PrometheusArguments>(arguments).unwrap()).unwrap()
    };
    let up = guard("up{job=\"itself\"}", json!({ "below": 1 }));
    let held = look_until(&up, "its first scrape", |found| found.is_ok()).await;
    assert!(matches!(&held, Ok(Look::Holds(found)) if found.contains("is 1 for `up{instance=127.0.0.1:")), "{held:?}");
    assert!(matches!(look(&guard("up", json!({ "above": 0.5 }))).await, Ok(Look::Fails(_))));
    assert!(matches!(look(&guard("vector(3)", json!({ "below": 2, "above": 4 }))).await, Ok(Look::Holds(_))));
    assert!(matches!(look(&guard("scalar(vector(5))", json!({ "above": 4 }))).await, Ok(Look::Fails(_))));
    assert!(matches!(look(&guard("up == 0", json!({}))).await, Ok(Look::Holds(_))));
    assert!(matches!(look(&guard("up == 1", json!({}))).await, Ok(Look::Fails(_))));
    for (query, why) in [("no_such_metric", "gives no series"), ("up{", "parse error"), ("0/0", "no number"), ("up[1m]", "a range")] {
        let unseen = look(&guard(query, json!({ "above": 4 }))).await.unwrap_err();
        assert!(unseen.0.contains(why), "{query}: {unseen}");
    }
    prometheus.kill();
    assert!(look(&up).await.is_err(), "a Prometheus that is gone was taken for a quiet one");
}

/// Puts guards into the playbook of the world.
fn guarded(world: &World, guards: &str) {
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    std::fs::write(world.playbook(), text.replacen("stores:\n", &format!("guards:\n{guards}stores:\n"), 1)).unwrap();
}

async fn wait_for(world: &World, log: &str, words: &str) {
    let began = Instant::now();
    while !says(&world.path(log), words) {
        let log = || std::fs::read_to_string(world.path(log)).unwrap_or_default();
        assert!(began.elapsed() < Duration::from_secs(120), "`{words}` never came:\n{}", log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ended(child: &mut tokio::process::Child) -> i32 {
    tokio::time::timeout(Duration::from_secs(120), child.wait()).await.unwrap().unwrap().code().unwrap_or(-1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_is_paused_by_lag_stopped_and_undone_by_load_and_loses_nothing() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("a_move_is_paused_by_lag_stopped_and_undone_by_load_and_loses_nothing", &kinds) {
        return;
    }
    let mut world = World::start(kinds[0], kinds[1], 0.1).await;
    world.stop_at_the_fence();
    guarded(
        &world,
        &format!(
            "  - {{ id: lag, watch: {}, store: school, with: {{ above: 2s }}, then: pause, every: 200ms, quiet_for: 1s, stages: [sync, verify] }}\n  \
             - {{ id: load, watch: {}, store: school, with: {{ above: 40 }}, then: stop, every: 200ms }}\n",
            lag::Lag::NAME,
            ThreadsRunning::NAME
        ),
    );
    let writers = world.write(40.0, 20.0).await;
    let playbook = world.playbook_argument();

    // The target takes nothing for a while: following falls behind, and comes back.
    let mut run = world.started(&["--yes", "run", &playbook], "run.log");
    wait_for(&world, "run.log", "stage verify done").await;
    let mut locked = connect(&world.target, Account::Root).await;
    let tables: Vec<String> = locked.query("SHOW TABLES IN school").await.unwrap();
    let all = tables.iter().map(|table| format!("school.`{table}` WRITE")).collect::<Vec<_>>().join(", ");
    locked.query_drop(format!("LOCK TABLES {all}")).await.unwrap();
    wait_for(&world, "run.log", "guard lag FIRED: following is ").await;
    let status = world.finished(&["status"]).await;
    assert!(said(&status).contains("PAUSED by guard `lag` since "), "{}", said(&status));
    drop(locked);
    wait_for(&world, "run.log", "guard lag is quiet again: following is ").await;

    // Too many threads run on the source: the run ends at its checkpoints.
    let running = busy(&world.source, 45).await;
    assert_eq!(ended(&mut run).await, 1);
    assert!(
        says(&world.path("run.log"), "STOPPED BY A GUARD: guard `load` fired: "),
        "{}",
        std::fs::read_to_string(world.path("run.log")).unwrap()
    );
    let mut root = connect(&world.source, Account::Root).await;
    let quieten = async |root: &mut Conn| {
        let sleeping: Vec<u64> =
            root.query("SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP(300)%'").await.unwrap();
        for id in sleeping {
            // It may have gone by itself.
            drop(root.query_drop(format!("KILL {id}")).await);
        }
    };
    // The door of the cutover is shut meanwhile.
    let arguments = ["--yes", "cutover", &playbook, "--without-rehearsal", "a test"];
    let kept = world.finished(&arguments).await;
    assert!(code(&kept) == 1 && !world.path("at-the-fence").exists(), "{}", said(&kept));
    quieten(&mut root).await;
    drop(running);

    // At the fence it fires again: clients write on the source, as before.
    let mut cutover = world.started(&arguments, "undone.log");
    world.at_the_fence(&mut cutover, "undone.log").await;
    let running = busy(&world.source, 45).await;
    assert_eq!(ended(&mut cutover).await, 1);
    let log = std::fs::read_to_string(world.path("undone.log")).unwrap();
    assert!(log.contains("GUARD: UNDONE: guard `load` fired: ") && log.contains("the source serves"), "{log}");
    assert_eq!(world::number(&world.source, "SELECT @@global.read_only").await, 0, "{log}");
    quieten(&mut root).await;
    drop(running);
    std::fs::remove_file(world.path("at-the-fence")).unwrap();

    // And with nothing in its way the same command moves the school, with all that was written meanwhile.
    world.cut_over_and_judge(writers).await;
}

/// The fence kills what is in its way, and the switch closes every client's connection. Both count as failed connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_dbmove_closes_itself_fire_no_guard() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("connections_that_dbmove_closes_itself_fire_no_guard", &kinds) {
        return;
    }
    let mut world = World::start(kinds[0], kinds[1], 0.1).await;
    world.stop_at_the_fence();
    guarded(
        &world,
        &format!(
            "  - {{ id: failed, watch: {}, store: school, with: {{ above: 0.5 }}, then: undo, every: 200ms, stages: [cutover] }}\n",
            ErrorRate::NAME
        ),
    );
    let writers = world.write(40.0, 20.0).await;
    let playbook = world.playbook_argument();
    let plan = said(&world.finished(&["plan", &playbook]).await);
    assert!(plan.contains("rests from the first step that holds writes"), "{plan}");
    let copied = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&copied), 0, "{}", said(&copied));
    let mut root = connect(&world.source, Account::Root).await;
    let tables: Vec<String> = root.query("SHOW TABLES IN school").await.unwrap();
    let mut in_the_way = Vec::new();
    for _ in 0..20 {
        let mut conn = connect(&world.source, Account::App).await;
        let reads = format!("SELECT SLEEP(300) FROM school.`{}` LIMIT 1", tables[0]);
        in_the_way.push(tokio::spawn(async move { drop(conn.query_drop(reads).await) }));
    }
    let aborted = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'ABORTED_CLIENTS'";
    let before = world::number(&world.source, aborted).await;
    let arguments = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test"];
    let mut cutover = world.started(&arguments, "fenced.log");
    world.at_the_fence(&mut cutover, "fenced.log").await;
    let killed = world::number(&world.source, aborted).await - before;
    assert!(killed >= 20, "{killed} were killed");
    let began = Instant::now();
    loop {
        let status = said(&world.finished(&["ctl", &playbook, "status"]).await);
        if status.contains("it rests until the cutover is done") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60) && cutover.try_wait().unwrap().is_none(), "{status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.let_go();
    assert_eq!(ended(&mut cutover).await, 0, "{}", std::fs::read_to_string(world.path("fenced.log")).unwrap());
    assert!(!says(&world.path("fenced.log"), "FIRED"));
    drop(in_the_way);
    drop(world::stopped(writers).await);
}
