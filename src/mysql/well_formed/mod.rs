//! Text whose bytes the target would not take: found by name before anything is created.
//!
//! # What holds
//!
//! Servers before 5.6, and files of any age, hold text that is none in its own charset: `ascii` columns with bytes above 127,
//! `utf8` columns with latin1 or with UTF-16 surrogates. dbmove would carry the bytes as they are, but the target looks at what
//! it is given and takes such a value cut, with `?` in it, or not at all. So there is no target on which such a row could be equal, and the
//! question is only when a person hears of it: before the copy, with every table, column and key ([`prove`]), or at the first such row, where
//! the copy stops and goes on when the row is mended. Reading all text of a large source is a burden, so that is done in rehearsals, and on
//! production only if it is asked for (`text: prove`).
//!
//! What each target takes was measured, value by value, on MySQL 9.7 and MariaDB 10.11:
//!
//! | charset | MySQL | MariaDB |
//! | --- | --- | --- |
//! | `ascii` | bytes up to 127 | every byte |
//! | `utf8`, `utf8mb4` | UTF-8 of at most three, four bytes | the same, and surrogates |
//! | `utf32` | code points but surrogates | the same, and surrogates |
//!
//! The charsets of Asian languages and `utf16` are not looked through here: old servers check them when they are written (5.5.34
//! does), so that only a file put in place by hand can be wrong. Such a value is no silent loss either: it stops the copy, by name.
//!
//! What is written after the proof comes through the binary log, is written with warnings as errors, and stops the run at its row, which is named by its key.

mod prove;

pub use prove::{Wrong, WrongText, find, prove, row_name};

use super::connect::Version;

/// What bytes have to be for a server to take them as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Bytes up to 127.
    Ascii,
    /// UTF-8.
    Utf8 {
        /// Bytes of the longest character: 3 or 4.
        longest: u8,
        /// Whether a UTF-16 surrogate passes for a character.
        surrogates: bool,
    },
    /// Code points of four bytes.
    Utf32 {
        /// Whether a UTF-16 surrogate passes for a character.
        surrogates: bool,
    },
}

impl Form {
    /// What a target asks of text in a charset; nothing where every sequence of bytes is text, or it is not looked through.
    #[must_use]
    pub fn of(charset: Option<&str>, target: &Version) -> Option<Form> {
        let surrogates = target.mariadb;
        match charset? {
            "ascii" if !target.mariadb => Some(Form::Ascii),
            "utf8" | "utf8mb3" => Some(Form::Utf8 { longest: 3, surrogates }),
            "utf8mb4" => Some(Form::Utf8 { longest: 4, surrogates }),
            "utf32" => Some(Form::Utf32 { surrogates }),
            _ => None,
        }
    }

    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Form::Ascii => "ASCII",
            Form::Utf8 { longest: 3, .. } => "UTF-8 of at most three bytes a character",
            Form::Utf8 { .. } => "UTF-8",
            Form::Utf32 { .. } => "UTF-32",
        }
    }

    /// The place of the first byte that does not fit.
    #[must_use]
    pub fn first_wrong(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Form::Ascii => bytes.iter().position(|byte| !byte.is_ascii()),
            Form::Utf8 { longest, surrogates } => {
                let long = || if longest < 4 { bytes.iter().position(|byte| *byte >= 0xF0) } else { None };
                let invalid = no_utf8(bytes, surrogates);
                match (invalid, long()) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                }
            }
            Form::Utf32 { surrogates } => {
                let fits = |point: [u8; 4]| {
                    let point = u32::from_be_bytes(point);
                    char::from_u32(point).is_some() || (surrogates && (0xD800..0xE000).contains(&point))
                };
                let (points, rest) = bytes.as_chunks::<4>();
                let wrong = points.iter().position(|point| !fits(*point)).map(|at| at * 4);
                wrong.or((!rest.is_empty()).then_some(bytes.len() - rest.len()))
            }
        }
    }
}

fn no_utf8(bytes: &[u8], surrogates: bool) -> Option<usize> {
    let mut begin = 0;
    loop {
        let at = begin + std::str::from_utf8(&bytes[begin..]).err()?.valid_up_to();
        match bytes[at..] {
            [0xED, 0xA0..=0xBF, 0x80..=0xBF, ..] if surrogates => begin = at + 3,
            _ => return Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(charset: &str, mariadb: bool) -> Option<Form> {
        Form::of(Some(charset), &Version::parse(if mariadb { "10.11.6-MariaDB" } else { "9.7.0" }))
    }

    /// The tables of the module's comment, with the values that were put into both servers.
    #[test]
    fn each_target_takes_what_it_was_seen_to_take() {
        for (charset, bytes, mysql, mariadb) in [
            ("ascii", &b"plain"[..], None, None),
            ("ascii", b"caf\xe9", Some(3), None),
            ("utf8", b"caf\xc3\xa9 \xe2\x82\xac", None, None),
            ("utf8", b"ab\xe9", Some(2), Some(2)),
            ("utf8", b"\xc3", Some(0), Some(0)),
            ("utf8", b"a\xc0\xaf", Some(1), Some(1)),
            ("utf8mb3", b"a\xf0\x9f\x98\x80\xe9", Some(1), Some(1)),
            ("utf8", b"\xed\xa0\x80", Some(0), None),
            ("utf8", b"\xed\xbf\xbf\xed\xa0\x80\xe9", Some(0), Some(6)),
            ("utf8mb4", b"\xf0\x9f\x98\x80", None, None),
            ("utf8mb4", b"\xf4\x90\x80\x80", Some(0), Some(0)),
            ("utf8mb4", b"\xed\xa0\x80", Some(0), None),
            ("utf32", b"\0\x01\xf6\0\0\0\0a", None, None),
            ("utf32", b"\0\0\0a\0\0\xd8\0", Some(4), None),
            ("utf32", b"\0\x11\0\0", Some(0), Some(0)),
            ("utf32", b"\0\0\0a\0", Some(4), Some(4)),
            ("latin1", b"\xff", None, None),
        ] {
            for (is_mariadb, expected) in [(false, mysql), (true, mariadb)] {
                let found = form(charset, is_mariadb).and_then(|form| form.first_wrong(bytes));
                assert_eq!(found, expected, "{charset} {bytes:x?}, MariaDB: {is_mariadb}");
            }
        }
    }
}
