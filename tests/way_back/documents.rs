//! JSON in the server's own binary form: copied, followed and compared on the way there, and the same on the way back, with and without a key
//! to find a row by. What text can't say is found, and put right as it is told.

use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::prelude::Queryable;

use super::world::{World, code, connect, said};
use super::{PAIR, app_writes, carried_back, cut_over, real, waits_for, with_way_back};

const NEW: [ServerKind; 2] = [ServerKind::Mysql97, ServerKind::Mysql97];

/// What a SELECT shows of both tables.
async fn documents(server: &LocalServer) -> Vec<(u32, Option<String>, String, Option<i64>)> {
    let mut conn = connect(server, Account::Root).await;
    let mut all: Vec<(u32, Option<String>, String, Option<i64>)> =
        conn.query("SELECT id, CAST(d AS CHAR), CAST(n AS CHAR), v FROM school.documents ORDER BY id").await.unwrap();
    let loose: Vec<(u32, Option<String>)> = conn.query("SELECT id, CAST(d AS CHAR) FROM school.loose ORDER BY id, 2").await.unwrap();
    all.extend(loose.into_iter().map(|(id, document)| (id, document, "loose".to_owned(), None)));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_moves_and_comes_back() {
    if real::skipped("json_moves_and_comes_back", &NEW) {
        return;
    }
    let world = World::start(NEW[0], NEW[1], 0.01).await;
    with_way_back(&world);
    // Copied by INSERT here, and by `LOAD DATA` in the case `json`.
    connect(&world.target, Account::Root).await.query_drop("SET GLOBAL local_infile = OFF").await.unwrap();
    let mut source = connect(&world.source, Account::Root).await;
    let long = format!("INSERT INTO school.documents (id, d, n) VALUES (4, JSON_OBJECT('long', '{}'), '4')", "ü\\\"\\n".repeat(60_000));
    for statement in [
        "CREATE TABLE school.documents (id INT PRIMARY KEY, d JSON, n JSON NOT NULL, v INT AS (d->>'$.n') VIRTUAL, KEY v (v), \
         KEY tags ((CAST(d->'$.tags' AS UNSIGNED ARRAY)))) ENGINE = InnoDB",
        "CREATE TABLE school.loose (id INT, d JSON) ENGINE = InnoDB",
        r#"INSERT INTO school.documents (id, d, n) VALUES (1, '{"n": 7, "tags": [1, 2], "é": "😀\\t\\\\"}', '[]'), (2, NULL, 'null'), (3, '1.5e300', '{"a": {}}')"#,
        &long,
        r#"INSERT INTO school.loose VALUES (1, '{"a": 1}'), (1, '{"a": 2}'), (1, NULL), (2, '[1.0, 1e-7]')"#,
    ] {
        source.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let assessed = world.finished(&["assess", &playbook]).await;
    assert!(said(&assessed).contains("json-column"), "{}", said(&assessed));
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    assert_eq!(documents(&world.source).await, documents(&world.target).await);

    // Followed, and one that says more than text can.
    for statement in [
        r#"UPDATE school.documents SET d = JSON_SET(d, '$.n', 8, '$.tags[2]', 3, '$.at', NOW(6)) WHERE id = 1"#,
        "UPDATE school.documents SET n = JSON_SET(n, '$.price', 19.90) WHERE id = 3",
        "DELETE FROM school.documents WHERE id = 2",
        r#"UPDATE school.loose SET d = JSON_SET(d, '$.b', 'it''s') WHERE d->'$.a' = 2"#,
        "DELETE FROM school.loose WHERE id = 2",
        r#"INSERT INTO school.loose VALUES (3, '["\\u0000\\u001f"]')"#,
    ] {
        app_writes(&world.source, statement).await.unwrap();
    }
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let differs = world.finished(&["--yes", "verify", &playbook]).await;
    assert_ne!(code(&differs), 0, "{}", said(&differs));
    assert!(
        said(&differs).contains(r#"`n` is '{"a": {}, "price": 19.90}' on the source, '{"a": {}, "price": 19.9}' on the target"#),
        "{}",
        said(&differs)
    );
    // As `assess` tells it. In two steps: a server that compares 19.90 with 19.9 sees nothing to change.
    let mut source = connect(&world.source, Account::App).await;
    for statement in [
        "BEGIN",
        "UPDATE school.documents SET n = JSON_ARRAY(n) WHERE id = 3",
        "UPDATE school.documents SET n = CAST(CAST(n->'$[0]' AS CHAR) AS JSON) WHERE id = 3",
        "COMMIT",
    ] {
        source.query_drop(statement).await.unwrap();
    }
    let equal = world.finished(&["--yes", "verify", &playbook]).await;
    assert_eq!(code(&equal), 0, "{}", said(&equal));

    let mut cutover = cut_over(&world, "cutover.log").await;
    assert_eq!(documents(&world.source).await, documents(&world.target).await);
    for statement in [
        r#"INSERT INTO school.documents (id, d, n) VALUES (5, '{"n": -1, "deep": [[[{"x": [true, false, null, 18446744073709551615]}]]]}', '"5"')"#,
        "UPDATE school.documents SET d = JSON_REMOVE(d, '$.tags[0]'), n = JSON_ARRAY(n, d) WHERE id = 1",
        "DELETE FROM school.documents WHERE id = 4",
        r#"UPDATE school.loose SET d = JSON_MERGE_PATCH(d, '{"c": 1e20}') WHERE id = 1 AND d->'$.a' = 1"#,
        "DELETE FROM school.loose WHERE id = 3",
    ] {
        app_writes(&world.target, statement).await.unwrap();
    }
    // The driver is killed, and the next one goes on.
    cutover.kill().await.unwrap();
    app_writes(&world.target, r#"INSERT INTO school.loose VALUES (9, '{"after": "the kill"}')"#).await.unwrap();
    let go_on = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the way back"];
    let mut cutover = world.started(&go_on, "again.log");
    waits_for(&world, &mut cutover, "again.log", "waits for approval").await;
    carried_back(&world).await;
    let back = world.finished(&["--yes", "rollback", &playbook, "--deadline", "2m"]).await;
    let log = std::fs::read_to_string(world.path("again.log")).unwrap();
    assert_eq!(code(&back), 0, "{}\n{log}", said(&back));
    let _ = cutover.wait().await;
    let there = documents(&world.source).await;
    assert_eq!(there, documents(&world.target).await);
    assert_eq!(there.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [1, 3, 5, 1, 1, 1, 9]);
    assert_eq!(there[2].3, Some(-1));
}

/// A server of 5.5 has no JSON: a column of it that the target is given ends the way back, is named, and the target serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_that_the_source_has_not_ends_the_way_back() {
    if real::skipped("json_that_the_source_has_not_ends_the_way_back", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    with_way_back(&world);
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut cutover = cut_over(&world, "cutover.log").await;
    let mut target = connect(&world.target, Account::Root).await;
    target.query_drop("ALTER TABLE school.settings ADD documents JSON").await.unwrap();
    target.query_drop("UPDATE school.settings SET documents = '{}' LIMIT 1").await.unwrap();
    target.disconnect().await.unwrap();
    waits_for(&world, &mut cutover, "cutover.log", "rollback would lose").await;
    let log = std::fs::read_to_string(world.path("cutover.log")).unwrap();
    assert!(log.contains("ALTER TABLE school.settings ADD documents JSON"), "{log}");
    let refused = world.finished(&["--yes", "rollback", &playbook]).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
    assert!(said(&refused).contains("school.settings"), "{}\n{log}", said(&refused));
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.target.port()));
    app_writes(&world.target, "INSERT INTO school.accounts (id, owner, balance) VALUES (900001, 'first', 0)").await.unwrap();
}
