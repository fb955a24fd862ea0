//! The MySQL family: how a database is copied, followed, verified and fenced.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`connect`] | sessions with known settings |
//! | [`names`], [`position`], [`table`], [`cell`] | the words: tables, binary log positions, columns, values |
//! | [`range`], [`read`] | key ranges, and the rows in them |
//! | [`sql`] | the one place where identifiers and values become SQL |
//! | [`bookkeeping`] | what is kept on the target: lease, positions, finished chunks |
//! | [`tail`] | reads the binary log and says what each event means |
//! | [`apply`] | folds row changes into batches and writes them in parallel |
//! | [`shared`] | what the steps of one store share while they run |
//! | [`tables`], [`touches`] | the tables that move; which of their keys have to be compared again |
//! | [`delete_memory`], [`range_gate`] | why a chunk never brings a deleted row back |
//! | [`rows`] | row events of the binary log, decoded into cells |
//! | [`error`] | what can go wrong, and whether trying again can help |

pub mod apply;
pub mod bookkeeping;
//! | [`catalog`] | what a server holds, read in one pass; its settings and our privileges |
//! | [`rows`] | row events of the binary log, decoded into cells |
//! | [`error`] | what can go wrong, and whether trying again can help |

pub mod catalog;
pub mod cell;
pub mod connect;
pub mod delete_memory;
pub mod error;
pub mod names;
pub mod position;
pub mod range;
pub mod range_gate;
pub mod read;
pub mod rows;
pub mod shared;
pub mod sql;
pub mod table;
pub mod tables;
pub mod tail;
pub mod touches;
