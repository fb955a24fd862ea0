//! What the checks look at, read from both servers once: a fixed number of queries, whatever they hold.
//!
//! What a server refuses to show is no error here: it is noted under its [`Part`], and the checks that need it say that they could not
//! look. A connection that breaks is an error, because nothing can be said then.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`tables`] | what the catalog has no place for: file formats, sizes of indexes, partitions, defaults |
//! | [`accounts`] | accounts and grants of the source |
//! | [`activity`] | who is connected, what is open, and what the log gets by statement meanwhile |
//! | [`target`] | whether the target is an RDS instance, and its free space |
//! | [`values`] | rows: both ends of every table, or all of them |

pub mod accounts;
pub mod activity;
pub mod tables;
pub mod target;
pub mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Looking, Part};
use crate::mysql::bookkeeping;
use crate::mysql::catalog::{Catalog, ServerFacts};
use crate::mysql::connect::{Purpose, Session, TextRow};
use crate::mysql::conversion::{self, ConvertedTables};
use crate::mysql::ddl::NotCarried;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::TableName;
use crate::mysql::process_list;
use crate::mysql::sql;
use crate::mysql::status::{LogFilters, current_position, log_filters};
use crate::mysql::store::MysqlStore;
use crate::mysql::upstream::Channel;
use crate::mysql::uses::Uses;
use crate::mysql::well_formed;
use crate::playbook::model::ObjectsOption;
use accounts::{AccountRow, DatabaseGrant, Fates};
use activity::{LogWindow, OpenTransaction, SessionRow};
use tables::{ColumnDefault, TableDetails};
use target::TargetDisk;
use values::Values;

/// A view, routine, trigger or event of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// `view`, `procedure`, `function`, `trigger`, `event`.
    pub kind: String,
    /// Its full name.
    pub name: String,
    /// Its database.
    pub database: String,
    /// Whose privileges it runs with: `user@host`.
    pub definer: String,
    /// The `sql_mode` it was made under; views have none.
    pub sql_mode: String,
    /// Its text, as the server prints it.
    pub text: String,
    /// Where it was read.
    pub place: &'static str,
}

/// All of it.
#[derive(Debug)]
pub struct Gathered {
    /// The source's settings and our privileges.
    pub source: ServerFacts,
    /// The target's.
    pub target: ServerFacts,
    /// Role and address of the target.
    pub target_name: String,
    /// What the source's log leaves out.
    pub log_filters: LogFilters,
    /// The servers that the source itself replicates from.
    pub replicates_from: Vec<Channel>,
    /// What the source holds of what is selected.
    pub catalog: Catalog,
    /// Patterns of `include` that name no table.
    pub unmatched: Vec<String>,
    /// What the target will not have.
    pub not_carried: Vec<NotCarried>,
    /// Why the schema can't be converted, and what to do: the first table that stands in the way.
    pub unconverted: Option<(String, String)>,
    /// Why text can't be converted as `charset` asks for, and what to do: looked at only where all rows are.
    pub unproven: Vec<(String, String)>,
    /// Another run that has claimed the target.
    pub claimed_by: Option<String>,
    /// Selected tables that are on the target and not ours.
    pub on_target: Vec<TableName>,
    /// Views, routines, triggers and events of the selected databases.
    pub bodies: Vec<Body>,
    /// The source's accounts.
    pub accounts: Vec<AccountRow>,
    /// What becomes of them.
    pub fates: Fates,
    /// Grants on databases, as `mysql.db` has them.
    pub grants: Vec<DatabaseGrant>,
    /// Every database of the source, selected or not.
    pub all_databases: Vec<String>,
    /// Routines in `mysql.proc` whose database is gone.
    pub orphans: Vec<(String, String)>,
    /// Defaults of columns of selected tables.
    pub defaults: Vec<ColumnDefault>,
    /// What the catalog has no place for, by table.
    pub details: BTreeMap<TableName, TableDetails>,
    /// Columns that the source prints as being in a format of before 5.6.4 (or of MariaDB 5.3).
    pub old_temporals: Vec<(TableName, String)>,
    /// Clients' sessions on the source, ours left out.
    pub sessions: Vec<SessionRow>,
    /// Transactions that are open on the source, ours left out.
    pub transactions: Vec<OpenTransaction>,
    /// What the source logged while this was read.
    pub log_window: Option<LogWindow>,
    /// Whether the target is an RDS instance: where that was seen.
    pub rds: Option<String>,
    /// Room on the target's disk.
    pub target_disk: Option<TargetDisk>,
    /// What rows hold.
    pub values: Values,
    /// What the playbook does with the store.
    pub uses: Uses,
    /// What becomes of views, routines, triggers and events.
    pub objects: ObjectsOption,
    /// What could not be read, and why.
    pub unread: BTreeMap<Part, String>,
}

impl Gathered {
    /// Two servers of which nothing was read but their settings.
    #[must_use]
    pub fn of(source: ServerFacts, target: ServerFacts, target_name: String) -> Gathered {
        Gathered {
            source,
            target,
            target_name,
            log_filters: LogFilters::default(),
            replicates_from: Vec::new(),
            catalog: Catalog::default(),
            unmatched: Vec::new(),
            not_carried: Vec::new(),
            unconverted: None,
            unproven: Vec::new(),
            claimed_by: None,
            on_target: Vec::new(),
            bodies: Vec::new(),
            accounts: Vec::new(),
            fates: Fates::default(),
            grants: Vec::new(),
            all_databases: Vec::new(),
            orphans: Vec::new(),
            defaults: Vec::new(),
            details: BTreeMap::new(),
            old_temporals: Vec::new(),
            sessions: Vec::new(),
            transactions: Vec::new(),
            log_window: None,
            rds: None,
            target_disk: None,
            values: Values::default(),
            uses: Uses::default(),
            objects: ObjectsOption::default(),
            unread: BTreeMap::new(),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// If a server can't be reached, or nothing of the source is selected.
    pub async fn read(store: &Arc<MysqlStore>, run: Option<&str>, looking: &Looking<'_>) -> Result<Gathered> {
        let mut source = Session::open(&store.source, Purpose::Catalog).await?;
        let source_facts = ServerFacts::read(&mut source).await?;
        let mut target = Session::open(&store.target, Purpose::Catalog).await?;
        let target_facts = ServerFacts::read(&mut target).await?;
        let mut gathered = Gathered::of(source_facts, target_facts, store.target.to_string());
        gathered.uses = store.settings.uses.clone();
        gathered.objects = store.settings.objects;
        // Taken before everything else and read after it: what is logged in between is what the applications do now.
        let before = match gathered.source.log_bin && gathered.source.privileges.has_replication_client() {
            true => {
                gathered.log_filters = log_filters(&mut source).await?;
                Some(current_position(&mut source).await?)
            }
            false => None,
        };
        gathered.structure(store, &mut source).await?;
        gathered.unmatched = store.selection.unmatched(gathered.catalog.tables.keys());
        let databases: Vec<String> = gathered.catalog.databases.iter().map(|database| sql::text(&database.name)).collect();
        let databases = if databases.is_empty() { "''".to_owned() } else { databases.join(", ") };
        gathered.bodies(&mut source, &databases).await?;
        gathered.defaults(&mut source, &databases).await?;
        gathered.details(&mut source, &databases).await?;
        gathered.accounts(&mut source).await?;
        gathered.grants(&mut source).await?;
        gathered.fates(store).await?;
        gathered.orphans(&mut source, &store.selection).await?;
        gathered.sessions(&mut source).await?;
        gathered.transactions(&mut source).await?;
        gathered.replication(&mut source).await?;
        gathered.values(&mut source, looking.rows).await?;
        if looking.rows == values::Rows::All {
            gathered.conversions(store).await?;
        }
        gathered.logged_meanwhile(&mut source, before, &store.selection).await?;
        source.close().await;

        let holder = bookkeeping::lease(&mut target, &store.name).await?.map(|(holder, _)| holder);
        let ours = run.is_some() && holder.as_deref() == run;
        gathered.claimed_by = holder.filter(|_| !ours);
        if !ours {
            let there = Catalog::read(&mut target, &store.selection).await?;
            gathered.on_target = gathered.catalog.tables.keys().filter(|name| there.table(name).is_some()).cloned().collect();
        }
        gathered.rds(&mut target).await?;
        gathered.target_disk(&mut target, looking.target_free).await?;
        target.close().await;
        Ok(gathered)
    }

    /// Tables and what becomes of them. A table that can't be carried is a finding, not an end.
    async fn structure(&mut self, store: &Arc<MysqlStore>, source: &mut Session) -> Result<()> {
        let error = match store.described().await {
            Ok(described) => {
                self.catalog = described.catalog.clone();
                self.not_carried.clone_from(&described.schema.not_carried);
                return Ok(());
            }
            Err(error) => error,
        };
        let MysqlError::Object { message, hint } = error else { return Err(error) };
        match Catalog::read(source, &store.selection).await {
            // Nothing is selected: there is nothing to say but that.
            Ok(catalog) if catalog.tables.is_empty() => return Err(MysqlError::Object { message, hint }),
            Ok(catalog) => self.catalog = catalog,
            Err(MysqlError::Object { .. }) => {
                self.unread.insert(Part::Catalog, message.clone());
            }
            Err(error) => return Err(error),
        }
        self.unread.insert(Part::Schema, message.clone());
        self.unconverted = Some((message, hint));
        Ok(())
    }

    /// The proof that `mysql.prepare` asks for before it converts text, without its end at the first table.
    async fn conversions(&mut self, store: &Arc<MysqlStore>) -> Result<()> {
        if self.unconverted.is_some() {
            return Ok(());
        }
        let described = store.described().await?;
        if described.converted.is_empty() {
            return Ok(());
        }
        let mut source = Session::open(&store.source, Purpose::Read).await?;
        for (name, converted) in &described.converted {
            let only = ConvertedTables::from([(name.clone(), converted.clone())]);
            let table = self.catalog.tables.get(name);
            let wrong = well_formed::find(&mut source, table, &only, &self.target.version).await?;
            self.unproven.extend(wrong.iter().map(|wrong| (wrong.words(), wrong.fix())));
            // Bytes that are no text are equal to nothing.
            if wrong.is_empty() {
                match conversion::prove_keys(&mut source, &only).await {
                    Err(MysqlError::Object { message, hint }) => self.unproven.push((message, hint)),
                    other => other?,
                }
            }
        }
        source.close().await;
        Ok(())
    }

    /// Rows of a query that may be refused.
    async fn rows(&mut self, session: &mut Session, part: Part, query: &str) -> Result<Vec<TextRow>> {
        match process_list::rows(session, query, part.words()).await {
            Ok(rows) => Ok(rows),
            Err(error) if error.code().is_some() && !error.transient() => {
                self.unread.entry(part).or_insert_with(|| error.to_string());
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    async fn bodies(&mut self, source: &mut Session, databases: &str) -> Result<()> {
        let from = |table: &str, columns: &str, schema: &str| {
            format!("SELECT {columns} FROM information_schema.{table} WHERE {schema} IN ({databases})")
        };
        let queries = [
            ("information_schema.VIEWS", from("VIEWS", "'view', TABLE_SCHEMA, TABLE_NAME, DEFINER, '', VIEW_DEFINITION", "TABLE_SCHEMA")),
            (
                "information_schema.ROUTINES",
                from(
                    "ROUTINES",
                    "LOWER(ROUTINE_TYPE), ROUTINE_SCHEMA, ROUTINE_NAME, DEFINER, SQL_MODE, ROUTINE_DEFINITION",
                    "ROUTINE_SCHEMA",
                ),
            ),
            (
                "information_schema.TRIGGERS",
                from("TRIGGERS", "'trigger', TRIGGER_SCHEMA, TRIGGER_NAME, DEFINER, SQL_MODE, ACTION_STATEMENT", "TRIGGER_SCHEMA"),
            ),
            (
                "information_schema.EVENTS",
                from("EVENTS", "'event', EVENT_SCHEMA, EVENT_NAME, DEFINER, SQL_MODE, EVENT_DEFINITION", "EVENT_SCHEMA"),
            ),
        ];
        for (place, query) in queries {
            for row in self.rows(source, Part::Bodies, &query).await? {
                let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
                let name = format!("{}.{}", text(1), text(2));
                if text(5).is_empty() {
                    // The server shows a body only to whoever may see it.
                    self.unread.entry(Part::Bodies).or_insert_with(|| format!("the server does not show the body of `{name}`"));
                }
                let body = Body { kind: text(0), name, database: text(1), definer: text(3), sql_mode: text(4), text: text(5), place };
                self.bodies.push(body);
            }
        }
        Ok(())
    }
}
