//! A pair of servers with every case's database, and the one move of them all.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::process::Command;

use super::case::Case;
use super::compare::{databases, quoted, text};

/// When `during.sql` runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// While the copy runs.
    Copied,
    /// After it: every event has to find what was copied.
    Followed,
}

pub struct World {
    pub source: LocalServer,
    pub target: LocalServer,
    directory: tempfile::TempDir,
    moment: Moment,
}

impl World {
    pub async fn start(source: ServerKind, target: ServerKind, moment: Moment) -> World {
        let directory = tempfile::tempdir().unwrap();
        let source = LocalServer::start(source, &directory.path().join("source"), &ServerOptions::default()).await.unwrap();
        let target = LocalServer::start(target, &directory.path().join("target"), &ServerOptions::default().rds_like(true)).await.unwrap();
        World { source, target, directory, moment }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A move of `include`, with a stop after the copy if `during.sql` is to run then.
    fn playbook(&self, name: &str, include: &str) -> String {
        let endpoint = |server: &LocalServer, user: &str| {
            format!("{{ url: \"mysql://{user}@127.0.0.1:{}/\", password: \"${{env:DBMOVE_TEST_PASSWORD}}\", tls: off }}", server.port())
        };
        let hook = |id: &str, script: String| {
            format!("    - {{ id: {id}, run: hook.exec, with: {{ command: [sh, -c, \"{script}\"], undo: none, timeout: 300s }} }}\n")
        };
        let (at, done) = (self.path("at").display().to_string(), self.path("done").display().to_string());
        let reach = hook("reach", format!("touch '{at}'"));
        let wait = hook("wait", format!("touch '{at}'; while [ ! -e '{done}' ]; do sleep 0.1; done"));
        let (before, after) = match self.moment {
            Moment::Copied => (reach, wait),
            Moment::Followed => (String::new(), wait),
        };
        let text = format!(
            "playbook: {name}\nstores:\n  cases:\n    kind: mysql\n    source: {}\n    target: {}\n    include: [\"{include}\"]\nstages:\n  \
             prepare:\n    - {{ id: assess, run: mysql.assess, store: cases }}\n    - {{ id: schema, run: mysql.prepare, store: cases }}\n  \
             sync:\n    - {{ id: follow, run: mysql.replicate, store: cases }}\n{before}    - {{ id: snapshot, run: mysql.snapshot, store: cases, \
             with: {{ chunk_bytes: 256KiB }} }}\n{after}  verify:\n    - {{ id: rows, run: mysql.verify, store: cases }}\n",
            endpoint(&self.source, "dbmove"),
            endpoint(&self.target, "admin"),
        );
        let path = self.path(&format!("{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn dbmove(&self, state: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dbmove"));
        command
            .args(arguments)
            .env("DBMOVE_STATE_DIR", self.path(state))
            .env("DBMOVE_TEST_PASSWORD", "dbmove")
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs one of the case's files on the source, in a session of its own that takes bytes as they are.
    async fn execute(&self, case: &Case, file: &str) -> Result<(), String> {
        let (mode, statements) = case.statements(file);
        let mut conn = Conn::new(self.source.connect_options(Account::Root, Some(&case.database()))).await.unwrap();
        conn.query_drop(format!("SET NAMES binary, time_zone = '+00:00', sql_mode = '{mode}'")).await.unwrap();
        for statement in statements {
            conn.query_drop(statement.clone())
                .await
                .map_err(|error| format!("{}/{file}: {error}\n  in: {}", case.name, String::from_utf8_lossy(&statement)))?;
        }
        Ok(())
    }

    async fn load(&self, case: &Case) -> Result<(), String> {
        let mut conn = Conn::new(self.source.connect_options(Account::Root, None)).await.unwrap();
        conn.query_drop(format!("CREATE DATABASE `{}` DEFAULT CHARACTER SET utf8", case.database())).await.unwrap();
        self.execute(case, "schema.sql").await?;
        self.execute(case, "before.sql").await
    }

    /// Moves them all; what went wrong.
    pub async fn moves(&self, cases: &[&Case]) -> Vec<String> {
        let mut wrong = Vec::new();
        for case in cases {
            wrong.extend(self.load(case).await.err());
        }
        if !wrong.is_empty() {
            return wrong;
        }
        let playbook = self.playbook("cases", "case_*.*");
        let mut run = tokio::spawn(self.dbmove("state", &["--yes", "run", &playbook, "--no-follow"]).output());
        while !self.path("at").exists() {
            tokio::select! {
                ended = &mut run => return vec![format!("the run ended before its copy did: {}", said(&ended.unwrap().unwrap()))],
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
        for case in cases {
            wrong.extend(self.execute(case, "during.sql").await.err());
        }
        std::fs::write(self.path("done"), "").unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(300), run).await.expect("dbmove did not end in time").unwrap().unwrap();
        if !ended.status.success() {
            wrong.push(format!("dbmove: {}", said(&ended)));
        }
        wrong
    }

    async fn drop_databases(&self, server: &LocalServer, case: &Case) {
        let mut conn = Conn::new(server.connect_options(Account::Root, None)).await.unwrap();
        conn.query_drop("SET foreign_key_checks = 0").await.unwrap();
        for database in databases(&mut conn, case).await {
            conn.query_drop([b"DROP DATABASE ".to_vec(), quoted(database.as_bytes())].concat()).await.unwrap();
        }
    }

    /// What is wrong with how a case is refused: by another word than its own, or not at all, or with something left.
    pub async fn refuses(&self, case: &Case) -> Option<String> {
        if let Err(error) = self.load(case).await {
            return Some(error);
        }
        let expected = case.refusal.as_deref().unwrap();
        let playbook = self.playbook(&case.name, &format!("{}.*", case.database()));
        // Its stop is never come to.
        let run = self.dbmove(&format!("state-{}", case.name), &["--yes", "run", &playbook, "--no-follow"]).output();
        let output = match tokio::time::timeout(Duration::from_secs(30), run).await {
            Ok(output) => output.unwrap(),
            Err(_) => return Some(format!("{}: it was not refused", case.name)),
        };
        self.drop_databases(&self.source, case).await;
        let mut conn = Conn::new(self.target.connect_options(Account::Root, None)).await.unwrap();
        let left = databases(&mut conn, case).await;
        let said = said(&output);
        if output.status.success() || !said.contains(expected) || !left.is_empty() {
            return Some(format!("{}: to be refused with `{expected}`, leaving nothing; left {left:?}; {said}", case.name));
        }
        None
    }

    /// How the answers of `expect.sql` on the target differ from `expect.tsv`.
    pub async fn expectation_unmet(&self, case: &Case) -> Option<String> {
        let expected = String::from_utf8(case.file("expect.tsv")?).unwrap();
        let (mode, statements) = case.statements("expect.sql");
        let mut conn = Conn::new(self.target.connect_options(Account::Root, Some(&case.database()))).await.unwrap();
        conn.query_drop(format!("SET time_zone = '+00:00', sql_mode = '{mode}'")).await.unwrap();
        let mut found = String::new();
        for statement in statements {
            for row in conn.query::<Row, _>(statement).await.unwrap_or_else(|error| panic!("{}/expect.sql: {error}", case.name)) {
                let cells: Vec<String> = row.unwrap().into_iter().map(|cell| text(cell).unwrap_or_else(|| "\\N".to_owned())).collect();
                found.push_str(&cells.join("\t"));
                found.push('\n');
            }
        }
        (found.trim_end() != expected.trim_end()).then(|| format!("{}: expected on the target:\n{expected}found:\n{found}", case.name))
    }
}

fn said(output: &Output) -> String {
    format!("{}\n{}\n{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
