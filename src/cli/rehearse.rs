//! `dbmove rehearse`: every stage, the switch and the way back on the rehearsal pair; leaves a certificate.

use std::time::Duration;

use super::answer::{Answer, Refusal};
use super::arguments::Rehearse;
use super::drive::{Request, drive};
use super::settings::{self, Everywhere};
use crate::engine::context::RunKind;
use crate::engine::load::DEFAULT_AT_LEAST;
use crate::engine::load::multiple::Multiple;
use crate::mysql::replay::load::DEFAULT_WINDOW;
use crate::playbook::model::StageName;

/// The load that was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnderLoad {
    /// How many times production's own rate.
    pub multiple: Multiple,
    /// How far back its log is replayed.
    pub window: Duration,
    /// How long it runs at least before the cutover.
    pub at_least: Duration,
}

/// What was typed about load, if anything.
fn under_load(typed: &Rehearse) -> Result<Option<UnderLoad>, Refusal> {
    let Some(text) = &typed.load else { return Ok(None) };
    let multiple = text.parse().map_err(|error| Refusal::usage(format!("`--load`: {error}")))?;
    let window = typed.load_window.as_deref().map_or(Ok(DEFAULT_WINDOW), |text| settings::duration("--load-window", text))?;
    let at_least = typed.load_for.as_deref().map_or(Ok(DEFAULT_AT_LEAST), |text| settings::duration("--load-for", text))?;
    if window < Duration::from_secs(1) {
        return Err(Refusal::usage("`--load-window` is shorter than a second")
            .hint("old servers stamp their log by the second; `--load-window 1h` is the default"));
    }
    Ok(Some(UnderLoad { multiple, window, at_least }))
}

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
        load: under_load(typed)?,
        dangerous: None,
    };
    drive(everywhere, request).await
}
