//! The way in: what to drive, and [`drive`].
//!
//! # What is undone when
//!
//! * **`prepare`, `sync`, `verify` of a production run:** a failure leaves finished work where it is. A copied
//!   database is not thrown away because a connection broke for an hour; the same command goes on from there.
//! * **`cutover`, before the point of no return:** any end but success (a failure, a budget, Ctrl-C, a crash) undoes the stage's
//!   begun steps newest first, so that the source serves as before. Work of earlier stages stays.
//! * **Behind the point of no return:** nothing is undone but by a rollback ([`RunRequest::roll_back`], see `way_back`); else the run can only be driven forward. Ctrl-C is heard when `cutover` is done,
//!   because stopping inside it would leave clients waiting.
//! * **A rehearsal** undoes everything at its end, whether it passed or failed, the point of no return too. Interrupted, it stays
//!   resumable.
//! * **A person who aborts** ends a run as Ctrl-C does, but a rehearsal is undone then. See
//!   [`control`](super::control).
//! * **A guard that fires** pauses, stops or undoes, by its action and where the run is: see [`guards`](super::guards).
//! * **A run that is given up** ([`RunRequest::give_up`]) is undone as a whole, if the point of no return is not passed: a cutover that a
//!   crash cut short is settled first, and where it can't be told whether clients were switched nothing is undone. Then the run is over.
//!
//! # Resuming
//!
//! The journal is folded. An undo under way goes on first. The point of no return without a believable outcome is
//! settled by `probe`: done means forward, anything else means the stage is undone and starts again. Other intents without an
//! outcome are settled by `probe`; what is found done is not run again, but [finished](Step::finish) before the run goes on; services of finished stages are started again and awaited; steps whose effect died
//! with the process ([`Step::volatile`]) run again. An undo without an outcome is simply run again: `undo` is harmless twice, and
//! that makes it its own settlement.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::beforehand;
use super::budget::{self, DEFAULT_MARGIN, Forecast, Remaining};
use super::certificate::{Certificate, DEFAULT_LIFETIME};
use super::context::{NoCheckpoints, Outputs, RunKind, StepContext};
use super::control::Control;
use super::deadline::{Deadline, parse_duration};
use super::drift::{DriftError, PlaybookFingerprint};
use super::driver::Driver;
use super::graph::Graph;
use super::guards::BuiltGuard;
use super::journal::{Journal, JournalError, RunStarted, RunState};
use super::lease::{self, Entry, LeaseError};
use super::load::AskedLoad;
use super::moments::BuiltHook;
use super::observer::Observer;
use super::outcome::{RunOutcome, Verdict};
use super::steering::Steering;
use super::step::{Epoch, Estimate, Plan, Step, StepError, TargetLease, Work};
use crate::playbook::model::{Playbook, StageName, StepSpec};

pub use crate::playbook::model::DEFAULT_MAX_WRITE_GAP;

/// How often a transient failure is retried unless the step says otherwise.
pub const DEFAULT_RETRIES: u32 = 5;

/// What a cutover has to show before it may begin. Rehearsals show nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Rehearsed {
    /// The newest certificate of this playbook, if there is one; checked at the start and again, with every fact
    /// of the stages before, when `cutover` begins.
    Certificate(Option<Box<Certificate>>),
    /// The operator goes ahead without one; recorded in journal and report.
    Without {
        /// Why.
        reason: String,
    },
}

/// Times that rarely need changing; tests make them short.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The pause before the first retry; it doubles with each.
    pub first_retry: Duration,
    /// The longest pause between retries.
    pub longest_retry: Duration,
    /// How long a step has to stop when asked to, before it is dropped.
    pub stop_grace: Duration,
    /// How long one attempt of the point of no return may take.
    pub point_of_no_return: Duration,
    /// How long the undo of one step may keep writes waiting that the steps after it would let through.
    pub undo_while_held: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            first_retry: Duration::from_millis(500),
            longest_retry: Duration::from_secs(30),
            stop_grace: Duration::from_secs(30),
            point_of_no_return: Duration::from_secs(60),
            undo_while_held: Duration::from_secs(5),
        }
    }
}

/// What to drive, how far, and inside which limits.
#[derive(Clone)]
pub struct RunRequest {
    /// The playbook as loaded.
    pub playbook: Arc<Playbook>,
    /// The full path it was read from, if from a file.
    pub playbook_file: Option<PathBuf>,
    /// Rehearsal or production.
    pub kind: RunKind,
    /// The last stage, inclusive.
    pub until: StageName,
    /// Services go on after the last stage until cancelled or handed over.
    pub keep_services: bool,
    /// By when everything must be done or undone. On a resumed run the same text means the same moment as before.
    pub deadline: Option<Deadline>,
    /// True if it came with the command. One that only the playbook has is no word of a person's: a deadline that stands counts more.
    pub deadline_typed: bool,
    /// How long writes may be held.
    pub max_write_gap: Duration,
    /// True if that was said to this driver, and not left to the playbook.
    pub max_write_gap_typed: bool,
    /// What forecasts are multiplied with before anything starts.
    pub margin: f64,
    /// Rehearsal: after the cutover drill undo everything, the point of no return too, and issue a certificate.
    pub rollback_after: bool,
    /// How long the certificate of a rehearsal holds.
    pub certificate_lifetime: Duration,
    /// Accept a changed playbook if only steps not yet begun changed.
    pub accept_drift: bool,
    /// Start a new run though one is under way or finished; not beside one that has begun its cutover.
    pub new_run: bool,
    /// Run the tasks of this stage though it is done: rows that were compared in the afternoon are compared again at night.
    pub again: Option<StageName>,
    /// Undo all that the run made instead of going on with it. There has to be a run.
    pub give_up: bool,
    /// Point clients back to the source with what they wrote on the target, behind the point of no return. There has to be a run.
    pub roll_back: bool,
    /// Ask a running driver to hand over, and wait so long for it. `None`: don't ask.
    pub take_over: Option<Duration>,
    /// What stands behind a cutover.
    pub rehearsed: Rehearsed,
    /// What a rehearsal runs under.
    pub load: Option<AskedLoad>,
    /// What is watched meanwhile.
    pub guards: Vec<BuiltGuard>,
    /// What is called at named moments.
    pub hooks: Vec<BuiltHook>,
    /// Times that rarely need changing.
    pub limits: Limits,
}

impl RunRequest {
    /// A request with the playbook's own figures where it has some, and the defaults elsewhere.
    #[must_use]
    pub fn new(playbook: Arc<Playbook>, kind: RunKind, until: StageName) -> RunRequest {
        let duration = |text: &Option<crate::playbook::model::DurationText>| text.as_ref().and_then(|text| parse_duration(&text.0));
        RunRequest {
            kind,
            until,
            keep_services: false,
            deadline: None,
            deadline_typed: false,
            max_write_gap: duration(&playbook.max_write_gap).unwrap_or(DEFAULT_MAX_WRITE_GAP),
            max_write_gap_typed: false,
            margin: DEFAULT_MARGIN,
            rollback_after: kind == RunKind::Rehearsal,
            certificate_lifetime: duration(&playbook.certificate_lifetime).unwrap_or(DEFAULT_LIFETIME),
            accept_drift: false,
            new_run: false,
            again: None,
            give_up: false,
            roll_back: false,
            take_over: None,
            rehearsed: Rehearsed::Certificate(None),
            load: None,
            guards: Vec::new(),
            hooks: Vec::new(),
            limits: Limits::default(),
            playbook,
            playbook_file: None,
        }
    }

    /// How long writes may be held where people may have set it: what was set stands for the figure that it took the place of. Another one
    /// that is said to this driver counts more, and in a rollback any: it is another undertaking than the cutover it was set for.
    #[must_use]
    pub fn max_write_gap_in(&self, control: &Control) -> Duration {
        let said_since = self.max_write_gap_typed && (self.roll_back || control.write_gap_stands_for() != Some(self.max_write_gap));
        control.max_write_gap().filter(|_| !said_since).unwrap_or(self.max_write_gap)
    }
}

/// A step as the registry built it.
#[derive(Clone)]
pub struct BuiltStep {
    /// As written in the playbook.
    pub spec: StepSpec,
    /// Its stage.
    pub stage: StageName,
    /// What acts.
    pub step: Arc<dyn Step>,
}

/// Why a run was not driven, or could not be driven on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The journal can't be used or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Another driver has the run.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The playbook changed under the run.
    #[error(transparent)]
    Drift(#[from] DriftError),
    /// The steps don't fit together.
    #[error("{0}")]
    Playbook(String),
    /// The run of this playbook is over.
    #[error(
        "run `{run}` of playbook `{playbook}` is over; nothing was touched. `dbmove report {run}` shows how it ended; `--new-run` starts another one"
    )]
    Finished {
        /// The run.
        run: String,
        /// The playbook.
        playbook: String,
    },
    /// A new run would hide one that has begun its cutover.
    #[error("`--new-run` would hide run `{run}` of playbook `{playbook}`: {why}; nothing was touched. {instead}")]
    Hidden {
        /// The run.
        run: String,
        /// The playbook.
        playbook: String,
        /// What of it needs care.
        why: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// A rehearsal under load would go on without it.
    #[error(
        "rehearsal `{run}` was asked for with `{options}`, and what is left of it would be tried without that load; nothing was touched. Give the \
         same options again, or give it up with `dbmove undo PLAYBOOK --rehearsal`"
    )]
    LoadLeftOut {
        /// The run.
        run: String,
        /// The options it was asked for with.
        options: String,
    },
    /// Refused, as it would be anyway, before the driver of the run was asked to hand over.
    #[error("{verdict}. The driver that has the run goes on")]
    Beforehand {
        /// The refusal.
        verdict: Box<Verdict>,
    },
    /// Asked to stop while another driver was asked to hand over.
    #[error("stopped while it waited for the driver of run `{run}` to hand over; the request was taken back, and nothing was touched")]
    StoppedWaiting {
        /// The run.
        run: String,
    },
    /// A step failed before the run could begin.
    #[error("`{step}`: {error}")]
    Step {
        /// The step, or the store whose target could not be claimed.
        step: String,
        /// Why.
        #[source]
        error: StepError,
    },
}

impl EngineError {
    /// Why there is no new run beside one that has begun its cutover.
    pub(super) fn hides(state: &RunState) -> EngineError {
        let (why, instead) = match (state.kind, state.switched()) {
            (RunKind::Rehearsal, _) => (
                "it has begun its cutover, and what it made on the rehearsal pair is not undone",
                "`dbmove rehearse PLAYBOOK` goes on with it; `dbmove undo PLAYBOOK --rehearsal` gives it up",
            ),
            (RunKind::Production, true) => (
                "it has switched the clients to the target, and is not over",
                "`dbmove cutover PLAYBOOK` goes on with it; `dbmove rollback PLAYBOOK` points clients back",
            ),
            (RunKind::Production, false) => (
                "it has begun its cutover, which is neither done nor undone",
                "`dbmove cutover PLAYBOOK` settles it and goes on; `dbmove undo PLAYBOOK` gives it up",
            ),
        };
        EngineError::Hidden { run: state.run.clone(), playbook: state.playbook.clone(), why, instead }
    }
}

/// Drives a run as far as asked: takes the lease, resumes or starts, runs the stages, undoes what has to be undone.
/// Cancelling `cancel` stops it cleanly; dropping the future is as good as a crash: resumable, but nothing is undone by it.
///
/// # Errors
/// [`EngineError`] if the run could not be driven; how a driven run ended is in the [`RunOutcome`].
pub async fn drive(
    request: RunRequest,
    steps: Vec<BuiltStep>,
    leases: Vec<Arc<dyn TargetLease>>,
    journal: Journal,
    observer: Arc<dyn Observer>,
    cancel: CancellationToken,
) -> Result<RunOutcome, EngineError> {
    let graph = Graph::new(steps)?;
    let fingerprint = PlaybookFingerprint::of(&request.playbook)
        .map_err(|error| EngineError::Playbook(format!("playbook `{}` can't be written as JSON: {error}", request.playbook.playbook)))?;
    let started = RunStarted {
        playbook: request.playbook.playbook.clone(),
        playbook_file: request.playbook_file.clone(),
        fingerprint: fingerprint.clone(),
        kind: request.kind,
        dbmove_version: env!("CARGO_PKG_VERSION").to_owned(),
        steps: graph.plan(),
    };
    let entry = Entry { started, new_run: request.new_run, take_over: request.take_over };
    let refuse = |state: &RunState| beforehand::refuse(&request, &graph, &fingerprint, state);
    let entered = lease::enter(&journal, entry, &refuse, &cancel).await?;
    super::crash::point("run.started");
    Driver::new(request, graph, fingerprint, entered, journal, observer, cancel).drive(&leases).await
}

/// What one step would do and take, for `dbmove plan`.
#[derive(Clone, Debug, PartialEq)]
pub struct StepPreview {
    /// The step's id.
    pub step: String,
    /// Its stage.
    pub stage: StageName,
    /// What it would do, or why that can't be said.
    pub plan: Result<Plan, String>,
    /// How long it should take, or why that can't be said.
    pub estimate: Result<Estimate, String>,
    /// Whether it is the point of no return.
    pub point_of_no_return: bool,
}

/// Asks every step what it would do and how long that takes, and sums it up. Touches nothing and needs no run; `certificate` and
/// `rates` (of an earlier run) are what estimates are made from, `outputs` what references lead to.
///
/// # Errors
/// [`EngineError::Playbook`] if the steps don't fit together.
pub async fn preview(
    request: &RunRequest,
    steps: Vec<BuiltStep>,
    rates: BTreeMap<String, Work>,
    outputs: Arc<Outputs>,
) -> Result<(Vec<StepPreview>, Forecast), EngineError> {
    let graph = Graph::new(steps)?;
    let certificate = match &request.rehearsed {
        Rehearsed::Certificate(certificate) => certificate.as_deref(),
        Rehearsed::Without { .. } => None,
    };
    let mut all_rates = rates;
    all_rates.extend(certificate.map(Certificate::rates).unwrap_or_default());
    let all_rates = Arc::new(all_rates);
    let (mut previews, mut remaining) = (Vec::new(), Vec::new());
    for (index, built) in graph.steps.iter().enumerate() {
        let context = StepContext {
            point_of_no_return: graph.point_of_no_return.is_some(),
            ..without_a_run(built, request.kind, request.max_write_gap, all_rates.clone(), Arc::clone(&outputs))
        };
        let plan = match built.step.check_write_gap(request.max_write_gap) {
            Ok(()) => built.step.plan(&context).await,
            Err(error) => Err(error),
        };
        let plan = plan.map_err(|error| error.message);
        let estimate = built.step.estimate(&context).await.map_err(|error| error.message);
        let rehearsed = certificate.and_then(|certificate| certificate.measured.get(&built.spec.id)).map(|measured| measured.seconds);
        let known = estimate.clone().unwrap_or_else(Estimate::Unknown);
        remaining.push(Remaining { asked_for: built.stage <= request.until, ..Remaining::expected(&known, rehearsed) });
        let point_of_no_return = graph.point_of_no_return == Some(index);
        previews.push(StepPreview { step: built.spec.id.clone(), stage: built.stage, plan, estimate, point_of_no_return });
    }
    let left =
        request.deadline.as_ref().map(|deadline| Duration::try_from(deadline.until.duration_since(Timestamp::now())).unwrap_or_default());
    let asked_for = (0..graph.steps.len()).filter(|&index| remaining[index].asked_for);
    let reserve = undo_reserve(certificate, request.margin, 1.0) + budget::stopping(&graph, asked_for);
    Ok((previews, budget::forecast(&graph, &remaining, request.margin, reserve, left)))
}

/// What a step is handed that is only asked.
fn without_a_run(
    built: &BuiltStep,
    kind: RunKind,
    max_write_gap: Duration,
    rates: Arc<BTreeMap<String, Work>>,
    outputs: Arc<Outputs>,
) -> StepContext {
    StepContext {
        run: "plan".into(),
        step: built.spec.id.as_str().into(),
        attempt: 1,
        kind,
        epoch: Epoch(0),
        max_write_gap,
        point_of_no_return: false,
        switched: false,
        cancel: CancellationToken::new(),
        progress: super::execute::progress_channel().0,
        ready: tokio::sync::watch::channel(false).0,
        steering: Steering::free(),
        checkpoints: Arc::new(NoCheckpoints),
        rates,
        outputs,
    }
}

/// Asks a step of the production run what a certificate is held against, as it is now. Touches nothing and needs no run.
///
/// # Errors
/// If it can't be told.
pub async fn facts_today(built: &BuiltStep, outputs: Arc<Outputs>) -> Result<Option<BTreeMap<String, serde_json::Value>>, StepError> {
    let context = without_a_run(built, RunKind::Production, DEFAULT_MAX_WRITE_GAP, Arc::default(), outputs);
    built.step.facts_today(&context).await
}

/// Time kept for undoing the cutover stage on a night so much slower than the rehearsal.
pub(super) fn undo_reserve(certificate: Option<&Certificate>, margin: f64, slower: f64) -> Duration {
    certificate
        .and_then(|certificate| Duration::try_from_secs_f64(certificate.undo_seconds * margin * slower).ok())
        .unwrap_or(budget::DEFAULT_UNDO_RESERVE)
}
