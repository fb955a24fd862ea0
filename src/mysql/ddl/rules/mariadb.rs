//! What MariaDB writes and MySQL does not know. None of them fires between two servers of one family.

use super::super::super::sql;
use super::super::DdlError;
use super::super::statement::{CreateTable, ItemKind};
use super::super::token::{Token, TokenKind, after_group, find};
use super::{Changes, Context, Rule, columns};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "default-expression",
        about: "Puts a default that is a function call into parentheses; a default from a sequence is refused.",
        why: "MariaDB writes `DEFAULT uuid()`, MySQL wants `DEFAULT (uuid())`. MySQL has no sequences.",
        source: "MySQL manual, \"Data Type Default Values\"; error 1064 seen on 9.7.4.",
        apply: default_expression,
    },
    Rule {
        name: "check-names",
        about: "Puts the table's name in front of the name of a CHECK.",
        why: "MariaDB's names of CHECKs are of one table (`CONSTRAINT_1` in each), MySQL's of the whole database.",
        source: "MySQL manual, \"CHECK Constraints\"; error 3822 seen on 9.7.4.",
        apply: check_names,
    },
    Rule {
        name: "index-ignored",
        about: "Makes INVISIBLE of an index that is IGNORED.",
        why: "Both mean that the optimizer leaves the index out, and that it is kept up to date.",
        source: "MariaDB documentation, \"Ignored Indexes\"; MySQL manual, \"Invisible Indexes\".",
        apply: index_ignored,
    },
];

/// Defaults that are words with parentheses and no expressions to MySQL.
const MOMENTS: [&str; 4] = ["current_timestamp", "now", "localtime", "localtimestamp"];

fn default_expression(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    if !context.mariadb_to_mysql() {
        return Ok(());
    }
    for item in columns(create) {
        let Some(at) = find(&item.tokens, &["DEFAULT"]) else { continue };
        let calls = item.tokens.get(at + 1).is_some_and(|token| token.kind == TokenKind::Word)
            && item.tokens.get(at + 2).is_some_and(|token| token.is("("));
        let Some(end) = after_group(&item.tokens, at + 2).filter(|_| calls) else { continue };
        let function = item.tokens[at + 1].name().to_ascii_lowercase();
        if MOMENTS.contains(&function.as_str()) {
            continue;
        }
        if matches!(function.as_str(), "nextval" | "lastval") {
            return Err(context.refused(&format!(
                "column `{}` takes its default from a sequence, and MySQL has none; make it AUTO_INCREMENT, or drop the default, on the source",
                item.name
            )));
        }
        let before = item.render();
        let symbol = |text: &str, spaced| Token { kind: TokenKind::Symbol, text: text.to_owned(), spaced };
        item.tokens[at + 1].spaced = false;
        item.tokens.insert(end, symbol(")", false));
        item.tokens.insert(at + 1, symbol("(", true));
        changes.note(before, item.render());
    }
    Ok(())
}

/// The longest name MySQL takes, in characters.
const LONGEST_NAME: usize = 64;

fn check_names(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    if !context.mariadb_to_mysql() {
        return Ok(());
    }
    for item in create.items.iter_mut().filter(|item| item.kind == ItemKind::Check && !item.name.is_empty()) {
        let name = format!("{}_{}", context.table.name.table, item.name);
        if name.chars().count() > LONGEST_NAME {
            return Err(context.refused(&format!(
                "the name of its CHECK `{}` is too long with the table's name in front, which makes it unique in the database; give it a shorter one on the source",
                item.name
            )));
        }
        let before = item.render();
        if let Some(token) = item.tokens.get_mut(1) {
            token.text = sql::identifier(&name);
        }
        item.name = name;
        changes.note(before, item.render());
    }
    Ok(())
}

fn index_ignored(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    if !context.mariadb_to_mysql() {
        return Ok(());
    }
    for item in create.items.iter_mut().filter(|item| item.is_index()) {
        let before = item.render();
        if let Some(at) = find(&item.tokens, &["IGNORED"]) {
            item.tokens[at].text = "INVISIBLE".to_owned();
            changes.note(before, item.render());
        }
    }
    Ok(())
}
