//! What views, routines, triggers and events say that later servers don't understand.
//!
//! A body is cut into words outside of quotes and comments, so that a text which speaks of `PASSWORD(` is no finding.

use super::super::gather::Body;
use super::{Check, Found, Gathered, Level, Part};
use crate::mysql::objects::create::MODES_WITHOUT_MEANING;

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "removed-functions",
        level: Level::Error,
        about: "A body that calls a function which the target does not have.",
        why: "It fails when it is created or first used.",
        looks_at: &[Part::Bodies, Part::TargetSettings],
        never_accepted: None,
        look: removed_functions,
    },
    Check {
        id: "sql-mode-removed",
        level: Level::Error,
        about: "A routine, trigger or event made under an `sql_mode` that the target does not have.",
        why: "Creating it under its own `sql_mode` fails; without it, it may behave otherwise.",
        looks_at: &[Part::Bodies, Part::TargetSettings],
        never_accepted: None,
        look: sql_mode_removed,
    },
    Check {
        id: "type-syntax",
        level: Level::Error,
        about: "A body that names an engine by `TYPE =`.",
        why: "MySQL 5.5 dropped the word for `ENGINE =`; a routine of before still has it, and fails when it is created or run.",
        looks_at: &[Part::Bodies],
        never_accepted: None,
        look: |gathered| {
            let old = gathered.bodies.iter().filter(|body| names_engine_by_type(&body.text));
            old.map(|body| found(body, "it says TYPE = … for an engine", "TYPE =", "create it again with ENGINE = in place of TYPE ="))
                .collect()
        },
    },
    Check {
        id: "orphan-routines",
        level: Level::Warn,
        about: "A routine whose database is gone.",
        why: "It can't be called and is not carried. An upgrade of the server in place would fail at it.",
        looks_at: &[Part::Routines],
        never_accepted: None,
        look: |gathered| {
            let orphans = gathered.orphans.iter();
            orphans
                .map(|(database, name)| {
                    Found::new(format!("{database}.{name}"), format!("there is no database `{database}`"))
                        .evidence("SELECT db, name FROM mysql.proc; information_schema.SCHEMATA", format!("{database}, {name}"))
                        .fix("nothing for this move; `DELETE FROM mysql.proc WHERE db = …` removes what is left of it")
                })
                .collect()
        },
    },
    Check {
        id: "group-by-asc",
        level: Level::Error,
        about: "A body with `GROUP BY … ASC` or `DESC`.",
        why: "MySQL 8.0.13 and later refuse it.",
        looks_at: &[Part::Bodies, Part::TargetSettings],
        never_accepted: None,
        look: group_by_asc,
    },
    Check {
        id: "sql-calc-found-rows",
        level: Level::Info,
        about: "A body with `SQL_CALC_FOUND_ROWS`.",
        why: "It is deprecated since 8.0.17 and slower than a second query.",
        looks_at: &[Part::Bodies],
        never_accepted: None,
        look: |gathered| {
            let calls = |body: &&Body| words(&body.text).iter().any(|word| word.text.eq_ignore_ascii_case("SQL_CALC_FOUND_ROWS"));
            let bodies = gathered.bodies.iter().filter(calls);
            bodies.map(|body| found(body, "it uses SQL_CALC_FOUND_ROWS", "SQL_CALC_FOUND_ROWS", "ask with a COUNT(*) of its own")).collect()
        },
    },
    Check {
        id: "events-enabled",
        level: Level::Info,
        about: "Scheduled events while the event scheduler is on.",
        why: "They must not run on both servers at the switch.",
        looks_at: &[Part::Bodies, Part::SourceSettings],
        never_accepted: None,
        look: |gathered| {
            let events = gathered.bodies.iter().filter(|body| body.kind == "event" && gathered.source.event_scheduler);
            events
                .map(|body| {
                    found(body, "it is an event, and `event_scheduler` is on", "ON", "nothing: `mysql.fence` turns the scheduler off here, `mysql.disconnect` enables the event on the target; there `event_scheduler` has to be on")
                })
                .collect()
        },
    },
    Check {
        id: "triggers",
        level: Level::Info,
        about: "A trigger.",
        why: "What a trigger writes is in the binary log already: on the target it must not exist before the switch.",
        looks_at: &[Part::Bodies],
        never_accepted: None,
        look: |gathered| {
            let triggers = gathered.bodies.iter().filter(|body| body.kind == "trigger");
            triggers
                .map(|body| {
                    found(
                        body,
                        "it is a trigger",
                        &body.name,
                        "nothing: `mysql.promote` creates it on the target, when following has ended",
                    )
                })
                .collect()
        },
    },
];

fn found(body: &Body, what: &str, returned: &str, fix: &str) -> Found {
    Found::new(&body.name, format!("{}: {what}", body.kind)).evidence(body.place, returned).fix(fix)
}

/// Gone in MySQL 8.0 (the first eight in 8.0.3 or 8.0.11); MariaDB keeps them.
const REMOVED: [&str; 26] = [
    "PASSWORD",
    "ENCODE",
    "DECODE",
    "ENCRYPT",
    "DES_ENCRYPT",
    "DES_DECRYPT",
    "JSON_APPEND",
    "GLENGTH",
    "AREA",
    "ASBINARY",
    "ASTEXT",
    "ASWKB",
    "ASWKT",
    "CENTROID",
    "CROSSES",
    "DISTANCE",
    "GEOMFROMTEXT",
    "GEOMFROMWKB",
    "LINEFROMTEXT",
    "NUMGEOMETRIES",
    "NUMPOINTS",
    "POINTFROMTEXT",
    "POINTN",
    "POLYFROMTEXT",
    "POLYGONFROMTEXT",
    "STARTPOINT",
];

fn removed_functions(gathered: &Gathered) -> Vec<Found> {
    if !gathered.target.version.mysql_from((8, 0, 0)) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for body in &gathered.bodies {
        for name in removed_calls(&body.text) {
            let fix = "rewrite it: SHA2 for passwords, AES_ENCRYPT for secrets, the ST_ names for geometry";
            all.push(found(body, &format!("it calls {name}(), which {} does not have", gathered.target.version), &format!("{name}("), fix));
        }
    }
    all
}

/// Functions the text calls that are gone, each once.
fn removed_calls(text: &str) -> Vec<&'static str> {
    let words = words(text);
    REMOVED.into_iter().filter(|name| words.iter().any(|word| word.call && word.text.eq_ignore_ascii_case(name))).collect()
}

fn sql_mode_removed(gathered: &Gathered) -> Vec<Found> {
    if !gathered.target.version.mysql_from((8, 0, 0)) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for body in &gathered.bodies {
        let gone: Vec<&str> = body.sql_mode.split(',').filter(|mode| MODES_WITHOUT_MEANING.contains(mode)).collect();
        if !gone.is_empty() {
            let what = format!("it was made under {}, which the target refuses", gone.join(", "));
            all.push(found(body, &what, &body.sql_mode, "create it again under an `sql_mode` without it, if it means the same there"));
        }
    }
    all
}

fn group_by_asc(gathered: &Gathered) -> Vec<Found> {
    if !gathered.target.version.mysql_from((8, 0, 13)) {
        return Vec::new();
    }
    let sorted = gathered.bodies.iter().filter(|body| groups_in_order(&body.text));
    sorted.map(|body| found(body, "it says GROUP BY … ASC or DESC", "GROUP BY … ASC|DESC", "move the order into an ORDER BY")).collect()
}

/// Whether a `GROUP BY` has an ASC or DESC before what ends it. A `)` of a deeper level (a call) ends nothing, one of its own level does.
fn groups_in_order(text: &str) -> bool {
    let words = words(text);
    (1..words.len()).filter(|&at| words[at].is("BY") && words[at - 1].is("GROUP")).any(|at| {
        let depth = words[at].depth;
        let clause = words[at + 1..].iter().take_while(|word| word.depth >= depth && !(word.depth == depth && word.ends_group()));
        clause.filter(|word| word.depth == depth).any(|word| word.is("ASC") || word.is("DESC"))
    })
}

/// Engines that were named by `TYPE =`.
const ENGINES: [&str; 13] =
    ["MYISAM", "INNODB", "INNOBASE", "HEAP", "MEMORY", "MERGE", "MRG_MYISAM", "BDB", "BERKELEYDB", "ISAM", "ARCHIVE", "CSV", "NDBCLUSTER"];

/// Whether a text says `TYPE = MyISAM`. A column of that name is compared with values and columns, not with engines.
fn names_engine_by_type(text: &str) -> bool {
    let words = words(text);
    let defines = |place: usize| {
        let statement = words[..place].iter().rposition(|word| word.text == ";" || word.is("BEGIN")).map_or(0, |end| end + 1);
        words[statement..place].iter().any(|word| word.is("CREATE") || word.is("ALTER"))
    };
    words
        .windows(2)
        .enumerate()
        .any(|(place, pair)| pair[0].is("TYPE") && pair[0].equals && ENGINES.iter().any(|engine| pair[1].is(engine)) && defines(place))
}

/// A word outside of quotes and comments.
struct Word {
    text: String,
    /// An opening parenthesis follows.
    call: bool,
    /// A `=` follows.
    equals: bool,
    /// How many parentheses are open.
    depth: i32,
}

impl Word {
    fn is(&self, text: &str) -> bool {
        self.text.eq_ignore_ascii_case(text)
    }
    fn ends_group(&self) -> bool {
        self.text == ";" || ["HAVING", "ORDER", "LIMIT", "UNION", "PROCEDURE", "INTO", "FOR", "WITH"].iter().any(|word| self.is(word))
    }
}

/// Words in order; quoted texts, quoted names and comments are left out.
fn words(text: &str) -> Vec<Word> {
    let (mut words, mut depth) = (Vec::<Word>::new(), 0);
    let characters: Vec<char> = text.chars().collect();
    let at = |place: usize| characters.get(place).copied();
    let mut place = 0;
    while let Some(character) = at(place) {
        match character {
            '\'' | '"' | '`' => {
                place += 1;
                while let Some(inner) = at(place) {
                    if inner == '\\' && character != '`' {
                        place += 1;
                    } else if inner == character {
                        break;
                    }
                    place += 1;
                }
                place += 1;
            }
            '/' if at(place + 1) == Some('*') => {
                place += 2;
                while at(place).is_some() && !(at(place) == Some('*') && at(place + 1) == Some('/')) {
                    place += 1;
                }
                place += 2;
            }
            '#' | '-' if character == '#' || (at(place + 1) == Some('-') && at(place + 2).is_none_or(char::is_whitespace)) => {
                while at(place).is_some_and(|inner| inner != '\n') {
                    place += 1;
                }
            }
            '(' => {
                depth += 1;
                place += 1;
            }
            ')' => {
                depth -= 1;
                place += 1;
            }
            ';' => {
                words.push(Word { text: ";".to_owned(), call: false, equals: false, depth });
                place += 1;
            }
            _ if character.is_alphanumeric() || character == '_' || character == '$' || character == '@' => {
                let from = place;
                while at(place).is_some_and(|inner| inner.is_alphanumeric() || matches!(inner, '_' | '$' | '@')) {
                    place += 1;
                }
                let mut after = place;
                while at(after).is_some_and(char::is_whitespace) {
                    after += 1;
                }
                // `a.password (…)` is a routine of the user's own.
                let own = from > 0 && at(from - 1) == Some('.');
                let call = at(after) == Some('(') && !own;
                words.push(Word { text: characters[from..place].iter().collect(), call, equals: at(after) == Some('='), depth });
            }
            _ => place += 1,
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_outside_of_quotes_and_comments_count() {
        assert_eq!(removed_calls("SELECT password('x'), Encode (a, 'b')"), ["PASSWORD", "ENCODE"]);
        for text in [
            "SELECT 'password(1)', `password`, password FROM t",
            "-- password(1)\nSELECT 1 /* encode(2) */ # decode(3)",
            "SELECT my.password(1)",
        ] {
            assert!(removed_calls(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn only_an_engine_is_named_by_type() {
        assert!(names_engine_by_type("begin create temporary table x (a int) type=myisam; end"));
        assert!(names_engine_by_type("CREATE TABLE x (a INT) TYPE = HEAP"));
        for text in ["select 1 from t where type = 'myisam'", "update t set type = memory", "create table x (a int) engine=myisam"] {
            assert!(!names_engine_by_type(text), "{text}");
        }
    }

    #[test]
    fn only_an_order_of_the_group_itself_counts() {
        assert!(groups_in_order("select a from t group by a desc"));
        assert!(groups_in_order("select a from t group by left(a, 2) asc, b order by a"));
        for text in [
            "select a from t group by a order by a desc",
            "select (select b from u group by b) x from t order by a desc",
            "select a from t group by a; select b from t order by b desc",
        ] {
            assert!(!groups_in_order(text), "{text}");
        }
    }
}
