//! The step `traffic.lower_ttl`: long before the switch, lets clients keep the record for a short time only. See [`dns`](super).
//!
//! It lowers the record's TTL, sees that every server of the zone shows it, and waits until nobody can keep the record for longer any more:
//! the old TTL, from when the last server showed the lower one. A rerun goes on with that wait. Where the TTL was short before there is nothing to
//! lower and to wait for; in the end every resolver has to go by it all the same.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::arguments::{LowerArguments, Named, Records};
use super::authority::{Authority, Awaited};
use super::record::{Record, Ttl};
use super::{LOWERED, Lowered, SharedRecords, keep, kept, named};
use crate::engine::context::{Progress, RunKind, StepContext};
use crate::engine::crash;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::hook::message::printable;
use crate::playbook::quantity::HumanDuration;

/// The checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// What was there before the first effect.
    before: Record,
    /// Since when every server shows the lower TTL.
    shown_since: Option<Timestamp>,
}

/// Under which [`Kept`] is saved; `null` once undone.
const CHECKPOINT: &str = "record";
/// Between two reports while the old TTL is waited out.
const REPORT_EVERY: Duration = Duration::from_secs(1);

impl Kept {
    /// What it comes to. A TTL that was short before stays as it is.
    fn lowered(&self, named: &Named) -> Lowered {
        Lowered { name: named.name.to_ascii(), before: self.before.clone(), ttl: named.ttl.min(self.before.ttl) }
    }

    /// How long somebody may still keep the record with the old TTL.
    fn left(&self, now: Timestamp) -> Duration {
        let whole = self.before.ttl.duration();
        let Some(since) = self.shown_since else { return whole };
        // A clock that was set back: then nobody knows how long ago it was.
        Duration::try_from(now.duration_since(since)).map_or(whole, |passed| whole.saturating_sub(passed))
    }
}

/// The step `traffic.lower_ttl`.
pub struct LowerTtl {
    records: Arc<Records>,
    /// The host of the store's target.
    target: String,
}

impl LowerTtl {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.lower_ttl";

    /// From the arguments, the host of the store's target, and what the steps of the store share.
    ///
    /// # Errors
    /// If an argument can't be used; the message names it.
    pub fn new(arguments: &LowerArguments, target: String, shared: &SharedRecords) -> Result<Self, StepError> {
        Ok(LowerTtl { records: shared.tell(Records::read(arguments)?), target })
    }

    /// Whether the arguments can be used, without a store.
    ///
    /// # Errors
    /// As [`LowerTtl::new`].
    pub fn check(arguments: &LowerArguments) -> Result<(), StepError> {
        Records::read(arguments).map(drop)
    }

    /// Sees that every server shows the short TTL, and that every resolver goes by it.
    async fn see_it_kept_shortly(context: &StepContext, named: &Named, authority: &Authority, kept: &Kept) -> Result<(), StepError> {
        let lowered = kept.lowered(named);
        let record = lowered.record();
        let awaited = Awaited { record: &record, before: &record.value, kept_for: lowered.ttl };
        authority.wait_until_shown(context, awaited).await?.map_err(|lagging| {
            let name = &named.name;
            let stands = match kept.before.ttl > lowered.ttl {
                true => format!("the old TTL of `{name}` is over"),
                false => format!("the TTL of `{name}` was short already"),
            };
            StepError::definite(format!("{stands}, and not everybody keeps it for {} only: {}", lowered.ttl, lagging.told()))
            .hint("a resolver that keeps records for longer than they say (`min-cache-ttl` and the like) would lead its clients to the source after the switch")
        })
    }

    /// Waits until nobody keeps the record for longer.
    async fn wait_out(context: &StepContext, named: &Named, kept: &Kept) -> Result<(), StepError> {
        let (began, whole) = (Instant::now(), kept.before.ttl.duration());
        let left = kept.left(Timestamp::now());
        loop {
            let left = left.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            context.report(Progress {
                done: (whole.saturating_sub(left)).as_secs(),
                total: Some(whole.as_secs()),
                unit: "seconds".to_owned(),
                note: format!(
                    "whoever looked up `{}` before its TTL was lowered may keep it for another {}",
                    named.name,
                    HumanDuration(Duration::from_secs(left.as_secs() + 1))
                ),
                ..Progress::default()
            });
            tokio::select! {
                () = tokio::time::sleep(left.min(REPORT_EVERY)) => {}
                () = context.cancel.cancelled() => return Err(StepError::cancelled()),
            }
        }
    }
}

/// Changes only how long `now` may be kept, and sees that every server of the zone shows it.
pub(super) async fn set_ttl(context: &StepContext, named: &Named, authority: &Authority, now: &Record, ttl: Ttl) -> Result<(), StepError> {
    let wanted = Record { value: now.value.clone(), ttl };
    if *now != wanted {
        let signer = named.signer(context).await?;
        let answered = authority.change(Some(&now.value), &wanted, &signer).await;
        crash::point("dns.ttl_changed");
        if let Err(error) = answered
            && authority.look().await.ok().as_ref() != Some(&wanted)
        {
            return Err(StepError { message: format!("{}; `{}` is {now} as before", error.message, named.name), ..error });
        }
    }
    let awaited = Awaited { record: &wanted, before: &now.value, kept_for: Ttl(0) };
    match authority.without_resolvers().wait_until_shown(context, awaited).await? {
        Ok(()) => Ok(()),
        Err(lagging) => Err(StepError::definite(format!(
            "`{}` was set to {wanted}, and within {} not every server shows it: {}",
            named.name,
            HumanDuration(named.within),
            lagging.told()
        ))
        .hint("see whether that server gets the zone from its primary; until it does, the switch would not reach everybody")),
    }
}

#[async_trait]
impl Step for LowerTtl {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }

    fn undo_does(&self) -> String {
        format!("give `{}` its TTL back", self.records.production.name)
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let named = match named(&self.records, context)? {
            Ok(named) => named,
            Err(reason) => return Ok(Plan { lines: vec![format!("not rehearsed: {reason}")], warnings: Vec::new() }),
        };
        let mut plan = Plan::default();
        let found = async {
            let authority = named.authority(context).await?;
            let now = kept::<Kept>(context, CHECKPOINT)?.map(|kept| kept.before);
            let now = match now {
                Some(before) => before,
                None => authority.look_everywhere().await?,
            };
            authority.refuse_company(&named.wanted(context, &self.target).await?).await?;
            Ok::<_, StepError>((now, authority.shown(), authority.overlooked().await?))
        };
        match found.await {
            Ok((now, shown, overlooked)) if now.ttl <= named.ttl => {
                plan.warnings.extend(overlooked);
                plan.lines.push(format!("`{}` is {now} at {shown}: short enough for the switch, if every resolver goes by it", named.name));
            }
            Ok((now, shown, overlooked)) => {
                plan.warnings.extend(overlooked);
                plan.lines.push(format!("let clients keep `{}` for {} only; it is {now} at {shown}", named.name, named.ttl));
                plan.lines.push(format!("then wait {}, until nobody keeps it for longer any more", now.ttl));
                plan.lines.push(format!("to undo it, let clients keep it for {} again", now.ttl));
            }
            Err(error) => {
                plan.lines.push(format!("let clients keep `{}` for {} only, and wait out its TTL", named.name, named.ttl));
                plan.warnings.push(format!("`{}`: {}", context.step, error.message));
            }
        }
        if let (RunKind::Production, Some(reason)) = (context.kind, self.records.never_rehearsed()) {
            plan.warnings.push(format!("`{}` was never rehearsed: {}", context.step, printable(reason)));
        }
        Ok(plan)
    }

    /// The TTL as it is today: a question to a name server, for which no secret is needed.
    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError> {
        let named = match named(&self.records, context)? {
            Ok(named) if named.refers() => {
                return Ok(Estimate::Unknown(format!("the servers of `{}` are known when it begins", named.name)));
            }
            Ok(named) => named,
            Err(_) => return Ok(Estimate::Instant),
        };
        if let Some(kept) = kept::<Kept>(context, CHECKPOINT)? {
            let basis = format!("what is left of the TTL of {} that `{}` had", kept.before.ttl, named.name);
            return Ok(Estimate::Expected { duration: kept.left(Timestamp::now()), basis });
        }
        let now = match named.authority(context).await {
            Ok(authority) => authority.look().await.map_err(StepError::from),
            Err(error) => Err(error),
        };
        Ok(match now {
            Ok(now) if now.ttl <= named.ttl => Estimate::Instant,
            Ok(now) => Estimate::Expected { duration: now.ttl.duration(), basis: format!("`{}` has a TTL of {}", named.name, now.ttl) },
            Err(error) => Estimate::Unknown(error.message),
        })
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let named = match named(&self.records, context)? {
            Ok(named) => named,
            Err(reason) => return Ok(Output::default().fact("skipped", reason)),
        };
        let authority = named.authority(context).await?;
        let now = authority.look_everywhere().await?;
        let mut kept = match kept::<Kept>(context, CHECKPOINT)? {
            None => Kept { before: now.clone(), shown_since: None },
            Some(kept) if kept.before.value == now.value => kept,
            Some(kept) => {
                return Err(StepError::definite(format!(
                    "`{}` is `{}` now, and was `{}` when this step began. It was left as it is",
                    named.name, now.value, kept.before.value
                ))
                .hint("find out who changed it; put the old value there, or give the run up with `dbmove undo PLAYBOOK` and begin anew"));
            }
        };
        let wanted = named.wanted(context, &self.target).await?;
        if now.value == wanted {
            return Err(StepError::definite(format!("`{}` is `{wanted}` already: clients are at the target", named.name))
                .hint("check `target`, and who changed the record"));
        }
        authority.refuse_company(&wanted).await?;
        let lowered = kept.lowered(named);
        if now.ttl > lowered.ttl {
            // Also where somebody has raised it again: whoever looked it up since may keep it.
            kept.shown_since = None;
            kept.before.ttl = kept.before.ttl.max(now.ttl);
        }
        keep(context, CHECKPOINT, Some(&kept))?;
        let output = Output::default()
            .fact(LOWERED, serde_json::to_value(&lowered).unwrap_or_default())
            .fact("name", named.name.to_ascii())
            .fact("value", kept.before.value.to_string())
            .fact("ttl_before_seconds", kept.before.ttl.0)
            .fact("ttl_seconds", lowered.ttl.0);
        context.save_output(&output)?;
        if kept.before.ttl > lowered.ttl {
            set_ttl(context, named, &authority, &now, lowered.ttl).await?;
            if kept.shown_since.is_none() {
                kept.shown_since = Some(Timestamp::now());
                keep(context, CHECKPOINT, Some(&kept))?;
            }
            crash::point("dns.waiting");
            Self::wait_out(context, named, &kept).await?;
        }
        Self::see_it_kept_shortly(context, named, &authority, &kept).await?;
        Ok(output)
    }

    async fn finish(&self, context: &StepContext) -> Result<(), StepError> {
        let Ok(named) = named(&self.records, context)? else { return Ok(()) };
        let Some(kept) = kept::<Kept>(context, CHECKPOINT)? else { return Ok(()) };
        Self::see_it_kept_shortly(context, named, &named.authority(context).await?, &kept).await
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let Ok(named) = named(&self.records, context)? else { return Ok(Probe::NotStarted) };
        let Some(kept) = kept::<Kept>(context, CHECKPOINT)? else { return Ok(Probe::NotStarted) };
        let now = named.authority(context).await?.look().await?;
        if now.value != kept.before.value {
            return Ok(Probe::Foreign { found: format!("`{}` is `{}`, and was `{}`", named.name, now.value, kept.before.value) });
        }
        Ok(match kept.left(Timestamp::now()) {
            _ if now.ttl > named.ttl => Probe::Partly { from: format!("`{}` has a TTL of {}", named.name, now.ttl) },
            _ if kept.before.ttl <= named.ttl => Probe::Done,
            left if left.is_zero() => Probe::Done,
            left => Probe::Partly {
                from: format!("the old TTL of `{}` is over in {}", named.name, HumanDuration(Duration::from_secs(left.as_secs() + 1))),
            },
        })
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        let Ok(named) = named(&self.records, context)? else { return Ok(()) };
        let Some(kept) = kept::<Kept>(context, CHECKPOINT)? else { return Ok(()) };
        let authority = named.authority(context).await?;
        let now = authority.look().await?;
        if now.value != kept.before.value {
            return Err(StepError::definite(format!(
                "`{}` is `{}`, and was `{}` when its TTL was lowered. It was left as it is, with a TTL of {}",
                named.name, now.value, kept.before.value, now.ttl
            ))
            .hint(format!("find out who changed it; its TTL was {}", kept.before.ttl)));
        }
        set_ttl(context, named, &authority, &now, kept.before.ttl).await?;
        // A later run of the step begins anew.
        keep::<Kept>(context, CHECKPOINT, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::dns::record::Value;

    #[test]
    fn a_wait_goes_on_where_it_was() {
        let before = Record { value: Value::of_host("10.0.0.1").unwrap(), ttl: Ttl(3600) };
        let since: Timestamp = "2026-11-28T16:00:00Z".parse().unwrap();
        let kept = |shown_since| Kept { before: before.clone(), shown_since };
        let left = |kept: Kept, minutes: i64| kept.left(since + jiff::SignedDuration::from_mins(minutes)).as_secs();
        assert_eq!(left(kept(None), 10), 3600);
        assert_eq!(left(kept(Some(since)), 10), 3000);
        assert_eq!(left(kept(Some(since)), 60), 0);
        assert_eq!(left(kept(Some(since)), 6000), 0);
        // The clock was set back.
        assert_eq!(left(kept(Some(since)), -10), 3600);
    }
}
