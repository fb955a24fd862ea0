//! A person's yes, and where it is kept.
//!
//! A step that asks ([`Step::question`](super::step::Step::question)) passes only when a person has said yes. The yes is an event of the run's
//! journal, written by whoever gives it, in a process of its own, whether or not a driver is at work: [`approve`] is
//! the only way in, so every way of giving one has the same rules. The step reads it from the file when it is asked to run
//! ([`StepContext::approval`](super::context::StepContext::approval)), so a driver under way sees one that was given a moment ago.
//!
//! # What a yes is good for
//!
//! * **One run.** There is no approving ahead of the first `run`: whoever says yes should be able to look at what stands (`status`,
//!   `report`), and a yes that lies about for a run that somebody may begin next month is one that nobody remembers giving. Once
//!   the run exists it may be given long before the step is reached.
//! * **One playbook.** The yes holds the hash of the playbook it was given for. After a change that was accepted the
//!   question is asked again, also by a step that had passed.
//! * **Production.** A rehearsal asks nobody, so nothing can be approved in it.
//!
//! The checks and the event are one transaction: nothing can happen to the run between them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::context::RunKind;
use super::journal::{Event, Journal, JournalError, RunState, events_after};
use super::lease::Owner;
use super::outcome::ExitCode;

/// A yes, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The step that asks.
    pub step: String,
    /// What it asked.
    pub question: String,
    /// Who said yes, by the name they gave.
    pub by: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From where, as the system knows it: user id, process, machine.
    pub from: String,
    /// The hash of the playbook it was given for.
    pub playbook_hash: String,
}

/// A yes with the moment it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub approval: Approval,
}

/// A yes that somebody wants to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Yes {
    /// The step's id.
    pub step: String,
    /// The hash of the playbook that the giver has before them.
    pub playbook_hash: String,
    /// Who gives it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was written down.
    Recorded(Given),
    /// This one stood already; nothing was written.
    Stood(Given),
}

/// Why it was not taken. Nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// The journal can't be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A rehearsal asks nobody.
    #[error("run `{run}` of playbook `{playbook}` is a rehearsal, and a rehearsal asks nobody: its gates pass; nothing was recorded")]
    Rehearsal {
        /// The run.
        run: String,
        /// The playbook.
        playbook: String,
    },
    /// The run is over.
    #[error("run `{run}` of playbook `{playbook}` is over, so there is nothing left to approve; nothing was recorded")]
    Finished {
        /// The run.
        run: String,
        /// The playbook.
        playbook: String,
    },
    /// The playbook is not the one the run goes by.
    #[error("the playbook is not the one that run `{run}` goes by: it changed since; nothing was recorded")]
    ChangedPlaybook {
        /// The run.
        run: String,
    },
    /// No such step.
    #[error("run `{run}` has no step `{step}`; nothing was recorded")]
    UnknownStep {
        /// The run.
        run: String,
        /// What was named.
        step: String,
        /// The steps that ask.
        asking: Vec<String>,
    },
    /// A step that asks nothing.
    #[error("step `{step}` (`{name}`) asks for no approval; nothing was recorded")]
    AsksNothing {
        /// The step.
        step: String,
        /// What it does.
        name: String,
        /// The steps that ask.
        asking: Vec<String>,
    },
    /// Nobody's yes.
    #[error("an approval needs a name: who gives it is recorded; nothing was recorded")]
    Nameless,
}

impl ApprovalError {
    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            ApprovalError::Journal(error) => error.exit_code(),
            ApprovalError::Rehearsal { .. } | ApprovalError::Finished { .. } | ApprovalError::ChangedPlaybook { .. } => ExitCode::Refused,
            ApprovalError::UnknownStep { .. } | ApprovalError::AsksNothing { .. } | ApprovalError::Nameless => ExitCode::Usage,
        }
    }
}

/// Records a yes for one step of a run, unless it stands already. On disk when it returns.
///
/// # Errors
/// [`ApprovalError`]; nothing was recorded then.
pub async fn approve(journal: &Journal, run: &str, yes: Yes) -> Result<Answer, ApprovalError> {
    if yes.by.trim().is_empty() {
        return Err(ApprovalError::Nameless);
    }
    let run = run.to_owned();
    // A refusal is a value of the transaction, not its failure: the journal knows only errors of its own.
    journal
        .write(move |journal| {
            journal.transaction(|transaction| {
                let events = events_after(transaction, journal.path(), &run, 0)?;
                let state = RunState::fold(&events).ok_or_else(|| JournalError::UnknownRun(run.clone()))?;
                let question = match question_of(&state, &yes) {
                    Ok(question) => question,
                    Err(error) => return Ok(Err(error)),
                };
                if let Some(given) = state.approval(&yes.step) {
                    return Ok(Ok(Answer::Stood(given.clone())));
                }
                let approval = Approval {
                    step: yes.step,
                    question,
                    by: yes.by.trim().to_owned(),
                    reason: yes.reason.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty()),
                    from: giver(),
                    playbook_hash: yes.playbook_hash,
                };
                let recorded = journal.append_in(transaction, &run, Event::Approved(approval.clone()))?;
                Ok(Ok(Answer::Recorded(Given { at: recorded.at, approval })))
            })
        })
        .await?
}

/// What the step asks, if a yes to it would count.
fn question_of(state: &RunState, yes: &Yes) -> Result<String, ApprovalError> {
    let (run, playbook) = (state.run.clone(), state.playbook.clone());
    if state.kind == RunKind::Rehearsal {
        return Err(ApprovalError::Rehearsal { run, playbook });
    }
    if state.finished.as_ref().is_some_and(|finished| finished.concluded) {
        return Err(ApprovalError::Finished { run, playbook });
    }
    if state.fingerprint.whole != yes.playbook_hash {
        return Err(ApprovalError::ChangedPlaybook { run });
    }
    let asking = || state.plan.iter().filter(|planned| planned.question.is_some()).map(|planned| planned.id.clone()).collect();
    match state.plan.iter().find(|planned| planned.id == yes.step) {
        None => Err(ApprovalError::UnknownStep { run, step: yes.step.clone(), asking: asking() }),
        Some(planned) => match &planned.question {
            None => Err(ApprovalError::AsksNothing { step: planned.id.clone(), name: planned.name.clone(), asking: asking() }),
            Some(question) => Ok(question.clone()),
        },
    }
}

/// This process, as the system knows it: a name can be anything.
fn giver() -> String {
    let me = Owner::current();
    format!("user id {}, process {} on `{}`", rustix::process::getuid().as_raw(), me.pid, me.host)
}
