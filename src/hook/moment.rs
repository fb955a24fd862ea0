//! Hooks at moments of a run: a command of the operator's, or an address that gets the facts as JSON by POST.
//!
//! When they are called, and what becomes of a no, is the engine's ([`moments`](crate::engine::moments)). A command is run as every other is
//! ([`command`](super::command)): no shell, its process group ended when its time is over. Its facts are `DBMOVE_MOMENT`, `DBMOVE_HOOK`, `DBMOVE_RUN`,
//! `DBMOVE_PLAYBOOK`, `DBMOVE_KIND` and whatever the moment has to say (`DBMOVE_GUARD`, `DBMOVE_FOUND`, `DBMOVE_VERDICT` …); the same
//! as one JSON object on stdin. What servers said is among them: quote it.
//!
//! An address has to answer with a status from 200 to 299. What may have been taken is not sent again by this driver.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::command::{self, Call, CommandLine, Verb};
use crate::engine::moments::{Hook, HookCall};
use crate::engine::step::StepError;
use crate::http::{HttpEndpoint, HttpError, Method};
use crate::playbook::model::{HookSpec, Template};
use crate::playbook::quantity::HumanDuration;
use crate::playbook::reference::Resolver;

/// How long a hook may take unless the playbook says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that one may be given: the end of a run waits for it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// What a hook calls.
enum Calls {
    Command { line: CommandLine, env: BTreeMap<String, Template> },
    Address(HttpEndpoint),
}

/// A hook at moments of a run.
pub struct MomentHook {
    calls: Calls,
    limit: Duration,
}

impl MomentHook {
    /// As the playbook says.
    ///
    /// # Errors
    /// If it calls nothing, or two things, or what it calls can't be called.
    pub fn new(spec: &HookSpec) -> Result<MomentHook, StepError> {
        let limit = spec.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
        if limit.is_zero() || limit > LONGEST_TIMEOUT {
            return Err(StepError::definite(format!(
                "`timeout` is {}, and has to be more than nothing and at most 10m",
                HumanDuration(limit)
            )));
        }
        if spec.at.is_empty() {
            return Err(StepError::definite("`at` is empty").hint("name at least one moment, such as `on-failure`"));
        }
        let calls = match (&spec.command, &spec.post) {
            (Some(words), None) => {
                if !spec.headers.is_empty() || spec.ca.is_some() {
                    return Err(StepError::definite("`headers` and `ca` are for `post`, and it has a `command`"));
                }
                command::check_names(spec.env.keys())?;
                Calls::Command { line: CommandLine::new("command", words)?, env: spec.env.clone() }
            }
            (None, Some(url)) => {
                if !spec.env.is_empty() {
                    return Err(StepError::definite("`env` is for `command`, and it has a `post`"));
                }
                let timeout = Some(HumanDuration(limit));
                let endpoint = HttpEndpoint { url: url.clone(), headers: spec.headers.clone(), ca: spec.ca.clone(), timeout };
                endpoint.check().map_err(|error| StepError::definite(error.to_string()).hint(error.hint()))?;
                Calls::Address(endpoint)
            }
            (None, None) => {
                return Err(StepError::definite("it calls nothing").hint("give it a `command: [program, argument]` or a `post: url`"));
            }
            (Some(_), Some(_)) => return Err(StepError::definite("it has a `command` and a `post`").hint("make two hooks of it")),
        };
        Ok(MomentHook { calls, limit })
    }
}

/// `DBMOVE_NAME` for every fact.
fn variables(facts: &Map<String, Value>) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    // No variable can hold a zero byte, and what a server said may.
    facts.iter().map(|(name, value)| (format!("DBMOVE_{}", name.to_uppercase()), text(value).replace('\0', ""))).collect()
}

#[async_trait]
impl Hook for MomentHook {
    fn shown(&self) -> String {
        match &self.calls {
            Calls::Command { line, .. } => format!("run `{}`", line.shown()),
            Calls::Address(endpoint) => format!("post to `{}`", endpoint.url.0),
        }
    }
    fn limit(&self) -> Duration {
        self.limit
    }
    async fn call(&self, call: &HookCall) -> Result<(), StepError> {
        let resolver = Resolver::new(call.outputs.clone());
        match &self.calls {
            Calls::Command { line, env } => {
                let mut environment: BTreeMap<String, SecretString> = BTreeMap::new();
                for (name, value) in env {
                    let value = value.resolve_secret(&resolver).await;
                    environment.insert(name.clone(), value.map_err(|error| StepError::definite(format!("`env.{name}`: {error}")))?);
                }
                let call_of = Call { cancel: &call.cancel, facts: Value::Object(call.facts.clone()), own: variables(&call.facts) };
                let ended = command::call(call_of, line, Verb::Hook, &environment, call.limit).await?;
                Ok(ended.succeeded(line, Verb::Hook)?)
            }
            Calls::Address(endpoint) => {
                let failed = |error: HttpError| StepError::definite(error.to_string()).hint(error.hint());
                let request = endpoint.request(Method::Post, &resolver).await.map_err(failed)?;
                let request = request.json(&Value::Object(call.facts.clone())).within(call.limit);
                let answer = tokio::select! {
                    answer = request.send() => answer.map_err(failed)?,
                    () = call.cancel.cancelled() => return Err(StepError::cancelled()),
                };
                if answer.is_success() {
                    return Ok(());
                }
                Err(StepError::definite(format!("`{}` answered {}", endpoint.url.0, answer.shown())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(more: &Value) -> Result<MomentHook, String> {
        let mut spec = json!({ "id": "h", "at": ["on-failure"] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        MomentHook::new(&serde_json::from_value(spec).unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn a_hook_calls_one_thing() {
        assert!(made(&json!({ "command": ["page", "me"], "env": { "TOKEN": "${env:TOKEN}" } })).is_ok());
        assert!(made(&json!({ "post": "${env:CHAT}", "headers": { "Authorization": "${env:TOKEN}" } })).is_ok());
        for (wrong, why) in [
            (json!({}), "calls nothing"),
            (json!({ "command": ["a"], "post": "https://x/" }), "and a `post`"),
            (json!({ "command": [] }), "names no program"),
            (json!({ "command": ["a"], "env": { "DBMOVE_RUN": "x" } }), "DBMOVE_RUN"),
            (json!({ "command": ["a"], "headers": { "Accept": "x" } }), "for `post`"),
            (json!({ "post": "https://x/", "env": { "A": "b" } }), "for `command`"),
            (json!({ "post": "ftp://x/" }), "begin"),
            (json!({ "post": "https://x/", "headers": { "Authorization": "Bearer written" } }), "reference"),
            (json!({ "command": ["a"], "timeout": "1h" }), "timeout"),
            (json!({ "command": ["a"], "at": [] }), "at"),
        ] {
            let error = made(&wrong).err().unwrap_or_else(|| panic!("{wrong}"));
            assert!(error.contains(why) && !error.contains("written-down"), "{wrong}: {error}");
        }
    }

    #[test]
    fn every_fact_is_a_variable() {
        let facts = json!({ "moment": "on-guard", "epoch": 3, "found": "a\u{0}b", "hint": null });
        let of = |name: &str| variables(facts.as_object().unwrap()).into_iter().find(|(found, _)| found == name).unwrap().1;
        assert_eq!(
            (of("DBMOVE_MOMENT"), of("DBMOVE_EPOCH"), of("DBMOVE_FOUND"), of("DBMOVE_HINT")),
            ("on-guard".into(), "3".into(), "ab".into(), String::new())
        );
    }
}
