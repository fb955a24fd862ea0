//! In a rehearsal: the proof that its servers are copies, and not production under another name.
//!
//! # What must hold
//!
//! * Nothing is written to a rehearsal server before its proof. Addresses are compared when the playbook is bound
//!   ([`binding`](crate::steps::binding)); a port forward, a proxy or a second network can't be seen there, so the servers are asked.
//! * One server is known by a lock: a name that nobody else can know is locked on the copy (`GET_LOCK`), and production is
//!   asked whether it knows it (`IS_USED_LOCK`). Locks by name live in one server process, on every version. No false alarm, nothing
//!   overlooked, and nothing that has to be granted.
//! * A copy whose `server_uuid` is production's is refused too: it is a clone of the data directory, which still takes itself for
//!   production in everything that goes by that name.
//! * Production is asked by the one connection that there is to it (`production`): what is sent is counted, and the
//!   report lists it. Where production can't be reached from here, that is said, and is no reason to stop: then it can't be written to
//!   by mistake either.
//! * A copy has nobody else's connections: those would be traffic, which a rehearsal is in the way of. Monitoring can be excused by name
//!   (`other_accounts`). A copy on which our account sees nobody else's is refused too. Asked when a rehearsal begins; what it does itself comes after.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::connect::{Purpose, Server, Session};
use super::error::MysqlError;
use super::fill;
use super::foreign::is_of_the_server;
use super::production::{Look, Looker, Sendings};
use super::sight;
use super::sql;
use super::store::MysqlStore;
use crate::engine::step::{Failure, StepError};

/// What a rehearsal has to be kept away from, and what it may meet.
#[derive(Clone, Debug, Default)]
pub struct Production {
    /// Production's servers, as far as their addresses are known.
    pub servers: Vec<Arc<Server>>,
    /// Whose log a load is made from, as far as its address is known.
    pub log_of: Option<Arc<Server>>,
    /// Where the rehearsal's source is filled from, if dbmove fills it.
    pub copy: Option<fill::From>,
    /// What all of them were sent.
    pub sendings: Sendings,
    /// Why others are not.
    pub unknown: Vec<String>,
    /// Accounts that may be connected to the copies.
    pub other_accounts: Vec<String>,
}

/// What the proof was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What could not be asked, and why.
    pub not_asked: Vec<String>,
}

/// Connections named in an error at most.
const NAMED: usize = 10;

/// Servers that have proven to be copies. Nothing else makes one, and nothing else may be written to by a load.
#[derive(Clone, Debug)]
pub struct Copies {
    source: Arc<Server>,
    target: Arc<Server>,
}

impl Copies {
    /// Stands in for the source.
    #[must_use]
    pub fn source(&self) -> &Arc<Server> {
        &self.source
    }
    /// Stands in for the target.
    #[must_use]
    pub fn target(&self) -> &Arc<Server> {
        &self.target
    }
}

/// Proves that the store's servers are copies, and, if they have to be, `alone`: used by nobody. Call it before anything is written to them.
///
/// # Errors
/// [`Failure::Refused`] if one is production, or is used by others; as the servers give them.
pub async fn prove(store: &MysqlStore, production: &Production, alone: bool) -> Result<(Copies, Evidence), StepError> {
    let mut not_asked = production.unknown.clone();
    for copy in [&store.source, &store.target] {
        let mut session = Session::open(copy, Purpose::Catalog).await?;
        let lock = format!("dbmove_{:032x}", rand::random::<u128>());
        session.rows(&format!("SELECT GET_LOCK({}, 0)", sql::text(&lock)), "locking a name").await?;
        let uuid = session.global_variable("server_uuid").await?;
        for real in &production.servers {
            match same(real, &lock, uuid.as_deref(), &production.sendings).await {
                Ok(None) => {}
                Ok(Some(why)) => return Err(refused(format!("the {copy} is the {real}: {why}"))),
                Err(why) => not_asked.push(format!("whether the {copy} is the {real}: {why}")),
            }
        }
        if alone {
            nobody_else(&mut session, store, &production.other_accounts).await?;
        }
        session.close().await;
    }
    let copies = Copies { source: store.source.clone(), target: store.target.clone() };
    Ok((copies, Evidence { not_asked }))
}

fn refused(message: String) -> StepError {
    StepError::new(Failure::Refused, format!("{message}. Nothing was written to it"))
        .hint("rehearse on copies: a restored backup as the source (or an empty server, with `copy`), an empty server as the target")
}

/// How a server of production shows itself to be the copy, if it does.
async fn same(real: &Arc<Server>, lock: &str, uuid: Option<&str>, sendings: &Sendings) -> Result<Option<String>, MysqlError> {
    let mut looker = Looker::open(real, sendings).await?;
    if looker.ask(&Look::Lock(lock.to_owned())).await?.is_some() {
        return Ok(Some("a lock that was taken on the one is held on the other".to_owned()));
    }
    let theirs = looker.ask(&Look::Uuid).await?;
    looker.close().await;
    Ok(theirs.filter(|theirs| uuid == Some(theirs)).map(|uuid| {
        format!("both have the server_uuid {uuid}; if it is a clone, remove `auto.cnf` from its data directory and start it again")
    }))
}

/// Refuses a copy that others are connected to.
async fn nobody_else(session: &mut Session, store: &MysqlStore, excused: &[String]) -> Result<(), StepError> {
    // Else the list would be empty, whoever uses the copy.
    sight::sees_everybody(session, "Nothing was written to it").await?;
    let ours: BTreeSet<&str> = [store.source.user.as_str(), store.target.user.as_str()].into();
    let mut others = Vec::new();
    for row in session.rows("SHOW PROCESSLIST", "looking who else is connected").await? {
        let cell = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        let (user, from) = (cell(1), cell(2));
        let replication = cell(4).starts_with("Binlog Dump") || cell(4) == "Daemon";
        if !replication && !ours.contains(user.as_str()) && !is_of_the_server(&user) && !excused.contains(&user) {
            others.push(format!("`{user}` from {}", if from.is_empty() { "there" } else { &from }));
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    let more = others.len().saturating_sub(NAMED);
    others.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(StepError::new(
        Failure::Refused,
        format!("others are connected to the {}: {}{more}. Nothing was written to it", session.server(), others.join(", ")),
    )
    .hint("is it a copy that nobody uses? Then close these connections, or name accounts that only watch it in `rehearsal: { other_accounts: […] }`"))
}
