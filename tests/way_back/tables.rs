//! Tables that the old server has otherwise than the new one: text that is called `latin1` there and is UTF-8 goes back as the bytes it
//! was; rows that the old server would not find by their key are no way back, and that is said before the switch.

use dbmove::local::{Account, LocalServer, ServerOptions};
use mysql_async::prelude::Queryable;

use super::world::{World, code, connect, said};
use super::{PAIR, app_writes, carried_back, cut_over, real, with_way_back};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn utf8_in_latin1_goes_back_and_rows_that_are_not_found_are_refused() {
    if real::skipped("utf8_in_latin1_goes_back_and_rows_that_are_not_found_are_refused", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    with_way_back(&world);
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let convert = "    include: [\"school.*\"]\n    charset: { \"school.words\": latin1-holds-utf8 }\n";
    std::fs::write(world.playbook(), text.replace("    include: [\"school.*\"]\n", convert)).unwrap();
    let mut source = connect(&world.source, Account::Root).await;
    for statement in [
        "SET NAMES latin1",
        "CREATE TABLE school.words (id INT PRIMARY KEY, word VARCHAR(50), UNIQUE (word)) ENGINE = InnoDB DEFAULT CHARSET latin1",
        // As an application sends them over a connection that says `latin1`.
        "INSERT INTO school.words VALUES (1, 'Grüße'), (2, 'plain'), (3, 'naïve')",
        "CREATE TABLE school.parted (id INT NOT NULL, kind VARCHAR(5) NOT NULL, n INT, PRIMARY KEY (id, kind)) ENGINE = InnoDB \
         PARTITION BY LIST COLUMNS (kind) (PARTITION a VALUES IN ('a', 'b'), PARTITION b VALUES IN ('c', 'd'))",
        "INSERT INTO school.parted VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
    ] {
        source.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let planned = world.finished(&["plan", &playbook]).await;
    let warned = said(&planned);
    assert!(warned.contains("would be refused before the switch: `school.parted` is partitioned by LIST COLUMNS"), "{warned}");
    assert!(warned.contains("`school.words` holds UTF-8 in `latin1` columns on the source"), "{warned}");
    let go = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the way back"];
    let refused = world.finished(&go).await;
    assert_ne!(code(&refused), 0, "{}", said(&refused));
    assert!(said(&refused).contains("nothing was switched") && said(&refused).contains("school.parted"), "{}", said(&refused));
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.source.port()));
    app_writes(&world.source, "INSERT INTO school.parted VALUES (4, 'd', 4)").await.unwrap();

    // As it is told to be put right.
    let given_up = world.finished(&["--yes", "undo", &playbook]).await;
    assert_eq!(code(&given_up), 0, "{}", said(&given_up));
    let mut source = connect(&world.source, Account::Root).await;
    source.query_drop("ALTER TABLE school.parted REMOVE PARTITIONING").await.unwrap();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow", "--new-run"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut cutover = cut_over(&world, "cutover.log").await;
    for statement in [
        "INSERT INTO school.words VALUES (4, 'Müßiggang – ñandú'), (5, 'straße')",
        "UPDATE school.words SET word = 'Grüße, später' WHERE id = 1",
        "UPDATE school.words SET word = 'ohne' WHERE id = 3",
        "DELETE FROM school.words WHERE id = 2",
        "DELETE FROM school.parted WHERE id IN (2, 3)",
    ] {
        app_writes(&world.target, statement).await.unwrap();
    }
    carried_back(&world).await;
    let back = world.finished(&["--yes", "rollback", &playbook, "--deadline", "2m"]).await;
    let log = std::fs::read_to_string(world.path("cutover.log")).unwrap();
    assert_eq!(code(&back), 0, "{}\n{log}", said(&back));
    assert!(!log.contains("rollback would lose"), "{log}");
    let _ = cutover.wait().await;
    let mut source = connect(&world.source, Account::Root).await;
    let words: Vec<(u32, String)> = source.query("SELECT id, HEX(word) FROM school.words ORDER BY id").await.unwrap();
    let wanted = [(1, "Grüße, später"), (3, "ohne"), (4, "Müßiggang – ñandú"), (5, "straße")];
    assert_eq!(words, wanted.map(|(id, word)| (id, hex::encode_upper(word))));
    let parted: Vec<(u32, u32)> = source.query("SELECT id, n FROM school.parted ORDER BY id").await.unwrap();
    assert_eq!(parted, [(1, 1), (4, 4)]);
}

/// A database that the target's log leaves out would come back to the source as it was: that is no way back, and said before the switch. What rows
/// don't tell is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_targets_log_leaves_out_is_refused_and_what_rows_dont_tell_is_named() {
    if real::skipped("what_the_targets_log_leaves_out_is_refused_and_what_rows_dont_tell_is_named", &PAIR) {
        return;
    }
    let mut world = World::start(PAIR[0], PAIR[1], 0.01).await;
    let options = ServerOptions::default().rds_like(true).argument("--binlog-ignore-db=school");
    world.target = LocalServer::start(PAIR[1], &world.path("filtered"), &options).await.unwrap();
    std::fs::write(world.playbook(), world.playbook_text("30s")).unwrap();
    with_way_back(&world);
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let go = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of the way back"];
    let refused = world.finished(&go).await;
    assert_ne!(code(&refused), 0, "{}", said(&refused));
    assert!(said(&refused).contains("`binlog-ignore-db` is `school`, with `school`"), "{}", said(&refused));
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.source.port()));

    let given_up = world.finished(&["--yes", "undo", &playbook]).await;
    assert_eq!(code(&given_up), 0, "{}", said(&given_up));
    let options = ServerOptions::default().rds_like(true);
    world.target = LocalServer::start(PAIR[1], &world.path("whole"), &options).await.unwrap();
    std::fs::write(world.playbook(), world.playbook_text("30s")).unwrap();
    with_way_back(&world);
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow", "--new-run"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut cutover = cut_over(&world, "cutover.log").await;
    let mut target = connect(&world.target, Account::Root).await;
    target.query_drop("ALTER USER 'app'@'%' IDENTIFIED BY 'dbmove'").await.unwrap();
    target.query_drop("CREATE VIEW school.seen AS SELECT 1 AS one").await.unwrap();
    // Nobody there may close root's.
    target.disconnect().await.unwrap();
    carried_back(&world).await;
    let back = world.finished(&["--yes", "rollback", &playbook, "--deadline", "2m"]).await;
    assert_eq!(code(&back), 0, "{}", said(&back));
    let _ = cutover.wait().await;
    let words = said(&back).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("not on the source, do it there by hand: accounts or privileges changed on the target at"), "{words}");
    let report = world.finished(&["report"]).await;
    let words = said(&report).split_whitespace().collect::<Vec<_>>().join(" ");
    let named = words.matches("a rollback does not take along").count();
    assert!(words.contains("ALTER USER 'app'@'%'") && words.contains("`CREATE VIEW` on the target at"), "{words}");
    assert!(!words.contains("ACCOUNT LOCK") && !words.contains("ACCOUNT UNLOCK"), "{words}");
    assert_eq!(named, 2, "{}", said(&report));
}
