//! Deadlines, the write gap, the point of no return.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmove::engine::context::RunKind;
use dbmove::engine::outcome::{ExitCode, Serving, Verdict};
use dbmove::engine::run::{RunRequest, preview};
use dbmove::playbook::model::StageName;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{World, ledger, net, refused, rehearsed, step, switch, was_killed};

fn cutover(drain: Value, switch_with: Value) -> World {
    World::new(json!({
        "sync": [step("snapshot", json!({}))],
        "cutover": [step("fence", json!({ "holds_writes": true })), step("drain", drain), switch("switch", switch_with), step("release", json!({}))],
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_held_too_long_are_given_back() {
    let mut world = cutover(json!({ "sleep_ms": 20_000 }), json!({}));
    world.scenario.max_write_gap_ms = 700;
    let started = Instant::now();
    let outcome = world.drive().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(
        matches!(outcome.verdict, Verdict::WriteGapExceeded { limit_seconds, held_seconds } if limit_seconds <= held_seconds),
        "{}",
        outcome.verdict
    );
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Error, Serving::Source));
    assert_eq!(outcome.undone, ["drain", "fence"]);
    assert!(outcome.verdict.to_string().contains("max_write_gap"));
    assert_eq!(net(world.path()).keys().collect::<Vec<_>>(), ["snapshot"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_gap_never_cuts_the_point_of_no_return_in_half() {
    let mut world = cutover(json!({}), json!({ "sleep_ms": 1_500 }));
    world.scenario.max_write_gap_ms = 700;
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Done, Serving::Target));
    assert!(outcome.write_gap_seconds.unwrap() >= 1.4);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_in_the_switch_is_heard_when_the_cutover_is_done() {
    let world = World::new(json!({
        "cutover": [switch("switch", json!({ "sleep_ms": 800 })), step("release", json!({ "sleep_ms": 100 }))],
        "settle": [step("watch", json!({ "sleep_ms": 20_000 }))],
    }));
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let (outcome, ()) = tokio::join!(world.scenario.drive(cancel), async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        stop.cancel();
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.verdict, outcome.serving), (Verdict::Interrupted, Serving::Target));
    assert_eq!(net(world.path()).keys().collect::<Vec<_>>(), ["release", "switch"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_whose_answer_got_lost_is_settled_by_looking() {
    // It acts, then reports a failure.
    let world = cutover(json!({}), json!({ "acts_first": true, "fails": "definite" }));
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Done, Serving::Target));
    assert_eq!(net(world.path()).len(), 5, "{:?}", net(world.path()));
    assert_eq!(ledger(world.path()).iter().filter(|line| *line == "finish switch").count(), 1);
    // It fails without having acted.
    let world = cutover(json!({}), json!({ "fails": "definite" }));
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Error, Serving::Source));
    assert_eq!(outcome.undone, ["switch", "drain", "fence"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_hangs_has_its_own_time_limit() {
    let mut world = cutover(json!({}), json!({ "sleep_ms": 60_000, "deaf": true }));
    world.scenario.switch_limit_ms = 500;
    world.scenario.stop_grace_ms = 300;
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Error, Serving::Source));
    assert!(outcome.verdict.to_string().contains("took longer"), "{}", outcome.verdict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_found_after_a_failed_switch_stops_everything_without_undo() {
    let world = cutover(json!({}), json!({ "fails": "definite", "foreign_while": "stranger" }));
    world.put("stranger");
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Error, Serving::Unclear));
    assert!(outcome.undone.is_empty());
    assert!(outcome.verdict.to_string().contains("stranger's ledger"), "{}", outcome.verdict);
}

/// A switch whose answer is lost and whose undo fails.
fn stuck() -> World {
    let switch =
        switch("switch", json!({ "fails": "definite", "fails_while": "stuck", "half_while": "half", "undo_fails_while": "stuck" }));
    let world = World::new(json!({ "cutover": [step("fence", json!({ "holds_writes": true })), step("promote", json!({})), switch] }));
    world.put("stuck");
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_done_switch_that_cant_be_put_back_keeps_the_fence() {
    let world = stuck();
    world.put("half");
    for _again in 0..2 {
        let outcome = world.drive().await.unwrap();
        assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Error, Serving::Unclear), "{}", outcome.verdict);
        assert_eq!(net(world.path()).keys().collect::<Vec<_>>(), ["fence", "promote"], "{:?}", ledger(world.path()));
        assert!(outcome.not_undone.iter().any(|(step, why)| step == "switch" && why.contains("both sides")), "{:?}", outcome.not_undone);
        assert!(world.state().open_write_gap().is_some());
    }
    world.take("stuck");
    world.take("half");
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Done, Serving::Target), "{}", outcome.verdict);
    assert!(ledger(world.path()).contains(&"undo fence".to_owned()), "{:?}", ledger(world.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_left_no_trace_does_not_keep_the_fence_though_its_undo_fails() {
    let world = stuck();
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Error, "{}", outcome.verdict);
    assert!(net(world.path()).is_empty(), "{:?}", ledger(world.path()));
    assert_eq!(outcome.not_undone.iter().map(|(step, _)| step.as_str()).collect::<Vec<_>>(), ["switch"]);
    assert!(world.state().open_write_gap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_stands_in_the_way_of_the_fence_does_not_keep_it_up() {
    let world = World::new(json!({ "cutover": [
        step("fence", json!({ "holds_writes": true })),
        // Its undo takes longer than it may while writes are held.
        step("promote", json!({ "undo_ms": 1000 })),
        step("check", json!({ "fails": "definite" })),
    ] }));
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Error, Serving::Source), "{}", outcome.verdict);
    assert!(outcome.not_undone.is_empty(), "{:?}", outcome.not_undone);
    let undone: Vec<String> = ledger(world.path()).into_iter().filter(|line| line.starts_with("undo ")).collect();
    assert_eq!(undone, ["undo fence", "undo promote"]);
}

/// In a rollback that is not so of what keeps the way back: it puts back on the source what clients' writes set off there, however long that takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_lets_nobody_write_before_the_way_back_is_undone() {
    let mut world = World::new(json!({ "cutover": [
        step("fence", json!({ "holds_writes": true })),
        step("back", json!({ "way_back": true, "undo_ms": 1000 })),
        switch("switch", json!({})),
        step("smoke", json!({ "fails": "definite" })),
    ] }));
    let failed = world.drive().await.unwrap();
    assert_eq!((failed.exit_code(), failed.serving), (ExitCode::Error, Serving::Target), "{}", failed.verdict);
    world.scenario.roll_back = true;
    let back = world.drive().await.unwrap();
    assert_eq!((back.verdict, back.serving), (Verdict::RolledBack, Serving::Source));
    let undone: Vec<String> = ledger(world.path()).into_iter().filter(|line| line.starts_with("undo ")).collect();
    assert_eq!(undone, ["undo switch", "undo back", "undo fence"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_does_not_fit_is_refused_before_anything_is_touched() {
    let mut world = cutover(json!({ "estimate_ms": 3_600_000 }), json!({}));
    world.scenario.deadline = Some("1h15m".to_owned());
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Refused);
    assert!(outcome.verdict.to_string().contains("1h15m") || outcome.verdict.to_string().contains("1h14m"), "{}", outcome.verdict);
    assert!(ledger(world.path()).is_empty(), "a refused run touched something");
    world.scenario.deadline = Some("2h".to_owned());
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
}

/// Two stages, killed between them, under a deadline of `16h` that ends in so many seconds.
fn killed_under_a_deadline(seconds: i64) -> (World, Timestamp) {
    let mut world = World::new(json!({
        "prepare": [step("one", json!({}))],
        "sync": [step("two", json!({ "estimate_ms": 60_000 }))],
        "settle": [step("three", json!({}))],
    }));
    let until = Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).unwrap();
    world.scenario.deadline = Some("16h".to_owned());
    world.scenario.deadline_at = Some(until);
    if seconds < 60 {
        world.scenario.playbook.stages.sync[0].with.clear();
    }
    assert!(was_killed(world.drive_elsewhere(Some("stage.done"))));
    assert_eq!(net(world.path()).keys().collect::<Vec<_>>(), ["one"]);
    // Said again, the words are sixteen hours from then.
    world.scenario.deadline_at = None;
    (world, until)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_gives_no_fresh_hours_to_the_same_words() {
    let (mut world, until) = killed_under_a_deadline(3_600);
    // Too little time is left.
    world.scenario.margin = 100.0;
    for _ in 0..2 {
        let (words, hint) = refused(&world).await;
        assert!(words.contains(&format!("until {until:.0} (the deadline `16h`, given at ")), "{words}");
        assert!(hint.contains("other") && hint.contains("--deadline"), "{hint}");
        assert_eq!(world.state().deadline.unwrap().until, until);
    }
    // Other words are another deadline.
    world.scenario.deadline = Some("17h".to_owned());
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
}

/// What the playbook says is what counts where nobody has said anything; it takes back nothing that a person said.
#[tokio::test(flavor = "multi_thread")]
async fn the_playbooks_deadline_is_no_other_words() {
    let (mut world, until) = killed_under_a_deadline(3_600);
    world.scenario.deadline = Some("18h".to_owned());
    world.scenario.deadline_of_playbook = true;
    world.scenario.margin = 100.0;
    let (words, _) = refused(&world).await;
    assert!(words.contains(&format!("until {until:.0} (the deadline `16h`, given at ")), "{words}");
    world.scenario.deadline_of_playbook = false;
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passed_behind_a_dead_driver_is_ended_by_a_person() {
    let (mut world, until) = killed_under_a_deadline(20);
    let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_millis(50)).await;
    for deadline in [Some("16h"), None, Some("16h")] {
        world.scenario.deadline = deadline.map(str::to_owned);
        let (words, hint) = refused(&world).await;
        assert!(words.contains("the deadline `16h`") && words.contains(&format!("{until:.0}")) && words.contains("has passed"), "{words}");
        assert!(hint.contains("--deadline"), "{hint}");
    }
    // A command that ends before the cutover has no deadline, and goes by none.
    (world.scenario.deadline, world.scenario.until) = (None, StageName::Sync);
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    // Somebody has looked: on the next evening the same words mean that evening.
    (world.scenario.deadline, world.scenario.until) = (Some("16h".to_owned()), StageName::Settle);
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_of_a_driver_that_ended_counts_until_it_has_passed() {
    let mut world = World::new(json!({ "prepare": [step("one", json!({ "fails": "waiting", "fails_while": "asking" }))] }));
    world.put("asking");
    let until = Timestamp::now().checked_add(SignedDuration::from_secs(20)).unwrap();
    world.scenario.deadline = Some("16h".to_owned());
    world.scenario.deadline_at = Some(until);
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::WaitingForApproval);
    world.scenario.deadline_at = None;
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::WaitingForApproval);
    assert_eq!(world.state().deadline.unwrap().until, until, "the same words were counted anew in the same night");
    let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_millis(50)).await;
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::WaitingForApproval);
    assert!(world.state().deadline.unwrap().until > until, "the next evening goes by the last one's deadline");
}

/// Nothing began under a deadline that was refused at the door, so it binds nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_was_refused_is_no_promise() {
    let mut world = cutover(json!({ "estimate_ms": 3_600_000 }), json!({}));
    world.scenario.deadline = Some("1h15m".to_owned());
    refused(&world).await;
    assert_eq!(world.state().deadline, None);
    world.scenario.margin = 1.0;
    world.scenario.deadline_at = Some(Timestamp::now().checked_add(SignedDuration::from_hours(2)).unwrap());
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hard_line_undoes_a_cutover_in_time() {
    let (mut world, certificate) = rehearsed(json!({
        "sync": [step("snapshot", json!({}))],
        "cutover": [step("fence", json!({ "holds_writes": true })), step("drain", json!({ "sleeps_as_in": "slow" })), switch("switch", json!({}))],
    }))
    .await;
    // Quick in the rehearsal, slow tonight.
    std::fs::write(world.path().join("slow"), "2500\n").unwrap();
    world.scenario.certificate = Some(certificate);
    world.scenario.deadline = Some("1500ms".to_owned());
    let started = Instant::now();
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::DeadlineMissed, Serving::Source), "{}", outcome.verdict);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(outcome.undone, ["drain", "fence"]);
    assert_eq!(net(world.path()).keys().collect::<Vec<_>>(), ["snapshot"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_step_is_given_up_by_its_real_progress_long_before_the_deadline() {
    // 1 row a second, a million rows: the estimate knew nothing of it.
    let mut world = cutover(json!({ "sleep_ms": 60_000, "rate": 1.0, "total": 1_000_000 }), json!({}));
    world.scenario.max_write_gap_ms = 600_000;
    world.scenario.deadline = Some("1h".to_owned());
    let started = Instant::now();
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::DeadlineMissed, Serving::Source), "{}", outcome.verdict);
    assert!(outcome.verdict.to_string().contains("real progress"), "{}", outcome.verdict);
    assert!((10..40).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

/// Whatever slows the night down, and whether its progress shows it or not: done by the deadline, or as before by the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_random_slowdowns_end_in_time_one_way_or_the_other() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    let seed: u64 = std::env::var("DBMOVE_SEED").map_or_else(|_| rand::random_range(0..1 << 40), |seed| seed.parse().unwrap());
    eprintln!("seed: DBMOVE_SEED={seed}");
    /// A machine under load ends a tick later.
    const TOLERANCE: Duration = Duration::from_millis(1500);
    let mut nights = tokio::task::JoinSet::new();
    for number in 0..20 {
        let mut dice = StdRng::seed_from_u64(seed.wrapping_add(number));
        nights.spawn(async move {
            let (mut world, certificate) = rehearsed(json!({
                "sync": [step("snapshot", json!({}))],
                "cutover": [
                    step("fence", json!({ "holds_writes": true, "undo_ms": dice.random_range(0..600) })),
                    step("drain", json!({ "sleep_ms": 50, "sleeps_as_in": "slow", "total": 1000 })),
                    step("check", json!({ "undo_ms": dice.random_range(0..300) })),
                    switch("switch", json!({})),
                ],
            }))
            .await;
            // From hardly slower to far too slow; a quarter says nothing of its progress. The first has time enough on any machine.
            let deadline = Duration::from_millis(if number == 0 { 60_000 } else { dice.random_range(2_500..5_000) });
            let slow = deadline.mul_f64(if number == 0 { 0.01 } else { dice.random_range(0.1..2.5) });
            let rate = if dice.random_bool(0.25) { String::new() } else { (1000.0 / slow.as_secs_f64()).to_string() };
            std::fs::write(world.path().join("slow"), format!("{}\n{rate}\n", slow.as_millis())).unwrap();
            world.scenario.certificate = Some(certificate);
            world.scenario.max_write_gap_ms = 60_000;
            world.scenario.deadline = Some(format!("{}ms", deadline.as_millis()));
            let started = Instant::now();
            let outcome = world.drive().await.unwrap();
            let took = started.elapsed();
            let what = format!("night {number}: {slow:?} of work in {deadline:?}: {} after {took:?}", outcome.verdict);
            assert!(took <= deadline + TOLERANCE, "{what}");
            let standing: Vec<String> = net(world.path()).into_keys().collect();
            match outcome.exit_code() {
                ExitCode::Done => assert!(outcome.serving == Serving::Target && slow < deadline, "{what}"),
                ExitCode::DeadlineMissed => assert!(outcome.serving == Serving::Source && standing == ["snapshot"], "{what}: {standing:?}"),
                _ => panic!("{what}"),
            }
            outcome.exit_code() == ExitCode::DeadlineMissed
        });
    }
    let undone = nights.join_all().await.into_iter().filter(|undone| *undone).count();
    eprintln!("{undone} of 20 nights were undone in time, the others done in time");
    assert!((1..20).contains(&undone), "{undone} of 20: the slowdowns are no test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_touches_nothing() {
    let world = cutover(json!({ "estimate_ms": 60_000 }), json!({}));
    let request = RunRequest::new(Arc::new(world.scenario.playbook.clone()), RunKind::Production, StageName::Settle);
    let (steps, forecast) = preview(&request, world.scenario.built(), BTreeMap::new(), std::sync::Arc::default()).await.unwrap();
    assert_eq!(steps.len(), 5);
    assert_eq!(steps[2].plan.as_ref().unwrap().lines, ["append `drain` to the ledger"]);
    assert!((forecast.seconds - 60.0).abs() < 0.001 && (forecast.with_margin_seconds - 75.0).abs() < 0.001);
    assert!(!world.path().join("state").exists() && ledger(world.path()).is_empty());
}
