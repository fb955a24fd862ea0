//! The step `traffic.release`: points HAProxy to the target and lets the clients that wait there through. See [`haproxy`](super).
//!
//! With it clients reach the target and write there: it is the point of no return of a cutover that holds clients.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::room::Room;
use super::server::{CALM, ProxiedServer};
use super::{Before, SharedHold};
use crate::engine::context::StepContext;
use crate::engine::crash;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable};
use crate::mysql::connect::Server;

/// What `traffic.release` can be told: nothing. `traffic.hold` says where HAProxy is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseArguments {}

/// The step `traffic.release`.
pub struct TrafficRelease {
    target: Arc<Server>,
    shared: SharedHold,
}

impl TrafficRelease {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.release";

    /// From the target of this run and what the three steps share.
    #[must_use]
    pub fn new(target: Arc<Server>, shared: SharedHold) -> Self {
        TrafficRelease { target, shared }
    }

    fn before(&self, context: &StepContext) -> Result<Before, StepError> {
        self.shared.before(context)?.ok_or_else(|| {
            StepError::definite(format!("`{}` has nobody to let through: no `traffic.hold` was run", context.step))
                .hint("add a step `traffic.hold` for the same store before it")
        })
    }

    /// Where `traffic.switch` pointed HAProxy to.
    fn goal(&self, context: &StepContext) -> Result<SocketAddr, StepError> {
        self.shared.leads_to(context).ok_or_else(|| {
            StepError::definite(format!("`{}` has nowhere to let clients through to: no `traffic.switch` was run", context.step))
                .hint("add a step `traffic.switch` for the same store before it")
        })
    }
}

#[async_trait]
impl Step for TrafficRelease {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    /// It is the route: whether it could be put back decides whether a rollback goes on. What the hold changed is put back by its own undo.
    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }
    fn undo_does(&self) -> String {
        "point HAProxy back to where it led".to_owned()
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let route = self.shared.planned(context)?;
        Ok(Plan {
            lines: vec![format!(
                "point `{}/{}` to the target and let everybody who waits through, then end our own connections",
                route.backend, route.server
            )],
            warnings: vec![format!(
                "HAProxy's configuration has to say the target's address for `{}/{}` before its next reload: a reload brings back what the file says",
                route.backend, route.server
            )],
        })
    }

    async fn estimate(&self, _: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let before = self.before(context)?;
        let server = ProxiedServer::of(&before.route)?;
        let goal = self.goal(context)?;
        if server.state().await?.address == Some(goal) {
            // An earlier attempt has led clients to the target, and failed behind that.
            self.shared.let_through(&before, &server, Room::of(&self.target), CALM).await?;
            return Ok(context.saved_output()?.unwrap_or_default());
        }
        let fullness = server.fullness().await?;
        if fullness.maxconn != Some(before.held) {
            return Err(StepError::definite(format!(
                "`{server}` has {}: HAProxy is not as `traffic.hold` left it. Nobody was let through to the target",
                fullness.maxconn.map_or("no `maxconn`".to_owned(), |limit| format!("`maxconn` {limit}"))
            ))
            .hint("a restart or reload of HAProxy brings back what its configuration says; start the cutover again"));
        }
        let room = Room::at(&self.target).await?;
        let output = Output::default().fact("let_through", fullness.queued).fact("at_a_time", room.at_most);
        context.save_output(&output)?;
        server.lead_to(goal).await?;
        crash::point("release.begins");
        self.shared.let_through(&before, &server, std::future::ready(room), CALM).await?;
        Ok(output)
    }

    /// Clients are at the target as soon as HAProxy leads there, however few of them it lets through at a time.
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let server = ProxiedServer::of(&self.before(context)?.route)?;
        let leads_to_target = server.state().await?.address == Some(self.goal(context)?);
        Ok(if leads_to_target { Probe::Done } else { Probe::NotStarted })
    }

    async fn finish(&self, context: &StepContext) -> Result<(), StepError> {
        let before = self.before(context)?;
        self.shared.let_through(&before, &ProxiedServer::of(&before.route)?, Room::of(&self.target), CALM).await
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        let Some(before) = self.shared.before(context)? else { return Ok(()) };
        // Without them `run` has led clients nowhere.
        let (Some(from), Some(to)) = (self.shared.came_from(context), self.shared.leads_to(context)) else { return Ok(()) };
        ProxiedServer::of(&before.route)?.lead_back(from, to).await
    }
}
