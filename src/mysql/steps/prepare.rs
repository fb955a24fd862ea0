//! `mysql.prepare`: creates databases, tables, views, routines and accounts on the target, and dbmove's own tables.
//!
//! Nothing is begun that can't be ended: text is proven to be such that the target takes it, and every table is tried on the target,
//! before the first one stays. What is going to be created is noted in `_dbmove.created` (objects that are no tables: `_dbmove.created_object`; accounts: `_dbmove.created_account`) before it is,
//! so that undo drops exactly what this run made, and nothing that was there before. Triggers and events are only tried out here;
//! see [`crate::mysql::objects`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{STOP_GRACE, stoppable};
use crate::engine::certificate::fact;
use crate::engine::context::{RunKind, StepContext};
use crate::engine::crash;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::accounts;
use crate::mysql::assess::attempt::notes;
use crate::mysql::bookkeeping;
use crate::mysql::catalog::{Catalog, ObjectKind};
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::conversion;
use crate::mysql::copies::Evidence;
use crate::mysql::ddl::{self, NotCarried};
use crate::mysql::definitions::records;
use crate::mysql::error::MysqlError;
use crate::mysql::objects;
use crate::mysql::objects::bring::{self, Bringing};
use crate::mysql::sql;
use crate::mysql::store::{Described, MysqlStore};
use crate::mysql::table::Table;
use crate::mysql::well_formed;
use crate::playbook::model::{AccountsOption, ObjectsOption};

/// Arguments of `mysql.prepare`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrepareArguments {
    /// Whether all text that the target looks at is read first, to name every value that it would not take (default:
    /// `in_rehearsal`). Where it is not, such a value stops the copy, by name, when it comes to it.
    #[serde(default)]
    pub text: TextArgument,
}

/// Whether text is read before anything is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextArgument {
    /// It is in a rehearsal, where that is no burden to anybody; not on production.
    #[default]
    InRehearsal,
    /// It is.
    Prove,
    /// It is not, but for text that is converted.
    Trust,
}

/// The step.
pub struct Prepare {
    /// The store.
    pub store: Arc<MysqlStore>,
    /// What the playbook says.
    pub arguments: PrepareArguments,
}

impl Prepare {
    /// Whether all text is read first, and not only what is converted.
    fn proves(&self, kind: RunKind) -> bool {
        match self.arguments.text {
            TextArgument::Prove => true,
            TextArgument::InRehearsal => kind == RunKind::Rehearsal,
            TextArgument::Trust => false,
        }
    }

    /// The tables whose text is read first.
    fn looked_through<'a>(&self, described: &'a Described, kind: RunKind) -> impl Iterator<Item = &'a Arc<Table>> {
        let all = self.proves(kind);
        described.catalog.tables.values().filter(move |table| all || described.converted.contains_key(&table.name))
    }

    /// What could not be asked to prove that the servers of a rehearsal are copies.
    fn say_not_asked(context: &StepContext, evidence: &Evidence) -> Result<(), StepError> {
        if evidence.not_asked.is_empty() {
            return Ok(());
        }
        let finding = serde_json::json!({
            "level": "warn",
            "object": "production",
            "found": format!("it could not be asked {}", evidence.not_asked.join("; nor ")),
            "fix": "make sure by yourself that the rehearsal's servers are not production's; their addresses differ",
        });
        context.find("production-not-asked", &finding)
    }

    async fn create(&self, context: &StepContext) -> Result<Output, MysqlError> {
        let described = self.store.described().await?;
        let store = &self.store.name;
        // First of all, as it takes the longest and touches nothing.
        let looked_at: Vec<&Arc<Table>> = self.looked_through(&described, context.kind).collect();
        if !looked_at.is_empty() {
            let mut source = Session::open(&self.store.source, Purpose::Read).await?;
            well_formed::prove(&mut source, looked_at, &described.converted, &described.target.version).await?;
            conversion::prove_keys(&mut source, &described.converted).await?;
            source.close().await;
        }
        let mut target = Session::open(&self.store.target, Purpose::Catalog).await?;
        if context.kind == RunKind::Rehearsal {
            // What an `assess --try` left that was killed: its databases would look like somebody else's.
            notes::clean(&mut target).await?;
        }
        bookkeeping::create(&mut target).await?;
        bookkeeping::claim(&mut target, store, &context.run, context.epoch).await?;
        let mut there = Catalog::read(&mut target, &self.store.selection).await?;
        let ours = bookkeeping::created(&mut target, store).await?;
        if let Some(foreign) = described.catalog.tables.keys().find(|name| there.table(name).is_some() && !ours.contains(name)) {
            return Err(MysqlError::Object {
                message: format!("`{foreign}` is on the target already, and this run did not create it. Nothing was changed"),
                hint: "drop it on the target if it is not needed, or leave it out with `exclude`".to_owned(),
            });
        }
        // What is half there was tried before the crash that left it so.
        if ours.is_empty()
            && let Err(error) = ddl::trial::all(&mut target, &described.schema.tables).await
        {
            if matches!(error, MysqlError::Object { .. }) {
                // The target is as it was; whoever mends the table may begin with a new run.
                bookkeeping::remove(&mut target, store).await?;
            }
            return Err(error);
        }
        target.run("SET SESSION foreign_key_checks = 0", "setting up the session").await?;
        let databases = target.rows("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA", "listing the target's databases").await?;
        for database in &described.schema.databases {
            if !databases.iter().any(|row| row[0].as_deref() == Some(&database.name)) {
                bookkeeping::note_created(&mut target, store, &database.name, "").await?;
                ddl::execute(&mut target, &database.create, &format!("creating database `{}`", database.name)).await?;
            }
        }
        let mut tolerated = Vec::new();
        for table in &described.schema.tables {
            if there.tables.remove(&table.name).is_some() {
                continue;
            }
            if context.cancel.is_cancelled() {
                return Err(MysqlError::Cancelled);
            }
            bookkeeping::note_created(&mut target, store, &table.name.database, &table.name.table).await?;
            crash::point("prepare.table.noted");
            let warnings = ddl::execute(&mut target, &table.create, &format!("creating `{}`", table.name)).await?;
            tolerated.extend(warnings.into_iter().map(|(code, text)| format!("`{}`: {code} {text}", table.name)));
        }
        let made: Vec<_> = described.schema.tables.iter().map(|table| (table.name.clone(), table.definition.clone())).collect();
        records::note_prepared(&mut target, store, &made).await?;
        target.close().await;
        // Before the objects that belong to them.
        let mut moving = accounts::bring::Bringing::open(&self.store, &described, context.epoch).await?;
        moving.create().await?;
        let mut bringing = Bringing::open(&self.store, &described, context.epoch).await?;
        let defaults = bringing.settle_defaults().await?;
        let brought = bringing.bring(&objects::BEFORE_THE_ROWS).await?;
        let tried = bringing.try_out(&objects::AT_THE_SWITCH).await?;
        bringing.close().await;
        let moved = moving.grant().await?;
        let left = match self.store.settings.accounts {
            AccountsOption::Move => moved.left,
            AccountsOption::Leave => accounts::left(&self.store).await?,
        };
        moved.changes.iter().chain(&moved.passwords).for_each(|line| tracing::warn!("{line}"));
        let object_changes: Vec<String> = defaults.into_iter().chain(brought.changes).chain(tried.changes).collect();
        object_changes.iter().for_each(|change| tracing::warn!("{change}"));
        let rules: Vec<String> = described
            .schema
            .tables
            .iter()
            .flat_map(|table| {
                table.rules_fired.iter().map(move |fired| format!("`{}`: {} ({} → {})", table.name, fired.rule, fired.before, fired.after))
            })
            .collect();
        let changed = described.schema.tables.iter().filter(|table| !table.diff.is_empty());
        let diffs: BTreeMap<String, &str> = changed.map(|table| (table.name.to_string(), table.diff.as_str())).collect();
        Ok(Output::default()
            .fact("tables", described.schema.tables.len() as u64)
            .fact("objects", brought.standing)
            .fact("objects_at_the_switch", tried.standing)
            .fact("accounts", moved.standing)
            .fact("accounts_left", serde_json::json!(left))
            .fact("account_changes", serde_json::json!(moved.changes))
            .fact("passwords_needed", serde_json::json!(moved.passwords))
            .fact("object_changes", serde_json::json!(object_changes))
            .fact("objects_not_carried", serde_json::json!(described.schema.not_carried.iter().map(line).collect::<Vec<_>>()))
            .fact(fact::SCHEMA, described.catalog.fingerprint())
            .fact(fact::SCHEMA_PARTS, serde_json::json!(described.catalog.parts()))
            .fact("rules_fired", serde_json::json!(rules))
            .fact("schema_diffs", serde_json::json!(diffs))
            .fact("deprecated_on_target", serde_json::json!(tolerated))
            .fact("source_version", described.source.version.to_string())
            .fact("target_version", described.target.version.to_string()))
    }

    async fn drop_created(&self) -> Result<(), MysqlError> {
        let kinds: Vec<ObjectKind> = objects::BEFORE_THE_ROWS.into_iter().chain(objects::AT_THE_SWITCH).collect();
        bring::drop_noted(&self.store, &kinds).await?;
        let mut target = Session::open(&self.store.target, Purpose::Catalog).await?;
        target.run("SET SESSION foreign_key_checks = 0", "setting up the session").await?;
        let created = bookkeeping::created(&mut target, &self.store.name).await?;
        let (databases, tables): (Vec<_>, Vec<_>) = created.into_iter().partition(|name| name.table.is_empty());
        for table in tables {
            target.run(&format!("DROP TABLE IF EXISTS {}", sql::table(&table)), &format!("dropping `{table}`")).await?;
        }
        for database in databases {
            let name = sql::text(&database.database);
            let left = format!(
                "SELECT (SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {name}) \
                 + (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {name}) \
                 + (SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {name})"
            );
            let left = target.first(&left, "looking what is left").await?.map_or(0, |row| bookkeeping::number(&row, 0));
            if left > 0 {
                // Somebody put something in meanwhile: that is not ours to drop.
                tracing::warn!(database = %database.database, left, "left the database on the target: it holds tables, views, routines or events that this run did not create");
                continue;
            }
            let statement = format!("DROP DATABASE IF EXISTS {}", sql::identifier(&database.database));
            target.run(&statement, &format!("dropping database `{}`", database.database)).await?;
        }
        // Last: until then objects belong to them.
        for kept in accounts::bring::drop_noted(&self.store).await? {
            tracing::warn!("{kept}");
        }
        bookkeeping::remove(&mut target, &self.store.name).await?;
        target.close().await;
        Ok(())
    }
}

fn line(left: &NotCarried) -> String {
    format!("{} `{}` is not carried: {}", left.kind, left.name, left.why)
}

#[async_trait]
impl Step for Prepare {
    fn name(&self) -> &'static str {
        "mysql.prepare"
    }
    fn stops_within(&self) -> Duration {
        STOP_GRACE
    }
    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }
    fn undo_does(&self) -> String {
        format!(
            "drop on the {} every table, view, routine, trigger, event and account that this run created, with the rows, \
             its databases if nothing else is in them, and its part of `_dbmove`",
            self.store.target
        )
    }
    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let described = self.store.described().await?;
        let mut lines = vec![format!("create schema `_dbmove` on the {}", self.store.target)];
        for (name, converted) in &described.converted {
            lines.push(format!("read all text of `{name}` on the source, to prove that it can be converted by `{}`", converted.conversion));
        }
        if self.proves(context.kind) {
            lines.push("read all text on the source whose bytes the target looks at, to prove that it takes them".to_owned());
        }
        for table in &described.schema.tables {
            let rules: Vec<&str> = table.rules_fired.iter().map(|fired| fired.rule).collect();
            let rules = if rules.is_empty() { String::new() } else { format!(" ({})", rules.join(", ")) };
            lines.push(format!("create `{}`{rules}", table.name));
        }
        if self.store.settings.objects == ObjectsOption::Move {
            let others = described.catalog.others.iter().filter(|object| objects::selects(&self.store.selection, object));
            lines.extend(others.filter_map(bring::planned));
        }
        let (created, accounts) = accounts::planned(&self.store).await?;
        lines.extend(created);
        let warnings = described.schema.not_carried.iter().map(line).chain(accounts).collect();
        Ok(Plan { lines, warnings })
    }
    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError> {
        Ok(if self.store.settings.conversions.is_empty() && !self.proves(context.kind) {
            Estimate::Instant
        } else {
            Estimate::Unknown("how fast the source's text is read, to prove that the target takes it".to_owned())
        })
    }
    async fn facts_today(&self, _context: &StepContext) -> Result<Option<BTreeMap<String, serde_json::Value>>, StepError> {
        Ok(Some(self.store.facts_today().await?))
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        if let Some(evidence) = self.store.prove_copies(&context.checkpoints).await? {
            Self::say_not_asked(context, evidence)?;
        }
        let output = stoppable(context, self.create(context)).await?;
        Ok(match self.store.prove_copies(&context.checkpoints).await? {
            Some(evidence) => output.fact("production_not_asked", serde_json::json!(evidence.not_asked)),
            None => output,
        })
    }
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let mut target = Session::open(&self.store.target, Purpose::Catalog).await?;
        let lease = bookkeeping::lease(&mut target, &self.store.name).await?;
        let found = match lease {
            None => Probe::NotStarted,
            Some((run, _)) if *run != *context.run => {
                Probe::Foreign { found: format!("run `{run}` has claimed the {}", self.store.target) }
            }
            Some(_) => {
                let described = self.store.described().await?;
                let there = Catalog::read(&mut target, &self.store.selection).await?;
                let missing = described.catalog.tables.keys().filter(|name| there.table(name).is_none()).count();
                let more = self.store.settings.objects == ObjectsOption::Move || self.store.settings.accounts == AccountsOption::Move;
                match (missing, more) {
                    (0, false) => Probe::Done,
                    // What was tried out has left no trace that could be looked for; all of it is done again in moments.
                    (0, true) => Probe::Partly { from: "tables are there, views, routines and accounts are looked at again".to_owned() },
                    _ => Probe::Partly { from: format!("{missing} tables are not created yet") },
                }
            }
        };
        target.close().await;
        Ok(found)
    }
    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        // A rollback has left it on.
        super::reverse::rollback::restore_target(context, &self.store).await?;
        Ok(self.drop_created().await?)
    }
}
