//! A private server process: start, stop, kill, restart.
//!
//! # Ports
//!
//! Ports are picked at random below the range the system hands out to outgoing connections, so that nothing takes a
//! server's port while it is being restarted. Between finding a port free and listening on it another process may
//! win; the server then fails to start and another port is tried.
//!
//! # Ready
//!
//! A server is ready when it answers a query over loopback *and* says that its data directory is ours: something
//! else answering on the port is not mistaken for it.
//!
//! # Ending
//!
//! Dropping a [`LocalServer`] kills the process and waits for it. A clean shutdown is asked for with
//! [`LocalServer::stop`].

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};
use rand::Rng as _;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::{ExposeSecret as _, SecretString};

use super::installation::{Installation, path_argument};
use super::{Account, DEFAULT_PASSWORD, LocalError, ServerKind, ServerOptions, accounts, keeper, template};

/// Where every private server listens.
const HOST: &str = "127.0.0.1";
/// Below Linux's default range for outgoing connections, which begins at 32768.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Recovery after a kill under load is what takes long.
const START_LIMIT: Duration = Duration::from_secs(180);
/// A clean shutdown flushes the buffer pool.
const STOP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A running (or stopped) private server and its data directory. Dropping it kills the process; the data stays.
#[derive(Debug)]
pub struct LocalServer {
    installation: Installation,
    options: ServerOptions,
    data_directory: PathBuf,
    error_log: PathBuf,
    port: u16,
    version: String,
    pid: u32,
    child: Option<Child>,
}

impl LocalServer {
    /// Starts a server with fresh data in `directory/data`, logging to `directory/error.log`; returns once it
    /// answers. `directory` is created if need be and must not hold a server's data yet.
    ///
    /// # Errors
    /// When the server was not fetched, a file operation fails, or the server ends or stays silent instead of
    /// starting (its error log is part of the error).
    pub async fn start(kind: ServerKind, directory: &Path, options: &ServerOptions) -> Result<Self, LocalError> {
        let installation = Installation::find(kind)?;
        let file = |action, source| LocalError::File { action, path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(|source| file("create", source))?;
        let directory = directory.canonicalize().map_err(|source| file("find", source))?;
        let data_directory = directory.join("data");
        if data_directory.exists() {
            return Err(file("put a new server into", std::io::ErrorKind::AlreadyExists.into()));
        }
        template::copy_to(&installation, options.rds_like, &data_directory).await?;
        let server = Self::start_on(installation, data_directory, &directory, options).await?;
        if let Some(password) = &options.password {
            server.set_passwords(password).await?;
        }
        Ok(server)
    }

    /// Starts a server on an existing data directory, on a free port.
    pub(super) async fn start_on(
        installation: Installation,
        data_directory: PathBuf,
        log_directory: &Path,
        options: &ServerOptions,
    ) -> Result<Self, LocalError> {
        let mut server = Self {
            installation,
            options: options.clone(),
            data_directory,
            error_log: log_directory.join("error.log"),
            port: 0,
            version: String::new(),
            pid: 0,
            child: None,
        };
        for attempts_left in (0..5).rev() {
            server.port = free_port().map_err(|port| LocalError::PortTaken { kind: server.kind(), port })?;
            match server.launch().await {
                Ok(()) => break,
                Err(LocalError::PortTaken { .. }) if attempts_left > 0 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(server)
    }

    /// Which server this is.
    pub fn kind(&self) -> ServerKind {
        self.installation.kind()
    }

    /// What `SELECT VERSION()` said at the last start.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The loopback address it listens on.
    pub fn host(&self) -> &'static str {
        HOST
    }

    /// The loopback port it listens on; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of its last start.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its data is.
    pub fn data_directory(&self) -> &Path {
        &self.data_directory
    }

    /// The password of every account but `root`.
    pub fn password(&self) -> SecretString {
        self.options.password.clone().unwrap_or_else(|| SecretString::from(DEFAULT_PASSWORD))
    }

    /// How to connect as `account`, with a default database or none.
    pub fn connect_options(&self, account: Account, database: Option<&str>) -> Opts {
        let password = (account != Account::Root).then(|| self.password().expose_secret().to_owned());
        OptsBuilder::default()
            .ip_or_hostname(HOST)
            .tcp_port(self.port)
            .prefer_socket(false)
            .user(Some(account.user()))
            .pass(password)
            .db_name(database)
            .into()
    }

    /// `mysql://root@127.0.0.1:PORT/`; `root` has no password.
    pub fn root_url(&self) -> String {
        format!("mysql://root@{HOST}:{}/", self.port)
    }

    /// A client that came with this server, told to connect to it as `root` (`mysql`, `mysqldump`, `mysqlbinlog` of
    /// the MySQL servers fetched with clients; `mariadb`).
    ///
    /// # Errors
    /// When the server came without that program.
    pub fn client(&self, program: &str) -> Result<Command, LocalError> {
        let mut command = self.installation.client_command(program)?;
        command.arg(format!("--host={HOST}")).arg(format!("--port={}", self.port)).arg("--user=root");
        Ok(command)
    }

    /// Shuts the server down cleanly: SIGTERM, and SIGKILL if it has not ended in a minute. Stopping a stopped server
    /// is harmless.
    ///
    /// # Errors
    /// When the process can't be waited for.
    pub async fn stop(&mut self) -> Result<(), LocalError> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        // The process is ours and not yet waited for, so its id can't have become another's.
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < STOP_LIMIT {
            if self.ended()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        self.kill().await
    }

    /// Kills the server with SIGKILL and waits until it is gone, as `kill -9` by hand would.
    ///
    /// # Errors
    /// When the process can't be waited for.
    pub async fn kill(&mut self) -> Result<(), LocalError> {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
        while self.child.is_some() && self.ended()?.is_none() {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Starts the server again on the same data and port, stopping it first if it runs.
    ///
    /// # Errors
    /// As [`LocalServer::start`]; also when something else listens on its port by now.
    pub async fn restart(&mut self) -> Result<(), LocalError> {
        self.stop().await?;
        self.launch().await
    }

    /// Lets the server run on when this value is gone, and says its process id. A server whose options don't say
    /// [`outlives_this_process`](ServerOptions::outlives_this_process) still ends with this process.
    pub fn leave_running(mut self) -> u32 {
        self.child = None;
        self.pid
    }

    /// The end of the server's error log.
    pub fn error_log_tail(&self) -> String {
        let log = std::fs::read(&self.error_log).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&log), 30)
    }

    /// Where this server alone puts temporary files: beside its data.
    fn temporary_directory(&self) -> Result<PathBuf, LocalError> {
        let path = self.data_directory.with_file_name("tmp");
        std::fs::create_dir_all(&path).map_err(|source| LocalError::File { action: "create", path: path.clone(), source })?;
        Ok(path)
    }

    /// Starts the process on `self.port` and waits until it answers.
    async fn launch(&mut self) -> Result<(), LocalError> {
        let log_before = std::fs::metadata(&self.error_log).map_or(0, |found| found.len());
        let log_file = |source| LocalError::File { action: "open", path: self.error_log.clone(), source };
        let log: File = OpenOptions::new().create(true).append(true).open(&self.error_log).map_err(log_file)?;
        let mut command = self.installation.server_command();
        // A server that starts deletes every temporary table file it finds; in a shared place those are other servers'.
        command.arg(path_argument("--datadir", &self.data_directory)).arg(path_argument("--tmpdir", &self.temporary_directory()?));
        command.args(self.options.command_line(self.kind(), self.port));
        let program = command.get_program().to_string_lossy().into_owned();
        let child = keeper::start(command, log, !self.options.outlives_this_process)
            .await
            .map_err(|source| LocalError::Spawn { program, source })?;
        self.pid = child.id();
        self.child = Some(child);

        let began = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Err(self.start_failure(status, log_before));
            }
            let reason = match self.ask_who_it_is().await {
                Ok(Some(version)) => {
                    self.version = version;
                    return Ok(());
                }
                Ok(None) => "another server answers there".to_owned(),
                Err(error) => error.to_string(),
            };
            if began.elapsed() > START_LIMIT {
                let (kind, port, log) = (self.kind(), self.port, self.error_log_tail());
                self.kill().await?;
                return Err(LocalError::NoAnswer { kind, port, waited: START_LIMIT, reason, log });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The server's version, if it is this server that answers on the port.
    async fn ask_who_it_is(&self) -> Result<Option<String>, mysql_async::Error> {
        let ask = async {
            let mut connection = Conn::new(self.connect_options(Account::Root, None)).await?;
            let answer: Option<(String, String)> = connection.query_first("SELECT VERSION(), @@datadir").await?;
            connection.disconnect().await?;
            Ok(answer)
        };
        // A connection may hang while the server comes up; the next one won't.
        let answer = tokio::time::timeout(Duration::from_secs(5), ask)
            .await
            .unwrap_or_else(|late| Err(mysql_async::Error::Io(std::io::Error::from(late).into())))?;
        Ok(answer.and_then(|(version, directory)| (Path::new(&directory) == self.data_directory).then_some(version)))
    }

    fn start_failure(&self, status: ExitStatus, log_before: u64) -> LocalError {
        let kind = self.kind();
        let log = std::fs::read(&self.error_log).unwrap_or_default();
        let from = usize::try_from(log_before).unwrap_or(0).min(log.len());
        let log = String::from_utf8_lossy(&log[from..]).into_owned();
        if log.contains("Address already in use") {
            return LocalError::PortTaken { kind, port: self.port };
        }
        LocalError::Died { kind, status: status.to_string(), log: last_lines(&log, 30) }
    }

    /// The process's exit status, once it has ended.
    fn ended(&mut self) -> Result<Option<ExitStatus>, LocalError> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait().map_err(|source| LocalError::Spawn { program: self.installation.kind().to_string(), source })?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    async fn set_passwords(&self, password: &SecretString) -> Result<(), LocalError> {
        let quoted = mysql_async::Value::from(password.expose_secret()).as_sql(false);
        let set = async {
            let mut connection = Conn::new(self.connect_options(Account::Root, None)).await?;
            for account in Account::with_password(self.options.rds_like) {
                connection.query_drop(accounts::password_statement(self.kind(), account, &quoted)).await?;
            }
            connection.disconnect().await
        };
        let kind = self.kind();
        set.await.map_err(|source| LocalError::Sql { kind, action: "set its accounts' passwords".to_owned(), source })
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A loopback port nothing listens on at this moment; the last one tried if there is none.
pub(super) fn free_port() -> Result<u16, u16> {
    let mut port = 0;
    for _ in 0..200 {
        port = rand::rng().random_range(PORTS);
        if TcpListener::bind((HOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(port)
}

/// The last `count` lines of `text`.
pub(super) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
