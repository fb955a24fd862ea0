//! What dbmove has created on the target beside tables: `_dbmove.created_object`.
//!
//! A note is written before its object, so that undo drops what this run made and nothing else. It holds two hashes, empty until
//! the object stands: of the source's definition it was made from, and of the target's own words for it. So it can be told
//! later whether either has changed, although two servers never print an object alike.

use super::super::bookkeeping::{self, own_table};
use super::super::catalog::{ObjectKind, OtherObject};
use super::super::connect::Session;
use super::super::error::{MysqlError, Result};
use super::super::sql;
use crate::engine::step::Epoch;

/// One note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What was, or is about to be, created.
    pub object: OtherObject,
    /// The hash of the source's definition; empty while the object is being made.
    pub source_hash: String,
    /// The hash of the target's definition right after it was made.
    pub target_hash: String,
    /// An event that stands disabled until the switch.
    pub to_enable: bool,
    /// What had to be changed when it was made, a line each.
    pub changes: Vec<String>,
}

impl Noted {
    /// Of an object that is about to be created.
    #[must_use]
    pub fn begun(object: &OtherObject) -> Noted {
        Noted { object: object.clone(), source_hash: String::new(), target_hash: String::new(), to_enable: false, changes: Vec::new() }
    }

    /// Whether the object stood as it should when the note was written.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.target_hash.is_empty()
    }
}

fn kind(word: &str) -> Option<ObjectKind> {
    let all = [ObjectKind::View, ObjectKind::Procedure, ObjectKind::Function, ObjectKind::Trigger, ObjectKind::Event];
    all.into_iter().find(|kind| kind.to_string() == word)
}

/// Writes a note, if this driver still holds the lease.
///
/// # Errors
/// If the table can't be written, or another driver has taken over.
pub async fn write(session: &mut Session, store: &str, epoch: Epoch, noted: &Noted) -> Result<()> {
    let statement = format!(
        "REPLACE INTO {} (store, kind, database_name, object_name, source_hash, target_hash, to_enable, changes) \
         VALUES ({}, {}, {}, {}, {}, {}, {}, {})",
        own_table("created_object"),
        sql::text(store),
        sql::text(&noted.object.kind.to_string()),
        sql::text(&noted.object.database),
        sql::text(&noted.object.name),
        sql::text(&noted.source_hash),
        sql::text(&noted.target_hash),
        u8::from(noted.to_enable),
        // A name may hold a line break.
        sql::text(&serde_json::json!(noted.changes).to_string())
    );
    session.run("BEGIN", "noting what is created").await?;
    bookkeeping::hold_lease(session, store, epoch).await?;
    session.write(statement.as_bytes(), "noting what is created").await?;
    session.run("COMMIT", "noting what is created").await
}

/// Takes a note away: its object is gone.
///
/// # Errors
/// If the table can't be written.
pub async fn forget(session: &mut Session, store: &str, object: &OtherObject) -> Result<()> {
    let statement = format!(
        "DELETE FROM {} WHERE store = {} AND kind = {} AND database_name = {} AND object_name = {}",
        own_table("created_object"),
        sql::text(store),
        sql::text(&object.kind.to_string()),
        sql::text(&object.database),
        sql::text(&object.name)
    );
    session.write(statement.as_bytes(), "noting what is dropped").await?;
    Ok(())
}

/// All notes of a store.
///
/// # Errors
/// If the table can't be read.
pub async fn all(session: &mut Session, store: &str) -> Result<Vec<Noted>> {
    let query = format!(
        "SELECT kind, database_name, object_name, source_hash, target_hash, to_enable, changes FROM {} WHERE store = {}",
        own_table("created_object"),
        sql::text(store)
    );
    let rows = match session.rows(&query, "reading what was created").await {
        Ok(rows) => rows,
        // No such database or table: nothing was.
        Err(error) if matches!(error.code(), Some(1049 | 1146)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let noted = rows.iter().map(|row| {
        let word = bookkeeping::text(row, 0);
        let kind = kind(&word).ok_or_else(|| MysqlError::Object {
            message: format!("`_dbmove.created_object` on the target names a `{word}`, which this build of dbmove does not know"),
            hint: "drive the run with the build that began it".to_owned(),
        })?;
        Ok(Noted {
            object: OtherObject { kind, database: bookkeeping::text(row, 1), name: bookkeeping::text(row, 2) },
            source_hash: bookkeeping::text(row, 3),
            target_hash: bookkeeping::text(row, 4),
            to_enable: bookkeeping::number(row, 5) == 1,
            changes: serde_json::from_str(&bookkeeping::text(row, 6)).unwrap_or_default(),
        })
    });
    noted.collect()
}
