//! When each transaction is due.
//!
//! Old servers stamp events with whole seconds. The transactions of one second are spread evenly over it, in their order, so a second has to be seen to
//! its end before its first one is handed on; where one holds more than may be kept, its first half goes to what is at hand, half of the rest
//! to what comes next, and so on. A stamp never goes back: a transaction that took long carries the time of its beginning.
//!
//! Time in the log is time here times the multiple. Who falls behind by more than [`MOST_BEHIND`] lets the schedule slip: clients that were kept
//! waiting don't do in a burst what they would have done meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use super::log::Logged;

/// How far behind the schedule the load may be before the schedule slips.
pub const MOST_BEHIND: Duration = Duration::from_secs(1);

/// What of one second is kept at most, in bytes: a part of [`super::log::MEMORY`], so that the rest is for what is being written.
const KEPT: usize = super::log::MEMORY as usize / 8;

/// A transaction and when it was, in seconds since the first one.
#[derive(Debug)]
pub struct Timed {
    /// In seconds of the log.
    pub log_seconds: f64,
    /// It.
    pub transaction: Logged,
}

/// Gives transactions their times.
#[derive(Debug, Default)]
pub struct Seconds {
    /// Seconds of the passes before this one.
    base: u64,
    first: Option<u32>,
    current: u32,
    kept: Vec<Logged>,
    weight: usize,
    /// How much of the current second is given away.
    given: f64,
}

impl Seconds {
    /// Takes the next transaction; gives those whose times are known by that.
    pub fn push(&mut self, transaction: Logged) -> Vec<Timed> {
        let mut timed = Vec::new();
        if self.first.is_none() {
            self.first = Some(transaction.at);
            self.current = transaction.at;
        }
        if transaction.at > self.current {
            timed = self.give(1.0);
            self.given = 0.0;
            self.current = transaction.at;
        }
        self.weight += transaction.weight;
        self.kept.push(transaction);
        if self.weight > KEPT {
            let up_to = self.given + (1.0 - self.given) / 2.0;
            timed.extend(self.give(up_to));
        }
        timed
    }

    /// The window is through: what is kept, and from here on it begins again, a second later.
    pub fn pass_ended(&mut self) -> Vec<Timed> {
        let timed = self.give(1.0);
        self.given = 0.0;
        if let Some(first) = self.first.take() {
            self.base += u64::from(self.current - first) + 1;
        }
        timed
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds and transactions are far fewer than 2^53")]
    fn give(&mut self, up_to: f64) -> Vec<Timed> {
        let second = self.base as f64 + f64::from(self.current - self.first.unwrap_or(self.current));
        let each = (up_to - self.given) / self.kept.len().max(1) as f64;
        let from = second + self.given;
        self.given = up_to;
        self.weight = 0;
        let kept = std::mem::take(&mut self.kept).into_iter().enumerate();
        kept.map(|(number, transaction)| Timed { log_seconds: from + each * (number as f64 + 0.5), transaction }).collect()
    }
}

/// Time in the log, as time here.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    multiple: f64,
}

impl Clock {
    /// Time in the log begins now.
    #[must_use]
    pub fn start(multiple: f64) -> Clock {
        Clock { start: Instant::now(), multiple }
    }

    /// When something of the log is due.
    #[must_use]
    pub fn due(&self, log_seconds: f64) -> Instant {
        self.start + Duration::try_from_secs_f64(log_seconds / self.multiple).unwrap_or_default()
    }

    /// Lets the schedule slip if what was due then is too far behind.
    pub fn slip(&mut self, due: Instant) {
        let behind = Instant::now().saturating_duration_since(due);
        self.start += behind.saturating_sub(MOST_BEHIND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: u32) -> Logged {
        Logged { at, rows: Vec::new(), weight: 1024, permit: None }
    }

    fn times(timed: &[Timed]) -> Vec<f64> {
        timed.iter().map(|timed| timed.log_seconds).collect()
    }

    #[test]
    fn a_second_is_spread_evenly_and_gaps_stay() {
        let mut seconds = Seconds::default();
        for _ in 0..4 {
            assert!(seconds.push(at(100)).is_empty());
        }
        assert_eq!(times(&seconds.push(at(107))), [0.125, 0.375, 0.625, 0.875]);
        // It began long ago and ended just now.
        assert!(seconds.push(at(60)).is_empty());
        assert_eq!(times(&seconds.pass_ended()), [7.25, 7.75]);
        // The second pass goes on behind the first.
        assert!(seconds.push(at(100)).is_empty());
        assert_eq!(times(&seconds.push(at(101))), [8.5]);
        assert_eq!(times(&seconds.pass_ended()), [9.5]);
    }

    #[test]
    fn a_second_that_is_too_large_is_given_in_parts_that_stay_inside_it_and_in_order() {
        let mut seconds = Seconds::default();
        let mut given = Vec::new();
        for _ in 0..KEPT / 1024 * 3 {
            given.extend(times(&seconds.push(at(5))));
        }
        assert!(given.len() > KEPT / 1024, "nothing was given before the second's end");
        given.extend(times(&seconds.push(at(6))));
        assert!(given.windows(2).all(|pair| pair[0] < pair[1]) && given.iter().all(|time| (0.0..1.0).contains(time)));
        assert_eq!(times(&seconds.pass_ended()), [1.5]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_multiple_divides_time_and_a_late_schedule_slips() {
        let mut clock = Clock::start(4.0);
        let begun = Instant::now();
        assert_eq!(clock.due(8.0) - begun, Duration::from_secs(2));
        // Late by less than may be: it is made up for.
        tokio::time::advance(Duration::from_millis(2900)).await;
        clock.slip(clock.due(8.0));
        assert_eq!(clock.due(8.0) - begun, Duration::from_secs(2));
        // Late by more: what is beyond is lost.
        tokio::time::advance(Duration::from_millis(5100)).await;
        clock.slip(clock.due(8.0));
        assert_eq!(clock.due(8.0) - begun, Duration::from_secs(7));
        assert_eq!(clock.due(12.0) - begun, Duration::from_secs(8));
    }
}
