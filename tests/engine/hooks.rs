//! Hooks at moments of a run: a question is waited for and a no ends the run, the rest is told beside it, and nothing is left out by a crash.

use std::time::{Duration, Instant};

use dbmove::engine::journal::{JournalReader, Phase, RunState};
use dbmove::engine::outcome::{ExitCode, RunOutcome, Serving, Verdict};
use dbmove::playbook::model::HookSpec;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::{World, ledger, lines, net, step, switch, was_killed};

const QUESTIONS: [&str; 3] = ["before-run", "before-cutover", "before-switch"];
const MOMENTS: [&str; 10] = [
    "before-run",
    "before-cutover",
    "before-switch",
    "after-switch",
    "on-guard",
    "on-pause",
    "on-undo",
    "on-waiting",
    "on-failure",
    "on-success",
];

fn story(at: &[&str]) -> World {
    let mut world = World::new(json!({
        "sync": [step("copy", json!({}))],
        "cutover": [
            step("fence", json!({ "holds_writes": true })),
            step("drain", json!({ "fails": "definite", "fails_while": "drain_fails" })),
            switch("switch", json!({})),
            step("release", json!({})),
        ],
    }));
    world.scenario.playbook.hooks = vec![hook("page", at)];
    world
}

fn hook(id: &str, at: &[&str]) -> HookSpec {
    serde_json::from_value(json!({ "id": id, "at": at, "command": ["told by the test"] })).unwrap()
}

fn driven(world: &World) -> JoinHandle<RunOutcome> {
    let scenario = world.scenario.clone();
    tokio::spawn(async move { scenario.drive(CancellationToken::new()).await.unwrap() })
}

/// The moments at which the hook was called, in order.
fn called(world: &World) -> Vec<String> {
    lines(world.path(), "hooks").iter().map(|line| fact(line, "moment").as_str().unwrap().to_owned()).collect()
}

fn fact(line: &str, name: &str) -> Value {
    serde_json::from_str::<Value>(line).unwrap()[name].clone()
}

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

#[tokio::test(flavor = "multi_thread")]
async fn each_moment_comes_in_its_turn_with_its_facts() {
    let world = story(&MOMENTS);
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    assert_eq!(called(&world), ["before-run", "before-cutover", "before-switch", "after-switch", "on-success"]);
    let told = lines(world.path(), "hooks");
    assert_eq!(fact(&told[2], "serving"), "source");
    assert_eq!((fact(&told[3], "serving"), fact(&told[3], "step")), (json!("target"), json!("switch")));
    assert_eq!((fact(&told[4], "exit_code"), fact(&told[4], "kind")), (json!(0), json!("production")));
    assert_eq!(world.kinds().iter().filter(|kind| *kind == "hook").count(), 10, "each is begun and ended");

    let failing = story(&MOMENTS);
    failing.put("drain_fails");
    assert_eq!(failing.drive().await.unwrap().exit_code(), ExitCode::Error);
    assert_eq!(called(&failing), ["before-run", "before-cutover", "on-undo", "on-failure"]);
    let told = lines(failing.path(), "hooks");
    assert_eq!((fact(&told[2], "scope"), fact(&told[2], "serving")), (json!("cutover"), json!("source")));
    assert!(fact(&told[3], "verdict").as_str().unwrap().contains("`drain` was told to fail"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_ends_the_run_before_anything_is_begun_behind_it() {
    for (moment, stands) in QUESTIONS.into_iter().zip([vec![], vec!["copy"], vec!["copy"]]) {
        let world = story(&[moment, "on-failure"]);
        world.put("no_page");
        let outcome = world.drive().await.unwrap();
        assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Refused, Serving::Source), "{moment}: {}", outcome.verdict);
        assert!(
            outcome.verdict.to_string().contains(&format!("hook `page` at `{moment}` said no: the test says no")),
            "{}",
            outcome.verdict
        );
        assert_eq!(net(world.path()).into_keys().collect::<Vec<_>>(), stands, "{moment}");
        let undone = if moment == "before-switch" { vec!["drain", "fence"] } else { vec![] };
        assert_eq!(outcome.undone, undone, "{moment}");
        world.take("no_page");
        assert_eq!(world.drive().await.unwrap().serving, Serving::Target, "{moment}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_and_fails_changes_nothing() {
    let world = story(&["after-switch", "on-success"]);
    world.put("no_page");
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Done, Serving::Target));
    assert_eq!(called(&world).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_while_writes_are_held_is_bounded_by_them() {
    let mut world = story(&["before-switch"]);
    world.scenario.max_write_gap_ms = 1_000;
    world.put("slow_page");
    let outcome = world.drive().await.unwrap();
    // It was given half of what was left; had it been let be, the write gap would have been the reason.
    assert!(matches!(&outcome.verdict, Verdict::Refused { reasons, .. } if reasons[0].contains("took longer")), "{}", outcome.verdict);
    assert_eq!((outcome.serving, net(world.path()).into_keys().collect::<Vec<_>>()), (Serving::Source, vec!["copy".to_owned()]));
    let limit: u64 = lines(world.path(), "hook_limits")[0].parse().unwrap();
    assert!(limit <= 500, "{limit} ms of 1,000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_called_off_by_an_interrupt_and_asked_again() {
    let world = story(&["before-cutover"]);
    world.put("slow_page");
    let cancel = CancellationToken::new();
    let (scenario, stop) = (world.scenario.clone(), cancel.clone());
    let run = tokio::spawn(async move { scenario.drive(stop).await.unwrap() });
    until(&world, "the question", |state| state.step("copy").phase == Phase::Done).await;
    let began = Instant::now();
    while called(&world).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cancel.cancel();
    assert_eq!(run.await.unwrap().verdict, Verdict::Interrupted);
    world.take("slow_page");
    assert_eq!(world.drive().await.unwrap().serving, Serving::Target);
    assert_eq!(called(&world), ["before-cutover", "before-cutover"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_hook_keeps_nobody_waiting_but_the_end() {
    let world = story(&["after-switch"]);
    world.put("slow_page");
    let run = driven(&world);
    until(&world, "the end of the cutover", |state| state.step("release").phase == Phase::Done).await;
    assert!(!run.is_finished(), "the run ended without its hook");
    world.take("slow_page");
    assert_eq!(run.await.unwrap().exit_code(), ExitCode::Done);
}

#[test]
fn killed_anywhere_no_moment_is_left_out() {
    let told = ["after-switch", "on-success"];
    for point in
        ["hook.begun#1", "hook.ended#1", "hook.begun#2", "hook.ended#2", "hook.begun#3", "hook.ended#3", "point_of_no_return.passed"]
    {
        let world = story(&["before-switch", "after-switch", "on-success"]);
        assert!(was_killed(world.drive_elsewhere(Some(point))), "{point}");
        let status = world.drive_elsewhere(None);
        assert!(status.code() == Some(0), "{point}: {status}");
        let called = called(&world);
        for moment in told {
            assert!(called.iter().any(|found| found == moment), "{point}: `{moment}` was left out: {called:?}");
        }
        assert_eq!(ledger(world.path()).iter().filter(|line| *line == "apply switch").count(), 1, "{point}");
        assert_eq!(world.state().serving(), Serving::Target, "{point}");
    }
}
