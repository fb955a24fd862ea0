//! Where clients are pointed, and what they notice: hooks, route files, switch commands, the canary on real servers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod real;

#[path = "traffic/canary.rs"]
mod canary;
#[path = "traffic/dns.rs"]
mod dns;
#[path = "traffic/exec.rs"]
mod exec;
#[path = "traffic/file.rs"]
mod file;
#[path = "traffic/hook.rs"]
mod hook;
#[path = "traffic/http.rs"]
mod http;
#[path = "traffic/memory.rs"]
mod memory;
#[path = "traffic/names.rs"]
mod names;
