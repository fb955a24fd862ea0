//! Progress, forecast and write gap in words. Pure functions: what bars, lines and `status` say alike.

use std::time::Duration;

use super::human;
use super::printable::printable;
use crate::engine::budget::Forecast;
use crate::engine::context::Progress;

/// Below this share no remaining time is told: it would be a guess.
const FIRST_TELLING_SHARE: f64 = 0.01;
/// A longer remaining time is not told.
const LONGEST_TOLD: Duration = Duration::from_secs(99 * 24 * 3600);

/// How much is done, 0 to 1, where the total is known.
#[must_use]
#[allow(clippy::cast_precision_loss)] // shown with two digits
pub fn share(progress: &Progress) -> Option<f64> {
    let total = progress.total.filter(|total| *total > 0)?;
    Some((progress.done as f64 / total as f64).clamp(0.0, 1.0))
}

/// The remaining time by the recent rate; not before 1 % is done, and not for what has no rate or hardly any.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn remaining(progress: &Progress) -> Option<Duration> {
    let (share, total, rate) = (share(progress)?, progress.total?, progress.rate?);
    if !(FIRST_TELLING_SHARE..1.0).contains(&share) || rate <= 0.0 {
        return None;
    }
    // While something is waited for the rate goes to nothing, and years say no more than nothing.
    Duration::try_from_secs_f64((total - progress.done.min(total)) as f64 / rate).ok().filter(|time| *time < LONGEST_TOLD)
}

/// `41% 1,234/3,000 rows 52k/s ETA 1m12s lag 0.4s`: what is known of it.
#[must_use]
pub fn figures(progress: &Progress) -> String {
    let mut words: Vec<String> = Vec::new();
    if let Some(share) = share(progress) {
        words.push(format!("{:.0}%", (share * 100.0).floor()));
    }
    let unit = printable(&progress.unit);
    match progress.total {
        Some(total) if progress.unit == "bytes" => words.push(format!("{}/{}", human::bytes(progress.done), human::bytes(total))),
        Some(total) if total > 0 => words.push(format!("{}/{}", human::count(progress.done), human::amount(total, &unit))),
        _ if progress.done > 0 => words.push(human::amount(progress.done, &unit)),
        _ => {}
    }
    if let Some(rate) = progress.rate {
        words.push(human::rate(rate, &progress.unit));
    }
    if let Some(remaining) = remaining(progress) {
        words.push(format!("ETA {}", human::duration(remaining)));
    }
    if let Some(lag) = progress.lag {
        words.push(format!("lag {}", human::duration(lag)));
    }
    words.join(" ")
}

/// What it is at, and why it is held back if it is: the reason is never left out, the note may be empty.
#[must_use]
pub fn circumstances(progress: &Progress) -> String {
    let note = printable(&progress.note);
    match &progress.throttle {
        Some(reason) if note.is_empty() => format!("held back: {}", printable(reason)),
        Some(reason) => format!("held back: {} · {note}", printable(reason)),
        None => note.into_owned(),
    }
}

/// `time left 11h02m · forecast 3h10m · back-out 6m`. `forecast at least …` where some step is unknown.
#[must_use]
pub fn budget(forecast: &Forecast) -> String {
    let mut words = Vec::new();
    if let Some(left) = forecast.left_seconds {
        if left < 0.0 {
            words.push(format!("{} over the deadline", human::seconds(-left)));
        } else {
            words.push(format!("time left {}", human::seconds(left)));
        }
    }
    let at_least = if forecast.unknown.is_empty() { "" } else { "at least " };
    words.push(format!("forecast {at_least}{}", human::seconds(forecast.with_margin_seconds)));
    words.push(format!("back-out {}", human::seconds(forecast.undo_reserve_seconds)));
    words.join(" · ")
}

/// `writes held 0.8s of 30s`.
#[must_use]
pub fn write_gap(held: Duration, limit: Duration) -> String {
    format!("writes held {} of {}", human::duration(held), human::duration(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress { done: 1_230_000, total: Some(3_000_000), unit: "rows".into(), rate: Some(52_000.0), ..Progress::default() }
    }

    #[test]
    fn tells_what_is_known() {
        assert_eq!(figures(&progress()), "41% 1,230,000/3,000,000 rows 52k/s ETA 34s");
        assert_eq!(figures(&Progress::default()), "");
        let following = Progress { done: 12, unit: "transactions".into(), lag: Some(Duration::from_millis(400)), ..Progress::default() };
        assert_eq!(figures(&following), "12 transactions lag 400ms");
        let bytes = Progress { done: 1 << 20, total: Some(4 << 20), unit: "bytes".into(), ..Progress::default() };
        assert_eq!(figures(&bytes), "25% 1.0 MiB/4.0 MiB");
    }

    #[test]
    fn no_remaining_time_before_one_percent() {
        assert!(remaining(&Progress { done: 29_999, ..progress() }).is_none());
        assert!(remaining(&Progress { done: 30_000, ..progress() }).is_some());
        assert!(remaining(&Progress { rate: Some(0.0), ..progress() }).is_none());
        assert!(remaining(&Progress { rate: Some(0.001), ..progress() }).is_none());
        assert!(remaining(&Progress { total: Some(0), ..progress() }).is_none());
        assert!(remaining(&Progress { done: 5_000_000, ..progress() }).is_none());
    }

    #[test]
    fn never_hundred_percent_before_the_end() {
        assert!(figures(&Progress { done: 2_999_999, ..progress() }).starts_with("99%"));
    }

    #[test]
    fn the_reason_for_waiting_comes_first() {
        let held = Progress { throttle: Some("target lag 3 s".into()), note: "school.t\u{1b}".into(), ..progress() };
        assert_eq!(circumstances(&held), "held back: target lag 3 s · school.t\\u{1b}");
    }

    #[test]
    fn the_budget_in_one_line() {
        let forecast =
            Forecast { with_margin_seconds: 11_400.0, undo_reserve_seconds: 360.0, left_seconds: Some(39_720.0), ..Forecast::default() };
        assert_eq!(budget(&forecast), "time left 11h02m · forecast 3h10m · back-out 6m");
        let unknown = Forecast { unknown: vec!["copy".into()], left_seconds: Some(-5.0), ..forecast };
        assert_eq!(budget(&unknown), "5.0s over the deadline · forecast at least 3h10m · back-out 6m");
        assert_eq!(write_gap(Duration::from_millis(800), Duration::from_secs(30)), "writes held 800ms of 30s");
    }
}
