//! One step's run, from its intent to its outcome, with retries.
//!
//! 1. The intent is written. If that fails, nothing acts.
//! 2. `run` acts. Meanwhile a service's readiness is written once it is told, and a request to stop is given
//!    [`Limits::stop_grace`] to be followed before the step is dropped where it stands.
//! 3. The outcome is written.
//!
//! A transient failure is tried again after an exponentially growing, jittered pause, as a new attempt with its own intent;
//! a service that became ready has its count of failures forgiven, so that a follower of several days doesn't die of its sixth lost
//! connection. Everything else ends the step.
//!
//! The point of no return has rules of its own. It is never cancelled by a budget or by Ctrl-C; it has its own time limit. When it
//! returns an error, the error is not believed: a switch may have happened although its answer got lost. `probe` looks,
//! and *done* means done.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::{Progress, StepContext};
use super::crash;
use super::journal::{Action, Event, JournalError, RunJournal, StepResult};
use super::observer::Observer;
use super::run::Limits;
use super::step::{Failure, Output, Probe, Step, StepError, StepKind, Undoable};

/// Why a step's run ended without its end state.
#[derive(Debug)]
pub(super) enum Halt {
    /// The step failed or was stopped.
    Step(StepError),
    /// The point of no return was left in a state that neither going on nor undoing can be built upon.
    Unclear(StepError),
    /// The journal could not be written.
    Journal(JournalError),
}

impl From<JournalError> for Halt {
    fn from(error: JournalError) -> Self {
        Halt::Journal(error)
    }
}

/// Everything a step's run needs; owned by its task.
pub(super) struct Execution {
    pub step: Arc<dyn Step>,
    /// The context of the first attempt; `ready` is replaced with every attempt.
    pub context: StepContext,
    pub journal: RunJournal,
    pub observer: Arc<dyn Observer>,
    pub retries: u32,
    pub limits: Limits,
    pub point_of_no_return: bool,
    /// Tells the driver that a service is ready, once that is on disk.
    pub ready: watch::Sender<bool>,
    pub nudge: Arc<Notify>,
}

/// The pause before the `number`th retry (from 1): doubling, bounded, with half of it left to chance.
pub(super) fn pause(limits: &Limits, number: u32) -> Duration {
    let doubled = limits.first_retry.saturating_mul(1_u32.checked_shl(number.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(limits.longest_retry).mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

impl Execution {
    fn id(&self) -> String {
        self.context.step.to_string()
    }

    /// Runs the step to its end.
    pub async fn run(mut self) -> Result<Output, Halt> {
        let mut failures = 0;
        let started = Instant::now();
        loop {
            let (result, ready) = self.attempt(started).await?;
            if ready {
                failures = 0;
            }
            let Err(error) = result else { return result.map_err(Halt::Step) };
            if error.failure != Failure::Transient || self.context.cancel.is_cancelled() || failures >= self.retries {
                return self.give_up(error).await;
            }
            failures += 1;
            let wait = pause(&self.limits, failures);
            self.context.attempt += 1;
            self.journal
                .append(Event::Retry {
                    step: self.id(),
                    attempt: self.context.attempt,
                    wait_seconds: wait.as_secs_f64(),
                    error: error.message.clone(),
                })
                .await?;
            self.observer.step_retry(&self.context.step, self.context.attempt, wait, &error.message);
            tokio::select! {
                () = self.context.cancel.cancelled() => return Err(Halt::Step(StepError::cancelled())),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One attempt: intent, effect, outcome. Also says whether a service became ready in it.
    async fn attempt(&mut self, first_started: Instant) -> Result<(Result<Output, StepError>, bool), Halt> {
        let (id, attempt) = (self.id(), self.context.attempt);
        crash::point("step.before_intent");
        self.journal.append(Event::Intent { step: id.clone(), attempt, action: Action::Run, key: self.context.idempotency_key() }).await?;
        crash::point("step.intent_written");
        self.observer.step_started(&id, self.step.name(), attempt);
        let started = Instant::now();
        let (result, was_ready) = self.act(first_started).await?;
        crash::point(if self.point_of_no_return { "point_of_no_return.effect_done" } else { "step.effect_done" });
        let stopped =
            |error: &StepError| self.context.cancel.is_cancelled() && matches!(error.failure, Failure::Cancelled | Failure::Transient);
        let recorded = match &result {
            Ok(output) => StepResult::Done { output: output.clone() },
            Err(error) if stopped(error) => StepResult::Stopped,
            Err(error) => StepResult::Failed { error: error.into() },
        };
        let seconds = started.elapsed().as_secs_f64();
        // The point of no return's failure is only known once `probe` has looked; see `give_up`.
        if !(self.point_of_no_return && result.as_ref().is_err_and(|error| error.failure != Failure::Transient)) {
            self.journal
                .append(Event::Outcome { step: id.clone(), attempt, action: Action::Run, result: recorded, seconds, settled: false })
                .await?;
            crash::point(if self.point_of_no_return { "point_of_no_return.outcome_written" } else { "step.outcome_written" });
        }
        if let Ok(output) = &result
            && let Some(work) = &output.work
        {
            self.journal.rate(&id, work).await?;
        }
        self.observer.step_ended(&id, result.as_ref().err().map(|error| error.message.as_str()));
        Ok((result, was_ready))
    }

    /// The effect itself.
    async fn act(&mut self, first_started: Instant) -> Result<(Result<Output, StepError>, bool), Halt> {
        let (ready, mut told) = watch::channel(false);
        self.context.ready = ready;
        let context = self.context.clone();
        let service = self.step.kind() == StepKind::Service;
        let limit = if self.point_of_no_return { self.limits.point_of_no_return } else { Duration::from_secs(u32::MAX.into()) };
        let step = self.step.clone();
        let mut run = std::pin::pin!(step.run(&context));
        let mut limit = std::pin::pin!(tokio::time::sleep(limit));
        let mut announced = false;
        let mut stop_by: Option<Instant> = None;
        let result = loop {
            tokio::select! {
                result = &mut run => break result,
                true = async { told.wait_for(|ready| *ready).await.is_ok() }, if service && !announced => {
                    announced = true;
                    crash::point("service.ready");
                    let seconds = first_started.elapsed().as_secs_f64();
                    self.journal.append(Event::Ready { step: self.id(), seconds }).await?;
                    crash::point("service.ready_written");
                    self.observer.service_ready(&self.context.step);
                    self.ready.send_replace(true);
                    self.nudge.notify_one();
                }
                () = self.context.cancel.cancelled(), if stop_by.is_none() => stop_by = Some(Instant::now() + self.limits.stop_grace),
                () = &mut limit, if self.point_of_no_return && stop_by.is_none() => {
                    self.context.cancel.cancel();
                    stop_by = Some(Instant::now() + self.limits.stop_grace);
                }
                () = tokio::time::sleep_until(stop_by.unwrap_or_else(Instant::now)), if stop_by.is_some() => {
                    break Err(StepError::new(Failure::Cancelled, format!("`{}` was asked to stop and did not within {:?}; it was abandoned", self.context.step, self.limits.stop_grace)));
                }
            }
        };
        self.ready.send_replace(false);
        let result = match result {
            Ok(mut output) => {
                // A rate that is no number would poison every estimate, and the journal.
                output.work = output.work.filter(|work| work.seconds.is_finite() && work.seconds >= 0.0);
                Ok(output)
            }
            Err(error) if self.point_of_no_return && error.failure == Failure::Cancelled => Err(StepError::definite(format!(
                "`{}` took longer than the {:?} it has",
                self.context.step, self.limits.point_of_no_return
            ))),
            Err(error) if error.failure == Failure::Cancelled && !self.context.cancel.is_cancelled() => {
                Err(StepError::definite(format!("`{}` stopped although nobody asked it to: {}", self.context.step, error.message)))
            }
            Err(error) => Err(error),
        };
        Ok((result, announced))
    }

    /// The end after an error: believed, except for the point of no return.
    async fn give_up(self, error: StepError) -> Result<Output, Halt> {
        if !self.point_of_no_return {
            return Err(Halt::Step(error));
        }
        let mut context = self.context.clone();
        // Looking must still be possible after the step itself ran out of time.
        context.cancel = CancellationToken::new();
        let probe = probe(&*self.step, &context, &self.limits, self.retries).await;
        let outcome = |result: StepResult| Event::Outcome {
            step: self.id(),
            attempt: self.context.attempt,
            action: Action::Run,
            result,
            seconds: 0.0,
            settled: true,
        };
        if let Ok(probe) = &probe {
            self.journal.append(Event::Probed { step: self.id(), probe: probe.clone() }).await?;
        }
        let found = match probe {
            Ok(Probe::Done) => {
                let output = saved_output(&context)?;
                self.journal.append(outcome(StepResult::Done { output: output.clone() })).await?;
                crash::point("point_of_no_return.outcome_written");
                return Ok(output);
            }
            Ok(Probe::NotStarted) => None,
            Ok(Probe::Partly { .. }) if !matches!(self.step.undoable(), Undoable::No(_)) => None,
            Ok(Probe::Partly { from }) => Some(format!("it is half done ({from}) and can't be undone")),
            Ok(Probe::Foreign { found }) => Some(format!("somebody else has been there: {found}")),
            Err(error) => Some(format!("its state can't be looked at: {error}")),
        };
        self.journal.append(outcome(StepResult::Failed { error: (&error).into() })).await?;
        match found {
            None => Err(Halt::Step(error)),
            Some(found) => Err(Halt::Unclear(
                StepError::definite(format!("{}; {found}", error.message))
                    .hint("writes are still held. Look where clients are pointed, put that right, then give the same command again"),
            )),
        }
    }
}

/// What a step left behind before its outcome could be written.
pub(super) fn saved_output(context: &StepContext) -> Result<Output, Halt> {
    Ok(context.saved_output().map_err(Halt::Step)?.unwrap_or_default())
}

/// Looks at the world, again and again if the looking fails transiently.
pub(super) async fn probe(step: &dyn Step, context: &StepContext, limits: &Limits, retries: u32) -> Result<Probe, StepError> {
    let mut failures = 0;
    loop {
        match step.probe(context).await {
            Err(error) if error.failure == Failure::Transient && failures < retries && !context.cancel.is_cancelled() => {
                failures += 1;
                tokio::time::sleep(pause(limits, failures)).await;
            }
            result => return result,
        }
    }
}

/// A context's progress channel, with the receiver that the driver keeps.
pub(super) fn progress_channel() -> (watch::Sender<Progress>, watch::Receiver<Progress>) {
    watch::channel(Progress::default())
}
