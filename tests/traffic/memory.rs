//! A step's surroundings without an engine: checkpoints in memory, everything else as the engine hands it over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dbmove::engine::context::{Checkpoints, Progress, RunKind, StepContext};
use dbmove::engine::step::{Epoch, StepError};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Memory(Mutex<BTreeMap<(String, String), Value>>);

impl Checkpoints for Memory {
    fn save(&self, step: &str, key: &str, value: &Value) -> Result<(), StepError> {
        self.0.lock().unwrap().insert((step.to_owned(), key.to_owned()), value.clone());
        Ok(())
    }
    fn load(&self, step: &str, key: &str) -> Result<Option<Value>, StepError> {
        Ok(self.0.lock().unwrap().get(&(step.to_owned(), key.to_owned())).cloned())
    }
}

/// The first attempt of step `id` in run `run-1`.
pub fn context(id: &str, kind: RunKind) -> StepContext {
    StepContext {
        run: "run-1".into(),
        step: id.into(),
        attempt: 1,
        kind,
        epoch: Epoch(1),
        max_write_gap: dbmove::engine::run::DEFAULT_MAX_WRITE_GAP,
        point_of_no_return: true,
        switched: false,
        cancel: CancellationToken::new(),
        progress: watch::channel(Progress::default()).0,
        ready: watch::channel(false).0,
        steering: dbmove::engine::steering::Steering::free(),
        checkpoints: Arc::new(Memory::default()),
        rates: Arc::default(),
        outputs: Arc::new(BTreeMap::from([("provision".to_owned(), BTreeMap::from([("endpoint".to_owned(), Value::from("db.example"))]))])),
    }
}
