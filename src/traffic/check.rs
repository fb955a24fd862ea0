//! The step `traffic.check`: after the switch, whether the route does what it says.
//!
//! It waits until the target accepts a beat of the canary that came through the real route, and fails if that does not
//! happen in time. Its output is the write gap and what else the canary counted.
//!
//! In a rehearsal whose route was left out (`rehearsal: { skip: … }`) nobody points the canary to the target. A short look is all then: the canary may
//! go by another route of the playbook, which was switched. If it does not arrive the check was not rehearsed, and says so. Where HAProxy holds the
//! store's clients that is its route, and is checked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::haproxy::SharedHold;
use super::skipped::routes_left_out;
use super::watch::CanaryWatch;
use crate::engine::certificate::fact;
use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::hook::runner::read_limit;
use crate::playbook::model::DurationText;

/// How long the canary may take to arrive unless the playbook says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same where a route was left out of a rehearsal.
const LEFT_OUT_TIMEOUT: Duration = Duration::from_secs(1);

/// What `traffic.check` can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckArguments {
    /// How long the canary may take to be accepted by the target. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
}

/// The step `traffic.check`.
pub struct TrafficCheck {
    limit: Duration,
    watch: Arc<CanaryWatch>,
    hold: Option<SharedHold>,
}

impl TrafficCheck {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.check";

    /// From the arguments and what the canary of the same playbook shares.
    ///
    /// # Errors
    /// If the timeout can't be read.
    pub fn new(arguments: &CheckArguments, watch: Arc<CanaryWatch>) -> Result<Self, StepError> {
        Ok(TrafficCheck { limit: read_limit("timeout", arguments.timeout.as_ref(), DEFAULT_TIMEOUT)?, watch, hold: None })
    }

    /// The same for a store that HAProxy may hold the clients of.
    #[must_use]
    pub fn behind(self, hold: SharedHold) -> Self {
        TrafficCheck { hold: Some(hold), ..self }
    }

    /// The routes that were left out of this rehearsal, if the canary may go by one of them.
    fn left_out(&self, context: &StepContext) -> Option<String> {
        let proxied = self.hold.as_ref().is_some_and(|hold| hold.has_switched(context));
        routes_left_out(context).filter(|_| !proxied)
    }
}

#[async_trait]
impl Step for TrafficCheck {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn undoable(&self) -> Undoable {
        Undoable::Nothing
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let line = match context.kind {
            RunKind::Production => format!("wait up to {:?} until the target accepts the canary through the route", self.limit),
            RunKind::Rehearsal => format!(
                "wait up to {:?} until the target accepts the canary through the route; where the route is left alone (`skip`) this is not rehearsed",
                self.limit
            ),
        };
        Ok(Plan { lines: vec![line], warnings: Vec::new() })
    }

    async fn estimate(&self, _: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let left_out = self.left_out(context);
        let limit = left_out.as_ref().map_or(self.limit, |_| self.limit.min(LEFT_OUT_TIMEOUT));
        let seen = tokio::select! {
            seen = self.watch.wait_until_target(limit) => seen,
            () = context.cancel.cancelled() => return Err(StepError::cancelled()),
        };
        let beats = match (seen, left_out) {
            (Err(error), Some(routes)) => {
                let why = format!("{routes} left the route alone, so the canary did not reach the target");
                tracing::warn!(step = %context.step, "{why}: that it does was not rehearsed ({error})");
                let output = Output::default().fact(fact::SKIPPED, why);
                context.save_output(&output)?;
                return Ok(output);
            }
            (seen, _) => seen?,
        };
        let output = beats.output();
        context.save_output(&output)?;
        Ok(output)
    }

    /// It changes nothing: after a crash it simply looks again.
    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotStarted)
    }

    async fn undo(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
