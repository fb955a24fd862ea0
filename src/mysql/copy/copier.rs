//! Runs the copy: planner, readers, writers and index builders over the waves of tables.
//!
//! All of them are futures of one [`tokio::task::JoinSet`]: if one fails the others are aborted, and
//! what their transactions had not committed is rolled back by the server.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::keyless::{self, KeylessCopy};
use super::plan::{self, Pace, TableState};
use super::progress::CopyProgress;
use super::read_chunk::Reader;
use super::write_chunk::{Entered, Writer};
use super::{Chunk, CopySettings, LoadPath, LoadedChunk, indexes, load};
use crate::engine::steering::Steering;
use crate::engine::step::Epoch;
use crate::mysql::apply::applier::Applied;
use crate::mysql::bookkeeping;
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::definitions::Guard;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::range_gate::ChunkPass;
use crate::mysql::shared::Shared;
use crate::mysql::tables::TableId;
use crate::mysql::tail::MemoryLimit;
use crate::mysql::verification::Verifier;

/// The statements that a table gets after its rows.
#[derive(Clone, Debug, Default)]
pub struct AfterRows {
    /// Secondary indexes.
    pub indexes: Vec<String>,
    /// Foreign keys, once all tables are there.
    pub foreign_keys: Vec<String>,
}

/// Copies a store's tables.
#[derive(Clone)]
pub struct Copier {
    /// What the store's steps share.
    pub shared: Arc<Shared>,
    /// The source.
    pub source: Arc<Server>,
    /// The target.
    pub target: Arc<Server>,
    /// This driver's epoch.
    pub epoch: Epoch,
    /// How to work.
    pub settings: CopySettings,
    /// What tables get after their rows.
    pub after_rows: Arc<HashMap<TableId, AfterRows>>,
    /// Sets right what cascades leave, where there are such of several levels.
    pub mender: Option<Arc<Verifier>>,
    /// Only these tables; without it all.
    pub only: Option<Arc<BTreeSet<TableId>>>,
    /// How far the applier is.
    pub applied: watch::Receiver<Applied>,
    /// Kept by every task until it has ended: the definitions don't change before.
    pub guard: Guard,
    /// Whether another chunk may be read.
    pub steering: Steering,
    /// Where the progress is published.
    pub progress: Arc<CopyProgress>,
}

/// Tables whose indexes are built at once. Building one is mostly one thread's work on the target, so that with two the
/// last large table is not waited for alone.
const INDEX_BUILDERS: usize = 2;

/// A table under copy: chunks that are planned and not in yet.
struct Open {
    outstanding: Mutex<HashMap<TableId, u64>>,
    changed: Notify,
}

/// What the planner of a wave of tables hands its work to.
struct Wave {
    planned: mpsc::Sender<Chunk>,
    paces: Arc<HashMap<TableId, Pace>>,
    open: Arc<Open>,
    index_jobs: mpsc::Sender<TableId>,
    /// Cancelled when everything planned is in.
    finished: CancellationToken,
}

impl Open {
    fn add(&self, table: TableId, chunks: i64) {
        let mut outstanding = self.outstanding.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = outstanding.entry(table).or_default();
        *entry = entry.saturating_add_signed(chunks);
        drop(outstanding);
        self.changed.notify_waiters();
    }

    async fn all_in(&self, table: TableId) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.outstanding.lock().unwrap_or_else(PoisonError::into_inner).get(&table).copied().unwrap_or(0) == 0 {
                return;
            }
            changed.await;
        }
    }
}

impl Copier {
    /// Copies everything that is not copied yet, builds indexes and foreign keys.
    ///
    /// # Errors
    /// As the servers give them. What is in stays in; running it again goes on from there.
    pub async fn run(&self, followed_since: Instant, cancel: &CancellationToken) -> Result<()> {
        let mut target = self.writer().await?;
        let path = load::choose(&mut target, self.settings.load).await?;
        let mut states = BTreeMap::new();
        for (id, table) in self.shared.tables.iter().filter(|(id, _)| self.copies(*id)) {
            let state = plan::load(&mut target, &self.shared.store, table.name()).await?;
            self.progress.rows.fetch_add(state.rows, Ordering::Relaxed);
            self.progress.rows_before.fetch_add(state.rows, Ordering::Relaxed);
            self.progress.tables.fetch_add(u64::from(state.copied), Ordering::Relaxed);
            states.insert(id, state);
        }
        let (index_jobs, index_work) = mpsc::channel::<TableId>(self.shared.tables.len().max(1));
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        let index_work = Arc::new(tokio::sync::Mutex::new(index_work));
        for _ in 0..INDEX_BUILDERS {
            tasks.spawn(self.clone().build_indexes(index_work.clone(), cancel.clone()));
        }
        let mut waves = Vec::new();
        let mut alone = Vec::new();
        for wave in self.shared.tables.copy_order() {
            let wave = wave.into_iter().filter_map(|id| Some((id, states.remove(&id).filter(|state| !state.indexed)?)));
            let (apart, together) = wave.partition::<Vec<_>, _>(|(id, _)| self.shared.tables.stands_alone(*id));
            alone.extend(apart);
            waves.push(together);
        }
        let settled = followed_since + self.settings.settle;
        tasks.spawn(self.clone().copy_waves(vec![alone], path, index_jobs.clone(), target, cancel.clone()));
        tasks.spawn(self.clone().copy_settled(settled, waves, path, index_jobs, cancel.clone()));
        join(tasks).await?;
        self.add_foreign_keys(cancel).await
    }

    fn copies(&self, id: TableId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&id))
    }

    /// Copies waves of tables when what was committed before following began is visible for certain.
    async fn copy_settled(
        self,
        settled: Instant,
        waves: Vec<Vec<(TableId, TableState)>>,
        path: LoadPath,
        index_jobs: mpsc::Sender<TableId>,
        cancel: CancellationToken,
    ) -> Result<()> {
        tokio::select! {
            () = cancel.cancelled() => return Err(MysqlError::Cancelled),
            () = tokio::time::sleep_until(settled.into()) => {}
        }
        let target = self.writer().await?;
        self.copy_waves(waves, path, index_jobs, target, cancel).await
    }

    async fn copy_waves(
        self,
        waves: Vec<Vec<(TableId, TableState)>>,
        path: LoadPath,
        index_jobs: mpsc::Sender<TableId>,
        mut target: Session,
        cancel: CancellationToken,
    ) -> Result<()> {
        for wave in waves {
            let mut keyed = Vec::new();
            let below: BTreeSet<TableId> = wave.iter().map(|(id, _)| *id).filter(|id| self.mends(*id)).collect();
            for (id, state) in wave {
                if self.shared.tables.get(id).key.is_none() {
                    self.keyless(id, state.copied, path, &mut target, &cancel).await?;
                } else if state.copied {
                    if !below.contains(&id) {
                        self.send(&index_jobs, id).await?;
                    }
                } else {
                    keyed.push((id, state));
                }
            }
            if !keyed.is_empty() {
                self.copy_keyed(keyed, path, &index_jobs, &cancel).await?;
            }
            self.mend(&below, &cancel).await?;
            for id in below {
                self.send(&index_jobs, id).await?;
            }
        }
        Ok(())
    }

    /// Whether rows of the table may be left that a cascade should have taken.
    fn mends(&self, id: TableId) -> bool {
        self.mender.as_ref().is_some_and(|mender| mender.mends(id))
    }

    /// Sets right what cascades left in tables whose rows, and those of the tables above them, are in.
    async fn mend(&self, tables: &BTreeSet<TableId>, cancel: &CancellationToken) -> Result<()> {
        let Some(mender) = self.mender.as_ref().filter(|_| !tables.is_empty()) else { return Ok(()) };
        self.progress.say("looking for what cascades left".to_owned());
        for (table, rows) in mender.mend_cascades(tables, self.epoch, cancel).await? {
            self.shared.note(format!("{rows} rows of `{table}` were set right: a cascade had passed while its tables were copied"));
            *self.progress.mended.lock().unwrap_or_else(PoisonError::into_inner).entry(table).or_default() += rows;
        }
        Ok(())
    }

    async fn send(&self, jobs: &mpsc::Sender<TableId>, id: TableId) -> Result<()> {
        jobs.send(id).await.map_err(|_| MysqlError::Cancelled)
    }

    /// Copies a table without a key unless its rows are in, and builds its indexes before its events go on: see [`KeylessCopy`].
    async fn keyless(&self, id: TableId, copied: bool, path: LoadPath, target: &mut Session, cancel: &CancellationToken) -> Result<()> {
        let _works = self.progress.works();
        let _pass =
            if copied { keyless::enter(&self.shared, id, cancel).await? } else { self.copy_keyless(id, path, target, cancel).await? };
        self.index(&mut self.builder().await?, id).await
    }

    async fn copy_keyless(&self, id: TableId, path: LoadPath, target: &mut Session, cancel: &CancellationToken) -> Result<ChunkPass> {
        let table = self.shared.tables.get(id);
        let name = table.name();
        self.progress.say(format!("copying `{name}` (no key: as a whole)"));
        // Not slowed down on its way: that would only hold its snapshot, or its lock, for longer.
        tokio::select! {
            () = cancel.cancelled() => return Err(MysqlError::Cancelled),
            () = self.steering.turn() => {}
        }
        let copy =
            KeylessCopy { shared: &self.shared, source: &self.source, epoch: self.epoch, path, chunk_bytes: self.settings.chunk_bytes };
        let (loaded, pass) = copy.copy(id, target, cancel).await?;
        self.steering.spent(loaded.inserted, table.table.data_bytes);
        self.progress.rows.fetch_add(loaded.inserted, Ordering::Relaxed);
        self.progress.tables.fetch_add(1, Ordering::Relaxed);
        Ok(pass)
    }

    /// Copies the tables of one wave; several chunks of one table and of several are under way at once.
    async fn copy_keyed(
        &self,
        tables: Vec<(TableId, TableState)>,
        path: LoadPath,
        index_jobs: &mpsc::Sender<TableId>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let paces: Arc<HashMap<TableId, Pace>> =
            Arc::new(tables.iter().map(|(id, _)| (*id, Pace::new(&self.shared.tables.get(*id).table, &self.settings))).collect());
        let open = Arc::new(Open { outstanding: Mutex::default(), changed: Notify::new() });
        let (planned, chunks) = mpsc::channel::<Chunk>(self.settings.readers * 2);
        let (loaded, parts) = mpsc::channel::<LoadedChunk>(1);
        let (again, read_again) = mpsc::channel::<Chunk>(1024);
        let chunks = Arc::new(tokio::sync::Mutex::new(chunks));
        let parts = Arc::new(tokio::sync::Mutex::new(parts));
        let read_again = Arc::new(tokio::sync::Mutex::new(read_again));
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        // Readers end when nothing is planned any more and nothing can come back.
        let finished = CancellationToken::new();
        let under_way = MemoryLimit::new(self.settings.bytes_under_way() as u64);
        for _ in 0..self.settings.readers.max(1) {
            let reader = Reader {
                rows: Session::open(&self.source, Purpose::Read).await?,
                position: Session::open(&self.source, Purpose::Read).await?,
                tables: self.shared.tables.clone(),
                chunk_bytes: self.settings.chunk_bytes,
                under_way: under_way.clone(),
                steering: self.steering.clone(),
            };
            let taken =
                Taken { chunks: chunks.clone(), read_again: read_again.clone(), finished: finished.clone(), cancel: cancel.clone() };
            tasks.spawn(read_chunks(reader, taken, loaded.clone(), paces.clone()));
        }
        for _ in 0..self.settings.writers.max(1) {
            tasks.spawn(self.clone().write_chunks(parts.clone(), again.clone(), open.clone(), path, cancel.clone()));
        }
        drop((loaded, again));
        let wave = Wave { planned, paces, open, index_jobs: index_jobs.clone(), finished };
        tasks.spawn(self.clone().plan_chunks(tables, wave, cancel.clone()));
        join(tasks).await
    }

    /// Plans chunk after chunk, of several tables in turn, and waits for the last ones; a table that is complete goes to the
    /// index builder.
    async fn plan_chunks(self, tables: Vec<(TableId, TableState)>, wave: Wave, cancel: CancellationToken) -> Result<()> {
        let Wave { planned, paces, open, index_jobs, finished } = wave;
        let _finished = finished.drop_guard();
        let mut source = Session::open(&self.source, Purpose::Read).await?;
        let mut target = self.writer().await?;
        let mut complete: JoinSet<Result<()>> = JoinSet::new();
        let mut waiting = tables.into_iter();
        // Writers that put rows into different trees get in each other's way less.
        let mut turns: VecDeque<(TableId, TableState, VecDeque<Chunk>)> = VecDeque::new();
        loop {
            while turns.len() < self.settings.writers.max(1) {
                let Some((id, mut state)) = waiting.next() else { break };
                self.progress.say(format!("copying `{}`", self.shared.tables.get(id).name()));
                // One more until everything is planned, so that a table is not taken for complete too early.
                open.add(id, 1);
                let chunks = std::mem::take(&mut state.open).into_iter().map(|(number, range)| Chunk { table: id, number, range });
                turns.push_back((id, state, chunks.collect()));
            }
            let Some((id, mut state, mut chunks)) = turns.pop_front() else { break };
            if chunks.is_empty() {
                let table = &self.shared.tables.get(id).table;
                let rows = paces.get(&id).map_or(1000, Pace::rows);
                let driver = (self.shared.store.as_str(), self.epoch);
                chunks = plan::next(&mut source, &mut target, driver, id, table, &mut state, rows).await?.into();
            }
            if let Some(chunk) = chunks.pop_front() {
                open.add(id, 1);
                self.hand(&planned, chunk, &cancel).await?;
                turns.push_back((id, state, chunks));
            } else {
                open.add(id, -1);
                complete.spawn(self.clone().completed(id, open.clone(), index_jobs.clone()));
            }
        }
        join(complete).await
    }

    async fn hand(&self, planned: &mpsc::Sender<Chunk>, chunk: Chunk, cancel: &CancellationToken) -> Result<()> {
        tokio::select! {
            () = cancel.cancelled() => Err(MysqlError::Cancelled),
            sent = planned.send(chunk) => sent.map_err(|_| MysqlError::Cancelled),
        }
    }

    /// Waits until all chunks of a table are in, notes it, and passes the table on.
    async fn completed(self, id: TableId, open: Arc<Open>, index_jobs: mpsc::Sender<TableId>) -> Result<()> {
        open.all_in(id).await;
        let mut target = self.writer().await?;
        self.save_table(&mut target, id, false).await?;
        target.close().await;
        self.progress.tables.fetch_add(1, Ordering::Relaxed);
        // With the others of its wave, when what cascades left is set right.
        if self.mends(id) { Ok(()) } else { self.send(&index_jobs, id).await }
    }

    async fn write_chunks(
        self,
        parts: Arc<tokio::sync::Mutex<mpsc::Receiver<LoadedChunk>>>,
        again: mpsc::Sender<Chunk>,
        open: Arc<Open>,
        path: LoadPath,
        cancel: CancellationToken,
    ) -> Result<()> {
        let mut writer = Writer {
            session: self.writer().await?,
            shared: self.shared.clone(),
            epoch: self.epoch,
            path,
            applied: self.applied.clone(),
            progress: self.progress.clone(),
        };
        while let Some(mut part) = next(&parts).await {
            let entered = self.write_part(&mut writer, &part, &cancel).await?;
            match entered {
                Entered::In(loaded) => {
                    self.progress.rows.fetch_add(loaded.inserted + loaded.skipped, Ordering::Relaxed);
                    self.progress.bytes.fetch_add(part.lines.len() as u64, Ordering::Relaxed);
                    if let Some(written) = part.written.take() {
                        // The reader is gone only when the whole copy is being given up.
                        let _ = written.send(());
                    }
                    if !part.more {
                        open.add(part.chunk.table, -1);
                    }
                }
                Entered::ReadAgain => {
                    self.shared.throttle(Some(format!(
                        "many deletes in `{}`: chunks are read again",
                        self.shared.tables.get(part.chunk.table).name()
                    )));
                    // What is left of the chunk, from where the last part that is in ended. The reader, told
                    // nothing, gives up the rest of this one.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    let rest = crate::mysql::range::KeyRange { after: part.range.after.clone(), through: part.chunk.range.through.clone() };
                    let chunk = Chunk { range: rest, ..part.chunk.clone() };
                    drop(part);
                    again.send(chunk).await.map_err(|_| MysqlError::Cancelled)?;
                    self.shared.throttle(None);
                }
            }
        }
        Ok(())
    }

    /// Writes a part; what may heal is tried again on a new connection.
    async fn write_part(&self, writer: &mut Writer, part: &LoadedChunk, cancel: &CancellationToken) -> Result<Entered> {
        const TRIES: u32 = 8;
        let mut attempt = 0;
        loop {
            match writer.write(part, cancel).await {
                Err(error) if error.transient() && attempt < TRIES => {
                    attempt += 1;
                    tracing::warn!(%error, attempt, "writing a chunk failed, trying again");
                    tokio::select! {
                        () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                        () = tokio::time::sleep(Duration::from_millis(100 << attempt.min(6))) => {}
                    }
                    writer.session = match self.writer().await {
                        Ok(session) => session,
                        Err(error) if error.transient() => continue,
                        Err(error) => return Err(error),
                    };
                }
                result => return result,
            }
        }
    }

    async fn build_indexes(self, jobs: Arc<tokio::sync::Mutex<mpsc::Receiver<TableId>>>, cancel: CancellationToken) -> Result<()> {
        let mut session: Option<Session> = None;
        loop {
            let id = tokio::select! {
                () = cancel.cancelled() => return Err(MysqlError::Cancelled),
                id = next(&jobs) => id,
            };
            let Some(id) = id else { return Ok(()) };
            if session.is_none() {
                session = Some(self.builder().await?);
            }
            let Some(session) = session.as_mut() else { continue };
            self.index(session, id).await?;
        }
    }

    /// Builds a table's indexes, and saves that they are there.
    async fn index(&self, session: &mut Session, id: TableId) -> Result<()> {
        let _works = self.progress.works();
        if let Some(after) = self.after_rows.get(&id).filter(|after| !after.indexes.is_empty()) {
            let what = format!("building indexes of `{}`", self.shared.tables.get(id).name());
            self.progress.say(what.clone());
            indexes::build(session, &after.indexes, &what).await?;
        }
        self.save_table(session, id, true).await
    }

    /// Saves that a table's rows, or its indexes, are there: under the lease, so that it can't come after the table began anew.
    async fn save_table(&self, session: &mut Session, id: TableId, indexed: bool) -> Result<()> {
        let what = "saving that a table is copied or indexed";
        session.run("BEGIN", what).await?;
        bookkeeping::hold_lease(session, &self.shared.store, self.epoch).await?;
        let statement = plan::save_table(&self.shared.store, self.shared.tables.get(id).name(), indexed);
        session.write(statement.as_bytes(), what).await?;
        session.run("COMMIT", what).await
    }

    async fn add_foreign_keys(&self, cancel: &CancellationToken) -> Result<()> {
        let mut session = self.builder().await?;
        for (id, table) in self.shared.tables.iter() {
            if cancel.is_cancelled() {
                return Err(MysqlError::Cancelled);
            }
            let after = self.after_rows.get(&id).filter(|after| !after.foreign_keys.is_empty() && self.copies(id));
            let Some(after) = after else { continue };
            self.progress.say(format!("adding foreign keys of `{}`", table.name()));
            indexes::build(&mut session, &after.foreign_keys, &format!("adding foreign keys of `{}`", table.name())).await?;
        }
        Ok(())
    }

    /// A session that writes rows: checks of keys that are not there yet are left out.
    async fn writer(&self) -> Result<Session> {
        let mut session = self.shared.open_writer(&self.target).await?;
        session.run("SET SESSION unique_checks = 0", "setting up the session").await?;
        if self.settings.skip_binlog {
            session.run("SET SESSION sql_log_bin = 0", "leaving the copy out of the target's binary log").await?;
        }
        Ok(session)
    }

    /// A session that builds indexes: rows are not checked against foreign keys again.
    async fn builder(&self) -> Result<Session> {
        let mut session = Session::open(&self.target, Purpose::Catalog).await?;
        session.run("SET SESSION foreign_key_checks = 0", "setting up the session").await?;
        indexes::more_room_to_sort(&mut session).await?;
        if self.settings.skip_binlog {
            session.run("SET SESSION sql_log_bin = 0", "leaving the copy out of the target's binary log").await?;
        }
        Ok(session)
    }
}

/// Where a reader takes its chunks from, and when it ends.
struct Taken {
    chunks: Arc<tokio::sync::Mutex<mpsc::Receiver<Chunk>>>,
    read_again: Arc<tokio::sync::Mutex<mpsc::Receiver<Chunk>>>,
    finished: CancellationToken,
    cancel: CancellationToken,
}

/// Reads chunk after chunk, those that come back first.
async fn read_chunks(
    mut reader: Reader,
    taken: Taken,
    loaded: mpsc::Sender<LoadedChunk>,
    paces: Arc<HashMap<TableId, Pace>>,
) -> Result<()> {
    let steering = reader.steering.clone();
    loop {
        // Before a chunk is taken, so that what waits is nobody's yet.
        tokio::select! {
            biased;
            () = taken.cancel.cancelled() => return Err(MysqlError::Cancelled),
            () = steering.turn() => {}
            () = taken.finished.cancelled() => return Ok(()),
        }
        let chunk = tokio::select! {
            biased;
            Some(chunk) = next(&taken.read_again) => chunk,
            Some(chunk) = next(&taken.chunks) => chunk,
            // Everything planned is in: nothing comes back any more.
            () = taken.finished.cancelled() => return Ok(()),
        };
        // A pause may have come while there was nothing to read.
        tokio::select! {
            biased;
            () = taken.cancel.cancelled() => return Err(MysqlError::Cancelled),
            () = steering.turn() => {}
        }
        let Some(pace) = paces.get(&chunk.table) else { continue };
        reader.read(&chunk, pace, &loaded).await?;
    }
}

/// The next item of a channel that several tasks take from.
async fn next<T>(channel: &tokio::sync::Mutex<mpsc::Receiver<T>>) -> Option<T> {
    channel.lock().await.recv().await
}

/// Waits for all tasks; the first failure aborts the others.
async fn join(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    let mut first = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let result = ended.unwrap_or_else(|error| {
            Err(MysqlError::Object {
                message: format!("a part of the copy ended abnormally: {error}"),
                hint: "run it again; it goes on from what is in".to_owned(),
            })
        });
        // A task that only noticed that the others are gone must not hide why.
        if let Err(error) = result {
            if first.is_ok() || matches!(first, Err(MysqlError::Cancelled)) {
                first = Err(error);
            }
            if !matches!(first, Err(MysqlError::Cancelled)) {
                tasks.abort_all();
            }
        }
    }
    first
}
