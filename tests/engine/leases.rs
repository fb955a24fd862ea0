//! One driver per run: the second is turned away, the dead one's run is taken over, the stale one is refused everywhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmove::engine::certificate::Certificate;
use dbmove::engine::context::{Checkpoints, NoCheckpoints};
use dbmove::engine::handover::{accept_request, request_handover, withdraw_request};
use dbmove::engine::journal::Journal;
use dbmove::engine::lease::{LeaseError, Liveness, Owner};
use dbmove::engine::outcome::{ExitCode, Serving, Verdict};
use dbmove::engine::run::EngineError;
use dbmove::engine::step::{Epoch, TargetLease};
use dbmove::playbook::model::StageName;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::doubles::FileLease;
use crate::world::{Scenario, World, ledger, rehearsed, step, story_with_way_back, switch, was_killed, whole_story};

fn until(limit: Duration, what: &str, mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn following() -> World {
    let mut world = World::new(whole_story());
    world.scenario.until = StageName::Verify;
    world.scenario.keep_services = true;
    world
}

fn wait_until_following(world: &World) {
    until(Duration::from_secs(20), "the first driver follows", || ledger(world.path()).contains(&"apply rows".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_driver_is_told_who_has_the_run() {
    let world = following();
    let mut first = world.start_elsewhere(None);
    wait_until_following(&world);
    let error = world.drive().await.unwrap_err();
    let EngineError::Lease(LeaseError::Held { owner, .. }) = &error else { panic!("{error}") };
    assert_eq!(owner.pid, first.id());
    assert_eq!(error.exit_code(), ExitCode::LeaseHeld);
    assert_eq!(world.drive_elsewhere(None).code(), Some(7));
    let lease = world.reader().lease(&world.state().run).unwrap().unwrap();
    assert!(lease.held && lease.owner.liveness() == Liveness::Alive);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(lease.owner.liveness(), Liveness::Gone);
}

#[test]
fn a_dead_drivers_run_is_taken_over_at_once_with_a_higher_epoch() {
    let mut world = following();
    let mut first = world.start_elsewhere(None);
    wait_until_following(&world);
    first.kill().unwrap();
    assert!(was_killed(first.wait().unwrap()));
    world.scenario.until = StageName::Settle;
    world.scenario.keep_services = false;
    let started = Instant::now();
    assert_eq!(world.drive_elsewhere(None).code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(8), "it waited for the heartbeat to expire");
    assert_eq!(world.state().epoch, Some(Epoch(2)));
    assert!(FileLease(world.path().join("target")).stands().is_none(), "the claim outlived the run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_run_hides_none_that_needs_care() {
    for (point, rehearsal, words) in [
        ("point_of_no_return.effect_done", false, "neither done nor undone"),
        ("point_of_no_return.passed", false, "`dbmove rollback PLAYBOOK`"),
        ("point_of_no_return.passed", true, "`dbmove undo PLAYBOOK --rehearsal`"),
    ] {
        let mut world = World::new(whole_story());
        world.scenario.rehearsal = rehearsal;
        assert!(was_killed(world.drive_elsewhere(Some(point))), "{point}");
        world.scenario.new_run = true;
        let before = world.reader().head().unwrap();
        let error = world.drive().await.unwrap_err();
        assert!(matches!(error, EngineError::Hidden { .. }) && error.to_string().contains(words), "{point}: {error}");
        assert_eq!((error.exit_code(), world.reader().head().unwrap()), (ExitCode::Refused, before), "{point}: something was recorded");
        // Without it the run goes on.
        world.scenario.new_run = false;
        world.scenario.rehearsal = rehearsal;
        assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done, "{point}");
        assert_eq!(world.reader().runs().unwrap().len(), 1);
    }
}

#[test]
fn a_zombie_is_gone() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    until(Duration::from_secs(5), "the child is a zombie", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    });
    assert_eq!(Owner { pid, ..Owner::current() }.liveness(), Liveness::Gone);
    assert_eq!(Owner::current().liveness(), Liveness::Alive);
    assert_eq!(Owner { started: 1, ..Owner::current() }.liveness(), Liveness::Gone, "a reused pid is another process");
    assert_eq!(Owner { host: "elsewhere".to_owned(), ..Owner::current() }.liveness(), Liveness::OutOfSight);
    child.wait().unwrap();
}

#[test]
fn a_running_driver_hands_over_to_a_cutover() {
    let mut world = following();
    let mut first = world.start_elsewhere(None);
    wait_until_following(&world);
    world.scenario.until = StageName::Settle;
    world.scenario.keep_services = false;
    world.scenario.take_over_ms = Some(10_000);
    assert_eq!(world.drive_elsewhere(None).code(), Some(0));
    assert_eq!(first.wait().unwrap().code(), Some(0), "the first driver ends well");
    let state = world.state();
    assert_eq!((state.serving(), state.epoch), (Serving::Target, Some(Epoch(2))));
    let reader = world.reader();
    let handed = reader.events(&state.run, 0).unwrap().into_iter().any(
        |event| matches!(&event.event, dbmove::engine::journal::Event::RunFinished { verdict: Verdict::HandedOver { to }, .. } if to.contains("process")),
    );
    assert!(handed);
    assert!(ledger(world.path()).contains(&"stopped follow".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_inside_the_cutover_does_not_hand_over() {
    let mut world = World::new(json!({ "cutover": [step("slow", json!({ "sleep_ms": 6_000 }))] }));
    let mut first = world.start_elsewhere(None);
    until(Duration::from_secs(20), "the first driver is in its cutover", || ledger(world.path()).contains(&"begin slow".to_owned()));
    world.scenario.take_over_ms = Some(2_500);
    let started = Instant::now();
    let error = world.drive().await.unwrap_err();
    assert!(matches!(error, EngineError::Lease(LeaseError::Held { .. })), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(2_400), "it gave up without patience");
    assert_eq!(first.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_a_person_in_its_cutover_is_followed_and_handed_over() {
    let mut world = World::new(json!({
        "sync": [step("follow", json!({ "service": true }))],
        "cutover": [step("ask", json!({ "fails": "waiting", "fails_while": "asking", "undoable": "nothing" })), switch("switch", json!({}))],
    }));
    world.put("asking");
    let waiting = world.drive().await.unwrap();
    assert_eq!((waiting.exit_code(), waiting.serving), (ExitCode::WaitingForApproval, Serving::Source));
    assert!(waiting.undone.is_empty(), "a step that only asked was undone: {:?}", waiting.undone);
    world.scenario.until = StageName::Verify;
    world.scenario.keep_services = true;
    let mut following = world.start_elsewhere(None);
    let begun = |world: &World| ledger(world.path()).iter().filter(|line| *line == "begin follow").count();
    until(Duration::from_secs(20), "it is followed meanwhile", || begun(&world) == 2);
    world.take("asking");
    world.scenario.until = StageName::Settle;
    world.scenario.keep_services = false;
    world.scenario.take_over_ms = Some(10_000);
    assert_eq!(world.drive_elsewhere(None).code(), Some(0), "the driver that only follows did not hand over");
    assert_eq!(following.wait().unwrap().code(), Some(0));
    assert_eq!(world.state().serving(), Serving::Target);
}

#[test]
fn who_is_handed_a_run_waits_until_it_has_it() {
    // Deaf to requests to stop, so that letting go takes the grace of four seconds: longer than the asker's patience.
    let mut world = World::new(json!({
        "sync": [step("slow", json!({ "waits_for": "on", "deaf": true, "undoable": "nothing" }))],
        "settle": [step("after", json!({}))],
    }));
    world.scenario.until = StageName::Sync;
    world.scenario.stop_grace_ms = 4_000;
    let mut first = world.start_elsewhere(None);
    until(Duration::from_secs(20), "the first driver is at work", || ledger(world.path()).contains(&"begin slow".to_owned()));
    world.scenario.take_over_ms = Some(3_000);
    let mut second = world.start_elsewhere(None);
    assert_eq!(first.wait().unwrap().code(), Some(0), "the first driver did not hand over");
    world.put("on");
    assert_eq!(second.wait().unwrap().code(), Some(0), "the asker gave up on a driver that was stopping for it");
    assert_eq!(world.state().epoch, Some(Epoch(2)));
}

#[test]
fn a_request_that_was_taken_back_stops_nobody() {
    let mut world = World::new(json!({ "sync": [step("slow", json!({ "sleep_ms": 6_000 }))] }));
    let mut first = world.start_elsewhere(None);
    until(Duration::from_secs(20), "the first driver is at work", || ledger(world.path()).contains(&"begin slow".to_owned()));
    // Mostly gone before a heartbeat sees it; now and then one does, and then the asker has to get the run.
    world.scenario.take_over_ms = Some(1);
    let refused = world.drive_elsewhere(None).code();
    let reader = world.reader();
    if refused == Some(7) {
        assert_eq!(first.wait().unwrap().code(), Some(0));
        assert_eq!((world.state().epoch, world.state().finished.map(|end| end.concluded)), (Some(Epoch(1)), Some(true)), "it was stopped");
    } else {
        assert_eq!((refused, world.state().epoch), (Some(0), Some(Epoch(2))));
        first.wait().unwrap();
    }
    assert_eq!(reader.audit().unwrap().broken, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_accepted_or_withdrawn_and_never_both() {
    let world = World::new(json!({}));
    let journal = Journal::open(&world.path().join("state")).unwrap();
    let (taken_back, kept) = (request_handover(&journal, "run").await.unwrap(), request_handover(&journal, "run").await.unwrap());
    assert!(withdraw_request(&journal, taken_back).await.unwrap());
    assert!(!accept_request(&journal, taken_back).await.unwrap(), "a driver would stop for somebody who has gone");
    assert!(accept_request(&journal, kept).await.unwrap());
    assert!(!withdraw_request(&journal, kept).await.unwrap(), "an asker would go while a driver stops for it");
    assert!(!accept_request(&journal, kept).await.unwrap(), "accepted twice");
    for _ in 0..50 {
        let request = request_handover(&journal, "run").await.unwrap();
        let (accepted, withdrawn) = tokio::join!(accept_request(&journal, request), withdraw_request(&journal, request));
        assert_ne!(accepted.unwrap(), withdrawn.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asker_that_is_stopped_takes_its_request_back() {
    let mut world = World::new(
        json!({ "cutover": [step("slow", json!({ "sleep_ms": 4_000 }))], "settle": [step("after", json!({ "sleep_ms": 3_000 }))] }),
    );
    let mut first = world.start_elsewhere(None);
    until(Duration::from_secs(20), "the first driver is in its cutover", || ledger(world.path()).contains(&"begin slow".to_owned()));
    world.scenario.take_over_ms = Some(60_000);
    let cancel = tokio_util::sync::CancellationToken::new();
    let (result, ()) = tokio::join!(world.scenario.drive(cancel.clone()), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cancel.cancel();
    });
    let error = result.unwrap_err();
    assert!(matches!(error, EngineError::StoppedWaiting { .. }), "{error}");
    assert_eq!(error.exit_code(), ExitCode::Interrupted);
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!((world.state().epoch, world.state().finished.map(|end| end.concluded)), (Some(Epoch(1)), Some(true)), "it was stopped");
}

/// Stops a driver while it holds no lock on the journal: stopped in the middle of a write it would keep everybody out.
fn stop_between_writes(world: &World, driver: rustix::process::Pid) {
    let connection = rusqlite::Connection::open(world.path().join("state").join(dbmove::engine::journal::FILE)).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    loop {
        rustix::process::kill_process(driver, rustix::process::Signal::STOP).unwrap();
        if connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
            return;
        }
        rustix::process::kill_process(driver, rustix::process::Signal::CONT).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_locked_journal_is_told_apart_from_a_broken_one() {
    let world = World::new(json!({ "sync": [step("a", json!({}))] }));
    drop(Journal::open(&world.path().join("state")).unwrap());
    let connection = rusqlite::Connection::open(world.path().join("state").join(dbmove::engine::journal::FILE)).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(world.drive_elsewhere(None).code(), Some(7));
    assert!(ledger(world.path()).is_empty());
}

#[test]
fn a_driver_that_was_overtaken_stops_and_is_refused_by_journal_and_target() {
    let mut world = following();
    let mut first = world.start_elsewhere(None);
    wait_until_following(&world);
    // A stopped process shows no sign of life but is not dead: after the expiry it may be overtaken.
    let pid = rustix::process::Pid::from_raw(first.id().cast_signed()).unwrap();
    stop_between_writes(&world, pid);
    world.scenario.until = StageName::Settle;
    world.scenario.keep_services = false;
    assert_eq!(world.drive_elsewhere(None).code(), Some(7), "it is not expired yet");
    let run = world.state().run;
    until(Duration::from_secs(20), "the heartbeat expires", || {
        world.reader().lease(&run).unwrap().unwrap().is_free(jiff::Timestamp::now())
    });
    assert_eq!(world.drive_elsewhere(None).code(), Some(0));
    let before = world.reader().head().unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(7), "the stale driver did not notice");
    assert_eq!(world.reader().head().unwrap(), before, "the stale driver wrote to the journal");
    assert_eq!(world.reader().audit().unwrap().broken, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_claimed_by_a_higher_epoch_or_another_run_is_left_alone() {
    let world = World::new(whole_story());
    std::fs::write(world.path().join("target"), "another-run 1").unwrap();
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::LeaseHeld);
    assert!(outcome.verdict.to_string().contains("another-run"));
    assert!(ledger(world.path()).is_empty());
    let lease = FileLease(world.path().join("mine"));
    let no_run: Arc<dyn Checkpoints> = Arc::new(NoCheckpoints);
    lease.claim("run", Epoch(3), &Arc::default(), &no_run).await.unwrap();
    lease.claim("run", Epoch(3), &Arc::default(), &no_run).await.unwrap();
    assert!(lease.claim("run", Epoch(2), &Arc::default(), &no_run).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_drivers_that_start_together_start_one_run() {
    let world = World::new(json!({ "sync": [step("slow", json!({ "sleep_ms": 500 }))] }));
    Journal::open(&world.path().join("state")).unwrap();
    let (one, two) = tokio::join!(world.drive(), world.drive());
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!(world.reader().runs().unwrap().len(), 1);
}

/// Clients are on the target, and a driver carries back what they write.
fn carrying_back() -> (World, std::process::Child) {
    let mut stages = story_with_way_back();
    stages["settle"].as_array_mut().unwrap().insert(0, step("trusted", json!({ "waits_for": "trusted" })));
    let world = World::new(stages);
    let driver = world.start_elsewhere(None);
    until(Duration::from_secs(20), "clients are on the target", || {
        world.path().join("ledger").exists() && ledger(world.path()).contains(&"begin trusted".to_owned())
    });
    (world, driver)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_anyway_takes_no_run_from_its_driver() {
    let (mut world, mut first) = carrying_back();
    world.scenario.take_over_ms = Some(20_000);
    let scenario = world.scenario.clone();
    let changed = {
        let mut playbook = scenario.playbook.clone();
        playbook.about = Some("edited since".to_owned());
        playbook.stages.settle[0].with.insert("threads".to_owned(), json!(8));
        playbook
    };
    let rehearsal_took = Certificate { rollback_seconds: Some(600.0), ..rehearsed(story_with_way_back()).await.1 };
    let asked: Vec<(&str, Scenario, &str)> = vec![
        ("verify", Scenario { until: StageName::Verify, ..scenario.clone() }, "clients are on the target"),
        ("undo", Scenario { give_up: true, ..scenario.clone() }, "would be lost"),
        ("rollback", Scenario { roll_back: true, playbook: changed.clone(), ..scenario.clone() }, "the playbook changed"),
        (
            "rollback",
            Scenario {
                roll_back: true,
                deadline: Some("2m".to_owned()),
                unrehearsed: false,
                certificate: Some(rehearsal_took),
                ..scenario.clone()
            },
            "a rollback took 600 s",
        ),
    ];
    for (command, scenario, words) in asked {
        let error = Scenario::drive(&scenario, CancellationToken::new()).await.unwrap_err();
        assert!(error.to_string().contains(words) && error.exit_code() == ExitCode::Refused, "{command}: {error}");
        assert_eq!(world.state().epoch, Some(Epoch(1)), "{command} took the run over");
        assert!(first.try_wait().unwrap().is_none(), "{command} ended the driver that carries back");
    }

    // What is not refused does take it over.
    world.scenario.roll_back = true;
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.verdict, outcome.serving), (Verdict::RolledBack, Serving::Source));
    assert_eq!(first.wait().unwrap().code(), Some(0));
}

/// Nobody but a person can tell whether what a gate asks is so; that must not make the run deaf to everything but a yes.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_behind_the_switch_can_be_answered_by_leaving() {
    let mut stages = story_with_way_back();
    let gate = step("looks_right", json!({ "fails": "waiting", "fails_while": "asked" }));
    stages["cutover"].as_array_mut().unwrap().push(gate);
    let mut world = World::new(stages);
    world.put("asked");
    let asked = |world: &World| {
        let path = world.path().to_owned();
        let before = if path.join("ledger").exists() { ledger(&path).len() } else { 0 };
        move || path.join("ledger").exists() && ledger(&path)[before..].contains(&"begin looks_right".to_owned())
    };

    let cancel = CancellationToken::new();
    let (stands, stop) = (asked(&world), cancel.clone());
    let (outcome, ()) = tokio::join!(world.scenario.drive(cancel), async {
        while !stands() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.cancel();
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.verdict, outcome.serving), (Verdict::Interrupted, Serving::Target));
    assert!(outcome.undone.is_empty(), "{:?}", outcome.undone);

    // Handed over to a rollback.
    let stands = asked(&world);
    let mut second = world.start_elsewhere(None);
    until(Duration::from_secs(20), "the gate asks again", stands);
    world.scenario.take_over_ms = Some(20_000);
    world.scenario.roll_back = true;
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.verdict, outcome.serving), (Verdict::RolledBack, Serving::Source));
    assert_eq!(second.wait().unwrap().code(), Some(0));
}
