//! What the outside sees while dbmove works: log lines and progress.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`printable`] | the one function that makes hostile text fit for a terminal or a log |
//! | [`human`] | durations, counts and rates as people read them |
//! | [`screen`] | the one way to stderr, so that log lines and progress bars don't tear each other |
//! | [`logs`] | `tracing` set up: level, text or JSON |
//! | [`burn_down`] | a forecast as a table |
//! | [`describe`] | progress, forecast and write gap in words; pure, and so tested |
//! | [`progress`] | the engine's observer: bars on a terminal, dense lines elsewhere |

pub mod burn_down;
pub mod describe;
pub mod human;
pub mod logs;
pub mod printable;
pub mod progress;
pub mod screen;
