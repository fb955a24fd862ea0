//! The rows event: which table, which columns are present, and the bytes of the rows.

use mysql_async::binlog::events::RowsEventData;

use super::RowsError;
use super::reader::{Broken, Reader};

/// What happened to the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsKind {
    /// Rows were inserted: one image each, after.
    Insert,
    /// Rows were updated: two images each, before and after.
    Update,
    /// Rows were deleted: one image each, before.
    Delete,
}

/// A rows event whose bytes belong to somebody else.
#[derive(Clone, Debug)]
pub struct RowsEvent<'a> {
    /// What happened.
    pub kind: RowsKind,
    /// The table, by the number its table map gave.
    pub table_id: u64,
    /// Number of columns.
    pub columns: usize,
    /// Whether the statement ends with this event, and its table maps with it.
    pub ends_statement: bool,
    /// Columns present in the image before; empty for inserts.
    pub(super) before: Vec<u8>,
    /// Columns present in the image after; empty for deletes.
    pub(super) after: Vec<u8>,
    pub(super) rows: &'a [u8],
}

/// The flag of the last rows event of a statement.
const STATEMENT_END: u64 = 1;

impl<'a> RowsEvent<'a> {
    /// Whether an event type (the header's number) is a rows event that [`RowsEvent::parse`] reads
    /// or refuses with a reason.
    #[must_use]
    pub fn is_rows(event_type: u8) -> bool {
        matches!(event_type, 20..=25 | 30..=32 | 39 | 166..=171)
    }

    /// From the header's event type and the body: what follows the header, without the checksum.
    /// Version 1 (5.1.16 to 5.5, MariaDB, 5.6 on request) and version 2 (5.6 and later).
    ///
    /// # Errors
    /// [`RowsError::Malformed`] if it is cut, [`RowsError::Unsupported`] for compressed and partial
    /// JSON events and those of 5.1 betas.
    pub fn parse(event_type: u8, body: &'a [u8]) -> Result<Self, RowsError> {
        let (kind, version) = match event_type {
            23 => (RowsKind::Insert, 1),
            24 => (RowsKind::Update, 1),
            25 => (RowsKind::Delete, 1),
            30 => (RowsKind::Insert, 2),
            31 => (RowsKind::Update, 2),
            32 => (RowsKind::Delete, 2),
            39 => return Err(partial_json()),
            166..=171 => {
                return Err(RowsError::Unsupported {
                    place: "rows event".to_owned(),
                    message: "it is compressed".to_owned(),
                    hint: "set `log_bin_compress = OFF` on the source and start again from a new copy".to_owned(),
                });
            }
            20..=22 => {
                return Err(RowsError::Unsupported {
                    place: "rows event".to_owned(),
                    message: "it is of the format of MySQL 5.1 before 5.1.16".to_owned(),
                    hint: "use a later 5.1 as the source".to_owned(),
                });
            }
            other => {
                return Err(RowsError::Malformed { place: "rows event".to_owned(), message: format!("event type {other} holds no rows") });
            }
        };
        Self::read(kind, version, Reader::new(body))
            .map_err(|Broken(message)| RowsError::Malformed { place: "rows event".to_owned(), message })
    }

    fn read(kind: RowsKind, version: u8, mut reader: Reader<'a>) -> Result<Self, Broken> {
        let table_id = reader.little(6)?;
        let flags = reader.little(2)?;
        if version == 2 {
            let length = reader.little(2)? as usize;
            let extra = length.checked_sub(2).ok_or_else(|| Broken::new("the extra data's length is below its own size"))?;
            reader.take(extra)?;
        }
        let columns = usize::try_from(reader.length_encoded()?).map_err(|_| Broken::new("the number of columns is absurd"))?;
        let bitmap = columns.div_ceil(8);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        if kind != RowsKind::Insert {
            before = reader.take(bitmap)?.to_vec();
        }
        if kind != RowsKind::Delete {
            after = reader.take(bitmap)?.to_vec();
        }
        Ok(RowsEvent { kind, table_id, columns, ends_statement: flags & STATEMENT_END != 0, before, after, rows: reader.rest() })
    }

    /// From the driver's event.
    ///
    /// # Errors
    /// [`RowsError::Unsupported`] for partial JSON updates, [`RowsError::Malformed`] for an absurd column count.
    pub fn from_driver(event: &'a RowsEventData<'a>) -> Result<Self, RowsError> {
        let kind = match event {
            RowsEventData::WriteRowsEvent(_) | RowsEventData::WriteRowsEventV1(_) => RowsKind::Insert,
            RowsEventData::UpdateRowsEvent(_) | RowsEventData::UpdateRowsEventV1(_) => RowsKind::Update,
            RowsEventData::DeleteRowsEvent(_) | RowsEventData::DeleteRowsEventV1(_) => RowsKind::Delete,
            RowsEventData::PartialUpdateRowsEvent(_) => return Err(partial_json()),
        };
        let columns = usize::try_from(event.num_columns())
            .map_err(|_| RowsError::Malformed { place: "rows event".to_owned(), message: "the number of columns is absurd".to_owned() })?;
        let bytes = |bits: Option<Vec<bool>>| {
            bits.map_or_else(Vec::new, |bits| {
                bits.chunks(8).map(|chunk| chunk.iter().rev().fold(0, |byte, &set| byte << 1 | u8::from(set))).collect()
            })
        };
        Ok(RowsEvent {
            kind,
            table_id: event.table_id(),
            columns,
            ends_statement: event.flags().bits() & STATEMENT_END as u16 != 0,
            before: bytes(event.columns_before_image().map(|bits| bits.iter().by_vals().collect())),
            after: bytes(event.columns_after_image().map(|bits| bits.iter().by_vals().collect())),
            rows: event.rows_data(),
        })
    }
}

fn partial_json() -> RowsError {
    RowsError::Unsupported {
        place: "rows event".to_owned(),
        message: "it holds only the changed parts of JSON documents".to_owned(),
        hint: "set `binlog_row_value_options = ''` on the source (`SET GLOBAL binlog_row_value_options = ''`; open sessions keep the old value until they reconnect), and start again from a new copy".to_owned(),
    }
}
