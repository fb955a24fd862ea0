//! Indexes.

use super::super::super::table::ColumnType;
use super::super::DdlError;
use super::super::statement::{CreateTable, ItemKind};
use super::super::token::find;
use super::{Changes, Context, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "index-clauses",
        about: "Drops `USING` and `KEY_BLOCK_SIZE` of an index.",
        why: "InnoDB has one kind of index, and warns when asked for another.",
        source: "MySQL manual, \"CREATE INDEX Statement\", storage engine index types.",
        apply: index_clauses,
    },
    Rule {
        name: "unique-by-hash",
        about: "Refuses an index over a whole TEXT or BLOB.",
        why: "MariaDB makes such a UNIQUE of a hidden hash; MySQL has indexes over a prefix only, and a prefix is not unique where the whole is.",
        source: "MariaDB documentation, \"Getting Started with Indexes\"; error 1170 seen on 9.7.4.",
        apply: unique_by_hash,
    },
];

fn unique_by_hash(_: &mut CreateTable, context: &Context<'_>, _: &mut Changes) -> Result<(), DdlError> {
    if !context.mariadb_to_mysql() {
        return Ok(());
    }
    for index in context.table.indexes.iter().filter(|index| index.unique) {
        for part in index.parts.iter().filter(|part| part.prefix.is_none()) {
            let column = &context.table.columns[part.column];
            if matches!(column.kind, ColumnType::Text | ColumnType::Blob) {
                return Err(context.refused(&format!(
                    "its unique index `{}` is over the whole of column `{}`, and MySQL indexes only a prefix of it; make the column a VARCHAR, or drop the index, on the source",
                    index.name, column.name
                )));
            }
        }
    }
    Ok(())
}

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
