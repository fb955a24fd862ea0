//! Clients held at a real HAProxy while the servers behind it change: none is refused, none is lost, and whatever does not do what it
//! says is put back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

/// One at a time: each puts the load on the machine that it is about.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[path = "haproxy/back.rs"]
mod back;
#[path = "haproxy/clients.rs"]
mod clients;
#[path = "haproxy/cutover.rs"]
mod cutover;
#[path = "haproxy/lies.rs"]
mod lies;
#[path = "traffic/memory.rs"]
mod memory;
#[path = "haproxy/php.rs"]
mod php;
#[path = "haproxy/steps.rs"]
mod steps;
