//! One value of a row, in the one form that copying, following and verifying share.
//!
//! A value reaches dbmove by three ways: as text from a SELECT, by the binary protocol, and in a
//! row event. All three end in a [`Cell`], and for the same stored value it is the same cell:
//!
//! | column | cell |
//! | --- | --- |
//! | NULL | [`Cell::Null`] |
//! | integers, ENUM (index), SET and BIT (bit mask), anything ZEROFILL | [`Cell::Bytes`]: the number in decimal, no padding |
//! | DECIMAL, DATE, TIME, DATETIME, TIMESTAMP (UTC), YEAR (four digits) | [`Cell::Bytes`]: as the server prints it |
//! | text, binary, spatial | [`Cell::Bytes`]: the stored bytes, in the column's own charset |
//! | JSON of MySQL | [`Cell::Bytes`]: the text that the server prints, in UTF-8 |
//! | FLOAT, DOUBLE | [`Cell::Float`], [`Cell::Double`]: by value, since text loses digits |

/// One value of a row. See the module's comment for the canonical form of each column type.
#[derive(Clone, Debug)]
pub enum Cell {
    /// NULL.
    Null,
    /// Everything but floats.
    Bytes(Vec<u8>),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
}

/// A row: one cell per stored column, in the table's order ([`super::table::Table::columns`]).
pub type Row = Vec<Cell>;

impl Cell {
    /// The bytes, or nothing for NULL and floats.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Cell::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Roughly how much memory the cell takes, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        std::mem::size_of::<Cell>() + self.as_bytes().map_or(0, <[u8]>::len)
    }

    /// Appends an unambiguous encoding: equal encodings if and only if the cells are equal
    /// (−0 equals 0). NULL differs from the empty string and from the text `NULL`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Cell::Null => out.push(0),
            Cell::Bytes(bytes) => {
                out.push(1);
                out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Cell::Float(value) => {
                out.push(2);
                out.extend_from_slice(&(if *value == 0.0 { 0.0f32 } else { *value }).to_bits().to_be_bytes());
            }
            Cell::Double(value) => {
                out.push(3);
                out.extend_from_slice(&(if *value == 0.0 { 0.0f64 } else { *value }).to_bits().to_be_bytes());
            }
        }
    }
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Cell::Null, Cell::Null) => true,
            (Cell::Bytes(a), Cell::Bytes(b)) => a == b,
            (Cell::Float(a), Cell::Float(b)) => a == b || a.to_bits() == b.to_bits(),
            (Cell::Double(a), Cell::Double(b)) => a == b || a.to_bits() == b.to_bits(),
            _ => false,
        }
    }
}

/// The key of a row: its key cells, encoded. Equal bytes mean the same key *as stored*; two keys
/// that differ in bytes may still be one key to the server's collation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Box<[u8]>);

impl Key {
    /// From the cells at `columns` of a row.
    #[must_use]
    pub fn of(row: &[Cell], columns: &[usize]) -> Self {
        let mut bytes = Vec::with_capacity(columns.len() * 16);
        for &column in columns {
            row[column].encode(&mut bytes);
        }
        Key(bytes.into_boxed_slice())
    }

    /// The cells again.
    #[must_use]
    pub fn cells(&self) -> Row {
        let mut cells = Vec::new();
        let mut rest: &[u8] = &self.0;
        while let Some((&tag, tail)) = rest.split_first() {
            let (cell, used) = match tag {
                1 => {
                    let length = u64::from_be_bytes(take::<8>(tail)) as usize;
                    (Cell::Bytes(tail[8..8 + length].to_vec()), 8 + length)
                }
                2 => (Cell::Float(f32::from_bits(u32::from_be_bytes(take::<4>(tail)))), 4),
                3 => (Cell::Double(f64::from_bits(u64::from_be_bytes(take::<8>(tail)))), 8),
                _ => (Cell::Null, 0),
            };
            cells.push(cell);
            rest = &tail[used..];
        }
        cells
    }
}

fn take<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_empty_and_the_word_differ() {
        let keys: Vec<Key> =
            [Cell::Null, Cell::Bytes(vec![]), Cell::Bytes(b"NULL".to_vec())].into_iter().map(|cell| Key::of(&[cell], &[0])).collect();
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
    }

    #[test]
    fn a_key_gives_its_cells_back() {
        let row = vec![Cell::Bytes(b"12".to_vec()), Cell::Null, Cell::Double(-0.5), Cell::Float(1.25), Cell::Bytes(vec![])];
        assert_eq!(Key::of(&row, &[0, 1, 2, 3, 4]).cells(), row);
    }

    #[test]
    fn splitting_the_bytes_differently_is_another_key() {
        let row = |a: &str, b: &str| vec![Cell::Bytes(a.into()), Cell::Bytes(b.into())];
        assert_ne!(Key::of(&row("ab", "c"), &[0, 1]), Key::of(&row("a", "bc"), &[0, 1]));
    }
}
