//! `traffic.canary` and `traffic.check` on real servers: the gap is what the test's own clock says it was, and nothing
//! is left behind that is not named.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmove::engine::context::{RunKind, StepContext};
use dbmove::engine::step::{Failure, Output, Probe, Step as _, StepError};
use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::connect::Server;
use dbmove::mysql::tls::Protection;
use dbmove::traffic::canary::{CanaryArguments, TrafficCanary};
use dbmove::traffic::check::{CheckArguments, TrafficCheck};
use dbmove::traffic::file::{FileArguments, TrafficFile};
use dbmove::traffic::watch::CanaryWatch;
use mysql_async::prelude::Queryable as _;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::memory::context;
use crate::real::{connect, shared, skipped};

fn admin(server: &LocalServer, role: &str) -> Arc<Server> {
    Arc::new(Server {
        role: role.to_owned(),
        host: server.host().to_owned(),
        port: server.port(),
        user: Account::Dbmove.user().to_owned(),
        password: Some(server.password()),
        tls: Protection::Off,
        watched: None,
    })
}

fn address(server: &LocalServer) -> String {
    format!("{}:{}\n", server.host(), server.port())
}

/// A schema of its own per test: they share servers.
fn arguments(schema: &str, route: &Path) -> Value {
    json!({"route_file": route, "user": "app", "table": format!("{schema}.beat")})
}

fn canary(arguments: Value, source: &LocalServer, target: &LocalServer, watch: &Arc<CanaryWatch>) -> TrafficCanary {
    canary_with(arguments, source.password(), source, target, watch)
}

fn canary_with(
    arguments: Value,
    password: SecretString,
    source: &LocalServer,
    target: &LocalServer,
    watch: &Arc<CanaryWatch>,
) -> TrafficCanary {
    let arguments: CanaryArguments = serde_json::from_value(arguments).unwrap();
    TrafficCanary::new(&arguments, Some(password), admin(source, "source"), admin(target, "target"), watch.clone()).unwrap()
}

/// A service under way, stopped when dropped.
struct Flying(JoinHandle<Result<Output, StepError>>);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Flying {
    async fn start(canary: TrafficCanary, context: &StepContext) -> Self {
        let (theirs, mut ready) = (context.clone(), context.ready.subscribe());
        let mut flying = Flying(tokio::spawn(async move { canary.run(&theirs).await }));
        tokio::select! {
            ended = &mut flying.0 => panic!("ended instead of being ready: {ended:?}"),
            is_ready = ready.wait_for(|ready| *ready) => assert!(is_ready.is_ok()),
            () = tokio::time::sleep(Duration::from_secs(15)) => panic!("not ready"),
        }
        flying
    }

    async fn stop(mut self, context: &StepContext) -> Output {
        context.cancel.cancel();
        (&mut self.0).await.unwrap().unwrap()
    }
}

fn switch(route: &Path, content: String) -> TrafficFile {
    TrafficFile::new(FileArguments { path: route.to_owned(), content, rehearsal_path: None, rehearsal_content: None }).unwrap()
}

fn check(watch: &Arc<CanaryWatch>, timeout: &str) -> TrafficCheck {
    let arguments: CheckArguments = serde_json::from_value(json!({"timeout": timeout})).unwrap();
    TrafficCheck::new(&arguments, watch.clone()).unwrap()
}

async fn has_schema(server: &LocalServer, schema: &str) -> bool {
    let mut root = connect(server, Account::Root).await;
    let query = format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{schema}'");
    root.query_first::<u64, _>(query).await.unwrap() == Some(1)
}

async fn rows(server: &LocalServer, query: &str) -> Vec<(String, u64)> {
    connect(server, Account::Root).await.query(query).await.unwrap()
}

fn number(output: &Output, fact: &str) -> u64 {
    output.facts[fact].as_u64().unwrap_or_else(|| panic!("`{fact}`: {:?}", output.facts))
}

fn scene() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let route = directory.path().join("route");
    (directory, route)
}

async fn private(kind: ServerKind, directory: &Path) -> LocalServer {
    LocalServer::start(kind, directory, &ServerOptions::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gap_of_a_fence_and_a_switch_is_what_the_clock_says() {
    if skipped("traffic the_gap_of_a_fence_and_a_switch_is_what_the_clock_says", &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        return;
    }
    let (directory, route) = scene();
    // Its own source: `read_only` would stop other tests.
    let source = private(ServerKind::Mysql55, &directory.path().join("source")).await;
    let target = shared(ServerKind::Mysql97, false).await;
    std::fs::write(&route, address(&source)).unwrap();
    let (watch, context, switching) =
        (Arc::new(CanaryWatch::default()), context("canary", RunKind::Production), context("switch", RunKind::Production));
    let flying = Flying::start(canary(json!({"route_file": route, "user": "app"}), &source, &target, &watch), &context).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let before = rows(&source, "SELECT client, number FROM _dbmove_canary.beat").await;
    assert!(before.len() == 1 && before[0].0 == "canary" && before[0].1 > 3, "{before:?}");

    let mut owner = connect(&source, Account::Dbmove).await;
    let fence_begins = Instant::now();
    owner.query_drop("SET GLOBAL read_only = 1").await.unwrap();
    let fenced = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let switch_begins = Instant::now();
    switch(&route, address(&target)).run(&switching).await.unwrap();
    let checked = check(&watch, "10s").run(&switching).await.unwrap();
    let seen = Instant::now();

    let gap = number(&checked, "write_gap_ms");
    let at_least = switch_begins.duration_since(fenced).as_millis() as u64;
    // The last beat before the fence may be one interval old.
    let at_most = seen.duration_since(fence_begins).as_millis() as u64 + 20 + 10;
    eprintln!("gap {gap} ms; the test's clock says {at_least} to {at_most} ms; {:?}", checked.facts);
    assert!(at_least <= gap && gap <= at_most, "{gap} not in {at_least}..={at_most}");
    assert_eq!(checked.facts["write_gap_exact"], true);
    assert!(number(&checked, "failed") >= 3 && number(&checked, "delayed") >= 1);
    assert!(number(&checked, "longest_delay_ms") + 25 >= at_least);
    assert!(checked.facts["source_server"].as_str().unwrap().contains(&format!("port {}", source.port())));
    assert!(checked.facts["target_server"].as_str().unwrap().contains(&format!("port {}", target.port())));
    assert!(watch.beats().last_failure.unwrap().contains("read-only"), "{:?}", watch.beats().last_failure);
    // The check may end before the canary has shown what it saw.
    let expected = format!("write gap {gap} ms");
    let mut progress = context.progress.subscribe();
    let shown = async { progress.wait_for(|progress| progress.note.starts_with(&expected)).await.is_ok() };
    let shown = tokio::time::timeout(Duration::from_secs(5), shown).await;
    assert_eq!(shown, Ok(true), "{expected}: {:?}", context.progress.borrow().note);

    tokio::time::sleep(Duration::from_millis(100)).await;
    let ended = flying.stop(&context).await;
    assert_eq!((number(&ended, "write_gap_ms"), &ended.facts["left_behind"]), (gap, &json!([])));
    assert!(number(&ended, "beats") > number(&checked, "beats"));
    assert!(!has_schema(&source, "_dbmove_canary").await && !has_schema(&target, "_dbmove_canary").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_source_is_measured_too_and_what_it_keeps_is_named() {
    if skipped("traffic a_killed_source_is_measured_too_and_what_it_keeps_is_named", &[ServerKind::Mysql55, ServerKind::MariaDb]) {
        return;
    }
    let (directory, route) = scene();
    let mut source = private(ServerKind::Mysql55, &directory.path().join("source")).await;
    let target = shared(ServerKind::MariaDb, false).await;
    std::fs::write(&route, address(&source)).unwrap();
    let (watch, context) = (Arc::new(CanaryWatch::default()), context("canary", RunKind::Production));
    let flying = Flying::start(canary(arguments("canary_killed", &route), &source, &target, &watch), &context).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let kill_begins = Instant::now();
    source.kill().await.unwrap();
    let killed = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let switch_begins = Instant::now();
    switch(&route, address(&target)).run(&context).await.unwrap();
    let checked = check(&watch, "10s").run(&context).await.unwrap();
    let seen = Instant::now();
    let gap = number(&checked, "write_gap_ms");
    let (at_least, at_most) =
        (switch_begins.duration_since(killed).as_millis() as u64, seen.duration_since(kill_begins).as_millis() as u64 + 30);
    eprintln!("gap {gap} ms; the test's clock says {at_least} to {at_most} ms");
    assert!(at_least <= gap && gap <= at_most, "{gap} not in {at_least}..={at_most}");
    let ended = flying.stop(&context).await;
    let left = ended.facts["left_behind"].as_array().unwrap();
    assert!(left.len() == 1 && left[0].as_str().unwrap().contains("`canary_killed`: cannot connect to the source"), "{left:?}");
    assert!(!has_schema(&target, "canary_killed").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_does_not_do_what_it_says_fails_the_check() {
    if skipped("traffic a_route_that_does_not_do_what_it_says_fails_the_check", &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        return;
    }
    let (_directory, route) = scene();
    let (source, target) = (shared(ServerKind::Mysql55, false).await, shared(ServerKind::Mysql97, false).await);
    std::fs::write(&route, address(&source)).unwrap();
    let (watch, context) = (Arc::new(CanaryWatch::default()), context("canary", RunKind::Production));
    let flying = Flying::start(canary(arguments("canary_lost", &route), &source, &target, &watch), &context).await;
    let began = Instant::now();
    let error = check(&watch, "300ms").run(&context).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(error.failure, Failure::Definite);
    let route_says = format!("the route says `{}`", address(&source).trim());
    assert!(error.message.contains("none of its beats was accepted there within 300ms; the source accepted the last one"), "{error}");
    assert!(error.message.contains(&route_says), "{error}");

    // Stopped before any switch: the schemas stay for a resumed run, and undo removes them.
    let ended = flying.stop(&context).await;
    assert_eq!((&ended.facts["write_gap_ms"], ended.facts.get("left_behind")), (&Value::Null, None));
    assert!(has_schema(&source, "canary_lost").await && has_schema(&target, "canary_lost").await);
    let step = canary(arguments("canary_lost", &route), &source, &target, &watch);
    assert!(matches!(step.probe(&context).await.unwrap(), Probe::Partly { .. }));
    step.undo(&context).await.unwrap();
    step.undo(&context).await.unwrap();
    assert!(!has_schema(&source, "canary_lost").await && !has_schema(&target, "canary_lost").await);
    assert_eq!(step.probe(&context).await.unwrap(), Probe::NotStarted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_was_killed_goes_on_and_its_gap_is_not_called_exact() {
    if skipped("traffic a_canary_that_was_killed_goes_on_and_its_gap_is_not_called_exact", &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        return;
    }
    let (_directory, route) = scene();
    let (source, target) = (shared(ServerKind::Mysql55, false).await, shared(ServerKind::Mysql97, false).await);
    std::fs::write(&route, address(&source)).unwrap();
    let (watch, first) = (Arc::new(CanaryWatch::default()), context("canary", RunKind::Production));
    let make = |watch: &Arc<CanaryWatch>| canary(arguments("canary_resumed", &route), &source, &target, watch);
    let flying = Flying::start(make(&watch), &first).await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    drop(flying);
    let counted = watch.beats().accepted;
    std::fs::write(&route, address(&target)).unwrap();
    let again = StepContext { ready: tokio::sync::watch::channel(false).0, ..first.clone() };
    let watch = Arc::new(CanaryWatch::default());
    let flying = Flying::start(make(&watch), &again).await;
    let checked = check(&watch, "5s").run(&again).await.unwrap();
    assert_eq!(checked.facts["write_gap_exact"], false);
    assert!(number(&checked, "beats") > counted / 2, "{counted} before, {:?} after", checked.facts);
    assert_eq!(flying.stop(&again).await.facts["left_behind"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_hangs_under_a_global_lock_counts_as_a_gap_and_is_not_piled_upon() {
    if skipped("traffic a_source_that_hangs_under_a_global_lock", &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        return;
    }
    let (directory, route) = scene();
    let source = private(ServerKind::Mysql55, &directory.path().join("source")).await;
    let target = shared(ServerKind::Mysql97, false).await;
    std::fs::write(&route, address(&source)).unwrap();
    let (watch, context) = (Arc::new(CanaryWatch::default()), context("canary", RunKind::Production));
    let flying = Flying::start(canary(arguments("canary_hung", &route), &source, &target, &watch), &context).await;
    let mut owner = connect(&source, Account::Dbmove).await;
    owner.query_drop("FLUSH TABLES WITH READ LOCK").await.unwrap();
    let locked = Instant::now();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let waiting: u64 = owner.query_first("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'app'").await.unwrap().unwrap();
    assert!(waiting <= 8, "{waiting} attempts wait on the source");
    let at_least = locked.elapsed().as_millis() as u64;
    switch(&route, address(&target)).run(&context).await.unwrap();
    let checked = check(&watch, "5s").run(&context).await.unwrap();
    assert!(number(&checked, "write_gap_ms") >= at_least, "{at_least} {:?}", checked.facts);
    assert!(watch.beats().last_failure.unwrap().contains("no answer within 250ms"));
    owner.query_drop("UNLOCK TABLES").await.unwrap();
    flying.stop(&context).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_reads_its_own_route_and_begins_at_the_source() {
    if skipped("traffic a_rehearsal_reads_its_own_route_and_begins_at_the_source", &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        return;
    }
    let (_directory, route) = scene();
    let (source, target) = (shared(ServerKind::Mysql55, false).await, shared(ServerKind::Mysql97, false).await);
    std::fs::write(&route, "production.invalid:1\n").unwrap();
    let (watch, context) = (Arc::new(CanaryWatch::default()), context("canary", RunKind::Rehearsal));
    let flying = Flying::start(canary(arguments("canary_rehearsed", &route), &source, &target, &watch), &context).await;
    assert!(watch.beats().last_on_source.is_some());
    let step = switch(&route, address(&target));
    step.run(&context).await.unwrap();
    // Nothing stops the source here: a connection that is not closed stays, as every client's does.
    assert!(check(&watch, "200ms").run(&context).await.is_err());
    let mut owner = connect(&source, Account::Dbmove).await;
    let query = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'app'";
    for id in owner.query::<u64, _>(query).await.unwrap() {
        let _ = owner.query_drop(format!("KILL {id}")).await;
    }
    check(&watch, "5s").run(&context).await.unwrap();
    step.undo(&context).await.unwrap();
    flying.stop(&context).await;
    assert_eq!(std::fs::read_to_string(&route).unwrap(), "production.invalid:1\n");

    let url = json!({"url": "mysql://127.0.0.1:1/", "user": "app"});
    let error = canary(url, &source, &target, &watch).run(&self::context("canary", RunKind::Rehearsal)).await.unwrap_err();
    assert_eq!(error.failure, Failure::Refused);
    assert!(error.message.starts_with("`canary` can't be rehearsed: it would write through `127.0.0.1:1`"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_fail_after_the_switch_fails_before_it() {
    if skipped("traffic what_would_fail_after_the_switch_fails_before_it", &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        return;
    }
    let (_directory, route) = scene();
    let (source, target) = (shared(ServerKind::Mysql55, false).await, shared(ServerKind::Mysql97, false).await);
    std::fs::write(&route, address(&source)).unwrap();
    let watch = Arc::new(CanaryWatch::default());
    let refused = async |step: TrafficCanary| {
        let context = context("canary", RunKind::Production);
        let ended = tokio::time::timeout(Duration::from_secs(30), step.run(&context)).await;
        let error = ended.expect("it went on instead of refusing").unwrap_err();
        step.undo(&context).await.unwrap();
        assert!(!error.to_string().contains("wrong-password"), "{error}");
        error
    };
    // An account that `read_only` does not stop.
    let mut own = arguments("canary_refused", &route);
    own["user"] = "dbmove".into();
    let error = refused(canary(own, &source, &target, &watch)).await;
    assert!(error.message.contains("the canary's account `dbmove` holds `ALL PRIVILEGES ON *.*` at"), "{error}");
    // Before the first beat: nothing was written anywhere.
    assert_eq!(error.failure, Failure::Definite);

    // An account that the target does not know.
    let mut root = connect(&source, Account::Root).await;
    root.query_drop("GRANT SELECT, INSERT, DELETE ON *.* TO 'onlyhere'@'%' IDENTIFIED BY 'dbmove'").await.unwrap();
    let mut own = arguments("canary_refused", &route);
    own["user"] = "onlyhere".into();
    let error = refused(canary(own, &source, &target, &watch)).await;
    assert!(error.message.contains(&format!("connecting at `127.0.0.1:{}` as `onlyhere`", target.port())), "{error}");
    assert!(error.message.ends_with("Clients would fail the same way after the switch"), "{error}");

    let wrong = canary_with(arguments("canary_refused", &route), SecretString::from("wrong-password"), &source, &target, &watch);
    assert!(refused(wrong).await.message.contains("as `app`"));

    // A schema that is somebody's.
    root.query_drop("CREATE DATABASE school_canary").await.unwrap();
    root.query_drop("CREATE TABLE school_canary.pupils (id INT PRIMARY KEY)").await.unwrap();
    let error = refused(canary(arguments("school_canary", &route), &source, &target, &watch)).await;
    assert!(error.message.starts_with("the schema `school_canary` on the source `dbmove@127.0.0.1:"), "{error}");
    assert!(error.message.ends_with("is not dbmove's (it has no `dbmove_marker`). Nothing was changed"), "{error}");
    assert!(has_schema(&source, "school_canary").await);

    // A route file that says nothing.
    std::fs::write(&route, "bonjour\n").unwrap();
    let step = canary(arguments("canary_refused", &route), &source, &target, &watch);
    let error = refused(step).await;
    assert_eq!(error.failure, Failure::Transient);
    assert!(
        error.message.ends_with(&format!("the route file `{}` does not begin with `host:port`: \"bonjour\\n\"", route.display())),
        "{error}"
    );
    assert!(!has_schema(&source, "canary_refused").await && !has_schema(&target, "canary_refused").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_with_somebody_elses_table_is_left() {
    if skipped("traffic a_schema_with_somebody_elses_table_is_left", &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        return;
    }
    let (_directory, route) = scene();
    let (source, target) = (shared(ServerKind::Mysql55, false).await, shared(ServerKind::Mysql97, false).await);
    std::fs::write(&route, address(&target)).unwrap();
    let (watch, context) = (Arc::new(CanaryWatch::default()), context("canary", RunKind::Production));
    let flying = Flying::start(canary(arguments("canary_shared", &route), &source, &target, &watch), &context).await;
    connect(&source, Account::Root).await.query_drop("CREATE TABLE canary_shared.theirs (id INT PRIMARY KEY)").await.unwrap();
    flying.stop(&context).await;
    let step = canary(arguments("canary_shared", &route), &source, &target, &watch);
    step.undo(&context).await.unwrap();
    assert!(has_schema(&source, "canary_shared").await && !has_schema(&target, "canary_shared").await);
    assert_eq!(rows(&source, "SELECT TABLE_NAME, 1 FROM information_schema.TABLES WHERE TABLE_NAME = 'theirs'").await.len(), 1);

    // Another run's schema is not ours to drop either.
    let mut root = connect(&source, Account::Root).await;
    root.query_drop("DROP TABLE canary_shared.theirs").await.unwrap();
    root.query_drop("UPDATE canary_shared.dbmove_marker SET run = 'run-2'").await.unwrap();
    step.undo(&context).await.unwrap();
    assert!(has_schema(&source, "canary_shared").await);
}

#[test]
fn arguments_that_do_not_fit_together_are_named() {
    let server = || {
        Arc::new(Server {
            role: "source".to_owned(),
            host: "h".to_owned(),
            port: 1,
            user: "u".to_owned(),
            password: None,
            tls: Protection::Off,
            watched: None,
        })
    };
    let refused = |arguments: Value| {
        let arguments: CanaryArguments = serde_json::from_value(arguments).unwrap();
        TrafficCanary::new(&arguments, None, server(), server(), Arc::default()).err().unwrap().message
    };
    assert_eq!(refused(json!({"user": "app"})), "`traffic.canary` needs one of `route_file` and `url`");
    assert_eq!(
        refused(json!({"user": "app", "route_file": "/r", "url": "mysql://h/"})),
        "`traffic.canary` needs one of `route_file` and `url`"
    );
    assert_eq!(refused(json!({"user": "app", "route_file": "r"})), "`route_file` has to be a full path, `r` is not");
    assert_eq!(refused(json!({"user": "app", "route_file": "/r", "table": "beat"})), "`table`: `beat` is not of the form `schema.table`");
    assert_eq!(
        refused(json!({"user": "app", "route_file": "/r", "table": "mysql.beat"})),
        "`table`: the schema `mysql` is not for canaries"
    );
    assert_eq!(refused(json!({"user": "app", "route_file": "/r", "interval": "0ms"})), "`interval`: `0ms` is not a duration");
    assert_eq!(refused(json!({"user": "app", "url": "mysql://a:b@h/"})), "`url`: it holds a user or a password");
    let same = json!({"user": "app", "url": "mysql://h:1/", "rehearsal_url": "mysql://h:1/"});
    assert_eq!(refused(same), "`rehearsal_url` is the production address `h:1`");
    assert_eq!(
        refused(json!({"user": "app", "url": "mysql://h/", "rehearsal_route_file": "/r"})),
        "`rehearsal_route_file` goes with `route_file`, not with `url`"
    );
}

/// The connection of the canary on the server, in the state asked for.
async fn connection(server: &LocalServer, command: &str) -> u64 {
    let began = Instant::now();
    loop {
        let mut root = connect(server, Account::Root).await;
        let query = format!("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'app' AND COMMAND = '{command}'");
        if let Some(id) = root.query_first(query).await.unwrap() {
            return id;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no connection of the canary in state `{command}`");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_closed_between_two_beats_is_no_failed_request_and_one_closed_in_a_beat_is() {
    let name = "traffic a_connection_closed_between_two_beats_is_no_failed_request_and_one_closed_in_a_beat_is";
    if skipped(name, &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        return;
    }
    let (directory, route) = scene();
    // Its own source: no other connection of `app` is there.
    let source = private(ServerKind::Mysql55, &directory.path().join("source")).await;
    let target = shared(ServerKind::Mysql97, false).await;
    std::fs::write(&route, address(&source)).unwrap();
    let (watch, context) = (Arc::new(CanaryWatch::default()), context("canary", RunKind::Production));
    let mut arguments = arguments("canary_closed", &route);
    // Long enough to find it between two beats, and for a beat to wait.
    arguments["interval"] = json!("1500ms");
    arguments["attempt_timeout"] = json!("30s");
    let flying = Flying::start(canary(arguments, &source, &target, &watch), &context).await;
    let until = async |what: &str, reached: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !reached() {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}: {:?}", watch.beats());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut root = connect(&source, Account::Root).await;

    let accepted = watch.beats().accepted;
    root.query_drop(format!("KILL {}", connection(&source, "Sleep").await)).await.unwrap();
    until("a beat after the idle connection was closed", &|| watch.beats().accepted > accepted).await;
    assert_eq!((watch.beats().failed, watch.beats().reconnected), (0, 1), "{:?}", watch.beats());

    root.query_drop("LOCK TABLES canary_closed.beat WRITE").await.unwrap();
    let waiting = connection(&source, "Query").await;
    root.query_drop(format!("KILL {waiting}")).await.unwrap();
    until("a beat that was killed", &|| watch.beats().failed > 0).await;
    root.query_drop("UNLOCK TABLES").await.unwrap();
    let accepted = watch.beats().accepted;
    until("a beat after that", &|| watch.beats().accepted > accepted).await;
    assert_eq!(watch.beats().reconnected, 1, "{:?}", watch.beats());
    let ended = flying.stop(&context).await;
    assert!(number(&ended, "failed") >= 1 && number(&ended, "reconnected") == 1, "{:?}", ended.facts);
}
