//! The SQL that would make the target equal, for one row.
//!
//! It is shown in the report for a person to judge and run, so it depends on nothing of the
//! session it is pasted into except `sql_mode` without `NO_BACKSLASH_ESCAPES`: text that is not
//! plain ASCII is written as its bytes with the charset they are in. A statement that would get too
//! long is left out; `dbmove verify --repair` does not need it.

use std::fmt::Write as _;

use super::super::cell::{Cell, Row};
use super::super::sql;
use super::super::table::ColumnType;
use super::comparison::{Comparison, Pair, Side};
use crate::verify::difference::REPAIR_LENGTH;

/// `INSERT` of a source row, `times` times.
pub(super) fn insert(comparison: &Comparison, source: &Row, times: u64) -> Option<String> {
    let written: Vec<(&Pair, &Cell)> = written(comparison, source).collect();
    let names: Vec<String> = written.iter().map(|(pair, _)| name(comparison, pair)).collect();
    let values: Vec<String> = written.iter().map(|(pair, cell)| literal(comparison, Side::Source, pair, cell)).collect();
    let row = format!("({})", values.join(", "));
    let rows = vec![row; usize::try_from(times).ok().filter(|times| *times <= 1000)?];
    bounded(format!("INSERT INTO {} ({}) VALUES {}", table(comparison), names.join(", "), rows.join(", ")))
}

/// `DELETE` of a target row; `limit` for tables without key.
pub(super) fn delete(comparison: &Comparison, target: &Row, limit: Option<u64>) -> Option<String> {
    let condition = condition(comparison, target, limit.is_some())?;
    let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
    bounded(format!("DELETE FROM {} WHERE {condition}{limit}", table(comparison)))
}

/// `UPDATE` of a target row's columns (indexes into the comparison's pairs) to the source's values.
pub(super) fn update(comparison: &Comparison, source: &Row, target: &Row, columns: &[usize]) -> Option<String> {
    let set: Vec<String> = columns
        .iter()
        .map(|&index| (&comparison.pairs()[index], &source[index]))
        .filter(|(pair, _)| !comparison.column(Side::Target, pair).generated)
        .map(|(pair, cell)| format!("{} = {}", name(comparison, pair), literal(comparison, Side::Source, pair, cell)))
        .collect();
    if set.is_empty() {
        return None;
    }
    bounded(format!("UPDATE {} SET {} WHERE {}", table(comparison), set.join(", "), condition(comparison, target, false)?))
}

/// The row's place on the target: its key as the target has it, else every column. Floats are left out of the latter (`=` on them finds nothing reliably).
fn condition(comparison: &Comparison, target: &Row, whole_row: bool) -> Option<String> {
    let key = if whole_row { Vec::new() } else { comparison.key_columns(Side::Target).ok()? };
    let parts: Vec<String> = comparison
        .pairs()
        .iter()
        .zip(target)
        .filter(|(pair, _)| if whole_row { !comparison.column(Side::Target, pair).kind.is_float() } else { key.contains(&pair.target) })
        .map(|(pair, cell)| {
            let operator = if whole_row { "<=>" } else { "=" };
            let name = match comparison.column(Side::Target, pair).kind {
                // Compared with a text, JSON is never equal.
                ColumnType::Json => format!("CAST({} AS BINARY)", name(comparison, pair)),
                _ => name(comparison, pair),
            };
            format!("{name} {operator} {}", literal(comparison, Side::Target, pair, cell))
        })
        .collect();
    if parts.is_empty() { None } else { Some(parts.join(" AND ")) }
}

fn written<'a>(comparison: &'a Comparison, row: &'a Row) -> impl Iterator<Item = (&'a Pair, &'a Cell)> {
    comparison.pairs().iter().zip(row).filter(|(pair, _)| !comparison.column(Side::Target, pair).generated)
}

fn table(comparison: &Comparison) -> String {
    sql::table(&comparison.table(Side::Target).name)
}

fn name(comparison: &Comparison, pair: &Pair) -> String {
    sql::identifier(&comparison.column(Side::Target, pair).name)
}

fn literal(comparison: &Comparison, side: Side, pair: &Pair, cell: &Cell) -> String {
    let column = comparison.column(side, pair);
    match cell {
        Cell::Bytes(bytes) if !is_plain(bytes) => {
            let mut out = match comparison.arrives_in(side, pair) {
                Some(charset) if charset.bytes().all(|byte| byte.is_ascii_alphanumeric()) => format!("_{charset} X'"),
                _ if column.kind == ColumnType::Json => "_utf8mb4 X'".to_owned(),
                _ => "X'".to_owned(),
            };
            for byte in bytes {
                let _ = write!(out, "{byte:02x}"); // writing to a String can't fail
            }
            out.push('\'');
            out
        }
        // UCS-2 and the like hold plain-looking bytes that are not ASCII.
        Cell::Bytes(bytes) if comparison.arrives_in(side, pair).is_some_and(|charset| is_wide(&charset)) => {
            format!("_{} X'{}'", comparison.arrives_in(side, pair).unwrap_or_default(), hex::encode(bytes))
        }
        cell => {
            let mut out = Vec::new();
            match side {
                Side::Source => sql::push_stored(&mut out, cell, column),
                Side::Target => sql::push_literal(&mut out, cell, column),
            }
            String::from_utf8_lossy(&out).into_owned()
        }
    }
}

fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t'))
}

/// Charsets in which an ASCII character is not its ASCII byte.
pub(super) fn is_wide(charset: &str) -> bool {
    matches!(charset, "ucs2" | "utf16" | "utf16le" | "utf32")
}

fn bounded(statement: String) -> Option<String> {
    if statement.len() <= REPAIR_LENGTH { Some(statement + ";") } else { None }
}
