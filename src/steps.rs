//! Every step there is, by name: the only file that sees them all.
//!
//! A step is entered here once, with its word (what a playbook may say, see [`vocabulary`]) and its [`Constructor`]. [`build_all`] turns
//! a playbook into steps bound to endpoints ([`binding`], [`shared`]); what their arguments refer to is resolved when they act ([`deferred`]).

pub mod binding;
pub mod deferred;
mod fill;
pub mod guards;
mod load;
pub mod shared;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::engine::context::RunKind;
use crate::engine::guards::BuiltGuard;
use crate::engine::load::Load;
use crate::engine::moments::BuiltHook;
use crate::engine::outcome::ExitCode;
use crate::engine::run::BuiltStep;
use crate::engine::step::{Step, StepError, TargetLease};
use crate::gate::approve::{ApproveArguments, GateApprove};
use crate::hook::exec::{HookArguments, HookExec};
use crate::hook::moment::MomentHook;
use crate::mysql::names::PatternError;
use crate::mysql::steps;
use crate::mysql::store::MysqlStore;
use crate::mysql::tls::ProtectionError;
use crate::playbook::address::AddressError;
use crate::playbook::model::StageName::{self, Cutover, Prepare, Settle, Sync, Verify};
use crate::playbook::model::{Playbook, StoreKind};
use crate::playbook::reference::Resolver;
use crate::playbook::secret::ReferenceError;
use crate::playbook::vocabulary::{ArgumentError, GuardWord, StepWord, Vocabulary, arguments};
use crate::traffic::canary::{CanaryArguments, TrafficCanary};
use crate::traffic::check::{CheckArguments, TrafficCheck};
use crate::traffic::dns::arguments::{LowerArguments, RecordArguments};
use crate::traffic::dns::lower_ttl::LowerTtl;
use crate::traffic::dns::restore_ttl::RestoreTtl;
use crate::traffic::dns::switch::TrafficDns;
use crate::traffic::exec::{SwitchArguments, TrafficExec};
use crate::traffic::file::{FileArguments, TrafficFile};
use crate::traffic::haproxy::arguments::HoldArguments;
use crate::traffic::haproxy::hold::TrafficHold;
use crate::traffic::haproxy::release::{ReleaseArguments, TrafficRelease};
use crate::traffic::haproxy::switch::{SwitchArguments as ProxySwitchArguments, TrafficSwitch};
use crate::traffic::http::{HttpArguments, TrafficHttp};
use deferred::{Deferred, Resolved};
use shared::{Materials, Shared};

/// Makes a step of arguments whose references are resolved.
pub type Make = fn(&Resolved, &Materials) -> Result<Arc<dyn Step>, StepError>;

/// How a step is made from what the playbook says.
#[derive(Clone, Copy, Debug)]
pub enum Constructor {
    /// From its arguments and what it shares with others. What the arguments refer to is resolved each time it acts.
    Arguments {
        /// Makes it.
        make: Make,
        /// The arguments whose texts may hold references to what is not secret; `env` and `password` are secrets and always may.
        texts: &'static [&'static str],
    },
    /// From the MySQL store it works on, which all steps of the store share, and its arguments, which hold no references.
    Mysql(MakeMysql),
}

/// Makes a step of a MySQL store.
pub type MakeMysql = fn(Arc<MysqlStore>, &StepArguments) -> Result<Arc<dyn Step>, StepError>;

/// A step's arguments as written.
pub type StepArguments = serde_json::Map<String, serde_json::Value>;

/// One step of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What a playbook may say.
    pub word: StepWord,
    /// How it is made.
    pub constructor: Constructor,
}

const ANYWHERE: &[StageName] = &[Prepare, Sync, Verify, Cutover, Settle];
const AT_THE_SWITCH: &[StageName] = &[Cutover];

/// All steps, by name.
pub const REGISTRY: &[Entry] = &[
    Entry {
        word: StepWord {
            name: HookExec::NAME,
            about: "Runs a command of your own, without a shell; facts in DBMOVE_ variables and as JSON on stdin.",
            store: None,
            stages: ANYWHERE,
            requires_before: &[],
            arguments: || schemars::schema_for!(HookArguments),
            check: |with| {
                let hook: HookArguments = arguments(with)?;
                deferred::no_references(with, &["command", "undo", "probe"])?;
                HookExec::new(&hook, BTreeMap::new()).map(drop).map_err(of_step)
            },
        },
        constructor: Constructor::Arguments {
            make: |resolved, _| Ok(Arc::new(HookExec::new(&read(resolved)?, resolved.environment.clone())?)),
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: GateApprove::NAME,
            about: "Waits for a person's yes, given by `dbmove approve`; without it the run ends here with exit code 6.",
            store: None,
            stages: ANYWHERE,
            requires_before: &[],
            arguments: || schemars::schema_for!(ApproveArguments),
            check: |with| {
                let gate: ApproveArguments = arguments(with)?;
                deferred::no_references(with, &["question"])
                    .map_err(|_| ArgumentError::field("question", "`question` is shown as it is written and can't hold a reference"))?;
                GateApprove::new(&gate).map(drop).map_err(of_step)
            },
        },
        constructor: Constructor::Arguments { make: |resolved, _| Ok(Arc::new(GateApprove::new(&read(resolved)?)?)), texts: &[] },
    },
    Entry {
        word: StepWord {
            name: TrafficFile::NAME,
            about: "Points clients to the target by a file they read, replaced as a whole.",
            store: None,
            stages: AT_THE_SWITCH,
            requires_before: &[],
            arguments: || schemars::schema_for!(FileArguments),
            check: |with| {
                let file: FileArguments = arguments(with)?;
                deferred::no_references(with, &["path", "rehearsal_path"])?;
                TrafficFile::new(file).map(drop).map_err(of_step)
            },
        },
        constructor: Constructor::Arguments {
            make: |resolved, _| Ok(Arc::new(TrafficFile::new(read(resolved)?)?)),
            texts: &["content", "rehearsal_content"],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficExec::NAME,
            about: "Points clients to the target by a command of your own, settled by looking before and after.",
            store: None,
            stages: AT_THE_SWITCH,
            requires_before: &[],
            arguments: || schemars::schema_for!(SwitchArguments),
            check: |with| {
                let switch: SwitchArguments = arguments(with)?;
                deferred::no_references(with, &["command", "undo", "probe", "rehearsal"])?;
                TrafficExec::new(&switch, BTreeMap::new()).map(drop).map_err(of_step)
            },
        },
        constructor: Constructor::Arguments {
            make: |resolved, _| Ok(Arc::new(TrafficExec::new(&read(resolved)?, resolved.environment.clone())?)),
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficHttp::NAME,
            about: "Points clients to the target by an HTTP call of your own, settled by looking before and after.",
            store: None,
            stages: AT_THE_SWITCH,
            requires_before: &[],
            arguments: || schemars::schema_for!(HttpArguments),
            check: |with| TrafficHttp::new(arguments(with)?).map(drop).map_err(of_step),
        },
        // What it refers to is resolved for each call.
        constructor: Constructor::Arguments { make: |resolved, _| Ok(Arc::new(TrafficHttp::new(read(resolved)?)?)), texts: &[] },
    },
    Entry {
        word: StepWord {
            name: LowerTtl::NAME,
            about: "Lets clients keep a DNS record for a short time only, and waits out the time they may have kept it for.",
            store: Some(StoreKind::Mysql),
            stages: &[Prepare, Sync, Verify],
            requires_before: &[],
            arguments: || schemars::schema_for!(LowerArguments),
            check: |with| LowerTtl::check(&arguments(with)?).map_err(of_step),
        },
        // What it refers to is resolved for each look and change; so too for the two others.
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let target = materials.target_host(LowerTtl::NAME)?;
                Ok(Arc::new(LowerTtl::new(&read(resolved)?, target, &materials.records)?))
            },
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficDns::NAME,
            about: "Points clients to the target by a DNS record, and waits until every name server and resolver shows it.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &[LowerTtl::NAME],
            arguments: || schemars::schema_for!(RecordArguments),
            check: |with| arguments::<RecordArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let target = materials.target_host(TrafficDns::NAME)?;
                Ok(Arc::new(TrafficDns::new(&read(resolved)?, target, &materials.records)?))
            },
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: RestoreTtl::NAME,
            about: "Lets clients keep the DNS record for as long as before; behind what closes the way back.",
            store: Some(StoreKind::Mysql),
            stages: &[Settle],
            requires_before: &[TrafficDns::NAME],
            arguments: || schemars::schema_for!(RecordArguments),
            check: |with| arguments::<RecordArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let target = materials.target_host(RestoreTtl::NAME)?;
                Ok(Arc::new(RestoreTtl::new(&read(resolved)?, target, &materials.records)?))
            },
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficHold::NAME,
            about: "New clients wait at HAProxy from here on; those connected finish what they do.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &[],
            arguments: || schemars::schema_for!(HoldArguments),
            check: |with| {
                let hold: HoldArguments = arguments(with)?;
                TrafficHold::check(&hold).map_err(of_step)
            },
        },
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let binding = materials.binding.as_ref().ok_or_else(|| StepError::definite("`traffic.hold` works on a store: name it"))?;
                let (source, target) = (Arc::clone(&binding.source), Arc::clone(&binding.target));
                Ok(Arc::new(TrafficHold::new(&read(resolved)?, source, target, Arc::clone(&materials.hold))?))
            },
            texts: &["socket", "address", "target", "rehearsal_socket", "rehearsal_address", "rehearsal_target"],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficSwitch::NAME,
            about: "Points HAProxy to the target while clients wait, and tries that with one connection of its own.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &[TrafficHold::NAME, "mysql.promote"],
            arguments: || schemars::schema_for!(ProxySwitchArguments),
            check: |with| arguments::<ProxySwitchArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |_, materials| {
                let binding =
                    materials.binding.as_ref().ok_or_else(|| StepError::definite("`traffic.switch` works on a store: name it"))?;
                let (source, target) = (Arc::clone(&binding.source), Arc::clone(&binding.target));
                Ok(Arc::new(TrafficSwitch::new(source, target, Arc::clone(&materials.hold))))
            },
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficRelease::NAME,
            about: "Lets the clients that wait at HAProxy through, to the target: the point of no return where clients are held.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &[TrafficSwitch::NAME],
            arguments: || schemars::schema_for!(ReleaseArguments),
            check: |with| arguments::<ReleaseArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |_, materials| {
                let binding =
                    materials.binding.as_ref().ok_or_else(|| StepError::definite("`traffic.release` works on a store: name it"))?;
                Ok(Arc::new(TrafficRelease::new(Arc::clone(&binding.target), Arc::clone(&materials.hold))))
            },
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficCanary::NAME,
            about: "Writes through the route that clients take, all the while, and so measures the write gap.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &[],
            arguments: || schemars::schema_for!(CanaryArguments),
            check: |with| arguments::<CanaryArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let binding =
                    materials.binding.as_ref().ok_or_else(|| StepError::definite("`traffic.canary` works on a store: name it"))?;
                let (source, target) = (Arc::clone(&binding.source), Arc::clone(&binding.target));
                let watch = Arc::clone(&materials.watch);
                Ok(Arc::new(TrafficCanary::new(&read(resolved)?, resolved.password.clone(), source, target, watch)?))
            },
            texts: &["url", "rehearsal_url", "user"],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficCheck::NAME,
            about: "After the switch: waits until the target accepts the canary through the route.",
            store: Some(StoreKind::Mysql),
            stages: &[Cutover, Settle],
            requires_before: &[TrafficCanary::NAME],
            arguments: || schemars::schema_for!(CheckArguments),
            check: |with| arguments::<CheckArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |resolved, materials| Ok(Arc::new(TrafficCheck::new(&read(resolved)?, Arc::clone(&materials.watch))?)),
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: "mysql.assess",
            about: "Looks whether this migration can work; refuses before anything is touched.",
            store: Some(StoreKind::Mysql),
            stages: &[StageName::Prepare],
            requires_before: &[],
            arguments: || schemars::schema_for!(steps::assess::AssessArguments),
            check: |with| {
                let assess: steps::assess::AssessArguments = arguments(with)?;
                crate::mysql::assess::acceptance::check(&assess.accept)
            },
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::assess::Assess { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.prepare",
            about: "Creates databases, tables, views and routines on the target, and dbmove's own tables.",
            store: Some(StoreKind::Mysql),
            stages: &[StageName::Prepare],
            requires_before: &[],
            arguments: || schemars::schema_for!(steps::prepare::PrepareArguments),
            check: |with| arguments::<steps::prepare::PrepareArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::prepare::Prepare { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.replicate",
            about: "Follows the source's binary log: a service from the first copied row to the switch.",
            store: Some(StoreKind::Mysql),
            stages: &[Sync],
            requires_before: &["mysql.prepare"],
            arguments: || schemars::schema_for!(steps::replicate::ReplicateArguments),
            check: |with| arguments::<steps::replicate::ReplicateArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, _| Ok(Arc::new(steps::replicate::Replicate { store }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.snapshot",
            about: "Copies every row while it is written to, then builds indexes and foreign keys.",
            store: Some(StoreKind::Mysql),
            stages: &[Sync],
            requires_before: &["mysql.replicate"],
            arguments: || schemars::schema_for!(steps::snapshot::SnapshotArguments),
            check: |with| arguments::<steps::snapshot::SnapshotArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::snapshot::Snapshot { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.verify",
            about: "Compares every row by content, or at the fence what changed since.",
            store: Some(StoreKind::Mysql),
            stages: &[Verify, Cutover],
            requires_before: &["mysql.snapshot"],
            arguments: || schemars::schema_for!(steps::verify::VerifyArguments),
            check: |with| {
                let verify: steps::verify::VerifyArguments = arguments(with)?;
                verify.check().map_err(of_step)
            },
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::verify::Verify { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.fence",
            about: "Stops writes to the source, with proof.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &["mysql.verify"],
            arguments: || schemars::schema_for!(steps::fence::FenceArguments),
            check: |with| {
                let fence: steps::fence::FenceArguments = arguments(with)?;
                fence.check().map_err(of_step)
            },
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::fence::RaiseFence { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.catch_up",
            about: "Waits until the target holds every change up to the fence.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &["mysql.fence"],
            arguments: || schemars::schema_for!(steps::catch_up::CatchUpArguments),
            check: |with| arguments::<steps::catch_up::CatchUpArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, _| Ok(Arc::new(steps::catch_up::CatchUp { store }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.promote",
            about: "Makes the target ready to be written: counters, following ended, triggers and events created.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &["mysql.catch_up"],
            arguments: || schemars::schema_for!(steps::promote::PromoteArguments),
            check: |with| arguments::<steps::promote::PromoteArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, _| Ok(Arc::new(steps::promote::Promote { store }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.reverse",
            about: "Keeps the way back open: writes what clients write on the target to the source too, for `dbmove rollback`.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &["mysql.promote"],
            arguments: || schemars::schema_for!(steps::reverse::ReverseArguments),
            check: |with| arguments::<steps::reverse::ReverseArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, _| Ok(Arc::new(steps::reverse::Reverse { store }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.retire",
            about: "Closes the way back for good, and removes dbmove's own tables from the source, which stays read-only.",
            store: Some(StoreKind::Mysql),
            stages: &[Settle],
            requires_before: &["mysql.reverse"],
            arguments: || schemars::schema_for!(steps::retire::RetireArguments),
            check: |with| arguments::<steps::retire::RetireArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, _| Ok(Arc::new(steps::retire::Retire { store }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.disconnect",
            about: "After the switch: closes clients' connections on the source, lets its lock go, and enables events on the target.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &["mysql.promote"],
            arguments: || schemars::schema_for!(steps::disconnect::DisconnectArguments),
            check: |with| arguments::<steps::disconnect::DisconnectArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, _| Ok(Arc::new(steps::disconnect::Disconnect { store }))),
    },
];

/// The arguments of a step that takes no references.
fn from_map<T: DeserializeOwned>(with: &StepArguments) -> Result<T, StepError> {
    serde_json::from_value(serde_json::Value::Object(with.clone()))
        .map_err(|error| StepError::definite(format!("the arguments can't be used: {error}")))
}

/// The arguments as the step's own type. The loader has checked them; a playbook made in memory is checked here.
fn read<T: DeserializeOwned>(resolved: &Resolved) -> Result<T, StepError> {
    from_map(&resolved.with)
}

/// What a step's constructor has against its arguments.
fn of_step(error: StepError) -> ArgumentError {
    ArgumentError::all(match error.hint {
        Some(hint) => format!("{}; {hint}", error.message),
        None => error.message,
    })
}

/// The words of all steps and guards, for the playbook's loader.
#[must_use]
pub fn vocabulary() -> Vocabulary {
    static STEPS: LazyLock<Vec<StepWord>> = LazyLock::new(|| REGISTRY.iter().map(|entry| entry.word).collect());
    static GUARDS: LazyLock<Vec<GuardWord>> = LazyLock::new(|| guards::GUARDS.iter().map(|entry| entry.word).collect());
    Vocabulary { steps: &STEPS, guards: &GUARDS, hook: |spec| MomentHook::new(spec).map(drop).map_err(of_step) }
}

/// Why a playbook's steps can't be built. Nothing was contacted or touched.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The loader finds this first; kept for playbooks made in memory.
    #[error("step `{step}`: there is no step `{name}`; nothing was touched. `dbmove playbook schema` lists those there are")]
    UnknownStep {
        /// The step's id.
        step: String,
        /// What it should do.
        name: String,
    },
    /// The same for stores.
    #[error("step `{step}` works on the store `{store}`, which the playbook does not have; nothing was touched")]
    UnknownStore {
        /// The step's id.
        step: String,
        /// The store.
        store: String,
    },
    /// An argument can't be used.
    #[error("step `{step}` (`{name}`): {error}; nothing was touched")]
    Argument {
        /// The step's id.
        step: String,
        /// What it does.
        name: String,
        /// Which argument, and why.
        error: StepError,
    },
    /// A rehearsal of a store that has no pair for it.
    #[error(
        "store `{store}` has no `rehearsal` pair, so there is nothing to rehearse on; nothing was touched. Add `rehearsal: {{ source: …, target: … }}` to it: the same schema and data, nobody's traffic"
    )]
    NoRehearsalPair {
        /// The store.
        store: String,
    },
    /// A rehearsal that would touch production.
    #[error(
        "the rehearsal {rehearsal} of store `{store}` is the production {production}: both are at `{address}`; nothing was touched. Name a server that nobody uses"
    )]
    SameAsProduction {
        /// The store.
        store: String,
        /// `source` or `target` of the rehearsal.
        rehearsal: &'static str,
        /// `source` or `target` of production.
        production: &'static str,
        /// Where both are.
        address: String,
    },
    /// A reference in an endpoint can't be resolved.
    #[error("{endpoint} of store `{store}`: {error}; nothing was touched")]
    Reference {
        /// The store.
        store: String,
        /// Which endpoint.
        endpoint: &'static str,
        /// Why.
        error: ReferenceError,
    },
    /// `include` or `exclude` can't be used.
    #[error("store `{store}`: {error}; nothing was touched")]
    Selection {
        /// The store.
        store: String,
        /// Why.
        error: PatternError,
    },
    /// A resolved url is no address.
    #[error("{endpoint} of store `{store}`: {error}; nothing was touched. {}", .error.help())]
    Address {
        /// The store.
        store: String,
        /// Which endpoint.
        endpoint: &'static str,
        /// Why.
        error: AddressError,
    },
    /// `tls` and `ca` contradict each other, or the file is no use.
    #[error("{endpoint} of store `{store}`: {error}; nothing was touched. {}", .error.hint())]
    Protection {
        /// The store.
        store: String,
        /// Which endpoint.
        endpoint: &'static str,
        /// Why.
        error: ProtectionError,
    },
}

impl BuildError {
    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            BuildError::NoRehearsalPair { .. } | BuildError::SameAsProduction { .. } => ExitCode::Refused,
            BuildError::Reference { .. } => ExitCode::Error,
            _ => ExitCode::Usage,
        }
    }
}

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
    /// What can write in clients' place in a rehearsal, one for each store: production's own log, from so long ago on.
    #[must_use]
    pub fn loads(&self, window: Duration) -> Vec<Arc<dyn Load>> {
        let loads = self.stores.iter().filter_map(|shared| load::StoreLoad::of(shared, window));
        loads.map(|load| Arc::new(load) as Arc<dyn Load>).collect()
    }
}

/// Builds every step of a playbook for a kind of run.
///
/// # Errors
/// [`BuildError`], before anything is contacted.
pub async fn build_all(playbook: &Playbook, kind: RunKind, resolver: &Resolver) -> Result<Built, BuildError> {
    let mut built = Built::default();
    let mut shared_by: BTreeMap<Option<&str>, Arc<Shared>> = BTreeMap::new();
    let mut filled: Vec<Option<&str>> = Vec::new();
    for (stage, spec) in playbook.stages.iter() {
        let name = spec.store.as_deref();
        let shared = match shared_by.get(&name) {
            Some(shared) => Arc::clone(shared),
            None => {
                let shared = Arc::new(match name {
                    None => Shared::without_store(),
                    Some(name) => {
                        let unknown = || BuildError::UnknownStore { step: spec.id.clone(), store: name.to_owned() };
                        Shared::of_store(name, playbook.stores.get(name).ok_or_else(unknown)?, kind, resolver).await?
                    }
                });
                built.leases.extend(shared.lease());
                built.stores.push(Arc::clone(&shared));
                shared_by.insert(name, Arc::clone(&shared));
                shared
            }
        };
        let entry = REGISTRY
            .iter()
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
                let shared = Arc::new(Shared::of_store(store, playbook.stores.get(store).ok_or_else(unknown)?, kind, resolver).await?);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = REGISTRY.iter().map(|entry| entry.word.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REGISTRY.len());
    }
}
