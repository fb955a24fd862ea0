//! Guards: what is done about one that fires depends on where the run is, and one that can't be asked is never taken for a quiet one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use dbmove::engine::guards::Effect;
use dbmove::engine::journal::{JournalReader, Phase, RunState};
use dbmove::engine::outcome::{ExitCode, RunOutcome, Serving, Verdict};
use dbmove::playbook::model::{GuardSpec, StageName};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::{World, ledger, lines, net, step, switch, was_killed};

/// A guard that is looked at ten times a second and is quiet after three tenths.
fn guard(id: &str, then: &str, more: &Value) -> GuardSpec {
    let mut spec = json!({ "id": id, "watch": "test.file", "then": then, "every": "100ms", "quiet_for": "300ms" });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn guarded(stages: Value, guards: Vec<GuardSpec>) -> World {
    let mut world = World::new(stages);
    world.scenario.playbook.guards = guards;
    world
}

/// `copy` waits for the file `copied`, `fence` for `fenced`, `switch` for `switched`.
fn story(guards: Vec<GuardSpec>) -> World {
    let stages = json!({
        "sync": [step("copy", json!({ "waits_for": "copied" })), step("follow", json!({ "service": true }))],
        "cutover": [
            step("fence", json!({ "holds_writes": true })),
            step("drain", json!({ "waits_for": "drained" })),
            switch("switch", json!({ "waits_for": "switched" })),
        ],
        "settle": [step("watch", json!({})), step("retire", json!({}))],
    });
    guarded(stages, guards)
}

fn driven(world: &World) -> JoinHandle<RunOutcome> {
    let scenario = world.scenario.clone();
    tokio::spawn(async move { scenario.drive(CancellationToken::new()).await.unwrap() })
}

/// Waits until the journal says so.
async fn until(world: &World, what: &str, is_so: impl Fn(&RunState) -> bool) {
    let began = Instant::now();
    loop {
        let reader = JournalReader::open(&world.path().join("state"));
        let state = reader.ok().and_then(|reader| reader.state(&reader.runs().ok()?.first()?.run.clone()).ok());
        if state.as_ref().is_some_and(&is_so) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what} never came: {state:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn fired(state: &RunState, guard: &str) -> Option<Effect> {
    Some(state.guards.0.get(guard)?.fired.as_ref()?.effect)
}

fn stopped_by(outcome: &RunOutcome) -> Option<(&str, Effect)> {
    match &outcome.verdict {
        Verdict::StoppedByGuard { guard, effect, .. } => Some((guard.as_str(), *effect)),
        _ => None,
    }
}

/// How often a guard was looked at.
fn looks(world: &Path, guard: &str) -> usize {
    lines(world, &format!("guard_{guard}.looks")).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_begins_nothing_and_ends_by_itself() {
    let world = story(vec![guard("lag", "pause", &json!({}))]);
    let run = driven(&world);
    until(&world, "copy", |state| state.step("copy").phase == Phase::Running).await;
    world.finds("lag", "bad");
    until(&world, "the pause", |state| fired(state, "lag") == Some(Effect::Paused)).await;
    assert_eq!(world.state().pause().as_deref(), Some("paused by guard `lag`: the file says bad"));
    world.put("copied");
    until(&world, "the end of the copy", |state| state.step("copy").phase == Phase::Done).await;
    let seen = looks(world.path(), "lag");
    until(&world, "ten more looks", |_| looks(world.path(), "lag") > seen + 10).await;
    assert_eq!(ledger(world.path()), ["begin copy", "apply copy"], "a paused run went on");
    // A single good look is not enough: it has to be quiet for a while.
    for name in ["drained", "switched"] {
        world.put(name);
    }
    world.finds("lag", "good");
    let outcome = run.await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Done, Serving::Target), "{}", outcome.verdict);
    assert_eq!(world.kinds().iter().filter(|kind| *kind == "guard").count(), 2, "fired once, quiet once");
    assert_eq!(world.state().guards, Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_what_is_done_and_the_same_command_goes_on() {
    let world = story(vec![guard("disk", "stop", &json!({}))]);
    world.put("copied");
    let run = driven(&world);
    world.finds("disk", "bad");
    let outcome = run.await.unwrap();
    assert_eq!((stopped_by(&outcome), outcome.exit_code()), (Some(("disk", Effect::Stopped)), ExitCode::Error), "{}", outcome.verdict);
    assert_eq!((outcome.serving, outcome.undone.len()), (Serving::Source, 0));
    assert!(!world.state().finished.unwrap().concluded);
    world.finds("disk", "good");
    for name in ["drained", "switched"] {
        world.put(name);
    }
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    assert_eq!(net(world.path()).get("copy"), Some(&1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_before_the_cutover_undoes_the_run() {
    let world = story(vec![guard("probe", "undo", &json!({}))]);
    world.put("copied");
    let mut scenario = world.scenario.clone();
    (scenario.until, scenario.keep_services) = (StageName::Verify, true);
    let run = tokio::spawn(async move { scenario.drive(CancellationToken::new()).await.unwrap() });
    until(&world, "following", |state| state.step("follow").ready.is_some()).await;
    world.finds("probe", "bad");
    let outcome = run.await.unwrap();
    assert_eq!(stopped_by(&outcome), Some(("probe", Effect::Undone)), "{}", outcome.verdict);
    assert_eq!((outcome.undone.clone(), outcome.serving), (vec!["follow".to_owned(), "copy".to_owned()], Serving::Source));
    assert_eq!(net(world.path()), BTreeMap::new());
    assert!(world.state().finished.unwrap().concluded);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_cutover_every_action_undoes_it_and_keeps_the_copy() {
    for then in ["pause", "stop", "undo"] {
        let world = story(vec![guard("threads", then, &json!({}))]);
        world.put("copied");
        let run = driven(&world);
        until(&world, "drain", |state| state.step("drain").phase == Phase::Running).await;
        world.finds("threads", "bad");
        let outcome = run.await.unwrap();
        assert_eq!(stopped_by(&outcome), Some(("threads", Effect::CutoverUndone)), "{then}: {}", outcome.verdict);
        assert_eq!((outcome.undone.clone(), outcome.serving), (vec!["drain".to_owned(), "fence".to_owned()], Serving::Source), "{then}");
        assert_eq!(net(world.path()).into_keys().collect::<Vec<_>>(), ["copy", "follow"], "{then}");
        assert!(!world.state().finished.unwrap().concluded);
        world.finds("threads", "good");
        for name in ["drained", "switched"] {
            world.put(name);
        }
        assert_eq!(world.drive().await.unwrap().serving, Serving::Target, "{then}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_switch_on_nothing_is_undone_and_settle_waits() {
    for then in ["pause", "stop", "undo"] {
        let world = story(vec![guard("errors", then, &json!({}))]);
        for name in ["copied", "drained"] {
            world.put(name);
        }
        let run = driven(&world);
        until(&world, "the switch", |state| state.step("switch").phase == Phase::Running).await;
        world.finds("errors", "bad");
        until(&world, "the guard", |state| fired(state, "errors") == Some(Effect::Told)).await;
        world.put("switched");
        until(&world, "the end of the cutover", |state| state.stage_done(StageName::Cutover)).await;
        let seen = looks(world.path(), "errors");
        until(&world, "ten more looks", |_| looks(world.path(), "errors") > seen + 10).await;
        assert!(!ledger(world.path()).iter().any(|line| line.ends_with(" watch")), "{then}: `settle` went on under an alarm");
        let told = world.state().guards.lines("dbmove rollback x.yaml").join("\n");
        assert!(told.starts_with("GUARD `errors` FIRED at ") && told.contains("there is no way back but by hand"), "{told}");
        world.finds("errors", "good");
        let outcome = run.await.unwrap();
        assert_eq!((outcome.exit_code(), outcome.serving, outcome.undone.len()), (ExitCode::Done, Serving::Target, 0), "{then}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cutover_begins_only_under_guards_that_are_quiet_now() {
    // Both would fire only in an hour.
    let patient = json!({ "for": "1h", "unseen_for": "1h" });
    let world = story(vec![guard("lag", "stop", &patient), guard("up", "pause", &patient)]);
    for name in ["copied", "drained", "switched"] {
        world.put(name);
    }
    world.finds("lag", "bad");
    world.finds("up", "unseen");
    let run = driven(&world);
    until(&world, "following", |state| state.step("follow").ready.is_some()).await;
    for (guard, then) in [("lag", "good"), ("up", "nothing")] {
        let seen = looks(world.path(), guard);
        until(&world, "ten more looks", |_| looks(world.path(), guard) > seen + 10).await;
        assert!(!world.state().stages.contains_key(&StageName::Cutover), "the cutover began although `{guard}` is not quiet");
        world.finds(guard, then);
    }
    assert_eq!(run.await.unwrap().serving, Serving::Target);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_asked_is_said_and_fires_in_the_end() {
    let world = story(vec![guard("prometheus", "stop", &json!({ "unseen_for": "700ms" }))]);
    world.finds("prometheus", "unseen");
    let run = driven(&world);
    until(&world, "its being unseen", |state| state.guards.0.get("prometheus").is_some_and(|guard| guard.unseen.is_some())).await;
    assert!(world.state().guards.lines("").join("\n").contains("guard `prometheus` CAN'T BE ASKED since "));
    let outcome = run.await.unwrap();
    assert_eq!(stopped_by(&outcome), Some(("prometheus", Effect::Stopped)), "{}", outcome.verdict);
    assert!(outcome.verdict.to_string().contains("it can't be asked") && outcome.verdict.to_string().contains("the file can't be read"));
    // Asked again, it can be: what stood of it is taken back.
    world.finds("prometheus", "good");
    for name in ["copied", "drained", "switched"] {
        world.put(name);
    }
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    assert_eq!(world.state().guards, Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_keeps_nobody_else() {
    let world = story(vec![guard("hangs", "pause", &json!({})), guard("other", "stop", &json!({}))]);
    world.finds("hangs", "hangs");
    let run = driven(&world);
    until(&world, "copy", |state| state.step("copy").phase == Phase::Running).await;
    world.finds("other", "bad");
    assert_eq!(stopped_by(&run.await.unwrap()), Some(("other", Effect::Stopped)));
}

#[test]
fn a_guards_pause_outlives_its_driver() {
    let world = story(vec![guard("lag", "pause", &json!({}))]);
    world.finds("lag", "bad");
    world.put("copied");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut child = world.start_elsewhere(None);
    runtime.block_on(until(&world, "the pause", |state| fired(state, "lag") == Some(Effect::Paused)));
    child.kill().unwrap();
    assert!(was_killed(child.wait().unwrap()));
    // The next driver can't ask it: what stands is not forgotten for that.
    world.finds("lag", "unseen");
    let begun = ledger(world.path());
    let mut child = world.start_elsewhere(None);
    let seen = looks(world.path(), "lag");
    runtime.block_on(until(&world, "ten more looks", |_| looks(world.path(), "lag") > seen + 10));
    let still: Vec<String> = ledger(world.path()).into_iter().filter(|line| !line.starts_with("probe")).collect();
    assert_eq!(still, begun, "the next driver forgot the pause");
    for name in ["drained", "switched"] {
        world.put(name);
    }
    world.finds("lag", "good");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_watches_its_stages_alone_and_a_rehearsal_too() {
    let mut world = story(vec![guard("late", "stop", &json!({ "stages": ["cutover"] }))]);
    world.scenario.rehearsal = true;
    for name in ["copied", "drained", "switched"] {
        world.put(name);
    }
    world.finds("late", "bad");
    let outcome = world.drive().await.unwrap();
    // It was let into the cutover's door and no further; a rehearsal is undone as a whole.
    assert_eq!(stopped_by(&outcome), Some(("late", Effect::Stopped)), "{}", outcome.verdict);
    assert!(ledger(world.path()).contains(&"apply copy".to_owned()) && !ledger(world.path()).contains(&"begin fence".to_owned()));
    assert_eq!(net(world.path()), BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_was_taken_away_holds_nothing() {
    let mut world = story(vec![guard("lag", "pause", &json!({}))]);
    world.finds("lag", "bad");
    world.put("copied");
    let cancel = CancellationToken::new();
    let (scenario, stop) = (world.scenario.clone(), cancel.clone());
    let run = tokio::spawn(async move { scenario.drive(stop).await.unwrap() });
    until(&world, "the pause", |state| fired(state, "lag") == Some(Effect::Paused)).await;
    cancel.cancel();
    assert_eq!(run.await.unwrap().exit_code(), ExitCode::Interrupted);
    world.scenario.playbook.guards.clear();
    world.scenario.accept_drift = true;
    for name in ["drained", "switched"] {
        world.put(name);
    }
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
}
