//! A step's context outside of a driven run: for `verify`, which acts on nothing and holds no lease.
//!
//! Rates, outputs and checkpoints are read from the journal, if there is one; what a step saves meanwhile stays in
//! this process, because only the driver of a run may write to its journal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::answer::Refusal;
use crate::engine::context::{Checkpoints, Progress, RunKind, StepContext};
use crate::engine::journal::{JournalError, JournalReader};
use crate::engine::step::{Epoch, StepError, Work};

/// The journal's view on one playbook and kind of run, or nothing where there is no journal yet.
pub struct Reading {
    kind: RunKind,
    run: Arc<str>,
    rates: Arc<BTreeMap<String, Work>>,
    outputs: Arc<BTreeMap<String, BTreeMap<String, Value>>>,
    kept: Arc<Kept>,
}

/// Checkpoints: those of the journal's run, under those saved here.
struct Kept {
    reader: Option<Mutex<JournalReader>>,
    run: Option<String>,
    saved: Mutex<BTreeMap<(String, String), Value>>,
    recorded: Mutex<BTreeMap<(String, String, String), Value>>,
}

impl Kept {
    fn read<T: Default>(&self, read: impl FnOnce(&JournalReader, &str) -> Result<T, JournalError>) -> Result<T, StepError> {
        match (&self.reader, &self.run) {
            (Some(reader), Some(run)) => Ok(read(&reader.lock().unwrap_or_else(PoisonError::into_inner), run)?),
            _ => Ok(T::default()),
        }
    }
}

impl Checkpoints for Kept {
    fn save(&self, step: &str, key: &str, value: &Value) -> Result<(), StepError> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        saved.insert((step.to_owned(), key.to_owned()), value.clone());
        Ok(())
    }

    fn load(&self, step: &str, key: &str) -> Result<Option<Value>, StepError> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).get(&(step.to_owned(), key.to_owned())).cloned();
        match saved {
            Some(value) => Ok(Some(value)),
            None => Ok(self.read(|reader, run| reader.checkpoints(run, step))?.remove(key)),
        }
    }

    fn record(&self, step: &str, kind: &str, key: &str, value: &Value) -> Result<(), StepError> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.insert((step.to_owned(), kind.to_owned(), key.to_owned()), value.clone());
        Ok(())
    }

    fn recorded(&self, step: &str, kind: &str) -> Result<Vec<(String, Value)>, StepError> {
        let mut all: BTreeMap<String, Value> = self.read(|reader, run| reader.results(run, step, kind))?.into_iter().collect();
        let recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        for ((of, as_kind, key), value) in recorded.iter() {
            if of == step && as_kind == kind {
                all.insert(key.clone(), value.clone());
            }
        }
        Ok(all.into_iter().collect())
    }

    fn find(&self, step: &str, id: &str, finding: &Value) -> Result<(), StepError> {
        self.record(step, "finding", id, finding)
    }
}

/// A view of the journal, if there is one.
///
/// # Errors
/// If there is one and it can't be read.
pub fn journal(directory: &std::path::Path) -> Result<Option<JournalReader>, Refusal> {
    match JournalReader::open(directory) {
        Ok(reader) => Ok(Some(reader)),
        Err(JournalError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Reading {
    /// Reads what the journal has on a playbook: the rates of its last runs, and of the run of this kind that is under way what its
    /// steps left. With `anew` that run's checkpoints are left out: a step then begins at its beginning.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn open(directory: &std::path::Path, playbook: &str, kind: RunKind, anew: bool) -> Result<Reading, Refusal> {
        let reader = journal(directory)?;
        let mut rates = BTreeMap::new();
        let mut outputs = BTreeMap::new();
        let mut run = None;
        if let Some(reader) = &reader {
            rates = reader.rates(playbook)?;
            if let Some(latest) = reader.latest_run(playbook, kind)? {
                let state = reader.state(&latest.run)?;
                outputs = state.outputs().into_iter().map(|(step, output)| (step, output.facts)).collect();
                run = Some(latest.run);
            }
        }
        let id: Arc<str> = Arc::from(run.as_deref().unwrap_or("none"));
        let kept = Arc::new(Kept {
            reader: reader.map(Mutex::new),
            run: run.filter(|_| !anew),
            saved: Mutex::default(),
            recorded: Mutex::default(),
        });
        Ok(Reading { kind, run: id, rates: Arc::new(rates), outputs: Arc::new(outputs), kept })
    }

    /// Outputs of steps that are done, for references to them.
    #[must_use]
    pub fn outputs(&self) -> Arc<BTreeMap<String, BTreeMap<String, Value>>> {
        Arc::clone(&self.outputs)
    }

    /// The newest measured rate of each step.
    #[must_use]
    pub fn rates(&self) -> BTreeMap<String, Work> {
        (*self.rates).clone()
    }

    /// The context for one step, and where its progress can be seen.
    #[must_use]
    pub fn context(&self, step: &str, cancel: CancellationToken) -> (StepContext, watch::Receiver<Progress>) {
        let (progress, seen) = watch::channel(Progress::default());
        let context = StepContext {
            run: Arc::clone(&self.run),
            step: Arc::from(step),
            attempt: 1,
            kind: self.kind,
            epoch: Epoch(0),
            cancel,
            progress,
            ready: watch::channel(false).0,
            checkpoints: self.kept.clone(),
            rates: Arc::clone(&self.rates),
            outputs: Arc::clone(&self.outputs),
        };
        (context, seen)
    }

    /// What a step recorded of a kind.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn recorded(&self, step: &str, kind: &str) -> Result<Vec<(String, Value)>, StepError> {
        self.kept.recorded(step, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn without_a_journal_everything_stays_here() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("state");
        let reading = Reading::open(&missing, "p", RunKind::Production, false).unwrap();
        let (context, _seen) = reading.context("copy", CancellationToken::new());
        assert_eq!(context.checkpoints.load("copy", "at").unwrap(), None);
        context.save_checkpoint("at", &json!(5)).unwrap();
        assert_eq!(context.checkpoints.load("copy", "at").unwrap(), Some(json!(5)));
        context.record("verification", "all", &json!({})).unwrap();
        assert_eq!(reading.recorded("copy", "verification").unwrap().len(), 1);
        assert_eq!(reading.recorded("other", "verification").unwrap().len(), 0);
        assert!(!missing.exists(), "reading made a state directory");
    }
}
