//! One side of the comparison: what its tables look like, and their rows in order.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use mysql_async::{BinaryProtocol, Conn, QueryResult, Value};

use super::{CompareError, Side};
use crate::mysql::sql;

/// The part of a long value that is shown, in bytes.
const SHOWN: usize = 60;

/// How a column is read and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// By bits.
    Float,
    /// By length and HEX: two expressions.
    Bytes,
    /// `number:hex`.
    Named,
    /// As the server's text of a number: ordered by number.
    Integer,
    /// As the server's text of something else.
    Text,
}

impl Reading {
    fn of(data_type: &str) -> Self {
        match data_type {
            "float" | "double" => Reading::Float,
            "enum" | "set" => Reading::Named,
            "bit" | "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Reading::Integer,
            "decimal" | "date" | "time" | "datetime" | "timestamp" | "year" => Reading::Text,
            _ => Reading::Bytes,
        }
    }
}

struct Column {
    name: String,
    data_type: String,
    reading: Reading,
}

impl Column {
    fn expression(&self) -> String {
        let name = sql::identifier(&self.name);
        match self.reading {
            Reading::Float => name,
            Reading::Bytes => format!("LENGTH({name}), HEX({name})"),
            Reading::Named => format!("CONCAT(CAST({name} AS UNSIGNED), ':', HEX({name}))"),
            Reading::Integer if self.data_type == "bit" => format!("CAST({name} + 0 AS CHAR)"),
            Reading::Integer | Reading::Text => format!("CAST({name} AS CHAR)"),
        }
    }

    fn order(&self) -> String {
        let name = sql::identifier(&self.name);
        match self.reading {
            Reading::Integer | Reading::Named | Reading::Float => name,
            Reading::Bytes | Reading::Text => format!("CAST({name} AS BINARY)"),
        }
    }
}

/// A table's columns and key.
pub(super) struct Layout {
    pub(super) table: String,
    columns: Vec<Column>,
    /// Indexes of the key's columns; empty if there is no usable one.
    key: Vec<usize>,
}

impl Layout {
    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    pub(super) fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    pub(super) fn column(&self, index: usize) -> &str {
        &self.columns[index].name
    }

    /// `column=value` of the key, or of all columns.
    pub(super) fn show_key(&self, row: &[Cell]) -> String {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let key = if self.key.is_empty() { &all } else { &self.key };
        key.iter().map(|&index| format!("{}={}", self.columns[index].name, row[index])).collect::<Vec<_>>().join(", ")
    }

    fn select(&self, database: &str) -> String {
        let list = self.columns.iter().map(Column::expression).collect::<Vec<_>>().join(", ");
        let order = self.key.iter().map(|&index| self.columns[index].order()).collect::<Vec<_>>().join(", ");
        let order = if order.is_empty() { order } else { format!(" ORDER BY {order}") };
        format!("SELECT {list} FROM {}.{}{order}", sql::identifier(database), sql::identifier(&self.table))
    }
}

/// A value as it was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell {
    /// NULL.
    Null,
    /// The bits of a FLOAT.
    Float(u32),
    /// The bits of a DOUBLE.
    Double(u64),
    /// Stored bytes, as HEX.
    Hex(Vec<u8>),
    /// The server's text.
    Text(Vec<u8>),
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Null => f.write_str("NULL"),
            Cell::Float(bits) => write!(f, "{:e} (bits {bits:08x})", f32::from_bits(*bits)),
            Cell::Double(bits) => write!(f, "{:e} (bits {bits:016x})", f64::from_bits(*bits)),
            Cell::Text(text) => f.write_str(&String::from_utf8_lossy(text)),
            Cell::Hex(digits) => {
                let length = digits.len() / 2;
                let shown = hex::decode(&digits[..digits.len().min(2 * SHOWN)]).unwrap_or_default();
                let more = if length > SHOWN { format!("… ({length} bytes)") } else { String::new() };
                match shown.iter().all(|byte| (b' '..=b'~').contains(byte)) {
                    true => write!(f, "'{}'{more}", String::from_utf8_lossy(&shown)),
                    false => write!(f, "0x{}{more}", hex::encode_upper(&shown)),
                }
            }
        }
    }
}

/// A part of a key, in the order in which the server was asked for rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyPart {
    Number(i128),
    Bytes(Vec<u8>),
}

/// One side's connection.
pub(super) struct Reader {
    conn: Conn,
    address: String,
    database: String,
}

impl Reader {
    pub(super) async fn connect(side: &Side) -> Result<Self, CompareError> {
        let (address, database) = (side.endpoint.address(), side.database.clone());
        match side.endpoint.connect_as_reader().await {
            Ok(conn) => Ok(Reader { conn, address, database }),
            Err(source) => Err(CompareError::Server { address, database, what: "connecting".to_owned(), source: Box::new(source) }),
        }
    }

    pub(super) async fn close(self) {
        // Everything was read; a goodbye that fails changes nothing.
        let _ = self.conn.disconnect().await;
    }

    pub(super) async fn tables(&mut self) -> Result<BTreeSet<String>, CompareError> {
        let query = "SELECT table_name FROM information_schema.tables WHERE table_schema = ? AND table_type = 'BASE TABLE'";
        let found: Result<Vec<String>, _> = self.conn.exec(query, (&self.database,)).await;
        Ok(found.map_err(|source| self.failed("its tables", source))?.into_iter().collect())
    }

    pub(super) async fn layout(&mut self, table: &str) -> Result<Layout, CompareError> {
        let columns: Result<Vec<(String, String)>, _> = self
            .conn
            .exec(
                "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
                (&self.database, table),
            )
            .await;
        let columns: Vec<Column> = columns
            .map_err(|source| self.failed(&format!("the columns of `{table}`"), source))?
            .into_iter()
            .map(|(name, data_type)| Column { name, reading: Reading::of(&data_type.to_lowercase()), data_type: data_type.to_lowercase() })
            .collect();
        let key: Result<Vec<String>, _> = self
            .conn
            .exec(
                "SELECT column_name FROM information_schema.statistics WHERE table_schema = ? AND table_name = ? AND index_name = 'PRIMARY' ORDER BY seq_in_index",
                (&self.database, table),
            )
            .await;
        let key = key.map_err(|source| self.failed(&format!("the key of `{table}`"), source))?;
        let key: Vec<usize> = key.iter().filter_map(|name| columns.iter().position(|column| column.name == *name)).collect();
        let usable = key.iter().all(|&index| columns[index].reading != Reading::Float);
        Ok(Layout { table: table.to_owned(), columns, key: if usable { key } else { Vec::new() } })
    }

    pub(super) async fn rows<'a>(&'a mut self, layout: &'a Layout) -> Result<Rows<'a>, CompareError> {
        let select = layout.select(&self.database);
        let Reader { conn, address, database } = self;
        match conn.exec_iter(select, ()).await {
            Ok(result) => Ok(Rows { result, layout, address, database, last: None, negative_zeros: 0 }),
            Err(source) => {
                let what = format!("table `{}`", layout.table);
                Err(CompareError::Server { address: address.clone(), database: database.clone(), what, source: Box::new(source) })
            }
        }
    }

    fn failed(&self, what: &str, source: mysql_async::Error) -> CompareError {
        CompareError::Server {
            address: self.address.clone(),
            database: self.database.clone(),
            what: what.to_owned(),
            source: Box::new(source),
        }
    }
}

/// A row: its key (empty without one) and its values.
pub(super) struct Row {
    pub(super) key: Vec<KeyPart>,
    pub(super) cells: Vec<Cell>,
}

/// The rows of a table, as they come.
pub(super) struct Rows<'a> {
    result: QueryResult<'a, 'static, BinaryProtocol>,
    layout: &'a Layout,
    address: &'a str,
    database: &'a str,
    last: Option<Vec<KeyPart>>,
    /// How many values so far were −0, which are given as 0.
    pub(super) negative_zeros: u64,
}

impl Rows<'_> {
    /// The next row. In a table with a key its key is above that of the row before, or this is an error.
    pub(super) async fn next(&mut self) -> Result<Option<Row>, CompareError> {
        let row = self.result.next().await.map_err(|source| CompareError::Server {
            address: self.address.to_owned(),
            database: self.database.to_owned(),
            what: format!("rows of table `{}`", self.layout.table),
            source: Box::new(source),
        })?;
        let Some(row) = row else { return Ok(None) };
        let mut cells = self.cells(row.unwrap_raw())?;
        for cell in &mut cells {
            let unsigned = match cell {
                Cell::Float(bits) if *bits == (-0.0f32).to_bits() => Cell::Float(0.0f32.to_bits()),
                Cell::Double(bits) if *bits == (-0.0f64).to_bits() => Cell::Double(0.0f64.to_bits()),
                _ => continue,
            };
            *cell = unsigned;
            self.negative_zeros += 1;
        }
        let key = self.layout.key.iter().map(|&index| self.key_part(index, &cells[index])).collect::<Result<Vec<_>, _>>()?;
        if self.layout.has_key() {
            if self.last.as_ref().is_some_and(|last| *last >= key) {
                let (table, address) = (self.layout.table.clone(), self.address.to_owned());
                return Err(CompareError::Order { table, address, key: self.layout.show_key(&cells) });
            }
            self.last = Some(key.clone());
        }
        Ok(Some(Row { key, cells }))
    }

    /// The cells of a row as the driver gave it; a value that is not there is none that is known.
    fn cells(&self, values: Vec<Option<Value>>) -> Result<Vec<Cell>, CompareError> {
        let mut values = values.into_iter();
        let mut next = || values.next().flatten();
        let mut cells = Vec::with_capacity(self.layout.columns.len());
        for column in &self.layout.columns {
            let cell = match (column.reading, next(), column.reading == Reading::Bytes) {
                (Reading::Float, Some(Value::Float(value)), _) => Cell::Float(value.to_bits()),
                (Reading::Float, Some(Value::Double(value)), _) => Cell::Double(value.to_bits()),
                (Reading::Bytes, Some(length), true) => match (length, next()) {
                    (Value::NULL, Some(Value::NULL)) => Cell::Null,
                    // HEX() gives NULL for what is larger than a packet: that must not pass for a match.
                    (Value::Int(length), Some(Value::Bytes(digits))) if u64::try_from(length) == Ok(digits.len() as u64 / 2) => {
                        Cell::Hex(digits)
                    }
                    (Value::UInt(length), Some(Value::Bytes(digits))) if length == digits.len() as u64 / 2 => Cell::Hex(digits),
                    (length, _) => return Err(self.unknown(&column.name, format!("length {length:?} without as many bytes"))),
                },
                (_, Some(Value::NULL), _) => Cell::Null,
                (Reading::Named | Reading::Integer | Reading::Text, Some(Value::Bytes(text)), _) => Cell::Text(text),
                (_, other, _) => return Err(self.unknown(&column.name, format!("{other:?}"))),
            };
            cells.push(cell);
        }
        Ok(cells)
    }

    fn key_part(&self, index: usize, cell: &Cell) -> Result<KeyPart, CompareError> {
        let column = &self.layout.columns[index];
        let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.split(':').next()?.parse().ok());
        match (column.reading, cell) {
            (Reading::Integer | Reading::Named, Cell::Text(text)) => match number(text) {
                Some(number) => Ok(KeyPart::Number(number)),
                None => Err(self.unknown(&column.name, cell.to_string())),
            },
            (_, Cell::Text(bytes) | Cell::Hex(bytes)) => Ok(KeyPart::Bytes(bytes.clone())),
            _ => Err(self.unknown(&column.name, cell.to_string())),
        }
    }

    fn unknown(&self, column: &str, what: String) -> CompareError {
        CompareError::Value { table: self.layout.table.clone(), address: self.address.to_owned(), column: column.to_owned(), what }
    }
}
