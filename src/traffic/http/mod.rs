//! The step `traffic.http`: the switch by an HTTP call of the operator's (a load balancer's, a service registry's, a cloud's).
//!
//! # What must hold
//!
//! * A switch is settled by looking, never by calling blindly: `probe` is mandatory, is asked before the call, and again after it. A call
//!   that was answered well while the probe says otherwise is a failure; one whose answer was lost is not, if the probe says that clients
//!   are at the target.
//! * Some servers answer before they have done it. So the probe is asked again for as long as `within`, while it says that
//!   nothing has changed yet or that the change is on its way (`between`). A call that does not show until then may do so later, and so may one
//!   whose answer was lost: it is taken back, see `called`.
//! * A value that the playbook does not know is somebody else's doing: nothing is called.
//! * A rehearsal makes the `rehearsal` calls, never the production ones; without them it is refused, unless the playbook says `skip`
//!   with a reason, which goes into the output.
//!
//! Secrets in headers, urls and bodies are resolved anew for each call; how a server is asked is in [`http`](crate::http).
//! What a playbook writes of a call is in [`call`].

pub mod call;

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::called::{self, CallFailed, DEFAULT_WITHIN, Operator, Switched, Way, no_undo};
use super::exec::SkippedSwitch;
use super::skipped::left_out;
use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, Undoable, Work};
use crate::hook::message::printable;
use crate::http::Answer;
use crate::playbook::quantity::HumanDuration;
use call::{Call, Look};

/// What `traffic.http` can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpArguments {
    /// Points clients at the target.
    pub call: Call,
    /// Tells where clients are pointed.
    pub probe: Look,
    /// Points clients back at the source. Left out: the step can't be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Call>,
    /// What a rehearsal does instead. Left out: a rehearsal is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<HttpRehearsal>,
    /// How long the probe may take to say that it is done, once the call was answered. For as long clients have to stay at the source before a
    /// call that never showed counts as undone. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<HumanDuration>,
}

/// What a rehearsal does in place of the production switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HttpRehearsal {
    /// It makes these calls.
    Calls(Box<RehearsalCalls>),
    /// It leaves the switch out.
    Skip(SkippedSwitch),
}

/// The rehearsal's calls, as the production ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RehearsalCalls {
    /// Points the rehearsal's clients at the rehearsal target.
    pub call: Call,
    /// Tells where they are pointed.
    pub probe: Look,
    /// Points them back.
    pub undo: Call,
}

struct Calls {
    switch: Call,
    probe: Look,
    undo: Option<Call>,
}

enum Rehearsed {
    Calls(Box<Calls>),
    Skip(String),
    Missing,
}

/// The step `traffic.http`.
pub struct TrafficHttp {
    production: Calls,
    rehearsal: Rehearsed,
    within: Duration,
}

impl Calls {
    fn check(&self, prefix: &str) -> Result<(), StepError> {
        self.switch.check(&format!("{prefix}call"))?;
        self.probe.check(&format!("{prefix}probe"))?;
        self.undo.as_ref().map_or(Ok(()), |undo| undo.check(&format!("{prefix}undo")))
    }
}

impl TrafficHttp {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.http";

    /// From the arguments; what they refer to is resolved when a call is made.
    ///
    /// # Errors
    /// If a call can't be made as it is written, or a rehearsal would make one of production's.
    pub fn new(arguments: HttpArguments) -> Result<Self, StepError> {
        let within = arguments.within.map_or(DEFAULT_WITHIN, |within| within.0);
        let production = Calls { switch: arguments.call, probe: arguments.probe, undo: arguments.undo };
        production.check("")?;
        let rehearsal = match arguments.rehearsal {
            None => Rehearsed::Missing,
            Some(HttpRehearsal::Skip(SkippedSwitch { skip })) if skip.trim().is_empty() => {
                return Err(
                    StepError::definite("`rehearsal.skip` gives no reason").hint("say in a sentence why the switch can't be rehearsed")
                );
            }
            Some(HttpRehearsal::Skip(SkippedSwitch { skip })) => Rehearsed::Skip(skip),
            Some(HttpRehearsal::Calls(calls)) => {
                let calls = Calls { switch: calls.call, probe: calls.probe, undo: Some(calls.undo) };
                calls.check("rehearsal.")?;
                Rehearsed::Calls(Box::new(calls))
            }
        };
        if let Rehearsed::Calls(calls) = &rehearsal
            && (calls.switch == production.switch || calls.undo == production.undo || calls.probe == production.probe)
        {
            return Err(StepError::new(
                Failure::Refused,
                format!("`rehearsal` holds a production call, of `{}`. Nothing was called", production.switch.shown()),
            )
            .hint("a rehearsal must not switch production: give it calls of its own, or `skip` with a reason"));
        }
        Ok(TrafficHttp { production, rehearsal, within })
    }

    /// The calls of this run; `Err` holds the reason why the switch is left out.
    fn calls(&self, context: &StepContext) -> Result<Result<&Calls, &str>, StepError> {
        match (context.kind, &self.rehearsal) {
            (RunKind::Production, _) => Ok(Ok(&self.production)),
            (RunKind::Rehearsal, Rehearsed::Calls(calls)) => Ok(Ok(calls)),
            (RunKind::Rehearsal, Rehearsed::Skip(reason)) => Ok(Err(reason)),
            (RunKind::Rehearsal, Rehearsed::Missing) => Err(StepError::new(
                Failure::Refused,
                format!(
                    "`{}` can't be rehearsed: `{}` would switch production, and `rehearsal` holds no other call. Nothing was called",
                    context.step,
                    self.production.switch.shown()
                ),
            )
            .hint("add `rehearsal: { call: {…}, probe: {…}, undo: {…} }`, or `rehearsal: { skip: \"the reason\" }`")),
        }
    }
}

#[async_trait]
impl Operator for Calls {
    type Answer = Answer;

    fn has(&self, way: Way) -> bool {
        way == Way::There || self.undo.is_some()
    }

    async fn call(&self, context: &StepContext, way: Way) -> Result<Answer, CallFailed> {
        let call = match (way, &self.undo) {
            (Way::There, _) => &self.switch,
            (Way::Back, Some(undo)) => undo,
            (Way::Back, None) => return Err(CallFailed { error: no_undo(context), may_arrive: false }),
        };
        call.make(context).await
    }

    async fn look(&self, context: &StepContext) -> Result<Probe, StepError> {
        self.probe.look(context).await
    }

    fn shown(&self, way: Way) -> String {
        let call = if way == Way::There { Some(&self.switch) } else { self.undo.as_ref() };
        call.map_or_else(|| "`undo`".to_owned(), |call| format!("`{}`", call.shown()))
    }

    fn probe_shown(&self) -> String {
        format!("`{}`", self.probe.shown())
    }

    fn answered(&self, answer: &Answer) -> String {
        format!("answered {}", answer.shown())
    }

    fn foreign(&self, found: &str) -> StepError {
        StepError::definite(format!("`{}` finds clients pointed somewhere else: {found}. Nothing was switched", self.probe.shown()))
            .hint("find out who changed the route")
    }
}

#[async_trait]
impl Step for TrafficHttp {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn undoable(&self) -> Undoable {
        match &self.production.undo {
            Some(_) => Undoable::Yes,
            None => Undoable::No(format!("`{}` has no `undo` call", self.production.switch.shown())),
        }
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let calls = match self.calls(context)? {
            Ok(calls) => calls,
            Err(reason) => return Ok(Plan { lines: vec![format!("not rehearsed: {}", printable(reason))], warnings: Vec::new() }),
        };
        let mut plan = Plan::default();
        plan.lines.push(format!(
            "unless `{}` says it is done, call `{}`, then ask again for up to {}",
            calls.probe.shown(),
            calls.switch.shown(),
            HumanDuration(self.within)
        ));
        match &calls.undo {
            Some(undo) => plan.lines.push(format!("to undo it, call `{}`", undo.shown())),
            None => plan.warnings.push(format!("`{}` can't be undone: it has no `undo`", context.step)),
        }
        if calls.switch.is_in_the_clear() || calls.probe.is_in_the_clear() || calls.undo.as_ref().is_some_and(Call::is_in_the_clear) {
            plan.warnings.push(format!("`{}` sends a secret over `http://`, where others can read it: use `https://`", context.step));
        }
        if let (RunKind::Production, Rehearsed::Skip(reason)) = (context.kind, &self.rehearsal) {
            plan.warnings.push(format!("`{}` was never rehearsed: {}", context.step, printable(reason)));
        }
        Ok(plan)
    }

    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError> {
        Ok(match context.rates.get(&*context.step).and_then(|work| Duration::try_from_secs_f64(work.seconds).ok()) {
            Some(duration) => Estimate::Expected { duration, basis: "as long as in the last rehearsal".to_owned() },
            None => Estimate::Unknown(format!("`{}` has not been rehearsed", self.production.switch.shown())),
        })
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let calls = match self.calls(context)? {
            Ok(calls) => calls,
            Err(reason) => return Ok(left_out(reason)),
        };
        let began = Instant::now();
        if let Switched::Already = called::switch(calls, context, self.within).await? {
            return Ok(Output::default().fact("already", true));
        }
        let mut output = Output::default().fact("called", calls.switch.shown());
        output.work = Some(Work { unit: "calls".to_owned(), amount: 1, seconds: began.elapsed().as_secs_f64() });
        context.save_output(&output)?;
        Ok(output)
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        match self.calls(context)? {
            Ok(calls) => called::probe(calls, context, self.within).await,
            Err(_) => Ok(Probe::NotStarted),
        }
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        let Ok(calls) = self.calls(context)? else { return Ok(()) };
        called::undo(calls, context, self.within).await
    }
}
