//! Who writes on the old source in spite of `read_only` while the way back is open: accounts with SUPER (on MariaDB READ_ONLY ADMIN).
//!
//! `read_only` stops nobody who has that privilege, and the lock is gone behind the switch. Two things are done about them, every second:
//!
//! * *Their connections from elsewhere are ended*, and the accounts named once: a program that is left at the old address finds no place there. An
//!   administrator on the machine itself is named, and stays.
//! * *The source's own log is asked who wrote.* Whoever comes and goes between two looks is in it all the same. dbmove's own transactions are known in
//!   it ([`logged`]). What is somebody else's counts as clients that were let in ([`kept_out`]): every table is compared as a whole, and what
//!   differs ends the way back. What can't be told apart, since it was written without a transaction, counts only together with such a connection.
//!   So monitoring that connects every few seconds, and only reads, costs nothing but the end of its connections where all tables are InnoDB's.
//!
//! Where the log was looked at last is in the journal, from before the lock was let go, so that a driver which takes the run over looks at what lies
//! between. Whoever writes with `sql_log_bin = 0` is not seen.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::kept_out;
use crate::engine::context::StepContext;
use crate::engine::step::StepError;
use crate::mysql::bookkeeping::{number, text};
use crate::mysql::connect::{Session, Version};
use crate::mysql::error::Result as MysqlResult;
use crate::mysql::fence;
use crate::mysql::foreign::is_of_the_server;
use crate::mysql::logged::{self, ByOthers};
use crate::mysql::names::TableName;
use crate::mysql::position::Position;
use crate::mysql::reverse::is_transactional;
use crate::mysql::sql;
use crate::mysql::status;
use crate::mysql::store::MysqlStore;

/// Checkpoint of a store: where the source's log ended when it was last looked at who wrote there.
const LOOKED: &str = "reverse.source_looked";

/// Checkpoint of a store: the accounts that were named, with where they came from.
const NAMED: &str = "reverse.privileged";

/// How long behind a look the journal may be.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// How many looks behind a connection's end what it wrote may still come into the log.
const LATE: u8 = 2;

/// Notes where the source's log ends: nobody but dbmove has written up to there.
///
/// # Errors
/// If the journal can't be written.
pub(in crate::mysql::steps) fn note_end(context: &StepContext, store: &MysqlStore, end: &Position) -> Result<(), StepError> {
    context.checkpoints.save(LOOKED, &store.name, &serde_json::json!(end))
}

/// Forgets what was noted: the way back is gone.
pub(super) fn forget(context: &StepContext, store: &MysqlStore) -> Result<(), StepError> {
    context.checkpoints.save(LOOKED, &store.name, &serde_json::Value::Null)?;
    context.checkpoints.save(NAMED, &store.name, &serde_json::Value::Null)
}

/// Looks at them again and again.
#[derive(Default)]
pub(super) struct Privileged {
    looked: Option<Position>,
    saved: Option<Instant>,
    without: Option<BTreeSet<TableName>>,
    /// Looks at which one that was seen may still have written.
    late: u8,
    /// Who that was.
    seen: BTreeSet<String>,
}

impl Privileged {
    /// Ends their connections, and asks the log who wrote since the last look.
    ///
    /// # Errors
    /// If the source can't be reached or refuses it, or the journal can't be written.
    pub async fn look(&mut self, context: &StepContext, store: &MysqlStore, session: &mut Session) -> MysqlResult<()> {
        let seen = end_connections(session).await?;
        if !seen.is_empty() {
            self.late = LATE;
            name_once(context, store, &seen)?;
            self.seen = seen;
        }
        let Some(from) = self.from(context, store)? else {
            let end = status::current_position(session).await?;
            return self.looked(context, store, end);
        };
        let without = match &self.without {
            Some(without) => without,
            None => {
                let described = store.described().await?;
                let tables = described.catalog.tables.iter().filter(|(_, table)| !is_transactional(&table.engine));
                self.without.insert(tables.map(|(name, _)| name.clone()).collect())
            }
        };
        let found = match logged::by_others(session, &store.selection, without, &from).await {
            Ok(found) => found,
            Err(error) if error.code().is_some() && !error.transient() => {
                let unclear = Some(format!("what was written there can't be told from its log ({error})"));
                ByOthers { end: status::current_position(session).await?, certain: None, unclear }
            }
            Err(error) => return Err(error),
        };
        let who =
            if self.late == 0 { "somebody else than dbmove".to_owned() } else { self.seen.iter().cloned().collect::<Vec<_>>().join(", ") };
        if let Some(what) = found.certain {
            let fix = "what was written there is not on the target: look for it in that server's own log. Take SUPER away from whoever wrote (`REVOKE SUPER`), and point them at the target";
            kept_out::let_in(context, store, format!("{who} wrote on the {}: {what}", store.source), fix)?;
        } else if let Some(what) = found.unclear.filter(|_| self.late > 0) {
            let fix = "what was written there is not on the target: look for it in that server's own log. Take SUPER away from these accounts (`REVOKE SUPER`), and point them at the target";
            kept_out::let_in(context, store, format!("{who} was connected to the {} and may have written: {what}", store.source), fix)?;
        }
        self.late = self.late.saturating_sub(1);
        self.looked(context, store, found.end)
    }

    fn from(&self, context: &StepContext, store: &MysqlStore) -> Result<Option<Position>, StepError> {
        if let Some(looked) = &self.looked {
            return Ok(Some(looked.clone()));
        }
        match context.checkpoints.load(LOOKED, &store.name)? {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| StepError::definite(format!("the checkpoint `{LOOKED}` of `{}` can't be read: {error}", store.name))),
        }
    }

    fn looked(&mut self, context: &StepContext, store: &MysqlStore, end: Position) -> MysqlResult<()> {
        if self.saved.is_none_or(|saved| saved.elapsed() >= SAVE_EVERY) {
            note_end(context, store, &end)?;
            self.saved = Some(Instant::now());
        }
        self.looked = Some(end);
        Ok(())
    }
}

/// Hosts of the process list that are the server's own machine.
const OWN_MACHINE: [&str; 4] = ["", "localhost", "127.0.0.1", "::1"];

/// Looks for connections of accounts that pass `read_only`, but for ours, the server's and replicas', and ends those that come from elsewhere. Says
/// whose they are, and from where.
async fn end_connections(session: &mut Session) -> MysqlResult<BTreeSet<String>> {
    let ours = session.server().user.clone();
    let mut clients = Vec::new();
    for row in session.rows("SHOW PROCESSLIST", "looking who is connected to the source").await? {
        let (id, user) = (u32::try_from(number(&row, 0)).unwrap_or(0), text(&row, 1));
        if user != ours && !is_of_the_server(&user) && !fence::is_replication(&text(&row, 4)) {
            clients.push((id, user, text(&row, 2)));
        }
    }
    if clients.is_empty() {
        return Ok(BTreeSet::new());
    }
    let pass = users_that_pass(session).await?;
    let mut seen = BTreeSet::new();
    for (id, user, host) in clients {
        if !pass.contains(&user) {
            continue;
        }
        let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
        if !OWN_MACHINE.contains(&host) {
            fence::kill(session, id, "ending a connection that `read_only` does not stop").await?;
        }
        seen.insert(format!("`{user}` from {host}"));
    }
    Ok(seen)
}

/// The privileges by which an account writes on a server that is `read_only`, as `information_schema` names them.
fn passing(version: &Version) -> &'static [&'static str] {
    match version {
        // From 10.11 on SUPER is not enough.
        Version { mariadb: true, number, .. } if *number >= (10, 11, 0) => &["READ_ONLY ADMIN", "READ ONLY ADMIN"],
        Version { mariadb: true, .. } => &["SUPER", "READ_ONLY ADMIN", "READ ONLY ADMIN"],
        Version { .. } => &["SUPER", "CONNECTION_ADMIN"],
    }
}

/// The names of users of whom any account passes `read_only`. A connection does not say by which account of its user's it came in.
async fn users_that_pass(session: &mut Session) -> MysqlResult<BTreeSet<String>> {
    let privileges: Vec<String> = passing(&session.version).iter().map(|privilege| sql::text(privilege)).collect();
    let query =
        format!("SELECT DISTINCT GRANTEE FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE IN ({})", privileges.join(", "));
    let rows = session.rows(&query, "looking which accounts pass `read_only`").await?;
    Ok(rows.iter().filter_map(|row| user_of(&text(row, 0))).collect())
}

/// The user of `'user'@'host'`.
fn user_of(grantee: &str) -> Option<String> {
    Some(grantee.rsplit_once("'@'")?.0.strip_prefix('\'')?.to_owned())
}

/// Names those that were not named yet, all in one finding.
fn name_once(context: &StepContext, store: &MysqlStore, found: &BTreeSet<String>) -> Result<(), StepError> {
    let mut named: BTreeSet<String> = match context.checkpoints.load(NAMED, &store.name)? {
        Some(value) => serde_json::from_value(value).unwrap_or_default(),
        None => BTreeSet::new(),
    };
    let before = named.len();
    named.extend(found.iter().cloned());
    if named.len() == before {
        return Ok(());
    }
    let all = named.iter().cloned().collect::<Vec<_>>().join(", ");
    tracing::warn!(store = %store.name, "{} connected to the {}, and `read_only` does not stop them; connections from elsewhere are ended", all, store.source);
    let finding = serde_json::json!({
        "level": "warning",
        "object": store.name,
        "found": format!("connected to the {} while the way back is open, and `read_only` does not stop them: {all}", store.source),
        "fix": "connections from another machine are ended each time, and the log is asked whether they wrote. Point them at the target, or take SUPER away from them there",
    });
    context.find("passes-read-only", &finding)?;
    context.checkpoints.save(NAMED, &store.name, &serde_json::json!(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_known_by_its_user() {
        assert_eq!(user_of("'root'@'localhost'").as_deref(), Some("root"));
        assert_eq!(user_of("''@'%'").as_deref(), Some(""));
        assert_eq!(user_of("'a'@'b'@'10.0.0.%'").as_deref(), Some("a'@'b"));
        assert_eq!(user_of("role"), None);
    }

    #[test]
    fn super_is_not_enough_on_every_server() {
        assert!(passing(&Version::parse("5.5.62")).contains(&"SUPER"));
        assert!(passing(&Version::parse("10.6.1-MariaDB")).contains(&"SUPER"));
        assert!(!passing(&Version::parse("11.8.2-MariaDB")).contains(&"SUPER"));
    }
}
