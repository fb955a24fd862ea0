//! The applier's loop: gathers events into batches, and decides when one is full enough to be written.
//!
//! A table that was emptied as a whole is emptied between two batches (`empty`).
//! A batch is written as soon as nothing more waits to be added, or when it holds so many changes or bytes; how
//! it is written is in `flush`. Events from before the start are only marked as touched.

mod empty;
mod flush;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::batch::{self, Batch};
use crate::engine::step::Epoch;
use crate::mysql::bookkeeping::Followed;
use crate::mysql::connect::{Server, Session};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::position::Position;
use crate::mysql::shared::Shared;
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
    /// Every transaction can be told from others' in the log of the server that is written to.
    pub marks: bool,
}

impl Default for ApplySettings {
    fn default() -> Self {
        ApplySettings { lanes: 4, batch_changes: 4000, batch_bytes: 8 << 20, small: 200, retries: 20, marks: false }
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
            applied_before: std::cmp::max(&from.applied, &from.sure).clone(),
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
            TailEvent::LogFile(file) => self.log_file(&file, cancel).await?,
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
        // A prepared transaction may hold positions back behind rows that are applied.
        self.event = std::cmp::max(self.event.clone(), position.clone());
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
        if let Some(late) = rows.emptied {
            self.empty(rows.table, &rows.end, late, cancel).await?;
        }
        let mut before = self.event.clone();
        let last = rows.changes.len().saturating_sub(1);
        for (at, change) in rows.changes.into_iter().enumerate() {
            if batch::cascades(table, &change) {
                self.flush(cancel).await?;
                self.event = rows.end.clone();
                // Of an event of several changes only the last one ends it.
                if at == last {
                    before = rows.end.clone();
                }
                self.cascade(rows.table, change, &before, cancel).await?;
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
        if rows.emptied.is_some() {
            shared.touches.saturate(rows.table);
        }
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
}
