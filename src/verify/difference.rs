//! One difference between source and target, in a form a person can read and a terminal survives.
//!
//! Values come from databases, so they may be megabytes long, hold control characters, or be no text
//! at all. They are shown as SQL would write them, so that NULL, the empty string and the word
//! `NULL` are told apart: text in quotes if it is printable UTF-8, else hexadecimal. Long values are
//! cut to a window *around the first byte that differs*, with the place and the whole length: the
//! first hundred bytes of two photographs explain nothing.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of a value that are shown at most.
pub const SHOWN_BYTES: usize = 96;

/// Characters of repair SQL that are kept at most.
pub const REPAIR_LENGTH: usize = 1 << 16;

/// What stands in place of a value that is not to be shown.
pub const REDACTED: &str = "(redacted)";

/// A value to be shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Content<'a> {
    /// NULL.
    Null,
    /// A number: shown bare.
    Number(&'a str),
    /// Text or bytes.
    Bytes(&'a [u8]),
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The table, or what the store calls its part.
    pub table: String,
    /// The row's key as shown: `id = 5`, `class = 1, student = 'Bob'`. For rows without key: the whole row.
    pub key: String,
    /// What differs.
    pub kind: DifferenceKind,
    /// What would make the target equal, to be run there; `None` when too long or redacted.
    pub repair_sql: Option<String>,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DifferenceKind {
    /// On the source only.
    Missing,
    /// On the target only.
    Extra,
    /// On both, not equal.
    Changed {
        /// The columns that differ.
        columns: Vec<ChangedColumn>,
    },
    /// A row of a table without key is there a different number of times.
    DuplicateCount {
        /// Times on the source.
        source: u64,
        /// Times on the target.
        target: u64,
    },
}

/// A column that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangedColumn {
    /// Its name.
    pub name: String,
    /// The value on the source, as shown.
    pub source: String,
    /// The value on the target, as shown.
    pub target: String,
}

impl ChangedColumn {
    /// Without values.
    pub fn redact(&mut self) {
        self.source = REDACTED.to_owned();
        self.target = REDACTED.to_owned();
    }
}

impl Difference {
    /// Without values: keys, column names and kinds stay, since without them nothing could be found
    /// again; the key's values and all others are replaced.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        self.key = REDACTED.to_owned();
        self.repair_sql = None;
        if let DifferenceKind::Changed { columns } = &mut self.kind {
            columns.iter_mut().for_each(ChangedColumn::redact);
        }
        self
    }

    /// One line for a terminal or a log.
    #[must_use]
    pub fn line(&self) -> String {
        let what = match &self.kind {
            DifferenceKind::Missing => "is missing on the target".to_owned(),
            DifferenceKind::Extra => "is on the target only".to_owned(),
            DifferenceKind::Changed { columns } => columns
                .iter()
                .map(|column| format!("`{}` is {} on the source, {} on the target", printable(&column.name), column.source, column.target))
                .collect::<Vec<_>>()
                .join("; "),
            DifferenceKind::DuplicateCount { source, target } => {
                format!("is there {source} times on the source, {target} times on the target")
            }
        };
        format!("`{}` {}: {what}", printable(&self.table), self.key)
    }
}

/// Shows one value.
#[must_use]
pub fn show(value: Content<'_>) -> String {
    show_from(value, 0)
}

/// Shows two values that differ, both cut at the same place when they are long.
#[must_use]
pub fn show_pair(source: Content<'_>, target: Content<'_>) -> (String, String) {
    let at = match (source, target) {
        (Content::Bytes(a), Content::Bytes(b)) if a.len().max(b.len()) > SHOWN_BYTES => {
            let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            if same < SHOWN_BYTES / 2 { 0 } else { same - SHOWN_BYTES / 4 }
        }
        _ => 0,
    };
    (show_from(source, at), show_from(target, at))
}

/// A name made safe to print: control characters and direction marks replaced.
#[must_use]
pub fn printable(name: &str) -> String {
    name.chars().map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn show_from(value: Content<'_>, at: usize) -> String {
    let bytes = match value {
        Content::Null => return "NULL".to_owned(),
        Content::Number(text) => return printable(text),
        Content::Bytes(bytes) => bytes,
    };
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(|c| is_printable(c) || matches!(c, '\n' | '\r' | '\t')));
    let start = at.min(bytes.len());
    let end = (start + SHOWN_BYTES).min(bytes.len());
    let shown = match text {
        Some(text) => {
            // Cut between characters.
            let boundary = |mut place: usize| {
                while !text.is_char_boundary(place) {
                    place -= 1;
                }
                place
            };
            format!("'{}'", text[boundary(start)..boundary(end)].escape_debug().to_string().replace("\\\"", "\""))
        }
        None => {
            let mut shown = String::from("0x");
            for byte in &bytes[start..end] {
                let _ = write!(shown, "{byte:02x}"); // writing to a String can't fail
            }
            shown
        }
    };
    if end - start == bytes.len() { shown } else { format!("{shown} (bytes {start} to {end} of {})", bytes.len()) }
}

/// Printable, and not one of the marks that turn the text around them.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_empty_and_the_word_look_different() {
        assert_eq!(show(Content::Null), "NULL");
        assert_eq!(show(Content::Bytes(b"")), "''");
        assert_eq!(show(Content::Bytes(b"NULL")), "'NULL'");
        assert_eq!(show(Content::Bytes(b"trail  ")), "'trail  '");
    }

    #[test]
    fn terminals_survive() {
        assert_eq!(show(Content::Bytes(b"\x1b[2Jhello")), "0x1b5b324a68656c6c6f");
        assert_eq!(show(Content::Bytes("a\u{202e}b".as_bytes())), "0x61e280ae62");
        assert_eq!(show(Content::Bytes(b"it's\na \"tab\"\t")), "'it\\'s\\na \"tab\"\\t'");
        assert_eq!(show(Content::Bytes(b"\xff\x00")), "0xff00");
    }

    #[test]
    fn long_values_are_cut_where_they_differ() {
        let source = vec![0xab; 200_000];
        let mut target = source.clone();
        target[150_000] ^= 1;
        let (source, target) = show_pair(Content::Bytes(&source), Content::Bytes(&target));
        assert!(source.ends_with("(bytes 149976 to 150072 of 200000)"), "{source}");
        assert!(target.contains("abaaab") && !source.contains("abaaab"), "{target}");
        assert!(show(Content::Bytes("é".repeat(4000).as_bytes())).len() < 200);
    }

    #[test]
    fn redacting_leaves_no_value() {
        let difference = Difference {
            table: "school.t".into(),
            key: "id = 4711".into(),
            kind: DifferenceKind::Changed {
                columns: vec![ChangedColumn { name: "email".into(), source: "'ann@x'".into(), target: "'bob@x'".into() }],
            },
            repair_sql: Some("UPDATE t SET email = 'ann@x' WHERE id = 4711".into()),
        };
        let text = serde_json::to_string(&difference.clone().redacted()).unwrap();
        assert!(text.contains("email") && !text.contains("4711") && !text.contains("@x"), "{text}");
        assert_eq!(difference.line(), "`school.t` id = 4711: `email` is 'ann@x' on the source, 'bob@x' on the target");
    }
}
