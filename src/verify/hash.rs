//! The hash of one row: two lanes of 64 bits, cut from a cryptographic hash of the row's canonical bytes.
//!
//! 128 bits of a good hash: two different rows share one with a probability of 2⁻¹²⁸, so a set of a
//! billion rows holds a collision with a probability below 10⁻²⁰. Two lanes rather than one
//! 128-bit number because servers add in 64 bits (see [`super::tally`]).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The hash of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowHash {
    /// The first 64 bits.
    pub first: u64,
    /// The next 64 bits.
    pub second: u64,
}

impl RowHash {
    /// SHA-256 of a row's canonical bytes, cut to 128 bits.
    #[must_use]
    pub fn of(canonical: &[u8]) -> Self {
        let digest = Sha256::digest(canonical);
        let lane = |at: usize| digest[at..at + 8].iter().fold(0u64, |lane, byte| lane << 8 | u64::from(*byte));
        RowHash { first: lane(0), second: lane(8) }
    }

    /// From the hexadecimal text a server's `MD5()` or `SHA2()` gives; digits behind the 32nd are not used.
    #[must_use]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let lane = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).ok()?;
            if text.bytes().all(|digit| digit.is_ascii_hexdigit()) { u64::from_str_radix(text, 16).ok() } else { None }
        };
        Some(RowHash { first: lane(text.get(..16)?)?, second: lane(text.get(16..32)?)? })
    }
}

impl fmt::Display for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.first, self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha256_from_its_left() {
        let expected = "ba7816bf8f01cfea414140de5dae2223"; // FIPS 180-4's example, "abc"
        assert_eq!(RowHash::of(b"abc").to_string(), expected);
        assert_eq!(RowHash::from_hex(b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), Some(RowHash::of(b"abc")));
    }

    #[test]
    fn what_is_no_hash_is_not_taken_for_one() {
        for text in [&b""[..], b"ba78", b"+a7816bf8f01cfea414140de5dae2223", b"zz7816bf8f01cfea414140de5dae2223"] {
            assert_eq!(RowHash::from_hex(text), None);
        }
    }
}
