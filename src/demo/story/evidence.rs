//! What the story looks up for itself, so that it does not have to believe what a child said: rows on a server, the
//! journal's state of a step, the old server's transfers on the new one. And what it keeps when everything else is removed.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Row, Value};

use super::error::DemoError;
use super::place::{Place, address};
use super::playbook;
use crate::demo::Endpoint;
use crate::demo::ledger::{Entry, LedgerReading};
use crate::demo::school::DATABASE;
use crate::engine::context::RunKind;
use crate::engine::journal::{Event, JournalReader, RunState};
use crate::engine::step::Probe;
use crate::local::{Account, LocalServer};
use crate::mysql::sql;
use crate::report::model::Report;
use crate::report::{terminal, timeline};
use crate::telemetry::burn_down::burn_down;

/// A connection that may look at everything.
///
/// # Errors
/// What the driver or the server said.
pub async fn connect(server: &LocalServer) -> Result<Conn, DemoError> {
    Conn::new(server.connect_options(Account::Root, None)).await.map_err(|source| asked(server, source))
}

fn asked(server: &LocalServer, source: mysql_async::Error) -> DemoError {
    DemoError::Server { server: format!("{} on {}", server.kind(), address(server)), source }
}

/// All rows of the school's tables that are on a server, counted one table after the other.
///
/// # Errors
/// What the driver or the server said.
pub async fn rows_on(server: &LocalServer, conn: &mut Conn) -> Result<u64, DemoError> {
    let count = async {
        let tables: Vec<String> = conn
            .exec("SELECT table_name FROM information_schema.tables WHERE table_schema = ? AND table_type = 'BASE TABLE'", (DATABASE,))
            .await?;
        let mut rows = 0;
        for table in &tables {
            let counted =
                conn.query_first(format!("SELECT COUNT(*) FROM {}.{}", sql::identifier(DATABASE), sql::identifier(table))).await?;
            rows += counted.unwrap_or(0_u64);
        }
        Ok(rows)
    };
    count.await.map_err(|source| asked(server, source))
}

/// The production run as the journal has it; none before it began.
///
/// # Errors
/// If the journal can't be read.
pub fn production_run(place: &Place) -> Result<Option<RunState>, DemoError> {
    let reader = JournalReader::open(&place.state())?;
    let latest = reader.latest_run(playbook::NAME, RunKind::Production)?;
    Ok(latest.map(|run| reader.state(&run.run)).transpose()?)
}

/// The forecast of the newest production run's driver, as a table.
///
/// # Errors
/// If the journal can't be read.
pub fn forecast(place: &Place) -> Result<Vec<String>, DemoError> {
    let Some(run) = production_run(place)? else { return Ok(Vec::new()) };
    let events = JournalReader::open(&place.state())?.events(&run.run, 0)?;
    let newest = events.iter().rev().find_map(|recorded| match &recorded.event {
        Event::Forecast { forecast } => Some(burn_down(forecast)),
        _ => None,
    });
    Ok(newest.unwrap_or_default())
}

/// The newest cutover of the newest production run, a line a step.
///
/// # Errors
/// If the journal can't be read.
pub fn second_by_second(place: &Place) -> Result<Vec<String>, DemoError> {
    let Some(run) = production_run(place)? else { return Ok(Vec::new()) };
    let events = JournalReader::open(&place.state())?.events(&run.run, 0)?;
    let timelines = timeline::timelines(&events, &run.plan);
    Ok(timelines.first().map(terminal::second_by_second).unwrap_or_default())
}

/// Whether a later process found the run's copy partly done.
///
/// # Errors
/// If the journal can't be read.
pub fn copy_went_on(place: &Place, run: &str) -> Result<bool, DemoError> {
    let events = JournalReader::open(&place.state())?.events(run, 0)?;
    let partly = |event: &Event| matches!(event, Event::Probed { step, probe: Probe::Partly { .. } } if step == playbook::COPY_STEP);
    Ok(events.iter().any(|recorded| partly(&recorded.event)))
}

/// The report a child wrote.
///
/// # Errors
/// If it wrote none, or it can't be read.
pub fn report(path: Option<&Path>) -> Result<Report, DemoError> {
    let path = path.ok_or(DemoError::NoReport)?;
    let failed = |source| DemoError::File { action: "read the report", path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| failed(error.into()))
}

/// Compares the transfers of the old server, which nobody can write to any more, with the same ones on the new
/// server, by plain SELECTs, value by value. Users only ever add transfers, so every difference is a mistake of the
/// move. Returns how many are the same.
///
/// # Errors
/// [`DemoError::TransfersDiffer`] at the first difference, [`DemoError::NotFrozen`] if the old server can be written
/// to; or what a server said.
pub async fn transfers_as_they_were(place: &Place) -> Result<u64, DemoError> {
    let (source, target) = (&place.production.source, &place.production.target);
    let read = async |server: &LocalServer| {
        let endpoint = Endpoint::new(server.host(), server.port(), Account::Root.user(), "");
        endpoint.connect_as_reader().await.map_err(|error| asked(server, error))
    };
    let (mut old, mut new) = (read(source).await?, read(target).await?);
    let frozen: Option<bool> = old.query_first("SELECT @@global.read_only").await.map_err(|error| asked(source, error))?;
    if frozen != Some(true) {
        return Err(DemoError::NotFrozen);
    }
    let on_old = transfers(&mut old).await.map_err(|error| asked(source, error))?;
    let on_new = transfers(&mut new).await.map_err(|error| asked(target, error))?;
    first_ones_alike(&on_old, on_new, &LedgerReading::read(&place.ledger())?.entries)?;
    Ok(on_old.len() as u64)
}

/// A transfer's row, as the server shows it.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    reference: String,
    values: Vec<Value>,
}

/// All transfers by their ids: references are not unique, so that one that arrives twice is seen as two.
async fn transfers(conn: &mut Conn) -> mysql_async::Result<BTreeMap<u64, Shown>> {
    let rows: Vec<Row> = conn.query(format!("SELECT * FROM {DATABASE}.transfers")).await?;
    let unreadable = || std::io::Error::other("a transfer's id or reference can't be read");
    let shown = |row: Row| {
        let id = row.get_opt::<u64, _>("id").and_then(Result::ok).ok_or_else(unreadable)?;
        let reference = row.get_opt::<String, _>("reference").and_then(Result::ok).ok_or_else(unreadable)?;
        Ok((id, Shown { reference, values: row.unwrap_raw().into_iter().flatten().collect() }))
    };
    rows.into_iter().map(shown).collect()
}

/// The old server has the *first* transfers, all of them, as the new one has them. First by their commits, not by their ids: of two that
/// are under way at once the one with the greater id may be committed first, and be the last that the way back took along. So one that is
/// on the new server alone must not have been acknowledged before the COMMIT of any that is on the old one was sent.
fn first_ones_alike(
    on_old: &BTreeMap<u64, Shown>,
    mut on_new: BTreeMap<u64, Shown>,
    ledger: &HashMap<String, Entry>,
) -> Result<(), DemoError> {
    let differ = |old: Option<&Shown>, new: Option<&Shown>| DemoError::TransfersDiffer { old: format!("{old:?}"), new: format!("{new:?}") };
    for (id, old) in on_old {
        match on_new.remove(id) {
            Some(new) if new == *old => {}
            new => return Err(differ(Some(old), new.as_ref())),
        }
    }
    let last = on_old.values().filter_map(|transfer| ledger.get(&transfer.reference)).map(|entry| entry.begun_at).max();
    let later = |entry: &Entry| entry.settled_at.is_none_or(|settled| Some(settled) >= last);
    match on_new.values().find(|transfer| !ledger.get(&transfer.reference).is_some_and(later)) {
        Some(missed) => Err(differ(None, Some(missed))),
        None => Ok(()),
    }
}

/// Copies report and journal out of what will be removed, to `dbmove-demo/RUN` in the working directory. Returns that
/// directory: it can be given to `dbmove report --state-dir`.
///
/// # Errors
/// If they can't be written.
pub fn keep(place: &Place, report: &Report, report_file: &Path) -> Result<PathBuf, DemoError> {
    let directory = Path::new("dbmove-demo").join(&report.run.id);
    let failed = |path: &Path, source| DemoError::File { action: "keep", path: path.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|error| failed(&directory, error))?;
    let kept = directory.join("report.json");
    std::fs::copy(report_file, &kept).map_err(|error| failed(&kept, error))?;
    let journal = directory.join("journal.sqlite");
    let kept_journal = || -> rusqlite::Result<()> {
        let all = rusqlite::Connection::open(place.state().join("journal.sqlite"))?;
        all.execute("VACUUM INTO ?1", [journal.to_string_lossy()])?;
        Ok(())
    };
    kept_journal().map_err(|error| failed(&journal, std::io::Error::other(error)))?;
    std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o600)).map_err(|error| failed(&journal, error))?;
    directory.canonicalize().map_err(|error| failed(&directory, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ledger::{Outcome, Transfer};

    fn entry(reference: &str, begun_at: i64, settled_at: Option<i64>) -> (String, Entry) {
        let transfer = Transfer { reference: reference.to_owned(), from_account: 1, to_account: 2, amount: 3 };
        let outcome = if settled_at.is_some() { Outcome::Kept } else { Outcome::InDoubt };
        (reference.to_owned(), Entry { transfer, endpoint: "new:1".to_owned(), begun_at, settled_at, outcome })
    }

    fn rows(of: &[(&str, u64)]) -> BTreeMap<u64, Shown> {
        of.iter().map(|&(reference, id)| (id, Shown { reference: reference.to_owned(), values: vec![Value::UInt(id)] })).collect()
    }

    #[test]
    fn the_old_server_has_the_first_transfers_whatever_their_ids() {
        // `b` has the smaller id, and was committed after `c`; of `d` nobody knows when.
        let ledger = HashMap::from([entry("a", 10, Some(20)), entry("b", 29, Some(40)), entry("c", 30, Some(35)), entry("d", 5, None)]);
        let new = rows(&[("seeded", 1), ("a", 2), ("b", 3), ("c", 4), ("d", 5)]);
        let alike = |old: &[(&str, u64)], new: &BTreeMap<u64, Shown>| first_ones_alike(&rows(old), new.clone(), &ledger);
        alike(&[("seeded", 1), ("a", 2), ("c", 4)], &new).unwrap();
        alike(&[("seeded", 1), ("a", 2)], &new).unwrap();
        // `a` was acknowledged before the COMMIT of `c` was sent.
        alike(&[("seeded", 1), ("c", 4)], &new).unwrap_err();
        // No user asked for it while the demo ran, so it has been there from the start.
        alike(&[("a", 2)], &new).unwrap_err();
        // Missing on the new one, and other there.
        alike(&[("seeded", 1), ("e", 6)], &new).unwrap_err();
        alike(&[("seeded", 1), ("a", 7)], &new).unwrap_err();
        // Twice on the old one, with one reference.
        alike(&[("seeded", 1), ("a", 2), ("a", 7)], &new).unwrap_err();
    }
}
