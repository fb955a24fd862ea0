//! Equal data is equal: every column type, on every pair of servers, by every method both have.

use dbmove::local::ServerKind;
use dbmove::mysql::checksum::{Comparison, Function, Method, Side, listing, method, tally};
use dbmove::mysql::connect::Purpose;
use dbmove::mysql::range::KeyRange;
use dbmove::mysql::read::Scope;
use mysql_async::prelude::Queryable;

use crate::real::skipped;
use crate::servers::{copy, describe, root, rows, session, shared};

const TYPES: &str = include_str!("../../fixtures/mysql/types.sql");
const TABLES: [&str; 12] = ["ints", "reals", "times", "texts", "blobs", "sets", "geo", "keys2", "nokey", "wide", "parent", "child"];

async fn every_type(test: &str, from: ServerKind, to: ServerKind, server_methods: &[Function]) {
    if skipped(test, &[from, to]) {
        return;
    }
    let (source, target) = (shared(from).await, shared(to).await);
    let database = format!("types_{test}");
    let script = TYPES
        .replace("school", &database)
        .replace("GeomFromText", if from == ServerKind::Mysql97 { "ST_GeomFromText" } else { "GeomFromText" });
    root(&source).await.query_drop(script).await.unwrap();
    let (mut ours, mut theirs) = (session(&source, Purpose::Read).await, session(&target, Purpose::Read).await);

    let have = (method::functions(&mut ours).await.unwrap(), method::functions(&mut theirs).await.unwrap());
    assert_eq!(method::common(&have.0, &have.1), server_methods.first().copied());
    for (kind, have) in [(from, &have.0), (to, &have.1)] {
        let expected: &[Function] = if kind == ServerKind::Mysql97 { &[Function::Sha2] } else { &[Function::Sha2, Function::Md5] };
        assert_eq!(have, expected, "what {kind} can compute");
    }
    for function in server_methods {
        assert!(have.0.contains(function) && have.1.contains(function), "{function:?} of {have:?}");
    }

    for name in TABLES {
        let (a, b) = copy(&source, &target, &database, name).await;
        let comparison = Comparison::between(&a, &b).unwrap();
        assert!(comparison.left_out().is_empty(), "{:?}", comparison.left_out());
        let expected = rows(&mut ours, &a).await.len() as u64;
        assert!(expected > 0, "`{name}` is empty");
        let mut methods = vec![Method::Client];
        if !comparison.has_floats() {
            methods.extend(server_methods.iter().map(|function| Method::Server(*function)));
        }
        for method in methods {
            let one = tally(&mut ours, &comparison, Side::Source, method, &Scope::Table).await.unwrap();
            let two = tally(&mut theirs, &comparison, Side::Target, method, &Scope::Table).await.unwrap();
            assert_eq!(one, two, "`{name}` by {method}");
            assert_eq!(one.rows, expected, "`{name}` by {method}");
            if comparison.has_key() {
                let all = KeyRange::all();
                let scope = Scope::Range(&all);
                let one_by_one = listing(&mut ours, &comparison, Side::Source, method, &scope).await.unwrap();
                assert_eq!(one_by_one.tally(), one, "`{name}` by {method}: the listing adds up to the tally");
                assert_eq!(one_by_one, listing(&mut theirs, &comparison, Side::Target, method, &scope).await.unwrap());
                // Dirty keys are looked at by key.
                let keys: Vec<_> = one_by_one.rows.keys().cloned().collect();
                for (side, session) in [(Side::Source, &mut ours), (Side::Target, &mut theirs)] {
                    let scope = Scope::Keys(&keys[1..]);
                    let some = listing(session, &comparison, side, method, &scope).await.unwrap();
                    assert_eq!(some.rows.len(), keys.len() - 1, "`{name}` by {method}");
                    assert_eq!(some.differing(&one_by_one).into_iter().collect::<Vec<_>>(), &keys[..1]);
                    assert_eq!(tally(session, &comparison, side, method, &scope).await.unwrap(), some.tally());
                    let none = tally(session, &comparison, side, method, &Scope::Keys(&[])).await.unwrap();
                    assert_eq!(none.rows, 0, "no keys are no rows, and not all");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_type_from_55_to_97() {
    every_type("from_55_to_97", ServerKind::Mysql55, ServerKind::Mysql97, &[Function::Sha2]).await;
}

#[tokio::test]
async fn every_type_from_55_to_mariadb() {
    every_type("from_55_to_mariadb", ServerKind::Mysql55, ServerKind::MariaDb, &[Function::Sha2, Function::Md5]).await;
}

#[tokio::test]
async fn every_type_from_5614_to_97() {
    every_type("from_5614_to_97", ServerKind::Mysql5614, ServerKind::Mysql97, &[Function::Sha2]).await;
}

#[tokio::test]
async fn every_type_from_56_to_97() {
    every_type("from_56_to_97", ServerKind::Mysql56, ServerKind::Mysql97, &[Function::Sha2]).await;
}

#[tokio::test]
async fn a_hash_that_is_null_is_an_error() {
    if skipped("a_hash_that_is_null_is_an_error", &[ServerKind::Mysql55]) {
        return;
    }
    let server = shared(ServerKind::Mysql55).await;
    let mut conn = root(&server).await;
    conn.query_drop("CREATE DATABASE nullhash; CREATE TABLE nullhash.t (id INT PRIMARY KEY, v VARCHAR(4000)); INSERT INTO nullhash.t VALUES (1, 'x'), (2, REPEAT('y', 3000))")
        .await
        .unwrap();
    let table = describe(&server, "nullhash", "t").await;
    let comparison = Comparison::between(&table, &table).unwrap();
    let before: u64 = conn.query_first("SELECT @@global.max_allowed_packet").await.unwrap().unwrap();
    conn.query_drop("SET GLOBAL max_allowed_packet = 2048").await.unwrap();
    let mut small = session(&server, Purpose::Read).await;
    conn.query_drop(format!("SET GLOBAL max_allowed_packet = {before}")).await.unwrap();
    let method = Method::Server(Function::Sha2);
    for scope in [Scope::Table, Scope::Range(&KeyRange::all())] {
        let error = tally(&mut small, &comparison, Side::Source, method, &scope).await.unwrap_err();
        assert!(error.to_string().contains("`nullhash.t`: the server could not hash every row"), "{error}");
        if let Scope::Range(_) = scope {
            let error = listing(&mut small, &comparison, Side::Source, method, &scope).await.unwrap_err();
            assert!(error.to_string().contains("could not hash every row"), "{error}");
        }
    }
    // The session is still usable, and the other engine does not mind.
    assert_eq!(tally(&mut small, &comparison, Side::Source, Method::Client, &Scope::Table).await.unwrap().rows, 2);
}

#[tokio::test]
async fn differences_of_description_are_no_differences() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if skipped("differences_of_description_are_no_differences", &kinds) {
        return;
    }
    let (source, target) = (shared(kinds[0]).await, shared(kinds[1]).await);
    let (mut old, mut new) = (root(&source).await, root(&target).await);
    for conn in [&mut old, &mut new] {
        conn.query_drop("SET NAMES utf8, sql_mode = ''").await.unwrap();
        conn.query_drop("CREATE DATABASE described").await.unwrap();
    }
    old.query_drop(
        "CREATE TABLE described.t (id INT(4) ZEROFILL PRIMARY KEY, name VARCHAR(20) CHARACTER SET latin1, town VARCHAR(20) CHARACTER SET utf8, kind ENUM('a','b'), \
         at DATETIME, y YEAR(2), wide CHAR(5) CHARACTER SET ucs2, note TEXT CHARACTER SET latin1) ENGINE=MyISAM",
    )
    .await
    .unwrap();
    new.query_drop(
        "CREATE TABLE described.t (y YEAR, name VARCHAR(40) CHARACTER SET utf8mb4 NOT NULL, at DATETIME(6), id BIGINT UNSIGNED PRIMARY KEY, kind VARCHAR(5) CHARACTER SET utf8mb4, \
         town VARCHAR(20) CHARACTER SET utf8mb4, wide CHAR(5) CHARACTER SET utf8mb4, note LONGTEXT CHARACTER SET utf8mb4)",
    )
    .await
    .unwrap();
    let values = "(1, 'café', 'Zürich', 'b', '2011-01-02 03:04:05', 2011, 'Ω', 'naïve'), (2, '', NULL, NULL, NULL, 1999, '', NULL)";
    for conn in [&mut old, &mut new] {
        conn.query_drop(format!("INSERT INTO described.t (id, name, town, kind, at, y, wide, note) VALUES {values}")).await.unwrap();
    }
    let comparison = Comparison::between(&describe(&source, "described", "t").await, &describe(&target, "described", "t").await).unwrap();
    assert!(comparison.has_key() && comparison.left_out().is_empty());
    let (mut ours, mut theirs) = (session(&source, Purpose::Read).await, session(&target, Purpose::Read).await);
    for method in [Method::Client, Method::Server(Function::Sha2)] {
        let equal = |theirs: bool, ours: bool| assert_eq!(theirs, ours, "by {method}");
        let one = tally(&mut ours, &comparison, Side::Source, method, &Scope::Table).await.unwrap();
        equal(tally(&mut theirs, &comparison, Side::Target, method, &Scope::Table).await.unwrap() == one, true);
        // What a conversion to a poorer charset would have left must not pass.
        new.query_drop("UPDATE described.t SET name = 'caf?' WHERE id = 1").await.unwrap();
        equal(tally(&mut theirs, &comparison, Side::Target, method, &Scope::Table).await.unwrap() == one, false);
        new.query_drop("UPDATE described.t SET name = 'café' WHERE id = 1").await.unwrap();
        equal(tally(&mut theirs, &comparison, Side::Target, method, &Scope::Table).await.unwrap() == one, true);
    }
}

#[tokio::test]
async fn the_choice_names_its_reason() {
    let kinds = [ServerKind::Mysql55];
    if skipped("the_choice_names_its_reason", &kinds) {
        return;
    }
    let server = shared(kinds[0]).await;
    root(&server)
        .await
        .query_drop(
            "CREATE DATABASE choice; CREATE TABLE choice.f (id INT PRIMARY KEY, f FLOAT); CREATE TABLE choice.n (id INT PRIMARY KEY)",
        )
        .await
        .unwrap();
    let (floats, plain) = (describe(&server, "choice", "f").await, describe(&server, "choice", "n").await);
    let (floats, plain) = (Comparison::between(&floats, &floats).unwrap(), Comparison::between(&plain, &plain).unwrap());
    let mut open = session(&server, Purpose::Read).await;
    let near = method::round_trip(&mut open).await.unwrap();
    let far = std::time::Duration::from_millis(30);
    let md5 = Some(Function::Md5);
    assert_eq!(Method::choose(&plain, md5, far).method, Method::Server(Function::Md5));
    assert_eq!(Method::choose(&plain, md5, near).method, Method::Client);
    assert_eq!(Method::choose(&plain, None, far).method, Method::Client);
    assert_eq!(Method::choose(&floats, md5, far).method, Method::Client);
    assert!(Method::choose(&floats, md5, far).why.contains("FLOAT"));
    let refused = tally(&mut open, &floats, Side::Source, Method::Server(Function::Sha2), &Scope::Table).await.unwrap_err();
    assert!(refused.to_string().contains("FLOAT or DOUBLE"), "{refused}");
}

#[tokio::test]
async fn the_types_of_new_servers() {
    let kinds = [ServerKind::Mysql97];
    if skipped("the_types_of_new_servers", &kinds) {
        return;
    }
    let server = shared(kinds[0]).await;
    let mut conn = root(&server).await;
    for database in ["fresh_a", "fresh_b"] {
        conn.query_drop(format!("CREATE DATABASE {database}; CREATE TABLE {database}.t (id INT PRIMARY KEY, j JSON, at DATETIME(6), t TIME(3), n INT GENERATED ALWAYS AS (id * 2) VIRTUAL, p POINT SRID 4326)"))
            .await
            .unwrap();
        conn.query_drop(format!(
            "INSERT INTO {database}.t (id, j, at, t, p) VALUES (1, '{{\"k\": [1, 2.5, \"é\", null]}}', '2024-01-02 03:04:05.000006', '-01:02:03.004', ST_GeomFromText('POINT(1 2)', 4326)), (2, NULL, NULL, NULL, NULL), (3, 'null', '2024-01-02', '0', NULL)"
        ))
        .await
        .unwrap();
    }
    let comparison = Comparison::between(&describe(&server, "fresh_a", "t").await, &describe(&server, "fresh_b", "t").await).unwrap();
    let (mut ours, mut theirs) = (session(&server, Purpose::Read).await, session(&server, Purpose::Read).await);
    for method in [Method::Client, Method::Server(Function::Sha2)] {
        let one = tally(&mut ours, &comparison, Side::Source, method, &Scope::Table).await.unwrap();
        for (what, undo) in [
            ("SELECT 1", "SELECT 1"),
            (
                "UPDATE fresh_b.t SET j = JSON_SET(j, '$.k[3]', 0) WHERE id = 1",
                "UPDATE fresh_b.t SET j = JSON_SET(j, '$.k[3]', NULL) WHERE id = 1",
            ),
            ("UPDATE fresh_b.t SET j = NULL WHERE id = 3", "UPDATE fresh_b.t SET j = 'null' WHERE id = 3"),
            (
                "UPDATE fresh_b.t SET at = at + INTERVAL 1 MICROSECOND WHERE id = 1",
                "UPDATE fresh_b.t SET at = at - INTERVAL 1 MICROSECOND WHERE id = 1",
            ),
            (
                "UPDATE fresh_b.t SET p = ST_GeomFromText('POINT(2 1)', 4326) WHERE id = 1",
                "UPDATE fresh_b.t SET p = ST_GeomFromText('POINT(1 2)', 4326) WHERE id = 1",
            ),
        ] {
            conn.query_drop(what).await.unwrap();
            let two = tally(&mut theirs, &comparison, Side::Target, method, &Scope::Table).await.unwrap();
            assert_eq!(one == two, what == "SELECT 1", "{what} by {method}");
            conn.query_drop(undo).await.unwrap();
            assert_eq!(tally(&mut theirs, &comparison, Side::Target, method, &Scope::Table).await.unwrap(), one, "{undo} by {method}");
        }
    }
}
