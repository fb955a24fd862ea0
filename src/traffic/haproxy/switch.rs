//! The step `traffic.switch`: while clients are held, tries the way from HAProxy to the target with our own connection alone. See
//! [`haproxy`](super).
//!
//! The server that clients use is not touched: a second one leads to the target, and nobody but that one connection, which says
//! nothing, is let through to it. So there is no moment at which a kill would lead a client to the target. The release points
//! the clients' server to where the switch has been.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::arguments::{Route, place};
use super::login::Login;
use super::scout::Scout;
use super::server::ProxiedServer;
use super::{Before, CAME_FROM, Holding, LEADS_TO, STORE, SharedHold, keep, kept};
use super::{aside, clients};
use crate::engine::context::StepContext;
use crate::engine::crash;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::hook::message::printable;
use crate::mysql::connect::{Purpose, Server, Session};
use crate::traffic::client::Place;

/// What `traffic.switch` can be told: nothing. `traffic.hold` says where HAProxy is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchArguments {}

/// The checkpoint: where the server leads, and where it will lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Switched {
    from: SocketAddr,
    to: SocketAddr,
    /// The target greeted our connection there.
    tried: bool,
}

/// Under which [`Switched`] is saved; `null` once undone.
const CHECKPOINT: &str = "switched";
/// For the target's greeting through HAProxy.
const GREETING_LIMIT: Duration = Duration::from_secs(3);
/// For connections that are left to be gone, and for ours to show in the queue.
const LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(5);

/// The step `traffic.switch`.
pub struct TrafficSwitch {
    source: Arc<Server>,
    target: Arc<Server>,
    shared: SharedHold,
}

/// Where HAProxy will lead: to the target as it reaches it.
pub(super) fn goal(route: &Route, target: &Server) -> Result<Place, StepError> {
    match &route.target {
        Some(written) => place("target", written),
        None => Ok(Place { host: target.host.clone(), port: target.port }),
    }
}

/// Whether the target is known by a name, of which HAProxy keeps the address that it had at the switch.
fn is_a_name(goal: &Place) -> bool {
    goal.host.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
}

/// What has to be changed in HAProxy's file. It never reads `address` when the target goes by a name: that is the address of one moment.
fn change(server: &ProxiedServer, goal: &Place, address: SocketAddr) -> String {
    if is_a_name(goal) {
        format!(
            "`{server}` has to lead to `{goal}` by its name in HAProxy's file, with `resolvers`, and HAProxy to be reloaded soon: until then it              leads to `{address}`, whichever server has that address after a failover"
        )
    } else {
        format!("`{server}` has to lead to `{goal}` in HAProxy's file before its next reload")
    }
}

/// The address HAProxy has to be given, which takes no names.
pub(super) async fn resolve(place: &Place) -> Result<SocketAddr, StepError> {
    let found = tokio::net::lookup_host((place.host.as_str(), place.port))
        .await
        .map_err(|error| StepError::transient(format!("the target's address `{place}` can't be resolved: {error}")))?;
    let mut found: Vec<SocketAddr> = found.collect();
    // The same one each time, should there be several.
    found.sort();
    found.first().copied().ok_or_else(|| StepError::definite(format!("the target's address `{place}` resolves to nothing")))
}

impl TrafficSwitch {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.switch";

    /// From the two servers of this run and what the three steps share.
    #[must_use]
    pub fn new(source: Arc<Server>, target: Arc<Server>, shared: SharedHold) -> Self {
        TrafficSwitch { source, target, shared }
    }

    /// Closes who is connected still: behind the fence they can't commit, and will be let through to the target with those who wait.
    async fn close_the_last(&self, server: &ProxiedServer, holding: &Holding) -> Result<u64, StepError> {
        let (began, mut closed, mut session) = (Instant::now(), 0, None);
        loop {
            let serves = server.fullness().await?.sessions;
            if serves <= holding.occupants.alive() {
                return Ok(closed);
            }
            if began.elapsed() > LIMIT {
                return Err(StepError::definite(format!(
                    "{} connections that are not ours stay connected through `{server}`, though the source was told to close them",
                    serves - holding.occupants.alive()
                ))
                .hint("look at `show sess` of HAProxy and `SHOW PROCESSLIST` of the source for whose they are"));
            }
            let session = match &mut session {
                Some(session) => session,
                None => session.insert(Session::open(&self.source, Purpose::Read).await?),
            };
            closed += clients::close_all(session, &holding.occupants.host).await?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Has another connection of ours wait in the queue, behind the first.
    async fn queue_reserve(&self, server: &ProxiedServer, before: &Before, holding: &mut Holding) -> Result<(), StepError> {
        let reserve = Scout::connect(&place("address", &before.route.address)?).await?;
        let began = Instant::now();
        loop {
            let waiting = server.waiting().await?;
            let waits = |scout: &Scout| waiting.iter().any(|one| one.from == scout.from);
            if waits(&reserve) && holding.scout.as_ref().is_some_and(waits) {
                holding.reserve = Some(reserve);
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                return Err(StepError::definite(format!(
                    "our connections do not wait in HAProxy's queue for `{server}` ({} others do). Nothing was switched",
                    waiting.len()
                ))
                .hint("a restart or reload of HAProxy lets clients through; start the cutover again"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets our own connection through to the target, alone, and proves that it is greeted there.
    async fn try_alone(&self, server: &ProxiedServer, before: &Before, to: SocketAddr, holding: &mut Holding) -> Result<String, StepError> {
        self.queue_reserve(server, before, holding).await?;
        let Some(scout) = &mut holding.scout else {
            return Err(StepError::definite("our connection that was first in HAProxy's queue has been used"));
        };
        let aside = server.aside();
        aside.lead_to(to).await?;
        aside.set_maxconn(1).await?;
        let given = aside.fullness().await?.given;
        crash::point("switch.pointed");
        aside.take_the_first().await?;
        crash::point("switch.let_through");
        let greeting = scout.greeting(GREETING_LIMIT).await?.ok_or_else(|| {
            StepError::definite(format!("no server greeted our connection through HAProxy to `{to}` within {GREETING_LIMIT:?}"))
                .hint("see whether HAProxy reaches the target (network, firewall) and the target takes connections from it")
        })?;
        let given = aside.fullness().await?.given.saturating_sub(given);
        if given != 1 {
            return Err(StepError::definite(format!(
                "HAProxy led {given} connections to `{to}` where only ours was to be let through: a client may have been served by the target"
            ))
            .hint("if a client wrote there, the next fence names it; use `balance roundrobin`, or one thread"));
        }
        let mut target = Session::open(&self.target, Purpose::Read).await?;
        // MariaDB says `5.5.5-` before its version to clients of old.
        let version = greeting.version.strip_prefix("5.5.5-").unwrap_or(&greeting.version);
        let connection = greeting.connection.to_string();
        let rows = target.rows("SHOW PROCESSLIST", "looking for our connection through HAProxy").await?;
        target.close().await;
        let known = rows.iter().any(|row| row.first().is_some_and(|cell| cell.as_deref() == Some(connection.as_str())));
        if known && version == target_version(&self.target).await? {
            return Ok(version.to_owned());
        }
        Err(StepError::definite(format!(
            "the server that greets clients behind HAProxy at `{to}` is not the {}: it says it is version {} and that we are its connection {connection}, which the target {}",
            self.target,
            printable(version),
            if known { "has too, but it is of another version" } else { "does not have" }
        ))
        .hint("check `target`, and where HAProxy resolves and routes it"))
    }
}

async fn target_version(target: &Arc<Server>) -> Result<String, StepError> {
    let mut session = Session::open(target, Purpose::Read).await?;
    let text = session.version.text.clone();
    let row = session.first("SELECT @@version", "asking the target's version").await?;
    session.close().await;
    let version = row.and_then(|row| row.into_iter().next().flatten()).unwrap_or(text);
    Ok(version.strip_prefix("5.5.5-").unwrap_or(&version).to_owned())
}

#[async_trait]
impl Step for TrafficSwitch {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let route = self.shared.planned(context)?;
        let goal = match &route.target {
            Some(target) => target.clone(),
            None => goal(&route, &self.target)?.to_string(),
        };
        let mut plan = Plan {
            lines: vec![
                format!("point a second server, `{}/{}`, at HAProxy to `{goal}`; clients are not led there", route.backend, aside::NAME),
                format!("let one connection of our own through to it, alone: the {} has to greet it", self.target),
            ],
            warnings: Vec::new(),
        };
        // A reference that is not resolved yet is an address or a name; it is said when it is known.
        if let Some(name) = self::goal(&route, &self.target).ok().filter(|goal| is_a_name(goal) && !goal.host.contains("${")) {
            plan.warnings.push(format!(
                "HAProxy is given the address that `{}` has at the switch, and keeps it: where the name moves on, as at a failover of RDS or Aurora,                  clients go to the old server until HAProxy's file has the name, with `resolvers`, and is reloaded",
                name.host
            ));
        }
        match tokio::try_join!(Login::of(&self.source), Login::of(&self.target)) {
            Ok((source, target)) => {
                let (line, warning) = Login::compared(&source, &target);
                plan.lines.push(line);
                plan.warnings.extend(warning);
            }
            Err(error) => plan.lines.push(format!("how clients log in is not known yet: {error}")),
        }
        Ok(plan)
    }

    async fn estimate(&self, _: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        context.check_cancelled()?;
        let not_held = |why: &str| {
            StepError::definite(format!("clients are not held at HAProxy: {why}. Nothing was switched"))
                .hint("a restart or reload of HAProxy lets them through; start the cutover again")
        };
        let Some(before) = self.shared.before(context)? else { return Err(not_held("no `traffic.hold` was run")) };
        let mut held = self.shared.holding.lock().await;
        let Some(holding) = held.as_mut() else { return Err(not_held("this process holds none of the connections that do it")) };
        let server = ProxiedServer::of(&before.route)?;
        let fullness = server.fullness().await?;
        if fullness.maxconn != Some(before.held) || fullness.sessions < before.held || holding.occupants.alive() < before.held {
            return Err(not_held(&format!(
                "`{server}` serves {} connections, {} of them ours, and its `maxconn` is {}",
                fullness.sessions,
                holding.occupants.alive(),
                fullness.maxconn.map_or("not set".to_owned(), |limit| limit.to_string())
            )));
        }
        let now = server.state().await?.address;
        let goal = goal(&before.route, &self.target)?;
        let to = resolve(&goal).await?;
        let switched = match kept::<Switched>(context, CHECKPOINT)? {
            Some(switched) if now == Some(switched.from) || now == Some(switched.to) => Switched { to, tried: false, ..switched },
            Some(switched) => {
                return Err(StepError::definite(format!(
                    "`{server}` leads neither to `{}` nor to `{}` but somewhere else: somebody changed it. It was left as it is",
                    switched.from, switched.to
                )));
            }
            None => match now {
                Some(from) => Switched { from, to, tried: false },
                None => return Err(StepError::definite(format!("HAProxy does not tell where `{server}` leads. Nothing was switched"))),
            },
        };
        keep(context, CHECKPOINT, Some(&switched))?;
        let closed = self.close_the_last(&server, holding).await?;
        let version = self
            .try_alone(&server, &before, to, holding)
            .await
            .map_err(|error| StepError { message: format!("{}; clients are still led to `{}`", error.message, switched.from), ..error })?;
        // Nobody takes its place: its server is in maintenance.
        holding.scout = None;
        keep(context, CHECKPOINT, Some(&Switched { tried: true, ..switched.clone() }))?;
        let output = Output::default()
            .fact(STORE, self.shared.store.as_str())
            .fact(CAME_FROM, switched.from.to_string())
            .fact(LEADS_TO, to.to_string())
            .fact("target_version", version)
            .fact("closed", closed)
            .fact("change_the_configuration", change(&server, &goal, to));
        context.save_output(&output)?;
        Ok(output)
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let Some(switched) = kept::<Switched>(context, CHECKPOINT)? else { return Ok(Probe::NotStarted) };
        let Some(before) = self.shared.before(context)? else { return Ok(Probe::NotStarted) };
        let server = ProxiedServer::of(&before.route)?;
        let now = server.state().await?.address;
        Ok(if now == Some(switched.from) {
            if switched.tried { Probe::Done } else { Probe::NotStarted }
        } else if now == Some(switched.to) {
            // Not our doing before the release, which comes after the switch.
            Probe::Foreign { found: format!("`{server}` leads to the target already") }
        } else {
            Probe::Foreign { found: format!("`{server}` leads neither to the source nor to the target") }
        })
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        let Some(switched) = kept::<Switched>(context, CHECKPOINT)? else { return Ok(()) };
        let Some(before) = self.shared.before(context)? else { return Ok(()) };
        let server = ProxiedServer::of(&before.route)?;
        let aside = server.aside();
        if server.beside().await?.iter().any(|other| other.name == aside::NAME && other.in_service) {
            aside.retire().await?;
        }
        server.lead_back(switched.from, switched.to).await?;
        context.save_checkpoint(CHECKPOINT, &serde_json::Value::Null)
    }
}
