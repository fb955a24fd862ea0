//! Real servers for the checksum tests, one per kind and test binary, and tables copied the plain way.

use std::path::PathBuf;
use std::sync::Arc;

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::catalog::Catalog;
use dbmove::mysql::cell::Row;
use dbmove::mysql::connect::{Purpose, Server, Session};
use dbmove::mysql::names::{Selection, TableName};
use dbmove::mysql::read::{self, Order, Scope};
use dbmove::mysql::sql;
use dbmove::mysql::table::Table;
use dbmove::mysql::tls::Protection;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::Mutex;

/// The server of this kind that all tests of this binary share.
pub async fn shared(kind: ServerKind) -> Arc<LocalServer> {
    static SERVERS: Mutex<Vec<(ServerKind, Arc<LocalServer>)>> = Mutex::const_new(Vec::new());
    let mut servers = SERVERS.lock().await;
    if let Some((_, server)) = servers.iter().find(|(other, _)| *other == kind) {
        return server.clone();
    }
    let all = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("checksum-servers");
    for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        // A static is never dropped: remove what test binaries that have ended left behind.
        if !PathBuf::from("/proc").join(entry.file_name()).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let directory = all.join(std::process::id().to_string()).join(kind.cache_name());
    // A server that starts deletes every `#sql…` file in its directory for temporary tables, those of servers that are running too.
    let temporary = directory.with_extension("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let options = ServerOptions::default().binlog(false).argument(format!("--tmpdir={}", temporary.display()));
    let server = Arc::new(LocalServer::start(kind, &directory, &options).await.unwrap());
    servers.push((kind, server.clone()));
    server
}

pub async fn root(server: &LocalServer) -> Conn {
    Conn::new(server.connect_options(Account::Root, None)).await.unwrap()
}

pub async fn session(server: &LocalServer, purpose: Purpose) -> Session {
    let place = Arc::new(Server {
        role: format!("{}", server.kind()),
        host: server.host().to_owned(),
        port: server.port(),
        user: "root".to_owned(),
        password: None,
        tls: Protection::Off,
        watched: None,
    });
    Session::open(&place, purpose).await.unwrap()
}

/// Describes a table by dbmove's catalog.
pub async fn describe(server: &LocalServer, database: &str, table: &str) -> Table {
    let mut session = session(server, Purpose::Catalog).await;
    let only = Selection::new(&[format!("{database}.{table}")], &[]).unwrap();
    let catalog = Catalog::read(&mut session, &only).await.unwrap();
    session.close().await;
    (**catalog.table(&TableName::new(database, table)).unwrap()).clone()
}

/// All rows of a table as cells.
pub async fn rows(session: &mut Session, table: &Table) -> Vec<Row> {
    let columns: Vec<usize> = (0..table.columns.len()).collect();
    let mut stream = read::stream(session, table, &columns, &Scope::Table, Order::Any).await.unwrap();
    let mut rows = Vec::new();
    while let Some(row) = stream.next().await.unwrap() {
        rows.push(row);
    }
    rows
}

/// Creates the source's table on the target in the target's dialect and puts the rows in, byte by byte.
pub async fn copy(source: &LocalServer, target: &LocalServer, database: &str, table: &str) -> (Table, Table) {
    let created: (String, String) = root(source).await.query_first(format!("SHOW CREATE TABLE {database}.{table}")).await.unwrap().unwrap();
    let ddl = created.1.replace("year(2)", "year").replace("ENGINE=MyISAM", "ENGINE=InnoDB");
    let ours = describe(source, database, table).await;
    let mut conn = root(target).await;
    conn.query_drop("SET NAMES utf8, sql_mode = '', foreign_key_checks = 0").await.unwrap();
    conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS {database}")).await.unwrap();
    conn.query_drop(format!("USE {database}")).await.unwrap();
    conn.query_drop(format!("DROP TABLE IF EXISTS {table}")).await.unwrap();
    conn.query_drop(&ddl).await.unwrap_or_else(|error| panic!("{ddl}: {error}"));
    let theirs = describe(target, database, table).await;
    let mut reading = session(source, Purpose::Read).await;
    let mut writing = session(target, Purpose::Write).await;
    for batch in rows(&mut reading, &ours).await.chunks(500) {
        let mut insert = format!("INSERT INTO {} VALUES ", sql::table(&theirs.name)).into_bytes();
        for (index, row) in batch.iter().enumerate() {
            if index > 0 {
                insert.push(b',');
            }
            sql::push_tuple(&mut insert, row.iter().zip(&theirs.columns));
        }
        // The error value 0 of an ENUM can't be written without warning 1265 on any server.
        let written = writing.write_unchecked(&insert, &format!("copying `{table}`")).await.unwrap();
        let warnings = if written.warnings > 0 { writing.warnings().await.unwrap() } else { vec![] };
        assert!(warnings.iter().all(|(code, text)| table == "sets" && *code == 1265 && text.contains("column 'e")), "{warnings:?}");
    }
    (ours, theirs)
}
