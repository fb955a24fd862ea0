//! The copy-and-tail algorithm, every interleaving of a small world of it (`docs/decisions/0007`).
//!
//! | file | what it is for |
//! | --- | --- |
//! | `source` | the source: scripts of transactions and the log they make |
//! | `mover` | what dbmove does, as states and actions; the rules that can be broken on purpose |
//!
//! The model has no bug that it was not asked for, and sees each that it was: every rule broken on purpose has a test here
//! that finds a counterexample.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod mover;
mod source;

use std::time::Instant;

use mover::{Broken, Mover};
use source::Shape;
use stateright::{Checker, HasDiscoveries, Model};

/// Explores everything; a property that is broken, or a `sometimes` that never is, fails.
fn explored(shape: Shape, length: usize, crashes: u8, forgets: u8) {
    let began = Instant::now();
    let scripts = source::scripts(shape, length);
    let count = scripts.len();
    let checker = Mover { scripts, broken: Broken::Nothing, crashes, forgets }.checker().spawn_dfs().join();
    eprintln!(
        "model: {shape:?}: {count} scripts of {length} transactions, {crashes} crashes, {forgets} forgotten keys: {} states ({} transitions), depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    for property in
        ["when all is quiet the target equals the source", "no unique value is ever in the way", "the saved position never says too much"]
    {
        if let Some(path) = checker.discovery(property) {
            let script = path.last_state().script;
            let script = &checker.model().scripts[usize::from(script)];
            panic!("{property}: {:?} {:?}\n{path:#?}", script.words, script.on_delete);
        }
    }
    checker.assert_properties();
}

#[test]
fn two_transactions_a_crash_and_a_forgotten_key() {
    explored(Shape::Siblings, 2, 1, 1);
}

/// One transaction and two crashes; in `make soak` three transactions and one crash.
#[test]
fn two_crashes_or_three_transactions() {
    if std::env::var_os("DBMOVE_SOAK").is_some() { explored(Shape::Siblings, 3, 1, 1) } else { explored(Shape::Siblings, 1, 2, 1) }
}

#[test]
fn three_levels() {
    explored(Shape::Levels, 2, 1, 1);
}

#[test]
fn three_levels_and_two_crashes_or_three_transactions() {
    if std::env::var_os("DBMOVE_SOAK").is_some() { explored(Shape::Levels, 3, 1, 1) } else { explored(Shape::Levels, 1, 2, 1) }
}

#[test]
fn three_levels_whose_last_has_two_rows() {
    explored(Shape::Twins, 2, 1, 1);
}

/// What a broken rule does to the data, not only to what is claimed about it.
const HARM: [&str; 2] = ["when all is quiet the target equals the source", "no unique value is ever in the way"];

/// Looks for harm that a broken rule does: first among short scripts, then longer ones.
fn seen(broken: Broken, shape: Shape) {
    for length in 1..=2 {
        let model = Mover { scripts: source::scripts(shape, length), broken, crashes: 1, forgets: 1 };
        let checker = model.checker().finish_when(HasDiscoveries::AnyOf(HARM.into())).spawn_bfs().join();
        let found = HARM.iter().find_map(|property| Some((property, checker.discovery(property)?)));
        if let Some((property, path)) = found {
            let words = &checker.model().scripts[usize::from(path.last_state().script)].words;
            let actions = path.into_actions();
            eprintln!("{broken:?}: {} steps to break \"{property}\": {words:?}: {actions:?}", actions.len());
            return;
        }
    }
    panic!("{broken:?} was not seen: the model is too weak");
}

macro_rules! each_is_seen {
    ($($test:ident: $broken:ident $(in $shape:ident)?,)*) => {
        $(#[test]
        fn $test() {
            let shape = [Shape::Siblings $(, Shape::$shape)?];
            seen(Broken::$broken, shape[shape.len() - 1]);
        })*
    };
}

each_is_seen! {
    an_event_dropped_is_seen: Rule1DropsEvent,
    a_chunk_that_overwrites_is_seen: Rule2ChunkOverwrites,
    a_chunk_too_early_is_seen: Rule3ChunkTooEarly,
    forgetting_deletes_is_seen: Rule4ForgetsDeletes,
    an_expired_delete_unnoticed_is_seen: Rule4ForgottenUnnoticed,
    filtering_instead_of_remembering_is_seen: FilterInsteadOfMemory,
    events_that_do_not_wait_are_seen: Rule5EventsDontWait,
    a_position_before_its_data_is_seen: Rule6PositionBeforeData,
    a_position_inside_a_transaction_is_seen: Rule7PositionInsideTransaction,
    a_cascade_not_carried_out_is_seen: CascadeNotCarried,
    parents_not_remembered_is_seen: ParentsNotRemembered,
    no_settle_time_is_seen: NoSettleTime,
    no_settle_time_after_a_restart_is_seen: NoSettleAfterRestart,
    lanes_that_ignore_unique_values_are_seen: LanesIgnoreUniques,
    no_intent_is_seen: NoIntent,
    what_cascades_left_is_seen: NothingMended in Levels,
    values_unique_too_early_are_seen: UniqueBeforeMended in Twins,
    a_row_set_right_over_an_event_is_seen: MendedOverAnEvent in Levels,
    a_row_written_again_before_its_cascade_is_seen: RepeatedBeforeCascade in Levels,
}
