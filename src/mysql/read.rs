//! Reading the rows of a table: whole, by key range, or by keys.
//!
//! Rows come one by one as they arrive; nothing is collected, so memory does not depend on the
//! size of the table. Two forms of the same rows:
//!
//! * [`stream`] gives [`Row`]s of canonical [`Cell`]s, for comparing;
//! * [`stream_fields`] appends each row as a `LOAD DATA` line to the caller's buffer and gives only
//!   its key as cells, for copying. No cell is built for a value that is merely passed on.
//!
//! The text protocol is used wherever it is exact. It is not for FLOAT and DOUBLE (every version
//! prints FLOAT with six digits, 5.1 prints DOUBLE with fifteen), so a read that includes such a column
//! goes through a prepared statement and the binary protocol, and the values of all other columns
//! are asked for in a form that has the same bytes either way ([`sql::select_expression`]).
//!
//! A stream may be dropped before its end; the rest of the result is skipped when the session is used next.

use std::collections::VecDeque;

use mysql_async::prelude::Queryable;
use mysql_async::{BinaryProtocol, QueryResult, TextProtocol, Value};

use super::cell::{Cell, Key, Row};
use super::connect::Session;
use super::error::{MysqlError, Result};
use super::names::TableName;
use super::range::{self, KeyRange};
use super::sql;
use super::table::Table;

/// How many keys are looked up by one query.
pub const KEYS_PER_QUERY: usize = 500;

/// Which rows are read.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// All.
    Table,
    /// Those in a key range.
    Range(&'a KeyRange),
    /// Those with these keys, asked for in batches of [`KEYS_PER_QUERY`].
    Keys(&'a [Key]),
    /// Those whose `columns` hold one of these values, asked for in batches of [`KEYS_PER_QUERY`].
    Matching {
        /// Indexes into [`Table::columns`].
        columns: &'a [usize],
        /// The values, encoded as keys are.
        values: &'a [Key],
    },
}

/// In which order rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the server likes.
    Any,
    /// By the key, as the server's index sorts it (for keys: within a batch).
    ByKey,
}

/// The key's columns, or an error that names the table.
///
/// # Errors
/// If the table has no key.
pub fn key_columns(table: &Table) -> Result<Vec<usize>> {
    table.key().ok_or_else(|| MysqlError::Object {
        message: format!(
            "`{}` has no primary key and no unique key of NOT NULL columns, so its rows can't be addressed by key",
            table.name
        ),
        hint: "add a primary key, or treat the table as keyless (copied and compared as a whole)".to_owned(),
    })
}

/// Every column that holds data of its own: all but generated ones.
#[must_use]
pub fn stored_columns(table: &Table) -> Vec<usize> {
    (0..table.columns.len()).filter(|&index| !table.columns[index].generated).collect()
}

/// Starts reading `columns` (indexes into [`Table::columns`]) of the rows in `scope`. The rows' cells
/// are in the order of `columns`. The session must be one for reading or writing rows, not for the catalog.
///
/// # Errors
/// If the scope needs a key and the table has none, or the server refuses the query.
pub async fn stream<'s>(session: &'s mut Session, table: &Table, columns: &[usize], scope: &Scope<'_>, order: Order) -> Result<Rows<'s>> {
    stream_limited(session, table, columns, scope, order, None).await
}

pub(super) async fn stream_limited<'s>(
    session: &'s mut Session,
    table: &Table,
    columns: &[usize],
    scope: &Scope<'_>,
    order: Order,
    limit: Option<(u64, u64)>,
) -> Result<Rows<'s>> {
    let binary = columns.iter().any(|&column| table.columns[column].kind.is_float());
    let select: Vec<String> = columns.iter().map(|&column| sql::select_expression(&table.columns[column], binary)).collect();
    let answers = Answers::open(session, table, &select, binary, scope, order, limit).await?;
    Ok(Rows::of(answers))
}

/// Starts reading `columns` as `LOAD DATA` lines (see [`sql::push_field`]), with each row's key.
/// Key columns that are not among `columns` are read too but not put into the line.
///
/// # Errors
/// As [`stream`].
pub async fn stream_fields<'s>(
    session: &'s mut Session,
    table: &Table,
    columns: &[usize],
    scope: &Scope<'_>,
    order: Order,
) -> Result<FieldRows<'s>> {
    fields(session, table, columns, scope, order, Part::All).await
}

/// How much of a scope is read as lines, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    All,
    /// The first so many rows.
    First(u64),
    /// All of it or the first so many rows, put aside by the server first: an engine that locks whole tables lets go of this one as soon as
    /// that is done, however slowly the rows are taken.
    PutAside(Option<u64>),
}

/// As [`stream_fields`], but a part of the scope.
pub(super) async fn fields<'s>(
    session: &'s mut Session,
    table: &Table,
    columns: &[usize],
    scope: &Scope<'_>,
    order: Order,
    part: Part,
) -> Result<FieldRows<'s>> {
    let mut read = columns.to_vec();
    let mut key = Vec::new();
    for column in table.key().unwrap_or_default() {
        let place = read.iter().position(|&other| other == column).unwrap_or_else(|| {
            read.push(column);
            read.len() - 1
        });
        key.push(place);
    }
    let binary = read.iter().any(|&column| table.columns[column].kind.is_float());
    let mut select: Vec<String> = read.iter().map(|&column| sql::select_expression(&table.columns[column], binary)).collect();
    if matches!(part, Part::PutAside(_))
        && let Some(first) = select.first_mut()
    {
        first.insert_str(0, "SQL_BUFFER_RESULT ");
    }
    let limit = match part {
        Part::All => None,
        Part::First(rows) => Some((rows, 0)),
        Part::PutAside(rows) => rows.map(|rows| (rows, 0)),
    };
    let answers = Answers::open(session, table, &select, binary, scope, order, limit).await?;
    let limits = columns.iter().map(|&column| table.columns[column].float_limit()).collect();
    Ok(FieldRows { answers, limits, key })
}

/// The rows with these keys, each with its key *as stored*: where the collation calls two keys equal
/// that differ in bytes, the row found may have another key than the one asked for. The rows hold
/// every column of the table. Keys without a row are left out; the order is the server's.
///
/// # Errors
/// As [`stream`].
pub async fn by_keys(session: &mut Session, table: &Table, keys: &[Key]) -> Result<Vec<(Key, Row)>> {
    let key = key_columns(table)?;
    let columns: Vec<usize> = (0..table.columns.len()).collect();
    let mut rows = stream(session, table, &columns, &Scope::Keys(keys), Order::Any).await?;
    let mut found = Vec::with_capacity(keys.len());
    while let Some(row) = rows.next().await? {
        found.push((Key::of(&row, &key), row));
    }
    Ok(found)
}

/// A stream of rows as cells. See [`stream`].
pub struct Rows<'s> {
    answers: Answers<'s>,
}

impl<'s> Rows<'s> {
    pub(super) fn of(answers: Answers<'s>) -> Self {
        Rows { answers }
    }

    /// The next row, or `None` behind the last.
    ///
    /// # Errors
    /// If the connection breaks or the server stops the query: the rows so far are then not all rows.
    pub async fn next(&mut self) -> Result<Option<Row>> {
        let Some(row) = self.answers.next().await? else { return Ok(None) };
        let table = &self.answers.table;
        row.unwrap_raw().into_iter().map(|value| cell(value.ok_or_else(|| missing(table))?, table)).collect::<Result<Row>>().map(Some)
    }

    /// Appends the next row's canonical encoding ([`Cell::encode`]) to `out` without building cells;
    /// false behind the last row.
    ///
    /// # Errors
    /// As [`Rows::next`].
    pub async fn next_encoded(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let Some(row) = self.answers.next().await? else { return Ok(false) };
        for index in 0..row.len() {
            self.answers.encode(&row, index, out)?;
        }
        Ok(true)
    }
}

/// A stream of rows as `LOAD DATA` lines. See [`stream_fields`].
pub struct FieldRows<'s> {
    answers: Answers<'s>,
    /// One for each field: its column's [`Column::float_limit`](super::table::Column::float_limit).
    limits: Vec<Option<f64>>,
    key: Vec<usize>,
}

impl FieldRows<'_> {
    /// Appends the next row to `out`, fields separated by tabs and ended by a newline, and gives its
    /// key (no parts for a table without key); `None` behind the last row. To leave a row out, cut
    /// `out` back to its length before the call.
    ///
    /// # Errors
    /// As [`Rows::next`].
    pub async fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<Key>> {
        let Some(row) = self.answers.next().await? else { return Ok(None) };
        for index in 0..self.limits.len() {
            if index > 0 {
                out.push(b'\t');
            }
            match row.as_ref(index) {
                Some(Value::Bytes(bytes)) => sql::push_field_bytes(out, bytes),
                Some(Value::NULL) => sql::push_field(out, &Cell::Null, None),
                None => return Err(missing(&self.answers.table)),
                Some(other) => sql::push_field(out, &cell(other.clone(), &self.answers.table)?, self.limits[index]),
            }
        }
        out.push(b'\n');
        let mut key = Vec::with_capacity(self.key.len() * 16);
        for &index in &self.key {
            self.answers.encode(&row, index, &mut key)?;
        }
        Ok(Some(Key(key.into_boxed_slice())))
    }
}

/// The answers to one or more queries, one after the other, as the driver gives them. Which result is
/// being read is known to the connection itself, so nothing here borrows from it between rows.
pub(super) struct Answers<'s> {
    session: &'s mut Session,
    table: TableName,
    binary: bool,
    waiting: VecDeque<String>,
    /// A query of ours is under way. If not, what the connection may still hold is somebody else's result.
    asked: bool,
}

impl<'s> Answers<'s> {
    /// Asks for `select` expressions over the rows in `scope`.
    pub(super) async fn open(
        session: &'s mut Session,
        table: &Table,
        select: &[String],
        binary: bool,
        scope: &Scope<'_>,
        order: Order,
        limit: Option<(u64, u64)>,
    ) -> Result<Answers<'s>> {
        let waiting = queries(table, select, scope, order, limit)?;
        let mut answers = Answers { session, table: table.name.clone(), binary, waiting, asked: false };
        answers.ask().await?;
        Ok(answers)
    }

    /// Sends the next waiting query; false if there is none.
    async fn ask(&mut self) -> Result<bool> {
        let Some(query) = self.waiting.pop_front() else {
            self.asked = false;
            return Ok(false);
        };
        self.asked = true;
        self.session.reads(&self.table, &query)?;
        let sent = if self.binary {
            self.session.conn().exec_iter(query, ()).await.map(drop)
        } else {
            self.session.conn().query_iter(query).await.map(drop)
        };
        match sent {
            Ok(()) => Ok(true),
            Err(source) => Err(self.session.error(format!("reading `{}`", self.table), source)),
        }
    }

    /// Appends the encoding of one value of a row, without building a cell for what is bytes already.
    pub(super) fn encode(&self, row: &mysql_async::Row, index: usize, out: &mut Vec<u8>) -> Result<()> {
        match row.as_ref(index) {
            Some(Value::Bytes(bytes)) => {
                out.push(1);
                out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Some(value) => cell(value.clone(), &self.table)?.encode(out),
            None => return Err(missing(&self.table)),
        }
        Ok(())
    }

    pub(super) async fn next(&mut self) -> Result<Option<mysql_async::Row>> {
        while self.asked {
            let row = if self.binary {
                QueryResult::<'_, '_, BinaryProtocol>::new(self.session.conn()).next().await
            } else {
                QueryResult::<'_, '_, TextProtocol>::new(self.session.conn()).next().await
            };
            match row {
                Ok(Some(row)) => return Ok(Some(row)),
                Ok(None) => {
                    self.ask().await?;
                }
                Err(source) => {
                    self.waiting.clear();
                    self.asked = false;
                    return Err(self.session.error(format!("reading `{}`", self.table), source));
                }
            }
        }
        Ok(None)
    }
}

/// The queries for a scope: one, or one per batch of keys.
fn queries(table: &Table, select: &[String], scope: &Scope<'_>, order: Order, limit: Option<(u64, u64)>) -> Result<VecDeque<String>> {
    let select = if select.is_empty() { "1".to_owned() } else { select.join(", ") };
    let tail = |keys: &[usize]| {
        let mut tail = String::new();
        if order == Order::ByKey && !keys.is_empty() {
            // Qualified, so that no name of a selected expression can be meant.
            let columns: Vec<String> = keys
                .iter()
                .map(|&column| format!("{}.{}", sql::identifier(&table.name.table), sql::identifier(&table.columns[column].name)))
                .collect();
            tail.push_str(&format!(" ORDER BY {}", columns.join(", ")));
        }
        if let Some((rows, skip)) = limit {
            tail.push_str(&format!(" LIMIT {rows} OFFSET {skip}"));
        }
        tail
    };
    Ok(match scope {
        Scope::Table => {
            let keys = if order == Order::ByKey { key_columns(table)? } else { Vec::new() };
            let forced = if keys.is_empty() { String::new() } else { forced_index(table) };
            VecDeque::from([format!("SELECT {select} FROM {}{forced}{}", sql::table(&table.name), tail(&keys))])
        }
        Scope::Range(range) => {
            let keys = key_columns(table)?;
            VecDeque::from([format!(
                "SELECT {select} FROM {} WHERE {}{}",
                from(table),
                range::condition_text(table, &keys, range),
                tail(&keys)
            )])
        }
        Scope::Matching { columns, values } => range::batches(values, KEYS_PER_QUERY)
            .map(|batch| {
                format!("SELECT {select} FROM {} WHERE {}{}", sql::table(&table.name), range::one_of(table, columns, batch), tail(columns))
            })
            .collect(),
        Scope::Keys(wanted) => {
            let keys = key_columns(table)?;
            range::batches(wanted, KEYS_PER_QUERY)
                .map(|batch| format!("SELECT {select} FROM {} WHERE {}{}", from(table), range::one_of(table, &keys, batch), tail(&keys)))
                .collect()
        }
    })
}

/// The table in a FROM clause, held to the key's index: with a bad estimate an old optimizer sorts the whole table for every chunk.
pub(super) fn from(table: &Table) -> String {
    format!("{}{}", sql::table(&table.name), forced_index(table))
}

fn forced_index(table: &Table) -> String {
    table.key_index().map_or_else(String::new, |index| format!(" FORCE INDEX ({})", sql::identifier(&index.name)))
}

fn missing(table: &TableName) -> MysqlError {
    MysqlError::missing_value(&format!("reading `{table}`"))
}

/// A driver's value as a cell.
fn cell(value: Value, table: &TableName) -> Result<Cell> {
    Ok(match value {
        Value::NULL => Cell::Null,
        Value::Bytes(bytes) => Cell::Bytes(bytes),
        Value::Int(number) => Cell::Bytes(number.to_string().into_bytes()),
        Value::UInt(number) => Cell::Bytes(number.to_string().into_bytes()),
        Value::Float(value) => Cell::Float(value),
        Value::Double(value) => Cell::Double(value),
        Value::Date(..) | Value::Time(..) => {
            return Err(MysqlError::Object {
                message: format!("`{table}` has a column whose values came as binary dates; its description no longer fits the table"),
                hint: "the table was changed meanwhile; start the command again".to_owned(),
            });
        }
    })
}
