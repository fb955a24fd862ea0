//! Fills a rehearsal's source with a copy of production, and empties it again.
//!
//! # What must hold
//!
//! * *Production is only read.* By sessions on a watched server ([`production`](super::production)): looks, counted and listed. No table is locked
//!   but for the one query that reads it, and none of an engine with snapshots at all. No more bytes of rows a second than asked for ([`pace`]).
//! * *As production was at one moment.* All rows are read in one consistent snapshot, so parents and children fit. After each page the transaction
//!   goes back to a savepoint: so the server lets go of the table, and whoever alters it waits for a page and not for the copy. A table that
//!   was altered after the snapshot can't be read in it any more: the server says so, and all begins again in a new one. Tables of engines
//!   without snapshots (MyISAM) are copied as they are when they are read, and named.
//! * *The server is empty, and another one.* Only one that has proven to be no server of production is written to ([`copies`](super::copies)), and only
//!   where nothing is on it but its own and what this run noted there ([`room`]).
//! * *Removed without a trace.* Each database is noted in `_dbmove.created` on that server before it is created, under the run's lease; removal
//!   drops what is noted, and then the notes ([`removal`]). So whoever takes the run over knows what is there, after any crash.
//! * *Never a half table for a whole one.* A table is noted as whole when its rows were read back and are, all of them, what was read from
//!   production: as many, with the same digest ([`rows`]). Whatever is not so noted begins anew. A snapshot can't be opened again: a driver that
//!   goes on has another one. So tables tied by foreign keys stay together: if one of them is not whole, all of them begin anew ([`standing`]).
//!   Tables that nothing ties are allowed to be of different moments after such an interruption; the report says how often it began.
//! * *The same structure.* Tables are created by production's own words, and what the server says of them then has to be the same words. At
//!   the end the fingerprints of both catalogs are compared: they are what a certificate binds.
//! * *Nothing acts by itself there.* Triggers come after the rows; events are created disabled. What is not as on production is listed.
//!
//! What is written to that server is kept out of its log where the account may do so: nobody follows it yet.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`origin`] | what production holds, and the snapshot its rows are read in |
//! | [`room`] | whether the server is empty, or holds what this run made |
//! | [`standing`] | which tables are whole and stay |
//! | [`structure`] | databases, tables, and what goes with them |
//! | [`rows`] | the rows of a table: read, written, read back |
//! | [`pace`] | no more bytes a second than asked for |
//! | [`removal`] | all of it away again |

pub mod origin;
pub mod pace;
pub mod removal;
pub mod room;
pub mod rows;
pub mod standing;
pub mod structure;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::connect::{Purpose, Server, Session};
use super::copies::Copies;
use super::error::{MysqlError, Result};
use super::names::{Selection, TableName};
use super::tables::Tables;
use crate::engine::context::{MADE, StepContext};
use crate::engine::crash;
use crate::playbook::quantity::HumanRate;
use origin::Origin;
use pace::Pace;
use standing::Whole;

/// How many bytes a second are read unless the playbook says otherwise.
pub const DEFAULT_RATE: HumanRate = HumanRate(8 << 20);

/// What a store's copy is called in the bookkeeping on the rehearsal's source.
#[must_use]
pub fn name_of(store: &str) -> String {
    format!("{store} (copy)")
}

/// Where a copy comes from.
#[derive(Clone, Debug)]
pub struct From {
    /// Which server is read; `None` where it can't be known here.
    pub server: Option<Arc<Server>>,
    /// How many bytes of rows a second at most.
    pub rate: HumanRate,
}

/// How far it is.
#[derive(Debug, Default)]
pub struct FillProgress {
    /// Rows that are in.
    pub rows: AtomicU64,
    /// Rows there may be.
    pub expected: AtomicU64,
    /// Bytes that were read by this process.
    pub bytes: AtomicU64,
    note: std::sync::Mutex<String>,
}

impl FillProgress {
    /// What is being worked on.
    #[must_use]
    pub fn note(&self) -> String {
        self.note.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
    fn say(&self, note: String) {
        *self.note.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = note;
    }
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Filled {
    /// The copied tables, by name: what each holds.
    pub tables: BTreeMap<String, Whole>,
    /// Of these, the ones that an earlier attempt had copied, from its own snapshot.
    pub from_before: u64,
    /// The databases that were created.
    pub databases: Vec<String>,
    /// Where production's log stood right before the snapshot, where it has one and our account may ask.
    pub position: Option<String>,
    /// Tables that were copied outside of the snapshot: their engine has none.
    pub without_snapshot: Vec<String>,
    /// What is not as on production, a line each.
    pub not_as_there: Vec<String>,
    /// Bytes of rows that this attempt has read.
    pub bytes_read: u64,
    /// Seconds it took to read and write them.
    pub seconds: f64,
}

/// Fills one rehearsal source.
pub struct Fill<'a> {
    /// The store's name in the playbook.
    pub store: &'a str,
    /// Production, watched.
    pub from: &'a Arc<Server>,
    /// The servers that have proven to be copies.
    pub copies: &'a Copies,
    /// What moves.
    pub selection: &'a Arc<Selection>,
    /// Run, epoch, cancelling, steering.
    pub context: &'a StepContext,
    /// How many bytes a second.
    pub rate: HumanRate,
    /// How far it is.
    pub progress: &'a FillProgress,
}

impl Fill<'_> {
    fn name(&self) -> String {
        name_of(self.store)
    }
    fn to(&self) -> &Arc<Server> {
        self.copies.source()
    }

    /// Fills it; goes on from what an earlier attempt of this run left whole.
    ///
    /// # Errors
    /// If the server is not empty, or is of another kind than production; as the servers give them. What was made stays until it is removed.
    pub async fn run(&self) -> Result<Filled> {
        let mut here = Session::open(self.to(), Purpose::Catalog).await?;
        room::enter(&mut here, &self.name(), &self.context.run, self.context.epoch).await?;
        let mut origin = Origin::open(self.from, self.selection).await?;
        room::same_kind(&mut here, &origin.facts).await?;
        let standing = standing::settle(&mut here, &self.name(), &origin).await?;
        for database in &origin.catalog.databases {
            self.context.record(MADE, &format!("database `{}` on the {}", database.name, self.to()), &serde_json::json!({}))?;
        }
        structure::databases(&mut here, &self.name(), &origin.catalog).await?;
        crash::point("fill.databases_made");
        for (table, definition) in origin.definitions.iter().filter(|(table, _)| !standing.contains_key(*table)) {
            self.go_on()?;
            structure::table(&mut here, table, definition).await?;
        }
        let there: Vec<_> = origin.catalog.tables.values().cloned().collect();
        let tables = Arc::new(Tables::new(&there, &origin.facts.version)?);
        let expected = tables.iter().fold(0_u64, |sum, (_, table)| sum.saturating_add(table.table.row_estimate));
        self.progress.expected.store(expected, Ordering::Relaxed);
        self.progress.rows.store(standing.values().map(|whole| whole.rows).sum(), Ordering::Relaxed);
        let mut filled = Filled {
            from_before: standing.len() as u64,
            databases: origin.catalog.databases.iter().map(|database| database.name.clone()).collect(),
            position: origin.position.as_ref().map(ToString::to_string),
            without_snapshot: origin.without_snapshot(),
            ..Filled::default()
        };
        let began = Instant::now();
        let mut copying = rows::Copying::open(self, &mut origin).await?;
        for (_, table) in tables.iter() {
            let whole = match standing.get(table.name()) {
                Some(whole) => *whole,
                None => copying.table(table).await?,
            };
            filled.tables.insert(table.name().to_string(), whole);
        }
        copying.close().await;
        filled.bytes_read = self.progress.bytes.load(Ordering::Relaxed);
        filled.seconds = began.elapsed().as_secs_f64();
        self.progress.say("creating views, routines, triggers and events".to_owned());
        self.go_on()?;
        filled.not_as_there = structure::objects(self, &mut here, &origin, &tables).await?;
        structure::compare(&mut here, self.selection, &origin.catalog).await?;
        origin.close().await;
        here.close().await;
        Ok(filled)
    }

    fn go_on(&self) -> Result<()> {
        if self.context.cancel.is_cancelled() { Err(MysqlError::Cancelled) } else { Ok(()) }
    }

    fn pace(&self) -> Pace {
        Pace::new(self.rate)
    }
}

/// Tables as names.
fn names<'a>(tables: impl Iterator<Item = &'a TableName>) -> Vec<String> {
    tables.map(ToString::to_string).collect()
}
