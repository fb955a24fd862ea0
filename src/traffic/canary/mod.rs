//! The service step `traffic.canary`: one client of dbmove's own on the real route, to measure what clients notice.
//!
//! It writes a numbered beat every `interval`, each until it is accepted, through the same route as everybody else:
//! where a route file points (in a rehearsal: the rehearsal's file, see [`file`](super::file)), or at a fixed address
//! behind which a proxy or a DNS name switches. From which server accepted which beat when, the
//! [write gap](super::watch) follows.
//!
//! # Before it is ready
//!
//! It sets up its own schema on both servers ([`beat`](super::beat)), the target's before the switch, so that the first
//! beat there finds its table. Its account on the source must be one that `read_only` stops; if it holds SUPER or the
//! like the step is refused. Where clients connect directly (a route file), the account is tried on the target too, while
//! a missing account or privilege there can still be mended. It is ready with the first accepted beat.
//!
//! In a rehearsal a route file that is not there yet stands for the source, as before any switch.
//!
//! # Its end
//!
//! When it is stopped after the target has accepted beats, its schemas are dropped; what could not be dropped (the
//! source is down, or fenced and the account can't write there) is named in the output as `left_behind`. When it is
//! stopped before that, they stay, because the run may go on; `undo` removes them.

mod arguments;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::time::Instant;

use super::beat::BeatTable;
use super::client::{AttemptError, Client, Connected, Place, Route};
use super::watch::{Beats, CanaryWatch, Side};
use crate::engine::context::{Progress, StepContext};
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, StepKind, Undoable};
use crate::hook::runner::read_limit;
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::error::MysqlError;
use crate::mysql::tls::Protection;
use crate::playbook::model::Tls;

pub use arguments::CanaryArguments;
use arguments::{DEFAULT_INTERVAL, RouteArgument, read_table};

/// How long the first beat may take to be accepted.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// How often what was counted is saved.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// For dropping the schema on one server at the end.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);
/// Under which [`Beats`] are saved.
const CHECKPOINT: &str = "beats";
/// `ER_OPTION_PREVENTS_STATEMENT`: the server runs with `read_only`.
const READ_ONLY: u16 = 1290;

/// The service step `traffic.canary`.
pub struct TrafficCanary {
    route: RouteArgument,
    user: String,
    password: Option<SecretString>,
    tls: Protection,
    interval: Duration,
    limit: Duration,
    table: BeatTable,
    source: Arc<Server>,
    target: Arc<Server>,
    watch: Arc<CanaryWatch>,
}

impl TrafficCanary {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.canary";

    /// From the arguments, the password as resolved by the caller, how dbmove itself reaches the two servers of this
    /// run, and what the canary shares with the check.
    ///
    /// # Errors
    /// If the arguments don't fit together; the message names the one to change.
    pub fn new(
        arguments: &CanaryArguments,
        password: Option<SecretString>,
        source: Arc<Server>,
        target: Arc<Server>,
        watch: Arc<CanaryWatch>,
    ) -> Result<Self, StepError> {
        let route = RouteArgument::read(arguments)?;
        Ok(TrafficCanary {
            user: arguments.user.clone(),
            password,
            tls: Protection::of(arguments.tls, arguments.ca.as_deref(), Tls::Off)
                .map_err(|error| StepError::definite(error.to_string()).hint(error.hint()))?,
            interval: read_limit("interval", arguments.interval.as_ref(), DEFAULT_INTERVAL)?,
            limit: read_limit("attempt_timeout", arguments.attempt_timeout.as_ref(), route.attempt_timeout())?,
            route,
            table: read_table(arguments.table.as_deref())?,
            source,
            target,
            watch,
        })
    }

    fn client(&self, context: &StepContext) -> Result<Client, StepError> {
        let route = self.route.of_run(context, &self.source)?;
        if let Route::Fixed(place) = &route {
            self.watch.routed(&format!("`{place}`"));
        }
        Ok(Client {
            route,
            user: self.user.clone(),
            password: self.password.clone(),
            tls: self.tls.clone(),
            table: self.table.clone(),
            id: context.step.to_string(),
            run: context.run.to_string(),
            limit: self.limit,
            watch: self.watch.clone(),
        })
    }

    async fn set_up(&self, context: &StepContext, client: &Client, earlier: Option<&Beats>) -> Result<(), StepError> {
        // After the switch the source may be fenced or gone, and is not needed any more.
        if earlier.is_none_or(|beats| beats.last_on_target.is_none()) {
            let source = async {
                let mut session = Session::open(&self.source, Purpose::Catalog).await?;
                let done = self.table.set_up(&mut session, &context.run, Side::Source).await;
                session.close().await;
                done
            };
            match source.await {
                // A resumed canary whose source is fenced already: what an earlier process set up there is there.
                Err(error) if earlier.is_some() && error.code() == Some(READ_ONLY) => {}
                // Clients were switched, though no beat has told so: they don't need it.
                Err(error) if context.switched && error.transient() => {}
                other => other?,
            }
        }
        let mut session = Session::open(&self.target, Purpose::Catalog).await?;
        let done = self.table.set_up(&mut session, &context.run, Side::Target).await;
        session.close().await;
        done?;
        if let Route::File { .. } = client.route {
            let place = Place { host: self.target.host.clone(), port: self.target.port };
            let tried = async {
                let mut connected = client.connect_to(place).await?;
                client.beat(&mut connected, 0).await
            };
            // What may heal (a slow answer, a target still read-only) is left to the beats.
            if let Err(error) = tried.await
                && error.definite
            {
                return Err(StepError::definite(format!("{}. Clients would fail the same way after the switch", error.message))
                    .hint(self.privilege_hint()));
            }
        }
        Ok(())
    }

    fn privilege_hint(&self) -> String {
        format!(
            "the account `{}` has to exist on both servers, with SELECT, INSERT and DELETE on `{}`.* and without SUPER",
            self.user, self.table.table.database
        )
    }

    /// Writes beats until cancelled; fails only while it is not ready.
    async fn keep_beating(&self, context: &StepContext, client: &Client) -> Result<(), StepError> {
        let began = Instant::now();
        let mut connected: Option<Connected> = None;
        let (mut number, mut ready, mut due) = (0_u64, false, began);
        loop {
            tokio::time::sleep_until(due).await;
            number += 1;
            while let Err(error) = self.attempt(client, &mut connected, number, ready).await {
                // Dropped, not closed politely: the server may be the one that hangs.
                connected = None;
                self.watch.failed(error.message.clone());
                self.report(context);
                if !ready && error.definite {
                    return Err(StepError::definite(error.message).hint(self.privilege_hint()));
                }
                if !ready && began.elapsed() > READY_LIMIT {
                    return Err(StepError::transient(format!("no beat was accepted within {READY_LIMIT:?}: {}", error.message))
                        .hint("see where the route points"));
                }
                tokio::time::sleep(self.interval).await;
            }
            if let Some(connected) = &connected {
                self.watch.accepted(connected.side, &connected.server, due.elapsed());
            }
            self.report(context);
            if !ready {
                ready = true;
                context.ready();
            }
            due = Instant::now().max(due + self.interval);
        }
    }

    async fn attempt(&self, client: &Client, connected: &mut Option<Connected>, number: u64, ready: bool) -> Result<(), AttemptError> {
        if let Some(kept) = connected
            && !client.is_open(kept).await?
        {
            *connected = None;
            self.watch.reconnected();
        }
        let connection = match connected {
            Some(connection) => connection,
            None => {
                let mut fresh = client.connect().await?;
                if !ready && fresh.side == Side::Source {
                    client.check_account(&mut fresh).await?;
                }
                connected.insert(fresh)
            }
        };
        client.beat(connection, number).await
    }

    fn report(&self, context: &StepContext) {
        let beats = self.watch.beats();
        let note = match beats.write_gap() {
            Some(gap) => format!("write gap {gap}; {} failed, {} delayed", beats.failed, beats.delayed),
            None => format!("{} failed, {} delayed", beats.failed, beats.delayed),
        };
        context.report(Progress { done: beats.accepted, unit: "beats".to_owned(), note, ..Progress::default() });
    }

    /// Saves what was counted, every second, and at once when the gap is known.
    async fn keep_saving(&self, context: &StepContext) -> Result<(), StepError> {
        let mut saved = self.watch.beats().write_gap();
        loop {
            tokio::select! {
                () = tokio::time::sleep(SAVE_EVERY) => {}
                () = self.watch.gap_other_than(saved) => {}
            }
            saved = self.watch.beats().write_gap();
            self.save(context).await?;
        }
    }

    async fn save(&self, context: &StepContext) -> Result<(), StepError> {
        let (context, beats) = (context.clone(), self.watch.beats());
        let saved = tokio::task::spawn_blocking(move || {
            let value = serde_json::to_value(&beats)
                .map_err(|error| StepError::definite(format!("the beats of `{}` can't be written as JSON: {error}", context.step)))?;
            context.save_checkpoint(CHECKPOINT, &value)
        });
        saved.await.unwrap_or_else(|error| Err(StepError::transient(format!("saving the canary's beats was interrupted: {error}"))))
    }

    fn saved(context: &StepContext) -> Result<Option<Beats>, StepError> {
        match context.load_checkpoint(CHECKPOINT)? {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|error| {
                StepError::definite(format!("the checkpoint `{CHECKPOINT}` of `{}` can't be read: {error}", context.step))
            }),
        }
    }

    async fn remove(&self, server: &Arc<Server>, run: &str) -> Result<Option<String>, MysqlError> {
        let mut session = Session::open(server, Purpose::Catalog).await?;
        let removed = self.table.remove(&mut session, run).await;
        session.close().await;
        removed
    }

    /// Drops both schemas as far as possible; says what is left.
    async fn tidy(&self, run: &str) -> Vec<String> {
        let mut left = Vec::new();
        for server in [&self.source, &self.target] {
            match tokio::time::timeout(REMOVE_LIMIT, self.remove(server, run)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(why))) => left.push(why),
                Ok(Err(error)) => left.push(format!("`{}`: {error}", self.table.table.database)),
                Err(_) => left.push(format!("`{}` on the {server}: no answer within {REMOVE_LIMIT:?}", self.table.table.database)),
            }
        }
        left
    }
}

#[async_trait]
impl Step for TrafficCanary {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn kind(&self) -> StepKind {
        StepKind::Service
    }

    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }

    /// The client lives in this process: after a crash it has to be started again.
    fn volatile(&self) -> bool {
        true
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let route = match self.client(context)?.route {
            Route::File { file, .. } => format!("`{}`", file.path().display()),
            Route::Fixed(place) => format!("`{place}`"),
        };
        Ok(Plan {
            lines: vec![
                format!("create `{}` on the {} and the {}", self.table.table, self.source, self.target),
                format!("write a beat there every {:?} as `{}`, through {route}, and measure the write gap", self.interval, self.user),
                "drop it again at the end".to_owned(),
            ],
            warnings: Vec::new(),
        })
    }

    async fn estimate(&self, _: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        context.check_cancelled()?;
        let client = self.client(context)?;
        let earlier = Self::saved(context)?;
        tokio::select! {
            ready = self.set_up(context, &client, earlier.as_ref()) => ready?,
            () = context.cancel.cancelled() => return Err(StepError::cancelled()),
        }
        self.watch.start(earlier);
        let ended = tokio::select! {
            ended = self.keep_beating(context, &client) => ended,
            ended = self.keep_saving(context) => ended,
            () = context.cancel.cancelled() => Ok(()),
        };
        self.watch.end();
        self.save(context).await?;
        ended?;
        let beats = self.watch.beats();
        let mut output = beats.output();
        if beats.write_gap().is_some() {
            output = output.fact("left_behind", self.tidy(&context.run).await);
        }
        context.save_output(&output)?;
        Ok(output)
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        Ok(match Self::saved(context)? {
            Some(beats) => Probe::Partly { from: format!("{} beats were accepted before", beats.accepted) },
            None => Probe::NotStarted,
        })
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        // Both, whatever becomes of the first: the schema on the one server does not wait for the other.
        let (source, target) = tokio::join!(self.remove(&self.source, &context.run), self.remove(&self.target, &context.run));
        for why in [source?, target?].into_iter().flatten() {
            // Somebody else's schema is theirs to keep; ours is gone.
            tracing::warn!(%why, "A canary schema was left in place");
        }
        context.save_checkpoint(CHECKPOINT, &serde_json::Value::Null)
    }
}
