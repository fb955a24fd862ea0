//! Character sets and collations.

use super::super::super::connect::Version;
use super::super::DdlError;
use super::super::statement::{CreateTable, ItemKind, TableOption};
use super::super::token::{Token, find};
use super::{Changes, Context, Rule};

pub(super) const RULES: &[Rule] = &[Rule {
    name: "charset-explicit",
    about: "Writes character set and collation on the table, and on each column that has its own.",
    why: "A character set alone means another collation on another server: `utf8mb4` is `utf8mb4_general_ci` in 5.5 and `utf8mb4_0900_ai_ci` in 8.0. `utf8` is spelled `utf8mb3` where it will mean `utf8mb4` one day.",
    source: "MySQL manual, \"Table Character Set and Collation\"; measured between 5.5.34 and 9.7.4.",
    apply: charset_explicit,
}];

fn charset_explicit(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    let is_charset = |option: &TableOption| {
        matches!(option.name.as_str(), "CHARSET" | "DEFAULT CHARSET" | "CHARACTER SET" | "DEFAULT CHARACTER SET" | "COLLATE")
    };
    let before: Vec<String> = create.options.iter().filter(|option| is_charset(option)).map(TableOption::render).collect();
    let (charset, collation) = names_on(context.target, &context.table.collation);
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
        let (charset, collation) = names_on(context.target, &collation);
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
