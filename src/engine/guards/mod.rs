//! Guards: conditions that are watched while a run is driven, and what is done when one does not hold any more.
//!
//! A store brings what can be looked at ([`Guard`]); when that counts and what follows from it is decided here, for all alike. Each guard is
//! looked at by a task of its own (`watch`), so that one that hangs keeps neither the driver nor another guard. The looks come to the driver one
//! by one, where [`judge`] makes *fired* and *quiet again* of them; both are in the journal before they have any effect.
//!
//! # When a guard fires
//!
//! When its condition did not hold on any look for as long as `for` says (without it: on one look). It is quiet again when it held on
//! every look for `quiet_for`. So a value that swings around its threshold neither fires at once nor is over at once.
//!
//! *A guard that can't be asked is never taken for a quiet one.* It is said at once, in the journal and in every status; a failed look ends
//! no row of bad ones and breaks a row of good ones; and after `unseen_for` of failed looks it has fired. Where there is nothing to look at yet
//! (the lag of a source that nobody follows) it is neither.
//!
//! # What follows
//!
//! | | `pause` | `stop` | `undo` |
//! | --- | --- | --- | --- |
//! | `prepare`, `sync`, `verify` | nothing new is begun until it is quiet; following goes on | the run ends at its checkpoints, the same command goes on | all that the run made is undone, and the run is over |
//! | before the cutover's first step | it waits | the run ends | the run ends |
//! | in `cutover`, before the switch | the cutover is undone | the same | the same |
//! | from the switch on | it is told; no step of `settle` starts until it is quiet | the same | the same |
//!
//! In the cutover clients may be waiting, so nobody waits there for a value to get better: the source serves again, and what was copied
//! stays. Behind the switch nothing is undone by itself: what clients wrote is on the target. It is told loudly, with `dbmove
//! rollback` where the way back is open; and `settle` waits, so that the way back is not closed over an alarm.
//!
//! *The cutover begins only under guards that are quiet now*: its first step waits until each guard that watches `cutover` has been looked at
//! since everything before was done, and holds; `for` does not excuse it then.
//!
//! A rehearsal is watched as a production run is, on the rehearsal pair; one that is stopped is undone as a whole, as always. A rollback and
//! an undo are not watched: they are the way to safety, and what is wrong with the target must not keep clients there.
//! `dbmove rollback` says so before it begins.
//!
//! # Across drivers
//!
//! A guard that fired and was not quiet again stands in the run's state. The next driver begins with it: a pause by a guard outlives a
//! crash, and ends when the next driver has seen the guard quiet for long enough.

pub mod judge;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch::Receiver;

use super::context::{Outputs, RunKind};
use crate::playbook::model::{GuardAction, GuardSpec};

pub(super) use watch::{Looked, Watching};

/// What a guard gets to look with.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The run.
    pub run: Arc<str>,
    /// Rehearsal or production.
    pub kind: RunKind,
    /// What the run's steps have left behind so far.
    pub outputs: Arc<Outputs>,
    /// Where the run's state is kept.
    pub state_directory: PathBuf,
    /// See [`Sight::closes_connections`].
    pub closing: Receiver<bool>,
}

impl Sight {
    /// True from the cutover's first step that holds writes to the end of the stage: dbmove itself closes connections of clients meanwhile. It
    /// becomes true before the first is closed, so a look that asks behind what it has seen is never taken in by it.
    #[must_use]
    pub fn closes_connections(&self) -> bool {
        *self.closing.borrow()
    }
}

/// What one look found, in words for a person: `following is 42s behind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The condition holds.
    Holds(String),
    /// It does not.
    Fails(String),
    /// There is nothing to look at (yet), and why.
    Nothing(String),
}

/// A look that could not be had, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unseen(pub String);

/// Something that can be looked at again and again. Looking changes nothing.
#[async_trait]
pub trait Guard: Send + Sync {
    /// What a playbook calls it: `mysql.lag`.
    fn name(&self) -> &'static str;
    /// What has to hold, in words: `following is at most 30s behind`.
    fn condition(&self) -> String;
    /// What a person should know of it before the run: what it does not see, what it sends.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
    /// Looks once. It is dropped if it takes too long.
    async fn look(&self, sight: &Sight) -> Result<Look, Unseen>;
}

/// A guard as the registry built it.
#[derive(Clone)]
pub struct BuiltGuard {
    /// As written in the playbook.
    pub spec: GuardSpec,
    /// What looks.
    pub guard: Arc<dyn Guard>,
}

/// What was done about a guard that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing new is begun until it is quiet.
    Paused,
    /// The run ended at its checkpoints.
    Stopped,
    /// The cutover was undone.
    CutoverUndone,
    /// All that the run made was undone.
    Undone,
    /// It was told: clients are on the target.
    Told,
}

/// Where a run is, as far as guards care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Before,
    Entering,
    Cutover,
    Switched,
}

impl Effect {
    /// The table of the module's comment.
    pub(super) fn of(action: GuardAction, place: Place) -> Effect {
        match (place, action) {
            (Place::Before | Place::Entering, GuardAction::Pause) => Effect::Paused,
            (Place::Before | Place::Entering, GuardAction::Stop) | (Place::Entering, GuardAction::Undo) => Effect::Stopped,
            (Place::Before, GuardAction::Undo) => Effect::Undone,
            (Place::Cutover, _) => Effect::CutoverUndone,
            (Place::Switched, _) => Effect::Told,
        }
    }
}

/// What changed about a guard, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// The guard's id.
    pub guard: String,
    /// What changed.
    #[serde(flatten)]
    pub change: Change,
}

/// What changed about a guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// It fired.
    Fired {
        /// What was found.
        found: String,
        /// What is done about it.
        effect: Effect,
        /// True if `dbmove rollback` was open then.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        way_back: bool,
    },
    /// It is quiet again.
    Quiet {
        /// What was found.
        found: String,
    },
    /// It can't be asked any more.
    Unseen {
        /// Why.
        why: String,
    },
    /// It can be asked again.
    Seen {
        /// What was found.
        found: String,
    },
}

/// What stands of one guard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardState {
    /// It fired and was not quiet since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<Fired>,
    /// It can't be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Since>,
}

/// A guard that fired and stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Since when.
    pub at: Timestamp,
    /// What was found.
    pub found: String,
    /// What was done about it.
    pub effect: Effect,
    /// True if `dbmove rollback` was open then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub way_back: bool,
}

/// Something since a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// The moment.
    pub at: Timestamp,
    /// What.
    pub why: String,
}

/// What stands of all guards of a run, by id: part of its state. One that is quiet and can be asked is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Guards(pub BTreeMap<String, GuardState>);

/// What a hook is told of a guard that fired.
pub(super) fn facts(guard: &str, found: &str, effect: Effect) -> serde_json::Value {
    serde_json::json!({ "guard": guard, "found": found, "effect": effect })
}

/// What a server says may have line ends of its own.
fn one_line(found: &str) -> String {
    found.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Guards {
    /// Takes a change in.
    pub fn apply(&mut self, at: Timestamp, guarded: &Guarded) {
        let state = self.0.entry(guarded.guard.clone()).or_default();
        match &guarded.change {
            Change::Fired { found, effect: effect @ (Effect::Paused | Effect::Told), way_back } => {
                state.fired = Some(Fired { at, found: found.clone(), effect: *effect, way_back: *way_back });
            }
            // The run ended by it: the next driver judges anew.
            Change::Fired { .. } | Change::Quiet { .. } => state.fired = None,
            Change::Unseen { why } => state.unseen = Some(Since { at, why: why.clone() }),
            Change::Seen { .. } => state.unseen = None,
        }
        if *state == GuardState::default() {
            self.0.remove(&guarded.guard);
        }
    }

    /// What a hook is told of every guard that stands.
    pub(super) fn standing(&self) -> impl Iterator<Item = serde_json::Value> + '_ {
        let fired = self.0.iter().filter_map(|(guard, state)| Some((guard, state.fired.as_ref()?)));
        fired.map(|(guard, fired)| facts(guard, &fired.found, fired.effect))
    }

    fn fired(&self, effect: Effect) -> impl Iterator<Item = (&String, &Fired)> {
        self.0.iter().filter_map(|(guard, state)| Some((guard, state.fired.as_ref()?))).filter(move |(_, fired)| fired.effect == effect)
    }

    /// Why nothing new is begun, if so.
    #[must_use]
    pub fn pause(&self) -> Option<String> {
        self.fired(Effect::Paused).next().map(|(guard, fired)| format!("paused by guard `{guard}`: {}", fired.found))
    }

    /// Why no step of `settle` is begun, if so.
    #[must_use]
    pub fn holds_settle(&self) -> Option<String> {
        self.fired(Effect::Told).next().map(|(guard, fired)| format!("`settle` waits for guard `{guard}`: {}", fired.found))
    }

    /// Everything that stands, a few lines each: what `status` shows. `rollback` is the command that points clients back.
    #[must_use]
    pub fn lines(&self, rollback: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for (guard, fired) in self.fired(Effect::Paused) {
            lines.push(format!(
                "PAUSED by guard `{guard}` since {:.0}\n{}\nit goes on by itself when the guard has been quiet for long enough",
                fired.at,
                one_line(&fired.found)
            ));
        }
        for (guard, fired) in self.fired(Effect::Told) {
            let back = if fired.way_back {
                format!("`{rollback}` points clients back to the source")
            } else {
                "there is no way back but by hand".to_owned()
            };
            lines.push(format!(
                "GUARD `{guard}` FIRED at {:.0}\n{}\nclients are on the target, so nothing is undone by it\n{back}",
                fired.at,
                one_line(&fired.found)
            ));
        }
        for (guard, state) in &self.0 {
            if let Some(unseen) = &state.unseen {
                lines.push(format!("guard `{guard}` CAN'T BE ASKED since {:.0}\n{}", unseen.at, one_line(&unseen.why)));
            }
        }
        lines
    }
}
