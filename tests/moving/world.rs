//! A source with a school's database under live writers, an empty target, and the built `dbmove` between them.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use dbmove::demo::Endpoint;
use dbmove::demo::compare::{Comparison, Side, compare};
use dbmove::demo::ledger::{Ledger, LedgerVerdict, check};
use dbmove::demo::seed::{SchoolSize, seed};
use dbmove::demo::writers::{WriterCounts, WriterOptions, Writers};
use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use secrecy::SecretString;
use tokio::process::{Child, Command};

/// The school's database.
pub const DATABASE: &str = "school";

/// Everything one test needs. Servers end with it.
pub struct World {
    pub source: LocalServer,
    pub target: LocalServer,
    pub rehearsal: Option<(LocalServer, LocalServer)>,
    pub directory: tempfile::TempDir,
    pub size: SchoolSize,
    pub ledger: Option<Arc<Ledger>>,
}

/// How a source of this kind has to be started to be followed like 5.5.
pub fn source_options(kind: ServerKind) -> ServerOptions {
    let options = ServerOptions::default();
    match kind {
        // 5.6 as the issue wants it: row events of version 1.
        ServerKind::Mysql56 => options.argument("--log-bin-use-v1-row-events=1"),
        // The school's tables are those of an old server, with dates that are none.
        ServerKind::Mysql97 => options.argument("--sql-mode=NO_ENGINE_SUBSTITUTION"),
        _ => options,
    }
}

impl World {
    /// Starts a source with a school of `factor` times the default size, and an RDS-like target.
    pub async fn start(source: ServerKind, target: ServerKind, factor: f64) -> World {
        World::start_with(source, &source_options(source), target, factor).await
    }

    /// The same, with a source that is started with options of its own.
    pub async fn start_with(source: ServerKind, options: &ServerOptions, target: ServerKind, factor: f64) -> World {
        let directory = tempfile::tempdir().unwrap();
        let source = LocalServer::start(source, &directory.path().join("source"), options).await.unwrap();
        let target = LocalServer::start(target, &directory.path().join("target"), &ServerOptions::default().rds_like(true)).await.unwrap();
        let size = SchoolSize::scaled(factor);
        fill(&source, &size).await;
        let world = World { source, target, rehearsal: None, directory, size, ledger: None };
        std::fs::write(world.route(), format!("127.0.0.1:{}\n", world.source.port())).unwrap();
        std::fs::write(world.playbook(), world.playbook_text("30s")).unwrap();
        world
    }

    /// Makes the cutover wait, right before the switch, until [`World::let_go`]: the source is fenced and the target
    /// complete then, so both can be compared row by row while writers wait.
    pub fn stop_at_the_fence(&self) {
        let at = self.path("at-the-fence").display().to_string();
        let go = self.path("go").display().to_string();
        let script = format!("touch '{at}'; while [ ! -e '{go}' ]; do sleep 0.05; done");
        let hook = format!(
            "    - {{ id: look, run: hook.exec, with: {{ command: [sh, -c, \"{script}\"], undo: none, timeout: 120s }} }}\n    - {{ id: switch"
        );
        let text = self.playbook_text("2m").replace("    - { id: switch", &hook);
        std::fs::write(self.playbook(), text).unwrap();
    }

    /// Waits until the cutover stands at the fence.
    pub async fn at_the_fence(&self, cutover: &mut Child, log: &str) {
        for _ in 0..1200 {
            if self.path("at-the-fence").exists() {
                return;
            }
            if let Some(status) = cutover.try_wait().unwrap() {
                panic!("the cutover ended ({status}) before the fence:\n{}", std::fs::read_to_string(self.path(log)).unwrap());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the cutover did not come to the fence:\n{}", std::fs::read_to_string(self.path(log)).unwrap());
    }

    /// Lets the switch go on.
    pub fn let_go(&self) {
        std::fs::write(self.path("go"), "").unwrap();
    }

    /// The cutover with a look at the fence: every row of both sides compared independently, then the switch, a while
    /// of writing on the target, and every acknowledged transfer looked for there.
    pub async fn cut_over_and_judge(&self, writers: Writers) -> LedgerVerdict {
        let playbook = self.playbook_argument();
        let arguments = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the switch alone"];
        let mut cutover = self.started(&arguments, "cutover.log");
        self.at_the_fence(&mut cutover, "cutover.log").await;
        let comparison = self.compare().await;
        assert!(comparison.is_equal(), "{comparison:#?}");
        assert!(comparison.rows_compared > 1000, "{comparison:?}");
        self.let_go();
        let status = tokio::time::timeout(Duration::from_secs(120), cutover.wait()).await.unwrap().unwrap();
        let log = std::fs::read_to_string(self.path("cutover.log")).unwrap();
        assert!(status.success(), "{status}\n{log}");
        tokio::time::sleep(Duration::from_millis(700)).await;
        let counts = stopped(writers).await;
        let verdict = self.ledger_on(&self.target).await;
        assert!(verdict.is_clean(), "{verdict:#?}\n{counts:?}");
        assert_eq!(verdict.sum_before, verdict.sum_after);
        verdict
    }

    /// Adds a rehearsal pair of the same kinds, its source filled alike.
    pub async fn with_rehearsal(mut self) -> World {
        let path = self.directory.path();
        let source =
            LocalServer::start(self.source.kind(), &path.join("rehearsal-source"), &source_options(self.source.kind())).await.unwrap();
        let target =
            LocalServer::start(self.target.kind(), &path.join("rehearsal-target"), &ServerOptions::default().rds_like(true)).await.unwrap();
        fill(&source, &self.size).await;
        std::fs::write(self.directory.path().join("route.rehearsal"), format!("127.0.0.1:{}\n", source.port())).unwrap();
        self.rehearsal = Some((source, target));
        std::fs::write(self.playbook(), self.playbook_text("30s")).unwrap();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
    pub fn route(&self) -> PathBuf {
        self.path("route")
    }
    pub fn playbook(&self) -> PathBuf {
        self.path("school.yaml")
    }
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The playbook of this world.
    pub fn playbook_text(&self, max_write_gap: &str) -> String {
        let endpoint = |server: &LocalServer, user: &str| {
            format!("{{ url: \"mysql://{user}@127.0.0.1:{}/\", password: \"${{env:DBMOVE_TEST_PASSWORD}}\", tls: off }}", server.port())
        };
        let rehearsal = match &self.rehearsal {
            Some((source, target)) => {
                format!(
                    "    rehearsal:\n      source: {}\n      target: {}\n      other_accounts: [root]\n",
                    endpoint(source, "dbmove"),
                    endpoint(target, "admin")
                )
            }
            None => String::new(),
        };
        format!(
            r#"playbook: school
max_write_gap: {max_write_gap}
stores:
  school:
    kind: mysql
    source: {source}
    target: {target}
{rehearsal}    include: ["{DATABASE}.*"]
stages:
  prepare:
    - {{ id: assess, run: mysql.assess, store: school }}
    - {{ id: schema, run: mysql.prepare, store: school }}
  sync:
    - {{ id: follow, run: mysql.replicate, store: school }}
    - {{ id: snapshot, run: mysql.snapshot, store: school, with: {{ chunk_bytes: 256KiB }} }}
  verify:
    - {{ id: rows, run: mysql.verify, store: school }}
  cutover:
    - {{ id: canary, run: traffic.canary, store: school, with: {{ route_file: "{route}", user: app, password: "${{env:DBMOVE_TEST_PASSWORD}}" }} }}
    - {{ id: fence, run: mysql.fence, store: school }}
    - {{ id: drain, run: mysql.catch_up, store: school }}
    - {{ id: last_check, run: mysql.verify, store: school, with: {{ scope: changed }} }}
    - {{ id: promote, run: mysql.promote, store: school }}
    - {{ id: switch, run: traffic.file, point_of_no_return: true, with: {{ path: "{route}", content: "127.0.0.1:{port}\n"{rehearsed} }} }}
    - {{ id: disconnect, run: mysql.disconnect, store: school }}
    - {{ id: smoke, run: traffic.check, store: school, with: {{ timeout: 10s }} }}
"#,
            source = endpoint(&self.source, "dbmove"),
            target = endpoint(&self.target, "admin"),
            route = self.route().display(),
            port = self.target.port(),
            rehearsed = self
                .rehearsal
                .as_ref()
                .map(|(_, target)| format!(", rehearsal_content: \"127.0.0.1:{}\\n\"", target.port()))
                .unwrap_or_default(),
        )
    }

    /// The built `dbmove` with this world's state directory and secrets; no terminal, no questions.
    pub fn dbmove(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dbmove"));
        command
            .args(arguments)
            .env("DBMOVE_STATE_DIR", self.state())
            .env("DBMOVE_TEST_PASSWORD", "dbmove")
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end, within a time.
    pub async fn finished(&self, arguments: &[&str]) -> Output {
        self.finished_within(Duration::from_secs(240), arguments).await
    }

    /// The same with another patience: what takes longer has hung.
    pub async fn finished_within(&self, patience: Duration, arguments: &[&str]) -> Output {
        let run = self.dbmove(arguments).output();
        tokio::time::timeout(patience, run).await.expect("dbmove did not end in time").unwrap()
    }

    /// Starts it in the background, words to a file.
    pub fn started(&self, arguments: &[&str], log: &str) -> Child {
        self.started_with(arguments, log, &[])
    }

    /// The same with more variables.
    pub fn started_with(&self, arguments: &[&str], log: &str, variables: &[(&str, &str)]) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path(log)).unwrap();
        let mut command = self.dbmove(arguments);
        command.envs(variables.iter().copied()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// The playbook's path as an argument.
    pub fn playbook_argument(&self) -> String {
        self.playbook().display().to_string()
    }

    /// Starts live writers on the school; their ledger outlives them.
    pub async fn write(&mut self, transfers_per_second: f64, changes_per_second: f64) -> Writers {
        let mut conn = connect(&self.source, Account::Root).await;
        let ledger = match &self.ledger {
            Some(ledger) => ledger.clone(),
            None => Arc::new(Ledger::open(&self.path("ledger"), &mut conn, DATABASE).await.unwrap()),
        };
        self.ledger = Some(ledger.clone());
        let mut options = WriterOptions::new(self.route(), "app", SecretString::from("dbmove".to_owned()), DATABASE, self.size.clone());
        options.transfers_per_second = transfers_per_second;
        options.changes_per_second = changes_per_second;
        Writers::start(options, ledger).await.unwrap()
    }

    /// Row by row, by plain SELECTs.
    pub async fn compare(&self) -> Comparison {
        compare(&side(&self.source), &side(&self.target), 50).await.unwrap()
    }

    /// Every acknowledged transfer, on that server.
    pub async fn ledger_on(&self, server: &LocalServer) -> LedgerVerdict {
        let mut conn = connect(server, Account::Root).await;
        check(&self.path("ledger"), &mut conn, DATABASE).await.unwrap()
    }
}

async fn fill(server: &LocalServer, size: &SchoolSize) {
    let mut conn = connect(server, Account::Root).await;
    seed(&mut conn, DATABASE, size, 7).await.unwrap();
    conn.disconnect().await.unwrap();
}

/// A connection as `account`.
pub async fn connect(server: &LocalServer, account: Account) -> Conn {
    Conn::new(server.connect_options(account, None)).await.unwrap()
}

/// A server as a side of the independent comparison.
pub fn side(server: &LocalServer) -> Side {
    Side { endpoint: Endpoint::new("127.0.0.1", server.port(), "root", ""), database: DATABASE.to_owned() }
}

/// Stops the writers; they have done something of everything.
pub async fn stopped(writers: Writers) -> WriterCounts {
    let counts = writers.stop().await.unwrap();
    assert!(counts.transfers_acknowledged > 0, "{counts:?}");
    counts
}

/// Exit code, or the signal as a negative number.
pub fn code(output: &Output) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0))
}

/// What the program said, for messages of failed assertions.
pub fn said(output: &Output) -> String {
    format!("{}\n--- stderr\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A number from a SELECT.
pub async fn number(server: &LocalServer, query: &str) -> u64 {
    let mut conn = connect(server, Account::Root).await;
    conn.query_first::<u64, _>(query).await.unwrap().unwrap_or(0)
}

/// Whether the file has the words yet.
pub fn says(path: &Path, words: &str) -> bool {
    std::fs::read_to_string(path).unwrap_or_default().contains(words)
}
