//! The named rules that make a target's table of a source's, and their registry.
//!
//! A rule changes the statement and says what it changed, before and after; a rule that does not
//! apply says nothing. What can't be converted is an error that names the table, never left out. Every rule
//! carries what it does, why, and where that is written or was measured: `docs/reference/schema-rules.md` is made from it.
//!
//! A new rule is its place in the file of its family (or a file of its own) and a line in that family's `RULES`.
//!
//! | file | rules about |
//! | --- | --- |
//! | `names` | names that the target can't hold |
//! | `engines` | storage engines |
//! | `counters` | AUTO_INCREMENT |
//! | `options` | table options |
//! | `partitions` | partitions |
//! | `charsets` | character sets and collations |
//! | `column_types` | types of columns |
//! | `indexes` | indexes |
//! | `foreign_keys` | foreign keys |
//! | `mariadb` | what MariaDB writes and MySQL does not know |

pub mod charsets;
mod column_types;
mod counters;
mod engines;
mod foreign_keys;
mod indexes;
mod mariadb;
mod names;
mod options;
mod partitions;

use super::super::catalog::Catalog;
use super::super::connect::Version;
use super::super::conversion::Converted;
use super::super::table::Table;
use super::statement::{CreateTable, Item, ItemKind};
use super::token::{Token, TokenKind, after_group, render};
use super::{DdlError, RuleFired};

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, as it is shown wherever it fired.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// Why, and what follows from it.
    pub why: &'static str,
    /// Where that is written, or how it was found.
    pub source: &'static str,
    apply: Apply,
}

/// Changes the statement, or says why the table can't be carried.
type Apply = fn(&mut CreateTable, &Context<'_>, &mut Changes) -> Result<(), DdlError>;

/// In the order in which they are applied.
const FAMILIES: &[&[Rule]] = &[
    names::RULES,
    engines::RULES,
    counters::INDEX_RULES,
    options::RULES,
    counters::CLAUSE_RULES,
    partitions::RULES,
    charsets::RULES,
    column_types::RULES,
    mariadb::RULES,
    indexes::RULES,
    foreign_keys::RULES,
];

/// Every rule, in the order in which they are applied.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

/// What a rule may look at.
pub(super) struct Context<'a> {
    /// The table, its text called as on the target.
    pub(super) table: &'a Table,
    /// How its text is converted, if it is.
    pub(super) converted: Option<&'a Converted>,
    /// All tables that move, as the source has them.
    pub(super) catalog: &'a Catalog,
    /// The source's version.
    pub(super) source: &'a Version,
    /// The target's version.
    pub(super) target: &'a Version,
    /// The target refuses foreign keys to columns that are no unique key.
    pub(super) standard_parents: bool,
}

impl Context<'_> {
    fn refused(&self, why: &str) -> DdlError {
        DdlError::Refused { table: self.table.name.clone(), why: why.to_owned() }
    }

    /// Whether MariaDB's own words have to become MySQL's.
    fn mariadb_to_mysql(&self) -> bool {
        self.source.mariadb && !self.target.mariadb
    }
}

/// What one rule changed.
struct Changes {
    rule: &'static str,
    fired: Vec<RuleFired>,
}

impl Changes {
    fn note(&mut self, before: impl Into<String>, after: impl Into<String>) {
        self.fired.push(RuleFired { rule: self.rule, before: before.into(), after: after.into() });
    }
}

/// Applies every rule.
pub(super) fn apply(create: &mut CreateTable, context: &Context<'_>) -> Result<Vec<RuleFired>, DdlError> {
    let mut changes = Changes { rule: "", fired: Vec::new() };
    for rule in all() {
        changes.rule = rule.name;
        (rule.apply)(create, context, &mut changes)?;
    }
    Ok(changes.fired)
}

fn columns(create: &mut CreateTable) -> impl Iterator<Item = &mut Item> {
    create.items.iter_mut().filter(|item| item.kind == ItemKind::Column)
}

/// The columns an index item names, in order.
pub(super) fn index_columns(item: &Item) -> Vec<String> {
    let Some(open) = item.tokens.iter().position(|token| token.is("(")) else {
        return Vec::new();
    };
    let end = after_group(&item.tokens, open).unwrap_or(item.tokens.len());
    item.tokens[open..end].iter().filter(|token| token.kind == TokenKind::Identifier).map(Token::name).collect()
}

/// An index or constraint as a clause of ALTER TABLE.
pub(super) fn add_clause(item: &Item) -> String {
    format!("ADD {}", render(&item.tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_rule_is_documented() {
        let mut names: Vec<&str> = all().map(|rule| rule.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for rule in all() {
            assert!(rule.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'), "{}", rule.name);
            for text in [rule.about, rule.why, rule.source] {
                assert!(text.ends_with('.') && text.len() > 15, "{}: {text}", rule.name);
            }
        }
    }
}
