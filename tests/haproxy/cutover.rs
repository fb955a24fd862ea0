//! A whole move through HAProxy with the built program: clients that connect for each request, pools, and the canary, all through the
//! proxy's address.

use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalProxy, ServerKind};
use mysql_async::prelude::Queryable as _;
use serde_json::Value;

use crate::clients::Clients;
use crate::real::proxy_skipped;
use crate::world::{World, code, connect, number, said};

pub const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];
const TABLE: &str = "school.request";

/// HAProxy in front of production's source, and of the rehearsal's.
pub struct Proxied {
    pub proxy: LocalProxy,
    /// Its configuration, for another start.
    pub sections: String,
    /// Where clients connect.
    pub port: u16,
}

/// A world with a table for [`Clients`], and HAProxy in front of it. `socket` is what the playbook says for the control socket, if not its path.
pub async fn proxied(socket: Option<&str>) -> (World, Proxied) {
    let world = World::start(KINDS[0], KINDS[1], 0.02).await.with_rehearsal().await;
    let rehearsal = &world.rehearsal.as_ref().unwrap().0;
    for server in [&world.source, rehearsal] {
        let mut root = connect(server, Account::Root).await;
        root.query_drop(format!("CREATE TABLE {TABLE} (number bigint PRIMARY KEY) ENGINE=InnoDB")).await.unwrap();
        // What 500 new connections a second take on a busy machine.
        root.query_drop("SET GLOBAL max_connections = 1000").await.unwrap();
    }
    let mut root = connect(&world.target, Account::Root).await;
    root.query_drop("SET GLOBAL max_connections = 1000").await.unwrap();
    let (port, rehearsal_port) = (LocalProxy::free_port().unwrap(), LocalProxy::free_port().unwrap());
    let sections = format!(
        "defaults\n    mode tcp\n    maxconn 2000\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n    timeout queue 60s\n\
         listen school\n    bind 127.0.0.1:{port}\n    server main 127.0.0.1:{}\n\
         listen rehearsal\n    bind 127.0.0.1:{rehearsal_port}\n    server main 127.0.0.1:{}\n",
        world.source.port(),
        rehearsal.port()
    );
    let proxy = LocalProxy::start(world.directory.path(), &sections).await.unwrap();
    let socket = socket.map_or_else(|| proxy.socket().display().to_string(), str::to_owned);
    let hold = format!(
        "    - {{ id: hold, run: traffic.hold, store: school, with: {{ route: haproxy, socket: \"{socket}\", address: \"127.0.0.1:{port}\", backend: school, \
         server: main, rehearsal_address: \"127.0.0.1:{rehearsal_port}\", rehearsal_backend: rehearsal, finish_within: 1s }} }}\n    - {{ id: fence"
    );
    let text = world.playbook_text("30s");
    let route_file = format!("route_file: \"{}\"", world.route().display());
    let url = format!("url: \"mysql://127.0.0.1:{port}/\", rehearsal_url: \"mysql://127.0.0.1:{rehearsal_port}/\"");
    let switch = text.lines().find(|line| line.contains("id: switch")).unwrap().to_owned();
    let steps = "    - { id: switch, run: traffic.switch, store: school }\n    - { id: release, run: traffic.release, store: school, point_of_no_return: true }";
    let text = text.replace(&route_file, &url).replace("    - { id: fence", &hold).replace(&switch, steps);
    std::fs::write(world.playbook(), text).unwrap();
    // The writers of the school find the proxy where they would find the server.
    std::fs::write(world.route(), format!("127.0.0.1:{port}\n")).unwrap();
    (world, Proxied { proxy, sections, port })
}

/// The clients of a world with HAProxy: `per_second` that connect for each request, and a pool.
pub fn clients(proxied: &Proxied, per_second: u64, pool: u64) -> Clients {
    Clients::start(proxied.port, TABLE, per_second, pool)
}

/// Runs a command to its end; what it said is in the panic if it does not end well.
pub async fn done(world: &World, name: &str, arguments: &[&str]) {
    let mut child = world.started(arguments, name);
    let ended = tokio::time::timeout(Duration::from_secs(240), child.wait()).await;
    let log = std::fs::read_to_string(world.path(name)).unwrap();
    let status = ended.unwrap_or_else(|_| panic!("`{name}` did not end:\n{log}")).unwrap();
    assert!(status.success(), "{name}: {status}\n{log}");
}

/// Until as many more requests have had an outcome.
async fn more_requests(clients: &Clients, more: u64, when: &str) {
    let (before, began) = (clients.counts.ended_so_far(), Instant::now());
    while clients.counts.ended_so_far() < before + more {
        assert!(began.elapsed() < Duration::from_secs(60), "{when}: clients are stuck");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Until as many more requests were accepted.
pub async fn more_accepted(clients: &Clients, more: usize, when: &str) {
    let accepted = || clients.counts.accepted.lock().unwrap().len();
    let (before, began) = (accepted(), Instant::now());
    while accepted() < before + more {
        assert!(began.elapsed() < Duration::from_secs(60), "{when}: clients are not served: {:?}", clients.counts.failures());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Where nobody but dbmove wrote to the target, what is there is on the source.
async fn nobody_got_to_the_target(world: &World, when: &str) {
    let rows = async |server| -> Vec<u64> {
        connect(server, Account::Root).await.query(format!("SELECT number FROM {TABLE} ORDER BY number")).await.unwrap()
    };
    let on_target = rows(&world.target).await;
    let on_source = rows(&world.source).await;
    let alone: Vec<u64> = on_target.into_iter().filter(|number| on_source.binary_search(number).is_err()).collect();
    assert!(alone.is_empty(), "{when}: written to the target by clients: {alone:?}");
}

/// What the steps of the cutover took, and what the smoke test says of the canary.
async fn timeline(world: &World) -> (String, Value) {
    let output = world.finished(&["report", "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    let stages = report["stages"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let steps = stages.iter().find(|stage| stage["name"] == "cutover").unwrap()["steps"].as_array().unwrap();
    let took = |step: &Value| format!("{} {:.0} ms", step["id"].as_str().unwrap(), step["seconds"].as_f64().unwrap_or(f64::NAN) * 1e3);
    let smoke = steps.iter().find(|step| step["id"] == "smoke").unwrap()["facts"].clone();
    (steps.iter().map(took).collect::<Vec<_>>().join(", "), smoke)
}

/// What clients ask of the database: `per_second` connections that are made for one request each, and as many in pools, with 50 a second
/// each.
struct Load {
    per_second: u64,
    pool: u64,
}

impl Load {
    /// What a loaded machine carries besides other tests.
    const SMALL: Load = Load { per_second: 200, pool: 8 };
    /// 500 new connections and 1,000 writes a second.
    const FULL: Load = Load { per_second: 500, pool: 10 };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_move_behind_haproxy_fails_no_request() {
    if proxy_skipped("a_whole_move_behind_haproxy_fails_no_request", &KINDS) {
        return;
    }
    a_whole_move(&Load::SMALL, &["hold.held", "hold.full"]).await;
}

/// The same with 500 new connections and 1,000 writes a second. It needs the machine for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_writes_a_second_behind_haproxy_and_none_fails() {
    if std::env::var_os("DBMOVE_SOAK").is_none() {
        eprintln!("left out: DBMOVE_SOAK is not set");
        return;
    }
    if proxy_skipped("a_thousand_writes_a_second_behind_haproxy_and_none_fails", &KINDS) {
        return;
    }
    a_whole_move(&Load::FULL, &[]).await;
}

/// Killed right before and right after our own connection is let through to the target, clients are led to the source: none gets to the target
/// before the release, and the next driver moves as if nothing had been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_switch_leads_no_client_to_the_target() {
    if proxy_skipped("a_kill_in_the_switch_leads_no_client_to_the_target", &KINDS) {
        return;
    }
    a_whole_move(&Load::SMALL, &["switch.pointed", "switch.let_through"]).await;
}

/// Killed in the release, clients are at the target, a few at a time, and the next driver lets all of them through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_release_is_gone_on_from() {
    if proxy_skipped("a_kill_in_the_release_is_gone_on_from", &KINDS) {
        return;
    }
    a_whole_move(&Load::SMALL, &["release.begins"]).await;
}

async fn a_whole_move(load: &Load, killed_at: &[&str]) {
    let _alone = crate::ALONE.lock().await;
    let (mut world, mut proxied) = proxied(None).await;
    let playbook = world.playbook_argument();
    done(&world, "check", &["playbook", "check", &playbook]).await;
    let writers = world.write(150.0, 100.0).await;
    let clients = clients(&proxied, load.per_second, load.pool);

    done(&world, "rehearse", &["--yes", "rehearse", &playbook]).await;
    assert_eq!(number(&world.target, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'school'").await, 0);
    done(&world, "run", &["--yes", "run", &playbook, "--no-follow"]).await;

    // Killed at each point: clients are served by the source, and the next driver puts back what was left before it begins again.
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "1h"];
    for &point in killed_at {
        let output = world.dbmove(&cutover).env("DBMOVE_CRASH_AT", point).output().await.unwrap();
        assert_eq!(code(&output), -9, "{point}: {}", said(&output));
        match point {
            "hold.held" | "release.begins" => more_accepted(&clients, 100, point).await,
            // Behind the fence, the source refuses their writes.
            _ => more_requests(&clients, 100, point).await,
        }
        if point != "release.begins" {
            nobody_got_to_the_target(&world, point).await;
        }
    }
    let failed_by_crashes = clients.counts.failures().values().sum::<u64>();
    let before = clients.counts.sorted().len();
    let rate_began = Instant::now();
    // (Behind the fence of one that was killed, none is accepted until the next driver lifts it.)
    more_requests(&clients, 500, "before the cutover").await;
    let rate = 500.0 / rate_began.elapsed().as_secs_f64();
    let slowest_before = clients.counts.slowest();
    clients.counts.measure_anew();
    done(&world, "cutover", &cutover).await;
    more_accepted(&clients, 200, "after the cutover").await;

    let (steps, smoke) = timeline(&world).await;
    let slowest = clients.counts.slowest();
    let counts = clients.stop().await;
    let setbacks = writers.stop().await.unwrap();
    let verdict = world.ledger_on(&world.target).await;
    assert!(verdict.is_clean(), "{verdict:#?}\n{setbacks:?}");
    let failed = counts.failures().values().sum::<u64>() - failed_by_crashes;
    eprintln!(
        "{} requests in the cutover that was not killed, {rate:.0} a second before it: {failed} failed; {slowest}\n\
         before it: {slowest_before}; {failed_by_crashes} failed where dbmove was killed behind the fence\nsteps: {steps}\ncanary: {smoke}",
        counts.sorted().len() - before,
    );
    // Behind the fence clients met it until this driver had undone what the killed one left.
    assert!(
        failed == 0 || counts.failures().keys().all(|error| error.contains("1290") && !killed_at.is_empty()),
        "{:?}",
        counts.failures()
    );
    if !killed_at.iter().any(|point| point.starts_with("switch") || point.starts_with("release")) {
        assert_eq!((failed, &smoke["failed"]), (0, &0.into()), "{:?}", counts.failures());
    }
    let mut root = connect(&world.target, Account::Root).await;
    let rows: Vec<u64> = root.query(format!("SELECT number FROM {TABLE} ORDER BY number")).await.unwrap();
    let lost: Vec<u64> = counts.sorted().into_iter().filter(|number| rows.binary_search(number).is_err()).collect();
    assert!(lost.is_empty(), "accepted and not on the target: {lost:?}");
    assert!(proxied.proxy.is_running(), "{}", proxied.proxy.log());
    let state = proxied.proxy.ask("show servers state school").unwrap();
    assert!(state.lines().any(|line| line.contains(" main ") && line.contains(&format!(" {} ", world.target.port()))), "{state}");
    let stat = proxied.proxy.ask("show stat").unwrap();
    let main = stat.lines().find(|line| line.starts_with("school,main,")).unwrap();
    assert_eq!(main.split(',').nth(6), Some(""), "clients are still let through a few at a time: {main}");
}
