//! Names of databases, tables and columns. Hostile input: they are quoted by [`super::sql`] only.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A table's full name, as the server stores it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The database ("schema").
    pub database: String,
    /// The table.
    pub table: String,
}

impl TableName {
    /// From its two parts.
    pub fn new(database: impl Into<String>, table: impl Into<String>) -> Self {
        TableName { database: database.into(), table: table.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// Which tables move: `database.table` patterns with `*` (any run of characters) and `?` (one
/// character), first what is included, then what of that is left out. The system schemas and
/// dbmove's own (`_dbmove`) never match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    database: String,
    table: String,
}

/// A pattern that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not of the form `database.table` (with `*` and `?`)")]
pub struct PatternError {
    /// The pattern as written.
    pub pattern: String,
}

/// Schemas that belong to the server or to dbmove and are never moved.
pub const SYSTEM_SCHEMAS: [&str; 8] =
    ["mysql", "information_schema", "performance_schema", "sys", "innodb", DBMOVE_SCHEMA, "_dbmove_canary", TRY_SCHEMA];

/// Where dbmove keeps its own tables.
pub const DBMOVE_SCHEMA: &str = "_dbmove";

/// Where `dbmove assess --try` notes what it makes, while it does.
pub const TRY_SCHEMA: &str = "_dbmove_try";

impl Selection {
    /// From the playbook's `include` and `exclude`.
    ///
    /// # Errors
    /// If a pattern has no dot or an empty part.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, PatternError> {
        let parse = |patterns: &[String]| patterns.iter().map(|text| Pattern::parse(text)).collect::<Result<Vec<_>, _>>();
        Ok(Selection { include: parse(include)?, exclude: parse(exclude)? })
    }

    /// Whether the table moves.
    #[must_use]
    pub fn contains(&self, database: &str, table: &str) -> bool {
        !is_system(database)
            && self.include.iter().any(|pattern| pattern.matches(database, table))
            && !self.exclude.iter().any(|pattern| pattern.matches(database, table))
    }

    /// Whether `exclude` names it.
    #[must_use]
    pub fn excludes(&self, database: &str, name: &str) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(database, name))
    }

    /// The patterns of `include` that name none of these tables: most likely mistyped.
    #[must_use]
    pub fn unmatched<'a>(&self, tables: impl Iterator<Item = &'a TableName> + Clone) -> Vec<String> {
        let matches = |pattern: &Pattern| tables.clone().any(|name| pattern.matches(&name.database, &name.table));
        self.include.iter().filter(|pattern| !matches(pattern)).map(|pattern| format!("{}.{}", pattern.database, pattern.table)).collect()
    }

    /// Whether any table of the database could move.
    #[must_use]
    pub fn touches_database(&self, database: &str) -> bool {
        !is_system(database) && self.include.iter().any(|pattern| glob(&pattern.database, database))
    }
}

/// Whether the schema belongs to the server or to dbmove.
#[must_use]
pub fn is_system(database: &str) -> bool {
    SYSTEM_SCHEMAS.iter().any(|schema| schema.eq_ignore_ascii_case(database))
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        match text.split_once('.') {
            Some((database, table)) if !database.is_empty() && !table.is_empty() => {
                Ok(Pattern { database: database.to_owned(), table: table.to_owned() })
            }
            _ => Err(PatternError { pattern: text.to_owned() }),
        }
    }
    fn matches(&self, database: &str, table: &str) -> bool {
        glob(&self.database, database) && glob(&self.table, table)
    }
}

/// Greedy matching with one point to fall back to: linear in practice, never exponential.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((star_p, star_t)) => {
                    star = Some((star_p, star_t + 1));
                    p = star_p + 1;
                    t = star_t + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(include: &[&str], exclude: &[&str]) -> Selection {
        let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        Selection::new(&owned(include), &owned(exclude)).unwrap()
    }

    #[test]
    fn includes_then_excludes() {
        let chosen = selection(&["school.*"], &["school.tmp_*"]);
        assert!(chosen.contains("school", "students"));
        assert!(!chosen.contains("school", "tmp_1"));
        assert!(!chosen.contains("other", "students"));
    }

    #[test]
    fn a_pattern_that_names_nothing_is_found() {
        let tables = [TableName::new("school", "students")];
        assert_eq!(selection(&["school.*", "scool.*", "school.grade?"], &[]).unmatched(tables.iter()), ["scool.*", "school.grade?"]);
    }

    #[test]
    fn system_schemas_never_match() {
        let chosen = selection(&["*.*"], &[]);
        for schema in SYSTEM_SCHEMAS {
            assert!(!chosen.contains(schema, "user"));
        }
        assert!(chosen.contains("a", "b"));
    }

    #[test]
    fn wildcards_match_as_people_expect() {
        assert!(glob("a*b*c", "aXbYbZc"));
        assert!(!glob("a*b*c", "aXbYbZ"));
        assert!(glob("t?", "t1"));
        assert!(!glob("t?", "t"));
        assert!(glob("*", ""));
    }

    #[test]
    fn a_pattern_without_a_dot_is_named() {
        let error = Selection::new(&["school".to_owned()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "`school` is not of the form `database.table` (with `*` and `?`)");
    }
}
