//! A source with `fixtures/schema/objects.sql` in a database of the test's, a target with its tables, and the store between them.

use std::sync::Arc;

use dbmove::engine::step::Epoch;
use dbmove::local::{Account, DEFAULT_PASSWORD, LocalServer, ServerKind};
use dbmove::mysql::bookkeeping;
use dbmove::mysql::catalog::OtherObject;
use dbmove::mysql::connect::{Purpose, Server, Session};
use dbmove::mysql::ddl;
use dbmove::mysql::objects::bring::Bringing;
use dbmove::mysql::objects::read::{Definition, Reader};
use dbmove::mysql::store::{Described, MysqlStore, StoreSettings};
use dbmove::mysql::tls::Protection;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::real;

pub const EPOCH: Epoch = Epoch(1);

pub struct Pair {
    pub source: Arc<LocalServer>,
    pub target: Arc<LocalServer>,
    pub database: String,
    pub store: Arc<MysqlStore>,
    pub described: Arc<Described>,
}

pub fn server(of: &LocalServer, role: &str, account: Account) -> Server {
    Server {
        role: role.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: of.port(),
        user: account.user().to_owned(),
        password: (account != Account::Root).then(|| DEFAULT_PASSWORD.to_owned().into()),
        tls: Protection::Off,
        watched: None,
    }
}

/// The fixture, in a database of this name.
pub async fn fill(conn: &mut Conn, database: &str) {
    let text = include_str!("../../fixtures/schema/objects.sql").replace("academy", database);
    conn.query_drop("SET NAMES utf8").await.unwrap();
    for statement in text.split("\n\n").filter(|paragraph| !paragraph.starts_with("-- Views")) {
        conn.query_drop(statement.trim()).await.unwrap_or_else(|error| panic!("{error}\n{statement}"));
    }
}

impl Pair {
    /// The fixture and more statements (bytes, each with the charset of its session) on the source; databases and tables on an
    /// RDS-like target, to which dbmove connects as its master user.
    pub async fn new(kinds: [ServerKind; 2], database: &str, more: &[(&str, &[u8])], exclude: &[&str]) -> Pair {
        Pair::with(kinds, database, more, exclude, StoreSettings::default()).await
    }

    /// The same, with settings of its own.
    pub async fn with(kinds: [ServerKind; 2], database: &str, more: &[(&str, &[u8])], exclude: &[&str], settings: StoreSettings) -> Pair {
        let (source, target) = (real::shared(kinds[0], false).await, real::shared(kinds[1], true).await);
        let mut conn = real::connect(&source, Account::Root).await;
        fill(&mut conn, database).await;
        for (charset, statement) in more {
            conn.query_drop(format!("SET NAMES {charset}")).await.unwrap();
            conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(statement)));
        }
        let exclude: Vec<String> = exclude.iter().map(|name| format!("{database}.{name}")).collect();
        let selection = dbmove::mysql::names::Selection::new(&[format!("{database}.*")], &exclude).unwrap();
        let ends = (server(&source, "source", Account::Dbmove), server(&target, "target", Account::Admin));
        let store = MysqlStore::open(database, ends.0, ends.1, selection, settings);
        let described = store.described().await.unwrap();
        let mut session = Session::open(&store.target, Purpose::Catalog).await.unwrap();
        {
            // One driver creates the schema in real life; here several tests would at once.
            static CREATING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
            let _one = CREATING.lock().await;
            bookkeeping::create(&mut session).await.unwrap();
            bookkeeping::claim(&mut session, database, "run", EPOCH).await.unwrap();
        }
        for made in &described.schema.databases {
            bookkeeping::note_created(&mut session, database, &made.name, "").await.unwrap();
            ddl::execute(&mut session, &made.create, "creating the database").await.unwrap();
        }
        for table in &described.schema.tables {
            ddl::execute(&mut session, &table.create, "creating a table").await.unwrap();
        }
        Pair { source, target, database: database.to_owned(), store, described }
    }

    pub async fn bringing(&self) -> Bringing<'_> {
        Bringing::open(&self.store, &self.described, EPOCH).await.unwrap()
    }

    /// What a server holds of the database, as it prints it.
    pub async fn definitions(&self, of: &LocalServer) -> Vec<Definition> {
        let mut reader = Reader::open(&Arc::new(server(of, "server", Account::Root))).await.unwrap();
        let listed: Vec<OtherObject> = reader.list(std::slice::from_ref(&self.database), &self.store.selection, |_, _| true).await.unwrap();
        let mut definitions = Vec::new();
        for object in listed {
            definitions.push(reader.definition(&object).await.unwrap().unwrap());
        }
        definitions
    }

    pub async fn on_source(&self) -> Conn {
        self.connected(&self.source).await
    }

    pub async fn on_target(&self) -> Conn {
        self.connected(&self.target).await
    }

    async fn connected(&self, server: &LocalServer) -> Conn {
        let mut conn = real::connect(server, Account::Root).await;
        conn.query_drop("SET NAMES utf8").await.unwrap();
        conn.query_drop(format!("USE `{}`", self.database)).await.unwrap();
        conn
    }
}
