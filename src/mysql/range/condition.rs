//! A key range as the condition behind `WHERE`, in a form that every server answers by its index.
//!
//! # Why the condition is long
//!
//! `(a, b) > (x, y)` is what one means, and no server before MySQL 5.7 uses an index for it: it reads
//! the table from its start for every chunk, which makes a copy quadratic. So it is expanded to
//! `a >= x AND (a > x OR (a = x AND b > y))`. The first comparison is redundant to logic and
//! is what the old optimizers turn into the range when they give up on the rest.
//!
//! # Why the literals look odd
//!
//! "After" is decided by the *server's* collation, the one the index is sorted by; dbmove never
//! sorts keys itself. The session talks `NAMES binary`, and a text literal of such a session is
//! compared by bytes or, worse, not by the index. Therefore text is written as bytes with the
//! column's own charset in front, `_latin1 X'e9'`: it has the same charset as the column and a
//! weaker claim to the collation, so the column's collation decides and the index is used.
//! Numbers, ENUM, SET and BIT are written bare: they are sorted by number. `enum > 3` is no index range on any
//! server, while `enum IN (4, 5)` is, so that is how an ENUM is compared.
//! (For SET there is no such way: a key that begins with one is walked rightly, but each chunk reads from the start.)

use std::fmt::Write as _;

use super::KeyRange;
use crate::mysql::cell::{Cell, Key};
use crate::mysql::sql;
use crate::mysql::table::{Column, ColumnType, Table};

/// The condition for `range`, to stand behind `WHERE`. `key_columns` are indexes into
/// [`Table::columns`], as [`Table::key`] gives them; the table must be described as the server that
/// will run the condition describes it (`utf8` has two names).
#[must_use]
pub fn condition(table: &Table, key_columns: &[usize], range: &KeyRange) -> Vec<u8> {
    condition_text(table, key_columns, range).into_bytes()
}

pub(in crate::mysql) fn condition_text(table: &Table, key_columns: &[usize], range: &KeyRange) -> String {
    let bound = |key: &Key, towards: Towards| {
        let parts: Vec<Part> = key_columns.iter().zip(&key.cells()).map(|(&column, cell)| Part::of(cell, &table.columns[column])).collect();
        expanded(&parts, towards)
    };
    let mut conditions = Vec::with_capacity(2);
    if let Some(key) = &range.after {
        conditions.push(bound(key, Towards::After));
    }
    if let Some(key) = &range.through {
        conditions.push(bound(key, Towards::Through));
    }
    if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") }
}

/// Bytes of keys in one condition at most: as text they are at least twice as many, and the least that a server takes is 1 MiB.
const KEY_BYTES: usize = 128 << 10;

/// The keys a few at a time, as they go into one condition ([`one_of`]): `most` at most.
pub(in crate::mysql) fn batches(keys: &[Key], most: usize) -> impl Iterator<Item = &[Key]> {
    let mut rest = keys;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take(most).take_while(|key| {
            bytes += key.0.len();
            bytes <= KEY_BYTES
        });
        let count = fitting.count().max(1).min(rest.len());
        let (batch, left) = rest.split_at(count);
        rest = left;
        (!batch.is_empty()).then_some(batch)
    })
}

/// The condition "is one of these keys". One form for every server: an OR of ANDs, since tuples in
/// `IN` are no index range before 5.7.
pub(in crate::mysql) fn one_of(table: &Table, key_columns: &[usize], keys: &[Key]) -> String {
    let columns: Vec<&Column> = key_columns.iter().map(|&column| &table.columns[column]).collect();
    if let [column] = columns.as_slice() {
        let literals: Vec<String> = keys.iter().flat_map(|key| key.cells().first().map(|cell| literal(cell, column))).collect();
        return format!("{} IN ({})", sql::identifier(&column.name), literals.join(", "));
    }
    let mut out = String::with_capacity(keys.len() * 64);
    for (index, key) in keys.iter().enumerate() {
        out.push_str(if index == 0 { "(" } else { " OR (" });
        for (part, (column, cell)) in columns.iter().zip(&key.cells()).enumerate() {
            if part > 0 {
                out.push_str(" AND ");
            }
            out.push_str(&sql::identifier(&column.name));
            out.push_str(" = ");
            out.push_str(&literal(cell, column));
        }
        out.push(')');
    }
    format!("({out})")
}

#[derive(Clone, Copy)]
enum Towards {
    After,
    Through,
}

/// One part of a key bound: a column and the value to compare with.
struct Part {
    column: String,
    value: String,
    /// For an ENUM: its number in the bound, and its highest.
    listed: Option<(u32, u32)>,
}

impl Part {
    fn of(cell: &Cell, column: &Column) -> Self {
        let number = || std::str::from_utf8(cell.as_bytes()?).ok()?.parse().ok();
        let listed = match column.kind {
            ColumnType::Enum => number().zip(members(&column.type_text)),
            _ => None,
        };
        Part { column: sql::identifier(&column.name), value: literal(cell, column), listed }
    }

    fn compare(&self, operator: &str) -> String {
        let Part { column, value, listed } = self;
        match (listed, operator) {
            (Some((number, highest)), ">" | ">=" | "<" | "<=") => {
                let numbers: Vec<String> = match operator {
                    ">" => number + 1..highest + 1,
                    ">=" => *number..highest + 1,
                    "<" => 0..*number,
                    _ => 0..number + 1,
                }
                .map(|number| number.to_string())
                .collect();
                if numbers.is_empty() { "0".to_owned() } else { format!("{column} IN ({})", numbers.join(", ")) }
            }
            _ => format!("{column} {operator} {value}"),
        }
    }
}

/// How many members an `enum('a','b''c')` has; `None` if there are too many to write out.
fn members(type_text: &str) -> Option<u32> {
    const MOST: u32 = 256;
    let mut members = 0;
    let mut rest = type_text.bytes().peekable();
    let mut inside = false;
    while let Some(byte) = rest.next() {
        match byte {
            // A quote inside a member is doubled.
            b'\'' if inside && rest.peek() == Some(&b'\'') => {
                rest.next();
            }
            b'\'' => {
                inside = !inside;
                members += u32::from(inside);
            }
            _ => {}
        }
    }
    (1..=MOST).contains(&members).then_some(members)
}

/// `a >= x AND (a > x OR (a = x AND …))`, or the mirror image; for one column just `a > x`, `a <= x`.
fn expanded(parts: &[Part], towards: Towards) -> String {
    let (strict, loose, last) = match towards {
        Towards::After => (">", ">=", ">"),
        Towards::Through => ("<", "<=", "<="),
    };
    match parts {
        [] => "1".to_owned(),
        [part] => part.compare(last),
        [part, rest @ ..] => {
            let inner = expanded(rest, towards);
            format!("({} AND ({} OR ({} AND {inner})))", part.compare(loose), part.compare(strict), part.compare("="))
        }
    }
}

/// A key value that compares as the index is sorted. See the module's comment.
fn literal(cell: &Cell, column: &Column) -> String {
    let bytes = match cell {
        Cell::Bytes(bytes) => bytes,
        other => {
            let mut out = Vec::new();
            sql::push_literal(&mut out, other, column);
            return String::from_utf8_lossy(&out).into_owned();
        }
    };
    let kind = column.kind;
    let numeric =
        kind.is_integer() || kind.by_number() || matches!(kind, ColumnType::Decimal { .. } | ColumnType::Year | ColumnType::Year2);
    if numeric && is_decimal(bytes) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let introducer = match column.charset.as_deref() {
        // MySQL 8 warns at every `_utf8mb3`. The bytes are the same in utf8mb4, and the column's charset wins over a literal's.
        Some("utf8mb3") if kind.is_text() && introduces("utf8mb3", bytes) => "_utf8mb4 ".to_owned(),
        Some(charset) if kind.is_text() && introduces(charset, bytes) => format!("_{charset} "),
        _ => String::new(),
    };
    if kind.is_text() || matches!(kind, ColumnType::Binary(_) | ColumnType::VarBinary | ColumnType::Blob) {
        let mut out = introducer;
        out.push_str("X'");
        for byte in bytes {
            let _ = write!(out, "{byte:02x}"); // writing to a String can't fail
        }
        out.push('\'');
        return out;
    }
    let mut out = Vec::new();
    sql::push_quoted(&mut out, bytes);
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether the charset's name may be written in front of these bytes: servers refuse bytes that are
/// not of the charset, yet old tables hold such. Without the introducer the bytes are taken as they are.
fn introduces(charset: &str, bytes: &[u8]) -> bool {
    let plain = !charset.is_empty() && charset.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let valid = if charset.starts_with("utf8") { std::str::from_utf8(bytes).is_ok() } else { charset != "ascii" || bytes.is_ascii() };
    plain && charset != "binary" && valid
}

/// An optional sign, digits, at most one point.
fn is_decimal(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    digits.iter().any(u8::is_ascii_digit)
        && digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        && digits.iter().filter(|byte| **byte == b'.').count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::names::TableName;

    fn column(name: &str, kind: ColumnType, charset: Option<&str>) -> Column {
        Column {
            name: name.into(),
            kind,
            type_text: String::new(),
            unsigned: false,
            zerofill: false,
            nullable: false,
            charset: charset.map(Into::into),
            collation: charset.map(|charset| format!("{charset}_general_ci")),
            auto_increment: false,
            generated: false,
        }
    }

    fn table(columns: Vec<Column>) -> Table {
        Table {
            name: TableName::new("school", "t"),
            engine: "InnoDB".into(),
            collation: "utf8_general_ci".into(),
            row_estimate: 0,
            data_bytes: 0,
            auto_increment: None,
            columns,
            indexes: vec![],
            foreign_keys: vec![],
            lookups_fail: false,
        }
    }

    fn key(parts: &[&[u8]]) -> Key {
        let row: Vec<Cell> = parts.iter().map(|part| Cell::Bytes(part.to_vec())).collect();
        Key::of(&row, &(0..row.len()).collect::<Vec<_>>())
    }

    #[test]
    fn keys_go_together_as_far_as_a_statement_takes_them() {
        let short: Vec<Key> = (0..1200).map(|number: u32| key(&[number.to_string().as_bytes()])).collect();
        assert_eq!(batches(&short, 500).map(<[Key]>::len).collect::<Vec<_>>(), [500, 500, 200]);
        let long: Vec<Key> = (0..100).map(|_| key(&[&[7; 3000]])).collect();
        let lengths: Vec<usize> = batches(&long, 500).map(<[Key]>::len).collect();
        assert!(lengths.iter().all(|&length| length < 50) && lengths.iter().sum::<usize>() == 100, "{lengths:?}");
        assert_eq!(batches(&[key(&[&[7; 300_000]])], 500).count(), 1);
        assert_eq!(batches(&[], 500).count(), 0);
    }

    #[test]
    fn a_composite_range_is_written_out() {
        let table = table(vec![column("a", ColumnType::Int, None), column("b", ColumnType::VarChar, Some("utf8"))]);
        let range = KeyRange { after: Some(key(&[b"1", "é".as_bytes()])), through: Some(key(&[b"2", b""])) };
        assert_eq!(
            condition_text(&table, &[0, 1], &range),
            "(`a` >= 1 AND (`a` > 1 OR (`a` = 1 AND `b` > _utf8 X'c3a9'))) AND (`a` <= 2 AND (`a` < 2 OR (`a` = 2 AND `b` <= _utf8 X'')))"
        );
    }

    #[test]
    fn hostile_values_and_charsets_stay_literals() {
        let table = table(vec![
            column("n", ColumnType::Int, None),
            column("t", ColumnType::VarChar, Some("utf8 X''; DROP TABLE t; --")),
            column("d", ColumnType::DateTime(0), None),
        ]);
        let range = KeyRange { after: Some(key(&[b"1 OR 1", b"'", b"' OR '"])), through: None };
        let condition = condition_text(&table, &[0, 1, 2], &range);
        assert!(
            condition.contains("`n` > '1 OR 1'") && condition.contains("`t` > X'27'") && condition.contains("`d` > '\\' OR \\''"),
            "{condition}"
        );
    }

    #[test]
    fn an_enum_is_compared_by_its_members() {
        let mut kind = column("e", ColumnType::Enum, None);
        kind.type_text = "enum('a','it''s','','c,d')".into();
        assert_eq!(members(&kind.type_text), Some(4));
        let table = table(vec![kind, column("id", ColumnType::Int, None)]);
        let range = KeyRange { after: Some(key(&[b"3", b"7"])), through: None };
        assert_eq!(condition_text(&table, &[0, 1], &range), "(`e` IN (3, 4) AND (`e` IN (4) OR (`e` = 3 AND `id` > 7)))");
        let last = KeyRange { after: Some(key(&[b"4"])), through: None };
        assert_eq!(condition_text(&table, &[0], &last), "0");
    }

    #[test]
    fn bytes_outside_the_charset_are_written_without_it() {
        let table = table(vec![column("t", ColumnType::VarChar, Some("utf8"))]);
        let range = KeyRange { after: Some(key(&[b"\xff"])), through: None };
        assert_eq!(condition_text(&table, &[0], &range), "`t` > X'ff'");
    }
}
