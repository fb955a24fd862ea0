//! The named rules that make a target's table of a source's, one function each.
//!
//! A rule changes the statement and says what it changed, before and after; a rule that does not
//! apply says nothing. What can't be converted is an error, never left out.

use super::super::connect::Version;
use super::super::sql;
use super::super::table::Table;
use super::statement::{CreateTable, Item, ItemKind, TableOption};
use super::token::{Token, TokenKind, after_group, find, render};
use super::{DdlError, RuleFired};

/// What a rule may look at.
pub(super) struct Context<'a> {
    pub(super) table: &'a Table,
    pub(super) target: &'a Version,
}

type Rule = fn(&mut CreateTable, &Context<'_>, &mut Changes) -> Result<(), DdlError>;

/// In the order in which they are applied.
const RULES: [(&str, Rule); 12] = [
    ("name", name),
    ("readable-in-the-log", readable_in_the_log),
    ("myisam-to-innodb", engine_to_innodb),
    ("auto-increment-index", auto_increment_index),
    ("engine-options", engine_options),
    ("row-format-dynamic", row_format_dynamic),
    ("auto-increment-clause", auto_increment_clause),
    ("partition-engine", partition_engine),
    ("charset-explicit", charset_explicit),
    ("year4", year4),
    ("integer-width", integer_width),
    ("index-clauses", index_clauses),
];

/// What one rule changed.
pub(super) struct Changes {
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
    for (name, rule) in RULES {
        changes.rule = name;
        rule(create, context, &mut changes)?;
    }
    Ok(changes.fired)
}

/// MyISAM, Aria, ARCHIVE, MEMORY and CSV become InnoDB: managed servers take nothing else, and nothing else keeps
/// its rows in a crash. (A MEMORY table is emptied when its server starts; the InnoDB table is not, which an application
/// may have to know.) MERGE, FEDERATED and BLACKHOLE hold no rows of their own: whoever has them decides what they become.
fn engine_to_innodb(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    let Some(engine) = create.options.iter_mut().find(|option| option.name == "ENGINE") else {
        return Err(context.refused("its statement names no storage engine"));
    };
    match engine.value.to_ascii_lowercase().as_str() {
        "innodb" => return Ok(()),
        "myisam" => {}
        "aria" => changes.rule = "aria-to-innodb",
        "archive" => changes.rule = "archive-to-innodb",
        "memory" | "heap" => changes.rule = "memory-to-innodb",
        "csv" => changes.rule = "csv-to-innodb",
        "mrg_myisam" | "merge" => {
            return Err(context.refused(
                "a MERGE table shows other tables' rows and has none of its own; exclude it, and make a view over its tables (UNION ALL) on the target",
            ));
        }
        "federated" => {
            return Err(
                context.refused("a FEDERATED table's rows are on another server; exclude it, and move them from there if they are needed")
            );
        }
        "blackhole" => {
            return Err(context.refused("a BLACKHOLE table keeps no rows; exclude it, and create it by hand where something writes to it"));
        }
        _ => return Err(context.refused(&format!("dbmove does not know how to make InnoDB of the engine `{}`", engine.value))),
    }
    let before = engine.render();
    engine.value = "InnoDB".to_owned();
    changes.note(before, engine.render());
    Ok(())
}

/// MyISAM counts inside a group, by the second column of a key (`PRIMARY KEY (course, number)`); InnoDB counts over the
/// whole table, and needs an index that begins with the counter. It gets one of its own. Rows keep their numbers; new ones
/// are numbered through, no longer from 1 in each group: something the application has to be told, so the rule's name shows it.
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

/// `#mysql50#` before a name says that the server could not decode the name of the table's file (it comes from a server
/// older than 5.1). New servers take the mark for a part of the name.
fn name(_: &mut CreateTable, context: &Context<'_>, _: &mut Changes) -> Result<(), DdlError> {
    let named = &context.table.name;
    if [&named.database, &named.table].iter().any(|name| name.starts_with("#mysql50#")) {
        return Err(context.refused(
            "its name was never converted from before MySQL 5.1 (`#mysql50#`); rename it on the source (`RENAME TABLE`, or `ALTER DATABASE … UPGRADE DATA DIRECTORY NAME`)",
        ));
    }
    Ok(())
}

/// Columns that MariaDB writes into its log in a form of its own are refused here, before the copy, and not in the night when
/// their first row comes along: COMPRESSED ones, and fractional seconds as MariaDB had them before MySQL had any.
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

/// Options that only another engine reads, or that name places on the source's disk, are dropped;
/// options nobody here knows are refused.
fn engine_options(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    const KEPT: [&str; 15] = [
        "ENGINE",
        "AUTO_INCREMENT",
        "CHARSET",
        "DEFAULT CHARSET",
        "CHARACTER SET",
        "DEFAULT CHARACTER SET",
        "COLLATE",
        "COMMENT",
        "ROW_FORMAT",
        "KEY_BLOCK_SIZE",
        "MAX_ROWS",
        "MIN_ROWS",
        "AVG_ROW_LENGTH",
        "STATS_PERSISTENT",
        "STATS_AUTO_RECALC",
    ];
    const DROPPED: [&str; 10] = [
        "CHECKSUM",
        "DELAY_KEY_WRITE",
        "PACK_KEYS",
        "PAGE_CHECKSUM",
        "TRANSACTIONAL",
        "DATA DIRECTORY",
        "INDEX DIRECTORY",
        "TABLESPACE",
        "TABLE_CHECKSUM",
        "STATS_SAMPLE_PAGES",
    ];
    if let Some(unknown) =
        create.options.iter().find(|option| !KEPT.contains(&option.name.as_str()) && !DROPPED.contains(&option.name.as_str()))
    {
        return Err(context.refused(&format!("dbmove does not know its option `{}`", unknown.render())));
    }
    create.options.retain(|option| {
        let drop = DROPPED.contains(&option.name.as_str());
        if drop {
            changes.note(option.render(), "");
        }
        !drop
    });
    Ok(())
}

/// Every table that asks for a row format gets DYNAMIC: FIXED is MyISAM's, COMPACT and REDUNDANT
/// limit keys to 767 bytes, COMPRESSED is not to be had everywhere. Block sizes go with it.
fn row_format_dynamic(create: &mut CreateTable, _: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    let asked = |option: &TableOption| matches!(option.name.as_str(), "ROW_FORMAT" | "KEY_BLOCK_SIZE");
    let before: Vec<String> = create.options.iter().filter(|option| asked(option)).map(TableOption::render).collect();
    if before.is_empty() {
        return Ok(());
    }
    create.options.retain(|option| !asked(option));
    let dynamic = TableOption::new("ROW_FORMAT", "DYNAMIC");
    if before != [dynamic.render()] {
        changes.note(before.join(" "), dynamic.render());
    }
    create.options.push(dynamic);
    Ok(())
}

/// The counter is set at the switch, from the source's last value: until then it would be wrong.
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

/// Partitions name their engine again, each: it has to be the table's. Places on the source's disk mean nothing to the
/// target and are dropped.
fn partition_engine(create: &mut CreateTable, _: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    let tokens = &mut create.partitions;
    while let Some(at) = find(tokens, &["DATA", "DIRECTORY"]).or_else(|| find(tokens, &["INDEX", "DIRECTORY"])) {
        let value = at + 2 + usize::from(tokens.get(at + 2).is_some_and(|token| token.is("=")));
        let dropped: Vec<Token> = tokens.drain(at..(value + 1).min(tokens.len())).collect();
        changes.note(format!("PARTITION … {}", render(&dropped)), "");
    }
    let mut converted = None;
    for place in 2..create.partitions.len() {
        if create.partitions[place - 2].is("ENGINE") && create.partitions[place - 1].is("=") && !create.partitions[place].is("InnoDB") {
            converted = Some(create.partitions[place].text.clone());
            create.partitions[place].text = "InnoDB".to_owned();
        }
    }
    if let Some(engine) = converted {
        changes.note(format!("PARTITION … ENGINE = {engine}"), "PARTITION … ENGINE = InnoDB");
    }
    Ok(())
}

/// Charset and collation are always written, on the table and on each column that has its own: a
/// charset alone means another collation on another server (`utf8mb4` is `utf8mb4_general_ci` in
/// 5.5 and `utf8mb4_0900_ai_ci` in 8.0). `utf8` is spelled `utf8mb3` where it will mean `utf8mb4` one day.
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

/// YEAR(2) does not exist any more, and YEAR(4) is deprecated for YEAR. Values are carried with four digits.
fn year4(create: &mut CreateTable, _: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    for item in columns(create) {
        if item.tokens.get(1).is_some_and(|token| token.is("year")) {
            strip_width(item, changes);
        }
    }
    Ok(())
}

/// Display widths say nothing of values; MySQL 8.0.17 and later warn of them. They stay where they
/// are seen: with ZEROFILL, and in `tinyint(1)`, which drivers read as a boolean.
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

fn columns(create: &mut CreateTable) -> impl Iterator<Item = &mut Item> {
    create.items.iter_mut().filter(|item| item.kind == ItemKind::Column)
}

/// Removes the parentheses behind a column's type.
fn strip_width(item: &mut Item, changes: &mut Changes) {
    if let Some(end) = item.tokens.get(2).filter(|token| token.is("(")).and_then(|_| after_group(&item.tokens, 2)) {
        let before = item.render();
        item.tokens.drain(2..end);
        changes.note(before, item.render());
    }
}

/// `USING` and `KEY_BLOCK_SIZE` of an index: InnoDB has one kind of index, and warns when asked for
/// another. Comments stay.
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

impl Context<'_> {
    fn refused(&self, why: &str) -> DdlError {
        DdlError::Refused { table: self.table.name.clone(), why: why.to_owned() }
    }
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
