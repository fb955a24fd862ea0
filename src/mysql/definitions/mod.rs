//! Following definitions: what becomes of the target's tables when tables are created, dropped, renamed or altered on the source
//! while the run is going.
//!
//! # How
//!
//! A statement in the log says *that* a definition changed, never reliably *how*: by the time it is read, the table may have been
//! changed again, and what it was in between is not known to anybody any more. So no such statement is ever run on the target.
//! Instead the affected tables **begin anew**: at a position `S` at which the source's definitions are known, they are made on the
//! target as the source has them then, and copied again from the start. That is the situation in which every table was when
//! the run began, with `S` in place of the run's own start, and it is right for the same reasons ([`copy`](crate::mysql::copy)).
//!
//! # What must hold
//!
//! 1. **Every name has a beginning** `S`. What the log says of the name at or before it, rows and definitions alike, is passed
//!    over: its effect is in the rows that are read later, or was undone. What comes behind it is applied. `S` is read on the source, so
//!    it never lies inside a transaction; and it is the end of the log as it was *later* than the statement that made it necessary.
//! 2. The definitions are read before `S` and once more after it, and count only if both readings are equal: then they hold at
//!    `S`. A change that was carried out but not logged yet at `S` comes later in the log, and makes the table begin once more. So does one
//!    that was made before `S` and taken back behind it, both between the two readings; rows between the two that the definition does not
//!    fit make the table begin anew at once ([`Misfits`]), and the others don't matter, as what takes the change back is still to come.
//! 3. **No row is decoded by a definition that is not its own.** Rows of a table that was altered again between the statement
//!    and `S` lie before `S` and are not looked at.
//! 4. Rows are read a settle time after `S`, and a chunk goes in after the applier has passed the position read behind
//!    it, which is behind `S`: rules 2 and 3 of copying, unchanged.
//! 5. **Whatever a cascade may have changed unseen begins anew with it.** Deletes of a parent before `S` are passed over, and
//!    their cascades are in no log. So the children under CASCADE and SET NULL, all levels down, begin anew with their parent.
//! 6. Nobody works by the old definitions while they change. Copier and verifier hold a pass ([`Steady`]); they are told to stop, their passes
//!    are waited for, and then the lease's row is locked exclusively, which waits for a commit that was on its way. They start again
//!    with the new definitions: a copy from what is in, a comparison from its beginning.
//!    What fails meanwhile because the source has the new definitions already (a column is unknown) is no failure
//!    before the log has been followed to where it ended then ([`MysqlStore::failed_by_itself`](super::store::MysqlStore::failed_by_itself)).
//! 7. **A crash at any point repeats it.** What begins anew is noted (`making`) before anything is dropped, in the transaction that forgets
//!    what was copied of it, and the note is taken back last. The applied position stays before the statement until the log is read on; read
//!    again, the statement lies before the beginnings of all its tables and is passed over.
//! 8. A table is dropped on the target only if this run made it, and only because a statement of the log named it. A table
//!    that is not to be seen on the source any more (a privilege may be gone) is left alone until then; and so is, with `on_ddl: stop`, one that is another
//!    now: it may have been altered, which stops the run, or renamed, which is followed. Only the log tells. Its rows up to `S` are passed
//!    over meanwhile, and rows behind `S` without such a statement before them stop the run. The one exception is a table that left the source
//!    between `mysql.prepare` and the log's first position: no statement will ever name it, nothing of it is copied, and it is dropped, and named.
//! 9. Nothing is switched while a table is being copied again: `mysql.fence` waits for it before writes are held, and
//!    `mysql.catch_up` gives up (and the cutover is undone) if it happened in the moment between.
//!
//! # What is passed over, and what stops
//!
//! `CREATE TABLE` of a table that exists (`IF NOT EXISTS`) and `DROP TABLE` of one that does not change nothing. CREATE, DROP and
//! RENAME TABLE are always followed; `ALTER TABLE` and index statements with `on_ddl: apply`. Statements whose effect can't be told from the definitions
//! of the tables they name (`EXCHANGE PARTITION`, `DISCARD TABLESPACE`, `DROP DATABASE`, `ALTER DATABASE` …) stop the run.
//! `DROP DATABASE` is one of them on purpose: it takes everything, and a person should say that the copy is to lose it too.
//!
//! # What it costs
//!
//! A renamed table is copied again. That is as long as its copy took before, and nothing else waits for it. To rename it on the target would be
//! quick, and right only if nothing touched either name up to `S`.
//!
//! # The rest
//!
//! Delete memory, parents and marks are new for all tables, as after a crash, and are rebuilt in the same way (from the log, or by reading
//! chunks again); the tables that began anew count as touched altogether, so they are compared as a whole before the switch. A keyless table forgets its position and
//! is copied from one of its own. AUTO_INCREMENT counters are raised when the rows are in. The structure is compared with the new definitions,
//! since the verifier takes them from the same place. In a rehearsal all of it is the same code.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`records`] | what is kept of it on the target |
//! | [`settle`] | makes the target's tables what the source's are now |
//! | [`again`] | copies what began anew, when nobody else does |

pub mod again;
pub mod records;
pub mod settle;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use super::names::TableName;
use super::position::Position;

/// What to do about a table that was altered where that is not followed.
pub const ALTERED: &str = "give the run up with `dbmove undo PLAYBOOK`, which drops what it made on the target; say `on_ddl: apply` in the store to have altered tables copied again, or let nobody change the structure until the switch is done; then start again with `dbmove run PLAYBOOK --new-run`";

/// A statement of the log that makes tables begin anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it ends in the log.
    pub position: Position,
    /// Its beginning, for people.
    pub statement: String,
    /// The included tables that it names.
    pub tables: BTreeSet<TableName>,
}

/// Up to where the log is passed over, name by name. A name that is not here begins with the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beginnings {
    at: HashMap<TableName, Position>,
    gone: HashSet<TableName>,
    /// Where all of the source's definitions were read.
    seen: Option<Position>,
}

impl Beginnings {
    /// What is known of the names.
    #[must_use]
    pub fn new(at: HashMap<TableName, Position>, gone: HashSet<TableName>) -> Self {
        Beginnings { at, gone, seen: None }
    }

    /// The same, by definitions that were read at that position.
    #[must_use]
    pub fn seen_at(self, position: Position) -> Self {
        Beginnings { seen: Some(position), ..self }
    }

    /// Whether rows that end there, of a table that the definitions do not have, were over when those were read: the table came and went since the
    /// run's start, or has another name by now, and begins anew under that.
    #[must_use]
    pub fn was_over(&self, end: &Position) -> bool {
        self.seen.as_ref().is_some_and(|seen| end <= seen)
    }

    /// Whether rows of the table that end there are passed over.
    #[must_use]
    pub fn covers(&self, name: &TableName, end: &Position) -> bool {
        self.at.get(name).is_some_and(|begin| end <= begin)
    }

    /// The table's beginning, if it is not the run's.
    #[must_use]
    pub fn of(&self, name: &TableName) -> Option<&Position> {
        self.at.get(name)
    }

    /// Tables that are not on the source any more, or others, while the target has what was there before, since no statement has said so yet.
    #[must_use]
    pub fn is_gone(&self, name: &TableName) -> bool {
        self.gone.contains(name)
    }

    /// The names that have a beginning of their own.
    pub fn iter(&self) -> impl Iterator<Item = (&TableName, &Position)> {
        self.at.iter()
    }
}

/// How often rows that don't fit make one table begin anew.
const MISFITS: u32 = 5;

/// How often each table began anew because rows in the log did not fit its definition.
#[derive(Default)]
pub struct Misfits(Mutex<HashMap<TableName, u32>>);

impl Misfits {
    /// Counts one more of the table; `false` if there were too many before.
    pub fn is_new(&self, name: &TableName) -> bool {
        let mut misfits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = misfits.entry(name.clone()).or_default();
        *count += 1;
        *count <= MISFITS
    }
}

/// Who works by the definitions as they are, and who changes them.
#[derive(Default)]
pub struct Definitions {
    used: Arc<RwLock<()>>,
    changes: watch::Sender<u64>,
}

/// A pass of one who works by the definitions as they are: keep it (or a clone of its guard) as long as anything is done by them.
pub struct Steady {
    /// The pass.
    pub guard: Guard,
    changes: watch::Receiver<u64>,
}

/// Held while something works by the definitions.
pub type Guard = Arc<OwnedRwLockReadGuard<()>>;

/// Between two calls to those who still work by the old definitions.
const CALL_EVERY: Duration = Duration::from_millis(100);

impl Definitions {
    /// A pass, once nobody changes anything.
    pub async fn steady(&self) -> Steady {
        let guard = Arc::new(self.used.clone().read_owned().await);
        // Seen after the pass is there: who changes them calls again until nobody has one.
        let mut changes = self.changes.subscribe();
        changes.borrow_and_update();
        Steady { guard, changes }
    }

    /// Calls everybody off and waits until they have stopped.
    pub async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        let alone = self.used.clone().write_owned();
        tokio::pin!(alone);
        loop {
            self.changes.send_modify(|change| *change += 1);
            tokio::select! {
                guard = &mut alone => return guard,
                () = tokio::time::sleep(CALL_EVERY) => {}
            }
        }
    }
}

impl Steady {
    /// Waits until the definitions are about to change: stop, drop this and everything that holds its guard, and begin again.
    pub async fn ended(&mut self) {
        // The sender lives in the store, which outlives its steps; should it be gone, nothing changes any more.
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_at_the_beginning_is_passed_over() {
        let name = TableName::new("s", "t");
        let beginnings = Beginnings::new(HashMap::from([(name.clone(), Position::new("b.000002", 100))]), HashSet::new());
        assert!(beginnings.covers(&name, &Position::new("b.000002", 100)));
        assert!(beginnings.covers(&name, &Position::new("b.000001", 900)));
        assert!(!beginnings.covers(&name, &Position::new("b.000002", 101)));
        assert!(!beginnings.covers(&TableName::new("s", "u"), &Position::new("b.000001", 4)));
        assert!(!beginnings.was_over(&Position::new("b.000001", 4)));
        let beginnings = beginnings.seen_at(Position::new("b.000001", 50));
        assert!(beginnings.was_over(&Position::new("b.000001", 50)) && !beginnings.was_over(&Position::new("b.000001", 51)));
    }

    #[tokio::test]
    async fn whoever_works_by_the_old_definitions_is_called_off_and_waited_for() {
        let definitions = Arc::new(Definitions::default());
        let mut steady = definitions.steady().await;
        let held = steady.guard.clone();
        let changing = tokio::spawn({
            let definitions = definitions.clone();
            async move { drop(definitions.alone().await) }
        });
        steady.ended().await;
        drop(steady);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!changing.is_finished(), "a task still holds the guard");
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), changing).await.unwrap().unwrap();
        tokio::time::timeout(Duration::from_secs(5), definitions.steady()).await.unwrap();
    }
}
