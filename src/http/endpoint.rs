//! What a playbook writes to have a server asked, and what it leads to when it is used.
//!
//! Nothing is resolved before it is used, and what was resolved goes with the [`Request`]. What can be seen without resolving
//! ([`HttpEndpoint::check`]) is checked when the playbook is loaded: a slip of the pen should not be found at night.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::error::HttpError;
use super::request::{Method, Request};
use crate::playbook::model::Template;
use crate::playbook::quantity::HumanDuration;
use crate::playbook::reference::{Piece, Resolver};

/// How long a server has to answer unless the playbook says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that are dbmove's own to set.
const OWN_HEADERS: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "content-type"];
/// What the name of a header holds whose value is a secret.
const SECRET_NAMES: [&str; 6] = ["auth", "token", "key", "secret", "cookie", "passw"];

/// A server that is asked by HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpEndpoint {
    /// `https://host/path` or `http://host/path`; holds no password, and what is secret in it by reference.
    pub url: Template,
    /// More headers, by name. What looks like a secret is given by reference: `Authorization: "Bearer ${env:TOKEN}"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Template>,
    /// A PEM file of the authorities that may vouch for the server, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long it may take from looking up the name to the last byte of the answer. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

impl HttpEndpoint {
    /// What can be seen without resolving anything.
    ///
    /// # Errors
    /// [`HttpError::Url`], [`HttpError::Header`].
    pub fn check(&self) -> Result<(), HttpError> {
        let url_error = |reason: &str| HttpError::Url { url: self.url.0.clone(), reason: reason.to_owned() };
        let pieces = self.url.parse().map_err(|error| url_error(&error.message))?;
        match &pieces[..] {
            [] => return Err(url_error("it is empty")),
            [Piece::Text(whole)] => drop(parse(whole, &self.url.0)?),
            [Piece::Text(start), ..] if !(start.starts_with("https://") || start.starts_with("http://")) => {
                return Err(url_error("it does not begin with `https://` or `http://`"));
            }
            _ => {}
        }
        if self.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            return Err(url_error("its `timeout` is zero"));
        }
        for (name, value) in &self.headers {
            let header_error = |reason: &str| HttpError::Header { name: name.clone(), reason: reason.to_owned() };
            header_name(name)?;
            let pieces = value.parse().map_err(|error| header_error(&error.message))?;
            let refers = pieces.iter().any(|piece| matches!(piece, Piece::Reference(_)));
            let lower = name.to_ascii_lowercase();
            if !refers && SECRET_NAMES.iter().any(|part| lower.contains(part)) {
                return Err(header_error("its value is written down, and secrets are given by reference only"));
            }
            if !refers && HeaderValue::from_str(&value.0).is_err() {
                return Err(header_error("its value holds a character that no header can have"));
            }
        }
        Ok(())
    }

    /// True if a secret would be sent where others can read it.
    #[must_use]
    pub fn sends_secrets_in_the_clear(&self) -> bool {
        let refers = |text: &Template| text.parse().is_ok_and(|pieces| pieces.iter().any(|piece| matches!(piece, Piece::Reference(_))));
        self.url.0.starts_with("http://") && self.headers.values().any(refers)
    }

    /// How long it may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0)
    }

    /// A request, with what the references lead to now.
    ///
    /// # Errors
    /// [`HttpError`]; nothing was sent.
    pub async fn request(&self, method: Method, resolver: &Resolver) -> Result<Request, HttpError> {
        self.check()?;
        let (url, mut secrets) = resolve(&self.url, "the url", resolver).await?;
        let uri = parse(url.expose_secret(), &self.url.0)?;
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            let (value, found) = resolve(value, &format!("the header `{name}`"), resolver).await?;
            let mut sent = HeaderValue::from_str(value.expose_secret()).map_err(|_| HttpError::Header {
                name: name.clone(),
                reason: "what its reference leads to holds a character that no header can have".to_owned(),
            })?;
            sent.set_sensitive(!found.is_empty());
            headers.push((header_name(name)?, sent));
            secrets.extend(found);
        }
        Ok(Request {
            method,
            shown: self.url.0.clone(),
            uri,
            headers,
            body: None,
            secrets,
            authorities: self.ca.clone(),
            limit: self.limit(),
            most: super::request::LARGEST_ANSWER,
        })
    }
}

async fn resolve(text: &Template, of: &str, resolver: &Resolver) -> Result<(SecretString, Vec<SecretString>), HttpError> {
    text.resolve_with_secrets(resolver).await.map_err(|error| HttpError::Reference { of: of.to_owned(), error })
}

fn header_name(name: &str) -> Result<HeaderName, HttpError> {
    let error = |reason: &str| HttpError::Header { name: name.to_owned(), reason: reason.to_owned() };
    let parsed = HeaderName::try_from(name).map_err(|_| error("that can't be a header's name"))?;
    if OWN_HEADERS.contains(&parsed.as_str()) { Err(error("it is dbmove's own to set")) } else { Ok(parsed) }
}

/// A whole url; `written` is what errors show.
fn parse(url: &str, written: &str) -> Result<Uri, HttpError> {
    let error = |reason: &str| HttpError::Url { url: written.to_owned(), reason: reason.to_owned() };
    if !(url.starts_with("https://") || url.starts_with("http://")) {
        return Err(error("it does not begin with `https://` or `http://`"));
    }
    let uri: Uri = url.parse().map_err(|_| error("it is no url"))?;
    match uri.authority() {
        None => Err(error("it names no host")),
        Some(authority) if authority.as_str().contains('@') => Err(error("it holds a user or password before `@`; send them by a header")),
        // A port that is none is left out by the parser, and another one would be asked.
        Some(authority) if authority.host().is_empty() || (authority.port_u16().is_none() && authority.as_str() != authority.host()) => {
            Err(error("its host or port can't be one"))
        }
        Some(_) => Ok(uri),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, headers: &[(&str, &str)]) -> HttpEndpoint {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Template((*value).to_owned()))).collect();
        HttpEndpoint { url: Template(url.to_owned()), headers, ca: None, timeout: None }
    }

    #[test]
    fn what_can_be_seen_before_it_is_used() {
        for good in ["https://db.example/", "http://127.0.0.1:9090/api", "https://[::1]:8443/x?y=z", "${env:HOOK}", "https://${env:HOST}/x"]
        {
            assert!(endpoint(good, &[]).check().is_ok(), "{good}");
        }
        for (wrong, why) in [
            ("", "empty"),
            ("db.example/x", "begin"),
            ("ftp://db.example/", "begin"),
            ("https://me:hunter2@db.example/", "password"),
            ("https://db.example:99999/", "port"),
            ("https:///x", "no url"),
            ("mysql://${env:HOST}/", "begin"),
            ("https://${evn:HOST}/", "evn"),
        ] {
            let error = endpoint(wrong, &[]).check().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("nothing was sent"), "{wrong}: {error}");
        }
    }

    #[test]
    fn secrets_in_headers_are_references() {
        assert!(endpoint("https://x/", &[("Authorization", "Bearer ${env:TOKEN}"), ("Accept", "text/plain")]).check().is_ok());
        for (name, value) in
            [("Authorization", "Bearer hunter2"), ("X-Api-Key", "hunter2"), ("Host", "y"), ("a b", "c"), ("Accept", "a\nb: c")]
        {
            let error = endpoint("https://x/", &[(name, value)]).check().unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
        }
        assert!(endpoint("http://x/", &[("Authorization", "${env:TOKEN}")]).sends_secrets_in_the_clear());
        assert!(!endpoint("https://x/", &[("Authorization", "${env:TOKEN}")]).sends_secrets_in_the_clear());
    }
}
