//! Makes the target's tables what the source's are now, where a definition changed. What must hold is said in [`super`].
//!
//! It runs before following starts (what changed while nobody followed is found by comparing definitions) and whenever a
//! statement of the log asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::records::{self, Record, State};
use super::{Beginnings, Change};
use crate::engine::crash;
use crate::engine::step::Epoch;
use crate::mysql::bookkeeping;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::conversion;
use crate::mysql::copy::plan;
use crate::mysql::ddl::{self, TableDdl};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::TableName;
use crate::mysql::position::Position;
use crate::mysql::sql;
use crate::mysql::status;
use crate::mysql::store::{Described, Following, MysqlStore};
use crate::mysql::table::{ReferentialAction, Table};
use crate::mysql::well_formed;
use crate::playbook::model::OnDdl;

/// How often the source's definitions are read before it is said that they don't stand still.
const READINGS: u32 = 30;

/// Between two readings that don't agree.
const READ_AGAIN: Duration = Duration::from_millis(50);

/// An error that comes so often in a row is no trace of a statement that was being carried out.
const SAME_ERRORS: u32 = 4;

/// What becomes of the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Decision {
    /// Made (again) on the target, to be copied from the start.
    make: BTreeSet<TableName>,
    /// There since before it was noted what tables were made from.
    adopt: BTreeSet<TableName>,
    /// Dropped on the target.
    drop: BTreeSet<TableName>,
    /// Not there, and not on the target.
    absent: BTreeSet<TableName>,
    /// Another one or not to be seen on the source, for a reason that only the log can tell: left alone on the target.
    gone: BTreeSet<TableName>,
}

impl Decision {
    fn is_nothing(&self) -> bool {
        *self == Decision::default()
    }
}

/// What the source has, as far as it decides.
struct Sight<'a> {
    /// Digests of the definitions.
    definitions: BTreeMap<TableName, String>,
    /// Child and parent of each foreign key that changes rows of the child.
    cascades: Vec<(&'a TableName, &'a TableName)>,
}

/// Decides from what is recorded, what the source has, what this run made, and which tables the statement names.
///
/// A definition that changed and that the statement does not name may have been altered, or replaced by a rename, which is always followed.
fn decide(
    records: &BTreeMap<TableName, Record>,
    sight: &Sight<'_>,
    ours: &BTreeSet<TableName>,
    named: &BTreeSet<TableName>,
    on_ddl: OnDdl,
) -> Decision {
    let mut decision = Decision::default();
    for (name, definition) in &sight.definitions {
        match records.get(name) {
            Some(Record { state: State::Made, definition: made_from, .. }) if !named.contains(name) => {
                if made_from != definition {
                    if on_ddl == OnDdl::Apply { &mut decision.make } else { &mut decision.gone }.insert(name.clone());
                }
            }
            Some(Record { state: State::Gone, definition: made_from, .. })
                if on_ddl == OnDdl::Stop && made_from != definition && !named.contains(name) => {}
            None if ours.contains(name) && !named.contains(name) => {
                decision.adopt.insert(name.clone());
            }
            _ => {
                decision.make.insert(name.clone());
            }
        }
    }
    for (name, record) in records.iter().filter(|(name, _)| !sight.definitions.contains_key(*name)) {
        match record.state {
            State::Making => decision.drop.insert(name.clone()),
            State::Made | State::Gone if named.contains(name) => decision.drop.insert(name.clone()),
            State::Made => decision.gone.insert(name.clone()),
            State::Absent if named.contains(name) => decision.absent.insert(name.clone()),
            State::Gone | State::Absent => false,
        };
    }
    let unknown = named.iter().filter(|name| !sight.definitions.contains_key(*name) && !records.contains_key(*name));
    for name in unknown {
        if ours.contains(name) { &mut decision.drop } else { &mut decision.absent }.insert(name.clone());
    }
    loop {
        let begins_anew = |name: &TableName| decision.make.contains(name) || decision.gone.contains(name) || decision.drop.contains(name);
        let reached: Vec<TableName> = sight
            .cascades
            .iter()
            .filter(|(child, parent)| begins_anew(parent) && !decision.make.contains(*child))
            .map(|(child, _)| (*child).clone())
            .collect();
        if reached.is_empty() {
            return decision;
        }
        decision.adopt.retain(|name| !reached.contains(name));
        decision.gone.retain(|name| !reached.contains(name));
        decision.make.extend(reached);
    }
}

/// Reads the source's definitions and a position at which they hold. A catalog is read by many queries, so one that is read
/// while a statement is carried out may not fit together: then it is read again.
async fn stable(store: &MysqlStore) -> Result<(Arc<Described>, Position)> {
    let mut before: Option<BTreeMap<TableName, String>> = None;
    let mut source = Session::open(&store.source, Purpose::Read).await?;
    let mut errors: (u32, String) = (0, String::new());
    for _ in 0..READINGS {
        let position = status::current_position(&mut source).await?;
        match store.describe().await {
            Ok(described) => {
                errors = (0, String::new());
                let definitions = definitions(&described);
                if before.as_ref() == Some(&definitions) {
                    source.close().await;
                    return Ok((Arc::new(described), position));
                }
                before = Some(definitions);
            }
            Err(error) if error.transient() => return Err(error),
            Err(error) => {
                before = None;
                let said = error.to_string();
                errors = if errors.1 == said { (errors.0 + 1, said) } else { (1, said) };
                if errors.0 >= SAME_ERRORS {
                    return Err(error);
                }
            }
        }
        tokio::time::sleep(READ_AGAIN).await;
    }
    Err(MysqlError::Object {
        message: format!(
            "the definitions of the tables on the {} don't stand still: read {READINGS} times, they were others each time. Nothing was changed",
            store.source
        ),
        hint: "wait until whatever alters tables there is done, then start the command again".to_owned(),
    })
}

fn definitions(described: &Described) -> BTreeMap<TableName, String> {
    described.schema.tables.iter().map(|table| (table.name.clone(), table.definition.clone())).collect()
}

/// Brings the target's tables to the source's definitions, and tells everybody. Running it again after any crash gives the same.
///
/// # Errors
/// If a table can't be made or would replace one that
/// this run did not make: the target is as it was then. As the servers give them.
pub async fn settle(store: &MysqlStore, epoch: Epoch, change: Option<&Change>) -> Result<()> {
    let _alone = store.definitions.alone().await;
    let (described, begin) = stable(store).await?;
    let mut target = Session::open(&store.target, Purpose::Catalog).await?;
    bookkeeping::create(&mut target).await?;
    let mut known = records::read(&mut target, &store.name).await?;
    let created: BTreeSet<TableName> = bookkeeping::created(&mut target, &store.name).await?.into_iter().collect();
    let mut named = change.map(|change| change.tables.clone()).unwrap_or_default();
    let sight_of = definitions(&described);
    named.extend(before_the_log(&mut target, store, &created, &sight_of).await?);
    let moves = described.shared.tables.iter().map(|(_, moved)| &moved.table);
    let cascades = moves.flat_map(|table| {
        let changing = table
            .foreign_keys
            .iter()
            .filter(|key| [key.on_delete, key.on_update].iter().any(|action| *action != ReferentialAction::Restrict));
        changing.map(|key| (&table.name, &key.parent))
    });
    let sight = Sight { definitions: sight_of, cascades: cascades.collect() };
    let decision = decide(&known, &sight, &created, &named, store.settings.on_ddl);
    if !decision.is_nothing() {
        let work = Work { store, epoch, described: &described, begin: &begin, created: &created };
        work.carry_out(&mut target, &decision, &mut known).await?;
    }
    let incomplete: BTreeSet<TableName> = records::incomplete(&mut target, &store.name).await?.into_iter().collect();
    target.close().await;
    let beginnings = records::beginnings(&known).seen_at(begin.clone());
    store.again.send_replace(incomplete);
    store.install(described, Arc::new(beginnings)).await;
    // Rows are read a settle time after this: told before anybody works by the new definitions.
    store.following.send_if_modified(|following| match following {
        Following::On(since) => {
            *since = Instant::now();
            true
        }
        Following::Off | Following::Finished => false,
    });
    if let Some(change) = change {
        let shared = store.described().await?.shared.clone();
        shared.note(format!("`{}` at {}: {}", change.statement, change.position, words(&decision, &begin)));
    } else if !(decision.make.is_empty() && decision.drop.is_empty()) {
        store.described().await?.shared.note(format!("definitions had changed on the source: {}", words(&decision, &begin)));
    }
    Ok(())
}

/// Tables that this run made and that left the source before following began: no statement of the log will name them, and nothing of them was
/// copied yet.
async fn before_the_log(
    target: &mut Session,
    store: &MysqlStore,
    created: &BTreeSet<TableName>,
    definitions: &BTreeMap<TableName, String>,
) -> Result<Vec<TableName>> {
    let mut left = Vec::new();
    let followed = bookkeeping::followed(target, &store.name).await?;
    if followed.is_some_and(|followed| followed.applied != followed.start) {
        return Ok(left);
    }
    for name in created.iter().filter(|name| !name.table.is_empty() && !definitions.contains_key(*name)) {
        let state = plan::load(target, &store.name, name).await?;
        if !state.copied && state.rows == 0 {
            left.push(name.clone());
        }
    }
    Ok(left)
}

fn words(decision: &Decision, begin: &Position) -> String {
    let list = |names: &BTreeSet<TableName>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut words = Vec::new();
    if !decision.make.is_empty() {
        words.push(format!("made on the target as on the source at {begin}, to be copied from the start: {}", list(&decision.make)));
    }
    if !decision.drop.is_empty() {
        words.push(format!("dropped on the target: {}", list(&decision.drop)));
    }
    if !decision.gone.is_empty() {
        words.push(format!(
            "another on the source or not to be seen there, left on the target until the log says why: {}",
            list(&decision.gone)
        ));
    }
    if words.is_empty() { "nothing had to be changed on the target".to_owned() } else { words.join("; ") }
}

struct Work<'a> {
    store: &'a MysqlStore,
    epoch: Epoch,
    described: &'a Described,
    begin: &'a Position,
    created: &'a BTreeSet<TableName>,
}

impl Work<'_> {
    async fn carry_out(&self, target: &mut Session, decision: &Decision, known: &mut BTreeMap<TableName, Record>) -> Result<()> {
        let tables: Vec<&TableDdl> = self.described.schema.tables.iter().filter(|table| decision.make.contains(&table.name)).collect();
        self.prove(target, &tables).await?;
        let definition = |name: &TableName| tables.iter().find(|table| table.name == *name).map(|table| table.definition.clone());
        let record = |state, definition: Option<String>| Record {
            state,
            definition: definition.unwrap_or_default(),
            begin: Some(self.begin.clone()),
        };
        let mut noted: Vec<(TableName, Record)> = Vec::new();
        noted.extend(decision.make.iter().map(|name| (name.clone(), record(State::Making, definition(name)))));
        noted.extend(decision.drop.iter().map(|name| (name.clone(), record(State::Making, None))));
        noted.extend(decision.absent.iter().map(|name| (name.clone(), record(State::Absent, None))));
        noted.extend(decision.gone.iter().map(|name| {
            let made_from = known.get(name).map(|known| known.definition.clone());
            (name.clone(), record(State::Gone, made_from))
        }));
        let adopted = self.described.schema.tables.iter().filter(|table| decision.adopt.contains(&table.name));
        noted.extend(
            adopted.map(|table| (table.name.clone(), Record { state: State::Made, definition: table.definition.clone(), begin: None })),
        );
        self.note(target, &noted, decision).await?;
        crash::point("definitions.noted");

        // The lease is held by a session of its own while tables are made: a driver that takes over waits for the end.
        let mut holder = Session::open(&self.store.target, Purpose::Catalog).await?;
        holder.run("BEGIN", "holding the lease").await?;
        bookkeeping::hold_lease(&mut holder, &self.store.name, self.epoch).await?;
        self.databases(target, &tables).await?;
        target.run("SET SESSION foreign_key_checks = 0", "setting up the session").await?;
        for name in decision.make.iter().chain(&decision.drop).filter(|name| self.created.contains(*name)) {
            target.run(&format!("DROP TABLE IF EXISTS {}", sql::table(name)), &format!("dropping `{name}`")).await?;
            crash::point("definitions.dropped");
        }
        for table in &tables {
            bookkeeping::note_created(target, &self.store.name, &table.name.database, &table.name.table).await?;
            ddl::execute(target, &table.create, &format!("creating `{}`", table.name)).await?;
            crash::point("definitions.made");
        }
        let mut done: Vec<(TableName, Record)> = noted;
        for (name, record) in &mut done {
            if record.state == State::Making {
                record.state = if decision.make.contains(name) { State::Made } else { State::Absent };
            }
        }
        records::save(&mut holder, &self.store.name, &done).await?;
        holder.run("COMMIT", "saving which definitions are followed").await?;
        holder.close().await;
        crash::point("definitions.saved");
        known.extend(done);
        Ok(())
    }

    /// Makes sure, before anything is touched, that every table can be made.
    async fn prove(&self, target: &mut Session, tables: &[&TableDdl]) -> Result<()> {
        for table in tables.iter().filter(|table| !self.created.contains(&table.name)) {
            let name = &table.name;
            let query = format!(
                "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
                sql::text(&name.database),
                sql::text(&name.table)
            );
            if target.first(&query, &format!("looking for `{name}`")).await?.is_some() {
                return Err(MysqlError::Object {
                    message: format!(
                        "`{name}` was created on the source and is on the target already, where this run did not create it. Nothing was changed"
                    ),
                    hint: "drop it on the target if it is not needed, then start the command again".to_owned(),
                });
            }
        }
        let converted = self.described.converted.iter().filter(|(name, _)| tables.iter().any(|table| table.name == **name));
        let converted: conversion::ConvertedTables = converted.map(|(name, converted)| (name.clone(), converted.clone())).collect();
        if !converted.is_empty() {
            let mut source = Session::open(&self.store.source, Purpose::Read).await?;
            let texts: Vec<&Arc<Table>> = converted.keys().filter_map(|name| self.described.catalog.table(name)).collect();
            well_formed::prove(&mut source, texts, &converted, &self.described.target.version).await?;
            conversion::prove_keys(&mut source, &converted).await?;
            source.close().await;
        }
        let tried: Vec<TableDdl> = tables.iter().map(|table| (*table).clone()).collect();
        ddl::trial::all(target, &tried).await
    }

    async fn note(&self, target: &mut Session, noted: &[(TableName, Record)], decision: &Decision) -> Result<()> {
        target.run("BEGIN", "noting which tables begin anew").await?;
        records::keep_everybody_out(target, &self.store.name, self.epoch).await?;
        records::save(target, &self.store.name, noted).await?;
        for name in decision.make.iter().chain(&decision.drop) {
            records::forget_copied(target, &self.store.name, name).await?;
        }
        target.run("COMMIT", "noting which tables begin anew").await
    }

    async fn databases(&self, target: &mut Session, tables: &[&TableDdl]) -> Result<()> {
        let there = target.rows("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA", "listing the target's databases").await?;
        let needed =
            self.described.schema.databases.iter().filter(|database| tables.iter().any(|table| table.name.database == database.name));
        for database in needed.filter(|database| !there.iter().any(|row| row[0].as_deref() == Some(&database.name))) {
            bookkeeping::note_created(target, &self.store.name, &database.name, "").await?;
            ddl::execute(target, &database.create, &format!("creating database `{}`", database.name)).await?;
        }
        Ok(())
    }
}

/// What the tables that began at or behind `floor` are called: their marks can't be rebuilt from the log.
#[must_use]
pub fn began_since(beginnings: &Beginnings, floor: &Position) -> Vec<TableName> {
    beginnings.iter().filter(|(_, begin)| *begin >= floor).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(table: &str) -> TableName {
        TableName::new("s", table)
    }

    fn names(tables: &[&str]) -> BTreeSet<TableName> {
        tables.iter().map(|table| name(table)).collect()
    }

    fn records(tables: &[(&str, State, &str)]) -> BTreeMap<TableName, Record> {
        let record = |(table, state, definition): &(&str, State, &str)| {
            (name(table), Record { state: *state, definition: (*definition).to_owned(), begin: None })
        };
        tables.iter().map(record).collect()
    }

    fn on_the_source(tables: &[(&str, &str)]) -> Sight<'static> {
        Sight {
            definitions: tables.iter().map(|(table, definition)| (name(table), (*definition).to_owned())).collect(),
            cascades: Vec::new(),
        }
    }

    #[test]
    fn nothing_changes_where_nothing_changed() {
        let known = records(&[("a", State::Made, "1"), ("x", State::Absent, "")]);
        assert!(decide(&known, &on_the_source(&[("a", "1")]), &names(&["a"]), &names(&[]), OnDdl::Stop).is_nothing());
    }

    #[test]
    fn a_swap_makes_both_anew_and_drops_what_is_left_over() {
        let known = records(&[("t", State::Made, "1"), ("t_new", State::Made, "2"), ("other", State::Made, "3")]);
        let sight = on_the_source(&[("t", "2"), ("t_old", "1"), ("other", "3")]);
        let decision = decide(&known, &sight, &names(&["t", "t_new", "other"]), &names(&["t", "t_new", "t_old"]), OnDdl::Stop);
        assert_eq!((decision.make, decision.drop), (names(&["t", "t_old"]), names(&["t_new"])));
        assert!(decision.gone.is_empty());
    }

    #[test]
    fn only_what_a_statement_names_is_dropped() {
        let known = records(&[("a", State::Made, "1"), ("b", State::Made, "1")]);
        let decision = decide(&known, &on_the_source(&[]), &names(&["a", "b"]), &names(&["a"]), OnDdl::Stop);
        assert_eq!((decision.drop, decision.gone), (names(&["a"]), names(&["b"])));
        let known = records(&[("b", State::Gone, "1")]);
        assert!(decide(&known, &on_the_source(&[]), &names(&["b"]), &names(&[]), OnDdl::Stop).is_nothing());
        assert_eq!(decide(&known, &on_the_source(&[]), &names(&["b"]), &names(&["b"]), OnDdl::Stop).drop, names(&["b"]));
    }

    #[test]
    fn what_may_have_been_altered_waits_for_the_log_unless_that_is_followed() {
        let decide = |known: &BTreeMap<TableName, Record>, named: &[&str], on_ddl| {
            decide(known, &on_the_source(&[("a", "2")]), &names(&["a"]), &names(named), on_ddl)
        };
        let made = records(&[("a", State::Made, "1")]);
        assert_eq!(decide(&made, &[], OnDdl::Stop), Decision { gone: names(&["a"]), ..Decision::default() });
        assert_eq!(decide(&made, &[], OnDdl::Apply), Decision { make: names(&["a"]), ..Decision::default() });
        let gone = records(&[("a", State::Gone, "1")]);
        assert!(decide(&gone, &[], OnDdl::Stop).is_nothing());
        assert_eq!(decide(&gone, &["a"], OnDdl::Stop).make, names(&["a"]));
        // It is what it was.
        assert_eq!(decide(&records(&[("a", State::Gone, "2")]), &[], OnDdl::Stop).make, names(&["a"]));
    }

    #[test]
    fn a_table_that_came_and_went_is_absent() {
        let decision = decide(&records(&[]), &on_the_source(&[]), &names(&[]), &names(&["x"]), OnDdl::Stop);
        assert_eq!(decision.absent, names(&["x"]));
    }

    #[test]
    fn what_a_crash_left_half_made_is_made_or_dropped() {
        let known = records(&[("a", State::Making, "1"), ("b", State::Making, "")]);
        let decision = decide(&known, &on_the_source(&[("a", "1")]), &names(&["a", "b"]), &names(&[]), OnDdl::Stop);
        assert_eq!((decision.make, decision.drop), (names(&["a"]), names(&["b"])));
    }

    #[test]
    fn an_altered_table_takes_its_cascading_children_with_it() {
        let known = records(&[("p", State::Made, "1"), ("c", State::Made, "1"), ("d", State::Made, "1"), ("e", State::Made, "1")]);
        let (parent, child, grandchild) = (name("p"), name("c"), name("d"));
        let mut sight = on_the_source(&[("p", "2"), ("c", "1"), ("d", "1"), ("e", "1")]);
        sight.cascades = vec![(&grandchild, &child), (&child, &parent), (&parent, &parent)];
        let decision = decide(&known, &sight, &names(&["p", "c", "d", "e"]), &names(&[]), OnDdl::Apply);
        assert_eq!(decision.make, names(&["p", "c", "d"]));
    }

    #[test]
    fn tables_of_a_run_that_kept_no_records_are_taken_as_they_are() {
        let decision = decide(&records(&[]), &on_the_source(&[("a", "1"), ("new", "1")]), &names(&["a"]), &names(&[]), OnDdl::Stop);
        assert_eq!((decision.adopt, decision.make), (names(&["a"]), names(&["new"])));
    }
}
