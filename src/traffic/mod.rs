//! Where clients are pointed, and what they notice of it.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`route`] | a file that says where clients go: read and replaced as a whole, never through a link |
//! | [`file`] | the step `traffic.file`: the switch by such a file |

pub mod file;
pub mod route;
