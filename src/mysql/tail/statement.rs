//! Reads the statements that stand in a row-based binary log and says what each means for the run.
//!
//! With `binlog_format=ROW` a statement in the log is transaction control, DDL, account management,
//! or a sign that somebody still writes in another format. The last is the dangerous one: its rows
//! are not in the log. So the rule is: what changes data of an included table by statement stops
//! the run, and what can't be told apart counts as such.
//!
//! This is no parser: it looks at the statement's words ([`token`](super::token)) and reads names where the grammar puts them.

use super::dialect::Dialect;
use super::token::{Token, tokens};
use super::xa::{self, XaStatement};
use crate::mysql::names::{Selection, TableName};

/// What a statement in the log means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `BEGIN`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK` of the whole transaction.
    Rollback,
    /// `SAVEPOINT name`.
    Savepoint(String),
    /// `ROLLBACK TO name`.
    RollbackTo(String),
    /// `XA …`, of a two-phase transaction.
    Xa(XaStatement),
    /// `TRUNCATE` of an included table.
    Truncate(TableName),
    /// `DELETE FROM table` and nothing more, of an included table: so a server logs that it found a MEMORY table empty
    /// after its start. Of any other table it is data that changed by statement.
    DeleteAll(TableName),
    /// Nothing that concerns the included tables.
    Elsewhere,
    /// Accounts or privileges changed: carried by hand or again later, never silently.
    Accounts,
    /// DDL that concerns what is moved.
    Definition(Definition),
    /// A view, trigger, routine or event of a moved database was made, changed or dropped: no row is changed by that, but a
    /// person has to know. Holds the kind (`CREATE VIEW`).
    Object(String),
    /// Rows of an included table may have changed by statement: stop.
    DataByStatement,
}

/// A statement that changes what tables there are, or what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its kind (`ALTER TABLE`).
    pub kind: String,
    /// Whether it can be followed.
    pub followed: Followed,
    /// What it does to the tables it names.
    pub effect: Effect,
    /// The included tables that it names; empty if it is not followed.
    pub tables: Vec<TableName>,
}

/// Whether a statement that changes definitions can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It is.
    Always,
    /// It alters tables: the playbook says whether that is followed.
    Altered,
    /// Its effect can't be told from the tables it names.
    Never,
}

/// What such a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It creates a table that was not there (or does nothing).
    Creates,
    /// It drops tables (where they are there).
    Drops,
    /// Anything else: renames, replaces, alters.
    Changes,
}

/// Classifies a statement that ran with `default_database` selected.
#[must_use]
pub fn classify(text: &str, default_database: &str, selection: &Selection, dialect: Dialect) -> Statement {
    let tokens = tokens(text, dialect);
    let word = |index: usize| match tokens.get(index) {
        Some(Token::Word(upper, _)) => upper.as_str(),
        _ => "",
    };
    let concerns = || concerns(&tokens, default_database, selection);
    match word(0) {
        "BEGIN" => Statement::Begin,
        "START" if word(1) == "TRANSACTION" => Statement::Begin,
        "COMMIT" => Statement::Commit,
        "ROLLBACK" => {
            let to = tokens.iter().position(|token| token.is("TO"));
            match to {
                Some(to) => {
                    let at = if tokens.get(to + 1).is_some_and(|token| token.is("SAVEPOINT")) { to + 2 } else { to + 1 };
                    Statement::RollbackTo(tokens.get(at).and_then(Token::name).unwrap_or_default().to_owned())
                }
                None => Statement::Rollback,
            }
        }
        "SAVEPOINT" => Statement::Savepoint(tokens.get(1).and_then(Token::name).unwrap_or_default().to_owned()),
        "RELEASE" => Statement::Elsewhere,
        // What can't be read as one may be a two-phase transaction of any table.
        "XA" => xa::statement(text).map_or(Statement::DataByStatement, Statement::Xa),
        "DELETE" if word(1) == "FROM" => match name_at(&tokens, 2) {
            Some(((database, table), end)) if end == tokens.len() => {
                let database = database.unwrap_or(default_database);
                if selection.contains(database, table) {
                    Statement::DeleteAll(TableName::new(database, table))
                } else {
                    Statement::Elsewhere
                }
            }
            _ if concerns() => Statement::DataByStatement,
            _ => Statement::Elsewhere,
        },
        "GRANT" | "REVOKE" => Statement::Accounts,
        "CREATE" | "DROP" | "ALTER" | "RENAME" if matches!(word(1), "USER" | "ROLE") => Statement::Accounts,
        "SET" if matches!(word(1), "PASSWORD" | "DEFAULT") => Statement::Accounts,
        "FLUSH" | "ANALYZE" | "CHECK" | "CHECKSUM" | "KILL" | "RESET" | "INSTALL" | "UNINSTALL" | "SET" | "USE" => Statement::Elsewhere,
        // Same rows, other layout.
        "OPTIMIZE" | "REPAIR" => Statement::Elsewhere,
        "CREATE" | "DROP" | "ALTER" | "RENAME" | "TRUNCATE" => {
            // Temporary tables live in their session; their rows are not in a row-based log.
            let object = |token: &&Token| !["TABLE", "TABLES"].iter().any(|word| token.is(word));
            if tokens.iter().take(4).take_while(object).any(|token| token.is("TEMPORARY")) {
                return Statement::Elsewhere;
            }
            definition(&tokens, default_database, selection)
        }
        _ if concerns() => Statement::DataByStatement,
        _ => Statement::Elsewhere,
    }
}

/// What DDL means. Tables are looked at one by one, since a table that is left out may change as it likes; what can't be read
/// counts as concerning us if anything in it could.
fn definition(tokens: &[Token], default_database: &str, selection: &Selection) -> Statement {
    let verb = match tokens.first() {
        Some(Token::Word(upper, _)) => upper.as_str(),
        _ => "",
    };
    let object = match verb {
        // Their TABLE may be left out, and the table may be called `event`.
        "TRUNCATE" | "RENAME" => Some("TABLE"),
        // `CREATE OR REPLACE ALGORITHM = … DEFINER = … @ … SQL SECURITY DEFINER VIEW` has it that far behind.
        _ => tokens.iter().skip(1).take(20).take_while(|token| **token != Token::Mark('(')).find_map(|token| match token {
            Token::Word(upper, _) if OBJECTS.contains(&upper.as_str()) => Some(upper.as_str()),
            _ => None,
        }),
    };
    let kind = format!("{verb} {}", object.unwrap_or("TABLE"));
    match object {
        // A database without tables is nothing to move; its tables come with statements of their own.
        Some("DATABASE" | "SCHEMA") if verb == "CREATE" => Statement::Elsewhere,
        Some("VIEW" | "TRIGGER" | "PROCEDURE" | "FUNCTION" | "EVENT") if concerns(tokens, default_database, selection) => {
            Statement::Object(kind)
        }
        None | Some("TABLE" | "INDEX") => match tables_named(tokens, verb, object) {
            Some(named) => {
                let included = |(database, table): &(Option<&str>, &str)| selection.contains(database.unwrap_or(default_database), table);
                if let ("TRUNCATE", [name @ (database, table)]) = (verb, named.tables.as_slice())
                    && included(name)
                {
                    return Statement::Truncate(TableName::new(database.unwrap_or(default_database), *table));
                }
                if !named.tables.iter().any(included) || named.keys_only {
                    return Statement::Elsewhere;
                }
                let (followed, effect) = following(tokens, verb, object);
                let tables = named.tables.iter().filter(|name| included(name) && followed != Followed::Never);
                let tables = tables.map(|(database, table)| TableName::new(database.unwrap_or(default_database), *table)).collect();
                Statement::Definition(Definition { kind, followed, effect, tables })
            }
            None if concerns(tokens, default_database, selection) => not_followed(kind),
            None => Statement::Elsewhere,
        },
        _ if concerns(tokens, default_database, selection) => not_followed(kind),
        _ => Statement::Elsewhere,
    }
}

fn not_followed(kind: String) -> Statement {
    Statement::Definition(Definition { kind, followed: Followed::Never, effect: Effect::Changes, tables: Vec::new() })
}

/// How a statement whose tables are known is followed.
fn following(tokens: &[Token], verb: &str, object: Option<&str>) -> (Followed, Effect) {
    let has = |word: &str| tokens.iter().any(|token| token.is(word));
    match (verb, object) {
        // MariaDB's, which drops what is there.
        ("CREATE", Some("TABLE")) if tokens.iter().take(3).any(|token| token.is("REPLACE")) => (Followed::Always, Effect::Changes),
        ("CREATE", Some("TABLE")) => (Followed::Always, Effect::Creates),
        ("DROP", Some("TABLE")) => (Followed::Always, Effect::Drops),
        ("RENAME", _) => (Followed::Always, Effect::Changes),
        // Rows come from or go to another table or a file.
        ("ALTER", _) if has("EXCHANGE") || has("DISCARD") || has("IMPORT") || (has("CONVERT") && has("PARTITION")) => {
            (Followed::Never, Effect::Changes)
        }
        ("ALTER", Some("TABLE")) | ("CREATE" | "DROP", Some("INDEX")) => (Followed::Altered, Effect::Changes),
        _ => (Followed::Never, Effect::Changes),
    }
}

/// The tables that a statement makes, changes or drops.
struct Named<'a> {
    tables: Vec<(Option<&'a str>, &'a str)>,
    /// Nothing but `ENABLE KEYS` or `DISABLE KEYS`, as dumps have it: MyISAM builds its indexes then or later.
    keys_only: bool,
}

/// Reads the names where the grammar puts them; `None` where they are not found there.
fn tables_named<'a>(tokens: &'a [Token], verb: &str, object: Option<&str>) -> Option<Named<'a>> {
    let at_name = |mut at: usize| {
        while ["IF", "NOT", "EXISTS", "TABLE", "TABLES"].iter().any(|word| tokens.get(at).is_some_and(|token| token.is(word))) {
            at += 1;
        }
        at
    };
    // Where the name of the object begins: behind TABLE, behind the ON of an index, or (`TRUNCATE t`) behind the verb.
    let start = match object {
        Some("INDEX") => tokens.iter().position(|token| token.is("ON"))? + 1,
        Some(_) if verb == "TRUNCATE" => 1,
        Some(_) => tokens.iter().position(|token| token.is("TABLE"))? + 1,
        None => return None,
    };
    let mut tables = Vec::new();
    let (first, mut at) = name_at(tokens, at_name(start))?;
    tables.push(first);
    let mut keys_only = false;
    match verb {
        "DROP" if object == Some("TABLE") => {
            while tokens.get(at) == Some(&Token::Mark(',')) {
                let (name, behind) = name_at(tokens, at + 1)?;
                tables.push(name);
                at = behind;
            }
            let rest = &tokens[at..];
            // MariaDB: `WAIT 5`.
            let known = |token: &Token| match token {
                Token::Word(upper, _) => {
                    ["RESTRICT", "CASCADE", "WAIT", "NOWAIT"].contains(&upper.as_str()) || upper.bytes().all(|b| b.is_ascii_digit())
                }
                Token::Mark(mark) => *mark == ';',
                Token::Quoted(_) => false,
            };
            if !rest.iter().all(known) {
                return None;
            }
        }
        "RENAME" => {
            while tokens.get(at).is_some_and(|token| token.is("TO")) || tokens.get(at) == Some(&Token::Mark(',')) {
                let (name, behind) = name_at(tokens, at + 1)?;
                tables.push(name);
                at = behind;
            }
            // What is not understood may name more.
            if tables.len() % 2 != 0 || tokens[at..].iter().any(|token| *token != Token::Mark(';')) {
                return None;
            }
        }
        "ALTER" => {
            let rest = &tokens[at..];
            keys_only = rest.len() == 2 && (rest[0].is("ENABLE") || rest[0].is("DISABLE")) && rest[1].is("KEYS");
            for place in rest.iter().enumerate().filter(|(_, token)| token.is("RENAME")).map(|(place, _)| place) {
                let skip = usize::from(rest.get(place + 1).is_some_and(|token| token.is("TO") || token.is("AS")));
                // `RENAME COLUMN a TO b` and the like name no table.
                if rest.get(place + 1).is_some_and(|token| ["COLUMN", "INDEX", "KEY"].iter().any(|word| token.is(word))) {
                    continue;
                }
                tables.push(name_at(rest, place + 1 + skip)?.0);
            }
        }
        _ => {}
    }
    Some(Named { tables, keys_only })
}

/// A table's name, qualified or not, and where it ends.
fn name_at(tokens: &[Token], at: usize) -> Option<((Option<&str>, &str), usize)> {
    let first = tokens.get(at)?.name()?;
    if tokens.get(at + 1) == Some(&Token::Mark('.')) {
        return Some(((Some(first), tokens.get(at + 2)?.name()?), at + 3));
    }
    Some(((None, first), at + 1))
}

const OBJECTS: [&str; 12] =
    ["TABLE", "DATABASE", "SCHEMA", "INDEX", "VIEW", "TRIGGER", "PROCEDURE", "FUNCTION", "EVENT", "SERVER", "TABLESPACE", "LOGFILE"];

/// Whether a statement could concern what is moved: its default database does, or any name in it
/// is qualified with a database that does. `DROP DATABASE x` names the database itself.
fn concerns(tokens: &[Token], default_database: &str, selection: &Selection) -> bool {
    let names: Vec<(&str, Option<&str>)> = tokens
        .iter()
        .enumerate()
        .filter_map(|(index, token)| {
            let name = token.name()?;
            let qualified = tokens.get(index + 1) == Some(&Token::Mark('.'));
            Some((name, if qualified { tokens.get(index + 2).and_then(Token::name) } else { None }))
        })
        .collect();
    if names.iter().any(|(database, table)| table.is_some() && selection.touches_database(database)) {
        return true;
    }
    if let Some(at) = tokens.iter().take(2).position(|token| token.is("DATABASE") || token.is("SCHEMA")) {
        let name = tokens[at + 1..].iter().find(|token| !["IF", "NOT", "EXISTS"].iter().any(|word| token.is(word))).and_then(Token::name);
        // `ALTER DATABASE` without a name means the selected one; what follows then looks like a name.
        let selected = tokens.first().is_some_and(|token| token.is("ALTER")).then_some(default_database);
        return name.into_iter().chain(selected).any(|name| !name.is_empty() && selection.touches_database(name));
    }
    if default_database.is_empty() || !selection.touches_database(default_database) {
        return false;
    }
    // With one included database selected, a statement whose every table is named with another
    // database does not concern us; anything unqualified may.
    let all_qualified_elsewhere = names.iter().any(|(_, table)| table.is_some())
        && target_name(tokens).is_some_and(|(database, table)| table.is_some() && !selection.touches_database(database));
    !all_qualified_elsewhere
}

/// The first name behind `TABLE`, `INTO`, `UPDATE`, `FROM` … with its qualifier.
fn target_name(tokens: &[Token]) -> Option<(&str, Option<&str>)> {
    let start = tokens.iter().position(|token| {
        ["TABLE", "INTO", "UPDATE", "FROM", "VIEW", "TRIGGER", "PROCEDURE", "FUNCTION", "EVENT"].iter().any(|word| token.is(word))
    })?;
    let skip = ["IF", "NOT", "EXISTS", "LOW_PRIORITY", "IGNORE"];
    let at = (start + 1..tokens.len()).find(|&index| !skip.iter().any(|word| tokens[index].is(word)))?;
    let name = tokens[at].name()?;
    let table = if tokens.get(at + 1) == Some(&Token::Mark('.')) { tokens.get(at + 2).and_then(Token::name) } else { None };
    Some((name, table))
}

/// A statement about accounts up to where a password may stand: servers before 5.6 log it as it was typed.
#[must_use]
pub fn before_the_password(statement: &str) -> &str {
    let upper = statement.to_ascii_uppercase();
    let end = ["IDENTIFIED", "="].iter().filter_map(|word| upper.find(word)).min();
    statement.get(..end.unwrap_or(statement.len())).unwrap_or_default()
}

/// Any statement up to where the address of another server may stand with its password: what FEDERATED tables and `CREATE SERVER` are given.
#[must_use]
pub fn before_an_address(statement: &str) -> &str {
    let upper = statement.to_ascii_uppercase();
    let quoted = |word: &str, at: usize| {
        let rest = upper[at + word.len()..].trim_start();
        rest.strip_prefix('=').unwrap_or(rest).trim_start().starts_with(['\'', '"'])
    };
    let ends = ["CONNECTION", "PASSWORD"];
    let end = ends.iter().filter_map(|word| upper.match_indices(word).map(|(at, _)| at).find(|&at| quoted(word, at))).min();
    statement.get(..end.unwrap_or(statement.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(statement: &str, database: &str) -> Statement {
        let selection = Selection::new(&["school.*".to_owned()], &[]).unwrap();
        classify(statement, database, &selection, Dialect::default())
    }

    fn kind_of(statement: Statement) -> String {
        match statement {
            Statement::Definition(definition) => definition.kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn transaction_control() {
        assert_eq!(say("BEGIN", ""), Statement::Begin);
        assert_eq!(say("COMMIT", "school"), Statement::Commit);
        assert_eq!(say("ROLLBACK", "school"), Statement::Rollback);
        assert_eq!(say("ROLLBACK TO `a b`", "school"), Statement::RollbackTo("a b".into()));
        assert_eq!(say("SAVEPOINT `x`", "school"), Statement::Savepoint("x".into()));
    }

    fn say_without_temporary_names(statement: &str) -> Statement {
        let selection = Selection::new(&["school.*".to_owned()], &["school.tmp_*".to_owned()]).unwrap();
        classify(statement, "school", &selection, Dialect::default())
    }

    #[test]
    fn tables_that_are_left_out_may_change_as_they_like() {
        for statement in [
            "CREATE TABLE tmp_1 (a INT)",
            "CREATE TABLE IF NOT EXISTS `school`.`tmp_1` LIKE school.students",
            "DROP TABLE IF EXISTS `tmp_1`,`other`.`x` /* generated by server */",
            "TRUNCATE tmp_1",
            "TRUNCATE TABLE school.tmp_1",
            "RENAME TABLE tmp_1 TO tmp_2, tmp_3 TO other.t",
            "ALTER TABLE tmp_1 RENAME TO tmp_2",
            "ALTER IGNORE TABLE tmp_1 ADD COLUMN b INT",
            "CREATE UNIQUE INDEX students ON tmp_1 (a)",
            "DROP INDEX i ON other.students",
            "/*!40000 ALTER TABLE `students` DISABLE KEYS */",
            "ALTER TABLE students ENABLE KEYS",
            "CREATE DATABASE IF NOT EXISTS school",
            "CREATE TEMPORARY TABLE students (a INT)",
            "DROP TEMPORARY TABLE IF EXISTS `students` /* generated by server */",
        ] {
            assert_eq!(say_without_temporary_names(statement), Statement::Elsewhere, "{statement}");
        }
    }

    #[test]
    fn one_included_table_is_enough_wherever_it_stands() {
        for (statement, kind) in [
            ("DROP TABLE tmp_1, tmp_2, students", "DROP TABLE"),
            ("RENAME TABLE tmp_1 TO tmp_2, tmp_3 TO students", "RENAME TABLE"),
            ("RENAME TABLE students TO other.kept", "RENAME TABLE"),
            ("ALTER TABLE tmp_1 RENAME students", "ALTER TABLE"),
            ("ALTER TABLE tmp_1 ADD b INT, RENAME AS `students`", "ALTER TABLE"),
            ("ALTER TABLE students DISABLE KEYS, ADD b INT", "ALTER TABLE"),
            ("CREATE INDEX i ON students (a)", "CREATE INDEX"),
            ("CREATE TABLE `new` AS SELECT * FROM tmp_1", "CREATE TABLE"),
            ("DROP DATABASE school", "DROP DATABASE"),
        ] {
            assert_eq!(kind_of(say_without_temporary_names(statement)), kind, "{statement}");
        }
    }

    #[test]
    fn objects_without_rows_are_named_and_stop_nothing() {
        for (statement, kind) in [
            ("CREATE DEFINER=`root`@`%` TRIGGER t BEFORE INSERT ON students FOR EACH ROW SET NEW.a = 1", "CREATE TRIGGER"),
            ("CREATE OR REPLACE ALGORITHM=MERGE VIEW v AS SELECT * FROM students", "CREATE VIEW"),
            ("CREATE OR REPLACE ALGORITHM=UNDEFINED DEFINER=`root`@`127.0.0.1` SQL SECURITY DEFINER VIEW `v` AS SELECT 1", "CREATE VIEW"),
            ("DROP PROCEDURE IF EXISTS school.p", "DROP PROCEDURE"),
            ("ALTER EVENT e DISABLE", "ALTER EVENT"),
        ] {
            assert_eq!(say_without_temporary_names(statement), Statement::Object(kind.to_owned()), "{statement}");
        }
    }

    #[test]
    fn data_by_statement_stops_wherever_it_hides() {
        for statement in [
            "INSERT INTO t VALUES (1)",
            "/* hi */ update t set a=1",
            "/*!50000 DELETE */ FROM t WHERE a = 1",
            "-- c\nREPLACE INTO t VALUES (1)",
            "LOAD DATA INFILE 'x' INTO TABLE t",
            "CALL something()",
        ] {
            assert_eq!(say(statement, "school"), Statement::DataByStatement, "{statement}");
        }
        assert_eq!(say("INSERT INTO school.t VALUES (1)", "other"), Statement::DataByStatement);
        assert_eq!(say("INSERT INTO `school` . `t` SELECT * FROM x", "other"), Statement::DataByStatement);
        assert_eq!(say("UPDATE a, school.t SET a.x = 1", "other"), Statement::DataByStatement);
    }

    #[test]
    fn other_databases_do_not_concern_us() {
        assert_eq!(say("INSERT INTO t VALUES ('school.t')", "other"), Statement::Elsewhere);
        assert_eq!(say("INSERT INTO other.t VALUES (1)", "school"), Statement::Elsewhere);
        assert_eq!(say("ALTER TABLE t ADD x INT", "other"), Statement::Elsewhere);
        assert_eq!(say("DROP DATABASE other", "school"), Statement::Elsewhere);
        assert_eq!(say("CREATE DATABASE IF NOT EXISTS other", "school"), Statement::Elsewhere);
    }

    #[test]
    fn with_everything_included_what_belongs_to_the_server_or_to_us_does_not_concern_us() {
        let everything = Selection::new(&["*.*".to_owned()], &[]).unwrap();
        let say = |statement: &str, database: &str| classify(statement, database, &everything, Dialect::default());
        for statement in [
            "CREATE DATABASE `_dbmove_canary`",
            "DROP DATABASE IF EXISTS `_dbmove_canary`",
            "CREATE TABLE `_dbmove_canary`.`beat` (id INT)",
            "INSERT INTO mysql.servers VALUES (1)",
        ] {
            assert_eq!(say(statement, ""), Statement::Elsewhere, "{statement}");
        }
        // Nothing is in it yet.
        assert_eq!(say("CREATE DATABASE IF NOT EXISTS new", ""), Statement::Elsewhere);
        assert_eq!(say("ALTER DATABASE CHARACTER SET utf8", "school"), not_followed("ALTER DATABASE".into()));
    }

    #[test]
    fn definitions_are_named() {
        let named = |statement: &str| match say(statement, "school") {
            Statement::Definition(definition) => {
                let tables: Vec<&str> = definition.tables.iter().map(|name| name.table.as_str()).collect();
                (definition.kind, definition.followed, definition.effect, tables.join(" "))
            }
            other => panic!("{other:?}"),
        };
        for (statement, kind, followed, effect, tables) in [
            ("ALTER TABLE t ADD x INT", "ALTER TABLE", Followed::Altered, Effect::Changes, "t"),
            ("ALTER TABLE t RENAME TO other.u, ADD x INT", "ALTER TABLE", Followed::Altered, Effect::Changes, "t"),
            ("ALTER TABLE t CONVERT TO CHARACTER SET utf8", "ALTER TABLE", Followed::Altered, Effect::Changes, "t"),
            ("create unique index i on t (a)", "CREATE INDEX", Followed::Altered, Effect::Changes, "t"),
            ("DROP INDEX i ON t", "DROP INDEX", Followed::Altered, Effect::Changes, "t"),
            ("CREATE TABLE IF NOT EXISTS t LIKE u", "CREATE TABLE", Followed::Always, Effect::Creates, "t"),
            ("CREATE TABLE temporary (a INT)", "CREATE TABLE", Followed::Always, Effect::Creates, "temporary"),
            ("CREATE OR REPLACE TABLE t (a INT)", "CREATE TABLE", Followed::Always, Effect::Changes, "t"),
            ("DROP TABLE IF EXISTS `a`,other.b,c WAIT 5 /* generated by server */", "DROP TABLE", Followed::Always, Effect::Drops, "a c"),
            ("RENAME TABLE a TO b, `c` TO school.a;", "RENAME TABLE", Followed::Always, Effect::Changes, "a b c a"),
            // MariaDB's extra words stand where another name could.
            ("RENAME TABLE a WAIT 5 TO b", "RENAME TABLE", Followed::Never, Effect::Changes, ""),
            ("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u", "ALTER TABLE", Followed::Never, Effect::Changes, ""),
            ("ALTER TABLE t IMPORT TABLESPACE", "ALTER TABLE", Followed::Never, Effect::Changes, ""),
            ("ALTER TABLE t CONVERT PARTITION p TO TABLE u", "ALTER TABLE", Followed::Never, Effect::Changes, ""),
            ("DROP DATABASE `school`", "DROP DATABASE", Followed::Never, Effect::Changes, ""),
        ] {
            assert_eq!(named(statement), (kind.to_owned(), followed, effect, tables.to_owned()), "{statement}");
        }
        assert_eq!(
            say("CREATE DEFINER=`a`@`%` TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET @a=1", "school"),
            Statement::Object("CREATE TRIGGER".into())
        );
    }

    #[test]
    fn emptied_tables_are_named() {
        let of = |table: &str| TableName::new("school", table);
        assert_eq!(say("TRUNCATE school.t", "x"), Statement::Truncate(of("t")));
        assert_eq!(say("truncate table `a b`", "school"), Statement::Truncate(of("a b")));
        assert_eq!(say("TRUNCATE event", "school"), Statement::Truncate(of("event")));
        assert_eq!(say("TRUNCATE other.t", "school"), Statement::Elsewhere);
        assert_eq!(say("DELETE FROM `school`.`m` /* generated by server */", "x"), Statement::DeleteAll(of("m")));
        assert_eq!(say("DELETE FROM other.m", "school"), Statement::Elsewhere);
        assert_eq!(say("DELETE FROM m WHERE a = 1", "school"), Statement::DataByStatement);
        assert_eq!(say("DELETE FROM m LIMIT 1", "school"), Statement::DataByStatement);
        assert_eq!(say("DELETE m FROM m JOIN n", "school"), Statement::DataByStatement);
    }

    #[test]
    fn quotes_and_letters_are_the_sessions() {
        let selection = Selection::new(&["school.*".to_owned()], &["school.tmp_*".to_owned()]).unwrap();
        let say = |statement: &str, dialect: Dialect| classify(statement, "school", &selection, dialect);
        let ansi = Dialect { ansi_quotes: true, ..Dialect::default() };
        let lower = Dialect { lower_case_names: true, ..Dialect::default() };
        let no_backslash = Dialect { no_backslash_escapes: true, ..Dialect::default() };
        assert_eq!(kind_of(say("DROP TABLE \"tmp_1\", \"students\"", ansi)), "DROP TABLE");
        assert_eq!(say("DROP TABLE \"tmp_1\"", ansi), Statement::Elsewhere);
        assert_eq!(say("ALTER TABLE \"other\".\"t\" ADD a INT", ansi), Statement::Elsewhere);
        assert_eq!(say("TRUNCATE School.Students", lower), Statement::Truncate(TableName::new("school", "students")));
        assert_eq!(say("DROP TABLE TMP_1", lower), Statement::Elsewhere);
        assert_eq!(kind_of(say("DROP TABLE TMP_1", Dialect::default())), "DROP TABLE");
        // The text ends behind the backslash, and the table stands behind it.
        let hidden = "UPDATE other.t SET a = '\\' , b = (SELECT 1 FROM school.x) WHERE c = ''";
        assert_eq!(say(hidden, no_backslash), Statement::DataByStatement);
    }

    #[test]
    fn no_password_is_shown() {
        for (statement, shown) in [
            ("GRANT SELECT ON s.* TO 'ü'@'%' identified BY 'secret'", "GRANT SELECT ON s.* TO 'ü'@'%' "),
            ("SET PASSWORD FOR 'a'@'b'='*0'", "SET PASSWORD FOR 'a'@'b'"),
            ("CREATE USER a IDENTIFIED WITH p AS 'x'", "CREATE USER a "),
            ("DROP USER a", "DROP USER a"),
        ] {
            assert_eq!(before_the_password(statement), shown);
        }
        for (statement, shown) in [
            ("CREATE TABLE t (ü INT) ENGINE=FEDERATED connection = 'mysql://u:secret@h/d/t'", "CREATE TABLE t (ü INT) ENGINE=FEDERATED "),
            (
                "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD 'secret')",
                "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', ",
            ),
            ("ALTER TABLE connection ADD password INT", "ALTER TABLE connection ADD password INT"),
        ] {
            assert_eq!(before_an_address(statement), shown);
        }
    }

    #[test]
    fn temporary_tables_and_accounts() {
        assert_eq!(say("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `a`", "school"), Statement::Elsewhere);
        assert_eq!(say("CREATE TEMPORARY TABLE a (b INT)", "school"), Statement::Elsewhere);
        assert_eq!(say("GRANT ALL ON school.* TO x", "school"), Statement::Accounts);
        assert_eq!(say("SET PASSWORD FOR 'a'@'b'='*0'", "school"), Statement::Accounts);
    }

    #[test]
    fn unfinished_quotes_and_comments_do_not_hang() {
        for statement in ["INSERT INTO `t", "INSERT INTO t VALUES ('", "/* never closed", "/*!", "'\\"] {
            let _ = say(statement, "school");
        }
    }
}
