//! How a run ends, and which exit code says so: the only place where the two meet.
//!
//! A [`Verdict`] is what the journal keeps in `run_finished` and what every report starts with. It
//! always answers the operator's first question, *who serves the traffic now*, through
//! [`Serving`]. Errors that kept the run from being driven at all (somebody else holds the lease, the
//! journal can't be written) are [`EngineError`](super::run::EngineError)s and have their codes here too.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::guards::Effect;
use super::run::EngineError;
use super::step::Failure;
use crate::playbook::model::StageName;

/// What the process says when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// Something failed.
    Error = 1,
    /// The command line or the playbook is wrong.
    Usage = 2,
    /// Rows differ.
    Differences = 3,
    /// A gate said no; nothing was touched.
    Refused = 4,
    /// The deadline would have been missed; rolled back.
    DeadlineMissed = 5,
    /// Waits for a person.
    WaitingForApproval = 6,
    /// Another driver holds the lease.
    LeaseHeld = 7,
    /// Stopped on request; resumable.
    Interrupted = 130,
}

impl ExitCode {
    /// The number handed to the operating system.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code.code())
    }
}

/// Who serves the traffic when the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serving {
    /// The source, as before the run.
    Source,
    /// The target: the point of no return is passed.
    Target,
    /// Not known: an undo failed or the switch was left half way. The message says what to look at.
    Unclear,
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Serving::Source => "the source serves as before",
            Serving::Target => "the target serves",
            Serving::Unclear => "who serves is unclear",
        })
    }
}

/// How a run, or this driver's part of it, ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// Every stage up to and including `until` is done.
    Done {
        /// The last stage that was asked for.
        until: StageName,
    },
    /// A step failed and will not heal by itself.
    Failed {
        /// The step, where one is to blame.
        step: Option<String>,
        /// What happened, to which object.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// Rows differ.
    Differences {
        /// The step that compared.
        step: String,
        /// What differs.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// A gate said no: no certificate, findings, not enough time, a changed playbook.
    Refused {
        /// The step, if the gate is one.
        step: Option<String>,
        /// Each reason, one line.
        reasons: Vec<String>,
        /// What to do next.
        hint: Option<String>,
    },
    /// The time left no longer covered finishing or undoing.
    DeadlineMissed {
        /// The figures, in words.
        message: String,
    },
    /// Writes were held longer than allowed before the switch was done.
    WriteGapExceeded {
        /// How long writes may be held, in seconds.
        limit_seconds: f64,
        /// How long they had been held when the engine gave up, in seconds.
        held_seconds: f64,
    },
    /// A step waits for a person.
    WaitingForApproval {
        /// The step that waits.
        step: String,
        /// For what.
        message: String,
    },
    /// Another driver asked for the run and got it.
    HandedOver {
        /// Who asked.
        to: String,
    },
    /// Stopped on request; the same command goes on from here.
    Interrupted,
    /// A person ended it by `dbmove ctl`; what is undone then is told in [`run`](super::run).
    Aborted {
        /// Who, by the name they gave.
        by: String,
        /// Why, in their words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A guard fired, and the run ended by it.
    StoppedByGuard {
        /// The guard.
        guard: String,
        /// What was found.
        found: String,
        /// What became of the run.
        effect: Effect,
    },
    /// All that the run made is gone again, as it was asked for.
    Undone,
    /// Clients are on the source again, with all they wrote on the target.
    RolledBack,
    /// Another driver took the lease, or stands on the target with a higher epoch.
    LeaseLost {
        /// Who or what took over, as far as known.
        message: String,
    },
}

impl Verdict {
    /// The exit code of this verdict.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Verdict::Done { .. } | Verdict::HandedOver { .. } | Verdict::Undone | Verdict::RolledBack => ExitCode::Done,
            Verdict::Failed { .. } | Verdict::WriteGapExceeded { .. } | Verdict::StoppedByGuard { .. } => ExitCode::Error,
            Verdict::Differences { .. } => ExitCode::Differences,
            Verdict::Refused { .. } => ExitCode::Refused,
            Verdict::DeadlineMissed { .. } => ExitCode::DeadlineMissed,
            Verdict::WaitingForApproval { .. } => ExitCode::WaitingForApproval,
            Verdict::LeaseLost { .. } => ExitCode::LeaseHeld,
            Verdict::Interrupted | Verdict::Aborted { .. } => ExitCode::Interrupted,
        }
    }

    /// The verdict that a step's failure leads to.
    #[must_use]
    pub fn of_failure(step: &str, error: &super::step::StepError) -> Verdict {
        let (message, hint) = (error.message.clone(), error.hint.clone());
        match error.failure {
            Failure::Transient | Failure::Definite | Failure::Cancelled => Verdict::Failed { step: Some(step.to_owned()), message, hint },
            Failure::Differences => Verdict::Differences { step: step.to_owned(), message, hint },
            Failure::Refused => Verdict::Refused { step: Some(step.to_owned()), reasons: vec![message], hint },
            Failure::Waiting => Verdict::WaitingForApproval { step: step.to_owned(), message },
            Failure::LeaseLost => Verdict::LeaseLost { message },
        }
    }

    /// What to do next, where the verdict knows.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Verdict::Failed { hint, .. } | Verdict::Differences { hint, .. } | Verdict::Refused { hint, .. } => hint.as_deref(),
            Verdict::StoppedByGuard { effect: Effect::Undone, .. } => {
                Some("when the guard is quiet, the same command with `--new-run` starts another run")
            }
            Verdict::StoppedByGuard { .. } => Some("when the guard is quiet, the same command goes on from here"),
            Verdict::Interrupted => Some("the same command goes on from here"),
            Verdict::RolledBack => Some(
                "the copy on the target is left as it is, `read_only` where that could be set; `dbmove undo PLAYBOOK` drops it, then `dbmove run PLAYBOOK --new-run` starts another run",
            ),
            _ => None,
        }
    }

    /// True if the run may be driven on by the same command.
    #[must_use]
    pub fn resumable(&self) -> bool {
        matches!(self, Verdict::Interrupted | Verdict::HandedOver { .. } | Verdict::LeaseLost { .. } | Verdict::WaitingForApproval { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Done { until } => write!(f, "done up to and including `{}`", until.as_str()),
            Verdict::Failed { step: Some(step), message, .. } => write!(f, "step `{step}` failed: {message}"),
            Verdict::Failed { step: None, message, .. } => write!(f, "failed: {message}"),
            Verdict::Differences { step, message, .. } => write!(f, "step `{step}` found differences: {message}"),
            Verdict::Refused { step: Some(step), reasons, .. } => write!(f, "step `{step}` refused: {}", reasons.join("; ")),
            Verdict::Refused { step: None, reasons, .. } => write!(f, "refused: {}", reasons.join("; ")),
            Verdict::DeadlineMissed { message } => write!(f, "the deadline would be missed: {message}"),
            Verdict::WriteGapExceeded { limit_seconds, held_seconds } => write!(
                f,
                "writes had been held for {held_seconds:.1} s, more than the {limit_seconds:.1} s that `max_write_gap` allows, and the switch was not done"
            ),
            Verdict::WaitingForApproval { step, message } => write!(f, "step `{step}` waits for approval: {message}"),
            Verdict::HandedOver { to } => write!(f, "handed over to {to}"),
            Verdict::Interrupted => f.write_str("stopped on request"),
            Verdict::Aborted { by, reason: Some(reason) } => write!(f, "aborted by {by}: {reason}"),
            Verdict::Aborted { by, reason: None } => write!(f, "aborted by {by}"),
            Verdict::StoppedByGuard { guard, found, .. } => write!(f, "guard `{guard}` fired: {found}"),
            Verdict::Undone => f.write_str("all that this run made is gone again, as asked for"),
            Verdict::RolledBack => f.write_str("rolled back: clients are on the source again, with everything they wrote on the target"),
            Verdict::LeaseLost { message } => write!(f, "the lease was lost: {message}"),
        }
    }
}

/// What [`drive`](super::run::drive) returns.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutcome {
    /// The run's id.
    pub run: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Who serves the traffic.
    pub serving: Serving,
    /// Steps that were undone, newest first.
    pub undone: Vec<String>,
    /// Steps whose undo failed, each with why: what a person has to look at.
    pub not_undone: Vec<(String, String)>,
    /// How long writes were held from the first holding step to the switch (or its undo), in seconds.
    pub write_gap_seconds: Option<f64>,
    /// What a passed rehearsal left behind.
    pub certificate: Option<Certificate>,
}

impl RunOutcome {
    /// The exit code of the run. A failed undo is an error whatever led to it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.not_undone.is_empty() || matches!(self.verdict, Verdict::LeaseLost { .. }) {
            self.verdict.exit_code()
        } else {
            ExitCode::Error
        }
    }
}

impl EngineError {
    /// The exit code of an error that kept the run from being driven.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            EngineError::Journal(error) => error.exit_code(),
            EngineError::Lease(_) => ExitCode::LeaseHeld,
            EngineError::Drift(_) | EngineError::Beforehand { .. } => ExitCode::Refused,
            EngineError::Playbook(_) => ExitCode::Usage,
            EngineError::Finished { .. } | EngineError::Hidden { .. } | EngineError::LoadLeftOut { .. } => ExitCode::Refused,
            EngineError::Step { error, .. } if error.failure == Failure::LeaseLost => ExitCode::LeaseHeld,
            EngineError::Step { error, .. } if error.failure == Failure::Refused => ExitCode::Refused,
            EngineError::StoppedWaiting { .. } => ExitCode::Interrupted,
            EngineError::Step { .. } => ExitCode::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::step::StepError;

    #[test]
    fn every_failure_has_the_exit_code_of_the_design() {
        for (failure, code) in [
            (Failure::Transient, 1),
            (Failure::Definite, 1),
            (Failure::Cancelled, 1),
            (Failure::Differences, 3),
            (Failure::Refused, 4),
            (Failure::Waiting, 6),
            (Failure::LeaseLost, 7),
        ] {
            assert_eq!(Verdict::of_failure("s", &StepError::new(failure, "m")).exit_code().code(), code, "{failure:?}");
        }
        assert_eq!(Verdict::Done { until: StageName::Settle }.exit_code().code(), 0);
        assert_eq!(Verdict::HandedOver { to: "x".to_owned() }.exit_code().code(), 0);
        assert_eq!(Verdict::Undone.exit_code().code(), 0);
        assert_eq!(Verdict::RolledBack.exit_code().code(), 0);
        assert_eq!(Verdict::DeadlineMissed { message: String::new() }.exit_code().code(), 5);
        assert_eq!(Verdict::WriteGapExceeded { limit_seconds: 1.0, held_seconds: 2.0 }.exit_code().code(), 1);
        let stopped = |effect| Verdict::StoppedByGuard { guard: String::new(), found: String::new(), effect };
        assert_eq!(stopped(Effect::Stopped).exit_code().code(), 1);
        assert_eq!(stopped(Effect::Undone).exit_code().code(), 1);
        assert_eq!(Verdict::Interrupted.exit_code().code(), 130);
        assert_eq!(EngineError::Playbook(String::new()).exit_code().code(), 2);
    }

    #[test]
    fn a_failed_undo_is_an_error_whatever_led_to_it() {
        let outcome = RunOutcome {
            run: "r".to_owned(),
            verdict: Verdict::DeadlineMissed { message: String::new() },
            serving: Serving::Unclear,
            undone: Vec::new(),
            not_undone: vec![("fence".to_owned(), "stuck".to_owned())],
            write_gap_seconds: None,
            certificate: None,
        };
        assert_eq!(outcome.exit_code(), ExitCode::Error);
    }
}
