//! States of runs for the tests of this module, folded from events as a journal's are.

use crate::engine::context::RunKind;
use crate::engine::drift::PlaybookFingerprint;
use crate::engine::journal::{Event, PlannedStep, RecordedEvent, RunStarted, RunState};
use crate::playbook::model::StageName;

/// A run of the playbook `shop` with these steps, in which these events happened. The step `switch` is the point of no return.
pub fn folded(kind: RunKind, steps: &[(&str, StageName)], events: Vec<Event>) -> RunState {
    let planned = |(id, stage): &(&str, StageName)| PlannedStep {
        id: (*id).to_owned(),
        name: "test".to_owned(),
        stage: *stage,
        service: false,
        keeps_way_back: false,
        point_of_no_return: *id == "switch",
        question: None,
    };
    let started = Event::RunStarted(RunStarted {
        playbook: "shop".to_owned(),
        playbook_file: None,
        fingerprint: PlaybookFingerprint::default(),
        kind,
        dbmove_version: String::new(),
        steps: steps.iter().map(planned).collect(),
    });
    let record = |event| RecordedEvent { sequence: 1, run: "r".to_owned(), at: jiff::Timestamp::UNIX_EPOCH, event, hash: String::new() };
    let events: Vec<RecordedEvent> = std::iter::once(started).chain(events).map(record).collect();
    RunState::fold(&events).expect("it begins with the start of a run")
}
