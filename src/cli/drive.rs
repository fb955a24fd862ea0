//! What `rehearse`, `run`, `verify`, `cutover` and `undo` share: load, build, plan, ask, drive, tell.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Refusal, broken_playbook};
use super::arguments::Driving;
use super::certificate;
use super::go_ahead;
use super::planning;
use super::reading::{self, Reading};
use super::rollback;
use super::settings::{self, Everywhere, GoAhead};
use super::signals::Signals;
use super::undo;
use super::verify::can_repair;
use crate::engine::certificate::trace;
use crate::engine::context::RunKind;
use crate::engine::deadline::Deadline;
use crate::engine::held::noted;
use crate::engine::journal::{Journal, JournalReader};
use crate::engine::outcome::{RunOutcome, Verdict};
use crate::engine::run::{Limits, Rehearsed, RunRequest, drive as drive_run};
use crate::playbook::model::{Playbook, StageName};
use crate::playbook::reference::Resolver;
use crate::report::held::{self, Held};
use crate::report::{gather, model, terminal};
use crate::steps;
use crate::telemetry::progress;

/// What one of these commands asks for.
pub struct Request<'a> {
    /// Its name.
    pub command: &'static str,
    /// What every driving command may be told.
    pub driving: &'a Driving,
    /// Rehearsal or production.
    pub kind: RunKind,
    /// The last stage.
    pub until: StageName,
    /// A stage whose tasks run again though it is done.
    pub again: Option<StageName>,
    /// Whether services go on after it.
    pub keep_services: bool,
    /// By when everything must be done or undone: typed, to be resolved against the playbook. `None`: no deadline, whatever the playbook says.
    pub deadline: Option<Option<&'a str>>,
    /// What forecasts are multiplied with, as typed.
    pub margin: Option<f64>,
    /// How long to wait for a handover; `None`: don't ask for one.
    pub take_over: Option<Duration>,
    /// Why there was no rehearsal, as typed.
    pub without_rehearsal: Option<&'a str>,
    /// Undo everything at the end and issue a certificate.
    pub rollback_after: bool,
    /// Undo all that the run made instead of going on with it.
    pub give_up: bool,
    /// Point clients back to the source, with what they wrote on the target.
    pub roll_back: bool,
    /// Have the comparison copy rows that differ once more.
    pub repair: bool,
    /// What a rehearsal runs under.
    pub load: Option<super::rehearse::UnderLoad>,
    /// What would happen, for the question; `None`: needs no go-ahead.
    pub dangerous: Option<&'static str>,
}

/// What a driving command says as JSON.
#[derive(Serialize)]
struct Data<'a> {
    run: &'a str,
    playbook: &'a str,
    kind: &'a str,
    verdict: &'a model::Verdict,
    undone: &'a [String],
    not_undone: Vec<NotUndone<'a>>,
    write_gap_seconds: Option<f64>,
    certificate: Option<&'a str>,
    report: Option<&'a Path>,
}

#[derive(Serialize)]
struct NotUndone<'a> {
    step: &'a str,
    error: &'a str,
}

/// Loads a playbook, with its mistakes laid out for this terminal.
///
/// # Errors
/// If it can't be used.
pub fn load(everywhere: &Everywhere, path: &Path) -> Result<Playbook, Refusal> {
    crate::playbook::load(path, steps::vocabulary()).map_err(|error| broken_playbook(path, &error, everywhere.columns, everywhere.colour))
}

/// Drives a run as asked.
///
/// # Errors
/// If it could not be driven; how a driven run ended is in the answer.
pub async fn drive(everywhere: &Everywhere, request: Request<'_>) -> Result<Answer, Refusal> {
    let path = &request.driving.playbook;
    let playbook = load(everywhere, path)?;
    let mut run_request = resolve(everywhere, &request, &playbook)?;
    let reading = Reading::open(&everywhere.state_directory, &playbook.playbook, request.kind)?;
    let max_write_gap = if run_request.new_run { run_request.max_write_gap } else { run_request.max_write_gap_in(&reading.control) };
    let resolver = Resolver::new(reading.outputs.clone());
    let built = if request.repair {
        built_to_repair(&playbook, request.kind, &resolver).await?
    } else {
        steps::build_all(&playbook, request.kind, &resolver).await?
    };
    run_request.load = request.load.as_ref().map(|load| load.asked(&built)).transpose()?;
    run_request.guards.clone_from(&built.guards);
    run_request.hooks.clone_from(&built.hooks);
    if let Some(action) = request.dangerous
        && everywhere.go_ahead != GoAhead::Given
    {
        // As the driver will have it, which looks for itself.
        let asked = RunRequest { max_write_gap, ..run_request.clone() };
        let plan = if request.give_up {
            undo::plan(everywhere, &playbook.playbook, request.kind, &built)?
        } else if request.roll_back {
            rollback::plan(everywhere, &playbook.playbook, &asked, &built)?
        } else {
            let planned = planning::plan(&asked, &built, &reading).await?;
            let data = serde_json::to_value(&planned).unwrap_or_default();
            go_ahead::Plan { playbook: playbook.playbook.clone(), shown: planning::text(&planned), data }
        };
        go_ahead::ask(everywhere, plan, &format!("{action} of `{}`", playbook.playbook))?;
    }
    drop(reading);

    // From here on, not before: at the question Ctrl-C simply ends the process.
    let (signals, cancel) = (Signals::listen()?, CancellationToken::new());
    let journal = Journal::open(&everywhere.state_directory)?;
    let observer = progress::observer(everywhere.progress, &everywhere.screen);
    let driven = drive_run(run_request, built.steps, built.leases, journal.clone(), observer, cancel.clone());
    let held = || held_now(&journal, &playbook.playbook, request.kind).map(|held| everywhere.typed.held(&held));
    let outcome = signals.guard(driven, &cancel, &everywhere.screen, held).await?;
    answer(everywhere, &request, &journal, &outcome, path)
}

/// What becomes of the writes that the run being driven holds, as far as the journal can be read.
fn held_now(journal: &Journal, playbook: &str, kind: RunKind) -> Option<Held> {
    let reader = journal.reader().ok()?;
    let run = reader.runs().ok()?.into_iter().find(|run| run.playbook == playbook && run.kind == kind)?.run;
    let state = reader.state(&run).ok()?;
    let noted = noted(&reader, &run, held::hold(&state)?).ok()?;
    held::held(&state, noted)
}

/// The steps with `repair` asked of the comparison in stage `verify`. To the run it is the same playbook: only this driver was asked.
async fn built_to_repair(playbook: &Playbook, kind: RunKind, resolver: &Resolver) -> Result<steps::Built, Refusal> {
    let mut asked = playbook.clone();
    for spec in asked.stages.verify.iter_mut().filter(|spec| can_repair(spec)) {
        spec.with.insert("repair".to_owned(), serde_json::Value::Bool(true));
    }
    let mut built = steps::build_all(&asked, kind, resolver).await?;
    for built in &mut built.steps {
        if let Some((_, spec)) = playbook.stages.iter().find(|(_, spec)| spec.id == built.spec.id) {
            built.spec = spec.clone();
        }
    }
    Ok(built)
}

/// Everything typed, resolved against the playbook and the journal.
fn resolve(everywhere: &Everywhere, request: &Request<'_>, playbook: &Playbook) -> Result<RunRequest, Refusal> {
    let deadline: Option<Deadline> = match request.deadline {
        Some(typed) => settings::deadline(typed, playbook)?,
        None => None,
    };
    let rehearsed = match request.without_rehearsal {
        Some(reason) if reason.trim().is_empty() => {
            return Err(Refusal::usage("`--without-rehearsal`: the reason is empty")
                .hint("it goes into journal and report: say why, for whoever reads them"));
        }
        Some(reason) => Rehearsed::Without { reason: reason.trim().to_owned() },
        None => {
            let certificate = match reading::journal(&everywhere.state_directory)? {
                Some(reader) => {
                    let issued = reader.certificates(&playbook.playbook)?.pop();
                    if let Some(issued) = &issued
                        && asks_for_certificate(&reader, request, &playbook.playbook)?
                    {
                        certificate::refuse(&trace(issued, &reader)?)?;
                    }
                    issued.map(|issued| issued.certificate)
                }
                None => None,
            };
            Rehearsed::Certificate(certificate.map(Box::new))
        }
    };
    Ok(RunRequest {
        playbook: Arc::new(playbook.clone()),
        // Whoever reads the journal later may stand in another directory.
        playbook_file: std::path::absolute(&request.driving.playbook).ok(),
        kind: request.kind,
        until: request.until,
        keep_services: request.keep_services,
        deadline,
        deadline_typed: matches!(request.deadline, Some(Some(_))),
        max_write_gap: settings::max_write_gap(request.driving.max_write_gap.as_deref(), playbook)?,
        max_write_gap_typed: request.driving.max_write_gap.is_some(),
        margin: settings::margin(request.margin)?,
        rollback_after: request.rollback_after,
        certificate_lifetime: settings::certificate_lifetime(playbook)?,
        accept_drift: request.driving.accept_changes,
        new_run: request.driving.new_run,
        again: request.again,
        give_up: request.give_up,
        roll_back: request.roll_back,
        take_over: request.take_over,
        rehearsed,
        load: None,
        // Known when the steps are built.
        guards: Vec::new(),
        hooks: Vec::new(),
        limits: Limits::default(),
    })
}

/// Whether a command is going to ask for a certificate that holds. A rollback asks for its times only; what gives a run up, or goes on behind
/// the switch or with an undo, asks for none: a journal that was altered must not keep clients where they are.
fn asks_for_certificate(reader: &JournalReader, request: &Request<'_>, playbook: &str) -> Result<bool, Refusal> {
    if request.kind == RunKind::Rehearsal || request.until < StageName::Cutover || request.roll_back || request.give_up {
        return Ok(false);
    }
    let Some(latest) = reader.latest_run(playbook, request.kind)?.filter(|_| !request.driving.new_run) else { return Ok(true) };
    let state = reader.state(&latest.run)?;
    Ok(!state.switched() && state.undo.as_ref().is_none_or(|undo| undo.finished))
}

/// The summary of a driven run; writes `report.json` beside the journal.
fn answer(everywhere: &Everywhere, request: &Request<'_>, journal: &Journal, outcome: &RunOutcome, path: &Path) -> Result<Answer, Refusal> {
    let exit_code = outcome.exit_code();
    let reader = journal.reader()?;
    let mut report = gather::report(&reader, &outcome.run, Some(path), Timestamp::now())?;
    if matches!(outcome.verdict, Verdict::LeaseLost { .. }) {
        // A driver that lost its lease may not write this into the journal, so only this process can say it.
        report.verdict.outcome = model::Outcome::LeaseLost;
        report.verdict.sentence = outcome.verdict.to_string();
        report.verdict.hint = Some(
            "look with `dbmove status` at the other run; if that is given up, `dbmove undo PLAYBOOK --state-dir DIRECTORY` undoes it, with the state directory that it has"
                .to_owned(),
        );
        report.verdict.exit_code = Some(exit_code.code());
        report.next = vec!["dbmove status".to_owned(), format!("dbmove report {}", outcome.run)];
    }
    everywhere.typed.report(&mut report);
    let file: PathBuf = everywhere.state_directory.join(format!("report-{}.json", outcome.run));
    let written = super::report::write(&report, &file);
    if let Err(error) = &written {
        tracing::warn!(error = %error.message, "The report was not written; `dbmove report` makes it from the journal.");
    }
    let data = Data {
        run: &outcome.run,
        playbook: &report.run.playbook,
        kind: &report.run.kind,
        verdict: &report.verdict,
        undone: &outcome.undone,
        not_undone: outcome.not_undone.iter().map(|(step, error)| NotUndone { step, error }).collect(),
        write_gap_seconds: outcome.write_gap_seconds,
        certificate: outcome.certificate.as_ref().map(|certificate| certificate.hash.as_str()),
        report: written.is_ok().then_some(file.as_path()),
    };
    Ok(Answer::new(request.command, exit_code, &data, &report.next, terminal::summary(&report)))
}
