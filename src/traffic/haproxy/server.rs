//! One server of one backend: looked at, filled, opened again, pointed elsewhere. Every change is read back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::EVERYBODY;
use super::arguments::Route;
use super::control::Control;
use super::room::Room;
use super::status::{self, Fullness, ServerState, Waiting};
use crate::engine::step::{Failure, StepError};
use crate::hook::message::printable;

/// How long the queue may take to empty once everybody is let through.
const EMPTY_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// How long nobody has waited, with room to spare, when the limit is lifted on the way to another server: one that was idle until now serves
/// its first clients slowly, and they come faster than that.
pub(super) const CALM: Duration = Duration::from_millis(300);
/// Let through in the first step, and twice as many in each that follows: a server's first login of an account costs it much more than
/// those after it (`caching_sha2_password` keeps what it found), and so does its first use of a table.
const FIRST: u64 = 4;
/// Between letting some through and some more.
const STEP: Duration = Duration::from_millis(20);

/// A server of a backend, by HAProxy's control socket.
#[derive(Clone, Debug)]
pub struct ProxiedServer {
    pub(super) control: Control,
    pub(super) backend: String,
    pub(super) server: String,
}

impl std::fmt::Display for ProxiedServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.backend, self.server)
    }
}

impl ProxiedServer {
    /// The server of a route whose references are resolved. Names were checked with the arguments.
    ///
    /// # Errors
    /// If the socket is neither a path nor an address.
    pub fn of(route: &Route) -> Result<Self, StepError> {
        Ok(ProxiedServer {
            control: Control::parse("socket", &route.socket)?,
            backend: route.backend.clone(),
            server: route.server.clone(),
        })
    }

    /// All servers of its backend.
    ///
    /// # Errors
    /// If HAProxy can't be asked, or does not know the backend.
    pub(super) async fn beside(&self) -> Result<Vec<ServerState>, StepError> {
        status::servers(&self.control.ask(&format!("show servers state {}", self.backend)).await?)
    }

    /// Where it leads, and whether it is in service.
    ///
    /// # Errors
    /// If HAProxy can't be asked, or does not know it.
    pub async fn state(&self) -> Result<ServerState, StepError> {
        self.beside().await?.into_iter().find(|server| server.name == self.server).ok_or_else(|| {
            StepError::definite(format!("HAProxy's backend `{}` has no server `{}`", self.backend, self.server))
                .hint("`show servers state` on its control socket lists them")
        })
    }

    /// Whether clients could be held here: asked before anything is changed.
    ///
    /// # Errors
    /// [`Failure::Refused`] with what stands in the way.
    pub async fn check(&self) -> Result<ServerState, StepError> {
        let refused = |message: String, hint: &str| Err(StepError::new(Failure::Refused, format!("{message}. Nobody was held")).hint(hint));
        let level = self.control.ask("show cli level").await?;
        if level.trim() != "admin" {
            let shown: String = level.trim().chars().take(40).collect();
            return refused(
                format!("the control socket `{}` has level `{}`, so nothing can be changed there", self.control, printable(&shown)),
                "say `stats socket … level admin` in HAProxy's `global` section",
            );
        }
        let info = self.control.ask("show info").await?;
        if status::fact(&info, "Nbproc").is_some_and(|processes| processes != "1") {
            return refused(
                "HAProxy runs as several processes (`nbproc`), and its control socket reaches one of them".to_owned(),
                "use threads (`nbthread`) instead",
            );
        }
        let all = self.beside().await?;
        let own = self.state().await?;
        if own.is_down_by_its_check() {
            let told = self.last_check().await?;
            return refused(
                format!("HAProxy's health check of `{self}` fails ({told}), and nobody is led there"),
                "see why: the address the server leads to, and what the check needs there",
            );
        }
        if !own.in_service {
            return refused(
                format!("the server `{self}` is not in service"),
                "see `show servers state`: it has to be up, neither in maintenance nor drained",
            );
        }
        if let Some(other) = all.iter().find(|other| other.in_service && other.name != self.server) {
            return refused(
                format!(
                    "the backend `{}` has another server in service, `{}`, which clients would be led to",
                    self.backend,
                    printable(&other.name)
                ),
                "leave one server in service, the source (`set server … state maint` for the others, or remove them)",
            );
        }
        let fullness = self.fullness().await?;
        if fullness.mode != "tcp" {
            return refused(
                format!("the backend `{}` has mode `{}`", self.backend, printable(&fullness.mode)),
                "databases are proxied in `mode tcp`; check `backend`",
            );
        }
        if fullness.maxconn == Some(1) {
            return refused(
                format!("the server `{self}` has `maxconn 1`, which leaves no room for holding"),
                "raise it: `set maxconn server …`",
            );
        }
        Ok(own)
    }

    /// How full it is.
    ///
    /// # Errors
    /// If HAProxy can't be asked, or does not know it.
    pub async fn fullness(&self) -> Result<Fullness, StepError> {
        status::fullness(&self.control.ask("show stat").await?, &self.backend, &self.server)
    }

    /// How its last health check ended, in HAProxy's words.
    pub(super) async fn last_check(&self) -> Result<String, StepError> {
        status::last_check(&self.control.ask("show stat").await?, &self.backend, &self.server)
    }

    /// Who waits for it.
    ///
    /// # Errors
    /// If HAProxy can't be asked.
    pub async fn waiting(&self) -> Result<Vec<Waiting>, StepError> {
        status::waiting(&self.control.ask("show sess").await?, &self.backend)
    }

    /// Sets its `maxconn`, and reads it back.
    ///
    /// # Errors
    /// If it is not what was asked for.
    pub async fn set_maxconn(&self, maxconn: u64) -> Result<(), StepError> {
        let answer = self.control.change(&format!("set maxconn server {self} {maxconn}")).await?;
        let now = self.fullness().await?.maxconn;
        if now == Some(maxconn).filter(|limit| *limit > 0) {
            return Ok(());
        }
        Err(StepError::definite(format!(
            "HAProxy did not set `maxconn` of `{self}` to {maxconn}: {answer}, and has it at {}",
            now.map_or("no limit".to_owned(), |limit| limit.to_string())
        )))
    }

    /// Lets everybody through, with the `maxconn` that was there before: in steps that the server behind it has
    /// `room` for, until nobody has waited, and a quarter of the room was free, for as long as `calm`.
    ///
    /// # Errors
    /// If HAProxy did not do it, or its queue does not empty; how it is done by hand is part of the error.
    pub async fn open(&self, before: Option<u64>, mut room: Room, calm: Duration) -> Result<(), StepError> {
        let by_hand = |error: StepError| {
            let socket = match &self.control {
                Control::Unix(path) => path.display().to_string(),
                Control::Tcp(address) => format!("tcp:{address}"),
            };
            StepError {
                message: format!("clients may still be held at HAProxy: {}", error.message),
                hint: Some(format!("by hand: echo \"set maxconn server {self} {}\" | socat stdio {socket}", before.unwrap_or(EVERYBODY))),
                ..error
            }
        };
        let all = before.unwrap_or(EVERYBODY);
        let mut fullness = self.fullness().await.map_err(by_hand)?;
        // Ours, which go to the old server or end soon, take no room.
        let most = all.min(room.at_most + fullness.sessions);
        let (began, mut maxconn, mut step) = (Instant::now(), fullness.sessions, FIRST);
        let crowded = |fullness: &Fullness| fullness.queued > 0 || fullness.sessions > most - most / 4;
        let (given, taken) = (fullness.given, room.taken().await);
        // When it last was.
        let mut waited = (fullness.queued > 0).then_some(began);
        while (fullness.queued > 0 || waited.is_some_and(|last| last.elapsed() < calm)) && began.elapsed() < EMPTY_LIMIT {
            let under_way = match (taken, room.taken().await) {
                (Some(before), Some(now)) => (fullness.given.saturating_sub(given)).saturating_sub(now.saturating_sub(before)),
                _ => 0,
            };
            let next = most.min(maxconn + step.min(room.at_once.saturating_sub(under_way)));
            step = step.saturating_mul(2);
            if next != maxconn {
                maxconn = next;
                self.set_maxconn(maxconn).await.map_err(by_hand)?;
            }
            tokio::time::sleep(STEP).await;
            fullness = self.fullness().await.map_err(by_hand)?;
            if crowded(&fullness) {
                waited = Some(Instant::now());
            }
        }
        room.close().await;
        self.set_maxconn(all).await.map_err(by_hand)?;
        fullness = self.nobody_waits().await.map_err(by_hand)?;
        match before {
            // As it was: whoever waits does so because of that limit.
            Some(_) => Ok(()),
            None if fullness.queued == 0 => self.set_maxconn(0).await,
            None => Err(by_hand(StepError::definite(format!("the queue of `{}` did not empty within {EMPTY_LIMIT:?}", self.backend)))),
        }
    }

    /// Waits until nobody waits any more, or too long.
    async fn nobody_waits(&self) -> Result<Fullness, StepError> {
        let began = Instant::now();
        loop {
            let fullness = self.fullness().await?;
            if fullness.queued == 0 || began.elapsed() > EMPTY_LIMIT {
                return Ok(fullness);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Points new connections elsewhere, and reads it back.
    ///
    /// # Errors
    /// If it does not lead there.
    pub async fn lead_to(&self, address: SocketAddr) -> Result<(), StepError> {
        let command = format!("set server {self} addr {} port {}", address.ip(), address.port());
        let answer = self.control.change(&command).await?;
        let now = self.state().await?.address;
        if now == Some(address) {
            return Ok(());
        }
        let now = now.map_or("nowhere".to_owned(), |now| format!("`{now}`"));
        Err(StepError::definite(format!("HAProxy did not point `{self}` to `{address}`: {answer}, and it leads to {now}")))
    }

    /// Points it back to where it led, unless it does already.
    ///
    /// # Errors
    /// If it leads to neither of the two, or does not lead there afterwards.
    pub async fn lead_back(&self, from: SocketAddr, to: SocketAddr) -> Result<(), StepError> {
        let now = self.state().await?.address;
        if now == Some(from) {
            return Ok(());
        }
        if now == Some(to) {
            return self.lead_to(from).await;
        }
        Err(StepError::definite(format!("`{self}` leads neither to `{from}` nor to `{to}`: somebody changed it. It was not put back"))
            .hint("see where HAProxy leads clients now"))
    }
}
