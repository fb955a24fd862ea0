//! Schemas of real old servers, created on real new ones by the rules, read back and compared.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod real;
mod schema;

use std::collections::BTreeSet;

use dbmove::local::{Account, DEFAULT_PASSWORD, LocalServer, ServerKind};
use dbmove::mysql::catalog::Catalog;
use dbmove::mysql::connect::Session;
use dbmove::mysql::ddl::{TOLERATED, TableDdl, TargetSchema, execute, trial};
use dbmove::mysql::error::MysqlError;
use dbmove::mysql::names::TableName;
use dbmove::mysql::table::{ColumnType, Index, Table};
use schema::{catalog_session, load_odd, load_school, load_types, selection, session_as};

/// Creates all of it on the target, as a migration does; the warnings that were tolerated.
async fn create(target: &mut Session, schema: &TargetSchema) -> BTreeSet<u16> {
    let mut statements: Vec<&String> = schema.databases.iter().map(|database| &database.create).collect();
    statements.extend(schema.tables.iter().map(|table| &table.create));
    statements.extend(schema.tables.iter().flat_map(|table| &table.indexes));
    statements.extend(schema.tables.iter().flat_map(|table| &table.foreign_keys));
    let mut tolerated = BTreeSet::new();
    for database in &schema.databases {
        target.run(&format!("DROP DATABASE IF EXISTS `{}`", database.name), "test").await.unwrap();
    }
    for statement in statements {
        match execute(target, statement, "creating the schema").await {
            Ok(warnings) => tolerated.extend(warnings.into_iter().map(|(code, _)| code)),
            Err(error) => panic!("{error}\n{statement}"),
        }
    }
    tolerated
}

/// What has to be equal on both sides, as text.
fn structure(table: &Table) -> String {
    let modern = |name: &Option<String>| name.as_deref().unwrap_or("-").replace("utf8mb3", "utf8");
    let mut text = format!("{} {}\n", table.name, modern(&Some(table.collation.clone())));
    for column in &table.columns {
        let kind = if column.kind == ColumnType::Year2 { ColumnType::Year } else { column.kind };
        text.push_str(&format!(
            "{} {kind:?} unsigned={} zerofill={} nullable={} counts={} {} {}\n",
            column.name,
            column.unsigned,
            column.zerofill,
            column.nullable,
            column.auto_increment,
            modern(&column.charset),
            modern(&column.collation)
        ));
    }
    let mut indexes: Vec<&Index> = table.indexes.iter().collect();
    indexes.sort_by_key(|index| &index.name);
    for index in indexes {
        // MEMORY has hash indexes, ARCHIVE none that has a kind.
        let method = if matches!(index.method.as_str(), "HASH" | "NONE") { "BTREE" } else { &index.method };
        text.push_str(&format!("{} unique={} {method} {:?}\n", index.name, index.unique, index.parts));
    }
    for key in &table.foreign_keys {
        text.push_str(&format!("{key:?}\n"));
    }
    text
}

/// Defaults and comments of every column, and comments of every table, as MySQL prints them.
async fn texts(session: &mut Session, database: &str) -> Vec<Vec<Option<String>>> {
    let columns = format!(
        "SELECT TABLE_NAME, COLUMN_NAME, REPLACE(COLUMN_DEFAULT, ' ', ''), COLUMN_COMMENT FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = '{database}' ORDER BY 1, ORDINAL_POSITION"
    );
    let tables = format!(
        "SELECT TABLE_NAME, IF(TABLE_TYPE = 'VIEW', '', TABLE_COMMENT) FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = '{database}' AND TABLE_TYPE = 'BASE TABLE' ORDER BY 1"
    );
    let mut rows = session.rows(&columns, "test").await.unwrap();
    rows.retain(|row| row[0].as_deref() != Some("graders"));
    rows.extend(session.rows(&tables, "test").await.unwrap());
    rows
}

const TARGETS: [ServerKind; 2] = [ServerKind::Mysql97, ServerKind::MariaDb];

/// What is carried.
#[derive(Clone, Copy, PartialEq)]
enum Fixture {
    /// `fixtures/schema/school.sql`.
    School,
    /// The tables of `fixtures/mysql/types.sql`.
    Types,
    /// What `dbmove demo` moves.
    Demo,
    /// `fixtures/schema/odd.sql`.
    Odd,
}

async fn carried(source_kind: ServerKind, database: &str, fixture: Fixture) {
    if real::skipped(&format!("carried from {source_kind}"), &[source_kind]) {
        return;
    }
    let source = real::shared(source_kind, false).await;
    let mut source = catalog_session(&source).await;
    match fixture {
        Fixture::School => load_school(&mut source, database).await,
        Fixture::Types => load_types(&mut source, database).await,
        Fixture::Odd => load_odd(&mut source, database).await,
        Fixture::Demo => dbmove::demo::school::create(source.conn(), database).await.unwrap(),
    }
    let chosen = selection(&[&format!("{database}.*")]);
    let catalog = Catalog::read(&mut source, &chosen).await.unwrap();
    for target_kind in TARGETS {
        if real::skipped(&format!("carried from {source_kind} to {target_kind}"), &[target_kind]) {
            continue;
        }
        let target = real::shared(target_kind, true).await;
        let mut target = session_as(&target, Account::Admin).await;
        let schema = TargetSchema::read(&mut source, &catalog, &target.version).await.unwrap();
        assert_eq!(schema.tables.len(), catalog.tables.len());
        let tolerated = create(&mut target, &schema).await;
        eprintln!("{source_kind} to {target_kind}: tolerated warnings {tolerated:?}");
        assert!(tolerated.iter().all(|code| TOLERATED.contains(code)));
        let there = Catalog::read(&mut target, &chosen).await.unwrap();
        for (name, table) in &catalog.tables {
            let found = there.table(name).unwrap_or_else(|| panic!("{target_kind} has no {name}"));
            assert_eq!(structure(found), structure(table), "{source_kind} to {target_kind}");
            assert_eq!(found.engine, "InnoDB");
            assert_eq!(found.auto_increment.unwrap_or(1), 1, "the counter of {name} is set at the switch");
        }
        assert_eq!(there.tables.len(), catalog.tables.len());
        // MariaDB prints defaults in another way.
        if fixture == Fixture::School && source_kind != ServerKind::MariaDb && target_kind != ServerKind::MariaDb {
            assert_eq!(texts(&mut target, database).await, texts(&mut source, database).await);
        }
        let [here, there] = [&catalog, &there].map(|catalog| catalog.databases[0].collation.replace("utf8mb3", "utf8"));
        assert_eq!(here, there);
    }
}

#[tokio::test]
async fn the_school_from_5_5() {
    carried(ServerKind::Mysql55, "ddl_school55", Fixture::School).await;
}

#[tokio::test]
async fn the_school_from_5_6() {
    carried(ServerKind::Mysql56, "ddl_school56", Fixture::School).await;
}

#[tokio::test]
async fn the_school_from_mariadb() {
    carried(ServerKind::MariaDb, "ddl_school_maria", Fixture::School).await;
}

#[tokio::test]
async fn every_type_from_5_5() {
    carried(ServerKind::Mysql55, "ddl_types", Fixture::Types).await;
}

#[tokio::test]
async fn the_demo_from_5_5() {
    carried(ServerKind::Mysql55, "ddl_demo", Fixture::Demo).await;
}

#[tokio::test]
async fn engines_partitions_and_odd_names_from_5_5() {
    carried(ServerKind::Mysql55, "ddl_odd55", Fixture::Odd).await;
}

#[tokio::test]
async fn engines_partitions_and_odd_names_from_5_6() {
    carried(ServerKind::Mysql5614, "ddl_odd56", Fixture::Odd).await;
}

/// MyISAM numbers inside a group; on the target the counter gets an index of its own, and rows keep their numbers.
#[tokio::test]
async fn a_counter_behind_a_group_gets_an_index() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("a_counter_behind_a_group_gets_an_index", &kinds) {
        return;
    }
    let source = real::shared(kinds[0], false).await;
    let mut source = catalog_session(&source).await;
    let target = real::shared(kinds[1], true).await;
    let mut target = session_as(&target, Account::Admin).await;
    source.run("DROP DATABASE IF EXISTS ddl_group", "test").await.unwrap();
    source.run("CREATE DATABASE ddl_group", "test").await.unwrap();
    source
        .run("CREATE TABLE ddl_group.posts (course INT NOT NULL, number INT NOT NULL AUTO_INCREMENT, PRIMARY KEY (course, number), KEY dbmove_auto_increment (course)) ENGINE=MyISAM", "test")
        .await
        .unwrap();
    let catalog = Catalog::read(&mut source, &selection(&["ddl_group.*"])).await.unwrap();
    let schema = TargetSchema::read(&mut source, &catalog, &target.version).await.unwrap();
    let rules: Vec<&str> = schema.tables[0].rules_fired.iter().map(|fired| fired.rule).collect();
    assert!(rules.contains(&"auto-increment-index"), "{rules:?}");
    // It is there from the start: without it the server refuses the table. The name was taken.
    assert!(schema.tables[0].create.contains("KEY `dbmove_auto_increment_` (`number`)"), "{}", schema.tables[0].create);
    create(&mut target, &schema).await;
    target.run("INSERT INTO ddl_group.posts VALUES (1, 1), (1, 2), (2, 1)", "test").await.unwrap();
    target.run("INSERT INTO ddl_group.posts (course) VALUES (2)", "test").await.unwrap();
    let last = target.first("SELECT MAX(number) FROM ddl_group.posts", "test").await.unwrap().unwrap();
    assert_eq!(last[0].as_deref(), Some("3"), "numbered over the whole table");
}

/// The school's tables as made for 9.7, by name.
async fn school_for_97(database: &str) -> Option<(TargetSchema, impl Fn(&str) -> TableDdl)> {
    if real::skipped("school_for_97", &[ServerKind::Mysql55, ServerKind::Mysql97]) {
        return None;
    }
    let source = real::shared(ServerKind::Mysql55, false).await;
    let mut source = catalog_session(&source).await;
    load_school(&mut source, database).await;
    let catalog = Catalog::read(&mut source, &selection(&[&format!("{database}.*")])).await.unwrap();
    let version = dbmove::mysql::connect::Version::parse("9.7.4");
    let schema = TargetSchema::read(&mut source, &catalog, &version).await.unwrap();
    let (tables, database) = (schema.tables.clone(), database.to_owned());
    Some((schema, move |name: &str| tables.iter().find(|table| table.name == TableName::new(database.clone(), name)).unwrap().clone()))
}

#[tokio::test]
async fn what_the_rules_do_is_listed() {
    let Some((schema, table)) = school_for_97("ddl_rules").await else {
        return;
    };
    let pages = table("pages");
    let rules: Vec<&str> = pages.rules_fired.iter().map(|fired| fired.rule).collect();
    assert_eq!(rules, ["myisam-to-innodb", "engine-options", "engine-options", "engine-options", "charset-explicit", "integer-width"]);
    insta::assert_snapshot!(pages.diff, @r"
    --- source ddl_rules.pages
    +++ target ddl_rules.pages
    @@ -1,8 +1,8 @@
     CREATE TABLE `pages` (
    -  `id` int(11) NOT NULL AUTO_INCREMENT,
    +  `id` int NOT NULL AUTO_INCREMENT,
       `title` varchar(200) NOT NULL,
       `body` mediumtext,
       PRIMARY KEY (`id`),
       KEY `title` (`title`),
       FULLTEXT KEY `words` (`title`,`body`)
    -) ENGINE=MyISAM DEFAULT CHARSET=utf8 PACK_KEYS=0 CHECKSUM=1 DELAY_KEY_WRITE=1
    +) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3 COLLATE=utf8mb3_general_ci
    ");
    let accounts = table("accounts");
    insta::assert_snapshot!(accounts.create, @r#"
    CREATE TABLE `ddl_rules`.`accounts` (
      `id` int unsigned NOT NULL AUTO_INCREMENT,
      `login` varchar(60) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin NOT NULL,
      `display_name` varchar(120) NOT NULL DEFAULT '' COMMENT 'it''s "shown"; a `tick`, a -- dash and /* a comment */',
      `balance` decimal(12,2) NOT NULL DEFAULT '0.00',
      `active` tinyint(1) NOT NULL DEFAULT '1',
      `badge` int(6) unsigned zerofill DEFAULT NULL,
      `created` timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
      `born` date NOT NULL DEFAULT '0000-00-00',
      PRIMARY KEY (`id`)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3 COLLATE=utf8mb3_general_ci
    "#);
    assert_eq!(schema.not_carried, []);
}

#[tokio::test]
async fn tables_start_with_the_indexes_that_following_needs() {
    let Some((schema, table)) = school_for_97("ddl_split").await else {
        return;
    };
    let enrolments = table("enrolments");
    // `grader` carries SET NULL; the primary key itself leads with the cascading column.
    assert!(enrolments.create.contains("KEY `grader`") && !enrolments.create.contains("KEY `course`"));
    assert_eq!(
        enrolments.indexes,
        ["ALTER TABLE `ddl_split`.`enrolments`\n  ADD KEY `course` (`course_id`),\n  ADD KEY `since` (`since`)"]
    );
    assert_eq!(enrolments.foreign_keys.len(), 3);
    assert!(table("submissions").create.contains("KEY `enrolment`"));
    let pages = table("pages");
    assert_eq!(pages.indexes.len(), 2, "FULLTEXT comes by itself");
    assert!(pages.indexes[1].contains("ADD FULLTEXT KEY `words`"));
    // The only unique key is what tells rows apart.
    assert!(table("tokens").create.contains("UNIQUE KEY `token`"));
    assert!(table("cour`ses").create.starts_with("CREATE TABLE `ddl_split`.`cour``ses` ("));
    let order: Vec<&str> = schema.tables.iter().map(|table| table.name.table.as_str()).collect();
    let place = |name: &str| order.iter().position(|other| *other == name).unwrap();
    assert!(place("accounts") < place("enrolments") && place("enrolments") < place("submissions"));
}

/// What can't be carried names the table and says why.
#[tokio::test]
async fn tables_without_a_rule_are_refused_by_name() {
    if real::skipped("tables_without_a_rule_are_refused_by_name", &[ServerKind::Mysql55]) {
        return;
    }
    let source = real::shared(ServerKind::Mysql55, false).await;
    let mut source = catalog_session(&source).await;
    let version = dbmove::mysql::connect::Version::parse("9.7.4");
    for (definition, why) in [
        ("strange (a INT NOT NULL) ENGINE=MRG_MyISAM UNION=(ddl_refused.part)", "make a view over its tables"),
        ("strange (a INT NOT NULL) ENGINE=BLACKHOLE", "a BLACKHOLE table keeps no rows"),
        ("`#mysql50#stra-nge` (a INT NOT NULL PRIMARY KEY) ENGINE=InnoDB", "rename it on the source"),
        ("strange (a INT NOT NULL, fts_doc_id INT) ENGINE=MyISAM", "InnoDB keeps the name of its column `fts_doc_id` for itself"),
        ("strange (a INT NOT NULL, KEY gen_clust_index (a)) ENGINE=MyISAM", "its index `gen_clust_index`"),
        (
            "strange (b INT, FOREIGN KEY many (b) REFERENCES ddl_refused.parent (b)) ENGINE=InnoDB",
            "references (b) of `ddl_refused.parent`, which is no unique key there",
        ),
    ] {
        source.run("DROP DATABASE IF EXISTS ddl_refused", "test").await.unwrap();
        source.run("CREATE DATABASE ddl_refused", "test").await.unwrap();
        source.run("CREATE TABLE ddl_refused.part (a INT NOT NULL) ENGINE=MyISAM", "test").await.unwrap();
        source.run("CREATE TABLE ddl_refused.parent (a INT NOT NULL PRIMARY KEY, b INT, KEY b (b)) ENGINE=InnoDB", "test").await.unwrap();
        source.run(&format!("CREATE TABLE ddl_refused.{definition}"), "test").await.unwrap();
        let catalog = Catalog::read(&mut source, &selection(&["ddl_refused.*"])).await.unwrap();
        let error = TargetSchema::read(&mut source, &catalog, &version).await.unwrap_err();
        assert!(matches!(error, MysqlError::Object { .. }));
        let named = if definition.starts_with('`') { "#mysql50#stra-nge" } else { "strange" };
        assert!(error.to_string().starts_with(&format!("`ddl_refused.{named}` can't be created on the target as it is: ")), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_foreign_key_to_a_table_left_behind_is_listed() {
    if real::skipped("a_foreign_key_to_a_table_left_behind_is_listed", &[ServerKind::Mysql55]) {
        return;
    }
    let source = real::shared(ServerKind::Mysql55, false).await;
    let mut source = catalog_session(&source).await;
    load_school(&mut source, "ddl_part").await;
    let catalog = Catalog::read(&mut source, &selection(&["ddl_part.submissions"])).await.unwrap();
    let schema = TargetSchema::read(&mut source, &catalog, &dbmove::mysql::connect::Version::parse("9.7.4")).await.unwrap();
    assert_eq!(schema.tables.len(), 1);
    assert!(schema.tables[0].foreign_keys.is_empty());
    let left = schema.not_carried.iter().find(|left| left.kind == "foreign key").unwrap();
    assert_eq!(left.name, "ddl_part.submissions.submission_enrolment");
    assert!(left.why.contains("`ddl_part.enrolments`"));
}

#[tokio::test]
async fn a_warning_that_changes_something_is_an_error() {
    let kind = ServerKind::MariaDb;
    if real::skipped("a_warning_that_changes_something_is_an_error", &[kind]) {
        return;
    }
    let target = real::shared(kind, true).await;
    let mut target = session_as(&target, Account::Admin).await;
    target.run("DROP DATABASE IF EXISTS ddl_warned", "test").await.unwrap();
    target.run("CREATE DATABASE ddl_warned", "test").await.unwrap();
    // Without a strict mode the server takes another engine and says so in a warning.
    let error = execute(&mut target, "CREATE TABLE ddl_warned.t (a INT) ENGINE=NoSuch", "creating `t`").await.unwrap_err();
    assert!(error.to_string().contains("1286"), "{error}");
}

/// `dbmove schema diff` on real servers: what it says, that pipes get diffs as they are, and that it touches nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_shows_every_rule_and_diff() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("the_command_shows_every_rule_and_diff", &kinds) {
        return;
    }
    let (source, target) = (real::shared(kinds[0], false).await, real::shared(kinds[1], true).await);
    let mut session = catalog_session(&source).await;
    load_school(&mut session, "ddl_shown").await;
    let directory = tempfile::tempdir().unwrap();
    let playbook = directory.path().join("shown.yaml");
    let endpoint = |server: &LocalServer, account: Account| {
        let password = "password: \"${env:DBMOVE_TEST_PASSWORD}\", tls: off";
        format!("{{ url: \"mysql://{}@127.0.0.1:{}/\", {password} }}", account.user(), server.port())
    };
    let write = |include: &str| {
        let (source, target) = (endpoint(&source, Account::Dbmove), endpoint(&target, Account::Admin));
        let text = format!(
            "playbook: shown\nstores:\n  school:\n    kind: mysql\n    source: {source}\n    target: {target}\n    include: [\"{include}\"]\nstages:\n  prepare:\n    - {{ id: prepare, run: mysql.prepare, store: school }}\n"
        );
        std::fs::write(&playbook, text).unwrap();
    };
    let state = directory.path().join("state");
    let run = |words: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_dbmove"))
            .args(["schema", "diff"])
            .arg(&playbook)
            .args(words)
            .env("DBMOVE_STATE_DIR", &state)
            .env("DBMOVE_TEST_PASSWORD", DEFAULT_PASSWORD)
            .env("COLUMNS", "80")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let mut there = catalog_session(&target).await;
    let held = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'ddl_shown'";

    write("ddl_shown.*");
    let (code, text, words) = run(&[]);
    assert_eq!((code, words.as_str()), (0, ""), "{text}");
    let joined = text.replace("\n  ", " ");
    assert!(joined.contains("\n`ddl_shown.pages`: myisam-to-innodb, engine-options (3), charset-explicit, integer-width\n"), "{text}");
    assert!(text.contains("\n--- source ddl_shown.pages\n+++ target ddl_shown.pages\n@@ "), "{text}");
    assert!(text.contains("\nrules that fired: "), "{text}");
    let said = |line: &&str| !line.starts_with(['+', '-', ' ']) && line.contains(' ');
    assert!(text.lines().filter(said).all(|line| line.chars().count() <= 80), "a line is too long:\n{text}");
    // A pipe gets a diff's lines whole, and no colours.
    assert!(text.lines().any(|line| line.starts_with("-  `display_name`") || line.starts_with("   `display_name`")), "{text}");
    assert!(!text.contains('\u{1b}'));

    let (code, text, _) = run(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, json["command"].as_str()), (0, Some("schema diff")), "{text}");
    let tables = json["stores"][0]["tables"].as_array().unwrap();
    let catalog = Catalog::read(&mut session, &selection(&["ddl_shown.*"])).await.unwrap();
    assert_eq!(tables.len(), catalog.tables.len());
    let pages = tables.iter().find(|table| table["table"] == "ddl_shown.pages").unwrap();
    assert_eq!(pages["rules"][0]["rule"], "myisam-to-innodb");
    assert_eq!((pages["rules"][0]["before"].as_str(), pages["rules"][0]["after"].as_str()), (Some("ENGINE=MyISAM"), Some("ENGINE=InnoDB")));
    assert!(pages["diff"].as_str().unwrap().contains("\n-) ENGINE=MyISAM"));
    assert!(json["rules"].as_array().unwrap().iter().any(|rule| rule["name"] == "myisam-to-innodb"));

    session.run("CREATE TABLE ddl_shown.merged (a INT NOT NULL) ENGINE=MRG_MyISAM", "test").await.unwrap();
    let (code, text, words) = run(&[]);
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(words.contains("`ddl_shown.merged` can't be created on the target") && words.contains("nothing was"), "{words}");
    assert!(!state.exists(), "it made a state directory");
    assert!(there.rows(held, "test").await.unwrap().is_empty(), "it created something on the target");
}

/// What only the target knows is found before anything is created: by trying, every table named, nothing left behind.
#[tokio::test]
async fn tables_are_tried_before_the_first_one_stays() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97, ServerKind::MariaDb];
    if real::skipped("tables_are_tried_before_the_first_one_stays", &kinds) {
        return;
    }
    let source = real::shared(kinds[0], false).await;
    let mut source = catalog_session(&source).await;
    source.run("DROP DATABASE IF EXISTS ddl_tried", "test").await.unwrap();
    source.run("CREATE DATABASE ddl_tried", "test").await.unwrap();
    let many = |count: usize, kind: &str| (0..count).map(|place| format!("c{place} {kind}")).collect::<Vec<_>>().join(", ");
    for definition in [
        "fine (a INT NOT NULL PRIMARY KEY, p POINT NOT NULL, b TEXT, SPATIAL KEY (p), FULLTEXT KEY (b)) ENGINE=MyISAM".to_owned(),
        "fine_too (a INT NOT NULL PRIMARY KEY, b VARCHAR(20), KEY (b)) ENGINE=MyISAM".to_owned(),
        format!("wide ({}) ENGINE=MyISAM", many(40, "CHAR(255) NOT NULL")),
        format!("many ({}) ENGINE=MyISAM", many(1100, "TINYINT")),
    ] {
        source.run(&format!("CREATE TABLE ddl_tried.{definition}"), "test").await.unwrap();
    }
    for kind in &kinds[1..] {
        let target = real::shared(*kind, true).await;
        let mut target = session_as(&target, Account::Admin).await;
        target.run("CREATE DATABASE IF NOT EXISTS _dbmove", "test").await.unwrap();
        let of = async |source: &mut Session, patterns: &[&str], version| {
            let catalog = Catalog::read(source, &selection(patterns)).await.unwrap();
            TargetSchema::read(source, &catalog, version).await.unwrap()
        };
        let version = target.version.clone();
        let fine = of(&mut source, &["ddl_tried.fine*"], &version).await;
        trial::all(&mut target, &fine.tables).await.unwrap();
        let all = of(&mut source, &["ddl_tried.*"], &version).await;
        let error = trial::all(&mut target, &all.tables).await.unwrap_err().to_string();
        assert!(error.contains("can't hold 2 tables as it would be made. Nothing was created"), "{error}");
        assert!(error.contains("`ddl_tried.wide`: ") && error.contains("Row size too large"), "{error}");
        assert!(error.contains("`ddl_tried.many`: ") && error.contains("oo many columns"), "{error}");
        let left = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'ddl_tried' OR TABLE_NAME LIKE 'trial%'";
        assert!(target.rows(left, "test").await.unwrap().is_empty());
    }
}

/// MariaDB's own words become MySQL's, or are refused by table and column.
#[tokio::test]
async fn what_only_mariadb_writes() {
    let kinds = [ServerKind::MariaDb, ServerKind::Mysql97];
    if real::skipped("what_only_mariadb_writes", &kinds) {
        return;
    }
    let source = real::shared(kinds[0], false).await;
    let mut source = catalog_session(&source).await;
    let target = real::shared(kinds[1], true).await;
    let mut target = session_as(&target, Account::Admin).await;
    let version = target.version.clone();
    let fresh = [
        "DROP DATABASE IF EXISTS ddl_words",
        "CREATE DATABASE ddl_words DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        "USE ddl_words",
    ];
    for statement in fresh {
        source.run(statement, "test").await.unwrap();
    }
    for statement in [
        "CREATE TABLE one (id INT NOT NULL PRIMARY KEY, u CHAR(36) DEFAULT uuid(), n INT DEFAULT (1 + 2), d DATETIME DEFAULT current_timestamp(), CHECK (id > 0), CONSTRAINT small CHECK (n < 100))",
        "CREATE TABLE two (id INT NOT NULL PRIMARY KEY, t TEXT, i INT INVISIBLE DEFAULT 1, j JSON, g INT AS (id + 1) VIRTUAL, p INT AS (id + 2) PERSISTENT, KEY seldom (i) IGNORED, CHECK (id > 0)) PAGE_COMPRESSED=1",
        "CREATE TABLE three (id INT NOT NULL PRIMARY KEY, a VARCHAR(20) COLLATE utf8mb4_uca1400_ai_ci, b VARCHAR(20) COLLATE utf8mb4_unicode_nopad_ci, c VARCHAR(20) COLLATE utf8mb4_nopad_bin) COLLATE utf8mb4_uca1400_as_cs",
        "CREATE TABLE four (id INT NOT NULL PRIMARY KEY, a INT) PAGE_CHECKSUM=1 TRANSACTIONAL=1 ENGINE=Aria",
    ] {
        source.run(statement, "test").await.unwrap();
    }
    let catalog = Catalog::read(&mut source, &selection(&["ddl_words.*"])).await.unwrap();
    let schema = TargetSchema::read(&mut source, &catalog, &version).await.unwrap();
    let fired = |name: &str| -> BTreeSet<&str> {
        let table = schema.tables.iter().find(|table| table.name.table == name).unwrap();
        table.rules_fired.iter().map(|fired| fired.rule).collect()
    };
    assert!(fired("one").is_superset(&["default-expression", "check-names"].into()), "{:?}", fired("one"));
    assert!(fired("two").is_superset(&["index-ignored", "engine-options", "check-names"].into()), "{:?}", fired("two"));
    assert!(fired("three").contains("collation-of-target") && !fired("three").contains("charset-explicit"));
    assert!(fired("four").contains("aria-to-innodb"));
    create(&mut target, &schema).await;
    target.run("INSERT INTO ddl_words.one (id) VALUES (1)", "test").await.unwrap();
    let row = target.first("SELECT LENGTH(u), n, d IS NOT NULL FROM ddl_words.one", "test").await.unwrap().unwrap();
    assert_eq!(row, [Some("36".to_owned()), Some("3".to_owned()), Some("1".to_owned())]);
    let query = "SELECT COLLATION_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'ddl_words' AND TABLE_NAME = 'three' AND COLLATION_NAME IS NOT NULL ORDER BY COLUMN_NAME";
    let collations: Vec<String> = target.rows(query, "test").await.unwrap().into_iter().filter_map(|mut row| row.remove(0)).collect();
    assert_eq!(collations, ["utf8mb4_0900_ai_ci", "utf8mb4_unicode_ci", "utf8mb4_0900_bin"]);
    let visible = "SELECT IS_VISIBLE FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = 'ddl_words' AND INDEX_NAME = 'seldom'";
    assert_eq!(target.first(visible, "test").await.unwrap().unwrap()[0].as_deref(), Some("NO"));

    for (definition, why) in [
        (
            "odd (a VARCHAR(20) COLLATE utf8mb4_uca1400_ai_ci PRIMARY KEY)",
            "column `a` is part of a unique key and has the collation `utf8mb4_uca1400_ai_ci`",
        ),
        (
            "odd (a INT PRIMARY KEY, b VARCHAR(20) COLLATE utf8mb4_uca1400_swedish_ai_ci)",
            "column `b` has the collation `utf8mb4_uca1400_swedish_ai_ci`",
        ),
        ("odd (a INT PRIMARY KEY, b TEXT, UNIQUE KEY whole (b))", "its unique index `whole` is over the whole of column `b`"),
        ("odd (a INT PRIMARY KEY, b INT DEFAULT (NEXTVAL(ddl_words_odd.s)))", "column `b` takes its default from a sequence"),
        ("odd (a INT PRIMARY KEY, b TEXT COMPRESSED)", "its column `b` is COMPRESSED"),
        ("odd (a INT PRIMARY KEY, b UUID)", "column `b` of `ddl_words_odd.odd` has the type `uuid`"),
        ("odd (a INT PRIMARY KEY) WITH SYSTEM VERSIONING", "`ddl_words_odd.odd` is of the kind `SYSTEM VERSIONED`"),
    ] {
        for statement in ["DROP DATABASE IF EXISTS ddl_words_odd", "CREATE DATABASE ddl_words_odd", "CREATE SEQUENCE ddl_words_odd.s"] {
            source.run(statement, "test").await.unwrap();
        }
        source.run(&format!("CREATE TABLE ddl_words_odd.{definition}"), "test").await.unwrap();
        let error = match Catalog::read(&mut source, &selection(&["ddl_words_odd.*"])).await {
            Ok(catalog) => TargetSchema::read(&mut source, &catalog, &version).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(why), "{definition}: {error}");
    }
}

/// What a TIMESTAMP is by itself on 5.5 is written out, and is the same on servers where it would be something else by itself. A server whose
/// own `sql_mode` prints `TYPE=` is asked under another.
#[tokio::test]
async fn implicit_defaults_and_old_words_from_5_5() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97, ServerKind::MariaDb];
    if real::skipped("implicit_defaults_and_old_words_from_5_5", &kinds) {
        return;
    }
    let source = real::shared(kinds[0], false).await;
    let mut source = catalog_session(&source).await;
    for statement in [
        "DROP DATABASE IF EXISTS ddl_implicit",
        "CREATE DATABASE ddl_implicit",
        "CREATE TABLE ddl_implicit.t (id INT NOT NULL PRIMARY KEY, a TIMESTAMP, b TIMESTAMP, c TIMESTAMP NULL, d TIMESTAMP DEFAULT '2001-02-03 04:05:06', e DATE NOT NULL, f DATETIME NOT NULL DEFAULT '0000-00-00 00:00:00', g VARBINARY(5) DEFAULT 'ab\\0', h VARCHAR(9) CHARACTER SET ucs2 DEFAULT 'é')",
        "SET SESSION sql_mode = 'MYSQL40'",
    ] {
        source.run(statement, "test").await.unwrap();
    }
    let printed = source.first("SHOW CREATE TABLE ddl_implicit.t", "test").await.unwrap().unwrap();
    assert!(printed[1].as_deref().unwrap().contains("TYPE=InnoDB"), "{printed:?}");
    source.run("SET SESSION sql_mode = ''", "test").await.unwrap();
    for kind in &kinds[1..] {
        let target = real::shared(*kind, true).await;
        let mut target = session_as(&target, Account::Admin).await;
        let catalog = Catalog::read(&mut source, &selection(&["ddl_implicit.*"])).await.unwrap();
        let schema = TargetSchema::read(&mut source, &catalog, &target.version).await.unwrap();
        assert!(schema.tables[0].create.contains("ENGINE=InnoDB"), "{}", schema.tables[0].create);
        create(&mut target, &schema).await;
        for session in [&mut source, &mut target] {
            session.run("INSERT INTO ddl_implicit.t (id) VALUES (1)", "test").await.unwrap();
            let query = "SELECT a > '2020-01-01', b, c, d, e, f, HEX(g), HEX(h) FROM ddl_implicit.t";
            let row = session.first(query, "test").await.unwrap().unwrap();
            let zero = Some("0000-00-00 00:00:00".to_owned());
            let expected = [
                Some("1".to_owned()),
                zero.clone(),
                None,
                Some("2001-02-03 04:05:06".to_owned()),
                Some("0000-00-00".to_owned()),
                zero,
                Some("616200".to_owned()),
                Some("00E9".to_owned()),
            ];
            assert_eq!(row, expected, "{kind}");
            session.run("UPDATE ddl_implicit.t SET a = '2001-01-01 00:00:00'", "test").await.unwrap();
            session.run("UPDATE ddl_implicit.t SET e = '2001-01-01'", "test").await.unwrap();
            let row = session.first(query, "test").await.unwrap().unwrap();
            assert_eq!(row[0].as_deref(), Some("1"), "{kind}: it is set anew on UPDATE");
            session.run("DELETE FROM ddl_implicit.t", "test").await.unwrap();
        }
    }
}
