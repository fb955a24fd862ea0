//! The step `gate.approve`: a question that a person has to say yes to before the run goes on.
//!
//! It changes nothing. Without a yes the run ends there with exit code 6, and the same command goes on with it once
//! `dbmove approve` has recorded one; how a yes is given and what it is good for is in [`approval`](crate::engine::approval). In `cutover`, before
//! the point of no return, whatever the stage had begun by then is undone first: clients are not kept waiting for a person. Nothing
//! is left to a default: no time limit turns silence into a yes.
//!
//! A yes is for one playbook, and a playbook may change under a run. So every driver that comes by looks again
//! ([`Step::volatile`]), also where the gate was passed before, until the point of no return is behind it.
//!
//! A rehearsal asks nobody: it has to run through by itself, and a yes to it would be worth nothing. The gate passes, and says in its
//! facts and as a finding what a production run will ask.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, Undoable};

/// How long a question may be, in characters: it stands in one sentence of every report.
const LONGEST_QUESTION: usize = 500;

/// What `gate.approve` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveArguments {
    /// What a person has to say yes to, as they read it: `May the school be cut over tonight?`
    pub question: String,
}

/// The step `gate.approve`.
pub struct GateApprove {
    question: String,
}

impl GateApprove {
    /// The name in a playbook.
    pub const NAME: &'static str = "gate.approve";

    /// From the arguments.
    ///
    /// # Errors
    /// If the question is empty or longer than anybody reads.
    pub fn new(arguments: &ApproveArguments) -> Result<Self, StepError> {
        let question = arguments.question.trim();
        if question.is_empty() {
            return Err(StepError::definite("`question` is empty").hint("write what a person has to say yes to"));
        }
        let length = question.chars().count();
        if length > LONGEST_QUESTION {
            return Err(StepError::definite(format!("`question` has {length} characters, more than {LONGEST_QUESTION}"))
                .hint("ask what can be answered with yes, and keep the explanation where it is looked up"));
        }
        Ok(GateApprove { question: question.to_owned() })
    }
}

#[async_trait]
impl Step for GateApprove {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn undoable(&self) -> Undoable {
        Undoable::Nothing
    }
    fn volatile(&self) -> bool {
        true
    }
    fn question(&self) -> Option<&str> {
        Some(&self.question)
    }
    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let lines = match context.kind {
            RunKind::Rehearsal => {
                vec![format!("pass: a rehearsal asks nobody. A production run asks: {}", self.question)]
            }
            RunKind::Production => vec![
                format!("ask: {}", self.question),
                format!(
                    "without a yes (`dbmove approve PLAYBOOK {}`) the run ends here with exit code 6; the same command goes on after it",
                    context.step
                ),
            ],
        };
        Ok(Plan { lines, warnings: Vec::new() })
    }
    /// The gate itself takes no time; a person's is not in the run.
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let output = Output::default().fact("question", self.question.as_str());
        if context.kind == RunKind::Rehearsal {
            let finding = json!({
                "level": "note",
                "object": &*context.step,
                "found": format!("passed without being asked, as this is a rehearsal. A production run asks: {}", self.question),
                "fix": format!("once that run has begun, `dbmove approve PLAYBOOK {}` gives the approval", context.step),
            });
            context.find("asks-in-production", &finding)?;
            return Ok(output.fact("approval", "not asked for: a rehearsal"));
        }
        let Some(given) = context.approval()? else {
            return Err(StepError::new(Failure::Waiting, self.question.clone()));
        };
        let mut output = output.fact("approval", "given").fact("approved_by", given.approval.by).fact("approved_at", given.at.to_string());
        if let Some(reason) = given.approval.reason {
            output = output.fact("reason", reason);
        }
        Ok(output)
    }
    /// Looking twice changes nothing, so after a crash it looks again.
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotStarted)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(question: &str) -> Result<GateApprove, StepError> {
        GateApprove::new(&ApproveArguments { question: question.to_owned() })
    }

    #[test]
    fn a_question_has_to_be_one() {
        assert!(gate(" \n").is_err());
        assert!(gate(&"a".repeat(LONGEST_QUESTION + 1)).is_err());
        assert_eq!(gate(" Go? ").unwrap().question(), Some("Go?"));
        assert!(gate(&"ü".repeat(LONGEST_QUESTION)).is_ok());
    }
}
