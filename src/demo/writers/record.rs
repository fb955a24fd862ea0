//! What the writers did, counted by all of them together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::super::activity::Action;

/// What went wrong for a writer, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Setback {
    /// How often.
    pub times: u64,
    /// What was said the last time.
    pub last: String,
}

/// What the writers did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WriterCounts {
    /// Transfers whose COMMIT was sent.
    pub transfers_begun: u64,
    /// Of those: answered OK.
    pub transfers_acknowledged: u64,
    /// Of those: answered with a rollback.
    pub transfers_refused: u64,
    /// Transfers given up before COMMIT because there was not enough money.
    pub transfers_declined: u64,
    /// Changes that changed at least a row, by name ([`Action::name`]).
    pub changes: BTreeMap<&'static str, u64>,
    /// Connections opened.
    pub connections: u64,
    /// What went wrong, by cause: a server error's number, `connection`, `timeout`, `route` or `account-missing`.
    pub setbacks: BTreeMap<String, Setback>,
    /// The longest time a writer went without success, in milliseconds.
    pub longest_stall_ms: u64,
}

impl WriterCounts {
    /// Begun transfers whose outcome is not known (those under way included, while writers run).
    #[must_use]
    pub fn transfers_in_doubt(&self) -> u64 {
        self.transfers_begun.saturating_sub(self.transfers_acknowledged + self.transfers_refused)
    }
}

/// Counters of all writers together.
#[derive(Debug, Default)]
pub(in crate::demo) struct Record {
    pub(in crate::demo) begun: AtomicU64,
    pub(in crate::demo) acknowledged: AtomicU64,
    pub(in crate::demo) refused: AtomicU64,
    pub(in crate::demo) declined: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) longest_stall_ms: AtomicU64,
    changes: Mutex<BTreeMap<&'static str, u64>>,
    setbacks: Mutex<BTreeMap<String, Setback>>,
}

impl Record {
    pub(super) fn counts(&self) -> WriterCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        // Outcomes are read before beginnings, so that there are never more of them.
        let (acknowledged, refused) = (read(&self.acknowledged), read(&self.refused));
        WriterCounts {
            transfers_begun: read(&self.begun),
            transfers_acknowledged: acknowledged,
            transfers_refused: refused,
            transfers_declined: read(&self.declined),
            changes: self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            connections: read(&self.connections),
            setbacks: self.setbacks.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            longest_stall_ms: read(&self.longest_stall_ms),
        }
    }

    pub(super) fn changed(&self, action: Action) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner).entry(action.name()).or_default() += 1;
    }

    pub(in crate::demo) fn setback(&self, cause: impl Into<String>, message: impl ToString) {
        let mut setbacks = self.setbacks.lock().unwrap_or_else(PoisonError::into_inner);
        let setback = setbacks.entry(cause.into()).or_default();
        setback.times += 1;
        setback.last = message.to_string();
    }
}
