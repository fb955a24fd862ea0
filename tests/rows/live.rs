//! The same on servers that run: what a log holds decodes to what a SELECT gives, for the formats
//! that the recorded logs do not have (fractions, version 2 events, checksums, generated columns).

use std::collections::HashMap;
use std::sync::Arc;

use dbmove::local::{Account, LocalServer, ServerKind};
use dbmove::mysql::catalog::Catalog;
use dbmove::mysql::cell::{Cell, Row};
use dbmove::mysql::connect::{Purpose, Session};
use dbmove::mysql::names::TableName;
use dbmove::mysql::rows::{Decoder, RowsError, RowsEvent, TableMap};
use dbmove::mysql::sql;
use dbmove::mysql::table::Table;
use mysql_async::prelude::Queryable as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::binlog::{self, TABLE_MAP};
use crate::documents;
use crate::real;
use crate::schema::{catalog_session, selection, session_for};

const DATABASE: &str = "live_rows";

/// The newest log of the server, cut into events.
pub async fn newest_log(server: &LocalServer, session: &mut Session) -> Vec<binlog::Event> {
    let logs = session.rows("SHOW BINARY LOGS", "test").await.unwrap();
    let newest = logs.last().unwrap()[0].clone().unwrap();
    binlog::events(&std::fs::read(server.data_directory().join(newest)).unwrap())
}

/// Applies every event of the table; rows as they are in the end.
pub fn follow(events: &[binlog::Event], table: &Arc<Table>) -> Result<Vec<Row>, RowsError> {
    let mut decoders: HashMap<u64, Decoder> = HashMap::new();
    let mut rows: Vec<Row> = Vec::new();
    for event in events {
        if event.kind == TABLE_MAP {
            let map = TableMap::parse(&event.body)?;
            if map.name == table.name {
                decoders.insert(map.table_id, Decoder::new(&map, table.clone())?);
            }
        } else if RowsEvent::is_rows(event.kind) {
            let event = RowsEvent::parse(event.kind, &event.body)?;
            let Some(decoder) = decoders.get(&event.table_id) else {
                continue;
            };
            for change in decoder.changes(&event)? {
                let change = change?;
                if let Some(before) = change.before {
                    let at = rows.iter().position(|row| row[0] == before[0]).expect("the row that changes is there");
                    assert_eq!(rows.remove(at), before, "the image before is what the last event left");
                }
                rows.extend(change.after);
            }
        }
    }
    Ok(rows)
}

/// What SELECT gives, in the form that the copy uses.
pub async fn selected(server: &LocalServer, table: &Table) -> Vec<Row> {
    let mut session = session_for(server, Account::Root, Purpose::Read).await;
    let binary = table.has_floats();
    let columns: Vec<String> = table.columns.iter().map(|column| sql::select_expression(column, binary)).collect();
    let query = format!("SELECT {} FROM {}", columns.join(", "), sql::table(&table.name));
    let rows: Vec<mysql_async::Row> =
        if binary { session.conn().exec(query, ()).await.unwrap() } else { session.conn().query(query).await.unwrap() };
    let cell = |value: mysql_async::Value| match value {
        mysql_async::Value::NULL => Cell::Null,
        mysql_async::Value::Bytes(bytes) => Cell::Bytes(bytes),
        mysql_async::Value::Int(value) => Cell::Bytes(value.to_string().into_bytes()),
        mysql_async::Value::UInt(value) => Cell::Bytes(value.to_string().into_bytes()),
        mysql_async::Value::Float(value) => Cell::Float(value),
        mysql_async::Value::Double(value) => Cell::Double(value),
        other => panic!("{other:?} is not in a canonical form"),
    };
    rows.into_iter().map(|row| row.unwrap().into_iter().map(cell).collect()).collect()
}

/// Rows in the order of their first column; generated columns are not compared.
fn comparable(mut rows: Vec<Row>, table: &Table) -> Vec<Row> {
    let number = |row: &Row| String::from_utf8(row[0].as_bytes().unwrap().to_vec()).unwrap().parse::<i128>().unwrap();
    rows.sort_by_key(number);
    for row in &mut rows {
        for (cell, column) in row.iter_mut().zip(&table.columns) {
            if column.generated {
                *cell = Cell::Null;
            }
        }
    }
    rows
}

/// Both are the same rows, cell by cell.
pub fn equal(followed: Vec<Row>, selected: Vec<Row>, table: &Table, kind: ServerKind) {
    let (followed, selected) = (comparable(followed, table), comparable(selected, table));
    assert_eq!(followed.len(), selected.len(), "{kind}: {}", table.name);
    for (followed, selected) in followed.iter().zip(&selected) {
        for ((followed, selected), column) in followed.iter().zip(selected).zip(&table.columns) {
            let shown = |cell: &Cell| cell.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            assert_eq!(
                followed,
                selected,
                "{kind}: {}.{}: {:?}, and by SELECT {:?}",
                table.name,
                column.name,
                shown(followed),
                shown(selected)
            );
        }
    }
}

fn fractions(kind: ServerKind) -> bool {
    kind != ServerKind::Mysql55
}

/// Two tables, one of them with floats, and a few hundred changes from a fixed seed.
async fn write(kind: ServerKind, session: &mut Session) {
    let mut random = StdRng::seed_from_u64(97);
    let part = |digits: u8| if fractions(kind) { format!("({digits})") } else { String::new() };
    let generated = if matches!(kind, ServerKind::Mysql97 | ServerKind::MariaDb) {
        ", v INT AS (id + 1) VIRTUAL, w INT AS (id + 2) STORED"
    } else {
        ""
    };
    // Two digits in print; gone from 5.6 on.
    let short_year = if kind == ServerKind::Mysql55 { ", y2 YEAR(2)" } else { "" };
    for statement in [
        format!("DROP DATABASE IF EXISTS {DATABASE}"),
        format!("CREATE DATABASE {DATABASE} DEFAULT CHARACTER SET utf8"),
        format!(
            "CREATE TABLE {DATABASE}.times (id INT PRIMARY KEY, t0 TIME, t1 TIME{}, t4 TIME{}, t6 TIME{}, d0 DATETIME, d3 DATETIME{}, d6 DATETIME{},
             s0 TIMESTAMP NULL, s2 TIMESTAMP{} NULL, s5 TIMESTAMP{} NULL, y YEAR, d DATE{generated}{short_year}, z INT(9) ZEROFILL) ENGINE=InnoDB",
            part(1),
            part(4),
            part(6),
            part(3),
            part(6),
            part(2),
            part(5)
        ),
        format!(
            "CREATE TABLE {DATABASE}.things (id BIGINT UNSIGNED PRIMARY KEY, f FLOAT, d DOUBLE, n DECIMAL(30,10), u DECIMAL(9,9) ZEROFILL, c CHAR(255), w CHAR(5) CHARACTER SET ucs2,
             b BINARY(6), l BINARY(255), e ENUM('a','b'), s SET('x','y','z'), k BIT(33), y YEAR, m MEDIUMINT UNSIGNED, t TIME, x LONGBLOB) ENGINE=InnoDB"
        ),
        "FLUSH LOGS".to_owned(),
    ] {
        session.run(&statement, "test").await.unwrap();
    }
    let pick = |random: &mut StdRng, values: &[&str]| values[random.random_range(0..values.len())].to_owned();
    for id in 0..150 {
        let clock = |random: &mut StdRng| {
            let hours = random.random_range(0..=838);
            let sign = if random.random_bool(0.5) { "-" } else { "" };
            let fraction = random.random_range(0..999_999);
            let time = format!("'{sign}{hours}:{}:{}.{fraction:06}'", random.random_range(0..60), random.random_range(0..59));
            pick(random, &[&time, &time, "NULL", "'-00:00:00.000001'", "'-00:00:00.9'", "'-838:59:59'", "'838:59:59'", "0"])
        };
        let moment = |random: &mut StdRng| {
            let moment = format!(
                "'{}-{}-{} {}:{}:{}.{:06}'",
                random.random_range(1971..2037),
                random.random_range(1..=12),
                random.random_range(1..=28),
                random.random_range(0..24),
                random.random_range(0..60),
                random.random_range(0..59),
                random.random_range(0..999_999)
            );
            pick(random, &[&moment, &moment, "NULL", "'0000-00-00 00:00:00'", "'2038-01-19 03:14:07'", "'1970-01-01 00:00:01'"])
        };
        let mut values = vec![id.to_string()];
        values.extend((0..4).map(|_| clock(&mut random)));
        values.extend((0..6).map(|_| moment(&mut random)));
        values.push(pick(&mut random, &["0", "1901", "2155", "2000", "NULL"]));
        values.push(pick(&mut random, &["'0000-00-00'", "'2010-00-00'", "'9999-12-31'", "'1000-01-01'", "NULL"]));
        values.push(random.random_range(0..1_000_000_000).to_string());
        let columns = "id, t0, t1, t4, t6, d0, d3, d6, s0, s2, s5, y, d, z";
        session.run(&format!("INSERT INTO {DATABASE}.times ({columns}) VALUES ({})", values.join(", ")), "test").await.unwrap();

        let spaces = " ".repeat(random.random_range(0..4));
        let values = [
            (u64::MAX - random.random_range(0..1000) - id * 1000).to_string(),
            format!("{:e}", f32::from_bits(random.random_range(0..0x7f00_0000))),
            format!("{:e}", f64::from_bits(random.random_range(0..0x7fe0_0000_0000_0000))),
            format!("{}.{}", random.random_range(-99_999_999_999i64..99_999_999_999), random.random_range(0..9_999_999)),
            format!("0.{}", random.random_range(0..999_999_999)),
            format!("'{}é{spaces}'", "ä".repeat(random.random_range(0..250))),
            format!("'Р {spaces}'"),
            format!("X'00{:04x}00'", random.random_range(0..65536)),
            format!("REPEAT(X'01', {})", random.random_range(0..=255)),
            random.random_range(0..=2).to_string(),
            random.random_range(0..8).to_string(),
            random.random_range(0..1u64 << 33).to_string(),
            pick(&mut random, &["0", "1970"]),
            random.random_range(0..16_777_216).to_string(),
            clock(&mut random),
            format!("REPEAT(X'ff0d', {})", random.random_range(0..40_000)),
        ];
        session.run(&format!("INSERT INTO {DATABASE}.things VALUES ({})", values.join(", ")), "test").await.unwrap();
    }
    if !short_year.is_empty() {
        session.run(&format!("UPDATE {DATABASE}.times SET y2 = 1970 + id % 100 WHERE id % 13 > 0"), "test").await.unwrap();
    }
    for statement in [
        "UPDATE {}.times SET t6 = t4, d3 = NULL, z = z + 1 WHERE id % 3 = 0",
        "DELETE FROM {}.times WHERE id % 7 = 0",
        "UPDATE {}.times SET id = id + 1000 WHERE id % 10 = 1",
        "UPDATE {}.things SET n = -n, c = NULL, b = X'01' WHERE e = 1",
        "DELETE FROM {}.things WHERE s = 2",
    ] {
        session.run(&statement.replace("{}", DATABASE), "test").await.unwrap();
    }
}

async fn events_equal_selects(kind: ServerKind, version_1: bool) {
    if real::skipped("events_equal_selects", &[kind]) {
        return;
    }
    let server = real::shared(kind, false).await;
    let mut session = catalog_session(&server).await;
    if version_1 {
        session.run("SET GLOBAL log_bin_use_v1_row_events = ON", "test").await.unwrap();
    }
    write(kind, &mut session).await;
    let events = newest_log(&server, &mut session).await;
    let expected_kinds = if version_1 || matches!(kind, ServerKind::Mysql55 | ServerKind::MariaDb) { 23..=25 } else { 30..=32 };
    assert!(events.iter().filter(|event| RowsEvent::is_rows(event.kind)).all(|event| expected_kinds.contains(&event.kind)), "{kind}");
    let catalog = Catalog::read(&mut session, &selection(&[&format!("{DATABASE}.*")])).await.unwrap();
    for name in ["times", "things"] {
        let table = catalog.table(&TableName::new(DATABASE, name)).unwrap();
        let followed = follow(&events, table).unwrap();
        assert!(followed.len() > 90, "{kind}: {}", followed.len());
        equal(followed, selected(&server, table).await, table, kind);
    }
    if version_1 {
        session.run("SET GLOBAL log_bin_use_v1_row_events = OFF", "test").await.unwrap();
    }
    if kind != ServerKind::Mysql55 {
        minimal_images_are_refused(kind, &server, &mut session, &catalog).await;
    }
}

async fn minimal_images_are_refused(kind: ServerKind, server: &LocalServer, session: &mut Session, catalog: &Catalog) {
    session.run("FLUSH LOGS", "test").await.unwrap();
    session.run("SET SESSION binlog_row_image = 'MINIMAL'", "test").await.unwrap();
    session.run(&format!("UPDATE {DATABASE}.times SET z = z + 1"), "test").await.unwrap();
    session.run("SET SESSION binlog_row_image = 'FULL'", "test").await.unwrap();
    let events = newest_log(server, session).await;
    let error = follow(&events, catalog.table(&TableName::new(DATABASE, "times")).unwrap()).unwrap_err();
    assert!(matches!(error, RowsError::PartialImage { .. }), "{kind}: {error}");
}

#[tokio::test]
async fn events_of_5_5_equal_selects() {
    events_equal_selects(ServerKind::Mysql55, false).await;
}

#[tokio::test]
async fn events_of_5_6_14_equal_selects() {
    events_equal_selects(ServerKind::Mysql5614, false).await;
}

/// One after the other: both use the one server of this kind.
#[tokio::test]
async fn events_of_5_6_equal_selects_in_both_versions() {
    events_equal_selects(ServerKind::Mysql56, false).await;
    events_equal_selects(ServerKind::Mysql56, true).await;
}

/// One after the other: both read the newest log of the one server of this kind.
#[tokio::test]
async fn events_of_9_7_equal_selects() {
    events_equal_selects(ServerKind::Mysql97, false).await;
    documents::equal_selects().await;
}

#[tokio::test]
async fn events_of_mariadb_equal_selects() {
    events_equal_selects(ServerKind::MariaDb, false).await;
}
