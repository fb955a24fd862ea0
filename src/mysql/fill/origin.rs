//! What production holds, and the snapshot its rows are read in.
//!
//! The snapshot is opened first; then the log's end is asked for, and what there is. So all that is described was there or came later, and what
//! came later the server refuses to read in the snapshot. The end of the log is no exact place of the snapshot (that would need a lock on
//! all tables): what was committed before it is in the copy, and of what came right after it some may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::mysql::bookkeeping::text;
use crate::mysql::catalog::{Catalog, ServerFacts};
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::{Selection, TableName};
use crate::mysql::position::Position;
use crate::mysql::{sql, status};

/// Engines whose tables are rows of their own on their server. Others lead to other tables or other servers: a copy of such a table would write there.
const ENGINES: [&str; 9] = ["InnoDB", "MyISAM", "Aria", "MEMORY", "ARCHIVE", "CSV", "BLACKHOLE", "ROCKSDB", "TokuDB"];

/// The engine whose tables the snapshot holds.
const WITH_SNAPSHOT: &str = "InnoDB";

/// Production, described, with an open snapshot.
pub struct Origin {
    /// Reads rows, in the snapshot.
    pub rows: Session,
    catalog_session: Session,
    /// Settings.
    pub facts: ServerFacts,
    /// What moves.
    pub catalog: Catalog,
    /// How each table is created there.
    pub definitions: BTreeMap<TableName, Vec<u8>>,
    /// Where its log stood right before.
    pub position: Option<Position>,
}

/// How a server creates a table; in its words, but for the counter.
///
/// # Errors
/// If it does not say.
pub(super) async fn definition(session: &mut Session, table: &TableName) -> Result<Vec<u8>> {
    let what = format!("reading the definition of `{table}`");
    let rows = session.cells(&format!("SHOW CREATE TABLE {}", sql::table(table)), &what).await?;
    let statement = rows.into_iter().next().and_then(|row| row.into_iter().nth(1)).flatten();
    statement.ok_or_else(|| MysqlError::missing_value(&format!("{}: {what}", session.server())))
}

/// What production holds, without a snapshot: for a plan.
///
/// # Errors
/// If it can't be read, or holds what can't be copied.
pub async fn describe(from: &Arc<Server>, selection: &Selection) -> Result<Catalog> {
    let mut session = Session::open(from, Purpose::Catalog).await?;
    let catalog = Catalog::read(&mut session, selection).await?;
    session.close().await;
    copyable(from, &catalog)?;
    Ok(catalog)
}

fn copyable(from: &Arc<Server>, catalog: &Catalog) -> Result<()> {
    if catalog.tables.is_empty() {
        return Err(MysqlError::Object {
            message: format!("the {from} holds no table that `include` names, so there is nothing to copy from it. Nothing was changed"),
            hint: "check database and table names in `include`, and that the account may see them (SELECT)".to_owned(),
        });
    }
    let leads_away = |engine: &str| !ENGINES.iter().any(|known| known.eq_ignore_ascii_case(engine));
    let Some(table) = catalog.tables.values().find(|table| leads_away(&table.engine)) else { return Ok(()) };
    Err(MysqlError::Object {
        message: format!(
            "`{}` is of the engine `{}`, whose tables lead to others: a copy of it would write there. Nothing was changed",
            table.name, table.engine
        ),
        hint: "leave it out with `exclude`, or rehearse on a copy of your own: take `copy` out of `rehearsal`".to_owned(),
    })
}

/// Whether the rows of such tables come from the snapshot.
#[must_use]
pub fn in_snapshot(engine: &str) -> bool {
    engine.eq_ignore_ascii_case(WITH_SNAPSHOT)
}

impl Origin {
    /// Opens the snapshot, and reads what there is.
    ///
    /// # Errors
    /// If production can't be read, or holds what can't be copied.
    pub async fn open(from: &Arc<Server>, selection: &Selection) -> Result<Origin> {
        let mut session = Session::open(from, Purpose::Catalog).await?;
        let facts = ServerFacts::read(&mut session).await?;
        // Before the snapshot: all that is logged by then is in it.
        let position = if facts.log_bin { status::current_position(&mut session).await.ok() } else { None };
        let mut rows = Session::open(from, Purpose::Read).await?;
        rows.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "opening a snapshot").await?;
        rows.run("START TRANSACTION WITH CONSISTENT SNAPSHOT", "opening a snapshot").await?;
        rows.run("SAVEPOINT dbmove", "opening a snapshot").await?;
        let catalog = Catalog::read(&mut session, selection).await?;
        copyable(from, &catalog)?;
        let mut definitions = BTreeMap::new();
        for table in catalog.tables.keys() {
            definitions.insert(table.clone(), definition(&mut session, table).await?);
        }
        Ok(Origin { rows, catalog_session: session, facts, catalog, definitions, position })
    }

    /// Lets go of the table that was just read: whoever wants to alter it need not wait for the end of the snapshot.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn let_go(&mut self) -> Result<()> {
        self.rows.run("ROLLBACK TO SAVEPOINT dbmove", "letting go of a table").await
    }

    /// Refuses a table outside of the snapshot that was altered since it was described; in the snapshot the server does.
    ///
    /// # Errors
    /// If it was.
    pub async fn unchanged(&mut self, table: &TableName) -> Result<()> {
        let now = definition(&mut self.catalog_session, table).await?;
        let same = self.definitions.get(table).is_some_and(|then| without_counter(then) == without_counter(&now));
        if same { Ok(()) } else { Err(altered(table)) }
    }

    /// The tables whose rows don't come from the snapshot.
    #[must_use]
    pub fn without_snapshot(&self) -> Vec<String> {
        super::names(self.catalog.tables.values().filter(|table| !in_snapshot(&table.engine)).map(|table| &table.name))
    }

    /// Ends the snapshot.
    pub async fn close(self) {
        self.rows.close().await;
        self.catalog_session.close().await;
    }
}

/// A table that was altered meanwhile.
pub(super) fn altered(table: &TableName) -> MysqlError {
    MysqlError::Step(
        crate::engine::step::StepError::transient(format!(
            "`{table}` was altered on production while it was copied; it is copied again, in a new snapshot"
        ))
        .hint("if that goes on, rehearse when nobody alters tables"),
    )
}

/// A definition without ` AUTO_INCREMENT=7`, which every insert moves. It stands among the options, behind the last line that closes the columns.
pub(super) fn without_counter(definition: &[u8]) -> Vec<u8> {
    const OPTIONS: &[u8] = b"\n) ";
    const OPTION: &[u8] = b" AUTO_INCREMENT=";
    let find = |from: usize, what: &[u8]| definition[from..].windows(what.len()).position(|window| window == what).map(|at| from + at);
    let options = definition.windows(OPTIONS.len()).rposition(|window| window == OPTIONS).unwrap_or(0);
    let Some(at) = find(options, OPTION) else { return definition.to_vec() };
    let digits = definition[at + OPTION.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    [&definition[..at], &definition[at + OPTION.len() + digits..]].concat()
}

/// The names of a server's databases.
pub(super) async fn databases(session: &mut Session) -> Result<Vec<String>> {
    let rows = session.rows("SHOW DATABASES", "listing the databases").await?;
    Ok(rows.iter().map(|row| text(row, 0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_counter_is_left_out() {
        for end in ["", "\n/*!50100 PARTITION BY HASH (id)\nPARTITIONS 4 */"] {
            let columns = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT COMMENT ' AUTO_INCREMENT=1'\n) ENGINE=InnoDB";
            let without = format!("{columns} DEFAULT CHARSET=latin1{end}");
            let with = format!("{columns} AUTO_INCREMENT=17 DEFAULT CHARSET=latin1{end}");
            assert_eq!(without_counter(with.as_bytes()), without.as_bytes());
            assert_eq!(without_counter(without.as_bytes()), without.as_bytes());
        }
    }
}
