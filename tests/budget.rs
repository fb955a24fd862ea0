//! Budgets and the way back: a cutover that can't be done in time, or whose switch fails, leaves all as it was; a rehearsal
//! leaves a certificate and nothing else; and the next cutover succeeds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "moving/evidence.rs"]
mod evidence;
mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dbmove::local::Account;
use evidence::{PAIR, Untouched, accepts_writes, ask, command, ended, schema};
use mysql_async::prelude::Queryable as _;
use world::{World, code, connect, number, said, stopped};

const CUTOVER: [&str; 5] = ["--deadline", "1h", "--without-rehearsal", "a test of the budgets", "--yes"];

/// The source serves as before: writable, the route points to it, and the writers got on within a second.
async fn serves_as_before(world: &World, what: &str) {
    assert_eq!(number(&world.source, "SELECT @@global.read_only").await, 0, "{what}");
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.source.port()), "{what}");
    assert!(accepts_writes(&world.source).await, "{what}: the source takes no write");
    let before = number(&world.source, "SELECT COUNT(*) FROM school.transfers").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = number(&world.source, "SELECT COUNT(*) FROM school.transfers").await;
    assert!(after > before, "{what}: the writers did not go on");
}

/// A switch by a command of the operator's, which does as the file `mode` says.
fn with_a_command(world: &World) -> String {
    let script = world.path("switch.sh");
    std::fs::write(
        &script,
        "case \"$2\" in\n  probe) grep -q \":$3\\$\" \"$1/route\" && exit 0; exit 1 ;;\n  *) case \"$2 $(cat \"$1/mode\")\" in\n    \
         'go fail') echo 'the proxy said no' >&2; exit 9 ;;\n    *refuse) echo 'the proxy does nothing' >&2; exit 4 ;;\n    \
         *lie) exit 0 ;;\n    *) echo \"127.0.0.1:$3\" > \"$1/new\"; mv \"$1/new\" \"$1/route\" ;;\n  esac ;;\nesac\n",
    )
    .unwrap();
    let words =
        |verb: &str, port: u16| format!("[sh, \"{}\", \"{}\", {verb}, \"{port}\"]", script.display(), world.directory.path().display());
    let (source, target) = (world.source.port(), world.target.port());
    let text = world.playbook_text("30s");
    let line = text.lines().find(|line| line.contains("id: switch")).unwrap();
    let switch = format!(
        "    - {{ id: switch, run: traffic.exec, point_of_no_return: true, with: {{ command: {}, probe: {}, undo: {}, rehearsal: {{ skip: \"not here\" }} }} }}",
        words("go", target),
        words("probe", target),
        words("back", source)
    );
    // What is in the fence's way is met here, not waited for before.
    let follow = "run: mysql.replicate, store: school }";
    assert!(text.contains(follow));
    text.replace(line, &switch).replace(follow, "run: mysql.replicate, store: school, with: { wait_for_transactions: 0s } }")
}

/// Every way a cutover can fail before the switch, one after the other on one run; then one that works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undone_and_then_done() {
    if real::skipped("undone_and_then_done", &PAIR) {
        return;
    }
    let mut world = World::start(PAIR[0], PAIR[1], 0.02).await;
    std::fs::write(world.playbook(), with_a_command(&world)).unwrap();
    std::fs::write(world.path("mode"), "ok").unwrap();
    let playbook = world.playbook_argument();
    let writers = world.write(150.0, 60.0).await;
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let cutover = |more: &[&str]| {
        let mut words = vec!["cutover".to_owned(), playbook.clone()];
        words.extend(CUTOVER.iter().chain(more).map(|word| (*word).to_owned()));
        words
    };
    let cut = async |more: &[&str]| {
        let words = cutover(more);
        world.finished(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    };

    // A budget that nothing can keep.
    let tight = cut(&["--max-write-gap", "1ms"]).await;
    eprintln!("--- tight\n{}", said(&tight));
    assert_eq!(code(&tight), 1, "{}", said(&tight));
    assert!(said(&tight).contains("WRITE GAP: ROLLED BACK") && said(&tight).contains("max_write_gap"), "{}", said(&tight));
    serves_as_before(&world, "a tight budget").await;

    // A long query keeps the fence from closing for longer than writes may be held.
    let mut slow = connect(&world.source, Account::Root).await;
    let id = slow.id();
    let query = tokio::spawn(async move { slow.query_drop("SELECT SLEEP(40) FROM school.accounts LIMIT 1").await });
    let began = Instant::now();
    let held = cut(&["--max-write-gap", "2s"]).await;
    let took = began.elapsed();
    eprintln!("--- held ({took:?})\n{}", said(&held));
    assert_eq!(code(&held), 1, "{}", said(&held));
    assert!(said(&held).contains("WRITE GAP: ROLLED BACK"), "{}", said(&held));
    assert!(took < Duration::from_secs(15), "{took:?}");
    serves_as_before(&world, "a long query in the way").await;
    assert!(!query.is_finished(), "the query was killed though its time was not over");
    command(&world.source, &[&format!("KILL {id}")]).await;
    let _ = query.await.unwrap();

    // A switch that fails and is taken back, one that says it did nothing, and one that only says it was done.
    for (mode, exit, expected) in [("fail", 1, "the proxy said no"), ("refuse", 4, "the proxy does nothing"), ("lie", 1, "succeeded, but")]
    {
        std::fs::write(world.path("mode"), mode).unwrap();
        let failed = cut(&[]).await;
        eprintln!("--- {mode}\n{}", said(&failed));
        assert_eq!(code(&failed), exit, "{}", said(&failed));
        assert!(said(&failed).contains(expected), "{}", said(&failed));
        serves_as_before(&world, mode).await;
    }

    // Then one that works; nothing was lost on the way.
    std::fs::write(world.path("mode"), "ok").unwrap();
    let done = cut(&[]).await;
    assert_eq!(code(&done), 0, "{}", said(&done));
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.target.port()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    stopped(writers).await;
    let verdict = world.ledger_on(&world.target).await;
    assert!(verdict.is_clean(), "{verdict:?}");
    assert!(verdict.acknowledged > 200, "{verdict:?}");
}

/// Copies a state directory, so that what is done to the copy does not touch the run.
fn copied(world: &World, name: &str) -> PathBuf {
    let to = world.path(name);
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(world.state()).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&to, mode).unwrap();
    to
}

/// A cutover that must be refused before it touches anything.
async fn refused(world: &World, name: &str, state: &Path, playbook: &str, deadline: &str, expected: &str) {
    let before = Untouched::now(world).await;
    let state = state.display().to_string();
    let output = world.finished(&["--yes", "--state-dir", &state, "cutover", playbook, "--deadline", deadline]).await;
    let words = said(&output);
    eprintln!("--- {name}: exit {}\n{}", code(&output), words.lines().take(6).collect::<Vec<_>>().join("\n"));
    assert_eq!(code(&output), 4, "{name}: {words}");
    assert!(words.contains(expected), "{name}: {words}");
    assert_eq!(Untouched::now(world).await, before, "{name}");
}

/// Rehearsal, certificate, every reason to refuse it, a missed deadline, and the cutover it was all for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rehearsed_refused_late_and_done() {
    if real::skipped("rehearsed_refused_late_and_done", &PAIR) {
        return;
    }
    let mut world = World::start(PAIR[0], PAIR[1], 0.02).await.with_rehearsal().await;
    let playbook = world.playbook_argument();
    let writers = world.write(100.0, 40.0).await;
    let before = Untouched::now(&world).await;
    let pristine = schema(&world.rehearsal.as_ref().unwrap().1, true).await;
    for server in [&world.source, &world.target] {
        command(server, &["SET GLOBAL log_output = 'TABLE'", "SET GLOBAL general_log = 1"]).await;
    }

    // The rehearsal touches its own pair only, and leaves that as it was. What it asks of production, to know it for another, is in
    // `tests/copies.rs`.
    let rehearsed = world.finished(&["--yes", "rehearse", &playbook]).await;
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    assert!(said(&rehearsed).contains("certificate"), "{}", said(&rehearsed));
    for (server, role) in [(&world.source, "source"), (&world.target, "target")] {
        command(server, &["SET GLOBAL general_log = 0"]).await;
        let heard = ask(server, "SELECT COUNT(*) FROM mysql.general_log").await;
        assert!(heard.parse::<u64>().unwrap_or(1) > 0 || role == "target");
        let ours = "SELECT GROUP_CONCAT(CONVERT(argument USING utf8) SEPARATOR '\\n') FROM mysql.general_log WHERE (user_host LIKE 'dbmove%' OR user_host LIKE 'admin%') AND command_type NOT IN ('Connect', 'Quit') AND CONVERT(argument USING utf8) NOT LIKE 'SELECT IS\\_USED\\_LOCK(%' AND CONVERT(argument USING utf8) NOT IN ('SELECT @@global.server_uuid', 'SET SESSION TRANSACTION READ ONLY')";
        assert_eq!(ask(server, ours).await, "", "the rehearsal spoke to the production {role}");
    }
    assert_eq!(Untouched::now(&world).await, before);
    let (rehearsal_source, rehearsal_target) = world.rehearsal.as_ref().unwrap();
    assert_eq!(schema(rehearsal_target, true).await, pristine, "the rehearsal left something on its target");
    assert_eq!(number(rehearsal_source, "SELECT @@global.read_only").await, 0);
    assert!(schema(rehearsal_source, false).await.iter().all(|line| !line.contains("_dbmove")));
    assert_eq!(std::fs::read_to_string(world.path("route.rehearsal")).unwrap(), format!("127.0.0.1:{}\n", rehearsal_source.port()));

    // What the certificate does not speak for any more.
    let changed = world.path("changed.yaml");
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    std::fs::write(&changed, text.replace("max_write_gap: 30s", "max_write_gap: 31s")).unwrap();
    refused(
        &world,
        "changed playbook",
        &copied(&world, "changed"),
        &changed.display().to_string(),
        "1h",
        "the playbook changed since rehearsal",
    )
    .await;

    let edited = copied(&world, "edited");
    let journal = rusqlite::Connection::open(edited.join("journal.sqlite")).unwrap();
    let forged = journal
        .execute_batch(
            "DROP TRIGGER events_are_never_changed; \
             UPDATE events SET body = replace(body, '\"undo_seconds\":', '\"undo_seconds\":1') WHERE body LIKE '%undo_seconds%';",
        )
        .map(|()| journal.query_row("SELECT COUNT(*) FROM events WHERE body LIKE '%\"undo_seconds\":1%'", [], |row| row.get::<_, i64>(0)));
    assert!(forged.unwrap().unwrap() > 0, "nothing was forged");
    drop(journal);
    refused(&world, "edited certificate", &edited, &playbook, "1h", "the journal was edited").await;

    refused(&world, "too little time", &copied(&world, "hasty"), &playbook, "500ms", "").await;

    let short = world.path("short.yaml");
    std::fs::write(&short, text.replace("max_write_gap: 30s", "max_write_gap: 30s\ncertificate_lifetime: 10ms")).unwrap();
    let short = short.display().to_string();
    let state = world.path("expired");
    let again = world.finished(&["--yes", "--state-dir", &state.display().to_string(), "rehearse", &short]).await;
    assert_eq!(code(&again), 0, "{}", said(&again));
    tokio::time::sleep(Duration::from_millis(50)).await;
    refused(&world, "expired certificate", &state, &short, "1h", "expired at").await;

    // The schema changed since: seen when the facts are in, before writes are held.
    command(&world.source, &["ALTER TABLE school.settings ADD COLUMN since INT"]).await;
    let state = copied(&world, "schema").display().to_string();
    let other = world.finished(&["--yes", "--state-dir", &state, "cutover", &playbook, "--deadline", "1h"]).await;
    assert_eq!(code(&other), 4, "{}", said(&other));
    assert!(said(&other).contains("`schema_fingerprint` of step"), "{}", said(&other));
    assert!(said(&other).contains(": `school.settings` is another"), "what changed is not named: {}", said(&other));
    assert!(!said(&other).contains("writes are held"), "{}", said(&other));
    serves_as_before(&world, "changed schema").await;
    command(&world.source, &["ALTER TABLE school.settings DROP COLUMN since"]).await;
    command(&world.target, &["DROP DATABASE school", "DROP DATABASE _dbmove"]).await;

    // A target that stands still: the deadline can't be kept, and the source serves on.
    let log = world.path("log");
    let mut cutover = world.started(&["--yes", "cutover", &playbook, "--deadline", "15s"], "log");
    let mut throttle = connect(&world.target, Account::Root).await;
    let began = Instant::now();
    while throttle.query_drop("LOCK TABLES school.transfers WRITE, school.students WRITE").await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", std::fs::read_to_string(&log).unwrap());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // A statement that waits for the lock is given half a minute to stop; that time is not what is tested here.
    tokio::time::sleep(Duration::from_secs(16).saturating_sub(began.elapsed())).await;
    throttle.query_drop("UNLOCK TABLES").await.unwrap();
    let (exit, words) = ended(&mut cutover, &log).await;
    eprintln!("--- late: exit {exit} after {:?}\n{words}", began.elapsed());
    assert_eq!(exit, 5, "{words}");
    assert!(words.contains("DEADLINE"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(35), "long past its deadline: {:?}", began.elapsed());
    serves_as_before(&world, "a missed deadline").await;

    // With time enough it goes on from there, with the certificate.
    let done = world.finished(&["--yes", "cutover", &playbook, "--deadline", "2h"]).await;
    eprintln!("--- done\n{}", said(&done));
    assert_eq!(code(&done), 0, "{}", said(&done));
    tokio::time::sleep(Duration::from_secs(1)).await;
    stopped(writers).await;
    let verdict = world.ledger_on(&world.target).await;
    assert!(verdict.is_clean(), "{verdict:?}");
    let report = world.finished(&["report", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["verdict"]["serving"], "target", "{report}");
    assert!(report["certificate"]["hash"].is_string() && report["approvals"]["without_rehearsal"].is_null(), "{report}");
    assert!(report["write_gap"]["seconds"].as_f64().is_some_and(|seconds| seconds < 30.0), "{report}");
}

/// A schema that was changed and followed since the run began: the certificate of before does not hold, one of a rehearsal on the new schema does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_changed_since_the_run_began() {
    if real::skipped("a_schema_that_changed_since_the_run_began", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await.with_rehearsal().await;
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let followed = text.replace("include: [\"school.*\"]", "include: [\"school.*\"]\n    on_ddl: apply");
    assert_ne!(followed, text);
    std::fs::write(world.playbook(), followed).unwrap();
    let playbook = world.playbook_argument();
    let said_with = async |words: &[&str], exit: i32| {
        let output = world.finished(words).await;
        eprintln!("--- {words:?}: exit {}\n{}", code(&output), said(&output));
        assert_eq!(code(&output), exit, "{}", said(&output));
        said(&output)
    };
    said_with(&["rehearse", &playbook], 0).await;
    said_with(&["--yes", "run", &playbook, "--no-follow"], 0).await;
    said_with(&["certificate", "check", &playbook], 0).await;

    let change = ["ALTER TABLE school.settings ADD COLUMN since INT"];
    command(&world.source, &change).await;
    let cutover = ["--yes", "cutover", playbook.as_str()];
    for words in [&["certificate", "check", playbook.as_str()], &cutover] {
        let void = said_with(words, 4).await;
        assert!(void.contains("`schema_fingerprint` of step") && void.contains("`school.settings` is another"), "{void}");
    }
    assert_eq!(number(&world.source, "SELECT @@global.read_only").await, 0);

    command(&world.rehearsal.as_ref().unwrap().0, &change).await;
    said_with(&["rehearse", &playbook], 0).await;
    said_with(&["certificate", "check", &playbook], 0).await;
    said_with(&cutover, 0).await;
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.target.port()));
    let columns = "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'school' AND TABLE_NAME = 'settings' AND COLUMN_NAME = 'since'";
    assert_eq!(number(&world.target, columns).await, 1);
}
