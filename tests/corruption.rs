//! The verifier is believed because it finds what was put into the target by hand, names it, and never cries wolf.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "moving/evidence.rs"]
mod evidence;
#[path = "corruption/kinds.rs"]
mod kinds;
mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dbmove::local::Account;
use evidence::{PAIR, accepts_writes, command, ended};
use kinds::{ACCOUNTS, CORRUPTIONS, EXHIBITS, PARTS, STRUCTURES};
use mysql_async::prelude::Queryable;
use world::{World, code, connect, number, said, stopped};

/// The school, writers on it, and the exhibits.
async fn hung() -> World {
    let world = World::start(PAIR[0], PAIR[1], 0.02).await;
    command(&world.source, &EXHIBITS).await;
    command(&world.source, &PARTS).await;
    let mut conn = connect(&world.source, Account::Root).await;
    conn.query_drop("SET NAMES utf8, time_zone = '+00:00'").await.unwrap();
    for part in 2..=22 {
        conn.query_drop(format!("CREATE TABLE school.part_{part:02} LIKE school.part_01")).await.unwrap();
        conn.query_drop(format!("INSERT INTO school.part_{part:02} SELECT * FROM school.part_01")).await.unwrap();
        conn.query_drop(format!("DELETE FROM school.part_{part:02} WHERE id > 10")).await.unwrap();
    }
    for id in 1..=60 {
        conn.query_drop(format!(
            "INSERT INTO school.exhibits VALUES ({id}, IF({id} IN (3, 5), NULL, IF({id} = 15, 'é', 'word {id}')), IF({id} = 4, '', 'other {id}'), \
             IF({id} = 10, 16777215, {id} / 3), IF({id} = 9, 0.3, {id} / 3), REPEAT(CHAR({id}), 20000), '2013-01-{:02}', '2013-01-{:02} 10:00:00', {id}.5, 0, \
             DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT)",
            id % 28 + i32::from(id % 28 == 0),
            id % 28 + i32::from(id % 28 == 0),
        ))
        .await
        .unwrap();
    }
    for from in (0..60_000).step_by(1000) {
        let rows: Vec<String> = (from + 1..=from + 1000).map(|id| format!("({id}, 'f{id}')")).collect();
        conn.query_drop(format!("INSERT INTO school.ranges VALUES {}", rows.join(", "))).await.unwrap();
    }
    let rooms: Vec<String> = (3..=3000).map(|id| format!("({id}, 'room {id}')")).collect();
    conn.query_drop(format!("INSERT INTO school.rooms VALUES {}", rooms.join(", "))).await.unwrap();
    conn.query_drop("INSERT INTO school.words VALUES ('café', 'drink'), ('tea', 'drink')").await.unwrap();
    world
}

/// Every kind at once, in a database that is written to: `dbmove verify` finds and names each, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn found_and_named() {
    if real::skipped("found_and_named", &PAIR) {
        return;
    }
    let mut world = hung().await;
    let playbook = world.playbook_argument();
    command(&world.source, &ACCOUNTS).await;
    let moving = "include: [\"school.*\"]\n    exclude: [\"school.left_*\"]\n    accounts: move";
    let text = world.playbook_text("30s").replace("include: [\"school.*\"]", moving);
    std::fs::write(world.playbook(), text).unwrap();
    let writers = world.write(150.0, 60.0).await;
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let clean = world.finished(&["verify", &playbook]).await;
    assert_eq!(code(&clean), 0, "{}", said(&clean));

    // What was compared, how, and what was not and why, is said.
    let report = world.finished(&["report", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let verification = &report["verifications"][0];
    assert_eq!(verification["verdict"], "equal");
    for table in verification["tables"].as_array().unwrap() {
        assert!(table["coverage"] == "every row" && table["chunks"].as_u64() >= Some(1) && table["verified_at"].is_string(), "{table}");
        assert!(["client, ", "server, "].iter().any(|engine| table["method"].as_str().unwrap().starts_with(engine)), "{table}");
    }
    assert_eq!(verification["structure_tables"].as_u64(), verification["tables"].as_array().map(|tables| tables.len() as u64));
    let outside = verification["outside"].as_array().unwrap();
    assert_eq!(outside[0], serde_json::json!({ "object": "school.left_out", "why": "`include` and `exclude` leave it out" }));
    let named = |object: &str| outside.iter().any(|outside| outside["object"] == object);
    assert!(named("passwords of accounts") && named("account app@%") && named("account dbmove@%"), "{outside:?}");
    assert!(!named("account teacher@%"), "{outside:?}");
    let mut target = connect(&world.target, Account::Root).await;
    target.query_drop("SET NAMES utf8mb4, time_zone = '+00:00', foreign_key_checks = 0, sql_mode = ''").await.unwrap();
    for (kind, statement, _) in CORRUPTIONS {
        target.query_drop(statement).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(target.affected_rows() > 0, "{kind}: nothing was corrupted");
    }
    let found = world.finished(&["verify", &playbook]).await;
    let words = said(&found);
    eprintln!("{words}");
    assert_eq!(code(&found), 3, "{words}");
    let report = world.finished(&["report", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let named: Vec<&str> =
        report["verifications"][0]["differences"].as_array().unwrap().iter().filter_map(|found| found["line"].as_str()).collect();
    for (kind, _, expected) in CORRUPTIONS {
        for expected in expected {
            assert!(named.iter().any(|line| line.contains(expected)), "{kind}: not found: {expected}\n{named:#?}");
        }
    }
    // 19 rows by the first kinds, 11 + 3 + 2 + 2 by the others, and the stretch; nothing else.
    let rows = 19 + 11 + 3 + 2 + 2 + 25_000;
    assert!(words.contains(&format!("{rows} rows differ")), "{words}");
    // A found difference is found again: nothing was repaired or forgotten.
    let again = world.finished(&["verify", &playbook]).await;
    assert_eq!(code(&again), 3, "{}", said(&again));

    // Asked to, it copies every row that differs once more, under the same writers, and says which.
    let repaired = world.finished(&["verify", &playbook, "--repair"]).await;
    let words = said(&repaired);
    eprintln!("{words}");
    assert_eq!(code(&repaired), 0, "{words}");
    assert!(words.contains("repaired: 25,037 differences are gone"), "{words}");
    let report = world.finished(&["report", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let verification = &report["verifications"][0];
    assert_eq!((&verification["repaired_count"], &verification["difference_count"]), (&rows.into(), &0.into()));
    let listed = verification["repaired"].as_array().unwrap().len();
    assert_eq!(listed, 37 + 200, "of one table no more than 200 are listed, so that it does not hide others");
    // Two values swapped in parts that can only be written one after the other, among rows enough for many parts.
    target.query_drop("UPDATE school.exhibits SET word = 'spoilt' WHERE id = 30").await.unwrap();
    target.query_drop("UPDATE school.rooms SET name = CONCAT('x', name)").await.unwrap();
    target.query_drop("UPDATE school.rooms SET name = IF(id = 1, 'room 3000', 'east') WHERE id IN (1, 3000)").await.unwrap();
    let equal = world.finished(&["verify", &playbook, "--repair"]).await;
    assert_eq!(code(&equal), 0, "{}", said(&equal));
    let found = structures_found_and_named(&world, &mut target).await;
    eprintln!("{} kinds of corruption injected, {} found", CORRUPTIONS.len() + STRUCTURES.len(), CORRUPTIONS.len() + found);
    stopped(writers).await;
    // By plain SELECTs too, once everything is applied.
    let quiet = world.finished(&["verify", &playbook]).await;
    assert_eq!(code(&quiet), 0, "{}", said(&quiet));
    command(&world.source, &["DROP TABLE school.left_out"]).await;
    let comparison = world.compare().await;
    assert!(comparison.is_equal(), "{comparison:?}");
}

/// Every kind of change to the structure at once, under the same writers; how many were found.
async fn structures_found_and_named(world: &World, target: &mut mysql_async::Conn) -> usize {
    let playbook = world.playbook_argument();
    target.query_drop("CREATE DATABASE rds_heartbeat").await.unwrap();
    for (kind, statement, _, _) in STRUCTURES {
        target.query_drop(statement).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
    // A row that differs beside them is found and repaired all the same.
    target.query_drop("UPDATE school.exhibits SET word = 'spoilt' WHERE id = 31").await.unwrap();
    let verified = world.finished(&["verify", &playbook, "--repair"]).await;
    let words = said(&verified);
    eprintln!("{words}");
    assert_eq!(code(&verified), 3, "{words}");
    let report = world.finished(&["report", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let verification = &report["verifications"][0];
    let structure = verification["structure"].as_array().unwrap();
    let named: Vec<&str> = structure.iter().filter_map(|found| found["line"].as_str()).collect();
    for (kind, _, expected, _) in STRUCTURES {
        assert!(named.iter().any(|line| line.contains(expected)), "{kind}: not found: {expected}\n{named:#?}");
    }
    let changed: std::collections::BTreeSet<&str> = structure.iter().filter_map(|found| found["object"].as_str()).collect();
    assert_eq!(changed.len(), STRUCTURES.len(), "something is named that is as it was: {changed:?}");
    let type_changed = structure.iter().find(|found| found["object"] == "school.part_08").unwrap();
    assert!(
        type_changed["diff"].as_str().unwrap().contains("-`amount` decimal(10,2) NOT NULL DEFAULT '1.50'\n+`amount` decimal(12,2)"),
        "{type_changed}"
    );
    assert_eq!(
        (&verification["verdict"], &verification["repaired_count"], &verification["difference_count"]),
        (&"different".into(), &1.into(), &0.into())
    );
    assert!(words.contains("only rows are repaired, never the structure"), "{words}");
    for (kind, _, _, back) in STRUCTURES {
        target.query_drop(back).await.unwrap_or_else(|error| panic!("putting back {kind}: {error}"));
    }
    let equal = world.finished(&["verify", &playbook]).await;
    assert_eq!(code(&equal), 0, "{}", said(&equal));
    STRUCTURES.len()
}

/// What is corrupted after its change was applied is found by the last check; the cutover is undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_check_undoes_the_cutover() {
    if real::skipped("the_last_check_undoes_the_cutover", &PAIR) {
        return;
    }
    let mut world = hung().await;
    let playbook = world.playbook_argument();
    // The spoiler is somebody else who writes to the target: without this the fence would not be raised.
    let text = world.playbook_text("30s").replace(
        "run: mysql.fence, store: school",
        "run: mysql.fence, store: school, with: { accept_foreign_writers: a test of the last check }",
    );
    std::fs::write(world.playbook(), text).unwrap();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));

    // Every exhibit changes on the source; the target is spoilt as soon as it follows, again and again.
    command(
        &world.source,
        &[
            "UPDATE school.exhibits SET touched = touched + 1",
            "DELETE FROM school.exhibits WHERE id = 60",
            "DELETE FROM school.doubles WHERE who = 1",
            "UPDATE school.pictures SET hall = 2 WHERE id = 2",
            "UPDATE school.words SET meaning = 'place'",
        ],
    )
    .await;
    let spoiling = Arc::new(AtomicBool::new(true));
    let spoiler = tokio::spawn({
        let spoiling = spoiling.clone();
        let options = world.target.connect_options(Account::Root, None);
        async move {
            let mut conn = mysql_async::Conn::new(options).await.unwrap();
            conn.query_drop("SET NAMES utf8mb4, time_zone = '+00:00', foreign_key_checks = 0, sql_mode = '', innodb_lock_wait_timeout = 1")
                .await
                .unwrap();
            while spoiling.load(Ordering::Relaxed) {
                for statement in [
                    "DELETE FROM school.exhibits WHERE id = 1 AND touched = 1",
                    "UPDATE school.exhibits SET price = 9 WHERE id = 2 AND touched = 1",
                    "UPDATE school.exhibits SET word = '' WHERE id = 3 AND touched = 1",
                    "UPDATE school.exhibits SET word = 'WORD 6' WHERE id = 6 AND touched = 1",
                    "UPDATE school.exhibits SET word = 'word 7 ' WHERE id = 7 AND touched = 1",
                    "UPDATE school.exhibits SET picture = REPEAT('x', 20000) WHERE id = 8 AND touched = 1",
                    "UPDATE school.exhibits SET exact = 0.30000000000000004 WHERE id = 9 AND touched = 1",
                    "UPDATE school.exhibits SET other = IF(id = 11, 'other 12', 'other 11') WHERE id IN (11, 12) AND touched = 1",
                    "INSERT IGNORE INTO school.exhibits (id, word) SELECT 60, 'forged' FROM school.exhibits WHERE id = 59 AND touched = 1",
                    "UPDATE school.doubles SET what = 'thrice' WHERE who = 2 AND NOT EXISTS (SELECT * FROM (SELECT * FROM school.doubles WHERE who = 1) one)",
                    "DELETE FROM school.pictures WHERE id = 2 AND hall = 2",
                    "UPDATE school.words SET meaning = 'Place' WHERE word = 'tea' AND meaning = 'place'",
                ] {
                    // In the way of the applier now and then: the next round does it.
                    let _ = conn.query_drop(statement).await;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let writers = world.write(100.0, 40.0).await;
    let cut = world.finished(&["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the last check"]).await;
    let words = said(&cut);
    eprintln!("{words}");
    spoiling.store(false, Ordering::Relaxed);
    spoiler.await.unwrap();
    assert_eq!(code(&cut), 3, "{words}");
    for expected in [
        "step `last_check` found differences",
        "`school.exhibits` id = 1: is missing on the target",
        "id = 2: `price` is 2.5000 on the source, 9.0000 on the target",
        "id = 3: `word` is NULL on the source, '' on the target",
        "id = 6: `word` is 'word 6' on the source, 'WORD 6' on the target",
        "id = 7: `word` is 'word 7' on the source, 'word 7 ' on the target",
        "id = 8: `picture`",
        "id = 9: `exact` is 0.3 on the source, 0.30000000000000004 on the target",
        "id = 11: `other`",
        "id = 12: `other`",
        "id = 60: is on the target only",
        "`school.doubles`",
        "`school.pictures` id = 2: is missing on the target",
        "`school.words`",
        "the source serves",
    ] {
        assert!(words.contains(expected), "not said: {expected}\n{words}");
    }
    // Undone: the source takes writes, the route is as it was, and users lost nothing.
    assert_eq!(number(&world.source, "SELECT @@global.read_only").await, 0);
    assert!(accepts_writes(&world.source).await);
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.source.port()));
    let before = number(&world.source, "SELECT COUNT(*) FROM school.transfers").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(number(&world.source, "SELECT COUNT(*) FROM school.transfers").await > before, "the writers did not go on");
    stopped(writers).await;
    let verdict = world.ledger_on(&world.source).await;
    assert!(verdict.is_clean(), "{verdict:?}");
}

/// Load on few hot keys, verification all the while: two minutes (an hour with `DBMOVE_SOAK`) and four full
/// comparisons without a false alarm, however long a busy machine takes for these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_false_alarm() {
    if real::skipped("no_false_alarm", &PAIR) {
        return;
    }
    let load = Duration::from_secs(if std::env::var_os("DBMOVE_SOAK").is_some() { 3600 } else { 120 });
    let mut world = World::start(PAIR[0], PAIR[1], 0.01).await;
    let playbook = world.playbook_argument();
    let log = world.path("log");
    // Twenty accounts take all transfers: each row changes dozens of times a second.
    let writers = world.write(500.0, 250.0).await;
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let (began, mut rounds) = (Instant::now(), 0);
    let mut written = 0;
    while began.elapsed() < load || rounds < 4 {
        // A full comparison by a driver of its own, then one that follows and compares what is touched, round by round.
        let found = world.finished(&["verify", &playbook]).await;
        assert_eq!(code(&found), 0, "a false alarm after {:?}: {}", began.elapsed(), said(&found));
        let mut run = world.started(&["--yes", "run", &playbook], "log");
        let rested = tokio::time::timeout(Duration::from_secs(8), run.wait()).await;
        assert!(rested.is_err(), "a false alarm after {:?}: {}", began.elapsed(), std::fs::read_to_string(&log).unwrap());
        interrupted(&mut run, &log).await;
        rounds += 1;
        // Hot they were: since the round before, each of the twenty accounts was written ten times and more.
        let now = number(&world.source, "SELECT COUNT(*) FROM school.transfers").await;
        assert!(now > written + 100, "{written} transfers, then {now}: nobody writes any more");
        written = now;
    }
    eprintln!("{rounds} full comparisons in {:?}, {written} transfers", began.elapsed());
    stopped(writers).await;
    // And at the end there was nothing to find, by plain SELECTs: nobody writes any more, and all of it is applied.
    let found = world.finished(&["verify", &playbook]).await;
    assert_eq!(code(&found), 0, "{}", said(&found));
    let comparison = world.compare().await;
    assert!(comparison.is_equal(), "{comparison:?}");
}

/// Ctrl-C, as a person gives it to a run that follows.
async fn interrupted(run: &mut tokio::process::Child, log: &std::path::Path) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(run.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (exit, words) = ended(run, log).await;
    assert_eq!(exit, 130, "{words}");
}
