//! The newest cutover and the newest rollback, second by second.
//!
//! Times come from the journal: a line's place is the moment its intent was written, its length what the driver's own clock measured. So
//! the places of a run whose machine's clock was set meanwhile are as wrong as that clock, and the lengths are not. A cutover begins with
//! its stage and ends with it, or with the undo of it; a rollback begins before anybody is held and ends when clients are back.

use jiff::Timestamp;

use super::model::{Moment, MomentKind, Timeline};
use crate::engine::journal::{Action, Event, PlannedStep, RecordedEvent, StepResult, UndoScope};
use crate::engine::step::Failure;
use crate::playbook::model::StageName;

/// The newest cutover, then the newest rollback, as far as there were such.
#[must_use]
pub fn timelines(events: &[RecordedEvent], plan: &[PlannedStep]) -> Vec<Timeline> {
    let newest = |begins: fn(&Event) -> bool| events.iter().rposition(|recorded| begins(&recorded.event));
    let cutover = newest(|event| matches!(event, Event::StageStarted { stage: StageName::Cutover }));
    let rollback = newest(|event| matches!(event, Event::RollbackStarted));
    let cutover = cutover.map(|at| {
        let end = rollback.filter(|rollback| *rollback > at).unwrap_or(events.len());
        timeline("cutover", &events[at..end], plan, cutover_is_over)
    });
    let rollback = rollback.map(|at| timeline("rollback", &events[at..], plan, undo_is_over));
    [cutover, rollback].into_iter().flatten().filter(|timeline| !timeline.moments.is_empty()).collect()
}

fn cutover_is_over(event: &Event) -> bool {
    matches!(event, Event::StageDone { stage: StageName::Cutover }) || undo_is_over(event)
}

fn undo_is_over(event: &Event) -> bool {
    matches!(event, Event::UndoFinished { .. })
}

/// A step that has begun and not ended.
struct Open {
    step: String,
    action: Action,
    at: Timestamp,
}

fn timeline(of: &str, events: &[RecordedEvent], plan: &[PlannedStep], over: fn(&Event) -> bool) -> Timeline {
    let started = events.first().map_or(Timestamp::UNIX_EPOCH, |recorded| recorded.at);
    let since = |at: Timestamp| at.duration_since(started).as_secs_f64();
    let planned = |id: &str| plan.iter().find(|planned| planned.id == id && planned.stage == StageName::Cutover);
    let mut moments: Vec<Moment> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut last = started;
    let say = |at: Timestamp, what: String| Moment { at_seconds: since(at), seconds: None, kind: MomentKind::Said, what, does: None };
    for recorded in events {
        let at = recorded.at;
        last = at;
        let mut ended = |step: &str, action: Action, kind: MomentKind, seconds: f64| {
            let Some(place) = open.iter().position(|open| open.step == step && open.action == action) else { return };
            let begun = open.remove(place);
            moments.push(moment(&begun, since(begun.at), Some(seconds), kind, planned(step)));
        };
        match &recorded.event {
            Event::Intent { step, action, .. } if planned(step).is_some() => {
                open.push(Open { step: step.clone(), action: *action, at });
            }
            Event::Ready { step, seconds } => ended(step, Action::Run, MomentKind::Ready, *seconds),
            Event::Outcome { step, action, result, seconds, .. } => {
                let kind = match result {
                    StepResult::Done { .. } => MomentKind::Done,
                    StepResult::Stopped => MomentKind::Stopped,
                    StepResult::Failed { error } if error.failure == Failure::Waiting => MomentKind::Stopped,
                    StepResult::Failed { .. } => MomentKind::Failed,
                };
                ended(step, *action, kind, *seconds);
            }
            Event::WriteGapStarted { .. } => moments.push(say(at, "writes are held from here on".to_owned())),
            Event::WriteGapEnded { .. } => moments.push(say(at, "writes are let through".to_owned())),
            Event::PointOfNoReturn { .. } => moments.push(say(at, "the point of no return is passed".to_owned())),
            Event::UndoStarted { scope: UndoScope::Stage { .. } | UndoScope::Everything, .. } => {
                moments.push(say(at, "what was done is undone, newest first".to_owned()));
            }
            _ => {}
        }
        if over(&recorded.event) {
            break;
        }
    }
    moments.extend(open.iter().map(|begun| moment(begun, since(begun.at), None, MomentKind::Running, planned(&begun.step))));
    // What was said at one moment stays in the order in which it was written.
    moments.sort_by(|one, other| one.at_seconds.total_cmp(&other.at_seconds));
    Timeline { of: of.to_owned(), started, seconds: since(last), moments }
}

fn moment(begun: &Open, at_seconds: f64, seconds: Option<f64>, kind: MomentKind, planned: Option<&PlannedStep>) -> Moment {
    let what = match begun.action {
        Action::Run => begun.step.clone(),
        Action::Undo => format!("undo of {}", begun.step),
    };
    Moment { at_seconds, seconds, kind, what, does: planned.map(|planned| planned.name.clone()) }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::engine::journal::AfterUndo;
    use crate::engine::outcome::Verdict;
    use crate::engine::step::Output;

    fn planned(id: &str, name: &str) -> PlannedStep {
        PlannedStep {
            id: id.to_owned(),
            name: name.to_owned(),
            stage: StageName::Cutover,
            service: false,
            point_of_no_return: id == "switch",
            question: None,
            keeps_way_back: false,
        }
    }

    fn recorded(events: Vec<(i64, Event)>) -> Vec<RecordedEvent> {
        let at = |milliseconds| Timestamp::UNIX_EPOCH + SignedDuration::from_millis(milliseconds);
        let record = |(sequence, (milliseconds, event))| RecordedEvent {
            sequence: sequence as u64,
            run: "r".to_owned(),
            at: at(milliseconds),
            event,
            hash: String::new(),
        };
        events.into_iter().enumerate().map(record).collect()
    }

    fn intent(step: &str, action: Action) -> Event {
        Event::Intent { step: step.to_owned(), attempt: 1, action, key: String::new() }
    }

    fn done(step: &str, action: Action, seconds: f64) -> Event {
        let result = StepResult::Done { output: Output::default() };
        Event::Outcome { step: step.to_owned(), attempt: 1, action, result, seconds, settled: false }
    }

    fn lines(timeline: &Timeline) -> Vec<String> {
        let line = |moment: &Moment| format!("{:.1} {} {:?} {:?}", moment.at_seconds, moment.what, moment.kind, moment.seconds);
        timeline.moments.iter().map(line).collect()
    }

    #[test]
    fn a_cutover_and_a_rollback_each_have_their_own() {
        let plan = [planned("fence", "mysql.fence"), planned("switch", "traffic.file")];
        let stage = StageName::Cutover;
        let mut events = vec![
            (0, Event::StageStarted { stage }),
            (1, intent("fence", Action::Run)),
            (2, Event::UndoFinished { failed: Default::default(), seconds: 0.0 }),
            (1_000, Event::StageStarted { stage }),
            (1_100, Event::WriteGapStarted { step: "fence".to_owned(), limit_seconds: 30.0 }),
            (1_100, intent("fence", Action::Run)),
            (1_200, done("fence", Action::Run, 0.09)),
            (1_300, intent("switch", Action::Run)),
            (1_400, done("switch", Action::Run, 0.1)),
            (1_400, Event::PointOfNoReturn { step: "switch".to_owned() }),
            (1_500, Event::WriteGapEnded { seconds: 0.4, switched: true }),
            (1_600, Event::StageDone { stage }),
            (9_000, Event::RollbackStarted),
            (9_500, intent("switch", Action::Undo)),
        ];
        let found = timelines(&recorded(events.clone()), &plan);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].of.as_str(), found[0].seconds), ("cutover", 0.6));
        assert_eq!(
            lines(&found[0]),
            [
                "0.1 writes are held from here on Said None",
                "0.1 fence Done Some(0.09)",
                "0.3 switch Done Some(0.1)",
                "0.4 the point of no return is passed Said None",
                "0.5 writes are let through Said None",
            ]
        );
        assert_eq!(lines(&found[1]), ["0.5 undo of switch Running None"]);
        events.extend([
            (9_600, done("switch", Action::Undo, 0.1)),
            (9_700, Event::UndoFinished { failed: Default::default(), seconds: 0.2 }),
            (9_800, Event::UndoStarted { why: String::new(), scope: UndoScope::Everything, then: AfterUndo::Certify }),
        ]);
        let found = timelines(&recorded(events), &plan);
        assert_eq!(lines(&found[1]), ["0.5 undo of switch Done Some(0.1)"]);
    }

    #[test]
    fn a_cutover_that_was_undone_shows_how() {
        let plan = [planned("fence", "mysql.fence")];
        let stage = StageName::Cutover;
        let then = AfterUndo::End { verdict: Verdict::Interrupted };
        let events = recorded(vec![
            (0, Event::StageStarted { stage }),
            (10, intent("fence", Action::Run)),
            (20, done("fence", Action::Run, 0.01)),
            (30, Event::UndoStarted { why: "w".to_owned(), scope: UndoScope::Stage { stage }, then }),
            (30, intent("fence", Action::Undo)),
            (40, done("fence", Action::Undo, 0.01)),
            (50, Event::UndoFinished { failed: Default::default(), seconds: 0.02 }),
        ]);
        let found = timelines(&events, &plan);
        assert_eq!(
            lines(&found[0]),
            ["0.0 fence Done Some(0.01)", "0.0 what was done is undone, newest first Said None", "0.0 undo of fence Done Some(0.01)",]
        );
        assert!(timelines(&events[1..], &plan).is_empty());
    }
}
