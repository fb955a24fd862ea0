//! Applying.

pub mod batch;
pub mod cascade;
pub mod write;
