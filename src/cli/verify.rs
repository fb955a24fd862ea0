//! `dbmove verify`: compares every row once more, now.
//!
//! Rows that users are writing can only be compared by whoever follows the source, and only one may follow. So this is the run itself, driven once more
//! through its stage `verify`: it takes over from a running `dbmove run`, catches up, compares, and leaves what it found in the
//! journal like every other verification. With `--repair` rows that differ are copied once more and everything is
//! compared again. Afterwards `dbmove run` goes on following.

use super::answer::{Answer, Refusal};
use super::arguments::{Driving, Verify};
use super::drive::{Request, drive, load};
use super::reading;
use super::settings::{Everywhere, duration};
use crate::engine::context::RunKind;
use crate::playbook::model::{StageName, StepSpec};
use crate::report::next;

/// Runs the command. Exit code 3 if rows differ. Needs no go-ahead: what it goes on with was begun with one.
///
/// # Errors
/// If nothing was copied yet, or the run could not be driven.
pub async fn verify(everywhere: &Everywhere, typed: &Verify) -> Result<Answer, Refusal> {
    let playbook = load(everywhere, &typed.playbook)?;
    if playbook.stages.verify.is_empty() {
        return Err(Refusal::usage(format!(
            "the playbook `{}` has no step in its stage `verify`; nothing was compared",
            playbook.playbook
        ))
        .hint("add `verify: [ { id: rows, run: mysql.verify, store: … } ]` to its stages"));
    }
    if typed.repair && !playbook.stages.verify.iter().any(can_repair) {
        return Err(Refusal::usage(format!(
            "no step in the stage `verify` of the playbook `{}` compares every row, so none can repair; nothing was compared",
            playbook.playbook
        ))
        .hint("`--repair` needs a `mysql.verify` with `scope: all`, which is the default"));
    }
    let run = format!("dbmove run {}", next::playbook_word("", Some(&typed.playbook)));
    if !is_copied(everywhere, &playbook.playbook)? {
        return Err(Refusal::usage(format!("no run of `{}` has copied anything yet, so there is nothing to compare", playbook.playbook))
            .hint(format!("`{run}` copies and compares"))
            .next([run]));
    }
    let driving = Driving { playbook: typed.playbook.clone(), new_run: false, accept_changes: typed.accept_changes, max_write_gap: None };
    let request = Request {
        command: "verify",
        driving: &driving,
        kind: RunKind::Production,
        until: StageName::Verify,
        again: Some(StageName::Verify),
        keep_services: false,
        deadline: None,
        margin: None,
        take_over: Some(duration("--take-over", &typed.take_over)?),
        without_rehearsal: None,
        rollback_after: false,
        give_up: false,
        roll_back: false,
        repair: typed.repair,
        load: None,
        dangerous: None,
    };
    drive(everywhere, request).await
}

/// Whether a step compares every row, and so can copy those again that differ.
pub(super) fn can_repair(spec: &StepSpec) -> bool {
    spec.run == "mysql.verify" && spec.with.get("scope").is_none_or(|scope| scope == "all")
}

/// True if the newest production run has brought its copy to the end.
fn is_copied(everywhere: &Everywhere, playbook: &str) -> Result<bool, Refusal> {
    let Some(reader) = reading::journal(&everywhere.state_directory)? else { return Ok(false) };
    Ok(match reader.latest_run(playbook, RunKind::Production)? {
        Some(latest) => {
            let state = reader.state(&latest.run)?;
            [StageName::Prepare, StageName::Sync]
                .into_iter()
                .all(|stage| state.stage_done(stage) || state.plan.iter().all(|planned| planned.stage != stage))
        }
        None => false,
    })
}
