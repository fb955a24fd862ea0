//! What is kept on the target of each table's definition: `_dbmove.definition`, one row per name.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::Beginnings;
use crate::mysql::bookkeeping::{self, number, own_table, text};
use crate::mysql::connect::Session;
use crate::mysql::error::Result;
use crate::mysql::names::TableName;
use crate::mysql::position::Position;
use crate::mysql::sql;

/// How a table is on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there, made from the definition.
    Made,
    /// It is being made, or dropped: what there is of it counts for nothing.
    Making,
    /// It is not there, and was not on the source at its beginning.
    Absent,
    /// It was another one or not to be seen on the source at its beginning, and no statement of the log has said why: the target still has
    /// the one before.
    Gone,
}

impl State {
    const ALL: [(State, &str); 4] = [(State::Made, "made"), (State::Making, "making"), (State::Absent, "absent"), (State::Gone, "gone")];

    fn word(self) -> &'static str {
        State::ALL.iter().find(|(state, _)| *state == self).map_or("making", |(_, word)| word)
    }

    /// What is not understood is made again.
    fn read(word: &str) -> State {
        State::ALL.iter().find(|(_, known)| *known == word).map_or(State::Making, |(state, _)| *state)
    }
}

/// What is known of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How it is on the target.
    pub state: State,
    /// Digest of the source's definition that it was made from.
    pub definition: String,
    /// Its beginning; `None` if that is the run's.
    pub begin: Option<Position>,
}

/// A digest of what `SHOW CREATE TABLE` said. The counter's next value is no part of the definition.
#[must_use]
pub fn digest(statement: &str) -> String {
    const COUNTER: &str = " AUTO_INCREMENT=";
    // The options stand behind the last bracket that begins a line.
    let options = statement.rfind("\n)").unwrap_or(0);
    let mut text = statement.to_owned();
    if let Some(at) = statement[options..].find(COUNTER).map(|at| at + options) {
        let digits = statement[at + COUNTER.len()..].bytes().take_while(u8::is_ascii_digit).count();
        text.replace_range(at..at + COUNTER.len() + digits, "");
    }
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Reads a store's records. A target that was claimed before they were kept has none.
///
/// # Errors
/// If the table can't be read.
pub async fn read(session: &mut Session, store: &str) -> Result<BTreeMap<TableName, Record>> {
    let query = format!(
        "SELECT database_name, table_name, state, definition, file, file_offset FROM {} WHERE store = {}",
        own_table("definition"),
        sql::text(store)
    );
    let rows = match session.rows(&query, "reading which definitions are followed").await {
        Ok(rows) => rows,
        Err(error) if matches!(error.code(), Some(1049 | 1146)) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let record = |row: &Vec<Option<String>>| {
        let begin = Some(Position::new(text(row, 4), number(row, 5))).filter(|begin| !begin.file.is_empty());
        (TableName::new(text(row, 0), text(row, 1)), Record { state: State::read(&text(row, 2)), definition: text(row, 3), begin })
    };
    Ok(rows.iter().map(record).collect())
}

/// Saves records, in the transaction that is open.
///
/// # Errors
/// If the table can't be written.
pub async fn save(session: &mut Session, store: &str, records: &[(TableName, Record)]) -> Result<()> {
    /// Rows of a statement.
    const ROWS: usize = 500;
    for some in records.chunks(ROWS) {
        let values: Vec<String> = some
            .iter()
            .map(|(name, record)| {
                let begin = record.begin.clone().unwrap_or_else(|| Position::new("", 0));
                format!(
                    "({}, {}, {}, {}, {}, {}, {})",
                    sql::text(store),
                    sql::text(&name.database),
                    sql::text(&name.table),
                    sql::text(record.state.word()),
                    sql::text(&record.definition),
                    sql::text(&begin.file),
                    begin.offset
                )
            })
            .collect();
        let statement = format!(
            "REPLACE INTO {} (store, database_name, table_name, state, definition, file, file_offset) VALUES {}",
            own_table("definition"),
            values.join(", ")
        );
        session.write(statement.as_bytes(), "saving which definitions are followed").await?;
    }
    Ok(())
}

/// Forgets what was copied of a table, in the transaction that is open.
///
/// # Errors
/// If the tables can't be written.
pub async fn forget_copied(session: &mut Session, store: &str, name: &TableName) -> Result<()> {
    for table in ["chunk", "copied_table", "keyless"] {
        let statement = format!(
            "DELETE FROM {} WHERE store = {} AND database_name = {} AND table_name = {}",
            own_table(table),
            sql::text(store),
            sql::text(&name.database),
            sql::text(&name.table)
        );
        session.write(statement.as_bytes(), &format!("forgetting what was copied of `{name}`")).await?;
    }
    Ok(())
}

/// The tables that began anew and are not complete yet.
///
/// # Errors
/// If the tables can't be read.
pub async fn incomplete(session: &mut Session, store: &str) -> Result<Vec<TableName>> {
    let query = format!(
        "SELECT d.database_name, d.table_name FROM {} AS d LEFT JOIN {} AS c \
         ON c.store = d.store AND c.database_name = d.database_name AND c.table_name = d.table_name \
         WHERE d.store = {} AND d.state = 'made' AND d.file <> '' AND COALESCE(c.indexed, 0) = 0",
        own_table("definition"),
        own_table("copied_table"),
        sql::text(store)
    );
    let rows = session.rows(&query, "looking which tables are copied again").await?;
    Ok(rows.iter().map(|row| TableName::new(text(row, 0), text(row, 1))).collect())
}

/// Notes for tables just made by `mysql.prepare` what they were made from; what is noted already stays.
///
/// # Errors
/// If the table can't be read or written.
pub async fn note_prepared(session: &mut Session, store: &str, tables: &[(TableName, String)]) -> Result<()> {
    let known = read(session, store).await?;
    let new: Vec<(TableName, Record)> = tables
        .iter()
        .filter(|(name, _)| !known.contains_key(name))
        .map(|(name, definition)| (name.clone(), Record { state: State::Made, definition: definition.clone(), begin: None }))
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    session.run("BEGIN", "noting what the tables were made from").await?;
    save(session, store, &new).await?;
    session.run("COMMIT", "noting what the tables were made from").await
}

/// The beginnings that the records tell.
#[must_use]
pub fn beginnings(records: &BTreeMap<TableName, Record>) -> Beginnings {
    let at: HashMap<_, _> = records.iter().filter_map(|(name, record)| Some((name.clone(), record.begin.clone()?))).collect();
    let gone: HashSet<_> = records.iter().filter(|(_, record)| record.state == State::Gone).map(|(name, _)| name.clone()).collect();
    Beginnings::new(at, gone)
}

/// Locks the lease's row until the transaction ends: waits for everything of this driver that is on its way to be committed.
///
/// # Errors
/// [`crate::mysql::error::MysqlError::LeaseLost`] if another driver has taken over.
pub async fn keep_everybody_out(session: &mut Session, store: &str, epoch: crate::engine::step::Epoch) -> Result<()> {
    let query = format!("SELECT epoch FROM {} WHERE store = {} FOR UPDATE", own_table("lease"), sql::text(store));
    session.rows(&query, "waiting for what is being committed").await?;
    bookkeeping::hold_lease(session, store, epoch).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_value_of_a_counter_is_no_part_of_a_definition() {
        let table = |counter: &str, comment: &str| {
            format!("CREATE TABLE `t` (\n  `a` int COMMENT '{comment}'\n) ENGINE=InnoDB{counter} DEFAULT CHARSET=latin1")
        };
        assert_eq!(digest(&table(" AUTO_INCREMENT=7", "x")), digest(&table("", "x")));
        assert_eq!(digest(&table(" AUTO_INCREMENT=7", "x")), digest(&table(" AUTO_INCREMENT=8123", "x")));
        assert_ne!(digest(&table("", " AUTO_INCREMENT=7")), digest(&table("", " AUTO_INCREMENT=8")));
        assert_ne!(digest(&table("", "x")), digest(&table("", "y")));
    }

    #[test]
    fn a_state_that_is_not_understood_is_made_again() {
        for (state, word) in State::ALL {
            assert_eq!((State::read(word), state.word()), (state, word));
        }
        assert_eq!(State::read("of a later version"), State::Making);
    }
}
