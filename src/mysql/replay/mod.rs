//! Replay: production's own writes, from its log or from files that were captured of it, written to a rehearsal's copies as clients would write them. Why it is done so is told in
//! `docs/decisions/0017-replaying-productions-load.md`.
//!
//! # What must hold
//!
//! * Production is read, by [`production`](super::production), and never written to; with captured files its log is not read at all: whoever writes holds [`Copies`](super::copies::Copies), which only
//!   the proof makes.
//! * The window of the log is fixed when the load begins, and is replayed in its order and timing: a transaction is one transaction, none is committed
//!   before one that it follows on the same row ([`order`]), and each is due when it was logged, divided by the multiple ([`pace`]).
//! * Every change is made to come true by its key ([`write`]), whatever the copy holds. What could not be made is counted by its reason and
//!   never left unsaid; so is what of the log was left out ([`log`]).
//! * A lost, cut or held connection is made anew where clients are by then, and its transaction tried again. Twice is harmless: by key.
//! * Memory is bounded: transactions on their way hold permits for their weight; a larger one than [`log::LARGEST`] is left out and counted.
//!
//! # What the copy becomes
//!
//! The copy drifts from production: it is older or newer than the window, and from the second pass on the window meets its own traces. That is
//! harmless, since a rehearsal compares its source with its target. Two effects on the load itself are counted: a change that finds the row as it was to
//! become is logged by no server, so it does not count as reached; and triggers on the copy fire although the log holds what they did.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`window`] | which stretch of production's log |
//! | [`captured`] | log files as one log: whole, in order, without a gap |
//! | [`file`] | one log file, event by event |
//! | [`origin`] | either of them: where events come from |
//! | [`log`] | reads them: transactions, and what is left out |
//! | [`read`] | how much was read, and what was left out |
//! | [`pace`] | when each is due |
//! | [`order`] | which have to wait for which |
//! | [`write`] | writes one |
//! | [`clients`] | the connections, retried and cut like clients' |
//! | [`figures`] | what was done, and how fast |
//! | [`load`] | all of it together |

pub mod captured;
pub mod clients;
pub mod figures;
pub mod file;
pub mod load;
pub mod log;
pub mod order;
pub mod origin;
pub mod pace;
pub mod read;
pub mod window;
pub mod write;
