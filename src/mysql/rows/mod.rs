//! Row events of the binary log, decoded byte for byte into [`Cell`]s.
//!
//! The log says little about what it holds: a table map gives wire types and lengths, nothing of
//! names, signs, ZEROFILL or charsets. So a row is decoded from two descriptions at once: the
//! [`TableMap`] says how the bytes are cut, the catalog's [`Table`] says what they mean. A
//! [`Decoder`] is built once per table map; building it compares the two and fails with
//! [`RowsError::SchemaChanged`] where they disagree, so that bytes are never read under a wrong
//! schema. The cells are those a SELECT of the same row gives (see [`super::cell`]).
//!
//! ```text
//! TABLE_MAP ──► TableMap ──┐
//!                          ├─► Decoder ──► changes(RowsEvent) ──► RowChange, RowChange, …
//! catalog ────► Table ─────┘
//! ```
//!
//! Events are hostile input. Every length is checked against the bytes at hand before anything is
//! allocated, a wrong byte is a [`RowsError::Malformed`], and rows are decoded one at a time, so
//! that a large event is held once as bytes and never again as cells.
//!
//! Why not the driver's own decoder: it reads old TIME as unsigned with an 8-bit hour, gives 1900
//! for YEAR 0, and does not know signs (`mysql_common` 0.37).
//!
//! | file | what it is for |
//! | --- | --- |
//! | `table_map` | how the bytes are cut: wire types, metadata |
//! | `event` | the rows event: kind, present columns, row bytes |
//! | `field` | one value of one wire type |
//! | `decimal`, `temporal`, `json` | the families of packed formats |
//! | `decoder` | the pairing of both descriptions, and the iterator |
//! | `reader` | reading bytes without ever passing the end |

mod decimal;
mod decoder;
mod event;
mod field;
mod json;
mod reader;
mod table_map;
mod temporal;

pub use decoder::{Changes, Decoder};
pub use event::{RowsEvent, RowsKind};
pub use table_map::{TableMap, WireColumn};

use super::cell::Row;
use super::error::MysqlError;
use super::names::TableName;
use super::position::Position;
#[cfg(doc)]
use super::{cell::Cell, table::Table};

/// One changed row. An insert has only `after`, a delete only `before`, an update both.
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    /// The row as it was.
    pub before: Option<Row>,
    /// The row as it is now.
    pub after: Option<Row>,
}

/// Why an event could not be decoded. None of these heals by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// The bytes are not a valid event of this table.
    #[error("{place}: the event's bytes are not valid: {message}")]
    Malformed {
        /// The table, or the event where the table is not known yet.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// The table the event was written for is not the table the catalog shows.
    #[error("`{table}`: column {column} is not what the catalog says: {message}")]
    SchemaChanged {
        /// The table.
        table: TableName,
        /// The column: its name in backticks, or its number where the catalog has none.
        column: String,
        /// Both types.
        message: String,
    },
    /// The event leaves columns out.
    #[error("`{table}`: the event leaves column `{column}` out, because the session that wrote it did not log full row images")]
    PartialImage {
        /// The table.
        table: TableName,
        /// The first column that is missing.
        column: String,
    },
    /// A format that dbmove does not read.
    #[error("{place}: {message}")]
    Unsupported {
        /// Table and column, in backticks.
        place: String,
        /// What it is.
        message: String,
        /// What to do.
        hint: String,
    },
}

impl RowsError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            RowsError::Malformed { .. } => {
                "the log is damaged or was cut on the way; check it with `mysqlbinlog --verify-binlog-checksum` on the source, and start again from a new copy".to_owned()
            }
            RowsError::SchemaChanged { .. } => {
                "the table was altered between this event and the reading of the catalog; copy the table again".to_owned()
            }
            RowsError::PartialImage { .. } => {
                "set `binlog_row_image = FULL` on the source (`SET GLOBAL binlog_row_image = 'FULL'`; open sessions keep the old value until they reconnect), and copy the table again".to_owned()
            }
            RowsError::Unsupported { hint, .. } => hint.clone(),
        }
    }

    /// As an error of the stream, at the position where the event ends.
    #[must_use]
    pub fn at(&self, position: Position) -> MysqlError {
        MysqlError::Stream { position, message: self.to_string(), hint: self.hint() }
    }
}
