//! The step `traffic.switch`: points HAProxy to the target for a moment while clients are held, and tries it with our own connection
//! alone. See [`haproxy`](super).
//!
//! It can be undone: nobody but that one connection, which says nothing, has been let through to the target.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::arguments::{Route, place};
use super::clients::{self, Which};
use super::server::ProxiedServer;
use super::{Before, Holding, LEADS_TO, Shared, SharedHold, keep, kept};
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

/// The checkpoint: where the server led, and where it was told to lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Switched {
    from: SocketAddr,
    to: SocketAddr,
    /// The target greeted our connection there.
    tried: bool,
}

/// Under which [`Switched`] is saved; `null` once undone.
const CHECKPOINT: &str = "switched";
/// For the target's greeting through HAProxy. Less than HAProxy's own three tries of a second each: whoever should have been let through
/// beside us reaches the source at the next.
const GREETING_LIMIT: Duration = Duration::from_millis(1500);
/// For connections that are left to be gone.
const LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(5);

/// The step `traffic.switch`.
pub struct TrafficSwitch {
    source: Arc<Server>,
    target: Arc<Server>,
    shared: SharedHold,
}

/// The address HAProxy has to be given, which takes no names.
async fn resolve(place: &Place) -> Result<SocketAddr, StepError> {
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

    fn goal(&self, route: &Route) -> Result<Place, StepError> {
        match &route.target {
            Some(target) => place("target", target),
            None => Ok(Place { host: self.target.host.clone(), port: self.target.port }),
        }
    }

    /// Nobody but our own may be connected: of a session that ends while one more is allowed, a client would take the place.
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
            closed += clients::close(session, &holding.occupants.host, Which::All).await?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets our own connection through, alone, and proves that the target greets it.
    async fn try_alone(&self, server: &ProxiedServer, before: &Before, holding: &mut Holding) -> Result<String, StepError> {
        let Some(scout) = &mut holding.scout else {
            return Err(StepError::definite("our connection that was first in HAProxy's queue has been used"));
        };
        // One more than are there, and they are all ours: the first in the queue gets through, and nobody else.
        // Lowered before it is greeted: were it refused, its place would be free for the next.
        server.set_maxconn(server.fullness().await?.sessions + 1).await?;
        server.set_maxconn(before.held).await?;
        let greeting = scout.greeting(GREETING_LIMIT).await?.ok_or_else(|| {
            StepError::definite(format!("no server greeted our connection through `{server}` within {GREETING_LIMIT:?}"))
                .hint("see whether HAProxy reaches the target (network, firewall) and the target takes connections from it")
        })?;
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
            "the server that greets clients behind `{server}` is not the {}: it says it is version {} and that we are its connection {connection}, which the target {}",
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
            None => self.goal(&route)?.to_string(),
        };
        Ok(Plan {
            lines: vec![
                format!("point `{}/{}` at HAProxy to `{goal}` for a moment, while clients wait", route.backend, route.server),
                format!(
                    "let one connection of our own through, alone: the {} has to greet it; then point back until the release",
                    self.target
                ),
            ],
            warnings: Vec::new(),
        })
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
        let Some(before) = Shared::before(context)? else { return Err(not_held("no `traffic.hold` was run")) };
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
        let to = resolve(&self.goal(&before.route)?).await?;
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
        keep(context, CHECKPOINT, &switched)?;
        let closed = self.close_the_last(&server, holding).await?;
        server.lead_to(to).await?;
        crash::point("switch.pointed");
        let version = match self.try_alone(&server, &before, holding).await {
            Ok(version) => version,
            Err(error) => {
                // At once, not when the engine comes to it.
                let message = match server.lead_to(switched.from).await {
                    Ok(()) => format!("{}; HAProxy leads to `{}` again", error.message, switched.from),
                    Err(back) => format!("{}; {}", error.message, back.message),
                };
                return Err(StepError { message, ..error });
            }
        };
        // Back until the release: if dbmove died now, our connections would end, and clients be let through before they may.
        server.lead_to(switched.from).await?;
        // Its place stays free: `maxconn` is below what our other connections take.
        holding.scout = None;
        keep(context, CHECKPOINT, &Switched { tried: true, ..switched.clone() })?;
        let output = Output::default()
            .fact("from", switched.from.to_string())
            .fact(LEADS_TO, to.to_string())
            .fact("target_version", version)
            .fact("closed", closed)
            .fact("change_the_configuration", format!("`{server}` has to lead to `{to}` in HAProxy's file before its next reload"));
        context.save_output(&output)?;
        Ok(output)
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let Some(switched) = kept::<Switched>(context, CHECKPOINT)? else { return Ok(Probe::NotStarted) };
        let Some(before) = Shared::before(context)? else { return Ok(Probe::NotStarted) };
        let server = ProxiedServer::of(&before.route)?;
        let now = server.state().await?.address;
        Ok(if now == Some(switched.from) {
            if switched.tried { Probe::Done } else { Probe::NotStarted }
        } else if now == Some(switched.to) {
            Probe::Partly { from: "HAProxy leads to the target, which was not tried".to_owned() }
        } else {
            Probe::Foreign { found: format!("`{server}` leads neither to the source nor to the target") }
        })
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        let Some(switched) = kept::<Switched>(context, CHECKPOINT)? else { return Ok(()) };
        let Some(before) = Shared::before(context)? else { return Ok(()) };
        let server = ProxiedServer::of(&before.route)?;
        let now = server.state().await?.address;
        if now == Some(switched.to) && switched.to != switched.from {
            server.lead_to(switched.from).await?;
        } else if now != Some(switched.from) {
            return Err(StepError::definite(format!(
                "`{server}` leads neither to `{}` nor to `{}`: somebody changed it. It was not put back",
                switched.from, switched.to
            ))
            .hint("see where HAProxy leads clients now"));
        }
        context.save_checkpoint(CHECKPOINT, &serde_json::Value::Null)
    }
}
