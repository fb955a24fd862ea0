//! The go-ahead for what is dangerous: the plan first, then the playbook's name typed by a person, or `--yes`.
//!
//! The name is asked for and not a `y`, because a hand that has typed `y` a hundred times types it the hundred-and-first time too.

use std::io::{BufRead, Write};

use serde_json::Value;

use super::answer::Refusal;
use super::settings::{Everywhere, GoAhead};
use crate::engine::outcome::ExitCode;
use crate::telemetry::human::wrapped;
use crate::telemetry::printable::printable;

/// What would happen, for whoever has to say yes.
pub struct Plan {
    /// The playbook's name.
    pub playbook: String,
    /// For people.
    pub shown: String,
    /// For programs.
    pub data: Value,
}

/// Asks for the go-ahead, or finds it missing. `action` says what would happen, as in "run `school` on production".
///
/// # Errors
/// If nobody can be asked (exit code 2, with the plan), or the answer is another one (exit code 130: nothing was touched).
pub fn ask(everywhere: &Everywhere, plan: Plan, action: &str) -> Result<(), Refusal> {
    if everywhere.go_ahead == GoAhead::Given {
        return Ok(());
    }
    if everywhere.go_ahead == GoAhead::Missing {
        // Word by word: what was typed is what the plan was made from.
        let again = everywhere.typed.with_go_ahead();
        let mut refusal = Refusal::usage(format!("this would {action}, and there is no go-ahead; nothing was touched"))
            .hint(format!("this is the plan; `{again}` gives the go-ahead, or give it at a terminal"))
            .next([again]);
        refusal.shown = Some(plan.shown.into());
        refusal.details.insert("plan".to_owned(), plan.data);
        return Err(refusal);
    }
    everywhere.screen.say(&wrapped(&plan.shown, everywhere.columns));
    let mut stderr = std::io::stderr().lock();
    let mut typed = String::new();
    let asked = write!(stderr, "This would {action}.\nType the playbook's name, `{}`, to go ahead: ", printable(&plan.playbook))
        .and_then(|()| stderr.flush())
        .and_then(|()| std::io::stdin().lock().read_line(&mut typed));
    match asked {
        Ok(_) if typed.trim() == plan.playbook => Ok(()),
        Ok(_) => Err(Refusal::new(ExitCode::Interrupted, "no go-ahead was given; nothing was touched")),
        Err(error) => Err(Refusal::new(ExitCode::Error, format!("the answer can't be read: {error}; nothing was touched"))),
    }
}
