//! The way in: what to drive, and [`drive`].

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::certificate::Certificate;
use super::context::RunKind;
use super::deadline::Deadline;
use super::drift::DriftError;
use super::journal::{Journal, JournalError};
use super::lease::LeaseError;
use super::observer::Observer;
use super::outcome::RunOutcome;
use super::step::{Step, StepError, TargetLease};
use crate::playbook::model::{Playbook, StageName, StepSpec};

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

/// What to drive, how far, and inside which limits.
#[derive(Clone)]
pub struct RunRequest {
    /// The playbook as loaded.
    pub playbook: Arc<Playbook>,
    /// Rehearsal or production.
    pub kind: RunKind,
    /// The last stage, inclusive.
    pub until: StageName,
    /// Services go on after the last stage until cancelled or handed over.
    pub keep_services: bool,
    /// By when everything must be done or undone.
    pub deadline: Option<Deadline>,
    /// How long writes may be held.
    pub max_write_gap: Duration,
    /// What forecasts are multiplied with before anything starts.
    pub margin: f64,
    /// Rehearsal: after the cutover drill undo everything, the point of no return too, and issue a certificate.
    pub rollback_after: bool,
    /// How long the certificate of a rehearsal holds.
    pub certificate_lifetime: Duration,
    /// Accept a changed playbook if only steps not yet begun changed.
    pub accept_drift: bool,
    /// Start a new run though one is under way or finished.
    pub new_run: bool,
    /// Ask a running driver to hand over, and wait so long for it. `None`: don't ask.
    pub take_over: Option<Duration>,
    /// What stands behind a cutover.
    pub rehearsed: Rehearsed,
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
    #[error("run `{run}` of playbook `{playbook}` is over ({verdict}); nothing was touched. Start a new one with `--new-run`")]
    Finished {
        /// The run.
        run: String,
        /// The playbook.
        playbook: String,
        /// How it ended.
        verdict: String,
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

/// Drives a run as far as asked: takes the lease, resumes or starts, runs the stages, undoes what has to be undone.
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
    let _ = (request, steps, leases, journal, observer, cancel);
    Err(EngineError::Playbook("the engine's scheduler is not here yet".to_owned()))
}
