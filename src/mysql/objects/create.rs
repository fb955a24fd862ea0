//! One object on the target, under the settings it was made under on the source.
//!
//! What the target can't take as it is becomes something else by a named rule, each listed:
//!
//! | rule | when | what becomes of it |
//! | --- | --- | --- |
//! | `definer` | the account is not on the target, or ours may not name it | the object belongs to whoever creates it |
//! | `sql-mode` | the target does not know a mode, which means nothing there | the mode is left out |
//! | `comment` | the text's charset lacks a character of the comment (the server keeps comments in UTF-8) | no comment |
//! | `context` | the target says afterwards that the object is read under other settings | as the target says |
//! | `time-zone` | an event follows the server's own time zone, and the target's is another | it moves with it |
//! | `event-over` | an event's time is over | it is not created |
//! | `warning` | the target warns | as the server words it |
//!
//! The settings are put back right after the statement: whatever else runs in this session is quoted for an empty `sql_mode`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::accounts::AccountName;
use super::super::catalog::{Database, ObjectKind, OtherObject};
use super::super::connect::{Purpose, Server, Session, Version};
use super::super::ddl::{RuleFired, TOLERATED, names_on};
use super::super::error::Result;
use super::super::sql;
use super::read::{CreationContext, Definition};
use super::rewrite;
use super::{named, word};

/// Modes that MySQL 8.0 refuses: they said something of how statements are printed or of GRANT, and nothing of what a body means.
pub const MODES_WITHOUT_MEANING: [&str; 11] = [
    "DB2",
    "MAXDB",
    "MSSQL",
    "MYSQL323",
    "MYSQL40",
    "ORACLE",
    "POSTGRESQL",
    "NO_FIELD_OPTIONS",
    "NO_KEY_OPTIONS",
    "NO_TABLE_OPTIONS",
    "NO_AUTO_CREATE_USER",
];

/// "Access denied; you need … privilege(s)", "The user specified as a definer does not exist": ours may not name this definer.
const DEFINER_REFUSED: [u16; 2] = [1227, 1449];

/// "Event execution time is in the past and ON COMPLETION NOT PRESERVE is set": it is not there afterwards.
const EVENT_OVER: u16 = 1588;

/// Creates objects on the target.
pub struct Maker {
    session: Session,
    /// The accounts there are; `None` if ours may not see them.
    accounts: Option<BTreeSet<AccountName>>,
    /// The default collation of each database.
    collations: BTreeMap<String, String>,
    /// Databases whose default may be changed for a moment: those that dbmove made.
    own: BTreeSet<String>,
    zones: Zones,
    database: String,
}

/// What `SYSTEM` stands for on both servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// On the source.
    pub source: String,
    /// On the target.
    pub target: String,
}

impl Maker {
    /// Opens a session for it. `own`: the databases that this run has made.
    ///
    /// # Errors
    /// If the target can't be reached.
    pub async fn open(server: &Arc<Server>, own: BTreeSet<String>, zones: Zones) -> Result<Maker> {
        let mut session = Session::open(server, Purpose::Catalog).await?;
        let accounts = match session.rows("SELECT User, Host FROM mysql.user", "reading the target's accounts").await {
            Ok(rows) => Some(rows.iter().map(|row| AccountName { user: cell(row, 0), host: cell(row, 1) }).collect()),
            Err(error) if error.code().is_some() && !error.transient() => None,
            Err(error) => return Err(error),
        };
        let query = "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA";
        let rows = session.rows(query, "reading the target's databases").await?;
        let collations = rows.iter().map(|row| (cell(row, 0), cell(row, 1))).collect();
        // Names in a routine are resolved when it runs, names in a view's FROM when it is made: foreign keys have no part in it.
        Ok(Maker { session, accounts, collations, own, zones, database: String::new() })
    }

    /// From here on a statement waits so many seconds at most for whoever uses what it changes. Servers before 5.5 wait for as long as it takes.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn waits_for_locks(&mut self, seconds: u32) -> Result<()> {
        /// "Unknown system variable".
        const UNKNOWN: u16 = 1193;
        match self.session.run(&format!("SET SESSION lock_wait_timeout = {seconds}"), "setting up the session").await {
            Err(error) if error.code() != Some(UNKNOWN) => Err(error),
            _ => Ok(()),
        }
    }

    /// The target's version.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.session.version
    }

    /// Puts the default collation of dbmove's own databases back to the source's: a crash may have left another one.
    ///
    /// # Errors
    /// If the target refuses it.
    pub async fn settle_defaults(&mut self, databases: &[Database]) -> Result<Vec<String>> {
        let mut foreign = Vec::new();
        for database in databases {
            let (_, wanted) = names_on(&self.session.version, &database.collation);
            let Some(now) = self.collations.get(&database.name).filter(|now| **now != wanted) else { continue };
            if self.own.contains(&database.name) {
                self.default_collation(&database.name, &wanted).await?;
            } else {
                foreign.push(format!(
                    "database `{}` was on the target before, with the default collation {now}; on the source it is {wanted}",
                    database.name
                ));
            }
        }
        Ok(foreign)
    }

    async fn default_collation(&mut self, database: &str, collation: &str) -> Result<()> {
        let (charset, _) = names_on(&self.session.version, collation);
        let statement = format!("ALTER DATABASE {} DEFAULT CHARACTER SET {charset} COLLATE {collation}", sql::identifier(database));
        self.session.run(&statement, &format!("setting the default collation of database `{database}`")).await?;
        self.collations.insert(database.to_owned(), collation.to_owned());
        Ok(())
    }

    /// Creates an object from the source's definition; what was changed on the way.
    ///
    /// # Errors
    /// If the target refuses it.
    pub async fn make(&mut self, definition: &Definition) -> Result<Vec<RuleFired>> {
        let mut changes = Vec::new();
        let what = format!("creating {}", named(&definition.object));
        self.enter(&definition.object.database).await?;
        let context = self.context(&definition.context, &mut changes);
        let mut statement = definition.statement.clone();
        if let Some(comment) = &definition.lost_comment {
            changes.push(fired("comment", comment.clone(), String::new()));
        }
        if definition.object.kind == ObjectKind::Event {
            statement = rewrite::disabled(&statement, &definition.context.client);
            if context.time_zone.as_deref() == Some("SYSTEM") && self.zones.source != self.zones.target {
                let in_zone = |zone: &str| format!("SYSTEM ({zone})");
                changes.push(fired("time-zone", in_zone(&self.zones.source), in_zone(&self.zones.target)));
            }
        }
        let usual = self.collations.get(&definition.object.database).cloned().unwrap_or_default();
        let wanted = context.database.clone().filter(|wanted| *wanted != usual && self.own.contains(&definition.object.database));
        if let Some(wanted) = &wanted {
            self.default_collation(&definition.object.database, wanted).await?;
        }
        let named_definer = rewrite::definer(&statement);
        let exists = match &named_definer {
            Some((_, account)) => self.accounts.as_ref().is_none_or(|accounts| accounts.contains(account)),
            None => true,
        };
        let mut made = if exists {
            self.send(&statement, &context, &what).await
        } else {
            self.without_definer(&statement, &context, &what, &mut changes, "which is not on the target").await
        };
        let refused = made.as_ref().is_err_and(|error| error.code().is_some_and(|code| DEFINER_REFUSED.contains(&code)));
        if exists && refused && named_definer.is_some() {
            made = self.without_definer(&statement, &context, &what, &mut changes, "whom our account there may not name").await;
        }
        if wanted.is_some() {
            self.default_collation(&definition.object.database, &usual).await?;
        }
        for (code, text) in made? {
            let rule = if code == EVENT_OVER { "event-over" } else { "warning" };
            changes.push(fired(rule, String::new(), format!("{code} {text}")));
        }
        Ok(changes)
    }

    /// Sends the statement with ourselves in the definer's place.
    async fn without_definer(
        &mut self,
        statement: &[u8],
        context: &CreationContext,
        what: &str,
        changes: &mut Vec<RuleFired>,
        why: &str,
    ) -> Result<Vec<(u16, String)>> {
        let Some((clause, account)) = rewrite::definer(statement) else { return self.send(statement, context, what).await };
        let made = self.send(&rewrite::with_definer(statement, &clause, None), context, what).await?;
        changes.push(fired("definer", format!("{account}, {why}"), format!("{}, as which dbmove connects", self.session.server().user)));
        Ok(made)
    }

    /// Sends a statement under these settings; its warnings.
    async fn send(&mut self, statement: &[u8], context: &CreationContext, what: &str) -> Result<Vec<(u16, String)>> {
        let mut settings = format!(
            "SET SESSION character_set_client = {}, collation_connection = {}",
            sql::text(&context.client),
            sql::text(&context.connection)
        );
        if let Some(sql_mode) = &context.sql_mode {
            settings.push_str(&format!(", sql_mode = {}", sql::text(sql_mode)));
        }
        if let Some(zone) = &context.time_zone {
            settings.push_str(&format!(", time_zone = {}", sql::text(zone)));
        }
        let sent = match self.session.run(&settings, what).await {
            Ok(()) => self.session.write_unchecked(statement, what).await,
            Err(error) => Err(error),
        };
        // One statement in ASCII, and no quotes that a mode could change: it reads the same under all of them.
        let warned = sent.as_ref().is_ok_and(|written| written.warnings > 0);
        let warnings = if warned { self.session.warnings().await? } else { Vec::new() };
        let reset = "SET SESSION character_set_client = utf8, collation_connection = utf8_general_ci, sql_mode = '', time_zone = '+00:00'";
        match &sent {
            // The connection is gone, and its settings with it.
            Err(error) if error.code().is_none() => {}
            _ => self.session.run(reset, "putting the session's settings back").await?,
        }
        sent?;
        // MariaDB says with every event that none runs now; that is said once, when they are enabled.
        let known = |(code, text): &(u16, String)| TOLERATED.contains(code) || text.starts_with("Event scheduler is switched off");
        Ok(warnings.into_iter().filter(|warning| !known(warning)).collect())
    }

    /// The settings as the target names them.
    fn context(&self, source: &CreationContext, changes: &mut Vec<RuleFired>) -> CreationContext {
        let version = &self.session.version;
        let sql_mode = source.sql_mode.as_ref().map(|before| {
            let gone = |mode: &&str| !version.mysql_from((8, 0, 0)) || !MODES_WITHOUT_MEANING.contains(mode);
            let kept = before.split(',').filter(gone).collect::<Vec<_>>().join(",");
            if kept != *before {
                changes.push(fired("sql-mode", before.clone(), kept.clone()));
            }
            kept
        });
        CreationContext {
            sql_mode,
            client: names_on(version, &source.client).0,
            connection: names_on(version, &source.connection).1,
            database: source.database.as_ref().map(|collation| names_on(version, collation).1),
            time_zone: source.time_zone.clone(),
        }
    }

    /// What the target says of an object it was given with this definition, where that is something else.
    #[must_use]
    pub fn kept(&self, source: &Definition, target: &Definition) -> Vec<RuleFired> {
        let wanted = self.context(&source.context, &mut Vec::new());
        let there = &target.context;
        let modes = |text: &Option<String>| text.as_ref().map(|text| text.split(',').map(str::to_owned).collect::<BTreeSet<_>>());
        let mut changes = Vec::new();
        if modes(&wanted.sql_mode) != modes(&there.sql_mode) {
            let text = |mode: &Option<String>| format!("sql_mode {}", mode.as_deref().unwrap_or_default());
            changes.push(fired("context", text(&wanted.sql_mode), text(&there.sql_mode)));
        }
        for (setting, wanted, there) in [
            ("character_set_client", Some(&wanted.client), Some(&there.client)),
            ("collation_connection", Some(&wanted.connection), Some(&there.connection)),
            ("database collation", wanted.database.as_ref(), there.database.as_ref()),
            ("time_zone", wanted.time_zone.as_ref(), there.time_zone.as_ref()),
        ] {
            if wanted != there {
                let text = |value: Option<&String>| format!("{setting} {}", value.map_or("", |value| value));
                changes.push(fired("context", text(wanted), text(there)));
            }
        }
        changes
    }

    /// Lets an event run that was created not to; what the server warned of.
    ///
    /// # Errors
    /// If the target refuses it.
    pub async fn enable(&mut self, definition: &Definition) -> Result<Vec<(u16, String)>> {
        self.enter(&definition.object.database).await?;
        // Without it the event would belong to us, and under other settings it would be read otherwise.
        let definer = match rewrite::definer(&definition.statement) {
            Some((_, account)) => format!("DEFINER={}@{} ", sql::identifier(&account.user), sql::identifier(&account.host)),
            None => String::new(),
        };
        let name = match rewrite::quoted_name(&definition.statement, &definition.context.client) {
            Some(name) => definition.statement[name].to_vec(),
            None => sql::identifier(&definition.object.name).into_bytes(),
        };
        let what = format!("enabling {}", named(&definition.object));
        let statement = [format!("ALTER {definer}EVENT ").as_bytes(), &name, b" ENABLE"].concat();
        let context = definition.context.clone();
        self.send(&statement, &context, &what).await
    }

    /// Drops an object, if it is there.
    ///
    /// # Errors
    /// If the target refuses it.
    pub async fn drop_object(&mut self, object: &OtherObject) -> Result<()> {
        let Some(word) = word(object.kind) else { return Ok(()) };
        let name = format!("{}.{}", sql::identifier(&object.database), sql::identifier(&object.name));
        match self.session.run(&format!("DROP {word} IF EXISTS {name}"), &format!("dropping {}", named(object))).await {
            // The database is gone, and all that was in it.
            Err(error) if matches!(error.code(), Some(1049 | 1146)) => Ok(()),
            dropped => dropped,
        }
    }

    async fn enter(&mut self, database: &str) -> Result<()> {
        if self.database != database {
            self.session.run(&format!("USE {}", sql::identifier(database)), &format!("entering database `{database}`")).await?;
            self.database = database.to_owned();
        }
        Ok(())
    }

    /// Closes the session.
    pub async fn close(self) {
        self.session.close().await;
    }
}

fn fired(rule: &'static str, before: String, after: String) -> RuleFired {
    RuleFired { rule, before, after }
}

fn cell(row: &[Option<String>], at: usize) -> String {
    row.get(at).and_then(Clone::clone).unwrap_or_default()
}
