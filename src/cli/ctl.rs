//! `dbmove ctl`: tells the driver of a run to pause, slow down, wait or end. What each means is in [`control`].

use jiff::Timestamp;
use serde::Serialize;

use super::answer::{Answer, Refusal};
use super::approve::{approve, check_reason, who};
use super::arguments::{Approve, Ctl, CtlAct};
use super::drive::load;
use super::settings::Everywhere;
use crate::engine::context::RunKind;
use crate::engine::control::setting::Setting;
use crate::engine::control::socket::{self, AskError};
use crate::engine::control::{self, Act, Live, Request, VERSION};
use crate::engine::journal::JournalReader;
use crate::engine::outcome::ExitCode;
use crate::engine::steering::Limit;
use crate::report::model::Outcome;
use crate::report::next::{playbook_word, shell_word};
use crate::report::status::{RunStatus, of_run};
use crate::report::terminal;
use crate::telemetry::describe;
use crate::telemetry::printable::printable;

/// What the command says as JSON.
#[derive(Serialize)]
struct Data<'a> {
    run: &'a str,
    act: Option<String>,
    /// False if it stood already.
    taken: bool,
    message: &'a str,
    status: &'a RunStatus,
    live: Option<&'a Live>,
}

/// Runs the command. Needs no go-ahead: whoever types it means it, and nothing of it loses data.
///
/// # Errors
/// If nobody drives the run, or the driver does not take what it is told. Nothing was changed then.
pub async fn ctl(everywhere: &Everywhere, typed: &Ctl) -> Result<Answer, Refusal> {
    if let CtlAct::Approve { step } = &typed.act {
        return approve_step(everywhere, typed, step).await;
    }
    let act = act(&typed.act)?;
    let by = who(typed.by.as_deref())?;
    check_reason(typed.reason.as_deref())?;
    let reader = JournalReader::open(&everywhere.state_directory)?;
    let run = driven(everywhere, &reader, typed)?;
    let request = Request { version: VERSION, run: run.clone(), act: act.clone(), by, reason: typed.reason.clone() };
    let reply = socket::ask(&everywhere.state_directory, &request).await.map_err(|error| not_asked(&error))?;
    let again =
        |message: &str| format!("{message} (`{}` was not done)", act.as_ref().map_or_else(|| "status".to_owned(), |act| act.to_string()));
    let (taken, message, live) = match reply.answer {
        control::Answer::Taken { message } => (true, message, None),
        control::Answer::Stood { message } => (false, message, None),
        control::Answer::Live(live) => (false, String::new(), Some(live)),
        control::Answer::Refused { message } => {
            return Err(Refusal::new(ExitCode::Refused, again(&message)).next([format!("dbmove status {}", shell_word(&run))]));
        }
        control::Answer::Failed { message } => {
            return Err(Refusal::new(ExitCode::Error, message).next([format!("dbmove status {}", shell_word(&run))]));
        }
    };
    let mut status = of_run(&reader, &run, Timestamp::now())?;
    everywhere.typed.status(&mut status);
    let mut text = String::new();
    if let Some(act) = &act {
        text.push_str(&format!("{}: {}\n", if taken { shouted(act) } else { "NOTHING TO DO".to_owned() }, printable(&message)));
        for line in status.control.lines().into_iter().chain(status.guards.lines(&status.rollback)) {
            text.push_str(&terminal::block("  ", &line));
        }
    } else {
        text.push_str(&terminal::status(&status));
        for (step, progress) in live.iter().flat_map(|live| &live.steps) {
            let words = [describe::figures(progress), describe::circumstances(progress)].join(" ");
            text.push_str(&format!("  {}: {}\n", printable(step), words.trim()));
        }
        for (guard, found) in live.iter().flat_map(|live| &live.guards) {
            text.push_str(&format!("  guard {}: {}\n", printable(guard), printable(found)));
        }
    }
    text.push_str(&terminal::next_lines(&status.next));
    let data = Data { run: &run, act: act.map(|act| act.to_string()), taken, message: &message, status: &status, live: live.as_deref() };
    Ok(Answer::new("ctl", ExitCode::Done, &data, &status.next, text))
}

/// `PAUSE`; what is set keeps its spelling: `SET guard.lag=off`.
fn shouted(act: &Act) -> String {
    match act {
        Act::Set { setting } => format!("SET {setting}"),
        act => act.to_string().to_uppercase(),
    }
}

/// A yes is for one playbook, so the playbook has to be named. It is taken with or without a driver.
async fn approve_step(everywhere: &Everywhere, typed: &Ctl, step: &str) -> Result<Answer, Refusal> {
    let Some(playbook) = typed.playbook.clone() else {
        return Err(Refusal::usage("an approval is for one playbook, so it has to be named; nothing was recorded").hint(format!(
            "`dbmove ctl PLAYBOOK approve {}`, or `dbmove approve PLAYBOOK {}`",
            shell_word(step),
            shell_word(step)
        )));
    };
    approve(everywhere, &Approve { playbook, step: step.to_owned(), by: typed.by.clone(), reason: typed.reason.clone() }).await
}

/// What was typed, as an act; nothing for `status`.
fn act(typed: &CtlAct) -> Result<Option<Act>, Refusal> {
    Ok(Some(match typed {
        // Nothing that a driver is told: an approval needs none.
        CtlAct::Status | CtlAct::Approve { .. } => return Ok(None),
        CtlAct::Pause => Act::Pause,
        CtlAct::Resume => Act::Resume,
        CtlAct::Throttle { rate } if rate == "off" => Act::Unthrottle,
        CtlAct::Throttle { rate } => {
            Act::Throttle { limit: rate.parse::<Limit>().map_err(|error| Refusal::usage(format!("{error}; nothing was changed")))? }
        }
        CtlAct::HoldCutover => Act::HoldCutover,
        CtlAct::Go => Act::Go,
        CtlAct::Abort => Act::Abort,
        CtlAct::Set { setting } => {
            let setting = Setting::parse(setting, &jiff::ZonedDateTime::now());
            Act::Set { setting: setting.map_err(|error| Refusal::usage(format!("{error}; nothing was changed")))? }
        }
    }))
}

/// The run that is meant: the one named, or the one of the playbook that is being driven.
fn driven(everywhere: &Everywhere, reader: &JournalReader, typed: &Ctl) -> Result<String, Refusal> {
    let now = Timestamp::now();
    let mut found = Vec::new();
    let (what, word) = match (&typed.run, &typed.playbook) {
        (Some(run), _) => {
            found.push(of_run(reader, run, now)?);
            (format!("run `{run}`"), None)
        }
        (None, Some(path)) => {
            let name = load(everywhere, path)?.playbook;
            for kind in [RunKind::Production, RunKind::Rehearsal] {
                if let Some(latest) = reader.latest_run(&name, kind)? {
                    found.push(of_run(reader, &latest.run, now)?);
                }
            }
            (format!("a run of `{name}`"), Some(playbook_word(&name, Some(path))))
        }
        (None, None) => return Err(Refusal::usage("name a playbook, or a run with `--run`")),
    };
    let running: Vec<&RunStatus> = found.iter().filter(|status| status.outcome == Outcome::Running).collect();
    match running[..] {
        [status] => Ok(status.run.clone()),
        [] => {
            let stands = found.first().map(|status| format!("; the newest one: {}", printable(&status.sentence))).unwrap_or_default();
            let mut next = found.first().map(|status| status.next.clone()).unwrap_or_default();
            if next.is_empty() {
                next.extend(word.map(|word| format!("dbmove run {word}")));
            }
            Err(Refusal::new(ExitCode::Error, format!("nobody drives {what}, so there is nobody to tell{stands}; nothing was changed"))
                .hint("`ctl` steers a run while it is driven; an approval or an undo needs no driver: `dbmove approve PLAYBOOK STEP`, `dbmove undo PLAYBOOK`")
                .next(next))
        }
        _ => {
            let runs: Vec<String> = running.iter().map(|status| format!("`{}` ({})", status.run, status.kind)).collect();
            Err(Refusal::usage(format!("{} of them are being driven: {}; nothing was changed", runs.len(), runs.join(", ")))
                .hint("say which with `--run`"))
        }
    }
}

fn not_asked(error: &AskError) -> Refusal {
    let hint = match error {
        AskError::Nobody { .. } => {
            "its driver is starting, ending, on another machine, or of an older build; `dbmove status` names it. Ctrl-C in its terminal ends it"
        }
        AskError::Io { .. } => "`dbmove status` shows whether it was taken; Ctrl-C in the driver's terminal ends it",
    };
    let changed = if matches!(error, AskError::Nobody { .. }) { "nothing was changed" } else { "whether it was taken is not known" };
    Refusal::new(ExitCode::Error, format!("{error}; {changed}")).hint(hint).next(["dbmove status".to_owned()])
}
