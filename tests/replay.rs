//! A rehearsal under production's own load: what is replayed ends in production's rows, what production is sent is what the report lists, and a
//! target, a log or an argument that is not up to it is named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "replay/production.rs"]
mod production;
mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::time::Duration;

use dbmove::local::{Account, LocalServer, ServerKind};
use dbmove::mysql::replay::load::{Log, Replay};
use mysql_async::prelude::Queryable;
use production::{
    KINDS, clock, command, equal_by_replay, listed, logged, no_run, read, rehearsed, report, seconds_pass, wait_for, written,
};
use serde_json::Value;
use world::{World, code, connect, number, said, says};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drill_passes_under_twice_the_load_and_production_is_sent_what_is_listed() {
    if real::skipped("the_drill_passes_under_twice_the_load_and_production_is_sent_what_is_listed", &KINDS) {
        return;
    }
    let (world, writers) = written(0.02, 80.0, 40.0).await;
    let before = number(&world.rehearsal.as_ref().unwrap().0, "SELECT COUNT(*) FROM school.transfers").await;
    for server in [&world.source, &world.target] {
        command(server, &["SET GLOBAL log_output = 'TABLE'", "TRUNCATE mysql.general_log", "SET GLOBAL general_log = 1"]).await;
    }
    let playbook = world.playbook_argument();
    let rehearsed = world.finished(&["rehearse", &playbook, "--load", "2x", "--load-window", "5s", "--load-for", "8s"]).await;
    eprintln!("{}", said(&rehearsed));
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    let report = report(&world).await;
    let load = &report["load"];
    let school = &load["stores"]["school"];
    assert_eq!((&load["asked"], &load["keeps_up"]), (&serde_json::json!(2.0), &Value::Bool(true)), "{load:#}");
    for figure in ["asked_per_second", "reached_per_second", "seconds"] {
        assert!(school[figure].as_f64().unwrap() > 0.0, "{figure}: {load:#}");
    }
    assert!(school["transactions"].as_u64().unwrap() > 0 && school["changes"].as_u64() > school["transactions"].as_u64(), "{load:#}");
    let lag = &load["lag"][0];
    assert!(lag["step"] == "follow" && lag["looks"].as_u64().unwrap() > 0 && lag["p99_seconds"].is_f64(), "{load:#}");
    assert!(said(&rehearsed).contains("lag of `follow`  p50 "), "{}", said(&rehearsed));
    assert_eq!(report["verifications"][0]["difference_count"], 0);

    // Production heard nothing but what is listed, and its rows are its own.
    for (server, user) in [(&world.source, "dbmove"), (&world.target, "admin")] {
        let logged = logged(server, user).await;
        assert!(!logged.is_empty(), "nothing was logged: the test sees nothing");
        let mut listed = listed(&report, server.port());
        // Servers don't log this command; it goes with each of the next.
        assert_eq!(listed.remove("COM_REGISTER_SLAVE"), listed.get("COM_BINLOG_DUMP").copied());
        assert_eq!(listed, logged, "the {:?}", server.kind());
        for sent in logged.keys() {
            assert!(
                ["SELECT ", "SHOW ", "SET SESSION TRANSACTION READ ONLY", "SET SESSION net_write_timeout", "SET @master_", "COM_"]
                    .iter()
                    .any(|begin| sent.starts_with(begin)),
                "{sent}"
            );
        }
    }
    world::stopped(writers).await;
    assert!(world.ledger_on(&world.source).await.is_clean());

    // The copy got production's own rows.
    let mut there = connect(&world.source, Account::Root).await;
    let own: std::collections::BTreeSet<String> =
        there.query("SELECT reference FROM school.transfers").await.unwrap().into_iter().collect();
    let mut copy = connect(&world.rehearsal.as_ref().unwrap().0, Account::Root).await;
    let copied: Vec<String> = copy.query("SELECT reference FROM school.transfers").await.unwrap();
    assert!(copied.len() as u64 > before && copied.iter().all(|reference| own.contains(reference)), "{} after {before}", copied.len());

    // What it was rehearsed under is in the certificate, which still holds.
    let shown = world.finished(&["--json", "certificate", "show", &playbook]).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["certificate"]["certificate"]["load"]["asked"], 2.0, "{shown:#}");
    assert_eq!(code(&world.finished(&["certificate", "check", &playbook]).await), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_that_is_killed_leaves_no_load_and_goes_on_with_it() {
    if real::skipped("a_rehearsal_that_is_killed_leaves_no_load_and_goes_on_with_it", &KINDS) {
        return;
    }
    let (world, writers) = written(0.02, 60.0, 30.0).await;
    let playbook = world.playbook_argument();
    let words = ["rehearse", playbook.as_str(), "--load", "3x", "--load-window", "5s", "--load-for", "4s"];
    let source = &world.rehearsal.as_ref().unwrap().0;
    let before = number(source, "SELECT COUNT(*) FROM school.transfers").await;
    let mut killed = world.started(&words, "killed.log");
    wait_for("a write of the load", async || number(source, "SELECT COUNT(*) FROM school.transfers").await > before).await;
    killed.kill().await.unwrap();
    let connected = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'dbmove'";
    for server in [source, &world.source] {
        wait_for("the end of its connections", async || number(server, connected).await == 0).await;
    }
    let rehearsed = world.finished(&words).await;
    assert_eq!(code(&rehearsed), 0, "{}\n{}", said(&rehearsed), std::fs::read_to_string(world.path("killed.log")).unwrap());
    let report = report(&world).await;
    assert!(report["load"]["keeps_up"] == true && report["run"]["drivers"] == 2, "{report:#}");
    world::stopped(writers).await;
}

/// Behind the switch the load goes to the target, its rows come back to the source, and a rollback that is rehearsed takes all of them along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_load_follows_the_switch_and_comes_back() {
    if real::skipped("the_load_follows_the_switch_and_comes_back", &KINDS) {
        return;
    }
    let (world, writers) = written(0.02, 60.0, 30.0).await;
    let text = world
        .playbook_text("30s")
        .replace("    - { id: switch", "    - { id: back, run: mysql.reverse, store: school }\n    - { id: switch");
    let directory = world.path("").display().to_string();
    let script = format!("cd {directory} && touch reached && until [ -e go-on ]; do sleep 0.05; done");
    let wait =
        format!("  settle:\n    - {{ id: use, run: hook.exec, with: {{ command: [sh, -c, \"{script}\"], undo: none, timeout: 180s }} }}\n");
    std::fs::write(world.playbook(), text + &wait).unwrap();
    let playbook = world.playbook_argument();
    let log = world.path("back.log");
    let words = ["rehearse", playbook.as_str(), "--load", "2x", "--load-window", "5s", "--load-for", "2s"];
    let mut rehearsing = world.started(&words, "back.log");
    wait_for("the stage behind the switch", async || {
        assert!(rehearsing.try_wait().unwrap().is_none(), "{}", read(&log));
        world.path("reached").exists()
    })
    .await;
    // The window has been through: its transfers are all there. Where they come anew is where clients are.
    let (source, target) = world.rehearsal.as_ref().unwrap();
    let mut client = connect(target, Account::Root).await;
    wait_for("an empty table", async || client.query_drop("DELETE FROM school.transfers").await.is_ok()).await;
    // The provider's account, whose connections the rollback may not close.
    client.disconnect().await.unwrap();
    let transfers = "SELECT COUNT(*) FROM school.transfers";
    wait_for("the load on the target", async || number(target, transfers).await > 0).await;
    let seeded = "SELECT COUNT(*) FROM school.transfers WHERE reference LIKE '00000000%'";
    wait_for("what came back of it", async || number(source, seeded).await == 0 && number(source, transfers).await > 0).await;
    std::fs::write(world.path("go-on"), "").unwrap();
    let status = tokio::time::timeout(Duration::from_secs(180), rehearsing.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}\n{}", read(&log));
    let report = report(&world).await;
    assert!(report["load"]["keeps_up"] == true && report["rollback"]["seconds"].is_f64(), "{report:#}");
    world::stopped(writers).await;
}

/// The whole log since the copies were made, replayed: the copy has production's rows then, cascades and tables without key too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_replayed_ends_in_productions_rows() {
    for kind in [ServerKind::Mysql55, ServerKind::Mysql56, ServerKind::MariaDb] {
        if !real::skipped("what_is_replayed_ends_in_productions_rows", &[kind, ServerKind::Mysql97]) {
            rows_are_productions(kind).await;
        }
    }
}

async fn rows_are_productions(kind: ServerKind) {
    let mut world = World::start(kind, ServerKind::Mysql97, 0.02).await.with_rehearsal().await;
    // The window may begin anywhere in these: it is counted back from when it is looked for, which comes later than it is asked for.
    seconds_pass(&world.source, 6).await;
    let began = clock(&world.source).await - 3;
    // A first transaction of its own and a gap behind it: the window begins again with them, and for so long the rows stay what they are.
    command(&world.source, &["INSERT INTO school.accounts (id, owner, balance) VALUES (900001, 'first', 0)"]).await;
    seconds_pass(&world.source, 6).await;
    let writers = world.write(150.0, 150.0).await;
    seconds_pass(&world.source, 4).await;
    let counts = world::stopped(writers).await;

    let window = Duration::from_secs(clock(&world.source).await - began);
    let replay = Replay { store: rehearsed(&world), log: Log::Production { window } };
    replay.check(&no_run()).await.unwrap();
    equal_by_replay(&replay, &world, &counts).await;
}

/// The rehearsal target stands still for a while in which production's writes come. The drill passes; the rehearsal does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_can_not_keep_up_is_named() {
    if real::skipped("a_target_that_can_not_keep_up_is_named", &KINDS) {
        return;
    }
    let (world, writers) = written(0.02, 60.0, 30.0).await;
    std::fs::write(world.playbook(), world.playbook_text("4s")).unwrap();
    let playbook = world.playbook_argument();
    let log = world.path("slow.log");
    let mut rehearsing = world.started(&["rehearse", &playbook, "--load", "3x", "--load-window", "5s", "--load-for", "60s"], "slow.log");
    wait_for("the verified copy", async || says(&log, "stage verify done")).await;
    let (_, target) = world.rehearsal.as_ref().unwrap();
    let mut slow = connect(target, Account::Root).await;
    slow.query_drop("LOCK TABLES school.transfers WRITE").await.unwrap();
    // For so long it applies nothing of what goes there; then all of it, before the cutover.
    seconds_pass(target, 15).await;
    slow.query_drop("UNLOCK TABLES").await.unwrap();
    let status = tokio::time::timeout(Duration::from_secs(120), rehearsing.wait()).await.unwrap().unwrap();
    let words = std::fs::read_to_string(&log).unwrap();
    eprintln!("{words}");
    assert_eq!(status.code(), Some(1), "{words}");
    assert!(words.contains("this target can't keep up at 3x"), "{words}");
    let report = report(&world).await;
    assert!(report["load"]["keeps_up"] == false && report["certificate"].is_null(), "{report:#}");
    assert!(report["load"]["lag"][0]["max_seconds"].as_f64().unwrap() >= 10.0, "{report:#}");
    world::stopped(writers).await;
}

/// Production at about a thousand rows a second, rehearsed at one, three and five times that, each time on a new pair. With `DBMOVE_SOAK`
/// for the record (`docs/benchmarks.md`); else at five times, and shortly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_fast_as_it_goes() {
    if real::skipped("as_fast_as_it_goes", &KINDS) {
        return;
    }
    let soak = std::env::var_os("DBMOVE_SOAK").is_some();
    let (factor, seconds, multiples) = if soak { (0.2, 130, &["1x", "3x", "5x"][..]) } else { (0.01, 10, &["5x"][..]) };
    let mut world = World::start(KINDS[0], KINDS[1], factor).await;
    seconds_pass(&world.source, 1).await;
    let began = clock(&world.source).await;
    let writers = world.write(260.0, 220.0).await;
    seconds_pass(&world.source, seconds).await;
    let counts = world::stopped(writers).await;
    for multiple in multiples {
        let at = world.path(&format!("pair-{multiple}"));
        let source = LocalServer::start(KINDS[0], &at.join("source"), &world::source_options(KINDS[0])).await.unwrap();
        let rds = dbmove::local::ServerOptions::default().rds_like(true);
        let target = LocalServer::start(KINDS[1], &at.join("target"), &rds).await.unwrap();
        let mut conn = connect(&source, Account::Root).await;
        dbmove::demo::seed::seed(&mut conn, world::DATABASE, &world.size, 7).await.unwrap();
        conn.disconnect().await.unwrap();
        std::fs::write(world.path("route.rehearsal"), format!("127.0.0.1:{}\n", source.port())).unwrap();
        world.rehearsal = Some((source, target));
        std::fs::write(world.playbook(), world.playbook_text("30s")).unwrap();
        let playbook = world.playbook_argument();
        let window = format!("{}s", clock(&world.source).await - began);
        let load_for = if soak { "20s" } else { "5s" };
        let words = ["rehearse", playbook.as_str(), "--new-run", "--load", *multiple, "--load-window", &window, "--load-for", load_for];
        // To a file: one that hangs says where.
        let name = format!("load-{multiple}.log");
        let mut rehearsing = world.started(&words, &name);
        let said = || std::fs::read_to_string(world.path(&name)).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(300), rehearsing.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{multiple} did not end:\n{}", said())).unwrap();
        let load = report(&world).await["load"].clone();
        let school = &load["stores"]["school"];
        let number = |name: &str| school[name].as_f64().unwrap();
        println!(
            "| {multiple} | {:.0} | {:.0} | {} | {} | {} | {} | {} | {} | {} |",
            number("asked_per_second"),
            number("reached_per_second"),
            school["transactions"],
            school["connections"],
            load["lag"][0]["p50_seconds"],
            load["lag"][0]["p95_seconds"],
            load["lag"][0]["p99_seconds"],
            load["lag"][0]["max_seconds"],
            load["sentences"],
        );
        // How fast it went is the machine's; what was asked is not: three rows a transfer, and other changes.
        let factor: f64 = multiple.trim_end_matches('x').parse().unwrap();
        let transfers = counts.transfers_acknowledged as f64 / (seconds + 2) as f64;
        assert!(number("asked_per_second") > 2.0 * transfers * factor, "{load:#}\n{counts:?}");
        let kept_up = load["keeps_up"] == true;
        assert_eq!(ended.code(), Some(i32::from(!kept_up)), "{}", said());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_can_not_be_replayed_is_named() {
    if real::skipped("a_log_that_can_not_be_replayed_is_named", &KINDS) {
        return;
    }
    let (world, writers) = written(0.01, 60.0, 30.0).await;
    let playbook = world.playbook_argument();
    command(&world.source, &["SET GLOBAL binlog_format = 'STATEMENT'"]).await;
    let refused = world.finished(&["rehearse", &playbook, "--load", "1x"]).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
    for words in ["the load of `school` can't be made", "`binlog_format` is `STATEMENT`, it has to be `ROW`", "nothing was touched"] {
        assert!(said(&refused).contains(words), "{words}: {}", said(&refused));
    }
    let (_, target) = world.rehearsal.as_ref().unwrap();
    assert_eq!(number(target, "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('school', '_dbmove')").await, 0);
    command(&world.source, &["SET GLOBAL binlog_format = 'ROW'"]).await;

    // Purged while it is replayed: the next pass finds it gone.
    let mut rehearsing =
        world.started(&["rehearse", &playbook, "--new-run", "--load", "5x", "--load-window", "3s", "--load-for", "170s"], "purged.log");
    let log = world.path("purged.log");
    wait_for("the load", async || says(&log, "reached ")).await;
    let mut conn = connect(&world.source, Account::Root).await;
    wait_for("the purge", async || {
        if conn.query_drop("FLUSH LOGS").await.is_err() || rehearsing.try_wait().unwrap().is_some() {
            return true;
        }
        let files: Vec<(String, u64)> = conn.query("SHOW BINARY LOGS").await.unwrap();
        let last = &files.last().unwrap().0;
        conn.query_drop(format!("PURGE BINARY LOGS TO '{last}'")).await.unwrap();
        conn.query::<(String, u64), _>("SHOW BINARY LOGS").await.unwrap().len() == 1
    })
    .await;
    let status = tokio::time::timeout(Duration::from_secs(180), rehearsing.wait()).await.unwrap().unwrap();
    let words = read(&log);
    assert_eq!(status.code(), Some(1), "{words}");
    for expected in ["the load of `school` broke off", "purged the log that was being replayed", "--load-window"] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    assert_eq!(number(target, "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('school', '_dbmove')").await, 0);
    world::stopped(writers).await;
}

#[tokio::test]
async fn what_can_not_be_meant_is_refused_before_anything_is_read() {
    for (words, expected) in [
        (&["--load", "3"][..], "it does not end with `x`"),
        (&["--load", "50x"], "it is out of range"),
        (&["--load", "fastx"], "the number can't be read"),
        (&["--load", "3x", "--load-window", "0s"], "shorter than a second"),
        (&["--load", "3x", "--load-for", "soon"], "`--load-for`"),
        (&["--load-window", "5m"], "--load <TIMES>"),
        (&["--load-log", "mysql-bin.000001"], "--load <TIMES>"),
        (&["--load", "3x", "--load-log", "mysql-bin.000001,"], "a name is empty"),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_dbmove")).args(["rehearse", "none.yaml"]).args(words).output().unwrap();
        assert_eq!((code(&output), said(&output).contains(expected)), (2, true), "{words:?}: {}", said(&output));
    }
}
