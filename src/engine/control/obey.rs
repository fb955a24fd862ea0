//! The driver's side: whether an act may be taken now, and what follows from it.

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::setting::{Setting, gap};
use super::{Act, Answer, Controlled};
use crate::engine::budget::Budget;
use crate::engine::driver::{Driver, Stop};
use crate::engine::journal::{Event, JournalError, RunState, UndoScope};
use crate::engine::moments::pause_facts;
use crate::engine::outcome::Verdict;
use crate::engine::steering::Steered;
use crate::playbook::model::{Moment, StageName};

/// An act that waits for the driver.
pub(in crate::engine) struct Asked {
    pub controlled: Controlled,
    pub answer: oneshot::Sender<Answer>,
}

impl Driver {
    /// Takes an act, or refuses it.
    pub(in crate::engine) async fn obey(&mut self, asked: Asked) -> Result<(), Stop> {
        let Asked { mut controlled, answer } = asked;
        // Withdrawn: whoever asked was told that nobody came.
        if answer.is_closed() {
            return Ok(());
        }
        let act = controlled.act.clone();
        let refusal = match self.stands(&act) {
            Some(stands) => Some(stands),
            None => self.refuses(&controlled).await.map(|message| Answer::Refused { message }),
        };
        if let Some(refusal) = refusal {
            let _ = answer.send(refusal);
            return Ok(());
        }
        match &mut controlled.act {
            Act::Set { setting: Setting::Deadline { instead_of, .. } } => {
                *instead_of = self.request.deadline.as_ref().map(|deadline| deadline.text.clone());
            }
            Act::Set { setting: Setting::MaxWriteGap { instead_of, .. } } => {
                let limit = self.request.max_write_gap;
                // One that was set before took the place of the driver's own already.
                let own = self.journal.with_state(|state| match state.control.max_write_gap() {
                    Some(set) if set == limit => state.control.write_gap_stands_for(),
                    _ => Some(limit),
                });
                *instead_of = own.and_then(|own| u64::try_from(own.as_millis()).ok());
            }
            _ => {}
        }
        self.journal.append(Event::Controlled(controlled.clone())).await?;
        if let Act::Set { setting } = &act {
            self.set(setting, &controlled.by).await?;
        }
        self.steer();
        let _ = answer.send(Answer::Taken { message: self.consequence(&act) });
        if act == Act::Pause {
            let why = self.journal.with_state(pause_facts);
            self.tell_hooks(Moment::OnPause, why.unwrap_or_default()).await?;
        }
        if act == Act::Abort {
            let Controlled { by, reason, .. } = controlled;
            return Err(Stop::Verdict(Verdict::Aborted { by, reason }));
        }
        Ok(())
    }

    /// Goes by another value.
    async fn set(&mut self, setting: &Setting, by: &str) -> Result<(), JournalError> {
        match setting {
            Setting::Deadline { text, until, .. } => {
                self.journal.append(Event::DeadlineSet { text: text.clone(), until: *until }).await?;
                self.budget = Some(Budget::start(*until, Timestamp::now()));
                let forecast = self.forecast();
                self.observer.forecast(&forecast);
                self.journal.append(Event::Forecast { forecast }).await?;
            }
            Setting::MaxWriteGap { milliseconds, .. } => self.request.max_write_gap = gap(*milliseconds).0,
            Setting::Guard { guard, watches: false } => self.switch_guard_off(guard, by).await?,
            Setting::Guard { guard, watches: true } => self.switch_guard_on(guard),
        }
        Ok(())
    }

    /// Tells the steps what holds.
    pub(in crate::engine) fn steer(&self) {
        self.steer.say(self.journal.with_state(|state| Steered { paused: state.pause(), ..state.control.steered() }));
    }

    /// Why nothing new may be begun, if so.
    pub(in crate::engine) fn paused(&self) -> Option<String> {
        self.journal.with_state(RunState::pause)
    }

    /// Writes are held, or the switch is under way: nobody may make clients wait longer.
    pub(in crate::engine) fn keeps_clients_waiting(&self) -> bool {
        self.write_gap.is_some() || self.is_switching()
    }

    /// True if the cutover waits for a person's `go`.
    pub(in crate::engine) fn cutover_held(&self) -> bool {
        self.journal.with_state(|state| state.control.held.is_some() && !begun(state))
    }

    fn stands(&self, act: &Act) -> Option<Answer> {
        let control = self.journal.with_state(|state| state.control.clone());
        let message = match act {
            Act::Pause => control.paused.as_ref().map(|pause| format!("the run is paused already, {}", pause.by()))?,
            Act::Resume if control.paused.is_none() => match self.journal.with_state(|state| state.guards.pause()) {
                Some(guard) => format!("no person has paused the run; it is {guard}, and goes on by itself when that is quiet"),
                None => "the run is not paused".to_owned(),
            },
            Act::Throttle { .. } => {
                let same = control.throttled.as_ref().filter(|standing| standing.controlled.act == *act)?;
                format!("copying is throttled so already, {}", same.by())
            }
            Act::Unthrottle if control.throttled.is_none() => "copying is not throttled".to_owned(),
            Act::HoldCutover => control.held.as_ref().map(|hold| format!("the cutover is held already, {}", hold.by()))?,
            Act::Go if control.held.is_none() => "the cutover is not held".to_owned(),
            Act::Set { setting: Setting::MaxWriteGap { milliseconds, .. } } if gap(*milliseconds).0 == self.request.max_write_gap => {
                format!("`max_write_gap` is {} already", gap(*milliseconds))
            }
            Act::Set { setting: Setting::Guard { guard, watches: false } } => {
                control.guards_off.get(guard).map(|off| format!("guard `{guard}` is off already, {}", off.by()))?
            }
            Act::Set { setting: Setting::Guard { guard, watches: true } }
                if self.has_guard(guard) && !control.guards_off.contains_key(guard) =>
            {
                format!("guard `{guard}` is on")
            }
            _ => return None,
        };
        Some(Answer::Stood { message: format!("{message}; nothing was recorded") })
    }

    async fn refuses(&mut self, controlled: &Controlled) -> Option<String> {
        let why = match &controlled.act {
            Act::Pause if self.is_switching() => "clients are being switched, and a pause would keep them waiting",
            Act::Pause if self.keeps_clients_waiting() && self.may_call_rollback_off() => {
                "writes are held for the rollback, and a pause would keep clients waiting for a person; `abort` calls it off"
            }
            Act::Pause if self.keeps_clients_waiting() => {
                "writes are held, and a pause would keep clients waiting for a person; `abort` undoes the cutover"
            }
            Act::HoldCutover if self.journal.with_state(begun) => "the cutover has begun; `pause` or `abort` say what it is to do",
            Act::HoldCutover if self.graph.stage(StageName::Cutover).is_empty() => "this playbook has no cutover",
            Act::Abort if self.is_switching() => {
                "the point of no return is reached, and the cutover is brought to its end: half of it is worse than all"
            }
            Act::Set { setting: Setting::Deadline { .. } } if self.is_switching() => {
                "clients are being switched, and no deadline undoes that"
            }
            Act::Set { setting: Setting::Deadline { until, .. } } => {
                return self.misses(*until).await.map(|why| format!("{why}; nothing was changed. `abort` ends the run"));
            }
            Act::Set { setting: Setting::MaxWriteGap { .. } } if self.keeps_clients_waiting() => {
                "writes are held, and the source's watchdog was set by the limit there is"
            }
            Act::Set { setting: Setting::MaxWriteGap { milliseconds, .. } } => {
                return self.refuses_write_gap(gap(*milliseconds).0).map(|why| format!("{why}; nothing was changed"));
            }
            Act::Set { setting: Setting::Guard { guard, .. } } if !self.has_guard(guard) => {
                return Some(format!("the playbook has no guard `{guard}`; nothing was changed"));
            }
            Act::Set { setting: Setting::Guard { watches: false, .. } } if controlled.reason.is_none() => {
                "nobody looks any more when a guard is off: say why, with `--reason`"
            }
            _ => return None,
        };
        Some(format!("{why}; nothing was changed"))
    }

    /// Why a deadline can't be kept, if so. Without one nothing was estimated so far.
    async fn misses(&mut self, until: Timestamp) -> Option<String> {
        if self.budget.is_none() {
            self.expect(true).await;
        }
        let kept = self.budget.replace(Budget::start(until, Timestamp::now()));
        let forecast = self.forecast();
        self.budget = kept;
        let behind = self.journal.with_state(RunState::switched) || !self.more_to_do_besides_following();
        forecast.refusal().filter(|_| !behind)
    }

    fn consequence(&self, act: &Act) -> String {
        let state = self.journal.state();
        match act {
            Act::Pause => "no new step starts, and no new chunk is copied or compared; following goes on. `resume` lifts it".to_owned(),
            Act::Resume => "the run goes on".to_owned(),
            Act::Throttle { limit } => {
                format!("copying reads at most {limit}, on average, from the next chunk on; `throttle off` lifts it")
            }
            Act::Unthrottle => "copying goes as fast as it can".to_owned(),
            Act::HoldCutover => "the cutover's first step waits for `go`; following goes on".to_owned(),
            Act::Go if self.request.until >= StageName::Cutover => "the cutover begins as soon as what comes before it is done".to_owned(),
            Act::Go => "the cutover is not held any more; `dbmove cutover PLAYBOOK` begins it".to_owned(),
            Act::Abort if self.in_cutover() && !state.switched() => "the cutover is undone, and the run ends; the source serves".to_owned(),
            Act::Abort if self.may_call_rollback_off() => {
                "the rollback is called off; clients stay on the target and write there".to_owned()
            }
            Act::Abort => "the run ends at its checkpoints".to_owned(),
            Act::Set { setting: Setting::Deadline { until, .. } } => format!("everything is done or undone by {until:.0}"),
            Act::Set { setting: Setting::MaxWriteGap { milliseconds, .. } } => {
                format!("a cutover that holds writes for longer than {} is undone", gap(*milliseconds))
            }
            Act::Set { setting: Setting::Guard { guard, watches: false } } => {
                format!("guard `{guard}` neither pauses nor stops anything, and keeps no cutover back, until it is `on` again")
            }
            Act::Set { setting: Setting::Guard { guard, .. } } => format!("guard `{guard}` is watched again"),
        }
    }
}

/// A step of the cutover was started, and is not undone. One that only asked a person has begun nothing.
fn begun(state: &RunState) -> bool {
    state.switched() || state.stage_done(StageName::Cutover) || !state.begun_in(UndoScope::Stage { stage: StageName::Cutover }).is_empty()
}
