//! `mysql.catch_up`: waits until the target holds everything up to the fence's position.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{STOP_GRACE, shown};
use crate::engine::context::{Progress, StepContext};
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::copy::write_chunk::wait_applied;
use crate::mysql::store::{Following, MysqlStore};

/// Arguments of `mysql.catch_up`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatchUpArguments {}

/// The step.
pub struct CatchUp {
    /// The store.
    pub store: Arc<MysqlStore>,
}

#[async_trait]
impl Step for CatchUp {
    fn name(&self) -> &'static str {
        "mysql.catch_up"
    }
    fn stops_within(&self) -> Duration {
        STOP_GRACE
    }
    fn undoable(&self) -> Undoable {
        Undoable::Nothing
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan { lines: vec!["wait until every change up to the fence is on the target".to_owned()], warnings: Vec::new() })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let position = {
            let mut fence = self.store.fence.lock().await;
            let Some(fence) = fence.as_mut() else {
                return Err(StepError::definite(format!(
                    "the source of `{}` is not fenced: there is no final position to reach",
                    self.store.name
                ))
                .hint("put `mysql.fence` before this step"));
            };
            fence.check().await?;
            fence.position.clone()
        };
        if *self.store.following.borrow() == Following::Off {
            // Not tried again: writes are held, and nobody will start to follow meanwhile.
            return Err(StepError::definite(format!("store `{}` is not being followed, so its target can't catch up", self.store.name))
                .hint("look at why `mysql.replicate` ended (`dbmove report`), then start the cutover again"));
        }
        let started = Instant::now();
        let mut applied = self.store.applied.subscribe();
        let show = || {
            let applied = self.store.applied.borrow();
            Progress {
                done: applied.changes,
                unit: "changes".to_owned(),
                note: format!("at {} of {position}", applied.position),
                ..Progress::default()
            }
        };
        shown(context, show, wait_applied(&mut applied, &position, &context.cancel)).await?;
        if let Some(again) = self.store.again.borrow().first() {
            // Not waited for: writes are held, and a copy may take long.
            return Err(StepError::definite(format!(
                "`{again}` was created, renamed or altered on the source right before the fence, and is being copied again; nothing was switched"
            ))
            .hint("start the cutover again; the fence waits until the table is copied"));
        }
        Ok(Output::default().fact("position", position.to_string()).fact("seconds", started.elapsed().as_secs_f64()))
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        // It changes nothing by itself, so it is simply run again.
        Ok(Probe::NotStarted)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
