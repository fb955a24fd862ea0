//! What a world holds, before and after: the proof that a refusal changed nothing, and the words it was given in.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::process::Child;

use super::world::{World, connect};

/// How long a test waits for what must happen soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a program told to do nothing must have left no trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untouched {
    /// Every table of the target that is no server's own, `_dbmove` included, with its structure and how many rows it has.
    target: Vec<String>,
    /// The source's tables, and what a fence would change.
    source: Vec<String>,
    /// The route file.
    route: String,
}

impl Untouched {
    /// As it is now. The source's rows may move; its schema may not.
    pub async fn now(world: &World) -> Untouched {
        let mut source = schema(&world.source, false).await;
        let mut conn = connect(&world.source, Account::Root).await;
        let read_only: u8 = conn.query_first("SELECT @@global.read_only").await.unwrap().unwrap();
        source.push(format!("read_only = {read_only}"));
        Untouched { target: schema(&world.target, true).await, source, route: std::fs::read_to_string(world.route()).unwrap() }
    }

    /// Nothing of dbmove's is on the target.
    pub fn holds_nothing_of_ours(&self) -> bool {
        self.target.iter().all(|line| !line.contains("dbmove") && !line.contains("`school"))
    }
}

/// Databases and tables of a server, and how many rows each has.
pub async fn schema(server: &LocalServer, rows: bool) -> Vec<String> {
    let mut conn = connect(server, Account::Root).await;
    let databases: Vec<String> = conn.query("SHOW DATABASES").await.unwrap();
    let mut found = Vec::new();
    for database in databases {
        if ["mysql", "sys", "information_schema", "performance_schema", "test"].contains(&database.as_str()) {
            continue;
        }
        found.push(format!("database `{database}`"));
        let tables: Vec<String> = conn.query(format!("SHOW TABLES FROM `{database}`")).await.unwrap();
        for table in tables {
            let name = format!("`{database}`.`{table}`");
            let create: Row = conn.query_first(format!("SHOW CREATE TABLE {name}")).await.unwrap().unwrap();
            let create: String = create.get(1).unwrap();
            // The counter moves with the rows.
            let structure: String =
                create.split_whitespace().filter(|word| !word.starts_with("AUTO_INCREMENT=")).collect::<Vec<_>>().join(" ");
            let mut line = format!("{name} {structure}");
            if rows {
                let count: u64 = conn.query_first(format!("SELECT COUNT(*) FROM {name}")).await.unwrap().unwrap();
                let _ = write!(line, " ({count} rows)");
            }
            found.push(line);
        }
    }
    found
}

/// The source takes a write of an account without SUPER.
pub async fn accepts_writes(server: &LocalServer) -> bool {
    let mut conn = connect(server, Account::App).await;
    let write = conn.query_drop("UPDATE school.accounts SET version = version + 1 WHERE id = 1");
    tokio::time::timeout(Duration::from_secs(5), write).await.is_ok_and(|written| written.is_ok())
}

/// Stdout and stderr with what differs from run to run taken out.
pub fn settings(world: &World) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots/proof");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let directory = world.directory.path().display().to_string();
    settings.add_filter(&directory.replace('.', r"\."), "[DIRECTORY]");
    for (server, name) in [(&world.source, "[SOURCE]"), (&world.target, "[TARGET]")] {
        settings.add_filter(&format!(r"127\.0\.0\.1:{}\b", server.port()), name);
    }
    settings.add_filter(r"127\.0\.0\.1:\d+", "[ADDRESS]");
    settings.add_filter(r"localhost:\d+", "localhost:[PORT]");
    settings.add_filter(r"\d{8}T\d{6}Z-[0-9a-f]+", "[RUN]");
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[MOMENT]");
    settings.add_filter(r"binlog\.\d+:\d+", "[POSITION]");
    settings.add_filter(r"\b[0-9a-f]{64}\b", "[HASH]");
    settings
}

/// The part of a summary that says how it ended: everything before the list of stages and figures.
pub fn verdict(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let text = stdout.split("\n\n").next().unwrap_or_default().trim_end().to_owned();
    if text.is_empty() { String::from_utf8_lossy(&output.stderr).into_owned() } else { text }
}

/// A server's own table, alone: one row of one column.
pub async fn ask(server: &LocalServer, query: &str) -> String {
    let mut conn = connect(server, Account::Root).await;
    conn.query_first::<Option<String>, _>(query).await.unwrap().flatten().unwrap_or_default()
}

/// Statements, as the server's owner.
pub async fn command(server: &LocalServer, statements: &[&str]) {
    let mut conn = connect(server, Account::Root).await;
    for statement in statements {
        conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    conn.disconnect().await.unwrap();
}

/// A connection of a user of the test's own, password `dbmove`.
pub async fn connect_as(server: &LocalServer, user: &str) -> Conn {
    let options = mysql_async::OptsBuilder::from_opts(server.connect_options(Account::Root, None)).user(Some(user)).pass(Some("dbmove"));
    Conn::new(options).await.unwrap()
}

/// Waits until a command in the background has said these words.
pub async fn wait_for(child: &mut Child, log: &Path, words: &str) {
    let began = Instant::now();
    loop {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        if said.contains(words) {
            return;
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("it ended ({status}) before it said `{words}`:\n{said}");
        }
        assert!(began.elapsed() < PATIENCE, "it never said `{words}`:\n{said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the end of a command in the background; its exit code and all it said.
pub async fn ended(child: &mut Child, log: &Path) -> (i32, String) {
    let status = tokio::time::timeout(PATIENCE, child.wait()).await;
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let status = status.unwrap_or_else(|_| panic!("it did not end:\n{said}")).unwrap();
    (status.code().unwrap_or(-1), said)
}

/// Both kinds of the fast pair.
pub const PAIR: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];
