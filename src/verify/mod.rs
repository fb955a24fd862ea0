//! What every store shares when it verifies.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`hash`] | the hash of one row |
//! | [`tally`] | the digest of a set of rows, in any order |
//! | [`merkle`] | chunk digests → table root → store root → run root |
//! | [`difference`] | one difference, shown so that a person and a terminal survive it |
//! | [`structure`] | what differs around the rows |
//! | [`report`] | what was compared, what was not and why, and the verdict |
//!
//! Nothing here knows a database: stores hash and read their rows, and bring the results here.

pub mod difference;
pub mod hash;
pub mod merkle;
pub mod report;
pub mod structure;
pub mod tally;

pub use difference::{ChangedColumn, Content, Difference, DifferenceKind};
pub use hash::RowHash;
pub use merkle::Digest;
pub use structure::StructureDifference;
pub use tally::Tally;
