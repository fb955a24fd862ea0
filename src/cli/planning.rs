//! What every step would do, and how long it should take: the whole of `plan`, and what is shown before a go-ahead.

use std::fmt::Write as _;

use serde::Serialize;

use super::answer::Refusal;
use super::reading::Reading;
use crate::engine::budget::Forecast;
use crate::engine::guards::BuiltGuard;
use crate::engine::guards::judge::Terms;
use crate::engine::moments::BuiltHook;
use crate::engine::run::{RunRequest, preview};
use crate::engine::step::{StepKind, Undoable};
use crate::playbook::model::{GuardAction, Moment};
use crate::playbook::quantity::HumanDuration;
use crate::report::status;
use crate::steps::Built;
use crate::telemetry::burn_down::burn_down;
use crate::telemetry::describe;
use crate::telemetry::human;
use crate::telemetry::printable::printable;

/// The plan of a playbook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// The playbook's name.
    pub playbook: String,
    /// `rehearsal` or `production`.
    pub kind: &'static str,
    /// Every step that was asked for, in order.
    pub steps: Vec<PlannedStep>,
    /// What is watched meanwhile.
    pub guards: Vec<PlannedGuard>,
    /// What is called at which moments.
    pub hooks: Vec<PlannedHook>,
    /// How long it should take, along the critical path.
    pub forecast: Forecast,
    /// True if a step could not be planned.
    pub failed: bool,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedStep {
    /// Its stage.
    pub stage: &'static str,
    /// Its id.
    pub id: String,
    /// What it does.
    pub name: String,
    /// The store it works on.
    pub store: Option<String>,
    /// True if it keeps running beside others.
    pub service: bool,
    /// True if it is the point of no return.
    pub point_of_no_return: bool,
    /// Whether it can be put back: `yes`, `nothing to undo`, or why not.
    pub undo: String,
    /// One action a line.
    pub lines: Vec<String>,
    /// What deserves attention.
    pub warnings: Vec<String>,
    /// How long it should take, in seconds.
    pub seconds: Option<f64>,
    /// Where that comes from, or what is missing.
    pub basis: String,
    /// True if nothing is done sooner by hurrying other steps.
    pub critical: bool,
    /// Why it could not be planned.
    pub error: Option<String>,
}

/// One hook of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedHook {
    /// Its id.
    pub id: String,
    /// The moments.
    pub at: Vec<Moment>,
    /// What it calls.
    pub calls: String,
    /// How long each call may take, in seconds.
    pub limit_seconds: f64,
}

/// One guard of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedGuard {
    /// Its id.
    pub id: String,
    /// What it looks at.
    pub watch: String,
    /// The store it looks at.
    pub store: Option<String>,
    /// What has to hold.
    pub condition: String,
    /// What is done when it does not: `pause`, `stop` or `undo`.
    pub then: GuardAction,
    /// When, and where: the durations and stages.
    pub terms: String,
    /// What deserves attention.
    pub remarks: Vec<String>,
}

fn planned_guard(built: &BuiltGuard) -> PlannedGuard {
    let terms = Terms::of(&built.spec);
    let of = |duration| HumanDuration(duration).to_string();
    let bad = if terms.bad_for.is_zero() { "at once".to_owned() } else { format!("after {}", of(terms.bad_for)) };
    let stages = match &built.spec.stages {
        Some(stages) => format!("in {}", stages.iter().map(|stage| format!("`{}`", stage.as_str())).collect::<Vec<_>>().join(", ")),
        None => "in every stage".to_owned(),
    };
    PlannedGuard {
        id: built.spec.id.clone(),
        watch: built.spec.watch.clone(),
        store: built.spec.store.clone(),
        condition: built.guard.condition(),
        then: built.spec.then,
        terms: format!(
            "{stages}, every {}; fires {bad}, is quiet after {}, and counts as bad after {} without an answer",
            of(terms.every),
            of(terms.quiet_for),
            of(terms.unseen_for)
        ),
        remarks: built.guard.remarks(),
    }
}

/// Plans every step up to the last stage asked for. A step that can't be planned has its error in its place; the others are still shown.
///
/// # Errors
/// If the steps don't fit together.
pub async fn plan(request: &RunRequest, built: &Built, reading: &Reading) -> Result<Planned, Refusal> {
    let (previews, forecast) = preview(request, built.steps.clone(), reading.rates.clone(), reading.outputs.clone()).await?;
    let mut steps = Vec::new();
    for preview in previews.into_iter().filter(|preview| preview.stage <= request.until) {
        let Some(built) = built.steps.iter().find(|built| built.spec.id == preview.step) else { continue };
        let expected = forecast.steps.iter().find(|step| step.step == preview.step);
        let error = [preview.plan.as_ref().err(), preview.estimate.as_ref().err()].into_iter().flatten().next().cloned();
        let plan = preview.plan.unwrap_or_default();
        steps.push(PlannedStep {
            stage: preview.stage.as_str(),
            id: preview.step,
            name: built.step.name().to_owned(),
            store: built.spec.store.clone(),
            service: built.step.kind() == StepKind::Service,
            point_of_no_return: preview.point_of_no_return,
            undo: match built.step.undoable() {
                Undoable::Yes => "yes".to_owned(),
                Undoable::Nothing => "nothing to undo".to_owned(),
                Undoable::No(why) => why,
            },
            lines: plan.lines,
            warnings: plan.warnings,
            seconds: expected.and_then(|step| step.seconds),
            basis: expected.map(|step| step.basis.clone()).unwrap_or_default(),
            critical: expected.is_some_and(|step| step.critical),
            error,
        });
    }
    let guards = built.guards.iter().map(planned_guard).collect();
    let planned_hook = |built: &BuiltHook| PlannedHook {
        id: built.spec.id.clone(),
        at: built.spec.at.clone(),
        calls: built.hook.shown(),
        limit_seconds: built.hook.limit().as_secs_f64(),
    };
    let hooks = built.hooks.iter().map(planned_hook).collect();
    let failed = steps.iter().any(|step| step.error.is_some());
    Ok(Planned {
        playbook: request.playbook.playbook.clone(),
        kind: status::kind_word(request.kind),
        steps,
        guards,
        hooks,
        forecast,
        failed,
    })
}

/// The plan for people.
#[must_use]
pub fn text(planned: &Planned) -> String {
    let mut text = String::new();
    // Writing into a String does not fail.
    let _ = writeln!(
        text,
        "{} of `{}`",
        if planned.kind == "rehearsal" { "rehearsal" } else { "production run" },
        printable(&planned.playbook)
    );
    let mut stage = "";
    for step in &planned.steps {
        if step.stage != stage {
            stage = step.stage;
            let _ = writeln!(text, "\n{stage}");
        }
        let store = step.store.as_ref().map(|store| format!(" on `{}`", printable(store))).unwrap_or_default();
        let service = if step.service { ", keeps running" } else { "" };
        let seconds = step.seconds.map_or_else(
            || "time unknown".to_owned(),
            |seconds| if seconds > 0.0 { human::seconds(seconds) } else { "instant".to_owned() },
        );
        let _ = writeln!(text, "  {} ({}{store}{service}): {seconds}", printable(&step.id), printable(&step.name));
        for line in &step.lines {
            let _ = writeln!(text, "      {}", printable(line));
        }
        for warning in &step.warnings {
            let _ = writeln!(text, "    ! {}", printable(warning));
        }
        if step.point_of_no_return {
            let _ = writeln!(text, "    ! after this going back means more than undo");
        }
        if let Some(error) = &step.error {
            let _ = writeln!(text, "    ! can't be planned: {}", printable(error));
        } else if step.seconds.is_none_or(|seconds| seconds > 0.0) {
            let _ = writeln!(text, "      ({})", printable(&step.basis));
        }
    }
    if !planned.guards.is_empty() {
        let _ = writeln!(text, "\nwatched meanwhile");
    }
    for guard in &planned.guards {
        let store = guard.store.as_ref().map(|store| format!(" of `{}`", printable(store))).unwrap_or_default();
        let then = match guard.then {
            GuardAction::Pause => "pause",
            GuardAction::Stop => "stop",
            GuardAction::Undo => "undo",
        };
        let _ = writeln!(text, "  {} ({}{store}): {}, else {then}", printable(&guard.id), guard.watch, printable(&guard.condition));
        let _ = writeln!(text, "      {}", guard.terms);
        for remark in &guard.remarks {
            let _ = writeln!(text, "    ! {}", printable(remark));
        }
    }
    if !planned.hooks.is_empty() {
        let _ = writeln!(text, "\ncalled at moments of the run");
    }
    for hook in &planned.hooks {
        let at: Vec<_> = hook.at.iter().map(|moment| moment.as_str()).collect();
        let _ = writeln!(
            text,
            "  {} ({}): {}, for at most {}",
            printable(&hook.id),
            at.join(", "),
            printable(&hook.calls),
            human::seconds(hook.limit_seconds)
        );
        if hook.at.contains(&Moment::BeforeSwitch) {
            let _ = writeln!(text, "    ! at before-switch writes are held: it has at most half of what `max_write_gap` leaves");
        }
    }
    let critical: Vec<_> = planned.steps.iter().filter(|step| step.critical && step.seconds.is_some_and(|seconds| seconds > 0.0)).collect();
    let _ = writeln!(text, "\n{}", describe::budget(&planned.forecast));
    for line in burn_down(&planned.forecast) {
        let _ = writeln!(text, "  {line}");
    }
    if !critical.is_empty() {
        let _ = writeln!(
            text,
            "critical path: {}",
            critical.iter().map(|step| printable(&step.id).into_owned()).collect::<Vec<_>>().join(", ")
        );
    }
    if !planned.forecast.unknown.is_empty() {
        let unknown: Vec<_> = planned.forecast.unknown.iter().map(|step| printable(step).into_owned()).collect();
        let _ = writeln!(text, "time unknown: {} (a rehearsal measures it)", unknown.join(", "));
    }
    if let Some(refusal) = planned.forecast.refusal() {
        let _ = writeln!(text, "! {}", printable(&refusal));
    }
    text
}
