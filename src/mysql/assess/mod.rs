//! What stands in the way of a migration: found with evidence, before anything is touched.
//!
//! What has to hold:
//!
//! * *Nothing is changed*, on neither server: settings, catalogs and some rows are read.
//! * *A fixed number of catalog queries per server*, whatever it holds: a 5.1 server opens every table for a catalog query, and 5,000
//!   queries of that kind take hours. The definitions of the tables are read once each, as every step needs them; rows are looked at
//!   in many tables at once ([`gather::values`]), on both ends of each unless all are asked for.
//! * *A finding can be checked*: it says what was asked of the server and what it answered, why that matters, and what to do.
//! * *What was not looked at is said*. A check names the [`Part`]s it looks at; where the server would not show one (a privilege
//!   is missing, the server has no such table), the check is listed in [`Assessment::not_looked_at`] and never passes in silence.
//! * *An error refuses the run*, unless the playbook accepts it by id and with a reason ([`acceptance`]). An error without which no
//!   move is possible (no binary log to follow) can't be accepted.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`gather`] | what is read from the servers, once |
//! | [`checks`] | the checks and their registry: a new one is a file there and its line in the list |
//! | [`attempt`] | the converted schema, created on a rehearsal target and dropped again |
//! | [`acceptance`] | what the playbook accepts, and why |
//! | [`reference`](mod@reference) | `docs/reference/assess.md`, made from the registry |

pub mod acceptance;
pub mod attempt;
pub mod checks;
pub mod gather;
pub mod reference;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::Result;
use super::store::MysqlStore;
use acceptance::{Acceptance, Unused};
use gather::Gathered;
use gather::values::Rows;

/// How to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looking<'a> {
    /// What the playbook accepts.
    pub accept: &'a [Acceptance],
    /// Which rows are looked at.
    pub rows: Rows,
    /// Free bytes of the target's disk, where a person said so.
    pub target_free: Option<u64>,
}

/// Which rows were looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowsLookedAt {
    /// Tables with something to look at.
    pub tables: usize,
    /// Rows.
    pub rows: u64,
    /// All rows, or both ends of each table.
    pub whole: bool,
    /// Tables that could not be read.
    pub unread: Vec<TableUnread>,
}

/// A table whose rows could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableUnread {
    /// The table.
    pub table: String,
    /// Why.
    pub why: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The migration can't work like this, or loses something.
    Error,
    /// It works, with something that has to be looked after.
    Warn,
    /// Good to know.
    Info,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
        })
    }
}

/// What a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The source's settings, and our privileges there.
    SourceSettings,
    /// The target's settings, and our privileges there.
    TargetSettings,
    /// What the target holds already.
    TargetContents,
    /// The source's tables, columns, indexes and foreign keys.
    Catalog,
    /// What the target would get: the definitions, converted.
    Schema,
    /// File formats, sizes of indexes and partitions of the source's tables.
    Details,
    /// What the source's rows hold.
    Rows,
    /// The source's table of routines: `mysql.proc`.
    Routines,
    /// Transactions that are open on the source.
    Transactions,
    /// What the source logged while it was looked at.
    Log,
    /// Room on the target's disk.
    TargetDisk,
    /// Defaults of columns, as the source's `information_schema.COLUMNS` has them.
    Defaults,
    /// Bodies of views, routines, triggers and events.
    Bodies,
    /// The source's accounts: `mysql.user`.
    Accounts,
    /// What becomes of the source's accounts.
    Fates,
    /// The source's sessions.
    Sessions,
}

impl Part {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Part::SourceSettings => "the source's settings and our privileges there",
            Part::TargetSettings => "the target's settings and our privileges there",
            Part::TargetContents => "what the target holds already",
            Part::Catalog => "tables, columns, indexes and foreign keys of the source",
            Part::Schema => "the definitions as the target would get them",
            Part::Details => "file formats, sizes of indexes and partitions of the source's tables",
            Part::Rows => "rows of the source, on both ends of each table, or all of them",
            Part::Routines => "routines in the source's `mysql.proc`",
            Part::Transactions => "transactions that are open on the source",
            Part::Log => "what the source logs while it is looked at",
            Part::TargetDisk => "room on the target's disk",
            Part::Defaults => "defaults of columns",
            Part::Bodies => "bodies of views, routines, triggers and events",
            Part::Accounts => "accounts of the source",
            Part::Fates => "accounts and grants of both servers",
            Part::Sessions => "sessions of the source",
        }
    }
}

/// One check. Its file holds this and a function that finds.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its id: stable, for programs and for acceptance.
    pub id: &'static str,
    /// How bad what it finds is.
    pub level: Level,
    /// What it looks for, in one sentence.
    pub about: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// What it looks at.
    pub looks_at: &'static [Part],
    /// Why what it finds can't be accepted; `None` if it can.
    pub never_accepted: Option<&'static str>,
    /// Finds.
    pub look: fn(&Gathered) -> Vec<Found>,
}

/// What was asked and what came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The query, or the place in the catalog.
    pub asked: String,
    /// What it returned.
    pub returned: String,
}

/// What a check hands in; id, level and why are the check's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The setting, account, table or column.
    pub object: String,
    /// What was found, in words.
    pub found: String,
    /// How that can be checked.
    pub evidence: Evidence,
    /// What to do: SQL or a setting.
    pub fix: String,
}

impl Found {
    /// About an object, in words.
    pub fn new(object: impl Into<String>, found: impl Into<String>) -> Found {
        let evidence = Evidence { asked: String::new(), returned: String::new() };
        Found { object: object.into(), found: found.into(), evidence, fix: String::new() }
    }
    /// What was asked, and what it returned.
    #[must_use]
    pub fn evidence(mut self, asked: impl Into<String>, returned: impl Into<String>) -> Found {
        self.evidence = Evidence { asked: asked.into(), returned: returned.into() };
        self
    }
    /// What to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Found {
        self.fix = fix.into();
        self
    }
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub id: &'static str,
    /// How bad.
    pub level: Level,
    /// The setting, account, table or column.
    pub object: String,
    /// What was found.
    pub found: String,
    /// What was asked and what came back.
    pub evidence: Evidence,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: String,
    /// The reason the playbook gives for accepting it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
}

impl Finding {
    /// Whether it is of this level and not accepted.
    #[must_use]
    pub fn stands(&self, level: Level) -> bool {
        self.level == level && self.accepted.is_none()
    }
}

/// A check that could not look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotLookedAt {
    /// The check.
    pub id: &'static str,
    /// What it needed.
    pub part: Part,
    /// Why that could not be read.
    pub why: String,
}

/// All that was found on one store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assessment {
    /// The store's name.
    pub store: String,
    /// The source and its version.
    pub source: String,
    /// The target and its version.
    pub target: String,
    /// How many tables move.
    pub tables: usize,
    /// How many checks looked.
    pub checks: usize,
    /// The worst first, then by id and object.
    pub findings: Vec<Finding>,
    /// Which rows were looked at.
    pub rows: RowsLookedAt,
    /// The checks that could not look.
    pub not_looked_at: Vec<NotLookedAt>,
    /// What the playbook accepts and nobody found.
    pub unused_acceptances: Vec<Unused>,
}

impl Assessment {
    /// How many findings of a level stand.
    #[must_use]
    pub fn standing(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.stands(level)).count()
    }
}

/// Looks at one store for a run (none: nobody's). Changes nothing.
///
/// # Errors
/// If a server can't be reached or read, or nothing of the source is selected.
pub async fn assess(store: &Arc<MysqlStore>, run: Option<&str>, looking: &Looking<'_>) -> Result<Assessment> {
    let gathered = Gathered::read(store, run, looking).await?;
    let (mut findings, mut not_looked_at) = (Vec::new(), Vec::new());
    let mut looked = 0;
    for check in checks::all() {
        if let Some((part, why)) = check.looks_at.iter().find_map(|part| gathered.unread.get(part).map(|why| (*part, why.clone()))) {
            not_looked_at.push(NotLookedAt { id: check.id, part, why });
            continue;
        }
        looked += 1;
        findings.extend((check.look)(&gathered).into_iter().map(|found| Finding {
            id: check.id,
            level: check.level,
            object: found.object,
            found: found.found,
            evidence: found.evidence,
            why: check.why,
            fix: found.fix,
            accepted: None,
        }));
    }
    let unused_acceptances = acceptance::apply(looking.accept, &mut findings);
    // Of one level the order stays the registry's: what everything else hangs on is first.
    findings.sort_by_key(|finding| finding.level);
    Ok(Assessment {
        store: store.name.clone(),
        source: format!("{}, {}", store.source, gathered.source.version),
        target: format!("{}, {}", store.target, gathered.target.version),
        tables: gathered.catalog.tables.len(),
        checks: looked,
        findings,
        rows: RowsLookedAt {
            tables: gathered.values.tables,
            rows: gathered.values.rows,
            whole: gathered.values.whole,
            unread: gathered.values.unread.iter().map(|(table, why)| TableUnread { table: table.to_string(), why: why.clone() }).collect(),
        },
        not_looked_at,
        unused_acceptances,
    })
}
