//! Every check on a real 5.5.34 where it has to fire and where it must not, and the command by its exit codes.
//!
//! `fixtures/assess/<id>/fires.sql` and `quiet.sql`: the first line names the object that has to be found, or must not be;
//! `DATABASE` stands for a database of the fixture's own. A check about settings has no fixture: it is tested on settings, in
//! its own file, and is listed in [`ON_SETTINGS`].
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
mod schema;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dbmove::local::{DEFAULT_PASSWORD, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::assess::{Assessment, Looking, assess, checks};
use dbmove::mysql::connect::Server;
use dbmove::mysql::store::{MysqlStore, StoreSettings};
use dbmove::mysql::tls::Protection;
use dbmove::playbook::model::AccountsOption;
use schema::{catalog_session, selection};

const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];

/// Checks that look at settings, privileges, sessions or the target, or at what a 5.5.34 can't hold: tested beside the check, or in `refusals.rs`.
const ON_SETTINGS: [&str; 44] = [
    "open-sessions-not-row",
    "long-transactions",
    "nullable-primary-key",
    "old-decimal",
    "index-too-long",
    "key-length-767",
    "name-length",
    "fk-name-length",
    "blob-vs-redo-log",
    "tables-over-16tb",
    "rds-limits",
    "log-bin",
    "binlog-format",
    "binlog-row-image",
    "binlog-row-value-options",
    "binlog-filters",
    "server-id",
    "binlog-retention",
    "log-slave-updates",
    "source-replicates",
    "source-privileges",
    "source-database-privileges",
    "target-privileges",
    "target-process",
    "target-strangers-unseen",
    "way-back-privileges",
    "canary-privileges",
    "include-names-nothing",
    "target-claimed",
    "target-not-empty",
    "target-read-only",
    "names-differ-by-case",
    "lower-case-table-names",
    "engine-federated",
    "json-column",
    "sql-mode-drift",
    "only-full-group-by",
    "group-by-order",
    "default-collation",
    "implicit-timestamp-defaults",
    "time-zone-system-dst",
    "max-row-vs-packet",
    "app-sessions",
    "disk-space",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/assess")
}

#[test]
fn every_check_has_both_fixtures() {
    let on_settings: BTreeSet<&str> = ON_SETTINGS.into_iter().filter(|id| !id.is_empty()).collect();
    let ids: BTreeSet<&str> = checks::all().map(|check| check.id).collect();
    for id in &ids {
        let there = ["fires.sql", "quiet.sql"].map(|file| fixtures().join(id).join(file).exists());
        let wanted = [!on_settings.contains(id); 2];
        assert_eq!(there, wanted, "`{id}`: fires.sql and quiet.sql in fixtures/assess/{id}, or an entry in ON_SETTINGS, never both");
    }
    assert!(on_settings.is_subset(&ids), "ON_SETTINGS names checks that are gone");
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(ids.contains(name.as_str()), "fixtures/assess/{name} is of no check");
    }
}

fn server(server: &LocalServer, user: &str, password: Option<&str>) -> Server {
    Server {
        role: "test server".to_owned(),
        host: server.host().to_owned(),
        port: server.port(),
        user: user.to_owned(),
        password: password.map(|password| password.to_owned().into()),
        tls: Protection::Off,
        watched: None,
    }
}

async fn assessed(source: &LocalServer, target: &LocalServer, include: &[&str], accounts: AccountsOption) -> Assessment {
    let (source, target) = (server(source, "root", None), server(target, "root", None));
    let store = MysqlStore::open("s", source, target, selection(include), StoreSettings { accounts, ..StoreSettings::default() });
    assess(&store, None, &Looking::default()).await.unwrap()
}

async fn pair(directory: &Path) -> (LocalServer, LocalServer) {
    let options = ServerOptions::default().argument("--event-scheduler=ON");
    let source = LocalServer::start(KINDS[0], &directory.join("source"), &options).await.unwrap();
    let target = LocalServer::start(KINDS[1], &directory.join("target"), &ServerOptions::default()).await.unwrap();
    (source, target)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fires_where_it_has_to_and_nowhere_else() {
    if real::skipped("each_fires_where_it_has_to_and_nowhere_else", &KINDS) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (source, target) = pair(directory.path()).await;
    let mut session = catalog_session(&source).await;
    let mut wrong = Vec::new();
    for check in checks::all().filter(|check| !ON_SETTINGS.contains(&check.id)) {
        for (file, fires) in [("fires.sql", true), ("quiet.sql", false)] {
            let database = format!("{}_{}", check.id.replace('-', "_"), &file[..5]);
            let text = std::fs::read_to_string(fixtures().join(check.id).join(file)).unwrap().replace("DATABASE", &database);
            let text = text.replace(&format!("CREATE {database}"), "CREATE DATABASE");
            let (head, body) = text.split_once('\n').unwrap();
            let object = head.strip_prefix("-- object: ").unwrap();
            session.run(&format!("CREATE DATABASE `{database}`"), "test").await.unwrap();
            session.run(&format!("USE `{database}`"), "test").await.unwrap();
            for statement in body.split(";\n").filter(|statement| !statement.trim().is_empty()) {
                session.run(statement, statement).await.unwrap();
            }
            // Those about moving accounts have something to find only if accounts move.
            let accounts = if check.id.starts_with("account-") { AccountsOption::Move } else { AccountsOption::Leave };
            let assessment = assessed(&source, &target, &[&format!("{database}.*"), &format!("{database}_gone.*")], accounts).await;
            if let Some(skipped) = assessment.not_looked_at.iter().find(|skipped| skipped.id == check.id) {
                wrong.push(format!("{database}: did not look: {}", skipped.why));
            }
            let of: Vec<_> = assessment.findings.iter().filter(|finding| finding.id == check.id).collect();
            let found = of.iter().any(|finding| finding.object == object);
            if found != fires {
                wrong.push(format!("{database}: `{object}` found: {found}; {of:?}"));
            }
            for finding in of {
                let evidence = &finding.evidence;
                assert!(!evidence.asked.is_empty() && !evidence.returned.is_empty() && !finding.fix.is_empty(), "{finding:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The command: what it says, what it ends with, and that it touches nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command() {
    if real::skipped("the_command", &KINDS) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (source, target) = pair(directory.path()).await;
    let mut session = catalog_session(&source).await;
    for statement in ["CREATE DATABASE shop", "CREATE TABLE shop.goods (id INT PRIMARY KEY, y YEAR(2)) ENGINE=MyISAM"] {
        session.run(statement, "test").await.unwrap();
    }
    session.run("CREATE DEFINER='nobody'@'nowhere' VIEW shop.v AS SELECT id FROM shop.goods", "test").await.unwrap();
    let playbook = directory.path().join("shop.yaml");
    let write = |with: &str| {
        let endpoint = |server: &LocalServer| {
            format!("{{ url: \"mysql://dbmove@127.0.0.1:{}/\", password: \"${{env:DBMOVE_TEST_PASSWORD}}\", tls: off }}", server.port())
        };
        let text = format!(
            "playbook: shop\nstores:\n  shop:\n    kind: mysql\n    source: {}\n    target: {}\n    include: [\"shop.*\"]\nstages:\n  prepare:\n    - {{ id: assess, run: mysql.assess, store: shop{with} }}\n",
            endpoint(&source),
            endpoint(&target)
        );
        std::fs::write(&playbook, text).unwrap();
    };
    let state = directory.path().join("state");
    let run = |words: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_dbmove"))
            .arg("assess")
            .arg(&playbook)
            .args(words)
            .env("DBMOVE_STATE_DIR", &state)
            .env("DBMOVE_TEST_PASSWORD", DEFAULT_PASSWORD)
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        eprintln!("--- {words:?}: {:?}\n{}{}", output.status.code(), text(&output.stdout), text(&output.stderr));
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };

    write("");
    let (code, text, _) = run(&[]);
    assert_eq!(code, 4);
    assert!(text.contains("\nerrors: 1\n") && text.contains("missing-definers (1)") && text.contains("`shop.v`"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80 || !line.trim().contains(' ')), "a line is too long:\n{text}");

    write(
        ", with: { accept: [ { id: missing-definers, object: \"shop.*\", reason: \"the view is not used\" }, { id: year2, object: \"none.*\", reason: x } ] }",
    );
    let (code, text, _) = run(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("accepted: the view is not used") && text.contains("accepted, but not found: 1"), "{text}");
    assert_eq!(run(&["--fail-on", "warn"]).0, 4);
    assert_eq!(run(&["--fail-on", "info"]).0, 4);
    assert_eq!(run(&["--fail-on", "error"]).0, 0);
    let (code, _, words) = run(&["--fail-on", "warning"]);
    assert!(code == 2 && words.contains("possible values: info, warn, error"), "{words}");
    let (code, text, _) = run(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, json["errors"].as_u64(), json["format"].as_u64()), (0, Some(0), Some(1)), "{text}");
    assert!(json["next"][0].as_str().unwrap().starts_with("dbmove plan"));
    let findings = json["stores"][0]["findings"].as_array().unwrap();
    let of = |id: &str| findings.iter().find(|finding| finding["id"] == id).unwrap();
    assert_eq!(of("missing-definers")["accepted"], "the view is not used");
    assert_eq!(of("year2")["evidence"]["returned"], "year(2)");

    // In the middle of a table that is longer than both ends only `--deep` looks.
    session.run("CREATE TABLE shop.days (id INT PRIMARY KEY, day DATE NOT NULL) ENGINE=InnoDB", "test").await.unwrap();
    let days: Vec<String> = (0..9000).map(|id| format!("({id}, '{}')", if id == 4500 { "0000-00-00" } else { "2011-01-01" })).collect();
    session.run(&format!("INSERT INTO shop.days VALUES {}", days.join(", ")), "test").await.unwrap();
    let zero_date = |text: &str| {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        let store = &json["stores"][0];
        let found = store["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == "zero-dates").cloned();
        (found, store["rows"]["whole"].as_bool().unwrap(), store["rows"]["rows"].as_u64().unwrap())
    };
    let (found, whole, rows) = zero_date(&run(&["--json"]).1);
    assert!(found.is_none() && !whole && rows == 2000, "{found:?} {rows}");
    let (found, whole, rows) = zero_date(&run(&["--json", "--deep"]).1);
    let returned = found.unwrap()["evidence"]["returned"].as_str().unwrap().to_owned();
    assert!(whole && rows == 9000 && returned == "1 of 9000 (all rows were looked at); for example 0000-00-00", "{rows} {returned}");
    write(", with: { rows: none }");
    let (_, text, _) = run(&[]);
    assert!(text.contains("zero-dates: rows of the source") && text.contains("the playbook says `rows: none`"), "{text}");
    write(", with: { target_free: 1MiB }");
    let (code, text, _) = run(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 4);
    let skipped = json["stores"][0]["not_looked_at"].as_array().unwrap();
    assert!(skipped.iter().all(|skipped| skipped["id"] != "disk-space"), "{skipped:?}");

    write(", with: { accept: [ { id: missing-definer, reason: x } ] }");
    let (code, _, words) = run(&[]);
    assert_eq!(code, 2);
    assert!(words.contains("did you mean `missing-definers`?"), "{words}");
    write(", with: { accept: [ { id: missing-definers } ] }");
    let (code, _, words) = run(&[]);
    assert!(code == 2 && words.contains("reason"), "{words}");
    write(", with: { accept: [ { id: missing-definers, reason: \"  \" } ] }");
    let (code, _, words) = run(&[]);
    assert!(code == 2 && words.contains("accepted without a reason"), "{words}");
    write(", with: { accept: [ { id: log-bin, reason: x } ] }");
    let (code, _, words) = run(&[]);
    assert!(code == 2 && words.contains("can't be accepted"), "{words}");
    assert!(!state.exists(), "it made a state directory");
    let mut there = catalog_session(&target).await;
    assert_eq!(
        there
            .rows("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('shop', '_dbmove')", "test")
            .await
            .unwrap()
            .len(),
        0
    );
}

/// What assess asks the source: for each table its definition, and for many tables at once the rest. `DBMOVE_MANY_TABLES` sets the
/// number of tables (default 200; 4,800 in the soak).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_asks_hardly_grows_with_the_tables() {
    if real::skipped("what_it_asks_hardly_grows_with_the_tables", &KINDS) {
        return;
    }
    let many: u64 = std::env::var("DBMOVE_MANY_TABLES").ok().and_then(|number| number.parse().ok()).unwrap_or(200);
    let few = many / 4;
    let directory = tempfile::tempdir().unwrap();
    let source = LocalServer::start(KINDS[0], &directory.path().join("source"), &ServerOptions::default()).await.unwrap();
    let rds = ServerOptions::default().rds_like(true);
    let target = LocalServer::start(KINDS[1], &directory.path().join("target"), &rds).await.unwrap();
    let mut session = catalog_session(&source).await;
    let mut asked = Vec::new();
    for (database, tables) in [("few", few), ("many", many)] {
        session.run(&format!("CREATE DATABASE {database}"), "test").await.unwrap();
        for table in 0..tables {
            let create = format!(
                "CREATE TABLE {database}.t{table} (id INT PRIMARY KEY, parent INT, made DATETIME, title VARCHAR(60) CHARACTER SET utf8, \
                 note TEXT CHARACTER SET latin1, UNIQUE title (title), KEY (parent), FOREIGN KEY (parent) REFERENCES t{table} (id)) ENGINE=InnoDB"
            );
            session.run(&create, "test").await.unwrap();
            let rows = "(1, NULL, NOW(), 'one', 'eins'), (2, 1, NULL, 'two', x'e9')";
            session.run(&format!("INSERT INTO {database}.t{table} VALUES {rows}"), "test").await.unwrap();
        }
        let questions = "SHOW GLOBAL STATUS LIKE 'Questions'";
        let before: u64 = session.first(questions, "test").await.unwrap().unwrap()[1].as_deref().unwrap().parse().unwrap();
        let started = std::time::Instant::now();
        let assessment = assessed(&source, &target, &[&format!("{database}.*")], AccountsOption::Leave).await;
        let took = started.elapsed();
        let after: u64 = session.first(questions, "test").await.unwrap().unwrap()[1].as_deref().unwrap().parse().unwrap();
        let statements = after - before - 1;
        println!("{tables} tables assessed in {:.1} s by {statements} statements on the source", took.as_secs_f64());
        assert_eq!(assessment.rows.rows, tables * 2, "it did not look at every row");
        let skipped = assessment.not_looked_at.iter().find(|skipped| skipped.id == "rds-limits");
        assert!(skipped.is_none(), "{skipped:?}");
        assert!(took.as_secs() < 30, "{tables} tables took {took:?}");
        asked.push(statements);
    }
    // One for its definition, and for its three looks at rows (columns, foreign key, unique key) three of 25.
    let more = many - few;
    assert!(asked[1] - asked[0] <= more + more * 3 / 25 + 2, "{few} tables took {} statements, {many} took {}", asked[0], asked[1]);
}

/// A session that began with another format writes statements: nothing but the log tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_source_does_meanwhile() {
    if real::skipped("what_the_source_does_meanwhile", &KINDS) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (source, target) = pair(directory.path()).await;
    let mut session = catalog_session(&source).await;
    for statement in ["CREATE DATABASE shop", "USE shop", "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, n INT) ENGINE=InnoDB"] {
        session.run(statement, "test").await.unwrap();
    }
    session.run("BEGIN", "test").await.unwrap();
    session.run("INSERT INTO t VALUES (1000000, 1)", "test").await.unwrap();
    for (format, fires) in [("ROW", false), ("STATEMENT", true)] {
        let mut writer = catalog_session(&source).await;
        writer.run("USE shop", "test").await.unwrap();
        writer.run(&format!("SET SESSION binlog_format = '{format}'"), "test").await.unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let stopped = stop.clone();
        let writing = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                writer.run("INSERT INTO t (n) VALUES (1)", "test").await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        let assessment = assessed(&source, &target, &["shop.*"], AccountsOption::Leave).await;
        stop.cancel();
        writing.await.unwrap();
        let found: Vec<_> = assessment.findings.iter().filter(|finding| finding.id == "open-sessions-not-row").collect();
        assert_eq!(found.len(), usize::from(fires), "{format}: {found:?}; {:?}", assessment.not_looked_at);
        if fires {
            assert!(found[0].evidence.returned.contains("INSERT INTO t (n) VALUES (1)"), "{found:?}");
        }
    }
    let settings = StoreSettings::default();
    let store = MysqlStore::open("s", server(&source, "root", None), server(&target, "root", None), selection(&["shop.*"]), settings);
    let gathered = dbmove::mysql::assess::gather::Gathered::read(&store, None, &Looking::default()).await.unwrap();
    let open: Vec<u64> = gathered.transactions.iter().map(|transaction| transaction.seconds).collect();
    assert!(open.len() == 1 && open[0] < 60, "{open:?}");
}
