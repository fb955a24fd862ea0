//! Live users: they write all the time, and know of the move only what a real site would.
//!
//! Each writer keeps one connection, does one thing at a time at its pace, and replaces the
//! connection after some hundred uses, as a pool does. Where to connect is what the *route file*
//! says (`host:port` on a line, replaced atomically by whoever switches traffic), read at every
//! connect and at no other time.
//!
//! # When something goes wrong
//!
//! | what happens | what a writer does |
//! | --- | --- |
//! | lock wait timeout, deadlock (1205, 1213) | rolls back, tries the next thing on the same connection |
//! | duplicate key, missing parent (1062, 1452) | rolls back: a user asked for something impossible |
//! | `read_only`, killed, connection lost, no answer in time, anything else | drops the connection (which rolls back), waits 20–250 ms, reads the route again, connects again |
//!
//! Every setback is counted by its cause with one message kept, so a test can tell a fence (1290)
//! from a bug (1064).
//!
//! # Stopping
//!
//! [`Writers::stop`] lets every writer finish what it is doing; dropping [`Writers`] aborts them where they
//! stand, as a crash would: transfers begun then stay in doubt in the ledger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use secrecy::SecretString;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Endpoint;
use super::activity::{Action, Habits};
use super::bank::{self, BankError, Teller};
use super::dice::Dice;
use super::ledger::{Ledger, LedgerError};
use super::seed::SchoolSize;
use crate::mysql::sql;

/// A connection is replaced after so many uses.
const USES_PER_CONNECTION: u32 = 400;
const SHORTEST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_millis(250);
/// No user waits longer than this for a connection, or for one thing to be done.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long [`Writers::stop`] waits for what is under way.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Who writes, where, and how much.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// The route file.
    pub route: PathBuf,
    /// Account of the site; must not have SUPER if a fence is to hold it.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// The school's database.
    pub database: String,
    /// The rows it was seeded with: which ids there are.
    pub size: SchoolSize,
    /// How many bank writers.
    pub bank_writers: usize,
    /// Transfers a second of all of them together.
    pub transfers_per_second: f64,
    /// How many writers do everything else.
    pub school_writers: usize,
    /// Changes a second of all of these together.
    pub changes_per_second: f64,
    /// What the writers' choices are drawn from.
    pub seed: u64,
}

impl WriterOptions {
    /// 4 bank writers with 250 transfers a second, 3 others with 100 changes a second.
    pub fn new(
        route: impl Into<PathBuf>,
        user: impl Into<String>,
        password: SecretString,
        database: impl Into<String>,
        size: SchoolSize,
    ) -> Self {
        WriterOptions {
            route: route.into(),
            user: user.into(),
            password,
            database: database.into(),
            size,
            bank_writers: 4,
            transfers_per_second: 250.0,
            school_writers: 3,
            changes_per_second: 100.0,
            seed: 2011,
        }
    }
}

/// What went wrong for a writer, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Setback {
    /// How often.
    pub times: u64,
    /// What was said the last time.
    pub last: String,
}

/// What the writers did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WriterCounts {
    /// Transfers whose COMMIT was sent.
    pub transfers_begun: u64,
    /// Of those: answered OK.
    pub transfers_acknowledged: u64,
    /// Of those: answered with a rollback.
    pub transfers_refused: u64,
    /// Transfers given up before COMMIT because there was not enough money.
    pub transfers_declined: u64,
    /// Changes that changed at least a row, by name ([`Action::name`]).
    pub changes: BTreeMap<&'static str, u64>,
    /// Connections opened.
    pub connections: u64,
    /// What went wrong, by cause: a server error's number, `connection`, `timeout`, `route` or `account-missing`.
    pub setbacks: BTreeMap<String, Setback>,
    /// The longest time a writer went without success, in milliseconds.
    pub longest_stall_ms: u64,
}

impl WriterCounts {
    /// Begun transfers whose outcome is not known (those under way included, while writers run).
    #[must_use]
    pub fn transfers_in_doubt(&self) -> u64 {
        self.transfers_begun.saturating_sub(self.transfers_acknowledged + self.transfers_refused)
    }
}

/// Writers that can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum WritersError {
    /// The route file can't be used.
    #[error("route file `{}`: {what}; no writer was started", path.display())]
    Route {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A transfer could not be written down, so its writer ended.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A writer panicked.
    #[error("a writer ended unexpectedly: {0}")]
    Panicked(String),
    /// A writer did not finish in time and was aborted; what it was committing is in doubt.
    #[error("{0} writer(s) were still waiting for the server after {after} s and were aborted; what they were committing is in doubt", after = STOP_PATIENCE.as_secs())]
    StillWaiting(usize),
}

/// Running writers. Dropping it aborts them.
#[derive(Debug)]
pub struct Writers {
    tasks: JoinSet<Result<(), LedgerError>>,
    stop: CancellationToken,
    record: Arc<Record>,
}

impl Writers {
    /// Starts the writers. `ledger` must have been opened before.
    ///
    /// # Errors
    /// If the route file can't be read or names no server.
    pub async fn start(options: WriterOptions, ledger: Arc<Ledger>) -> Result<Self, WritersError> {
        read_route(&options.route).await.map_err(|what| WritersError::Route { path: options.route.clone(), what })?;
        let mut writers = Writers { tasks: JoinSet::new(), stop: CancellationToken::new(), record: Arc::default() };
        // References and e-mail addresses stay unique over restarts of the process.
        let era = rand::random::<u32>();
        for number in 0..options.bank_writers {
            let teller = Teller::new(era, number, options.size.accounts, Arc::clone(&ledger));
            let pace = pace(options.transfers_per_second, options.bank_writers);
            writers.spawn(&options, number, pace, Work::Bank(teller));
        }
        for number in 0..options.school_writers {
            let habits = Habits::new(era, number, options.size.clone());
            let pace = pace(options.changes_per_second, options.school_writers);
            writers.spawn(&options, options.bank_writers + number, pace, Work::School(Box::new(habits)));
        }
        Ok(writers)
    }

    fn spawn(&mut self, options: &WriterOptions, number: usize, pace: Duration, work: Work) {
        let writer = Writer {
            session: Session::new(options, Arc::clone(&self.record)),
            dice: Dice::new(options.seed, 1000 + number as u64),
            record: Arc::clone(&self.record),
            work,
        };
        self.tasks.spawn(writer.run(pace, self.stop.clone()));
    }

    /// What they did so far.
    #[must_use]
    pub fn counts(&self) -> WriterCounts {
        self.record.counts()
    }

    /// Lets every writer finish what it is doing and waits for it.
    ///
    /// # Errors
    /// If the ledger could not be written, or a writer did not end within 30 s.
    pub async fn stop(mut self) -> Result<WriterCounts, WritersError> {
        self.stop.cancel();
        let deadline = tokio::time::Instant::now() + STOP_PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
                Ok(None) => return Ok(self.record.counts()),
                Ok(Some(Ok(ended))) => ended?,
                Ok(Some(Err(ended))) => return Err(WritersError::Panicked(ended.to_string())),
                Err(_) => return Err(WritersError::StillWaiting(self.tasks.len())),
            }
        }
    }
}

fn pace(per_second: f64, writers: usize) -> Duration {
    Duration::from_secs_f64(writers as f64 / per_second.max(0.001))
}

/// Counters of all writers together.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) begun: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) declined: AtomicU64,
    connections: AtomicU64,
    longest_stall_ms: AtomicU64,
    changes: Mutex<BTreeMap<&'static str, u64>>,
    setbacks: Mutex<BTreeMap<String, Setback>>,
}

impl Record {
    fn counts(&self) -> WriterCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        // Outcomes are read before beginnings, so that there are never more of them.
        let (acknowledged, refused) = (read(&self.acknowledged), read(&self.refused));
        WriterCounts {
            transfers_begun: read(&self.begun),
            transfers_acknowledged: acknowledged,
            transfers_refused: refused,
            transfers_declined: read(&self.declined),
            changes: self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            connections: read(&self.connections),
            setbacks: self.setbacks.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            longest_stall_ms: read(&self.longest_stall_ms),
        }
    }

    fn changed(&self, action: Action) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner).entry(action.name()).or_default() += 1;
    }

    pub(super) fn setback(&self, cause: impl Into<String>, message: impl ToString) {
        let mut setbacks = self.setbacks.lock().unwrap_or_else(PoisonError::into_inner);
        let setback = setbacks.entry(cause.into()).or_default();
        setback.times += 1;
        setback.last = message.to_string();
    }
}

enum Work {
    Bank(Teller),
    School(Box<Habits>),
}

struct Writer {
    session: Session,
    dice: Dice,
    record: Arc<Record>,
    work: Work,
}

impl Writer {
    async fn run(mut self, pace: Duration, stop: CancellationToken) -> Result<(), LedgerError> {
        let mut ticks = tokio::time::interval(pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut backoff = SHORTEST_BACKOFF;
        let mut last_success = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let wait = match tokio::time::timeout(PATIENCE, self.once()).await {
                Ok(Ok(())) => {
                    let stall = u64::try_from(last_success.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.record.longest_stall_ms.fetch_max(stall, Ordering::AcqRel);
                    (last_success, backoff) = (Instant::now(), SHORTEST_BACKOFF);
                    continue;
                }
                Ok(Err(BankError::Ledger(error))) => return Err(error),
                Ok(Err(BankError::Server(error))) => self.settle(error).await,
                Err(_) => {
                    self.record.setback("timeout", format!("no answer from {} within {} s", self.session.endpoint, PATIENCE.as_secs()));
                    self.session.drop_connection();
                    true
                }
            };
            if wait {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(backoff) => {}
                }
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
            }
        }
        self.session.close().await;
        Ok(())
    }

    /// One thing a user does.
    async fn once(&mut self) -> Result<(), BankError> {
        let (conn, endpoint) = self.session.connection().await?;
        match &mut self.work {
            Work::Bank(teller) => bank::transfer(conn, endpoint, &mut self.dice, teller, &self.record).await,
            Work::School(habits) => {
                let action = Action::choose(&mut self.dice);
                if habits.perform(action, conn, &mut self.dice).await? > 0 {
                    self.record.changed(action);
                }
                Ok(())
            }
        }
    }

    /// After an error: true if the writer should wait before it goes on.
    async fn settle(&mut self, error: mysql_async::Error) -> bool {
        let code = match &error {
            mysql_async::Error::Server(said) => Some(said.code),
            _ => None,
        };
        self.record.setback(code.map_or_else(|| "connection".to_owned(), |code| code.to_string()), &error);
        match code {
            Some(1205 | 1213 | 1062 | 1452) if self.session.roll_back().await => false,
            _ => {
                self.session.drop_connection();
                true
            }
        }
    }
}

/// A writer's connection.
struct Session {
    route: PathBuf,
    user: String,
    password: SecretString,
    use_database: String,
    record: Arc<Record>,
    conn: Option<Conn>,
    endpoint: String,
    uses: u32,
}

impl Session {
    fn new(options: &WriterOptions, record: Arc<Record>) -> Self {
        Session {
            route: options.route.clone(),
            user: options.user.clone(),
            password: options.password.clone(),
            use_database: format!("USE {}", sql::identifier(&options.database)),
            record,
            conn: None,
            endpoint: String::new(),
            uses: 0,
        }
    }

    /// The connection and the `host:port` it goes to; opened along the route if there is none.
    async fn connection(&mut self) -> Result<(&mut Conn, &str), mysql_async::Error> {
        if self.uses >= USES_PER_CONNECTION {
            self.close().await;
        }
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        self.uses += 1;
        Ok((self.conn.insert(conn), &self.endpoint))
    }

    async fn connect(&mut self) -> Result<Conn, mysql_async::Error> {
        let (host, port) = match read_route(&self.route).await {
            Ok(route) => route,
            Err(what) => {
                self.record.setback("route", &what);
                return Err(mysql_async::Error::Other(what.into()));
            }
        };
        let endpoint = Endpoint { host, port, user: self.user.clone(), password: self.password.clone() };
        let mut conn = endpoint.connect_as_site().await?;
        conn.query_drop(&self.use_database).await?;
        self.record.connections.fetch_add(1, Ordering::AcqRel);
        self.endpoint = endpoint.address();
        self.uses = 0;
        Ok(conn)
    }

    /// Whether the transaction could be rolled back and the connection used on.
    async fn roll_back(&mut self) -> bool {
        match &mut self.conn {
            Some(conn) => matches!(tokio::time::timeout(PATIENCE, conn.query_drop("ROLLBACK")).await, Ok(Ok(()))),
            None => false,
        }
    }

    fn drop_connection(&mut self) {
        self.conn = None;
    }

    async fn close(&mut self) {
        if let Some(conn) = self.conn.take() {
            // The server closes it too; a goodbye that fails changes nothing.
            let _ = tokio::time::timeout(Duration::from_secs(1), conn.disconnect()).await;
        }
    }
}

/// Reads a route file: host and port.
async fn read_route(path: &Path) -> Result<(String, u16), String> {
    let text = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string())?;
    let line = text.trim();
    let (host, port) = line.rsplit_once(':').ok_or_else(|| format!("`{line}` is not `host:port`"))?;
    let port = port.parse().map_err(|_| format!("`{port}` is not a port"))?;
    Ok((host.to_owned(), port))
}
