//! Character sets and collations.

use super::super::super::connect::Version;
use super::super::DdlError;
use super::super::statement::{CreateTable, ItemKind, TableOption};
use super::super::token::{Token, TokenKind, find};
use super::{Changes, Context, Rule};
use crate::playbook::model::CharsetConversion;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "utf8-to-utf8mb4",
        about: "Where the playbook's `charset` says so, calls `utf8` text `utf8mb4`, with the collation of the same name.",
        why: "Every character keeps its bytes and its place in the collation; what `utf8` can't hold can be written from then on. Indexes take up to a third more of their 3,072 bytes.",
        source: "MySQL manual, \"Converting Between 3-Byte and 4-Byte Unicode Character Sets\".",
        apply: |create, context, changes| converted(create, context, changes, CharsetConversion::Utf8ToUtf8mb4),
    },
    Rule {
        name: "latin1-holds-utf8",
        about: "Where the playbook's `charset` says so, calls `latin1` text whose bytes are UTF-8 `utf8mb4`.",
        why: "An application that sent UTF-8 over connections that said `latin1` left such text. The bytes stay; collations become `utf8mb4_unicode_ci`, or `utf8mb4_bin` in place of one that tells case apart. Defaults and members of ENUM and SET have to be ASCII.",
        source: "Every value is proven to be UTF-8 before anything is created; see `src/mysql/conversion.rs`.",
        apply: |create, context, changes| converted(create, context, changes, CharsetConversion::Latin1HoldsUtf8),
    },
    Rule {
        name: "collation-of-target",
        about: "Takes the target's collation nearest to one that only the source's family has; refuses it in a unique key.",
        why: "MariaDB's `uca1400` and `nopad` collations are unknown to MySQL. The nearest sorts by another version of Unicode, or counts trailing spaces otherwise, so it may call two values of a unique key equal.",
        source: "MySQL manual, \"Unicode Character Sets\"; MariaDB documentation, \"Supported Character Sets and Collations\"; error 1273 seen on 9.7.4.",
        apply: collation_of_target,
    },
    Rule {
        name: "charset-explicit",
        about: "Writes character set and collation on the table, and on each column that has its own.",
        why: "A character set alone means another collation on another server: `utf8mb4` is `utf8mb4_general_ci` in 5.5 and `utf8mb4_0900_ai_ci` in 8.0. `utf8` is spelled `utf8mb3` where it will mean `utf8mb4` one day.",
        source: "MySQL manual, \"Table Character Set and Collation\"; measured between 5.5.34 and 9.7.4.",
        apply: charset_explicit,
    },
];

/// What a conversion changes is written by [`charset_explicit`], under the conversion's name.
fn converted(
    create: &mut CreateTable,
    context: &Context<'_>,
    changes: &mut Changes,
    conversion: CharsetConversion,
) -> Result<(), DdlError> {
    let Some(converted) = context.converted.filter(|converted| converted.conversion == conversion) else { return Ok(()) };
    if conversion == CharsetConversion::Latin1HoldsUtf8 {
        for item in create.items.iter().filter(|item| item.kind == ItemKind::Column) {
            let concerned = context.table.column(&item.name).is_some_and(|column| converted.columns.contains(&column));
            let comment = find(&item.tokens, &["COMMENT"]).map(|at| at + 1);
            let odd = |(at, token): (usize, &Token)| token.kind == TokenKind::Text && Some(at) != comment && !token.text.is_ascii();
            if concerned && item.tokens.iter().enumerate().any(odd) {
                return Err(context.refused(&format!(
                    "column `{}` is converted by `{conversion}` and has a default or a member that is not ASCII; change that on the source, or take the table out of `charset`",
                    item.name
                )));
            }
        }
    }
    write(create, context, changes, |_, collation| Ok(collation.to_owned()))
}

/// The nearest collation of MySQL to one of MariaDB's own; nothing if there is none.
fn nearest(collation: &str) -> Option<String> {
    if let Some(kind) = collation.strip_prefix("utf8mb4_uca1400_") {
        let kind = kind.strip_prefix("nopad_").unwrap_or(kind);
        return matches!(kind, "ai_ci" | "as_ci" | "as_cs").then(|| format!("utf8mb4_0900_{kind}"));
    }
    if collation.contains("_uca1400_") {
        return None;
    }
    match collation {
        "utf8mb4_nopad_bin" => Some("utf8mb4_0900_bin".to_owned()),
        // Of these MySQL has the one that ignores trailing spaces.
        _ => Some(collation.replacen("_nopad", "", 1)),
    }
}

fn collation_of_target(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    let foreign = |collation: &str| collation.contains("_uca1400_") || collation.contains("_nopad_");
    let used = |collation: &Option<String>| collation.as_deref().is_some_and(foreign);
    if !context.mariadb_to_mysql()
        || !(foreign(&context.table.collation) || context.table.columns.iter().any(|column| used(&column.collation)))
    {
        return Ok(());
    }
    let unique =
        |place: usize| context.table.indexes.iter().any(|index| index.unique && index.parts.iter().any(|part| part.column == place));
    for (place, column) in context.table.columns.iter().enumerate().filter(|(_, column)| used(&column.collation)) {
        let collation = column.collation.as_deref().unwrap_or_default();
        let fix = "give it a collation that both servers have (`utf8mb4_unicode_520_ci`, `utf8mb4_bin`) on the source";
        if unique(place) {
            return Err(context.refused(&format!(
                "column `{}` is part of a unique key and has the collation `{collation}`, which MySQL does not have: values that differ in it may be equal in another; {fix}",
                column.name
            )));
        }
        if nearest(collation).is_none() {
            return Err(
                context.refused(&format!("column `{}` has the collation `{collation}`, which MySQL has nothing like; {fix}", column.name))
            );
        }
    }
    write(create, context, changes, |what, collation| {
        if !foreign(collation) {
            return Ok(collation.to_owned());
        }
        nearest(collation).ok_or_else(|| context.refused(&format!("{what} has the collation `{collation}`, which MySQL has nothing like")))
    })
}

/// The collation that something gets in place of its own.
type Chosen = Result<String, DdlError>;

fn charset_explicit(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    // What an earlier rule chose stays.
    if changes.fired.iter().any(|fired| matches!(fired.rule, "utf8-to-utf8mb4" | "latin1-holds-utf8" | "collation-of-target")) {
        return Ok(());
    }
    write(create, context, changes, |_, collation| Ok(collation.to_owned()))
}

/// Writes charset and collation wherever they are of their own, as `choose` gives them for what (in words) and its collation.
fn write(
    create: &mut CreateTable,
    context: &Context<'_>,
    changes: &mut Changes,
    choose: impl Fn(&str, &str) -> Chosen,
) -> Result<(), DdlError> {
    let is_charset = |option: &TableOption| {
        matches!(option.name.as_str(), "CHARSET" | "DEFAULT CHARSET" | "CHARACTER SET" | "DEFAULT CHARACTER SET" | "COLLATE")
    };
    let before: Vec<String> = create.options.iter().filter(|option| is_charset(option)).map(TableOption::render).collect();
    let (charset, collation) = names_on(context.target, &choose("the table's default", &context.table.collation)?);
    let after = [TableOption::new("DEFAULT CHARSET", charset), TableOption::new("COLLATE", collation)];
    let place = create.options.iter().position(is_charset).unwrap_or(create.options.len());
    create.options.retain(|option| !is_charset(option));
    let rendered: Vec<String> = after.iter().map(TableOption::render).collect();
    if before != rendered {
        changes.note(before.join(" "), rendered.join(" "));
    }
    create.options.splice(place..place, after);

    for item in create.items.iter_mut().filter(|item| item.kind == ItemKind::Column) {
        let charset_at = find(&item.tokens, &["CHARACTER", "SET"]);
        let collate_at = find(&item.tokens, &["COLLATE"]);
        let collation = context.table.column(&item.name).and_then(|column| context.table.columns[column].collation.clone());
        let (Some(first), Some(collation)) = (charset_at.or(collate_at), collation) else {
            continue;
        };
        let before = item.render();
        let mut doomed: Vec<usize> = charset_at.map_or(Vec::new(), |at| vec![at, at + 1, at + 2]);
        doomed.extend(collate_at.map_or(Vec::new(), |at| vec![at, at + 1]));
        let mut place = 0;
        item.tokens.retain(|_| {
            place += 1;
            !doomed.contains(&(place - 1))
        });
        let (charset, collation) = names_on(context.target, &choose(&format!("column `{}`", item.name), &collation)?);
        let words = ["CHARACTER", "SET", &charset, "COLLATE", &collation].map(Token::word);
        item.tokens.splice(first..first, words);
        if before != item.render() {
            changes.note(before, item.render());
        }
    }
    Ok(())
}

/// Charset and collation as the target calls them, from a collation's name.
#[must_use]
pub fn names_on(target: &Version, collation: &str) -> (String, String) {
    let charset = collation.split('_').next().unwrap_or(collation);
    let suffix = &collation[charset.len()..];
    match charset {
        "utf8" | "utf8mb3" if target.mysql_from((8, 0, 30)) || (target.mariadb && target.number >= (10, 6, 0)) => {
            ("utf8mb3".to_owned(), format!("utf8mb3{suffix}"))
        }
        "utf8mb3" => ("utf8".to_owned(), format!("utf8{suffix}")),
        _ => (charset.to_owned(), collation.to_owned()),
    }
}
