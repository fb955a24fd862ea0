//! The session that holds, or waits for, a fence's lock: how whoever comes later finds it, and ends it.
//!
//! # Why
//!
//! A dead driver's session may hold the global read lock for hours: where its machine or the network died, nobody told the server. The watchdog ends it,
//! until that is called off for the switch. From then on only the next driver can, be it for an undo, a rollback, or to go on. It has to find that
//! session and no other: a number of a connection, kept in the journal, may be somebody else's after the server was started again.
//!
//! # How
//!
//! Before it asks for the lock the session locks a name (`GET_LOCK`) that is made of the run and the store. The server says which connection has it
//! (`IS_USED_LOCK`), on every version, and gives it free when that session ends, never before. Nothing has to be granted, and nothing has to be kept.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::ending::end_all;
use crate::mysql::bookkeeping::number;
use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::sql;

/// The name that is locked. Servers from 5.7 on take no more than 64 characters.
fn locked(name: &str) -> String {
    format!("dbmove fence {}", &hex::encode(Sha256::digest(name.as_bytes()))[..40])
}

/// "This version … doesn't yet support", and what Percona's cluster says in its strict mode ("unknown error").
const REFUSED_IN_CLUSTER: [u16; 2] = [1235, 1105];

/// Whether a server refuses locks by name because it is a cluster's.
pub(crate) fn is_refused_in_cluster(error: &MysqlError) -> bool {
    error.code().is_some_and(|code| REFUSED_IN_CLUSTER.contains(&code))
}

/// Makes a session known as the one that holds the lock of this fence. Nobody else may be by then. (A cluster by Galera may refuse such names: it is
/// fenced all the same.)
///
/// # Errors
/// If another session is.
pub(super) async fn make_known(lock: &mut Session, name: &str) -> Result<()> {
    let query = format!("SELECT GET_LOCK({}, 0)", sql::text(&locked(name)));
    let taken = match lock.first(&query, "making the fence's session known").await {
        Err(error) if is_refused_in_cluster(&error) => {
            tracing::warn!(%error, server = %lock.server(), "should this machine die in the switch, the lock's session has to be ended by hand there");
            return Ok(());
        }
        taken => taken?,
    };
    if taken.map(|row| number(&row, 0)) == Some(1) {
        return Ok(());
    }
    Err(MysqlError::Object {
        message: format!(
            "another driver raises this fence on the {} at the same time ({name}); writes were not stopped by this one",
            lock.server()
        ),
        hint: "give the same command again".to_owned(),
    })
}

/// Ends the session that holds the lock of this fence, or waits for it, and waits until it has ended. Says whether there was one.
///
/// # Errors
/// If the server can't be asked, or the session does not end: then writes may be held still.
pub async fn end_holder(session: &mut Session, name: &str) -> Result<bool> {
    let query = format!("SELECT IS_USED_LOCK({})", sql::text(&locked(name)));
    let found = match session.first(&query, "looking for the session that holds the lock").await {
        Err(error) if is_refused_in_cluster(&error) => return Ok(false),
        found => found?,
    };
    let Some(id) = found.and_then(|row| row.into_iter().next().flatten()?.parse::<u32>().ok()) else { return Ok(false) };
    end_all(
        session,
        &BTreeSet::from([id]),
        "the session that holds the global read lock",
        "`SHOW PROCESSLIST` shows it; until then writes may be held",
    )
    .await?;
    tracing::warn!(connection = id, server = %session.server(), "ended a session that was left behind with the global read lock");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_named_within_what_every_server_takes() {
        let name = locked(&format!("run {}, store {}", "r".repeat(64), "s".repeat(64)));
        assert!(name.len() <= 64 && name.starts_with("dbmove fence "), "{name}");
        assert_ne!(locked("run 1, store a"), locked("rollback of run 1, store a"));
    }
}
