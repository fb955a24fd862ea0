//! `mysql.promote`: makes the target ready to be written.
//!
//! AUTO_INCREMENT counters are raised to the source's (a counter can be ahead of the largest row, and
//! an id that was given out must not be given out again), and following ends with everything
//! applied: from here on nobody but clients writes to the target. Undo starts nothing by itself: the
//! engine starts the follow service again when the cutover is tried once more.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stoppable;
use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::counters;
use crate::mysql::store::{Following, MysqlStore};

/// Arguments of `mysql.promote`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteArguments {}

/// The step.
pub struct Promote {
    /// The store.
    pub store: Arc<MysqlStore>,
}

/// How long following may take to end: nothing is left to apply.
const PATIENCE: Duration = Duration::from_secs(20);

#[async_trait]
impl Step for Promote {
    fn name(&self) -> &'static str {
        "mysql.promote"
    }
    fn undoable(&self) -> Undoable {
        // A counter that is too high harms nothing while nobody inserts; following is started by the engine.
        Undoable::Nothing
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan {
            lines: vec![
                "raise AUTO_INCREMENT counters on the target to the source's".to_owned(),
                "end following: from here on only clients write to the target".to_owned(),
            ],
            warnings: Vec::new(),
        })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let (_, raised) = stoppable(context, counters::raise(&self.store)).await?;
        self.store.finish_token().cancel();
        let mut following = self.store.following.subscribe();
        let ended = tokio::time::timeout(PATIENCE, following.wait_for(|state| !matches!(state, Following::On(_)))).await;
        if !matches!(ended, Ok(Ok(_))) {
            return Err(StepError::definite(format!(
                "following the source of `{}` did not end in time; nothing was switched",
                self.store.name
            )));
        }
        Ok(Output::default().fact("counters_raised", raised))
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        // Raising counters and ending what has ended change nothing the second time.
        Ok(Probe::NotStarted)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
