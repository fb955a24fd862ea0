//! A load beside a rehearsal: when it is started, told and ended, and what becomes of a rehearsal whose load can't be made or breaks off.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dbmove::engine::context::{Checkpoints, Outputs};
use dbmove::engine::journal::Journal;
use dbmove::engine::load::{AskedLoad, Clients, Load, LoadContext, LoadFigures};
use dbmove::engine::observer::Silent;
use dbmove::engine::outcome::{ExitCode, RunOutcome, Verdict};
use dbmove::engine::run::drive;
use dbmove::engine::step::{StepError, TargetLease};
use tokio_util::sync::CancellationToken;

use super::doubles::FileLease;
use super::world::{World, ledger, net, story_with_way_back};

/// Does as it is told, and remembers where clients were.
#[derive(Default)]
struct Told {
    refuses: bool,
    breaks: bool,
    clients: Mutex<Vec<Clients>>,
    ended: Mutex<bool>,
}

#[async_trait]
impl Load for Told {
    fn store(&self) -> &'static str {
        "school"
    }
    async fn check(&self, _run: &str, _outputs: &Arc<Outputs>, _checkpoints: &Arc<dyn Checkpoints>) -> Result<(), StepError> {
        if self.refuses { Err(StepError::definite("there is no log").hint("write one")) } else { Ok(()) }
    }
    async fn run(&self, mut context: LoadContext) -> Result<(), StepError> {
        if self.breaks {
            return Err(StepError::definite("the log was purged").hint("keep it longer"));
        }
        let figures = LoadFigures { changes: 10, asked_per_second: 30.0, reached_per_second: 20.0, seconds: 1.0, ..LoadFigures::default() };
        context.figures.send_replace(figures);
        loop {
            let clients = *context.clients.borrow_and_update();
            self.clients.lock().unwrap().push(clients);
            tokio::select! {
                () = context.cancel.cancelled() => break,
                _ = context.clients.changed() => {}
            }
        }
        *self.ended.lock().unwrap() = true;
        Ok(())
    }
}

async fn rehearsed(world: &World, load: &Arc<Told>) -> RunOutcome {
    rehearsed_until(world, load, CancellationToken::new()).await
}

async fn rehearsed_until(world: &World, load: &Arc<Told>, cancel: CancellationToken) -> RunOutcome {
    let mut request = world.scenario.request();
    let loads = vec![Arc::clone(load) as Arc<dyn Load>];
    let options = "--load 3x --load-for 300ms".to_owned();
    request.load = Some(AskedLoad { multiple: "3x".parse().unwrap(), at_least: Duration::from_millis(300), loads, options });
    let lease: Arc<dyn TargetLease> = Arc::new(FileLease(world.path().join("target_copy")));
    let journal = Journal::open(&world.path().join("state")).unwrap();
    drive(request, world.scenario.built(), vec![lease], journal, Arc::new(Silent), cancel).await.unwrap()
}

fn world() -> World {
    let mut world = World::new(story_with_way_back());
    world.scenario.rehearsal = true;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_goes_where_clients_are_and_ends_before_anything_of_it_is_undone() {
    let (world, load) = (world(), Arc::new(Told::default()));
    let outcome = rehearsed(&world, &load).await;
    assert_eq!(outcome.exit_code(), ExitCode::Done, "{}", outcome.verdict);
    // Held moments may be too short to be seen; the order can't be another.
    let mut seen = load.clients.lock().unwrap().clone();
    seen.retain(|clients| !matches!(clients, Clients::Held | Clients::HeldOnTarget));
    assert_eq!(seen, [Clients::OnSource, Clients::OnTarget]);
    assert!(*load.ended.lock().unwrap());
    let kinds = world.kinds();
    let place = |kind: &str| kinds.iter().position(|found| found == kind).unwrap_or_else(|| panic!("no `{kind}` in {kinds:?}"));
    assert!(place("load_started") < place("load_ended") && place("load_ended") < place("certificate_issued"), "{kinds:?}");
    // It fell short of what was asked, which is no failure of the target: the certificate says so.
    let certified = outcome.certificate.unwrap().load.unwrap();
    assert_eq!((certified.asked.to_string().as_str(), certified.asked_per_second, certified.reached_per_second), ("3x", 30.0, 20.0));
    let report = world.state().load.unwrap();
    assert!(report.keeps_up != Some(false) && !report.reached, "{report:?}");
    assert!(report.sentences[0].starts_with("the replay itself did not reach 3x on `school`: asked 30, reached 20 writes/s"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_can_t_be_made_is_refused_before_anything_is_touched() {
    let (world, load) = (world(), Arc::new(Told { refuses: true, ..Told::default() }));
    let outcome = rehearsed(&world, &load).await;
    assert_eq!(outcome.exit_code(), ExitCode::Refused, "{}", outcome.verdict);
    assert!(outcome.verdict.to_string().contains("the load of `school` can't be made: there is no log; nothing was touched"));
    assert_eq!((ledger(world.path()), world.state().load), (Vec::<String>::new(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_breaks_off_fails_the_rehearsal() {
    let (world, load) = (world(), Arc::new(Told { breaks: true, ..Told::default() }));
    let outcome = rehearsed(&world, &load).await;
    assert!(matches!(outcome.verdict, Verdict::Failed { step: None, .. }), "{}", outcome.verdict);
    assert!(outcome.verdict.to_string().contains("the load of `school` broke off: the log was purged"), "{}", outcome.verdict);
    assert_eq!(outcome.certificate, None);
    assert!(net(world.path()).is_empty(), "{:?}", ledger(world.path()));
}

/// Following that never catches up would keep a rehearsal for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_never_catches_up_ends_the_rehearsal() {
    let (mut world, load) = (world(), Arc::new(Told::default()));
    let follow = world.scenario.playbook.stages.sync.iter_mut().find(|step| step.id == "follow").unwrap();
    follow.with.insert("falls_behind".to_owned(), serde_json::json!(true));
    let outcome = tokio::time::timeout(Duration::from_secs(120), rehearsed(&world, &load)).await.expect("it has no end");
    assert!(matches!(outcome.verdict, Verdict::Failed { step: None, .. }), "{}", outcome.verdict);
    assert!(outcome.verdict.to_string().contains("this target can't keep up at 3x"), "{}", outcome.verdict);
    assert!(outcome.verdict.to_string().contains("the lag of `follow` grew"), "{}", outcome.verdict);
    assert_eq!(outcome.certificate, None);
    let report = world.state().load.unwrap();
    assert!(report.keeps_up == Some(false) && report.sentences[0].contains("can't keep up"), "{report:?}");
    assert!(net(world.path()).is_empty(), "{:?}", ledger(world.path()));
}

/// Whoever goes on behind the switch has nothing to look at any more, and does not claim what nobody saw.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_looked_at_is_not_certified() {
    let mut world = world();
    let stages = &mut world.scenario.playbook.stages;
    let follow = stages.sync.iter_mut().find(|step| step.id == "follow").unwrap();
    follow.with.insert("lag_ms".to_owned(), serde_json::json!(0));
    let watch = stages.settle.iter_mut().find(|step| step.id == "watch").unwrap();
    watch.with.insert("waits_for".to_owned(), serde_json::json!("seen"));
    let cancel = CancellationToken::new();
    let behind_the_switch = async {
        while !ledger(world.path()).contains(&"begin watch".to_owned()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cancel.cancel();
    };
    let (load, again) = (Arc::new(Told::default()), Arc::new(Told::default()));
    let (interrupted, ()) = tokio::join!(rehearsed_until(&world, &load, cancel.clone()), behind_the_switch);
    assert_eq!(interrupted.verdict, Verdict::Interrupted);
    world.put("seen");
    let outcome = rehearsed(&world, &again).await;
    assert_eq!(outcome.exit_code(), ExitCode::Done, "{}", outcome.verdict);
    let certified = outcome.certificate.unwrap().load.unwrap();
    assert_eq!((certified.reached_per_second, certified.lag_p99_seconds), (20.0, None));
    let report = world.state().load.unwrap();
    assert_eq!(report.keeps_up, None);
    assert!(report.sentences.iter().any(|sentence| sentence.starts_with("whether following keeps up at 3x is not known")), "{report:?}");
}

/// Its certificate would have no load, and whoever asked for one would not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_under_load_does_not_go_on_without() {
    let mut world = world();
    let watch = world.scenario.playbook.stages.settle.iter_mut().find(|step| step.id == "watch").unwrap();
    watch.with.insert("waits_for".to_owned(), serde_json::json!("seen"));
    let cancel = CancellationToken::new();
    let under_load = async {
        while !world.kinds_if_any().contains(&"load_started".to_owned()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cancel.cancel();
    };
    let (load, again) = (Arc::new(Told::default()), Arc::new(Told::default()));
    let (interrupted, ()) = tokio::join!(rehearsed_until(&world, &load, cancel.clone()), under_load);
    assert_eq!(interrupted.verdict, Verdict::Interrupted);
    world.put("seen");
    let (before, stood) = (world.kinds(), net(world.path()));
    let error = world.drive().await.unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Refused, "{error}");
    assert!(error.to_string().contains("was asked for with `--load 3x --load-for 300ms`"), "{error}");
    assert_eq!(net(world.path()), stood, "the rehearsal was not left as it was");
    let since = world.kinds().split_off(before.len());
    assert!(since.iter().all(|kind| kind.starts_with("lease_")), "{since:?}");
    let next = dbmove::report::next::commands(&world.state(), dbmove::report::model::Outcome::Interrupted, None);
    assert_eq!(next[0], "dbmove rehearse ledger.yaml --load 3x --load-for 300ms");
    let outcome = rehearsed(&world, &again).await;
    assert_eq!(outcome.exit_code(), ExitCode::Done, "{}", outcome.verdict);
    assert!(outcome.certificate.unwrap().load.is_some());
}

/// What is left of it is only undone: the load was seen, and is in the certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_that_is_only_to_be_undone_needs_no_load() {
    let world = world();
    let load = Arc::new(Told::default());
    let (mut request, loads) = (world.scenario.request(), vec![Arc::clone(&load) as Arc<dyn Load>]);
    let options = "--load 3x".to_owned();
    request.load = Some(AskedLoad { multiple: "3x".parse().unwrap(), at_least: Duration::from_millis(300), loads, options });
    let lease: Arc<dyn TargetLease> = Arc::new(FileLease(world.path().join("target_copy")));
    let journal = Journal::open(&world.path().join("state")).unwrap();
    let driven = drive(request, world.scenario.built(), vec![lease], journal, Arc::new(Silent), CancellationToken::new());
    let ended = async {
        while !world.kinds_if_any().contains(&"load_ended".to_owned()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Dropped where it stands, which is as good as a crash.
    tokio::select! {
        outcome = driven => panic!("it was too quick to be stopped: {:?}", outcome.map(|outcome| outcome.verdict)),
        () = ended => {}
    }
    let journal = rusqlite::Connection::open(world.path().join("state/journal.sqlite")).unwrap();
    journal.execute("UPDATE leases SET held = 0", []).unwrap();
    drop(journal);
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Done, "{}", outcome.verdict);
    assert!(outcome.certificate.unwrap().load.is_some());
}
