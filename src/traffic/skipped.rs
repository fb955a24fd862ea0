//! A route that a rehearsal leaves alone (`rehearsal: { skip: … }`), and what follows from that for whoever looks where clients are: they stay at the
//! rehearsal's source, and that is no failure. It is no success either: certificate and report name what was not rehearsed.

use crate::engine::certificate::fact;
use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::Output;
use crate::hook::message::printable;

/// The output fact that tells a route that was left out from another step that was.
const ROUTE: &str = "route_left_out";

/// What a route leaves behind that was left out.
pub(super) fn left_out(reason: &str) -> Output {
    Output::default().fact(fact::SKIPPED, printable(reason)).fact(ROUTE, true)
}

/// The routes that were left out of this rehearsal, for a person; none in production.
pub(super) fn routes_left_out(context: &StepContext) -> Option<String> {
    let left_out = context.outputs.iter().filter(|(_, facts)| facts.get(ROUTE).is_some_and(|left_out| *left_out == true));
    let steps: Vec<String> = left_out.map(|(step, _)| format!("`{step}`")).collect();
    (context.kind == RunKind::Rehearsal && !steps.is_empty()).then(|| steps.join(", "))
}
