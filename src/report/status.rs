//! Where the runs of a state directory stand, and whether somebody drives them.
//!
//! The journal alone can't tell a run that is being driven from one whose driver was killed: neither has an end. The lease can: its owner's
//! process is looked up, and where that is out of sight (another machine, another container) its heartbeat counts.

use jiff::Timestamp;
use serde::Serialize;

use super::model::{Outcome, Serving};
use super::{gather, next};
use crate::engine::context::{MADE, RunKind};
use crate::engine::control::Control;
use crate::engine::guards::{Effect, Guards};
use crate::engine::held::{self, Hold, Lifting};
use crate::engine::journal::{JournalError, JournalReader, Phase, RunState};
use crate::engine::lease::{LeaseView, Liveness};
use crate::engine::outcome::Verdict;

/// Who drives a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// Its epoch.
    pub epoch: u64,
    /// Whether it is there.
    pub liveness: Presence,
    /// Its last sign of life.
    pub heartbeat: Timestamp,
}

/// Whether a driver is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// At work.
    Alive,
    /// On another machine, with a fresh sign of life.
    AliveElsewhere,
    /// The process is there but shows no sign of life (stopped, suspended).
    Silent,
    /// Killed or crashed: it holds the lease and is gone.
    Gone,
    /// It ended as it should and let go.
    Released,
}

/// Where one run stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunStatus {
    /// Its id.
    pub run: String,
    /// The playbook's name.
    pub playbook: String,
    /// `rehearsal` or `production`.
    pub kind: String,
    /// In one word.
    pub outcome: Outcome,
    /// In one sentence.
    pub sentence: String,
    /// Who serves the traffic.
    pub serving: Serving,
    /// The driver it has or had.
    pub driver: Option<Driver>,
    /// When it started.
    pub started: Timestamp,
    /// Its last event.
    pub last: Timestamp,
    /// The deadline in force, and seconds to it (negative: over).
    pub deadline: Option<(String, f64)>,
    /// Seconds for which writes have been held, while they are.
    pub writes_held_seconds: Option<f64>,
    /// Of a run whose driver is gone: what became of the writes that it held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_held: Option<LeftHeld>,
    /// What people have told it that still stands.
    pub control: Control,
    /// What stands of its guards: those that fired, and those that can't be asked.
    pub guards: Guards,
    /// The command that would point clients back, behind the switch.
    #[serde(skip)]
    pub rollback: String,
    /// The command that would give a production run up.
    #[serde(skip)]
    pub undo: String,
    /// Steps in order, with where each stands.
    pub steps: Vec<StepStatus>,
    /// The commands that make sense now.
    pub next: Vec<String>,
}

/// Writes that were held when a driver ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeftHeld {
    /// Since when.
    pub since: Timestamp,
    /// By whom that is lifted.
    pub lifted: Lifted,
    /// True in a rollback, where the target is held.
    pub rolling_back: bool,
    /// True if the driver may yet wake up: it shows no sign of life.
    pub silent: bool,
}

/// What lifts a hold whose driver is gone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Lifted {
    /// The server that is held.
    Itself {
        /// When, or about so.
        at: Timestamp,
        /// Seconds to it; negative: over.
        seconds: f64,
    },
    /// HAProxy, which has let clients through since.
    Proxy,
    /// The driver had done it before it ended.
    Driver,
    /// Nobody: a person has to go on or back.
    Nobody,
    /// The journal does not tell.
    Unknown,
}

impl LeftHeld {
    /// True as far as the journal can tell.
    #[must_use]
    pub fn still(&self) -> bool {
        match self.lifted {
            Lifted::Itself { seconds, .. } => seconds > 0.0,
            Lifted::Proxy | Lifted::Driver => false,
            Lifted::Nobody | Lifted::Unknown => true,
        }
    }

    /// What is held, of a run whose driver does not show that it is there.
    fn of(reader: &JournalReader, state: &RunState, silent: bool, now: Timestamp) -> Result<Option<LeftHeld>, JournalError> {
        let Some(gap) = state.open_write_gap() else { return Ok(None) };
        let rolling_back = state.rollback.as_ref().and_then(|rollback| rollback.write_gap.as_ref()).is_some_and(|of| of == gap);
        if state.switched() && !rolling_back {
            // Killed right behind the switch: clients write to the target.
            return Ok(None);
        }
        let noted = held::noted(reader, &state.run, if rolling_back { Hold::Target } else { Hold::Source })?;
        let at_proxy = state.plan.iter().any(|planned| planned.id == gap.step && planned.name == "traffic.hold");
        let lifted = match noted {
            Some(Lifting::Itself { at }) => Lifted::Itself { at, seconds: at.duration_since(now).as_secs_f64() },
            Some(Lifting::Nobody) => Lifted::Nobody,
            // Of an earlier try, where the fence of this one was not reached.
            Some(Lifting::Driver) | None if at_proxy => Lifted::Proxy,
            Some(Lifting::Driver) => Lifted::Driver,
            None => Lifted::Unknown,
        };
        Ok(Some(LeftHeld { since: gap.started, lifted, rolling_back, silent }))
    }
}

/// Where one step stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepStatus {
    /// Its stage.
    pub stage: String,
    /// Its id.
    pub step: String,
    /// What it does.
    pub name: String,
    /// Where it stands.
    pub state: super::model::StepState,
    /// What it took, or has been taking.
    pub seconds: Option<f64>,
    /// Its newest figures from the time series: `done`, `rate`, `lag_seconds`.
    pub figures: std::collections::BTreeMap<String, f64>,
    /// Why it failed.
    pub error: Option<String>,
    /// What it has made and a driver would remove again, where nobody drives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

/// What can be told of a driver now.
#[must_use]
pub fn driver(lease: &LeaseView, now: Timestamp) -> Driver {
    let liveness = match (lease.held, lease.owner.liveness(), lease.is_free(now)) {
        (false, ..) => Presence::Released,
        (true, Liveness::Gone, _) => Presence::Gone,
        (true, Liveness::Alive, false) => Presence::Alive,
        (true, Liveness::OutOfSight, false) => Presence::AliveElsewhere,
        (true, Liveness::Alive, true) => Presence::Silent,
        (true, Liveness::OutOfSight, true) => Presence::Gone,
    };
    Driver { host: lease.owner.host.clone(), pid: lease.owner.pid, epoch: lease.epoch.0, liveness, heartbeat: lease.heartbeat }
}

/// How a run stands, in one word: the last driver's verdict, or what its absence means.
#[must_use]
pub fn outcome(state: &RunState, driver: Option<&Driver>) -> Outcome {
    match (&state.finished, driver.map(|driver| driver.liveness)) {
        (None, Some(Presence::Alive | Presence::AliveElsewhere | Presence::Silent)) => Outcome::Running,
        (None, _) => Outcome::Crashed,
        (Some(finished), _) => match finished.verdict {
            Verdict::Done { .. } => Outcome::Done,
            Verdict::Failed { .. } => Outcome::Failed,
            Verdict::Differences { .. } => Outcome::Differences,
            Verdict::Refused { .. } => Outcome::Refused,
            Verdict::DeadlineMissed { .. } => Outcome::DeadlineMissed,
            Verdict::WriteGapExceeded { .. } => Outcome::WriteGapExceeded,
            Verdict::WaitingForApproval { .. } => Outcome::WaitingForApproval,
            Verdict::HandedOver { .. } => Outcome::HandedOver,
            Verdict::Interrupted | Verdict::Aborted { .. } => Outcome::Interrupted,
            Verdict::StoppedByGuard { effect: Effect::CutoverUndone | Effect::Undone, .. } => Outcome::UndoneByGuard,
            Verdict::StoppedByGuard { .. } => Outcome::StoppedByGuard,
            Verdict::Undone => Outcome::Undone,
            Verdict::RolledBack => Outcome::RolledBack,
            Verdict::LeaseLost { .. } => Outcome::LeaseLost,
        },
    }
}

/// The same in one sentence.
#[must_use]
pub fn sentence(state: &RunState, outcome: Outcome, driver: Option<&Driver>) -> String {
    let who = |driver: &Driver| format!("process {} on `{}`", driver.pid, driver.host);
    match (&state.finished, outcome, driver) {
        (Some(finished), ..) => match &finished.verdict {
            Verdict::WaitingForApproval { step, .. } if state.approval(step).is_some() => {
                let by = state.approval(step).map(|given| given.approval.by.clone()).unwrap_or_default();
                format!("step `{step}` has been approved by {by} since; the same command goes on from here")
            }
            Verdict::Done { until } => format!("everything up to and including `{}`", until.as_str()),
            verdict => next::with_playbook(&verdict.to_string(), &next::playbook_word(&state.playbook, state.playbook_file.as_deref())),
        },
        (None, Outcome::Running, Some(driver)) if driver.liveness == Presence::Silent => {
            format!(
                "driven by {}, which has shown no sign of life since {:.0}; another driver may take over",
                who(driver),
                driver.heartbeat
            )
        }
        (None, Outcome::Running, Some(driver)) => format!("driven by {}", who(driver)),
        (None, _, Some(driver)) if driver.liveness == Presence::Gone => {
            format!("its driver, {}, is gone; the same command goes on from here", who(driver))
        }
        (None, ..) => "it has no driver and no end; the same command goes on from here".to_owned(),
    }
}

/// `rehearsal` or `production`.
#[must_use]
pub fn kind_word(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Rehearsal => "rehearsal",
        RunKind::Production => "production",
    }
}

/// Where a run stands now.
///
/// # Errors
/// If the journal can't be read or has no such run.
pub fn of_run(reader: &JournalReader, run: &str, now: Timestamp) -> Result<RunStatus, JournalError> {
    let state = reader.state(run)?;
    let driver = reader.lease(run)?.map(|lease| driver(&lease, now));
    let mut series = reader.series(run)?;
    let outcome = outcome(&state, driver.as_ref());
    let since = |moment: Timestamp| now.duration_since(moment).as_secs_f64();
    // What a service can't carry any more, or not for certain, is no failure of it, and must be seen on every look.
    let findings = reader.findings(run)?;
    let found = |step: &str, kinds: &[&str]| {
        let of_step = |id: &str| id.strip_prefix(step).and_then(|id| id.strip_prefix('/')).is_some_and(|kind| kinds.contains(&kind));
        let words = findings.iter().filter(|(id, _)| of_step(id)).filter_map(|(_, finding)| finding.get("found")?.as_str());
        Some(words.collect::<Vec<_>>().join("; ")).filter(|words| !words.is_empty())
    };
    let doubts = |phase: &Phase| -> &[&str] {
        match (outcome, phase) {
            (Outcome::Running, _) | (_, Phase::Done) => &["no-way-back", "source-let-clients-in"],
            _ => &["no-way-back", "source-let-clients-in", "way-back-can-be-purged"],
        }
    };
    let mut left = std::collections::BTreeMap::new();
    for planned in state.plan.iter().filter(|planned| outcome != Outcome::Running && state.step(&planned.id).is_begun()) {
        let made = reader.results(run, &planned.id, MADE)?;
        left.insert(planned.id.clone(), made.into_iter().map(|(line, _)| line).collect::<Vec<_>>());
    }
    let steps = state
        .plan
        .iter()
        .map(|planned| {
            let step = state.step(&planned.id);
            let under_way = outcome == Outcome::Running && step.phase == Phase::Running && step.ready.is_none();
            let seconds = if under_way { step.started.map(since) } else { step.seconds };
            let points = series.remove(&planned.id).unwrap_or_default();
            let error = match &step.phase {
                Phase::Failed { error } | Phase::UndoFailed { error } if !step.is_waiting() => Some(error.message.clone()),
                // Once it is undone there is nothing to lose by it.
                _ if step.is_begun() => found(&planned.id, doubts(&step.phase)),
                _ => None,
            };
            StepStatus {
                stage: planned.stage.as_str().to_owned(),
                step: planned.id.clone(),
                name: planned.name.clone(),
                state: gather::step_state(planned.service, &step),
                seconds,
                figures: points.into_iter().filter_map(|(name, points)| Some((name, points.last()?.value))).collect(),
                error,
                left: left.remove(&planned.id).unwrap_or_default(),
            }
        })
        .collect();
    let here = driver.as_ref().map(|driver| driver.liveness);
    let drives = outcome == Outcome::Running && here != Some(Presence::Silent);
    let left_held = if drives { None } else { LeftHeld::of(reader, &state, here == Some(Presence::Silent), now)? };
    let held = state.open_write_gap().filter(|_| drives || left_held.as_ref().is_some_and(LeftHeld::still));
    Ok(RunStatus {
        run: state.run.clone(),
        playbook: state.playbook.clone(),
        kind: kind_word(state.kind).to_owned(),
        outcome,
        sentence: sentence(&state, outcome, driver.as_ref()),
        serving: gather::serving(state.finished.as_ref().map_or_else(|| state.serving(), |finished| finished.serving)),
        started: state.started,
        last: state.last,
        deadline: state.deadline.as_ref().map(|deadline| (deadline.text.clone(), -since(deadline.until))),
        writes_held_seconds: held.map(|gap| since(gap.started)),
        left_held,
        control: state.control.clone(),
        guards: state.guards.clone(),
        rollback: next::rollback(&state),
        undo: next::undo(&state),
        steps,
        next: next::commands(&state, outcome, None),
        driver,
    })
}

/// The newest run of every playbook and kind, newest first.
///
/// # Errors
/// If the journal can't be read.
pub fn of_all(reader: &JournalReader, now: Timestamp) -> Result<Vec<RunStatus>, JournalError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut all = Vec::new();
    for summary in reader.runs()? {
        if seen.insert((summary.playbook.clone(), kind_word(summary.kind))) {
            all.push(of_run(reader, &summary.run, now)?);
        }
    }
    Ok(all)
}
