//! Indexes.

use super::super::DdlError;
use super::super::statement::{CreateTable, ItemKind};
use super::super::token::find;
use super::{Changes, Context, Rule};

pub(super) const RULES: &[Rule] = &[Rule {
    name: "index-clauses",
    about: "Drops `USING` and `KEY_BLOCK_SIZE` of an index.",
    why: "InnoDB has one kind of index, and warns when asked for another.",
    source: "MySQL manual, \"CREATE INDEX Statement\", storage engine index types.",
    apply: index_clauses,
}];

fn index_clauses(create: &mut CreateTable, _: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    for item in create.items.iter_mut().filter(|item| item.is_index() || item.kind == ItemKind::PrimaryKey) {
        let before = item.render();
        while let Some(at) = find(&item.tokens, &["USING"]) {
            item.tokens.drain(at..(at + 2).min(item.tokens.len()));
        }
        while let Some(at) = find(&item.tokens, &["KEY_BLOCK_SIZE"]) {
            let value = at + 1 + usize::from(item.tokens.get(at + 1).is_some_and(|token| token.is("=")));
            item.tokens.drain(at..(value + 1).min(item.tokens.len()));
        }
        if before != item.render() {
            changes.note(before, item.render());
        }
    }
    Ok(())
}
