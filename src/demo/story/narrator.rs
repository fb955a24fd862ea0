//! The story's voice: numbered scenes with the time since the start, sentences wrapped to the terminal, and what child
//! processes say, each line behind a bar.
//!
//! Nothing is redrawn, so a pipe gets what a terminal gets. When the reader has gone away (`| head`) there is nobody
//! left to show anything to: the story is asked to stop.

use std::io::Write;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::telemetry::human;
use crate::telemetry::printable::printable;

/// Where the story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// On stdout: the story is what was asked for.
    Stdout,
    /// On stderr: stdout is kept for the verdict.
    Stderr,
}

/// The widest line.
const WIDEST: usize = 100;

/// Tells the story.
#[derive(Debug)]
pub struct Narrator {
    stage: Stage,
    columns: usize,
    bold: bool,
    began: Instant,
    nobody_listens: CancellationToken,
}

impl Narrator {
    /// A narrator for lines of so many columns. `nobody_listens` is cancelled when the story can't be written any more.
    #[must_use]
    pub fn new(stage: Stage, columns: usize, bold: bool, nobody_listens: CancellationToken) -> Narrator {
        Narrator { stage, columns: columns.clamp(40, WIDEST), bold, began: Instant::now(), nobody_listens }
    }

    /// How long the story has been going on.
    #[must_use]
    pub fn elapsed(&self) -> std::time::Duration {
        self.began.elapsed()
    }

    /// Begins a scene.
    pub fn scene(&self, number: u8, title: &str) {
        let time = human::duration(self.elapsed());
        let gap = self.columns.saturating_sub(3 + title.chars().count() + time.len()).max(2);
        let (on, off) = if self.bold { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        self.write(&format!("\n{on}{number}. {title}{off}{:gap$}{time}\n", ""));
    }

    /// Says a sentence or two.
    pub fn say(&self, text: &str) {
        self.paragraph(text, "   ", "   ");
    }

    /// Shows one thing and what it is: aligned, under each other.
    pub fn show(&self, what: &str, value: &str) {
        self.paragraph(value, &format!("   {what:21} "), &" ".repeat(25));
    }

    /// Shows a command as it would be typed.
    pub fn command(&self, words: &str) {
        self.paragraph(words, "   $ ", "       ");
    }

    /// Shows a command to be copied: on a line of its own, never broken.
    pub fn to_copy(&self, what: &str, words: &str) {
        self.write(&format!("   {what}:\n     {}\n", printable(words)));
    }

    /// A line of a table, as it is.
    pub fn line(&self, text: &str) {
        self.write(&format!("     {}\n", printable(text).trim_end()));
    }

    /// Passes on what a child said.
    pub fn relay(&self, text: &str) {
        self.paragraph(text, "   | ", "   |   ");
    }

    fn paragraph(&self, text: &str, first: &str, others: &str) {
        let mut block = String::new();
        for line in wrapped(&printable(text), first, others, self.columns) {
            block.push_str(&line);
            block.push('\n');
        }
        self.write(&block);
    }

    fn write(&self, text: &str) {
        let written = match self.stage {
            Stage::Stdout => write_all(std::io::stdout().lock(), text),
            Stage::Stderr => write_all(std::io::stderr().lock(), text),
        };
        if written.is_err() {
            self.nobody_listens.cancel();
        }
    }
}

fn write_all(mut out: impl Write, text: &str) -> std::io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The text in lines of at most `columns`, broken at blanks; a word that is longer stays whole, so that a path can be copied.
fn wrapped(text: &str, first: &str, others: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut begun) = (first.to_owned(), false);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if begun && line.chars().count() + 1 + word.chars().count() > columns {
            lines.push(std::mem::replace(&mut line, others.to_owned()));
            begun = false;
        }
        if begun {
            line.push(' ');
        }
        line.push_str(word);
        begun = true;
    }
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_blanks_and_long_words_stay_whole() {
        assert_eq!(wrapped("one two three", "- ", "  ", 9), ["- one two", "  three"]);
        assert_eq!(wrapped("a /very/long/path b", "", "", 8), ["a", "/very/long/path", "b"]);
        assert_eq!(wrapped("", "   ", "   ", 8), [""]);
    }
}
