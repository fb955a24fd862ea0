//! `mysql.fence`: stops writes to the source, with proof. See [`crate::mysql::fence`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reverse::kept_out;
use super::source_gone;
use super::verify::{self, foreign_look};
use super::writable;
use crate::engine::context::{RunKind, StepContext};
use crate::engine::crash;
use crate::engine::held::{self, Hold, Lifting};
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::beside;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::fence::watchdog::{self, Before, TooShort, Watch};
use crate::mysql::fence::{self, Fence, KeepOut};
use crate::mysql::sight;
use crate::mysql::store::MysqlStore;
use crate::mysql::upstream;
use crate::playbook::quantity::HumanDuration;
use crate::verify::report::ForeignWriter;

/// Arguments of `mysql.fence`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FenceArguments {
    /// How long running statements get before they are killed. Default `5s`.
    #[serde(default)]
    pub grace: Option<HumanDuration>,
    /// After how long the source's server lifts the fence by itself if dbmove is gone; longer than `max_write_gap`. Default: 15 seconds
    /// longer.
    #[serde(default)]
    #[schemars(extend("x-longer-than-max-write-gap" = true))]
    pub watchdog: Option<HumanDuration>,
    /// Switch though somebody else writes to the moved databases on the target: why that is right. Without it the fence is not raised then.
    #[serde(default)]
    pub accept_foreign_writers: Option<String>,
    /// Switch though the source is itself a replica that applies what it is sent, which the target misses behind the switch: why that is right.
    /// Without it the fence is not raised then.
    #[serde(default)]
    pub accept_upstream: Option<String>,
}

impl FenceArguments {
    /// Refuses what can't be meant.
    ///
    /// # Errors
    /// If something is accepted without a reason.
    pub fn check(&self) -> Result<(), StepError> {
        for (name, accepted) in [("accept_foreign_writers", &self.accept_foreign_writers), ("accept_upstream", &self.accept_upstream)] {
            if accepted.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
                return Err(StepError::definite(format!("`{name}` has no reason: say why, for whoever reads the playbook")));
            }
        }
        Ok(())
    }
}

/// The step.
pub struct RaiseFence {
    /// The store.
    pub store: Arc<MysqlStore>,
    /// Its arguments.
    pub arguments: FenceArguments,
}

/// Checkpoint: the `read_only` that the source had; null when an undo has put it back.
const READ_ONLY_BEFORE: &str = "read_only_before";
/// Checkpoint: whether the source's event scheduler was on; null likewise.
const EVENTS_BEFORE: &str = "event_scheduler_before";

/// Checkpoint: whether the fence was raised and not lowered by an undo since.
const STOOD: &str = "stood";

/// Checkpoint key (as a step's name) of whether the watchdog was disarmed for the switch, by store: from then on a fence that is raised again
/// has none, since nobody may write to the source any more.
const DISARMED: &str = "mysql.fence.disarmed";

/// Calls the watchdog of a store's fence off, with proof that the fence stands: from here on only dbmove lifts it, and clients may be
/// pointed elsewhere. Twice is harmless. Says whether this driver holds the fence.
///
/// # Errors
/// If it can't be called off, or writes may have passed: then clients must not be pointed elsewhere.
pub(super) async fn keep(context: &StepContext, store: &MysqlStore) -> Result<bool, StepError> {
    // Noted first: a fence that is raised again after a crash behind this must not be lifted by anybody but us.
    context.checkpoints.save(DISARMED, &store.name, &serde_json::json!(true))?;
    held::note(context, Hold::Source, &store.name, Lifting::Nobody)?;
    let mut held = store.fence.lock().await;
    let Some(fence) = held.as_mut() else { return Ok(false) };
    crash::point("fence.disarming");
    fence.disarm().await?;
    crash::point("fence.disarmed");
    Ok(true)
}

/// After how long a watchdog bites, by the step's argument.
///
/// # Errors
/// If it would bite while writes may still be held.
pub(super) fn patience(asked: Option<HumanDuration>, max_write_gap: Duration) -> Result<Duration, StepError> {
    watchdog::patience(asked, max_write_gap).map_err(|short| StepError::new(Failure::Refused, short.to_string()).hint(TooShort::HINT))
}

/// Checkpoint of a store: whether the global read lock was let go on purpose, behind the switch.
const LET_GO: &str = "fence.let_go";

/// Notes that the source's lock is let go, or that it is not any more: `read_only` alone keeps clients out, and a driver that
/// takes the run over does not take the lock again.
///
/// # Errors
/// If the journal can't be written.
pub(super) fn let_go(context: &StepContext, store: &MysqlStore, gone: bool) -> Result<(), StepError> {
    context.checkpoints.save(LET_GO, &store.name, &serde_json::json!(gone))
}

/// Whether the source's lock was let go on purpose.
///
/// # Errors
/// If the journal can't be read.
pub(super) fn is_let_go(context: &StepContext, store: &MysqlStore) -> Result<bool, StepError> {
    Ok(context.checkpoints.load(LET_GO, &store.name)?.is_some_and(|gone| gone == true))
}

/// The `read_only` that the source had before this cutover, if it was noted.
fn before(context: &StepContext) -> Result<Option<bool>, StepError> {
    Ok(context.load_checkpoint(READ_ONLY_BEFORE)?.and_then(|before| before.as_bool()))
}

/// Foreign writers named in the error at most.
const NAMED: usize = 10;

impl RaiseFence {
    /// Refuses while somebody else writes to the target: what was compared would not be what is switched to. Nothing is touched yet.
    async fn nobody_else_writes(&self, context: &StepContext) -> Result<Vec<String>, StepError> {
        let found = foreign_look(&self.store, context, verify::FOREIGN).await?;
        let certain: Vec<String> = found.certain().map(ForeignWriter::line).collect();
        if certain.is_empty() || self.arguments.accept_foreign_writers.is_some() {
            return Ok(certain);
        }
        let mut lines: Vec<String> = certain.iter().take(NAMED).map(|line| format!("  {line}")).collect();
        if certain.len() > NAMED {
            lines.push(format!("  … and {} more", certain.len() - NAMED));
        }
        Err(StepError::new(
            Failure::Refused,
            format!("somebody else wrote to the {} since it was compared; writes to the source were not stopped:\n{}", self.store.target, lines.join("\n")),
        )
        .hint("stop it, then compare everything again (`dbmove verify PLAYBOOK`, with `--repair` if rows differ); or, if it is meant to be, say why in `accept_foreign_writers` of this step"))
    }

    /// Refuses while the source applies what another server sends it: the lock would hold that up, but behind the switch it is let go,
    /// and what comes then is missing on the target. A rehearsal's copy may be a living replica: nobody misses anything there. Says
    /// from whom it comes.
    async fn nobody_sends_it_rows(&self, context: &StepContext) -> Result<Vec<String>, StepError> {
        let mut source = Session::open(&self.store.source, Purpose::Read).await?;
        let channels = upstream::channels(&mut source).await?;
        source.close().await;
        let senders: Vec<String> =
            channels.into_iter().filter(|channel| channel.applies).map(|channel| format!("`{}`", channel.from)).collect();
        if senders.is_empty() || context.kind == RunKind::Rehearsal || self.arguments.accept_upstream.is_some() {
            return Ok(senders);
        }
        Err(StepError::new(
            Failure::Refused,
            format!(
                "the {} is itself a replica and applies what {} sends it; behind the switch that would be missing on the target. Writes were not stopped",
                self.store.source,
                senders.join(", ")
            ),
        )
        .hint("stop the writes there, wait until this source has them all, and `STOP SLAVE` on it; or move from that server; or, if nothing that matters comes from it, say so in `accept_upstream` of this step"))
    }

    /// Asks all that says no before anything is noted or touched. Says who else writes to the target, and who sends the source rows, where that is
    /// accepted.
    async fn nothing_speaks_against(&self, context: &StepContext) -> Result<(Vec<String>, Vec<String>), StepError> {
        const SO_FAR: &str = "Writes were not stopped";
        beside::refuse(context, &self.store, SO_FAR).await?;
        writable::refuse_if_not(context, &self.store, SO_FAR).await?;
        // Else nobody in the fence's way would be seen, and nobody closed behind the switch.
        sight::sees_everybody_on(&self.store.source, SO_FAR).await?;
        Ok((self.nobody_else_writes(context).await?, self.nobody_sends_it_rows(context).await?))
    }

    /// Waits, while writes still pass, until what began anew is copied.
    async fn nothing_is_copied_again(&self, context: &StepContext) -> Result<(), StepError> {
        let mut again = self.store.again.subscribe();
        if !again.borrow().is_empty() {
            tracing::warn!(store = %self.store.name, "tables are being copied again; writes are not stopped before they are in");
        }
        tokio::select! {
            () = context.cancel.cancelled() => Err(StepError::cancelled()),
            _ = again.wait_for(BTreeSet::is_empty) => Ok(()),
        }
    }

    /// Notes the `read_only` and the `event_scheduler` the source had, once for each cutover: a person may change them between two.
    async fn note(&self, context: &StepContext) -> Result<(), StepError> {
        if before(context)?.is_some() {
            return Ok(());
        }
        let mut source = Session::open(&self.store.source, Purpose::Read).await?;
        let before = fence::read_only(&mut source).await?;
        let events = fence::event_scheduler(&mut source).await?;
        source.close().await;
        context.save_checkpoint(EVENTS_BEFORE, &serde_json::json!(events))?;
        context.save_checkpoint(READ_ONLY_BEFORE, &serde_json::json!(before))
    }

    /// How the fence is watched over, by what [`RaiseFence::note`] has noted. `None` once the switch may have been done.
    fn watch(&self, context: &StepContext) -> Result<Option<Watch>, StepError> {
        if context.checkpoints.load(DISARMED, &self.store.name)?.is_some_and(|disarmed| disarmed == true) {
            return Ok(None);
        }
        let after = patience(self.arguments.watchdog, context.max_write_gap)?;
        let writable = before(context)? == Some(false);
        Ok(Some(Watch { after, before: Before { writable, events: Self::events_ran(context)? } }))
    }

    fn events_ran(context: &StepContext) -> Result<bool, StepError> {
        Ok(context.load_checkpoint(EVENTS_BEFORE)?.and_then(|before| before.as_bool()).unwrap_or(false))
    }
}

/// Behind the switch the source can't be reached: nobody can hold anything there, and nobody has to.
fn without_source() -> Output {
    Output::default().fact("lock", "not held: the source can't be reached behind the switch")
}

#[async_trait]
impl Step for RaiseFence {
    fn name(&self) -> &'static str {
        "mysql.fence"
    }
    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }
    fn volatile(&self) -> bool {
        true
    }
    fn holds_writes(&self) -> bool {
        true
    }
    fn check_write_gap(&self, max_write_gap: Duration) -> Result<(), StepError> {
        patience(self.arguments.watchdog, max_write_gap).map(drop)
    }
    async fn keep_held(&self, context: &StepContext) -> Result<(), StepError> {
        let stood = context.load_checkpoint(STOOD)?.is_some_and(|stood| stood == true);
        if keep(context, &self.store).await? || !stood || is_let_go(context, &self.store)? {
            return Ok(());
        }
        Err(StepError::definite(format!("nobody holds the writes of the {} any more; clients were not switched", self.store.source))
            .hint("give the same command again"))
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        let grace = self.arguments.grace.map_or(Duration::from_secs(5), |grace| grace.0);
        Ok(Plan {
            lines: vec![
                format!("turn `event_scheduler` off on the {}, if it is on; then set `read_only`", self.store.source),
                format!("take the global read lock there and hold it; kill statements that are in its way after {} s", grace.as_secs_f64()),
                "prove it: a write probe does not pass, the log's position stands still".to_owned(),
                "before all that, have that server lift the fence by itself if dbmove should be gone; called off right before the switch"
                    .to_owned(),
            ],
            warnings: Vec::new(),
        })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let mut held = self.store.fence.lock().await;
        if let Some(fence) = held.as_mut()
            && fence.check().await.is_ok()
        {
            return Ok(Output::default().fact("position", fence.position.to_string()).fact("killed", fence.killed));
        }
        if is_let_go(context, &self.store)? {
            let Some(mut source) = source_gone::reach(context, &self.store).await? else { return Ok(without_source()) };
            kept_out::look(context, &self.store, &mut source, None).await?;
            source.close().await;
            return Ok(Output::default().fact("lock", "let go behind the switch; `read_only` stays on"));
        }
        if context.switched {
            match source_gone::reach(context, &self.store).await? {
                Some(source) => source.close().await,
                None => return Ok(without_source()),
            }
        }
        self.nothing_is_copied_again(context).await?;
        // After a crash the fence is raised again, maybe behind the switch: clients write to the target then, as they should.
        let stood = context.load_checkpoint(STOOD)?.is_some_and(|stood| stood == true);
        let (accepted, upstream) = if stood { (Vec::new(), Vec::new()) } else { self.nothing_speaks_against(context).await? };
        self.note(context).await?;
        let watch = self.watch(context)?;
        held::note(context, Hold::Source, &self.store.name, Lifting::after(watch.as_ref().map(|watch| watch.after)))?;
        crash::point("fence.noted");
        let mut events = "off".to_owned();
        if Self::events_ran(context)? {
            match fence::set_event_scheduler(&self.store.source, false).await {
                Ok(()) => events = "was on, is off".to_owned(),
                // Where `read_only` may be set without SUPER, this may not be.
                Err(error) if error.code() == Some(1227) => {
                    tracing::warn!(%error, "the source's event scheduler stays on: turn it off there before its lock is let go");
                    events = "is on: our account may not turn it off".to_owned();
                }
                Err(error) => return Err(error.into()),
            }
        }
        let grace = self.arguments.grace.map_or(Duration::from_secs(5), |grace| grace.0);
        let name = fence::name_in_cutover(&context.run, &self.store.name);
        let fence = Fence::raise(&self.store.source, &name, &KeepOut::ReadOnly, grace, watch.as_ref(), None, &context.cancel).await?;
        crash::point("fence.raised");
        context.save_checkpoint(STOOD, &serde_json::json!(true))?;
        let mut output = Output::default()
            .fact("position", fence.position.to_string())
            .fact("killed", fence.killed)
            .fact("event_scheduler", events)
            .fact("watchdog_seconds", serde_json::json!(watch.map(|watch| watch.after.as_secs_f64())));
        if let Some(reason) = self.arguments.accept_foreign_writers.as_ref().filter(|_| !accepted.is_empty()) {
            output = output.fact("foreign_writers_accepted", reason.clone()).fact("foreign_writers", serde_json::json!(accepted));
        }
        if !upstream.is_empty() {
            tracing::warn!(from = %upstream.join(", "), "the source applies what others send it; behind the switch the target misses that");
            output = output.fact("upstream", serde_json::json!(upstream));
            if let Some(reason) = &self.arguments.accept_upstream {
                output = output.fact("upstream_accepted", reason.clone());
            }
        }
        *held = Some(fence);
        Ok(output)
    }
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        if let Some(fence) = self.store.fence.lock().await.as_mut()
            && fence.check().await.is_ok()
        {
            return Ok(Probe::Done);
        }
        let Some(before) = before(context)? else { return Ok(Probe::NotStarted) };
        let Some(mut source) = source_gone::reach(context, &self.store).await? else {
            return Ok(Probe::Partly { from: "the source can't be reached behind the switch".to_owned() });
        };
        let now = fence::read_only(&mut source).await?;
        source.close().await;
        if before == now {
            return Ok(Probe::NotStarted);
        }
        Ok(Probe::Partly { from: "`read_only` is set, the lock is not held".to_owned() })
    }
    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        context.save_checkpoint(STOOD, &serde_json::json!(false))?;
        context.checkpoints.save(DISARMED, &self.store.name, &serde_json::json!(false))?;
        let_go(context, &self.store, false)?;
        if let Some(fence) = self.store.fence.lock().await.take() {
            fence.release_lock().await;
        }
        if let Some(before) = before(context)? {
            let mut source = Session::open(&self.store.source, Purpose::Read).await?;
            let name = fence::name_in_cutover(&context.run, &self.store.name);
            fence::end_holder(&mut source, &name).await?;
            watchdog::end_left_behind(&mut source, &name).await?;
            if !before {
                fence::set_read_only(&mut source, false).await?;
            }
            if Self::events_ran(context)? && !fence::event_scheduler(&mut source).await? {
                fence::set_event_scheduler(&self.store.source, true).await?;
            }
            source.close().await;
            held::note(context, Hold::Source, &self.store.name, Lifting::Driver)?;
            // The next cutover finds the server as people left it until then.
            context.save_checkpoint(EVENTS_BEFORE, &serde_json::Value::Null)?;
            context.save_checkpoint(READ_ONLY_BEFORE, &serde_json::Value::Null)?;
        }
        Ok(())
    }
}
