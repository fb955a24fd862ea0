//! The guard `http.probe`: an address has to answer, with the status and the text it should.
//!
//! No answer is an answer here: a server that does not answer is what a probe is for. So unlike elsewhere it counts at once, and not only
//! after `unseen_for`. What keeps the request from being made (a secret that is not there) is unseen.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::without_an_answer;
use crate::engine::guards::{Guard, Look, Sight, Unseen};
use crate::engine::step::StepError;
use crate::http::{Answer, HttpEndpoint, HttpError, Method};
use crate::playbook::model::Template;
use crate::playbook::quantity::HumanDuration;
use crate::playbook::reference::Resolver;

/// What `http.probe` can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeArguments {
    /// What is asked: `https://host/path`. What is secret in it is given by reference.
    pub url: Template,
    /// The status it has to answer. Default: any from 200 to 299. A redirect is not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status: Option<u16>,
    /// A text that the answer has to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// More headers, by name. What looks like a secret is given by reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Template>,
    /// A PEM file of the authorities that may vouch for the server, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long an answer may take. Default `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// How long an answer may take, by default: a look is dropped after 10 s.
pub(super) const TIMEOUT: HumanDuration = HumanDuration(std::time::Duration::from_secs(5));

/// The guard `http.probe`.
pub struct HttpProbe {
    endpoint: HttpEndpoint,
    status: Option<u16>,
    contains: Option<String>,
}

/// What an endpoint has against itself, as an argument's error.
pub(super) fn checked(endpoint: HttpEndpoint) -> Result<HttpEndpoint, StepError> {
    endpoint.check().map_err(|error| StepError::definite(error.to_string()).hint(error.hint()))?;
    if endpoint.limit() >= std::time::Duration::from_secs(10) {
        return Err(StepError::definite("`timeout` has to be less than the 10 s that a look may take"));
    }
    Ok(endpoint)
}

/// What a plan says of an endpoint.
pub(super) fn remarks(endpoint: &HttpEndpoint) -> Vec<String> {
    let clear = endpoint.sends_secrets_in_the_clear();
    clear.then(|| format!("`{}` gets a secret over a connection that others can read", endpoint.url.0)).into_iter().collect()
}

impl HttpProbe {
    /// The name in a playbook.
    pub const NAME: &'static str = "http.probe";

    /// From the arguments.
    ///
    /// # Errors
    /// If the url or a header can't be used.
    pub fn new(arguments: ProbeArguments) -> Result<HttpProbe, StepError> {
        let ProbeArguments { url, status, contains, headers, ca, timeout } = arguments;
        let endpoint = checked(HttpEndpoint { url, headers, ca, timeout: Some(timeout.unwrap_or(TIMEOUT)) })?;
        Ok(HttpProbe { endpoint, status, contains })
    }

    fn judge(&self, answer: &Answer) -> Look {
        let status = self.status.map_or(answer.is_success(), |status| status == answer.status);
        let text = self.contains.as_ref().is_none_or(|text| String::from_utf8_lossy(&answer.body).contains(text.as_str()));
        if status && text {
            Look::Holds(format!("`{}` answered {}", self.endpoint.url.0, answer.status))
        } else {
            let wanted = if status || self.status.is_some() { format!(", and {}", self.condition()) } else { String::new() };
            Look::Fails(format!("`{}` answered {}{wanted}", self.endpoint.url.0, answer.shown()))
        }
    }
}

#[async_trait]
impl Guard for HttpProbe {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn condition(&self) -> String {
        let status = self.status.map_or_else(|| "a status from 200 to 299".to_owned(), |status| format!("status {status}"));
        let text = self.contains.as_ref().map(|text| format!(" and the text `{text}`")).unwrap_or_default();
        format!("it has to answer with {status}{text}")
    }
    fn remarks(&self) -> Vec<String> {
        remarks(&self.endpoint)
    }
    async fn look(&self, sight: &Sight) -> Result<Look, Unseen> {
        let resolver = Resolver::new(sight.outputs.clone());
        let asked = async { self.endpoint.request(Method::Get, &resolver).await?.send().await };
        match asked.await {
            Ok(answer) => Ok(self.judge(&answer)),
            Err(
                error @ (HttpError::Unreachable { .. }
                | HttpError::Untrusted { .. }
                | HttpError::Broken { .. }
                | HttpError::TimedOut { .. }
                | HttpError::TooLong { .. }),
            ) => Ok(Look::Fails(error.to_string())),
            Err(error) => without_an_answer(&error),
        }
    }
}
