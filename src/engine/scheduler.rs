//! The driver: takes a run from wherever its journal says it stands to where it was asked to go.
//!
//! One loop, [`Driver::wait`], is where time passes: it wakes for a step that ended, a service that became ready, Ctrl-C, a lost lease, a
//! handover, the write-gap clock and the budget, in that order of importance. All of a run's tasks live in one [`JoinSet`]; dropping the
//! driver aborts them. A stage is done when every task in it is done and every service ready *in this process*; so the same
//! code runs a stage for the first time, goes on inside it after a crash, and brings the services of a finished one back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::budget::{self, Budget, REFORECAST, Remaining};
use super::certificate::{self, Certificate, Measured, Today};
use super::context::{Progress, RunKind, StepContext};
use super::crash;
use super::drift::PlaybookFingerprint;
use super::execute::{self, Execution, Halt};
use super::graph::Graph;
use super::journal::{Action, AfterUndo, Event, Journal, JournalError, Phase, RunJournal, Sample, StepResult, UndoScope};
use super::lease::{Entered, Heartbeat, LeaseError};
use super::observer::Observer;
use super::outcome::{RunOutcome, Serving, Verdict};
use super::run::{DEFAULT_RETRIES, EngineError, Rehearsed, RunRequest, undo_reserve};
use super::step::{Estimate, Failure, Output, Probe, StepError, StepKind, TargetLease, Work};
use crate::playbook::model::StageName;

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often progress goes into the journal's time series.
const SAMPLE: Duration = Duration::from_secs(2);

/// Why the way forward ended.
#[derive(Debug)]
pub(super) enum Stop {
    Verdict(Verdict),
    /// The same, but nothing may be undone: a person has to look first.
    Unclear(Verdict),
    Journal(JournalError),
    Engine(EngineError),
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Lease(lost) => Stop::Verdict(Verdict::LeaseLost { message: lost.to_string() }),
            error => Stop::Journal(error),
        }
    }
}

/// A step's task, as the driver sees it.
pub(super) struct Running {
    pub cancel: CancellationToken,
    pub ready: watch::Receiver<bool>,
    pub progress: watch::Receiver<Progress>,
    pub started: Instant,
}

/// Drives one run.
pub(super) struct Driver {
    pub request: RunRequest,
    pub graph: Graph,
    fingerprint: PlaybookFingerprint,
    pub journal: RunJournal,
    pub observer: Arc<dyn Observer>,
    cancel: CancellationToken,
    heartbeat: Heartbeat,
    resumed: bool,
    pub tasks: JoinSet<Result<Output, Halt>>,
    task_of: HashMap<Id, usize>,
    pub running: BTreeMap<usize, Running>,
    /// Tasks done by this driver: a volatile step done by an earlier one runs again.
    done_here: BTreeSet<usize>,
    nudge: Arc<Notify>,
    rates: Arc<BTreeMap<String, Work>>,
    /// When writes began to be held.
    pub write_gap: Option<Instant>,
    budget: Option<Budget>,
    expected: Vec<Remaining>,
    tick: Interval,
    sampled: Instant,
    forecast_at: Instant,
    pub undone: Vec<String>,
    /// The point of no return was left in a state that a person has to look at: nothing may be undone.
    pub unclear: bool,
}

impl Driver {
    pub fn new(
        request: RunRequest,
        graph: Graph,
        fingerprint: PlaybookFingerprint,
        entered: Entered,
        journal: Journal,
        observer: Arc<dyn Observer>,
        cancel: CancellationToken,
    ) -> Driver {
        let journal = RunJournal::new(journal, entered.run, entered.epoch, entered.state, observer.clone());
        let heartbeat = Heartbeat::start(&journal);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let rates = match &request.rehearsed {
            Rehearsed::Certificate(Some(certificate)) => certificate.rates(),
            _ => journal.journal().reader().and_then(|reader| reader.rates(&request.playbook.playbook)).unwrap_or_default(),
        };
        Driver {
            request,
            graph,
            fingerprint,
            journal,
            observer,
            cancel,
            heartbeat,
            resumed: entered.resumed,
            tasks: JoinSet::new(),
            task_of: HashMap::new(),
            running: BTreeMap::new(),
            done_here: BTreeSet::new(),
            nudge: Arc::new(Notify::new()),
            rates: Arc::new(rates),
            write_gap: None,
            budget: None,
            expected: Vec::new(),
            tick,
            sampled: Instant::now(),
            forecast_at: Instant::now(),
            undone: Vec::new(),
            unclear: false,
        }
    }

    /// Drives the run to its end and lets go of it.
    pub async fn drive(mut self, leases: &[Arc<dyn TargetLease>]) -> Result<RunOutcome, EngineError> {
        let ended = match self.forward(leases).await {
            Ok(verdict) => Ok(verdict),
            Err(stop) => self.fall_back(stop).await,
        };
        self.stop_all().await;
        let result = match ended {
            Ok(Verdict::LeaseLost { message }) => Ok(self.outcome(Verdict::LeaseLost { message })),
            Ok(verdict) => self.finish(verdict).await,
            Err(error) => Err(error),
        };
        let Driver { heartbeat, journal, .. } = self;
        if heartbeat.release(&journal).await.is_err() {
            // Lost or unwritable: either way the next driver finds this process gone, or its heartbeat old.
        }
        result
    }

    async fn finish(&mut self, verdict: Verdict) -> Result<RunOutcome, EngineError> {
        let outcome = self.outcome(verdict.clone());
        let all_done = self.journal.with_state(|state| self.graph.steps.iter().all(|built| state.stage_done(built.stage)));
        let concluded = match self.request.kind {
            RunKind::Rehearsal => !verdict.resumable() && outcome.not_undone.is_empty(),
            RunKind::Production => matches!(verdict, Verdict::Done { .. }) && all_done,
        };
        crash::point("run.before_finished");
        self.journal.append(Event::RunFinished { verdict, serving: outcome.serving, concluded }).await.map_err(engine_error)?;
        crash::point("run.finished");
        Ok(outcome)
    }

    fn outcome(&self, verdict: Verdict) -> RunOutcome {
        self.journal.with_state(|state| RunOutcome {
            run: state.run.clone(),
            serving: if matches!(verdict, Verdict::LeaseLost { .. }) { Serving::Unclear } else { state.serving() },
            verdict,
            undone: self.undone.clone(),
            not_undone: state.not_undone.clone().into_iter().collect(),
            write_gap_seconds: state.write_gap.as_ref().and_then(|gap| gap.seconds),
            certificate: state.certificate.clone(),
        })
    }

    /// The way forward: everything up to the verdict `Done`, or why not.
    async fn forward(&mut self, leases: &[Arc<dyn TargetLease>]) -> Result<Verdict, Stop> {
        for lease in leases {
            let (run, epoch) = (self.journal.run().clone(), self.journal.epoch());
            lease.claim(&run, epoch).await.map_err(|error| match error.failure {
                Failure::LeaseLost => Stop::Verdict(Verdict::LeaseLost { message: error.message }),
                _ => Stop::Engine(EngineError::Step { step: lease.store().to_owned(), error }),
            })?;
        }
        crash::point("lease.claimed");
        self.check_drift().await?;
        if self.resumed {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            self.journal.append(Event::RunResumed { dbmove_version: version, until: self.request.until }).await?;
        }
        if let Some(verdict) = self.settle_undo().await? {
            return Ok(verdict);
        }
        self.check_certificate(false).await?;
        self.set_deadline().await?;
        self.settle_intents().await?;
        for stage in StageName::ALL {
            if stage > self.request.until || self.graph.stage(stage).is_empty() {
                continue;
            }
            let done = self.journal.with_state(|state| state.stage_done(stage));
            if !done || self.more_to_do() {
                self.run_stage(stage, done).await?;
            }
        }
        if self.request.keep_services {
            while !self.running.is_empty() {
                self.wait().await?;
            }
        }
        if self.request.kind == RunKind::Rehearsal && self.request.rollback_after {
            self.undo("the rehearsal is over", UndoScope::Everything, AfterUndo::Certify, false).await?;
            return self.certify().await;
        }
        Ok(Verdict::Done { until: self.request.until })
    }

    fn more_to_do(&self) -> bool {
        self.request.keep_services
            || self.journal.with_state(|state| {
                self.graph.steps.iter().any(|built| built.stage <= self.request.until && !state.stage_done(built.stage))
            })
    }

    async fn check_drift(&mut self) -> Result<(), Stop> {
        let state = self.journal.state();
        let changes = state
            .fingerprint
            .check(&self.fingerprint, &state.run, &state.begun(), self.request.accept_drift)
            .map_err(|error| Stop::Engine(error.into()))?;
        if !changes.is_empty() || state.plan != self.graph.plan() {
            let (fingerprint, steps) = (self.fingerprint.clone(), self.graph.plan());
            self.journal.append(Event::PlaybookAccepted { fingerprint, changes, steps }).await?;
        }
        Ok(())
    }

    /// True while the cutover of a production run still lies ahead and is asked for.
    fn cutover_ahead(&self) -> bool {
        self.request.until >= StageName::Cutover
            && !self.graph.stage(StageName::Cutover).is_empty()
            && self.journal.with_state(|state| !state.switched() && !state.stage_done(StageName::Cutover))
    }

    fn certificate(&self) -> Option<&Certificate> {
        match &self.request.rehearsed {
            Rehearsed::Certificate(certificate) => certificate.as_deref(),
            Rehearsed::Without { .. } => None,
        }
    }

    /// Whether the rehearsal still speaks for today; asked at the start and when `cutover` begins, by then with all facts.
    async fn check_certificate(&mut self, entering: bool) -> Result<(), Stop> {
        if self.request.kind == RunKind::Rehearsal || !self.cutover_ahead() {
            return Ok(());
        }
        let refuse = |reasons: Vec<String>| {
            let hint =
                Some("run `dbmove rehearse` with this playbook, or give `--without-rehearsal \"reason\"`, which is recorded".to_owned());
            Err(Stop::Verdict(Verdict::Refused { step: None, reasons, hint }))
        };
        match self.request.rehearsed.clone() {
            Rehearsed::Without { reason } => {
                if self.journal.with_state(|state| state.without_rehearsal.as_ref() != Some(&reason)) {
                    self.journal.append(Event::WithoutRehearsal { reason }).await?;
                }
                Ok(())
            }
            Rehearsed::Certificate(None) => {
                refuse(vec![format!("there is no certificate: playbook `{}` was never rehearsed", self.request.playbook.playbook)])
            }
            Rehearsed::Certificate(Some(certificate)) => {
                let facts = certificate::facts_of(&self.journal.with_state(super::journal::RunState::outputs));
                let today = Today { playbook_hash: self.fingerprint.whole.clone(), facts };
                let reasons = certificate::check(&certificate, &today, Timestamp::now());
                if !reasons.is_empty() {
                    return refuse(reasons.iter().map(ToString::to_string).collect());
                }
                if entering {
                    self.journal.append(Event::CertificateAccepted { certificate: certificate.hash }).await?;
                }
                Ok(())
            }
        }
    }

    /// Takes the deadline on, forecasts, and refuses if it can't be kept. Nothing is touched yet.
    async fn set_deadline(&mut self) -> Result<(), Stop> {
        let recorded = self.journal.with_state(|state| state.deadline.clone());
        let until = match (&self.request.deadline, recorded) {
            // The same words on a resumed run are the same promise, counted from when it was first given.
            (Some(asked), Some((text, until))) if asked.text == text => Some(until),
            (Some(asked), _) => {
                self.journal.append(Event::DeadlineSet { text: asked.text.clone(), until: asked.until }).await?;
                Some(asked.until)
            }
            (None, recorded) => recorded.map(|(_, until)| until),
        };
        self.budget = until.map(|until| Budget::start(until, Timestamp::now()));
        for index in 0..self.graph.steps.len() {
            let built = &self.graph.steps[index];
            let asked_for = built.stage <= self.request.until;
            let rehearsed =
                self.certificate().and_then(|certificate| certificate.measured.get(&built.spec.id)).map(|measured| measured.seconds);
            let estimate = if asked_for && until.is_some() && !self.is_satisfied_on_disk(index) {
                let context = self.context(index, 1);
                built.step.estimate(&context).await.unwrap_or_else(|error| Estimate::Unknown(error.message))
            } else {
                Estimate::Unknown("no deadline".to_owned())
            };
            self.expected.push(Remaining { asked_for, ..Remaining::expected(&estimate, rehearsed) });
        }
        if self.budget.is_none() {
            return Ok(());
        }
        let forecast = self.forecast();
        self.observer.forecast(&forecast);
        self.journal.append(Event::Forecast { forecast: forecast.clone() }).await?;
        let switched = self.journal.with_state(super::journal::RunState::switched);
        match forecast.refusal() {
            Some(reason) if !switched && self.more_to_do_besides_following() => Err(Stop::Verdict(Verdict::Refused {
                step: None,
                reasons: vec![reason],
                hint: Some("give a later deadline, or more hours; nothing was touched".to_owned()),
            })),
            _ => Ok(()),
        }
    }

    fn undo_reserve(&self) -> Duration {
        if self.cutover_ahead() { undo_reserve(self.certificate(), self.request.margin) } else { Duration::ZERO }
    }

    fn forecast(&self) -> budget::Forecast {
        let remaining: Vec<Remaining> = (0..self.graph.steps.len())
            .map(|index| {
                let expected = self.expected.get(index).cloned().unwrap_or_else(Remaining::done);
                if self.is_satisfied_on_disk(index) && self.running.get(&index).is_none_or(|running| *running.ready.borrow()) {
                    return Remaining { asked_for: expected.asked_for, ..Remaining::done() };
                }
                match self.running.get(&index) {
                    Some(running) => expected.running(&running.progress.borrow(), running.started.elapsed()),
                    None => expected,
                }
            })
            .collect();
        let left = self.budget.as_ref().map(Budget::left);
        budget::forecast(&self.graph, &remaining, self.request.margin, self.undo_reserve(), left)
    }

    /// Done as far as the journal tells: a task's end state, a service that has been ready.
    fn is_satisfied_on_disk(&self, index: usize) -> bool {
        self.journal.with_state(|state| {
            let step = state.step(self.graph.id(index));
            step.phase == Phase::Done || (self.is_service(index) && step.ready.is_some())
        })
    }

    pub fn is_service(&self, index: usize) -> bool {
        self.graph.steps[index].step.kind() == StepKind::Service
    }

    /// Satisfied for those that need it: done, and where the effect lives in the process, done by this one.
    fn is_satisfied(&self, index: usize) -> bool {
        let done = self.journal.with_state(|state| state.step(self.graph.id(index)).phase == Phase::Done);
        if self.is_service(index) {
            return done || self.running.get(&index).is_some_and(|running| *running.ready.borrow());
        }
        let lives_on = !self.graph.steps[index].step.volatile() || self.graph.point_of_no_return == Some(index);
        done && (lives_on || self.done_here.contains(&index))
    }

    pub fn context(&self, index: usize, attempt: u32) -> StepContext {
        let outputs = self.journal.with_state(|state| state.outputs().into_iter().map(|(id, output)| (id, output.facts)).collect());
        StepContext {
            run: self.journal.run().clone(),
            step: self.graph.id(index).into(),
            attempt,
            kind: self.request.kind,
            epoch: self.journal.epoch(),
            cancel: self.heartbeat.lost.child_token(),
            progress: execute::progress_channel().0,
            ready: watch::channel(false).0,
            checkpoints: Arc::new(self.journal.clone()),
            rates: self.rates.clone(),
            outputs: Arc::new(outputs),
        }
    }

    pub fn retries(&self, index: usize) -> u32 {
        self.graph.steps[index].spec.retries.unwrap_or(DEFAULT_RETRIES)
    }

    /// Runs a stage, or (`again`) brings back what of a finished one lives in the process.
    async fn run_stage(&mut self, stage: StageName, again: bool) -> Result<(), Stop> {
        let members = self.graph.stage(stage);
        if !again {
            if stage == StageName::Cutover {
                self.check_certificate(true).await?;
            }
            if self.journal.with_state(|state| state.stages.get(&stage).is_none_or(|stage| stage.started.is_none())) {
                self.journal.append(Event::StageStarted { stage }).await?;
            }
            self.observer.stage_started(stage);
            crash::point("stage.started");
        }
        loop {
            for &index in &members {
                let waits = self.graph.needs[index].iter().any(|need| !self.is_satisfied(*need));
                if !waits && !self.is_satisfied(index) && !self.running.contains_key(&index) {
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
            crash::point("stage.done");
        }
        Ok(())
    }

    async fn start(&mut self, index: usize) -> Result<(), Stop> {
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
            crash::point("write_gap.started");
        }
        if point_of_no_return {
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
    fn is_switching(&self) -> bool {
        self.graph.point_of_no_return.is_some_and(|point| self.running.contains_key(&point))
            || self.journal.with_state(|state| {
                state.switched()
                    && state.stages.get(&StageName::Cutover).is_some_and(|stage| stage.started.is_some() && stage.done.is_none())
            })
    }

    fn in_cutover(&self) -> bool {
        self.journal
            .with_state(|state| state.stages.get(&StageName::Cutover).is_some_and(|stage| stage.started.is_some() && stage.done.is_none()))
    }

    /// Waits until something has happened.
    async fn wait(&mut self) -> Result<(), Stop> {
        let switching = self.is_switching();
        let may_hand_over = !switching && !self.in_cutover() && self.request.kind == RunKind::Production;
        enum Woken {
            Lost,
            Ended(Result<(Id, Result<Output, Halt>), JoinError>),
            Cancelled,
            Asked(String),
            Nudged,
            Ticked,
        }
        let asked_by = &mut self.heartbeat.asked_by;
        let woken = tokio::select! {
            biased;
            () = self.heartbeat.lost.cancelled() => Woken::Lost,
            Some(ended) = self.tasks.join_next_with_id() => Woken::Ended(ended),
            () = self.cancel.cancelled(), if !switching => Woken::Cancelled,
            by = async { asked_by.wait_for(Option::is_some).await.ok().and_then(|by| by.clone()) }, if may_hand_over => match by {
                Some(by) => Woken::Asked(by),
                // The heartbeat has ended, which it does only with the lease.
                None => Woken::Lost,
            },
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
            Woken::Asked(to) => Err(Stop::Verdict(Verdict::HandedOver { to })),
            Woken::Nudged => Ok(()),
            Woken::Ticked => self.look().await,
        }
    }

    /// Why to give up for lack of time, if so.
    fn check_budgets(&mut self) -> Result<(), Stop> {
        if let Some(held) = self.write_gap.map(|started| started.elapsed())
            && held > self.request.max_write_gap
        {
            let limit_seconds = self.request.max_write_gap.as_secs_f64();
            return Err(Stop::Verdict(Verdict::WriteGapExceeded { limit_seconds, held_seconds: held.as_secs_f64() }));
        }
        let reserve = self.undo_reserve();
        match self.budget.as_ref().and_then(|budget| budget.hard_line(reserve)) {
            Some(message) => Err(Stop::Verdict(Verdict::DeadlineMissed { message })),
            None => Ok(()),
        }
    }

    /// The regular look at progress, clocks and budgets.
    async fn look(&mut self) -> Result<(), Stop> {
        let mut samples = Vec::new();
        let sample = self.sampled.elapsed() >= SAMPLE;
        for (index, running) in &mut self.running {
            let id = self.graph.id(*index);
            if running.progress.has_changed().unwrap_or(false) {
                let progress = running.progress.borrow_and_update().clone();
                self.observer.step_progress(id, &progress);
            }
            if sample && !running.progress.borrow().unit.is_empty() {
                samples.extend(Sample::of_progress(id, &running.progress.borrow()));
            }
        }
        if sample {
            self.sampled = Instant::now();
            self.journal.samples(samples).await?;
        }
        if let Some(started) = self.write_gap {
            self.observer.write_gap(started.elapsed(), self.request.max_write_gap);
        }
        let committed = self.is_switching() || self.journal.with_state(super::journal::RunState::switched);
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

    /// A deadline bounds the work, not the following that goes on after it.
    fn more_to_do_besides_following(&self) -> bool {
        self.journal
            .with_state(|state| self.graph.steps.iter().any(|built| built.stage <= self.request.until && !state.stage_done(built.stage)))
    }

    /// Takes note of a task that ended; its index and result.
    pub fn take_ended(&mut self, ended: Result<(Id, Result<Output, Halt>), JoinError>) -> Option<(usize, Result<Output, Halt>)> {
        let (task, result) = match ended {
            Ok((task, result)) => (task, result),
            Err(error) => {
                let what = if error.is_panic() { "broke an assertion of its own (a defect in dbmove)" } else { "was aborted" };
                (error.id(), Err(Halt::Step(StepError::definite(format!("the step {what}; it can be run again")))))
            }
        };
        let index = self.task_of.remove(&task)?;
        self.running.remove(&index);
        Some((index, result))
    }

    async fn ended(&mut self, ended: Result<(Id, Result<Output, Halt>), JoinError>) -> Result<(), Stop> {
        let Some((index, result)) = self.take_ended(ended) else { return Ok(()) };
        match result {
            Ok(_) => {
                self.done_here.insert(index);
                if self.graph.point_of_no_return == Some(index) {
                    self.passed(index).await?;
                }
                Ok(())
            }
            Err(Halt::Step(error)) => Err(Stop::Verdict(Verdict::of_failure(self.graph.id(index), &error))),
            Err(Halt::Unclear(error)) => Err(Stop::Unclear(Verdict::of_failure(self.graph.id(index), &error))),
            Err(Halt::Journal(error)) => Err(error.into()),
        }
    }

    /// The point of no return is passed.
    pub async fn passed(&mut self, index: usize) -> Result<(), Stop> {
        self.journal.append(Event::PointOfNoReturn { step: self.graph.id(index).to_owned() }).await?;
        self.end_write_gap(true).await?;
        crash::point("point_of_no_return.passed");
        Ok(())
    }

    /// Stops the clock, if it runs: of this driver, or of one that crashed.
    pub async fn end_write_gap(&mut self, switched: bool) -> Result<(), JournalError> {
        let here = self.write_gap.take().map(|started| started.elapsed().as_secs_f64());
        let recorded = self.journal.with_state(|state| {
            let gap = state.write_gap.as_ref().filter(|gap| gap.seconds.is_none())?;
            Some(Timestamp::now().duration_since(gap.started).as_secs_f64().max(0.0))
        });
        let Some(recorded) = recorded else { return Ok(()) };
        self.journal.append(Event::WriteGapEnded { seconds: here.unwrap_or(recorded), switched }).await?;
        Ok(())
    }

    /// Settles intents that were left without an outcome, by looking at the world.
    async fn settle_intents(&mut self) -> Result<(), Stop> {
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
    pub async fn look_at(&mut self, index: usize, attempt: u32) -> Result<Probe, Stop> {
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

    /// Writes the outcome that a crash kept from being written.
    pub async fn settle_done(&mut self, index: usize, attempt: u32) -> Result<(), Stop> {
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

    /// What a rehearsal that was undone leaves behind.
    pub async fn certify(&mut self) -> Result<Verdict, Stop> {
        let state = self.journal.state();
        if !state.not_undone.is_empty() {
            let steps = state.not_undone.keys().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", ");
            let message = format!("the rehearsal ran through, but {steps} could not be undone, so it does not count");
            return Ok(Verdict::Failed {
                step: None,
                message,
                hint: Some("see why, clean the rehearsal copies up, and rehearse again".to_owned()),
            });
        }
        if state.certificate.is_none() {
            let issued = Timestamp::now();
            let head = self.journal.journal().reader().and_then(|reader| reader.head())?;
            let outputs = state.outputs();
            let measured = state.steps.iter().filter_map(|(id, step)| {
                Some((id.clone(), Measured { seconds: step.seconds?, work: outputs.get(id).and_then(|output| output.work.clone()) }))
            });
            let in_cutover = |id: &str| self.graph.index(id).is_some_and(|index| self.graph.steps[index].stage == StageName::Cutover);
            let certificate = Certificate {
                run: state.run.clone(),
                playbook: state.playbook.clone(),
                playbook_hash: self.fingerprint.whole.clone(),
                facts: certificate::facts_of(&outputs),
                measured: measured.collect(),
                write_gap_seconds: state.write_gap.as_ref().and_then(|gap| gap.seconds),
                undo_seconds: state.steps.iter().filter(|(id, _)| in_cutover(id)).filter_map(|(_, step)| step.undo_seconds).sum(),
                issued,
                expires: Certificate::expiry(issued, self.request.certificate_lifetime),
                journal_head: head.hash,
                hash: String::new(),
            };
            let certificate = certificate
                .seal()
                .map_err(|error| Stop::Engine(EngineError::Playbook(format!("the certificate can't be written: {error}"))))?;
            self.journal.append(Event::CertificateIssued { certificate: Box::new(certificate) }).await?;
            crash::point("certificate.issued");
        }
        Ok(Verdict::Done { until: self.request.until })
    }
}

pub(super) fn engine_error(error: JournalError) -> EngineError {
    match error {
        JournalError::Lease(lost) => EngineError::Lease(lost),
        error => EngineError::Journal(error),
    }
}
