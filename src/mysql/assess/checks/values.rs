//! What rows hold: dates that are none, texts in another charset than they claim, children without parents.
//!
//! Each finding says how many values of how many rows, and the query. Unless all rows were asked for (`--deep`, or `rows: all` in the
//! playbook), these are rows on both ends of the table: more may be in between.

use super::super::gather::values::{Answer, Question, SAMPLE};
use super::{Check, Found, Gathered, Level, Part};

/// What can be done about bytes that are no text.
const NOT_TEXT: &str = "correct these values on the source; or make the column VARBINARY or BLOB there, which holds any bytes (and text again only in a charset that they fit); or leave the table out with `exclude`. `dbmove assess PLAYBOOK --deep` looks at all rows, and `mysql.prepare` names them by key";

/// All of them.
pub const CHECKS: &[Check] = &[
    check(
        "zero-dates",
        "A column that holds `0000-00-00`.",
        "dbmove carries it as it is. The target's default `sql_mode` refuses the next such value, and an UPDATE or ALTER that touches an old one.",
        |gathered| {
            let fix = "make it NULL on the source (`UPDATE … SET … = NULL WHERE … = '0000-00-00'`), or leave NO_ZERO_DATE and strict mode out of the target's `sql_mode`";
            answers(gathered, Question::ZeroDate, "`0000-00-00`", fix)
        },
    ),
    check(
        "partial-dates",
        "A column that holds dates without a month or a day.",
        "dbmove carries them as they are. The target's default `sql_mode` (NO_ZERO_IN_DATE) refuses the next such value.",
        |gathered| {
            let fix = "correct them on the source, or leave NO_ZERO_IN_DATE and strict mode out of the target's `sql_mode`";
            answers(gathered, Question::PartialDate, "dates without a month or a day", fix)
        },
    ),
    check(
        "latin1-holds-utf8",
        "A latin1 column whose bytes are UTF-8.",
        "Bytes are carried as they are, and read as before by clients that call themselves latin1. Any conversion, of the column or of a connection, makes two characters of each one, for good.",
        |gathered| {
            let fix = "keep the clients' charset at the switch; to repair it: `ALTER TABLE … MODIFY` the column to BLOB or VARBINARY, then to text in utf8mb4";
            answers(gathered, Question::Latin1HoldsUtf8, "UTF-8", fix)
        },
    ),
    Check {
        level: Level::Error,
        never_accepted: Some("no target takes such bytes as text: the copy would stop at them"),
        ..check(
            "invalid-utf8-bytes",
            "A utf8 column with bytes that are not UTF-8.",
            "Old servers took them from clients and files without looking. The target takes such a value cut, with `?` in it, or not at all, so `mysql.prepare` refuses the table.",
            |gathered| answers(gathered, Question::InvalidUtf8, "bytes that are not UTF-8", NOT_TEXT),
        )
    },
    Check {
        level: Level::Error,
        never_accepted: Some("no MySQL of today takes such bytes as ascii: the copy would stop at them"),
        ..check(
            "ascii-high-bytes",
            "An ascii column with bytes above 127, on the way to MySQL.",
            "Old servers took every byte into an ascii column. MySQL 8 and later refuse these (MariaDB takes them), so `mysql.prepare` refuses the table.",
            |gathered| answers(gathered, Question::NotAscii, "bytes that are not ASCII", NOT_TEXT),
        )
    },
    check(
        "charset-conversion-collides",
        "A unique key with texts that differ now and are equal under the collation of new servers.",
        "dbmove keeps every collation. A later `CONVERT TO CHARACTER SET utf8mb4` takes the target's default, which ignores accents and case, and fails on these rows.",
        |gathered| {
            let fix = "convert with a collation of the same kind (`… COLLATE utf8mb4_bin`, or a language's own), or rename one of each";
            answers(gathered, Question::Collision, "values that are equal to others under `utf8mb4_unicode_ci`", fix)
        },
    ),
    check(
        "fk-orphans",
        "A foreign key with child rows that have no parent.",
        "dbmove carries them and makes the key without checking it. A dump of the target can't be loaded with checks on, and an ALTER that copies the table fails.",
        |gathered| {
            let fix = "delete these rows or give them a parent on the source";
            answers(gathered, Question::Orphan, "rows without a parent", fix)
        },
    ),
];

const fn check(id: &'static str, about: &'static str, why: &'static str, look: fn(&Gathered) -> Vec<Found>) -> Check {
    Check { id, level: Level::Warn, about, why, looks_at: &[Part::Catalog, Part::Rows], never_accepted: None, look }
}

fn answers(gathered: &Gathered, question: Question, what: &str, fix: &str) -> Vec<Found> {
    let answers = gathered.values.answers.iter().filter(|answer| answer.question == question);
    answers.map(|answer| found(gathered, answer, what, fix)).collect()
}

fn found(gathered: &Gathered, answer: &Answer, what: &str, fix: &str) -> Found {
    let among = match answer.question {
        Question::Latin1HoldsUtf8 => "texts that are not ASCII",
        Question::Collision => "groups of equal values",
        _ => "rows",
    };
    let count = match answer.question {
        Question::Collision => format!("{} of {} {among} have several rows: {what}", answer.count, answer.among),
        _ => format!("{} of {} {among} hold {what}", answer.count, answer.among),
    };
    let which = if gathered.values.whole {
        "all rows were looked at".to_owned()
    } else {
        let rows = gathered.catalog.table(&answer.table).map_or(0, |table| table.row_estimate);
        format!("of about {rows} rows, at most {SAMPLE} on each end of the key were looked at")
    };
    let returned = format!("{} of {} ({which}); for example {}", answer.count, answer.among, answer.example);
    Found::new(format!("{}.{}", answer.table, answer.of), count).evidence(&answer.asked, returned).fix(fix)
}
