//! `mysql.assess`: looks whether this migration can work. Touches nothing.
//!
//! The looking is done in [`crate::mysql::assess`]. Here an error that the playbook does not accept refuses the run before anything is
//! changed (exit code 4); everything found is kept in the report.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::certificate::fact;
use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::assess::acceptance::Acceptance;
use crate::mysql::assess::gather::values::Rows;
use crate::mysql::assess::{self, Finding, Level, Looking, Part};
use crate::mysql::beside;
use crate::mysql::store::MysqlStore;
use crate::playbook::quantity::HumanSize;

/// Arguments of `mysql.assess`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssessArguments {
    /// What is accepted, by id and with a reason.
    #[serde(default)]
    pub accept: Vec<Acceptance>,
    /// Which rows are looked at: `sample` (default: both ends of each table), `all` or `none`.
    #[serde(default)]
    pub rows: RowsArgument,
    /// Free room on the target's disk, which most servers don't tell: `500GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_free: Option<HumanSize>,
}

/// Which rows are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowsArgument {
    /// None.
    None,
    /// Both ends of each table.
    #[default]
    Sample,
    /// All of them.
    All,
}

impl AssessArguments {
    /// As the checks take it.
    #[must_use]
    pub fn looking(&self) -> Looking<'_> {
        let rows = match self.rows {
            RowsArgument::None => Rows::None,
            RowsArgument::Sample => Rows::Sample,
            RowsArgument::All => Rows::All,
        };
        Looking { accept: &self.accept, rows, target_free: self.target_free.map(|size| size.0) }
    }
}

/// The step.
pub struct Assess {
    /// The store.
    pub store: Arc<MysqlStore>,
    /// What the playbook says.
    pub arguments: AssessArguments,
}

#[async_trait]
impl Step for Assess {
    fn name(&self) -> &'static str {
        "mysql.assess"
    }
    fn undoable(&self) -> Undoable {
        Undoable::Nothing
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan {
            lines: vec![format!(
                "look at the settings, privileges and tables of the {} and the {}; change nothing",
                self.store.source, self.store.target
            )],
            warnings: Vec::new(),
        })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn facts_today(&self, _context: &StepContext) -> Result<Option<BTreeMap<String, serde_json::Value>>, StepError> {
        Ok(Some(self.store.facts_today().await?))
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        beside::refuse(context, &self.store, "Nothing was changed").await?;
        let assessment = assess::assess(&self.store, Some(&context.run), &self.arguments.looking()).await?;
        // The journal keeps one finding a key: the n-th of an id is told apart by its number.
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for finding in &assessment.findings {
            let count = seen.entry(finding.id).or_default();
            *count += 1;
            let key = if *count == 1 { finding.id.to_owned() } else { format!("{}/{count}", finding.id) };
            context.find(&key, &serde_json::json!(finding))?;
        }
        for unused in &assessment.unused_acceptances {
            tracing::warn!(id = %unused.id, object = ?unused.object, "The playbook accepts what was not found; is its object mistyped?");
        }
        for skipped in &assessment.not_looked_at {
            if skipped.part == Part::TargetDisk {
                // Hardly any server tells: that is nothing to be woken for.
                tracing::info!(id = %skipped.id, why = %skipped.why, "A check could not look.");
            } else {
                tracing::warn!(id = %skipped.id, why = %skipped.why, "A check could not look.");
            }
        }
        for table in &assessment.rows.unread {
            tracing::warn!(table = %table.table, why = %table.why, "The rows of a table could not be looked at.");
        }
        let errors: Vec<&Finding> = assessment.findings.iter().filter(|finding| finding.stands(Level::Error)).collect();
        if let Some(first) = errors.first() {
            let lines: Vec<String> =
                errors.iter().map(|finding| format!("[{}] `{}`: {}", finding.id, finding.object, finding.found)).collect();
            return Err(StepError::new(
                Failure::Refused,
                format!("store `{}` can't be moved as it is. Nothing was changed.\n  {}", self.store.name, lines.join("\n  ")),
            )
            .hint(first.fix.clone()));
        }
        let described = self.store.described().await?;
        Ok(Output::default()
            .fact("findings", serde_json::json!(assessment.findings))
            .fact("not_looked_at", serde_json::json!(assessment.not_looked_at))
            .fact("tables", described.shared.tables.len() as u64)
            .fact("data_bytes", described.catalog.data_bytes())
            .fact("source_version", described.source.version.to_string())
            .fact("target_version", described.target.version.to_string())
            .fact(fact::SCHEMA, described.catalog.fingerprint())
            .fact(fact::SCHEMA_PARTS, serde_json::json!(described.catalog.parts())))
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        // It leaves nothing behind, so it is simply run again.
        Ok(Probe::NotStarted)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
