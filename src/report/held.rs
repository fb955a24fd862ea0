//! Writes that are held while somebody wants to leave: what becomes of them.
//!
//! Clients are waiting. Whoever presses Ctrl-C then has to know whether they go on by themselves (the fenced server's watchdog) or wait for the next
//! command, and which that is.

use super::model::Outcome;
use super::next;
use crate::engine::journal::{Phase, RunState};
use crate::telemetry::human;

/// The fact of a step that holds writes: after how many seconds the server lets them through by itself, if it does.
const WATCHDOG_SECONDS: &str = "watchdog_seconds";

/// What is said of writes that are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// To who asks the run to end.
    pub asked: String,
    /// To who ends the process at once.
    pub left: String,
}

/// What becomes of the writes that a run holds now; `None` if it holds none.
#[must_use]
pub fn held(state: &RunState) -> Option<Held> {
    state.open_write_gap()?;
    let rollback = state.rollback.as_ref().and_then(|rollback| rollback.write_gap.as_ref()).is_some_and(|gap| gap.seconds.is_none());
    let route = state.point_of_no_return().map(|planned| state.step(&planned.id).phase);
    // The watchdog is called off right before clients are pointed elsewhere, or back. Without a point of no return nobody knows when that is.
    let (server, by_itself, what_ends) = if rollback {
        let ends = if state.rolling_back() {
            "clients are being pointed back to the source, and that is brought to its end first"
        } else {
            "the rollback is called off first, and the target takes them again"
        };
        ("target", route == Some(Phase::Done), ends)
    } else {
        let ends = match route {
            Some(Phase::Running) => "clients are being switched, and that is brought to its end first",
            _ => "the cutover is undone first, and the source takes them again",
        };
        // An undo may have taken back a switch that had been begun, and it was called off before that.
        let undone = state.undo.as_ref().is_some_and(|undo| !undo.finished)
            && state.point_of_no_return().is_some_and(|planned| state.step(&planned.id).attempt > 0);
        ("source", route == Some(Phase::NotBegun) && !undone, ends)
    };
    let fate = if by_itself {
        let seconds = state.outputs().values().filter_map(|output| output.facts.get(WATCHDOG_SECONDS)?.as_f64()).reduce(f64::max);
        let when = match seconds {
            Some(seconds) if !rollback => format!("at the latest {} after they were stopped", human::seconds(seconds)),
            _ => "when its `watchdog` is over at the latest".to_owned(),
        };
        format!("its own server lets them through {when}")
    } else {
        "no server lets them through by itself".to_owned()
    };
    let again = next::commands(state, Outcome::Crashed, None).into_iter().next().unwrap_or_default();
    Some(Held {
        asked: format!("writes are HELD on the {server}: {what_ends}. Wait for that; once more stops at once, and then {fate}"),
        left: format!("stopped at once while writes are HELD on the {server}: {fate}. Now give `{again}`, which settles it"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::context::RunKind;
    use crate::engine::journal::{Action, AfterUndo, Event, PlannedStep, RecordedEvent, RunStarted, StepResult, UndoScope};
    use crate::engine::outcome::Verdict;
    use crate::engine::step::Output;
    use crate::playbook::model::StageName;

    const STAGE: StageName = StageName::Cutover;

    fn state(events: Vec<Event>) -> RunState {
        let planned = |id: &str| PlannedStep {
            id: id.to_owned(),
            name: "test".to_owned(),
            stage: STAGE,
            service: false,
            keeps_way_back: false,
            point_of_no_return: id == "switch",
            question: None,
        };
        let started = Event::RunStarted(RunStarted {
            playbook: "shop".to_owned(),
            playbook_file: None,
            fingerprint: crate::engine::drift::PlaybookFingerprint::default(),
            kind: RunKind::Production,
            dbmove_version: String::new(),
            steps: vec![planned("fence"), planned("switch")],
        });
        let record =
            |event| RecordedEvent { sequence: 1, run: "r".to_owned(), at: jiff::Timestamp::UNIX_EPOCH, event, hash: String::new() };
        let events: Vec<RecordedEvent> = std::iter::once(started).chain(events).map(record).collect();
        RunState::fold(&events).unwrap()
    }

    fn intent(step: &str, action: Action) -> Event {
        Event::Intent { step: step.to_owned(), attempt: 1, action, key: String::new() }
    }

    fn done(step: &str) -> Event {
        let result = StepResult::Done { output: Output::default().fact(WATCHDOG_SECONDS, 45.0) };
        Event::Outcome { step: step.to_owned(), attempt: 1, action: Action::Run, result, seconds: 0.1, settled: false }
    }

    fn gap() -> Event {
        Event::WriteGapStarted { step: "fence".to_owned(), limit_seconds: 30.0 }
    }

    fn undo(then: AfterUndo) -> Event {
        Event::UndoStarted { why: "why".to_owned(), scope: UndoScope::Stage { stage: STAGE }, then }
    }

    #[test]
    fn a_cutover_before_and_in_its_switch() {
        let mut events = vec![Event::StageStarted { stage: STAGE }];
        assert_eq!(held(&state(events.clone())), None);
        events.extend([gap(), intent("fence", Action::Run)]);
        let raising = held(&state(events.clone())).unwrap();
        assert!(raising.left.contains("lets them through when its `watchdog` is over at the latest"), "{raising:?}");
        events.push(done("fence"));
        let fenced = held(&state(events.clone())).unwrap();
        assert_eq!(
            fenced.asked,
            "writes are HELD on the source: the cutover is undone first, and the source takes them again. Wait for that; once more stops \
             at once, and then its own server lets them through at the latest 45s after they were stopped"
        );
        assert!(fenced.left.ends_with("Now give `dbmove cutover shop.yaml`, which settles it"), "{fenced:?}");
        events.push(intent("switch", Action::Run));
        let switching = held(&state(events.clone())).unwrap();
        assert!(switching.asked.contains("clients are being switched, and that is brought to its end first"), "{switching:?}");
        assert!(switching.left.contains("no server lets them through by itself. Now give"), "{switching:?}");
        // It turned out not to be done: the watchdog was called off all the same.
        events.extend([undo(AfterUndo::StartAgain), intent("switch", Action::Undo)]);
        let outcome = StepResult::Done { output: Output::default() };
        events.push(Event::Outcome {
            step: "switch".to_owned(),
            attempt: 1,
            action: Action::Undo,
            result: outcome,
            seconds: 0.1,
            settled: false,
        });
        let undoing = held(&state(events.clone())).unwrap();
        assert!(undoing.left.contains("no server lets them through by itself"), "{undoing:?}");
        events.push(Event::WriteGapEnded { seconds: 1.0, switched: false });
        assert_eq!(held(&state(events)), None);
    }

    #[test]
    fn a_rollback_before_and_in_its_own() {
        let switched = [
            Event::StageStarted { stage: STAGE },
            gap(),
            done("fence"),
            intent("switch", Action::Run),
            done("switch"),
            Event::WriteGapEnded { seconds: 1.0, switched: true },
            Event::RollbackStarted,
        ];
        let mut events = switched.to_vec();
        assert_eq!(held(&state(events.clone())), None);
        events.push(gap());
        let taking = held(&state(events.clone())).unwrap();
        assert!(taking.asked.starts_with("writes are HELD on the target: the rollback is called off first"), "{taking:?}");
        assert!(taking.left.contains("its own server lets them through when its `watchdog` is over at the latest"), "{taking:?}");
        events.push(undo(AfterUndo::End { verdict: Verdict::RolledBack }));
        events.push(intent("switch", Action::Undo));
        let pointing = held(&state(events)).unwrap();
        assert!(pointing.asked.contains("clients are being pointed back to the source"), "{pointing:?}");
        assert!(pointing.left.ends_with("no server lets them through by itself. Now give `dbmove rollback shop.yaml`, which settles it"));
    }
}
