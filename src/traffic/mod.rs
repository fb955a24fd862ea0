//! Where clients are pointed, and what they notice of it.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`route`] | a file that says where clients go: read and replaced as a whole, never through a link |
//! | [`file`] | the step `traffic.file`: the switch by such a file |
//! | [`exec`] | the step `traffic.exec`: the switch by a command |
//! | [`http`] | the step `traffic.http`: the switch by an HTTP call |
//! | `called` | what both hold to: a call may take effect later, or without an answer |
//! | `skipped` | a route that a rehearsal leaves alone |
//! | [`dns`] | `traffic.lower_ttl`, `traffic.dns`, `traffic.restore_ttl`: the switch by a DNS record |
//! | [`haproxy`] | `traffic.hold`, `traffic.switch`, `traffic.release`: clients wait at HAProxy while it is switched |
//! | [`canary`] | the service step `traffic.canary`: a client of our own on the real route |
//! | [`watch`] | what the canary has seen, the write gap above all |
//! | [`check`] | the step `traffic.check`: after the switch, whether the route does what it says |
//! | [`beat`] | the canary's schema on both servers |
//! | `client` | how the canary connects and writes |

pub mod beat;
mod called;
pub mod canary;
pub mod check;
mod checkpoint;
mod client;
pub mod dns;
pub mod exec;
pub mod file;
pub mod haproxy;
pub mod http;
pub mod route;
mod skipped;
pub mod watch;
