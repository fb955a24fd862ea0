//! `mysql.retire`: closes the way back for good. The end of the rollback window, in `settle`, behind a `gate.approve`.
//!
//! `mysql.reverse` ends where it is: what the target has logged since is only there, as everything from then on; how far it came is the fact
//! `position`. Then dbmove's own tables go from the source; those on the target go with the end of the run. The source is left as it is,
//! `read_only`: whoever puts it to another use takes that off. From here on `dbmove rollback` refuses. Running it again changes nothing.
//! A source that can't be reached is left as it is, and what stays on it is a finding (`left-on-the-source`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{reverse, source_gone};
use crate::engine::context::StepContext;
use crate::engine::crash;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::store::MysqlStore;

/// Arguments of `mysql.retire`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetireArguments {}

/// The step.
pub struct Retire {
    /// The store.
    pub store: Arc<MysqlStore>,
}

/// How long `mysql.reverse` gets to end.
const PATIENCE: Duration = Duration::from_secs(60);

impl Retire {
    /// Notes what stays on a source that can't be reached.
    fn note_left(&self, context: &StepContext) -> Result<String, StepError> {
        let triggers = reverse::triggers::put_aside(context, &self.store)?;
        let mut left = format!("`_dbmove` and `read_only` stay on the {}, which can't be reached", self.store.source);
        let mut fix =
            "if that server comes back and is put to another use: `DROP DATABASE _dbmove` there, `SET GLOBAL read_only = 0`".to_owned();
        if !triggers.is_empty() {
            let names: Vec<&str> = triggers.iter().map(|(name, _)| name.as_str()).collect();
            let statements: Vec<&str> = triggers.iter().map(|(_, statement)| statement.as_str()).collect();
            left = format!("{left}; not there are its {}", names.join(", "));
            fix = format!("{fix}, and make its triggers again:\n{};", statements.join(";\n"));
        }
        tracing::warn!(store = %self.store.name, "{left}");
        let finding = serde_json::json!({ "level": "warning", "object": self.store.name, "found": left, "fix": fix });
        context.find("left-on-the-source", &finding)?;
        Ok(left)
    }
}

#[async_trait]
impl Step for Retire {
    fn name(&self) -> &'static str {
        "mysql.retire"
    }
    fn undoable(&self) -> Undoable {
        Undoable::No("the way back is closed, and what is written on the target from then on is only there".to_owned())
    }
    fn ends_way_back(&self) -> bool {
        true
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan {
            lines: vec![
                "close the way back: no rollback from here on".to_owned(),
                format!("make the triggers again that were put aside on the {}", self.store.source),
                format!("remove dbmove's own tables from the {}, which stays `read_only`", self.store.source),
            ],
            warnings: Vec::new(),
        })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        reverse::note_retired(context, &self.store)?;
        let mut back = self.store.back.subscribe();
        let open = back.borrow().clone();
        let mut output = Output::default();
        if let Some(open) = open {
            open.finish_token().cancel();
            let ended = matches!(tokio::time::timeout(PATIENCE, back.wait_for(Option::is_none)).await, Ok(Ok(_)));
            if !ended {
                return Err(StepError::transient(format!(
                    "the way back of `{}` did not end within {} s",
                    self.store.name,
                    PATIENCE.as_secs()
                )));
            }
            output = output.fact("position", open.applied.borrow().position.to_string());
        }
        crash::point("retire.ended");
        match source_gone::reach(context, &self.store).await? {
            Some(source) => {
                source.close().await;
                reverse::triggers::bring_back(context, &self.store).await?;
                reverse::remove(&self.store).await?;
            }
            None => output = output.fact("left", self.note_left(context)?),
        }
        context.check_cancelled()?;
        Ok(output)
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        // Closing what is closed changes nothing.
        Ok(Probe::NotStarted)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
