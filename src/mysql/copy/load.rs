//! Puts encoded rows into a table: `LOAD DATA LOCAL` from memory, or multi-row INSERT.
//!
//! No INSERT is longer than the target takes (`max_allowed_packet`); a row that is longer alone is an error that names it.
//!
//! Both take the same lines and never overwrite: a row whose key is there already is skipped and
//! counted. Every other warning means a changed value and is an error ([`judge`]).
//!
//! ENUM, SET and BIT travel as numbers, which `LOAD DATA` would read as text, and JSON is not taken from bytes without a charset; they go
//! through a variable and a cast.

use bytes::Bytes;
use futures_util::StreamExt;

use super::LoadPath;
use crate::mysql::apply::write::BYTES_PER_STATEMENT;
use crate::mysql::cell::Cell;
use crate::mysql::connect::{Session, Written};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::sql;
use crate::mysql::table::{ColumnType, Table};
use crate::mysql::tables::MovedTable;
use crate::mysql::well_formed::row_name;

/// What a load did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows that went in.
    pub inserted: u64,
    /// Rows that were there already.
    pub skipped: u64,
}

/// Bytes handed to the driver at a time.
const PIECE: usize = 64 << 10;
/// "Duplicate entry".
const DUPLICATE: u16 = 1062;
/// "Data truncated for column": said when an ENUM's error value is stored as such.
const TRUNCATED: u16 = 1265;

/// Which of the two ways this target takes.
///
/// # Errors
/// If `LOAD DATA` is demanded and the target does not allow it.
pub async fn choose(session: &mut Session, wanted: LoadPath) -> Result<LoadPath> {
    if wanted == LoadPath::Insert {
        return Ok(LoadPath::Insert);
    }
    let allowed = session.global_variable("local_infile").await?.is_some_and(|value| value.eq_ignore_ascii_case("on") || value == "1");
    match (wanted, allowed) {
        (_, true) => Ok(LoadPath::LoadData),
        (LoadPath::LoadData, false) => Err(MysqlError::Setting {
            server: session.server().to_string(),
            setting: "local_infile".to_owned(),
            expected: "ON".to_owned(),
            actual: "OFF".to_owned(),
            hint: "set it in the target's parameter group, or let the step use `load: auto`".to_owned(),
        }),
        (_, false) => Ok(LoadPath::Insert),
    }
}

/// Puts the lines (`rows` of them) into the table.
///
/// # Errors
/// As the server gives them; [`MysqlError::Warnings`] if a value would be changed.
pub async fn load(session: &mut Session, table: &MovedTable, path: LoadPath, lines: Bytes, rows: usize) -> Result<Loaded> {
    if rows == 0 {
        return Ok(Loaded::default());
    }
    match path {
        LoadPath::Insert => insert(session, table, &lines).await,
        LoadPath::Auto | LoadPath::LoadData => load_data(session, table, lines, rows).await,
    }
}

async fn load_data(session: &mut Session, table: &MovedTable, lines: Bytes, rows: usize) -> Result<Loaded> {
    let what = format!("loading {rows} rows into `{}`", table.name());
    let pieces = (0..lines.len()).step_by(PIECE).map(move |start| Ok(lines.slice(start..lines.len().min(start + PIECE))));
    session.conn().set_infile_handler(async move { Ok(futures_util::stream::iter(pieces).boxed()) });
    let written = session.write_unchecked(statement(table).as_bytes(), &what).await?;
    let counted = |label: &str| {
        let rest = written.info.split_once(label).map(|(_, rest)| rest.trim_start())?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    let records = counted("Records:").unwrap_or(rows as u64);
    let skipped = counted("Skipped:").unwrap_or_else(|| records.saturating_sub(written.affected));
    if records != rows as u64 {
        return Err(MysqlError::Warnings {
            server: session.server().to_string(),
            what,
            warnings: format!("{rows} rows were sent and {records} were read by the server"),
        });
    }
    judge(session, &table.table, &written, skipped, &what).await?;
    Ok(Loaded { inserted: records - skipped, skipped })
}

/// Warnings are fine only if each is a skipped duplicate or an ENUM's error value.
async fn judge(session: &mut Session, table: &Table, written: &Written, skipped: u64, what: &str) -> Result<()> {
    if written.warnings == 0 {
        return Ok(());
    }
    let warnings = session.warnings().await?;
    let enums: Vec<&str> =
        table.columns.iter().filter(|column| column.kind == ColumnType::Enum).map(|column| column.name.as_str()).collect();
    let mut duplicates = 0;
    let mut bad = Vec::new();
    for (code, text) in &warnings {
        match *code {
            DUPLICATE => duplicates += 1,
            TRUNCATED if enums.iter().any(|name| text.contains(&format!("'{name}'"))) => {}
            _ => bad.push(format!("{code} {text}")),
        }
    }
    if duplicates > skipped {
        bad.push(format!("{duplicates} duplicates but {skipped} skipped rows"));
    }
    // The server lists only so many; what it counted beyond has to be duplicates, all of them.
    let unseen = usize::from(written.warnings).saturating_sub(warnings.len());
    if unseen > 0 && u64::from(written.warnings) != skipped.min(u64::from(u16::MAX)) {
        bad.push(format!("{unseen} more that the server does not show"));
    }
    if bad.is_empty() {
        return Ok(());
    }
    bad.truncate(5);
    Err(MysqlError::Warnings { server: session.server().to_string(), what: what.to_owned(), warnings: bad.join("; ") })
}

fn statement(table: &MovedTable) -> String {
    let mut fields = Vec::new();
    let mut sets = Vec::new();
    for &index in &table.written {
        let column = &table.table.columns[index];
        let name = sql::identifier(&column.name);
        let variable = format!("@dbmove_{index}");
        let cast = match column.kind {
            kind if kind.by_number() => Some(format!("CAST({variable} AS UNSIGNED)")),
            ColumnType::Json => Some(format!("CONVERT({variable} USING utf8mb4)")),
            _ => None,
        };
        if let Some(cast) = cast {
            sets.push(format!("{name} = {cast}"));
            fields.push(variable);
        } else {
            fields.push(name);
        }
    }
    let set = if sets.is_empty() { String::new() } else { format!(" SET {}", sets.join(", ")) };
    format!(
        "LOAD DATA LOCAL INFILE 'dbmove' IGNORE INTO TABLE {} CHARACTER SET binary FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' ({}){set}",
        sql::table(table.name()),
        fields.join(", ")
    )
}

async fn insert(session: &mut Session, table: &MovedTable, lines: &[u8]) -> Result<Loaded> {
    let columns = &table.table.columns;
    let names = sql::columns(table.written.iter().map(|&column| &columns[column]));
    let head = format!("INSERT IGNORE INTO {} ({names}) VALUES ", sql::table(table.name()));
    let what = format!("inserting into `{}`", table.name());
    let most = session.packet().saturating_sub(2).min(BYTES_PER_STATEMENT);
    let mut loaded = Loaded::default();
    let mut rest = lines;
    while !rest.is_empty() {
        let mut statement = head.clone().into_bytes();
        let mut rows: u64 = 0;
        while !rest.is_empty() {
            let before = statement.len();
            let end = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
            if rows > 0 {
                statement.extend_from_slice(b", ");
            }
            let line = rest[..end].strip_suffix(b"\n").unwrap_or(&rest[..end]);
            let cells: Vec<Cell> = line.split(|&byte| byte == b'\t').map(field).collect();
            push_row(&mut statement, table, &cells);
            if rows > 0 && statement.len() > most {
                statement.truncate(before);
                break;
            }
            if !session.takes(statement.len()) {
                let of = format!("inserting a row of `{}` ({})", table.name(), name_of(table, &cells));
                return Err(session.too_long(of, statement.len(), true));
            }
            rows += 1;
            rest = &rest[end..];
        }
        let written = session.write_unchecked(&statement, &what).await?;
        let skipped = rows.saturating_sub(written.affected);
        judge(session, &table.table, &written, skipped, &what).await?;
        loaded.inserted += written.affected;
        loaded.skipped += skipped;
    }
    Ok(loaded)
}

/// How an error calls a row of which this was written.
fn name_of(table: &MovedTable, cells: &[Cell]) -> String {
    let place = |column: &usize| table.written.iter().position(|written| written == column);
    let key: Vec<Cell> = table.key.iter().flatten().filter_map(|column| cells.get(place(column)?).cloned()).collect();
    row_name(&table.table, &key)
}

/// A row of an INSERT. Floats are in the line as numbers and stay bare; everything else is a literal for its column.
fn push_row(statement: &mut Vec<u8>, table: &MovedTable, cells: &[Cell]) {
    statement.push(b'(');
    for (place, (&index, cell)) in table.written.iter().zip(cells).enumerate() {
        if place > 0 {
            statement.extend_from_slice(b", ");
        }
        let column = &table.table.columns[index];
        match cell {
            Cell::Bytes(number) if column.kind.is_float() => statement.extend_from_slice(number),
            cell => sql::push_literal(statement, cell, column),
        }
    }
    statement.push(b')');
}

/// A field of a `LOAD DATA` line, unescaped: the mirror of [`sql::push_field_bytes`].
fn field(text: &[u8]) -> Cell {
    if text == b"\\N" {
        return Cell::Null;
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'\\' || at + 1 == text.len() {
            bytes.push(text[at]);
            at += 1;
            continue;
        }
        bytes.push(match text[at + 1] {
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'0' => 0,
            other => other,
        });
        at += 2;
    }
    Cell::Bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_comes_back_as_it_was() {
        for bytes in [b"plain".to_vec(), b"a\tb\nc\\d\0e\rf\xff\\N".to_vec(), vec![], b"\\".to_vec(), b"NULL".to_vec()] {
            let mut line = Vec::new();
            sql::push_field_bytes(&mut line, &bytes);
            assert!(!line.contains(&b'\t') && !line.contains(&b'\n'));
            assert_eq!(field(&line), Cell::Bytes(bytes));
        }
        let mut line = Vec::new();
        sql::push_field(&mut line, &Cell::Null, None);
        assert_eq!(field(&line), Cell::Null);
    }
}
