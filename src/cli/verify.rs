//! `dbmove verify`: the playbook's `verify` steps, now, outside of any run. Writes neither to the stores nor to a journal, so it needs no lease and
//! works beside a running `dbmove run`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Refusal};
use super::arguments::Verify;
use super::reading::Reading;
use super::settings::Everywhere;
use super::signals::Signals;
use crate::engine::context::RunKind;
use crate::engine::journal::{Action, Event, RecordedError, RecordedEvent, StepResult};
use crate::engine::observer::Observer;
use crate::engine::outcome::ExitCode;
use crate::engine::run::BuiltStep;
use crate::engine::step::{Failure, Output, StepError};
use crate::playbook::model::StageName;
use crate::playbook::reference::Resolver;
use crate::report::{model, next, status, terminal, verification};
use crate::steps;
use crate::telemetry::progress;

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(250);

/// What the command says as JSON.
#[derive(Serialize)]
struct Data<'a> {
    playbook: &'a str,
    kind: &'a str,
    /// `equal`, `different`, `incomplete`, or `unknown` where no step left figures.
    verdict: &'a str,
    verifications: &'a [model::Verification],
    errors: Vec<model::StepError>,
}

/// Runs the command. Exit code 3 if rows differ.
///
/// # Errors
/// If the playbook can't be used or verifies nothing.
pub async fn verify(everywhere: &Everywhere, typed: &Verify) -> Result<Answer, Refusal> {
    let kind = if typed.rehearsal { RunKind::Rehearsal } else { RunKind::Production };
    let playbook = super::drive::load(everywhere, &typed.playbook)?;
    let reading = Reading::open(&everywhere.state_directory, &playbook.playbook, kind, true)?;
    let built = steps::build_all(&playbook, kind, &Resolver::new(reading.outputs())).await?;
    let verifying: Vec<&BuiltStep> = built.steps.iter().filter(|step| step.stage == StageName::Verify).collect();
    if verifying.is_empty() {
        return Err(Refusal::usage(format!(
            "the playbook `{}` has no step in its stage `verify`; nothing was compared",
            playbook.playbook
        ))
        .hint("add `verify: [ { id: rows, run: mysql.verify, store: … } ]` to its stages"));
    }
    let observer = progress::observer(everywhere.progress, &everywhere.screen);
    let (signals, cancel) = (Signals::listen()?, CancellationToken::new());
    let work = compare(&verifying, &reading, &observer, &cancel);
    let (verifications, failures) = signals.guard(work, &cancel, &everywhere.screen).await;

    let exit_code = exit_code(&verifications, &failures, cancel.is_cancelled());
    let word = next::playbook_word("", Some(&typed.playbook));
    let next = match exit_code {
        ExitCode::Done => vec![format!("dbmove cutover {word}")],
        _ => vec![format!("dbmove verify {word}")],
    };
    let errors: Vec<model::StepError> =
        failures.iter().map(|failed| model::StepError { message: failed.message.clone(), hint: failed.hint.clone() }).collect();
    let text = terminal::verifications(exit_code, &verifications, &errors, &next);
    let data = Data {
        playbook: &playbook.playbook,
        kind: status::kind_word(kind),
        verdict: verdict(&verifications, exit_code),
        verifications: &verifications,
        errors,
    };
    Ok(Answer::new("verify", exit_code, &data, &next, text))
}

/// What all verifications together say.
fn verdict(verifications: &[model::Verification], exit_code: ExitCode) -> &'static str {
    match exit_code {
        ExitCode::Differences => "different",
        ExitCode::Done if verifications.is_empty() => "unknown",
        ExitCode::Done if verifications.iter().all(|found| found.verdict == "equal") => "equal",
        _ => "incomplete",
    }
}

/// The worst of what was found. Something that was not compared is no success.
fn exit_code(verifications: &[model::Verification], failures: &[StepError], cancelled: bool) -> ExitCode {
    let differ = verifications.iter().any(|found| found.verdict == "different")
        || failures.iter().any(|failed| failed.failure == Failure::Differences);
    match (differ, cancelled, failures.is_empty()) {
        (true, ..) => ExitCode::Differences,
        (false, true, _) => ExitCode::Interrupted,
        (false, false, false) => ExitCode::Error,
        (false, false, true) => ExitCode::Done,
    }
}

/// Runs the steps one after the other.
async fn compare(
    steps: &[&BuiltStep],
    reading: &Reading,
    observer: &Arc<dyn Observer>,
    cancel: &CancellationToken,
) -> (Vec<model::Verification>, Vec<StepError>) {
    let (mut verifications, mut failures) = (Vec::new(), Vec::new());
    for step in steps {
        let id = step.spec.id.as_str();
        let result = observed(step, reading, observer, cancel).await;
        let mut recorded = reading.recorded(id, verification::RESULT).unwrap_or_default();
        match result {
            Ok(mut output) if recorded.is_empty() => {
                recorded.extend(output.facts.remove(verification::RESULT).map(|fact| (String::new(), fact)))
            }
            Ok(_) => {}
            Err(failed) => failures.push(failed),
        }
        for (_, value) in recorded {
            match verification::read(id, &value) {
                Ok(found) => verifications.push(found),
                Err(message) => failures.push(StepError::definite(message)),
            }
        }
        if cancel.is_cancelled() {
            break;
        }
    }
    (verifications, failures)
}

/// Runs one step, telling the observer of it as the engine would.
async fn observed(
    step: &BuiltStep,
    reading: &Reading,
    observer: &Arc<dyn Observer>,
    cancel: &CancellationToken,
) -> Result<Output, StepError> {
    let id = step.spec.id.clone();
    let (context, seen) = reading.context(&id, cancel.child_token());
    // Told, not recorded: it has no number and no hash.
    let tell = |event| {
        observer.event(&RecordedEvent { sequence: 0, run: context.run.to_string(), at: Timestamp::now(), event, hash: String::new() })
    };
    tell(Event::Intent { step: id.clone(), attempt: 1, action: Action::Run, key: context.idempotency_key() });
    let began = tokio::time::Instant::now();
    let mut tick = tokio::time::interval(TICK);
    let result = {
        let work = step.step.run(&context);
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => break result,
                _ = tick.tick() => observer.step_progress(&id, &seen.borrow()),
            }
        }
    };
    let told = match &result {
        Ok(output) => StepResult::Done { output: output.clone() },
        Err(failed) if failed.failure == Failure::Cancelled => StepResult::Stopped,
        Err(failed) => StepResult::Failed { error: RecordedError::from(failed) },
    };
    tell(Event::Outcome {
        step: id.clone(),
        attempt: 1,
        action: Action::Run,
        result: told,
        seconds: began.elapsed().as_secs_f64(),
        settled: false,
    });
    result
}
