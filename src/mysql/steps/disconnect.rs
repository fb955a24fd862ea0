//! `mysql.disconnect`: after the switch, closes clients' connections on the source and lets its lock go, then enables the events
//! on the target.
//!
//! Connections that clients still hold to the source would get errors at their next write, or, with
//! SUPER, write to the wrong server once the lock is gone. Closed, they connect again, where the
//! route now points. `read_only` stays on, and the event scheduler that the fence turned off stays off: events run on the target now.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reverse::privileged;
use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::fence;
use crate::mysql::objects::bring;
use crate::mysql::store::MysqlStore;

/// Arguments of `mysql.disconnect`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisconnectArguments {}

/// The step.
pub struct Disconnect {
    /// The store.
    pub store: Arc<MysqlStore>,
}

#[async_trait]
impl Step for Disconnect {
    fn name(&self) -> &'static str {
        "mysql.disconnect"
    }
    fn undoable(&self) -> Undoable {
        Undoable::Nothing
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan {
            lines: vec![
                format!("close every client connection on the {}, so that pools connect again", self.store.source),
                "let the global read lock go; `read_only` stays on, and no event runs there any more".to_owned(),
                format!("enable on the {} the events that are enabled on the source", self.store.target),
            ],
            warnings: Vec::new(),
        })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        // Before the switch it may not have been called off yet, and the lock is not there any more to prove anything by.
        super::fence::keep(context, &self.store).await?;
        let mut source = Session::open(&self.store.source, Purpose::Read).await?;
        let mut held = self.store.fence.lock().await;
        let own: Vec<u32> = held.as_ref().map(fence::Fence::connections).unwrap_or_default();
        // While the lock is held, so that nothing uncommitted slips through.
        let closed = fence::disconnect_clients(&mut source, &own).await?;
        if let Some(fence) = held.as_ref() {
            // From here on whoever passes `read_only` may write: what the way back asks the log about begins here.
            privileged::note_end(context, &self.store, &fence.position)?;
        }
        super::fence::let_go(context, &self.store, true)?;
        if let Some(fence) = held.take() {
            fence.release_lock().await;
        }
        // Where its session was lost on our side only.
        fence::end_holder(&mut source, &fence::name_in_cutover(&context.run, &self.store.name)).await?;
        source.close().await;
        let enabled = bring::enable_events(&self.store, context.epoch).await?;
        enabled.lines.iter().for_each(|line| tracing::warn!("{line}"));
        Ok(Output::default()
            .fact("closed", closed)
            .fact("events_enabled", enabled.events)
            .fact("event_notes", serde_json::json!(enabled.lines)))
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        // Closing what is closed changes nothing.
        Ok(Probe::NotStarted)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
