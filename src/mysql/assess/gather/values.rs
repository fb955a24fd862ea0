//! What rows hold that the catalog can't tell: zero dates, bytes in the wrong charset, children without parents.
//!
//! What has to hold:
//!
//! * *Looking never surprises a production server.* Unless all rows are asked for, a table is looked at on both ends of its key, at
//!   most [`SAMPLE`] rows each, without sorting, and a value of more than [`LONGEST`] bytes is passed over. Old rows are at one end of
//!   a growing table and new ones at the other, and that is where the mistakes of old and of new applications are.
//! * *How much was looked at is said* with every finding, and once for all ([`Values::rows`], [`Values::whole`]): a sample that holds
//!   nothing proves nothing.
//! * *Few statements.* Many tables are looked at in one statement ([`TABLES_AT_ONCE`]); the servers judge the values themselves and
//!   send a few numbers back for each table.
//!
//! Whether bytes are valid UTF-8 is asked by converting them to another Unicode charset and back: what is not valid does not return as
//! it was. (5.1 and 5.5 take bytes for UTF-8 without looking at them.) UTF-16 surrogates pass that test on old servers and are looked
//! for by their bytes.

use std::fmt::Write as _;

use super::{Gathered, Part};
use crate::mysql::connect::Session;
use crate::mysql::error::Result;
use crate::mysql::names::TableName;
use crate::mysql::sql;
use crate::mysql::table::{Column, ColumnType, ForeignKey, Index, Table};

/// Rows looked at on each end of a table.
pub const SAMPLE: u64 = 1000;

/// Bytes of the longest text that is looked at in a sample.
pub const LONGEST: u64 = 65_536;

/// Tables in one statement. MyISAM tables can't be written to meanwhile.
const TABLES_AT_ONCE: usize = 25;

/// Bytes of one statement, about: 5.1 takes a mebibyte.
const STATEMENT_BYTES: usize = 256 << 10;

/// Questions to one table at once.
const QUESTIONS_AT_ONCE: usize = 40;

/// Which rows are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    /// None.
    None,
    /// Both ends of every table.
    #[default]
    Sample,
    /// All of them.
    All,
}

/// What is asked of a value, a reference or a unique key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// A date that is `0000-00-00`.
    ZeroDate,
    /// A date without a month or a day.
    PartialDate,
    /// A latin1 text whose bytes are UTF-8.
    Latin1HoldsUtf8,
    /// A utf8 text whose bytes are not.
    InvalidUtf8,
    /// An ascii text with bytes above 127.
    NotAscii,
    /// A child row without its parent.
    Orphan,
    /// Values of a unique key that are equal under the collation of UCA.
    Collision,
}

/// An answer that is not "none".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was asked.
    pub question: Question,
    /// The table, and its column, foreign key or unique key.
    pub table: TableName,
    /// The column or key.
    pub of: String,
    /// How many values it is true of.
    pub count: u64,
    /// Of how many that could have been: rows, or texts that are not ASCII.
    pub among: u64,
    /// One of them: a date, a number, or bytes in hexadecimal.
    pub example: String,
    /// The query, of this question alone.
    pub asked: String,
}

/// All answers.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// What was found.
    pub answers: Vec<Answer>,
    /// How many tables were looked at.
    pub tables: usize,
    /// How many rows of them, each counted once for every group of questions.
    pub rows: u64,
    /// Whether these were all rows.
    pub whole: bool,
    /// Tables that could not be read, and why.
    pub unread: Vec<(TableName, String)>,
}

/// One question to one table: an expression that is NULL where the answer is no, and an example where it is yes.
struct Asked {
    question: Question,
    of: String,
    /// The example, or NULL.
    expression: String,
    /// 1 for a value that could have been meant; nothing for every row.
    among: Option<String>,
}

/// Makes a question to a column of the condition, the example and which values could have been meant.
type Asking<'a> = dyn Fn(Question, &str, &str, Option<String>) -> Asked + 'a;

/// A query about one table that gives back one row: rows, counts and examples.
struct Query {
    table: TableName,
    asked: Vec<Asked>,
    /// The query of its rows, in the pieces between which the expressions stand: a name may hold any mark for a place.
    rows: Vec<String>,
}

impl Gathered {
    /// Looks at the rows of every selected table.
    pub(super) async fn values(&mut self, source: &mut Session, rows: Rows) -> Result<()> {
        if rows == Rows::None {
            self.unread.insert(Part::Rows, "the playbook says `rows: none`".to_owned());
            return Ok(());
        }
        let mut queries = Vec::new();
        for table in self.catalog.tables.values() {
            queries.extend(self.queries(table, rows));
        }
        self.values.whole = rows == Rows::All;
        let mut tables: Vec<&TableName> = queries.iter().map(|query| &query.table).collect();
        tables.dedup();
        self.values.tables = tables.len();
        let at_once = if rows == Rows::All { 1 } else { TABLES_AT_ONCE };
        let mut begin = 0;
        while begin < queries.len() {
            let mut statement = String::new();
            let mut end = begin;
            while end < queries.len() && end - begin < at_once && statement.len() < STATEMENT_BYTES {
                statement.push_str(if end == begin { "" } else { "\nUNION ALL\n" });
                statement.push_str(&queries[end].statement(end));
                end += 1;
            }
            match source.rows(&statement, "looking at rows").await {
                Ok(answers) => answers.iter().for_each(|row| self.take(&queries, row)),
                Err(error) if error.code().is_none() || error.transient() => return Err(error),
                // One of them can't be read (a crashed table, a missing privilege): each alone.
                Err(_) => {
                    for (number, query) in queries.iter().enumerate().take(end).skip(begin) {
                        match source.rows(&query.statement(number), "looking at rows").await {
                            Ok(answers) => answers.iter().for_each(|row| self.take(&queries, row)),
                            Err(error) if error.code().is_none() || error.transient() => return Err(error),
                            Err(error) => self.values.unread.push((query.table.clone(), error.to_string())),
                        }
                    }
                }
            }
            begin = end;
        }
        Ok(())
    }

    /// One row of answers.
    fn take(&mut self, queries: &[Query], row: &[Option<String>]) {
        let text = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
        let Some(query) = text(0).parse::<usize>().ok().and_then(|number| queries.get(number)) else { return };
        let rows: u64 = text(1).parse().unwrap_or(0);
        // Keys are looked at in the same rows once more.
        if query.asked.iter().all(|asked| !matches!(asked.question, Question::Orphan | Question::Collision)) {
            self.values.rows += rows;
        }
        let numbers: Vec<u64> = text(2).split(',').map(|number| number.parse().unwrap_or(0)).collect();
        let examples: Vec<&str> = text(3).split('|').collect();
        for (place, asked) in query.asked.iter().enumerate() {
            let count = numbers.get(place * 2).copied().unwrap_or(0);
            if count > 0 {
                let among = if asked.among.is_some() { numbers.get(place * 2 + 1).copied().unwrap_or(0) } else { rows };
                self.values.answers.push(Answer {
                    question: asked.question,
                    table: query.table.clone(),
                    of: asked.of.clone(),
                    count,
                    among,
                    example: examples.get(place).copied().unwrap_or_default().to_owned(),
                    asked: query.alone(asked),
                });
            }
        }
    }

    /// What is asked of a table: its columns together, each foreign key and unique key alone.
    fn queries(&self, table: &Table, rows: Rows) -> Vec<Query> {
        let mut queries = Vec::new();
        let asked: Vec<Asked> = table.columns.iter().flat_map(|column| self.of_column(column, rows)).collect();
        let mut asked = asked.into_iter().peekable();
        while asked.peek().is_some() {
            let some: Vec<Asked> = asked.by_ref().take(QUESTIONS_AT_ONCE).collect();
            queries.push(Query { table: table.name.clone(), asked: some, rows: ends(table, rows) });
        }
        for key in table.foreign_keys.iter().filter(|key| self.catalog.table(&key.parent).is_some()) {
            queries.extend(orphans(table, key, rows));
        }
        for index in table.indexes.iter().filter(|index| index.unique) {
            queries.extend(self.collisions(table, index, rows));
        }
        queries
    }

    /// utf8mb4 came with 5.5.3.
    fn knows_utf8mb4(&self) -> bool {
        self.source.version.mariadb || self.source.version.mysql_from((5, 5, 3))
    }

    fn of_column(&self, column: &Column, rows: Rows) -> Vec<Asked> {
        let name = sql::identifier(&column.name);
        let ask = |question, condition: &str, example: &str, among| Asked {
            question,
            of: column.name.clone(),
            expression: format!("IF({condition}, {example}, NULL)"),
            among,
        };
        let zero = match column.kind {
            ColumnType::Date => "0000-00-00",
            ColumnType::DateTime(_) | ColumnType::Timestamp(_) => "0000-00-00 00:00:00",
            _ if column.kind.is_text() => return self.of_text(column, &name, rows, &ask),
            _ => return Vec::new(),
        };
        let zero_date = ask(Question::ZeroDate, &format!("{name} = '{zero}'"), &format!("'{zero}'"), None);
        if matches!(column.kind, ColumnType::Timestamp(_)) {
            return vec![zero_date];
        }
        let partial = format!("{name} <> '{zero}' AND (MONTH({name}) = 0 OR DAYOFMONTH({name}) = 0)");
        vec![zero_date, ask(Question::PartialDate, &partial, &format!("CAST({name} AS CHAR)"), None)]
    }

    fn of_text(&self, column: &Column, name: &str, rows: Rows, ask: &Asking<'_>) -> Vec<Asked> {
        let bytes = format!("CAST({name} AS BINARY)");
        let example = format!("HEX(LEFT({bytes}, 24))");
        let short = if rows == Rows::All { String::new() } else { format!("LENGTH({name}) <= {LONGEST} AND ") };
        let (wide, between) = if self.knows_utf8mb4() { ("utf8mb4", "utf32") } else { ("utf8", "ucs2") };
        let returns = |text: &str, charset: &str, between: &str| {
            format!("CAST(CONVERT(CONVERT({text} USING {between}) USING {charset}) AS BINARY) <=> {bytes}")
        };
        match column.charset.as_deref() {
            Some("latin1") => {
                // Every byte above 127 needs two in UTF-8.
                let not_ascii = format!("{short}LENGTH(CONVERT(CONVERT({bytes} USING latin1) USING utf8)) <> LENGTH({name})");
                let holds = format!("{not_ascii} AND {}", returns(&format!("CONVERT({bytes} USING {wide})"), wide, between));
                vec![ask(Question::Latin1HoldsUtf8, &holds, &example, Some(format!("IF({not_ascii}, 1, 0)")))]
            }
            Some(charset @ ("utf8" | "utf8mb3" | "utf8mb4")) => {
                let (charset, between) = if charset == "utf8mb4" { ("utf8mb4", "utf32") } else { ("utf8", "ucs2") };
                let mut invalid = format!("NOT ({})", returns(name, charset, between));
                // MariaDB takes surrogates for characters, as old servers do.
                if !self.target.version.mariadb && !self.source.version.mysql_from((8, 0, 0)) {
                    let surrogate = format!("LOCATE(x'ED', {bytes}) > 0 AND HEX(LEFT({bytes}, 4000)) REGEXP '^(..)*ED[AB]'");
                    invalid = format!("({invalid} OR ({surrogate}))");
                }
                vec![ask(Question::InvalidUtf8, &format!("{name} IS NOT NULL AND {short}{invalid}"), &example, None)]
            }
            Some("ascii") if !self.target.version.mariadb => {
                // As latin1, every byte above 127 needs two in UTF-8.
                let not_ascii =
                    format!("{name} IS NOT NULL AND {short}LENGTH(CONVERT(CONVERT({bytes} USING latin1) USING utf8)) <> LENGTH({name})");
                vec![ask(Question::NotAscii, &not_ascii, &example, None)]
            }
            _ => Vec::new(),
        }
    }

    /// Unique keys with texts: values that another collation takes for equal. The source's closest to that of new servers is
    /// `…_unicode_ci`.
    fn collisions(&self, table: &Table, index: &Index, rows: Rows) -> Option<Query> {
        let alike = ["_unicode_ci", "_0900_ai_ci", "_uca1400_ai_ci"];
        let compared_so = |column: &Column| column.collation.as_deref().is_some_and(|name| alike.iter().any(|end| name.ends_with(end)));
        let charset = if self.knows_utf8mb4() { "utf8mb4" } else { "utf8" };
        let texts = || index.parts.iter().map(|part| &table.columns[part.column]).filter(|column| column.kind.is_text());
        if texts().next().is_none() || texts().all(compared_so) {
            return None;
        }
        let mut columns = Vec::new();
        let mut groups = Vec::new();
        let mut example = None;
        for (place, part) in index.parts.iter().enumerate() {
            let column = &table.columns[part.column];
            let name = sql::identifier(&column.name);
            let value = part.prefix.map_or(name.clone(), |prefix| format!("LEFT({name}, {prefix})"));
            columns.push(format!("{value} AS k{place}"));
            groups.push(if column.kind.is_text() {
                example.get_or_insert(format!("HEX(LEFT(CAST(MAX(k{place}) AS BINARY), 24))"));
                format!("CONVERT(k{place} USING {charset}) COLLATE {charset}_unicode_ci")
            } else {
                format!("k{place}")
            });
        }
        let filled: Vec<String> = (0..groups.len()).map(|place| format!("k{place} IS NOT NULL")).collect();
        let from = ends(table, rows).join(&columns.join(", "));
        let grouped = format!(" FROM ({from}) k WHERE {} GROUP BY {}", filled.join(" AND "), groups.join(", "));
        let expression = format!("IF(COUNT(*) > 1, {}, NULL)", example.unwrap_or_default());
        let asked = vec![Asked { question: Question::Collision, of: index.name.clone(), expression, among: None }];
        Some(Query { table: table.name.clone(), asked, rows: vec!["SELECT ".to_owned(), grouped] })
    }
}

/// Child rows without a parent: rows written with `foreign_key_checks = 0`, or before a crash of an old server.
fn orphans(table: &Table, key: &ForeignKey, rows: Rows) -> Option<Query> {
    let first = table.columns.get(*key.columns.first()?)?;
    let mut columns = Vec::new();
    let mut filled = Vec::new();
    let mut equal = Vec::new();
    for (place, (child, parent)) in key.columns.iter().zip(&key.parent_columns).enumerate() {
        columns.push(format!("{} AS k{place}", sql::identifier(&table.columns[*child].name)));
        filled.push(format!("k{place} IS NOT NULL"));
        equal.push(format!("parent.{} = child.k{place}", sql::identifier(parent)));
    }
    let example = if first.kind.is_text() { "HEX(LEFT(CAST(k0 AS BINARY), 24))" } else { "CAST(k0 AS CHAR)" };
    let parent = format!("SELECT 1 FROM {} parent WHERE {} LIMIT 1", sql::table(&key.parent), equal.join(" AND "));
    let expression = format!("IF({} AND ({parent}) IS NULL, {example}, NULL)", filled.join(" AND "));
    let from = ends(table, rows).join(&columns.join(", "));
    let asked = vec![Asked { question: Question::Orphan, of: key.name.clone(), expression, among: None }];
    Some(Query { table: table.name.clone(), asked, rows: vec!["SELECT ".to_owned(), format!(" FROM ({from}) child")] })
}

/// The rows of a table, as a query in the pieces between which the columns stand: all rows, or those on both ends of its key (a
/// keyless table has one end).
fn ends(table: &Table, rows: Rows) -> Vec<String> {
    let name = sql::table(&table.name);
    let select = "SELECT ".to_owned();
    if rows == Rows::All {
        return vec![select, format!(" FROM {name}")];
    }
    let Some(key) = table.key() else { return vec![select, format!(" FROM {name} LIMIT {SAMPLE}")] };
    let order = |direction: &str| {
        let parts: Vec<String> = key.iter().map(|&column| format!("{}{direction}", sql::identifier(&table.columns[column].name))).collect();
        parts.join(", ")
    };
    // The ends of a small table would be the same rows. The estimate may be wrong: then it is one end, twice as long.
    if table.row_estimate < SAMPLE * 2 {
        return vec![select, format!(" FROM {name} ORDER BY {} LIMIT {}", order(""), SAMPLE * 2)];
    }
    vec![
        "(SELECT ".to_owned(),
        format!(" FROM {name} ORDER BY {} LIMIT {SAMPLE}) UNION ALL (SELECT ", order("")),
        format!(" FROM {name} ORDER BY {} LIMIT {SAMPLE})", order(" DESC")),
    ]
}

impl Query {
    /// The statement, whose first column is this number.
    fn statement(&self, number: usize) -> String {
        let mut columns = String::new();
        let mut counts = Vec::new();
        let mut examples = Vec::new();
        for (place, asked) in self.asked.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            let among = asked.among.as_deref().unwrap_or("1");
            // Writing into a String does not fail.
            let _ = write!(columns, "{separator}{} AS e{place}, {among} AS n{place}", asked.expression);
            counts.push(format!("COUNT(e{place}), COALESCE(SUM(n{place}), 0)"));
            examples.push(format!("COALESCE(MIN(e{place}), '')"));
        }
        let rows = self.rows.join(&columns);
        format!("SELECT {number}, COUNT(*), CONCAT_WS(',', {}), CONCAT_WS('|', {}) FROM ({rows}) s", counts.join(", "), examples.join(", "))
    }

    /// One question alone, as a person would ask it again.
    fn alone(&self, asked: &Asked) -> String {
        let rows = self.rows.join(&format!("{} AS e", asked.expression));
        format!("SELECT COUNT(*), COUNT(e), MIN(e) FROM ({rows}) s")
    }
}
