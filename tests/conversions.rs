//! Text that the target calls by another character set, end to end: copied, followed while it is written, and verified; and what
//! can't be converted is named before anything is created.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;

use std::path::PathBuf;
use std::time::Duration;

use dbmove::local::{Account, DEFAULT_PASSWORD, LocalServer, ServerKind, ServerOptions};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::process::Command;

/// `words`: the converted column is the key. `lines`: rows without a key, found by all of their bytes. `people`: latin1 that holds UTF-8, unique by name, with a four-byte character.
/// `mixed`: a column of another charset in the same table stays. `children`: a converted key that cascades.
const SCHEMA: [&str; 6] = [
    "CREATE DATABASE talk DEFAULT CHARACTER SET latin1",
    "CREATE TABLE talk.words (word VARCHAR(60) NOT NULL, lang ENUM('dé','fr') NOT NULL DEFAULT 'fr', body TEXT, PRIMARY KEY (word), KEY body (body(200))) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    "CREATE TABLE talk.people (id INT NOT NULL PRIMARY KEY, name VARCHAR(60) NOT NULL DEFAULT 'nobody', code CHAR(8) COLLATE latin1_bin, note TEXT, UNIQUE KEY name (name), KEY code (code)) ENGINE=MyISAM DEFAULT CHARSET=latin1",
    "CREATE TABLE talk.mixed (id INT NOT NULL PRIMARY KEY, one VARCHAR(20) CHARACTER SET utf8 COLLATE utf8_bin, two VARCHAR(20), three VARCHAR(20) CHARACTER SET sjis) ENGINE=InnoDB DEFAULT CHARSET=latin1",
    "CREATE TABLE talk.children (id INT NOT NULL PRIMARY KEY, word VARCHAR(60), CONSTRAINT says FOREIGN KEY (word) REFERENCES talk.words (word) ON UPDATE CASCADE ON DELETE CASCADE) ENGINE=InnoDB DEFAULT CHARSET=utf8",
    "CREATE TABLE talk.lines (line VARCHAR(60), kind ENUM('a','b') DEFAULT 'b') ENGINE=MyISAM DEFAULT CHARSET=latin1",
];

const BEFORE: [&str; 6] = [
    // `é`, `e` and `Ö` in bytes; `ab ` differs from `ab` in nothing but a space.
    "INSERT INTO talk.words VALUES (x'c3a96c616e', 2, x'e282ac'), ('zebra', 1, NULL), (x'c396', 2, ''), ('Amsel', 1, x'ed959c'), ('gone', 2, 'x')",
    "INSERT INTO talk.people VALUES (1, x'4a6f73c3a9', x'c3a9', x'f09f9880'), (2, 'plain', 'AB', NULL), (3, x'e5b08fe69e97', 'ab', ''), (4, 'left', 'x', 'y')",
    "INSERT INTO talk.mixed VALUES (1, x'c3a9', x'e9', x'8365'), (2, 'A', 'A', 'A'), (3, 'a', 'a', 'a'), (4, NULL, NULL, NULL)",
    "INSERT INTO talk.lines VALUES (x'c3a9', 'a'), (x'c3a9', 'a'), (x'c389', 'a'), ('e', 'b'), (NULL, NULL), (x'f09f9880', 'b')",
    "INSERT INTO talk.children VALUES (1, 'zebra'), (2, 'zebra'), (3, 'gone'), (4, NULL)",
    "INSERT INTO talk.words (word, lang, body) SELECT CONCAT('many', a.id, b.id), 2, x'c3bc' FROM talk.mixed a, talk.mixed b",
];

/// Run before the copy ends and again, with other values, behind it.
fn changes(round: usize) -> Vec<String> {
    [
        "INSERT INTO talk.words VALUES (CONCAT('neuROUND', x'c3a4'), 1, x'c39f')",
        "UPDATE talk.words SET word = CONCAT('movedROUND', x'c3bc'), body = x'e282ac' WHERE word = 'many1ROUND'",
        "UPDATE talk.words SET body = CONCAT(body, x'c3a9') WHERE word = x'c3896c616e'",
        "DELETE FROM talk.words WHERE word = 'many2ROUND'",
        "UPDATE talk.words SET word = CONCAT('ZebraROUND', x'c3a9') WHERE word LIKE 'zebra%'",
        "INSERT INTO talk.people VALUES (1ROUND, CONCAT('nROUND', x'c3b1'), x'c39f', x'f09f8e89')",
        "UPDATE talk.people SET name = CONCAT('mROUND', x'c3a9'), note = x'e282ac' WHERE id = 2",
        "INSERT INTO talk.lines VALUES (CONCAT('nROUND', x'c3b1'), 'a'), (CONCAT('nROUND', x'c3b1'), 'a')",
        "DELETE FROM talk.lines WHERE line = x'c3a9' LIMIT 1",
        "UPDATE talk.lines SET line = CONCAT('uROUND', x'c3b1') WHERE line = x'f09f9880'",
        "UPDATE talk.mixed SET one = CONCAT('ROUND', x'c3bc'), two = x'fc' WHERE id = 2",
        // Characters of sjis whose second byte is a backslash, and all that means something in a literal.
        "INSERT INTO talk.mixed VALUES (5ROUND, x'5c275c5c22', x'5c5c27225c', x'835c5c27815c22')",
        "UPDATE talk.mixed SET one = x'275c', two = x'5c', three = x'975c' WHERE id = 3",
    ]
    .iter()
    .map(|statement| statement.replace("ROUND", &round.to_string()))
    .chain((round == 2).then(|| "DELETE FROM talk.words WHERE word = 'gone'".to_owned()))
    .chain((round == 2).then(|| "DELETE FROM talk.people WHERE id = 4".to_owned()))
    .collect()
}

const CHARSET: &str = "{ \"talk.words\": utf8-to-utf8mb4, \"talk.child*\": utf8-to-utf8mb4, \"talk.mixed\": utf8-to-utf8mb4, \"talk.people\": latin1-holds-utf8, \"talk.lines\": latin1-holds-utf8 }";

struct World {
    source: LocalServer,
    target: LocalServer,
    directory: tempfile::TempDir,
}

impl World {
    async fn start(source: ServerKind, target: ServerKind) -> World {
        World::start_with(source, target, &ServerOptions::default()).await
    }

    async fn start_with(source: ServerKind, target: ServerKind, options: &ServerOptions) -> World {
        let directory = tempfile::tempdir().unwrap();
        let source = LocalServer::start(source, &directory.path().join("source"), options).await.unwrap();
        let target = LocalServer::start(target, &directory.path().join("target"), &ServerOptions::default().rds_like(true)).await.unwrap();
        World { source, target, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn playbook(&self, charset: &str) -> String {
        let endpoint = |server: &LocalServer, account: Account| {
            let password = "password: \"${env:DBMOVE_TEST_PASSWORD}\", tls: off";
            format!("{{ url: \"mysql://{}@127.0.0.1:{}/\", {password} }}", account.user(), server.port())
        };
        let stop = |id: &str| {
            let (at, go) = (self.path(&format!("at-{id}")).display().to_string(), self.path(&format!("go-{id}")).display().to_string());
            format!(
                "    - {{ id: {id}, run: hook.exec, with: {{ command: [sh, -c, \"touch '{at}'; while [ ! -e '{go}' ]; do sleep 0.1; done\"], undo: none, timeout: 300s }} }}\n"
            )
        };
        let text = format!(
            "playbook: talk\nstores:\n  talk:\n    kind: mysql\n    source: {}\n    target: {}\n    include: [\"talk.*\"]\n    charset: {charset}\n\
             stages:\n  prepare:\n    - {{ id: schema, run: mysql.prepare, store: talk, with: {{ text: prove }} }}\n  sync:\n    - {{ id: follow, run: mysql.replicate, store: talk }}\n{}\
             \x20   - {{ id: snapshot, run: mysql.snapshot, store: talk }}\n{}  verify:\n    - {{ id: rows, run: mysql.verify, store: talk }}\n",
            endpoint(&self.source, Account::Dbmove),
            endpoint(&self.target, Account::Admin),
            stop("followed"),
            stop("copied"),
        );
        let path = self.path("talk.yaml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn dbmove(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dbmove"));
        command.args(arguments).env("DBMOVE_STATE_DIR", self.path("state")).env("DBMOVE_TEST_PASSWORD", DEFAULT_PASSWORD);
        command.env("NO_COLOR", "1").stdin(std::process::Stdio::null()).kill_on_drop(true);
        command
    }

    async fn on_source<S: AsRef<str>>(&self, statements: &[S]) {
        let mut conn = Conn::new(self.source.connect_options(Account::Root, None)).await.unwrap();
        conn.query_drop("SET NAMES binary, sql_mode = ''").await.unwrap();
        for statement in statements {
            conn.query_drop(statement.as_ref()).await.unwrap_or_else(|error| panic!("{error}: {}", statement.as_ref()));
        }
    }

    async fn load(&self) {
        // An ENUM's members come in the connection's charset.
        let mut conn = Conn::new(self.source.connect_options(Account::Root, None)).await.unwrap();
        conn.query_drop("SET NAMES utf8").await.unwrap();
        for statement in SCHEMA {
            conn.query_drop(statement).await.unwrap();
        }
        self.on_source(&BEFORE).await;
    }
}

fn said(output: &std::process::Output) -> String {
    format!("{:?}\n{}{}", output.status.code(), String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every row of every table, text as the hexadecimal of its bytes, sorted.
async fn rows(server: &LocalServer) -> Vec<String> {
    let mut conn = Conn::new(server.connect_options(Account::Root, None)).await.unwrap();
    conn.query_drop("SET NAMES binary").await.unwrap();
    let mut rows = Vec::new();
    for (table, columns) in [
        ("words", "HEX(word), lang + 0, HEX(body)"),
        ("people", "id, HEX(name), HEX(code), HEX(note)"),
        ("mixed", "id, HEX(one), HEX(two), HEX(three)"),
        ("children", "id, HEX(word)"),
        ("lines", "HEX(line), kind + 0"),
    ] {
        let found: Vec<Row> = conn.query(format!("SELECT {columns} FROM talk.{table}")).await.unwrap();
        rows.extend(found.into_iter().map(|row| format!("{table} {:?}", row.unwrap())));
    }
    rows.sort();
    rows
}

async fn converts(test: &str, source: ServerKind, target: ServerKind, options: &ServerOptions) {
    if real::skipped(test, &[source, target]) {
        return;
    }
    let world = World::start_with(source, target, options).await;
    world.load().await;
    let playbook = world.playbook(CHARSET);
    let mut run = tokio::spawn(world.dbmove(&["--yes", "run", &playbook, "--no-follow"]).output());
    for (round, stop) in [(1, "followed"), (2, "copied")] {
        while !world.path(&format!("at-{stop}")).exists() {
            tokio::select! {
                ended = &mut run => panic!("it ended before `{stop}`: {}", said(&ended.unwrap().unwrap())),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
        world.on_source(&changes(round)).await;
        std::fs::write(world.path(&format!("go-{stop}")), "").unwrap();
    }
    let ran = tokio::time::timeout(Duration::from_secs(180), run).await.expect("dbmove did not end in time").unwrap().unwrap();
    assert!(ran.status.success(), "{}", said(&ran));
    assert_eq!(rows(&world.target).await, rows(&world.source).await, "bytes changed");

    let mut conn = Conn::new(world.target.connect_options(Account::Root, None)).await.unwrap();
    let query = "SELECT CONCAT(TABLE_NAME, '.', COLUMN_NAME), COLLATION_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'talk' AND COLLATION_NAME IS NOT NULL ORDER BY 1";
    let found: Vec<(String, String)> = conn.query(query).await.unwrap();
    let expected = [
        ("children.word", "utf8mb4_general_ci"),
        ("lines.kind", "utf8mb4_unicode_ci"),
        ("lines.line", "utf8mb4_unicode_ci"),
        ("mixed.one", "utf8mb4_bin"),
        ("mixed.three", "sjis_japanese_ci"),
        ("mixed.two", "latin1_swedish_ci"),
        ("people.code", "utf8mb4_bin"),
        ("people.name", "utf8mb4_unicode_ci"),
        ("people.note", "utf8mb4_unicode_ci"),
        ("words.body", "utf8mb4_general_ci"),
        ("words.lang", "utf8mb4_general_ci"),
        ("words.word", "utf8mb4_general_ci"),
    ];
    assert_eq!(found, expected.map(|(column, collation)| (column.to_owned(), collation.to_owned())));
    // A client now reads what was meant.
    conn.query_drop("SET NAMES utf8mb4").await.unwrap();
    let (name, note): (String, String) = conn.query_first("SELECT name, note FROM talk.people WHERE id = 1").await.unwrap().unwrap();
    assert_eq!((name.as_str(), note.as_str()), ("José", "😀"));

    let report = world.dbmove(&["report", "--json"]).output().await.unwrap();
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    for conversion in ["utf8-to-utf8mb4", "latin1-holds-utf8"] {
        assert!(
            report.contains(&format!("text compared by its bytes, converted by `{conversion}`")),
            "the report does not say so: {report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_5_5_to_9_7() {
    converts("from_5_5_to_9_7", ServerKind::Mysql55, ServerKind::Mysql97, &ServerOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_5_5_to_mariadb() {
    converts("from_5_5_to_mariadb", ServerKind::Mysql55, ServerKind::MariaDb, &ServerOptions::default()).await;
}

/// A source on which a backslash is a letter and a double quote opens a name, and which takes every client for one that sends sjis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_5_5_with_other_defaults() {
    let options = ServerOptions::default()
        .argument("--sql-mode=NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT")
        .argument("--character-set-server=sjis")
        .argument("--skip-character-set-client-handshake");
    converts("from_5_5_with_other_defaults", ServerKind::Mysql55, ServerKind::Mysql97, &options).await;
}

/// A file below a directory.
fn find(directory: &std::path::Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(directory).ok()? {
        let path = entry.ok()?.path();
        if path.file_name().is_some_and(|file| file == name) {
            return Some(path);
        }
        if path.is_dir()
            && let Some(found) = find(&path, name)
        {
            return Some(found);
        }
    }
    None
}

/// Each is refused by name, and leaves nothing on the target.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_converted_is_named_first() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("what_can_not_be_converted_is_named_first", &kinds) {
        return;
    }
    let world = World::start(kinds[0], kinds[1]).await;
    world.load().await;
    world
        .on_source(&["CREATE TABLE talk.dirty (id INT NOT NULL PRIMARY KEY, word VARCHAR(60)) ENGINE=MyISAM DEFAULT CHARSET=latin1"])
        .await;
    world.on_source(&["INSERT INTO talk.dirty VALUES (1, 'clean'), (2, x'6162e9')", "FLUSH TABLES"]).await;
    // No statement of 5.5 stores bytes in a utf8 column that are no UTF-8; old files hold such. So this table gets the definition of another.
    world
        .on_source(&["CREATE TABLE talk.like_dirty (id INT NOT NULL PRIMARY KEY, word VARCHAR(20)) ENGINE=MyISAM DEFAULT CHARSET=utf8"])
        .await;
    let file = |name: &str| find(&world.path("source"), name).unwrap_or_else(|| panic!("there is no {name}"));
    std::fs::copy(file("like_dirty.frm"), file("dirty.frm")).unwrap();
    world.on_source(&["FLUSH TABLES", "DROP TABLE talk.like_dirty"]).await;
    for (charset, spoil, mend, words) in [
        (
            "{}",
            "DO 1",
            "DO 1",
            &[
                "`talk.dirty` holds text that the target does not take: 1 of its values are no UTF-8 of at most three bytes a character",
                "column `word`, row id = 2: byte 3 on is `e9`",
            ][..],
        ),
        (
            "{ \"talk.dirty\": utf8-to-utf8mb4 }",
            "DO 1",
            "DROP TABLE talk.dirty",
            &[
                "`talk.dirty` can't be converted by `utf8-to-utf8mb4`: 1 of its values are no UTF-8",
                "column `word`, row id = 2: byte 3 on is `e9`",
            ][..],
        ),
        (
            CHARSET,
            "INSERT INTO talk.people VALUES (9, x'4a6f73e9', 'z', 'w')",
            "DELETE FROM talk.people WHERE id = 9",
            &[
                "`talk.people` can't be converted by `latin1-holds-utf8`: 1 of its values are no UTF-8",
                "column `name`, row id = 9",
                "byte 4 on is `e9`",
            ][..],
        ),
        (
            // Equal as UTF-8 by accent and case, and not as the latin1 they are not.
            CHARSET,
            "INSERT INTO talk.people VALUES (9, x'4a4f53c389', 'z', 'w')",
            "DELETE FROM talk.people WHERE id = 9",
            &["unique key `name` are equal as UTF-8", "`JOSÉ` and `José`"],
        ),
        ("{ \"talk.words\": utf8-to-utf8mb4 }", "DO 1", "DO 1", &["only one side of the foreign key `says`", "`talk.children`"]),
        ("{ \"talk.nobody\": utf8-to-utf8mb4 }", "DO 1", "DO 1", &["`charset` names `talk.nobody`, and no table that moves"]),
        ("{ \"talk.words\": utf8-to-latin1 }", "DO 1", "DO 1", &["utf8-to-utf8mb4"]),
        (
            // Not of a conversion, and only the target knows it: a row that InnoDB has no room for.
            "{}",
            &format!(
                "CREATE TABLE talk.wide ({}) ENGINE=MyISAM",
                (0..40).map(|at| format!("c{at} CHAR(255) NOT NULL")).collect::<Vec<_>>().join(", ")
            ),
            "DROP TABLE talk.wide",
            &["can't hold a table as it would be made. Nothing was created", "`talk.wide`:", "Row size too large"],
        ),
        (
            // Every byte was good enough for `ascii`, and half a character for `utf8` and `utf32`.
            "{}",
            "CREATE TABLE talk.codes (id INT NOT NULL, word VARCHAR(9) CHARACTER SET utf8 NOT NULL, code TEXT CHARACTER SET ascii, wide CHAR(9) CHARACTER SET utf32, PRIMARY KEY (id, word)) \
             ENGINE=MyISAM SELECT 7 AS id, x'61eda080' AS word, x'41e9' AS code, x'000000610000d800' AS wide UNION SELECT 8, 'b', 'c', x'00000061'",
            "DROP TABLE talk.codes",
            &[
                "`talk.codes` holds text that the target does not take: 3 of its values",
                "column `word`, row id = 7, word = 0x61eda080: byte 2 on is `eda080`",
                "column `code`, row id = 7, word = 0x61eda080: byte 2 on is `e9`",
                "column `wide`, row id = 7, word = 0x61eda080: byte 5 on is `0000d800`",
                "Nothing was created",
                "make the column VARBINARY or BLOB there",
            ],
        ),
        ("{ \"talk\": utf8-to-utf8mb4 }", "DO 1", "DO 1", &["in `charset`, `talk` is not of the form `database.table`"]),
    ] {
        world.on_source(&[spoil]).await;
        let playbook = world.playbook(charset);
        // Of what the text holds `assess --deep` says the same beforehand.
        if charset.contains(':') && words[0].contains("UTF-8") {
            let assessed = world.dbmove(&["assess", &playbook, "--deep", "--json"]).output().await.unwrap();
            let text = String::from_utf8_lossy(&assessed.stdout).into_owned();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {}", said(&assessed)));
            let found = json["stores"][0]["findings"].as_array().unwrap().iter().filter(|finding| finding["id"] == "schema-conversion");
            let found: Vec<&str> = found.filter_map(|finding| finding["found"].as_str()).collect();
            assert!(found.len() == 1 && words.iter().all(|words| found[0].contains(words)), "{words:?}\n{found:#?}");
            assert_eq!(assessed.status.code(), Some(4), "{text}");
        }
        let run = world.dbmove(&["--yes", "run", &playbook, "--no-follow", "--new-run"]).output();
        let ran =
            tokio::time::timeout(Duration::from_secs(60), run).await.unwrap_or_else(|_| panic!("it was not refused: {words:?}")).unwrap();
        let text = said(&ran);
        // Lines may be broken anywhere between words.
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!ran.status.success(), "{text}");
        for words in words {
            assert!(joined.contains(words), "{words}\n{text}");
        }
        let mut conn = Conn::new(world.target.connect_options(Account::Root, None)).await.unwrap();
        let there: Option<String> =
            conn.query_first("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('talk', '_dbmove')").await.unwrap();
        assert_eq!(there, None, "it was created: {text}");
        world.on_source(&[mend]).await;
    }
}

/// Bytes that were not there when text was proven, and bytes that were not to be proven: each stops the run with the table's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_come_later_stop_the_run() {
    let kinds = [ServerKind::Mysql55, ServerKind::Mysql97];
    if real::skipped("bytes_that_come_later_stop_the_run", &kinds) {
        return;
    }
    let world = World::start(kinds[0], kinds[1]).await;
    world
        .on_source(&[
            "CREATE DATABASE talk",
            "CREATE TABLE talk.codes (id INT NOT NULL PRIMARY KEY, code VARCHAR(20) CHARACTER SET ascii) ENGINE=InnoDB",
            "INSERT INTO talk.codes VALUES (1, 'one'), (2, 'two')",
        ])
        .await;
    let bad = "INSERT INTO talk.codes VALUES (3, x'636166e9')";
    for trusted in [false, true] {
        let playbook = world.playbook("{}");
        if trusted {
            world.on_source(&[bad]).await;
            let text = std::fs::read_to_string(&playbook).unwrap();
            std::fs::write(&playbook, text.replace(", with: { text: prove }", "")).unwrap();
        }
        let run = tokio::spawn(world.dbmove(&["--yes", "run", &playbook, "--no-follow", "--new-run"]).output());
        if !trusted {
            while !world.path("at-followed").exists() {
                assert!(!run.is_finished(), "{}", said(&run.await.unwrap().unwrap()));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            world.on_source(&[bad]).await;
        }
        std::fs::write(world.path("go-followed"), "").unwrap();
        std::fs::write(world.path("go-copied"), "").unwrap();
        let ran = tokio::time::timeout(Duration::from_secs(60), run).await.expect("dbmove did not end").unwrap().unwrap();
        let text = said(&ran);
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!ran.status.success(), "{text}");
        for words in ["`talk.codes`", "Incorrect string value", "'code'", "(the first: row id = 3)", "make the column VARBINARY or BLOB"] {
            assert!(joined.contains(words), "{words}\n{text}");
        }
        world.on_source(&["DELETE FROM talk.codes WHERE id = 3"]).await;
        let mut conn = Conn::new(world.target.connect_options(Account::Root, None)).await.unwrap();
        conn.query_drop("DROP DATABASE talk").await.unwrap();
        conn.query_drop("DROP DATABASE _dbmove").await.unwrap();
    }
}
