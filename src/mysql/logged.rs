//! What was written to what moves, by the words of `SHOW BINLOG EVENTS`: no second reader of the log is needed, and nothing is sent but words.
//!
//! Behind a hold any row counts. Behind the switch the old source's log has what dbmove carries back there too, and [`by_others`] tells the
//! two apart: every transaction of dbmove's writes to `_dbmove` as well (its position, or on the way back the mark of its lane). What
//! can't be told by that is what was written without a transaction: rows of tables whose engine has none, and `TRUNCATE`.

use std::collections::BTreeSet;

use super::bookkeeping::{number, text};
use super::connect::Session;
use super::error::Result;
use super::names::{DBMOVE_SCHEMA, Selection, TableName};
use super::position::Position;
use super::sql;
use super::status;
use super::tail::dialect::Dialect;
use super::tail::statement::{self, Statement};

/// Events that are asked for at once.
const TOGETHER: usize = 1000;

/// One event, as the server words it.
pub struct Logged {
    /// The log file.
    file: String,
    /// Where it begins.
    begins: String,
    /// `Query`, `Table_map` …
    pub kind: String,
    /// What it says.
    pub info: String,
}

impl Logged {
    /// Where it stands.
    #[must_use]
    pub fn at(&self) -> String {
        format!("{}:{}", self.file, self.begins)
    }
}

/// Shows every event since `from`, in order, until `see` has seen enough. Returns where the log ended before that.
///
/// # Errors
/// If our account may not read the log (REPLICATION SLAVE), or it is gone.
pub async fn scan(session: &mut Session, from: &Position, what: &str, mut see: impl FnMut(&Logged) -> bool) -> Result<Position> {
    let end = status::current_position(session).await?;
    if end == *from {
        return Ok(end);
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
            let query = format!("SHOW BINLOG EVENTS IN {} FROM {at} LIMIT {TOGETHER}", sql::text(&file));
            let rows = session.rows(&query, what).await?;
            for row in &rows {
                let event = Logged { file: file.clone(), begins: text(row, 1), kind: text(row, 2), info: text(row, 5) };
                if !see(&event) {
                    return Ok(end);
                }
            }
            match rows.last().map(|row| number(row, 4)) {
                Some(next) if rows.len() == TOGETHER && next > at => at = next,
                _ => break,
            }
        }
    }
    Ok(end)
}

/// What an event writes to what moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// In words. Not the statement itself: it holds values.
    pub what: String,
    /// The table, of rows.
    pub table: Option<TableName>,
}

/// The tables that the words of a `Table_map` may mean: names are not quoted there, and may have dots.
fn named(info: &str) -> impl Iterator<Item = TableName> + '_ {
    let name = info.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or_default();
    name.match_indices('.').map(|(at, _)| TableName::new(&name[..at], &name[at + 1..]))
}

/// What an event writes to what moves, if it does.
#[must_use]
pub fn written(kind: &str, info: &str, moves: &Selection) -> Option<Written> {
    match kind {
        "Table_map" => {
            let table = named(info).find(|name| moves.contains(&name.database, &name.table))?;
            Some(Written { what: format!("rows of `{table}`"), table: Some(table) })
        }
        "Query" => {
            let harmless = match said(info, moves) {
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
            (!harmless).then(|| Written { what: format!("a statement ({})", first_words(info)), table: None })
        }
        "Incident" | "Transaction_payload" | "Query_compressed" | "Execute_load_query" | "Begin_load_query" => {
            Some(Written { what: format!("an event that may hold any table's rows ({kind})"), table: None })
        }
        _ => None,
    }
}

/// The database a statement ran in, and the statement.
fn split(info: &str) -> (String, &str) {
    match info.strip_prefix("use `").and_then(|rest| rest.split_once("`; ")) {
        Some((database, statement)) => (database.replace("``", "`"), statement),
        None => (String::new(), info),
    }
}

fn said(info: &str, moves: &Selection) -> Statement {
    let (database, statement) = split(info);
    statement::classify(statement, &database, moves, Dialect::default())
}

fn first_words(info: &str) -> String {
    split(info).1.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// What others than dbmove wrote to what moves, as far as the log can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByOthers {
    /// Where the log ended.
    pub end: Position,
    /// The first that nobody but others can have written.
    pub certain: Option<String>,
    /// The first that may be dbmove's own: it was written without a transaction.
    pub unclear: Option<String>,
}

/// Looks at what was written since `from`; `without` are the tables whose engine has no transactions.
///
/// # Errors
/// If our account may not read the log (REPLICATION SLAVE), or it is gone.
pub async fn by_others(session: &mut Session, moves: &Selection, without: &BTreeSet<TableName>, from: &Position) -> Result<ByOthers> {
    let mut groups = Groups { moves, without, ours: false, rows: Vec::new(), certain: None, unclear: None };
    let end = scan(session, from, "looking at who wrote on the source", |event| {
        groups.see(event);
        groups.certain.is_none()
    })
    .await?;
    groups.end();
    Ok(ByOthers { end, certain: groups.certain, unclear: groups.unclear })
}

/// Events of one transaction after the other.
struct Groups<'a> {
    moves: &'a Selection,
    without: &'a BTreeSet<TableName>,
    /// Whether the transaction writes to `_dbmove`.
    ours: bool,
    /// What it writes to what moves, and whether by a transaction.
    rows: Vec<(String, bool)>,
    certain: Option<String>,
    unclear: Option<String>,
}

impl Groups<'_> {
    fn see(&mut self, event: &Logged) {
        match event.kind.as_str() {
            "Gtid" | "Anonymous_Gtid" | "Xid" => self.end(),
            "Table_map" => {
                self.ours |= named(&event.info).any(|name| name.database == DBMOVE_SCHEMA);
                if let Some(written) = written(&event.kind, &event.info, self.moves) {
                    let by_transaction = written.table.is_none_or(|table| !self.without.contains(&table));
                    self.rows.push((format!("{}, at {}", written.what, event.at()), by_transaction));
                }
            }
            "Query" => match said(&event.info, self.moves) {
                Statement::Begin | Statement::Commit | Statement::Rollback => self.end(),
                Statement::DataByStatement | Statement::DeleteAll(_) => {
                    self.rows.push((format!("a statement ({}), at {}", first_words(&event.info), event.at()), true));
                }
                Statement::Truncate(name) => self.rows.push((format!("`{name}` was emptied, at {}", event.at()), false)),
                // Triggers are put aside and counters raised by dbmove itself; another definition shows when tables are compared.
                _ => {}
            },
            _ => {}
        }
    }

    fn end(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        if !std::mem::take(&mut self.ours) {
            for (what, by_transaction) in rows {
                let found = if by_transaction { &mut self.certain } else { &mut self.unclear };
                found.get_or_insert(what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_dbmove_writes_itself_is_nobody_elses() {
        let moves = Selection::new(&["school.*".to_owned()], &[]).unwrap();
        let without = BTreeSet::from([TableName::new("school", "old")]);
        let found = |events: &[(&str, &str)]| {
            let mut groups = Groups { moves: &moves, without: &without, ours: false, rows: Vec::new(), certain: None, unclear: None };
            for (kind, info) in events {
                groups.see(&Logged { file: "b.1".to_owned(), begins: "4".to_owned(), kind: (*kind).to_owned(), info: (*info).to_owned() });
            }
            groups.end();
            (groups.certain.is_some(), groups.unclear.is_some())
        };
        let (begin, xid) = (("Query", "BEGIN"), ("Xid", "COMMIT /* xid=9 */"));
        let (pupils, own) = (("Table_map", "table_id: 9 (school.pupils)"), ("Table_map", "table_id: 8 (_dbmove.lane)"));
        let (old, other) = (("Table_map", "table_id: 7 (school.old)"), ("Table_map", "table_id: 6 (other.pupils)"));
        assert_eq!(found(&[begin, pupils, own, xid, begin, own, xid]), (false, false));
        assert_eq!(found(&[begin, other, xid]), (false, false));
        assert_eq!(found(&[begin, pupils, own, xid, begin, pupils, xid, begin, own, xid]), (true, false));
        // MariaDB begins by a GTID, and has no BEGIN.
        assert_eq!(found(&[("Gtid", "BEGIN GTID 0-1-5"), own, pupils, xid, ("Gtid", "BEGIN GTID 0-1-6"), pupils, xid]), (true, false));
        assert_eq!(found(&[begin, old, ("Query", "COMMIT")]), (false, true));
        assert_eq!(found(&[("Query", "use `school`; TRUNCATE TABLE pupils")]), (false, true));
        assert_eq!(found(&[begin, ("Query", "use `school`; UPDATE pupils SET a = 1"), xid]), (true, false));
        assert_eq!(
            found(&[("Query", "use `school`; DROP TRIGGER t"), ("Query", "ALTER TABLE `school`.`old` AUTO_INCREMENT = 9")]),
            (false, false)
        );
    }
}
