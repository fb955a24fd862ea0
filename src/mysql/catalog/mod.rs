//! What a server holds: databases, tables, columns, indexes, foreign keys, read in one pass.
//!
//! The catalog gives row events their meaning (signs, charsets, key columns), the copy its order and
//! sizes, and the apply its cascades. It is read from `information_schema` by one query per kind of
//! object, never per table: a 5.1 server opens every table for such a query, and 50,000 tables by
//! one query each would take hours.
//!
//! It works on MySQL 5.1 to 9.x and MariaDB. A column of a type that dbmove does not know is an
//! error that names it, because its values could not be carried exactly.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `read` | the queries |
//! | `column` | a column's type from what the server prints |
//! | `fingerprint` | one digest over the structure, to see that it changed |
//! | [`graph`] | who references whom: cascades, parents first |
//! | [`facts`] | a server's settings and our privileges on it |

mod column;
pub mod facts;
mod fingerprint;
pub mod graph;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use facts::ServerFacts;
pub use graph::{Cascade, CascadeEffect, ParentChange};

use super::names::TableName;
use super::table::Table;

/// A database and its defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Default charset.
    pub charset: String,
    /// Default collation.
    pub collation: String,
}

/// Kinds of objects that hold no rows of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum ObjectKind {
    /// A view.
    View,
    /// A stored procedure.
    Procedure,
    /// A stored function.
    Function,
    /// A trigger of a selected table.
    Trigger,
    /// A scheduled event.
    Event,
    /// A sequence (MariaDB).
    Sequence,
    /// A package or its body (MariaDB).
    Package,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::View => "view",
            ObjectKind::Procedure => "procedure",
            ObjectKind::Function => "function",
            ObjectKind::Trigger => "trigger",
            ObjectKind::Event => "event",
            ObjectKind::Sequence => "sequence",
            ObjectKind::Package => "package",
        })
    }
}

/// An object that holds no rows, by name. Only what our account may see is listed: triggers need the
/// TRIGGER privilege, events EVENT, routines SELECT on `mysql.proc` (8.0 and later: SHOW_ROUTINE).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct OtherObject {
    /// What it is.
    pub kind: ObjectKind,
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
}

/// What the selected part of a server holds.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Databases that hold selected tables, or could, by name.
    pub databases: Vec<Database>,
    /// The selected tables.
    pub tables: BTreeMap<TableName, Arc<Table>>,
    /// Selected views, triggers of selected tables, and every routine and event of the databases; sorted.
    pub others: Vec<OtherObject>,
    /// What [`Table`] has no place for but the structure includes: defaults, extras, options.
    details: BTreeMap<TableName, Vec<String>>,
}

impl Catalog {
    /// The table of that name.
    #[must_use]
    pub fn table(&self, name: &TableName) -> Option<&Arc<Table>> {
        self.tables.get(name)
    }

    /// Estimated data bytes of all tables.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.tables.values().fold(0, |sum, table| sum.saturating_add(table.data_bytes))
    }
}
