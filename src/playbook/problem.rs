//! What is wrong with a playbook, and how it is shown.
//!
//! A playbook is judged as a whole: every [`Problem`] is collected, put in file order and shown
//! with the lines it stands in. The lines shown come from a *masked* copy of the file in which
//! passwords that were written down by mistake are stars, so that an error message never repeats
//! a secret. Masking keeps byte offsets, so columns stay right.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde::Serialize;

use super::mask::mask;

/// The largest playbook that is read, in bytes.
pub const LARGEST_PLAYBOOK: u64 = 1 << 20;

/// How many mistakes are shown: nobody mends more in one go.
pub const MOST_SHOWN: usize = 50;

/// Lines longer than this (in bytes) are not shown: they would fill the screen.
const LONGEST_SHOWN_LINE: usize = 400;

/// The kind of a mistake: stable, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mistake {
    /// The file is not YAML.
    Syntax,
    /// A key stands twice in one mapping.
    DuplicateKey,
    /// A field that does not exist.
    UnknownField,
    /// A field that must be there and is not.
    MissingField,
    /// A number where text is wanted, or the like.
    WrongType,
    /// A value outside of what is possible.
    InvalidValue,
    /// A name with characters that are not allowed.
    InvalidName,
    /// No duration or size.
    InvalidQuantity,
    /// No `database.table` pattern.
    InvalidPattern,
    /// No `mysql://user@host:port/`.
    InvalidAddress,
    /// A password written down instead of referred to.
    LiteralSecret,
    /// A broken `${…}`.
    InvalidReference,
    /// `${step:…}` names no step that comes earlier.
    UnreachableStep,
    /// Two steps with one id.
    DuplicateStep,
    /// `run` names no step there is.
    UnknownStep,
    /// A step stands in a stage where it can't.
    WrongStage,
    /// `store` names no store of the playbook.
    UnknownStore,
    /// A step without the store it works on.
    MissingStore,
    /// A store for a step that works on none, or of the wrong kind.
    WrongStore,
    /// A wrong argument in `with`.
    InvalidArgument,
    /// `needs` names no step of the stage.
    UnknownNeed,
    /// Steps wait for each other.
    NeedsCycle,
    /// A step lacks another one before it.
    MissingPredecessor,
    /// `point_of_no_return` stands twice or outside of `cutover`.
    PointOfNoReturn,
    /// There is nothing in it to do.
    NothingToDo,
}

impl Mistake {
    /// All kinds.
    pub const ALL: [Mistake; 25] = [
        Mistake::Syntax,
        Mistake::DuplicateKey,
        Mistake::UnknownField,
        Mistake::MissingField,
        Mistake::WrongType,
        Mistake::InvalidValue,
        Mistake::InvalidName,
        Mistake::InvalidQuantity,
        Mistake::InvalidPattern,
        Mistake::InvalidAddress,
        Mistake::LiteralSecret,
        Mistake::InvalidReference,
        Mistake::UnreachableStep,
        Mistake::DuplicateStep,
        Mistake::UnknownStep,
        Mistake::WrongStage,
        Mistake::UnknownStore,
        Mistake::MissingStore,
        Mistake::WrongStore,
        Mistake::InvalidArgument,
        Mistake::UnknownNeed,
        Mistake::NeedsCycle,
        Mistake::MissingPredecessor,
        Mistake::PointOfNoReturn,
        Mistake::NothingToDo,
    ];
}

/// One mistake in a playbook.
#[derive(Clone, Debug)]
pub struct Problem {
    mistake: Mistake,
    message: String,
    label: String,
    help: Option<String>,
    span: Range<usize>,
}

impl Problem {
    /// A mistake at the bytes `span` of the file. `message` names the object; `label` is put under it.
    pub(crate) fn new(mistake: Mistake, span: Range<usize>, message: impl Into<String>, label: impl Into<String>) -> Self {
        Problem { mistake, message: printable(&message.into()), label: printable(&label.into()), help: None, span }
    }
    /// Adds what to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(printable(&help.into()));
        self
    }
}

/// Longer messages are cut (in characters): a name in a playbook may be as long as the file.
const LONGEST_MESSAGE: usize = 600;

/// A text that is safe on a terminal: names from a file may hold escape sequences.
fn printable(text: &str) -> String {
    let mut safe: String = text.chars().take(LONGEST_MESSAGE).map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST_MESSAGE).is_some() {
        safe.push('…');
    }
    safe
}

/// One mistake with its place in the file, as shown and as given to programs.
#[derive(Clone, Debug, Serialize)]
pub struct LocatedProblem {
    /// What kind of mistake it is.
    pub mistake: Mistake,
    /// What is wrong, object names in backticks.
    pub message: String,
    /// What was expected at this place.
    pub expected: String,
    /// What to do: the nearest valid name, or how it is written.
    pub help: Option<String>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    #[serde(skip)]
    span: Range<usize>,
    #[serde(skip)]
    source: Option<Arc<NamedSource<String>>>,
}

impl fmt::Display for LocatedProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.is_some() {
            f.write_str(&self.message)
        } else {
            write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
        }
    }
}

impl std::error::Error for LocatedProblem {}

impl Diagnostic for LocatedProblem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_deref().map(|source| source as &dyn SourceCode)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        let span = (self.span.start, self.span.len());
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(Some(self.expected.clone()), span))))
    }
}

/// Why a playbook can't be used. Nothing has been started when it is returned.
#[derive(Debug, thiserror::Error)]
pub enum PlaybookError {
    /// The file can't be read.
    #[error("playbook `{}` can't be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// It is not a file (a directory, a socket).
    #[error("playbook `{}` is not a file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// Longer than any playbook is.
    #[error("playbook `{name}` is larger than {LARGEST_PLAYBOOK} bytes; this is no playbook")]
    TooLarge {
        /// The file.
        name: String,
    },
    /// Binary, or in another encoding.
    #[error("playbook `{name}` is not UTF-8 text: {reason} at byte {offset}")]
    NotText {
        /// The file.
        name: String,
        /// Where, from 0.
        offset: usize,
        /// What stands there.
        reason: String,
    },
    /// Nothing in it but blanks and comments.
    #[error("playbook `{name}` is empty")]
    Empty {
        /// The file.
        name: String,
    },
    /// It can be read and has mistakes.
    #[error("playbook `{name}` has {}; nothing was started", count(*total, problems.len()))]
    Mistaken {
        /// The file.
        name: String,
        /// How many mistakes there are.
        total: usize,
        /// The first [`MOST_SHOWN`] of them in file order, at least one.
        problems: Vec<LocatedProblem>,
    },
}

impl Diagnostic for PlaybookError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        match self {
            PlaybookError::Mistaken { .. } => None,
            PlaybookError::Unreadable { .. } => {
                Some(Box::new("check the path and its permissions; `dbmove playbook new NAME` writes a new one"))
            }
            _ => Some(Box::new("`dbmove playbook new NAME` writes a new one to start from")),
        }
    }
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        match self {
            PlaybookError::Mistaken { problems, .. } => Some(Box::new(problems.iter().map(|problem| problem as &dyn Diagnostic))),
            _ => None,
        }
    }
}

impl PlaybookError {
    /// All problems of the text, located and in file order.
    pub(crate) fn mistaken(name: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.start);
        let source = Arc::new(NamedSource::new(name, mask(text)));
        let total = problems.len();
        let located = problems.into_iter().take(MOST_SHOWN).map(|problem| locate(text, &source, problem)).collect();
        PlaybookError::Mistaken { name: name.to_owned(), total, problems: located }
    }

    /// The mistakes, if the file could be read at all.
    #[must_use]
    pub fn problems(&self) -> &[LocatedProblem] {
        match self {
            PlaybookError::Mistaken { problems, .. } => problems,
            _ => &[],
        }
    }

    /// The error as text for a terminal of that many columns.
    #[must_use]
    pub fn render(&self, columns: usize, colour: bool) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(columns.max(40)).with_links(false).with_context_lines(1);
        let mut text = String::new();
        // Writing into a String does not fail; a renderer's error leaves the plain message.
        if handler.render_report(&mut text, self).is_err() {
            text = self.to_string();
        }
        let mut clean: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        while clean.ends_with("\n\n") {
            clean.pop();
        }
        clean
    }
}

fn count(total: usize, shown: usize) -> String {
    match total {
        1 => "a mistake".to_owned(),
        _ if total > shown => format!("{total} mistakes, of which the first {shown} are shown"),
        _ => format!("{total} mistakes"),
    }
}

/// Line and column of a byte offset, and whether its line is short enough to be shown.
fn locate(text: &str, source: &Arc<NamedSource<String>>, problem: Problem) -> LocatedProblem {
    let start = floor_boundary(text, problem.span.start);
    let end = floor_boundary(text, problem.span.end).max(start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    // Only the first line of a long value is marked: the excerpt stays small.
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let shown = line_end - line_start <= LONGEST_SHOWN_LINE;
    LocatedProblem {
        mistake: problem.mistake,
        message: problem.message,
        expected: problem.label,
        help: problem.help,
        line: text[..start].matches('\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        span: start..end.min(line_end),
        source: shown.then(|| Arc::clone(source)),
    }
}

/// The nearest character boundary at or before `offset`.
fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_shown_than_can_be_read() {
        let problems = (0..1000).map(|_| Problem::new(Mistake::Syntax, 0..1, "wrong", "here")).collect();
        let error = PlaybookError::mistaken("p.yaml", "text", problems);
        assert_eq!(error.problems().len(), MOST_SHOWN);
        assert!(error.to_string().contains("1000 mistakes, of which the first 50 are shown"), "{error}");
    }

    #[test]
    fn a_long_line_is_named_and_not_shown() {
        let text = format!("a: {}", "x".repeat(10_000));
        let error = PlaybookError::mistaken("p.yaml", &text, vec![Problem::new(Mistake::Syntax, 3..10_003, "too much", "here")]);
        let shown = error.render(80, false);
        assert!(shown.contains("line 1, column 4: too much"), "{shown}");
        assert!(!shown.contains("xxxx"), "{shown}");
    }
}
