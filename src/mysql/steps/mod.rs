//! The steps of a MySQL store, one file each.
//!
//! | step | stage | what it does |
//! | --- | --- | --- |
//! | `mysql.fill` | in a rehearsal, before the store's first step | fills the rehearsal's source with a copy of production; in no playbook: `rehearsal.copy` asks for it |
//! | `mysql.assess` | prepare | looks whether this migration can work, touches nothing |
//! | `mysql.prepare` | prepare | creates the schema on the target, views and routines too, and dbmove's own tables |
//! | `mysql.replicate` | sync | follows the source (a service) |
//! | `mysql.snapshot` | sync | copies every row, builds indexes and foreign keys |
//! | `mysql.verify` | verify, cutover | compares every row, or what changed since |
//! | `mysql.fence` | cutover | stops writes to the source, with proof |
//! | `mysql.catch_up` | cutover | waits until the target holds everything |
//! | `mysql.promote` | cutover | makes the target ready to be written: counters, following ended, triggers and events created |
//! | `mysql.reverse` | cutover | keeps the way back open: follows the target from before the switch (a service) |
//! | `mysql.disconnect` | cutover | after the switch: closes clients' connections on the source, lets its lock go, enables events on the target |
//! | `mysql.retire` | settle | closes the way back: no rollback from there on |

pub mod assess;
pub mod catch_up;
pub mod disconnect;
pub mod fence;
pub mod fill;
pub mod prepare;
pub mod promote;
pub mod replicate;
pub mod retire;
pub mod reverse;
pub mod snapshot;
mod source_gone;
pub mod verify;
mod writable;

use std::time::Duration;

use crate::engine::context::{Progress, StepContext};
use crate::engine::step::Estimate;
use crate::mysql::error::MysqlError;

/// An estimate from the last rehearsal's rate of this step and today's amount of work.
fn from_rate(context: &StepContext, unit: &str, amount: u64) -> Estimate {
    let measured = context.rates.get(&*context.step).filter(|work| work.unit == unit && work.seconds > 0.0 && work.amount > 0);
    match measured {
        Some(work) => {
            let rate = work.amount as f64 / work.seconds;
            Estimate::Expected {
                duration: Duration::from_secs_f64(amount as f64 / rate),
                basis: format!("{amount} {unit} at {rate:.0} {unit}/s, as measured"),
            }
        }
        None => Estimate::Unknown(format!("no rehearsal has measured how fast this is ({amount} {unit})")),
    }
}

/// Progress in rows: `done` of what was expected, or of what there turned out to be.
fn rows_progress(done: u64, expected: u64, meter: &Meter, note: String, throttle: Option<String>) -> Progress {
    let total = Some(expected.max(done));
    Progress {
        done,
        total,
        unit: "rows".to_owned(),
        rate: meter.rate(done),
        lag: None,
        note,
        throttle,
        waits: false,
        not_near: None,
        in_the_way: None,
    }
}

/// How long work may take to end by itself once it was asked to. What it leaves open then is not committed: its connections
/// are dropped and the servers roll it back.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Runs `work` until it ends, or is asked to stop and does not within [`STOP_GRACE`]: a statement that hangs in a server must
/// not keep an undo waiting.
async fn stoppable<T>(context: &StepContext, work: impl Future<Output = Result<T, MysqlError>>) -> Result<T, MysqlError> {
    let given_up = async {
        context.cancel.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        done = work => done,
        () = given_up => Err(MysqlError::Cancelled),
    }
}

/// Runs `work` as [`stoppable`], while `show` is asked for the progress five times a second.
async fn shown<T>(
    context: &StepContext,
    show: impl Fn() -> Progress,
    work: impl Future<Output = Result<T, MysqlError>>,
) -> Result<T, MysqlError> {
    let work = stoppable(context, work);
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            done = &mut work => {
                context.report(show());
                return done;
            }
            _ = ticks.tick() => context.report(show()),
        }
    }
}

/// Recent units per second from two looks at a counter.
#[derive(Default)]
struct Meter {
    last: std::sync::Mutex<Option<(std::time::Instant, u64, f64)>>,
}

impl Meter {
    /// The rate, smoothed over a few seconds.
    fn rate(&self, done: u64) -> Option<f64> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = std::time::Instant::now();
        let Some((at, before, rate)) = *last else {
            *last = Some((now, done, 0.0));
            return None;
        };
        let seconds = now.duration_since(at).as_secs_f64();
        if seconds < 0.5 {
            return if rate > 0.0 { Some(rate) } else { None };
        }
        let current = done.saturating_sub(before) as f64 / seconds;
        let smoothed = if rate > 0.0 { 0.7 * rate + 0.3 * current } else { current };
        *last = Some((now, done, smoothed));
        Some(smoothed)
    }
}
