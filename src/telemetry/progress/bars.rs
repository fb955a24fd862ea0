//! Progress as bars: for a terminal, 80 columns and more.
//!
//! ```text
//!   snapshot       ━━━━━━╸───────── 41% 1,230,000/3,000,000 rows 52k/s ETA 34s
//!                  held back: target lag 3 s · school.submissions
//!   follow           3m lag 400ms 201/s
//!   time left 11h02m · forecast 3h10m · back-out 6m
//!   writes held 800ms of 30s
//! ```
//!
//! A step has a row while it runs, and a second one under it while there is something to say about it. The last two rows
//! are there only when there is a forecast and while writes are held. Everything is drawn by `indicatif` from the newest values,
//! cut to the terminal's width, and nothing is told by colour alone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::super::describe;
use super::announcement;
use crate::engine::budget::Forecast;
use crate::engine::context::Progress;
use crate::engine::journal::{Action, Event, RecordedEvent};
use crate::engine::observer::Observer;
use crate::telemetry::burn_down::burn_down;
use crate::telemetry::printable::printable;
use crate::telemetry::screen::Screen;

/// A running step's rows.
struct Row {
    figures: ProgressBar,
    circumstances: Option<ProgressBar>,
    has_total: bool,
}

#[derive(Default)]
struct Rows {
    steps: HashMap<String, Row>,
    budget: Option<ProgressBar>,
    write_gap: Option<ProgressBar>,
    held_back: Option<ProgressBar>,
}

impl Rows {
    /// How many rows stay below the steps'.
    fn below(&self) -> usize {
        [&self.budget, &self.write_gap, &self.held_back].into_iter().filter(|bar| bar.is_some()).count()
    }
}

/// Shows progress as bars.
pub(super) struct Bars {
    screen: Screen,
    bars: MultiProgress,
    rows: Mutex<Rows>,
    with_total: ProgressStyle,
    without_total: ProgressStyle,
    circumstances: ProgressStyle,
    words: ProgressStyle,
}

/// How often the time a step has been running is redrawn.
const CLOCK: Duration = Duration::from_millis(500);
/// How many steps a bar is drawn in.
const RESOLUTION: u64 = 1000;

fn style(template: &str) -> ProgressStyle {
    // The templates are ours; one that can't be read shows as indicatif's own.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

impl Bars {
    pub(super) fn new(screen: Screen, bars: MultiProgress) -> Bars {
        let bar = if screen.colour() { "{bar:16.cyan/dim}" } else { "{bar:16}" };
        Bars {
            screen,
            bars,
            rows: Mutex::new(Rows::default()),
            with_total: style(&format!("  {{prefix:14!}} {bar} {{wide_msg}}")),
            without_total: style("  {prefix:14!} {elapsed:>4} {wide_msg}"),
            circumstances: style("                 {wide_msg}"),
            words: style("  {wide_msg}"),
        }
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, step: &str, words: &str) {
        let mut rows = self.rows();
        if let Some(row) = rows.steps.remove(step) {
            self.clear(row);
        }
        let figures = self.bars.insert_from_back(rows.below(), ProgressBar::new(RESOLUTION));
        figures.set_style(self.without_total.clone());
        figures.set_prefix(printable(step).into_owned());
        figures.set_message(words.to_owned());
        // A step that tells nothing still shows that time goes by.
        figures.enable_steady_tick(CLOCK);
        rows.steps.insert(step.to_owned(), Row { figures, circumstances: None, has_total: false });
    }

    fn end(&self, step: &str) {
        if let Some(row) = self.rows().steps.remove(step) {
            self.clear(row);
        }
    }

    fn clear(&self, row: Row) {
        for bar in [Some(row.figures), row.circumstances].into_iter().flatten() {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }
}

impl Observer for Bars {
    fn event(&self, recorded: &RecordedEvent) {
        match &recorded.event {
            Event::Intent { step, action, .. } => {
                self.begin(step, if *action == Action::Undo { "is being undone" } else { "" });
                // The row is the announcement.
                return;
            }
            Event::Outcome { step, .. } => self.end(step),
            Event::WriteGapEnded { .. } => {
                if let Some(bar) = self.rows().write_gap.take() {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
            }
            Event::RunFinished { .. } => {
                let mut rows = self.rows();
                for (_, row) in rows.steps.drain() {
                    self.clear(row);
                }
                for bar in [rows.budget.take(), rows.write_gap.take(), rows.held_back.take()].into_iter().flatten() {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
            }
            _ => {}
        }
        if let Some(text) = announcement(&recorded.event) {
            self.screen.say(&text);
        }
        if let Event::Forecast { forecast } = &recorded.event {
            burn_down(forecast).iter().for_each(|line| self.screen.say(&format!("  {line}")));
        }
    }

    fn step_progress(&self, step: &str, progress: &Progress) {
        let mut rows = self.rows();
        let Some(row) = rows.steps.get_mut(step) else { return };
        if let Some(share) = describe::share(progress) {
            if !row.has_total {
                row.figures.set_style(self.with_total.clone());
                row.has_total = true;
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // 0 to RESOLUTION
            row.figures.set_position((share * RESOLUTION as f64) as u64);
        }
        row.figures.set_message(describe::figures(progress));
        let words = describe::circumstances(progress);
        match (&row.circumstances, words.is_empty()) {
            (Some(bar), false) => bar.set_message(words),
            (Some(_), true) => {
                if let Some(bar) = row.circumstances.take() {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
            }
            (None, false) => {
                let bar = self.bars.insert_after(&row.figures, ProgressBar::new(RESOLUTION));
                bar.set_style(self.circumstances.clone());
                bar.set_message(words);
                row.circumstances = Some(bar);
            }
            (None, true) => {}
        }
    }

    fn load_started(&self, name: &str) {
        self.begin(name, "");
    }

    fn load_ended(&self, name: &str) {
        self.end(name);
    }

    fn forecast(&self, forecast: &Forecast) {
        let mut rows = self.rows();
        let below = usize::from(rows.write_gap.is_some());
        let bar = rows.budget.get_or_insert_with(|| {
            let bar = self.bars.insert_from_back(below, ProgressBar::new(RESOLUTION));
            bar.set_style(self.words.clone());
            bar
        });
        bar.set_message(describe::budget(forecast));
    }

    fn held_back(&self, why: Option<&str>) {
        let mut rows = self.rows();
        let Some(why) = why else {
            if let Some(bar) = rows.held_back.take() {
                bar.finish_and_clear();
                self.bars.remove(&bar);
            }
            return;
        };
        let bar = rows.held_back.get_or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(RESOLUTION));
            bar.set_style(self.words.clone());
            bar
        });
        bar.set_message(format!("held back: {}", printable(why)));
    }

    fn write_gap(&self, held: Duration, limit: Duration) {
        let mut rows = self.rows();
        let bar = rows.write_gap.get_or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(RESOLUTION));
            bar.set_style(self.words.clone());
            bar
        });
        bar.set_message(describe::write_gap(held, limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::step::Epoch;
    use crate::telemetry::screen::Words;
    use indicatif::{InMemoryTerm, ProgressDrawTarget, TermLike};

    /// What stands on a terminal of 80 columns after these calls.
    fn shown(calls: impl FnOnce(&Bars)) -> String {
        let terminal = InMemoryTerm::new(12, 80);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        let bars = MultiProgress::with_draw_target(target);
        // `say` is not called by these events, so the screen's own stderr stays silent.
        let bars = Bars::new(Screen::new(false, Words::Text, false), bars);
        calls(&bars);
        std::thread::sleep(Duration::from_millis(30));
        for row in bars.rows().steps.values() {
            row.figures.tick();
        }
        assert_eq!(terminal.width(), 80);
        let _ = Epoch(0);
        terminal.contents()
    }

    fn intent(step: &str) -> RecordedEvent {
        RecordedEvent {
            sequence: 1,
            run: "r".into(),
            at: jiff::Timestamp::UNIX_EPOCH,
            event: Event::Intent { step: step.into(), attempt: 1, action: Action::Run, key: "k".into() },
            hash: String::new(),
        }
    }

    #[test]
    fn fits_eighty_columns() {
        let text = shown(|bars| {
            bars.event(&intent("snapshot"));
            let progress = Progress {
                done: 1_230_000,
                total: Some(3_000_000),
                unit: "rows".into(),
                rate: Some(52_000.0),
                throttle: Some("target lag 3 s".into()),
                note: format!("school.{}", "x".repeat(100)),
                ..Progress::default()
            };
            bars.step_progress("snapshot", &progress);
            bars.forecast(&Forecast {
                left_seconds: Some(39_720.0),
                with_margin_seconds: 11_400.0,
                undo_reserve_seconds: 360.0,
                ..Forecast::default()
            });
            bars.write_gap(Duration::from_millis(800), Duration::from_secs(30));
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "  snapshot       ━━━━━━╸───────── 41% 1,230,000/3,000,000 rows 52k/s ETA 34s");
        assert!(lines[1].contains("held back: target lag 3 s · school.xxx"), "{text}");
        assert_eq!(lines[2], "  time left 11h02m · forecast 3h10m · back-out 6m");
        assert_eq!(lines[3], "  writes held 800ms of 30s");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    }
}
