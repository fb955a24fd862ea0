//! Types of columns that a newer server spells otherwise.

use super::super::DdlError;
use super::super::statement::{CreateTable, Item};
use super::super::token::{after_group, find};
use super::{Changes, Context, Rule, columns};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "readable-in-the-log",
        about: "Refuses columns that MariaDB writes into its log in a form of its own: COMPRESSED ones, and fractional seconds of before 5.6.",
        why: "They can be copied and not followed; so they are refused before the copy, and not in the night when their first row comes along.",
        source: "Row events of MariaDB 10.11, whose column types MySQL's decoders do not know.",
        apply: readable_in_the_log,
    },
    Rule {
        name: "year2-to-year4",
        about: "Makes YEAR of YEAR(2) and YEAR(4).",
        why: "YEAR(2) does not exist any more, and the width of YEAR(4) is deprecated. Values are carried with four digits.",
        source: "MySQL manual, \"The YEAR Type\".",
        apply: year4,
    },
    Rule {
        name: "integer-width",
        about: "Drops the display width of integers, but with ZEROFILL and in `tinyint(1)`.",
        why: "A width says nothing of values, and MySQL 8.0.17 and later warn of it. It stays where it is seen: with ZEROFILL, and in `tinyint(1)`, which drivers read as a boolean.",
        source: "MySQL manual, \"Numeric Type Attributes\".",
        apply: integer_width,
    },
];

fn readable_in_the_log(_: &mut CreateTable, context: &Context<'_>, _: &mut Changes) -> Result<(), DdlError> {
    for column in &context.table.columns {
        let (name, printed) = (&column.name, &column.type_text);
        if printed.contains("COMPRESSED*/") {
            return Err(context.refused(&format!(
                "its column `{name}` is COMPRESSED, which can't be followed; change it on the source to one that is not"
            )));
        }
        if printed.contains("mariadb-5.3") && printed.contains('(') {
            return Err(context.refused(&format!(
                "its column `{name}` keeps fractional seconds in the format of MariaDB 5.3, which can't be followed; set \
                 `mysql56_temporal_format = ON` on the source and rebuild the table with `ALTER TABLE … FORCE`"
            )));
        }
    }
    Ok(())
}

fn year4(create: &mut CreateTable, _: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    for item in columns(create) {
        if item.tokens.get(1).is_some_and(|token| token.is("year")) {
            strip_width(item, changes);
        }
    }
    Ok(())
}

fn integer_width(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    if !context.target.mysql_from((8, 0, 17)) {
        return Ok(());
    }
    for item in columns(create) {
        let is = |place: usize, word: &str| item.tokens.get(place).is_some_and(|token| token.is(word));
        let integer = ["tinyint", "smallint", "mediumint", "int", "bigint"].iter().any(|name| is(1, name));
        let boolean = is(1, "tinyint") && is(3, "1");
        if integer && !boolean && find(&item.tokens, &["zerofill"]).is_none() {
            strip_width(item, changes);
        }
    }
    Ok(())
}

/// Removes the parentheses behind a column's type.
fn strip_width(item: &mut Item, changes: &mut Changes) {
    if let Some(end) = item.tokens.get(2).filter(|token| token.is("(")).and_then(|_| after_group(&item.tokens, 2)) {
        let before = item.render();
        item.tokens.drain(2..end);
        changes.note(before, item.render());
    }
}
