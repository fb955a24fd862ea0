//! The step: the only thing the engine knows how to drive.
//!
//! A step is one action of a playbook. It has five verbs ([`Step::plan`], [`Step::estimate`],
//! [`Step::run`], [`Step::probe`], [`Step::undo`]) and the engine promises how they are called:
//!
//! * `intent` is in the journal before `run` or `undo` acts, `outcome` after it;
//! * after a crash an intent without an outcome is settled by `probe`, which looks at the world
//!   and never at memory;
//! * `run` may be called again after any crash and must reach the same end state;
//! * `undo` may be called twice, and after a `run` that got nowhere;
//! * a task that `probe` found done after a crash or an error is not run again: what `run` would still have done behind its end state is for
//!   [`Step::finish`], which the engine calls before anything that comes after it begins, by each driver until its stage is done.
//!
//! A *service* step ([`StepKind::Service`]) calls [`StepContext::ready`] once it has caught up and
//! keeps running until it is cancelled or done; its failure fails the stage.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::context::{Checkpoints, Outputs, StepContext};

/// Whether a step ends by itself or keeps running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Runs to its end; the next step starts after it.
    Task,
    /// Signals readiness and keeps running beside the steps that follow.
    Service,
}

/// What `undo` can do for a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undoable {
    /// `undo` puts back what `run` changed.
    Yes,
    /// `run` changes nothing that would need putting back.
    Nothing,
    /// It can't be put back; the step is the point of no return or lies after it. Holds why.
    No(String),
}

/// What a step would do, as lines a person can check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One action a line, object names in backticks.
    pub lines: Vec<String>,
    /// What deserves attention before a go-ahead.
    pub warnings: Vec<String>,
}

/// How long a step is expected to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "estimate")]
pub enum Estimate {
    /// From a measured rate and today's size.
    Expected {
        /// Expected duration, without margin.
        duration: Duration,
        /// Where the figure comes from: "412 MiB at 38 MiB/s in the last rehearsal".
        basis: String,
    },
    /// Too short to matter (a setting, one statement).
    Instant,
    /// There is nothing to base a figure on. Holds what is missing.
    Unknown(String),
}

/// What `probe` found in the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "probe")]
pub enum Probe {
    /// No trace of the step.
    NotStarted,
    /// Begun and not finished; `run` goes on from there. Says from where.
    Partly {
        /// From where `run` goes on, for people.
        from: String,
    },
    /// The end state stands.
    Done,
    /// Somebody else's doing: stop and show it.
    Foreign {
        /// What was found that is not ours.
        found: String,
    },
}

/// How much work a finished step did, and how long it took: what the next estimate is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// What is counted: `rows`, `bytes`, `keys`, `tables`.
    pub unit: String,
    /// How many of them.
    pub amount: u64,
    /// Seconds of work, waiting for others not counted.
    pub seconds: f64,
}

/// What a finished step leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Facts for `${step:ID.name}` references, for the report and the certificate.
    pub facts: BTreeMap<String, serde_json::Value>,
    /// The measured rate, where there is one.
    pub work: Option<Work>,
}

impl Output {
    /// Adds one fact.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }
}

/// How a step failed, as far as the engine has to care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// May heal by itself (a lost connection, a deadlock): retried with backoff.
    Transient,
    /// Will not heal: the stage fails.
    Definite,
    /// The step stopped because it was asked to.
    Cancelled,
    /// Rows differ: exit code 3.
    Differences,
    /// A gate said no: exit code 4, nothing touched.
    Refused,
    /// A person has to say yes first: exit code 6, nothing touched, resumable.
    Waiting,
    /// Somebody else holds the lease, here or on the target: exit code 7.
    LeaseLost,
}

/// Why a step failed: what happened to which object, and what to do next.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// What the engine does about it.
    pub failure: Failure,
    /// What happened, to which object (names in backticks), what was left as it is.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl StepError {
    /// An error of the given kind.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        StepError { failure, message: message.into(), hint: None }
    }
    /// An error that may heal by itself.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Failure::Transient, message)
    }
    /// An error that will not heal.
    pub fn definite(message: impl Into<String>) -> Self {
        Self::new(Failure::Definite, message)
    }
    /// The step was asked to stop and did.
    pub fn cancelled() -> Self {
        Self::new(Failure::Cancelled, "stopped on request")
    }
    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// One action of a playbook. See the module's comment for the contract of each verb.
#[async_trait]
pub trait Step: Send + Sync {
    /// `mysql.snapshot`: store and verb.
    fn name(&self) -> &'static str;
    /// Whether it ends by itself.
    fn kind(&self) -> StepKind {
        StepKind::Task
    }
    /// What undo can do.
    fn undoable(&self) -> Undoable;
    /// What undo would do, for whoever has to say yes to it.
    fn undo_does(&self) -> String {
        "put back what it changed".to_owned()
    }
    /// True if the effect lives in this process or its connections (a held lock) and so is gone
    /// after a crash, or if it is a look at something that may have changed. The engine runs such a step again when it
    /// resumes behind it.
    fn volatile(&self) -> bool {
        false
    }
    /// How long it may take to end once it is asked to. Beside a deadline so much is kept, besides the time for undoing.
    fn stops_within(&self) -> Duration {
        Duration::ZERO
    }
    /// True if clients' writes are held from this step on: the `max_write_gap` budget starts here.
    fn holds_writes(&self) -> bool {
        false
    }
    /// Whether it can do its part where writes are held for at most so long. Asked before a run is driven.
    fn check_write_gap(&self, max_write_gap: Duration) -> Result<(), StepError> {
        let _ = max_write_gap;
        Ok(())
    }
    /// Of a step of `cutover` that holds writes, right before the point of no return: from here on nobody but dbmove lets them through, whatever
    /// becomes of it. Fails if that is not certain, or if they were let through before: then the point of no return is not taken, and the cutover
    /// is undone. May be called while the step does not stand, and again after any crash.
    async fn keep_held(&self, context: &StepContext) -> Result<(), StepError> {
        let _ = context;
        Ok(())
    }
    /// What a person has to say yes to before it passes, if it asks. Such a step looks for the yes with
    /// [`StepContext::approval`] and fails with [`Failure::Waiting`] without it.
    fn question(&self) -> Option<&str> {
        None
    }
    /// True for a service in `cutover` that carries what clients write behind the switch back to the source. A production run
    /// goes on as long as such a service does.
    fn keeps_way_back(&self) -> bool {
        false
    }
    /// True if the step holds clients in the cutover, and can hold them once more for a rollback.
    fn holds_clients(&self) -> bool {
        false
    }
    /// Of a step that holds clients, before a rollback stops writes: holds them once more, where they are by now. Its undo lets them through, to
    /// the source by then. May be called again after any crash.
    async fn hold_for_rollback(&self, context: &StepContext) -> Result<(), StepError> {
        let _ = context;
        Ok(())
    }
    /// Lets the clients through that [`Step::hold_for_rollback`] holds, to where they were. Twice is harmless.
    async fn let_through_again(&self, context: &StepContext) -> Result<(), StepError> {
        let _ = context;
        Ok(())
    }
    /// True if there is no rollback any more behind this step. A rehearsal that tries a rollback leaves it out.
    fn ends_way_back(&self) -> bool {
        false
    }
    /// Of a step that keeps the way back, before a rollback holds writes: returns when the source has what the target has logged by now.
    /// Refuses if there is no way back any more.
    async fn near_back(&self, context: &StepContext) -> Result<(), StepError> {
        Err(StepError::definite(format!("`{}` keeps no way back", context.step)))
    }
    /// The same step's part of a rollback before clients are pointed back: stops writes on the target, with proof, waits until the source has
    /// all of them, compares what came back. `watched`: the target has to let writes through by itself, within a bounded time, if dbmove is gone.
    /// May be called again after any crash.
    async fn take_back(&self, context: &StepContext, watched: bool) -> Result<Output, StepError> {
        let _ = watched;
        Err(StepError::definite(format!("`{}` keeps no way back", context.step)))
    }
    /// Right before clients are pointed back: from here on the target does not let writes through by itself any more. Fails if it did before.
    async fn keep_back(&self, context: &StepContext) -> Result<(), StepError> {
        Err(StepError::definite(format!("`{}` keeps no way back", context.step)))
    }
    /// Puts back what [`Step::take_back`] changed on the target: clients write there as before. Twice is harmless.
    async fn give_back(&self, context: &StepContext) -> Result<(), StepError> {
        let _ = context;
        Ok(())
    }
    /// What it would do. Touches nothing.
    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError>;
    /// How long it should take; says "unknown" rather than guess. Touches nothing.
    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError>;
    /// The facts of its output that a certificate is held against, as they are now: a cutover may begin days after `run` told them.
    /// `None` of a step that knows of none. Touches nothing.
    async fn facts_today(&self, context: &StepContext) -> Result<Option<BTreeMap<String, serde_json::Value>>, StepError> {
        let _ = context;
        Ok(None)
    }
    /// Does it. Reports progress, saves checkpoints, stops cleanly on cancel.
    async fn run(&self, context: &StepContext) -> Result<Output, StepError>;
    /// Of a task whose `run` did not come to tell its outcome, and which `probe` found done: does what `run` does once its end state stands. For
    /// the point of no return that is whatever must not keep `probe` from saying that it is passed. Twice is harmless, and so is
    /// a world in which nothing is left to do. If it fails, the run can be driven on and tries it again.
    async fn finish(&self, context: &StepContext) -> Result<(), StepError> {
        let _ = context;
        Ok(())
    }
    /// Looks at the world.
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError>;
    /// Puts back what `run` changed. Running it twice is harmless.
    async fn undo(&self, context: &StepContext) -> Result<(), StepError>;
}

/// A growing number that tells drivers of one run apart: a higher epoch has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A store's side of the lease: the epoch is written on the target too, so that a driver that
/// lost the lease without noticing has its writes refused there.
#[async_trait]
pub trait TargetLease: Send + Sync {
    /// The store's name in the playbook.
    fn store(&self) -> &str;
    /// Claims the target for `epoch`. `outputs` are those of the run's steps so far: where the target's address is one of them and
    /// not there yet, there is nothing to claim. What is sent to production meanwhile is counted in `checkpoints`. Fails with
    /// [`Failure::LeaseLost`] if a higher epoch, or a different run, stands there. Waits for the old driver's commits under way.
    async fn claim(&self, run: &str, epoch: Epoch, outputs: &Arc<Outputs>, checkpoints: &Arc<dyn Checkpoints>) -> Result<(), StepError>;
    /// Lets go of the target when the run is over for good (a rehearsal undone, a production run done to its end), so that
    /// another run may claim it. Called by the driver that holds `epoch`; a claim of anybody else must stay. A
    /// store whose claim goes away with what its steps undo needs nothing here.
    async fn release(&self, run: &str, epoch: Epoch) -> Result<(), StepError> {
        let _ = (run, epoch);
        Ok(())
    }
}
