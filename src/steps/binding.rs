//! A store's endpoints for one kind of run: the production pair or the rehearsal pair, never a mixture.
//!
//! Here and nowhere else it is decided which of the two a run touches, so here the rules for it hold:
//!
//! * a rehearsal needs a `rehearsal` pair for every store its steps work on;
//! * no rehearsal endpoint may be a production endpoint: neither written the same nor, once names are resolved, at the same
//!   address and port. (A port forward under another address can't be seen from here; the servers themselves are asked before
//!   anything is written, see [`copies`](crate::mysql::copies).)
//!
//! Nothing is contacted but the resolver of host names.

use std::net::SocketAddr;
use std::sync::Arc;

use super::BuildError;
use crate::engine::context::RunKind;
use crate::mysql::connect::Server;
use crate::mysql::copies::Production;
use crate::mysql::fill;
use crate::mysql::tls::Protection;
use crate::playbook::address::Address;
use crate::playbook::model::{Endpoint, Store, Tls};
use crate::playbook::reference::Resolver;

/// One store's endpoints for one kind of run, references resolved.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The store's name.
    pub store: String,
    /// Where the data lives.
    pub source: Arc<Server>,
    /// Where it goes.
    pub target: Arc<Server>,
    /// In a rehearsal: what it has to be kept away from.
    pub production: Option<Production>,
}

/// Whose log a load is made from, in messages.
const LOG_OF: &str = "replica in `load_from`";
/// What a copy is made from, in messages.
const COPIED_FROM: &str = "server in `copy.from`";

/// Which endpoints of a store a kind of run works on: source and target.
///
/// # Errors
/// [`BuildError::NoRehearsalPair`].
pub fn endpoints<'a>(name: &str, store: &'a Store, kind: RunKind) -> Result<(&'a Endpoint, &'a Endpoint), BuildError> {
    match (kind, &store.rehearsal) {
        (RunKind::Production, _) => Ok((&store.source, &store.target)),
        (RunKind::Rehearsal, Some(pair)) => Ok((&pair.source, &pair.target)),
        (RunKind::Rehearsal, None) => Err(BuildError::NoRehearsalPair { store: name.to_owned() }),
    }
}

/// Binds one store's endpoints for a kind of run.
///
/// # Errors
/// [`BuildError`]: a rehearsal without a pair or on a production endpoint, a reference or address that can't be used.
pub async fn bind(name: &str, store: &Store, kind: RunKind, resolver: &Resolver) -> Result<Binding, BuildError> {
    let (source, target) = endpoints(name, store, kind)?;
    if kind == RunKind::Production {
        return Ok(Binding {
            store: name.to_owned(),
            source: Arc::new(server(name, "source", source, resolver).await?),
            target: Arc::new(server(name, "target", target, resolver).await?),
            production: None,
        });
    }
    let other_accounts = store.rehearsal.as_ref().map(|pair| pair.other_accounts.clone()).unwrap_or_default();
    let rehearsal = [("source", source), ("target", target)];
    let log_of = store.rehearsal.as_ref().and_then(|pair| pair.load_from.as_ref());
    let copy = store.rehearsal.as_ref().and_then(|pair| pair.copy.as_ref());
    let production = [("source", &store.source), ("target", &store.target)];
    let production = production.into_iter().chain(log_of.map(|replica| (LOG_OF, replica)));
    let production = production.chain(copy.and_then(|copy| copy.from.as_ref()).map(|replica| (COPIED_FROM, replica)));
    for (rehearsal_side, ours) in rehearsal {
        for (production_side, theirs) in production.clone() {
            if let Some(address) = same_place(name, ours, theirs, resolver).await? {
                return Err(BuildError::SameAsProduction {
                    store: name.to_owned(),
                    rehearsal: rehearsal_side,
                    production: production_side,
                    address,
                });
            }
        }
    }
    let mut known = Production { other_accounts, ..Production::default() };
    let mut copied_from = None;
    for (side, theirs) in production {
        let bound = match server(name, side, theirs, resolver).await {
            Ok(server) => Some(Arc::new(server)),
            // Secrets and outputs that only the real night has.
            Err(error) => {
                known.unknown.push(format!("whether a server of this rehearsal is the {side} of `{name}`: {error}"));
                None
            }
        };
        known.servers.extend(bound.clone());
        // The source's log is read, and its rows are; or those of the replicas that stand in for it, which come behind it.
        if matches!(side, "source" | LOG_OF) {
            known.log_of.clone_from(&bound);
        }
        if matches!(side, "source" | COPIED_FROM) {
            copied_from = bound;
        }
    }
    known.copy = copy.map(|copy| fill::From { server: copied_from, rate: copy.rate.unwrap_or(fill::DEFAULT_RATE) });
    Ok(Binding {
        store: name.to_owned(),
        source: Arc::new(server(name, "rehearsal source", source, resolver).await?),
        target: Arc::new(server(name, "rehearsal target", target, resolver).await?),
        production: Some(known),
    })
}

async fn address(store: &str, endpoint: &'static str, written: &Endpoint, resolver: &Resolver) -> Result<Address, BuildError> {
    let text =
        written.url.resolve_text(resolver).await.map_err(|error| BuildError::Reference { store: store.to_owned(), endpoint, error })?;
    Address::parse(&text).map_err(|error| BuildError::Address { store: store.to_owned(), endpoint, error })
}

async fn server(store: &str, endpoint: &'static str, written: &Endpoint, resolver: &Resolver) -> Result<Server, BuildError> {
    let Address { user, host, port } = address(store, endpoint, written, resolver).await?;
    let password = match &written.password {
        Some(password) => Some(password.resolve_secret(resolver).await.map_err(|error| BuildError::Reference {
            store: store.to_owned(),
            endpoint,
            error,
        })?),
        None => None,
    };
    let otherwise = if is_loopback(&host) { Tls::Off } else { Tls::Verify };
    let tls = Protection::of(written.tls, written.ca.as_deref(), otherwise).map_err(|error| BuildError::Protection {
        store: store.to_owned(),
        endpoint,
        error,
    })?;
    Ok(Server { role: format!("{endpoint} of `{store}`"), host, port, user, password, tls, watched: None })
}

/// True for this machine's own loopback, by name or address.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where both endpoints are, if that is the same place. A production endpoint that can't be resolved here (its reference is an output of a step of
/// the production run, or a secret that only the real night has) can only be compared as written.
async fn same_place(store: &str, ours: &Endpoint, theirs: &Endpoint, resolver: &Resolver) -> Result<Option<String>, BuildError> {
    if ours.url == theirs.url {
        return Ok(Some(ours.url.0.clone()));
    }
    let ours = address(store, "rehearsal endpoint", ours, resolver).await?;
    let Ok(theirs) = address(store, "endpoint", theirs, resolver).await else { return Ok(None) };
    if ours.port != theirs.port {
        return Ok(None);
    }
    let place = format!("{}:{}", ours.host, ours.port);
    if ours.host.eq_ignore_ascii_case(&theirs.host) {
        return Ok(Some(place));
    }
    let (ours, theirs) = (addresses(&ours).await, addresses(&theirs).await);
    Ok(ours.iter().any(|address| theirs.contains(address)).then_some(place))
}

/// What a host name stands for; nothing if it is unknown here, which connecting will say more clearly.
async fn addresses(address: &Address) -> Vec<SocketAddr> {
    tokio::net::lookup_host((address.host.as_str(), address.port)).await.map(Iterator::collect).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::outcome::ExitCode;

    fn store(rehearsal: &str) -> Store {
        let text = format!(
            "playbook: p\nstores:\n  s:\n    kind: mysql\n    source: {{ url: 'mysql://u@127.0.0.1:3306/' }}\n    \
             target: {{ url: 'mysql://u@db.invalid:3307/' }}\n{rehearsal}    include: ['*.*']\nstages: {{ prepare: [] }}\n"
        );
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        serde_json::from_value(value["stores"]["s"].clone()).unwrap()
    }

    fn pair(source: &str, target: &str) -> Store {
        store(&format!("    rehearsal: {{ source: {{ url: '{source}' }}, target: {{ url: '{target}' }} }}\n"))
    }

    #[tokio::test]
    async fn production_is_bound_to_production() {
        let bound = bind("s", &pair("mysql://u@127.0.0.1:4000/", "mysql://u@127.0.0.1:4001/"), RunKind::Production, &Resolver::default())
            .await
            .unwrap();
        assert_eq!((bound.source.port, bound.target.port), (3306, 3307));
        assert_eq!((&bound.source.tls, &bound.target.tls), (&Protection::Off, &Protection::Verified { authorities: None }));
    }

    #[tokio::test]
    async fn a_rehearsal_is_bound_to_its_pair() {
        let bound = bind("s", &pair("mysql://u@127.0.0.1:4000/", "mysql://u@127.0.0.1:4001/"), RunKind::Rehearsal, &Resolver::default())
            .await
            .unwrap();
        assert_eq!((bound.source.port, bound.target.port), (4000, 4001));
    }

    #[tokio::test]
    async fn a_rehearsal_without_a_pair_is_refused() {
        let error = bind("s", &store(""), RunKind::Rehearsal, &Resolver::default()).await.unwrap_err();
        assert!(matches!(error, BuildError::NoRehearsalPair { .. }), "{error}");
        assert_eq!(error.exit_code(), ExitCode::Refused);
    }

    #[tokio::test]
    async fn a_rehearsal_on_production_is_refused_however_it_is_written() {
        for (source, target) in [
            ("mysql://u@127.0.0.1:3306/", "mysql://u@127.0.0.1:4001/"),
            ("mysql://other@127.0.0.1/", "mysql://u@127.0.0.1:4001/"),
            ("mysql://u@localhost:3306/", "mysql://u@127.0.0.1:4001/"),
            ("mysql://u@127.0.0.1:4000/", "mysql://u@DB.invalid:3307/"),
            ("mysql://u@127.0.0.1:4000/", "mysql://u@localhost:3306/"),
        ] {
            let error = bind("s", &pair(source, target), RunKind::Rehearsal, &Resolver::default()).await.unwrap_err();
            assert!(matches!(error, BuildError::SameAsProduction { .. }), "{source} {target}: {error}");
        }
    }
}
