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
use crate::verify::difference::Difference;

/// A suspect counts as different when it stayed so over this time: longer than a commit may take to become visible after its event …
pub const STEADY_FOR: Duration = Duration::from_millis(3500);
/// … and this many looks.
const STEADY_LOOKS: u32 = 4;
/// Looks before a hot key is left for the fence.
const LOOKS: u32 = 30;

/// What became of the suspects.
#[derive(Default)]
pub struct Settled {
    /// Rows that differ.
    pub differences: Vec<Difference>,
    /// Their keys.
    pub keys: Vec<Key>,
    /// Keys too hot to tell: still marked.
    pub hot: u64,
}

/// The two rows of a key as last seen, and since when they are the same.
struct Suspect {
    rows: (Option<Row>, Option<Row>),
    since: Instant,
    looks: u32,
}

impl Verifier {
    /// Looks at suspects until each is equal, different, or too hot.
    ///
    /// # Errors
    /// As the servers give them.
    pub async fn settle(&self, pair: &mut Pair, table: &Compared, suspects: &[Key], cancel: &CancellationToken) -> Result<Settled> {
        let mut settled = Settled::default();
        for some in suspects.chunks(KEYS_PER_QUERY) {
            let one = self.settle_some(pair, table, some, cancel).await?;
            settled.differences.extend(one.differences);
            settled.keys.extend(one.keys);
            settled.hot += one.hot;
        }
        Ok(settled)
    }

    /// Keeps keys that differ, for a repair.
    fn remember(&self, table: &Compared, keys: &[Key]) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let room = FOUND_KEYS.saturating_sub(found.values().map(BTreeSet::len).sum());
        found.entry(table.table).or_default().extend(keys.iter().take(room).cloned());
    }

    async fn settle_some(&self, pair: &mut Pair, table: &Compared, suspects: &[Key], cancel: &CancellationToken) -> Result<Settled> {
        let touches = &self.described.shared.touches;
        let mut open: BTreeSet<Key> = suspects.iter().cloned().collect();
        let mut seen: HashMap<Key, Suspect> = HashMap::new();
        let mut sure: Vec<Key> = Vec::new();
        let mut looks = 0;
        while !open.is_empty() && looks < LOOKS {
            if cancel.is_cancelled() {
                return Err(MysqlError::Cancelled);
            }
            looks += 1;
            let before = touches.now();
            let keys: Vec<Key> = open.iter().cloned().collect();
            let mut source = rows(&mut pair.source, &table.comparison, Side::Source, &keys).await?;
            self.catch_up(&mut pair.source, cancel).await?;
            let mut target = rows(&mut pair.target, &table.comparison, Side::Target, &keys).await?;
            // Where the collation finds a row under a key of other bytes, that key is a suspect too.
            let found: BTreeSet<Key> = keys.into_iter().chain(source.keys().cloned()).chain(target.keys().cloned()).collect();
            for key in found {
                let rows = (source.remove(&key), target.remove(&key));
                if rows.0 == rows.1 {
                    open.remove(&key);
                    seen.remove(&key);
                    continue;
                }
                if !self.moving {
                    open.remove(&key);
                    sure.push(key);
                    continue;
                }
                open.insert(key.clone());
                let touched = touches.of(table.table, &key).is_some_and(|mark| mark >= before);
                let suspect = seen.entry(key.clone()).or_insert_with(|| Suspect { rows: rows.clone(), since: Instant::now(), looks: 0 });
                if touched || suspect.rows != rows {
                    *suspect = Suspect { rows, since: Instant::now(), looks: 0 };
                    continue;
                }
                suspect.looks += 1;
                if suspect.looks >= STEADY_LOOKS && suspect.since.elapsed() >= STEADY_FOR {
                    open.remove(&key);
                    sure.push(key);
                }
            }
            if !open.is_empty() {
                tokio::select! {
                    () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                    () = tokio::time::sleep(Duration::from_millis(100 * u64::from(looks.min(10)))) => {}
                }
            }
        }
        let mut settled = Settled { hot: open.len() as u64, ..Settled::default() };
        // Hot keys are looked at again later, or at the fence.
        touches.mark(table.table, open);
        if !sure.is_empty() {
            self.remember(table, &sure);
            settled.differences = rows_by_keys(&mut pair.source, &mut pair.target, &table.comparison, &sure).await?;
            settled.keys = sure;
        }
        Ok(settled)
    }
}
