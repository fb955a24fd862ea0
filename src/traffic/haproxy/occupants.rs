//! Our own connections through the proxy that keep the server full. They are logged in, because a server closes who is not, and say
//! something every second, because a proxy closes who is silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::engine::step::{Failure, StepError};
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::error::Result as MysqlResult;
use crate::traffic::client::Place;

/// Between two signs of life: proxies close connections that were silent for half a minute or more.
const SPEAK_EVERY: Duration = Duration::from_secs(1);

/// Connections that keep the server full; dropped, they end.
pub struct Occupants {
    tasks: JoinSet<()>,
    alive: Arc<AtomicU64>,
    /// Where the source sees them come from: HAProxy's own host.
    pub host: String,
}

impl Occupants {
    /// Opens them through the proxy as dbmove's own account on the source, and proves that it is the source they reach.
    ///
    /// # Errors
    /// If one can't be opened, or another server answers. None is left open then.
    pub(super) async fn open(source: &Arc<Server>, through: &Place, count: u64) -> Result<Occupants, StepError> {
        let server = Arc::new(Server {
            role: format!("{}, through HAProxy,", source.role),
            host: through.host.clone(),
            port: through.port,
            ..Server::clone(source)
        });
        let mut opening = JoinSet::new();
        for _ in 0..count {
            let server = Arc::clone(&server);
            opening.spawn(async move { Session::open(&server, Purpose::Read).await });
        }
        let mut sessions = Vec::new();
        while let Some(opened) = opening.join_next().await {
            let opened =
                opened.map_err(|error| StepError::transient(format!("opening connections through HAProxy was interrupted: {error}")))?;
            sessions.push(opened.map_err(|error| {
                let error = StepError::from(error);
                let hint = format!(
                    "`{}` has to be allowed from where HAProxy connects, and the server needs room for {count} more connections",
                    source.user
                );
                StepError { hint: Some(error.hint.map_or(hint.clone(), |first| format!("{first}; {hint}"))), ..error }
            })?);
        }
        let mut direct = Session::open(source, Purpose::Read).await?;
        let meant = identity(&mut direct).await?;
        direct.close().await;
        let mut host = None;
        for session in &mut sessions {
            let found = identity(session).await?;
            if found != meant {
                return Err(StepError::new(
                    Failure::Refused,
                    format!("`{through}` does not lead to the {source}, but to a server with {found}. Nobody was held"),
                )
                .hint(format!("the source has {meant}; check `address`, and where HAProxy's server leads")));
            }
            if host.is_none() {
                host = Some(seen_from(session).await?);
            }
        }
        let alive = Arc::new(AtomicU64::new(count));
        let mut tasks = JoinSet::new();
        for mut session in sessions {
            let alive = Arc::clone(&alive);
            tasks.spawn(async move {
                while session.run("DO 1", "staying connected").await.is_ok() {
                    tokio::time::sleep(SPEAK_EVERY).await;
                }
                alive.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Ok(Occupants { tasks, alive, host: host.unwrap_or_default() })
    }

    /// How many are still connected, as far as they have noticed.
    #[must_use]
    pub fn alive(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// Ends them.
    pub async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

/// What tells one server from another, on every version.
async fn identity(session: &mut Session) -> MysqlResult<String> {
    let query = "SELECT CONCAT('server_id ', @@server_id, ', port ', @@port, ', host ', @@hostname, ', datadir ', @@datadir)";
    let row = session.first(query, "asking which server it is").await?;
    Ok(row.and_then(|row| row.into_iter().next().flatten()).unwrap_or_default())
}

/// The host that the server sees this session come from.
async fn seen_from(session: &mut Session) -> MysqlResult<String> {
    let id = session.id().to_string();
    let rows = session.rows("SHOW PROCESSLIST", "looking where HAProxy connects from").await?;
    let own = rows.into_iter().find(|row| row.first().is_some_and(|cell| cell.as_deref() == Some(id.as_str())));
    let host = own.and_then(|row| row.get(2).cloned().flatten()).unwrap_or_default();
    Ok(super::clients::host_of(&host).to_owned())
}
