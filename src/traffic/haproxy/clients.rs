//! Clients that came through the proxy before the hold, as the source sees them.
//!
//! Those between two requests are closed by the source: it knows who runs a statement and who is inside a transaction, which a proxy in
//! TCP mode does not. Sessions of dbmove's own account are never touched: the one that follows the log, the one that holds the lock.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::server::Room;
use crate::mysql::connect::{Purpose, Server, Session, TextRow};
use crate::mysql::error::{MysqlError, Result};

/// "Unknown thread id": it ended by itself.
const GONE: u16 = 1094;
/// "Unknown table": a server so old that it can't tell who is inside a transaction (5.1 without the InnoDB plugin).
const NO_SUCH_TABLE: u16 = 1109;

/// Who is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Nobody who runs a statement or is inside a transaction, and who has been idle for as many seconds.
    Idle {
        /// In whole seconds, as old servers tell it.
        seconds: u64,
    },
    /// Everybody: behind a fence no statement of theirs can be committed any more.
    All,
}

/// Closes clients whose connections come from `host`; says how many.
///
/// # Errors
/// If the source can't be asked.
pub async fn close(source: &mut Session, host: &str, which: Which) -> Result<u64> {
    let rows = source.rows("SHOW PROCESSLIST", "looking at who came through HAProxy").await?;
    // After the process list: whoever began a transaction since is in it. (InnoDB refreshes this table only if nobody read it for
    // 100 ms, which callers keep to.)
    let inside = match which {
        Which::All => BTreeSet::new(),
        Which::Idle { .. } => match inside_transactions(source).await? {
            Some(inside) => inside,
            None => return Ok(0),
        },
    };
    let mut closed = 0;
    for row in rows {
        let cell = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        let id: u32 = cell(0).parse().unwrap_or(0);
        let idle: u64 = cell(5).split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let meant = match which {
            Which::Idle { seconds } => cell(4) == "Sleep" && idle >= seconds && !inside.contains(&id),
            Which::All => !cell(4).starts_with("Binlog Dump") && !["Daemon", "Connect"].contains(&cell(4).as_str()),
        };
        if host_of(&cell(2)) != host || cell(1) == source.server().user || !meant {
            continue;
        }
        match source.run(&format!("KILL {id}"), "closing an idle connection that came through HAProxy").await {
            Ok(()) => closed += 1,
            Err(error) if error.code() == Some(GONE) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(closed)
}

async fn inside_transactions(source: &mut Session) -> Result<Option<BTreeSet<u32>>> {
    let query = "SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX";
    match source.rows(query, "looking who is inside a transaction").await {
        Ok(rows) => Ok(Some(rows.into_iter().filter_map(|row| row.into_iter().next()?.and_then(|id| id.parse().ok())).collect())),
        Err(MysqlError::Cancelled) => Err(MysqlError::Cancelled),
        Err(error) if error.code() == Some(NO_SUCH_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many clients a server can take: half its `back_log` in one moment, three quarters of what its limits leave in all.
///
/// # Errors
/// If it can't be asked.
pub async fn room(server: &Arc<Server>) -> Result<Room> {
    let mut session = Session::open(server, Purpose::Read).await?;
    let query = "SELECT @@global.max_connections, @@global.max_user_connections, @@global.back_log";
    let limits = session.first(query, "asking how many connections it takes").await?;
    let connected = session.first("SHOW GLOBAL STATUS LIKE 'Threads_connected'", "asking how many are connected").await?;
    session.close().await;
    let number = |row: &Option<TextRow>, at: usize| row.as_ref().and_then(|row| row.get(at)?.as_deref()?.parse::<u64>().ok()).unwrap_or(0);
    let (most, per_user, back_log, connected) = (number(&limits, 0), number(&limits, 1), number(&limits, 2), number(&connected, 1));
    let free = most.saturating_sub(connected);
    let free = if per_user > 0 { free.min(per_user) } else { free };
    Ok(Room { at_once: (back_log / 2).clamp(1, 100), at_most: (free * 3 / 4).max(1) })
}

/// `10.0.0.4` of `10.0.0.4:51132`.
pub(super) fn host_of(seen: &str) -> &str {
    seen.rsplit_once(':').map_or(seen, |(host, _)| host)
}
