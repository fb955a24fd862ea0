//! AUTO_INCREMENT counters: an id that was given out must not be given out again.
//!
//! A counter can be ahead of the largest row (rows were deleted, an INSERT was rolled back), so it does not come with the rows. The target's are raised to the
//! source's when all rows are in, and again at the switch, when nothing moves any more.
//!
//! MySQL 8 and later tell the next id of a table only while they have it open; of one that their cache has closed
//! (`table_definition_cache`), `information_schema` shows the last id that was given, which is one less (seen on 9.7). So where one
//! more would make a difference, the tables are opened and read again.

//! # On the way back
//!
//! `ALTER TABLE … AUTO_INCREMENT` writes the whole table anew on MySQL 5.5, and on every server where the table is not InnoDB's. In a rollback that
//! would be while writes are held, and nearly always: statements that the fence killed have used ids up. So there
//! an InnoDB table's counter is raised by a row with an id of ours that is rolled back: the counter stays where that put it. Where it does not (MyISAM rolls
//! nothing back; a row that can't be made of defaults), the table is altered near the rollback, while clients write, and to more than is needed.
//! What is used up behind that, in the last moment, is left and said: rows that are there are never given out twice, because each raises the counter as
//! it comes in; ids without a row may be, of statements that failed and of rows that were deleted right away.

use std::collections::BTreeMap;

use super::bookkeeping;
use super::connect::{Purpose, Session};
use super::error::Result;
use super::names::TableName;
use super::sql;
use super::store::MysqlStore;
use super::table::{Column, ColumnType};
use super::tables::MovedTable;

/// The next value of each moved table that counts.
pub type Counters = BTreeMap<TableName, u64>;

/// The source's and the target's, as of now.
///
/// # Errors
/// If they can't be read.
pub async fn both(store: &MysqlStore) -> Result<(Counters, Counters)> {
    let mut source = Session::open(&store.source, Purpose::Catalog).await?;
    let mut target = Session::open(&store.target, Purpose::Catalog).await?;
    let (mut ours, mut theirs) = (read(&mut source, store).await?, read(&mut target, store).await?);
    let here = |counters: &Counters, table: &TableName| counters.get(table).copied();
    if closes_tables(&source) {
        let unsure: Vec<TableName> = ours.keys().filter(|table| here(&ours, table) >= here(&theirs, table)).cloned().collect();
        ours.extend(opened(&mut source, &unsure).await?);
    }
    if closes_tables(&target) {
        let unsure: Vec<TableName> = theirs.keys().filter(|table| here(&theirs, table) < here(&ours, table)).cloned().collect();
        theirs.extend(opened(&mut target, &unsure).await?);
    }
    let counters = (ours, theirs);
    source.close().await;
    target.close().await;
    Ok(counters)
}

/// Raises the target's counters that are behind the source's. Gives the source's, and how many were raised.
///
/// # Errors
/// If they can't be read or the target refuses.
pub async fn raise(store: &MysqlStore) -> Result<(Counters, u64)> {
    let described = store.described().await?;
    let (wanted, held) = both(store).await?;
    let mut target = Session::open(&store.target, Purpose::Catalog).await?;
    let mut raised = 0;
    for (_, moved) in described.shared.tables.iter() {
        let name = moved.name();
        let Some(&counter) = wanted.get(name) else { continue };
        if held.get(name).is_some_and(|&now| now >= counter) {
            continue;
        }
        let statement = format!("ALTER TABLE {} AUTO_INCREMENT = {counter}", sql::table(name));
        target.run(&statement, &format!("raising the counter of `{name}`")).await?;
        raised += 1;
    }
    target.close().await;
    Ok((wanted, raised))
}

/// Whether writes are held while counters are raised on the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Clients write: it may take its time.
    Flow,
    /// Clients wait: no table is written anew.
    Held,
}

/// What came of raising counters on the way back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaisedBack {
    /// How many were raised.
    pub raised: u64,
    /// Tables whose counter is behind, with the ids that may be given out once more.
    pub left: Vec<String>,
}

/// Raises the old source's counters that are behind; see the module's comment. `back` is the store with its sides swapped.
///
/// # Errors
/// If they can't be read or the server refuses.
pub async fn raise_back(back: &MysqlStore, writes: Writes) -> Result<RaisedBack> {
    let described = back.described().await?;
    let (wanted, held) = both(back).await?;
    let mut source = Session::open(&back.target, Purpose::Catalog).await?;
    let mut done = RaisedBack::default();
    for (_, moved) in described.shared.tables.iter() {
        let name = moved.name();
        let Some(&counter) = wanted.get(name) else { continue };
        let now = held.get(name).copied().unwrap_or_default();
        if now >= counter {
            continue;
        }
        let by_row = raise_by_row(&mut source, moved, counter).await?;
        if by_row == ByRow::Raised {
            done.raised += 1;
            continue;
        }
        if writes == Writes::Held {
            done.left.push(format!("`{name}`: {now} to {}", counter - 1));
            continue;
        }
        if by_row == ByRow::Busy {
            // No reason to write it anew: it is tried again when writes are held.
            continue;
        }
        let more = counter + moved.target.columns.iter().find(|column| column.auto_increment).map_or(0, |column| headroom(column, counter));
        let statement = format!("ALTER TABLE {} AUTO_INCREMENT = {more}", sql::table(name));
        source.run(&statement, &format!("raising the counter of `{name}`")).await?;
        done.raised += 1;
    }
    source.close().await;
    Ok(done)
}

/// What came of a row that is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByRow {
    /// The counter is where it has to be.
    Raised,
    /// Somebody's locks were in the way.
    Busy,
    /// It can't be done so: another engine, or no row can be made of defaults.
    Impossible,
}

/// Raises an InnoDB table's counter by a row that is rolled back.
async fn raise_by_row(session: &mut Session, moved: &MovedTable, counter: u64) -> Result<ByRow> {
    let name = moved.name();
    let Some(column) = moved.target.columns.iter().find(|column| column.auto_increment) else { return Ok(ByRow::Impossible) };
    // By its name alone: old servers open every table for anything else.
    let query = format!(
        "SELECT ENGINE, AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        sql::text(&name.database),
        sql::text(&name.table)
    );
    let what = format!("raising the counter of `{name}`");
    let engine = session.first(&query, &what).await?.map(|row| bookkeeping::text(&row, 0)).unwrap_or_default();
    if !engine.eq_ignore_ascii_case("InnoDB") {
        return Ok(ByRow::Impossible);
    }
    if closes_tables(session) {
        session.run("SET SESSION information_schema_stats_expiry = 0", "setting up the session").await?;
    }
    for setting in ["sql_mode = ''", "foreign_key_checks = 0", "auto_increment_increment = 1", "auto_increment_offset = 1"] {
        session.run(&format!("SET SESSION {setting}"), "setting up the session").await?;
    }
    // Nobody waits for somebody else's lock here. (MySQL 5.1 has no such setting for a session.)
    if let Err(error) = session.run("SET SESSION innodb_lock_wait_timeout = 1", "setting up the session").await
        && error.code().is_none()
    {
        return Err(error);
    }
    // As INSERT … SELECT, so that a value that is taken in another unique index does not keep the counter from being raised.
    let row = format!("INSERT INTO {} ({}) SELECT {}", sql::table(name), sql::identifier(&column.name), counter - 1);
    let mut came = ByRow::Impossible;
    for _ in 0..ROW_TRIES {
        session.run("BEGIN", &what).await?;
        let inserted = session.run(&row, &what).await;
        if let Err(error) = &inserted
            && error.code().is_none()
        {
            return inserted.map(|()| came);
        }
        session.run("ROLLBACK", &what).await?;
        // An error says little: what came of it is seen.
        if session.first(&query, &what).await?.is_some_and(|row| bookkeeping::number(&row, 1) >= counter) {
            return Ok(ByRow::Raised);
        }
        came = if inserted.is_err_and(|error| error.transient()) { ByRow::Busy } else { ByRow::Impossible };
        if came == ByRow::Impossible {
            break;
        }
    }
    Ok(came)
}

/// How often a row that met somebody's locks is tried.
const ROW_TRIES: u32 = 3;

/// How much further than needed a counter is raised where that is dear: some seconds of any table's new rows, and little of what the column has left.
fn headroom(column: &Column, counter: u64) -> u64 {
    const MOST: u64 = 100_000;
    let bits = match column.kind {
        ColumnType::TinyInt => 8,
        ColumnType::SmallInt => 16,
        ColumnType::MediumInt => 24,
        ColumnType::Int => 32,
        ColumnType::BigInt => 64,
        _ => return 0,
    };
    let largest = u64::MAX >> (64 - bits + u32::from(!column.unsigned));
    MOST.min(largest.saturating_sub(counter) / 100)
}

/// Whether the server may say one less of a table that is not open.
fn closes_tables(session: &Session) -> bool {
    session.version.mysql_from((8, 0, 0))
}

/// The counters of these tables, each while it is open. The session's cache of statistics is off already, by [`read`].
async fn opened(session: &mut Session, tables: &[TableName]) -> Result<Counters> {
    /// Fewer than any server keeps open (`table_definition_cache` is 400 at least).
    const TOGETHER: usize = 50;
    let mut counters = Counters::new();
    for tables in tables.chunks(TOGETHER) {
        let open: Vec<String> = tables.iter().map(|table| format!("(SELECT 1 FROM {} LIMIT 0)", sql::table(table))).collect();
        session.rows(&open.join(" UNION ALL "), "opening tables to read their AUTO_INCREMENT counters").await?;
        let named: Vec<String> = tables
            .iter()
            .map(|table| format!("(TABLE_SCHEMA = {} AND TABLE_NAME = {})", sql::text(&table.database), sql::text(&table.table)))
            .collect();
        let query = format!("SELECT TABLE_SCHEMA, TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES WHERE {}", named.join(" OR "));
        for row in session.rows(&query, "reading AUTO_INCREMENT counters").await? {
            let name = TableName::new(bookkeeping::text(&row, 0), bookkeeping::text(&row, 1));
            // As they were asked for, whatever case the server answers in.
            if let Some(name) = tables.iter().find(|table| table.to_string().eq_ignore_ascii_case(&name.to_string())) {
                counters.insert(name.clone(), bookkeeping::number(&row, 2));
            }
        }
    }
    Ok(counters)
}

async fn read(session: &mut Session, store: &MysqlStore) -> Result<Counters> {
    let described = store.described().await?;
    if closes_tables(session) {
        // Else the server answers from a cache up to a day old.
        session.run("SET SESSION information_schema_stats_expiry = 0", "setting up the session").await?;
    }
    let databases: Vec<String> = described.schema.databases.iter().map(|database| sql::text(&database.name)).collect();
    let query = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES WHERE AUTO_INCREMENT IS NOT NULL AND TABLE_SCHEMA IN ({})",
        databases.join(", ")
    );
    // By name, in one query: there may be thousands of them, and writes are held meanwhile.
    let rows = session.rows(&query, "reading AUTO_INCREMENT counters").await?;
    let moved = rows.iter().filter_map(|row| {
        let id = described.shared.tables.id(&bookkeeping::text(row, 0), &bookkeeping::text(row, 1))?;
        Some((described.shared.tables.get(id).name().clone(), bookkeeping::number(row, 2)))
    });
    Ok(moved.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_leaves_the_column_most_of_its_range() {
        let column = |kind, unsigned| Column {
            name: "id".to_owned(),
            kind,
            type_text: String::new(),
            unsigned,
            zerofill: false,
            nullable: false,
            charset: None,
            collation: None,
            auto_increment: true,
            generated: false,
        };
        assert_eq!(headroom(&column(ColumnType::Int, false), 5), 100_000);
        assert_eq!(headroom(&column(ColumnType::BigInt, true), 5), 100_000);
        assert_eq!(headroom(&column(ColumnType::SmallInt, false), 32_000), 7);
        assert_eq!(headroom(&column(ColumnType::TinyInt, true), 255), 0);
        assert_eq!(headroom(&column(ColumnType::TinyInt, true), 256), 0);
        assert_eq!(headroom(&column(ColumnType::Double, false), 5), 0);
    }
}
