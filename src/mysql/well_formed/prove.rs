//! Reads the text of tables once and names the rows that do not fit.
//!
//! Tables with a key are read a range at a time: a MyISAM table can't be written to while it is read, and must not be for longer
//! than a moment. One without a key is read whole, as it is when it is copied.

use std::fmt::Write as _;
use std::sync::Arc;

use super::Form;
use crate::mysql::cell::Cell;
use crate::mysql::connect::{Session, Version};
use crate::mysql::conversion::ConvertedTables;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::TableName;
use crate::mysql::range::{self, KeyRange};
use crate::mysql::read::{self, Order, Scope};
use crate::mysql::table::Table;

/// Values of a table that are named.
const NAMED: usize = 20;

/// Bytes of a range, about.
const BYTES: u64 = 8 << 20;

/// Rows of a range at least and at most.
const ROWS: (u64, u64) = (20, 20_000);

/// A value that the target would not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its column.
    pub column: String,
    /// The row, by its key, for people.
    pub row: String,
    /// The place of the first byte that does not fit, from 1.
    pub byte: usize,
    /// It and the bytes behind it, at most eight, in hexadecimal.
    pub bytes: String,
    /// What the value would have to be.
    pub form: Form,
}

/// What was found in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongText {
    /// The table.
    pub table: TableName,
    /// The conversion on its way, if it has one.
    pub conversion: Option<String>,
    /// How many values do not fit.
    pub count: u64,
    /// The first of them.
    pub first: Vec<Wrong>,
}

impl WrongText {
    /// A sentence, and a line for each value that is named.
    #[must_use]
    pub fn words(&self) -> String {
        let form = self.first.first().map_or("text", |wrong| wrong.form.words());
        let mut words = match &self.conversion {
            Some(conversion) => {
                format!("`{}` can't be converted by `{conversion}`: {} of its values are no {form}", self.table, self.count)
            }
            None => format!("`{}` holds text that the target does not take: {} of its values are no {form}", self.table, self.count),
        };
        for Wrong { column, row, byte, bytes, .. } in &self.first {
            // Writing to a String can't fail.
            let _ = write!(words, "\n  column `{column}`, {row}: byte {byte} on is `{bytes}`");
        }
        let more = self.count - self.first.len() as u64;
        if more > 0 {
            let _ = write!(words, "\n  and {more} more");
        }
        words
    }

    /// What can be done about it.
    #[must_use]
    pub fn fix(&self) -> String {
        let out = match self.conversion {
            Some(_) => "take the table out of `charset`: then it arrives as it is",
            None => "leave the table out with `exclude`",
        };
        let column = self.first.first().map_or("column", |wrong| wrong.column.as_str());
        format!(
            "correct these values on the source (bytes that are latin1: `UPDATE … SET {column} = CONVERT(CAST({column} AS BINARY) USING latin1) WHERE …`); \
             or make the column VARBINARY or BLOB there, which holds any bytes, and text again only in a charset that they fit; or {out}"
        )
    }
}

/// Reads all text of these tables that the target looks at, and says which of it does not fit.
///
/// # Errors
/// If the source can't be read.
pub async fn find<'a>(
    source: &mut Session,
    tables: impl IntoIterator<Item = &'a Arc<Table>>,
    converted: &ConvertedTables,
    target: &Version,
) -> Result<Vec<WrongText>> {
    let mut found = Vec::new();
    for table in tables {
        let (conversion, holds, becomes) = match converted.get(&table.name) {
            Some(converted) => (Some(converted.conversion.to_string()), &converted.source, &converted.target),
            None => (None, table, table),
        };
        let forms: Vec<(usize, Form)> = becomes
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.kind.is_text() && !column.generated)
            .filter_map(|(place, column)| Some((place, Form::of(column.charset.as_deref(), target)?)))
            .collect();
        if !forms.is_empty() {
            let mut wrong = WrongText { table: table.name.clone(), conversion, count: 0, first: Vec::new() };
            look_through(source, holds, &forms, &mut wrong).await?;
            found.extend((wrong.count > 0).then_some(wrong));
        }
    }
    Ok(found)
}

/// As [`find`], and what is found is an error.
///
/// # Errors
/// If text does not fit: table, columns and rows are named. If the source can't be read.
pub async fn prove<'a>(
    source: &mut Session,
    tables: impl IntoIterator<Item = &'a Arc<Table>>,
    converted: &ConvertedTables,
    target: &Version,
) -> Result<()> {
    let found = find(source, tables, converted, target).await?;
    let Some(first) = found.first() else { return Ok(()) };
    let lines: Vec<String> = found.iter().map(WrongText::words).collect();
    Err(MysqlError::Object { message: format!("{}\nNothing was created", lines.join("\n")), hint: first.fix() })
}

async fn look_through(source: &mut Session, table: &Table, forms: &[(usize, Form)], wrong: &mut WrongText) -> Result<()> {
    let key = table.key().unwrap_or_default();
    let columns: Vec<usize> = key.iter().copied().chain(forms.iter().map(|(column, _)| *column)).collect();
    let average = table.data_bytes / table.row_estimate.max(1);
    let rows = (BYTES / average.max(1)).clamp(ROWS.0, ROWS.1);
    let mut after = None;
    loop {
        let through = if key.is_empty() { None } else { range::next_upper(source, table, after.as_ref(), rows).await? };
        let range = KeyRange { after: after.take(), through: through.clone() };
        let scope = if range.is_all() { Scope::Table } else { Scope::Range(&range) };
        let mut stream = read::stream(source, table, &columns, &scope, Order::Any).await?;
        while let Some(row) = stream.next().await? {
            for (cell, &(column, form)) in row[key.len()..].iter().zip(forms) {
                let Cell::Bytes(bytes) = cell else { continue };
                let Some(at) = form.first_wrong(bytes) else { continue };
                wrong.count += 1;
                if wrong.first.len() < NAMED {
                    wrong.first.push(Wrong {
                        column: table.columns[column].name.clone(),
                        row: row_name(table, &row[..key.len()]),
                        byte: at + 1,
                        bytes: hex::encode(&bytes[at..bytes.len().min(at + 8)]),
                        form,
                    });
                }
            }
        }
        after = through;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// A row by the cells of its key, for people.
#[must_use]
pub fn row_name(table: &Table, cells: &[Cell]) -> String {
    let key = table.key().unwrap_or_default();
    if key.is_empty() {
        return "in a table without a key".to_owned();
    }
    let part = |(column, cell): (&usize, &Cell)| {
        let value = match cell.as_bytes() {
            None => "NULL".to_owned(),
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if !text.contains(char::is_control) => text.to_owned(),
                _ => format!("0x{}", hex::encode(bytes)),
            },
        };
        format!("{} = {value}", table.columns[*column].name)
    };
    format!("row {}", key.iter().zip(cells).map(part).collect::<Vec<_>>().join(", "))
}
