//! What a playbook does with a store, as far as privileges hang on it: so that what a step lacks at the switch, or hours behind it, is found before
//! the first row is copied.

use std::collections::BTreeSet;

/// By the playbook's steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// It keeps a way back open: `mysql.reverse`.
    pub way_back: bool,
    /// HAProxy's clients are held: `traffic.hold`, `traffic.switch`.
    pub proxy: bool,
    /// The schemas that canaries write to.
    pub canaries: BTreeSet<String>,
}
