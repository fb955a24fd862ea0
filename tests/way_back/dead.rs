//! dbmove's machine dies in a rollback while it holds the target's writes: nothing tells the target's server, and it takes writes again by
//! itself. The rollback is begun once more then, and everything that was written meanwhile comes along.

use std::time::{Duration, Instant};

use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::real::proxy::{Line, Proxy};
use super::world::{self, World, code, connect, said};
use super::{PAIR, cut_over, real, with_way_back};

/// The target's sessions that watch over a rollback, asleep or biting.
async fn watchdogs(world: &World) -> usize {
    let mut conn = connect(&world.target, Account::Root).await;
    let rows: Vec<mysql_async::Row> = conn.query("SHOW FULL PROCESSLIST").await.unwrap();
    let texts = rows.iter().filter_map(|row| row.get::<Option<String>, _>(7).flatten());
    texts.filter(|text| text.starts_with("/* dbmove watchdog of rollback")).count()
}

/// The text of the playbook with dbmove's way to the target through the proxy, as that account, and with limits that don't make a test long.
fn through(world: &World, proxy: &Proxy, account: &str) {
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let port = world.target.port();
    let direct = format!("\"mysql://admin@127.0.0.1:{port}/\", password: \"${{env:DBMOVE_TEST_PASSWORD}}\"");
    let password = if account == "root" { "" } else { ", password: \"${env:DBMOVE_TEST_PASSWORD}\"" };
    let text = [
        (direct, format!("\"mysql://{account}@127.0.0.1:{}/\"{password}", proxy.port)),
        ("max_write_gap: 30s".to_owned(), "max_write_gap: 20s".to_owned()),
        ("run: mysql.reverse, store: school }".to_owned(), "run: mysql.reverse, store: school, with: { watchdog: 25s } }".to_owned()),
    ]
    .into_iter()
    .fold(text, |text, (from, to)| {
        assert!(text.contains(&from), "{from}\n{text}");
        text.replace(&from, &to)
    });
    std::fs::write(world.playbook(), text).unwrap();
}

/// Whether the app can write there as it comes: not while its account is locked, the server `read_only`, or the lock held.
async fn app_writes(server: &LocalServer, id: u32) -> bool {
    let Ok(mut conn) = Conn::new(server.connect_options(Account::App, None)).await else { return false };
    let write = conn.query_drop(format!("INSERT INTO school.words VALUES ({id}, 'x')"));
    matches!(tokio::time::timeout(Duration::from_millis(500), write).await, Ok(Ok(())))
}

async fn dies(test: &str, pair: [ServerKind; 2], account: &str) {
    if real::skipped(test, &pair) {
        return;
    }
    let mut world = World::start(pair[0], pair[1], 0.01).await;
    with_way_back(&world);
    let proxy = Proxy::to(world.target.port()).await;
    through(&world, &proxy, account);
    let mut conn = connect(&world.source, Account::Root).await;
    conn.query_drop("CREATE TABLE school.words (id INT PRIMARY KEY, word VARCHAR(50)) ENGINE = InnoDB").await.unwrap();
    let writers = world.write(100.0, 50.0).await;
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut cutover = cut_over(&world, "cutover.log").await;
    cutover.kill().await.unwrap();

    proxy.line.send_replace(Line::Untold);
    let rollback = ["--yes", "rollback", &playbook];
    let killed = world.dbmove(&rollback).env("DBMOVE_CRASH_AT", "rollback.held").output().await.unwrap();
    assert_eq!(code(&killed), -9, "{}", said(&killed));
    let died = Instant::now();
    assert!(!app_writes(&world.target, 1).await, "nothing holds writes");
    assert_eq!(watchdogs(&world).await, if account == "root" { 1 } else { 2 });
    let mut id = 2;
    while !app_writes(&world.target, id).await {
        assert!(died.elapsed() < Duration::from_secs(120), "the target takes no writes, {:?} after the machine died", died.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
        id += 1;
    }
    eprintln!("{test}: the target took writes again {:.1} s after the machine had died", died.elapsed().as_secs_f64());
    assert_eq!(watchdogs(&world).await, 0);
    let served = std::fs::read_to_string(world.route()).unwrap();
    assert_eq!(served, format!("127.0.0.1:{}\n", world.target.port()));

    tokio::time::sleep(Duration::from_secs(1)).await;
    let back = world.finished(&rollback).await;
    assert_eq!(code(&back), 0, "{}", said(&back));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = world::stopped(writers).await;
    let verdict = world.ledger_on(&world.source).await;
    assert!(verdict.is_clean(), "{verdict:#?}\n{counts:?}\n{}", said(&back));
    assert_eq!(world::number(&world.source, &format!("SELECT COUNT(*) FROM school.words WHERE id = {id}")).await, 1);
    // Called off: what is held behind the route stays held.
    assert_eq!(watchdogs(&world).await, 0);
    assert!(!app_writes(&world.target, id + 1).await, "a client with the old address writes where nobody looks");
}

/// The machine dies behind the disarming of the watchdog, where the lock that its session holds is nobody's any more: the next driver ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_nobody_watches_over_is_ended_by_the_next_driver() {
    let pair = [ServerKind::MariaDb, ServerKind::MariaDb];
    if real::skipped("a_lock_that_nobody_watches_over_is_ended_by_the_next_driver", &pair) {
        return;
    }
    let world = World::start(pair[0], pair[1], 0.01).await;
    with_way_back(&world);
    let proxies = [Proxy::to(world.source.port()).await, Proxy::to(world.target.port()).await];
    through(&world, &proxies[1], "root");
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let direct = format!("mysql://dbmove@127.0.0.1:{}/", world.source.port());
    assert!(text.contains(&direct), "{text}");
    std::fs::write(world.playbook(), text.replace(&direct, &format!("mysql://dbmove@127.0.0.1:{}/", proxies[0].port))).unwrap();
    let mut conn = connect(&world.source, Account::Root).await;
    conn.query_drop("CREATE TABLE school.words (id INT PRIMARY KEY, word VARCHAR(50)) ENGINE = InnoDB").await.unwrap();
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    for proxy in &proxies {
        proxy.line.send_replace(Line::Untold);
    }

    // Right before the switch: undone from elsewhere, clients write again.
    let arguments = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of a machine that dies"];
    let killed = world.dbmove(&arguments).env("DBMOVE_CRASH_AT", "fence.disarmed").output().await.unwrap();
    assert_eq!(code(&killed), -9, "{}", said(&killed));
    assert!(!app_writes(&world.source, 1).await, "nothing holds writes");
    let undone = world.finished(&["--yes", "undo", &playbook]).await;
    assert_eq!(code(&undone), 0, "{}", said(&undone));
    assert!(app_writes(&world.source, 2).await, "the dead driver's lock is still held\n{}", said(&undone));

    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow", "--new-run"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));

    // Right before the route is put back: the target serves, and whoever goes on lets its clients write again.
    let mut cutover = cut_over(&world, "cutover.log").await;
    cutover.kill().await.unwrap();
    let killed = world.dbmove(&["--yes", "rollback", &playbook]).env("DBMOVE_CRASH_AT", "rollback.disarmed").output().await.unwrap();
    assert_eq!(code(&killed), -9, "{}", said(&killed));
    assert!(!app_writes(&world.target, 3).await, "nothing holds writes");
    let back = world.finished(&["--yes", "rollback", &playbook]).await;
    assert_eq!(code(&back), 0, "{}", said(&back));
    // `read_only` keeps clients out there by now; no lock does.
    let mut root = connect(&world.target, Account::Root).await;
    let write = root.query_drop("INSERT INTO school.words VALUES (4, 'x')");
    assert!(matches!(tokio::time::timeout(Duration::from_secs(2), write).await, Ok(Ok(()))), "a dead driver's lock is held on the target");
    assert!(app_writes(&world.source, 5).await, "{}", said(&back));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_dies_in_a_rollback_leaves_an_rds_like_target_writable() {
    dies("a_machine_that_dies_in_a_rollback_leaves_an_rds_like_target_writable", PAIR, "admin").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_dies_in_a_rollback_leaves_a_target_of_ones_own_writable() {
    let pair = [ServerKind::MariaDb, ServerKind::MariaDb];
    dies("a_machine_that_dies_in_a_rollback_leaves_a_target_of_ones_own_writable", pair, "root").await;
}
