//! Comparing source and target while both change, without a lock and without false alarm.
//!
//! # The protocol
//!
//! For a chunk: tally the source, read its position `H`, wait until the applier passed `H`, tally the
//! target. Equal tallies: every row of the chunk was equal. Unequal tallies on moving data say little:
//! rows may have changed between the two reads. So the rows' hashes are listed on both sides, and
//! the keys that differ are *suspects*.
//!
//! A suspect is read alone on both sides, again and again with growing pauses ([`settle`]). It counts
//! as a difference only when it stayed the same and different over several tries, with no event on
//! it in between, over a time longer than a commit may take to become visible after its event. A
//! key that is too hot for that stays marked and is compared at the fence at the latest.
//!
//! From the start of a full comparison on, the applier marks every key it touches
//! ([`crate::mysql::touches`]); a mark goes when the key was compared after it. So when the fence
//! stands only the marked keys are left ([`changed`]), and then nothing moves: one look is exact.
//!
//! Keyless tables have no keys to mark. They are compared whole: while moving, between two events on
//! them; at the fence again if an event came since.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`full`] | every row of every table |
//! | [`changed`] | the marked keys |
//! | [`settle`] | whether a suspect really differs |
//! | [`mend`] | what cascades of several levels left while tables were copied |
//! | [`repair`] | re-copies rows that differ, when asked to |
//! | [`structure`] | what rows can't show: tables, columns, keys, counters |

pub mod changed;
pub mod full;
pub mod mend;
pub mod repair;
pub mod settle;
pub mod structure;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::catalog::Catalog;
use super::cell::Key;
use super::checksum::method::{common, functions, round_trip};
use super::checksum::{Comparison, Function, Method};
use super::connect::{Purpose, Session};
use super::copy::write_chunk::wait_applied;
use super::error::{MysqlError, Result};
use super::status;
use super::store::{Described, MysqlStore};
use super::tables::TableId;
use crate::verify::report::NotCompared;

/// How rows are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// By what is cheaper for the table and the distance of the servers.
    #[default]
    Auto,
    /// On the servers, by a function that both have.
    Server,
    /// Here, by SHA-256.
    Client,
}

/// One session on each side.
pub struct Pair {
    /// The source.
    pub source: Session,
    /// The target.
    pub target: Session,
}

impl Pair {
    /// Opens both.
    ///
    /// # Errors
    /// If a server can't be reached.
    pub async fn open(store: &MysqlStore) -> Result<Pair> {
        let (source, target) = tokio::try_join!(Session::open(&store.source, Purpose::Read), Session::open(&store.target, Purpose::Read))?;
        Ok(Pair { source, target })
    }
}

/// A table ready to be compared.
pub struct Compared {
    /// Its index.
    pub table: TableId,
    /// What is compared of it.
    pub comparison: Comparison,
    /// How its rows are hashed.
    pub method: Method,
    /// Why so.
    pub why: String,
}

/// Everything a verification needs.
pub struct Verifier {
    /// The store.
    pub store: Arc<MysqlStore>,
    /// What the servers hold.
    pub described: Arc<Described>,
    /// The tables in order of their index, but for those whose rows can't be compared.
    pub tables: Vec<Arc<Compared>>,
    /// What the target held when this was made.
    pub target_catalog: Arc<Catalog>,
    /// Tables whose rows can't be compared, and why: missing on the target, or without a common column or key.
    pub not_comparable: Vec<NotCompared>,
    /// Whether rows may change meanwhile. At the fence nothing moves.
    pub moving: bool,
    /// Keys that were found different since this was last emptied, at most [`FOUND_KEYS`]: what [`Verifier::repair`] repairs.
    /// A table without key has none.
    pub found: Mutex<BTreeMap<TableId, BTreeSet<Key>>>,
}

/// Keys remembered for a repair at most; with more, a repair takes several rounds.
pub const FOUND_KEYS: usize = 200_000;

impl Verifier {
    /// Reads the target's catalog, tries the servers' hash functions and chooses a method per table.
    ///
    /// # Errors
    /// If a server can't be read, or `engine` is not possible for a table.
    pub async fn new(store: &Arc<MysqlStore>, engine: Engine, moving: bool) -> Result<Verifier> {
        let described = store.described().await?;
        let mut catalog_session = Session::open(&store.target, Purpose::Catalog).await?;
        let target_catalog = Catalog::read_known(&mut catalog_session, &store.selection).await?;
        catalog_session.close().await;
        let mut pair = Pair::open(store).await?;
        let function = common(&functions(&mut pair.source).await?, &functions(&mut pair.target).await?);
        let distance = round_trip(&mut pair.source).await?.max(round_trip(&mut pair.target).await?);
        let mut tables = Vec::new();
        let mut not_comparable = Vec::new();
        for (id, moved) in described.shared.tables.iter() {
            let mut not_comparable_because = |why: String| not_comparable.push(NotCompared { object: moved.name().to_string(), why });
            let Some(target) = target_catalog.table(moved.name()) else {
                not_comparable_because("it is not on the target: something dropped it".to_owned());
                continue;
            };
            let comparison = match Comparison::between(&moved.table, &moved.as_it_holds(target)) {
                Ok(comparison) => comparison,
                Err(error) => {
                    not_comparable_because(error.to_string());
                    continue;
                }
            };
            let (method, mut why) = choose(&comparison, engine, function, distance)?;
            if let Some(conversion) = moved.conversion {
                why.push_str(&format!("; text compared by its bytes, converted by `{conversion}`"));
            }
            tables.push(Arc::new(Compared { table: id, comparison, method, why }));
        }
        let target_catalog = Arc::new(target_catalog);
        Ok(Verifier { store: store.clone(), described, tables, target_catalog, not_comparable, moving, found: Mutex::default() })
    }

    /// Waits until the target holds everything that the source logged up to now. At the fence it does already.
    async fn catch_up(&self, source: &mut Session, cancel: &CancellationToken) -> Result<Option<super::position::Position>> {
        if !self.moving {
            return Ok(None);
        }
        let position = status::current_position(source).await?;
        let mut applied = self.store.applied.subscribe();
        wait_applied(&mut applied, &position, cancel).await?;
        Ok(Some(position))
    }
}

fn choose(comparison: &Comparison, engine: Engine, function: Option<Function>, distance: std::time::Duration) -> Result<(Method, String)> {
    match (engine, function) {
        (Engine::Client, _) => Ok((Method::Client, "asked for".to_owned())),
        (Engine::Server, Some(function)) if !comparison.has_floats() => Ok((Method::Server(function), "asked for".to_owned())),
        (Engine::Server, _) => Err(MysqlError::Object {
            message: format!(
                "`{}` can't be compared by `engine: server`: it has FLOAT or DOUBLE columns, or the servers share no hash function",
                comparison.name()
            ),
            hint: "use `engine: auto`, which takes `client` for such tables".to_owned(),
        }),
        (Engine::Auto, function) => {
            let choice = Method::choose(comparison, function, distance);
            Ok((choice.method, choice.why))
        }
    }
}
