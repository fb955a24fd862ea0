//! The command line from outside: the built binary, its stdout, its stderr and its exit code together.

#[path = "cli/command.rs"]
mod command;
#[path = "cli/driving.rs"]
mod driving;
#[path = "cli/saying.rs"]
mod saying;
