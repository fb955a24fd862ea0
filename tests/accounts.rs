//! Accounts arrive with what the target allows, and everything else about them is named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "objects/pair.rs"]
mod pair;
mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use dbmove::local::{Account, LocalServer, ServerKind};
use dbmove::mysql::accounts::bring::{Bringing, Brought, drop_noted};
use dbmove::mysql::accounts::compare::compare;
use dbmove::mysql::accounts::{AccountName, planned, read};
use dbmove::mysql::objects::BEFORE_THE_ROWS;
use dbmove::mysql::objects::bring::drop_noted as drop_objects;
use dbmove::mysql::store::StoreSettings;
use dbmove::playbook::model::{AccountsOption, Template};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use pair::{EPOCH, Pair, server};
use world::{World, code, connect, said};

/// A name that has all that quoting has to withstand, within the 16 characters of an old server.
const HOSTILE: &str = "a`b'c\"d e%_\\";
/// Where tests come from, as a netmask.
const LOOPBACK: &str = "127.0.0.0/255.0.0.0";

/// Accounts of the source; `DB` is the database that moves. Every statement runs on 5.5 and on MariaDB.
const ACCOUNTS: [&str; 27] = [
    "CREATE USER 'a`b\\'c\"d e%_\\\\'@'127.0.0.0/255.0.0.0' IDENTIFIED BY 'hostile secret'",
    "GRANT SELECT (id, login), UPDATE (login) ON `DB`.accounts TO 'a`b\\'c\"d e%_\\\\'@'127.0.0.0/255.0.0.0'",
    "GRANT EXECUTE ON PROCEDURE `DB`.audited TO 'a`b\\'c\"d e%_\\\\'@'127.0.0.0/255.0.0.0' WITH GRANT OPTION",
    "GRANT EXECUTE ON FUNCTION `DB`.doubled TO 'a`b\\'c\"d e%_\\\\'@'127.0.0.0/255.0.0.0'",
    "GRANT SELECT ON `DB`.b_on_view TO 'a`b\\'c\"d e%_\\\\'@'127.0.0.0/255.0.0.0'",
    "GRANT ALL PRIVILEGES ON `PATTERN`.* TO 'wild'@'%' IDENTIFIED BY 'w' REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 1000 MAX_USER_CONNECTIONS 3",
    "GRANT SELECT, INSERT ON `DB`.* TO 'cert'@'%' IDENTIFIED BY 'c' REQUIRE SUBJECT '/C=x\\'y' AND ISSUER 'z'",
    "GRANT SELECT, RELOAD, SHUTDOWN, PROCESS, FILE, SUPER ON *.* TO 'sup'@'%' IDENTIFIED BY 's' WITH GRANT OPTION",
    "CREATE USER ''@'10.0.0.1'",
    "GRANT SELECT ON `DB`.* TO ''@'10.0.0.1'",
    "CREATE USER 'nopass'@'%'",
    "GRANT SELECT ON `DB`.* TO 'nopass'@'%'",
    "GRANT SELECT ON `DB_other`.* TO 'elsewhere'@'%' IDENTIFIED BY 'e'",
    "GRANT SELECT ON `DB`.* TO 'mixed'@'%' IDENTIFIED BY 'm'",
    "GRANT INSERT ON `DB_other`.* TO 'mixed'@'%'",
    "GRANT SELECT (b) ON `DB_other`.t TO 'mixed'@'%'",
    "GRANT INSERT, SELECT, DELETE ON `DB`.audit TO 'given'@'%' IDENTIFIED BY 'another'",
    "GRANT PROCESS, REPLICATION CLIENT ON *.* TO 'monitor'@'%' IDENTIFIED BY 'm'",
    "CREATE USER 'definer'@'%' IDENTIFIED BY 'd'",
    "CREATE DEFINER='definer'@'%' SQL SECURITY DEFINER VIEW `DB`.belongs AS SELECT id, login FROM `DB`.accounts",
    "GRANT SELECT ON `DB`.accounts TO 'definer'@'%'",
    "GRANT SELECT ON `DB`.belongs TO 'mixed'@'%'",
    "GRANT SELECT ON `DB`.* TO 'there'@'%' IDENTIFIED BY 't' WITH GRANT OPTION",
    "CREATE USER 'ü✓'@'%' IDENTIFIED BY 'u'",
    "GRANT SHOW VIEW, LOCK TABLES ON `DB`.* TO 'ü✓'@'%' WITH GRANT OPTION",
    "GRANT SELECT ON `DB`.* TO 'acting'@'%' IDENTIFIED BY 'a'",
    "INSERT INTO mysql.proxies_priv (Host, User, Proxied_host, Proxied_user, With_grant, Grantor) VALUES ('%', 'acting', '%', 'mixed', 1, '')",
];

fn settings(accounts: AccountsOption) -> StoreSettings {
    // cargo sets this variable; tests can set none.
    let given = Template("${env:CARGO_PKG_NAME}".to_owned());
    let passwords = BTreeMap::from([("given@%".to_owned(), given)]);
    StoreSettings { accounts, passwords, ..StoreSettings::default() }
}

async fn login(server: &LocalServer, user: &str, password: &str) -> Result<Conn, mysql_async::Error> {
    let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(server.port());
    Conn::new(options.user(Some(user)).pass(Some(password)).prefer_socket(false)).await
}

fn number(error: &mysql_async::Error) -> u16 {
    match error {
        mysql_async::Error::Server(error) => error.code,
        other => panic!("{other}"),
    }
}

/// The server refuses this statement for want of a privilege.
async fn denied(conn: &mut Conn, statement: &str) {
    let error = conn.query_drop(statement).await.expect_err(statement);
    assert!(matches!(number(&error), 1044 | 1142 | 1143 | 1227 | 1370), "{statement}: {error}");
}

async fn bring(pair: &Pair) -> Brought {
    let mut moving = Bringing::open(&pair.store, &pair.described, EPOCH).await.unwrap();
    moving.create().await.unwrap();
    let mut objects = pair.bringing().await;
    objects.bring(&BEFORE_THE_ROWS).await.unwrap();
    objects.close().await;
    moving.grant().await.unwrap()
}

async fn accounts_of(pair: &Pair, of: &LocalServer) -> BTreeMap<AccountName, String> {
    let server = std::sync::Arc::new(server(of, "server", Account::Root));
    let accounts = read::accounts(&server).await.unwrap().accounts;
    let _ = &pair.database;
    accounts
        .into_iter()
        .map(|(name, account)| (name, format!("{:?} {:?} {:?}", account.grants, account.requires, account.limits)))
        .collect()
}

/// Databases, a source full of accounts, a target that has one of them.
async fn filled(kinds: [ServerKind; 2], database: &str, option: AccountsOption) -> Pair {
    // The catalog is read when the pair is made, so the view that belongs to an account has to be there.
    let source = real::shared(kinds[0], false).await;
    let mut conn = real::connect(&source, Account::Root).await;
    conn.query_drop(format!("CREATE DATABASE {database}_other")).await.unwrap();
    conn.query_drop(format!("CREATE TABLE {database}_other.t (a INT PRIMARY KEY, b INT)")).await.unwrap();
    let pattern = database.replace('_', "\\\\_").replacen("moves", "%", 1);
    let statements: Vec<String> =
        ACCOUNTS.iter().map(|text| text.replace("PATTERN", &pattern.replace("\\\\", "\\")).replace("DB", database)).collect();
    let view = statements.iter().position(|text| text.contains("VIEW") && text.starts_with("CREATE DEFINER")).unwrap();
    let more = [("utf8", statements[view - 1].as_bytes()), ("utf8", statements[view].as_bytes())];
    let pair = Pair::with(kinds, database, &more, &[], settings(option)).await;
    conn.query_drop("SET NAMES utf8").await.unwrap();
    for (at, statement) in statements.iter().enumerate().filter(|(at, _)| *at != view && *at != view - 1) {
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{at} {statement}: {error}"));
    }
    conn.query_drop("FLUSH PRIVILEGES").await.unwrap();
    let mut target = real::connect(&pair.target, Account::Root).await;
    target.query_drop("CREATE USER 'there'@'%' IDENTIFIED BY 'made by hand'").await.unwrap();
    target.query_drop(format!("GRANT SELECT ON {database}.* TO 'there'@'%'")).await.unwrap();
    pair
}

fn has(lines: &[String], words: &[&str]) -> bool {
    lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
}

/// What holds on every target.
async fn judged(pair: &Pair, brought: &Brought, before: &BTreeMap<AccountName, String>) {
    let database = &pair.database;
    for (account, why) in [
        ("root@", "of the server itself"),
        ("dbmove@%", "dbmove itself connects as this user"),
        ("@10.0.0.1", "anonymous"),
        ("elsewhere@%", "it has no privilege on what moves"),
        ("monitor@%", "about the server"),
        ("there@%", "was on the target before this run and is left as it is: it lacks GRANT OPTION on"),
        ("app@%", "was on the target before this run and is left as it is"),
    ] {
        assert!(has(&brought.left, &[&format!("account `{account}"), why]), "{account}: {:#?}", brought.left);
    }
    for words in [
        ["account `mixed@%`", "stays: INSERT on", "_other`.* → left out: it means no database that moves"],
        ["account `mixed@%`", "stays: SELECT on", "`t`.`b` → left out: it does not move"],
        ["account `acting@%`", "proxy: GRANT OPTION, PROXY on account `mixed`@`%`", "may not grant it"],
        ["account `sup@%`", "FILE, RELOAD, SHUTDOWN", "may not grant it"],
        ["account `nopass@%`", "password: it has no password on the source", "locked"],
        ["account `given@%`", "password:", "as the playbook gives it"],
    ] {
        assert!(has(&brought.changes, &words), "{words:?}: {:#?}", brought.changes);
    }
    assert!(
        has(&brought.passwords, &["ALTER USER `nopass`@`%` IDENTIFIED BY '<new password>' ACCOUNT UNLOCK"]),
        "{:#?}",
        brought.passwords
    );

    // Nothing differs from what has to be there, and nothing that was there has changed.
    let found = compare(&pair.store).await.unwrap();
    assert_eq!((found.accounts, found.differences.clone()), (brought.standing, Vec::new()));
    assert!(found.outside.iter().any(|outside| outside.object == "account there@%"), "{:?}", found.outside);
    let after = accounts_of(pair, &pair.target).await;
    for (name, was) in before {
        assert_eq!(after.get(name), Some(was), "{name}");
    }
    let created: BTreeSet<String> = after.keys().filter(|name| !before.contains_key(*name)).map(ToString::to_string).collect();
    let hostile = format!("{HOSTILE}@{LOOPBACK}");
    let expected = [hostile.as_str(), "wild@%", "cert@%", "sup@%", "nopass@%", "mixed@%", "given@%", "definer@%", "ü✓@%", "acting@%"];
    let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
    let created: BTreeSet<String> = created.into_iter().filter(|name| name != "oldie@%").collect();
    assert_eq!(created, expected);

    // Another's view belongs to whom it belonged to.
    let mut root = real::connect(&pair.target, Account::Root).await;
    let query = format!("SELECT DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = 'belongs'");
    // On such a MariaDB nobody may name another definer; the object's own line says so.
    let definer = if pair.target.kind() == ServerKind::MariaDb { "admin@%" } else { "definer@%" };
    assert_eq!(root.query_first::<String, _>(query).await.unwrap().as_deref(), Some(definer));
    let row: (String, u32, u32) = root
        .query_first("SELECT ssl_type, max_questions, max_user_connections FROM mysql.user WHERE User = 'wild'")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row, ("ANY".to_owned(), 1000, 3));
    let row: (String, Vec<u8>, Vec<u8>) =
        root.query_first("SELECT ssl_type, x509_issuer, x509_subject FROM mysql.user WHERE User = 'cert'").await.unwrap().unwrap();
    assert_eq!(row, ("SPECIFIED".to_owned(), b"z".to_vec(), b"/C=x'y".to_vec()));

    // By the password of the playbook.
    assert_eq!(number(&login(&pair.target, "given", "another").await.unwrap_err()), 1045);
    let mut given = login(&pair.target, "given", "dbmove").await.unwrap();
    given.query_drop(format!("INSERT INTO {database}.audit (account, what) VALUES (1, 'given')")).await.unwrap();
    denied(&mut given, &format!("SELECT * FROM {database}.accounts")).await;
    denied(&mut given, &format!("UPDATE {database}.audit SET what = 'x'")).await;
    // Without one, nobody.
    for password in ["", "dbmove"] {
        let error = login(&pair.target, "nopass", password).await.unwrap_err();
        assert!(matches!(number(&error), 1045 | 3118 | 4151), "{error}");
    }
}

/// The account with the hostile name may do what it could, and nothing else.
async fn hostile_does_what_it_may(pair: &Pair, password: &str) {
    let database = &pair.database;
    let mut hostile = login(&pair.target, HOSTILE, password).await.unwrap();
    for statement in [
        format!("SELECT id, login FROM {database}.accounts"),
        format!("UPDATE {database}.accounts SET login = 'x' WHERE id = 1"),
        format!("CALL {database}.audited(0)"),
        format!("SELECT {database}.doubled(2)"),
        format!("SELECT * FROM {database}.b_on_view"),
    ] {
        hostile.query_drop(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    for statement in [
        format!("SELECT changed FROM {database}.accounts"),
        format!("UPDATE {database}.accounts SET changed = 1"),
        format!("DELETE FROM {database}.accounts"),
        format!("SELECT * FROM {database}.z_base"),
        format!("SELECT * FROM {database}.audit"),
        format!("CALL {database}.backslash()"),
        "CREATE DATABASE of_hostile".to_owned(),
    ] {
        denied(&mut hostile, &statement).await;
    }
}

/// Told by hand to come in, as the lines say.
async fn unlocked(pair: &Pair, brought: &Brought, user: &str, password: &str) {
    let line = brought.passwords.iter().find(|line| line.starts_with(&format!("ALTER USER `{}`", user.replace('`', "``")))).unwrap();
    let statement = line.split(" -- ").next().unwrap().replace("<new password>", password);
    let mut admin = Conn::new(pair.target.connect_options(Account::Admin, None)).await.unwrap();
    admin.query_drop("SET NAMES utf8").await.unwrap();
    admin.query_drop(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Each way to spoil an account is found and named.
async fn spoilt_and_found(pair: &Pair) {
    let database = &pair.database;
    let mut root = real::connect(&pair.target, Account::Root).await;
    for (statement, named, back) in [
        (
            format!("REVOKE SELECT ON {database}.* FROM mixed@'%'"),
            format!("`mixed@%` grant on `{database}`.*: is missing on the target, has to be SELECT"),
            format!("GRANT SELECT ON {database}.* TO mixed@'%'"),
        ),
        (
            format!("GRANT DROP ON {database}.* TO mixed@'%'"),
            format!("`mixed@%` grant on `{database}`.*: is DROP, SELECT on the target, has to be SELECT"),
            format!("REVOKE DROP ON {database}.* FROM mixed@'%'"),
        ),
        (
            format!("REVOKE UPDATE (login) ON {database}.accounts FROM `a``b'c\"d e%_\\`@'{LOOPBACK}'"),
            format!("grant on `{database}`.`accounts`.`login`: is SELECT on the target, has to be SELECT, UPDATE"),
            format!("GRANT UPDATE (login) ON {database}.accounts TO `a``b'c\"d e%_\\`@'{LOOPBACK}'"),
        ),
        (
            "ALTER USER wild@'%' REQUIRE NONE".to_owned(),
            "`wild@%` REQUIRE: is NONE on the target, has to be SSL".to_owned(),
            "ALTER USER wild@'%' REQUIRE SSL".to_owned(),
        ),
        (
            "RENAME USER given@'%' TO taken@'%'".to_owned(),
            "`given@%` account: is missing on the target".to_owned(),
            "RENAME USER taken@'%' TO given@'%'".to_owned(),
        ),
    ] {
        root.query_drop(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        let found: Vec<String> = compare(&pair.store).await.unwrap().differences.iter().map(|found| found.line()).collect();
        assert!(found.len() == 1 && found[0].contains(&named), "{statement}: not {named}: {found:#?}");
        root.query_drop(&back).await.unwrap_or_else(|error| panic!("{back}: {error}"));
        assert_eq!(compare(&pair.store).await.unwrap().differences, [], "{back}");
    }
}

/// What changes on the source is brought over the second time; a routine that is replaced keeps its grants.
async fn brought_again(pair: &Pair) {
    let database = &pair.database;
    let mut source = pair.on_source().await;
    for statement in [
        format!("GRANT UPDATE ON {database}.audit TO 'given'@'%'"),
        format!("REVOKE DELETE ON {database}.audit FROM 'given'@'%'"),
        format!("GRANT SELECT ON {database}.* TO 'late'@'%' IDENTIFIED BY 'l'"),
        "DROP USER 'cert'@'%'".to_owned(),
        "DROP PROCEDURE audited".to_owned(),
        "CREATE PROCEDURE audited(IN n INT) SELECT n AS again".to_owned(),
        format!("GRANT EXECUTE ON PROCEDURE {database}.audited TO 'a`b\\'c\"d e%_\\\\'@'{LOOPBACK}' WITH GRANT OPTION"),
    ] {
        source.query_drop(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    // That is no difference before it is brought over.
    assert_eq!(compare(&pair.store).await.unwrap().differences, []);
    let again = bring(pair).await;
    assert_eq!((again.made, again.dropped), (1, 1), "{again:#?}");
    let there = accounts_of(pair, &pair.target).await;
    let of = |user: &str| there.get(&AccountName { user: user.to_owned(), host: "%".to_owned() }).cloned();
    assert_eq!(of("cert"), None);
    assert!(of("late").unwrap().contains("SELECT"));
    assert!(of("given").unwrap().contains(r#"{"INSERT", "SELECT", "UPDATE"}"#), "{:?}", of("given"));
    let hostile = &there[&AccountName { user: HOSTILE.to_owned(), host: LOOPBACK.to_owned() }];
    assert!(hostile.contains(r#"Procedure("#) && hostile.contains(r#"{"EXECUTE", "GRANT OPTION"}"#), "{hostile}");
    assert_eq!(compare(&pair.store).await.unwrap().differences, []);
    // And once more nothing is done.
    let third = bring(pair).await;
    assert_eq!((third.made, third.dropped), (0, 0));
    // An account that the playbook has a password for goes: it goes on the target too, and nothing stops.
    source.query_drop("DROP USER 'given'@'%'").await.unwrap();
    let fourth = bring(pair).await;
    assert_eq!((fourth.made, fourth.dropped), (0, 1), "{fourth:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_55_to_rds_97() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("from_55_to_rds_97", &kinds) {
        return;
    }
    let pair = filled(kinds, "moves_a_school", AccountsOption::Move).await;
    let mut source = pair.on_source().await;
    for statement in
        ["CREATE USER 'oldie'@'%'", "GRANT SELECT ON moves_a_school.* TO 'oldie'@'%'", "SET PASSWORD FOR 'oldie'@'%' = OLD_PASSWORD('o')"]
    {
        source.query_drop(statement).await.unwrap();
    }
    let before = accounts_of(&pair, &pair.target).await;
    let (lines, warnings) = planned(&pair.store).await.unwrap();
    assert!(has(&lines, &["create account `mixed@%`"]) && has(&warnings, &["monitor@%", "does not move"]), "{lines:#?}{warnings:#?}");
    assert_eq!(accounts_of(&pair, &pair.target).await, before, "planning changed something");
    let brought = bring(&pair).await;
    judged(&pair, &brought, &before).await;
    for words in [
        ["account `wild@%`", "pattern: ", "on `moves_a_school`.*"],
        ["account `sup@%`", "super: SUPER on *.*", "SET_ANY_DEFINER"],
        ["account `oldie@%`", "password:", "16 characters"],
        ["account `mixed@%`", "password: the target has no `mysql_native_password`", "locked"],
    ] {
        assert!(has(&brought.changes, &words), "{words:?}: {:#?}", brought.changes);
    }
    // No hash of the source is said anywhere.
    let hashes: Vec<String> = source.query("SELECT Password FROM mysql.user WHERE LENGTH(Password) > 0").await.unwrap();
    let all = format!("{brought:?}{warnings:?}{lines:?}");
    assert!(hashes.len() > 8 && hashes.iter().all(|hash| !all.contains(hash.as_str())), "{all}");

    for (user, password) in [(HOSTILE, "hostile secret"), ("mixed", "m"), ("sup", "s")] {
        let error = login(&pair.target, user, password).await.unwrap_err();
        assert!(matches!(number(&error), 1045 | 3118), "{user}: {error}");
        unlocked(&pair, &brought, user, "New-9-password").await;
    }
    hostile_does_what_it_may(&pair, "New-9-password").await;
    let mut sup = login(&pair.target, "sup", "New-9-password").await.unwrap();
    sup.query_drop("SHOW PROCESSLIST").await.unwrap();
    sup.query_drop("SELECT * FROM moves_a_school.accounts").await.unwrap();
    denied(&mut sup, "SET GLOBAL max_connections = 100").await;
    denied(&mut sup, "SHUTDOWN").await;
    let mut mixed = login(&pair.target, "mixed", "New-9-password").await.unwrap();
    assert_eq!(mixed.query::<u32, _>("SELECT id FROM moves_a_school.belongs LIMIT 1").await.unwrap().len(), 0);

    spoilt_and_found(&pair).await;
    brought_again(&pair).await;
    // A password that its owner has set stays.
    hostile_does_what_it_may_again(&pair).await;

    undone(&pair, &before).await;
}

/// After a second bringing the account still opens with its owner's password.
async fn hostile_does_what_it_may_again(pair: &Pair) {
    let mut hostile = login(&pair.target, HOSTILE, "New-9-password").await.unwrap();
    let database = &pair.database;
    hostile.query_drop(format!("CALL {database}.audited(0)")).await.unwrap();
}

/// Undo leaves what was there, and nothing else.
async fn undone(pair: &Pair, before: &BTreeMap<AccountName, String>) {
    drop_objects(&pair.store, &BEFORE_THE_ROWS).await.unwrap();
    assert_eq!(drop_noted(&pair.store).await.unwrap(), Vec::<String>::new());
    assert_eq!(accounts_of(pair, &pair.target).await, *before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_mariadb_to_mariadb() {
    let kinds = [ServerKind::MariaDb, ServerKind::MariaDb];
    if real::skipped("from_mariadb_to_mariadb", &kinds) {
        return;
    }
    let pair = filled(kinds, "moves_a_school", AccountsOption::Move).await;
    let mut source = pair.on_source().await;
    for statement in [
        "CREATE ROLE readers",
        "GRANT SELECT ON moves_a_school.* TO readers",
        "GRANT readers TO 'mixed'@'%'",
        "ALTER USER 'wild'@'%' ACCOUNT LOCK",
        "GRANT BINLOG MONITOR, DELETE HISTORY ON *.* TO 'sup'@'%'",
    ] {
        source.query_drop(statement).await.unwrap();
    }
    let before = accounts_of(&pair, &pair.target).await;
    let brought = bring(&pair).await;
    judged(&pair, &brought, &before).await;
    assert!(has(&brought.left, &["account `readers@`", "it is a role"]), "{:#?}", brought.left);
    assert!(has(&brought.changes, &["account `mixed@%`", "role: the role readers"]), "{:#?}", brought.changes);
    // Passwords come along as they are.
    hostile_does_what_it_may(&pair, "hostile secret").await;
    assert_eq!(number(&login(&pair.target, HOSTILE, "another").await.unwrap_err()), 1045);
    let mut sup = login(&pair.target, "sup", "s").await.unwrap();
    sup.query_drop("SELECT * FROM moves_a_school.accounts").await.unwrap();
    denied(&mut sup, "SET GLOBAL max_connections = 100").await;
    login(&pair.target, "ü✓", "u").await.unwrap();
    let locked = "SELECT JSON_VALUE(Priv, '$.account_locked') FROM mysql.global_priv WHERE User = 'wild'";
    let mut root = real::connect(&pair.target, Account::Root).await;
    assert_eq!(root.query_first::<String, _>(locked).await.unwrap().as_deref(), Some("1"), "it is locked on the source");
    spoilt_and_found(&pair).await;
    source.query_drop("SET PASSWORD FOR 'mixed'@'%' = PASSWORD('changed since')").await.unwrap();
    brought_again(&pair).await;
    login(&pair.target, "mixed", "changed since").await.unwrap();
    undone(&pair, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_of_nobody_is_refused_before_anything_is_created() {
    let kinds = [ServerKind::Mysql56, ServerKind::Mysql97];
    if real::skipped("a_password_of_nobody_is_refused_before_anything_is_created", &kinds) {
        return;
    }
    let pair = Pair::with(kinds, "accounts_nobody", &[], &[], settings(AccountsOption::Move)).await;
    let Err(error) = Bringing::open(&pair.store, &pair.described, EPOCH).await else { panic!("it was taken") };
    assert!(error.to_string().contains("names `given@%`, and no account of that name moves"), "{error}");
}

/// The tables of accounts have other columns in every version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_server_is_read() {
    let kinds = [ServerKind::Mysql559, ServerKind::Mysql5614, ServerKind::Mysql56];
    if real::skipped("every_kind_of_server_is_read", &kinds) {
        return;
    }
    for kind in kinds {
        let server = std::sync::Arc::new(server(&*real::shared(kind, false).await, "server", Account::Root));
        let accounts = read::accounts(&server).await.unwrap().accounts;
        let of = |user: &str| accounts.get(&AccountName { user: user.to_owned(), host: "%".to_owned() }).unwrap();
        let app = format!("{:?}", of("app").grants);
        let expected =
            r#"{Server: {"CREATE TEMPORARY TABLES", "DELETE", "EXECUTE", "INSERT", "LOCK TABLES", "SELECT", "SHOW VIEW", "UPDATE"}}"#;
        assert_eq!(app, expected, "{kind}");
        let dbmove = format!("{:?}", of("dbmove").grants);
        assert!(["SUPER", "GRANT OPTION", "CREATE TABLESPACE", "SHOW DATABASES"].iter().all(|word| dbmove.contains(word)), "{dbmove}");
    }
}

/// Killed wherever it hurts, the run comes to the same end; what it says is in the report, and no secret is anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_program_killed_and_driven_on() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("the_whole_program_killed_and_driven_on", &kinds) {
        return;
    }
    let world = World::start(kinds[0], kinds[1], 0.01).await;
    let mut source = connect(&world.source, Account::Root).await;
    for statement in [
        "GRANT SELECT, INSERT ON school.* TO 'teacher'@'%' IDENTIFIED BY 'hidden-of-teacher'",
        "GRANT SELECT ON school.* TO 'pupil'@'%' IDENTIFIED BY 'hidden-of-pupil'",
        "GRANT FILE ON *.* TO 'pupil'@'%'",
        "GRANT SELECT (id) ON school.students TO 'guest'@'%' IDENTIFIED BY 'hidden-of-guest'",
    ] {
        source.query_drop(statement).await.unwrap();
    }
    let hashes: Vec<String> = source.query("SELECT Password FROM mysql.user WHERE User IN ('teacher', 'pupil', 'guest')").await.unwrap();
    let moving = "    accounts: move\n    passwords: { \"teacher@%\": \"${env:DBMOVE_TEST_TEACHER}\" }\n    include:";
    let text = world.playbook_text("30s").replace("    include:", moving);
    std::fs::write(world.playbook(), &text).unwrap();
    let playbook = world.playbook_argument();
    let driven = |words: &[&str], crash: Option<&str>| {
        let mut command = world.dbmove(words);
        command.env("DBMOVE_TEST_TEACHER", "Given-to-teacher-1");
        if let Some(point) = crash {
            command.env("DBMOVE_CRASH_AT", point);
        }
        async move { command.output().await.unwrap() }
    };
    let run = ["--yes", "run", &playbook, "--no-follow"];
    for point in ["accounts.noted#2", "accounts.created#2", "accounts.created", "accounts.granted#2"] {
        let output = driven(&run, Some(point)).await;
        assert_eq!(code(&output), -9, "{point}: {}", said(&output));
    }
    let ran = driven(&run, None).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let words = said(&ran);
    assert!(words.contains("account `pupil@%`: not-granted: FILE on *.*"), "{words}");
    let report = driven(&["report", "--json"], None).await;
    let report = String::from_utf8(report.stdout).unwrap();
    for expected in [
        "ALTER USER `pupil`@`%` IDENTIFIED BY '<new password>' ACCOUNT UNLOCK",
        "account `app@%` was on the target before this run",
        "account `pupil@%`: not-granted: FILE on *.*",
    ] {
        assert!(report.contains(expected), "{expected}\n{report}");
    }
    let mut teacher = login(&world.target, "teacher", "Given-to-teacher-1").await.unwrap();
    teacher.query_drop("SELECT COUNT(*) FROM school.students").await.unwrap();
    denied(&mut teacher, "DELETE FROM school.students").await;

    let verified = driven(&["verify", &playbook], None).await;
    assert_eq!(code(&verified), 0, "{}", said(&verified));
    let mut target = connect(&world.target, Account::Root).await;
    target.query_drop("REVOKE INSERT ON school.* FROM 'teacher'@'%'").await.unwrap();
    target.query_drop("DROP USER 'guest'@'%'").await.unwrap();
    let verified = driven(&["verify", &playbook], None).await;
    let words = said(&verified);
    assert_eq!(code(&verified), 3, "{words}");
    for expected in [
        "`teacher@%` grant on `school`.*: is SELECT on the target, has to be INSERT, SELECT",
        "`guest@%` account: is missing on the target",
    ] {
        assert!(words.contains(expected), "{expected}\n{words}");
    }
    // Put back by hand, as the report says; then through the switch, with an account that was created meanwhile.
    target.query_drop("GRANT INSERT ON school.* TO 'teacher'@'%'").await.unwrap();
    target.query_drop("CREATE USER 'guest'@'%' IDENTIFIED BY 'x'").await.unwrap();
    target.query_drop("GRANT SELECT (id) ON school.students TO 'guest'@'%'").await.unwrap();
    source.query_drop("GRANT SELECT ON school.* TO 'late'@'%' IDENTIFIED BY 'hidden-of-late'").await.unwrap();
    let cut = driven(&["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of accounts"], None).await;
    assert_eq!(code(&cut), 0, "{}", said(&cut));
    assert!(said(&cut).contains("account `late@%`: password:"), "{}", said(&cut));
    let mut teacher = login(&world.target, "teacher", "Given-to-teacher-1").await.unwrap();
    teacher.query_drop("SELECT COUNT(*) FROM school.students").await.unwrap();

    // Nothing secret in what was said, the journal or the report.
    let mut written = format!("{}{}{}{report}", said(&ran), said(&verified), said(&cut)).into_bytes();
    for entry in std::fs::read_dir(world.state()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            written.extend(std::fs::read(path).unwrap());
        }
    }
    let secrets = hashes.iter().map(String::as_str).chain(["Given-to-teacher-1", "hidden-of-"]);
    for secret in secrets {
        if let Some(at) = written.windows(secret.len()).position(|window| window == secret.as_bytes()) {
            let around = String::from_utf8_lossy(&written[at.saturating_sub(300)..(at + 100).min(written.len())]);
            panic!("`{secret}` was written somewhere: …{around}…");
        }
    }
}

/// What is undone takes its accounts with it, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_leaves_no_account_behind() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("a_rehearsal_leaves_no_account_behind", &kinds) {
        return;
    }
    let world = World::start(kinds[0], kinds[1], 0.01).await.with_rehearsal().await;
    let (source, target) = world.rehearsal.as_ref().unwrap();
    let mut conn = connect(source, Account::Root).await;
    conn.query_drop("GRANT SELECT ON school.* TO 'teacher'@'%' IDENTIFIED BY 't'").await.unwrap();
    conn.query_drop("CREATE DEFINER='teacher'@'%' VIEW school.of_teacher AS SELECT id FROM school.students").await.unwrap();
    let text = world.playbook_text("30s").replace("    include:", "    accounts: move\n    include:");
    std::fs::write(world.playbook(), text).unwrap();
    let held = async || {
        let server = std::sync::Arc::new(server(target, "server", Account::Root));
        let accounts = read::accounts(&server).await.unwrap().accounts;
        accounts.into_iter().map(|(name, account)| (name, format!("{:?}", account.grants))).collect::<BTreeMap<_, _>>()
    };
    let before = held().await;
    let playbook = world.playbook_argument();
    let rehearsed = world.finished(&["--yes", "rehearse", &playbook]).await;
    let words = said(&rehearsed);
    assert_eq!(code(&rehearsed), 0, "{words}");
    assert!(words.contains("account `teacher@%`: password"), "{words}");
    assert_eq!(held().await, before, "{words}");
}
