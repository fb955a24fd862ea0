//! The target's tables, made from what the source itself prints.
//!
//! `SHOW CREATE TABLE` is the one complete description a server gives of a table. It is cut into
//! tokens (so that a comment that reads like syntax stays a comment), put into parts, changed by
//! named rules, and written again. Every change is listed with the rule's name, and as a unified
//! diff. What no rule knows how to carry is an error that names the table, or is listed in
//! [`TargetSchema::not_carried`]; nothing is left out in silence.
//!
//! A table is created in three steps, for the copy's sake:
//!
//! 1. [`TableDdl::create`]: columns, the key that tells rows apart, and the indexes that following
//!    the source needs meanwhile (those under CASCADE and SET NULL foreign keys, and that of the
//!    AUTO_INCREMENT column, without which the server refuses the table);
//! 2. [`TableDdl::indexes`], once the rows are in: building an index at once is many times faster
//!    than growing it row by row;
//! 3. [`TableDdl::foreign_keys`], once all tables are in.
//!
//! Statements run in sessions whose `sql_mode` is empty ([`Purpose::Catalog`]), so that a default of
//! `0000-00-00` is taken as it is. [`execute`] runs them: a warning is an error unless it is one of
//! [`TOLERATED`], which say that something is deprecated, not that it is different.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `token` | tokens, quotes, comments |
//! | `statement` | a `CREATE TABLE` in parts |
//! | [`rules`] | the rules, and their registry |
//! | [`reference`](self::reference) | the page about them |
//! | `parts` | a printed table in named parts, to be compared |
//! | [`trial`] | every table tried on the target before the first one stays |

mod parts;
pub mod reference;
pub mod rules;
mod statement;
mod token;
pub mod trial;

use similar::TextDiff;

use super::catalog::Catalog;
#[cfg(doc)]
use super::connect::Purpose;
use super::connect::{Session, Version};
use super::conversion::ConvertedTables;
use super::definitions::records;
use super::error::{MysqlError, Result};
use super::names::TableName;
use super::sql;
use super::table::{ReferentialAction, Table};
pub use parts::{Part, parts};
use rules::Context;
pub use rules::charsets::names_on;
use statement::{CreateTable, Item, ItemKind};
use token::Unreadable;

/// What makes the target's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSchema {
    /// One `CREATE DATABASE IF NOT EXISTS` each.
    pub databases: Vec<DatabaseDdl>,
    /// Tables, parents before children.
    pub tables: Vec<TableDdl>,
    /// What the target will not have, and why: foreign keys here, objects that are not tables in [`super::objects`].
    pub not_carried: Vec<NotCarried>,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseDdl {
    /// Its name.
    pub name: String,
    /// The statement.
    pub create: String,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDdl {
    /// Its name.
    pub name: TableName,
    /// Creates it with what copying and following need.
    pub create: String,
    /// Adds the other indexes: one statement for all plain ones, then one for each FULLTEXT and
    /// SPATIAL index, of which InnoDB builds one at a time.
    pub indexes: Vec<String>,
    /// Adds the foreign keys, one statement each.
    pub foreign_keys: Vec<String>,
    /// What was changed.
    pub rules_fired: Vec<RuleFired>,
    /// The same as a unified diff of the source's statement and the whole of the target's; empty if nothing changed.
    pub diff: String,
    /// A digest of the source's definition ([`records::digest`]).
    pub definition: String,
    /// All of it, in parts.
    parts: CreateTable,
}

impl TableDdl {
    /// One statement for all of the table but its foreign keys, under this (quoted) name.
    fn whole(&self, name: &str) -> String {
        self.parts.render(name, |item| item.kind != ItemKind::ForeignKey)
    }
}

/// One change by one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFired {
    /// The rule's name.
    pub rule: &'static str,
    /// What was there.
    pub before: String,
    /// What is there now; empty if it was dropped.
    pub after: String,
}

/// Something the target will not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotCarried {
    /// `view`, `trigger`, `foreign key` …
    pub kind: String,
    /// Its full name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// Why a table's DDL could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DdlError {
    /// The source's statement is not understood.
    #[error("the definition of `{table}` can't be read: {why}")]
    Unreadable {
        /// The table.
        table: TableName,
        /// What is not understood.
        why: String,
    },
    /// No rule can carry something of it.
    #[error("`{table}` can't be created on the target as it is: {why}")]
    Refused {
        /// The table.
        table: TableName,
        /// What.
        why: String,
    },
}

impl From<DdlError> for MysqlError {
    fn from(error: DdlError) -> Self {
        MysqlError::Object {
            message: error.to_string(),
            hint: "change the table on the source, or leave it out with `exclude`; nothing was created".to_owned(),
        }
    }
}

/// What the target is, and what is wanted of it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The target's version.
    pub target: &'a Version,
    /// It refuses foreign keys to columns that are no unique key (`restrict_fk_on_non_standard_key`, MySQL 8.4 and later).
    pub standard_parents: bool,
    /// Tables whose text is converted.
    pub converted: Option<&'a ConvertedTables>,
}

impl<'a> From<&'a Version> for Wanted<'a> {
    /// As such a server is by itself, and nothing converted.
    fn from(target: &'a Version) -> Self {
        Wanted { target, standard_parents: target.mysql_from((8, 4, 0)), converted: None }
    }
}

impl TargetSchema {
    /// Reads every table's definition from the source and converts it for this target.
    ///
    /// # Errors
    /// If the source refuses a query; [`DdlError`] (as [`MysqlError::Object`]) for what can't be carried.
    pub async fn read<'a>(source: &mut Session, catalog: &Catalog, wanted: impl Into<Wanted<'a>>) -> Result<TargetSchema> {
        let wanted = wanted.into();
        source.run("SET SESSION sql_quote_show_create = 1", "asking for quoted names").await?;
        let mut schema = TargetSchema { databases: databases(catalog, wanted.target), tables: Vec::new(), not_carried: Vec::new() };
        for table in catalog.parents_first() {
            let query = format!("SHOW CREATE TABLE {}", sql::table(&table.name));
            let row = source.first(&query, &format!("reading the definition of `{}`", table.name)).await?;
            let statement = row.and_then(|row| row.into_iter().nth(1).flatten()).unwrap_or_default();
            let (ddl, mut left_out) = convert(table, &statement, catalog, wanted, &source.version)?;
            schema.tables.push(ddl);
            schema.not_carried.append(&mut left_out);
        }
        Ok(schema)
    }
}

fn databases(catalog: &Catalog, target: &Version) -> Vec<DatabaseDdl> {
    let statement = |name: &str, collation: &str| {
        let (charset, collation) = rules::charsets::names_on(target, collation);
        format!("CREATE DATABASE IF NOT EXISTS {} DEFAULT CHARACTER SET {charset} COLLATE {collation}", sql::identifier(name))
    };
    let databases = catalog.databases.iter().filter(|database| catalog.tables.keys().any(|table| table.database == database.name));
    databases.map(|database| DatabaseDdl { name: database.name.clone(), create: statement(&database.name, &database.collation) }).collect()
}

/// Converts one table's statement.
fn convert(
    table: &Table,
    statement: &str,
    catalog: &Catalog,
    wanted: Wanted<'_>,
    source: &Version,
) -> std::result::Result<(TableDdl, Vec<NotCarried>), DdlError> {
    let unreadable = |why: String| DdlError::Unreadable { table: table.name.clone(), why };
    if statement.contains(char::REPLACEMENT_CHARACTER) {
        return Err(unreadable("it holds bytes that are not UTF-8, in a comment or a default value".to_owned()));
    }
    let mut create = CreateTable::parse(statement).map_err(|Unreadable(why)| unreadable(why))?;
    let converted = wanted.converted.and_then(|converted| converted.get(&table.name));
    let context = Context {
        table: converted.map_or(table, |converted| &converted.target),
        converted,
        catalog,
        source,
        target: wanted.target,
        standard_parents: wanted.standard_parents,
    };
    let rules_fired = rules::apply(&mut create, &context)?;

    let quoted = sql::table(&table.name);
    let at_once = |item: &Item| needed_at_once(table, item);
    let alter = |items: Vec<String>| format!("ALTER TABLE {quoted}\n  {}", items.join(",\n  "));
    let later: Vec<&Item> = create.items.iter().filter(|item| item.is_index() && !at_once(item)).collect();
    let (special, plain): (Vec<&Item>, Vec<&Item>) = later.into_iter().partition(|item| item.kind == ItemKind::SpecialIndex);
    let mut indexes = Vec::new();
    if !plain.is_empty() {
        indexes.push(alter(plain.into_iter().map(rules::add_clause).collect()));
    }
    indexes.extend(special.into_iter().map(|item| alter(vec![rules::add_clause(item)])));

    let mut left_out = Vec::new();
    let mut foreign_keys = Vec::new();
    for item in create.items.iter().filter(|item| item.kind == ItemKind::ForeignKey) {
        let parent = table.foreign_keys.iter().find(|key| key.name == item.name).map(|key| &key.parent);
        match parent {
            Some(parent) if catalog.table(parent).is_some() => foreign_keys.push(alter(vec![rules::add_clause(item)])),
            Some(parent) => left_out.push(NotCarried {
                kind: "foreign key".to_owned(),
                name: format!("{}.{}", table.name, item.name),
                why: format!("it references `{parent}`, which is not moved"),
            }),
            None => return Err(unreadable(format!("the catalog does not know its foreign key `{}`", item.name))),
        }
    }

    let whole = create.render(&sql::identifier(&table.name.table), |_| true);
    let diff = if whole == statement {
        String::new()
    } else {
        TextDiff::from_lines(statement, &whole)
            .unified_diff()
            .header(&format!("source {}", table.name), &format!("target {}", table.name))
            .missing_newline_hint(false)
            .to_string()
    };
    let at_first = create.render(&quoted, at_once);
    let definition = records::digest(statement);
    let ddl = TableDdl { name: table.name.clone(), create: at_first, indexes, foreign_keys, rules_fired, diff, definition, parts: create };
    Ok((ddl, left_out))
}

/// Whether an item is part of the first statement.
fn needed_at_once(table: &Table, item: &Item) -> bool {
    match item.kind {
        ItemKind::Column | ItemKind::PrimaryKey | ItemKind::Check => return true,
        ItemKind::ForeignKey | ItemKind::SpecialIndex => return false,
        ItemKind::UniqueIndex | ItemKind::Index => {}
    }
    if table.key_index().is_some_and(|key| key.name == item.name) {
        return true;
    }
    let columns: Vec<Option<usize>> = rules::index_columns(item).iter().map(|name| table.column(name)).collect();
    let leads =
        |wanted: &[usize]| columns.len() >= wanted.len() && columns.iter().zip(wanted).all(|(column, wanted)| *column == Some(*wanted));
    let counts = table.columns.iter().position(|column| column.auto_increment).is_some_and(|counter| leads(&[counter]));
    let cascades = table.foreign_keys.iter().any(|key| {
        let changes_rows = [key.on_delete, key.on_update].iter().any(|action| *action != ReferentialAction::Restrict);
        changes_rows && leads(&key.columns)
    });
    counts || cascades
}

/// Warnings of DDL that change nothing: a number format or charset is deprecated (1287, 1681, 3719,
/// 3778, 4079), an index doubles another (1831), InnoDB adds a hidden column for its first FULLTEXT
/// index (124), MySQL 8 and later don't use a SPATIAL index of a column that may hold shapes of several reference systems (3674).
pub const TOLERATED: [u16; 8] = [124, 1287, 1681, 1831, 3674, 3719, 3778, 4079];

/// Runs one DDL statement; gives back the warnings that were tolerated.
///
/// # Errors
/// If the server refuses it, or warns of anything that is not [`TOLERATED`] (DDL can't be taken back:
/// the error says that the statement went through).
pub async fn execute(target: &mut Session, statement: &str, what: &str) -> Result<Vec<(u16, String)>> {
    let written = target.write_unchecked(statement.as_bytes(), what).await?;
    if written.warnings == 0 {
        return Ok(Vec::new());
    }
    let warnings = target.warnings().await?;
    let serious: Vec<String> =
        warnings.iter().filter(|(code, _)| !TOLERATED.contains(code)).map(|(code, text)| format!("{code} {text}")).collect();
    if serious.is_empty() {
        return Ok(warnings);
    }
    Err(MysqlError::Object {
        message: format!("{}: {what}: the server warned: {}", target.server(), serious.join("; ")),
        hint: "the statement itself went through; drop what it made on the target before trying again".to_owned(),
    })
}
