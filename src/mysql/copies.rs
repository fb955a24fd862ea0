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
//! * To production only the statements of [`Look`] are sent, by [`Looker`], which has no other way to send one. Each is counted, and the
//!   report lists them. Where production can't be reached from here, that is said, and is no reason to stop: then it can't be written to
//!   by mistake either.
//! * A copy has nobody else's connections: those would be traffic, which a rehearsal is in the way of. Monitoring can be excused by name
//!   (`other_accounts`). Asked when a rehearsal begins; what it does itself comes after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::{Deserialize, Serialize};

use super::connect::{Purpose, Server, Session};
use super::sql;
use super::store::MysqlStore;
use crate::engine::step::{Failure, StepError};

/// What a rehearsal has to be kept away from, and what it may meet.
#[derive(Clone, Debug, Default)]
pub struct Production {
    /// Production's servers, as far as their addresses are known.
    pub servers: Vec<Arc<Server>>,
    /// Why others are not.
    pub unknown: Vec<String>,
    /// Accounts that may be connected to the copies.
    pub other_accounts: Vec<String>,
}

/// A statement that was sent to production, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Which server.
    pub server: String,
    /// Its text; the name of a lock is left out.
    pub statement: String,
    /// How often.
    pub count: u64,
}

/// What the proof was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What production was sent.
    pub sent: Vec<Sent>,
    /// What could not be asked, and why.
    pub not_asked: Vec<String>,
}

/// How long production may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections named in an error at most.
const NAMED: usize = 10;

/// "Unknown system variable".
const UNKNOWN_VARIABLE: u16 = 1193;

/// All that is ever sent to production in a rehearsal.
#[derive(Clone, Debug)]
enum Look {
    /// A session that can't write, where the server knows such.
    ReadOnly,
    /// The server's name for itself, from MySQL 5.6 on.
    Uuid,
    /// Whether anybody holds the lock.
    Lock(String),
}

impl Look {
    fn text(&self) -> String {
        match self {
            Look::ReadOnly => "SET SESSION TRANSACTION READ ONLY".to_owned(),
            Look::Uuid => "SELECT @@global.server_uuid".to_owned(),
            Look::Lock(name) => format!("SELECT IS_USED_LOCK({})", sql::text(name)),
        }
    }

    fn listed(&self) -> String {
        match self {
            Look::Lock(_) => "SELECT IS_USED_LOCK('…')".to_owned(),
            other => other.text(),
        }
    }
}

/// A connection to production that knows the statements of [`Look`] and no others.
struct Looker<'a> {
    server: &'a Server,
    conn: Conn,
    sent: &'a mut BTreeMap<(String, String), u64>,
}

impl<'a> Looker<'a> {
    async fn open(server: &'a Server, sent: &'a mut BTreeMap<(String, String), u64>) -> Result<Looker<'a>, String> {
        let options = server.options().map_err(|error| error.to_string())?;
        // With these two the driver asks nothing of its own.
        let options = options.max_allowed_packet(Some(1 << 20)).wait_timeout(Some(60));
        let conn = within(Conn::new(options)).await?;
        let mut looker = Looker { server, conn, sent };
        if looker.conn.server_version() >= (5, 6, 5) {
            looker.ask(&Look::ReadOnly).await?;
        }
        Ok(looker)
    }

    async fn ask(&mut self, look: &Look) -> Result<Option<String>, String> {
        *self.sent.entry((self.server.to_string(), look.listed())).or_default() += 1;
        let answer = within(self.conn.query_first::<Option<String>, _>(look.text())).await;
        match answer {
            Err(error) if matches!(look, Look::Uuid) && error.contains(&format!("ERROR {UNKNOWN_VARIABLE} ")) => Ok(None),
            answer => answer.map(Option::flatten),
        }
    }
}

async fn within<T>(answer: impl Future<Output = mysql_async::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Proves that the store's servers are copies, and, if they have to be, `alone`: used by nobody. Call it before anything is written to them.
///
/// # Errors
/// [`Failure::Refused`] if one is production, or is used by others; as the servers give them.
pub async fn prove(store: &MysqlStore, production: &Production, alone: bool) -> Result<Evidence, StepError> {
    let mut sent = BTreeMap::new();
    let mut not_asked = production.unknown.clone();
    for copy in [&store.source, &store.target] {
        let mut session = Session::open(copy, Purpose::Catalog).await?;
        let lock = format!("dbmove_{:032x}", rand::random::<u128>());
        session.rows(&format!("SELECT GET_LOCK({}, 0)", sql::text(&lock)), "locking a name").await?;
        let uuid = session.global_variable("server_uuid").await?;
        for real in &production.servers {
            match same(real, &lock, uuid.as_deref(), &mut sent).await {
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
    let sent = sent.into_iter().map(|((server, statement), count)| Sent { server, statement, count }).collect();
    Ok(Evidence { sent, not_asked })
}

fn refused(message: String) -> StepError {
    StepError::new(Failure::Refused, format!("{message}. Nothing was written to it"))
        .hint("rehearse on copies: a restored backup as the source, an empty server as the target")
}

/// How a server of production shows itself to be the copy, if it does.
async fn same(real: &Server, lock: &str, uuid: Option<&str>, sent: &mut BTreeMap<(String, String), u64>) -> Result<Option<String>, String> {
    let mut looker = Looker::open(real, sent).await?;
    if looker.ask(&Look::Lock(lock.to_owned())).await?.is_some() {
        return Ok(Some("a lock that was taken on the one is held on the other".to_owned()));
    }
    let theirs = looker.ask(&Look::Uuid).await?;
    // Whether it goes orderly is no matter: it has been asked.
    let _ = looker.conn.disconnect().await;
    Ok(theirs.filter(|theirs| uuid == Some(theirs)).map(|uuid| {
        format!("both have the server_uuid {uuid}; if it is a clone, remove `auto.cnf` from its data directory and start it again")
    }))
}

/// Refuses a copy that others are connected to.
async fn nobody_else(session: &mut Session, store: &MysqlStore, excused: &[String]) -> Result<(), StepError> {
    let ours: BTreeSet<&str> = [store.source.user.as_str(), store.target.user.as_str()].into();
    // Threads of the server itself, and what RDS keeps connected.
    let servers = ["system user", "event_scheduler", "unauthenticated user", "rdsadmin", "mysql.session"];
    let mut others = Vec::new();
    for row in session.rows("SHOW PROCESSLIST", "looking who else is connected").await? {
        let cell = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        let (user, from) = (cell(1), cell(2));
        let replication = cell(4).starts_with("Binlog Dump") || cell(4) == "Daemon";
        if !replication && !ours.contains(user.as_str()) && !servers.contains(&user.as_str()) && !excused.contains(&user) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_listed_without_its_name() {
        let look = Look::Lock("dbmove_1'2".to_owned());
        assert_eq!((look.text(), look.listed()), ("SELECT IS_USED_LOCK('dbmove_1\\'2')".to_owned(), "SELECT IS_USED_LOCK('…')".to_owned()));
    }
}
