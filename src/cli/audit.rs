//! `dbmove audit`: whether the journal's hash chain holds, and where it breaks.

use serde::Serialize;

use super::answer::{Answer, Refusal};
use super::settings::Everywhere;
use crate::engine::journal::JournalReader;
use crate::engine::journal::chain::Audit;
use crate::engine::outcome::ExitCode;
use crate::telemetry::printable::printable;

/// What the command says as JSON.
#[derive(Serialize)]
struct Data<'a> {
    intact: bool,
    journal: &'a std::path::Path,
    events: u64,
    head: &'a str,
    broken: Option<String>,
    audit: &'a Audit,
}

/// Runs the command. Exit code 1 if the chain is broken.
///
/// # Errors
/// If there is no journal, or it can't be read at all.
pub fn audit(everywhere: &Everywhere) -> Result<Answer, Refusal> {
    let reader = JournalReader::open(&everywhere.state_directory)?;
    let audit = reader.audit()?;
    let broken = audit.broken.as_ref().map(ToString::to_string);
    let (exit_code, text) = match &broken {
        None => (
            ExitCode::Done,
            format!(
                "INTACT: {} events, head {}\nKeep the head elsewhere: a history rewritten as a whole shows by it.\n",
                audit.intact,
                printable(&audit.head.hash)
            ),
        ),
        Some(broken) => (
            ExitCode::Error,
            format!("BROKEN: {}\n{} events before it are intact; what comes after it can't be trusted.\n", printable(broken), audit.intact),
        ),
    };
    let next = vec![everywhere.typed.command(if broken.is_none() { "dbmove report" } else { "dbmove status" })];
    let data =
        Data { intact: broken.is_none(), journal: reader.path(), events: audit.intact, head: &audit.head.hash, broken, audit: &audit };
    Ok(Answer::new("audit", exit_code, &data, &next, text))
}
