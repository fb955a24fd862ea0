//! Which columns of two tables are compared, and in which form.
//!
//! The two servers describe "the same" table differently, and most of that is no difference in data:
//! `int(10)` and `int`, `utf8` and `utf8mb3`, MyISAM and InnoDB, columns in another order, a column
//! that may be NULL on one side only, YEAR(2) and YEAR. So a comparison is made from both
//! descriptions, column by column and by name, and fixes for each side an expression whose value is
//! the same bytes if and only if the stored values are equal:
//!
//! * text of one charset (or of `utf8` and `utf8mb4`, whose bytes agree) is compared as stored bytes.
//!   Of two charsets, both sides are converted to Unicode. Never one side to the other's charset:
//!   that conversion may turn what does not fit into `?`, and would hide that the copy did the same;
//! * ENUM and SET are compared by number, unless only one side is one: then by their text;
//! * temporal values with more fractional digits on one side are padded with zeros;
//! * everything else is read as [`super::super::cell::Cell`] defines.
//!
//! A key whose columns need such a conversion has different bytes on the two sides and can't address
//! a row on both: the table is then compared as if it had no key ([`Comparison::has_key`]).
//!
//! What can't be compared this way is in [`Comparison::left_out`], for the report: never silently.

use super::super::connect::Session;
use super::super::error::{MysqlError, Result};
use super::super::names::TableName;
use super::super::read;
use super::super::sql;
use super::super::table::{Column, ColumnType, Table};
use crate::verify::report::NotCompared;

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The store data leaves.
    Source,
    /// The store data goes to.
    Target,
}

/// A pair of tables, made comparable.
#[derive(Clone, Debug)]
pub struct Comparison {
    source: Table,
    target: Table,
    pairs: Vec<Pair>,
    key: Option<Vec<usize>>,
    left_out: Vec<NotCompared>,
}

/// A pair of columns that is compared.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// Index into the source's columns.
    pub source: usize,
    /// Index into the target's columns.
    pub target: usize,
    /// NULL is possible on at least one side.
    pub nullable: bool,
    /// How values are made equal.
    pub form: Form,
}

/// How a pair of columns is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As its cell: numbers, dates, bytes, text of one charset.
    Cell,
    /// As text in Unicode.
    Unicode,
    /// As text with so many fractional digits.
    Fraction(u8),
}

impl Comparison {
    /// From both sides' descriptions of one table.
    ///
    /// # Errors
    /// If they have no column in common, or the key of the source is not a key of the target.
    pub fn between(source: &Table, target: &Table) -> Result<Comparison> {
        let mut pairs = Vec::new();
        let mut left_out = Vec::new();
        let mut leave_out = |column: &Column, why: &str| {
            left_out.push(NotCompared { object: format!("{}.{}", source.name, column.name), why: why.to_owned() });
        };
        for (index, column) in source.columns.iter().enumerate() {
            let Some(other_index) = target.column(&column.name) else {
                leave_out(column, "the target's table has no such column");
                continue;
            };
            let other = &target.columns[other_index];
            if column.kind.is_float() && other.kind.is_float() && column.kind != other.kind {
                leave_out(column, "FLOAT on one side and DOUBLE on the other: equal values have different digits");
                continue;
            }
            if column.kind.is_float() != other.kind.is_float() {
                leave_out(column, "a floating-point column on one side only: its text is not exact");
                continue;
            }
            pairs.push(Pair { source: index, target: other_index, nullable: column.nullable || other.nullable, form: form(column, other) });
        }
        for column in &target.columns {
            if source.column(&column.name).is_none() {
                leave_out(column, "the source's table has no such column");
            }
        }
        if pairs.is_empty() {
            return Err(MysqlError::Object {
                message: format!("`{}` on the source and `{}` on the target have no column in common", source.name, target.name),
                hint: "compare the two schemas first".to_owned(),
            });
        }
        let same_bytes = |column: &usize| pairs.iter().any(|pair| pair.source == *column && pair.form == Form::Cell);
        let key = source.key().filter(|key| key.iter().all(same_bytes));
        if let Some(key) = &key {
            let named = |table: &Table, columns: &[usize]| {
                columns.iter().map(|&column| table.columns[column].name.to_lowercase()).collect::<Vec<_>>()
            };
            let found = target.key().map(|other| named(target, &other));
            if found != Some(named(source, key)) {
                return Err(MysqlError::Object {
                    message: format!(
                        "`{}` is told apart by ({}) on the source, but not on the target",
                        source.name,
                        named(source, key).join(", ")
                    ),
                    hint: "give both tables the same primary key; nothing was compared".to_owned(),
                });
            }
        }
        Ok(Comparison { source: source.clone(), target: target.clone(), pairs, key, left_out })
    }

    /// The table as that side describes it.
    #[must_use]
    pub fn table(&self, side: Side) -> &Table {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// The source's name of the table, by which differences are reported.
    #[must_use]
    pub fn name(&self) -> &TableName {
        &self.source.name
    }

    /// Whether rows are told apart by a key that has the same bytes on both sides. If not, the table is
    /// compared by [`super::keyless::compare`].
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether a compared column is FLOAT or DOUBLE.
    #[must_use]
    pub fn has_floats(&self) -> bool {
        self.pairs.iter().any(|pair| self.source.columns[pair.source].kind.is_float())
    }

    /// What is not compared, and why.
    #[must_use]
    pub fn left_out(&self) -> &[NotCompared] {
        &self.left_out
    }

    pub(super) fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    pub(super) fn column(&self, side: Side, pair: &Pair) -> &Column {
        match side {
            Side::Source => &self.source.columns[pair.source],
            Side::Target => &self.target.columns[pair.target],
        }
    }

    /// The key's columns on that side, in the key's order.
    pub(super) fn key_columns(&self, side: Side) -> Result<Vec<usize>> {
        if self.key.is_none() && self.source.key().is_some() {
            return Err(MysqlError::Object {
                message: format!("the key of `{}` has another charset on the target, so a row has no common address", self.name()),
                hint: "compare the table as one without key".to_owned(),
            });
        }
        read::key_columns(self.table(side))
    }

    /// The expression that gives a compared value on that side; `binary` as for [`sql::select_expression`].
    pub(super) fn expression(&self, side: Side, pair: &Pair, binary: bool) -> String {
        let column = self.column(side, pair);
        let name = sql::identifier(&column.name);
        match pair.form {
            Form::Cell => sql::select_expression(column, binary),
            Form::Unicode => format!("CONVERT({name} USING {})", unicode(column)),
            Form::Fraction(digits) => {
                let own = fraction(column.kind).unwrap_or(0);
                let zeros = "0".repeat(usize::from(digits.saturating_sub(own)));
                let point = if own == 0 && digits > 0 { "." } else { "" };
                format!("CONCAT(CAST({name} AS CHAR), '{point}{zeros}')")
            }
        }
    }

    /// The charset a compared text value arrives in, for showing it and writing it back; `None` for anything but text.
    pub(super) fn arrives_in(&self, side: Side, pair: &Pair) -> Option<String> {
        let column = self.column(side, pair);
        match pair.form {
            Form::Unicode => Some(unicode(column).to_owned()),
            _ if column.kind.is_text() => column.charset.clone(),
            _ => None,
        }
    }

    /// SELECT list of a side: the key's columns, then the compared ones. Also how many belong to the
    /// key, and whether the binary protocol is needed.
    pub(super) fn select(&self, side: Side, with_key: bool) -> Result<(Vec<String>, usize, bool)> {
        let binary = self.has_floats();
        let table = self.table(side);
        let key = if with_key && self.has_key() { self.key_columns(side)? } else { Vec::new() };
        let mut select: Vec<String> = key.iter().map(|&column| sql::select_expression(&table.columns[column], binary)).collect();
        select.extend(self.pairs.iter().map(|pair| self.expression(side, pair, binary)));
        Ok((select, key.len(), binary))
    }

    /// The error for a session on the wrong kind of table or with a NULL hash.
    pub(super) fn failed(&self, session: &Session, what: &str) -> MysqlError {
        MysqlError::Object {
            message: format!("{}: `{}`: {what}", session.server(), self.name()),
            hint: "compare this table with the `client` method".to_owned(),
        }
    }
}

fn form(source: &Column, target: &Column) -> Form {
    let listed = |column: &Column| matches!(column.kind, ColumnType::Enum | ColumnType::Set);
    if (source.kind.is_text() && target.kind.is_text() && family(source) != family(target))
        || (listed(source) != listed(target) && (source.kind.is_text() || target.kind.is_text()))
    {
        return Form::Unicode;
    }
    match (fraction(source.kind), fraction(target.kind)) {
        (Some(a), Some(b)) if a != b => Form::Fraction(a.max(b)),
        _ => Form::Cell,
    }
}

/// Charsets whose bytes agree are one family.
fn family(column: &Column) -> &str {
    match column.charset.as_deref().unwrap_or("binary") {
        "utf8" | "utf8mb3" | "utf8mb4" | "ascii" => "utf8",
        other => other,
    }
}

/// The Unicode charset that holds all of the column's charset and that the column's server knows.
fn unicode(column: &Column) -> &'static str {
    match column.charset.as_deref() {
        Some("utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030") => "utf8mb4",
        // `utf8mb4` is unknown before 5.5.3, and for these charsets gives the same bytes.
        _ => "utf8",
    }
}

fn fraction(kind: ColumnType) -> Option<u8> {
    match kind {
        ColumnType::Time(digits) | ColumnType::DateTime(digits) | ColumnType::Timestamp(digits) => Some(digits),
        _ => None,
    }
}
