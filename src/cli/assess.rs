//! `dbmove assess`: what stands in the way of a migration. Needs no run, touches nothing, and makes no state directory. With `--try` it
//! also creates the schema on the rehearsal target, and drops it again.

use std::fmt::Write as _;

use serde::Serialize;

use super::answer::{Answer, Refusal};
use super::arguments::{Assess, FailOn};
use super::settings::Everywhere;
use super::stores::{Stores, refusal};
use crate::engine::context::RunKind;
use crate::engine::outcome::ExitCode;
use crate::mysql::assess::attempt::{self, Attempt, Trouble};
use crate::mysql::assess::gather::values::{Rows, SAMPLE};
use crate::mysql::assess::{self, Assessment, Finding, Level};
use crate::mysql::copies;
use crate::mysql::error::MysqlError;
use crate::mysql::steps::assess::AssessArguments;
use crate::playbook::model::Playbook;
use crate::report::{next, terminal};
use crate::telemetry::human::wrapped;
use crate::telemetry::printable::printable;

/// What the command says as JSON.
#[derive(Serialize)]
struct Data<'a> {
    playbook: &'a str,
    kind: &'static str,
    errors: usize,
    warnings: usize,
    infos: usize,
    stores: &'a [Assessment],
    #[serde(skip_serializing_if = "<[Attempt]>::is_empty")]
    tries: &'a [Attempt],
}

/// Runs the command. Exit code 4 if an error stands that the playbook does not accept (with `--fail-on`, a warning or anything).
///
/// # Errors
/// If the playbook can't be used or a server can't be read.
pub async fn assess(everywhere: &Everywhere, typed: &Assess) -> Result<Answer, Refusal> {
    let rehearsal = typed.rehearsal || typed.attempt;
    let kind = if rehearsal { RunKind::Rehearsal } else { RunKind::Production };
    let playbook = super::drive::load(everywhere, &typed.playbook)?;
    let looking = Stores::of(everywhere, &playbook, kind).await?;
    let run = looking.run;
    let mut stores: Vec<Assessment> = Vec::new();
    let mut tries = Vec::new();
    for (name, mysql) in &looking.mysql {
        let arguments = arguments(&playbook, name)?;
        let mut looking = arguments.looking();
        if typed.deep {
            looking.rows = Rows::All;
        }
        let assessed = assess::assess(mysql, run.as_deref(), &looking).await;
        let assessed = assessed.map_err(|error| refusal(error.into()))?;
        if typed.attempt {
            if let Some(production) = mysql.production.get() {
                copies::prove(mysql, production, false).await.map_err(refusal)?;
            }
            let tried = attempt::attempt(mysql, &assessed.findings).await;
            tries.push(tried.map_err(|error| match error {
                MysqlError::Cancelled => Refusal::new(ExitCode::Interrupted, "stopped on request; what was tried is dropped again"),
                error => Refusal { hint: error.hint(), ..Refusal::new(ExitCode::Error, error.to_string()) },
            })?);
        }
        stores.push(assessed);
    }
    let standing = |level| stores.iter().map(|store: &Assessment| store.standing(level)).sum::<usize>();
    let (errors, warnings, infos) = (standing(Level::Error), standing(Level::Warn), standing(Level::Info));
    let counted = match typed.fail_on {
        FailOn::Error => errors,
        FailOn::Warn => errors + warnings,
        FailOn::Info => errors + warnings + infos,
    };
    let failed = tries.iter().filter(|tried: &&Attempt| tried.not_tried.is_some() || tried.refused() > 0).count();
    let warned = tries.iter().map(Attempt::warned).sum::<usize>();
    let refused = counted > 0 || failed > 0 || (typed.fail_on != FailOn::Error && warned > 0);
    let exit_code = if refused { ExitCode::Refused } else { ExitCode::Done };
    let word = next::playbook_word("", Some(&typed.playbook));
    let next = if refused {
        vec![format!(
            "dbmove assess {word}{}",
            if typed.attempt {
                " --try"
            } else if typed.rehearsal {
                " --rehearsal"
            } else {
                ""
            }
        )]
    } else {
        vec![format!("dbmove plan {word}")]
    };
    let next = everywhere.typed.commands(&next);
    let word = if kind == RunKind::Rehearsal { "rehearsal" } else { "production" };
    let data = Data { playbook: &playbook.playbook, kind: word, errors, warnings, infos, stores: &stores, tries: &tries };
    let mut text: String = stores.iter().map(|store| self::text(store, everywhere.columns)).collect();
    tries.iter().for_each(|tried| text.push_str(&tried_text(tried, everywhere.columns)));
    text.push_str(&terminal::next_lines(&next));
    Ok(Answer::new("assess", exit_code, &data, &next, text))
}

/// What the playbook's own `mysql.assess` of the store is told; nothing, if it has none.
fn arguments(playbook: &Playbook, store: &str) -> Result<AssessArguments, Refusal> {
    let step = playbook.stages.iter().map(|(_, spec)| spec).find(|spec| spec.run == "mysql.assess" && spec.store.as_deref() == Some(store));
    let Some(step) = step else { return Ok(AssessArguments::default()) };
    serde_json::from_value(serde_json::Value::Object(step.with.clone()))
        .map_err(|error| Refusal::usage(format!("step `{}`: {error}; nothing was touched", step.id)))
}

/// One store for people, grouped by level.
fn text(assessment: &Assessment, columns: usize) -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        // Writing into a String does not fail.
        let _ = writeln!(text, "{}", wrapped(line, columns));
    };
    line(&format!("store `{}`: {} tables, {} checks", printable(&assessment.store), assessment.tables, assessment.checks));
    line(&format!("  {}", printable(&assessment.source)));
    line(&format!("  {}", printable(&assessment.target)));
    let rows = &assessment.rows;
    if rows.whole {
        line(&format!("  rows looked at: all {} of {} tables", rows.rows, rows.tables));
    } else if rows.tables > 0 {
        line(&format!(
            "  rows looked at: {} of {} tables, at most {SAMPLE} on each end of a key; `--deep` looks at all",
            rows.rows, rows.tables
        ));
    }
    for (level, heading) in [(Level::Error, "errors"), (Level::Warn, "warnings"), (Level::Info, "good to know")] {
        let of: Vec<&Finding> = assessment.findings.iter().filter(|finding| finding.stands(level)).collect();
        if !of.is_empty() {
            line(&format!("\n{heading}: {}", of.len()));
            findings(&of, &mut line);
        }
    }
    let accepted: Vec<&Finding> = assessment.findings.iter().filter(|finding| finding.accepted.is_some()).collect();
    if !accepted.is_empty() {
        line(&format!("\naccepted by the playbook: {}", accepted.len()));
        findings(&accepted, &mut line);
    }
    if !assessment.unused_acceptances.is_empty() {
        line(&format!("\naccepted, but not found: {}", assessment.unused_acceptances.len()));
        for unused in &assessment.unused_acceptances {
            let object = unused.object.as_ref().map(|object| format!(" for `{}`", printable(object))).unwrap_or_default();
            line(&format!("  {}{object}: take it out, or correct its object", printable(&unused.id)));
        }
    }
    if !assessment.not_looked_at.is_empty() {
        line(&format!("\nnot looked at: {}", assessment.not_looked_at.len()));
        for skipped in &assessment.not_looked_at {
            line(&format!("  {}: {} can't be read: {}", skipped.id, skipped.part.words(), printable(&skipped.why)));
        }
    }
    if !assessment.rows.unread.is_empty() {
        line(&format!("\nrows that could not be looked at: {} tables", assessment.rows.unread.len()));
        for table in &assessment.rows.unread {
            line(&format!("  `{}`: {}", printable(&table.table), printable(&table.why)));
        }
    }
    if assessment.findings.is_empty() {
        line("\nnothing found");
    }
    text
}

/// What trying brought, for people: what is refused and warned of one by one, what means nothing only counted.
fn tried_text(tried: &Attempt, columns: usize) -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        // Writing into a String does not fail.
        let _ = writeln!(text, "{}", wrapped(line, columns));
    };
    line(&format!("\nstore `{}` tried on the {}", printable(&tried.store), printable(&tried.target)));
    for database in &tried.cleaned {
        line(&format!("  dropped what an earlier try had left: `{}`", printable(database)));
    }
    if let Some(why) = &tried.not_tried {
        line(&format!("  not tried: {}", printable(why)));
        return text;
    }
    line(&format!(
        "  {} databases, {} tables, {} views, routines, triggers and events: {} statements, and all dropped again",
        tried.databases, tried.tables, tried.objects, tried.statements
    ));
    type Wanted = fn(&&Trouble) -> bool;
    let kinds: [(&str, Wanted); 2] =
        [("refused", |trouble| trouble.refused), ("warned of", |trouble| !trouble.refused && !trouble.tolerated)];
    for (heading, wanted) in kinds {
        let of: Vec<&Trouble> = tried.troubles.iter().filter(wanted).collect();
        if !of.is_empty() {
            line(&format!("\n{heading}: {}", of.len()));
        }
        for trouble in of {
            line(&format!("  {} `{}`: {} {}", trouble.kind, printable(&trouble.object), trouble.code, printable(&trouble.said)));
            let first: String = printable(&trouble.statement).chars().take(200).collect();
            line(&format!("    {first}"));
            if let (Some(check), Some(fix)) = (trouble.check, &trouble.fix) {
                line(&format!("    fix ({check}): {}", printable(fix)));
            }
        }
    }
    let tolerated = tried.troubles.iter().filter(|trouble| trouble.tolerated).count();
    if tolerated > 0 {
        line(&format!("\n{tolerated} warnings say that something is deprecated and change nothing; `--json` has them"));
    }
    if tried.troubles.len() == tolerated {
        line("\nevery statement was taken");
    }
    text
}

/// Findings under their ids: what is the same for all of an id is said once.
fn findings(findings: &[&Finding], line: &mut impl FnMut(&str)) {
    let mut ids: Vec<&str> = findings.iter().map(|finding| finding.id).collect();
    ids.dedup();
    for id in ids {
        let of: Vec<&&Finding> = findings.iter().filter(|finding| finding.id == id).collect();
        let Some(first) = of.first() else { continue };
        line(&format!("  {id} ({}): {}", of.len(), first.why));
        let mut fix = None;
        for finding in of {
            line(&format!("    `{}`: {}", printable(&finding.object), printable(&finding.found)));
            line(&format!("      {}: {}", printable(&finding.evidence.asked), printable(&finding.evidence.returned)));
            if let Some(reason) = &finding.accepted {
                line(&format!("      accepted: {}", printable(reason)));
            } else if fix != Some(&finding.fix) {
                line(&format!("      fix: {}", printable(&finding.fix)));
                fix = Some(&finding.fix);
            }
        }
    }
}
