//! `mysql.reverse`: keeps the way back open. A service: ready before the switch, and running until a rollback or `mysql.retire`.
//!
//! What must hold of the way back itself is told in [`crate::mysql::reverse`]. Here:
//!
//! * *Ready* means: nothing stands in the way, the position from which the target's writes come back is in the journal, and the target's log can be
//!   read from there. So the switch can't be taken without it.
//! * *Behind the switch* it waits until `mysql.disconnect` has let the source's lock go, makes its bookkeeping on the source, and follows. A
//!   driver that takes the run over goes on from what is saved there. While nobody drives, the target's log keeps everything, as long as
//!   the target keeps its log: `dbmove cutover` goes on.
//! * *It does not fail the run.* Clients are on the target, and what the old server can't hold is no reason to stop the smoke test
//!   behind the switch. It notes what it can't carry (in the journal, as a finding, and on every status line), stops carrying, and keeps
//!   saying so; `dbmove rollback` refuses from then on.
//! * *What came back is compared*, round by round, like what went there.
//! * *Clients stay out of the source*, also when that server is started again: see [`kept_out`]; those whom `read_only` does not stop: see [`privileged`].
//!
//! How it follows and compares is in [`carrying`], what a rollback does with it in [`rollback`], what becomes of the source's triggers in [`triggers`].

mod carrying;
pub(super) mod kept_out;
pub(super) mod privileged;
pub(super) mod rollback;
pub(super) mod triggers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::fence::patience;
use super::{STOP_GRACE, stoppable};
use crate::engine::context::{Progress, StepContext};
use crate::engine::crash;
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, StepKind, Undoable};
use crate::mysql::bookkeeping;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::error::Result as MysqlResult;
use crate::mysql::follow;
use crate::mysql::position::Position;
use crate::mysql::reverse::way_back;
use crate::mysql::status;
use crate::mysql::store::MysqlStore;
use crate::playbook::quantity::HumanDuration;

/// Arguments of `mysql.reverse`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReverseArguments {
    /// After how long the target's server lets its clients write again by itself if dbmove is gone in a rollback, before the route is put back;
    /// longer than `max_write_gap`. Default: 15 seconds longer.
    #[serde(default)]
    #[schemars(extend("x-longer-than-max-write-gap" = true))]
    pub watchdog: Option<HumanDuration>,
}

/// The step.
pub struct Reverse {
    /// The store.
    pub store: Arc<MysqlStore>,
    /// Its arguments.
    pub arguments: ReverseArguments,
}

/// Checkpoint: where the target's log stood before clients could write there.
const START: &str = "start";
/// Checkpoint: why nothing is carried back any more.
const BROKEN: &str = "broken";
/// Checkpoint: up to where everything that came back was compared.
const COMPARED: &str = "compared";

/// Checkpoint of a store: whether `mysql.retire` closes the way back.
const RETIRED: &str = "reverse.retired";

/// How long the way back may take to be open again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two tries to reach a source that is away.
const AWAY: Duration = Duration::from_secs(2);

/// Between two looks at the journal, or at the servers.
const LOOK_EVERY: Duration = Duration::from_millis(250);

fn position_of(context: &StepContext, key: &str) -> Result<Option<Position>, StepError> {
    match context.load_checkpoint(key)? {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value)
            .map(Some)
            .map_err(|error| StepError::definite(format!("the checkpoint `{key}` of `{}` can't be read: {error}", context.step))),
    }
}

/// Why nothing is carried back any more, if so.
fn broken(context: &StepContext) -> Result<Option<String>, StepError> {
    Ok(context.load_checkpoint(BROKEN)?.and_then(|why| why.as_str().map(str::to_owned)))
}

/// Notes that the way back is closed: it ends though it could not be opened.
///
/// # Errors
/// If the journal can't be written.
pub(super) fn note_retired(context: &StepContext, store: &MysqlStore) -> Result<(), StepError> {
    context.checkpoints.save(RETIRED, &store.name, &serde_json::json!(true))
}

impl Reverse {
    /// The swapped store, once this driver keeps the way back open; refused if there is none any more.
    async fn opened(&self, context: &StepContext) -> Result<Arc<MysqlStore>, StepError> {
        let mut back = self.store.back.subscribe();
        let opened = match tokio::time::timeout(PATIENCE, back.wait_for(Option::is_some)).await {
            Ok(Ok(opened)) => opened.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        self.refuse_if_broken(context)?;
        opened.ok_or_else(|| StepError::transient(format!("the way back of `{}` does not open", self.store.name)))
    }

    fn refuse_if_broken(&self, context: &StepContext) -> Result<(), StepError> {
        match broken(context)? {
            None => Ok(()),
            Some(why) => {
                Err(StepError::new(Failure::Refused, why).hint("the target serves as before; there is no rollback of this run any more"))
            }
        }
    }

    /// The swapped store, and where it begins; read once for each switch.
    async fn open(&self, context: &StepContext) -> Result<(Arc<MysqlStore>, Position), StepError> {
        let way = way_back(&self.store).await?;
        way.warnings.iter().for_each(|line| tracing::warn!(store = %self.store.name, "the way back: {line}"));
        self.note_kept(context, way.kept.as_deref())?;
        if let Some(start) = position_of(context, START)? {
            // Clients may be on the target: what stands in the way now shows when it gets there.
            return Ok((way.store, start));
        }
        tracing::info!(store = %self.store.name, "a rollback would hold the target's writes by {}", way.hold);
        let back = way.open(&self.store)?;
        let mut target = Session::open(&back.source, Purpose::Read).await?;
        let start = status::current_position(&mut target).await?;
        target.close().await;
        context.save_checkpoint(START, &serde_json::json!(start))?;
        crash::point("reverse.position_saved");
        Ok((back, start))
    }

    /// Notes how long the target keeps its log, for whoever asks while no driver runs.
    fn note_kept(&self, context: &StepContext, kept: Option<&str>) -> Result<(), StepError> {
        let Some(kept) = kept else { return Ok(()) };
        let finding = serde_json::json!({
            "level": "info",
            "object": self.store.name,
            "found": format!("while no driver runs nothing is carried back, and {kept}: the way back can be lost by that"),
            "fix": "`dbmove cutover PLAYBOOK` goes on carrying back what clients write; keep it running, or keep that log longer",
        });
        context.find("way-back-can-be-purged", &finding)
    }

    /// Says, until it is stopped or closed, that there is no way back any more.
    async fn without_way_back(&self, context: &StepContext, why: &str, finish: &CancellationToken) -> Result<(), StepError> {
        let note = format!("NO ROLLBACK: {why}");
        context.report(Progress { unit: "changes".to_owned(), note: note.clone(), throttle: Some(note), ..Progress::default() });
        tokio::select! {
            () = context.cancel.cancelled() => Err(StepError::cancelled()),
            () = finish.cancelled() => Ok(()),
        }
    }

    /// Notes that nothing is carried back from here on, and why.
    fn note_broken(&self, context: &StepContext, back: &MysqlStore, error: &StepError) -> Result<String, StepError> {
        let at = back.applied.borrow().position.clone();
        let from = if at.file.is_empty() { String::new() } else { format!(" from {at} of its log on") };
        let why = format!("rollback would lose what was written to the {}{from}: {}", back.source, error.message);
        tracing::error!(store = %self.store.name, "{why}");
        let finding = serde_json::json!({
            "level": "warning",
            "object": self.store.name,
            "found": why,
            "fix": "there is no rollback any more: the target serves, and the run goes on forward. What is on the source stays as it is",
        });
        context.find("no-way-back", &finding)?;
        context.save_checkpoint(BROKEN, &serde_json::json!(why))?;
        Ok(why)
    }

    async fn keep_open(
        &self,
        context: &StepContext,
        back: &Arc<MysqlStore>,
        start: &Position,
        finish: &CancellationToken,
    ) -> Result<(), StepError> {
        if let Some(why) = broken(context)? {
            return self.without_way_back(context, &why, finish).await;
        }
        if !self.wait_let_go(context, start, finish).await? {
            return Ok(());
        }
        let mut said = String::new();
        loop {
            match self.follow(context, back, start, finish).await {
                Err(error) if matches!(error.failure, Failure::Definite | Failure::Differences | Failure::Refused) => {
                    let why = self.note_broken(context, back, &error)?;
                    return self.without_way_back(context, &why, finish).await;
                }
                // Nothing is lost by that: the target's log keeps what clients write.
                Err(error) if error.failure == Failure::Transient => {
                    away(context, &error, &mut said);
                    tokio::select! {
                        () = context.cancel.cancelled() => return Err(StepError::cancelled()),
                        () = finish.cancelled() => return Ok(()),
                        () = tokio::time::sleep(AWAY) => {}
                    }
                }
                result => return result,
            }
        }
    }

    /// Opens the way back; `None` if it was closed while the source could not be reached. Behind the switch a source that is away is waited for, and
    /// nobody has to wait for this step meanwhile.
    async fn open_or_wait(&self, context: &StepContext) -> Result<Option<(Arc<MysqlStore>, Position)>, StepError> {
        let mut said = String::new();
        loop {
            match stoppable_step(context, self.open(context)).await {
                Err(error) if error.failure == Failure::Transient && context.switched && position_of(context, START)?.is_some() => {
                    context.ready();
                    away(context, &error, &mut said);
                    if context.checkpoints.load(RETIRED, &self.store.name)?.is_some_and(|retired| retired == true) {
                        return Ok(None);
                    }
                    tokio::select! {
                        () = context.cancel.cancelled() => return Err(StepError::cancelled()),
                        () = tokio::time::sleep(AWAY) => {}
                    }
                }
                opened => return opened.map(Some),
            }
        }
    }
}

/// Says that a rollback has to wait for a server that is away; in the log only if that is not what was `said` before.
fn away(context: &StepContext, error: &StepError, said: &mut String) {
    if *said != error.message {
        said.clone_from(&error.message);
        tracing::warn!(%error, "the way back waits; what clients write on the target stays in its log");
    }
    let throttle = Some(format!("no rollback as long as this does not heal: {}", error.message));
    context.report(Progress { unit: "changes".to_owned(), throttle, ..Progress::default() });
}

/// Takes away what the way back left on the source; nothing if it never got there.
///
/// # Errors
/// If the source can't be reached or refuses it.
pub(super) async fn remove(store: &MysqlStore) -> MysqlResult<()> {
    let mut source = Session::open(&store.source, Purpose::Catalog).await?;
    let name = store.name_back();
    // Looked at first: before the switch the source's lock is held, and whatever writes there would wait for it.
    if bookkeeping::lease(&mut source, &name).await?.is_some() {
        bookkeeping::remove(&mut source, &name).await?;
    }
    source.close().await;
    Ok(())
}

#[async_trait]
impl Step for Reverse {
    fn name(&self) -> &'static str {
        "mysql.reverse"
    }
    fn kind(&self) -> StepKind {
        StepKind::Service
    }
    fn stops_within(&self) -> Duration {
        STOP_GRACE
    }
    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }
    fn keeps_way_back(&self) -> bool {
        true
    }
    fn check_write_gap(&self, max_write_gap: Duration) -> Result<(), StepError> {
        patience(self.arguments.watchdog, max_write_gap).map(drop)
    }
    fn undo_does(&self) -> String {
        format!(
            "close the way back, make the triggers again that were put aside on the {}, and remove its part of `_dbmove`",
            self.store.source
        )
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        let way = way_back(&self.store).await?;
        let mut warnings = way.warnings;
        warnings.extend(way.refusals.into_iter().map(|line| format!("would be refused before the switch: {line}")));
        Ok(Plan {
            lines: vec![
                format!("note the position of the {}'s log before clients write there", self.store.target),
                format!(
                    "after the switch: create schema `_dbmove` on the {}, which stays `read_only`, and put triggers of moved tables aside there",
                    self.store.source
                ),
                "write every change of the target there too, and compare it, until `dbmove rollback` or `mysql.retire`".to_owned(),
                format!("in a rollback: hold the target's writes by {}", way.hold),
                "in a rollback, before the target's writes are held: have that server let them through by itself if dbmove should be gone; called off \
                 right before the route is put back"
                    .to_owned(),
            ],
            warnings,
        })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let began = Instant::now();
        let before = self.store.back.borrow().clone();
        let held = match before {
            Some(before) => before.fence.lock().await.take(),
            None => None,
        };
        if held.is_none() {
            // A rollback that died before it came to its end left the target without writes.
            rollback::restore_target(context, &self.store).await?;
        }
        let Some((back, start)) = self.open_or_wait(context).await? else { return Ok(Output::default()) };
        stoppable(context, follow::probe(&back, &start)).await?;
        let finish = back.renew_finish_token();
        *back.fence.lock().await = held;
        self.store.back.send_replace(Some(back.clone()));
        context.ready();
        let result = self.keep_open(context, &back, &start, &finish).await;
        result?;
        self.store.back.send_replace(None);
        let applied = back.applied.borrow().clone();
        Ok(Output::default()
            .fact("start", start.to_string())
            .fact("position", applied.position.to_string())
            .fact("changes", applied.changes)
            .fact("transactions", applied.transactions)
            .fact("notes", serde_json::json!(back.described().await?.shared.notes()))
            .fact("seconds", began.elapsed().as_secs_f64()))
    }
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        Ok(match position_of(context, START)? {
            None => Probe::NotStarted,
            Some(start) => Probe::Partly { from: format!("what the target logged from {start} on") },
        })
    }
    async fn near_back(&self, context: &StepContext) -> Result<(), StepError> {
        self.come_near(context).await
    }
    async fn take_back(&self, context: &StepContext, watched: bool) -> Result<Output, StepError> {
        self.take(context, watched).await
    }
    async fn keep_back(&self, context: &StepContext) -> Result<(), StepError> {
        self.keep(context).await
    }
    async fn give_back(&self, context: &StepContext) -> Result<(), StepError> {
        self.give(context).await
    }
    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        // First: clients may write on the source soon, and what their writes set off there must be there.
        let brought = triggers::bring_back(context, &self.store).await;
        let back = self.store.back.borrow().clone();
        if let Some(back) = back {
            self.leave_target(context, &back).await?;
        }
        self.store.back.send_replace(None);
        brought?;
        remove(&self.store).await?;
        kept_out::forget(context, &self.store)?;
        privileged::forget(context, &self.store)?;
        context.checkpoints.save(RETIRED, &self.store.name, &serde_json::Value::Null)?;
        for key in [START, BROKEN, COMPARED, carrying::NOT_CARRIED] {
            context.save_checkpoint(key, &serde_json::Value::Null)?;
        }
        Ok(())
    }
}

/// As [`stoppable`], for what may fail in its own words.
async fn stoppable_step<T>(context: &StepContext, work: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
    Ok(stoppable(context, async { Ok(work.await?) }).await?)
}
