//! A whole move by a DNS record, with the built program and real name servers: clients look the name up at their resolver, and go where it says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "traffic/names.rs"]
mod names;
mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use dbmove::local::ServerKind;
use names::{Names, SECRET, address, names_skipped, shown_at};
use tokio::process::Child;
use tokio::task::JoinHandle;
use world::{World, code, number, said, says};

const PAIR: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];
/// Production's record, and the rehearsal's.
const NAMES: [&str; 2] = ["db.school.test", "try.school.test"];
const RECORDS: &str = "db 3 A 127.0.0.11\ntry 2 A 127.0.0.21";

/// One at a time: each has four servers and clients.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What looks a name up in clients' place, as their machine's resolver library does, and tells them the server behind the address. (The private servers
/// share one address and have ports of their own; a record has no port.)
struct Lookups {
    task: JoinHandle<()>,
}

impl Drop for Lookups {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lookups {
    /// Of one name: the server's port by its address, and the route file that clients read.
    fn start(resolver: String, name: &'static str, ports: [(&'static str, u16); 2], route: PathBuf) -> Lookups {
        let task = tokio::spawn(async move {
            let mut last = None;
            loop {
                let found = address(&resolver, name).await.map(|address| address.to_string());
                let port = ports.iter().find(|(of, _)| Some(*of) == found.as_deref()).map(|(_, port)| *port);
                if let Some(port) = port.filter(|port| last != Some(*port)) {
                    // Behind the whole name: two of these write in one directory, and only the endings of their files differ.
                    let beside = format!("{}.new", route.display());
                    std::fs::write(&beside, format!("127.0.0.1:{port}\n")).unwrap();
                    std::fs::rename(&beside, &route).unwrap();
                    last = Some(port);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Lookups { task }
    }
}

struct ByName {
    /// First, so that nobody looks anything up once servers end.
    _lookups: [Lookups; 2],
    world: World,
    names: Names,
}

/// A world whose clients go by name, with a rehearsal pair and a way back.
async fn by_name() -> ByName {
    let world = World::start(PAIR[0], PAIR[1], 0.02).await.with_rehearsal().await;
    let names = Names::start(&world.path("names"), RECORDS).await;
    let secret = world.path("tsig");
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let resolver = names.resolver.address();
    let lower = format!(
        "    - {{ id: short, run: traffic.lower_ttl, store: school, with: {{ name: {}, zone: school.test, servers: [\"{}\", \"{}\"], \
         resolvers: [\"{resolver}\"], key: {{ name: dbmove, secret: \"${{file:{}}}\" }}, ttl: 1s, within: 5s, target: 127.0.0.12, \
         rehearsal: {{ name: {}, target: 127.0.0.22 }} }} }}\n  sync:\n",
        NAMES[0],
        names.primary.address(),
        names.secondary.address(),
        secret.display(),
        NAMES[1],
    );
    let text = world.playbook_text("30s");
    let switch = text.lines().find(|line| line.contains("id: switch")).unwrap().to_owned();
    let steps = "    - { id: back, run: mysql.reverse, store: school }\n    - { id: switch, run: traffic.dns, store: school, point_of_no_return: true }";
    let settle = "  settle:\n    - { id: trusted, run: gate.approve, with: { question: \"May the way back be closed?\" } }\n\
                  \x20   - { id: retire, run: mysql.retire, store: school }\n    - { id: long, run: traffic.restore_ttl, store: school }\n";
    let text = text.replace("  sync:\n", &lower).replace(&switch, steps) + settle;
    std::fs::write(world.playbook(), text).unwrap();
    let (rehearsal_source, rehearsal_target) = world.rehearsal.as_ref().unwrap();
    let ports = [("127.0.0.11", world.source.port()), ("127.0.0.12", world.target.port())];
    let rehearsal = [("127.0.0.21", rehearsal_source.port()), ("127.0.0.22", rehearsal_target.port())];
    let lookups = [
        Lookups::start(resolver.clone(), NAMES[0], ports, world.route()),
        Lookups::start(resolver, NAMES[1], rehearsal, world.path("route.rehearsal")),
    ];
    ByName { _lookups: lookups, world, names }
}

impl ByName {
    async fn done(&self, arguments: &[&str]) -> String {
        let output = self.world.finished(arguments).await;
        assert_eq!(code(&output), 0, "{arguments:?}: {}", said(&output));
        said(&output)
    }

    async fn killed(&self, arguments: &[&str], point: &str) {
        let output = self.world.dbmove(arguments).env("DBMOVE_CRASH_AT", point).output().await.unwrap();
        assert_eq!(code(&output), -9, "{point}: {}", said(&output));
    }

    /// A cutover in the background, up to the end of its stage.
    async fn cut_over(&self, arguments: &[&str], log: &str) -> Child {
        let mut child = self.world.started(arguments, log);
        for _ in 0..2400 {
            if says(&self.world.path(log), "stage cutover done") {
                return child;
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}\n{}", std::fs::read_to_string(self.world.path(log)).unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no switch:\n{}", std::fs::read_to_string(self.world.path(log)).unwrap());
    }
}

/// Rehearsed, killed while the TTL is waited out, killed right behind the change, there and back, and given up: production's record is what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_and_back_by_name() {
    if names_skipped("there_and_back_by_name") || real::skipped("there_and_back_by_name", &PAIR) {
        return;
    }
    let _alone = ALONE.lock().await;
    let mut move_ = by_name().await;
    let playbook = move_.world.playbook_argument();
    let writers = move_.world.write(100.0, 50.0).await;
    let plan = move_.done(&["plan", &playbook]).await;
    assert!(plan.contains("let clients keep `db.school.test.` for 1s only; it is `A 127.0.0.11` for 3s"), "{plan}");
    assert!(plan.contains("DNS can't hold clients"), "{plan}");
    assert_eq!(move_.names.shown(NAMES[0]).await, "A 127.0.0.11 for 3");

    let rehearsed = move_.done(&["--yes", "rehearse", &playbook]).await;
    assert_eq!(move_.names.shown(NAMES[0]).await, "A 127.0.0.11 for 3", "a rehearsal changed production's record: {rehearsed}");
    assert_eq!(move_.names.shown(NAMES[1]).await, "A 127.0.0.21 for 2", "{rehearsed}");
    // Production's record was never changed, nor changed back.
    let log = move_.names.primary.log();
    let changes = |log: &str| log.lines().filter(|line| line.contains("updating zone") && line.contains("'db.school.test'")).count();
    assert!(log.contains("'try.school.test'") && changes(&log) == 0, "{log}");

    let run = ["--yes", "run", &playbook, "--no-follow"];
    move_.killed(&run, "dns.waiting").await;
    assert_eq!(move_.names.shown(NAMES[0]).await, "A 127.0.0.11 for 1");
    move_.done(&run).await;
    assert_eq!(move_.names.shown(NAMES[0]).await, "A 127.0.0.11 for 1");

    // Killed when the record was changed: clients are at the target, and the next driver sees that and goes on.
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "1h"];
    move_.killed(&cutover, "dns.changed").await;
    assert_eq!(shown_at(&move_.names.primary.address(), NAMES[0]).await, "A 127.0.0.12 for 1");
    let mut cutting = move_.cut_over(&cutover, "cutover.log").await;
    assert_eq!(move_.names.shown(NAMES[0]).await, "A 127.0.0.12 for 1");
    tokio::time::sleep(Duration::from_secs(2)).await;

    // And back, killed there as well.
    let rollback = ["--yes", "rollback", &playbook];
    move_.killed(&rollback, "dns.changed_back").await;
    assert!(cutting.wait().await.unwrap().success(), "{}", std::fs::read_to_string(move_.world.path("cutover.log")).unwrap());
    let back = move_.done(&rollback).await;
    assert_eq!(move_.names.shown(NAMES[0]).await, "A 127.0.0.11 for 1");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = world::stopped(writers).await;
    let verdict = move_.world.ledger_on(&move_.world.source).await;
    assert!(verdict.is_clean(), "{verdict:#?}\n{counts:?}\n{back}");
    assert_eq!(verdict.sum_before, verdict.sum_after);
    assert_eq!(number(&move_.world.source, "SELECT @@global.read_only").await, 0);
    let undone = move_.done(&["--yes", "undo", &playbook]).await;
    assert_eq!(move_.names.shown(NAMES[0]).await, "A 127.0.0.11 for 3", "{undone}");
}

/// A secondary that gets no change any more: the switch is undone and clients stay at the source. Then it is mended, the school moves, and in the end
/// clients may keep the record for as long as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secondary_that_shows_the_old_record_undoes_the_cutover() {
    let test = "a_secondary_that_shows_the_old_record_undoes_the_cutover";
    if names_skipped(test) || real::skipped(test, &PAIR) {
        return;
    }
    let _alone = ALONE.lock().await;
    let mut move_ = by_name().await;
    let playbook = move_.world.playbook_argument();
    // A secret that is written down is refused, and not shown.
    let text = std::fs::read_to_string(move_.world.playbook()).unwrap();
    let reference = format!("${{file:{}}}", move_.world.path("tsig").display());
    std::fs::write(move_.world.path("literal.yaml"), text.replace(&reference, SECRET)).unwrap();
    let checked = move_.world.finished(&["playbook", "check", &move_.world.path("literal.yaml").display().to_string()]).await;
    assert!(code(&checked) == 2 && said(&checked).contains("`key.secret` is written down"), "{}", said(&checked));
    assert!(!said(&checked).contains(SECRET), "{}", said(&checked));

    let writers = move_.world.write(100.0, 50.0).await;
    move_.done(&["--yes", "run", &playbook, "--no-follow"]).await;
    move_.names.cut_off_the_secondary().await;
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the switch alone"];
    let output = move_.world.finished(&cutover).await;
    assert_eq!(code(&output), 1, "{}", said(&output));
    let shows = format!("`{}` shows `A 127.0.0.11`", move_.names.secondary.address());
    assert!(said(&output).contains("not everybody shows it in time") && said(&output).contains(&shows), "{}", said(&output));
    assert_eq!(move_.names.shown(NAMES[0]).await, "A 127.0.0.11 for 1");
    assert_eq!(number(&move_.world.source, "SELECT @@global.read_only").await, 0);

    move_.names.connect_the_secondary().await;
    let mut cutting = move_.cut_over(&cutover, "cutover.log").await;
    assert_eq!(move_.names.shown(NAMES[0]).await, "A 127.0.0.12 for 1");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = world::stopped(writers).await;
    let verdict = move_.world.ledger_on(&move_.world.target).await;
    assert!(verdict.is_clean(), "{verdict:#?}\n{counts:?}");
    // It keeps the way back open until somebody says yes.
    cutting.kill().await.unwrap();
    move_.done(&["approve", &playbook, "trusted"]).await;
    move_.done(&cutover).await;
    assert_eq!(move_.names.shown(NAMES[0]).await, "A 127.0.0.12 for 3");
}
