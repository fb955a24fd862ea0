//! A store's load: the window is read, paced, put in order and written, all at the same time, until it is told to end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::captured::{Captured, Surveyed};
use super::clients::Pool;
use super::figures::Figures;
use super::log::{Item, LogReader, MEMORY};
use super::order::{Footprint, Order};
use super::origin::{Origin, ServerLog};
use super::pace::{Clock, Seconds, Timed};
use super::read::Read;
use super::window;
use crate::engine::context::Checkpoints;
use crate::engine::load::{CapturedFile, Clients, LoadContext, LoadFigures};
use crate::engine::step::StepError;
use crate::mysql::connect::Server;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::production::Sendings;
use crate::mysql::store::MysqlStore;
use crate::mysql::tables::Tables;
use crate::mysql::tail::MemoryLimit;

/// The stretch of production's log that is replayed unless asked otherwise.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(3600);

/// Transactions that may be on their way at the same time, those that wait for others too.
const UNDER_WAY: usize = 512;
/// Transactions between reader and pace; their memory is limited by [`MEMORY`].
const CHANNEL: usize = 1024;
/// How often figures are told.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// How long transactions that are under way get when the load ends.
const GRACE: Duration = Duration::from_secs(2);

/// What a load is made from.
#[derive(Clone, Debug)]
pub enum Log {
    /// Production's own log, from so long ago up to now.
    Production {
        /// How far back.
        window: Duration,
    },
    /// Log files.
    Captured(Arc<Captured>),
}

/// The load of one store.
pub struct Replay {
    /// The store, in a rehearsal.
    pub store: Arc<MysqlStore>,
    /// What is replayed.
    pub log: Log,
}

/// What the load is read from, before it is known where it begins.
enum ReadFrom<'a> {
    /// What is sent to it is counted there.
    Server {
        server: Arc<Server>,
        sendings: Sendings,
        window: Duration,
    },
    Files(&'a Arc<Surveyed>),
}

impl Replay {
    /// Whose log is replayed, or which files.
    async fn from(&self) -> std::result::Result<ReadFrom<'_>, StepError> {
        let production = self.store.production.get().ok_or_else(|| {
            StepError::definite(format!("store `{}` is not in a rehearsal, and no load may be written to it", self.store.name))
        })?;
        let window = match &self.log {
            Log::Production { window } => *window,
            Log::Captured(files) => return Ok(ReadFrom::Files(files.surveyed().await.map_err(MysqlError::from)?)),
        };
        let server = production.log_of.clone().ok_or_else(|| {
            let why = production.unknown.first().cloned().unwrap_or_else(|| "its address is not known here".to_owned());
            StepError::definite(format!("the server whose log is to be replayed for `{}` can't be asked: {why}", self.store.name))
                .hint("name a server that can be reached from here in `rehearsal: { load_from: … }`, give files of its log with `--load-log`, or rehearse without `--load`")
        })?;
        Ok(ReadFrom::Server { server, sendings: production.sendings.clone(), window })
    }

    /// Whether it can be made. Writes nothing.
    ///
    /// # Errors
    /// If the servers have not proven to be copies, or there is no log to replay.
    pub async fn check(&self, checkpoints: &Arc<dyn Checkpoints>) -> std::result::Result<(), StepError> {
        let from = self.from().await?;
        self.store.copies(checkpoints).await?;
        if let ReadFrom::Server { server, sendings, .. } = from {
            window::check(&server, &sendings).await?;
        }
        Ok(())
    }

    /// Replays until it is cancelled.
    ///
    /// # Errors
    /// As [`Replay::check`]; if the log is purged, its server stays away, a file changes, or the copy's account may not write.
    pub async fn run(&self, context: LoadContext) -> std::result::Result<(), StepError> {
        let from = tokio::select! {
            () = context.cancel.cancelled() => return Ok(()),
            from = self.from() => from?,
        };
        let Some(copies) = self.store.copies(&context.checkpoints).await? else {
            return Err(StepError::definite(format!(
                "the servers of `{}` have not proven to be copies, and no load may be written to them",
                self.store.name
            )));
        };
        let described = self.store.described().await.map_err(StepError::from)?;
        let all: Vec<_> = described.catalog.tables.values().cloned().collect();
        let on_source = Arc::new(Tables::new(&all, &described.source.version).map_err(StepError::from)?);
        let on_target = described.shared.tables.clone();
        let figures = Arc::new(Figures::default());
        let pool = Pool::new(copies.clone(), on_source.clone(), on_target, context.clients.clone(), figures.clone());
        let reader = LogReader {
            tables: on_source.clone(),
            selection: self.store.selection.clone(),
            lower_case_names: described.source.variables.get("lower_case_table_names").is_some_and(|value| value == "1"),
            limit: MemoryLimit::new(MEMORY),
            read: Arc::default(),
        };
        let (named, files) = match &from {
            ReadFrom::Server { server, .. } => (server.to_string(), Vec::new()),
            ReadFrom::Files(surveyed) => {
                surveyed.remarks.iter().for_each(|(why, count)| reader.read.left_out_so_often(why.clone(), *count));
                (surveyed.to_string(), surveyed.files())
            }
        };
        let replaying = Replaying {
            pool: Arc::new(pool),
            tables: on_source,
            told: Told {
                figures,
                read: reader.read.clone(),
                from: named.clone(),
                files,
                window: watch::Sender::new(None),
                to: context.figures.clone(),
                multiple: context.multiple.factor(),
            },
            clients: context.clients.clone(),
            cancel: context.cancel.clone(),
        };
        let done = tokio::select! {
            done = replaying.replay(&reader, from) => done,
            never = replaying.told.tell(&context) => match never {},
        };
        replaying.pool.close().await;
        replaying.told.tell_once(&context);
        match done {
            Ok(()) | Err(MysqlError::Cancelled) => Ok(()),
            Err(error) => Err(explained(error, &named)),
        }
    }
}

/// Errors of the log's server by what they mean for a load.
fn explained(error: MysqlError, server: &str) -> StepError {
    let purged = error.code() == Some(1236);
    let error = StepError::from(error);
    if purged {
        return error.hint(format!(
            "the {server} purged the log that was being replayed; keep logs longer there, ask for less of it (`--load-window 10m`), or rehearse without `--load`"
        ));
    }
    error
}

/// What is told of a replay, and to whom.
struct Told {
    figures: Arc<Figures>,
    read: Arc<Read>,
    from: String,
    files: Vec<CapturedFile>,
    window: watch::Sender<Option<(u32, u32)>>,
    to: watch::Sender<LoadFigures>,
    multiple: f64,
}

impl Told {
    fn tell_once(&self, context: &LoadContext) {
        self.figures.clients_are(*context.clients.borrow());
        let moment = |second: u32| Timestamp::from_second(i64::from(second)).ok();
        let window = *self.window.borrow();
        self.to.send_replace(LoadFigures {
            from: self.from.clone(),
            files: self.files.clone(),
            window_begins: window.and_then(|(from, _)| moment(from)),
            window_ends: window.and_then(|(_, until)| moment(until)),
            left_out: self.read.left_out(),
            log_bytes: self.read.bytes.load(Ordering::Relaxed),
            ..self.figures.told(self.multiple)
        });
    }

    async fn tell(&self, context: &LoadContext) -> std::convert::Infallible {
        loop {
            self.tell_once(context);
            tokio::time::sleep(TELL_EVERY).await;
        }
    }
}

struct Replaying {
    pool: Arc<Pool>,
    tables: Arc<Tables>,
    told: Told,
    clients: watch::Receiver<Clients>,
    cancel: CancellationToken,
}

impl Replaying {
    async fn replay(&self, reader: &LogReader, from: ReadFrom<'_>) -> Result<()> {
        let origin = match from {
            ReadFrom::Files(surveyed) => Origin::Files(surveyed.clone()),
            ReadFrom::Server { server, sendings, window } => {
                let server_id = rand::random_range(1 << 30..u32::MAX);
                let window = tokio::select! {
                    () = self.cancel.cancelled() => return Ok(()),
                    found = window::find(&server, &sendings, server_id, window) => found?,
                };
                Origin::Server(ServerLog { server, sendings, server_id, window })
            }
        };
        let (items, received) = mpsc::channel(CHANNEL);
        let reading = async {
            tokio::select! {
                () = self.cancel.cancelled() => Ok(()),
                read = self.read(reader, &origin, items) => read,
            }
        };
        tokio::try_join!(reading, self.write(received)).map(drop)
    }

    /// Pass after pass.
    async fn read(&self, reader: &LogReader, origin: &Origin, items: mpsc::Sender<Item>) -> Result<()> {
        loop {
            self.told.figures.passes.fetch_add(1, Ordering::AcqRel);
            if reader.pass(origin, &items).await? == 0 {
                // Nothing in it can be replayed; a second look would find the same.
                std::future::pending::<()>().await;
            }
            items.send(Item::PassEnded).await.map_err(|_| MysqlError::Cancelled)?;
        }
    }

    /// Each when it is due, and after those it has to wait for.
    async fn write(&self, mut items: mpsc::Receiver<Item>) -> Result<()> {
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        let under_way = Arc::new(Semaphore::new(UNDER_WAY));
        let (mut seconds, mut order) = (Seconds::default(), Order::default());
        let mut clock: Option<Clock> = None;
        // Since when nothing was to be begun that had been read.
        let mut idle_since = Instant::now();
        'load: loop {
            let item = tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                item = items.recv() => item,
            };
            let timed = match item {
                None => break,
                Some(Item::Transaction(transaction)) => {
                    self.note_window(transaction.at);
                    seconds.push(transaction)
                }
                Some(Item::PassEnded) => seconds.pass_ended(),
            };
            for timed in timed {
                let clock = clock.get_or_insert_with(|| Clock::start(self.told.multiple));
                let due = clock.due(timed.log_seconds);
                let starved = Instant::now().saturating_duration_since(due.max(idle_since));
                tokio::select! {
                    biased;
                    () = self.cancel.cancelled() => break 'load,
                    () = tokio::time::sleep_until(due) => {}
                }
                let free = Instant::now();
                let permit = tokio::select! {
                    biased;
                    () = self.cancel.cancelled() => break 'load,
                    permit = under_way.clone().acquire_owned() => permit.map_err(|_| MysqlError::Cancelled)?,
                };
                if matches!(*self.clients.borrow(), Clients::OnSource | Clients::OnTarget) {
                    self.told.figures.waited(starved, free.elapsed());
                }
                clock.slip(due);
                self.begin(timed, &mut order, &mut tasks, permit);
                idle_since = Instant::now();
            }
            while let Some(ended) = tasks.try_join_next() {
                joined(ended)?;
            }
        }
        let rest = async {
            while let Some(ended) = tasks.join_next().await {
                joined(ended)?;
            }
            Ok(())
        };
        // What does not end in this time goes with its connection.
        tokio::time::timeout(GRACE, rest).await.unwrap_or(Ok(()))
    }

    fn begin(&self, timed: Timed, order: &mut Order, tasks: &mut JoinSet<Result<()>>, permit: OwnedSemaphorePermit) {
        let Timed { log_seconds, transaction } = timed;
        self.told.figures.was_due(transaction.changes(), log_seconds);
        let turn = order.enter(&Footprint::of(&transaction.rows, &self.tables));
        let (pool, cancel) = (self.pool.clone(), self.cancel.clone());
        tasks.spawn(async move {
            // Whoever waits for this one goes on however it ends.
            let _done = turn.done.drop_guard();
            for before in turn.after {
                before.cancelled().await;
            }
            let carried_out = pool.carry_out(&transaction.rows, &cancel).await;
            drop((permit, transaction));
            carried_out
        });
    }

    fn note_window(&self, at: u32) {
        self.told.window.send_if_modified(|window| {
            let (from, until) = window.map_or((at, at), |(from, until): (u32, u32)| (from.min(at), until.max(at)));
            let new = Some((from, until));
            std::mem::replace(window, new) != new
        });
    }
}

/// What became of a transaction's task.
fn joined(ended: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    match ended {
        Ok(Err(MysqlError::Cancelled)) => Ok(()),
        Ok(done) => done,
        Err(error) if error.is_panic() => Err(MysqlError::Object {
            message: "a transaction of the load broke an assertion of its own (a defect in dbmove)".to_owned(),
            hint: "rehearse without `--load`, and report it".to_owned(),
        }),
        Err(_) => Ok(()),
    }
}
