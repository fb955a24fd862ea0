//! Fingerprints of a playbook: whether it has changed, and where.
//!
//! Hashed is the *model* in a canonical form (JSON with sorted keys and no blanks), so comments
//! and layout don't count. `about` texts don't count either: they change nothing that is done.
//! `needs` counts by its effect: writing out what is meant anyway is no change, and moving a step
//! is one.
//!
//! A run keeps the fingerprint it was started with. Guarantee 6 of the engine (a changed playbook
//! is refused unless the change touches only steps not yet begun) is then [`Fingerprint::changes`]
//! and a look at which of these steps have begun.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::model::{Playbook, StageName, StepSpec};

/// Goes into every hash, so that a later change of the canonical form is not taken for a change of the playbook.
const FORM: &str = "dbmove playbook 1";

/// What a playbook was at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Of all parts together, as 64 hexadecimal digits.
    pub whole: String,
    /// Of what is no step: `playbook`, `deadline`, …, and `stores.NAME` each.
    pub parts: BTreeMap<String, String>,
    /// Of each step by its id.
    pub steps: BTreeMap<String, String>,
}

/// One difference between two fingerprints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "change", content = "name")]
pub enum Change {
    /// Something that is no step: it concerns what has begun as well.
    Part(String),
    /// The step is another one now: its arguments, its stage, or what comes before it.
    Step(String),
    /// The step is new.
    StepAdded(String),
    /// The step is gone.
    StepRemoved(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Part(name) => write!(f, "`{name}` has changed"),
            Change::Step(id) => write!(f, "step `{id}` has changed"),
            Change::StepAdded(id) => write!(f, "step `{id}` is new"),
            Change::StepRemoved(id) => write!(f, "step `{id}` is gone"),
        }
    }
}

impl Change {
    /// The step it is about; none if it concerns the whole run.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        match self {
            Change::Part(_) => None,
            Change::Step(id) | Change::StepAdded(id) | Change::StepRemoved(id) => Some(id),
        }
    }
}

impl Fingerprint {
    /// Of a playbook.
    #[must_use]
    pub fn of(playbook: &Playbook) -> Self {
        let mut parts = BTreeMap::new();
        for (name, value) in [
            ("playbook", json!(playbook.playbook)),
            ("deadline", json!(playbook.deadline)),
            ("max_write_gap", json!(playbook.max_write_gap)),
            ("certificate_lifetime", json!(playbook.certificate_lifetime)),
        ] {
            parts.insert(name.to_owned(), digest(&value));
        }
        // Playbooks without guards and hooks are what they were before there were any.
        if !playbook.guards.is_empty() {
            parts.insert("guards".to_owned(), digest(&json!(playbook.guards)));
        }
        if !playbook.hooks.is_empty() {
            parts.insert("hooks".to_owned(), digest(&json!(playbook.hooks)));
        }
        for (name, store) in &playbook.stores {
            parts.insert(format!("stores.{name}"), digest(&json!(store)));
        }
        let mut steps = BTreeMap::new();
        for stage in StageName::ALL {
            let mut above: Option<&StepSpec> = None;
            for step in playbook.stages.get(stage) {
                steps.insert(step.id.clone(), step_digest(stage, step, above));
                above = Some(step);
            }
        }
        let whole = digest(&json!({ "parts": parts, "steps": steps }));
        Fingerprint { whole, parts, steps }
    }

    /// What has changed from this fingerprint to a newer one. Empty exactly if the wholes are equal.
    #[must_use]
    pub fn changes(&self, newer: &Fingerprint) -> Vec<Change> {
        let mut changes = Vec::new();
        let names: std::collections::BTreeSet<&String> = self.parts.keys().chain(newer.parts.keys()).collect();
        changes.extend(names.into_iter().filter(|name| self.parts.get(*name) != newer.parts.get(*name)).cloned().map(Change::Part));
        for (id, hash) in &self.steps {
            match newer.steps.get(id) {
                None => changes.push(Change::StepRemoved(id.clone())),
                Some(other) if other != hash => changes.push(Change::Step(id.clone())),
                Some(_) => {}
            }
        }
        changes.extend(newer.steps.keys().filter(|id| !self.steps.contains_key(*id)).cloned().map(Change::StepAdded));
        changes
    }
}

/// The playbook's hash as 64 hexadecimal digits: what a certificate names.
#[must_use]
pub fn hash(playbook: &Playbook) -> String {
    Fingerprint::of(playbook).whole
}

fn step_digest(stage: StageName, step: &StepSpec, above: Option<&StepSpec>) -> String {
    let mut follows: Vec<&str> = match &step.needs {
        Some(needs) => needs.iter().map(String::as_str).collect(),
        None => above.map(|above| above.id.as_str()).into_iter().collect(),
    };
    follows.sort_unstable();
    follows.dedup();
    let mut value = json!(step);
    value["needs"] = json!(follows);
    value["stage"] = json!(stage);
    digest(&value)
}

fn digest(value: &Value) -> String {
    let mut canonical = String::from(FORM);
    canonical.push('\n');
    write_canonical(value, &mut canonical);
    hex::encode(Sha256::digest(canonical.as_bytes()))
}

/// JSON with sorted keys and without blanks, whatever order the map type keeps.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, field)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                write_canonical(field, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}
