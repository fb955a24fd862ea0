//! The step `traffic.check`: after the switch, whether the route does what it says.
//!
//! It waits until the target accepts a beat of the canary that came through the real route, and fails if that does not
//! happen in time. Its output is the write gap and what else the canary counted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::watch::CanaryWatch;
use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::hook::runner::read_limit;
use crate::playbook::model::DurationText;

/// How long the canary may take to arrive unless the playbook says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

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
}

impl TrafficCheck {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.check";

    /// From the arguments and what the canary of the same playbook shares.
    ///
    /// # Errors
    /// If the timeout can't be read.
    pub fn new(arguments: &CheckArguments, watch: Arc<CanaryWatch>) -> Result<Self, StepError> {
        Ok(TrafficCheck { limit: read_limit("timeout", arguments.timeout.as_ref(), DEFAULT_TIMEOUT)?, watch })
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

    async fn plan(&self, _: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan {
            lines: vec![format!("wait up to {:?} until the target accepts the canary through the route", self.limit)],
            warnings: Vec::new(),
        })
    }

    async fn estimate(&self, _: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let beats = tokio::select! {
            beats = self.watch.wait_until_target(self.limit) => beats?,
            () = context.cancel.cancelled() => return Err(StepError::cancelled()),
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
