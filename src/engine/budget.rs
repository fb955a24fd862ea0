//! The deadline budget: the forecast, when to refuse, when to give up.
//!
//! # The figures
//!
//! For every step that remains there is an expected time: the step's own estimate (the rehearsal's measured rate scaled to
//! today's size); failing that, and for what a step calls instant, the time it took in the rehearsal, as it was; failing that, *unknown*. The forecast is the
//! longest way through these times along `needs`, stage after stage. Unknown steps count as zero and are named: the sum is
//! then "at least", and whoever reads it is told so. The *undo reserve* is kept only while the point of no return lies ahead
//! and within what was asked for. It has two parts:
//!
//! * what undoing the cutover stage took in the rehearsal, times the margin, or [`DEFAULT_UNDO_RESERVE`] if nobody has measured it. What slows
//!   the night down slows its undo down too: under way, a measured time is multiplied by how much longer than expected all took so far
//!   ([`slower`]);
//! * what runs has to end first: the longest that one of the tasks may take to stop, and one of the services after them ([`stopping`]).
//!
//! # Before anything is touched
//!
//! `forecast × margin + undo reserve > time left` refuses (exit code 4).
//!
//! # Under way, before the point of no return
//!
//! The forecast is redone every [`REFORECAST`] from real progress: a running step needs `(total − done) / rate` where it reports
//! all three, else what is left of its expected time. The margin was for the start; it is there to be used up, so it plays
//! no part any more. The engine gives up (undo, exit code 5) in two cases:
//!
//! * **the hard line**, looked at with every tick: the time left is down to the undo reserve. Waiting any longer would mean that neither
//!   finishing nor undoing fits. This one needs no forecast and holds for unknown steps too;
//! * **the forecast**, [`PATIENCE`] times in a row: `forecast + undo reserve > time left`. One slow second is no reason to give up a
//!   night's work; three forecasts in a row are. There is no point in holding clients up to the hard line for a switch that will not
//!   come.
//!
//! Behind the point of no return nothing is given up: going on is the only way, and the forecast is for the eyes.
//!
//! # Clocks
//!
//! The deadline is a wall-clock moment for people and in the journal. A driver turns it once into a moment of the
//! monotonic clock, so that setting the wall clock changes nothing for it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::context::Progress;
use super::graph::Graph;
use super::step::{Estimate, StepKind};
use crate::playbook::model::StageName;

/// What forecasts are multiplied with before anything starts.
pub const DEFAULT_MARGIN: f64 = 1.25;
/// Time kept for an undo that no rehearsal has measured.
pub const DEFAULT_UNDO_RESERVE: Duration = Duration::from_secs(120);
/// How often the forecast is redone.
pub const REFORECAST: Duration = Duration::from_secs(5);
/// How many forecasts in a row must say no before the engine gives up.
pub const PATIENCE: u32 = 3;

/// The most that an undo is taken to be slower than in the rehearsal.
const SLOWEST: f64 = 10.0;
/// Seconds, as expected, that are taken to have passed before: a step of milliseconds that took a second tells little of the night.
const PASSED_BEFORE: f64 = 10.0;

/// How much slower than expected the night is, from pairs of seconds that were expected and seconds that it took: 1 at least, [`SLOWEST`] at most.
pub(super) fn slower(took: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (expected, real) = took.fold((PASSED_BEFORE, PASSED_BEFORE), |(expected, real), (one, other)| (expected + one, real + other));
    (real / expected).clamp(1.0, SLOWEST)
}

/// How long it may take until everything has stopped: tasks are stopped first, together, and services after them.
pub(super) fn stopping(graph: &Graph, steps: impl Iterator<Item = usize>) -> Duration {
    let mut longest = [Duration::ZERO; 2];
    for index in steps {
        let step = &graph.steps[index].step;
        let place = &mut longest[usize::from(step.kind() == StepKind::Service)];
        *place = (*place).max(step.stops_within());
    }
    longest.into_iter().sum()
}

/// What is expected of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepForecast {
    /// The step.
    pub step: String,
    /// Its stage.
    pub stage: StageName,
    /// Seconds still to go, without margin; `None` if nobody can say.
    pub seconds: Option<f64>,
    /// Where the figure comes from, or what is missing.
    pub basis: String,
    /// True if it lies on the critical path.
    pub critical: bool,
    /// True if it is done (a service: ready).
    pub done: bool,
}

/// What remains, against the time there is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Every step that was asked for, in order.
    pub steps: Vec<StepForecast>,
    /// Seconds along the critical path, without margin: at least this, if any step is unknown.
    pub seconds: f64,
    /// The same with the margin.
    pub with_margin_seconds: f64,
    /// Steps of which nobody can say how long they take.
    pub unknown: Vec<String>,
    /// Seconds kept for the undo.
    pub undo_reserve_seconds: f64,
    /// Seconds to the deadline; `None` without one.
    pub left_seconds: Option<f64>,
}

/// What one step still needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Remaining {
    pub seconds: Option<f64>,
    pub basis: String,
    pub done: bool,
    /// False for steps behind the last stage that was asked for.
    pub asked_for: bool,
}

impl Remaining {
    pub fn done() -> Remaining {
        Remaining { seconds: Some(0.0), basis: "done".to_owned(), done: true, asked_for: true }
    }

    /// What a step that has not begun needs.
    pub fn expected(estimate: &Estimate, rehearsed_seconds: Option<f64>) -> Remaining {
        let (seconds, basis) = match (estimate, rehearsed_seconds) {
            (Estimate::Expected { duration, basis }, _) => (Some(duration.as_secs_f64()), basis.clone()),
            // What asks servers is not quite as quick as its estimate.
            (Estimate::Instant, Some(seconds)) if seconds > 0.0 => (Some(seconds), "as in the rehearsal".to_owned()),
            (Estimate::Instant, _) => (Some(0.0), "instant".to_owned()),
            (Estimate::Unknown(_), Some(seconds)) => (Some(seconds), "as long as in the rehearsal, not scaled to today's size".to_owned()),
            (Estimate::Unknown(missing), None) => (None, missing.clone()),
        };
        Remaining { seconds, basis, done: false, asked_for: true }
    }

    /// What a running step still needs, from its own progress if it tells enough, else from what was expected.
    pub fn running(self, progress: &Progress, elapsed: Duration) -> Remaining {
        #[expect(clippy::cast_precision_loss)]
        if let (Some(total), Some(rate)) = (progress.total, progress.rate)
            && rate > 0.0
        {
            let seconds = total.saturating_sub(progress.done) as f64 / rate;
            if seconds.is_finite() {
                return Remaining { seconds: Some(seconds), basis: "real progress".to_owned(), ..self };
            }
        }
        Remaining { seconds: self.seconds.map(|expected| (expected - elapsed.as_secs_f64()).max(0.0)), ..self }
    }
}

/// The forecast over all steps of a graph.
pub(super) fn forecast(graph: &Graph, remaining: &[Remaining], margin: f64, undo_reserve: Duration, left: Option<Duration>) -> Forecast {
    let seconds: Vec<f64> = remaining.iter().map(|step| if step.asked_for { step.seconds.unwrap_or(0.0) } else { 0.0 }).collect();
    let (total, path) = graph.critical_path(&seconds);
    let steps: Vec<StepForecast> = remaining
        .iter()
        .enumerate()
        .filter(|(_, step)| step.asked_for)
        .map(|(index, step)| StepForecast {
            step: graph.id(index).to_owned(),
            stage: graph.steps[index].stage,
            seconds: step.seconds,
            basis: step.basis.clone(),
            critical: path.contains(&index) && !step.done,
            done: step.done,
        })
        .collect();
    let unknown = steps.iter().filter(|step| step.seconds.is_none()).map(|step| step.step.clone()).collect();
    Forecast {
        steps,
        seconds: total,
        with_margin_seconds: total * margin,
        unknown,
        undo_reserve_seconds: undo_reserve.as_secs_f64(),
        left_seconds: left.map(|left| left.as_secs_f64()),
    }
}

impl Forecast {
    fn at_least(&self) -> &'static str {
        if self.unknown.is_empty() { "" } else { "at least " }
    }

    /// Why nothing should be started, if it should not.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let left = self.left_seconds?;
        (self.with_margin_seconds + self.undo_reserve_seconds > left).then(|| {
            format!(
                "what remains takes {}{} with its margin and {} are kept for undoing it, but only {} are left",
                self.at_least(),
                words(self.with_margin_seconds),
                words(self.undo_reserve_seconds),
                words(left)
            )
        })
    }
}

/// Seconds as people write them.
fn words(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{:.1}s", duration.as_secs_f64()),
        (0, minutes) => format!("{minutes}m{:02}s", duration.as_secs() % 60),
        (hours, minutes) => format!("{hours}h{minutes:02}m"),
    }
}

/// A deadline being kept.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    until: Instant,
    against: u32,
}

impl Budget {
    /// Starts to keep a deadline: from here on the monotonic clock counts.
    pub fn start(until: Timestamp, now: Timestamp) -> Budget {
        let left = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
        // A deadline beyond what the clock can express is as good as none: thirty years will do.
        let until = Instant::now().checked_add(left).unwrap_or_else(|| Instant::now() + Duration::from_secs(946_080_000));
        Budget { until, against: 0 }
    }

    /// Time left.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// The hard line: why to give up now, if the time left is down to the undo reserve.
    pub fn hard_line(&self, undo_reserve: Duration) -> Option<String> {
        (self.left() <= undo_reserve).then(|| {
            format!("{} are left, and {} are kept for undoing", words(self.left().as_secs_f64()), words(undo_reserve.as_secs_f64()))
        })
    }

    /// The forecast's verdict: why to give up, if it has said no often enough in a row.
    pub fn consider(&mut self, forecast: &Forecast) -> Option<String> {
        let left = forecast.left_seconds?;
        if forecast.seconds + forecast.undo_reserve_seconds <= left {
            self.against = 0;
            return None;
        }
        self.against += 1;
        (self.against >= PATIENCE).then(|| {
            format!(
                "what remains takes {}{} by its real progress and {} are kept for undoing, but only {} are left",
                forecast.at_least(),
                words(forecast.seconds),
                words(forecast.undo_reserve_seconds),
                words(left)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn forecast_of(seconds: f64, unknown: &[&str], reserve: f64, left: f64) -> Forecast {
        Forecast {
            seconds,
            with_margin_seconds: seconds * DEFAULT_MARGIN,
            unknown: unknown.iter().map(|step| (*step).to_owned()).collect(),
            undo_reserve_seconds: reserve,
            left_seconds: Some(left),
            ..Forecast::default()
        }
    }

    fn budget(seconds: i64) -> Budget {
        let now = Timestamp::now();
        Budget::start(now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap(), now)
    }

    #[test]
    fn a_slow_night_is_known_by_what_it_took() {
        assert_eq!(slower([(10.0, 30.0), (20.0, 50.0)].into_iter()), 2.25);
        assert!(slower([(0.05, 1.0)].into_iter()) < 1.1, "a moment tells little");
        assert_eq!(slower([(10.0, 3.0)].into_iter()), 1.0, "a quick one gives nothing away");
        assert_eq!((slower([(1.0, 5000.0)].into_iter()), slower(std::iter::empty())), (SLOWEST, 1.0));
    }

    #[test]
    fn the_margin_and_the_reserve_decide_about_the_start() {
        assert_eq!(forecast_of(80.0, &[], 20.0, 120.0).refusal(), None);
        let reason = forecast_of(81.0, &["rows"], 20.0, 120.0).refusal().unwrap();
        assert!(reason.contains("at least 1m41s") && reason.contains("20.0s") && reason.contains("2m00s"), "{reason}");
        assert_eq!(Forecast { left_seconds: None, ..forecast_of(1e9, &[], 0.0, 0.0) }.refusal(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_hard_line_is_drawn_by_the_monotonic_clock() {
        let budget = budget(100);
        let reserve = Duration::from_secs(30);
        tokio::time::advance(Duration::from_secs(69)).await;
        assert_eq!(budget.hard_line(reserve), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(budget.hard_line(reserve).is_some());
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert_eq!(budget.left(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_second_is_no_reason_to_give_up() {
        let mut budget = budget(100);
        let (good, bad) = (forecast_of(50.0, &[], 30.0, 100.0), forecast_of(71.0, &[], 30.0, 100.0));
        assert_eq!(budget.consider(&bad), None);
        assert_eq!(budget.consider(&bad), None);
        assert_eq!(budget.consider(&good), None, "a good forecast starts the count again");
        assert_eq!(budget.consider(&bad), None);
        assert_eq!(budget.consider(&bad), None);
        assert!(budget.consider(&bad).unwrap().contains("real progress"));
    }

    #[test]
    fn real_progress_comes_before_expectation() {
        let expected = Remaining::expected(&Estimate::Expected { duration: Duration::from_secs(100), basis: "b".to_owned() }, None);
        let progress = Progress { done: 400, total: Some(1000), rate: Some(10.0), ..Progress::default() };
        assert_eq!(expected.clone().running(&progress, Duration::from_secs(5)).seconds, Some(60.0));
        assert_eq!(expected.clone().running(&Progress::default(), Duration::from_secs(30)).seconds, Some(70.0));
        assert_eq!(expected.clone().running(&Progress::default(), Duration::from_secs(300)).seconds, Some(0.0));
        let still = Progress { rate: Some(0.0), ..progress };
        assert_eq!(expected.running(&still, Duration::from_secs(30)).seconds, Some(70.0), "a rate of zero is no rate");
    }

    #[test]
    fn unknown_stays_unknown_unless_the_rehearsal_knows() {
        let unknown = Estimate::Unknown("no rate".to_owned());
        assert_eq!(Remaining::expected(&unknown, None).seconds, None);
        assert_eq!(Remaining::expected(&unknown, None).basis, "no rate");
        assert_eq!(Remaining::expected(&unknown, Some(7.0)).seconds, Some(7.0));
        assert_eq!(Remaining::expected(&Estimate::Instant, None).seconds, Some(0.0));
        assert_eq!(Remaining::expected(&Estimate::Instant, Some(7.0)).seconds, Some(7.0), "what was measured is believed more");
    }
}
