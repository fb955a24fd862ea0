//! Reading: what `status`, `report` and `audit` work from, with or without a driver running.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::chain::{self, Audit, Head};
use super::event::{Event, RecordedEvent};
use super::state::RunState;
use super::{JournalError, file};
use crate::engine::certificate::Certificate;
use crate::engine::context::RunKind;
use crate::engine::lease::{self, LeaseView};
use crate::engine::step::Work;

/// A run, in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id.
    pub run: String,
    /// The playbook's name.
    pub playbook: String,
    /// Rehearsal or production.
    pub kind: RunKind,
    /// True if it is over for good.
    pub concluded: bool,
}

/// One point of a time series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesPoint {
    /// When.
    pub at: Timestamp,
    /// The number.
    pub value: f64,
}

/// A certificate and the event that it stands in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Issued {
    /// What the rehearsal left behind.
    pub certificate: Certificate,
    /// The event's number.
    pub event: u64,
    /// The event's hash in the chain.
    pub event_hash: String,
}

/// A read-only view of a journal.
pub struct JournalReader {
    connection: Connection,
    path: PathBuf,
}

pub(in crate::engine) fn kind_text(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Rehearsal => "rehearsal",
        RunKind::Production => "production",
    }
}

fn kind_of(text: &str) -> RunKind {
    if text == "rehearsal" { RunKind::Rehearsal } else { RunKind::Production }
}

pub(super) fn results(connection: &Connection, run: &str, step: &str, kind: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement =
        connection.prepare_cached("SELECT key, value FROM results WHERE run = ?1 AND step = ?2 AND kind = ?3 ORDER BY key")?;
    let rows = statement.query_map(params![run, step, kind], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

type Stored = (i64, String, String, String, String);

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn recorded(path: &Path, (sequence, run, at, body, hash): Stored) -> Result<RecordedEvent, JournalError> {
    let sequence = sequence.unsigned_abs();
    let damaged = |reason: String| JournalError::Damaged { path: path.to_owned(), sequence: Some(sequence), reason };
    let at = at.parse().map_err(|error: jiff::Error| damaged(error.to_string()))?;
    let event: Event = serde_json::from_str(&body).map_err(|error| damaged(error.to_string()))?;
    Ok(RecordedEvent { sequence, run, at, event, hash })
}

/// Every event of a run after the given one, in order.
pub(in crate::engine) fn events_after(
    connection: &Connection,
    path: &Path,
    run: &str,
    after: u64,
) -> Result<Vec<RecordedEvent>, JournalError> {
    let read = || -> rusqlite::Result<Vec<Stored>> {
        let mut statement =
            connection.prepare_cached("SELECT seq, run, at, body, hash FROM events WHERE run = ?1 AND seq > ?2 ORDER BY seq")?;
        let rows = statement.query_map(params![run, after.cast_signed()], stored)?;
        rows.collect()
    };
    read().map_err(|error| file::failed(path, &error))?.into_iter().map(|row| recorded(path, row)).collect()
}

/// Every event of one kind in a run, in order.
pub(super) fn events_of_kind(connection: &Connection, path: &Path, run: &str, kind: &str) -> Result<Vec<RecordedEvent>, JournalError> {
    let read = || -> rusqlite::Result<Vec<Stored>> {
        let mut statement =
            connection.prepare_cached("SELECT seq, run, at, body, hash FROM events WHERE run = ?1 AND kind = ?2 ORDER BY seq")?;
        let rows = statement.query_map(params![run, kind], stored)?;
        rows.collect()
    };
    read().map_err(|error| file::failed(path, &error))?.into_iter().map(|row| recorded(path, row)).collect()
}

/// The newest run of a playbook and kind.
pub(in crate::engine) fn latest_run(connection: &Connection, playbook: &str, kind: RunKind) -> rusqlite::Result<Option<RunSummary>> {
    connection
        .query_row(
            "SELECT run, playbook, kind, concluded FROM runs WHERE playbook = ?1 AND kind = ?2 ORDER BY started DESC LIMIT 1",
            params![playbook, kind_text(kind)],
            summary,
        )
        .optional()
}

fn summary(row: &Row<'_>) -> rusqlite::Result<RunSummary> {
    Ok(RunSummary { run: row.get(0)?, playbook: row.get(1)?, kind: kind_of(&row.get::<_, String>(2)?), concluded: row.get(3)? })
}

impl JournalReader {
    /// Opens the journal of a state directory for reading.
    ///
    /// # Errors
    /// [`JournalError::Missing`] if there is none; [`JournalError::Newer`] if a newer build wrote it.
    pub fn open(state_directory: &Path) -> Result<JournalReader, JournalError> {
        let (connection, path) = file::open_read_only(state_directory)?;
        Ok(JournalReader { connection, path })
    }

    fn failed(&self, error: &rusqlite::Error) -> JournalError {
        file::failed(&self.path, error)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All runs, newest first.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read.
    pub fn runs(&self) -> Result<Vec<RunSummary>, JournalError> {
        let read = || -> rusqlite::Result<Vec<RunSummary>> {
            let mut statement = self.connection.prepare_cached("SELECT run, playbook, kind, concluded FROM runs ORDER BY started DESC")?;
            let rows = statement.query_map([], summary)?;
            rows.collect()
        };
        read().map_err(|error| self.failed(&error))
    }

    /// The newest run of a playbook and kind.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read.
    pub fn latest_run(&self, playbook: &str, kind: RunKind) -> Result<Option<RunSummary>, JournalError> {
        latest_run(&self.connection, playbook, kind).map_err(|error| self.failed(&error))
    }

    /// A run's events after the given one (0: all), in order.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read or an event is damaged.
    pub fn events(&self, run: &str, after: u64) -> Result<Vec<RecordedEvent>, JournalError> {
        events_after(&self.connection, &self.path, run, after)
    }

    /// Where a run stands.
    ///
    /// # Errors
    /// [`JournalError::UnknownRun`] if there is no such run.
    pub fn state(&self, run: &str) -> Result<RunState, JournalError> {
        RunState::fold(&self.events(run, 0)?).ok_or_else(|| JournalError::UnknownRun(run.to_owned()))
    }

    /// Who drives a run, and whether that driver is alive, as far as can be told from here.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read.
    pub fn lease(&self, run: &str) -> Result<Option<LeaseView>, JournalError> {
        lease::view(&self.connection, run).map_err(|error| self.failed(&error))
    }

    /// The newest certificate of a playbook, whether it still holds or not.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read or the certificate is damaged.
    pub fn certificate(&self, playbook: &str) -> Result<Option<Certificate>, JournalError> {
        Ok(self.certificates(playbook)?.pop().map(|issued| issued.certificate))
    }

    /// All certificates of a playbook, the oldest first.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read or a certificate is damaged.
    pub fn certificates(&self, playbook: &str) -> Result<Vec<Issued>, JournalError> {
        let read = || -> rusqlite::Result<Vec<Stored>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT e.seq, e.run, e.at, e.body, e.hash FROM events e JOIN runs r ON r.run = e.run
                 WHERE e.kind = 'certificate_issued' AND r.playbook = ?1 ORDER BY e.seq",
            )?;
            let rows = statement.query_map(params![playbook], stored)?;
            rows.collect()
        };
        let rows = read().map_err(|error| self.failed(&error))?;
        let mut found = Vec::new();
        for row in rows {
            let recorded = recorded(&self.path, row)?;
            if let Event::CertificateIssued { certificate } = recorded.event {
                found.push(Issued { certificate: *certificate, event: recorded.sequence, event_hash: recorded.hash });
            }
        }
        Ok(found)
    }

    /// The newest measured rate of each step of a playbook, from any run.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read.
    pub fn rates(&self, playbook: &str) -> Result<BTreeMap<String, Work>, JournalError> {
        let read = || -> rusqlite::Result<BTreeMap<String, Work>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT t.step, t.unit, t.amount, t.seconds FROM rates t JOIN runs r ON r.run = t.run WHERE r.playbook = ?1 ORDER BY r.started",
            )?;
            let rows = statement.query_map(params![playbook], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    Work { unit: row.get(1)?, amount: row.get::<_, i64>(2)?.unsigned_abs(), seconds: row.get(3)? },
                ))
            })?;
            // Later runs replace earlier ones.
            rows.collect()
        };
        read().map_err(|error| self.failed(&error))
    }

    /// A step's checkpoints.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read.
    pub fn checkpoints(&self, run: &str, step: &str) -> Result<BTreeMap<String, serde_json::Value>, JournalError> {
        self.values("SELECT key, value FROM checkpoints WHERE run = ?1 AND step = ?2", &[run, step]).map(|rows| rows.into_iter().collect())
    }

    /// A step's results of one kind, by key in order.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read.
    pub fn results(&self, run: &str, step: &str, kind: &str) -> Result<Vec<(String, serde_json::Value)>, JournalError> {
        self.values("SELECT key, value FROM results WHERE run = ?1 AND step = ?2 AND kind = ?3 ORDER BY key", &[run, step, kind])
    }

    /// A run's findings: `step/id` and what was found.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read.
    pub fn findings(&self, run: &str) -> Result<Vec<(String, serde_json::Value)>, JournalError> {
        self.values("SELECT step || '/' || id, value FROM findings WHERE run = ?1 ORDER BY step, id", &[run])
    }

    fn values(&self, sql: &str, parts: &[&str]) -> Result<Vec<(String, serde_json::Value)>, JournalError> {
        let read = || -> rusqlite::Result<Vec<(String, String)>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows = statement.query_map(rusqlite::params_from_iter(parts), |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        read()
            .map_err(|error| self.failed(&error))?
            .into_iter()
            .map(|(key, text)| match serde_json::from_str(&text) {
                Ok(value) => Ok((key, value)),
                Err(error) => Err(JournalError::Damaged { path: self.path.clone(), sequence: None, reason: format!("`{key}`: {error}") }),
            })
            .collect()
    }

    /// A run's time series: by step, by name, in time.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read.
    pub fn series(&self, run: &str) -> Result<BTreeMap<String, BTreeMap<String, Vec<SeriesPoint>>>, JournalError> {
        let read = || -> rusqlite::Result<BTreeMap<String, BTreeMap<String, Vec<SeriesPoint>>>> {
            let mut statement =
                self.connection.prepare_cached("SELECT step, name, at, value FROM series WHERE run = ?1 ORDER BY step, name, at")?;
            let mut rows = statement.query(params![run])?;
            let mut series: BTreeMap<String, BTreeMap<String, Vec<SeriesPoint>>> = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let Ok(at) = Timestamp::from_millisecond(row.get(2)?) else { continue };
                let points = series.entry(row.get(0)?).or_default().entry(row.get(1)?).or_default();
                points.push(SeriesPoint { at, value: row.get(3)? });
            }
            Ok(series)
        };
        read().map_err(|error| self.failed(&error))
    }

    /// The chain's end: keep it elsewhere to notice a history rewritten as a whole.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read.
    pub fn head(&self) -> Result<Head, JournalError> {
        chain::head(&self.connection).map_err(|error| self.failed(&error))
    }

    /// Checks the chain.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read at all.
    pub fn audit(&self) -> Result<Audit, JournalError> {
        chain::audit(&self.connection).map_err(|error| self.failed(&error))
    }
}
