//! Journal → [`Report`].
//!
//! Where a run stands comes from [`RunState`], the same fold the engine resumes from. What that fold forgets because nobody acts on it any more
//! (what was forecast, tried again, undone, remarked) is picked from the events here.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;

use super::model::{
    Approval, Approvals, Audit, Certificate, Deadline, FORMAT, Finding, GuardTold, HookTold, Note, Outcome, Report, Retry, Rollback, Run,
    Serving, Stage, Step, StepError, StepState, Undo, Verdict, Verification, Work, WriteGap,
};
use super::{next, status, timeline, verification};
use crate::engine::budget::StepForecast;
use crate::engine::guards::{Change, Effect, Guarded};
use crate::engine::journal::{self, Event, JournalError, JournalReader, Phase, RecordedEvent, RunState, UndoScope};
use crate::engine::moments::{HookChange, Hooked};
use crate::engine::outcome;
use crate::engine::production;
use crate::engine::step::Failure;
use crate::playbook::model::StageName;

/// What the fold forgets.
#[derive(Default)]
struct Told {
    forecast: BTreeMap<String, StepForecast>,
    retries: Vec<Retry>,
    undos: Vec<Undo>,
    notes: Vec<Note>,
    accepted_changes: Vec<String>,
    accepted_certificate: Option<String>,
    deadline: Option<Deadline>,
    drivers: u32,
    controls: Vec<super::model::Told>,
    guards: Vec<GuardTold>,
    hooks: Vec<HookTold>,
    undone: BTreeMap<String, bool>,
    failures: BTreeMap<String, StepError>,
}

impl Told {
    fn of(events: &[RecordedEvent]) -> Told {
        let mut told = Told::default();
        for recorded in events {
            told.take(recorded);
        }
        told
    }

    fn take(&mut self, recorded: &RecordedEvent) {
        let at = recorded.at;
        match &recorded.event {
            Event::LeaseTaken { .. } => self.drivers += 1,
            // The first figure for a step is the forecast; later ones are made from what really happened.
            Event::Forecast { forecast } => {
                for step in forecast.steps.iter().filter(|step| !step.done) {
                    self.forecast.entry(step.step.clone()).or_insert_with(|| step.clone());
                }
            }
            Event::Retry { step, attempt, error, .. } => {
                self.retries.push(Retry { step: step.clone(), at, attempt: *attempt, error: error.clone() });
            }
            Event::UndoStarted { why, scope, .. } => {
                let scope = match scope {
                    UndoScope::Stage { stage } => stage.as_str().to_owned(),
                    UndoScope::Everything => "everything".to_owned(),
                };
                self.undos.push(Undo { why: why.clone(), at, scope, seconds: None, failed: BTreeMap::new() });
            }
            Event::UndoFinished { failed, seconds } => {
                if let Some(undo) = self.undos.last_mut() {
                    (undo.seconds, undo.failed) = (Some(*seconds), failed.clone());
                }
            }
            Event::Outcome { step, action, result, .. } => {
                match result {
                    // No failure: the step's state and the verdict say it.
                    journal::StepResult::Failed { error } if error.failure == Failure::Waiting => {
                        self.failures.remove(step);
                    }
                    // Kept when the step is undone after it, forgotten when a later attempt succeeds.
                    journal::StepResult::Failed { error } => {
                        self.failures.insert(step.clone(), StepError { message: error.message.clone(), hint: error.hint.clone() });
                    }
                    journal::StepResult::Done { .. } if *action == journal::Action::Run => {
                        self.failures.remove(step);
                    }
                    _ => {}
                }
                let undone = *action == journal::Action::Undo && matches!(result, journal::StepResult::Done { .. });
                self.undone.insert(step.clone(), undone);
            }
            Event::Controlled(told) => self.controls.push(super::model::Told {
                act: told.act.to_string(),
                by: told.by.clone(),
                at,
                reason: told.reason.clone(),
                from: told.from.clone(),
            }),
            Event::Hook(Hooked { hook, moment, change }) => {
                let (seconds, error) = match change {
                    HookChange::Begun { .. } => return,
                    HookChange::Done { seconds } => (*seconds, None),
                    HookChange::Failed { seconds, error } => (*seconds, Some(error.clone())),
                };
                self.hooks.push(HookTold { hook: hook.clone(), moment: moment.as_str().to_owned(), at, seconds, error });
            }
            Event::Guard(guarded) => self.guards.push(guard_told(guarded, at)),
            Event::Note { step, text } => self.notes.push(Note { at, step: step.clone(), text: text.clone() }),
            Event::PlaybookAccepted { changes, .. } => self.accepted_changes.extend(changes.iter().map(ToString::to_string)),
            Event::CertificateAccepted { certificate } => self.accepted_certificate = Some(certificate.clone()),
            Event::DeadlineSet { text, until } => self.deadline = Some(Deadline { text: text.clone(), until: *until }),
            _ => {}
        }
    }
}

fn guard_told(guarded: &Guarded, at: Timestamp) -> GuardTold {
    let (change, found, effect) = match &guarded.change {
        Change::Fired { found, effect, .. } => ("fired", found, Some(effect)),
        Change::Quiet { found } => ("quiet", found, None),
        Change::Unseen { why } => ("unseen", why, None),
        Change::Seen { found } => ("seen", found, None),
    };
    let effect = effect.map(|effect| {
        let word = match effect {
            Effect::Paused => "paused",
            Effect::Stopped => "stopped",
            Effect::CutoverUndone => "cutover_undone",
            Effect::Undone => "undone",
            Effect::Told => "told",
        };
        word.to_owned()
    });
    GuardTold { guard: guarded.guard.clone(), at, change: change.to_owned(), found: found.clone(), effect }
}

/// Where a step stands, for people.
#[must_use]
pub fn step_state(service: bool, step: &journal::StepState) -> StepState {
    match &step.phase {
        Phase::NotBegun if step.undo_seconds.is_some() => StepState::Undone,
        Phase::NotBegun => StepState::NotBegun,
        Phase::Running if service && step.ready.is_some() => StepState::Ready,
        Phase::Running => StepState::Running,
        Phase::Done => StepState::Done,
        Phase::Stopped => StepState::Stopped,
        Phase::Failed { .. } if step.is_waiting() => StepState::Waiting,
        Phase::Failed { .. } => StepState::Failed,
        Phase::Undoing => StepState::Undoing,
        Phase::UndoFailed { .. } => StepState::UndoFailed,
    }
}

/// Who serves, as the report says it.
#[must_use]
pub fn serving(serving: outcome::Serving) -> Serving {
    match serving {
        outcome::Serving::Source => Serving::Source,
        outcome::Serving::Target => Serving::Target,
        outcome::Serving::Unclear => Serving::Unclear,
    }
}

/// The report of a run as of now. `path` is the playbook's file, where it is known, for the commands at the end.
///
/// # Errors
/// If the journal can't be read or has no such run.
pub fn report(reader: &JournalReader, run: &str, path: Option<&Path>, now: Timestamp) -> Result<Report, JournalError> {
    let events = reader.events(run, 0)?;
    let state = RunState::fold(&events).ok_or_else(|| JournalError::UnknownRun(run.to_owned()))?;
    let mut told = Told::of(&events);
    let driver = reader.lease(run)?.map(|lease| status::driver(&lease, now));
    let outcome = status::outcome(&state, driver.as_ref());
    let verifications = verifications(reader, &state, now, &mut told.notes)?;
    let head = reader.head()?;
    let certificate = certificate(reader, &state, told.accepted_certificate.as_deref())?;
    Ok(Report {
        format: FORMAT,
        dbmove_version: env!("CARGO_PKG_VERSION").to_owned(),
        made: now,
        verdict: verdict(&state, outcome, driver.as_ref(), path),
        run: Run {
            id: state.run.clone(),
            playbook: state.playbook.clone(),
            playbook_hash: state.fingerprint.whole.clone(),
            kind: status::kind_word(state.kind).to_owned(),
            started: state.started,
            last: state.last,
            drivers: told.drivers,
            deadline: told.deadline.take(),
        },
        stages: StageName::ALL.into_iter().filter_map(|name| stage(&state, name, &told)).collect(),
        verifications,
        findings: reader.findings(run)?.into_iter().map(|(id, finding)| Finding { id, finding }).collect(),
        write_gap: state.write_gap.as_ref().map(|gap| WriteGap {
            step: gap.step.clone(),
            seconds: gap.seconds,
            limit_seconds: gap.limit_seconds,
            switched: gap.switched,
        }),
        rollback: state.rollback.as_ref().map(|rollback| Rollback {
            started: rollback.started,
            seconds: rollback.seconds(),
            held_seconds: rollback.write_gap.as_ref().and_then(|gap| gap.seconds),
        }),
        timelines: timeline::timelines(&events, &state.plan),
        load: state.load.clone(),
        sent_to_production: production::sent_by(reader, run)?,
        certificate,
        approvals: Approvals {
            without_rehearsal: state.without_rehearsal.clone(),
            accepted_changes: told.accepted_changes,
            given: approvals(&state),
            told: told.controls,
        },
        guards: told.guards,
        hooks: told.hooks,
        retries: told.retries,
        undos: told.undos,
        notes: told.notes,
        audit: Audit { events: head.count, head: head.hash },
        next: next::commands(&state, outcome, path),
    })
}

fn approvals(state: &RunState) -> Vec<Approval> {
    let approvals = state.approvals.iter().map(|given| {
        let approval = given.approval.clone();
        Approval {
            stands: approval.playbook_hash == state.fingerprint.whole,
            step: approval.step,
            question: approval.question,
            by: approval.by,
            at: given.at,
            reason: approval.reason,
            from: approval.from,
            playbook_hash: approval.playbook_hash,
        }
    });
    approvals.collect()
}

fn verdict(state: &RunState, outcome: Outcome, driver: Option<&status::Driver>, path: Option<&Path>) -> Verdict {
    let finished = state.finished.as_ref();
    let exit_code = finished.map(|finished| match (&finished.verdict, state.not_undone.is_empty()) {
        (outcome::Verdict::LeaseLost { .. }, _) | (_, true) => finished.verdict.exit_code().code(),
        // As `RunOutcome::exit_code` has it: a failed undo is an error whatever led to it.
        (_, false) => outcome::ExitCode::Error.code(),
    });
    let word = next::playbook_word(&state.playbook, path.or(state.playbook_file.as_deref()));
    let mut sentence = status::sentence(state, outcome, driver);
    for (step, why) in state.not_undone.iter().filter(|(_, why)| !sentence.contains(why.as_str())).collect::<Vec<_>>() {
        sentence.push_str(&format!("; step `{step}` could not be undone: {why}"));
    }
    Verdict {
        outcome,
        sentence,
        hint: finished
            .and_then(|finished| finished.verdict.hint())
            .map(|hint| next::with_playbook(hint, &word))
            .or_else(|| next::approval(state, path).map(|command| format!("`{command}` gives the approval"))),
        exit_code,
        serving: serving(finished.map_or_else(|| state.serving(), |finished| finished.serving)),
        concluded: finished.is_some_and(|finished| finished.concluded),
    }
}

fn stage(state: &RunState, name: StageName, told: &Told) -> Option<Stage> {
    let steps: Vec<Step> =
        state.plan.iter().filter(|planned| planned.stage == name).map(|planned| step(planned, &state.step(&planned.id), told)).collect();
    let times = state.stages.get(&name).cloned().unwrap_or_default();
    let seconds = times.started.zip(times.done).map(|(started, done)| done.duration_since(started).as_secs_f64());
    (!steps.is_empty()).then(|| Stage { name: name.as_str().to_owned(), started: times.started, done: times.done, seconds, steps })
}

fn step(planned: &journal::PlannedStep, step: &journal::StepState, told: &Told) -> Step {
    let forecast = told.forecast.get(&planned.id);
    let mut state = step_state(planned.service, step);
    if state == StepState::NotBegun && told.undone.get(&planned.id) == Some(&true) {
        state = StepState::Undone;
    }
    let output = step.output.as_ref();
    let work = output.and_then(|output| output.work.as_ref());
    Step {
        id: planned.id.clone(),
        name: planned.name.clone(),
        state,
        service: planned.service,
        point_of_no_return: planned.point_of_no_return,
        attempts: step.attempt,
        forecast_seconds: forecast.and_then(|forecast| forecast.seconds),
        forecast_basis: forecast.map(|forecast| forecast.basis.clone()),
        seconds: step.seconds,
        undo_seconds: step.undo_seconds,
        work: work.map(|work| Work { unit: work.unit.clone(), amount: work.amount, seconds: work.seconds }),
        facts: output
            .map(|output| {
                output.facts.iter().filter(|(name, _)| *name != verification::RESULT).map(|(k, v)| (k.clone(), v.clone())).collect()
            })
            .unwrap_or_default(),
        error: told.failures.get(&planned.id).cloned(),
    }
}

fn verifications(
    reader: &JournalReader,
    state: &RunState,
    now: Timestamp,
    notes: &mut Vec<Note>,
) -> Result<Vec<Verification>, JournalError> {
    let mut found = Vec::new();
    for planned in &state.plan {
        let mut recorded = reader.results(&state.run, &planned.id, verification::RESULT)?;
        if recorded.is_empty() {
            let fact = state.step(&planned.id).output.and_then(|mut output| output.facts.remove(verification::RESULT));
            recorded.extend(fact.map(|fact| (String::new(), fact)));
        }
        for (_, value) in recorded {
            match verification::read(&planned.id, &value) {
                Ok(verification) => found.push(verification),
                Err(text) => notes.push(Note { at: now, step: Some(planned.id.clone()), text }),
            }
        }
    }
    Ok(found)
}

fn certificate(reader: &JournalReader, state: &RunState, accepted: Option<&str>) -> Result<Option<Certificate>, JournalError> {
    if let Some(issued) = &state.certificate {
        let (rehearsal, expires) = (Some(issued.run.clone()), Some(issued.expires));
        return Ok(Some(Certificate { hash: issued.hash.clone(), rehearsal, expires, issued_here: true }));
    }
    let Some(hash) = accepted else { return Ok(None) };
    let at_hand = reader.certificate(&state.playbook)?.filter(|certificate| certificate.hash == hash);
    Ok(Some(Certificate {
        hash: hash.to_owned(),
        rehearsal: at_hand.as_ref().map(|certificate| certificate.run.clone()),
        expires: at_hand.map(|certificate| certificate.expires),
        issued_here: false,
    }))
}
