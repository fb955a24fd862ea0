//! The old source is started again while the way back is open: `read_only` and the event scheduler that is off do not outlive that.

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
