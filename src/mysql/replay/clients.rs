//! The connections of a load: as many as are needed at the same time, kept and used again as a pool does, cut and held like clients'.
//!
//! A transaction whose connection is lost, killed or told that writes are held is tried again, on a connection to wherever clients are by then: the
//! rehearsal's source, and from the point of no return on its target. Both are known by their proof alone ([`Copies`]). Nothing is given up but
//! transactions that other transactions keep from a row again and again, which are counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::figures::{Done, Figures};
use super::write;
use crate::engine::load::Clients;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::copies::Copies;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::tables::Tables;
use crate::mysql::tail::Rows;

/// Connections at the same time at most.
pub const CONNECTIONS: usize = 64;
/// Between two tries while writes are held or the server is away.
const WAIT: Duration = Duration::from_millis(100);
/// How often a transaction tries again that lost to another one.
const TRIES: u32 = 10;
/// "Lock wait timeout", "Deadlock": the transaction is to be tried again, the connection is as good as before.
const LOST_TO_ANOTHER: [u16; 2] = [1205, 1213];

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Target,
}

impl Side {
    /// Nowhere while a rollback holds the target: what is written there then would be lost, and our own account may not be held by it.
    fn of(clients: Clients) -> Option<Side> {
        match clients {
            Clients::OnSource | Clients::Held => Some(Side::Source),
            Clients::OnTarget => Some(Side::Target),
            Clients::HeldOnTarget => None,
        }
    }
}

/// All connections of one store's load.
pub struct Pool {
    copies: Copies,
    /// The tables as the source describes them.
    on_source: Arc<Tables>,
    /// The same as the target does.
    on_target: Arc<Tables>,
    clients: watch::Receiver<Clients>,
    figures: Arc<Figures>,
    idle: Mutex<Vec<(Side, Session)>>,
    free: Semaphore,
}

impl Pool {
    /// None is open yet.
    #[must_use]
    pub fn new(
        copies: Copies,
        on_source: Arc<Tables>,
        on_target: Arc<Tables>,
        clients: watch::Receiver<Clients>,
        figures: Arc<Figures>,
    ) -> Pool {
        Pool { copies, on_source, on_target, clients, figures, idle: Mutex::default(), free: Semaphore::new(CONNECTIONS) }
    }

    /// Writes a transaction, however often it takes.
    ///
    /// # Errors
    /// What no trying heals: an account that may not write, a server that does not let it in. [`MysqlError::Cancelled`].
    pub async fn carry_out(&self, rows: &[Rows], cancel: &CancellationToken) -> Result<()> {
        // Never closed.
        let _free = self.free.acquire().await.map_err(|_| MysqlError::Cancelled)?;
        self.figures.connected();
        let done = tokio::select! {
            () = cancel.cancelled() => Err(MysqlError::Cancelled),
            done = self.try_on(rows) => done,
        };
        self.figures.connections.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
        self.figures.committed(done?);
        Ok(())
    }

    async fn try_on(&self, rows: &[Rows]) -> Result<Done> {
        let mut lost = 0;
        loop {
            let mut clients = self.clients.clone();
            let side = Side::of(*clients.borrow_and_update());
            let tried = tokio::select! {
                biased;
                // A statement that waits for a lock of the fence's may wait for ever: its connection is given up, as a client's would be cut.
                _ = clients.wait_for(|now| Side::of(*now) != side) => continue,
                tried = async {
                    match side {
                        Some(side) => self.attempt(side, rows).await,
                        None => std::future::pending().await,
                    }
                } => tried,
            };
            match tried {
                Ok(done) => return Ok(done),
                Err(error) if error.code().is_some_and(|code| LOST_TO_ANOTHER.contains(&code)) => {
                    lost += 1;
                    if lost >= TRIES {
                        let changes = rows.iter().map(|rows| rows.changes.len() as u64).sum();
                        let why = "other transactions had its rows again and again".to_owned();
                        return Ok(Done { refused: [(why, changes)].into(), ..Done::default() });
                    }
                }
                Err(error) if write::may_pass_later(&error) => {
                    self.figures.reconnected.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
                    tracing::debug!(%error, "a connection of the load was lost or is held");
                    tokio::time::sleep(WAIT).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(&self, side: Side, rows: &[Rows]) -> Result<Done> {
        let mut session = self.take(side).await?;
        let tables = match side {
            Side::Source => &self.on_source,
            Side::Target => &self.on_target,
        };
        let done = write::transaction(&mut session, rows, tables).await;
        let usable = match &done {
            Ok(_) => true,
            Err(error) => error.code().is_some_and(|code| LOST_TO_ANOTHER.contains(&code)),
        };
        if usable {
            self.idle().push((side, session));
        }
        done
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Side, Session)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, or a new one. Those to where clients no longer are are closed.
    async fn take(&self, side: Side) -> Result<Session> {
        let (found, left) = {
            let mut idle = self.idle();
            let left: Vec<Session> = idle.extract_if(.., |(of, _)| *of != side).map(|(_, session)| session).collect();
            (idle.pop(), left)
        };
        for session in left {
            session.close().await;
        }
        if let Some((_, session)) = found {
            return Ok(session);
        }
        let server = match side {
            Side::Source => self.copies.source(),
            Side::Target => self.copies.target(),
        };
        let mut session = Session::open(server, Purpose::Write).await?;
        // As a client's: the log of an old server lacks what foreign keys cascade, so the copy has to do it itself. Who waits for a row for long is told so.
        session.run("SET SESSION foreign_key_checks = 1, innodb_lock_wait_timeout = 10", "setting up a connection of the load").await?;
        session.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", "setting the isolation level").await?;
        Ok(session)
    }

    /// Closes those that nobody uses.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for (_, session) in idle {
            session.close().await;
        }
    }
}
