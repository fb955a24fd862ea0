//! Order, parallelism, retries, undo, services, drift.

use std::time::{Duration, Instant};

use dbmove::engine::drift::DriftError;
use dbmove::engine::journal::{Event, Phase};
use dbmove::engine::outcome::{ExitCode, Serving, Verdict};
use dbmove::engine::run::EngineError;
use dbmove::playbook::model::StageName;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::world::{World, ledger, net, playbook, step, step_with_needs, switch, whole_story};

#[tokio::test(flavor = "multi_thread")]
async fn steps_follow_the_order_given_unless_needs_says_otherwise() {
    let slow = json!({ "sleep_ms": 400 });
    let world = World::new(json!({ "sync": [
        step_with_needs("left", &[], slow.clone()),
        step_with_needs("right", &[], slow.clone()),
        step_with_needs("both", &["left", "right"], json!({})),
        step("after", json!({})),
    ]}));
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Done);
    let ledger = ledger(world.path());
    assert_eq!(ledger[ledger.len() - 4..], ["begin both", "apply both", "begin after", "apply after"]);
    assert!(ledger[..2].iter().all(|line| line.starts_with("begin")), "left and right did not run side by side: {ledger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_point_of_no_return_waits_for_all_before_it() {
    let world = World::new(json!({ "cutover": [
        step_with_needs("slow", &[], json!({ "sleep_ms": 200 })),
        switch("switch", json!({})),
        step_with_needs("after", &[], json!({})),
    ]}));
    assert_eq!(world.drive().await.unwrap().serving, Serving::Target);
    assert_eq!(ledger(world.path()), ["begin slow", "apply slow", "begin switch", "apply switch", "begin after", "apply after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_dont_fit_together_are_refused_before_anything_is_written() {
    for (stages, words) in [
        (json!({ "sync": [step("a", json!({})), step("a", json!({}))] }), "two steps are called `a`"),
        (json!({ "sync": [step_with_needs("a", &["b"], json!({}))] }), "there is no such step"),
        (json!({ "sync": [step_with_needs("a", &["b"], json!({})), step_with_needs("b", &["a"], json!({}))] }), "wait for each other"),
        (json!({ "prepare": [switch("a", json!({}))] }), "must be in `cutover`"),
        (json!({ "cutover": [switch("a", json!({})), switch("b", json!({}))] }), "there is only one"),
    ] {
        let world = World::new(stages);
        let error = world.drive().await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.exit_code(), ExitCode::Usage);
        assert!(world.reader().runs().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_transient_failures_are_retried() {
    let world = World::new(json!({ "sync": [step("wobbly", json!({ "fails": "transient", "times": 3 }))] }));
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    assert_eq!(world.state().step("wobbly").retries, 3);
    assert_eq!(world.state().step("wobbly").attempt, 4);
    for (fails, code) in [
        ("definite", ExitCode::Error),
        ("refused", ExitCode::Refused),
        ("differences", ExitCode::Differences),
        ("waiting", ExitCode::WaitingForApproval),
        ("lease_lost", ExitCode::LeaseHeld),
    ] {
        let world = World::new(json!({ "sync": [step("broken", json!({ "fails": fails }))] }));
        assert_eq!(world.drive().await.unwrap().exit_code(), code, "{fails}");
        assert_eq!(ledger(world.path()), ["begin broken", "failed broken"], "{fails}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_end_and_the_run_can_be_driven_on() {
    let mut broken = step("broken", json!({ "fails": "transient", "fails_while": "broken" }));
    broken["retries"] = json!(2);
    let world = World::new(json!({ "sync": [step("copied", json!({})), broken] }));
    world.put("broken");
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Error);
    assert!(outcome.undone.is_empty(), "finished work of `sync` was thrown away");
    assert_eq!(ledger(world.path()).iter().filter(|line| *line == "begin broken").count(), 3);
    world.take("broken");
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    assert_eq!(ledger(world.path()).iter().filter(|line| *line == "begin copied").count(), 1);
    assert!(matches!(world.drive().await, Err(EngineError::Finished { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_cutover_is_undone_newest_first_and_can_be_tried_again() {
    let world = World::new(whole_story());
    world.put("drain_fails");
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Error, Serving::Source));
    assert_eq!(outcome.undone, ["drain", "fence"]);
    assert!(outcome.write_gap_seconds.is_some(), "the write gap was not closed");
    let kinds = world.kinds();
    let place = |kind: &str| kinds.iter().position(|found| found == kind).unwrap();
    assert!(place("undo_started") < place("undo_finished") && place("undo_finished") < place("run_finished"));
    assert_eq!(net(world.path()).keys().collect::<Vec<_>>(), ["follow", "rows", "snapshot"]);
    world.take("drain_fails");
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Done, Serving::Target));
}

/// A fence that the source lifts by itself, and one of another store, until it is asked to be kept.
fn watched(first: serde_json::Value) -> World {
    let mut with = json!({ "holds_writes": true, "volatile": true, "watched": true });
    with.as_object_mut().unwrap().extend(first.as_object().unwrap().clone());
    let mut world = World::new(json!({ "cutover": [
        step("fence", with),
        step("other_fence", json!({ "holds_writes": true, "volatile": true, "watched": true })),
        step("promote", json!({})),
        step("back", json!({})),
        switch("switch", json!({})),
        step("release", json!({})),
    ]}));
    let hook = json!({ "id": "page", "at": ["before-switch"], "command": ["told by the test"] });
    world.scenario.playbook.hooks = vec![serde_json::from_value(hook).unwrap()];
    world
}

/// Until then a driver that dies leaves nobody without writes for good: so it comes behind everything that takes time, the hooks that are asked
/// as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_kept_as_the_last_thing_before_the_point_of_no_return() {
    let world = watched(json!({ "keep_retries": 2 }));
    world.put("no_page");
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Refused);
    let ledger_before = ledger(world.path());
    assert!(!ledger_before.iter().any(|line| line.starts_with("keep")), "{ledger_before:?}");
    world.take("no_page");
    assert_eq!(world.drive().await.unwrap().serving, Serving::Target);
    let ledger = ledger(world.path());
    let from = ledger.iter().rposition(|line| line == "apply back").unwrap();
    let expected = [
        "apply back",
        "keep_retry fence",
        "keep_retry fence",
        "keep_held fence",
        "keep_held other_fence",
        "begin switch",
        "apply switch",
        "begin release",
        "apply release",
    ];
    assert_eq!(ledger[from..], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_certainty_that_it_is_kept_the_switch_does_not_begin() {
    let bitten = watched(json!({ "bitten_while": "bitten" }));
    bitten.put("bitten");
    let slow = watched(json!({ "keep_ms": 60_000 }));
    let slow = World { scenario: crate::world::Scenario { max_write_gap_ms: 3_000, stop_grace_ms: 50, ..slow.scenario }, ..slow };
    for (world, code, why) in [(bitten, ExitCode::Error, "by itself"), (slow, ExitCode::Error, "max_write_gap")] {
        let outcome = world.drive().await.unwrap();
        assert_eq!((outcome.exit_code(), outcome.serving), (code, Serving::Source), "{}", outcome.verdict);
        assert!(outcome.verdict.to_string().contains(why), "{}", outcome.verdict);
        let ledger = ledger(world.path());
        assert!(!ledger.iter().any(|line| line.ends_with(" switch")), "{ledger:?}");
        assert_eq!(outcome.undone.last().map(String::as_str), Some("fence"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_fails_keeps_no_other_from_its_own_and_is_tried_again() {
    let world = World::new(json!({ "cutover": [
        step("hold", json!({})),
        step("fence", json!({ "undo_fails_while": "stuck" })),
        step("drain", json!({ "fails": "definite", "fails_while": "stuck", "acts_first": true })),
        switch("switch", json!({})),
    ]}));
    world.put("stuck");
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Error, Serving::Unclear));
    assert_eq!(outcome.undone, ["drain", "hold"]);
    assert_eq!(outcome.not_undone[0].0, "fence");
    assert!(matches!(world.state().step("fence").phase, Phase::UndoFailed { .. }));
    let again = world.drive().await.unwrap();
    assert!(again.verdict.to_string().contains("its undo failed again"), "{}", again.verdict);
    world.take("stuck");
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Done, Serving::Target));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_service_fails_the_stage() {
    let world = World::new(json!({ "sync": [
        step("follow", json!({ "service": true, "fails_after_ready_ms": 100 })),
        step("copy", json!({ "sleep_ms": 10_000 })),
    ]}));
    let started = Instant::now();
    let outcome = world.drive().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "the copy was not stopped");
    assert!(outcome.verdict.to_string().contains("broke while following"));
    assert_eq!(world.state().step("copy").phase, Phase::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_holds_nobody_before_its_services_are_near() {
    let stages = || {
        json!({
            "sync": [step("follow", json!({ "service": true, "not_near_while": "far" })), step("copy", json!({ "sleep_ms": 300 }))],
            "cutover": [step("fence", json!({ "holds_writes": true })), switch("switch", json!({}))],
        })
    };
    let world = World::new(stages());
    world.put("far");
    let (outcome, ()) = tokio::join!(world.drive(), async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let ledger = ledger(world.path());
        assert!(ledger.contains(&"apply copy".to_owned()) && !ledger.contains(&"begin fence".to_owned()), "{ledger:?}");
        world.take("far");
    });
    assert_eq!(outcome.unwrap().serving, Serving::Target);

    // Whether a target keeps up is what a rehearsal under load finds out.
    let mut rehearsed = World::new(stages());
    rehearsed.scenario.rehearsal = true;
    rehearsed.put("far");
    assert_eq!(rehearsed.drive().await.unwrap().exit_code(), ExitCode::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_waits_for_clients_in_its_way_but_not_for_ever() {
    let stages = |patience_ms: u64| {
        json!({
            "sync": [
                step("follow", json!({ "service": true, "in_the_way_while": "busy", "patience_ms": patience_ms })),
                step("copy", json!({ "sleep_ms": 300 })),
            ],
            "cutover": [step("fence", json!({ "holds_writes": true })), switch("switch", json!({}))],
        })
    };
    let world = World::new(stages(60_000));
    world.put("busy");
    let (outcome, ()) = tokio::join!(world.drive(), async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let ledger = ledger(world.path());
        assert!(ledger.contains(&"apply copy".to_owned()) && !ledger.contains(&"begin fence".to_owned()), "{ledger:?}");
        world.take("busy");
    });
    assert_eq!(outcome.unwrap().serving, Serving::Target);

    let world = World::new(stages(1000));
    world.put("busy");
    let began = std::time::Instant::now();
    let outcome = tokio::time::timeout(Duration::from_secs(20), world.drive()).await.unwrap().unwrap();
    assert_eq!(outcome.serving, Serving::Target);
    assert!(began.elapsed() > Duration::from_millis(1300), "{:?}", began.elapsed());

    let mut rehearsed = World::new(stages(60_000));
    rehearsed.scenario.rehearsal = true;
    rehearsed.put("busy");
    assert_eq!(rehearsed.drive().await.unwrap().exit_code(), ExitCode::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_step_is_a_failed_step() {
    let world = World::new(json!({ "sync": [step("broken", json!({ "panics": true }))] }));
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Error);
    assert!(outcome.verdict.to_string().contains("defect"), "{}", outcome.verdict);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_go_on_until_cancelled_and_come_back() {
    let mut world = World::new(whole_story());
    world.scenario.until = StageName::Verify;
    world.scenario.keep_services = true;
    let cancel = CancellationToken::new();
    let (outcome, ()) = tokio::join!(world.scenario.drive(cancel.clone()), async {
        while !world.path().join("ledger").exists() || !ledger(world.path()).contains(&"apply rows".to_owned()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(!ledger(world.path()).contains(&"stopped follow".to_owned()), "the service was stopped too early");
        cancel.cancel();
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.verdict, ledger(world.path()).last().unwrap().as_str()), (Verdict::Interrupted, "stopped follow"));
    world.scenario.until = StageName::Settle;
    world.scenario.keep_services = false;
    assert_eq!(world.drive().await.unwrap().serving, Serving::Target);
    let ledger = ledger(world.path());
    assert_eq!(ledger.iter().filter(|line| *line == "begin follow").count(), 2);
    assert_eq!(ledger.iter().filter(|line| *line == "begin snapshot").count(), 1);
    let (second, fence) = (ledger.iter().rposition(|line| line == "begin follow"), ledger.iter().position(|line| line == "begin fence"));
    assert!(second < fence, "the cutover began before the service was back");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_inside_the_cutover_lifts_the_fence() {
    let world = World::new(
        json!({ "cutover": [step("fence", json!({ "holds_writes": true })), step("drain", json!({ "sleep_ms": 20_000 })), switch("switch", json!({}))] }),
    );
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let (outcome, ()) = tokio::join!(world.scenario.drive(cancel), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.cancel();
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Interrupted, Serving::Source));
    assert_eq!(outcome.undone, ["drain", "fence"]);
    assert!(net(world.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_does_not_stop_is_dropped_after_its_grace() {
    let mut world = World::new(json!({ "sync": [step("deaf", json!({ "deaf": true, "sleep_ms": 60_000 }))] }));
    world.scenario.stop_grace_ms = 200;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let started = Instant::now();
    let (outcome, ()) = tokio::join!(world.scenario.drive(cancel), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.cancel();
    });
    assert_eq!(outcome.unwrap().verdict, Verdict::Interrupted);
    assert!(started.elapsed() < Duration::from_secs(5));
}

fn half_done() -> World {
    let world = World::new(json!({
        "sync": [step("copied", json!({ "threads": 4 })), step("later", json!({ "fails": "definite", "fails_while": "wait", "threads": 4 }))],
        "verify": [step("rows", json!({ "threads": 4 }))],
    }));
    world.put("wait");
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_playbook_is_refused_unless_only_the_future_changed_and_it_is_accepted() {
    let mut world = half_done();
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Error);
    world.take("wait");
    let original = world.scenario.playbook.clone();
    world.scenario.playbook.stages.sync[0].with.insert("threads".to_owned(), json!(8));
    world.scenario.accept_drift = true;
    let error = world.drive().await.unwrap_err();
    assert!(matches!(&error, EngineError::Drift(DriftError::Begun { .. })), "{error}");
    assert!(error.to_string().contains("step `copied`: `with.threads`"), "{error}");
    assert_eq!(error.exit_code(), ExitCode::Refused);
    world.scenario.playbook = original;
    world.scenario.playbook.stages.verify[0].with.insert("threads".to_owned(), json!(8));
    world.scenario.accept_drift = false;
    let error = world.drive().await.unwrap_err();
    assert!(matches!(&error, EngineError::Drift(DriftError::NotAccepted { .. })), "{error}");
    world.scenario.accept_drift = true;
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    assert!(world.kinds().contains(&"playbook_accepted".to_owned()));
    // From now on the accepted one is the playbook.
    let reader = world.reader();
    let events = reader.events(&world.state().run, 0).unwrap();
    let accepted = events.iter().find_map(|event| match &event.event {
        Event::PlaybookAccepted { changes, .. } => Some(changes.clone()),
        _ => None,
    });
    assert_eq!(accepted.unwrap()[0].to_string(), "step `rows`: `with.threads`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_slipped_in_before_a_begun_one_is_a_change_of_the_begun_one() {
    let mut world = half_done();
    world.drive().await.unwrap();
    world.scenario.accept_drift = true;
    world.scenario.playbook = playbook(json!({
        "sync": [step("slipped_in", json!({})), step("copied", json!({ "threads": 4 })), step("later", json!({ "threads": 4 }))],
    }));
    let error = world.drive().await.unwrap_err();
    assert!(error.to_string().contains("step `copied`: `the step before it`"), "{error}");
}
