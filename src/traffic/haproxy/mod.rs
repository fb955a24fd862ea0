//! Holding clients at HAProxy while the servers behind it change: `traffic.hold`, `traffic.switch`, `traffic.release`.
//!
//! HAProxy runs in TCP mode; its backend has one server in service, the source. In a cutover the order is
//!
//! ```text
//! hold → fence → drain → last check → promote → switch → release (point of no return) → disconnect → check
//! ```
//!
//! # What must hold
//!
//! 1. *No client is refused.* A connection made while clients are held is accepted by HAProxy and waits in its queue.
//! 2. *No client reaches the target before the release*, which is why the release, and not the switch, is the point of no return:
//!    until then nothing was written there, and everything can be undone.
//! 3. *The route is tried before it is taken.* One connection of our own is first in the queue. The switch lets it alone through to the
//!    target, by way of HAProxy, and it has to be greeted there.
//! 4. *The hold does not outlive dbmove.* It is made of connections of our own, as the fence's lock is: when they end, clients are let
//!    through again, without anybody's doing, to the source: until the release the server that clients use leads nowhere else.
//! 5. Nothing HAProxy answers is believed: it answers errors as text, and every change is read back from `show stat` or
//!    `show servers state`.
//!
//! # How clients are held
//!
//! HAProxy has no command that holds. A frontend's `maxconn` of 0 does hold, but raising it again kills the proxies that most people
//! run: with connections waiting, they lock themselves up in that command and are
//! ended by their own watchdog (issue 2726 of HAProxy, mended since; seen with Debian 12's 2.6.12). A server in maintenance does not hold
//! either: with no server left, clients are refused.
//!
//! What every version does well is queue for a full server. So the hold fills the server: it opens [`OCCUPANTS`] connections through the
//! proxy, logged in to the source and kept alive, then sets the server's `maxconn` to half of that. The server is full, whoever comes
//! waits, and stays full though half of our connections should be lost. If dbmove dies, all of them end, and clients are let through,
//! [`MAXCONN`] at a time: slower than before, but served, by the source.
//!
//! The queue is first in, first out. Right after the server became full, one connection (the [`scout`]) queues up; if
//! HAProxy's list of sessions shows anybody waiting beside it, somebody may be before it: then all are let through and
//! it is tried again. So the scout is first. The list also says how long HAProxy lets it wait (`timeout queue`, or
//! `timeout connect` where that is not set), which no other command tells: too short a time is refused, and nobody was held longer
//! than a moment.
//!
//! Connections that were there before stay connected. Those of single requests end by themselves; those of
//! pools don't, and the source closes them between two requests, so that pools connect again and wait ([`finishing`]).
//!
//! # How they are switched and let go
//!
//! The switch does not touch the server that clients use: were dbmove killed with that one pointed to the target, its connections would end,
//! clients be let through before the point of no return, and what they wrote there be lost by the undo. It points a second
//! server of the backend to the target, one in maintenance, and has HAProxy lead the scout there ([`aside`]).
//!
//! The release points the clients' server to the target and sets `maxconn` to what it was: `set server … addr` changes where new connections
//! go, in one command; those there are stay where they are. Where there was none, 0 would be the word for it, but HAProxy doesn't look at its queue
//! then and those in it would wait for ever: so a number that nothing reaches comes first, and 0 when the queue is empty.
//! Everybody at once would be too many: seconds of waiting clients may be more than the target's `max_connections`, and it would turn
//! the rest away. And more at once than fit its `back_log` (50 on old servers) would wait for ever: the server has dropped
//! them, which a client that waits for its greeting learns late or never. So they are let through in steps that begin small and double, each once
//! the server has taken the one before ([`room`]), up to as many as it has room for, until nobody waits; the same towards the source when a hold is undone.
//!
//! With the first of these commands the point of no return is passed. Whoever finds it passed, after an error or a kill, does the rest: the second attempt of
//! the same driver, or the next one before it goes on ([`Step::finish`](crate::engine::step::Step::finish)).
//!
//! # Through a rollback
//!
//! The same again, at the target and without a scout: full with connections of ours to the target, so that clients wait while its writes are held
//! and carried back. The undo of the switch points HAProxy to the source, and the undo of the hold, the last one, lets them through.
//!
//! # What HAProxy forgets
//!
//! All of this is HAProxy's state, not its configuration. A reload or restart brings back what the file says: no hold, and the source.
//! A reload while clients are held is noticed (the server is not full) and undone. After the release the file has to be changed before
//! the next reload; the plan and the output say so.
//!
//! # By hand
//!
//! Should dbmove be gone for good while clients are held, they are served by the source a few at a time. This lets all of them
//! through:
//!
//! ```text
//! echo "set maxconn server BACKEND/SERVER 1000000" | socat stdio /run/haproxy/admin.sock
//! ```
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`arguments`] | what a playbook says, and the route of a run |
//! | [`control`] | one question to the control socket |
//! | [`status`] | reading what it answers |
//! | [`server`] | one server of one backend: looked at, filled, opened, pointed elsewhere |
//! | [`occupants`] | our own connections that keep the server full |
//! | [`scout`] | the connection that is first in the queue |
//! | [`aside`] | a second server that only the scout gets to |
//! | [`clients`] | who came through the proxy, as the source sees it |
//! | [`finishing`] | the time that connections get which were there before |
//! | [`room`] | how fast a server can be given those who waited |
//! | `login` | how clients log in to the two servers |
//! | [`hold`], [`switch`], [`release`] | the steps |

pub mod arguments;
pub mod aside;
pub mod clients;
pub mod control;
pub mod finishing;
pub mod hold;
mod login;
pub mod occupants;
pub mod release;
pub mod room;
pub mod scout;
pub mod server;
pub mod status;
pub mod switch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::context::{Outputs, StepContext};
use crate::engine::step::StepError;
use crate::traffic::checkpoint::{keep, kept};
use arguments::{Route, Routes};
use occupants::Occupants;
use room::Room;
use scout::Scout;
use server::ProxiedServer;

/// How many connections of our own fill the server.
pub const OCCUPANTS: u64 = 48;
/// The server's `maxconn` while clients are held: also how many at a time are served if dbmove dies meanwhile.
pub const MAXCONN: u64 = 24;
/// More than HAProxy ever has connections: lets everybody through. (0, its word for "no limit", leaves those waiting where they are.)
pub const EVERYBODY: u64 = 1_000_000;

/// Where the source stood before the hold, as `traffic.hold` keeps it in its checkpoint and tells it in its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The route held, references resolved.
    pub route: Route,
    /// The server's `maxconn`; `None` if it had none.
    pub maxconn: Option<u64>,
    /// The `maxconn` that holds clients.
    pub held: u64,
}

/// The output fact that holds [`Before`].
pub const BEFORE: &str = "held_route";

/// The output fact of `traffic.hold` and `traffic.switch` that names their store: each may have a HAProxy, or a backend, of its own.
const STORE: &str = "store";

/// The output fact of `traffic.switch` that says where HAProxy will lead: `10.0.0.9:3306`.
pub const LEADS_TO: &str = "leads_to";

/// The output fact of `traffic.switch` that says where HAProxy led before.
const CAME_FROM: &str = "from";

/// What holds clients: ours, and gone with this process.
pub struct Holding {
    /// What keeps the server full.
    pub occupants: Occupants,
    /// First in the queue, until it is let through.
    pub scout: Option<Scout>,
    /// Waits as well while the first is let through, so that the queue is not empty then.
    pub reserve: Option<Scout>,
}

/// What the three steps of one store share in this process.
#[derive(Default)]
pub struct Shared {
    /// The store's name.
    store: String,
    routes: Mutex<Option<Routes>>,
    /// Set while clients are held by this process.
    pub holding: tokio::sync::Mutex<Option<Holding>>,
}

impl Shared {
    /// For the steps of this store.
    #[must_use]
    pub fn of_store(store: &str) -> Self {
        Shared { store: store.to_owned(), ..Shared::default() }
    }

    /// A fact that an earlier step of the same store has left behind. One without a store is of a run that an older build began: that one
    /// could have one hold only.
    fn found<'a>(&self, outputs: &'a Outputs, fact: &str) -> Option<&'a Value> {
        let ours = |facts: &&BTreeMap<String, Value>| facts.get(STORE).is_none_or(|store| *store == *self.store);
        outputs.values().filter(ours).find_map(|facts| facts.get(fact))
    }

    /// What `traffic.hold` was told, for the plans of the others.
    pub fn tell(&self, routes: &Routes) {
        *self.routes.lock().unwrap_or_else(PoisonError::into_inner) = Some(routes.clone());
    }

    /// The route as far as it is known before the hold: a reference in it may not be resolved.
    ///
    /// # Errors
    /// If the playbook has no `traffic.hold` for the store, or this run has no route.
    pub fn planned(&self, context: &StepContext) -> Result<Route, StepError> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let routes = routes.ok_or_else(|| {
            StepError::definite(format!("`{}` has no route: its store has no `traffic.hold` before it", context.step))
                .hint("add a step `traffic.hold` for the same store; it says where HAProxy is")
        })?;
        routes.of_run(context)
    }

    /// Lets everybody through with the `maxconn` that was there before, as many at a time as there is `room` for, and ends our own connections. Nothing
    /// is done where that is so already.
    ///
    /// # Errors
    /// If HAProxy did not do it; how it is done by hand is part of the error.
    async fn let_through(
        &self,
        before: &Before,
        server: &ProxiedServer,
        room: impl Future<Output = Room> + Send,
        calm: Duration,
    ) -> Result<(), StepError> {
        if server.fullness().await?.maxconn != before.maxconn {
            server.open(before.maxconn, room.await, calm).await?;
        }
        if let Some(holding) = self.holding.lock().await.take() {
            holding.occupants.end().await;
        }
        Ok(())
    }

    /// What the hold of this run found, from its output; none if nobody is held.
    ///
    /// # Errors
    /// If the output can't be read.
    pub fn before(&self, context: &StepContext) -> Result<Option<Before>, StepError> {
        let Some(found) = self.found(&context.outputs, BEFORE) else { return Ok(None) };
        serde_json::from_value(found.clone())
            .map(Some)
            .map_err(|error| StepError::definite(format!("`{BEFORE}`, the output of `traffic.hold`, can't be read: {error}")))
    }

    /// Where the switch of this run has tried HAProxy to lead; none if it was not run.
    fn leads_to(&self, context: &StepContext) -> Option<SocketAddr> {
        self.found(&context.outputs, LEADS_TO)?.as_str()?.parse().ok()
    }

    /// Whether HAProxy's clients were led to the target in this run.
    pub(super) fn has_switched(&self, context: &StepContext) -> bool {
        self.found(&context.outputs, LEADS_TO).is_some()
    }

    /// Where HAProxy led before that; none if it was not run.
    fn came_from(&self, context: &StepContext) -> Option<SocketAddr> {
        self.found(&context.outputs, CAME_FROM)?.as_str()?.parse().ok()
    }
}

/// What makes and undoes steps share it.
pub type SharedHold = Arc<Shared>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::step::Output;

    #[test]
    fn each_store_has_a_hold_and_a_goal_of_its_own() {
        let facts = |store: &str, hold: &str, goal: &str| {
            let hold = Output::default().fact(STORE, store).fact(BEFORE, hold);
            [(format!("hold_{store}"), hold), (format!("switch_{store}"), Output::default().fact(STORE, store).fact(LEADS_TO, goal))]
        };
        let steps = [facts("accounts", "a", "10.0.0.1:3306"), facts("school", "b", "10.0.0.2:3306")];
        let outputs: Outputs = steps.into_iter().flatten().map(|(step, output)| (step, output.facts)).collect();
        for (store, hold, goal) in [("accounts", "a", "10.0.0.1:3306"), ("school", "b", "10.0.0.2:3306")] {
            let shared = Shared::of_store(store);
            assert_eq!(shared.found(&outputs, BEFORE).unwrap(), hold);
            assert_eq!(shared.found(&outputs, LEADS_TO).unwrap(), goal);
        }
        let other = Shared::of_store("library");
        assert_eq!(other.found(&outputs, BEFORE), None);
        // Of a run that an older build began.
        let outputs = Outputs::from([("hold".to_owned(), Output::default().fact(BEFORE, "c").facts)]);
        assert_eq!(other.found(&outputs, BEFORE).unwrap(), "c");
    }
}
