//! Tables that are created, dropped, renamed and altered while the run is going, on real servers under live writers: at the fence every row
//! of both sides is equal, whatever was killed in between; and what is not to be followed stops the run with its text.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dbmove::engine::crash;
use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::process::Child;
use tokio::task::JoinHandle;
use world::{World, code, connect, said};

const SETUP: &[&str] = &[
    "CREATE TABLE live (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, word VARCHAR(40), n INT NOT NULL DEFAULT 0, KEY (word)) ENGINE=InnoDB",
    "CREATE TABLE live_keyless (word VARCHAR(40)) ENGINE=InnoDB",
    "CREATE TABLE swap (id INT NOT NULL PRIMARY KEY, word VARCHAR(40)) ENGINE=InnoDB",
    "CREATE TABLE parent (id INT NOT NULL PRIMARY KEY, above INT, CONSTRAINT self FOREIGN KEY (above) REFERENCES parent (id) ON DELETE SET NULL) ENGINE=InnoDB",
    "CREATE TABLE child (id INT NOT NULL PRIMARY KEY, parent INT, CONSTRAINT of_parent FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE) ENGINE=InnoDB",
    "CREATE TABLE grandchild (id INT NOT NULL PRIMARY KEY, child INT, CONSTRAINT of_child FOREIGN KEY (child) REFERENCES child (id) ON DELETE CASCADE) ENGINE=InnoDB",
    "INSERT INTO swap VALUES (1, 'one'), (2, 'two'), (3, 'three')",
    "INSERT INTO live_keyless VALUES ('a'), ('a'), ('b')",
    "INSERT INTO parent SELECT id, NULLIF(id - 1, 0) FROM students WHERE id < 60",
    "INSERT INTO child SELECT id, id FROM parent",
    "INSERT INTO grandchild SELECT id, id FROM parent",
];

/// What happens in each phase, `{p}` being its name and `{n}` a number of its own.
const CREATED_DROPPED_RENAMED: &[&str] = &[
    "CREATE TABLE {p}_new (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, word VARCHAR(40)) ENGINE=InnoDB",
    "INSERT INTO {p}_new (word) VALUES ('one'), ('two'), ('three')",
    "UPDATE {p}_new SET word = 'changed' WHERE id = 2",
    "DELETE FROM {p}_new WHERE id = 1",
    "CREATE TABLE IF NOT EXISTS {p}_new (other INT)",
    "CREATE TABLE {p}_like LIKE {p}_new",
    "INSERT INTO {p}_like (word) VALUES ('goes'), ('goes')",
    "TRUNCATE {p}_like",
    "INSERT INTO {p}_like (word) VALUES ('like')",
    "CREATE TABLE {p}_select (PRIMARY KEY (id)) ENGINE=InnoDB SELECT id, word FROM swap",
    "UPDATE {p}_select SET word = 'selected' WHERE id = 1",
    "CREATE TABLE {p}_keyless ENGINE=InnoDB SELECT word FROM swap",
    "INSERT INTO {p}_keyless VALUES ('again'), ('again')",
    "CREATE TABLE {p}_myisam (id INT NOT NULL PRIMARY KEY, word VARCHAR(40)) ENGINE=MyISAM",
    "INSERT INTO {p}_myisam VALUES (1, 'one'), (2, 'two')",
    "CREATE TABLE {p}_brief (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB",
    "INSERT INTO {p}_brief VALUES (1), (2)",
    "DROP TABLE {p}_brief",
    "CREATE TABLE {p}_brief (word VARCHAR(10) NOT NULL PRIMARY KEY) ENGINE=InnoDB",
    "INSERT INTO {p}_brief VALUES ('another')",
    "DROP TABLE IF EXISTS {p}_never, {p}_myisam",
    "RENAME TABLE {p}_like TO {p}_renamed",
    "INSERT INTO {p}_renamed (word) VALUES ('behind the name')",
    // As an online schema tool does it.
    "CREATE TABLE {p}_swap_new LIKE swap",
    "INSERT INTO {p}_swap_new SELECT * FROM swap",
    "RENAME TABLE swap TO {p}_swap_old, {p}_swap_new TO swap",
    "INSERT INTO swap (id, word) VALUES ({n}, 'after the swap')",
    "INSERT INTO {p}_swap_old (id, word) VALUES ({n}, 'in the old one')",
    // Out of what moves, and in again.
    "RENAME TABLE {p}_select TO tmp_{p}",
    "INSERT INTO tmp_{p} (id, word) VALUES ({n}, 'outside')",
    "RENAME TABLE tmp_{p} TO {p}_select",
    "CREATE TABLE tmp_{p} (id INT NOT NULL PRIMARY KEY)",
    "DROP TABLE tmp_{p}",
    "CREATE TEMPORARY TABLE {p}_temporary (id INT NOT NULL PRIMARY KEY)",
    "INSERT INTO {p}_temporary VALUES (1)",
    "DROP TABLE {p}_temporary",
    "BEGIN",
    "INSERT INTO swap (id, word) VALUES ({n} + 1, 'committed by the next statement')",
    "CREATE TABLE {p}_child (id INT NOT NULL PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE) ENGINE=InnoDB",
    "INSERT INTO {p}_child SELECT id, id FROM parent",
    "DELETE FROM parent WHERE id = {n} + 1",
];

const ALTERED: &[&str] = &[
    "ALTER TABLE live ADD COLUMN {p}_c INT NOT NULL DEFAULT 3",
    "UPDATE live SET {p}_c = 4 WHERE id % 3 = 0",
    "ALTER TABLE live DROP COLUMN {p}_c, ADD COLUMN {p}_d VARCHAR(20) NOT NULL DEFAULT 'd' AFTER id",
    "CREATE INDEX {p}_i ON live (n)",
    "DROP INDEX {p}_i ON live",
    "ALTER TABLE live_keyless ADD COLUMN {p}_e INT DEFAULT 5",
    "DELETE FROM live_keyless LIMIT 1",
    "ALTER TABLE {p}_new RENAME TO {p}_new_2, ADD COLUMN x INT",
    "INSERT INTO {p}_new_2 (word, x) VALUES ('x', 1)",
    "DELETE FROM parent WHERE id = {n} + 2",
    "ALTER TABLE parent ADD COLUMN {p}_f INT",
    "DELETE FROM parent WHERE id = {n} + 3",
    "ALTER TABLE swap CONVERT TO CHARACTER SET utf8",
    "ALTER TABLE {p}_renamed DROP PRIMARY KEY, MODIFY id BIGINT NOT NULL, ADD PRIMARY KEY (word, id)",
    "INSERT INTO {p}_renamed (id, word) VALUES (77, 'other key')",
];

async fn run_all(conn: &mut Conn, statements: &[&str], phase: &str, number: u32) {
    for statement in statements {
        let statement = statement.replace("{p}", phase).replace("{n}", &number.to_string());
        conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{error}\n{statement}"));
    }
}

/// Writes to the tables that are altered meanwhile.
fn write_on(source: &LocalServer) -> (Arc<AtomicBool>, Arc<AtomicU64>, JoinHandle<()>) {
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let options = source.connect_options(Account::Root, Some("school"));
    let (stopped, counted) = (stop.clone(), done.clone());
    let task = tokio::spawn(async move {
        let mut conn = Conn::new(options).await.unwrap();
        while !stopped.load(Ordering::Relaxed) {
            let n = counted.load(Ordering::Relaxed);
            for statement in [
                format!("INSERT INTO live (word, n) VALUES ('w{n}', {n}), ('v{n}', {n})"),
                format!("UPDATE live SET n = n + 1, word = CONCAT('u', n) WHERE id % 50 = {}", n % 50),
                format!("DELETE FROM live WHERE id % 97 = {}", n % 97),
                format!("INSERT INTO live_keyless (word) VALUES ('k{}')", n % 3),
                format!("DELETE FROM live_keyless WHERE word = 'k{}' LIMIT 1", (n + 1) % 3),
            ] {
                // At the fence they wait.
                if conn.query_drop(statement).await.is_err() {
                    return;
                }
            }
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    });
    (stop, done, task)
}

async fn started(kinds: [ServerKind; 2], factor: f64, on_ddl: &str) -> (World, Conn) {
    let world = World::start(kinds[0], kinds[1], factor).await;
    world.stop_at_the_fence();
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let text = text.replace("include: [\"school.*\"]", &format!("include: [\"school.*\"]\n    exclude: [\"school.tmp_*\"]{on_ddl}"));
    std::fs::write(world.playbook(), text.replace("chunk_bytes: 256KiB", "chunk_bytes: 64KiB")).unwrap();
    let mut conn = connect(&world.source, Account::Root).await;
    conn.query_drop("USE school").await.unwrap();
    run_all(&mut conn, SETUP, "", 0).await;
    for some in 0..20 {
        let values: Vec<String> = (0..200).map(|row| format!("('word {row}', {some})")).collect();
        conn.query_drop(format!("INSERT INTO live (word, n) VALUES {}", values.join(", "))).await.unwrap();
    }
    (world, conn)
}

/// Waits until the log says so, or the run has ended.
async fn until(world: &World, run: &mut Child, log: &str, words: &str) {
    for _ in 0..1200 {
        if world::says(&world.path(log), words) {
            return;
        }
        if let Some(status) = run.try_wait().unwrap() {
            panic!("it ended ({status}) before `{words}`:\n{}", std::fs::read_to_string(world.path(log)).unwrap());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no `{words}`:\n{}", std::fs::read_to_string(world.path(log)).unwrap());
}

async fn tables_of(server: &LocalServer) -> Vec<String> {
    let mut conn = connect(server, Account::Root).await;
    let query = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'school' ORDER BY CAST(TABLE_NAME AS BINARY)";
    conn.query(query).await.unwrap()
}

async fn followed(test: &str, kinds: [ServerKind; 2]) {
    if real::skipped(test, &kinds) {
        return;
    }
    let (mut world, mut conn) = started(kinds, 0.02, "\n    on_ddl: apply").await;
    let writers = world.write(40.0, 20.0).await;
    let (stop, rounds, task) = write_on(&world.source);
    let playbook = world.playbook_argument();
    let mut run = world.started(&["--yes", "run", &playbook], "run.log");
    // While it is copied.
    until(&world, &mut run, "run.log", "stage prepare done").await;
    for statements in [CREATED_DROPPED_RENAMED, ALTERED] {
        run_all(&mut conn, statements, "copied", 10).await;
    }
    // Columns and tables that are gone on the source while the target is held up: what is read of them fails, and that is no failure.
    let mut held = connect(&world.target, Account::Root).await;
    // It may be on its way to begin anew, and not be there for a moment.
    while held.query_drop("LOCK TABLES school.live WRITE").await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    conn.query_drop("ALTER TABLE live DROP COLUMN copied_d, ADD COLUMN copied_g INT").await.unwrap();
    conn.query_drop("RENAME TABLE swap TO copied_swap_gone").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    conn.query_drop("RENAME TABLE copied_swap_gone TO swap").await.unwrap();
    held.query_drop("UNLOCK TABLES").await.unwrap();
    drop(held);
    // While it is compared, or has been.
    until(&world, &mut run, "run.log", "stage sync done").await;
    for statements in [CREATED_DROPPED_RENAMED, ALTERED] {
        run_all(&mut conn, statements, "compared", 20).await;
    }
    until(&world, &mut run, "run.log", "stage verify done").await;
    for statements in [CREATED_DROPPED_RENAMED, ALTERED] {
        for statement in statements {
            run_all(&mut conn, &[statement], "slow", 30).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(run.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(world.path("run.log")).unwrap());
    // While nobody follows.
    run.kill().await.unwrap();
    for statements in [CREATED_DROPPED_RENAMED, ALTERED] {
        run_all(&mut conn, statements, "away", 40).await;
    }
    stop.store(true, Ordering::Relaxed);
    task.await.unwrap();
    assert!(rounds.load(Ordering::Relaxed) > 20, "hardly anything was written meanwhile");
    world.cut_over_and_judge(writers).await;
    assert_eq!(tables_of(&world.target).await, tables_of(&world.source).await);
    let log = std::fs::read_to_string(world.path("run.log")).unwrap();
    assert!(log.contains("definitions change") && log.contains("to be copied from the start"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followed_from_5_5() {
    followed("followed_from_5_5", [ServerKind::Mysql55, ServerKind::Mysql97]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followed_from_mariadb() {
    followed("followed_from_mariadb", [ServerKind::MariaDb, ServerKind::MariaDb]).await;
}

/// Killed at every named point, some while it follows and some while it settles what changed when nobody followed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_at_every_named_point_and_resume() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("kill_at_every_named_point_and_resume", &kinds) {
        return;
    }
    let (mut world, mut conn) = started(kinds, 0.01, "\n    on_ddl: apply").await;
    let writers = world.write(40.0, 20.0).await;
    let (stop, _, task) = write_on(&world.source);
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let order = ["definitions.noted", "definitions.dropped#2", "definitions.made#2", "definitions.saved"];
    let mut listed: Vec<&str> = crash::POINTS.iter().copied().filter(|point| point.starts_with("definitions.")).collect();
    let mut here: Vec<&str> = order.iter().map(|point| point.split('#').next().unwrap()).collect();
    listed.sort_unstable();
    here.sort_unstable();
    assert_eq!(listed, here, "a point is not tried here");
    let mut number = 0;
    // Each point while it follows, and while it begins to.
    for (away, armed) in [false, true].into_iter().flat_map(|away| order.map(|armed| (away, armed))) {
        number += 1;
        let phase = format!("{}{number}", if away { "away" } else { "there" });
        let changes = [
            format!("CREATE TABLE {phase}_new LIKE swap"),
            format!("INSERT INTO {phase}_new SELECT * FROM swap"),
            format!("RENAME TABLE swap TO {phase}_old, {phase}_new TO swap"),
            format!("ALTER TABLE live ADD COLUMN {phase}_c INT NOT NULL DEFAULT 3"),
            format!("ALTER TABLE parent ADD COLUMN {phase}_c INT NOT NULL DEFAULT 3"),
            format!("ALTER TABLE live_keyless ADD COLUMN {phase}_c INT NOT NULL DEFAULT 3"),
        ];
        let mut command = world.dbmove(&["--yes", "run", &playbook]);
        command.env("DBMOVE_CRASH_AT", armed).stdout(std::process::Stdio::null());
        let mut run = None;
        if !away {
            // Nothing is left to settle when it begins.
            let log = format!("settled-{number}.log");
            let mut settling = world.started(&["--yes", "run", &playbook], &log);
            until(&world, &mut settling, &log, "follow ready").await;
            settling.kill().await.unwrap();
            run = Some(command.spawn().unwrap());
            tokio::time::sleep(Duration::from_millis(2500)).await;
        }
        for change in &changes {
            conn.query_drop(change).await.unwrap_or_else(|error| panic!("{error}\n{change}"));
        }
        let mut run = run.unwrap_or_else(|| command.spawn().unwrap());
        let status = tokio::time::timeout(Duration::from_secs(60), run.wait()).await.expect(armed).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{armed} {away}: {status}");
    }
    stop.store(true, Ordering::Relaxed);
    task.await.unwrap();
    world.cut_over_and_judge(writers).await;
    assert_eq!(tables_of(&world.target).await, tables_of(&world.source).await);
}

/// A table that left the source after it was made on the target, and before the log is read: no statement of the log will say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_dropped_before_following_begins() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("a_table_that_is_dropped_before_following_begins", &kinds) {
        return;
    }
    let (world, mut conn) = started(kinds, 0.01, "").await;
    for statement in [
        "CREATE TABLE leaves (id INT NOT NULL PRIMARY KEY) ENGINE=MyISAM",
        "CREATE TABLE renamed (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB",
        "INSERT INTO leaves VALUES (1)",
        "INSERT INTO renamed VALUES (1)",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let run = ["--yes", "run", &playbook, "--no-follow"];
    let killed = world.dbmove(&run).env("DBMOVE_CRASH_AT", "stage.done").output().await.unwrap();
    assert_eq!(code(&killed), -9, "{}", said(&killed));
    let there = tables_of(&world.target).await;
    for statement in ["DROP TABLE leaves", "RENAME TABLE renamed TO arrived", "FLUSH LOGS"] {
        conn.query_drop(statement).await.unwrap();
    }
    let ran = world.finished(&run).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    assert_ne!(tables_of(&world.target).await, there, "they were never there");
    assert_eq!(tables_of(&world.target).await, tables_of(&world.source).await);
    assert!(said(&ran).contains("dropped on the target: `school.leaves`, `school.renamed`"), "{}", said(&ran));
    assert!(world.compare().await.is_equal());
}

/// Tables that were made before following begins, and are gone when the definitions are read: all that is in the log of them are rows, and being
/// emptied. They are of no matter any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_gone_before_anybody_has_seen_it() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("a_table_that_is_gone_before_anybody_has_seen_it", &kinds) {
        return;
    }
    let (world, mut conn) = started(kinds, 0.01, "").await;
    let playbook = world.playbook_argument();
    let run = ["--yes", "run", &playbook, "--no-follow"];
    for (armed, statements) in [
        ("stage.done", &["CREATE TABLE fleeting LIKE swap", "CREATE TABLE emptied LIKE swap", "CREATE TABLE leaving LIKE swap"][..]),
        (
            "follow.begun",
            &[
                "INSERT INTO fleeting SELECT * FROM swap",
                "INSERT INTO leaving SELECT * FROM swap",
                "TRUNCATE TABLE emptied",
                "DELETE FROM fleeting",
                "DROP TABLE fleeting, emptied",
                "RENAME TABLE leaving TO arrived",
                "INSERT INTO arrived SELECT id + 1000000, word FROM live",
            ],
        ),
    ] {
        let killed = world.dbmove(&run).env("DBMOVE_CRASH_AT", armed).output().await.unwrap();
        assert_eq!(code(&killed), -9, "{armed}: {}", said(&killed));
        for statement in statements {
            conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{error}\n{statement}"));
        }
    }
    let ran = world.finished(&run).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    assert_eq!(tables_of(&world.target).await, tables_of(&world.source).await);
    let mut target = connect(&world.target, Account::Root).await;
    let query = "SELECT COUNT(*) FROM school.arrived";
    let (there, here): (Option<u64>, Option<u64>) = (target.query_first(query).await.unwrap(), conn.query_first(query).await.unwrap());
    assert!(there == here && here > Some(0), "{there:?} {here:?}");
}

/// What is not followed stops the run, shows the statement, and says what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_followed_stops_the_run() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("what_is_not_followed_stops_the_run", &kinds) {
        return;
    }
    let (world, mut conn) = started(kinds, 0.01, "").await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    // A table of that name that is somebody else's on the target is not touched.
    let mut target = connect(&world.target, Account::Root).await;
    target.query_drop("CREATE TABLE school.foreigner (id INT PRIMARY KEY)").await.unwrap();
    target.query_drop("INSERT INTO school.foreigner VALUES (7)").await.unwrap();
    conn.query_drop("CREATE TABLE foreigner (id INT PRIMARY KEY) ENGINE=InnoDB").await.unwrap();
    let refused = world.finished(&["--yes", "run", &playbook]).await;
    assert_eq!(code(&refused), 1, "{}", said(&refused));
    assert!(said(&refused).contains("`school.foreigner` was created on the source and is on the target already"), "{}", said(&refused));
    assert_eq!(world::number(&world.target, "SELECT SUM(id) FROM school.foreigner").await, 7);
    target.query_drop("DROP TABLE school.foreigner").await.unwrap();

    let mut run = world.started(&["--yes", "run", &playbook], "run.log");
    until(&world, &mut run, "run.log", "follow ready").await;
    // Created, dropped and renamed tables are followed without being asked to.
    run_all(&mut conn, CREATED_DROPPED_RENAMED, "stopping", 10).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let log = || std::fs::read_to_string(world.path("run.log")).unwrap();
    assert!(run.try_wait().unwrap().is_none(), "{}", log());
    let columns = "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'school' AND TABLE_NAME = 'live'";
    let before = world::number(&world.target, columns).await;
    conn.query_drop("ALTER TABLE live ADD COLUMN unwelcome INT").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), run.wait()).await.expect("it went on").unwrap();
    assert_eq!(ended.code(), Some(1), "{}", log());
    assert!(log().contains("`ALTER TABLE` on what is moved: ALTER TABLE live ADD COLUMN unwelcome INT"), "{}", log());
    assert!(log().contains("on_ddl: apply"), "{}", log());
    assert_eq!(world::number(&world.target, columns).await, before);
    let again = world.finished(&["--yes", "run", &playbook]).await;
    assert_eq!(code(&again), 1, "{}", said(&again));
    assert!(said(&again).contains("ALTER TABLE live ADD COLUMN unwelcome INT"), "{}", said(&again));
}
