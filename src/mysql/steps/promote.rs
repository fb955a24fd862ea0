//! `mysql.promote`: makes the target ready to be written.
//!
//! AUTO_INCREMENT counters are raised to the source's (a counter can be ahead of the largest row, and
//! an id that was given out must not be given out again), and following ends with everything
//! applied: from here on nobody but clients writes to the target. Then, and not before, triggers and
//! events are created there (see [`crate::mysql::objects`]), events disabled. Undo drops these; it starts nothing by
//! itself: the engine starts the follow service again when the cutover is tried once more.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fence::keep;
use super::{STOP_GRACE, stoppable, writable};
use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::accounts;
use crate::mysql::catalog::ObjectKind;
use crate::mysql::counters;
use crate::mysql::objects;
use crate::mysql::objects::bring::{self, Bringing};
use crate::mysql::store::{Following, MysqlStore};
use crate::playbook::model::{AccountsOption, ObjectsOption};

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
    fn stops_within(&self) -> Duration {
        STOP_GRACE
    }
    fn undoable(&self) -> Undoable {
        // A counter that is too high harms nothing while nobody inserts; following is started by the engine.
        Undoable::Yes
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        let mut lines = vec![
            "raise AUTO_INCREMENT counters on the target to the source's".to_owned(),
            "end following: from here on only clients write to the target".to_owned(),
        ];
        if self.store.settings.objects == ObjectsOption::Move {
            let described = self.store.described().await?;
            let count = |kind| {
                let others = described.catalog.others.iter();
                others.filter(|object| object.kind == kind && objects::selects(&self.store.selection, object)).count()
            };
            lines.push("create, replace or drop views and routines that changed on the source since".to_owned());
            lines.push(format!("create {} triggers on the target", count(ObjectKind::Trigger)));
            lines.push(format!("create {} events there, disabled; `mysql.disconnect` enables them", count(ObjectKind::Event)));
        }
        if self.store.settings.accounts == AccountsOption::Move {
            lines.push("create, change or drop accounts on the target that changed on the source since".to_owned());
        }
        Ok(Plan { lines, warnings: Vec::new() })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let (_, raised) = stoppable(context, counters::raise(&self.store)).await?;
        let described = self.store.described().await?;
        let mut moving = accounts::bring::Bringing::open(&self.store, &described, context.epoch).await?;
        stoppable(context, moving.create()).await?;
        let mut bringing = Bringing::open(&self.store, &described, context.epoch).await?;
        let changed = stoppable(context, bringing.bring(&objects::BEFORE_THE_ROWS)).await?;
        self.store.finish_token().cancel();
        let ended = {
            let mut following = self.store.following.subscribe();
            let waited = tokio::time::timeout(PATIENCE, following.wait_for(|state| !matches!(state, Following::On(_)))).await;
            matches!(waited, Ok(Ok(_)))
        };
        if !ended {
            return Err(StepError::definite(format!(
                "following the source of `{}` did not end in time; nothing was switched",
                self.store.name
            )));
        }
        let brought = stoppable(context, bringing.bring(&objects::AT_THE_SWITCH)).await?;
        bringing.close().await;
        let moved = stoppable(context, moving.grant()).await?;
        moved.changes.iter().for_each(|change| tracing::warn!("{change}"));
        // Looked at before anybody was held, and again as late as can be: somebody may have set it meanwhile.
        writable::refuse_if_not(context, &self.store, "Nothing was switched").await?;
        if !context.point_of_no_return {
            // Whoever points clients elsewhere says so to nobody.
            keep(context, &self.store).await?;
        }
        let changes: Vec<String> = changed.changes.into_iter().chain(brought.changes).collect();
        changes.iter().for_each(|change| tracing::warn!("{change}"));
        Ok(Output::default()
            .fact("counters_raised", raised)
            .fact("objects_changed_since", changed.made + changed.dropped)
            .fact("triggers_and_events", brought.standing)
            .fact("accounts", moved.standing)
            .fact("accounts_changed_since", moved.made + moved.dropped)
            .fact("account_changes", serde_json::json!(moved.changes))
            .fact("passwords_needed", serde_json::json!(moved.passwords))
            .fact("object_changes", serde_json::json!(changes)))
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        // Raising counters and ending what has ended change nothing the second time.
        Ok(Probe::NotStarted)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        // Before anything is followed again: a trigger would repeat what the source's log holds already.
        bring::drop_noted(&self.store, &objects::AT_THE_SWITCH).await?;
        Ok(())
    }
}
