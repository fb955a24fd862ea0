//! The way back: what clients write on the target behind the switch reaches the old source, and a rollback takes all of it along.
//!
//! The bank's writers go on all the while; both sides are compared by plain SELECTs that share no code with dbmove, and every acknowledged
//! transfer is looked for where clients are in the end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "way_back/dead.rs"]
mod dead;
#[path = "way_back/documents.rs"]
mod documents;
#[path = "way_back/granted.rs"]
mod granted;
#[path = "way_back/ids.rs"]
mod ids;
#[path = "way_back/late.rs"]
mod late;
#[path = "way_back/long.rs"]
mod long;
#[path = "way_back/packets.rs"]
mod packets;
mod real;
#[path = "way_back/restarted.rs"]
mod restarted;
#[path = "way_back/tables.rs"]
mod tables;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::time::Duration;

use dbmove::demo::writers::Writers;
use dbmove::engine::crash;
use dbmove::local::{Account, LocalServer, ServerKind};
use dbmove::telemetry::human::wrapped;
use mysql_async::prelude::Queryable;
use tokio::process::Child;
use world::{World, code, connect, said, says};

const PAIR: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];

/// How the way back is closed: a person says yes.
const SETTLE: &str = "  settle:
    - { id: trusted, run: gate.approve, with: { question: \"May the way back be closed?\" } }
    - { id: retire, run: mysql.retire, store: school }
";

/// A playbook with a way back: `mysql.reverse` right before the switch.
fn with_way_back(world: &World) {
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let reverse = "    - { id: back, run: mysql.reverse, store: school }\n    - { id: switch";
    assert!(!text.contains("mysql.reverse"));
    std::fs::write(world.playbook(), text.replace("    - { id: switch", reverse) + SETTLE).unwrap();
}

/// A cutover in the background, up to the end of its stage: from then on the way back is kept open.
async fn cut_over(world: &World, log: &str) -> Child {
    let playbook = world.playbook_argument();
    let arguments = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the way back"];
    let mut cutover = world.started(&arguments, log);
    waits_for(world, &mut cutover, log, "stage cutover done").await;
    cutover
}

async fn waits_for(world: &World, child: &mut Child, log: &str, words: &str) {
    for _ in 0..1200 {
        if says(&world.path(log), words) {
            return;
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("it ended ({status}) before it said `{words}`:\n{}", std::fs::read_to_string(world.path(log)).unwrap());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never said `{words}`:\n{}", std::fs::read_to_string(world.path(log)).unwrap());
}

/// Where the server's own log ends.
async fn log_end(server: &LocalServer) -> (String, u64) {
    let mut conn = connect(server, Account::Root).await;
    let statement = if server.kind() == ServerKind::Mysql97 { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let row: mysql_async::Row = conn.query_first(statement).await.unwrap().unwrap();
    (row.get(0).unwrap(), row.get(1).unwrap())
}

/// Waits until what the target has logged by now is on the source, as its bookkeeping says.
async fn carried_back(world: &World) {
    let end = log_end(&world.target).await;
    let mut conn = connect(&world.source, Account::Root).await;
    for _ in 0..1200 {
        let saved: Option<(String, u64)> =
            conn.query_first("SELECT applied_file, applied_offset FROM _dbmove.follow WHERE store = 'school (back)'").await.unwrap_or(None);
        if saved.is_some_and(|saved| saved >= end) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the source did not get what the target has logged up to {end:?}");
}

async fn prepared(source: ServerKind, target: ServerKind, factor: f64) -> (World, Writers) {
    let mut world = World::start(source, target, factor).await;
    with_way_back(&world);
    let mut conn = connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE TABLE school.shouts (id INT PRIMARY KEY, word VARCHAR(50)) ENGINE = InnoDB",
        "CREATE TRIGGER school.shout BEFORE INSERT ON school.shouts FOR EACH ROW SET NEW.word = CONCAT(NEW.word, '!')",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let writers = world.write(150.0, 100.0).await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    (world, writers)
}

async fn comes_back(test: &str, source: ServerKind, target: ServerKind) {
    if real::skipped(test, &[source, target]) {
        return;
    }
    let (mut world, writers) = prepared(source, target, 0.02).await;
    let mut cutover = cut_over(&world, "cutover.log").await;
    // Its trigger has its say there, and not once more on the source.
    app_writes(&world.target, "INSERT INTO school.shouts VALUES (1, 'a')").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    world::stopped(writers).await;
    carried_back(&world).await;
    let comparison = world.compare().await;
    let log = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    assert!(comparison.is_equal(), "{comparison:#?}\n{}", log("cutover.log"));
    let verdict = world.ledger_on(&world.source).await;
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert!(cutover.try_wait().unwrap().is_none(), "{}", log("cutover.log"));

    // Writers write on the target, through the rollback, and on the source.
    let writers = world.write(150.0, 100.0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let playbook = world.playbook_argument();
    let back = world.finished(&["--yes", "-v", "rollback", &playbook, "--deadline", "2m"]).await;
    assert_eq!(code(&back), 0, "{}", said(&back));
    // As on RDS.
    assert!(said(&back).contains("refuses the global read lock"), "{}", said(&back));
    if source == ServerKind::Mysql55 {
        reads_well(&world, &String::from_utf8_lossy(&back.stdout));
    }
    let handed_over = tokio::time::timeout(Duration::from_secs(20), cutover.wait()).await.unwrap().unwrap();
    assert!(handed_over.success(), "{handed_over}\n{}", std::fs::read_to_string(world.path("cutover.log")).unwrap());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = world::stopped(writers).await;
    let route = std::fs::read_to_string(world.route()).unwrap();
    assert_eq!(route, format!("127.0.0.1:{}\n", world.source.port()));
    let verdict = world.ledger_on(&world.source).await;
    assert!(verdict.is_clean(), "{verdict:#?}\n{counts:?}\n{}", said(&back));
    assert_eq!(verdict.sum_before, verdict.sum_after);
    let mut source = connect(&world.source, Account::Root).await;
    let left: Vec<String> = source.query("SHOW DATABASES LIKE '\\_dbmove'").await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    let read_only: u8 = source.query_first("SELECT @@global.read_only").await.unwrap().unwrap();
    assert_eq!(read_only, 0);
    shouts_once(&world).await;

    // The run goes no further; given up, another one moves the school a second time.
    let again = world.finished(&["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test"]).await;
    assert_eq!(code(&again), 4, "{}", said(&again));
    let given_up = world.finished(&["--yes", "undo", &playbook]).await;
    assert_eq!(code(&given_up), 0, "{}", said(&given_up));
    let anew = format!("dbmove run {playbook} --new-run");
    assert!(said(&given_up).contains(&anew), "what is over was to be undone again: {}", said(&given_up));
    let writers = world.write(150.0, 100.0).await;
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow", "--new-run"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut second = cut_over(&world, "second.log").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world::stopped(writers).await;
    carried_back(&world).await;
    let comparison = world.compare().await;
    assert!(comparison.is_equal(), "{comparison:#?}");
    let verdict = world.ledger_on(&world.target).await;
    assert!(verdict.is_clean(), "{verdict:#?}");
    retired(&world, &mut second).await;
}

/// What a person sees of a rollback, up to what each step took: as a terminal of 80 columns shows it, without figures that differ from
/// run to run.
fn reads_well(world: &World, stdout: &str) {
    let head: Vec<&str> = stdout.lines().take_while(|line| !line.trim_start().starts_with("step ")).collect();
    let tail: Vec<&str> = stdout.lines().skip_while(|line| *line != "next:").collect();
    // Before it is broken into lines: how long the directory's name is differs.
    let text = format!("{}\n{}\n", head.join("\n"), tail.join("\n")).replace(&world.path("").display().to_string(), "[DIRECTORY]/");
    let shown = wrapped(&text, 80);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("way_back/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.add_filter(r"\d{8}T\d{6}Z-[0-9a-f]+", "[RUN]");
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[MOMENT]");
    settings.add_filter(r"127\.0\.0\.1:\d+", "127.0.0.1:[PORT]");
    settings.add_filter(r"\b(\d+m)?\d+(\.\d+)?(ms|s)\b", "[TOOK]");
    settings.add_filter(r"drivers    \d+", "drivers    [COUNT]");
    settings.bind(|| insta::assert_snapshot!("rolled_back", shown));
}

/// The source's trigger is there again and acts once.
async fn shouts_once(world: &World) {
    app_writes(&world.source, "INSERT INTO school.shouts VALUES (2, 'b')").await.unwrap();
    let mut source = connect(&world.source, Account::Root).await;
    let words: Vec<String> = source.query("SELECT word FROM school.shouts ORDER BY id").await.unwrap();
    assert_eq!(words, ["a!", "b!"]);
}

/// The way back is closed: killed in the middle of it, then to its end. What is written then stays on the target.
async fn retired(world: &World, cutover: &mut Child) {
    let playbook = world.playbook_argument();
    cutover.kill().await.unwrap();
    let approved = world.finished(&["approve", &playbook, "trusted", "--by", "the test"]).await;
    assert_eq!(code(&approved), 0, "{}", said(&approved));
    let go_on = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the way back"];
    let killed = world.dbmove(&go_on).env("DBMOVE_CRASH_AT", "retire.ended").output().await.unwrap();
    assert_eq!(code(&killed), -9, "{}", said(&killed));
    let done = world.finished(&go_on).await;
    assert_eq!(code(&done), 0, "{}", said(&done));
    for server in [&world.source, &world.target] {
        let mut conn = connect(server, Account::Root).await;
        let left: Vec<String> = conn.query("SHOW DATABASES LIKE '\\_dbmove'").await.unwrap();
        assert!(left.is_empty(), "{left:?} on {:?}", server.kind());
    }
    let mut source = connect(&world.source, Account::Root).await;
    let read_only: u8 = source.query_first("SELECT @@global.read_only").await.unwrap().unwrap();
    assert_eq!(read_only, 1);
    let refused = world.finished(&["--yes", "rollback", &playbook]).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_55_to_97_and_back_and_there_again() {
    comes_back("mysql_55_to_97_and_back_and_there_again", PAIR[0], PAIR[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_to_mariadb_and_back_and_there_again() {
    comes_back("mariadb_to_mariadb_and_back_and_there_again", ServerKind::MariaDb, ServerKind::MariaDb).await;
}

/// One run, killed at one point after the other: in the cutover, while it follows back, and all through the rollback. Writers never stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_all_the_way_there_and_back() {
    if real::skipped("killed_all_the_way_there_and_back", &PAIR) {
        return;
    }
    let (world, writers) = prepared(PAIR[0], PAIR[1], 0.02).await;
    let playbook = world.playbook_argument();
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of kills"];
    let rollback = ["--yes", "rollback", &playbook];
    let mut tried = Vec::new();
    for (command, armed) in [
        (&cutover[..], "reverse.position_saved"),
        // Behind the switch.
        (&cutover, "reverse.triggers_noted"),
        (&cutover, "reverse.prepared"),
        (&cutover, "apply.lanes.committed"),
        (&rollback, "rollback.write_gap_started"),
        (&rollback, "rollback.noted"),
        (&rollback, "rollback.held"),
        (&cutover, "apply.batch.after"),
        (&rollback, "rollback.taken_back"),
        // From here on the rollback is carried through: the smoke test, clients closed, and in the middle of the route.
        (&rollback, "undo.started"),
        (&rollback, "undo.effect_done"),
        (&rollback, "rollback.disarming"),
        (&rollback, "rollback.disarmed"),
        (&rollback, "rollback.held"),
        (&rollback, "undo.intent_written"),
        (&rollback, "undo.effect_done"),
        (&rollback, "reverse.triggers_back"),
        // The way back is closed, then triggers are gone, then the fence is lifted.
        (&rollback, "undo.effect_done#2"),
        (&rollback, "undo.outcome_written#2"),
        (&rollback, "undo.outcome_written"),
        (&rollback, "undo.finished"),
    ] {
        let run = world.dbmove(command).env("DBMOVE_CRASH_AT", armed).output();
        let output = tokio::time::timeout(Duration::from_secs(90), run).await.expect(armed).unwrap();
        assert_eq!(code(&output), -9, "{armed}, after {tried:?}: {}", said(&output));
        tried.push(armed);
        if armed == "reverse.prepared" {
            app_writes(&world.target, "INSERT INTO school.shouts VALUES (1, 'a')").await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let here: std::collections::BTreeSet<&str> = tried.iter().map(|point| point.split('#').next().unwrap()).collect();
    // Clients are held behind HAProxy only: `tests/haproxy/back.rs`.
    let here = here.into_iter().chain(["rollback.clients_held"]).collect::<std::collections::BTreeSet<_>>();
    for point in crash::POINTS.iter().filter(|point| point.starts_with("reverse.") || point.starts_with("rollback.")) {
        assert!(here.contains(point), "`{point}` is not tried here");
    }
    let back = world.finished(&rollback).await;
    assert_eq!(code(&back), 0, "{}", said(&back));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = world::stopped(writers).await;
    let verdict = world.ledger_on(&world.source).await;
    assert!(verdict.is_clean(), "{verdict:#?}\n{counts:?}\n{}", said(&back));
    assert_eq!(verdict.sum_before, verdict.sum_after);
    shouts_once(&world).await;
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.source.port()));
}

/// A step of `settle` that waits until the test has written what it wants on the target: it makes the file `reached` and waits for `go-on`.
fn waits_in_settle(world: &World) {
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let directory = world.path("").display().to_string();
    let script = format!("cd {directory} && touch reached && until [ -e go-on ]; do sleep 0.05; done");
    let wait = format!("  settle:\n    - {{ id: use, run: hook.exec, with: {{ command: [sh, -c, \"{script}\"], undo: none }} }}\n");
    assert!(text.contains("  settle:\n"));
    std::fs::write(world.playbook(), text.replace("  settle:\n", &wait)).unwrap();
}

/// Waits for `reached` while a rehearsal runs, and lets the next one wait again.
async fn reached(world: &World, child: &mut Child, log: &str) {
    for _ in 0..1200 {
        if world.path("reached").exists() {
            std::fs::remove_file(world.path("reached")).unwrap();
            return;
        }
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}\n{}", std::fs::read_to_string(world.path(log)).unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the rehearsal never came to `settle`:\n{}", std::fs::read_to_string(world.path(log)).unwrap());
}

/// A rehearsal tries the rollback: what is written on its target comes back to its source, however often it is killed in the middle of that, and
/// how long it took is in the certificate. A value that the old server can't hold refuses the certificate. Either leaves the pair as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_tries_the_rollback() {
    if real::skipped("a_rehearsal_tries_the_rollback", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await.with_rehearsal().await;
    with_way_back(&world);
    waits_in_settle(&world);
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let convert = "    include: [\"school.*\"]\n    charset: { \"school.notes\": utf8-to-utf8mb4 }\n";
    std::fs::write(world.playbook(), text.replace("    include: [\"school.*\"]\n", convert)).unwrap();
    let (source, target) = world.rehearsal.as_ref().unwrap();
    for server in [&world.source, source] {
        let mut conn = connect(server, Account::Root).await;
        for statement in [
            "CREATE TABLE school.notes (id INT PRIMARY KEY, word VARCHAR(50)) DEFAULT CHARSET utf8",
            "CREATE TABLE school.shouts (id INT PRIMARY KEY, word VARCHAR(50)) ENGINE = InnoDB",
            "CREATE TRIGGER school.shout BEFORE INSERT ON school.shouts FOR EACH ROW SET NEW.word = CONCAT(NEW.word, '!')",
        ] {
            conn.query_drop(statement).await.unwrap();
        }
    }
    let playbook = world.playbook_argument();
    let rehearse = ["--yes", "rehearse", &playbook];
    let written = async |statement: &str| {
        let mut conn = connect(target, Account::Root).await;
        conn.query_drop("SET NAMES utf8mb4").await.unwrap();
        conn.query_drop(statement).await.unwrap();
    };

    let mut first = world.started(&rehearse, "lossy.log");
    reached(&world, &mut first, "lossy.log").await;
    written("INSERT INTO school.notes VALUES (1, 'one \u{1F600}')").await;
    std::fs::write(world.path("go-on"), "").unwrap();
    let status = tokio::time::timeout(Duration::from_secs(90), first.wait()).await.unwrap().unwrap();
    let log = std::fs::read_to_string(world.path("lossy.log")).unwrap();
    assert_eq!(status.code(), Some(4), "{log}");
    assert!(log.contains("rollback would lose") && log.contains("school.notes"), "{log}");
    as_before(source, target).await;

    std::fs::remove_file(world.path("go-on")).unwrap();
    std::fs::remove_file(world.path("reached")).ok();
    let mut begun = world.started(&rehearse, "begun.log");
    reached(&world, &mut begun, "begun.log").await;
    written("INSERT INTO school.shouts VALUES (1, 'a')").await;
    written("INSERT INTO school.notes VALUES (1, 'eins')").await;
    begun.kill().await.unwrap();
    std::fs::write(world.path("go-on"), "").unwrap();
    for armed in ["rollback.held", "rollback.taken_back", "undo.started", "undo.effect_done#2", "reverse.triggers_back", "undo.finished"] {
        let run = world.dbmove(&rehearse).env("DBMOVE_CRASH_AT", armed).output();
        let output = tokio::time::timeout(Duration::from_secs(90), run).await.expect(armed).unwrap();
        assert_eq!(code(&output), -9, "{armed}: {}", said(&output));
        if armed == "undo.finished" {
            let mut conn = connect(source, Account::Root).await;
            let words: Vec<String> = conn.query("SELECT word FROM school.shouts UNION ALL SELECT word FROM school.notes").await.unwrap();
            assert_eq!(words, ["a!", "eins"], "what was written on the target did not come back");
        }
    }
    let passed = world.finished(&rehearse).await;
    assert_eq!(code(&passed), 0, "{}", said(&passed));
    as_before(source, target).await;
    let shown = world.finished(&["certificate", "show", &playbook, "--json"]).await;
    assert_eq!(code(&shown), 0, "{}", said(&shown));
    let certificate: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let seconds =
        |name: &str| certificate["certificate"]["certificate"][name].as_f64().unwrap_or_else(|| panic!("`{name}` in {certificate:#}"));
    assert!(seconds("rollback_seconds") >= seconds("rollback_write_gap_seconds"), "{certificate:#}");
    println!("rollback rehearsed: {:.2} s, killed and resumed in between", seconds("rollback_seconds"));
}

/// Nothing is left of a rehearsal on its pair: clients may write, the trigger is there, our schemas are gone.
async fn as_before(source: &LocalServer, target: &LocalServer) {
    let mut conn = connect(source, Account::Root).await;
    let triggers: Vec<String> =
        conn.query("SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = 'school'").await.unwrap();
    assert!(triggers.contains(&"shout".to_owned()), "{triggers:?}");
    for server in [source, target] {
        let mut conn = connect(server, Account::Root).await;
        let read_only: u8 = conn.query_first("SELECT @@global.read_only").await.unwrap().unwrap();
        assert_eq!(read_only, 0, "{:?}", server.kind());
        let left: Vec<String> = conn.query("SHOW DATABASES LIKE '\\_dbmove'").await.unwrap();
        assert!(left.is_empty(), "{left:?} on {:?}", server.kind());
    }
}

/// What a rollback needs on the target and our account lacks there is said by the plan, and refuses the switch: behind it would be too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_that_could_hold_nothing_refuses_the_switch() {
    if real::skipped("a_rollback_that_could_hold_nothing_refuses_the_switch", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    with_way_back(&world);
    let playbook = world.playbook_argument();
    let mut target = connect(&world.target, Account::Root).await;
    target.query_drop("REVOKE PROCESS ON *.* FROM rds_superuser_role@`%`").await.unwrap();
    // What can be known is known before the copy.
    let assessed = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&assessed), 4, "{}", said(&assessed));
    assert!(said(&assessed).contains("[target-process] `PROCESS`"), "{}", said(&assessed));
    target.query_drop("GRANT PROCESS ON *.* TO rds_superuser_role@`%`").await.unwrap();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    target.query_drop("REVOKE PROCESS, CREATE USER ON *.* FROM rds_superuser_role@`%`").await.unwrap();
    let planned = world.finished(&["plan", &playbook]).await;
    let refused = world.finished(&["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test"]).await;
    assert_ne!(code(&refused), 0, "{}", said(&refused));
    for output in [&planned, &refused] {
        let words = said(output).split_whitespace().collect::<Vec<_>>().join(" ");
        for lacking in ["may not keep clients out (it lacks CREATE USER", "may not see who is connected (it lacks PROCESS)"] {
            assert!(words.contains(lacking), "{lacking}: {}", said(output));
        }
    }
    assert!(said(&planned).contains("binlog retention hours"), "{}", said(&planned));
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.source.port()));
    app_writes(&world.source, "INSERT INTO school.accounts (id, owner, balance) VALUES (900001, 'first', 0)").await.unwrap();
}

/// The app writes there, by the address that clients have.
async fn app_writes(server: &LocalServer, statement: &str) -> Result<(), mysql_async::Error> {
    let mut conn = connect(server, Account::App).await;
    conn.query_drop("SET NAMES utf8mb4").await?;
    conn.query_drop(statement).await
}

/// A rollback that runs out of its time leaves clients on the target; a value that the old server can't hold ends the way back, is named, and
/// from then on there is no rollback, while the target serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_source_cant_hold_ends_the_way_back() {
    if real::skipped("what_the_source_cant_hold_ends_the_way_back", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    with_way_back(&world);
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let convert = "    include: [\"school.*\"]\n    charset: { \"school.notes\": utf8-to-utf8mb4 }\n";
    std::fs::write(world.playbook(), text.replace("    include: [\"school.*\"]\n", convert)).unwrap();
    let mut source = connect(&world.source, Account::Root).await;
    source.query_drop("CREATE TABLE school.notes (id INT PRIMARY KEY, word VARCHAR(50)) DEFAULT CHARSET utf8").await.unwrap();
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));

    let go = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the way back"];
    app_writes(&world.source, "INSERT INTO school.notes VALUES (1, 'one')").await.unwrap();
    let mut cutover = cut_over(&world, "cutover.log").await;
    app_writes(&world.target, "INSERT INTO school.notes VALUES (2, 'zwei – ü')").await.unwrap();
    carried_back(&world).await;
    let late = world.finished(&["--yes", "rollback", &playbook, "--max-write-gap", "1ms"]).await;
    assert_eq!(code(&late), 1, "{}", said(&late));
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.target.port()));
    app_writes(&world.target, "INSERT INTO school.notes VALUES (3, 'three')").await.unwrap();
    let _ = cutover.wait().await;

    let mut cutover = world.started(&go, "again.log");
    waits_for(&world, &mut cutover, "again.log", "waits for approval").await;
    carried_back(&world).await;
    // Clients there were closed.
    let mut source = connect(&world.source, Account::Root).await;
    let words: Vec<String> = source.query("SELECT word FROM school.notes ORDER BY id").await.unwrap();
    assert_eq!(words.len(), 3, "{words:?}");
    app_writes(&world.target, "INSERT INTO school.notes VALUES (4, 'four \u{1F600}')").await.unwrap();
    waits_for(&world, &mut cutover, "again.log", "rollback would lose").await;
    let log = std::fs::read_to_string(world.path("again.log")).unwrap();
    let line = log.lines().find(|line| line.contains("rollback would lose")).unwrap();
    assert!(line.contains("school.notes") && line.contains("word") && line.contains("id = 4"), "{line}");
    let status = world.finished(&["status"]).await;
    assert!(said(&status).contains("rollback would lose"), "{}", said(&status));
    let refused = world.finished(&["--yes", "rollback", &playbook]).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
    assert!(said(&refused).contains("rollback would lose"), "{}", said(&refused));
    app_writes(&world.target, "INSERT INTO school.notes VALUES (5, 'five')").await.unwrap();
    let _ = cutover.wait().await;
}
