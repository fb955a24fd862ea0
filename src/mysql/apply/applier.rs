//! The applier's loop: gathers batches, writes them, saves positions, retries what may heal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::batch::{self, Batch};
use super::cascade::{self, ParentChange};
use super::write::{self, LaneContext, Mode};
use crate::engine::crash;
use crate::engine::step::Epoch;
use crate::mysql::bookkeeping::{self, Followed};
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::position::Position;
use crate::mysql::range_gate::Touched;
use crate::mysql::rows::RowChange;
use crate::mysql::shared::Shared;
use crate::mysql::tables::TableId;
use crate::mysql::tail::{Rows, TailEvent};

/// How the applier works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplySettings {
    /// Connections that write in parallel.
    pub lanes: usize,
    /// A batch is written when it holds so many changes.
    pub batch_changes: u64,
    /// A batch is written when it holds about so many bytes, in the middle of a transaction if need be.
    pub batch_bytes: usize,
    /// A batch of at most so many changes is one transaction on the target.
    pub small: u64,
    /// How often a transient failure is retried before the applier gives up.
    pub retries: u32,
}

impl Default for ApplySettings {
    fn default() -> Self {
        ApplySettings { lanes: 4, batch_changes: 4000, batch_bytes: 8 << 20, small: 200, retries: 20 }
    }
}

/// How far the applier is.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Every transaction up to here is on the target.
    pub position: Position,
    /// When the last of them was logged on the source (seconds since 1970 by its clock).
    pub at: u32,
    /// When that was written here.
    pub seen: Instant,
    /// Transactions applied by this process.
    pub transactions: u64,
    /// Row changes applied by this process.
    pub changes: u64,
}

impl Applied {
    /// Nothing applied yet by this process.
    #[must_use]
    pub fn at(position: Position) -> Self {
        Applied { position, at: 0, seen: Instant::now(), transactions: 0, changes: 0 }
    }

    /// How far behind the source's clock the last applied transaction is. Zero when nothing waits.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.at == 0 { Duration::ZERO } else { Duration::from_secs(now.saturating_sub(u64::from(self.at))) }
    }
}

/// Applies what the tail hands on.
pub struct Applier {
    /// What the store's steps share.
    pub shared: Arc<Shared>,
    /// The target.
    pub server: Arc<Server>,
    /// This driver's epoch.
    pub epoch: Epoch,
    /// How to work.
    pub settings: ApplySettings,
    /// Where the progress is published.
    pub applied: watch::Sender<Applied>,
}

/// How often the position is saved while only other databases are written.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How long the rest of a transaction is waited for before the part at hand is written.
const PART_WAIT: Duration = Duration::from_millis(50);

struct Work<'a> {
    applier: &'a Applier,
    sessions: Vec<Session>,
    batch: Batch,
    permits: Vec<OwnedSemaphorePermit>,
    /// Last transaction end seen, and when it was logged.
    end: Position,
    end_at: u32,
    /// Last event in the batch.
    event: Position,
    in_transaction: bool,
    transactions: u64,
    saved: Position,
    saved_when: Instant,
    /// Up to here the target may be ahead.
    replay_until: Position,
    /// Up to here events are on the target for certain, and only marked.
    applied_before: Position,
}

impl Applier {
    /// Applies events until the channel is closed (everything received is applied then) or cancelled.
    ///
    /// # Errors
    /// What does not heal by itself, or did not within the retries; [`MysqlError::Cancelled`].
    pub async fn run(&self, from: &Followed, mut events: mpsc::Receiver<TailEvent>, cancel: &CancellationToken) -> Result<()> {
        let mut work = Work {
            applier: self,
            sessions: Vec::new(),
            batch: Batch::default(),
            permits: Vec::new(),
            end: from.applied.clone(),
            end_at: 0,
            event: from.applied.clone(),
            in_transaction: false,
            transactions: 0,
            saved: from.applied.clone(),
            saved_when: Instant::now(),
            replay_until: from.intent.clone(),
            applied_before: from.applied.clone(),
        };
        loop {
            let event = if work.batch.is_empty() || work.in_transaction {
                tokio::select! {
                    () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                    event = events.recv() => event,
                    () = tokio::time::sleep(SAVE_EVERY), if work.unsaved() => {
                        work.save_position().await?;
                        continue;
                    }
                    // The rest of the transaction may be waiting for the memory that this part holds.
                    () = tokio::time::sleep(PART_WAIT), if !work.batch.is_empty() => {
                        work.flush(cancel).await?;
                        continue;
                    }
                }
            } else {
                match events.try_recv() {
                    Ok(event) => Some(event),
                    Err(mpsc::error::TryRecvError::Empty) => {
                        work.flush(cancel).await?;
                        continue;
                    }
                    Err(mpsc::error::TryRecvError::Disconnected) => None,
                }
            };
            let Some(event) = event else {
                work.flush(cancel).await?;
                return work.save_position().await;
            };
            work.take(event, cancel).await?;
        }
    }
}

impl Work<'_> {
    fn unsaved(&self) -> bool {
        !self.in_transaction && self.batch.is_empty() && self.saved != self.end
    }

    async fn take(&mut self, event: TailEvent, cancel: &CancellationToken) -> Result<()> {
        match event {
            TailEvent::Rows(rows) => self.rows(rows, cancel).await?,
            TailEvent::TransactionEnd { position, at } => {
                self.in_transaction = false;
                self.transactions += 1;
                self.reached(position, at);
            }
            TailEvent::Passed { position, at } => self.reached(position, at),
            TailEvent::Note(note) => self.applier.shared.note(note),
        }
        let settings = &self.applier.settings;
        if self.batch.changes >= settings.batch_changes && !self.in_transaction {
            return self.flush(cancel).await;
        }
        if self.unsaved() && self.saved_when.elapsed() >= SAVE_EVERY {
            self.save_position().await?;
        }
        Ok(())
    }

    /// Nothing beyond here is on the target once what is at hand is written.
    fn intent(&self) -> Position {
        std::cmp::max(&self.event, std::cmp::max(&self.end, &self.replay_until)).clone()
    }

    fn reached(&mut self, position: Position, at: u32) {
        if position <= self.applied_before {
            return;
        }
        self.event = position.clone();
        self.end = position;
        if at > 0 {
            self.end_at = at;
        }
        if self.batch.is_empty() {
            self.publish(0);
        }
    }

    async fn rows(&mut self, rows: Rows, cancel: &CancellationToken) -> Result<()> {
        self.in_transaction = true;
        let shared = self.applier.shared.clone();
        let table = shared.tables.get(rows.table);
        if rows.end <= self.applied_before {
            self.mark_only(rows);
            return Ok(());
        }
        for change in rows.changes {
            if batch::cascades(table, &change) {
                self.flush(cancel).await?;
                self.event = rows.end.clone();
                self.cascade(rows.table, change, cancel).await?;
                continue;
            }
            self.batch.add(rows.table, table, change, &rows.end);
        }
        self.event = rows.end;
        self.permits.extend(rows.permit);
        if self.batch.weight >= self.applier.settings.batch_bytes {
            self.flush(cancel).await?;
        }
        Ok(())
    }

    /// Events from before the start are on the target; they are read again for their marks. What a
    /// cascade touched back then is in no event, so the children count as touched altogether.
    fn mark_only(&self, rows: Rows) {
        let shared = &self.applier.shared;
        let table = shared.tables.get(rows.table);
        for change in &rows.changes {
            let keys = change.before.iter().chain(&change.after).filter_map(|row| table.key_of(row));
            shared.touches.mark(rows.table, keys);
            if batch::cascades(table, change) {
                for reached in shared.tables.cascade_reaches(rows.table) {
                    shared.touches.saturate(reached);
                }
            }
        }
    }

    fn publish(&self, changes: u64) {
        let transactions = self.transactions;
        self.applier.applied.send_modify(|applied| {
            applied.position = self.end.clone();
            applied.at = self.end_at;
            applied.seen = Instant::now();
            applied.transactions = transactions;
            applied.changes += changes;
        });
    }

    /// Writes the batch. Until it is written nothing of it is given up, whatever fails in between.
    async fn flush(&mut self, cancel: &CancellationToken) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let shared = &self.applier.shared;
        for (table, keys) in batch.touched_keys() {
            shared.touches.mark(table, keys);
        }
        for (table, keys) in batch.deleted_keys() {
            shared.deletes.remember(table, keys);
        }
        let changes = batch.changes;
        let pass = tokio::select! {
            () = cancel.cancelled() => return Err(MysqlError::Cancelled),
            pass = shared.gate.enter_batch(batch.footprint(&shared.tables)) => pass,
        };
        let mut batch = batch;
        batch.skip_keyless(&shared.keyless_positions());
        let lanes = batch.into_lanes(&shared.tables, self.applier.settings.lanes, self.applier.settings.small);
        let mut attempt = 0;
        loop {
            crash::point("apply.batch.before");
            match self.write(&lanes, attempt > 0).await {
                Ok(()) => break,
                Err(error) if error.transient() && attempt < self.applier.settings.retries => {
                    attempt += 1;
                    self.recover(&error, attempt, cancel).await?;
                }
                Err(error) => return Err(error),
            }
        }
        crash::point("apply.batch.after");
        drop(pass);
        for lane in &lanes {
            for (&table, events) in &lane.keyless {
                if let Some(last) = events.last() {
                    shared.keyless_reached(table, last.end.clone());
                }
            }
        }
        self.permits.clear();
        self.publish(changes);
        Ok(())
    }

    async fn write(&mut self, lanes: &[batch::Lane], again: bool) -> Result<()> {
        if lanes.is_empty() {
            return Ok(());
        }
        let shared = self.applier.shared.clone();
        while self.sessions.len() < lanes.len() {
            self.sessions.push(shared.open_writer(&self.applier.server).await?);
        }
        let mode = if again || self.saved < self.replay_until { Mode::Replay } else { Mode::Forward };
        let keyless = if again { self.saved_keyless().await? } else { BTreeMap::new() };
        let context = LaneContext {
            store: &shared.store,
            epoch: self.applier.epoch,
            tables: &shared.tables,
            keyless: &keyless,
            mode,
            positions: None,
        };
        let intent = self.intent();
        if let [lane] = lanes {
            let context = LaneContext { positions: Some((&self.end, &intent)), ..context };
            write::write_lane(&mut self.sessions[0], lane, &context).await?;
        } else {
            let before = self.saved.clone();
            save(&mut self.sessions[0], &shared, self.applier.epoch, &before, &intent).await?;
            crash::point("apply.intent.saved");
            let written =
                join_all(self.sessions.iter_mut().zip(lanes).map(|(session, lane)| write::write_lane(session, lane, &context))).await;
            for result in written {
                result?;
            }
            crash::point("apply.lanes.committed");
            save(&mut self.sessions[0], &shared, self.applier.epoch, &self.end, &intent).await?;
        }
        self.saved = self.end.clone();
        self.saved_when = Instant::now();
        Ok(())
    }

    /// A parent's delete or key change, with its cascade, in a transaction of its own.
    async fn cascade(&mut self, table: TableId, change: RowChange, cancel: &CancellationToken) -> Result<()> {
        let Some(before) = change.before else { return Ok(()) };
        let shared = self.applier.shared.clone();
        let parent = shared.tables.get(table);
        let parent_change = match change.after {
            Some(after) => ParentChange::Rekeyed(before, after),
            None => ParentChange::Deleted(before),
        };
        let (old, new) = match &parent_change {
            ParentChange::Deleted(before) => (parent.key_of(before), None),
            ParentChange::Rekeyed(before, after) => (parent.key_of(before), Some((parent.key_of(after), after))),
        };
        let keys: Vec<_> = old.iter().cloned().chain(new.iter().filter_map(|(key, _)| key.clone())).collect();
        let gone: Vec<_> = old.iter().filter(|old| new.as_ref().and_then(|(key, _)| key.as_ref()) != Some(old)).cloned().collect();
        shared.touches.mark(table, keys.clone());
        shared.deletes.remember(table, gone);
        let reached = shared.tables.cascade_reaches(table).into_iter().chain([table]);
        let footprint = reached.map(|id| (id, Touched::Any)).collect();
        let _pass = tokio::select! {
            () = cancel.cancelled() => return Err(MysqlError::Cancelled),
            pass = shared.gate.enter_batch(footprint) => pass,
        };
        shared.parents.remember(table, parent_change.clone());
        let mut attempt = 0;
        loop {
            match self.write_cascade(table, &keys, new.as_ref().map(|(_, row)| *row), &parent_change).await {
                Ok(()) => break,
                Err(error) if error.transient() && attempt < self.applier.settings.retries => {
                    attempt += 1;
                    self.recover(&error, attempt, cancel).await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.publish(1);
        Ok(())
    }

    async fn write_cascade(
        &mut self,
        table: TableId,
        keys: &[crate::mysql::cell::Key],
        row: Option<&crate::mysql::cell::Row>,
        change: &ParentChange,
    ) -> Result<()> {
        let shared = self.applier.shared.clone();
        if self.sessions.is_empty() {
            self.sessions.push(shared.open_writer(&self.applier.server).await?);
        }
        let intent = self.intent();
        let session = &mut self.sessions[0];
        session.run("BEGIN", "opening a transaction").await?;
        bookkeeping::hold_lease(session, &shared.store, self.applier.epoch).await?;
        let parent = shared.tables.get(table);
        write::delete_keys(session, parent, keys.iter()).await?;
        if let Some(row) = row {
            write::upsert_rows(session, parent, &[row]).await?;
        }
        let cascaded = cascade::carry_out(session, &shared.tables, table, change).await?;
        cascade::remember(&shared, cascaded);
        let statement = bookkeeping::save_positions(&shared.store, &self.end, &intent);
        session.write(statement.as_bytes(), "saving the applied position").await?;
        session.run("COMMIT", "committing a cascade").await?;
        self.saved = self.end.clone();
        self.saved_when = Instant::now();
        Ok(())
    }

    async fn save_position(&mut self) -> Result<()> {
        if self.saved == self.end {
            return Ok(());
        }
        let shared = self.applier.shared.clone();
        let intent = self.intent();
        let mut attempt = 0;
        loop {
            let saved = match self.sessions.first_mut() {
                Some(session) => save(session, &shared, self.applier.epoch, &self.end, &intent).await,
                None => match shared.open_writer(&self.applier.server).await {
                    Ok(session) => {
                        self.sessions.push(session);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match saved {
                Ok(()) => break,
                Err(error) if error.transient() && attempt < self.applier.settings.retries => {
                    attempt += 1;
                    self.recover(&error, attempt, &CancellationToken::new()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.saved = self.end.clone();
        self.saved_when = Instant::now();
        Ok(())
    }

    async fn saved_keyless(&mut self) -> Result<BTreeMap<TableId, Position>> {
        let shared = self.applier.shared.clone();
        shared.load_keyless(&mut self.sessions[0]).await
    }

    /// Drops the connections and waits before the next try: longer each time, at most ten seconds.
    async fn recover(&mut self, error: &MysqlError, attempt: u32, cancel: &CancellationToken) -> Result<()> {
        self.sessions.clear();
        let wait = Duration::from_millis(100 << attempt.min(6)).min(Duration::from_secs(10));
        tracing::warn!(%error, attempt, wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "applying failed, trying again");
        self.applier.shared.throttle(Some(format!("waiting for the target: {error}")));
        tokio::select! {
            () = cancel.cancelled() => return Err(MysqlError::Cancelled),
            () = tokio::time::sleep(wait) => {}
        }
        self.applier.shared.throttle(None);
        Ok(())
    }
}

/// Saves positions in a transaction of their own, under the lease.
async fn save(session: &mut Session, shared: &Shared, epoch: Epoch, applied: &Position, intent: &Position) -> Result<()> {
    session.run("BEGIN", "saving the applied position").await?;
    bookkeeping::hold_lease(session, &shared.store, epoch).await?;
    session.write(bookkeeping::save_positions(&shared.store, applied, intent).as_bytes(), "saving the applied position").await?;
    session.run("COMMIT", "saving the applied position").await
}

impl Shared {
    /// Opens a writing session on the target.
    ///
    /// # Errors
    /// If the target can't be reached.
    pub async fn open_writer(&self, server: &Arc<Server>) -> Result<Session> {
        let mut session = Session::open(server, Purpose::Write).await?;
        session.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", "setting the isolation level").await?;
        Ok(session)
    }
}
