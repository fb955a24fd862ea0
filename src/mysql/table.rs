//! What dbmove knows of a table: columns, keys, foreign keys. Filled by the catalog in one pass.

use serde::{Deserialize, Serialize};

use super::names::TableName;

/// A column's type, as far as values need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// TINYINT, one byte.
    TinyInt,
    /// SMALLINT, two bytes.
    SmallInt,
    /// MEDIUMINT, three bytes.
    MediumInt,
    /// INT, four bytes.
    Int,
    /// BIGINT, eight bytes.
    BigInt,
    /// FLOAT, four bytes.
    Float,
    /// DOUBLE, eight bytes.
    Double,
    /// DECIMAL(precision, scale).
    Decimal {
        /// All digits.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// DATE.
    Date,
    /// TIME with so many fractional digits.
    Time(u8),
    /// DATETIME with so many fractional digits.
    DateTime(u8),
    /// TIMESTAMP with so many fractional digits.
    Timestamp(u8),
    /// YEAR(4).
    Year,
    /// YEAR(2): two digits in print.
    Year2,
    /// CHAR.
    Char,
    /// VARCHAR.
    VarChar,
    /// BINARY(length): zero-padded to its length, in bytes.
    Binary(u32),
    /// VARBINARY.
    VarBinary,
    /// TINYTEXT … LONGTEXT.
    Text,
    /// TINYBLOB … LONGBLOB.
    Blob,
    /// ENUM.
    Enum,
    /// SET.
    Set,
    /// BIT(width).
    Bit(u8),
    /// GEOMETRY and its kinds.
    Geometry,
    /// JSON (MySQL 5.7 and later; MariaDB's is LONGTEXT).
    Json,
}

impl ColumnType {
    /// Whether its values are numbers to the server's parser and to dbmove (ENUM by index, SET and BIT by mask).
    #[must_use]
    pub fn is_integer(self) -> bool {
        use ColumnType::*;
        matches!(self, TinyInt | SmallInt | MediumInt | Int | BigInt)
    }
    /// FLOAT or DOUBLE.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, ColumnType::Float | ColumnType::Double)
    }
    /// ENUM, SET or BIT: read and written by their number.
    #[must_use]
    pub fn by_number(self) -> bool {
        matches!(self, ColumnType::Enum | ColumnType::Set | ColumnType::Bit(_))
    }
    /// Holds characters in a charset.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, ColumnType::Char | ColumnType::VarChar | ColumnType::Text)
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// The type as the server prints it: `int(10) unsigned`, `enum('a','b')`.
    pub type_text: String,
    /// UNSIGNED (integers, floats, decimals).
    pub unsigned: bool,
    /// ZEROFILL: printed with leading zeros.
    pub zerofill: bool,
    /// NULL is allowed.
    pub nullable: bool,
    /// Charset of text columns.
    pub charset: Option<String>,
    /// Collation of text columns.
    pub collation: Option<String>,
    /// AUTO_INCREMENT.
    pub auto_increment: bool,
    /// A generated column: never written. Virtual ones are not in row events of all servers.
    pub generated: bool,
}

impl Column {
    /// A column of tests: of this type, NOT NULL, and nothing else to it.
    #[cfg(test)]
    pub(crate) fn plain(name: &str, kind: ColumnType) -> Column {
        Column {
            name: name.to_owned(),
            kind,
            type_text: String::new(),
            unsigned: false,
            zerofill: false,
            nullable: false,
            charset: None,
            collation: None,
            auto_increment: false,
            generated: false,
        }
    }

    /// The largest value that FLOAT(M,D) and DOUBLE(M,D) take, figured as servers do; `None` for every other type.
    ///
    /// A FLOAT(10,3) keeps 9999999.999 as the nearest FLOAT, 10000000: more than the server takes when that is written again.
    #[must_use]
    pub fn float_limit(&self) -> Option<f64> {
        if !self.kind.is_float() {
            return None;
        }
        let (length, decimals) = self.type_text.split_once('(')?.1.split_once(')')?.0.split_once(',')?;
        let (length, decimals): (i32, i32) = (length.trim().parse().ok()?, decimals.trim().parse().ok()?);
        Some(10f64.powi(length - decimals) - 1.0 / 10f64.powi(decimals))
    }

    /// Whether two keys with different bytes in this column may be equal to the server.
    #[must_use]
    pub fn compares_by_collation(&self) -> bool {
        (self.kind.is_text() && self.collation.as_deref().is_none_or(|name| name != "binary")) || self.kind.is_float()
    }
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Its name; `PRIMARY` for the primary key.
    pub name: String,
    /// UNIQUE.
    pub unique: bool,
    /// `BTREE`, `HASH`, `FULLTEXT`, `SPATIAL`.
    pub method: String,
    /// Its parts in order.
    pub parts: Vec<IndexPart>,
}

/// A part of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPart {
    /// Index into [`Table::columns`].
    pub column: usize,
    /// Characters (bytes for binary columns) of a prefix key; `None` for the whole column.
    pub prefix: Option<u32>,
}

/// What the server does to child rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferentialAction {
    /// RESTRICT or NO ACTION: nothing happens to the child.
    Restrict,
    /// CASCADE.
    Cascade,
    /// SET NULL.
    SetNull,
}

/// A foreign key, as defined on the child table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The constraint's name.
    pub name: String,
    /// Columns of this (child) table: indexes into [`Table::columns`].
    pub columns: Vec<usize>,
    /// The parent.
    pub parent: TableName,
    /// The parent's columns, by name, in the same order.
    pub parent_columns: Vec<String>,
    /// ON DELETE.
    pub on_delete: ReferentialAction,
    /// ON UPDATE.
    pub on_update: ReferentialAction,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: TableName,
    /// `InnoDB`, `MyISAM` …
    pub engine: String,
    /// Default collation.
    pub collation: String,
    /// The server's estimate of rows.
    pub row_estimate: u64,
    /// The server's figure for data bytes (indexes not counted).
    pub data_bytes: u64,
    /// The next AUTO_INCREMENT value, where there is a counter.
    pub auto_increment: Option<u64>,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// Indexes, the primary key first.
    pub indexes: Vec<Index>,
    /// Foreign keys of this table.
    pub foreign_keys: Vec<ForeignKey>,
    /// The server itself misses rows of the table when they are asked for by key: MySQL 5.5 and 5.6 look into the wrong partition of
    /// one that is cut by LIST COLUMNS, for single keys and for ranges.
    pub lookups_fail: bool,
}

impl Table {
    /// The key by which rows are told apart: the primary key, else the shortest unique key whose
    /// columns are all NOT NULL and whole. Indexes into [`Table::columns`]; `None` for a keyless table, and for one whose rows can't be
    /// asked for by key ([`Table::lookups_fail`]): it is handled as if it had none, as a whole.
    #[must_use]
    pub fn key(&self) -> Option<Vec<usize>> {
        self.key_index().filter(|_| !self.lookups_fail).map(|index| index.parts.iter().map(|part| part.column).collect())
    }

    /// Whether a unique index is over exactly these columns, whole, in any order: what a foreign key may refer to everywhere.
    #[must_use]
    pub fn is_unique_over(&self, columns: &[String]) -> bool {
        let mut wanted: Vec<Option<usize>> = columns.iter().map(|name| self.column(name)).collect();
        wanted.sort_unstable();
        self.indexes.iter().filter(|index| index.unique).any(|index| {
            let mut parts: Vec<Option<usize>> = index.parts.iter().map(|part| part.prefix.is_none().then_some(part.column)).collect();
            parts.sort_unstable();
            parts == wanted
        })
    }

    /// The index behind [`Table::key`].
    #[must_use]
    pub fn key_index(&self) -> Option<&Index> {
        let usable = |index: &&Index| {
            index.unique
                && index
                    .parts
                    .iter()
                    .all(|part| part.prefix.is_none() && !self.columns[part.column].nullable && !self.columns[part.column].kind.is_float())
        };
        self.indexes.iter().filter(usable).min_by_key(|index| (index.name != "PRIMARY", index.parts.len()))
    }

    /// Unique indexes other than the one behind [`Table::key`].
    pub fn other_unique_indexes(&self) -> impl Iterator<Item = &Index> {
        let key = self.key_index().map(|index| index.name.as_str());
        self.indexes.iter().filter(move |index| index.unique && Some(index.name.as_str()) != key)
    }

    /// The column's place in [`Table::columns`].
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// Whether values of the table lose digits as text and so travel by the binary protocol.
    #[must_use]
    pub fn has_floats(&self) -> bool {
        self.columns.iter().any(|column| column.kind.is_float())
    }
}
