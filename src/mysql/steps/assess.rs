//! `mysql.assess`: looks whether this migration can work. Touches nothing.
//!
//! Every finding has an id, a level, the object, what was found and what to do. An error refuses the
//! run before anything is changed (exit code 4); warnings are shown and kept in the report.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::context::StepContext;
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::bookkeeping;
use crate::mysql::catalog::{Catalog, ServerFacts};
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::names::DBMOVE_SCHEMA;
use crate::mysql::sql;
use crate::mysql::store::{Described, MysqlStore};
use crate::mysql::table::ColumnType;

/// Arguments of `mysql.assess`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssessArguments {}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The migration can't work like this.
    Error,
    /// It works, with something a person should know.
    Warn,
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check.
    pub id: &'static str,
    /// How bad.
    pub level: Level,
    /// The setting, account or table.
    pub object: String,
    /// What was found.
    pub found: String,
    /// What to do.
    pub fix: String,
}

/// The step.
pub struct Assess {
    /// The store.
    pub store: Arc<MysqlStore>,
}

impl Assess {
    async fn findings(&self, run: &str) -> Result<Vec<Finding>, StepError> {
        let mut source = Session::open(&self.store.source, Purpose::Catalog).await?;
        let facts = ServerFacts::read(&mut source).await?;
        source.close().await;
        let mut findings = Vec::new();
        log_settings(&facts, &mut findings);
        source_privileges(&facts, &mut findings);
        // Settings first: without them what follows may not even be readable.
        let described = self.store.described().await?;
        included(&self.store, &described, &mut findings);
        tables(&described, &mut findings);
        self.target(&described, run, &mut findings).await?;
        Ok(findings)
    }

    async fn target(&self, described: &Described, run: &str, findings: &mut Vec<Finding>) -> Result<(), StepError> {
        let mut target = Session::open(&self.store.target, Purpose::Catalog).await?;
        let lease = bookkeeping::lease(&mut target, &self.store.name).await?;
        let ours = lease.as_ref().is_some_and(|(holder, _)| holder == run);
        if let Some((holder, _)) = lease.filter(|_| !ours) {
            findings.push(Finding {
                id: "target-claimed",
                level: Level::Error,
                object: self.store.target.to_string(),
                found: format!("run `{holder}` has claimed this target (`_dbmove.lease`)"),
                fix: "finish or undo that run; if it is given up, drop the schema `_dbmove` and what it created on the target".to_owned(),
            });
        }
        if !ours {
            let there = Catalog::read(&mut target, &self.store.selection).await?;
            for name in described.catalog.tables.keys().filter(|name| there.table(name).is_some()) {
                findings.push(Finding {
                    id: "target-not-empty",
                    level: Level::Error,
                    object: name.to_string(),
                    found: "the table is on the target already, and this run did not create it".to_owned(),
                    fix: "drop it on the target if it is not needed, or leave it out with `exclude`".to_owned(),
                });
            }
        }
        target_privileges(described, findings);
        if described.target.read_only {
            findings.push(Finding {
                id: "target-read-only",
                level: Level::Error,
                object: self.store.target.to_string(),
                found: "`read_only` is on".to_owned(),
                fix: "set it off, or check that this is the writer and not a replica".to_owned(),
            });
        }
        target.close().await;
        Ok(())
    }
}

fn log_settings(facts: &ServerFacts, findings: &mut Vec<Finding>) {
    let mut error = |id, setting: &str, found: String, fix: &str| {
        findings.push(Finding { id, level: Level::Error, object: setting.to_owned(), found, fix: fix.to_owned() });
    };
    if !facts.log_bin {
        error(
            "log-bin",
            "log_bin",
            "the source writes no binary log: there is nothing to follow".into(),
            "set `log-bin` and `server-id` and restart the source",
        );
    }
    if let Some(format) = facts.binlog_format.as_deref().filter(|format| !format.eq_ignore_ascii_case("ROW")) {
        error(
            "binlog-format",
            "binlog_format",
            format!("`binlog_format` is `{format}`: changed rows are not in the log"),
            "`SET GLOBAL binlog_format = 'ROW'`, put it into the configuration, and let every application reconnect: a session keeps its format until then",
        );
    }
    if let Some(image) = facts.binlog_row_image.as_deref().filter(|image| !image.eq_ignore_ascii_case("FULL")) {
        error(
            "binlog-row-image",
            "binlog_row_image",
            format!("`binlog_row_image` is `{image}`: rows are not complete in the log"),
            "`SET GLOBAL binlog_row_image = 'FULL'`, and let every application reconnect",
        );
    }
    if facts.log_bin && facts.server_id == 0 {
        error(
            "server-id",
            "server_id",
            "`server_id` is 0: the source refuses to be followed".into(),
            "`SET GLOBAL server_id = 1` (any number that no other server has)",
        );
    }
    if facts.binlog_expire_seconds > 0 && facts.binlog_expire_seconds < 86_400 {
        findings.push(Finding {
            id: "binlog-retention",
            level: Level::Warn,
            object: "expire_logs_days".to_owned(),
            found: format!("binary logs are kept for {} s only", facts.binlog_expire_seconds),
            fix: "keep them for at least as long as the copy takes and an interruption may last".to_owned(),
        });
    }
}

fn source_privileges(facts: &ServerFacts, findings: &mut Vec<Finding>) {
    let held = &facts.privileges;
    for (missing, privilege, what) in [
        (!held.has_replication_slave(), "REPLICATION SLAVE", "reading the binary log"),
        (!held.has_replication_client(), "REPLICATION CLIENT", "asking for the log's position"),
        (!held.has_super(), "SUPER", "setting `read_only` at the fence"),
        (!held.has_reload() && !held.has_super(), "RELOAD", "taking the global read lock at the fence"),
    ] {
        if missing {
            findings.push(Finding {
                id: "source-privileges",
                level: Level::Error,
                object: privilege.to_owned(),
                found: format!("the source's account lacks `{privilege}`, needed for {what}"),
                fix: format!("`GRANT {privilege} ON *.* TO` the account that dbmove uses"),
            });
        }
    }
}

/// A pattern that names nothing would leave data behind without a word.
fn included(store: &MysqlStore, described: &Described, findings: &mut Vec<Finding>) {
    for pattern in store.selection.unmatched(described.catalog.tables.keys()) {
        findings.push(Finding {
            id: "include-names-nothing",
            level: Level::Error,
            object: pattern,
            found: "this pattern of `include` names no table of the source".to_owned(),
            fix: "correct it or leave it out; also check that the account may see the tables (SELECT)".to_owned(),
        });
    }
}

/// What dbmove does on the target, and the privilege for it.
const ON_THE_TARGET: [&str; 9] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES"];

/// Found here, because found later it would leave a target that is half prepared.
fn target_privileges(described: &Described, findings: &mut Vec<Finding>) {
    let held = &described.target.privileges;
    let databases: BTreeSet<&str> = described.catalog.tables.keys().map(|name| name.database.as_str()).chain([DBMOVE_SCHEMA]).collect();
    for database in databases {
        let missing: Vec<&str> = ON_THE_TARGET.into_iter().filter(|privilege| !held.has_on(privilege, database)).collect();
        if !missing.is_empty() {
            let (missing, name) = (missing.join(", "), sql::identifier(database));
            findings.push(Finding {
                id: "target-privileges",
                level: Level::Error,
                object: database.to_owned(),
                found: format!("the target's account lacks {missing} on it"),
                fix: format!("`GRANT {missing} ON {name}.* TO` the account that dbmove uses on the target"),
            });
        }
    }
}

fn tables(described: &Described, findings: &mut Vec<Finding>) {
    let mut warn = |id, object: String, found: String, fix: &str| {
        findings.push(Finding { id, level: Level::Warn, object, found, fix: fix.to_owned() });
    };
    for (_, table) in described.shared.tables.iter() {
        let engine = &table.table.engine;
        if table.key.is_none() {
            let lock = if engine.eq_ignore_ascii_case("InnoDB") { "for a moment" } else { "for as long as it is read" };
            warn(
                "no-primary-key",
                table.name().to_string(),
                format!(
                    "no primary key and no unique key of NOT NULL columns: it is copied as a whole, locked {lock}, and its changes are found by all values"
                ),
                "add a primary key if the application allows it",
            );
        }
        if !engine.eq_ignore_ascii_case("InnoDB") {
            warn(
                "engine",
                table.name().to_string(),
                format!("it is {engine} and becomes InnoDB on the target"),
                "check FULLTEXT searches and table-level locking in the application",
            );
        }
    }
    for (_, table) in described.shared.tables.iter() {
        for column in table.table.columns.iter().filter(|column| column.kind == ColumnType::Json) {
            findings.push(Finding {
                id: "json-column",
                level: Level::Error,
                object: format!("{}.{}", table.name(), column.name),
                found: "it is JSON: its binary form in the source's log can't be decoded yet, so its changes could not be followed"
                    .to_owned(),
                fix: "leave the table out with `exclude` and move it by other means".to_owned(),
            });
        }
    }
    let mut warn = |id, object: String, found: String, fix: &str| {
        findings.push(Finding { id, level: Level::Warn, object, found, fix: fix.to_owned() });
    };
    for left in &described.schema.not_carried {
        warn("not-carried", left.name.clone(), format!("{}: {}", left.kind, left.why), "create it on the target by hand");
    }
}

#[async_trait]
impl Step for Assess {
    fn name(&self) -> &'static str {
        "mysql.assess"
    }
    fn undoable(&self) -> Undoable {
        Undoable::Nothing
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan {
            lines: vec![format!(
                "look at the settings, privileges and tables of the {} and the {}; change nothing",
                self.store.source, self.store.target
            )],
            warnings: Vec::new(),
        })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let findings = self.findings(&context.run).await?;
        for finding in &findings {
            context.find(finding.id, &serde_json::json!(finding))?;
        }
        let errors: Vec<&Finding> = findings.iter().filter(|finding| finding.level == Level::Error).collect();
        if let Some(first) = errors.first() {
            let lines: Vec<String> =
                errors.iter().map(|finding| format!("[{}] `{}`: {}", finding.id, finding.object, finding.found)).collect();
            return Err(StepError::new(
                Failure::Refused,
                format!("store `{}` can't be moved as it is. Nothing was changed.\n  {}", self.store.name, lines.join("\n  ")),
            )
            .hint(first.fix.clone()));
        }
        let described = self.store.described().await?;
        Ok(Output::default()
            .fact("findings", serde_json::json!(findings))
            .fact("tables", described.shared.tables.len() as u64)
            .fact("data_bytes", described.catalog.data_bytes())
            .fact("source_version", described.source.version.to_string())
            .fact("target_version", described.target.version.to_string())
            .fact("schema_fingerprint", described.catalog.fingerprint()))
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        // It leaves nothing behind, so it is simply run again.
        Ok(Probe::NotStarted)
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
