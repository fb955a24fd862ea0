//! The MySQL family: how a database is copied, followed, verified and fenced.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`connect`] | sessions with known settings |
//! | [`names`], [`position`], [`table`], [`cell`] | the words: tables, binary log positions, columns, values |
//! | [`sql`] | the one place where identifiers and values become SQL |
//! | [`catalog`] | what a server holds, read in one pass; its settings and our privileges |
//! | [`rows`] | row events of the binary log, decoded into cells |
//! | [`error`] | what can go wrong, and whether trying again can help |

pub mod catalog;
pub mod cell;
pub mod connect;
pub mod error;
pub mod names;
pub mod position;
pub mod rows;
pub mod sql;
pub mod table;
