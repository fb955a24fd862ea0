//! The fence on every kind of server: what may be in its way, and what happens when dbmove, its machine or the network is gone.
//!
//! For the latter the session goes through a proxy of the test's own, which can cut (the server is told) or freeze (it is not told, as when a machine
//! dies). What the server does then is looked at directly.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "fence/old.rs"]
mod old;
#[path = "fence/others.rs"]
mod others;
mod real;
#[path = "fence/target.rs"]
mod target;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::connect::{Purpose, Server, Session};
use dbmove::mysql::fence::watchdog::{self, Before, Watch};
use dbmove::mysql::fence::{self, Fence, KeepOut};
use dbmove::mysql::tls::Protection;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use real::proxy::{Line, Proxy};
use tokio_util::sync::CancellationToken;

fn reached_at(port: u16) -> Arc<Server> {
    let (role, host) = ("source of `school`".to_owned(), "127.0.0.1".to_owned());
    Arc::new(Server { role, host, port, user: "root".to_owned(), password: None, tls: Protection::Off, watched: None })
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

    /// Whether a write neither passes nor fails; it is given up then.
    async fn write_hangs(&mut self) -> bool {
        let write = self.app.query_drop("INSERT INTO school.t VALUES (NULL)");
        let hangs = tokio::time::timeout(Duration::from_millis(500), write).await.is_err();
        self.root.query_drop(format!("KILL {}", self.app.id())).await.unwrap();
        self.app = real::connect(&self.server, Account::App).await;
        hangs
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

/// Of the run and the store.
const NAME: &str = "run r1, store school";

fn watch(seconds: u64, events: bool) -> Watch {
    let before = Before { writable: true, events };
    Watch { after: Duration::from_secs(seconds), before }
}

async fn raised(server: &Arc<Server>, watch: &Watch) -> Fence {
    Fence::raise(server, NAME, &KeepOut::ReadOnly, Duration::from_secs(5), Some(watch), None, &CancellationToken::new()).await.unwrap()
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

    // The same behind the disarming, where nobody lifts it: the next driver finds the session that holds the lock.
    let proxy = Proxy::to(place.server.port()).await;
    let mut left = raised(&reached_at(proxy.port), &watch(60, false)).await;
    left.disarm().await.unwrap();
    proxy.line.send_replace(Line::Frozen);
    place.root.query_drop("SET GLOBAL read_only = 0").await.unwrap();
    assert!(place.write_hangs().await, "{kind:?}: nothing holds the lock");
    let mut session = Session::open(&direct, Purpose::Read).await.unwrap();
    assert!(!fence::end_holder(&mut session, "run r2, store school").await.unwrap());
    assert!(fence::end_holder(&mut session, NAME).await.unwrap());
    assert!(place.app_writes().await, "{kind:?}: the lock that was left is still held");
    assert!(!fence::end_holder(&mut session, NAME).await.unwrap());
    proxy.line.send_replace(Line::Cut);
    drop(left);

    // Only the lock's session is lost to dbmove, and the server was not told: it is let go all the same.
    let proxy = Proxy::to(place.server.port()).await;
    let mut lost = raised(&reached_at(proxy.port), &watch(60, false)).await;
    lost.disarm().await.unwrap();
    proxy.line.send_replace(Line::Frozen);
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.line.send_replace(Line::Open);
    tokio::time::timeout(Duration::from_secs(10), lost.release_lock()).await.unwrap();
    place.root.query_drop("SET GLOBAL read_only = 0").await.unwrap();
    assert!(place.app_writes().await, "{kind:?}: the lock of a lost session is still held");
    proxy.line.send_replace(Line::Cut);

    // Another fence beside it waits for nobody, and ends nobody.
    let fence = raised(&direct, &watch(60, false)).await;
    let began = Instant::now();
    let grace = Duration::from_secs(5);
    let other = "run r1, store library";
    let beside =
        Fence::raise(&direct, other, &KeepOut::ReadOnly, grace, Some(&watch(60, false)), None, &CancellationToken::new()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{kind:?}: it waited for the other's watchdog");
    for name in [NAME, other] {
        assert_eq!(watchdog::end_left_behind(&mut session, name).await.unwrap(), 1, "{kind:?}: {name}");
    }
    drop((fence, beside));
    place.root.query_drop("SET GLOBAL read_only = 0").await.unwrap();

    // One that is left is found by its run and store alone.
    let fence = raised(&direct, &watch(60, false)).await;
    assert_eq!(watchdog::end_left_behind(&mut session, "run r2, store school").await.unwrap(), 0);
    assert_eq!(watchdog::end_left_behind(&mut session, NAME).await.unwrap(), 1);
    assert!(fence.connections().len() == 2, "{kind:?}: without events to turn on it is one session");
}

/// A connection that runs a statement of its own meanwhile.
fn running(mut conn: Conn, statement: &'static str) -> tokio::task::JoinHandle<bool> {
    tokio::spawn(async move { conn.query_drop(statement).await.is_ok() })
}

/// Writes one row after the other until it is stopped; how many were taken.
fn writing(mut conn: Conn, statement: &'static str, stop: CancellationToken) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut taken = 0;
        while !stop.is_cancelled() {
            tokio::select! {
                done = conn.query_drop(statement) => taken += u64::from(done.is_ok()),
                () = stop.cancelled() => break,
            }
        }
        taken
    })
}

/// Everything that may be in a fence's way on a living server, one after the other.
async fn what_is_in_the_way(test: &str, kind: ServerKind) {
    if real::skipped(test, &[kind]) {
        return;
    }
    let mut place = Place::of(kind).await;
    let direct = reached_at(place.server.port());
    for statement in ["CREATE TABLE school.plain (id INT) ENGINE = MyISAM", "INSERT INTO school.t VALUES (NULL), (NULL), (NULL)"] {
        place.root.query_drop(statement).await.unwrap();
    }
    let grace = Duration::from_secs(1);

    // Writers of either engine, one of them with SUPER, and one that is in the middle of a transaction.
    let stop = CancellationToken::new();
    let mut writers = Vec::new();
    for (account, statement) in [
        (Account::App, "INSERT INTO school.plain VALUES (1)"),
        (Account::App, "INSERT INTO school.t VALUES (NULL)"),
        (Account::Root, "INSERT INTO school.t VALUES (NULL)"),
    ] {
        writers.push(writing(real::connect(&place.server, account).await, statement, stop.clone()));
    }
    let mut in_the_middle = real::connect(&place.server, Account::App).await;
    for statement in ["BEGIN", "INSERT INTO school.t VALUES (NULL)"] {
        in_the_middle.query_drop(statement).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut fence = raised_within(&direct, grace, Duration::from_secs(3), &format!("{kind:?}, writers")).await;
    let rows = "SELECT (SELECT COUNT(*) FROM school.t) + (SELECT COUNT(*) FROM school.plain)";
    let before: u64 = place.root.query_first(rows).await.unwrap().unwrap();
    let commit = running(in_the_middle, "COMMIT");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(place.root.query_first::<u64, _>(rows).await.unwrap().unwrap(), before, "{kind:?}: a write passed the fence");
    fence.check().await.unwrap();
    stop.cancel();
    lowered(&mut place, fence).await;
    let _ = commit.await.unwrap();
    for writer in writers {
        assert!(writer.await.unwrap() > 0, "{kind:?}: it wrote nothing, so it was in nobody's way");
    }

    // What keeps a table open, or locked, and what waits for somebody that the fence holds up.
    for (what, account, statements) in [
        ("a long SELECT", Account::App, &["SELECT SLEEP(60) FROM school.t"][..]),
        ("a long statement with SUPER", Account::Root, &["DO SLEEP(60)"]),
        ("an idle lock on a table", Account::Root, &["LOCK TABLES school.t WRITE", "SELECT 1"]),
        ("a backup's lock", Account::Root, &["FLUSH TABLES WITH READ LOCK", "SELECT 1"]),
        ("an ALTER TABLE that waits for a reader", Account::Root, &["ALTER TABLE school.t ADD COLUMN word INT"]),
    ] {
        let mut reader = real::connect(&place.server, Account::App).await;
        if what.starts_with("an ALTER") {
            for statement in ["BEGIN", "SELECT * FROM school.t"] {
                reader.query_drop(statement).await.unwrap();
            }
        }
        let mut conn = real::connect(&place.server, account).await;
        let (last, first) = statements.split_last().unwrap();
        for statement in first {
            conn.query_drop(*statement).await.unwrap();
        }
        let busy = if what.contains(" lock") {
            // It stays connected, and idle.
            conn.query_drop(*last).await.unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(120)).await;
                conn.query_drop("SELECT 1").await.is_ok()
            })
        } else {
            running(conn, last)
        };
        tokio::time::sleep(Duration::from_millis(200)).await;
        let fence = raised_within(&direct, grace, Duration::from_secs(6), &format!("{kind:?}, {what}")).await;
        lowered(&mut place, fence).await;
        busy.abort();
        drop(reader);
        // A lock of somebody else's is not ours to take away where it is in nobody's way.
        if what != "a backup's lock" {
            assert!(place.app_writes().await, "{kind:?}: after {what} nobody can write");
        } else {
            let mut session = Session::open(&direct, Purpose::Read).await.unwrap();
            fence::disconnect_clients(&mut session, &[]).await.unwrap();
            place.root = real::connect(&place.server, Account::Root).await;
            place.app = real::connect(&place.server, Account::App).await;
        }
    }
}

/// Events: one that writes all the time though the server is `read_only`, since its definer has SUPER, and one that is in the middle of something
/// long when the scheduler is turned off.
async fn what_events_do(test: &str, kind: ServerKind) {
    if real::skipped(test, &[kind]) {
        return;
    }
    let mut place = Place::of(kind).await;
    let direct = reached_at(place.server.port());
    for statement in [
        "CREATE EVENT school.often ON SCHEDULE EVERY 1 SECOND DO INSERT INTO school.t VALUES (NULL)",
        "CREATE EVENT school.long ON SCHEDULE EVERY 1 HOUR DO INSERT INTO school.t SELECT NULL FROM school.t WHERE SLEEP(60) LIMIT 1",
        "INSERT INTO school.t VALUES (NULL)",
        "SET GLOBAL event_scheduler = 1",
    ] {
        place.root.query_drop(statement).await.unwrap();
    }
    let rows = "SELECT COUNT(*) FROM school.t";
    let began = Instant::now();
    while place.root.query_first::<u64, _>(rows).await.unwrap().unwrap() < 3 {
        assert!(began.elapsed() < Duration::from_secs(30), "{kind:?}: no event ran");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fence::set_event_scheduler(&direct, false).await.unwrap();
    let mut fence = raised_within(&direct, Duration::from_secs(1), Duration::from_secs(20), &format!("{kind:?}, events")).await;
    // Ours may have been among the connections in the way.
    place.root = real::connect(&place.server, Account::Root).await;
    let behind: u64 = place.root.query_first(rows).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(place.root.query_first::<u64, _>(rows).await.unwrap().unwrap(), behind, "{kind:?}: an event wrote through the fence");
    fence.check().await.unwrap();
    // The lock is let go behind the switch, and no event writes then.
    fence.release_lock().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(place.root.query_first::<u64, _>(rows).await.unwrap().unwrap(), behind, "{kind:?}: an event writes behind the switch");
    // Turned on again by an undo, they go on.
    place.root.query_drop("SET GLOBAL read_only = 0").await.unwrap();
    fence::set_event_scheduler(&direct, true).await.unwrap();
    let began = Instant::now();
    while place.root.query_first::<u64, _>(rows).await.unwrap().unwrap() <= behind {
        assert!(began.elapsed() < Duration::from_secs(30), "{kind:?}: events don't run again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn raised_within(server: &Arc<Server>, grace: Duration, most: Duration, what: &str) -> Fence {
    let began = Instant::now();
    let fence = Fence::raise(server, NAME, &KeepOut::ReadOnly, grace, Some(&watch(60, false)), None, &CancellationToken::new()).await;
    let mut fence = fence.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(began.elapsed() < most, "{what}: it took {:?}", began.elapsed());
    fence.disarm().await.unwrap();
    fence
}

async fn lowered(place: &mut Place, fence: Fence) {
    fence.release_lock().await;
    let mut root = real::connect(&place.server, Account::Root).await;
    root.query_drop("SET GLOBAL read_only = 0").await.unwrap();
    // Both may have been among those in the way.
    place.root = root;
    place.app = real::connect(&place.server, Account::App).await;
}

macro_rules! each {
    ($($test:ident, $in_the_way:ident, $events:ident: $kind:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            on(stringify!($test), ServerKind::$kind).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $in_the_way() {
            what_is_in_the_way(stringify!($in_the_way), ServerKind::$kind).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $events() {
            what_events_do(stringify!($events), ServerKind::$kind).await;
        })*
    };
}

each! {
    gone_5_5_9, in_the_way_5_5_9, events_5_5_9: Mysql559,
    gone_5_5_34, in_the_way_5_5_34, events_5_5_34: Mysql55,
    gone_5_6_14, in_the_way_5_6_14, events_5_6_14: Mysql5614,
    gone_5_6_24, in_the_way_5_6_24, events_5_6_24: Mysql56,
    gone_9_7, in_the_way_9_7, events_9_7: Mysql97,
    gone_mariadb, in_the_way_mariadb, events_mariadb: MariaDb,
}
