//! Views, routines, triggers and events arrive as they were, or are named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "objects/moving.rs"]
mod moving;
#[path = "objects/pair.rs"]
mod pair;
mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::collections::BTreeSet;

use dbmove::local::ServerKind;
use dbmove::mysql::accounts::left;
use dbmove::mysql::catalog::ObjectKind;
use dbmove::mysql::objects::bring::drop_noted;
use dbmove::mysql::objects::compare::{Compared, compare};
use dbmove::mysql::objects::{AT_THE_SWITCH, BEFORE_THE_ROWS};
use mysql_async::Row;
use mysql_async::prelude::Queryable;
use pair::Pair;

/// Texts in the charsets of whoever wrote them, with characters of which half looks like a quote or a backslash.
const IN_CHARSETS: [(&str, &[u8]); 6] = [
    ("latin1", b"CREATE VIEW `v\xe4` AS SELECT id AS `n\xe4`, '\xe9' AS lit, _utf8'\xc3\xa9' AS other FROM accounts"),
    ("latin1", b"CREATE PROCEDURE `p\xe4`() COMMENT 'c\xe9' SELECT HEX('\xe9') AS h, COLLATION('\xe9') AS c"),
    ("sjis", b"CREATE PROCEDURE `\x83\x60`() COMMENT '\x94\x5c' SELECT HEX('\x83\x5c') AS h, CHARSET('\x83\x5c') AS c"),
    ("sjis", b"CREATE EVENT `\x83\x60` ON SCHEDULE EVERY 1 DAY STARTS '2011-01-01 00:00:00' COMMENT '\x94\x5c' DO SELECT '\x83\x5c'"),
    ("utf8", "CREATE FUNCTION `表;-- ✓`() RETURNS VARCHAR(9) DETERMINISTIC NO SQL COMMENT 'ß✓' RETURN '✓'".as_bytes()),
    ("utf8", "CREATE TRIGGER `表` BEFORE UPDATE ON accounts FOR EACH ROW SET NEW.changed = IF('✓' = '✓', NEW.changed, -1)".as_bytes()),
];

/// As a newer server calls it.
fn new_name(name: &str) -> String {
    match name.strip_prefix("utf8") {
        Some(rest) if rest.is_empty() || rest.starts_with('_') => format!("utf8mb3{rest}"),
        _ => name.to_owned(),
    }
}

async fn arrive_as_they_were(test: &str, kinds: [ServerKind; 2], database: &str) {
    if real::skipped(test, &kinds) {
        return;
    }
    let pair = Pair::new(kinds, database, &IN_CHARSETS, &[]).await;
    let mut bringing = pair.bringing().await;
    let brought = bringing.bring(&BEFORE_THE_ROWS).await.unwrap();
    let there = pair.definitions(&pair.target).await;
    assert!(there.iter().all(|made| BEFORE_THE_ROWS.contains(&made.object.kind)), "{there:#?}");
    // Tried out and gone again: what they do is in the source's log.
    let tried = bringing.try_out(&AT_THE_SWITCH).await.unwrap();
    assert_eq!(pair.definitions(&pair.target).await, there);
    assert_eq!(tried.made, 7, "{tried:?}");
    bringing.bring(&AT_THE_SWITCH).await.unwrap();
    bringing.close().await;

    let (source, target) = (pair.definitions(&pair.source).await, pair.definitions(&pair.target).await);
    assert_eq!(source.len(), 5 + 5 + 3 + 7 - 1, "{source:#?}");
    let names = |list: &[dbmove::mysql::objects::read::Definition]| list.iter().map(|made| made.object.clone()).collect::<Vec<_>>();
    assert_eq!(names(&source), names(&target));
    let to_mysql_8 = kinds[1] == ServerKind::Mysql97;
    let mut modes_left_out = 0;
    for (before, after) in source.iter().zip(&target) {
        let (before, after) = (&before.context, &after.context);
        // A mode that MySQL 8 has no more is left out, and that is named below.
        let gone = |mode: &str| to_mysql_8 && mode == "NO_AUTO_CREATE_USER";
        let kept = |modes: &Option<String>| {
            modes.as_deref().map(|modes| modes.split(',').filter(|mode| !gone(mode)).collect::<Vec<_>>().join(","))
        };
        assert_eq!(kept(&before.sql_mode), after.sql_mode, "{target:#?}");
        modes_left_out += usize::from(kept(&before.sql_mode) != before.sql_mode);
        assert_eq!(before.time_zone, after.time_zone);
        assert_eq!(new_name(&before.client), new_name(&after.client));
        assert_eq!(new_name(&before.connection), new_name(&after.connection));
        assert_eq!(before.database.as_deref().map(new_name), after.database.as_deref().map(new_name));
    }
    let enabled =
        target.iter().filter(|made| made.object.kind == ObjectKind::Event && String::from_utf8_lossy(&made.statement).contains(" ENABLE"));
    assert_eq!(enabled.count(), 0, "an event runs before the switch");

    // They do what they did, with the same bytes.
    let (mut old, mut new) = (pair.on_source().await, pair.on_target().await);
    new.query_drop("INSERT INTO accounts (id, login) VALUES (1, 'one'), (2, 'two'), (3, 'three')").await.unwrap();
    new.query_drop("DELETE FROM audit").await.unwrap();
    for query in [
        "SELECT * FROM a_on_view_on_view ORDER BY id",
        "SELECT COUNT(*) FROM `of ``nobody`",
        "SELECT `nä`, HEX(lit), CHARSET(lit), COLLATION(lit), HEX(other), CHARSET(other) = 'binary' FROM `vä` ORDER BY 1",
        "SELECT `表;-- ✓`()",
        "CALL `odd \" name`('x')",
        "CALL backslash()",
        "CALL `pä`()",
        "CALL `チ`()",
        "SELECT ROUTINE_NAME, ROUTINE_COMMENT FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() ORDER BY 1",
        "SELECT EVENT_NAME, EVENT_COMMENT FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE() ORDER BY 1",
    ] {
        let rows = |rows: Vec<Row>| rows.into_iter().map(Row::unwrap).collect::<Vec<_>>();
        let before = rows(old.query(query).await.unwrap_or_else(|error| panic!("{query}: {error}")));
        let after = rows(new.query(query).await.unwrap_or_else(|error| panic!("{query}: {error}")));
        assert!(!before.is_empty());
        assert_eq!(before, after, "{query}");
    }

    // Every change is named: the definer that is nowhere, those that are not on the target.
    let changes = brought.changes.iter().chain(&tried.changes).cloned().collect::<Vec<_>>();
    assert!(changes.iter().any(|line| line.contains(&format!("view `{database}.of `nobody`: definer: left@long.ago"))), "{changes:#?}");
    let of_mode = |line: &&String| line.contains(": sql-mode: ");
    assert_eq!(changes.iter().filter(of_mode).count(), modes_left_out, "{changes:#?}");
    let unexpected: Vec<_> = changes.iter().filter(|line| !line.contains(": definer: ") && !of_mode(line)).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");

    // Nobody has touched them; then somebody does, and each is named.
    let described = &pair.described;
    assert_eq!(compare(&pair.store, described).await.unwrap(), Compared { objects: 19, differences: Vec::new() });
    for statement in [
        "CREATE OR REPLACE DEFINER = 'admin'@'%' VIEW z_base AS SELECT id, login, id + id AS twice FROM accounts",
        "DROP TRIGGER after_update",
        "CREATE PROCEDURE added() SELECT 1",
        "ALTER DEFINER = 'admin'@'%' EVENT sleeping COMMENT 'changed'",
    ] {
        new.query_drop(statement).await.unwrap();
    }
    let lines: Vec<String> = compare(&pair.store, described).await.unwrap().differences.iter().map(|found| found.line()).collect();
    for (object, how) in [
        ("z_base` view", "has to be"),
        ("after_update` trigger", "is missing"),
        ("added` procedure", "on the target only"),
        ("sleeping` event", "has to be"),
    ] {
        assert!(lines.iter().any(|line| line.contains(object) && line.contains(how)), "{object}: {lines:#?}");
    }
    assert_eq!(lines.len(), 4, "{lines:#?}");
    new.query_drop("DROP PROCEDURE added").await.unwrap();

    // Undone without a trace.
    drop_noted(&pair.store, &AT_THE_SWITCH).await.unwrap();
    assert_eq!(pair.definitions(&pair.target).await.iter().map(|made| made.object.kind).collect::<BTreeSet<_>>(), BEFORE_THE_ROWS.into());
    drop_noted(&pair.store, &BEFORE_THE_ROWS).await.unwrap();
    assert_eq!(pair.definitions(&pair.target).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_55_to_97() {
    arrive_as_they_were("from_55_to_97", [ServerKind::Mysql55, ServerKind::Mysql97], "objects_55_97").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_mariadb_to_mariadb() {
    arrive_as_they_were("from_mariadb_to_mariadb", [ServerKind::MariaDb, ServerKind::MariaDb], "objects_mariadb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_mariadb_to_97() {
    arrive_as_they_were("from_mariadb_to_97", [ServerKind::MariaDb, ServerKind::Mysql97], "objects_mariadb_97").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_56_to_97() {
    arrive_as_they_were("from_56_to_97", [ServerKind::Mysql56, ServerKind::Mysql97], "objects_56_97").await;
}

/// What can't be created is named with the server's words, all of it at once, and a name can be left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_target_refuses_is_named() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("what_the_target_refuses_is_named", &kinds) {
        return;
    }
    let more: [(&str, &[u8]); 3] = [
        ("utf8", b"CREATE VIEW secret AS SELECT id, PASSWORD(login) AS p FROM accounts"),
        ("utf8", b"CREATE VIEW on_secret AS SELECT p FROM secret"),
        ("utf8", b"CREATE VIEW on_nothing AS SELECT id FROM accounts"),
    ];
    let pair = Pair::new(kinds, "objects_refused", &more, &["on_nothing"]).await;
    assert!(pair.described.schema.not_carried.is_empty(), "{:?}", pair.described.schema.not_carried);
    let mut bringing = pair.bringing().await;
    let error = bringing.bring(&BEFORE_THE_ROWS).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("2 objects can't be created on the target; the others stand:"), "{text}");
    assert!(text.contains("view `objects_refused.secret`:") && text.contains("near '(`accounts`.`login`)"), "{text}");
    assert!(text.contains("view `objects_refused.on_secret`:"), "{text}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("exclude: [\"objects_refused."), "{hint}");
    // Somebody else's view is not replaced.
    let mut conn = pair.on_target().await;
    drop_noted(&pair.store, &BEFORE_THE_ROWS).await.unwrap();
    conn.query_drop("CREATE VIEW z_base AS SELECT 5 AS five").await.unwrap();
    let error = bringing.bring(&BEFORE_THE_ROWS).await.unwrap_err();
    assert!(error.to_string().contains("view `objects_refused.z_base` is on the target already"), "{error}");
    assert_eq!(conn.query_first::<u32, _>("SELECT five FROM z_base").await.unwrap(), Some(5));
}

/// Who could not log in after the switch is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_that_the_target_lacks_are_named() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("accounts_that_the_target_lacks_are_named", &kinds) {
        return;
    }
    let pair = Pair::new(kinds, "objects_accounts", &[], &[]).await;
    pair.on_source().await.query_drop("GRANT SELECT ON objects_accounts.* TO 'tea`cher'@'10.%' IDENTIFIED BY 'secret'").await.unwrap();
    let lines = left(&pair.store).await.unwrap();
    let named = |name: &str| lines.iter().any(|line| line.starts_with(&format!("account `{name}` is not on the target")));
    assert!(named("tea`cher@10.%"), "{lines:#?}");
    assert!(!named("app@%") && !named("dbmove@%") && !lines.concat().contains("root@"), "{lines:#?}");
}
