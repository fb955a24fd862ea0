//! Where clients are pointed, and what they notice of it.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`route`] | a file that says where clients go: read and replaced as a whole, never through a link |
//! | [`file`] | the step `traffic.file`: the switch by such a file |
//! | [`exec`] | the step `traffic.exec`: the switch by a command |

pub mod exec;
pub mod file;
pub mod route;
