//! Both engines of verification over every case: after a move neither finds anything, after damage both find the same.
//!
//! Tables with FLOAT or DOUBLE are left out of `server`, which refuses them (it has no exact text of a float); `client` compares
//! them like all others. Where two servers have no hash function in common (a 5.5 built without OpenSSL has only `MD5`, MySQL 9
//! only `SHA2`), `server` refuses every table, and that is what is looked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use dbmove::engine::steering::Steering;
use dbmove::local::LocalServer;
use dbmove::mysql::connect::Server;
use dbmove::mysql::names::Selection;
use dbmove::mysql::store::{MysqlStore, StoreSettings};
use dbmove::mysql::tls::Protection;
use dbmove::mysql::verification::full::VerifyProgress;
use dbmove::mysql::verification::{Engine, Verifier};
use dbmove::verify::report::Verification;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio_util::sync::CancellationToken;

use super::case::Case;
use super::compare::{columns, connect, databases, quoted};
use super::world::World;

/// What is wrong with how the engines agree. Leaves the target damaged.
pub async fn disagreements(world: &World, cases: &[&Case]) -> Vec<String> {
    let floats = tables_with_floats(&world.source, cases).await;
    let everything = Side { world, exclude: Vec::new() };
    let exact = Side { world, exclude: floats };
    let mut wrong = Vec::new();
    let server_can = match exact.verified(Engine::Server).await {
        Ok(found) => {
            wrong.extend(nothing_found("server", &found));
            true
        }
        Err(refused) if refused.contains("share no hash function") => {
            eprintln!("  engine `server` refuses, as it says: {refused}");
            false
        }
        Err(error) => return vec![format!("engine `server`: {error}")],
    };
    if !exact.exclude.is_empty() && everything.verified(Engine::Server).await.is_ok() {
        wrong.push("engine `server` does not refuse tables with floats".to_owned());
    }
    wrong.extend(nothing_found("client", &everything.verified(Engine::Client).await.unwrap()));
    let damaged = damage(&world.target, cases).await;
    let all = everything.verified(Engine::Client).await.unwrap();
    let found: BTreeSet<String> = all.tables.iter().filter(|table| table.differences > 0).map(|table| table.table.clone()).collect();
    if found != damaged {
        wrong.push(format!("damaged and not found by `client`: {:?}", damaged.difference(&found).collect::<Vec<_>>()));
        wrong.push(format!("found and not damaged: {:?}", found.difference(&damaged).collect::<Vec<_>>()));
    }
    if server_can {
        let [by_client, by_server] = [exact.verified(Engine::Client).await.unwrap(), exact.verified(Engine::Server).await.unwrap()];
        let (client, server) = (named(&by_client), named(&by_server));
        if client != server {
            wrong.push(format!(
                "found by `client` only: {:#?}\nfound by `server` only: {:#?}",
                client.difference(&server).collect::<Vec<_>>(),
                server.difference(&client).collect::<Vec<_>>()
            ));
        }
        eprintln!(
            "  damage: {} differences by `client`, {} by `server`, {} tables",
            by_client.difference_count,
            by_server.difference_count,
            client.len()
        );
    }
    wrong
}

/// One selection of the world's tables.
struct Side<'a> {
    world: &'a World,
    exclude: Vec<String>,
}

impl Side<'_> {
    async fn verified(&self, engine: Engine) -> Result<Verification, String> {
        let selection = Selection::new(&["case_*.*".to_owned()], &self.exclude).unwrap();
        let server = |of: &LocalServer| Server {
            role: "server".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: of.port(),
            user: "root".to_owned(),
            password: None,
            tls: Protection::Off,
            watched: None,
        };
        let store =
            MysqlStore::open("engines", server(&self.world.source), server(&self.world.target), selection, StoreSettings::default());
        let verifier = Arc::new(Verifier::new(&store, engine, false).await.map_err(|error| error.to_string())?);
        verifier
            .full(2, &Arc::new(VerifyProgress::default()), &Steering::free(), &CancellationToken::new())
            .await
            .map_err(|error| error.to_string())
    }
}

fn nothing_found(engine: &str, found: &Verification) -> Option<String> {
    let first: Vec<String> = found.differences.iter().take(5).map(dbmove::verify::Difference::line).collect();
    (found.difference_count > 0).then(|| format!("`{engine}` finds {} differences after the move: {first:#?}", found.difference_count))
}

/// Every difference: table, key and kind.
fn named(found: &Verification) -> BTreeSet<String> {
    let mut named: BTreeSet<String> = found.differences.iter().map(dbmove::verify::Difference::line).collect();
    named.extend(found.tables.iter().map(|table| format!("{}: {} rows, {} differences", table.table, table.rows, table.differences)));
    named
}

async fn tables_with_floats(server: &LocalServer, cases: &[&Case]) -> Vec<String> {
    let mut conn = connect(server).await;
    let mut found = Vec::new();
    for case in cases {
        for database in databases(&mut conn, case).await {
            for (table, columns) in columns(&mut conn, &database).await {
                if columns.iter().any(|column| column.kind == "float" || column.kind == "double") {
                    found.push(format!("{database}.{}", String::from_utf8(table).unwrap()));
                }
            }
        }
    }
    found
}

/// Takes one row out of every second table, and a value out of one row of every other; the tables that now differ.
async fn damage(target: &LocalServer, cases: &[&Case]) -> BTreeSet<String> {
    let mut conn = connect(target).await;
    conn.query_drop("SET foreign_key_checks = 0").await.unwrap();
    let mut damaged = BTreeSet::new();
    for case in cases {
        for database in databases(&mut conn, case).await {
            let tables: Vec<Vec<u8>> = columns(&mut conn, &database).await.into_keys().collect();
            for (number, table) in tables.iter().enumerate() {
                if one_row_of(&mut conn, &database, table, number % 2 == 0).await {
                    damaged.insert(format!("{database}.{}", String::from_utf8_lossy(table)));
                }
            }
        }
    }
    assert!(!damaged.is_empty(), "no row was damaged");
    damaged
}

async fn one_row_of(conn: &mut Conn, database: &str, table: &[u8], value: bool) -> bool {
    let place = [quoted(database.as_bytes()), quoted(table)].join(&b'.');
    if value {
        let nullable: Vec<Vec<u8>> = conn
            .exec(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ? AND is_nullable = 'YES' \
                 AND column_key = '' AND COALESCE(generation_expression, '') = '' ORDER BY ordinal_position",
                (database, table),
            )
            .await
            .unwrap();
        for column in nullable {
            let column = quoted(&column);
            let statement =
                [b"UPDATE ".as_slice(), &place, b" SET ", &column, b" = NULL WHERE ", &column, b" IS NOT NULL LIMIT 1"].concat();
            conn.query_drop(statement).await.unwrap();
            if conn.affected_rows() == 1 {
                return true;
            }
        }
    }
    conn.query_drop([b"DELETE FROM ".as_slice(), &place, b" LIMIT 1"].concat()).await.unwrap();
    conn.affected_rows() == 1
}
