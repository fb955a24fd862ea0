//! Whether a playbook changed under a run.
//!
//! A run records a hash of every field of every step and store it was started with: hashes, not values, so
//! that the journal can name *what* changed without repeating the playbook. A changed playbook is refused for a run
//! under way, unless each change touches only steps that have not begun and the operator accepts it by flag. A change of
//! a store is a change of every step that works on it. A step without `needs` follows the one written before it,
//! so that neighbour is one of its fields: a step slipped in before one that has begun shows as a change of the latter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::playbook::model::{Playbook, StageName};

/// A playbook's hash, whole and in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaybookFingerprint {
    /// Of everything the playbook says.
    pub whole: String,
    /// Of each field of the playbook itself (`deadline`, `max_write_gap` …).
    pub fields: BTreeMap<String, String>,
    /// Of each field of each store.
    pub stores: BTreeMap<String, BTreeMap<String, String>>,
    /// Of each field of each step.
    pub steps: BTreeMap<String, BTreeMap<String, String>>,
    /// Which store each step works on.
    pub works_on: BTreeMap<String, String>,
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The step it touches, if it touches one.
    pub step: Option<String>,
    /// The field: `with.threads`, `stores.school.target`, `deadline`; or `added`, `removed`.
    pub field: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => write!(f, "step `{step}`: `{}`", self.field),
            None => write!(f, "`{}`", self.field),
        }
    }
}

/// A changed playbook that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriftError {
    /// The change touches steps that have begun.
    #[error(
        "the playbook changed under run `{run}` in steps that have begun: {}; nothing was touched. Put the old playbook back, or start a new run",
        list(.changes)
    )]
    Begun {
        /// The run under way.
        run: String,
        /// What changed in begun steps.
        changes: Vec<Change>,
    },
    /// The change touches only steps that have not begun, but nobody accepted it.
    #[error(
        "the playbook changed under run `{run}`: {}; nothing was touched. Only steps that have not begun are concerned: accept the change with `--accept-changes`, or put the old playbook back",
        list(.changes)
    )]
    NotAccepted {
        /// The run under way.
        run: String,
        /// What changed.
        changes: Vec<Change>,
    },
}

fn list(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// JSON with the keys of every object in order, whatever map type `serde_json` was built with.
fn canonical(value: &serde_json::Value, into: &mut String) {
    match value {
        serde_json::Value::Object(map) => {
            into.push('{');
            for (index, (key, value)) in map.iter().collect::<BTreeMap<_, _>>().into_iter().enumerate() {
                if index > 0 {
                    into.push(',');
                }
                into.push_str(&serde_json::Value::from(key.as_str()).to_string());
                into.push(':');
                canonical(value, into);
            }
            into.push('}');
        }
        serde_json::Value::Array(values) => {
            into.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    into.push(',');
                }
                canonical(value, into);
            }
            into.push(']');
        }
        other => into.push_str(&other.to_string()),
    }
}

/// The sha256 of a value's canonical JSON (keys in order, no spaces), in hex.
#[must_use]
pub fn hash_json(value: &serde_json::Value) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// `{"with":{"threads":4}}` becomes `with.threads` with its hash; other values stand under their own name.
fn field_hashes(value: &serde_json::Value, skip: &[&str]) -> BTreeMap<String, String> {
    let mut hashes = BTreeMap::new();
    if let serde_json::Value::Object(map) = value {
        for (key, value) in map {
            if skip.contains(&key.as_str()) {
                continue;
            }
            match value {
                serde_json::Value::Object(inner) => {
                    for (name, value) in inner {
                        hashes.insert(format!("{key}.{name}"), hash_json(value));
                    }
                }
                other => {
                    hashes.insert(key.clone(), hash_json(other));
                }
            }
        }
    }
    hashes
}

impl PlaybookFingerprint {
    /// The hashes of a playbook.
    ///
    /// # Errors
    /// If the playbook can't be written as JSON, which its model does not allow for.
    pub fn of(playbook: &Playbook) -> Result<PlaybookFingerprint, serde_json::Error> {
        let value = serde_json::to_value(playbook)?;
        let mut fingerprint = PlaybookFingerprint {
            whole: hash_json(&value),
            fields: field_hashes(&value, &["stores", "stages", "about"]),
            ..PlaybookFingerprint::default()
        };
        for (name, store) in &playbook.stores {
            fingerprint.stores.insert(name.clone(), field_hashes(&serde_json::to_value(store)?, &[]));
        }
        for stage in StageName::ALL {
            let mut before: Option<&str> = None;
            for step in playbook.stages.get(stage) {
                let mut fields = field_hashes(&serde_json::to_value(step)?, &["id"]);
                fields.insert("stage".to_owned(), hash_json(&stage.as_str().into()));
                if step.needs.is_none() {
                    fields.insert("the step before it".to_owned(), hash_json(&before.into()));
                }
                fingerprint.steps.insert(step.id.clone(), fields);
                if let Some(store) = &step.store {
                    fingerprint.works_on.insert(step.id.clone(), store.clone());
                }
                before = Some(&step.id);
            }
        }
        Ok(fingerprint)
    }

    /// What differs in `newer`, step by step and field by field.
    #[must_use]
    pub fn changes(&self, newer: &PlaybookFingerprint) -> Vec<Change> {
        let mut changes = Vec::new();
        for field in differing(&self.fields, &newer.fields) {
            changes.push(Change { step: None, field });
        }
        let steps: BTreeSet<&String> = self.steps.keys().chain(newer.steps.keys()).collect();
        for step in steps {
            let change = |field: String| Change { step: Some(step.clone()), field };
            match (self.steps.get(step), newer.steps.get(step)) {
                (Some(_), None) => changes.push(change("removed".to_owned())),
                (None, Some(_)) => changes.push(change("added".to_owned())),
                (Some(old), Some(new)) => {
                    changes.extend(differing(old, new).into_iter().map(change));
                    let store = newer.works_on.get(step);
                    if let Some(store) = store.filter(|store| self.works_on.get(step) == Some(*store)) {
                        let none = BTreeMap::new();
                        let (old, new) = (self.stores.get(store).unwrap_or(&none), newer.stores.get(store).unwrap_or(&none));
                        changes.extend(differing(old, new).into_iter().map(|field| change(format!("stores.{store}.{field}"))));
                    }
                }
                (None, None) => {}
            }
        }
        changes
    }

    /// Decides about a changed playbook: nothing changed (an empty list), or accepted changes.
    ///
    /// # Errors
    /// [`DriftError`] if the change is not allowed or not accepted.
    pub fn check(
        &self,
        newer: &PlaybookFingerprint,
        run: &str,
        begun: &BTreeSet<String>,
        accepted: bool,
    ) -> Result<Vec<Change>, DriftError> {
        let changes = self.changes(newer);
        if changes.is_empty() || begun.is_empty() {
            return Ok(changes);
        }
        let in_begun: Vec<Change> =
            changes.iter().filter(|change| change.step.as_ref().is_some_and(|step| begun.contains(step))).cloned().collect();
        if !in_begun.is_empty() {
            return Err(DriftError::Begun { run: run.to_owned(), changes: in_begun });
        }
        if !accepted {
            return Err(DriftError::NotAccepted { run: run.to_owned(), changes });
        }
        Ok(changes)
    }
}

fn differing(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let fields: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    fields.into_iter().filter(|field| old.get(*field) != new.get(*field)).cloned().collect()
}
