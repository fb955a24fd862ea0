//! Bad input: a clear error that names the object, the right exit code, and nothing changed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "moving/evidence.rs"]
#[allow(dead_code, reason = "each test binary uses its own part of this")]
mod evidence;
mod real;
#[path = "moving/world.rs"]
#[allow(dead_code, reason = "each test binary uses its own part of this")]
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
    command(
        &world.source,
        &[
            "GRANT SELECT, SUPER, RELOAD, PROCESS, LOCK TABLES, REPLICATION CLIENT ON *.* TO 'no_slave'@'%' IDENTIFIED BY 'dbmove'",
            "GRANT SELECT, RELOAD, PROCESS, LOCK TABLES, REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO 'no_super'@'%' IDENTIFIED BY 'dbmove'",
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
