//! Checks what the shape of the hooks can't say: ids, references, and whether what they call can be called.

use std::collections::BTreeSet;

use super::model::HookSpec;
use super::problem::{Mistake, Problem};
use super::reference::is_name;
use super::shape;
use super::steps::earlier::check_texts_beside;
use super::steps::step_ids;
use super::stores::bad_name;
use super::vocabulary::ArgumentError;
use super::yaml::Node;

/// How many hooks a playbook may have.
const MOST_HOOKS: usize = 50;

/// Every mistake in the playbook's hooks.
pub(crate) fn check(tree: &Node, source: &str, usable: fn(&HookSpec) -> Result<(), ArgumentError>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let hooks = tree.field("hooks").map_or(&[][..], |entry| entry.value.items());
    if let Some(beyond) = hooks.get(MOST_HOOKS) {
        let message = format!("the playbook has {} hooks", hooks.len());
        problems.push(Problem::new(Mistake::InvalidValue, beyond.span.clone(), message, format!("expected at most {MOST_HOOKS} hooks")));
        return problems;
    }
    let ids = step_ids(tree);
    let mut seen = BTreeSet::new();
    for node in hooks {
        let id = node.field_text("id");
        let called = id.map_or_else(|| "a hook".to_owned(), |(id, _)| format!("hook `{id}`"));
        let place = id.map_or_else(|| node.span.clone(), |(_, value)| value.span.clone());
        if let Some((id, value)) = id {
            if !is_name(id) {
                problems.push(bad_name("hook", id, value.span.clone()));
            } else if !seen.insert(id) {
                let message = format!("{called} is there twice");
                let problem = Problem::new(Mistake::DuplicateStep, value.span.clone(), message, "expected an id of its own");
                problems.push(problem.help("every hook has its own id; the journal goes by it"));
            }
        }
        let before = problems.len();
        for field in ["post", "env", "headers"] {
            if let Some(entry) = node.field(field) {
                check_texts_beside(&entry.value, source, &called, &ids, &mut problems);
            }
        }
        // One whose shape is wrong is said to be so by the shape, and a reference that can't be read was said just now.
        if let Ok(spec) = serde_json::from_value::<HookSpec>(node.to_json())
            && problems.len() == before
            && let Err(ArgumentError { message, valid, .. }) = usable(&spec)
        {
            let problem = Problem::new(Mistake::InvalidArgument, place, format!("{called}: {message}"), "this hook");
            problems.push(if valid.is_empty() { problem } else { problem.help(shape::list("valid here: ", &valid)) });
        }
    }
    problems
}
