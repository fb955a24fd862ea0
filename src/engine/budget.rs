//! The deadline budget: the forecast, when to refuse, when to give up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::playbook::model::StageName;

/// What forecasts are multiplied with before anything starts.
pub const DEFAULT_MARGIN: f64 = 1.25;

/// Time kept for an undo that no rehearsal has measured.
pub const DEFAULT_UNDO_RESERVE: Duration = Duration::from_secs(120);

/// What is expected of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepForecast {
    /// The step.
    pub step: String,
    /// Its stage.
    pub stage: StageName,
    /// Seconds still to go, without margin; `None` if nobody can say.
    pub seconds: Option<f64>,
    /// Where the figure comes from, or what is missing.
    pub basis: String,
    /// True if it lies on the critical path.
    pub critical: bool,
    /// True if it is done (a service: ready).
    pub done: bool,
}

/// What remains, against the time there is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Every step that remains, in order.
    pub steps: Vec<StepForecast>,
    /// Seconds along the critical path, without margin: at least this, if any step is unknown.
    pub seconds: f64,
    /// The same with the margin.
    pub with_margin_seconds: f64,
    /// Steps of which nobody can say how long they take.
    pub unknown: Vec<String>,
    /// Seconds kept for the undo.
    pub undo_reserve_seconds: f64,
    /// Seconds to the deadline; `None` without one.
    pub left_seconds: Option<f64>,
}
