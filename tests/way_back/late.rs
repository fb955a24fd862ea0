//! `dbmove rollback --deadline`: refused if it can't be kept, with nothing changed; given up if it can't be kept any more, with clients on the
//! target as before, and what they write on its way back as before.

use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::world::{World, code, connect, said};
use super::{PAIR, app_writes, carried_back, cut_over, real, waits_for, with_way_back};

/// `read_only`, and which accounts are locked.
async fn kept_out(server: &LocalServer) -> (u8, Vec<String>) {
    let mut conn = connect(server, Account::Root).await;
    let read_only = conn.query_first("SELECT @@global.read_only").await.unwrap().unwrap();
    let locked =
        "SELECT User FROM mysql.user WHERE account_locked = 'Y' AND User NOT LIKE 'mysql.%' AND User NOT LIKE 'rds%' ORDER BY User";
    let locked: Vec<String> = conn.query(locked).await.unwrap();
    (read_only, locked)
}

/// Clients are on the target and may write there.
async fn target_serves(world: &World, id: u32) {
    let route = std::fs::read_to_string(world.route()).unwrap();
    assert_eq!(route, format!("127.0.0.1:{}\n", world.target.port()));
    assert_eq!(kept_out(&world.target).await, (0, Vec::new()));
    app_writes(&world.target, &format!("INSERT INTO school.words VALUES ({id}, 'after')")).await.unwrap();
}

/// Carries on with the way back, until it is open again.
async fn goes_on(world: &World, log: &str) -> tokio::process::Child {
    let playbook = world.playbook_argument();
    let mut cutover = world.started(&["--yes", "cutover", &playbook, "--deadline", "1h"], log);
    waits_for(world, &mut cutover, log, "waits for approval").await;
    carried_back(world).await;
    cutover
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_keeps_its_deadline_or_the_target_serves() {
    if real::skipped("a_rollback_keeps_its_deadline_or_the_target_serves", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await.with_rehearsal().await;
    with_way_back(&world);
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let guard = "guards:\n  - { id: room, watch: disk.free, with: { below: 1KiB }, then: stop }\nstores:\n";
    std::fs::write(world.playbook(), text.replace("stores:\n", guard)).unwrap();
    for server in [&world.source, &world.rehearsal.as_ref().unwrap().0] {
        let mut conn = connect(server, Account::Root).await;
        conn.query_drop("CREATE TABLE school.words (id INT PRIMARY KEY, word VARCHAR(50)) ENGINE = InnoDB").await.unwrap();
    }
    let playbook = world.playbook_argument();
    for arguments in [&["--yes", "rehearse", &playbook][..], &["--yes", "run", &playbook, "--no-follow"]] {
        let done = world.finished(arguments).await;
        assert_eq!(code(&done), 0, "{}", said(&done));
    }
    let shown = world.finished(&["certificate", "show", &playbook, "--json"]).await;
    let certificate: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let rehearsed = certificate["certificate"]["certificate"]["rollback_seconds"].as_f64().unwrap();

    // It took longer than that in the rehearsal.
    let mut cutover = cut_over(&world, "cutover.log").await;
    let refused = world.finished(&["--yes", "rollback", &playbook, "--deadline", "50ms"]).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
    assert!(said(&refused).contains("in the rehearsal") && said(&refused).contains("nothing was touched"), "{}", said(&refused));
    assert!(cutover.try_wait().unwrap().is_none(), "what is refused anyway ended the driver that carries back");
    target_serves(&world, 1).await;
    carried_back(&world).await;

    // There seems to be time. Then a row that was written on the target before its writes were held can't get to the source: somebody holds
    // its place there. (If it is logged before the rollback is near, it ends there instead, and as it should.)
    let mut in_the_way = connect(&world.source, Account::Root).await;
    for statement in ["BEGIN", "INSERT INTO school.words VALUES (2, 'in the way')"] {
        in_the_way.query_drop(statement).await.unwrap();
    }
    let mut slow = Conn::new(world.target.connect_options(Account::App, None)).await.unwrap();
    let slow = tokio::spawn(async move { slow.query_drop("INSERT INTO school.words SELECT 2, CONCAT('late', SLEEP(4))").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let seconds = (rehearsed * 1.25).ceil() as u64 + 12;
    let began = Instant::now();
    let late = world.finished(&["--yes", "rollback", &playbook, "--deadline", &format!("{seconds}s")]).await;
    let held = if said(&late).contains("writes were held") { "while writes were held" } else { "before writes were held" };
    eprintln!("given up {:.1} s after it was asked for {seconds} s, {held}", began.elapsed().as_secs_f64());
    assert_eq!(code(&late), 5, "{}", said(&late));
    assert!(said(&late).contains("the route is not put back"), "{}", said(&late));
    slow.await.unwrap().unwrap();
    let _ = cutover.wait().await;
    target_serves(&world, 3).await;

    // What was in the way is gone, and all of it comes back, by itself and by a rollback.
    in_the_way.query_drop("ROLLBACK").await.unwrap();
    let mut cutover = goes_on(&world, "once_more.log").await;
    let words = "SELECT CONCAT(id, ' ', word) FROM school.words ORDER BY id";
    let came: Vec<String> = in_the_way.query(words).await.unwrap();
    assert_eq!(came, ["1 after", "2 late0", "3 after"]);
    let back = world.finished(&["--yes", "rollback", &playbook, "--deadline", "10m"]).await;
    assert_eq!(code(&back), 0, "{}", said(&back));
    assert!(said(&back).contains("guards are not watched in a rollback (`room`)"), "{}", said(&back));
    let _ = cutover.wait().await;
    app_writes(&world.source, "INSERT INTO school.words VALUES (4, 'here')").await.unwrap();
    let came: Vec<String> = connect(&world.source, Account::Root).await.query(words).await.unwrap();
    assert_eq!(came, ["1 after", "2 late0", "3 after", "4 here"]);
}

/// The route is back, and a client that keeps its connections goes on coming to the target: whoever writes on the source meanwhile finds its
/// triggers there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sources_triggers_are_there_before_anybody_writes() {
    let pair = [ServerKind::MariaDb, ServerKind::MariaDb];
    if real::skipped("the_sources_triggers_are_there_before_anybody_writes", &pair) {
        return;
    }
    let world = World::start(pair[0], pair[1], 0.01).await;
    with_way_back(&world);
    // A target of one's own: `read_only` keeps clients from writing there, and not from coming.
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let admin = format!("\"mysql://admin@127.0.0.1:{}/\", password: \"${{env:DBMOVE_TEST_PASSWORD}}\"", world.target.port());
    assert!(text.contains(&admin));
    std::fs::write(world.playbook(), text.replace(&admin, &format!("\"mysql://root@127.0.0.1:{}/\"", world.target.port()))).unwrap();
    let mut conn = connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE TABLE school.board (id INT PRIMARY KEY AUTO_INCREMENT, word VARCHAR(50)) ENGINE = InnoDB",
        "CREATE TABLE school.board_audit (id INT PRIMARY KEY AUTO_INCREMENT, post INT) ENGINE = InnoDB",
        "CREATE TRIGGER school.board_audited AFTER INSERT ON school.board FOR EACH ROW INSERT INTO school.board_audit (post) VALUES (NEW.id)",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut cutover = cut_over(&world, "cutover.log").await;
    app_writes(&world.target, "INSERT INTO school.board (word) VALUES ('on the target')").await.unwrap();
    carried_back(&world).await;

    let port = world.target.port();
    let target = world.target.connect_options(Account::App, None);
    let left_behind = tokio::spawn(async move {
        let mut open = Vec::new();
        for _ in 0..150 {
            open.extend(Conn::new(target.clone()).await.ok());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        open.len()
    });
    let source = world.source.connect_options(Account::App, None);
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let writes = tokio::spawn(async move {
        let mut written = 0;
        while !*stopped.borrow_and_update() {
            if let Ok(mut conn) = Conn::new(source.clone()).await {
                while !*stopped.borrow() && conn.query_drop("INSERT INTO school.board (word) VALUES ('on the source')").await.is_ok() {
                    written += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        written
    });
    // A report reads there, for longer than anybody waits.
    let mut report = Conn::new(world.source.connect_options(Account::App, None)).await.unwrap();
    let report = tokio::spawn(async move { report.query_drop("SELECT SLEEP(30) FROM school.board").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let back = world.finished(&["--yes", "-v", "rollback", &playbook]).await;
    assert_eq!(code(&back), 0, "{}", said(&back));
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.send_replace(true);
    let written = writes.await.unwrap();
    assert!(report.await.unwrap().is_err(), "the report was in nobody's way");
    assert!(left_behind.await.unwrap() > 20, "nobody came to port {port}");
    let _ = cutover.wait().await;
    assert!(written > 10, "{written}");
    let (posts, audit): (u64, u64) = connect(&world.source, Account::Root)
        .await
        .query_first("SELECT (SELECT COUNT(*) FROM school.board), (SELECT COUNT(*) FROM school.board_audit)")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(posts, audit, "{written} were written on the source; {}", said(&back));
}
