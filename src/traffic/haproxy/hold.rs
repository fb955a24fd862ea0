//! The step `traffic.hold`: from here on new connections wait at HAProxy. See [`haproxy`](super) for how, and what must hold.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::arguments::{DEFAULT_FINISH, HoldArguments, Route, Routes, place};
use super::aside::CHECK_NEEDS;
use super::finishing::Finishing;
use super::occupants::Occupants;
use super::room::Room;
use super::scout::Scout;
use super::server::ProxiedServer;
use super::switch::{goal, resolve};
use super::{BEFORE, Before, Holding, MAXCONN, OCCUPANTS, STORE, SharedHold, keep, kept};
use crate::engine::context::StepContext;
use crate::engine::crash;
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, Undoable};
use crate::hook::runner::read_limit;
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::sight;
use crate::playbook::quantity::HumanDuration;

/// Under which [`Before`] is saved; `null` once undone.
const CHECKPOINT: &str = "before";
/// How often it is tried to be first in the queue. Between a full server and our connection lie two milliseconds or so; under 500
/// connections per second every second or third try has nobody in between.
const TRIES: u32 = 40;
/// Until a connection shows in HAProxy's list of sessions.
const QUEUED_LIMIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(2);

/// The step `traffic.hold`.
pub struct TrafficHold {
    routes: Routes,
    finish: Duration,
    /// As long as writes may be held, if nothing is said.
    hold_for: Option<Duration>,
    source: Arc<Server>,
    target: Arc<Server>,
    shared: SharedHold,
}

impl TrafficHold {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.hold";

    /// From the arguments, how dbmove itself reaches both servers, and what the three steps share.
    ///
    /// # Errors
    /// If an argument can't be used; the message names it.
    pub fn new(arguments: &HoldArguments, source: Arc<Server>, target: Arc<Server>, shared: SharedHold) -> Result<Self, StepError> {
        let routes = Routes::read(arguments)?;
        shared.tell(&routes);
        let finish = read_limit("finish_within", arguments.finish_within.as_ref(), DEFAULT_FINISH)?;
        let hold_for = Self::hold_for(arguments)?;
        Ok(TrafficHold { routes, finish, hold_for, source, target, shared })
    }

    /// Whether the arguments can be used, without a server.
    ///
    /// # Errors
    /// As [`TrafficHold::new`].
    pub fn check(arguments: &HoldArguments) -> Result<(), StepError> {
        Routes::read(arguments)?;
        read_limit("finish_within", arguments.finish_within.as_ref(), DEFAULT_FINISH)?;
        Self::hold_for(arguments).map(drop)
    }

    fn hold_for(arguments: &HoldArguments) -> Result<Option<Duration>, StepError> {
        arguments.hold_for.as_ref().map(|text| read_limit("hold_for", Some(text), Duration::ZERO)).transpose()
    }

    /// How long a client may have to wait.
    fn longest_wait(&self, context: &StepContext) -> Duration {
        self.hold_for.unwrap_or(context.max_write_gap)
    }

    /// Our connections that will make the server full: of HAProxy, which leads to `database`. Nobody is held yet.
    async fn fill(&self, before: &Before, server: &ProxiedServer, database: &Arc<Server>) -> Result<Occupants, StepError> {
        let place = place("address", &before.route.address)?;
        let occupants = Occupants::open(database, &place, before.held * (OCCUPANTS / MAXCONN)).await?;
        let serves = server.fullness().await?.sessions;
        if serves < occupants.alive() {
            return Err(StepError::new(
                Failure::Refused,
                format!(
                    "`{place}` is not led to `{server}`: we have {} connections, it serves {serves}. Nobody was held",
                    occupants.alive()
                ),
            )
            .hint("check `address`, `backend` and `server`"));
        }
        Ok(occupants)
    }

    /// Makes the server full and a connection of ours the first that waits; says how long HAProxy lets it. On an error nobody is held any more.
    async fn be_first(&self, before: &Before, server: &ProxiedServer, hold_for: Duration) -> Result<(Scout, Option<Duration>), StepError> {
        let place = place("address", &before.route.address)?;
        let mut others = Vec::new();
        for _ in 0..TRIES {
            server.set_maxconn(before.held).await?;
            crash::point("hold.full");
            let scout = Scout::connect(&place).await?;
            let began = Instant::now();
            let waiting = loop {
                let waiting = server.waiting().await?;
                if waiting.iter().any(|one| one.from == scout.from) {
                    break waiting;
                }
                if began.elapsed() > QUEUED_LIMIT {
                    return Err(StepError::new(
                        Failure::Refused,
                        format!(
                            "a connection to `{place}` made while `{server}` was full does not wait as one from `{}`; {} others wait",
                            scout.from,
                            waiting.len()
                        ),
                    )
                    .hint("run dbmove where HAProxy sees its address: nothing between may translate addresses"));
                }
                tokio::time::sleep(POLL).await;
            };
            let own = waiting.iter().find(|one| one.from == scout.from);
            let patience = own.and_then(|own| own.patience);
            // It says whole seconds, rounded down.
            if let Some(patience) = patience.filter(|patience| *patience + Duration::from_secs(1) < hold_for) {
                return Err(StepError::new(
                    Failure::Refused,
                    format!(
                        "HAProxy closes a connection that waits longer than about {} s, and clients may have to wait {}",
                        patience.as_secs(),
                        HumanDuration(hold_for)
                    ),
                )
                .hint(format!(
                    "set `timeout queue` and `timeout client` of `{}` to at least {} s, or lower `hold_for` and `max_write_gap`",
                    before.route.backend,
                    hold_for.as_secs() + 5
                )));
            }
            if waiting.len() == 1 {
                return Ok((scout, patience));
            }
            others.push(waiting.len() - 1);
            server.open(before.maxconn, Room::unknown(), Duration::ZERO).await?;
        }
        Err(StepError::transient(format!(
            "{TRIES} times others were in HAProxy's queue before our own connection ({} of them at last), so the route can't be tried alone",
            others.last().copied().unwrap_or(0)
        ))
        .hint("try again when fewer clients connect per second"))
    }

    /// The route of this run, and what `run` found there if it has begun.
    fn before(context: &StepContext) -> Result<Option<Before>, StepError> {
        kept(context, CHECKPOINT)
    }

    async fn run_on(&self, context: &StepContext, route: &Route, server: &ProxiedServer) -> Result<Output, StepError> {
        // Who is inside a transaction is asked of the source, and behind the switch whether our connection is at the target.
        for database in [&self.source, &self.target] {
            sight::sees_everybody_on(database, "Nobody was held").await?;
        }
        let own = server.check().await?;
        let can_be_checked = server.make_aside(&own).await?;
        if own.check.is_some_and(|check| check.enabled) {
            if can_be_checked {
                server.aside().pass_check(server, resolve(&goal(route, &self.target)?).await?).await?;
            } else {
                tracing::warn!(%server, "HAProxy checks the health of this server, and can't try that on the target before clients are led there");
            }
        }
        let before = match Self::before(context)? {
            Some(before) => before,
            None => {
                let maxconn = server.fullness().await?.maxconn;
                let held = maxconn.map_or(MAXCONN, |limit| (limit / 4).clamp(1, MAXCONN));
                Before { route: route.clone(), maxconn, held }
            }
        };
        keep(context, CHECKPOINT, Some(&before))?;
        let mut output =
            Output::default().fact(STORE, self.shared.store.as_str()).fact(BEFORE, serde_json::to_value(&before).unwrap_or_default());
        context.save_output(&output)?;
        let held = async {
            let occupants = self.fill(&before, server, &self.source).await?;
            let asking = Session::open(&self.source, Purpose::Read).await?;
            let finishing = Finishing::watch(context, asking, &occupants.host, self.finish).await?;
            let (scout, patience) = self.be_first(&before, server, self.longest_wait(context)).await?;
            let finished = finishing.let_end(context, server, &occupants).await?;
            Ok::<_, StepError>((Holding { occupants, scout: Some(scout), reserve: None }, patience, finished))
        };
        match held.await {
            Ok((holding, patience, finished)) => {
                output = output
                    .fact("queue_patience_seconds", patience.map(|patience| patience.as_secs()))
                    .fact("closed", finished.closed)
                    .fact("still_connected", finished.stay)
                    .fact("queued", server.fullness().await?.queued);
                *self.shared.holding.lock().await = Some(holding);
                context.save_output(&output)?;
                crash::point("hold.held");
                Ok(output)
            }
            Err(error) => {
                // At once, not when the engine comes to it.
                let message = match server.open(before.maxconn, Room::of(&self.source).await, Duration::ZERO).await {
                    Ok(()) => format!("{}; clients are let through as before", error.message),
                    Err(open) => format!("{}; {}", error.message, open.message),
                };
                Err(StepError { message, ..error })
            }
        }
    }
}

impl TrafficHold {
    /// Lets those through to the target who wait for a rollback.
    async fn let_through(&self, before: &Before, server: &ProxiedServer) -> Result<(), StepError> {
        self.shared.let_through(before, server, Room::of(&self.target), Duration::ZERO).await
    }

    /// Holds clients once more, where they are by now, without trying a route.
    async fn hold_again(&self, context: &StepContext, before: &Before) -> Result<(), StepError> {
        let server = ProxiedServer::of(&before.route)?;
        if server.state().await?.is_down_by_its_check() {
            let told = server.last_check().await?;
            tracing::warn!(%server, told, "HAProxy's health check fails where clients are now, so it leads nobody there: nobody has to wait");
            return Ok(());
        }
        server.check().await?;
        // Of an earlier try, or of a driver that died: as full as it is, our connections would wait for each other.
        self.let_through(before, &server).await?;
        // In the middle of a rollback that was cut short HAProxy may lead to the source already.
        let (database, occupants) = match self.fill(before, &server, &self.target).await {
            Ok(occupants) => (&self.target, occupants),
            Err(error) if error.failure == Failure::Refused => {
                let occupants = self.fill(before, &server, &self.source).await.map_err(|_| error)?;
                (&self.source, occupants)
            }
            Err(error) => return Err(error),
        };
        let asking = Session::open(database, Purpose::Read).await?;
        let finishing = Finishing::watch(context, asking, &occupants.host, self.finish).await?;
        let held = async {
            server.set_maxconn(before.held).await?;
            finishing.let_end(context, &server, &occupants).await
        };
        match held.await {
            Ok(finished) => {
                tracing::info!(closed = finished.closed, stay = finished.stay, "clients wait at HAProxy");
                *self.shared.holding.lock().await = Some(Holding { occupants, scout: None, reserve: None });
                Ok(())
            }
            Err(error) => {
                let message = match server.open(before.maxconn, Room::of(database).await, Duration::ZERO).await {
                    Ok(()) => format!("{}; clients are let through as before", error.message),
                    Err(open) => format!("{}; {}", error.message, open.message),
                };
                Err(StepError { message, ..error })
            }
        }
    }
}

#[async_trait]
impl Step for TrafficHold {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }
    fn holds_writes(&self) -> bool {
        true
    }
    /// Who waits does so for as long as writes are held; HAProxy is asked whether it lets them for `hold_for`.
    fn check_write_gap(&self, max_write_gap: Duration) -> Result<(), StepError> {
        match self.hold_for {
            Some(hold_for) if hold_for < max_write_gap => Err(StepError::new(
                Failure::Refused,
                format!(
                    "`hold_for` says that clients wait for {} at most, and writes may be held for {} (`max_write_gap`)",
                    HumanDuration(hold_for),
                    HumanDuration(max_write_gap)
                ),
            )
            .hint(
                "leave `hold_for` out, or say at least as much; HAProxy's `timeout queue` and `timeout client` have to be longer than that",
            )),
            _ => Ok(()),
        }
    }
    fn holds_clients(&self) -> bool {
        true
    }
    async fn hold_for_rollback(&self, context: &StepContext) -> Result<(), StepError> {
        match Self::before(context)? {
            Some(before) => self.hold_again(context, &before).await,
            None => Ok(()),
        }
    }
    async fn let_through_again(&self, context: &StepContext) -> Result<(), StepError> {
        match Self::before(context)? {
            Some(before) => self.let_through(&before, &ProxiedServer::of(&before.route)?).await,
            None => Ok(()),
        }
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let route = self.routes.of_run(context)?;
        let mut plan = Plan {
            lines: vec![
                format!(
                    "fill `{}/{}` at HAProxy (`{}`) with connections of our own through `{}`",
                    route.backend, route.server, route.socket, route.address
                ),
                format!(
                    "new clients wait there, up to {}; a connection gets {} to end by itself, then it is closed between two requests",
                    HumanDuration(self.longest_wait(context)),
                    HumanDuration(self.finish)
                ),
            ],
            warnings: Vec::new(),
        };
        let looked = async {
            let server = ProxiedServer::of(&route)?;
            server.check().await.map(|state| (server, state))
        };
        match looked.await {
            Ok((server, state)) => {
                if let Some(address) = state.address {
                    plan.lines.push(format!("`{server}` leads to `{address}` now"));
                }
                if state.check.is_some_and(|check| check.enabled) {
                    plan.warnings.push(format!(
                        "HAProxy checks the health of `{server}` and refuses every client where that fails. `{}` has it try the target before anybody is held; {CHECK_NEEDS}",
                        context.step
                    ));
                }
                if let Some(name) = state.dns_name {
                    plan.warnings.push(format!(
                        "HAProxy knows `{server}` by the name `{name}`: if it resolves that name while it runs (`resolvers`), it will lead clients back"
                    ));
                }
            }
            Err(error) if route.socket.contains("${") => drop(error),
            Err(error) => plan.warnings.push(error.message),
        }
        Ok(plan)
    }

    async fn estimate(&self, _: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        context.check_cancelled()?;
        let route = self.routes.of_run(context)?;
        let server = ProxiedServer::of(&route)?;
        self.run_on(context, &route, &server).await
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let Some(before) = Self::before(context)? else { return Ok(Probe::NotStarted) };
        let now = ProxiedServer::of(&before.route)?.fullness().await?.maxconn;
        Ok(match self.shared.holding.lock().await.as_ref() {
            Some(holding) if now == Some(before.held) && holding.occupants.alive() >= before.held => Probe::Done,
            _ if now == before.maxconn => Probe::NotStarted,
            _ => Probe::Partly { from: "`maxconn` is lowered, but our connections that fill the server are gone".to_owned() },
        })
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        let Some(before) = Self::before(context)? else { return Ok(()) };
        self.shared.let_through(&before, &ProxiedServer::of(&before.route)?, Room::of(&self.source), Duration::ZERO).await?;
        // A later run of the step looks anew.
        context.save_checkpoint(CHECKPOINT, &serde_json::Value::Null)
    }
}
