//! A forecast as a table: what each step needs, and how much is still to go when it begins.
//!
//! Only steps on the critical path shorten what remains; the others run beside them and are left out, unless nobody can say how long they
//! take. The bars show what is to go at each step's beginning, so the eye follows them down to nothing.

use super::human;
use super::printable::{printable, shortened};
use crate::engine::budget::Forecast;

/// How wide the bars are.
const BAR: usize = 28;

/// The table, a line each; nothing if nothing that takes time remains.
#[must_use]
pub fn burn_down(forecast: &Forecast) -> Vec<String> {
    let remain: Vec<_> = forecast
        .steps
        .iter()
        .filter(|step| !step.done && (step.seconds.is_none() || (step.critical && step.seconds > Some(0.0))))
        .collect();
    if remain.is_empty() {
        return Vec::new();
    }
    let width = remain.iter().map(|step| step.step.chars().count()).max().unwrap_or(0).clamp(9, 20);
    let whole = forecast.seconds.max(f64::MIN_POSITIVE);
    let mut to_go = forecast.seconds;
    let mut lines = vec![format!("{:width$}  {:>8}  {:>8}", "remains", "takes", "to go")];
    for step in remain {
        let name = printable(&step.step);
        let name = shortened(&name, width);
        let Some(seconds) = step.seconds else {
            lines.push(format!("{name:width$}  {:>8}  {:>8}", "unknown", human::seconds(to_go.max(0.0))));
            continue;
        };
        lines.push(format!("{name:width$}  {:>8}  {:>8}  {}", human::seconds(seconds), human::seconds(to_go.max(0.0)), bar(to_go / whole)));
        to_go -= seconds;
    }
    let row = |what: &str, seconds: f64| format!("{what:width$}  {:>8}", human::seconds(seconds));
    lines.push(row("margin", forecast.with_margin_seconds - forecast.seconds));
    lines.push(row("undo", forecast.undo_reserve_seconds));
    if let Some(left) = forecast.left_seconds {
        let spare = left - forecast.with_margin_seconds - forecast.undo_reserve_seconds;
        lines.push(row(if spare < 0.0 { "TOO LITTLE" } else { "to spare" }, spare.abs()));
    }
    lines
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of 28 signs")]
fn bar(share: f64) -> String {
    "#".repeat(((share.clamp(0.0, 1.0) * BAR as f64).round() as usize).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::budget::StepForecast;
    use crate::playbook::model::StageName;

    fn step(id: &str, seconds: Option<f64>, critical: bool) -> StepForecast {
        StepForecast { step: id.to_owned(), stage: StageName::Sync, seconds, basis: "never measured".to_owned(), critical, done: false }
    }

    #[test]
    fn what_is_to_go_burns_down() {
        let mut forecast = Forecast {
            steps: vec![
                step("copy", Some(60.0), true),
                step("beside", Some(10.0), false),
                step("rows", Some(30.0), true),
                step("watch", None, true),
                step("instant", Some(0.0), true),
            ],
            seconds: 90.0,
            with_margin_seconds: 112.5,
            unknown: vec!["watch".to_owned()],
            undo_reserve_seconds: 20.0,
            left_seconds: Some(3600.0),
        };
        assert_eq!(
            burn_down(&forecast),
            [
                "remains       takes     to go",
                "copy             1m     1m30s  ############################",
                "rows            30s       30s  #########",
                "watch       unknown       0ms",
                "margin          23s",
                "undo            20s",
                "to spare     57m48s",
            ]
            .map(str::to_owned)
        );
        forecast.left_seconds = Some(100.0);
        assert!(burn_down(&forecast).last().is_some_and(|line| line.starts_with("TOO LITTLE")));
        forecast.steps.clear();
        assert_eq!(burn_down(&forecast), Vec::<String>::new());
    }
}
