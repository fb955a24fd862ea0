//! Sessions on real servers: accounts as old as their servers, and settings that are read back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;

use std::sync::Arc;

use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use dbmove::mysql::connect::{Purpose, Server, Session};
use dbmove::mysql::error::MysqlError;
use dbmove::mysql::tls::Protection;
use mysql_async::prelude::Queryable;

fn server(of: &LocalServer, user: &str, password: &str) -> Arc<Server> {
    Arc::new(Server {
        role: "source of `school`".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: of.port(),
        user: user.to_owned(),
        password: Some(password.to_owned().into()),
        tls: Protection::Off,
        watched: None,
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
        (Purpose::Read, "ALLOW_INVALID_DATES", "binary"),
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

/// An authority, and a certificate of it for a server of these names: both as PEM files.
fn certificates(directory: &std::path::Path, names: &[&str]) -> [std::path::PathBuf; 3] {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let server = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::create_dir_all(directory).unwrap();
    [("ca.pem", authority_pem), ("server.pem", server.pem()), ("server.key", key.serialize_pem())].map(|(name, pem)| {
        std::fs::write(directory.join(name), pem).unwrap();
        directory.join(name)
    })
}

#[tokio::test]
async fn tls_proves_who_the_server_is() {
    if real::skipped("tls_proves_who_the_server_is", &[ServerKind::Mysql97, ServerKind::Mysql55]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [ca, certificate, key] = certificates(&directory.path().join("right"), &["127.0.0.1"]);
    let [other_ca, other_certificate, other_key] = certificates(&directory.path().join("other"), &["db.example"]);
    let start = async |name: &str, ca: &std::path::Path, certificate: &std::path::Path, key: &std::path::Path| {
        let options = [("ca", ca), ("cert", certificate), ("key", key)]
            .iter()
            .fold(ServerOptions::default(), |options, (what, path)| options.argument(format!("--ssl-{what}={}", path.display())));
        LocalServer::start(ServerKind::Mysql97, &directory.path().join(name), &options).await.unwrap()
    };
    let right = start("server", &ca, &certificate, &key).await;
    let misnamed = start("misnamed", &other_ca, &other_certificate, &other_key).await;
    let open = async |of: &LocalServer, authorities: Option<&std::path::PathBuf>| {
        let tls = Protection::Verified { authorities: authorities.cloned() };
        let server = Server { tls, ..Server::clone(&server(of, "dbmove", "dbmove")) };
        Session::open(&Arc::new(server), Purpose::Read).await
    };

    let mut session = open(&right, Some(&ca)).await.unwrap();
    let cipher = session.first("SHOW SESSION STATUS LIKE 'Ssl_cipher'", "asking how we are protected").await.unwrap().unwrap();
    assert!(cipher[1].as_ref().is_some_and(|cipher| cipher.starts_with("TLS_") || cipher.contains("GCM")), "{cipher:?}");

    // Another authority, the public ones, and the right authority of a server with another name.
    for (of, authorities) in [(&right, Some(&other_ca)), (&right, None), (&misnamed, Some(&other_ca))] {
        let error = open(of, authorities).await.err().expect("nobody vouches for this server");
        assert!(!error.transient(), "would be tried again: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("`ca`")), "{error}: {:?}", error.hint());
    }
    let old = real::shared(ServerKind::Mysql55, false).await;
    let error = open(&old, Some(&ca)).await.err().expect("it has no TLS that is good enough");
    assert!(!error.transient(), "would be tried again: {error}");
    eprintln!("5.5 says: {error}; {:?}", error.hint());
}
