//! What a command printed, made safe to show and to keep.
//!
//! A command's output is somebody else's text: it may hold terminal escapes, text-direction tricks, or a secret it
//! was handed. Before any of it reaches an error, a journal or a report, control characters are written out as
//! escapes and every secret value is replaced, whether the command was given it or this process knows it.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::Value;

use crate::playbook::known;

/// Writes control characters and invisible direction marks out as escapes, on one line.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let direction = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || direction {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// Replaces every secret of `environment`, and every other that this process knows, where it occurs in `text`.
#[must_use]
pub fn without_secrets(text: &str, environment: &BTreeMap<String, SecretString>) -> String {
    known::without_secrets(text, environment.iter().map(|(name, value)| (name.as_str(), value)))
}

/// The same for every text inside a JSON value, keys included.
#[must_use]
pub fn value_without_secrets(value: Value, environment: &BTreeMap<String, SecretString>) -> Value {
    match value {
        Value::String(text) => Value::String(without_secrets(&text, environment)),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| value_without_secrets(item, environment)).collect()),
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| (without_secrets(&name, environment), value_without_secrets(value, environment)))
                .collect(),
        ),
        other => other,
    }
}

/// The last lines that hold anything, oldest first.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(count).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_escape_is_shown_and_not_obeyed() {
        assert_eq!(printable("red \u{1b}[31m\u{202e}txt\r"), "red \\u{1b}[31m\\u{202e}txt\\r");
        assert_eq!(printable("Grüße"), "Grüße");
    }

    #[test]
    fn secrets_are_replaced_wherever_they_occur() {
        let environment = BTreeMap::from([
            ("TOKEN".to_owned(), SecretString::from("hunter22")),
            ("LONG".to_owned(), SecretString::from("hunter22-and-more")),
            ("FLAG".to_owned(), SecretString::from("1")),
        ]);
        assert_eq!(without_secrets("a hunter22 b hunter22-and-more 1", &environment), "a [TOKEN] b [LONG] 1");
        let value = serde_json::json!({"list": ["hunter22"], "hunter22": 1});
        assert_eq!(value_without_secrets(value, &environment), serde_json::json!({"list": ["[TOKEN]"], "[TOKEN]": 1}));
    }

    #[test]
    fn last_lines_skips_blank_ones() {
        assert_eq!(last_lines("one\n\ntwo\n  \nthree\n\n", 2), ["two", "three"]);
    }
}
