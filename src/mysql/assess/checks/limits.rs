//! What the target has too little room for: keys, rows, members of an ENUM, names.
//!
//! dbmove creates tables as they are; what is too long fails there, and is found here before anything is touched.

use super::super::super::catalog::ServerFacts;
use super::super::super::table::{Column, ColumnType, Index, IndexPart, Table};
use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    check(
        "index-too-long",
        "An index that is longer than the target's InnoDB takes.",
        "A key may have 3,072 bytes on pages of 16 KiB, half of that on 8 KiB, a quarter on 4 KiB; MyISAM and other charsets allowed other lengths.",
        &[Part::Catalog, Part::TargetSettings],
        index_too_long,
    ),
    check(
        "key-length-767",
        "A part of an index that is longer than 767 bytes, and a target that takes no more.",
        "InnoDB before MySQL 5.7 and MariaDB 10.2, and its row formats COMPACT and REDUNDANT, take 767 bytes for each part of a key.",
        &[Part::Catalog, Part::TargetSettings],
        key_length_767,
    ),
    check(
        "row-size",
        "A table whose row does not fit into half a page of InnoDB, or that has more than 1,017 columns.",
        "MyISAM has rows of 64 KiB and old InnoDB did not look; the target refuses the table. The length is InnoDB's own estimate: fixed columns in full, others with up to 40 bytes.",
        &[Part::Catalog, Part::TargetSettings],
        row_size,
    ),
    check(
        "enum-element-length",
        "An ENUM or SET with a member of more than 255 characters or 1,020 bytes.",
        "MySQL 8.0 and later refuse it.",
        &[Part::Catalog, Part::TargetSettings],
        enum_element_length,
    ),
    check(
        "name-length",
        "A view that names a column with more than 64 characters.",
        "Old servers took up to 255 for a view's column; the target refuses it.",
        &[Part::Bodies],
        name_length,
    ),
    check(
        "fk-name-length",
        "A foreign key whose name has more than 64 characters.",
        "Old servers made such names themselves (`<table>_ibfk_1`); the target refuses them.",
        &[Part::Catalog],
        fk_name_length,
    ),
];

const fn check(
    id: &'static str,
    about: &'static str,
    why: &'static str,
    looks_at: &'static [Part],
    look: fn(&Gathered) -> Vec<Found>,
) -> Check {
    Check { id, level: Level::Error, about, why, looks_at, never_accepted: Some("the target refuses to create it"), look }
}

/// Most characters of a name.
const NAME: usize = 64;
/// Most columns of a table of InnoDB.
const COLUMNS: usize = 1017;

/// Bytes of InnoDB's pages on a server.
fn page_size(facts: &ServerFacts) -> u64 {
    facts.variables.get("innodb_page_size").and_then(|value| value.parse().ok()).unwrap_or(16_384)
}

/// The most bytes that a character of a charset takes.
fn bytes_of_character(charset: Option<&str>) -> u64 {
    match charset.unwrap_or("binary") {
        "utf8" | "utf8mb3" | "ujis" | "eucjpms" => 3,
        "utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030" => 4,
        "ucs2" | "sjis" | "cp932" | "gbk" | "gb2312" | "euckr" | "big5" => 2,
        _ => 1,
    }
}

/// The first number in the parentheses of a printed type.
fn printed_length(type_text: &str) -> u64 {
    let inside = type_text.split_once('(').map_or("", |(_, rest)| rest);
    inside.split(|character: char| !character.is_ascii_digit()).next().and_then(|number| number.parse().ok()).unwrap_or(1)
}

/// Bytes that a column takes in a row, and whether it always takes them.
fn stored(column: &Column) -> (u64, bool) {
    use ColumnType as T;
    let per_character = bytes_of_character(column.charset.as_deref());
    match column.kind {
        T::TinyInt | T::Year | T::Year2 => (1, true),
        T::SmallInt => (2, true),
        T::MediumInt | T::Date => (3, true),
        T::Int | T::Float => (4, true),
        T::Timestamp(digits) => (4 + u64::from(digits).div_ceil(2), true),
        T::Time(digits) => (3 + u64::from(digits).div_ceil(2), true),
        T::DateTime(digits) => (5 + u64::from(digits).div_ceil(2), true),
        T::BigInt | T::Double => (8, true),
        T::Decimal { precision, scale } => {
            let part = |digits: u64| digits / 9 * 4 + [0, 1, 1, 2, 2, 3, 3, 4, 4][(digits % 9) as usize];
            (part(u64::from(precision.saturating_sub(scale))) + part(u64::from(scale)), true)
        }
        T::Bit(width) => (u64::from(width).div_ceil(8), true),
        T::Enum => (2, true),
        T::Set => (8, true),
        T::Binary(length) => (u64::from(length), true),
        // A charset with characters of different lengths makes it a VARCHAR to InnoDB.
        T::Char => (printed_length(&column.type_text) * per_character, per_character == 1),
        T::VarChar => (printed_length(&column.type_text) * per_character, false),
        T::VarBinary => (printed_length(&column.type_text), false),
        T::Text | T::Blob | T::Geometry | T::Json => (u64::from(u32::MAX), false),
    }
}

/// Bytes of a part of an index.
fn part_bytes(table: &Table, part: &IndexPart) -> u64 {
    let column = &table.columns[part.column];
    match part.prefix {
        Some(prefix) => u64::from(prefix) * if column.kind.is_text() { bytes_of_character(column.charset.as_deref()) } else { 1 },
        None => stored(column).0,
    }
}

fn plain_indexes(gathered: &Gathered) -> impl Iterator<Item = (&Table, &Index)> {
    let all = gathered.catalog.tables.values().flat_map(|table| table.indexes.iter().map(move |index| (&**table, index)));
    all.filter(|(_, index)| !matches!(index.method.as_str(), "FULLTEXT" | "SPATIAL"))
}

fn index_too_long(gathered: &Gathered) -> Vec<Found> {
    let most = 3072 * page_size(&gathered.target).min(16_384) / 16_384;
    let mut found = Vec::new();
    for (table, index) in plain_indexes(gathered) {
        let length: u64 = index.parts.iter().map(|part| part_bytes(table, part)).sum();
        if length > most {
            found.push(
                Found::new(format!("{}.{}", table.name, index.name), format!("the index has {length} bytes, the target takes {most}"))
                    .evidence(
                        "information_schema.STATISTICS, COLUMNS; SHOW GLOBAL VARIABLES LIKE 'innodb_page_size' on the target",
                        format!("{length} bytes; {}", page_size(&gathered.target)),
                    )
                    .fix("index a prefix of the column on the source (`KEY (column(191))`), or make the target with pages of 16 KiB"),
            );
        }
    }
    found
}

/// Why the target takes 767 bytes only.
fn takes_767(target: &ServerFacts) -> Option<(&'static str, String)> {
    let of = |name: &str| target.variables.get(name).cloned().unwrap_or_default();
    let off = matches!(of("innodb_large_prefix").to_ascii_uppercase().as_str(), "OFF" | "0");
    if off {
        return Some(("innodb_large_prefix", of("innodb_large_prefix")));
    }
    let format = of("innodb_default_row_format");
    matches!(format.to_ascii_lowercase().as_str(), "compact" | "redundant").then_some(("innodb_default_row_format", format))
}

fn key_length_767(gathered: &Gathered) -> Vec<Found> {
    let Some((setting, value)) = takes_767(&gathered.target) else { return Vec::new() };
    let mut found = Vec::new();
    for (table, index) in plain_indexes(gathered) {
        for part in &index.parts {
            let length = part_bytes(table, part);
            if length > 767 {
                let column = &table.columns[part.column].name;
                found.push(
                    Found::new(
                        format!("{}.{}", table.name, index.name),
                        format!("its part `{column}` has {length} bytes, the target takes 767"),
                    )
                    .evidence(
                        format!("information_schema.STATISTICS, COLUMNS; SHOW GLOBAL VARIABLES LIKE '{setting}' on the target"),
                        format!("{length} bytes; {value}"),
                    )
                    .fix("set `innodb_large_prefix = ON` (5.6, with Barracuda) or `innodb_default_row_format = dynamic` on the target, or index a prefix"),
                );
            }
        }
    }
    found
}

/// The bytes of the longest row that InnoDB counts with.
fn row_bytes(table: &Table) -> u64 {
    let nullable = table.columns.iter().filter(|column| column.nullable).count() as u64;
    // Header, NULL marks, transaction and rollback numbers.
    let fixed = 5 + nullable.div_ceil(8) + 6 + 7;
    let columns = table.columns.iter().map(|column| match stored(column) {
        (bytes, true) => bytes,
        (bytes, false) if bytes < 40 => bytes + 1,
        (_, false) => 40 + 1,
    });
    columns.fold(fixed, u64::saturating_add)
}

fn row_size(gathered: &Gathered) -> Vec<Found> {
    let page = page_size(&gathered.target);
    // Half of a page without its own header and trailer; larger pages take no more than 16 KiB.
    let most = if page > 16_384 { 16_383 } else { (page - 132) / 2 };
    let mut found = Vec::new();
    for table in gathered.catalog.tables.values() {
        let (columns, bytes) = (table.columns.len(), row_bytes(table));
        let what = if columns > COLUMNS {
            format!("it has {columns} columns, InnoDB takes {COLUMNS}")
        } else if bytes > most {
            format!("its row may have {bytes} bytes on a page, InnoDB takes {most}")
        } else {
            continue;
        };
        found.push(
            Found::new(table.name.to_string(), what)
                .evidence("information_schema.COLUMNS", format!("{columns} columns, {bytes} bytes"))
                .fix("make long CHAR columns VARCHAR or TEXT on the source, or split the table"),
        );
    }
    found
}

/// The members of a printed ENUM or SET.
fn members(type_text: &str) -> Vec<String> {
    let inside = type_text.split_once('(').map_or("", |(_, rest)| rest);
    let (mut members, mut member, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = inside.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, quoted) {
            ('\'', false) => quoted = true,
            ('\'', true) if characters.next_if_eq(&'\'').is_some() => member.push('\''),
            ('\'', true) => {
                quoted = false;
                members.push(std::mem::take(&mut member));
            }
            (_, true) => member.push(character),
            (_, false) => {}
        }
    }
    members
}

fn enum_element_length(gathered: &Gathered) -> Vec<Found> {
    if !gathered.target.version.mysql_from((8, 0, 0)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for table in gathered.catalog.tables.values() {
        for column in table.columns.iter().filter(|column| matches!(column.kind, ColumnType::Enum | ColumnType::Set)) {
            let per_character = bytes_of_character(column.charset.as_deref());
            let long = |member: &&String| {
                let characters = member.chars().count() as u64;
                characters > 255 || characters * per_character > 1020
            };
            if let Some(member) = members(&column.type_text).iter().find(long) {
                let length = member.chars().count();
                let begins: String = member.chars().take(20).collect();
                found.push(
                    Found::new(format!("{}.{}", table.name, column.name), format!("a member of it has {length} characters"))
                        .evidence("information_schema.COLUMNS.COLUMN_TYPE", format!("'{begins}…', {length} characters"))
                        .fix("shorten the member on the source (`ALTER TABLE … MODIFY`), or make the column a VARCHAR"),
                );
            }
        }
    }
    found
}

/// The quoted names of a text that are too long.
fn long_names(text: &str) -> Vec<String> {
    let (mut long, mut name, mut inside) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '`' {
            if inside {
                name.push(character);
            }
        } else if inside && characters.next_if_eq(&'`').is_some() {
            name.push('`');
        } else {
            inside = !inside;
            let whole = std::mem::take(&mut name);
            if whole.chars().count() > NAME {
                long.push(whole);
            }
        }
    }
    long
}

fn name_length(gathered: &Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    for body in gathered.bodies.iter().filter(|body| body.kind == "view") {
        for name in long_names(&body.text) {
            found.push(
                Found::new(&body.name, format!("it names a column with {} characters, the target takes {NAME}", name.chars().count()))
                    .evidence(body.place, name)
                    .fix("create the view again with a shorter name for the column"),
            );
        }
    }
    found
}

fn fk_name_length(gathered: &Gathered) -> Vec<Found> {
    let keys = gathered.catalog.tables.values().flat_map(|table| table.foreign_keys.iter().map(move |key| (table, key)));
    keys.filter(|(_, key)| key.name.chars().count() > NAME)
        .map(|(table, key)| {
            Found::new(format!("{}.{}", table.name, key.name), format!("its name has {} characters", key.name.chars().count()))
                .evidence("information_schema.REFERENTIAL_CONSTRAINTS.CONSTRAINT_NAME", &key.name)
                .fix("drop the foreign key and add it again under a shorter name")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::gather::Body;
    use super::super::testing::{changed, facts, gathered, objects, with_table};
    use super::*;
    use crate::mysql::names::TableName;
    use crate::mysql::table::{ForeignKey, ReferentialAction};

    fn text(type_text: &str, kind: ColumnType, charset: &str) -> Gathered {
        changed(with_table("MyISAM", kind), |table| {
            table.columns[0].type_text = type_text.to_owned();
            table.columns[0].charset = Some(charset.to_owned());
        })
    }

    fn indexed(type_text: &str, charset: &str, prefix: Option<u32>) -> Gathered {
        changed(text(type_text, ColumnType::VarChar, charset), |table| {
            let parts = vec![IndexPart { column: 0, prefix }];
            table.indexes = vec![Index { name: "k".to_owned(), unique: false, method: "BTREE".to_owned(), parts }];
        })
    }

    #[test]
    fn keys_are_counted_in_bytes_of_the_target() {
        assert_eq!(objects("index-too-long", &indexed("varchar(1025)", "utf8", None)), ["s.t.k"]);
        assert!(objects("index-too-long", &indexed("varchar(1024)", "utf8", None)).is_empty());
        assert!(objects("index-too-long", &indexed("varchar(2000)", "utf8", Some(300))).is_empty());
        let mut small_pages = indexed("varchar(600)", "utf8", None);
        assert!(objects("index-too-long", &small_pages).is_empty());
        small_pages.target = facts(&[("innodb_page_size", "8192")]);
        assert_eq!(objects("index-too-long", &small_pages), ["s.t.k"]);
    }

    #[test]
    fn parts_of_767_bytes_matter_where_the_target_takes_no_more() {
        let mut long = indexed("varchar(300)", "utf8", None);
        assert!(objects("key-length-767", &long).is_empty());
        long.target = facts(&[("innodb_large_prefix", "OFF")]);
        assert_eq!(objects("key-length-767", &long), ["s.t.k"]);
        long.target = facts(&[("innodb_default_row_format", "compact")]);
        assert_eq!(objects("key-length-767", &long), ["s.t.k"]);
        let mut short = indexed("varchar(255)", "utf8", None);
        short.target = facts(&[("innodb_large_prefix", "OFF")]);
        assert!(objects("key-length-767", &short).is_empty());
    }

    /// The same tables were given to a MySQL 9.7: 31 columns of CHAR(255) and 195 of VARCHAR(40) were taken, one more and five more
    /// were not.
    #[test]
    fn rows_are_counted_as_innodb_does() {
        let of = |type_text: &str, kind, nullable, count: usize| {
            let gathered = changed(text(type_text, kind, "latin1"), |table| {
                let mut column = table.columns[0].clone();
                column.nullable = nullable;
                let mut key = column.clone();
                (key.kind, key.nullable) = (ColumnType::Int, false);
                table.columns = vec![column; count];
                table.columns.push(key);
            });
            !objects("row-size", &gathered).is_empty()
        };
        assert!(!of("char(255)", ColumnType::Char, false, 31) && of("char(255)", ColumnType::Char, false, 32));
        assert!(!of("varchar(40)", ColumnType::VarChar, true, 195) && of("varchar(40)", ColumnType::VarChar, true, 200));
        assert!(of("text", ColumnType::Text, true, 200) && !of("text", ColumnType::Text, true, 190));
        assert!(!of("int(11)", ColumnType::Int, true, 1016) && of("int(11)", ColumnType::Int, true, 1018));
    }

    #[test]
    fn members_are_counted_in_characters_and_bytes() {
        let fires = |members: &str, charset: &str| {
            let mut gathered = text(&format!("enum({members})"), ColumnType::Enum, charset);
            gathered.target.version = crate::mysql::connect::Version::parse("9.7.0");
            !objects("enum-element-length", &gathered).is_empty()
        };
        assert!(fires(&format!("'a','{}'", "e".repeat(256)), "latin1") && !fires(&format!("'{}'", "e".repeat(255)), "utf8mb4"));
        assert!(!fires("'a','b''),(''c'", "latin1"));
        assert_eq!(members("enum('a','b''),(''c','')"), ["a", "b'),('c", ""]);
    }

    #[test]
    fn names_of_more_than_64_characters() {
        let mut view = gathered();
        let body = |length: usize| Body {
            kind: "view".to_owned(),
            name: "s.v".to_owned(),
            database: "s".to_owned(),
            definer: String::new(),
            sql_mode: String::new(),
            text: format!("select `s`.`t`.`a` AS `{}` from `s`.`t`", "é".repeat(length)),
            place: "information_schema.VIEWS",
        };
        view.bodies = vec![body(64)];
        assert!(objects("name-length", &view).is_empty());
        view.bodies = vec![body(65)];
        assert_eq!(objects("name-length", &view), ["s.v"]);
        let key = |length: usize| {
            changed(with_table("InnoDB", ColumnType::Int), |table| {
                table.foreign_keys = vec![ForeignKey {
                    name: "k".repeat(length),
                    columns: vec![0],
                    parent: TableName::new("s", "p"),
                    parent_columns: vec!["id".to_owned()],
                    on_delete: ReferentialAction::Restrict,
                    on_update: ReferentialAction::Restrict,
                }];
            })
        };
        assert!(objects("fk-name-length", &key(64)).is_empty());
        assert_eq!(objects("fk-name-length", &key(65)).len(), 1);
    }
}
