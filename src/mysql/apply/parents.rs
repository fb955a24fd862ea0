//! Which cascading parents went or changed their key lately: a chunk of their children has to know.
//!
//! A chunk of child rows may have been read before the source carried a cascade out, and be written
//! after the applier did. The cascade is in no event, so the delete memory of the child knows only
//! the rows that were on the target then. So every cascading change is kept for a while, and a chunk
//! that goes in applies the ones that are newer than its read (with the commit gap as a margin) to
//! the rows *it* brought: rows that were on the target before came from events and are right.
//!
//! For a delete, and for SET NULL, that is exact even if the change was in the chunk's read already:
//! a row that refers to the parent's old value and has no event since cannot exist on the source.
//! ON UPDATE CASCADE is exact unless the old value of one change is the new value of another; then
//! the chunk has to be read again ([`Lately::Unclear`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::mysql::delete_memory::{COMMIT_GAP, RETENTION};
use crate::mysql::tables::{Child, TableId, Tables};

use super::cascade::{self, ParentChange};

/// Cascading changes, the oldest first.
pub struct ParentMemory {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    changes: VecDeque<(Instant, TableId, Arc<ParentChange>)>,
    forgotten: Option<Instant>,
}

/// What a chunk of a child table has to apply to its rows.
pub enum Lately {
    /// These changes, in order; each with the relation it came by.
    Changes(Vec<(Child, Arc<ParentChange>)>),
    /// It can't be told: read the chunk again.
    Unclear,
}

impl ParentMemory {
    /// Keeps at most `capacity` changes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        ParentMemory { capacity: capacity.max(1), state: Mutex::new(State::default()) }
    }

    /// Remembers a cascading change of a parent.
    pub fn remember(&self, parent: TableId, change: ParentChange) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.changes.push_back((now, parent, Arc::new(change)));
        while let Some((at, _, _)) = state.changes.front() {
            let at = *at;
            if now.duration_since(at) <= RETENTION && state.changes.len() <= self.capacity {
                break;
            }
            // Whatever the reason: a chunk that was read before can't be judged any more.
            state.changes.pop_front();
            state.forgotten = Some(at);
        }
    }

    /// The changes that a chunk of `table` whose SELECT started at `read_started` has to apply.
    #[must_use]
    pub fn lately(&self, tables: &Tables, table: TableId, read_started: Instant) -> Lately {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.forgotten.is_some_and(|forgotten| forgotten + COMMIT_GAP >= read_started) {
            return Lately::Unclear;
        }
        let mut lately = Vec::new();
        for (at, parent, change) in &state.changes {
            if *at + COMMIT_GAP < read_started {
                continue;
            }
            for child in tables.get(*parent).children.iter().filter(|child| child.table == table) {
                if cascade::effect(child, change).is_some() {
                    lately.push((child.clone(), change.clone()));
                }
            }
        }
        if ambiguous(&lately) { Lately::Unclear } else { Lately::Changes(lately) }
    }
}

/// Whether a value that one change gave is the value another one took away.
fn ambiguous(changes: &[(Child, Arc<ParentChange>)]) -> bool {
    changes.iter().any(|(child, change)| {
        let ParentChange::Rekeyed(_, after) = change.as_ref() else { return false };
        changes.iter().filter(|(other, _)| other.columns == child.columns).any(|(other, later)| {
            let before = match later.as_ref() {
                ParentChange::Deleted(before) | ParentChange::Rekeyed(before, _) => before,
            };
            child.parent_columns.iter().zip(&other.parent_columns).all(|(&new, &old)| after[new] == before[old])
        })
    })
}
