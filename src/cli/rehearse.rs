//! `dbmove rehearse`: every stage, the switch and the way back on the rehearsal pair; leaves a certificate.

use super::answer::{Answer, Refusal};
use super::arguments::Rehearse;
use super::drive::{Request, drive};
use super::settings::Everywhere;
use crate::engine::context::RunKind;
use crate::playbook::model::StageName;

/// Runs the command. Needs no go-ahead: production is not touched, which the registry sees to.
///
/// # Errors
/// If the rehearsal could not be driven.
pub async fn rehearse(everywhere: &Everywhere, typed: &Rehearse) -> Result<Answer, Refusal> {
    let request = Request {
        command: "rehearse",
        driving: &typed.driving,
        kind: RunKind::Rehearsal,
        until: StageName::Settle,
        again: None,
        keep_services: false,
        deadline: None,
        margin: None,
        take_over: None,
        without_rehearsal: None,
        rollback_after: true,
        give_up: false,
        roll_back: false,
        repair: false,
        dangerous: None,
    };
    drive(everywhere, request).await
}
