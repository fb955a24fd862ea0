//! `mysql.snapshot`: copies every row, then builds indexes and foreign keys.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Meter, STOP_GRACE, from_rate, rows_progress, shown, stoppable};
use crate::engine::context::{Progress, StepContext};
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable, Work};
use crate::mysql::catalog::ServerFacts;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::copy::copier::Copier;
use crate::mysql::copy::progress::CopyProgress;
use crate::mysql::copy::{CopySettings, LoadPath, plan};
use crate::mysql::counters;
use crate::mysql::definitions::Guard;
use crate::mysql::error::MysqlError;
use crate::mysql::foreign;
use crate::mysql::store::MysqlStore;
use crate::mysql::verification::Verifier;
use crate::playbook::quantity::HumanSize;

/// Arguments of `mysql.snapshot`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotArguments {
    /// Chunks read from the source at once. Default 2.
    #[serde(default)]
    pub readers: Option<u8>,
    /// Chunks written to the target at once. Default 3.
    #[serde(default)]
    pub writers: Option<u8>,
    /// Bytes of a chunk, about. Memory for copying is about (readers + writers + 1) times this. Default `4MiB`.
    #[serde(default)]
    pub chunk_bytes: Option<HumanSize>,
    /// `load_data`, `insert`, or `auto` (default): the first where the target allows it.
    #[serde(default)]
    pub load: LoadPath,
    /// Leave copied rows out of the target's binary log. Faster, but replicas of the target miss them. Default false.
    #[serde(default)]
    pub skip_binlog: bool,
}

impl SnapshotArguments {
    /// How copying works by these.
    #[must_use]
    pub fn settings(&self) -> CopySettings {
        let defaults = CopySettings::default();
        CopySettings {
            readers: self.readers.map_or(defaults.readers, |readers| usize::from(readers.max(1))),
            writers: self.writers.map_or(defaults.writers, |writers| usize::from(writers.max(1))),
            chunk_bytes: self
                .chunk_bytes
                .map_or(defaults.chunk_bytes, |size| usize::try_from(size.0).unwrap_or(usize::MAX >> 1).max(64 << 10)),
            load: self.load,
            skip_binlog: self.skip_binlog,
            ..defaults
        }
    }
}

/// Checkpoint key (as a step's name) of the AUTO_INCREMENT counters that the target's were raised to, by store.
pub const COUNTERS: &str = "mysql.snapshot.counters";

/// Checkpoint key (as a step's name) of what others had written to the target before the copy, by store.
pub const FOREIGN: &str = "mysql.snapshot.foreign";

/// The step.
pub struct Snapshot {
    /// The store.
    pub store: Arc<MysqlStore>,
    /// Its arguments.
    pub arguments: SnapshotArguments,
}

/// How long after the start position the first row is read: longer than a commit takes to become visible
/// after it is in the log. With semi-synchronous replication that is up to its timeout.
pub(super) fn settle(source: &ServerFacts) -> Duration {
    let on = |name: &str| source.variables.get(name).is_some_and(|value| value.eq_ignore_ascii_case("on") || value == "1");
    let timeout = |name: &str| source.variables.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(10_000);
    let semi_sync = [
        ("rpl_semi_sync_master_enabled", "rpl_semi_sync_master_timeout"),
        ("rpl_semi_sync_source_enabled", "rpl_semi_sync_source_timeout"),
    ];
    let waits = semi_sync.iter().filter(|(enabled, _)| on(enabled)).map(|(_, name)| Duration::from_millis(timeout(name))).max();
    CopySettings::default().settle + waits.unwrap_or_default()
}

/// How long the step waits for `mysql.replicate` to be there.
const PATIENCE: Duration = Duration::from_secs(30);

impl Snapshot {
    async fn rows_expected(&self) -> Result<u64, MysqlError> {
        let described = self.store.described().await?;
        Ok(described.catalog.tables.values().map(|table| table.row_estimate).sum())
    }

    async fn copy(&self, context: &StepContext, guard: Guard) -> Result<Output, StepError> {
        let Some(since) = self.store.wait_following(PATIENCE).await? else {
            return Err(StepError::definite(format!("store `{}` is not followed any more: rows can't be copied safely", self.store.name)));
        };
        if context.checkpoints.load(FOREIGN, &self.store.name)?.is_none() {
            let baseline = foreign::baseline(&self.store).await?;
            context.checkpoints.save(FOREIGN, &self.store.name, &serde_json::json!(baseline))?;
        }
        let _turn = self.store.copying.lock().await;
        let described = self.store.described().await?;
        let expected = self.rows_expected().await?;
        let progress = Arc::new(CopyProgress::default());
        let copier = Copier {
            shared: described.shared.clone(),
            source: self.store.source.clone(),
            target: self.store.target.clone(),
            epoch: context.epoch,
            settings: CopySettings { settle: settle(&described.source), ..self.arguments.settings() },
            after_rows: Arc::new(MysqlStore::after_rows(&described)),
            mender: Verifier::mender(&self.store).await?,
            only: None,
            applied: self.store.applied.subscribe(),
            guard,
            steering: context.steering.clone(),
            progress: progress.clone(),
        };
        let meter = Meter::default();
        let waits = || progress.waits().then(|| "what was read goes in when following has come so far".to_owned());
        let throttled = || context.steering.held_back().or_else(|| described.shared.throttled()).or_else(waits);
        let show = || {
            let shown = rows_progress(progress.rows.load(Ordering::Relaxed), expected, &meter, progress.note(), throttled());
            Progress { waits: progress.waits(), ..shown }
        };
        let started = Instant::now();
        shown(context, show, copier.run(since, &context.cancel)).await?;
        // From here on they can only be behind by what is in no log; `mysql.verify` holds them to it.
        let (counters, counters_raised) = stoppable(context, counters::raise(&self.store)).await?;
        let counters: Vec<_> = counters.into_iter().collect();
        context.checkpoints.save(COUNTERS, &self.store.name, &serde_json::json!(counters))?;
        let seconds = started.elapsed().as_secs_f64();
        let rows = progress.rows.load(Ordering::Relaxed);
        let amount = rows.saturating_sub(progress.rows_before.load(Ordering::Relaxed));
        // An attempt that found everything there says nothing about how fast copying is.
        let work = Some(Work { unit: "rows".to_owned(), amount, seconds }).filter(|work| work.amount > 0);
        Ok(Output { work, ..Output::default() }
            .fact("rows", rows)
            .fact("bytes", progress.bytes.load(Ordering::Relaxed))
            .fact("tables", described.shared.tables.len() as u64)
            .fact("counters_raised", counters_raised)
            .fact("cascades_mended", serde_json::json!(progress.mended()))
            .fact("seconds", seconds))
    }
}

#[async_trait]
impl Step for Snapshot {
    fn name(&self) -> &'static str {
        "mysql.snapshot"
    }
    fn stops_within(&self) -> Duration {
        STOP_GRACE
    }
    fn undoable(&self) -> Undoable {
        // The rows are dropped with the tables by `mysql.prepare`'s undo.
        Undoable::Nothing
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        let described = self.store.described().await?;
        let mut lines = Vec::new();
        for id in described.shared.tables.copy_order().into_iter().flatten() {
            let table = described.shared.tables.get(id);
            let how = if table.key.is_none() { "as a whole, under a short lock" } else { "in key ranges" };
            lines.push(format!("copy `{}`, about {} rows, {how}", table.name(), table.table.row_estimate));
        }
        lines.push("build secondary indexes and foreign keys on the target".to_owned());
        let warnings = if self.arguments.skip_binlog {
            vec!["replicas of the target will miss the copied rows (`skip_binlog`)".to_owned()]
        } else {
            Vec::new()
        };
        Ok(Plan { lines, warnings })
    }
    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError> {
        Ok(from_rate(context, "rows", self.rows_expected().await?))
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        loop {
            let mut steady = self.store.definitions.steady().await;
            let guard = steady.guard.clone();
            tokio::select! {
                biased;
                copied = async {
                    let copied = self.copy(context, guard).await;
                    if let Err(error) = &copied {
                        self.store.failed_by_itself(error).await;
                    }
                    copied
                } => return copied,
                // Goes on from what is in, with the new definitions.
                () = steady.ended() => {}
            }
        }
    }
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let described = self.store.described().await?;
        let mut target = Session::open(&self.store.target, Purpose::Catalog).await?;
        let lease = crate::mysql::bookkeeping::lease(&mut target, &self.store.name).await?;
        let found = match lease {
            None => Probe::NotStarted,
            Some((run, _)) if *run != *context.run => {
                Probe::Foreign { found: format!("run `{run}` has claimed the {}", self.store.target) }
            }
            Some(_) => {
                let mut done = 0;
                for (_, table) in described.shared.tables.iter() {
                    done += usize::from(plan::load(&mut target, &self.store.name, table.name()).await?.indexed);
                }
                // Foreign keys come last; adding one that is there changes nothing, so a complete copy is run again for them.
                Probe::Partly { from: format!("{done} of {} tables are complete", described.shared.tables.len()) }
            }
        };
        target.close().await;
        Ok(found)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
