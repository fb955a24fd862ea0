//! What a rollback does with the way back: the same dance in the other direction ([`Step::near_back`], [`Step::take_back`],
//! [`Step::keep_back`], [`Step::give_back`]; who calls them when is told in the engine's `way_back`).
//!
//! Near the end of the target's log while clients write; then `read_only` and the global read lock on the target, with proof; every
//! client there is closed; the rest comes back; every key that came back since the last round is compared; counters are raised. Only
//! then the route is put back, and the step's undo lets the target go. `read_only` stays on there, so that a client which comes by the old
//! address writes nothing that nobody would find again; where our account may not set it (RDS), the accounts of clients are locked instead
//! ([`crate::mysql::lock_out`]). `dbmove undo` takes both off.
//!
//! RDS and Aurora refuse the lock too. There the proof is that no client is left and that nothing more is logged of what moves
//! ([`crate::mysql::fence`]); what one that can't be kept out (an account that ours may not lock, an event) still writes is
//! carried back and compared as well, until nothing more comes.
//!
//! # If dbmove, its machine or the network dies meanwhile
//!
//! The target serves until the route is put back, so a dead driver must not leave it without writes. As the source in a cutover it has a
//! [`watchdog`], armed before anything is held up: it takes back `read_only`, or unlocks the accounts, and ends the session
//! that holds the lock. It is called off, and it is proven that it has not bitten, as the last thing before the route is put
//! back ([`Reverse::keep`]): had it, clients have written on the target since, and the rollback has to be begun again. From there on nobody may
//! write there, so a hold that the next driver takes while it carries that undo on has none. Lifted by whomever, the next driver finds what
//! was noted before anything was changed, and puts it back: twice is harmless.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kept_out::LetIn;
use super::{LOOK_EVERY, PATIENCE, Reverse};
use crate::engine::context::StepContext;
use crate::engine::crash;
use crate::engine::held::{self, Hold, Lifting};
#[cfg(doc)]
use crate::engine::step::Step;
use crate::engine::step::{Failure, Output, StepError};
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::counters::{self, Writes};
use crate::mysql::error::Result as MysqlResult;
use crate::mysql::fence::watchdog::{self, Before, Watch};
use crate::mysql::fence::{self, Fence, KeepOut};
use crate::mysql::lock_out::{self, LockedOut};
use crate::mysql::position::Position;
use crate::mysql::process_list;
use crate::mysql::status;
use crate::mysql::steps::fence::{let_go, patience};
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

/// How often what came through all the same is carried back, where nobody is left but can't be kept out for certain.
const CAME_THROUGH: u32 = 5;

/// How long statements on the target get before a rollback kills them.
const GRACE: Duration = Duration::from_secs(5);

/// Clients that still come to the target when the route is back are closed for so long at most, until none came for [`QUIET`]. Writes wait on the
/// source meanwhile.
const STRAGGLERS: Duration = Duration::from_secs(3);

/// How long the last look at what was written there may take, and letting its lock go.
const LAST_LOOK: Duration = Duration::from_secs(2);

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
    let name = fence::name_in_rollback(&context.run, &store.name);
    // Behind the disarming of its watchdog nobody else ends what a dead driver's session holds.
    fence::end_holder(&mut target, &name).await?;
    // First: it would take back what somebody else may do behind this.
    watchdog::end_left_behind(&mut target, &name).await?;
    if before_was_writable(context, store)? && fence::read_only(&mut target).await? {
        fence::set_read_only(&mut target, false).await?;
    }
    let locked = locked_out(context, store)?;
    lock_out::set(&mut target, &locked, false).await?;
    target.close().await;
    held::note(context, Hold::Target, &store.name, Lifting::Driver)?;
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

/// Whether a rollback of this run has left the target `read_only`, which it was not before.
///
/// # Errors
/// If the journal can't be read.
pub(in crate::mysql::steps) fn left_read_only(context: &StepContext, store: &MysqlStore) -> Result<bool, StepError> {
    before_was_writable(context, store)
}

impl Reverse {
    /// Waits, while clients write, until little is left to come back.
    ///
    /// # Errors
    /// If nothing follows the target, or the way back has ended.
    pub(super) async fn come_near(&self, context: &StepContext) -> Result<(), StepError> {
        if self.store.fence.lock().await.is_none() {
            // The driver that held the source's lock is gone; the server may not have been told, and the way back writes there.
            let mut source = Session::open(&self.store.source, Purpose::Read).await?;
            fence::end_holder(&mut source, &fence::name_in_cutover(&context.run, &self.store.name)).await?;
            source.close().await;
            let_go(context, &self.store, true)?;
        }
        let back = self.opened(context).await?;
        self.followed(context, &back).await?;
        if let Some(let_in) = LetIn::load(context, &self.store)? {
            tracing::warn!(store = %self.store.name, "{}", let_in.line());
        }
        // Once without haste: of some tables a counter is raised by writing the table anew.
        stoppable(context, counters::raise_back(&back, Writes::Flow)).await?;
        let mut target = Session::open(&back.source, Purpose::Read).await?;
        let end = status::current_position(&mut target).await?;
        target.close().await;
        self.carried(context, &back, &end).await
    }

    /// Waits until the target is followed.
    async fn followed(&self, context: &StepContext, back: &MysqlStore) -> Result<(), StepError> {
        let mut following = back.following.subscribe();
        let waited = tokio::time::timeout(PATIENCE, following.wait_for(|state| matches!(state, Following::On(_)))).await;
        let follows = matches!(waited, Ok(Ok(_)));
        drop(waited);
        self.refuse_if_broken(context)?;
        if follows { Ok(()) } else { Err(StepError::transient(format!("nothing follows the {}", back.source))) }
    }

    /// Holds the target's writes, waits until all of them are on the source, and compares them. `watched`: the target lifts that by itself if
    /// dbmove is gone.
    ///
    /// # Errors
    /// If the target can't be held, or what came back differs.
    pub(super) async fn take(&self, context: &StepContext, watched: bool) -> Result<Output, StepError> {
        let back = self.opened(context).await?;
        // It may have been lost since: then nothing is held before it is there again.
        self.followed(context, &back).await?;
        let not_carried = self.note_not_carried(context, &back).await?;
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
        let keep_out = self.keep_out(context, &mut target).await?;
        let watch = self.watched(context, watched)?;
        held::note(context, Hold::Target, &self.store.name, Lifting::after(watch.as_ref().map(|watch| watch.after)))?;
        let (mut fence, closed) = self.hold_target(context, &back, &mut target, &keep_out, watch.as_ref()).await?;
        crash::point("rollback.held");
        target.close().await;
        let (mut compared, mut raised, mut came) = (0, 0, 0);
        loop {
            self.carried(context, &back, &fence.position).await?;
            compared += self.compare_all(context, &back).await?;
            let counters = stoppable(context, counters::raise_back(&back, Writes::Held)).await?;
            raised += counters.raised;
            for left in &counters.left {
                tracing::warn!(
                    store = %self.store.name,
                    "the source may give out ids once more that the target gave out and that no row has, as raising its counter would write the table anew: {left}"
                );
            }
            match fence.look().await? {
                None => break,
                Some(what) if came < CAME_THROUGH => tracing::warn!(store = %self.store.name, "{what}; it is carried back too"),
                Some(what) => {
                    return Err(StepError::definite(format!("writes can't be held, again and again {what}; nothing was put back"))
                        .hint("stop what writes there; the target serves as before"));
                }
            }
            came += 1;
        }
        let not_carried = self.note_not_carried(context, &back).await?.into_iter().chain(not_carried).collect::<BTreeSet<_>>();
        for line in &not_carried {
            tracing::warn!(store = %self.store.name, "not on the source, do it there by hand: {line}");
        }
        let (end, held_by) = (fence.position.clone(), fence.held_by());
        *held = Some(fence);
        crash::point("rollback.taken_back");
        Ok(Output::default()
            .fact("position", end.to_string())
            .fact("closed", closed)
            .fact("held_by", held_by)
            .fact("rows_compared", compared)
            .fact("counters_raised", raised)
            .fact("not_carried_back", serde_json::json!(not_carried))
            .fact("watchdog_seconds", serde_json::json!(watch.map(|watch| watch.after.as_secs_f64()))))
    }

    /// What keeps clients out of the target. Accounts that are to be locked are noted before anything is.
    async fn keep_out(&self, context: &StepContext, target: &mut Session) -> Result<KeepOut, StepError> {
        if lock_out::may_set_read_only(target).await? {
            return Ok(KeepOut::ReadOnly);
        }
        let mut accounts = locked_out(context, &self.store)?;
        if accounts.is_empty() {
            accounts = lock_out::accounts(target).await?;
            context.checkpoints.save(LOCKED_OUT, &self.store.name, &serde_json::json!(accounts))?;
        }
        if accounts.is_empty() {
            tracing::warn!(store = %self.store.name, "no account there can be locked: the lock alone keeps writes out of the target, or that nobody is connected");
        }
        Ok(KeepOut::Accounts(accounts))
    }

    /// How the hold is watched over, by what was noted of the target.
    fn watched(&self, context: &StepContext, watched: bool) -> Result<Option<Watch>, StepError> {
        if !watched {
            return Ok(None);
        }
        let after = patience(self.arguments.watchdog, context.max_write_gap)?;
        // Events run on the target all the while; what they write waits for the lock.
        let before = Before { writable: before_was_writable(context, &self.store)?, events: false };
        Ok(Some(Watch { after, before }))
    }

    /// Calls the watchdog off, with proof that the target is held still: the route is put back next.
    ///
    /// # Errors
    /// If it is not: then clients may have written there.
    pub(super) async fn keep(&self, context: &StepContext) -> Result<(), StepError> {
        let gone = || {
            StepError::definite(format!("nobody holds the writes of the {} any more; the route was not put back", self.store.target))
                .hint("give the same command again")
        };
        let back = self.store.back.borrow().clone().ok_or_else(gone)?;
        let mut held = back.fence.lock().await;
        let fence = held.as_mut().ok_or_else(gone)?;
        held::note(context, Hold::Target, &self.store.name, Lifting::Nobody)?;
        crash::point("rollback.disarming");
        fence.disarm().await?;
        fence.check().await?;
        crash::point("rollback.disarmed");
        Ok(())
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
            if *back.following.borrow() == Following::Off {
                // Whoever follows anew waits for what we hold, so it must not be waited for here.
                return Err(StepError::transient(format!("following the {} broke off; it is begun again", back.source)));
            }
            // The sender lives as long as the store.
            let _ = tokio::time::timeout(LOOK_EVERY, applied.changed()).await;
        }
    }

    /// Compares every key that came back since it was compared last. Nothing moves on either side.
    async fn compare_all(&self, context: &StepContext, back: &Arc<MysqlStore>) -> Result<u64, StepError> {
        let verifier = Verifier::new(back, Engine::Client, false).await?;
        let found = verifier.last(&Verification::default(), &context.cancel).await?;
        super::carrying::refuse_not_compared(&found.not_compared)?;
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
    async fn hold_target(
        &self,
        context: &StepContext,
        back: &MysqlStore,
        target: &mut Session,
        keep_out: &KeepOut,
        watch: Option<&Watch>,
    ) -> Result<(Fence, u64), StepError> {
        let name = fence::name_in_rollback(&context.run, &self.store.name);
        let mut tries = 0;
        loop {
            let fence = Fence::raise(&back.source, &name, keep_out, GRACE, watch, Some(&back.selection), &context.cancel).await?;
            match fence::disconnect_other_accounts(target).await {
                Ok(closed) => {
                    let closed = closed + fence.killed;
                    return Ok((fence, closed));
                }
                // It goes when it may run; what it writes lies before the position that is taken then.
                Err(error) if process_list::is_unreadable(&error) && tries < CLOSING_TRIES => {
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

    /// Closes clients on the target until none comes any more, then lets its lock go. `read_only` stays on, or the accounts stay locked. Clients'
    /// writes wait on the source meanwhile, so all of it is done as far as it can be in a few seconds, and what is not is noted.
    ///
    /// # Errors
    /// If the journal can't be written.
    pub(super) async fn leave_target(&self, context: &StepContext, back: &MysqlStore) -> Result<(), StepError> {
        let mut held = back.fence.lock().await;
        // Taken out only behind the look: dropped in the middle, this has to be able to begin anew.
        let Some(fence) = held.as_mut() else { return Ok(()) };
        let quiet = match tokio::time::timeout(STRAGGLERS, close_stragglers(&back.source)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("clients still came to its address {} s after the route was put back", STRAGGLERS.as_secs())),
        };
        if let Err(why) = quiet {
            self.note_stragglers(context, &back.source, &why)?;
        }
        let looked = tokio::time::timeout(LAST_LOOK, fence.look()).await;
        let usable = looked.is_ok();
        match looked.map_err(|_| format!("the {} did not answer within {} s", back.source, LAST_LOOK.as_secs())) {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(what))) => self.note_left_behind(context, &what)?,
            Ok(Err(error)) => self.note_left_behind(context, &error.to_string())?,
            Err(why) => self.note_left_behind(context, &format!("whether anything was is not known: {why}"))?,
        }
        if let Some(fence) = held.take()
            && usable
        {
            // One that hangs is let go with its connection.
            let _ = tokio::time::timeout(LAST_LOOK, fence.release_lock()).await;
        }
        Ok(())
    }

    /// Notes that clients may still come to the target. They write nothing there: that it keeps them out stays as it is.
    fn note_stragglers(&self, context: &StepContext, target: &Server, why: &str) -> Result<(), StepError> {
        tracing::warn!(store = %self.store.name, "the {target} was left without certainty that no client comes there any more: {why}");
        let finding = serde_json::json!({
            "level": "warning",
            "object": self.store.name,
            "found": format!("clients may still come to the {target}: {why}"),
            "fix": "nothing of theirs is written there (`read_only`, or their accounts are locked); find out who has its address, and have them connect again",
        });
        context.find("clients-still-on-the-target", &finding)
    }

    /// Notes what was written on the target after the last look before clients were pointed back.
    fn note_left_behind(&self, context: &StepContext, what: &str) -> Result<(), StepError> {
        tracing::error!(store = %self.store.name, "written on the target while clients were pointed back, and not on the source: {what}");
        let finding = serde_json::json!({
            "level": "warning",
            "object": self.store.name,
            "found": format!("while clients were pointed back: {what}"),
            "fix": format!("look at what is in that log and missing on the {}; what else was written is there", self.store.source),
        });
        context.find("written-behind-the-rollback", &finding)
    }
}

/// Closes clients there until none came for [`QUIET`].
async fn close_stragglers(target: &Arc<Server>) -> MysqlResult<()> {
    let mut target = Session::open(target, Purpose::Read).await?;
    let mut quiet = Instant::now();
    while quiet.elapsed() < QUIET {
        if fence::disconnect_other_accounts(&mut target).await? > 0 {
            quiet = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    target.close().await;
    Ok(())
}
