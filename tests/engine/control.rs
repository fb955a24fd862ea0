//! What a driver may be told, and when not: a pause while writes are held would keep clients waiting for a person.

use std::time::{Duration, Instant};

use dbmove::engine::control::{Act, Answer, Request, VERSION, socket};
use dbmove::engine::journal::{JournalReader, Phase};
use dbmove::engine::outcome::{ExitCode, Serving};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::world::{World, step, switch};

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
