//! Clients that came through the proxy before the hold, as the source sees them.
//!
//! They are closed by the source: it knows who runs a statement and who is inside a transaction, which a proxy in
//! TCP mode does not. Sessions of dbmove's own account are never touched: the one that follows the log, the one that holds the lock.

use std::collections::BTreeSet;

use crate::mysql::connect::{Session, TextRow};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::fence;
use crate::mysql::process_list;

/// A connection that came through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// Its number at the source.
    pub(super) id: u32,
    /// It waits for its next statement. It may be inside a transaction.
    pub(super) idle: bool,
}

/// Clients whose connections come from `host`.
///
/// # Errors
/// If the source can't be asked.
pub(super) async fn through(source: &mut Session, host: &str) -> Result<Vec<Client>> {
    let rows = source.rows("SHOW PROCESSLIST", "looking at who came through HAProxy").await?;
    let own = source.server().user.clone();
    let client = |row: TextRow| {
        let cell = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        let command = cell(4);
        let clients = !command.starts_with("Binlog Dump") && !["Daemon", "Connect"].contains(&command.as_str());
        let meant = host_of(&cell(2)) == host && cell(1) != own && clients;
        Some(Client { id: cell(0).parse().ok().filter(|_| meant)?, idle: command == "Sleep" })
    };
    Ok(rows.into_iter().filter_map(client).collect())
}

/// Closes a connection; false if it had ended by itself.
///
/// # Errors
/// If the source can't be told to.
pub(super) async fn close(source: &mut Session, client: Client) -> Result<bool> {
    match fence::kill(source, client.id, "closing a connection that came through HAProxy").await {
        // RDS kills by its process list; who could not be found there is still there at the next look.
        Err(error) if process_list::is_unreadable(&error) => Ok(false),
        closed => closed,
    }
}

/// Closes everybody who came through the proxy; says how many. For behind the fence, where no statement of theirs can be committed any more.
///
/// # Errors
/// If the source can't be asked.
pub async fn close_all(source: &mut Session, host: &str) -> Result<u64> {
    let mut closed = 0;
    for client in through(source, host).await? {
        closed += u64::from(close(source, client).await?);
    }
    Ok(closed)
}

/// Who is inside a transaction, by connection number; none if a server so old can't tell, or can't while a session runs bytes.
///
/// InnoDB refreshes what it tells only if nobody has asked for 100 ms, which callers keep to. To be asked after [`through`]: who began a
/// transaction since is in the answer then.
///
/// # Errors
/// If the source can't be asked.
pub(super) async fn inside_transactions(source: &mut Session) -> Result<Option<BTreeSet<u32>>> {
    let query = "SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX";
    match source.rows(query, "looking who is inside a transaction").await {
        Ok(rows) => Ok(Some(rows.into_iter().filter_map(|row| row.into_iter().next()?.and_then(|id| id.parse().ok())).collect())),
        Err(MysqlError::Cancelled) => Err(MysqlError::Cancelled),
        Err(error) if error.code() == Some(fence::NO_SUCH_TABLE) || process_list::is_unreadable(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `10.0.0.4` of `10.0.0.4:51132`.
pub(super) fn host_of(seen: &str) -> &str {
    seen.rsplit_once(':').map_or(seen, |(host, _)| host)
}
