//! The one way to stderr.
//!
//! Three voices want it: log lines, progress bars and plain words. Bars are redrawn in place, so whoever else writes
//! must ask them to step aside for a moment; and where the operator wants JSON logs, words become log events,
//! so that stderr can be parsed to its last line. [`Screen`] knows which of it holds and is cheap to clone.

use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing_subscriber::fmt::MakeWriter;

/// What becomes of plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Written as they are.
    Text,
    /// Written as events of the JSON log.
    Events,
}

/// How often a second bars are drawn at most.
const DRAWS_PER_SECOND: u8 = 10;

/// Stderr, shared without tearing.
#[derive(Clone)]
pub struct Screen {
    bars: Option<MultiProgress>,
    words: Words,
    colour: bool,
}

impl Screen {
    /// A screen with or without bars.
    #[must_use]
    pub fn new(with_bars: bool, words: Words, colour: bool) -> Screen {
        let bars = with_bars.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND)));
        Screen { bars, words, colour }
    }

    /// True if stderr is a terminal that can move its cursor.
    #[must_use]
    pub fn is_terminal() -> bool {
        io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Where bars are drawn, if they are.
    #[must_use]
    pub fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// True if words become log events.
    #[must_use]
    pub fn speaks_in_events(&self) -> bool {
        self.words == Words::Events
    }

    /// True if stderr may be coloured.
    #[must_use]
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Says one line (or several) above the bars. The text must be [`printable`](super::printable::printable).
    pub fn say(&self, text: &str) {
        if self.speaks_in_events() {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                tracing::info!(target: super::logs::WORDS, "{}", line.trim());
            }
        } else {
            self.write(format!("{text}\n").as_bytes());
        }
    }

    /// Writes above the bars. A stderr that is gone is no reason to stop a migration.
    fn write(&self, bytes: &[u8]) {
        let write = || {
            let mut stderr = io::stderr().lock();
            let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

/// Collects one log line and writes it as a whole.
pub struct Line {
    screen: Screen,
    bytes: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.screen.write(&self.bytes);
        }
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { screen: self.clone(), bytes: Vec::new() }
    }
}
