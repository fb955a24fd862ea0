//! Rules of copying that a run meets only by bad luck, each brought about on purpose.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dbmove::engine::step::Epoch;
use dbmove::local::{Account, LocalServer, ServerKind};
use dbmove::mysql::apply::applier::Applied;
use dbmove::mysql::apply::cascade::ParentChange;
use dbmove::mysql::bookkeeping;
use dbmove::mysql::catalog::Catalog;
use dbmove::mysql::cell::{Cell, Key, Row};
use dbmove::mysql::connect::{Purpose, Server, Session};
use dbmove::mysql::copy::write_chunk::{Entered, Writer};
use dbmove::mysql::copy::{Chunk, LoadPath, LoadedChunk};
use dbmove::mysql::names::Selection;
use dbmove::mysql::position::Position;
use dbmove::mysql::range::KeyRange;
use dbmove::mysql::shared::Shared;
use dbmove::mysql::store::{MysqlStore, StoreSettings};
use dbmove::mysql::tables::{TableId, Tables};
use dbmove::mysql::tls::Protection;
use dbmove::mysql::verification::{Engine, Verifier};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const STORE: &str = "rules";

fn server(of: &LocalServer) -> Arc<Server> {
    Arc::new(Server {
        role: "target".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: of.port(),
        user: "root".to_owned(),
        password: None,
        tls: Protection::Off,
        watched: None,
    })
}

fn number(value: u32) -> Cell {
    Cell::Bytes(value.to_string().into_bytes())
}

fn key(value: u32) -> Key {
    Key::of(&[number(value)], &[0])
}

/// Forums and their posts on a target, and a writer for chunks of posts.
async fn scene(target: &LocalServer, database: &str) -> (Arc<Shared>, Writer, Conn) {
    let mut conn = real::connect(target, Account::Root).await;
    conn.query_drop(format!("CREATE DATABASE {database}")).await.unwrap();
    conn.query_drop(format!("CREATE TABLE {database}.forums (id INT NOT NULL PRIMARY KEY) ENGINE = InnoDB")).await.unwrap();
    conn.query_drop(format!(
        "CREATE TABLE {database}.posts (id INT NOT NULL PRIMARY KEY, forum_id INT, KEY (forum_id), CONSTRAINT fk_{database} FOREIGN KEY (forum_id) REFERENCES {database}.forums (id) ON DELETE CASCADE) ENGINE = InnoDB"
    ))
    .await
    .unwrap();
    let endpoint = server(target);
    let mut catalog_session = Session::open(&endpoint, Purpose::Catalog).await.unwrap();
    let selection = Arc::new(Selection::new(&[format!("{database}.*")], &[]).unwrap());
    let catalog = Catalog::read(&mut catalog_session, &selection).await.unwrap();
    let all: Vec<_> = catalog.tables.values().cloned().collect();
    let tables = Arc::new(Tables::new(&all, &catalog_session.version).unwrap());
    {
        // One driver creates the schema in real life; here two tests would at once.
        static CREATING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one = CREATING.lock().await;
        bookkeeping::create(&mut catalog_session).await.unwrap();
        bookkeeping::claim(&mut catalog_session, database, STORE, Epoch(1)).await.unwrap();
    }
    let shared = Arc::new(Shared::new(database, selection, tables, 1000));
    let (applied, _) = watch::channel(Applied::at(Position::new("binlog.000001", 1000)));
    let session = shared.open_writer(&endpoint).await.unwrap();
    let progress = Arc::default();
    let writer =
        Writer { session, shared: shared.clone(), epoch: Epoch(1), path: LoadPath::Insert, applied: applied.subscribe(), progress };
    // The receiver alone keeps the last value; nothing moves here.
    std::mem::forget(applied);
    (shared, writer, conn)
}

/// A chunk of posts, each of the forum.
fn chunk(shared: &Shared, database: &str, posts: &[u32], forum: u32) -> LoadedChunk {
    let table = shared.tables.id(database, "posts").unwrap();
    let mut lines = Vec::new();
    let mut rows = Vec::new();
    for post in posts {
        lines.extend_from_slice(format!("{post}\t{forum}\n").as_bytes());
        rows.push((lines.len(), key(*post)));
    }
    let range = KeyRange { after: Some(key(posts[0] - 1)), through: posts.last().map(|post| key(*post)) };
    LoadedChunk {
        chunk: Chunk { table, number: 0, range: range.clone() },
        range,
        more: false,
        lines: Bytes::from(lines),
        rows,
        read_started: Instant::now(),
        read_at: Position::new("binlog.000001", 900),
        written: None,
        held: None,
    }
}

async fn posts(conn: &mut Conn, database: &str) -> Vec<u32> {
    conn.query(format!("SELECT id FROM {database}.posts ORDER BY id")).await.unwrap()
}

fn forum_deleted(shared: &Shared, database: &str, forum: u32) {
    let table = shared.tables.id(database, "forums").unwrap();
    let row: Row = vec![number(forum)];
    shared.parents.remember(table, ParentChange::Deleted(row));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_leaves_out_children_of_a_parent_that_went_and_no_others() {
    let test = "a_chunk_leaves_out_children_of_a_parent_that_went_and_no_others";
    if real::skipped(test, &[ServerKind::Mysql97]) {
        return;
    }
    let target = real::shared(ServerKind::Mysql97, false).await;
    let (shared, mut writer, mut conn) = scene(&target, "rules_leaves_out").await;
    // The chunk was read with posts of forum 5; then the forum went.
    let part = chunk(&shared, "rules_leaves_out", &[11, 12], 5);
    forum_deleted(&shared, "rules_leaves_out", 5);
    // Post 12 has moved to the forum that lives again under the same number, by an event.
    conn.query_drop("SET foreign_key_checks = 0; INSERT INTO rules_leaves_out.posts VALUES (12, 5)").await.unwrap();
    let entered = writer.write(&part, &CancellationToken::new()).await.unwrap();
    assert!(matches!(entered, Entered::In(_)), "{entered:?}");
    assert_eq!(posts(&mut conn, "rules_leaves_out").await, [12], "11 came back from the dead, or 12 was lost");
}

/// The chunk is made to wait in the middle, between its two looks at who refers to the parent that went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_leaves_alone_what_an_event_brings_while_it_goes_in() {
    let test = "a_chunk_leaves_alone_what_an_event_brings_while_it_goes_in";
    if real::skipped(test, &[ServerKind::Mysql97]) {
        return;
    }
    let target = real::shared(ServerKind::Mysql97, false).await;
    let (shared, mut writer, mut conn) = scene(&target, "rules_while").await;
    let mut holder = real::connect(&target, Account::Root).await;
    for session in [&mut conn, &mut holder] {
        session.query_drop("SET foreign_key_checks = 0").await.unwrap();
    }
    let part = chunk(&shared, "rules_while", &[11, 12], 5);
    forum_deleted(&shared, "rules_while", 5);
    // The load has to wait for the row that this holds.
    holder.query_drop("BEGIN").await.unwrap();
    holder.query_drop("INSERT INTO rules_while.posts VALUES (12, 5)").await.unwrap();
    let cancel = CancellationToken::new();
    let (entered, ()) = tokio::join!(writer.write(&part, &cancel), async {
        let waits = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE 'INSERT IGNORE INTO `rules\\_while`%'";
        let began = Instant::now();
        while conn.query_first::<u64, _>(waits).await.unwrap() != Some(1) {
            assert!(began.elapsed().as_secs() < 20, "the load does not wait");
            // The server renews this table only if nobody looked for a tenth of a second.
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
        // The forum lives again, and an event brings a post of it, with a key that is not the chunk's.
        conn.query_drop("INSERT INTO rules_while.posts VALUES (30, 5)").await.unwrap();
        holder.query_drop("ROLLBACK").await.unwrap();
    });
    assert!(matches!(entered, Ok(Entered::In(_))), "{entered:?}");
    assert_eq!(posts(&mut conn, "rules_while").await, [30], "11 or 12 came back from the dead, or 30 was lost");
}

/// What a cascade leaves when a level in the middle was not copied yet, put there by hand; beside it, what no cascade leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cascade_of_several_levels_left_is_set_right_and_nothing_else() {
    let test = "what_a_cascade_of_several_levels_left_is_set_right_and_nothing_else";
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped(test, &kinds) {
        return;
    }
    let database = "rules_mend";
    let servers = [real::shared(kinds[0], false).await, real::shared(kinds[1], false).await];
    for of in &servers {
        let mut conn = real::connect(of, Account::Root).await;
        for statement in [
            "CREATE DATABASE rules_mend",
            "CREATE TABLE rules_mend.a (id INT NOT NULL PRIMARY KEY) ENGINE = InnoDB",
            "CREATE TABLE rules_mend.b (id INT NOT NULL PRIMARY KEY, a INT, KEY (a), CONSTRAINT mend_b FOREIGN KEY (a) REFERENCES rules_mend.a (id) ON DELETE CASCADE) ENGINE = InnoDB",
            "CREATE TABLE rules_mend.c (id INT NOT NULL PRIMARY KEY, b INT, word VARCHAR(20), KEY (b), CONSTRAINT mend_c FOREIGN KEY (b) REFERENCES rules_mend.b (id) ON DELETE CASCADE ON UPDATE CASCADE) ENGINE = InnoDB",
            "CREATE TABLE rules_mend.tree (id INT NOT NULL PRIMARY KEY, parent INT, KEY (parent), CONSTRAINT mend_tree FOREIGN KEY (parent) REFERENCES rules_mend.tree (id) ON DELETE CASCADE) ENGINE = InnoDB",
            "CREATE TABLE rules_mend.part (b INT NOT NULL, n INT NOT NULL, PRIMARY KEY (b, n), CONSTRAINT mend_part FOREIGN KEY (b) REFERENCES rules_mend.b (id) ON DELETE CASCADE ON UPDATE CASCADE) ENGINE = InnoDB",
            "INSERT INTO rules_mend.a VALUES (1), (2)",
            "INSERT INTO rules_mend.b VALUES (10, 1), (20, 2)",
            "INSERT INTO rules_mend.c VALUES (100, 10, 'one'), (101, 10, 'two'), (102, 20, 'three'), (103, 20, 'four')",
            "INSERT INTO rules_mend.part VALUES (10, 1), (20, 1), (20, 2)",
            "INSERT INTO rules_mend.tree VALUES (1, NULL), (2, 1)",
        ] {
            conn.query_drop(statement).await.unwrap();
        }
    }
    let mut conn = real::connect(&servers[1], Account::Root).await;
    for statement in [
        "SET foreign_key_checks = 0",
        // Left by cascades: rows that are gone on the source, one that refers to what its parent was called before.
        "INSERT INTO rules_mend.c VALUES (200, 77, 'left'), (201, 10, 'parent lives again')",
        "UPDATE rules_mend.c SET b = 11 WHERE id = 101",
        "INSERT INTO rules_mend.tree VALUES (3, 88)",
        // Its parent's key was 21 before, and is part of its own.
        "UPDATE rules_mend.part SET b = 21 WHERE b = 20 AND n = 1",
        // No cascade does this: it stays, to be found.
        "UPDATE rules_mend.c SET word = 'changed' WHERE id = 102",
        "DELETE FROM rules_mend.c WHERE id = 103",
        "INSERT INTO rules_mend.b VALUES (30, 1)",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    {
        let mut session = Session::open(&server(&servers[1]), Purpose::Catalog).await.unwrap();
        bookkeeping::create(&mut session).await.unwrap();
        bookkeeping::claim(&mut session, database, STORE, Epoch(1)).await.unwrap();
    }
    let owned = |of: &LocalServer| Arc::unwrap_or_clone(server(of));
    let selection = Selection::new(&[format!("{database}.*")], &[]).unwrap();
    let store = MysqlStore::open(database, owned(&servers[0]), owned(&servers[1]), selection, StoreSettings::default());
    // Nothing moves here: everything counts as applied.
    store.applied.send_replace(Applied::at(Position::new("binlog.999999", u64::MAX)));
    let verifier = Verifier::new(&store, Engine::Auto, true).await.unwrap();
    let looked_at: BTreeSet<TableId> = verifier.tables.iter().map(|table| table.table).filter(|id| verifier.mends(*id)).collect();
    let mended = verifier.mend_cascades(&looked_at, Epoch(1), &CancellationToken::new()).await.unwrap();
    let found = [("rules_mend.c", 3), ("rules_mend.part", 2), ("rules_mend.tree", 1)];
    assert_eq!(mended.into_iter().collect::<Vec<_>>(), found.map(|(table, rows)| (table.to_owned(), rows)));
    let parts: Vec<(u32, u32)> = conn.query("SELECT b, n FROM rules_mend.part ORDER BY b, n").await.unwrap();
    assert_eq!(parts, [(10, 1), (20, 1), (20, 2)]);
    let left: Vec<(u32, Option<u32>, String)> = conn.query("SELECT id, b, word FROM rules_mend.c ORDER BY id").await.unwrap();
    let row = |id, b, word: &str| (id, Some(b), word.to_owned());
    assert_eq!(left, [row(100, 10, "one"), row(101, 10, "two"), row(102, 20, "changed")]);
    let left: Vec<u32> = conn.query("SELECT id FROM rules_mend.b ORDER BY id").await.unwrap();
    assert_eq!(left, [10, 20, 30], "only tables below another that cascades are looked at");
    // A driver that lost its lease writes nothing.
    conn.query_drop("INSERT INTO rules_mend.c VALUES (300, 78, 'left')").await.unwrap();
    let refused = verifier.mend_cascades(&looked_at, Epoch(0), &CancellationToken::new()).await;
    assert!(refused.is_err(), "{refused:?}");
}
