//! What a command comes back with: an [`Answer`], or a [`Refusal`] that kept it from doing anything. Printing is done in one place, so
//! that data goes to stdout, words to stderr, and every JSON has the same frame.

use miette::{GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;

use crate::engine::journal::JournalError;
use crate::engine::outcome::ExitCode;
use crate::engine::run::EngineError;
use crate::playbook::problem::PlaybookError;
use crate::playbook::quantity::QuantityError;
use crate::playbook::ready::ReadyError;
use crate::steps::BuildError;

/// The version of the frame around every JSON on stdout.
pub const FORMAT: u32 = 1;

/// What a command found or did.
#[derive(Debug)]
pub struct Answer {
    /// For programs: one JSON object (or, of `schema`, a document of its own), with `next` at its end.
    pub json: String,
    /// For people, on stdout.
    pub text: String,
    /// Words about it, on stderr.
    pub words: String,
    /// What the process ends with.
    pub exit_code: ExitCode,
}

/// The frame of every JSON on stdout.
#[derive(Serialize)]
struct Frame<'a, Data> {
    format: u32,
    command: &'a str,
    exit_code: u8,
    #[serde(flatten)]
    data: Data,
    next: &'a [String],
}

/// An object in its frame, indented.
pub fn framed(command: &str, exit_code: ExitCode, data: &impl Serialize, next: &[String]) -> String {
    let frame = Frame { format: FORMAT, command, exit_code: exit_code.code(), data, next };
    // All data is ours and has text keys; a number that is not one is written as null.
    serde_json::to_string_pretty(&frame).unwrap_or_else(|error| format!("{{\"format\":{FORMAT},\"error\":{:?}}}", error.to_string()))
}

impl Answer {
    /// An answer in the usual frame.
    pub fn new(command: &str, exit_code: ExitCode, data: &impl Serialize, next: &[String], text: String) -> Answer {
        Answer { json: framed(command, exit_code, data, next), text, words: String::new(), exit_code }
    }
}

/// Why a command did nothing: in words, with a hint and an exit code.
#[derive(Debug)]
pub struct Refusal {
    /// What is wrong, object names in backticks, and what was left as it is.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// What the process ends with.
    pub exit_code: ExitCode,
    /// More of it for people, before the message: a plan, an excerpt. Already fit for a terminal.
    pub shown: Option<Box<str>>,
    /// More of it for programs.
    pub details: serde_json::Map<String, serde_json::Value>,
    /// The commands that make sense now.
    pub next: Vec<String>,
}

impl Refusal {
    /// A refusal with an exit code.
    pub fn new(exit_code: ExitCode, message: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), hint: None, exit_code, shown: None, details: serde_json::Map::new(), next: Vec::new() }
    }
    /// A wrong command line or playbook.
    pub fn usage(message: impl Into<String>) -> Refusal {
        Refusal::new(ExitCode::Usage, message)
    }
    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Refusal {
        self.hint = Some(hint.into());
        self
    }
    /// Adds commands that make sense now.
    #[must_use]
    pub fn next(mut self, next: impl IntoIterator<Item = String>) -> Refusal {
        self.next.extend(next);
        self
    }

    /// As JSON in the usual frame.
    #[must_use]
    pub fn json(&self, command: &str) -> String {
        let mut data = self.details.clone();
        let mut error = serde_json::Map::new();
        error.insert("message".to_owned(), self.message.clone().into());
        error.insert("hint".to_owned(), self.hint.clone().into());
        data.insert("error".to_owned(), error.into());
        framed(command, self.exit_code, &data, &self.next)
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Refusal {
        let hint = matches!(error, JournalError::Missing { .. }).then(|| {
            "`--state-dir` or `DBMOVE_STATE_DIR` say where it lies; `dbmove rehearse PLAYBOOK` or `dbmove run PLAYBOOK` begin one"
                .to_owned()
        });
        Refusal { hint, ..Refusal::new(error.exit_code(), error.to_string()) }
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Refusal {
        let exit_code = error.exit_code();
        let hint = match &error {
            EngineError::Step { error, .. } => error.hint.clone(),
            EngineError::Beforehand { verdict } => verdict.hint().map(str::to_owned),
            _ => None,
        };
        Refusal { hint, ..Refusal::new(exit_code, error.to_string()) }
    }
}

impl From<BuildError> for Refusal {
    fn from(error: BuildError) -> Refusal {
        Refusal::new(error.exit_code(), error.to_string())
    }
}

impl From<ReadyError> for Refusal {
    fn from(error: ReadyError) -> Refusal {
        let exit_code = if matches!(error, ReadyError::NotWritten { .. }) { ExitCode::Error } else { ExitCode::Usage };
        let next = matches!(error, ReadyError::Unknown { .. }).then(|| "dbmove playbook list".to_owned());
        Refusal::new(exit_code, error.to_string()).next(next)
    }
}

impl From<QuantityError> for Refusal {
    fn from(error: QuantityError) -> Refusal {
        Refusal::usage(error.to_string()).hint(error.help())
    }
}

/// A playbook that can't be used, with its excerpt for a terminal of that many columns.
pub fn broken_playbook(path: &std::path::Path, error: &PlaybookError, columns: usize, colour: bool) -> Refusal {
    let mut refusal = Refusal::usage(error.to_string());
    if error.problems().is_empty() {
        refusal.hint = miette::Diagnostic::help(error).map(|help| help.to_string());
    } else {
        refusal.shown = Some(excerpts(error, columns, colour).into());
        let problems = serde_json::to_value(error.problems()).unwrap_or_default();
        refusal.details.insert("problems".to_owned(), problems);
        refusal.next = vec![format!("dbmove playbook check {}", crate::report::next::playbook_word("", Some(path)))];
    }
    refusal
}

/// Every mistake of a playbook with its line, one under the other, for a terminal of that many columns.
pub fn excerpts(error: &PlaybookError, columns: usize, colour: bool) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(columns).with_links(false).with_context_lines(1);
    let mut text = String::new();
    for problem in error.problems() {
        let mut excerpt = String::new();
        // Writing into a String does not fail; a renderer's error leaves the plain message.
        if handler.render_report(&mut excerpt, problem).is_err() {
            excerpt = format!("{problem}\n");
        }
        for line in excerpt.trim_end().lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    text.trim_end().to_owned()
}
