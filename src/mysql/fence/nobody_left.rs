//! Holds writes where a server refuses the global read lock: nobody is left who could write.
//!
//! RDS and Aurora refuse it (with 1045, though RELOAD is granted), and so does any server to an account without RELOAD. A rollback holds its target
//! by other means there.
//!
//! # What must hold
//!
//! * *Clients are kept out first* ([`KeepOut`](super::KeepOut)): one that is closed does not come back.
//! * *Every client's connection has ended*, and is not only told to: what it had begun to commit may still pass, and until that is over or rolled
//!   back the server lists it. One that is only logging in was let in before accounts were locked, maybe: it is waited for too.
//! * *The log is asked, not only the list.* Some can't be kept out: accounts that ours may not lock, our own, events of the server. The server itself
//!   writes too (heartbeats, rotations), so the position says nothing: the events behind it do. Rows of what moves there are somebody's write. They
//!   lie in the log that the way back follows, so none of them is lost as long as it is seen before clients go back: then they are
//!   carried and compared as well.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{ending, kill};
use crate::mysql::bookkeeping::{number, text};
use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::foreign::is_of_the_server;
use crate::mysql::logged;
use crate::mysql::names::Selection;
use crate::mysql::position::Position;
use crate::mysql::process_list;

/// "Access denied for user", which RDS says to the statement and not to the connection.
const REFUSED_BY_RDS: u16 = 1045;

/// Whether a server has refused the lock to our account.
pub(super) fn is_lock_refused(error: &MysqlError) -> bool {
    error.code().is_some_and(|code| [super::NOT_ALLOWED, REFUSED_BY_RDS].contains(&code))
}

/// Who logs in, and is not known yet.
const LOGGING_IN: &str = "unauthenticated user";

/// Closes every client's connection, and waits until all have ended. Says how many were closed.
///
/// # Errors
/// If one has not ended by `deadline`: it is named.
pub(super) async fn end_clients(session: &mut Session, deadline: Instant) -> Result<u64> {
    let mut logged_in_before: Option<BTreeSet<u32>> = None;
    let mut killed = BTreeSet::new();
    loop {
        let mut clients = Vec::new();
        let mut logging_in = BTreeSet::new();
        for row in session.rows("SHOW PROCESSLIST", "looking for clients that are left").await? {
            let (id, user) = (u32::try_from(number(&row, 0)).unwrap_or(0), text(&row, 1));
            if user == LOGGING_IN {
                logging_in.insert(id);
            } else if user != session.server().user && !is_of_the_server(&user) && !ending::is_replication(&text(&row, 4)) {
                clients.push((id, user));
            }
        }
        // Whoever began to log in later is refused.
        let waited_for = logged_in_before.as_ref().map_or(logging_in.clone(), |before| before & &logging_in);
        if clients.is_empty() && waited_for.is_empty() {
            return Ok(killed.len() as u64);
        }
        if Instant::now() >= deadline {
            let names: BTreeSet<&str> =
                clients.iter().map(|(_, user)| user.as_str()).chain(waited_for.iter().map(|_| LOGGING_IN)).collect();
            let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
            return Err(MysqlError::Object {
                message: format!(
                    "connections on the {} did not end in time, of {}; clients stay there",
                    session.server(),
                    names.join(", ")
                ),
                hint: "one that rolls a large transaction back takes its time (`SHOW PROCESSLIST` there); give the same command again"
                    .to_owned(),
            });
        }
        for (id, _) in clients {
            if killed.contains(&id) {
                continue;
            }
            match kill(session, id, "closing a client's connection").await {
                Ok(_) => {
                    killed.insert(id);
                }
                // It goes when it may run.
                Err(error) if process_list::is_unreadable(&error) => {}
                Err(error) => return Err(error),
            }
        }
        logged_in_before = Some(waited_for);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Where the log ends, and what was written since `from` to what moves, if anything was.
///
/// # Errors
/// If our account may not read the log (REPLICATION SLAVE).
pub(super) async fn written_since(session: &mut Session, moves: &Selection, from: &Position) -> Result<(Position, Option<String>)> {
    let mut found = None;
    let end = logged::scan(session, from, "looking at what was logged behind the hold", |event| {
        found = logged::written(&event.kind, &event.info, moves).map(|written| format!("{}, at {}", written.what, event.at()));
        found.is_none()
    })
    .await?;
    Ok((end, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rds_refuses_the_lock_with_a_word_of_its_own() {
        let error = |code: u16| MysqlError::Statement {
            server: "target".to_owned(),
            what: "taking the global read lock".to_owned(),
            source: Box::new(mysql_async::Error::Server(mysql_async::ServerError {
                code,
                message: "Access denied for user 'admin'@'%' (using password: YES)".to_owned(),
                state: "28000".to_owned(),
            })),
        };
        assert!(is_lock_refused(&error(1045)) && is_lock_refused(&error(1227)));
        // A lock that somebody holds up is no refusal.
        assert!(!is_lock_refused(&error(1205)));
    }
}
