//! The driver: takes a run from wherever its journal says it stands to where it was asked to go.
//!
//! [`Driver::forward`] is the story of a run in one page. Its parts: [`gates`](super::gates) say what may be started,
//! [`resume`](super::resume) settles what a crash left open, [`scheduler`](super::scheduler) runs a stage, [`undo`](super::undo) goes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::beforehand;
use super::budget::{Budget, Remaining};
use super::context::{Checkpoints, Outputs, Progress, RunKind, StepContext};
use super::control::socket::Socket;
use super::control::{Asked, Live};
use super::crash;
use super::drift::PlaybookFingerprint;
use super::execute::{self, Halt};
use super::graph::Graph;
use super::guards::{Effect, Watching};
use super::handover::RequestId;
use super::journal::{AfterUndo, Event, Journal, JournalError, Phase, RunJournal, RunState, UndoScope};
use super::lease::{Entered, Heartbeat};
use super::load::Beside;
use super::moments::Told;
use super::observer::Observer;
use super::outcome::{RunOutcome, Serving, Verdict};
use super::run::{DEFAULT_RETRIES, EngineError, Rehearsed, RunRequest};
use super::steering::Steer;
use super::step::{Failure, Output, StepKind, TargetLease, Work};
use super::way_back::rolled_back_already;
use crate::playbook::model::{Moment, StageName};

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(250);
/// Acts that wait for the driver at most.
const ASKED: usize = 8;

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
    pub fingerprint: PlaybookFingerprint,
    pub journal: RunJournal,
    pub observer: Arc<dyn Observer>,
    pub cancel: CancellationToken,
    pub heartbeat: Heartbeat,
    /// The last request that was taken back before it could be accepted: it may still be seen until the next heartbeat.
    pub withdrawn: Option<RequestId>,
    pub resumed: bool,
    pub tasks: JoinSet<Result<Output, Halt>>,
    pub task_of: HashMap<Id, usize>,
    pub running: BTreeMap<usize, Running>,
    /// Tasks done by this driver: a volatile step done by an earlier one runs again.
    pub done_here: BTreeSet<usize>,
    /// Steps found done that this driver has finished.
    pub finished: BTreeSet<usize>,
    pub nudge: Arc<Notify>,
    /// Gates behind the switch that wait for a person while the way back is kept open.
    pub waiting: BTreeSet<usize>,
    /// When it was last looked whether they wait still.
    pub asked: Instant,
    pub rates: Arc<BTreeMap<String, Work>>,
    /// When writes began to be held.
    pub write_gap: Option<Instant>,
    pub budget: Option<Budget>,
    pub expected: Vec<Remaining>,
    pub tick: Interval,
    pub sampled: Instant,
    pub forecast_at: Instant,
    pub undone: Vec<String>,
    /// All that the run made was undone on request: there is nothing to go on with.
    pub given_up: bool,
    /// The point of no return was left in a state that a person has to look at: nothing may be undone.
    pub unclear: bool,
    /// What writes in clients' place, in a rehearsal that was asked for it.
    pub beside: Option<Beside>,
    /// What steps hear of pauses and limits.
    pub steer: Steer,
    /// What people say over the socket.
    pub told: mpsc::Receiver<Asked>,
    /// Where they are told how it stands.
    pub live: Arc<Mutex<Live>>,
    ask: mpsc::Sender<Asked>,
    /// Who is looked at meanwhile.
    pub watching: Watching,
    /// Hooks that are being told something beside the run.
    pub telling: JoinSet<Told>,
    /// Of each hook that was told something: cancelled when the last call of it has ended.
    pub turns: HashMap<String, CancellationToken>,
    /// Why the cutover's first step waits, if so.
    pub kept_back: Option<String>,
    /// Since when the cutover has waited for clients that would be in its way, if it has.
    pub waited_for_clients: Option<tokio::time::Instant>,
    /// Who was still in its way when it had waited long enough.
    pub went_on_despite: Option<String>,
}

impl Driver {
    pub(super) fn new(
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
        let (ask, told) = mpsc::channel(ASKED);
        let max_write_gap = journal.with_state(|state| request.max_write_gap_in(&state.control));
        let request = RunRequest { max_write_gap, ..request };
        Driver {
            request,
            graph,
            fingerprint,
            journal,
            observer,
            cancel,
            heartbeat,
            withdrawn: None,
            resumed: entered.resumed,
            tasks: JoinSet::new(),
            task_of: HashMap::new(),
            running: BTreeMap::new(),
            done_here: BTreeSet::new(),
            finished: BTreeSet::new(),
            nudge: Arc::new(Notify::new()),
            waiting: BTreeSet::new(),
            asked: Instant::now(),
            rates: Arc::new(rates),
            write_gap: None,
            budget: None,
            expected: Vec::new(),
            tick,
            sampled: Instant::now(),
            forecast_at: Instant::now(),
            undone: Vec::new(),
            given_up: false,
            unclear: false,
            beside: None,
            steer: Steer::default(),
            told,
            live: Arc::default(),
            ask,
            watching: Watching::nothing(),
            telling: JoinSet::new(),
            turns: HashMap::new(),
            kept_back: None,
            waited_for_clients: None,
            went_on_despite: None,
        }
    }

    /// Drives the run to its end and lets go of it.
    pub(super) async fn drive(mut self, leases: &[Arc<dyn TargetLease>]) -> Result<RunOutcome, EngineError> {
        let socket = self.listen().await;
        let ended = match self.forward(leases).await {
            Ok(verdict) => Ok(verdict),
            Err(stop) => self.fall_back(stop).await,
        };
        self.stop_all().await;
        let ended = match ended {
            Ok(verdict) if !matches!(verdict, Verdict::LeaseLost { .. }) => {
                self.tell_end(&verdict).await.map_err(engine_error).map(|()| verdict)
            }
            ended => ended,
        };
        drop(socket);
        let result = match ended {
            Ok(Verdict::LeaseLost { message }) => Ok(self.outcome(Verdict::LeaseLost { message })),
            Ok(verdict) => self.finish(verdict, leases).await,
            Err(error) => Err(error),
        };
        let Driver { heartbeat, journal, .. } = self;
        if heartbeat.release(&journal).await.is_err() {
            // Lost or unwritable: either way the next driver finds this process gone, or its heartbeat old.
        }
        result
    }

    /// Lets people steer. A run goes on without, if that can't be.
    async fn listen(&self) -> Option<Socket> {
        self.steer();
        let path = self.journal.journal().path();
        let listening = path
            .parent()
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))
            .and_then(|directory| Socket::listen(directory, self.journal.clone(), self.live.clone(), self.ask.clone()));
        match listening {
            Ok(socket) => Some(socket),
            Err(error) => {
                let text = format!("`dbmove ctl` can't reach this driver: no socket can be made in the state directory: {error}");
                // A journal that can't be written ends the run at its next event.
                let _ = self.journal.append(Event::Note { step: None, text }).await;
                None
            }
        }
    }

    pub(super) async fn finish(&mut self, verdict: Verdict, leases: &[Arc<dyn TargetLease>]) -> Result<RunOutcome, EngineError> {
        let outcome = self.outcome(verdict.clone());
        let all_done = self.journal.with_state(|state| self.graph.steps.iter().all(|built| state.stage_done(built.stage)));
        let concluded = match self.request.kind {
            // What is left of it could not be undone any more.
            RunKind::Rehearsal => {
                let left = self.journal.with_state(|state| !state.begun_in(UndoScope::Everything).is_empty());
                !verdict.resumable() && outcome.not_undone.is_empty() && !left
            }
            RunKind::Production => {
                let undone = matches!(verdict, Verdict::StoppedByGuard { effect: Effect::Undone, .. }) && outcome.not_undone.is_empty();
                self.given_up || undone || (matches!(verdict, Verdict::Done { .. }) && all_done)
            }
        };
        if concluded {
            for lease in leases {
                if let Err(error) = lease.release(self.journal.run(), self.journal.epoch()).await {
                    let text = format!("the claim on the target of `{}` could not be taken away: {}", lease.store(), error.message);
                    self.journal.append(Event::Note { step: None, text }).await.map_err(engine_error)?;
                }
            }
        }
        crash::point("run.before_finished");
        self.journal.append(Event::RunFinished { verdict, serving: outcome.serving, concluded }).await.map_err(engine_error)?;
        crash::point("run.finished");
        Ok(outcome)
    }

    pub(super) fn outcome(&self, verdict: Verdict) -> RunOutcome {
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
    pub(super) async fn forward(&mut self, leases: &[Arc<dyn TargetLease>]) -> Result<Verdict, Stop> {
        self.claim(leases).await?;
        crash::point("lease.claimed");
        self.check_drift().await?;
        self.check_load_is_given()?;
        if self.resumed {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            self.journal
                .append(Event::RunResumed { give_up: self.request.give_up, dbmove_version: version, until: self.request.until })
                .await?;
        }
        if self.request.give_up {
            return self.give_up().await;
        }
        self.tell_write_gap().await?;
        if self.request.roll_back {
            return self.roll_back().await;
        }
        if let Some(verdict) = self.settle_undo().await? {
            return Ok(verdict);
        }
        if self.journal.with_state(RunState::rolled_back) {
            if self.request.kind == RunKind::Rehearsal {
                return self.end_rehearsal().await;
            }
            let (reason, hint) = rolled_back_already();
            return Ok(Verdict::Refused { step: None, reasons: vec![reason], hint: Some(hint) });
        }
        if let Some(refused) = self.journal.with_state(|state| beforehand::behind_the_switch(&self.request, state)) {
            return Ok(refused);
        }
        if self.way_back_is_open() {
            self.give_back().await?;
        }
        self.check_write_gap()?;
        self.check_certificate(false).await?;
        self.set_deadline().await?;
        self.settle_intents().await?;
        self.check_load().await?;
        self.watch().await?;
        self.tell_what_stands().await?;
        if self.more_to_do_besides_following() {
            self.ask_hooks(Moment::BeforeRun, serde_json::json!({ "resumed": self.resumed, "until": self.request.until })).await?;
        }
        for stage in StageName::ALL {
            if stage > self.request.until || self.graph.stage(stage).is_empty() {
                continue;
            }
            let done = self.request.again != Some(stage) && self.journal.with_state(|state| state.stage_done(stage));
            if !done || self.more_to_do() {
                self.load_before(stage).await?;
                self.run_stage(stage, done).await?;
            }
        }
        if self.way_back_runs() {
            let text = "the target serves, and what clients write there is written to the source too. This goes on until `dbmove rollback PLAYBOOK` or the end of \
                        the way back; stopped, `dbmove cutover PLAYBOOK` goes on with it";
            tracing::warn!("{text}");
            self.journal.append(Event::Note { step: None, text: text.to_owned() }).await?;
            while self.way_back_runs() {
                self.wait().await?;
            }
        }
        if self.request.keep_services {
            while !self.running.is_empty() {
                self.wait().await?;
            }
        }
        if self.request.kind == RunKind::Rehearsal && self.request.rollback_after {
            self.try_rollback().await?;
            self.judge_load().await?;
            return self.end_rehearsal().await;
        }
        Ok(Verdict::Done { until: self.request.until })
    }

    /// Claims every target. One that can't be reached must not keep the source without writes: where a dead driver held them, the cutover is
    /// settled before that ends this one. The journal's epoch alone fences its predecessor then.
    async fn claim(&mut self, leases: &[Arc<dyn TargetLease>]) -> Result<(), Stop> {
        let (outputs, checkpoints) = (self.outputs(), self.checkpoints());
        for lease in leases {
            let (run, epoch) = (self.journal.run().clone(), self.journal.epoch());
            let Err(mut error) = lease.claim(&run, epoch, &outputs, &checkpoints).await else { continue };
            if error.failure == Failure::LeaseLost {
                return Err(Stop::Verdict(Verdict::LeaseLost { message: error.message }));
            }
            let held = |state: &RunState| state.open_write_gap().is_some() && !state.switched() && !state.rolling_back();
            if self.journal.with_state(held) {
                let text = format!("the target of `{}` can't be claimed, so the cutover is only settled: {}", lease.store(), error.message);
                tracing::warn!("{text}");
                self.journal.append(Event::Note { step: None, text }).await?;
                self.check_drift().await?;
                self.settle_undo().await?;
                if self.journal.with_state(|state| !state.switched() && state.open_write_gap().is_none()) {
                    error.message = format!("{}; the source takes writes again as before the cutover", error.message);
                }
            }
            return Err(Stop::Engine(EngineError::Step { step: lease.store().to_owned(), error }));
        }
        Ok(())
    }

    async fn end_rehearsal(&mut self) -> Result<Verdict, Stop> {
        self.undo("the rehearsal is over", UndoScope::Everything, AfterUndo::Certify, false).await?;
        self.certify().await
    }

    pub(super) fn more_to_do(&self) -> bool {
        self.request.keep_services
            || self.request.again.is_some()
            || self.way_back_is_open()
            || self.journal.with_state(|state| {
                self.graph.steps.iter().enumerate().any(|(index, built)| {
                    let due = built.stage <= self.request.until;
                    // A service that failed since its stage was done has to show that it can go on.
                    let failed = || self.is_service(index) && matches!(state.step(self.graph.id(index)).phase, Phase::Failed { .. });
                    due && (!state.stage_done(built.stage) || failed())
                })
            })
    }

    /// True while clients are on the target and a service carries back what they write.
    pub(super) fn way_back_runs(&self) -> bool {
        self.request.kind == RunKind::Production
            && self.running.keys().any(|index| self.graph.steps[*index].step.keeps_way_back())
            && self.journal.with_state(RunState::switched)
    }

    /// True while clients are on the target and a service has to carry back what they write.
    fn way_back_is_open(&self) -> bool {
        let open = |state: &RunState| {
            let mut steps = self.graph.steps.iter().enumerate().filter(|(_, built)| built.step.keeps_way_back());
            state.switched() && steps.any(|(index, _)| state.step(self.graph.id(index)).phase != Phase::Done)
        };
        self.request.kind == RunKind::Production && self.request.until >= StageName::Cutover && self.journal.with_state(open)
    }

    /// A deadline bounds the work, not the following that goes on after it.
    pub(super) fn more_to_do_besides_following(&self) -> bool {
        self.journal
            .with_state(|state| self.graph.steps.iter().any(|built| built.stage <= self.request.until && !state.stage_done(built.stage)))
    }

    /// Done as far as the journal tells: a task's end state, a service that has been ready.
    pub(super) fn is_satisfied_on_disk(&self, index: usize) -> bool {
        self.journal.with_state(|state| {
            let step = state.step(self.graph.id(index));
            step.phase == Phase::Done || (self.is_service(index) && step.ready.is_some())
        })
    }

    pub(super) fn is_service(&self, index: usize) -> bool {
        self.graph.steps[index].step.kind() == StepKind::Service
    }

    /// What the run's steps have left behind so far.
    pub(super) fn outputs(&self) -> Arc<Outputs> {
        Arc::new(self.journal.with_state(|state| state.outputs().into_iter().map(|(id, output)| (id, output.facts)).collect()))
    }

    /// Where this run's steps and loads leave what the next driver needs.
    pub(super) fn checkpoints(&self) -> Arc<dyn Checkpoints> {
        Arc::new(self.journal.clone())
    }

    pub(super) fn context(&self, index: usize, attempt: u32) -> StepContext {
        StepContext {
            run: self.journal.run().clone(),
            step: self.graph.id(index).into(),
            attempt,
            kind: self.request.kind,
            epoch: self.journal.epoch(),
            max_write_gap: self.request.max_write_gap,
            point_of_no_return: self.graph.point_of_no_return.is_some(),
            switched: self.journal.with_state(RunState::switched),
            cancel: self.heartbeat.lost.child_token(),
            progress: execute::progress_channel().0,
            ready: watch::channel(false).0,
            steering: self.steer.steering(),
            checkpoints: self.checkpoints(),
            rates: self.rates.clone(),
            outputs: self.outputs(),
        }
    }

    pub(super) fn retries(&self, index: usize) -> u32 {
        self.graph.steps[index].spec.retries.unwrap_or(DEFAULT_RETRIES)
    }
}

pub(super) fn engine_error(error: JournalError) -> EngineError {
    match error {
        JournalError::Lease(lost) => EngineError::Lease(lost),
        error => EngineError::Journal(error),
    }
}
