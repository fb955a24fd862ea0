//! The command line from outside: the built binary, its stdout, its stderr and its exit code together.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cli/certificate.rs"]
mod certificate;
#[path = "cli/clock.rs"]
mod clock;
#[path = "cli/command.rs"]
mod command;
#[path = "cli/ctl.rs"]
mod ctl;
#[path = "cli/driving.rs"]
mod driving;
#[path = "cli/exit_codes.rs"]
mod exit_codes;
#[path = "cli/gate.rs"]
mod gate;
#[path = "cli/guards.rs"]
mod guards;
#[path = "cli/hooks.rs"]
mod hooks;
#[path = "cli/late.rs"]
mod late;
#[path = "cli/saying.rs"]
mod saying;
#[path = "cli/setting.rs"]
mod setting;
#[path = "cli/undo.rs"]
mod undo;
