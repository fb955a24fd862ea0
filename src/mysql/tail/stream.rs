//! The connection to the source's binary log, and the loop that reads it.
//!
//! The source is asked for a heartbeat every second of silence, so a dead connection is noticed
//! within [`SILENCE`] and reported as a lost one, which the caller retries from the saved position.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use mysql_async::binlog::events::{Event, QueryEvent, RotateEvent};
use mysql_async::{BinlogStream, BinlogStreamRequest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::statement::{self, Statement};
use super::transaction::{HandedOnAlready, Transaction};
use super::{MemoryLimit, Rows, TailEvent, weight};
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::Selection;
use crate::mysql::position::Position;
use crate::mysql::rows::{Decoder, RowsEvent, TableMap};
use crate::mysql::tables::{TableId, Tables};

/// No event and no heartbeat for so long means that the connection is dead.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Event types, by their number in the header.
mod event_type {
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const LOAD: u8 = 6;
    pub const CREATE_FILE: u8 = 8;
    pub const EXEC_LOAD: u8 = 10;
    pub const NEW_LOAD: u8 = 12;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const XA_PREPARE: u8 = 38;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const MARIADB_GTID: u8 = 162;
    pub const MARIADB_QUERY_COMPRESSED: u8 = 165;
}

/// Reads the log of one source.
pub struct Tail {
    /// The source.
    pub server: Arc<Server>,
    /// What moves.
    pub selection: Arc<Selection>,
    /// The tables that move.
    pub tables: Arc<Tables>,
    /// A replica's number that nobody else uses on this source.
    pub server_id: u32,
    /// Memory of changes on their way.
    pub limit: MemoryLimit,
}

enum Mapped {
    Included(TableId, Box<Decoder>),
    Other,
}

struct Reading<'a> {
    tail: &'a Tail,
    out: &'a mpsc::Sender<TailEvent>,
    position: Position,
    maps: HashMap<u64, Mapped>,
    transaction: Transaction,
}

impl Tail {
    /// Reads from `start` until cancelled, and hands on what it finds.
    ///
    /// # Errors
    /// A lost connection is transient; everything else that ends the reading is not. Cancelling is
    /// [`MysqlError::Cancelled`].
    pub async fn read(&self, start: &Position, out: &mpsc::Sender<TailEvent>, cancel: &CancellationToken) -> Result<()> {
        let (mut stream, heartbeats) = self.open(start).await?;
        let mut reading = Reading { tail: self, out, position: start.clone(), maps: HashMap::new(), transaction: Transaction::default() };
        loop {
            let next = async {
                if !heartbeats {
                    return Ok(stream.next().await);
                }
                tokio::time::timeout(SILENCE, stream.next()).await
            };
            let event = tokio::select! {
                () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                event = next => event,
            };
            let event = match event {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(source))) => return Err(self.broken(&reading.position, source)),
                Ok(None) => return Err(self.lost(&reading.position, "the source ended the stream")),
                Err(_) => return Err(self.lost(&reading.position, "the source has been silent, heartbeats too")),
            };
            tokio::select! {
                () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                done = reading.event(&event) => done?,
            }
        }
    }

    async fn open(&self, start: &Position) -> Result<(BinlogStream, bool)> {
        let mut session = Session::open(&self.server, Purpose::Read).await?;
        let heartbeats = session.version.mariadb || session.version.number >= (5, 5, 0);
        session.run("SET @master_heartbeat_period = 1000000000", "asking for heartbeats").await?;
        if session.version.mariadb {
            // Else the server writes its GTID events over with BEGIN for us, and gives up with "corrupt event" at one that is two
            // bytes longer than it expects: that of a transaction of a savepoint alone, committed in a group with others.
            session.run("SET @mariadb_slave_capability = 4", "saying that GTID events are understood").await?;
        }
        let request = BinlogStreamRequest::new(self.server_id).with_filename(start.file.as_bytes()).with_pos(start.offset);
        let stream = session.into_conn().get_binlog_stream(request).await.map_err(|source| self.broken(start, source))?;
        Ok((stream, heartbeats))
    }

    fn broken(&self, position: &Position, source: mysql_async::Error) -> MysqlError {
        MysqlError::Statement {
            server: self.server.to_string(),
            what: format!("reading the binary log from {position}"),
            source: Box::new(source),
        }
    }

    fn lost(&self, position: &Position, why: &str) -> MysqlError {
        let source = std::io::Error::new(std::io::ErrorKind::ConnectionReset, why.to_owned());
        self.broken(position, mysql_async::Error::Io(mysql_async::IoError::Io(source)))
    }
}

impl Reading<'_> {
    async fn event(&mut self, event: &Event) -> Result<()> {
        let header = event.header();
        let kind = header.event_type_raw();
        let at = header.timestamp();
        if kind == event_type::ROTATE {
            return self.rotate(event, at).await;
        }
        self.advance(header.log_pos());
        match kind {
            event_type::QUERY => {
                let query: QueryEvent<'_> = event.read_event().map_err(|error| self.unreadable("a statement", &error))?;
                self.statement(query.query_raw(), &query.schema(), at).await
            }
            event_type::MARIADB_GTID => self.gtid(event.data()),
            event_type::XID => self.commit(at).await,
            event_type::TABLE_MAP => self.table_map(event.data()),
            kind if RowsEvent::is_rows(kind) => self.rows(kind, event.data(), at).await,
            event_type::LOAD | event_type::CREATE_FILE | event_type::EXEC_LOAD | event_type::NEW_LOAD | event_type::EXECUTE_LOAD_QUERY => {
                // The file's rows are not in the log, and which table they went to is in the statement.
                let concerns = match event.read_event::<mysql_async::binlog::events::ExecuteLoadQueryEvent<'_>>() {
                    Ok(load) if kind == event_type::EXECUTE_LOAD_QUERY => {
                        statement::classify(load.query_raw(), &load.schema(), &self.tail.selection) != Statement::Elsewhere
                    }
                    _ => true,
                };
                if concerns {
                    return Err(self.stop(
                        "a `LOAD DATA` was logged as a statement; its rows are not in the log",
                        "set `binlog_format = ROW` on the source for every session, then start again from a new copy",
                    ));
                }
                Ok(())
            }
            event_type::INCIDENT => Err(self.stop(
                "the source reports that events were lost here (an incident event)",
                "the log has a gap; start again from a new copy",
            )),
            event_type::XA_PREPARE => Err(self.stop(
                "an XA transaction was prepared; dbmove does not follow prepared XA transactions",
                "finish XA transactions on the source, keep applications from starting new ones, then start again from a new copy",
            )),
            event_type::TRANSACTION_PAYLOAD | event_type::MARIADB_QUERY_COMPRESSED => Err(self.stop(
                "the log is compressed",
                "set `binlog_transaction_compression = OFF` (MySQL) or `log_bin_compress = OFF` (MariaDB) on the source, then start again from a new copy",
            )),
            event_type::FORMAT_DESCRIPTION | event_type::STOP | event_type::HEARTBEAT => {
                self.maps.clear();
                self.passed(at).await
            }
            // Everything else (GTIDs, INTVAR, RAND, annotations …) only goes with another event.
            _ => Ok(()),
        }
    }

    /// The end of the event just read. Offsets in headers have 32 bits; a log file may be larger.
    fn advance(&mut self, log_pos: u32) {
        if log_pos == 0 {
            return;
        }
        let mut end = (self.position.offset & !0xffff_ffff) | u64::from(log_pos);
        if end < self.position.offset {
            if self.position.offset - end < 1 << 31 {
                return;
            }
            end += 1 << 32;
        }
        self.position.offset = end;
    }

    async fn rotate(&mut self, event: &Event, at: u32) -> Result<()> {
        // The one the server makes up at the start says what we asked for, and may carry a checksum in its name.
        if event.header().log_pos() == 0 || at == 0 {
            return Ok(());
        }
        let rotate: RotateEvent<'_> = event.read_event().map_err(|error| self.unreadable("a rotation", &error))?;
        self.position = Position::new(rotate.name().into_owned(), rotate.position());
        self.maps.clear();
        self.passed(at).await
    }

    /// MariaDB's GTID event, which stands for BEGIN unless it is before a single statement that ends by itself.
    fn gtid(&mut self, body: &[u8]) -> Result<()> {
        /// A byte behind the sequence number (8 bytes) and the domain (4).
        const FLAGS: usize = 12;
        const STANDALONE: u8 = 1;
        let Some(flags) = body.get(FLAGS) else {
            return Err(self.stop("a GTID event that is too short", "start again from a new copy; keep the log file for a bug report"));
        };
        if flags & STANDALONE == 0 {
            self.transaction.begin();
        }
        Ok(())
    }

    fn table_map(&mut self, body: &[u8]) -> Result<()> {
        let map = TableMap::parse(body).map_err(|error| error.at(self.position.clone()))?;
        let mapped = if self.tail.selection.contains(&map.name.database, &map.name.table) {
            match self.tail.tables.id(&map.name.database, &map.name.table) {
                Some(id) => {
                    let table = self.tail.tables.get(id).table.clone();
                    Mapped::Included(id, Box::new(Decoder::new(&map, table).map_err(|error| error.at(self.position.clone()))?))
                }
                None => {
                    return Err(self.stop(
                        &format!(
                            "rows of `{}.{}` changed, a table that was not there when the run began",
                            map.name.database, map.name.table
                        ),
                        "exclude it in the playbook, or start again from a new copy",
                    ));
                }
            }
        } else {
            Mapped::Other
        };
        self.maps.insert(map.table_id, mapped);
        Ok(())
    }

    async fn rows(&mut self, kind: u8, body: &[u8], at: u32) -> Result<()> {
        let event = RowsEvent::parse(kind, body).map_err(|error| error.at(self.position.clone()))?;
        let ends_statement = event.ends_statement;
        match self.maps.get(&event.table_id) {
            Some(Mapped::Included(id, decoder)) => {
                let changes: std::result::Result<Vec<_>, _> = decoder.changes(&event).and_then(Iterator::collect);
                let changes = changes.map_err(|error| error.at(self.position.clone()))?;
                let transactional = decoder.table().engine.eq_ignore_ascii_case("InnoDB");
                let weight = weight(&changes);
                let rows = Rows { table: *id, changes, end: self.position.clone(), weight, permit: None };
                self.transaction.add(rows, transactional);
            }
            Some(Mapped::Other) => {}
            // The number that ends a statement's maps without rows.
            None if event.table_id == 0xff_ffff || event.table_id == 0xffff_ffff_ffff => {}
            None => return Err(self.stop("row changes without a table map before them", "start again from a new copy")),
        }
        if ends_statement {
            self.maps.clear();
        }
        if self.transaction.weight() as u64 > self.tail.limit.bytes() / 4 {
            let rows = self.transaction.hand_on();
            self.send_rows(rows).await?;
        }
        if ends_statement && !self.transaction.is_open() {
            return self.commit(at).await;
        }
        Ok(())
    }

    async fn statement(&mut self, query: &[u8], database: &str, at: u32) -> Result<()> {
        match statement::classify(query, database, &self.tail.selection) {
            Statement::Begin => {
                self.transaction.begin();
                Ok(())
            }
            Statement::Commit => self.commit(at).await,
            Statement::Rollback => {
                let rows = self.transaction.rollback().map_err(|HandedOnAlready| self.too_large_to_roll_back())?;
                self.send_rows(rows).await?;
                self.ended(at).await
            }
            Statement::Savepoint(name) => {
                self.transaction.savepoint(name);
                Ok(())
            }
            Statement::RollbackTo(name) => self.transaction.rollback_to(&name).map_err(|HandedOnAlready| self.too_large_to_roll_back()),
            Statement::Elsewhere => self.passed(at).await,
            Statement::Accounts => {
                let shown = shown(query);
                self.send(TailEvent::Note(format!("accounts or privileges changed on the source at {}: {shown}", self.position))).await?;
                self.passed(at).await
            }
            Statement::Object(kind) => {
                let shown = shown(query);
                let note = format!("`{kind}` on the source at {}, which is not carried by itself: {shown}", self.position);
                self.send(TailEvent::Note(note)).await?;
                self.passed(at).await
            }
            Statement::Definition(kind) => Err(self.stop(
                &format!("`{kind}` on what is moved: {}", shown(query)),
                "nothing of it was applied. Start again from a new copy, and let nobody change the structure until the switch is done",
            )),
            Statement::DataByStatement => Err(self.stop(
                &format!("data of an included table changed by statement, its rows are not in the log: {}", shown(query)),
                "set `binlog_format = ROW` on the source (a session keeps its own format until it reconnects), then start again from a new copy",
            )),
        }
    }

    async fn commit(&mut self, at: u32) -> Result<()> {
        let rows = self.transaction.end();
        self.send_rows(rows).await?;
        self.ended(at).await
    }

    async fn ended(&mut self, at: u32) -> Result<()> {
        self.send(TailEvent::TransactionEnd { position: self.position.clone(), at }).await
    }

    async fn passed(&mut self, at: u32) -> Result<()> {
        if self.transaction.is_open() {
            return Ok(());
        }
        self.send(TailEvent::Passed { position: self.position.clone(), at }).await
    }

    async fn send_rows(&mut self, rows: Vec<Rows>) -> Result<()> {
        for mut rows in rows {
            rows.permit = self.tail.limit.hold(rows.weight).await;
            self.send(TailEvent::Rows(rows)).await?;
        }
        Ok(())
    }

    async fn send(&self, event: TailEvent) -> Result<()> {
        // Nobody takes events any more: the applier has stopped and says why.
        self.out.send(event).await.map_err(|_| MysqlError::Cancelled)
    }

    fn stop(&self, message: &str, hint: &str) -> MysqlError {
        MysqlError::Stream { position: self.position.clone(), message: message.to_owned(), hint: hint.to_owned() }
    }

    fn unreadable(&self, what: &str, error: &std::io::Error) -> MysqlError {
        self.stop(&format!("{what} that can't be read ({error})"), "start again from a new copy; keep the log file for a bug report")
    }

    fn too_large_to_roll_back(&self) -> MysqlError {
        self.stop(
            "a transaction larger than the memory limit was rolled back on the source after parts of it had been applied",
            "raise the store's `follow.memory`, then start again from a new copy",
        )
    }
}

/// The start of a statement, for messages.
fn shown(query: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(query);
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}
