//! Places where a test may pull the plug.
//!
//! Guarantees about crashes are only worth what a real `kill -9` at the worst moment shows. Around every
//! effect the code calls [`point`] with a name from [`POINTS`]; if the environment variable
//! `DBMOVE_CRASH_AT` names it (`name`, or `name#3` for the third passing), the process kills itself with
//! SIGKILL right there: no destructor, no flush, no goodbye. Without the variable a point costs one load.
//!
//! The list is the contract: a test reads the sources and fails if a point is called that is not listed, or
//! listed and never called; another kills a run at each one of the engine's.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that arms one point.
pub const VARIABLE: &str = "DBMOVE_CRASH_AT";

/// Every point there is. Stores add theirs here, in a group of their own.
pub const POINTS: &[&str] = &[
    "run.started",
    "lease.taken",
    "lease.claimed",
    "stage.started",
    "stage.steps_done",
    "stage.done",
    "step.before_intent",
    "step.intent_written",
    "step.effect_done",
    "step.outcome_written",
    "service.ready",
    "service.ready_written",
    "write_gap.started",
    "point_of_no_return.effect_done",
    "point_of_no_return.outcome_written",
    "point_of_no_return.passed",
    "hook.begun",
    "hook.ended",
    "undo.started",
    "undo.intent_written",
    "undo.effect_done",
    "undo.outcome_written",
    "undo.finished",
    "resume.probed",
    "resume.settled",
    "resume.finished",
    "journal.before_commit",
    "journal.committed",
    "follow.begun",
    "rollback.write_gap_started",
    "rollback.clients_held",
    "certificate.issued",
    "run.before_finished",
    "run.finished",
    // MySQL stores.
    "prepare.table.noted",
    "try.database.noted",
    "try.table.made",
    "try.object.made",
    "fill.database_noted",
    "fill.databases_made",
    "fill.table_made",
    "fill.rows_committed",
    "fill.table_whole",
    "fill.noted",
    "fill.database_dropped",
    "copy.chunk.before_commit",
    "copy.chunk.committed",
    "copy.keyless.before_commit",
    "copy.keyless.committed",
    "apply.batch.before",
    "apply.intent.saved",
    "apply.lanes.committed",
    "apply.cascade.committed",
    "apply.batch.after",
    "truncate.intent_saved",
    "truncate.emptied",
    "truncate.committed",
    "definitions.noted",
    "definitions.dropped",
    "definitions.made",
    "definitions.saved",
    "fence.noted",
    "fence.raised",
    "fence.disarming",
    "fence.disarmed",
    "reverse.position_saved",
    "reverse.triggers_noted",
    "reverse.prepared",
    "reverse.triggers_back",
    "retire.ended",
    "rollback.noted",
    "rollback.held",
    "rollback.taken_back",
    "rollback.disarming",
    "rollback.disarmed",
    "objects.noted",
    "objects.created",
    "objects.event_enabled",
    "accounts.noted",
    "accounts.created",
    "accounts.granted",
    // Clients held at the proxy.
    "hold.full",
    "hold.held",
    "switch.pointed",
    "switch.let_through",
    "release.begins",
    // Clients pointed by a call or a command.
    "call.noted",
    "call.made",
    "call.taken_back",
    // Clients pointed by DNS.
    "dns.ttl_changed",
    "dns.waiting",
    "dns.changed",
    "dns.switched",
    "dns.changed_back",
];

struct Armed {
    name: String,
    passing: u64,
    passed: AtomicU64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

fn parse(text: &str) -> Option<(String, u64)> {
    match text.split_once('#') {
        None => Some((text.to_owned(), 1)),
        Some((name, number)) => number.parse().ok().filter(|number| *number > 0).map(|number| (name.to_owned(), number)),
    }
}

fn armed() -> Option<&'static Armed> {
    ARMED
        .get_or_init(|| {
            let text = std::env::var(VARIABLE).ok()?;
            let (name, passing) = parse(&text)?;
            Some(Armed { name, passing, passed: AtomicU64::new(0) })
        })
        .as_ref()
}

/// Dies here if this point is armed and passed for the armed number of times.
pub fn point(name: &str) {
    let Some(armed) = armed() else { return };
    if armed.name != name {
        return;
    }
    if armed.passed.fetch_add(1, Ordering::SeqCst) + 1 == armed.passing {
        let me = rustix::process::getpid();
        // The signal can't be caught; should it be forbidden, abort is the nearest thing to it.
        if rustix::process::kill_process(me, rustix::process::Signal::KILL).is_err() {
            std::process::abort();
        }
        loop {
            std::thread::park();
        }
    }
}
