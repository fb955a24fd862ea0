//! What the demo's story ([`run`](super::run)) is made of.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`narrator`] | the story's voice: scenes, sentences, what a child says |
//! | [`place`] | the private directory and the four servers in it; gone when dropped |
//! | [`playbook`] | the playbook of the move |
//! | [`child`] | `dbmove` itself as a process: started, listened to, killed |
//! | [`plug`] | the child killed in the middle of its copy, and whether the next one went on |
//! | [`evidence`] | what is looked up on the servers and in the report, independent of what a child said |
//! | [`verdict`] | how it ended, for people and for programs |
//! | [`error`] | why there was no story to the end |

pub mod child;
pub mod error;
pub mod evidence;
pub mod narrator;
pub mod place;
pub mod playbook;
pub mod plug;
pub mod verdict;
