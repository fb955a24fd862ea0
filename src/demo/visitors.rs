//! Visitors: a connection of its own for every request, as PHP has it. They know one address and never repeat a request: one that fails
//! is a page that somebody did not get.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Endpoint;
use super::seed::SchoolSize;
use crate::mysql::sql;

/// The longest that a visitor waits for a page.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of the visitors' requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VisitorCounts {
    /// Requests that were answered.
    pub served: u64,
    /// Requests that failed, by what was said.
    pub failed: BTreeMap<String, u64>,
    /// The longest that one took, in milliseconds.
    pub longest_ms: u64,
}

impl VisitorCounts {
    /// Adds others.
    pub fn add(&mut self, others: &VisitorCounts) {
        self.served += others.served;
        self.longest_ms = self.longest_ms.max(others.longest_ms);
        for (why, times) in &others.failed {
            *self.failed.entry(why.clone()).or_default() += times;
        }
    }

    /// How many failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// Visitors at work. Dropping it ends them where they stand.
#[derive(Debug)]
pub struct Visitors {
    task: JoinSet<()>,
    stop: CancellationToken,
    counts: Arc<Mutex<VisitorCounts>>,
}

impl Visitors {
    /// Starts `per_second` requests a second to `endpoint`: one student's page each, which notes when it was seen.
    #[must_use]
    pub fn start(endpoint: Endpoint, database: &str, size: &SchoolSize, per_second: u32) -> Visitors {
        let (stop, counts) = (CancellationToken::new(), Arc::<Mutex<VisitorCounts>>::default());
        let mut task = JoinSet::new();
        let (students, table) = (size.students.max(1), format!("{}.students", sql::identifier(database)));
        task.spawn(arrive(endpoint, table, students, per_second.max(1), counts.clone(), stop.clone()));
        Visitors { task, stop, counts }
    }

    /// What became of those that ended since this was last asked; adds it to `all`.
    pub fn since_last(&self, all: &mut VisitorCounts) -> VisitorCounts {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        all.add(&counts);
        counts
    }

    /// Lets those that are there get their page, and adds what became of them to `all`.
    pub async fn stop(mut self, all: &mut VisitorCounts) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
        self.since_last(all);
    }
}

async fn arrive(
    endpoint: Endpoint,
    table: String,
    students: u64,
    per_second: u32,
    counts: Arc<Mutex<VisitorCounts>>,
    stop: CancellationToken,
) {
    let mut requests = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    for number in 0_u64.. {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let (endpoint, counts) = (endpoint.clone(), counts.clone());
        let statement = format!("UPDATE {table} SET seen_at = NOW() WHERE id = {}", number % students + 1);
        requests.spawn(async move {
            let began = Instant::now();
            let served = tokio::time::timeout(PATIENCE, request(&endpoint, &statement)).await;
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.longest_ms = counts.longest_ms.max(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
            match served {
                Ok(Ok(())) => counts.served += 1,
                Ok(Err(error)) => *counts.failed.entry(error.to_string()).or_default() += 1,
                Err(_) => *counts.failed.entry(format!("no answer within {} s", PATIENCE.as_secs())).or_default() += 1,
            }
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

async fn request(endpoint: &Endpoint, statement: &str) -> Result<(), mysql_async::Error> {
    let mut conn = endpoint.connect_as_site().await?;
    conn.query_drop(statement).await?;
    conn.disconnect().await
}
