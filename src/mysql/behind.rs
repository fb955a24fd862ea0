//! How far behind a server following is, counted by positions.
//!
//! The source's clock can't tell: after an idle hour the newest change that was applied is an hour old, and nothing is behind; and it need not
//! agree with ours. So each look remembers where the source's log ended, and following is as far behind as the oldest end that it has not
//! reached yet. That is never more than the truth, and less by at most the time between two looks; what was behind already at the
//! first look counts from then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::apply::applier::Applied;
use super::position::Position;

/// Ends of the source's log that are not reached yet, oldest first.
#[derive(Default)]
pub struct Ends(VecDeque<(Instant, Position)>);

/// Ends that are remembered at most.
const MOST_ENDS: usize = 4096;

impl Ends {
    /// How far behind somebody is who has reached `applied` when the log ends at `end`.
    pub fn behind(&mut self, now: Instant, applied: &Position, end: Position) -> Duration {
        let newer = self.0.back().is_none_or(|(_, last)| *last < end);
        if newer && self.0.len() < MOST_ENDS {
            self.0.push_back((now, end));
        }
        while self.0.front().is_some_and(|(_, end)| end <= applied) {
            self.0.pop_front();
        }
        self.0.front().map_or(Duration::ZERO, |(since, _)| now.duration_since(*since))
    }
}

/// The lag to show of who has applied so much, `behind` by positions, when the log ends at `end`: by the source's clock, or by positions where that
/// is more. Before a driver has applied anything only those tell.
#[must_use]
pub fn lag(applied: &Applied, end: &Position, behind: Duration) -> Duration {
    if applied.position >= *end { Duration::ZERO } else { applied.lag().max(behind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_is_the_oldest_end_not_reached() {
        let began = Instant::now();
        let at = |offset| Position::new("log.000001", offset);
        let mut ends = Ends::default();
        let mut behind = |second, applied, end| ends.behind(began + Duration::from_secs(second), &at(applied), at(end)).as_secs();
        assert_eq!(behind(0, 100, 100), 0);
        // An idle hour, then a change: nothing was behind meanwhile.
        assert_eq!(behind(3600, 100, 200), 0);
        assert_eq!(behind(3605, 100, 300), 5);
        assert_eq!(behind(3610, 200, 400), 5);
        assert_eq!(behind(3615, 250, 400), 10);
        assert_eq!(behind(3620, 400, 400), 0);
        let applied = Applied::at(at(250));
        assert_eq!(lag(&applied, &at(400), Duration::from_secs(10)), Duration::from_secs(10), "nothing was applied yet");
        assert_eq!(lag(&applied, &at(250), Duration::from_secs(10)), Duration::ZERO);
    }
}
