//! A second server in the same backend that only our own connection gets to: how the route is tried without moving the server that
//! clients use.
//!
//! # What must hold
//!
//! 1. *One connection is let through to it, and that is the first of HAProxy's queue*, ours.
//! 2. *Nothing of that depends on dbmove's staying alive.* Killed at any moment, clients are led to the source.
//!
//! The server [`NAME`] is in maintenance, so nobody is led there. It is made ready and put into maintenance again by one line with two
//! commands, which HAProxy carries out to its end, whoever sent it. In the moment between the two it takes from the queue as
//! many as its `maxconn` allows: one. A connection once chosen is led there though the server is in maintenance
//! again, and when it ends nobody takes its place.
//!
//! HAProxy has threads, so a client might connect in that moment. With `roundrobin`, `static-rr` and `first` it is led to no server
//! as long as anybody waits in the queue, and a second connection of ours does ([`Reserve`](super::Holding)). Other ways of balancing
//! don't look at the queue first: with `leastconn` and four threads a client got through in about one of forty tries. There it
//! is done with one thread only, or refused. And HAProxy counts whom it led to the server: more than one fails the switch.

use super::server::ProxiedServer;
use super::status;
use crate::engine::step::{Failure, StepError};

/// Its name.
pub const NAME: &str = "dbmove_try";
/// Where it leads until it is needed: to nobody.
const NOWHERE: &str = "127.0.0.1:1";
/// Ways of balancing by which nobody passes those who wait.
const QUEUE_FIRST: [&str; 3] = ["roundrobin", "static-rr", "first"];

impl ProxiedServer {
    /// The server beside it that only our own connection gets to.
    #[must_use]
    pub fn aside(&self) -> ProxiedServer {
        ProxiedServer { server: NAME.to_owned(), ..self.clone() }
    }

    /// Makes sure that there is [`aside`](ProxiedServer::aside), out of service, before anybody is held.
    ///
    /// # Errors
    /// [`Failure::Refused`] if clients could be led there, or HAProxy can't make it.
    pub async fn make_aside(&self) -> Result<(), StepError> {
        let aside = self.aside();
        let info = self.control.ask("show info").await?;
        let balance = self.fullness().await?.balance;
        let threads = status::fact(&info, "Nbthread").unwrap_or("1");
        if threads != "1" && !QUEUE_FIRST.contains(&balance.as_str()) {
            return Err(StepError::new(
                Failure::Refused,
                format!(
                    "the backend `{}` has `balance {balance}` and HAProxy {threads} threads: the target can't be tried without a client's getting there. Nobody was held",
                    self.backend
                ),
            )
            .hint("say `balance roundrobin`: with one server in service it makes no other difference"));
        }
        if self.beside().await?.iter().any(|server| server.name == NAME) {
            return Ok(());
        }
        let answer = self.control.change(&format!("add server {aside} {NOWHERE} maxconn 1")).await?;
        if self.beside().await?.iter().any(|server| server.name == NAME && !server.in_service) {
            return Ok(());
        }
        Err(StepError::new(Failure::Refused, format!("HAProxy did not add the server `{aside}`: {answer}. Nobody was held"))
            .hint(format!("add it to its file, in the backend `{}`: `server {NAME} {NOWHERE} disabled`", self.backend)))
    }

    /// Leads whoever is first in the queue to this server, which has `maxconn` 1 and is out of service before and after.
    ///
    /// # Errors
    /// If HAProxy can't be asked, or leaves it in service.
    pub async fn take_the_first(&self) -> Result<(), StepError> {
        self.change(&format!("set server {self} state ready;set server {self} state maint")).await
    }

    /// Takes it out of service.
    ///
    /// # Errors
    /// If HAProxy can't be asked, or leaves it in service.
    pub async fn retire(&self) -> Result<(), StepError> {
        self.change(&format!("set server {self} state maint")).await
    }

    async fn change(&self, command: &str) -> Result<(), StepError> {
        let answer = self.control.change(command).await?;
        if self.state().await?.in_service {
            return Err(StepError::definite(format!("HAProxy left `{self}` in service: {answer}"))
                .hint(format!("by hand: `set server {self} state maint` on its control socket")));
        }
        Ok(())
    }
}
