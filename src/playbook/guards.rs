//! Checks what the shape of the guards can't say: ids, words, stores, arguments, durations.

use std::collections::BTreeSet;

use super::nearest::nearest;
use super::problem::{Mistake, Problem};
use super::quantity::HumanDuration;
use super::reference::is_name;
use super::shape;
use super::steps::earlier::check_texts_beside;
use super::steps::word::{Named, check_named_store, check_with};
use super::steps::{step_ids, store_kinds};
use super::stores::bad_name;
use super::vocabulary::GuardWord;
use super::yaml::{Node, Value};

/// How many guards a playbook may have: each is a task that looks.
const MOST_GUARDS: usize = 50;

/// Every mistake in the playbook's guards.
pub(crate) fn check(tree: &Node, source: &str, words: &[GuardWord]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let guards = tree.field("guards").map_or(&[][..], |entry| entry.value.items());
    if let Some(beyond) = guards.get(MOST_GUARDS) {
        let message = format!("the playbook has {} guards", guards.len());
        problems.push(Problem::new(Mistake::InvalidValue, beyond.span.clone(), message, format!("expected at most {MOST_GUARDS} guards")));
        return problems;
    }
    let (kinds, ids) = (store_kinds(tree), step_ids(tree));
    let mut seen = BTreeSet::new();
    for node in guards {
        let text = |name: &str| node.field_text(name).map(|(text, value)| (text, value.span.clone()));
        let (id, watch) = (text("id"), text("watch"));
        let called = id.as_ref().map_or_else(|| "a guard".to_owned(), |(id, _)| format!("guard `{id}`"));
        let place = watch.as_ref().or(id.as_ref()).map_or_else(|| node.span.clone(), |(_, span)| span.clone());
        if let Some((id, span)) = &id {
            if !is_name(id) {
                problems.push(bad_name("guard", id, span.clone()));
            } else if !seen.insert(*id) {
                let problem =
                    Problem::new(Mistake::DuplicateStep, span.clone(), format!("{called} is there twice"), "expected an id of its own");
                problems.push(problem.help("every guard has its own id; journal and status go by it"));
            }
        }
        let word = watch.as_ref().and_then(|(watch, span)| {
            let word = words.iter().find(|word| word.name == *watch);
            if word.is_none() {
                let names: Vec<String> = words.iter().map(|word| word.name.to_owned()).collect();
                let help = match nearest(watch, words.iter().map(|word| word.name)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => shape::list("what can be watched: ", &names),
                };
                let message = format!("`{watch}` is nothing that can be watched");
                let problem = Problem::new(Mistake::UnknownStep, span.clone(), message, "expected something that dbmove can watch");
                problems.push(problem.help(help));
            }
            word
        });
        let named = Named { node, called: called.clone(), place: place.clone(), store: text("store"), what: "guard" };
        check_named_store(&named, word.map(|word| (word.name, word.store)), &kinds, &mut problems);
        if let Some(word) = word {
            check_with(node, &called, &place, (word.arguments, word.check), &mut problems);
        }
        if let Some(with) = node.field("with") {
            check_texts_beside(&with.value, source, &called, &ids, &mut problems);
        }
        check_terms(node, &called, &mut problems);
    }
    problems
}

/// A look now and then, in some stage.
fn check_terms(node: &Node, called: &str, problems: &mut Vec<Problem>) {
    if let Some((every, value)) = node.field_text("every")
        && every.parse::<HumanDuration>().is_ok_and(|every| every.0.as_millis() < 100)
    {
        let message = format!("{called} would be looked at every `{every}`");
        problems.push(Problem::new(Mistake::InvalidValue, value.span.clone(), message, "expected `100ms` or more"));
    }
    if let Some(stages) = node.field("stages")
        && matches!(&stages.value.value, Value::Sequence(items) if items.is_empty())
    {
        let problem = Problem::new(
            Mistake::NothingToDo,
            stages.key_span.clone(),
            format!("{called} is watched in no stage"),
            "expected at least one stage",
        );
        problems.push(problem.help("leave `stages` out to have it watched in all of them"));
    }
}
