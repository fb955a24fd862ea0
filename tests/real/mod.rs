//! What tests on real servers share: `mod real;` at the top of a test file.
//!
//! - A server that was not fetched makes a test skip, never silently: [`skipped`].
//! - Starting is what costs, so tests that neither kill a server nor change its settings share one per kind and
//!   test binary, [`shared`], each with databases of its own names. The kernel ends it with the test binary.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod proxy;
pub mod replica;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions, available, prometheus_available, proxy_available};
use mysql_async::Conn;
use tokio::sync::Mutex;

/// Whether `test` has to be skipped because one of `kinds` can't be had. Says so on stderr and, for `make test` to
/// count, in the file named by `DBMOVE_SKIP_LOG`.
pub fn skipped(test: &str, kinds: &[ServerKind]) -> bool {
    match kinds.iter().find_map(|kind| available(*kind).err()) {
        None => false,
        Some(reason) => {
            skip(test, &reason);
            true
        }
    }
}

/// The same for a test that needs HAProxy as well.
pub fn proxy_skipped(test: &str, kinds: &[ServerKind]) -> bool {
    match proxy_available() {
        Ok(()) => skipped(test, kinds),
        Err(reason) => {
            skip(test, &reason);
            true
        }
    }
}

/// The same for a test that needs Prometheus.
pub fn prometheus_skipped(test: &str) -> bool {
    match prometheus_available() {
        Ok(()) => false,
        Err(reason) => {
            skip(test, &reason);
            true
        }
    }
}

/// Notes that `test` is skipped, and why.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED {test}: {}", reason.replace('\n', " "));
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("DBMOVE_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(log, "{line}").unwrap();
    }
}

/// The server of this kind that the tests of this binary share: plain, or RDS-like.
pub async fn shared(kind: ServerKind, rds_like: bool) -> Arc<LocalServer> {
    static SERVERS: Mutex<Vec<(ServerKind, bool, Arc<LocalServer>)>> = Mutex::const_new(Vec::new());
    let mut servers = SERVERS.lock().await;
    if let Some((_, _, server)) = servers.iter().find(|(k, r, _)| (*k, *r) == (kind, rds_like)) {
        return server.clone();
    }
    let directory = shared_directory().join(format!("{}-{rds_like}", kind.cache_name()));
    let options = ServerOptions::default().rds_like(rds_like);
    let server = Arc::new(LocalServer::start(kind, &directory, &options).await.unwrap());
    servers.push((kind, rds_like, server.clone()));
    server
}

/// Where this process keeps shared servers' data. A static is never dropped, so each test binary removes what
/// binaries before it, which have ended, left behind.
fn shared_directory() -> PathBuf {
    let all = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("shared-servers");
    for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        let alive = PathBuf::from("/proc").join(entry.file_name()).exists();
        if !alive {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    all.join(std::process::id().to_string())
}

/// A connection as `account`.
pub async fn connect(server: &LocalServer, account: Account) -> Conn {
    Conn::new(server.connect_options(account, None)).await.unwrap()
}
