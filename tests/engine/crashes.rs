//! Killed with SIGKILL at every named point, and driven on, a run ends as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use dbmove::engine::crash::POINTS;
use dbmove::engine::outcome::{ExitCode, Serving, Verdict};

use serde_json::json;

use crate::world::{World, ledger, lines, net, step, story_with_way_back, switch, was_killed, whole_story};

/// The ways a run can go that together pass every point.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Story {
    /// Production, through the switch to the end.
    Success,
    /// Production; the drain fails, the cutover stage is undone.
    Undone,
    /// A rehearsal: through the switch and all the way back.
    Rehearsal,
    /// A rehearsal that tries the rollback too.
    Rollback,
}

/// What can be seen of a run from outside when it is over.
#[derive(Debug, PartialEq)]
struct End {
    code: Option<i32>,
    standing: BTreeMap<String, i64>,
    verdict: Verdict,
    serving: Serving,
    certified: bool,
}

fn world(story: Story) -> World {
    let mut world = World::new(if story == Story::Rollback { story_with_way_back() } else { whole_story() });
    world.scenario.rehearsal = matches!(story, Story::Rehearsal | Story::Rollback);
    if story == Story::Undone {
        world.put("drain_fails");
    }
    world
}

fn end(world: &World, code: Option<i32>) -> End {
    let state = world.state();
    let finished = state.finished.expect("the run ended without saying so");
    let audit = world.reader().audit().unwrap();
    assert_eq!(audit.broken, None, "the crash broke the hash chain");
    End { code, standing: net(world.path()), verdict: finished.verdict, serving: finished.serving, certified: state.certificate.is_some() }
}

fn undisturbed(story: Story) -> End {
    let world = world(story);
    let status = world.drive_elsewhere(None);
    end(&world, status.code())
}

/// Every `begin` of a step after an `apply` of it that was not undone was a blind run.
fn assert_no_blind_run(world: &Path) {
    let mut standing = BTreeSet::new();
    for line in lines(world, "ledger") {
        let mut words = line.split(' ');
        let (verb, id) = (words.next().unwrap(), words.next().unwrap());
        match verb {
            "apply" => assert!(standing.insert(id.to_owned()), "`{id}` acted twice"),
            "undo" => assert!(standing.remove(id), "`{id}` was undone twice"),
            "begin" if !["follow", "fence", "drain", "back"].contains(&id) => {
                assert!(!standing.contains(id), "`{id}` was run again although its effect stood");
            }
            _ => {}
        }
    }
}

/// Kills at these points one after the other, then lets it end.
fn killed_at(story: Story, points: &[&str]) -> Option<(World, End)> {
    let world = world(story);
    for point in points {
        if !was_killed(world.drive_elsewhere(Some(point))) {
            return None;
        }
    }
    let mut status = world.drive_elsewhere(None);
    // Killed after its last word, the production run is over and says so; a rehearsal would start anew.
    if points.last().is_some_and(|point| point.starts_with("run.finished")) && story == Story::Success {
        assert_eq!(status.code(), Some(4), "a run that is over was driven again");
        status = std::os::unix::process::ExitStatusExt::from_raw(0);
    }
    assert_no_blind_run(world.path());
    let end = end(&world, status.code());
    Some((world, end))
}

fn assert_like_undisturbed(story: Story, expected: &End, points: &[&str]) -> bool {
    match killed_at(story, points) {
        None => false,
        Some((_, found)) => {
            assert_eq!(&found, expected, "{story:?} killed at {points:?}");
            true
        }
    }
}

#[test]
fn every_point_of_the_engine_survives_a_kill() {
    let stories = [Story::Success, Story::Undone, Story::Rehearsal, Story::Rollback];
    let ends: Vec<End> = stories.iter().map(|story| undisturbed(*story)).collect();
    assert!(matches!(ends[0].verdict, Verdict::Done { .. }) && ends[0].serving == Serving::Target, "{:?}", ends[0]);
    assert_eq!(ends[0].standing.len(), 7, "{:?}", ends[0]);
    assert!(matches!(ends[1].verdict, Verdict::Failed { .. }) && ends[1].serving == Serving::Source, "{:?}", ends[1]);
    assert_eq!(ends[1].standing.keys().collect::<Vec<_>>(), ["follow", "rows", "snapshot"]);
    assert!(ends[2].certified && ends[2].serving == Serving::Source, "{:?}", ends[2]);
    assert!(ends[2].standing.is_empty(), "{:?}", ends[2]);
    assert_eq!((ends[3].certified, ends[3].serving, ends[3].standing.len()), (true, Serving::Source, 0), "{:?}", ends[3]);
    let mut killed = 0;
    for point in POINTS.iter().filter(|point| is_engine_point(point)) {
        let mut passed = false;
        for (story, expected) in stories.iter().zip(&ends) {
            let before: &[&str] = if point.starts_with("resume.") { &["step.effect_done#2"] } else { &[] };
            // The sixth commit lies inside the first stage; others are passed once for each step.
            for number in [1, 2, 6] {
                if *point == "run.finished" && *story != Story::Success {
                    continue;
                }
                let armed = format!("{point}#{number}");
                let points: Vec<&str> = before.iter().copied().chain([armed.as_str()]).collect();
                if assert_like_undisturbed(*story, expected, &points) {
                    killed += 1;
                    passed = true;
                } else {
                    break;
                }
            }
        }
        assert!(passed, "no story passes `{point}`");
    }
    println!("killed {killed} times");
}

#[test]
fn a_kill_after_any_commit_is_survived() {
    let expected = undisturbed(Story::Success);
    let mut killed = 0;
    for number in 1.. {
        let armed = format!("journal.committed#{number}");
        let world = world(Story::Success);
        if !was_killed(world.drive_elsewhere(Some(&armed))) {
            break;
        }
        if world.reader().runs().is_ok_and(|runs| runs.first().is_some_and(|run| run.concluded)) {
            continue;
        }
        let status = world.drive_elsewhere(None);
        assert_no_blind_run(world.path());
        assert_eq!(end(&world, status.code()), expected, "killed at {armed}");
        killed += 1;
    }
    assert!(killed >= 40, "only {killed} commits were met");
    println!("killed after {killed} commits");
}

#[test]
fn an_undo_cut_short_twice_goes_on() {
    let expected = undisturbed(Story::Undone);
    assert!(assert_like_undisturbed(Story::Undone, &expected, &["undo.effect_done", "undo.intent_written"]));
    assert!(assert_like_undisturbed(Story::Undone, &expected, &["undo.started", "undo.finished"]));
}

#[test]
fn a_kill_inside_the_cutover_undoes_the_stage_and_starts_it_again() {
    // The fifth outcome is the fence's: assess, snapshot, rows, fence (the service has none yet).
    let (world, end) = killed_at(Story::Success, &["step.outcome_written#4"]).unwrap();
    assert_eq!(end.serving, Serving::Target);
    let ledger = crate::world::ledger(world.path());
    let held: Vec<&String> = ledger.iter().filter(|line| line.ends_with(" fence") && !line.starts_with("begin")).collect();
    assert_eq!(held, ["hold fence", "let_go fence", "undo_nothing fence", "hold fence"]);
    assert!(world.kinds().contains(&"undo_started".to_owned()));
}

#[test]
fn behind_the_point_of_no_return_it_goes_forward_and_holds_what_died_with_the_process() {
    let (world, end) = killed_at(Story::Success, &["point_of_no_return.effect_done"]).unwrap();
    assert_eq!(end.serving, Serving::Target);
    let ledger = crate::world::ledger(world.path());
    assert!(!ledger.iter().any(|line| line.starts_with("undo ")), "{ledger:?}");
    assert_eq!(
        ledger.iter().filter(|line| *line == "hold fence").count(),
        2,
        "the fence died with the process and must be held again: {ledger:?}"
    );
    assert_eq!(ledger.iter().filter(|line| *line == "apply switch").count(), 1);
    assert_eq!(ledger.iter().filter(|line| *line == "probe switch").count(), 1);
}

/// Its `run` may have had something to do behind the switch: clients that are let through a few at a time only, say.
#[test]
fn what_a_switch_found_done_had_still_to_do_is_finished_before_the_run_goes_on() {
    let finished = |world: &World| {
        let ledger = crate::world::ledger(world.path());
        let of_interest = |line: &String| line.starts_with("finish ") || line == "begin release";
        ledger.into_iter().filter(of_interest).collect::<Vec<_>>()
    };
    let (undisturbed, _) = killed_at(Story::Success, &[]).unwrap();
    assert_eq!(finished(&undisturbed), ["begin release"]);
    let (world, _) = killed_at(Story::Success, &["point_of_no_return.effect_done"]).unwrap();
    assert_eq!(finished(&world), ["finish switch", "begin release"]);
    // It is not believed to be finished until it was.
    let (world, _) = killed_at(Story::Success, &["point_of_no_return.effect_done", "resume.finished"]).unwrap();
    assert_eq!(finished(&world), ["finish switch", "finish switch", "begin release"]);

    let world = self::world(Story::Success);
    world.put("no_finish_of_switch");
    assert!(was_killed(world.drive_elsewhere(Some("point_of_no_return.effect_done"))));
    for _ in 0..2 {
        assert_eq!(world.drive_elsewhere(None).code(), Some(1));
        let found = world.state().finished.unwrap();
        assert_eq!(found.serving, Serving::Target);
        let said = found.verdict.to_string();
        assert!(said.contains("found done, and what it had still to do failed: `switch` can't be finished"), "{said}");
        assert_eq!(found.verdict.hint().unwrap(), "take the file away; then give the same command again: it tries that once more");
    }
    world.take("no_finish_of_switch");
    assert_eq!(world.drive_elsewhere(None).code(), Some(0));
    assert_eq!(finished(&world), ["finish switch", "finish switch", "finish switch", "begin release"]);
}

/// As long as clients are on the target for certain, it takes writes again by itself if the driver dies. Once the route may be back, nobody does.
#[test]
fn a_hold_is_watched_over_until_the_route_may_be_back() {
    let takes = |points: &[&str]| {
        let (world, _) = killed_at(Story::Rollback, points).unwrap();
        let ledger = crate::world::ledger(world.path());
        let of_interest = |line: &&String| ["take", "take_unwatched", "keep", "give"].contains(&line.split(' ').next().unwrap());
        let seen: Vec<String> = ledger.iter().filter(of_interest).map(|line| line.replace(" back", "")).collect();
        // The route's undo comes second, behind that of `release`.
        seen.join(" ")
    };
    assert_eq!(takes(&[]), "take keep");
    assert_eq!(takes(&["undo.started"]), "take take keep");
    assert_eq!(takes(&["undo.outcome_written"]), "take take keep");
    assert_eq!(takes(&["undo.intent_written#2"]), "take keep take_unwatched keep");
    assert_eq!(takes(&["undo.outcome_written#2"]), "take keep take_unwatched keep");
}

#[test]
fn the_idempotency_key_is_the_same_after_a_crash() {
    let (world, _) = killed_at(Story::Success, &["step.intent_written#2"]).unwrap();
    assert!(world.kinds().contains(&"probed".to_owned()));
    let events = world.reader().events(&world.state().run, 0).unwrap();
    let keys: Vec<String> = events
        .iter()
        .filter_map(|event| match &event.event {
            dbmove::engine::journal::Event::Intent { step, key, .. } if step == "snapshot" => Some(key.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn a_stranger_at_the_point_of_no_return_stops_the_run() {
    let world = world(Story::Success);
    assert!(was_killed(world.drive_elsewhere(Some("point_of_no_return.effect_done"))));
    world.put("foreign");
    let status = world.drive_elsewhere(None);
    assert_eq!(status.code(), Some(1));
    let state = world.state();
    assert_eq!(state.finished.as_ref().unwrap().serving, Serving::Unclear);
    assert!(state.finished.unwrap().verdict.to_string().contains("stranger"));
    world.take("foreign");
    assert_eq!(world.drive_elsewhere(None).code(), Some(0));
    assert_eq!(world.state().serving(), Serving::Target);
}

#[test]
fn a_switch_that_is_half_done_and_cant_be_undone_or_seen_keeps_writes_held() {
    let mut story = whole_story();
    story["cutover"][2] = switch("switch", json!({ "undoable": "no", "half_while": "half", "unseen_while": "unseen" }));
    for sight in ["half", "unseen"] {
        let world = World::new(story.clone());
        assert!(was_killed(world.drive_elsewhere(Some("point_of_no_return.effect_done"))));
        world.put(sight);
        for _again in 0..2 {
            assert_eq!(world.drive_elsewhere(None).code(), Some(1));
            let state = world.state();
            assert_eq!(state.serving(), Serving::Unclear, "{sight}");
            assert!(state.open_write_gap().is_some(), "{sight}");
            assert!(
                !ledger(world.path()).iter().any(|line| line.starts_with("let_go") || line.starts_with("undo")),
                "{:?}",
                ledger(world.path())
            );
        }
        world.take(sight);
        assert_eq!(world.drive_elsewhere(None).code(), Some(0), "{sight}");
        assert_eq!(world.state().serving(), Serving::Target, "{sight}");
    }
}

/// Points of hooks are in `hooks`, which has a story with some.
fn is_engine_point(point: &str) -> bool {
    ENGINE_GROUPS.contains(&point.split('.').next().unwrap()) && !OF_STORES.contains(&point)
}

/// Those of a rollback that `mysql.reverse` passes and not the engine.
const OF_STORES: [&str; 5] = ["rollback.noted", "rollback.held", "rollback.taken_back", "rollback.disarming", "rollback.disarmed"];

const ENGINE_GROUPS: [&str; 12] =
    ["run", "lease", "stage", "step", "service", "write_gap", "point_of_no_return", "undo", "resume", "journal", "certificate", "rollback"];

fn sources(directory: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_point_called_is_listed_and_every_point_listed_is_called() {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let mut called = BTreeSet::new();
    for text in &texts {
        for call in text.split("crash::point(").skip(1) {
            // The argument, up to the statement's end: one name, or the two of an `if`.
            let argument = call.split(';').next().unwrap();
            for name in argument.split('"').skip(1).step_by(2) {
                called.insert(name.to_owned());
            }
        }
    }
    let listed: BTreeSet<String> = POINTS.iter().map(|point| (*point).to_owned()).collect();
    assert_eq!(called, listed);
    assert_eq!(listed.len(), POINTS.len(), "a point is listed twice");
}

/// The target is gone, maybe because of that somebody killed the driver: the source takes writes again all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cant_be_claimed_does_not_keep_the_source_without_writes() {
    for give_up in [false, true] {
        let mut world = World::new(json!({ "cutover": [
            step("fence", json!({ "holds_writes": true })),
            step("drain", json!({ "waits_for": "drained" })),
            switch("switch", json!({})),
        ]}));
        let mut first = world.start_elsewhere(None);
        let began = Instant::now();
        while !world.path().join("ledger").exists() || !ledger(world.path()).contains(&"begin drain".to_owned()) {
            assert!(began.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        first.kill().unwrap();
        assert!(was_killed(first.wait().unwrap()));
        assert!(world.state().open_write_gap().is_some());
        world.put("target.unreachable");
        world.scenario.give_up = give_up;
        let error = world.drive().await.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Error);
        assert!(error.to_string().contains("the source takes writes again"), "{error}");
        assert!(net(world.path()).is_empty() && world.state().open_write_gap().is_none(), "{:?}", ledger(world.path()));
        // Where nothing is held there is nothing to settle.
        let error = world.drive().await.unwrap_err().to_string();
        assert!(error.contains("can't be reached") && !error.contains("takes writes again"), "{error}");
        world.take("target.unreachable");
        world.put("drained");
        assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    }
}
