//! Copies a table without a key: whole, in one transaction, from a position of its own.
//!
//! Rows of such a table can't be told apart, so "insert if absent" and "upsert" mean nothing. It is
//! read as it was at exactly one position `K`: writers are kept out by `LOCK TABLES … READ` while a
//! consistent snapshot is opened and `K` is read (InnoDB: milliseconds) or while the rows are read
//! (MyISAM and others without snapshots: the whole read; `assess` says so beforehand). Its events up
//! to `K` are skipped, later ones wait until the copy is committed and are then applied exactly once.
//! `K` is saved in the transaction of the rows.
//!
//! A change of such a row looks for it by all its values. Where only an index makes that quick, one event may read
//! the whole table without it: so its indexes are built before its events go on ([`KeylessCopy::copy`] leaves its
//! caller the pass for that).

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::load::{self, Loaded};
use super::{LoadPath, plan};
use crate::engine::crash;
use crate::engine::step::Epoch;
use crate::mysql::bookkeeping;
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::position::Position;
use crate::mysql::range_gate::{ChunkPass, Span};
use crate::mysql::read::{self, Order, Scope};
use crate::mysql::shared::Shared;
use crate::mysql::sql;
use crate::mysql::status;
use crate::mysql::tables::{MovedTable, TableId};

/// How long the lock is waited for, in seconds: a long query on the table must not stop the site behind us.
const LOCK_WAIT: u32 = 10;

/// Copies one table.
pub struct KeylessCopy<'a> {
    /// What the store's steps share.
    pub shared: &'a Shared,
    /// The source.
    pub source: &'a Arc<Server>,
    /// This driver's epoch.
    pub epoch: Epoch,
    /// How rows are put in.
    pub path: LoadPath,
    /// Bytes put in at a time.
    pub chunk_bytes: usize,
}

/// Lets no event of the table go in until the pass is dropped.
///
/// # Errors
/// If it is cancelled.
pub async fn enter(shared: &Shared, id: TableId, cancel: &CancellationToken) -> Result<ChunkPass> {
    tokio::select! {
        () = cancel.cancelled() => Err(MysqlError::Cancelled),
        pass = shared.gate.enter_chunk(id, Span::Whole) => Ok(pass),
    }
}

impl KeylessCopy<'_> {
    /// Copies the table; until the pass is dropped its events wait. On an error nothing of it is there.
    ///
    /// # Errors
    /// As the servers give them.
    pub async fn copy(&self, id: TableId, target: &mut Session, cancel: &CancellationToken) -> Result<(Loaded, ChunkPass)> {
        let pass = enter(self.shared, id, cancel).await?;
        Ok((self.put(id, target, false, cancel).await?, pass))
    }

    /// Copies a table that was copied before once more, in place of what the target has: its rows are deleted in the same transaction.
    ///
    /// # Errors
    /// As [`KeylessCopy::copy`]; on an error the target has what it had.
    pub async fn replace(&self, id: TableId, target: &mut Session, cancel: &CancellationToken) -> Result<Loaded> {
        let _pass = enter(self.shared, id, cancel).await?;
        self.put(id, target, true, cancel).await
    }

    async fn put(&self, id: TableId, target: &mut Session, replace: bool, cancel: &CancellationToken) -> Result<Loaded> {
        let table = self.shared.tables.get(id);
        let mut locker = Session::open(self.source, Purpose::Read).await?;
        let what = format!("locking `{}` for reading", table.name());
        locker.run(&format!("SET SESSION lock_wait_timeout = {LOCK_WAIT}"), &what).await?;
        locker.run(&format!("LOCK TABLES {} READ", sql::table(table.name())), &what).await?;
        let snapshot = table.table.engine.eq_ignore_ascii_case("InnoDB");
        let (mut reader, position) = if snapshot {
            let mut reader = Session::open(self.source, Purpose::Read).await?;
            reader.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "opening a snapshot").await?;
            reader.run("START TRANSACTION WITH CONSISTENT SNAPSHOT", "opening a snapshot").await?;
            let position = status::current_position(&mut reader).await?;
            locker.run("UNLOCK TABLES", "unlocking").await?;
            locker.close().await;
            (reader, position)
        } else {
            // Closing the session at the end unlocks the table, whatever happens in between.
            let mut other = Session::open(self.source, Purpose::Read).await?;
            let position = status::current_position(&mut other).await?;
            other.close().await;
            (locker, position)
        };
        target.run("BEGIN", "opening a transaction").await?;
        let filled = self.fill(table, &mut reader, target, &position, replace, cancel).await;
        reader.close().await;
        match filled {
            Ok(loaded) => {
                crash::point("copy.keyless.before_commit");
                target.run("COMMIT", "committing a keyless table").await?;
                crash::point("copy.keyless.committed");
                self.shared.keyless_reached(id, position);
                Ok(loaded)
            }
            Err(error) => {
                // If this fails too, the connection is gone and the server rolls back by itself.
                let _ = target.run("ROLLBACK", "rolling a keyless table back").await;
                Err(error)
            }
        }
    }

    async fn fill(
        &self,
        table: &MovedTable,
        reader: &mut Session,
        target: &mut Session,
        position: &Position,
        replace: bool,
        cancel: &CancellationToken,
    ) -> Result<Loaded> {
        let shared = self.shared;
        bookkeeping::hold_lease(target, &shared.store, self.epoch).await?;
        if replace {
            let emptying = format!("emptying `{}`, to be copied once more", table.name());
            target.write(format!("DELETE FROM {}", sql::table(table.name())).as_bytes(), &emptying).await?;
        }
        let columns = read::stored_columns(&table.table);
        let mut stream = read::stream_fields(reader, &table.table, &columns, &Scope::Table, Order::Any).await?;
        let mut total = Loaded::default();
        let mut bytes = 0;
        let mut finished = false;
        while !finished {
            if cancel.is_cancelled() {
                return Err(MysqlError::Cancelled);
            }
            let mut lines = Vec::new();
            let mut rows = 0;
            while lines.len() < self.chunk_bytes {
                if stream.next(&mut lines).await?.is_none() {
                    finished = true;
                    break;
                }
                rows += 1;
            }
            bytes += lines.len();
            let loaded = load::load(target, table, self.path, Bytes::from(lines), rows).await?;
            if loaded.skipped > 0 {
                return Err(MysqlError::Drift {
                    table: table.name().clone(),
                    message: format!("{} rows of the keyless table were refused as duplicates", loaded.skipped),
                });
            }
            total.inserted += loaded.inserted;
        }
        let statement = bookkeeping::save_keyless(&shared.store, table.name(), position);
        target.write(statement.as_bytes(), "saving the position of a keyless table").await?;
        if replace {
            return Ok(total);
        }
        target.write(plan::save_whole(&shared.store, table.name(), total.inserted, bytes).as_bytes(), "saving what was copied").await?;
        target.write(plan::save_table(&shared.store, table.name(), false).as_bytes(), "saving that a table is copied").await?;
        Ok(total)
    }
}
