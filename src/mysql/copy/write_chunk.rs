//! Puts a chunk's rows into the target, under the rules that make it safe beside the applier.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::load::{self, Loaded};
use super::progress::CopyProgress;
use super::{LoadPath, LoadedChunk, plan};
use crate::engine::crash;
use crate::engine::step::Epoch;
use crate::mysql::apply::applier::Applied;
use crate::mysql::apply::cascade;
use crate::mysql::apply::parents::Lately;
use crate::mysql::bookkeeping;
use crate::mysql::cell::{Key, Row};
use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::position::Position;
use crate::mysql::range_gate::Span;
use crate::mysql::shared::Shared;
use crate::mysql::tables::MovedTable;
use crate::mysql::well_formed::row_name;

/// Whether the chunk went in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It did.
    In(Loaded),
    /// It can't be judged any more against what was deleted meanwhile: read it again.
    ReadAgain,
}

/// One writing session and what it needs to know.
pub struct Writer {
    /// The target.
    pub session: Session,
    /// What the store's steps share.
    pub shared: Arc<Shared>,
    /// This driver's epoch.
    pub epoch: Epoch,
    /// How rows are put in.
    pub path: LoadPath,
    /// How far the applier is.
    pub applied: watch::Receiver<Applied>,
    /// Told of waiting and working.
    pub progress: Arc<CopyProgress>,
}

impl Writer {
    /// Puts the chunk in, in one transaction with the note that it is there.
    ///
    /// # Errors
    /// As the target gives them; nothing of the chunk is there then.
    pub async fn write(&mut self, part: &LoadedChunk, cancel: &CancellationToken) -> Result<Entered> {
        let id = part.chunk.table;
        let shared = self.shared.clone();
        let table = shared.tables.get(id);
        let progress = self.progress.clone();
        let waits = progress.awaits_following();
        wait_applied(&mut self.applied, &part.read_at, cancel).await?;
        drop(waits);
        let _works = progress.works();
        let _pass = tokio::select! {
            () = cancel.cancelled() => return Err(MysqlError::Cancelled),
            pass = shared.gate.enter_chunk(id, span(table, part)) => pass,
        };
        if !shared.deletes.covers(id, part.read_started) {
            return Ok(Entered::ReadAgain);
        }
        let lately = match shared.parents.lately(&shared.tables, id, part.read_started) {
            Lately::Changes(changes) => changes,
            Lately::Unclear => return Ok(Entered::ReadAgain),
        };
        let (lines, rows) = self.living(part);
        self.session.run("BEGIN", "opening a transaction").await?;
        let filled = self.fill(part, table, lines, rows, &lately).await;
        let loaded = match filled {
            Ok(loaded) => loaded,
            Err(error) => {
                // If this fails too, the connection is gone and the server rolls back by itself.
                let _ = self.session.run("ROLLBACK", "rolling a chunk back").await;
                return Err(error);
            }
        };
        crash::point("copy.chunk.before_commit");
        self.session.run("COMMIT", "committing a chunk").await?;
        crash::point("copy.chunk.committed");
        Ok(Entered::In(loaded))
    }

    async fn fill(
        &mut self,
        part: &LoadedChunk,
        table: &MovedTable,
        lines: Bytes,
        rows: usize,
        lately: &[(crate::mysql::tables::Child, Arc<cascade::ParentChange>)],
    ) -> Result<Loaded> {
        let shared = self.shared.clone();
        let size = lines.len();
        bookkeeping::hold_lease(&mut self.session, &shared.store, self.epoch).await?;
        // Rows that refer to a parent that went meanwhile: those that are here before the chunk came by events and stay.
        let mut stay: Vec<Vec<Key>> = Vec::with_capacity(lately.len());
        for (child, change) in lately {
            let found = referring(&mut self.session, table, child, change).await?;
            stay.push(found.iter().filter_map(|row| table.key_of(row)).collect());
        }
        // With rows left out, the server's count is not that of the chunk.
        let named =
            |row: usize| part.rows.get(row).filter(|_| rows == part.rows.len()).map(|(_, key)| row_name(&table.table, &key.cells()));
        let loaded = load::load(&mut self.session, table, self.path, lines, rows).await.map_err(|error| error.at_row(named))?;
        // Only rows with keys of the chunk: events on those wait at the gate, but an event on another key may have put a row
        // in meanwhile that refers to a parent of the same key that lives again.
        let ours: HashSet<&Key> = if lately.is_empty() { HashSet::new() } else { part.rows.iter().map(|(_, key)| key).collect() };
        for ((child, change), stay) in lately.iter().zip(stay) {
            let found = referring(&mut self.session, table, child, change).await?;
            let brought: Vec<Row> =
                found.into_iter().filter(|row| table.key_of(row).is_some_and(|key| ours.contains(&key) && !stay.contains(&key))).collect();
            let Some((action, _)) = cascade::effect(child, change) else { continue };
            if brought.is_empty() {
                continue;
            }
            let mut cascaded = Vec::new();
            cascade::child_rows(&mut self.session, &shared.tables, child, action, change, brought, &mut cascaded).await?;
            cascade::remember(&shared, cascaded);
        }
        let last = part.range.through.as_ref();
        let statement = plan::save_chunk(&shared.store, table.name(), part.chunk.number, last, part.more, rows, size);
        self.session.write(statement.as_bytes(), "saving that a chunk is in").await?;
        Ok(loaded)
    }

    /// The chunk's lines without the rows that were deleted lately.
    fn living(&self, part: &LoadedChunk) -> (Bytes, usize) {
        let deletes = &self.shared.deletes;
        let id = part.chunk.table;
        if deletes.is_empty(id) {
            return (part.lines.clone(), part.rows.len());
        }
        let gone: Vec<usize> =
            part.rows.iter().enumerate().filter(|(_, (_, key))| deletes.contains(id, key)).map(|(index, _)| index).collect();
        if gone.is_empty() {
            return (part.lines.clone(), part.rows.len());
        }
        let mut living = Vec::with_capacity(part.lines.len());
        let mut gone = gone.into_iter().peekable();
        let mut start = 0;
        let mut rows = 0;
        for (index, (end, _)) in part.rows.iter().enumerate() {
            if gone.next_if_eq(&index).is_none() {
                living.extend_from_slice(&part.lines[start..*end]);
                rows += 1;
            }
            start = *end;
        }
        (Bytes::from(living), rows)
    }
}

async fn referring(
    session: &mut Session,
    table: &MovedTable,
    child: &crate::mysql::tables::Child,
    change: &cascade::ParentChange,
) -> Result<Vec<Row>> {
    match cascade::effect(child, change) {
        Some((_, values)) => cascade::referring(session, table, child, &values).await,
        None => Ok(Vec::new()),
    }
}

/// Waits until the applier has passed a position.
///
/// # Errors
/// [`MysqlError::Cancelled`], also when the applier is gone.
pub async fn wait_applied(applied: &mut watch::Receiver<Applied>, position: &Position, cancel: &CancellationToken) -> Result<()> {
    tokio::select! {
        () = cancel.cancelled() => Err(MysqlError::Cancelled),
        reached = applied.wait_for(|applied| applied.position >= *position) => reached.map(drop).map_err(|_| MysqlError::Cancelled),
    }
}

fn span(table: &MovedTable, part: &LoadedChunk) -> Span {
    if table.integer_key.is_none() {
        return Span::Whole;
    }
    let bound = |key: &Option<Key>| key.as_ref().map(|key| table.integer(key));
    match (bound(&part.range.after), bound(&part.range.through)) {
        // A bound that is no number can't be compared here.
        (Some(None), _) | (_, Some(None)) => Span::Whole,
        (after, through) => Span::Integers { after: after.flatten(), through: through.flatten() },
    }
}
