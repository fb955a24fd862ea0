//! Production under writers, and what it was sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmove::demo::compare::compare;
use dbmove::demo::writers::WriterCounts;
use dbmove::engine::context::{Checkpoints, NoCheckpoints};
use dbmove::engine::load::{Clients, LoadContext, LoadFigures};
use dbmove::local::{Account, LocalServer, ServerKind};
use dbmove::mysql::connect::Server;
use dbmove::mysql::copies::Production;
use dbmove::mysql::names::Selection;
use dbmove::mysql::replay::load::Replay;
use dbmove::mysql::store::{MysqlStore, StoreSettings};
use dbmove::mysql::tls::Protection;
use mysql_async::prelude::Queryable;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::world::{World, connect, number, side};

/// The old source, the new target.
pub const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];

/// Waits for what has to come, however slow the machine.
pub async fn wait_for(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(180), "{what} never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub async fn clock(server: &LocalServer) -> u64 {
    number(server, "SELECT UNIX_TIMESTAMP()").await
}

/// So many seconds go by on the server's clock, by which its log is stamped.
pub async fn seconds_pass(server: &LocalServer, seconds: u64) {
    let before = clock(server).await;
    wait_for("the server's clock", async || clock(server).await > before + seconds).await;
}

pub async fn command(server: &LocalServer, statements: &[&str]) {
    let mut conn = connect(server, Account::Root).await;
    for statement in statements {
        conn.query_drop(*statement).await.unwrap();
    }
}

fn server(local: &LocalServer, role: &str, user: &str) -> Server {
    Server {
        role: role.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: local.port(),
        user: user.to_owned(),
        password: Some("dbmove".to_owned().into()),
        tls: Protection::Off,
        watched: None,
    }
}

/// Statements and commands that production was sent while its log was on, by dbmove's account.
pub async fn logged(server: &LocalServer, user: &str) -> BTreeMap<String, u64> {
    let mut conn = connect(server, Account::Root).await;
    conn.query_drop("SET GLOBAL general_log = 0").await.unwrap();
    let query = format!(
        "SELECT command_type, CONVERT(argument USING utf8) FROM mysql.general_log WHERE user_host LIKE '{user}%' AND command_type NOT IN ('Connect', 'Quit')"
    );
    let mut counted = BTreeMap::new();
    for (kind, text) in conn.query::<(String, String), _>(query).await.unwrap() {
        let listed = match kind.as_str() {
            "Binlog Dump" => "COM_BINLOG_DUMP".to_owned(),
            // The name of a lock is not listed.
            _ => text.split_once("('dbmove_").map_or(text.clone(), |(begin, _)| format!("{begin}('…')")),
        };
        *counted.entry(listed).or_default() += 1;
    }
    counted
}

/// What is sent is counted in no journal.
pub fn no_run() -> Arc<dyn Checkpoints> {
    Arc::new(NoCheckpoints)
}

pub async fn report(world: &World) -> Value {
    let report = world.finished(&["report", "--json"]).await;
    serde_json::from_slice(&report.stdout).unwrap()
}

/// What the report lists as sent to a server of production.
pub fn listed(report: &Value, port: u16) -> BTreeMap<String, u64> {
    let mut listed = BTreeMap::new();
    for sent in report["sent_to_production"].as_array().unwrap() {
        if sent["server"].as_str().unwrap().contains(&format!(":{port}`")) {
            *listed.entry(sent["statement"].as_str().unwrap().to_owned()).or_default() += sent["count"].as_u64().unwrap();
        }
    }
    listed
}

/// Production under writers, with some seconds of them in its log.
pub async fn written(factor: f64, transfers: f64, changes: f64) -> (World, dbmove::demo::writers::Writers) {
    let mut world = World::start(KINDS[0], KINDS[1], factor).await.with_rehearsal().await;
    // What filled it is not part of any window.
    seconds_pass(&world.source, 1).await;
    let writers = world.write(transfers, changes).await;
    seconds_pass(&world.source, 5).await;
    (world, writers)
}

/// The school as a rehearsal has it: on the copies, with production's source to be kept away from, and whose log there is.
pub fn rehearsed(world: &World) -> Arc<MysqlStore> {
    let (source, target) = world.rehearsal.as_ref().unwrap();
    let store = MysqlStore::open(
        "school",
        server(source, "rehearsal source", "dbmove"),
        server(target, "rehearsal target", "admin"),
        Selection::new(&["school.*".to_owned()], &[]).unwrap(),
        StoreSettings::default(),
    );
    let real = Arc::new(server(&world.source, "source", "dbmove"));
    assert!(store.production.set(Production { servers: vec![real.clone()], log_of: Some(real), ..Production::default() }).is_ok());
    store
}

/// Replays at production's own rate until the rehearsal's source has production's rows, which it must not have before; what was done.
pub async fn equal_by_replay(replay: &Replay, world: &World, counts: &WriterCounts) -> LoadFigures {
    let kind = world.source.kind();
    let cancel = CancellationToken::new();
    let (figures, seen) = watch::channel(LoadFigures::default());
    let (_clients, clients) = watch::channel(Clients::OnSource);
    let multiple = "1x".parse().unwrap();
    let context = LoadContext {
        run: "test".into(),
        outputs: Arc::default(),
        checkpoints: no_run(),
        multiple,
        cancel: cancel.clone(),
        clients,
        figures,
    };
    let equal = async {
        let mut last = None;
        let began = Instant::now();
        loop {
            let comparison = compare(&side(&world.source), &side(&world.rehearsal.as_ref().unwrap().0), 50).await.unwrap();
            if comparison.is_equal() {
                break;
            }
            last = Some(comparison);
            assert!(began.elapsed() < Duration::from_secs(120), "{kind:?}: {last:#?}\n{:#?}\n{counts:?}", seen.borrow().clone());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        cancel.cancel();
        last
    };
    let (done, last) = tokio::join!(replay.run(context), equal);
    done.unwrap();
    assert!(last.is_some(), "{kind:?}: they were equal before anything was replayed");
    let figures = seen.borrow().clone();
    eprintln!("{kind:?}: {figures:#?}");
    assert!(figures.transactions > counts.transfers_acknowledged && figures.refused.is_empty(), "{figures:#?}\n{counts:?}");
    figures
}

/// The file's text so far.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
