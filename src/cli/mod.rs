//! The command line: one file per command, no logic that a test can't call.

pub mod playbook;
