//! Cuts a statement of the log into words, names and marks.
//!
//! Comments are skipped (looking *into* versioned `/*! … */` ones, which the server runs), quotes are those of the session that sent it.

use super::dialect::Dialect;

/// A token: a word (upper-cased), a name in backticks, or a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String, String),
    Quoted(String),
    Mark(char),
}

impl Token {
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(upper, _) if upper == word)
    }
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Token::Word(_, text) | Token::Quoted(text) => Some(text),
            Token::Mark(_) => None,
        }
    }
}

/// Cuts a statement into tokens. Texts in quotes and comments are left out; what the server runs of comments is not.
pub(super) fn tokens(text: &str, dialect: Dialect) -> Vec<Token> {
    let as_stored = |name: String| if dialect.lower_case_names { name.to_lowercase() } else { name };
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        match c {
            '/' if next == Some('*') => {
                if chars.get(at + 2) == Some(&'!') || (chars.get(at + 2) == Some(&'M') && chars.get(at + 3) == Some(&'!')) {
                    // The server runs what is inside: skip only the opening and the version.
                    at += 3 + usize::from(chars.get(at + 2) == Some(&'M'));
                    while chars.get(at).is_some_and(char::is_ascii_digit) {
                        at += 1;
                    }
                } else {
                    at += 2;
                    while at < chars.len() && !(chars[at] == '*' && chars.get(at + 1) == Some(&'/')) {
                        at += 1;
                    }
                    at += 2;
                }
            }
            '*' if next == Some('/') => at += 2,
            '#' => at = line_end(&chars, at),
            '-' if next == Some('-') && chars.get(at + 2).is_none_or(|c| c.is_whitespace()) => at = line_end(&chars, at),
            quote if quote == '`' || (quote == '"' && dialect.ansi_quotes) => {
                let (name, end) = quoted(&chars, at, quote, false);
                tokens.push(Token::Quoted(as_stored(name)));
                at = end;
            }
            '\'' | '"' => at = quoted(&chars, at, c, !dialect.no_backslash_escapes).1,
            c if c.is_alphanumeric() || c == '_' || c == '$' => {
                let start = at;
                while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_' || chars[at] == '$') {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                tokens.push(Token::Word(word.to_uppercase(), as_stored(word)));
            }
            c if c.is_whitespace() => at += 1,
            c => {
                tokens.push(Token::Mark(c));
                at += 1;
            }
        }
    }
    tokens
}

fn line_end(chars: &[char], from: usize) -> usize {
    (from..chars.len()).find(|&at| chars[at] == '\n').unwrap_or(chars.len())
}

/// A quoted text and where it ends; a doubled quote is one quote, a backslash escapes in strings.
fn quoted(chars: &[char], from: usize, quote: char, backslash: bool) -> (String, usize) {
    let mut text = String::new();
    let mut at = from + 1;
    while at < chars.len() {
        if backslash && chars[at] == '\\' {
            at += 2;
            continue;
        }
        if chars[at] == quote {
            if chars.get(at + 1) == Some(&quote) {
                text.push(quote);
                at += 2;
                continue;
            }
            return (text, at + 1);
        }
        text.push(chars[at]);
        at += 1;
    }
    (text, at)
}
