//! MySQL's JSON on a server that runs: the text that is made of the log's binary form is the server's own, digit for digit.

use std::fmt::Write as _;

use dbmove::local::ServerKind;
use dbmove::mysql::catalog::Catalog;
use dbmove::mysql::cell::Cell;
use dbmove::mysql::names::TableName;
use dbmove::mysql::rows::RowsError;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::live::{equal, follow, newest_log, selected};
use crate::real;
use crate::schema::{catalog_session, selection};

const DATABASE: &str = "live_documents";

/// Everything that a document can hold, as expressions: what only SQL can put there is among it.
const FIXED: [&str; 20] = [
    "NULL",
    "'null'",
    "'\"\"'",
    "'{}'",
    "'[]'",
    r#"'"quotes \\" \\\\ slash / \\b\\f\\n\\r\\t \\u0000 \\u001f \\u007f \\u2028 é 😀"'"#,
    "JSON_ARRAY(-32768, 32767, -32769, 32768, 65535, 65536, -2147483648, 2147483647, 4294967295, 4294967296, -9223372036854775808, \
     9223372036854775807, 18446744073709551615)",
    "JSON_ARRAY(0e0, -0e0, 1e0, 1e14, 1e15, 123456789012345e0, 1234567890123456e0, 1e-7, 1e-14, 1e-15, 1e-16, 1.5e-15, 1.5e-16, \
     1.7976931348623157e308, 2.2250738585072014e-308, 4.9e-324, 0.1e0, 1e22, 1e23)",
    "JSON_ARRAY(1.50, -0.000000000000000000000000000001, 12345678901234567890123456789012345.123456789012345678901234567891, \
     CAST(7 AS DECIMAL(65)), 0.0)",
    "JSON_ARRAY(TIMESTAMP'2020-01-02 03:04:05.678', TIMESTAMP'9999-12-31 23:59:59.999999', TIMESTAMP'1000-01-01 00:00:00')",
    "JSON_ARRAY(DATE'2020-02-29', DATE'0001-01-01', DATE'9999-12-31')",
    "JSON_ARRAY(TIME'-838:59:59', TIME'838:59:59', TIME'-00:00:00.000001', TIME'00:00:00', TIME'-01:02:03.5')",
    "JSON_ARRAY(x'ff00', b'101', CAST('' AS BINARY), CAST(REPEAT('A', 57) AS BINARY), CAST(REPEAT('B', 58) AS BINARY), \
     CAST(REPEAT('C', 500) AS BINARY), ST_GeomFromText('POINT(1 2)'))",
    "JSON_OBJECT('b', 1, 'aa', TRUE, '', NULL, 'a', FALSE, 'é', 'ü', 'k\\\"', JSON_ARRAY())",
    "JSON_ARRAY(REPEAT('x', 127), REPEAT('y', 128), REPEAT('ü', 70000))",
    "JSON_OBJECT(REPEAT('k', 65535), JSON_OBJECT('n', 70000), 'l', -70000)",
    // A large container: the offsets of its members have four bytes.
    "JSON_ARRAY(REPEAT('z', 70000), 70000, 5, TRUE, 4294967295, JSON_ARRAY(70000, 3000000000), JSON_OBJECT('k', 70000, 'l', 1.5))",
    "CAST(CONCAT(REPEAT('[', 100), REPEAT(']', 100)) AS JSON)",
    "CAST(CONCAT(REPEAT('{\"a\":', 99), '{}', REPEAT('}', 99)) AS JSON)",
    "CAST(1.0 AS JSON)",
];

/// A document of nested containers, as a text for the server to read.
fn document(random: &mut StdRng, depth: u32) -> String {
    match random.random_range(if depth == 0 { 2..9 } else { 0..9 }) {
        0 => {
            let members: Vec<String> = (0..random.random_range(0..6)).map(|_| document(random, depth - 1)).collect();
            format!("[{}]", members.join(","))
        }
        1 => {
            let members: Vec<String> = (0..random.random_range(0..6))
                .map(|_| format!("\"k{}\":{}", random.random_range(0..2000), document(random, depth - 1)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        2 => random.random::<i64>().to_string(),
        3 => (random.random::<u64>() >> random.random_range(0..64)).to_string(),
        4 => format!("{:e}", f64::from_bits(random.random::<u64>() & 0x7fe0_0000_0000_0000 | random.random::<u64>() >> 12)),
        5 => format!("{:e}", random.random_range(-1e6..1e6) * 10f64.powi(random.random_range(-25..25))),
        6 => ["true", "false", "null"][random.random_range(0..3)].to_owned(),
        _ => {
            let mut text = String::from("\"");
            for _ in 0..random.random_range(0..20) {
                let _ = write!(text, "\\u{:04x}", random.random_range(0..0x300));
            }
            text + "\""
        }
    }
}

pub async fn equal_selects() {
    if real::skipped("documents::equal_selects", &[ServerKind::Mysql97]) {
        return;
    }
    let server = real::shared(ServerKind::Mysql97, false).await;
    let mut session = catalog_session(&server).await;
    let mut random = StdRng::seed_from_u64(245);
    for statement in [
        format!("DROP DATABASE IF EXISTS {DATABASE}"),
        format!("CREATE DATABASE {DATABASE} DEFAULT CHARACTER SET utf8mb4"),
        // With an index over the members of an array, which is a column that no SELECT shows.
        format!(
            "CREATE TABLE {DATABASE}.documents (id INT PRIMARY KEY, d JSON, n JSON NOT NULL, i INT NOT NULL, \
             KEY tags ((CAST(n->'$.tags' AS UNSIGNED ARRAY)))) ENGINE=InnoDB"
        ),
        "FLUSH LOGS".to_owned(),
    ] {
        session.run(&statement, "test").await.unwrap();
    }
    let mut id = 0;
    let random_ones: Vec<String> = (0..400).map(|_| format!("'{}'", document(&mut random, 5).replace('\\', "\\\\"))).collect();
    for document in FIXED.iter().map(|fixed| (*fixed).to_owned()).chain(random_ones) {
        id += 1;
        let document = document.strip_prefix('\'').map_or(document.clone(), |text| format!("_utf8mb4'{text}"));
        let tags = format!("JSON_OBJECT('tags', JSON_ARRAY({id}, {}))", id * 3);
        session.run(&format!("INSERT INTO {DATABASE}.documents VALUES ({id}, {document}, {tags}, {id})"), "test").await.unwrap();
    }
    for statement in [
        "UPDATE {}.documents SET d = JSON_SET(n, '$.price', 19.90, '$.more', d) WHERE id % 5 = 0",
        "UPDATE {}.documents SET n = JSON_ARRAY_APPEND(n, '$.tags', i), id = id + 10000 WHERE id % 7 = 0",
        "DELETE FROM {}.documents WHERE id % 11 = 0",
        // NULL where it is not allowed: no bytes at all are stored.
        "INSERT IGNORE INTO {}.documents (id, d, n, i) SELECT id + 50000, d, NULL, i FROM {}.documents WHERE id = 1",
    ] {
        session.run(&statement.replace("{}", DATABASE), "test").await.unwrap();
    }
    let events = newest_log(&server, &mut session).await;
    let catalog = Catalog::read(&mut session, &selection(&[&format!("{DATABASE}.*")])).await.unwrap();
    let table = catalog.table(&TableName::new(DATABASE, "documents")).unwrap();
    let followed = follow(&events, table).unwrap();
    assert!(followed.len() > 350, "{}", followed.len());
    let nulls = followed.iter().filter(|row| row[0] == Cell::Bytes(b"50001".to_vec()) && row[2] == Cell::Bytes(b"null".to_vec()));
    assert_eq!(nulls.count(), 1);
    equal(followed, selected(&server, table).await, table, ServerKind::Mysql97);

    // Parts of documents are refused, and named.
    session.run("FLUSH LOGS", "test").await.unwrap();
    session.run("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'", "test").await.unwrap();
    session.run(&format!("UPDATE {DATABASE}.documents SET n = JSON_SET(n, '$.tags[0]', 1)"), "test").await.unwrap();
    session.run("SET SESSION binlog_row_value_options = ''", "test").await.unwrap();
    let events = newest_log(&server, &mut session).await;
    let error = follow(&events, table).unwrap_err();
    assert!(matches!(&error, RowsError::Unsupported { message, .. } if message.contains("changed parts of JSON")), "{error}");
}
