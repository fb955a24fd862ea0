//! What a replay did: counted by those that do it, and put together for whoever looks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::load::{Clients, LoadFigures};

/// Rates are told from this time on: before it they say nothing.
const FIRST_TELLING: f64 = 1.0;
/// A share of the time, or of the changes, from which on it is named as what kept the load from what was asked.
const NAMED_FROM: f64 = 0.05;

/// What became of a transaction's changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Made as they were logged.
    pub as_logged: u64,
    /// Of rows that were not there.
    pub was_not_there: u64,
    /// Inserts of rows that were there.
    pub was_there: u64,
    /// That changed nothing, of all of these.
    pub without_effect: u64,
    /// Refused by the server, by why.
    pub refused: BTreeMap<String, u64>,
}

impl Done {
    fn changes(&self) -> u64 {
        self.as_logged + self.was_not_there + self.was_there + self.refused.values().sum::<u64>()
    }
    /// Those that a server logs.
    fn logged(&self) -> u64 {
        self.as_logged + self.was_not_there + self.was_there - self.without_effect
    }
}

#[derive(Debug, Default)]
struct Times {
    /// When the first transaction was begun.
    begun: Option<Instant>,
    /// Since when writes are held, and how long they were before that.
    held_since: Option<Instant>,
    held: Duration,
    /// Changes that were due, and the log's time that they cover, in seconds.
    due: u64,
    log_seconds: f64,
    starved: Duration,
    busy: Duration,
}

/// Counts while it goes on.
#[derive(Debug, Default)]
pub struct Figures {
    done: Mutex<(Done, u64)>,
    times: Mutex<Times>,
    /// Connections made anew.
    pub reconnected: AtomicU64,
    /// Connections in use, and the most there were.
    pub connections: AtomicU64,
    most_connections: AtomicU64,
    /// Times the window was begun.
    pub passes: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Figures {
    /// A transaction was committed.
    pub fn committed(&self, done: Done) {
        let (all, transactions) = &mut *lock(&self.done);
        *transactions += 1;
        all.as_logged += done.as_logged;
        all.was_not_there += done.was_not_there;
        all.was_there += done.was_there;
        all.without_effect += done.without_effect;
        for (why, count) in done.refused {
            *all.refused.entry(why).or_default() += count;
        }
    }

    /// A transaction of so many changes was due, at that time of the log.
    pub fn was_due(&self, changes: u64, log_seconds: f64) {
        let times = &mut *lock(&self.times);
        times.begun.get_or_insert_with(Instant::now);
        times.due += changes;
        times.log_seconds = times.log_seconds.max(log_seconds);
    }

    /// Time went by in which something was due and the log had not been read so far, or no connection was free.
    pub fn waited(&self, starved: Duration, busy: Duration) {
        let times = &mut *lock(&self.times);
        times.starved += starved;
        times.busy += busy;
    }

    /// A connection is used from now on.
    pub fn connected(&self) {
        let now = self.connections.fetch_add(1, Ordering::AcqRel) + 1;
        self.most_connections.fetch_max(now, Ordering::AcqRel);
    }

    /// Clients are there now.
    pub fn clients_are(&self, clients: Clients) {
        let times = &mut *lock(&self.times);
        match (matches!(clients, Clients::Held | Clients::HeldOnTarget), times.held_since) {
            (true, None) => times.held_since = Some(Instant::now()),
            (false, Some(since)) => {
                times.held += since.elapsed();
                times.held_since = None;
            }
            _ => {}
        }
    }

    /// All of it, for a load at this multiple; what the caller knows besides is left empty.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "changes are far fewer than 2^53")]
    pub fn told(&self, multiple: f64) -> LoadFigures {
        let (done, transactions) = lock(&self.done).clone();
        let times = lock(&self.times);
        let held = times.held + times.held_since.map_or(Duration::ZERO, |since| since.elapsed());
        let seconds = times.begun.map_or(0.0, |begun| begun.elapsed().saturating_sub(held).as_secs_f64());
        let rate = |changes: u64, seconds: f64| if seconds >= FIRST_TELLING { changes as f64 / seconds } else { 0.0 };
        let changes = done.changes();
        let without_effect = done.without_effect as f64 / changes.max(1) as f64;
        let share = |time: Duration| if seconds > 0.0 { time.as_secs_f64() / seconds } else { 0.0 };
        let mut limits = Vec::new();
        if share(times.busy) > NAMED_FROM {
            limits.push(format!("for {:.0} % of the time all connections were busy or waited for a row", share(times.busy) * 100.0));
        }
        if share(times.starved) > NAMED_FROM {
            limits.push(format!("for {:.0} % of the time the log had not been read so far", share(times.starved) * 100.0));
        }
        if without_effect > NAMED_FROM {
            limits.push(format!("{:.0} % of the changes found nothing to change", without_effect * 100.0));
        }
        LoadFigures {
            passes: u32::try_from(self.passes.load(Ordering::Acquire)).unwrap_or(u32::MAX),
            seconds,
            held_seconds: held.as_secs_f64(),
            asked_per_second: rate(times.due, times.log_seconds / multiple),
            reached_per_second: rate(done.logged(), seconds),
            transactions,
            changes,
            as_logged: done.as_logged,
            was_not_there: done.was_not_there,
            was_there: done.was_there,
            without_effect: done.without_effect,
            refused: done.refused,
            reconnected: self.reconnected.load(Ordering::Acquire),
            connections: self.most_connections.load(Ordering::Acquire),
            limited_by: (!limits.is_empty()).then(|| limits.join(", ")),
            ..LoadFigures::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn asked_and_reached_are_told_apart_and_held_time_is_left_out() {
        let figures = Figures::default();
        figures.clients_are(Clients::OnSource);
        figures.was_due(100, 0.0);
        for second in 1..=10 {
            tokio::time::advance(Duration::from_secs(1)).await;
            // Half of what is due is written.
            figures.was_due(100, f64::from(second) * 2.0);
            figures.committed(Done { as_logged: 40, was_not_there: 10, was_there: 5, without_effect: 5, ..Done::default() });
        }
        figures.clients_are(Clients::Held);
        tokio::time::advance(Duration::from_secs(5)).await;
        figures.clients_are(Clients::OnTarget);
        let told = figures.told(2.0);
        assert!((told.seconds - 10.0).abs() < 0.01 && (told.held_seconds - 5.0).abs() < 0.01, "{told:?}");
        // 1,100 changes in 20 seconds of the log, which are 10 at twice the rate.
        assert!((told.asked_per_second - 110.0).abs() < 0.1 && (told.reached_per_second - 50.0).abs() < 0.1, "{told:?}");
        assert_eq!((told.changes, told.transactions), (550, 10));
        assert!(told.limited_by.unwrap().contains("9 % of the changes found nothing to change"));
    }
}
