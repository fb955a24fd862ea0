//! A rehearsal under a load from captured log files: it ends in production's rows and production is not read for it; what is not one whole stretch of
//! a server's log is named before anything is touched; and the certificate says which files it was.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "replay/production.rs"]
mod production;
mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dbmove::local::{Account, LocalServer, ServerKind};
use dbmove::mysql::error::MysqlError;
use dbmove::mysql::names::Selection;
use dbmove::mysql::replay::captured::{Captured, Surveyed};
use dbmove::mysql::replay::file::{FileError, LogFileReader};
use dbmove::mysql::replay::load::{Log, Replay};
use dbmove::mysql::replay::log::{Item, LogReader, MEMORY};
use dbmove::mysql::replay::origin::Origin;
use dbmove::mysql::tables::Tables;
use dbmove::mysql::tail::{MemoryLimit, event_type};
use mysql_async::prelude::Queryable;
use production::{KINDS, command, equal_by_replay, logged, no_run, read, rehearsed, report, seconds_pass, wait_for};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use world::{World, code, connect, number, said};

/// What the copy's tables and selection are to a reader.
fn reader(tables: Arc<Tables>) -> LogReader {
    LogReader {
        tables,
        selection: Arc::new(Selection::new(&["school.*".to_owned()], &[]).unwrap()),
        lower_case_names: false,
        limit: MemoryLimit::new(MEMORY),
        read: Arc::default(),
    }
}

async fn newest_log(server: &LocalServer) -> String {
    let mut conn = connect(server, Account::Root).await;
    conn.query::<mysql_async::Row, _>("SHOW BINARY LOGS").await.unwrap().last().unwrap().get(0).unwrap()
}

/// The server's log files from this one on, as they are on its disk now.
async fn copied(server: &LocalServer, from: &str, to: &Path) -> Vec<PathBuf> {
    std::fs::create_dir_all(to).unwrap();
    let mut conn = connect(server, Account::Root).await;
    let names = conn.query::<mysql_async::Row, _>("SHOW BINARY LOGS").await.unwrap();
    let names = names.iter().map(|row| row.get::<String, _>(0).unwrap()).skip_while(|name| name != from);
    names
        .map(|name| {
            std::fs::copy(server.data_directory().join(&name), to.join(&name)).unwrap();
            to.join(name)
        })
        .collect()
}

async fn surveyed(paths: &[PathBuf]) -> Result<Arc<Surveyed>, FileError> {
    Captured::new(paths.to_vec(), None).surveyed().await.cloned()
}

/// Transactions and changes of one pass, and what was left out.
async fn passed(reader: &LogReader, surveyed: Arc<Surveyed>) -> Result<(u64, u64, BTreeMap<String, u64>), MysqlError> {
    let (out, mut received) = mpsc::channel(16);
    let origin = Origin::Files(surveyed);
    let reading = async {
        let out = out;
        reader.pass(&origin, &out).await
    };
    let counting = async {
        let mut changes = 0;
        while let Some(item) = received.recv().await {
            if let Item::Transaction(transaction) = item {
                changes += transaction.changes();
            }
        }
        changes
    };
    let (transactions, changes) = tokio::join!(reading, counting);
    Ok((transactions?, changes, reader.read.left_out()))
}

fn words(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",")
}

/// A file is replayed as the server's own log would be: the copy has production's rows then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_captured_ends_in_productions_rows() {
    for kind in [ServerKind::Mysql55, ServerKind::Mysql97, ServerKind::Mysql56, ServerKind::MariaDb] {
        if !real::skipped("what_was_captured_ends_in_productions_rows", &[kind, ServerKind::Mysql97]) {
            rows_are_productions(kind).await;
        }
    }
}

async fn rows_are_productions(kind: ServerKind) {
    let mut world = World::start(kind, ServerKind::Mysql97, 0.02).await.with_rehearsal().await;
    command(&world.source, &["FLUSH LOGS"]).await;
    let first = newest_log(&world.source).await;
    // A first transaction of its own and a gap behind it: the window begins again with them, and for so long the rows stay what they are.
    command(&world.source, &["INSERT INTO school.accounts (id, owner, balance) VALUES (900001, 'first', 0)", "FLUSH LOGS"]).await;
    seconds_pass(&world.source, 6).await;
    let writers = world.write(100.0, 100.0).await;
    seconds_pass(&world.source, 1).await;
    command(&world.source, &["FLUSH LOGS"]).await;
    seconds_pass(&world.source, 3).await;
    let counts = world::stopped(writers).await;
    let files = copied(&world.source, &first, &world.path("captured")).await;
    assert_eq!(files.len(), 3, "{files:?}");
    streamed_is_the_same(&world, &first, &files).await;

    let store = rehearsed(&world);
    command(&world.source, &["SET GLOBAL log_output = 'TABLE'", "TRUNCATE mysql.general_log", "SET GLOBAL general_log = 1"]).await;
    let log = Log::Captured(Arc::new(Captured::new(files.clone(), None)));
    let replay = Replay { store: store.clone(), log };
    replay.check(&no_run()).await.unwrap();
    let figures = equal_by_replay(&replay, &world, &counts).await;

    // Production was asked who it is, and nothing for the load.
    let asked = logged(&world.source, "dbmove").await;
    assert!(number(&world.source, "SELECT COUNT(*) FROM mysql.general_log").await > 0, "nothing was logged: the test sees nothing");
    for sent in asked.keys() {
        let of_the_proof = ["SELECT IS_USED_LOCK(", "SELECT @@global.server_uuid", "SET SESSION TRANSACTION READ ONLY"];
        assert!(of_the_proof.iter().any(|begin| sent.starts_with(begin)), "{sent}");
    }
    for (path, file) in files.iter().zip(&figures.files) {
        let bytes = std::fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let told = (file.name.as_str(), file.bytes, file.sha256.clone());
        assert_eq!(told, (name, bytes.len() as u64, hex::encode(Sha256::digest(&bytes))));
        assert!(figures.from.contains(&format!("`{name}`")), "{}", figures.from);
    }

    let described = store.described().await.unwrap();
    let all: Vec<_> = described.catalog.tables.values().cloned().collect();
    let tables = Arc::new(Tables::new(&all, &described.source.version).unwrap());
    // The last stretch is a part of all of it.
    let whole = passed(&reader(tables.clone()), surveyed(&files).await.unwrap()).await.unwrap();
    let stretch = Captured::new(files.clone(), Some(Duration::from_secs(2)));
    let last = passed(&reader(tables.clone()), stretch.surveyed().await.unwrap().clone()).await.unwrap();
    assert!(0 < last.0 && last.0 < whole.0 && last.1 < whole.1 && whole.2.is_empty(), "{last:?} of {whole:?}");
    damage_is_seen(kind, &files, &tables, &world.path("damaged.000001")).await;
}

/// What `mysqlbinlog --raw` writes is what the server has on its disk.
async fn streamed_is_the_same(world: &World, first: &str, files: &[PathBuf]) {
    // That of 5.5 can't; MariaDB comes without.
    if !matches!(world.source.kind(), ServerKind::Mysql56 | ServerKind::Mysql97) {
        return;
    }
    let Ok(mut command) = world.source.client("mysqlbinlog") else {
        eprintln!("{:?} comes without `mysqlbinlog`", world.source.kind());
        return;
    };
    let to = world.path("streamed");
    std::fs::create_dir_all(&to).unwrap();
    command.args(["--read-from-remote-server", "--raw", "--to-last-log"]).arg(format!("--result-file={}/", to.display())).arg(first);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let streamed: Vec<PathBuf> = files.iter().map(|file| to.join(file.file_name().unwrap())).collect();
    let (streamed, copied) = (surveyed(&streamed).await.unwrap().files(), surveyed(files).await.unwrap().files());
    // The last one differs by the mark that it is being written.
    let last = copied.len() - 1;
    assert_eq!(streamed[..last], copied[..last]);
    assert_eq!((&streamed[last].name, streamed[last].bytes), (&copied[last].name, copied[last].bytes));
}

/// No byte goes over unseen where the server wrote checksums; where it did not, none makes a reader fall over.
async fn damage_is_seen(kind: ServerKind, files: &[PathBuf], tables: &Arc<Tables>, at: &Path) {
    for (file, step) in [(&files[0], 1), (&files[1], 3989)] {
        let bytes = std::fs::read(file).unwrap();
        let mut unseen = 0;
        for place in (0..bytes.len()).step_by(step) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x55;
            std::fs::write(at, damaged).unwrap();
            match surveyed(&[at.to_owned()]).await {
                Err(_) => {}
                Ok(surveyed) => {
                    unseen += 1;
                    assert_eq!(kind, ServerKind::Mysql55, "byte {place} of `{}`", file.display());
                    // Whatever it says now.
                    let _ = passed(&reader(tables.clone()), surveyed).await;
                }
            }
        }
        eprintln!("{kind:?}: {unseen} of {} damaged bytes can't be seen", bytes.len().div_ceil(step));
        // A file that is cut is seen, wherever that is, but between two events.
        let mut boundaries = 0;
        for length in (0..bytes.len()).step_by(step) {
            std::fs::write(at, &bytes[..length]).unwrap();
            boundaries += usize::from(surveyed(&[at.to_owned()]).await.is_ok());
        }
        assert!(boundaries < 40, "{kind:?}: {boundaries} of {} cuts were not seen", bytes.len().div_ceil(step));
    }
}

/// Files of a small server, and its wishes: each statement is run, and a file of its own ends behind it.
async fn file_of(server: &LocalServer, statements: &[&str], to: &Path) -> PathBuf {
    command(server, &["FLUSH LOGS"]).await;
    let name = newest_log(server).await;
    command(server, statements).await;
    command(server, &["FLUSH LOGS"]).await;
    copied(server, &name, to).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_whole_stretch_of_a_log_is_named() {
    for kind in [ServerKind::Mysql55, ServerKind::Mysql56, ServerKind::Mysql97, ServerKind::MariaDb] {
        if !real::skipped("what_is_no_whole_stretch_of_a_log_is_named", &[kind]) {
            each_is_named(kind).await;
        }
    }
}

async fn each_is_named(kind: ServerKind) {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mut server = LocalServer::start(kind, &at("server"), &world::source_options(kind)).await.unwrap();
    command(&server, &["CREATE DATABASE school", "CREATE TABLE school.notes (id INT PRIMARY KEY AUTO_INCREMENT, text TEXT)"]).await;
    let insert = "INSERT INTO school.notes (text) VALUES (REPEAT('x', 1000)), ('y')";
    command(&server, &["FLUSH LOGS"]).await;
    let first = newest_log(&server).await;
    command(&server, &[insert, "FLUSH LOGS", insert, insert, "FLUSH LOGS", insert]).await;
    let files = copied(&server, &first, &at("files")).await;
    let [one, two, three] = &files[..] else { panic!("{files:?}") };
    assert_eq!(surveyed(&files).await.unwrap().remarks, BTreeMap::new());

    // Order, gaps, names, servers.
    let refused = async |paths: &[&PathBuf]| {
        let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).clone()).collect();
        surveyed(&paths).await.unwrap_err()
    };
    for paths in [&[two, one][..], &[one, three], &[one, one]] {
        let error = refused(paths).await;
        assert!(matches!(error, FileError::OutOfOrder { .. }), "{kind:?}: {error}");
    }
    let renamed = at("busy-hour.log");
    std::fs::copy(two, &renamed).unwrap();
    assert!(matches!(refused(&[one, &renamed]).await, FileError::NoNumber { .. }));
    assert!(surveyed(std::slice::from_ref(&renamed)).await.is_ok());
    // Another number than the one that the file before names.
    let shifted = [at("mysql-bin.000071"), at("mysql-bin.000072")];
    std::fs::copy(one, &shifted[0]).unwrap();
    std::fs::copy(two, &shifted[1]).unwrap();
    let error = refused(&[&shifted[0], &shifted[1]]).await;
    assert!(error.to_string().contains("ends by naming number"), "{error}");
    let id = number(&server, "SELECT @@global.server_id").await;
    let own = file_of(&server, &[insert], &at("own")).await;
    let other = file_of(&server, &[&format!("SET GLOBAL server_id = {}", id + 7), "FLUSH LOGS", insert], &at("other")).await;
    command(&server, &[&format!("SET GLOBAL server_id = {id}")]).await;
    let name = other.file_name().unwrap().to_str().unwrap();
    let of_other = copied(&server, name, &at("other")).await[1].clone();
    let error = refused(&[&other, &of_other]).await;
    assert!(error.to_string().contains("by the server with `server_id`"), "{kind:?}: {error}");
    assert!(surveyed(&[own]).await.is_ok());

    // What is no log of rows.
    let pipe = at("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (name, bytes) in
        [("empty", &b""[..]), ("short", b"\xfebi"), ("text", b"# at 4\n#261128 20:00:00 server id 1"), ("begin", b"\xfebin")]
    {
        std::fs::write(at(name), bytes).unwrap();
        let error = refused(&[&at(name)]).await;
        assert!(matches!(error, FileError::NotALog { .. }), "{name}: {error}");
    }
    let mut bytes = std::fs::read(one).unwrap();
    bytes[0] = 0xfd;
    std::fs::write(at("encrypted"), &bytes).unwrap();
    // Without its first event, which says how to read the others.
    bytes[0] = 0xfe;
    let size = u32::from_le_bytes(bytes[13..17].try_into().unwrap()) as usize;
    std::fs::write(at("headless"), [&bytes[..4], &bytes[4 + size..]].concat()).unwrap();
    // One of its events is missing.
    let mut reading = LogFileReader::open(two, None).await.unwrap();
    let mut begins = Vec::new();
    loop {
        let at = usize::try_from(reading.offset()).unwrap();
        let Some(event) = reading.next().await.unwrap() else { break };
        begins.push((at, event.header().event_type_raw()));
    }
    let bytes = std::fs::read(two).unwrap();
    let gap = begins.len() / 2;
    std::fs::write(at("gap"), [&bytes[..begins[gap].0], &bytes[begins[gap + 1].0..]].concat()).unwrap();
    std::fs::write(at("cut"), &bytes[..bytes.len() - 1]).unwrap();
    for (path, expected) in [
        (at("nowhere"), "can't be read: "),
        (at("files"), "is no file"),
        (pipe, "is no file"),
        (at("encrypted"), "is encrypted"),
        (at("headless"), "its first event does not describe the format"),
        (at("gap"), "events are missing"),
        (at("cut"), "is cut off: the event at byte "),
    ] {
        let error = refused(&[&path]).await;
        assert!(error.to_string().contains(expected) && error.to_string().contains(&path.display().to_string()), "{kind:?}: {error}");
        assert!(!error.hint().is_empty());
    }
    let by_statement = ["SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO school.notes (text) VALUES ('by statement')"];
    let statements = file_of(&server, &by_statement, &at("statements")).await;
    assert!(matches!(refused(&[&statements]).await, FileError::NoRows { .. }));
    let compression = match kind {
        ServerKind::Mysql97 => Some("SET SESSION binlog_transaction_compression = ON"),
        ServerKind::MariaDb => Some("SET GLOBAL log_bin_compress = ON"),
        _ => None,
    };
    if let Some(compression) = compression {
        let packed = file_of(&server, &[compression, insert], &at("packed")).await;
        let error = refused(&[&packed]).await;
        assert!(matches!(error, FileError::Compressed { .. }), "{kind:?}: {error}");
    }
    if kind == ServerKind::MariaDb {
        command(&server, &["SET GLOBAL log_bin_compress = OFF"]).await;
    }
    // A server that has checksums, and leaves them out.
    if kind != ServerKind::Mysql55 {
        command(&server, &["SET GLOBAL binlog_checksum = 'NONE'"]).await;
        let without = file_of(&server, &[insert], &at("without")).await;
        surveyed(&[without]).await.unwrap();
        command(&server, &["SET GLOBAL binlog_checksum = 'CRC32'"]).await;
    }

    // Left out, and said: what was logged by statement between rows, and what the file ends in the middle of.
    let none = Arc::new(Tables::new(&[], &dbmove::mysql::connect::Version::parse(server.version())).unwrap());
    let mixed = file_of(&server, &[insert, by_statement[0], by_statement[1]], &at("mixed")).await;
    let (_, _, left_out) = passed(&reader(none.clone()), surveyed(&[mixed]).await.unwrap()).await.unwrap();
    assert_eq!(left_out.get("changes that were logged by statement: their rows are not in the log"), Some(&1), "{kind:?}: {left_out:?}");
    let commit = begins.iter().rposition(|(_, kind)| *kind == event_type::XID).unwrap();
    std::fs::write(at("open"), &bytes[..begins[commit].0]).unwrap();
    let (_, _, left_out) = passed(&reader(none), surveyed(&[at("open")]).await.unwrap()).await.unwrap();
    assert_eq!(left_out.get("transactions whose end is not in the files"), Some(&1), "{kind:?}: {left_out:?}");

    // A server that died says nothing of its next file.
    let dies = newest_log(&server).await;
    command(&server, &[insert]).await;
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    command(&server, &[insert]).await;
    let files = copied(&server, &dies, &at("died")).await;
    let remarks = surveyed(&files).await.unwrap().remarks.clone();
    assert!(files.len() == 2 && remarks.len() == 1 && remarks.values().sum::<u64>() == 1, "{kind:?}: {files:?}: {remarks:?}");
}

/// The whole rehearsal while production is down: refused for files that are not there, killed, gone on with, certified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_under_captured_files_needs_no_production_and_goes_on_after_a_kill() {
    if real::skipped("a_rehearsal_under_captured_files_needs_no_production_and_goes_on_after_a_kill", &KINDS) {
        return;
    }
    let mut world = World::start(KINDS[0], KINDS[1], 0.02).await.with_rehearsal().await;
    command(&world.source, &["FLUSH LOGS"]).await;
    let first = newest_log(&world.source).await;
    let writers = world.write(60.0, 30.0).await;
    seconds_pass(&world.source, 2).await;
    command(&world.source, &["FLUSH LOGS"]).await;
    seconds_pass(&world.source, 2).await;
    world::stopped(writers).await;
    let files = copied(&world.source, &first, &world.path("captured")).await;
    assert_eq!(files.len(), 2, "{files:?}");
    world.source.stop().await.unwrap();

    let playbook = world.playbook_argument();
    let (source, target) = world.rehearsal.as_ref().unwrap();
    let untouched = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('school', '_dbmove')";
    let cut = world.path("cut.000001");
    let bytes = std::fs::read(&files[0]).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 5]).unwrap();
    let backwards = format!("{},{}", files[1].display(), files[0].display());
    let of_another = format!("shop={}", files[0].display());
    for (log, exit, expected) in [
        (cut.to_str().unwrap(), 4, "is cut off: the event at byte "),
        (playbook.as_str(), 4, "is no binary log"),
        (&backwards, 4, "does not follow"),
        (&of_another, 2, "there is no store `shop`"),
    ] {
        let refused = world.finished(&["rehearse", &playbook, "--load", "3x", "--load-log", log]).await;
        assert_eq!((code(&refused), said(&refused).contains(expected)), (exit, true), "{log}: {}", said(&refused));
        assert!(exit == 2 || said(&refused).contains("the load of `school` can't be made"), "{}", said(&refused));
        assert_eq!(number(target, untouched).await, 0);
    }

    let log = words(&files);
    let words = ["rehearse", playbook.as_str(), "--load", "3x", "--load-log", &log, "--load-for", "5s"];
    let before = number(source, "SELECT COUNT(*) FROM school.transfers").await;
    let mut killed = world.started(&words, "killed.log");
    wait_for("a write of the load", async || {
        assert!(killed.try_wait().unwrap().is_none(), "{}", read(&world.path("killed.log")));
        number(source, "SELECT COUNT(*) FROM school.transfers").await > before
    })
    .await;
    killed.kill().await.unwrap();
    let aside = world.path("aside");
    std::fs::rename(&files[1], &aside).unwrap();
    let refused = world.finished(&words).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
    let gone = format!("the log file `{}` can't be read", files[1].display());
    assert!(said(&refused).contains(&gone), "{}", said(&refused));
    std::fs::rename(&aside, &files[1]).unwrap();
    let rehearsed = world.finished(&words).await;
    eprintln!("{}", said(&rehearsed));
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    let report = report(&world).await;
    let school = &report["load"]["stores"]["school"];
    assert!(report["load"]["keeps_up"] == true && school["sent"].is_null() && school["left_out"].is_null(), "{report:#}");
    assert!(school["changes"].as_u64().unwrap() > 0, "{report:#}");

    // Which files, in the report, in what people see, and bound into the certificate.
    let shown = world.finished(&["--json", "certificate", "show", &playbook]).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let captured = &shown["certificate"]["certificate"]["load"]["captured"]["school"];
    assert!(captured["window_begins"].is_string() && captured["window_ends"].is_string(), "{shown:#}");
    let text = said(&world.finished(&["certificate", "show", &playbook]).await);
    for (index, path) in files.iter().enumerate() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let digest = hex::encode(Sha256::digest(std::fs::read(path).unwrap()));
        for files in [&captured["files"], &school["files"]] {
            assert!(files[index]["name"] == name && files[index]["sha256"] == digest, "{files:#}");
        }
        assert!(said(&rehearsed).contains(&digest) && text.contains(&format!("`{name}`")), "{text}\n{}", said(&rehearsed));
    }
    assert_eq!(code(&world.finished(&["certificate", "check", &playbook]).await), 0);
}
