//! The school, its users, their ledger and the inspector, on real servers: what all other end-to-end tests judge
//! by must itself be judged first. The ledger must be clean after users wrote and stopped, must see each promise
//! that is broken by hand, and the inspector must find each kind of difference and nothing else.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod real;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dbmove::demo::Endpoint;
use dbmove::demo::activity::Action;
use dbmove::demo::compare::{Comparison, DifferenceKind, Side, compare};
use dbmove::demo::ledger::{Ledger, LedgerReading, Outcome, check};
use dbmove::demo::school::TABLES;
use dbmove::demo::seed::{SchoolSize, seed};
use dbmove::demo::writers::{WriterCounts, WriterOptions, Writers};
use dbmove::local::{Account, DEFAULT_PASSWORD, LocalServer, ServerKind, ServerOptions};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use real::{connect, skipped};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

fn endpoint(server: &LocalServer, account: Account) -> Endpoint {
    let password = if account == Account::Root { "" } else { DEFAULT_PASSWORD };
    Endpoint::new(server.host(), server.port(), account.user(), password)
}

fn side(server: &LocalServer, database: &str) -> Side {
    Side { endpoint: endpoint(server, Account::Root), database: database.to_owned() }
}

fn write_route(route: &Path, server: &LocalServer) {
    let next = route.with_extension("next");
    std::fs::write(&next, format!("{}:{}\n", server.host(), server.port())).unwrap();
    std::fs::rename(next, route).unwrap();
}

fn options(route: &Path, size: &SchoolSize) -> WriterOptions {
    WriterOptions::new(route, Account::App.user(), DEFAULT_PASSWORD.into(), "school", size.clone())
}

/// A server with a seeded school of `factor` times the usual size.
async fn school(kind: ServerKind, directory: &Path, factor: f64) -> (LocalServer, Conn, SchoolSize) {
    let server = LocalServer::start(kind, directory, &ServerOptions::default().buffer_pool(256 << 20)).await.unwrap();
    let mut conn = endpoint(&server, Account::Root).connect_as_site().await.unwrap();
    let size = SchoolSize::scaled(factor);
    let seeded = seed(&mut conn, "school", &size, 7).await.unwrap();
    assert_eq!(seeded, size);
    (server, conn, size)
}

/// A copy of the school in another database of the same server, made by the server itself.
async fn duplicate(conn: &mut Conn, database: &str) {
    conn.query_drop(format!("CREATE DATABASE {database}")).await.unwrap();
    conn.query_drop("SET foreign_key_checks = 0, sql_mode = 'NO_AUTO_VALUE_ON_ZERO'").await.unwrap();
    for table in TABLES {
        let name = table.name;
        conn.query_drop(format!("CREATE TABLE {database}.{name} LIKE school.{name}")).await.unwrap();
        conn.query_drop(format!("INSERT INTO {database}.{name} SELECT * FROM school.{name}")).await.unwrap();
    }
}

/// Setbacks that users bring upon themselves; anything else in a quiet run is a bug.
fn only_expected(counts: &WriterCounts, expected: &[&str]) {
    let unexpected: Vec<_> = counts.setbacks.iter().filter(|(cause, _)| !expected.contains(&cause.as_str())).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

const QUIET: [&str; 4] = ["1062", "1452", "1205", "1213"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_usual_school_is_seeded_in_seconds_and_holds_its_traps() {
    if skipped("the_usual_school_is_seeded_in_seconds_and_holds_its_traps", &[ServerKind::Mysql55]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = LocalServer::start(ServerKind::Mysql55, directory.path(), &ServerOptions::default()).await.unwrap();
    let mut conn = endpoint(&server, Account::Root).connect_as_site().await.unwrap();
    let began = Instant::now();
    let size = seed(&mut conn, "school", &SchoolSize::default(), 7).await.unwrap();
    eprintln!("{} rows in {:?}", size.total(), began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    for (table, rows) in size.by_table() {
        let found: u64 = conn.query_first(format!("SELECT COUNT(*) FROM {table}")).await.unwrap().unwrap();
        assert_eq!(found, rows, "{table}");
    }
    for trap in [
        "students WHERE joined_at = '0000-00-00 00:00:00'",
        "students WHERE nickname = ''",
        "students WHERE nickname IS NULL",
        "students WHERE HEX(name) LIKE '%E9%'",
        "students WHERE HEX(name) LIKE '%80%'",
        "students WHERE HEX(bio) LIKE '%E697A5E69CAC%'",
        "students WHERE bio LIKE '%\\t%\\n%'",
        "students WHERE HEX(bio) LIKE '%00%'",
        "courses WHERE CAST(score AS CHAR) = '-0'",
        "courses WHERE score > 1.797e308",
        "courses WHERE since = 0",
        "courses WHERE level = 4 AND flags = 0",
        "courses WHERE days > 64 AND mask > 9223372036854775808",
        "enrolments WHERE ended_on = '2011-00-00'",
        "submissions WHERE LENGTH(attachment) > 30000",
        "submissions WHERE handed_in = 0",
        "devices WHERE serial = 18446744073709551615",
    ] {
        let found: u64 = conn.query_first(format!("SELECT COUNT(*) FROM {trap}")).await.unwrap().unwrap();
        assert!(found > 0, "none: {trap}");
    }
    let doubles: Option<u64> =
        conn.query_first("SELECT COUNT(*) c FROM audit_log GROUP BY actor, action, detail, cost, at HAVING c > 1 LIMIT 1").await.unwrap();
    assert!(doubles.is_some(), "the keyless table has no equal rows");
    let (began, school) = (Instant::now(), side(&server, "school"));
    let found = compare(&school, &school, 1).await.unwrap();
    assert!(found.is_equal() && found.rows_compared == size.total(), "{found:?}");
    eprintln!("compared with itself in {:?}", began.elapsed());
}

/// Users write, stop; the ledger holds; each broken promise is then seen.
async fn users_write_and_the_ledger_holds(kind: ServerKind) {
    let directory = tempfile::tempdir().unwrap();
    let (server, mut conn, size) = school(kind, &directory.path().join("server"), 0.02).await;
    let (route, book) = (directory.path().join("route"), directory.path().join("ledger"));
    write_route(&route, &server);
    let ledger = Arc::new(Ledger::open(&book, &mut conn, "school").await.unwrap());
    let mut busy = options(&route, &size);
    busy.changes_per_second = 200.0;
    let began = Instant::now();
    let writers = Writers::start(busy, ledger).await.unwrap();
    let everything_happened = |counts: &WriterCounts| counts.changes.len() == Action::ALL.len();
    while began.elapsed() < Duration::from_secs(6) || (!everything_happened(&writers.counts()) && began.elapsed() < Duration::from_secs(40))
    {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let took = began.elapsed().as_secs_f64();
    let counts = writers.stop().await.unwrap();
    eprintln!("{kind}: {:.0} transfers/s, {counts:?}", counts.transfers_acknowledged as f64 / took);
    let missing: Vec<_> = Action::ALL.iter().filter(|action| !counts.changes.contains_key(action.name())).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}; {:?}", counts.setbacks);
    only_expected(&counts, &QUIET);
    assert!(counts.transfers_acknowledged as f64 / took > 50.0, "{counts:?}");

    let verdict = check(&book, &mut conn, "school").await.unwrap();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(verdict.acknowledged, counts.transfers_acknowledged);
    assert_eq!((verdict.in_doubt_present, verdict.in_doubt_absent, counts.transfers_in_doubt()), (0, 0, 0));
    assert_eq!(verdict.sum_before, i128::from(size.accounts) * 10_000);

    let live = "reference NOT LIKE '00000000-%'";
    conn.query_drop(format!("DELETE FROM transfers WHERE {live} ORDER BY id LIMIT 1")).await.unwrap();
    conn.query_drop(format!("INSERT INTO transfers (reference, from_account, to_account, amount, created_at) SELECT reference, from_account, to_account, amount, created_at FROM transfers WHERE {live} ORDER BY id DESC LIMIT 1")).await.unwrap();
    conn.query_drop("INSERT INTO transfers (reference, from_account, to_account, amount) VALUES ('nobody-asked-for-this', 1, 2, 3)")
        .await
        .unwrap();
    conn.query_drop("UPDATE accounts SET balance = balance + 1 WHERE id = 5").await.unwrap();
    let verdict = check(&book, &mut conn, "school").await.unwrap();
    assert_eq!((verdict.lost, verdict.doubled, verdict.foreign), (1, 1, 1), "{verdict:?}");
    assert!(verdict.wrong_balances >= 3 && verdict.sum_after == verdict.sum_before + 1, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_write_and_the_ledger_holds_on_mysql_5_5() {
    if !skipped("users_write_and_the_ledger_holds_on_mysql_5_5", &[ServerKind::Mysql55]) {
        users_write_and_the_ledger_holds(ServerKind::Mysql55).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_write_and_the_ledger_holds_on_mysql_5_6() {
    if !skipped("users_write_and_the_ledger_holds_on_mysql_5_6", &[ServerKind::Mysql56]) {
        users_write_and_the_ledger_holds(ServerKind::Mysql56).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_write_and_the_ledger_holds_on_mariadb() {
    if !skipped("users_write_and_the_ledger_holds_on_mariadb", &[ServerKind::MariaDb]) {
        users_write_and_the_ledger_holds(ServerKind::MariaDb).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_write_and_the_ledger_holds_on_mysql_9_7() {
    if !skipped("users_write_and_the_ledger_holds_on_mysql_9_7", &[ServerKind::Mysql97]) {
        users_write_and_the_ledger_holds(ServerKind::Mysql97).await;
    }
}

/// Read-only, killed sessions, a killed server and a crash of the users themselves: they come back, and every
/// promise is accounted for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_live_through_a_fence_killed_sessions_and_a_killed_server() {
    if skipped("users_live_through_a_fence_killed_sessions_and_a_killed_server", &[ServerKind::Mysql55]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut server, mut conn, size) = school(ServerKind::Mysql55, &directory.path().join("server"), 0.02).await;
    let (route, book) = (directory.path().join("route"), directory.path().join("ledger"));
    write_route(&route, &server);
    let ledger = Arc::new(Ledger::open(&book, &mut conn, "school").await.unwrap());
    let writers = Writers::start(options(&route, &size), Arc::clone(&ledger)).await.unwrap();
    let seconds = |seconds| tokio::time::sleep(Duration::from_secs_f64(seconds));
    seconds(1.5).await;

    conn.query_drop("SET GLOBAL read_only = 1").await.unwrap();
    seconds(0.5).await;
    let held = writers.counts().transfers_acknowledged;
    seconds(1.0).await;
    assert_eq!(writers.counts().transfers_acknowledged, held, "acknowledged while read-only");
    conn.query_drop("SET GLOBAL read_only = 0").await.unwrap();
    seconds(1.0).await;
    assert!(writers.counts().transfers_acknowledged > held);

    for _ in 0..5 {
        let sessions: Vec<u64> = conn.query("SELECT id FROM information_schema.processlist WHERE user = 'app'").await.unwrap();
        for session in sessions {
            // It may have gone by itself meanwhile.
            let _ = conn.query_drop(format!("KILL {session}")).await;
        }
        seconds(0.2).await;
    }
    server.kill().await.unwrap();
    seconds(0.5).await;
    server.restart().await.unwrap();
    let before = writers.counts().transfers_acknowledged;
    seconds(1.5).await;
    let counts = writers.counts();
    assert!(counts.transfers_acknowledged > before, "{counts:?}");
    for cause in ["1290", "connection"] {
        assert!(counts.setbacks.contains_key(cause), "{cause} was not met: {:?}", counts.setbacks);
    }
    drop(writers);
    drop(ledger);

    // A second life of the same users goes on in the same book.
    let ledger = Arc::new(Ledger::reopen(&book).unwrap());
    let writers = Writers::start(options(&route, &size), ledger).await.unwrap();
    seconds(1.0).await;
    let counts = writers.stop().await.unwrap();
    assert!(counts.transfers_acknowledged > 0);

    let mut conn = connect(&server, Account::Root).await;
    let verdict = check(&book, &mut conn, "school").await.unwrap();
    eprintln!("{verdict:?}");
    assert!(verdict.is_clean(), "{verdict:?}");
    let reading = LedgerReading::read(&book).unwrap();
    assert_eq!(verdict.in_doubt_present + verdict.in_doubt_absent, reading.count(Outcome::InDoubt));
}

/// Passes bytes between users and the server, and now and then loses the answer to a COMMIT, or the COMMIT itself.
async fn lossy(listener: TcpListener, to: (String, u16)) {
    let commits = Arc::new(AtomicU64::new(0));
    let mut lines = JoinSet::new();
    loop {
        let (mut user, _) = listener.accept().await.unwrap();
        let (to, commits) = (to.clone(), Arc::clone(&commits));
        lines.spawn(async move {
            let mut server = TcpStream::connect(to).await.unwrap();
            let (mut question, mut answer) = (vec![0; 65536], vec![0; 65536]);
            loop {
                tokio::select! {
                    asked = user.read(&mut question) => {
                        let Ok(length @ 1..) = asked else { return };
                        let number = if question[..length].ends_with(b"COMMIT") { commits.fetch_add(1, Ordering::SeqCst) } else { 0 };
                        if number % 40 == 20 {
                            return; // The COMMIT never arrives.
                        }
                        if server.write_all(&question[..length]).await.is_err() {
                            return;
                        }
                        if number % 40 == 39 {
                            let _ = server.read(&mut answer).await;
                            return; // It does, and its answer never comes back.
                        }
                    }
                    said = server.read(&mut answer) => {
                        let Ok(length @ 1..) = said else { return };
                        if user.write_all(&answer[..length]).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_in_doubt_and_nothing_else() {
    if skipped("a_commit_whose_answer_is_lost_is_in_doubt_and_nothing_else", &[ServerKind::Mysql55]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (server, mut conn, size) = school(ServerKind::Mysql55, &directory.path().join("server"), 0.01).await;
    let (route, book) = (directory.path().join("route"), directory.path().join("ledger"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    std::fs::write(&route, format!("{}\n", listener.local_addr().unwrap())).unwrap();
    let mut line = JoinSet::new();
    line.spawn(lossy(listener, (server.host().to_owned(), server.port())));

    let ledger = Arc::new(Ledger::open(&book, &mut conn, "school").await.unwrap());
    let mut only_bank = options(&route, &size);
    only_bank.school_writers = 0;
    let writers = Writers::start(only_bank, ledger).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let counts = writers.stop().await.unwrap();
    let verdict = check(&book, &mut conn, "school").await.unwrap();
    eprintln!("{verdict:?} {:?}", counts.setbacks);
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(verdict.acknowledged, counts.transfers_acknowledged);
    assert!(verdict.in_doubt_present > 0 && verdict.in_doubt_absent > 0, "{verdict:?}");
    assert_eq!(verdict.in_doubt_present + verdict.in_doubt_absent, counts.transfers_in_doubt());
    only_expected(&counts, &["connection", "1205", "1213"]);
}

/// The only difference found, or a panic with all of them.
fn only(comparison: &Comparison) -> (&str, &str, &DifferenceKind) {
    match comparison.differences.as_slice() {
        [one] if comparison.difference_count == 1 => (&one.table, &one.key, &one.kind),
        others => panic!("{} differences: {others:#?}", comparison.difference_count),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inspector_finds_each_planted_difference_and_nothing_else() {
    if skipped("the_inspector_finds_each_planted_difference_and_nothing_else", &[ServerKind::Mysql55]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (server, mut conn, size) = school(ServerKind::Mysql55, directory.path(), 0.01).await;
    duplicate(&mut conn, "copy").await;
    let (left, right) = (side(&server, "school"), side(&server, "copy"));
    let clean = compare(&left, &right, 10).await.unwrap();
    assert!(clean.is_equal(), "{clean:#?}");
    assert_eq!((clean.rows_compared, clean.tables.len()), (size.total(), TABLES.len()));

    // What is changed in the copy, and in which column it must be found. Each is put back by copying the row again.
    let values = [
        ("students", "id = 3", "name = CONCAT(name, ' ')", "name"),
        ("students", "id = 4", "name = UPPER(CONCAT(name, 'x'))", "name"),
        ("students", "id = 5", "email = UPPER(email)", "email"),
        ("students", "nickname = '' LIMIT 1", "nickname = NULL", "nickname"),
        ("students", "nickname IS NULL LIMIT 1", "nickname = ''", "nickname"),
        ("students", "nickname IS NULL LIMIT 1", "nickname = 'NULL'", "nickname"),
        ("students", "seen_at IS NOT NULL LIMIT 1", "seen_at = seen_at + INTERVAL 1 HOUR", "seen_at"),
        ("students", "joined_at = 0 LIMIT 1", "joined_at = '1970-01-01 00:00:00'", "joined_at"),
        ("students", "bio LIKE '%\\r\\n%' LIMIT 1", "bio = REPLACE(bio, '\\r\\n', '\\n')", "bio"),
        ("courses", "score > 1 AND score < 1e9 LIMIT 1", "score = score * (1 + 3e-16)", "score"),
        ("courses", "rating > 0.09 AND rating < 0.11 LIMIT 1", "rating = 0.10000001", "rating"),
        ("courses", "price > 0 LIMIT 1", "price = price + 0.0001", "price"),
        ("courses", "level = 'beginner' LIMIT 1", "level = 'middle'", "level"),
        ("courses", "level = 4 LIMIT 1", "level = 0", "level"),
        ("courses", "flags = '' LIMIT 1", "flags = 'hidden'", "flags"),
        ("courses", "since = 0 LIMIT 1", "since = 2000", "since"),
        ("courses", "id = 2", "days = days ^ 1", "days"),
        ("courses", "mask > 9223372036854775808 LIMIT 1", "mask = mask ^ 1", "mask"),
        ("enrolments", "ended_on = '2011-00-00' LIMIT 1", "ended_on = '2011-01-01'", "ended_on"),
        (
            "submissions",
            "LENGTH(attachment) > 100 LIMIT 1",
            "attachment = CONCAT(LEFT(attachment, LENGTH(attachment) - 1), '\\0\\0')",
            "attachment",
        ),
        ("submissions", "digest IS NOT NULL LIMIT 1", "digest = REVERSE(CONCAT(LEFT(digest, 7), '\\0'))", "digest"),
        ("grades", "id = 7", "weight = weight + 0.000000000000001", "weight"),
        ("page_hits", "id = 9", "hits = hits ^ 1", "hits"),
        ("settings", "1 ORDER BY name LIMIT 1", "value = CONCAT(IFNULL(value, ''), '!')", "value"),
        ("devices", "serial = 18446744073709551615", "label = 'other'", "label"),
    ];
    for (table, which, change, column) in values {
        conn.query_drop(format!("UPDATE copy.{table} SET {change} WHERE {which}")).await.unwrap();
        assert_eq!(conn.affected_rows(), 1, "{table} {which} {change}");
        let found = compare(&left, &right, 10).await.unwrap();
        match only(&found) {
            (in_table, key, DifferenceKind::Value { column: in_column, left, right }) => {
                assert_eq!((in_table, in_column.as_str()), (table, column));
                assert!(!key.is_empty() && left != right, "{found:?}");
            }
            other => panic!("{table} {change}: {other:?}"),
        }
        conn.query_drop(format!("DELETE FROM copy.{table}")).await.unwrap();
        conn.query_drop(format!("INSERT INTO copy.{table} SELECT * FROM school.{table}")).await.unwrap();
    }

    // A key that changes only in case is a row gone and another come.
    conn.query_drop("UPDATE copy.settings SET name = IF(BINARY name = UPPER(name), LOWER(name), UPPER(name)) ORDER BY name LIMIT 1")
        .await
        .unwrap();
    let found = compare(&left, &right, 10).await.unwrap();
    let kinds: Vec<_> = found.differences.iter().map(|difference| (difference.table.as_str(), &difference.kind)).collect();
    assert_eq!(found.difference_count, 2, "{found:#?}");
    assert!(
        kinds.contains(&("settings", &DifferenceKind::RowMissing { times: 1 }))
            && kinds.contains(&("settings", &DifferenceKind::RowExtra { times: 1 }))
    );
    conn.query_drop("DELETE FROM copy.settings").await.unwrap();
    conn.query_drop("INSERT INTO copy.settings SELECT * FROM school.settings").await.unwrap();

    // Rows gone and rows too many, at the ends and in the middle, with and without a key.
    let (missing, extra) = (DifferenceKind::RowMissing { times: 1 }, DifferenceKind::RowExtra { times: 1 });
    let rows = [
        ("grades", "DELETE FROM copy.grades WHERE id = 1", &missing),
        ("grades", "DELETE FROM copy.grades ORDER BY id DESC LIMIT 1", &missing),
        ("accounts", "INSERT INTO copy.accounts (id, owner, balance) VALUES (4000000000, 'x', 1)", &extra),
        ("devices", "DELETE FROM copy.devices WHERE serial = 18446744073709551615", &missing),
        ("audit_log", "INSERT INTO copy.audit_log SELECT * FROM school.audit_log LIMIT 1", &extra),
        ("audit_log", "DELETE FROM copy.audit_log LIMIT 1", &missing),
    ];
    for (table, plant, kind) in rows {
        conn.query_drop(plant).await.unwrap();
        let found = compare(&left, &right, 10).await.unwrap();
        let (in_table, _, found_kind) = only(&found);
        assert_eq!((in_table, found_kind), (table, kind), "{plant}");
        conn.query_drop(format!("DELETE FROM copy.{table}")).await.unwrap();
        conn.query_drop(format!("INSERT INTO copy.{table} SELECT * FROM school.{table}")).await.unwrap();
    }

    // The sign of a zero is counted, not taken for another value.
    let zeros = |found: &Comparison| {
        found.tables.iter().map(|t| (t.left_negative_zeros, t.right_negative_zeros)).reduce(|a, b| (a.0 + b.0, a.1 + b.1)).unwrap()
    };
    let (before, _) = zeros(&clean);
    conn.query_drop("UPDATE copy.audit_log SET cost = 0 WHERE CAST(cost AS CHAR) = '-0' LIMIT 1").await.unwrap();
    assert_eq!(conn.affected_rows(), 1);
    let found = compare(&left, &right, 10).await.unwrap();
    assert!(found.is_equal() && before > 0, "{found:#?}");
    assert_eq!(zeros(&found), (before, before - 1));

    // Whole tables, and the bound on what is kept.
    conn.query_drop("DROP TABLE copy.audit_log").await.unwrap();
    conn.query_drop("ALTER TABLE copy.devices DROP COLUMN label").await.unwrap();
    conn.query_drop("CREATE TABLE copy.extra (id INT PRIMARY KEY)").await.unwrap();
    conn.query_drop("UPDATE copy.accounts SET version = version + 1, changed_at = changed_at").await.unwrap();
    let found = compare(&left, &right, 3).await.unwrap();
    assert_eq!((found.difference_count, found.differences.len()), (size.accounts + 3, 3));
    let all = compare(&left, &right, 1000).await.unwrap();
    let kind_of = |table: &str| all.differences.iter().find(|difference| difference.table == table).map(|difference| &difference.kind);
    assert_eq!(kind_of("audit_log"), Some(&DifferenceKind::TableMissing));
    assert_eq!(kind_of("extra"), Some(&DifferenceKind::TableExtra));
    assert!(matches!(kind_of("devices"), Some(DifferenceKind::Columns { .. })));
}

/// The same seed on an old and on another server is the same data to the inspector; users go where the route says.
async fn the_same_school_and_a_new_route(other: ServerKind) {
    let directory = tempfile::tempdir().unwrap();
    let (old, mut conn, size) = school(ServerKind::Mysql55, &directory.path().join("old"), 0.02).await;
    let (new, _, _) = school(other, &directory.path().join("new"), 0.02).await;
    let found = compare(&side(&old, "school"), &side(&new, "school"), 10).await.unwrap();
    assert!(found.is_equal(), "{found:#?}");
    assert_eq!(found.rows_compared, size.total());
    if other != ServerKind::MariaDb {
        assert!(found.tables.iter().all(|table| table.left_negative_zeros == table.right_negative_zeros), "{found:#?}");
    }

    let (route, book) = (directory.path().join("route"), directory.path().join("ledger"));
    write_route(&route, &old);
    let ledger = Arc::new(Ledger::open(&book, &mut conn, "school").await.unwrap());
    let began = Instant::now();
    let writers = Writers::start(options(&route, &size), ledger).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    write_route(&route, &new);
    conn.query_drop("SET GLOBAL read_only = 1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let counts = writers.stop().await.unwrap();
    let reading = LedgerReading::read(&book).unwrap();
    assert_eq!(reading.count(Outcome::Kept), counts.transfers_acknowledged);
    for server in [&old, &new] {
        let address = format!("{}:{}", server.host(), server.port());
        assert!(reading.entries.values().any(|entry| entry.outcome == Outcome::Kept && entry.endpoint == address), "{address}: {counts:?}");
    }
    let gap = reading.gap_between_servers().unwrap();
    eprintln!("{other}: {gap} µs between the servers; {:?}", counts.setbacks);
    assert!(gap >= 1 && gap.unsigned_abs() < began.elapsed().as_micros() as u64, "{gap}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_school_and_a_new_route_to_mariadb() {
    if !skipped("the_same_school_and_a_new_route_to_mariadb", &[ServerKind::Mysql55, ServerKind::MariaDb]) {
        the_same_school_and_a_new_route(ServerKind::MariaDb).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_school_and_a_new_route_to_mysql_9_7() {
    if !skipped("the_same_school_and_a_new_route_to_mysql_9_7", &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        the_same_school_and_a_new_route(ServerKind::Mysql97).await;
    }
}

#[tokio::test]
async fn a_route_that_names_no_server_is_refused_with_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let (route, book) = (directory.path().join("route"), directory.path().join("ledger"));
    std::fs::write(&book, "dbmove-ledger\t1\nearlier\t0\nopened\n").unwrap();
    std::fs::write(&route, "nowhere\n").unwrap();
    let ledger = Arc::new(Ledger::reopen(&book).unwrap());
    let error = Writers::start(options(&route, &SchoolSize::scaled(0.01)), ledger).await.unwrap_err().to_string();
    assert!(
        error.contains("route") && error.contains("`nowhere` is not `host:port`") && error.contains("no writer was started"),
        "{error}"
    );
}
