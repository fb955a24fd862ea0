//! Who else writes to the target before the switch.
//!
//! # What must hold
//!
//! Until the switch nobody but dbmove writes to the databases that move. What somebody else writes there is found by its effect (rows and structure are
//! compared); this names who it was. A server keeps no register of who wrote what, so every trace it does keep is looked at:
//!
//! * `performance_schema` counts statements by account (user and host). What an account's counts of writing statements grew by
//!   since a *baseline* it has run. The counts say nothing of databases: where the target holds no database but those that move, or a statement
//!   of a session that still lives says which, it is certain; else it is said to be possible;
//! * the digests of statements that ran with one of the moved databases as their default. Sessions of dbmove have no default
//!   database but where it creates views, routines, triggers and events, so all but these are somebody else's for certain; which account
//!   ran them is not told (an object that somebody else changed is found by its definition);
//! * MariaDB's `USER_STATISTICS` (`userstat = ON`) counts rows by user;
//! * the process list, on every server: statements that are running, and who is connected to a moved database. It is looked at every
//!   few seconds while the source is followed, and what it showed is kept.
//!
//! What another person does by dbmove's own account from dbmove's own machine can't be told apart by any of these.
//!
//! A write before a full comparison began is no reason to stop any more once all was found equal: so there are two
//! baselines, one from before the copy for what is reported, and one from the last equal comparison for what stops a switch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::bookkeeping::{number, text};
use super::connect::{Purpose, Session, TextRow};
use super::error::{MysqlError, Result};
use super::names::DBMOVE_SCHEMA;
use super::sql;
use super::store::{Described, MysqlStore};
use crate::verify::report::{ForeignLook, ForeignWriter};

/// Statements that change rows or tables, as `performance_schema` names them.
const WRITING: [&str; 21] = [
    "insert",
    "insert_select",
    "update",
    "update_multi",
    "delete",
    "delete_multi",
    "replace",
    "replace_select",
    "load",
    "truncate",
    "alter_table",
    "create_table",
    "drop_table",
    "rename_table",
    "create_index",
    "drop_index",
    "create_trigger",
    "drop_trigger",
    "drop_db",
    "create_view",
    "drop_view",
];

/// Runs of prepared statements: MySQL counts them as such, whatever they do.
const PREPARED: &str = "statement/com/Execute";

/// The first words of such statements.
const VERBS: [&str; 10] = ["INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "TRUNCATE", "ALTER", "DROP", "CREATE", "RENAME"];

/// Accounts of the server itself and of who runs it: their writes are in schemas of their own.
const OF_THE_SERVER: [&str; 11] = [
    "rdsadmin",
    "rdsrepladmin",
    "rdsproxyadmin",
    "rdstopmgr",
    "mysql.session",
    "mysql.sys",
    "mysql.infoschema",
    "mariadb.sys",
    "system user",
    "event_scheduler",
    "unauthenticated user",
];

/// Whether an account is the server's own or its provider's: nobody's client.
pub fn is_of_the_server(user: &str) -> bool {
    OF_THE_SERVER.contains(&user)
}

/// Databases every server has.
const SYSTEM_DATABASES: [&str; 5] = ["mysql", "sys", "information_schema", "performance_schema", DBMOVE_SCHEMA];

/// Writers kept from the process list at most.
const KEPT: usize = 200;

/// What had been counted at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The moment by the target's clock, in UTC.
    pub at: String,
    /// Account and kind of statement, and how many.
    counts: Vec<(Account, String, u64)>,
}

/// User and host of a client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Account {
    user: String,
    host: String,
}

impl Account {
    fn shown(&self) -> String {
        if self.host.is_empty() { self.user.clone() } else { format!("{}@{}", self.user, self.host) }
    }

    fn is_of_the_server(&self) -> bool {
        self.user.is_empty() || is_of_the_server(&self.user)
    }
}

/// What the process list has shown so far.
#[derive(Debug, Default)]
pub struct Seen {
    writers: Mutex<BTreeMap<(String, String), ForeignWriter>>,
}

impl Seen {
    fn note(&self, writer: ForeignWriter) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        if writers.len() < KEPT {
            writers.entry((writer.account.clone(), writer.what.clone())).or_insert(writer);
        }
    }

    fn since(&self, moment: &str) -> Vec<ForeignWriter> {
        // Moments of one server in one format: their order is that of the text.
        self.writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .filter(|writer| writer.since.as_str() >= moment)
            .cloned()
            .collect()
    }
}

/// Takes the baseline: from now on what accounts write is held against them.
///
/// # Errors
/// If the target can't be reached.
pub async fn baseline(store: &MysqlStore) -> Result<Baseline> {
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    let baseline = Baseline { at: now(&mut session).await?, counts: counts(&mut session).await?.0 };
    session.close().await;
    Ok(baseline)
}

/// Who wrote since the baseline.
///
/// # Errors
/// If the target can't be reached.
pub async fn look(store: &MysqlStore, since: &Baseline) -> Result<ForeignLook> {
    let described = store.described().await?;
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    let own = own_account(&mut session).await?;
    let alone = nothing_else_is_there(&mut session, &described).await?;
    let (now, means) = counts(&mut session).await?;
    let mut found = grown(since, now, &own, alone);
    if means.statements {
        let live = live_statements(&mut session).await?;
        for (account, writer) in &mut found {
            let theirs: Vec<&(String, String)> = live.iter().filter(|(who, _)| who == account).map(|(_, statement)| statement).collect();
            writer.certain = (alone && !writer.what.starts_with("may"))
                || theirs.iter().any(|(schema, statement)| concerns(&described, schema, statement));
            if let Some((_, statement)) = theirs.last() {
                writer.what = format!("{}, such as {}", writer.what, shortened(statement));
            }
        }
    }
    let mut writers: Vec<ForeignWriter> = found.into_values().collect();
    if means.digests {
        writers.extend(digests(&mut session, &described, since).await?);
    }
    sample(&mut session, store).await?;
    session.close().await;
    writers.extend(store.foreign.since(&since.at));
    Ok(ForeignLook { since: since.at.clone(), how: means.words(), writers })
}

/// Looks at the process list once, and keeps what it shows.
///
/// # Errors
/// If the connection breaks.
pub async fn sample(session: &mut Session, store: &MysqlStore) -> Result<()> {
    let described = store.described().await?;
    let own = own_account(session).await?;
    let at = now(session).await?;
    for row in session.rows("SHOW FULL PROCESSLIST", "looking who is connected to the target").await? {
        let host = text(&row, 2);
        // `host:port`; nothing but the host matters, and the port of an IPv6 address stands behind the last colon.
        let host = host.rsplit_once(':').map_or(host.clone(), |(host, _)| host.to_owned());
        let account = Account { user: text(&row, 1), host };
        if account == own || account.is_of_the_server() {
            continue;
        }
        let (schema, statement) = (text(&row, 3), text(&row, 7));
        let verb = verb(&statement);
        let moved = described.schema.databases.iter().any(|database| database.name == schema);
        if let Some(verb) = verb.filter(|_| concerns(&described, &schema, &statement)) {
            // Not the statement itself: it holds values.
            let what = format!("was seen running an {verb} on a database that moves");
            store.foreign.note(ForeignWriter { account: account.shown(), what, since: at.clone(), certain: true });
        } else if moved {
            let what = format!("is connected to `{schema}`; whether it writes is not seen in the process list");
            store.foreign.note(ForeignWriter { account: account.shown(), what, since: at.clone(), certain: false });
        }
    }
    Ok(())
}

/// By what means writers were looked for.
#[derive(Clone, Copy, Debug, Default)]
struct Means {
    statements: bool,
    digests: bool,
    user_statistics: bool,
}

impl Means {
    fn words(self) -> String {
        let mut words = Vec::new();
        if self.statements {
            words.push("statements counted by account and by database (performance_schema)");
        }
        if self.user_statistics {
            words.push("rows counted by user (USER_STATISTICS)");
        }
        words.push("the process list, every few seconds");
        if !self.statements && !self.user_statistics {
            words.push("nothing else: with `performance_schema` on, the target would tell writes that end between two looks");
        }
        words.join("; ")
    }
}

/// What is counted now, and by what means.
async fn counts(session: &mut Session) -> Result<(Vec<(Account, String, u64)>, Means)> {
    let on = |value: Option<String>| value.is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "ON" | "1"));
    let mut means = Means::default();
    let mut counts = Vec::new();
    if on(session.global_variable("performance_schema").await?) {
        let query = format!(
            "SELECT USER, HOST, EVENT_NAME, COUNT_STAR FROM performance_schema.events_statements_summary_by_account_by_event_name
             WHERE COUNT_STAR > 0 AND EVENT_NAME IN ({}, {})",
            writing_events(),
            sql::text(PREPARED)
        );
        if let Some(rows) = allowed(session.rows(&query, "counting statements by account").await)? {
            means.statements = true;
            counts.extend(rows.iter().map(|row| {
                let kind = text(row, 2).rsplit('/').next().unwrap_or_default().to_owned();
                (Account { user: text(row, 0), host: text(row, 1) }, kind, number(row, 3))
            }));
        }
        let query = "SELECT 1 FROM performance_schema.events_statements_summary_by_digest LIMIT 1";
        means.digests = allowed(session.rows(query, "reading digests of statements").await)?.is_some();
    }
    if !means.statements && on(session.global_variable("userstat").await?) {
        let query = "SELECT USER, ROWS_INSERTED + ROWS_UPDATED + ROWS_DELETED FROM information_schema.USER_STATISTICS";
        if let Some(rows) = allowed(session.rows(query, "counting rows by user").await)? {
            means.user_statistics = true;
            let of = |row: &TextRow| (Account { user: text(row, 0), host: String::new() }, "rows".to_owned(), number(row, 1));
            counts.extend(rows.iter().map(of));
        }
    }
    Ok((counts, means))
}

fn writing_events() -> String {
    WRITING.iter().map(|name| sql::text(&format!("statement/sql/{name}"))).collect::<Vec<_>>().join(", ")
}

/// What the account may not read is not there for it.
fn allowed(read: Result<Vec<TextRow>>) -> Result<Option<Vec<TextRow>>> {
    const REFUSED: [u16; 6] = [1044, 1142, 1143, 1146, 1054, 1227];
    match read {
        Ok(rows) => Ok(Some(rows)),
        Err(error) if error.code().is_some_and(|code| REFUSED.contains(&code)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What an account's counts grew by.
struct Grown {
    only_prepared: bool,
    words: Vec<String>,
}

/// Whose counts grew since the baseline, but for our own account's and the server's. `alone`: there are no databases but those that move.
fn grown(since: &Baseline, now: Vec<(Account, String, u64)>, own: &Account, alone: bool) -> BTreeMap<Account, ForeignWriter> {
    let before: BTreeMap<(&Account, &str), u64> =
        since.counts.iter().map(|(account, kind, count)| ((account, kind.as_str()), *count)).collect();
    let mut kinds: BTreeMap<Account, Grown> = BTreeMap::new();
    for (account, kind, count) in now {
        let ours = account == *own || (account.host.is_empty() && account.user == own.user);
        if ours || account.is_of_the_server() {
            continue;
        }
        let before = before.get(&(&account, kind.as_str())).copied().unwrap_or(0);
        // Less than before: the server was started again, and counts from zero.
        let grown = if count >= before { count - before } else { count };
        if grown > 0 {
            let grew = kinds.entry(account).or_insert_with(|| Grown { only_prepared: true, words: Vec::new() });
            if PREPARED.ends_with(&kind) {
                grew.words.push(format!("{grown} runs of prepared statements, which may only have read"));
            } else {
                grew.words.push(format!("{grown} {}", kind.replace('_', " ")));
                grew.only_prepared = false;
            }
        }
    }
    kinds
        .into_iter()
        .map(|(account, kinds)| {
            let verb = if kinds.only_prepared { "may have written to the target" } else { "wrote to the target" };
            let mut what = format!("{verb}: {}", kinds.words.join(", "));
            if account.user == own.user {
                what.push_str(" (by dbmove's own account, from another machine: by hand, or by an earlier driver)");
            }
            let writer = ForeignWriter { account: account.shown(), what, since: since.at.clone(), certain: alone && !kinds.only_prepared };
            (account, writer)
        })
        .collect()
}

/// Writing statements of sessions that live: the account, the default database and the statement without its values.
async fn live_statements(session: &mut Session) -> Result<Vec<(Account, (String, String))>> {
    let query = format!(
        "SELECT t.PROCESSLIST_USER, t.PROCESSLIST_HOST, h.CURRENT_SCHEMA, h.DIGEST_TEXT
         FROM performance_schema.events_statements_history h JOIN performance_schema.threads t ON t.THREAD_ID = h.THREAD_ID
         WHERE h.DIGEST_TEXT IS NOT NULL AND h.EVENT_NAME IN ({})",
        writing_events()
    );
    let rows = allowed(session.rows(&query, "reading the last statements of sessions").await)?.unwrap_or_default();
    let of = |row: &TextRow| (Account { user: text(row, 0), host: text(row, 1) }, (text(row, 2), text(row, 3)));
    Ok(rows.iter().map(of).collect())
}

/// Writing statements that ran in a database that moves, whoever ran them.
async fn digests(session: &mut Session, described: &Described, since: &Baseline) -> Result<Vec<ForeignWriter>> {
    let databases: Vec<String> = described.schema.databases.iter().map(|database| sql::text(&database.name)).collect();
    let query = format!(
        "SELECT SCHEMA_NAME, DIGEST_TEXT, COUNT_STAR, FIRST_SEEN FROM performance_schema.events_statements_summary_by_digest
         WHERE SCHEMA_NAME IN ({}) AND LAST_SEEN >= {}",
        databases.join(", "),
        sql::text(&since.at)
    );
    let rows = allowed(session.rows(&query, "reading digests of statements").await)?.unwrap_or_default();
    let writing = rows.iter().filter(|row| verb(&text(row, 1)).is_some() && !is_of_objects(&text(row, 1)));
    Ok(writing
        .take(KEPT)
        .map(|row| ForeignWriter {
            account: "somebody".to_owned(),
            what: format!("ran in `{}`, {} times since the server counts: {}", text(row, 0), number(row, 2), shortened(&text(row, 1))),
            since: text(row, 3).split('.').next().map_or(since.at.clone(), |first| since.at.clone().max(first.to_owned())),
            certain: true,
        })
        .collect())
}

/// Whether a statement may change a database that moves: it is the session's own, or named in it.
fn concerns(described: &Described, schema: &str, statement: &str) -> bool {
    let statement = statement.to_lowercase();
    described.schema.databases.iter().any(|database| database.name == schema || statement.contains(&database.name.to_lowercase()))
}

/// The first word of a statement that writes.
fn verb(statement: &str) -> Option<&'static str> {
    let mut rest = statement.trim_start();
    while let Some(end) = rest.strip_prefix("/*").and_then(|comment| comment.split_once("*/")) {
        rest = end.1.trim_start();
    }
    let word = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    VERBS.into_iter().find(|verb| verb.eq_ignore_ascii_case(word))
}

/// Whether a statement's digest is of a view, routine, trigger or event: dbmove runs such statements with a default database.
fn is_of_objects(digest: &str) -> bool {
    const OBJECTS: [&str; 6] = ["VIEW", "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "DATABASE"];
    let mut words = digest.split_ascii_whitespace();
    matches!(words.next(), Some("CREATE" | "DROP" | "ALTER"))
        && words.take_while(|word| !["TABLE", "INDEX", "(", "AS"].contains(word)).any(|word| OBJECTS.contains(&word))
}

fn shortened(statement: &str) -> String {
    const SHOWN: usize = 120;
    match statement.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", &statement[..end]),
        None => statement.to_owned(),
    }
}

async fn now(session: &mut Session) -> Result<String> {
    let row = session.first("SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%d %H:%i:%s')", "reading the target's clock").await?;
    Ok(row.map(|row| text(&row, 0)).unwrap_or_default())
}

async fn own_account(session: &mut Session) -> Result<Account> {
    let row = session.first("SELECT USER()", "reading our own account").await?;
    let own = row.map(|row| text(&row, 0)).unwrap_or_default();
    let (user, host) = own.rsplit_once('@').ok_or_else(|| MysqlError::missing_value("our own account"))?;
    Ok(Account { user: user.to_owned(), host: host.to_owned() })
}

/// Whether the target holds no database but those that move.
async fn nothing_else_is_there(session: &mut Session, described: &Described) -> Result<bool> {
    let moved: BTreeSet<&str> = described.schema.databases.iter().map(|database| database.name.as_str()).collect();
    let rows = session.rows("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA", "listing the target's databases").await?;
    Ok(rows
        .iter()
        .map(|row| text(row, 0))
        .all(|name| moved.contains(name.as_str()) || SYSTEM_DATABASES.contains(&name.to_lowercase().as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(user: &str, host: &str) -> Account {
        Account { user: user.to_owned(), host: host.to_owned() }
    }

    #[test]
    fn statements_of_objects_are_told_from_those_of_tables() {
        for digest in [
            "CREATE DEFINER = CURRENT_USER TRIGGER `a` BEFORE INSERT ON `t` FOR EACH ROW SET NEW . `a` = ?",
            "CREATE ALGORITHM = UNDEFINED DEFINER = `a` @ `%` SQL SECURITY DEFINER VIEW `v` AS SELECT ? AS `a`",
            "CREATE DEFINER = `a` @ `%` FUNCTION `f` ( ) RETURNS INTEGER RETURN ?",
            "DROP PROCEDURE IF EXISTS `d` . `p`",
            "ALTER DEFINER = `a` @ `%` EVENT `e` ENABLE",
        ] {
            assert!(is_of_objects(digest), "{digest}");
        }
        for digest in [
            "CREATE TABLE `VIEW` ( `EVENT` INTEGER )",
            "INSERT INTO `t` SELECT * FROM `VIEW`",
            "DROP TABLE `t`",
            "ALTER TABLE `t` DROP `EVENT`",
        ] {
            assert!(!is_of_objects(digest), "{digest}");
        }
    }

    #[test]
    fn only_what_others_wrote_since_counts() {
        let own = account("admin", "10.0.0.1");
        let count = |user: &str, host: &str, count| (account(user, host), "update".to_owned(), count);
        let since = Baseline {
            at: "2026-01-01 00:00:00".to_owned(),
            counts: vec![count("app", "h", 5), count("old", "h", 7), count("again", "h", 9)],
        };
        let now = vec![
            count("app", "h", 8),
            count("old", "h", 7),
            count("again", "h", 2),
            count("admin", "10.0.0.1", 900),
            count("admin", "10.0.0.2", 1),
            count("rdsadmin", "localhost", 44),
            count("", "", 3),
        ];
        let lines: Vec<String> = grown(&since, now, &own, false).values().map(ForeignWriter::line).collect();
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("`app@h` wrote to the target: 3 update")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("`again@h` wrote to the target: 2 update")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("`admin@10.0.0.2`") && line.contains("another machine")), "{lines:#?}");
    }

    #[test]
    fn the_verb_of_a_statement() {
        assert_eq!(verb("  /* hint */ update t set a = 1"), Some("UPDATE"));
        assert_eq!(verb("REPLACE INTO t VALUES (1)"), Some("REPLACE"));
        assert_eq!(verb("SELECT * FROM inserts"), None);
        assert_eq!(verb("updates"), None);
        assert_eq!(verb("/* open"), None);
    }
}
