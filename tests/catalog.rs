//! The catalog on real servers, from 5.5 to 9.7 and MariaDB.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod real;
mod schema;

use dbmove::local::ServerKind;
use dbmove::mysql::catalog::{CascadeEffect, Catalog, ObjectKind, ParentChange, ServerFacts};
use dbmove::mysql::error::MysqlError;
use dbmove::mysql::names::TableName;
use dbmove::mysql::table::{ColumnType, ReferentialAction};
use schema::{catalog_session, load_school, load_types, selection};

const KINDS: [ServerKind; 5] = [ServerKind::Mysql55, ServerKind::Mysql5614, ServerKind::Mysql56, ServerKind::MariaDb, ServerKind::Mysql97];

#[tokio::test]
async fn every_server_shows_the_same_school() {
    for kind in KINDS {
        if real::skipped("every_server_shows_the_same_school", &[kind]) {
            continue;
        }
        let server = real::shared(kind, false).await;
        let mut session = catalog_session(&server).await;
        load_school(&mut session, "same_school").await;
        let catalog = Catalog::read(&mut session, &selection(&["same_school.*"])).await.unwrap();
        let table = |name: &str| catalog.table(&TableName::new("same_school", name)).unwrap().clone();

        assert_eq!(catalog.databases.len(), 1);
        assert_eq!((catalog.databases[0].charset.as_str(), catalog.databases[0].collation.as_str()), ("latin1", "latin1_swedish_ci"));
        let names: Vec<&str> = catalog.tables.keys().map(|name| name.table.as_str()).collect();
        assert_eq!(names, ["accounts", "attempts", "cour`ses", "enrolments", "log", "pages", "submissions", "tokens"], "{kind}");
        let others: Vec<(ObjectKind, &str)> = catalog.others.iter().map(|other| (other.kind, other.name.as_str())).collect();
        assert_eq!(
            others,
            [
                (ObjectKind::View, "graders"),
                (ObjectKind::Procedure, "close_year"),
                (ObjectKind::Trigger, "login_lower"),
                (ObjectKind::Event, "nightly")
            ],
            "{kind}"
        );

        let accounts = table("accounts");
        assert_eq!(accounts.engine, "InnoDB");
        assert_eq!(accounts.auto_increment, Some(1001), "{kind}");
        let id = &accounts.columns[0];
        assert!(id.unsigned && id.auto_increment && !id.nullable && !id.zerofill && id.kind == ColumnType::Int);
        let badge = &accounts.columns[5];
        assert!(badge.unsigned && badge.zerofill && badge.nullable && badge.kind == ColumnType::Int);
        assert_eq!(accounts.columns[3].kind, ColumnType::Decimal { precision: 12, scale: 2 });
        assert_eq!(accounts.columns[6].kind, ColumnType::Timestamp(0));
        assert!(accounts.columns.iter().all(|column| !column.generated), "a default is not a generated column: {kind}");
        assert!(accounts.columns[1].collation.as_deref().unwrap().ends_with("_bin"));
        assert_eq!(accounts.key(), Some(vec![0]));
        assert_eq!(accounts.indexes.iter().map(|index| index.name.as_str()).collect::<Vec<_>>(), ["PRIMARY", "login", "by_name"]);
        assert_eq!(accounts.indexes[2].parts[0].prefix, Some(20), "{kind}");

        let courses = table("cour`ses");
        assert_eq!(courses.columns[1].name, "select");
        assert_eq!(courses.columns[3].kind, ColumnType::Enum);
        assert_eq!(courses.columns[3].type_text, "enum('a','it''s','c,d)','e)')");
        assert_eq!(table("pages").indexes.iter().find(|index| index.name == "words").unwrap().method, "FULLTEXT");
        assert_eq!(table("log").key(), None);
        let tokens = table("tokens");
        assert_eq!(tokens.key_index().unwrap().name, "token");
        assert_eq!(tokens.columns[1].kind, ColumnType::Binary(20));
        assert_eq!(tokens.columns[2].kind, ColumnType::Bit(9));
        assert_eq!(table("attempts").columns[1].kind, ColumnType::Year);

        let enrolments = table("enrolments");
        let keys: Vec<_> = enrolments.foreign_keys.iter().map(|key| (key.name.as_str(), key.on_delete, key.on_update)).collect();
        use ReferentialAction::{Cascade, Restrict, SetNull};
        assert_eq!(
            keys,
            [("enrolment_account", Cascade, Cascade), ("enrolment_course", Restrict, Restrict), ("enrolment_grader", SetNull, Restrict)]
        );
        let deep = &table("submissions").foreign_keys[0];
        assert_eq!((deep.columns.as_slice(), deep.parent_columns.join(",").as_str()), (&[1usize, 2][..], "account_id,course_id"));

        let account = TableName::new("same_school", "accounts");
        let cascades = catalog.cascades(&account, ParentChange::Delete);
        let edges: Vec<_> = cascades.iter().map(|edge| (edge.foreign_key.name.as_str(), edge.effect, edge.depth)).collect();
        assert_eq!(
            edges,
            [
                ("enrolment_account", CascadeEffect::Delete, 1),
                ("enrolment_grader", CascadeEffect::SetNull, 1),
                ("submission_enrolment", CascadeEffect::Delete, 2)
            ],
            "{kind}"
        );
        let order: Vec<&str> = catalog.parents_first().into_iter().map(|table| table.name.table.as_str()).collect();
        let place = |name: &str| order.iter().position(|other| *other == name).unwrap();
        assert!(
            place("accounts") < place("enrolments")
                && place("cour`ses") < place("enrolments")
                && place("enrolments") < place("submissions")
        );
    }
}

#[tokio::test]
async fn the_fingerprint_follows_structure_and_nothing_else() {
    for kind in KINDS {
        if real::skipped("the_fingerprint_follows_structure_and_nothing_else", &[kind]) {
            continue;
        }
        let server = real::shared(kind, false).await;
        let mut session = catalog_session(&server).await;
        load_school(&mut session, "prints").await;
        let selection = selection(&["prints.*"]);
        let first = Catalog::read(&mut session, &selection).await.unwrap();
        let print = first.fingerprint();
        assert_eq!(print.len(), 64);
        session.run("INSERT INTO prints.accounts (login) VALUES ('a'), ('b')", "test").await.unwrap();
        session.run("INSERT INTO prints.pages (title) VALUES ('a')", "test").await.unwrap();
        let again = Catalog::read(&mut session, &selection).await.unwrap();
        assert_eq!(again.fingerprint(), print, "{kind}: rows and counters are not structure");
        let mut seen = vec![print];
        for change in [
            "ALTER TABLE prints.accounts ALTER COLUMN balance SET DEFAULT 5",
            "ALTER TABLE prints.log ADD COLUMN extra INT",
            "ALTER TABLE prints.log DROP KEY at",
            "ALTER TABLE prints.enrolments DROP FOREIGN KEY enrolment_course",
            "ALTER TABLE prints.tokens MODIFY note VARCHAR(41)",
            "DROP VIEW prints.graders",
            "ALTER DATABASE prints DEFAULT CHARACTER SET utf8",
        ] {
            session.run(change, "test").await.unwrap();
            let print = Catalog::read(&mut session, &selection).await.unwrap().fingerprint();
            assert!(!seen.contains(&print), "{kind}: {change}");
            seen.push(print);
        }
        let log = TableName::new("prints", "log");
        let now = Catalog::read(&mut session, &selection).await.unwrap();
        assert_ne!(first.table_fingerprint(&log), now.table_fingerprint(&log));
        let pages = TableName::new("prints", "pages");
        assert_eq!(first.table_fingerprint(&pages), now.table_fingerprint(&pages));
    }
}

#[tokio::test]
async fn the_types_of_the_row_event_fixture() {
    let kind = ServerKind::Mysql55;
    if real::skipped("the_types_of_the_row_event_fixture", &[kind]) {
        return;
    }
    let server = real::shared(kind, false).await;
    let mut session = catalog_session(&server).await;
    load_types(&mut session, "all_types").await;
    let catalog = Catalog::read(&mut session, &selection(&["all_types.*"])).await.unwrap();
    let kinds = |table: &str| {
        catalog.table(&TableName::new("all_types", table)).unwrap().columns.iter().map(|column| column.kind).collect::<Vec<_>>()
    };
    use ColumnType::*;
    let decimal = |precision, scale| Decimal { precision, scale };
    assert_eq!(kinds("reals"), [Int, Float, Double, Float, Double, decimal(65, 30), decimal(10, 0), decimal(5, 5)]);
    assert_eq!(kinds("times"), [Int, Date, Time(0), DateTime(0), Timestamp(0), Year, Year2]);
    assert_eq!(kinds("sets"), [Int, Enum, Enum, Set, Set, Bit(1), Bit(9), Bit(64)]);
    assert_eq!(kinds("blobs"), [Int, Blob, Blob, Blob, Blob]);
    assert_eq!(kinds("geo"), [Int, Geometry]);
    assert_eq!(kinds("texts")[5..9], [VarChar, VarBinary, Binary(8), Text]);
}

#[tokio::test]
async fn selection_and_generated_columns_and_unknown_types() {
    for kind in [ServerKind::MariaDb, ServerKind::Mysql97] {
        if real::skipped("selection_and_generated_columns_and_unknown_types", &[kind]) {
            continue;
        }
        let server = real::shared(kind, false).await;
        let mut session = catalog_session(&server).await;
        let unknown = if kind == ServerKind::MariaDb { "INET6" } else { "VECTOR(3)" };
        for statement in [
            "DROP DATABASE IF EXISTS odd",
            "CREATE DATABASE odd",
            "CREATE TABLE odd.sums (a INT PRIMARY KEY, b INT AS (a + 1) VIRTUAL, c INT AS (a + 2) STORED, d DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3))",
            "CREATE TABLE odd.tmp_1 (a INT)",
            &format!("CREATE TABLE odd.strange (a INT PRIMARY KEY, b {unknown})"),
        ] {
            session.run(statement, "test").await.unwrap();
        }
        let error = Catalog::read(&mut session, &selection(&["odd.*"])).await.unwrap_err();
        assert!(matches!(error, MysqlError::Object { .. }));
        assert!(error.to_string().starts_with("column `b` of `odd.strange` has the type `"), "{error}");
        let catalog = Catalog::read(&mut session, &selection(&["odd.sum?"])).await.unwrap();
        assert_eq!(catalog.tables.len(), 1);
        let sums = catalog.tables.values().next().unwrap();
        let generated: Vec<bool> = sums.columns.iter().map(|column| column.generated).collect();
        assert_eq!(generated, [false, true, true, false], "{kind}");
        assert_eq!(sums.columns[3].kind, ColumnType::DateTime(3));
        let nothing = Catalog::read(&mut session, &selection(&["no_such_database.*"])).await.unwrap();
        assert!(nothing.tables.is_empty() && nothing.databases.is_empty());
    }
}

#[tokio::test]
async fn facts_of_every_server() {
    for kind in KINDS {
        if real::skipped("facts_of_every_server", &[kind]) {
            continue;
        }
        let server = real::shared(kind, false).await;
        let mut session = catalog_session(&server).await;
        let facts = ServerFacts::read(&mut session).await.unwrap();
        assert!(facts.log_bin && facts.local_infile && !facts.read_only, "{kind}");
        assert_eq!(facts.binlog_format.as_deref(), Some("ROW"));
        assert_eq!((facts.server_id, facts.port), (u32::from(server.port()), server.port()));
        assert_eq!(facts.max_allowed_packet, 64 << 20);
        assert_eq!(facts.lower_case_table_names, 0);
        assert_eq!(facts.binlog_row_image.is_some(), kind != ServerKind::Mysql55, "{kind}");
        assert_eq!(
            facts.server_uuid.is_some(),
            matches!(kind, ServerKind::Mysql5614 | ServerKind::Mysql56 | ServerKind::Mysql97),
            "{kind}"
        );
        assert!(!facts.hostname.is_empty() && !facts.datadir.is_empty() && !facts.time_zone.is_empty());
        let ours = &facts.privileges;
        assert!(
            ours.has_super() && ours.has_replication_slave() && ours.has_replication_client() && ours.has_process(),
            "{kind}: {ours:?}"
        );
        assert!(ours.has_on("SELECT", "anything"));

        let mut app = schema::session_as(&server, dbmove::local::Account::App).await;
        let app = ServerFacts::read(&mut app).await.unwrap().privileges;
        assert!(!app.has_super() && !app.has_replication_slave() && !app.ignores_read_only(), "{kind}: {app:?}");
    }
}

/// The master user of a managed server: privileges by name, none of them SUPER.
#[tokio::test]
async fn facts_for_a_master_user_without_super() {
    for kind in [ServerKind::Mysql97, ServerKind::MariaDb] {
        if real::skipped("facts_for_a_master_user_without_super", &[kind]) {
            continue;
        }
        let server = real::shared(kind, true).await;
        let mut session = schema::session_as(&server, dbmove::local::Account::Admin).await;
        let ours = ServerFacts::read(&mut session).await.unwrap().privileges;
        eprintln!("{kind}: {ours:?}");
        assert!(!ours.has_super() && !ours.has("ALL PRIVILEGES"), "{kind}");
        assert!(ours.has_replication_slave() && ours.has_replication_client() && ours.has_process(), "{kind}: {ours:?}");
        assert!(ours.has_on("CREATE", "school"));
    }
}
