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
use crate::mysql::names::Selection;
use crate::mysql::position::Position;
use crate::mysql::process_list;
use crate::mysql::status;
use crate::mysql::tail::dialect::Dialect;
use crate::mysql::tail::statement::{self, Statement};

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
    /// Events that are asked for at once.
    const TOGETHER: usize = 1000;
    let end = status::current_position(session).await?;
    if end == *from {
        return Ok((end, None));
    }
    let mut files = vec![from.file.clone()];
    if end.file != from.file {
        let between = |file: &String| (from.sequence() + 1..=end.sequence()).contains(&Position::new(file.clone(), 0).sequence());
        let listed = session.rows("SHOW BINARY LOGS", "listing the binary logs").await?;
        files.extend(listed.iter().map(|row| text(row, 0)).filter(between));
    }
    for file in files {
        let mut at = if file == from.file { from.offset } else { 4 };
        loop {
            let query = format!("SHOW BINLOG EVENTS IN {} FROM {at} LIMIT {TOGETHER}", crate::mysql::sql::text(&file));
            let rows = session.rows(&query, "looking at what was logged behind the hold").await?;
            for row in &rows {
                if let Some(what) = written(&text(row, 2), &text(row, 5), moves) {
                    return Ok((end, Some(format!("{what}, at {file}:{}", text(row, 1)))));
                }
            }
            match rows.last().map(|row| number(row, 4)) {
                Some(next) if rows.len() == TOGETHER && next > at => at = next,
                _ => break,
            }
        }
    }
    Ok((end, None))
}

/// What an event writes to what moves, by the words of `SHOW BINLOG EVENTS`.
fn written(kind: &str, info: &str, moves: &Selection) -> Option<String> {
    match kind {
        "Table_map" => {
            let name = info.split_once('(')?.1.strip_suffix(')')?;
            // Not quoted, and a name may have dots.
            let mut splits = name.match_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]));
            splits.any(|(database, table)| moves.contains(database, table)).then(|| format!("rows of `{name}`"))
        }
        "Query" => {
            let (database, statement) = match info.strip_prefix("use `").and_then(|rest| rest.split_once("`; ")) {
                Some((database, statement)) => (database.replace("``", "`"), statement),
                None => (String::new(), info),
            };
            let harmless = match statement::classify(statement, &database, moves, Dialect::default()) {
                // What was prepared before the hold would be committed behind it.
                Statement::Xa(_) => false,
                Statement::Truncate(_) | Statement::DeleteAll(_) | Statement::Definition(_) | Statement::DataByStatement => false,
                Statement::Begin
                | Statement::Commit
                | Statement::Rollback
                | Statement::Savepoint(_)
                | Statement::RollbackTo(_)
                | Statement::Elsewhere
                | Statement::Accounts
                | Statement::Object(_) => true,
            };
            // Not the statement itself: it holds values.
            (!harmless).then(|| format!("a statement ({})", statement.split_whitespace().take(2).collect::<Vec<_>>().join(" ")))
        }
        "Incident" | "Transaction_payload" | "Query_compressed" | "Execute_load_query" | "Begin_load_query" => {
            Some(format!("an event that may hold any table's rows ({kind})"))
        }
        _ => None,
    }
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

    #[test]
    fn only_what_moves_counts() {
        let moves = Selection::new(&["school.*".to_owned(), "a.b.c".to_owned()], &["school.tmp_*".to_owned()]).unwrap();
        let writes = |kind: &str, info: &str| written(kind, info, &moves).is_some();
        assert!(writes("Table_map", "table_id: 90 (school.pupils)"));
        assert!(writes("Table_map", "table_id: 90 (a.b.c)"));
        assert!(!writes("Table_map", "table_id: 90 (school.tmp_x)"));
        assert!(!writes("Table_map", "table_id: 17 (mysql.rds_heartbeat2)"));
        assert!(writes("Query", "use `school`; ALTER TABLE pupils ADD x INT"));
        assert!(writes("Query", "INSERT INTO school.pupils VALUES (1)"));
        assert!(writes("Query", "TRUNCATE TABLE `school`.`pupils`"));
        assert!(writes("Query", "XA COMMIT X'61',X'',1"));
        assert!(!writes("Query", "BEGIN") && !writes("Query", "COMMIT"));
        assert!(!writes(
            "Query",
            "use `mysql`; INSERT INTO mysql.rds_heartbeat2(id, value) VALUES (1, 2) ON DUPLICATE KEY UPDATE value = 2"
        ));
        assert!(!writes("Query", "ALTER USER 'app'@'%' ACCOUNT LOCK"));
        for kind in ["Rotate", "Xid", "Gtid", "Anonymous_Gtid", "Format_desc", "Previous_gtids", "Write_rows", "Stop"] {
            assert!(!writes(kind, "whatever"), "{kind}");
        }
        assert!(writes("Transaction_payload", "compression='ZSTD'"));
    }
}
