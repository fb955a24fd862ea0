//! AUTO_INCREMENT counters: an id that was given out must not be given out again.
//!
//! A counter can be ahead of the largest row (rows were deleted, an INSERT was rolled back), so it does not come with the rows. The target's are raised to the
//! source's when all rows are in, and again at the switch, when nothing moves any more.

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
    let counters = (read(&mut source, store).await?, read(&mut target, store).await?);
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

async fn read(session: &mut Session, store: &MysqlStore) -> Result<Counters> {
    let described = store.described().await?;
    if session.version.mysql_from((8, 0, 0)) {
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
