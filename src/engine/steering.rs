//! What a person says to steps that are under way: wait, or slow down.
//!
//! A step that works in pieces asks for its turn before each ([`Steering::turn`]) and tells afterwards what the piece was
//! ([`Steering::spent`]). So nothing is held while it waits: no open result, no transaction, no lock. That is also why a limit is kept on
//! average and not by the second: a chunk of 4 MiB at `1MiB/s` goes at full speed, and the next one begins three or four
//! seconds later. What is owed is shared by all readers, so that a limit is the limit of the run.
//!
//! Following asks for no turn: a log that is not followed may be purged. Who may say what, and when, is in [`control`](super::control).

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::playbook::quantity::{HumanSize, QuantityError};

/// The longest that one piece is waited for afterwards: a slip of the pen must not stop a copy for a year.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How fast rows may be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Rows per second; never 0.
    Rows(u64),
    /// Bytes per second, as they are sent to the target; never 0.
    Bytes(u64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Rows(rows) => write!(f, "{rows} rows/s"),
            Limit::Bytes(bytes) => write!(f, "{}/s", HumanSize(*bytes)),
        }
    }
}

/// A text that is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no rate: {reason}; write `20MiB/s` or `5000rows/s`, or `off`")]
pub struct LimitError {
    /// The text as written.
    pub text: String,
    /// Why it is none.
    pub reason: String,
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Limit, LimitError> {
        let error = |reason: &str| LimitError { text: text.to_owned(), reason: reason.to_owned() };
        let amount = text.trim().strip_suffix("/s").ok_or_else(|| error("it does not end with `/s`"))?.trim_end();
        let limit = match amount.strip_suffix("rows") {
            Some(rows) => Limit::Rows(rows.trim_end().parse().map_err(|_| error("the number of rows can't be read"))?),
            None => Limit::Bytes(amount.parse::<HumanSize>().map_err(|wrong: QuantityError| error(&wrong.reason))?.0),
        };
        match limit {
            Limit::Rows(0) | Limit::Bytes(0) => Err(error("nothing per second is a pause; say `pause`")),
            limit => Ok(limit),
        }
    }
}

impl Limit {
    /// How long a piece takes at this rate.
    #[expect(clippy::cast_precision_loss, reason = "a wait needs no 53 bits")]
    fn time_for(self, rows: u64, bytes: u64) -> Duration {
        let seconds = match self {
            Limit::Rows(limit) => rows as f64 / limit.max(1) as f64,
            Limit::Bytes(limit) => bytes as f64 / limit.max(1) as f64,
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
    }
}

/// What holds for steps now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steered {
    /// Why no new piece of work may be begun, if so.
    pub paused: Option<String>,
    /// How fast rows may be copied, and who says so.
    pub limit: Option<(Limit, String)>,
}

/// The driver's end.
pub struct Steer {
    steered: watch::Sender<Steered>,
    owed: Arc<Mutex<Option<Instant>>>,
}

/// A step's end; cheap to clone.
#[derive(Clone)]
pub struct Steering {
    steered: watch::Receiver<Steered>,
    /// Until when what was read is paid for.
    owed: Arc<Mutex<Option<Instant>>>,
}

impl Default for Steer {
    fn default() -> Self {
        Steer { steered: watch::Sender::new(Steered::default()), owed: Arc::default() }
    }
}

impl Steer {
    /// Says what holds from now on. What was owed under another limit is forgiven.
    pub fn say(&self, steered: Steered) {
        self.steered.send_if_modified(|old| {
            if old.limit.as_ref().map(|(limit, _)| limit) != steered.limit.as_ref().map(|(limit, _)| limit) {
                *self.owed.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            let changed = *old != steered;
            *old = steered;
            changed
        });
    }

    /// For a step.
    #[must_use]
    pub fn steering(&self) -> Steering {
        Steering { steered: self.steered.subscribe(), owed: self.owed.clone() }
    }
}

impl Steering {
    /// Nobody says anything.
    #[must_use]
    pub fn free() -> Steering {
        Steer::default().steering()
    }

    /// Waits until the next piece may be copied. Dropping it is harmless.
    pub async fn turn(&self) {
        self.wait(true).await;
    }

    /// Waits until the next piece may be compared: as [`Steering::turn`], but a limit is for copying alone.
    pub async fn compares(&self) {
        self.wait(false).await;
    }

    async fn wait(&self, copies: bool) {
        let mut steered = self.steered.clone();
        loop {
            let (paused, limited) = {
                let now = steered.borrow_and_update();
                (now.paused.is_some(), copies && now.limit.is_some())
            };
            let owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner).filter(|until| limited && *until > Instant::now());
            let changed = match (paused, owed) {
                (false, None) => return,
                (true, _) => steered.changed().await,
                (false, Some(until)) => tokio::select! {
                    () = tokio::time::sleep_until(until) => Ok(()),
                    changed = steered.changed() => changed,
                },
            };
            // Without a driver nobody will ever say anything else; its steps end with it.
            if changed.is_err() {
                return;
            }
        }
    }

    /// A piece of work was read: the next one waits until the limit, if there is one, allows it.
    pub fn spent(&self, rows: u64, bytes: u64) {
        let Some((limit, _)) = self.steered.borrow().limit.clone() else { return };
        let now = Instant::now();
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        *owed = Some(owed.map_or(now, |until| until.max(now)) + limit.time_for(rows, bytes));
    }

    /// Why no new piece of work may be begun, if so.
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        self.steered.borrow().paused.clone()
    }

    /// Why copying is slower than it could be, if somebody has said so.
    #[must_use]
    pub fn held_back(&self) -> Option<String> {
        let steered = self.steered.borrow();
        steered.paused.clone().or_else(|| steered.limit.as_ref().map(|(limit, who)| format!("throttled to {limit} by {who}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(limit: Limit) -> Steered {
        Steered { paused: None, limit: Some((limit, "alice".to_owned())) }
    }

    #[test]
    fn rates_as_people_write_them() {
        assert_eq!("20MiB/s".parse(), Ok(Limit::Bytes(20 << 20)));
        assert_eq!("5000rows/s".parse(), Ok(Limit::Rows(5000)));
        assert_eq!(" 5000 rows /s".parse(), Ok(Limit::Rows(5000)));
        for wrong in ["", "20MiB", "fast/s", "0rows/s", "0B/s", "-1rows/s", "5000/s", "rows/s"] {
            let error = wrong.parse::<Limit>().unwrap_err();
            assert!(error.to_string().contains("20MiB/s"), "{wrong}: {error}");
        }
        assert_eq!(Limit::Bytes(20 << 20).to_string(), "20MiB/s");
        assert_eq!(Limit::Rows(7).to_string().parse(), Ok(Limit::Rows(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_kept_on_average_by_all_together() {
        let steer = Steer::default();
        steer.say(limited(Limit::Rows(100)));
        let began = Instant::now();
        let readers = (0..2).map(|_| steer.steering()).map(|steering| async move {
            for _ in 0..10 {
                steering.turn().await;
                steering.spent(50, 0);
            }
        });
        futures_util::future::join_all(readers).await;
        steer.steering().turn().await;
        let seconds = began.elapsed().as_secs_f64();
        assert!((9.9..=10.1).contains(&seconds), "1,000 rows at 100 a second took {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_until_it_is_lifted_and_a_lifted_limit_forgives() {
        let steer = Steer::default();
        let steering = steer.steering();
        steer.say(Steered { paused: Some("paused by alice".to_owned()), limit: None });
        assert!(tokio::time::timeout(Duration::from_secs(3600), steering.turn()).await.is_err());
        assert_eq!(steering.held_back().as_deref(), Some("paused by alice"));
        steer.say(limited(Limit::Bytes(1)));
        steering.turn().await;
        steering.spent(0, 1000);
        assert!(tokio::time::timeout(Duration::from_secs(900), steering.turn()).await.is_err());
        assert_eq!(steering.held_back().as_deref(), Some("throttled to 1B/s by alice"));
        steer.say(Steered::default());
        let began = Instant::now();
        steering.turn().await;
        assert_eq!((began.elapsed(), steering.held_back()), (Duration::ZERO, None));
    }

    #[tokio::test]
    async fn without_a_driver_nothing_waits() {
        Steering::free().turn().await;
    }
}
