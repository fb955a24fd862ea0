//! Triggers and events under live writers, through the whole of a run: no effect twice, before the switch or after it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio::task::JoinHandle;

use crate::pair::fill;
use crate::real;
use crate::world::{World, code, connect, number, said};

const DATABASE: &str = "offices";
const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];

/// A school beside the fixture, whose events run on the source.
async fn world_with_objects() -> World {
    let world = World::start(KINDS[0], KINDS[1], 0.01).await;
    let mut conn = connect(&world.source, Account::Root).await;
    fill(&mut conn, DATABASE).await;
    conn.query_drop("SET GLOBAL event_scheduler = ON").await.unwrap();
    conn.disconnect().await.unwrap();
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    write_playbook(&world, &text);
    world
}

fn write_playbook(world: &World, text: &str) {
    let text = text.replace("include: [\"school.*\"]", &format!("include: [\"school.*\", \"{DATABASE}.*\"]"));
    let accepted = "run: mysql.assess, store: school, with: { accept: [{ id: missing-definers, reason: \"a test\" }] } }";
    std::fs::write(world.playbook(), text.replace("run: mysql.assess, store: school }", accepted)).unwrap();
}

/// Inserts and updates accounts wherever the route points, until it is told to stop.
fn write_accounts(route: PathBuf, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let (mut id, mut written) = (1000_u32, 0);
        let mut conn: Option<(String, Conn)> = None;
        while !stop.load(Ordering::SeqCst) {
            let address = std::fs::read_to_string(&route).unwrap().trim().to_owned();
            if conn.as_ref().is_none_or(|(to, _)| *to != address) {
                let port = address.rsplit(':').next().unwrap().parse().unwrap();
                let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port).user(Some("app")).pass(Some("dbmove"));
                conn = Conn::new(options.prefer_socket(false).db_name(Some(DATABASE))).await.ok().map(|conn| (address, conn));
            }
            let Some((_, open)) = &mut conn else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            id += 1;
            let statements = [
                format!("INSERT INTO accounts (id, login) VALUES ({id}, 'UPPER {id}')"),
                format!("UPDATE accounts SET changed = changed + 1 WHERE id IN ({}, {})", id - 7, id % 3 + 1),
            ];
            for statement in statements {
                match tokio::time::timeout(Duration::from_secs(2), open.query_drop(&statement)).await {
                    Ok(Ok(())) => written += 1,
                    // Refused at the fence, or cut: it did happen or it did not, with its trigger's effect or without both.
                    _ => {
                        conn = None;
                        break;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        written
    })
}

/// Each insert and each change of an account has left exactly one row in the audit, and its login was lowered.
async fn judge(server: &LocalServer, when: &str) -> u64 {
    for (what, query) in [
        (
            "inserts",
            "SELECT COUNT(*) FROM accounts a WHERE id > 3 AND (SELECT COUNT(*) FROM audit WHERE account = a.id AND what = 'insert') <> 1",
        ),
        (
            "updates",
            "SELECT COUNT(*) FROM accounts a WHERE (SELECT COUNT(*) FROM audit WHERE account = a.id AND what = 'update') <> changed",
        ),
        ("logins", "SELECT COUNT(*) FROM accounts WHERE BINARY login <> LOWER(login)"),
        ("audits of nothing", "SELECT COUNT(*) FROM audit WHERE account NOT IN (SELECT id FROM accounts)"),
    ] {
        let query =
            query.replace("FROM accounts", &format!("FROM {DATABASE}.accounts")).replace("FROM audit", &format!("FROM {DATABASE}.audit"));
        assert_eq!(number(server, &query).await, 0, "{when}: {what}");
    }
    number(server, &format!("SELECT COUNT(*) FROM {DATABASE}.audit")).await
}

async fn indexed(world: &World) {
    // The judge asks per account.
    let mut conn = connect(&world.source, Account::Root).await;
    conn.query_drop(format!("ALTER TABLE {DATABASE}.audit ADD KEY (account)")).await.unwrap();
}

async fn ticks(server: &LocalServer) -> u64 {
    number(server, &format!("SELECT COUNT(*) FROM {DATABASE}.ticks")).await
}

/// Waits until the event has come more than so many times: a busy machine is late with it.
async fn ticks_beyond(server: &LocalServer, seen: u64) {
    let began = std::time::Instant::now();
    while ticks(server).await <= seen {
        assert!(began.elapsed() < Duration::from_secs(30), "the event has come no more than {seen} times");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn count(server: &LocalServer, table: &str, column: &str, more: &str) -> u64 {
    number(server, &format!("SELECT COUNT(*) FROM information_schema.{table} WHERE {column} = '{DATABASE}' {more}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_effect_twice_before_or_after_the_switch() {
    if real::skipped("no_effect_twice_before_or_after_the_switch", &KINDS) {
        return;
    }
    let mut world = world_with_objects().await;
    indexed(&world).await;
    let (stop, route) = (Arc::new(AtomicBool::new(false)), world.route());
    let writer = write_accounts(route, stop.clone());
    let school = world.write(60.0, 30.0).await;
    let playbook = world.playbook_argument();
    // Among routines, among views, and while triggers and events are tried out.
    for point in ["objects.noted#3", "objects.created#4", "objects.noted#6", "objects.created#4"] {
        let output = world.dbmove(&["--yes", "run", &playbook, "--no-follow"]).env("DBMOVE_CRASH_AT", point).output().await.unwrap();
        assert_eq!(code(&output), -9, "{point}: {}", said(&output));
    }
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    assert_eq!(count(&world.target, "TRIGGERS", "TRIGGER_SCHEMA", "").await, 0);
    assert_eq!(count(&world.target, "EVENTS", "EVENT_SCHEMA", "").await, 0);
    assert_eq!(count(&world.target, "VIEWS", "TABLE_SCHEMA", "").await, 4);

    // Killed while triggers and events are created, and when all are there: each time the next driver takes them away,
    // follows on, and comes to the same end.
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of triggers"];
    for point in ["objects.noted#2", "objects.created#3", "step.before_intent#7"] {
        let output = world.dbmove(&cutover).env("DBMOVE_CRASH_AT", point).output().await.unwrap();
        assert_eq!(code(&output), -9, "{point}: {}", said(&output));
    }
    // That last one died between `mysql.promote` and the switch.
    assert_eq!(count(&world.target, "TRIGGERS", "TRIGGER_SCHEMA", "").await, 3);
    // A cutover that fails right before the switch leaves neither trigger nor event on the target, and the source's run on.
    let whole = std::fs::read_to_string(world.playbook()).unwrap();
    let failing = "    - { id: look, run: hook.exec, with: { command: [\"false\"], undo: none } }\n    - { id: switch";
    std::fs::write(world.playbook(), whole.replace("    - { id: switch", failing)).unwrap();
    let failed = world.finished(&[&cutover[..], &["--accept-changes"]].concat()).await;
    assert_eq!(code(&failed), 1, "{}", said(&failed));
    assert_eq!(count(&world.target, "TRIGGERS", "TRIGGER_SCHEMA", "").await, 0, "{}", said(&failed));
    assert_eq!(count(&world.target, "EVENTS", "EVENT_SCHEMA", "").await, 0);
    assert_eq!(number(&world.source, "SELECT @@global.event_scheduler = 'ON'").await, 1);
    tokio::time::sleep(Duration::from_millis(500)).await;

    // Views and routines that changed meanwhile.
    let mut conn = connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE OR REPLACE VIEW offices.b_on_view AS SELECT id, twice FROM offices.z_base WHERE login <> 'one'",
        "DROP PROCEDURE offices.backslash",
        "CREATE PROCEDURE offices.fresh() SELECT 5 AS five",
        "CREATE TRIGGER offices.of_ticks BEFORE INSERT ON offices.ticks FOR EACH ROW SET NEW.at = NEW.at",
    ] {
        conn.query_drop(statement).await.unwrap();
    }

    ticks_beyond(&world.source, 3).await;
    std::fs::write(world.playbook(), &whole).unwrap();
    world.stop_at_the_fence();
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    write_playbook(&world, &text);
    let mut running = world.started(&[&cutover[..], &["--accept-changes"]].concat(), "cutover.log");
    world.at_the_fence(&mut running, "cutover.log").await;
    let source = judge(&world.source, "source, at the fence").await;
    assert_eq!(judge(&world.target, "target, at the fence").await, source);
    assert!(source > 100, "{source} rows of audit are few");
    assert_eq!(ticks(&world.target).await, ticks(&world.source).await);
    assert_eq!(count(&world.target, "TRIGGERS", "TRIGGER_SCHEMA", "").await, 4);
    assert_eq!(count(&world.target, "EVENTS", "EVENT_SCHEMA", "AND STATUS = 'ENABLED'").await, 0);
    assert_eq!(count(&world.target, "EVENTS", "EVENT_SCHEMA", "AND STATUS = 'DISABLED'").await, 2);
    assert_eq!(count(&world.target, "ROUTINES", "ROUTINE_SCHEMA", "AND ROUTINE_NAME IN ('backslash', 'fresh')").await, 1);
    assert_eq!(number(&world.target, "SELECT SUM(id) FROM offices.b_on_view WHERE id < 4").await, 5);
    let stood = ticks(&world.target).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(ticks(&world.target).await, stood, "an event runs before the switch");

    world.let_go();
    let status = tokio::time::timeout(Duration::from_secs(60), running.wait()).await.unwrap().unwrap();
    let log = std::fs::read_to_string(world.path("cutover.log")).unwrap();
    assert!(status.success(), "{status}\n{log}");
    let on_source = ticks(&world.source).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    stop.store(true, Ordering::SeqCst);
    let written = writer.await.unwrap();
    crate::world::stopped(school).await;
    let after = judge(&world.target, "target, after the switch").await;
    assert!(after > source, "the writer wrote {written}, and nothing on the target");
    assert_eq!(
        count(&world.target, "EVENTS", "EVENT_SCHEMA", "AND STATUS = 'ENABLED' AND EVENT_NAME = 'every \"second\"'").await,
        1,
        "{log}"
    );
    assert_eq!(count(&world.target, "EVENTS", "EVENT_SCHEMA", "AND STATUS = 'DISABLED' AND EVENT_NAME = 'sleeping'").await, 1);
    assert_eq!(count(&world.target, "EVENTS", "EVENT_SCHEMA", "AND TIME_ZONE = '+03:00'").await, 2);
    ticks_beyond(&world.target, stood).await;
    assert_eq!(ticks(&world.source).await, on_source, "an event still runs on the source");
    assert_eq!(number(&world.source, "SELECT @@global.event_scheduler = 'OFF'").await, 1);
}

/// A rehearsal goes the whole way on a pair of its own, objects too, and takes all of it back; production's servers get none of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_moves_objects_too() {
    if real::skipped("a_rehearsal_moves_objects_too", &KINDS) {
        return;
    }
    let world = world_with_objects().await.with_rehearsal().await;
    let (source, target) = world.rehearsal.as_ref().unwrap();
    let mut conn = connect(source, Account::Root).await;
    fill(&mut conn, DATABASE).await;
    conn.query_drop("SET GLOBAL event_scheduler = ON").await.unwrap();
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    write_playbook(&world, &text);
    let rehearsed = world.finished(&["--yes", "rehearse", &world.playbook_argument()]).await;
    let words = said(&rehearsed);
    assert_eq!(code(&rehearsed), 0, "{words}");
    for moved in
        ["view `offices.a_on_view_on_view`", "procedure `offices.audited`", "trigger `offices.after_insert`", "event `offices.sleeping`"]
    {
        assert!(words.contains(&format!("promote: {moved}: definer")), "{moved} was not moved: {words}");
    }
    for server in [target, &world.target] {
        assert_eq!(number(server, &format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{DATABASE}'")).await, 0);
    }
    assert_eq!(number(source, "SELECT @@global.event_scheduler = 'ON'").await, 1, "the rehearsal's events are not running again");
    assert_eq!(number(&world.source, "SELECT @@global.event_scheduler = 'ON'").await, 1, "production's events were stopped");
    assert_eq!(number(&world.source, "SELECT @@global.read_only").await, 0);
}
