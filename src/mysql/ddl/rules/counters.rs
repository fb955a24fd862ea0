//! AUTO_INCREMENT: where it counts, and from which number on.

use super::super::super::sql;
use super::super::DdlError;
use super::super::statement::{CreateTable, Item, ItemKind};
use super::super::token::{Token, TokenKind};
use super::{Changes, Context, Rule};

pub(super) const INDEX_RULES: &[Rule] = &[Rule {
    name: "auto-increment-index",
    about: "Adds an index for a counter that is in second place of its key; a counter that is a FLOAT or DOUBLE is refused for MySQL 8.4 and later.",
    why: "MyISAM counts inside a group (`PRIMARY KEY (course, number)`); InnoDB counts over the whole table and needs an index that begins with the counter. Rows keep their numbers; new ones are numbered through, no longer from 1 in each group, which the application may have to know.",
    source: "MySQL manual, \"Using AUTO_INCREMENT\" (MyISAM Notes); InnoDB refuses the table with error 1075.",
    apply: auto_increment_index,
}];

pub(super) const CLAUSE_RULES: &[Rule] = &[Rule {
    name: "auto-increment-clause",
    about: "Leaves the counter's next value out.",
    why: "It is set at the switch, from the source's last value: until then it would be wrong.",
    source: "Counters are compared and set by `mysql.promote`.",
    apply: auto_increment_clause,
}];

fn auto_increment_index(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    let Some(counter) = context.table.columns.iter().position(|column| column.auto_increment) else {
        return Ok(());
    };
    let column = &context.table.columns[counter];
    if column.kind.is_float() && context.target.mysql_from((8, 4, 0)) {
        return Err(context.refused(&format!(
            "its AUTO_INCREMENT column `{}` is a FLOAT or DOUBLE, which MySQL from 8.4 on does not count by; make it BIGINT on the source",
            column.name
        )));
    }
    if context.table.indexes.iter().any(|index| index.parts.first().is_some_and(|part| part.column == counter)) {
        return Ok(());
    }
    let taken = |name: &str| context.table.indexes.iter().any(|index| index.name.eq_ignore_ascii_case(name));
    let mut name = COUNTER_INDEX.to_owned();
    while taken(&name) {
        name.push('_');
    }
    let column = &context.table.columns[counter].name;
    let symbol = |text: &str, spaced| Token { kind: TokenKind::Symbol, text: text.to_owned(), spaced };
    let quoted = |name: &str, spaced| Token { kind: TokenKind::Identifier, text: sql::identifier(name), spaced };
    let tokens = vec![Token::word("KEY"), quoted(&name, true), symbol("(", true), quoted(column, false), symbol(")", false)];
    let item = Item { kind: ItemKind::Index, name, tokens };
    changes.note("", item.render());
    create.items.push(item);
    Ok(())
}

/// The index that [`auto_increment_index`] adds, unless the table has one of this name.
const COUNTER_INDEX: &str = "dbmove_auto_increment";

fn auto_increment_clause(create: &mut CreateTable, _: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    create.options.retain(|option| {
        let drop = option.name == "AUTO_INCREMENT";
        if drop {
            changes.note(option.render(), "");
        }
        !drop
    });
    Ok(())
}
