//! The step `traffic.exec`: the switch by a command (a proxy's control tool, a cloud's command line).
//!
//! # What must hold
//!
//! * A switch is settled by looking, never by running blindly: `probe` is mandatory, is asked before the command
//!   runs, and again after it. A command that says it succeeded while the probe says it did not is a failure.
//! * Some commands end before what they asked for is done. So the probe is asked again for as long as `within`. A command that does not show until
//!   then may do so later, and so may one that failed: it is taken back, see `called`. One that ends with exit code 4 says that it did
//!   nothing.
//! * A rehearsal runs the `rehearsal` commands, never the production ones; without them it is refused, unless the
//!   playbook says `skip` with a reason, which goes into the output.
//!
//! How commands are run and what their exit codes mean is in [`hook::command`](crate::hook::command); probes answer as
//! those of `hook.exec` do (see [`Runner::ask`]): 0 done, 1 not started, 2 partly, 3 somebody else's doing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::called::{self, CallFailed, DEFAULT_WITHIN, Operator, Switched, Way, no_undo};
use super::skipped::left_out;
use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, Undoable};
use crate::hook::command::{CommandFailed, CommandLine};
use crate::hook::message::printable;
use crate::hook::runner::Runner;
use crate::playbook::model::{DurationText, Template};
use crate::playbook::quantity::HumanDuration;

/// What `traffic.exec` can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchArguments {
    /// Points clients at the target. The program and its arguments; no shell is involved.
    pub command: Vec<String>,
    /// Tells where clients are pointed: exit code 0 at the target, 1 at the source, 2 in between, 3 somewhere else.
    pub probe: Vec<String>,
    /// Points clients back at the source; has to stand being run when they are there. Left out: the step can't be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Vec<String>>,
    /// What a rehearsal runs instead. Left out: a rehearsal is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<SwitchRehearsal>,
    /// More environment variables for all commands; values may be secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Template>,
    /// How long each command may run before it is killed with all it started. Default `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// How long the probe may take to say that it is done, once the command has ended. For as long clients have to stay at the source before a
    /// command that never showed counts as undone. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<HumanDuration>,
}

/// What a rehearsal does in place of the production switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SwitchRehearsal {
    /// It runs these commands.
    Commands(RehearsalCommands),
    /// It leaves the switch out.
    Skip(SkippedSwitch),
}

/// The rehearsal's commands, as the production ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RehearsalCommands {
    /// Points the rehearsal's clients at the rehearsal target.
    pub command: Vec<String>,
    /// Tells where they are pointed.
    pub probe: Vec<String>,
    /// Points them back.
    pub undo: Vec<String>,
}

/// A switch that is not rehearsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SkippedSwitch {
    /// Why it can't be rehearsed; shown in plan and report.
    pub skip: String,
}

struct Commands {
    switch: CommandLine,
    probe: CommandLine,
    undo: Option<CommandLine>,
    runner: Arc<Runner>,
}

enum Rehearsed {
    Commands(Commands),
    Skip(String),
    Missing,
}

/// The step `traffic.exec`.
pub struct TrafficExec {
    production: Commands,
    rehearsal: Rehearsed,
    runner: Arc<Runner>,
    within: Duration,
}

impl TrafficExec {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.exec";

    /// From the arguments, and the values of `env` as resolved by the caller.
    ///
    /// # Errors
    /// If a command or a reason is empty, a variable's name can't be one, the timeout can't be read, or a rehearsal
    /// command is the production one.
    pub fn new(arguments: &SwitchArguments, environment: BTreeMap<String, SecretString>) -> Result<Self, StepError> {
        let runner = Arc::new(Runner::new(&arguments.env, environment, arguments.timeout.as_ref())?);
        let production = Commands {
            switch: CommandLine::new("command", &arguments.command)?,
            probe: CommandLine::new("probe", &arguments.probe)?,
            undo: arguments.undo.as_deref().map(|words| CommandLine::new("undo", words)).transpose()?,
            runner: runner.clone(),
        };
        let rehearsal = match &arguments.rehearsal {
            None => Rehearsed::Missing,
            Some(SwitchRehearsal::Skip(SkippedSwitch { skip })) if skip.trim().is_empty() => {
                return Err(
                    StepError::definite("`rehearsal.skip` gives no reason").hint("say in a sentence why the switch can't be rehearsed")
                );
            }
            Some(SwitchRehearsal::Skip(SkippedSwitch { skip })) => Rehearsed::Skip(skip.clone()),
            Some(SwitchRehearsal::Commands(commands)) => Rehearsed::Commands(Commands {
                switch: CommandLine::new("rehearsal.command", &commands.command)?,
                probe: CommandLine::new("rehearsal.probe", &commands.probe)?,
                undo: Some(CommandLine::new("rehearsal.undo", &commands.undo)?),
                runner: runner.clone(),
            }),
        };
        if let Rehearsed::Commands(commands) = &rehearsal
            && (commands.switch == production.switch || commands.undo == production.undo)
        {
            return Err(StepError::new(
                Failure::Refused,
                format!("`rehearsal` names a production command, `{}`. Nothing was run", production.switch.shown()),
            )
            .hint("a rehearsal must not switch production: give it commands of its own, or `skip` with a reason"));
        }
        let within = arguments.within.map_or(DEFAULT_WITHIN, |within| within.0);
        Ok(TrafficExec { production, rehearsal, runner, within })
    }

    /// The commands of this run; `Err` holds the reason why the switch is left out.
    fn commands(&self, context: &StepContext) -> Result<Result<&Commands, &str>, StepError> {
        match (context.kind, &self.rehearsal) {
            (RunKind::Production, _) => Ok(Ok(&self.production)),
            (RunKind::Rehearsal, Rehearsed::Commands(commands)) => Ok(Ok(commands)),
            (RunKind::Rehearsal, Rehearsed::Skip(reason)) => Ok(Err(reason)),
            (RunKind::Rehearsal, Rehearsed::Missing) => Err(StepError::new(
                Failure::Refused,
                format!(
                    "`{}` can't be rehearsed: `{}` would switch production, and `rehearsal` names no other command. Nothing was run",
                    context.step,
                    self.production.switch.program()
                ),
            )
            .hint("add `rehearsal: { command: […], probe: […], undo: […] }`, or `rehearsal: { skip: \"the reason\" }`")),
        }
    }
}

#[async_trait]
impl Operator for Commands {
    type Answer = Output;

    fn has(&self, way: Way) -> bool {
        way == Way::There || self.undo.is_some()
    }

    async fn call(&self, context: &StepContext, way: Way) -> Result<Output, CallFailed> {
        let called = match (way, &self.undo) {
            (Way::There, _) => self.runner.act(context, &self.switch, Instant::now()).await,
            (Way::Back, Some(undo)) => self.runner.undo(context, undo).await.map(|()| Output::default()),
            (Way::Back, None) => return Err(CallFailed { error: no_undo(context), may_arrive: false }),
        };
        called.map_err(|CommandFailed { error, may_have_acted }| CallFailed { error, may_arrive: may_have_acted })
    }

    async fn look(&self, context: &StepContext) -> Result<Probe, StepError> {
        self.runner.ask(context, &self.probe).await
    }

    fn shown(&self, way: Way) -> String {
        let line = if way == Way::There { Some(&self.switch) } else { self.undo.as_ref() };
        format!("`{}`", line.map_or_else(|| "undo".to_owned(), |line| printable(line.program())))
    }

    fn probe_shown(&self) -> String {
        format!("`{}`", printable(self.probe.program()))
    }

    fn answered(&self, _: &Output) -> String {
        "succeeded".to_owned()
    }

    fn foreign(&self, found: &str) -> StepError {
        StepError::definite(format!(
            "`{}` found clients pointed somewhere else: {found}. Nothing was switched",
            printable(self.probe.program())
        ))
        .hint("find out who changed the route")
    }
}

#[async_trait]
impl Step for TrafficExec {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn undoable(&self) -> Undoable {
        match &self.production.undo {
            Some(_) => Undoable::Yes,
            None => Undoable::No(format!("`{}` has no `undo` command", self.production.switch.program())),
        }
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let commands = match self.commands(context)? {
            Ok(commands) => commands,
            Err(reason) => return Ok(Plan { lines: vec![format!("not rehearsed: {}", printable(reason))], warnings: Vec::new() }),
        };
        let mut plan = Plan::default();
        plan.lines.push(format!("unless `{}` says it is done, run `{}`, then ask again", commands.probe.shown(), commands.switch.shown()));
        match &commands.undo {
            Some(undo) => plan.lines.push(format!("to undo it, run `{}`", undo.shown())),
            None => plan.warnings.push(format!("`{}` can't be undone: it has no `undo`", context.step)),
        }
        if let (RunKind::Production, Rehearsed::Skip(reason)) = (context.kind, &self.rehearsal) {
            plan.warnings.push(format!("`{}` was never rehearsed: {}", context.step, printable(reason)));
        }
        Ok(plan)
    }

    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError> {
        // Asked before, switched, asked after.
        Ok(self
            .runner
            .estimate(context, self.runner.limit().saturating_mul(3))
            .unwrap_or_else(|| Estimate::Unknown(format!("`{}` has not been rehearsed", self.production.switch.program()))))
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let commands = match self.commands(context)? {
            Ok(commands) => commands,
            Err(reason) => return Ok(left_out(reason)),
        };
        Ok(match called::switch(commands, context, self.within).await? {
            Switched::Already => Output::default().fact("already", true),
            Switched::Now(output) => output.unwrap_or_default(),
        })
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        match self.commands(context)? {
            Ok(commands) => called::probe(commands, context, self.within).await,
            Err(_) => Ok(Probe::NotStarted),
        }
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        let Ok(commands) = self.commands(context)? else { return Ok(()) };
        called::undo(commands, context, self.within).await
    }
}
