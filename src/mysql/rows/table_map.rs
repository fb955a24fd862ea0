//! How the bytes of a table's row events are cut: the table map event.
//!
//! The body is: table id (six bytes, four before 5.1.4), two bytes of flags, database and table
//! name (length byte, bytes, zero byte), the number of columns, one type byte per column, the
//! metadata (lengths, precisions: none, one or two bytes by type), and a bitmap of columns that may
//! be NULL. What follows in newer servers (names, charsets) is optional there and not used: the
//! catalog knows it for every server.

use super::super::names::TableName;
use super::RowsError;
use super::reader::{Broken, Reader, bit};

/// Wire types that a table map can hold, by the numbers of the protocol.
pub(super) mod wire {
    pub const OLD_DECIMAL: u8 = 0;
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const BLOB_COMPRESSED: u8 = 140;
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// A column as the log describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireColumn {
    /// The protocol's number of the type, as in the event.
    pub kind: u8,
    /// Its metadata: the first byte low, the second high; 0 where the type has none.
    pub metadata: u16,
    /// Whether it may be NULL.
    pub nullable: bool,
}

/// A table map event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMap {
    /// The number that rows events use for the table until the next map.
    pub table_id: u64,
    /// The table.
    pub name: TableName,
    /// Its columns.
    pub columns: Vec<WireColumn>,
}

impl TableMap {
    /// From an event's body: what follows its header, without the checksum.
    ///
    /// # Errors
    /// [`RowsError::Malformed`] if it is cut or not a table map.
    pub fn parse(body: &[u8]) -> Result<Self, RowsError> {
        Self::read(Reader::new(body)).map_err(|Broken(message)| RowsError::Malformed { place: "table map".to_owned(), message })
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, Broken> {
        let table_id = reader.little(6)?;
        reader.take(2)?;
        let database = name(&mut reader)?;
        let table = name(&mut reader)?;
        let count = usize::try_from(reader.length_encoded()?).map_err(|_| Broken::new("the number of columns is absurd"))?;
        let kinds = reader.take(count)?;
        let length = usize::try_from(reader.length_encoded()?).map_err(|_| Broken::new("the metadata's length is absurd"))?;
        let mut metadata = Reader::new(reader.take(length)?);
        let nullable = reader.take(count.div_ceil(8))?;
        let mut columns = Vec::with_capacity(count);
        for (index, &kind) in kinds.iter().enumerate() {
            let metadata = metadata.little(metadata_length(kind)?)? as u16;
            columns.push(WireColumn { kind, metadata, nullable: bit(nullable, index) });
        }
        Ok(TableMap { table_id, name: TableName { database, table }, columns })
    }
}

fn name(reader: &mut Reader<'_>) -> Result<String, Broken> {
    let length = usize::from(reader.byte()?);
    let bytes = reader.take(length)?;
    if reader.byte()? != 0 {
        return Err(Broken::new("a name does not end with a zero byte"));
    }
    // Names are UTF-8 in the log, whatever the server's charset.
    String::from_utf8(bytes.to_vec()).map_err(|_| Broken::new("a name is not UTF-8"))
}

/// Bytes of metadata that a type has in the map.
fn metadata_length(kind: u8) -> Result<usize, Broken> {
    Ok(match kind {
        wire::OLD_DECIMAL..=wire::LONG | wire::TIMESTAMP..=wire::NEWDATE | 6 => 0,
        wire::FLOAT
        | wire::DOUBLE
        | wire::TIMESTAMP2
        | wire::DATETIME2
        | wire::TIME2
        | wire::BLOB_COMPRESSED
        | wire::VECTOR
        | wire::JSON
        | wire::TINY_BLOB
        | wire::MEDIUM_BLOB
        | wire::LONG_BLOB
        | wire::BLOB
        | wire::GEOMETRY => 1,
        wire::VARCHAR
        | wire::VARCHAR_COMPRESSED
        | wire::BIT
        | wire::NEWDECIMAL
        | wire::ENUM
        | wire::SET
        | wire::VAR_STRING
        | wire::STRING => 2,
        other => return Err(Broken::new(format!("column type {other} is not known"))),
    })
}
