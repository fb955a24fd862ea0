//! `traffic.lower_ttl`, `traffic.dns` and `traffic.restore_ttl` on real name servers: a primary, a secondary, and a resolver that keeps what
//! it was told.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmove::engine::context::{RunKind, StepContext};
use dbmove::engine::step::{Estimate, Failure, Output, Probe, Step as _};
use dbmove::traffic::dns::SharedRecords;
use dbmove::traffic::dns::arguments::{LowerArguments, RecordArguments};
use dbmove::traffic::dns::lower_ttl::LowerTtl;
use dbmove::traffic::dns::restore_ttl::RestoreTtl;
use dbmove::traffic::dns::switch::TrafficDns;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::memory::context;
use crate::names::{Manner, Names, Relay, SECRET, STRANGER, address, change, names_skipped, shown_at};

const NAME: &str = "db.school.test";

/// The servers, a secret in a file, and what the steps of one store share.
struct World {
    names: Names,
    directory: TempDir,
}

impl World {
    async fn start(records: &str) -> World {
        let directory = tempfile::tempdir().unwrap();
        let names = Names::start(directory.path(), records).await;
        let world = World { names, directory };
        world.secret("secret", SECRET);
        world.secret("stranger", STRANGER);
        world
    }

    fn secret(&self, name: &str, secret: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.path().join(name);
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn reference(&self, name: &str) -> String {
        format!("${{file:{}}}", self.directory.path().join(name).display())
    }

    fn arguments(&self) -> Value {
        json!({
            "name": NAME, "zone": "school.test", "servers": [self.names.primary.address(), self.names.secondary.address()],
            "resolvers": [self.names.resolver.address()], "key": {"name": "dbmove", "secret": self.reference("secret")},
            "ttl": "1s", "target": "10.0.0.2",
        })
    }

    async fn shown(&self) -> String {
        self.names.shown(NAME).await
    }
}

/// The three steps of a record.
struct Steps {
    lower: LowerTtl,
    switch: TrafficDns,
    restore: RestoreTtl,
}

fn steps(arguments: Value) -> Steps {
    let (shared, target) = (SharedRecords::default(), || "127.0.0.1".to_owned());
    let arguments: LowerArguments = serde_json::from_value(arguments).unwrap();
    let of = RecordArguments::default();
    Steps {
        lower: LowerTtl::new(&arguments, target(), &shared).unwrap(),
        switch: TrafficDns::new(&of, target(), &shared).unwrap(),
        restore: RestoreTtl::new(&of, target(), &shared).unwrap(),
    }
}

/// Another step of the same run behind `earlier`, which left `output` behind; under the same id, the same step for another driver.
fn after(earlier: &StepContext, step: &str, output: &Output) -> StepContext {
    let mut outputs = BTreeMap::clone(&earlier.outputs);
    outputs.insert(earlier.step.to_string(), output.facts.clone());
    StepContext { step: step.into(), outputs: Arc::new(outputs), cancel: CancellationToken::new(), ..earlier.clone() }
}

/// The TTL lowered, in production; the context of a switch behind it.
async fn lowered(steps: &Steps) -> (StepContext, Output, StepContext) {
    let lower = context("lower", RunKind::Production);
    let output = steps.lower.run(&lower).await.unwrap();
    let switch = after(&lower, "switch", &output);
    (lower, output, switch)
}

#[tokio::test]
async fn lowered_waited_out_switched_and_back() {
    if names_skipped("lowered_waited_out_switched_and_back") {
        return;
    }
    let world = World::start("db 4 A 10.0.0.1").await;
    let steps = steps(world.arguments());
    let lower = context("lower", RunKind::Production);
    let plan = steps.lower.plan(&lower).await.unwrap();
    assert!(
        plan.lines[0].starts_with("let clients keep `db.school.test.` for 1s only; it is `A 10.0.0.1` for 4s at `127.0.0.1:"),
        "{plan:?}"
    );
    assert_eq!(plan.lines[1], "then wait 4s, until nobody keeps it for longer any more");
    assert!(plan.warnings.is_empty(), "{plan:?}");
    let estimate = steps.lower.estimate(&lower).await.unwrap();
    assert_eq!(estimate, Estimate::Expected { duration: Duration::from_secs(4), basis: "`db.school.test.` has a TTL of 4s".to_owned() });
    assert_eq!(steps.lower.probe(&lower).await.unwrap(), Probe::NotStarted);
    let mut fewer = world.arguments();
    fewer["servers"] = json!([world.names.primary.address()]);
    let plan = self::steps(fewer).lower.plan(&lower).await.unwrap();
    assert!(
        plan.warnings[0].starts_with("`school.test.` names 2 name servers (`ns1.school.test.`, `ns2.school.test.`), and `servers` 1"),
        "{plan:?}"
    );

    // A client has just looked it up, and so its resolver keeps it.
    let resolver = world.names.resolver.address();
    assert_eq!(shown_at(&resolver, NAME).await, "A 10.0.0.1 for 4");
    let began = Instant::now();
    let mut progress = lower.progress.subscribe();
    let output = steps.lower.run(&lower).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(4), "not waited out: {:?}", began.elapsed());
    assert!(progress.borrow_and_update().note.starts_with("whoever looked up `db.school.test.` before its TTL was lowered may keep it"));
    assert_eq!(world.shown().await, "A 10.0.0.1 for 1");
    assert_eq!(steps.lower.probe(&lower).await.unwrap(), Probe::Done);
    assert_eq!((&output.facts["ttl_before_seconds"], &output.facts["ttl_seconds"]), (&json!(4), &json!(1)));

    let switch = after(&lower, "switch", &output);
    let plan = steps.switch.plan(&switch).await.unwrap();
    assert_eq!(plan.lines[0], "change `db.school.test.` to `A 10.0.0.2`, if it is what it was in `prepare`");
    assert!(plan.warnings[0].starts_with("DNS can't hold clients") && plan.warnings[1].contains("`mysql.disconnect`"), "{plan:?}");
    assert_eq!(steps.switch.probe(&switch).await.unwrap(), Probe::NotStarted);
    assert_eq!(shown_at(&resolver, NAME).await, "A 10.0.0.1 for 1");
    steps.switch.run(&switch).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.2 for 1");
    assert_eq!(address(&resolver, NAME).await.unwrap().to_string(), "10.0.0.2");
    assert_eq!(steps.switch.probe(&switch).await.unwrap(), Probe::Done);
    // Again after a crash: it looks, and leaves it.
    steps.switch.run(&switch).await.unwrap();

    steps.switch.undo(&switch).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.1 for 1");
    assert_eq!(address(&resolver, NAME).await.unwrap().to_string(), "10.0.0.1");
    steps.switch.undo(&switch).await.unwrap();
    assert_eq!(steps.switch.probe(&switch).await.unwrap(), Probe::NotStarted);

    steps.switch.run(&switch).await.unwrap();
    let settle = after(&lower, "restore", &output);
    assert_eq!(steps.restore.probe(&settle).await.unwrap(), Probe::NotStarted);
    steps.restore.run(&settle).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.2 for 4");
    assert_eq!(steps.restore.probe(&settle).await.unwrap(), Probe::Done);
    // Whoever goes back by hand after all gets the record back, and then its TTL.
    steps.switch.undo(&switch).await.unwrap();
    steps.lower.undo(&lower).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.1 for 4");
    steps.lower.undo(&lower).await.unwrap();
    assert_eq!(steps.lower.probe(&lower).await.unwrap(), Probe::NotStarted);
}

#[tokio::test]
async fn a_wait_that_was_stopped_goes_on_where_it_was() {
    if names_skipped("a_wait_that_was_stopped_goes_on_where_it_was") {
        return;
    }
    let world = World::start("db 600 A 10.0.0.1").await;
    let steps = steps(world.arguments());
    let lower = context("lower", RunKind::Production);
    let mut progress = lower.progress.subscribe();
    let stop = lower.cancel.clone();
    let waits = async {
        progress.wait_for(|progress| progress.done > 1).await.unwrap();
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(steps.lower.run(&lower), waits);
    assert_eq!(ended.unwrap_err().failure, Failure::Cancelled);
    assert_eq!(world.shown().await, "A 10.0.0.1 for 1");
    let again = after(&lower, "lower", &Output::default());
    assert!(
        matches!(steps.lower.probe(&again).await.unwrap(), Probe::Partly { from } if from.starts_with("the old TTL of `db.school.test.` is over in 9m"))
    );
    match steps.lower.estimate(&again).await.unwrap() {
        Estimate::Expected { duration, .. } => assert!(duration < Duration::from_secs(600), "{duration:?}"),
        other => panic!("{other:?}"),
    }
    let mut progress = again.progress.subscribe();
    let stop = again.cancel.clone();
    let waits = async {
        let seen = progress.wait_for(|progress| progress.total == Some(600)).await.unwrap().clone();
        stop.cancel();
        seen
    };
    let (ended, seen) = tokio::join!(steps.lower.run(&again), waits);
    assert_eq!(ended.unwrap_err().failure, Failure::Cancelled);
    assert!(seen.done > 1, "it began to wait anew: {seen:?}");
    // Raised again by somebody: whoever looked it up since may keep it, so the wait begins anew.
    change(&world.names.primary.address(), NAME, 900, Ipv4Addr::new(10, 0, 0, 1)).await;
    let third = after(&lower, "lower", &Output::default());
    assert!(matches!(steps.lower.probe(&third).await.unwrap(), Probe::Partly { from } if from == "`db.school.test.` has a TTL of 15m"));
    steps.lower.undo(&third).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.1 for 600");
}

#[tokio::test]
async fn an_address_becomes_a_name_and_back() {
    if names_skipped("an_address_becomes_a_name_and_back") {
        return;
    }
    let world = World::start("db 2 A 10.0.0.1\nnew 300 A 10.0.0.7\ncompany 2 A 10.0.0.1\ncompany TXT \"x\"").await;
    let mut arguments = world.arguments();
    arguments["target"] = json!("NEW.school.test");
    let all = steps(arguments.clone());
    let (_, _, switch) = lowered(&all).await;
    all.switch.run(&switch).await.unwrap();
    assert_eq!(world.shown().await, "CNAME new.school.test. for 1");
    assert_eq!(address(&world.names.resolver.address(), NAME).await.unwrap().to_string(), "10.0.0.7");
    assert_eq!(all.switch.probe(&switch).await.unwrap(), Probe::Done);
    all.switch.undo(&switch).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.1 for 1");
    // To IPv6, and from the store's target where none is named.
    arguments["target"] = json!("2001:db8::7");
    let all = steps(arguments.clone());
    let (_, _, switch) = lowered(&all).await;
    all.switch.run(&switch).await.unwrap();
    assert_eq!(world.shown().await, "AAAA 2001:db8::7 for 1");
    all.switch.undo(&switch).await.unwrap();
    arguments.as_object_mut().unwrap().remove("target");
    let all = steps(arguments.clone());
    let (_, _, switch) = lowered(&all).await;
    all.switch.run(&switch).await.unwrap();
    assert_eq!(world.shown().await, "A 127.0.0.1 for 1");
    // Beside other records no CNAME can stand: said before anything is changed.
    arguments["name"] = json!("company.school.test");
    arguments["target"] = json!("new.school.test");
    let error = steps(arguments).lower.run(&context("lower", RunKind::Production)).await.unwrap_err();
    assert!(error.message.contains("can't become a CNAME: other records stand there (TXT). Nothing was changed"), "{error}");
    assert_eq!(world.names.shown("company.school.test").await, "A 10.0.0.1 for 2");
}

#[tokio::test]
async fn somebody_elses_change_is_never_overwritten() {
    if names_skipped("somebody_elses_change_is_never_overwritten") {
        return;
    }
    let world = World::start("db 1 A 10.0.0.1").await;
    let other = Ipv4Addr::new(10, 9, 9, 9);
    let primary = world.names.primary.address();
    let mut arguments = world.arguments();
    arguments["resolvers"] = json!([]);
    let all = steps(arguments.clone());
    let (_, _, switch) = lowered(&all).await;
    // Between the look and the change.
    let relay = Relay::start(primary.clone(), Manner::SomebodyElseFirst(NAME.to_owned(), other)).await;
    arguments["servers"][0] = json!(relay.address);
    let error = steps(arguments.clone()).switch.run(&switch).await.unwrap_err();
    assert!(error.message.contains("changed nothing: `db.school.test.` is not `A 10.0.0.1` any more (NXRRSET)"), "{error}");
    assert!(error.message.contains("`db.school.test.` is `A 10.9.9.9` for 1s"), "{error}");
    assert_eq!(shown_at(&primary, NAME).await, "A 10.9.9.9 for 1");
    // Before it looks.
    assert!(matches!(all.switch.probe(&switch).await.unwrap(), Probe::Foreign { found } if found.contains("10.9.9.9")));
    for error in [all.switch.run(&switch).await.unwrap_err(), all.switch.undo(&switch).await.unwrap_err()] {
        assert!(error.message.contains("`db.school.test.` is `A 10.9.9.9`; it was `A 10.0.0.1`, and is to be `A 10.0.0.2`"), "{error}");
    }
    assert_eq!(shown_at(&primary, NAME).await, "A 10.9.9.9 for 1");
}

#[tokio::test]
async fn what_a_server_answers_is_settled_by_looking() {
    if names_skipped("what_a_server_answers_is_settled_by_looking") {
        return;
    }
    let world = World::start("db 1 A 10.0.0.1").await;
    let mut arguments = world.arguments();
    arguments["resolvers"] = json!([]);
    let (_, _, switch) = lowered(&steps(arguments.clone())).await;
    // It did it, and its answer is lost.
    let relay = Relay::start(world.names.primary.address(), Manner::LosesTheAnswer).await;
    arguments["servers"][0] = json!(relay.address);
    steps(arguments.clone()).switch.run(&switch).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.2 for 1");
    steps(arguments.clone()).switch.undo(&switch).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.1 for 1");
    // It says yes, unsigned, and did nothing.
    let relay = Relay::start(world.names.primary.address(), Manner::Lies).await;
    arguments["servers"][0] = json!(relay.address);
    let error = steps(arguments.clone()).switch.run(&switch).await.unwrap_err();
    assert!(error.message.contains("is not signed by the key `dbmove.`") && error.message.contains("is `A 10.0.0.1`"), "{error}");
    assert_eq!(world.shown().await, "A 10.0.0.1 for 1");
    // Nobody takes changes there.
    arguments["servers"][0] = json!("127.0.0.1:1");
    let error = steps(arguments).switch.run(&switch).await.unwrap_err();
    assert_eq!(error.failure, Failure::Transient, "{error}");
}

#[tokio::test]
async fn a_secondary_that_never_gets_it_is_noticed_and_the_change_put_back() {
    if names_skipped("a_secondary_that_never_gets_it_is_noticed_and_the_change_put_back") {
        return;
    }
    let world = World::start("db 2 A 10.0.0.1").await;
    let mut arguments = world.arguments();
    arguments["within"] = json!("2s");
    let all = steps(arguments);
    let (lower, _, switch) = lowered(&all).await;
    world.names.cut_off_the_secondary().await;
    let error = all.switch.run(&switch).await.unwrap_err();
    let secondary = world.names.secondary.address();
    assert!(
        error.message.contains("not everybody shows it in time") && error.message.contains(&format!("`{secondary}` shows `A 10.0.0.1`")),
        "{error}"
    );
    assert_eq!(shown_at(&world.names.primary.address(), NAME).await, "A 10.0.0.2 for 1");
    assert!(matches!(all.switch.probe(&switch).await.unwrap(), Probe::Partly { from } if from.contains(&secondary)));
    all.switch.undo(&switch).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.1 for 1");
    // Where a driver was cut off right behind the change, clients may have written to the target ever since: that is not undone by itself.
    let cut_off = after(&switch, "cut_off", &Output::default());
    let stop = cut_off.cancel.clone();
    let mut progress = cut_off.progress.subscribe();
    let waits = async {
        progress.wait_for(|progress| progress.note.contains("until all show it")).await.unwrap();
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(all.switch.run(&cut_off), waits);
    assert_eq!(ended.unwrap_err().failure, Failure::Cancelled);
    let next = after(&cut_off, "cut_off", &Output::default());
    let error = all.switch.probe(&next).await.unwrap_err();
    assert!(error.message.contains("clients may have written to the target") && error.message.contains(&secondary), "{error}");
    world.names.connect_the_secondary().await;
    for _ in 0..500 {
        if shown_at(&secondary, NAME).await == "A 10.0.0.2 for 1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(all.switch.probe(&next).await.unwrap(), Probe::Done);
    all.switch.undo(&next).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.1 for 1");
    // In `prepare` it is noticed too, long before anybody is switched.
    world.names.connect_the_secondary().await;
    all.lower.undo(&lower).await.unwrap();
    world.names.cut_off_the_secondary().await;
    let again = context("lower", RunKind::Production);
    let error = all.lower.run(&again).await.unwrap_err();
    assert!(error.message.contains("not every server shows it") && error.message.contains(&secondary), "{error}");
    all.lower.undo(&again).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.1 for 2");
}

#[tokio::test]
async fn a_resolver_that_keeps_for_longer_is_noticed_where_the_ttl_was_short_already() {
    if names_skipped("a_resolver_that_keeps_for_longer_is_noticed_where_the_ttl_was_short_already") {
        return;
    }
    let world = World::start("db 1 A 10.0.0.1").await;
    let mut arguments = world.arguments();
    arguments["within"] = json!("1s");
    let all = steps(arguments);
    let good = context("good", RunKind::Production);
    all.lower.run(&good).await.unwrap();
    all.lower.finish(&good).await.unwrap();
    world.names.have_the_resolver_keep_for_longer().await;
    let lower = context("lower", RunKind::Production);
    let resolver = world.names.resolver.address();
    for _ in 0..500 {
        // What it was told before is over soon.
        if !["A 10.0.0.1 for 1", "A 10.0.0.1 for 0"].contains(&shown_at(&resolver, NAME).await.as_str()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What it found done after a crash is looked at in the same way.
    for error in [all.lower.run(&lower).await.unwrap_err(), all.lower.finish(&good).await.unwrap_err()] {
        assert!(
            error.message.starts_with("the TTL of `db.school.test.` was short already, and not everybody keeps it for 1s only"),
            "{error}"
        );
        assert!(error.message.contains(&format!("the resolver `{resolver}` shows `A 10.0.0.1` for ")), "{error}");
        assert!(error.hint.unwrap().contains("`min-cache-ttl`"));
    }
    assert_eq!(world.names.shown(NAME).await, "A 10.0.0.1 for 1");
}

#[tokio::test]
async fn a_key_or_server_that_will_not_do_is_named() {
    if names_skipped("a_key_or_server_that_will_not_do_is_named") {
        return;
    }
    let world = World::start("db 60 A 10.0.0.1\nseveral A 10.0.0.1\nseveral A 10.0.0.3\nmail MX 10 db").await;
    world.secret("wrong", "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3JvbmchISE=");
    world.secret("broken", "no base64!");
    let refused = async |pointer: &str, value: Value| {
        let mut arguments = world.arguments();
        *arguments.pointer_mut(pointer).unwrap() = value;
        let error = steps(arguments).lower.run(&context("lower", RunKind::Production)).await.unwrap_err();
        assert_eq!(world.shown().await, "A 10.0.0.1 for 60");
        let text = format!("{}; {}", error.message, error.hint.unwrap_or_default());
        assert!(!text.contains("d3Jvbmcg") && !text.contains("no base64!") && !text.contains(SECRET) && !text.contains(STRANGER), "{text}");
        text
    };
    let text = refused("/key/secret", json!(world.reference("wrong"))).await;
    assert!(text.contains("does not accept the key `dbmove.` (BADSIG)") && text.contains("as before"), "{text}");
    let text = refused("/key/name", json!("nobody")).await;
    assert!(text.contains("does not accept the key `nobody.` (BADKEY)"), "{text}");
    let text = refused("/key", json!({"name": "dbmove", "secret": world.reference("secret"), "algorithm": "hmac-sha512"})).await;
    assert!(text.contains("BADKEY"), "{text}");
    let text = refused("/key", json!({"name": "stranger", "secret": world.reference("stranger")})).await;
    assert!(text.contains("answered REFUSED when asked to change `db.school.test.`") && text.contains("`update-policy`"), "{text}");
    let text = refused("/key/secret", json!(world.reference("broken"))).await;
    assert!(text.contains("is no base64; nothing was changed"), "{text}");
    let text = refused("/key/secret", json!("${env:DBMOVE_NO_SUCH_SECRET}")).await;
    assert!(text.contains("`key.secret`: the environment variable `DBMOVE_NO_SUCH_SECRET` is not set; nothing was changed"), "{text}");
    let text = refused("/zone", json!("test")).await;
    assert!(text.contains("answered NOTAUTH") && text.contains("`zone` has to be the zone's own name"), "{text}");
    let text = refused("/name", json!("several.school.test")).await;
    assert!(text.contains("has several records at `several.school.test.`: ") && text.contains("`A 10.0.0.3`"), "{text}");
    for name in ["nothing.school.test", "mail.school.test"] {
        let text = refused("/name", json!(name)).await;
        assert!(text.contains(&format!("has no address (A, AAAA) and no CNAME at `{name}.`")), "{text}");
    }
    let text = refused("/target", json!("10.0.0.1")).await;
    assert!(text.contains("is `A 10.0.0.1` already: clients are at the target"), "{text}");
    let text = refused("/servers", json!([world.names.resolver.address()])).await;
    assert!(text.contains("is not authoritative for `db.school.test.`"), "{text}");
    let text = refused("/servers", json!(["127.0.0.1:1"])).await;
    assert!(text.contains("the name server `127.0.0.1:1` can't be asked"), "{text}");
    // A secondary takes no changes.
    let text = refused("/servers", json!([world.names.secondary.address()])).await;
    assert!(text.contains("NOTAUTH") || text.contains("REFUSED") || text.contains("NOTIMP") || text.contains("BADKEY"), "{text}");
}

#[tokio::test]
async fn a_rehearsal_changes_its_own_record_or_is_refused() {
    if names_skipped("a_rehearsal_changes_its_own_record_or_is_refused") {
        return;
    }
    let world = World::start("db 60 A 10.0.0.1\ntry 1 A 10.0.0.3").await;
    let rehearsed = context("lower", RunKind::Rehearsal);
    let all = steps(world.arguments());
    for error in [
        all.lower.plan(&rehearsed).await.unwrap_err(),
        all.lower.run(&rehearsed).await.unwrap_err(),
        all.lower.undo(&rehearsed).await.unwrap_err(),
        all.switch.run(&rehearsed).await.unwrap_err(),
        all.restore.run(&rehearsed).await.unwrap_err(),
    ] {
        assert_eq!(error.failure, Failure::Refused);
        assert!(error.message.contains("it would change production's record `db.school.test.`. Nothing was changed"), "{error}");
    }
    let mut arguments = world.arguments();
    arguments["rehearsal"] = json!({"name": "try.school.test", "target": "10.0.0.4"});
    let all = steps(arguments.clone());
    let output = all.lower.run(&rehearsed).await.unwrap();
    let switch = after(&rehearsed, "switch", &output);
    all.switch.run(&switch).await.unwrap();
    assert_eq!(
        (world.names.shown("try.school.test").await.as_str(), world.shown().await.as_str()),
        ("A 10.0.0.4 for 1", "A 10.0.0.1 for 60")
    );
    all.switch.undo(&switch).await.unwrap();
    all.lower.undo(&rehearsed).await.unwrap();
    assert_eq!(world.names.shown("try.school.test").await, "A 10.0.0.3 for 1");

    arguments["rehearsal"] = json!({"skip": "the zone has no other name"});
    let all = steps(arguments);
    let output = all.lower.run(&rehearsed).await.unwrap();
    assert_eq!(output.facts["skipped"], "the zone has no other name");
    let switch = after(&rehearsed, "switch", &output);
    assert_eq!(all.switch.run(&switch).await.unwrap().facts["skipped"], "the zone has no other name");
    all.switch.undo(&switch).await.unwrap();
    all.lower.undo(&rehearsed).await.unwrap();
    assert_eq!(world.shown().await, "A 10.0.0.1 for 60");
    let plan = all.lower.plan(&context("lower", RunKind::Production)).await.unwrap();
    assert!(plan.warnings.contains(&"`lower` was never rehearsed: the zone has no other name".to_owned()), "{plan:?}");
}

#[test]
fn several_records_of_a_store_are_told_apart() {
    let arguments = |name: &str| -> LowerArguments {
        let key = json!({"name": "dbmove", "secret": "${env:TSIG}"});
        serde_json::from_value(json!({"name": name, "zone": "school.test", "servers": ["192.0.2.1"], "key": key})).unwrap()
    };
    let shared = Arc::default();
    let find = |name: Option<&str>| {
        let of = RecordArguments { name: name.map(str::to_owned) };
        TrafficDns::new(&of, "127.0.0.1".to_owned(), &shared).err().map(|error| error.message)
    };
    assert!(find(None).unwrap().contains("has no `traffic.lower_ttl` before it"));
    LowerTtl::new(&arguments("db.school.test"), "127.0.0.1".to_owned(), &shared).unwrap();
    assert_eq!(find(None), None);
    LowerTtl::new(&arguments("read.school.test"), "127.0.0.1".to_owned(), &shared).unwrap();
    assert_eq!(find(None).unwrap(), "the store has several records: `db.school.test.`, `read.school.test.`");
    assert_eq!(find(Some("READ.school.test.")), None);
    assert_eq!(find(Some("write.school.test")).unwrap(), "`name`: no `traffic.lower_ttl` of the store is about `write.school.test`");
}
