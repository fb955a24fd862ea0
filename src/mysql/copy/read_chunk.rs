//! Reads a chunk from the source and encodes it, cutting it where it grows too large.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::plan::Pace;
use super::{Chunk, LoadedChunk};
use crate::engine::steering::Steering;
use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::range::KeyRange;
use crate::mysql::read::{self, Order, Scope};
use crate::mysql::status;
use crate::mysql::tables::Tables;
use crate::mysql::tail::MemoryLimit;

/// Room for the row that makes a part full, where rows are not large.
const ROW: usize = 64 << 10;

/// Two sessions on the source: one streams rows, the other reads the position meanwhile.
pub struct Reader {
    /// Streams rows.
    pub rows: Session,
    /// Reads the position after the rows.
    pub position: Session,
    /// The tables that move.
    pub tables: Arc<Tables>,
    /// Bytes of a chunk, about.
    pub chunk_bytes: usize,
    /// Limits the bytes under way.
    pub under_way: MemoryLimit,
    /// Told what was read.
    pub steering: Steering,
}

impl Reader {
    /// Reads a chunk and hands it to the writers, in parts where it is too large to hold. A part is
    /// handed on only when the one before it is in, so that what is saved of a chunk is always its start.
    ///
    /// # Errors
    /// As the source gives them.
    pub async fn read(&mut self, chunk: &Chunk, pace: &Pace, out: &mpsc::Sender<LoadedChunk>) -> Result<()> {
        let table = &self.tables.get(chunk.table).table;
        let columns = read::stored_columns(table);
        let read_started = Instant::now();
        let mut stream = read::stream_fields(&mut self.rows, table, &columns, &Scope::Range(&chunk.range), Order::ByKey).await?;
        let mut after = chunk.range.after.clone();
        let mut finished = false;
        while !finished {
            let started = Instant::now();
            // Not grown step by step: each step would hold two copies for a moment.
            let mut lines = Vec::with_capacity(self.chunk_bytes + ROW);
            let mut rows = Vec::new();
            while lines.len() < self.chunk_bytes {
                let Some(key) = stream.next(&mut lines).await? else {
                    finished = true;
                    break;
                };
                rows.push((lines.len(), key));
            }
            pace.saw(rows.len(), lines.len(), started.elapsed());
            self.steering.spent(rows.len() as u64, lines.len() as u64);
            let read_at = status::current_position(&mut self.position).await?;
            let last = rows.last().map(|(_, key)| key.clone());
            let through = if finished { chunk.range.through.clone() } else { last };
            let range = KeyRange { after: after.take(), through: through.clone() };
            let held = self.under_way.hold(lines.len()).await;
            let (written, told) = oneshot::channel();
            let part = LoadedChunk {
                chunk: chunk.clone(),
                range,
                more: !finished,
                lines: lines.into(),
                rows,
                read_started,
                read_at,
                written: Some(written),
                held,
            };
            out.send(part).await.map_err(|_| MysqlError::Cancelled)?;
            // Not told: the part was given up, and what is left of the chunk will be read again.
            if !finished && told.await.is_err() {
                return Ok(());
            }
            after = through;
        }
        Ok(())
    }
}
