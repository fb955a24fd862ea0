//! Cuts DDL into tokens, so that rules never mistake a name, a comment or a default value for syntax.
//!
//! Comments are dropped. Versioned comments (`/*!50100 … */`, `/*M!100301 … */`) are opened: the
//! server that printed them carries out what they hold, so it is part of the table.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A keyword, an unquoted name, a number.
    Word,
    /// A name in backticks.
    Identifier,
    /// A string in quotes.
    Text,
    /// Any other single character.
    Symbol,
}

/// A token as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    /// With its quotes.
    pub(super) text: String,
    /// Whether white space (or a comment) stands before it.
    pub(super) spaced: bool,
}

impl Token {
    /// A keyword or unquoted name behind a space.
    pub(super) fn word(text: impl Into<String>) -> Self {
        Token { kind: TokenKind::Word, text: text.into(), spaced: true }
    }

    /// Whether it is this keyword, in any case. Quoted names and strings never are.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self.kind, TokenKind::Word | TokenKind::Symbol) && self.text.eq_ignore_ascii_case(word)
    }

    /// A quoted name without its quotes; a word as it is.
    pub(super) fn name(&self) -> String {
        match self.kind {
            TokenKind::Identifier => self.text[1..self.text.len() - 1].replace("``", "`"),
            _ => self.text.clone(),
        }
    }
}

/// Where DDL can't be read: the byte, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

/// Cuts a statement.
pub(super) fn tokens(statement: &str) -> Result<Vec<Token>, Unreadable> {
    let mut tokens = Vec::new();
    let mut rest = statement;
    let mut spaced = false;
    let mut versioned = false;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = match first {
            _ if first.is_whitespace() => {
                rest = &rest[first.len_utf8()..];
                spaced = true;
                continue;
            }
            '/' if rest.starts_with("/*!") || rest.starts_with("/*M!") => {
                if versioned {
                    return Err(Unreadable("a versioned comment inside another".to_owned()));
                }
                let opening = if rest.starts_with("/*!") { 3 } else { 4 };
                rest = rest[opening..].trim_start_matches(|c: char| c.is_ascii_digit());
                (versioned, spaced) = (true, true);
                continue;
            }
            '*' if versioned && rest.starts_with("*/") => {
                rest = &rest[2..];
                (versioned, spaced) = (false, true);
                continue;
            }
            '/' if rest.starts_with("/*") => {
                let end = rest.find("*/").ok_or_else(|| Unreadable("a comment does not end".to_owned()))?;
                rest = &rest[end + 2..];
                spaced = true;
                continue;
            }
            '#' => {
                rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
                spaced = true;
                continue;
            }
            '-' if rest.starts_with("--") && rest[2..].chars().next().is_none_or(char::is_whitespace) => {
                rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
                spaced = true;
                continue;
            }
            '`' => (TokenKind::Identifier, quoted(rest, '`')?),
            '\'' | '"' => (TokenKind::Text, quoted(rest, first)?),
            _ if is_word(first) => (TokenKind::Word, rest.find(|c| !is_word(c)).unwrap_or(rest.len())),
            _ => (TokenKind::Symbol, first.len_utf8()),
        };
        tokens.push(Token { kind, text: rest[..length].to_owned(), spaced });
        rest = &rest[length..];
        spaced = false;
    }
    if versioned {
        return Err(Unreadable("a versioned comment does not end".to_owned()));
    }
    Ok(tokens)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$')
}

/// The length of the quoted run at the start of `text`, quotes included. A doubled quote stands for
/// itself; in strings a backslash escapes.
fn quoted(text: &str, quote: char) -> Result<usize, Unreadable> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && quote != '`' {
            characters.next();
        } else if character == quote {
            if characters.peek().is_some_and(|&(_, next)| next == quote) {
                characters.next();
            } else {
                return Ok(at + quote.len_utf8());
            }
        }
    }
    Err(Unreadable(format!("a {quote} is not closed")))
}

/// Tokens as text again: one space where there was any.
pub(super) fn render(tokens: &[Token]) -> String {
    let mut text = String::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.spaced && index > 0 {
            text.push(' ');
        }
        text.push_str(&token.text);
    }
    text
}

/// The place just behind the parenthesis that closes the one at `open`.
pub(super) fn after_group(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        if token.is("(") {
            depth += 1;
        } else if token.is(")") {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(index + 1);
            }
        }
    }
    None
}

/// Where a run of keywords stands outside parentheses.
pub(super) fn find(tokens: &[Token], words: &[&str]) -> Option<usize> {
    let mut depth = 0usize;
    for index in 0..tokens.len() {
        if tokens[index].is("(") {
            depth += 1;
        } else if tokens[index].is(")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0
            && words.iter().enumerate().all(|(offset, word)| tokens.get(index + offset).is_some_and(|token| token.is(word)))
        {
            return Some(index);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(statement: &str) -> Vec<String> {
        tokens(statement).unwrap().into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn quotes_of_every_kind() {
        assert_eq!(texts("`a``b` 'it''s \\' \"x\"' \"a\\\"\""), ["`a``b`", "'it''s \\' \"x\"'", "\"a\\\"\""]);
        assert_eq!(tokens("`a``b`").unwrap()[0].name(), "a`b");
        assert!(tokens("'open").is_err() && tokens("`open``").is_err() && tokens("'\\'").is_err());
    }

    #[test]
    fn comments_go_and_versioned_ones_open() {
        assert_eq!(texts("a /* b */ c -- d\n e # f\n g"), ["a", "c", "e", "g"]);
        assert_eq!(texts("x /*!50100 PARTITION BY `*/` '*/' */ y"), ["x", "PARTITION", "BY", "`*/`", "'*/'", "y"]);
        assert_eq!(texts("a /*M!100301 COMPRESSED*/"), ["a", "COMPRESSED"]);
        assert_eq!(texts("a /*!MAX_ROWS*/ /*!*/ b"), ["a", "MAX_ROWS", "b"]);
        assert!(tokens("/*!50100 a").is_err() && tokens("/* a").is_err());
    }

    #[test]
    fn rendering_keeps_what_belongs_together() {
        for statement in ["`a` decimal(10,2) DEFAULT -1.50", "b'101' _utf8'x' current_timestamp()", "a--1"] {
            assert_eq!(render(&tokens(statement).unwrap()), statement);
        }
    }

    #[test]
    fn groups_and_words_outside_of_them() {
        let list = tokens("a (b (COLLATE x) c) COLLATE y").unwrap();
        assert_eq!(after_group(&list, 1), Some(9));
        assert_eq!(find(&list, &["COLLATE", "y"]), Some(9));
        assert_eq!(find(&list, &["COLLATE", "x"]), None);
    }
}
