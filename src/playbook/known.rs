//! The secrets this process knows, kept out of what commands get and of what is kept of their words.
//!
//! A command of the operator's own is started with our environment, where the playbook's passwords may lie, and the end of what it prints is
//! kept in the journal. So two things are known here, for the whole process:
//!
//! * the variables that a playbook refers to where a secret may stand ([`refer`]). No command gets them, unless its own `env` names them;
//! * what was found behind references that may be secret, the newest few of each. It is replaced in what a command printed.
//!
//! Addresses are no secrets: a store's `url`, where a proxy listens, name servers. All else that is given by reference may be one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::model::{Playbook, Template};
use super::reference::{Piece, Reference};

/// A shorter value is no secret worth the name, and replacing it would garble every message.
const SHORTEST: usize = 4;
/// Shorter ones of digits alone are ports and counts.
const SHORTEST_NUMBER: usize = 8;
/// Values that are kept of one reference: a token may be another one tomorrow, and what a command printed may be yesterday's.
const KEPT: usize = 4;
/// Fields that hold addresses and the like.
const PLAIN: [&str; 11] = [
    "content",
    "rehearsal_content",
    "socket",
    "rehearsal_socket",
    "address",
    "rehearsal_address",
    "target",
    "rehearsal_target",
    "user",
    "servers",
    "resolvers",
];
/// Fields whose own fields have names that the operator chose.
const FREE: [&str; 4] = ["env", "headers", "body", "passwords"];

#[derive(Default)]
struct Known {
    variables: BTreeSet<String>,
    found: BTreeMap<String, VecDeque<SecretString>>,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { variables: BTreeSet::new(), found: BTreeMap::new() });

/// Where a text stands in a playbook.
#[derive(Clone, Copy, Default)]
struct Within {
    stores: bool,
    free: bool,
}

/// From here on commands don't get what this playbook takes from the environment as a secret.
pub fn refer(playbook: &Playbook) {
    let mut names = BTreeSet::new();
    walk(&serde_json::to_value(playbook).unwrap_or_default(), Within::default(), &mut names);
    for name in &names {
        if let Ok(value) = super::secret::environment(name) {
            found(&Reference::Environment(name.clone()), &value);
        }
    }
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).variables.append(&mut names);
}

fn walk(value: &Value, within: Within, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let pieces = Template(text.clone()).parse().unwrap_or_default();
            names.extend(pieces.into_iter().filter_map(|piece| match piece {
                Piece::Reference(Reference::Environment(name)) => Some(name),
                _ => None,
            }));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, within, names)),
        Value::Object(fields) => {
            for (name, field) in fields {
                let of_server = name == "url" && (within.stores || field.as_str().is_some_and(|url| url.starts_with("mysql://")));
                if !within.free && !field.is_object() && (of_server || PLAIN.contains(&name.as_str())) {
                    continue;
                }
                let inside = Within { stores: within.stores || name == "stores", free: within.free || FREE.contains(&name.as_str()) };
                walk(field, inside, names);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A reference that may be secret was resolved to this.
pub(super) fn found(reference: &Reference, value: &str) {
    let number = value.bytes().all(|byte| byte.is_ascii_digit());
    if matches!(reference, Reference::StepOutput { .. }) || value.len() < if number { SHORTEST_NUMBER } else { SHORTEST } {
        return;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let values = known.found.entry(format!("{reference:?}")).or_default();
    if !values.iter().any(|kept| kept.expose_secret() == value) {
        if values.len() == KEPT {
            values.pop_front();
        }
        values.push_back(SecretString::from(value));
    }
}

/// The variables that no command gets by itself.
#[must_use]
pub fn variables() -> BTreeSet<String> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).variables.clone()
}

/// A text without any known secret, nor any of these, which are shown by their names.
#[must_use]
pub fn without_secrets<'a>(text: &str, named: impl IntoIterator<Item = (&'a str, &'a SecretString)>) -> String {
    let known: Vec<SecretString> = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).found.values().flatten().cloned().collect();
    let named = named.into_iter().filter(|(_, value)| value.expose_secret().len() >= SHORTEST);
    let mut secrets: Vec<(&str, &str)> = named.map(|(name, value)| (name, value.expose_secret())).collect();
    secrets.extend(known.iter().map(|value| ("secret", value.expose_secret())));
    // The longest first: one secret may be part of another. Of equals the named one.
    secrets.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    secrets.into_iter().fold(text.to_owned(), |text, (name, value)| text.replace(value, &format!("[{name}]")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_what_is_no_address() {
        let playbook = serde_json::json!({
            "stores": {"school": {
                "source": {"url": "mysql://me@${env:A_HOST}/", "password": "${env:A_PASSWORD}"},
                "target": {"url": "mysql://me@${env:A_HOST}/", "password": "x${env:ANOTHER_PASSWORD}"},
            }},
            "hooks": [{"post": "${env:A_CHAT}", "headers": {"target": "Bearer ${env:A_TOKEN}"}}],
            "stages": {"cutover": [
                {"with": {"servers": ["${env:A_SERVER}"], "key": {"secret": "${env:A_KEY}"}, "target": "${env:A_TARGET}"}},
                {"with": {"url": "mysql://${env:A_PROXY}/", "password": "${file:/x}"}},
                {"with": {"call": {"url": "https://x/${env:A_PATH}", "body": {"user": ["${env:A_BODY}"]}}}},
            ]},
        });
        let mut names = BTreeSet::new();
        walk(&playbook, Within::default(), &mut names);
        let secrets = ["ANOTHER_PASSWORD", "A_BODY", "A_CHAT", "A_KEY", "A_PASSWORD", "A_PATH", "A_TOKEN"];
        assert_eq!(names.into_iter().collect::<Vec<_>>(), secrets);
    }

    #[test]
    fn what_was_found_is_replaced_wherever_it_occurs() {
        let file = Reference::File("/nowhere/token".into());
        for value in ["known-1", "known-2", "known-3", "known-4", "known-5", "known-5", "3306", "abc"] {
            found(&file, value);
        }
        let named = SecretString::from("known-5-and-more");
        // The oldest is forgotten.
        let text = "known-1 known-2 known-5 known-5-and-more 3306 abc";
        assert_eq!(without_secrets(text, [("TOKEN", &named)]), "known-1 [secret] [secret] [TOKEN] 3306 abc");
        found(&Reference::StepOutput { step: "a".to_owned(), output: "b".to_owned() }, "an-output");
        assert_eq!(without_secrets("an-output", []), "an-output");
    }
}
