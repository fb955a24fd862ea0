//! A switch by somebody else's hands: a call or a command that is made and may take effect later, or without an answer.
//!
//! # What must hold
//!
//! * What was called is in the journal before it is called. From there on the route looking as before proves nothing: the change may be on
//!   its way. It stays open until the route was seen at the target, or until it was taken back.
//! * While it is open `probe` says that the step is half done, in this driver and in the next. So a cutover that ends there is not taken for one
//!   that never switched.
//! * An open call is taken back by the call that undoes it, although the route looks as before, and the route has to stay as before for
//!   `within` after it. Should the change arrive meanwhile, it is undone again.
//! * Without a call that undoes it nobody can take it back, and nobody says that all is as before. Writes stay held. Who gives the command again, having
//!   been told, says that the change comes no more; then the route is believed, if it stays as before for `within`.
//!
//! What was surely not taken (nobody was there, the answer was a no) opens nothing.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::checkpoint::{keep, kept};
use crate::engine::context::StepContext;
use crate::engine::crash;
use crate::engine::step::{Epoch, Probe, StepError};
use crate::playbook::quantity::HumanDuration;

/// How long a call may take to show at the probe.
pub const DEFAULT_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// So often `within` may pass while an open call is taken back: the change may come first, and be undone again.
const TAKING_BACK: u32 = 3;
/// Under which [`Called`] is saved; `null` once undone.
const CHECKPOINT: &str = "called";

/// The checkpoint: clients were to be pointed to the target.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Called {
    /// When first.
    at: Timestamp,
    /// How often, as far as each may still arrive.
    calls: u32,
    /// The route was seen at the target since, and that was the only call: nothing can arrive any more.
    arrived: bool,
    /// The first driver that said of it that it can't be taken back.
    told_by: Option<Epoch>,
}

/// What came of a switch.
pub(super) enum Switched<A> {
    /// Clients were there before.
    Already,
    /// It was called; what was answered, if anything was.
    Now(Option<A>),
}

/// Which of the two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the target.
    There,
    /// To the source.
    Back,
}

/// A call that failed.
pub(super) struct CallFailed {
    pub(super) error: StepError,
    /// Somebody may have taken it nevertheless.
    pub(super) may_arrive: bool,
}

/// Who is called, and who is asked where clients are.
#[async_trait]
pub(super) trait Operator: Sync {
    /// What an answered call leaves behind.
    type Answer: Send;
    /// Whether there is a call of that way.
    fn has(&self, way: Way) -> bool;
    /// Makes the call.
    async fn call(&self, context: &StepContext, way: Way) -> Result<Self::Answer, CallFailed>;
    /// Looks where clients are.
    async fn look(&self, context: &StepContext) -> Result<Probe, StepError>;
    /// The call for a person, such as `` `PUT https://…` ``.
    fn shown(&self, way: Way) -> String;
    /// The same of the look.
    fn probe_shown(&self) -> String;
    /// What was answered: `answered status 202`, `succeeded`.
    fn answered(&self, answer: &Self::Answer) -> String;
    /// Clients are where nobody was told of.
    fn foreign(&self, found: &str) -> StepError;
}

/// A probe's answer in words.
pub(super) fn told(probe: &Probe) -> String {
    match probe {
        Probe::NotStarted => "not switched".to_owned(),
        Probe::Partly { from } => format!("partly switched ({from})"),
        Probe::Done => "switched".to_owned(),
        Probe::Foreign { found } => format!("pointed somewhere else ({found})"),
    }
}

/// There is no call of that way.
pub(super) fn no_undo(context: &StepContext) -> StepError {
    StepError::definite(format!("`{}` has no `undo`; clients stay pointed where they are", context.step))
        .hint("point them back by hand if they have to go back")
}

impl Called {
    fn open(context: &StepContext) -> Result<Option<Called>, StepError> {
        Ok(kept::<Called>(context, CHECKPOINT)?.filter(|called| !called.arrived))
    }

    /// What is known, and what is not.
    fn told<O: Operator>(&self, operator: &O) -> String {
        format!(
            "{} was called at {}, and {} has not shown the change since: it may still come",
            operator.shown(Way::There),
            self.at.strftime("%Y-%m-%d %H:%M:%S UTC"),
            operator.probe_shown()
        )
    }

    /// The same, where nobody can take it back.
    fn told_without_undo<O: Operator>(&self, operator: &O) -> String {
        format!(
            "{}. It has no `undo` to take it back: see at whoever was called whether it comes, and give the command again once it is there or can't come any \
             more",
            self.told(operator)
        )
    }
}

/// Points clients to the target, unless they are there.
///
/// # Errors
/// If clients are pointed somewhere else, or the call does not show within `within`.
pub(super) async fn switch<O: Operator>(operator: &O, context: &StepContext, within: Duration) -> Result<Switched<O::Answer>, StepError> {
    match operator.look(context).await? {
        Probe::Done => return Ok(Switched::Already),
        Probe::Foreign { found } => return Err(operator.foreign(&found)),
        Probe::NotStarted | Probe::Partly { .. } => {}
    }
    let before = Called::open(context)?;
    let called = match before {
        Some(before) => Called { calls: before.calls.saturating_add(1), told_by: None, ..before },
        None => Called { at: Timestamp::now(), calls: 1, arrived: false, told_by: None },
    };
    keep(context, CHECKPOINT, Some(&called))?;
    crash::point("call.noted");
    let (result, may_arrive) = settle(operator, context, Way::There, within).await;
    match &result {
        // Of two calls the other may arrive later.
        Ok(_) if called.calls == 1 => keep(context, CHECKPOINT, Some(&Called { arrived: true, ..called }))?,
        Err(_) if !may_arrive => keep(context, CHECKPOINT, before.as_ref())?,
        Ok(_) | Err(_) => {}
    }
    result.map(Switched::Now)
}

/// Where clients are; half way while a call is open and does not show.
///
/// # Errors
/// If that can't be seen.
pub(super) async fn probe<O: Operator>(operator: &O, context: &StepContext, within: Duration) -> Result<Probe, StepError> {
    let found = operator.look(context).await?;
    let Some(called) = Called::open(context)?.filter(|_| found == Probe::NotStarted) else { return Ok(found) };
    if operator.has(Way::Back) {
        return Ok(Probe::Partly { from: called.told(operator) });
    }
    if called.told_by.is_some_and(|epoch| epoch < context.epoch) {
        return believed(operator, context, within).await;
    }
    keep(context, CHECKPOINT, Some(&Called { told_by: Some(context.epoch), ..called }))?;
    Ok(Probe::Partly { from: called.told_without_undo(operator) })
}

/// Where clients are, if they stay there: whoever was told that the change may still come has given the command again.
async fn believed<O: Operator>(operator: &O, context: &StepContext, within: Duration) -> Result<Probe, StepError> {
    let began = Instant::now();
    loop {
        let found = operator.look(context).await?;
        if found != Probe::NotStarted {
            return Ok(found);
        }
        if began.elapsed() >= within {
            keep::<Called>(context, CHECKPOINT, None)?;
            return Ok(found);
        }
        context.check_cancelled()?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Points clients back to the source, and takes an open call back.
///
/// # Errors
/// If clients are not there for good, as far as one can see.
pub(super) async fn undo<O: Operator>(operator: &O, context: &StepContext, within: Duration) -> Result<(), StepError> {
    let found = operator.look(context).await?;
    // The only call there was has arrived, if clients are there.
    let open = Called::open(context)?.filter(|called| !(called.calls == 1 && found == Probe::Done));
    match (found, &open) {
        (Probe::Foreign { found }, _) => return Err(operator.foreign(&found)),
        (Probe::NotStarted, None) => return keep::<Called>(context, CHECKPOINT, None),
        (Probe::NotStarted, Some(called)) if !operator.has(Way::Back) => {
            return Err(StepError::definite(format!("nothing was undone: {}", called.told_without_undo(operator)))
                .hint("keep clients from the target until you know that the change comes no more"));
        }
        (Probe::NotStarted | Probe::Done | Probe::Partly { .. }, _) => {}
    }
    if !operator.has(Way::Back) {
        return Err(no_undo(context));
    }
    match open {
        None => drop(settle(operator, context, Way::Back, within).await.0?),
        Some(called) => take_back(operator, context, &called, within).await?,
    }
    keep::<Called>(context, CHECKPOINT, None)
}

/// Makes a call and looks until it shows. What the call itself came to is believed only if the probe agrees. Without an answer there is none to
/// return. Also says whether a call that failed may arrive later.
async fn settle<O: Operator>(
    operator: &O,
    context: &StepContext,
    way: Way,
    within: Duration,
) -> (Result<Option<O::Answer>, StepError>, bool) {
    let wanted = if way == Way::There { Probe::Done } else { Probe::NotStarted };
    let answer = match operator.call(context, way).await {
        Ok(answer) => answer,
        Err(CallFailed { error, may_arrive }) => {
            crash::point("call.made");
            return match operator.look(context).await {
                Ok(found) if found == wanted => (Ok(None), may_arrive),
                Ok(found) => {
                    let message = format!("{}; {} says: {}", error.message, operator.probe_shown(), told(&found));
                    (Err(StepError { message, ..error }), may_arrive)
                }
                Err(_) => (Err(error), may_arrive),
            };
        }
    };
    crash::point("call.made");
    let began = Instant::now();
    let looked = async {
        loop {
            let found = operator.look(context).await?;
            if found == wanted || matches!(found, Probe::Foreign { .. }) || began.elapsed() > within {
                return Ok(found);
            }
            context.check_cancelled()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match looked.await {
        Err(error) => (Err(error), true),
        Ok(found) if found == wanted => (Ok(Some(answer)), false),
        Ok(found) => {
            let error = StepError::definite(format!(
                "{} {}, but {} says: {}",
                operator.shown(way),
                operator.answered(&answer),
                operator.probe_shown(),
                told(&found)
            ));
            (Err(error.hint("one of the two does not do what it says, or takes longer than `within`; look at the route by hand")), true)
        }
    }
}

/// Undoes what may not have come yet, and looks for as long as it may come.
async fn take_back<O: Operator>(operator: &O, context: &StepContext, called: &Called, within: Duration) -> Result<(), StepError> {
    let began = Instant::now();
    let longest = within.saturating_mul(TAKING_BACK);
    loop {
        if let Err(CallFailed { error, .. }) = operator.call(context, Way::Back).await {
            return Err(StepError { message: format!("{}; and {}", error.message, called.told(operator)), ..error });
        }
        crash::point("call.taken_back");
        let mut back_since = None;
        // Left to call again, when the change has come after the call that undoes it.
        loop {
            let found = operator.look(context).await?;
            match found {
                Probe::NotStarted => {
                    if back_since.get_or_insert_with(Instant::now).elapsed() >= within {
                        return Ok(());
                    }
                }
                Probe::Foreign { found } => return Err(operator.foreign(&found)),
                Probe::Done | Probe::Partly { .. } if began.elapsed() > longest => {
                    return Err(StepError::definite(format!(
                        "{} was called to take {} back, and {} says after {}: {}",
                        operator.shown(Way::Back),
                        operator.shown(Way::There),
                        operator.probe_shown(),
                        HumanDuration(began.elapsed()),
                        told(&found)
                    ))
                    .hint("point clients back by hand, and see that the change does not come again"));
                }
                Probe::Done | Probe::Partly { .. } if back_since.is_some() => break,
                Probe::Done | Probe::Partly { .. } => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
