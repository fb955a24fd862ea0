//! From a playbook to steps that can be driven: the only room that sees them all.
//!
//! A step is entered once, in the [`registry`], with its word (what a playbook may say) and its [`Constructor`]. [`build_all`] turns
//! a playbook into steps bound to endpoints ([`binding`], [`shared`]); what their arguments refer to is resolved when they act ([`deferred`]).

pub mod binding;
pub mod deferred;
mod error;
mod fill;
pub mod guards;
mod load;
pub mod registry;
pub mod shared;
mod uses;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::context::RunKind;
use crate::engine::guards::BuiltGuard;
use crate::engine::load::Load;
use crate::engine::moments::BuiltHook;
use crate::engine::run::BuiltStep;
use crate::engine::step::TargetLease;
use crate::hook::moment::MomentHook;
use crate::mysql::beside::Sources;
use crate::mysql::replay::load::Log;
use crate::playbook::known;
use crate::playbook::model::Playbook;
use crate::playbook::reference::Resolver;
use deferred::Deferred;
pub use error::BuildError;
pub use registry::{Constructor, Entry, StepArguments, vocabulary};
use registry::{from_map, of_step};
use shared::Shared;

/// A playbook's steps, ready to be driven.
#[derive(Clone, Default)]
pub struct Built {
    /// In the playbook's order.
    pub steps: Vec<BuiltStep>,
    /// Where the driver's epoch is written on the targets.
    pub leases: Vec<Arc<dyn TargetLease>>,
    /// What is watched meanwhile.
    pub guards: Vec<BuiltGuard>,
    /// What is called at moments of the run.
    pub hooks: Vec<BuiltHook>,
    /// What steps of each store share.
    stores: Vec<Arc<Shared>>,
}

impl Built {
    /// The names of the stores that can have a load in a rehearsal.
    #[must_use]
    pub fn stores_for_load(&self) -> Vec<&str> {
        self.stores.iter().filter_map(|shared| Some(shared.shape().mysql.as_ref()?.name.as_str())).collect()
    }

    /// What can write in clients' place in a rehearsal, one for each of [`Built::stores_for_load`], from the log that `log_of` says.
    #[must_use]
    pub fn loads(&self, log_of: impl Fn(&str) -> Log) -> Vec<Arc<dyn Load>> {
        let loads = self.stores.iter().filter_map(|shared| {
            let log = log_of(&shared.shape().mysql.as_ref()?.name);
            load::StoreLoad::of(shared, log)
        });
        loads.map(|load| Arc::new(load) as Arc<dyn Load>).collect()
    }
}

/// Builds every step of a playbook for a kind of run.
///
/// # Errors
/// [`BuildError`], before anything is contacted.
pub async fn build_all(playbook: &Playbook, kind: RunKind, resolver: &Resolver) -> Result<Built, BuildError> {
    known::refer(playbook);
    let mut built = Built::default();
    let mut shared_by: BTreeMap<Option<&str>, Arc<Shared>> = BTreeMap::new();
    let mut filled: Vec<Option<&str>> = Vec::new();
    let sources = Arc::new(Sources::default());
    for (stage, spec) in playbook.stages.iter() {
        let name = spec.store.as_deref();
        let shared = match shared_by.get(&name) {
            Some(shared) => Arc::clone(shared),
            None => {
                let shared = Arc::new(match name {
                    None => Shared::without_store(),
                    Some(name) => {
                        let unknown = || BuildError::UnknownStore { step: spec.id.clone(), store: name.to_owned() };
                        Shared::of_store(playbook, name, playbook.stores.get(name).ok_or_else(unknown)?, kind, resolver, &sources).await?
                    }
                });
                built.leases.extend(shared.lease());
                built.stores.push(Arc::clone(&shared));
                shared_by.insert(name, Arc::clone(&shared));
                shared
            }
        };
        let entry = registry::registry()
            .find(|entry| entry.word.name == spec.run)
            .ok_or_else(|| BuildError::UnknownStep { step: spec.id.clone(), name: spec.run.clone() })?;
        if shared.is_filled() && !filled.contains(&name) {
            let fill = fill::step(playbook, name.unwrap_or_default(), &shared).map_err(|error| BuildError::Argument {
                step: spec.id.clone(),
                name: spec.run.clone(),
                error,
            })?;
            filled.push(name);
            built.steps.push(BuiltStep { stage, ..fill });
        }
        let step = Deferred::step(spec.with.clone(), entry.constructor, shared).map_err(|error| BuildError::Argument {
            step: spec.id.clone(),
            name: spec.run.clone(),
            error,
        })?;
        built.steps.push(BuiltStep { spec: spec.clone(), stage, step });
    }
    fill::come_first(&mut built.steps);
    for spec in &playbook.hooks {
        let hook = MomentHook::new(spec).map_err(|error| BuildError::Argument { step: spec.id.clone(), name: "hook".to_owned(), error })?;
        built.hooks.push(BuiltHook { spec: spec.clone(), hook: Arc::new(hook) });
    }
    for spec in &playbook.guards {
        let name = spec.store.as_deref();
        let shared = match (name, shared_by.get(&name)) {
            (_, Some(shared)) => Some(Arc::clone(shared)),
            (None, None) => None,
            (Some(store), None) => {
                // No step works on it, so nothing is claimed there.
                let unknown = || BuildError::UnknownStore { step: spec.id.clone(), store: store.to_owned() };
                let shared = Arc::new(
                    Shared::of_store(playbook, store, playbook.stores.get(store).ok_or_else(unknown)?, kind, resolver, &sources).await?,
                );
                shared_by.insert(name, Arc::clone(&shared));
                Some(shared)
            }
        };
        let entry = guards::GUARDS
            .iter()
            .find(|entry| entry.word.name == spec.watch)
            .ok_or_else(|| BuildError::UnknownStep { step: spec.id.clone(), name: spec.watch.clone() })?;
        let guard = guards::guard(&spec.with, entry.make, shared).map_err(|error| BuildError::Argument {
            step: spec.id.clone(),
            name: spec.watch.clone(),
            error,
        })?;
        built.guards.push(BuiltGuard { spec: spec.clone(), guard });
    }
    Ok(built)
}
