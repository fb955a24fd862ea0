//! All objects of some kinds: listed on the source, created on the target in an order that works, noted, and dropped again.
//!
//! A view may use another view, or a function. Which, only the servers know; so what the target refuses is tried again as long as
//! a pass over the rest gets at least one further. What is left then is an error that names every object with the server's words.
//!
//! Bringing is done twice: while the schema is prepared, and at the fence, where an object that was created, changed or dropped on the
//! source meanwhile is created, replaced or dropped on the target. The source's definition is told by its hash.

use std::collections::{BTreeMap, BTreeSet};

use super::super::bookkeeping;
use super::super::catalog::{ObjectKind, OtherObject};
use super::super::connect::{Purpose, Session};
use super::super::ddl::RuleFired;
use super::super::error::{MysqlError, Result};
use super::super::store::{Described, MysqlStore};
use super::create::{Maker, Zones};
use super::notes::{self, Noted};
use super::read::{Definition, Reader};
use super::{named, word};
use crate::engine::crash;
use crate::engine::step::Epoch;
use crate::playbook::model::ObjectsOption;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// How many objects stand on the target now, those that did before included.
    pub standing: u64,
    /// How many were created, or created again.
    pub made: u64,
    /// How many were dropped because the source has them no more.
    pub dropped: u64,
    /// What had to be changed, a line each.
    pub changes: Vec<String>,
}

/// Why one object can't be brought.
struct Refusal {
    object: OtherObject,
    error: MysqlError,
}

/// Both servers, ready for it.
pub struct Bringing<'a> {
    store: &'a MysqlStore,
    described: &'a Described,
    epoch: Epoch,
    source: Reader,
    target: Reader,
    maker: Maker,
    notes: Session,
}

impl<'a> Bringing<'a> {
    /// Opens the sessions.
    ///
    /// # Errors
    /// If a server can't be reached.
    pub async fn open(store: &'a MysqlStore, described: &'a Described, epoch: Epoch) -> Result<Bringing<'a>> {
        let mut notes = Session::open(&store.target, Purpose::Catalog).await?;
        let own = bookkeeping::created(&mut notes, &store.name).await?;
        let own: BTreeSet<String> = own.into_iter().filter(|name| name.table.is_empty()).map(|name| name.database).collect();
        let zone = |facts: &super::super::catalog::ServerFacts| {
            let set = &facts.time_zone;
            if set == "SYSTEM" { facts.system_time_zone.clone() } else { set.clone() }
        };
        let zones = Zones { source: zone(&described.source), target: zone(&described.target) };
        Ok(Bringing {
            source: Reader::open(&store.source).await?,
            target: Reader::open(&store.target).await?,
            maker: Maker::open(&store.target, own, zones).await?,
            notes,
            store,
            described,
            epoch,
        })
    }

    fn databases(&self) -> Vec<String> {
        self.described.schema.databases.iter().map(|database| database.name.clone()).collect()
    }

    /// The source's selected objects of these kinds, in the order in which they are made.
    async fn wanted(&mut self, kinds: &[ObjectKind]) -> Result<Vec<OtherObject>> {
        if self.store.settings.objects == ObjectsOption::Leave {
            return Ok(Vec::new());
        }
        let databases = self.databases();
        let tables = &self.described.shared.tables;
        let listed = self.source.list(&databases, &self.store.selection, |database, table| tables.id(database, table).is_some()).await?;
        // By kind in the order given, so that functions are there before the views that call them.
        let of = |kind: &ObjectKind| listed.iter().filter(|object| object.kind == *kind).cloned().collect::<Vec<_>>();
        Ok(kinds.iter().flat_map(of).collect())
    }

    async fn noted(&mut self, kinds: &[ObjectKind]) -> Result<BTreeMap<OtherObject, Noted>> {
        let all = notes::all(&mut self.notes, &self.store.name).await?;
        Ok(all.into_iter().filter(|noted| kinds.contains(&noted.object.kind)).map(|noted| (noted.object.clone(), noted)).collect())
    }

    /// Refuses objects of the target that this run did not make, before anything is created.
    async fn refuse_foreign(&mut self, wanted: &[OtherObject], noted: &BTreeMap<OtherObject, Noted>) -> Result<()> {
        let databases = self.databases();
        let there: BTreeSet<OtherObject> = self.target.list(&databases, &self.store.selection, |_, _| true).await?.into_iter().collect();
        match wanted.iter().find(|object| there.contains(object) && !noted.contains_key(object)) {
            None => Ok(()),
            Some(foreign) => Err(MysqlError::Object {
                message: format!("{} is on the target already, and this run did not create it. It was left as it is", named(foreign)),
                hint: "drop it on the target if it is not needed, or leave it out with `exclude`".to_owned(),
            }),
        }
    }

    /// Puts the databases' default collations right; what stands in the way of that, a line each.
    ///
    /// # Errors
    /// If the target refuses it.
    pub async fn settle_defaults(&mut self) -> Result<Vec<String>> {
        self.maker.settle_defaults(&self.described.catalog.databases).await
    }

    /// Makes the target hold these kinds of objects as the source does.
    ///
    /// # Errors
    /// If one can't be read or created: every such object is named. The others stand.
    pub async fn bring(&mut self, kinds: &[ObjectKind]) -> Result<Brought> {
        let wanted = self.wanted(kinds).await?;
        let mut noted = self.noted(kinds).await?;
        self.refuse_foreign(&wanted, &noted).await?;
        let mut brought = Brought::default();
        let standing: BTreeSet<&OtherObject> = wanted.iter().collect();
        for gone in noted.keys().filter(|object| !standing.contains(object)).cloned().collect::<Vec<_>>() {
            self.maker.drop_object(&gone).await?;
            notes::forget(&mut self.notes, &self.store.name, &gone).await?;
            noted.remove(&gone);
            brought.dropped += 1;
            brought.changes.push(format!("{} is gone on the source, so it was dropped", named(&gone)));
        }
        let mut waiting = Vec::new();
        for object in wanted {
            let Some(definition) = self.source.definition(&object).await? else {
                // Dropped between listing and reading.
                continue;
            };
            match noted.get(&object).filter(|noted| noted.is_whole() && noted.source_hash == definition.hash()) {
                Some(noted) => {
                    brought.standing += 1;
                    brought.changes.extend(noted.changes.iter().cloned());
                }
                None => waiting.push(definition),
            }
        }
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut refused = Vec::new();
            let mut left = Vec::new();
            for definition in waiting {
                match self.make(&definition).await {
                    Ok(changes) => {
                        brought.made += 1;
                        brought.standing += 1;
                        brought.changes.extend(changes);
                    }
                    // The server's own no may be for want of another object.
                    Err(error) if error.code().is_some() && !error.transient() => {
                        refused.push(Refusal { object: definition.object.clone(), error });
                        left.push(definition);
                    }
                    Err(error) => return Err(error),
                }
            }
            if left.len() == before {
                return Err(not_created(&refused));
            }
            waiting = left;
        }
        Ok(brought)
    }

    /// Creates one object, noted before and after; the lines of what was changed.
    async fn make(&mut self, definition: &Definition) -> Result<Vec<String>> {
        let object = &definition.object;
        notes::write(&mut self.notes, &self.store.name, self.epoch, &Noted::begun(object)).await?;
        crash::point("objects.noted");
        self.maker.drop_object(object).await?;
        let mut changes = self.maker.make(definition).await?;
        crash::point("objects.created");
        let made = self.target.definition(object).await?;
        if let Some(made) = &made {
            changes.extend(self.maker.kept(definition, made));
        }
        let changes: Vec<String> = changes.iter().map(|change| line(object, change)).collect();
        let noted = Noted {
            object: object.clone(),
            changes: changes.clone(),
            source_hash: definition.hash(),
            // An event whose time is over is not there: that is its end state.
            target_hash: made.as_ref().map_or_else(|| GONE.to_owned(), Definition::hash),
            to_enable: made.is_some() && Reader::is_enabled(definition),
        };
        notes::write(&mut self.notes, &self.store.name, self.epoch, &noted).await?;
        Ok(changes)
    }

    /// Creates objects of these kinds and drops them at once, so that what the target refuses is known now; the lines of what
    /// will be changed.
    ///
    /// # Errors
    /// If one can't be read or created: every such object is named. Nothing is left.
    pub async fn try_out(&mut self, kinds: &[ObjectKind]) -> Result<Brought> {
        self.drop_noted(kinds).await?;
        let tried = self.bring(kinds).await;
        self.drop_noted(kinds).await?;
        tried
    }

    /// Drops what was noted of these kinds; how many.
    ///
    /// # Errors
    /// If the target refuses it.
    pub async fn drop_noted(&mut self, kinds: &[ObjectKind]) -> Result<u64> {
        let noted = self.noted(kinds).await?;
        for object in noted.keys() {
            self.maker.drop_object(object).await?;
            notes::forget(&mut self.notes, &self.store.name, object).await?;
        }
        Ok(noted.len() as u64)
    }

    /// Closes the sessions.
    pub async fn close(self) {
        self.source.close().await;
        self.target.close().await;
        self.maker.close().await;
        self.notes.close().await;
    }
}

/// What became of events that waited for the switch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enabled {
    /// How many run on the target now.
    pub events: u64,
    /// What there is to say of single ones, and of the server, a line each.
    pub lines: Vec<String>,
}

/// Enables the events that were created disabled. Called when clients are on the target; twice is harmless.
///
/// # Errors
/// If one can't be enabled: each such event is named; the others are.
pub async fn enable_events(store: &MysqlStore, epoch: Epoch) -> Result<Enabled> {
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    let waiting: Vec<Noted> = notes::all(&mut session, &store.name).await?.into_iter().filter(|noted| noted.to_enable).collect();
    let mut enabled = Enabled::default();
    if waiting.is_empty() {
        session.close().await;
        return Ok(enabled);
    }
    let mut reader = Reader::open(&store.target).await?;
    let mut maker = Maker::open(&store.target, BTreeSet::new(), Zones::default()).await?;
    let mut refused = Vec::new();
    for mut noted in waiting {
        let Some(definition) = reader.definition(&noted.object).await? else {
            enabled.lines.push(format!("{} is no longer on the target, so it was not enabled", named(&noted.object)));
            continue;
        };
        match maker.enable(&definition).await {
            Ok(warnings) => enabled.lines.extend(warnings.iter().map(|(code, text)| format!("{}: {code} {text}", named(&noted.object)))),
            Err(error) if error.code().is_some() && !error.transient() => {
                refused.push(format!("  {}: {error}", named(&noted.object)));
                continue;
            }
            Err(error) => return Err(error),
        }
        crash::point("objects.event_enabled");
        enabled.events += 1;
        noted.to_enable = false;
        noted.target_hash = reader.definition(&noted.object).await?.as_ref().map_or_else(|| GONE.to_owned(), Definition::hash);
        notes::write(&mut session, &store.name, epoch, &noted).await?;
    }
    if session.global_variable("event_scheduler").await?.is_some_and(|value| !value.eq_ignore_ascii_case("on")) {
        enabled.lines.push(format!(
            "`event_scheduler` is off on the {}: the {} enabled events run once it is on (RDS: in the parameter group)",
            store.target, enabled.events
        ));
    }
    maker.close().await;
    reader.close().await;
    session.close().await;
    if refused.is_empty() {
        return Ok(enabled);
    }
    Err(MysqlError::Object {
        message: format!("{} events could not be enabled on the target; they stand there disabled:\n{}", refused.len(), refused.join("\n")),
        hint: "`ALTER EVENT … ENABLE` there when the reason is gone, then give the same command again".to_owned(),
    })
}

/// Whether following has ended for good: the triggers and events of the switch are noted on the target.
///
/// # Errors
/// If the target can't be read.
pub async fn is_promoted(store: &MysqlStore) -> Result<bool> {
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    let noted = notes::all(&mut session, &store.name).await?;
    session.close().await;
    Ok(noted.iter().any(|noted| super::AT_THE_SWITCH.contains(&noted.object.kind)))
}

/// The hash of what is not there: an event whose time was over.
pub const GONE: &str = "gone";

/// Drops what the store's run has made of these kinds; how many. The source is not needed.
///
/// # Errors
/// If the target refuses it.
pub async fn drop_noted(store: &MysqlStore, kinds: &[ObjectKind]) -> Result<u64> {
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    let noted = notes::all(&mut session, &store.name).await?;
    let mut maker = Maker::open(&store.target, BTreeSet::new(), Zones::default()).await?;
    let mut dropped = 0;
    for noted in noted.iter().filter(|noted| kinds.contains(&noted.object.kind)) {
        maker.drop_object(&noted.object).await?;
        notes::forget(&mut session, &store.name, &noted.object).await?;
        dropped += 1;
    }
    maker.close().await;
    session.close().await;
    Ok(dropped)
}

/// A change as a line.
fn line(object: &OtherObject, change: &RuleFired) -> String {
    match (change.before.is_empty(), change.after.is_empty()) {
        (true, _) => format!("{}: {}: {}", named(object), change.rule, change.after),
        (false, true) => format!("{}: {}: {} → left out", named(object), change.rule, change.before),
        (false, false) => format!("{}: {}: {} → {}", named(object), change.rule, change.before, change.after),
    }
}

/// Every object that the target refuses, and what to do.
fn not_created(refused: &[Refusal]) -> MysqlError {
    let lines: Vec<String> = refused.iter().map(|refusal| format!("  {}: {}", named(&refusal.object), refusal.error)).collect();
    let excluded: Vec<String> =
        refused.iter().take(3).map(|refusal| format!("\"{}.{}\"", refusal.object.database, refusal.object.name)).collect();
    let functions = refused.iter().any(|refusal| matches!(refusal.error.code(), Some(1418 | 1419)));
    let functions = if functions { "set `log_bin_trust_function_creators` to 1 on the target (RDS: in its parameter group); " } else { "" };
    MysqlError::Object {
        message: format!("{} objects can't be created on the target; the others stand:\n{}", refused.len(), lines.join("\n")),
        hint: format!(
            "{functions}correct them on the source, or leave them out: `exclude: [{}]` (or all of them: `objects: leave`)",
            excluded.join(", ")
        ),
    }
}

/// The plan's line for an object.
#[must_use]
pub fn planned(object: &OtherObject) -> Option<String> {
    word(object.kind).map(|_| match object.kind {
        ObjectKind::Trigger | ObjectKind::Event => format!("try out {}: it is created at the switch", named(object)),
        _ => format!("create {}", named(object)),
    })
}
