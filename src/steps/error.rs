//! Why a playbook's steps can't be built.

use crate::engine::outcome::ExitCode;
use crate::engine::step::StepError;
use crate::mysql::names::PatternError;
use crate::mysql::tls::ProtectionError;
use crate::playbook::address::AddressError;
use crate::playbook::secret::ReferenceError;

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
