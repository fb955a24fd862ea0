//! What the canary has seen so far, shared between the canary, the check after the switch, and the report.
//!
//! # The write gap
//!
//! From the last beat the source accepted to the first one the target accepted, each at the moment its answer
//! arrived. It is what a client that retries at once would have noticed, and so an upper bound, by at most one
//! interval and one round trip, of how long no write was possible. If the source accepts again later (the switch was
//! undone), the gap is open again and the next switch is measured.
//!
//! Moments come from one clock per process: the wall clock when it started, monotonic from there, so that a clock
//! that is set meanwhile does not bend the gap. They survive a restart of dbmove as a checkpoint, which may be a second
//! old; a gap that spans a restart is therefore marked as not exact. It can only be too long, never too short.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::engine::step::{Output, StepError};

/// An accepted beat that took longer than this from when it was due is counted as delayed.
pub const DELAYED_AFTER: Duration = Duration::from_millis(100);

/// How long no write was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriteGap(pub Duration);

impl WriteGap {
    /// In whole milliseconds, rounded up: a gap is never shown shorter than it was.
    #[must_use]
    pub fn milliseconds(self) -> u64 {
        u64::try_from(self.0.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for WriteGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.milliseconds())
    }
}

/// Which server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The server data leaves.
    Source,
    /// The server it goes to.
    Target,
}

impl Side {
    /// As in the marker table and in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

/// A moment: microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(pub u64);

/// Everything counted so far; also the canary's checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beats {
    /// Beats accepted.
    pub accepted: u64,
    /// Attempts that failed; a beat is attempted until it is accepted.
    pub failed: u64,
    /// Connections found closed before a beat was sent through them, which is no failure: as a pool does, the canary connects again.
    #[serde(default)]
    pub reconnected: u64,
    /// Beats accepted later than [`DELAYED_AFTER`] after they were due.
    pub delayed: u64,
    /// The longest time from due to accepted.
    pub longest_delay: Duration,
    /// When the source last accepted one.
    pub last_on_source: Option<Moment>,
    /// When the target first accepted one after that.
    pub first_on_target: Option<Moment>,
    /// When the target last accepted one.
    pub last_on_target: Option<Moment>,
    /// Which server answered as the source: `server_id 1, port 3306, host db1`.
    pub source_server: Option<String>,
    /// Which server answered as the target.
    pub target_server: Option<String>,
    /// Why the last failed attempt failed.
    pub last_failure: Option<String>,
    /// True if dbmove was restarted after the last beat on the source: the gap is too long by up to a second and
    /// the time the restart took.
    pub restarted: bool,
}

impl Beats {
    /// The write gap, once the target has accepted a beat after the source's last.
    #[must_use]
    pub fn write_gap(&self) -> Option<WriteGap> {
        let (last, first) = (self.last_on_source?, self.first_on_target?);
        Some(WriteGap(Duration::from_micros(first.0.saturating_sub(last.0))))
    }

    /// As output facts. `write_gap_ms` is null where no switch was seen.
    #[must_use]
    pub fn output(&self) -> Output {
        let number = |duration: Duration| u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        Output::default()
            .fact("write_gap_ms", self.write_gap().map(WriteGap::milliseconds))
            .fact("write_gap_exact", self.write_gap().is_some() && !self.restarted)
            .fact("beats", self.accepted)
            .fact("failed", self.failed)
            .fact("reconnected", self.reconnected)
            .fact("delayed", self.delayed)
            .fact("longest_delay_ms", number(self.longest_delay))
            .fact("source_server", self.source_server.clone())
            .fact("target_server", self.target_server.clone())
    }

    fn accepted(&mut self, side: Side, server: &str, at: Moment, waited: Duration) {
        self.accepted += 1;
        self.longest_delay = self.longest_delay.max(waited);
        self.delayed += u64::from(waited > DELAYED_AFTER);
        match side {
            Side::Source => {
                self.last_on_source = Some(at);
                self.first_on_target = None;
                self.restarted = false;
                self.source_server = Some(server.to_owned());
            }
            Side::Target => {
                self.first_on_target.get_or_insert(at);
                self.last_on_target = Some(at);
                self.target_server = Some(server.to_owned());
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Life {
    NotStarted,
    Running,
    Ended,
}

#[derive(Clone, Debug)]
struct State {
    life: Life,
    beats: Beats,
    /// What the route said when it was last read.
    route: String,
}

/// The canary's view, shared by an `Arc` between the canary and the steps that look at it.
#[derive(Debug)]
pub struct CanaryWatch {
    state: watch::Sender<State>,
    wall: SystemTime,
    started: Instant,
}

impl Default for CanaryWatch {
    fn default() -> Self {
        let state = State { life: Life::NotStarted, beats: Beats::default(), route: "nothing yet".to_owned() };
        CanaryWatch { state: watch::Sender::new(state), wall: SystemTime::now(), started: Instant::now() }
    }
}

impl CanaryWatch {
    /// Everything counted so far.
    #[must_use]
    pub fn beats(&self) -> Beats {
        self.state.borrow().beats.clone()
    }

    /// Waits until the target accepts a beat from now on, through the route; says what was seen.
    ///
    /// # Errors
    /// If that does not happen within `limit`, or the canary ends first: the route does not do what it says.
    pub async fn wait_until_target(&self, limit: Duration) -> Result<Beats, StepError> {
        let asked = self.now();
        let arrived = |state: &State| state.beats.last_on_target.is_some_and(|last| last >= asked);
        let mut states = self.state.subscribe();
        let waited = tokio::time::timeout(limit, states.wait_for(|state| arrived(state) || state.life == Life::Ended)).await;
        let state = match waited {
            Ok(Ok(state)) if arrived(&state) => return Ok(state.beats.clone()),
            _ => self.state.borrow().clone(),
        };
        let why = match state.life {
            Life::NotStarted => "no canary is running".to_owned(),
            Life::Ended => "the canary has ended".to_owned(),
            Life::Running => format!("none of its beats was accepted there within {limit:?}"),
        };
        let side = match (state.beats.last_on_source, state.beats.last_on_target) {
            (None, None) => "no server has accepted any",
            (source, target) if source > target => "the source accepted the last one",
            _ => "the target accepted the last one, some time ago",
        };
        let failure = state.beats.last_failure.map(|failure| format!("; the last failure: {failure}")).unwrap_or_default();
        Err(StepError::definite(format!("the canary did not reach the target: {why}; {side}; the route says {}{failure}", state.route))
            .hint("see where the route points and whether the target takes writes from the canary's account"))
    }

    /// This process's clock.
    pub(super) fn now(&self) -> Moment {
        let wall = self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + self.started.elapsed();
        Moment(u64::try_from(wall.as_micros()).unwrap_or(u64::MAX))
    }

    /// The canary starts, with what an earlier process of this run had counted.
    pub(super) fn start(&self, earlier: Option<Beats>) {
        self.state.send_modify(|state| {
            state.life = Life::Running;
            if let Some(mut beats) = earlier {
                beats.restarted |= beats.first_on_target.is_none();
                state.beats = beats;
            }
        });
    }

    /// Waits until the gap is not `known` any more.
    pub(super) async fn gap_other_than(&self, known: Option<WriteGap>) {
        // The sender is ours, so the channel can't close before we do.
        let _ = self.state.subscribe().wait_for(|state| state.beats.write_gap() != known).await;
    }

    pub(super) fn end(&self) {
        self.state.send_modify(|state| state.life = Life::Ended);
    }

    pub(super) fn routed(&self, route: &str) {
        self.state.send_if_modified(|state| {
            let changed = state.route != route;
            if changed {
                state.route = route.to_owned();
            }
            changed
        });
    }

    pub(super) fn accepted(&self, side: Side, server: &str, waited: Duration) {
        let at = self.now();
        self.state.send_modify(|state| state.beats.accepted(side, server, at, waited));
    }

    pub(super) fn reconnected(&self) {
        self.state.send_modify(|state| state.beats.reconnected += 1);
    }

    pub(super) fn failed(&self, why: String) {
        self.state.send_modify(|state| {
            state.beats.failed += 1;
            state.beats.last_failure = Some(why);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    #[test]
    fn the_gap_runs_from_the_last_on_the_source_to_the_first_on_the_target() {
        let mut beats = Beats::default();
        let quick = Duration::from_millis(1);
        beats.accepted(Side::Source, "s", Moment(10 * MS), quick);
        beats.accepted(Side::Source, "s", Moment(30 * MS), quick);
        assert_eq!(beats.write_gap(), None);
        beats.accepted(Side::Target, "t", Moment(130 * MS + 1), Duration::from_millis(101));
        beats.accepted(Side::Target, "t", Moment(150 * MS), quick);
        assert_eq!(beats.write_gap().map(WriteGap::milliseconds), Some(101));
        assert_eq!((beats.accepted, beats.delayed, beats.longest_delay), (4, 1, Duration::from_millis(101)));
        // The switch is undone, and done again later.
        beats.accepted(Side::Source, "s", Moment(500 * MS), quick);
        assert_eq!(beats.write_gap(), None);
        beats.accepted(Side::Target, "t", Moment(507 * MS), quick);
        assert_eq!(beats.write_gap().map(WriteGap::milliseconds), Some(7));
        assert_eq!(beats.output().facts["write_gap_exact"], true);
    }

    #[test]
    fn a_gap_across_a_restart_is_not_called_exact() {
        let before = Beats { last_on_source: Some(Moment(10 * MS)), ..Beats::default() };
        let watch = CanaryWatch::default();
        watch.start(Some(before));
        watch.accepted(Side::Target, "t", Duration::ZERO);
        assert_eq!(watch.beats().output().facts["write_gap_exact"], false);
        // Once measured, a later restart does not take the exactness away.
        let measured = Beats { last_on_source: Some(Moment(10 * MS)), first_on_target: Some(Moment(20 * MS)), ..Beats::default() };
        let watch = CanaryWatch::default();
        watch.start(Some(measured));
        watch.accepted(Side::Target, "t", Duration::ZERO);
        let output = watch.beats().output();
        assert_eq!((&output.facts["write_gap_exact"], &output.facts["write_gap_ms"]), (&true.into(), &10.into()));
    }

    #[tokio::test]
    async fn a_check_without_a_canary_says_so() {
        let watch = CanaryWatch::default();
        let error = watch.wait_until_target(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(
            error.message,
            "the canary did not reach the target: no canary is running; no server has accepted any; the route says nothing yet"
        );
        watch.start(None);
        watch.accepted(Side::Target, "t", Duration::ZERO);
        // Accepted before the question: not good enough, the target may be gone by now.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let error = watch.wait_until_target(Duration::from_millis(20)).await.unwrap_err();
        assert!(error.message.contains("the target accepted the last one, some time ago"), "{error}");
        watch.end();
        assert!(watch.wait_until_target(Duration::from_secs(60)).await.unwrap_err().message.contains("the canary has ended"));
    }
}
