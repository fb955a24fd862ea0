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
//!
//! # HAProxy's own check
//!
//! Where HAProxy checks the health of the clients' server, it goes on with that when the server leads to the target, and one that does not pass is taken
//! out of service seconds later: every client is refused. So the server aside, to which nobody is led, is checked in the same way, by what the
//! backend says (`option mysql-check`) and where the clients' server is checked, before anybody is held. HAProxy checks a server in maintenance that
//! was added with a check, once it is told to (`enable health`). Its result is kept from one time to the next, so the server is added
//! anew each time; one that stays where it is, because it is of the file and `balance static-rr`, can't be tried.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::server::ProxiedServer;
use super::status::{self, ServerState};
use crate::engine::step::{Failure, StepError};

/// Its name.
pub const NAME: &str = "dbmove_try";
/// What a target has to have.
pub(super) const CHECK_NEEDS: &str = "make sure that the target passes: `option mysql-check user NAME` needs an account `NAME` there (`mysql_native_password`, no \
                                      password, allowed from HAProxy's host), and MySQL 9 takes no login of HAProxy's (a plain `check`, which only connects, \
                                      passes)";
/// Where it leads until it is needed: to nobody.
const NOWHERE: &str = "127.0.0.1:1";
/// A check of our own: as often as that, with the time for its answer that HAProxy gives a check about which nothing is said.
const CHECKED: &str = " check inter 2s fastinter 100ms downinter 100ms";
/// For a check to pass: one that fails may do so by chance.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// The one way of balancing whose backends take no servers while HAProxy runs.
const FIXED: &str = "static-rr";
/// Ways of balancing by which nobody passes those who wait.
const QUEUE_FIRST: [&str; 3] = ["roundrobin", FIXED, "first"];

impl ProxiedServer {
    /// The server beside it that only our own connection gets to.
    #[must_use]
    pub fn aside(&self) -> ProxiedServer {
        ProxiedServer { server: NAME.to_owned(), ..self.clone() }
    }

    /// Makes sure that there is [`aside`](ProxiedServer::aside), out of service, before anybody is held. `own` is how this server, the clients', is found.
    /// Says whether it can be [checked](ProxiedServer::pass_check) as this server is.
    ///
    /// # Errors
    /// [`Failure::Refused`] if clients could be led there, or HAProxy can't make it.
    pub async fn make_aside(&self, own: &ServerState) -> Result<bool, StepError> {
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
        let check = own.check.as_ref().filter(|check| check.enabled).map(|check| {
            let address = check.address.as_ref().map(|address| format!(" addr {address}")).unwrap_or_default();
            let port = check.port.map(|port| format!(" port {port}")).unwrap_or_default();
            format!("{CHECKED}{address}{port}")
        });
        if check.is_some() && balance != FIXED && self.beside().await?.iter().any(|server| server.name == NAME) {
            // What it answers is seen by what is there then.
            self.control.change(&format!("del server {aside}")).await?;
        }
        if self.beside().await?.iter().any(|server| server.name == NAME) {
            return Ok(false);
        }
        let mut answer = String::new();
        // Should it not take the check, there is still the way to be tried.
        for check in check.as_deref().into_iter().chain([""]) {
            answer = self.control.change(&format!("add server {aside} {NOWHERE} maxconn 1{check}")).await?;
            if let Some(added) = self.beside().await?.into_iter().find(|server| server.name == NAME && !server.in_service) {
                return Ok(added.check.is_some());
            }
        }
        Err(StepError::new(Failure::Refused, format!("HAProxy did not add the server `{aside}`: {answer}. Nobody was held"))
            .hint(format!("add it to its file, in the backend `{}`: `server {NAME} {NOWHERE} disabled`", self.backend)))
    }

    /// Has HAProxy check the health of `to` by this server, which is out of service and was added with a check. Nobody is led there.
    ///
    /// # Errors
    /// [`Failure::Refused`] with what HAProxy says if it does not pass.
    pub async fn pass_check(&self, clients_server: &ProxiedServer, to: SocketAddr) -> Result<(), StepError> {
        self.lead_to(to).await?;
        self.control.change(&format!("enable health {self}")).await?;
        let began = Instant::now();
        let passed = loop {
            let passed = self.state().await?.check.is_some_and(|check| check.passed == Some(true));
            if passed || began.elapsed() > CHECK_LIMIT {
                break passed;
            }
            tokio::time::sleep(POLL).await;
        };
        let told = self.last_check().await?;
        self.control.change(&format!("disable health {self}")).await?;
        if passed {
            return Ok(());
        }
        Err(StepError::new(
            Failure::Refused,
            format!(
                "HAProxy checks the health of `{clients_server}`, and the target at `{to}` does not pass ({told}): right after the release HAProxy would \
                 refuse every client. Nobody was held"
            ),
        )
        .hint(CHECK_NEEDS))
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
