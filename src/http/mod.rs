//! Asks servers by HTTP: the one way in which dbmove does.
//!
//! # What it promises
//!
//! * *Bounded.* A request has a time, from looking up the name to the last byte of the answer, and an answer has a size. Both are
//!   errors when they are passed, never a cut answer that looks whole.
//! * *Nothing silent.* Redirects are not followed: where a server sends us is an answer for whoever asked. No proxy is taken
//!   from the environment, nothing is tried again, and a connection is used once. An error says whether the request may have been taken.
//! * *TLS is verified*, certificate and host name, against the public authorities or only those of a file of the playbook. There is no
//!   switch to turn that off. `http://` is what it says: the playbook has to write it, and a plan warns if it carries a secret.
//! * *Secrets are references.* Header values that look like secrets have to be references, and a url holds no password. Errors show a url as the
//!   playbook writes it, not what it leads to: the address of a chat's hook is a secret too. What a server says is shown on one line,
//!   printable, and without the secrets it was sent.
//!
//! A status is no error: what 404 or 302 means is for whoever asked. Why hyper and not more: decision 0016.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`endpoint`] | what a playbook writes: url, headers, authorities, time; and what it leads to when it is used |
//! | [`request`] | one request and its answer |
//! | `connect` | the connection beneath: name, TCP, TLS |
//! | [`error`] | why there was no answer |

mod connect;
pub mod endpoint;
pub mod error;
pub mod request;

pub use endpoint::HttpEndpoint;
pub use error::HttpError;
pub use request::{Answer, Method, Request};
