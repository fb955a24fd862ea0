//! Whether the target's views, routines, triggers and events still are what dbmove made there.
//!
//! Two servers never print an object alike, so the source's text is no measure. The target's own text was hashed right after the
//! object was made ([`super::notes`]), and one server prints an object that nobody touched the same way every time. So:
//!
//! | it | found |
//! | --- | --- |
//! | is noted and not there | missing |
//! | is noted, and another text or other settings are there | changed |
//! | is there, selected by the playbook, and not noted | added by somebody else |
//!
//! What was created, changed or dropped on the *source* since is no difference: `mysql.promote` brings it over at the fence.
//! Texts are not shown: a body may hold what nobody should read in a report.

use std::collections::BTreeSet;

use super::super::bookkeeping;
use super::super::catalog::OtherObject;
use super::super::connect::{Purpose, Session};
use super::super::error::Result;
use super::super::store::{Described, MysqlStore};
use super::bring::GONE;
use super::notes;
use super::read::{Definition, Reader};
use crate::playbook::model::ObjectsOption;
use crate::verify::structure::StructureDifference;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// How many objects were compared.
    pub objects: u64,
    /// What differs.
    pub differences: Vec<StructureDifference>,
}

/// Compares the objects that dbmove made on the target with what is there. Changes nothing.
///
/// # Errors
/// If the target can't be read, or hides an object's text.
pub async fn compare(store: &MysqlStore, described: &Described) -> Result<Compared> {
    let mut found = Compared::default();
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    let ours = bookkeeping::lease(&mut session, &store.name).await?.is_some();
    let noted = notes::all(&mut session, &store.name).await?;
    session.close().await;
    if !ours || store.settings.objects == ObjectsOption::Leave {
        return Ok(found);
    }
    let mut reader = Reader::open(&store.target).await?;
    for noted in noted.iter().filter(|noted| noted.is_whole()) {
        let there = reader.definition(&noted.object).await?;
        let hash = there.as_ref().map_or_else(|| GONE.to_owned(), Definition::hash);
        found.objects += 1;
        if hash != noted.target_hash {
            let text = |hash: &str| (hash != GONE).then(|| format!("the text with sha256 {}", &hash[..hash.len().min(12)]));
            found.differences.push(difference(&noted.object, text(&noted.target_hash), text(&hash)));
        }
    }
    let known: BTreeSet<&OtherObject> = noted.iter().map(|noted| &noted.object).collect();
    let databases: Vec<String> = described.schema.databases.iter().map(|database| database.name.clone()).collect();
    let tables = &described.shared.tables;
    let there = reader.list(&databases, &store.selection, |database, table| tables.id(database, table).is_some()).await?;
    for added in there.iter().filter(|object| !known.contains(object)) {
        found.differences.push(difference(added, None, Some(format!("a {} that dbmove did not create", added.kind))));
    }
    reader.close().await;
    Ok(found)
}

fn difference(object: &OtherObject, expected: Option<String>, has: Option<String>) -> StructureDifference {
    StructureDifference::new(format!("{}.{}", object.database, object.name), object.kind.to_string(), expected, has)
}
