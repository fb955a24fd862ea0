//! What the checks look at, read from both servers once: a fixed number of queries, whatever they hold.
//!
//! What a server refuses to show is no error here: it is noted under its [`Part`], and the checks that need it say that they could not
//! look. A connection that breaks is an error, because nothing can be said then.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::bookkeeping;
use super::super::catalog::{Catalog, ServerFacts};
use super::super::connect::{Purpose, Session, TextRow};
use super::super::ddl::NotCarried;
use super::super::error::{MysqlError, Result};
use super::super::names::TableName;
use super::super::sql;
use super::super::store::MysqlStore;
use super::Part;

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

/// An account of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// User.
    pub user: String,
    /// Host.
    pub host: String,
    /// The length of the password's hash; the hash itself is not kept.
    pub hash_length: usize,
    /// The plugin that judges the password; empty for the server's own.
    pub plugin: String,
    /// SUPER.
    pub super_privilege: bool,
}

impl AccountRow {
    /// As a definer is written.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}@{}", self.user, self.host)
    }
}

/// The default of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefault {
    /// The table.
    pub table: TableName,
    /// The column.
    pub column: String,
    /// Its type, as printed.
    pub column_type: String,
    /// Its default.
    pub default: Option<String>,
}

/// A session of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// User.
    pub user: String,
    /// From where.
    pub host: String,
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
    /// The server that the source itself replicates from, and whether it applies what it gets.
    pub replicates_from: Option<(String, String)>,
    /// What the source holds of what is selected.
    pub catalog: Catalog,
    /// Patterns of `include` that name no table.
    pub unmatched: Vec<String>,
    /// What the target will not have.
    pub not_carried: Vec<NotCarried>,
    /// Why the schema can't be converted, and what to do: the first table that stands in the way.
    pub unconverted: Option<(String, String)>,
    /// Another run that has claimed the target.
    pub claimed_by: Option<String>,
    /// Selected tables that are on the target and not ours.
    pub on_target: Vec<TableName>,
    /// Views, routines, triggers and events of the selected databases.
    pub bodies: Vec<Body>,
    /// The source's accounts.
    pub accounts: Vec<AccountRow>,
    /// Defaults of columns of selected tables.
    pub defaults: Vec<ColumnDefault>,
    /// Clients' sessions on the source, ours left out.
    pub sessions: Vec<SessionRow>,
    /// What could not be read, and why.
    pub unread: BTreeMap<Part, String>,
}

impl Gathered {
    /// Reads it.
    ///
    /// # Errors
    /// If a server can't be reached, or nothing of the source is selected.
    pub async fn read(store: &Arc<MysqlStore>, run: Option<&str>) -> Result<Gathered> {
        let mut source = Session::open(&store.source, Purpose::Catalog).await?;
        let source_facts = ServerFacts::read(&mut source).await?;
        let mut target = Session::open(&store.target, Purpose::Catalog).await?;
        let target_facts = ServerFacts::read(&mut target).await?;
        let mut gathered = Gathered {
            source: source_facts,
            target: target_facts,
            target_name: store.target.to_string(),
            replicates_from: None,
            catalog: Catalog::default(),
            unmatched: Vec::new(),
            not_carried: Vec::new(),
            unconverted: None,
            claimed_by: None,
            on_target: Vec::new(),
            bodies: Vec::new(),
            accounts: Vec::new(),
            defaults: Vec::new(),
            sessions: Vec::new(),
            unread: BTreeMap::new(),
        };
        gathered.structure(store, &mut source).await?;
        gathered.unmatched = store.selection.unmatched(gathered.catalog.tables.keys());
        let databases: Vec<String> = gathered.catalog.databases.iter().map(|database| sql::text(&database.name)).collect();
        let databases = if databases.is_empty() { "''".to_owned() } else { databases.join(", ") };
        gathered.bodies(&mut source, &databases).await?;
        gathered.defaults(&mut source, &databases).await?;
        gathered.accounts(&mut source).await?;
        gathered.sessions(&mut source).await?;
        gathered.replication(&mut source).await?;
        source.close().await;

        let holder = bookkeeping::lease(&mut target, &store.name).await?.map(|(holder, _)| holder);
        let ours = run.is_some() && holder.as_deref() == run;
        gathered.claimed_by = holder.filter(|_| !ours);
        if !ours {
            let there = Catalog::read(&mut target, &store.selection).await?;
            gathered.on_target = gathered.catalog.tables.keys().filter(|name| there.table(name).is_some()).cloned().collect();
        }
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

    /// Rows of a query that may be refused.
    async fn rows(&mut self, session: &mut Session, part: Part, query: &str) -> Result<Vec<TextRow>> {
        match session.rows(query, part.words()).await {
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

    async fn defaults(&mut self, source: &mut Session, databases: &str) -> Result<()> {
        let query = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COLUMN_DEFAULT FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA IN ({databases})"
        );
        for row in self.rows(source, Part::Defaults, &query).await? {
            let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            let table = TableName::new(text(0), text(1));
            if self.catalog.table(&table).is_some() {
                let default = row.get(4).and_then(Clone::clone);
                self.defaults.push(ColumnDefault { table, column: text(2), column_type: text(3), default });
            }
        }
        Ok(())
    }

    async fn accounts(&mut self, source: &mut Session) -> Result<()> {
        // The columns differ from version to version; what is not there is left out by name.
        let columns = self.rows(source, Part::Accounts, "SHOW COLUMNS FROM mysql.user").await?;
        if self.unread.contains_key(&Part::Accounts) {
            return Ok(());
        }
        let has = |name: &str| columns.iter().any(|row| row.first().and_then(Option::as_deref) == Some(name));
        let password = match (has("Password"), has("authentication_string")) {
            (true, true) => "IF(LENGTH(Password) > 0, LENGTH(Password), LENGTH(authentication_string))",
            (true, false) => "LENGTH(Password)",
            _ => "LENGTH(authentication_string)",
        };
        let plugin = if has("plugin") { "plugin" } else { "''" };
        let query = format!("SELECT User, Host, {password}, {plugin}, Super_priv FROM mysql.user");
        for row in self.rows(source, Part::Accounts, &query).await? {
            let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            self.accounts.push(AccountRow {
                user: text(0),
                host: text(1),
                hash_length: text(2).parse().unwrap_or(0),
                plugin: text(3),
                super_privilege: text(4) == "Y",
            });
        }
        Ok(())
    }

    async fn sessions(&mut self, source: &mut Session) -> Result<()> {
        if !self.source.privileges.has("PROCESS") {
            self.unread.insert(Part::Sessions, "our account lacks PROCESS, so it sees only its own sessions".to_owned());
            return Ok(());
        }
        let query = "SELECT USER, HOST FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID()";
        for row in self.rows(source, Part::Sessions, query).await? {
            let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            self.sessions.push(SessionRow { user: text(0), host: text(1) });
        }
        Ok(())
    }

    /// Whether the source is a replica. What may not be asked is noted as a setting that was not read.
    async fn replication(&mut self, source: &mut Session) -> Result<()> {
        if !self.source.privileges.has_replication_client() {
            // Said by `source-privileges`, which is never accepted.
            return Ok(());
        }
        let query = if source.version.mysql_from((8, 0, 22)) { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" };
        // Places have been the same since 5.1: state, host, …, the SQL thread.
        let row = source.first(query, "asking whether the source is a replica").await?;
        let text = |row: &TextRow, at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
        self.replicates_from = row.map(|row| (text(&row, 1), text(&row, 11)));
        Ok(())
    }
}
