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

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::activity::{Action, Habits};
use super::bank::{self, BankError, Teller};
use super::dice::Dice;
use super::ledger::{Ledger, LedgerError};
use super::seed::SchoolSize;

mod record;
mod session;

pub(super) use record::Record;
pub use record::{Setback, WriterCounts};
use session::{Session, read_route};

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
    Duration::from_secs_f64((writers as f64 / per_second.max(0.001)).max(1e-6))
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
