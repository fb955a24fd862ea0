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
use schema::{catalog_session, selection};

const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];

/// Checks that look at settings, privileges, sessions or the target, or at what a 5.5.34 can't hold: tested beside the check, or in `refusals.rs`.
const ON_SETTINGS: [&str; 36] = [
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
    "server-id",
    "binlog-retention",
    "log-slave-updates",
    "source-privileges",
    "target-privileges",
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
    }
}

async fn assessed(source: &LocalServer, target: &LocalServer, include: &[&str]) -> Assessment {
    let (source, target) = (server(source, "root", None), server(target, "root", None));
    let store = MysqlStore::open("s", source, target, selection(include), StoreSettings::default());
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
            let assessment = assessed(&source, &target, &[&format!("{database}.*"), &format!("{database}_gone.*")]).await;
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
    let (code, text, _) = run(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, json["errors"].as_u64(), json["format"].as_u64()), (0, Some(0), Some(1)), "{text}");
    assert!(json["next"][0].as_str().unwrap().starts_with("dbmove plan"));
    let findings = json["stores"][0]["findings"].as_array().unwrap();
    let of = |id: &str| findings.iter().find(|finding| finding["id"] == id).unwrap();
    assert_eq!(of("missing-definers")["accepted"], "the view is not used");
    assert_eq!(of("year2")["evidence"]["returned"], "year(2)");

    write(", with: { accept: [ { id: missing-definer, reason: x } ] }");
    let (code, _, words) = run(&[]);
    assert_eq!(code, 2);
    assert!(words.contains("did you mean `missing-definers`?"), "{words}");
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
