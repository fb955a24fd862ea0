//! Everything users do besides banking: chosen so that each way a change can look in the row
//! events occurs all the time.
//!
//! Plain inserts, updates and deletes on every table; primary keys that change; unique values that
//! two rows swap inside one transaction; keys that are deleted and come back; deletes that cascade
//! two levels without a trace in the log; rows of a keyless table that have doubles; text keys that
//! change only in case; statements that touch hundreds of rows; MyISAM.

use std::collections::VecDeque;

use mysql_async::prelude::{Queryable, StatementLike};
use mysql_async::{Conn, Params, Value};

use super::dice::Dice;
use super::seed::SchoolSize;

mod action;

pub use action::Action;

/// How many freed keys a writer remembers for reuse.
const FREED_KEPT: usize = 50;

const NAMES: [&str; 6] = ["Renée Éluard", "Jürgen Groß", "Mrs £ Pound", "Mr € Euro", "O'Brien \\ Sons", "Ann\tLee"];
const TEXTS: [&str; 8] = [
    "words",
    "",
    "こんにちは、先生",
    "line\nbreak\r\n and tab\t",
    "back\\slash 'quote\" \0 nul",
    "ends with space ",
    "NULL",
    "ça coûte 5 €",
];
const DOUBLES: [f64; 7] = [-0.0, 0.0, 0.1, 1.0 / 3.0, 1.797_693_134_862_315_7e308, 5e-324, -123_456_789.123_456_79];
const FLOATS: [f32; 5] = [-0.0, 0.1, 16_777_217.0, 3.402_823_5e38, -2.718_281_7];

/// What one writer knows: the ids there are, and the ones it freed.
#[derive(Debug)]
pub(super) struct Habits {
    era: u32,
    number: usize,
    sequence: u64,
    size: SchoolSize,
    freed: VecDeque<u64>,
}

impl Habits {
    /// `era` tells this process' e-mail addresses from those of earlier ones.
    pub(super) fn new(era: u32, number: usize, size: SchoolSize) -> Self {
        Habits { era, number, sequence: 0, size, freed: VecDeque::new() }
    }

    /// Does it; returns how many rows it touched. After an error a transaction may be open.
    pub(super) async fn perform(&mut self, action: Action, conn: &mut Conn, dice: &mut Dice) -> Result<u64, mysql_async::Error> {
        self.sequence += 1;
        match action {
            Action::StudentJoins => self.insert_student(conn, dice, None).await,
            Action::StudentLeaves => self.remove_student(conn, dice).await,
            Action::StudentReturns => self.return_student(conn, dice).await,
            Action::EmailsSwap => self.swap_emails(conn, dice).await,
            Action::EnrolmentMoves => self.move_enrolment(conn, dice).await,
            Action::ForumOpens => self.open_forum(conn, dice).await,
            Action::PostWritten => {
                conn.query_drop("START TRANSACTION").await?;
                let forum = dice.id(self.size.forums);
                self.insert_post(conn, dice, forum).await?;
                commit(conn, 2).await
            }
            Action::SettingRecased | Action::SettingReplaced => self.recase_setting(action, conn, dice).await,
            _ => {
                let (statement, values) = self.statement(action, dice);
                write(conn, statement, values).await
            }
        }
    }

    /// The actions that are one statement.
    fn statement(&self, action: Action, dice: &mut Dice) -> (&'static str, Vec<Value>) {
        let size = &self.size;
        let (course, student) = (dice.id(size.courses), dice.id(size.students));
        match action {
            Action::StudentChanges => (
                "UPDATE students SET bio = ?, nickname = ?, seen_at = NOW() WHERE id = ?",
                vec![text_or_null(dice, &TEXTS), text_or_null(dice, &["", "Zézé", "NULL"]), student.into()],
            ),
            Action::EnrolmentBegins => (
                "INSERT INTO enrolments (course_id, student_id, progress, started_at, ended_on) VALUES (?, ?, ?, ?, ?)",
                vec![
                    course.into(),
                    student.into(),
                    0.into(),
                    "0000-00-00 00:00:00".into(),
                    dice.pick(&["0000-00-00", "2013-06-00", "2014-07-01"]).into(),
                ],
            ),
            Action::EnrolmentEnds => ("DELETE FROM enrolments WHERE student_id = ? ORDER BY course_id LIMIT 1", vec![student.into()]),
            Action::CourseProgresses => ("UPDATE enrolments SET progress = progress + 1 WHERE course_id = ?", vec![course.into()]),
            Action::CourseChanges => (
                "UPDATE courses SET rating = ?, score = ?, price = price + 0.0001, level = ?, flags = ?, since = ?, days = ?, mask = ? WHERE id = ?",
                vec![
                    FLOATS[dice.below(FLOATS.len() as u64) as usize].into(),
                    double(dice),
                    dice.pick(&["beginner", "middle", "advanced", ""]).into(),
                    dice.pick(&["", "open,paid", "hidden", "open,paid,hidden,online"]).into(),
                    (if dice.one_in(4) { 0 } else { 1901 + dice.below(255) }).into(),
                    dice.below(128).into(),
                    (if dice.one_in(4) { Value::NULL } else { dice.bits().into() }),
                    course.into(),
                ],
            ),
            Action::WorkHandedIn => (
                "INSERT INTO submissions (course_id, student_id, body, attachment, digest, handed_in) VALUES (?, ?, ?, ?, ?, NOW())",
                vec![course.into(), student.into(), text_or_null(dice, &TEXTS), blob(dice), dice.bytes(8).into()],
            ),
            Action::WorkRevised => (
                "UPDATE submissions SET attachment = ?, body = ?, handed_in = '0000-00-00 00:00:00' WHERE id = ?",
                vec![blob(dice), text_or_null(dice, &TEXTS), dice.id(size.submissions).into()],
            ),
            Action::WorkWithdrawn => ("DELETE FROM submissions WHERE id = ?", vec![dice.id(size.submissions).into()]),
            Action::GradeGiven => (
                "INSERT INTO grades (student_id, course_id, term, grade, remark) VALUES (?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE grade = VALUES(grade), weight = weight + 0.000000000000001",
                vec![student.into(), course.into(), dice.id(2).into(), decimal(dice), text_or_null(dice, &TEXTS)],
            ),
            Action::GradeCorrected => ("UPDATE grades SET grade = ? WHERE id = ?", vec![decimal(dice), dice.id(size.grades).into()]),
            Action::GradeStruck => ("DELETE FROM grades WHERE id = ?", vec![dice.id(size.grades).into()]),
            Action::PageHit => (
                "INSERT INTO page_hits (path, agent, hits, hit_at) VALUES (?, ?, ?, NOW())",
                vec![dice.pick(&["/", "/courses", "/日本"]).into(), text_or_null(dice, &["Lynx ©", ""]), dice.below(1 << 32).into()],
            ),
            Action::PageCounted => {
                ("UPDATE page_hits SET hits = hits ^ 1, hit_at = NOW() WHERE id = ?", vec![dice.id(size.page_hits).into()])
            }
            Action::PageForgotten => ("DELETE FROM page_hits WHERE id = ?", vec![dice.id(size.page_hits).into()]),
            Action::AuditWritten => (
                "INSERT INTO audit_log (actor, action, detail, cost, at) VALUES (?, ?, NULL, ?, '2013-12-01 09:00:00'), (?, 'login', NULL, NULL, '2013-12-01 09:00:00')",
                vec![dice.id(300).into(), dice.pick(&["login", "edit"]).into(), double(dice), dice.id(300).into()],
            ),
            Action::AuditAmended => (
                "UPDATE audit_log SET detail = ?, cost = ? WHERE actor = ? LIMIT 1",
                vec![text_or_null(dice, &TEXTS), double(dice), dice.id(300).into()],
            ),
            Action::AuditForgotten => ("DELETE FROM audit_log WHERE actor = ? LIMIT 1", vec![dice.id(300).into()]),
            Action::PostMoves => (
                "UPDATE posts SET forum_id = ?, body = ? WHERE id = ?",
                vec![dice.id(size.forums).into(), dice.pick(&TEXTS).into(), dice.id(size.posts).into()],
            ),
            Action::PostRemoved => ("DELETE FROM posts WHERE id = ?", vec![dice.id(size.posts).into()]),
            Action::ForumCloses => ("DELETE FROM forums WHERE id = ?", vec![dice.id(size.forums).into()]),
            Action::DeviceAppears => (
                "INSERT INTO devices (serial, student_id, label, offset_minutes) VALUES (?, ?, ?, ?)",
                vec![dice.bits().into(), student.into(), dice.pick(&TEXTS).into(), (-90).into()],
            ),
            Action::DeviceChanges => (
                "UPDATE devices SET serial = serial ^ ?, label = ? WHERE serial >= ? ORDER BY serial LIMIT 1",
                vec![dice.below(1 << 20).into(), dice.pick(&TEXTS).into(), dice.bits().into()],
            ),
            Action::DeviceVanishes => ("DELETE FROM devices WHERE serial >= ? ORDER BY serial LIMIT 1", vec![dice.bits().into()]),
            // Those of several statements, which `perform` has taken, and the last one.
            Action::StudentJoins
            | Action::StudentLeaves
            | Action::StudentReturns
            | Action::EmailsSwap
            | Action::EnrolmentMoves
            | Action::ForumOpens
            | Action::PostWritten
            | Action::SettingRecased
            | Action::SettingReplaced
            | Action::SettingWritten => (
                "INSERT INTO settings (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)",
                vec![format!("Live.{}", dice.id(100)).into(), text_or_null(dice, &TEXTS)],
            ),
        }
    }

    async fn insert_student(&self, conn: &mut Conn, dice: &mut Dice, id: Option<u64>) -> Result<u64, mysql_async::Error> {
        let email = format!("w{:x}.{}.{}@school.example", self.era, self.number, self.sequence);
        let born = dice.pick(&["1999-02-28", "0000-00-00", "1995-00-00"]);
        write(
            conn,
            "INSERT INTO students (id, name, nickname, email, bio, born, seen_at) VALUES (?, ?, ?, ?, ?, ?, NOW())",
            vec![
                id.map_or(Value::NULL, Value::from),
                dice.pick(&NAMES).into(),
                text_or_null(dice, &["", "Zézé"]),
                email.into(),
                text_or_null(dice, &TEXTS),
                born.into(),
            ],
        )
        .await
    }

    async fn remove_student(&mut self, conn: &mut Conn, dice: &mut Dice) -> Result<u64, mysql_async::Error> {
        let id = dice.id(self.size.students);
        conn.query_drop("START TRANSACTION").await?;
        let gone = write(conn, "DELETE FROM students WHERE id = ?", vec![id.into()]).await?;
        write(conn, "DELETE FROM enrolments WHERE student_id = ?", vec![id.into()]).await?;
        let touched = commit(conn, gone).await?;
        if touched > 0 {
            self.freed.push_back(id);
            self.freed.truncate(FREED_KEPT);
        }
        Ok(touched)
    }

    async fn return_student(&mut self, conn: &mut Conn, dice: &mut Dice) -> Result<u64, mysql_async::Error> {
        if let Some(id) = self.freed.pop_front() {
            return self.insert_student(conn, dice, Some(id)).await;
        }
        let id = dice.id(self.size.students);
        conn.query_drop("START TRANSACTION").await?;
        write(conn, "DELETE FROM students WHERE id = ?", vec![id.into()]).await?;
        let touched = self.insert_student(conn, dice, Some(id)).await?;
        commit(conn, touched).await
    }

    async fn swap_emails(&self, conn: &mut Conn, dice: &mut Dice) -> Result<u64, mysql_async::Error> {
        let (one, other) = (dice.id(self.size.students), dice.id(self.size.students));
        conn.query_drop("START TRANSACTION").await?;
        let found: Vec<(u64, String)> =
            conn.exec("SELECT id, email FROM students WHERE id IN (?, ?) ORDER BY id FOR UPDATE", (one, other)).await?;
        let [(first, first_email), (second, second_email)] = found.as_slice() else {
            return commit(conn, 0).await;
        };
        let change = "UPDATE students SET email = ? WHERE id = ?";
        let meanwhile = format!("swap{:x}.{}.{}@school.example", self.era, self.number, self.sequence);
        write(conn, change, vec![meanwhile.into(), (*first).into()]).await?;
        write(conn, change, vec![first_email.into(), (*second).into()]).await?;
        write(conn, change, vec![second_email.into(), (*first).into()]).await?;
        commit(conn, 2).await
    }

    async fn move_enrolment(&self, conn: &mut Conn, dice: &mut Dice) -> Result<u64, mysql_async::Error> {
        let student = dice.id(self.size.students);
        let course: Option<u64> = conn.exec_first("SELECT course_id FROM enrolments WHERE student_id = ? LIMIT 1", (student,)).await?;
        let Some(course) = course else { return Ok(0) };
        let (to_course, to_student) = (dice.id(self.size.courses), if dice.one_in(2) { student } else { dice.id(self.size.students) });
        write(
            conn,
            "UPDATE enrolments SET course_id = ?, student_id = ?, progress = progress + 1 WHERE course_id = ? AND student_id = ?",
            vec![to_course.into(), to_student.into(), course.into(), student.into()],
        )
        .await
    }

    async fn open_forum(&self, conn: &mut Conn, dice: &mut Dice) -> Result<u64, mysql_async::Error> {
        // Half of them under the number of one that was closed, so that children meet a parent's key again.
        let id = if dice.one_in(2) { Value::from(dice.id(self.size.forums)) } else { Value::NULL };
        conn.query_drop("START TRANSACTION").await?;
        write(conn, "INSERT INTO forums (id, title) VALUES (?, ?)", vec![id, dice.pick(&TEXTS).into()]).await?;
        let forum = conn.last_insert_id().unwrap_or(0);
        for _ in 0..dice.id(6) {
            self.insert_post(conn, dice, forum).await?;
        }
        commit(conn, 1).await
    }

    async fn insert_post(&self, conn: &mut Conn, dice: &mut Dice, forum: u64) -> Result<(), mysql_async::Error> {
        write(
            conn,
            "INSERT INTO posts (forum_id, author, body, posted_at) VALUES (?, ?, ?, NOW())",
            vec![forum.into(), dice.id(self.size.students).into(), dice.pick(&TEXTS).into()],
        )
        .await?;
        let post = conn.last_insert_id().unwrap_or(0);
        for _ in 0..dice.below(3) {
            let content = dice.below(300) as usize;
            write(
                conn,
                "INSERT INTO attachments (post_id, file_name, content) VALUES (?, ?, ?)",
                vec![post.into(), "résumé.doc".into(), dice.bytes(content).into()],
            )
            .await?;
        }
        Ok(())
    }

    async fn recase_setting(&self, action: Action, conn: &mut Conn, dice: &mut Dice) -> Result<u64, mysql_async::Error> {
        conn.query_drop("START TRANSACTION").await?;
        let name: Option<String> = conn
            .exec_first(
                "SELECT name FROM settings WHERE name >= ? ORDER BY name LIMIT 1 FOR UPDATE",
                (dice.pick(&["f", "l", "m", "s", "日"]),),
            )
            .await?;
        let Some(name) = name else { return commit(conn, 0).await };
        let recased = if name.chars().any(char::is_lowercase) { name.to_uppercase() } else { name.to_lowercase() };
        let touched = if action == Action::SettingRecased {
            write(conn, "UPDATE settings SET name = ? WHERE name = ?", vec![recased.into(), name.into()]).await?
        } else {
            write(conn, "DELETE FROM settings WHERE name = ?", vec![name.into()]).await?;
            write(conn, "INSERT INTO settings (name, value) VALUES (?, ?)", vec![recased.into(), text_or_null(dice, &TEXTS)]).await?
        };
        commit(conn, touched).await
    }
}

/// Runs a statement; returns how many rows it touched.
async fn write(conn: &mut Conn, statement: impl StatementLike, values: Vec<Value>) -> Result<u64, mysql_async::Error> {
    let params = if values.is_empty() { Params::Empty } else { Params::Positional(values) };
    conn.exec_drop(statement, params).await?;
    Ok(conn.affected_rows())
}

/// Commits; passes the number of rows on.
async fn commit(conn: &mut Conn, touched: u64) -> Result<u64, mysql_async::Error> {
    conn.query_drop("COMMIT").await?;
    Ok(touched)
}

fn text_or_null(dice: &mut Dice, texts: &[&str]) -> Value {
    if dice.one_in(4) { Value::NULL } else { dice.pick(texts).into() }
}

fn double(dice: &mut Dice) -> Value {
    if dice.one_in(2) { DOUBLES[dice.below(DOUBLES.len() as u64) as usize].into() } else { (dice.unit() * 1e9 - 5e8).into() }
}

fn decimal(dice: &mut Dice) -> Value {
    if dice.one_in(6) { Value::NULL } else { format!("{}.{:02}", dice.below(1998) as i64 - 999, dice.below(100)).into() }
}

/// Mostly small, sometimes up to 40 KB, sometimes NULL or empty.
fn blob(dice: &mut Dice) -> Value {
    let length = match dice.below(10) {
        0 => return Value::NULL,
        1 => 0,
        2 => dice.below(40 * 1024),
        _ => dice.below(2_000),
    };
    dice.bytes(length as usize).into()
}
