//! What a step gets from the engine: who it is, when to stop, and where to leave traces.
//!
//! A step never sees the journal itself. It reports progress into a watch channel (the newest
//! value wins, nothing queues up), saves checkpoints by key, and signals readiness if it is a
//! service. All of it is cheap to clone into the step's own tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::approval::Given;
use super::steering::Steering;
use super::step::{Epoch, Output, StepError, Work};

/// Rehearsals and productions are runs of the same code; only the bound endpoints differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// On the rehearsal pair.
    Rehearsal,
    /// On the real thing.
    Production,
}

/// Where a step stands, as shown on a bar, in `status` and in the report's time series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// How much is done, in `unit`.
    pub done: u64,
    /// How much there is, as far as known.
    pub total: Option<u64>,
    /// What is counted: `rows`, `bytes`, `tables`, `keys`, `transactions`.
    pub unit: String,
    /// Units per second, recent.
    pub rate: Option<f64>,
    /// How far behind the source the step is (services only).
    pub lag: Option<Duration>,
    /// One short phrase: which table, which chunk, which phase.
    pub note: String,
    /// Why the step is slower than it could be, where it is held back.
    pub throttle: Option<String>,
    /// It can do nothing before a service is further than now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// Why a cutover should not begin to hold writes now, where it would have to wait for this step then (services only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_near: Option<String>,
    /// Who would be held up or ended if writes were held now (services only). A cutover waits for them, though not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_the_way: Option<InTheWay>,
}

/// Clients whom a cutover should rather let finish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InTheWay {
    /// Who, and what they do.
    pub what: String,
    /// How long a cutover waits for such at most, all in all.
    pub patience: Duration,
}

/// Saves and loads a step's checkpoints; the journal implements it.
pub trait Checkpoints: Send + Sync {
    /// Saves `value` under `key` for this run and step, replacing an older one. On disk when it returns.
    ///
    /// # Errors
    /// If the journal can't be written (disk full): the step must stop.
    fn save(&self, step: &str, key: &str, value: &serde_json::Value) -> Result<(), StepError>;
    /// The value last saved under `key`, if any.
    ///
    /// # Errors
    /// If the journal can't be read.
    fn load(&self, step: &str, key: &str) -> Result<Option<serde_json::Value>, StepError>;

    /// Adds one result of a kind (`chunk`, `difference` …), replacing an older one with the same key. On disk
    /// when it returns. Unless the implementation keeps results apart they lie among the checkpoints.
    ///
    /// # Errors
    /// If the journal can't be written: the step must stop.
    fn record(&self, step: &str, kind: &str, key: &str, value: &serde_json::Value) -> Result<(), StepError> {
        self.save(step, &format!("{kind}/{key}"), value)
    }
    /// Every result of a kind that this step has recorded in this run, by key in order.
    ///
    /// # Errors
    /// If the journal can't be read, or the implementation keeps no list.
    fn recorded(&self, step: &str, kind: &str) -> Result<Vec<(String, serde_json::Value)>, StepError> {
        let _ = step;
        Err(StepError::definite(format!("results of kind `{kind}` can't be listed here: only a run's journal keeps them")))
    }
    /// The yes that stands for a step: given in this run, for the playbook as it is now. Without a run's journal nobody can have
    /// given one.
    ///
    /// # Errors
    /// If the journal can't be read.
    fn approval(&self, step: &str) -> Result<Option<Given>, StepError> {
        let _ = step;
        Ok(None)
    }
    /// Adds a finding (its id, level, evidence and fix, as the store models them), replacing an older one with the
    /// same id.
    ///
    /// # Errors
    /// If the journal can't be written.
    fn find(&self, step: &str, id: &str, finding: &serde_json::Value) -> Result<(), StepError> {
        self.save(step, &format!("finding/{id}"), finding)
    }
    /// Whether there is a run whose next driver finds what is kept here.
    fn of_a_run(&self) -> bool {
        true
    }
}

/// Checkpoints of a run that does not exist: nothing to load, nothing may be saved.
#[derive(Debug)]
pub struct NoCheckpoints;

impl Checkpoints for NoCheckpoints {
    fn save(&self, step: &str, key: &str, _value: &serde_json::Value) -> Result<(), StepError> {
        Err(StepError::definite(format!("step `{step}` tried to save `{key}` while it was only asked what it would do")))
    }
    fn load(&self, _step: &str, _key: &str) -> Result<Option<serde_json::Value>, StepError> {
        Ok(None)
    }
    fn of_a_run(&self) -> bool {
        false
    }
}

/// The checkpoint under which [`StepContext::save_output`] keeps a step's output.
pub const OUTPUT_CHECKPOINT: &str = "engine.output";

/// The kind of results by which a step says what it is about to make that somebody may come upon; the key is a line for people. Shown as left by
/// the run while the step is not undone and nobody drives.
pub const MADE: &str = "made";

/// Facts that steps have left behind: by step id, then by name.
pub type Outputs = BTreeMap<String, BTreeMap<String, serde_json::Value>>;

/// Everything a step is handed besides its own arguments.
#[derive(Clone)]
pub struct StepContext {
    /// The run's id: unique, sortable by time.
    pub run: Arc<str>,
    /// The step's id in the playbook.
    pub step: Arc<str>,
    /// 1 for the first try.
    pub attempt: u32,
    /// Rehearsal or production.
    pub kind: RunKind,
    /// This driver's epoch.
    pub epoch: Epoch,
    /// How long writes may be held: the engine undoes the cutover when it is over.
    pub max_write_gap: Duration,
    /// Whether the cutover has a point of no return, right before which the engine asks for [`Step::keep_held`](super::step::Step::keep_held).
    pub point_of_no_return: bool,
    /// Whether clients have been switched: the point of no return was passed before the step began.
    pub switched: bool,
    /// Cancelled when the step has to stop.
    pub cancel: CancellationToken,
    /// The newest progress.
    pub progress: watch::Sender<Progress>,
    /// Set to true by a service that is ready.
    pub ready: watch::Sender<bool>,
    /// Whether new pieces of work may be begun, and how fast.
    pub steering: Steering,
    /// Where checkpoints go.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// Rates measured by the last rehearsal, by step id: what estimates are made from.
    pub rates: Arc<BTreeMap<String, Work>>,
    /// Outputs of earlier steps, by step id, for `${step:ID.name}`.
    pub outputs: Arc<Outputs>,
}

impl StepContext {
    /// Run, step and attempt: unique for every try, the same after a crash. Goes into cloud names,
    /// tags and client tokens.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}-{}-{}", self.run, self.step, self.attempt)
    }

    /// A service calls this when it has caught up.
    pub fn ready(&self) {
        self.ready.send_replace(true);
    }

    /// Publishes progress; the newest value wins.
    pub fn report(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// An error if the step has been asked to stop.
    ///
    /// # Errors
    /// [`StepError::cancelled`].
    pub fn check_cancelled(&self) -> Result<(), StepError> {
        if self.cancel.is_cancelled() { Err(StepError::cancelled()) } else { Ok(()) }
    }

    /// Saves a checkpoint of this step.
    ///
    /// # Errors
    /// If the journal can't be written.
    pub fn save_checkpoint(&self, key: &str, value: &serde_json::Value) -> Result<(), StepError> {
        self.checkpoints.save(&self.step, key, value)
    }

    /// Loads a checkpoint of this step.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn load_checkpoint(&self, key: &str) -> Result<Option<serde_json::Value>, StepError> {
        self.checkpoints.load(&self.step, key)
    }

    /// Adds one result of this step; see [`Checkpoints::record`].
    ///
    /// # Errors
    /// If the journal can't be written.
    pub fn record(&self, kind: &str, key: &str, value: &serde_json::Value) -> Result<(), StepError> {
        self.checkpoints.record(&self.step, kind, key, value)
    }

    /// Every result of a kind that this step has recorded; see [`Checkpoints::recorded`].
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn recorded(&self, kind: &str) -> Result<Vec<(String, serde_json::Value)>, StepError> {
        self.checkpoints.recorded(&self.step, kind)
    }

    /// The yes to this step's question, if it stands; see [`Checkpoints::approval`].
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn approval(&self) -> Result<Option<Given>, StepError> {
        self.checkpoints.approval(&self.step)
    }

    /// Adds a finding of this step; see [`Checkpoints::find`].
    ///
    /// # Errors
    /// If the journal can't be written.
    pub fn find(&self, id: &str, finding: &serde_json::Value) -> Result<(), StepError> {
        self.checkpoints.find(&self.step, id, finding)
    }

    /// Keeps the step's output before its last effect, so that it is not lost if the process dies between
    /// effect and outcome and `probe` has to settle the step as done. A step whose output later steps need calls this.
    ///
    /// # Errors
    /// If the journal can't be written.
    pub fn save_output(&self, output: &Output) -> Result<(), StepError> {
        let value = serde_json::to_value(output)
            .map_err(|error| StepError::definite(format!("the output of `{}` can't be written as JSON: {error}", self.step)))?;
        self.save_checkpoint(OUTPUT_CHECKPOINT, &value)
    }

    /// What [`StepContext::save_output`] has saved last, here or in an earlier driver.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn saved_output(&self) -> Result<Option<Output>, StepError> {
        Ok(self.load_checkpoint(OUTPUT_CHECKPOINT)?.and_then(|value| serde_json::from_value(value).ok()))
    }
}
