//! Each kind of corruption is planted on the target, found, named with table, key, column and both values, and gone once the repair
//! that the difference suggests has been run.

use dbmove::local::{LocalServer, ServerKind};
use dbmove::mysql::checksum::compare::{fetch_difference, rows_by_keys};
use dbmove::mysql::checksum::keyless::{self, compare_in_passes};
use dbmove::mysql::checksum::{Comparison, Function, Method, Side, tally};
use dbmove::mysql::connect::{Purpose, Session};
use dbmove::mysql::range::KeyRange;
use dbmove::mysql::read::Scope;
use dbmove::verify::{ChangedColumn, Difference, DifferenceKind};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::real::skipped;
use crate::servers::{copy, root, session, shared};

const ROWS: u32 = 12_000;

fn changed(columns: &[(&str, &str, &str)]) -> DifferenceKind {
    let columns = columns
        .iter()
        .map(|(name, source, target)| ChangedColumn {
            name: (*name).to_owned(),
            source: (*source).to_owned(),
            target: (*target).to_owned(),
        })
        .collect();
    DifferenceKind::Changed { columns }
}

/// What is done to the target, and what has to be found: keys with what they are.
type Planted = (&'static str, &'static str, Vec<(&'static str, DifferenceKind)>);

/// Corruptions that both engines must find.
fn planted() -> Vec<Planted> {
    use DifferenceKind::{Extra, Missing};
    vec![
        ("row gone", "DELETE FROM t WHERE id = 7", vec![("id = 7", Missing)]),
        ("last row gone", "DELETE FROM t WHERE id = 12000", vec![("id = 12000", Missing)]),
        ("row added behind the end", "INSERT INTO t (id, name) VALUES (99999, 'new')", vec![("id = 99999", Extra)]),
        ("row added before the start", "INSERT INTO t (id, name) VALUES (-5, 'new')", vec![("id = -5", Extra)]),
        ("value", "UPDATE t SET amount = amount + 0.01 WHERE id = 11000", vec![("id = 11000", changed(&[("amount", "110.00", "110.01")]))]),
        ("NULL instead of ''", "UPDATE t SET note = NULL WHERE id = 10", vec![("id = 10", changed(&[("note", "''", "NULL")]))]),
        ("'' instead of NULL", "UPDATE t SET note = '' WHERE id = 11", vec![("id = 11", changed(&[("note", "NULL", "''")]))]),
        ("'NULL' instead of NULL", "UPDATE t SET note = 'NULL' WHERE id = 11", vec![("id = 11", changed(&[("note", "NULL", "'NULL'")]))]),
        (
            "'' instead of NULL in a short column",
            "UPDATE t SET city = '' WHERE id = 13",
            vec![("id = 13", changed(&[("city", "NULL", "''")]))],
        ),
        (
            "NULL instead of '' in a short column",
            "UPDATE t SET city = NULL WHERE id = 14",
            vec![("id = 14", changed(&[("city", "''", "NULL")]))],
        ),
        (
            "NULL moved to the next column",
            "UPDATE t SET city = '', town = NULL WHERE id = 15",
            vec![("id = 15", changed(&[("town", "''", "NULL"), ("city", "NULL", "''")]))],
        ),
        ("0 instead of NULL", "UPDATE t SET active = 0 WHERE id = 16", vec![("id = 16", changed(&[("active", "NULL", "0")]))]),
        ("case", "UPDATE t SET name = 'PUPIL 20' WHERE id = 20", vec![("id = 20", changed(&[("name", "'pupil 20'", "'PUPIL 20'")]))]),
        ("accent", "UPDATE t SET town = 'Zurich' WHERE id = 3", vec![("id = 3", changed(&[("town", "'Zürich'", "'Zurich'")]))]),
        (
            "trailing space",
            "UPDATE t SET name = 'pupil 21 ' WHERE id = 21",
            vec![("id = 21", changed(&[("name", "'pupil 21'", "'pupil 21 '")]))],
        ),
        (
            "content moved between columns",
            "UPDATE t SET name = 'a,b', town = 'c' WHERE id = 17",
            vec![("id = 17", changed(&[("name", "'a'", "'a,b'"), ("town", "'b,c'", "'c'")]))],
        ),
        (
            "one bit of a blob",
            "UPDATE t SET photo = INSERT(photo, 60001, 1, 0xAA) WHERE id = 5",
            vec![(
                "id = 5",
                changed(&[(
                    "photo",
                    &format!("0x{} (bytes 59976 to 60072 of 70000)", "ab".repeat(96)),
                    &format!("0x{}aa{} (bytes 59976 to 60072 of 70000)", "ab".repeat(24), "ab".repeat(71)),
                )]),
            )],
        ),
        (
            "mojibake",
            "UPDATE t SET town = CONVERT(CONVERT(town USING binary) USING latin1) WHERE id = 4",
            vec![("id = 4", changed(&[("town", "'Zürich'", "'ZÃ¼rich'")]))],
        ),
        ("question marks", "UPDATE t SET city = 'K?ln' WHERE id = 4", vec![("id = 4", changed(&[("city", "'Köln'", "'K?ln'")]))]),
        (
            "one day earlier",
            "UPDATE t SET born = born - INTERVAL 1 DAY WHERE id = 40",
            vec![("id = 40", changed(&[("born", "'2001-02-10'", "'2001-02-09'")]))],
        ),
        (
            "an hour of a time zone",
            "UPDATE t SET seen = seen + INTERVAL 1 HOUR WHERE id = 41",
            vec![("id = 41", changed(&[("seen", "'2011-11-06 01:30:41'", "'2011-11-06 02:30:41'")]))],
        ),
        ("another member of an ENUM", "UPDATE t SET kind = 3 WHERE id = 42", vec![("id = 42", changed(&[("kind", "1", "3")]))]),
        (
            "values swapped between rows",
            "UPDATE t SET name = IF(id = 50, 'pupil 51', 'pupil 50') WHERE id IN (50, 51)",
            vec![
                ("id = 50", changed(&[("name", "'pupil 50'", "'pupil 51'")])),
                ("id = 51", changed(&[("name", "'pupil 51'", "'pupil 50'")])),
            ],
        ),
        ("key moved", "UPDATE t SET id = 77777 WHERE id = 60", vec![("id = 60", Missing), ("id = 77777", Extra)]),
    ]
}

async fn fill(source: &LocalServer, database: &str) {
    let mut conn = root(source).await;
    conn.query_drop("SET NAMES utf8, sql_mode = '', time_zone = '+00:00'").await.unwrap();
    conn.query_drop(format!("CREATE DATABASE {database} DEFAULT CHARSET utf8; USE {database}")).await.unwrap();
    conn.query_drop(
        "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, name VARCHAR(40), town VARCHAR(40), city VARCHAR(40) CHARACTER SET latin1, note TEXT, amount DECIMAL(10,2), \
         born DATE, seen TIMESTAMP NULL, kind ENUM('a','b','c'), active TINYINT(1), photo MEDIUMBLOB) ENGINE=MyISAM",
    )
    .await
    .unwrap();
    for start in (1..=ROWS).step_by(1000) {
        let values: Vec<String> = (start..start + 1000)
            .map(|id| {
                let note = if id % 10 == 0 { "''" } else if id % 11 == 0 { "NULL" } else { "'well'" };
                let photo = if id == 5 { "REPEAT(0xAB, 70000)" } else { "0x00FF" };
                format!(
                    "({id}, 'pupil {id}', 'Zürich', 'Köln', {note}, {id} / 100, '2001-01-01' + INTERVAL {id} DAY, '2011-11-06 01:30:00' + INTERVAL {id} SECOND, 1, {}, {photo})",
                    id % 2
                )
            })
            .collect();
        conn.query_drop(format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
    }
    conn.query_drop("UPDATE t SET city = NULL WHERE id IN (13, 15); UPDATE t SET city = '' WHERE id = 14; UPDATE t SET town = '' WHERE id = 15; UPDATE t SET active = NULL WHERE id = 16; UPDATE t SET name = 'a', town = 'b,c' WHERE id = 17")
        .await
        .unwrap();
}

async fn differences(ours: &mut Session, theirs: &mut Session, comparison: &Comparison, method: Method) -> Vec<Difference> {
    let found = fetch_difference(ours, theirs, comparison, method, &KeyRange::all(), usize::MAX).await.unwrap();
    assert!(found.complete);
    let keys: Vec<_> = found.keys.into_iter().collect();
    rows_by_keys(ours, theirs, comparison, &keys).await.unwrap()
}

async fn find_all(test: &str, from: ServerKind, to: ServerKind, methods: &[Method]) {
    if skipped(test, &[from, to]) {
        return;
    }
    let (source, target) = (shared(from).await, shared(to).await);
    let database = format!("corrupt_{test}");
    fill(&source, &database).await;
    let (a, b) = copy(&source, &target, &database, "t").await;
    let comparison = Comparison::between(&a, &b).unwrap();
    let (mut ours, mut theirs) = (session(&source, Purpose::Read).await, session(&target, Purpose::Read).await);
    let mut hand = root(&target).await;
    hand.query_drop(format!("USE {database}")).await.unwrap();
    hand.query_drop("SET NAMES utf8, sql_mode = '', time_zone = '+00:00'").await.unwrap();

    for method in methods {
        assert_eq!(differences(&mut ours, &mut theirs, &comparison, *method).await, vec![], "equal at first by {method}");
        for (what, corruption, expected) in planted() {
            hand.query_drop(corruption).await.unwrap();
            let found = differences(&mut ours, &mut theirs, &comparison, *method).await;
            let mut named: Vec<(&str, DifferenceKind)> = found.iter().map(|found| (found.key.as_str(), found.kind.clone())).collect();
            named.sort_by_key(|(key, _)| key.trim_start_matches("id = ").parse::<i64>().unwrap());
            assert_eq!(named, expected, "{what} by {method}");
            assert!(found.iter().all(|found| found.table == format!("{database}.t")));
            repair(&mut hand, &found).await;
            assert_eq!(differences(&mut ours, &mut theirs, &comparison, *method).await, vec![], "{what} by {method}: repaired");
        }
        // The faults of a whole table that XOR of CRC32 can't see.
        let flag = "UPDATE t SET active = 1 - active WHERE id <> 16";
        for (what, corruption, undo, column) in [
            ("all dates shifted", "UPDATE t SET born = born + INTERVAL 10 DAY", "UPDATE t SET born = born - INTERVAL 10 DAY", "born"),
            ("all flags flipped", flag, flag, "active"),
            (
                "a character replaced everywhere",
                "UPDATE t SET name = REPLACE(name, 'u', 'v')",
                "UPDATE t SET name = REPLACE(name, 'v', 'u')",
                "name",
            ),
        ] {
            hand.query_drop(corruption).await.unwrap();
            let found = differences(&mut ours, &mut theirs, &comparison, *method).await;
            let untouched = usize::from(column != "born");
            assert_eq!(found.len(), ROWS as usize - untouched, "{what} by {method}");
            for found in &found {
                let DifferenceKind::Changed { columns } = &found.kind else { panic!("{what}: {found:?}") };
                assert!(columns.len() == 1 && columns[0].name == column, "{what}: {found:?}");
            }
            let some = fetch_difference(&mut ours, &mut theirs, &comparison, *method, &KeyRange::all(), 10).await.unwrap();
            assert!(!some.complete && some.keys.len() >= 10 && some.keys.len() < ROWS as usize);
            hand.query_drop(undo).await.unwrap();
        }
        assert_eq!(differences(&mut ours, &mut theirs, &comparison, *method).await, vec![], "equal at last by {method}");
    }
}

async fn repair(hand: &mut Conn, differences: &[Difference]) {
    for difference in differences {
        let Some(sql) = &difference.repair_sql else {
            // Too long to be shown: put right by hand.
            assert!(difference.key == "id = 5", "{difference:?} has no repair");
            hand.query_drop("UPDATE t SET photo = REPEAT(0xAB, 70000) WHERE id = 5").await.unwrap();
            continue;
        };
        hand.query_drop(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let warnings: Vec<mysql_async::Row> = hand.query("SHOW WARNINGS").await.unwrap();
        let serious: Vec<_> = warnings.iter().filter(|row| !matches!(row.get::<u16, _>(1), Some(1287 | 3719))).collect(); // `utf8` and `utf8mb3` are old names
        assert!(serious.is_empty(), "{sql}: {serious:?}");
    }
}

#[tokio::test]
async fn corruptions_from_55_to_97() {
    find_all("from_55_to_97", ServerKind::Mysql55, ServerKind::Mysql97, &[Method::Client, Method::Server(Function::Sha2)]).await;
}

#[tokio::test]
async fn corruptions_from_55_to_mariadb() {
    find_all("from_55_to_mariadb", ServerKind::Mysql55, ServerKind::MariaDb, &[Method::Client, Method::Server(Function::Md5)]).await;
}

#[tokio::test]
async fn a_float_that_is_off_by_one_ulp() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if skipped("a_float_that_is_off_by_one_ulp", &kinds) {
        return;
    }
    let (source, target) = (shared(kinds[0]).await, shared(kinds[1]).await);
    root(&source)
        .await
        .query_drop("CREATE DATABASE ulp; CREATE TABLE ulp.t (id INT PRIMARY KEY, d DOUBLE, f FLOAT); INSERT INTO ulp.t VALUES (1, 0.1, 0.1), (2, -0.0, 0), (3, 1e300, 16777216), (4, NULL, NULL)")
        .await
        .unwrap();
    let (a, b) = copy(&source, &target, "ulp", "t").await;
    let comparison = Comparison::between(&a, &b).unwrap();
    let (mut ours, mut theirs) = (session(&source, Purpose::Read).await, session(&target, Purpose::Read).await);
    let mut hand = root(&target).await;
    // −0 and 0 are one value.
    hand.query_drop("UPDATE ulp.t SET d = 0 WHERE id = 2").await.unwrap();
    assert_eq!(differences(&mut ours, &mut theirs, &comparison, Method::Client).await, vec![]);
    // Both print as 0.1 with the digits the server shows of a FLOAT.
    hand.query_drop("UPDATE ulp.t SET d = 0.10000000000000002, f = 0.10000001 WHERE id = 1").await.unwrap();
    let found = differences(&mut ours, &mut theirs, &comparison, Method::Client).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, "id = 1");
    assert_eq!(found[0].kind, changed(&[("d", "0.1", "0.10000000000000002"), ("f", "0.1", "0.10000001")]));
    repair(&mut hand, &found).await;
    assert_eq!(differences(&mut ours, &mut theirs, &comparison, Method::Client).await, vec![]);
}

#[tokio::test]
async fn a_key_in_another_spelling_is_one_changed_row() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if skipped("a_key_in_another_spelling_is_one_changed_row", &kinds) {
        return;
    }
    let (source, target) = (shared(kinds[0]).await, shared(kinds[1]).await);
    let mut old = root(&source).await;
    old.query_drop("SET NAMES utf8").await.unwrap();
    old.query_drop(
        "CREATE DATABASE spelling; CREATE TABLE spelling.t (class INT, student VARCHAR(20) CHARACTER SET utf8, grade INT, PRIMARY KEY (class, student)); \
         INSERT INTO spelling.t VALUES (1, 'ann', 1), (1, 'Bob', 2), (2, 'émile', 3), (2, 'zoe', 4)",
    )
    .await
    .unwrap();
    let (a, b) = copy(&source, &target, "spelling", "t").await;
    let comparison = Comparison::between(&a, &b).unwrap();
    let (mut ours, mut theirs) = (session(&source, Purpose::Read).await, session(&target, Purpose::Read).await);
    let mut hand = root(&target).await;
    hand.query_drop("SET NAMES utf8").await.unwrap();
    hand.query_drop("UPDATE spelling.t SET student = 'BOB' WHERE student = 'Bob'; UPDATE spelling.t SET student = 'Emile' WHERE grade = 3; DELETE FROM spelling.t WHERE grade = 4; INSERT INTO spelling.t VALUES (3, 'zoe', 4)")
        .await
        .unwrap();
    for method in [Method::Client, Method::Server(Function::Sha2)] {
        let mut found = differences(&mut ours, &mut theirs, &comparison, method).await;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        let named: Vec<(&str, DifferenceKind)> = found.iter().map(|found| (found.key.as_str(), found.kind.clone())).collect();
        assert_eq!(
            named,
            vec![
                ("class = 1, student = 'Bob'", changed(&[("student", "'Bob'", "'BOB'")])),
                ("class = 2, student = 'zoe'", DifferenceKind::Missing),
                ("class = 2, student = 'émile'", changed(&[("student", "'émile'", "'Emile'")])),
                ("class = 3, student = 'zoe'", DifferenceKind::Extra),
            ]
        );
        if method == Method::Client {
            continue;
        }
        repair(&mut hand, &found).await;
        assert_eq!(differences(&mut ours, &mut theirs, &comparison, method).await, vec![]);
    }
}

#[tokio::test]
async fn another_collation_of_the_key_is_no_difference() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if skipped("another_collation_of_the_key_is_no_difference", &kinds) {
        return;
    }
    let (source, target) = (shared(kinds[0]).await, shared(kinds[1]).await);
    let mut old = root(&source).await;
    let mut new = root(&target).await;
    for (conn, collation) in
        [(&mut old, "CHARACTER SET utf8 COLLATE utf8_bin"), (&mut new, "CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_as_cs")]
    {
        conn.query_drop("SET NAMES utf8").await.unwrap();
        conn.query_drop(format!("CREATE DATABASE sorted; CREATE TABLE sorted.t (k VARCHAR(20) {collation}, v INT, PRIMARY KEY (k))"))
            .await
            .unwrap();
        conn.query_drop("INSERT INTO sorted.t VALUES ('a', 1), ('B', 2), ('é', 3), ('z', 4), ('Z', 5)").await.unwrap();
    }
    let comparison = Comparison::between(
        &crate::servers::describe(&source, "sorted", "t").await,
        &crate::servers::describe(&target, "sorted", "t").await,
    )
    .unwrap();
    let (mut ours, mut theirs) = (session(&source, Purpose::Read).await, session(&target, Purpose::Read).await);
    assert_eq!(differences(&mut ours, &mut theirs, &comparison, Method::Client).await, vec![]);
    new.query_drop("UPDATE sorted.t SET v = 30 WHERE k = 'é'").await.unwrap();
    let found = differences(&mut ours, &mut theirs, &comparison, Method::Client).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].key.as_str(), &found[0].kind), ("k = 'é'", &changed(&[("v", "3", "30")])));
}

#[tokio::test]
async fn a_table_without_key_is_a_multiset() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if skipped("a_table_without_key_is_a_multiset", &kinds) {
        return;
    }
    let (source, target) = (shared(kinds[0]).await, shared(kinds[1]).await);
    let mut old = root(&source).await;
    old.query_drop("SET NAMES utf8").await.unwrap();
    old.query_drop(
        "CREATE DATABASE multiset; CREATE TABLE multiset.log (at DATETIME, what VARCHAR(50) CHARACTER SET utf8, n INT) ENGINE=MyISAM",
    )
    .await
    .unwrap();
    let values: Vec<String> =
        (0..3000).map(|n| format!("('2011-09-06 08:00:00' + INTERVAL {} SECOND, 'entry é {}', NULL)", n / 3, n / 3)).collect();
    old.query_drop(format!("INSERT INTO multiset.log VALUES {}", values.join(","))).await.unwrap();
    let (a, b) = copy(&source, &target, "multiset", "log").await;
    let comparison = Comparison::between(&a, &b).unwrap();
    assert!(!comparison.has_key());
    let (mut ours, mut theirs) = (session(&source, Purpose::Read).await, session(&target, Purpose::Read).await);
    let mut hand = root(&target).await;
    hand.query_drop("USE multiset").await.unwrap();
    hand.query_drop("SET NAMES utf8").await.unwrap();
    let row = |n: u32| format!("at = '2011-09-06 08:00:{n:02}', what = 'entry é {n}', n = NULL");
    let methods = [Method::Client, Method::Server(Function::Sha2)];
    for (what, corruption, expected) in [
        ("nothing", "DO 0", vec![]),
        (
            "a row once more",
            "INSERT INTO log SELECT * FROM log WHERE what = 'entry é 7' LIMIT 1",
            vec![(row(7), DifferenceKind::DuplicateCount { source: 3, target: 4 })],
        ),
        (
            "a pair of rows for another pair",
            "DELETE FROM log WHERE what = 'entry é 8' LIMIT 2; INSERT INTO log SELECT * FROM log WHERE what = 'entry é 9' LIMIT 2",
            vec![
                (row(8), DifferenceKind::DuplicateCount { source: 3, target: 1 }),
                (row(9), DifferenceKind::DuplicateCount { source: 3, target: 5 }),
            ],
        ),
        (
            "a value",
            "UPDATE log SET n = 0 WHERE what = 'entry é 11' LIMIT 1",
            vec![
                ("at = '2011-09-06 08:00:11', what = 'entry é 11', n = 0".to_owned(), DifferenceKind::Extra),
                (row(11), DifferenceKind::DuplicateCount { source: 3, target: 2 }),
            ],
        ),
    ] {
        for (round, method) in methods.into_iter().enumerate() {
            // A hand-written second statement would leave its result unread.
            for statement in corruption.split("; ").filter(|_| round == 0) {
                hand.query_drop(statement).await.unwrap();
            }
            // Many passes must find what one pass finds.
            for rows_per_pass in [keyless::HASHES_PER_PASS, 300] {
                let compared = compare_in_passes(&mut ours, &mut theirs, &comparison, method, 100, rows_per_pass).await.unwrap();
                let mut found: Vec<(String, DifferenceKind)> =
                    compared.differences.iter().map(|found| (found.key.clone(), found.kind.clone())).collect();
                found.sort_by(|a, b| a.0.cmp(&b.0));
                assert_eq!(found, expected, "{what} by {method}");
                assert_eq!((compared.equal(), compared.complete), (expected.is_empty(), true));
            }
        }
        if !expected.is_empty() {
            let one = compare_in_passes(&mut ours, &mut theirs, &comparison, Method::Client, 0, 300).await.unwrap();
            assert!(one.differences.is_empty() && !one.complete && !one.equal());
        }
        let compared = keyless::compare(&mut ours, &mut theirs, &comparison, Method::Client, 100).await.unwrap();
        repair(&mut hand, &compared.differences).await;
        let left = tally(&mut theirs, &comparison, Side::Target, Method::Client, &Scope::Table).await.unwrap();
        assert_eq!(left, tally(&mut ours, &comparison, Side::Source, Method::Client, &Scope::Table).await.unwrap(), "{what}: repaired");
    }
}
