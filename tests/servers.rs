//! The private servers themselves: each starts, is what it says it is, has the accounts it should, and keeps its
//! data through `kill -9`.
//!
//! A server that was not fetched makes its tests skip, never silently: see `real::skipped`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod real;

use std::process::Stdio;
use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalError, LocalProxy, LocalServer, ServerKind, ServerOptions};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Row};
use real::{connect, skipped};
use secrecy::SecretString;
use tokio::io::AsyncBufReadExt as _;

async fn text(connection: &mut Conn, query: &str) -> String {
    connection.query_first::<String, _>(query).await.unwrap().unwrap()
}

/// The error number a statement is refused with.
async fn refusal(connection: &mut Conn, statement: &str) -> u16 {
    match connection.query_drop(statement).await {
        Err(Error::Server(error)) => error.code,
        other => panic!("`{statement}` was to be refused: {other:?}"),
    }
}

const ACCESS_DENIED: u16 = 1045;
const SPECIFIC_ACCESS_DENIED: u16 = 1227;
const TABLE_ACCESS_DENIED: u16 = 1142;

/// Everything that holds for every kind.
async fn starts_and_survives_kill(kind: ServerKind) {
    let directory = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let mut server = LocalServer::start(kind, directory.path(), &ServerOptions::default()).await.unwrap();
    eprintln!("{kind}: answered after {:?} as {}, pid {}", began.elapsed(), server.version(), server.pid());
    assert!(server.version().starts_with(kind.version_prefix()), "{}", server.version());

    let mut root = connect(&server, Account::Root).await;
    assert_eq!(text(&mut root, "SELECT @@binlog_format").await, "ROW");
    assert_eq!(text(&mut root, "SELECT @@log_bin").await, "1");
    assert_eq!(text(&mut root, "SELECT @@server_id").await, server.port().to_string());
    assert_eq!(text(&mut root, "SELECT @@local_infile").await, "1");
    let pid_file = server.data_directory().join("mysqld.pid");
    assert_eq!(std::fs::read_to_string(pid_file).unwrap().trim(), server.pid().to_string());

    let mut owner = connect(&server, Account::Dbmove).await;
    owner.query_drop("SET GLOBAL read_only = 0").await.unwrap();
    owner.query_drop("CREATE DATABASE school").await.unwrap();
    owner.query_drop("CREATE TABLE school.pupils (id int PRIMARY KEY) ENGINE=InnoDB").await.unwrap();
    let mut app = connect(&server, Account::App).await;
    app.query_drop("INSERT INTO school.pupils VALUES (1), (2)").await.unwrap();
    assert_eq!(refusal(&mut app, "SET GLOBAL read_only = 0").await, SPECIFIC_ACCESS_DENIED);
    assert_eq!(refusal(&mut app, "DROP TABLE school.pupils").await, TABLE_ACCESS_DENIED);
    let status = if kind == ServerKind::Mysql97 { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let position: Row = owner.query_first(status).await.unwrap().unwrap();
    assert!(position.get::<String, _>(0).unwrap().starts_with("binlog."));
    drop((root, owner, app));

    let (port, pid) = (server.port(), server.pid());
    server.kill().await.unwrap();
    assert!(Conn::new(server.connect_options(Account::Root, None)).await.is_err());
    let began = Instant::now();
    server.restart().await.unwrap();
    eprintln!("{kind}: recovered from kill -9 in {:?}", began.elapsed());
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    let mut app = connect(&server, Account::App).await;
    assert_eq!(text(&mut app, "SELECT COUNT(*) FROM school.pupils").await, "2");
    drop(app);

    let began = Instant::now();
    server.stop().await.unwrap();
    eprintln!("{kind}: stopped in {:?}", began.elapsed());
    assert!(!std::path::Path::new(&format!("/proc/{}", server.pid())).exists());
    server.restart().await.unwrap();
    let mut app = connect(&server, Account::App).await;
    assert_eq!(text(&mut app, "SELECT COUNT(*) FROM school.pupils").await, "2");
    drop(app);

    let pid = server.pid();
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

/// The master user can do what RDS lets it, and no more.
async fn is_like_rds(kind: ServerKind) {
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions::default().rds_like(true).password(SecretString::from("it's \\ another"));
    let server = LocalServer::start(kind, directory.path(), &options).await.unwrap();
    let with_default_password =
        mysql_async::OptsBuilder::from_opts(server.connect_options(Account::Admin, None)).pass(Some(dbmove::local::DEFAULT_PASSWORD));
    match Conn::new(with_default_password).await {
        Err(Error::Server(error)) => assert_eq!(error.code, ACCESS_DENIED),
        other => panic!("the default password still holds: {other:?}"),
    }

    let mut admin = connect(&server, Account::Admin).await;
    for variable in ["read_only = 0", "innodb_flush_log_at_trx_commit = 2", "max_connections = 10"] {
        let code = refusal(&mut admin, &format!("SET GLOBAL {variable}")).await;
        assert_eq!(code, SPECIFIC_ACCESS_DENIED, "{variable}");
    }
    assert_eq!(refusal(&mut admin, "SET SESSION sql_log_bin = 0").await, SPECIFIC_ACCESS_DENIED);
    admin.query_drop("CREATE DATABASE school").await.unwrap();
    admin.query_drop("CREATE TABLE school.pupils (id int PRIMARY KEY)").await.unwrap();
    admin.query_drop("CREATE TRIGGER school.t BEFORE INSERT ON school.pupils FOR EACH ROW SET NEW.id = NEW.id + 1").await.unwrap();
    admin.query_drop("CREATE USER 'teacher'@'%' IDENTIFIED BY 'chalk'").await.unwrap();
    admin.query_drop("GRANT SELECT ON school.* TO 'teacher'@'%'").await.unwrap();
    if kind == ServerKind::Mysql97 {
        assert_eq!(refusal(&mut admin, "DELETE FROM mysql.user").await, TABLE_ACCESS_DENIED);
    }

    // Another account's session can be ended only by the procedure.
    let mut app = connect(&server, Account::App).await;
    app.query_drop("INSERT INTO school.pupils VALUES (1)").await.unwrap();
    admin.query_drop(format!("CALL mysql.rds_kill({})", app.id())).await.unwrap();
    assert!(app.query_drop("SELECT 1").await.is_err());

    admin.query_drop("CALL mysql.rds_set_configuration('binlog retention hours', 24)").await.unwrap();
    let shown: Vec<(String, Option<String>, String)> = admin.query("CALL mysql.rds_show_configuration").await.unwrap();
    assert!(shown.iter().any(|(name, value, _)| name == "binlog retention hours" && value.as_deref() == Some("24")));
    assert_eq!(refusal(&mut admin, "CALL mysql.rds_set_configuration('binlog retention hours', 999)").await, 1644);
    assert_eq!(refusal(&mut admin, "CALL mysql.rds_set_configuration('no such thing', 1)").await, 1644);
    assert_eq!(text(&mut admin, "SELECT @@log_bin_trust_function_creators").await, "1");
}

#[tokio::test]
async fn mysql_5_5_9() {
    if !skipped("mysql_5_5_9", &[ServerKind::Mysql559]) {
        starts_and_survives_kill(ServerKind::Mysql559).await;
    }
}

#[tokio::test]
async fn mysql_5_5_34() {
    if !skipped("mysql_5_5_34", &[ServerKind::Mysql55]) {
        starts_and_survives_kill(ServerKind::Mysql55).await;
    }
}

#[tokio::test]
async fn mysql_5_6_14() {
    if !skipped("mysql_5_6_14", &[ServerKind::Mysql5614]) {
        starts_and_survives_kill(ServerKind::Mysql5614).await;
    }
}

#[tokio::test]
async fn mysql_5_6_24() {
    if !skipped("mysql_5_6_24", &[ServerKind::Mysql56]) {
        starts_and_survives_kill(ServerKind::Mysql56).await;
    }
}

#[tokio::test]
async fn mysql_9_7() {
    if !skipped("mysql_9_7", &[ServerKind::Mysql97]) {
        starts_and_survives_kill(ServerKind::Mysql97).await;
    }
}

#[tokio::test]
async fn mariadb_10_11() {
    if !skipped("mariadb_10_11", &[ServerKind::MariaDb]) {
        starts_and_survives_kill(ServerKind::MariaDb).await;
    }
}

#[tokio::test]
async fn mysql_9_7_like_rds() {
    if !skipped("mysql_9_7_like_rds", &[ServerKind::Mysql97]) {
        is_like_rds(ServerKind::Mysql97).await;
    }
}

#[tokio::test]
async fn mariadb_10_11_like_rds() {
    if !skipped("mariadb_10_11_like_rds", &[ServerKind::MariaDb]) {
        is_like_rds(ServerKind::MariaDb).await;
    }
}

/// A server that can't start says why in the error, from its own log.
#[tokio::test]
async fn a_server_that_dies_says_why() {
    if skipped("a_server_that_dies_says_why", &[ServerKind::Mysql55]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions::default().argument("--no-such-option=1");
    match LocalServer::start(ServerKind::Mysql55, directory.path(), &options).await {
        Err(LocalError::Died { log, .. }) => assert!(log.contains("no-such-option"), "{log}"),
        other => panic!("{other:?}"),
    }
}

/// Every option changes what it says it changes.
#[tokio::test]
async fn options_take_effect() {
    if skipped("options_take_effect", &[ServerKind::Mysql55, ServerKind::Mysql97, ServerKind::MariaDb]) {
        return;
    }
    for kind in [ServerKind::Mysql55, ServerKind::Mysql97, ServerKind::MariaDb] {
        let directory = tempfile::tempdir().unwrap();
        let options = ServerOptions::default().durable(true).buffer_pool(128 << 20).server_id(77).argument("--binlog-format=STATEMENT");
        let server = LocalServer::start(kind, &directory.path().join("on"), &options).await.unwrap();
        let mut root = connect(&server, Account::Root).await;
        for (variable, expected) in [
            ("innodb_flush_log_at_trx_commit", "1"),
            ("sync_binlog", "1"),
            ("innodb_buffer_pool_size", "134217728"),
            ("server_id", "77"),
            ("binlog_format", "STATEMENT"),
        ] {
            assert_eq!(text(&mut root, &format!("SELECT @@{variable}")).await, expected, "{kind}: {variable}");
        }
        drop((root, server));

        let options = ServerOptions::default().binlog(false);
        let server = LocalServer::start(kind, &directory.path().join("off"), &options).await.unwrap();
        let mut root = connect(&server, Account::Root).await;
        assert_eq!(text(&mut root, "SELECT @@log_bin").await, "0", "{kind}");
        assert_eq!(text(&mut root, "SELECT @@innodb_flush_log_at_trx_commit").await, "2", "{kind}");
        assert!(server.error_log_tail().contains("ready for connections"), "{kind}: {}", server.error_log_tail());
        assert_eq!(server.root_url(), format!("mysql://root@{}:{}/", server.host(), server.port()));
    }
}

/// Two copies of one template are two servers: neither ports, ids nor UUIDs are the same.
#[tokio::test]
async fn two_servers_are_not_the_same_one() {
    if skipped("two_servers_are_not_the_same_one", &[ServerKind::Mysql97]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions::default();
    let paths = ["one", "other"].map(|name| directory.path().join(name));
    let (one, other) = tokio::join!(
        LocalServer::start(ServerKind::Mysql97, &paths[0], &options),
        LocalServer::start(ServerKind::Mysql97, &paths[1], &options),
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.port(), other.port());
    let mut one_root = connect(&one, Account::Root).await;
    let mut other_root = connect(&other, Account::Root).await;
    for variable in ["@@server_uuid", "@@server_id", "@@datadir"] {
        let query = format!("SELECT {variable}");
        assert_ne!(text(&mut one_root, &query).await, text(&mut other_root, &query).await);
    }
}

/// A directory that already holds a server's data is not overwritten.
#[tokio::test]
async fn existing_data_is_refused() {
    if skipped("existing_data_is_refused", &[ServerKind::Mysql55]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("data")).unwrap();
    let options = ServerOptions::default();
    match LocalServer::start(ServerKind::Mysql55, directory.path(), &options).await {
        Err(LocalError::File { action, .. }) => assert_eq!(action, "put a new server into"),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(directory.path().join("data")).unwrap().count(), 0);
}

/// The clients that came with a server connect to it.
#[tokio::test]
async fn clients_run() {
    if skipped("clients_run", &[ServerKind::Mysql55, ServerKind::Mysql97, ServerKind::MariaDb]) {
        return;
    }
    for (kind, program) in [(ServerKind::Mysql55, "mysql"), (ServerKind::Mysql97, "mysql"), (ServerKind::MariaDb, "mariadb")] {
        let server = real::shared(kind, false).await;
        let output = server.client(program).unwrap().args(["-Ne", "SELECT VERSION()"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), server.version());
    }
    let server = real::shared(ServerKind::Mysql55, false).await;
    let output = server.client("mysqldump").unwrap().args(["--databases", "mysql"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(matches!(server.client("no-such-client"), Err(LocalError::NoProgram { .. })));
}

/// Starts two servers, says so, and waits to be killed.
async fn hold_two_servers() -> ! {
    let directory = tempfile::tempdir().unwrap();
    let mut tied = None;
    for (name, outlives) in [("tied", false), ("free", true)] {
        let options = ServerOptions::default().outlives_this_process(outlives);
        let path = directory.path().join(name);
        let server = LocalServer::start(ServerKind::Mysql55, &path, &options).await.unwrap();
        println!("\nserver {name} {}", server.pid());
        if outlives {
            server.leave_running();
        } else {
            tied = Some(server);
        }
    }
    println!("\nserver all 0 {}", directory.keep().display());
    std::future::pending::<()>().await;
    drop(tied);
    unreachable!("nothing ends the waiting but the signal");
}

/// Set for the process that is killed: this test, started by itself.
const HOLD: &str = "SERVERS_TEST_HOLD";

/// `kill -9` of the process that started them ends its servers; one told to live on lives on.
#[tokio::test]
async fn servers_end_with_their_process() {
    if std::env::var_os(HOLD).is_some() {
        hold_two_servers().await;
    }
    if skipped("servers_end_with_their_process", &[ServerKind::Mysql55]) {
        return;
    }
    let mut holder = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "servers_end_with_their_process", "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(holder.stdout.take().unwrap()).lines();
    let (mut tied, mut free, mut directory) = (0, 0, String::new());
    while let Some(line) = lines.next_line().await.unwrap() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["server", "tied", pid] => tied = pid.parse().unwrap(),
            ["server", "free", pid] => free = pid.parse().unwrap(),
            ["server", "all", _, path] => {
                directory = path.to_owned();
                break;
            }
            _ => {}
        }
    }
    assert!(tied != 0 && free != 0 && lives(tied) && lives(free));
    holder.kill().await.unwrap();

    let began = Instant::now();
    while lives(tied) && began.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (tied_lives, free_lives) = (lives(tied), lives(free));
    let free_id = rustix::process::Pid::from_raw(free).unwrap();
    rustix::process::kill_process(free_id, rustix::process::Signal::KILL).unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    assert!(!tied_lives, "the server outlived the process that started it");
    assert!(free_lives, "the server that may live on did not");
}

/// Whether a process is there and not a zombie.
fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// HAProxy starts with the configuration it is given, leads to a server, answers on its sockets as their levels allow, and is
/// gone when it is dropped.
#[tokio::test]
async fn haproxy_2_6() {
    if real::proxy_skipped("haproxy_2_6", &[ServerKind::Mysql55]) {
        return;
    }
    let server = real::shared(ServerKind::Mysql55, false).await;
    let directory = tempfile::tempdir().unwrap();
    let port = LocalProxy::free_port().unwrap();
    let sections = format!(
        "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1m\n    timeout server 1m\n\
         listen mysql\n    bind 127.0.0.1:{port}\n    server old 127.0.0.1:{}\n",
        server.port()
    );
    let began = Instant::now();
    let mut proxy = LocalProxy::start(directory.path(), &sections).await.unwrap();
    eprintln!("HAProxy answered after {:?}", began.elapsed());
    let through = mysql_async::OptsBuilder::from_opts(server.connect_options(Account::App, None)).tcp_port(port);
    let mut app = Conn::new(through).await.unwrap();
    assert_eq!(text(&mut app, "SELECT @@port").await, server.port().to_string());
    assert!(proxy.ask("show info").unwrap().contains("Version: 2.6."));
    assert!(proxy.ask("show cli level").unwrap().starts_with("admin"));
    assert!(proxy.user_socket().exists() && proxy.is_running());
    drop(proxy);
    assert!(app.query_drop("SELECT 1").await.is_err(), "the proxy outlived its value");

    let error = LocalProxy::start(directory.path(), "listen nowhere\n    no such word\n").await.unwrap_err();
    assert!(error.to_string().contains("no such word") || error.to_string().contains("unknown keyword"), "{error}");
}
