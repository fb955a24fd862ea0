//! What a playbook does with one of its stores, told to whoever looks at the store's privileges. See [`Uses`].

use serde_json::Value;

use crate::mysql::uses::Uses;
use crate::playbook::model::Playbook;
use crate::traffic::beat::CANARY_SCHEMA;
use crate::traffic::canary::TrafficCanary;
use crate::traffic::haproxy::hold::TrafficHold;

/// By the steps of the store.
#[must_use]
pub fn uses(playbook: &Playbook, store: &str) -> Uses {
    let mut uses = Uses::default();
    for (_, spec) in playbook.stages.iter().filter(|(_, spec)| spec.store.as_deref() == Some(store)) {
        match spec.run.as_str() {
            "mysql.reverse" => uses.way_back = true,
            TrafficHold::NAME => uses.proxy = true,
            TrafficCanary::NAME => {
                let table = spec.with.get("table").and_then(Value::as_str);
                let schema = table.and_then(|table| table.split_once('.')).map_or(CANARY_SCHEMA, |(schema, _)| schema);
                uses.canaries.insert(schema.to_owned());
            }
            _ => {}
        }
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_store_is_told_of_its_own_steps() {
        let text = "playbook: p\nstores: {}\nstages:\n  cutover:\n    - { id: a, run: traffic.canary, store: s, with: { user: app } }\n    \
                    - { id: b, run: traffic.canary, store: t, with: { user: app, table: beats.now } }\n    \
                    - { id: c, run: mysql.reverse, store: s }\n    - { id: d, run: traffic.hold, store: t }\n";
        let playbook: Playbook = serde_saphyr::from_str(text).unwrap();
        let canaries = |name: &str| [name.to_owned()].into();
        assert_eq!(uses(&playbook, "s"), Uses { way_back: true, proxy: false, canaries: canaries("_dbmove_canary") });
        assert_eq!(uses(&playbook, "t"), Uses { way_back: false, proxy: true, canaries: canaries("beats") });
        assert_eq!(uses(&playbook, "u"), Uses::default());
    }
}
