//! The engine's observer: what a person sees while a run is driven.
//!
//! On a terminal every running step has a bar, with the budget and the write-gap clock below; elsewhere there is one
//! dense line for every change and, of a running step, every now and then. Both say the same words, made from the journal's
//! events by [`announcement`]; neither keeps anything that is not in the journal.

mod bars;
mod lines;

use std::sync::Arc;
use std::time::Duration;

use super::human;
use super::printable::printable;
use super::screen::Screen;
use crate::engine::context::RunKind;
use crate::engine::guards::{Change, Effect, Guarded};
use crate::engine::journal::{Action, Event, StepResult};
use crate::engine::moments::{HookChange, Hooked};
use crate::engine::observer::{Observer, Silent};
use crate::engine::step::{Failure, Probe};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Bars on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// Bars.
    Bars,
    /// Lines.
    Lines,
    /// Nothing.
    None,
}

impl Mode {
    /// What `auto` means here: bars need a terminal on stderr, and words that are not log events.
    #[must_use]
    pub fn resolve(self, terminal: bool, json_log: bool) -> Mode {
        match self {
            Mode::Auto if terminal && !json_log => Mode::Bars,
            Mode::Auto => Mode::Lines,
            chosen => chosen,
        }
    }
}

/// The observer for a screen: bars where it has some, lines otherwise, nothing if so asked.
#[must_use]
pub fn observer(mode: Mode, screen: &Screen) -> Arc<dyn Observer> {
    match (mode, screen.bars()) {
        (Mode::None, _) => Arc::new(Silent),
        (_, Some(bars)) => Arc::new(bars::Bars::new(screen.clone(), bars.clone())),
        (_, None) => Arc::new(lines::Lines::new(screen.clone())),
    }
}

/// One event in words; `None` for what nobody needs to be told while it happens.
#[must_use]
pub fn announcement(event: &Event) -> Option<String> {
    let text = match event {
        Event::RunStarted(started) => {
            let kind = match started.kind {
                RunKind::Rehearsal => "rehearsal",
                RunKind::Production => "production run",
            };
            format!("{kind} of `{}` started", printable(&started.playbook))
        }
        Event::RunResumed { give_up: true, .. } => "the run is given up".to_owned(),
        Event::RunResumed { until, .. } => format!("the run goes on, up to `{}`", until.as_str()),
        Event::StageStarted { stage } => format!("stage {}", stage.as_str()),
        Event::StageDone { stage } => format!("stage {} done", stage.as_str()),
        Event::Intent { step, attempt, action: Action::Run, .. } if *attempt > 1 => {
            format!("{} started, attempt {attempt}", printable(step))
        }
        Event::Intent { step, action: Action::Run, .. } => format!("{} started", printable(step)),
        Event::Intent { step, action: Action::Undo, .. } => format!("{} is being undone", printable(step)),
        Event::Outcome { step, action, result, seconds, .. } => outcome(step, *action, result, *seconds),
        Event::Ready { step, seconds } => format!("{} ready after {}", printable(step), human::seconds(*seconds)),
        Event::Retry { step, attempt, wait_seconds, error } => {
            format!("{}: {}; attempt {attempt} in {}", printable(step), first_line(error), human::seconds(*wait_seconds))
        }
        Event::Probed { step, probe } => match probe {
            Probe::NotStarted => format!("{}: no trace of it found", printable(step)),
            Probe::Partly { from } => format!("{} goes on from {}", printable(step), printable(from)),
            Probe::Done => format!("{}: found done", printable(step)),
            Probe::Foreign { found } => format!("{}: found what is not ours: {}", printable(step), printable(found)),
        },
        Event::PlaybookAccepted { changes, .. } if changes.is_empty() => return None,
        Event::PlaybookAccepted { changes, .. } => format!("the changed playbook was accepted ({} changes)", changes.len()),
        Event::Approved(approval) => format!("{} was approved by {}", printable(&approval.step), printable(&approval.by)),
        Event::Controlled(told) => {
            let reason = told.reason.as_ref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
            format!("{} by {} ({}){reason}", told.act, printable(&told.by), printable(&told.from))
        }
        Event::Guard(guarded) => guard(guarded),
        Event::Hook(Hooked { hook, moment, change }) => match change {
            HookChange::Begun { .. } => format!("hook {} is called: {}", printable(hook), moment.as_str()),
            HookChange::Done { seconds } => format!("hook {} done in {}", printable(hook), human::seconds(*seconds)),
            HookChange::Failed { error, .. } if moment.is_question() => {
                format!("hook {} at {} said NO: {}", printable(hook), moment.as_str(), first_line(error))
            }
            HookChange::Failed { error, .. } => {
                format!("hook {} at {} FAILED, and the run goes its way: {}", printable(hook), moment.as_str(), first_line(error))
            }
        },
        Event::WithoutRehearsal { reason } => format!("going ahead without a rehearsal: {}", printable(reason)),
        Event::CertificateAccepted { certificate } => format!("certificate {} accepted", short_hash(certificate)),
        Event::CertificateIssued { certificate } => {
            format!("certificate {} issued, good until {:.0}", short_hash(&certificate.hash), certificate.expires)
        }
        Event::DeadlineSet { text, until } => format!("deadline {}: everything is done or undone by {until:.0}", printable(text)),
        Event::WriteGapStarted { limit_seconds, .. } => format!("writes are held, for at most {}", human::seconds(*limit_seconds)),
        Event::WriteGapEnded { seconds, .. } => format!("writes were held for {}", human::seconds(*seconds)),
        Event::LoadStarted { asked } => format!("under load from now on: {asked} of production's own writes"),
        Event::LoadEnded { load } => format!("the load has ended: {}", printable(&load.sentences.join("; "))),
        Event::PointOfNoReturn { step } => format!("{} was the point of no return, and is passed", printable(step)),
        Event::RollbackStarted => "a rollback begins: clients stay on the target until their writes are held".to_owned(),
        Event::UndoStarted { why, .. } => format!("undoing: {}", first_line(why)),
        Event::UndoFinished { failed, seconds } if failed.is_empty() => format!("undone in {}", human::seconds(*seconds)),
        Event::UndoFinished { failed, .. } => {
            let steps: Vec<_> = failed.keys().map(|step| format!("`{}`", printable(step))).collect();
            format!("the undo FAILED for {}", steps.join(", "))
        }
        Event::Note { step: Some(step), text } => format!("{}: {}", printable(step), printable(text)),
        Event::Note { step: None, text } => printable(text).into_owned(),
        Event::LoadAsked { .. }
        | Event::Forecast { .. }
        | Event::LeaseTaken { .. }
        | Event::LeaseReleased { .. }
        | Event::RunFinished { .. }
        | Event::Unknown => {
            return None;
        }
    };
    Some(text)
}

fn guard(guarded: &Guarded) -> String {
    let id = printable(&guarded.guard);
    match &guarded.change {
        Change::Fired { found, effect, .. } => {
            let then = match effect {
                Effect::Paused => "the run is paused until it is quiet",
                Effect::Stopped => "the run ends",
                Effect::CutoverUndone => "the cutover is undone",
                Effect::Undone => "all that the run made is undone",
                Effect::Told => "clients are on the target, so nothing is undone by it",
            };
            format!("guard {id} FIRED: {}; {then}", first_line(found))
        }
        Change::Quiet { found } => format!("guard {id} is quiet again: {}", first_line(found)),
        Change::Unseen { why } => format!("guard {id} can't be asked: {}", first_line(why)),
        Change::Seen { found } => format!("guard {id} can be asked again: {}", first_line(found)),
    }
}

fn outcome(step: &str, action: Action, result: &StepResult, seconds: f64) -> String {
    let (step, took) = (printable(step), human::seconds(seconds));
    match (action, result) {
        (Action::Run, StepResult::Done { output }) => match &output.work {
            Some(work) => format!("{step} done in {took}: {}", human::amount(work.amount, &printable(&work.unit))),
            None => format!("{step} done in {took}"),
        },
        (Action::Run, StepResult::Stopped) => format!("{step} stopped after {took}"),
        (Action::Run, StepResult::Failed { error }) if error.failure == Failure::Waiting => {
            format!("{step} waits for approval: {}", first_line(&error.message))
        }
        (Action::Run, StepResult::Failed { error }) => format!("{step} FAILED after {took}: {}", first_line(&error.message)),
        (Action::Undo, StepResult::Done { .. }) => format!("{step} undone in {took}"),
        (Action::Undo, StepResult::Stopped) => format!("the undo of {step} was stopped after {took}"),
        (Action::Undo, StepResult::Failed { error }) => format!("the undo of {step} FAILED after {took}: {}", first_line(&error.message)),
    }
}

/// The first line of a message, printable; `…` stands for the others, which the summary has.
fn first_line(text: &str) -> String {
    let mut lines = text.lines();
    let first = printable(lines.next().unwrap_or_default()).into_owned();
    if lines.next().is_some() { format!("{first} …") } else { first }
}

/// The first twelve digits of a hash: enough to recognise it by.
fn short_hash(hash: &str) -> String {
    printable(hash).chars().take(12).collect()
}

/// How often a step that runs for so long gets a line: dense at first, when everything is news, then rarer.
fn interval(running: Duration) -> Duration {
    match running.as_secs() {
        0..30 => Duration::from_secs(1),
        30..600 => Duration::from_secs(10),
        _ => Duration::from_secs(60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::journal::RecordedError;
    use crate::engine::step::{Output, Work};

    #[test]
    fn rarer_as_time_goes_on() {
        let seconds = [0, 29, 30, 599, 600].map(|seconds| interval(Duration::from_secs(seconds)).as_secs());
        assert_eq!(seconds, [1, 1, 10, 10, 60]);
    }

    #[test]
    fn auto_looks_where_it_is() {
        assert_eq!(Mode::Auto.resolve(true, false), Mode::Bars);
        assert_eq!(Mode::Auto.resolve(true, true), Mode::Lines);
        assert_eq!(Mode::Auto.resolve(false, false), Mode::Lines);
        assert_eq!(Mode::None.resolve(true, false), Mode::None);
    }

    #[test]
    fn events_in_words() {
        let output = Output { work: Some(Work { unit: "rows".into(), amount: 1200, seconds: 3.0 }), ..Output::default() };
        let done = Event::Outcome {
            step: "copy".into(),
            attempt: 1,
            action: Action::Run,
            result: StepResult::Done { output },
            seconds: 3.2,
            settled: false,
        };
        assert_eq!(announcement(&done).unwrap(), "copy done in 3.2s: 1,200 rows");
        let error = RecordedError { failure: Failure::Definite, message: "table `a\u{1b}[2J`".into(), hint: None };
        let failed = Event::Outcome {
            step: "copy".into(),
            attempt: 1,
            action: Action::Undo,
            result: StepResult::Failed { error },
            seconds: 0.1,
            settled: false,
        };
        assert_eq!(announcement(&failed).unwrap(), "the undo of copy FAILED after 100ms: table `a\\u{1b}[2J`");
        let error = RecordedError { failure: Failure::Waiting, message: "Go?".into(), hint: None };
        let waiting = Event::Outcome {
            step: "go".into(),
            attempt: 1,
            action: Action::Run,
            result: StepResult::Failed { error },
            seconds: 0.0,
            settled: false,
        };
        assert_eq!(announcement(&waiting).unwrap(), "go waits for approval: Go?");
        assert_eq!(announcement(&Event::Unknown), None);
    }
}
