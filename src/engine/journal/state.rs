//! Where a run stands: a fold over its events, and nothing else.
//!
//! `status`, `report` and a resumed driver all call [`RunState::fold`], so what a person is shown is what the engine acts on. An
//! event that this build doesn't know changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{Action, AfterUndo, Event, PlannedStep, RecordedError, RecordedEvent, StepResult, UndoScope};
use crate::engine::approval::Given;
use crate::engine::certificate::Certificate;
use crate::engine::context::RunKind;
use crate::engine::control::Control;
use crate::engine::deadline::KeptDeadline;
use crate::engine::drift::PlaybookFingerprint;
use crate::engine::guards::Guards;
use crate::engine::load::LoadReport;
use crate::engine::moments::Calls;
use crate::engine::outcome::{Serving, Verdict};
use crate::engine::step::{Epoch, Failure, Output};
use crate::playbook::model::StageName;

/// Where a step stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Not begun, or undone since.
    #[default]
    NotBegun,
    /// An intent without an outcome: running, or left behind by a crash.
    Running,
    /// Its end state stands.
    Done,
    /// Stopped on request.
    Stopped,
    /// Failed.
    Failed {
        /// Why.
        error: RecordedError,
    },
    /// Its undo has begun.
    Undoing,
    /// Its undo failed.
    UndoFailed {
        /// Why.
        error: RecordedError,
    },
}

/// One step of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// Where it stands.
    pub phase: Phase,
    /// The last attempt's number; 0 if there was none.
    pub attempt: u32,
    /// True if its last outcome was settled by looking at the world: its `run` did not come to tell it.
    #[serde(default)]
    pub settled: bool,
    /// The number of the event that began it (since it was last undone): the order for undo.
    pub begun: u64,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When it became ready (services).
    pub ready: Option<Timestamp>,
    /// Seconds of work: a task's last attempt, a service's way to ready.
    pub seconds: Option<f64>,
    /// Seconds its undo took.
    pub undo_seconds: Option<f64>,
    /// How often it was retried.
    pub retries: u32,
    /// What it left behind.
    pub output: Option<Output>,
}

impl StepState {
    /// True if it waits for a person: it was asked to run and has touched nothing.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(&self.phase, Phase::Failed { error } if error.failure == Failure::Waiting)
    }

    /// True if there may be traces of it.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.phase != Phase::NotBegun && !self.is_waiting()
    }
}

/// One stage of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageState {
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it was done.
    pub done: Option<Timestamp>,
}

/// An undo that has not led to its verdict yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndoState {
    /// Why.
    pub why: String,
    /// How far back.
    pub scope: UndoScope,
    /// What follows.
    pub then: AfterUndo,
    /// When it began.
    pub started: Timestamp,
    /// True if it came to its end without a failure.
    pub finished: bool,
    /// True if a driver ended with its verdict.
    pub told: bool,
}

/// How long writes are or were held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriteGap {
    /// The step that began to hold them.
    pub step: String,
    /// When.
    pub started: Timestamp,
    /// How long they may be held, in seconds.
    pub limit_seconds: f64,
    /// How long they were, in seconds; `None` while they are.
    pub seconds: Option<f64>,
    /// True if the switch was done.
    pub switched: bool,
}

/// Clients on their way back to the source, behind the switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// When it began.
    pub started: Timestamp,
    /// When clients were pointed back; `None` if they were not, or not yet.
    pub ended: Option<Timestamp>,
    /// How long writes on the target were held; `None` before that.
    pub write_gap: Option<WriteGap>,
}

impl Rollback {
    /// From its beginning until clients were pointed back, in seconds.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        self.ended.map(|ended| ended.duration_since(self.started).as_secs_f64().max(0.0))
    }
}

/// How the last driver ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// How.
    pub verdict: Verdict,
    /// Who serves.
    pub serving: Serving,
    /// True if the run is over for good.
    pub concluded: bool,
    /// When.
    pub at: Timestamp,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The run's id.
    pub run: String,
    /// The playbook's name.
    pub playbook: String,
    /// Where it was read from when the run began, if that is known.
    pub playbook_file: Option<PathBuf>,
    /// Rehearsal or production.
    pub kind: RunKind,
    /// The playbook's hashes, as last accepted.
    pub fingerprint: PlaybookFingerprint,
    /// All steps in order.
    pub plan: Vec<PlannedStep>,
    /// The steps by id, those that have at least one event.
    pub steps: BTreeMap<String, StepState>,
    /// The stages that have at least begun.
    pub stages: BTreeMap<StageName, StageState>,
    /// When it started.
    pub started: Timestamp,
    /// When its last event was written.
    pub last: Timestamp,
    /// The last driver's epoch.
    pub epoch: Option<Epoch>,
    /// The deadline that it was given last, until nobody can mean it any more.
    pub deadline: Option<KeptDeadline>,
    /// An undo under way, or not yet followed by its verdict.
    pub undo: Option<UndoState>,
    /// The newest rollback, if one has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Steps whose undo failed, each with why.
    pub not_undone: BTreeMap<String, String>,
    /// The newest write gap of a cutover.
    pub write_gap: Option<WriteGap>,
    /// The load that the rehearsal was under last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadReport>,
    /// The options with which it was asked for a load last, as a shell takes them; empty if it was not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub load_options: String,
    /// What a passed rehearsal left behind.
    pub certificate: Option<Certificate>,
    /// Why there was no rehearsal.
    pub without_rehearsal: Option<String>,
    /// True if that is the last word: no cutover has begun on a certificate since.
    #[serde(default)]
    pub unrehearsed: bool,
    /// What people have said yes to, in order; a driver's own copy lacks what others wrote since it began.
    pub approvals: Vec<Given>,
    /// What people have told it that still stands.
    #[serde(default)]
    pub control: Control,
    /// What stands of its guards.
    #[serde(default)]
    pub guards: Guards,
    /// What stands of its hooks.
    #[serde(default)]
    pub calls: Calls,
    /// How the last driver ended; `None` while one drives, or after a crash.
    pub finished: Option<Finished>,
}

impl RunState {
    /// The state after these events of one run; `None` if they don't begin with `run_started`.
    #[must_use]
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a RecordedEvent>) -> Option<RunState> {
        let mut events = events.into_iter();
        let first = events.next()?;
        let Event::RunStarted(started) = &first.event else { return None };
        let mut state = RunState {
            run: first.run.clone(),
            playbook: started.playbook.clone(),
            playbook_file: started.playbook_file.clone(),
            kind: started.kind,
            fingerprint: started.fingerprint.clone(),
            plan: started.steps.clone(),
            steps: BTreeMap::new(),
            stages: BTreeMap::new(),
            started: first.at,
            last: first.at,
            epoch: None,
            deadline: None,
            undo: None,
            rollback: None,
            not_undone: BTreeMap::new(),
            write_gap: None,
            load: None,
            load_options: String::new(),
            certificate: None,
            without_rehearsal: None,
            unrehearsed: false,
            approvals: Vec::new(),
            control: Control::default(),
            guards: Guards::default(),
            calls: Calls::default(),
            finished: None,
        };
        for event in events {
            state.apply(event);
        }
        Some(state)
    }

    /// Takes one more event in.
    pub fn apply(&mut self, recorded: &RecordedEvent) {
        self.last = recorded.at;
        let at = recorded.at;
        match &recorded.event {
            Event::RunStarted(_) | Event::Probed { .. } | Event::Forecast { .. } | Event::Note { .. } | Event::Unknown => {}
            Event::LoadAsked { options } => self.load_options.clone_from(options),
            Event::LoadStarted { asked } => {
                self.load = None;
                if self.load_options.is_empty() {
                    // A journal of an older build has no more of it.
                    self.load_options = format!("--load {asked}");
                }
            }
            Event::LoadEnded { load } => self.load = Some((**load).clone()),
            Event::LeaseReleased { .. } | Event::PointOfNoReturn { .. } => {}
            // An earlier try may have begun without.
            Event::CertificateAccepted { .. } => self.unrehearsed = false,
            Event::RunResumed { until, .. } => {
                self.finished = None;
                if let Some(deadline) = &mut self.deadline {
                    deadline.entered(*until >= StageName::Cutover);
                }
            }
            Event::LeaseTaken { epoch, .. } => self.epoch = Some(*epoch),
            Event::StageStarted { stage } => {
                self.stages.insert(*stage, StageState { started: Some(at), done: None });
                // One that ended before says nothing of what comes now.
                self.load = None;
                // A stage only starts when the undo before it has had its say.
                self.undo = None;
            }
            Event::StageDone { stage } => self.stages.entry(*stage).or_default().done = Some(at),
            Event::Intent { step, attempt, action, .. } => self.intent(step, *attempt, *action, recorded),
            Event::Outcome { step, attempt, action, result, seconds, settled } => {
                self.outcome(step, *attempt, *action, result, *seconds, at);
                self.steps.entry(step.clone()).or_default().settled = *settled;
            }
            Event::Ready { step, seconds } => {
                let step = self.steps.entry(step.clone()).or_default();
                step.ready = Some(at);
                step.seconds = Some(*seconds);
            }
            Event::Retry { step, .. } => self.steps.entry(step.clone()).or_default().retries += 1,
            Event::PlaybookAccepted { fingerprint, steps, .. } => {
                self.fingerprint = fingerprint.clone();
                self.plan.clone_from(steps);
            }
            Event::Approved(approval) => self.approvals.push(Given { at, approval: approval.clone() }),
            Event::Controlled(controlled) => self.control.apply(at, controlled),
            Event::Guard(guarded) => self.guards.apply(at, guarded),
            Event::Hook(hooked) => self.calls.apply(hooked),
            Event::WithoutRehearsal { reason } => {
                self.without_rehearsal = Some(reason.clone());
                self.unrehearsed = true;
            }
            Event::CertificateIssued { certificate } => self.certificate = Some((**certificate).clone()),
            Event::DeadlineSet { text, until } => {
                let mut deadline = KeptDeadline::given(text, *until, at);
                if self.control.deadline_is(text, *until) {
                    // A person told it to a driver at work.
                    deadline.worked();
                } else {
                    self.control.deadline = None;
                }
                self.deadline = Some(deadline);
            }
            Event::WriteGapStarted { step, limit_seconds } => {
                let gap = WriteGap { step: step.clone(), started: at, limit_seconds: *limit_seconds, seconds: None, switched: false };
                match &mut self.rollback {
                    Some(rollback) if rollback.ended.is_none() => rollback.write_gap = Some(gap),
                    _ => self.write_gap = Some(gap),
                }
            }
            Event::WriteGapEnded { seconds, switched } => {
                let of_rollback = self.rollback.as_mut().and_then(|rollback| rollback.write_gap.as_mut());
                let open = [of_rollback, self.write_gap.as_mut()].into_iter().flatten().find(|gap| gap.seconds.is_none());
                if let Some(gap) = open {
                    (gap.seconds, gap.switched) = (Some(*seconds), *switched);
                }
            }
            Event::RollbackStarted => self.rollback = Some(Rollback { started: at, ended: None, write_gap: None }),
            Event::UndoStarted { why, scope, then } => {
                self.undo =
                    Some(UndoState { why: why.clone(), scope: *scope, then: then.clone(), started: at, finished: false, told: false });
            }
            Event::UndoFinished { failed, .. } => {
                self.not_undone.clone_from(failed);
                let scope = self.undo.as_ref().map(|undo| undo.scope);
                if let Some(undo) = &mut self.undo {
                    undo.finished = failed.is_empty();
                    if undo.finished && undo.then.is_rollback() {
                        // A journal of an older build does not say when it began.
                        let begun = Rollback { started: undo.started, ended: None, write_gap: None };
                        self.rollback.get_or_insert(begun).ended = Some(at);
                    }
                }
                match scope {
                    Some(UndoScope::Stage { stage }) if failed.is_empty() => {
                        self.stages.remove(&stage);
                    }
                    Some(UndoScope::Everything) if failed.is_empty() => self.stages.clear(),
                    _ => {}
                }
            }
            Event::RunFinished { verdict, serving, concluded } => {
                self.finished = Some(Finished { verdict: verdict.clone(), serving: *serving, concluded: *concluded, at });
                if let Some(undo) = &mut self.undo {
                    undo.told = true;
                    if undo.finished {
                        self.undo = None;
                    }
                }
                let bounds_nothing = *concluded || self.switched() || self.rolled_back();
                self.deadline = self.deadline.take().filter(|_| !bounds_nothing).and_then(|mut kept| kept.ended().then_some(kept));
            }
        }
    }

    fn intent(&mut self, step: &str, attempt: u32, action: Action, recorded: &RecordedEvent) {
        let step = self.steps.entry(step.to_owned()).or_default();
        match action {
            Action::Run => {
                if let Some(deadline) = &mut self.deadline {
                    deadline.worked();
                }
                if !step.is_begun() {
                    step.begun = recorded.sequence;
                }
                step.phase = Phase::Running;
                step.attempt = attempt;
                step.started = Some(recorded.at);
                (step.ended, step.ready) = (None, None);
            }
            Action::Undo => step.phase = Phase::Undoing,
        }
    }

    fn outcome(&mut self, id: &str, attempt: u32, action: Action, result: &StepResult, seconds: f64, at: Timestamp) {
        let service = self.plan.iter().any(|planned| planned.id == id && planned.service);
        let step = self.steps.entry(id.to_owned()).or_default();
        match (action, result) {
            (Action::Run, result) => {
                step.attempt = attempt;
                step.ended = Some(at);
                step.phase = match result {
                    StepResult::Done { output } => {
                        step.output = Some(output.clone());
                        Phase::Done
                    }
                    StepResult::Stopped => Phase::Stopped,
                    StepResult::Failed { error } => Phase::Failed { error: error.clone() },
                };
                if step.phase == Phase::Done && !(service && step.ready.is_some()) {
                    step.seconds = Some(seconds);
                }
            }
            (Action::Undo, StepResult::Failed { error }) => step.phase = Phase::UndoFailed { error: error.clone() },
            (Action::Undo, _) => {
                step.phase = Phase::NotBegun;
                step.undo_seconds = Some(seconds);
                self.not_undone.remove(id);
            }
        }
    }

    /// Why nothing new is begun, if so: a person's pause before a guard's.
    #[must_use]
    pub fn pause(&self) -> Option<String> {
        self.control.pause().or_else(|| self.guards.pause())
    }

    /// Where a step stands.
    #[must_use]
    pub fn step(&self, id: &str) -> StepState {
        self.steps.get(id).cloned().unwrap_or_default()
    }

    /// The yes that stands for a step: given in this run, for the playbook as it is now.
    #[must_use]
    pub fn approval(&self, step: &str) -> Option<&Given> {
        self.approvals.iter().rev().find(|given| given.approval.step == step && given.approval.playbook_hash == self.fingerprint.whole)
    }

    /// True while a rollback's undo is under way: it has to be carried through.
    #[must_use]
    pub fn rolling_back(&self) -> bool {
        self.undo.as_ref().is_some_and(|undo| !undo.finished && undo.then.is_rollback())
    }

    /// True if clients were pointed back to the source by a rollback.
    #[must_use]
    pub fn rolled_back(&self) -> bool {
        self.rollback.as_ref().is_some_and(|rollback| rollback.ended.is_some())
    }

    /// The write gap that has not ended, of a cutover or of a rollback.
    #[must_use]
    pub fn open_write_gap(&self) -> Option<&WriteGap> {
        let of_rollback = self.rollback.as_ref().and_then(|rollback| rollback.write_gap.as_ref());
        [of_rollback, self.write_gap.as_ref()].into_iter().flatten().find(|gap| gap.seconds.is_none())
    }

    /// Ids of all steps that may have left traces.
    #[must_use]
    pub fn begun(&self) -> BTreeSet<String> {
        self.steps.iter().filter(|(_, step)| step.is_begun()).map(|(id, _)| id.clone()).collect()
    }

    /// Ids of begun steps inside a scope, newest first: the order of undo.
    #[must_use]
    pub fn begun_in(&self, scope: UndoScope) -> Vec<String> {
        let inside = |id: &str| match scope {
            UndoScope::Everything => true,
            UndoScope::Stage { stage } => self.plan.iter().any(|planned| planned.id == id && planned.stage == stage),
        };
        let mut begun: Vec<(&String, u64)> =
            self.steps.iter().filter(|(id, step)| step.is_begun() && inside(id)).map(|(id, step)| (id, step.begun)).collect();
        begun.sort_by_key(|(_, sequence)| std::cmp::Reverse(*sequence));
        begun.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// The point of no return, if the playbook has one.
    #[must_use]
    pub fn point_of_no_return(&self) -> Option<&PlannedStep> {
        self.plan.iter().find(|planned| planned.point_of_no_return)
    }

    /// True if the point of no return is passed.
    #[must_use]
    pub fn switched(&self) -> bool {
        self.point_of_no_return().is_some_and(|planned| self.step(&planned.id).phase == Phase::Done)
    }

    /// True if clients are on the target and the way back from there was not closed. Whether it can be gone, `dbmove rollback` says.
    #[must_use]
    pub fn way_back_stands(&self) -> bool {
        let mut keeping = self.plan.iter().filter(|planned| planned.keeps_way_back).map(|planned| self.step(&planned.id).phase).peekable();
        let stands = keeping.peek().is_some() && keeping.all(|phase| !matches!(phase, Phase::Done | Phase::NotBegun));
        self.switched() && !self.rolled_back() && stands
    }

    /// True if a stage is done.
    #[must_use]
    pub fn stage_done(&self, stage: StageName) -> bool {
        self.stages.get(&stage).is_some_and(|stage| stage.done.is_some())
    }

    /// Who serves the traffic, as far as the journal can tell.
    #[must_use]
    pub fn serving(&self) -> Serving {
        // What stages before `cutover` left behind doesn't touch the traffic.
        let before_cutover = |id: &str| self.plan.iter().any(|planned| planned.id == id && planned.stage < StageName::Cutover);
        if self.not_undone.keys().any(|id| !before_cutover(id)) {
            return Serving::Unclear;
        }
        match self.point_of_no_return().map(|planned| self.step(&planned.id).phase) {
            None | Some(Phase::NotBegun) => Serving::Source,
            Some(Phase::Done) => Serving::Target,
            Some(_) => Serving::Unclear,
        }
    }

    /// Facts of every step that is done.
    #[must_use]
    pub fn outputs(&self) -> BTreeMap<String, Output> {
        self.steps.iter().filter_map(|(id, step)| Some((id.clone(), step.output.clone()?))).collect()
    }
}
