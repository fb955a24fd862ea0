//! `mysql.disconnect`: after the switch, closes clients' connections on the source and lets its lock go, then enables the events
//! on the target.
//!
//! Connections that clients still hold to the source would get errors at their next write, or, with
//! SUPER, write to the wrong server once the lock is gone. Closed, they connect again, where the
//! route now points. `read_only` stays on, and the event scheduler that the fence turned off stays off: events run on the target now.
//! A source that can't be reached any more is left alone, see [`source_gone`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reverse::privileged;
use super::source_gone;
use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
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

/// How long letting the lock of a server go may take that could not be reached.
const LETTING_GO: Duration = Duration::from_secs(1);

impl Disconnect {
    /// What there is to do where the source can't be reached behind the switch: its scheduler was turned off by the fence, or is gone with it.
    async fn without_source(&self, context: &StepContext) -> Result<Output, StepError> {
        super::fence::let_go(context, &self.store, true)?;
        if let Some(fence) = self.store.fence.lock().await.take() {
            // Its connection is lost, most likely; if it is not, the lock goes with it.
            let _ = tokio::time::timeout(LETTING_GO, fence.release_lock()).await;
        }
        Ok(self.enable_events(context).await?.fact("closed", 0).fact("source", "it could not be reached"))
    }

    async fn enable_events(&self, context: &StepContext) -> Result<Output, StepError> {
        let enabled = bring::enable_events(&self.store, context.epoch).await?;
        enabled.lines.iter().for_each(|line| tracing::warn!("{line}"));
        Ok(Output::default().fact("events_enabled", enabled.events).fact("event_notes", serde_json::json!(enabled.lines)))
    }
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
        let Some(mut source) = source_gone::reach(context, &self.store).await? else {
            return self.without_source(context).await;
        };
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
        Ok(self.enable_events(context).await?.fact("closed", closed))
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        // Closing what is closed changes nothing.
        Ok(Probe::NotStarted)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
