//! The commands that make sense now: what every JSON ends with, and what a person is shown last.

use std::path::Path;

use super::model::Outcome;
use crate::engine::context::RunKind;
use crate::engine::journal::{AfterUndo, RunState};
use crate::engine::outcome::Verdict;
use crate::playbook::model::StageName;

/// A word as a shell takes it.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@=:,".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// How the playbook of a run is written on a command line: its path if it is known, else the name that `playbook new` gives its file.
#[must_use]
pub fn playbook_word(playbook: &str, path: Option<&Path>) -> String {
    shell_word(&path.map_or_else(|| format!("{playbook}.yaml"), |path| path.display().to_string()))
}

/// The command that gives the approval a run waits for, unless it was given since.
#[must_use]
pub fn approval(state: &RunState, path: Option<&Path>) -> Option<String> {
    let path = path.or(state.playbook_file.as_deref());
    match state.finished.as_ref().map(|finished| &finished.verdict) {
        Some(Verdict::WaitingForApproval { step, .. }) if state.approval(step).is_none() => {
            Some(format!("dbmove approve {} {}", playbook_word(&state.playbook, path), shell_word(step)))
        }
        _ => None,
    }
}

/// Whether a run was refused for want of a certificate that holds.
fn wants_a_rehearsal(state: &RunState) -> bool {
    match state.finished.as_ref().map(|finished| &finished.verdict) {
        Some(Verdict::Refused { step: None, hint: Some(hint), .. }) => hint.contains("`dbmove rehearse"),
        _ => false,
    }
}

/// The command that gives a run up.
#[must_use]
pub fn undo(state: &RunState) -> String {
    let rehearsal = if state.kind == RunKind::Rehearsal { " --rehearsal" } else { "" };
    format!("dbmove undo {}{rehearsal}", playbook_word(&state.playbook, state.playbook_file.as_deref()))
}

/// The command that points clients back.
#[must_use]
pub fn rollback(state: &RunState) -> String {
    format!("dbmove rollback {}", playbook_word(&state.playbook, state.playbook_file.as_deref()))
}

/// The text with `PLAYBOOK` in the commands that it names (each between backquotes) written as this playbook's word. What the engine says is kept in
/// the journal, and it does not know how a command line writes the playbook.
#[must_use]
pub fn with_playbook(text: &str, word: &str) -> String {
    in_commands(text, |command| command.split(' ').map(|part| if part == "PLAYBOOK" { word } else { part }).collect::<Vec<_>>().join(" "))
}

/// Where the backquote is that ends a command: not one that is quoted as part of a word, as in the reason of `--without-rehearsal`.
fn end_of_command(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    let end = text.char_indices().find(|(_, c)| {
        let plain = !std::mem::replace(&mut escaped, *c == '\\' && !quoted);
        quoted ^= plain && *c == '\'';
        *c == '`' && !quoted
    });
    end.map(|(end, _)| end).or_else(|| text.find('`'))
}

/// The text with each command of dbmove's that it names between backquotes changed.
#[must_use]
pub fn in_commands(text: &str, change: impl Fn(&str) -> String) -> String {
    let mut changed = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find("`dbmove ") {
        let (before, from) = rest.split_at(begin + 1);
        let Some(end) = end_of_command(from) else { break };
        changed.push_str(before);
        changed.push_str(&change(&from[..end]));
        rest = &from[end..];
    }
    changed.push_str(rest);
    changed
}

/// The command that goes on with a run from where it is, or that begins another one where it is over.
fn again(state: &RunState, playbook: &str) -> String {
    let concluded = state.finished.as_ref().is_some_and(|finished| finished.concluded);
    let giving_up = state.undo.as_ref().is_some_and(|undo| undo.then == AfterUndo::End { verdict: Verdict::Undone });
    // A step keeps the number of its last attempt when it is undone.
    let reached_cutover = state.plan.iter().any(|planned| planned.stage >= StageName::Cutover && state.step(&planned.id).attempt > 0);
    let mut command = match state.kind {
        // What ends in a certificate goes on to it, whatever of it is being undone. Only what was given up has none any more.
        RunKind::Rehearsal if giving_up && !concluded => return format!("dbmove undo {playbook} --rehearsal"),
        RunKind::Rehearsal => format!("dbmove rehearse {playbook}"),
        RunKind::Production if concluded => format!("dbmove run {playbook}"),
        RunKind::Production if state.rolling_back() => format!("dbmove rollback {playbook}"),
        RunKind::Production if giving_up || state.rolled_back() => format!("dbmove undo {playbook}"),
        RunKind::Production if state.stage_done(StageName::Verify) || reached_cutover => format!("dbmove cutover {playbook}"),
        RunKind::Production => format!("dbmove run {playbook}"),
    };
    if concluded {
        command.push_str(" --new-run");
    }
    if state.kind == RunKind::Rehearsal && !state.load_options.is_empty() {
        command = format!("{command} {}", state.load_options);
    }
    let ahead = command.starts_with("dbmove cutover") && !state.switched() && !state.stage_done(StageName::Cutover);
    if let Some(reason) = state.without_rehearsal.as_ref().filter(|_| ahead && state.unrehearsed) {
        command = format!("{command} --without-rehearsal {}", shell_word(reason));
    }
    command
}

/// What makes sense after (or beside) a run. Without `path` the playbook is where it was when the run began.
#[must_use]
pub fn commands(state: &RunState, outcome: Outcome, path: Option<&Path>) -> Vec<String> {
    let playbook = playbook_word(&state.playbook, path.or(state.playbook_file.as_deref()));
    let report = format!("dbmove report {}", shell_word(&state.run));
    let again = again(state, &playbook);
    let back = (state.kind == RunKind::Production && state.way_back_stands() && !state.rolling_back()).then(|| rollback(state));
    match outcome {
        Outcome::Running if state.control.paused.is_some() => vec![format!("dbmove ctl {playbook} resume"), "dbmove status".to_owned()],
        Outcome::Running => vec!["dbmove status".to_owned()],
        Outcome::WaitingForApproval => approval(state, path).into_iter().chain([again, report]).collect(),
        Outcome::Crashed | Outcome::Interrupted | Outcome::HandedOver => [again].into_iter().chain(back).chain([report]).collect(),
        Outcome::Undone => vec![report, again],
        Outcome::RolledBack => vec![report, again],
        Outcome::LeaseLost => vec!["dbmove status".to_owned(), report],
        Outcome::Done if state.kind == RunKind::Rehearsal => {
            vec![format!("dbmove run {playbook}"), report]
        }
        Outcome::Done if state.stage_done(StageName::Cutover) => vec![report, "dbmove audit".to_owned()],
        Outcome::Done => vec![again, report],
        Outcome::Differences => [report].into_iter().chain(back).chain([format!("dbmove verify {playbook}")]).collect(),
        Outcome::Refused if wants_a_rehearsal(state) => vec![format!("dbmove rehearse {playbook}"), report, again],
        Outcome::StoppedByGuard | Outcome::UndoneByGuard => vec![report, again],
        Outcome::Failed | Outcome::Refused | Outcome::DeadlineMissed | Outcome::WriteGapExceeded => {
            [report, again].into_iter().chain(back).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::journal::{Action, Event, StepResult, UndoScope};
    use crate::engine::outcome::Serving;
    use crate::engine::step::Output;
    use crate::report::testing::folded;

    #[test]
    fn quotes_what_a_shell_would_split() {
        assert_eq!(shell_word("a/b-c.yaml"), "a/b-c.yaml");
        assert_eq!(shell_word("my book's.yaml"), r"'my book'\''s.yaml'");
        assert_eq!(playbook_word("school", None), "school.yaml");
        assert_eq!(playbook_word("school", Some(Path::new("x y.yaml"))), "'x y.yaml'");
    }

    #[test]
    fn only_commands_name_the_playbook() {
        let text =
            "`PLAYBOOK` is a word, `dbmove undo PLAYBOOK` drops `it`, then `dbmove run PLAYBOOK --new-run`, and `dbmove run PLAYBOOK";
        assert_eq!(
            with_playbook(text, "'x y.yaml'"),
            "`PLAYBOOK` is a word, `dbmove undo 'x y.yaml'` drops `it`, then `dbmove run 'x y.yaml' --new-run`, and `dbmove run PLAYBOOK"
        );
        let quoted = r"give `dbmove cutover PLAYBOOK --without-rehearsal 'see `it'\''s`'`, which isn't `it`";
        assert_eq!(in_commands(quoted, |command| format!("{command} END")), quoted.replace("'`,", "' END`,"));
        assert_eq!(
            in_commands("it isn't `dbmove run 'x` or `y`", |command| format!("{command} END")),
            "it isn't `dbmove run 'x END` or `y`"
        );
    }

    fn state(kind: RunKind, events: Vec<Event>) -> RunState {
        folded(kind, &[("copy", StageName::Sync), ("fence", StageName::Cutover), ("switch", StageName::Cutover)], events)
    }

    /// Steps that began and were done, each in its stage.
    fn done(stage: StageName, steps: &[&str]) -> Vec<Event> {
        let mut events = vec![Event::StageStarted { stage }];
        for step in steps {
            let (step, attempt, action) = ((*step).to_owned(), 1, Action::Run);
            events.push(Event::Intent { step: step.clone(), attempt, action, key: String::new() });
            let result = StepResult::Done { output: Output::default() };
            events.push(Event::Outcome { step, attempt, action, result, seconds: 0.1, settled: false });
        }
        events
    }

    fn undo_begins(scope: UndoScope, then: AfterUndo) -> Event {
        Event::UndoStarted { why: "why".to_owned(), scope, then }
    }

    fn undone(steps: &[&str]) -> Vec<Event> {
        let result = || StepResult::Done { output: Output::default() };
        let undo = |step: &&str| Event::Outcome {
            step: (*step).to_owned(),
            attempt: 1,
            action: Action::Undo,
            result: result(),
            seconds: 0.1,
            settled: false,
        };
        steps.iter().map(undo).chain([Event::UndoFinished { failed: std::collections::BTreeMap::new(), seconds: 0.1 }]).collect()
    }

    fn finished(verdict: Verdict, concluded: bool) -> Event {
        Event::RunFinished { verdict, serving: Serving::Source, concluded }
    }

    fn first(kind: RunKind, events: &[Event], outcome: Outcome) -> String {
        let commands = commands(&state(kind, events.to_vec()), outcome, None);
        commands.into_iter().find(|command| !command.starts_with("dbmove report")).unwrap()
    }

    const CUTOVER: UndoScope = UndoScope::Stage { stage: StageName::Cutover };

    fn rolled_back(then: AfterUndo) -> Vec<Event> {
        let mut events = done(StageName::Cutover, &["fence", "switch"]);
        events.extend([Event::RollbackStarted, undo_begins(CUTOVER, then)]);
        events.extend(undone(&["switch", "fence"]));
        events
    }

    /// A rollback stays on record for ever; what there is to do about it does not.
    #[test]
    fn what_is_over_is_begun_anew_and_not_undone_again() {
        let production = |events: &[Event], outcome| first(RunKind::Production, events, outcome);
        let mut events = rolled_back(AfterUndo::End { verdict: Verdict::RolledBack });
        events.push(finished(Verdict::RolledBack, false));
        assert_eq!(production(&events, Outcome::RolledBack), "dbmove undo shop.yaml");
        events.push(undo_begins(UndoScope::Everything, AfterUndo::End { verdict: Verdict::Undone }));
        assert_eq!(production(&events, Outcome::Crashed), "dbmove undo shop.yaml");
        events.extend(undone(&["copy"]));
        events.push(finished(Verdict::Undone, true));
        assert_eq!(production(&events, Outcome::Undone), "dbmove run shop.yaml --new-run");

        // A cutover that was tried and undone does not make the next one a whole move by one command.
        let mut events = done(StageName::Cutover, &["fence"]);
        events.push(undo_begins(CUTOVER, AfterUndo::StartAgain));
        events.extend(undone(&["fence"]));
        assert_eq!(production(&events, Outcome::Crashed), "dbmove cutover shop.yaml");
        events.push(undo_begins(UndoScope::Everything, AfterUndo::End { verdict: Verdict::Undone }));
        events.extend(undone(&[]));
        events.push(finished(Verdict::Undone, true));
        assert_eq!(production(&events, Outcome::Undone), "dbmove run shop.yaml --new-run");
    }

    /// `undo` in the place of `rehearse` would throw away a certificate that is all but issued, and `rollback` is for production.
    #[test]
    fn a_rehearsal_goes_on_to_its_certificate() {
        let rehearsal = |events: &[Event], outcome| first(RunKind::Rehearsal, events, outcome);
        let mut events = done(StageName::Cutover, &["fence", "switch"]);
        events.extend([Event::RollbackStarted, undo_begins(CUTOVER, AfterUndo::EndRehearsal)]);
        assert_eq!(rehearsal(&events, Outcome::Crashed), "dbmove rehearse shop.yaml");
        let mut events = rolled_back(AfterUndo::EndRehearsal);
        events.push(undo_begins(UndoScope::Everything, AfterUndo::Certify));
        assert_eq!(rehearsal(&events, Outcome::Crashed), "dbmove rehearse shop.yaml");

        let too_slow = Verdict::Failed { step: None, message: "this target can't keep up".to_owned(), hint: None };
        let mut events = rolled_back(AfterUndo::EndRehearsal);
        events.push(undo_begins(UndoScope::Everything, AfterUndo::End { verdict: too_slow.clone() }));
        events.extend(undone(&["copy"]));
        events.push(finished(too_slow, true));
        assert_eq!(rehearsal(&events, Outcome::Failed), "dbmove rehearse shop.yaml --new-run");

        let mut events = done(StageName::Sync, &["copy"]);
        events.push(undo_begins(UndoScope::Everything, AfterUndo::End { verdict: Verdict::Undone }));
        assert_eq!(rehearsal(&events, Outcome::Crashed), "dbmove undo shop.yaml --rehearsal");
    }

    #[test]
    fn what_a_cutover_or_a_rehearsal_was_told_goes_with_it() {
        let mut events = done(StageName::Sync, &["copy"]);
        events.insert(0, Event::WithoutRehearsal { reason: "it's on fire".to_owned() });
        assert_eq!(first(RunKind::Production, &events, Outcome::Crashed), "dbmove run shop.yaml");
        events.extend(done(StageName::Cutover, &["fence"]));
        let without = r"dbmove cutover shop.yaml --without-rehearsal 'it'\''s on fire'";
        assert_eq!(first(RunKind::Production, &events, Outcome::Crashed), without);
        events.push(Event::CertificateAccepted { certificate: "c".to_owned() });
        assert_eq!(first(RunKind::Production, &events, Outcome::Crashed), "dbmove cutover shop.yaml");

        let asked = Event::LoadAsked { options: "--load 3x --load-for 10m".to_owned() };
        let started = Event::LoadStarted { asked: "3x".parse().unwrap() };
        let rehearsal = |events: &[Event]| first(RunKind::Rehearsal, events, Outcome::Crashed);
        assert_eq!(rehearsal(std::slice::from_ref(&started)), "dbmove rehearse shop.yaml --load 3x");
        assert_eq!(rehearsal(&[asked, started]), "dbmove rehearse shop.yaml --load 3x --load-for 10m");
    }
}
