//! Named conversions of text on its way, by the store's `charset`.
//!
//! # What holds
//!
//! Bytes stay bytes. Neither conversion changes a stored byte; both change what the target calls them:
//!
//! * `utf8-to-utf8mb4`: `utf8` columns become `utf8mb4` with the collation of the same name. Every character keeps its bytes and its
//!   place in that collation, so keys compare alike on both sides, and a key may be converted.
//! * `latin1-holds-utf8`: an application sent UTF-8 over connections that said `latin1`, so `latin1` columns hold UTF-8. They become
//!   `utf8mb4`, and the same bytes are then the characters that were meant. Keys would compare otherwise than on the
//!   source, so a column of the key that tells rows apart is refused; other unique values are looked through for such that the
//!   new collation calls equal.
//!
//! # Why it is proven first
//!
//! A target takes bytes that are no UTF-8 into a `utf8mb4` column with a warning, cut, or not at all. So every converted value is
//! read once before anything is created ([`well_formed`](super::well_formed), [`prove_keys`]), and rows whose bytes are no UTF-8 are named. What is written
//! later comes through the binary log and is written with warnings as errors: it stops the run, and names the row.
//!
//! # How the others agree
//!
//! A converted table has two descriptions ([`Converted`]). What reads the source takes the first, in which text that holds UTF-8 says
//! so: else a comparison would convert it once more, and find every row different. What writes, asks or creates on the target takes
//! the second.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalog::Catalog;
use super::connect::{Session, Version};
use super::error::{MysqlError, Result};
use super::names::{PatternError, Selection, TableName};
use super::sql;
use super::table::{Column, Index, Table};
use crate::playbook::model::CharsetConversion;

/// The conversions of a store, by pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversions {
    patterns: Vec<(String, Selection, CharsetConversion)>,
}

/// A table that is converted, as each side has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// How.
    pub conversion: CharsetConversion,
    /// The source's table, in which text that holds UTF-8 says so.
    pub source: Arc<Table>,
    /// The target's.
    pub target: Arc<Table>,
    /// Which columns: indexes into [`Table::columns`].
    pub columns: Vec<usize>,
}

/// The converted tables by name.
pub type ConvertedTables = BTreeMap<TableName, Converted>;

/// Rows, or pairs of values, that an error names.
const NAMED: usize = 20;

impl Conversions {
    /// From the store's `charset`.
    ///
    /// # Errors
    /// If a pattern has no dot or an empty part.
    pub fn new(written: &BTreeMap<String, CharsetConversion>) -> std::result::Result<Conversions, PatternError> {
        let pattern = |(text, conversion): (&String, &CharsetConversion)| {
            Ok((text.clone(), Selection::new(std::slice::from_ref(text), &[])?, *conversion))
        };
        Ok(Conversions { patterns: written.iter().map(pattern).collect::<std::result::Result<_, _>>()? })
    }

    /// Whether nothing is converted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Which tables are converted, and how each side has them.
    ///
    /// # Errors
    /// If a pattern names no table or two name one differently; if a column can't be converted: each names what.
    pub fn apply(&self, catalog: &Catalog) -> Result<ConvertedTables> {
        let mut tables = ConvertedTables::new();
        let mut named: Vec<bool> = vec![false; self.patterns.len()];
        for (name, table) in &catalog.tables {
            let mut chosen: Option<(&str, CharsetConversion)> = None;
            for (place, (text, pattern, conversion)) in self.patterns.iter().enumerate() {
                if !pattern.contains(&name.database, &name.table) {
                    continue;
                }
                named[place] = true;
                match chosen {
                    Some((other, first)) if first != *conversion => {
                        return Err(refused(format!("`charset` gives `{name}` two conversions, by `{other}` and by `{text}`"), PATTERNS));
                    }
                    _ => chosen = Some((text, *conversion)),
                }
            }
            if let Some((_, conversion)) = chosen
                && let Some(converted) = convert(table, conversion)?
            {
                tables.insert(name.clone(), converted);
            }
        }
        if let Some(place) = named.iter().position(|named| !named) {
            return Err(refused(format!("`charset` names `{}`, and no table that moves is called so", self.patterns[place].0), PATTERNS));
        }
        foreign_keys_agree(catalog, &tables)?;
        Ok(tables)
    }
}

const PATTERNS: &str = "correct the patterns of `charset` in the playbook; each table may have one conversion";

fn refused(what: String, hint: &str) -> MysqlError {
    MysqlError::Object { message: format!("{what}; nothing was created"), hint: hint.to_owned() }
}

/// The table on both sides; nothing if it has no column to convert.
fn convert(table: &Arc<Table>, conversion: CharsetConversion) -> Result<Option<Converted>> {
    let from = |charset: Option<&str>| match conversion {
        CharsetConversion::Utf8ToUtf8mb4 => matches!(charset, Some("utf8" | "utf8mb3")),
        CharsetConversion::Latin1HoldsUtf8 => charset == Some("latin1"),
    };
    let columns: Vec<usize> = (0..table.columns.len()).filter(|&column| from(table.columns[column].charset.as_deref())).collect();
    if columns.is_empty() {
        return Ok(None);
    }
    let (mut source, mut target) = (Table::clone(table), Table::clone(table));
    for &column in &columns {
        let old = table.columns[column].collation.clone().unwrap_or_default();
        let new = collation(conversion, &old).ok_or_else(|| {
            refused(
                format!(
                    "`{conversion}` knows no collation in place of `{old}` for column `{}` of `{}`",
                    table.columns[column].name, table.name
                ),
                "give the column another collation on the source (`utf8_general_ci`), or leave the table out of `charset`",
            )
        })?;
        let changed = &mut target.columns[column];
        changed.charset = Some("utf8mb4".to_owned());
        changed.collation = Some(new);
        if conversion == CharsetConversion::Latin1HoldsUtf8 {
            source.columns[column].charset = Some("utf8mb4".to_owned());
        }
    }
    if conversion == CharsetConversion::Latin1HoldsUtf8
        && let Some(part) =
            table.key().unwrap_or_default().iter().find(|part| columns.contains(part) && table.columns[**part].kind.is_text())
    {
        return Err(refused(
            format!(
                "`{conversion}` can't convert column `{}` of `{}`: it is part of the key, whose values compare otherwise as UTF-8 than they do as latin1",
                table.columns[*part].name, table.name
            ),
            "leave the table out of `charset`, and convert it on the target after the switch: ALTER TABLE … MODIFY the column to VARBINARY, then to VARCHAR … CHARACTER SET utf8mb4",
        ));
    }
    let default = table.collation.split('_').next();
    if from(default)
        && let Some(new) = collation(conversion, &table.collation)
    {
        target.collation = new;
    }
    Ok(Some(Converted { conversion, source: Arc::new(source), target: Arc::new(target), columns }))
}

/// The collation in place of another.
fn collation(conversion: CharsetConversion, old: &str) -> Option<String> {
    let (_, suffix) = old.split_once('_')?;
    match conversion {
        // It is what 5.0 did wrong with `ß`, and utf8mb4 never had it.
        CharsetConversion::Utf8ToUtf8mb4 if suffix == "general_mysql500_ci" => None,
        CharsetConversion::Utf8ToUtf8mb4 => Some(format!("utf8mb4_{suffix}")),
        CharsetConversion::Latin1HoldsUtf8 if suffix == "bin" || suffix.ends_with("_cs") => Some("utf8mb4_bin".to_owned()),
        CharsetConversion::Latin1HoldsUtf8 => Some("utf8mb4_unicode_ci".to_owned()),
    }
}

/// A foreign key needs one collation on both its sides: parent and child are converted together or not at all.
fn foreign_keys_agree(catalog: &Catalog, converted: &ConvertedTables) -> Result<()> {
    let target = |table: &Arc<Table>| converted.get(&table.name).map_or_else(|| table.clone(), |converted| converted.target.clone());
    for table in catalog.tables.values() {
        for key in &table.foreign_keys {
            let Some(parent) = catalog.table(&key.parent) else { continue };
            let (child_after, parent_after) = (target(table), target(parent));
            for (&column, parent_column) in key.columns.iter().zip(&key.parent_columns) {
                let Some(other) = parent.column(parent_column) else { continue };
                let collation = |table: &Table, column: usize| table.columns[column].collation.clone();
                if collation(table, column) == collation(parent, other)
                    && collation(&child_after, column) != collation(&parent_after, other)
                {
                    return Err(refused(
                        format!(
                            "`charset` converts only one side of the foreign key `{}`: column `{}` of `{}` and column `{parent_column}` of `{}`",
                            key.name, table.columns[column].name, table.name, parent.name
                        ),
                        "name both tables in `charset`, or none of them",
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Looks for unique values that become equal. That the bytes are text is proven by [`well_formed`](super::well_formed), first.
///
/// # Errors
/// If unique values become equal: they are named. If the source can't be read.
pub async fn prove_keys(source: &mut Session, tables: &ConvertedTables) -> Result<()> {
    for converted in tables.values() {
        if converted.conversion == CharsetConversion::Latin1HoldsUtf8 {
            prove_unique(source, converted).await?;
        }
    }
    Ok(())
}

/// Unique values that the new collation calls equal. `NULL`s never are.
async fn prove_unique(source: &mut Session, converted: &Converted) -> Result<()> {
    let table = &converted.source;
    let concerned = |index: &&Index| index.unique && index.parts.iter().any(|part| converted.columns.contains(&part.column));
    for index in table.indexes.iter().filter(concerned) {
        let columns: Vec<&Column> = index.parts.iter().map(|part| &table.columns[part.column]).collect();
        let mut groups = Vec::new();
        for part in &index.parts {
            let name = sql::identifier(&table.columns[part.column].name);
            let collation = converted.target.columns[part.column].collation.as_deref().unwrap_or_default();
            let meant = converted.columns.contains(&part.column) && table.columns[part.column].kind.is_text();
            let value = if meant { meant_as(&name, part.prefix, collation, &source.version) } else { name };
            groups.push(value);
        }
        let shown: Vec<String> = columns.iter().map(|column| format!("CAST({} AS BINARY)", sql::identifier(&column.name))).collect();
        let all = format!("CONCAT_WS(', ', {})", shown.join(", "));
        let given: Vec<String> = columns.iter().map(|column| format!("{} IS NOT NULL", sql::identifier(&column.name))).collect();
        let query = format!(
            "SELECT MIN({all}), MAX({all}) FROM {} WHERE {} GROUP BY {} HAVING COUNT(*) > 1 LIMIT {NAMED}",
            sql::table(&table.name),
            given.join(" AND "),
            groups.join(", ")
        );
        let rows = source.rows(&query, &format!("looking for equal values of `{}` of `{}`", index.name, table.name)).await?;
        if rows.is_empty() {
            continue;
        }
        let text = |row: &[Option<String>], at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        let pairs: Vec<String> = rows.iter().map(|row| format!("`{}` and `{}`", text(row, 0), text(row, 1))).collect();
        return Err(MysqlError::Object {
            message: format!(
                "`{}` can't be converted by `{}`: values of its unique key `{}` are equal as UTF-8; nothing was created\n  {}",
                table.name,
                converted.conversion,
                index.name,
                pairs.join("\n  ")
            ),
            hint: "make them differ on the source, or take the table out of `charset`: then it arrives as it is".to_owned(),
        });
    }
    Ok(())
}

/// What a column's bytes are meant as. Before 5.5.3 there is no `utf8mb4`, and no value that would need it.
fn meant_as(name: &str, prefix: Option<u32>, collation: &str, version: &Version) -> String {
    let (charset, collation) = if version.mariadb || version.mysql_from((5, 5, 3)) {
        ("utf8mb4", collation.to_owned())
    } else {
        ("utf8", collation.replacen("utf8mb4", "utf8", 1))
    };
    let text = format!("CONVERT(CAST({name} AS BINARY) USING {charset})");
    match prefix {
        Some(characters) => format!("LEFT({text}, {characters}) COLLATE {collation}"),
        None => format!("{text} COLLATE {collation}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::table::{ColumnType, IndexPart};

    fn table(collation: &str, unique: bool) -> Arc<Table> {
        let column = |name: &str, kind, collation: Option<&str>| Column {
            name: name.to_owned(),
            kind,
            type_text: String::new(),
            unsigned: false,
            zerofill: false,
            nullable: false,
            charset: collation.and_then(|name| name.split('_').next()).map(str::to_owned),
            collation: collation.map(str::to_owned),
            auto_increment: false,
            generated: false,
        };
        let index = |name: &str, column| Index {
            name: name.to_owned(),
            unique: true,
            method: "BTREE".to_owned(),
            parts: vec![IndexPart { column, prefix: None }],
        };
        Arc::new(Table {
            name: TableName::new("s", "t"),
            engine: "InnoDB".to_owned(),
            collation: collation.to_owned(),
            row_estimate: 0,
            data_bytes: 0,
            auto_increment: None,
            columns: vec![column("id", ColumnType::Int, None), column("word", ColumnType::VarChar, Some(collation))],
            indexes: vec![index("PRIMARY", usize::from(unique))],
            foreign_keys: Vec::new(),
            lookups_fail: false,
        })
    }

    fn catalog(table: Arc<Table>) -> Catalog {
        let mut catalog = Catalog::default();
        catalog.tables.insert(table.name.clone(), table);
        catalog
    }

    fn conversions(pattern: &str, conversion: CharsetConversion) -> Conversions {
        Conversions::new(&[(pattern.to_owned(), conversion)].into()).unwrap()
    }

    #[test]
    fn each_side_says_what_its_bytes_are() {
        let applied = conversions("s.*", CharsetConversion::Latin1HoldsUtf8).apply(&catalog(table("latin1_swedish_ci", false))).unwrap();
        let converted = &applied[&TableName::new("s", "t")];
        assert_eq!(converted.source.columns[1].charset.as_deref(), Some("utf8mb4"));
        assert_eq!(converted.target.columns[1].collation.as_deref(), Some("utf8mb4_unicode_ci"));
        assert_eq!(converted.target.collation, "utf8mb4_unicode_ci");
        let applied = conversions("s.t", CharsetConversion::Utf8ToUtf8mb4).apply(&catalog(table("utf8_bin", true))).unwrap();
        let converted = &applied[&TableName::new("s", "t")];
        assert_eq!(converted.source.columns[1].charset.as_deref(), Some("utf8"), "the source compares its keys as before");
        assert_eq!(converted.target.columns[1].collation.as_deref(), Some("utf8mb4_bin"));
    }

    #[test]
    fn what_can_not_be_converted_is_refused_by_name() {
        let said = |conversions: Conversions, table: Arc<Table>| conversions.apply(&catalog(table)).unwrap_err().to_string();
        let key = said(conversions("s.t", CharsetConversion::Latin1HoldsUtf8), table("latin1_swedish_ci", true));
        assert!(key.contains("column `word` of `s.t`: it is part of the key"), "{key}");
        let nobody = said(conversions("s.x", CharsetConversion::Latin1HoldsUtf8), table("latin1_swedish_ci", false));
        assert!(nobody.contains("`s.x`, and no table that moves"), "{nobody}");
        let old = said(conversions("s.t", CharsetConversion::Utf8ToUtf8mb4), table("utf8_general_mysql500_ci", false));
        assert!(old.contains("`utf8_general_mysql500_ci` for column `word` of `s.t`"), "{old}");
        let two = Conversions::new(
            &[("s.*".to_owned(), CharsetConversion::Latin1HoldsUtf8), ("s.t".to_owned(), CharsetConversion::Utf8ToUtf8mb4)].into(),
        );
        assert!(said(two.unwrap(), table("utf8_bin", false)).contains("two conversions"));
        assert!(Conversions::new(&[("s".to_owned(), CharsetConversion::Utf8ToUtf8mb4)].into()).is_err());
        let nothing = conversions("s.t", CharsetConversion::Utf8ToUtf8mb4).apply(&catalog(table("latin1_bin", true))).unwrap();
        assert!(nothing.is_empty(), "a table without such text is none that is converted");
    }
}
