//! What the steps of one store share, and when it is bound to servers.
//!
//! Most stores are bound when the playbook is built: their addresses are known, and a rehearsal on production is refused before a run
//! exists. A store whose address is an output of a step (`${step:provision.endpoint}`) can't be: the server comes into being
//! in the run. It is bound when one of its steps first acts, from the outputs of *this* run and no other, and the rules of
//! [`binding`] hold then. Until then its steps are shapes: they tell what they are, and know no server.
//!
//! The claim on the target follows the same way: a driver that takes a run over knows the outputs of the steps that are done, so it
//! binds and claims before it acts; where the address is not known, nothing can have been written there.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::BuildError;
use super::binding::{self, Binding};
use super::uses::uses;
use crate::engine::context::{Checkpoints, Outputs, RunKind};
use crate::engine::outcome::ExitCode;
use crate::engine::step::{Epoch, Failure, StepError, TargetLease};
use crate::mysql::beside::Sources;
use crate::mysql::connect::Server;
use crate::mysql::conversion::Conversions;
use crate::mysql::names::Selection;
use crate::mysql::store::{MysqlStore, StoreSettings};
use crate::mysql::tls::Protection;
use crate::mysql::uses::Uses;
use crate::playbook::model::{Endpoint, Playbook, Store};
use crate::playbook::reference::{Piece, Reference, Resolver};
use crate::traffic::dns::SharedRecords;
use crate::traffic::haproxy::{self, SharedHold};
use crate::traffic::watch::CanaryWatch;

/// What steps of one playbook share.
pub struct Materials {
    /// The store the step works on, where it works on one.
    pub binding: Option<Binding>,
    /// What the canary has seen: for the canary and the check behind the switch.
    pub watch: Arc<CanaryWatch>,
    /// What holds clients at the proxy: for the hold, the switch and the release.
    pub hold: SharedHold,
    /// The DNS records that lead clients to it: for the steps that change them.
    pub records: SharedRecords,
    /// The MySQL store, where it is one.
    pub mysql: Option<Arc<MysqlStore>>,
}

impl Materials {
    /// The host of the store's target; a reference as it is written where the address is not known yet.
    ///
    /// # Errors
    /// If the step works on no store.
    pub fn target_host(&self, step: &str) -> Result<String, StepError> {
        let binding = self.binding.as_ref().ok_or_else(|| StepError::definite(format!("`{step}` works on a store: name it")))?;
        Ok(binding.target.host.clone())
    }
}

/// What steps of one store (or of none) share, bound or yet to be.
pub struct Shared {
    /// What is known when the playbook is built; all there is, unless the store is bound later.
    shape: Arc<Materials>,
    late: Option<Late>,
    filled: bool,
}

/// A store whose address is an output of a step.
struct Late {
    name: String,
    store: Store,
    kind: RunKind,
    selection: Selection,
    conversions: Conversions,
    uses: Uses,
    sources: Arc<Sources>,
    /// For which run it was bound: a plan is made from the outputs of an earlier run.
    bound: Mutex<Option<(String, Arc<Materials>)>>,
}

/// The steps that an address is an output of. One that can't be read refers to none; binding it says why.
fn providers(endpoint: &Endpoint) -> Vec<String> {
    let pieces = endpoint.url.parse().unwrap_or_default();
    let step = |piece: Piece| match piece {
        Piece::Reference(Reference::StepOutput { step, .. }) => Some(step),
        _ => None,
    };
    pieces.into_iter().filter_map(step).collect()
}

/// A server whose address is still a reference; nothing connects to it.
fn unknown(store: &str, side: &str, endpoint: &Endpoint) -> Server {
    let role = format!("{side} of `{store}`");
    Server {
        role,
        host: endpoint.url.0.clone(),
        port: 0,
        user: String::new(),
        password: None,
        tls: Protection::Verified { authorities: None },
        watched: None,
    }
}

fn materials(
    binding: Binding,
    selection: &Selection,
    spec: &Store,
    conversions: &Conversions,
    uses: &Uses,
    (watch, hold, records): (Arc<CanaryWatch>, SharedHold, SharedRecords),
) -> Arc<Materials> {
    let (source, target) = (Server::clone(&binding.source), Server::clone(&binding.target));
    let settings = StoreSettings {
        objects: spec.objects.unwrap_or_default(),
        accounts: spec.accounts.unwrap_or_default(),
        passwords: spec.passwords.clone(),
        on_ddl: spec.on_ddl.unwrap_or_default(),
        conversions: conversions.clone(),
        uses: uses.clone(),
        ..StoreSettings::default()
    };
    let mysql = MysqlStore::open(&binding.store, source, target, selection.clone(), settings);
    if let Some(production) = binding.production.clone() {
        // New, so it has none yet.
        let _ = mysql.production.set(production);
    }
    Arc::new(Materials { binding: Some(binding), watch, hold, records, mysql: Some(mysql) })
}

/// Makes a store that is bound known to the others of its playbook, and them to it.
fn know(materials: &Materials, sources: &Arc<Sources>) {
    if let Some(mysql) = &materials.mysql {
        sources.add(&mysql.name, mysql.source.clone());
        // New, so it has none yet.
        let _ = mysql.beside.set(Arc::clone(sources));
    }
}

impl Shared {
    /// For steps that work on no store.
    #[must_use]
    pub fn without_store() -> Shared {
        Shared {
            shape: Arc::new(Materials { binding: None, watch: Arc::default(), hold: Arc::default(), records: Arc::default(), mysql: None }),
            late: None,
            filled: false,
        }
    }

    /// For the steps of a store of the playbook, bound now if its addresses are known. `sources` are those of all of its stores.
    ///
    /// # Errors
    /// [`BuildError`]: a rehearsal without a pair or on a production endpoint, a pattern, reference or address that can't be used.
    pub async fn of_store(
        playbook: &Playbook,
        name: &str,
        store: &Store,
        kind: RunKind,
        resolver: &Resolver,
        sources: &Arc<Sources>,
    ) -> Result<Shared, BuildError> {
        let uses = uses(playbook, name);
        let selection =
            Selection::new(&store.include, &store.exclude).map_err(|error| BuildError::Selection { store: name.to_owned(), error })?;
        let conversions = Conversions::new(&store.charset).map_err(|error| BuildError::Selection { store: name.to_owned(), error })?;
        let (source, target) = binding::endpoints(name, store, kind)?;
        let seen = (Arc::default(), Arc::new(haproxy::Shared::of_store(name)), Arc::default());
        let filled = kind == RunKind::Rehearsal && store.rehearsal.as_ref().is_some_and(|pair| pair.copy.is_some());
        if providers(source).is_empty() && providers(target).is_empty() {
            let binding = binding::bind(name, store, kind, resolver).await?;
            let shape = materials(binding, &selection, store, &conversions, &uses, seen);
            know(&shape, sources);
            return Ok(Shared { shape, late: None, filled });
        }
        let binding = Binding {
            store: name.to_owned(),
            source: Arc::new(unknown(name, "source", source)),
            target: Arc::new(unknown(name, "target", target)),
            production: None,
        };
        let shape = materials(binding, &selection, store, &conversions, &uses, seen);
        let (name, store, sources) = (name.to_owned(), store.clone(), Arc::clone(sources));
        let late = Late { name, store, kind, selection, conversions, uses, sources, bound: Mutex::new(None) };
        Ok(Shared { shape, late: Some(late), filled })
    }

    /// What a step can be made of to tell what it is. Its servers may not be known.
    #[must_use]
    pub fn shape(&self) -> &Arc<Materials> {
        &self.shape
    }

    /// What a step acts with in this run.
    ///
    /// # Errors
    /// If the store can't be bound: an output it refers to is not there, or leads where it must not.
    pub async fn bound(&self, run: &str, outputs: &Arc<Outputs>) -> Result<Arc<Materials>, StepError> {
        let Some(late) = &self.late else { return Ok(Arc::clone(&self.shape)) };
        let mut bound = late.bound.lock().await;
        if let Some((_, materials)) = bound.as_ref().filter(|(of, _)| of == run) {
            return Ok(Arc::clone(materials));
        }
        let resolver = Resolver::new(Arc::clone(outputs));
        let binding = binding::bind(&late.name, &late.store, late.kind, &resolver).await.map_err(|error| {
            let failure = if error.exit_code() == ExitCode::Refused { Failure::Refused } else { Failure::Definite };
            let message = match &error {
                BuildError::Reference { store, endpoint, error } => format!("{endpoint} of store `{store}`: {error}"),
                error => error.to_string(),
            };
            StepError::new(failure, message)
        })?;
        let seen = (Arc::clone(&self.shape.watch), Arc::clone(&self.shape.hold), Arc::clone(&self.shape.records));
        let materials = materials(binding, &late.selection, &late.store, &late.conversions, &late.uses, seen);
        know(&materials, &late.sources);
        *bound = Some((run.to_owned(), Arc::clone(&materials)));
        Ok(materials)
    }

    /// What the store was bound to in this run, if it was.
    async fn bound_before(&self, run: &str) -> Option<Arc<Materials>> {
        let bound = self.late.as_ref()?.bound.lock().await;
        bound.as_ref().filter(|(of, _)| of == run).map(|(_, materials)| Arc::clone(materials))
    }

    /// True if a step that an address refers to has left nothing behind yet.
    pub(super) fn waits_for_a_step(&self, outputs: &Outputs) -> bool {
        let Some(late) = &self.late else { return false };
        let endpoints = binding::endpoints(&late.name, &late.store, late.kind).ok();
        let awaited = |endpoint: &Endpoint| providers(endpoint).iter().any(|step| !outputs.contains_key(step));
        endpoints.is_some_and(|(source, target)| awaited(source) || awaited(target))
    }

    /// Where the driver's epoch is written.
    #[must_use]
    pub fn lease(self: &Arc<Self>) -> Option<Arc<dyn TargetLease>> {
        let store = self.shape.mysql.as_ref()?;
        Some(if self.late.is_some() {
            Arc::new(LateLease { store: store.name.clone(), shared: Arc::clone(self) })
        } else {
            Arc::clone(store) as Arc<dyn TargetLease>
        })
    }

    /// Whether the rehearsal's source is filled in the run: what its steps would do can't be said before that.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.filled
    }

    /// Whether the store's servers are known only in the run.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.late.is_some()
    }
}

/// The claim on a target whose address is an output of a step.
struct LateLease {
    store: String,
    shared: Arc<Shared>,
}

#[async_trait]
impl TargetLease for LateLease {
    fn store(&self) -> &str {
        &self.store
    }
    async fn claim(&self, run: &str, epoch: Epoch, outputs: &Arc<Outputs>, checkpoints: &Arc<dyn Checkpoints>) -> Result<(), StepError> {
        if self.shared.waits_for_a_step(outputs) {
            return Ok(());
        }
        match &self.shared.bound(run, outputs).await?.mysql {
            Some(target) => target.claim(run, epoch, outputs, checkpoints).await,
            None => Ok(()),
        }
    }
    async fn release(&self, run: &str, epoch: Epoch) -> Result<(), StepError> {
        match self.shared.bound_before(run).await.and_then(|materials| materials.mysql.clone()) {
            Some(target) => target.release(run, epoch).await,
            // This driver never knew the target, so it has claimed nothing.
            None => Ok(()),
        }
    }
}
