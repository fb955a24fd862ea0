//! A route that does not do what it says, with the built program on real servers: it is noticed, clients stay where they were, and the
//! person is told. What HAProxy forgets by a restart is what lies most: every command before it was obeyed.

use std::path::Path;
use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalProxy};
use mysql_async::prelude::Queryable as _;
use tokio::process::Child;

use crate::cutover::{KINDS, Proxied, clients, more_accepted, proxied};
use crate::real::proxy_skipped;
use crate::world::{World, code, connect, number, said};

/// A hook that waits where the test asks for it.
fn stop(world: &World, name: &str) -> String {
    let path = |what: &str| world.path(&format!("{name}-{what}")).display().to_string();
    let script =
        format!("if [ -e '{}' ]; then touch '{}'; while [ ! -e '{}' ]; do sleep 0.05; done; fi", path("wanted"), path("there"), path("go"));
    format!("    - {{ id: {name}, run: hook.exec, with: {{ command: [sh, -c, \"{script}\"], undo: none, timeout: 120s }} }}\n")
}

async fn arrived(there: &Path, child: &mut Child, world: &World, log: &str) {
    let began = Instant::now();
    while !there.exists() {
        let said = || std::fs::read_to_string(world.path(log)).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "the cutover ended:\n{}", said());
        assert!(began.elapsed() < Duration::from_secs(120), "the cutover did not come there:\n{}", said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs the cutover, restarts HAProxy where the hook `name` is, and goes on; what the program said, and how it ended.
async fn restarted_at(world: &World, proxied: &mut Proxied, cutover: &[&str], name: &str) -> (i32, String) {
    std::fs::write(world.path(&format!("{name}-wanted")), "").unwrap();
    let log = format!("{name}.log");
    let mut child = world.started_with(cutover, &log, &[("TEST_SOCKET", &proxied.proxy.socket().display().to_string())]);
    arrived(&world.path(&format!("{name}-there")), &mut child, world, &log).await;
    proxied.proxy.kill();
    proxied.proxy = LocalProxy::start(world.directory.path(), &proxied.sections).await.unwrap();
    std::fs::write(world.path(&format!("{name}-go")), "").unwrap();
    let status = tokio::time::timeout(Duration::from_secs(120), child.wait()).await.unwrap().unwrap();
    (status.code().unwrap_or(-1), std::fs::read_to_string(world.path(&log)).unwrap())
}

async fn serves_as_before(world: &World, when: &str) {
    assert_eq!(number(&world.source, "SELECT @@global.read_only").await, 0, "{when}: the source is fenced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_lies_is_noticed_and_told() {
    if proxy_skipped("a_route_that_lies_is_noticed_and_told", &KINDS) {
        return;
    }
    let _alone = crate::ALONE.lock().await;
    let (world, mut proxied) = proxied(Some("${env:TEST_SOCKET}")).await;
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let text = text
        .replace("    - { id: switch", &format!("{}    - {{ id: switch", stop(&world, "before_switch")))
        .replace("    - { id: release", &format!("{}    - {{ id: release", stop(&world, "before_release")))
        .replace("    - { id: smoke", &format!("{}    - {{ id: smoke", stop(&world, "before_smoke")));
    std::fs::write(world.playbook(), text).unwrap();
    let playbook = world.playbook_argument();
    let socket = proxied.proxy.socket().display().to_string();
    let mut run = world.started_with(&["--yes", "run", &playbook, "--no-follow"], "run", &[("TEST_SOCKET", &socket)]);
    let status = tokio::time::timeout(Duration::from_secs(120), run.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{}", std::fs::read_to_string(world.path("run")).unwrap());
    let clients = clients(&proxied, 50, 4);
    more_accepted(&clients, 50, "before").await;
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of routes that lie"];

    // A control socket where commands are ignored: nothing is begun there.
    let user = proxied.proxy.user_socket().display().to_string();
    let output = world.dbmove(&cutover).env("TEST_SOCKET", &user).output().await.unwrap();
    let words = said(&output);
    assert_eq!(code(&output), 4, "{words}");
    assert!(words.contains("has level `user`, so nothing can be changed there") && words.contains("Nobody was held"), "{words}");
    assert!(words.contains("level admin"), "{words}");
    serves_as_before(&world, "a socket without rights").await;
    more_accepted(&clients, 50, "a socket without rights").await;
    assert!(clients.counts.failures().is_empty(), "{:?}", clients.counts.failures());

    // Restarted while clients are held: the switch sees that nobody is held any more, and all is undone.
    let (ended, words) = restarted_at(&world, &mut proxied, &cutover, "before_switch").await;
    assert_eq!(ended, 1, "{words}");
    assert!(words.contains("clients are not held at HAProxy"), "{words}");
    assert!(words.contains("a restart or reload of HAProxy lets"), "{words}");
    serves_as_before(&world, "restarted before the switch").await;
    more_accepted(&clients, 50, "restarted before the switch").await;

    // Restarted after the target was tried: the release sees it, and all is undone.
    std::fs::remove_file(world.path("before_switch-wanted")).unwrap();
    let (ended, words) = restarted_at(&world, &mut proxied, &cutover, "before_release").await;
    assert_eq!(ended, 1, "{words}");
    assert!(words.contains("HAProxy is not as `traffic.hold` left it"), "{words}");
    assert!(words.contains("Nobody was let through to the target"), "{words}");
    serves_as_before(&world, "restarted before the release").await;
    more_accepted(&clients, 50, "restarted before the release").await;

    // Restarted after the release: the file's address is back, the source's. It is fenced, so nothing is written there, and the canary tells.
    std::fs::remove_file(world.path("before_release-wanted")).unwrap();
    let (ended, words) = restarted_at(&world, &mut proxied, &cutover, "before_smoke").await;
    assert_eq!(ended, 1, "{words}");
    assert!(words.contains("the canary did not reach the target"), "{words}");
    assert_eq!(number(&world.source, "SELECT @@global.read_only").await, 1, "clients write to the source behind the switch");

    // Pointed to the target by hand, the run goes on to its end.
    std::fs::remove_file(world.path("before_smoke-wanted")).unwrap();
    proxied.proxy.ask(&format!("set server school/main addr 127.0.0.1 port {}", world.target.port())).unwrap();
    let output = world.dbmove(&cutover).env("TEST_SOCKET", &socket).output().await.unwrap();
    assert_eq!(code(&output), 0, "{}", said(&output));
    more_accepted(&clients, 50, "at the end").await;
    let counts = clients.stop().await;
    let mut root = connect(&world.target, Account::Root).await;
    let rows: Vec<u64> = root.query("SELECT number FROM school.request ORDER BY number").await.unwrap();
    let lost: Vec<u64> = counts.sorted().into_iter().filter(|number| rows.binary_search(number).is_err()).collect();
    assert!(lost.is_empty(), "accepted and not on the target: {lost:?}");
}
