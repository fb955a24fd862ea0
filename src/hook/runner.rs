//! How the commands of one step are run: with which environment, for how long, and what becomes of their answers.
//!
//! `hook.exec` and `traffic.exec` differ in what they run when; what a command's output, exit code and last line mean
//! to a step is the same for both and is here.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

use super::command::{self, CommandFailed, CommandLine, DEFAULT_TIMEOUT, Ended, Verb};
use super::message::{last_lines, printable, value_without_secrets};
use crate::engine::context::StepContext;
use crate::engine::deadline::parse_duration;
use crate::engine::step::{Estimate, Output, Probe, StepError, Work};
use crate::playbook::model::{DurationText, Template};

/// Runs the commands of one step.
pub struct Runner {
    environment: BTreeMap<String, SecretString>,
    limit: Duration,
}

impl Runner {
    /// From the arguments `env` and `timeout`, and the values of `env` as resolved by the caller.
    ///
    /// # Errors
    /// If a variable's name can't be one, or the timeout can't be read.
    pub fn new(
        written: &BTreeMap<String, Template>,
        environment: BTreeMap<String, SecretString>,
        timeout: Option<&DurationText>,
    ) -> Result<Self, StepError> {
        command::check_names(written.keys().chain(environment.keys()))?;
        Ok(Runner { environment, limit: read_limit("timeout", timeout, DEFAULT_TIMEOUT)? })
    }

    /// How long each command may run.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// As long as in the last rehearsal, at `most` so long; nothing if there was none.
    #[must_use]
    pub fn estimate(&self, context: &StepContext, most: Duration) -> Option<Estimate> {
        context.rates.get(&*context.step).map(|work| Estimate::Expected {
            duration: Duration::try_from_secs_f64(work.seconds).unwrap_or(self.limit).min(most),
            basis: "as long as in the last rehearsal".to_owned(),
        })
    }

    /// Does the step: the command has to succeed. Its last line, if it is a JSON object, becomes the step's output, which is
    /// saved; the time since `began` is what the step took.
    ///
    /// # Errors
    /// As [`command::run`], and what the exit code stands for.
    pub async fn act(&self, context: &StepContext, line: &CommandLine, began: Instant) -> Result<Output, CommandFailed> {
        let ended = self.run(context, line, Verb::Run).await?;
        ended.succeeded(line, Verb::Run)?;
        let mut output = self.output(&ended);
        output.work = Some(Work { unit: "commands".to_owned(), amount: 1, seconds: began.elapsed().as_secs_f64() });
        context.save_output(&output).map_err(|error| CommandFailed { error, may_have_acted: true })?;
        Ok(output)
    }

    /// Asks whether it is done, by the exit code: 0 done, 1 not started, 2 partly, 3 somebody else's doing.
    ///
    /// # Errors
    /// As [`command::run`], and if the command ended in any other way.
    pub async fn ask(&self, context: &StepContext, line: &CommandLine) -> Result<Probe, StepError> {
        let ended = self.run(context, line, Verb::Probe).await?;
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

    /// Puts it back: the command has to succeed.
    ///
    /// # Errors
    /// As [`command::run`], and what the exit code stands for.
    pub async fn undo(&self, context: &StepContext, line: &CommandLine) -> Result<(), CommandFailed> {
        self.run(context, line, Verb::Undo).await?.succeeded(line, Verb::Undo)
    }

    async fn run(&self, context: &StepContext, line: &CommandLine, verb: Verb) -> Result<Ended, CommandFailed> {
        command::run(context, line, verb, &self.environment, self.limit).await
    }

    fn output(&self, ended: &Ended) -> Output {
        let mut output = Output::default();
        let last = last_lines(&ended.stdout, 1).first().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        if let Some(object @ serde_json::Value::Object(_)) = last
            && let serde_json::Value::Object(fields) = value_without_secrets(object, &self.environment)
        {
            output.facts.extend(fields);
        }
        output
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
