//! A copy's databases and tables, and what goes with them: all by production's own words.
//!
//! A server may take a definition and make something else of it: another engine, where the one that is named is not there; a name cut short. So
//! each table is asked for after it was created, and has to be in the same words. Views, routines, triggers and events are made as they are made on
//! any target ([`objects`](crate::mysql::objects)), and what had to be changed for that is listed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Fill;
use super::origin::{self, Origin, without_counter};
use crate::engine::crash;
use crate::engine::step::StepError;
use crate::mysql::bookkeeping;
use crate::mysql::catalog::{Catalog, ObjectKind, ServerFacts};
use crate::mysql::connect::{Server, Session};
use crate::mysql::conversion::ConvertedTables;
use crate::mysql::ddl::{DatabaseDdl, TargetSchema};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::{Selection, TableName};
use crate::mysql::objects::bring::Bringing;
use crate::mysql::objects::{named, notes};
use crate::mysql::shared::Shared;
use crate::mysql::sql;
use crate::mysql::store::{Described, MysqlStore, StoreSettings};
use crate::mysql::tables::Tables;

/// "Can't create database; database exists".
const DATABASE_EXISTS: u16 = 1007;

/// Creates the databases that are not there yet, each noted before.
///
/// # Errors
/// If one is there that this run did not make; as the server gives them.
pub(super) async fn databases(session: &mut Session, name: &str, catalog: &Catalog) -> Result<()> {
    session.run("SET SESSION foreign_key_checks = 0", "setting up the session").await?;
    let ours: BTreeSet<String> = bookkeeping::created(session, name).await?.into_iter().map(|made| made.database).collect();
    let there: BTreeSet<String> = origin::databases(session).await?.into_iter().collect();
    for database in &catalog.databases {
        let noted = ours.contains(&database.name);
        if there.contains(&database.name) {
            if noted {
                continue;
            }
            return Err(already_there(session.server(), &database.name));
        }
        bookkeeping::note_created(session, name, &database.name, "").await?;
        crash::point("fill.database_noted");
        match session.run(&create(database), &format!("creating database `{}`", database.name)).await {
            Err(error) if error.code() == Some(DATABASE_EXISTS) => return Err(already_there(session.server(), &database.name)),
            created => created?,
        }
    }
    Ok(())
}

fn create(database: &crate::mysql::catalog::Database) -> String {
    format!("CREATE DATABASE {} DEFAULT CHARACTER SET {} COLLATE {}", sql::identifier(&database.name), database.charset, database.collation)
}

fn already_there(server: &Server, database: &str) -> MysqlError {
    MysqlError::Object {
        message: format!("database `{database}` is on the {server} already, and this run did not create it. It was left as it is"),
        hint: "drop it there if it is not needed, or name another server".to_owned(),
    }
}

/// Creates a table as production has it.
///
/// # Errors
/// If the server refuses it, or makes something else of it.
pub(super) async fn table(session: &mut Session, table: &TableName, definition: &[u8]) -> Result<()> {
    let what = format!("creating `{table}`");
    session.run(&format!("USE {}", sql::identifier(&table.database)), &what).await?;
    session.write_unchecked(definition, &what).await?;
    crash::point("fill.table_made");
    let made = origin::definition(session, table).await?;
    if without_counter(&made) == without_counter(definition) {
        return Ok(());
    }
    Err(MysqlError::Object {
        message: format!(
            "the {} made something else of `{table}` than production has:\n{}\n-- instead of\n{}",
            session.server(),
            String::from_utf8_lossy(&made),
            String::from_utf8_lossy(definition)
        ),
        hint: "a rehearsal's source has to be a server like production's: the same version, the same engines and settings".to_owned(),
    })
}

/// Creates views, routines, triggers and events; what is not as on production, a line each.
///
/// # Errors
/// If one can't be read or created: it is named.
pub(super) async fn objects(fill: &Fill<'_>, here: &mut Session, origin: &Origin, tables: &Arc<Tables>) -> Result<Vec<String>> {
    let name = fill.name();
    let facts = ServerFacts::read(here).await?;
    let every = origin.catalog.databases.iter().map(|database| format!("{}.*", database.name)).collect::<Vec<_>>();
    // What a fingerprint holds: the routines and events of the databases, all of them, and the triggers of the tables; but views as selected.
    let every = Selection::new(&every, &[]).unwrap_or_else(|_| Selection::clone(fill.selection));
    let mut lines = Vec::new();
    let turns: [(&Selection, &[ObjectKind]); 3] = [
        (&every, &[ObjectKind::Function, ObjectKind::Procedure]),
        (fill.selection, &[ObjectKind::View]),
        (&every, &[ObjectKind::Trigger, ObjectKind::Event]),
    ];
    for (selection, kinds) in turns {
        let store = MysqlStore::open(
            &name,
            Server::clone(fill.from),
            Server::clone(fill.copies.source()),
            selection.clone(),
            StoreSettings::default(),
        );
        let described = described(&store, origin, &facts, tables);
        let mut bringing = Bringing::open(&store, &described, fill.context.epoch).await?;
        let brought = bringing.bring(kinds).await;
        bringing.close().await;
        lines.extend(brought?.changes);
    }
    let asleep = notes::all(here, &name).await?.into_iter().filter(|noted| noted.to_enable);
    lines.extend(
        asleep.map(|noted| format!("{} is disabled: it runs on production, and nothing acts by itself here", named(&noted.object))),
    );
    Ok(lines)
}

/// What bringing objects needs to know of both sides.
fn described(store: &MysqlStore, origin: &Origin, facts: &ServerFacts, tables: &Arc<Tables>) -> Described {
    let databases = origin.catalog.databases.iter().map(|database| DatabaseDdl { name: database.name.clone(), create: create(database) });
    Described {
        source: origin.facts.clone(),
        target: facts.clone(),
        catalog: origin.catalog.clone(),
        converted: ConvertedTables::new(),
        schema: TargetSchema { databases: databases.collect(), tables: Vec::new(), not_carried: Vec::new() },
        shared: Arc::new(Shared::new(&store.name, store.selection.clone(), tables.clone(), 0)),
    }
}

/// Compares the copy's structure with production's, as a certificate does.
///
/// # Errors
/// If they differ: production was changed meanwhile.
pub(super) async fn compare(here: &mut Session, selection: &Selection, there: &Catalog) -> Result<()> {
    let here = Catalog::read(here, selection).await?;
    if here.fingerprint() == there.fingerprint() {
        return Ok(());
    }
    let (copy, original) = (here.parts(), there.parts());
    let names: BTreeSet<&String> = copy.keys().chain(original.keys()).collect();
    let differing: Vec<String> =
        names.into_iter().filter(|name| copy.get(*name) != original.get(*name)).take(10).map(|name| format!("`{name}`")).collect();
    Err(MysqlError::Step(
        StepError::transient(format!("the copy is not built as production was when it began: {} differ", differing.join(", ")))
            .hint("if somebody changed that on production meanwhile, rehearse once more"),
    ))
}
