//! Which statements are looks: what a watched session may send to production.
//!
//! The texts come from the code that reads any source, so this is no parser for whatever anybody writes, but a wall behind that code: a
//! statement has to begin as one of those that read or that set up our own session, it has to be one statement, and none of the words
//! that make a SELECT or a SET reach further may be in it. What stands in quotes is a name or a value, and no word.

use crate::mysql::names::TableName;
use crate::mysql::sql;

/// Statements as a whole.
const WHOLE: [&str; 3] = ["START TRANSACTION WITH CONSISTENT SNAPSHOT", "SAVEPOINT dbmove", "ROLLBACK TO SAVEPOINT dbmove"];

/// How all others begin.
const BEGINNINGS: [&str; 6] = ["SELECT ", "SHOW ", "SET NAMES ", "SET SESSION ", "SET character_set_results = ", "USE "];

/// What none of them holds: writing to files, locks, waiting, settings of others, calls of what may write.
const NEVER: [&str; 16] = [
    "INTO",
    "UPDATE",
    "DELETE",
    "INSERT",
    "REPLACE",
    "DROP",
    "ALTER",
    "CALL",
    "LOCK",
    "SHARE",
    "GET_LOCK",
    "SLEEP",
    "BENCHMARK",
    "LOAD_FILE",
    "PERSIST",
    "SQL_LOG_BIN",
];

/// Whether a statement is a look.
pub(super) fn is_one(statement: &str) -> bool {
    if WHOLE.contains(&statement) {
        return true;
    }
    let Some(bare) = without_quoted(statement) else { return false };
    if !BEGINNINGS.iter().any(|beginning| statement.starts_with(beginning)) || bare.contains([';', '#']) {
        return false;
    }
    if bare.contains("/*") || bare.contains("--") {
        return false;
    }
    let mut words = bare.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_ascii_uppercase);
    let sets = statement.starts_with("SET ");
    !words.any(|word| NEVER.contains(&word.as_str()) || (sets && word == "GLOBAL"))
}

/// The statement without what stands in quotes; `None` if a quote is open at its end.
fn without_quoted(statement: &str) -> Option<String> {
    let mut bare = String::with_capacity(statement.len());
    let mut chars = statement.chars();
    while let Some(c) = chars.next() {
        if !matches!(c, '\'' | '"' | '`') {
            bare.push(c);
            continue;
        }
        bare.push(' ');
        loop {
            match chars.next()? {
                '\\' if c != '`' => {
                    chars.next()?;
                }
                // A doubled one ends it and begins it again.
                end if end == c => break,
                _ => {}
            }
        }
    }
    Some(bare)
}

/// How the queries for rows of a table are listed.
pub(super) fn of_rows(table: &TableName) -> String {
    format!("SELECT … FROM {} …", sql::table(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_passes() {
        for look in [
            "SELECT `id`, HEX(`a`) FROM `school`.`update` FORCE INDEX (`PRIMARY`) WHERE `id` > 3 ORDER BY `id` LIMIT 10 OFFSET 0",
            "SELECT SQL_BUFFER_RESULT `a` FROM `s`.`t`",
            "SELECT ROUTINE_COMMENT FROM information_schema.ROUTINES WHERE ROUTINE_NAME = 'it''s; DROP TABLE x -- \\''",
            "SELECT UPDATE_RULE FROM information_schema.REFERENTIAL_CONSTRAINTS",
            "SHOW CREATE TABLE `s`.`into`",
            "SHOW GLOBAL VARIABLES",
            "SET SESSION time_zone = '+00:00', sql_mode = ''",
            "ROLLBACK TO SAVEPOINT dbmove",
        ] {
            assert!(is_one(look), "{look}");
        }
    }

    #[test]
    fn everything_else_does_not() {
        for other in [
            "INSERT INTO `s`.`t` VALUES (1)",
            "SELECT 1 INTO OUTFILE '/tmp/x'",
            "SELECT 1 FROM `s`.`t` FOR UPDATE",
            "SELECT 1 FROM `s`.`t` LOCK IN SHARE MODE",
            "SELECT GET_LOCK('a', 1)",
            "SELECT 1; DROP TABLE `s`.`t`",
            "SELECT /*!50000 SLEEP(1) */ 1",
            "SELECT 'open",
            "SET SESSION a = 1, GLOBAL read_only = 1",
            "SET GLOBAL read_only = 1",
            "FLUSH TABLES WITH READ LOCK",
            "LOCK TABLES `s`.`t` READ",
            "START TRANSACTION",
            "KILL 3",
            "SET PASSWORD FOR 'a' = ''",
        ] {
            assert!(!is_one(other), "{other}");
        }
    }
}
