//! Row checksums on real servers: equal data gives equal tallies by every method, and each kind of corruption is found and named.

#[path = "checksum/corruption.rs"]
mod corruption;
#[path = "checksum/equal.rs"]
mod equal;
#[path = "checksum/ranges.rs"]
mod ranges;
#[path = "checksum/servers.rs"]
mod servers;
