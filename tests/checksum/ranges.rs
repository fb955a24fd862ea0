//! Walking a table by key ranges: every row once, in the server's order, by an index, whatever the key's type.

use std::collections::BTreeSet;

use dbmove::local::ServerKind;
use dbmove::mysql::cell::{Cell, Key};
use dbmove::mysql::connect::{Purpose, Session};
use dbmove::mysql::range::{self, KeyRange};
use dbmove::mysql::read::{self, Order, Scope};
use dbmove::mysql::sql;
use dbmove::mysql::table::Table;
use mysql_async::prelude::Queryable;

use crate::real::skipped;
use crate::servers::{describe, root, session, shared};

/// Key definitions, and values that make collations, signs and encodings matter.
const KEYS: &[(&str, &str, &str)] = &[
    ("number", "a BIGINT NOT NULL, PRIMARY KEY (a)", "(-9223372036854775808), (-5), (0), (7), (40), (9223372036854775807)"),
    ("large", "a BIGINT UNSIGNED NOT NULL, PRIMARY KEY (a)", "(0), (1), (9007199254740993), (9223372036854775808), (18446744073709551615)"),
    ("filled", "a INT(8) ZEROFILL NOT NULL, PRIMARY KEY (a)", "(1), (20), (300), (4000)"),
    (
        "exact",
        "a DECIMAL(30,10) NOT NULL, PRIMARY KEY (a)",
        "(-1.5), (0.0000000001), (12345678901234567890.0000000001), (12345678901234567890.0000000002), (12345678901234567890.0000000003)",
    ),
    (
        "latin",
        "a VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_swedish_ci NOT NULL, PRIMARY KEY (a)",
        "('zebra'), ('Ähnlich'), ('apple'), ('Banana'), ('ärm'), ('été'), ('Zoo'), ('x y'), ('x'), ('')",
    ),
    (
        "general",
        "a VARCHAR(20) CHARACTER SET utf8 COLLATE utf8_general_ci NOT NULL, PRIMARY KEY (a)",
        "('zebra'), ('Ähnlich'), ('apple'), ('Banana'), ('ärm'), ('日本'), ('Привет'), ('x y'), ('x\\t'), ('x'), ('')",
    ),
    (
        "fixed",
        "a CHAR(20) CHARACTER SET utf8 COLLATE utf8_unicode_ci NOT NULL, PRIMARY KEY (a)",
        "('zebra'), ('Ähnlich'), ('apple'), ('Banana'), ('strasse1'), ('straße2'), ('œuvre'), ('o'), ('')",
    ),
    ("exactly", "a VARCHAR(20) CHARACTER SET utf8 COLLATE utf8_bin NOT NULL, PRIMARY KEY (a)", "('a'), ('A'), ('b'), ('B'), ('é'), ('e')"),
    ("wide16", "a VARCHAR(20) CHARACTER SET utf16 NOT NULL, PRIMARY KEY (a)", "('a'), ('Bé'), ('日本'), ('Ω'), ('z'), ('')"),
    ("wide2", "a VARCHAR(20) CHARACTER SET ucs2 NOT NULL, PRIMARY KEY (a)", "('a'), ('Bé'), ('日本'), ('Ω'), ('z'), ('')"),
    ("japanese", "a VARCHAR(20) CHARACTER SET sjis NOT NULL, PRIMARY KEY (a)", "('日本'), ('表'), ('ソ'), ('a'), ('b\\\\')"),
    ("chinese", "a VARCHAR(20) CHARACTER SET gbk NOT NULL, PRIMARY KEY (a)", "('中文'), ('縗'), ('a'), ('誠')"),
    ("bytes", "a VARBINARY(20) NOT NULL, PRIMARY KEY (a)", "(''), (0x00), (0x0000), (0x27), (0x5c), (0xff), (0x61), (0x41)"),
    ("padded", "a BINARY(4) NOT NULL, PRIMARY KEY (a)", "(0x00), (0x2700), (0x5c), (0xff), (0x61), (0x6100000001)"),
    ("day", "a DATE NOT NULL, PRIMARY KEY (a)", "('0000-00-00'), ('2010-00-00'), ('2010-05-00'), ('2010-05-05'), ('9999-12-31')"),
    (
        "clock",
        "a TIME NOT NULL, PRIMARY KEY (a)",
        "('-838:59:59'), ('-25:00:00'), ('-00:00:01'), ('00:00:00'), ('09:00:00'), ('100:00:00'), ('838:59:59')",
    ),
    (
        "moment",
        "a DATETIME NOT NULL, PRIMARY KEY (a)",
        "('0000-00-00 00:00:00'), ('2010-00-00 10:00:00'), ('2012-02-29 23:59:59'), ('2012-03-01 00:00:00')",
    ),
    (
        "stamp",
        "a TIMESTAMP NOT NULL DEFAULT '2000-01-01', PRIMARY KEY (a)",
        "('0000-00-00 00:00:00'), ('1970-01-01 00:00:01'), ('2011-11-06 01:30:00'), ('2038-01-19 03:14:07')",
    ),
    ("annual", "a YEAR NOT NULL, PRIMARY KEY (a)", "(0), (1901), (1969), (1970), (2000), (2001), (2155)"),
    ("choice", "a ENUM('z','m','a') NOT NULL, PRIMARY KEY (a)", "('z'), ('m'), ('a')"),
    (
        "choice_and",
        "a ENUM('user','it''s','group') NOT NULL, b INT NOT NULL, PRIMARY KEY (a, b)",
        "('user',1), ('group',1), ('it''s',5), ('user',2), ('group',-1)",
    ),
    ("flags", "a SET('z','m','a') NOT NULL, PRIMARY KEY (a)", "(''), ('z'), ('m'), ('z,m'), ('a'), ('z,a'), ('z,m,a')"),
    ("bits", "a BIT(40) NOT NULL, PRIMARY KEY (a)", "(0), (1), (255), (256), (65536), (1099511627775)"),
    (
        "pair",
        "a INT NOT NULL, b VARCHAR(10) CHARACTER SET utf8 NOT NULL, PRIMARY KEY (a, b)",
        "(1,'ann'), (1,'Bob'), (1,'émile'), (2,''), (2,'ann'), (3,'z'), (-1,'z'), (-1,'Z ')",
    ),
    (
        "triple",
        "a VARCHAR(10) CHARACTER SET latin1 NOT NULL, b DATE NOT NULL, c SMALLINT NOT NULL, PRIMARY KEY (c, a, b)",
        "('a','2011-01-01',1), ('A','2011-01-02',1), ('é','2011-01-01',1), ('a','2011-01-01',2), ('b','0000-00-00',2), ('b','2010-00-00',2), ('a','2011-01-01',-3)",
    ),
    ("unique_only", "a INT NOT NULL, b CHAR(3) NOT NULL, UNIQUE KEY `odd ``name` (b, a)", "(1,'x'), (2,'x'), (3,'X'), (1,'y'), (1,'a')"),
];

async fn keys(session: &mut Session, table: &Table, scope: &Scope<'_>) -> Vec<Key> {
    let columns = read::key_columns(table).unwrap();
    let places: Vec<usize> = (0..columns.len()).collect();
    let mut rows = read::stream(session, table, &columns, scope, Order::ByKey).await.unwrap();
    let mut keys = Vec::new();
    while let Some(row) = rows.next().await.unwrap() {
        keys.push(Key::of(&row, &places));
    }
    keys
}

async fn walk(kind: ServerKind) {
    if skipped(&format!("walking by key on {kind}"), &[kind]) {
        return;
    }
    let server = shared(kind).await;
    let mut conn = root(&server).await;
    conn.query_drop("SET NAMES utf8, time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO'").await.unwrap();
    conn.query_drop("CREATE DATABASE walked; USE walked").await.unwrap();
    let mut reading = session(&server, Purpose::Read).await;
    for (name, definition, values) in KEYS {
        // A second column, so that the key's index is not the only way to the rows; FLOAT on half the tables, for the binary protocol.
        let rest = if name.len() % 2 == 0 { "v FLOAT DEFAULT 1.5" } else { "v INT DEFAULT 5" };
        conn.query_drop(format!("CREATE TABLE {name} ({definition}, {rest}, KEY other (v)) ENGINE=InnoDB")).await.unwrap();
        let columns = definition.matches(" NOT NULL").count();
        let names = &["a", "b", "c"][..columns];
        conn.query_drop(format!("INSERT IGNORE INTO {name} ({}) VALUES {values}", names.join(","))).await.unwrap();
        let table = describe(&server, "walked", name).await;
        let count: usize = conn.query_first(format!("SELECT COUNT(*) FROM {name}")).await.unwrap().unwrap();
        assert!(count >= 3, "`{name}` on {kind} has {count} rows");
        let whole = keys(&mut reading, &table, &Scope::Table).await;
        assert_eq!(whole.len(), count);

        for step in [1, 2, 3] {
            let mut walked = Vec::new();
            let mut after: Option<Key> = None;
            loop {
                let through = range::next_upper(&mut reading, &table, after.as_ref(), step).await.unwrap();
                let range = KeyRange { after, through: through.clone() };
                let found = keys(&mut reading, &table, &Scope::Range(&range)).await;
                if through.is_some() {
                    assert_eq!(found.len() as u64, step, "`{name}` on {kind}, {range:?}");
                    assert_eq!(found.last(), through.as_ref(), "`{name}` on {kind}");
                }
                walked.extend(found);
                after = through;
                if after.is_none() {
                    break;
                }
                assert!(walked.len() <= count, "`{name}` on {kind} goes round in circles");
            }
            assert_eq!(walked, whole, "`{name}` on {kind} by {step}");
        }

        let found: BTreeSet<Key> = read::by_keys(&mut reading, &table, &whole).await.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(found, whole.iter().cloned().collect(), "`{name}` on {kind} by keys");

        // Both forms of a row tell the same.
        let all: Vec<usize> = (0..table.columns.len()).collect();
        let mut lines = Vec::new();
        let mut line_keys = Vec::new();
        let mut fields = read::stream_fields(&mut reading, &table, &all, &Scope::Table, Order::ByKey).await.unwrap();
        while let Some(key) = fields.next(&mut lines).await.unwrap() {
            line_keys.push(key);
        }
        assert_eq!(line_keys, whole);
        let mut expected = Vec::new();
        let mut rows = read::stream(&mut reading, &table, &all, &Scope::Table, Order::ByKey).await.unwrap();
        while let Some(row) = rows.next().await.unwrap() {
            for (index, cell) in row.iter().enumerate() {
                expected.extend_from_slice(if index > 0 { b"\t" } else { b"" });
                sql::push_field(&mut expected, cell, None);
            }
            expected.push(b'\n');
        }
        assert_eq!(lines, expected);

        // The condition is an index range; no server has one for SET.
        if *name == "flags" {
            continue;
        }
        let middle = KeyRange { after: whole.first().cloned(), through: whole.get(whole.len() - 2).cloned() };
        let condition = String::from_utf8(range::condition(&table, &table.key().unwrap(), &middle)).unwrap();
        let index = sql::identifier(&table.key_index().unwrap().name);
        let plan = reading
            .first(&format!("EXPLAIN SELECT v FROM {} FORCE INDEX ({index}) WHERE {condition}", sql::table(&table.name)), "explaining")
            .await
            .unwrap()
            .unwrap();
        assert!(
            plan.iter().flatten().any(|value| value == "range" || value.contains("Index range scan")),
            "`{name}` on {kind}: {condition}: {plan:?}"
        );
    }
}

#[tokio::test]
async fn every_key_type_on_55() {
    walk(ServerKind::Mysql55).await;
}

#[tokio::test]
async fn every_key_type_on_56() {
    walk(ServerKind::Mysql56).await;
}

#[tokio::test]
async fn every_key_type_on_97() {
    walk(ServerKind::Mysql97).await;
}

#[tokio::test]
async fn every_key_type_on_mariadb() {
    walk(ServerKind::MariaDb).await;
}

/// The old optimizer must read the chunk and not the table before it.
#[tokio::test]
async fn a_late_chunk_of_a_composite_key_reads_only_itself() {
    for kind in ServerKind::ALL {
        if skipped("a_late_chunk_of_a_composite_key_reads_only_itself", &[kind]) {
            continue;
        }
        let server = shared(kind).await;
        let mut conn = root(&server).await;
        conn.query_drop("CREATE DATABASE late; USE late; CREATE TABLE t (a INT NOT NULL, b VARCHAR(10) CHARACTER SET utf8 NOT NULL, c INT NOT NULL, v INT, PRIMARY KEY (a, b, c)) ENGINE=InnoDB")
            .await
            .unwrap();
        for a in 0..20 {
            let values: Vec<String> = (0..1000).map(|n| format!("({a},'s{:02}',{n},1)", n / 40)).collect();
            conn.query_drop(format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
        }
        let table = describe(&server, "late", "t").await;
        let mut reading = session(&server, Purpose::Read).await;
        let key = |a: &str, b: &str, c: &str| Key::of(&[a, b, c].map(|part| Cell::Bytes(part.as_bytes().to_vec())), &[0, 1, 2]);
        let handler = async |reading: &mut Session| -> u64 {
            let rows = reading.rows("SHOW SESSION STATUS LIKE 'Handler_read%'", "counting").await.unwrap();
            rows.iter()
                .filter(|row| row[0].as_deref() != Some("Handler_read_key"))
                .map(|row| row[1].as_ref().unwrap().parse::<u64>().unwrap())
                .sum()
        };
        reading.run("FLUSH STATUS", "counting").await.unwrap();
        let after = key("17", "s10", "405");
        let through = range::next_upper(&mut reading, &table, Some(&after), 500).await.unwrap().unwrap();
        let cost = handler(&mut reading).await;
        assert!(cost < 520, "{kind}: finding the end of a chunk of 500 rows read {cost}");
        reading.run("FLUSH STATUS", "counting").await.unwrap();
        let range = KeyRange { after: Some(after), through: Some(through) };
        let found = keys(&mut reading, &table, &Scope::Range(&range)).await;
        let cost = handler(&mut reading).await;
        assert_eq!(found.len(), 500);
        assert!(cost < 520, "{kind}: reading a chunk of 500 rows read {cost}");

        // By key, in more than one batch, with keys that are not there.
        let mut wanted = keys(&mut reading, &table, &Scope::Table).await;
        wanted.truncate(1200);
        wanted.push(key("99", "nobody", "1"));
        reading.run("FLUSH STATUS", "counting").await.unwrap();
        let start = std::time::Instant::now();
        let rows = read::by_keys(&mut reading, &table, &wanted).await.unwrap();
        eprintln!("{kind}: 1,201 composite keys in {:?}", start.elapsed());
        assert_eq!(rows.len(), 1200);
        assert!(rows.iter().all(|(key, row)| wanted.contains(key) && row.len() == 4 && row[3] == Cell::Bytes(b"1".to_vec())));
        let cost = handler(&mut reading).await;
        assert!(cost < 2500, "{kind}: 1,201 keys read {cost}");
    }
}

/// Old tables hold bytes that are not of their charset, keys included.
#[tokio::test]
async fn keys_with_broken_bytes_are_walked() {
    if skipped("keys_with_broken_bytes_are_walked", &[ServerKind::Mysql55]) {
        return;
    }
    let server = shared(ServerKind::Mysql55).await;
    let mut conn = root(&server).await;
    conn.query_drop(
        "SET sql_mode = ''; CREATE DATABASE broken; CREATE TABLE broken.t (k VARBINARY(20) NOT NULL, v INT, PRIMARY KEY (k)) ENGINE=InnoDB",
    )
    .await
    .unwrap();
    conn.query_drop("INSERT INTO broken.t VALUES ('apple', 1), (0x62ff61, 2), (0x63e9, 3), ('zebra', 4)").await.unwrap();
    let mut table = describe(&server, "broken", "t").await;
    let count = |keys: &Vec<Key>| keys.len();
    let mut reading = session(&server, Purpose::Read).await;
    assert_eq!(count(&keys(&mut reading, &table, &Scope::Table).await), 4);
    // The same bytes, called utf8: what a client that lied about its charset left behind.
    table.columns[0].kind = dbmove::mysql::table::ColumnType::VarChar;
    table.columns[0].charset = Some("utf8".to_owned());
    let mut walked = Vec::new();
    let mut after = None;
    loop {
        let through = range::next_upper(&mut reading, &table, after.as_ref(), 1).await.unwrap();
        walked.extend(keys(&mut reading, &table, &Scope::Range(&KeyRange { after, through: through.clone() })).await);
        after = through;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(walked.len(), 4);
}

#[tokio::test]
async fn a_broken_off_stream_leaves_the_session_usable() {
    if skipped("a_broken_off_stream_leaves_the_session_usable", &[ServerKind::Mysql55]) {
        return;
    }
    let server = shared(ServerKind::Mysql55).await;
    root(&server)
        .await
        .query_drop(
            "CREATE DATABASE off; CREATE TABLE off.t (id INT PRIMARY KEY, f DOUBLE); INSERT INTO off.t VALUES (1, 0.1), (2, 0.2), (3, 0.3)",
        )
        .await
        .unwrap();
    let table = describe(&server, "off", "t").await;
    let mut reading = session(&server, Purpose::Read).await;
    for columns in [&[0usize][..], &[0, 1]] {
        let mut rows = read::stream(&mut reading, &table, columns, &Scope::Table, Order::ByKey).await.unwrap();
        assert_eq!(rows.next().await.unwrap().unwrap()[0], Cell::Bytes(b"1".to_vec()));
        drop(rows);
        // No keys are no rows: least of all those of the stream before.
        assert_eq!(read::by_keys(&mut reading, &table, &[]).await.unwrap(), vec![]);
        let mut rows = read::stream(&mut reading, &table, columns, &Scope::Table, Order::ByKey).await.unwrap();
        assert_eq!(rows.next().await.unwrap().unwrap()[0], Cell::Bytes(b"1".to_vec()));
        drop(rows);
        assert_eq!(keys(&mut reading, &table, &Scope::Table).await.len(), 3);
    }
    let mut gone = table.clone();
    gone.name.table = "gone".into();
    let error = read::stream(&mut reading, &gone, &[0], &Scope::Table, Order::Any).await.err().unwrap();
    assert!(error.to_string().contains("reading `off.gone`") && error.code() == Some(1146), "{error}");
}
