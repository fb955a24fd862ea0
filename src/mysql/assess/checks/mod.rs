//! The checks and their registry. A new check is a file here (or a place in the file of its family) and its line in [`FAMILIES`].
//!
//! The order is that of what hangs on what: settings and privileges first, because a run that can't begin needs no list of columns.

mod account_fates;
mod accounts;
mod activity;
mod bodies;
mod column_types;
mod defaults;
mod engines;
mod foreign_keys;
mod keys;
mod limits;
mod log;
mod names;
mod old_formats;
mod partitions;
mod privileges;
mod rds;
mod reserved_words;
mod selection;
mod settings;
mod sizes;
mod target;
mod values;

use super::gather::Gathered;
use super::{Check, Found, Level, Part};

const FAMILIES: &[&[Check]] = &[
    log::CHECKS,
    activity::CHECKS,
    privileges::CHECKS,
    selection::CHECKS,
    target::CHECKS,
    rds::CHECKS,
    sizes::CHECKS,
    names::CHECKS,
    limits::CHECKS,
    reserved_words::CHECKS,
    engines::CHECKS,
    partitions::CHECKS,
    keys::CHECKS,
    column_types::CHECKS,
    old_formats::CHECKS,
    values::CHECKS,
    foreign_keys::CHECKS,
    defaults::CHECKS,
    accounts::CHECKS,
    account_fates::CHECKS,
    bodies::CHECKS,
    settings::CHECKS,
];

/// Every check, in order.
pub fn all() -> impl Iterator<Item = &'static Check> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

#[cfg(test)]
mod testing {
    use std::sync::Arc;

    use super::super::gather::Gathered;
    use crate::mysql::catalog::ServerFacts;
    use crate::mysql::connect::Version;
    use crate::mysql::names::TableName;
    use crate::mysql::table::{Column, ColumnType, Table};

    /// Settings of an old server, as if it had printed these.
    pub fn facts(variables: &[(&str, &str)]) -> ServerFacts {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ServerFacts::of(Version::parse("5.5.34"), variables, Default::default())
    }

    /// Two equal servers that hold nothing.
    pub fn gathered() -> Gathered {
        Gathered::of(facts(&[]), facts(&[]), "target".to_owned())
    }

    /// The same with a table of this engine, with one column of this type.
    pub fn with_table(engine: &str, kind: ColumnType) -> Gathered {
        let column = Column::plain("c", kind);
        let name = TableName::new("s", "t");
        let table = Table {
            name: name.clone(),
            engine: engine.to_owned(),
            collation: String::new(),
            row_estimate: 0,
            data_bytes: 0,
            auto_increment: None,
            columns: vec![column],
            indexes: Vec::new(),
            foreign_keys: Vec::new(),
            lookups_fail: false,
        };
        let mut gathered = gathered();
        gathered.catalog.tables.insert(name, Arc::new(table));
        gathered
    }

    /// The same with its table changed.
    pub fn changed(mut gathered: Gathered, change: impl FnOnce(&mut Table)) -> Gathered {
        let table = gathered.catalog.tables.values_mut().next().unwrap();
        change(Arc::make_mut(table));
        gathered
    }

    /// The objects that the check of this id finds.
    pub fn objects(id: &str, gathered: &Gathered) -> Vec<String> {
        let check = super::all().find(|check| check.id == id).unwrap();
        (check.look)(gathered).into_iter().map(|found| found.object).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no 5.5.34 can hold, or what belongs to the target or to sessions: without a fixture, so here.
    #[test]
    fn what_has_no_fixture_fires_and_is_quiet() {
        use super::super::gather::activity::SessionRow;
        use super::testing::{facts, gathered, objects, with_table};
        use crate::mysql::table::ColumnType;
        use crate::mysql::upstream::Channel;

        let quiet = with_table("InnoDB", ColumnType::Int);
        for id in [
            "engine-federated",
            "json-column",
            "log-slave-updates",
            "source-replicates",
            "target-claimed",
            "target-not-empty",
            "target-read-only",
            "app-sessions",
        ] {
            assert!(objects(id, &quiet).is_empty(), "{id}");
        }
        assert_eq!(objects("engine-federated", &with_table("FEDERATED", ColumnType::Int)), ["s.t"]);
        assert_eq!(objects("json-column", &with_table("InnoDB", ColumnType::Json)), ["s.t.c"]);
        let mut bad = gathered();
        bad.replicates_from = vec![Channel { from: "db0".to_owned(), applies: true, ..Channel::default() }];
        bad.claimed_by = Some("another".to_owned());
        bad.on_target = vec![crate::mysql::names::TableName::new("s", "t")];
        bad.target = facts(&[("read_only", "ON")]);
        bad.sessions = vec![SessionRow { user: "app".to_owned(), host: "h:1".to_owned() }];
        assert_eq!(objects("log-slave-updates", &bad), ["log_slave_updates"]);
        assert_eq!(objects("source-replicates", &bad), ["db0"]);
        assert_eq!(objects("target-claimed", &bad), ["target"]);
        assert_eq!(objects("target-not-empty", &bad), ["s.t"]);
        assert_eq!(objects("target-read-only", &bad), ["target"]);
        assert_eq!(objects("app-sessions", &bad), ["app"]);
        bad.source = facts(&[("log_slave_updates", "ON")]);
        assert!(objects("log-slave-updates", &bad).is_empty());
        bad.replicates_from[0].applies = false;
        assert!(objects("source-replicates", &bad).is_empty());
    }

    #[test]
    fn every_id_of_the_design_is_a_check() {
        let listed = include_str!("../../../../fixtures/assess-ids.txt");
        let listed: Vec<&str> = listed.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        let missing: Vec<&&str> = listed.iter().filter(|id| !all().any(|check| check.id == **id)).collect();
        assert!(missing.is_empty(), "no check has these ids of fixtures/assess-ids.txt: {missing:?}");
        println!("{} ids are listed, each is a check; {} checks in all", listed.len(), all().count());
    }

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
