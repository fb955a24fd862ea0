//! Hooks: commands and calls of the operator's at named moments of a run.
//!
//! # Two kinds of moment
//!
//! **`before-run`, `before-cutover`, `before-switch`** are questions: the run waits for each hook, in the order written, and one that fails ends
//! it: nothing is begun behind a no. Meanwhile clocks, guards and people are heard as ever, so a deadline, an abort or a guard calls the hook off.
//! At `before-switch` writes are held: a hook there has at most half of what `max_write_gap` leaves, and a no undoes the cutover.
//!
//! **All others** are told. Each hook hears of them in their order, one call after the other. They run beside the run, which waits for them only at its very end, and what fails there is said loudly and
//! changes nothing: clients are not kept waiting for a chat that is down, and behind the switch nothing is undone by a hook.
//!
//! | moment | when |
//! | --- | --- |
//! | `before-run` | a driver is about to begin or go on |
//! | `before-cutover` | all before it is done, guards are quiet; nothing of the cutover has begun |
//! | `before-switch` | writes are held, and the point of no return is next |
//! | `after-switch` | the point of no return is passed; the rest of the cutover goes on beside |
//! | `on-guard` | a guard fired |
//! | `on-pause` | the run is paused, by a person or a guard |
//! | `on-undo` | what was to be undone is, or could not be |
//! | `on-waiting` | the run ended at a gate: a person has to say yes |
//! | `on-failure` | the run ended without having done what it was asked to; what had to be undone is |
//! | `on-success` | all that was asked for is done |
//!
//! # At least once
//!
//! A call is in the journal before it is made and after it has ended, with the facts it was given. A driver that finds a call begun and not ended makes it
//! again, and so it does for a guard or a pause that stands when it begins, and for a switch that nobody was told of. So a crash can
//! make a hook run twice, and not leave it out; questions are asked anew by every driver that comes by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Outputs;
use super::driver::{Driver, Stop};
use super::journal::{Event, JournalError, RunState};
use super::outcome::Verdict;
use super::step::StepError;
use crate::playbook::model::{HookSpec, Moment};

/// One call of a hook.
#[derive(Clone)]
pub struct HookCall {
    /// What it is told: a JSON object of texts, numbers and truths.
    pub facts: Map<String, Value>,
    /// What the run's steps have left behind so far, for references.
    pub outputs: Arc<Outputs>,
    /// How long it may take.
    pub limit: Duration,
    /// Cancelled when nobody waits for it any more.
    pub cancel: CancellationToken,
}

/// What is called.
#[async_trait]
pub trait Hook: Send + Sync {
    /// For a person: the command, the address.
    fn shown(&self) -> String;
    /// How long it may take at most.
    fn limit(&self) -> Duration;
    /// Calls it.
    async fn call(&self, call: &HookCall) -> Result<(), StepError>;
}

/// A hook as the registry built it.
#[derive(Clone)]
pub struct BuiltHook {
    /// As written in the playbook.
    pub spec: HookSpec,
    /// What is called.
    pub hook: Arc<dyn Hook>,
}

/// What became of a call, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hooked {
    /// The hook's id.
    pub hook: String,
    /// The moment.
    pub moment: Moment,
    /// What became of it.
    #[serde(flatten)]
    pub change: HookChange,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum HookChange {
    /// It is about to be made.
    Begun {
        /// What it is told.
        facts: Map<String, Value>,
    },
    /// It ended well.
    Done {
        /// How long it took.
        seconds: f64,
    },
    /// It did not.
    Failed {
        /// How long it took.
        seconds: f64,
        /// Why.
        error: String,
    },
}

/// What stands of hooks: part of a run's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// Calls that were begun and have not ended: hook and moment with the facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    open: BTreeMap<String, (String, Moment, Map<String, Value>)>,
    /// Hooks that were told of the switch.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    of_the_switch: BTreeSet<String>,
}

impl Calls {
    /// Takes a change in.
    pub fn apply(&mut self, hooked: &Hooked) {
        let key = format!("{}@{}", hooked.hook, hooked.moment.as_str());
        match &hooked.change {
            HookChange::Begun { facts } => {
                if hooked.moment == Moment::AfterSwitch {
                    self.of_the_switch.insert(hooked.hook.clone());
                }
                self.open.insert(key, (hooked.hook.clone(), hooked.moment, facts.clone()));
            }
            HookChange::Done { .. } | HookChange::Failed { .. } => drop(self.open.remove(&key)),
        }
    }
}

/// A call's place among those of its hook.
struct Turn {
    /// Cancelled when the call before it has ended.
    before: Option<CancellationToken>,
    /// Ends this one's turn when dropped, however the call ends.
    _ended: tokio_util::sync::DropGuard,
}

/// A call that has ended.
pub(super) struct Told {
    hook: String,
    moment: Moment,
    began: Instant,
    result: Result<(), StepError>,
}

impl Driver {
    fn hooks_at(&self, moment: Moment) -> Vec<BuiltHook> {
        self.request.hooks.iter().filter(|built| built.spec.at.contains(&moment)).cloned().collect()
    }

    fn facts(&self, built: &BuiltHook, moment: Moment, more: Value) -> Map<String, Value> {
        let state = self.journal.state();
        let facts = json!({
            "moment": moment.as_str(),
            "hook": built.spec.id,
            "run": state.run,
            "playbook": state.playbook,
            "kind": self.request.kind,
            "epoch": self.journal.epoch().0,
            "serving": state.serving(),
        });
        let mut all = Map::new();
        for value in [facts, more] {
            if let Value::Object(fields) = value {
                all.extend(fields);
            }
        }
        all
    }

    async fn journal_hook(&self, hook: &str, moment: Moment, change: HookChange) -> Result<(), JournalError> {
        self.journal.append(Event::Hook(Hooked { hook: hook.to_owned(), moment, change })).await.map(drop)
    }

    /// Begins a call in a task.
    async fn begin_call(
        &self,
        tasks: &mut JoinSet<Told>,
        built: BuiltHook,
        moment: Moment,
        facts: Map<String, Value>,
        limit: Duration,
        turn: Option<Turn>,
    ) -> Result<CancellationToken, JournalError> {
        self.journal_hook(&built.spec.id, moment, HookChange::Begun { facts: facts.clone() }).await?;
        super::crash::point("hook.begun");
        let cancel = self.heartbeat.lost.child_token();
        let call = HookCall { facts, outputs: self.outputs(), limit: limit.min(built.hook.limit()), cancel: cancel.clone() };
        let nudge = self.nudge.clone();
        tasks.spawn(async move {
            if let Some(Some(before)) = turn.as_ref().map(|turn| turn.before.clone()) {
                before.cancelled().await;
            }
            let began = Instant::now();
            let result = built.hook.call(&call).await;
            drop(turn);
            nudge.notify_one();
            Told { hook: built.spec.id, moment, began, result }
        });
        Ok(cancel)
    }

    async fn end_call(&self, told: &Told) -> Result<(), JournalError> {
        let seconds = told.began.elapsed().as_secs_f64();
        let change = match &told.result {
            Ok(()) => HookChange::Done { seconds },
            Err(error) => HookChange::Failed { seconds, error: error.message.clone() },
        };
        self.journal_hook(&told.hook, told.moment, change).await?;
        super::crash::point("hook.ended");
        Ok(())
    }

    /// Asks every hook of a moment, one after the other, while all else is heard.
    pub(super) async fn ask_hooks(&mut self, moment: Moment, more: Value) -> Result<(), Stop> {
        for built in self.hooks_at(moment) {
            let facts = self.facts(&built, moment, more.clone());
            let limit = match (moment, self.write_gap) {
                (Moment::BeforeSwitch, Some(held)) => self.request.max_write_gap.saturating_sub(held.elapsed()) / 2,
                (Moment::BeforeSwitch, None) => self.request.max_write_gap / 2,
                _ => Duration::MAX,
            };
            let mut tasks = JoinSet::new();
            let cancel = self.begin_call(&mut tasks, built.clone(), moment, facts, limit, None).await?;
            let told = loop {
                if let Some(ended) = tasks.try_join_next() {
                    break ended.unwrap_or_else(|_| Told {
                        hook: built.spec.id.clone(),
                        moment,
                        began: Instant::now(),
                        result: Err(StepError::definite("the call broke off (a defect in dbmove)")),
                    });
                }
                if let Err(stop) = self.wait().await {
                    cancel.cancel();
                    // It was told to stop; what it does then is waited for, so that it does not act beside the undo.
                    let _ = tokio::time::timeout(self.request.limits.stop_grace, tasks.join_next()).await;
                    return Err(stop);
                }
            };
            self.end_call(&told).await?;
            if let Err(error) = told.result {
                let reason = format!("hook `{}` at `{}` said no: {}", built.spec.id, moment.as_str(), error.message);
                let hint = error.hint.unwrap_or_else(|| "see why, then give the same command again".to_owned());
                return Err(Stop::Verdict(Verdict::Refused { step: None, reasons: vec![reason], hint: Some(hint) }));
            }
        }
        Ok(())
    }

    /// Tells every hook of a moment, beside the run.
    pub(super) async fn tell_hooks(&mut self, moment: Moment, more: Value) -> Result<(), JournalError> {
        for built in self.hooks_at(moment) {
            let facts = self.facts(&built, moment, more.clone());
            self.tell(built, moment, facts).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, built: BuiltHook, moment: Moment, facts: Map<String, Value>) -> Result<(), JournalError> {
        let mut telling = std::mem::take(&mut self.telling);
        let ended = CancellationToken::new();
        let before = self.turns.insert(built.spec.id.clone(), ended.clone());
        let turn = Some(Turn { before, _ended: ended.drop_guard() });
        let begun = self.begin_call(&mut telling, built, moment, facts, Duration::MAX, turn).await;
        self.telling = telling;
        begun.map(drop)
    }

    /// What an earlier driver left untold, or what stands when this one begins.
    pub(super) async fn tell_what_stands(&mut self) -> Result<(), JournalError> {
        let state = self.journal.state();
        let mut untold = Vec::new();
        for (hook, moment, facts) in state.calls.open.values() {
            if let Some(built) = self.hooks_at(*moment).into_iter().find(|built| built.spec.id == *hook && !moment.is_question()) {
                untold.push((built, *moment, facts.clone()));
            }
        }
        let again = |untold: &[(BuiltHook, Moment, Map<String, Value>)], built: &BuiltHook, moment: Moment| {
            untold.iter().any(|(other, at, _)| other.spec.id == built.spec.id && *at == moment)
        };
        if state.switched() {
            for built in self.hooks_at(Moment::AfterSwitch) {
                if !state.calls.of_the_switch.contains(&built.spec.id) {
                    let facts = self.facts(&built, Moment::AfterSwitch, json!({}));
                    untold.push((built, Moment::AfterSwitch, facts));
                }
            }
        }
        let guards = state.guards.standing();
        for (moment, more) in guards.map(|fired| (Moment::OnGuard, fired)).chain(pause_facts(&state).map(|pause| (Moment::OnPause, pause)))
        {
            for built in self.hooks_at(moment) {
                if !again(&untold, &built, moment) {
                    let facts = self.facts(&built, moment, more.clone());
                    untold.push((built, moment, facts));
                }
            }
        }
        for (built, moment, facts) in untold {
            self.tell(built, moment, facts).await?;
        }
        Ok(())
    }

    /// Takes note of a call that ended beside the run.
    pub(super) async fn hook_told(&mut self, told: Told) -> Result<(), JournalError> {
        self.end_call(&told).await
    }

    /// Tells how the run ended, and waits for all that is still being told.
    pub(super) async fn tell_end(&mut self, verdict: &Verdict) -> Result<(), JournalError> {
        let moment = match verdict {
            Verdict::Done { .. } => Some(Moment::OnSuccess),
            Verdict::WaitingForApproval { .. } => Some(Moment::OnWaiting),
            Verdict::Failed { .. }
            | Verdict::Differences { .. }
            | Verdict::Refused { .. }
            | Verdict::DeadlineMissed { .. }
            | Verdict::WriteGapExceeded { .. }
            | Verdict::StoppedByGuard { .. } => Some(Moment::OnFailure),
            Verdict::HandedOver { .. }
            | Verdict::Interrupted
            | Verdict::Aborted { .. }
            | Verdict::Undone
            | Verdict::RolledBack
            | Verdict::LeaseLost { .. } => None,
        };
        if let Some(moment) = moment {
            let more = json!({ "verdict": verdict.to_string(), "exit_code": verdict.exit_code().code(), "hint": verdict.hint() });
            self.tell_hooks(moment, more).await?;
        }
        while let Some(ended) = self.telling.join_next().await {
            if let Ok(told) = ended {
                self.hook_told(told).await?;
            }
        }
        Ok(())
    }
}

/// What is said of a pause that stands.
pub(super) fn pause_facts(state: &RunState) -> Option<Value> {
    state.pause().map(|why| json!({ "why": why }))
}
