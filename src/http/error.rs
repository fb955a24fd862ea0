//! Why a server gave no answer.
//!
//! Each says whether the request may have been taken ([`HttpError::may_have_been_taken`]) and whether asking again can help
//! ([`HttpError::can_heal`]). None holds what a reference led to.

use std::path::PathBuf;
use std::time::Duration;

use crate::playbook::quantity::HumanDuration;
use crate::playbook::secret::ReferenceError;

/// Why there was no answer. `url` is always as the playbook writes it.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The url can't be asked.
    #[error("`{url}` can't be asked: {reason}; nothing was sent")]
    Url {
        /// As written.
        url: String,
        /// Why.
        reason: String,
    },
    /// A header can't be sent.
    #[error("the header `{name}` can't be sent: {reason}; nothing was sent")]
    Header {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// What the playbook refers to is not there.
    #[error("{of}: {error}; nothing was sent")]
    Reference {
        /// The url or the header.
        of: String,
        /// Why.
        error: ReferenceError,
    },
    /// The file of authorities is no use.
    #[error("the `ca` file `{}` {reason}; nothing was sent", path.display())]
    Authorities {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Nobody is there.
    #[error("`{url}` can't be reached: {reason}; nothing was sent")]
    Unreachable {
        /// As written.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// Somebody is there, and is not who it should be.
    #[error("the server of `{url}` can't be trusted: {reason}; nothing was sent")]
    Untrusted {
        /// As written.
        url: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The connection broke or what came back is no HTTP.
    #[error("`{url}` gave no answer: {reason}; whether it took the request is not known")]
    Broken {
        /// As written.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It takes too long.
    #[error(
        "`{url}` did not answer within {}; {}", HumanDuration(*after),
        if *sent { "whether it took the request is not known" } else { "nothing was sent" }
    )]
    TimedOut {
        /// As written.
        url: String,
        /// The limit.
        after: Duration,
        /// Whether the request was on its way.
        sent: bool,
    },
    /// The answer is too long to be one.
    #[error("`{url}` answered with more than {bytes} bytes; it took the request, and the answer was not used")]
    TooLong {
        /// As written.
        url: String,
        /// The limit.
        bytes: usize,
    },
}

impl HttpError {
    /// True if the same request may be answered in a moment.
    #[must_use]
    pub fn can_heal(&self) -> bool {
        matches!(self, HttpError::Unreachable { .. } | HttpError::Broken { .. } | HttpError::TimedOut { .. })
    }

    /// True if the server may have acted on the request.
    #[must_use]
    pub fn may_have_been_taken(&self) -> bool {
        matches!(self, HttpError::Broken { .. } | HttpError::TimedOut { sent: true, .. } | HttpError::TooLong { .. })
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            HttpError::Url { .. } => "write it as `https://host/path`, with what is secret in it by reference",
            HttpError::Header { .. } => {
                "write headers as `Name: \"value\"`, with secrets by reference: `Authorization: \"Bearer ${env:TOKEN}\"`"
            }
            HttpError::Reference { .. } => "give what the reference names",
            HttpError::Authorities { .. } => "name a PEM file with the authorities of the server's certificate",
            HttpError::Untrusted { .. } => {
                "name the authorities that vouch for the server with `ca`, or the host as its certificate has it"
            }
            HttpError::Unreachable { .. } | HttpError::Broken { .. } => "see whether the server is up and can be reached from here",
            HttpError::TimedOut { .. } => "see why it takes so long, or allow more with `timeout`",
            HttpError::TooLong { .. } => "ask for less",
        }
    }
}
