//! How fast the server behind HAProxy can be given the clients that waited.
//!
//! More than its `max_connections` are turned away, and more at once than fit its `back_log` are dropped by the system it runs on, which a
//! client that waits for a greeting learns after a second or never. How fast a server takes connections from its `back_log` depends on what
//! else its machine does, so it is asked how many it has taken before it is given more.

use std::sync::Arc;

use crate::mysql::connect::{Purpose, Server, Session, TextRow};
use crate::mysql::error::Result;

/// Steps of a server whose `back_log` is large: a greeting costs it something too.
const MOST_AT_ONCE: u64 = 250;
/// What the oldest servers take as they are delivered.
const UNKNOWN: (u64, u64) = (25, 75);

/// The server that clients are let through to.
pub struct Room {
    /// In one moment, half its `back_log`: more might not fit.
    pub at_once: u64,
    /// Besides those it has, three quarters of what its limits leave.
    pub at_most: u64,
    session: Option<Session>,
}

impl Room {
    /// Asks the server.
    ///
    /// # Errors
    /// If it can't be asked.
    pub async fn at(server: &Arc<Server>) -> Result<Room> {
        let mut session = Session::open(server, Purpose::Read).await?;
        let query = "SELECT @@global.max_connections, @@global.max_user_connections, @@global.back_log";
        let limits = session.first(query, "asking how many connections it takes").await?;
        let connected = session.first("SHOW GLOBAL STATUS LIKE 'Threads_connected'", "asking how many are connected").await?;
        let (most, per_user, back_log) = (number(&limits, 0), number(&limits, 1), number(&limits, 2));
        let free = most.saturating_sub(number(&connected, 1));
        let free = if per_user > 0 { free.min(per_user) } else { free };
        Ok(Room { at_once: (back_log / 2).clamp(1, MOST_AT_ONCE), at_most: (free * 3 / 4).max(1), session: Some(session) })
    }

    /// Of a server that clients are let through to even if it can't be asked.
    pub async fn of(server: &Arc<Server>) -> Room {
        Room::at(server).await.unwrap_or_else(|_| Room::unknown())
    }

    /// Where the server can't be asked, or is not worth asking.
    #[must_use]
    pub fn unknown() -> Room {
        Room { at_once: UNKNOWN.0, at_most: UNKNOWN.1, session: None }
    }

    /// How many connections it has taken since it started; none if it does not say.
    pub(super) async fn taken(&mut self) -> Option<u64> {
        let session = self.session.as_mut()?;
        match session.first("SHOW GLOBAL STATUS LIKE 'Connections'", "asking how many connections it took").await {
            Ok(row) => Some(number(&row, 1)),
            Err(_) => {
                self.session = None;
                None
            }
        }
    }

    /// Ends the session it is asked by.
    pub(super) async fn close(self) {
        if let Some(session) = self.session {
            session.close().await;
        }
    }
}

fn number(row: &Option<TextRow>, at: usize) -> u64 {
    row.as_ref().and_then(|row| row.get(at)?.as_deref()?.parse().ok()).unwrap_or(0)
}
