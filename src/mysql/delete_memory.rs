//! Which keys were deleted lately: a chunk must not bring them back.
//!
//! A transaction reaches us from the binary log *before* it is visible to a SELECT on the source
//! (by microseconds, or by the semi-sync timeout where that is on), and a chunk is read some time
//! before it is written. So a chunk may hold a row whose delete has been applied already. Every
//! deleted key (and the old key of an update that changes it) is remembered; a chunk leaves out
//! rows whose key is remembered. If the key lives again, an event put it on the target.
//!
//! Keys are compared by their bytes as stored, and that is exact: a row that a SELECT returned with
//! certain key bytes and that is gone or re-keyed since had those very bytes in the before image.
//!
//! # Bounded
//!
//! Entries are kept for [`RETENTION`], at most `capacity` of them over all tables. Whether an entry goes because
//! it is old or because there is no more room, the time of the newest one that went is kept for its table: a chunk
//! that was read before that time (and a margin for the commit gap) can't be judged and is read again. Age alone
//! proves nothing: a chunk may wait longer than the retention while a large transaction is applied in parts. See
//! [`DeleteMemory::covers`].
//!
//! A table that was emptied as a whole (`TRUNCATE`) is remembered by the time of that.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::cell::Key;

/// How long a deleted key is remembered.
pub const RETENTION: Duration = Duration::from_secs(600);

/// How much later than its event a commit may become visible to a SELECT (semi-sync's default timeout is 10 s).
pub const COMMIT_GAP: Duration = Duration::from_secs(30);

/// Deleted keys.
pub struct DeleteMemory {
    capacity: usize,
    retention: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tables: HashMap<usize, Deleted>,
    /// All entries, the oldest first. The key's bytes are shared with the table's map.
    order: VecDeque<(Instant, usize, Arc<Key>)>,
}

#[derive(Default)]
struct Deleted {
    since: HashMap<Arc<Key>, Instant>,
    /// Newest deletion that was forgotten.
    forgotten: Option<Instant>,
    /// A chunk whose SELECT started before may hold rows from before the table was emptied.
    emptied: Option<Instant>,
}

impl DeleteMemory {
    /// A memory of at most `capacity` keys.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        DeleteMemory { capacity: capacity.max(1), retention: RETENTION, state: Mutex::default() }
    }

    /// Remembers deleted keys of a table.
    pub fn remember(&self, table: usize, keys: impl IntoIterator<Item = Key>) {
        let now = Instant::now();
        let mut state = self.lock();
        let State { tables, order } = &mut *state;
        let deleted = tables.entry(table).or_default();
        for key in keys {
            let key = Arc::new(key);
            order.push_back((now, table, Arc::clone(&key)));
            deleted.since.insert(key, now);
        }
        while let Some((at, _, _)) = order.front() {
            let at = *at;
            if now.duration_since(at) <= self.retention && order.len() <= self.capacity {
                break;
            }
            let Some((_, table, key)) = order.pop_front() else { break };
            let Some(deleted) = tables.get_mut(&table) else { continue };
            // The key may have been deleted again later: then the later entry keeps it.
            if deleted.since.get(&key) == Some(&at) {
                deleted.since.remove(&key);
                deleted.forgotten = Some(at);
            }
        }
    }

    /// The whole table was emptied, which a SELECT that begins `late` from now or later sees for certain. No key is
    /// remembered: every chunk that was read before is read again.
    pub fn emptied(&self, table: usize, late: Duration) {
        self.lock().tables.entry(table).or_default().emptied = Some(Instant::now() + late);
    }

    /// Whether the memory can judge a chunk whose SELECT started at `read_started`. If not, the
    /// chunk has to be read again.
    #[must_use]
    pub fn covers(&self, table: usize, read_started: Instant) -> bool {
        self.lock().tables.get(&table).is_none_or(|deleted| {
            deleted.forgotten.is_none_or(|forgotten| forgotten + COMMIT_GAP < read_started)
                && deleted.emptied.is_none_or(|emptied| emptied < read_started)
        })
    }

    /// Whether the key was deleted lately.
    #[must_use]
    pub fn contains(&self, table: usize, key: &Key) -> bool {
        self.lock().tables.get(&table).is_some_and(|deleted| deleted.since.contains_key(key))
    }

    /// Whether nothing of the table was deleted lately: then no row needs looking at.
    #[must_use]
    pub fn is_empty(&self, table: usize) -> bool {
        self.lock().tables.get(&table).is_none_or(|deleted| deleted.since.is_empty())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere can't leave the maps half changed in a way that loses a key.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::cell::Cell;

    fn key(number: u32) -> Key {
        Key::of(&[Cell::Bytes(number.to_string().into_bytes())], &[0])
    }

    #[test]
    fn remembers_and_tells_tables_apart() {
        let memory = DeleteMemory::new(10);
        memory.remember(1, [key(5)]);
        assert!(memory.contains(1, &key(5)));
        assert!(!memory.contains(2, &key(5)));
        assert!(memory.is_empty(2));
    }

    #[test]
    fn what_is_forgotten_early_makes_older_chunks_unjudgeable() {
        let memory = DeleteMemory::new(2);
        let before = Instant::now();
        assert!(memory.covers(1, before));
        memory.remember(1, [key(1), key(2), key(3)]);
        assert!(!memory.contains(1, &key(1)));
        assert!(memory.contains(1, &key(3)));
        assert!(!memory.covers(1, before));
        assert!(!memory.covers(1, Instant::now()));
        assert!(memory.covers(1, Instant::now() + COMMIT_GAP + Duration::from_secs(1)));
    }

    #[test]
    fn what_is_forgotten_for_its_age_makes_older_chunks_unjudgeable_too() {
        let memory = DeleteMemory { retention: Duration::from_millis(1), ..DeleteMemory::new(10) };
        let before = Instant::now();
        memory.remember(1, [key(1)]);
        assert!(memory.covers(1, before));
        std::thread::sleep(Duration::from_millis(5));
        memory.remember(1, [key(2)]);
        assert!(!memory.contains(1, &key(1)));
        assert!(!memory.covers(1, before));
    }

    #[test]
    fn chunks_that_were_read_before_the_table_was_emptied_are_read_again() {
        let memory = DeleteMemory::new(2);
        let before = Instant::now();
        memory.emptied(1, Duration::ZERO);
        assert!(!memory.covers(1, before));
        assert!(memory.covers(2, before));
        assert!(memory.covers(1, Instant::now() + Duration::from_millis(1)));
        memory.emptied(1, COMMIT_GAP);
        assert!(!memory.covers(1, Instant::now() + Duration::from_millis(1)));
    }

    #[test]
    fn a_key_deleted_twice_is_kept_by_the_later_delete() {
        let memory = DeleteMemory::new(2);
        memory.remember(1, [key(1)]);
        std::thread::sleep(Duration::from_millis(2));
        memory.remember(1, [key(1), key(2)]);
        assert!(memory.contains(1, &key(1)));
    }
}
