//! The fence's watchdog on every kind of server: what happens when dbmove, its machine or the network is gone.
//!
//! The session goes through a proxy of the test's own, which can cut (the server is told) or freeze (it is not told, as when a machine
//! dies). What the server does then is looked at directly.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::connect::{Purpose, Server, Session};
use dbmove::mysql::fence::watchdog::{self, Before, Watch};
use dbmove::mysql::fence::{self, Fence};
use dbmove::mysql::tls::Protection;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use real::proxy::{Line, Proxy};
use tokio_util::sync::CancellationToken;

fn reached_at(port: u16) -> Arc<Server> {
    let (role, host) = ("source of `school`".to_owned(), "127.0.0.1".to_owned());
    Arc::new(Server { role, host, port, user: "root".to_owned(), password: None, tls: Protection::Off })
}

struct Place {
    server: LocalServer,
    root: Conn,
    app: Conn,
    _directory: tempfile::TempDir,
}

impl Place {
    async fn of(kind: ServerKind) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let server = LocalServer::start(kind, &directory.path().join("server"), &ServerOptions::default()).await.unwrap();
        let mut root = real::connect(&server, Account::Root).await;
        for statement in ["CREATE DATABASE school", "CREATE TABLE school.t (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY) ENGINE = InnoDB"] {
            root.query_drop(statement).await.unwrap();
        }
        let app = real::connect(&server, Account::App).await;
        Place { server, root, app, _directory: directory }
    }

    async fn number(&mut self, variable: &str) -> u8 {
        let value: Option<String> = self.root.query_first(format!("SELECT CONCAT(@@global.{variable})")).await.unwrap();
        u8::from(matches!(value.as_deref(), Some("1" | "ON")))
    }

    async fn app_writes(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(5), self.app.query_drop("INSERT INTO school.t VALUES (NULL)"))
            .await
            .expect("it hangs")
            .is_ok()
    }

    /// Until the server has taken everything back, at most so long.
    async fn lifted_within(&mut self, most: Duration) -> Duration {
        let began = Instant::now();
        while self.number("read_only").await == 1 {
            assert!(began.elapsed() < most, "`read_only` is still on after {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began.elapsed()
    }
}

fn watch(seconds: u64, events: bool) -> Watch {
    let before = Before { writable: true, events };
    Watch { name: "run r1, store school".to_owned(), after: Duration::from_secs(seconds), before }
}

async fn raised(server: &Arc<Server>, watch: &Watch) -> Fence {
    Fence::raise(server, Duration::from_secs(5), Some(watch), &CancellationToken::new()).await.unwrap()
}

async fn on(test: &str, kind: ServerKind) {
    if real::skipped(test, &[kind]) {
        return;
    }
    let mut place = Place::of(kind).await;
    let direct = reached_at(place.server.port());

    // dbmove is killed: the server is told, and lets the lock go at once; then it makes itself writable again.
    let proxy = Proxy::to(place.server.port()).await;
    let fence = raised(&reached_at(proxy.port), &watch(2, false)).await;
    assert!(!place.app_writes().await, "{kind:?}: the fence does not stand");
    proxy.line.send_replace(Line::Cut);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!place.app_writes().await, "{kind:?}: lifted before its time");
    place.lifted_within(Duration::from_secs(4)).await;
    assert!(place.app_writes().await, "{kind:?}: writes don't pass again");
    drop(fence);

    // The machine is gone: nobody tells the server. The lock and the event scheduler have to be seen to as well.
    place.root.query_drop("SET GLOBAL event_scheduler = 1").await.unwrap();
    let proxy = Proxy::to(place.server.port()).await;
    let through = reached_at(proxy.port);
    fence::set_event_scheduler(&through, false).await.unwrap();
    let fence = raised(&through, &watch(2, true)).await;
    proxy.line.send_replace(Line::Frozen);
    assert_eq!((place.number("read_only").await, place.number("event_scheduler").await), (1, 0));
    place.lifted_within(Duration::from_secs(4)).await;
    assert!(place.app_writes().await, "{kind:?}: the lock is still held");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(place.number("event_scheduler").await, 1, "{kind:?}: events don't run again");
    place.root.query_drop("SET GLOBAL event_scheduler = 0").await.unwrap();
    proxy.line.send_replace(Line::Cut);
    drop(fence);

    // Called off in time it does nothing.
    let mut fence = raised(&direct, &watch(2, true)).await;
    fence.disarm().await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    fence.check().await.unwrap();
    assert_eq!((place.number("read_only").await, place.number("event_scheduler").await), (1, 0), "{kind:?}: it bit all the same");
    fence.release_lock().await;
    place.root.query_drop("SET GLOBAL read_only = 0").await.unwrap();

    // Called off too late: said, not passed over.
    let mut fence = raised(&direct, &watch(1, false)).await;
    place.lifted_within(Duration::from_secs(3)).await;
    let error = fence.disarm().await.unwrap_err().to_string();
    assert!(error.contains("does not hold any more"), "{kind:?}: {error}");
    fence.release_lock().await;

    // A machine died, and another takes the run on: what was left there neither bites into the new fence nor holds its lock.
    let proxy = Proxy::to(place.server.port()).await;
    let left = raised(&reached_at(proxy.port), &watch(3, false)).await;
    proxy.line.send_replace(Line::Frozen);
    let mut fence = raised(&direct, &watch(60, false)).await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    fence.disarm().await.unwrap();
    fence.release_lock().await;
    place.root.query_drop("SET GLOBAL read_only = 0").await.unwrap();
    assert!(place.app_writes().await, "{kind:?}: the lock that was left is still held");
    proxy.line.send_replace(Line::Cut);
    drop(left);

    // One that is left is found by its run and store alone.
    let fence = raised(&direct, &watch(60, false)).await;
    let mut session = Session::open(&direct, Purpose::Read).await.unwrap();
    assert_eq!(watchdog::end_left_behind(&mut session, "run r2, store school").await.unwrap(), 0);
    assert_eq!(watchdog::end_left_behind(&mut session, "run r1, store school").await.unwrap(), 1);
    assert!(fence.connections().len() == 2, "{kind:?}: without events to turn on it is one session");
}

macro_rules! each {
    ($($test:ident: $kind:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            on(stringify!($test), ServerKind::$kind).await;
        })*
    };
}

each! {
    mysql_5_5_9: Mysql559,
    mysql_5_5_34: Mysql55,
    mysql_5_6_14: Mysql5614,
    mysql_5_6_24: Mysql56,
    mysql_9_7: Mysql97,
    mariadb: MariaDb,
}
