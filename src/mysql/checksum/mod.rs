//! Row checksums of MySQL tables: the same digest of the same rows, on two servers that agree on little.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`comparison`] | which columns of two tables are compared, and in which form |
//! | [`method`] | where rows are hashed, what the servers can do, and the choice |
//! | [`server`] | hashing in SQL: moves no data |
//! | [`client`] | hashing here: exact for every type |
//! | [`listing`] | the tally of a scope, and key → hash of its rows, by either method |
//! | [`compare`] | differing keys of a range, and the differences behind them |
//! | [`keyless`] | tables without a key, compared as multisets |
//! | [`repair`] | the SQL that would make the target equal |
//!
//! Everything here looks at one moment: it does not know that rows move. The protocol that compares
//! while both sides are written (read, wait, read again, keep dirty keys apart) is built
//! on these pieces by the verify step.

pub mod client;
pub mod compare;
pub mod comparison;
pub mod keyless;
pub mod listing;
pub mod method;
pub mod repair;
pub mod server;

pub use comparison::{Comparison, Side};
pub use listing::{Listing, listing, tally};
pub use method::{Choice, Function, Method};
