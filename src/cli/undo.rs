//! `dbmove undo`: gives a run up; all that it made is undone, newest first. Takes over from a running `dbmove run`.
//!
//! The source serves before and after, so nothing is lost but the work. Behind the point of no return it refuses: what clients have
//! written on the target since would be lost. Afterwards the run is over, and `--new-run` starts another one.

use std::fmt::Write as _;

use serde::Serialize;

use super::answer::{Answer, Refusal};
use super::arguments::{Driving, Undo};
use super::drive::{Request, drive, load};
use super::go_ahead;
use super::reading;
use super::settings::{Everywhere, duration};
use crate::engine::context::RunKind;
use crate::engine::journal::{RunState, UndoScope};
use crate::engine::outcome::ExitCode;
use crate::engine::step::Undoable;
use crate::playbook::model::StageName;
use crate::report::{next, status};
use crate::steps::Built;
use crate::telemetry::printable::printable;

/// Runs the command. Exit code 0 if nothing of the run is left.
///
/// # Errors
/// If there is nothing to undo, there is no go-ahead, or the run could not be driven.
pub async fn undo(everywhere: &Everywhere, typed: &Undo) -> Result<Answer, Refusal> {
    let kind = if typed.rehearsal { RunKind::Rehearsal } else { RunKind::Production };
    let playbook = load(everywhere, &typed.playbook)?;
    newest(everywhere, &playbook.playbook, kind, "undo")?;
    let driving = Driving { playbook: typed.playbook.clone(), new_run: false, accept_changes: typed.accept_changes, max_write_gap: None };
    let request = Request {
        command: if typed.rehearsal { "undo --rehearsal" } else { "undo" },
        driving: &driving,
        kind,
        until: StageName::Settle,
        again: None,
        keep_services: false,
        deadline: None,
        margin: None,
        take_over: Some(duration("--take-over", &typed.take_over)?),
        without_rehearsal: None,
        rollback_after: false,
        give_up: true,
        roll_back: false,
        repair: false,
        load: None,
        dangerous: Some(if typed.rehearsal { "undo the rehearsal" } else { "undo the production run" }),
    };
    drive(everywhere, request).await
}

/// The newest run of a playbook, if it is not over, for what a command `does` with it.
///
/// # Errors
/// If there is none, or it is over.
pub(super) fn newest(everywhere: &Everywhere, playbook: &str, kind: RunKind, does: &str) -> Result<RunState, Refusal> {
    let word = status::kind_word(kind);
    let state = match reading::journal(&everywhere.state_directory)? {
        Some(reader) => match reader.latest_run(playbook, kind)? {
            Some(latest) => Some(reader.state(&latest.run)?),
            None => None,
        },
        None => None,
    };
    let Some(state) = state else {
        return Err(Refusal::usage(format!(
            "there is no {word} run of `{playbook}` in `{}`, so there is nothing to {does}",
            everywhere.state_directory.display()
        ))
        .hint("`--state-dir` says where the journal lies"));
    };
    if state.finished.as_ref().is_some_and(|finished| finished.concluded) {
        let report = format!("dbmove report {}", next::shell_word(&state.run));
        return Err(Refusal::new(
            ExitCode::Refused,
            format!("the {word} run `{}` of `{playbook}` is over; nothing was touched", state.run),
        )
        .hint(format!("`{report}` shows how it ended"))
        .next([report]));
    }
    Ok(state)
}

#[derive(Serialize)]
struct Line<'a> {
    step: &'a str,
    name: &'a str,
    does: String,
}

/// What would be undone, newest first.
///
/// # Errors
/// If there is no run.
pub fn plan(everywhere: &Everywhere, playbook: &str, kind: RunKind, built: &Built) -> Result<go_ahead::Plan, Refusal> {
    let state = newest(everywhere, playbook, kind, "undo")?;
    let begun = state.begun_in(UndoScope::Everything);
    let steps = begun.iter().filter_map(|id| built.steps.iter().find(|built| built.spec.id == *id));
    let lines: Vec<Line<'_>> = steps
        .map(|built| Line {
            step: &built.spec.id,
            name: built.step.name(),
            does: match built.step.undoable() {
                Undoable::Yes => built.step.undo_does(),
                Undoable::Nothing => "nothing to undo".to_owned(),
                Undoable::No(why) => format!("can't be undone: {why}"),
            },
        })
        .collect();
    let mut shown = format!("undo of run {} of `{}`, newest step first\n\n", printable(&state.run), printable(playbook));
    for line in &lines {
        // Writing into a String does not fail.
        let _ = writeln!(shown, "  {} ({}): {}", printable(line.step), printable(line.name), printable(&line.does));
    }
    if lines.is_empty() {
        shown.push_str("  no step has begun; the run is only closed\n");
    }
    let data = serde_json::json!({ "run": state.run, "steps": lines });
    Ok(go_ahead::Plan { playbook: playbook.to_owned(), shown, data })
}
