//! Ending other people's connections: those in a closing fence's way, those left behind by a dead driver, and every client's behind a switch.
//!
//! Who is never ended: the server's own threads and accounts (the provider's as well), replicas that read the log, and the connections that
//! the caller names as its own.
//!
//! On RDS an account may end only its own sessions, and a procedure of the provider's ends the others. It looks into
//! `information_schema.PROCESSLIST` first, as ours do in tests: a look that may have to be taken again ([`process_list`]).

use super::TAKE_LOCK;
use crate::mysql::connect::Session;
use crate::mysql::error::Result;
use crate::mysql::foreign::is_of_the_server;
use crate::mysql::process_list;

/// "You are not owner of thread".
const NOT_OWNER: u16 = 1095;
/// "Unknown thread id".
const NO_SUCH_CONNECTION: u16 = 1094;
/// "PROCEDURE … does not exist".
const NO_SUCH_PROCEDURE: u16 = 1305;

/// Kills connections that wait for a row lock. While the fence closes, the holder of the row is held up itself.
pub(super) async fn kill_row_waiters(session: &mut Session, own: &[u32]) -> Result<u64> {
    let query = "SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'";
    let mut killed = 0;
    for row in process_list::rows(session, query, "looking for who waits for rows").await? {
        let id: u32 = row.into_iter().next().flatten().and_then(|id| id.parse().ok()).unwrap_or(0);
        if id > 0 && !own.contains(&id) {
            kill(session, id, "ending a wait in the fence's way").await?;
            tracing::warn!(connection = id, "ended a transaction that waited for a row of one the fence holds up");
            killed += 1;
        }
    }
    Ok(killed)
}

/// Kills client connections that run something while the lock is waited for. Replication threads, our own
/// sessions and idle connections stay.
pub(super) async fn kill_in_the_way(session: &mut Session, own: &[u32]) -> Result<u64> {
    let rows = session.rows("SHOW FULL PROCESSLIST", "looking at what runs").await?;
    let mut killed = 0;
    for row in rows {
        let cell = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        let id: u32 = cell(0).parse().unwrap_or(0);
        let command = cell(4);
        let waits = cell(6).contains("global read lock");
        if own.contains(&id) || waits || command != "Query" || is_of_the_server(&cell(1)) {
            continue;
        }
        if kill(session, id, "killing a connection in the fence's way").await? {
            tracing::warn!(connection = id, user = %cell(1), "killed a connection that kept the fence from closing");
            killed += 1;
        }
    }
    Ok(killed)
}

/// Ends a connection; `false` if it has ended by itself, which is as good. On RDS a procedure of the provider's does it.
///
/// # Errors
/// If the server can't be told to.
pub async fn kill(session: &mut Session, id: u32, what: &str) -> Result<bool> {
    let mut done = session.run(&format!("KILL {id}"), what).await;
    if done.as_ref().is_err_and(|error| error.code() == Some(NOT_OWNER)) {
        done = match by_procedure(session, id, what).await {
            // There is no such procedure, so this is no RDS: the first answer stands.
            Err(error) if error.code() == Some(NO_SUCH_PROCEDURE) => session.run(&format!("KILL {id}"), what).await,
            done => done,
        };
    }
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(NO_SUCH_CONNECTION) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the server has the procedure by which RDS and Aurora end connections of others: it is one of theirs.
///
/// # Errors
/// If the connection breaks.
pub async fn ends_by_procedure(session: &mut Session) -> Result<bool> {
    let query = "SELECT 1 FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'mysql' AND ROUTINE_NAME = 'rds_kill'";
    Ok(session.first(query, "looking whether this is RDS").await?.is_some())
}

/// Has RDS end a connection.
async fn by_procedure(session: &mut Session, id: u32, what: &str) -> Result<()> {
    process_list::run(session, &format!("CALL mysql.rds_kill({id})"), what).await
}

/// Ends sessions of our account that still wait for the global read lock, of a driver that was killed. (One that held it let it go when its
/// connection broke: an idle session ends with its client, a waiting one does not.)
///
/// # Errors
/// If the process list can't be read.
pub async fn end_left_behind(session: &mut Session) -> Result<u64> {
    let rows = session.rows("SHOW FULL PROCESSLIST", "looking for a fence left behind").await?;
    let mut ended = 0;
    for row in rows {
        let cell = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        if cell(1) == session.server().user && cell(7) == TAKE_LOCK {
            kill(session, cell(0).parse().unwrap_or(0), "ending a fence left behind").await?;
            ended += 1;
        }
    }
    Ok(ended)
}

/// Closes all client connections but our own, the server's and replicas': uncommitted work is rolled
/// back, and pools connect again, where the route now points.
///
/// # Errors
/// If the process list can't be read.
pub async fn disconnect_clients(session: &mut Session, own: &[u32]) -> Result<u64> {
    let id = session.id();
    disconnect_all_but(session, |connection, _| connection == id || own.contains(&connection)).await
}

/// The same, but every connection of our own account stays: also those that hold clients at a proxy.
///
/// # Errors
/// If the process list can't be read.
pub async fn disconnect_other_accounts(session: &mut Session) -> Result<u64> {
    let ours = session.server().user.clone();
    disconnect_all_but(session, |_, user| user == ours).await
}

async fn disconnect_all_but(session: &mut Session, stays: impl Fn(u32, &str) -> bool) -> Result<u64> {
    let rows = session.rows("SHOW PROCESSLIST", "looking at who is connected").await?;
    let mut closed = 0;
    for row in rows {
        let cell = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        let id: u32 = cell(0).parse().unwrap_or(0);
        if stays(id, &cell(1)) || is_of_the_server(&cell(1)) || is_replication(&cell(4)) {
            continue;
        }
        closed += u64::from(kill(session, id, "closing a client's connection").await?);
    }
    Ok(closed)
}

/// Whether a connection that runs this command is a replica's, or a thread of the server's.
pub(super) fn is_replication(command: &str) -> bool {
    command.starts_with("Binlog Dump") || command == "Daemon"
}
