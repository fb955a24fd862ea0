//! Each step by itself: whether there is such a step, and whether stage, store and arguments fit it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::StepView;
use crate::playbook::model::{DEFAULT_MAX_WRITE_GAP, StoreKind};
use crate::playbook::nearest::nearest;
use crate::playbook::problem::{Mistake, Problem};
use crate::playbook::quantity::HumanDuration;
use crate::playbook::shape;
use crate::playbook::vocabulary::{AS_LONG_AS_MAX_WRITE_GAP, ArgumentError, LONGER_THAN_MAX_WRITE_GAP, StepWord, find};
use crate::playbook::yaml::{Node, Value};

/// Whether there is such a step, and in this stage.
pub(super) fn check_word<'v>(step: &StepView<'_>, vocabulary: &'v [StepWord], problems: &mut Vec<Problem>) -> Option<&'v StepWord> {
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

/// Whether it names a store if it works on one, and one of its kind.
pub(super) fn check_store(
    step: &StepView<'_>,
    word: Option<&StepWord>,
    kinds: &BTreeMap<&str, Option<StoreKind>>,
    problems: &mut Vec<Problem>,
) {
    let word = word.map(|word| (word.name, word.store));
    let named = Named { node: step.node, called: step.name(), place: step.place(), store: step.store.clone(), what: "step" };
    check_named_store(&named, word, kinds, problems);
}

/// Something that may name a store.
pub(crate) struct Named<'a> {
    pub node: &'a Node,
    pub called: String,
    pub place: Range<usize>,
    pub store: Option<(&'a str, Range<usize>)>,
    /// `step` or `guard`.
    pub what: &'a str,
}

/// The same for whatever may name a store; `word` is its name and the kind of store it wants.
pub(crate) fn check_named_store(
    named: &Named<'_>,
    word: Option<(&str, Option<StoreKind>)>,
    kinds: &BTreeMap<&str, Option<StoreKind>>,
    problems: &mut Vec<Problem>,
) {
    let names: Vec<String> = kinds.keys().map(|&name| name.to_owned()).collect();
    let wanted = word.and_then(|(_, wanted)| wanted);
    let Some((store, span)) = &named.store else {
        if let (Some((word, _)), Some(_)) = (word, wanted)
            && named.node.field("store").is_none()
        {
            let message = format!("{} lacks a store: `{word}` works on one", named.called);
            let help =
                if names.len() == 1 { format!("add `store: {}`", names[0]) } else { shape::list("add `store:` with one of ", &names) };
            problems.push(Problem::new(Mistake::MissingStore, named.place.clone(), message, "`store` is missing here").help(help));
        }
        return;
    };
    if let (Some((word, _)), None) = (word, wanted) {
        let problem = Problem::new(Mistake::WrongStore, span.clone(), format!("`{word}` works on no store"), "expected no `store`");
        problems.push(problem.help(format!("remove `store` from this {}", named.what)));
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
            let message = format!("{} names the store `{store}`, and there is no such store", named.called);
            problems.push(Problem::new(Mistake::UnknownStore, span.clone(), message, "expected a store of this playbook").help(help));
        }
        Some(Some(kind)) => {
            if let (Some((word, _)), Some(wanted)) = (word, wanted)
                && wanted != *kind
            {
                let message = format!("`{word}` can't work on store `{store}`, which is of another kind");
                problems.push(Problem::new(
                    Mistake::WrongStore,
                    span.clone(),
                    message,
                    format!("expected a store of the {}'s kind", named.what),
                ));
            }
        }
        Some(None) => {}
    }
}

/// Whether `with` is what the step understands.
pub(super) fn check_arguments(step: &StepView<'_>, word: &StepWord, playbook: &Node, problems: &mut Vec<Problem>) {
    check_with(step.node, &step.name(), &step.place(), (word.arguments, word.check), problems);
    check_longer_than_gap(step, word, playbook, problems);
}

/// Whether durations that have to be longer than `max_write_gap`, or as long, are. `--max-write-gap` may change that later, and then it is said again.
fn check_longer_than_gap(step: &StepView<'_>, word: &StepWord, playbook: &Node, problems: &mut Vec<Problem>) {
    let duration = |text: &str| text.parse::<HumanDuration>().ok();
    let written = playbook.field_text("max_write_gap");
    let gap = match written {
        // What is no duration is said by the shape.
        Some((text, _)) => duration(text),
        None => Some(HumanDuration(DEFAULT_MAX_WRITE_GAP)),
    };
    let (Some(gap), Some(with)) = (gap, step.node.field("with")) else { return };
    let schema = (word.arguments)();
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let longer = property.get(LONGER_THAN_MAX_WRITE_GAP).is_some();
        if !longer && property.get(AS_LONG_AS_MAX_WRITE_GAP).is_none() {
            continue;
        }
        let Some((text, node)) = with.value.field_text(name) else { continue };
        if duration(text).is_none_or(|asked| asked > gap || (asked == gap && !longer)) {
            continue;
        }
        let (wanted, expected) = if longer { ("longer than", "more than") } else { ("at least as long as", "at least") };
        let by_default = if written.is_none() { " where nothing else is written" } else { "" };
        let message = format!("{}: `{name}` has to be {wanted} `max_write_gap`, which is {gap}{by_default}", step.name());
        let problem = Problem::new(Mistake::InvalidArgument, node.span.clone(), message, format!("expected {expected} {gap}"));
        problems.push(problem.help(format!("make `{name}` longer or `max_write_gap` shorter, or leave `{name}` out")));
    }
}

/// The schema of arguments, and what it can't say of them.
type Understood = (fn() -> schemars::Schema, fn(&serde_json::Map<String, serde_json::Value>) -> Result<(), ArgumentError>);

/// Whether the `with` of a node is what its word understands. `called` and `place` are the node's.
pub(crate) fn check_with(node: &Node, called: &str, place: &Range<usize>, (schema, check): Understood, problems: &mut Vec<Problem>) {
    let schema = schema();
    let empty = Node { span: place.clone(), value: Value::Mapping(Vec::new()) };
    let with = node.field("with");
    let node = with.map_or(&empty, |entry| &entry.value);
    if !matches!(node.value, Value::Mapping(_)) {
        return; // Not a group of fields: said by the shape.
    }
    let findings = shape::check(schema.as_value(), node, &format!("`with` of {called}"));
    if !findings.is_empty() {
        let place = with.map_or_else(|| place.clone(), |entry| entry.key_span.clone());
        problems.extend(findings.into_iter().map(|mut finding| {
            if finding.mistake == Mistake::MissingField && finding.path.is_empty() {
                finding.span = place.clone();
            }
            finding.into_problem()
        }));
        return;
    }
    let serde_json::Value::Object(map) = node.to_json() else { return };
    if let Err(error) = check(&map) {
        let found = error.field.as_deref().and_then(|field| find_field(node, field));
        let place = found.unwrap_or_else(|| with.map_or_else(|| place.clone(), |entry| entry.key_span.clone()));
        let ArgumentError { message, valid, .. } = error;
        let problem = Problem::new(Mistake::InvalidArgument, place, format!("{called}: {message}"), "this argument");
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
