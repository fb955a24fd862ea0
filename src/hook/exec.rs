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
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::command::{self, CommandLine, Verb};
use super::message::{last_lines, printable, value_without_secrets};
use crate::engine::context::StepContext;
use crate::engine::deadline::parse_duration;
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
    environment: BTreeMap<String, SecretString>,
    limit: Duration,
}

impl HookExec {
    /// The name in a playbook.
    pub const NAME: &'static str = "hook.exec";

    /// From the arguments, and the values of `env` as resolved by the caller.
    ///
    /// # Errors
    /// If a command is empty, a variable's name can't be one, or the timeout can't be read.
    pub fn new(arguments: &HookArguments, environment: BTreeMap<String, SecretString>) -> Result<Self, StepError> {
        command::check_names(arguments.env.keys().chain(environment.keys()))?;
        Ok(HookExec {
            command: CommandLine::new("command", &arguments.command)?,
            undo: match &arguments.undo {
                Some(HookUndo::Command(words)) => Undo::Command(CommandLine::new("undo", words)?),
                Some(HookUndo::Nothing(NothingToUndo::None)) => Undo::Nothing,
                None => Undo::Impossible,
            },
            probe: arguments.probe.as_deref().map(|words| CommandLine::new("probe", words)).transpose()?,
            environment,
            limit: read_limit("timeout", arguments.timeout.as_ref(), command::DEFAULT_TIMEOUT)?,
        })
    }
}

/// A time limit of a step, or its default.
///
/// # Errors
/// If it can't be read or is zero.
pub fn read_limit(argument: &str, written: Option<&DurationText>, default: Duration) -> Result<Duration, StepError> {
    let Some(DurationText(text)) = written else { return Ok(default) };
    parse_duration(text).filter(|limit| !limit.is_zero()).ok_or_else(|| {
        StepError::definite(format!("`{argument}`: `{}` is not a duration", printable(text)))
            .hint("write it as `60s`, `250ms` or `1h30m`, longer than zero")
    })
}

/// What a probe command's exit code says.
///
/// # Errors
/// If it ended in any other way than by the four codes.
pub(crate) fn judge(ended: &command::Ended, line: &CommandLine) -> Result<Probe, StepError> {
    let said = || ended.said().unwrap_or_else(|| format!("`{}` said nothing more", printable(line.program())));
    match ended.status.code() {
        Some(0) => Ok(Probe::Done),
        Some(1) => Ok(Probe::NotStarted),
        Some(2) => Ok(Probe::Partly { from: said() }),
        Some(3) => Ok(Probe::Foreign { found: said() }),
        _ => Err(ended
            .failure(line, Verb::Probe)
            .hint("a probe answers by its exit code: 0 done, 1 not started, 2 partly, 3 somebody else's doing")),
    }
}

/// The step's output from a command's last line.
pub(crate) fn output(ended: &command::Ended, environment: &BTreeMap<String, SecretString>) -> Output {
    let mut output = Output::default();
    let last = last_lines(&ended.stdout, 1).first().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    if let Some(object @ serde_json::Value::Object(_)) = last
        && let serde_json::Value::Object(fields) = value_without_secrets(object, environment)
    {
        output.facts.extend(fields);
    }
    output
}

#[async_trait]
impl Step for HookExec {
    fn name(&self) -> &'static str {
        Self::NAME
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
        let mut plan = Plan { lines: vec![format!("run `{}`, for at most {:?}", self.command.shown(), self.limit)], warnings: Vec::new() };
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
        Ok(match context.rates.get(&*context.step) {
            Some(work) => Estimate::Expected {
                duration: Duration::try_from_secs_f64(work.seconds).unwrap_or(self.limit).min(self.limit),
                basis: "as long as in the last rehearsal".to_owned(),
            },
            None => Estimate::Unknown(format!("`{}` has not been rehearsed; it is killed after {:?}", self.command.program(), self.limit)),
        })
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let began = tokio::time::Instant::now();
        let ended = command::run(context, &self.command, Verb::Run, &self.environment, self.limit).await?;
        ended.succeeded(&self.command, Verb::Run)?;
        let mut output = output(&ended, &self.environment);
        output.work = Some(crate::engine::step::Work { unit: "commands".to_owned(), amount: 1, seconds: began.elapsed().as_secs_f64() });
        context.save_output(&output)?;
        Ok(output)
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        match &self.probe {
            Some(line) => judge(&command::run(context, line, Verb::Probe, &self.environment, self.limit).await?, line),
            None => Ok(Probe::Partly { from: "unknown; the command is run again".to_owned() }),
        }
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        match &self.undo {
            Undo::Command(line) => {
                command::run(context, line, Verb::Undo, &self.environment, self.limit).await?.succeeded(line, Verb::Undo)
            }
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
