//! What a person sees while a run is driven: the engine tells, the observer draws.
//!
//! Calls come from the driver's own tasks, in the order in which things happen, and after the matching
//! journal event is on disk. They must be cheap and must not block: draw from a copy, drop what is too much.
//! Everything told here can also be read from the journal later; an observer adds nothing to it.

use std::time::Duration;

use super::budget::Forecast;
use super::context::Progress;
use super::journal::RecordedEvent;
use crate::playbook::model::StageName;

/// Receives what happens. Every method has an empty default: implement what you show.
pub trait Observer: Send + Sync {
    /// An event has been written. Everything below `event` can be derived from it, except progress, forecast and clocks.
    fn event(&self, _event: &RecordedEvent) {}
    /// A stage begins.
    fn stage_started(&self, _stage: StageName) {}
    /// A stage is done.
    fn stage_done(&self, _stage: StageName) {}
    /// A step begins to act, for the `attempt`th time.
    fn step_started(&self, _step: &str, _name: &str, _attempt: u32) {}
    /// The newest progress of a running step; at most a few times a second for each step.
    fn step_progress(&self, _step: &str, _progress: &Progress) {}
    /// A load runs beside the steps from now on; it tells its progress by this name, which no step has.
    fn load_started(&self, _name: &str) {}
    /// It has ended.
    fn load_ended(&self, _name: &str) {}
    /// A transient failure: the step is tried again after `wait`.
    fn step_retry(&self, _step: &str, _attempt: u32, _wait: Duration, _error: &str) {}
    /// A service has caught up.
    fn service_ready(&self, _step: &str) {}
    /// A step ended: done, stopped or failed (with the error's words).
    fn step_ended(&self, _step: &str, _failed: Option<&str>) {}
    /// A step is about to be undone.
    fn undo_started(&self, _step: &str) {}
    /// A step's undo ended.
    fn undo_ended(&self, _step: &str, _failed: Option<&str>) {}
    /// The newest forecast, every few seconds while a deadline is set and once before anything starts.
    fn forecast(&self, _forecast: &Forecast) {}
    /// Why nothing new is begun, if so; told about four times a second.
    fn held_back(&self, _why: Option<&str>) {}
    /// Writes have been held for `held` of at most `limit`; told about four times a second while they are.
    fn write_gap(&self, _held: Duration, _limit: Duration) {}
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
