//! What `traffic.hold` can be told, and the route of a run that comes of it.
//!
//! `traffic.switch` and `traffic.release` are told nothing: they act on what the hold of the same store was told, so that the three can't
//! mean different proxies.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::control::Control;
use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Failure, StepError};
use crate::hook::message::printable;
use crate::playbook::model::DurationText;
use crate::traffic::client::{Place, parse_route};

/// How long connections that are there get to end by themselves.
pub const DEFAULT_FINISH: Duration = Duration::from_secs(2);

/// What stands between clients and their database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// HAProxy in TCP mode, by its control socket.
    Haproxy,
}

/// What `traffic.hold` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldArguments {
    /// What holds the clients: `haproxy`.
    pub route: RouteKind,
    /// HAProxy's control socket, at level `admin`: the full path of a unix socket, or `host:port`.
    pub socket: String,
    /// Where clients connect to HAProxy: `host:port`.
    pub address: String,
    /// The backend that clients are led to.
    pub backend: String,
    /// Its one server in service, which leads to the source and will lead to the target.
    pub server: String,
    /// The target as HAProxy reaches it: `host:port`. Default: the store's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The control socket in a rehearsal. Default: `socket`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_socket: Option<String>,
    /// Where the rehearsal's clients connect. Left out: a rehearsal is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_address: Option<String>,
    /// The backend of a rehearsal. Default: `backend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_backend: Option<String>,
    /// The server of a rehearsal. Default: `server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_server: Option<String>,
    /// The rehearsal's target as HAProxy reaches it. Default: the rehearsal's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_target: Option<String>,
    /// How long each connection gets to end by itself before it is closed between two requests; of those that were there for as long when
    /// clients begin to wait, none is waited for. Default `2s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_within: Option<DurationText>,
    /// How long a client may have to wait. HAProxy has to let it (`timeout queue`), or nobody is held. Default: as long as writes may be held
    /// (`max_write_gap`); less than that is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-as-long-as-max-write-gap" = true))]
    pub hold_for: Option<DurationText>,
}

/// One server of one backend of one HAProxy, and the way to it. Texts may hold references until the step acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The control socket.
    pub socket: String,
    /// Where clients connect.
    pub address: String,
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
    /// Where the server will lead, if not to the store's target.
    pub target: Option<String>,
}

/// The routes of both kinds of run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    production: Route,
    rehearsal: Option<Route>,
}

impl Routes {
    /// From the arguments.
    ///
    /// # Errors
    /// If a name can't be one of HAProxy's, an address none, or a rehearsal would hold production.
    pub fn read(arguments: &HoldArguments) -> Result<Routes, StepError> {
        let production = Route {
            socket: arguments.socket.clone(),
            address: arguments.address.clone(),
            backend: arguments.backend.clone(),
            server: arguments.server.clone(),
            target: arguments.target.clone(),
        };
        let or = |rehearsal: &Option<String>, otherwise: &String| rehearsal.as_ref().unwrap_or(otherwise).clone();
        let rehearsal = arguments.rehearsal_address.as_ref().map(|address| Route {
            socket: or(&arguments.rehearsal_socket, &arguments.socket),
            address: address.clone(),
            backend: or(&arguments.rehearsal_backend, &arguments.backend),
            server: or(&arguments.rehearsal_server, &arguments.server),
            target: arguments.rehearsal_target.clone(),
        });
        let alone = [
            ("rehearsal_socket", &arguments.rehearsal_socket),
            ("rehearsal_backend", &arguments.rehearsal_backend),
            ("rehearsal_server", &arguments.rehearsal_server),
            ("rehearsal_target", &arguments.rehearsal_target),
        ];
        if rehearsal.is_none()
            && let Some((argument, _)) = alone.iter().find(|(_, value)| value.is_some())
        {
            return Err(StepError::definite(format!("`{argument}` goes with `rehearsal_address`, which is not there"))
                .hint("say where the rehearsal's clients connect"));
        }
        for (prefix, route) in [("", Some(&production)), ("rehearsal_", rehearsal.as_ref())] {
            let Some(route) = route else { continue };
            check_name(&format!("{prefix}backend"), &route.backend)?;
            check_name(&format!("{prefix}server"), &route.server)?;
            // What holds a reference is checked when it is resolved.
            let written = |text: &str| !text.contains("${");
            if written(&route.socket) {
                Control::parse(&format!("{prefix}socket"), &route.socket)?;
            }
            for (argument, address) in [("address", Some(&route.address)), ("target", route.target.as_ref())] {
                if let Some(address) = address.filter(|address| written(address)) {
                    place(&format!("{prefix}{argument}"), address)?;
                }
            }
        }
        if let Some(rehearsal) = &rehearsal {
            refuse_production(&production, rehearsal)?;
        }
        Ok(Routes { production, rehearsal })
    }

    /// The route of this run; never production's in a rehearsal.
    ///
    /// # Errors
    /// If a rehearsal has none.
    pub fn of_run(&self, context: &StepContext) -> Result<Route, StepError> {
        match (context.kind, &self.rehearsal) {
            (RunKind::Production, _) => Ok(self.production.clone()),
            (RunKind::Rehearsal, Some(rehearsal)) => {
                refuse_production(&self.production, rehearsal)?;
                Ok(rehearsal.clone())
            }
            (RunKind::Rehearsal, None) => Err(StepError::new(
                Failure::Refused,
                format!("`{}` can't be rehearsed: it would hold production's clients at `{}`. Nobody was held", context.step, self.production.address),
            )
            .hint("add `rehearsal_address` and `rehearsal_backend`: a second frontend and backend in front of the rehearsal's source, in the same HAProxy or another")),
        }
    }
}

fn refuse_production(production: &Route, rehearsal: &Route) -> Result<(), StepError> {
    let server = |route: &Route| (route.socket.clone(), route.backend.clone(), route.server.clone());
    let what = if rehearsal.address == production.address {
        format!("`rehearsal_address` is the production address `{}`", production.address)
    } else if server(rehearsal) == server(production) {
        format!("the rehearsal would hold production's server `{}/{}`", production.backend, production.server)
    } else {
        return Ok(());
    };
    Err(StepError::new(Failure::Refused, format!("{what}. Nobody was held"))
        .hint("a rehearsal must not touch production: give it a backend of its own (`rehearsal_backend`)"))
}

/// HAProxy's own rule for names. Anything else could be a command of its own on the control socket.
fn check_name(argument: &str, name: &str) -> Result<(), StepError> {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
    if plain {
        return Ok(());
    }
    Err(StepError::definite(format!("`{argument}`: `{}` can't be a name in HAProxy's configuration", printable(name)))
        .hint("names there are made of letters, digits, `-`, `_`, `.` and `:`"))
}

/// `host:port` of an argument.
///
/// # Errors
/// If it is none.
pub(super) fn place(argument: &str, written: &str) -> Result<Place, StepError> {
    parse_route(written).ok_or_else(|| {
        StepError::definite(format!("`{argument}`: `{}` is not of the form `host:port`", printable(written)))
            .hint("such as `10.0.0.4:3306`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(more: Value) -> Result<Routes, StepError> {
        let mut arguments =
            json!({"route": "haproxy", "socket": "/run/a.sock", "address": "db:3306", "backend": "school", "server": "main"});
        for (name, value) in more.as_object().unwrap() {
            arguments[name] = value.clone();
        }
        Routes::read(&serde_json::from_value(arguments).unwrap())
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        assert!(read(json!({})).is_ok() && read(json!({"address": "${env:PROXY}:3306"})).is_ok());
        let refused = |more: Value| read(more).unwrap_err().message;
        assert!(refused(json!({"backend": "a; shutdown"})).contains("can't be a name"));
        assert!(refused(json!({"server": "a\nset x"})).contains("can't be a name"));
        assert!(refused(json!({"address": "db"})).contains("`host:port`"));
        assert!(refused(json!({"socket": "admin.sock"})).contains("neither"));
        assert!(refused(json!({"rehearsal_backend": "b"})).contains("`rehearsal_address`, which is not there"));
        assert!(refused(json!({"rehearsal_address": "db:3306", "rehearsal_backend": "b"})).contains("the production address"));
        assert!(refused(json!({"rehearsal_address": "db:3307"})).contains("production's server `school/main`"));
        assert!(read(json!({"rehearsal_address": "db:3307", "rehearsal_backend": "b"})).is_ok());
    }
}
