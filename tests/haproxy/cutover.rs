//! A whole move through HAProxy with the built program: clients that connect for each request, pools, and the canary, all through the
//! proxy's address.

use std::time::Duration;

use dbmove::local::{Account, LocalProxy, ServerKind};
use mysql_async::prelude::Queryable as _;

use crate::clients::Clients;
use crate::real::proxy_skipped;
use crate::world::{World, code, connect, number, said};

const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];
const TABLE: &str = "school.request";

/// HAProxy in front of production's source, and of the rehearsal's.
async fn proxied(world: &World) -> (LocalProxy, u16) {
    let (port, rehearsal_port) = (LocalProxy::free_port().unwrap(), LocalProxy::free_port().unwrap());
    let rehearsal = world.rehearsal.as_ref().unwrap().0.port();
    let sections = format!(
        "defaults\n    mode tcp\n    maxconn 2000\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n    timeout queue 60s\n\
         listen school\n    bind 127.0.0.1:{port}\n    server main 127.0.0.1:{}\n\
         listen rehearsal\n    bind 127.0.0.1:{rehearsal_port}\n    server main 127.0.0.1:{rehearsal}\n",
        world.source.port()
    );
    let proxy = LocalProxy::start(world.directory.path(), &sections).await.unwrap();
    let hold = format!(
        "    - {{ id: hold, run: traffic.hold, store: school, with: {{ route: haproxy, socket: \"{}\", address: \"127.0.0.1:{port}\", backend: school, \
         server: main, rehearsal_address: \"127.0.0.1:{rehearsal_port}\", rehearsal_backend: rehearsal, finish_within: 1s }} }}\n    - {{ id: fence",
        proxy.socket().display()
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
    (proxy, port)
}

/// Runs a command to its end; what it said is in the panic if it does not end well.
async fn done(world: &World, name: &str, arguments: &[&str]) {
    let mut child = world.started(arguments, name);
    let ended = tokio::time::timeout(Duration::from_secs(150), child.wait()).await;
    let log = std::fs::read_to_string(world.path(name)).unwrap();
    let status = ended.unwrap_or_else(|_| panic!("`{name}` did not end:\n{log}")).unwrap();
    assert!(status.success(), "{name}: {status}\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_move_behind_haproxy_fails_no_request() {
    if proxy_skipped("a_whole_move_behind_haproxy_fails_no_request", &KINDS) {
        return;
    }
    a_whole_move(&["hold.held", "hold.full"]).await;
}

/// Killed in the milliseconds of the switch's try, HAProxy leads clients to the target until the next driver points it back. Whoever got in there
/// is named before the next fence, which is not raised then; else the move goes on as if nothing had been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_got_in_by_a_kill_in_the_try_is_named() {
    if proxy_skipped("who_got_in_by_a_kill_in_the_try_is_named", &KINDS) {
        return;
    }
    a_whole_move(&["switch.pointed"]).await;
}

/// Killed in the release, clients are at the target, and the next driver goes on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_release_is_gone_on_from() {
    if proxy_skipped("a_kill_in_the_release_is_gone_on_from", &KINDS) {
        return;
    }
    a_whole_move(&["release.begins"]).await;
}

async fn a_whole_move(killed_at: &[&str]) {
    let _alone = crate::ALONE.lock().await;
    let mut world = World::start(KINDS[0], KINDS[1], 0.02).await.with_rehearsal().await;
    for server in [&world.source, &world.rehearsal.as_ref().unwrap().0] {
        let mut root = connect(server, Account::Root).await;
        root.query_drop(format!("CREATE TABLE {TABLE} (number bigint PRIMARY KEY) ENGINE=InnoDB")).await.unwrap();
    }
    let (mut proxy, port) = proxied(&world).await;
    let playbook = world.playbook_argument();
    done(&world, "check", &["playbook", "check", &playbook]).await;
    let writers = world.write(150.0, 100.0).await;
    let clients = Clients::start(port, TABLE, 200, 8);

    done(&world, "rehearse", &["--yes", "rehearse", &playbook]).await;
    assert_eq!(number(&world.target, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'school'").await, 0);
    done(&world, "run", &["--yes", "run", &playbook, "--no-follow"]).await;

    // Killed at each point: clients are served by the source, and the next driver puts back what was left before it begins again.
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "1h"];
    for &point in killed_at {
        let output = world.dbmove(&cutover).env("DBMOVE_CRASH_AT", point).output().await.unwrap();
        assert_eq!(code(&output), -9, "{point}: {}", said(&output));
        if ["hold.held", "release.begins"].contains(&point) {
            let accepted = clients.counts.sorted().len();
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(clients.counts.sorted().len() > accepted, "{point}: clients are not served after the crash");
        }
    }
    let failed_by_crashes = clients.counts.failures().values().sum::<u64>();
    let before = clients.counts.sorted().len();
    if killed_at.contains(&"switch.pointed") {
        let output = world.finished(&cutover).await;
        if code(&output) == 4 {
            assert!(said(&output).contains("somebody else wrote to the target of `school`"), "{}", said(&output));
            assert!(said(&output).contains("`app@127.0.0.1`"), "{}", said(&output));
            assert_eq!(number(&world.source, "SELECT @@global.read_only").await, 0);
            eprintln!("clients got into the target, and were named");
            clients.stop().await;
            writers.stop().await.unwrap();
            return;
        }
        assert_eq!(code(&output), 0, "{}", said(&output));
    } else {
        done(&world, "cutover", &cutover).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;

    let counts = clients.stop().await;
    let setbacks = writers.stop().await.unwrap();
    let verdict = world.ledger_on(&world.target).await;
    assert!(verdict.is_clean(), "{verdict:#?}\n{setbacks:?}");
    let failed = counts.failures().values().sum::<u64>() - failed_by_crashes;
    eprintln!(
        "{} requests in the cutover that was not killed: {failed} failed, longest wait of all {:?}; {failed_by_crashes} failed where dbmove was killed behind the fence",
        counts.sorted().len() - before,
        counts.longest()
    );
    // Behind the fence clients met it until this driver had undone what the killed one left.
    let met_the_fence = |error: &String| error.contains("1290");
    if killed_at.contains(&"switch.pointed") {
        assert!(counts.failures().keys().all(met_the_fence), "{:?}", counts.failures());
    } else {
        assert_eq!(failed, 0, "{:?}", counts.failures());
    }
    let mut root = connect(&world.target, Account::Root).await;
    let rows: Vec<u64> = root.query(format!("SELECT number FROM {TABLE} ORDER BY number")).await.unwrap();
    let lost: Vec<u64> = counts.sorted().into_iter().filter(|number| rows.binary_search(number).is_err()).collect();
    assert!(lost.is_empty(), "accepted and not on the target: {lost:?}");
    assert!(proxy.is_running(), "{}", proxy.log());
    let state = proxy.ask("show servers state school").unwrap();
    assert!(state.contains(&format!(" {} ", world.target.port())), "{state}");
}
