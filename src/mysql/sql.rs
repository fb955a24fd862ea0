//! The one place where identifiers and values become SQL, and rows become `LOAD DATA` text.
//!
//! Sessions run under `NAMES binary` and a `sql_mode` without `NO_BACKSLASH_ESCAPES` and
//! `ANSI_QUOTES` (asserted when they are opened), so a literal is a run of bytes in which only the
//! characters below have a meaning, whatever the column's charset.

use super::cell::Cell;
use super::names::TableName;
use super::table::{Column, ColumnType};

/// An identifier in backticks.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A table's full name in backticks.
#[must_use]
pub fn table(name: &TableName) -> String {
    format!("{}.{}", identifier(&name.database), identifier(&name.table))
}

/// An account in backticks: read the same under every `sql_mode`.
#[must_use]
pub fn account(user: &str, host: &str) -> String {
    format!("{}@{}", identifier(user), identifier(host))
}

/// A list of columns in backticks, separated by commas.
#[must_use]
pub fn columns<'a>(columns: impl IntoIterator<Item = &'a Column>) -> String {
    columns.into_iter().map(|column| identifier(&column.name)).collect::<Vec<_>>().join(", ")
}

/// A text as a string literal: for settings and catalog queries.
#[must_use]
#[expect(clippy::expect_used, reason = "the text is UTF-8 already, and only ASCII is put between its characters")]
pub fn text(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len() + 2);
    push_quoted(&mut out, value.as_bytes());
    String::from_utf8(out).expect("escaping inserts ASCII only, so valid UTF-8 stays valid")
}

/// Bytes as a literal of a charset. The charset's name comes from the server and must be letters and digits.
#[must_use]
pub fn in_charset(charset: &str, bytes: &[u8]) -> String {
    format!("_{charset} X'{}'", hex::encode(bytes))
}

/// Appends bytes as a quoted, escaped string literal.
pub fn push_quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'\'');
    for &byte in bytes {
        match byte {
            0 => out.extend_from_slice(b"\\0"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0x1a => out.extend_from_slice(b"\\Z"),
            b'\\' | b'\'' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            _ => out.push(byte),
        }
    }
    out.push(b'\'');
}

/// Appends a cell as a literal for `column`: numbers bare where the server must not read them as
/// text (ENUM, SET, BIT, floats), everything else quoted; JSON with its charset, since MySQL takes none from bytes.
pub fn push_literal(out: &mut Vec<u8>, cell: &Cell, column: &Column) {
    match cell {
        Cell::Null => out.extend_from_slice(b"NULL"),
        Cell::Bytes(bytes) if (column.kind.by_number() || column.kind.is_integer()) && is_number(bytes) => out.extend_from_slice(bytes),
        Cell::Bytes(bytes) => {
            if column.kind == ColumnType::Json {
                out.extend_from_slice(b"_utf8mb4");
            }
            push_quoted(out, bytes);
        }
        Cell::Float(value) => push_float(out, *value),
        Cell::Double(value) => push_double(out, *value),
    }
}

/// Appends a cell as a value to be stored in `column`: as [`push_literal`], and a float not beyond the column's limit.
pub fn push_stored(out: &mut Vec<u8>, cell: &Cell, column: &Column) {
    match within(cell, || column.float_limit()) {
        Some(value) => push_double(out, value),
        None => push_literal(out, cell, column),
    }
}

/// The limit, with the cell's sign, if the cell is a float beyond it. Stored, it becomes the value that the cell has.
fn within(cell: &Cell, limit: impl FnOnce() -> Option<f64>) -> Option<f64> {
    let value = match cell {
        Cell::Float(value) => f64::from(*value),
        Cell::Double(value) => *value,
        Cell::Null | Cell::Bytes(_) => return None,
    };
    limit().filter(|limit| value.abs() > *limit).map(|limit| limit.copysign(value))
}

/// Appends `(a, b, c)`, to be stored in the given columns.
pub fn push_tuple<'a>(out: &mut Vec<u8>, cells: impl IntoIterator<Item = (&'a Cell, &'a Column)>) {
    out.push(b'(');
    for (index, (cell, column)) in cells.into_iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        push_stored(out, cell, column);
    }
    out.push(b')');
}

/// Appends a cell as a `LOAD DATA` field (`FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n'`);
/// `limit` is the column's [`Column::float_limit`].
pub fn push_field(out: &mut Vec<u8>, cell: &Cell, limit: Option<f64>) {
    if let Some(value) = within(cell, || limit) {
        return push_double(out, value);
    }
    match cell {
        Cell::Null => out.extend_from_slice(b"\\N"),
        Cell::Bytes(bytes) => push_field_bytes(out, bytes),
        Cell::Float(value) => push_float(out, *value),
        Cell::Double(value) => push_double(out, *value),
    }
}

/// Appends bytes as a `LOAD DATA` field.
pub fn push_field_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\t' | b'\n' | b'\\' | b'\r' | 0)) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            0 => b"\\0",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// How a column is named in a SELECT so that the value arrives in [`Cell`]'s canonical form.
/// `binary_protocol` is true for tables with floats, which are read by prepared statements.
#[must_use]
pub fn select_expression(column: &Column, binary_protocol: bool) -> String {
    let name = identifier(&column.name);
    match column.kind {
        kind if kind.by_number() => format!("CAST({name} AS UNSIGNED)"),
        kind if kind.is_integer() && column.zerofill => format!("CAST({name} AS UNSIGNED)"),
        ColumnType::Decimal { precision, scale } if column.zerofill => format!("CAST({name} AS DECIMAL({precision},{scale}))"),
        // Two digits in print; the stored year is one of 1970 to 2069.
        ColumnType::Year2 => format!("CONCAT(IF({name} + 0 < 70, '20', '19'), LPAD({name} + 0, 2, '0'))"),
        ColumnType::Date | ColumnType::Time(_) | ColumnType::DateTime(_) | ColumnType::Timestamp(_) | ColumnType::Year
            if binary_protocol =>
        {
            format!("CAST({name} AS CHAR)")
        }
        _ => name,
    }
}

fn is_number(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// A FLOAT by the digits of the double it widens to: exact, and never above the largest FLOAT (whose
/// own shortest form `3.4028235e38` is, and which servers clip with a warning).
fn push_float(out: &mut Vec<u8>, value: f32) {
    push_double(out, f64::from(value));
}

/// A DOUBLE as the shortest decimal that reads back as the same value, in exponent form so that the server reads a float and not a DECIMAL.
fn push_double(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(format!("{value:e}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_can_not_break_out() {
        assert_eq!(identifier("a`; DROP TABLE b; --"), "`a``; DROP TABLE b; --`");
        assert_eq!(table(&TableName::new("s.1", "`")), "`s.1`.````");
        assert_eq!(account("a'b`@c", "%"), "`a'b``@c`@`%`");
    }

    #[test]
    fn literals_can_not_break_out() {
        let mut out = Vec::new();
        push_quoted(&mut out, b"it's \\ \"\0\n\r\x1a");
        assert_eq!(out, br#"'it\'s \\ \"\0\n\r\Z'"#);
    }

    #[test]
    fn fields_keep_every_byte_apart_from_separators() {
        let mut out = Vec::new();
        push_field_bytes(&mut out, b"a\tb\nc\\d\0e\rf\xff");
        assert_eq!(out, b"a\\tb\\nc\\\\d\\0e\\rf\xff");
    }

    #[test]
    fn floats_are_written_so_that_they_read_back() {
        for value in [0.1f64, 1.7976931348623157e308, 2.2250738585072014e-308, 5e-324, 9007199254740993.0] {
            let mut out = Vec::new();
            push_double(&mut out, value);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
            assert!(text.contains('e'));
        }
    }

    #[test]
    fn a_float_above_its_columns_limit_is_stored_as_the_limit() {
        let column = |type_text: &str, kind| Column {
            name: "c".to_owned(),
            kind,
            type_text: type_text.to_owned(),
            unsigned: false,
            zerofill: false,
            nullable: true,
            charset: None,
            collation: None,
            auto_increment: false,
            generated: false,
        };
        let stored = |cell: Cell, column: &Column| {
            let mut out = Vec::new();
            push_stored(&mut out, &cell, column);
            let mut field = Vec::new();
            push_field(&mut field, &cell, column.float_limit());
            assert_eq!(out, field);
            String::from_utf8(out).unwrap()
        };
        let float = column("float(10,3) unsigned", ColumnType::Float);
        assert_eq!(stored(Cell::Float(10_000_000.0), &float), "9.999999999e6");
        assert_eq!(9999999.999f64 as f32, 10_000_000.0, "the limit is kept as that FLOAT");
        assert_eq!(stored(Cell::Float(-10_000_000.0), &float), "-9.999999999e6");
        assert_eq!(stored(Cell::Float(9_999_999.0), &float), "9.999999e6");
        assert_eq!(stored(Cell::Double(1e15), &column("double(20,5)", ColumnType::Double)), "1e15");
        assert_eq!(stored(Cell::Float(3e38), &column("float", ColumnType::Float)), format!("{:e}", f64::from(3e38f32)));
    }
}
