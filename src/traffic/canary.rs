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

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::beat::{BEAT_TABLE, BeatTable, CANARY_SCHEMA};
use super::client::{Client, Connected, Place, Route, parse_url};
use super::file::route_of;
use super::watch::{Beats, CanaryWatch, Side};
use crate::engine::context::{Progress, RunKind, StepContext};
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, StepKind, Undoable};
use crate::hook::exec::read_limit;
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::error::MysqlError;
use crate::mysql::names::{SYSTEM_SCHEMAS, TableName};
use crate::playbook::model::{DurationText, Template, Tls};

/// Between two beats, unless the playbook says otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(20);
/// For one attempt to connect or to write by a route file, unless the playbook says otherwise: short, because an
/// attempt that hangs on the source while the route has changed already is part of the gap.
pub const DEFAULT_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(250);
/// The same through a fixed address, where a proxy may hold clients for a while instead of refusing them.
pub const DEFAULT_HELD_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first beat may take to be accepted.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// How often what was counted is saved.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// For dropping the schema on one server at the end.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);
/// Under which [`Beats`] are saved.
const CHECKPOINT: &str = "beats";

/// What `traffic.canary` can be told. Either `route_file` or `url` says where clients go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryArguments {
    /// A file whose first line is `host:port`: the `path` of `traffic.file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_file: Option<PathBuf>,
    /// The same for a rehearsal. Default: the path with `.rehearsal` behind it, as for `traffic.file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_route_file: Option<PathBuf>,
    /// The address clients use, `mysql://host:port/`: a proxy, or a DNS name. Without user and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The address for a rehearsal; with `url` a rehearsal is refused without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_url: Option<String>,
    /// The account, the same on both servers: SELECT, INSERT and DELETE on the canary's schema, and no SUPER.
    pub user: String,
    /// Its password, by reference only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Template>,
    /// How its connections are protected. Default `off`, as for clients inside a private network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Between two beats. Default `20ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<DurationText>,
    /// How long one attempt to connect or to write may take. Default `250ms` with `route_file`, and `5s` with `url`,
    /// where a proxy may hold clients for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_timeout: Option<DurationText>,
    /// Where beats are written, in a schema of its own. Default `_dbmove_canary.beat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

#[derive(Clone, Debug)]
enum RouteArgument {
    File { path: PathBuf, rehearsal: Option<PathBuf> },
    Url { production: Place, rehearsal: Option<Place> },
}

/// The service step `traffic.canary`.
pub struct TrafficCanary {
    route: RouteArgument,
    user: String,
    password: Option<SecretString>,
    tls: Tls,
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
        let route =
            match (&arguments.route_file, &arguments.url) {
                (Some(path), None) => {
                    if arguments.rehearsal_url.is_some() {
                        return Err(StepError::definite("`rehearsal_url` goes with `url`, not with `route_file`")
                            .hint("use `rehearsal_route_file`"));
                    }
                    for (argument, path) in [("route_file", Some(path)), ("rehearsal_route_file", arguments.rehearsal_route_file.as_ref())]
                    {
                        if let Some(path) = path.filter(|path| !path.is_absolute()) {
                            return Err(StepError::definite(format!("`{argument}` has to be a full path, `{}` is not", path.display())));
                        }
                    }
                    RouteArgument::File { path: path.clone(), rehearsal: arguments.rehearsal_route_file.clone() }
                }
                (None, Some(url)) => {
                    if arguments.rehearsal_route_file.is_some() {
                        return Err(StepError::definite("`rehearsal_route_file` goes with `route_file`, not with `url`")
                            .hint("use `rehearsal_url`"));
                    }
                    let rehearsal = arguments.rehearsal_url.as_deref().map(|url| parse_url("rehearsal_url", url)).transpose()?;
                    let production = parse_url("url", url)?;
                    if rehearsal.as_ref() == Some(&production) {
                        return Err(StepError::new(Failure::Refused, format!("`rehearsal_url` is the production address `{production}`"))
                            .hint("a rehearsal must not write to production: give it an address of its own"));
                    }
                    RouteArgument::Url { production, rehearsal }
                }
                _ => {
                    return Err(StepError::definite("`traffic.canary` needs one of `route_file` and `url`")
                        .hint("say how clients find their server"));
                }
            };
        let attempt = match &route {
            RouteArgument::File { .. } => DEFAULT_ATTEMPT_TIMEOUT,
            RouteArgument::Url { .. } => DEFAULT_HELD_ATTEMPT_TIMEOUT,
        };
        Ok(TrafficCanary {
            route,
            user: arguments.user.clone(),
            password,
            tls: arguments.tls.unwrap_or(Tls::Off),
            interval: read_limit("interval", arguments.interval.as_ref(), DEFAULT_INTERVAL)?,
            limit: read_limit("attempt_timeout", arguments.attempt_timeout.as_ref(), attempt)?,
            table: read_table(arguments.table.as_deref())?,
            source,
            target,
            watch,
        })
    }

    fn client(&self, context: &StepContext) -> Result<Client, StepError> {
        let route = match (&self.route, context.kind) {
            (RouteArgument::File { path, rehearsal }, kind) => {
                let otherwise = (kind == RunKind::Rehearsal).then(|| Place { host: self.source.host.clone(), port: self.source.port });
                Route::File { file: route_of(path, rehearsal.as_ref(), kind), otherwise }
            }
            (RouteArgument::Url { production, .. }, RunKind::Production) => Route::Fixed(production.clone()),
            (RouteArgument::Url { rehearsal: Some(place), .. }, RunKind::Rehearsal) => Route::Fixed(place.clone()),
            (RouteArgument::Url { production, .. }, RunKind::Rehearsal) => {
                return Err(StepError::new(
                    Failure::Refused,
                    format!(
                        "`{}` can't be rehearsed: it would write through `{production}`, which is production. Nothing was written",
                        context.step
                    ),
                )
                .hint("add `rehearsal_url`"));
            }
        };
        if let Route::Fixed(place) = &route {
            self.watch.routed(&format!("`{place}`"));
        }
        Ok(Client {
            route,
            user: self.user.clone(),
            password: self.password.clone(),
            tls: self.tls,
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

    async fn attempt(
        &self,
        client: &Client,
        connected: &mut Option<Connected>,
        number: u64,
        ready: bool,
    ) -> Result<(), super::client::AttemptError> {
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

/// `ER_OPTION_PREVENTS_STATEMENT`: the server runs with `read_only`.
const READ_ONLY: u16 = 1290;

fn read_table(written: Option<&str>) -> Result<BeatTable, StepError> {
    let Some(written) = written else { return Ok(BeatTable { table: TableName::new(CANARY_SCHEMA, BEAT_TABLE) }) };
    let (database, table) =
        written.split_once('.').filter(|(database, table)| !database.is_empty() && !table.is_empty()).ok_or_else(|| {
            StepError::definite(format!("`table`: `{written}` is not of the form `schema.table`"))
                .hint(format!("such as `{CANARY_SCHEMA}.{BEAT_TABLE}`"))
        })?;
    if SYSTEM_SCHEMAS.iter().any(|system| system.eq_ignore_ascii_case(database)) {
        return Err(StepError::definite(format!("`table`: the schema `{database}` is not for canaries"))
            .hint(format!("choose a schema of its own, such as `{CANARY_SCHEMA}`")));
    }
    Ok(BeatTable { table: TableName::new(database, table) })
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
