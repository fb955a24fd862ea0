//! What the steps of one store share while they run: the tables, and what copying, following and
//! verifying have to know of each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::apply::parents::ParentMemory;
use super::bookkeeping;
use super::connect::{Purpose, Server, Session};
use super::definitions::Beginnings;
use super::delete_memory::DeleteMemory;
use super::error::Result;
use super::names::Selection;
use super::position::Position;
use super::range_gate::RangeGate;
use super::tables::{TableId, Tables};
use super::touches::Touches;

/// Shared by copier, applier and verifier of one store.
pub struct Shared {
    /// The store's name in the playbook.
    pub store: String,
    /// What moves.
    pub selection: Arc<Selection>,
    /// The tables that move.
    pub tables: Arc<Tables>,
    /// Keeps chunks and events on their range apart.
    pub gate: RangeGate,
    /// Keys that were deleted lately.
    pub deletes: DeleteMemory,
    /// Cascading parents that changed lately.
    pub parents: ParentMemory,
    /// Keys that have to be compared again.
    pub touches: Touches,
    /// Up to where the log is passed over, for tables that began after the run did.
    pub beginnings: Arc<Beginnings>,
    keyless: Mutex<BTreeMap<TableId, Position>>,
    notes: Mutex<Vec<String>>,
    throttle: watch::Sender<Option<String>>,
}

/// Notes kept at most: an account script must not fill the memory.
const NOTES: usize = 1000;

impl Shared {
    /// With room for `remembered` keys in each memory.
    #[must_use]
    pub fn new(store: &str, selection: Arc<Selection>, tables: Arc<Tables>, remembered: usize) -> Self {
        Shared {
            store: store.to_owned(),
            selection,
            tables,
            gate: RangeGate::default(),
            deletes: DeleteMemory::new(remembered),
            parents: ParentMemory::new(remembered),
            touches: Touches::new(remembered),
            beginnings: Arc::default(),
            keyless: Mutex::default(),
            notes: Mutex::default(),
            throttle: watch::Sender::new(None),
        }
    }

    /// The same tables with nothing remembered, beginning there; the notes stay.
    #[must_use]
    pub fn begun(tables: &Shared, beginnings: Arc<Beginnings>, remembered: usize, notes: Vec<String>) -> Self {
        let new = Shared::new(&tables.store, tables.selection.clone(), tables.tables.clone(), remembered);
        Shared { beginnings, notes: Mutex::new(notes), ..new }
    }

    /// Through which position the events of each copied keyless table are in.
    #[must_use]
    pub fn keyless_positions(&self) -> BTreeMap<TableId, Position> {
        lock(&self.keyless).clone()
    }

    /// A keyless table was copied, or its events applied, up to a position.
    pub fn keyless_reached(&self, table: TableId, position: Position) {
        lock(&self.keyless).insert(table, position);
    }

    /// Reads the saved positions of keyless tables from the target, and takes them over.
    ///
    /// # Errors
    /// If they can't be read.
    pub async fn load_keyless(&self, session: &mut Session) -> Result<BTreeMap<TableId, Position>> {
        let saved = bookkeeping::keyless(session, &self.store).await?;
        let positions: BTreeMap<TableId, Position> =
            saved.into_iter().filter_map(|(name, position)| Some((self.tables.id(&name.database, &name.table)?, position))).collect();
        *lock(&self.keyless) = positions.clone();
        Ok(positions)
    }

    /// Opens a writing session on the target.
    ///
    /// # Errors
    /// If the target can't be reached.
    pub async fn open_writer(&self, server: &Arc<Server>) -> Result<Session> {
        let mut session = Session::open(server, Purpose::Write).await?;
        session.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", "setting the isolation level").await?;
        Ok(session)
    }

    /// Something a person should know; shown and kept for the report.
    pub fn note(&self, note: String) {
        tracing::warn!(store = %self.store, "{note}");
        let mut notes = lock(&self.notes);
        if notes.len() < NOTES {
            notes.push(note);
        }
    }

    /// The notes so far.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        lock(&self.notes).clone()
    }

    /// Says why following is held back, or that it is not.
    pub fn throttle(&self, reason: Option<String>) {
        self.throttle.send_replace(reason);
    }

    /// Why following is held back, if it is.
    #[must_use]
    pub fn throttled(&self) -> Option<String> {
        self.throttle.borrow().clone()
    }
}

/// A lock on a value that is only ever replaced or added to as a whole, so a panic elsewhere leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
