//! Progress as lines: for pipes, files and logs.
//!
//! Every announcement is a line at once; a running step gets one at [`interval`]s, with figures, note and
//! always the reason if it is held back. Where the log is JSON each is an event with fields of its own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::{describe, logs};
use super::{announcement, interval};
use crate::engine::budget::Forecast;
use crate::engine::context::Progress;
use crate::engine::journal::{Action, Event, RecordedEvent};
use crate::engine::observer::Observer;
use crate::telemetry::burn_down::burn_down;
use crate::telemetry::printable::printable;
use crate::telemetry::screen::Screen;

/// When something began and was last told of.
#[derive(Clone, Copy)]
struct Told {
    began: Instant,
    last: Option<Instant>,
}

/// Shows progress as lines.
pub(super) struct Lines {
    screen: Screen,
    told: Mutex<HashMap<String, Told>>,
}

/// Keys for what is no step; no step's id has a blank.
const FORECAST: &str = "the forecast";
const WRITE_GAP: &str = "the write gap";
const HELD_BACK: &str = "what holds it back";

impl Lines {
    pub(super) fn new(screen: Screen) -> Lines {
        Lines { screen, told: Mutex::new(HashMap::new()) }
    }

    /// True if it is time for another line about `key`; counts as told.
    fn is_due(&self, key: &str, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = told.entry(key.to_owned()).or_insert(Told { began: now, last: None });
        let pause = interval(now.saturating_duration_since(entry.began));
        // The engine's own ticks are not exact: a tenth early is in time.
        let due = entry.last.is_none_or(|last| now.saturating_duration_since(last) >= pause.mul_f64(0.9));
        if due {
            entry.last = Some(now);
        }
        due
    }

    fn forget(&self, key: &str) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn line(&self, text: &str) {
        if self.screen.speaks_in_events() {
            tracing::info!(target: logs::PROGRESS, "{text}");
        } else {
            self.screen.say(&format!("{} {text}", jiff::ZonedDateTime::now().strftime("%H:%M:%S")));
        }
    }
}

impl Observer for Lines {
    fn event(&self, recorded: &RecordedEvent) {
        match &recorded.event {
            Event::Intent { step, action: Action::Run, .. } | Event::Outcome { step, .. } => self.forget(step),
            Event::WriteGapEnded { .. } => self.forget(WRITE_GAP),
            _ => {}
        }
        if let Some(text) = announcement(&recorded.event) {
            self.line(&text);
        }
        // Programs get the figures.
        if let Event::Forecast { forecast } = &recorded.event
            && !self.screen.speaks_in_events()
        {
            burn_down(forecast).iter().for_each(|line| self.screen.say(&format!("         {line}")));
        }
    }

    fn step_progress(&self, step: &str, progress: &Progress) {
        if !self.is_due(step, Instant::now()) {
            return;
        }
        if self.screen.speaks_in_events() {
            tracing::info!(
                target: logs::PROGRESS,
                step,
                done = progress.done,
                total = progress.total,
                unit = progress.unit,
                rate = progress.rate,
                lag_seconds = progress.lag.map(|lag| lag.as_secs_f64()),
                note = progress.note,
                throttle = progress.throttle,
                "progress"
            );
            return;
        }
        let parts = [printable(step).into_owned(), describe::figures(progress), describe::circumstances(progress)];
        let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        if parts.len() > 1 {
            self.line(&parts.join(" "));
        }
    }

    fn forecast(&self, forecast: &Forecast) {
        if !self.is_due(FORECAST, Instant::now()) {
            return;
        }
        if self.screen.speaks_in_events() {
            tracing::info!(
                target: logs::PROGRESS,
                left_seconds = forecast.left_seconds,
                forecast_seconds = forecast.with_margin_seconds,
                undo_reserve_seconds = forecast.undo_reserve_seconds,
                unknown = forecast.unknown.join(","),
                "forecast"
            );
        } else {
            self.line(&describe::budget(forecast));
        }
    }

    fn held_back(&self, why: Option<&str>) {
        match why {
            Some(why) if self.is_due(HELD_BACK, Instant::now()) => self.line(&format!("held back: {}", printable(why))),
            Some(_) => {}
            None => self.forget(HELD_BACK),
        }
    }

    fn write_gap(&self, held: Duration, limit: Duration) {
        if self.is_due(WRITE_GAP, Instant::now()) {
            self.line(&describe::write_gap(held, limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::screen::Words;

    #[test]
    fn one_line_now_and_then() {
        let lines = Lines::new(Screen::new(false, Words::Text, false));
        let start = Instant::now();
        let at = |milliseconds: u64| start + Duration::from_millis(milliseconds);
        assert!(lines.is_due("copy", at(0)));
        assert!(!lines.is_due("copy", at(500)));
        assert!(lines.is_due("follow", at(500)));
        assert!(lines.is_due("copy", at(1_000)));
        assert!(lines.is_due("copy", at(40_000)));
        assert!(!lines.is_due("copy", at(45_000)));
        lines.forget("copy");
        assert!(lines.is_due("copy", at(45_001)));
    }
}
