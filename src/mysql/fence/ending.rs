//! Ending other people's connections: those in a closing fence's way, those left behind by a dead driver, and every client's behind a switch.
//!
//! Who is never ended: the server's own threads and accounts (the provider's as well), replicas that read the log, and the connections that
//! the caller names as its own.
//!
//! On RDS an account may end only its own sessions, and a procedure of the provider's ends the others. It looks into
//! `information_schema.PROCESSLIST` first, as ours do in tests: a look that may have to be taken again ([`process_list`]).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{waits_for_lock, watchdog};
use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::foreign::is_of_the_server;
use crate::mysql::process_list;
use crate::mysql::sight;

/// "You are not owner of thread".
const NOT_OWNER: u16 = 1095;
/// "Unknown thread id".
const NO_SUCH_CONNECTION: u16 = 1094;
/// "PROCEDURE … does not exist".
const NO_SUCH_PROCEDURE: u16 = 1305;

/// "Unknown table": a server so old that it has no table of InnoDB's transactions (5.1 without the InnoDB plugin), or that was started without it.
pub const NO_SUCH_TABLE: u16 = 1109;
/// No InnoDB there ("not defined", "unknown storage engine"), or our account may not ask it.
const NO_STATUS: [u16; 3] = [1235, 1286, 1227];

/// Kills connections that wait for a row lock. While the fence closes, the holder of the row is held up itself. `told`: whether it was said
/// that this server shows them by its status only.
pub(super) async fn kill_row_waiters(session: &mut Session, own: &[u32], told: &mut bool) -> Result<u64> {
    let mut killed = 0;
    for id in row_waiters(session, told).await? {
        if !own.contains(&id) {
            kill(session, id, "ending a wait in the fence's way").await?;
            tracing::warn!(connection = id, "ended a transaction that waited for a row of one the fence holds up");
            killed += 1;
        }
    }
    Ok(killed)
}

/// Connections that wait for a row. Whom a server does not show is ended with the others when the grace is over.
async fn row_waiters(session: &mut Session, told: &mut bool) -> Result<Vec<u32>> {
    let what = "looking for who waits for rows";
    let query = "SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'";
    let first = |row: Vec<Option<String>>| row.into_iter().next().flatten()?.parse().ok().filter(|id| *id > 0);
    match process_list::rows(session, query, what).await {
        Ok(rows) => return Ok(rows.into_iter().filter_map(first).collect()),
        Err(error) if error.code() != Some(NO_SUCH_TABLE) => return Err(error),
        Err(_) => {}
    }
    if !std::mem::replace(told, true) {
        tracing::warn!(server = %session.server(), "no table of transactions there: who waits for a row is looked for in InnoDB's status");
    }
    match session.rows("SHOW ENGINE INNODB STATUS", what).await {
        Ok(rows) => Ok(rows.iter().filter_map(|row| row.last()?.as_deref()).flat_map(waiting_in).collect()),
        Err(error) if error.code().is_some_and(|code| NO_STATUS.contains(&code)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Connections whose transaction waits for a row, by the text of `SHOW ENGINE INNODB STATUS`.
fn waiting_in(status: &str) -> Vec<u32> {
    let transactions = status.split("\n---TRANSACTION ").skip(1);
    let waiting = transactions.filter(|transaction| transaction.lines().any(|line| line.starts_with("LOCK WAIT ")));
    let connection = |transaction: &str| {
        let line = transaction.lines().find_map(|line| line.strip_prefix("MySQL thread id "))?;
        line.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    waiting.filter_map(connection).collect()
}

/// Kills client connections that run something while the lock is waited for. Replication threads, our own
/// sessions, whoever watches over another fence, and idle connections stay.
pub(super) async fn kill_in_the_way(session: &mut Session, own: &[u32]) -> Result<u64> {
    let rows = session.rows("SHOW FULL PROCESSLIST", "looking at what runs").await?;
    let mut killed = 0;
    for row in rows {
        let cell = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        let id: u32 = cell(0).parse().unwrap_or(0);
        let command = cell(4);
        let waits = waits_for_lock(&cell(6));
        let watches = cell(1) == session.server().user && watchdog::is_one(&cell(7));
        if own.contains(&id) || waits || watches || command != "Query" || is_of_the_server(&cell(1)) {
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

/// How long sessions of ours that were killed get to end.
pub(super) const ENDING: Duration = Duration::from_secs(5);

/// Ends these connections of our account, and waits until all have ended. `whose` and `what_stands` are for the error: what they are, and
/// what to do about it.
pub(super) async fn end_all(session: &mut Session, ids: &BTreeSet<u32>, whose: &str, what_stands: &str) -> Result<()> {
    for id in ids {
        kill(session, *id, &format!("ending {whose}")).await?;
    }
    let deadline = Instant::now() + ENDING;
    loop {
        let there = of_our_account(session).await?;
        if ids.iter().all(|id| !there.iter().any(|(connection, _)| connection == id)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(MysqlError::Object {
                message: format!("{whose} on the {} did not end within {} s", session.server(), ENDING.as_secs()),
                hint: format!("end it there: {what_stands}"),
            });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All connections of our account, and what they run.
pub(super) async fn of_our_account(session: &mut Session) -> Result<Vec<(u32, String)>> {
    let user = session.server().user.clone();
    let rows = session.rows("SHOW FULL PROCESSLIST", "looking for sessions of our own").await?;
    let cell = |row: &[Option<String>], at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
    let ours = rows.iter().filter(|row| cell(row, 1) == user);
    Ok(ours.map(|row| (cell(row, 0).parse().unwrap_or(0), cell(row, 7))).collect())
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
    sight::sees_everybody(session, "Nobody's connection was closed").await?;
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
#[must_use]
pub fn is_replication(command: &str) -> bool {
    command.starts_with("Binlog Dump") || command == "Daemon"
}

#[cfg(test)]
mod tests {
    use super::waiting_in;

    #[test]
    fn who_waits_for_a_row_is_in_the_status_too() {
        // As 5.1 with its built-in InnoDB and 5.5 print it.
        let status = "
------------
TRANSACTIONS
------------
Trx id counter 0 1803
LIST OF TRANSACTIONS FOR EACH SESSION:
---TRANSACTION 0 0, not started, process no 3491, OS thread id 1265617216
MySQL thread id 9, query id 60 localhost root
SHOW ENGINE INNODB STATUS
---TRANSACTION 0 1802, ACTIVE 2 sec, process no 3491, OS thread id 1265350976 starting index read
mysql tables in use 1, locked 1
LOCK WAIT 2 lock struct(s), heap size 368, 1 row lock(s)
MySQL thread id 7, query id 59 localhost app Updating
UPDATE t SET n = 'MySQL thread id 99' WHERE id = 1
------- TRX HAS BEEN WAITING 2 SEC FOR THIS LOCK TO BE GRANTED:
RECORD LOCKS space id 0 page no 51 n bits 72 index `PRIMARY` of table `school`.`t` trx id 0 1802 lock_mode X locks rec but not gap waiting
------------------
---TRANSACTION 1801, ACTIVE 4 sec
2 lock struct(s), heap size 368, 1 row lock(s), undo log entries 1
MySQL thread id 6, OS thread handle 0x7f5b, query id 55 localhost app
--------
FILE I/O
--------
";
        assert_eq!(waiting_in(status), [7]);
        assert_eq!(waiting_in(""), Vec::<u32>::new());
    }
}
