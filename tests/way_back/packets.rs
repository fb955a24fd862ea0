//! An old server takes short statements: `max_allowed_packet` of 1 MiB, as MySQL 5.1 and 5.5 come. What clients write on the target, which takes
//! 64 MiB, gets there all the same; what can't is named.

use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::prelude::Queryable;

use super::world::{World, code, connect, said, source_options};
use super::{PAIR, app_writes, carried_back, cut_over, real, waits_for, with_way_back};

/// The tables with large values, row by row.
async fn rows(server: &LocalServer) -> Vec<String> {
    let mut conn = connect(server, Account::Root).await;
    let query = "SELECT CONCAT('letters ', id, ' ', LENGTH(body), ' ', CRC32(body)) AS line FROM school.letters \
        UNION ALL SELECT CONCAT('marked ', id, ' ', mark, ' ', LENGTH(body), ' ', CRC32(body)) FROM school.marked \
        UNION ALL SELECT CONCAT('loose ', id, ' ', LENGTH(body), ' ', CRC32(body)) FROM school.loose ORDER BY line";
    conn.query(query).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_takes_short_statements_gets_long_rows() {
    if real::skipped("a_source_that_takes_short_statements_gets_long_rows", &PAIR) {
        return;
    }
    let options = source_options(ServerKind::Mysql55).argument("--max-allowed-packet=1M");
    let world = World::start_with(PAIR[0], &options, PAIR[1], 0.01).await;
    with_way_back(&world);
    let mut source = connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE TABLE school.letters (id INT PRIMARY KEY, body LONGBLOB) ENGINE = InnoDB",
        "CREATE TABLE school.marked (id INT PRIMARY KEY, mark INT NOT NULL, body LONGBLOB, UNIQUE (mark)) ENGINE = InnoDB",
        "CREATE TABLE school.loose (id INT, body LONGBLOB) ENGINE = InnoDB",
    ] {
        source.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let planned = world.finished(&["plan", &playbook]).await;
    assert!(said(&planned).contains("`max_allowed_packet` of the source is 1048576, of the target 67108864"), "{}", said(&planned));

    let mut cutover = cut_over(&world, "cutover.log").await;
    let write = async |statement: &str| app_writes(&world.target, statement).await.unwrap();
    // One transaction of 200 rows of 6 KB goes in one lane: each fits, all together don't.
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)";
    write(&format!("INSERT INTO school.letters {many} SELECT i, REPEAT(CHAR(65 + i % 26), 6000) FROM n")).await;
    write(&format!("INSERT INTO school.marked {many} SELECT i, i, REPEAT(CHAR(65 + i % 26), 6000) FROM n")).await;
    write(&format!("INSERT INTO school.loose {many} SELECT i, REPEAT(CHAR(65 + i % 26), 6000) FROM n")).await;
    // Longer than a statement may be, in every kind of table; every other byte needs an escape.
    let long = "REPEAT('''x', 600000)";
    write(&format!("INSERT INTO school.letters VALUES (1001, {long}), (1002, REPEAT('y', 3 << 20)), (1003, 'short')")).await;
    write(&format!("INSERT INTO school.marked VALUES (1001, 1001, {long}), (1002, 1002, REPEAT('y', 3 << 20))")).await;
    write(&format!("INSERT INTO school.loose VALUES (1001, {long}), (1002, 'short')")).await;
    write("UPDATE school.letters SET body = REPEAT('z', 2 << 20) WHERE id IN (7, 1002)").await;
    // A unique value goes from one long row to another.
    write("UPDATE school.marked SET mark = -1 WHERE id = 1001").await;
    write("UPDATE school.marked SET mark = 1001, body = REPEAT('w', 2 << 20) WHERE id = 1002").await;
    write("DELETE FROM school.letters WHERE id BETWEEN 100 AND 120").await;
    carried_back(&world).await;
    let there = rows(&world.target).await;
    assert_eq!(there.len(), 600 + 3 + 2 + 2 - 21);
    assert_eq!(rows(&world.source).await, there);

    // Compared, and found to be equal: another rollback is possible. Given up in time, clients stay on the target.
    let late = world.finished(&["--yes", "rollback", &playbook, "--max-write-gap", "1ms"]).await;
    assert_eq!(code(&late), 1, "{}", said(&late));
    let _ = cutover.wait().await;
    let mut cutover =
        world.started(&["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the way back"], "again.log");
    waits_for(&world, &mut cutover, "again.log", "a rollback is possible").await;

    // To find a row without a key all its values have to be in the statement.
    app_writes(&world.target, "DELETE FROM school.loose WHERE id = 1001").await.unwrap();
    waits_for(&world, &mut cutover, "again.log", "rollback would lose").await;
    let log = std::fs::read_to_string(world.path("again.log")).unwrap();
    let line = log.lines().find(|line| line.contains("rollback would lose")).unwrap();
    assert!(line.contains("school.loose") && line.contains("less than 1048576 (`max_allowed_packet`)"), "{line}");
    cutover.kill().await.unwrap();
}
