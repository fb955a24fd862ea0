//! Checks what the shape of the stages can't say: ids, words, stores, arguments, order.
//!
//! | file | what it checks |
//! | --- | --- |
//! | this one | the playbook as a whole: that it has steps, their ids, the point of no return |
//! | `word` | each step by itself: whether there is such a step, its stage, store and arguments |
//! | `earlier` | each step against those before it: `needs`, what must come first, whose output it may use |

pub(super) mod earlier;
pub(super) mod word;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::model::{StageName, StoreKind};
use super::nearest::nearest;
use super::problem::{Mistake, Problem};
use super::reference::is_name;
use super::stores::bad_name;
use super::vocabulary::{MovesClients, StepWord, find};
use super::yaml::{Entry, Node, Value};

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
    let earlier = earlier::earlier(&steps, &mut problems);
    check_point_of_no_return(&steps, vocabulary, &mut problems);
    for (index, step) in steps.iter().enumerate() {
        let word = word::check_word(step, vocabulary, &mut problems);
        word::check_store(step, word, &kinds, &mut problems);
        if let Some(word) = word {
            word::check_arguments(step, word, tree, &mut problems);
            earlier::check_predecessors(step, word, &steps, &earlier[index], &mut problems);
        }
        if let Some(with) = step.node.field("with") {
            earlier::check_texts(&with.value, source, step, &steps, &earlier[index], &mut problems);
        }
    }
    for (text, node) in earlier::endpoint_urls(tree) {
        earlier::check_endpoint_steps(text, node, source, &steps, &earlier, &mut problems);
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

/// The ids of all steps.
pub(super) fn step_ids(tree: &Node) -> BTreeSet<&str> {
    views(tree).into_iter().filter_map(|step| step.id.map(|(id, _)| id)).collect()
}

/// The stores by name; the kind is missing where it could not be read.
pub(super) fn store_kinds(tree: &Node) -> BTreeMap<&str, Option<StoreKind>> {
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

/// Whether something can tell, or put back, what a command of the operator's own has done.
fn can_be_settled(step: &StepView<'_>) -> bool {
    let has =
        |name: &str| step.node.field("with").and_then(|with| with.value.field(name)).is_some_and(|entry| !entry.value.items().is_empty());
    has("probe") || has("undo")
}

/// Whether something in the step was meant to mark it.
fn tries_to_mark(step: &StepView<'_>) -> bool {
    let meant = |entry: &Entry| nearest(&entry.key, ["point_of_no_return"]).is_some() && !matches!(entry.value.value, Value::Bool(false));
    step.node.entries().iter().any(meant)
}

/// One step of `cutover` may be marked, and where a step moves clients it has to be the first that does: marked later or not at all, a failure
/// in between would be undone and what clients wrote on the target lost; marked earlier, it could not be undone though nobody was moved yet.
/// What a command of the operator's own does is not known: a `hook.exec` before that step may be marked, and the only mark may stand anywhere.
fn check_point_of_no_return(steps: &[StepView<'_>], vocabulary: &[StepWord], problems: &mut Vec<Problem>) {
    let mut marked: Option<(usize, Range<usize>)> = None;
    for (index, step) in steps.iter().enumerate() {
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
            return;
        }
        if let Some((first, _)) = &marked {
            let message = format!("{} is a second point of no return after {}", step.name(), steps[*first].name());
            report(message, "expected once", "mark only the first step after which going back means more than undo");
            return;
        }
        marked = Some((index, entry.key_span.clone()));
    }
    let moves = |step: &StepView<'_>| {
        let word = step.run.as_ref().and_then(|(run, _)| find(vocabulary, run));
        word.filter(|_| step.stage == StageName::Cutover).map_or(MovesClients::Never, |word| word.moves_clients)
    };
    if let Some((index, place)) = &marked
        && moves(&steps[*index]) == MovesClients::Perhaps
        && !can_be_settled(&steps[*index])
    {
        let message =
            format!("{} is the point of no return, and after a crash in it nothing could tell where clients are", steps[*index].name());
        let problem = Problem::new(Mistake::PointOfNoReturn, place.clone(), message, "expected a step that can be looked at or undone");
        problems.push(problem.help("write a `probe` that says whether clients were moved, or an `undo` that moves them back"));
    }
    let Some(moving) = steps.iter().position(|step| moves(step) == MovesClients::Always) else { return };
    let name = steps[moving].name();
    let (place, message, label) = match marked {
        // What is misspelt or no `true` is said by the shape.
        None if steps.iter().any(tries_to_mark) => return,
        None => (
            steps[moving].place(),
            format!("from {name} on clients reach the target, and no step is marked as the point of no return"),
            "expected `point_of_no_return: true` here",
        ),
        Some((marked, place)) if marked > moving => (
            place,
            format!("{} is marked as the point of no return, but clients reach the target from {name} on", steps[marked].name()),
            "expected at an earlier step",
        ),
        Some((marked, place)) if marked < moving && moves(&steps[marked]) == MovesClients::Never => (
            place,
            format!("{} is marked as the point of no return, but nobody reaches the target before {name}", steps[marked].name()),
            "expected at a later step",
        ),
        Some(_) => return,
    };
    let help = format!(
        "write `point_of_no_return: true` at {name} and nowhere else: what fails before it is undone, and what clients write on the target behind it is kept"
    );
    problems.push(Problem::new(Mistake::PointOfNoReturn, place, message, label).help(help));
}
