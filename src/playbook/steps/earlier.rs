//! Each step against those before it: `needs`, what must come first, whose output it may use.
//!
//! "Earlier" is judged by [`order`]: a step of an earlier stage, or one of the same stage
//! that is surely done (or, for a service, ready) when the step starts.

use std::collections::BTreeSet;

use super::StepView;
use crate::playbook::model::StageName;
use crate::playbook::nearest::nearest;
use crate::playbook::order::{self, Ordered};
use crate::playbook::problem::{Mistake, Problem};
use crate::playbook::reference::{Piece, Reference};
use crate::playbook::shape;
use crate::playbook::stores::check_references;
use crate::playbook::vocabulary::StepWord;
use crate::playbook::yaml::{Node, Value};

/// For each step, the ids that are surely done or ready when it starts. Checks `needs` on the way.
pub(super) fn earlier<'a>(steps: &[StepView<'a>], problems: &mut Vec<Problem>) -> Vec<BTreeSet<&'a str>> {
    let mut result = Vec::with_capacity(steps.len());
    let mut stages_before: BTreeSet<&str> = BTreeSet::new();
    for stage in StageName::ALL {
        let here: Vec<&StepView<'a>> = steps.iter().filter(|step| step.stage == stage).collect();
        let ids: Vec<&str> = here.iter().filter_map(|step| step.id.as_ref().map(|(id, _)| *id)).collect();
        for step in &here {
            check_needs(step, &ids, steps, problems);
        }
        let ordered: Vec<Ordered<'a>> = here
            .iter()
            .map(|step| Ordered {
                // A step without an id is followed by place only; no name has a blank.
                id: step.id.as_ref().map_or(" ", |(id, _)| id),
                needs: step.node.field("needs").map(|needs| needs.value.items().iter().filter_map(Node::text).collect()),
            })
            .collect();
        let followed = order::followed(&ordered);
        if let Some(circle) = order::cycle(&ordered, &followed) {
            let step = here.iter().find(|step| step.id.as_ref().is_some_and(|(id, _)| *id == circle[0]));
            if let Some(step) = step {
                let span = step.node.field("needs").map_or_else(|| step.place(), |needs| needs.key_span.clone());
                let names: Vec<String> = circle.iter().map(|id| format!("`{id}`")).collect();
                let message = format!("steps of `{}` wait for each other: {}", stage.as_str(), names.join(" after "));
                let problem = Problem::new(Mistake::NeedsCycle, span, message, "closes a circle");
                problems.push(problem.help("a step without `needs` follows the one written above it; remove one of these dependencies"));
            }
        }
        for step in &here {
            let mut before = stages_before.clone();
            if let Some((id, _)) = &step.id {
                before.extend(order::before(&followed, id));
                before.remove(id);
            }
            result.push(before);
        }
        stages_before.extend(ids);
    }
    result
}

fn check_needs(step: &StepView<'_>, here: &[&str], steps: &[StepView<'_>], problems: &mut Vec<Problem>) {
    for need in step.node.field("needs").map_or(&[][..], |entry| entry.value.items()) {
        let Some(text) = need.text() else { continue };
        if here.contains(&text) {
            continue;
        }
        let elsewhere = steps.iter().find(|other| other.id.as_ref().is_some_and(|(id, _)| *id == text));
        let (message, help) = match elsewhere {
            Some(other) if other.stage < step.stage => (
                format!("{} needs `{text}`, which is a step of `{}`", step.name(), other.stage.as_str()),
                "stages run in order, so it is done by then anyway; remove it from `needs`".to_owned(),
            ),
            Some(other) => (
                format!("{} needs `{text}`, which is a step of the later stage `{}`", step.name(), other.stage.as_str()),
                "`needs` names steps of the same stage; move one of the two".to_owned(),
            ),
            None => {
                let valid: Vec<String> =
                    here.iter().filter(|id| step.id.as_ref().is_none_or(|(own, _)| own != *id)).map(|&id| id.to_owned()).collect();
                let help = match nearest(text, valid.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if valid.is_empty() => "the stage has no other step; remove it from `needs`".to_owned(),
                    None => shape::list("steps of this stage: ", &valid),
                };
                (format!("{} needs `{text}`, and there is no such step", step.name()), help)
            }
        };
        problems.push(Problem::new(Mistake::UnknownNeed, need.span.clone(), message, "expected a step of this stage").help(help));
    }
}

/// Whether the steps that have to come first do.
pub(super) fn check_predecessors(
    step: &StepView<'_>,
    word: &StepWord,
    steps: &[StepView<'_>],
    earlier: &BTreeSet<&str>,
    problems: &mut Vec<Problem>,
) {
    for &required in word.requires_before {
        let same = |other: &&StepView<'_>| {
            other.run.as_ref().is_some_and(|(run, _)| *run == required)
                && other.store.as_ref().map(|(name, _)| name) == step.store.as_ref().map(|(name, _)| name)
        };
        let is_earlier = |other: &StepView<'_>| other.id.as_ref().is_some_and(|(id, _)| earlier.contains(id));
        if steps.iter().filter(same).any(is_earlier) {
            continue;
        }
        let for_store = step.store.as_ref().map(|(name, _)| format!(" for store `{name}`")).unwrap_or_default();
        let help = match steps.iter().find(same) {
            Some(other) if other.stage == step.stage => {
                format!("{} is in the same stage, but not surely done or ready before it; move it up, or name it in `needs`", other.name())
            }
            Some(other) => format!("{} comes later, in `{}`; it must come first", other.name(), other.stage.as_str()),
            None => format!("add a step with `run: {required}`{for_store} before it"),
        };
        let message = format!("{} runs `{}`, which must come after `{required}`{for_store}", step.name(), word.name);
        problems
            .push(Problem::new(Mistake::MissingPredecessor, step.place(), message, format!("expected `{required}` before it")).help(help));
    }
}

/// References in the texts of `with`.
pub(super) fn check_texts(
    node: &Node,
    source: &str,
    step: &StepView<'_>,
    steps: &[StepView<'_>],
    earlier: &BTreeSet<&str>,
    problems: &mut Vec<Problem>,
) {
    match &node.value {
        Value::Text(text) => {
            for piece in check_references(text, node, source, problems).unwrap_or_default() {
                if let Piece::Reference(Reference::StepOutput { step: id, .. }) = piece
                    && !earlier.contains(id.as_str())
                {
                    problems.push(unreachable_step(&id, node, &step.name(), steps, earlier));
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| check_texts(item, source, step, steps, earlier, problems)),
        Value::Mapping(entries) => entries.iter().for_each(|entry| check_texts(&entry.value, source, step, steps, earlier, problems)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn unreachable_step(id: &str, node: &Node, user: &str, steps: &[StepView<'_>], earlier: &BTreeSet<&str>) -> Problem {
    if !steps.iter().any(|step| step.id.as_ref().is_some_and(|(known, _)| *known == id)) {
        return no_such_step(id, node, user, "steps before it: ", earlier);
    }
    let message = format!("{user} refers to step `{id}`, which is not done before it");
    Problem::new(Mistake::UnreachableStep, node.span.clone(), message, "expected an earlier step")
        .help("refer to a step of an earlier stage, or one that comes before it in the same stage")
}

fn no_such_step(id: &str, node: &Node, user: &str, list: &str, known: &BTreeSet<&str>) -> Problem {
    let help = match nearest(id, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "no step comes before it".to_owned(),
        None => shape::list(list, &known.iter().map(|&id| id.to_owned()).collect::<Vec<_>>()),
    };
    let message = format!("{user} refers to step `{id}`, and there is no such step");
    Problem::new(Mistake::UnreachableStep, node.span.clone(), message, "expected an earlier step").help(help)
}

/// References in the texts of what is no step, and goes on beside all of them: each has to be readable, and name a step there is.
pub(crate) fn check_texts_beside(node: &Node, source: &str, user: &str, ids: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
    match &node.value {
        Value::Text(text) => {
            for piece in check_references(text, node, source, problems).unwrap_or_default() {
                if let Piece::Reference(Reference::StepOutput { step: id, .. }) = piece
                    && !ids.contains(id.as_str())
                {
                    problems.push(no_such_step(&id, node, user, "steps: ", ids));
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| check_texts_beside(item, source, user, ids, problems)),
        Value::Mapping(entries) => entries.iter().for_each(|entry| check_texts_beside(&entry.value, source, user, ids, problems)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The urls of all endpoints, with the name of their store.
pub(super) fn endpoint_urls(tree: &Node) -> Vec<(&str, &Node)> {
    let mut urls = Vec::new();
    for store in tree.field("stores").map_or(&[][..], |entry| entry.value.entries()) {
        for side in ["source", "target"] {
            let pair = store.value.field("rehearsal").and_then(|pair| pair.value.field(side));
            for endpoint in store.value.field(side).into_iter().chain(pair) {
                if endpoint.value.field_text("url").is_some() {
                    urls.push((store.key.as_str(), &endpoint.value));
                }
            }
        }
    }
    urls
}

/// An endpoint's url may name what a step provides; that step must come before every step of the store.
pub(super) fn check_endpoint_steps(
    store: &str,
    endpoint: &Node,
    source: &str,
    steps: &[StepView<'_>],
    earlier: &[BTreeSet<&str>],
    problems: &mut Vec<Problem>,
) {
    let Some((url, node)) = endpoint.field_text("url") else { return };
    // Broken references are reported with the store.
    for piece in check_references(url, node, source, &mut Vec::new()).unwrap_or_default() {
        let Piece::Reference(Reference::StepOutput { step: id, .. }) = piece else { continue };
        let all: BTreeSet<&str> = steps.iter().filter_map(|step| step.id.as_ref().map(|(id, _)| *id)).collect();
        let users = steps.iter().zip(earlier).filter(|(step, _)| step.store.as_ref().is_some_and(|(name, _)| *name == store));
        let before = users.fold(all, |before, (_, earlier)| before.intersection(earlier).copied().collect());
        if !before.contains(id.as_str()) {
            problems.push(unreachable_step(&id, node, &format!("store `{store}`"), steps, &before));
        }
    }
}
