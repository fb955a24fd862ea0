//! The digest of a set of rows, in any order: how many, and the sum of their hashes.
//!
//! # Why a sum, and why not XOR of CRC32
//!
//! A tally must not depend on the order of rows (two servers read in different orders), and must be
//! something a server can compute in one pass. The usual choice, `BIT_XOR(CRC32(row))`, fails in
//! practice and not only in theory:
//!
//! * CRC is *affine* over XOR: for rows of one length, `crc(a) ^ crc(a ^ d)` depends on the change
//!   `d` and on where it is, not on `a`. The same change in an even number of rows cancels: flip a
//!   flag in all rows of a table, shift all dates, swap two values between two rows, and the XOR
//!   stays what it was. These are just the faults a wrong migration makes.
//! * XOR forgets pairs: a row that is there twice counts as not there, so a duplicated pair of rows
//!   in a table without key is invisible, whatever the hash.
//!
//! A sum modulo 2⁶⁴ of the lanes of a cryptographic hash has neither weakness: lanes of different rows
//! are unrelated numbers, so a change of the set changes each sum unless it hits one value in
//! 2⁶⁴ (two lanes: 2¹²⁸), and equal rows add up instead of vanishing. (Against somebody who *chooses*
//! rows to collide, a sum is weaker than a sorted hash; a verifier's enemy is accident.)
//!
//! The count adds no strength; it is there because people ask for it and differences begin with it.

use serde::{Deserialize, Serialize};

use super::hash::RowHash;

/// The digest of a set of rows, duplicates counted. Tallies made by different methods or over
/// different columns do not compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many rows.
    pub rows: u64,
    /// Sum of the first lanes, modulo 2⁶⁴.
    pub first: u64,
    /// Sum of the second lanes, modulo 2⁶⁴.
    pub second: u64,
}

impl Tally {
    /// Adds one row.
    pub fn add(&mut self, hash: RowHash) {
        self.rows += 1;
        self.first = self.first.wrapping_add(hash.first);
        self.second = self.second.wrapping_add(hash.second);
    }

    /// The tally of two disjoint sets together.
    #[must_use]
    pub fn merge(self, other: Tally) -> Tally {
        Tally { rows: self.rows + other.rows, first: self.first.wrapping_add(other.first), second: self.second.wrapping_add(other.second) }
    }
}

impl FromIterator<RowHash> for Tally {
    fn from_iter<I: IntoIterator<Item = RowHash>>(hashes: I) -> Self {
        let mut tally = Tally::default();
        hashes.into_iter().for_each(|hash| tally.add(hash));
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32 as servers compute it, bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }
    fn xor_of_crc(rows: &[String]) -> u32 {
        rows.iter().fold(0, |xor, row| xor ^ crc32(row.as_bytes()))
    }
    fn tally(rows: &[String]) -> Tally {
        rows.iter().map(|row| RowHash::of(row.as_bytes())).collect()
    }
    /// 4,000 rows of one length, as the design's measurement had them.
    fn rows(flag: char, month: &str, name: &str) -> Vec<String> {
        (0..4000).map(|id| format!("{id:06}#{flag}#2011-{month}-{:02}#{name}{:04}", id % 28 + 1, id * 7 % 9973)).collect()
    }

    /// What a wrong migration does to a whole table; each is invisible to XOR of CRC32.
    fn faults() -> Vec<(&'static str, Vec<String>)> {
        let mut swapped = rows('0', "05", "Ann");
        let (a, b) = (swapped[10].clone(), swapped[20].clone());
        swapped[10] = format!("{}{}", &a[..20], &b[20..]);
        swapped[20] = format!("{}{}", &b[..20], &a[20..]);
        vec![
            ("all flags flipped", rows('1', "05", "Ann")),
            ("all dates moved", rows('0', "06", "Ann")),
            ("one character replaced everywhere", rows('0', "05", "Anm")),
            ("values swapped between two rows", swapped),
        ]
    }

    #[test]
    fn what_xor_of_crc32_misses_a_tally_finds() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the CRC of this test is the real one");
        let good = rows('0', "05", "Ann");
        for (fault, bad) in faults() {
            assert_ne!(good, bad);
            assert_eq!(xor_of_crc(&good), xor_of_crc(&bad), "XOR of CRC32 was expected to miss: {fault}");
            assert_ne!(tally(&good), tally(&bad), "missed: {fault}");
        }
    }

    #[test]
    fn a_pair_of_equal_rows_counts() {
        let one = rows('0', "05", "Ann");
        let mut more = one.clone();
        more.extend(["twin".to_owned(), "twin".to_owned()]);
        assert_eq!(xor_of_crc(&one), xor_of_crc(&more));
        assert_ne!(tally(&one), tally(&more));
        // Even with the number of rows unchanged.
        let (mut a, mut b) = (one.clone(), one);
        a.extend(["twin".to_owned(), "twin".to_owned()]);
        b.extend(["other".to_owned(), "other".to_owned()]);
        assert_eq!(xor_of_crc(&a), xor_of_crc(&b));
        assert_ne!(tally(&a), tally(&b));
    }

    #[test]
    fn order_and_cuts_do_not_matter() {
        let all = rows('0', "05", "Ann");
        let mut reversed = all.clone();
        reversed.reverse();
        assert_eq!(tally(&all), tally(&reversed));
        assert_eq!(tally(&all[..1234]).merge(tally(&all[1234..])), tally(&all));
    }
}
