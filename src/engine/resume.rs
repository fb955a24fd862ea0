//! After a crash: what the journal leaves open is settled by looking at the world.
//!
//! The order matters. An undo under way comes first, because clients' writes may be held. Then a `cutover` that was cut short: the
//! point of no return decides which way. Then every other intent without an outcome. A step that is found done is not run again; what its
//! `run` would still have done is finished when its stage goes on.

use super::crash;
use super::driver::{Driver, Stop};
use super::execute::{self, Halt};
use super::journal::{Action, AfterUndo, Event, Phase, StepResult, UndoScope};
use super::outcome::Verdict;
use super::step::{Probe, StepError, Undoable};
use super::way_back::Last;
use crate::playbook::model::StageName;

impl Driver {
    /// On resume: carries an undo through that an earlier driver began, and decides about a `cutover` that a crash cut short.
    /// Returns a verdict if that is the end.
    pub(super) async fn settle_undo(&mut self) -> Result<Option<Verdict>, Stop> {
        let state = self.journal.state();
        if let Some(undo) = state.undo {
            if !undo.finished {
                self.undo(&undo.why, undo.scope, undo.then.clone(), true).await?;
            }
            if let AfterUndo::Certify = undo.then {
                return self.certify().await.map(Some);
            }
            if let Some(verdict) = self.undo_failed("its undo failed again") {
                return Ok(Some(verdict));
            }
            return Ok(match undo.then {
                AfterUndo::End { verdict: Verdict::Undone } => {
                    self.given_up = true;
                    let reasons = vec!["`dbmove undo` had begun to undo this run, and that has been carried through".to_owned()];
                    let hint = Some("`dbmove run PLAYBOOK --new-run` starts another one".to_owned());
                    Some(Verdict::Refused { step: None, reasons, hint })
                }
                AfterUndo::End { verdict: Verdict::RolledBack } => Some(Verdict::RolledBack),
                // A verdict that a crash kept from being told is told now; one that was told before doesn't keep the run from going on.
                AfterUndo::End { verdict } if !verdict.resumable() && (!undo.told || undo.scope == UndoScope::Everything) => Some(verdict),
                _ => None,
            });
        }
        self.settle_cutover().await?;
        Ok(None)
    }

    /// The first step whose undo failed, as a verdict.
    pub(super) fn undo_failed(&self, what: &str) -> Option<Verdict> {
        self.journal.with_state(|state| {
            let (step, why) = state.not_undone.first_key_value()?;
            let hint = "put right what the message names, then give the same command again: it tries the undo once more".to_owned();
            Some(Verdict::Failed { step: Some(step.clone()), message: format!("{what}: {why}"), hint: Some(hint) })
        })
    }

    /// A crash inside `cutover`: behind the point of no return, forward; before it, undo and start the stage again.
    pub(super) async fn settle_cutover(&mut self) -> Result<(), Stop> {
        let state = self.journal.state();
        let cutover = UndoScope::Stage { stage: StageName::Cutover };
        if state.switched() || state.stage_done(StageName::Cutover) || state.begun_in(cutover).is_empty() {
            if state.switched() {
                // Of a rollback that died before its own switch, nothing was switched.
                self.end_write_gap(state.write_gap.as_ref().is_some_and(|gap| gap.seconds.is_none())).await?;
            }
            return Ok(());
        }
        if self.settle_point().await? {
            return Ok(());
        }
        self.undo("the driver ended inside `cutover`, before the point of no return", cutover, AfterUndo::StartAgain, false).await
    }

    /// Decides about a point of no return that was begun and whose end is not known, by looking; true if it is passed.
    ///
    /// # Errors
    /// [`Stop::Unclear`] where nothing may be undone, because clients may be on both sides: it is half done and can't be undone, somebody else
    /// has been there, or it can't be looked at.
    pub(super) async fn settle_point(&mut self) -> Result<bool, Stop> {
        let Some(point) = self.graph.point_of_no_return else { return Ok(false) };
        let id = self.graph.id(point).to_owned();
        let step = self.journal.with_state(|state| state.step(&id));
        // A failure is no more to be believed than silence: it may have been the answer that got lost, not the switch.
        if !matches!(step.phase, Phase::Running | Phase::Failed { .. } | Phase::Stopped) {
            return Ok(step.phase == Phase::Done);
        }
        let unclear = |step: &str, message: String| {
            let error = StepError::definite(message).hint(
                "nothing was undone, and writes are held as they were. Look where clients are pointed, put that right, then give the same command again",
            );
            Stop::Unclear(Verdict::of_failure(step, &error))
        };
        let undoable = !matches!(self.graph.steps[point].step.undoable(), Undoable::No(_));
        match self.look_at(point, step.attempt).await {
            Ok(Probe::Done) => {
                self.settle_done(point, step.attempt).await?;
                self.journal.append(Event::PointOfNoReturn { step: id }).await?;
                self.end_write_gap(true).await?;
                Ok(true)
            }
            Ok(Probe::NotStarted) => Ok(false),
            Ok(Probe::Partly { .. }) if undoable => Ok(false),
            Ok(Probe::Partly { from }) => Err(unclear(&id, format!("it is half done ({from}) and can't be undone"))),
            Ok(Probe::Foreign { found }) => Err(unclear(&id, format!("somebody else has been there: {found}"))),
            Err(Stop::Verdict(Verdict::Failed { message, .. })) => Err(unclear(&id, message)),
            Err(stop) => Err(stop),
        }
    }

    /// Settles intents that were left without an outcome, by looking at the world.
    pub(super) async fn settle_intents(&mut self) -> Result<(), Stop> {
        for index in 0..self.graph.steps.len() {
            let id = self.graph.id(index).to_owned();
            let state = self.journal.with_state(|state| state.step(&id));
            if state.phase != Phase::Running || self.graph.steps[index].stage > self.request.until {
                continue;
            }
            let probe = self.look_at(index, state.attempt).await?;
            match probe {
                Probe::Foreign { found } => {
                    let error = StepError::definite(format!("somebody else has been there: {found}"))
                        .hint("nothing was changed. Find out whose it is, take it away or start from a clean target, then give the same command again");
                    return Err(Stop::Verdict(Verdict::of_failure(&id, &error)));
                }
                Probe::Done if !self.is_service(index) => self.settle_done(index, state.attempt).await?,
                Probe::Done | Probe::NotStarted | Probe::Partly { .. } => {}
            }
        }
        Ok(())
    }

    /// Probes a step and writes down what it found.
    pub(super) async fn look_at(&mut self, index: usize, attempt: u32) -> Result<Probe, Stop> {
        let context = self.context(index, attempt);
        let step = self.graph.steps[index].step.clone();
        let id = self.graph.id(index).to_owned();
        let probe = execute::probe(&*step, &context, &self.request.limits, self.retries(index)).await.map_err(|error| {
            let message = format!("its state after the crash can't be looked at: {}", error.message);
            Stop::Verdict(Verdict::of_failure(&id, &StepError { message, ..error }))
        })?;
        self.journal.append(Event::Probed { step: id, probe: probe.clone() }).await?;
        crash::point("resume.probed");
        Ok(probe)
    }

    /// Finishes those steps of a stage that were found done: see [`Step::finish`](super::step::Step::finish).
    pub(super) async fn finish_settled(&mut self, members: &[usize]) -> Result<(), Stop> {
        for &index in members {
            let step = self.journal.with_state(|state| state.step(self.graph.id(index)));
            if step.phase != Phase::Done || !step.settled || self.finished.contains(&index) {
                continue;
            }
            self.last(index, Last::Finish).await.map_err(|(step, error)| {
                let message = format!("it was found done, and what it had still to do failed: {}", error.message);
                let again = "then give the same command again: it tries that once more";
                let hint = error.hint.as_ref().map_or_else(|| format!("put that right, {again}"), |hint| format!("{hint}; {again}"));
                Stop::Verdict(Verdict::of_failure(&step, &StepError { message, hint: Some(hint), ..error }))
            })?;
            self.finished.insert(index);
            crash::point("resume.finished");
        }
        Ok(())
    }

    /// Writes the outcome that a crash kept from being written.
    pub(super) async fn settle_done(&mut self, index: usize, attempt: u32) -> Result<(), Stop> {
        let output = execute::saved_output(&self.context(index, attempt)).map_err(|halt| match halt {
            Halt::Step(error) | Halt::Unclear(error) => Stop::Verdict(Verdict::of_failure(self.graph.id(index), &error)),
            Halt::Journal(error) => error.into(),
        })?;
        let step = self.graph.id(index).to_owned();
        let result = StepResult::Done { output };
        self.journal.append(Event::Outcome { step, attempt, action: Action::Run, result, seconds: 0.0, settled: true }).await?;
        crash::point("resume.settled");
        Ok(())
    }
}
