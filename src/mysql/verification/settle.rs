//! Whether a suspect really differs. See the module above for the protocol.

use std::collections::{BTreeSet, HashMap};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Compared, FOUND_KEYS, Pair, Verifier};
use crate::mysql::cell::{Key, Row};
use crate::mysql::checksum::Side;
use crate::mysql::checksum::compare::{rows, rows_by_keys};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::read::KEYS_PER_QUERY;
use crate::verify::RowHash;
use crate::verify::difference::Difference;
use crate::verify::report::LISTED_DIFFERENCES;

/// A suspect counts as different when it stayed so over this time: longer than a commit may take to become visible after its event …
pub const STEADY_FOR: Duration = Duration::from_millis(3500);
/// … and this many looks.
const STEADY_LOOKS: u32 = 4;
/// Looks before a hot key is left for the fence.
const LOOKS: u32 = 30;

/// Suspects settled at a time: they share the pauses, so many cost little more time than one. Of each only hashes are kept.
const TOGETHER: usize = 20_000;

/// What became of the suspects.
#[derive(Default)]
pub struct Settled {
    /// Rows that differ, of the first [`LISTED_DIFFERENCES`] keys at most.
    pub differences: Vec<Difference>,
    /// All rows that differ, listed or not.
    pub count: u64,
    /// Their keys.
    pub keys: Vec<Key>,
    /// Keys too hot to tell: still marked.
    pub hot: u64,
}

/// The two rows of a key as last seen, and since when they are the same.
struct Suspect {
    rows: (Option<RowHash>, Option<RowHash>),
    since: Instant,
    looks: u32,
    /// The number of the last look: a key that another one leads to is looked at once all the same.
    look: u32,
}

/// Suspects on their way.
struct Suspects {
    open: BTreeSet<Key>,
    seen: HashMap<Key, Suspect>,
    sure: Vec<Key>,
}

impl Verifier {
    /// Looks at suspects until each is equal, different, or too hot.
    ///
    /// # Errors
    /// As the servers give them.
    pub async fn settle(&self, pair: &mut Pair, table: &Compared, suspects: &[Key], cancel: &CancellationToken) -> Result<Settled> {
        let mut settled = Settled::default();
        for some in suspects.chunks(TOGETHER) {
            let mut suspects = Suspects { open: some.iter().cloned().collect(), seen: HashMap::new(), sure: Vec::new() };
            self.settle_some(pair, table, &mut suspects, cancel).await?;
            settled.hot += suspects.open.len() as u64;
            // Hot keys are looked at again later, or at the fence.
            self.described.shared.touches.mark(table.table, suspects.open);
            self.remember(table, &suspects.sure);
            for sure in suspects.sure.chunks(KEYS_PER_QUERY) {
                if settled.differences.len() >= LISTED_DIFFERENCES {
                    settled.count += sure.len() as u64;
                    continue;
                }
                let found = rows_by_keys(&mut pair.source, &mut pair.target, &table.comparison, sure).await?;
                settled.count += found.len() as u64;
                settled.differences.extend(found);
            }
            settled.keys.extend(suspects.sure);
        }
        Ok(settled)
    }

    /// Keeps keys that differ, for a repair.
    fn remember(&self, table: &Compared, keys: &[Key]) {
        if keys.is_empty() {
            return;
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let room = FOUND_KEYS.saturating_sub(found.values().map(BTreeSet::len).sum());
        found.entry(table.table).or_default().extend(keys.iter().take(room).cloned());
    }

    async fn settle_some(&self, pair: &mut Pair, table: &Compared, suspects: &mut Suspects, cancel: &CancellationToken) -> Result<()> {
        for look in 1..=LOOKS {
            let keys: Vec<Key> = suspects.open.iter().cloned().collect();
            for some in keys.chunks(KEYS_PER_QUERY) {
                if cancel.is_cancelled() {
                    return Err(MysqlError::Cancelled);
                }
                self.look(pair, table, some, look, suspects, cancel).await?;
            }
            if suspects.open.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                () = tokio::time::sleep(Duration::from_millis(100 * u64::from(look.min(10)))) => {}
            }
        }
        Ok(())
    }

    /// One look at some of the open keys.
    async fn look(
        &self,
        pair: &mut Pair,
        table: &Compared,
        keys: &[Key],
        look: u32,
        suspects: &mut Suspects,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let touches = &self.described.shared.touches;
        let before = touches.now();
        let mut source = rows(&mut pair.source, &table.comparison, Side::Source, keys).await?;
        self.catch_up(&mut pair.source, cancel).await?;
        let mut target = rows(&mut pair.target, &table.comparison, Side::Target, keys).await?;
        // Where the collation finds a row under a key of other bytes, that key is a suspect too.
        let found: BTreeSet<Key> = keys.iter().cloned().chain(source.keys().cloned()).chain(target.keys().cloned()).collect();
        for key in found {
            let rows = (source.remove(&key), target.remove(&key));
            if rows.0 == rows.1 {
                suspects.open.remove(&key);
                suspects.seen.remove(&key);
                continue;
            }
            if suspects.seen.get(&key).is_some_and(|suspect| suspect.look == look) {
                continue;
            }
            if !self.moving {
                suspects.open.remove(&key);
                suspects.sure.push(key);
                continue;
            }
            let rows = (rows.0.as_ref().map(hashed), rows.1.as_ref().map(hashed));
            suspects.open.insert(key.clone());
            let touched = touches.of(table.table, &key).is_some_and(|mark| mark >= before);
            let suspect = suspects.seen.entry(key.clone()).or_insert_with(|| Suspect { rows, since: Instant::now(), looks: 0, look });
            if touched || suspect.rows != rows {
                *suspect = Suspect { rows, since: Instant::now(), looks: 0, look };
                continue;
            }
            suspect.look = look;
            suspect.looks += 1;
            if suspect.looks >= STEADY_LOOKS && suspect.since.elapsed() >= STEADY_FOR {
                suspects.open.remove(&key);
                suspects.sure.push(key);
            }
        }
        Ok(())
    }
}

fn hashed(row: &Row) -> RowHash {
    let mut bytes = Vec::new();
    row.iter().for_each(|cell| cell.encode(&mut bytes));
    RowHash::of(&bytes)
}
