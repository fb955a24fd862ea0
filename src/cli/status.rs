//! `dbmove status`: where the runs stand. Works from the journal alone, beside a running driver and without one.

use jiff::Timestamp;
use serde::Serialize;

use super::answer::{Answer, Refusal};
use super::arguments::Status;
use super::settings::Everywhere;
use crate::engine::journal::JournalReader;
use crate::engine::outcome::ExitCode;
use crate::report::status::{RunStatus, of_all, of_run};
use crate::report::terminal;

/// What the command says as JSON.
#[derive(Serialize)]
struct Data<'a> {
    runs: &'a [RunStatus],
}

/// Runs the command.
///
/// # Errors
/// If there is no journal or no such run (exit code 2), or the journal can't be read.
pub fn status(everywhere: &Everywhere, typed: &Status) -> Result<Answer, Refusal> {
    let reader = JournalReader::open(&everywhere.state_directory)?;
    let now = Timestamp::now();
    let mut runs = match &typed.run {
        Some(run) => vec![of_run(&reader, run, now)?],
        None => of_all(&reader, now)?,
    };
    runs.iter_mut().for_each(|run| everywhere.typed.status(run));
    let texts: Vec<String> = runs.iter().map(terminal::status).collect();
    let next = runs.first().map(|run| run.next.clone()).unwrap_or_default();
    let mut text = if texts.is_empty() { "no run was started yet\n".to_owned() } else { texts.join("\n") };
    text.push_str(&terminal::next_lines(&next));
    Ok(Answer::new("status", ExitCode::Done, &Data { runs: &runs }, &next, text))
}
