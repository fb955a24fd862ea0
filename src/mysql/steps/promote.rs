//! `mysql.promote`: makes the target ready to be written.
//!
//! AUTO_INCREMENT counters are raised to the source's (a counter can be ahead of the largest row, and
//! an id that was given out must not be given out again), and following ends with everything
//! applied: from here on nobody but clients writes to the target. Undo starts nothing by itself: the
//! engine starts the follow service again when the cutover is tried once more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stoppable;
use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::bookkeeping;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::error::MysqlError;
use crate::mysql::sql;
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

impl Promote {
    /// Raises the counters; how many.
    async fn counters(&self) -> Result<u64, MysqlError> {
        let described = self.store.described().await?;
        let mut source = Session::open(&self.store.source, Purpose::Catalog).await?;
        let mut target = Session::open(&self.store.target, Purpose::Catalog).await?;
        if target.version.mysql_from((8, 0, 0)) {
            // Else the server answers from a cache up to a day old.
            target.run("SET SESSION information_schema_stats_expiry = 0", "setting up the session").await?;
        }
        let databases: Vec<String> = described.schema.databases.iter().map(|database| sql::text(&database.name)).collect();
        let query = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES WHERE AUTO_INCREMENT IS NOT NULL AND TABLE_SCHEMA IN ({})",
            databases.join(", ")
        );
        let wanted = source.rows(&query, "reading AUTO_INCREMENT counters").await?;
        let held = target.rows(&query, "reading AUTO_INCREMENT counters").await?;
        // By name: there may be thousands of them, and writes are held meanwhile.
        let held: HashMap<(String, String), u64> =
            held.iter().map(|row| ((bookkeeping::text(row, 0), bookkeeping::text(row, 1)), bookkeeping::number(row, 2))).collect();
        let mut raised = 0;
        for row in wanted {
            let (database, table, counter) = (bookkeeping::text(&row, 0), bookkeeping::text(&row, 1), bookkeeping::number(&row, 2));
            let Some(id) = described.shared.tables.id(&database, &table) else { continue };
            if held.get(&(database, table)).is_some_and(|&now| now >= counter) {
                continue;
            }
            let name = described.shared.tables.get(id).name();
            target
                .run(&format!("ALTER TABLE {} AUTO_INCREMENT = {counter}", sql::table(name)), &format!("raising the counter of `{name}`"))
                .await?;
            raised += 1;
        }
        source.close().await;
        target.close().await;
        Ok(raised)
    }
}

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
        let raised = stoppable(context, self.counters()).await?;
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
