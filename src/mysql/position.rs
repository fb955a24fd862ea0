//! A point in a server's binary log: file and offset, the only position 5.1 and 5.5 know.
//!
//! Positions of one server are ordered: binary log files carry a growing number as their suffix
//! (`binlog.000009` < `binlog.000010` < `binlog.1000000`), offsets grow inside a file.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A binary log file and the offset in it, in bytes, at which the next event starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The file's name, with its number as suffix.
    pub file: String,
    /// Offset in bytes.
    pub offset: u64,
}

impl Position {
    /// From file and offset.
    pub fn new(file: impl Into<String>, offset: u64) -> Self {
        Position { file: file.into(), offset }
    }

    /// Moves to where an event ends, as its header has it: offsets there have 32 bits, and a log file may be larger. 0 says nothing.
    pub fn advance(&mut self, log_pos: u32) {
        if log_pos == 0 {
            return;
        }
        let mut end = (self.offset & !0xffff_ffff) | u64::from(log_pos);
        if end < self.offset {
            if self.offset - end < 1 << 31 {
                return;
            }
            end += 1 << 32;
        }
        self.offset = end;
    }

    /// The number at the end of the file's name; 0 if there is none.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        let digits = self.file.len() - self.file.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        self.file[self.file.len() - digits..].parse().unwrap_or(0)
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.file == other.file {
            return self.offset.cmp(&other.offset);
        }
        self.sequence().cmp(&other.sequence()).then_with(|| self.file.cmp(&other.file)).then_with(|| self.offset.cmp(&other.offset))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_follows_beyond_what_a_header_can_say() {
        let mut position = Position::new("binlog.000001", 4);
        for (log_pos, offset) in [(0, 4), (100, 100), (90, 100), (u32::MAX, 0xffff_ffff), (50, 0x1_0000_0032)] {
            position.advance(log_pos);
            assert_eq!(position.offset, offset);
        }
    }

    #[test]
    fn order_follows_the_number_not_the_text() {
        assert!(Position::new("binlog.000009", 900) < Position::new("binlog.000010", 4));
        assert!(Position::new("binlog.999999", 4) < Position::new("binlog.1000000", 4));
        assert!(Position::new("binlog.000001", 4) < Position::new("binlog.000001", 107));
    }
}
