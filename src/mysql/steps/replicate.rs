//! `mysql.replicate`: follows the source. A service: ready once it has caught up, running until the
//! switch. Once a full comparison has begun it also compares what events touched, round by round,
//! so that little is left for the fence.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::snapshot::{self, COUNTERS};
use super::verify::FLOOR;
use super::{Meter, STOP_GRACE, stoppable};
use crate::engine::context::{InTheWay, Progress, StepContext};
use crate::engine::crash;
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, StepKind, Undoable};
use crate::mysql::behind::{self, Ends};
use crate::mysql::bookkeeping;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::copy::CopySettings;
use crate::mysql::counters;
use crate::mysql::definitions::{Change, again, settle};
use crate::mysql::error::MysqlError;
use crate::mysql::fence::in_the_way;
use crate::mysql::follow;
use crate::mysql::foreign;
use crate::mysql::objects::bring;
use crate::mysql::position::Position;
use crate::mysql::status;
use crate::mysql::store::{Following, MysqlStore};
use crate::mysql::verification::{Engine, Pair, Verifier};
use crate::playbook::quantity::HumanDuration;
use crate::verify::Difference;

/// Arguments of `mysql.replicate`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplicateArguments {
    /// How long a cutover waits, before it holds anybody's writes, for clients on the source that are in the middle of something long: a statement, a
    /// transaction, a table that is altered. What is left then is ended when the fence's `grace` is over. Default `60s`; `0s` waits for nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for_transactions: Option<HumanDuration>,
}

/// The step.
pub struct Replicate {
    /// The store.
    pub store: Arc<MysqlStore>,
    /// Its arguments.
    pub arguments: ReplicateArguments,
}

/// How long a cutover waits for clients that are in its way where nothing else is asked for.
const CLIENTS_PATIENCE: Duration = Duration::from_secs(60);

/// Between two rounds over the touched keys.
const ROUND_EVERY: Duration = Duration::from_secs(2);

/// A cutover does not begin while following is further behind (`cutover.md`, the switch, 1): all that is to be caught up with then, clients wait.
const NEAR: Duration = Duration::from_secs(1);

/// Between two looks at who else is on the target.
const LOOK_EVERY: Duration = Duration::from_secs(3);

impl Replicate {
    /// Looks once at who else is on the target; gives the session back if it can be used again. A look that fails is made up for by
    /// the next: whoever applies notices a target that is gone.
    async fn look_for_others(&self, session: Option<Session>) -> Option<Session> {
        let mut session = match session {
            Some(session) => session,
            None => Session::open(&self.store.target, Purpose::Catalog).await.ok()?,
        };
        match foreign::sample(&mut session, &self.store).await {
            Ok(()) => Some(session),
            Err(error) => {
                tracing::debug!(%error, "who else is on the target could not be seen this time");
                None
            }
        }
    }

    /// Why clients would wait for more than a moment if writes were held now.
    fn not_near(&self, behind: Duration) -> Option<String> {
        if let Some(again) = self.store.again.borrow().first() {
            return Some(format!("`{again}` is being copied again"));
        }
        (behind > NEAR).then(|| format!("the target is {} behind the source", HumanDuration(Duration::from_secs(behind.as_secs()))))
    }

    /// Looks once who on the source would be held up or ended by a fence. A look that fails is made up for by the next.
    async fn look_in_the_way(&self, source: &mut Session) -> Option<InTheWay> {
        let patience = self.arguments.wait_for_transactions.map_or(CLIENTS_PATIENCE, |asked| asked.0);
        if patience.is_zero() {
            return None;
        }
        match in_the_way::look(source).await {
            Ok(found) => found.map(|what| InTheWay { what: format!("on the source {what}"), patience }),
            Err(error) => {
                tracing::debug!(%error, "who would be in the fence's way could not be seen this time");
                None
            }
        }
    }

    /// Says how far behind the source we are, and calls ready once.
    async fn watch(&self, context: &StepContext) -> Result<(), MysqlError> {
        let mut following = self.store.following.subscribe();
        // The sender lives in the store: waiting ends when following starts or this future is dropped.
        let _ = following.wait_for(|state| matches!(state, Following::On(_))).await;
        let mut source = Session::open(&self.store.source, Purpose::Read).await?;
        // What is applied was in the log, so the log can't end before it: then nothing would be waited for.
        let known = self.store.applied.borrow().position.clone();
        let first = status::current_position(&mut source).await?;
        if first < known {
            return Err(MysqlError::another_log(&first, &format!("it was followed up to {known} and ends at {first}")));
        }
        let meter = Meter::default();
        let mut ready = false;
        let mut others: Option<Session> = None;
        let mut looked: Option<Instant> = None;
        let mut in_the_way: Option<InTheWay> = None;
        let mut last_end = first.clone();
        let mut ends = Ends::default();
        loop {
            if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                looked = Some(Instant::now());
                others = self.look_for_others(others).await;
                in_the_way = self.look_in_the_way(&mut source).await;
            }
            let applied = self.store.applied.borrow().clone();
            let end = match status::current_position(&mut source).await {
                Ok(end) => end,
                Err(error) if error.transient() => {
                    // The tail notices too and reconnects; this is only for showing.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    if let Ok(session) = Session::open(&self.store.source, Purpose::Read).await {
                        source = session;
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if end < last_end {
                let why = format!("it ended at {last_end} and ends at {end} now");
                return Err(MysqlError::another_log(&end, &why));
            }
            last_end = end.clone();
            let behind = ends.behind(Instant::now(), &self.store.applied.borrow().position, end.clone());
            let lag = behind::lag(&applied, &end, behind);
            // Asked for each time: it is another one when definitions have changed.
            let shared = self.store.described().await?.shared.clone();
            let touched = shared.touches.count();
            let note = if touched > 0 {
                format!("at {}, {touched} touched keys to compare", applied.position)
            } else {
                format!("at {}", applied.position)
            };
            context.report(Progress {
                done: applied.changes,
                total: None,
                unit: "changes".to_owned(),
                rate: meter.rate(applied.changes),
                lag: Some(lag),
                note,
                throttle: shared.throttled(),
                waits: false,
                not_near: self.not_near(behind),
                in_the_way: in_the_way.clone(),
            });
            // Not before all of that is told: whoever waits for it begins a cutover, if nothing speaks against it.
            if !ready && applied.position >= first {
                ready = true;
                context.ready();
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Compares touched keys round by round, from when a full comparison is done. A difference fails the service:
    /// what was verified is not so any more.
    async fn rounds(&self, context: &StepContext, cancel: &CancellationToken) -> Result<(), StepError> {
        let mut floor = self.store.verified_floor.subscribe();
        if floor.wait_for(Option::is_some).await.is_err() {
            return Ok(());
        }
        // What is being copied again can't be equal yet.
        if self.store.again.subscribe().wait_for(BTreeSet::is_empty).await.is_err() {
            return Ok(());
        }
        let verifier = Verifier::new(&self.store, Engine::Client, true).await?;
        let mut pair = Pair::open(&self.store).await?;
        let described = self.store.described().await?;
        let touches = &described.shared.touches;
        loop {
            tokio::time::sleep(ROUND_EVERY).await;
            let begun_at = self.store.applied.borrow().position.clone();
            let round = match verifier.round(&mut pair, cancel).await {
                Ok(round) => round,
                Err(MysqlError::Cancelled) => return Ok(()),
                Err(error) if error.transient() => {
                    if let Ok(opened) = Pair::open(&self.store).await {
                        pair = opened;
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(difference) = round.differences.first() {
                return Err(differ(round.differences.len() as u64, Some(difference)));
            }
            let saturated = touches.saturated_tables();
            if !saturated.is_empty() {
                // More keys were touched than are held: these tables are compared as a whole once more.
                let tables = verifier.tables.iter().filter(|table| saturated.contains(&table.table)).cloned().collect();
                let again = Arc::new(Verifier {
                    store: self.store.clone(),
                    described: verifier.described.clone(),
                    tables,
                    target_catalog: verifier.target_catalog.clone(),
                    not_comparable: Vec::new(),
                    moving: true,
                    found: std::sync::Mutex::default(),
                });
                match again.full(1, &Arc::default(), &context.steering, cancel).await {
                    Ok(found) if found.difference_count > 0 => return Err(differ(found.difference_count, found.differences.first())),
                    Ok(_) => {}
                    Err(MysqlError::Cancelled) => return Ok(()),
                    Err(error) => {
                        // Not compared to the end: they still have to be.
                        saturated.iter().for_each(|&table| touches.saturate(table));
                        if !error.transient() {
                            return Err(error.into());
                        }
                    }
                }
                continue;
            }
            if round.complete {
                self.store.verified_floor.send_replace(Some(begun_at.clone()));
                context.checkpoints.save(FLOOR, &self.store.name, &serde_json::json!(begun_at))?;
            }
        }
    }
}

/// How following ended.
enum Ended {
    /// Definitions change before it goes on.
    Changed(Box<Change>),
    /// For good.
    With(Result<(), StepError>),
}

impl Replicate {
    /// Follows by the definitions as they are, until they change.
    async fn follow(&self, context: &StepContext, finish: &CancellationToken) -> Result<Ended, StepError> {
        let floor: Option<Position> = match context.checkpoints.load(FLOOR, &self.store.name)? {
            Some(value) => serde_json::from_value(value).ok(),
            None => None,
        };
        let described = self.store.described().await?;
        if let Some(floor) = &floor {
            let touches = &described.shared.touches;
            touches.track();
            // What these were before can't be read from the log again, nor compared key by key.
            for name in settle::began_since(&described.shared.beginnings, floor) {
                if let Some(id) = described.shared.tables.id(&name.database, &name.table) {
                    touches.saturate(id);
                }
            }
            self.store.verified_floor.send_replace(Some(floor.clone()));
        }
        let rounds_end = context.cancel.child_token();
        Ok(tokio::select! {
            followed = stoppable(context, follow::follow(&self.store, context.epoch, floor, &context.cancel, finish)) => match followed {
                Err(MysqlError::DefinitionChanged(change)) => Ended::Changed(change),
                ended => Ended::With(ended.map_err(StepError::from)),
            },
            ended = async {
                let ended = tokio::select! {
                    // Ended without a word: only because the store is going away.
                    rounds = self.rounds(context, &rounds_end) => rounds.err().unwrap_or_else(StepError::cancelled),
                    Err(error) = self.copy_again(context) => error,
                };
                self.store.failed_by_itself(&ended).await;
                ended
            } => Ended::With(Err(ended)),
        })
    }

    /// Copies the tables that began anew, and then does nothing more.
    async fn copy_again(&self, context: &StepContext) -> Result<std::convert::Infallible, StepError> {
        if !self.store.again.borrow().is_empty() {
            let described = self.store.described().await?;
            let settings = CopySettings { settle: snapshot::settle(&described.source), ..CopySettings::default() };
            again::copy(&self.store, context.epoch, settings, context.steering.clone(), &context.cancel).await?;
            if context.checkpoints.load(COUNTERS, &self.store.name)?.is_some() {
                let (counters, _) = counters::raise(&self.store).await?;
                context.checkpoints.save(COUNTERS, &self.store.name, &serde_json::json!(counters.into_iter().collect::<Vec<_>>()))?;
            }
            self.store.again.send_replace(BTreeSet::new());
        }
        std::future::pending().await
    }

    /// Makes the target's tables what the source's are now; what may heal is tried again.
    async fn settle(&self, context: &StepContext, change: Option<&Change>) -> Result<(), StepError> {
        const TRIES: u32 = 20;
        let mut tries = 0;
        loop {
            tries += 1;
            match stoppable(context, settle::settle(&self.store, context.epoch, change)).await {
                Err(error) if error.transient() && tries < TRIES && change.is_some() => {
                    tracing::warn!(%error, tries, "bringing the tables to their new definitions failed, trying again");
                    tokio::select! {
                        () = context.cancel.cancelled() => return Err(StepError::cancelled()),
                        () = tokio::time::sleep(Duration::from_millis(100 << tries.min(6))) => {}
                    }
                }
                result => return Ok(result?),
            }
        }
    }

    /// Follows through every change of definitions.
    async fn follow_on(&self, context: &StepContext, finish: &CancellationToken) -> Result<(), StepError> {
        follow::begin(&self.store, context.epoch).await?;
        crash::point("follow.begun");
        let mut change: Option<Box<Change>> = None;
        loop {
            self.settle(context, change.as_deref()).await?;
            if let Some(change) = change.take() {
                let found = serde_json::json!({ "statement": change.statement, "position": change.position.to_string() });
                context.find(&format!("definition-changed@{}", change.position), &found)?;
            }
            match self.follow(context, finish).await? {
                Ended::Changed(changed) => {
                    tracing::warn!(store = %self.store.name, position = %changed.position, "definitions change: {}", changed.statement);
                    change = Some(changed);
                }
                Ended::With(result) => return result,
            }
        }
    }
}

fn differ(count: u64, first: Option<&Difference>) -> StepError {
    let first = first.map(|difference| format!("; the first: {}", difference.line())).unwrap_or_default();
    StepError::new(Failure::Differences, format!("{count} rows differ that events touched{first}"))
        .hint("look at who else writes to the target; `dbmove verify PLAYBOOK` lists every differing row")
}

#[async_trait]
impl Step for Replicate {
    fn name(&self) -> &'static str {
        "mysql.replicate"
    }
    fn kind(&self) -> StepKind {
        StepKind::Service
    }
    fn stops_within(&self) -> Duration {
        STOP_GRACE
    }
    fn undoable(&self) -> Undoable {
        // What it writes is dropped with the tables by `mysql.prepare`'s undo.
        Undoable::Nothing
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        let described = self.store.described().await?;
        Ok(Plan {
            lines: vec![
                format!("follow the binary log of the {} from its present end", self.store.source),
                format!("apply every change of {} tables to the {}", described.shared.tables.len(), self.store.target),
            ],
            warnings: Vec::new(),
        })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let started = Instant::now();
        if bring::is_promoted(&self.store).await? {
            // A crash kept from being written down that following had ended. The target has triggers now: a change followed
            // from here on would have its effects twice.
            self.store.following.send_replace(Following::Finished);
            context.ready();
            return Ok(Output::default().fact("notes", serde_json::json!(["following had ended for good before"])));
        }
        let finish = self.store.renew_finish_token();
        let result: Result<(), StepError> = tokio::select! {
            followed = self.follow_on(context, &finish) => followed,
            watched = self.watch(context) => watched.map_err(StepError::from),
        };
        let finished = finish.is_cancelled() && result.is_ok();
        self.store.following.send_replace(if finished { Following::Finished } else { Following::Off });
        result?;
        let applied = self.store.applied.borrow().clone();
        let described = self.store.described().await?;
        Ok(Output::default()
            .fact("position", applied.position.to_string())
            .fact("changes", applied.changes)
            .fact("transactions", applied.transactions)
            .fact("notes", serde_json::json!(described.shared.notes()))
            .fact("seconds", started.elapsed().as_secs_f64()))
    }
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let mut target = Session::open(&self.store.target, Purpose::Catalog).await?;
        let lease = bookkeeping::lease(&mut target, &self.store.name).await?;
        let followed = bookkeeping::followed(&mut target, &self.store.name).await?;
        target.close().await;
        Ok(match (lease, followed) {
            (Some((run, _)), _) if *run != *context.run => {
                Probe::Foreign { found: format!("run `{run}` has claimed the {}", self.store.target) }
            }
            (_, Some(followed)) => Probe::Partly { from: format!("position {}", followed.applied) },
            _ => Probe::NotStarted,
        })
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
