//! `mysql.fence`: stops writes to the source, with proof. See [`crate::mysql::fence`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::context::StepContext;
use crate::engine::crash;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::fence::{self, Fence};
use crate::mysql::store::MysqlStore;
use crate::playbook::quantity::HumanDuration;

/// Arguments of `mysql.fence`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FenceArguments {
    /// How long running statements get before they are killed. Default `5s`.
    #[serde(default)]
    pub grace: Option<HumanDuration>,
}

/// The step.
pub struct RaiseFence {
    /// The store.
    pub store: Arc<MysqlStore>,
    /// Its arguments.
    pub arguments: FenceArguments,
}

/// Checkpoint: the `read_only` that the source had.
const READ_ONLY_BEFORE: &str = "read_only_before";

impl RaiseFence {
    /// Notes the `read_only` the source had, once.
    async fn note(&self, context: &StepContext) -> Result<(), StepError> {
        if context.load_checkpoint(READ_ONLY_BEFORE)?.is_some() {
            return Ok(());
        }
        let mut source = Session::open(&self.store.source, Purpose::Read).await?;
        let before = fence::read_only(&mut source).await?;
        source.close().await;
        context.save_checkpoint(READ_ONLY_BEFORE, &serde_json::json!(before))
    }
}

#[async_trait]
impl Step for RaiseFence {
    fn name(&self) -> &'static str {
        "mysql.fence"
    }
    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }
    fn volatile(&self) -> bool {
        true
    }
    fn holds_writes(&self) -> bool {
        true
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        let grace = self.arguments.grace.map_or(Duration::from_secs(5), |grace| grace.0);
        Ok(Plan {
            lines: vec![
                format!("set `read_only` on the {}", self.store.source),
                format!("take the global read lock there and hold it; kill statements that are in its way after {} s", grace.as_secs_f64()),
                "prove it: a write probe does not pass, the log's position stands still".to_owned(),
            ],
            warnings: Vec::new(),
        })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let mut held = self.store.fence.lock().await;
        if let Some(fence) = held.as_mut()
            && fence.check().await.is_ok()
        {
            return Ok(Output::default().fact("position", fence.position.to_string()).fact("killed", fence.killed));
        }
        self.note(context).await?;
        crash::point("fence.noted");
        let grace = self.arguments.grace.map_or(Duration::from_secs(5), |grace| grace.0);
        let fence = Fence::raise(&self.store.source, grace, &context.cancel).await?;
        crash::point("fence.raised");
        let output = Output::default().fact("position", fence.position.to_string()).fact("killed", fence.killed);
        *held = Some(fence);
        Ok(output)
    }
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        if let Some(fence) = self.store.fence.lock().await.as_mut()
            && fence.check().await.is_ok()
        {
            return Ok(Probe::Done);
        }
        let Some(before) = context.load_checkpoint(READ_ONLY_BEFORE)? else { return Ok(Probe::NotStarted) };
        let mut source = Session::open(&self.store.source, Purpose::Read).await?;
        let now = fence::read_only(&mut source).await?;
        source.close().await;
        if before == serde_json::json!(now) {
            return Ok(Probe::NotStarted);
        }
        Ok(Probe::Partly { from: "`read_only` is set, the lock is not held".to_owned() })
    }
    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        if let Some(fence) = self.store.fence.lock().await.take() {
            fence.release_lock().await;
        }
        if let Some(before) = context.load_checkpoint(READ_ONLY_BEFORE)? {
            let mut source = Session::open(&self.store.source, Purpose::Read).await?;
            fence::end_left_behind(&mut source).await?;
            if before.as_bool() == Some(false) {
                fence::set_read_only(&mut source, false).await?;
            }
            source.close().await;
        }
        Ok(())
    }
}
