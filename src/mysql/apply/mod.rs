//! Applying: row changes from the tail become rows on the target.
//!
//! # How
//!
//! The applier gathers the changes of whole transactions into a [`batch`], as many as wait, and
//! writes one batch after the other; inside a batch several connections write in parallel what does
//! not disturb each other. When little is written a batch is one transaction of the source and one
//! on the target; when the applier is behind, thousands of changes go in few multi-row statements.
//!
//! # What must hold
//!
//! * Order is kept per key: within a batch by folding, between batches by waiting.
//! * `applied` on the target never says more than is there; nothing beyond `intent` is there
//!   ([`crate::mysql::bookkeeping`]). So replaying from `applied` after a crash ends in the same rows.
//! * A key is marked as touched, and a deleted key remembered, before the change is written.
//! * While a chunk goes in, changes on its key range wait ([`crate::mysql::range_gate`]).
//! * Transient failures are retried with the connections opened anew; the batch is kept and applied
//!   again as a replay. Every other failure ends the applier with nothing half done.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`applier`] | the loop; `flush` in it writes what was gathered, and tries again |
//! | [`batch`] | folding changes, splitting them into lanes |
//! | [`write`] | one lane's transaction |
//! | [`cascade`], [`parents`] | what a parent row takes with it |

pub mod applier;
pub mod batch;
pub mod cascade;
pub mod parents;
pub mod write;
