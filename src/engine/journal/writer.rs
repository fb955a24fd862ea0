//! Writing: the journal of a state directory, and one driver's hand on one run of it.
//!
//! [`Journal`] opens the file; [`RunJournal`] is a driver's: it knows run and epoch, refuses to write once another driver
//! holds the run, folds what it writes into the state the scheduler looks at, and tells the observer. The state changes
//! under the same lock as the file, so nobody sees one without the other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::Semaphore;

use super::chain::{self, Audit};
use super::event::{Event, RecordedEvent};
use super::reader::{self, JournalReader};
use super::state::RunState;
use super::{JournalError, WAITING, file};
use crate::engine::approval::Given;
use crate::engine::context::{Checkpoints, Progress};
use crate::engine::crash;
use crate::engine::lease::LeaseError;
use crate::engine::observer::Observer;
use crate::engine::step::{Epoch, StepError, Work};

/// How many points a series may have before every second one of its older half is dropped.
const SERIES_POINTS: u32 = 2_000;

struct Inner {
    connection: Mutex<Connection>,
    path: PathBuf,
    waiting: Semaphore,
}

/// The journal of a state directory; cheap to clone.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

/// Runs something that blocks on a thread that may.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Journal {
    /// Opens (and creates, if need be) the journal in a state directory.
    ///
    /// # Errors
    /// [`JournalError`] if the directory is not safe, the file of a newer format, or the disk full.
    pub fn open(state_directory: &Path) -> Result<Journal, JournalError> {
        let (connection, path) = file::open(state_directory)?;
        Ok(Journal { inner: Arc::new(Inner { connection: Mutex::new(connection), path, waiting: Semaphore::new(WAITING) }) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// A second, read-only view of the same file.
    ///
    /// # Errors
    /// [`JournalError`] if it can't be opened.
    pub fn reader(&self) -> Result<JournalReader, JournalError> {
        JournalReader::open(self.inner.path.parent().unwrap_or(&self.inner.path))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere rolled its transaction back when it was dropped; the connection is as good as before.
        self.inner.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::engine) fn failed(&self, error: &rusqlite::Error) -> JournalError {
        file::failed(&self.inner.path, error)
    }

    /// One transaction, synchronously.
    pub(in crate::engine) fn transaction<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| self.failed(&error))?;
        let value = work(&transaction)?;
        crash::point("journal.before_commit");
        transaction.commit().map_err(|error| self.failed(&error))?;
        crash::point("journal.committed");
        Ok(value)
    }

    /// The same on the blocking pool. Once begun it is carried through even if the future is dropped.
    pub(in crate::engine) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let stopped = |what: &str| JournalError::Io { path: self.inner.path.clone(), error: what.to_owned() };
        let _permit = self.inner.waiting.acquire().await.map_err(|_| stopped("the journal is closed"))?;
        let journal = self.clone();
        tokio::task::spawn_blocking(move || work(&journal))
            .await
            .map_err(|error| stopped(&format!("the writing task ended early ({error})")))?
    }

    /// Appends an event inside a transaction and moves the chain's end.
    pub(in crate::engine) fn append_in(
        &self,
        transaction: &Transaction<'_>,
        run: &str,
        event: Event,
    ) -> Result<RecordedEvent, JournalError> {
        let sql = |error: rusqlite::Error| self.failed(&error);
        let damaged = |reason: String| JournalError::Damaged { path: self.inner.path.clone(), sequence: None, reason };
        let head = chain::head(transaction).map_err(sql)?;
        let sequence = head.count + 1;
        let at = Timestamp::now().round(jiff::Unit::Microsecond).map_err(|error| damaged(error.to_string()))?;
        let body = serde_json::to_string(&event).map_err(|error| damaged(format!("an event can't be written as JSON: {error}")))?;
        let hash = chain::hash(&head.hash, sequence, run, &at.to_string(), event.kind(), &body);
        let number = i64::try_from(sequence).map_err(|error| damaged(error.to_string()))?;
        transaction
            .execute(
                "INSERT INTO events (seq, run, at, kind, body, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![number, run, at.to_string(), event.kind(), body, hash],
            )
            .map_err(sql)?;
        transaction.execute("UPDATE chain SET count = ?1, hash = ?2 WHERE id = 1", params![number, hash]).map_err(sql)?;
        match &event {
            Event::RunStarted(started) => {
                transaction
                    .execute(
                        "INSERT INTO runs (run, playbook, kind, started) VALUES (?1, ?2, ?3, ?4)",
                        params![run, started.playbook, reader::kind_text(started.kind), number],
                    )
                    .map_err(sql)?;
            }
            Event::RunFinished { concluded, .. } => {
                transaction.execute("UPDATE runs SET concluded = ?2 WHERE run = ?1", params![run, concluded]).map_err(sql)?;
            }
            _ => {}
        }
        Ok(RecordedEvent { sequence, run: run.to_owned(), at, event, hash })
    }

    /// Gives up the space kept for cleaning up on a full disk; false if it was gone already.
    pub(in crate::engine) fn release_reserve(&self) -> bool {
        file::release_reserve(&self.inner.path)
    }

    /// Checks the chain.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read at all.
    pub fn audit(&self) -> Result<Audit, JournalError> {
        chain::audit(&self.lock()).map_err(|error| self.failed(&error))
    }
}

/// One number of a time series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The step.
    pub step: String,
    /// What was measured: `done`, `rate`, `lag_seconds`.
    pub name: &'static str,
    /// The number.
    pub value: f64,
}

impl Sample {
    /// The numbers in a step's progress.
    #[must_use]
    pub fn of_progress(step: &str, progress: &Progress) -> Vec<Sample> {
        // Charts need no more than the 53 bits a double holds.
        #[expect(clippy::cast_precision_loss)]
        let done = progress.done as f64;
        let numbers = [("done", Some(done)), ("rate", progress.rate), ("lag_seconds", progress.lag.map(|lag| lag.as_secs_f64()))];
        numbers
            .into_iter()
            .filter_map(|(name, value)| Some(Sample { step: step.to_owned(), name, value: value.filter(|value| value.is_finite())? }))
            .collect()
    }
}

/// A driver's hand on one run; cheap to clone. Every write is refused once another driver holds the run.
#[derive(Clone)]
pub struct RunJournal {
    journal: Journal,
    run: Arc<str>,
    epoch: Epoch,
    state: Arc<Mutex<RunState>>,
    observer: Arc<dyn Observer>,
}

impl RunJournal {
    pub(in crate::engine) fn new(
        journal: Journal,
        run: Arc<str>,
        epoch: Epoch,
        state: RunState,
        observer: Arc<dyn Observer>,
    ) -> RunJournal {
        RunJournal { journal, run, epoch, state: Arc::new(Mutex::new(state)), observer }
    }

    /// The journal it belongs to.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> &Arc<str> {
        &self.run
    }

    /// This driver's epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the run stands, with every event that was written so far.
    #[must_use]
    pub fn state(&self) -> RunState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the state without copying it.
    pub fn with_state<T>(&self, look: impl FnOnce(&RunState) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One transaction that is refused if the lease is gone.
    fn guarded<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, JournalError>) -> Result<T, JournalError> {
        self.journal.transaction(|transaction| {
            let held: Option<bool> = transaction
                .query_row(
                    "SELECT held AND epoch = ?2 FROM leases WHERE run = ?1",
                    params![&*self.run, self.epoch.0.cast_signed()],
                    |row| row.get(0),
                )
                .optional()
                .map_err(|error| self.journal.failed(&error))?;
            if held != Some(true) {
                return Err(LeaseError::Lost { run: self.run.to_string(), epoch: self.epoch.0 }.into());
            }
            work(transaction)
        })
    }

    /// Appends an event, on disk when it returns.
    ///
    /// # Errors
    /// [`JournalError`]: nothing was written, and nothing may act.
    pub fn append_blocking(&self, event: Event) -> Result<RecordedEvent, JournalError> {
        let recorded = self.guarded(|transaction| self.journal.append_in(transaction, &self.run, event))?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).apply(&recorded);
        self.observer.event(&recorded);
        Ok(recorded)
    }

    /// The same without blocking the runtime.
    ///
    /// # Errors
    /// [`JournalError`]: nothing was written, and nothing may act.
    pub async fn append(&self, event: Event) -> Result<RecordedEvent, JournalError> {
        let me = self.clone();
        self.journal.write(move |_| me.append_blocking(event)).await
    }

    /// Keeps a measured rate.
    ///
    /// # Errors
    /// [`JournalError`] if it can't be written.
    pub async fn rate(&self, step: &str, work: &Work) -> Result<(), JournalError> {
        let (me, step, work) = (self.clone(), step.to_owned(), work.clone());
        self.journal
            .write(move |journal| {
                me.guarded(|transaction| {
                    transaction
                        .execute(
                            "INSERT OR REPLACE INTO rates (run, step, unit, amount, seconds) VALUES (?1, ?2, ?3, ?4, ?5)",
                            params![&*me.run, step, work.unit, i64::try_from(work.amount).unwrap_or(i64::MAX), work.seconds],
                        )
                        .map_err(|error| journal.failed(&error))?;
                    Ok(())
                })
            })
            .await
    }

    /// Adds numbers to the time series, thinning those that grew too long.
    ///
    /// # Errors
    /// [`JournalError`] if they can't be written.
    pub async fn samples(&self, samples: Vec<Sample>) -> Result<(), JournalError> {
        if samples.is_empty() {
            return Ok(());
        }
        let me = self.clone();
        self.journal
            .write(move |journal| {
                me.guarded(|transaction| write_samples(transaction, &me.run, &samples).map_err(|error| journal.failed(&error)))
            })
            .await
    }

    fn put(&self, sql: &'static str, parts: &[&str]) -> Result<(), StepError> {
        blocking(|| {
            self.guarded(|transaction| {
                transaction.execute(sql, rusqlite::params_from_iter(parts)).map_err(|error| self.journal.failed(&error))?;
                Ok(())
            })
        })
        .map_err(StepError::from)
    }

    fn get<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StepError> {
        blocking(|| read(&self.journal.lock()).map_err(|error| self.journal.failed(&error))).map_err(StepError::from)
    }
}

fn write_samples(transaction: &Transaction<'_>, run: &str, samples: &[Sample]) -> rusqlite::Result<()> {
    let now = Timestamp::now().as_millisecond();
    for sample in samples {
        transaction.execute(
            "INSERT OR REPLACE INTO series (run, step, name, at, value) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![run, sample.step, sample.name, now, sample.value],
        )?;
        let points: u32 = transaction.query_row(
            "SELECT count(*) FROM series WHERE run = ?1 AND step = ?2 AND name = ?3",
            params![run, sample.step, sample.name],
            |row| row.get(0),
        )?;
        if points > SERIES_POINTS {
            transaction.execute(
                "DELETE FROM series WHERE run = ?1 AND step = ?2 AND name = ?3 AND at IN (
                     SELECT at FROM (
                         SELECT at, row_number() OVER (ORDER BY at) AS number FROM series WHERE run = ?1 AND step = ?2 AND name = ?3
                     ) WHERE number <= ?4 AND number % 2 = 0)",
                params![run, sample.step, sample.name, SERIES_POINTS / 2],
            )?;
        }
    }
    Ok(())
}

fn damaged_value(step: &str, key: &str, error: &serde_json::Error) -> StepError {
    StepError::definite(format!("the journal's value `{key}` of step `{step}` is damaged: {error}")).hint("look with `dbmove audit`")
}

impl Checkpoints for RunJournal {
    fn save(&self, step: &str, key: &str, value: &serde_json::Value) -> Result<(), StepError> {
        let value = value.to_string();
        self.put("INSERT OR REPLACE INTO checkpoints (run, step, key, value) VALUES (?1, ?2, ?3, ?4)", &[&self.run, step, key, &value])
    }

    fn load(&self, step: &str, key: &str) -> Result<Option<serde_json::Value>, StepError> {
        let text: Option<String> = self.get(|connection| {
            connection
                .query_row(
                    "SELECT value FROM checkpoints WHERE run = ?1 AND step = ?2 AND key = ?3",
                    params![&*self.run, step, key],
                    |row| row.get(0),
                )
                .optional()
        })?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| damaged_value(step, key, &error))).transpose()
    }

    fn record(&self, step: &str, kind: &str, key: &str, value: &serde_json::Value) -> Result<(), StepError> {
        let value = value.to_string();
        self.put(
            "INSERT OR REPLACE INTO results (run, step, kind, key, value) VALUES (?1, ?2, ?3, ?4, ?5)",
            &[&self.run, step, kind, key, &value],
        )
    }

    fn recorded(&self, step: &str, kind: &str) -> Result<Vec<(String, serde_json::Value)>, StepError> {
        let rows = self.get(|connection| reader::results(connection, &self.run, step, kind))?;
        rows.into_iter()
            .map(|(key, text)| serde_json::from_str(&text).map_err(|error| damaged_value(step, &key, &error)).map(|value| (key, value)))
            .collect()
    }

    /// From the file, not from the fold: it is another process that writes approvals.
    fn approval(&self, step: &str) -> Result<Option<Given>, StepError> {
        let events = blocking(|| reader::events_of_kind(&self.journal.lock(), self.journal.path(), &self.run, Event::APPROVED))
            .map_err(StepError::from)?;
        let playbook_hash = self.with_state(|state| state.fingerprint.whole.clone());
        let given = events.into_iter().rev().find_map(|recorded| match recorded.event {
            Event::Approved(approval) if approval.step == step && approval.playbook_hash == playbook_hash => {
                Some(Given { at: recorded.at, approval })
            }
            _ => None,
        });
        Ok(given)
    }

    fn find(&self, step: &str, id: &str, finding: &serde_json::Value) -> Result<(), StepError> {
        let value = finding.to_string();
        self.put("INSERT OR REPLACE INTO findings (run, step, id, value) VALUES (?1, ?2, ?3, ?4)", &[&self.run, step, id, &value])
    }
}
