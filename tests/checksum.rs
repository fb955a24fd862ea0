//! Row checksums on real servers: equal data gives equal tallies by every method, and each kind of corruption is found and named.
#![allow(clippy::unwrap_used, reason = "a test that fails is to say where")]

#[path = "checksum/corruption.rs"]
mod corruption;
#[path = "checksum/equal.rs"]
mod equal;
#[path = "checksum/ranges.rs"]
mod ranges;
mod real;
#[path = "checksum/servers.rs"]
mod servers;
