//! No more bytes a second than asked for.
//!
//! Before each piece it is waited until what was read so far is paid for; then the piece goes at full speed. So over any time that begins with
//! the first piece no more is read than the rate times that time and one piece. Time that was not used (the copy's server was slow) is
//! not made up for by a burst. By the monotonic clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::playbook::quantity::HumanRate;

/// A piece takes about so long to pay for, so that a low rate has small pieces.
const PIECE: Duration = Duration::from_millis(250);
/// The largest piece, in bytes.
const LARGEST: u64 = 1 << 20;
/// The smallest piece, in bytes.
const SMALLEST: u64 = 16 << 10;

/// What is read, and what is paid for.
#[derive(Debug)]
pub struct Pace {
    rate: HumanRate,
    paid: Instant,
}

impl Pace {
    /// Nothing is owed yet.
    #[must_use]
    pub fn new(rate: HumanRate) -> Pace {
        Pace { rate, paid: Instant::now() }
    }

    /// Bytes to be read at a time, about.
    #[must_use]
    pub fn piece(&self) -> usize {
        let bytes = self.rate.0.saturating_mul(PIECE.as_millis() as u64) / 1000;
        usize::try_from(bytes.clamp(SMALLEST, LARGEST)).unwrap_or(LARGEST as usize)
    }

    /// Waits until the next piece may be read.
    pub async fn turn(&mut self) {
        tokio::time::sleep_until(self.paid).await;
        self.paid = self.paid.max(Instant::now());
    }

    /// So much was read since the turn.
    #[expect(clippy::cast_precision_loss, reason = "a wait needs no 53 bits")]
    pub fn spent(&mut self, bytes: usize) {
        let seconds = bytes as f64 / self.rate.0.max(1) as f64;
        self.paid += Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(3600));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_lost_time_is_not_made_up_for() {
        let mut pace = Pace::new(HumanRate(1 << 20));
        assert_eq!(pace.piece(), 256 << 10);
        let began = Instant::now();
        for _ in 0..8 {
            pace.turn().await;
            pace.spent(256 << 10);
        }
        pace.turn().await;
        assert_eq!(began.elapsed().as_millis(), 2000);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let began = Instant::now();
        for _ in 0..5 {
            pace.turn().await;
            pace.spent(256 << 10);
        }
        assert_eq!(began.elapsed().as_millis(), 1000);
    }
}
