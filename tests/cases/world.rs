//! A pair of servers with every case's database, and the one move of them all.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::process::{Child, Command};

use super::case::Case;
use super::compare::{databases, quoted, text};

/// How long a part of the move may take.
const LIMIT: Duration = Duration::from_secs(300);

/// When `during.sql` runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// While the copy runs.
    Copied,
    /// After it: every event has to find what was copied.
    Followed,
    /// After it, and `dbmove` is killed (`kill -9`) and started again while it copies and, several times, while it follows.
    Killed,
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
        // Another zone than the source's, which a case sets: neither may matter.
        let mut conn = Conn::new(target.connect_options(Account::Root, None)).await.unwrap();
        conn.query_drop("SET GLOBAL time_zone = '+05:45'").await.unwrap();
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
            Moment::Followed | Moment::Killed => (String::new(), wait),
        };
        let text = format!(
            "playbook: {name}\nstores:\n  cases:\n    kind: mysql\n    source: {}\n    target: {}\n    include: [\"{include}\"]\nstages:\n  \
             prepare:\n    - {{ id: assess, run: mysql.assess, store: cases }}\n    - {{ id: schema, run: mysql.prepare, store: cases, with: {{ text: prove }} }}\n  \
             sync:\n    - {{ id: follow, run: mysql.replicate, store: cases }}\n{before}    - {{ id: snapshot, run: mysql.snapshot, store: cases, \
             with: {{ chunk_bytes: 256KiB }} }}\n{after}  verify:\n    - {{ id: rows, run: mysql.verify, store: cases }}\n  \
             cutover:\n    - {{ id: fence, run: mysql.fence, store: cases }}\n    - {{ id: drain, run: mysql.catch_up, store: cases }}\n    \
             - {{ id: last_check, run: mysql.verify, store: cases, with: {{ scope: changed }} }}\n    - {{ id: promote, run: mysql.promote, \
             store: cases }}\n    - {{ id: switch, run: traffic.file, point_of_no_return: true, with: {{ path: \"{}\", content: \"new\" }} }}\n",
            endpoint(&self.source, "dbmove"),
            endpoint(&self.target, "admin"),
            self.path("route").display(),
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
        match self.run(&playbook, cases).await {
            Err(problems) => wrong.extend(problems),
            Ok(said) => {
                eprintln!("  moved in {said}");
                // Up to the switch: counters are raised, and what was followed last is compared.
                let arguments = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "cases"];
                let ended = tokio::time::timeout(LIMIT, self.dbmove("state", &arguments).output())
                    .await
                    .expect("the cutover takes too long")
                    .unwrap();
                if !ended.status.success() {
                    wrong.push(format!("cutover: {}", said_by(&ended)));
                }
            }
        }
        wrong
    }

    /// The run, with every case's `during.sql` at its moment; how long it took.
    async fn run(&self, playbook: &str, cases: &[&Case]) -> Result<String, Vec<String>> {
        let began = Instant::now();
        let mut mover = self.started(playbook);
        let mut kills = 0;
        if self.moment == Moment::Killed {
            // In the middle of copying, by what the target says of it.
            self.until(&mut mover, async || self.chunks_done().await > 20.min(cases.len() as u64 / 2)).await?;
            mover.kill().await.unwrap();
            kills += 1;
            mover = self.started(playbook);
        }
        self.until(&mut mover, async || self.path("at").exists()).await?;
        let mut wrong = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            if self.moment == Moment::Killed && number % 25 == 24 {
                mover.kill().await.unwrap();
                kills += 1;
                mover = self.started(playbook);
            }
            wrong.extend(self.execute(case, "during.sql").await.err());
        }
        std::fs::write(self.path("done"), "").unwrap();
        let ended = tokio::time::timeout(LIMIT, mover.wait()).await.expect("dbmove did not end in time").unwrap();
        if !ended.success() {
            wrong.push(format!("dbmove: {ended}\n{}", self.log()));
        }
        if wrong.is_empty() { Ok(format!("{:.0?}, killed {kills} times", began.elapsed())) } else { Err(wrong) }
    }

    /// Starts the run, its words to a file.
    fn started(&self, playbook: &str) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("run.log")).unwrap();
        let mut command = self.dbmove("state", &["--yes", "run", playbook, "--no-follow"]);
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("run.log")).unwrap()
    }

    /// Waits until the condition holds while the run goes on.
    async fn until(&self, mover: &mut Child, mut there: impl AsyncFnMut() -> bool) -> Result<(), Vec<String>> {
        while !there().await {
            if let Some(ended) = mover.try_wait().unwrap() {
                return Err(vec![format!("the run ended too early: {ended}\n{}", self.log())]);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn chunks_done(&self) -> u64 {
        let mut conn = Conn::new(self.target.connect_options(Account::Root, None)).await.unwrap();
        // The table may not be there yet.
        conn.query_first("SELECT COUNT(*) FROM _dbmove.chunk WHERE done = 1").await.unwrap_or_default().unwrap_or(0)
    }

    /// The AUTO_INCREMENT counters of the cases' tables that might give out a number on the target that was given out on the source.
    /// A target's may be ahead: it counts a row that an UPDATE made the largest, and over all groups where MyISAM counts in each.
    pub async fn counters_behind(&self, cases: &[&Case]) -> Vec<String> {
        let mut wrong = Vec::new();
        let [source, target] = [self.counters(&self.source, cases).await, self.counters(&self.target, cases).await];
        for (table, next) in source {
            if target.get(&table).is_none_or(|there| *there < next) {
                wrong.push(format!("`{table}` gives out {next} next, and on the target {:?}", target.get(&table)));
            }
        }
        wrong
    }

    async fn counters(&self, server: &LocalServer, cases: &[&Case]) -> BTreeMap<String, u64> {
        let mut conn = Conn::new(server.connect_options(Account::Root, None)).await.unwrap();
        // From 8.0 on the answer may be a day old otherwise. Other servers don't know the setting.
        let _ = conn.query_drop("SET SESSION information_schema_stats_expiry = 0").await;
        let all: Vec<(String, String, u64)> = conn
            .query("SELECT table_schema, table_name, auto_increment FROM information_schema.tables WHERE auto_increment IS NOT NULL AND table_schema LIKE 'case%'")
            .await
            .unwrap();
        // From 8.0 on MyISAM and MEMORY say 1 of tables that have none.
        let with_counter: HashSet<(String, String)> = conn
            .query("SELECT table_schema, table_name FROM information_schema.columns WHERE extra LIKE '%auto_increment%' AND table_schema LIKE 'case%'")
            .await
            .unwrap()
            .into_iter()
            .collect();
        let of_these = |database: &str| cases.iter().any(|case| case.owns(database));
        all.into_iter()
            .filter(|(database, table, _)| of_these(database) && with_counter.contains(&(database.clone(), table.clone())))
            .map(|(database, table, next)| (format!("{database}.{table}"), next))
            .collect()
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
        let said = said_by(&output);
        // Lines may be broken anywhere between words.
        let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        if output.status.success() || !joined(&said).contains(&joined(expected)) || !left.is_empty() {
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

fn said_by(output: &Output) -> String {
    format!("{}\n{}\n{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
