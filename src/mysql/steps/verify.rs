//! `mysql.verify`: compares every row, or (`scope: changed`, at the fence) what events touched since.
//!
//! Equal is the only success. Differences end the step with exit code 3, and name every row up to a
//! limit; nothing is repaired unless `repair` asks for it, and then everything is compared once more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::snapshot::{self, COUNTERS};
use super::{Meter, STOP_GRACE, from_rate, rows_progress, shown, stoppable};
use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, Undoable, Work};
use crate::mysql::accounts;
use crate::mysql::counters::Counters;
use crate::mysql::foreign::{self, Baseline};
use crate::mysql::names::TableName;
use crate::mysql::objects::compare::compare;
use crate::mysql::store::{Following, MysqlStore};
use crate::mysql::verification::full::VerifyProgress;
use crate::mysql::verification::repair::Repaired;
use crate::mysql::verification::{Engine, Verifier};
use crate::verify::report::{ForeignLook, Verification, foremost};

/// Checkpoint key (as a step's name) of the verified floor, by store.
pub const FLOOR: &str = "mysql.verify.floor";
/// Checkpoint key (as a step's name) of what others had written to the target when the last full comparison that found all equal began, by store.
pub const FOREIGN: &str = "mysql.verify.foreign";
/// Checkpoint key (as a step's name) of the last full comparison, by store.
pub const FULL: &str = "mysql.verify.full";

/// The kind under which the comparison is recorded in the journal, equal or not.
const RESULT: &str = "verification";

/// What is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifyScope {
    /// Every row of every table.
    #[default]
    All,
    /// What events touched since the last full comparison. At the fence.
    Changed,
}

/// Arguments of `mysql.verify`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyArguments {
    /// `all` (default) or `changed`.
    #[serde(default)]
    pub scope: VerifyScope,
    /// Where rows are hashed: `auto` (default), `client`, `server`.
    #[serde(default)]
    pub engine: Engine,
    /// Chunks compared at once. Default 3.
    #[serde(default)]
    pub workers: Option<u8>,
    /// Copies rows that differ once more, then compares everything again. `scope: all` only. Default `false`: a difference is for a person to look at.
    #[serde(default)]
    pub repair: bool,
}

impl VerifyArguments {
    /// Refuses what can't be meant.
    ///
    /// # Errors
    /// If a comparison at the fence is asked to repair.
    pub fn check(&self) -> Result<(), StepError> {
        if self.repair && self.scope == VerifyScope::Changed {
            return Err(StepError::definite(
                "`repair` is not possible with `scope: changed`: at the fence nothing may be written any more",
            )
            .hint("repair in the stage `verify`, where everything is compared again afterwards"));
        }
        Ok(())
    }
}

/// Rounds of repairing and comparing again at most: rows that were touched meanwhile are left for the next one.
const REPAIRS: u32 = 5;

/// The step.
pub struct Verify {
    /// The store.
    pub store: Arc<MysqlStore>,
    /// Its arguments.
    pub arguments: VerifyArguments,
}

impl Verify {
    async fn all(&self, context: &StepContext) -> Result<Output, StepError> {
        let moving = *self.store.following.borrow() != Following::Finished;
        // Everything up to here is applied and will be compared; everything later is marked.
        let floor = self.store.applied.borrow().position.clone();
        let verifier = Arc::new(Verifier::new(&self.store, self.arguments.engine, moving).await?);
        let described = self.store.described().await?;
        let expected: u64 = described.catalog.tables.values().map(|table| table.row_estimate).sum();
        let progress = Arc::new(VerifyProgress::default());
        let meter = Meter::default();
        let show = || rows_progress(progress.rows.load(Ordering::Relaxed), expected, &meter, progress.note(), context.steering.paused());
        let started = Instant::now();
        let foreign_before = foreign::baseline(&self.store).await?;
        let counters = self.counters(context)?;
        let structure = stoppable(context, verifier.structure(None, &counters, &context.cancel)).await?;
        let workers = usize::from(self.arguments.workers.unwrap_or(3).max(1));
        let mut verification = shown(context, &show, verifier.full(workers, &progress, &context.steering, &context.cancel)).await?;
        for _ in 0..REPAIRS {
            if !self.arguments.repair || verification.difference_count == 0 {
                break;
            }
            let done = shown(context, &show, verifier.repair(context.epoch, &context.cancel)).await?;
            tracing::warn!(rows = done.rows, left = done.left, "copied rows that differed once more");
            if done == Repaired::default() {
                break;
            }
            let before = std::mem::replace(
                &mut verification,
                shown(context, &show, verifier.full(workers, &progress, &context.steering, &context.cancel)).await?,
            );
            verification.repaired_since(before);
        }
        structure.into_verification(&mut verification);
        let objects = stoppable(context, compare(&self.store, &described)).await?;
        verification.structure.extend(objects.differences);
        let accounts = stoppable(context, accounts::compare::compare(&self.store)).await?;
        verification.structure.extend(accounts.differences);
        verification.outside.extend(accounts.outside);
        verification.foreign = Some(foreign_look(&self.store, context, snapshot::FOREIGN).await?);
        context.record(RESULT, &self.store.name, &serde_json::json!(verification))?;
        judge(&verification, self.arguments.repair)?;
        context.checkpoints.save(FOREIGN, &self.store.name, &serde_json::json!(foreign_before))?;
        context.checkpoints.save(FLOOR, &self.store.name, &serde_json::json!(floor))?;
        context.checkpoints.save(FULL, &self.store.name, &serde_json::json!(verification))?;
        self.store.verified_floor.send_replace(Some(floor));
        Ok(output(&verification, started.elapsed().as_secs_f64(), true)
            .fact("objects", objects.objects)
            .fact("accounts", accounts.accounts))
    }

    /// What the target's counters were raised to when the rows were in.
    fn counters(&self, context: &StepContext) -> Result<Counters, StepError> {
        let saved: Vec<(TableName, u64)> = match context.checkpoints.load(COUNTERS, &self.store.name)? {
            Some(value) => serde_json::from_value(value).unwrap_or_default(),
            None => Vec::new(),
        };
        Ok(saved.into_iter().collect())
    }

    async fn changed(&self, context: &StepContext) -> Result<Output, StepError> {
        let full: Option<Verification> = match context.checkpoints.load(FULL, &self.store.name)? {
            Some(value) => serde_json::from_value(value).ok(),
            None => None,
        };
        let Some(full) = full else {
            return Err(StepError::definite(format!(
                "store `{}` was never compared in full, so comparing what changed since means nothing",
                self.store.name
            ))
            .hint("put a `mysql.verify` step with `scope: all` into the `verify` stage"));
        };
        if self.store.fence.lock().await.is_none() {
            return Err(StepError::definite(format!(
                "the source of `{}` is not fenced: rows may change while they are compared",
                self.store.name
            ))
            .hint("put `mysql.fence` and `mysql.catch_up` before this step"));
        }
        let started = Instant::now();
        let described = self.store.described().await?;
        let verifier = Verifier::new(&self.store, self.arguments.engine, false).await?;
        let mut verification = stoppable(context, verifier.last(&full, &context.cancel)).await?;
        let counters = self.counters(context)?;
        let structure = stoppable(context, verifier.structure(Some(&full.structure_seen), &counters, &context.cancel)).await?;
        structure.into_verification(&mut verification);
        let objects = stoppable(context, compare(&self.store, &described)).await?;
        verification.structure.extend(objects.differences);
        let accounts = stoppable(context, accounts::compare::compare(&self.store)).await?;
        verification.structure.extend(accounts.differences);
        verification.outside.extend(accounts.outside);
        verification.foreign = Some(foreign_look(&self.store, context, FOREIGN).await?);
        verification.foreign = Some(foreign_look(&self.store, context, snapshot::FOREIGN).await?);
        context.record(RESULT, &self.store.name, &serde_json::json!(verification))?;
        judge(&verification, false)?;
        Ok(output(&verification, started.elapsed().as_secs_f64(), false)
            .fact("objects", objects.objects)
            .fact("accounts", accounts.accounts))
    }
}

/// Who else wrote to the target since the baseline under this key; from now on, if there is none.
///
/// # Errors
/// If the target can't be reached or the journal can't be read.
pub async fn foreign_look(store: &MysqlStore, context: &StepContext, key: &str) -> Result<ForeignLook, StepError> {
    let since: Option<Baseline> = match context.checkpoints.load(key, &store.name)? {
        Some(value) => serde_json::from_value(value).ok(),
        None => None,
    };
    let since = match since {
        Some(since) => since,
        None => foreign::baseline(store).await?,
    };
    let found = foreign::look(store, &since).await?;
    for writer in &found.writers {
        tracing::warn!(store = %store.name, "on the target {}", writer.line());
    }
    Ok(found)
}

/// Lines of differences in the error's message at most; the report has more.
const LINES: usize = 20;

fn judge(verification: &Verification, repairing: bool) -> Result<(), StepError> {
    let (rows, structure) = (verification.difference_count, verification.structure.len());
    if rows == 0 && structure == 0 {
        return Ok(());
    }
    let repaired = match verification.repaired_count {
        0 => String::new(),
        count => format!(" ({count} that differed were repaired)"),
    };
    let what = match (rows, structure) {
        (0, _) => format!("the target's structure differs in {structure} places{repaired}"),
        (_, 0) => format!("{rows} rows differ between source and target{repaired}"),
        _ => format!("{rows} rows differ between source and target{repaired}, and the target's structure differs in {structure} places"),
    };
    let mut lines: Vec<String> = verification.structure.iter().take(LINES).map(|difference| format!("  {}", difference.line())).collect();
    let rows_first = foremost(&verification.differences, |difference| &difference.table, LINES);
    lines.extend(rows_first.into_iter().map(|difference| format!("  {}", difference.line())));
    let more = (rows + structure as u64).saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("  … and {more} more"));
    }
    Err(StepError::new(Failure::Differences, format!("{what}:\n{}", lines.join("\n"))).hint(match (rows, repairing) {
        (0, _) => {
            "only rows are repaired, never the structure: find what changed it, put it back on the target by hand and compare again, or give the run up with `dbmove undo PLAYBOOK` and copy again"
        }
        (_, true) => {
            "these rows could not be repaired: they were written all the while, or the target refused them; find what writes to the target, repair again, or give the run up with `dbmove undo PLAYBOOK` and copy again"
        }
        (_, false) => {
            "nothing was repaired; find what wrote to the target, then copy these rows again with `dbmove verify PLAYBOOK --repair`, or give the run up with `dbmove undo PLAYBOOK`"
        }
    }))
}

fn output(verification: &Verification, seconds: f64, rates: bool) -> Output {
    let rows = verification.rows();
    let work = Work { unit: "rows".to_owned(), amount: rows.max(1), seconds };
    Output { work: Some(work).filter(|_| rates), ..Output::default() }
        .fact("rows", rows)
        .fact("tables", verification.tables.len() as u64)
        .fact("differences", verification.difference_count)
        .fact("repaired", verification.repaired_count)
        .fact("structure_differences", verification.structure.len() as u64)
        .fact("structure_tables", verification.structure_tables)
        .fact("run_root", verification.run_root.map(|root| root.to_string()).unwrap_or_default())
        .fact("verdict", serde_json::json!(verification.verdict()))
        .fact("verification", serde_json::json!(verification))
        .fact("seconds", seconds)
}

#[async_trait]
impl Step for Verify {
    fn name(&self) -> &'static str {
        "mysql.verify"
    }
    fn stops_within(&self) -> Duration {
        STOP_GRACE
    }
    fn undoable(&self) -> Undoable {
        Undoable::Nothing
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        let line = match self.arguments.scope {
            VerifyScope::All => "compare every table's structure, and every row by content while both sides change; change nothing",
            VerifyScope::Changed => "compare every row that changed since the full comparison, at the fence; change nothing",
        };
        Ok(Plan { lines: vec![line.to_owned()], warnings: Vec::new() })
    }
    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError> {
        if self.arguments.scope == VerifyScope::Changed {
            return Ok(Estimate::Instant);
        }
        let described = self.store.described().await?;
        Ok(from_rate(context, "rows", described.catalog.tables.values().map(|table| table.row_estimate).sum()))
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        match self.arguments.scope {
            VerifyScope::All => loop {
                // What is being copied again can't be equal yet.
                let mut again = self.store.again.subscribe();
                tokio::select! {
                    () = context.cancel.cancelled() => return Err(StepError::cancelled()),
                    _ = again.wait_for(BTreeSet::is_empty) => {}
                }
                let mut steady = self.store.definitions.steady().await;
                if !self.store.again.borrow().is_empty() {
                    continue;
                }
                tokio::select! {
                    biased;
                    compared = async {
                        let compared = self.all(context).await;
                        if let Err(error) = &compared {
                            self.store.failed_by_itself(error).await;
                        }
                        compared
                    } => return compared,
                    () = steady.ended() => tracing::warn!(store = %self.store.name, "definitions change on the source: everything is compared from the beginning"),
                }
            },
            VerifyScope::Changed => {
                let _steady = self.store.definitions.steady().await;
                self.changed(context).await
            }
        }
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        // It leaves nothing in the world, so it is simply run again.
        Ok(Probe::NotStarted)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_repaired_at_the_fence() {
        let arguments = |scope, repair| VerifyArguments { scope, repair, ..VerifyArguments::default() };
        assert!(arguments(VerifyScope::All, true).check().is_ok() && arguments(VerifyScope::Changed, false).check().is_ok());
        let refused = arguments(VerifyScope::Changed, true).check().unwrap_err();
        assert!(refused.to_string().contains("`scope: changed`"), "{refused}");
    }
}
