//! One request and its answer.
//!
//! The time of a request is one clock over all of it. It is split in two only to know what to say when it runs out: until the first byte
//! of the request is written nothing was sent, and afterwards nobody knows.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::Uri;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper_util::rt::TokioIo;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::{connect, shown_error};
use super::error::HttpError;
use crate::telemetry::printable::printable;

/// The largest answer, in bytes, unless a request says otherwise.
pub const LARGEST_ANSWER: usize = 1 << 20;
/// How much of an answer is shown, in characters.
const SHOWN: usize = 200;
/// A shorter value is no secret worth the name, and replacing it would garble every message.
const SHORTEST_SECRET: usize = 4;

/// What is asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// To see.
    #[serde(rename = "GET")]
    Get,
    /// To have something done.
    #[serde(rename = "POST")]
    Post,
    /// To have something be so.
    #[serde(rename = "PUT")]
    Put,
    /// To have a part of something be so.
    #[serde(rename = "PATCH")]
    Patch,
    /// To have something be gone.
    #[serde(rename = "DELETE")]
    Delete,
}

impl Method {
    fn hyper(self) -> hyper::Method {
        match self {
            Method::Get => hyper::Method::GET,
            Method::Post => hyper::Method::POST,
            Method::Put => hyper::Method::PUT,
            Method::Patch => hyper::Method::PATCH,
            Method::Delete => hyper::Method::DELETE,
        }
    }
}

/// A request that is ready to be sent. Made by [`HttpEndpoint::request`](super::HttpEndpoint::request); holds secrets, and so shows nothing of itself.
pub struct Request {
    pub(super) method: Method,
    /// The url as written.
    pub(super) shown: String,
    pub(super) uri: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<(&'static str, Bytes)>,
    /// What references led to: never shown.
    pub(super) secrets: Vec<SecretString>,
    pub(super) authorities: Option<PathBuf>,
    pub(super) limit: Duration,
    pub(super) most: usize,
}

/// What a server answered.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, whole.
    pub body: Bytes,
    /// Where a redirect leads; it was not followed.
    location: Option<String>,
    secrets: Vec<SecretString>,
}

impl Request {
    /// With a query parameter behind those of the url.
    ///
    /// # Errors
    /// [`HttpError::Url`] if the url gets too long to be one.
    pub fn query(mut self, name: &str, value: &str) -> Result<Request, HttpError> {
        let joined = if self.uri.query().is_some() { '&' } else { '?' };
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let path = format!("{path}{joined}{}={}", percent_encoded(name), percent_encoded(value));
        let mut parts = self.uri.into_parts();
        let wrong = |reason: &str| HttpError::Url { url: self.shown.clone(), reason: reason.to_owned() };
        parts.path_and_query = Some(path.parse().map_err(|_| wrong("with its query it is no url"))?);
        self.uri = Uri::from_parts(parts).map_err(|_| wrong("with its query it is no url"))?;
        Ok(self)
    }

    /// With a body of JSON.
    #[must_use]
    pub fn json(self, value: &serde_json::Value) -> Request {
        self.body("application/json", value.to_string())
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, kind: &'static str, body: impl Into<Bytes>) -> Request {
        self.body = Some((kind, body.into()));
        self
    }

    /// Secrets that a body holds, so that they are not shown where the server repeats them.
    #[must_use]
    pub fn with_secrets(mut self, secrets: impl IntoIterator<Item = SecretString>) -> Request {
        self.secrets.extend(secrets);
        self
    }

    /// With a time of its own, where less is left than the playbook gives it.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Request {
        self.limit = self.limit.min(limit);
        self
    }

    /// With another size that an answer may have, in bytes.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Request {
        self.most = bytes;
        self
    }

    /// Sends it and waits for the whole answer. Dropping it closes the connection.
    ///
    /// # Errors
    /// [`HttpError`]; a status is none.
    pub async fn send(self) -> Result<Answer, HttpError> {
        let deadline = Instant::now() + self.limit;
        let late = |sent| HttpError::TimedOut { url: self.shown.clone(), after: self.limit, sent };
        let stream = tokio::time::timeout_at(deadline, connect(&self.uri, &self.shown, self.authorities.as_deref()))
            .await
            .map_err(|_| late(false))??;
        tokio::time::timeout_at(deadline, self.exchange(stream)).await.map_err(|_| late(true))?
    }

    async fn exchange(&self, stream: Box<dyn super::connect::Stream>) -> Result<Answer, HttpError> {
        let broken = |error: &dyn std::error::Error| HttpError::Broken { url: self.shown.clone(), reason: shown_error(error) };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Ends with this exchange, however that ends.
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        let answer = sender.send_request(self.assembled()?).await.map_err(|error| broken(&error))?;
        let (head, body) = answer.into_parts();
        let body = match Limited::new(body, self.most).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(HttpError::TooLong { url: self.shown.clone(), bytes: self.most }),
            Err(error) => return Err(broken(&*error)),
        };
        let location = head.headers.get(LOCATION).map(|place| String::from_utf8_lossy(place.as_bytes()).into_owned());
        Ok(Answer { status: head.status.as_u16(), body, location, secrets: self.secrets.clone() })
    }

    fn assembled(&self) -> Result<hyper::Request<Full<Bytes>>, HttpError> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let mut request = hyper::Request::builder()
            .method(self.method.hyper())
            .uri(path)
            .header(HOST, host)
            .header(CONNECTION, "close")
            .header(USER_AGENT, concat!("dbmove/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = self.body.as_ref().map(|(kind, body)| {
            if let Some(headers) = request.headers_mut() {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            body.clone()
        });
        request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|_| HttpError::Url { url: self.shown.clone(), reason: "it can't be put into a request".to_owned() })
    }
}

impl Answer {
    /// True for 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What the server answered, for a person: the status, where a redirect leads, how the body begins. One printable line, without the
    /// secrets that were sent.
    #[must_use]
    pub fn shown(&self) -> String {
        let said = self.without_secrets(&String::from_utf8_lossy(&self.body));
        let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect();
        let redirect = match &self.location {
            Some(place) => format!(" to `{}`, which was not followed", printable(&self.without_secrets(place))),
            None => String::new(),
        };
        let body = if said.is_empty() { String::new() } else { format!(": {}", printable(&said)) };
        format!("status {}{redirect}{body}", self.status)
    }

    /// A text without the secrets that were sent.
    #[must_use]
    pub fn without_secrets(&self, text: &str) -> String {
        let mut secrets: Vec<&str> =
            self.secrets.iter().map(|secret| secret.expose_secret()).filter(|secret| secret.len() >= SHORTEST_SECRET).collect();
        // The longest first: one secret may be part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[secret]"))
    }
}

/// All but letters, digits and `-._~` as `%XX`.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_can_hold() {
        assert_eq!(percent_encoded("up{job=\"db\"} > 1é"), "up%7Bjob%3D%22db%22%7D%20%3E%201%C3%A9");
    }

    #[test]
    fn an_answer_is_shown_on_one_line_without_secrets() {
        let answer = Answer {
            status: 302,
            body: Bytes::from_static(b"go\n away \x1b[31m hunter22 "),
            location: Some("https://x/?t=hunter22".to_owned()),
            secrets: vec![SecretString::from("hunter22"), SecretString::from("a")],
        };
        assert_eq!(answer.shown(), "status 302 to `https://x/?t=[secret]`, which was not followed: go away \\u{1b}[31m [secret]");
        assert!(!answer.is_success());
    }
}
