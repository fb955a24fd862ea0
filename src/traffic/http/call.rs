//! One call of the operator's, and one look at where clients are pointed: what a playbook writes of each, and what comes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::context::StepContext;
use crate::engine::step::{Probe, StepError};
use crate::hook::message::printable;
use crate::http::{Answer, HttpEndpoint, HttpError, Method};
use crate::playbook::model::Template;
use crate::playbook::quantity::HumanDuration;
use crate::playbook::reference::Resolver;
use crate::traffic::called::CallFailed;

/// How much of a value is shown, in characters.
const SHOWN: usize = 100;

/// A call that changes something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// `POST`, `PUT`, `PATCH`, `DELETE` or `GET`.
    pub method: Method,
    /// `https://host/path` or `http://host/path`.
    pub url: Template,
    /// More headers, by name. What looks like a secret is given by reference: `Authorization: "Bearer ${env:TOKEN}"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Template>,
    /// The body, as JSON; texts in it may hold references.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// The statuses that mean success. Default: 200 to 299.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Vec<u16>>,
    /// A PEM file of the authorities that may vouch for the server, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long it may take. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// A look at where clients are pointed, by `GET`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// `https://host/path` or `http://host/path`.
    pub url: Template,
    /// More headers, by name, as for a call.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Template>,
    /// Where in the answer, which is JSON then, the value is: `/backend/0/host` (RFC 6901). Left out: the whole answer is the value, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value while clients are pointed at the target.
    pub at_target: Value,
    /// The value while they are pointed at the source.
    pub at_source: Value,
    /// Values of a change that is on its way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub between: Vec<Value>,
    /// A PEM file of the authorities that may vouch for the server, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long it may take. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// Of an error without an answer.
pub(super) fn unanswered(error: &HttpError) -> StepError {
    let message = error.to_string();
    let error_of_step = if error.can_heal() { StepError::transient(message) } else { StepError::definite(message) };
    error_of_step.hint(error.hint())
}

/// Whether a status says that nothing was done: only those that are said before anything is. Not a redirect: 303 is how a server answers what it
/// has done, and 302 often is. Not those of a proxy that lost what it had passed on (408, 499, 502, 504), of a server that failed half way or found no
/// words for what it had done (406, 424, 500, 507), or that has the change under way already (409). Nor a success that `expect` does not list, or a
/// status that nobody has given a meaning.
fn is_a_no(status: u16) -> bool {
    matches!(status, 400..=405 | 407 | 410..=417 | 421..=423 | 425 | 426 | 428 | 429 | 431 | 451 | 501 | 503 | 505)
}

/// What references in a value's texts lead to.
async fn resolved(value: &Value, resolver: &Resolver, secrets: &mut Vec<SecretString>) -> Result<Value, StepError> {
    Ok(match value {
        Value::String(text) => {
            let (text, found) = Template(text.clone())
                .resolve_with_secrets(resolver)
                .await
                .map_err(|error| StepError::definite(format!("a reference in what is sent or expected: {error}; nothing was sent")))?;
            secrets.extend(found);
            Value::from(text.expose_secret())
        }
        Value::Array(items) => {
            let mut found = Vec::new();
            for item in items {
                found.push(Box::pin(resolved(item, resolver, secrets)).await?);
            }
            Value::Array(found)
        }
        Value::Object(fields) => {
            let mut found = serde_json::Map::new();
            for (name, field) in fields {
                found.insert(name.clone(), Box::pin(resolved(field, resolver, secrets)).await?);
            }
            Value::Object(found)
        }
        other => other.clone(),
    })
}

impl Call {
    fn endpoint(&self) -> HttpEndpoint {
        HttpEndpoint { url: self.url.clone(), headers: self.headers.clone(), ca: self.ca.clone(), timeout: self.timeout }
    }

    /// `PUT https://…`, as the playbook writes it.
    pub(super) fn shown(&self) -> String {
        let method = serde_json::to_value(self.method).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
        format!("{method} {}", printable(&self.url.0))
    }

    /// What can be seen without asking anybody.
    ///
    /// # Errors
    /// Names the argument.
    pub(super) fn check(&self, argument: &str) -> Result<(), StepError> {
        self.endpoint().check().map_err(|error| StepError::definite(format!("`{argument}`: {error}")).hint(error.hint()))?;
        if self.expect.as_ref().is_some_and(|expect| expect.is_empty() || expect.iter().any(|status| !(100..600).contains(status))) {
            return Err(StepError::definite(format!("`{argument}.expect` has to hold statuses, 100 to 599")).hint("such as `[200, 202]`"));
        }
        Ok(())
    }

    /// True if what is secret is sent where others can read it.
    pub(super) fn is_in_the_clear(&self) -> bool {
        self.endpoint().sends_secrets_in_the_clear()
    }

    /// Makes the call.
    ///
    /// # Errors
    /// If there was no answer, or one with another status than was expected.
    pub(super) async fn make(&self, context: &StepContext) -> Result<Answer, CallFailed> {
        let not_sent = |error: StepError| CallFailed { error, may_arrive: false };
        let resolver = Resolver::new(context.outputs.clone());
        let mut secrets = Vec::new();
        let body = match &self.body {
            Some(body) => Some(resolved(body, &resolver, &mut secrets).await.map_err(not_sent)?),
            None => None,
        };
        let request = self.endpoint().request(self.method, &resolver).await.map_err(|error| not_sent(unanswered(&error)))?;
        let mut request = request.with_secrets(secrets);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = tokio::select! {
            answer = request.send() => {
                answer.map_err(|error| CallFailed { error: unanswered(&error), may_arrive: error.may_have_been_taken() })?
            }
            () = context.cancel.cancelled() => return Err(CallFailed { error: StepError::cancelled(), may_arrive: true }),
        };
        let expected = self.expect.as_ref().map_or(answer.is_success(), |expect| expect.contains(&answer.status));
        if expected {
            return Ok(answer);
        }
        let error = StepError::definite(format!("`{}` answered {}", self.shown(), answer.shown()))
            .hint("`expect` lists the statuses that mean success; a redirect is not followed");
        Err(CallFailed { error, may_arrive: !is_a_no(answer.status) })
    }
}

impl Look {
    fn endpoint(&self) -> HttpEndpoint {
        HttpEndpoint { url: self.url.clone(), headers: self.headers.clone(), ca: self.ca.clone(), timeout: self.timeout }
    }

    /// `GET https://…`, as the playbook writes it.
    pub(super) fn shown(&self) -> String {
        format!("GET {}", printable(&self.url.0))
    }

    /// What can be seen without asking anybody.
    ///
    /// # Errors
    /// Names the argument.
    pub(super) fn check(&self, argument: &str) -> Result<(), StepError> {
        self.endpoint().check().map_err(|error| StepError::definite(format!("`{argument}`: {error}")).hint(error.hint()))?;
        if let Some(value) = self.value.as_ref().filter(|value| !value.is_empty() && !value.starts_with('/')) {
            return Err(StepError::definite(format!("`{argument}.value`: `{}` is no JSON pointer", printable(value)))
                .hint("it begins with `/`: `/backend/0/host`"));
        }
        if self.value.is_none() && !(self.at_target.is_string() && self.at_source.is_string() && self.between.iter().all(Value::is_string))
        {
            return Err(StepError::definite(format!(
                "`{argument}`: without `value` the answer is a text, and what it is compared with is not"
            ))
            .hint("put it into quotes, or say with `value` where in the JSON it is"));
        }
        if self.at_target == self.at_source || self.between.iter().any(|between| [&self.at_target, &self.at_source].contains(&between)) {
            return Err(StepError::definite(format!("`{argument}`: `at_target`, `at_source` and `between` have to differ"))
                .hint("the probe has to tell where clients are"));
        }
        Ok(())
    }

    /// True if what is secret is sent where others can read it.
    pub(super) fn is_in_the_clear(&self) -> bool {
        self.endpoint().sends_secrets_in_the_clear()
    }

    /// Looks where clients are pointed.
    ///
    /// # Errors
    /// If there was no answer, or one that tells nothing.
    pub(super) async fn look(&self, context: &StepContext) -> Result<Probe, StepError> {
        let resolver = Resolver::new(context.outputs.clone());
        let mut secrets = Vec::new();
        let at_target = resolved(&self.at_target, &resolver, &mut secrets).await?;
        let at_source = resolved(&self.at_source, &resolver, &mut secrets).await?;
        let between = resolved(&Value::Array(self.between.clone()), &resolver, &mut secrets).await?;
        let request = self.endpoint().request(Method::Get, &resolver).await.map_err(|error| unanswered(&error))?.with_secrets(secrets);
        let answer = tokio::select! {
            answer = request.send() => answer.map_err(|error| unanswered(&error))?,
            () = context.cancel.cancelled() => return Err(StepError::cancelled()),
        };
        let tells_nothing = |why: &str| StepError::definite(format!("`{}` does not tell where clients are: {why}", self.shown()));
        if !answer.is_success() {
            let error = tells_nothing(&format!("it answered {}", answer.shown()));
            return Err(if answer.status >= 500 { StepError::transient(error.message) } else { error });
        }
        let found = match &self.value {
            None => Value::from(String::from_utf8_lossy(&answer.body).trim()),
            Some(pointer) => {
                let whole: Value =
                    serde_json::from_slice(&answer.body).map_err(|_| tells_nothing(&format!("no JSON: {}", answer.shown())))?;
                whole
                    .pointer(pointer)
                    .cloned()
                    .ok_or_else(|| tells_nothing(&format!("no `{}` in {}", printable(pointer), answer.shown())))?
            }
        };
        let shown: String = answer.without_secrets(&found.to_string()).chars().take(SHOWN).collect();
        Ok(if found == at_target {
            Probe::Done
        } else if found == at_source {
            Probe::NotStarted
        } else if between.as_array().is_some_and(|between| between.contains(&found)) {
            Probe::Partly { from: printable(&shown) }
        } else {
            Probe::Foreign { found: printable(&shown) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::is_a_no;

    #[test]
    fn only_what_is_said_before_anything_is_done_is_a_no() {
        let may_have_acted = |status: &u16| !is_a_no(*status);
        assert!([200, 202, 302, 303, 307, 406, 408, 409, 424, 499, 500, 502, 504, 507, 520].iter().all(may_have_acted));
        assert!(![400, 401, 403, 404, 405, 413, 422, 429, 501, 503, 505].iter().any(may_have_acted));
    }
}
