//! `dbmove plan`: what every step would do and how long it should take. Touches nothing, and makes no state directory.

use std::sync::Arc;

use super::answer::{Answer, Refusal};
use super::arguments::Plan;
use super::planning;
use super::reading::Reading;
use super::settings::{self, Everywhere};
use crate::engine::context::RunKind;
use crate::engine::outcome::ExitCode;
use crate::engine::run::{Rehearsed, RunRequest};
use crate::playbook::model::StageName;
use crate::playbook::reference::Resolver;
use crate::report::next;
use crate::steps;

/// Runs the command. Exit code 1 if a step can't be planned; the others are shown all the same.
///
/// # Errors
/// If the playbook can't be used.
pub async fn plan(everywhere: &Everywhere, typed: &Plan) -> Result<Answer, Refusal> {
    let kind = if typed.rehearsal { RunKind::Rehearsal } else { RunKind::Production };
    let playbook = super::drive::load(everywhere, &typed.playbook)?;
    let reading = Reading::open(&everywhere.state_directory, &playbook.playbook, kind)?;
    let built = steps::build_all(&playbook, kind, &Resolver::new(reading.outputs.clone())).await?;
    let certificate = match super::reading::journal(&everywhere.state_directory)? {
        Some(reader) => reader.certificate(&playbook.playbook)?,
        None => None,
    };
    let has_pair = playbook.stores.values().any(|store| store.rehearsal.is_some());
    let mut request = RunRequest::new(Arc::new(playbook), kind, StageName::Settle);
    request.rehearsed = Rehearsed::Certificate(certificate.map(Box::new));
    if kind == RunKind::Production {
        request.deadline = settings::deadline(None, &request.playbook)?;
    }
    let planned = planning::plan(&request, &built, &reading).await?;
    let word = next::playbook_word("", Some(&typed.playbook));
    let command = if typed.rehearsal || has_pair { "rehearse" } else { "run" };
    let exit_code = if planned.failed { ExitCode::Error } else { ExitCode::Done };
    let next = if planned.failed { vec![format!("dbmove playbook check {word}")] } else { vec![format!("dbmove {command} {word}")] };
    let next = everywhere.typed.commands(&next);
    let mut text = planning::text(&planned);
    text.push_str(&crate::report::terminal::next_lines(&next));
    Ok(Answer::new("plan", exit_code, &planned, &next, text))
}
