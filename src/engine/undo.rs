//! The way back: undo, newest first, and what follows it.
//!
//! What is undone when is told in [`run`](super::run). An undo is journaled as a whole (`undo_started` says how far back, and what
//! follows) and step by step, so that after a crash in the middle of it the next driver goes on with it before it does
//! anything else. Ctrl-C and budgets don't interrupt it; a lost lease does. One step whose undo fails doesn't keep the others from
//! theirs: lifting the fence matters more than a tidy order. Such a step stays on record, the run says so loudly, and the next
//! driver tries it again. While writes are held, what only stands in the way of lifting that gets one short try, and all its tries once
//! writes are let through: a target that is gone must not keep the source without writes. What keeps the way back does not only stand in the way in a
//! rollback: its undo makes the source again what clients write to, and gets all its tries before they do.
//!
//! The point of no return is the exception. If it was begun and can be neither undone nor seen to have left no trace, clients may be on both
//! sides, and nothing behind it in the order of undo is touched: writes stay held.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::beforehand;
use super::crash;
use super::driver::{Driver, Stop, engine_error};
use super::execute::{Halt, pause};
use super::guards::Effect;
use super::journal::{Action, AfterUndo, Event, JournalError, RunState, StepResult, UndoScope};
use super::outcome::Verdict;
use super::run::EngineError;
use super::step::{Failure, Probe, StepError, Undoable};
use crate::engine::context::RunKind;
use crate::playbook::model::{Moment, StageName};

/// What is said where the point of no return can't be undone.
const BETWEEN: &str = "clients may be on both sides, so nothing more was undone, and writes are held as they were. Look where clients are pointed, put \
                       that right, then give the same command again: it tries the undo once more";

impl Driver {
    /// What happens when the way forward has ended without being through.
    pub async fn fall_back(&mut self, stop: Stop) -> Result<Verdict, EngineError> {
        let (verdict, may_undo) = match stop {
            Stop::Engine(error) => return Err(error),
            Stop::Verdict(Verdict::LeaseLost { message }) => {
                // Somebody else drives now: stop acting, at once.
                self.tasks.shutdown().await;
                self.running.clear();
                self.beside = None;
                return Ok(Verdict::LeaseLost { message });
            }
            Stop::Verdict(verdict) => (verdict, true),
            Stop::Unclear(verdict) => (verdict, false),
            Stop::Journal(error) => {
                self.stop_tasks().await;
                let full = matches!(error, JournalError::Full { .. });
                if !(full && self.journal.journal().release_reserve()) {
                    return Err(engine_error(error));
                }
                (Verdict::Failed { step: None, message: error.to_string(), hint: None }, true)
            }
        };
        if let Err(error) = self.end_load().await {
            tracing::warn!(%error, "what became of the load could not be written down");
        }
        self.stop_tasks().await;
        if may_undo && !self.unclear && !self.journal.with_state(RunState::rolling_back) {
            // Whatever ended the run may have kept the outcome of the switch from the journal.
            match self.settle_point().await {
                Ok(_) => {}
                Err(Stop::Verdict(other) | Stop::Unclear(other)) => return Ok(other),
                Err(Stop::Journal(error)) => return Err(engine_error(error)),
                Err(Stop::Engine(error)) => return Err(error),
            }
        }
        let scope = if may_undo && !self.unclear { self.scope_after(&verdict) } else { None };
        if let Some(scope) = scope {
            let why = verdict.to_string();
            match self.undo(&why, scope, AfterUndo::End { verdict: verdict.clone() }, false).await {
                Ok(()) => {}
                Err(Stop::Verdict(lost)) | Err(Stop::Unclear(lost)) => return Ok(lost),
                Err(Stop::Journal(error)) => return Err(engine_error(error)),
                Err(Stop::Engine(error)) => return Err(error),
            }
        }
        Ok(verdict)
    }

    /// Undoes the whole run on request. What an earlier driver began to undo is carried through first, and a cutover that was cut short is
    /// settled: whether clients were switched decides whether anything may be undone at all.
    pub(super) async fn give_up(&mut self) -> Result<Verdict, Stop> {
        let under_way = self.journal.state().undo.filter(|undo| !undo.finished);
        match &under_way {
            Some(undo) => self.undo(&undo.why, undo.scope, undo.then.clone(), true).await?,
            None => self.settle_cutover().await?,
        }
        if let Some(refused) = self.journal.with_state(|state| beforehand::no_undo(&self.graph, state)) {
            return Ok(refused);
        }
        if self.undo_failed("").is_none() && !self.journal.state().begun_in(UndoScope::Everything).is_empty() {
            self.undo("asked for", UndoScope::Everything, AfterUndo::End { verdict: Verdict::Undone }, false).await?;
        }
        if let Some(failed) = self.undo_failed("its undo failed") {
            return Ok(failed);
        }
        self.given_up = true;
        Ok(Verdict::Undone)
    }

    /// How far back to go after this verdict, if at all.
    fn scope_after(&self, verdict: &Verdict) -> Option<UndoScope> {
        let state = self.journal.state();
        if state.rolling_back() {
            // It goes on where it stands, and not without holding the target's writes.
            return None;
        }
        let cutover = UndoScope::Stage { stage: StageName::Cutover };
        let mid_cutover = !state.switched() && !state.stage_done(StageName::Cutover) && !state.begun_in(cutover).is_empty();
        let undone_by_guard = matches!(verdict, Verdict::StoppedByGuard { effect: Effect::Undone, .. }) && !state.switched();
        let rehearsal_over = self.request.kind == RunKind::Rehearsal && self.request.rollback_after && !verdict.resumable();
        if (rehearsal_over || undone_by_guard) && !state.begun_in(UndoScope::Everything).is_empty() {
            Some(UndoScope::Everything)
        } else {
            mid_cutover.then_some(cutover)
        }
    }

    /// Stops every task that is not a ready service, and waits for it.
    async fn stop_tasks(&mut self) {
        let tasks: Vec<usize> = self.running.keys().copied().filter(|index| !self.is_service(*index)).collect();
        self.stop(&tasks).await;
    }

    /// Stops everything, services too.
    pub async fn stop_all(&mut self) {
        let all: Vec<usize> = self.running.keys().copied().collect();
        self.stop(&all).await;
    }

    /// Asks these to stop and waits until they have; each has its grace, after which it is dropped.
    async fn stop(&mut self, indexes: &[usize]) {
        for index in indexes {
            // The point of no return is waited for: it has its own time limit, and half of it is worse than all.
            if let Some(running) = self.running.get(index).filter(|_| self.graph.point_of_no_return != Some(*index)) {
                running.cancel.cancel();
            }
        }
        while indexes.iter().any(|index| self.running.contains_key(index)) {
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            match self.take_ended(ended) {
                // Should this not reach the journal: the step's own outcome has, and says the same.
                Some((index, Ok(_))) if self.graph.point_of_no_return == Some(index) => drop(self.passed(index).await),
                Some((_, Err(Halt::Unclear(_)))) => self.unclear = true,
                _ => {}
            }
        }
    }

    /// Undoes what has begun inside the scope. `going_on`: an earlier driver has already said so in the journal.
    pub async fn undo(&mut self, why: &str, scope: UndoScope, then: AfterUndo, going_on: bool) -> Result<(), Stop> {
        let rollback = then.is_rollback();
        if rollback && going_on {
            self.hold_again().await?;
        }
        if !going_on {
            self.journal.append(Event::UndoStarted { why: why.to_owned(), scope, then }).await?;
        }
        crash::point("undo.started");
        let started = Instant::now();
        let mut failed = BTreeMap::new();
        let mut later = Vec::new();
        let mut stuck = false;
        for id in self.journal.state().begun_in(scope) {
            let Some(index) = self.graph.index(&id) else {
                failed.insert(id.clone(), format!("step `{id}` is no longer in the playbook, so nothing knows how to undo it"));
                continue;
            };
            let point = self.graph.point_of_no_return == Some(index);
            if rollback
                && point
                && let Err((step, error)) = self.keep_back().await
            {
                failed.insert(step, error.message);
                self.give_back_after(&mut failed).await;
                stuck = true;
                break;
            }
            self.stop(&[index]).await;
            let in_the_way = self.writes_are_held() && !point && !self.acts_before_writes(index, rollback);
            let Err(error) = self.undo_and_tell(index, in_the_way.then_some(self.request.limits.undo_while_held)).await? else { continue };
            failed.insert(id.clone(), error.message.clone());
            if in_the_way && error.failure == Failure::Transient {
                later.push(index);
            } else if point && rollback {
                self.give_back_after(&mut failed).await;
                stuck = true;
                break;
            } else if point && self.request.kind == RunKind::Production && !self.is_untouched(index).await? {
                failed.insert(id, format!("{}; {BETWEEN}", error.message));
                stuck = true;
                break;
            }
        }
        let lifted = |id: &String| self.graph.index(id).is_some_and(|index| !self.graph.steps[index].step.holds_writes());
        if !stuck && failed.keys().all(lifted) {
            self.end_write_gap(rollback).await?;
        }
        for index in later {
            match self.undo_and_tell(index, None).await? {
                Ok(()) => drop(failed.remove(self.graph.id(index))),
                Err(error) => drop(failed.insert(self.graph.id(index).to_owned(), error.message)),
            }
        }
        let scope = match scope {
            UndoScope::Stage { stage } => stage.as_str(),
            UndoScope::Everything => "everything",
        };
        self.tell_hooks(Moment::OnUndo, serde_json::json!({ "why": why, "scope": scope, "failed": failed })).await?;
        self.journal.append(Event::UndoFinished { failed, seconds: started.elapsed().as_secs_f64() }).await?;
        crash::point("undo.finished");
        Ok(())
    }

    /// Of a rollback that ends at the route: clients may be on the target still. They write there, and the way back stays open.
    async fn give_back_after(&mut self, failed: &mut BTreeMap<String, String>) {
        if let Err(Stop::Verdict(Verdict::Failed { step: Some(step), message, .. })) = self.give_back().await {
            failed.insert(step, message);
        }
    }

    /// True if writes must not be let through before the step's undo has come to its end, or has failed for good: that of what holds them, and in a
    /// rollback that of what keeps the way back, which puts back on the source what clients' writes set off there.
    fn acts_before_writes(&self, index: usize, rollback: bool) -> bool {
        let step = &self.graph.steps[index].step;
        step.holds_writes() || (rollback && step.keeps_way_back())
    }

    /// True while clients' writes wait, by this driver's doing or a dead one's.
    fn writes_are_held(&self) -> bool {
        self.write_gap.is_some() || self.journal.with_state(|state| state.open_write_gap().is_some())
    }

    /// Whether a point of no return that can't be undone has left no trace: then nobody was moved, and what comes after it may be undone. One that
    /// can't be looked at has.
    async fn is_untouched(&mut self, index: usize) -> Result<bool, Stop> {
        let attempt = self.journal.with_state(|state| state.step(self.graph.id(index)).attempt);
        match self.look_at(index, attempt).await {
            Ok(probe) => Ok(probe == Probe::NotStarted),
            Err(Stop::Verdict(Verdict::Failed { .. })) => Ok(false),
            Err(stop) => Err(stop),
        }
    }

    async fn undo_and_tell(&mut self, index: usize, one_try: Option<Duration>) -> Result<Result<(), StepError>, Stop> {
        let id = self.graph.id(index).to_owned();
        self.observer.undo_started(&id);
        let result = self.undo_step(index, one_try).await?;
        self.observer.undo_ended(&id, result.as_ref().err().map(|error| error.message.as_str()));
        if result.is_ok() {
            self.undone.push(id);
        }
        Ok(result)
    }

    /// Undoes one step: intent, effect, outcome. With a limit there is one try, which is given up after that time.
    async fn undo_step(&mut self, index: usize, one_try: Option<Duration>) -> Result<Result<(), StepError>, Stop> {
        let built = self.graph.steps[index].clone();
        let id = built.spec.id.clone();
        let attempt = self.journal.with_state(|state| state.step(&id).attempt);
        let context = self.context(index, attempt);
        self.journal.append(Event::Intent { step: id.clone(), attempt, action: Action::Undo, key: context.idempotency_key() }).await?;
        crash::point("undo.intent_written");
        let started = Instant::now();
        let result = match built.step.undoable() {
            Undoable::Nothing => Ok(()),
            Undoable::No(reason) => self.leave(index, &reason).await?,
            Undoable::Yes => {
                let mut failures = 0;
                let retries = if one_try.is_some() { 0 } else { self.retries(index) };
                loop {
                    let lost = context.cancel.clone();
                    let result = tokio::select! {
                        result = built.step.undo(&context) => result,
                        () = tokio::time::sleep(one_try.unwrap_or_default()), if one_try.is_some() => {
                            Err(StepError::transient(format!("`{id}` was not undone within {:?}", one_try.unwrap_or_default())))
                        }
                        () = lost.cancelled() => return Err(Stop::Verdict(Verdict::LeaseLost { message: format!("another driver took over while `{id}` was undone") })),
                    };
                    match result {
                        Err(error) if error.failure == Failure::LeaseLost => {
                            return Err(Stop::Verdict(Verdict::LeaseLost { message: error.message }));
                        }
                        Err(error) if error.failure == Failure::Transient && failures < retries => {
                            failures += 1;
                            let wait = pause(&self.request.limits, failures);
                            let error_text = error.message.clone();
                            self.journal
                                .append(Event::Retry { step: id.clone(), attempt, wait_seconds: wait.as_secs_f64(), error: error_text })
                                .await?;
                            tokio::time::sleep(wait).await;
                        }
                        result => break result,
                    }
                }
            }
        };
        crash::point("undo.effect_done");
        let recorded = match &result {
            Ok(()) => StepResult::Done { output: super::step::Output::default() },
            Err(error) => StepResult::Failed { error: error.into() },
        };
        let seconds = started.elapsed().as_secs_f64();
        self.journal.append(Event::Outcome { step: id, attempt, action: Action::Undo, result: recorded, seconds, settled: false }).await?;
        crash::point("undo.outcome_written");
        Ok(result)
    }

    /// A step that can't be undone: fine if there is no trace of it, or if this is a rehearsal's copy; a failure otherwise.
    async fn leave(&mut self, index: usize, reason: &str) -> Result<Result<(), StepError>, Stop> {
        let id = self.graph.id(index).to_owned();
        if self.request.kind == RunKind::Rehearsal {
            let text = format!("left as it is on the rehearsal copy: it can't be undone ({reason})");
            self.journal.append(Event::Note { step: Some(id), text }).await?;
            return Ok(Ok(()));
        }
        let attempt = self.journal.with_state(|state| state.step(&id).attempt);
        Ok(match self.look_at(index, attempt).await? {
            Probe::NotStarted => Ok(()),
            _ => Err(StepError::definite(format!("`{id}` can't be undone: {reason}"))),
        })
    }
}
