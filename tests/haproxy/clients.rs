//! Clients as applications are: one connection per request, as PHP does, and a pool that connects again when a connection was closed
//! between two requests. Each request writes one row with a number of its own, and is noted as accepted or failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Opts, OptsBuilder};
use tokio::task::JoinSet;

/// What became of the requests.
#[derive(Default)]
pub struct Counts {
    /// Numbers of rows that a server accepted.
    pub accepted: Mutex<Vec<u64>>,
    /// Why requests failed, and how often.
    pub failed: Mutex<BTreeMap<String, u64>>,
    /// Requests that a pool repeated because its connection had been closed.
    pub repeated: AtomicU64,
    /// How long each accepted request took since [`Counts::measure_anew`].
    took: Mutex<Vec<Duration>>,
    next: AtomicU64,
    stop: AtomicBool,
}

impl Counts {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    fn ended(&self, number: u64, began: Instant, outcome: Result<(), Error>) {
        self.took.lock().unwrap().push(began.elapsed());
        match outcome {
            Ok(()) => self.accepted.lock().unwrap().push(number),
            Err(error) => *self.failed.lock().unwrap().entry(error.to_string()).or_default() += 1,
        }
    }
    /// Forgets how long requests have taken so far.
    pub fn measure_anew(&self) {
        self.took.lock().unwrap().clear();
    }
    /// The longest requests, in words.
    pub fn slowest(&self) -> String {
        let mut took = self.took.lock().unwrap().clone();
        took.sort_unstable();
        let over = |limit: u64| took.iter().filter(|took| **took > Duration::from_millis(limit)).count();
        let longest = took.last().copied().unwrap_or_default();
        format!(
            "longest wait {longest:.2?}; of {} requests {} took over 100 ms, {} over 500 ms, {} over 1 s",
            took.len(),
            over(100),
            over(500),
            over(1000)
        )
    }
    /// How many requests have had an outcome.
    pub fn ended_so_far(&self) -> u64 {
        self.accepted.lock().unwrap().len() as u64 + self.failures().values().sum::<u64>()
    }
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.failed.lock().unwrap().clone()
    }
    pub fn sorted(&self) -> Vec<u64> {
        let mut accepted = self.accepted.lock().unwrap().clone();
        accepted.sort_unstable();
        accepted
    }
}

/// Clients at work, through an address that never changes.
pub struct Clients {
    pub counts: Arc<Counts>,
    tasks: JoinSet<()>,
}

/// `table` holds the rows: `database.table`.
pub fn options(port: u16, user: &str) -> Opts {
    OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .prefer_socket(false)
        .user(Some(user))
        .pass(Some("dbmove"))
        .secure_auth(false)
        // Given, so that the driver does not ask.
        .max_allowed_packet(Some(1 << 24))
        .wait_timeout(Some(28_800))
        .into()
}

/// One request of a client that connects for it.
async fn request(options: Opts, table: &str, number: u64) -> Result<(), Error> {
    let mut conn = Conn::new(options).await?;
    conn.query_drop("SELECT 1").await?;
    conn.query_drop(format!("INSERT INTO {table} VALUES ({number})")).await?;
    conn.disconnect().await
}

/// A pool may repeat a request whose connection was closed; that it was done already is then no error.
fn was_closed(error: &Error) -> bool {
    match error {
        Error::Io(_) => true,
        Error::Driver(error) => matches!(error, mysql_async::DriverError::ConnectionClosed),
        // Killed, or being killed; the server shuts the connection.
        Error::Server(error) => matches!(error.code, 1053 | 1317 | 1927),
        _ => false,
    }
}

async fn pooled(counts: &Counts, options: &Opts, table: &str, every: Duration) {
    let mut conn: Option<Conn> = None;
    let mut turns = tokio::time::interval(every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !counts.stopped() {
        turns.tick().await;
        let (number, began) = (counts.number(), Instant::now());
        let mut outcome = Ok(());
        for attempt in 0..3 {
            outcome = async {
                let conn = match &mut conn {
                    Some(conn) => conn,
                    None => conn.insert(Conn::new(options.clone()).await?),
                };
                conn.query_drop(format!("INSERT IGNORE INTO {table} VALUES ({number})")).await
            }
            .await;
            match &outcome {
                Err(error) if was_closed(error) && attempt < 2 => {
                    conn = None;
                    counts.repeated.fetch_add(1, Ordering::Relaxed);
                }
                _ => break,
            }
        }
        counts.ended(number, began, outcome);
    }
}

impl Clients {
    /// Starts `per_second` requests a second, each with its own connection, and `pool` connections that are kept, each with 50 requests a
    /// second.
    pub fn start(port: u16, table: &'static str, per_second: u64, pool: u64) -> Clients {
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        let theirs = counts.clone();
        tasks.spawn(async move {
            let (mut requests, began, mut sent) = (JoinSet::new(), Instant::now(), 0_u64);
            while !theirs.stopped() {
                let due = u64::try_from(began.elapsed().as_millis()).unwrap() * per_second / 1000;
                while sent < due {
                    sent += 1;
                    let counts = theirs.clone();
                    requests.spawn(async move {
                        let (number, began) = (counts.number(), Instant::now());
                        let outcome = tokio::time::timeout(Duration::from_secs(60), request(options(port, "app"), table, number)).await;
                        let late = || Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
                        counts.ended(number, began, outcome.unwrap_or_else(|_| Err(late())));
                    });
                }
                while requests.try_join_next().is_some() {}
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            while requests.join_next().await.is_some() {}
        });
        for _ in 0..pool {
            let counts = counts.clone();
            tasks.spawn(async move { pooled(&counts, &options(port, "app"), table, Duration::from_millis(20)).await });
        }
        Clients { counts, tasks }
    }

    /// Ends them; every request has its outcome.
    pub async fn stop(mut self) -> Arc<Counts> {
        self.counts.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.counts
    }
}
