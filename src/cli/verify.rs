//! `dbmove verify`: compares every row once more, now.
//!
//! Rows that users are writing can only be compared by whoever follows the source, and only one may follow. So this is the run itself, driven once more
//! through its stage `verify`: it takes over from a running `dbmove run`, catches up, compares, and leaves what it found in the
//! journal like every other verification. Afterwards `dbmove run` goes on following.

use super::answer::{Answer, Refusal};
use super::arguments::{Driving, Verify};
use super::drive::{Request, drive, load};
use super::reading;
use super::settings::{Everywhere, duration};
use crate::engine::context::RunKind;
use crate::playbook::model::StageName;
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
        dangerous: None,
    };
    drive(everywhere, request).await
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
