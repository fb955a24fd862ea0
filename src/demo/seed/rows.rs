//! One row of each of the school's tables as `LOAD DATA` text: the values that break naive tools,
//! each often enough to be in every chunk.
//!
//! Text is given as the bytes that are to be stored: UTF-8 for utf8 columns, cp1252 (which MySQL
//! calls latin1) for latin1 columns.

use super::super::dice::Dice;
use super::{OPENING_BALANCE, SEEDED_REFERENCE, SchoolSize};
use crate::mysql::sql;

/// latin1 names, as stored: é, £, € and ß are one byte each.
const LATIN1_NAMES: [&[u8]; 8] = [
    b"Ann Lee",
    b"Ren\xe9e \xc9luard",
    b"J\xfcrgen Gro\xdf",
    b"Mrs \xa3 Pound",
    b"Mr \x80 Euro",
    b"O'Brien \\ Sons",
    b"Bj\xf6rk",
    b" spaces  ",
];

/// utf8 text: Japanese, accents, what looks like an escape, and what ends lines and fields.
const UTF8_TEXTS: [&str; 10] = [
    "plain words",
    "日本語の自己紹介です。",
    "naïve café, 5 € for £4",
    "tab\there, line\nbreak, return\r\nand \\ backslash \\N \\0",
    "quotes ' \" ` and a nul \0 inside",
    "trailing space ",
    "",
    "Привет, ученики",
    "NULL",
    "ctrl-z \u{1a} and del \u{7f}",
];

/// Doubles that need all their digits, or have an unusual sign or exponent.
const DOUBLES: [f64; 9] = [
    0.1,
    -0.0,
    1.0 / 3.0,
    1.797_693_134_862_315_7e308,
    2.225_073_858_507_201_4e-308,
    5e-324,
    9_007_199_254_740_993.0,
    -1e-7,
    123_456_789.123_456_79,
];

/// Floats likewise, the largest included. They are written as doubles: the shortest text of the
/// largest float, 3.4028235e38, is a little more than it, and the server would clip it with a warning.
const FLOATS: [f32; 6] = [0.1, -0.0, 16_777_217.0, 3.402_823_5e38, 1.175_494_4e-38, -2.718_281_7];

/// The columns of the load, and what is computed from them: BIT columns take bytes, not digits,
/// from a load, so their numbers go through a variable.
pub(super) fn load_clause(table: &str) -> (&'static str, &'static str) {
    match table {
        "accounts" => ("id, owner, balance, changed_at", ""),
        "transfers" => ("id, reference, from_account, to_account, amount, note, created_at", ""),
        "students" => ("id, name, nickname, email, bio, born, joined_at, seen_at", ""),
        "courses" => (
            "id, title, rating, score, price, level, flags, since, @days, @mask, lasts, active",
            "SET days = CAST(@days AS UNSIGNED), mask = CAST(@mask AS UNSIGNED)",
        ),
        "enrolments" => ("course_id, student_id, progress, started_at, ended_on", ""),
        "submissions" => ("id, course_id, student_id, body, attachment, digest, handed_in", ""),
        "grades" => ("id, student_id, course_id, term, grade, weight, remark", ""),
        "page_hits" => ("id, path, agent, hits, hit_at", ""),
        "audit_log" => ("actor, action, detail, cost, at", ""),
        "forums" => ("id, title", ""),
        "posts" => ("id, forum_id, author, body, posted_at", ""),
        "attachments" => ("id, post_id, file_name, content", ""),
        "settings" => ("name, value", ""),
        _ => ("serial, student_id, label, offset_minutes", ""),
    }
}

/// Appends row `number` (from 0) of the table.
pub(super) fn push_row(out: &mut Vec<u8>, table: &str, number: u64, size: &SchoolSize, dice: &mut Dice) {
    let id = number + 1;
    let mut line = Line { out, started: false };
    match table {
        "accounts" => line.number(id).text(dice.pick(&UTF8_TEXTS[..3])).number(OPENING_BALANCE).time(dice),
        "transfers" => {
            let from = dice.id(size.accounts);
            line.number(id)
                .text(&format!("{SEEDED_REFERENCE}0000-4000-8000-{id:012x}"))
                .number(from)
                .number(from % size.accounts + 1)
                .number(dice.id(500))
                .maybe(dice, 2, |line, dice| line.text(dice.pick(&UTF8_TEXTS)))
                .time(dice)
        }
        "students" => line
            .number(id)
            .bytes(dice.pick(&LATIN1_NAMES))
            .maybe(dice, 3, |line, dice| line.bytes(dice.pick(&[b"".as_slice(), b"Z\xe9z\xe9", b"NULL"])))
            .text(&email(id))
            .maybe(dice, 5, |line, dice| line.text(dice.pick(&UTF8_TEXTS)))
            .maybe(dice, 6, Line::date)
            .zero_or_datetime(dice)
            .maybe(dice, 2, Line::time),
        "courses" => line
            .number(id)
            .text(&format!("Course {id} {}", dice.pick(&UTF8_TEXTS)))
            .maybe(dice, 6, |line, dice| line.number(format!("{:e}", f64::from(FLOATS[dice.below(FLOATS.len() as u64) as usize]))))
            .double(dice)
            .number(format!("{}.{:04}", dice.below(10_000), dice.below(10_000)))
            .text(dice.pick(&["beginner", "middle", "advanced", ""]))
            .text(dice.pick(&["", "open", "open,paid", "paid,hidden,online", "open,paid,hidden,online"]))
            // As text, 0 is the year 2000; only 0000 is the zero year.
            .number(if dice.one_in(5) { "0000".to_owned() } else { (1901 + dice.below(255)).to_string() })
            .number(dice.below(128))
            .maybe(dice, 4, |line, dice| line.number(dice.bits()))
            .maybe(dice, 4, |line, dice| line.text(dice.pick(&["00:45:00", "-01:30:00", "838:59:59", "-838:59:59", "12:00:01"])))
            .number(dice.below(2)),
        "enrolments" => {
            // Walks the grid of courses and students so that no pair comes twice.
            let course = number % size.courses;
            let student = (number / size.courses + course * 7) % size.students;
            line.number(course + 1).number(student + 1).number(dice.below(2000) as i64 - 1000).zero_or_datetime(dice).zero_or_date(dice)
        }
        "submissions" => {
            let length = match dice.below(50) {
                0 => dice.below(40 * 1024),
                1..=9 => 0,
                _ => dice.below(1_500),
            };
            line.number(id)
                .number(dice.id(size.courses))
                .number(dice.id(size.students))
                .maybe(dice, 5, |line, dice| line.text(dice.pick(&UTF8_TEXTS)))
                .maybe(dice, 9, |line, dice| line.bytes(&dice.bytes(length as usize)))
                .maybe(dice, 3, |line, dice| line.bytes(&dice.bytes(8)))
                .zero_or_time(dice)
        }
        "grades" => line
            .number(id)
            .number(number % size.students + 1)
            .number(dice.id(size.courses))
            .number(number / size.students + 1)
            .maybe(dice, 7, |line, dice| {
                line.number(format!("{}{}.{:02}", if dice.one_in(9) { "-" } else { "" }, dice.below(999), dice.below(100)))
            })
            .number(format!("{}.{:015}", dice.below(1_000_000_000_000_000), dice.below(1_000_000_000_000_000)))
            .maybe(dice, 2, |line, dice| line.text(dice.pick(&UTF8_TEXTS))),
        "page_hits" => line
            .number(id)
            .text(dice.pick(&["/", "/courses", "/forum?page=2", "/日本"]))
            .maybe(dice, 4, |line, dice| line.bytes(dice.pick(&[b"".as_slice(), b"Mozilla/4.0 (compatible; MSIE 6.0)", b"Lynx \xa9"])))
            .number(dice.below(1 << 32))
            .datetime(dice),
        "audit_log" => line
            // Few actors and few texts: some rows are exact doubles, which a keyless table may hold.
            .number(dice.id(300))
            .text(dice.pick(&["login", "logout", "edit", "grade"]))
            .maybe(dice, 3, |line, dice| line.text(dice.pick(&UTF8_TEXTS)))
            .maybe(dice, 3, Line::double)
            .text(&format!("2013-11-0{} 08:00:00", dice.id(9))),
        "forums" => line.number(id).text(dice.pick(&UTF8_TEXTS)),
        "posts" => line
            .number(id)
            .number(dice.id(size.forums))
            .maybe(dice, 8, |line, dice| line.number(dice.id(size.students)))
            .text(dice.pick(&UTF8_TEXTS))
            .datetime(dice),
        "attachments" => {
            let length = dice.below(600) as usize;
            line.number(id)
                .number(dice.id(size.posts))
                .bytes(dice.pick(&[b"photo.jpg".as_slice(), b"r\xe9sum\xe9.doc", b"a b.txt"]))
                .bytes(&dice.bytes(length))
        }
        "settings" => line.text(&format!("{}.{id}", dice.pick(&["site.Title", "MAIL.host", "forum.café", "日本.設定"]))).maybe(
            dice,
            4,
            |line, dice| line.text(dice.pick(&UTF8_TEXTS)),
        ),
        _ => line
            .number(device_serial(number))
            .maybe(dice, 4, |line, dice| line.number(dice.id(size.students)))
            .text(dice.pick(&["", "tablet", "電子辞書"]))
            .number(dice.below(1680) as i64 - 840),
    };
    out.push(b'\n');
}

/// The e-mail address of a seeded student.
fn email(id: u64) -> String {
    format!("student{id}@school.example")
}

/// Serials of both halves of the unsigned range: even ones count up from 2, odd ones down from 2^64 − 1.
pub(super) fn device_serial(number: u64) -> u64 {
    if number.is_multiple_of(2) { number + 2 } else { u64::MAX - number + 1 }
}

/// The fields of one line.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    started: bool,
}

impl Line<'_> {
    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.separate();
        sql::push_field_bytes(self.out, value);
        self
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    fn number(&mut self, value: impl ToString) -> &mut Self {
        self.bytes(value.to_string().as_bytes())
    }

    fn null(&mut self) -> &mut Self {
        self.separate();
        self.out.extend_from_slice(b"\\N");
        self
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.started, true) {
            self.out.push(b'\t');
        }
    }

    /// NULL once in `times`, else a value.
    fn maybe(&mut self, dice: &mut Dice, times: u64, value: impl for<'s> FnOnce(&'s mut Self, &mut Dice) -> &'s mut Self) -> &mut Self {
        if dice.one_in(times) { self.null() } else { value(self, dice) }
    }

    fn double(&mut self, dice: &mut Dice) -> &mut Self {
        let value = if dice.one_in(2) { DOUBLES[dice.below(DOUBLES.len() as u64) as usize] } else { (dice.unit() - 0.5) * 1e6 };
        self.number(format!("{value:e}"))
    }

    fn date(&mut self, dice: &mut Dice) -> &mut Self {
        let text = format!("{:04}-{:02}-{:02}", 1990 + dice.below(23), dice.id(12), dice.id(28));
        self.text(&text)
    }

    fn datetime(&mut self, dice: &mut Dice) -> &mut Self {
        let text = format!(
            "20{:02}-{:02}-{:02} {:02}:{:02}:{:02}",
            dice.below(14),
            dice.id(12),
            dice.id(28),
            dice.below(24),
            dice.below(60),
            dice.below(60)
        );
        self.text(&text)
    }

    /// A TIMESTAMP: not in the hours that summer time skips, whatever zone reads it.
    fn time(&mut self, dice: &mut Dice) -> &mut Self {
        self.datetime(dice)
    }

    fn zero_or_datetime(&mut self, dice: &mut Dice) -> &mut Self {
        if dice.one_in(4) { self.text("0000-00-00 00:00:00") } else { self.datetime(dice) }
    }

    fn zero_or_time(&mut self, dice: &mut Dice) -> &mut Self {
        self.zero_or_datetime(dice)
    }

    fn zero_or_date(&mut self, dice: &mut Dice) -> &mut Self {
        match dice.below(4) {
            0 => self.text("0000-00-00"),
            // A partial date: the year is known, the day is not.
            1 => self.text("2011-00-00"),
            _ => self.date(dice),
        }
    }
}
