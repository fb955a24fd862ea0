//! What was read of a log so far, and what of it was left out, by why: counted by who reads, told by who reports.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

/// Reasons kept at most: each may name a table.
const REASONS: usize = 100;

/// What was read so far; shared with whoever reports it.
#[derive(Debug, Default)]
pub struct Read {
    /// Bytes of the log.
    pub bytes: AtomicU64,
    /// What was left out, by why.
    left_out: Mutex<BTreeMap<String, u64>>,
}

impl Read {
    /// Something was left out.
    pub fn leave_out(&self, why: String) {
        self.left_out_so_often(why, 1);
    }

    /// Something was left out, so often.
    pub fn left_out_so_often(&self, why: String, count: u64) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        let why = if left_out.len() < REASONS || left_out.contains_key(&why) { why } else { "other reasons".to_owned() };
        *left_out.entry(why).or_default() += count;
    }

    /// What was left out so far, by why.
    #[must_use]
    pub fn left_out(&self) -> BTreeMap<String, u64> {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
