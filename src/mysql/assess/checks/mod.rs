//! The checks and their registry. A new check is a file here (or a place in the file of its family) and its line in [`FAMILIES`].
//!
//! The order is that of what hangs on what: settings and privileges first, because a run that can't begin needs no list of columns.

mod accounts;
mod bodies;
mod column_types;
mod defaults;
mod engines;
mod foreign_keys;
mod keys;
mod log;
mod names;
mod privileges;
mod selection;
mod settings;
mod target;

use super::gather::Gathered;
use super::{Check, Found, Level, Part};

const FAMILIES: &[&[Check]] = &[
    log::CHECKS,
    privileges::CHECKS,
    selection::CHECKS,
    target::CHECKS,
    names::CHECKS,
    engines::CHECKS,
    keys::CHECKS,
    column_types::CHECKS,
    foreign_keys::CHECKS,
    defaults::CHECKS,
    accounts::CHECKS,
    bodies::CHECKS,
    settings::CHECKS,
];

/// Every check, in order.
pub fn all() -> impl Iterator<Item = &'static Check> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

#[cfg(test)]
mod testing {
    use crate::mysql::catalog::ServerFacts;
    use crate::mysql::connect::Version;

    /// Settings of an old server, as if it had printed these.
    pub fn facts(variables: &[(&str, &str)]) -> ServerFacts {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ServerFacts::of(Version::parse("5.5.34"), variables, Default::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_every_check_says_why() {
        let mut ids: Vec<&str> = all().map(|check| check.id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(all().all(|check| check.about.ends_with('.') && check.why.ends_with('.')));
    }
}
