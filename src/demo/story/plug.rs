//! The pulled plug: `dbmove run` killed in the middle of its copy, and whether the next process went on from there.
//!
//! Neither is taken from what the process said. That it was the middle is counted on the target while it runs, and asked of the
//! journal once it is gone; that the next one went on is in the journal too: the same run, a copy found partly done,
//! and fewer bytes than a whole copy took.

use std::time::Duration;

use super::child::Child;
use super::error::DemoError;
use super::narrator::Narrator;
use super::place::Place;
use super::{evidence, playbook};
use crate::demo::seed::SchoolSize;
use crate::engine::journal::Phase;
use crate::report::model::Report;
use crate::telemetry::human;

/// The plug is pulled once this share of the rows is on the target …
const EARLIEST_SHARE: f64 = 0.35;
/// … and it was not the middle any more beyond this one.
const LATEST_SHARE: f64 = 0.9;
/// How often rows on the target are counted meanwhile.
const COUNT_EVERY: Duration = Duration::from_millis(100);

/// Where the plug was pulled.
pub struct Killed {
    /// The run.
    pub run: String,
    /// Rows on the target when the process was gone.
    pub rows: u64,
}

/// Kills `dbmove run` in the middle of the copy.
///
/// # Errors
/// [`DemoError::TooQuick`] if the copy was over before it could be killed; what the servers and the journal said.
pub async fn pull(mut child: Child, size: &SchoolSize, place: &Place, narrator: &Narrator) -> Result<Killed, DemoError> {
    let target = &place.production.target;
    let mut conn = evidence::connect(target).await?;
    #[allow(clippy::cast_precision_loss, reason = "a share of rows")]
    let share = |rows: u64| rows as f64 / size.total().max(1) as f64;
    let mut ticks = tokio::time::interval(COUNT_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            heard = child.listen(narrator) => if !heard? {
                let ended = child.to_end(narrator).await?.well()?;
                return Err(DemoError::TooQuick { found: format!("`{}` was done before it", ended.command) });
            },
            _ = ticks.tick() => if share(evidence::rows_on(target, &mut conn).await?) >= EARLIEST_SHARE {
                break;
            },
        }
    }
    narrator.say(&format!("Pulling the plug: kill -9 {}", child.pid()));
    let ended = child.pull_the_plug().await?;
    if !ended.was_killed() {
        return Err(DemoError::TooQuick { found: format!("the process had ended by itself, with {}", ended.status) });
    }
    let rows = evidence::rows_on(target, &mut conn).await?;
    let run = evidence::production_run(place)?.ok_or(DemoError::NoReport)?;
    let copying = run.step(playbook::COPY_STEP);
    if copying.phase != Phase::Running || share(rows) > LATEST_SHARE {
        return Err(DemoError::TooQuick { found: format!("{:.0} % of the rows were on the target", share(rows) * 100.0) });
    }
    narrator.say(&format!(
        "It is gone, in the middle of `{}`: {} of about {} rows are on the target ({:.0} %).",
        playbook::COPY_STEP,
        human::count(rows),
        human::count(size.total()),
        share(rows) * 100.0
    ));
    Ok(Killed { run: run.run, rows })
}

/// Whether the second process went on where the first one was killed: the same run, the copy found partly done, and
/// less to send than the rehearsal's copy of the same school needed.
///
/// # Errors
/// If the journal can't be read.
pub fn went_on(place: &Place, killed: &Killed, rehearsal: &Report, narrator: &Narrator) -> Result<bool, DemoError> {
    let run = evidence::production_run(place)?.ok_or(DemoError::NoReport)?;
    let copying = run.step(playbook::COPY_STEP);
    let sent = |facts: Option<&serde_json::Value>| facts.and_then(serde_json::Value::as_u64);
    let rest = sent(copying.output.as_ref().and_then(|output| output.facts.get("bytes")));
    let all = rehearsal.stages.iter().flat_map(|stage| &stage.steps).find(|step| step.id == playbook::COPY_STEP);
    let all = sent(all.and_then(|step| step.facts.get("bytes")));
    let (Some(rest), Some(all)) = (rest, all) else {
        return Ok(false);
    };
    narrator.say(&format!(
        "It went on from the {} rows that were in: it sent {}, where the rehearsal's whole copy was {}.",
        human::count(killed.rows),
        human::bytes(rest),
        human::bytes(all)
    ));
    Ok(run.run == killed.run && evidence::copy_went_on(place, &run.run)? && rest < all)
}
