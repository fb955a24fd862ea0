//! Whether the target's tables are what the source's became by the rules of [`ddl`](crate::mysql::ddl): what rows can't show.
//!
//! # What must hold
//!
//! A definition is right if it is what the target's own server makes of the statements dbmove derives from the source. Two servers
//! print one table differently in a hundred ways, and a list of those ways would be wrong one day; but one server prints
//! equal tables equally. So the table is made once more, empty, as a TEMPORARY table of one session on the target, by the statements that made the
//! real one, and both are printed by the same server and compared part by part ([`ddl::parts`]): columns (type, NULL,
//! default, charset, collation, comment), keys, checks, engine, options, partitions. It sees what was wrong from the beginning as well as what was
//! changed since.
//!
//! * Foreign keys can't be on a temporary table; both catalogs tell them, with their rules.
//! * What can't be temporary on this server (partitions, FULLTEXT) is made in `_dbmove`, as a table named [`SCRATCH`], and dropped again. Left behind by a
//!   crash it is dropped by the next comparison, and with `_dbmove` at the latest.
//! * A database made by dbmove has the source's default collation. A column of a type that dbmove does not know is a difference as any other.
//! * A table that is missing, and one in the selected part of the target that the source does not have, is a difference of its own.
//! * An AUTO_INCREMENT counter can't be compared with the source's while that is in use: a rolled-back INSERT moves it and is in no log. But it must not
//!   be below what it was raised to when the rows were in ([`counters`](crate::mysql::counters)), unless the source's own is, too.
//!
//! At the fence every second counts: only tables whose facts in the catalog are not those of the full comparison are looked at.

use std::collections::{BTreeMap, BTreeSet};

use similar::TextDiff;
use tokio_util::sync::CancellationToken;

use super::Verifier;
use crate::mysql::bookkeeping::{self, own_table};
use crate::mysql::catalog::Catalog;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::counters::{self, Counters};
use crate::mysql::ddl::{Part, TableDdl, names_on, parts};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::TableName;
use crate::mysql::sql;
use crate::mysql::table::{ReferentialAction, Table};
use crate::verify::StructureDifference;
use crate::verify::report::{NotCompared, Verification};

/// The table's name while it is made once more.
const SCRATCH: &str = "dbmove_structure";

/// Things that do not move named at most.
const OUTSIDE: usize = 1000;

/// What was found beside the rows.
#[derive(Debug, Default)]
pub struct Structure {
    /// What differs.
    pub differences: Vec<StructureDifference>,
    /// What could not be compared, and why.
    pub not_compared: Vec<NotCompared>,
    /// What is in the databases that move and does not move itself, and why.
    pub outside: Vec<NotCompared>,
    /// The facts in the target's catalog as they were compared, by the table's quoted name: a digest.
    pub seen: BTreeMap<String, String>,
    /// How many tables' definitions are as compared: now, or before with the catalog's facts unchanged since.
    pub tables: u64,
}

impl Structure {
    /// Adds it to what was found of the rows.
    pub fn into_verification(self, verification: &mut Verification) {
        verification.structure.extend(self.differences);
        verification.not_compared.extend(self.not_compared);
        verification.outside = self.outside;
        verification.structure_seen = self.seen;
        verification.structure_tables = self.tables;
    }
}

impl Verifier {
    /// Compares the structure of every table, or of those whose facts are not as `seen` before.
    ///
    /// # Errors
    /// As the target gives them.
    pub async fn structure(
        &self,
        seen: Option<&BTreeMap<String, String>>,
        floor: &Counters,
        cancel: &CancellationToken,
    ) -> Result<Structure> {
        let mut found = Structure::default();
        let ours: BTreeSet<&TableName> = self.described.catalog.tables.keys().collect();
        for (name, table) in self.target_catalog.tables.iter().filter(|(name, _)| !ours.contains(name)) {
            let has = format!("a table of {} columns, about {} rows", table.columns.len(), table.row_estimate);
            found.differences.push(StructureDifference::new(name, "table", None, Some(has)));
        }
        let mut session = Session::open(&self.store.target, Purpose::Catalog).await?;
        session.run("SET SESSION sql_quote_show_create = 1, foreign_key_checks = 0", "setting up the session").await?;
        for ddl in &self.described.schema.tables {
            if cancel.is_cancelled() {
                return Err(MysqlError::Cancelled);
            }
            let Some(source) = self.described.catalog.table(&ddl.name) else { continue };
            let Some(target) = self.target_catalog.table(&ddl.name) else {
                let has = format!("a table of {} columns", source.columns.len());
                found.differences.push(StructureDifference::new(&ddl.name, "table", Some(has), None));
                continue;
            };
            let facts = self.target_catalog.table_fingerprint(&ddl.name).unwrap_or_default();
            let changed = seen.is_none_or(|seen| seen.get(&sql::table(&ddl.name)) != Some(&facts));
            found.seen.insert(sql::table(&ddl.name), facts);
            found.tables += 1;
            if changed {
                self.definition(&mut session, ddl, &mut found).await?;
                foreign_keys(source, target, &self.described.catalog, &mut found.differences);
            }
        }
        let own = bookkeeping::created(&mut session, &self.store.name).await?;
        session.close().await;
        found.outside = self.outside().await?;
        self.default_collations(&own, &mut found);
        let (source, target) = counters::both(&self.store).await?;
        found.differences.extend(behind(floor, &source, &target));
        found.differences.sort_by(|a, b| (&a.object, &a.what).cmp(&(&b.object, &b.what)));
        Ok(found)
    }

    /// The databases' default collations, and with them their character sets: what tables made later get. A database that was on
    /// the target before keeps its own; that is said, and no difference.
    fn default_collations(&self, own: &[TableName], found: &mut Structure) {
        let moved = self.described.schema.databases.iter().map(|database| &database.name);
        for name in moved {
            let of =
                |catalog: &Catalog| catalog.databases.iter().find(|database| database.name == *name).map(|found| found.collation.clone());
            let Some(source) = of(&self.described.catalog) else { continue };
            let (_, expected) = names_on(&self.described.target.version, &source);
            let there = of(&self.target_catalog);
            if there.as_ref() == Some(&expected) {
                continue;
            }
            if own.iter().any(|made| made.table.is_empty() && made.database == *name) || there.is_none() {
                found.differences.push(StructureDifference::new(name, "default collation", Some(expected), there));
            } else {
                let why = format!(
                    "it was on the target before, with the default collation {}; on the source it is {expected}",
                    there.unwrap_or_default()
                );
                found.outside.push(NotCompared { object: name.clone(), why });
            }
        }
    }

    /// What the source's databases hold beside what moves.
    async fn outside(&self) -> Result<Vec<NotCompared>> {
        let mut session = Session::open(&self.store.source, Purpose::Catalog).await?;
        let databases: Vec<String> = self.described.schema.databases.iter().map(|database| sql::text(&database.name)).collect();
        let query = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA IN ({}) ORDER BY 1, 2",
            databases.join(", ")
        );
        let rows = session.rows(&query, "listing the source's tables").await?;
        session.close().await;
        let names = rows.iter().map(|row| TableName::new(bookkeeping::text(row, 0), bookkeeping::text(row, 1)));
        let mut outside: Vec<NotCompared> = names
            .filter(|name| self.described.catalog.table(name).is_none())
            .map(|name| {
                let selected = self.store.selection.contains(&name.database, &name.table);
                let why =
                    if selected { "it was made after this run read the source's catalog" } else { "`include` and `exclude` leave it out" };
                NotCompared { object: name.to_string(), why: why.to_owned() }
            })
            .collect();
        let objects = self.described.schema.not_carried.iter();
        outside.extend(objects.map(|left| NotCompared { object: format!("{} {}", left.kind, left.name), why: left.why.clone() }));
        outside.truncate(OUTSIDE);
        Ok(outside)
    }

    /// One table's definition, printed by the target and made there once more.
    async fn definition(&self, session: &mut Session, ddl: &TableDdl, found: &mut Structure) -> Result<()> {
        let name = &ddl.name;
        let shown = show(session, &sql::table(name), &sql::identifier(&name.table)).await?;
        let expected = match expected(session, ddl).await {
            Ok(expected) => expected,
            Err(error) if error.transient() => return Err(error),
            Err(error) => {
                let why = format!("its definition could not be made once more to compare it: {error}");
                found.not_compared.push(NotCompared { object: name.to_string(), why });
                return Ok(());
            }
        };
        match (parts(&expected), parts(&shown)) {
            (Ok(expected), Ok(shown)) => compare(name, &expected, &shown, &mut found.differences),
            // What this reads no more, the server still prints: compare that.
            _ if expected == shown => {}
            _ => {
                let whole = StructureDifference::new(name, "definition", Some(expected.clone()), Some(shown.clone()));
                found.differences.push(StructureDifference { diff: unified(name, &expected, &shown), ..whole });
            }
        }
        Ok(())
    }
}

/// What the target prints of the table that the source's definition makes there.
async fn expected(session: &mut Session, ddl: &TableDdl) -> Result<String> {
    let temporary = TableName::new(&ddl.name.database, SCRATCH);
    let made = make(session, ddl, "CREATE TEMPORARY TABLE", &sql::table(&temporary)).await;
    let (printed, dropping) = match made {
        Ok(()) => (show(session, &sql::table(&temporary), &sql::identifier(SCRATCH)).await, "DROP TEMPORARY TABLE IF EXISTS"),
        Err(error) if error.transient() => return Err(error),
        Err(_) => {
            session.run(&format!("DROP TEMPORARY TABLE IF EXISTS {}", sql::table(&temporary)), "dropping a table made to compare").await?;
            let real = own_table(SCRATCH);
            session.run(&format!("DROP TABLE IF EXISTS {real}"), "dropping a table made to compare").await?;
            let made = make(session, ddl, "CREATE TABLE", &real).await;
            let printed = match made {
                Ok(()) => show(session, &real, &sql::identifier(SCRATCH)).await,
                Err(error) => Err(error),
            };
            session.run(&format!("DROP TABLE IF EXISTS {real}"), "dropping a table made to compare").await?;
            (printed, "")
        }
    };
    if !dropping.is_empty() {
        session.run(&format!("{dropping} {}", sql::table(&temporary)), "dropping a table made to compare").await?;
    }
    // Checks without a name get one that begins with the table's.
    Ok(printed?.replace(&format!("`{SCRATCH}_chk_"), &format!("`{}_chk_", ddl.name.table.replace('`', "``"))))
}

/// Runs the statements that made the real table, for one of another name.
async fn make(session: &mut Session, ddl: &TableDdl, create: &str, name: &str) -> Result<()> {
    let real = sql::table(&ddl.name);
    let unexpected = || MysqlError::Object {
        message: format!("the statements that make `{}` do not begin as they should", ddl.name),
        hint: "this is a fault in dbmove: please report it with the table's definition".to_owned(),
    };
    let what = format!("making `{}` once more to compare it", ddl.name);
    let rest = ddl.create.strip_prefix(&format!("CREATE TABLE {real}")).ok_or_else(unexpected)?;
    session.write_unchecked(format!("{create} {name}{rest}").as_bytes(), &what).await?;
    for index in &ddl.indexes {
        let rest = index.strip_prefix(&format!("ALTER TABLE {real}")).ok_or_else(unexpected)?;
        session.write_unchecked(format!("ALTER TABLE {name}{rest}").as_bytes(), &what).await?;
    }
    Ok(())
}

/// `SHOW CREATE TABLE`, as of a plain table named `t`.
async fn show(session: &mut Session, table: &str, printed_name: &str) -> Result<String> {
    let row = session.first(&format!("SHOW CREATE TABLE {table}"), &format!("reading the definition of {table}")).await?;
    let statement = row.and_then(|row| row.into_iter().nth(1).flatten()).unwrap_or_default();
    let heads = ["CREATE TABLE ", "CREATE TEMPORARY TABLE "].map(|head| format!("{head}{printed_name}"));
    let rest = heads.iter().find_map(|head| statement.strip_prefix(head.as_str()));
    Ok(rest.map_or_else(|| statement.clone(), |rest| format!("CREATE TABLE `t`{rest}")))
}

fn compare(name: &TableName, expected: &[Part], found: &[Part], differences: &mut Vec<StructureDifference>) {
    let before = differences.len();
    let of = |parts: &[Part]| -> BTreeMap<String, String> { parts.iter().map(|part| (part.what.clone(), part.text.clone())).collect() };
    let (ours, theirs) = (of(expected), of(found));
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for what in names {
        let (ours, theirs) = (ours.get(what), theirs.get(what));
        if ours != theirs {
            differences.push(StructureDifference::new(name, what.clone(), ours.cloned(), theirs.cloned()));
        }
    }
    let order = |parts: &[Part]| {
        parts.iter().filter(|part| part.what.starts_with("column ")).map(|part| part.what[7..].to_owned()).collect::<Vec<_>>()
    };
    let (ours, theirs) = (order(expected), order(found));
    if ours != theirs && ours.iter().collect::<BTreeSet<_>>() == theirs.iter().collect::<BTreeSet<_>>() {
        differences.push(StructureDifference::new(name, "order of columns", Some(ours.join(", ")), Some(theirs.join(", "))));
    }
    if let Some(first) = differences.get_mut(before) {
        let text = |parts: &[Part]| parts.iter().map(|part| format!("{}\n", part.text)).collect::<String>();
        first.diff = unified(name, &text(expected), &text(found));
    }
}

fn unified(name: &TableName, expected: &str, found: &str) -> String {
    TextDiff::from_lines(expected, found)
        .unified_diff()
        .header(&format!("what the source's {name} becomes"), &format!("target {name}"))
        .missing_newline_hint(false)
        .to_string()
}

/// Foreign keys between tables that move; those to other tables are not carried, and `mysql.prepare` says so.
fn foreign_keys(source: &Table, target: &Table, moved: &Catalog, differences: &mut Vec<StructureDifference>) {
    let of = |table: &Table| -> BTreeMap<String, String> {
        let keys = table.foreign_keys.iter().filter(|key| moved.table(&key.parent).is_some());
        keys.map(|key| {
            let columns: Vec<String> = key.columns.iter().map(|&column| sql::identifier(&table.columns[column].name)).collect();
            let parents: Vec<String> = key.parent_columns.iter().map(|column| sql::identifier(column)).collect();
            let text = format!(
                "({}) REFERENCES {} ({}) ON DELETE {} ON UPDATE {}",
                columns.join(", "),
                sql::table(&key.parent),
                parents.join(", "),
                action(key.on_delete),
                action(key.on_update)
            );
            (key.name.clone(), text)
        })
        .collect()
    };
    let (ours, theirs) = (of(source), of(target));
    for name in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        let (ours, theirs) = (ours.get(name), theirs.get(name));
        if ours != theirs {
            differences.push(StructureDifference::new(&source.name, format!("foreign key `{name}`"), ours.cloned(), theirs.cloned()));
        }
    }
}

fn action(action: ReferentialAction) -> &'static str {
    match action {
        ReferentialAction::Restrict => "RESTRICT",
        ReferentialAction::Cascade => "CASCADE",
        ReferentialAction::SetNull => "SET NULL",
    }
}

/// Counters that are lower than they were, though the source's is not.
fn behind(floor: &Counters, source: &Counters, target: &Counters) -> Vec<StructureDifference> {
    let mut behind = Vec::new();
    for (table, &floor) in floor {
        let (Some(&ours), Some(&theirs)) = (source.get(table), target.get(table)) else { continue };
        let least = floor.min(ours);
        if theirs < least {
            behind.push(StructureDifference::new(table, "AUTO_INCREMENT", Some(format!("at least {least}")), Some(theirs.to_string())));
        }
    }
    behind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(values: &[(&str, u64)]) -> Counters {
        values.iter().map(|(table, value)| (TableName::new("s", *table), *value)).collect()
    }

    #[test]
    fn a_counter_may_lag_but_not_fall() {
        let floor = counters(&[("fell", 10), ("lags", 10), ("truncated", 10), ("gone", 10)]);
        let source = counters(&[("fell", 20), ("lags", 20), ("truncated", 1)]);
        let target = counters(&[("fell", 9), ("lags", 12), ("truncated", 1)]);
        let lines: Vec<String> = behind(&floor, &source, &target).iter().map(StructureDifference::line).collect();
        assert_eq!(lines, ["`s.fell` AUTO_INCREMENT: is 9 on the target, has to be at least 10"]);
    }

    #[test]
    fn parts_are_named_and_the_order_of_columns_counts() {
        let part = |what: &str, text: &str| Part { what: what.to_owned(), text: text.to_owned() };
        let ours = [part("column `a`", "`a` int"), part("column `b`", "`b` int"), part("index `i`", "KEY `i` (`a`)")];
        let theirs = [part("column `b`", "`b` int"), part("column `a`", "`a` bigint")];
        let mut found = Vec::new();
        compare(&TableName::new("s", "t"), &ours, &theirs, &mut found);
        let whats: Vec<&str> = found.iter().map(|found| found.what.as_str()).collect();
        assert_eq!(whats, ["column `a`", "index `i`", "order of columns"]);
        assert!(found[0].diff.contains("-`a` int\n") && found[1].diff.is_empty(), "{}", found[0].diff);
    }
}
