//! The stores of a playbook for commands that only look: bound to their servers, without a run, without a state directory.

use std::sync::Arc;

use super::answer::Refusal;
use super::reading::{self, Reading};
use super::settings::Everywhere;
use crate::engine::context::RunKind;
use crate::engine::outcome::ExitCode;
use crate::engine::step::{Failure, StepError};
use crate::mysql::beside::Sources;
use crate::mysql::store::MysqlStore;
use crate::playbook::model::Playbook;
use crate::playbook::reference::Resolver;
use crate::steps::shared::Shared;

/// What a looking command works on.
pub struct Stores {
    /// The newest run of the playbook, if there is one.
    pub run: Option<String>,
    /// The stores by name; nothing is connected yet.
    pub mysql: Vec<(String, Arc<MysqlStore>)>,
}

impl Stores {
    /// Binds every store. Addresses that are outputs of a step come from the newest run, if there is one.
    ///
    /// # Errors
    /// If the journal can't be read, or a store's address can't be used.
    pub async fn of(everywhere: &Everywhere, playbook: &Playbook, kind: RunKind) -> Result<Stores, Refusal> {
        let reading = Reading::open(&everywhere.state_directory, &playbook.playbook, kind)?;
        let run = match reading::journal(&everywhere.state_directory)? {
            Some(reader) => reader.latest_run(&playbook.playbook, kind)?.map(|latest| latest.run),
            None => None,
        };
        let sources = Arc::new(Sources::default());
        let mut mysql = Vec::new();
        for (name, store) in &playbook.stores {
            let shared = Shared::of_store(playbook, name, store, kind, &Resolver::new(reading.outputs.clone()), &sources).await?;
            let materials = shared.bound(run.as_deref().unwrap_or_default(), &reading.outputs).await.map_err(refusal)?;
            mysql.extend(materials.mysql.clone().map(|bound| (name.clone(), bound)));
        }
        Ok(Stores { run, mysql })
    }
}

/// Why a looking command ends without an answer.
pub fn refusal(error: StepError) -> Refusal {
    let exit_code = if error.failure == Failure::Refused { ExitCode::Refused } else { ExitCode::Error };
    Refusal { hint: error.hint, ..Refusal::new(exit_code, format!("{}; nothing was touched", error.message)) }
}
