//! Servers that are older, or have less, than those that most sources are: here without InnoDB, whose table of transactions is empty then. (None before
//! 5.5.8 can be had here: what these say of themselves is tried on their texts, beside the code.) And what a probe leaves behind: nothing.

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::connect::{Purpose, Session};
use dbmove::mysql::fence::{self, PROBE};
use mysql_async::prelude::Queryable;

use super::{Duration, Place, lowered, raised_within, reached_at, real, running};

/// Fences a 5.5.9 that is started with these, with a lock in the way, so that it is looked for who waits for a row; and writes to it.
async fn fenced_and_written_to(test: &str, arguments: &[&str], without: &str) {
    if real::skipped(test, &[ServerKind::Mysql559]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let options = arguments.iter().fold(ServerOptions::default(), |options, argument| options.argument(*argument));
    let server = LocalServer::start(ServerKind::Mysql559, &directory.path().join("server"), &options).await.unwrap();
    let mut root = real::connect(&server, Account::Root).await;
    match without {
        "InnoDB" => {
            let engines: Vec<(String, String)> = root.query("SELECT engine, support FROM information_schema.engines").await.unwrap();
            assert!(engines.iter().any(|(engine, support)| engine == "InnoDB" && support == "NO"), "{engines:?}");
        }
        _ => {
            let unknown = root.query_drop("SELECT 1 FROM information_schema.INNODB_TRX").await.unwrap_err().to_string();
            assert!(unknown.contains("1109"), "{unknown}");
        }
    }
    for statement in ["CREATE DATABASE school", "CREATE TABLE school.t (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY)"] {
        root.query_drop(statement).await.unwrap();
    }
    let app = real::connect(&server, Account::App).await;
    let mut place = Place { server, root, app, _directory: directory };
    assert!(place.app_writes().await);
    let direct = reached_at(place.server.port());
    let mut idle = real::connect(&place.server, Account::Root).await;
    idle.query_drop("LOCK TABLES school.t WRITE").await.unwrap();
    let mut fence = raised_within(&direct, Duration::from_secs(1), Duration::from_secs(20), &format!("without {without}")).await;
    fence.check().await.unwrap();
    place.app = real::connect(&place.server, Account::App).await;
    assert!(!place.app_writes().await);
    lowered(&mut place, fence).await;
    assert!(place.app_writes().await);
    // What the way back writes with.
    let mut writer = Session::open(&direct, Purpose::Write).await.unwrap();
    writer.write(b"INSERT INTO school.t VALUES (NULL)", "writing").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_innodb_is_fenced_and_written_to() {
    let test = "a_server_without_innodb_is_fenced_and_written_to";
    fenced_and_written_to(test, &["--skip-innodb", "--default-storage-engine=MyISAM"], "InnoDB").await;
}

/// As 5.1 is with its built-in InnoDB: there are transactions, and no table of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_table_of_transactions_is_fenced_and_written_to() {
    let test = "a_server_without_a_table_of_transactions_is_fenced_and_written_to";
    fenced_and_written_to(test, &["--innodb-trx=OFF"], "a table of transactions").await;
}

/// As if dbmove were killed while its probe waits: the lock goes with its session, and the probe runs.
async fn a_probe_leaves_nothing(test: &str, kind: ServerKind) {
    if real::skipped(test, &[kind]) {
        return;
    }
    let mut place = Place::of(kind).await;
    let databases = "SHOW DATABASES LIKE '\\_dbmove%'";
    let mut lock = real::connect(&place.server, Account::Root).await;
    lock.query_drop("FLUSH TABLES WITH READ LOCK").await.unwrap();
    let probe = running(real::connect(&place.server, Account::Root).await, PROBE);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!probe.is_finished(), "{kind:?}: the probe does not wait for the lock");
    drop(lock);
    assert!(!probe.await.unwrap(), "{kind:?}: there was something to drop");
    let left: Vec<String> = place.root.query(databases).await.unwrap();
    assert!(left.is_empty(), "{kind:?}: {left:?}");

    // What an older dbmove may have left goes; what is not dbmove's stays, and is not named by a probe.
    let direct = reached_at(place.server.port());
    place.root.query_drop("CREATE DATABASE `_dbmove_fence_probe`").await.unwrap();
    let fence = raised_within(&direct, Duration::from_secs(1), Duration::from_secs(20), "with what was left").await;
    let left: Vec<String> = place.root.query(databases).await.unwrap();
    assert!(left.is_empty(), "{kind:?}: {left:?}");
    lowered(&mut place, fence).await;
    for statement in ["CREATE DATABASE `_dbmove_fence_probe`", "CREATE TABLE `_dbmove_fence_probe`.precious (id INT)"] {
        place.root.query_drop(statement).await.unwrap();
    }
    let mut session = Session::open(&direct, Purpose::Read).await.unwrap();
    let refused = fence::remove_probed(&mut session).await.unwrap_err().to_string();
    assert!(refused.contains("`_dbmove_fence_probe`") && refused.contains("is not empty"), "{refused}");
    place.root.query_drop("SELECT * FROM `_dbmove_fence_probe`.precious").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_leaves_nothing_on_5_5_9() {
    a_probe_leaves_nothing("a_probe_leaves_nothing_on_5_5_9", ServerKind::Mysql559).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_leaves_nothing_on_5_6_24() {
    a_probe_leaves_nothing("a_probe_leaves_nothing_on_5_6_24", ServerKind::Mysql56).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_leaves_nothing_on_9_7() {
    a_probe_leaves_nothing("a_probe_leaves_nothing_on_9_7", ServerKind::Mysql97).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_leaves_nothing_on_mariadb() {
    a_probe_leaves_nothing("a_probe_leaves_nothing_on_mariadb", ServerKind::MariaDb).await;
}
