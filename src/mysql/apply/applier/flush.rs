//! Writes what the applier has gathered: a batch in its lanes, a cascade in a transaction of its own, or just the position.
//!
//! # What must hold
//!
//! * What is written is marked and remembered *before* ([`touches`](crate::mysql::touches),
//!   [`delete_memory`](crate::mysql::delete_memory)), and waits at the gate for chunks that go in
//!   ([`range_gate`](crate::mysql::range_gate)).
//! * A batch of one lane carries its position in its own transaction. A batch of several saves its end as
//!   the *intent* first and as *applied* last: after a crash the target is between the two.
//! * A cascade is written once, and nothing before it again after it ([`bookkeeping`]): it saves the event that it comes after.
//! * What may heal is tried again on new connections; a batch that was tried before is written as a replay, since
//!   any part of it may be there. The batch is kept until it is in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::Work;
use crate::engine::crash;
use crate::engine::step::Epoch;
use crate::mysql::apply::batch::Lane;
use crate::mysql::apply::cascade::{self, ParentChange};
use crate::mysql::apply::write::{self, LaneContext, Mode};
use crate::mysql::bookkeeping;
use crate::mysql::cell::{Key, Row};
use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::position::Position;
use crate::mysql::range_gate::Touched;
use crate::mysql::rows::RowChange;
use crate::mysql::shared::Shared;
use crate::mysql::tables::TableId;
use crate::mysql::tail::LogFile;

impl Work<'_> {
    /// Writes the batch. Until it is written nothing of it is given up, whatever fails in between.
    pub(super) async fn flush(&mut self, cancel: &CancellationToken) -> Result<()> {
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
                Err(error) => self.recover(error, &mut attempt, cancel).await?,
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

    async fn write(&mut self, lanes: &[Lane], again: bool) -> Result<()> {
        if lanes.is_empty() {
            return Ok(());
        }
        self.open_sessions(lanes.len()).await?;
        let shared = &self.applier.shared;
        let mode = if again || self.saved < self.replay_until { Mode::Replay } else { Mode::Forward };
        let keyless = if again { shared.load_keyless(&mut self.sessions[0]).await? } else { BTreeMap::new() };
        let context = LaneContext {
            store: &shared.store,
            epoch: self.applier.epoch,
            tables: &shared.tables,
            keyless: &keyless,
            mode,
            positions: None,
            mark: None,
        };
        let intent = self.intent();
        if let [lane] = lanes {
            let context = LaneContext { positions: Some((&self.end, &intent)), ..context };
            write::write_lane(&mut self.sessions[0], lane, &context).await?;
        } else {
            let before = self.saved.clone();
            save(&mut self.sessions[0], shared, self.applier.epoch, &before, &intent).await?;
            crash::point("apply.intent.saved");
            let mark = |number| Some(number).filter(|_| self.applier.settings.marks);
            let contexts: Vec<LaneContext<'_>> = (0..lanes.len()).map(|number| LaneContext { mark: mark(number), ..context }).collect();
            let lanes = self.sessions.iter_mut().zip(lanes).zip(&contexts);
            let written = join_all(lanes.map(|((session, lane), context)| write::write_lane(session, lane, context))).await;
            for result in written {
                result?;
            }
            crash::point("apply.lanes.committed");
            save(&mut self.sessions[0], shared, self.applier.epoch, &self.end, &intent).await?;
        }
        self.end_saved();
        Ok(())
    }

    /// A parent's delete or key change, with its cascade, in a transaction of its own; `sure`: the event that is in with it.
    pub(super) async fn cascade(&mut self, table: TableId, change: RowChange, sure: &Position, cancel: &CancellationToken) -> Result<()> {
        let Some(before) = change.before else { return Ok(()) };
        let shared = &self.applier.shared;
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
        while let Err(error) = self.write_cascade(table, &keys, new.as_ref().map(|(_, row)| *row), &parent_change, sure).await {
            self.recover(error, &mut attempt, cancel).await?;
        }
        crash::point("apply.cascade.committed");
        self.publish(1);
        Ok(())
    }

    async fn write_cascade(
        &mut self,
        table: TableId,
        keys: &[Key],
        row: Option<&Row>,
        change: &ParentChange,
        sure: &Position,
    ) -> Result<()> {
        self.open_sessions(1).await?;
        let shared = &self.applier.shared;
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
        cascade::remember(shared, cascaded);
        let statement = bookkeeping::save_positions(&shared.store, &self.end, &intent);
        session.write(statement.as_bytes(), "saving the applied position").await?;
        session.write(bookkeeping::save_sure(&shared.store, sure).as_bytes(), "saving the event of a cascade").await?;
        session.run("COMMIT", "committing a cascade").await?;
        self.end_saved();
        Ok(())
    }

    /// Saves how far everything is, if that is not saved yet.
    pub(super) async fn save_position(&mut self) -> Result<()> {
        if self.saved == self.end {
            return Ok(());
        }
        let mut attempt = 0;
        while let Err(error) = self.save_end().await {
            self.recover(error, &mut attempt, &CancellationToken::new()).await?;
        }
        Ok(())
    }

    async fn save_end(&mut self) -> Result<()> {
        self.open_sessions(1).await?;
        let intent = self.intent();
        save(&mut self.sessions[0], &self.applier.shared, self.applier.epoch, &self.end, &intent).await?;
        self.end_saved();
        Ok(())
    }

    /// Makes sure that the log is the one that was followed: a saved position means nothing in another one.
    pub(super) async fn log_file(&mut self, seen: &LogFile, cancel: &CancellationToken) -> Result<()> {
        let mut attempt = 0;
        let saved = loop {
            match self.saved_log_file(seen).await {
                Ok(saved) => break saved,
                Err(error) => self.recover(error, &mut attempt, cancel).await?,
            }
        };
        match saved {
            Some(saved) if saved != *seen => Err(MysqlError::another_log(
                &self.end,
                &format!(
                    "the log file was begun at {} by server {}, and the one that was followed at {} by server {}",
                    seen.created, seen.server_id, saved.created, saved.server_id
                ),
            )),
            _ => Ok(()),
        }
    }

    async fn saved_log_file(&mut self, seen: &LogFile) -> Result<Option<LogFile>> {
        self.open_sessions(1).await?;
        bookkeeping::log_file(&mut self.sessions[0], &self.applier.shared.store, self.applier.epoch, seen).await
    }

    /// Opens connections until there are so many.
    pub(super) async fn open_sessions(&mut self, count: usize) -> Result<()> {
        while self.sessions.len() < count {
            self.sessions.push(self.applier.shared.open_writer(&self.applier.server).await?);
        }
        Ok(())
    }

    pub(super) fn end_saved(&mut self) {
        self.saved = self.end.clone();
        self.saved_when = Instant::now();
    }

    /// After a failed attempt: gives the error back if it can't heal or was tried often enough; else counts the attempt, drops
    /// the connections and waits before the next try, longer each time, at most ten seconds.
    pub(super) async fn recover(&mut self, error: MysqlError, attempts: &mut u32, cancel: &CancellationToken) -> Result<()> {
        if !error.transient() || *attempts >= self.applier.settings.retries {
            return Err(error);
        }
        *attempts += 1;
        let attempt = *attempts;
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
pub(super) async fn save(session: &mut Session, shared: &Shared, epoch: Epoch, applied: &Position, intent: &Position) -> Result<()> {
    session.run("BEGIN", "saving the applied position").await?;
    bookkeeping::hold_lease(session, &shared.store, epoch).await?;
    session.write(bookkeeping::save_positions(&shared.store, applied, intent).as_bytes(), "saving the applied position").await?;
    session.run("COMMIT", "saving the applied position").await
}
