//! `dbmove rollback`: after the switch, clients back to the source with everything they wrote on the target since. Takes over from the
//! `dbmove cutover` that keeps the way back open.
//!
//! Until the route is put back a failure, a budget or Ctrl-C leaves clients on the target. What is done is told in the engine's `way_back`.

use std::fmt::Write as _;

use super::answer::{Answer, Refusal};
use super::arguments::{Driving, Rollback};
use super::drive::{Request, drive, load};
use super::go_ahead;
use super::settings::{Everywhere, duration};
use super::undo::newest;
use crate::engine::context::RunKind;
use crate::engine::run::RunRequest;
use crate::playbook::model::StageName;
use crate::steps::Built;
use crate::telemetry::printable::printable;

/// Runs the command. Exit code 0 if clients are on the source again.
///
/// # Errors
/// If there is no run, there is no go-ahead, or the run could not be driven.
pub async fn rollback(everywhere: &Everywhere, typed: &Rollback) -> Result<Answer, Refusal> {
    let playbook = load(everywhere, &typed.playbook)?;
    newest(everywhere, &playbook.playbook, RunKind::Production, "roll back")?;
    let driving = Driving {
        playbook: typed.playbook.clone(),
        new_run: false,
        accept_changes: typed.accept_changes,
        max_write_gap: typed.max_write_gap.clone(),
    };
    let request = Request {
        command: "rollback",
        driving: &driving,
        kind: RunKind::Production,
        until: StageName::Settle,
        again: None,
        keep_services: false,
        deadline: typed.deadline.as_deref().map(Some),
        margin: None,
        take_over: Some(duration("--take-over", &typed.take_over)?),
        without_rehearsal: None,
        rollback_after: false,
        give_up: false,
        roll_back: true,
        repair: false,
        load: None,
        dangerous: Some("point the production traffic back to the source"),
    };
    drive(everywhere, request).await
}

/// What would be done.
///
/// # Errors
/// If there is no run.
pub fn plan(everywhere: &Everywhere, playbook: &str, request: &RunRequest, built: &Built) -> Result<go_ahead::Plan, Refusal> {
    let state = newest(everywhere, playbook, RunKind::Production, "roll back")?;
    let gap = request.max_write_gap.as_secs_f64();
    let back: Vec<&str> = built.steps.iter().filter(|built| built.step.keeps_way_back()).map(|built| built.spec.id.as_str()).collect();
    let route = state.point_of_no_return().map(|planned| planned.id.clone()).unwrap_or_default();
    let guards: Vec<String> = built.guards.iter().map(|built| format!("`{}`", built.spec.id)).collect();
    let mut lines = vec![
        format!("wait until the source has nearly all of what the target has logged ({})", back.join(", ")),
        format!("hold writes on the target, for {gap:.0} s at most; close clients there; carry the rest back and compare it"),
        format!("put the route back ({route}); until then any failure leaves clients on the target"),
        "let clients write on the source".to_owned(),
    ];
    if !guards.is_empty() {
        lines.push(format!("meanwhile no guard is watched ({}): none of them keeps clients on the target", guards.join(", ")));
    }
    let mut shown = format!("rollback of run {} of `{}`\n\n", printable(&state.run), printable(playbook));
    for (number, line) in lines.iter().enumerate() {
        // Writing into a String does not fail.
        let _ = writeln!(shown, "  {}. {}", number + 1, printable(line));
    }
    let data = serde_json::json!({ "run": state.run, "does": lines });
    Ok(go_ahead::Plan { playbook: playbook.to_owned(), shown, data })
}
