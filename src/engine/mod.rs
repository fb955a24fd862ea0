//! Runs a playbook: steps, scheduler, journal, lease, budget, certificate. Knows no store.

pub mod context;
pub mod step;
