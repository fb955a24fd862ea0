//! `dbmove report`: what a run did, from its journal.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;

use super::answer::{Answer, Refusal};
use super::arguments::Report as Typed;
use super::settings::Everywhere;
use crate::engine::journal::JournalReader;
use crate::engine::outcome::ExitCode;
use crate::report::model::{self, Report};
use crate::report::{gather, terminal, verification};

/// Runs the command. `--json` prints `report.json` itself: it has its own version and ends with `next`.
///
/// # Errors
/// If there is no such run, or the file can't be written.
pub fn report(everywhere: &Everywhere, typed: &Typed) -> Result<Answer, Refusal> {
    if typed.schema {
        let schema = format!("{:#}", model::schema());
        return Ok(Answer { text: format!("{schema}\n"), json: schema, words: String::new(), exit_code: ExitCode::Done });
    }
    let reader = JournalReader::open(&everywhere.state_directory)?;
    let run = match &typed.run {
        Some(run) => run.clone(),
        None => match reader.runs()?.into_iter().next() {
            Some(newest) => newest.run,
            None => return Err(Refusal::usage("no run was started yet, so there is nothing to report")),
        },
    };
    let mut report = gather::report(&reader, &run, None, Timestamp::now())?;
    everywhere.typed.report(&mut report);
    if typed.redact {
        report.verifications.iter_mut().for_each(verification::redact);
    }
    let mut words = String::new();
    if let Some(file) = &typed.output {
        write(&report, file)?;
        words = format!("the report is in `{}`\n", file.display());
    }
    Ok(Answer { json: json(&report)?, text: terminal::summary(&report), words, exit_code: ExitCode::Done })
}

fn json(report: &Report) -> Result<String, Refusal> {
    serde_json::to_string_pretty(report)
        .map_err(|error| Refusal::new(ExitCode::Error, format!("the report can't be written as JSON: {error}")))
}

/// Writes `report.json`: all of it or nothing, readable by its owner alone, and never through a link: it may hold values of rows.
///
/// # Errors
/// If it can't be written; an older file is left as it was.
pub fn write(report: &Report, file: &Path) -> Result<(), Refusal> {
    write_whole(&json(report)?, file, "report")
}

/// Writes a text: all of it or nothing, readable by its owner alone, and never through a link.
///
/// # Errors
/// If it can't be written; an older file is left as it was.
pub fn write_whole(text: &str, file: &Path, what: &str) -> Result<(), Refusal> {
    let failed = |error: &std::io::Error| {
        Refusal::new(ExitCode::Error, format!("the {what} can't be written to `{}`: {error}; the file was left as it was", file.display()))
    };
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let draft = directory.join(format!(".dbmove-{what}-{}-{:08x}", std::process::id(), rand::random::<u32>()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options.open(&draft).and_then(|mut out| {
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.sync_all()?;
        std::fs::rename(&draft, file)
    });
    written.map_err(|error| {
        // Not there if it could not be made; either way nothing of ours stays.
        let _ = std::fs::remove_file(&draft);
        failed(&error)
    })
}
