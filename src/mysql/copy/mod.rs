//! Copying: every row that is there, while it is written to.
//!
//! # How
//!
//! ```text
//! planner ──chunks──► readers ──bytes──► writers ──► target
//! (key ranges)        (SELECT)           (LOAD DATA)      ▲
//!                        │ position after the read        │
//!                        └──────► wait until applied ─────┘
//! ```
//!
//! A table is cut into key ranges of about half a second each ([`plan`]); readers stream them as
//! `LOAD DATA` text ([`read_chunk`]), writers put them in ([`write_chunk`]). Chunks of
//! several tables in turn are under way at once, and several of one where no other is left. When a table is complete its secondary indexes are
//! built ([`indexes`]). Tables without a key go whole ([`keyless`]): those that a cascade reaches before
//! all others, the rest beside them.
//!
//! # What must hold
//!
//! * A chunk never overwrites: a key that is there was put there by an event and is newer.
//! * A chunk goes in after the applier passed the position read *after* the chunk was selected: then
//!   the target, as far as it is copied, equals the source at one position.
//! * Rows whose key was deleted lately, or whose parent was, stay out
//!   ([`crate::mysql::delete_memory`], [`crate::mysql::apply::parents`]).
//! * The first SELECT starts a settle time after the start position was read: what was committed
//!   before it must be visible.
//! * That a chunk is done is saved in the transaction of its rows. Whatever dies, a resume copies
//!   what is missing and nothing is lost or doubled.
//! * Memory: what is read and not in yet is at most [`CopySettings::bytes_under_way`]; beyond that each
//!   reader holds the part it is reading, at most about `chunk_bytes` and one row. A part that is larger
//!   than all of it (one row may be) goes alone.

pub mod copier;
pub mod indexes;
pub mod keyless;
pub mod load;
pub mod plan;
pub mod progress;
pub mod read_chunk;
pub mod write_chunk;

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cell::Key;
use super::position::Position;
use super::range::KeyRange;
use super::tables::TableId;

/// How copying works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySettings {
    /// Chunks read at once.
    pub readers: usize,
    /// Chunks written at once.
    pub writers: usize,
    /// Bytes of a chunk, about.
    pub chunk_bytes: usize,
    /// How long reading a chunk should take.
    pub chunk_time: Duration,
    /// How rows are put in.
    pub load: LoadPath,
    /// Leave the copied rows out of the target's binary log.
    pub skip_binlog: bool,
    /// How long after reading the start position the first SELECT starts.
    pub settle: Duration,
}

impl CopySettings {
    /// Bytes that may be read and not in yet: what waits, and what the writers are writing.
    #[must_use]
    pub fn bytes_under_way(&self) -> usize {
        self.chunk_bytes.saturating_mul(self.writers + 1)
    }
}

impl Default for CopySettings {
    fn default() -> Self {
        CopySettings {
            readers: 2,
            writers: 3,
            chunk_bytes: 4 << 20,
            chunk_time: Duration::from_millis(500),
            load: LoadPath::Auto,
            skip_binlog: false,
            settle: Duration::from_secs(1),
        }
    }
}

/// How rows are put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadPath {
    /// `LOAD DATA LOCAL` where the target allows it, else multi-row INSERT.
    #[default]
    Auto,
    /// `LOAD DATA LOCAL` from memory.
    LoadData,
    /// Multi-row INSERT.
    Insert,
}

/// A key range of a table, as planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The table.
    pub table: TableId,
    /// The chunk's number in its table.
    pub number: u64,
    /// Its range.
    pub range: KeyRange,
}

/// Rows of a chunk (or of the first part of one), read and encoded.
pub struct LoadedChunk {
    /// The chunk.
    pub chunk: Chunk,
    /// What of its range is in here.
    pub range: KeyRange,
    /// More of the chunk follows behind `range`.
    pub more: bool,
    /// `LOAD DATA` lines.
    pub lines: Bytes,
    /// Where each line ends in `lines`, and its key.
    pub rows: Vec<(usize, Key)>,
    /// When the SELECT was sent.
    pub read_started: Instant,
    /// The source's position after the rows were read.
    pub read_at: Position,
    /// Told when the part is in, so that the next part may follow.
    pub written: Option<oneshot::Sender<()>>,
    /// What holds its bytes against the limit of those under way.
    pub held: Option<OwnedSemaphorePermit>,
}
