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
//! * *Clients stay out of the source*, also when that server is started again: see [`kept_out`].
//!
//! What a rollback does with it is in [`rollback`].

pub(super) mod kept_out;
pub(super) mod rollback;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use kept_out::LetIn;

use super::fence::{is_let_go, patience};
use super::{Meter, STOP_GRACE, stoppable};
use crate::engine::context::{Progress, StepContext};
use crate::engine::crash;
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, StepKind, Undoable};
use crate::mysql::bookkeeping;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::error::{MysqlError, Result as MysqlResult};
use crate::mysql::follow;
use crate::mysql::objects::read::Definition;
use crate::mysql::position::Position;
use crate::mysql::reverse::way_back;
use crate::mysql::status;
use crate::mysql::store::{Following, MysqlStore};
use crate::mysql::triggers_aside;
use crate::mysql::verification::{Engine, Pair, Verifier};
use crate::playbook::quantity::HumanDuration;
use crate::verify::report::NotCompared;

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

/// Checkpoint of a store: the source's triggers that are put aside.
const TRIGGERS: &str = "reverse.triggers";

/// How long the way back may take to be open again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two rounds over the keys that came back.
const ROUND_EVERY: Duration = Duration::from_secs(2);
/// Between two looks whether clients are kept out of the source.
const KEPT_OUT_EVERY: Duration = Duration::from_secs(1);
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

/// The source's triggers that are put aside, if that has begun.
fn aside(context: &StepContext, store: &MysqlStore) -> Result<Option<Vec<Definition>>, StepError> {
    match context.checkpoints.load(TRIGGERS, &store.name)? {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value)
            .map(Some)
            .map_err(|error| StepError::definite(format!("the checkpoint `{TRIGGERS}` of `{}` can't be read: {error}", store.name))),
    }
}

/// Makes the source's triggers again that were put aside.
///
/// # Errors
/// If the source refuses one: each is named.
pub(super) async fn bring_triggers_back(context: &StepContext, store: &MysqlStore) -> Result<(), StepError> {
    let Some(triggers) = aside(context, store)? else { return Ok(()) };
    triggers_aside::make_again(store, &triggers).await?;
    crash::point("reverse.triggers_back");
    context.checkpoints.save(TRIGGERS, &store.name, &serde_json::Value::Null)
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
            "fix": "`dbmove cutover` goes on carrying back what clients write; keep it running, or keep that log longer",
        });
        context.find("way-back-can-be-purged", &finding)
    }

    /// Makes the bookkeeping on the source, claims it for this driver, and saves where following starts.
    async fn prepare(&self, context: &StepContext, back: &MysqlStore, start: &Position) -> MysqlResult<()> {
        self.store.prove_copies_in_use(&context.checkpoints).await?;
        let mut source = Session::open(&back.target, Purpose::Catalog).await?;
        bookkeeping::create(&mut source).await?;
        bookkeeping::claim(&mut source, &back.name, &context.run, context.epoch).await?;
        let triggers = match aside(context, &self.store)? {
            Some(triggers) => triggers,
            None => {
                let triggers = triggers_aside::of_source(&self.store).await?;
                context.checkpoints.save(TRIGGERS, &self.store.name, &serde_json::json!(triggers))?;
                triggers
            }
        };
        crash::point("reverse.triggers_noted");
        triggers_aside::drop_all(&self.store, &triggers).await?;
        match bookkeeping::followed(&mut source, &back.name).await? {
            Some(followed) if followed.start == *start => {}
            Some(followed) => {
                return Err(MysqlError::Object {
                    message: format!(
                        "`_dbmove` on the {} belongs to another way back: it began at {}, this one at {start}. Nothing was changed",
                        back.target, followed.start
                    ),
                    hint: "find out which run it is of; drop the schema there if that run is over".to_owned(),
                });
            }
            None => {
                source.run("BEGIN", "saving the start position").await?;
                bookkeeping::hold_lease(&mut source, &back.name, context.epoch).await?;
                bookkeeping::start_following(&mut source, &back.name, start).await?;
                // Their rows are there up to the start; events before a table's own position would be passed over.
                for (_, table) in back.described().await?.shared.tables.iter().filter(|(_, table)| table.key.is_none()) {
                    let statement = bookkeeping::save_keyless(&back.name, table.name(), start);
                    source.write(statement.as_bytes(), "saving the position of a keyless table").await?;
                }
                source.run("COMMIT", "saving the start position").await?;
            }
        }
        source.close().await;
        Ok(())
    }

    /// Waits until the source's lock is let go; `false` if the way back was closed meanwhile.
    async fn wait_let_go(&self, context: &StepContext, start: &Position, finish: &CancellationToken) -> Result<bool, StepError> {
        while !is_let_go(context, &self.store)? {
            let note = format!("from {start}; waits for `mysql.disconnect` to let the source's lock go");
            context.report(Progress { unit: "changes".to_owned(), note, ..Progress::default() });
            tokio::select! {
                () = context.cancel.cancelled() => return Err(StepError::cancelled()),
                () = finish.cancelled() => return Ok(false),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        Ok(true)
    }

    /// Follows the target until told to finish.
    async fn follow(
        &self,
        context: &StepContext,
        back: &Arc<MysqlStore>,
        start: &Position,
        finish: &CancellationToken,
    ) -> Result<(), StepError> {
        stoppable(context, async {
            let mut source = Session::open(&self.store.source, Purpose::Read).await?;
            kept_out::look(context, &self.store, &mut source, None).await?;
            source.close().await;
            self.prepare(context, back, start).await
        })
        .await?;
        crash::point("reverse.prepared");
        let floor = position_of(context, COMPARED)?.unwrap_or_else(|| start.clone());
        back.described().await?.shared.touches.track();
        let rounds_end = context.cancel.child_token();
        let result = tokio::select! {
            followed = stoppable(context, follow::follow(back, context.epoch, Some(floor), &context.cancel, finish)) => {
                followed.map_err(|error| match error {
                    MysqlError::DefinitionChanged(change) => StepError::definite(format!(
                        "definitions changed on the target at {}, and the source has the old ones: {}", change.position, change.statement
                    )),
                    error => error.into(),
                })
            }
            error = self.rounds(context, back, &rounds_end) => Err(error),
            error = self.watch(context, back) => Err(error),
            error = self.keep_clients_out(context) => Err(error),
        };
        back.following.send_replace(if result.is_ok() { Following::Finished } else { Following::Off });
        result
    }

    /// Shows how far behind the target the source is.
    async fn watch(&self, context: &StepContext, back: &Arc<MysqlStore>) -> StepError {
        let meter = Meter::default();
        let mut session: Option<Session> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let end = async {
                let mut open = match session.take() {
                    Some(open) => open,
                    None => Session::open(&back.source, Purpose::Read).await?,
                };
                let end = status::current_position(&mut open).await?;
                Ok::<_, MysqlError>((open, end))
            };
            let end = match end.await {
                Ok((open, end)) => {
                    session = Some(open);
                    end
                }
                // The tail notices too and connects again; this is only for showing.
                Err(error) if error.transient() => continue,
                Err(error) => return error.into(),
            };
            let applied = back.applied.borrow().clone();
            let lag = if applied.position >= end { Duration::ZERO } else { applied.lag() };
            let throttle = match back.described().await {
                Ok(described) => described.shared.throttled(),
                Err(error) => return error.into(),
            };
            let let_in = match LetIn::load(context, &self.store) {
                Ok(let_in) => let_in.map(|let_in| format!("; BUT {}", let_in.line())).unwrap_or_default(),
                Err(error) => return error,
            };
            context.report(Progress {
                done: applied.changes,
                total: None,
                unit: "changes".to_owned(),
                rate: meter.rate(applied.changes),
                lag: Some(lag),
                note: format!("a rollback is possible{let_in}; the source is at {} of the target's log", applied.position),
                throttle,
                waits: false,
            });
        }
    }

    /// Looks whether clients are kept out of the source, again and again.
    async fn keep_clients_out(&self, context: &StepContext) -> StepError {
        let mut session: Option<Session> = None;
        let mut since = Timestamp::now();
        let mut said = String::new();
        loop {
            tokio::time::sleep(KEPT_OUT_EVERY).await;
            let looked = async {
                let mut open = match session.take() {
                    Some(open) => open,
                    None => Session::open(&self.store.source, Purpose::Read).await?,
                };
                let now = Timestamp::now();
                kept_out::look(context, &self.store, &mut open, Some(since)).await?;
                Ok::<_, MysqlError>((open, now))
            };
            match looked.await {
                Ok((open, now)) => {
                    session = Some(open);
                    since = now;
                    said.clear();
                }
                Err(MysqlError::Step(error)) if error.failure != Failure::Transient => return error,
                // Looked at again; while it is away, nobody writes there.
                Err(error) if error.transient() => {}
                Err(error) => {
                    let error = error.to_string();
                    if error != said {
                        tracing::error!(store = %self.store.name, "{error}");
                        said = error;
                    }
                }
            }
        }
    }

    /// Compares every table as a whole, if clients could write on the source since that was done last.
    async fn compare_all_again(&self, context: &StepContext, back: &Arc<MysqlStore>, cancel: &CancellationToken) -> MysqlResult<()> {
        let Some(let_in) = LetIn::load(context, &self.store)?.filter(|let_in| !let_in.compared) else { return Ok(()) };
        tracing::warn!(store = %self.store.name, "every table is compared, because clients could write on the source");
        let verifier = Arc::new(Verifier::new(back, Engine::Auto, true).await?);
        let found = verifier.full(1, &Arc::default(), &context.steering, cancel).await?;
        if let Some(first) = found.differences.first() {
            return Err(StepError::definite(format!(
                "{}; {} rows differ on the source now, the first: {}",
                let_in.found,
                found.difference_count,
                first.line()
            ))
            .into());
        }
        Ok(kept_out::compared(context, &self.store, &let_in)?)
    }

    /// Compares what came back, round by round, until something differs.
    async fn rounds(&self, context: &StepContext, back: &Arc<MysqlStore>, cancel: &CancellationToken) -> StepError {
        match self.compare(context, back, cancel).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn compare(
        &self,
        context: &StepContext,
        back: &Arc<MysqlStore>,
        cancel: &CancellationToken,
    ) -> Result<std::convert::Infallible, StepError> {
        let _ = back.following.subscribe().wait_for(|state| matches!(state, Following::On(_))).await;
        let verifier = Verifier::new(back, Engine::Client, true).await?;
        refuse_not_compared(&verifier.not_comparable)?;
        let mut pair = Pair::open(back).await?;
        loop {
            tokio::time::sleep(ROUND_EVERY).await;
            match self.compare_all_again(context, back, cancel).await {
                Ok(()) => {}
                Err(error) if error.transient() => continue,
                Err(error) => return Err(error.into()),
            }
            let begun_at = back.applied.borrow().position.clone();
            let round = match verifier.round(&mut pair, cancel).await {
                Ok(round) => round,
                Err(error) if error.transient() => {
                    if let Ok(opened) = Pair::open(back).await {
                        pair = opened;
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(first) = round.differences.first() {
                let count = round.differences.len();
                return Err(StepError::definite(format!(
                    "{count} rows that came back differ on the source, the first: {}; somebody else writes there, or it can't hold them",
                    first.line()
                )));
            }
            if round.complete {
                context.save_checkpoint(COMPARED, &serde_json::json!(begun_at))?;
            }
        }
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
        match self.follow(context, back, start, finish).await {
            Err(error) if matches!(error.failure, Failure::Definite | Failure::Differences | Failure::Refused) => {
                let why = self.note_broken(context, back, &error)?;
                self.without_way_back(context, &why, finish).await
            }
            result => result,
        }
    }
}

/// What can't be compared can't be believed.
fn refuse_not_compared(left: &[NotCompared]) -> Result<(), StepError> {
    let Some(first) = left.first() else { return Ok(()) };
    let message = format!("what came back can't be compared in {} of the tables, the first: `{}`: {}", left.len(), first.object, first.why);
    Err(StepError::definite(message)
        .hint("the target serves as before; find out who changed the table on the source, and put it back there"))
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
        let (back, start) = stoppable_step(context, self.open(context)).await?;
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
        let back = self.store.back.borrow().clone();
        if let Some(back) = back {
            self.leave_target(context, &back).await?;
        }
        self.store.back.send_replace(None);
        bring_triggers_back(context, &self.store).await?;
        remove(&self.store).await?;
        kept_out::forget(context, &self.store)?;
        for key in [START, BROKEN, COMPARED] {
            context.save_checkpoint(key, &serde_json::Value::Null)?;
        }
        Ok(())
    }
}

/// As [`stoppable`], for what may fail in its own words.
async fn stoppable_step<T>(context: &StepContext, work: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
    Ok(stoppable(context, async { Ok(work.await?) }).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_compared_is_not_believed() {
        assert!(refuse_not_compared(&[]).is_ok());
        let left = NotCompared { object: "school.t".to_owned(), why: "it is not on the target".to_owned() };
        let refused = refuse_not_compared(&[left]).unwrap_err();
        assert_eq!(refused.failure, Failure::Definite);
        assert!(refused.message.contains("`school.t`: it is not on the target"), "{}", refused.message);
    }
}
