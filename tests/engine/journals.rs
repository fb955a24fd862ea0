//! The journal as a file: who may read it, what an edit shows, what a full disk does.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use dbmove::engine::context::{Checkpoints, RunKind};
use dbmove::engine::journal::chain::Break;
use dbmove::engine::journal::{FILE, FORMAT, Journal, JournalError, JournalReader};
use dbmove::engine::outcome::{ExitCode, Serving};
use dbmove::engine::run::EngineError;
use rusqlite::Connection;
use serde_json::json;

use crate::world::{World, ledger, net, step, switch, whole_story};

async fn finished() -> World {
    let world = World::new(whole_story());
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    world
}

fn edit(world: &World, sql: &str) {
    let connection = Connection::open(world.path().join("state").join(FILE)).unwrap();
    connection.execute_batch("DROP TRIGGER IF EXISTS events_are_never_changed; DROP TRIGGER IF EXISTS events_are_never_deleted;").unwrap();
    connection.execute_batch(sql).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tampering_is_found_and_placed() {
    type Expectation = fn(&Break) -> bool;
    let edits: [(&str, Expectation); 7] = [
        (
            "UPDATE events SET body = replace(body, 'run', 'ruin') WHERE seq = (SELECT min(seq) FROM events WHERE kind = 'intent')",
            |found| matches!(found, Break::Changed { kind, .. } if kind == "intent"),
        ),
        ("UPDATE events SET at = '2020-01-01T00:00:00Z' WHERE seq = 3", |found| matches!(found, Break::Changed { sequence: 3, .. })),
        ("UPDATE events SET hash = 'feed' WHERE seq = 4", |found| matches!(found, Break::Changed { sequence: 4, .. })),
        ("DELETE FROM events WHERE seq = 5", |found| matches!(found, Break::Missing { expected: 5, found: 6 })),
        ("DELETE FROM events WHERE seq > 10", |found| matches!(found, Break::Tail { found: 10, .. })),
        ("UPDATE chain SET count = 3", |found| matches!(found, Break::Tail { recorded: 3, .. })),
        ("UPDATE events SET run = 'other' WHERE seq = 1", |found| matches!(found, Break::Changed { sequence: 1, .. })),
    ];
    for (sql, expected) in edits {
        let world = finished().await;
        assert_eq!(world.reader().audit().unwrap().broken, None);
        edit(&world, sql);
        let broken = world.reader().audit().unwrap().broken;
        assert!(broken.as_ref().is_some_and(expected), "{sql}: {broken:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_itself_refuses_changes() {
    let world = finished().await;
    let connection = Connection::open(world.path().join("state").join(FILE)).unwrap();
    for sql in ["UPDATE events SET run = 'x'", "DELETE FROM events"] {
        assert!(connection.execute_batch(sql).unwrap_err().to_string().contains("append-only"));
    }
}

#[test]
fn a_new_state_directory_is_for_its_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    let _journal = Journal::open(&directory).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn links_and_open_directories_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let (real, link) = (parent.path().join("real"), parent.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o700)).unwrap();
    symlink(&real, &link).unwrap();
    let refused = |path: &PathBuf, words: &str| match Journal::open(path) {
        Err(error @ JournalError::Unsafe { .. }) => assert!(error.to_string().contains(words), "{error}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("`{}` was opened", path.display()),
    };
    refused(&link, "symbolic link");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o755)).unwrap();
    refused(&real, "other users may enter it");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o700)).unwrap();
    symlink("/dev/null", real.join(FILE)).unwrap();
    refused(&real, "symbolic link or no regular file");
}

#[test]
fn a_newer_format_is_refused_and_a_foreign_file_too() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    drop(Journal::open(&directory).unwrap());
    let connection = Connection::open(directory.join(FILE)).unwrap();
    connection.pragma_update(None, "user_version", FORMAT + 1).unwrap();
    drop(connection);
    assert!(matches!(Journal::open(&directory), Err(JournalError::Newer { .. })));
    assert!(matches!(JournalReader::open(&directory), Err(JournalError::Newer { .. })));
    let connection = Connection::open(directory.join(FILE)).unwrap();
    connection.pragma_update(None, "application_id", 7).unwrap();
    drop(connection);
    assert!(matches!(Journal::open(&directory), Err(JournalError::Unsafe { .. })));
    std::fs::write(directory.join(FILE), "not a database at all, whatever it says").unwrap();
    assert!(matches!(Journal::open(&directory), Err(JournalError::Damaged { .. })));
    assert!(matches!(JournalReader::open(&parent.path().join("nowhere")), Err(JournalError::Missing { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_reads_while_a_driver_writes() {
    let world = World::new(json!({ "sync": [step("slow", json!({ "sleep_ms": 3_000, "rate": 10.0, "total": 30 }))] }));
    let mut driver = world.start_elsewhere(None);
    let mut seen_running = false;
    while driver.try_wait().unwrap().is_none() {
        if let Ok(reader) = JournalReader::open(&world.path().join("state"))
            && let Ok(Some(run)) = reader.latest_run("ledger", RunKind::Production)
        {
            let state = reader.state(&run.run).unwrap();
            seen_running |= state.finished.is_none() && state.step("slow").is_begun();
            assert_eq!(reader.audit().unwrap().broken, None);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(seen_running);
    let reader = world.reader();
    let series = reader.series(&world.state().run).unwrap();
    assert!((series["slow"]["rate"][0].value - 10.0).abs() < f64::EPSILON, "{series:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_newer_build_is_read_over() {
    let world = finished().await;
    let event: dbmove::engine::journal::Event = serde_json::from_value(json!({ "event": "invented_later", "x": 1 })).unwrap();
    assert_eq!(event, dbmove::engine::journal::Event::Unknown);
    let reader = world.reader();
    for recorded in reader.events(&world.state().run, 0).unwrap() {
        let text = serde_json::to_string(&recorded).unwrap();
        assert_eq!(serde_json::from_str::<dbmove::engine::journal::RecordedEvent>(&text).unwrap(), recorded);
    }
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn skipped(test: &str, reason: &str) {
    println!("SKIPPED {test}: {reason}");
    if let Ok(log) = std::env::var("DBMOVE_SKIP_LOG") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        writeln!(file, "SKIPPED {test}: {reason}").unwrap();
    }
}

/// A state directory of four mebibytes.
fn small_disk(world: &World, test: &str) -> Option<Mounted> {
    let state = world.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"]).arg(&state).output();
    match mounted {
        Ok(output) if output.status.success() => Some(Mounted(state)),
        Ok(output) => {
            skipped(test, &format!("no small disk can be mounted here: {}", String::from_utf8_lossy(&output.stderr).trim()));
            None
        }
        Err(error) => {
            skipped(test, &format!("`mount` can't be started: {error}"));
            None
        }
    }
}

fn fill(directory: &Path) {
    let mut file = std::fs::File::create(directory.join("filler")).unwrap();
    // Down to single bytes, so that not one more event fits.
    for size in [65_536, 4_096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_acts_and_the_run_goes_on_later() {
    let world = World::new(json!({ "sync": [step("first", json!({ "sleep_ms": 700 })), step("second", json!({}))] }));
    let Some(disk) = small_disk(&world, "on_a_full_disk_nothing_acts_and_the_run_goes_on_later") else { return };
    let (result, ()) = tokio::join!(world.drive(), async {
        while !ledger(world.path()).contains(&"begin first".to_owned()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        fill(&disk.0);
    });
    let words = match result {
        Ok(outcome) => {
            assert_eq!(outcome.exit_code(), ExitCode::Error);
            outcome.verdict.to_string()
        }
        Err(error) => {
            assert!(matches!(error, EngineError::Journal(JournalError::Full { .. })), "{error}");
            error.to_string()
        }
    };
    assert!(words.contains("is full"), "{words}");
    assert!(!ledger(world.path()).contains(&"begin second".to_owned()), "a step acted without a written intent");
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    assert_eq!(net(world.path()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_is_undone_even_on_a_full_disk() {
    let world = World::new(
        json!({ "cutover": [step("fence", json!({ "holds_writes": true })), step("drain", json!({ "sleep_ms": 700 })), step("after", json!({}))] }),
    );
    let Some(disk) = small_disk(&world, "a_cutover_is_undone_even_on_a_full_disk") else { return };
    let (outcome, ()) = tokio::join!(world.drive(), async {
        while !ledger(world.path()).contains(&"begin drain".to_owned()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        fill(&disk.0);
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Error, Serving::Source), "{}", outcome.verdict);
    assert_eq!(outcome.undone, ["drain", "fence"]);
    assert!(net(world.path()).is_empty(), "the fence stands: {:?}", ledger(world.path()));
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_is_believed_though_a_full_disk_kept_its_outcome_from_the_journal() {
    let world = World::new(json!({ "cutover": [
        step("fence", json!({ "holds_writes": true })),
        switch("switch", json!({ "acts_first": true, "sleep_ms": 700 })),
        step("after", json!({})),
    ] }));
    let test = "a_switch_is_believed_though_a_full_disk_kept_its_outcome_from_the_journal";
    let Some(disk) = small_disk(&world, test) else { return };
    let (outcome, ()) = tokio::join!(world.drive(), async {
        while !ledger(world.path()).contains(&"apply switch".to_owned()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        fill(&disk.0);
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Error, Serving::Target), "{}", outcome.verdict);
    assert!(outcome.undone.is_empty(), "{:?}", outcome.undone);
    assert_eq!(net(world.path()).keys().collect::<Vec<_>>(), ["fence", "switch"]);
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Done, Serving::Target), "{}", outcome.verdict);
    assert_eq!(net(world.path()).len(), 3);
}

#[test]
fn a_directory_that_is_full_from_the_start_is_named() {
    let world = World::new(json!({}));
    let Some(disk) = small_disk(&world, "a_directory_that_is_full_from_the_start_is_named") else { return };
    fill(&disk.0);
    says_no_room(Journal::open(&disk.0), &disk.0);
    assert!(matches!(JournalReader::open(&disk.0), Err(JournalError::Missing { .. })), "there is no journal yet");

    // A journal that was there before: whatever is the first to find no room for itself, the words are the same.
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    drop(Journal::open(&disk.0).unwrap());
    std::fs::remove_file(disk.0.join("reserve")).unwrap();
    fill(&disk.0);
    says_no_room(Journal::open(&disk.0), &disk.0);
    says_no_room(JournalReader::open(&disk.0), &disk.0);
    let left: Vec<_> = std::fs::read_dir(&disk.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.starts_with(".room")), "a probe was left behind: {left:?}");
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    assert_eq!(Journal::open(&disk.0).unwrap().audit().unwrap().broken, None);
}

fn says_no_room<T>(opened: Result<T, JournalError>, directory: &Path) {
    let Err(error) = opened else { panic!("a full directory was opened") };
    assert!(matches!(&error, JournalError::NoRoom { directory: named } if named == directory), "{error:?}");
    let words = error.to_string();
    for part in
        [&*directory.display().to_string(), "is full", "nothing was started, changed or undone", "Make room", "the same command again"]
    {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(error.exit_code(), ExitCode::Error);
}

#[test]
fn an_error_that_is_no_lack_of_room_is_not_called_one() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    drop(Journal::open(&directory).unwrap());
    for name in ["reserve", FILE] {
        std::fs::remove_file(directory.join(name)).unwrap();
    }
    // A directory where a file is expected: SQLite can't open it, and there is all the room in the world.
    std::fs::create_dir(directory.join(format!("{FILE}-wal"))).unwrap();
    let Err(error) = Journal::open(&directory) else { panic!("it was opened") };
    assert!(!matches!(error, JournalError::NoRoom { .. } | JournalError::Full { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_results_and_findings_are_found_again() {
    /// Saves in its first run, reads in its second.
    struct Keeper;
    #[async_trait::async_trait]
    impl dbmove::engine::step::Step for Keeper {
        fn name(&self) -> &'static str {
            "test.keeper"
        }
        fn undoable(&self) -> dbmove::engine::step::Undoable {
            dbmove::engine::step::Undoable::Nothing
        }
        async fn plan(
            &self,
            _: &dbmove::engine::context::StepContext,
        ) -> Result<dbmove::engine::step::Plan, dbmove::engine::step::StepError> {
            Ok(dbmove::engine::step::Plan::default())
        }
        async fn estimate(
            &self,
            _: &dbmove::engine::context::StepContext,
        ) -> Result<dbmove::engine::step::Estimate, dbmove::engine::step::StepError> {
            Ok(dbmove::engine::step::Estimate::Instant)
        }
        async fn run(
            &self,
            context: &dbmove::engine::context::StepContext,
        ) -> Result<dbmove::engine::step::Output, dbmove::engine::step::StepError> {
            if context.load_checkpoint("chunk")?.is_none() {
                context.save_checkpoint("chunk", &json!({ "after": 41 }))?;
                context.save_checkpoint("chunk", &json!({ "after": 42 }))?;
                context.record("chunk", "b", &json!(2))?;
                context.record("chunk", "a", &json!(1))?;
                context.find("latin1", &json!({ "level": "warning" }))?;
                return Err(dbmove::engine::step::StepError::transient("once more"));
            }
            assert_eq!(context.load_checkpoint("chunk")?, Some(json!({ "after": 42 })));
            assert_eq!(context.recorded("chunk")?, [("a".to_owned(), json!(1)), ("b".to_owned(), json!(2))]);
            Ok(dbmove::engine::step::Output::default())
        }
        async fn probe(
            &self,
            _: &dbmove::engine::context::StepContext,
        ) -> Result<dbmove::engine::step::Probe, dbmove::engine::step::StepError> {
            Ok(dbmove::engine::step::Probe::NotStarted)
        }
        async fn undo(&self, _: &dbmove::engine::context::StepContext) -> Result<(), dbmove::engine::step::StepError> {
            Ok(())
        }
    }
    let world = World::new(json!({ "sync": [step("keeper", json!({}))] }));
    let mut steps = world.scenario.built();
    steps[0].step = std::sync::Arc::new(Keeper);
    let journal = Journal::open(&world.path().join("state")).unwrap();
    let observer = std::sync::Arc::new(dbmove::engine::observer::Silent);
    let outcome = dbmove::engine::run::drive(
        world.scenario.request(),
        steps,
        Vec::new(),
        journal,
        observer,
        tokio_util::sync::CancellationToken::new(),
    )
    .await;
    let run = outcome.unwrap().run;
    let reader = world.reader();
    assert_eq!(reader.findings(&run).unwrap(), [("keeper/latin1".to_owned(), json!({ "level": "warning" }))]);
    assert_eq!(reader.checkpoints(&run, "keeper").unwrap()["chunk"], json!({ "after": 42 }));
    assert_eq!(reader.results(&run, "keeper", "chunk").unwrap().len(), 2);
    // A checkpoint trait of one's own works without lists.
    struct Plain(std::sync::Mutex<Vec<String>>);
    impl Checkpoints for Plain {
        fn save(&self, _: &str, key: &str, _: &serde_json::Value) -> Result<(), dbmove::engine::step::StepError> {
            self.0.lock().unwrap().push(key.to_owned());
            Ok(())
        }
        fn load(&self, _: &str, _: &str) -> Result<Option<serde_json::Value>, dbmove::engine::step::StepError> {
            Ok(None)
        }
    }
    let plain = Plain(std::sync::Mutex::default());
    plain.record("s", "chunk", "a", &json!(1)).unwrap();
    assert_eq!(*plain.0.lock().unwrap(), ["chunk/a"]);
    assert!(plain.recorded("s", "chunk").is_err());
}
