//! What is changed in an object's text: who it belongs to, and that an event does not run yet.
//!
//! The text is bytes in some charset. The parts that are changed are printed by the server itself, in ASCII, at the head of the
//! statement; everything behind them stays as it is, byte for byte. In the charsets whose second bytes look like ASCII (sjis,
//! big5, gbk …) a `` ` `` may be half a character: [`character`] knows how long one is.

use std::ops::Range;

use super::super::accounts::AccountName;
use super::super::sql;

/// The clause that names the definer, and whom it names.
#[must_use]
pub fn definer(statement: &[u8]) -> Option<(Range<usize>, AccountName)> {
    // Names of accounts are UTF-8 in every text.
    let tokens = head(statement, "utf8");
    let place = tokens
        .iter()
        .position(|token| ["DEFINER", "VIEW", "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT"].iter().any(|word| token.is(statement, word)))?;
    let clause = &tokens[place..];
    if !clause[0].is(statement, "DEFINER") || !clause.get(1)?.is(statement, "=") {
        return None;
    }
    let user = clause.get(2)?;
    let account = |token: &HeadToken| token.name(statement);
    match (clause.get(3), clause.get(4)) {
        (Some(at), Some(host)) if at.is(statement, "@") => {
            let name = AccountName { user: account(user)?, host: account(host)? };
            Some((clause[0].span.start..host.span.end, name))
        }
        // MariaDB: a role.
        _ => Some((clause[0].span.start..user.span.end, AccountName { user: account(user)?, host: String::new() })),
    }
}

/// The statement with another definer: an account, or whoever creates the object.
#[must_use]
pub fn with_definer(statement: &[u8], clause: &Range<usize>, account: Option<&AccountName>) -> Vec<u8> {
    let text = match account {
        Some(account) if account.host.is_empty() => format!("DEFINER={}", sql::identifier(&account.user)),
        Some(account) => format!("DEFINER={}@{}", sql::identifier(&account.user), sql::identifier(&account.host)),
        None => "DEFINER=CURRENT_USER".to_owned(),
    };
    replaced(statement, clause, text.as_bytes())
}

/// Where the object's name stands in UTF-8.
#[must_use]
pub fn name_in_utf8(statement: &[u8], name: &str) -> Option<Range<usize>> {
    if name.is_ascii() {
        return None;
    }
    let quoted = sql::identifier(name);
    let tokens = head(statement, "utf8");
    let kind = kind_word(&tokens, statement)?;
    let start = tokens.get(kind + 1)?.span.start;
    statement[start..].starts_with(quoted.as_bytes()).then(|| start..start + quoted.len())
}

/// The object's name as it stands in the text, quotes included.
#[must_use]
pub fn quoted_name(statement: &[u8], charset: &str) -> Option<Range<usize>> {
    let tokens = head(statement, charset);
    let kind = kind_word(&tokens, statement)?;
    tokens.get(kind + 1).filter(|token| token.quote.is_some()).map(|token| token.span.clone())
}

fn kind_word(tokens: &[HeadToken], statement: &[u8]) -> Option<usize> {
    let kinds = ["VIEW", "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT"];
    tokens.iter().position(|token| kinds.iter().any(|word| token.is(statement, word)))
}

/// Where an event's text says whether it runs, and what: `ENABLE`, `DISABLE`, `DISABLE ON SLAVE`.
#[must_use]
pub fn event_status(statement: &[u8], charset: &str) -> Option<(Range<usize>, String)> {
    let tokens = head(statement, charset);
    let at = |place: usize, word: &str| tokens.get(place).is_some_and(|token| token.is(statement, word));
    let place = (0..tokens.len()).find(|&place| at(place, "ON") && at(place + 1, "COMPLETION"))? + 2;
    let place = if at(place, "NOT") { place + 2 } else { place + 1 };
    let last = if at(place, "DISABLE") && at(place + 1, "ON") { place + 2 } else { place };
    let span = tokens.get(place)?.span.start..tokens.get(last)?.span.end;
    let status = String::from_utf8_lossy(&statement[span.clone()]).to_ascii_uppercase();
    Some((span, status))
}

/// An event's statement that does not let it run.
#[must_use]
pub fn disabled(statement: &[u8], charset: &str) -> Vec<u8> {
    match event_status(statement, charset) {
        Some((span, status)) if status == "ENABLE" => replaced(statement, &span, b"DISABLE"),
        _ => statement.to_vec(),
    }
}

/// The `COMMENT` clause of a routine or event, as the server prints this comment.
#[must_use]
pub fn comment_clause(statement: &[u8], comment: &str) -> Option<Range<usize>> {
    let mut printed = b"COMMENT ".to_vec();
    printed.push(b'\'');
    for byte in comment.bytes() {
        match byte {
            0 => printed.extend_from_slice(b"\\0"),
            b'\n' => printed.extend_from_slice(b"\\n"),
            b'\r' => printed.extend_from_slice(b"\\r"),
            b'\\' => printed.extend_from_slice(b"\\\\"),
            b'\'' => printed.extend_from_slice(b"''"),
            byte => printed.push(byte),
        }
    }
    printed.push(b'\'');
    let start = statement.windows(printed.len()).position(|window| window == printed)?;
    Some(start..start + printed.len())
}

/// The bytes with a span of them replaced.
#[must_use]
pub fn replaced(statement: &[u8], span: &Range<usize>, with: &[u8]) -> Vec<u8> {
    [&statement[..span.start], with, &statement[span.end..]].concat()
}

/// A word, a quoted name or text, or a sign, in the head of a statement.
struct HeadToken {
    span: Range<usize>,
    quote: Option<u8>,
}

impl HeadToken {
    fn is(&self, statement: &[u8], word: &str) -> bool {
        self.quote.is_none() && statement[self.span.clone()].eq_ignore_ascii_case(word.as_bytes())
    }

    /// What a quoted name or a word names.
    fn name(&self, statement: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(&statement[self.span.clone()]).ok()?;
        Some(match self.quote {
            Some(quote) => {
                let quote = char::from(quote);
                text.strip_prefix(quote)?.strip_suffix(quote)?.replace(&format!("{quote}{quote}"), &quote.to_string())
            }
            None => text.to_owned(),
        })
    }
}

/// How long the head may be: names, a schedule and parameters, never a body that is worth reading.
const HEAD: usize = 200;

/// The first tokens of a statement.
fn head(statement: &[u8], charset: &str) -> Vec<HeadToken> {
    let mut tokens = Vec::new();
    let mut place = 0;
    while tokens.len() < HEAD
        && let Some(&first) = statement.get(place)
    {
        let start = place;
        match first {
            _ if first.is_ascii_whitespace() => {
                place += 1;
                continue;
            }
            b'`' | b'"' | b'\'' => {
                place += 1;
                while let Some(&inner) = statement.get(place) {
                    let escapes = inner == b'\\' && first != b'`';
                    if escapes || (inner == first && statement.get(place + 1) == Some(&first)) {
                        place += 2;
                    } else if inner == first {
                        break;
                    } else {
                        place += character(charset, &statement[place..]);
                    }
                }
                place = (place + 1).min(statement.len());
                tokens.push(HeadToken { span: start..place, quote: Some(first) });
                continue;
            }
            _ if is_word(first) => {
                while statement.get(place).copied().is_some_and(is_word) {
                    place += character(charset, &statement[place..]);
                }
                place = place.min(statement.len());
            }
            _ => place += 1,
        }
        tokens.push(HeadToken { span: start..place, quote: None });
    }
    tokens
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// How many bytes the first character takes, in the charsets where a later byte may be ASCII; one elsewhere.
fn character(charset: &str, bytes: &[u8]) -> usize {
    let Some(&first) = bytes.first() else { return 1 };
    let leads = match charset {
        "sjis" | "cp932" => matches!(first, 0x81..=0x9f | 0xe0..=0xfc),
        "big5" | "gbk" | "gb18030" => matches!(first, 0x81..=0xfe),
        _ => false,
    };
    match bytes.get(1) {
        Some(0x30..=0x39) if leads && charset == "gb18030" => 4,
        Some(0x40..) if leads => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(user: &str, host: &str) -> AccountName {
        AccountName { user: user.to_owned(), host: host.to_owned() }
    }

    #[test]
    fn definers_of_every_form() {
        for (statement, expected) in [
            ("CREATE DEFINER=`a``b`@`%` PROCEDURE `p`() select 1", Some(account("a`b", "%"))),
            ("CREATE ALGORITHM=UNDEFINED DEFINER=`root`@`10.%` SQL SECURITY DEFINER VIEW `v` AS select 1", Some(account("root", "10.%"))),
            ("CREATE DEFINER=\"a\"\"b\"@\"%\" EVENT \"e\" ON SCHEDULE EVERY 1 DAY", Some(account("a\"b", "%"))),
            ("CREATE DEFINER=`role` FUNCTION `f`() RETURNS int return 1", Some(account("role", ""))),
            ("CREATE TRIGGER `DEFINER=` BEFORE INSERT ON t FOR EACH ROW SET @a = 'DEFINER=`x`@`y`'", None),
            ("CREATE VIEW `v` AS select 'DEFINER=`a`@`b`'", None),
        ] {
            assert_eq!(definer(statement.as_bytes()).map(|(_, account)| account), expected, "{statement}");
        }
    }

    #[test]
    fn a_definer_is_replaced_and_nothing_else() {
        let statement = b"CREATE DEFINER=`a`@`b` TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET @d = 'DEFINER=`a`@`b`'";
        let (clause, _) = definer(statement).unwrap();
        let changed = String::from_utf8(with_definer(statement, &clause, None)).unwrap();
        assert_eq!(changed, "CREATE DEFINER=CURRENT_USER TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET @d = 'DEFINER=`a`@`b`'");
        let changed = String::from_utf8(with_definer(statement, &clause, Some(&account("q`", "%")))).unwrap();
        assert!(changed.starts_with("CREATE DEFINER=`q```@`%` TRIGGER t"), "{changed}");
    }

    #[test]
    fn an_event_is_disabled_by_its_own_words_only() {
        let statement = b"CREATE DEFINER=`a`@`b` EVENT `ON COMPLETION PRESERVE ENABLE` ON SCHEDULE EVERY 1 DAY STARTS '2010-01-01 00:00:00' ON COMPLETION NOT PRESERVE ENABLE COMMENT 'ENABLE' DO select 'ON COMPLETION PRESERVE ENABLE'";
        let changed = String::from_utf8(disabled(statement, "utf8")).unwrap();
        assert!(changed.contains("`ON COMPLETION PRESERVE ENABLE` ON SCHEDULE"), "{changed}");
        assert!(changed.contains("NOT PRESERVE DISABLE COMMENT 'ENABLE' DO select 'ON COMPLETION PRESERVE ENABLE'"), "{changed}");
        let off = b"CREATE EVENT e ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE DISABLE ON SLAVE DO select 1";
        assert_eq!(event_status(off, "latin1").unwrap().1, "DISABLE ON SLAVE");
        assert_eq!(disabled(off, "latin1"), off);
    }

    #[test]
    fn a_name_in_utf8_is_found_where_the_name_stands() {
        let statement = "CREATE DEFINER=`チ`@`b` EVENT `チ` ON SCHEDULE";
        let place = name_in_utf8(statement.as_bytes(), "チ").unwrap();
        assert_eq!((&statement[place.clone()], &statement[..place.start]), ("`チ`", "CREATE DEFINER=`チ`@`b` EVENT "));
        assert_eq!(name_in_utf8(b"CREATE EVENT `\x83\x60` ON SCHEDULE", "チ"), None);
    }

    #[test]
    fn half_a_character_is_no_quote() {
        // In sjis the second byte of this one is a backtick.
        let mut statement = b"CREATE EVENT `\x83\x60` ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE ENABLE DO select 1".to_vec();
        assert_eq!(event_status(&statement, "sjis").unwrap().1, "ENABLE");
        assert_eq!(&statement[quoted_name(&statement, "sjis").unwrap()], b"`\x83\x60`");
        statement.truncate(16);
        assert_eq!(event_status(&statement, "sjis"), None);
    }

    #[test]
    fn a_comment_is_found_as_it_is_printed() {
        let statement = "CREATE PROCEDURE `p`()\n    COMMENT 'it''s\\n\u{e9}'\nselect 1";
        let clause = comment_clause(statement.as_bytes(), "it's\n\u{e9}").unwrap();
        assert_eq!(&statement[clause], "COMMENT 'it''s\\n\u{e9}'");
        assert_eq!(comment_clause(statement.as_bytes(), "other"), None);
    }
}
