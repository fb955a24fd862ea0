//! What a rollback does with the way back: the same dance in the other direction ([`Step::near_back`], [`Step::take_back`],
//! [`Step::give_back`]; who calls them when is told in the engine's `way_back`).
//!
//! Near the end of the target's log while clients write; then `read_only` and the global read lock on the target, with proof; every
//! client there is closed; the rest comes back; every key that came back since the last round is compared; counters are raised. Only
//! then the route is put back, and the step's undo lets the target go. `read_only` stays on there, so that a client which comes by the old
//! address writes nothing that nobody would find again; where our account may not set it (RDS), the accounts of clients are locked instead
//! ([`crate::mysql::lock_out`]). `dbmove undo` takes both off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{LOOK_EVERY, PATIENCE, Reverse};
use crate::engine::context::StepContext;
use crate::engine::crash;
#[cfg(doc)]
use crate::engine::step::Step;
use crate::engine::step::{Failure, Output, StepError};
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::counters;
use crate::mysql::error::Result as MysqlResult;
use crate::mysql::fence::{self, Fence, ReadOnly};
use crate::mysql::lock_out::{self, LockedOut};
use crate::mysql::position::Position;
use crate::mysql::status;
use crate::mysql::steps::fence::let_go;
use crate::mysql::steps::stoppable;
use crate::mysql::store::{Following, MysqlStore};
use crate::mysql::verification::{Engine, Verifier};
use crate::verify::report::Verification;

/// Checkpoint of a store: the `read_only` that the target had before a rollback held its writes; it stays on behind a rollback.
const TARGET_BEFORE: &str = "rollback.target_read_only";

/// Checkpoint of a store: the target's accounts that a rollback locked, where it may not set `read_only`.
const LOCKED_OUT: &str = "rollback.locked_out";

/// How often the lock is taken again because a client could not be closed under it.
const CLOSING_TRIES: u32 = 200;

/// How long statements on the target get before a rollback kills them.
const GRACE: Duration = Duration::from_secs(5);

/// Clients that still come to the target when the route is back are closed for so long, until none came for [`QUIET`].
const STRAGGLERS: Duration = Duration::from_secs(10);

/// See [`STRAGGLERS`].
const QUIET: Duration = Duration::from_millis(500);

/// Lets clients into the target as before a rollback: its `read_only`, and the accounts it locked; does nothing where none was.
///
/// # Errors
/// If it can't be set.
pub(in crate::mysql::steps) async fn restore_target(context: &StepContext, store: &MysqlStore) -> Result<(), StepError> {
    let before = context.checkpoints.load(TARGET_BEFORE, &store.name)?;
    if before.is_none_or(|before| before.is_null()) {
        return Ok(());
    }
    let mut target = Session::open(&store.target, Purpose::Read).await?;
    fence::end_left_behind(&mut target).await?;
    if before_was_writable(context, store)? && fence::read_only(&mut target).await? {
        fence::set_read_only(&mut target, false).await?;
    }
    let locked = locked_out(context, store)?;
    lock_out::set(&mut target, &locked, false).await?;
    target.close().await;
    context.checkpoints.save(LOCKED_OUT, &store.name, &serde_json::Value::Null)?;
    context.checkpoints.save(TARGET_BEFORE, &store.name, &serde_json::Value::Null)
}

/// The accounts that a rollback has locked.
fn locked_out(context: &StepContext, store: &MysqlStore) -> Result<Vec<LockedOut>, StepError> {
    match context.checkpoints.load(LOCKED_OUT, &store.name)? {
        None | Some(serde_json::Value::Null) => Ok(Vec::new()),
        Some(value) => serde_json::from_value(value)
            .map_err(|error| StepError::definite(format!("the checkpoint `{LOCKED_OUT}` of `{}` can't be read: {error}", store.name))),
    }
}

fn before_was_writable(context: &StepContext, store: &MysqlStore) -> Result<bool, StepError> {
    Ok(context.checkpoints.load(TARGET_BEFORE, &store.name)?.is_some_and(|before| before == false))
}

impl Reverse {
    /// Waits, while clients write, until little is left to come back.
    ///
    /// # Errors
    /// If nothing follows the target, or the way back has ended.
    pub(super) async fn come_near(&self, context: &StepContext) -> Result<(), StepError> {
        if self.store.fence.lock().await.is_none() {
            // The driver that held the source's lock is gone, and the lock with it.
            let_go(context, &self.store, true)?;
        }
        let back = self.opened(context).await?;
        let mut following = back.following.subscribe();
        let waited = tokio::time::timeout(PATIENCE, following.wait_for(|state| matches!(state, Following::On(_)))).await;
        let follows = matches!(waited, Ok(Ok(_)));
        drop(waited);
        self.refuse_if_broken(context)?;
        if !follows {
            return Err(StepError::transient(format!("nothing follows the {}", back.source)));
        }
        // Once without haste: on an old server a counter is raised by writing the table anew.
        stoppable(context, counters::raise(&back)).await?;
        let mut target = Session::open(&back.source, Purpose::Read).await?;
        let end = status::current_position(&mut target).await?;
        target.close().await;
        self.carried(context, &back, &end).await
    }

    /// Holds the target's writes, waits until all of them are on the source, and compares them.
    ///
    /// # Errors
    /// If the target can't be held, or what came back differs.
    pub(super) async fn take(&self, context: &StepContext) -> Result<Output, StepError> {
        let back = self.opened(context).await?;
        let mut held = back.fence.lock().await;
        if let Some(fence) = held.take() {
            fence.release_lock().await;
        }
        let mut target = Session::open(&back.source, Purpose::Read).await?;
        if context.checkpoints.load(TARGET_BEFORE, &self.store.name)?.is_none_or(|before| before.is_null()) {
            let before = fence::read_only(&mut target).await?;
            context.checkpoints.save(TARGET_BEFORE, &self.store.name, &serde_json::json!(before))?;
        }
        crash::point("rollback.noted");
        if !lock_out::may_set_read_only(&mut target).await? && locked_out(context, &self.store)?.is_empty() {
            let accounts = lock_out::accounts(&mut target).await?;
            context.checkpoints.save(LOCKED_OUT, &self.store.name, &serde_json::json!(accounts))?;
        }
        // Before the lock, which would hold it up.
        let locked = locked_out(context, &self.store)?;
        lock_out::set(&mut target, &locked, true).await?;
        let (mut fence, closed) = self.hold_target(context, &back, &mut target).await?;
        let end = fence.position.clone();
        crash::point("rollback.held");
        target.close().await;
        self.carried(context, &back, &end).await?;
        let compared = self.compare_all(context, &back).await?;
        let (_, raised) = stoppable(context, counters::raise(&back)).await?;
        fence.check().await?;
        *held = Some(fence);
        crash::point("rollback.taken_back");
        Ok(Output::default()
            .fact("position", end.to_string())
            .fact("closed", closed)
            .fact("rows_compared", compared)
            .fact("counters_raised", raised))
    }

    /// Lets clients write on the target again.
    ///
    /// # Errors
    /// If the target can't be reached or refuses it.
    pub(super) async fn give(&self, context: &StepContext) -> Result<(), StepError> {
        let back = self.store.back.borrow().clone();
        if let Some(back) = back
            && let Some(fence) = back.fence.lock().await.take()
        {
            fence.release_lock().await;
        }
        restore_target(context, &self.store).await
    }

    /// Waits until the source has everything up to `end`.
    async fn carried(&self, context: &StepContext, back: &MysqlStore, end: &Position) -> Result<(), StepError> {
        let mut applied = back.applied.subscribe();
        loop {
            if !applied.borrow_and_update().position.file.is_empty() && applied.borrow().position >= *end {
                return Ok(());
            }
            context.check_cancelled()?;
            self.refuse_if_broken(context)?;
            // The sender lives as long as the store.
            let _ = tokio::time::timeout(LOOK_EVERY, applied.changed()).await;
        }
    }

    /// Compares every key that came back since it was compared last. Nothing moves on either side.
    async fn compare_all(&self, context: &StepContext, back: &Arc<MysqlStore>) -> Result<u64, StepError> {
        let verifier = Verifier::new(back, Engine::Client, false).await?;
        let found = verifier.last(&Verification::default(), &context.cancel).await?;
        match (found.difference_count, found.differences.first()) {
            (0, _) => Ok(found.rows()),
            (count, first) => {
                let first = first.map(|difference| format!(", the first: {}", difference.line())).unwrap_or_default();
                Err(StepError::new(
                    Failure::Differences,
                    format!("{count} rows that came back differ on the source{first}; nothing was put back"),
                )
                .hint("the target serves as before; find out who writes to the source"))
            }
        }
    }

    /// Takes the target's lock and closes every client under it: whoever waits to commit there must not.
    async fn hold_target(&self, context: &StepContext, back: &MysqlStore, target: &mut Session) -> Result<(Fence, u64), StepError> {
        let mut tries = 0;
        loop {
            let fence = Fence::raise(&back.source, ReadOnly::WhereAllowed, GRACE, None, &context.cancel).await?;
            match fence::disconnect_other_accounts(target).await {
                Ok(closed) => return Ok((fence, closed)),
                // It goes when it may run; what it writes lies before the position that is taken then.
                Err(error) if lock_out::is_unreadable_list(&error) && tries < CLOSING_TRIES => {
                    tries += 1;
                    fence.release_lock().await;
                    context.check_cancelled()?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => {
                    fence.release_lock().await;
                    return Err(error.into());
                }
            }
        }
    }

    /// Closes clients on the target until none comes any more, then lets its lock go. `read_only` stays on, or the accounts stay locked.
    pub(super) async fn leave_target(&self, back: &MysqlStore) -> MysqlResult<()> {
        let mut held = back.fence.lock().await;
        let Some(fence) = held.take() else { return Ok(()) };
        let mut target = Session::open(&back.source, Purpose::Read).await?;
        let (began, mut quiet) = (Instant::now(), Instant::now());
        while quiet.elapsed() < QUIET && began.elapsed() < STRAGGLERS {
            if fence::disconnect_other_accounts(&mut target).await? > 0 {
                quiet = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fence.release_lock().await;
        target.close().await;
        Ok(())
    }
}
