//! Reads a window of a log, a server's or captured files' ([`origin`](super::origin)), and hands on its transactions.
//!
//! Following stops at whatever it can't follow ([`tail`](crate::mysql::tail)). A load has no such duty: what can't be replayed is left out and counted by
//! its reason. Rolled-back transactions are left out by the same rules as there ([`Transaction`]); a two-phase transaction counts when it is prepared.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mysql_async::binlog::events::{Event, QueryEvent, RotateEvent};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::origin::{Next, Origin};
use super::read::Read;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::Selection;
use crate::mysql::position::Position;
use crate::mysql::rows::{Decoder, RowsError, RowsEvent, TableMap};
use crate::mysql::tables::{TableId, Tables};
use crate::mysql::tail::dialect::Dialect;
use crate::mysql::tail::statement::{self, Statement};
use crate::mysql::tail::transaction::{HandedOnAlready, Transaction};
use crate::mysql::tail::xa::XaStatement;
use crate::mysql::tail::{MemoryLimit, Rows, event_type, load_data, weight};

/// What of the log may be in memory, in bytes.
pub const MEMORY: u64 = 64 << 20;
/// A transaction whose rows weigh more is left out, in bytes.
pub const LARGEST: usize = 32 << 20;

/// How often in a row a lost connection is made anew without having read anything.
const RECONNECTS: u32 = 10;

/// What a statement that changed rows is left out for.
const BY_STATEMENT: &str = "changes that were logged by statement: their rows are not in the log";

/// One transaction of the log.
#[derive(Debug)]
pub struct Logged {
    /// When it was logged: seconds since 1970 by the server's clock.
    pub at: u32,
    /// Its row changes, event by event.
    pub rows: Vec<Rows>,
    /// Memory it holds, roughly, in bytes.
    pub weight: usize,
    /// What holds that against the limit.
    pub permit: Option<OwnedSemaphorePermit>,
}

impl Logged {
    /// How many rows it changes.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.rows.iter().map(|rows| rows.changes.len() as u64).sum()
    }
}

/// What the reader hands on.
#[derive(Debug)]
pub enum Item {
    /// The next transaction.
    Transaction(Logged),
    /// The window is through.
    PassEnded,
}

/// Reads a log for one store.
pub struct LogReader {
    /// The copy's tables.
    pub tables: Arc<Tables>,
    /// What moves.
    pub selection: Arc<Selection>,
    /// Names are stored in lower case, whatever was typed.
    pub lower_case_names: bool,
    /// Memory of transactions on their way.
    pub limit: MemoryLimit,
    /// What was read.
    pub read: Arc<Read>,
}

enum Mapped {
    Included(TableId, Box<Decoder>),
    LeftOut(Option<String>),
}

struct Reading<'a> {
    reader: &'a LogReader,
    origin: &'a Origin,
    /// Transactions that were begun before do not belong to the window.
    from: u32,
    out: &'a mpsc::Sender<Item>,
    position: Position,
    /// The last place between two transactions.
    between: Position,
    /// A transaction that belongs to the window has begun.
    inside: bool,
    maps: HashMap<u64, Mapped>,
    transaction: Transaction,
    too_large: bool,
    handed_on: u64,
}

impl LogReader {
    /// Hands on the window's transactions, also over lost connections; says how many.
    ///
    /// # Errors
    /// If the server refuses (the log was purged), or stays away; if a file is not what it was; [`MysqlError::Cancelled`] if nobody takes what is read any more.
    pub async fn pass(&self, origin: &Origin, out: &mpsc::Sender<Item>) -> Result<u64> {
        let start = origin.start();
        let mut reading = Reading {
            reader: self,
            origin,
            from: origin.from(),
            out,
            position: start.clone(),
            between: start,
            inside: false,
            maps: HashMap::new(),
            transaction: Transaction::default(),
            too_large: false,
            handed_on: 0,
        };
        let mut lost = 0;
        loop {
            let before = reading.between.clone();
            match self.read_from(&mut reading).await {
                Err(error) if error.transient() => {
                    lost = if reading.between > before { 1 } else { lost + 1 };
                    if lost > RECONNECTS {
                        return Err(error);
                    }
                    tracing::warn!(%error, lost, "the connection by which the load is read was lost, connecting again");
                    tokio::time::sleep(Duration::from_millis(100 << lost.min(6))).await;
                    reading.position = reading.between.clone();
                    reading.transaction = Transaction::default();
                    reading.too_large = false;
                    reading.maps.clear();
                }
                ended => return ended.map(|()| reading.handed_on),
            }
        }
    }

    async fn read_from(&self, reading: &mut Reading<'_>) -> Result<()> {
        let mut events = reading.origin.open(&reading.position).await?;
        while !reading.is_through() {
            match events.next(&reading.position).await? {
                Next::Event(event) => {
                    // A header and what is behind it.
                    self.read.bytes.fetch_add(event.data().len() as u64 + 19, Ordering::Relaxed);
                    reading.event(&event).await?;
                }
                Next::File(begins) => reading.file(begins),
                Next::End => {
                    reading.leave_open_out();
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Reading<'_> {
    fn is_through(&self) -> bool {
        self.origin.ends_at(&self.position) && !self.transaction.is_open()
    }

    /// A captured file begins.
    fn file(&mut self, begins: Position) {
        self.leave_open_out();
        self.position = begins;
        self.between = self.position.clone();
        self.maps.clear();
    }

    /// Files end: what is open then was never committed, or its end is in a file that was not given.
    fn leave_open_out(&mut self) {
        if self.transaction.is_open() && self.inside {
            self.reader.read.leave_out("transactions whose end is not in the files".to_owned());
        }
        self.transaction = Transaction::default();
        self.too_large = false;
    }

    async fn event(&mut self, event: &Event) -> Result<()> {
        let (kind, at) = (event.header().event_type_raw(), event.header().timestamp());
        if kind == event_type::ROTATE {
            return self.rotate(event, at);
        }
        self.position.advance(event.header().log_pos());
        match kind {
            event_type::QUERY => {
                let query: QueryEvent<'_> = event.read_event().map_err(|error| self.unreadable(&error))?;
                let text = String::from_utf8_lossy(query.query_raw());
                let dialect = Dialect::of(&query, self.reader.lower_case_names);
                let meaning = statement::classify(&text, &query.schema(), &self.reader.selection, dialect);
                return self.statement(meaning, at).await;
            }
            // A byte behind the sequence number (8 bytes) and the domain (4); its lowest bit says that no transaction begins.
            event_type::MARIADB_GTID if event.data().get(12).is_some_and(|flags| flags & 1 == 0) => self.begin(at),
            event_type::XID | event_type::XA_PREPARE => return self.commit(at).await,
            event_type::TABLE_MAP => self.table_map(event.data()),
            kind if RowsEvent::is_rows(kind) => return self.rows(kind, event.data(), at).await,
            event_type::FORMAT_DESCRIPTION | event_type::STOP => {
                // What a server had begun to log when it died was never committed.
                self.transaction = Transaction::default();
                self.maps.clear();
            }
            event_type::TRANSACTION_PAYLOAD | event_type::MARIADB_QUERY_COMPRESSED => {
                return Err(MysqlError::Stream {
                    position: self.position.clone(),
                    message: format!("the log of the {} is compressed, and a load can't be made from it", self.origin),
                    hint: "set `binlog_transaction_compression = OFF` (MySQL) or `log_bin_compress = OFF` (MariaDB) there and wait until there is enough of the log, or rehearse without `--load`".to_owned(),
                });
            }
            kind if load_data::is_one(kind)
                && self.inside
                && load_data::concerns(event, &self.reader.selection, self.reader.lower_case_names) =>
            {
                self.reader.read.leave_out(BY_STATEMENT.to_owned());
            }
            event_type::INCIDENT if at >= self.from => {
                self.reader
                    .read
                    .leave_out("stretches that are missing in the log, as the server says itself there (incident events)".to_owned());
            }
            kind if at >= self.from && !says_no_rows(kind, event.header().flags_raw()) => {
                self.reader.read.leave_out(format!("events of type {kind}, which dbmove does not know: they may hold rows"));
            }
            _ => {}
        }
        if !self.transaction.is_open() {
            self.between = self.position.clone();
        }
        Ok(())
    }

    fn rotate(&mut self, event: &Event, at: u32) -> Result<()> {
        let rotate: RotateEvent<'_> = event.read_event().map_err(|error| self.unreadable(&error))?;
        let made_up = event.header().log_pos() == 0 || at == 0;
        // At the start it says what we asked for, and may carry a checksum in its name.
        if made_up && rotate.name_raw().starts_with(self.position.file.as_bytes()) {
            return Ok(());
        }
        self.position = Position::new(rotate.name().into_owned(), rotate.position());
        self.between = self.position.clone();
        self.transaction = Transaction::default();
        self.maps.clear();
        Ok(())
    }

    fn begin(&mut self, at: u32) {
        self.transaction.begin();
        self.too_large = false;
        self.inside = self.inside || at >= self.from;
    }

    async fn statement(&mut self, meaning: Statement, at: u32) -> Result<()> {
        match meaning {
            Statement::Begin | Statement::Xa(XaStatement::Start) => self.begin(at),
            Statement::Commit => return self.commit(at).await,
            Statement::Rollback => {
                let rows = self.transaction.rollback().unwrap_or_else(|HandedOnAlready| {
                    self.transaction = Transaction::default();
                    Vec::new()
                });
                return self.ended(rows, at).await;
            }
            Statement::Savepoint(name) => self.transaction.savepoint(name),
            // A larger one than may be held is left out as a whole.
            Statement::RollbackTo(name) => self.too_large |= self.transaction.rollback_to(&name).is_err(),
            Statement::Truncate(_) | Statement::DeleteAll(_) if self.inside => {
                self.reader.read.leave_out("statements that empty a table".to_owned())
            }
            Statement::Definition(_) if self.inside => self.reader.read.leave_out("statements that change definitions".to_owned()),
            Statement::DataByStatement if self.inside => {
                self.reader.read.leave_out(BY_STATEMENT.to_owned());
            }
            _ => {}
        }
        if !self.transaction.is_open() {
            self.between = self.position.clone();
        }
        Ok(())
    }

    fn table_map(&mut self, body: &[u8]) {
        let Ok(map) = TableMap::parse(body) else {
            self.reader.read.leave_out("table maps that can't be read".to_owned());
            return;
        };
        let (database, table) = (&map.name.database, &map.name.table);
        let mapped = if !self.reader.selection.contains(database, table) {
            Mapped::LeftOut(None)
        } else if let Some(id) = self.reader.tables.id(database, table) {
            match Decoder::new(&map, self.reader.tables.get(id).table.clone()) {
                Ok(decoder) => Mapped::Included(id, Box::new(decoder)),
                Err(_) => Mapped::LeftOut(Some(format!("row events of `{}`, which has another definition on the copy", map.name))),
            }
        } else {
            Mapped::LeftOut(Some(format!("row events of `{}`, which is not on the copy", map.name)))
        };
        self.maps.insert(map.table_id, mapped);
    }

    async fn rows(&mut self, kind: u8, body: &[u8], at: u32) -> Result<()> {
        let event = match RowsEvent::parse(kind, body) {
            Ok(event) => event,
            Err(error) => {
                self.leave_rows_out(None, &error);
                return Ok(());
            }
        };
        let ends_statement = event.ends_statement;
        match self.maps.get(&event.table_id) {
            Some(Mapped::Included(id, decoder)) if self.inside || !self.transaction.is_open() => {
                let changes: std::result::Result<Vec<_>, _> = decoder.changes(&event).and_then(Iterator::collect);
                match changes {
                    Ok(changes) => {
                        let transactional = decoder.table().engine.eq_ignore_ascii_case("InnoDB");
                        let weight = weight(&changes);
                        let rows = Rows { table: *id, emptied: None, changes, end: self.position.clone(), weight, permit: None };
                        self.transaction.add(rows, transactional);
                    }
                    Err(error) => {
                        let name = decoder.table().name.to_string();
                        self.leave_rows_out(Some(&name), &error);
                    }
                }
            }
            Some(Mapped::LeftOut(Some(why))) if self.inside => self.reader.read.leave_out(why.clone()),
            _ => {}
        }
        if ends_statement {
            self.maps.clear();
        }
        if self.transaction.weight() > LARGEST {
            self.too_large = true;
            drop(self.transaction.hand_on());
        }
        // A lone change of a table without transactions.
        if ends_statement && !self.transaction.is_open() {
            self.inside = self.inside || at >= self.from;
            return self.commit(at).await;
        }
        Ok(())
    }

    fn leave_rows_out(&self, table: Option<&str>, error: &RowsError) {
        let why = match (table, error) {
            (Some(table), RowsError::PartialImage { .. }) => format!("row events of `{table}` without full row images"),
            (Some(table), _) => format!("row events of `{table}` that can't be read"),
            (None, _) => "row events that can't be read".to_owned(),
        };
        self.reader.read.leave_out(why);
    }

    async fn commit(&mut self, at: u32) -> Result<()> {
        let rows = self.transaction.end();
        self.ended(rows, at).await
    }

    async fn ended(&mut self, rows: Vec<Rows>, at: u32) -> Result<()> {
        self.between = self.position.clone();
        if !self.inside {
            return Ok(());
        }
        if std::mem::take(&mut self.too_large) {
            self.reader.read.leave_out(format!("transactions of more than {} MiB of rows", LARGEST >> 20));
            return Ok(());
        }
        if rows.is_empty() {
            return Ok(());
        }
        // What a transaction weighs besides its rows, so that many small ones are not for nothing.
        let weight = rows.iter().map(|rows| rows.weight).sum::<usize>() + 1024;
        let permit = self.reader.limit.hold(weight).await;
        self.handed_on += 1;
        let logged = Logged { at, rows, weight, permit };
        // Nobody takes them any more: the load has ended.
        self.out.send(Item::Transaction(logged)).await.map_err(|_| MysqlError::Cancelled)
    }

    fn unreadable(&self, error: &std::io::Error) -> MysqlError {
        MysqlError::Stream {
            position: self.position.clone(),
            message: format!("an event of the {} that can't be read ({error})", self.origin),
            hint: "keep the log file for a bug report, and rehearse without `--load`".to_owned(),
        }
    }
}

/// Whether an event that is not looked at any further holds no rows for certain.
fn says_no_rows(kind: u8, flags: u16) -> bool {
    event_type::says_nothing(kind, flags)
        || load_data::is_one(kind)
        || matches!(
            kind,
            event_type::MARIADB_GTID
                | event_type::MARIADB_GTID_LIST
                | event_type::MARIADB_BINLOG_CHECKPOINT
                | event_type::PREVIOUS_GTIDS
                | event_type::INCIDENT
                | event_type::HEARTBEAT
                | event_type::HEARTBEAT_V2
        )
}
