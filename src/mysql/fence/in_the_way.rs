//! What on the source a fence would have to wait for, and end in the end: looked for while clients still write.
//!
//! A statement that runs for minutes, or one that alters a table, is met by every fence: it gets its grace, all the while clients are held, and then its
//! connection is killed. A transaction that is open keeps no fence from closing, but what it has done so far is lost. So a cutover waits for a while until
//! nobody is left. What can't be seen here: an idle `LOCK TABLES` or `FLUSH TABLES WITH READ LOCK`, which old servers tell nobody; statements that
//! wait for one are seen as long ones.
//!
//! Without PROCESS a server shows an account nobody else's sessions, and nothing is found.

use std::collections::BTreeMap;

use super::NOT_ALLOWED;
use super::ending::{NO_SUCH_TABLE, is_replication};
use crate::mysql::bookkeeping::{number, text};
use crate::mysql::connect::{Session, TextRow};
use crate::mysql::error::Result;
use crate::mysql::foreign::is_of_the_server;

/// From how many seconds on a statement or a transaction is worth waiting for: those that are shorter end in the fence's grace.
const LONG: u64 = 5;

/// Statements that change definitions, whichever age they have: how long one takes can't be seen from how long it has been taking.
const DEFINING: [&str; 7] = ["ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE", "OPTIMIZE", "REPAIR"];

/// A client's session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Client {
    account: String,
    /// What it runs and for how many seconds, if it runs anything.
    runs: Option<(String, u64)>,
}

/// Who is in the way, for people: the one of whom there is most to wait for.
///
/// # Errors
/// If the connection breaks.
pub async fn look(session: &mut Session) -> Result<Option<String>> {
    let ours = session.server().user.clone();
    let rows = session.rows("SHOW FULL PROCESSLIST", "looking who would be in the fence's way").await?;
    let clients: BTreeMap<u64, Client> = rows.iter().filter_map(|row| client(row, &ours)).collect();
    // The times are in the server's own zone, our session's are in UTC.
    let query = "SELECT trx_mysql_thread_id, TIMESTAMPDIFF(SECOND, trx_started, CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', 'SYSTEM')) \
                 FROM information_schema.INNODB_TRX";
    let transactions = match session.rows(query, "looking at open transactions").await {
        Ok(rows) => rows.iter().map(|row| (number(row, 0), number(row, 1))).collect(),
        // Where they can't be seen, the list of sessions has to do.
        Err(error) if error.code().is_some_and(|code| [NO_SUCH_TABLE, NOT_ALLOWED].contains(&code)) => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(worst(&clients, &transactions))
}

fn client(row: &TextRow, ours: &str) -> Option<(u64, Client)> {
    let (user, host, command) = (text(row, 1), text(row, 2), text(row, 4));
    if user == ours || is_of_the_server(&user) || is_replication(&command) {
        return None;
    }
    // `host:port`, and the port of an IPv6 address stands behind the last colon.
    let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
    let runs = ["Query", "Execute"].contains(&command.as_str()).then(|| (text(row, 7), number(row, 5)));
    Some((number(row, 0), Client { account: format!("`{user}`@`{host}`"), runs }))
}

/// Of those that change definitions the oldest; else the oldest statement or transaction, if it is long.
fn worst(clients: &BTreeMap<u64, Client>, transactions: &[(u64, u64)]) -> Option<String> {
    let mut found: Vec<(bool, u64, String)> = Vec::new();
    for (id, client) in clients {
        let Some((statement, seconds)) = &client.runs else { continue };
        if let Some(verb) = defines(statement) {
            found.push((true, *seconds, format!("{} runs {verb} (connection {id})", client.account)));
        } else if *seconds >= LONG {
            found.push((false, *seconds, format!("{} has been running a statement for {seconds} s (connection {id})", client.account)));
        }
    }
    for (id, seconds) in transactions.iter().filter(|(_, seconds)| *seconds >= LONG) {
        if let Some(client) = clients.get(id) {
            found.push((false, *seconds, format!("{} has had a transaction open for {seconds} s (connection {id})", client.account)));
        }
    }
    found.into_iter().max_by_key(|(defining, seconds, _)| (*defining, *seconds)).map(|(_, _, words)| words)
}

/// Whether a statement changes definitions, and by which words. What is temporary is of its own session only.
fn defines(statement: &str) -> Option<String> {
    let mut rest = statement.trim_start();
    while let Some((_, behind)) = rest.strip_prefix("/*").and_then(|comment| comment.split_once("*/")) {
        rest = behind.trim_start();
    }
    let mut words = rest.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()).map(str::to_ascii_uppercase);
    let verb = words.next().filter(|verb| DEFINING.contains(&verb.as_str()))?;
    match words.next().as_deref() {
        Some("TEMPORARY") => None,
        Some("TABLE") => Some(format!("{verb} TABLE")),
        _ => Some(verb),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, user: &str, command: &str, seconds: u64, statement: &str) -> TextRow {
        let cells = [&id.to_string(), user, "10.0.0.7:51234", "school", command, &seconds.to_string(), "", statement];
        cells.iter().map(|cell| Some((*cell).to_owned())).collect()
    }

    fn seen(rows: &[TextRow], transactions: &[(u64, u64)]) -> Option<String> {
        worst(&rows.iter().filter_map(|row| client(row, "dbmove")).collect(), transactions)
    }

    #[test]
    fn only_what_clients_do_for_long_is_in_the_way() {
        let quiet = [
            row(1, "app", "Query", 4, "SELECT 1"),
            row(2, "app", "Sleep", 900, ""),
            row(3, "dbmove", "Query", 900, "ALTER TABLE t ADD x INT"),
            row(4, "system user", "Connect", 900, "ALTER TABLE t ADD x INT"),
            row(5, "replica", "Binlog Dump", 90_000, ""),
            row(6, "app", "Query", 0, "CREATE TEMPORARY TABLE t (id INT)"),
            row(7, "app", "Query", 0, "SELECT 'DROP TABLE t'"),
        ];
        // The third is ours, the ninth has ended meanwhile.
        assert_eq!(seen(&quiet, &[(2, 4), (3, 900), (9, 900)]), None);
        let open = seen(&quiet, &[(2, 312)]).unwrap();
        assert_eq!(open, "`app`@`10.0.0.7` has had a transaction open for 312 s (connection 2)");
        let report = [row(8, "reports", "Execute", 75, "SELECT * FROM t")];
        assert_eq!(seen(&report, &[(8, 70)]).unwrap(), "`reports`@`10.0.0.7` has been running a statement for 75 s (connection 8)");
        let altering = [report[0].clone(), row(9, "app", "Query", 1, "/* nightly */ alter table t engine = InnoDB")];
        assert_eq!(seen(&altering, &[]).unwrap(), "`app`@`10.0.0.7` runs ALTER TABLE (connection 9)");
    }
}
