//! `dbmove run`: prepare, sync and verify on production; then follows on until the cutover takes over.

use super::answer::{Answer, Refusal};
use super::arguments::Run;
use super::drive::{Request, drive};
use super::settings::Everywhere;
use crate::engine::context::RunKind;
use crate::playbook::model::StageName;

/// Runs the command.
///
/// # Errors
/// If the run could not be driven, or there is no go-ahead.
pub async fn run(everywhere: &Everywhere, typed: &Run) -> Result<Answer, Refusal> {
    let request = Request {
        command: "run",
        driving: &typed.driving,
        kind: RunKind::Production,
        until: StageName::Verify,
        again: None,
        keep_services: !typed.no_follow,
        deadline: None,
        margin: None,
        take_over: None,
        without_rehearsal: None,
        rollback_after: false,
        give_up: false,
        roll_back: false,
        repair: false,
        load: None,
        dangerous: Some("prepare, copy and verify the production stores"),
    };
    drive(everywhere, request).await
}
