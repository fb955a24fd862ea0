//! Refuses two stores of one playbook that move from one server.
//!
//! A fence holds a whole server: `read_only`, the global read lock, every client's connection. A second one there would wait for the first, note
//! for its undo what the first has set, and end what the first lives by, as the first ends what the second lives by when it closes connections behind
//! the switch. One store moves as many databases as it is told to, so there is nothing that two would be needed for.
//!
//! In a rehearsal the copies of two sources may be on one server: nobody misses anything there, and a fence leaves alone what watches over another.
//!
//! One server under two addresses is known as a rehearsal knows production ([`copies`](super::copies)): a name that nobody else can know is locked on
//! the one, and the others are asked whether they know it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::connect::{Purpose, Server, Session};
use super::fence::is_refused_in_cluster;
use super::sql;
use super::store::MysqlStore;
use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Failure, StepError};

/// The sources of a playbook's stores, by the store's name, as far as they are known yet.
#[derive(Debug, Default)]
pub struct Sources(Mutex<BTreeMap<String, Arc<Server>>>);

impl Sources {
    /// Notes a store's source.
    pub fn add(&self, store: &str, source: Arc<Server>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(store.to_owned(), source);
    }

    fn of_others(&self, store: &str) -> Vec<Arc<Server>> {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().filter(|(name, _)| name.as_str() != store).map(|(_, source)| source.clone()).collect()
    }
}

/// Refuses if another store's source is this store's, and it is no rehearsal. Changes nothing; `so_far` says for the error what is as it was.
///
/// # Errors
/// [`Failure::Refused`] if it is; as the servers give them if one can't be asked.
pub async fn refuse(context: &StepContext, store: &MysqlStore, so_far: &str) -> Result<(), StepError> {
    let others = store.beside.get().map(|sources| sources.of_others(&store.name)).unwrap_or_default();
    if others.is_empty() || context.kind == RunKind::Rehearsal {
        return Ok(());
    }
    let name = sql::text(&format!("dbmove_{:032x}", rand::random::<u128>()));
    let mut own = Session::open(&store.source, Purpose::Read).await?;
    match own.rows(&format!("SELECT GET_LOCK({name}, 0)"), "locking a name").await {
        // A cluster by Galera may refuse it; addresses that are the same word for word are found in the playbook.
        Err(error) if is_refused_in_cluster(&error) => {
            tracing::warn!(%error, store = %store.name, "whether another store moves from the same server can't be asked");
            return Ok(());
        }
        locked => drop(locked?),
    }
    for other in others {
        let mut there = Session::open(&other, Purpose::Read).await?;
        let holder = there.first(&format!("SELECT IS_USED_LOCK({name})"), "asking who holds a name").await?;
        there.close().await;
        if holder.and_then(|row| row.into_iter().next().flatten()).is_some() {
            return Err(StepError::new(
                Failure::Refused,
                format!(
                    "the {} and the {other} are one server, and the writes of a server can be held for one store only. {so_far}",
                    store.source
                ),
            )
            .hint("move it as one store: put the databases of both into its `include`"));
        }
    }
    own.close().await;
    Ok(())
}
