//! From "these ranges differ" to every differing key, column and value.
//!
//! [`fetch_difference`] walks a range in pieces of [`PIECE`] rows: equal tallies end the matter for a
//! piece, unequal ones are resolved by key → hash of that piece on both sides. Pieces are
//! matched by key *bytes*, never by merging two sorted streams: two servers may sort one
//! collation differently, and a merge would then see differences everywhere. Memory is two pieces,
//! plus the differing keys, of which at most `most` are kept.
//!
//! Where the key's collation differs between the sides, a range does not hold the same rows, so the
//! table is compared as a whole, in as many passes as keep a share of its keys in memory.
//!
//! [`rows_by_keys`] fetches both rows of each key and names the columns. A key the target has in
//! another spelling (`Bob` for `bob`, equal to the collation) is found by asking the target for the
//! source's key, and is one changed row, not one missing and one extra.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::cell::{Cell, Key, Row};
use super::super::connect::Session;
use super::super::error::Result;
use super::super::range::{self, KeyRange};
use super::super::read::{self, KEYS_PER_QUERY, Order, Scope};
use super::super::table::ColumnType;
use super::comparison::{Comparison, Pair, Side};
use super::listing::{self, listing, tally};
use super::method::Method;
use super::repair;
use crate::verify::difference::{self, ChangedColumn, Content, Difference, DifferenceKind};

/// Rows per piece.
pub const PIECE: u64 = 10_000;

/// Keys that are held in memory per side when a table can only be compared as a whole.
const KEYS_PER_PASS: u64 = 500_000;

/// Keys whose rows differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DifferingKeys {
    /// The keys, on either side or both.
    pub keys: BTreeSet<Key>,
    /// False if the search ended early because it had found enough.
    pub complete: bool,
}

/// The keys in `range` whose rows differ between the two sides, at least `most` of them if there are
/// that many. The range is of the source's keys. Nothing is remembered about rows that change
/// between the two reads: on moving data the result is a set of suspects.
///
/// # Errors
/// If a server refuses a query, a connection breaks, or the table has no common key.
pub async fn fetch_difference(
    source: &mut Session,
    target: &mut Session,
    comparison: &Comparison,
    method: Method,
    range: &KeyRange,
    most: usize,
) -> Result<DifferingKeys> {
    let table = comparison.table(Side::Source);
    if !range::comparable(table, comparison.table(Side::Target)) {
        return whole(source, target, comparison, method, most).await;
    }
    comparison.key_columns(Side::Source)?;
    let mut found = DifferingKeys { keys: BTreeSet::new(), complete: true };
    let mut after = range.after.clone();
    loop {
        let next = next_piece(source, comparison, after.as_ref(), range).await?;
        let last = next.is_none();
        let piece = KeyRange { after: after.take(), through: next.clone().or_else(|| range.through.clone()) };
        let scope = Scope::Range(&piece);
        let (ours, theirs) = tokio::try_join!(
            tally(source, comparison, Side::Source, method, &scope),
            tally(target, comparison, Side::Target, method, &scope)
        )?;
        if ours != theirs {
            let (ours, theirs) = tokio::try_join!(
                listing(source, comparison, Side::Source, method, &scope),
                listing(target, comparison, Side::Target, method, &scope)
            )?;
            found.keys.extend(ours.differing(&theirs));
        }
        if last {
            return Ok(found);
        }
        if found.keys.len() >= most {
            found.complete = false;
            return Ok(found);
        }
        after = next;
    }
}

/// Where the piece behind `after` ends, or `None` if it is the range's last. Rows the target has
/// behind the source's last key belong to the last piece, which ends where the range ends.
async fn next_piece(source: &mut Session, comparison: &Comparison, after: Option<&Key>, range: &KeyRange) -> Result<Option<Key>> {
    let table = comparison.table(Side::Source);
    let columns = read::key_columns(table)?;
    let within = KeyRange { after: after.cloned(), through: range.through.clone() };
    let mut rows = read::stream_limited(source, table, &columns, &Scope::Range(&within), Order::ByKey, Some((1, PIECE - 1))).await?;
    let places: Vec<usize> = (0..columns.len()).collect();
    Ok(rows.next().await?.map(|row| Key::of(&row, &places)))
}

/// The whole table, without ranges: each pass takes the keys of one share.
async fn whole(source: &mut Session, target: &mut Session, comparison: &Comparison, method: Method, most: usize) -> Result<DifferingKeys> {
    let (ours, theirs) = tokio::try_join!(
        tally(source, comparison, Side::Source, method, &Scope::Table),
        tally(target, comparison, Side::Target, method, &Scope::Table)
    )?;
    let mut found = DifferingKeys { keys: BTreeSet::new(), complete: true };
    if ours == theirs {
        return Ok(found);
    }
    let passes = ours.rows.max(theirs.rows).div_ceil(KEYS_PER_PASS).max(1);
    for pass in 0..passes {
        if found.keys.len() >= most {
            found.complete = false;
            break;
        }
        let mine = |key: &Key| {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            hasher.finish() % passes == pass
        };
        let (ours, theirs) = tokio::try_join!(
            listing::listing_where(source, comparison, Side::Source, method, &Scope::Table, mine),
            listing::listing_where(target, comparison, Side::Target, method, &Scope::Table, mine)
        )?;
        found.keys.extend(ours.differing(&theirs));
    }
    Ok(found)
}

/// The differences behind these keys: which rows are missing, extra or changed, with the columns, both values and
/// the SQL that would repair the target. Keys whose rows are equal (by now) give none.
///
/// # Errors
/// As [`fetch_difference`].
pub async fn rows_by_keys(source: &mut Session, target: &mut Session, comparison: &Comparison, keys: &[Key]) -> Result<Vec<Difference>> {
    let mut differences = Vec::new();
    for batch in keys.chunks(KEYS_PER_QUERY) {
        let (ours, theirs) =
            tokio::try_join!(rows(source, comparison, Side::Source, batch), rows(target, comparison, Side::Target, batch))?;
        let mut missing: BTreeMap<Key, Row> = BTreeMap::new();
        let mut extra = theirs;
        for (key, row) in ours {
            match extra.remove(&key) {
                Some(other) => differences.extend(changed(comparison, &row, &other)),
                None => {
                    missing.insert(key, row);
                }
            }
        }
        for (key, row) in missing {
            // The target may have it in another spelling that its collation calls equal.
            let spelled = match extra.is_empty() {
                true => None,
                false => rows(target, comparison, Side::Target, std::slice::from_ref(&key)).await?.into_keys().next(),
            };
            match spelled.and_then(|other| extra.remove(&other)) {
                Some(other) => differences.extend(changed(comparison, &row, &other)),
                None => differences.push(Difference {
                    repair_sql: repair::insert(comparison, &row, 1),
                    ..named(comparison, show_key(comparison, Side::Source, &row), DifferenceKind::Missing)
                }),
            }
        }
        let extra: BTreeMap<Key, Row> = extra.into_iter().collect();
        for row in extra.values() {
            differences.push(Difference {
                repair_sql: repair::delete(comparison, row, None),
                ..named(comparison, show_key(comparison, Side::Target, row), DifferenceKind::Extra)
            });
        }
    }
    Ok(differences)
}

/// The compared values of the rows with these keys on one side, by key as stored.
///
/// # Errors
/// As [`fetch_difference`].
pub async fn rows(session: &mut Session, comparison: &Comparison, side: Side, keys: &[Key]) -> Result<HashMap<Key, Row>> {
    let (select, key_parts, binary) = comparison.select(side, true)?;
    comparison.key_columns(side)?;
    let mut answers =
        read::Rows::of(read::Answers::open(session, comparison.table(side), &select, binary, &Scope::Keys(keys), Order::Any, None).await?);
    let places: Vec<usize> = (0..key_parts).collect();
    let mut found = HashMap::with_capacity(keys.len());
    while let Some(mut row) = answers.next().await? {
        let key = Key::of(&row, &places);
        row.drain(..key_parts);
        found.insert(key, row);
    }
    Ok(found)
}

fn changed(comparison: &Comparison, source: &Row, target: &Row) -> Option<Difference> {
    let differing: Vec<usize> = (0..source.len()).filter(|&index| source[index] != target[index]).collect();
    if differing.is_empty() {
        return None;
    }
    let columns = differing
        .iter()
        .map(|&index| {
            let pair = &comparison.pairs()[index];
            let (ours, theirs) =
                (text(comparison, Side::Source, pair, &source[index]), text(comparison, Side::Target, pair, &target[index]));
            let (source, target) = difference::show_pair(ours.content(), theirs.content());
            ChangedColumn { name: comparison.column(Side::Source, pair).name.clone(), source, target }
        })
        .collect();
    Some(Difference {
        repair_sql: repair::update(comparison, source, target, &differing),
        ..named(comparison, show_key(comparison, Side::Source, source), DifferenceKind::Changed { columns })
    })
}

pub(super) fn named(comparison: &Comparison, key: String, kind: DifferenceKind) -> Difference {
    Difference { table: comparison.name().to_string(), key, kind, repair_sql: None }
}

/// The key of a row of compared values: `class_id = 1, student = 'Bob'`.
fn show_key(comparison: &Comparison, side: Side, row: &Row) -> String {
    let key = comparison.key_columns(side).unwrap_or_default();
    let place = |pair: &Pair| match side {
        Side::Source => pair.source,
        Side::Target => pair.target,
    };
    let mut shown = Vec::new();
    for column in key {
        if let Some(index) = comparison.pairs().iter().position(|pair| place(pair) == column) {
            shown.push(show_column(comparison, side, index, row));
        }
    }
    shown.join(", ")
}

/// `name = value` for one compared column.
pub(super) fn show_column(comparison: &Comparison, side: Side, index: usize, row: &Row) -> String {
    let pair = &comparison.pairs()[index];
    let value = difference::show(text(comparison, side, pair, &row[index]).content());
    format!("{} = {value}", difference::printable(&comparison.column(side, pair).name))
}

/// A cell on its way to be shown.
enum Shown {
    Null,
    Number(String),
    Bytes(Vec<u8>),
}

impl Shown {
    fn content(&self) -> Content<'_> {
        match self {
            Shown::Null => Content::Null,
            Shown::Number(text) => Content::Number(text),
            Shown::Bytes(bytes) => Content::Bytes(bytes),
        }
    }
}

/// Single-byte Western text is shown as text too: it is what most old tables hold.
fn text(comparison: &Comparison, side: Side, pair: &Pair, cell: &Cell) -> Shown {
    let column = comparison.column(side, pair);
    match cell {
        Cell::Null => Shown::Null,
        Cell::Float(value) => Shown::Number(value.to_string()),
        Cell::Double(value) => Shown::Number(value.to_string()),
        Cell::Bytes(bytes) => {
            let number = column.kind.is_integer() || column.kind.by_number() || matches!(column.kind, ColumnType::Decimal { .. });
            match std::str::from_utf8(bytes) {
                Ok(text) if number => Shown::Number(text.to_owned()),
                _ => Shown::Bytes(readable(bytes, comparison.arrives_in(side, pair).as_deref())),
            }
        }
    }
}

/// Text of the two commonest charsets that are not UTF-8, as UTF-8; bytes of any other stay as they
/// are. The server's `latin1` is Windows-1252, whose 0x80–0x9f are not those of Unicode: such text is shown in hexadecimal.
fn readable(bytes: &[u8], charset: Option<&str>) -> Vec<u8> {
    match charset {
        Some("latin1") if !bytes.iter().any(|byte| matches!(byte, 0x80..=0x9f)) => {
            bytes.iter().map(|&byte| char::from(byte)).collect::<String>().into_bytes()
        }
        Some("ucs2" | "utf16") if bytes.len().is_multiple_of(2) => {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16(&units).map_or_else(|_| bytes.to_vec(), String::into_bytes)
        }
        _ => bytes.to_vec(),
    }
}
