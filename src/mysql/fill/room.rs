//! Whether a rehearsal's source is empty, or holds what this run made.
//!
//! Looked at before anything is written, so whoever names a server with data on it by mistake loses nothing. A run that goes on knows its own by
//! the lease in `_dbmove` there: the same run, a higher epoch. A driver of an older epoch that still writes is refused by it.

use std::collections::BTreeSet;

use super::origin;
use crate::engine::step::{Epoch, Failure, StepError};
use crate::mysql::bookkeeping::{self, number, own_table, text};
use crate::mysql::catalog::ServerFacts;
use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::is_system;
use crate::mysql::sql;

/// Databases named in a refusal at most.
const NAMED: usize = 10;

fn refused(message: String, hint: String) -> MysqlError {
    MysqlError::Step(StepError::new(Failure::Refused, format!("{message}. Nothing was written to it")).hint(hint))
}

/// Claims the server for this run, if nothing of anybody else is on it.
///
/// # Errors
/// A refusal if there is; [`MysqlError::LeaseLost`] if a later driver of the run has claimed it.
pub async fn enter(session: &mut Session, name: &str, run: &str, epoch: Epoch) -> Result<()> {
    match bookkeeping::lease(session, name).await? {
        Some((holder, _)) if holder == run => {}
        Some((holder, _)) => {
            let made = made_by(session, &holder).await?.into_iter().map(|database| format!("`{database}`")).collect::<Vec<_>>();
            return Err(refused(
                format!("the {} holds the copy that run `{holder}` has made", session.server()),
                format!(
                    "end that rehearsal with `dbmove undo PLAYBOOK --rehearsal --state-dir DIRECTORY`, where its journal is; if that is gone, drop {} and `_dbmove` there by hand",
                    made.join(", ")
                ),
            ));
        }
        None => empty(session, run).await?,
    }
    bookkeeping::create(session).await?;
    bookkeeping::claim(session, name, run, epoch).await
}

/// The databases that a run noted on this server, for whichever store.
async fn made_by(session: &mut Session, run: &str) -> Result<BTreeSet<String>> {
    let query = format!(
        "SELECT made.database_name FROM {} AS made JOIN {} AS lease ON lease.store = made.store WHERE lease.run = {} AND made.table_name = ''",
        own_table("created"),
        own_table("lease"),
        sql::text(run)
    );
    match session.rows(&query, "reading what was created").await {
        Ok(rows) => Ok(rows.iter().map(|row| text(row, 0)).collect()),
        Err(error) if matches!(error.code(), Some(1049 | 1146)) => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

async fn empty(session: &mut Session, run: &str) -> Result<()> {
    // Another store of the playbook may have its copy on the same server.
    let ours = made_by(session, run).await?;
    let mut found = Vec::new();
    for database in origin::databases(session).await? {
        if is_system(&database) || ours.contains(&database) {
            continue;
        }
        let name = sql::text(&database);
        let query = format!(
            "SELECT (SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {name}) \
             + (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {name}) \
             + (SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {name})"
        );
        let things = session.first(&query, "looking whether the server is empty").await?.map_or(0, |row| number(&row, 0));
        if things > 0 {
            found.push(format!("`{database}`"));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(refused(
        format!("the {} is not empty: it holds {}{more}, and dbmove fills only an empty server", session.server(), found.join(", ")),
        "name an empty server; or, if that is a copy of production already, take `copy` out of `rehearsal`".to_owned(),
    ))
}

/// Refuses a server that is of another kind than production: what is rehearsed there would be another migration.
///
/// # Errors
/// A refusal; as the server gives them.
pub async fn same_kind(session: &mut Session, there: &ServerFacts) -> Result<()> {
    let lower_case = session.global_variable("lower_case_table_names").await?.and_then(|value| value.parse().ok()).unwrap_or(0);
    let version = session.version.clone();
    let series = |number: (u16, u16, u16)| (number.0, number.1);
    if version.mariadb != there.version.mariadb || series(version.number) != series(there.version.number) {
        return Err(other_kind(session, &format!("it is {version}, and production is {}", there.version)));
    }
    if there.lower_case_table_names != lower_case {
        let both = format!("`lower_case_table_names` is {lower_case} there, and {} on production", there.lower_case_table_names);
        return Err(other_kind(session, &both));
    }
    Ok(())
}

fn other_kind(session: &Session, how: &str) -> MysqlError {
    MysqlError::Step(
        StepError::new(
            Failure::Refused,
            format!("the {} can't stand in for production: {how}. No database was created there", session.server()),
        )
        .hint("a rehearsal's source has to be a server like production's: the same version, the same settings"),
    )
}
