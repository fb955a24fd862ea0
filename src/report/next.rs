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
        Some(Verdict::Refused { step: None, hint: Some(hint), .. }) => hint.contains("`dbmove rehearse`"),
        _ => false,
    }
}

/// The command that points clients back.
#[must_use]
pub fn rollback(state: &RunState) -> String {
    format!("dbmove rollback {}", playbook_word(&state.playbook, state.playbook_file.as_deref()))
}

/// What makes sense after (or beside) a run. Without `path` the playbook is where it was when the run began.
#[must_use]
pub fn commands(state: &RunState, outcome: Outcome, path: Option<&Path>) -> Vec<String> {
    let playbook = playbook_word(&state.playbook, path.or(state.playbook_file.as_deref()));
    let report = format!("dbmove report {}", shell_word(&state.run));
    // A step keeps the number of its last attempt when it is undone.
    let reached_cutover = state.plan.iter().any(|planned| planned.stage >= StageName::Cutover && state.step(&planned.id).attempt > 0);
    let command = match state.kind {
        RunKind::Rehearsal => "rehearse",
        RunKind::Production if state.stage_done(StageName::Verify) || reached_cutover => "cutover",
        RunKind::Production => "run",
    };
    let giving_up = state.undo.as_ref().is_some_and(|undo| undo.then == AfterUndo::End { verdict: Verdict::Undone });
    let rolling_back = state.rolling_back();
    let giving_up = giving_up || state.rolled_back();
    let command = match (giving_up, state.kind) {
        (false, _) if rolling_back => "rollback",
        (false, _) => command,
        (true, RunKind::Production) => "undo",
        (true, RunKind::Rehearsal) => "undo --rehearsal",
    };
    let anew = if state.finished.as_ref().is_some_and(|finished| finished.concluded) { " --new-run" } else { "" };
    let again = format!("dbmove {command} {playbook}{anew}");
    let back = (state.kind == RunKind::Production && state.way_back_stands() && !rolling_back).then(|| rollback(state));
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

    #[test]
    fn quotes_what_a_shell_would_split() {
        assert_eq!(shell_word("a/b-c.yaml"), "a/b-c.yaml");
        assert_eq!(shell_word("my book's.yaml"), r"'my book'\''s.yaml'");
        assert_eq!(playbook_word("school", None), "school.yaml");
        assert_eq!(playbook_word("school", Some(Path::new("x y.yaml"))), "'x y.yaml'");
    }
}
