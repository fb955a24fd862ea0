//! A store's load in a rehearsal, bound to its servers as late as its steps are.

use std::sync::Arc;

use async_trait::async_trait;

use super::shared::Shared;
use crate::engine::context::{Checkpoints, Outputs};
use crate::engine::load::{Load, LoadContext};
use crate::engine::step::StepError;
use crate::mysql::error::MysqlError;
use crate::mysql::replay::load::{Log, Replay};

/// The load of one store.
pub(super) struct StoreLoad {
    name: String,
    shared: Arc<Shared>,
    log: Log,
}

impl StoreLoad {
    /// Of what steps of a store share; `None` of those that work on none.
    pub(super) fn of(shared: &Arc<Shared>, log: Log) -> Option<StoreLoad> {
        let name = shared.shape().mysql.as_ref()?.name.clone();
        Some(StoreLoad { name, shared: Arc::clone(shared), log })
    }

    async fn replay(&self, run: &str, outputs: &Arc<Outputs>) -> Result<Replay, StepError> {
        let materials = self.shared.bound(run, outputs).await?;
        let store = materials.mysql.clone().ok_or_else(|| StepError::definite(format!("store `{}` is not bound to servers", self.name)))?;
        Ok(Replay { store, log: self.log.clone() })
    }
}

#[async_trait]
impl Load for StoreLoad {
    fn store(&self) -> &str {
        &self.name
    }
    async fn check(&self, run: &str, outputs: &Arc<Outputs>, checkpoints: &Arc<dyn Checkpoints>) -> Result<(), StepError> {
        if let Log::Captured(files) = &self.log {
            files.surveyed().await.map_err(MysqlError::from)?;
        }
        // Where a server comes into being in the run it is asked when the load begins.
        if self.shared.waits_for_a_step(outputs) {
            return Ok(());
        }
        self.replay(run, outputs).await?.check(checkpoints).await
    }
    async fn run(&self, context: LoadContext) -> Result<(), StepError> {
        self.replay(&context.run, &context.outputs).await?.run(context).await
    }
}
