//! The source's triggers, put aside while the way back is open.
//!
//! Rows that come back from the target hold what its triggers did already; a trigger on the source would do it once more. A session can't switch
//! triggers off, so those of moved tables are dropped there behind the switch, when nobody but dbmove writes, and made again before a
//! client may: in the rollback, or when the way back is closed. The caller keeps their definitions, with the settings they were made
//! under, in the journal before the first one is dropped, so that a driver that takes the run over knows them too. Dropping what is
//! dropped, and making what is there, changes nothing.

use std::collections::BTreeSet;

use super::catalog::ObjectKind;
use super::error::{MysqlError, Result};
use super::objects::create::{Maker, Zones};
use super::objects::named;
use super::objects::read::{Definition, Reader};
use super::store::MysqlStore;

/// The triggers of moved tables on the source, in the order in which they act.
///
/// # Errors
/// If one can't be read.
pub async fn of_source(store: &MysqlStore) -> Result<Vec<Definition>> {
    let described = store.described().await?;
    let databases: Vec<String> = described.schema.databases.iter().map(|database| database.name.clone()).collect();
    let tables = &described.shared.tables;
    let mut reader = Reader::open(&store.source).await?;
    let listed = reader.list(&databases, &store.selection, |database, table| tables.id(database, table).is_some()).await?;
    let mut definitions = Vec::new();
    for object in listed.iter().filter(|object| object.kind == ObjectKind::Trigger) {
        // None: dropped since it was listed.
        definitions.extend(reader.definition(object).await?);
    }
    reader.close().await;
    Ok(definitions)
}

/// Drops them.
///
/// # Errors
/// If the source refuses.
pub async fn drop_all(store: &MysqlStore, triggers: &[Definition]) -> Result<()> {
    let mut maker = Maker::open(&store.source, BTreeSet::new(), Zones::default()).await?;
    for trigger in triggers {
        maker.drop_object(&trigger.object).await?;
    }
    maker.close().await;
    Ok(())
}

/// Makes again those that are not there.
///
/// # Errors
/// Every trigger that the source refuses, named; the others stand.
pub async fn make_again(store: &MysqlStore, triggers: &[Definition]) -> Result<()> {
    let mut reader = Reader::open(&store.source).await?;
    let mut maker = Maker::open(&store.source, BTreeSet::new(), Zones::default()).await?;
    let mut refused = Vec::new();
    for trigger in triggers {
        if reader.definition(&trigger.object).await?.is_some() {
            continue;
        }
        match maker.make(trigger).await {
            Ok(changes) => {
                for change in changes {
                    tracing::warn!(rule = change.rule, before = %change.before, after = %change.after, "{} is another one than before", named(&trigger.object));
                }
            }
            Err(error) if error.transient() => return Err(error),
            Err(error) => refused.push(format!("  {}: {error}", named(&trigger.object))),
        }
    }
    maker.close().await;
    reader.close().await;
    if refused.is_empty() {
        return Ok(());
    }
    Err(MysqlError::Object {
        message: format!("{} triggers could not be made again on the {}:\n{}", refused.len(), store.source, refused.join("\n")),
        hint: "put right what the server says, then give the same command again".to_owned(),
    })
}
