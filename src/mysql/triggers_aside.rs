//! The source's triggers, put aside while the way back is open.
//!
//! Rows that come back from the target hold what its triggers did already; a trigger on the source would do it once more. A session can't switch
//! triggers off, so those of moved tables are dropped there behind the switch, when nobody but dbmove writes, and made again before a
//! client may: in the rollback, or when the way back is closed. The caller keeps their definitions, with the settings they were made
//! under, in the journal before the first one is dropped, so that a driver that takes the run over knows them too. Dropping what is
//! dropped, and making what is there, changes nothing.
//!
//! Making one waits for every statement that uses its table, and in a rollback clients' writes wait meanwhile on both sides. So whoever reads
//! there for longer than [`LOCK_WAIT`] is closed, and one that can't be made in time is given up and named.

use std::collections::BTreeSet;
use std::time::Duration;

use super::catalog::ObjectKind;
use super::connect::{Purpose, Session};
use super::error::Result;
use super::fence;
use super::objects::create::{Maker, Zones};
use super::objects::named;
use super::objects::read::{Definition, Reader};
use super::store::MysqlStore;

/// The triggers of moved tables on the source, in the order in which they act.
///
/// # Errors
/// If one can't be read.
pub async fn of_source(store: &MysqlStore) -> Result<Vec<Definition>> {
    let described = store.described().await?;
    let databases: Vec<String> = described.schema.databases.iter().map(|database| database.name.clone()).collect();
    let tables = &described.shared.tables;
    let mut reader = Reader::open(&store.source).await?;
    let listed = reader.list(&databases, &store.selection, |database, table| tables.id(database, table).is_some()).await?;
    let mut definitions = Vec::new();
    for object in listed.iter().filter(|object| object.kind == ObjectKind::Trigger) {
        // None: dropped since it was listed.
        definitions.extend(reader.definition(object).await?);
    }
    reader.close().await;
    Ok(definitions)
}

/// Drops them.
///
/// # Errors
/// If the source refuses.
pub async fn drop_all(store: &MysqlStore, triggers: &[Definition]) -> Result<()> {
    let mut maker = Maker::open(&store.source, BTreeSet::new(), Zones::default()).await?;
    for trigger in triggers {
        maker.drop_object(&trigger.object).await?;
    }
    maker.close().await;
    Ok(())
}

/// How long making a trigger waits for whoever uses its table, in seconds, before they are closed.
const LOCK_WAIT: u32 = 2;

/// How often they are closed.
const CLOSING_TRIES: u32 = 3;

/// How long one trigger may take in all, on a server too old to give a wait up by itself (5.1).
const ONE: Duration = Duration::from_secs(15);

/// "Lock wait timeout exceeded".
const WAITED: u16 = 1205;

/// A trigger that is not there again, and why.
#[derive(Debug)]
pub struct Missing {
    /// It.
    pub trigger: Definition,
    /// What the server said.
    pub why: String,
}

/// Makes again those that are not there; those that the source refuses, or that could not be made in time. The others stand.
///
/// # Errors
/// If the source can't be reached: then any of them may be missing.
pub async fn make_again(store: &MysqlStore, triggers: &[Definition]) -> Result<Vec<Missing>> {
    let mut reader = Reader::open(&store.source).await?;
    let mut maker = Maker::open(&store.source, BTreeSet::new(), Zones::default()).await?;
    maker.waits_for_locks(LOCK_WAIT).await?;
    let mut missing = Vec::new();
    for trigger in triggers {
        if reader.definition(&trigger.object).await?.is_some() {
            continue;
        }
        match tokio::time::timeout(ONE, make(store, &mut maker, trigger)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.transient() && error.code() != Some(WAITED) => return Err(error),
            Ok(Err(error)) => missing.push(Missing { trigger: trigger.clone(), why: error.to_string() }),
            Err(_) => {
                let why = format!("it was not made within {} s: somebody uses its table", ONE.as_secs());
                missing.push(Missing { trigger: trigger.clone(), why });
                // The session that waits is of no use any more.
                maker = Maker::open(&store.source, BTreeSet::new(), Zones::default()).await?;
                maker.waits_for_locks(LOCK_WAIT).await?;
            }
        }
    }
    maker.close().await;
    reader.close().await;
    Ok(missing)
}

/// Makes one, and closes clients that keep its table in use for too long.
async fn make(store: &MysqlStore, maker: &mut Maker, trigger: &Definition) -> Result<()> {
    let mut tries = 0;
    loop {
        match maker.make(trigger).await {
            Ok(changes) => {
                for change in changes {
                    tracing::warn!(rule = change.rule, before = %change.before, after = %change.after, "{} is another one than before", named(&trigger.object));
                }
                return Ok(());
            }
            Err(error) if error.code() == Some(WAITED) && tries < CLOSING_TRIES => {
                tries += 1;
                let mut source = Session::open(&store.source, Purpose::Read).await?;
                let closed = fence::disconnect_other_accounts(&mut source).await?;
                source.close().await;
                tracing::warn!(closed, "closed clients on the source, so that {} can be made again", named(&trigger.object));
            }
            Err(error) => return Err(error),
        }
    }
}
