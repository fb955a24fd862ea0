//! Did following keep up, and was the load what was asked for? Pure figures, no clock.
//!
//! Lag is looked at about four times a second while the load runs, following has caught up once, and writes are not held. A target that can't keep
//! up shows in one of two ways:
//!
//! * *above the limit*: in one of twenty looks following was further behind than half of what writes may be held for. A cutover
//!   begins at any moment, and what is behind then has to be applied while writes are held.
//! * *further and further behind*: over the second half of the time the lag grew by more than a tenth of the time that passed, and is more than
//!   [`GROWN`] seconds at the end. Such a target never gets there, however long it is given.
//!
//! Old servers stamp events by the second, so a lag of one second may be none.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LoadFigures;
use super::multiple::Multiple;

/// Seconds of lag at the end below which nothing has grown.
const GROWN: f64 = 3.0;
/// Growth of lag for each second that passes from which on it counts.
const SLOPE: f64 = 0.1;
/// Looks below which nothing is said.
const LOOKS: usize = 20;
/// A load of at least so much of what was asked is what was asked.
const REACHED: f64 = 0.95;

/// One look: seconds since the load began, seconds of lag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// When.
    pub at: f64,
    /// How far behind.
    pub lag: f64,
}

/// How far behind one following step was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lag {
    /// The step.
    pub step: String,
    /// How often it was looked at.
    pub looks: u64,
    /// Half of the looks found at most this, in seconds.
    pub p50_seconds: f64,
    /// 95 of 100.
    pub p95_seconds: f64,
    /// 99 of 100.
    pub p99_seconds: f64,
    /// The most.
    pub max_seconds: f64,
    /// Present if it grew further and further behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grew: Option<Growth>,
}

/// Following that got further and further behind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Growth {
    /// Lag at the beginning of the stretch, in seconds.
    pub from_seconds: f64,
    /// Lag at its end.
    pub to_seconds: f64,
    /// How long it took.
    pub within_seconds: f64,
}

/// The value that this share of the sorted values does not exceed (nearest rank).
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank of a list in memory")]
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The slope of the line that fits the looks best, in seconds of lag for each second; and the line's two ends.
#[expect(clippy::cast_precision_loss, reason = "looks are counted in thousands")]
fn line(looks: &[Look]) -> Option<(f64, Growth)> {
    let (first, last) = (looks.first()?, looks.last()?);
    let count = looks.len() as f64;
    let (mean_at, mean_lag) =
        (looks.iter().map(|look| look.at).sum::<f64>() / count, looks.iter().map(|look| look.lag).sum::<f64>() / count);
    let spread: f64 = looks.iter().map(|look| (look.at - mean_at).powi(2)).sum();
    if spread <= 0.0 {
        return None;
    }
    let slope = looks.iter().map(|look| (look.at - mean_at) * (look.lag - mean_lag)).sum::<f64>() / spread;
    let on_line = |at: f64| (mean_lag + slope * (at - mean_at)).max(0.0);
    let ends = Growth { from_seconds: on_line(first.at), to_seconds: on_line(last.at), within_seconds: last.at - first.at };
    Some((slope, ends))
}

/// What the looks at one step come to.
#[must_use]
pub fn lag(step: &str, looks: &[Look]) -> Lag {
    let mut sorted: Vec<f64> = looks.iter().map(|look| look.lag).collect();
    sorted.sort_by(f64::total_cmp);
    let second_half = &looks[looks.len() / 2..];
    let grew = line(second_half)
        .filter(|(slope, growth)| second_half.len() >= LOOKS && *slope > SLOPE && growth.to_seconds > GROWN)
        .map(|(_, growth)| growth);
    Lag {
        step: step.to_owned(),
        looks: looks.len() as u64,
        p50_seconds: percentile(&sorted, 0.5),
        p95_seconds: percentile(&sorted, 0.95),
        p99_seconds: percentile(&sorted, 0.99),
        max_seconds: sorted.last().copied().unwrap_or(0.0),
        grew,
    }
}

/// Why following did not keep up; nothing if it did.
#[must_use]
pub fn falls_behind(multiple: Multiple, lag: &Lag, reached_per_second: f64, max_write_gap: Duration) -> Option<String> {
    let limit = max_write_gap.as_secs_f64() / 2.0;
    let found = match &lag.grew {
        Some(grew) => format!(
            "the lag of `{}` grew from {:.0} s to {:.0} s within {:.0} s",
            lag.step, grew.from_seconds, grew.to_seconds, grew.within_seconds
        ),
        None if lag.p95_seconds > limit && lag.looks >= LOOKS as u64 => format!(
            "`{}` was more than {:.0} s behind in one of twenty looks, and at most {:.0} s; more than {limit:.1} s can't be caught up while writes are held",
            lag.step,
            lag.p95_seconds.floor(),
            lag.max_seconds
        ),
        None => return None,
    };
    Some(format!("this target can't keep up at {multiple} ({reached_per_second:.0} writes/s): {found}"))
}

/// Why a store's load is not what was asked for; nothing if it is.
#[must_use]
pub fn falls_short(multiple: Multiple, store: &str, figures: &LoadFigures) -> Option<String> {
    if figures.changes == 0 {
        return Some(format!(
            "the load wrote nothing to `{store}`: the window of the log of the {} holds nothing that could be replayed in this time",
            figures.from
        ));
    }
    if figures.reached_per_second >= figures.asked_per_second * REACHED {
        return None;
    }
    let why = figures.limited_by.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    Some(format!(
        "the replay itself did not reach {multiple} on `{store}`: asked {:.0}, reached {:.0} writes/s{why}; what is told of following holds for what was reached",
        figures.asked_per_second, figures.reached_per_second
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(lag: impl Fn(f64) -> f64) -> Vec<Look> {
        (0..240).map(|look| f64::from(look) / 4.0).map(|at| Look { at, lag: lag(at) }).collect()
    }

    const GAP: Duration = Duration::from_secs(30);

    fn multiple() -> Multiple {
        "5x".parse().unwrap()
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.95, 0.99, 1.0].map(|share| percentile(&values, share)), [50.0, 95.0, 99.0, 100.0]);
        assert_eq!((percentile(&[], 0.5), percentile(&[7.0], 0.01)), (0.0, 7.0));
    }

    #[test]
    fn a_steady_target_keeps_up_with_a_hiccup_too() {
        for lag in [lag("follow", &looks(|at| at % 2.0)), lag("follow", &looks(|at| if (40.0..42.0).contains(&at) { 25.0 } else { 0.0 }))] {
            assert_eq!(falls_behind(multiple(), &lag, 5000.0, GAP), None, "{lag:?}");
        }
        // Behind when following began, and then never again.
        let early = lag("follow", &looks(|at| (12.0 - at).max(0.0)));
        assert_eq!(falls_behind(multiple(), &early, 5000.0, GAP), None, "{early:?}");
    }

    #[test]
    fn a_target_that_falls_further_and_further_behind_does_not() {
        let lag = lag("follow", &looks(|at| at / 4.0));
        let why = falls_behind(multiple(), &lag, 5000.0, GAP).unwrap();
        assert_eq!(why, "this target can't keep up at 5x (5000 writes/s): the lag of `follow` grew from 8 s to 15 s within 30 s");
    }

    #[test]
    fn nor_does_one_that_is_always_far_behind() {
        let lag = lag("follow", &looks(|at| 20.0 + at % 2.0));
        let why = falls_behind(multiple(), &lag, 5000.0, GAP).unwrap();
        assert!(why.contains("`follow` was more than 21 s behind"), "{why}");
    }

    #[test]
    fn a_load_that_was_not_reached_is_told_apart() {
        let mut figures = LoadFigures { changes: 10, asked_per_second: 5000.0, reached_per_second: 4900.0, ..LoadFigures::default() };
        assert_eq!(falls_short(multiple(), "school", &figures), None);
        figures.reached_per_second = 3100.0;
        figures.limited_by = Some("all connections were busy".to_owned());
        let why = falls_short(multiple(), "school", &figures).unwrap();
        assert!(
            why.starts_with(
                "the replay itself did not reach 5x on `school`: asked 5000, reached 3100 writes/s (all connections were busy)"
            ),
            "{why}"
        );
        figures.changes = 0;
        assert!(falls_short(multiple(), "school", &figures).unwrap().contains("wrote nothing"));
    }
}
