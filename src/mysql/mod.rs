//! The MySQL family: how a database is copied, followed, verified and fenced.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`connect`], [`tls`] | sessions with known settings, and how they are protected |
//! | [`names`], [`position`], [`table`], [`cell`] | the words: tables, binary log positions, columns, values |
//! | [`sql`] | the one place where identifiers and values become SQL |
//! | [`range`], [`read`] | key ranges, and the rows in them |
//! | [`catalog`] | what a server holds, read in one pass; its settings and our privileges |
//! | [`ddl`] | the target's tables, made from the source's own definitions by named rules |
//! | [`definitions`] | tables that are created, dropped, renamed or altered while the run is going |
//! | [`counters`] | AUTO_INCREMENT counters, raised to the source's |
//! | [`objects`] | views, routines, triggers, events: the same on the target, or named |
//! | [`accounts`] | users and what they may do: moved as far as the target allows, or named |
//! | [`copies`], [`production`] | in a rehearsal: the proof that its servers are copies; the only ways to production, which are to look |
//! | [`fill`] | in a rehearsal: makes the copy of production that it works on, and removes it |
//! | [`replay`] | in a rehearsal: production's own log, written again in clients' place |
//! | [`conversion`] | text that the target calls by another character set, with the same bytes |
//! | [`well_formed`] | text whose bytes the target would not take, found before the copy |
//! | [`bookkeeping`] | what is kept on the target: lease, positions, finished chunks |
//! | [`tables`], [`shared`] | the tables that move; what copying, following and verifying know of each other |
//! | [`triggers_aside`] | the source's triggers, put aside while the way back is open |
//! | [`assess`] | what stands in the way of a migration, found before anything is touched |
//! | [`store`] | one store of a run: both servers, made ready once for all its steps |
//! | [`steps`] | the steps of a playbook, one file each |
//! | [`copy`] | copies every row that is there |
//! | [`tail`], [`rows`], [`status`] | reads the binary log, decodes row events, says where the log ends |
//! | [`logged`] | who wrote to what moves, by the words of `SHOW BINLOG EVENTS` |
//! | [`follow`], [`behind`] | tail and applier together, started again where they were; how far behind they are |
//! | [`apply`] | folds row changes into batches and writes them in parallel |
//! | [`delete_memory`], [`range_gate`] | why a chunk never brings a deleted row back |
//! | [`touches`] | which keys have to be compared again |
//! | [`checksum`] | row checksums, and the differences behind them |
//! | [`verification`] | comparing while both sides change, without a false alarm |
//! | [`foreign`] | who else writes to the target before the switch |
//! | [`process_list`] | looks at what sessions do, where one that runs bytes is in the way |
//! | [`sight`] | whether our account sees who is connected |
//! | [`uses`] | what the playbook does with a store, for whoever looks at privileges |
//! | [`fence`] | stops writes to the source, with proof |
//! | [`beside`] | two stores of one playbook don't move from one server |
//! | [`lock_out`] | keeps clients out where `read_only` can't be set |
//! | [`reverse`] | the way back: the same store with its sides swapped |
//! | [`error`] | what can go wrong, and whether trying again can help |

pub mod accounts;
pub mod apply;
pub mod assess;
pub mod behind;
pub mod beside;
pub mod bookkeeping;
pub mod catalog;
pub mod cell;
pub mod checksum;
pub mod connect;
pub mod conversion;
pub mod copies;
pub mod copy;
pub mod counters;
pub mod ddl;
pub mod definitions;
pub mod delete_memory;
pub mod error;
pub mod fence;
pub mod fill;
pub mod follow;
pub mod foreign;
pub mod guards;
pub mod lock_out;
pub mod logged;
pub mod names;
pub mod objects;
pub mod position;
pub mod process_list;
pub mod production;
pub mod range;
pub mod range_gate;
pub mod read;
pub mod replay;
pub mod reverse;
pub mod rows;
pub mod shared;
pub mod sight;
pub mod sql;
pub mod status;
pub mod steps;
pub mod store;
pub mod table;
pub mod tables;
pub mod tail;
pub mod tls;
pub mod touches;
pub mod triggers_aside;
pub mod upstream;
pub mod uses;
pub mod verification;
pub mod well_formed;
