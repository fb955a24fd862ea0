//! Load beside a rehearsal: what production's clients write, written to the rehearsal's servers while it runs.
//!
//! # What must hold
//!
//! * A load runs in rehearsals only, and only once the store has proven that its servers are copies. What it writes to is the
//!   store's business ([`Load`]); the engine starts it before `sync`, tells it where clients are ([`Clients`]), and ends it before anything is undone.
//! * A load that was asked for and can't be made, or breaks off, fails the rehearsal: its certificate would claim what was not tried.
//! * What was asked and what was reached are told apart, and both from how following kept up ([`judge`]). All of it is in the journal
//!   ([`LoadReport`]) whether the rehearsal passed or not.
//! * A load lives in this process. A driver that is killed leaves nothing but what was written to the copy; one that goes on with a rehearsal
//!   starts the load anew, and its figures are those since then. One that was not asked for a load is refused there: the certificate would
//!   come without it, and nobody would notice.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`multiple`] | `3x` |
//! | [`judge`] | percentiles of lag, and whether the target keeps up |
//! | `beside` | the driver's part: start, look, end |

mod beside;
pub mod judge;
pub mod multiple;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::context::{Checkpoints, Outputs};
use super::step::StepError;
pub(super) use beside::Beside;
use judge::Lag;
use multiple::Multiple;

/// How long a rehearsal is under load before its cutover, unless asked otherwise.
pub const DEFAULT_AT_LEAST: Duration = Duration::from_secs(60);

/// The load that a rehearsal is asked to run under.
#[derive(Clone)]
pub struct AskedLoad {
    /// How many times the real rate.
    pub multiple: Multiple,
    /// How long the load runs at least before the cutover begins.
    pub at_least: Duration,
    /// One for each store.
    pub loads: Vec<Arc<dyn Load>>,
    /// The options it was asked for with, as a shell takes them: for whoever goes on with the rehearsal.
    pub options: String,
}

/// Where clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// On the source.
    OnSource,
    /// On the source, where their writes are held.
    Held,
    /// On the target.
    OnTarget,
    /// On the target, where a rollback holds their writes: by an account of dbmove's own it could not be held there.
    HeldOnTarget,
}

/// What a load is handed.
#[derive(Clone)]
pub struct LoadContext {
    /// The run.
    pub run: Arc<str>,
    /// Outputs of the run's steps so far.
    pub outputs: Arc<Outputs>,
    /// Where what is sent to production is counted.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// How many times the real rate.
    pub multiple: Multiple,
    /// Cancelled when it has to end.
    pub cancel: CancellationToken,
    /// Where clients are.
    pub clients: watch::Receiver<Clients>,
    /// Where it tells what it does; the newest value wins.
    pub figures: watch::Sender<LoadFigures>,
}

/// What writes to one store's rehearsal servers as production's clients would.
#[async_trait]
pub trait Load: Send + Sync {
    /// The store's name in the playbook.
    fn store(&self) -> &str;
    /// Whether it can be made, asked before anything is touched. Writes nothing anywhere.
    async fn check(&self, run: &str, outputs: &Arc<Outputs>, checkpoints: &Arc<dyn Checkpoints>) -> Result<(), StepError>;
    /// Writes until it is cancelled. Returns early only with an error.
    async fn run(&self, context: LoadContext) -> Result<(), StepError>;
}

/// A log file that a load was made from, as it was read before the rehearsal began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CapturedFile {
    /// Its name, without the directory.
    pub name: String,
    /// How much of it was read, in bytes.
    pub bytes: u64,
    /// The SHA-256 of that, in hexadecimal digits.
    pub sha256: String,
}

/// What one store's load did so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadFigures {
    /// Whose log it replays, or which files.
    pub from: String,
    /// The files it replays, in their order, if it does not read a server's log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<CapturedFile>,
    /// When the first transaction of the window was logged, by that server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub window_begins: Option<Timestamp>,
    /// When the window ends, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub window_ends: Option<Timestamp>,
    /// How often the window was begun.
    pub passes: u32,
    /// How long it wrote, in seconds, without the time in which writes were held.
    pub seconds: f64,
    /// How long writes were held, in seconds.
    pub held_seconds: f64,
    /// Rows a second that were asked for: the log's own rate times the multiple.
    pub asked_per_second: f64,
    /// Rows a second that were written.
    pub reached_per_second: f64,
    /// Transactions committed.
    pub transactions: u64,
    /// Row changes in them.
    pub changes: u64,
    /// Changes made as they were logged.
    pub as_logged: u64,
    /// Changes of rows that were not there: inserted, or nothing to delete.
    pub was_not_there: u64,
    /// Inserts of rows that were there already: put in their place.
    pub was_there: u64,
    /// Changes that found the row as it was to become, or nothing to delete: a server logs nothing of them.
    pub without_effect: u64,
    /// Changes that the server refused, by why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// What of the log was left out, by why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
    /// Connections that were lost or cut, and made anew.
    pub reconnected: u64,
    /// Connections that were used at the same time at most.
    pub connections: u64,
    /// How much of the log was read, in bytes.
    pub log_bytes: u64,
    /// What kept it from what was asked, while something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
}

/// What became of the load that a rehearsal was asked to run under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadReport {
    /// How many times the real rate was asked for.
    pub asked: Multiple,
    /// Each store's load, by store.
    pub stores: BTreeMap<String, LoadFigures>,
    /// How far behind each following step was while the load ran and writes were not held.
    pub lag: Vec<Lag>,
    /// Whether following kept up; absent if it was not looked at while the load ran and writes were not held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_up: Option<bool>,
    /// True if every store's load was what was asked for.
    pub reached: bool,
    /// The verdict in sentences.
    pub sentences: Vec<String>,
}

/// What a certificate says of a store's load that came from files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedLoad {
    /// The files, in their order.
    pub files: Vec<CapturedFile>,
    /// When the first transaction that was replayed was logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_begins: Option<Timestamp>,
    /// When the last one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ends: Option<Timestamp>,
}

/// What a certificate says of the load its rehearsal ran under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertifiedLoad {
    /// How many times the real rate was asked for.
    pub asked: Multiple,
    /// Rows a second that were asked for, of all stores.
    pub asked_per_second: f64,
    /// Rows a second that were written.
    pub reached_per_second: f64,
    /// How long, in seconds; of the store whose load was the shortest.
    pub seconds: f64,
    /// The worst step's 99th percentile of lag, in seconds; absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_p99_seconds: Option<f64>,
    /// What it was made from where that was not production's own recent log, by store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub captured: BTreeMap<String, CapturedLoad>,
}

impl LoadReport {
    /// What the certificate keeps of it.
    #[must_use]
    pub fn certified(&self) -> CertifiedLoad {
        let captured = self.stores.iter().filter(|(_, figures)| !figures.files.is_empty()).map(|(store, figures)| {
            let (window_begins, window_ends) = (figures.window_begins, figures.window_ends);
            (store.clone(), CapturedLoad { files: figures.files.clone(), window_begins, window_ends })
        });
        CertifiedLoad {
            asked: self.asked,
            asked_per_second: self.stores.values().map(|figures| figures.asked_per_second).sum(),
            reached_per_second: self.stores.values().map(|figures| figures.reached_per_second).sum(),
            seconds: self.stores.values().map(|figures| figures.seconds).fold(f64::INFINITY, f64::min).min(1e9),
            lag_p99_seconds: self.lag.iter().map(|lag| lag.p99_seconds).reduce(f64::max),
            captured: captured.collect(),
        }
    }
}
