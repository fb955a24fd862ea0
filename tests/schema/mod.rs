//! Schemas for tests of catalog and DDL: `fixtures/schema/school.sql` and the tables of
//! `fixtures/mysql/types.sql`, under a database name of the test's choosing.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::sync::Arc;

use dbmove::local::{Account, DEFAULT_PASSWORD, LocalServer};
use dbmove::mysql::connect::{Purpose, Server, Session};
use dbmove::mysql::names::Selection;
use dbmove::mysql::tls::Protection;

const SCHOOL: &str = include_str!("../../fixtures/schema/school.sql");
const ODD: &str = include_str!("../../fixtures/schema/odd.sql");
const TYPES: &str = include_str!("../../fixtures/mysql/types.sql");

pub async fn session_as(server: &LocalServer, account: Account) -> Session {
    session_for(server, account, Purpose::Catalog).await
}

pub async fn session_for(server: &LocalServer, account: Account, purpose: Purpose) -> Session {
    let password = (account != Account::Root).then(|| DEFAULT_PASSWORD.to_owned().into());
    let server = Server {
        role: "test server".to_owned(),
        host: server.host().to_owned(),
        port: server.port(),
        user: account.user().to_owned(),
        password,
        tls: Protection::Off,
        watched: None,
    };
    Session::open(&Arc::new(server), purpose).await.unwrap()
}

pub async fn catalog_session(server: &LocalServer) -> Session {
    session_as(server, Account::Root).await
}

pub fn selection(include: &[&str]) -> Selection {
    Selection::new(&include.iter().map(|&pattern| pattern.to_owned()).collect::<Vec<_>>(), &[]).unwrap()
}

/// The school, in a database of this name.
pub async fn load_school(session: &mut Session, database: &str) {
    for statement in SCHOOL.split("\n\n").filter(|paragraph| !paragraph.starts_with("--")) {
        session.run(&statement.replace("academy", database), "loading the school").await.unwrap();
    }
}

/// Other engines, partitions and odd names, in a database of this name. MySQL 5.5 and 5.6 only.
pub async fn load_odd(session: &mut Session, database: &str) {
    for statement in ODD.split("\n\n").filter(|paragraph| !paragraph.starts_with("--")) {
        session.run(&statement.replace("academy", database), "loading what is odd").await.unwrap();
    }
}

/// The tables of the row event fixture with their rows, in a database of this name. Old servers only: it has YEAR(2).
pub async fn load_types(session: &mut Session, database: &str) {
    for line in TYPES.lines().filter(|line| !line.starts_with("--")) {
        let line = line.replace("EXISTS school", &format!("EXISTS {database}"));
        let line = line.replace("DATABASE school", &format!("DATABASE {database}")).replace("USE school", &format!("USE {database}"));
        session.run(&line, "loading the types").await.unwrap();
    }
}
