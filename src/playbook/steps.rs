//! Checks what the shape of the stages can't say: ids, words, stores, arguments, order.
//!
//! "Earlier" is judged by [`super::order`]: a step of an earlier stage, or one of the same stage
//! that is surely done (or, for a service, ready) when the step starts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::model::{StageName, StoreKind};
use super::nearest::nearest;
use super::order::{self, Ordered};
use super::problem::{Mistake, Problem};
use super::reference::{Piece, Reference, is_name};
use super::shape;
use super::stores::{bad_name, check_references};
use super::vocabulary::{ArgumentError, StepWord, find};
use super::yaml::{Node, Value};

/// How many steps a playbook may have: order is checked for each pair.
const MOST_STEPS: usize = 500;

/// A step as far as it could be read: other mistakes in it don't hide these.
struct StepView<'a> {
    stage: StageName,
    node: &'a Node,
    id: Option<(&'a str, Range<usize>)>,
    run: Option<(&'a str, Range<usize>)>,
    store: Option<(&'a str, Range<usize>)>,
}

impl StepView<'_> {
    /// What the step is called in messages.
    fn name(&self) -> String {
        self.id.as_ref().map_or_else(|| format!("a step of `{}`", self.stage.as_str()), |(id, _)| format!("step `{id}`"))
    }
    /// Where to point for the step as a whole.
    fn place(&self) -> Range<usize> {
        let named = self.run.as_ref().or(self.id.as_ref());
        named.map_or_else(|| self.node.span.clone(), |(_, span)| span.clone())
    }
}

/// Every mistake in the playbook's steps.
pub(crate) fn check(tree: &Node, source: &str, vocabulary: &[StepWord]) -> Vec<Problem> {
    let steps = views(tree);
    let mut problems = Vec::new();
    if steps.is_empty()
        && let Some(stages) = tree.field("stages")
        && matches!(stages.value.value, Value::Mapping(_))
    {
        let problem = Problem::new(Mistake::NothingToDo, stages.key_span.clone(), "the playbook has no step", "expected at least one step");
        problems.push(problem.help("`dbmove playbook show mysql-to-mysql` shows a whole one"));
    }
    if let Some(beyond) = steps.get(MOST_STEPS) {
        let message = format!("the playbook has {} steps", steps.len());
        problems.push(Problem::new(Mistake::InvalidValue, beyond.place(), message, format!("expected at most {MOST_STEPS} steps")));
        return problems;
    }
    let kinds = store_kinds(tree);
    check_ids(&steps, &mut problems);
    let earlier = earlier(&steps, &mut problems);
    check_point_of_no_return(&steps, &mut problems);
    for (index, step) in steps.iter().enumerate() {
        let word = check_word(step, vocabulary, &mut problems);
        check_store(step, word, &kinds, &mut problems);
        if let Some(word) = word {
            check_arguments(step, word, &mut problems);
            check_predecessors(step, word, &steps, &earlier[index], &mut problems);
        }
        if let Some(with) = step.node.field("with") {
            check_texts(&with.value, source, step, &steps, &earlier[index], &mut problems);
        }
    }
    for (text, node) in endpoint_urls(tree) {
        check_endpoint_steps(text, node, source, &steps, &earlier, &mut problems);
    }
    problems
}

fn views(tree: &Node) -> Vec<StepView<'_>> {
    let mut views = Vec::new();
    let Some(stages) = tree.field("stages") else { return views };
    for stage in StageName::ALL {
        for node in stages.value.field(stage.as_str()).map_or(&[][..], |entry| entry.value.items()) {
            let text = |name: &str| node.field_text(name).map(|(text, value)| (text, value.span.clone()));
            views.push(StepView { stage, node, id: text("id"), run: text("run"), store: text("store") });
        }
    }
    views
}

/// The stores by name; the kind is missing where it could not be read.
fn store_kinds(tree: &Node) -> BTreeMap<&str, Option<StoreKind>> {
    let stores = tree.field("stores").map_or(&[][..], |entry| entry.value.entries());
    stores
        .iter()
        .map(|store| {
            let kind = store.value.field("kind").and_then(|kind| serde_json::from_value(kind.value.to_json()).ok());
            (store.key.as_str(), kind)
        })
        .collect()
}

fn check_ids(steps: &[StepView<'_>], problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<&str, StageName> = BTreeMap::new();
    for step in steps {
        let Some((id, span)) = &step.id else { continue };
        if !is_name(id) {
            problems.push(bad_name("step", id, span.clone()));
        } else if let Some(first) = seen.get(id) {
            let message = format!("step `{id}` is there twice; the first one is in `{}`", first.as_str());
            let problem = Problem::new(Mistake::DuplicateStep, span.clone(), message, "expected an id of its own");
            problems.push(problem.help("every step has its own id in the whole playbook; journal and report go by it"));
        } else {
            seen.insert(id, step.stage);
        }
    }
}

/// For each step, the ids that are surely done or ready when it starts. Checks `needs` on the way.
fn earlier<'a>(steps: &[StepView<'a>], problems: &mut Vec<Problem>) -> Vec<BTreeSet<&'a str>> {
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

fn check_point_of_no_return(steps: &[StepView<'_>], problems: &mut Vec<Problem>) {
    let mut first: Option<String> = None;
    for step in steps {
        let Some(entry) = step.node.field("point_of_no_return").filter(|entry| matches!(entry.value.value, Value::Bool(true))) else {
            continue;
        };
        let mut report = |message: String, label: &str, help: &str| {
            problems.push(Problem::new(Mistake::PointOfNoReturn, entry.key_span.clone(), message, label).help(help));
        };
        if step.stage != StageName::Cutover {
            let message = format!("{} is a point of no return in the stage `{}`", step.name(), step.stage.as_str());
            report(
                message,
                "expected in `cutover` only",
                "everything before the cutover can be undone; move the step there, or remove this line",
            );
        } else if let Some(first) = &first {
            let message = format!("{} is a second point of no return after {first}", step.name());
            report(message, "expected once", "mark only the first step after which going back means more than undo");
        } else {
            first = Some(step.name());
        }
    }
}

fn check_word<'v>(step: &StepView<'_>, vocabulary: &'v [StepWord], problems: &mut Vec<Problem>) -> Option<&'v StepWord> {
    let (run, span) = step.run.as_ref()?;
    let Some(word) = find(vocabulary, run) else {
        let names: Vec<String> = vocabulary.iter().map(|word| word.name.to_owned()).collect();
        let help = match nearest(run, vocabulary.iter().map(|word| word.name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => shape::list("steps there are: ", &names),
        };
        problems.push(
            Problem::new(Mistake::UnknownStep, span.clone(), format!("there is no step `{run}`"), "expected a step that dbmove knows")
                .help(help),
        );
        return None;
    };
    if !word.stages.contains(&step.stage) {
        let stages: Vec<String> = word.stages.iter().map(|stage| stage.as_str().to_owned()).collect();
        let message = format!("`{run}` can't stand in the stage `{}`", step.stage.as_str());
        let problem = Problem::new(Mistake::WrongStage, span.clone(), message, "not in this stage");
        problems.push(problem.help(shape::list("it may stand in ", &stages)));
    }
    Some(word)
}

fn check_store(step: &StepView<'_>, word: Option<&StepWord>, kinds: &BTreeMap<&str, Option<StoreKind>>, problems: &mut Vec<Problem>) {
    let names: Vec<String> = kinds.keys().map(|&name| name.to_owned()).collect();
    let wanted = word.and_then(|word| word.store);
    let Some((store, span)) = &step.store else {
        if let (Some(word), Some(_)) = (word, wanted)
            && step.node.field("store").is_none()
        {
            let message = format!("{} lacks a store: `{}` works on one", step.name(), word.name);
            let help =
                if names.len() == 1 { format!("add `store: {}`", names[0]) } else { shape::list("add `store:` with one of ", &names) };
            problems.push(Problem::new(Mistake::MissingStore, step.place(), message, "`store` is missing here").help(help));
        }
        return;
    };
    if let (Some(word), None) = (word, wanted) {
        let problem = Problem::new(Mistake::WrongStore, span.clone(), format!("`{}` works on no store", word.name), "expected no `store`");
        problems.push(problem.help("remove `store` from this step"));
        return;
    }
    match kinds.get(store) {
        // That there is no store at all is said once, not at every step.
        None if names.is_empty() => {}
        None => {
            let help = match nearest(store, kinds.keys().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => shape::list("stores of this playbook: ", &names),
            };
            let message = format!("{} names the store `{store}`, and there is no such store", step.name());
            problems.push(Problem::new(Mistake::UnknownStore, span.clone(), message, "expected a store of this playbook").help(help));
        }
        Some(Some(kind)) => {
            if let (Some(word), Some(wanted)) = (word, wanted)
                && wanted != *kind
            {
                let message = format!("`{}` can't work on store `{store}`, which is of another kind", word.name);
                problems.push(Problem::new(Mistake::WrongStore, span.clone(), message, "expected a store of the step's kind"));
            }
        }
        Some(None) => {}
    }
}

fn check_arguments(step: &StepView<'_>, word: &StepWord, problems: &mut Vec<Problem>) {
    let schema = (word.arguments)();
    let empty = Node { span: step.place(), value: Value::Mapping(Vec::new()) };
    let with = step.node.field("with");
    let node = with.map_or(&empty, |entry| &entry.value);
    if !matches!(node.value, Value::Mapping(_)) {
        return; // Not a group of fields: said by the shape.
    }
    let findings = shape::check(schema.as_value(), node, &format!("`with` of {}", step.name()));
    if !findings.is_empty() {
        let place = with.map_or_else(|| step.place(), |entry| entry.key_span.clone());
        problems.extend(findings.into_iter().map(|mut finding| {
            if finding.mistake == Mistake::MissingField && finding.path.is_empty() {
                finding.span = place.clone();
            }
            finding.into_problem()
        }));
        return;
    }
    let serde_json::Value::Object(map) = node.to_json() else { return };
    if let Err(error) = (word.check)(&map) {
        let place = error.field.as_deref().and_then(|field| find_field(node, field));
        let place = place.unwrap_or_else(|| with.map_or_else(|| step.place(), |entry| entry.key_span.clone()));
        let ArgumentError { message, valid, .. } = error;
        let problem = Problem::new(Mistake::InvalidArgument, place, format!("{}: {message}", step.name()), "this argument");
        problems.push(if valid.is_empty() { problem } else { problem.help(shape::list("valid here: ", &valid)) });
    }
}

/// Where the field of that dotted path stands: its value, or its name if the value has no place.
fn find_field(node: &Node, path: &str) -> Option<Range<usize>> {
    let mut at = node;
    let mut span = None;
    for name in path.split('.') {
        if let Ok(index) = name.parse::<usize>()
            && let Some(item) = at.items().get(index)
        {
            at = item;
            continue;
        }
        let entry = at.field(name)?;
        at = &entry.value;
        span = Some(if at.span.is_empty() { entry.key_span.clone() } else { at.span.clone() });
    }
    span
}

fn check_predecessors(step: &StepView<'_>, word: &StepWord, steps: &[StepView<'_>], earlier: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
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
fn check_texts(
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
    let exists = steps.iter().any(|step| step.id.as_ref().is_some_and(|(known, _)| *known == id));
    let (message, help) = if exists {
        (
            format!("{user} refers to step `{id}`, which is not done before it"),
            "refer to a step of an earlier stage, or one that comes before it in the same stage".to_owned(),
        )
    } else {
        let help = match nearest(id, earlier.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let names: Vec<String> = earlier.iter().map(|&id| id.to_owned()).collect();
                if names.is_empty() { "no step comes before it".to_owned() } else { shape::list("steps before it: ", &names) }
            }
        };
        (format!("{user} refers to step `{id}`, and there is no such step"), help)
    };
    Problem::new(Mistake::UnreachableStep, node.span.clone(), message, "expected an earlier step").help(help)
}

/// The urls of all endpoints, with the name of their store.
fn endpoint_urls(tree: &Node) -> Vec<(&str, &Node)> {
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
fn check_endpoint_steps(
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
