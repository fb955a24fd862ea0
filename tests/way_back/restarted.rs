//! The old source while the way back is open: it is started again, and `read_only` and the event scheduler that is off do not outlive that; somebody
//! writes whom `read_only` does not stop; it dies.

use std::time::Duration;

use dbmove::local::{Account, LocalServer};
use mysql_async::prelude::Queryable;

use super::world::{World, code, connect, said, source_options};
use super::{PAIR, app_writes, cut_over, real, waits_for, with_way_back};

/// `read_only` and `event_scheduler`.
async fn settings(server: &LocalServer) -> (u8, String) {
    connect(server, Account::Root).await.query_first("SELECT @@global.read_only, @@global.event_scheduler").await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_started_again_lets_nobody_in_unseen() {
    if real::skipped("a_source_that_is_started_again_lets_nobody_in_unseen", &PAIR) {
        return;
    }
    let options = source_options(PAIR[0]).argument("--event-scheduler=ON");
    let mut world = World::start_with(PAIR[0], &options, PAIR[1], 0.01).await;
    with_way_back(&world);
    let mut conn = connect(&world.source, Account::Root).await;
    conn.query_drop("CREATE TABLE school.words (id INT PRIMARY KEY, word VARCHAR(50)) ENGINE = InnoDB").await.unwrap();
    drop(conn);
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut cutover = cut_over(&world, "cutover.log").await;
    app_writes(&world.target, "INSERT INTO school.words VALUES (1, 'one')").await.unwrap();

    // Seen by the driver that runs: clients are kept out again, and everything is compared.
    world.source.restart().await.unwrap();
    waits_for(&world, &mut cutover, "cutover.log", "nothing differs").await;
    let log = std::fs::read_to_string(world.path("cutover.log")).unwrap();
    for words in ["`read_only` was off", "`event_scheduler` was on", "let clients write"] {
        assert!(log.contains(words), "{words}:\n{log}");
    }
    assert_eq!(settings(&world.source).await, (1, "OFF".to_owned()));
    let status = world.finished(&["status"]).await;
    assert!(said(&status).contains("let clients write"), "{}", said(&status));

    // While no driver looks, a client with the old address writes there. The next one finds it, by what differs.
    cutover.kill().await.unwrap();
    let status = world.finished(&["status"]).await;
    assert!(said(&status).contains("while no driver runs"), "{}", said(&status));
    world.source.restart().await.unwrap();
    app_writes(&world.source, "INSERT INTO school.words VALUES (900, 'nobody is told of this')").await.unwrap();
    let mut cutover = world.started(&["--yes", "cutover", &playbook, "--deadline", "1h"], "again.log");
    waits_for(&world, &mut cutover, "again.log", "rollback would lose").await;
    let log = std::fs::read_to_string(world.path("again.log")).unwrap();
    let line = log.lines().find(|line| line.contains("rollback would lose")).unwrap();
    assert!(line.contains("school.words") && line.contains("id = 900") && line.contains("while no driver looked"), "{line}");
    assert_eq!(settings(&world.source).await, (1, "OFF".to_owned()));
    let refused = world.finished(&["--yes", "rollback", &playbook]).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
    let _ = cutover.wait().await;
}

/// What was said, however it was broken into lines.
fn on_one_line(output: &std::process::Output) -> String {
    said(output).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A connection to the source as it comes from another machine.
async fn from_elsewhere(server: &LocalServer) -> mysql_async::Conn {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (own, port) = (listener.local_addr().unwrap().port(), server.port());
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut server = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    let options = mysql_async::OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(own).user(Some("cron")).pass(Some("cron"));
    mysql_async::Conn::new(options).await.unwrap()
}

/// `read_only` stops nobody with SUPER. One that only reads costs it its connection; what one writes is found in the source's log, also if it is gone
/// before anybody looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_in_spite_of_read_only_is_seen() {
    if real::skipped("who_writes_in_spite_of_read_only_is_seen", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    with_way_back(&world);
    let mut conn = connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE TABLE school.words (id INT PRIMARY KEY, word VARCHAR(50)) ENGINE = InnoDB",
        "GRANT SELECT, INSERT, SUPER ON *.* TO 'cron'@'%' IDENTIFIED BY 'cron'",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    drop(conn);
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut cutover = cut_over(&world, "cutover.log").await;
    // Many at once go in several lanes.
    let many: Vec<String> = (1000..3000).map(|id| format!("({id}, 'many')")).collect();
    app_writes(&world.target, &format!("INSERT INTO school.words VALUES {}", many.join(", "))).await.unwrap();

    let mut watching = from_elsewhere(&world.source).await;
    let mut ended = false;
    for id in 1..40 {
        app_writes(&world.target, &format!("INSERT INTO school.words VALUES ({id}, 'back')")).await.unwrap();
        ended = ended || watching.query_drop("SELECT COUNT(*) FROM school.words").await.is_err();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(ended, "its connection was not ended");
    waits_for(&world, &mut cutover, "cutover.log", "`cron` from 127.0.0.2").await;
    let log = std::fs::read_to_string(world.path("cutover.log")).unwrap();
    assert!(!log.contains("every table is compared") && !log.contains("may have written"), "{log}");

    from_elsewhere(&world.source).await.query_drop("INSERT INTO school.words VALUES (900, 'nobody is told of this')").await.unwrap();
    waits_for(&world, &mut cutover, "cutover.log", "rollback would lose").await;
    let log = std::fs::read_to_string(world.path("cutover.log")).unwrap();
    let line = log.lines().find(|line| line.contains("rollback would lose")).unwrap();
    assert!(line.contains("rows of `school.words`") && line.contains("id = 900"), "{line}");
    let refused = world.finished(&["--yes", "rollback", &playbook]).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
    let _ = cutover.wait().await;
}

/// The source dies in the moment of the switch: the cutover comes to its end on the target, with its events, and so does the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_dies_behind_the_switch_keeps_nobody_from_the_end() {
    if real::skipped("a_source_that_dies_behind_the_switch_keeps_nobody_from_the_end", &PAIR) {
        return;
    }
    let options = source_options(PAIR[0]).argument("--event-scheduler=ON");
    let mut world = World::start_with(PAIR[0], &options, PAIR[1], 0.01).await;
    with_way_back(&world);
    let mut conn = connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE TABLE school.words (id INT PRIMARY KEY, word VARCHAR(50)) ENGINE = InnoDB",
        "CREATE EVENT school.yearly ON SCHEDULE EVERY 1 YEAR STARTS '2036-01-01 00:00:00' DO DELETE FROM school.words",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    drop(conn);
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let go = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of a source that dies"];
    let killed = world.dbmove(&go).env("DBMOVE_CRASH_AT", "point_of_no_return.passed").output().await.unwrap();
    assert_eq!(code(&killed), -9, "{}", said(&killed));
    world.source.kill().await.unwrap();

    let mut cutover = world.started(&go, "gone.log");
    waits_for(&world, &mut cutover, "gone.log", "waits for approval").await;
    let event = "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME = 'yearly'";
    let status: String = connect(&world.target, Account::Root).await.query_first(event).await.unwrap().unwrap();
    assert_eq!(status, "ENABLED");
    app_writes(&world.target, "INSERT INTO school.words VALUES (1, 'one')").await.unwrap();
    let report = world.finished(&["report"]).await;
    assert!(on_one_line(&report).contains("no rollback while it is away"), "{}", said(&report));
    let refused = world.finished(&["--yes", "rollback", &playbook, "--deadline", "1m"]).await;
    assert_ne!(code(&refused), 0, "{}", said(&refused));
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.target.port()));
    let _ = cutover.wait().await;

    // It comes back, and so does the way back.
    world.source.restart().await.unwrap();
    let mut cutover = world.started(&go, "back.log");
    waits_for(&world, &mut cutover, "back.log", "nothing differs").await;
    super::carried_back(&world).await;
    assert_eq!(settings(&world.source).await, (1, "OFF".to_owned()));
    cutover.kill().await.unwrap();

    // And it is gone for good.
    world.source.kill().await.unwrap();
    let approved = world.finished(&["approve", &playbook, "trusted", "--by", "the test"]).await;
    assert_eq!(code(&approved), 0, "{}", said(&approved));
    let done = world.finished(&go).await;
    assert_eq!(code(&done), 0, "{}", said(&done));
    let report = world.finished(&["report"]).await;
    assert!(on_one_line(&report).contains("`_dbmove` and `read_only` stay on the source"), "{}", said(&report));
}
