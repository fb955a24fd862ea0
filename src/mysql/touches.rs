//! Which keys events touched: what verification must look at again (the *dirty* keys).
//!
//! The applier marks a key before it writes it. From the moment verification starts until the
//! switch, a marked key stays marked until it was compared *after* its last mark. So at the fence
//! only the marked keys are left to compare, whatever the size of the database.
//!
//! Marks are numbered. A comparison remembers the number it saw before it read; if the number is the
//! same afterwards, no event came between and the result counts.
//!
//! # Bounded
//!
//! At most `capacity` keys are held over all tables. When there are more, the table that has the most
//! is *saturated*: its keys are dropped and the whole table has to be compared again. Keyless tables
//! have no keys: only the number of their last event is kept.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cell::Key;
use super::tables::TableId;

/// The number of a mark; grows.
pub type Mark = u64;

/// Touched keys, per table.
pub struct Touches {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: Mark,
    tracking: bool,
    /// Keys of all tables.
    held: usize,
    tables: HashMap<TableId, Touched>,
}

#[derive(Default)]
struct Touched {
    keys: HashMap<Key, Mark>,
    /// Number of the last event on the table, keyed or not.
    last: Mark,
    saturated: bool,
}

/// A key that has to be compared again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchedKey {
    /// Its table.
    pub table: TableId,
    /// The key.
    pub key: Key,
    /// Its last mark.
    pub mark: Mark,
}

impl Touches {
    /// Holds at most `capacity` keys.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Touches { capacity: capacity.max(1), state: Mutex::new(State { next: 1, ..State::default() }) }
    }

    /// Starts (or goes on) holding keys. Before that only the last event of each table is noted.
    pub fn track(&self) {
        self.lock().tracking = true;
    }

    /// Marks keys of a table; keyless tables are marked with no keys.
    pub fn mark(&self, table: TableId, keys: impl IntoIterator<Item = Key>) {
        let mut state = self.lock();
        let mark = state.next;
        state.next += 1;
        let tracking = state.tracking;
        let touched = state.tables.entry(table).or_default();
        touched.last = mark;
        if !tracking || touched.saturated {
            return;
        }
        let before = touched.keys.len();
        touched.keys.extend(keys.into_iter().map(|key| (key, mark)));
        let added = touched.keys.len() - before;
        state.held += added;
        if state.held > self.capacity
            && let Some(largest) = state.tables.values_mut().max_by_key(|touched| touched.keys.len())
        {
            let dropped = std::mem::take(&mut largest.keys).len();
            largest.saturated = true;
            state.held -= dropped;
        }
    }

    /// The number that the next mark will get.
    #[must_use]
    pub fn now(&self) -> Mark {
        self.lock().next
    }

    /// Number of the last event on the table; 0 if there was none.
    #[must_use]
    pub fn last(&self, table: TableId) -> Mark {
        self.lock().tables.get(&table).map_or(0, |touched| touched.last)
    }

    /// The key's last mark, if it is marked.
    #[must_use]
    pub fn of(&self, table: TableId, key: &Key) -> Option<Mark> {
        self.lock().tables.get(&table).and_then(|touched| touched.keys.get(key).copied())
    }

    /// Whether the table had more touched keys than are held.
    #[must_use]
    pub fn saturated(&self, table: TableId) -> bool {
        self.lock().tables.get(&table).is_some_and(|touched| touched.saturated)
    }

    /// Counts the whole table as touched: any of its keys may have changed.
    pub fn saturate(&self, table: TableId) {
        let mut state = self.lock();
        let mark = state.next;
        state.next += 1;
        let touched = state.tables.entry(table).or_default();
        touched.last = mark;
        let dropped = std::mem::take(&mut touched.keys).len();
        touched.saturated = true;
        state.held -= dropped;
    }

    /// Starts the table over: nothing of it counts as touched. Call it before comparing the whole table.
    pub fn start_over(&self, table: TableId) {
        let mut state = self.lock();
        if let Some(touched) = state.tables.get_mut(&table) {
            let dropped = std::mem::take(&mut touched.keys).len();
            touched.saturated = false;
            state.held -= dropped;
        }
    }

    /// At most `limit` marked keys, the longest marked first.
    #[must_use]
    pub fn marked(&self, limit: usize) -> Vec<TouchedKey> {
        let state = self.lock();
        let mut marked: Vec<TouchedKey> = state
            .tables
            .iter()
            .flat_map(|(&table, touched)| touched.keys.iter().map(move |(key, &mark)| (table, key, mark)))
            .map(|(table, key, mark)| TouchedKey { table, key: key.clone(), mark })
            .collect();
        drop(state);
        marked.sort_by_key(|touched| touched.mark);
        marked.truncate(limit);
        marked
    }

    /// How many keys are marked.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().held
    }

    /// Tables that are saturated.
    #[must_use]
    pub fn saturated_tables(&self) -> Vec<TableId> {
        self.lock().tables.iter().filter(|(_, touched)| touched.saturated).map(|(&table, _)| table).collect()
    }

    /// Unmarks a key that was compared, unless it was marked again since `mark`.
    pub fn settle(&self, touched: &TouchedKey) -> bool {
        let mut state = self.lock();
        let Some(table) = state.tables.get_mut(&touched.table) else { return true };
        match table.keys.get(&touched.key) {
            Some(&mark) if mark > touched.mark => false,
            _ => {
                let removed = usize::from(table.keys.remove(&touched.key).is_some());
                state.held -= removed;
                true
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a whole insert or remove; a panic elsewhere can't leave a mark half made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn a_key_marked_again_is_not_settled_by_an_older_comparison() {
        let touches = Touches::new(10);
        touches.track();
        touches.mark(1, [key(1)]);
        let seen = touches.marked(10);
        touches.mark(1, [key(1)]);
        assert!(!touches.settle(&seen[0]));
        assert!(touches.settle(&touches.marked(10)[0]));
        assert_eq!(touches.count(), 0);
    }

    #[test]
    fn too_many_keys_saturate_the_table_until_it_starts_over() {
        let touches = Touches::new(2);
        touches.track();
        touches.mark(1, [key(1), key(2), key(3)]);
        assert!(touches.saturated(1));
        assert_eq!(touches.saturated_tables(), vec![1]);
        touches.start_over(1);
        touches.mark(1, [key(4)]);
        assert_eq!(touches.count(), 1);
    }

    #[test]
    fn nothing_is_held_before_tracking_but_the_last_event_is_known() {
        let touches = Touches::new(2);
        touches.mark(1, [key(1)]);
        assert_eq!(touches.count(), 0);
        assert!(touches.last(1) > 0);
    }
}
