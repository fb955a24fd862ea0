//! `dbmove ctl` on real servers: a copy that is slowed down and paused while it is followed, and is equal at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::time::{Duration, Instant};

use dbmove::local::{Account, ServerKind};
use mysql_async::prelude::Queryable;
use serde_json::Value;
use world::{World, code, said};

/// Rows a second that the copy is held to.
const RATE: f64 = 2000.0;
/// Rows that may be under way beyond it: a chunk of each reader and those that wait for a writer, 256 KiB each.
const UNDER_WAY: f64 = 12_000.0;

async fn ctl(world: &World, words: &[&str]) -> std::process::Output {
    let playbook = world.playbook_argument();
    let arguments: Vec<&str> = ["--json", "ctl", &playbook].into_iter().chain(words.iter().copied()).collect();
    world.finished_within(Duration::from_secs(30), &arguments).await
}

/// What the driver says of its steps.
async fn live(world: &World) -> Value {
    let asked = ctl(world, &["status"]).await;
    serde_json::from_slice::<Value>(&asked.stdout).map(|answer| answer["live"]["steps"].clone()).unwrap_or_default()
}

fn done(steps: &Value, step: &str) -> u64 {
    steps[step]["done"].as_u64().unwrap_or(0)
}

async fn wait_for(world: &World, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let steps = live(world).await;
        if is_so(&steps) {
            return steps;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what} never came: {steps:#}\n{}", log(world));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn log(world: &World) -> String {
    std::fs::read_to_string(world.path("run.log")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_slowed_down_and_paused_while_following_goes_on() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("a_copy_is_slowed_down_and_paused_while_following_goes_on", &kinds) {
        return;
    }
    let mut world = World::start(kinds[0], kinds[1], 0.3).await;
    let writers = world.write(60.0, 30.0).await;
    let playbook = world.playbook_argument();
    let mut run = world.started(&["--yes", "run", &playbook, "--no-follow"], "run.log");
    let began = Instant::now();
    loop {
        let throttled = ctl(&world, &["throttle", "2000rows/s", "--by", "alice"]).await;
        if code(&throttled) == 0 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{}\n{}", said(&throttled), log(&world));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let first = wait_for(&world, "the copy", |steps| done(steps, "snapshot") > 0).await;
    let began = Instant::now();
    assert_eq!(first["snapshot"]["throttle"], "throttled to 2000 rows/s by alice", "{first:#}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let later = live(&world).await;
    let copied = (done(&later, "snapshot") - done(&first, "snapshot")) as f64;
    let allowed = RATE * began.elapsed().as_secs_f64() + UNDER_WAY;
    assert!(copied > 0.0 && copied < allowed, "{copied} rows where {allowed} were allowed: {later:#}");

    let paused = ctl(&world, &["pause", "--by", "bob", "--reason", "exam week"]).await;
    assert_eq!(code(&paused), 0, "{}", said(&paused));
    // What was under way comes to its end.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let still = live(&world).await;
    assert!(
        still["snapshot"]["throttle"].as_str().is_some_and(|why| why.starts_with("paused by bob") && why.ends_with(": exam week")),
        "{still:#}"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stood = live(&world).await;
    assert_eq!(done(&stood, "snapshot"), done(&still, "snapshot"), "a paused copy went on");
    assert!(done(&stood, "follow") > done(&still, "follow"), "following stood still too: {stood:#}");
    assert!(log(&world).contains("held back: paused by bob"), "{}", log(&world));

    for words in [["throttle", "off"].as_slice(), ["resume"].as_slice()] {
        let told = ctl(&world, words).await;
        assert_eq!(code(&told), 0, "{}", said(&told));
    }
    let status = tokio::time::timeout(Duration::from_secs(120), run.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{}", log(&world));
    world::stopped(writers).await;
    // The run compared every row; the report says who told it what.
    let report = world.finished(&["--json", "report"]).await;
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["verifications"][0]["difference_count"], 0, "{report:#}");
    let told: Vec<&str> = report["approvals"]["told"].as_array().unwrap().iter().filter_map(|told| told["act"].as_str()).collect();
    assert_eq!(told, ["throttle 2000 rows/s", "pause", "throttle off", "resume"]);
}

async fn said_in(world: &World, log: &str, words: &str) {
    let (path, began) = (world.path(log), Instant::now());
    while !world::says(&path, words) {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "`{words}` never came:\n{}",
            std::fs::read_to_string(&path).unwrap_or_default()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Nor are they while a client is in the middle of something that the fence would end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cutover_waits_for_a_transaction_that_is_open() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("a_cutover_waits_for_a_transaction_that_is_open", &kinds) {
        return;
    }
    let world = World::start(kinds[0], kinds[1], 0.01).await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut client = world::connect(&world.source, Account::App).await;
    for statement in ["BEGIN", "UPDATE school.accounts SET version = version + 1 WHERE id = 1"] {
        client.query_drop(statement).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    let arguments = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of whom it waits for"];
    let mut cutover = world.started(&arguments, "cutover.log");
    let log = world.path("cutover.log");
    let said = || std::fs::read_to_string(&log).unwrap();
    said_in(&world, "cutover.log", "has had a transaction open for").await;
    assert!(said().contains("the cutover waits for `follow`: on the source `app`@`"), "{}", said());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world::number(&world.source, "SELECT @@global.read_only").await, 0, "{}", said());
    client.query_drop("COMMIT").await.unwrap();
    let status = tokio::time::timeout(Duration::from_secs(50), cutover.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{}", said());
    assert!(!said().contains("the cutover goes on though"), "{}", said());
}

/// Writes are not held for what could be caught up with while they pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cutover_waits_until_the_target_is_near() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("a_cutover_waits_until_the_target_is_near", &kinds) {
        return;
    }
    let mut world = World::start(kinds[0], kinds[1], 0.1).await;
    let writers = world.write(60.0, 30.0).await;
    let playbook = world.playbook_argument();
    let mut run = world.started(&["--yes", "run", &playbook], "run.log");
    said_in(&world, "run.log", "stage verify done").await;
    let held = ctl(&world, &["hold-cutover"]).await;
    assert_eq!(code(&held), 0, "{}", said(&held));
    let arguments = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of what it waits for"];
    let mut cutover = world.started(&arguments, "cutover.log");
    said_in(&world, "cutover.log", "follow ready after").await;
    run.wait().await.unwrap();

    let mut target = world::connect(&world.target, Account::Root).await;
    target.query_drop("FLUSH TABLES WITH READ LOCK").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let go = ctl(&world, &["go"]).await;
    assert_eq!(code(&go), 0, "{}", said(&go));
    said_in(&world, "cutover.log", "the cutover waits for `follow`: the target is").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world::number(&world.source, "SELECT @@global.read_only").await, 0, "writes were held for what was still to come");
    target.query_drop("UNLOCK TABLES").await.unwrap();

    let status = tokio::time::timeout(Duration::from_secs(120), cutover.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{}", std::fs::read_to_string(world.path("cutover.log")).unwrap());
    tokio::time::sleep(Duration::from_millis(700)).await;
    world::stopped(writers).await;
    let verdict = world.ledger_on(&world.target).await;
    assert!(verdict.is_clean(), "{verdict:#?}");
}
