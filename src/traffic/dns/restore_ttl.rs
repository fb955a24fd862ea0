//! The step `traffic.restore_ttl`: when nobody has to go back any more, lets clients keep the record for as long as before. See [`dns`](super).
//!
//! It stands behind what closes the way back: from here on clients take the old TTL to follow a change, a rollback's too. A rehearsal that
//! tries a rollback leaves it out for that.

use std::sync::Arc;

use async_trait::async_trait;

use super::arguments::{RecordArguments, Records};
use super::lower_ttl::set_ttl;
use super::record::{Record, Value};
use super::{Lowered, SharedRecords, named};
use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};

/// The step `traffic.restore_ttl`.
pub struct RestoreTtl {
    records: Arc<Records>,
    /// The host of the store's target.
    target: String,
}

impl RestoreTtl {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.restore_ttl";

    /// From the arguments, the host of the store's target, and what the steps of the store share.
    ///
    /// # Errors
    /// If there is no such record.
    pub fn new(arguments: &RecordArguments, target: String, shared: &SharedRecords) -> Result<Self, StepError> {
        Ok(RestoreTtl { records: shared.find(arguments)?, target })
    }
}

/// Whose record is found.
fn refuse_foreign(name: &str, now: &Record, wanted: &Value) -> Result<(), StepError> {
    if now.value == *wanted {
        return Ok(());
    }
    Err(StepError::definite(format!("`{name}` is `{}`, not `{wanted}`. It was left as it is", now.value))
        .hint("clients are not where the switch has pointed them: find out who changed the record"))
}

#[async_trait]
impl Step for RestoreTtl {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    /// What went before puts the whole record back, its TTL with it.
    fn undoable(&self) -> Undoable {
        Undoable::Nothing
    }

    fn ends_way_back(&self) -> bool {
        true
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let line = match named(&self.records, context)? {
            Err(reason) => format!("not rehearsed: {reason}"),
            Ok(named) => match Lowered::of_run(context, &named.name)? {
                Some(lowered) => format!("let clients keep `{}` for {} again", named.name, lowered.before.ttl),
                None => format!("let clients keep `{}` for as long as before `traffic.lower_ttl`", named.name),
            },
        };
        Ok(Plan { lines: vec![line], warnings: Vec::new() })
    }

    async fn estimate(&self, _: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let named = match named(&self.records, context)? {
            Ok(named) => named,
            Err(reason) => return Ok(Output::default().fact("skipped", reason)),
        };
        let lowered = Lowered::needed(context, &named.name)?;
        let authority = named.authority(context).await?;
        let now = authority.look_everywhere().await?;
        refuse_foreign(&named.name.to_ascii(), &now, &named.wanted(context, &self.target).await?)?;
        set_ttl(context, named, &authority, &now, lowered.before.ttl).await?;
        Ok(Output::default().fact("name", named.name.to_ascii()).fact("ttl_seconds", lowered.before.ttl.0))
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let Ok(named) = named(&self.records, context)? else { return Ok(Probe::NotStarted) };
        let Some(lowered) = Lowered::of_run(context, &named.name)? else { return Ok(Probe::NotStarted) };
        let now = named.authority(context).await?.look().await?;
        Ok(match refuse_foreign(&named.name.to_ascii(), &now, &named.wanted(context, &self.target).await?) {
            Err(error) => Probe::Foreign { found: error.message },
            Ok(()) if now.ttl == lowered.before.ttl => Probe::Done,
            Ok(()) => Probe::NotStarted,
        })
    }

    async fn undo(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
