//! One value: how its bytes are cut, and what they are in a [`Cell`].
//!
//! A [`Field`] is what the table map and the catalog agree on for a column. It is made once per
//! table map by [`Field::pair`], which is where a changed schema shows.

use super::super::cell::Cell;
use super::super::table::{Column, ColumnType};
use super::reader::{Broken, Reader};
use super::table_map::{WireColumn, wire};
use super::{decimal, json, temporal};

/// How a column's values are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Integer {
        bytes: u8,
        unsigned: bool,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Date,
    Year {
        two_digits: bool,
    },
    OldTime,
    OldDateTime,
    OldTimestamp,
    Time(u8),
    DateTime(u8),
    Timestamp(u8),
    /// ENUM and SET: lowest byte first.
    Number(u8),
    /// BIT: highest byte first.
    Bits(u8),
    /// A length of so many bytes, then as many bytes.
    Bytes {
        length_bytes: u8,
    },
    /// MySQL's JSON: a length of so many bytes, then the document in its binary form.
    Json {
        length_bytes: u8,
    },
    /// CHAR, as [`Field::Bytes`] but without trailing spaces, which are `unit` bytes wide.
    Char {
        length_bytes: u8,
        unit: u8,
    },
    /// BINARY, as [`Field::Bytes`] but with the zero bytes put back that the log leaves out.
    Binary {
        length_bytes: u8,
        width: u32,
    },
}

/// Why a column can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The log's type is not the catalog's.
    Changed(String),
    /// A format dbmove does not read: what, and what to do.
    Unsupported(String, String),
}

impl Field {
    /// From what the log and the catalog say of a column.
    pub(super) fn pair(wire_column: WireColumn, column: &Column) -> Result<Field, Mismatch> {
        use ColumnType as C;
        let WireColumn { kind, metadata, .. } = wire_column;
        let [low, high] = metadata.to_le_bytes();
        let integer = |bytes| Field::Integer { bytes, unsigned: column.unsigned };
        let field = match (kind, column.kind) {
            (wire::TINY, C::TinyInt) => integer(1),
            (wire::SHORT, C::SmallInt) => integer(2),
            (wire::INT24, C::MediumInt) => integer(3),
            (wire::LONG, C::Int) => integer(4),
            (wire::LONGLONG, C::BigInt) => integer(8),
            (wire::FLOAT, C::Float) if low == 4 => Field::Float,
            (wire::DOUBLE, C::Double) if low == 8 => Field::Double,
            (wire::NEWDECIMAL, C::Decimal { precision, scale }) if (low, high) == (precision, scale) => Field::Decimal { precision, scale },
            (wire::DATE | wire::NEWDATE, C::Date) => Field::Date,
            (wire::YEAR, C::Year) => Field::Year { two_digits: false },
            (wire::YEAR, C::Year2) => Field::Year { two_digits: true },
            (wire::TIME, C::Time(0)) => Field::OldTime,
            (wire::DATETIME, C::DateTime(0)) => Field::OldDateTime,
            (wire::TIMESTAMP, C::Timestamp(0)) => Field::OldTimestamp,
            (wire::TIME2, C::Time(digits)) if low == digits => Field::Time(digits),
            (wire::DATETIME2, C::DateTime(digits)) if low == digits => Field::DateTime(digits),
            (wire::TIMESTAMP2, C::Timestamp(digits)) if low == digits => Field::Timestamp(digits),
            (wire::TIME, C::Time(_)) | (wire::DATETIME, C::DateTime(_)) | (wire::TIMESTAMP, C::Timestamp(_)) => {
                return Err(Mismatch::Unsupported(
                    format!("`{}` in MariaDB's own format of fractional seconds", column.type_text),
                    "set `mysql56_temporal_format = ON` on the source (10.1 and later) and rebuild the table with `ALTER TABLE … FORCE`, or exclude it".to_owned(),
                ));
            }
            (wire::BIT, C::Bit(width)) if u16::from(low) + 8 * u16::from(high) == u16::from(width) => Field::Bits(width.div_ceil(8)),
            (wire::VARCHAR | wire::VAR_STRING, C::VarChar | C::VarBinary) => Field::Bytes { length_bytes: 1 + u8::from(metadata > 255) },
            (wire::TINY_BLOB | wire::MEDIUM_BLOB | wire::LONG_BLOB | wire::BLOB, C::Text | C::Blob) | (wire::GEOMETRY, C::Geometry)
                if (1..=4).contains(&low) =>
            {
                Field::Bytes { length_bytes: low }
            }
            (wire::STRING | wire::ENUM | wire::SET, _) => return Self::pair_string(low, high, column),
            (wire::JSON, C::Json) if (1..=4).contains(&low) => Field::Json { length_bytes: low },
            (wire::BLOB_COMPRESSED | wire::VARCHAR_COMPRESSED, C::Text | C::Blob | C::VarChar | C::VarBinary) => {
                return Err(Mismatch::Unsupported(
                    "MariaDB's COMPRESSED columns can't be read from the log".to_owned(),
                    "change the column to one without COMPRESSED, or exclude the table".to_owned(),
                ));
            }
            (wire::OLD_DECIMAL, C::Decimal { .. }) => {
                return Err(Mismatch::Unsupported(
                    "DECIMAL in the format of MySQL 4.1 can't be read from the log".to_owned(),
                    "rebuild the table with `ALTER TABLE … FORCE`".to_owned(),
                ));
            }
            _ => return Err(changed(wire_column, column)),
        };
        Ok(field)
    }

    /// CHAR, BINARY, ENUM and SET share a wire type. The first metadata byte holds the real type,
    /// with two bits of CHAR's length put over two bits of it that are always set.
    fn pair_string(low: u8, high: u8, column: &Column) -> Result<Field, Mismatch> {
        let length = u32::from(high) | (u32::from(low & 0x30) ^ 0x30) << 4;
        let length_bytes = 1 + u8::from(length > 255);
        Ok(match (low | 0x30, column.kind) {
            (wire::ENUM, ColumnType::Enum) if matches!(high, 1 | 2) => Field::Number(high),
            (wire::SET, ColumnType::Set) if matches!(high, 1..=4 | 8) => Field::Number(high),
            (wire::STRING, ColumnType::Binary(width)) if width == length => Field::Binary { length_bytes, width },
            (wire::STRING, ColumnType::Char) => {
                let unit = match column.charset.as_deref() {
                    // Its space is 20 00, and servers that have it (5.6 and later) cut padding themselves.
                    Some("utf16le") => return Ok(Field::Bytes { length_bytes }),
                    Some("ucs2" | "utf16") => 2,
                    Some("utf32") => 4,
                    _ => 1,
                };
                Field::Char { length_bytes, unit }
            }
            _ => {
                return Err(changed(
                    WireColumn { kind: low | 0x30, metadata: u16::from_le_bytes([low, high]), nullable: column.nullable },
                    column,
                ));
            }
        })
    }

    /// Reads one value that is not NULL.
    pub(super) fn read(self, reader: &mut Reader<'_>) -> Result<Cell, Broken> {
        let bytes = match self {
            Field::Integer { bytes, unsigned: true } => reader.little(bytes.into())?.to_string().into_bytes(),
            Field::Integer { bytes, unsigned: false } => reader.little_signed(bytes.into())?.to_string().into_bytes(),
            Field::Float => return Ok(Cell::Float(f32::from_le_bytes(reader.array()?))),
            Field::Double => return Ok(Cell::Double(f64::from_le_bytes(reader.array()?))),
            Field::Decimal { precision, scale } => decimal::read(reader, precision, scale)?,
            Field::Date => temporal::date(reader)?,
            Field::Year { two_digits } => temporal::year(reader, two_digits)?,
            Field::OldTime => temporal::old_time(reader)?,
            Field::OldDateTime => temporal::old_datetime(reader)?,
            Field::OldTimestamp => temporal::old_timestamp(reader)?,
            Field::Time(digits) => temporal::time(reader, digits)?,
            Field::DateTime(digits) => temporal::datetime(reader, digits)?,
            Field::Timestamp(digits) => temporal::timestamp(reader, digits)?,
            Field::Number(bytes) => reader.little(bytes.into())?.to_string().into_bytes(),
            Field::Bits(bytes) => reader.big(bytes.into())?.to_string().into_bytes(),
            Field::Bytes { length_bytes } => prefixed(reader, length_bytes)?.to_vec(),
            Field::Json { length_bytes } => json::text(prefixed(reader, length_bytes)?)?,
            Field::Char { length_bytes, unit } => without_padding(prefixed(reader, length_bytes)?, unit.into()),
            Field::Binary { length_bytes, width } => {
                let stored = prefixed(reader, length_bytes)?;
                let width = width as usize;
                if stored.len() > width {
                    return Err(Broken::new(format!("{} bytes do not fit BINARY({width})", stored.len())));
                }
                let mut bytes = Vec::with_capacity(width);
                bytes.extend_from_slice(stored);
                bytes.resize(width, 0);
                bytes
            }
        };
        Ok(Cell::Bytes(bytes))
    }
}

fn prefixed<'a>(reader: &mut Reader<'a>, length_bytes: u8) -> Result<&'a [u8], Broken> {
    let length = reader.little(length_bytes.into())?;
    reader.take(usize::try_from(length).unwrap_or(usize::MAX))
}

/// CHAR as a SELECT gives it. 5.1 cuts trailing 0x20 bytes one by one even in charsets whose space
/// has two or four bytes: what it cut of the last character is put back before spaces are removed.
fn without_padding(stored: &[u8], unit: usize) -> Vec<u8> {
    let mut bytes = stored.to_vec();
    while !bytes.len().is_multiple_of(unit) {
        bytes.push(b' ');
    }
    let is_space = |unit: &[u8]| unit.split_last().is_some_and(|(last, first)| *last == b' ' && first.iter().all(|&byte| byte == 0));
    let padding = bytes.rchunks(unit).take_while(|chunk| is_space(chunk)).count() * unit;
    bytes.truncate(bytes.len() - padding);
    bytes
}

fn changed(wire_column: WireColumn, column: &Column) -> Mismatch {
    Mismatch::Changed(format!(
        "the log has wire type {} (metadata 0x{:04x}), the catalog has `{}`",
        wire_column.kind, wire_column.metadata, column.type_text
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_of_wide_charsets_are_removed_whole() {
        assert_eq!(without_padding(b"abc  ", 1), b"abc");
        assert_eq!(without_padding(&[0, 0x41, 0, 0x20, 0, 0x20], 2), [0, 0x41]);
        // What 5.1 logs for the same value, and for U+0420 at the end.
        assert_eq!(without_padding(&[0, 0x41, 0, 0x20, 0], 2), [0, 0x41]);
        assert_eq!(without_padding(&[0x04], 2), [0x04, 0x20]);
        assert!(without_padding(&[], 4).is_empty());
    }
}
