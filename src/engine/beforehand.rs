//! What would be refused anyway is refused before a running driver is asked for its run.
//!
//! Whoever takes a run over ends what its driver does: following the source, or carrying back what clients write on the target. A command
//! that is refused a moment later must not do that: nobody would follow from then on. So where another driver has the run, everything that the
//! journal, the playbook and the command alone can tell is asked first. The driver that enters asks the same once more, by the same functions,
//! and then what only servers can tell.

use jiff::Timestamp;

use super::certificate::{self, Today};
use super::context::RunKind;
use super::drift::PlaybookFingerprint;
use super::graph::Graph;
use super::journal::{Phase, RunState};
use super::outcome::Verdict;
use super::run::{EngineError, Rehearsed, RunRequest};
use super::step::Undoable;
use super::way_back::rolled_back_already;
use crate::playbook::model::StageName;

/// What a refusal left as it was.
const UNTOUCHED: &str = "nothing was touched";

/// Why a run is not taken over from its driver, if so.
///
/// # Errors
/// The refusal.
pub(super) fn refuse(request: &RunRequest, graph: &Graph, fingerprint: &PlaybookFingerprint, state: &RunState) -> Result<(), EngineError> {
    if request.new_run {
        return Ok(());
    }
    state.fingerprint.check(fingerprint, &state.run, &state.begun(), request.accept_drift)?;
    // One that is to be settled first may look otherwise then.
    if state.undo.as_ref().is_some_and(|undo| !undo.finished) {
        return Ok(());
    }
    let refused = if request.give_up {
        no_undo(graph, state)
    } else if request.roll_back {
        no_rollback(graph, state, UNTOUCHED).or_else(|| no_time(request)).map(|(reason, hint)| refusal(vec![reason], hint))
    } else {
        behind_the_switch(request, state).or_else(|| no_certificate(request, graph, fingerprint, state))
    };
    match refused {
        Some(verdict) => Err(EngineError::Beforehand { verdict: Box::new(verdict) }),
        None => Ok(()),
    }
}

fn refusal(reasons: Vec<String>, hint: String) -> Verdict {
    Verdict::Refused { step: None, reasons, hint: Some(hint) }
}

/// Why a run can't be given up, if so.
pub(super) fn no_undo(graph: &Graph, state: &RunState) -> Option<Verdict> {
    if state.kind != RunKind::Production || !state.switched() {
        return None;
    }
    let reason = "the clients were switched to the target, and what they have written there since would be lost; nothing was undone";
    let hint = match no_rollback(graph, state, UNTOUCHED) {
        None => {
            "`dbmove rollback PLAYBOOK` takes clients back to the source, with all that; `dbmove cutover PLAYBOOK` drives the run forward"
        }
        Some(_) => "the run can only be driven forward: `dbmove cutover PLAYBOOK`",
    };
    Some(refusal(vec![reason.to_owned()], hint.to_owned()))
}

/// Why a command that ends before the cutover has nothing to do with a run behind it, if so: nobody follows the source any more.
pub(super) fn behind_the_switch(request: &RunRequest, state: &RunState) -> Option<Verdict> {
    let behind = request.kind == RunKind::Production && request.until < StageName::Cutover && state.switched() && !state.rolled_back();
    behind.then(|| {
        let reason = "clients are on the target, and what comes before the cutover is over: the source is not followed any more, and nothing was compared";
        let hint = "`dbmove cutover PLAYBOOK` goes on with the run; it compares what is carried back, where the playbook has `mysql.reverse`";
        refusal(vec![format!("{reason}; nothing was touched")], hint.to_owned())
    })
}

/// True while the cutover of a run still lies ahead and is asked for.
pub(super) fn cutover_ahead(request: &RunRequest, graph: &Graph, state: &RunState) -> bool {
    request.until >= StageName::Cutover
        && !graph.stage(StageName::Cutover).is_empty()
        && !state.switched()
        && !state.stage_done(StageName::Cutover)
}

/// Why a cutover would find no certificate, as far as is known without asking a server.
fn no_certificate(request: &RunRequest, graph: &Graph, fingerprint: &PlaybookFingerprint, state: &RunState) -> Option<Verdict> {
    if request.kind == RunKind::Rehearsal || !cutover_ahead(request, graph, state) {
        return None;
    }
    let reasons = match &request.rehearsed {
        Rehearsed::Without { .. } => Vec::new(),
        Rehearsed::Certificate(None) => vec![certificate::none_of(&request.playbook.playbook)],
        Rehearsed::Certificate(Some(certificate)) => {
            let today = Today {
                fingerprint: fingerprint.clone(),
                facts: certificate::facts_of(&state.outputs()),
                max_write_gap: Some(request.max_write_gap_in(&state.control)),
            };
            certificate::check(certificate, &today, Timestamp::now()).iter().map(ToString::to_string).collect()
        }
    };
    (!reasons.is_empty()).then(|| refusal(reasons, certificate::what_to_do(UNTOUCHED)))
}

/// Why there is no rollback of a run, and what to do; `left` says what was left as it was.
pub(super) fn no_rollback(graph: &Graph, state: &RunState, left: &str) -> Option<(String, String)> {
    if state.rolled_back() {
        return Some(rolled_back_already());
    }
    if !state.switched() {
        let reason = format!("the clients were not switched, so there is nothing to roll back; {left}");
        return Some((reason, "`dbmove undo PLAYBOOK` gives the run up: the source serves before and after".to_owned()));
    }
    let steps: Vec<usize> = (0..graph.steps.len()).filter(|index| graph.steps[*index].step.keeps_way_back()).collect();
    let forward = "the run can only be driven forward: `dbmove cutover PLAYBOOK`".to_owned();
    if steps.is_empty() {
        return Some(("the playbook has no `mysql.reverse`: nothing carried back what was written on the target".to_owned(), forward));
    }
    let closed = steps.iter().find(|index| matches!(state.step(graph.id(**index)).phase, Phase::Done | Phase::NotBegun));
    if let Some(&closed) = closed {
        let reason = format!("`{}` has closed the way back; what was written on the target since is only there", graph.id(closed));
        return Some((reason, forward));
    }
    let point = graph.point_of_no_return?;
    match graph.steps[point].step.undoable() {
        Undoable::No(why) => {
            let reason = format!("the route can't be put back by `{}`: {why}; nothing was touched", graph.id(point));
            Some((reason, "give the step an `undo`, or point clients by hand and run the cutover's smoke test".to_owned()))
        }
        Undoable::Yes | Undoable::Nothing => None,
    }
}

/// Why a rollback would not be over by its deadline, as far as the rehearsal tells, and what to do.
pub(super) fn no_time(request: &RunRequest) -> Option<(String, String)> {
    let until = request.deadline.as_ref()?.until;
    let Rehearsed::Certificate(Some(certificate)) = &request.rehearsed else { return None };
    let rehearsed = certificate.rollback_seconds?;
    let needed = rehearsed * request.margin;
    let left = until.duration_since(Timestamp::now()).as_secs_f64();
    (needed > left).then(|| {
        let reason = format!(
            "a rollback took {rehearsed:.0} s in the rehearsal, so {needed:.0} s are needed, and {left:.0} s are left; nothing was touched, clients stay on \
             the target"
        );
        let hint = "give it a later `--deadline`, or none; what clients write is carried back as long as `dbmove cutover PLAYBOOK` runs";
        (reason, hint.to_owned())
    })
}
