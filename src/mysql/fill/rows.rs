//! The rows of a table: read from production, written to the copy, read back.
//!
//! One table after the other, by one reader and one writer with one piece between them. A table with a key is read page by page in its order, each
//! page from the key behind the last; one without a key at once. Where the engine would keep the table locked until the last row was taken,
//! which at a low rate is long, the server puts the page, or the table, aside first. Of every line that was read a digest is kept; the same digest over the copy's own rows has to be the same, or the table
//! is not whole. Nothing is compared on production: that would read it twice.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::origin::{self, Origin};
use super::pace::Pace;
use super::standing::{self, Whole};
use super::{Fill, name_of};
use crate::engine::crash;
use crate::mysql::bookkeeping;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::copy::{LoadPath, load};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::range::KeyRange;
use crate::mysql::read::{self, Order, Part, Scope};
use crate::mysql::tables::MovedTable;
use crate::verify::hash::RowHash;
use crate::verify::tally::Tally;

/// "Table definition has changed, please retry transaction".
const ALTERED: u16 = 1412;
/// "Access denied; you need … privilege(s)".
const NOT_ALLOWED: u16 = 1227;

/// The fewest and the most rows of a page.
const PAGE: (u64, u64) = (20, 20_000);

/// Both servers, ready for it.
pub(super) struct Copying<'a> {
    fill: &'a Fill<'a>,
    name: String,
    origin: &'a mut Origin,
    writer: Session,
    check: Session,
    path: LoadPath,
    pace: Pace,
}

/// Rows on their way.
struct Piece {
    lines: Bytes,
    rows: usize,
}

/// What was read of a table.
#[derive(Default)]
struct ReadRows {
    tally: Tally,
    bytes: u64,
}

impl<'a> Copying<'a> {
    /// Opens the sessions.
    pub(super) async fn open(fill: &'a Fill<'a>, origin: &'a mut Origin) -> Result<Copying<'a>> {
        let mut writer = Session::open(fill.to(), Purpose::Write).await?;
        match writer.run("SET SESSION sql_log_bin = 0", "keeping the copy out of the log").await {
            Err(error) if error.code() != Some(NOT_ALLOWED) => return Err(error),
            _ => {}
        }
        let path = load::choose(&mut writer, LoadPath::Auto).await?;
        let check = Session::open(fill.to(), Purpose::Read).await?;
        Ok(Copying { name: name_of(fill.store), pace: fill.pace(), fill, origin, writer, check, path })
    }

    pub(super) async fn close(self) {
        self.writer.close().await;
        self.check.close().await;
    }

    /// Copies a table that is empty on the copy, and notes it as whole.
    pub(super) async fn table(&mut self, table: &MovedTable) -> Result<Whole> {
        self.fill.progress.say(format!("copying `{}` from production", table.name()));
        let (out, pieces) = mpsc::channel(1);
        let reading = read_rows(self.fill, self.origin, &mut self.pace, table, out);
        let writing = write_rows(self.fill, &self.name, &mut self.writer, self.path, table, pieces);
        let (read, ()) = tokio::try_join!(reading, writing)?;
        if !origin::in_snapshot(&table.table.engine) {
            self.origin.unchanged(table.name()).await?;
        }
        let there = tally(&mut self.check, table).await?;
        if there != read.tally {
            return Err(MysqlError::Object {
                message: format!(
                    "`{}` of the copy is not what was read from production: {} rows were read and {} are there, {}",
                    table.name(),
                    read.tally.rows,
                    there.rows,
                    if there.rows == read.tally.rows { "and some hold other values" } else { "so rows are missing or too many" }
                ),
                hint: "the rehearsal's source does not keep what is written to it; look at its error log and settings".to_owned(),
            });
        }
        let whole = Whole { rows: read.tally.rows, bytes: read.bytes };
        let definition = self.origin.definitions.get(table.name()).cloned().unwrap_or_default();
        standing::note(&mut self.writer, &self.name, self.fill.context.epoch, table.name(), &definition, whole).await?;
        crash::point("fill.table_whole");
        Ok(whole)
    }
}

/// Reads a table from production, piece by piece.
async fn read_rows(
    fill: &Fill<'_>,
    origin: &mut Origin,
    pace: &mut Pace,
    table: &MovedTable,
    out: mpsc::Sender<Piece>,
) -> Result<ReadRows> {
    let columns = read::stored_columns(&table.table);
    let (keyed, in_snapshot) = (table.key.is_some(), origin::in_snapshot(&table.table.engine));
    let mut done = ReadRows::default();
    let mut range = KeyRange::all();
    let mut row_bytes = table.table.data_bytes.checked_div(table.table.row_estimate).unwrap_or(0).max(1);
    loop {
        fill.go_on()?;
        // A pause is no reason to hold a result, or a table, open.
        tokio::select! {
            () = fill.context.cancel.cancelled() => return Err(MysqlError::Cancelled),
            () = fill.context.steering.turn() => {}
        }
        pace.turn().await;
        let page = (pace.piece() as u64 / row_bytes).clamp(PAGE.0, PAGE.1);
        let (scope, order, part) = match (keyed, in_snapshot) {
            (true, true) => (Scope::Range(&range), Order::ByKey, Part::First(page)),
            (true, false) => (Scope::Range(&range), Order::ByKey, Part::PutAside(Some(page))),
            (false, true) => (Scope::Table, Order::Any, Part::All),
            (false, false) => (Scope::Table, Order::Any, Part::PutAside(None)),
        };
        let opened = read::fields(&mut origin.rows, &table.table, &columns, &scope, order, part).await;
        let mut rows = opened.map_err(|error| if error.code() == Some(ALTERED) { origin::altered(table.name()) } else { error })?;
        let (before, mut last, mut ended) = (done.tally.rows, None, false);
        while !ended {
            let (mut lines, mut count) = (Vec::with_capacity(pace.piece()), 0);
            while lines.len() < pace.piece() {
                let begin = lines.len();
                let Some(key) = rows.next(&mut lines).await? else {
                    ended = true;
                    break;
                };
                done.tally.add(RowHash::of(&lines[begin..]));
                count += 1;
                last = Some(key);
            }
            pace.spent(lines.len());
            fill.context.steering.spent(count as u64, lines.len() as u64);
            done.bytes += lines.len() as u64;
            fill.progress.bytes.fetch_add(lines.len() as u64, std::sync::atomic::Ordering::Relaxed);
            if count > 0 {
                out.send(Piece { lines: lines.into(), rows: count }).await.map_err(|_| MysqlError::Cancelled)?;
            }
            if !ended {
                pace.turn().await;
            }
        }
        drop(rows);
        if in_snapshot {
            origin.let_go().await?;
        }
        let read = done.tally.rows - before;
        if !keyed || read < page {
            return Ok(done);
        }
        row_bytes = (done.bytes / done.tally.rows.max(1)).max(1);
        range.after = last;
    }
}

/// Writes what comes, a transaction a piece.
async fn write_rows(
    fill: &Fill<'_>,
    name: &str,
    writer: &mut Session,
    path: LoadPath,
    table: &MovedTable,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<()> {
    while let Some(piece) = pieces.recv().await {
        writer.run("BEGIN", "opening a transaction").await?;
        bookkeeping::hold_lease(writer, name, fill.context.epoch).await?;
        let loaded = load::load(writer, table, path, piece.lines, piece.rows).await?;
        if loaded.skipped > 0 {
            return Err(MysqlError::Object {
                message: format!("the copy refused {} rows of `{}` as duplicates that production holds", loaded.skipped, table.name()),
                hint:
                    "a unique index of that table is broken on production, or it was written to while an engine without snapshots was read"
                        .to_owned(),
            });
        }
        writer.run("COMMIT", "committing rows").await?;
        fill.progress.rows.fetch_add(piece.rows as u64, std::sync::atomic::Ordering::Relaxed);
        crash::point("fill.rows_committed");
    }
    Ok(())
}

/// The digest of a table of the copy.
async fn tally(session: &mut Session, table: &MovedTable) -> Result<Tally> {
    let columns = read::stored_columns(&table.table);
    let mut rows = read::stream_fields(session, &table.table, &columns, &Scope::Table, Order::Any).await?;
    let (mut tally, mut line) = (Tally::default(), Vec::new());
    while rows.next(&mut line).await?.is_some() {
        tally.add(RowHash::of(&line));
        line.clear();
    }
    Ok(tally)
}
