//! A stage's steps, side by side where `needs` allows it.
//!
//! One loop, [`Driver::wait`], is where time passes: it wakes for a step that ended, a service that became ready, Ctrl-C, a lost lease, a
//! handover and the clocks, in that order of importance. All of a run's tasks live in one [`JoinSet`](tokio::task::JoinSet); dropping
//! the driver aborts them. A stage is done when every task in it is done and every service ready *in this process*; so
//! the same code runs a stage for the first time, goes on inside it after a crash, and brings the services of a finished one back.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::budget::REFORECAST;
use super::context::RunKind;
use super::control;
use super::crash;
use super::driver::{Driver, Running, Stop};
use super::execute::{self, Execution, Halt};
use super::guards::Looked;
use super::handover::{self, Asked};
use super::journal::{Event, JournalError, Phase, RunState, Sample};
use super::lease::LeaseError;
use super::load::Clients;
use super::moments::Told;
use super::outcome::Verdict;
use super::step::{Failure, Output, StepError};
use crate::playbook::model::{Moment, StageName};
use crate::playbook::quantity::HumanDuration;

/// How often progress goes into the journal's time series.
const SAMPLE: Duration = Duration::from_secs(2);

/// How often it is looked whether a person has answered.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Driver {
    /// Satisfied for those that need it: done, and where the effect lives in the process, done by this one.
    pub(super) fn is_satisfied(&self, index: usize) -> bool {
        let (done, switched) = self.journal.with_state(|state| (state.step(self.graph.id(index)).phase == Phase::Done, state.switched()));
        if self.is_service(index) {
            // One that was ended on purpose by a cutover that was undone has to serve the next one again; one that looks on from this process
            // has to serve whoever comes after it until its stage is done.
            let volatile = self.graph.steps[index].step.volatile();
            let over = self.journal.with_state(|state| (state.switched() && !volatile) || state.stage_done(StageName::Cutover));
            return done && (over || self.done_here.contains(&index))
                || self.running.get(&index).is_some_and(|running| *running.ready.borrow());
        }
        let built = &self.graph.steps[index];
        if switched && built.stage < StageName::Cutover {
            // Nobody follows the source any more: one that was stopped when it was run once more can't be done again.
            return true;
        }
        let lives_on = (!built.step.volatile() && self.request.again != Some(built.stage)) || self.graph.point_of_no_return == Some(index);
        // Behind the switch a run can only be driven forward: what a person was asked and answered is not asked again.
        let lives_on = lives_on || (switched && built.step.question().is_some());
        done && (lives_on || self.done_here.contains(&index))
    }

    /// Runs a stage, or (`again`) brings back what of a finished one lives in the process.
    pub(super) async fn run_stage(&mut self, stage: StageName, again: bool) -> Result<(), Stop> {
        let mut members = self.graph.stage(stage);
        let left = self.left_to_production(&members);
        members.retain(|index| !left.contains(index));
        if !again {
            if stage == StageName::Cutover {
                self.watch_stage(stage).await?;
                // Behind the switch nothing may wait any more.
                while !self.is_switching() && self.waits_before_cutover() {
                    self.wait().await?;
                }
                self.check_certificate(true).await?;
                if !self.journal.with_state(RunState::switched) {
                    self.ask_hooks(Moment::BeforeCutover, serde_json::json!({})).await?;
                    // What was asked may have taken its time.
                    while self.waits_before_cutover() {
                        self.wait().await?;
                    }
                }
                if let Some(text) = self.went_on_despite.take() {
                    tracing::warn!("{text}");
                    self.journal.append(Event::Note { step: None, text }).await?;
                }
            }
            if self.journal.with_state(|state| state.stages.get(&stage).is_none_or(|stage| stage.started.is_none())) {
                self.journal.append(Event::StageStarted { stage }).await?;
            }
            self.observer.stage_started(stage);
            crash::point("stage.started");
            for index in &left {
                let text = "left to production: it ends the way back, or waits for that, and the rollback is rehearsed".to_owned();
                self.journal.append(Event::Note { step: Some(self.graph.id(*index).to_owned()), text }).await?;
            }
        }
        self.watch_stage(stage).await?;
        loop {
            self.look_for_answers()?;
            if !again {
                self.finish_settled(&members).await?;
            }
            let held = stage == StageName::Settle && self.journal.with_state(|state| state.guards.holds_settle().is_some());
            for &index in &members {
                let waits = self.graph.needs[index].iter().any(|need| !self.is_satisfied(*need));
                // Following goes on in a paused run: the source may purge the log that nobody follows.
                let waits = waits || (self.paused().is_some() && !(self.is_service(index) && self.is_satisfied_on_disk(index)));
                let waits = waits || (held && !self.is_satisfied_on_disk(index));
                // Said while the stage was paused before its first step.
                let waits = waits || (stage == StageName::Cutover && self.cutover_held());
                if !waits && !self.waiting.contains(&index) && !self.is_satisfied(index) && !self.running.contains_key(&index) {
                    self.start(index).await?;
                }
            }
            if members.iter().all(|index| self.is_satisfied(*index)) {
                break;
            }
            self.wait().await?;
        }
        if !again {
            crash::point("stage.steps_done");
            self.journal.append(Event::StageDone { stage }).await?;
            self.observer.stage_done(stage);
            self.closes_connections(false);
            crash::point("stage.done");
        }
        Ok(())
    }

    /// True while the cutover's first step waits: for a person, for guards to be quiet, or for a service that clients would have to wait for.
    fn waits_before_cutover(&mut self) -> bool {
        let waits = self.cutover_held() || self.paused().is_some();
        self.kept_back = None;
        if !waits {
            let why = self.guards_keep_cutover_back().or_else(|| self.services_keep_cutover_back());
            self.kept_back = why.or_else(|| self.clients_keep_cutover_back());
        }
        waits || self.kept_back.is_some()
    }

    /// Which service is not near enough to its end for writes to be held, and why. A rehearsal goes on: whether its target keeps up with
    /// the load is what it is to find out. So does a driver that finds writes held already.
    fn services_keep_cutover_back(&self) -> Option<String> {
        if !self.begins_to_hold() {
            return None;
        }
        self.running.iter().find_map(|(index, running)| {
            let why = running.progress.borrow().not_near.clone()?;
            Some(format!("the cutover waits for `{}`: {why}", self.graph.id(*index)))
        })
    }

    /// False in a rehearsal, whose clients nobody misses, and where writes are held already.
    fn begins_to_hold(&self) -> bool {
        self.request.kind == RunKind::Production && self.journal.with_state(|state| state.open_write_gap().is_none())
    }

    /// Which clients would be held up or ended, as a service sees them. They are waited for so long in all, whoever they are: some pool may keep a
    /// transaction open for days. Then the cutover goes on, and says so.
    fn clients_keep_cutover_back(&mut self) -> Option<String> {
        if !self.begins_to_hold() {
            return None;
        }
        let seen = |(index, running): (&usize, &Running)| Some((*index, running.progress.borrow().in_the_way.clone()?));
        let (index, seen) = self.running.iter().find_map(seen)?;
        let since = *self.waited_for_clients.get_or_insert_with(Instant::now);
        let step = self.graph.id(index);
        if since.elapsed() < seen.patience {
            let patience = HumanDuration(seen.patience);
            return Some(format!(
                "the cutover waits for `{step}`: {}; it goes on after {patience} at most, and ends what is left then",
                seen.what
            ));
        }
        self.went_on_despite =
            Some(format!("the cutover goes on though {}: it has waited for {}", seen.what, HumanDuration(seen.patience)));
        None
    }

    /// Takes gates that have their answer by now out of [`Driver::waiting`].
    fn look_for_answers(&mut self) -> Result<(), Stop> {
        if self.waiting.is_empty() || self.asked.elapsed() < ASK_AGAIN {
            return Ok(());
        }
        self.asked = Instant::now();
        for index in self.waiting.clone() {
            let answer = self.context(index, 1).approval();
            match answer {
                Ok(None) => {}
                Ok(Some(_)) => drop(self.waiting.remove(&index)),
                Err(error) => return Err(Stop::Verdict(Verdict::of_failure(self.graph.id(index), &error))),
            }
        }
        Ok(())
    }

    pub(super) async fn start(&mut self, index: usize) -> Result<(), Stop> {
        let built = self.graph.steps[index].clone();
        let point_of_no_return = self.graph.point_of_no_return == Some(index);
        let (phase, attempt, switched) = self.journal.with_state(|state| {
            let step = state.step(&built.spec.id);
            (step.phase, step.attempt, state.switched())
        });
        // After a crash the same attempt goes on, with the same idempotency key.
        let attempt = if phase == Phase::Running { attempt.max(1) } else { attempt + 1 };
        if built.stage == StageName::Cutover && built.step.holds_writes() && !switched && self.write_gap.is_none() {
            self.write_gap = Some(Instant::now());
            let limit_seconds = self.request.max_write_gap.as_secs_f64();
            self.journal.append(Event::WriteGapStarted { step: built.spec.id.clone(), limit_seconds }).await?;
            self.clients_are(Clients::Held);
            crash::point("write_gap.started");
        }
        if built.stage == StageName::Cutover && (built.step.holds_writes() || switched) {
            self.closes_connections(true);
        }
        if point_of_no_return {
            self.ask_hooks(Moment::BeforeSwitch, serde_json::json!({ "step": built.spec.id })).await?;
            self.check_budgets()?;
            // As late as can be: until here a driver that dies leaves nobody without writes for longer than a bounded time.
            self.keep_held().await?;
            // The last moment at which the budgets can still say no.
            self.check_budgets()?;
        }
        let mut context = self.context(index, attempt);
        let (progress, progress_seen) = execute::progress_channel();
        context.progress = progress;
        let cancel = context.cancel.clone();
        let (ready, ready_seen) = watch::channel(false);
        let execution = Execution {
            step: built.step,
            context,
            journal: self.journal.clone(),
            observer: self.observer.clone(),
            retries: self.retries(index),
            limits: self.request.limits.clone(),
            point_of_no_return,
            ready,
            nudge: self.nudge.clone(),
        };
        let task = self.tasks.spawn(execution.run()).id();
        self.task_of.insert(task, index);
        self.running.insert(index, Running { cancel, ready: ready_seen, progress: progress_seen, started: Instant::now() });
        Ok(())
    }

    /// True while nothing but a lost lease may interrupt: the point of no return is being taken, or `cutover` has to be brought to its end
    /// behind it.
    pub(super) fn is_switching(&self) -> bool {
        self.graph.point_of_no_return.is_some_and(|point| self.running.contains_key(&point))
            || (self.journal.with_state(RunState::switched)
                && self.cutover_is_open()
                && !self.only_waits_for_a_person()
                && !self.may_call_rollback_off())
    }

    /// True while a gate behind the switch waits for a person and nothing else is under way. Whoever is asked must be able to say no:
    /// nothing is undone by that, and what is left of the cutover is done by the next driver, or taken back by a rollback.
    fn only_waits_for_a_person(&self) -> bool {
        !self.waiting.is_empty() && self.running.keys().all(|index| self.is_service(*index))
    }

    /// A driver that is not asked for the cutover is not in it: one that waits at a gate there has begun nothing.
    pub(super) fn in_cutover(&self) -> bool {
        self.request.until >= StageName::Cutover
            && self.cutover_is_open()
            && !self.only_waits_for_a_person()
            && !self.may_call_rollback_off()
    }

    fn cutover_is_open(&self) -> bool {
        self.journal
            .with_state(|state| state.stages.get(&StageName::Cutover).is_some_and(|stage| stage.started.is_some() && stage.done.is_none()))
    }

    /// True while a rollback that was asked for has undone nothing yet. Clients are on the target and stay there if it ends, though the cutover
    /// may not have come to its end: a smoke test that failed behind the switch is what a rollback is for.
    pub(super) fn may_call_rollback_off(&self) -> bool {
        self.request.roll_back && !self.journal.with_state(RunState::rolling_back)
    }

    /// Waits until something has happened.
    pub(super) async fn wait(&mut self) -> Result<(), Stop> {
        let switching = self.is_switching();
        let may_hand_over = !switching && !self.in_cutover() && self.request.kind == RunKind::Production;
        enum Woken {
            Lost,
            Ended(Result<(Id, Result<Output, Halt>), JoinError>),
            Cancelled,
            Asked(Asked),
            Told(control::Asked),
            Looked(Looked),
            HookTold(Told),
            Nudged,
            Ticked,
        }
        let (asked, withdrawn, told) = (&mut self.heartbeat.asked, self.withdrawn, &mut self.told);
        let (looks, telling) = (&mut self.watching.looks, &mut self.telling);
        let woken = tokio::select! {
            biased;
            () = self.heartbeat.lost.cancelled() => Woken::Lost,
            Some(ended) = self.tasks.join_next_with_id() => Woken::Ended(ended),
            () = self.cancel.cancelled(), if !switching => Woken::Cancelled,
            request = async {
                let standing = |request: &Option<Asked>| request.as_ref().is_some_and(|request| Some(request.id) != withdrawn);
                asked.wait_for(standing).await.ok().and_then(|request| request.clone())
            }, if may_hand_over => match request {
                Some(request) => Woken::Asked(request),
                // The heartbeat has ended, which it does only with the lease.
                None => Woken::Lost,
            },
            Some(told) = told.recv() => Woken::Told(told),
            Some(looked) = looks.recv() => Woken::Looked(looked),
            Some(Ok(hook)) = telling.join_next() => Woken::HookTold(hook),
            () = self.nudge.notified() => Woken::Nudged,
            _ = self.tick.tick() => Woken::Ticked,
        };
        match woken {
            Woken::Lost => {
                let lost = LeaseError::Lost { run: self.journal.run().to_string(), epoch: self.journal.epoch().0 };
                Err(Stop::Verdict(Verdict::LeaseLost { message: lost.to_string() }))
            }
            Woken::Ended(ended) => self.ended(ended).await,
            Woken::Cancelled => Err(Stop::Verdict(Verdict::Interrupted)),
            Woken::Asked(request) if handover::accept_request(self.journal.journal(), request.id).await? => {
                Err(Stop::Verdict(Verdict::HandedOver { to: request.by }))
            }
            Woken::Asked(request) => {
                self.withdrawn = Some(request.id);
                Ok(())
            }
            Woken::Told(told) => self.obey(told).await,
            Woken::Looked(looked) => self.looked(looked).await,
            Woken::HookTold(told) => Ok(self.hook_told(told).await?),
            Woken::Nudged => Ok(()),
            Woken::Ticked => self.look().await,
        }
    }

    /// The regular look at progress, clocks and budgets.
    pub(super) async fn look(&mut self) -> Result<(), Stop> {
        let mut samples = Vec::new();
        let sample = self.sampled.elapsed() >= SAMPLE;
        for (index, running) in &mut self.running {
            let id = self.graph.id(*index);
            if running.progress.has_changed().unwrap_or(false) {
                let progress = running.progress.borrow_and_update().clone();
                self.observer.step_progress(id, &progress);
                self.live.lock().unwrap_or_else(PoisonError::into_inner).steps.insert(id.to_owned(), progress);
            }
            if sample && !running.progress.borrow().unit.is_empty() {
                samples.extend(Sample::of_progress(id, &running.progress.borrow()));
            }
        }
        self.look_at_load(sample.then_some(&mut samples))?;
        if sample {
            self.sampled = Instant::now();
            self.journal.samples(samples).await?;
        }
        let held = || self.cutover_held().then(|| "the cutover waits for `dbmove ctl … go`".to_owned());
        let settles = || self.journal.with_state(|state| state.guards.holds_settle());
        self.observer.held_back(self.paused().or_else(held).or_else(|| self.kept_back.clone()).or_else(settles).as_deref());
        if let Some(started) = self.write_gap {
            self.observer.write_gap(started.elapsed(), self.request.max_write_gap);
        }
        let committed = self.is_switching() || self.journal.with_state(RunState::switched);
        if !committed && self.more_to_do_besides_following() {
            self.check_budgets()?;
        }
        if self.budget.is_some() && self.forecast_at.elapsed() >= REFORECAST {
            self.forecast_at = Instant::now();
            let forecast = self.forecast();
            self.observer.forecast(&forecast);
            if !committed && self.more_to_do_besides_following() {
                let missed = self.budget.as_mut().and_then(|budget| budget.consider(&forecast));
                if let Some(message) = missed {
                    return Err(Stop::Verdict(Verdict::DeadlineMissed { message }));
                }
            }
        }
        Ok(())
    }

    /// Takes note of a task that ended; its index and result.
    pub(super) fn take_ended(&mut self, ended: Result<(Id, Result<Output, Halt>), JoinError>) -> Option<(usize, Result<Output, Halt>)> {
        let (task, result) = match ended {
            Ok((task, result)) => (task, result),
            Err(error) => {
                let what = if error.is_panic() { "broke an assertion of its own (a defect in dbmove)" } else { "was aborted" };
                (error.id(), Err(Halt::Step(StepError::definite(format!("the step {what}; it can be run again")))))
            }
        };
        let index = self.task_of.remove(&task)?;
        self.running.remove(&index);
        self.live.lock().unwrap_or_else(PoisonError::into_inner).steps.remove(self.graph.id(index));
        Some((index, result))
    }

    pub(super) async fn ended(&mut self, ended: Result<(Id, Result<Output, Halt>), JoinError>) -> Result<(), Stop> {
        let Some((index, result)) = self.take_ended(ended) else { return Ok(()) };
        match result {
            Ok(_) => {
                self.done_here.insert(index);
                self.tell_guards_outputs();
                if self.graph.point_of_no_return == Some(index) {
                    self.passed(index).await?;
                }
                Ok(())
            }
            // A run that ended here would leave the way back unattended for as long as the person thinks.
            Err(Halt::Step(error)) if error.failure == Failure::Waiting && self.way_back_runs() => {
                let id = self.graph.id(index);
                tracing::warn!("`{id}` waits for approval (`dbmove approve PLAYBOOK {id}`): {}", error.message);
                self.waiting.insert(index);
                Ok(())
            }
            Err(Halt::Step(error)) => Err(Stop::Verdict(Verdict::of_failure(self.graph.id(index), &error))),
            Err(Halt::Unclear(error)) => Err(Stop::Unclear(Verdict::of_failure(self.graph.id(index), &error))),
            Err(Halt::Journal(error)) => Err(error.into()),
        }
    }

    /// The point of no return is passed.
    pub(super) async fn passed(&mut self, index: usize) -> Result<(), Stop> {
        self.journal.append(Event::PointOfNoReturn { step: self.graph.id(index).to_owned() }).await?;
        self.clients_are(Clients::OnTarget);
        self.end_write_gap(true).await?;
        crash::point("point_of_no_return.passed");
        self.tell_hooks(Moment::AfterSwitch, serde_json::json!({ "step": self.graph.id(index) })).await?;
        Ok(())
    }

    /// Stops the clock, if it runs: of this driver, or of one that crashed.
    pub(super) async fn end_write_gap(&mut self, switched: bool) -> Result<(), JournalError> {
        let here = self.write_gap.take().map(|started| started.elapsed().as_secs_f64());
        let recorded = self.journal.with_state(|state| {
            let gap = state.open_write_gap()?;
            Some(Timestamp::now().duration_since(gap.started).as_secs_f64().max(0.0))
        });
        let Some(recorded) = recorded else { return Ok(()) };
        self.journal.append(Event::WriteGapEnded { seconds: here.unwrap_or(recorded), switched }).await?;
        Ok(())
    }
}
