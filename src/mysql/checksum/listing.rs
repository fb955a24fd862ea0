//! The rows of a scope on one side, by either method: as one tally, or as key → hash.
//!
//! A listing is what a differing tally is resolved with, and what the moving protocol keeps of one side while it
//! waits for the other. It costs about a hundred bytes a row, so it is made of chunks, not of tables.

use std::collections::{BTreeSet, HashMap};

use super::super::cell::Key;
use super::super::connect::Session;
use super::super::error::Result;
use super::super::read::Scope;
use super::comparison::{Comparison, Side};
use super::method::Method;
use super::{client, server};
use crate::verify::{RowHash, Tally};

/// Key → hash of the rows of a scope on one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The rows.
    pub rows: HashMap<Key, RowHash>,
}

impl Listing {
    /// The tally of its rows.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.rows.values().copied().collect()
    }

    /// The keys that are on one side only or have different rows, in order of their bytes.
    #[must_use]
    pub fn differing(&self, other: &Listing) -> BTreeSet<Key> {
        let changed = self.rows.iter().filter(|(key, hash)| other.rows.get(*key) != Some(hash)).map(|(key, _)| key);
        let extra = other.rows.keys().filter(|key| !self.rows.contains_key(*key));
        changed.chain(extra).cloned().collect()
    }
}

/// The tally of the rows in a scope on one side. Compare it with one by the same method only.
///
/// # Errors
/// If the server refuses the query or the connection breaks; for [`Method::Server`] also if the table has floats or a hash is NULL.
pub async fn tally(session: &mut Session, comparison: &Comparison, side: Side, method: Method, scope: &Scope<'_>) -> Result<Tally> {
    match method {
        Method::Server(function) => server::tally(session, comparison, side, function, scope).await,
        Method::Client => client::tally(session, comparison, side, scope).await,
    }
}

/// Key → hash of the rows in a scope on one side.
///
/// # Errors
/// As [`tally`], and if the table has no key.
pub async fn listing(session: &mut Session, comparison: &Comparison, side: Side, method: Method, scope: &Scope<'_>) -> Result<Listing> {
    listing_where(session, comparison, side, method, scope, |_| true).await
}

/// As [`listing`], of the keys that `keep` takes.
pub(super) async fn listing_where(
    session: &mut Session,
    comparison: &Comparison,
    side: Side,
    method: Method,
    scope: &Scope<'_>,
    keep: impl Fn(&Key) -> bool,
) -> Result<Listing> {
    comparison.key_columns(side)?;
    let mut listing = Listing::default();
    let put = |key: Key, hash: RowHash| {
        if keep(&key) {
            listing.rows.insert(key, hash);
        }
    };
    match method {
        Method::Server(function) => server::list(session, comparison, side, function, scope, put).await?,
        Method::Client => client::list(session, comparison, side, scope, put).await?,
    }
    Ok(listing)
}
