//! The step `hook.exec`: a command of the operator's own at a point of the playbook.
//!
//! How a command is run, what it is told and what its exit codes mean is in [`command`](super::command). In a
//! rehearsal the same command runs with `DBMOVE_KIND=rehearsal`: it is the command's own duty to keep its hands off
//! production then.
//!
//! # Output
//!
//! If the last line on stdout is a JSON object, its fields become the step's output (`${step:ID.field}`).
//!
//! # After a crash
//!
//! With a `probe` command its exit code settles what happened: 0 done, 1 not started, 2 partly done (run again),
//! 3 somebody else's doing (stop and show). **Without one, nobody can tell how far the command got, so it is run
//! again: it has to be idempotent** (`DBMOVE_IDEMPOTENCY_KEY` helps). A plan says so for every hook without a probe.
//!
//! # Undo
//!
//! `undo: [words]` is run to put back what the command did. `undo: none` says that it changes nothing that would need
//! putting back (a message, a metric). With neither, the step can't be undone, which makes it the point of no return or
//! only fit to stand behind it: leaving `undo` out is not a promise that all is well.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::command::CommandLine;
use super::runner::Runner;
use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::playbook::model::{DurationText, Template};

/// What `hook.exec` can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookArguments {
    /// The program and its arguments. No shell is involved.
    pub command: Vec<String>,
    /// The command that puts it back, or `none` if there is nothing to put back. Left out: it can't be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<HookUndo>,
    /// The command that tells whether it is done: exit code 0 done, 1 not started, 2 partly, 3 somebody else's doing.
    /// Left out: after a crash the command is run again, so it has to be idempotent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Vec<String>>,
    /// More environment variables for all three commands; values may be secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Template>,
    /// How long each command may run before it is killed with all it started. Default `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
}

/// How a hook is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HookUndo {
    /// By this command.
    Command(Vec<String>),
    /// There is nothing to put back.
    Nothing(NothingToUndo),
}

/// The word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NothingToUndo {
    /// There is nothing to put back.
    None,
}

#[derive(Clone, Debug)]
enum Undo {
    Command(CommandLine),
    Nothing,
    Impossible,
}

/// The step `hook.exec`.
pub struct HookExec {
    command: CommandLine,
    undo: Undo,
    probe: Option<CommandLine>,
    runner: Runner,
}

impl HookExec {
    /// The name in a playbook.
    pub const NAME: &'static str = "hook.exec";

    /// From the arguments, and the values of `env` as resolved by the caller.
    ///
    /// # Errors
    /// If a command is empty, a variable's name can't be one, or the timeout can't be read.
    pub fn new(arguments: &HookArguments, environment: BTreeMap<String, SecretString>) -> Result<Self, StepError> {
        Ok(HookExec {
            runner: Runner::new(&arguments.env, environment, arguments.timeout.as_ref())?,
            command: CommandLine::new("command", &arguments.command)?,
            undo: match &arguments.undo {
                Some(HookUndo::Command(words)) => Undo::Command(CommandLine::new("undo", words)?),
                Some(HookUndo::Nothing(NothingToUndo::None)) => Undo::Nothing,
                None => Undo::Impossible,
            },
            probe: arguments.probe.as_deref().map(|words| CommandLine::new("probe", words)).transpose()?,
        })
    }
}

#[async_trait]
impl Step for HookExec {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn undo_does(&self) -> String {
        match &self.undo {
            Undo::Command(undo) => format!("run `{}`", undo.shown()),
            Undo::Nothing | Undo::Impossible => String::new(),
        }
    }
    fn undoable(&self) -> Undoable {
        match &self.undo {
            Undo::Command(_) => Undoable::Yes,
            Undo::Nothing => Undoable::Nothing,
            Undo::Impossible => {
                Undoable::No(format!("`{}` has no `undo` (write `undo: none` if there is nothing to put back)", self.command.program()))
            }
        }
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let mut plan =
            Plan { lines: vec![format!("run `{}`, for at most {:?}", self.command.shown(), self.runner.limit())], warnings: Vec::new() };
        match &self.undo {
            Undo::Command(line) => plan.lines.push(format!("to undo it, run `{}`", line.shown())),
            Undo::Nothing => plan.lines.push("there is nothing to undo".to_owned()),
            Undo::Impossible => plan.warnings.push(format!("`{}` can't be undone: it has no `undo`", context.step)),
        }
        match &self.probe {
            Some(line) => plan.lines.push(format!("after a crash, ask `{}` whether it is done", line.shown())),
            None => plan
                .warnings
                .push(format!("`{}` has no `probe`: after a crash the command is run again, it has to be idempotent", context.step)),
        }
        Ok(plan)
    }

    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError> {
        let limit = self.runner.limit();
        Ok(self.runner.estimate(context, limit).unwrap_or_else(|| {
            Estimate::Unknown(format!("`{}` has not been rehearsed; it is killed after {limit:?}", self.command.program()))
        }))
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        Ok(self.runner.act(context, &self.command, Instant::now()).await?)
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        match &self.probe {
            Some(line) => self.runner.ask(context, line).await,
            None => Ok(Probe::Partly { from: "unknown; the command is run again".to_owned() }),
        }
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        match &self.undo {
            Undo::Command(line) => Ok(self.runner.undo(context, line).await?),
            Undo::Nothing => Ok(()),
            Undo::Impossible => Err(StepError::definite(format!(
                "what `{}` did can't be put back: `{}` has no `undo`. It was left as it is",
                self.command.program(),
                context.step
            ))
            .hint("put it back by hand if need be")),
        }
    }
}
