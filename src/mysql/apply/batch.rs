//! A batch: the row changes of some consecutive transactions, folded to what has to be written.
//!
//! # Folding
//!
//! Only the last image of each key counts: insert and update become *upsert* of the full after
//! image, an update that changes the key becomes *delete* of the old one and upsert of the new one,
//! delete stays delete. Deletes are written before upserts. The batch's end is a position; between
//! its begin and its end the target equals the source at neither, and nobody looks.
//!
//! # Lanes
//!
//! Changes that could disturb each other go into one lane (one connection, one transaction): the
//! same key, and keys linked by a unique value that one gives up and another takes. The links come
//! from the before and after images, all of which are full. Where keys or unique values compare by
//! collation their bytes don't tell whether they are equal, so the whole table is one lane. A
//! keyless table is one lane in the order of its events.
//!
//! # Barriers
//!
//! A delete or key change of a parent with cascading children changes rows that are in no event.
//! It is not folded: the batch before it is written first, then the parent's change with its
//! cascade ([`super::cascade`]), then the next batch.

use std::collections::{BTreeMap, HashMap};

use crate::mysql::cell::{Cell, Key, Row};
use crate::mysql::position::Position;
use crate::mysql::range_gate::Touched;
use crate::mysql::rows::RowChange;
use crate::mysql::table::ReferentialAction;
use crate::mysql::tables::{MovedTable, TableId, Tables};

/// What has to be done with a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// The key is gone.
    Delete,
    /// The key has this row.
    Upsert(Row),
}

/// A change of a keyless table, applied exactly once and in order.
#[derive(Clone, Debug, PartialEq)]
pub struct KeylessChange {
    /// The row that goes.
    pub before: Option<Row>,
    /// The row that comes.
    pub after: Option<Row>,
}

/// Changes of a keyless table from one event.
#[derive(Clone, Debug)]
pub struct KeylessEvent {
    /// End of the event.
    pub end: Position,
    /// The changes in order.
    pub changes: Vec<KeylessChange>,
}

/// The folded changes of consecutive transactions.
#[derive(Default)]
pub struct Batch {
    /// Keyed tables.
    pub keyed: BTreeMap<TableId, HashMap<Key, Operation>>,
    /// Keyless tables.
    pub keyless: BTreeMap<TableId, Vec<KeylessEvent>>,
    /// Row changes that went in.
    pub changes: u64,
    /// Memory held, roughly, in bytes.
    pub weight: usize,
    links: Links,
}

/// The part of a batch that one connection writes in one transaction.
#[derive(Default)]
pub struct Lane {
    /// Keyed tables: keys to delete, rows to upsert.
    pub keyed: BTreeMap<TableId, LaneTable>,
    /// Keyless tables.
    pub keyless: BTreeMap<TableId, Vec<KeylessEvent>>,
}

/// What a lane does to one keyed table.
#[derive(Default)]
pub struct LaneTable {
    /// Keys that go.
    pub deletes: Vec<Key>,
    /// Rows that come, with their keys.
    pub upserts: Vec<(Key, Row)>,
}

/// Whether the change takes rows of other tables with it.
#[must_use]
pub fn cascades(table: &MovedTable, change: &RowChange) -> bool {
    let Some(before) = &change.before else { return false };
    table.children.iter().any(|child| match &change.after {
        None => child.on_delete != ReferentialAction::Restrict,
        Some(after) => {
            child.on_update != ReferentialAction::Restrict && child.parent_columns.iter().any(|&column| before[column] != after[column])
        }
    })
}

impl Batch {
    /// Whether nothing has to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keyed.is_empty() && self.keyless.is_empty()
    }

    /// Adds a change of the event that ends at `event_end`. The caller has asked [`cascades`] before.
    pub fn add(&mut self, id: TableId, table: &MovedTable, change: RowChange, event_end: &Position) {
        self.changes += 1;
        self.weight += change.before.iter().chain(&change.after).flatten().map(Cell::weight).sum::<usize>();
        let Some(key_columns) = &table.key else {
            let events = self.keyless.entry(id).or_default();
            let change = KeylessChange { before: change.before, after: change.after };
            match events.last_mut() {
                Some(event) if event.end == *event_end => event.changes.push(change),
                _ => events.push(KeylessEvent { end: event_end.clone(), changes: vec![change] }),
            }
            return;
        };
        let before_key = change.before.as_ref().map(|row| Key::of(row, key_columns));
        let after_key = change.after.as_ref().map(|row| Key::of(row, key_columns));
        self.link(id, table, &change, before_key.as_ref(), after_key.as_ref());
        let operations = self.keyed.entry(id).or_default();
        if let Some(key) = before_key
            && Some(&key) != after_key.as_ref()
        {
            operations.insert(key, Operation::Delete);
        }
        if let (Some(key), Some(row)) = (after_key, change.after) {
            operations.insert(key, Operation::Upsert(row));
        }
    }

    fn link(&mut self, id: TableId, table: &MovedTable, change: &RowChange, before: Option<&Key>, after: Option<&Key>) {
        if table.by_collation {
            return;
        }
        if let (Some(before), Some(after)) = (before, after)
            && before != after
        {
            self.links.join(Node::Key(id, before.clone()), Node::Key(id, after.clone()));
        }
        for (row, key) in [(&change.before, before), (&change.after, after)] {
            let (Some(row), Some(key)) = (row, key) else { continue };
            for (index, columns) in table.uniques.iter().enumerate() {
                // NULL never collides.
                if columns.iter().all(|&column| !matches!(row[column], Cell::Null)) {
                    self.links.join(Node::Key(id, key.clone()), Node::Unique(id, index, Key::of(row, columns)));
                }
            }
        }
    }

    /// The keys touched, for marking them before they are written. Keyless tables have none.
    pub fn touched_keys(&self) -> impl Iterator<Item = (TableId, Vec<Key>)> {
        let keyed = self.keyed.iter().map(|(&id, operations)| (id, operations.keys().cloned().collect()));
        keyed.chain(self.keyless.keys().map(|&id| (id, Vec::new())))
    }

    /// The deleted keys, for the delete memory.
    pub fn deleted_keys(&self) -> impl Iterator<Item = (TableId, Vec<Key>)> {
        self.keyed.iter().filter_map(|(&id, operations)| {
            let keys: Vec<Key> =
                operations.iter().filter(|(_, operation)| **operation == Operation::Delete).map(|(key, _)| key.clone()).collect();
            if keys.is_empty() { None } else { Some((id, keys)) }
        })
    }

    /// What the batch touches, for the gate.
    #[must_use]
    pub fn footprint(&self, tables: &Tables) -> HashMap<TableId, Touched> {
        let keyed = self.keyed.iter().map(|(&id, operations)| {
            let table = tables.get(id);
            let numbers: Option<Vec<i128>> = operations.keys().map(|key| table.integer(key)).collect();
            let touched = match numbers {
                Some(mut numbers) => {
                    numbers.sort_unstable();
                    Touched::Integers(numbers)
                }
                None => Touched::Any,
            };
            (id, touched)
        });
        keyed.chain(self.keyless.keys().map(|&id| (id, Touched::Any))).collect()
    }

    /// Drops what is in already of keyless tables: everything of a table that is not copied yet (its
    /// copy will start at a later position than any event seen by now), and events up to the position
    /// through which its rows are in. Ask after the gate: a copy may just have ended.
    pub fn skip_keyless(&mut self, through: &BTreeMap<TableId, Position>) {
        self.keyless.retain(|id, events| match through.get(id) {
            None => false,
            Some(done) => {
                events.retain(|event| event.end > *done);
                !events.is_empty()
            }
        });
    }

    /// Splits the batch into at most `count` lanes that don't disturb each other. A small batch is
    /// one lane: one commit then holds data and position together.
    #[must_use]
    pub fn into_lanes(mut self, tables: &Tables, count: usize, small: u64) -> Vec<Lane> {
        let count = if self.changes <= small { 1 } else { count.max(1) };
        let mut lanes: Vec<Lane> = Vec::new();
        lanes.resize_with(count, Lane::default);
        for (id, operations) in std::mem::take(&mut self.keyed) {
            let table = tables.get(id);
            let spread = if table.by_collation {
                Spread::Table
            } else if table.uniques.is_empty() && self.links.is_empty() {
                Spread::Key
            } else {
                Spread::Linked
            };
            for (key, operation) in operations {
                let lane = match spread {
                    Spread::Table => id % count,
                    Spread::Key => hash(&key) % count,
                    Spread::Linked => {
                        self.links.group(&Node::Key(id, key.clone())).map_or_else(|| hash(&key) % count, |group| group % count)
                    }
                };
                let entry = lanes[lane].keyed.entry(id).or_default();
                match operation {
                    Operation::Delete => entry.deletes.push(key),
                    Operation::Upsert(row) => entry.upserts.push((key, row)),
                }
            }
        }
        for (id, events) in std::mem::take(&mut self.keyless) {
            lanes[id % count].keyless.insert(id, events);
        }
        lanes.retain(|lane| !lane.keyed.is_empty() || !lane.keyless.is_empty());
        lanes
    }
}

#[derive(Clone, Copy)]
enum Spread {
    Table,
    Key,
    Linked,
}

fn hash(key: &Key) -> usize {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() >> 1).unwrap_or(0)
}

/// Keys and unique values that hang together: a union-find.
#[derive(Default)]
struct Links {
    nodes: HashMap<Node, usize>,
    parents: Vec<usize>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Node {
    Key(TableId, Key),
    Unique(TableId, usize, Key),
}

impl Links {
    fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn node(&mut self, node: Node) -> usize {
        let parents = &mut self.parents;
        *self.nodes.entry(node).or_insert_with(|| {
            parents.push(parents.len());
            parents.len() - 1
        })
    }

    fn root(&mut self, mut node: usize) -> usize {
        while self.parents[node] != node {
            // Halving the path keeps later look-ups short.
            self.parents[node] = self.parents[self.parents[node]];
            node = self.parents[node];
        }
        node
    }

    fn join(&mut self, a: Node, b: Node) {
        let (a, b) = (self.node(a), self.node(b));
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a] = b;
    }

    fn group(&mut self, node: &Node) -> Option<usize> {
        let node = *self.nodes.get(node)?;
        Some(self.root(node))
    }
}
