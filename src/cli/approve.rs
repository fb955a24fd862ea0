//! `dbmove approve`: a person's yes to what a step of a run asks. Works beside a running driver and with none running.
//!
//! Only a run can be approved, so there has to be one: see [`approval`] for why a yes is not kept for a run that has
//! not begun.

use serde::Serialize;

use super::answer::{Answer, Refusal};
use super::arguments::Approve;
use super::drive::load;
use super::reading;
use super::settings::Everywhere;
use crate::engine::approval::{self, Answer as Given, ApprovalError, Yes};
use crate::engine::context::RunKind;
use crate::engine::drift::PlaybookFingerprint;
use crate::engine::journal::{Journal, JournalReader};
use crate::engine::outcome::ExitCode;
use crate::playbook::model::Playbook;
use crate::report::{next, status, terminal};
use crate::telemetry::printable::printable;

/// What the command says as JSON.
#[derive(Serialize)]
struct Data<'a> {
    run: &'a str,
    playbook: &'a str,
    step: &'a str,
    question: &'a str,
    by: &'a str,
    reason: Option<&'a str>,
    at: jiff::Timestamp,
    playbook_hash: &'a str,
    /// False if it stood already.
    recorded: bool,
}

/// Runs the command. Needs no go-ahead: it is one.
///
/// # Errors
/// If there is no such run or step, or the yes would count for nothing. Nothing was recorded then.
pub async fn approve(everywhere: &Everywhere, typed: &Approve) -> Result<Answer, Refusal> {
    let playbook = load(everywhere, &typed.playbook)?;
    let word = next::playbook_word("", Some(&typed.playbook));
    let by = who(typed.by.as_deref())?;
    check_reason(typed.reason.as_deref())?;
    let fingerprint = PlaybookFingerprint::of(&playbook)
        .map_err(|error| Refusal::usage(format!("playbook `{}` can't be written as JSON: {error}", playbook.playbook)))?;
    let run = run_of(reading::journal(&everywhere.state_directory)?, &playbook, &word)?;

    let journal = Journal::open(&everywhere.state_directory)?;
    let yes = Yes { step: typed.step.clone(), playbook_hash: fingerprint.whole, by, reason: typed.reason.clone() };
    let answer = approval::approve(&journal, &run, yes).await.map_err(|error| refusal(&error, &word))?;
    let (given, recorded) = match &answer {
        Given::Recorded(given) => (given, true),
        Given::Stood(given) => (given, false),
    };
    let status = status::of_run(&journal.reader()?, &run, jiff::Timestamp::now())?;
    let next = everywhere.typed.commands(&next::commands(&journal.reader()?.state(&run)?, status.outcome, Some(&typed.playbook)));
    let approval = &given.approval;
    let mut text = format!(
        "{}: step `{}` of run {}, by {} at {:.0}{}\n  {}\n",
        if recorded { "APPROVED" } else { "APPROVED ALREADY, nothing was recorded" },
        printable(&approval.step),
        printable(&run),
        printable(&approval.by),
        given.at,
        approval.reason.as_ref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default(),
        printable(&approval.question),
    );
    text.push_str(&terminal::next_lines(&next));
    let data = Data {
        run: &run,
        playbook: &playbook.playbook,
        step: &approval.step,
        question: &approval.question,
        by: &approval.by,
        reason: approval.reason.as_deref(),
        at: given.at,
        playbook_hash: &approval.playbook_hash,
        recorded,
    };
    Ok(Answer::new("approve", ExitCode::Done, &data, &next, text))
}

/// The run that a yes is for: the newest production run. Where there are only rehearsals the newest of them, which refuses it in
/// its own words.
fn run_of(reader: Option<JournalReader>, playbook: &Playbook, word: &str) -> Result<String, Refusal> {
    let name = &playbook.playbook;
    if let Some(reader) = reader {
        for kind in [RunKind::Production, RunKind::Rehearsal] {
            if let Some(latest) = reader.latest_run(name, kind)? {
                return Ok(latest.run);
            }
        }
    }
    let run = format!("dbmove run {word}");
    Err(Refusal::usage(format!("no run of `{name}` has begun, and an approval is for one run; nothing was recorded"))
        .hint(format!("`{run}` begins one; it ends at the step that asks, touches nothing there, and names the command that approves it"))
        .next([run]))
}

fn refusal(error: &ApprovalError, word: &str) -> Refusal {
    let run = format!("dbmove run {word}");
    let asking = |asking: &[String]| match asking {
        [] => "no step of this playbook asks for approval; add one with `run: gate.approve`".to_owned(),
        steps => format!("steps that ask: {}", steps.iter().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", ")),
    };
    let refusal = Refusal::new(error.exit_code(), error.to_string());
    match error {
        ApprovalError::Journal(_) | ApprovalError::Nameless => refusal,
        ApprovalError::Rehearsal { .. } => {
            refusal.hint(format!("the production run asks; `{run}` begins it, and once it has begun the approval can be given")).next([run])
        }
        ApprovalError::Finished { run: over, .. } => {
            refusal.hint(format!("`{run} --new-run` begins another one")).next([format!("dbmove report {}", next::shell_word(over))])
        }
        ApprovalError::ChangedPlaybook { .. } => refusal
            .hint("give the run's own command with `--accept-changes` first; it ends at the step that asks, and can be approved then")
            .next([format!("{run} --accept-changes")]),
        ApprovalError::UnknownStep { asking: steps, .. } | ApprovalError::AsksNothing { asking: steps, .. } => refusal.hint(asking(steps)),
    }
}

/// Who acts, by `--by` or else by login name.
///
/// # Errors
/// If the name that was typed is empty.
pub fn who(typed: Option<&str>) -> Result<String, Refusal> {
    match typed {
        Some(name) if name.trim().is_empty() => {
            Err(Refusal::usage("`--by`: the name is empty; nothing was recorded").hint("name who says it"))
        }
        Some(name) => Ok(name.to_owned()),
        None => Ok(login_name()),
    }
}

/// Refuses a reason that says nothing.
///
/// # Errors
/// If it is empty.
pub fn check_reason(typed: Option<&str>) -> Result<(), Refusal> {
    if typed.is_some_and(|reason| reason.trim().is_empty()) {
        return Err(Refusal::usage("`--reason`: the reason is empty; nothing was recorded").hint("leave `--reason` out, or say why"));
    }
    Ok(())
}

/// The name of the user who is logged in: `LOGNAME` or `USER`, else the account's name, else its number.
fn login_name() -> String {
    let named = ["LOGNAME", "USER"].into_iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.trim().is_empty()));
    named.unwrap_or_else(|| {
        let id = rustix::process::getuid().as_raw();
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        account_name(&accounts, id).unwrap_or_else(|| format!("user id {id}"))
    })
}

/// The name of an account in the system's list of them.
fn account_name(accounts: &str, id: u32) -> Option<String> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_number() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(account_name(accounts, 1000).as_deref(), Some("alice"));
        assert_eq!(account_name(accounts, 0).as_deref(), Some("root"));
        assert_eq!(account_name(accounts, 7), None);
    }
}
