//! Whatever dies, nothing is lost and nothing is there twice.
//!
//! `kill -9` at every named point of the MySQL steps and at random moments under load, connections cut on either side,
//! servers restarted: then the run is driven again, and at the fence both sides are equal row by row.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::time::Duration;

use dbmove::demo::writers::Writers;
use dbmove::engine::crash;
use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::prelude::Queryable;
use tokio::process::Child;
use world::{World, code, connect, said};

const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];

/// Random numbers that a failing run can be repeated with: the seed is printed.
struct Dice(u64);

impl Dice {
    fn thrown() -> Dice {
        let seed = match std::env::var("DBMOVE_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64,
        };
        eprintln!("seed: DBMOVE_TEST_SEED={seed}");
        Dice(seed)
    }
    fn below(&mut self, bound: u64) -> u64 {
        // A linear congruential generator (Knuth's MMIX constants); its high bits are good enough to pick moments.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A world whose copy takes long enough to be hit in the middle.
async fn slow_world(factor: f64) -> (World, Writers) {
    let mut world = World::start(KINDS[0], KINDS[1], factor).await;
    world.stop_at_the_fence();
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let text = text.replace("chunk_bytes: 256KiB", "chunk_bytes: 64KiB, readers: 1, writers: 1");
    std::fs::write(world.playbook(), text).unwrap();
    let writers = world.write(200.0, 120.0).await;
    (world, writers)
}

/// Drives the run to its end, so often as needed.
async fn driven_to_the_end(world: &World) {
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
}

async fn killed(child: &mut Child) -> bool {
    let ended_before = child.try_wait().unwrap().is_some();
    if !ended_before {
        child.kill().await.unwrap();
    }
    !ended_before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_at_every_named_point_of_the_copy_and_resume() {
    if real::skipped("kill_at_every_named_point_of_the_copy_and_resume", &KINDS) {
        return;
    }
    let (world, writers) = slow_world(0.04).await;
    let playbook = world.playbook_argument();
    // One run, killed at one point after the other, in the order in which it comes to them.
    let order = [
        "prepare.table.noted#3",
        "copy.keyless.before_commit",
        "copy.keyless.committed",
        "copy.chunk.before_commit#2",
        "copy.chunk.committed#3",
        "apply.batch.before#2",
        "apply.intent.saved",
        "apply.lanes.committed",
        "apply.cascade.committed",
        "apply.batch.after#5",
    ];
    let mut listed: Vec<&str> =
        crash::POINTS.iter().copied().filter(|point| ["prepare.", "copy.", "apply."].iter().any(|part| point.starts_with(part))).collect();
    let mut here: Vec<&str> = order.iter().map(|point| point.split('#').next().unwrap()).collect();
    listed.sort_unstable();
    here.sort_unstable();
    assert_eq!(listed, here, "a point is not tried here");
    for armed in order {
        // While it was dead, changes have piled up: enough for a batch of several lanes.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let run = world.dbmove(&["--yes", "run", &playbook]).env("DBMOVE_CRASH_AT", armed).output();
        let output = tokio::time::timeout(Duration::from_secs(60), run).await.expect(armed).unwrap();
        assert_eq!(code(&output), -9, "{armed}: {}", said(&output));
    }
    driven_to_the_end(&world).await;
    world.cut_over_and_judge(writers).await;
}

/// A change of a row without a key is looked for by all its values: with nothing but the rows there it would read the whole table, each time.
/// One table is copied before a kill, the other after it; building their indexes is made to wait, and meanwhile both are changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_tables_without_a_key_wait_for_their_indexes() {
    if real::skipped("changes_of_tables_without_a_key_wait_for_their_indexes", &KINDS) {
        return;
    }
    let (world, writers) = slow_world(0.01).await;
    let mut source = connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE TABLE school.few_words (actor INT, action VARCHAR(30), KEY by_actor (actor)) ENGINE=InnoDB",
        "INSERT INTO school.few_words VALUES (90001, 'seen')",
        "INSERT INTO school.audit_log (actor, action) VALUES (90001, 'seen')",
    ] {
        source.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let killed = world.dbmove(&["--yes", "run", &playbook]).env("DBMOVE_CRASH_AT", "copy.keyless.committed").output().await.unwrap();
    assert_eq!(code(&killed), -9, "{}", said(&killed));
    let mut target = connect(&world.target, Account::Root).await;
    for statement in ["SET GLOBAL log_output = 'TABLE'", "TRUNCATE mysql.general_log", "SET GLOBAL general_log = 1"] {
        target.query_drop(statement).await.unwrap();
    }
    let mut reading = std::collections::BTreeMap::new();
    for table in ["audit_log", "few_words"] {
        let mut reader = connect(&world.target, Account::Root).await;
        reader.query_drop(format!("BEGIN; SELECT * FROM school.{table} LIMIT 1")).await.unwrap();
        reading.insert(table, reader);
    }
    let mut run = world.started(&["--yes", "run", &playbook, "--no-follow"], "run.log");
    let waiting = "SELECT COALESCE(MIN(info), '') FROM information_schema.PROCESSLIST WHERE info LIKE 'ALTER TABLE%' AND state LIKE '%metadata lock%'";
    while !reading.is_empty() {
        // A server that shows a statement with bytes in it, as those that load rows have, fails: 3854.
        let statement = match target.query_first::<String, _>(waiting).await {
            Err(mysql_async::Error::Server(error)) if error.code == 3854 => String::new(),
            statement => statement.unwrap().unwrap(),
        };
        let Some(table) = reading.keys().copied().find(|table| statement.contains(&format!("`{table}`"))) else {
            assert!(run.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(world.path("run.log")).unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        source.query_drop(format!("UPDATE school.{table} SET action = 'changed' WHERE actor = 90001")).await.unwrap();
        // Time for the change to come, were it not to wait.
        source.query_drop("DO SLEEP(2)").await.unwrap();
        reading.remove(table).unwrap().disconnect().await.unwrap();
    }
    let ended = run.wait().await.unwrap();
    assert!(ended.success(), "{}", std::fs::read_to_string(world.path("run.log")).unwrap());
    target.query_drop("SET GLOBAL general_log = 0").await.unwrap();
    for table in ["audit_log", "few_words"] {
        let first = async |target: &mut mysql_async::Conn, like: String| {
            let query = "SELECT DATE_FORMAT(MIN(event_time), '%Y-%m-%d %T.%f') FROM mysql.general_log WHERE argument LIKE ?";
            let found: Option<Option<String>> = target.exec_first(query, (&like,)).await.unwrap();
            found.flatten().unwrap_or_else(|| panic!("nothing like {like}"))
        };
        let indexed = first(&mut target, format!("REPLACE INTO%copied_table%{table}%1, 1, 1)")).await;
        let changed = first(&mut target, format!("UPDATE `school`.`{table}`%90001%")).await;
        assert!(indexed < changed, "{table}: changed at {changed}, its indexes there at {indexed}");
    }
    world.cut_over_and_judge(writers).await;
}

/// One transaction writes a row of the last level and then takes the first one away. Once the cascade is on the target nothing leads from
/// the first level to the last any more: the row must not be written a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_after_a_cascade_of_two_levels_in_the_middle_of_a_transaction() {
    if real::skipped("kill_after_a_cascade_of_two_levels_in_the_middle_of_a_transaction", &KINDS) {
        return;
    }
    let world = World::start(KINDS[0], KINDS[1], 0.01).await;
    let mut source = connect(&world.source, Account::Root).await;
    for statement in [
        "USE school",
        "CREATE TABLE level_1 (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB",
        "CREATE TABLE level_2 (id INT NOT NULL PRIMARY KEY, above INT, CONSTRAINT two FOREIGN KEY (above) REFERENCES level_1 (id) ON DELETE CASCADE) ENGINE=InnoDB",
        "CREATE TABLE level_3 (id INT NOT NULL PRIMARY KEY, above INT, CONSTRAINT three FOREIGN KEY (above) REFERENCES level_2 (id) ON DELETE CASCADE) ENGINE=InnoDB",
        "INSERT INTO level_1 VALUES (1), (2), (3)",
        "INSERT INTO level_2 VALUES (10, 1), (20, 2), (30, 3)",
        "INSERT INTO level_3 VALUES (100, 10), (200, 20), (300, 30)",
    ] {
        source.query_drop(statement).await.unwrap();
    }
    driven_to_the_end(&world).await;
    for statement in [
        "BEGIN",
        "INSERT INTO level_3 VALUES (101, 10)",
        "DELETE FROM level_1 WHERE id = 1",
        "UPDATE level_3 SET id = 201 WHERE id = 200",
        "INSERT INTO level_3 VALUES (301, 30)",
        "DELETE FROM level_1 WHERE id = 2",
        "INSERT INTO level_1 VALUES (1)",
        "COMMIT",
    ] {
        source.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    // After the first cascade, and, when it goes on, after the second.
    for _ in 0..2 {
        let output = world.dbmove(&["--yes", "run", &playbook]).env("DBMOVE_CRASH_AT", "apply.cascade.committed").output();
        let output = tokio::time::timeout(Duration::from_secs(60), output).await.unwrap().unwrap();
        assert_eq!(code(&output), -9, "{}", said(&output));
    }
    let verified = world.finished(&["verify", &playbook]).await;
    assert_eq!(code(&verified), 0, "{}", said(&verified));
    let mut target = connect(&world.target, Account::Root).await;
    let left: Vec<u32> = target.query("SELECT id FROM school.level_3 ORDER BY id").await.unwrap();
    assert_eq!(left, [300, 301]);
    assert_eq!(target.query::<u32, _>("SELECT id FROM school.level_1 ORDER BY id").await.unwrap(), [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_in_the_cutover_and_try_again() {
    if real::skipped("kill_in_the_cutover_and_try_again", &KINDS) {
        return;
    }
    let mut world = World::start(KINDS[0], KINDS[1], 0.02).await;
    let writers = world.write(200.0, 120.0).await;
    driven_to_the_end(&world).await;
    let playbook = world.playbook_argument();
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "crash test"];
    // Killed while writes are held: nobody comes, and the source's own server lets them through again.
    let hasty = ["--yes", "cutover", &playbook, "--without-rehearsal", "crash test", "--max-write-gap", "1s"];
    let output = world.dbmove(&hasty).env("DBMOVE_CRASH_AT", "fence.raised").output().await.unwrap();
    assert_eq!(code(&output), -9, "{}", said(&output));
    assert_eq!(world::number(&world.source, "SELECT @@global.read_only").await, 1);
    let status = said(&world.finished(&["status"]).await);
    assert!(status.contains("when its driver ended, since ") && status.contains(" that by itself at about "), "{status}");
    assert!(!status.contains("WRITES ARE HELD"), "{status}");
    tokio::time::sleep(Duration::from_secs(17)).await;
    assert_eq!(world::number(&world.source, "SELECT @@global.read_only").await, 0, "writes are still held");
    let status = said(&world.finished(&["status"]).await);
    assert!(
        status.contains("writes were held when its driver ended") && status.contains("the source was to lift that by itself"),
        "{status}"
    );
    let report = said(&world.finished(&["report"]).await);
    assert!(report.contains("write gap  held when its driver ended, of at most 1.0s; see `dbmove status`"), "{report}");
    for point in ["fence.noted", "fence.raised", "fence.disarming", "fence.disarmed", "point_of_no_return.effect_done"] {
        let output = world.dbmove(&cutover).env("DBMOVE_CRASH_AT", point).output().await.unwrap();
        assert_eq!(code(&output), -9, "{point}: {}", said(&output));
        let status = said(&world.finished(&["status"]).await);
        let nobody = status.contains("WRITES ARE HELD since ") && status.contains("nothing lifts that by itself");
        assert_eq!(nobody, !["fence.noted", "fence.raised"].contains(&point), "{point}: {status}");
        assert!(nobody || status.contains("lifts that by itself at about "), "{point}: {status}");
    }
    let output = world.finished(&cutover).await;
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.target.port()));
    tokio::time::sleep(Duration::from_millis(700)).await;
    let counts = writers.stop().await.unwrap();
    let verdict = world.ledger_on(&world.target).await;
    assert!(verdict.is_clean(), "{verdict:#?}\n{counts:?}");
    assert_eq!(world::number(&world.source, "SELECT @@global.read_only").await, 1);
    let watchdogs = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '/* dbmove watchdog%'";
    assert_eq!(world::number(&world.source, watchdogs).await, 0, "a watchdog may lift the fence behind the switch");
}

/// All is ready and a hook is asked, for as long as clients may wait; then nobody comes. The source's own server lets them through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_while_a_hook_is_asked_before_the_switch_and_nobody_comes() {
    let name = "kill_while_a_hook_is_asked_before_the_switch_and_nobody_comes";
    for (kind, target) in [(KINDS[0], KINDS[1]), (ServerKind::MariaDb, ServerKind::MariaDb)] {
        if real::skipped(name, &[kind, target]) {
            continue;
        }
        let world = World::start(kind, target, 0.01).await;
        let mut source = connect(&world.source, Account::Root).await;
        source.query_drop("CREATE TABLE school.written (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB").await.unwrap();
        let asked = world.path("asked");
        let script = format!("touch {}; exec sleep 60", asked.display());
        let hooks = format!("hooks:\n  - {{ id: ask, at: [before-switch], command: [sh, -c, \"{script}\"] }}\nstages:\n");
        let text = std::fs::read_to_string(world.playbook()).unwrap().replace("stages:\n", &hooks);
        let fence = "run: mysql.fence, store: school";
        std::fs::write(world.playbook(), text.replace(fence, &format!("{fence}, with: {{ watchdog: 31s }}"))).unwrap();
        driven_to_the_end(&world).await;
        let playbook = world.playbook_argument();
        let cutover = ["--yes", "cutover", &playbook, "--without-rehearsal", "crash test"];

        // Asked to end meanwhile, it says what becomes of clients, and lets them through first.
        let mut asking = world.started(&cutover, "asking.log");
        for _ in 0..600 {
            if asked.exists() {
                break;
            }
            assert!(asking.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(world.path("asking.log")).unwrap());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let pid = rustix::process::Pid::from_raw(i32::try_from(asking.id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), asking.wait()).await.unwrap().unwrap();
        let log = std::fs::read_to_string(world.path("asking.log")).unwrap();
        assert_eq!(ended.code(), Some(130), "{kind:?}: {log}");
        let held = "writes are HELD on the source: the cutover is undone first, and the source takes them again. Wait for that; once more stops at once, \
                    and then its own server lets them through at about ";
        assert!(log.contains(held), "{kind:?}: {log}");
        assert_eq!(world::number(&world.source, "SELECT @@global.read_only").await, 0, "{kind:?}: {log}");

        let output = world.dbmove(&cutover).env("DBMOVE_CRASH_AT", "hook.begun").output().await.unwrap();
        assert_eq!(code(&output), -9, "{kind:?}: {}", said(&output));
        let mut looks = 0;
        while world::number(&world.source, "SELECT @@global.read_only").await == 1 {
            looks += 1;
            assert!(looks < 900, "{kind:?}: nobody came, and writes are held still");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut client = connect(&world.source, Account::App).await;
        let write = client.query_drop("INSERT INTO school.written VALUES (1)");
        tokio::time::timeout(Duration::from_secs(30), write).await.expect("the lock is still held").unwrap();
        assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.source.port()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_at_random_moments_under_load_and_resume() {
    if real::skipped("kill_at_random_moments_under_load_and_resume", &KINDS) {
        return;
    }
    let wanted = if std::env::var_os("DBMOVE_SOAK").is_some() { 200 } else { 20 };
    let mut dice = Dice::thrown();
    let mut kills = 0;
    while kills < wanted {
        let (world, writers) = slow_world(0.15).await;
        let playbook = world.playbook_argument();
        let mut here = 0;
        // Some kills in the copy and the comparison, the rest while it follows.
        while here < 10 && kills < wanted {
            let mut run = world.started(&["--yes", "run", &playbook], "run.log");
            tokio::time::sleep(Duration::from_millis(150 + dice.below(1800))).await;
            let log = || std::fs::read_to_string(world.path("run.log")).unwrap();
            assert!(killed(&mut run).await, "the run ended by itself:\n{}", log());
            here += 1;
            kills += 1;
        }
        driven_to_the_end(&world).await;
        world.cut_over_and_judge(writers).await;
        eprintln!("{kills} kills survived");
    }
}

/// Fills tables that are emptied later: one that is copied in many chunks, one without a key.
async fn tables_to_empty(world: &World) -> mysql_async::Conn {
    let mut conn = connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE TABLE school.large (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, word VARCHAR(200), UNIQUE (word)) ENGINE=InnoDB",
        "CREATE TABLE school.keyless (word VARCHAR(40)) ENGINE=InnoDB",
        "INSERT INTO school.keyless VALUES ('before'), ('before')",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let values: Vec<String> = (0..20_000).map(|row| format!("('before {row} {}')", "x".repeat(120))).collect();
    for values in values.chunks(2000) {
        conn.query_drop(format!("INSERT INTO school.large (word) VALUES {}", values.join(", "))).await.unwrap();
    }
    conn
}

/// Empties both and fills them with rows that have keys and unique values of those that went.
async fn emptied(conn: &mut mysql_async::Conn, round: &str) {
    let values: Vec<String> = (0..300).map(|row| format!("({}, 'before {row} {round}')", 20_000 - row * 60)).collect();
    for statement in [
        "INSERT INTO school.keyless VALUES ('goes')".to_owned(),
        "TRUNCATE school.large".to_owned(),
        "TRUNCATE school.keyless".to_owned(),
        format!("INSERT INTO school.large VALUES {}", values.join(", ")),
        format!("INSERT INTO school.keyless VALUES ('{round}'), ('{round}')"),
        "DELETE FROM school.large WHERE id < 5000".to_owned(),
    ] {
        conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{error}\n{statement}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_emptied_while_they_are_copied_and_around_kills() {
    if real::skipped("tables_are_emptied_while_they_are_copied_and_around_kills", &KINDS) {
        return;
    }
    let (world, writers) = slow_world(0.02).await;
    let mut conn = tables_to_empty(&world).await;
    let playbook = world.playbook_argument();
    let before = "SELECT COUNT(*) FROM _dbmove.chunk WHERE table_name = 'large' AND done = 1";
    // In the middle of its copy: some chunks are in, some are read, some are not.
    let mut run = world.started(&["--yes", "run", &playbook], "run.log");
    for round in ["first", "second"] {
        let mut done = 0;
        for _ in 0..600 {
            let mut target = connect(&world.target, Account::Root).await;
            done = target.query_first::<u64, _>(before).await.ok().flatten().unwrap_or(0);
            if done >= 3 || run.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        eprintln!("{round}: {done} chunks were in");
        emptied(&mut conn, round).await;
    }
    for _ in 0..600 {
        if world::says(&world.path("run.log"), "stage verify done") || run.try_wait().unwrap().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = || std::fs::read_to_string(world.path("run.log")).unwrap();
    assert!(killed(&mut run).await, "the run ended by itself:\n{}", log());
    let points: Vec<&str> = crash::POINTS.iter().copied().filter(|point| point.starts_with("truncate.")).collect();
    assert_eq!(points.len(), 3, "{points:?}");
    for point in &points {
        // Both tables are emptied once each: with and without a key.
        for armed in [format!("{point}#1"), format!("{point}#2")] {
            emptied(&mut conn, &armed).await;
            let run = world.dbmove(&["--yes", "run", &playbook]).env("DBMOVE_CRASH_AT", &armed).output();
            let output = tokio::time::timeout(Duration::from_secs(60), run).await.expect(&armed).unwrap();
            assert_eq!(code(&output), -9, "{armed}: {}", said(&output));
        }
    }
    driven_to_the_end(&world).await;
    world.cut_over_and_judge(writers).await;
    let mut target = connect(&world.target, Account::Root).await;
    let keyless: Vec<String> = target.query("SELECT word FROM school.keyless").await.unwrap();
    assert_eq!(keyless, ["truncate.committed#2", "truncate.committed#2"]);
}

/// A run killed in its copy is given up: its undo is killed as well and goes on, while the source is gone. The target is as it was before,
/// with somebody else's table in it; then another run goes through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_given_up_leaves_nothing() {
    if real::skipped("a_run_that_is_given_up_leaves_nothing", &KINDS) {
        return;
    }
    let mut world = World::start(KINDS[0], KINDS[1], 0.05).await;
    let playbook = world.playbook_argument();
    let mut target = connect(&world.target, Account::Root).await;
    target.query_drop("CREATE DATABASE other").await.unwrap();
    target.query_drop("CREATE TABLE other.kept (id INT PRIMARY KEY)").await.unwrap();
    let tables = "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.TABLES
                  WHERE TABLE_SCHEMA NOT IN ('sys', 'mysql', 'performance_schema', 'information_schema') ORDER BY 1";
    let before: Vec<String> = target.query(tables).await.unwrap();
    let copying = world.dbmove(&["--yes", "run", &playbook]).env("DBMOVE_CRASH_AT", "copy.chunk.committed#2").output().await.unwrap();
    assert_eq!(code(&copying), -9, "{}", said(&copying));
    assert!(target.query::<String, _>(tables).await.unwrap().len() > before.len() + 5);
    world.source.kill().await.unwrap();
    let undo = ["--yes", "undo", &playbook];
    for point in ["undo.started", "undo.effect_done", "undo.effect_done#2"] {
        let output = world.dbmove(&undo).env("DBMOVE_CRASH_AT", point).output().await.unwrap();
        assert_eq!(code(&output), -9, "{point}: {}", said(&output));
    }
    let output = world.finished(&undo).await;
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert_eq!(target.query::<String, _>(tables).await.unwrap(), before);
    let databases: Vec<String> = target.query("SHOW DATABASES LIKE '%dbmove%'").await.unwrap();
    assert!(databases.is_empty(), "{databases:?}");
    world.source.restart().await.unwrap();
    let output = world.finished(&["--yes", "run", &playbook, "--no-follow", "--new-run"]).await;
    assert_eq!(code(&output), 0, "{}", said(&output));
    let comparison = world.compare().await;
    assert!(comparison.is_equal(), "{comparison:#?}");
}

/// Ends every connection that dbmove has on a server.
async fn cut(server: &LocalServer, user: &str) -> u64 {
    let mut conn = connect(server, Account::Root).await;
    // (`information_schema.PROCESSLIST` fails on 9.7 while a session sends bytes that are not text.)
    let sessions: Vec<mysql_async::Row> = conn.query("SHOW PROCESSLIST").await.unwrap();
    let of_user = |row: &&mysql_async::Row| row.get::<String, _>(1).unwrap() == user;
    let connections: Vec<u64> = sessions.iter().filter(of_user).map(|row| row.get(0).unwrap()).collect();
    for id in &connections {
        // One that has ended by itself can't be killed.
        let _ = conn.query_drop(format!("KILL {id}")).await;
    }
    connections.len() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_and_a_restarted_target_are_survived() {
    if real::skipped("lost_connections_and_a_restarted_target_are_survived", &KINDS) {
        return;
    }
    let (mut world, writers) = slow_world(0.2).await;
    let playbook = world.playbook_argument();
    let mut run = world.started(&["--yes", "run", &playbook], "run.log");
    let mut dice = Dice::thrown();
    // On a slow machine there are few to be cut at first.
    let (mut cuts, mut round) = (0, 0);
    while round < 6 || cuts <= 10 {
        assert!(round < 100, "only {cuts} connections were there to be cut");
        tokio::time::sleep(Duration::from_millis(400 + dice.below(900))).await;
        cuts += if round % 2 == 0 { cut(&world.source, "dbmove").await } else { cut(&world.target, "admin").await };
        round += 1;
    }
    world.target.kill().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.target.restart().await.unwrap();
    // It is still there, or gave up cleanly and can be resumed.
    let log = world.path("run.log");
    for _ in 0..900 {
        if world::says(&log, "stage verify done") || run.try_wait().unwrap().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(run.try_wait().unwrap().is_none(), "the run gave up:\n{text}");
    killed(&mut run).await;
    driven_to_the_end(&world).await;
    world.cut_over_and_judge(writers).await;
}
