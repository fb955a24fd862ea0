//! The objects a server lists, and one object as the server prints it.
//!
//! A server converts what it prints to the session's `character_set_results`, and what that charset lacks becomes `?`. So
//! definitions are read with that set to NULL: the text comes in the charset that whoever wrote it used (`character_set_client`, which
//! the server keeps with it), byte for byte, and goes to the target under the same one.
//!
//! Two things in it are not: servers print the name of an event, and the comment of a routine or event, in UTF-8 whatever the rest is
//! in. Both are put into the text's charset here, by the server itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::super::catalog::{ObjectKind, OtherObject};
use super::super::connect::{Purpose, Server, Session};
use super::super::error::{MysqlError, Result};
use super::super::names::Selection;
use super::super::sql;
use super::rewrite;
use super::{named, selects, word};

/// The settings an object was made under; it is read under them whenever it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CreationContext {
    /// `sql_mode`; views have none.
    pub sql_mode: Option<String>,
    /// `character_set_client`: the charset of the text.
    pub client: String,
    /// `collation_connection`: what literals are compared by.
    pub connection: String,
    /// The database's default collation at that time; views have none.
    pub database: Option<String>,
    /// `time_zone`; only events have one.
    pub time_zone: Option<String>,
}

/// One object as a server prints it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Definition {
    /// Which.
    pub object: OtherObject,
    /// The `CREATE` statement, in the charset of [`CreationContext::client`].
    pub statement: Vec<u8>,
    /// What it was made under.
    pub context: CreationContext,
    /// Its comment, where the text's charset lacks a character of it: it is not in the statement then.
    pub lost_comment: Option<String>,
}

impl Definition {
    /// Tells one state of the object from another. Two servers print the same object differently: only hashes of one server's
    /// definitions can be compared.
    #[must_use]
    pub fn hash(&self) -> String {
        let context = &self.context;
        let mut digest = Sha256::new();
        let parts = [context.sql_mode.as_deref(), Some(&context.client), Some(&context.connection), context.database.as_deref()];
        for part in parts.into_iter().chain([context.time_zone.as_deref()]) {
            let part = part.unwrap_or_default();
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.update(&self.statement);
        hex::encode(digest.finalize())
    }
}

/// A session that reads definitions.
pub struct Reader {
    session: Session,
    database: String,
}

impl Reader {
    /// Opens one.
    ///
    /// # Errors
    /// If the server can't be reached.
    pub async fn open(server: &Arc<Server>) -> Result<Reader> {
        Ok(Reader { session: Session::open(server, Purpose::Catalog).await?, database: String::new() })
    }

    /// The selected objects of these databases that dbmove knows how to move, in the order in which they are made: by kind and
    /// name, triggers in the order in which they act. `tables`: whether a table's triggers move.
    ///
    /// # Errors
    /// If a query fails.
    pub async fn list(
        &mut self,
        databases: &[String],
        selection: &Selection,
        tables: impl Fn(&str, &str) -> bool,
    ) -> Result<Vec<OtherObject>> {
        if databases.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let names = databases.iter().map(|name| sql::text(name)).collect::<Vec<_>>().join(", ");
        self.session.run("SET character_set_results = utf8", "asking for names").await?;
        let routines =
            format!("SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA IN ({names})");
        for row in self.session.rows(&routines, "reading the routines").await? {
            let kind = match cell(&row, 2).as_str() {
                "FUNCTION" => ObjectKind::Function,
                "PROCEDURE" => ObjectKind::Procedure,
                _ => continue,
            };
            found.push(OtherObject { kind, database: cell(&row, 0), name: cell(&row, 1) });
        }
        for database in databases {
            // Not from `information_schema.VIEWS`, which opens every table of an old server.
            let query = format!("SHOW FULL TABLES FROM {} WHERE Table_type = 'VIEW'", sql::identifier(database));
            for row in self.session.rows(&query, "reading the views").await? {
                found.push(OtherObject { kind: ObjectKind::View, database: database.clone(), name: cell(&row, 0) });
            }
        }
        let events = format!("SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA IN ({names})");
        for row in self.session.rows(&events, "reading the events").await? {
            found.push(OtherObject { kind: ObjectKind::Event, database: cell(&row, 0), name: cell(&row, 1) });
        }
        let known: BTreeSet<&str> = databases.iter().map(String::as_str).collect();
        // `information_schema` compares names without regard to case.
        found.retain(|object| known.contains(object.database.as_str()) && selects(selection, object));
        found.sort();
        // Before 5.7 (MariaDB 10.2) a table has one trigger of each kind, and ACTION_ORDER is 0.
        let triggers = format!(
            "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE, EVENT_MANIPULATION, ACTION_TIMING, ACTION_ORDER \
             FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA IN ({names})"
        );
        let mut ordered = BTreeMap::new();
        for row in self.session.rows(&triggers, "reading the triggers").await? {
            let object = OtherObject { kind: ObjectKind::Trigger, database: cell(&row, 0), name: cell(&row, 1) };
            if known.contains(object.database.as_str()) && tables(&object.database, &cell(&row, 2)) && selects(selection, &object) {
                let order: u64 = cell(&row, 5).parse().unwrap_or(0);
                ordered.insert((cell(&row, 0), cell(&row, 2), cell(&row, 3), cell(&row, 4), order, cell(&row, 1)), object);
            }
        }
        found.extend(ordered.into_values());
        self.session.run("SET character_set_results = NULL", "asking for the text as it is").await?;
        Ok(found)
    }

    /// One object's definition; `None` if the server does not have it.
    ///
    /// # Errors
    /// If the server refuses it, or hides the text.
    pub async fn definition(&mut self, object: &OtherObject) -> Result<Option<Definition>> {
        let what = format!("reading the definition of {}", named(object));
        if self.database != object.database {
            // Names of this database then come without it, as they were written.
            let entered = self.session.run(&format!("USE {}", sql::identifier(&object.database)), &what).await;
            match entered {
                Err(error) if error.code() == Some(1049) => return Ok(None),
                entered => entered?,
            }
            self.database.clone_from(&object.database);
            self.session.run("SET character_set_results = NULL", "asking for the text as it is").await?;
        }
        let Some(word) = word(object.kind) else { return Ok(None) };
        let query = format!("SHOW CREATE {word} {}", sql::identifier(&object.name));
        let row = match self.session.cells(&query, &what).await {
            // No such table, routine, trigger, event.
            Err(error) if matches!(error.code(), Some(1146 | 1305 | 1360 | 1539)) => return Ok(None),
            rows => rows?.into_iter().next(),
        };
        let Some(row) = row else { return Ok(None) };
        let bytes = |place: usize| row.get(place).cloned().flatten();
        let text = |place: usize| bytes(place).map(|value| String::from_utf8_lossy(&value).into_owned());
        let (statement, context) = match object.kind {
            ObjectKind::View => {
                let context = CreationContext {
                    client: text(2).unwrap_or_default(),
                    connection: text(3).unwrap_or_default(),
                    ..CreationContext::default()
                };
                (bytes(1), context)
            }
            ObjectKind::Event => (
                bytes(3),
                CreationContext {
                    sql_mode: text(1),
                    time_zone: text(2),
                    client: text(4).unwrap_or_default(),
                    connection: text(5).unwrap_or_default(),
                    database: text(6),
                },
            ),
            _ => (
                bytes(2),
                CreationContext {
                    sql_mode: text(1),
                    time_zone: None,
                    client: text(3).unwrap_or_default(),
                    connection: text(4).unwrap_or_default(),
                    database: text(5),
                },
            ),
        };
        let Some(statement) = statement.filter(|statement| !statement.is_empty()) else {
            return Err(MysqlError::Object {
                message: format!("{} does not show the text of {}", self.session.server(), named(object)),
                hint: format!(
                    "the account that dbmove uses there needs {}; or leave the object out with `exclude`",
                    self.privilege(object.kind)
                ),
            });
        };
        let mut definition = Definition { object: object.clone(), statement, context, lost_comment: None };
        self.in_one_charset(&mut definition).await?;
        Ok(Some(definition))
    }

    /// Puts the name of an event and the comment into the charset of the rest.
    async fn in_one_charset(&mut self, definition: &mut Definition) -> Result<()> {
        let charset = definition.context.client.clone();
        if definition.statement.is_ascii() || matches!(charset.as_str(), "utf8" | "utf8mb3" | "utf8mb4" | "binary") {
            return Ok(());
        }
        if let Some(name) = rewrite::name_in_utf8(&definition.statement, &definition.object.name)
            && let Some(converted) = self.converted(&sql::identifier(&definition.object.name), &charset).await?
        {
            definition.statement = rewrite::replaced(&definition.statement, &name, &converted);
        }
        let comment = self.comment(&definition.object).await?;
        if !comment.is_ascii()
            && let Some(clause) = rewrite::comment_clause(&definition.statement, &comment)
        {
            let printed = String::from_utf8_lossy(&definition.statement[clause.clone()]).into_owned();
            let converted = self.converted(&printed, &charset).await?;
            definition.statement = rewrite::replaced(&definition.statement, &clause, converted.as_deref().unwrap_or_default());
            definition.lost_comment = converted.is_none().then_some(comment);
        }
        Ok(())
    }

    /// A text in another charset; `None` if that lacks a character of it.
    async fn converted(&mut self, text: &str, charset: &str) -> Result<Option<Vec<u8>>> {
        let there = format!("CONVERT({} USING {charset})", sql::text(text));
        let query = format!("SELECT HEX({there}), HEX(CONVERT({there} USING utf8))");
        let row = self.session.first(&query, "converting a name or comment").await?.unwrap_or_default();
        let back = hex::decode(cell(&row, 1)).ok();
        Ok(hex::decode(cell(&row, 0)).ok().filter(|_| back.as_deref() == Some(text.as_bytes())))
    }

    /// What our account needs to be shown such an object.
    fn privilege(&self, kind: ObjectKind) -> &'static str {
        match kind {
            ObjectKind::View => "SHOW VIEW and SELECT on the database",
            ObjectKind::Trigger => "TRIGGER on the database",
            ObjectKind::Event => "EVENT on the database",
            _ if self.session.version.mysql_from((8, 0, 20)) => "SHOW_ROUTINE (`GRANT SHOW_ROUTINE ON *.* TO …`)",
            _ => "SELECT on `mysql.proc` (`GRANT SELECT ON mysql.proc TO …`)",
        }
    }

    /// The comment of a routine or event.
    async fn comment(&mut self, object: &OtherObject) -> Result<String> {
        let query = match object.kind {
            ObjectKind::Function | ObjectKind::Procedure => format!(
                "SELECT ROUTINE_COMMENT FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {} AND ROUTINE_NAME = {} AND ROUTINE_TYPE = {}",
                sql::text(&object.database),
                sql::text(&object.name),
                sql::text(&object.kind.to_string().to_ascii_uppercase())
            ),
            ObjectKind::Event => format!(
                "SELECT EVENT_COMMENT FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {} AND EVENT_NAME = {}",
                sql::text(&object.database),
                sql::text(&object.name)
            ),
            _ => return Ok(String::new()),
        };
        let row = self.session.first(&query, &format!("reading the comment of {}", named(object))).await?;
        Ok(row.map(|row| cell(&row, 0)).unwrap_or_default())
    }

    /// Whether it is an event that the source runs.
    #[must_use]
    pub fn is_enabled(definition: &Definition) -> bool {
        rewrite::event_status(&definition.statement, &definition.context.client).is_some_and(|(_, status)| status == "ENABLE")
    }

    /// Closes the session.
    pub async fn close(self) {
        self.session.close().await;
    }
}

fn cell(row: &[Option<String>], at: usize) -> String {
    row.get(at).and_then(Clone::clone).unwrap_or_default()
}
