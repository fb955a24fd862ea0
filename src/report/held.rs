//! Writes that are held while somebody wants to leave: what becomes of them.
//!
//! Clients are waiting. Whoever presses Ctrl-C then has to know whether they go on by themselves (the fenced server's watchdog) or wait for the next
//! command, and which that is.

use super::model::Outcome;
use super::next;
use crate::engine::held::{Hold, Lifting};
use crate::engine::journal::{Phase, RunState};

/// What is said of writes that are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// To who asks the run to end.
    pub asked: String,
    /// To who ends the process at once.
    pub left: String,
}

/// Which writes a run holds now; `None` if it holds none.
#[must_use]
pub fn hold(state: &RunState) -> Option<Hold> {
    state.open_write_gap()?;
    let rollback = state.rollback.as_ref().and_then(|rollback| rollback.write_gap.as_ref()).is_some_and(|gap| gap.seconds.is_none());
    Some(if rollback { Hold::Target } else { Hold::Source })
}

/// How a person lifts held writes where nobody else does and no command of dbmove's can be given any more, and when not to; line by line. Nobody but
/// who looks at the route can tell where clients are: a driver that died may have moved some of them.
#[must_use]
pub fn by_hand(hold: Hold) -> &'static str {
    match hold {
        Hold::Source => {
            "last resort, where dbmove can't be run: look where clients are pointed;\nonly if none is on the target: `SET GLOBAL read_only = 0` on the source"
        }
        Hold::Target => {
            "last resort, where dbmove can't be run: look where clients are pointed;\nonly if none is on the source: `SET GLOBAL read_only = 0` on the target,\nor, of \
             accounts that were locked there, `ALTER USER … ACCOUNT UNLOCK`"
        }
    }
}

/// What becomes of the writes that a run holds now; `None` if it holds none. `noted` is who lifts that without a driver, see
/// [`noted`](crate::engine::held::noted).
#[must_use]
pub fn held(state: &RunState, noted: Option<Lifting>) -> Option<Held> {
    let hold = hold(state)?;
    let (server, what_ends) = match hold {
        Hold::Target if state.rolling_back() => {
            ("target", "clients are being pointed back to the source, and that is brought to its end first")
        }
        Hold::Target => ("target", "the rollback is called off first, and the target takes them again"),
        Hold::Source if state.point_of_no_return().is_some_and(|planned| state.step(&planned.id).phase == Phase::Running) => {
            ("source", "clients are being switched, and that is brought to its end first")
        }
        Hold::Source => ("source", "the cutover is undone first, and the source takes them again"),
    };
    let fate = match noted {
        Some(Lifting::Itself { at }) => format!("its own server lets them through at about {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
        Some(Lifting::Nobody) => "no server lets them through by itself".to_owned(),
        // Of an earlier try, or of a step that says nothing of it.
        Some(Lifting::Driver) | None => "whether a server lets them through by itself is not known".to_owned(),
    };
    let last = match noted {
        Some(Lifting::Nobody) => format!(". The {}", by_hand(hold).replace('\n', " ")),
        _ => String::new(),
    };
    let again = next::commands(state, Outcome::Crashed, None).into_iter().next().unwrap_or_default();
    Some(Held {
        asked: format!("writes are HELD on the {server}: {what_ends}. Wait for that; once more stops at once, and then {fate}"),
        left: format!("stopped at once while writes are HELD on the {server}: {fate}. Now give `{again}`, which settles it{last}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::context::RunKind;
    use crate::engine::journal::{Action, AfterUndo, Event, StepResult, UndoScope};
    use crate::engine::outcome::Verdict;
    use crate::engine::step::Output;
    use crate::playbook::model::StageName;
    use crate::report::testing::folded;

    const STAGE: StageName = StageName::Cutover;

    fn state(events: Vec<Event>) -> RunState {
        folded(RunKind::Production, &[("fence", STAGE), ("switch", STAGE)], events)
    }

    fn intent(step: &str, action: Action) -> Event {
        Event::Intent { step: step.to_owned(), attempt: 1, action, key: String::new() }
    }

    fn done(step: &str) -> Event {
        let result = StepResult::Done { output: Output::default() };
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
        let itself = Some(Lifting::Itself { at: "2026-11-29T11:17:11Z".parse().unwrap() });
        let mut events = vec![Event::StageStarted { stage: STAGE }];
        assert_eq!(held(&state(events.clone()), itself), None);
        events.extend([gap(), intent("fence", Action::Run)]);
        let raising = held(&state(events.clone()), None).unwrap();
        assert!(raising.left.contains("whether a server lets them through by itself is not known"), "{raising:?}");
        events.push(done("fence"));
        let fenced = held(&state(events.clone()), itself).unwrap();
        assert_eq!(
            fenced.asked,
            "writes are HELD on the source: the cutover is undone first, and the source takes them again. Wait for that; once more stops \
             at once, and then its own server lets them through at about 2026-11-29T11:17:11Z"
        );
        assert!(fenced.left.ends_with("Now give `dbmove cutover shop.yaml`, which settles it"), "{fenced:?}");
        // Called off, and the switch not begun yet.
        let disarmed = held(&state(events.clone()), Some(Lifting::Nobody)).unwrap();
        assert!(disarmed.asked.contains("no server lets them through by itself"), "{disarmed:?}");
        events.push(intent("switch", Action::Run));
        let switching = held(&state(events.clone()), Some(Lifting::Nobody)).unwrap();
        assert!(switching.asked.contains("clients are being switched, and that is brought to its end first"), "{switching:?}");
        assert!(switching.left.contains("no server lets them through by itself. Now give"), "{switching:?}");
        assert!(switching.left.ends_with("only if none is on the target: `SET GLOBAL read_only = 0` on the source"), "{switching:?}");
        events.push(Event::WriteGapEnded { seconds: 1.0, switched: false });
        assert_eq!(held(&state(events), Some(Lifting::Nobody)), None);
    }

    #[test]
    fn a_rollback_before_and_in_its_own() {
        let mut events = vec![
            Event::StageStarted { stage: STAGE },
            gap(),
            done("fence"),
            intent("switch", Action::Run),
            done("switch"),
            Event::WriteGapEnded { seconds: 1.0, switched: true },
            Event::RollbackStarted,
        ];
        assert_eq!(hold(&state(events.clone())), None);
        events.push(gap());
        assert_eq!(hold(&state(events.clone())), Some(Hold::Target));
        let taking = held(&state(events.clone()), Some(Lifting::Nobody)).unwrap();
        assert!(taking.asked.starts_with("writes are HELD on the target: the rollback is called off first"), "{taking:?}");
        events.push(undo(AfterUndo::End { verdict: Verdict::RolledBack }));
        events.push(intent("switch", Action::Undo));
        let pointing = held(&state(events), Some(Lifting::Nobody)).unwrap();
        assert!(pointing.asked.contains("clients are being pointed back to the source"), "{pointing:?}");
        assert!(
            pointing
                .left
                .contains("no server lets them through by itself. Now give `dbmove rollback shop.yaml`, which settles it. The last")
        );
        assert!(
            pointing.left.contains("only if none is on the source: `SET GLOBAL read_only = 0` on the target, or, of accounts"),
            "{pointing:?}"
        );
    }
}
