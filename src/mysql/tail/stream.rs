//! The connection to the source's binary log, and the loop that reads it.
//!
//! The source is asked for a heartbeat every second of silence, so a dead connection is noticed
//! within [`SILENCE`] and reported as a lost one, which the caller retries from the saved position.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use mysql_async::binlog::events::{Event, QueryEvent, RotateEvent};
use mysql_async::{BinlogStream, BinlogStreamRequest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::dialect::{Dialect, Texts};
use super::event_type;
use super::load_data;
use super::statement::{self, Definition, Effect, Followed, Statement};
use super::transaction::{HandedOnAlready, Transaction};
use super::xa::{Prepared, Xid};
use super::{LogFile, MemoryLimit, Rows, TailEvent, weight};
use crate::mysql::connect::{Purpose, Server, Session, Version};
use crate::mysql::definitions::{self, Beginnings, Change, Misfits};
use crate::mysql::delete_memory::COMMIT_GAP;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::names::{Selection, TableName};
use crate::mysql::position::Position;
use crate::mysql::rows::{Decoder, RowsError, RowsEvent, TableMap};
use crate::mysql::status;
use crate::mysql::tables::{TableId, Tables};
use crate::playbook::model::OnDdl;

/// No event and no heartbeat for so long means that the connection is dead.
pub const SILENCE: Duration = Duration::from_secs(30);

/// How long the first event may take when it is only looked whether there is one.
const FIRST_EVENT: Duration = Duration::from_secs(10);

/// Reads the log of one source.
pub struct Tail {
    /// The source.
    pub server: Arc<Server>,
    /// What moves.
    pub selection: Arc<Selection>,
    /// The tables that move.
    pub tables: Arc<Tables>,
    /// Up to where the log is passed over, for tables that began later than the run.
    pub beginnings: Arc<Beginnings>,
    /// What to do about altered tables.
    pub on_ddl: OnDdl,
    /// Tables that began anew because rows did not fit.
    pub misfits: Arc<Misfits>,
    /// The source stores names in lower case, whatever was typed.
    pub lower_case_names: bool,
    /// A replica's number that nobody else uses on this source.
    pub server_id: u32,
    /// Memory of changes on their way.
    pub limit: MemoryLimit,
}

enum Mapped {
    Included(TableId, Box<Decoder>),
    Other,
}

/// One reading of the log, from a position until it ends.
pub(super) struct Reading<'a> {
    pub(super) tail: &'a Tail,
    pub(super) out: &'a mpsc::Sender<TailEvent>,
    pub(super) position: Position,
    maps: HashMap<u64, Mapped>,
    pub(super) transaction: Transaction,
    /// The last place between two transactions.
    pub(super) between: Position,
    /// Where the transaction being read began, if it is a two-phase one.
    pub(super) two_phase: Option<Position>,
    pub(super) prepared: Prepared,
    /// The latest beginning of a table whose rows were passed over, in the transaction that is read if that is a two-phase one, and by prepared
    /// transaction: committed behind it, its rows would be missing.
    pub(super) passed_over: Option<Position>,
    pub(super) passed_over_prepared: BTreeMap<Xid, Position>,
    /// A definition that changed in the transaction that is read.
    pub(super) changing: Option<Box<Change>>,
    /// Since when the same prepared transaction holds positions back, until that was said.
    pub(super) waiting: Option<(Xid, Option<Instant>)>,
    texts: Texts,
    version: Version,
}

/// What to do where the run can't go on from: the log that it needs says what can't be followed, now and when read again.
pub(super) const START_OVER: &str = "this run can't get past it: give it up with `dbmove undo PLAYBOOK`, which drops what it made on the target, then start again with `dbmove run PLAYBOOK --new-run`";

impl Tail {
    /// Reads from `start` until cancelled, and hands on what it finds.
    ///
    /// # Errors
    /// A lost connection is transient; everything else that ends the reading is not. Cancelling is
    /// [`MysqlError::Cancelled`].
    pub async fn read(&self, start: &Position, out: &mpsc::Sender<TailEvent>, cancel: &CancellationToken) -> Result<()> {
        let (mut stream, version) = self.open(start).await?;
        let heartbeats = version.mariadb || version.number >= (5, 5, 0);
        let mut reading = Reading {
            tail: self,
            out,
            position: start.clone(),
            maps: HashMap::new(),
            transaction: Transaction::default(),
            between: start.clone(),
            two_phase: None,
            prepared: Prepared::default(),
            passed_over: None,
            passed_over_prepared: BTreeMap::new(),
            changing: None,
            waiting: None,
            texts: Texts::of(&self.server),
            version,
        };
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

    /// Proves that the log can be read from `start`: opens the stream and waits for its first event.
    ///
    /// # Errors
    /// If the server refuses, or sends nothing.
    pub async fn probe(&self, start: &Position) -> Result<()> {
        let (mut stream, _) = self.open(start).await?;
        match tokio::time::timeout(FIRST_EVENT, stream.next()).await {
            Ok(Some(Ok(_))) => Ok(()),
            Ok(Some(Err(source))) => Err(self.broken(start, source)),
            Ok(None) | Err(_) => Err(self.lost(start, "the server sent no event")),
        }
    }

    async fn open(&self, start: &Position) -> Result<(BinlogStream, Version)> {
        let mut session = Session::open(&self.server, Purpose::Read).await?;
        let version = session.version.clone();
        let end = status::current_position(&mut session).await?;
        if end < *start {
            return Err(MysqlError::another_log(&end, &format!("it was followed up to {start} and ends at {end}")));
        }
        session.run("SET @master_heartbeat_period = 1000000000", "asking for heartbeats").await?;
        if version.mariadb {
            // Else the server writes its GTID events over with BEGIN for us, and gives up at a two-phase transaction, and with
            // "corrupt event" at one that is two bytes longer than it expects: that of a transaction of a savepoint alone,
            // committed in a group with others.
            session.run("SET @mariadb_slave_capability = 4", "saying that GTID events are understood").await?;
        }
        let request = BinlogStreamRequest::new(self.server_id).with_filename(start.file.as_bytes()).with_pos(start.offset);
        let stream = session.into_conn().get_binlog_stream(request).await.map_err(|source| self.broken(start, source))?;
        Ok((stream, version))
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
        self.position.advance(header.log_pos());
        match kind {
            event_type::QUERY => {
                let query: QueryEvent<'_> = event.read_event().map_err(|error| self.unreadable("a statement", &error))?;
                let text = self.texts.text(&query).await?;
                let dialect = Dialect::of(&query, self.tail.lower_case_names);
                self.statement(&text, &query.schema(), dialect, at).await
            }
            event_type::MARIADB_GTID => self.gtid(event.data()),
            event_type::XID => self.commit(at).await,
            event_type::TABLE_MAP => self.table_map(event.data()),
            kind if RowsEvent::is_rows(kind) => self.rows(kind, event.data(), at).await,
            kind if load_data::is_one(kind) => {
                if load_data::concerns(event, &self.tail.selection, self.tail.lower_case_names) {
                    return Err(self.stop(
                        "a `LOAD DATA` was logged as a statement; its rows are not in the log",
                        &format!("set `binlog_format = ROW` on the source for every session; {START_OVER}"),
                    ));
                }
                Ok(())
            }
            event_type::INCIDENT => {
                Err(self
                    .stop("the source reports that events were lost here (an incident event)", &format!("the log has a gap; {START_OVER}")))
            }
            event_type::XA_PREPARE => self.prepare(event.data(), at).await,
            event_type::TRANSACTION_PAYLOAD | event_type::MARIADB_QUERY_COMPRESSED => Err(self.stop(
                "the log is compressed",
                &format!(
                    "set `binlog_transaction_compression = OFF` (MySQL) or `log_bin_compress = OFF` (MariaDB) on the source; {START_OVER}"
                ),
            )),
            event_type::FORMAT_DESCRIPTION => {
                self.maps.clear();
                let file = LogFile { file: self.position.file.clone(), created: at, server_id: header.server_id() };
                self.send(TailEvent::LogFile(file)).await?;
                self.passed(at).await
            }
            event_type::STOP | event_type::HEARTBEAT | event_type::HEARTBEAT_V2 => {
                self.maps.clear();
                self.passed(at).await
            }
            event_type::PREVIOUS_GTIDS | event_type::MARIADB_GTID_LIST | event_type::MARIADB_BINLOG_CHECKPOINT => self.passed(at).await,
            kind if event_type::says_nothing(kind, header.flags_raw()) => Ok(()),
            kind => Err(self.stop(
                &format!("an event of type {kind}, which dbmove does not know; it may hold rows"),
                "keep the log file for a bug report",
            )),
        }
    }

    async fn rotate(&mut self, event: &Event, at: u32) -> Result<()> {
        let rotate: RotateEvent<'_> = event.read_event().map_err(|error| self.unreadable("a rotation", &error))?;
        if event.header().log_pos() == 0 || at == 0 {
            // Made up by the server. At the start it says what we asked for, and may carry a checksum in its name.
            if rotate.name_raw().starts_with(self.position.file.as_bytes()) {
                return Ok(());
            }
            // Later it stands for the one that a server did not write because it was stopped or died. What it had begun to
            // log then was never committed.
            if self.transaction.is_open() {
                let rows = self.transaction.rollback().map_err(|HandedOnAlready| self.too_large_to_roll_back())?;
                self.two_phase = None;
                self.send_rows(rows).await?;
            }
        }
        self.position = Position::new(rotate.name().into_owned(), rotate.position());
        self.maps.clear();
        self.passed(at).await
    }

    /// MariaDB's GTID event, which stands for BEGIN unless it is before a single statement that ends by itself.
    fn gtid(&mut self, body: &[u8]) -> Result<()> {
        /// A byte behind the sequence number (8 bytes) and the domain (4).
        const FLAGS: usize = 12;
        const STANDALONE: u8 = 1;
        const TWO_PHASE: u8 = 64;
        let Some(flags) = body.get(FLAGS) else {
            return Err(self.stop("a GTID event that is too short", &format!("keep the log file for a bug report; {START_OVER}")));
        };
        if flags & STANDALONE == 0 {
            self.begin(flags & TWO_PHASE != 0);
        }
        Ok(())
    }

    fn table_map(&mut self, body: &[u8]) -> Result<()> {
        let map = TableMap::parse(body).map_err(|error| error.at(self.position.clone()))?;
        let passed_over = self.tail.beginnings.covers(&map.name, &self.position);
        if passed_over && self.two_phase.is_some() {
            self.passed_over = self.passed_over.take().max(self.tail.beginnings.of(&map.name).cloned());
        }
        if !passed_over && self.tail.beginnings.is_gone(&map.name) {
            return Err(self.unexplained(&map.name));
        }
        let begins_anew = self.changing.as_ref().is_some_and(|change| change.tables.contains(&map.name));
        let mapped = if self.tail.selection.contains(&map.name.database, &map.name.table) && !passed_over && !begins_anew {
            match self.tail.tables.id(&map.name.database, &map.name.table) {
                Some(id) => {
                    let table = self.tail.tables.get(id).table.clone();
                    match Decoder::new(&map, table) {
                        Ok(decoder) => Mapped::Included(id, Box::new(decoder)),
                        Err(RowsError::SchemaChanged { .. }) if self.tail.on_ddl == OnDdl::Apply && self.begins_anew(&map.name) => {
                            Mapped::Other
                        }
                        Err(error) => return Err(error.at(self.position.clone())),
                    }
                }
                None if self.tail.beginnings.was_over(&self.position) || self.begins_anew(&map.name) => Mapped::Other,
                None => {
                    return Err(self.not_there(&map.name));
                }
            }
        } else {
            Mapped::Other
        };
        self.maps.insert(map.table_id, mapped);
        Ok(())
    }

    /// Rows that the definition doesn't fit: it was changed and changed back around the position where it was read. The statement that
    /// changed it back is still to come; as if it were here, the table begins anew behind the transaction. If that does not
    /// help, again and again, it is no trace of such a moment: `false`.
    fn begins_anew(&mut self, name: &TableName) -> bool {
        if self.two_phase.is_some() || !self.tail.misfits.is_new(name) {
            return false;
        }
        let change = Change {
            position: self.position.clone(),
            statement: format!("rows of `{name}` that its definition does not fit"),
            tables: BTreeSet::from([name.clone()]),
        };
        match &mut self.changing {
            Some(changing) => changing.tables.extend(change.tables),
            changing => *changing = Some(Box::new(change)),
        }
        true
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
                let rows = Rows { table: *id, emptied: None, changes, end: self.position.clone(), weight, permit: None };
                self.transaction.add(rows, transactional);
            }
            Some(Mapped::Other) => {}
            // The number that ends a statement's maps without rows.
            None if event.table_id == 0xff_ffff || event.table_id == 0xffff_ffff_ffff => {}
            None => return Err(self.stop("row changes without a table map before them", START_OVER)),
        }
        if ends_statement {
            self.maps.clear();
        }
        let limit = self.tail.limit.bytes() / 4;
        if self.two_phase.is_some() {
            if (self.transaction.weight() + self.prepared.weight()) as u64 > limit {
                return Err(self.stop(
                    "two-phase (XA) transactions that are prepared and not committed are larger than what may be held of them",
                    &format!("raise the store's `follow.memory`, or make the transactions smaller; {START_OVER}"),
                ));
            }
        } else if self.transaction.weight() as u64 > limit {
            let rows = self.transaction.hand_on();
            self.send_rows(rows).await?;
        }
        if ends_statement && !self.transaction.is_open() {
            return self.commit(at).await;
        }
        Ok(())
    }

    async fn statement(&mut self, query: &str, database: &str, dialect: Dialect, at: u32) -> Result<()> {
        match statement::classify(query, database, &self.tail.selection, dialect) {
            Statement::Begin => {
                self.begin(false);
                Ok(())
            }
            Statement::Xa(statement) => self.two_phase(statement, at).await,
            Statement::Truncate(name) => self.emptied(&name, query, at).await,
            Statement::DeleteAll(name) => {
                if self.tail.beginnings.covers(&name, &self.position) {
                    return self.passed(at).await;
                }
                let engine = self.tail.tables.id(&name.database, &name.table).map(|id| self.tail.tables.get(id).table.engine.clone());
                if engine.is_some_and(|engine| engine.eq_ignore_ascii_case("MEMORY")) {
                    return self.emptied(&name, query, at).await;
                }
                Err(self.by_statement(query))
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
                let shown = shown(statement::before_the_password(query));
                let note = format!("accounts or privileges changed on the {} at {}: {shown}", self.tail.server.side(), self.position);
                self.send(TailEvent::Note(note)).await?;
                self.passed(at).await
            }
            Statement::Object(kind) => {
                let shown = shown(query);
                let note =
                    format!("`{kind}` on the {} at {}, which is not carried by itself: {shown}", self.tail.server.side(), self.position);
                self.send(TailEvent::Note(note)).await?;
                self.passed(at).await
            }
            Statement::Definition(definition) => self.definition(definition, query, at).await,
            Statement::DataByStatement => Err(self.by_statement(query)),
        }
    }

    /// Tables that are followed were created, dropped, renamed or altered: those that don't begin behind it anyway begin anew.
    async fn definition(&mut self, definition: Definition, query: &str, at: u32) -> Result<()> {
        let tables: BTreeSet<TableName> = definition.tables.iter().filter(|name| self.concerned(&definition, name)).cloned().collect();
        let kind = &definition.kind;
        match definition.followed {
            Followed::Never => {}
            _ if tables.is_empty() => return self.passed(at).await,
            Followed::Altered if self.tail.on_ddl == OnDdl::Stop => {
                return Err(
                    self.stop(&format!("`{kind}` on what is moved: {}. Nothing of it was applied", shown(query)), definitions::ALTERED)
                );
            }
            Followed::Always | Followed::Altered => {
                let change = Box::new(Change { position: self.position.clone(), statement: shown(query), tables });
                if !self.transaction.is_open() {
                    return Err(MysqlError::DefinitionChanged(change));
                }
                // `CREATE … SELECT` in one transaction with its rows.
                match &mut self.changing {
                    Some(changing) => changing.tables.extend(change.tables),
                    changing => *changing = Some(change),
                }
                return Ok(());
            }
        }
        Err(self.stop(
            &format!("`{kind}` on what is moved: {}", shown(query)),
            &format!("nothing of it was applied, and {START_OVER}; let nobody change the structure until the switch is done"),
        ))
    }

    /// Whether a table that a statement names has to begin anew for it.
    fn concerned(&self, definition: &Definition, name: &TableName) -> bool {
        let gone = self.tail.beginnings.is_gone(name);
        let there = gone || self.tail.tables.id(&name.database, &name.table).is_some();
        match definition.effect {
            // `IF NOT EXISTS`, or it is in the log behind what was read of it already.
            Effect::Creates if there && !gone => return false,
            Effect::Drops if !there => return false,
            Effect::Creates | Effect::Drops | Effect::Changes => {}
        }
        gone || !self.tail.beginnings.covers(name, &self.position)
    }

    fn by_statement(&self, query: &str) -> MysqlError {
        self.stop(
            &format!("data of an included table changed by statement, its rows are not in the log: {}", shown(query)),
            &format!("set `binlog_format = ROW` on the source (a session keeps its own format until it reconnects); {START_OVER}"),
        )
    }

    /// The whole table was emptied by a statement.
    async fn emptied(&mut self, name: &TableName, query: &str, at: u32) -> Result<()> {
        if self.tail.beginnings.covers(name, &self.position) {
            return self.passed(at).await;
        }
        if self.tail.beginnings.is_gone(name) {
            return Err(self.unexplained(name));
        }
        let Some(id) = self.tail.tables.id(&name.database, &name.table) else {
            return if self.tail.beginnings.was_over(&self.position) { self.passed(at).await } else { Err(self.not_there(name)) };
        };
        let engine = &self.tail.tables.get(id).table.engine;
        if engine.eq_ignore_ascii_case("MRG_MYISAM") {
            return Err(self.stop(
                &format!("the tables below the MERGE table `{name}` were emptied: {}", shown(query)),
                &format!("exclude the MERGE table, which has no rows of its own; {START_OVER}"),
            ));
        }
        let old = !self.version.mariadb && self.version.number < (5, 5, 0);
        if old && !self.tail.tables.cascade_reaches(id).is_empty() {
            return Err(self.stop(
                &format!("`{name}` was emptied, and its foreign keys may have changed rows of other tables: {}", shown(query)),
                &format!("5.1 deletes row by row there and does not log what cascades; {START_OVER}"),
            ));
        }
        // From 5.5 on it is logged while nobody else may use the table; 5.1 may still commit row deletes behind it.
        let late = if old { COMMIT_GAP } else { Duration::ZERO };
        let rows = Rows { table: id, emptied: Some(late), changes: Vec::new(), end: self.position.clone(), weight: 0, permit: None };
        self.transaction.add(rows, false);
        if self.transaction.is_open() { Ok(()) } else { self.commit(at).await }
    }

    fn unexplained(&self, name: &TableName) -> MysqlError {
        self.stop(
            &format!("rows of `{name}` changed, whose definition on the source is another one than the target's, and no statement in the log says since when"),
            &format!("a definition was changed with `sql_log_bin = 0`, or a privilege was taken away; {START_OVER}"),
        )
    }

    fn not_there(&self, name: &TableName) -> MysqlError {
        self.stop(
            &format!("rows of `{name}` changed, a table that was not there when the run began"),
            &format!("exclude it in the playbook if it need not be moved; {START_OVER}"),
        )
    }

    pub(super) fn stop(&self, message: &str, hint: &str) -> MysqlError {
        MysqlError::Stream { position: self.position.clone(), message: message.to_owned(), hint: hint.to_owned() }
    }

    fn unreadable(&self, what: &str, error: &std::io::Error) -> MysqlError {
        self.stop(&format!("{what} that can't be read ({error})"), &format!("keep the log file for a bug report; {START_OVER}"))
    }

    fn too_large_to_roll_back(&self) -> MysqlError {
        self.stop(
            "a transaction larger than the memory limit was rolled back on the source after parts of it had been applied",
            &format!("raise the store's `follow.memory`; {START_OVER}"),
        )
    }
}

/// The start of a statement, for messages.
fn shown(text: &str) -> String {
    const SHOWN: usize = 200;
    let harmless = statement::before_an_address(text);
    let mut shown: String = harmless.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if harmless.len() < text.len() || text.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}
