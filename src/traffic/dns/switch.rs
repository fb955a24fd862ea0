//! The step `traffic.dns`: changes the record from the source to the target, and waits until everybody is told. See [`dns`](super).
//!
//! Settled by looking, like every switch: a change whose answer was lost has happened if the record shows it, and one that was answered well has
//! not until every server shows it. A server that loses the record in the change (it can't hold the new one) is noticed, and the old one
//! put there again.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::arguments::{Named, RecordArguments, Records};
use super::authority::{Authority, Awaited};
use super::error::DnsError;
use super::record::{Record, Ttl};
use super::{Lowered, SharedRecords, keep, kept, named};
use crate::engine::context::{RunKind, StepContext};
use crate::engine::crash;
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, Undoable, Work};
use crate::hook::message::printable;
use crate::playbook::quantity::HumanDuration;
use crate::traffic::skipped::left_out;

/// The checkpoint: what is changed into what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Switched {
    from: Record,
    to: Record,
    /// Somebody did not show it in time, and it is to be undone.
    #[serde(default)]
    gave_up: bool,
}

/// Under which [`Switched`] is saved; `null` once undone.
const CHECKPOINT: &str = "switched";

/// What stands at the record's name, seen from this step.
enum Standing {
    Before(Record),
    Ours(Record),
    /// No record at all.
    Gone,
    Foreign(String),
}

impl Switched {
    async fn standing(&self, authority: &Authority, name: &str) -> Result<Standing, StepError> {
        let now = match authority.look().await {
            Ok(now) => now,
            Err(DnsError::NoRecord { .. }) => return Ok(Standing::Gone),
            Err(error @ DnsError::Several { .. }) => return Ok(Standing::Foreign(printable(&error.to_string()))),
            Err(error) => return Err(error.into()),
        };
        Ok(if now.value == self.from.value {
            Standing::Before(now)
        } else if now.value == self.to.value {
            Standing::Ours(now)
        } else {
            Standing::Foreign(format!("`{name}` is `{}`; it was `{}`, and is to be `{}`", now.value, self.from.value, self.to.value))
        })
    }
}

/// The step `traffic.dns`.
pub struct TrafficDns {
    records: Arc<Records>,
    /// The host of the store's target.
    target: String,
}

impl TrafficDns {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.dns";

    /// From the arguments, the host of the store's target, and what the steps of the store share.
    ///
    /// # Errors
    /// If there is no such record.
    pub fn new(arguments: &RecordArguments, target: String, shared: &SharedRecords) -> Result<Self, StepError> {
        Ok(TrafficDns { records: shared.find(arguments)?, target })
    }

    /// What this run changes into what; fixed once it has begun.
    async fn switched(&self, context: &StepContext, named: &Named) -> Result<Switched, StepError> {
        if let Some(switched) = kept(context, CHECKPOINT)? {
            return Ok(switched);
        }
        let lowered = Lowered::needed(context, &named.name)?;
        let to = Record { value: named.wanted(context, &self.target).await?, ttl: lowered.ttl };
        Ok(Switched { from: lowered.record(), to, gave_up: false })
    }

    /// Waits until everybody is told what the record is now.
    async fn told(&self, context: &StepContext, authority: &Authority, awaited: Awaited<'_>) -> Result<(), StepError> {
        match authority.wait_until_shown(context, awaited).await? {
            Ok(()) => Ok(()),
            Err(lagging) => Err(StepError::definite(format!(
                "`{}` was changed to {} and not everybody shows it in time: {}",
                authority.name,
                awaited.record,
                lagging.told()
            ))
            .hint("look at that server by hand: it may not get the zone from its primary, or keep records for longer than they say")),
        }
    }

    /// Puts `wanted` where `now` is, or where nothing is, and sees that the record shows it.
    async fn put(
        &self,
        context: &StepContext,
        named: &Named,
        authority: &Authority,
        (now, wanted): (Option<&Record>, &Record),
    ) -> Result<(), StepError> {
        let signer = named.signer(context).await?;
        let answered = authority.change(now.map(|now| &now.value), wanted, &signer).await;
        crash::point("dns.changed");
        let seen = authority.look().await;
        match (answered, seen) {
            (_, Ok(seen)) if seen.value == wanted.value => Ok(()),
            (Ok(()), Err(DnsError::NoRecord { server, name })) => {
                let mut message = format!("the name server `{server}` took the change to {wanted} and left nothing at `{name}`");
                if let Some(now) = now {
                    match authority.change(None, now, &signer).await {
                        Ok(()) => message += &format!("; {now} was put there again"),
                        Err(error) => message += &format!("; {now} could not be put there again: {}", error.message),
                    }
                }
                Err(StepError::definite(message).hint("it can't hold such a record there; its own log says why"))
            }
            (Ok(()), Ok(seen)) => {
                Err(StepError::definite(format!("the change of `{}` to {wanted} was answered well, but it is {seen}", named.name))
                    .hint("the name server does not do what it says; look at its log"))
            }
            (Ok(()), Err(error)) => Err(error.into()),
            (Err(error), seen) => {
                let seen = seen.map_or_else(|error| printable(&error.to_string()), |seen| format!("`{}` is {seen}", named.name));
                Err(StepError { message: format!("{}; {seen}", error.message), ..error })
            }
        }
    }
}

fn foreign(found: &str) -> StepError {
    StepError::definite(format!("clients are pointed somewhere else: {found}. Nothing was changed")).hint("find out who changed the record")
}

/// What DNS can't do, for whoever plans a night with it.
fn limits(ttl: Ttl) -> Vec<String> {
    vec![
        format!(
            "DNS can't hold clients: their writes are refused from the fence until they look the name up again, up to {ttl} after the switch"
        ),
        "clients that keep addresses or connections for longer (a JVM, a pool) go on to the old server, which refuses what they write until \
         `mysql.disconnect` closes their connections"
            .to_owned(),
    ]
}

#[async_trait]
impl Step for TrafficDns {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }

    fn undo_does(&self) -> String {
        format!("point `{}` to the source again", self.records.production.name)
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let named = match named(&self.records, context)? {
            Ok(named) => named,
            Err(reason) => return Ok(Plan { lines: vec![format!("not rehearsed: {reason}")], warnings: Vec::new() }),
        };
        let mut plan = Plan { lines: Vec::new(), warnings: limits(named.ttl) };
        match named.wanted(context, &self.target).await {
            Ok(wanted) => plan.lines.push(format!("change `{}` to `{wanted}`, if it is what it was in `prepare`", named.name)),
            Err(error) => {
                plan.lines.push(format!("change `{}` to the target, if it is what it was in `prepare`", named.name));
                plan.warnings.push(format!("`{}`: {}", context.step, error.message));
            }
        }
        plan.lines.push(format!(
            "wait until every name server shows it (up to {}), and every resolver named (up to {} more)",
            HumanDuration(named.within),
            named.ttl
        ));
        plan.lines.push("to undo it, change it back in the same way".to_owned());
        if let (RunKind::Production, Some(reason)) = (context.kind, self.records.never_rehearsed()) {
            plan.warnings.push(format!("`{}` was never rehearsed: {}", context.step, printable(reason)));
        }
        Ok(plan)
    }

    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError> {
        let Ok(named) = named(&self.records, context)? else { return Ok(Estimate::Instant) };
        let rehearsed = context.rates.get(&*context.step).and_then(|work| std::time::Duration::try_from_secs_f64(work.seconds).ok());
        Ok(match rehearsed {
            Some(duration) => Estimate::Expected { duration, basis: "as long as in the last rehearsal".to_owned() },
            None => Estimate::Expected {
                duration: named.ttl.duration(),
                basis: format!("clients and their resolvers keep `{}` for {}", named.name, named.ttl),
            },
        })
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let named = match named(&self.records, context)? {
            Ok(named) => named,
            Err(reason) => return Ok(left_out(&reason)),
        };
        let authority = named.authority(context).await?;
        let switched = self.switched(context, named).await?;
        let began = Instant::now();
        let output = Output::default()
            .fact("name", named.name.to_ascii())
            .fact("from", switched.from.value.to_string())
            .fact("to", switched.to.value.to_string());
        match switched.standing(&authority, &named.name.to_ascii()).await? {
            Standing::Ours(_) => {}
            Standing::Before(_) => {
                let now = authority.look_everywhere().await?;
                if now.ttl > switched.from.ttl {
                    return Err(StepError::definite(format!(
                        "clients may keep `{}` for {} again, not for {}. Nothing was changed",
                        named.name, now.ttl, switched.from.ttl
                    ))
                    .hint("find out who changed its TTL; `dbmove undo PLAYBOOK` and a new run lower it again and wait"));
                }
                keep(context, CHECKPOINT, Some(&switched))?;
                context.save_output(&output)?;
                self.put(context, named, &authority, (Some(&now), &switched.to)).await?;
            }
            Standing::Gone => return Err(foreign(&format!("there is no record at `{}`", named.name))),
            Standing::Foreign(found) => return Err(foreign(&found)),
        }
        crash::point("dns.switched");
        let awaited = Awaited { record: &switched.to, before: &switched.from.value, kept_for: switched.from.ttl };
        if let Err(error) = self.told(context, &authority, awaited).await {
            if error.failure != Failure::Cancelled {
                keep(context, CHECKPOINT, Some(&Switched { gave_up: true, ..switched }))?;
            }
            return Err(error);
        }
        let seconds = began.elapsed().as_secs_f64();
        let mut output = output.fact("told_after_seconds", seconds);
        output.work = Some(Work { unit: "changes".to_owned(), amount: 1, seconds });
        context.save_output(&output)?;
        Ok(output)
    }

    /// What `run` has given up on is to be undone. What a crash cut short is not: nobody knows for how long clients have written to the target
    /// since. There every server of the zone has to show it; a resolver can't keep the old record for longer than its TTL.
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let Ok(named) = named(&self.records, context)? else { return Ok(Probe::NotStarted) };
        let begun = kept::<Switched>(context, CHECKPOINT)?.is_some();
        if !begun && Lowered::of_run(context, &named.name)?.is_none() {
            return Ok(Probe::NotStarted);
        }
        let authority = named.authority(context).await?;
        let switched = self.switched(context, named).await?;
        Ok(match switched.standing(&authority, &named.name.to_ascii()).await? {
            Standing::Before(_) => Probe::NotStarted,
            Standing::Ours(now) => {
                let awaited = Awaited { record: &now, before: &switched.from.value, kept_for: switched.from.ttl };
                if switched.gave_up {
                    let lagging = authority.lagging(awaited).await;
                    return Ok(if lagging.is_empty() { Probe::Done } else { Probe::Partly { from: lagging.told() } });
                }
                match authority.without_resolvers().wait_until_shown(context, awaited).await? {
                    Ok(()) => Probe::Done,
                    Err(lagging) => {
                        return Err(StepError::definite(format!(
                            "`{}` was changed to {now} before dbmove was cut off, and not every name server shows it: {}. Nothing was changed since, \
                             clients may have written to the target",
                            named.name,
                            lagging.told()
                        ))
                        .hint("see that every server gets the zone, then give the same command again; to go back instead, and lose what was written to the target, change the record back by hand"));
                    }
                }
            }
            Standing::Gone if begun => Probe::Partly { from: format!("there is no record at `{}`", named.name) },
            Standing::Gone => Probe::Foreign { found: format!("there is no record at `{}`", named.name) },
            Standing::Foreign(found) => Probe::Foreign { found },
        })
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        let Ok(named) = named(&self.records, context)? else { return Ok(()) };
        // Without a checkpoint it never changed anything.
        let Some(switched) = kept::<Switched>(context, CHECKPOINT)? else { return Ok(()) };
        let authority = named.authority(context).await?;
        let (mut back, mut kept_for) = (switched.from.clone(), switched.to.ttl);
        match switched.standing(&authority, &named.name.to_ascii()).await? {
            // Whatever TTL it has: that is for `traffic.lower_ttl` to put back.
            Standing::Before(now) => back = now,
            Standing::Ours(now) => {
                // It may be kept for longer again, if `traffic.restore_ttl` is done.
                kept_for = now.ttl;
                self.put(context, named, &authority, (Some(&now), &switched.from)).await?;
            }
            Standing::Gone => self.put(context, named, &authority, (None, &switched.from)).await?,
            Standing::Foreign(found) => {
                return Err(StepError::definite(format!("{found}. It was not put back, so as not to overwrite somebody else's record"))
                    .hint("look at the record: where clients go now is not what dbmove set"));
            }
        }
        crash::point("dns.changed_back");
        let awaited = Awaited { record: &back, before: &switched.to.value, kept_for };
        self.told(context, &authority, awaited).await?;
        // A later run of the step begins anew.
        keep::<Switched>(context, CHECKPOINT, None)
    }
}
