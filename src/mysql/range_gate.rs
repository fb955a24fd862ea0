//! Keeps a chunk that is going in and the events on its key range apart.
//!
//! # What must hold
//!
//! A chunk's rows are judged against the delete memory and then inserted. An event on a key of the
//! chunk's range that slipped in between could delete nothing (the row is not there yet) and the
//! chunk would then bring the row back. So from the judging until the chunk's commit, events on
//! that range wait, and only those; and a chunk does not start going in while a batch of events on
//! its range is being written.
//!
//! # How
//!
//! Chunks and batches register what they touch. A chunk names one table and a range; a batch names
//! its tables, and its keys where the key is one integer column (so that ranges can be compared
//! here). Keys of other kinds are ordered by the server's collation, which dbmove does not imitate:
//! there the whole table counts as touched. A waiting batch holds back chunks that come later, so
//! that a stream of chunks can't starve it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The part of a table that a chunk covers, as far as it can be compared here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Integer keys above `after` (or all) up to and including `through` (or all).
    Integers {
        /// Exclusive lower bound.
        after: Option<i128>,
        /// Inclusive upper bound.
        through: Option<i128>,
    },
    /// The whole table.
    Whole,
}

/// The keys of a table that a batch touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These integer keys, sorted.
    Integers(Vec<i128>),
    /// Any key.
    Any,
}

impl Span {
    fn overlaps(&self, touched: &Touched) -> bool {
        match (self, touched) {
            (Span::Integers { after, through }, Touched::Integers(keys)) => {
                let first = after.map_or(0, |after| keys.partition_point(|&key| key <= after));
                keys.get(first).is_some_and(|&key| through.is_none_or(|through| key <= through))
            }
            _ => true,
        }
    }
}

/// The gate. Cheap to clone.
#[derive(Clone, Default)]
pub struct RangeGate {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    chunks: HashMap<u64, (usize, Span)>,
    /// What the batch that is being written, or waits to be, touches. There is one at a time.
    batch: Option<Arc<HashMap<usize, Touched>>>,
}

/// A chunk that is going in; leaves the gate when dropped.
pub struct ChunkPass {
    inner: Arc<Inner>,
    id: u64,
}

/// A batch that is being written; leaves the gate when dropped.
pub struct BatchPass {
    inner: Arc<Inner>,
}

impl RangeGate {
    /// Lets a chunk in once no batch touches its range.
    pub async fn enter_chunk(&self, table: usize, span: Span) -> ChunkPass {
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.inner.lock();
                let blocked = state.batch.as_ref().and_then(|batch| batch.get(&table)).is_some_and(|touched| span.overlaps(touched));
                if !blocked {
                    let id = state.next;
                    state.next += 1;
                    state.chunks.insert(id, (table, span));
                    return ChunkPass { inner: self.inner.clone(), id };
                }
            }
            changed.await;
        }
    }

    /// Lets the batch in once no chunk on its keys is going in. Later chunks on its keys wait from now on.
    pub async fn enter_batch(&self, touched: HashMap<usize, Touched>) -> BatchPass {
        let touched = Arc::new(touched);
        self.inner.lock().batch = Some(touched.clone());
        // Made before waiting, so that a batch that is given up while it waits lets chunks go on.
        let pass = BatchPass { inner: self.inner.clone() };
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let blocked = self.inner.lock().chunks.values().any(|(table, span)| touched.get(table).is_some_and(|keys| span.overlaps(keys)));
            if !blocked {
                return pass;
            }
            changed.await;
        }
    }

    /// How many chunks are going in right now.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.inner.lock().chunks.len()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is a single insert or remove: nothing can be half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ChunkPass {
    fn drop(&mut self) {
        self.inner.lock().chunks.remove(&self.id);
        self.inner.changed.notify_waiters();
    }
}

impl Drop for BatchPass {
    fn drop(&mut self) {
        self.inner.lock().batch = None;
        self.inner.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn waits<F: Future>(future: F) -> bool {
        tokio::time::timeout(Duration::from_millis(30), future).await.is_err()
    }

    fn keys(keys: &[i128]) -> HashMap<usize, Touched> {
        HashMap::from([(1, Touched::Integers(keys.to_vec()))])
    }

    fn span(after: i128, through: i128) -> Span {
        Span::Integers { after: Some(after), through: Some(through) }
    }

    #[tokio::test]
    async fn only_events_on_the_range_wait() {
        let gate = RangeGate::default();
        let chunk = gate.enter_chunk(1, span(10, 20)).await;
        assert!(!waits(gate.enter_batch(keys(&[10, 21]))).await);
        assert!(waits(gate.enter_batch(keys(&[20]))).await);
        assert!(!waits(gate.enter_batch(HashMap::from([(2, Touched::Any)]))).await);
        drop(chunk);
        assert!(!waits(gate.enter_batch(keys(&[20]))).await);
    }

    #[tokio::test]
    async fn a_chunk_waits_for_the_batch_on_its_range() {
        let gate = RangeGate::default();
        let batch = gate.enter_batch(keys(&[15])).await;
        assert!(waits(gate.enter_chunk(1, span(10, 20))).await);
        assert!(!waits(gate.enter_chunk(1, span(20, 30))).await);
        assert!(waits(gate.enter_chunk(1, Span::Whole)).await);
        drop(batch);
        assert!(!waits(gate.enter_chunk(1, span(10, 20))).await);
    }

    #[tokio::test]
    async fn a_batch_given_up_while_waiting_lets_chunks_go_on() {
        let gate = RangeGate::default();
        let chunk = gate.enter_chunk(1, span(10, 20)).await;
        assert!(waits(gate.enter_batch(keys(&[15]))).await);
        drop(chunk);
        assert!(!waits(gate.enter_chunk(1, span(10, 20))).await);
    }

    #[tokio::test]
    async fn keys_that_can_not_be_compared_touch_the_whole_table() {
        let gate = RangeGate::default();
        let _chunk = gate.enter_chunk(1, Span::Whole).await;
        assert!(waits(gate.enter_batch(keys(&[1_000_000]))).await);
    }
}
