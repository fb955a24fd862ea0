//! Why a name server could not be asked, or did not do what it was told. Nothing was changed unless the message says otherwise.

use std::io;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::tsig::TsigError;

use super::record::Value;
use crate::engine::step::StepError;
use crate::hook::message::printable;

/// What went wrong with one question or one change.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The server's own name leads nowhere.
    #[error("the name server `{server}` can't be found: {source}")]
    Unknown {
        /// As the playbook writes it.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing came back.
    #[error("the name server `{server}` did not answer within {waited:?}")]
    Silent {
        /// Who was asked.
        server: String,
        /// How long.
        waited: Duration,
    },
    /// The network said no.
    #[error("the name server `{server}` can't be asked: {source}")]
    Network {
        /// Who was asked.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// What came back is no answer to what was asked.
    #[error("the name server `{server}` answered what can't be understood: {why}")]
    Garbled {
        /// Who was asked.
        server: String,
        /// Why.
        why: String,
    },
    /// An answer whose code is an error's.
    #[error("the name server `{server}` answered {} when asked to {action}", code_name(*code))]
    Code {
        /// Who was asked.
        server: String,
        /// The code.
        code: ResponseCode,
        /// What it was asked to do.
        action: String,
    },
    /// The key was not accepted.
    #[error("the name server `{server}` does not accept the key `{key}` ({})", key_error_name(error))]
    Key {
        /// Who was asked.
        server: String,
        /// The key's name.
        key: String,
        /// What it has against it.
        error: TsigError,
    },
    /// A change was answered without a signature, or with a wrong one.
    #[error("what the name server `{server}` answered to a change is not signed by the key `{key}`: {why}")]
    Unsigned {
        /// Who was asked.
        server: String,
        /// The key's name.
        key: String,
        /// Why.
        why: String,
    },
    /// The server answers for the name, but not from a zone of its own.
    #[error("the name server `{server}` is not authoritative for `{name}`")]
    NotAuthoritative {
        /// Who was asked.
        server: String,
        /// The record's name.
        name: String,
    },
    /// There is no record.
    #[error("the name server `{server}` has no address (A, AAAA) and no CNAME at `{name}`")]
    NoRecord {
        /// Who was asked.
        server: String,
        /// The record's name.
        name: String,
    },
    /// There are several.
    #[error("the name server `{server}` has several records at `{name}`: {}", listed(found))]
    Several {
        /// Who was asked.
        server: String,
        /// The record's name.
        name: String,
        /// Those.
        found: Vec<Value>,
    },
    /// The record is not what it was expected to be, says the server, so it changed nothing.
    #[error("the name server `{server}` changed nothing: `{name}` is not `{expected}` any more ({})", code_name(*code))]
    Changed {
        /// Who was asked.
        server: String,
        /// The record's name.
        name: String,
        /// What it should have been, or `nothing`.
        expected: String,
        /// The server's code.
        code: ResponseCode,
    },
}

fn listed(values: &[Value]) -> String {
    values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
}

/// As RFC 2136 and RFC 8945 write it.
fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::YXDomain => "YXDOMAIN".to_owned(),
        ResponseCode::YXRRSet => "YXRRSET".to_owned(),
        ResponseCode::NXRRSet => "NXRRSET".to_owned(),
        ResponseCode::NotAuth => "NOTAUTH".to_owned(),
        ResponseCode::NotZone => "NOTZONE".to_owned(),
        other => format!("code {}", u16::from(other)),
    }
}

fn key_error_name(error: &TsigError) -> String {
    match error {
        TsigError::BadSig => "BADSIG".to_owned(),
        TsigError::BadKey => "BADKEY".to_owned(),
        TsigError::BadTime => "BADTIME".to_owned(),
        TsigError::BadTrunc => "BADTRUNC".to_owned(),
        TsigError::Unknown(code) => format!("error {code}"),
    }
}

impl DnsError {
    /// Whether asking again can help.
    #[must_use]
    pub fn can_heal(&self) -> bool {
        match self {
            DnsError::Unknown { .. } | DnsError::Silent { .. } | DnsError::Network { .. } | DnsError::Garbled { .. } => true,
            DnsError::Code { code, .. } => *code == ResponseCode::ServFail,
            _ => false,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            DnsError::Unknown { .. } => "give it by its address, `192.0.2.1` or `192.0.2.1:53`",
            DnsError::Silent { .. } | DnsError::Network { .. } => {
                "see whether it runs, and whether UDP and TCP to it are let through from here"
            }
            DnsError::Garbled { .. } => "see whether it is a name server that answers at this address and port",
            DnsError::Code { code, .. } => match code {
                ResponseCode::Refused => {
                    "it does not let this key do that, or knows no such zone: see `allow-update` or `update-policy` of the zone, and `zone`"
                }
                ResponseCode::NotAuth | ResponseCode::NotZone => {
                    "it is not the primary of that zone: `zone` has to be the zone's own name, and the first of `servers` the one that takes changes"
                }
                ResponseCode::NotImp => "it takes no changes over the network (RFC 2136): name the one that does as the first of `servers`",
                ResponseCode::ServFail => "its own log says why",
                _ => "its own log says more",
            },
            DnsError::Key { error, .. } => match error {
                TsigError::BadKey => "it knows no key of this name, or not with this algorithm: compare `key.name` and `key.algorithm` with its configuration",
                TsigError::BadSig => "the secret is another one there: compare what `key.secret` refers to with its configuration",
                TsigError::BadTime => "its clock and this machine's differ by more than five minutes: set them",
                _ => "compare `key` with its configuration",
            },
            DnsError::Unsigned { .. } => "somebody may answer in its place; look at the record by hand",
            DnsError::NotAuthoritative { .. } => "`servers` are those that hold the zone themselves; a resolver goes into `resolvers`",
            DnsError::NoRecord { .. } => "check `name`; the record has to be there before the move, and lead to the source",
            DnsError::Several { .. } => "leave one, so that it is clear which server clients use",
            DnsError::Changed { .. } => "find out who changed it",
        }
        .to_owned()
    }
}

impl From<DnsError> for StepError {
    fn from(error: DnsError) -> Self {
        let message = printable(&error.to_string());
        let step = if error.can_heal() { StepError::transient(message) } else { StepError::definite(message) };
        step.hint(error.hint())
    }
}
