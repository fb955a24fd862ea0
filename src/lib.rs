//! dbmove moves live databases: rehearsed on a copy, every row verified, and switched inside a time
//! budget, or put back to where it was.
//!
//! # The map
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`cli`] | one file per command |
//! | [`playbook`] | the file format: model, loading with line-exact errors, secrets |
//! | [`engine`] | runs a playbook: steps, scheduler, journal, lease, budget, certificate |
//! | [`verify`] | what every store shares: row hash, tally, Merkle root, differences |
//! | [`mysql`] | the MySQL family: copy, follow, verify, fence |
//! | [`demo`] | a school with live users: what the demo shows and the end-to-end tests judge by |
//! | [`steps`] | the registry: every step and guard there is, by name |
//! | [`report`] | from the journal to what people and programs read |
//! | [`telemetry`] | logs and progress |
//! | [`gate`] | steps that ask whether a run may go on |
//! | [`guard`] | what is watched meanwhile and is no store: disk, addresses, Prometheus |
//! | [`hook`] | commands of the operator's own, run as steps |
//! | [`http`] | the one way in which a server is asked by HTTP |
//! | [`traffic`] | where clients are pointed: route files, commands, calls, HAProxy, the canary |
//! | [`local`] | private real servers, for the demo and the tests |
//!
//! # Who may import whom
//!
//! | module | knows |
//! | --- | --- |
//! | [`cli`] | everything |
//! | [`demo`] | everything but [`cli`]: it stands outside, and runs the built program |
//! | [`steps`] | whoever has steps or guards: [`mysql`], [`traffic`], [`hook`], [`gate`], [`guard`] |
//! | [`guard`] | [`engine`] (the guard trait), [`playbook`], [`http`] |
//! | [`traffic`] | [`engine`], [`playbook`], [`hook`] for running commands, [`http`] for calls, [`mysql`] for the canary's sessions |
//! | [`http`] | [`playbook`], for references; the printable text of [`telemetry`] |
//! | [`mysql`], [`hook`], [`gate`] | [`engine`] (the step trait) and [`playbook`]; `mysql` also [`verify`], `hook` also [`http`] |
//! | [`report`] | [`engine`]'s journal, [`playbook`], [`verify`], [`telemetry`] |
//! | [`telemetry`] | what [`engine`] tells its observers |
//! | [`engine`] | [`playbook`]; no store, and nobody who shows what it does |
//! | [`playbook`] | the patterns of table names in [`mysql`], and nothing else |
//! | [`verify`], [`local`] | nobody |

// A place that could still panic has to say why it can't.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::todo, clippy::unimplemented, clippy::unreachable, clippy::unwrap_used)
)]

pub mod cli;
pub mod demo;
pub mod engine;
pub mod gate;
pub mod guard;
pub mod hook;
pub mod http;
pub mod local;
pub mod mysql;
pub mod playbook;
pub mod report;
pub mod steps;
pub mod telemetry;
pub mod traffic;
pub mod verify;
