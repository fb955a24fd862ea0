//! Bad input: a clear error that names the object, the right exit code, and nothing changed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "refusals/between.rs"]
mod between;
#[path = "moving/evidence.rs"]
mod evidence;
mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use mysql_async::prelude::Queryable as _;

use dbmove::local::{LocalServer, ServerOptions};
use evidence::{PAIR, Untouched, accepts_writes, ask, command, connect_as, ended, settings, verdict, wait_for};
use world::{World, code, said};

/// One thing that is wrong, what is expected of it, and a name for the snapshot.
struct Case {
    name: &'static str,
    code: i32,
    playbook: String,
}

/// What the words of every refusal have to say.
async fn refused(world: &World, case: &Case, arguments: &[&str]) {
    let path = world.path(&format!("{}.yaml", case.name));
    std::fs::write(&path, &case.playbook).unwrap();
    let path = path.display().to_string();
    let state = world.path(&format!("state-{}", case.name)).display().to_string();
    let before = Untouched::now(world).await;
    let mut words = vec!["--yes", "--state-dir", &state, arguments[0], &path];
    words.extend(&arguments[1..]);
    let began = std::time::Instant::now();
    let output = world.finished(&words).await;
    eprintln!("--- {} ({:?}): exit {}\n{}", case.name, began.elapsed(), code(&output), said(&output));
    settings(world).bind(|| insta::assert_snapshot!(case.name, verdict(&output)));
    assert_eq!(code(&output), case.code, "{}: {}", case.name, said(&output));
    assert_eq!(Untouched::now(world).await, before, "{}: something was touched", case.name);
    assert!(!said(&output).contains("panicked"), "{}", said(&output));
}

/// Whatever stands in the way before the first row: found before anything is touched. One pair of servers for all of
/// them, because none may change it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_row() {
    if real::skipped("before_the_first_row", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    let good = world.playbook_text("30s");
    let source_endpoint = format!("mysql://dbmove@127.0.0.1:{}/", world.source.port());
    let target_endpoint = format!("mysql://admin@127.0.0.1:{}/", world.target.port());
    let most = "SELECT, INSERT, DELETE, CREATE, DROP, SHOW VIEW, TRIGGER, EVENT, RELOAD, LOCK TABLES, REPLICATION CLIENT";
    let global = "RELOAD, PROCESS, SUPER, REPLICATION CLIENT, REPLICATION SLAVE";
    command(
        &world.source,
        &[
            &format!("GRANT {most}, SUPER, PROCESS ON *.* TO 'no_slave'@'%' IDENTIFIED BY 'dbmove'"),
            &format!("GRANT {most}, PROCESS, REPLICATION SLAVE ON *.* TO 'no_super'@'%' IDENTIFIED BY 'dbmove'"),
            &format!("GRANT {most}, SUPER, REPLICATION SLAVE ON *.* TO 'no_process'@'%' IDENTIFIED BY 'dbmove'"),
            // As somebody grants who thinks of tables: no view, trigger or event would be listed, and the canary's mark could not be read.
            &format!("GRANT {global} ON *.* TO 'tables_only'@'%' IDENTIFIED BY 'dbmove'"),
            "GRANT SELECT, LOCK TABLES ON school.* TO 'tables_only'@'%'",
            "GRANT CREATE, INSERT, DELETE, DROP ON `\\_dbmove\\_canary`.* TO 'tables_only'@'%'",
            "GRANT DROP ON `\\_dbmove\\_fence\\_probe`.* TO 'tables_only'@'%'",
        ],
    )
    .await;
    command(
        &world.target,
        &[
            "CREATE USER 'reader'@'%' IDENTIFIED BY 'dbmove'",
            "GRANT SELECT, PROCESS, REPLICATION CLIENT, SHOW DATABASES ON *.* TO 'reader'@'%'",
            "CREATE USER 'half'@'%' IDENTIFIED BY 'dbmove'",
            "GRANT SELECT, PROCESS, REPLICATION CLIENT, SHOW DATABASES ON *.* TO 'half'@'%'",
            "GRANT ALL PRIVILEGES ON `_dbmove`.* TO 'half'@'%'",
        ],
    )
    .await;
    let password = "password: \"${env:DBMOVE_TEST_PASSWORD}\"";
    std::fs::write(world.path("wrong"), "not-the-password").unwrap();
    std::fs::set_permissions(world.path("wrong"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let wrong = format!("password: \"${{file:{}}}\"", world.path("wrong").display());
    let source_line = format!("{source_endpoint}\", {password}");
    let target_line = format!("{target_endpoint}\", {password}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let change = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let account = |endpoint: &str, user: &str| change(endpoint, &format!("mysql://{user}@{}", endpoint.split('@').nth(1).unwrap()));
    let cases = [
        Case { name: "wrong_source_password", code: 1, playbook: change(&source_line, &source_line.replace(password, &wrong)) },
        Case { name: "wrong_target_password", code: 1, playbook: change(&target_line, &target_line.replace(password, &wrong)) },
        Case { name: "source_account_without_replication_slave", code: 4, playbook: account(&source_endpoint, "no_slave") },
        Case { name: "source_account_without_super", code: 4, playbook: account(&source_endpoint, "no_super") },
        Case { name: "source_account_without_process", code: 4, playbook: account(&source_endpoint, "no_process") },
        Case { name: "source_account_for_tables_only", code: 4, playbook: account(&source_endpoint, "tables_only") },
        Case { name: "target_account_may_only_read", code: 4, playbook: account(&target_endpoint, "reader") },
        Case { name: "target_account_may_not_create_the_database", code: 4, playbook: account(&target_endpoint, "half") },
        Case { name: "unknown_database", code: 1, playbook: change("\"school.*\"", "\"scool.*\"") },
        Case { name: "one_of_two_databases_unknown", code: 4, playbook: change("\"school.*\"", "\"school.*\", \"scool.*\"") },
        Case { name: "unreachable_source", code: 1, playbook: change(&source_endpoint, &format!("mysql://dbmove@{nobody}/")) },
        Case { name: "unreachable_target", code: 1, playbook: change(&target_endpoint, &format!("mysql://admin@{nobody}/")) },
        Case { name: "source_is_the_target", code: 2, playbook: change(&target_endpoint, &source_endpoint) },
    ];
    let mut failed = Vec::new();
    for case in &cases {
        use futures_util::FutureExt as _;
        if std::panic::AssertUnwindSafe(refused(&world, case, &["run", "--no-follow"])).catch_unwind().await.is_err() {
            failed.push(case.name);
        }
    }
    // What is wrong on the servers themselves.
    let as_it_is = |name: &'static str| Case { name, code: 4, playbook: good.clone() };
    command(&world.source, &["SET GLOBAL binlog_format = 'STATEMENT'"]).await;
    refused(&world, &as_it_is("binlog_format_statement"), &["run", "--no-follow"]).await;
    command(&world.source, &["SET GLOBAL binlog_format = 'ROW'"]).await;
    command(
        &world.target,
        &["CREATE DATABASE school", "CREATE TABLE school.students (id INT PRIMARY KEY)", "INSERT INTO school.students VALUES (7)"],
    )
    .await;
    refused(&world, &as_it_is("target_table_there"), &["run", "--no-follow"]).await;
    command(&world.target, &["DROP DATABASE school"]).await;
    // A cutover needs a certificate; a rehearsal servers of its own, however they are written.
    refused(&world, &as_it_is("no_certificate"), &["cutover", "--deadline", "1h"]).await;
    // Longer than the playbook says, and not as long as the command does.
    let fence = "{ id: fence, run: mysql.fence, store: school }";
    let watched = change(fence, "{ id: fence, run: mysql.fence, store: school, with: { watchdog: 45s } }");
    let case = Case { name: "watchdog_would_bite", code: 4, playbook: watched };
    let longer = ["cutover", "--deadline", "1h", "--max-write-gap", "50s", "--without-rehearsal", "a test"];
    refused(&world, &case, &longer).await;
    let rehearsal = |source: &str, target: &str| {
        let endpoint = |url: &str| format!("{{ url: \"{url}\", {password}, tls: off }}");
        change(
            "    include:",
            &format!("    rehearsal:\n      source: {}\n      target: {}\n    include:", endpoint(source), endpoint(target)),
        )
    };
    let elsewhere = "mysql://dbmove@127.0.0.1:9/";
    let by_name = target_endpoint.replace("127.0.0.1", "localhost");
    let case = Case { name: "rehearsal_on_the_production_target", code: 4, playbook: rehearsal(elsewhere, &by_name) };
    refused(&world, &case, &["rehearse"]).await;
    let by_name = source_endpoint.replace("127.0.0.1", "localhost");
    let case = Case { name: "rehearsal_on_the_production_source", code: 4, playbook: rehearsal(&by_name, elsewhere) };
    refused(&world, &case, &["rehearse"]).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert!(Untouched::now(&world).await.holds_nothing_of_ours());
    assert!(accepts_writes(&world.source).await);
}

/// Without a binary log there is nothing to follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_without_a_log() {
    if real::skipped("source_without_a_log", &PAIR) {
        return;
    }
    let mut world = World::start(PAIR[0], PAIR[1], 0.01).await;
    let silent = ServerOptions::default().binlog(false);
    let silent = LocalServer::start(PAIR[0], &world.path("silent"), &silent).await.unwrap();
    command(&silent, &["CREATE DATABASE school", "CREATE TABLE school.t (id INT PRIMARY KEY)"]).await;
    world.source = silent;
    std::fs::write(world.route(), format!("127.0.0.1:{}\n", world.source.port())).unwrap();
    let case = Case { name: "log_bin_off", code: 4, playbook: world.playbook_text("30s") };
    refused(&world, &case, &["run", "--no-follow"]).await;
}

/// A move under way: who else comes, and what goes wrong on the source meanwhile. The source serves throughout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_at_work() {
    if real::skipped("others_at_work", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    let playbook = world.playbook_argument();
    let log = world.path("log");
    let mut run = world.started(&["--yes", "run", &playbook], "log");
    wait_for(&mut run, &log, "rows done").await;

    // The same run, a second driver.
    let second = world.finished(&["--yes", "run", &playbook]).await;
    assert_eq!(code(&second), 7, "{}", said(&second));
    assert!(said(&second).contains("process") && said(&second).contains("nothing was touched"), "{}", said(&second));

    // Another run, by someone who knows nothing of this one.
    let case = Case { name: "target_claimed_by_another_run", code: 7, playbook: world.playbook_text("30s") };
    refused(&world, &case, &["run", "--no-follow"]).await;
    assert!(run.try_wait().unwrap().is_none(), "the first driver did not survive the others");

    // A session that writes statements: its rows are not in the log.
    let position = ask(&world.target, "SELECT CONCAT(applied_file, applied_offset) FROM _dbmove.follow").await;
    let mut conn = connect_as(&world.source, "dbmove").await;
    conn.query_drop("SET SESSION binlog_format = 'STATEMENT'").await.unwrap();
    conn.query_drop("UPDATE school.students SET nickname = 'by statement' WHERE id = 1").await.unwrap();
    let (exit, words) = ended(&mut run, &log).await;
    eprintln!("--- statement: exit {exit}\n{words}");
    assert_eq!(exit, 1, "{words}");
    assert!(words.contains("UPDATE school.students SET nickname = 'by statement'"), "{words}");
    assert!(words.contains("binlog_format"), "{words}");
    assert!(!position.is_empty());
    assert!(accepts_writes(&world.source).await);
    let row = ask(&world.target, "SELECT nickname FROM school.students WHERE id = 1").await;
    assert_ne!(row, "by statement");
}

/// Puts the target back to how it was before any run.
async fn cleaned(world: &World) {
    command(&world.target, &["DROP DATABASE IF EXISTS school", "DROP DATABASE IF EXISTS _dbmove"]).await;
}

/// What must not happen on the source while it is followed: named when it does, and the source serves on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_changes_under_the_run() {
    if real::skipped("the_source_changes_under_the_run", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    let playbook = world.playbook_argument();
    let log = world.path("log");

    // Another structure.
    let mut run = world.started(&["--yes", "--state-dir", &world.path("ddl").display().to_string(), "run", &playbook], "log");
    wait_for(&mut run, &log, "rows done").await;
    command(&world.source, &["ALTER TABLE school.students ADD COLUMN shoe_size INT"]).await;
    let (exit, words) = ended(&mut run, &log).await;
    assert_eq!(exit, 1, "{words}");
    assert!(words.contains("ALTER TABLE school.students ADD COLUMN shoe_size INT"), "{words}");
    assert!(accepts_writes(&world.source).await);
    // It does not get past it by being started again.
    let state = world.path("ddl").display().to_string();
    for arguments in [&["run", &playbook][..], &["cutover", &playbook, "--without-rehearsal", "test", "--deadline", "1h"]] {
        let mut words = vec!["--yes", "--state-dir", &state];
        words.extend(arguments);
        let again = world.finished(&words).await;
        eprintln!("--- ddl again: exit {}\n{}", code(&again), said(&again));
        assert_eq!(code(&again), 1, "{}", said(&again));
        assert!(said(&again).contains("shoe_size"), "{}", said(&again));
        assert!(accepts_writes(&world.source).await);
    }
    cleaned(&world).await;

    // A log that is gone before it was read.
    let state = world.path("purge").display().to_string();
    let ran = world.finished(&["--yes", "--state-dir", &state, "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    assert!(accepts_writes(&world.source).await);
    command(&world.source, &["FLUSH LOGS", "FLUSH LOGS"]).await;
    let last = ask(&world.source, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME = 'LOG_BIN'").await;
    assert_eq!(last, "ON");
    command(&world.source, &["PURGE BINARY LOGS TO 'binlog.000003'"]).await;
    let before = Untouched::now(&world).await;
    for arguments in [&["run", &playbook][..], &["cutover", &playbook, "--without-rehearsal", "test", "--deadline", "1h"]] {
        let mut words = vec!["--yes", "--state-dir", &state];
        words.extend(arguments);
        let gone = world.finished(&words).await;
        eprintln!("--- purged: exit {}\n{}", code(&gone), said(&gone));
        assert_eq!(code(&gone), 1, "{}", said(&gone));
        assert!(said(&gone).contains("expire_logs_days") && said(&gone).contains("binlog.000001"), "{}", said(&gone));
        assert_eq!(Untouched::now(&world).await, before);
    }
    assert!(accepts_writes(&world.source).await);
}

/// A state directory on a full disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_full() {
    if real::skipped("disk_full", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    let state = world.state();
    std::fs::create_dir(&state).unwrap();
    let disk = match Disk::mount(&state, "8m") {
        Ok(disk) => disk,
        Err(reason) => return real::skip("disk_full", &reason),
    };
    let playbook = world.playbook_argument();

    // Full before anything began.
    disk.fill();
    let before = Untouched::now(&world).await;
    let refused = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    eprintln!("--- full at the start: exit {}\n{}", code(&refused), said(&refused));
    assert_eq!(code(&refused), 1, "{}", said(&refused));
    assert!(said(&refused).contains(&state.display().to_string()), "{}", said(&refused));
    assert!(said(&refused).contains("is full") && said(&refused).contains("nothing was started, changed or undone"), "{}", said(&refused));
    assert_eq!(Untouched::now(&world).await, before);

    // Full in the middle of it: it ends, and goes on when there is room again.
    disk.empty();
    let log = world.path("log");
    let mut run = world.started(&["--yes", "run", &playbook], "log");
    wait_for(&mut run, &log, "snapshot started").await;
    disk.fill();
    let (exit, words) = ended(&mut run, &log).await;
    eprintln!("--- full under way: exit {exit}\n{words}");
    assert_eq!(exit, 1, "{words}");
    assert!(words.contains("disk") || words.contains("full"), "{words}");
    assert!(accepts_writes(&world.source).await);
    disk.empty();
    let resumed = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&resumed), 0, "{}", said(&resumed));

    // Full before the cutover: it is undone or never begins, and the source serves.
    disk.fill();
    let cut = world.finished(&["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "test"]).await;
    eprintln!("--- full at the cutover: exit {}\n{}", code(&cut), said(&cut));
    assert_eq!(code(&cut), 1, "{}", said(&cut));
    assert!(said(&cut).contains("is full") && !said(&cut).contains("disk I/O error"), "{}", said(&cut));
    assert!(accepts_writes(&world.source).await);
    assert!(std::fs::read_to_string(world.route()).unwrap().contains(&world.source.port().to_string()));
    disk.empty();
    let cut = world.finished(&["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "test"]).await;
    assert_eq!(code(&cut), 0, "{}", said(&cut));
    let comparison = world.compare().await;
    assert!(comparison.is_equal(), "{comparison:?}");
}

/// A small file system of the test's own.
struct Disk<'a>(&'a std::path::Path);

impl<'a> Disk<'a> {
    /// Needs root; the reason why not otherwise.
    fn mount(path: &'a std::path::Path, size: &str) -> Result<Disk<'a>, String> {
        let output = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"])
            .arg(path)
            .output()
            .map_err(|error| format!("a small file system can't be mounted: {error}"))?;
        if !output.status.success() {
            return Err(format!("a small file system can't be mounted: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(Disk(path))
    }
    /// To the last byte.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            while file.write_all(&vec![0_u8; size]).is_ok() {}
        }
    }
    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// A target that takes statements of less than 1 MiB, and no streams: rows that fit get there whatever their number, by the copy and by the log; one
/// that does not is named, and once it is gone the same command goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_longer_than_the_target_takes() {
    if real::skipped("a_row_that_is_longer_than_the_target_takes", &PAIR) {
        return;
    }
    let mut world = World::start(PAIR[0], PAIR[1], 0.01).await;
    let options = ServerOptions::default().rds_like(true).argument("--max-allowed-packet=1M").argument("--local-infile=0");
    world.target = LocalServer::start(PAIR[1], &world.path("target-of-short-statements"), &options).await.unwrap();
    std::fs::write(world.playbook(), world.playbook_text("30s")).unwrap();
    let many = |from: u32| {
        let rows: Vec<String> = (from..from + 200).map(|id| format!("({id}, REPEAT('''', 3000))")).collect();
        format!("INSERT INTO school.letters VALUES {}", rows.join(", "))
    };
    command(
        &world.source,
        &[
            "CREATE TABLE school.letters (id INT PRIMARY KEY, body LONGBLOB) ENGINE = InnoDB",
            &many(1),
            "INSERT INTO school.letters VALUES (777, REPEAT('x', 2 << 20))",
        ],
    )
    .await;
    let playbook = world.playbook_argument();
    let refused = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&refused), 1, "{}", said(&refused));
    for words in ["`school.letters` (row id = 777)", "less than 1048576 (`max_allowed_packet`)", "SET GLOBAL local_infile = ON"] {
        assert!(said(&refused).contains(words), "{words}: {}", said(&refused));
    }
    command(&world.source, &["DELETE FROM school.letters WHERE id = 777", &many(1001)]).await;
    let done = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&done), 0, "{}", said(&done));
    let comparison = world.compare().await;
    assert!(comparison.is_equal(), "{comparison:#?}");
}
