//! One driver per run.

use serde::{Deserialize, Serialize};

/// Who drives a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The machine's name.
    pub host: String,
    /// The machine's boot: another one means that every process of before is gone.
    pub boot: String,
    /// The process-id namespace: a pid means nothing in another one.
    pub namespace: String,
    /// The process.
    pub pid: u32,
    /// When the process started, in the kernel's ticks since boot: tells a reused pid from the old one.
    pub started: u64,
}

/// Why a lease could not be had, or is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Another driver has it.
    #[error("run `{run}` is driven by process {} on `{}` (epoch {epoch}); nothing was touched. Wait for it, stop it, or look with `dbmove status`", .owner.pid, .owner.host)]
    Held {
        /// The run.
        run: String,
        /// Who.
        owner: Box<Owner>,
        /// With which epoch.
        epoch: u64,
    },
    /// Another driver took it over.
    #[error("run `{run}` was taken over by another driver (epoch {epoch}); this one has stopped acting")]
    Lost {
        /// The run.
        run: String,
        /// The epoch that was ours.
        epoch: u64,
    },
}
