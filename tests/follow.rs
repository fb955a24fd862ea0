//! What may stand in a binary log beside row changes, on real servers: what does not concern the move stops nothing, what
//! does is followed exactly, and what can't be followed stops the run with its text and what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use dbmove::local::{Account, ServerKind};
use mysql_async::prelude::Queryable;
use world::{World, code, said};

/// Happens while the school is followed. Each line is one statement of one session with `school` selected.
const EVERYTHING: &[&str] = &[
    // Tables that are left out may change as they like.
    "CREATE TABLE tmp_import (id INT NOT NULL PRIMARY KEY, line VARCHAR(200)) ENGINE=InnoDB",
    "INSERT INTO tmp_import VALUES (1, 'one'), (2, 'two')",
    "ALTER TABLE tmp_import ADD COLUMN more INT",
    "CREATE INDEX students ON tmp_import (more)",
    "RENAME TABLE tmp_import TO tmp_import_2",
    "TRUNCATE tmp_import_2",
    "CREATE TABLE tmp_copy AS SELECT * FROM kept LIMIT 10",
    "DROP TABLE IF EXISTS tmp_import_2, tmp_copy, tmp_never",
    // Objects without rows.
    "CREATE OR REPLACE VIEW kept_view AS SELECT id FROM kept",
    "CREATE TRIGGER kept_trigger BEFORE UPDATE ON kept FOR EACH ROW SET NEW.seen = NEW.seen + 1",
    "CREATE PROCEDURE kept_procedure() BEGIN INSERT INTO kept (id, word) VALUES (900, 'by a routine'); UPDATE kept SET word = 'x' WHERE id = 1; END",
    "CREATE FUNCTION kept_function() RETURNS INT DETERMINISTIC RETURN 1",
    "CREATE EVENT kept_event ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM kept",
    "CALL kept_procedure()",
    // As a dump of MyISAM tables has it.
    "/*!40000 ALTER TABLE kept_myisam DISABLE KEYS */",
    "INSERT INTO kept_myisam VALUES (10, 'ten')",
    "/*!40000 ALTER TABLE kept_myisam ENABLE KEYS */",
    "OPTIMIZE TABLE kept_myisam",
    "ANALYZE TABLE kept",
    // A temporary table, and rows that come from it.
    "CREATE TEMPORARY TABLE kept_temporary (id INT NOT NULL PRIMARY KEY, word VARCHAR(40))",
    "INSERT INTO kept_temporary VALUES (20, 'through a temporary table')",
    "INSERT INTO kept (id, word) SELECT id, word FROM kept_temporary",
    "DROP TEMPORARY TABLE kept_temporary",
    // Savepoints: only what was not rolled back counts; MyISAM rows stay whatever happens.
    "BEGIN",
    "INSERT INTO kept (id, word) VALUES (30, 'kept')",
    "SAVEPOINT `a point`",
    "INSERT INTO kept (id, word) VALUES (31, 'rolled back')",
    "UPDATE kept SET word = 'rolled back' WHERE id = 2",
    "ROLLBACK TO SAVEPOINT `a point`",
    "SAVEPOINT b",
    "INSERT INTO kept (id, word) VALUES (32, 'kept')",
    "RELEASE SAVEPOINT b",
    "COMMIT",
    "BEGIN",
    "INSERT INTO kept (id, word) VALUES (40, 'rolled back')",
    "INSERT INTO kept_myisam VALUES (40, 'stays')",
    "ROLLBACK",
    "BEGIN",
    "INSERT INTO kept (id, word) VALUES (41, 'rolled back')",
    "ROLLBACK",
    // Several tables and several databases in one transaction and one statement.
    "CREATE DATABASE elsewhere",
    "CREATE TABLE elsewhere.t (id INT NOT NULL PRIMARY KEY, word VARCHAR(40)) ENGINE=InnoDB",
    "BEGIN",
    "INSERT INTO elsewhere.t VALUES (1, 'one'), (2, 'two')",
    "INSERT INTO kept (id, word) VALUES (50, 'beside another database')",
    "UPDATE kept, elsewhere.t SET kept.word = t.word, t.word = 'changed' WHERE kept.id = t.id",
    "DELETE kept FROM kept JOIN elsewhere.t ON t.id = kept.id WHERE t.id = 2",
    "COMMIT",
    "USE elsewhere",
    "INSERT INTO school.kept (id, word) VALUES (51, 'with another database selected')",
    "DROP TABLE t",
    "USE school",
    "DROP DATABASE elsewhere",
    // Two-phase transactions.
    "XA START 'one'",
    "INSERT INTO kept (id, word) VALUES (60, 'XA')",
    "XA END 'one'",
    "XA PREPARE 'one'",
    "XA COMMIT 'one'",
    "XA START 'two'",
    "INSERT INTO kept (id, word) VALUES (61, 'XA rolled back')",
    "XA END 'two'",
    "XA ROLLBACK 'two'",
    "XA START 'three'",
    "INSERT INTO kept (id, word) VALUES (62, 'XA in one phase')",
    "XA END 'three'",
    "XA COMMIT 'three' ONE PHASE",
    "XA START 'held', 'branch', 7",
    "INSERT INTO kept (id, word) VALUES (63, 'prepared while others commit')",
    "INSERT INTO emptied_keyless VALUES ('XA'), ('XA')",
    "XA END 'held', 'branch', 7",
    "XA PREPARE 'held', 'branch', 7",
    "{other}INSERT INTO kept (id, word) VALUES (64, 'between prepare and commit')",
    "{other}INSERT INTO emptied_keyless VALUES ('between'), ('between')",
    "XA COMMIT 'held', 'branch', 7",
    "XA START 'dropped'",
    "INSERT INTO kept (id, word) VALUES (65, 'prepared and rolled back')",
    "XA END 'dropped'",
    "XA PREPARE 'dropped'",
    "XA ROLLBACK 'dropped'",
    // Tables that are emptied, with rows before and behind.
    "INSERT INTO emptied VALUES (2, 'goes'), (3, 'goes')",
    "TRUNCATE TABLE emptied",
    "INSERT INTO emptied VALUES (2, 'comes'), (7, 'comes')",
    "TRUNCATE school.emptied_myisam",
    "INSERT INTO emptied_myisam VALUES (2, 'comes')",
    "INSERT INTO emptied_keyless VALUES ('goes'), ('goes')",
    "TRUNCATE emptied_keyless",
    "INSERT INTO emptied_keyless VALUES ('comes'), ('comes'), ('comes')",
    "SET FOREIGN_KEY_CHECKS = 0",
    "TRUNCATE emptied_parent",
    "SET FOREIGN_KEY_CHECKS = 1",
    "INSERT INTO emptied_parent VALUES (2)",
    // One transaction over both engines, and a statement that fails in its middle.
    "BEGIN",
    "INSERT INTO emptied VALUES (20, 'with MyISAM')",
    "INSERT INTO emptied_myisam VALUES (20, 'with InnoDB')",
    "UPDATE emptied JOIN emptied_myisam USING (id) SET emptied.word = 'both', emptied_myisam.word = 'both'",
    "COMMIT",
    // Quotes that are names.
    "SET sql_mode = 'ANSI_QUOTES'",
    "CREATE TABLE \"tmp_quoted\" (\"students\" INT)",
    "ALTER TABLE \"school\".\"tmp_quoted\" ADD x INT",
    "DROP TABLE \"tmp_quoted\"",
    "TRUNCATE \"emptied_myisam\"",
    "SET sql_mode = ''",
    "INSERT INTO emptied_myisam VALUES (30, 'after the quotes')",
    // The log itself.
    "FLUSH LOGS",
    "INSERT INTO kept (id, word) VALUES (70, 'in the next file')",
    "FLUSH TABLES",
    // A clock that is set back: positions count, not times.
    "SET TIMESTAMP = 946684800",
    "INSERT INTO kept (id, word) VALUES (80, 'in the year 2000')",
    "SET TIMESTAMP = DEFAULT",
    // A file: under ROW its rows are in the log.
    "LOAD DATA INFILE '{file}' INTO TABLE kept (id, word)",
    "DROP VIEW kept_view",
    "DROP TRIGGER kept_trigger",
    "DROP PROCEDURE kept_procedure",
    "DROP FUNCTION kept_function",
    "DROP EVENT kept_event",
    "GRANT SELECT ON school.* TO 'reader'@'%' IDENTIFIED BY 'x'",
];

async fn everything_is_followed(test: &str, source: ServerKind) {
    let kinds = [source, ServerKind::Mysql97];
    if real::skipped(test, &kinds) {
        return;
    }
    let mut options = world::source_options(source);
    if source == ServerKind::Mysql56 {
        options = options.argument("--lower-case-table-names=1");
    }
    let mut world = World::start_with(source, &options, kinds[1], 0.01).await;
    let mut conn = world::connect(&world.source, Account::Root).await;
    let mut other = world::connect(&world.source, Account::Root).await;
    other.query_drop("USE school").await.unwrap();
    for statement in [
        "USE school",
        "CREATE TABLE kept (id INT NOT NULL PRIMARY KEY, word VARCHAR(40), seen INT NOT NULL DEFAULT 0) ENGINE=InnoDB",
        "CREATE TABLE kept_myisam (id INT NOT NULL PRIMARY KEY, word VARCHAR(40), KEY (word)) ENGINE=MyISAM",
        "INSERT INTO kept (id, word) VALUES (1, 'one'), (2, 'two')",
        "CREATE TABLE emptied (id INT NOT NULL PRIMARY KEY, word VARCHAR(40)) ENGINE=InnoDB",
        "INSERT INTO emptied VALUES (1, 'one')",
        "CREATE TABLE emptied_myisam (id INT NOT NULL PRIMARY KEY, word VARCHAR(40)) ENGINE=MyISAM",
        "INSERT INTO emptied_myisam VALUES (1, 'one')",
        "CREATE TABLE emptied_keyless (word VARCHAR(40)) ENGINE=InnoDB",
        "INSERT INTO emptied_keyless VALUES ('one'), ('one')",
        "CREATE TABLE emptied_parent (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB",
        "CREATE TABLE emptied_child (id INT NOT NULL PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES emptied_parent (id) ON DELETE CASCADE) ENGINE=InnoDB",
        "INSERT INTO emptied_parent VALUES (1), (2)",
        "INSERT INTO emptied_child VALUES (10, 1), (11, 2)",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    world.stop_at_the_fence();
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    std::fs::write(world.playbook(), text.replace("include: [\"school.*\"]", "include: [\"school.*\"]\n    exclude: [\"school.tmp_*\"]"))
        .unwrap();
    let file = world.path("rows.tsv");
    std::fs::write(&file, "90\tfrom a file\n91\tfrom a file\n").unwrap();
    let writers = world.write(50.0, 20.0).await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    for statement in EVERYTHING {
        let statement = statement.replace("{file}", &file.display().to_string());
        let (conn, statement) = match statement.strip_prefix("{other}") {
            Some(statement) => (&mut other, statement),
            None => (&mut conn, statement.as_str()),
        };
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{error}\n{statement}"));
    }
    if source == ServerKind::Mysql56 {
        // Names as they were typed, where they are stored in lower case.
        conn.query_drop("CREATE TABLE TMP_Shouted (a INT)").await.unwrap();
        conn.query_drop("DROP TABLE School.TMP_SHOUTED").await.unwrap();
        conn.query_drop("TRUNCATE School.EMPTIED_Myisam").await.unwrap();
    }
    // Letters of another charset: their second bytes are a backtick, a backslash, and a letter of latin1 that is no UTF-8.
    for statement in [
        &b"SET NAMES gbk"[..],
        b"CREATE TABLE `tmp_\x81\x60` (a INT, `\x81\x5c` INT COMMENT '\x81\x5c')",
        b"DROP TABLE `tmp_\x81\x60`",
        b"SET NAMES latin1",
        b"CREATE TABLE `tmp_sch\xfcler` (a INT)",
        b"DROP TABLE IF EXISTS `tmp_sch\xfcler`, `tmp_never`",
        b"SET NAMES utf8",
    ] {
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{error}\n{}", statement.escape_ascii()));
    }
    let verdict = world.cut_over_and_judge(writers).await;
    assert!(verdict.acknowledged > 50, "{verdict:?}");
    let mut target = world::connect(&world.target, Account::Root).await;
    let kept: Vec<u32> = target.query("SELECT id FROM school.kept ORDER BY id").await.unwrap();
    assert_eq!(kept, [1, 20, 30, 32, 50, 51, 60, 62, 63, 64, 70, 80, 90, 91, 900]);
    let emptied: Vec<(u32, String)> = target.query("SELECT id, word FROM school.emptied ORDER BY id").await.unwrap();
    let emptied: Vec<(u32, &str)> = emptied.iter().map(|(id, word)| (*id, word.as_str())).collect();
    assert_eq!(emptied, [(2, "both"), (7, "comes"), (20, "both")]);
    let keyless: Vec<String> = target.query("SELECT word FROM school.emptied_keyless ORDER BY word").await.unwrap();
    assert_eq!(keyless, ["comes", "comes", "comes"]);
    let children: Vec<u32> = target.query("SELECT id FROM school.emptied_child ORDER BY id").await.unwrap();
    assert_eq!(children, [10, 11]);
    let kept: Vec<u32> = target.query("SELECT id FROM school.kept_myisam ORDER BY id").await.unwrap();
    assert_eq!(kept, [10, 40]);
    let log = std::fs::read_to_string(world.path("cutover.log")).unwrap();
    assert!(log.contains("`CREATE TRIGGER` on the source at"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_followed_on_5_5() {
    everything_is_followed("everything_is_followed_on_5_5", ServerKind::Mysql55).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_followed_on_5_6() {
    everything_is_followed("everything_is_followed_on_5_6", ServerKind::Mysql56).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_followed_on_mariadb() {
    everything_is_followed("everything_is_followed_on_mariadb", ServerKind::MariaDb).await;
}

/// Fills the log by `rows` rows of an included table.
async fn fill_the_log(world: &World, rows: u32) {
    let mut conn = world::connect(&world.source, Account::Root).await;
    let values: Vec<String> = (0..rows).map(|row| format!("({}, '{}')", 100_000 + row, "x".repeat(200))).collect();
    conn.query_drop("CREATE TABLE IF NOT EXISTS school.tmp_log (id INT PRIMARY KEY, word VARCHAR(200)) ENGINE=InnoDB").await.unwrap();
    for values in values.chunks(500) {
        conn.query_drop(format!("REPLACE INTO school.tmp_log VALUES {}", values.join(", "))).await.unwrap();
    }
}

/// A log that starts over under the same names is never taken for the one that was followed, whether it is shorter or longer
/// and whether dbmove reads it or is away; and what a session keeps out of the log is found by comparing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_log_of_the_same_name_and_rows_that_are_in_none() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("another_log_of_the_same_name_and_rows_that_are_in_none", &kinds) {
        return;
    }
    let world = World::start(kinds[0], kinds[1], 0.01).await;
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    std::fs::write(world.playbook(), text.replace("include: [\"school.*\"]", "include: [\"school.*\"]\n    exclude: [\"school.tmp_*\"]"))
        .unwrap();
    let playbook = world.playbook_argument();
    let mut conn = world::connect(&world.source, Account::Root).await;
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));

    for statement in ["SET sql_log_bin = 0", "UPDATE school.students SET nickname = 'in no log' WHERE id = 3", "SET sql_log_bin = 1"] {
        conn.query_drop(statement).await.unwrap();
    }
    let verified = world.finished(&["--yes", "verify", &playbook]).await;
    assert_eq!(code(&verified), 3, "{}", said(&verified));
    assert!(said(&verified).contains("nickname") && said(&verified).contains("in no log"), "{}", said(&verified));
    for statement in ["SET sql_log_bin = 0", "UPDATE school.students SET nickname = 'NULL' WHERE id = 3", "SET sql_log_bin = 1"] {
        conn.query_drop(statement).await.unwrap();
    }

    // Read on, over the end of the files that are reset: it stops by itself.
    conn.query_drop("FLUSH LOGS").await.unwrap();
    let log = world.path("run.log");
    let mut run = world.started(&["--yes", "run", &playbook], "run.log");
    for _ in 0..600 {
        if world::says(&log, "follow ready") || run.try_wait().unwrap().is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    conn.query_drop("RESET MASTER").await.unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), run.wait()).await.expect("it went on").unwrap();
    let words = std::fs::read_to_string(&log).unwrap();
    assert_eq!(ended.code(), Some(1), "{words}");
    assert!(words.contains("RESET MASTER") && words.contains("--new"), "{words}");

    // Away while it happened: shorter, then longer than what was saved. `students` must not change by what is in it.
    let before = world::number(&world.target, "SELECT COUNT(*) FROM school.students").await;
    for rows in [0, 8000] {
        fill_the_log(&world, rows).await;
        if rows > 0 {
            // As many files as there were.
            conn.query_drop("FLUSH LOGS").await.unwrap();
            fill_the_log(&world, rows).await;
        }
        conn.query_drop("DELETE FROM school.grades LIMIT 1").await.unwrap();
        let again = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
        eprintln!("--- {rows} rows: {}", said(&again));
        assert_eq!(code(&again), 1, "{}", said(&again));
        assert!(said(&again).contains("--new"), "{}", said(&again));
        if rows > 0 {
            assert!(said(&again).contains("is not the one that was followed"), "{}", said(&again));
        }
        assert_eq!(world::number(&world.target, "SELECT COUNT(*) FROM school.students").await, before);
    }
}

/// A MEMORY table is empty after its server died, which the server logs as a statement when the table is next used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_dies_and_its_memory_tables() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("a_source_that_dies_and_its_memory_tables", &kinds) {
        return;
    }
    let mut world = World::start(kinds[0], kinds[1], 0.01).await;
    world.stop_at_the_fence();
    let mut conn = world::connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE TABLE school.fleeting (id INT NOT NULL PRIMARY KEY, word VARCHAR(40)) ENGINE=MEMORY",
        "CREATE TABLE school.untouched (id INT NOT NULL PRIMARY KEY) ENGINE=MEMORY",
        "INSERT INTO school.fleeting VALUES (1, 'goes'), (2, 'goes')",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let log = world.path("run.log");
    let mut run = world.started(&["--yes", "run", &playbook], "run.log");
    for _ in 0..600 {
        if world::says(&log, "stage verify done") || run.try_wait().unwrap().is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    drop(conn);
    world.source.kill().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    world.source.restart().await.unwrap();
    let mut conn = world::connect(&world.source, Account::Root).await;
    for statement in [
        "BEGIN",
        "INSERT INTO school.fleeting VALUES (2, 'comes'), (3, 'comes')",
        "COMMIT",
        "UPDATE school.fleeting SET word = 'comes again' WHERE id = 3",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let writers = world.write(50.0, 20.0).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(run.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(&log).unwrap());
    world.cut_over_and_judge(writers).await;
    let mut target = world::connect(&world.target, Account::Root).await;
    let rows: Vec<(u32, String)> = target.query("SELECT id, word FROM school.fleeting ORDER BY id").await.unwrap();
    assert_eq!(rows, [(2, "comes".to_owned()), (3, "comes again".to_owned())]);
}
