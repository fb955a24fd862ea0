//! What people set on either server between two cutovers of a run: it is asked anew, and put back as it was.

use dbmove::local::LocalServer;

use super::evidence::{PAIR, accepts_writes, ask, command};
use super::real;
use super::real::proxy::Proxy;
use super::world::{World, code, number, said};

const CUTOVER: [&str; 5] = ["--deadline", "1h", "--without-rehearsal", "a test of what is set between", "--yes"];

/// A playbook whose cutover is undone right before the switch. Without the canary, which writes by itself.
fn fails_before_the_switch(world: &World) -> String {
    let text = world.playbook_text("30s");
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("traffic.canary") && !line.contains("traffic.check")).collect();
    let no = "    - { id: nothing, run: hook.exec, with: { command: [\"false\"], undo: none } }\n    - { id: switch";
    kept.join("\n").replace("    - { id: switch", no) + "\n"
}

async fn set(server: &LocalServer, variable: &str, on: u8) {
    command(server, &[&format!("SET GLOBAL {variable} = {on}")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_set_between_two_cutovers_is_seen_and_put_back() {
    if real::skipped("what_people_set_between_two_cutovers_is_seen_and_put_back", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    std::fs::write(world.playbook(), fails_before_the_switch(&world)).unwrap();
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut cutover = vec!["cutover", &playbook];
    cutover.extend(CUTOVER);

    // The target was set `read_only` after it had been prepared: nobody is held for a switch that would lead clients to errors.
    // dbmove's account, as those of many, may write there all the same.
    command(&world.target, &["GRANT CONNECTION_ADMIN ON *.* TO admin"]).await;
    set(&world.target, "read_only", 1).await;
    let refused = world.finished(&cutover).await;
    set(&world.target, "read_only", 0).await;
    assert_eq!(code(&refused), 1, "{}", said(&refused));
    let words = said(&refused).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("does not take the writes of clients: `read_only` is on. Writes were not stopped"), "{words}");
    assert!(accepts_writes(&world.source).await);

    // `read_only` by hand on the source for one cutover that is undone, and off for the next; events likewise.
    for (read_only, events) in [(1, 0), (0, 1), (1, 1), (0, 0)] {
        set(&world.source, "read_only", read_only).await;
        set(&world.source, "event_scheduler", events).await;
        let undone = world.finished(&cutover).await;
        assert_eq!(code(&undone), 1, "{}", said(&undone));
        assert!(said(&undone).contains("`nothing`"), "{}", said(&undone));
        assert_eq!(number(&world.source, "SELECT @@global.read_only").await, u64::from(read_only), "{}", said(&undone));
        let scheduler = ask(&world.source, "SELECT @@global.event_scheduler").await;
        assert_eq!(scheduler, if events == 1 { "ON" } else { "OFF" }, "{}", said(&undone));
    }
    assert!(accepts_writes(&world.source).await);
}

/// Two stores can't be moved from one server, by whichever addresses it is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_of_one_source_are_refused() {
    if real::skipped("two_stores_of_one_source_are_refused", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    let proxy = Proxy::to(world.source.port()).await;
    let text = world.playbook_text("30s");
    let store = text.split("  school:\n").nth(1).unwrap().split("stages:").next().unwrap().to_owned();
    let port = format!("127.0.0.1:{}/", world.source.port());
    let other = store.replace(&port, &format!("127.0.0.1:{}/", proxy.port)).replace("\"school.*\"", "\"library.*\"");
    let step = "    - { id: assess, run: mysql.assess, store: school }\n";
    let text = text
        .replace("stages:\n", &format!("  library:\n{other}stages:\n"))
        .replace(step, &format!("{step}    - {{ id: assess_library, run: mysql.assess, store: library }}\n"));
    std::fs::write(world.playbook(), text).unwrap();
    let refused = world.finished(&["--yes", "run", &world.playbook_argument()]).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
    let words = said(&refused).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("are one server, and the writes of a server can be held for one store only. Nothing was changed"), "{words}");
    assert!(words.contains("`include`"), "{words}");
    assert_eq!(
        ask(&world.target, "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('school', '_dbmove')").await,
        "0"
    );
}
