//! `dbmove assess --try` on real servers: what it reports, and that it leaves the target as it was, whatever happens to it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
mod schema;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dbmove::local::{DEFAULT_PASSWORD, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::connect::Session;
use schema::catalog_session;

const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];

/// Everything there is on a server beside its own schemas.
async fn everything(session: &mut Session) -> Vec<String> {
    let mine = "NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')";
    let mut all = Vec::new();
    for (kind, schema, name) in [
        ("SCHEMATA", "SCHEMA_NAME", "DEFAULT_COLLATION_NAME"),
        ("TABLES", "TABLE_SCHEMA", "TABLE_NAME"),
        ("ROUTINES", "ROUTINE_SCHEMA", "ROUTINE_NAME"),
        ("TRIGGERS", "TRIGGER_SCHEMA", "TRIGGER_NAME"),
        ("EVENTS", "EVENT_SCHEMA", "EVENT_NAME"),
    ] {
        let query =
            format!("SELECT CONCAT_WS(' ', '{kind}', {schema}, {name}) FROM information_schema.{kind} WHERE {schema} {mine} ORDER BY 1");
        all.extend(session.rows(&query, "test").await.unwrap().into_iter().filter_map(|row| row.into_iter().next().flatten()));
    }
    all
}

struct Tool {
    playbook: PathBuf,
    state: PathBuf,
}

impl Tool {
    /// A playbook whose production servers can't be reached, so that only the rehearsal pair can have been used.
    fn new(directory: &Path, source: &LocalServer, target: &LocalServer) -> Tool {
        let endpoint =
            |port: u16| format!("{{ url: \"mysql://dbmove@127.0.0.1:{port}/\", password: \"${{env:DBMOVE_TEST_PASSWORD}}\", tls: off }}");
        let text = format!(
            "playbook: shop\nstores:\n  shop:\n    kind: mysql\n    source: {}\n    target: {}\n    rehearsal:\n      source: {}\n      target: {}\n      other_accounts: [root]\n    include: [\"shop.*\"]\nstages:\n  prepare:\n    - {{ id: assess, run: mysql.assess, store: shop }}\n",
            endpoint(1),
            endpoint(2),
            endpoint(source.port()),
            endpoint(target.port())
        );
        let playbook = directory.join("shop.yaml");
        std::fs::write(&playbook, &text).unwrap();
        // The same store, made ready and put back; production can't be reached, so this goes by the rehearsal pair alone.
        let stages = text.replace("run: mysql.assess, store: shop }", "run: mysql.prepare, store: shop }");
        std::fs::write(directory.join("rehearse.yaml"), stages).unwrap();
        Tool { playbook, state: directory.join("state") }
    }

    fn directory(&self) -> &Path {
        self.playbook.parent().unwrap()
    }

    fn tool(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dbmove"));
        command.env("DBMOVE_STATE_DIR", &self.state).env("DBMOVE_TEST_PASSWORD", DEFAULT_PASSWORD).stdin(Stdio::null());
        command
    }

    fn command(&self) -> Command {
        let mut command = self.tool();
        command.arg("assess").arg(&self.playbook).args(["--try", "--json"]);
        command
    }

    /// Exit code (none if it was killed), the try as JSON, and stderr.
    fn run(&self, crash_at: Option<&str>) -> (Option<i32>, serde_json::Value, String) {
        let mut command = self.command();
        if let Some(point) = crash_at {
            command.env("DBMOVE_CRASH_AT", point);
        }
        let output = command.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), json["tries"][0].clone(), words)
    }
}

const GOOD: [&str; 10] = [
    "CREATE DATABASE shop DEFAULT CHARACTER SET latin1",
    "USE shop",
    "CREATE TABLE goods (id INT PRIMARY KEY, y YEAR(2), name VARCHAR(20) CHARACTER SET utf8, KEY (name)) ENGINE=MyISAM",
    "CREATE TABLE c (id INT PRIMARY KEY, n INT, CONSTRAINT k FOREIGN KEY (n) REFERENCES c (id)) ENGINE=InnoDB",
    "CREATE FUNCTION f (n INT) RETURNS INT DETERMINISTIC RETURN n + 1",
    "CREATE VIEW z AS SELECT id, f(id) AS next FROM goods",
    "CREATE DEFINER='nobody'@'nowhere' VIEW a AS SELECT id FROM z",
    "CREATE PROCEDURE p () SELECT COUNT(*) FROM goods",
    "CREATE TRIGGER g BEFORE INSERT ON goods FOR EACH ROW SET NEW.name = 'g'",
    "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO INSERT INTO goods (id) VALUES (1)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_what_the_target_refuses_and_leaves_nothing() {
    if real::skipped("it_says_what_the_target_refuses_and_leaves_nothing", &KINDS) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let source = LocalServer::start(KINDS[0], &directory.path().join("source"), &ServerOptions::default()).await.unwrap();
    let options = ServerOptions::default().argument("--event-scheduler=ON");
    let target = LocalServer::start(KINDS[1], &directory.path().join("target"), &options).await.unwrap();
    let (mut there, mut here) = (catalog_session(&target).await, catalog_session(&source).await);
    for statement in GOOD {
        here.run(statement, statement).await.unwrap();
    }
    there.run("CREATE DATABASE other", "test").await.unwrap();
    there.run("CREATE TABLE other.kept (id INT PRIMARY KEY)", "test").await.unwrap();
    there.run("INSERT INTO other.kept VALUES (1)", "test").await.unwrap();
    let before = everything(&mut there).await;
    let tool = Tool::new(directory.path(), &source, &target);

    // What is good is taken, views in whatever order they need each other.
    let (_, tried, words) = tool.run(None);
    assert_eq!(
        (tried["databases"].as_u64(), tried["tables"].as_u64(), tried["objects"].as_u64()),
        (Some(1), Some(2), Some(6)),
        "{tried:#} {words}"
    );
    let refused = |tried: &serde_json::Value| {
        let all = tried["troubles"].as_array().unwrap().clone();
        all.into_iter().filter(|trouble| trouble["refused"] == true).collect::<Vec<_>>()
    };
    assert!(refused(&tried).is_empty(), "{tried:#}");
    let warned = tried["troubles"].as_array().unwrap().iter().filter(|trouble| trouble["tolerated"] == true).count();
    assert!(warned > 0, "utf8 is deprecated there, and the server says so: {tried:#}");
    assert_eq!(everything(&mut there).await, before);

    // Killed anywhere, the next try drops what is left.
    for (point, left) in [("try.database.noted", false), ("try.table.made#2", true), ("try.object.made#3", true)] {
        let (code, _, words) = tool.run(Some(point));
        assert_eq!(code, None, "{point}: it was not killed: {words}");
        let now = everything(&mut there).await;
        assert!(now.iter().any(|name| name.contains("_dbmove_try")), "{point}: {now:?}");
        assert_eq!(now.iter().any(|name| name.starts_with("SCHEMATA shop")), left, "{point}: {now:?}");
        let (code, tried, words) = tool.run(None);
        assert!(code.is_some() && refused(&tried).is_empty(), "{point}: {tried:#} {words}");
        assert_eq!(tried["cleaned"].as_array().unwrap().len(), usize::from(left), "{point}: {tried:#}");
        assert_eq!(everything(&mut there).await, before, "{point}");
    }

    // Ctrl-C in the middle of it: it still drops what it made.
    let mut interrupted = tool.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = std::time::Instant::now();
    while !everything(&mut there).await.iter().any(|name| name.starts_with("SCHEMATA shop")) {
        assert!(began.elapsed() < std::time::Duration::from_secs(30) && interrupted.try_wait().unwrap().is_none(), "it made nothing");
    }
    let pid = rustix::process::Pid::from_child(&interrupted);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = tokio::task::spawn_blocking(move || interrupted.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(everything(&mut there).await, before);

    // A rehearsal does not take what a killed try left for somebody else's.
    let _killed = tool.run(Some("try.object.made#3"));
    let mut rehearse = tool.tool();
    let rehearsed = rehearse.arg("rehearse").arg(tool.directory().join("rehearse.yaml")).output().unwrap();
    assert_eq!(rehearsed.status.code(), Some(0), "{}", String::from_utf8_lossy(&rehearsed.stdout));
    assert_eq!(everything(&mut there).await, before);
    std::fs::remove_dir_all(&tool.state).unwrap();

    // A database that somebody else made between the note and the try is kept, and named.
    let _killed = tool.run(Some("try.database.noted"));
    for statement in ["CREATE DATABASE shop", "CREATE TABLE shop.theirs (id INT PRIMARY KEY)", "INSERT INTO shop.theirs VALUES (7)"] {
        there.run(statement, "test").await.unwrap();
    }
    let (code, tried, _) = tool.run(None);
    assert!(code == Some(4) && tried["not_tried"].as_str().unwrap().contains("`shop.theirs`"), "{tried:#}");
    there.run("DROP DATABASE _dbmove_try", "test").await.unwrap();
    let foreign = everything(&mut there).await;
    let (code, tried, _) = tool.run(None);
    assert!(code == Some(4) && tried["not_tried"].as_str().unwrap().contains("the database `shop` is on the"), "{tried:#}");
    assert_eq!(everything(&mut there).await, foreign);
    there.run("DROP DATABASE shop", "test").await.unwrap();

    // What the target refuses is named, with the server's number and the fix that a check knows.
    let long = format!("CREATE TABLE long_member (id INT PRIMARY KEY, e ENUM('{}')) ENGINE=InnoDB", "m".repeat(256));
    for statement in [
        long.as_str(),
        "CREATE PROCEDURE sorted () SELECT y FROM goods GROUP BY y DESC",
        "CREATE VIEW passwords AS SELECT PASSWORD('x') AS p",
    ] {
        here.run(statement, statement).await.unwrap();
    }
    let (code, tried, words) = tool.run(None);
    let named: Vec<(String, u64, String)> = refused(&tried)
        .iter()
        .map(|trouble| {
            let text = |field: &str| trouble[field].as_str().unwrap_or_default().to_owned();
            assert!(!text("statement").is_empty() && !text("said").is_empty(), "{trouble:#}");
            (format!("{} {}", text("kind"), text("object")), trouble["code"].as_u64().unwrap(), text("check"))
        })
        .collect();
    let expected = [
        ("table shop.long_member".to_owned(), 3505, "enum-element-length".to_owned()),
        ("procedure shop.sorted".to_owned(), 1064, "group-by-asc".to_owned()),
        ("view shop.passwords".to_owned(), 1064, "removed-functions".to_owned()),
    ];
    assert_eq!((code, named.as_slice()), (Some(4), expected.as_slice()), "{words}");
    assert_eq!(everything(&mut there).await, before);
    assert_eq!(there.rows("SELECT id FROM other.kept", "test").await.unwrap().len(), 1);
    assert!(!tool.state.exists(), "it made a state directory");
}

/// The same on a MariaDB, which knows neither roles of MySQL 8 nor its collations, and takes YEAR(2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mariadb_target_is_tried_too() {
    let kinds = [ServerKind::Mysql55, ServerKind::MariaDb];
    if real::skipped("a_mariadb_target_is_tried_too", &kinds) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let source = LocalServer::start(kinds[0], &directory.path().join("source"), &ServerOptions::default()).await.unwrap();
    let options = ServerOptions::default().argument("--event-scheduler=ON");
    let target = LocalServer::start(kinds[1], &directory.path().join("target"), &options).await.unwrap();
    let (mut there, mut here) = (catalog_session(&target).await, catalog_session(&source).await);
    for statement in GOOD {
        here.run(statement, statement).await.unwrap();
    }
    let tool = Tool::new(directory.path(), &source, &target);
    let before = everything(&mut there).await;
    let (_, tried, words) = tool.run(None);
    let counted = (tried["databases"].as_u64(), tried["tables"].as_u64(), tried["objects"].as_u64());
    assert_eq!(counted, (Some(1), Some(2), Some(6)), "{tried:#} {words}");
    assert!(tried["troubles"].as_array().unwrap().iter().all(|trouble| trouble["refused"] == false), "{tried:#}");
    // A column named by a word that MariaDB reserves, in a body that is taken as it is.
    here.run("CREATE PROCEDURE reserved () SELECT 1 AS over", "test").await.unwrap();
    let (code, tried, words) = tool.run(None);
    let refused: Vec<&serde_json::Value> =
        tried["troubles"].as_array().unwrap().iter().filter(|trouble| trouble["refused"] == true).collect();
    assert!(code == Some(4) && refused.len() == 1 && refused[0]["object"] == "shop.reserved", "{tried:#} {words}");
    assert_eq!(everything(&mut there).await, before);
}
