//! Ranges of a table's key: how a table is cut into chunks.
//!
//! A range is *after* one key (not included) and *through* another (included), so that the ranges
//! of a walk touch without overlapping and every row is in exactly one of them. How a range is
//! written as SQL is in `condition`.

mod condition;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cell::Key;
use super::connect::Session;
use super::error::Result;
use super::read::{self, Order, Scope};
use super::table::Table;

pub use condition::condition;
pub(super) use condition::{batches, condition_text, one_of};

/// Keys after one key and through another. Open ends are the table's ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// The range starts behind this key.
    #[serde(with = "hex_key", default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Key>,
    /// The range ends with this key, which belongs to it.
    #[serde(with = "hex_key", default, skip_serializing_if = "Option::is_none")]
    pub through: Option<Key>,
}

impl KeyRange {
    /// All keys.
    #[must_use]
    pub fn all() -> Self {
        KeyRange::default()
    }

    /// Whether it has no ends, and so holds the whole table.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.after.is_none() && self.through.is_none()
    }
}

/// The key of the row that is `rows` rows behind `after` in the order of the key's index; `None`
/// when fewer rows follow. The table needs a key.
///
/// # Errors
/// If the table has no key, or the server refuses the query.
pub async fn next_upper(session: &mut Session, table: &Table, after: Option<&Key>, rows: u64) -> Result<Option<Key>> {
    let columns = read::key_columns(table)?;
    let range = KeyRange { after: after.cloned(), through: None };
    let skip = rows.saturating_sub(1);
    let mut found = read::stream_limited(session, table, &columns, &Scope::Range(&range), Order::ByKey, Some((1, skip))).await?;
    let row = found.next().await?;
    Ok(row.map(|row| Key::of(&row, &(0..columns.len()).collect::<Vec<_>>())))
}

/// Whether a range holds the same rows on both sides: the key columns must sort alike. `utf8` and
/// `utf8mb3` are one; anything else is compared as a whole table only.
#[must_use]
pub fn comparable(source: &Table, target: &Table) -> bool {
    let parts = |table: &Table| -> Option<Vec<(String, Option<String>)>> {
        let key = table.key()?;
        Some(
            key.iter()
                .map(|&index| &table.columns[index])
                .map(|column| (column.name.to_lowercase(), column.collation.as_ref().map(|name| name.replacen("utf8mb3_", "utf8_", 1))))
                .collect(),
        )
    };
    match (parts(source), parts(target)) {
        (Some(source), Some(target)) => source == target,
        _ => false,
    }
}

/// Keys in checkpoints: hexadecimal, checked when read back so that a damaged file is an error and not a panic.
mod hex_key {
    use super::{Deserialize, Deserializer, Key, Serialize, Serializer};

    pub fn serialize<S: Serializer>(key: &Option<Key>, serializer: S) -> Result<S::Ok, S::Error> {
        key.as_ref().map(|key| hex::encode(&key.0)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Key>, D::Error> {
        use serde::de::Error;
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let bytes = hex::decode(&text).map_err(|error| Error::custom(format!("`{text}` is not a key: {error}")))?;
        if !well_formed(&bytes) {
            return Err(Error::custom(format!("`{text}` is not a key: its parts do not add up")));
        }
        Ok(Some(Key(bytes.into_boxed_slice())))
    }

    fn well_formed(mut bytes: &[u8]) -> bool {
        while let Some((&tag, rest)) = bytes.split_first() {
            let length = match tag {
                0 => 0,
                1 => match rest.first_chunk::<8>() {
                    Some(prefix) => match usize::try_from(u64::from_be_bytes(*prefix)).ok().and_then(|length| length.checked_add(8)) {
                        Some(length) => length,
                        None => return false,
                    },
                    None => return false,
                },
                2 => 4,
                3 => 8,
                _ => return false,
            };
            match rest.get(length..) {
                Some(tail) => bytes = tail,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::cell::Cell;

    fn key(parts: &[&[u8]]) -> Key {
        let row: Vec<Cell> = parts.iter().map(|part| Cell::Bytes(part.to_vec())).collect();
        Key::of(&row, &(0..row.len()).collect::<Vec<_>>())
    }

    #[test]
    fn a_range_survives_its_checkpoint_and_a_damaged_one_is_refused() {
        let range = KeyRange { after: Some(key(&[b"1", b"x"])), through: None };
        let text = serde_json::to_string(&range).unwrap();
        assert_eq!(serde_json::from_str::<KeyRange>(&text).unwrap(), range);
        assert_eq!(serde_json::from_str::<KeyRange>("{}").unwrap(), KeyRange::all());
        for damaged in ["01", "0100000000000000ff41", "07", "zz", "01ffffffffffffffff41"] {
            let text = format!("{{\"after\":\"{damaged}\"}}");
            assert!(serde_json::from_str::<KeyRange>(&text).unwrap_err().to_string().contains("is not a key"), "{damaged}");
        }
    }
}
