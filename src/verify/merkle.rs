//! From chunks to one number for a run: chunk digests → table root → store root → run root.
//!
//! The run root goes into the certificate and the journal. Whoever holds it can be shown later that a
//! chunk's tally was part of what was verified, and that nothing was added, left out or edited
//! since: any change of any tally, name, range or of the set of chunks gives another root.
//!
//! Children are ordered by name (chunks: by the text of their range), never by when they
//! were done, so a resumed run and one with more workers give the same root. Every hash starts
//! with what it is a hash of, and every part is length-prefixed, so a leaf can't pass for a node
//! nor a table for a store.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::tally::Tally;

/// A SHA-256 value; in text and JSON as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(|error| serde::de::Error::custom(format!("`{text}` is not a digest: {error}")))?;
        Ok(Digest(bytes))
    }
}

/// What a root stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A table (or collection, or directory): children are chunks.
    Table,
    /// A store: children are tables.
    Store,
    /// A run: children are stores.
    Run,
}

impl Level {
    fn word(self) -> &'static [u8] {
        match self {
            Level::Table => b"dbmove table 1",
            Level::Store => b"dbmove store 1",
            Level::Run => b"dbmove run 1",
        }
    }
}

/// The digest of one verified chunk: its table, its range as text, its tally.
#[must_use]
pub fn chunk(table: &str, range: &str, tally: &Tally) -> Digest {
    let numbers: Vec<u8> = [tally.rows, tally.first, tally.second].iter().flat_map(|number| number.to_be_bytes()).collect();
    hash(&[b"dbmove chunk 1", table.as_bytes(), range.as_bytes(), &numbers])
}

/// The root over named children; the map's order is the tree's order.
#[must_use]
pub fn root(level: Level, name: &str, children: &BTreeMap<String, Digest>) -> Digest {
    let mut row: Vec<Digest> = children.iter().map(|(child, digest)| hash(&[b"dbmove leaf 1", child.as_bytes(), &digest.0])).collect();
    while row.len() > 1 {
        row = row
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => hash(&[b"dbmove node 1", &left.0, &right.0]),
                // An odd one goes up as it is: repeating it would let two sets share a root.
                single => single[0],
            })
            .collect();
    }
    let top: &[u8] = row.first().map_or(&[], |digest| &digest.0);
    hash(&[level.word(), name.as_bytes(), &(children.len() as u64).to_be_bytes(), top])
}

fn hash(parts: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Digest(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(count: u64) -> BTreeMap<String, Digest> {
        (0..count)
            .map(|at| {
                (format!("{at:04}"), chunk("school.students", &format!("{at:04}"), &Tally { rows: at, first: at * 3, second: at * 5 }))
            })
            .collect()
    }

    #[test]
    fn every_change_gives_another_root() {
        for count in 0..9 {
            let whole = root(Level::Table, "t", &chunks(count));
            assert_eq!(whole, root(Level::Table, "t", &chunks(count)));
            assert_ne!(whole, root(Level::Table, "u", &chunks(count)));
            assert_ne!(whole, root(Level::Store, "t", &chunks(count)));
            assert_ne!(whole, root(Level::Table, "t", &chunks(count + 1)));
            for at in 0..count {
                let label = format!("{at:04}");
                let mut changed = chunks(count);
                changed.insert(label.clone(), chunk("school.students", &label, &Tally { rows: at, first: at * 3, second: at * 5 + 1 }));
                assert_ne!(whole, root(Level::Table, "t", &changed));
                let mut less = chunks(count);
                less.remove(&label);
                assert_ne!(whole, root(Level::Table, "t", &less));
            }
        }
    }

    #[test]
    fn the_last_of_an_odd_row_is_not_the_same_as_twice() {
        let three = chunks(3);
        let mut four = three.clone();
        four.insert("0003".into(), three["0002"]);
        assert_ne!(root(Level::Table, "t", &three), root(Level::Table, "t", &four));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(chunk("ab", "c", &Tally::default()), chunk("a", "bc", &Tally::default()));
    }

    #[test]
    fn a_digest_reads_back() {
        let digest = chunk("t", "", &Tally::default());
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"12\"").is_err());
    }
}
