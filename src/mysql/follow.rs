//! Follows the source: tail and applier together, reconnected when a connection is lost.
//!
//! # Resumption
//!
//! Where to start is on the target. A tail that lost its connection ends; the applier then applies
//! what it has received and ends too; both start again from the saved position. What was applied in
//! part is applied again, which changes nothing.
//!
//! # Touched keys after a restart
//!
//! The marks of touched keys are in memory only. So that none is lost, the log is read again from
//! the position since which all marks would be needed (the *verified floor*, kept in the journal):
//! events up to the applied position are then marked and not applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::apply::applier::{Applied, Applier};
use super::bookkeeping::{self, Followed};
use super::connect::{Purpose, Session};
use super::error::{MysqlError, Result};
use super::position::Position;
use super::status;
use super::store::{Described, Following, MysqlStore};
use super::tail::stream::Tail;
use super::tail::{MemoryLimit, TailEvent};
use crate::engine::step::Epoch;

/// How often a lost source is looked for again before the step fails (and may be retried as a whole).
const RECONNECTS: u32 = 60;

/// Events between tail and applier; the memory of their rows is limited by [`MemoryLimit`]. Enough for
/// the next batch of single-row transactions to be read while the one before it is written, so that batches
/// are full when the applier is behind.
const CHANNEL: usize = 16 << 10;

/// Follows until cancelled or told to finish. See the module's comment.
///
/// # Errors
/// What does not heal by reconnecting. [`MysqlError::DefinitionChanged`] when tables have to begin anew, with everything before applied.
pub async fn follow(
    store: &MysqlStore,
    epoch: Epoch,
    floor: Option<Position>,
    cancel: &CancellationToken,
    finish: &CancellationToken,
) -> Result<()> {
    let described = store.described().await?;
    let shared = described.shared.clone();
    let server_id = replica_number();
    let limit = MemoryLimit::new(store.settings.follow_memory);
    let mut lost = 0;
    let mut floor = floor;
    loop {
        let from = start(store, epoch).await?;
        // Back to what is saved, also after a loss: while events are applied again the target is not where it was.
        store.applied.send_modify(|applied| {
            if applied.position.file.is_empty() {
                *applied = Applied::at(from.applied.clone());
            } else {
                applied.position = from.applied.clone();
            }
        });
        store.following.send_if_modified(|following| match following {
            Following::On(_) => false,
            _ => {
                *following = Following::On(Instant::now());
                true
            }
        });
        let read_from = match &floor {
            Some(floor) if *floor < from.applied => floor.clone(),
            _ => from.applied.clone(),
        };
        let tail = tail(store, &described, server_id, limit.clone());
        let applier = Applier {
            shared: shared.clone(),
            server: store.target.clone(),
            epoch,
            settings: store.settings.apply.clone(),
            applied: store.applied.clone(),
        };
        let before = store.applied.borrow().position.clone();
        let (events, received) = mpsc::channel::<TailEvent>(CHANNEL);
        let reading = async {
            // The sender goes with this future: when the tail ends, the applier sees the end of the channel.
            let events = events;
            refuse_filtered(store, &described).await?;
            tokio::select! {
                result = tail.read(&read_from, &events, cancel) => result,
                () = finish.cancelled() => Ok(()),
            }
        };
        let (read, applied) = tokio::join!(reading, applier.run(&from, received, cancel));
        applied?;
        match read {
            Ok(()) => return Ok(()),
            Err(error) if error.transient() => {
                // Progress since the last loss starts the count again.
                lost = if store.applied.borrow().position > before { 1 } else { lost + 1 };
                if lost > RECONNECTS {
                    return Err(error);
                }
                shared.throttle(Some(format!("waiting for the source: {error}")));
                let wait = Duration::from_millis(100 << lost.min(6));
                tracing::warn!(%error, lost, "the source was lost, connecting again");
                tokio::select! {
                    () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                    () = tokio::time::sleep(wait) => {}
                }
                shared.throttle(None);
                // Everything from the floor on is marked by now.
                floor = None;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Refuses a log that leaves out what is followed: its rows would never be seen. Looked at with every connection, as a server that was started
/// again may have another configuration.
async fn refuse_filtered(store: &MysqlStore, described: &Described) -> Result<()> {
    let mut source = Session::open(&store.source, Purpose::Read).await?;
    let filters = status::log_filters(&mut source).await?;
    source.close().await;
    // Of the way back the schema has the databases, and no table of its own.
    let databases = described.schema.databases.iter().map(|database| database.name.as_str());
    let databases: BTreeSet<&str> = databases.chain(described.catalog.tables.keys().map(|name| name.database.as_str())).collect();
    let out: Vec<String> = databases.into_iter().filter_map(|database| filters.leaves_out(database)).collect();
    if out.is_empty() {
        return Ok(());
    }
    Err(MysqlError::Object {
        message: format!("the binary log of the {} leaves out what is followed: {}. Nothing of it was followed", store.source, out.join("; ")),
        hint: "take the filter out of the server's configuration and restart it; what was written meanwhile is not in its log, so start again from a new copy"
            .to_owned(),
    })
}

/// What reads the log of the store's source.
fn tail(store: &MysqlStore, described: &Described, server_id: u32, limit: MemoryLimit) -> Tail {
    Tail {
        server: store.source.clone(),
        selection: store.selection.clone(),
        tables: described.shared.tables.clone(),
        beginnings: described.shared.beginnings.clone(),
        on_ddl: store.settings.on_ddl,
        misfits: store.misfits.clone(),
        lower_case_names: described.source.variables.get("lower_case_table_names").is_some_and(|value| value == "1"),
        server_id,
        limit,
    }
}

/// Proves that the log can be read from a position on.
///
/// # Errors
/// If the server refuses, or sends nothing.
pub async fn probe(store: &MysqlStore, from: &Position) -> Result<()> {
    let described = store.described().await?;
    tail(store, &described, replica_number(), MemoryLimit::new(store.settings.follow_memory)).probe(from).await
}

/// Saves where following starts, if nothing is saved yet.
///
/// # Errors
/// If a server can't be asked.
pub async fn begin(store: &MysqlStore, epoch: Epoch) -> Result<()> {
    start(store, epoch).await.map(drop)
}

/// Where following starts: the saved positions, or the end of the source's log, saved before anything is read.
async fn start(store: &MysqlStore, epoch: Epoch) -> Result<Followed> {
    let described = store.described().await?;
    let mut target = described.shared.open_writer(&store.target).await?;
    described.shared.load_keyless(&mut target).await?;
    if let Some(followed) = bookkeeping::followed(&mut target, &store.name).await? {
        target.close().await;
        return Ok(followed);
    }
    let mut source = Session::open(&store.source, Purpose::Read).await?;
    let position = status::current_position(&mut source).await?;
    source.close().await;
    target.run("BEGIN", "saving the start position").await?;
    bookkeeping::hold_lease(&mut target, &store.name, epoch).await?;
    bookkeeping::start_following(&mut target, &store.name, &position).await?;
    target.run("COMMIT", "saving the start position").await?;
    target.close().await;
    Ok(Followed { start: position.clone(), applied: position.clone(), intent: position.clone(), sure: position })
}

/// A number that no other replica of the source is likely to have; two with one number throw each other out.
fn replica_number() -> u32 {
    rand::random_range(1 << 30..u32::MAX)
}

/// The end of the source's log, now.
///
/// # Errors
/// If the source can't be asked.
pub async fn source_position(store: &Arc<MysqlStore>) -> Result<Position> {
    let mut source = Session::open(&store.source, Purpose::Read).await?;
    let position = status::current_position(&mut source).await?;
    source.close().await;
    Ok(position)
}
