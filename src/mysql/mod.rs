//! The MySQL family: how a database is copied, followed, verified and fenced.

pub mod cell;
pub mod names;
pub mod position;
pub mod sql;
pub mod table;
