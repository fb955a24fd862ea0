//! Rollback: clients go back to the source behind the point of no return, with everything they wrote on the target since.
//!
//! # What must hold
//!
//! * *Nothing happens by itself.* Only `dbmove rollback` comes here, and only a playbook with a service that keeps the way back
//!   ([`Step::keeps_way_back`]) has one.
//! * *The rollback has its own point of no return*: the undo of the step that was the cutover's. Until then a failure, a budget, Ctrl-C or
//!   a crash leaves clients on the target, which takes their writes again. The services come near the end of the target's log while clients
//!   write ([`Step::near_back`]); then clients wait, where the cutover had a step that holds them ([`Step::hold_for_rollback`]), writes are held
//!   ([`Step::take_back`]), and the clock of `max_write_gap` runs.
//! * *A dead driver does not leave the target without writes*: each takes them again by itself within a bounded time ([`Step::take_back`]), and
//!   stops doing so as the last thing before the route's undo ([`Step::keep_back`]). Had one done so before, the route is not touched. A hold
//!   that is taken again while clients may be on the source already is not watched over: nobody may write on the target then.
//! * *Then the cutover is undone*, newest step first, as an undo that is journaled as a whole: the route goes back, the way back is closed, and
//!   the fence on the source is lifted last. If the route can't be put back, nothing behind it is undone, and clients write on the
//!   target again.
//! * *Resumed at any moment.* Before the undo has begun there is nothing to resume: the target serves. An undo that a crash cut short is carried
//!   on by the next driver, whatever it was asked for; but as long as the way back is not closed, writes on the target are held and taken
//!   along once more before it goes on, because the lock died with the process.
//! * *A rehearsal tries it*, behind everything else that can be tried: by the same code, on the rehearsal pair, under the same limit. What
//!   would have refused a rollback refuses the certificate. A step that ends the way back ([`Step::ends_way_back`]) is left out there.
//! * *It is the end of the run's way forward.* The run can only be undone afterwards (`dbmove undo` drops the copy on the target), and another
//!   one started: what the source's log holds since the fence is the target's own past.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::beforehand;
use super::budget::Budget;
use super::context::RunKind;
use super::crash;
use super::driver::{Driver, Stop};
use super::execute::pause;
use super::journal::{AfterUndo, Event, Phase, RunState, UndoScope};
use super::load::Clients;
use super::outcome::Verdict;
#[cfg(doc)]
use super::step::Step;
use super::step::{Failure, StepError};
use crate::playbook::model::StageName;

/// What one part of it is, or of a cutover.
#[derive(Clone, Copy)]
enum Part {
    Near,
    Hold,
    Take,
    /// Of a cutover, right before its point of no return.
    KeepHeld,
}

impl Part {
    /// Of what.
    fn of(self) -> &'static str {
        match self {
            Part::Near | Part::Hold | Part::Take => "the rollback",
            Part::KeepHeld => "the cutover",
        }
    }
}

/// What is done to the end whatever the budgets say.
#[derive(Clone, Copy)]
pub(super) enum Last {
    Keep,
    Give,
    LetThrough,
    Finish,
}

/// Time kept before a deadline for giving the target back.
const RESERVE: Duration = Duration::from_secs(3);

impl AfterUndo {
    /// True if the undo is a rollback's.
    pub(super) fn is_rollback(&self) -> bool {
        matches!(self, AfterUndo::End { verdict: Verdict::RolledBack } | AfterUndo::EndRehearsal)
    }
}

impl Driver {
    /// The steps that keep the way back, one for each store that has one.
    fn way_back_steps(&self) -> Vec<usize> {
        (0..self.graph.steps.len()).filter(|index| self.graph.steps[*index].step.keeps_way_back()).collect()
    }

    /// Rolls back on request.
    pub(super) async fn roll_back(&mut self) -> Result<Verdict, Stop> {
        if let Some(verdict) = self.settle_undo().await? {
            return Ok(verdict);
        }
        if let Some((reason, hint)) = self.no_rollback() {
            return Ok(Verdict::Refused { step: None, reasons: vec![reason], hint: Some(hint) });
        }
        self.check_write_gap()?;
        if let Some(deadline) = self.request.deadline.clone() {
            if let Some((reason, hint)) = beforehand::no_time(&self.request) {
                return Ok(Verdict::Refused { step: None, reasons: vec![reason], hint: Some(hint) });
            }
            self.journal.append(Event::DeadlineSet { text: deadline.text, until: deadline.until }).await?;
            self.budget = Some(Budget::start(deadline.until, Timestamp::now()));
        }
        self.tell_unwatched().await?;
        let then = AfterUndo::End { verdict: Verdict::RolledBack };
        Ok(self.point_back("a rollback was asked for", then).await?.unwrap_or(Verdict::RolledBack))
    }

    /// Whoever counts on guards has to know that nobody looks now.
    async fn tell_unwatched(&self) -> Result<(), Stop> {
        let guards: Vec<String> = self.request.guards.iter().map(|built| format!("`{}`", built.spec.id)).collect();
        if guards.is_empty() {
            return Ok(());
        }
        let text = format!(
            "guards are not watched in a rollback ({}): none of them keeps clients on the target. What came back is compared, and `max_write_gap` \
             holds, and the deadline if there is one",
            guards.join(", ")
        );
        tracing::warn!("{text}");
        self.journal.append(Event::Note { step: None, text }).await?;
        Ok(())
    }

    /// Tries the rollback of a rehearsal that has come to its end, if there is a way back.
    pub(super) async fn try_rollback(&mut self) -> Result<(), Stop> {
        if self.way_back_steps().is_empty() {
            return Ok(());
        }
        if let Some((reason, hint)) = self.no_rollback() {
            let reasons = vec![format!("the rollback can't be rehearsed: {reason}")];
            return Err(Stop::Verdict(Verdict::Refused { step: None, reasons, hint: Some(hint) }));
        }
        match self.point_back("the rollback is rehearsed", AfterUndo::EndRehearsal).await? {
            Some(failed) => Err(Stop::Verdict(failed)),
            None => Ok(()),
        }
    }

    /// A rollback, once nothing speaks against it. Returns a verdict if it did not come to its end.
    async fn point_back(&mut self, why: &str, then: AfterUndo) -> Result<Option<Verdict>, Stop> {
        self.journal.append(Event::RollbackStarted).await?;
        if let Err(stop) = self.take_back_all().await {
            return Err(self.give_back_all(stop).await);
        }
        self.undo(why, UndoScope::Stage { stage: StageName::Cutover }, then, false).await?;
        Ok(self.undo_failed("the rollback did not come to its end"))
    }

    /// The steps of a stage that a rehearsal leaves to production, because it tries the rollback: those that end the way back, and those that
    /// wait for them.
    pub(super) fn left_to_production(&self, members: &[usize]) -> BTreeSet<usize> {
        let mut left = BTreeSet::new();
        if self.request.kind != RunKind::Rehearsal || !self.request.rollback_after || self.way_back_steps().is_empty() {
            return left;
        }
        // A step waits for others anywhere in its stage: until nothing is added any more.
        loop {
            let waits = |index: &usize| self.graph.needs[*index].iter().any(|need| left.contains(need));
            let more: Vec<usize> = members
                .iter()
                .copied()
                .filter(|index| !left.contains(index) && (self.graph.steps[*index].step.ends_way_back() || waits(index)))
                .collect();
            if more.is_empty() {
                return left;
            }
            left.extend(more);
        }
    }

    /// Why there is no rollback of this run, and what to do.
    fn no_rollback(&self) -> Option<(String, String)> {
        let left = self.untouched();
        self.journal.with_state(|state| beforehand::no_rollback(&self.graph, state, &left))
    }

    /// Before an undo of a rollback goes on: holds the target's writes and takes them along once more, unless the way back is closed already.
    pub(super) async fn hold_again(&mut self) -> Result<(), Stop> {
        let open = |state: &RunState| {
            let begun = |index: &usize| {
                !matches!(state.step(self.graph.id(*index)).phase, Phase::NotBegun | Phase::Undoing | Phase::UndoFailed { .. })
            };
            self.way_back_steps().iter().all(begun)
        };
        if !self.journal.with_state(open) {
            // Clients still wait for the source; who comes to the target meanwhile is turned away there.
            for index in self.holding_steps() {
                self.part(index, Part::Hold).await?;
            }
            return Ok(());
        }
        let taken = match self.take_back_all().await {
            // Its undo is behind us, so nothing else calls them off.
            Ok(()) if self.route_phase() == Some(Phase::NotBegun) => self
                .keep_back()
                .await
                .map_err(|(step, error)| Stop::Verdict(Verdict::Failed { step: Some(step), message: error.message, hint: error.hint })),
            taken => taken,
        };
        match taken {
            Ok(()) => Ok(()),
            Err(stop) => Err(self.give_back_all(stop).await),
        }
    }

    /// How far the undo of the cutover's point of no return is.
    fn route_phase(&self) -> Option<Phase> {
        let point = self.graph.point_of_no_return?;
        Some(self.journal.with_state(|state| state.step(self.graph.id(point)).phase))
    }

    /// True if clients are on the target for certain: the route was not touched, or could not be put back, and they were given back to it.
    fn route_is_untouched(&self) -> bool {
        matches!(self.route_phase(), Some(Phase::Done | Phase::UndoFailed { .. }))
    }

    async fn take_back_all(&mut self) -> Result<(), Stop> {
        let steps = self.way_back_steps();
        for &index in &steps {
            if !self.running.contains_key(&index) {
                self.start(index).await?;
            }
        }
        for &index in &steps {
            self.part(index, Part::Near).await?;
        }
        let limit_seconds = self.request.max_write_gap.as_secs_f64();
        if let Some(&first) = steps.first() {
            self.clients_are(Clients::HeldOnTarget);
            self.write_gap = Some(Instant::now());
            self.journal.append(Event::WriteGapStarted { step: self.graph.id(first).to_owned(), limit_seconds }).await?;
            crash::point("rollback.write_gap_started");
        }
        for index in self.holding_steps() {
            self.part(index, Part::Hold).await?;
            crash::point("rollback.clients_held");
        }
        for &index in &steps {
            self.part(index, Part::Take).await?;
        }
        Ok(())
    }

    /// The steps of the cutover that hold clients and stand, in order.
    fn holding_steps(&self) -> Vec<usize> {
        let stands = |index: &usize| self.journal.with_state(|state| state.step(self.graph.id(*index)).phase == Phase::Done);
        let holds = |index: &usize| self.graph.steps[*index].stage == StageName::Cutover && self.graph.steps[*index].step.holds_clients();
        (0..self.graph.steps.len()).filter(|index| holds(index) && stands(index)).collect()
    }

    /// Right before the cutover's point of no return: from here on no source takes writes again by itself. The same that [`Driver::keep_back`] is
    /// in a rollback; but the clocks run on, and a person is heard.
    pub(super) async fn keep_held(&mut self) -> Result<(), Stop> {
        let holds = |index: &usize| self.graph.steps[*index].stage == StageName::Cutover && self.graph.steps[*index].step.holds_writes();
        for index in (0..self.graph.steps.len()).filter(holds).collect::<Vec<_>>() {
            self.part(index, Part::KeepHeld).await?;
        }
        Ok(())
    }

    /// One part of one step, tried again where that can help, while the run's other tasks and clocks are looked after.
    async fn part(&mut self, index: usize, part: Part) -> Result<(), Stop> {
        let mut failures = 0;
        loop {
            match self.try_part(index, part).await? {
                Ok(()) => return Ok(()),
                Err(error) if error.failure == Failure::Transient && failures < self.retries(index) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "a part of {} failed, trying again", part.of());
                    let until = Instant::now() + pause(&self.request.limits, failures);
                    while Instant::now() < until {
                        self.wait().await?;
                        self.check_part(part)?;
                    }
                }
                Err(error) => return Err(Stop::Verdict(Verdict::of_failure(self.graph.id(index), &error))),
            }
        }
    }

    async fn try_part(&mut self, index: usize, part: Part) -> Result<Result<(), StepError>, Stop> {
        let attempt = self.journal.with_state(|state| state.step(self.graph.id(index)).attempt);
        let (context, step, nudge) = (self.context(index, attempt), self.graph.steps[index].step.clone(), self.nudge.clone());
        let (cancel, watched) = (context.cancel.clone(), self.route_is_untouched());
        let (told, mut telling) = oneshot::channel();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let done = match part {
                Part::Near => step.near_back(&context).await,
                Part::Hold => step.hold_for_rollback(&context).await,
                Part::Take => step.take_back(&context, watched).await.map(drop),
                Part::KeepHeld => step.keep_held(&context).await,
            };
            // Nobody waits any more if this can't be told.
            let _ = told.send(done);
            nudge.notify_one();
        });
        loop {
            match telling.try_recv() {
                Ok(done) => return Ok(done),
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => {
                    let (of, id) = (part.of(), self.graph.id(index));
                    return Ok(Err(StepError::definite(format!("`{id}` broke off in a part of {of} (a defect in dbmove)"))));
                }
            }
            let waited = match self.wait().await {
                Ok(()) => self.check_part(part),
                stopped => stopped,
            };
            if let Err(stop) = waited {
                cancel.cancel();
                // What it holds goes with its sessions, if it does not stop by itself.
                let _ = tokio::time::timeout(self.request.limits.stop_grace, task.join_next()).await;
                return Err(stop);
            }
        }
    }

    fn check_part(&mut self, part: Part) -> Result<(), Stop> {
        match part {
            Part::Near | Part::Hold | Part::Take => self.check_rollback(),
            Part::KeepHeld => self.check_budgets(),
        }
    }

    /// The budgets of a rollback, until its route is put back.
    fn check_rollback(&self) -> Result<(), Stop> {
        if let Some(held) = self.write_gap.map(|started| started.elapsed())
            && held > self.request.max_write_gap
        {
            let limit_seconds = self.request.max_write_gap.as_secs_f64();
            return Err(Stop::Verdict(Verdict::WriteGapExceeded { limit_seconds, held_seconds: held.as_secs_f64() }));
        }
        match self.budget.as_ref().map(Budget::left) {
            Some(left) if left < RESERVE => {
                let message = format!("{:.0} s are left and the route is not put back; clients stay on the target", left.as_secs_f64());
                Err(Stop::Verdict(Verdict::DeadlineMissed { message }))
            }
            _ => Ok(()),
        }
    }

    /// Lets clients write on the target again, as before; the reason to stop, or what is worse.
    pub(super) async fn give_back_all(&mut self, stop: Stop) -> Stop {
        if let Stop::Verdict(Verdict::LeaseLost { .. }) = &stop {
            // Somebody else drives now, and gives back or goes on.
            return stop;
        }
        match self.give_back().await {
            Ok(()) => stop,
            Err(worse) => worse,
        }
    }

    /// Lets clients write on the target again. A driver that is not asked to roll back does so before anything else, for one that died while it was.
    pub(super) async fn give_back(&mut self) -> Result<(), Stop> {
        for index in self.way_back_steps() {
            self.last(index, Last::Give).await.map_err(|(step, error)| {
                let message = format!("the target could not be given back to its clients, look at `read_only` there: {}", error.message);
                let hint = Some("give the same command again, or set `read_only = 0` on the target by hand".to_owned());
                Stop::Verdict(Verdict::Failed { step: Some(step), message, hint })
            })?;
        }
        for index in self.holding_steps() {
            self.last(index, Last::LetThrough).await.map_err(|(step, error)| {
                let message = format!("the target takes writes again, but clients that wait could not be let through: {}", error.message);
                Stop::Verdict(Verdict::Failed { step: Some(step), message, hint: error.hint })
            })?;
        }
        Ok(self.end_write_gap(false).await?)
    }

    /// Right before the route is put back: from here on no target takes writes again by itself. The step that says it did, and why.
    pub(super) async fn keep_back(&self) -> Result<(), (String, StepError)> {
        for index in self.way_back_steps() {
            self.last(index, Last::Keep).await?;
        }
        Ok(())
    }

    /// One step's part of what ends a cutover or a rollback, or keeps it, tried again where that can help.
    pub(super) async fn last(&self, index: usize, part: Last) -> Result<(), (String, StepError)> {
        let id = self.graph.id(index).to_owned();
        let attempt = self.journal.with_state(|state| state.step(&id).attempt);
        let (context, step) = (self.context(index, attempt), self.graph.steps[index].step.clone());
        let mut failures = 0;
        loop {
            let done = match part {
                Last::Keep => step.keep_back(&context).await,
                Last::Give => step.give_back(&context).await,
                Last::LetThrough => step.let_through_again(&context).await,
                Last::Finish => step.finish(&context).await,
            };
            match done {
                Ok(()) => return Ok(()),
                Err(error) if error.failure == Failure::Transient && failures < self.retries(index) => {
                    failures += 1;
                    tokio::time::sleep(pause(&self.request.limits, failures)).await;
                }
                Err(error) => return Err((id, error)),
            }
        }
    }
}

/// Why a run that was rolled back goes no further, and what to do.
pub(super) fn rolled_back_already() -> (String, String) {
    (
        "this run was rolled back: the source serves, and what was written on the target is there".to_owned(),
        "`dbmove undo PLAYBOOK` drops the copy on the target, then `dbmove run PLAYBOOK --new-run` starts another run".to_owned(),
    )
}
