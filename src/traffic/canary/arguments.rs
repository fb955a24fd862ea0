//! What `traffic.canary` can be told, and what it comes to: the route of a run, and the beats' table.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Failure, StepError};
use crate::mysql::connect::Server;
use crate::mysql::names::{SYSTEM_SCHEMAS, TableName};
use crate::playbook::model::{DurationText, Template, Tls};
use crate::traffic::beat::{BEAT_TABLE, BeatTable, CANARY_SCHEMA};
use crate::traffic::client::{Place, Route, parse_url};
use crate::traffic::file::route_of;

/// Between two beats, unless the playbook says otherwise.
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_millis(20);
/// For one attempt to connect or to write by a route file, unless the playbook says otherwise: short, because an
/// attempt that hangs on the source while the route has changed already is part of the gap.
const DEFAULT_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(250);
/// The same through a fixed address, where a proxy may hold clients for a while instead of refusing them.
const DEFAULT_HELD_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// A PEM file of the authorities that may vouch for the server, as for a store's endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
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

/// Where clients go, as the playbook says it: for production, and for a rehearsal.
#[derive(Clone, Debug)]
pub(super) enum RouteArgument {
    File { path: PathBuf, rehearsal: Option<PathBuf> },
    Url { production: Place, rehearsal: Option<Place> },
}

impl RouteArgument {
    /// From the arguments.
    pub(super) fn read(arguments: &CanaryArguments) -> Result<RouteArgument, StepError> {
        Ok(match (&arguments.route_file, &arguments.url) {
            (Some(path), None) => {
                if arguments.rehearsal_url.is_some() {
                    return Err(
                        StepError::definite("`rehearsal_url` goes with `url`, not with `route_file`").hint("use `rehearsal_route_file`")
                    );
                }
                for (argument, path) in [("route_file", Some(path)), ("rehearsal_route_file", arguments.rehearsal_route_file.as_ref())] {
                    if let Some(path) = path.filter(|path| !path.is_absolute()) {
                        return Err(StepError::definite(format!("`{argument}` has to be a full path, `{}` is not", path.display())));
                    }
                }
                RouteArgument::File { path: path.clone(), rehearsal: arguments.rehearsal_route_file.clone() }
            }
            (None, Some(url)) => {
                if arguments.rehearsal_route_file.is_some() {
                    return Err(
                        StepError::definite("`rehearsal_route_file` goes with `route_file`, not with `url`").hint("use `rehearsal_url`")
                    );
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
                return Err(
                    StepError::definite("`traffic.canary` needs one of `route_file` and `url`").hint("say how clients find their server")
                );
            }
        })
    }

    /// How long one attempt may take unless the playbook says so.
    pub(super) fn attempt_timeout(&self) -> Duration {
        match self {
            RouteArgument::File { .. } => DEFAULT_ATTEMPT_TIMEOUT,
            RouteArgument::Url { .. } => DEFAULT_HELD_ATTEMPT_TIMEOUT,
        }
    }

    /// The route of this run; never production's in a rehearsal.
    pub(super) fn of_run(&self, context: &StepContext, source: &Server) -> Result<Route, StepError> {
        Ok(match (self, context.kind) {
            (RouteArgument::File { path, rehearsal }, kind) => {
                let otherwise = (kind == RunKind::Rehearsal).then(|| Place { host: source.host.clone(), port: source.port });
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
        })
    }
}

/// Where beats are written.
pub(super) fn read_table(written: Option<&str>) -> Result<BeatTable, StepError> {
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
