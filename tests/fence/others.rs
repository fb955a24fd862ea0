//! What is not a client: the source's own replication, and on RDS the provider. And an account that sees no client at all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::connect::{Purpose, Session};
use dbmove::mysql::fence::{self, Fence, KeepOut};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio_util::sync::CancellationToken;

use super::real::replica::replicate;
use super::{Place, Server, raised_within, reached_at, real};

const SENT: &str = "SELECT COUNT(*) FROM sent.t";

/// Waits until so many rows have come over.
async fn arrived(server: &LocalServer, most: u64) {
    let mut conn = real::connect(server, Account::Root).await;
    let began = Instant::now();
    while conn.query_first::<u64, _>(SENT).await.unwrap_or(None).unwrap_or(0) < most {
        assert!(began.elapsed() < Duration::from_secs(60), "{}: {most} rows never came", server.kind());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The source is a replica of a server that is being written. Its threads are not killed; what they apply waits as all writes do, and goes on
/// when the fence is lowered: nothing is lost and replication does not break.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sources_own_replication_waits_and_goes_on() {
    for kind in [ServerKind::Mysql55, ServerKind::Mysql97, ServerKind::MariaDb] {
        if real::skipped(&format!("the_sources_own_replication_waits_and_goes_on on {kind}"), &[kind]) {
            continue;
        }
        let mut place = Place::of(kind).await;
        let direct = reached_at(place.server.port());
        let directory = tempfile::tempdir().unwrap();
        let primary = LocalServer::start(kind, &directory.path().join("primary"), &ServerOptions::default()).await.unwrap();
        let mut there = real::connect(&primary, Account::Root).await;
        replicate(&primary, &place.server).await;
        for statement in ["CREATE DATABASE sent", "CREATE TABLE sent.t (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY)"] {
            there.query_drop(statement).await.unwrap();
        }
        let writer = tokio::spawn(async move {
            for _ in 0..300 {
                there.query_drop("INSERT INTO sent.t VALUES (NULL)").await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        arrived(&place.server, 10).await;
        let mut fence = raised_within(&direct, Duration::from_secs(1), Duration::from_secs(20), &format!("{kind}, replication")).await;
        place.root = real::connect(&place.server, Account::Root).await;
        let held: u64 = place.root.query_first(SENT).await.unwrap().unwrap();
        assert!(held < 300, "{kind}: all of it was there before, so nothing was in the way");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(place.root.query_first::<u64, _>(SENT).await.unwrap().unwrap(), held, "{kind}: replication wrote through the fence");
        fence.check().await.unwrap();
        super::lowered(&mut place, fence).await;
        writer.await.unwrap();
        arrived(&place.server, 300).await;
    }
}

/// On RDS another account's session is ended by a procedure that reads the list of sessions, which fails on 8+ while anybody's statement is
/// not text. It is asked again. The provider's own session stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rds_ends_sessions_though_it_cant_list_them_for_a_while() {
    let kind = ServerKind::Mysql97;
    if real::skipped("rds_ends_sessions_though_it_cant_list_them_for_a_while", &[kind]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions::default().rds_like(true);
    let server = LocalServer::start(kind, &directory.path().join("server"), &options).await.unwrap();
    let mut root = real::connect(&server, Account::Root).await;
    root.query_drop("CREATE USER rdsadmin@'%' IDENTIFIED BY 'dbmove'").await.unwrap();
    let as_provider = OptsBuilder::from_opts(server.connect_options(Account::Admin, None)).user(Some("rdsadmin"));
    let mut provider = Conn::new(as_provider).await.unwrap();
    root.disconnect().await.unwrap();

    let mut bytes = real::connect(&server, Account::App).await;
    let mut client = real::connect(&server, Account::App).await;
    let running = tokio::spawn(async move { bytes.query_drop(&b"SELECT SLEEP(1.5), '\x8DG\x84u\xF4'"[..]).await });
    let mut admin = real::connect(&server, Account::Admin).await;
    let began = Instant::now();
    loop {
        match admin.query_drop("SELECT ID FROM information_schema.PROCESSLIST").await {
            Err(mysql_async::Error::Server(error)) if error.code == 3854 => break,
            other => assert!(began.elapsed() < Duration::from_secs(1), "the server lists sessions all the same: {other:?}"),
        }
    }
    let reached = std::sync::Arc::new(Server {
        role: "target of `school`".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: server.port(),
        user: "admin".to_owned(),
        password: Some("dbmove".to_owned().into()),
        tls: dbmove::mysql::tls::Protection::Off,
        watched: None,
    });
    let mut session = Session::open(&reached, Purpose::Read).await.unwrap();
    assert!(fence::kill(&mut session, client.id(), "ending a client").await.unwrap());
    assert!(client.query_drop("SELECT 1").await.is_err());
    running.await.unwrap().ok();
    fence::disconnect_other_accounts(&mut session).await.unwrap();
    provider.query_drop("SELECT 1").await.unwrap();
}

/// Without PROCESS a process list holds our own sessions alone: clients would neither be waited for nor closed, and nobody would say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sees_no_client_holds_no_writes_and_closes_nobody() {
    let kind = ServerKind::Mysql55;
    if real::skipped("who_sees_no_client_holds_no_writes_and_closes_nobody", &[kind]) {
        return;
    }
    let mut place = Place::of(kind).await;
    let grant = "GRANT SUPER, RELOAD, DROP, REPLICATION CLIENT ON *.* TO 'blind'@'%' IDENTIFIED BY 'dbmove'";
    place.root.query_drop(grant).await.unwrap();
    let direct = reached_at(place.server.port());
    let (user, password) = ("blind".to_owned(), Some("dbmove".to_owned().into()));
    let blind = Arc::new(Server { user, password, ..Server::clone(&direct) });
    let grace = Duration::from_secs(1);
    let raised = Fence::raise(&blind, super::NAME, &KeepOut::ReadOnly, grace, None, None, &CancellationToken::new()).await;
    let error = raised.err().expect("it was raised");
    assert!(error.to_string().ends_with("(it lacks PROCESS). Writes were not stopped"), "{error}");
    assert_eq!(place.number("read_only").await, 0);
    let mut session = Session::open(&blind, Purpose::Read).await.unwrap();
    let error = fence::disconnect_clients(&mut session, &[]).await.unwrap_err();
    assert!(
        error.to_string().contains("does not see who is connected") && error.to_string().ends_with("Nobody's connection was closed"),
        "{error}"
    );
    // By the connection that it had before.
    assert!(place.app_writes().await);
}
