//! The canary's own schema on both servers.
//!
//! | table | holds |
//! | --- | --- |
//! | `beat` (its name can be chosen) | one row per canary, overwritten by every beat |
//! | `dbmove_marker` | one row: whether this server is the source or the target, and of which run |
//!
//! The marker is how the canary knows which server answered, whatever stands between: ids and ports of two servers
//! may be the same, and change when a managed server fails over. It is also what says that the schema is dbmove's: a
//! schema without it is never used and never dropped, and one that holds other tables is left in place.
//!
//! Setting up needs CREATE, INSERT, DELETE, SELECT and DROP on the schema, on both servers. The source writes the beats
//! to its binary log, as it does for any client; they are not part of what moves.

use super::watch::Side;
use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::TableName;
use crate::mysql::sql;

/// The schema unless another is chosen.
pub const CANARY_SCHEMA: &str = "_dbmove_canary";
/// The beat table unless another is chosen.
pub const BEAT_TABLE: &str = "beat";
const MARKER_TABLE: &str = "dbmove_marker";

/// Where the canary writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BeatTable {
    pub(super) table: TableName,
}

impl BeatTable {
    pub(super) fn marker(&self) -> TableName {
        TableName::new(self.table.database.clone(), MARKER_TABLE)
    }

    /// One beat: overwrites this canary's row.
    pub(super) fn beat(&self, client: &str, number: u64) -> String {
        format!("REPLACE INTO {} (client, number) VALUES ({}, {number})", sql::table(&self.table), sql::text(client))
    }

    /// Creates what is missing and marks the server as `side` of `run`.
    pub(super) async fn set_up(&self, session: &mut Session, run: &str, side: Side) -> Result<()> {
        let database = sql::identifier(&self.table.database);
        match self.found(session).await? {
            None => {
                let what = format!("creating the canary's schema `{}`", self.table.database);
                session.write(format!("CREATE DATABASE {database}").as_bytes(), &what).await?;
            }
            Some(tables) if self.may_use(&tables) => {}
            Some(_) => {
                return Err(MysqlError::Object {
                    message: format!(
                        "the schema `{}` on the {} is not dbmove's (it has no `{MARKER_TABLE}`). Nothing was changed",
                        self.table.database,
                        session.server()
                    ),
                    hint: format!("choose another with `table`, such as `{CANARY_SCHEMA}.{BEAT_TABLE}`"),
                });
            }
        }
        let there = self.found(session).await?.unwrap_or_default();
        for (table, columns) in [
            (&self.marker(), "side VARBINARY(16) NOT NULL PRIMARY KEY, run VARBINARY(255) NOT NULL"),
            (&self.table, "client VARBINARY(255) NOT NULL PRIMARY KEY, number BIGINT UNSIGNED NOT NULL"),
        ] {
            if !there.contains(&table.table) {
                let statement = format!("CREATE TABLE {} ({columns}) ENGINE = InnoDB", sql::table(table));
                session.write(statement.as_bytes(), &format!("creating `{table}`")).await?;
            }
        }
        let marker = sql::table(&self.marker());
        let what = format!("marking the {} in `{}`", side.as_str(), self.marker());
        session.run("BEGIN", &what).await?;
        session.write(format!("DELETE FROM {marker}").as_bytes(), &what).await?;
        let statement = format!("INSERT INTO {marker} (side, run) VALUES ({}, {})", sql::text(side.as_str()), sql::text(run));
        session.write(statement.as_bytes(), &what).await?;
        session.run("COMMIT", &what).await
    }

    /// Drops the schema if it is this run's; else says why it was left.
    pub(super) async fn remove(&self, session: &mut Session, run: &str) -> Result<Option<String>> {
        let Some(tables) = self.found(session).await? else { return Ok(None) };
        let database = &self.table.database;
        let left = |why: String| Ok(Some(format!("`{database}` on the {}: {why}", session.server())));
        if !self.may_use(&tables) {
            return left(format!("it has no `{MARKER_TABLE}`, so it is not dbmove's"));
        }
        if let Some(foreign) = tables.iter().find(|table| **table != self.table.table && *table != MARKER_TABLE) {
            return left(format!("it holds `{foreign}`, which is not dbmove's"));
        }
        if tables.iter().any(|table| table == MARKER_TABLE) {
            let query = format!("SELECT run FROM {}", sql::table(&self.marker()));
            let owner = session.first(&query, &format!("reading `{}`", self.marker())).await?;
            if let Some(other) = owner.and_then(|row| row.into_iter().next().flatten()).filter(|owner| owner != run) {
                return Ok(Some(format!("`{database}` on the {}: it belongs to run `{other}`", session.server())));
            }
        }
        let what = format!("dropping the canary's schema `{database}`");
        session.write(format!("DROP DATABASE {}", sql::identifier(database)).as_bytes(), &what).await?;
        Ok(None)
    }

    /// The schema's tables; `None` if there is no such schema.
    async fn found(&self, session: &mut Session) -> Result<Option<Vec<String>>> {
        let name = sql::text(&self.table.database);
        let query = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {name}");
        if session.first(&query, "looking for the canary's schema").await?.is_none() {
            return Ok(None);
        }
        let query = format!("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {name}");
        let rows = session.rows(&query, "looking for the canary's tables").await?;
        Ok(Some(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()))
    }

    /// It is marked, or it is the empty schema of our name that a crash between two statements leaves.
    fn may_use(&self, tables: &[String]) -> bool {
        tables.iter().any(|table| table == MARKER_TABLE) || (tables.is_empty() && self.table.database == CANARY_SCHEMA)
    }
}
