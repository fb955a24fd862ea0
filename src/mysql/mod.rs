//! The MySQL family: how a database is copied, followed, verified and fenced.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`connect`] | sessions with known settings |
//! | [`checksum`] | row checksums, and the differences behind them |
//! | [`names`], [`position`], [`table`], [`cell`] | the words: tables, binary log positions, columns, values |
//! | [`range`], [`read`] | key ranges, and the rows in them |
//! | [`sql`] | the one place where identifiers and values become SQL |
//! | [`bookkeeping`] | what is kept on the target: lease, positions, finished chunks |
//! | [`delete_memory`], [`range_gate`] | why a chunk never brings a deleted row back |
//! | [`rows`] | row events of the binary log, decoded into cells |
//! | [`error`] | what can go wrong, and whether trying again can help |

pub mod bookkeeping;
pub mod cell;
pub mod checksum;
pub mod connect;
pub mod delete_memory;
pub mod error;
pub mod names;
pub mod position;
pub mod range;
pub mod range_gate;
pub mod read;
pub mod rows;
pub mod sql;
pub mod table;
