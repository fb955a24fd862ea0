//! Connections that were there before the hold, and the time that each is given to end by itself.
//!
//! # What must hold
//!
//! 1. *A request is not cut in two.* A client that connects for each request, as PHP does, is left alone between its statements, unless the
//!    request takes longer than `finish_within`; one inside a transaction or a statement is left alone in any case.
//! 2. *Nobody waits for a pool.* A pool's connection never ends by itself, and while clients are held everybody would wait for it in vain.
//!
//! What tells the one from the other is how long the connection has been there, which old servers don't say: the time in their process list
//! is that of the present state. So it is watched, and the watching begins `finish_within` *before* anybody is held. Whoever
//! has been there all that while has had its time before the hold and is closed as soon as it is between two
//! requests; whoever came meanwhile is given what is left of its time.
//!
//! A pool whose next request is just on its way when its connection is closed gets the error "server has gone away", as it does
//! whenever a server is restarted; one that connects again and repeats it loses nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::clients::{self, Client};
use super::occupants::Occupants;
use super::server::ProxiedServer;
use crate::engine::context::StepContext;
use crate::engine::step::StepError;
use crate::mysql::connect::Session;
use crate::mysql::error::Result as MysqlResult;

/// Between two looks at who is there: asked sooner, InnoDB tells of transactions what it told before.
const LOOK_EVERY: Duration = Duration::from_millis(104);
/// Between two looks whether anybody is left, which cost the source nothing.
const POLL: Duration = Duration::from_millis(5);

/// Who came through the proxy, and since when each is known.
pub(super) struct Finishing {
    source: Session,
    host: String,
    time: Duration,
    first_seen: BTreeMap<u32, Instant>,
}

/// What became of those who were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finished {
    /// Closed between two requests.
    pub(super) closed: u64,
    /// In a statement or a transaction beyond their time: left to the fence.
    pub(super) stay: u64,
}

impl Finishing {
    /// Watches who comes from `host` for as long as each is given, while everybody is served.
    ///
    /// # Errors
    /// If the source can't be asked, or the run was cancelled.
    pub(super) async fn watch(context: &StepContext, source: Session, host: &str, time: Duration) -> Result<Finishing, StepError> {
        let mut finishing = Finishing { source, host: host.to_owned(), time, first_seen: BTreeMap::new() };
        let began = Instant::now();
        loop {
            finishing.look().await?;
            if began.elapsed() >= time {
                return Ok(finishing);
            }
            context.check_cancelled()?;
            tokio::time::sleep(LOOK_EVERY.min(time.saturating_sub(began.elapsed()))).await;
        }
    }

    /// While clients are held: waits for those who still have time and closes those who had theirs.
    ///
    /// # Errors
    /// If HAProxy or the source can't be asked, or the run was cancelled.
    pub(super) async fn let_end(
        mut self,
        context: &StepContext,
        server: &ProxiedServer,
        occupants: &Occupants,
    ) -> Result<Finished, StepError> {
        let (began, mut closed, mut next_look) = (Instant::now(), 0, Instant::now());
        let stay = loop {
            let stay = server.fullness().await?.sessions.saturating_sub(occupants.alive());
            // Whoever came last has had its time then, and was looked at once more.
            if stay == 0 || began.elapsed() > self.time + 2 * LOOK_EVERY {
                break stay;
            }
            context.check_cancelled()?;
            if Instant::now() >= next_look {
                closed += self.close_idle().await?;
                next_look = Instant::now() + LOOK_EVERY;
            }
            tokio::time::sleep(POLL).await;
        };
        self.source.close().await;
        Ok(Finished { closed, stay })
    }

    /// Who is there now.
    async fn look(&mut self) -> MysqlResult<Vec<Client>> {
        let clients = clients::through(&mut self.source, &self.host).await?;
        let now = Instant::now();
        let known = clients.iter().map(|client| (client.id, self.first_seen.get(&client.id).copied().unwrap_or(now))).collect();
        self.first_seen = known;
        Ok(clients)
    }

    /// Closes those who had their time and are between two requests.
    async fn close_idle(&mut self) -> MysqlResult<u64> {
        let clients = self.look().await?;
        let Some(inside) = clients::inside_transactions(&mut self.source).await? else { return Ok(0) };
        let mut closed = 0;
        for client in clients {
            let had_its_time = self.first_seen.get(&client.id).is_some_and(|since| since.elapsed() >= self.time);
            if had_its_time && client.idle && !inside.contains(&client.id) {
                closed += u64::from(clients::close(&mut self.source, client).await?);
            }
        }
        Ok(closed)
    }
}
