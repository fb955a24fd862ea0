//! `assess --try`: the converted schema, created on the rehearsal target and dropped again.
//!
//! The best proof that a schema can be made is making it: every statement that the target refuses or warns of is reported with the
//! server's number and words, tables by the same statements that `mysql.prepare` runs, then views, routines, triggers and events.
//!
//! What has to hold:
//!
//! * *Real names, or nothing.* Views and bodies name databases in full, so a try under other names would prove little. A database of
//!   such a name on the target belongs to somebody: then nothing is tried, and the database is named.
//! * *Only a rehearsal target.* The command binds the rehearsal pair, and binding refuses production's servers under any name.
//! * *Nothing is left behind*, after an error, after Ctrl-C, after `kill -9`: a database is noted in [`notes`] before it is created, and
//!   dropped by whatever comes next: the end of the try, or the beginning of the next one. A try writes no row, so a noted database with
//!   a row in it is somebody else's, and is named instead of dropped.
//! * *Nothing acts.* Events are created disabled, and no row is written that a trigger could see.
//!
//! What was made is noted in [`notes`], on the target.

pub mod notes;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::Finding;
use crate::engine::crash;
use crate::mysql::catalog::ServerFacts;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::ddl::TOLERATED;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::objects::create::{Maker, Zones};
use crate::mysql::objects::read::{Definition, Reader};
use crate::mysql::objects::{AT_THE_SWITCH, BEFORE_THE_ROWS};
use crate::mysql::store::{Described, MysqlStore};
use crate::playbook::model::ObjectsOption;

/// One statement that the target refused, or warned of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// `database`, `table`, `index`, `foreign key`, `view`, `procedure` …
    pub kind: String,
    /// Its full name.
    pub object: String,
    /// The statement.
    pub statement: String,
    /// Refused; a warning otherwise.
    pub refused: bool,
    /// The server's number.
    pub code: u16,
    /// The server's words.
    pub said: String,
    /// Whether dbmove takes this warning as saying nothing of what is made.
    pub tolerated: bool,
    /// The check that knows it, if one found it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<&'static str>,
    /// What that check says to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What trying brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The store.
    pub store: String,
    /// Where it was tried.
    pub target: String,
    /// Databases made and dropped.
    pub databases: usize,
    /// Tables that were to be made.
    pub tables: usize,
    /// Views, routines, triggers and events that were to be made.
    pub objects: usize,
    /// Statements that were run.
    pub statements: usize,
    /// What was refused or warned of.
    pub troubles: Vec<Trouble>,
    /// Databases that an earlier try had left behind, and that were dropped first.
    pub cleaned: Vec<String>,
    /// Why nothing was tried, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_tried: Option<String>,
}

impl Attempt {
    /// How many statements were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.troubles.iter().filter(|trouble| trouble.refused).count()
    }
    /// How many warnings there were that mean something.
    #[must_use]
    pub fn warned(&self) -> usize {
        self.troubles.iter().filter(|trouble| !trouble.refused && !trouble.tolerated).count()
    }
}

/// What the checks call what a server refuses by these numbers.
const KNOWN: [(u16, &[&str]); 14] = [
    (1059, &["name-length", "fk-name-length"]),
    (1064, &["group-by-asc", "removed-functions", "type-syntax", "reserved-words"]),
    (1068, &["nullable-primary-key"]),
    (1071, &["index-too-long", "key-length-767"]),
    (1117, &["row-size"]),
    (1118, &["row-size"]),
    (1166, &["name-length"]),
    (1171, &["nullable-primary-key"]),
    (1231, &["sql-mode-removed"]),
    (1305, &["removed-functions"]),
    (3505, &["enum-element-length"]),
    (3780, &["fk-type-mismatch"]),
    (6123, &["partition-prefix-key"]),
    (6125, &["fk-non-unique-parent"]),
];

/// The finding that explains a refused statement: of this object, or of something in it.
fn known<'a>(findings: &'a [Finding], code: u16, object: &str) -> Option<&'a Finding> {
    let ids = KNOWN.iter().find(|(known, _)| *known == code).map(|(_, ids)| *ids)?;
    let within = format!("{object}.");
    findings.iter().find(|finding| ids.contains(&finding.id) && (finding.object == object || finding.object.starts_with(&within)))
}

/// A try under way.
struct Trying<'a> {
    store: &'a MysqlStore,
    described: &'a Described,
    findings: &'a [Finding],
    attempt: &'a mut Attempt,
}

/// Creates all of it on the target of the (rehearsal) store and drops it again.
///
/// # Errors
/// If a server can't be reached or breaks off. What was made is dropped in any case, now or by the next try.
pub async fn attempt(store: &Arc<MysqlStore>, findings: &[Finding]) -> Result<Attempt> {
    let mut attempt = Attempt { store: store.name.clone(), target: store.target.to_string(), ..Attempt::default() };
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    let described = match begin(store, &mut session, &mut attempt).await {
        Ok(described) => described,
        // Nothing was made: what stands in the way is said, beside what the checks found.
        Err(MysqlError::Object { message, hint }) => {
            session.close().await;
            attempt.not_tried = Some(format!("{message}; {hint}"));
            return Ok(attempt);
        }
        Err(error) => return Err(error),
    };
    let mut trying = Trying { store, described: &described, findings, attempt: &mut attempt };
    let tried = tokio::select! {
        tried = trying.all(&mut session) => tried,
        _ = tokio::signal::ctrl_c() => Err(MysqlError::Cancelled),
    };
    // In any case, and in a session of its own: the other may be gone, or in the middle of a statement.
    drop(session);
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    notes::lock(&mut session).await?;
    let cleaned = notes::clean(&mut session).await;
    session.close().await;
    tried?;
    cleaned?;
    Ok(attempt)
}

/// Drops what an earlier try left, and looks whether the names are free.
async fn begin(store: &Arc<MysqlStore>, session: &mut Session, attempt: &mut Attempt) -> Result<Arc<Described>> {
    notes::lock(session).await?;
    attempt.cleaned = notes::clean(session).await?;
    let described = store.described().await?;
    let names: Vec<&str> = described.schema.databases.iter().map(|database| database.name.as_str()).collect();
    notes::refuse_if_there(session, &names).await?;
    Ok(described)
}

impl Trying<'_> {
    /// The session has the lock, and keeps it for as long as this takes.
    async fn all(&mut self, session: &mut Session) -> Result<()> {
        notes::create(session).await?;
        session.run("SET SESSION foreign_key_checks = 0", "setting up the session").await?;
        let schema = &self.described.schema;
        for database in &schema.databases {
            notes::note(session, &database.name).await?;
            crash::point("try.database.noted");
            // One that appeared in this moment is not ours.
            let create = database.create.replacen(" IF NOT EXISTS", "", 1);
            if !self.run(session, "database", &database.name, &create).await? {
                notes::forget(session, &database.name).await?;
                let said = self.attempt.troubles.pop().map(|trouble| trouble.said).unwrap_or_default();
                return Err(MysqlError::Object {
                    message: format!("the database `{}` could not be made, so its tables could not be tried: {said}", database.name),
                    hint: "what was made for the try is dropped again; give the account CREATE and DROP on it".to_owned(),
                });
            }
            self.attempt.databases += 1;
        }
        for table in &schema.tables {
            let name = table.name.to_string();
            self.attempt.tables += 1;
            if self.run(session, "table", &name, &table.create).await? {
                for statement in &table.indexes {
                    self.run(session, "index", &name, statement).await?;
                }
            }
            crash::point("try.table.made");
        }
        for table in &schema.tables {
            for statement in &table.foreign_keys {
                self.run(session, "foreign key", &table.name.to_string(), statement).await?;
            }
        }
        self.objects().await
    }

    /// Runs a statement; whether it was taken.
    async fn run(&mut self, session: &mut Session, kind: &str, object: &str, statement: &str) -> Result<bool> {
        self.attempt.statements += 1;
        match session.write_unchecked(statement.as_bytes(), &format!("trying {kind} `{object}`")).await {
            Ok(written) => {
                let warnings = if written.warnings > 0 { session.warnings().await? } else { Vec::new() };
                for (code, said) in warnings {
                    self.trouble(kind, object, statement, false, code, said);
                }
                Ok(true)
            }
            Err(error) => {
                self.refused(kind, object, statement, error)?;
                Ok(false)
            }
        }
    }

    /// A view may need another one, or a function: what is refused is tried again for as long as others were taken meanwhile.
    async fn objects(&mut self) -> Result<()> {
        let mut waiting = self.definitions().await?;
        self.attempt.objects = waiting.len();
        let own: BTreeSet<String> = self.described.schema.databases.iter().map(|database| database.name.clone()).collect();
        let zone = |facts: &ServerFacts| {
            if facts.time_zone == "SYSTEM" { facts.system_time_zone.clone() } else { facts.time_zone.clone() }
        };
        let zones = Zones { source: zone(&self.described.source), target: zone(&self.described.target) };
        let mut maker = Maker::open(&self.store.target, own, zones).await?;
        loop {
            let before = waiting.len();
            let mut refused = Vec::new();
            for definition in waiting {
                self.attempt.statements += 1;
                match maker.make(&definition).await {
                    Ok(changes) => self.warned(&definition, &changes),
                    Err(error) if error.code().is_none() || error.transient() => return Err(error),
                    Err(error) => refused.push((definition, error)),
                }
                crash::point("try.object.made");
            }
            if refused.is_empty() || refused.len() == before {
                for (definition, error) in refused {
                    let (kind, name, text) = of(&definition);
                    self.refused(&kind, &name, &text, error)?;
                }
                maker.close().await;
                return Ok(());
            }
            waiting = refused.into_iter().map(|(definition, _)| definition).collect();
        }
    }

    /// What was changed on the way by other rules is `mysql.prepare`'s to tell.
    fn warned(&mut self, definition: &Definition, changes: &[crate::mysql::ddl::RuleFired]) {
        let (kind, name, text) = of(definition);
        for change in changes.iter().filter(|change| matches!(change.rule, "warning" | "event-over")) {
            let (code, said) = change.after.split_once(' ').unwrap_or(("", &change.after));
            self.trouble(&kind, &name, &text, false, code.parse().unwrap_or(0), said.to_owned());
        }
    }

    /// The source's selected objects, in the order in which they are made.
    async fn definitions(&self) -> Result<Vec<Definition>> {
        if self.store.settings.objects == ObjectsOption::Leave {
            return Ok(Vec::new());
        }
        let databases: Vec<String> = self.described.schema.databases.iter().map(|database| database.name.clone()).collect();
        let tables = &self.described.shared.tables;
        let mut reader = Reader::open(&self.store.source).await?;
        let listed = reader.list(&databases, &self.store.selection, |database, table| tables.id(database, table).is_some()).await?;
        let mut definitions = Vec::new();
        for kind in BEFORE_THE_ROWS.iter().chain(&AT_THE_SWITCH) {
            for object in listed.iter().filter(|object| object.kind == *kind) {
                // One that was dropped meanwhile is no part of the schema any more.
                definitions.extend(reader.definition(object).await?);
            }
        }
        reader.close().await;
        Ok(definitions)
    }

    fn refused(&mut self, kind: &str, object: &str, statement: &str, error: MysqlError) -> Result<()> {
        match error.code() {
            Some(code) if !error.transient() => {
                self.trouble(kind, object, statement, true, code, error.to_string());
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn trouble(&mut self, kind: &str, object: &str, statement: &str, refused: bool, code: u16, said: String) {
        let known = if refused { known(self.findings, code, object) } else { None };
        self.attempt.troubles.push(Trouble {
            kind: kind.to_owned(),
            object: object.to_owned(),
            statement: statement.to_owned(),
            refused,
            code,
            said,
            tolerated: !refused && TOLERATED.contains(&code),
            check: known.map(|finding| finding.id),
            fix: known.map(|finding| finding.fix.clone()),
        });
    }
}

/// Kind, name and text of an object, for people.
fn of(definition: &Definition) -> (String, String, String) {
    let object = &definition.object;
    let text = String::from_utf8_lossy(&definition.statement).into_owned();
    (object.kind.to_string(), format!("{}.{}", object.database, object.name), text)
}

#[cfg(test)]
mod tests {
    use super::super::{Evidence, Level};
    use super::*;

    #[test]
    fn a_finding_explains_what_is_of_its_object() {
        let evidence = Evidence { asked: String::new(), returned: String::new() };
        let finding = |id, object: &str| Finding {
            id,
            level: Level::Error,
            object: object.to_owned(),
            found: String::new(),
            evidence: evidence.clone(),
            why: "",
            fix: "shorten it".to_owned(),
            accepted: None,
        };
        let findings = [finding("zerofill", "s.t.z"), finding("enum-element-length", "s.t.e"), finding("row-size", "s.u")];
        assert_eq!(known(&findings, 3505, "s.t").map(|finding| finding.id), Some("enum-element-length"));
        assert_eq!(known(&findings, 1118, "s.u").map(|finding| finding.id), Some("row-size"));
        assert!(known(&findings, 3505, "s.u").is_none() && known(&findings, 1, "s.t").is_none() && known(&findings, 3505, "s.").is_none());
    }
}
