//! Makes text from outside fit to be shown.
//!
//! A table's name, a value of a row, a server's error message or a line of an edited journal may hold anything: escape sequences that
//! rewrite the screen, line ends that fake a log line, characters that turn the direction of writing round. Everything that
//! came from a database, a journal or a command goes through [`printable`] on its way to a person; JSON output needs
//! none of it, as JSON escapes by itself.

use std::borrow::Cow;
use std::fmt::Write as _;

/// True for characters that act instead of being seen: control characters (also the eight-bit ones), line and paragraph
/// separators, and what changes the direction of writing or has no width.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// The text with every acting character written out (`\n`, `\u{1b}`). A backslash stays as it is: this is for eyes, not for
/// reading back.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if acts(c) => {
                // Writing into a String does not fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// The text line by line, each one printable: for messages of ours that may have several lines.
#[must_use]
pub fn printable_lines(text: &str) -> Vec<String> {
    text.lines().map(|line| printable(line).into_owned()).collect()
}

/// At most `columns` characters, the rest replaced by `…`. Counts characters, not cells: good enough where nothing is aligned
/// behind it.
#[must_use]
pub fn shortened(text: &str, columns: usize) -> Cow<'_, str> {
    if text.chars().count() <= columns {
        return Cow::Borrowed(text);
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    Cow::Owned(format!("{kept}…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_ordinary_text_alone() {
        for text in ["", "school.students", "Zoë – 学校 `x` \\n", "€"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn writes_out_what_acts() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("a\nerror: b\r\t"), "a\\nerror: b\\r\\t");
        assert_eq!(printable("\u{9b}31m\u{7f}\0"), "\\u{9b}31m\\u{7f}\\u{0}");
        assert_eq!(printable("abc\u{202e}fed"), "abc\\u{202e}fed");
        assert_eq!(printable("a\u{2028}b\u{200b}c\u{feff}"), "a\\u{2028}b\\u{200b}c\\u{feff}");
        assert_eq!(printable_lines("one\ntwo\u{7}"), ["one", "two\\u{7}"]);
    }

    #[test]
    fn nothing_that_acts_is_left() {
        let all: String = (0..=0x10_ffff_u32).filter_map(char::from_u32).collect();
        assert!(!printable(&all).chars().any(acts));
    }

    #[test]
    fn shortens_by_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
    }
}
