//! How a private server is to be set up, and the command line made from it.
//!
//! The defaults are a source or target as migrations meet them (row binlog on, `local_infile` on, InnoDB, a file per
//! table), small and quick to start, and not durable against a power cut: after `kill -9` of the *server* nothing
//! committed is lost either way, because the system still holds what it wrote.

use secrecy::SecretString;

use super::ServerKind;

/// How a private server is set up. Start from `ServerOptions::default()`.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    pub(super) binlog: bool,
    pub(super) rds_like: bool,
    pub(super) durable: bool,
    pub(super) buffer_pool: u64,
    pub(super) server_id: Option<u32>,
    pub(super) password: Option<SecretString>,
    pub(super) arguments: Vec<String>,
    pub(super) outlives_this_process: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            binlog: true,
            rds_like: false,
            durable: false,
            buffer_pool: 64 << 20,
            server_id: None,
            password: None,
            arguments: Vec::new(),
            outlives_this_process: false,
        }
    }
}

impl ServerOptions {
    /// Whether the server writes a binary log, by rows. On unless turned off.
    #[must_use]
    pub fn binlog(mut self, on: bool) -> Self {
        self.binlog = on;
        self
    }

    /// Makes it behave as an RDS instance does to its master user: an account `admin` without SUPER, `SET GLOBAL`
    /// refused, the `mysql.rds_*` procedures. For the kinds RDS offers today, MySQL 9.7 and MariaDB.
    #[must_use]
    pub fn rds_like(mut self, on: bool) -> Self {
        self.rds_like = on;
        self
    }

    /// Whether every commit waits for the disk (`innodb_flush_log_at_trx_commit=1`, `sync_binlog=1`).
    #[must_use]
    pub fn durable(mut self, on: bool) -> Self {
        self.durable = on;
        self
    }

    /// Size of InnoDB's buffer pool in bytes; 64 MiB unless set.
    #[must_use]
    pub fn buffer_pool(mut self, bytes: u64) -> Self {
        self.buffer_pool = bytes;
        self
    }

    /// The replication server id. Unless set it is the port, which no other server on this machine has.
    #[must_use]
    pub fn server_id(mut self, server_id: u32) -> Self {
        self.server_id = Some(server_id);
        self
    }

    /// The password of every account but `root`, in place of [`DEFAULT_PASSWORD`](super::DEFAULT_PASSWORD).
    #[must_use]
    pub fn password(mut self, password: SecretString) -> Self {
        self.password = Some(password);
        self
    }

    /// One more argument for the server, after all others, so that it wins: `--binlog-format=STATEMENT`.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Whether the server may live on after this process. Unless set, the kernel kills it when this process ends
    /// in any way, and so does dropping the [`LocalServer`](super::LocalServer).
    #[must_use]
    pub fn outlives_this_process(mut self, may: bool) -> Self {
        self.outlives_this_process = may;
        self
    }

    /// The server's arguments, apart from where its programs and data are.
    pub(super) fn command_line(&self, kind: ServerKind, port: u16) -> Vec<String> {
        let on_commit = if self.durable { (1, 1) } else { (2, 0) };
        let mut line = vec![
            format!("--port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            // Relative to the data directory: a socket's full path may not be longer than 107 bytes.
            "--socket=mysql.sock".to_owned(),
            "--pid-file=mysqld.pid".to_owned(),
            "--skip-name-resolve".to_owned(),
            format!("--server-id={}", self.server_id.unwrap_or(u32::from(port))),
            format!("--innodb-buffer-pool-size={}", self.buffer_pool),
            format!("--innodb-flush-log-at-trx-commit={}", on_commit.0),
            format!("--sync-binlog={}", on_commit.1),
            // Many small servers would otherwise use up the system's few asynchronous I/O contexts.
            "--innodb-use-native-aio=0".to_owned(),
            "--max-allowed-packet=64M".to_owned(),
            "--max-connections=300".to_owned(),
            "--local-infile=1".to_owned(),
            "--lower-case-table-names=0".to_owned(),
            "--log-bin-trust-function-creators=1".to_owned(),
            "--performance-schema=OFF".to_owned(),
        ];
        line.extend(fixed_at_birth(kind).map(str::to_owned));
        if self.binlog {
            line.push("--log-bin=binlog".to_owned());
            line.push("--binlog-format=ROW".to_owned());
        } else if kind == ServerKind::Mysql97 {
            line.push("--skip-log-bin".to_owned());
        }
        if self.rds_like && kind == ServerKind::Mysql97 {
            // What keeps the master user out of the `mysql` schema.
            line.push("--partial-revokes=ON".to_owned());
            line.push("--gtid-mode=OFF_PERMISSIVE".to_owned());
        }
        line.extend(self.arguments.iter().cloned());
        line
    }
}

/// Arguments that have to be the same when the template is made and whenever it is used.
pub(super) fn fixed_at_birth(kind: ServerKind) -> impl Iterator<Item = &'static str> {
    let arguments: &[&str] = match kind {
        ServerKind::Mysql559 | ServerKind::Mysql55 => &["--innodb-log-file-size=32M", "--innodb-file-per-table=1", "--secure-file-priv="],
        ServerKind::Mysql5614 | ServerKind::Mysql56 => {
            &["--innodb-log-file-size=32M", "--secure-file-priv=", "--explicit-defaults-for-timestamp=0"]
        }
        ServerKind::Mysql97 => &["--innodb-redo-log-capacity=64M", "--mysqlx=OFF", "--secure-file-priv="],
        ServerKind::MariaDb => &["--innodb-log-file-size=64M", "--secure-file-priv="],
    };
    arguments.iter().copied()
}
