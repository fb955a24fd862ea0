//! Which transactions have to wait for which: those that touch the same row, in the order of the log.
//!
//! On production two transactions that changed one row came one after the other; any others could have been the other way round. So each waits for the
//! last one before it that touched one of its keys or unique values. A row with a foreign key stands on its parent: it waits for whoever changed
//! the parent, and whoever changes the parent waits for it. Children of one parent don't wait for each other. Nobody waits for a later one, so nobody
//! waits for ever.
//!
//! Keys are told apart by their bytes, with ASCII letters alike. Where a collation calls more of them equal, two changes of one row may change places: the
//! copy then drifts a little more, which is harmless (see the module's comment).

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use tokio_util::sync::CancellationToken;

use crate::mysql::cell::{Cell, Key, Row};
use crate::mysql::tables::{MovedTable, TableId, Tables};
use crate::mysql::tail::Rows;

/// What a transaction touches, by hash: two that share one are kept in order though they may have nothing in common.
#[derive(Debug, Default)]
pub struct Footprint {
    changed: HashSet<u64>,
    stood_on: HashSet<u64>,
}

impl Footprint {
    /// Of a transaction's row changes.
    #[must_use]
    pub fn of(rows: &[Rows], tables: &Tables) -> Footprint {
        let mut footprint = Footprint::default();
        for event in rows {
            let table = tables.get(event.table);
            for row in event.changes.iter().flat_map(|change| change.before.iter().chain(&change.after)) {
                footprint.row(event.table, table, row, tables);
            }
        }
        footprint.stood_on = footprint.stood_on.difference(&footprint.changed).copied().collect();
        footprint
    }

    fn row(&mut self, id: TableId, table: &MovedTable, row: &Row, tables: &Tables) {
        // A table without key is one thing: its rows can't be told apart.
        self.changed.insert(table.key.as_ref().map_or_else(|| mark(id, 0, &[]), |columns| mark(id, 0, &Key::of(row, columns).0)));
        for (index, columns) in table.uniques.iter().enumerate() {
            if has_no_null(row, columns) {
                self.changed.insert(mark(id, index + 1, &Key::of(row, columns).0));
            }
        }
        for foreign_key in &table.table.foreign_keys {
            let Some(parent) = tables.id(&foreign_key.parent.database, &foreign_key.parent.table) else { continue };
            let of_parent = &tables.get(parent).table;
            let referred: Option<Vec<usize>> = foreign_key.parent_columns.iter().map(|name| of_parent.column(name)).collect();
            if referred.is_some() && referred == tables.get(parent).key && has_no_null(row, &foreign_key.columns) {
                self.stood_on.insert(mark(parent, 0, &Key::of(row, &foreign_key.columns).0));
            }
        }
    }
}

fn has_no_null(row: &Row, columns: &[usize]) -> bool {
    columns.iter().all(|&column| !matches!(row[column], Cell::Null))
}

fn mark(table: TableId, index: usize, key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (table, index, key.to_ascii_lowercase()).hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Default)]
struct Last {
    changed: Option<CancellationToken>,
    stood_on: Vec<CancellationToken>,
}

impl Last {
    fn is_over(&self) -> bool {
        self.changed.iter().chain(&self.stood_on).all(CancellationToken::is_cancelled)
    }
}

/// A transaction's place: whom it waits for, and what it cancels when it is through.
#[derive(Debug)]
pub struct Turn {
    /// Those before it, each cancelled when it is through.
    pub after: Vec<CancellationToken>,
    /// To be cancelled when this one is through, however it went.
    pub done: CancellationToken,
}

/// The last transactions by what they touched. To be entered in the order of the log.
#[derive(Debug, Default)]
pub struct Order {
    last: HashMap<u64, Last>,
    entered: usize,
}

/// After so many those that are through are forgotten.
const FORGET_AFTER: usize = 4096;

impl Order {
    /// Gives a transaction its place.
    pub fn enter(&mut self, footprint: &Footprint) -> Turn {
        self.entered += 1;
        if self.entered.is_multiple_of(FORGET_AFTER) {
            self.last.retain(|_, last| !last.is_over());
        }
        let done = CancellationToken::new();
        let mut after = Vec::new();
        for &touched in &footprint.changed {
            let last = self.last.entry(touched).or_default();
            after.extend(last.changed.replace(done.clone()));
            after.append(&mut last.stood_on);
        }
        for &touched in &footprint.stood_on {
            let last = self.last.entry(touched).or_default();
            after.extend(last.changed.clone());
            last.stood_on.retain(|other| !other.is_cancelled());
            last.stood_on.push(done.clone());
        }
        after.retain(|before| !before.is_cancelled());
        Turn { after, done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprint(changed: &[u64], stood_on: &[u64]) -> Footprint {
        Footprint { changed: changed.iter().copied().collect(), stood_on: stood_on.iter().copied().collect() }
    }

    #[test]
    fn the_same_row_comes_in_order_and_others_side_by_side() {
        let mut order = Order::default();
        let first = order.enter(&footprint(&[1, 2], &[]));
        let other = order.enter(&footprint(&[3], &[]));
        let second = order.enter(&footprint(&[2, 4], &[]));
        let third = order.enter(&footprint(&[2], &[]));
        assert_eq!([&first, &other, &second, &third].map(|turn| turn.after.len()), [0, 0, 1, 1]);
        first.done.cancel();
        assert!(second.after[0].is_cancelled() && !third.after[0].is_cancelled(), "the third waits for the second");
    }

    #[test]
    fn children_of_one_parent_don_t_wait_for_each_other_but_for_the_parent() {
        let mut order = Order::default();
        let parent = order.enter(&footprint(&[9], &[]));
        let (one, two) = (order.enter(&footprint(&[1], &[9])), order.enter(&footprint(&[2], &[9])));
        assert_eq!((one.after.len(), two.after.len()), (1, 1));
        parent.done.cancel();
        assert!(one.after[0].is_cancelled() && two.after[0].is_cancelled());
        let gone = order.enter(&footprint(&[9], &[]));
        assert_eq!(gone.after.len(), 2, "the parent goes after both children");
    }

    #[test]
    fn those_that_are_through_are_forgotten() {
        let mut order = Order::default();
        for number in 0..FORGET_AFTER as u64 * 3 {
            order.enter(&footprint(&[number], &[])).done.cancel();
        }
        assert!(order.last.len() <= FORGET_AFTER, "{}", order.last.len());
    }
}
