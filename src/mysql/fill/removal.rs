//! Takes a copy away again: what this run noted on the server, and nothing else.
//!
//! The notes go last, so a removal that is cut short begins again where it was. A database that this run created is dropped with all
//! that is in it by then: the server was empty when it was given to the rehearsal.

use super::name_of;
use crate::engine::context::StepContext;
use crate::engine::crash;
use crate::mysql::bookkeeping::{self, number, own_table};
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::copies::Copies;
use crate::mysql::error::Result;
use crate::mysql::sql;

/// Removes a store's copy; the databases that were dropped. Twice is harmless.
///
/// # Errors
/// As the server gives them; if a later driver of the run has taken over.
pub async fn remove(copies: &Copies, store: &str, context: &StepContext) -> Result<Vec<String>> {
    let mut session = Session::open(copies.source(), Purpose::Catalog).await?;
    let name = name_of(store);
    let held = bookkeeping::lease(&mut session, &name).await?;
    let dropped = match held {
        Some((holder, _)) if *holder == *context.run => {
            // What an older driver still sends is refused from here on.
            bookkeeping::claim(&mut session, &name, &context.run, context.epoch).await?;
            let dropped = databases(&mut session, &name).await?;
            bookkeeping::remove(&mut session, &name).await?;
            dropped
        }
        // Somebody else's.
        Some(_) => Vec::new(),
        None => {
            // Killed between making `_dbmove` and claiming it.
            if bookkeeping::exists(&mut session).await? && unclaimed(&mut session).await? {
                bookkeeping::remove(&mut session, &name).await?;
            }
            Vec::new()
        }
    };
    session.close().await;
    Ok(dropped)
}

async fn unclaimed(session: &mut Session) -> Result<bool> {
    match session.first(&format!("SELECT COUNT(*) FROM {}", own_table("lease")), "looking for other runs").await {
        Ok(row) => Ok(row.is_none_or(|row| number(&row, 0) == 0)),
        Err(error) if error.code() == Some(1146) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Drops the databases that were noted, and forgets what was noted of what was in them.
///
/// # Errors
/// As the server gives them.
pub(super) async fn databases(session: &mut Session, name: &str) -> Result<Vec<String>> {
    session.run("SET SESSION foreign_key_checks = 0", "setting up the session").await?;
    let made: Vec<String> =
        bookkeeping::created(session, name).await?.into_iter().filter(|made| made.table.is_empty()).map(|made| made.database).collect();
    for database in &made {
        let statement = format!("DROP DATABASE IF EXISTS {}", sql::identifier(database));
        session.run(&statement, &format!("dropping database `{database}` of the copy")).await?;
        crash::point("fill.database_dropped");
    }
    for table in ["filled_table", "created_object", "created"] {
        let statement = format!("DELETE FROM {} WHERE store = {}", own_table(table), sql::text(name));
        session.write(statement.as_bytes(), "noting what was dropped").await?;
    }
    Ok(made)
}
