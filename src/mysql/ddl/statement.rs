//! A `CREATE TABLE` as the server prints it, in parts that rules can change.

use super::token::{Token, TokenKind, Unreadable, after_group, find, render, tokens};

/// What an item between the parentheses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    Column,
    PrimaryKey,
    UniqueIndex,
    Index,
    /// FULLTEXT or SPATIAL.
    SpecialIndex,
    ForeignKey,
    Check,
}

/// A column, an index or a constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) kind: ItemKind,
    /// Its name; empty where it has none.
    pub(super) name: String,
    pub(super) tokens: Vec<Token>,
}

impl Item {
    pub(super) fn is_index(&self) -> bool {
        matches!(self.kind, ItemKind::UniqueIndex | ItemKind::Index | ItemKind::SpecialIndex)
    }

    pub(super) fn render(&self) -> String {
        render(&self.tokens)
    }
}

/// An option behind the parentheses: `ENGINE=InnoDB`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableOption {
    /// In upper case: `ENGINE`, `DEFAULT CHARSET`.
    pub(super) name: String,
    /// As written, quotes included.
    pub(super) value: String,
}

impl TableOption {
    pub(super) fn new(name: &str, value: impl Into<String>) -> Self {
        TableOption { name: name.to_owned(), value: value.into() }
    }

    pub(super) fn render(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

/// A `CREATE TABLE` in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CreateTable {
    pub(super) items: Vec<Item>,
    pub(super) options: Vec<TableOption>,
    /// From `PARTITION BY` to the end; empty if there is none.
    pub(super) partitions: Vec<Token>,
}

impl CreateTable {
    /// Reads what `SHOW CREATE TABLE` gives.
    pub(super) fn parse(statement: &str) -> Result<Self, Unreadable> {
        let tokens = tokens(statement)?;
        let open = tokens.iter().position(|token| token.is("(")).ok_or_else(|| Unreadable("it has no column list".to_owned()))?;
        if !(tokens[0].is("CREATE") && open == 3 && tokens[1].is("TABLE")) {
            return Err(Unreadable(format!("it starts with `{}`, not with CREATE TABLE and a name", render(&tokens[..open]))));
        }
        let close = after_group(&tokens, open).ok_or_else(|| Unreadable("a parenthesis is not closed".to_owned()))?;
        let items = split_at_commas(&tokens[open + 1..close - 1]).into_iter().map(item).collect::<Result<_, _>>()?;
        let tail = &tokens[close..];
        let partition = find(tail, &["PARTITION", "BY"]).unwrap_or(tail.len());
        Ok(CreateTable { items, options: options(&tail[..partition])?, partitions: tail[partition..].to_vec() })
    }

    /// As a statement again, with the items chosen, for a table of this (quoted) name.
    pub(super) fn render(&self, table: &str, keep: impl Fn(&Item) -> bool) -> String {
        let items: Vec<String> = self.items.iter().filter(|item| keep(item)).map(|item| format!("  {}", item.render())).collect();
        let options: Vec<String> = self.options.iter().map(TableOption::render).collect();
        let mut text = format!("CREATE TABLE {table} (\n{}\n) {}", items.join(",\n"), options.join(" "));
        if !self.partitions.is_empty() {
            text.push('\n');
            text.push_str(&render(&self.partitions));
        }
        text
    }
}

fn split_at_commas(tokens: &[Token]) -> Vec<Vec<Token>> {
    let mut items = vec![Vec::new()];
    let mut depth = 0usize;
    for token in tokens {
        if token.is("(") {
            depth += 1;
        } else if token.is(")") {
            depth = depth.saturating_sub(1);
        } else if token.is(",") && depth == 0 {
            items.push(Vec::new());
            continue;
        }
        if let Some(last) = items.last_mut() {
            last.push(token.clone());
        }
    }
    items
}

fn item(tokens: Vec<Token>) -> Result<Item, Unreadable> {
    let is = |place: usize, word: &str| tokens.get(place).is_some_and(|token: &Token| token.is(word));
    let name = |place: usize| tokens.get(place).filter(|token| token.kind == TokenKind::Identifier).map(Token::name).unwrap_or_default();
    let key = |place: usize| is(place, "KEY") || is(place, "INDEX");
    let (kind, name) = match tokens.first() {
        Some(first) if first.kind == TokenKind::Identifier => (ItemKind::Column, name(0)),
        Some(_) if is(0, "PRIMARY") && key(1) => (ItemKind::PrimaryKey, "PRIMARY".to_owned()),
        Some(_) if is(0, "UNIQUE") && key(1) => (ItemKind::UniqueIndex, name(2)),
        Some(_) if (is(0, "FULLTEXT") || is(0, "SPATIAL")) && key(1) => (ItemKind::SpecialIndex, name(2)),
        Some(_) if key(0) => (ItemKind::Index, name(1)),
        Some(_) if is(0, "CONSTRAINT") && is(2, "FOREIGN") => (ItemKind::ForeignKey, name(1)),
        Some(_) if is(0, "CONSTRAINT") && is(2, "CHECK") => (ItemKind::Check, name(1)),
        Some(_) if is(0, "CHECK") => (ItemKind::Check, String::new()),
        _ => return Err(Unreadable(format!("`{}` is neither a column nor a key nor a constraint it knows", render(&tokens)))),
    };
    Ok(Item { kind, name, tokens })
}

/// `NAME=value` pairs; a name may have two words, a value may be a list in parentheses.
fn options(tokens: &[Token]) -> Result<Vec<TableOption>, Unreadable> {
    let mut options = Vec::new();
    let mut rest = tokens;
    while !rest.is_empty() {
        if rest[0].is("TABLESPACE") && rest.len() > 1 && !rest[1].is("=") {
            options.push(TableOption::new("TABLESPACE", rest[1].text.clone()));
            rest = &rest[2..];
            continue;
        }
        let equals = rest.iter().position(|token| token.is("=")).filter(|&place| (1..=2).contains(&place) && place + 1 < rest.len());
        let Some(equals) = equals else {
            return Err(Unreadable(format!("`{}` is no table option it knows", render(rest))));
        };
        let name = rest[..equals].iter().map(|token| token.name().to_ascii_uppercase()).collect::<Vec<_>>().join(" ");
        let end = if rest[equals + 1].is("(") {
            after_group(rest, equals + 1).ok_or_else(|| Unreadable("a parenthesis is not closed".to_owned()))?
        } else {
            equals + 2
        };
        options.push(TableOption { name, value: render(&rest[equals + 1..end]) });
        rest = &rest[end..];
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT: &str = "CREATE TABLE `a``b` (
  `id` int(11) NOT NULL AUTO_INCREMENT COMMENT 'a, (b',
  `e` enum('x,y',')') DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `u` (`e`(3),`id`),
  KEY `CONSTRAINT` (`e`),
  FULLTEXT KEY `f` (`e`),
  CONSTRAINT `fk` FOREIGN KEY (`id`) REFERENCES `p` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB AUTO_INCREMENT=5 DEFAULT CHARSET=utf8 COLLATE=utf8_bin COMMENT='ENGINE=MyISAM) x'
/*!50100 PARTITION BY RANGE (id)
(PARTITION p0 VALUES LESS THAN (10) ENGINE = InnoDB) */";

    #[test]
    fn parts_of_a_statement() {
        let create = CreateTable::parse(STATEMENT).unwrap();
        use ItemKind::*;
        assert_eq!(
            create.items.iter().map(|item| (item.kind, item.name.as_str())).collect::<Vec<_>>(),
            [
                (Column, "id"),
                (Column, "e"),
                (PrimaryKey, "PRIMARY"),
                (UniqueIndex, "u"),
                (Index, "CONSTRAINT"),
                (SpecialIndex, "f"),
                (ForeignKey, "fk")
            ]
        );
        let option = |name: &str| create.options.iter().find(|option| option.name == name).unwrap();
        assert_eq!(option("COMMENT").value, "'ENGINE=MyISAM) x'");
        assert_eq!(option("DEFAULT CHARSET").value, "utf8");
        let rendered = create.render("`a``b`", |_| true);
        assert_eq!(CreateTable::parse(&rendered).unwrap(), create, "rendering and reading again changes nothing");
    }

    #[test]
    fn cut_and_garbled_statements_never_panic() {
        let whole = CreateTable::parse(STATEMENT).unwrap();
        for (at, character) in STATEMENT.char_indices() {
            let cut = CreateTable::parse(&STATEMENT[..at]);
            assert!(cut.is_err() || cut.unwrap() != whole);
            for garbage in ["'", "`", "(", ")", "/*!", "*/", "é", ","] {
                let garbled = format!("{}{garbage}{}", &STATEMENT[..at], &STATEMENT[at + character.len_utf8()..]);
                if let Ok(create) = CreateTable::parse(&garbled) {
                    let rendered = create.render("`a``b`", |_| true);
                    assert_eq!(CreateTable::parse(&rendered).unwrap().render("`a``b`", |_| true), rendered, "{garbled}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for statement in [
            "CREATE VIEW `v` AS SELECT (1)",
            "CREATE TEMPORARY TABLE `t` (`a` int)",
            "CREATE TABLE `t` (`a` int",
            "CREATE TABLE `t` (PERIOD FOR SYSTEM_TIME (`a`,`b`))",
            "CREATE TABLE `t` (`a` int) ENGINE=InnoDB WITH SYSTEM VERSIONING",
            "CREATE TABLE `t`",
        ] {
            assert!(CreateTable::parse(statement).is_err(), "{statement}");
        }
    }
}
