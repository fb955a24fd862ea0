//! Ids that were given out on the target are not given out again by the old source, and no table there is written anew for that while writes are held.

use dbmove::local::Account;
use mysql_async::prelude::Queryable;

use super::world::{self, World, code, connect, said};
use super::{PAIR, carried_back, cut_over, real, with_way_back};

/// Of InnoDB, of InnoDB with a value that another unique index has already, and of an engine that rolls nothing back.
const TABLES: [&str; 3] = ["school.plain", "school.taken", "school.old"];

async fn tables_altered(world: &World) -> u64 {
    let mut conn = connect(&world.source, Account::Root).await;
    let (_, count): (String, u64) = conn.query_first("SHOW GLOBAL STATUS LIKE 'Com_alter_table'").await.unwrap().unwrap();
    count
}

/// The next id that a client gets.
async fn next_id(server: &dbmove::local::LocalServer, table: &str, word: &str) -> u64 {
    let mut conn = connect(server, Account::App).await;
    conn.query_drop(format!("INSERT INTO {table} (word) VALUES ('{word}')")).await.unwrap();
    conn.last_insert_id().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_given_out_once() {
    if real::skipped("ids_are_given_out_once", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    with_way_back(&world);
    let mut source = connect(&world.source, Account::Root).await;
    for (table, rest) in TABLES.iter().zip([") ENGINE = InnoDB", ", UNIQUE (word)) ENGINE = InnoDB", ") ENGINE = MyISAM"]) {
        let create = format!("CREATE TABLE {table} (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, word VARCHAR(20) NOT NULL{rest}");
        source.query_drop(create).await.unwrap();
        source.query_drop(format!("INSERT INTO {table} (word) VALUES ('')")).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut cutover = cut_over(&world, "cutover.log").await;

    // One is acknowledged and deleted in the transaction that has it, as batches see most of them; the others never were.
    let mut given = Vec::new();
    for table in TABLES {
        let mut client = connect(&world.target, Account::App).await;
        client.query_drop("BEGIN").await.unwrap();
        for word in ["a", "b", "c"] {
            client.query_drop(format!("INSERT INTO {table} (word) VALUES ('{word}')")).await.unwrap();
        }
        given.push(client.last_insert_id().unwrap());
        client.query_drop(format!("DELETE FROM {table} WHERE word IN ('a', 'b', 'c')")).await.unwrap();
        client.query_drop("COMMIT").await.unwrap();
    }
    carried_back(&world).await;
    let before = tables_altered(&world).await;
    let back = world.finished(&["--yes", "rollback", &playbook]).await;
    assert_eq!(code(&back), 0, "{}", said(&back));
    let _ = cutover.wait().await;
    // That of MyISAM, near the rollback, and with so much room that it need not be once more.
    assert_eq!(tables_altered(&world).await - before, 1, "{}", said(&back));
    for (table, given) in TABLES.iter().zip(given) {
        let next = next_id(&world.source, table, "next").await;
        assert!(next > given, "{table}: {given} was given out on the target, and {next} on the source");
        assert_eq!(world::number(&world.source, &format!("SELECT COUNT(*) FROM {table}")).await, 2, "{table}");
    }
}
