//! `dbmove cutover`: everything that remains, inside the deadline, or back to where it was. Takes over from a running `dbmove run`.

use super::answer::{Answer, Refusal};
use super::arguments::Cutover;
use super::drive::{Request, drive};
use super::settings::{Everywhere, duration};
use crate::engine::context::RunKind;
use crate::playbook::model::StageName;

/// Runs the command.
///
/// # Errors
/// If the run could not be driven, or there is no go-ahead.
pub async fn cutover(everywhere: &Everywhere, typed: &Cutover) -> Result<Answer, Refusal> {
    let request = Request {
        command: "cutover",
        driving: &typed.driving,
        kind: RunKind::Production,
        until: StageName::Settle,
        again: None,
        keep_services: false,
        deadline: Some(typed.deadline.as_deref()),
        margin: typed.margin,
        take_over: Some(duration("--take-over", &typed.take_over)?),
        without_rehearsal: typed.without_rehearsal.as_deref(),
        rollback_after: false,
        give_up: false,
        roll_back: false,
        repair: false,
        load: None,
        dangerous: Some("switch the production traffic"),
    };
    drive(everywhere, request).await
}
