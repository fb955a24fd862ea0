//! AUTO_INCREMENT counters: an id that was given out must not be given out again.
//!
//! A counter can be ahead of the largest row (rows were deleted, an INSERT was rolled back), so it does not come with the rows. The target's are raised to the
//! source's when all rows are in, and again at the switch, when nothing moves any more.
//!
//! MySQL 8 and later tell the next id of a table only while they have it open; of one that their cache has closed
//! (`table_definition_cache`), `information_schema` shows the last id that was given, which is one less (seen on 9.7). So where one
//! more would make a difference, the tables are opened and read again.

use std::collections::BTreeMap;

use super::bookkeeping;
use super::connect::{Purpose, Session};
use super::error::Result;
use super::names::TableName;
use super::sql;
use super::store::MysqlStore;

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
