//! A rehearsal whose source dbmove fills itself: as production is, by looks alone and at no more than its rate, from the source or a replica; gone at
//! the end, whenever it was killed; and never on a server that holds anything.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use dbmove::demo::compare::compare;
use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use mysql_async::prelude::Queryable;
use world::{DATABASE, World, code, connect, number, said, side, source_options, stopped};

const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];

/// A world whose rehearsal source is empty, to be filled as `copy` says.
async fn empty_rehearsal(kinds: [ServerKind; 2], factor: f64, copy: &str) -> World {
    let mut world = World::start(kinds[0], kinds[1], factor).await;
    let path = world.directory.path().to_owned();
    let source = LocalServer::start(kinds[0], &path.join("rehearsal-source"), &source_options(kinds[0])).await.unwrap();
    let target = LocalServer::start(kinds[1], &path.join("rehearsal-target"), &ServerOptions::default().rds_like(true)).await.unwrap();
    std::fs::write(path.join("route.rehearsal"), format!("127.0.0.1:{}\n", source.port())).unwrap();
    world.rehearsal = Some((source, target));
    write_playbook(&world, copy);
    world
}

fn write_playbook(world: &World, copy: &str) {
    let text = world.playbook_text("30s");
    let filled = text.replace("      other_accounts: [root]\n", &format!("      other_accounts: [root]\n      copy: {copy}\n"));
    assert_ne!(text, filled);
    std::fs::write(world.playbook(), filled).unwrap();
}

/// What each server of the rehearsal holds beside its own.
async fn left(world: &World) -> (u64, u64) {
    let query = "SELECT COUNT(*) FROM information_schema.SCHEMATA \
                 WHERE SCHEMA_NAME NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys', 'test')";
    let (source, target) = world.rehearsal.as_ref().unwrap();
    (number(source, query).await, number(target, query).await)
}

async fn report(world: &World) -> serde_json::Value {
    let report = world.finished(&["report", "--json"]).await;
    serde_json::from_slice(&report.stdout).unwrap()
}

fn facts<'a>(report: &'a serde_json::Value, step: &str) -> &'a serde_json::Value {
    let stages = report["stages"].as_array().unwrap().iter();
    let mut steps = stages.flat_map(|stage| stage["steps"].as_array().unwrap());
    &steps.find(|found| found["id"] == step).unwrap()["facts"]
}

/// Has every statement logged.
async fn log_statements(server: &LocalServer) {
    let mut conn = connect(server, Account::Root).await;
    for statement in ["SET GLOBAL log_output = 'TABLE'", "TRUNCATE mysql.general_log", "SET GLOBAL general_log = 1"] {
        conn.query_drop(statement).await.unwrap();
    }
}

/// Statements that the server was sent since, by dbmove's account, as the report lists them.
async fn logged(server: &LocalServer) -> BTreeMap<String, u64> {
    let mut conn = connect(server, Account::Root).await;
    conn.query_drop("SET GLOBAL general_log = 0").await.unwrap();
    // A prepared statement is logged when it is prepared, executed and closed: it was sent once.
    let query = "SELECT CONVERT(argument USING utf8) FROM mysql.general_log WHERE user_host LIKE 'dbmove%' \
                 AND command_type NOT IN ('Connect', 'Quit', 'Prepare', 'Close stmt')";
    let mut counted = BTreeMap::new();
    for statement in conn.query::<String, _>(query).await.unwrap() {
        *counted.entry(listed(&statement)).or_default() += 1;
    }
    counted
}

/// A logged statement as the report lists it: rows of a table under its name, a lock without its name.
fn listed(statement: &str) -> String {
    if let Some(begin) = statement.split("('dbmove_").next().filter(|begin| *begin != statement) {
        return format!("{begin}('…')");
    }
    let rows = statement.split_once(&format!(" FROM `{DATABASE}`.`")).and_then(|(_, rest)| rest.split_once('`'));
    match rows {
        Some((table, _)) if statement.starts_with("SELECT ") => format!("SELECT … FROM `{DATABASE}`.`{table}` …"),
        _ if statement == format!("Init DB {DATABASE}") => format!("USE `{DATABASE}`"),
        _ => statement.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_fills_its_source_by_looks_alone_and_leaves_nothing() {
    if real::skipped("a_rehearsal_fills_its_source_by_looks_alone_and_leaves_nothing", &KINDS) {
        return;
    }
    let mut world = empty_rehearsal(KINDS, 0.05, "{ rate: 40MiB/s }").await;
    let mut root = connect(&world.source, Account::Root).await;
    // What a fresh copy could get wrong: an event that runs, a table without snapshots, a partitioned one.
    for statement in [
        "CREATE TABLE school.old_log (at DATETIME NOT NULL, what VARCHAR(20) NOT NULL) ENGINE=MyISAM",
        "INSERT INTO school.old_log VALUES ('0000-00-00 00:00:00', 'a'), ('2010-01-01 00:00:00', 'b'), ('2010-01-01 00:00:00', 'b')",
        "CREATE TABLE school.parts (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, f FLOAT, b BIT(5)) PARTITION BY HASH (id) PARTITIONS 3",
        "INSERT INTO school.parts (f, b) VALUES (0.1, b'101'), (1e30, NULL), (-7.25, b'1')",
        "CREATE EVENT school.every_hour ON SCHEDULE EVERY 1 HOUR DO DELETE FROM school.old_log WHERE what = 'never'",
    ] {
        root.query_drop(statement).await.unwrap();
    }
    log_statements(&world.source).await;
    let writers = world.write(20.0, 40.0).await;
    let rehearsed = world.finished(&["rehearse", &world.playbook_argument()]).await;
    let counts = stopped(writers).await;
    assert_eq!(code(&rehearsed), 0, "{counts:?}\n{}", said(&rehearsed));
    assert_eq!(left(&world).await, (0, 0), "{}", said(&rehearsed));

    let report = report(&world).await;
    let filled = facts(&report, "fill-school");
    assert!(filled["copied_rows"].as_u64().unwrap() > 1000, "{filled}");
    assert_eq!(filled["without_snapshot"], serde_json::json!(["school.old_log", "school.page_hits"]));
    assert_eq!(filled["copied_tables"]["school.old_log"]["rows"], 3);
    assert!(filled["not_as_on_production"].to_string().contains("every_hour"), "{filled}");
    assert!(filled["position"].as_str().unwrap().contains(':'), "{filled}");

    // Production's own log is the list.
    let mut sent: BTreeMap<String, u64> = BTreeMap::new();
    assert_eq!(facts(&report, "schema")["production_not_asked"], serde_json::json!([]));
    for one in report["sent_to_production"].as_array().unwrap() {
        if one["server"].as_str().unwrap().contains(&format!(":{}`", world.source.port())) {
            *sent.entry(one["statement"].as_str().unwrap().to_owned()).or_default() += one["count"].as_u64().unwrap();
        }
    }
    let logged = logged(&world.source).await;
    assert!(logged.keys().any(|statement| statement.starts_with("SELECT … FROM `school`.")), "the test sees nothing: {logged:#?}");
    assert_eq!(sent, logged);
    for statement in logged.keys() {
        let looks = [
            "SELECT ",
            "SHOW ",
            "SET NAMES ",
            "SET SESSION ",
            "SET character_set_results = ",
            "USE ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        ];
        assert!(looks.iter().any(|look| statement.starts_with(look)) || statement.ends_with("SAVEPOINT dbmove"), "{statement}");
    }
    let certificate = world.finished(&["certificate", "show", &world.playbook_argument()]).await;
    assert!(said(&certificate).contains("copied from the source of `school`"), "{}", said(&certificate));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_what_production_is_and_its_rate_is_kept() {
    if real::skipped("a_copy_is_what_production_is_and_its_rate_is_kept", &KINDS) {
        return;
    }
    let world = empty_rehearsal(KINDS, 0.05, "{ rate: 512KiB/s }").await;
    // Ends right behind the copy, so that it can be looked at.
    let began = Instant::now();
    let killed = world.dbmove(&["rehearse", &world.playbook_argument()]).env("DBMOVE_CRASH_AT", "fill.noted").output().await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(code(&killed), -9, "{}", said(&killed));
    let (copy, _) = world.rehearsal.as_ref().unwrap();
    let compared = compare(&side(&world.source), &side(copy), 50).await.unwrap();
    assert!(compared.is_equal() && compared.rows_compared > 1000, "{compared:#?}");

    let status = world.finished(&["status"]).await;
    assert!(said(&status).contains("left: database `school` on the rehearsal source of `school`"), "{}", said(&status));
    let rehearsed = world.finished(&["rehearse", &world.playbook_argument()]).await;
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    assert_eq!(left(&world).await, (0, 0));
    let report = report(&world).await;
    let bytes = facts(&report, "fill-school")["copied_bytes"].as_f64().unwrap();
    let least = (bytes - f64::from(128 << 10)) / f64::from(512 << 10);
    eprintln!("{bytes} bytes at 512KiB/s took {seconds:.1} s; {least:.1} s is the least");
    assert!(seconds >= least, "{bytes} bytes took {seconds} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_it_is_taken_up_again_and_leaves_nothing() {
    if real::skipped("killed_anywhere_it_is_taken_up_again_and_leaves_nothing", &KINDS) {
        return;
    }
    let world = empty_rehearsal(KINDS, 0.01, "{ rate: 100MiB/s }").await;
    let mut root = connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE VIEW school.numbers AS SELECT 1 AS one",
        "CREATE FUNCTION school.two() RETURNS INT DETERMINISTIC NO SQL RETURN 2",
        "CREATE TABLE school.counted (id INT PRIMARY KEY, n INT)",
        "INSERT INTO school.counted VALUES (1, 1)",
        "CREATE TRIGGER school.counts BEFORE INSERT ON school.counted FOR EACH ROW SET NEW.n = 7",
    ] {
        root.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let points = [
        "fill.database_noted",
        "fill.databases_made",
        "fill.table_made#2",
        "fill.rows_committed#3",
        "fill.table_whole#2",
        "objects.created",
        "objects.noted",
        "fill.noted",
        "fill.database_dropped",
    ];
    for point in points {
        let killed = world.dbmove(&["rehearse", &playbook]).env("DBMOVE_CRASH_AT", point).output().await.unwrap();
        assert_eq!(code(&killed), -9, "{point}: {}", said(&killed));
        if point == "fill.table_whole#2" {
            // Given up instead.
            let undone = world.finished(&["--yes", "undo", &playbook, "--rehearsal"]).await;
            assert_eq!(code(&undone), 0, "{point}: {}", said(&undone));
            assert_eq!(left(&world).await, (0, 0), "{point}");
        }
    }
    let rehearsed = world.finished(&["rehearse", &playbook]).await;
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    assert_eq!(left(&world).await, (0, 0), "{}", said(&rehearsed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_holds_anything_is_not_filled() {
    if real::skipped("a_server_that_holds_anything_is_not_filled", &KINDS) {
        return;
    }
    let world = empty_rehearsal(KINDS, 0.01, "{}").await;
    let (copy, _) = world.rehearsal.as_ref().unwrap();
    let mut root = connect(copy, Account::Root).await;
    root.query_drop("CREATE DATABASE precious").await.unwrap();
    root.query_drop("CREATE TABLE precious.things (id INT PRIMARY KEY)").await.unwrap();
    let refused = world.finished(&["rehearse", &world.playbook_argument()]).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
    assert!(said(&refused).contains("is not empty: it holds `precious`"), "{}", said(&refused));
    assert!(said(&refused).contains("Nothing was written to it"), "{}", said(&refused));
    assert_eq!(left(&world).await, (1, 0), "only what was there");
}

/// Where the server's log ends, in its only file.
async fn log_end(server: &LocalServer) -> u64 {
    let row: Option<mysql_async::Row> = connect(server, Account::Root).await.query_first("SHOW MASTER STATUS").await.unwrap();
    row.unwrap().get(1).unwrap()
}

/// Makes `replica` one of `primary`, of all that it has logged.
async fn replicate_all(primary: &LocalServer, replica: &LocalServer) {
    let mut there = connect(primary, Account::Root).await;
    let first: mysql_async::Row = there.query_first("SHOW BINARY LOGS").await.unwrap().unwrap();
    let (file, port): (String, u16) = (first.get(0).unwrap(), primary.port());
    let mut here = connect(replica, Account::Root).await;
    here.query_drop(format!(
        "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'dbmove', MASTER_PASSWORD = 'dbmove', \
         MASTER_LOG_FILE = '{file}', MASTER_LOG_POS = 4"
    ))
    .await
    .unwrap();
    here.query_drop("START SLAVE").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_from_a_replica_leaves_the_source_alone_and_takes_a_load() {
    if real::skipped("a_copy_from_a_replica_leaves_the_source_alone_and_takes_a_load", &KINDS) {
        return;
    }
    let mut world = empty_rehearsal(KINDS, 0.01, "{}").await;
    let options = source_options(KINDS[0]).argument("--replicate-wild-do-table=school.%").argument("--log-slave-updates");
    let replica = LocalServer::start(KINDS[0], &world.path("replica"), &options).await.unwrap();
    replicate_all(&world.source, &replica).await;
    let from = format!(
        "{{ from: {{ url: \"mysql://dbmove@127.0.0.1:{}/\", password: \"${{env:DBMOVE_TEST_PASSWORD}}\", tls: off }}, rate: 40MiB/s }}",
        replica.port()
    );
    write_playbook(&world, &from);
    // Writers end when the source's log has something to replay, and the replica is as far.
    let writers = world.write(20.0, 40.0).await;
    let (logged_before, waiting) = (log_end(&world.source).await, Instant::now());
    while log_end(&world.source).await < logged_before + 40_000 {
        assert!(waiting.elapsed().as_secs() < 120, "nothing is written");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    stopped(writers).await;
    let waiting = Instant::now();
    while !compare(&side(&world.source), &side(&replica), 50).await.is_ok_and(|compared| compared.is_equal()) {
        assert!(waiting.elapsed().as_secs() < 120, "the replica does not get there");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    for server in [&world.source, &replica] {
        log_statements(server).await;
    }
    let arguments = ["rehearse", &world.playbook_argument(), "--load", "1x", "--load-window", "10m", "--load-for", "3s"];
    let rehearsed = world.finished(&arguments).await;
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    assert_eq!(left(&world).await, (0, 0));
    let report = report(&world).await;
    let filled = facts(&report, "fill-school");
    assert!(filled["copied_from"].as_str().unwrap().contains(&format!(":{}`", replica.port())), "{filled}");
    assert!(report["load"].to_string().contains("reached"), "{}", report["load"]);
    let (source, replica) = (logged(&world.source).await, logged(&replica).await);
    assert!(replica.keys().any(|statement| statement.starts_with("SELECT … FROM `school`.")), "{replica:#?}");
    assert!(!source.is_empty() && !source.keys().any(|statement| statement.contains(DATABASE)), "{source:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mariadb_is_copied_too() {
    let kinds = [ServerKind::MariaDb, ServerKind::MariaDb];
    if real::skipped("a_mariadb_is_copied_too", &kinds) {
        return;
    }
    let world = empty_rehearsal(kinds, 0.01, "{ rate: 40MiB/s }").await;
    let planned = world.finished(&["plan", &world.playbook_argument(), "--rehearsal"]).await;
    assert!(said(&planned).contains("tables, about") && said(&planned).contains("40MiB/s"), "{}", said(&planned));
    assert_eq!(left(&world).await, (0, 0), "a plan touches nothing");
    let killed = world.dbmove(&["rehearse", &world.playbook_argument()]).env("DBMOVE_CRASH_AT", "fill.noted").output().await.unwrap();
    assert_eq!(code(&killed), -9, "{}", said(&killed));
    let (copy, _) = world.rehearsal.as_ref().unwrap();
    let compared = compare(&side(&world.source), &side(copy), 50).await.unwrap();
    assert!(compared.is_equal() && compared.rows_compared > 100, "{compared:#?}");
    let status = world.finished(&["status"]).await;
    assert!(said(&status).contains("left: database `school` on the rehearsal source of `school`"), "{}", said(&status));
    let rehearsed = world.finished(&["rehearse", &world.playbook_argument()]).await;
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    assert_eq!(left(&world).await, (0, 0));
    assert!(!said(&world.finished(&["status"]).await).contains("left:"));
}

/// An engine that locks whole tables would keep one locked while the server sends a page of it, which at a low rate takes as long as the rate
/// wants it to. Here one page is all of the table, more than any buffer between takes, and takes over a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_copy_keeps_nobody_from_writing_to_a_table_of_myisam() {
    if real::skipped("a_slow_copy_keeps_nobody_from_writing_to_a_table_of_myisam", &KINDS) {
        return;
    }
    const ROWS: u64 = 20;
    let world = empty_rehearsal(KINDS, 0.01, "{ rate: 256KiB/s }").await;
    let mut root = connect(&world.source, Account::Root).await;
    root.query_drop("CREATE TABLE school.aaa (id INT PRIMARY KEY, n INT, body LONGBLOB) ENGINE = MyISAM").await.unwrap();
    for id in 0..ROWS {
        root.query_drop(format!("INSERT INTO school.aaa VALUES ({id}, 0, REPEAT('x', 1 << 20))")).await.unwrap();
    }
    let mut rehearsal = world.started(&["rehearse", &world.playbook_argument()], "rehearsal.log");
    let (copy, _) = world.rehearsal.as_ref().unwrap();
    let mut there = connect(copy, Account::Root).await;
    let mut copied = async || there.query_first::<u64, _>("SELECT COUNT(*) FROM school.aaa").await.unwrap_or_default().unwrap_or_default();
    while copied().await == 0 {
        let ended = rehearsal.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}\n{}", std::fs::read_to_string(world.path("rehearsal.log")).unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // Not at its end, where MyISAM lets rows in beside readers.
    root.query_drop("UPDATE school.aaa SET n = 1 WHERE id = 3").await.unwrap();
    let copied = copied().await;
    assert!(copied < ROWS / 3, "the writer was held until {copied} of {ROWS} rows were copied");
    rehearsal.kill().await.unwrap();
}
