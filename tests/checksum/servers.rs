//! Real servers for the checksum tests, one per kind and test binary, and tables described the plain way.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions, available};
use dbmove::mysql::cell::Row;
use dbmove::mysql::connect::{Purpose, Server, Session};
use dbmove::mysql::names::TableName;
use dbmove::mysql::read::{self, Order, Scope};
use dbmove::mysql::sql;
use dbmove::mysql::table::{Column, ColumnType, Index, IndexPart, Table};
use dbmove::playbook::model::Tls;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::Mutex;

/// Whether the test has to be skipped because a server can't be had; says so loudly.
pub fn skipped(test: &str, kinds: &[ServerKind]) -> bool {
    let Some(reason) = kinds.iter().find_map(|kind| available(*kind).err()) else { return false };
    let line = format!("SKIPPED {test}: {}", reason.replace('\n', " "));
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("DBMOVE_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(log, "{line}").unwrap();
    }
    true
}

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
    let server = Arc::new(LocalServer::start(kind, &directory, &ServerOptions::default().binlog(false)).await.unwrap());
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
        tls: Tls::Off,
    });
    Session::open(&place, purpose).await.unwrap()
}

/// Describes a table from the information schema: one table, no hurry, nothing shared with the catalog.
pub async fn describe(server: &LocalServer, database: &str, table: &str) -> Table {
    let mut catalog = session(server, Purpose::Catalog).await;
    let columns = catalog
        .rows(
            &format!(
                "SELECT column_name, data_type, column_type, is_nullable, character_set_name, collation_name, numeric_precision, numeric_scale, extra, character_octet_length \
                 FROM information_schema.columns WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
                sql::text(database),
                sql::text(table)
            ),
            "describing",
        )
        .await
        .unwrap();
    let columns: Vec<Column> = columns
        .into_iter()
        .map(|row| {
            let text = |index: usize| row[index].clone().unwrap_or_default();
            let number = |index: usize| text(index).parse::<u32>().unwrap_or(0);
            let type_text = text(2);
            let width = type_text.split(['(', ')', ',']).nth(1).and_then(|width| width.parse::<u32>().ok());
            let fraction = width.unwrap_or(0) as u8;
            let kind = match text(1).to_lowercase().as_str() {
                "tinyint" => ColumnType::TinyInt,
                "smallint" => ColumnType::SmallInt,
                "mediumint" => ColumnType::MediumInt,
                "int" => ColumnType::Int,
                "bigint" => ColumnType::BigInt,
                "float" => ColumnType::Float,
                "double" => ColumnType::Double,
                "decimal" => ColumnType::Decimal { precision: number(6) as u8, scale: number(7) as u8 },
                "date" => ColumnType::Date,
                "time" => ColumnType::Time(fraction),
                "datetime" => ColumnType::DateTime(fraction),
                "timestamp" => ColumnType::Timestamp(fraction),
                "year" if width == Some(2) => ColumnType::Year2,
                "year" => ColumnType::Year,
                "char" => ColumnType::Char,
                "varchar" => ColumnType::VarChar,
                "binary" => ColumnType::Binary(number(9)),
                "varbinary" => ColumnType::VarBinary,
                "tinytext" | "text" | "mediumtext" | "longtext" => ColumnType::Text,
                "tinyblob" | "blob" | "mediumblob" | "longblob" => ColumnType::Blob,
                "enum" => ColumnType::Enum,
                "set" => ColumnType::Set,
                "bit" => ColumnType::Bit(width.unwrap_or(1) as u8),
                "json" => ColumnType::Json,
                "geometry" | "point" | "polygon" => ColumnType::Geometry,
                other => panic!("no test knows the type `{other}`"),
            };
            Column {
                name: text(0),
                kind,
                unsigned: type_text.contains("unsigned"),
                zerofill: type_text.contains("zerofill"),
                type_text,
                nullable: text(3) == "YES",
                charset: row[4].clone(),
                collation: row[5].clone(),
                auto_increment: text(8).contains("auto_increment"),
                generated: text(8).contains("GENERATED"),
            }
        })
        .collect();
    let mut indexes: Vec<Index> = Vec::new();
    let parts =
        catalog.rows(&format!("SHOW INDEX FROM {}.{}", sql::identifier(database), sql::identifier(table)), "describing").await.unwrap();
    for part in parts {
        let text = |index: usize| part[index].clone().unwrap_or_default();
        let column = columns.iter().position(|column| column.name == text(4)).unwrap();
        let part = IndexPart { column, prefix: part[7].as_ref().map(|prefix| prefix.parse().unwrap()) };
        match indexes.iter_mut().find(|index| index.name == text(2)) {
            Some(index) => index.parts.push(part),
            None => indexes.push(Index { name: text(2), unique: text(1) == "0", method: text(10), parts: vec![part] }),
        }
    }
    catalog.close().await;
    Table {
        name: TableName::new(database, table),
        engine: String::new(),
        collation: String::new(),
        row_estimate: 0,
        data_bytes: 0,
        auto_increment: None,
        columns,
        indexes,
        foreign_keys: vec![],
    }
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
