//! The private servers themselves: each starts, is what it says it is, has the accounts it should, and keeps its
//! data through `kill -9`.
//!
//! A server that was not fetched makes its tests skip, never silently: see `skipped`.

use std::io::Write as _;
use std::time::Instant;

use dbmove::local::{Account, LocalError, LocalServer, ServerKind, ServerOptions, available};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Row};
use secrecy::SecretString;

/// Whether `test` has to be skipped for want of a server. Says so on stderr and, for `make test` to count, in the
/// file named by `DBMOVE_SKIP_LOG`.
fn skipped(test: &str, kind: ServerKind) -> bool {
    let Err(reason) = available(kind) else {
        return false;
    };
    let line = format!("SKIPPED {test}: {reason}");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("DBMOVE_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(log, "{line}").unwrap();
    }
    true
}

async fn connect(server: &LocalServer, account: Account) -> Conn {
    Conn::new(server.connect_options(account, None)).await.unwrap()
}

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
async fn mysql_5_5_34() {
    if !skipped("mysql_5_5_34", ServerKind::Mysql55) {
        starts_and_survives_kill(ServerKind::Mysql55).await;
    }
}

#[tokio::test]
async fn mysql_5_6_24() {
    if !skipped("mysql_5_6_24", ServerKind::Mysql56) {
        starts_and_survives_kill(ServerKind::Mysql56).await;
    }
}

#[tokio::test]
async fn mysql_9_7() {
    if !skipped("mysql_9_7", ServerKind::Mysql97) {
        starts_and_survives_kill(ServerKind::Mysql97).await;
    }
}

#[tokio::test]
async fn mariadb_10_11() {
    if !skipped("mariadb_10_11", ServerKind::MariaDb) {
        starts_and_survives_kill(ServerKind::MariaDb).await;
    }
}

#[tokio::test]
async fn mysql_9_7_like_rds() {
    if !skipped("mysql_9_7_like_rds", ServerKind::Mysql97) {
        is_like_rds(ServerKind::Mysql97).await;
    }
}

#[tokio::test]
async fn mariadb_10_11_like_rds() {
    if !skipped("mariadb_10_11_like_rds", ServerKind::MariaDb) {
        is_like_rds(ServerKind::MariaDb).await;
    }
}

/// A server that can't start says why in the error, from its own log.
#[tokio::test]
async fn a_server_that_dies_says_why() {
    if skipped("a_server_that_dies_says_why", ServerKind::Mysql55) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions::default().argument("--no-such-option=1");
    match LocalServer::start(ServerKind::Mysql55, directory.path(), &options).await {
        Err(LocalError::Died { log, .. }) => assert!(log.contains("no-such-option"), "{log}"),
        other => panic!("{other:?}"),
    }
}
