//! Empties a table on the target, as a `TRUNCATE` on the source did.
//!
//! # What must hold
//!
//! * Nothing from before comes back: what is gathered is written first; a chunk that is going in is waited for, and one that
//!   was read before goes in no more ([`delete_memory`](crate::mysql::delete_memory)).
//! * Any key of the table may have changed: it counts as touched altogether.
//! * `TRUNCATE` commits by itself, so it can't be in one transaction with its position, and a crash between the two empties
//!   the table again. That loses nothing. With a key: the position saved is then one before it, so everything after it in the
//!   log is applied again, and every row that the table may hold by then (an event's, or a chunk's that was read later) was
//!   put there on the source after it. Without a key: its rows are applied exactly once, from a position of its own, which is
//!   saved right after it and before any later event of the table; what stands behind that position is not emptied again.
//! * The lease is held by a second session while the table is emptied: a driver that takes over waits for its end, and one
//!   that has lost the lease empties nothing.
//!
//! Children of a parent that is emptied keep their rows: the source does so too (it refuses, or checks were off).

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Work, flush};
use crate::engine::crash;
use crate::mysql::bookkeeping;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::position::Position;
use crate::mysql::range_gate::Touched;
use crate::mysql::sql;
use crate::mysql::tables::TableId;

impl Work<'_> {
    /// Empties the table. `end` is where the event stands in the log; a SELECT on the source that begins `late` from now sees
    /// it empty.
    pub(super) async fn empty(&mut self, table: TableId, end: &Position, late: Duration, cancel: &CancellationToken) -> Result<()> {
        self.flush(cancel).await?;
        self.event = end.clone();
        let shared = self.applier.shared.clone();
        shared.touches.saturate(table);
        shared.deletes.emptied(table, late);
        let _pass = tokio::select! {
            () = cancel.cancelled() => return Err(MysqlError::Cancelled),
            pass = shared.gate.enter_batch(HashMap::from([(table, Touched::Any)])) => pass,
        };
        // Without a key: not copied yet, or copied or applied from a later position.
        if shared.tables.get(table).key.is_none() && shared.keyless_positions().get(&table).is_none_or(|done| done >= end) {
            return Ok(());
        }
        let mut attempt = 0;
        while let Err(error) = self.write_empty(table, end).await {
            self.recover(error, &mut attempt, cancel).await?;
        }
        if shared.tables.get(table).key.is_none() {
            shared.keyless_reached(table, end.clone());
        }
        Ok(())
    }

    async fn write_empty(&mut self, table: TableId, end: &Position) -> Result<()> {
        self.open_sessions(2).await?;
        let shared = &self.applier.shared;
        let intent = self.intent();
        let moved = shared.tables.get(table);
        let [holder, writer, ..] = self.sessions.as_mut_slice() else { return Ok(()) };
        flush::save(holder, shared, self.applier.epoch, &self.end, &intent).await?;
        crash::point("truncate.intent_saved");
        holder.run("BEGIN", "emptying a table").await?;
        bookkeeping::hold_lease(holder, &shared.store, self.applier.epoch).await?;
        let what = format!("emptying `{}`", moved.name());
        writer.write(format!("TRUNCATE TABLE {}", sql::table(moved.name())).as_bytes(), &what).await?;
        crash::point("truncate.emptied");
        if moved.key.is_none() {
            holder.write(bookkeeping::save_keyless(&shared.store, moved.name(), end).as_bytes(), &what).await?;
        }
        holder.run("COMMIT", &what).await?;
        crash::point("truncate.committed");
        self.end_saved();
        Ok(())
    }
}
