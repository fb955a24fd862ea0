//! Sessions on real servers: accounts as old as their servers, and settings that are read back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;

use std::sync::Arc;

use dbmove::local::{Account, LocalServer, ServerKind};
use dbmove::mysql::connect::{Purpose, Server, Session};
use dbmove::mysql::error::MysqlError;
use dbmove::playbook::model::Tls;
use mysql_async::prelude::Queryable;

fn server(of: &LocalServer, user: &str, password: &str) -> Arc<Server> {
    Arc::new(Server {
        role: "source of `school`".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: of.port(),
        user: user.to_owned(),
        password: Some(password.to_owned().into()),
        tls: Tls::Off,
    })
}

#[tokio::test]
async fn an_account_with_an_old_password_hash_can_connect() {
    if real::skipped("an_account_with_an_old_password_hash_can_connect", &[ServerKind::Mysql55]) {
        return;
    }
    let old = real::shared(ServerKind::Mysql55, false).await;
    let mut conn = real::connect(&old, Account::Root).await;
    conn.query_drop("SET SESSION old_passwords = 1").await.unwrap();
    conn.query_drop("GRANT SELECT ON *.* TO 'antique'@'%' IDENTIFIED BY 'brass'").await.unwrap();
    let hash: String = conn.query_first("SELECT Password FROM mysql.user WHERE User = 'antique'").await.unwrap().unwrap();
    assert_eq!(hash.len(), 16, "not an old hash: {hash}");
    let mut session = Session::open(&server(&old, "antique", "brass"), Purpose::Read).await.unwrap();
    let who = session.first("SELECT CURRENT_USER()", "asking who we are").await.unwrap();
    assert_eq!(who, Some(vec![Some("antique@%".to_owned())]));
    let wrong = Session::open(&server(&old, "antique", "copper"), Purpose::Read).await.err().unwrap();
    assert_eq!(wrong.code(), Some(1045), "{wrong}");
}

#[tokio::test]
async fn each_purpose_has_its_settings() {
    if real::skipped("each_purpose_has_its_settings", &[ServerKind::Mysql55]) {
        return;
    }
    let old = real::shared(ServerKind::Mysql55, false).await;
    for (purpose, mode, charset) in [
        (Purpose::Read, "", "binary"),
        (Purpose::Write, "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES", "binary"),
        (Purpose::Catalog, "", "utf8"),
    ] {
        let mut session = Session::open(&server(&old, "dbmove", "dbmove"), purpose).await.unwrap();
        let row =
            session.first("SELECT @@session.sql_mode, @@session.character_set_client, @@session.time_zone", "reading back").await.unwrap();
        let expected = [mode, charset, "+00:00"].map(|text| Some(text.to_owned()));
        assert_eq!(row.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_warning_is_an_error_and_keeps_nothing_quiet() {
    if real::skipped("a_warning_is_an_error_and_keeps_nothing_quiet", &[ServerKind::Mysql55]) {
        return;
    }
    let old = real::shared(ServerKind::Mysql55, false).await;
    let mut session = Session::open(&server(&old, "dbmove", "dbmove"), Purpose::Write).await.unwrap();
    session.write(b"CREATE DATABASE warnings", "creating").await.unwrap();
    session.write(b"CREATE TABLE warnings.t (a TINYINT) ENGINE = InnoDB", "creating").await.unwrap();
    let error = session.write(b"INSERT INTO warnings.t VALUES (300)", "writing `warnings.t`").await.unwrap_err();
    assert!(matches!(error, MysqlError::Warnings { .. }), "{error}");
    assert!(error.to_string().contains("1264"), "{error}");
}
