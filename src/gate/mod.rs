//! Gates: steps that change nothing and decide whether a run may go on.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`approve`] | the step `gate.approve`: a person has to say yes |

pub mod approve;
