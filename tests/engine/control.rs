//! What a driver may be told, and when not: a pause while writes are held would keep clients waiting for a person.

use std::time::{Duration, Instant};

use dbmove::engine::control::setting::Setting;
use dbmove::engine::control::{Act, Answer, Control, Controlled, Request, VERSION, socket};
use dbmove::engine::journal::{JournalReader, Phase};
use dbmove::engine::outcome::{ExitCode, Serving, Verdict};
use dbmove::playbook::model::StageName;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::world::{World, ledger, step, story_with_way_back, switch};

async fn told(world: &World, act: Act) -> Answer {
    let run = world.state().run;
    let request = Request { version: VERSION, run, act: Some(act), by: "alice".to_owned(), reason: None };
    socket::ask(&world.path().join("state"), &request).await.unwrap().answer
}

async fn running(world: &World, step: &str) {
    let began = Instant::now();
    loop {
        let reader = JournalReader::open(&world.path().join("state"));
        let state = reader.ok().and_then(|reader| reader.state(&reader.runs().ok()?.first()?.run.clone()).ok());
        if state.is_some_and(|state| state.step(step).phase == Phase::Running) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "`{step}` never ran");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_pauses_a_run_that_holds_writes() {
    let world = World::new(json!({
        "cutover": [
            step("canary", json!({ "waits_for": "sung" })),
            step("fence", json!({ "holds_writes": true })),
            step("drain", json!({ "waits_for": "drained" })),
            switch("switch", json!({})),
        ],
    }));
    let scenario = world.scenario.clone();
    let run = tokio::spawn(async move { scenario.drive(CancellationToken::new()).await.unwrap() });
    // In the cutover, and clients write still: a person may have it wait.
    running(&world, "canary").await;
    assert!(matches!(told(&world, Act::Pause).await, Answer::Taken { .. }));
    assert!(matches!(told(&world, Act::Resume).await, Answer::Taken { .. }));
    world.put("sung");
    running(&world, "drain").await;
    let events = world.kinds().len();
    match told(&world, Act::Pause).await {
        Answer::Refused { message } => assert!(message.contains("writes are held") && message.contains("nothing was changed"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.kinds().len(), events, "a refused act was recorded");
    assert_eq!(world.state().pause(), None);
    world.put("drained");
    let outcome = run.await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Done, Serving::Target), "{}", outcome.verdict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_only_asked_a_person_can_be_held() {
    let mut world = World::new(json!({
        "sync": [step("follow", json!({ "service": true }))],
        "cutover": [step("ask", json!({ "fails": "waiting", "fails_while": "asking", "undoable": "nothing" })), switch("switch", json!({}))],
    }));
    world.put("asking");
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::WaitingForApproval);
    world.scenario.until = StageName::Verify;
    world.scenario.keep_services = true;
    let (scenario, cancel) = (world.scenario.clone(), CancellationToken::new());
    let stop = cancel.clone();
    let following = tokio::spawn(async move { scenario.drive(stop).await.unwrap() });
    running(&world, "follow").await;
    let answer = told(&world, Act::HoldCutover).await;
    assert!(matches!(answer, Answer::Taken { .. }), "{answer:?}");
    cancel.cancel();
    following.await.unwrap();

    // And it is held: nothing of it begins before the word.
    world.take("asking");
    world.scenario.until = StageName::Settle;
    world.scenario.keep_services = false;
    let begun = |world: &World| ledger(world.path()).iter().filter(|line| *line == "begin ask").count();
    let before = begun(&world);
    let scenario = world.scenario.clone();
    let run = tokio::spawn(async move { scenario.drive(CancellationToken::new()).await.unwrap() });
    running(&world, "follow").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(begun(&world), before, "it began though it was held");
    assert!(matches!(told(&world, Act::Go).await, Answer::Taken { .. }));
    assert_eq!(run.await.unwrap().serving, Serving::Target);
}

/// Which limit on held writes counts: what a person set stands for what the driver had; what is said with a later command counts more.
#[test]
fn the_last_word_on_the_write_gap_counts() {
    let world = World::new(json!({}));
    let mut control = Control::default();
    let set = Setting::MaxWriteGap { milliseconds: 10_000, instead_of: Some(30_000) };
    let controlled = Controlled { act: Act::Set { setting: set }, by: "alice".to_owned(), from: "here".to_owned(), reason: None };
    control.apply(jiff::Timestamp::now(), &controlled);
    for (seconds, typed, roll_back, counts) in [
        (30, false, false, 10),
        (30, true, false, 10),
        (60, true, false, 60),
        (60, false, false, 10),
        (30, false, true, 10),
        (30, true, true, 30),
        (60, true, true, 60),
    ] {
        let mut request = world.scenario.request();
        (request.max_write_gap, request.max_write_gap_typed, request.roll_back) = (Duration::from_secs(seconds), typed, roll_back);
        let found = request.max_write_gap_in(&control).as_secs();
        assert_eq!(found, counts, "{seconds} s, typed: {typed}, rollback: {roll_back}");
        assert_eq!(request.max_write_gap_in(&Control::default()).as_secs(), seconds);
    }
}

/// The smoke test behind the switch fails, and the rollback that follows waits for what the target has logged, for as long as that takes: it can
/// be called off by whoever can end any other run, and clients are left where they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_called_off_until_it_has_undone_something() {
    let mut story = story_with_way_back();
    let release = story["cutover"].as_array().unwrap().iter().position(|step| step["id"] == "release").unwrap();
    story["cutover"][release] = step("release", json!({ "fails": "definite", "fails_while": "smoke" }));
    let mut world = World::new(story);
    world.put("smoke");
    let failed = world.drive().await.unwrap();
    assert_eq!((failed.exit_code(), failed.serving), (ExitCode::Error, Serving::Target), "{}", failed.verdict);
    assert!(world.state().stages[&StageName::Cutover].done.is_none());

    world.scenario.roll_back = true;
    world.put("far");
    let count = |world: &World, line: &str| ledger(world.path()).iter().filter(|found| *found == line).count();
    for (number, how) in ["interrupt", "abort", "handover"].into_iter().enumerate() {
        let (scenario, cancel) = (world.scenario.clone(), CancellationToken::new());
        let stop = cancel.clone();
        let run = tokio::spawn(async move { scenario.drive(stop).await.unwrap() });
        let began = Instant::now();
        while count(&world, "near back") <= number {
            assert!(began.elapsed() < Duration::from_secs(60), "{how}: the rollback never came to wait");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut next = None;
        match how {
            "interrupt" => cancel.cancel(),
            "abort" => match told(&world, Act::Abort).await {
                Answer::Taken { message } => assert!(message.contains("clients stay on the target"), "{message}"),
                other => panic!("{other:?}"),
            },
            _ => {
                world.take("smoke");
                let mut scenario = world.scenario.clone();
                (scenario.roll_back, scenario.take_over_ms) = (false, Some(60_000));
                let stop = CancellationToken::new();
                let ended = stop.clone();
                next = Some((tokio::spawn(async move { scenario.drive(ended).await.unwrap() }), stop));
            }
        }
        let ended = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap_or_else(|_| panic!("{how} was not heard")).unwrap();
        let heard = match how {
            "interrupt" => ended.verdict == Verdict::Interrupted,
            "abort" => matches!(ended.verdict, Verdict::Aborted { .. }),
            _ => matches!(ended.verdict, Verdict::HandedOver { .. }),
        };
        assert!(heard && ended.serving == Serving::Target, "{how}: {} {:?}", ended.verdict, ended.serving);
        assert!(count(&world, "give back") > number, "{how}: the target was not given back");
        assert!(!ledger(world.path()).iter().any(|line| line.starts_with("undo")), "{how}: something was undone");
        if let Some((next, stop)) = next {
            // It brings the cutover to its end, and keeps the way back open for as long as it is let.
            let began = Instant::now();
            while count(&world, "apply tidy") == 0 {
                assert!(began.elapsed() < Duration::from_secs(60), "who was handed the run does not go on: {:?}", ledger(world.path()));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stop.cancel();
            let done = tokio::time::timeout(Duration::from_secs(60), next).await.unwrap().unwrap();
            assert_eq!((done.verdict, done.serving), (Verdict::Interrupted, Serving::Target));
        }
    }
}
