//! The steps themselves, without an engine: a source of 5.5 and a target of 9.7 behind one HAProxy.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmove::engine::context::{RunKind, StepContext};
use dbmove::engine::step::{Failure, Output, Probe, Step as _, StepError};
use dbmove::local::{Account, LocalProxy, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::connect::Server;
use dbmove::mysql::tls::Protection;
use dbmove::traffic::haproxy::hold::TrafficHold;
use dbmove::traffic::haproxy::release::TrafficRelease;
use dbmove::traffic::haproxy::switch::TrafficSwitch;
use dbmove::traffic::haproxy::{MAXCONN, Shared, SharedHold};
use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};

use crate::clients::Clients;
use crate::memory::context;
use crate::real::{connect, proxy_skipped};

pub const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];
pub const TABLE: &str = "requests.request";

pub fn server(server: &LocalServer, role: &str) -> Arc<Server> {
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

pub struct Scene {
    pub source: LocalServer,
    pub target: LocalServer,
    proxy: LocalProxy,
    pub port: u16,
    hasty_port: u16,
    checked_port: u16,
    /// Where HAProxy looks whether the server of `beside` is well.
    well_port: u16,
    beside_port: u16,
    directory: tempfile::TempDir,
}

impl Scene {
    pub async fn start() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        // What 500 new connections a second take on a busy machine.
        let options = ServerOptions::default().argument("--max-connections=1000");
        let start = async |kind, name: &str| LocalServer::start(kind, &directory.path().join(name), &options).await.unwrap();
        let (source, target) = (start(KINDS[0], "source").await, start(KINDS[1], "target").await);
        for server in [&source, &target] {
            let mut root = connect(server, Account::Root).await;
            root.query_drop("CREATE DATABASE requests").await.unwrap();
            root.query_drop(format!("CREATE TABLE {TABLE} (number bigint PRIMARY KEY) ENGINE=InnoDB")).await.unwrap();
        }
        // The account of HAProxy's check. On the target it is of no use: MySQL 9 takes no login of HAProxy's.
        for server in [&source, &target] {
            connect(server, Account::Root).await.query_drop("CREATE USER haproxy_check@'%'").await.unwrap();
        }
        let free = || LocalProxy::free_port().unwrap();
        let (port, hasty_port, checked_port, well_port, beside_port) = (free(), free(), free(), free(), free());
        let old = source.port();
        let sections = format!(
            "defaults\n    mode tcp\n    maxconn 2000\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n    timeout queue 60s\n\
             frontend clients\n    bind 127.0.0.1:{port}\n    default_backend school\n\
             backend school\n    server main 127.0.0.1:{old}\n    server spare 127.0.0.1:{old} disabled\n\
             frontend hasty_clients\n    bind 127.0.0.1:{hasty_port}\n    default_backend hasty\n\
             backend hasty\n    timeout queue 2s\n    server main 127.0.0.1:{old} maxconn 40\n\
             backend least\n    balance leastconn\n    server main 127.0.0.1:{old}\n\
             backend fixed\n    balance static-rr\n    server main 127.0.0.1:{old}\n\
             listen checked\n    bind 127.0.0.1:{checked_port}\n    option mysql-check user haproxy_check\n    server main 127.0.0.1:{old} check inter 300ms\n\
             listen beside\n    bind 127.0.0.1:{beside_port}\n    server main 127.0.0.1:{old} check inter 300ms port {well_port}\n"
        );
        let proxy = LocalProxy::start(directory.path(), &sections).await.unwrap();
        Scene { source, target, proxy, port, hasty_port, checked_port, well_port, beside_port, directory }
    }

    fn arguments(&self, more: Value) -> Value {
        let mut arguments = json!({
            "route": "haproxy", "socket": self.proxy.socket(), "address": format!("127.0.0.1:{}", self.port),
            "backend": "school", "server": "main", "finish_within": "2s"
        });
        for (name, value) in more.as_object().unwrap() {
            arguments[name] = value.clone();
        }
        arguments
    }

    pub fn hold(&self, shared: &SharedHold, more: Value) -> TrafficHold {
        let arguments = serde_json::from_value(self.arguments(more)).unwrap();
        TrafficHold::new(&arguments, server(&self.source, "source"), server(&self.target, "target"), shared.clone()).unwrap()
    }

    pub fn switch(&self, shared: &SharedHold) -> TrafficSwitch {
        TrafficSwitch::new(server(&self.source, "source"), server(&self.target, "target"), shared.clone())
    }

    pub async fn rows(&self, on: &LocalServer) -> Vec<u64> {
        connect(on, Account::Root).await.query(format!("SELECT number FROM {TABLE} ORDER BY number")).await.unwrap()
    }

    pub async fn fence(&self, on: u8) {
        connect(&self.source, Account::Dbmove).await.query_drop(format!("SET GLOBAL read_only = {on}")).await.unwrap();
    }

    /// The server's line of `show stat`: sessions, `maxconn`.
    fn line(&self, backend: &str) -> (String, String) {
        let answer = self.proxy.ask("show stat").unwrap();
        let line = answer.lines().find(|line| line.starts_with(&format!("{backend},main,"))).unwrap();
        let cells: Vec<&str> = line.split(',').collect();
        (cells[4].to_owned(), cells[6].to_owned())
    }

    fn leads_to(&self) -> String {
        self.state("school", 18)
    }

    /// A cell of the server's line of `show servers state`.
    fn state(&self, backend: &str, cell: usize) -> String {
        let answer = self.proxy.ask(&format!("show servers state {backend}")).unwrap();
        let line = answer.lines().find(|line| line.contains(" main ")).unwrap();
        line.split(' ').nth(cell).unwrap().to_owned()
    }

    /// Waits until HAProxy's check has found the backend's server up, or down.
    async fn checked_as(&self, backend: &str, up: bool) {
        let began = Instant::now();
        while (self.state(backend, 5) == "2") != up {
            assert!(began.elapsed() < Duration::from_secs(30), "{}", self.proxy.ask("show stat").unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The context of a step after others have left their outputs.
pub fn after(id: &str, outputs: &[(&str, &Output)]) -> StepContext {
    let mut context = context(id, RunKind::Production);
    context.outputs = Arc::new(outputs.iter().map(|(id, output)| ((*id).to_owned(), output.facts.clone())).collect());
    context
}

async fn ready(clients: &Clients) {
    let began = Instant::now();
    while clients.counts.accepted.lock().unwrap().len() < 300 {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", clients.counts.failures());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Clients go on without having noticed anything: a hundred more requests are accepted, none has failed.
async fn as_before(scene: &Scene, clients: &Clients, when: &str) {
    let accepted = clients.counts.accepted.lock().unwrap().len();
    let began = Instant::now();
    while clients.counts.accepted.lock().unwrap().len() < accepted + 100 {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{when}: clients are stuck: {:?}\n{}\n{}",
            clients.counts.failures(),
            scene.proxy.ask("show stat school 7 -1").unwrap(),
            scene.proxy.ask("show sess").unwrap().lines().filter(|line| line.contains("srv=main")).collect::<Vec<_>>().join("\n")
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(clients.counts.failures().is_empty(), "{when}: {:?}", clients.counts.failures());
}

fn refused(result: Result<Output, StepError>, words: &str) -> StepError {
    let error = result.unwrap_err();
    assert!(error.message.contains(words), "{error}");
    error
}

#[test]
fn clients_wait_for_as_long_as_writes_may_be_held() {
    let nobody = Arc::new(Server {
        role: "nobody".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 1,
        user: String::new(),
        password: None,
        tls: Protection::Off,
        watched: None,
    });
    let check = |hold_for: Option<&str>, max_write_gap: u64| {
        let arguments = json!({
            "route": "haproxy", "socket": "/run/a.sock", "address": "db:3306", "backend": "school", "server": "main", "hold_for": hold_for
        });
        let arguments = serde_json::from_value(arguments).unwrap();
        let hold = TrafficHold::new(&arguments, nobody.clone(), nobody.clone(), SharedHold::default()).unwrap();
        hold.check_write_gap(Duration::from_secs(max_write_gap))
    };
    assert!(check(None, 600).is_ok() && check(Some("30s"), 30).is_ok() && check(Some("1m"), 30).is_ok());
    let error = check(Some("30s"), 60).unwrap_err();
    assert_eq!(error.failure, Failure::Refused);
    assert_eq!(error.message, "`hold_for` says that clients wait for 30s at most, and writes may be held for 1m (`max_write_gap`)");
    assert!(error.hint.unwrap().contains("`timeout queue`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_a_second_wait_and_none_fails() {
    if proxy_skipped("five_hundred_clients_a_second_wait_and_none_fails", &KINDS) {
        return;
    }
    let _alone = crate::ALONE.lock().await;
    let mut scene = Scene::start().await;
    let clients = Clients::start(scene.port, TABLE, 500, 12);
    ready(&clients).await;

    let shared = SharedHold::default();
    let holding = context("hold", RunKind::Production);
    let hold = scene.hold(&shared, json!({}));
    let plan = hold.plan(&holding).await.unwrap();
    assert!(plan.warnings.is_empty() && plan.lines.join("\n").contains("leads to `127.0.0.1:"), "{plan:?}");
    assert_eq!(hold.probe(&holding).await.unwrap(), Probe::NotStarted);
    let began = Instant::now();
    let held = hold.run(&holding).await.unwrap();
    eprintln!("held after {:?}: {:?}", began.elapsed(), held.facts);
    assert_eq!(hold.probe(&holding).await.unwrap(), Probe::Done);
    assert_eq!(scene.line("school").1, MAXCONN.to_string());
    assert_eq!(held.facts["still_connected"], 0, "{:?}", held.facts);

    scene.fence(1).await;
    let before = scene.rows(&scene.source).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(scene.rows(&scene.source).await.len(), before.len());

    let switching = after("switch", &[("hold", &held)]);
    let switch = scene.switch(&shared);
    assert_eq!(switch.probe(&switching).await.unwrap(), Probe::NotStarted);
    let plan = switch.plan(&switching).await.unwrap();
    assert!(plan.lines.iter().any(|line| line.contains("with `mysql_native_password` now")), "{plan:?}");
    assert!(plan.warnings.iter().any(|warning| warning.contains("have to know `caching_sha2_password`")), "{plan:?}");
    assert!(!plan.warnings.iter().any(|warning| warning.contains("keeps it")), "{plan:?}");
    let switched = switch.run(&switching).await.unwrap();
    eprintln!("switched: {:?}", switched.facts);
    let to = format!("`school/main` has to lead to `127.0.0.1:{}` in HAProxy's file before its next reload", scene.target.port());
    assert_eq!(switched.facts["change_the_configuration"], to);
    assert_eq!(switch.probe(&switching).await.unwrap(), Probe::Done);
    assert_eq!(scene.leads_to(), scene.source.port().to_string(), "it leads to the target before the release");
    assert_eq!(scene.rows(&scene.target).await, [0_u64; 0], "a client was let through before the release");

    let releasing = after("release", &[("hold", &held), ("switch", &switched)]);
    let release = TrafficRelease::new(server(&scene.target, "target"), shared.clone());
    assert_eq!(release.probe(&releasing).await.unwrap(), Probe::NotStarted);
    let released = release.run(&releasing).await.unwrap();
    eprintln!("released after {:?}: {:?}", began.elapsed(), released.facts);
    assert_eq!(release.probe(&releasing).await.unwrap(), Probe::Done);
    assert_eq!((scene.leads_to(), scene.line("school").1), (scene.target.port().to_string(), String::new()));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let counts = clients.stop().await;
    assert!(scene.proxy.is_running(), "{}", scene.proxy.log());

    let (on_source, on_target) = (scene.rows(&scene.source).await, scene.rows(&scene.target).await);
    eprintln!(
        "{} requests accepted ({} by the source, {} by the target), {} failed, {} repeated by the pool; {}",
        counts.sorted().len(),
        on_source.len(),
        on_target.len(),
        counts.failures().values().sum::<u64>(),
        counts.repeated.load(std::sync::atomic::Ordering::Relaxed),
        counts.slowest()
    );
    assert!(counts.failures().is_empty(), "{:?}", counts.failures());
    assert_eq!(on_source, before, "something was written to the source behind the fence");
    // (A pool's repeated request may be on both sides, as here nothing is moved from one to the other.)
    let mut both: Vec<u64> = on_source.into_iter().chain(on_target).collect();
    both.sort_unstable();
    both.dedup();
    assert_eq!(counts.sorted(), both, "accepted requests and rows differ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_hold_or_lead_is_refused_or_undone_and_clients_go_on() {
    if proxy_skipped("what_does_not_hold_or_lead_is_refused_or_undone_and_clients_go_on", &KINDS) {
        return;
    }
    let _alone = crate::ALONE.lock().await;
    let mut scene = Scene::start().await;
    let clients = Clients::start(scene.port, TABLE, 150, 6);
    ready(&clients).await;
    let refuse = async |more: Value, words: &str| {
        let error = refused(scene.hold(&SharedHold::default(), more).run(&context("hold", RunKind::Production)).await, words);
        assert_eq!(error.failure, Failure::Refused, "{error}");
        assert!(error.hint.is_some());
        assert_eq!((scene.line("school").1, scene.line("hasty").1), (String::new(), "40".to_owned()), "{error}");
    };
    // HAProxy would ignore the commands.
    refuse(json!({"socket": scene.proxy.user_socket()}), "has level `user`").await;
    // In maintenance: nobody goes there, so nobody would be held.
    refuse(json!({"server": "spare"}), "`school/spare` is not in service").await;
    // With several threads, somebody could get past those who wait while our own connection is let through.
    refuse(json!({"backend": "least"}), "`balance leastconn` and HAProxy 2 threads").await;
    // A server can't be added there: it has to be in the file.
    let error = scene.hold(&SharedHold::default(), json!({"backend": "fixed"})).run(&context("hold", RunKind::Production)).await;
    assert!(refused(error, "did not add the server `fixed/dbmove_try`").hint.unwrap().contains("`server dbmove_try 127.0.0.1:1 disabled`"));
    // Clients go elsewhere than to the server that would be filled.
    refuse(json!({"backend": "hasty"}), "is not led to `hasty/main`").await;
    refuse(json!({"address": format!("127.0.0.1:{}", scene.target.port())}), "does not lead to the source").await;
    // Who waits would be turned away before the cutover is through.
    refuse(
        json!({"backend": "hasty", "address": format!("127.0.0.1:{}", scene.hasty_port)}),
        "closes a connection that waits longer than about ",
    )
    .await;
    refused(
        scene.hold(&SharedHold::default(), json!({"backend": "nobody"})).run(&context("hold", RunKind::Production)).await,
        "Can't find backend",
    );
    // A rehearsal without a route of its own.
    let error = scene.hold(&SharedHold::default(), json!({})).run(&context("hold", RunKind::Rehearsal)).await;
    assert_eq!(refused(error, "can't be rehearsed").failure, Failure::Refused);
    scene.proxy.ask("set server school/spare state ready").unwrap();
    refuse(json!({}), "has another server in service, `spare`").await;
    scene.proxy.ask("set server school/spare state maint").unwrap();
    as_before(&scene, &clients, "after refusals").await;

    // The switch leads to a server that is not the target: our own connection notices, and nobody else has been there.
    let shared = SharedHold::default();
    let holding = context("hold", RunKind::Production);
    let hold = scene.hold(&shared, json!({"target": format!("127.0.0.1:{}", scene.source.port())}));
    let held = hold.run(&holding).await.unwrap();
    let switching = after("switch", &[("hold", &held)]);
    let switch = scene.switch(&shared);
    refused(switch.run(&switching).await, "is not the target");
    assert_eq!(switch.probe(&switching).await.unwrap(), Probe::NotStarted);
    for _ in 0..2 {
        switch.undo(&switching).await.unwrap();
        hold.undo(&holding).await.unwrap();
    }
    assert_eq!((scene.leads_to(), scene.line("school").1), (scene.source.port().to_string(), String::new()));
    as_before(&scene, &clients, "after a switch to the wrong server").await;

    // Nothing answers where it leads.
    let nowhere = LocalProxy::free_port().unwrap();
    let hold = scene.hold(&shared, json!({"target": format!("127.0.0.1:{nowhere}")}));
    let held = hold.run(&holding).await.unwrap();
    let switching = after("switch", &[("hold", &held)]);
    assert!(switch.run(&switching).await.is_err());
    switch.undo(&switching).await.unwrap();
    hold.undo(&holding).await.unwrap();
    as_before(&scene, &clients, "after a switch to nowhere").await;

    // dbmove dies: its connections end, and clients are served again without anybody's doing, by the source. What it left is put back.
    let hold = scene.hold(&shared, json!({}));
    let held = hold.run(&holding).await.unwrap();
    *shared.holding.lock().await = None;
    as_before(&scene, &clients, "after a crash").await;
    assert_eq!(scene.line("school").1, MAXCONN.to_string());
    let reborn = SharedHold::default();
    let hold = scene.hold(&reborn, json!({}));
    assert!(matches!(hold.probe(&holding).await.unwrap(), Probe::Partly { .. }));
    refused(scene.switch(&reborn).run(&after("switch", &[("hold", &held)])).await, "clients are not held");
    hold.undo(&holding).await.unwrap();
    hold.undo(&holding).await.unwrap();
    assert_eq!(scene.line("school").1, "");
    as_before(&scene, &clients, "after the undo of a crash").await;

    // HAProxy is restarted while clients are held: what its file says is back, and that is seen before the release.
    let counts = clients.stop().await;
    assert!(counts.failures().is_empty(), "{:?}", counts.failures());
    let hold = scene.hold(&reborn, json!({}));
    let held = hold.run(&holding).await.unwrap();
    let switching = after("switch", &[("hold", &held)]);
    let switched = scene.switch(&reborn).run(&switching).await.unwrap();
    scene.proxy.kill();
    let sections = std::fs::read_to_string(scene.directory.path().join("haproxy.cfg")).unwrap();
    let sections = &sections[sections.find("defaults").unwrap()..];
    scene.proxy = restarted(scene.directory.path(), sections).await;
    let releasing = after("release", &[("hold", &held), ("switch", &switched)]);
    let release = TrafficRelease::new(server(&scene.target, "target"), reborn.clone());
    refused(release.run(&releasing).await, "is not as `traffic.hold` left it");
    assert_eq!(release.probe(&releasing).await.unwrap(), Probe::NotStarted);
    scene.switch(&reborn).undo(&switching).await.unwrap();
    hold.undo(&holding).await.unwrap();
    assert_eq!((scene.leads_to(), scene.line("school").1), (scene.source.port().to_string(), String::new()));
    assert_eq!(scene.rows(&scene.source).await, counts.sorted());
    assert_eq!(scene.rows(&scene.target).await, [0_u64; 0]);
}

/// Behind the first effect of the release clients are at the target: an error there, or a kill, leaves them let through a few at a time, and whoever
/// comes next lets the others through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_ended_half_way_is_finished() {
    if proxy_skipped("a_release_that_ended_half_way_is_finished", &KINDS) {
        return;
    }
    let _alone = crate::ALONE.lock().await;
    let scene = Scene::start().await;
    let clients = Clients::start(scene.port, TABLE, 100, 4);
    ready(&clients).await;
    // Another store has a hold and a switch before these.
    let of_accounts = |fact: &str, value: Value| Output::default().fact("store", "accounts").fact(fact, value);
    let other_hold = of_accounts(
        "held_route",
        json!({"route": {"socket": "/nowhere.sock", "address": "127.0.0.1:1", "backend": "a", "server": "a"}, "maxconn": 7, "held": 1}),
    );
    let other_switch = of_accounts("leads_to", json!("127.0.0.1:1"));
    let shared = SharedHold::new(Shared::of_store("school"));
    let held = scene.hold(&shared, json!({})).run(&context("hold", RunKind::Production)).await.unwrap();
    let switched = scene.switch(&shared).run(&after("switch", &[("a_hold", &other_hold), ("hold", &held)])).await.unwrap();
    let outputs = [("a_hold", &other_hold), ("a_switch", &other_switch), ("hold", &held), ("switch", &switched)];
    let releasing = after("release", &outputs);
    let release = TrafficRelease::new(server(&scene.target, "target"), shared.clone());

    // An attempt that has led clients to the target and let the first few through, when HAProxy did not answer.
    releasing.save_output(&Output::default().fact("let_through", 77)).unwrap();
    scene.proxy.ask(&format!("set server school/main addr 127.0.0.1 port {}", scene.target.port())).unwrap();
    scene.proxy.ask(&format!("set maxconn server school/main {}", MAXCONN + 4)).unwrap();
    assert_eq!(release.probe(&releasing).await.unwrap(), Probe::Done);
    let released = release.run(&releasing).await.unwrap();
    assert_eq!(released.facts["let_through"], 77, "{:?}", released.facts);
    assert_eq!((scene.leads_to(), scene.line("school").1), (scene.target.port().to_string(), String::new()));
    assert!(shared.holding.lock().await.is_none(), "our own connections are left");
    as_before(&scene, &clients, "after the second attempt").await;

    // A driver that was killed there, and the next one.
    scene.proxy.ask(&format!("set maxconn server school/main {MAXCONN}")).unwrap();
    let reborn = TrafficRelease::new(server(&scene.target, "target"), SharedHold::new(Shared::of_store("school")));
    assert_eq!(reborn.probe(&releasing).await.unwrap(), Probe::Done);
    for _ in 0..2 {
        reborn.finish(&releasing).await.unwrap();
        assert_eq!(scene.line("school").1, "");
    }
    as_before(&scene, &clients, "after the next driver").await;
    let counts = clients.stop().await;
    assert!(counts.failures().is_empty(), "{:?}", counts.failures());

    // The release is the route: its undo leads back, and fails where somebody else leads clients elsewhere.
    scene.proxy.ask("set server school/main addr 127.0.0.1 port 9").unwrap();
    refused(reborn.undo(&releasing).await.map(|()| Output::default()), "leads neither to");
    scene.proxy.ask(&format!("set server school/main addr 127.0.0.1 port {}", scene.target.port())).unwrap();
    for _ in 0..2 {
        reborn.undo(&releasing).await.unwrap();
        assert_eq!(scene.leads_to(), scene.source.port().to_string());
    }
}

/// HAProxy goes on checking the health of the server it leads to, and takes one that does not pass out of service: that is found out before anybody is
/// held, and does not stand in the way of a rollback.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_fails_haproxys_own_check_is_refused_before_anybody_is_held() {
    if proxy_skipped("a_target_that_fails_haproxys_own_check_is_refused_before_anybody_is_held", &KINDS) {
        return;
    }
    let _alone = crate::ALONE.lock().await;
    let scene = Scene::start().await;
    // What HAProxy asks `main` of `beside` for, at a port of its own: while anybody listens there, all is well.
    let bound = async || tokio::net::TcpListener::bind(("127.0.0.1", scene.well_port)).await.unwrap();
    let listen = |listener: tokio::net::TcpListener| tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let listening = listen(bound().await);
    scene.checked_as("checked", true).await;
    let shared = SharedHold::default();
    let hold = |backend: &str, port: u16| {
        scene.hold(&shared, json!({"backend": backend, "address": format!("127.0.0.1:{port}"), "finish_within": "200ms"}))
    };
    let checked = hold("checked", scene.checked_port);
    let holding = context("hold", RunKind::Production);
    let plan = checked.plan(&holding).await.unwrap();
    assert!(plan.warnings.iter().any(|warning| warning.contains("HAProxy checks the health of `checked/main`")), "{plan:?}");
    // Twice: what was added for the first try does not stand in the way of the second.
    for _ in 0..2 {
        let error = refused(checked.run(&holding).await, "does not pass (L7STS: ");
        assert_eq!(error.failure, Failure::Refused, "{error}");
        assert!(error.message.contains("HAProxy would refuse every client. Nobody was held"), "{error}");
        assert!(error.hint.unwrap().contains("`option mysql-check user NAME`"));
        assert_eq!((scene.line("checked").1, scene.state("checked", 5)), (String::new(), "2".to_owned()));
    }

    // One that passes.
    scene.checked_as("beside", true).await;
    let (beside, holding) = (hold("beside", scene.beside_port), context("hold", RunKind::Production));
    let held = beside.run(&holding).await.unwrap();
    let switching = after("switch", &[("hold", &held)]);
    let switch = scene.switch(&shared);
    let switched = switch.run(&switching).await.unwrap();
    let releasing = after("release", &[("hold", &held), ("switch", &switched)]);
    TrafficRelease::new(server(&scene.target, "target"), shared.clone()).run(&releasing).await.unwrap();
    assert_eq!(scene.state("beside", 18), scene.target.port().to_string());

    // Clients wait for a rollback where they are led somewhere, and have not to where HAProxy leads nobody.
    beside.hold_for_rollback(&holding).await.unwrap();
    assert_eq!(scene.line("beside").1, MAXCONN.to_string());
    beside.let_through_again(&holding).await.unwrap();
    listening.abort();
    scene.checked_as("beside", false).await;
    beside.hold_for_rollback(&holding).await.unwrap();
    assert_eq!(scene.line("beside").1, "");
    let error = refused(beside.run(&holding).await, "HAProxy's health check of `beside/main` fails (L4");
    assert_eq!(error.failure, Failure::Refused);
    for _ in 0..2 {
        switch.undo(&switching).await.unwrap();
        beside.undo(&holding).await.unwrap();
    }
    let listening = listen(bound().await);
    scene.checked_as("beside", true).await;
    assert_eq!((scene.state("beside", 18), scene.line("beside").1), (scene.source.port().to_string(), String::new()));
    listening.abort();
}

async fn restarted(directory: &Path, sections: &str) -> LocalProxy {
    LocalProxy::start(directory, sections).await.unwrap()
}

/// An endpoint of RDS is a name, and a failover moves it. HAProxy is given an address: what goes into its file is the name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_goes_by_a_name_is_to_be_in_the_file_by_its_name() {
    if proxy_skipped("a_target_that_goes_by_a_name_is_to_be_in_the_file_by_its_name", &KINDS) {
        return;
    }
    let _alone = crate::ALONE.lock().await;
    let scene = Scene::start().await;
    let shared = SharedHold::default();
    // What `localhost` is here: HAProxy's line is IPv4, and so are the servers.
    let by_name = format!("localhost:{}", scene.target.port());
    let hold = scene.hold(&shared, json!({"target": by_name}));
    let held = hold.run(&context("hold", RunKind::Production)).await.unwrap();
    scene.fence(1).await;
    let switching = after("switch", &[("hold", &held)]);
    let switch = scene.switch(&shared);
    let plan = switch.plan(&switching).await.unwrap();
    assert!(
        plan.warnings.iter().any(|warning| warning.contains("the address that `localhost` has at the switch, and keeps it")),
        "{plan:?}"
    );
    let switched = switch.run(&switching).await.unwrap();
    let told = switched.facts["change_the_configuration"].as_str().unwrap();
    assert!(told.starts_with(&format!("`school/main` has to lead to `{by_name}` by its name")) && told.contains("`resolvers`"), "{told}");
    assert_eq!(switched.facts["leads_to"], format!("127.0.0.1:{}", scene.target.port()));
    switch.undo(&switching).await.unwrap();
    hold.undo(&after("hold", &[("hold", &held)])).await.unwrap();
}
