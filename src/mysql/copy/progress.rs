//! How far a copy is, and what it is busy with.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How far copying is.
#[derive(Debug, Default)]
pub struct CopyProgress {
    /// Rows that are in, those of earlier attempts included.
    pub rows: AtomicU64,
    /// Of these, rows that were in before this attempt began.
    pub rows_before: AtomicU64,
    /// Bytes put in by this process, as sent.
    pub bytes: AtomicU64,
    /// Tables whose rows are in.
    pub tables: AtomicU64,
    /// Rows that were set right because a cascade had passed while its tables were copied, by table.
    pub(super) mended: Mutex<BTreeMap<String, u64>>,
    /// What is being worked on.
    note: Mutex<String>,
    /// Tasks that put something into the target right now.
    working: AtomicU64,
    /// Parts that wait for following to come as far as they were read.
    waiting: AtomicU64,
}

/// One more of a number, until it is dropped.
pub(super) struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn one(of: &'a AtomicU64) -> Counted<'a> {
        of.fetch_add(1, Ordering::Relaxed);
        Counted(of)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CopyProgress {
    /// Whether nothing goes on before following has come further: rows were read that wait for it, and nothing else is done on the target.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 && self.working.load(Ordering::Relaxed) == 0
    }
    /// Something is put into the target until this is dropped.
    pub(super) fn works(&self) -> Counted<'_> {
        Counted::one(&self.working)
    }
    /// Something waits for following until this is dropped.
    pub(super) fn awaits_following(&self) -> Counted<'_> {
        Counted::one(&self.waiting)
    }
    /// What is being worked on.
    #[must_use]
    pub fn note(&self) -> String {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(super) fn say(&self, note: String) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }
    /// Rows that were set right because a cascade had passed while its tables were copied, by table.
    #[must_use]
    pub fn mended(&self) -> BTreeMap<String, u64> {
        self.mended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
