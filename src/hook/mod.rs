//! Commands of the operator's own, run as steps.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`command`] | runs one command without a shell: facts in, output out, its process group killed on stop |
//! | [`message`] | what a command printed, made safe to show and to keep |
//! | [`runner`] | what a step makes of its commands: acting, asking, undoing |
//! | [`exec`] | the step `hook.exec` |
//! | [`moment`] | hooks at moments of a run: a command, or an address that is posted to |
//!
//! `traffic.exec` runs its commands through [`runner`] too.

pub mod command;
pub mod exec;
pub mod message;
pub mod moment;
pub mod runner;
