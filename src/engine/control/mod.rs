//! Steering a run that is being driven: pause, throttle, hold the cutover, abort, set.
//!
//! A driver listens on a socket in the state directory while it drives ([`socket`]); whoever may read the journal may steer.
//! Every act that is taken is an event of the run's journal before it has any effect: who (the name they gave, and the user id and
//! process that the kernel vouches for), when, why. What stands is part of the run's state ([`Control`]), so it outlives the
//! driver: a paused run that is killed and resumed is paused, and a hold that was set in the afternoon is there when
//! `dbmove cutover` takes over at night.
//!
//! # What must hold
//!
//! * **pause**: no new step starts, copying reads no new chunk and a full verification compares no new one. What is under way is brought to
//!   its end. *Following goes on* (the source may purge the log that nobody follows), and so does what was ready before: services of
//!   an earlier driver are started again in a paused run. The deadline goes on too, and its keeping is
//!   not paused: a run that can't be finished any more is undone in time, paused or not. From when writes are held until the switch is
//!   done or undone a pause is refused: it would make clients wait for a person.
//! * **resume** lifts a pause.
//! * **throttle** limits how many rows or bytes a second all copying together reads; `off` lifts it. Following and comparing are not slowed down.
//! * **hold-cutover**: the cutover's first step waits for **go**. Following goes on, Ctrl-C and handover work as before. Refused when
//!   the cutover has begun.
//! * **abort** ends the run as Ctrl-C does, in anybody's name: a cutover that has not reached the point of no return is undone, a
//!   rehearsal is undone as a whole. From the point of no return on until the cutover is done it is refused, as Ctrl-C is not
//!   heard there; later it only ends the driver. A rollback that has undone nothing yet is called off: clients stay on the target.
//! * **set** sets a deadline, the longest write gap, or a guard: [`setting`].
//! * While something is being undone nothing can be said: the undo goes first.
//!
//! An act that would change nothing (a second `pause`) is answered so and leaves no event.

mod obey;
pub mod setting;
pub mod socket;

pub(super) use obey::Asked;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use setting::Setting;

use super::context::Progress;
use super::steering::{Limit, Steered};

/// The version of what goes over the socket.
pub const VERSION: u32 = 1;

/// What a run can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "act")]
pub enum Act {
    /// Begin nothing new.
    Pause,
    /// Go on.
    Resume,
    /// Copy no faster.
    Throttle {
        /// Than this.
        limit: Limit,
    },
    /// Copy as fast as it goes.
    Unthrottle,
    /// Wait before the cutover.
    HoldCutover,
    /// Begin the cutover.
    Go,
    /// End, as by Ctrl-C.
    Abort,
    /// Go by another value from now on.
    Set {
        /// Of what.
        setting: Setting,
    },
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Pause => f.write_str("pause"),
            Act::Resume => f.write_str("resume"),
            Act::Throttle { limit } => write!(f, "throttle {limit}"),
            Act::Unthrottle => f.write_str("throttle off"),
            Act::HoldCutover => f.write_str("hold-cutover"),
            Act::Go => f.write_str("go"),
            Act::Abort => f.write_str("abort"),
            Act::Set { setting } => write!(f, "set {setting}"),
        }
    }
}

/// An act that was taken, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controlled {
    /// What.
    #[serde(flatten)]
    pub act: Act,
    /// Who, by the name they gave.
    pub by: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From where, as the kernel says: user id, process.
    pub from: String,
}

/// The same with its moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Since when.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub controlled: Controlled,
}

impl Standing {
    /// `by alice (user id 1000, process 4711): index build`.
    #[must_use]
    pub fn by(&self) -> String {
        let Controlled { by, from, reason, .. } = &self.controlled;
        let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("by {by} ({from}){reason}")
    }
}

/// What holds in a run: part of its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// A person's pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Standing>,
    /// A person's limit on copying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Standing>,
    /// A person's hold of the cutover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Standing>,
    /// A person's deadline, in place of the driver's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Standing>,
    /// A person's limit on how long writes may be held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_write_gap: Option<Standing>,
    /// Guards that a person has switched off.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guards_off: BTreeMap<String, Standing>,
}

impl Control {
    /// Takes an act in.
    pub fn apply(&mut self, at: Timestamp, controlled: &Controlled) {
        let standing = || Some(Standing { at, controlled: controlled.clone() });
        match &controlled.act {
            Act::Pause => self.paused = standing(),
            Act::Resume => self.paused = None,
            Act::Throttle { .. } => self.throttled = standing(),
            Act::Unthrottle => self.throttled = None,
            Act::HoldCutover => self.held = standing(),
            Act::Go => self.held = None,
            Act::Abort => {}
            Act::Set { setting: Setting::Deadline { .. } } => self.deadline = standing(),
            Act::Set { setting: Setting::MaxWriteGap { .. } } => self.max_write_gap = standing(),
            Act::Set { setting: Setting::Guard { guard, watches: true } } => {
                self.guards_off.remove(guard);
            }
            Act::Set { setting: Setting::Guard { guard, watches: false } } => {
                self.guards_off.insert(guard.clone(), Standing { at, controlled: controlled.clone() });
            }
        }
    }

    /// The deadline of a driver that a person's stands for, as it was given.
    #[must_use]
    pub fn deadline_stands_for(&self) -> Option<&str> {
        match &self.deadline.as_ref()?.controlled.act {
            Act::Set { setting: Setting::Deadline { instead_of, .. } } => instead_of.as_deref(),
            _ => None,
        }
    }

    /// True if this is the deadline that a person has set.
    #[must_use]
    pub fn deadline_is(&self, text: &str, until: Timestamp) -> bool {
        self.deadline.as_ref().is_some_and(|set| match &set.controlled.act {
            Act::Set { setting: Setting::Deadline { text: set, until: moment, .. } } => set == text && *moment == until,
            _ => false,
        })
    }

    /// How long writes may be held, if a person has said so.
    #[must_use]
    pub fn max_write_gap(&self) -> Option<Duration> {
        match &self.max_write_gap.as_ref()?.controlled.act {
            Act::Set { setting: Setting::MaxWriteGap { milliseconds, .. } } => Some(setting::gap(*milliseconds).0),
            _ => None,
        }
    }

    /// The limit of a driver that a person's stands for.
    #[must_use]
    pub fn write_gap_stands_for(&self) -> Option<Duration> {
        match &self.max_write_gap.as_ref()?.controlled.act {
            Act::Set { setting: Setting::MaxWriteGap { instead_of, .. } } => instead_of.map(|milliseconds| setting::gap(milliseconds).0),
            _ => None,
        }
    }

    /// Why nothing new is begun, if so.
    #[must_use]
    pub fn pause(&self) -> Option<String> {
        self.paused.as_ref().map(|pause| format!("paused {}", pause.by()))
    }

    /// What steps have to know of it.
    #[must_use]
    pub fn steered(&self) -> Steered {
        let limit = self.throttled.as_ref().and_then(|standing| match &standing.controlled.act {
            Act::Throttle { limit } => Some((*limit, standing.controlled.by.clone())),
            _ => None,
        });
        Steered { paused: self.pause(), limit }
    }

    /// Everything that stands, one sentence each: what `status` shows.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let since = |standing: &Standing| format!("{} since {:.0}", standing.controlled.by, standing.at);
        let why = |standing: &Standing| standing.controlled.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let mut lines = Vec::new();
        if let Some(pause) = &self.paused {
            lines.push(format!("PAUSED by {}{}", since(pause), why(pause)));
        }
        if let Some((limit, standing)) = self.steered().limit.zip(self.throttled.as_ref()) {
            lines.push(format!("copying is throttled to {} by {}{}", limit.0, since(standing), why(standing)));
        }
        if let Some(hold) = &self.held {
            lines.push(format!("the cutover is HELD by {}{}", since(hold), why(hold)));
        }
        for (what, set) in [("the deadline", &self.deadline), ("`max_write_gap`", &self.max_write_gap)] {
            if let Some(set) = set {
                lines.push(format!("{what} was set by {}: `{}`{}", since(set), set.controlled.act, why(set)));
            }
        }
        for (guard, off) in &self.guards_off {
            lines.push(format!("guard `{guard}` is OFF by {}{}", since(off), why(off)));
        }
        lines
    }
}

/// What is asked over the socket: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The run that is meant.
    pub run: String,
    /// What it is told; without it only how it stands is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Act>,
    /// Who says it.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What comes back: one line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub version: u32,
    /// What became of the request.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Answer {
    /// It is in the journal and holds from now on.
    Taken {
        /// What follows from it.
        message: String,
    },
    /// It stood already; nothing was recorded.
    Stood {
        /// What stands.
        message: String,
    },
    /// It was not taken, and nothing was recorded.
    Refused {
        /// Why.
        message: String,
    },
    /// It could not be dealt with.
    Failed {
        /// Why.
        message: String,
    },
    /// How the run stands.
    Live(Box<Live>),
}

/// What only the driver knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// The driver's process.
    pub pid: u32,
    /// What holds.
    pub control: Control,
    /// The newest progress of every step that is running.
    pub steps: BTreeMap<String, Progress>,
    /// What every guard found last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guards: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controlled(act: Act) -> Controlled {
        Controlled { act, by: "alice".to_owned(), reason: None, from: "user id 1".to_owned() }
    }

    #[test]
    fn each_act_is_taken_back_by_its_own() {
        let mut control = Control::default();
        let guard = |watches| Act::Set { setting: Setting::Guard { guard: "lag".to_owned(), watches } };
        let acts = [
            Act::Pause,
            Act::HoldCutover,
            Act::Throttle { limit: Limit::Rows(1) },
            guard(false),
            Act::Resume,
            Act::Go,
            Act::Unthrottle,
            guard(true),
        ];
        let mut stood = Vec::new();
        for act in acts {
            control.apply(Timestamp::UNIX_EPOCH, &controlled(act));
            stood.push(control.lines().len());
        }
        assert_eq!((stood, control), (vec![1, 2, 3, 4, 3, 2, 1, 0], Control::default()));
    }

    #[test]
    fn what_is_asked_is_one_line_and_reads_back() {
        let request = Request {
            version: VERSION,
            run: "r".into(),
            act: Some(Act::Throttle { limit: Limit::Bytes(5) }),
            by: "a\nb".into(),
            reason: None,
        };
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        let reply = Reply { version: VERSION, answer: Answer::Live(Box::new(Live { pid: 1, ..Live::default() })) };
        assert_eq!(serde_json::from_str::<Reply>(&serde_json::to_string(&reply).unwrap()).unwrap(), reply);
    }
}
