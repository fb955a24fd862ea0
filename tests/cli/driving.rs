//! Runs from outside: rehearse, run, cutover, each way it can end with its exit code, and what is said of it afterwards.

use std::time::Duration;

use rustix::process::Signal;

use super::command::{Ended, Place, mode};

/// Four stages of hooks; `copy` takes as long as the file `seconds` says.
const STAGES: &str = r#"  prepare:
    - { id: look, run: hook.exec, with: { command: [sh, -c, 'echo "{\"host\": \"db1\"}"'], undo: none } }
  sync:
    - { id: copy, run: hook.exec, with: { command: [sh, -c, 'exec sleep $(cat seconds)'], undo: none } }
  verify:
    - { id: check, run: hook.exec, with: { command: [sh, -c, 'test "$HOST" = db1'], undo: none, env: { HOST: "${step:look.host}" } } }
  cutover:
    - { id: hold, run: hook.exec, with: { command: [touch, held], undo: [rm, -f, held] } }
    - { id: switch, run: traffic.file, point_of_no_return: true, with: { path: "ROUTE", content: "new\n" } }
"#;

/// A place with that playbook as `move.yaml`, and a route file.
pub fn place() -> Place {
    let place = Place::new();
    place.write("seconds", "0");
    place.write("route", "old\n");
    place.playbook("move", &STAGES.replace("ROUTE", &place.path("route").display().to_string()));
    place
}

/// Where clients are pointed.
pub fn route(place: &Place) -> String {
    std::fs::read_to_string(place.path("route")).unwrap()
}

#[test]
fn the_whole_way() {
    let place = place();
    place.timed().bind(|| {
        insta::assert_snapshot!("plan", place.line("plan move.yaml").shown());
        insta::assert_snapshot!("run_without_go_ahead", place.line("run move.yaml").shown());
        insta::assert_snapshot!("rehearse", place.line("rehearse move.yaml").shown());
    });
    assert_eq!(route(&place), "old\n", "a rehearsal touched the production route");
    place.timed().bind(|| {
        insta::assert_snapshot!("run", place.line("run move.yaml --yes --no-follow").shown());
        insta::assert_snapshot!("cutover_without_go_ahead", place.line("cutover move.yaml --no-input").shown());
    });
    assert_eq!(route(&place), "old\n", "without a go-ahead the route was touched");
    place.timed().bind(|| {
        insta::assert_snapshot!("cutover", place.line("cutover move.yaml --yes --deadline 1h").shown());
        insta::assert_snapshot!("status", place.line("status").shown());
        insta::assert_snapshot!("audit", place.line("audit").shown());
        insta::assert_snapshot!("run_is_over", place.line("run move.yaml --yes").shown());
    });
    assert_eq!(route(&place), "new\n");
}

#[test]
fn the_report_is_what_its_schema_says() {
    let place = place();
    assert_eq!(place.line("rehearse move.yaml").code, 0);
    let report = place.line("report --json").json();
    let schema = place.line("report --schema").json();
    let required: Vec<&str> = schema["required"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    assert!(required.contains(&"verdict") && required.contains(&"audit"), "{required:?}");
    for name in required {
        assert!(report.get(name).is_some(), "`{name}` is missing");
    }
    for name in report.as_object().unwrap().keys() {
        assert!(schema["properties"].get(name).is_some(), "`{name}` is not in the schema");
    }
    assert_eq!((report["verdict"]["outcome"].as_str(), report["verdict"]["serving"].as_str()), (Some("done"), Some("source")));
    assert_eq!(report["certificate"]["issued_here"], true);
    assert_eq!(report["stages"][0]["steps"][0]["state"], "undone");

    place.write("old.json", "old");
    std::os::unix::fs::symlink(place.path("old.json"), place.path("link.json")).unwrap();
    let written = place.line("report --output link.json");
    assert_eq!(written.code, 0, "{}", written.shown());
    assert_eq!(std::fs::read_to_string(place.path("old.json")).unwrap(), "old", "the report was written through a link");
    assert_eq!(mode(&place.path("link.json")), 0o600);
    let file: dbmove::report::model::Report = serde_json::from_str(&std::fs::read_to_string(place.path("link.json")).unwrap()).unwrap();
    assert_eq!(file.run.playbook, "move");
    assert_eq!(place.line("report --output no/such/directory.json").code, 1);
    assert_eq!(place.line("report no-such-run").code, 2);
}

#[test]
fn a_cutover_without_a_certificate_is_refused() {
    let place = place();
    let refused = place.line("cutover move.yaml --yes");
    assert_eq!(refused.code, 4, "{}", refused.shown());
    place.timed().bind(|| insta::assert_snapshot!("night_no_certificate", refused.shown()));
    assert_eq!(route(&place), "old\n");
    let reason = ["cutover", "move.yaml", "--yes", "--new-run", "--without-rehearsal", "the rehearsal host burnt down"];
    let done = place.run(&reason);
    assert_eq!(done.code, 0, "{}", done.shown());
    assert_eq!(route(&place), "new\n");
    let report = place.line("report --json").json();
    assert_eq!(report["approvals"]["without_rehearsal"], "the rehearsal host burnt down");
    assert!(place.line("report").stdout.contains("NONE: the rehearsal host burnt down"));
}

#[test]
fn a_certificate_does_not_survive_a_changed_playbook() {
    let place = place();
    assert_eq!(place.line("rehearse move.yaml").code, 0);
    let text = std::fs::read_to_string(place.path("move.yaml")).unwrap();
    place.write("move.yaml", &text.replace("touch, held", "touch, also, held"));
    let refused = place.line("cutover move.yaml --yes");
    assert_eq!(refused.code, 4, "{}", refused.shown());
    assert!(refused.stdout.contains("changed"), "{}", refused.shown());
    place.timed().bind(|| insta::assert_snapshot!("night_certificate_void", refused.shown()));
    assert_eq!(route(&place), "old\n");
}

#[test]
fn not_enough_time_is_a_refusal() {
    let place = place();
    place.write("seconds", "1");
    assert_eq!(place.line("rehearse move.yaml").code, 0);
    let refused = place.line("cutover move.yaml --yes --deadline 1s");
    assert_eq!(refused.code, 4, "{}", refused.shown());
    place.timed().bind(|| insta::assert_snapshot!("night_not_enough_time", refused.stdout));
    assert_eq!(route(&place), "old\n");
}

#[test]
fn a_missed_deadline_undoes_everything() {
    let place = place();
    assert_eq!(place.line("rehearse move.yaml").code, 0);
    place.write("seconds", "60");
    let missed = place.line("cutover move.yaml --yes --deadline 3s");
    assert_eq!(missed.code, 5, "{}", missed.shown());
    assert_eq!(route(&place), "old\n");
    assert!(!place.path("held").exists());
    assert!(missed.stdout.starts_with("DEADLINE: ROLLED BACK"), "{}", missed.shown());
    place.timed().bind(|| insta::assert_snapshot!("night_deadline_missed", missed.stdout));
}

#[test]
fn a_failed_step_undoes_the_cutover() {
    let place = Place::new();
    place.playbook(
        "fails",
        "  cutover:\n    - { id: hold, run: hook.exec, with: { command: [touch, held], undo: [rm, held] } }\n    \
         - { id: burst, run: hook.exec, with: { command: [sh, -c, 'echo no space on disk >&2; exit 1'], undo: none } }\n",
    );
    let failed = place.line("cutover fails.yaml --yes --without-rehearsal test");
    assert_eq!(failed.code, 1, "{}", failed.shown());
    assert!(!place.path("held").exists(), "{}", failed.shown());
    assert!(failed.stdout.contains("no space on disk"), "{}", failed.shown());
    place.timed().bind(|| insta::assert_snapshot!("night_undone", failed.shown()));
    let report = place.line("report --json").json();
    assert_eq!((report["undos"].as_array().unwrap().len(), &report["verdict"]["serving"]), (1, &"source".into()));
}

#[test]
fn an_interrupted_run_goes_on() {
    let place = place();
    place.write("seconds", "60");
    let running = place.start("run move.yaml --yes --no-follow");
    place.wait_for("copy", "running");
    running.signal(Signal::INT);
    let stopped = running.end();
    assert_eq!(stopped.code, 130, "{}", stopped.shown());
    assert!(stopped.stderr.contains("stopping"), "{}", stopped.shown());
    assert!(stopped.stdout.starts_with("INTERRUPTED"), "{}", stopped.shown());
    place.timed().bind(|| insta::assert_snapshot!("night_interrupted", stopped.stdout));
    place.write("seconds", "0");
    let resumed = place.line("run move.yaml --yes --no-follow");
    assert_eq!(resumed.code, 0, "{}", resumed.shown());
    assert!(!resumed.stderr.contains("look started"), "a step that was done ran again: {}", resumed.shown());
    place.timed().bind(|| insta::assert_snapshot!("night_resumed", resumed.stdout));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let place = Place::new();
    // Ignores the polite request, so that only the second signal can be quick.
    place.playbook(
        "deaf",
        "  prepare:\n    - { id: deaf, run: hook.exec, with: { command: [sh, -c, 'trap \"\" TERM; sleep 8 & wait'], undo: none } }\n",
    );
    let running = place.start("run deaf.yaml --yes");
    place.wait_for("deaf", "running");
    // The first that comes a second after it has heard one ends it: two before what is deaf is killed.
    for _ in 0..8 {
        running.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(200));
    }
    let ended = running.end();
    assert_eq!(ended.code, 130, "{}", ended.shown());
    assert!(ended.stderr.contains("stopped at once"), "{}", ended.shown());
}

/// A connection that breaks is two hangups, and a key that bounces two interrupts: neither is somebody who can't wait.
#[test]
fn a_doubled_signal_is_one() {
    for signals in [[Signal::HUP, Signal::HUP], [Signal::INT, Signal::INT], [Signal::HUP, Signal::TERM]] {
        let place = place();
        place.write("seconds", "60");
        let running = place.start("run move.yaml --yes --no-follow");
        place.wait_for("copy", "running");
        signals.iter().for_each(|signal| running.signal(*signal));
        let stopped = running.end();
        assert_eq!(stopped.code, 130, "{signals:?}: {}", stopped.shown());
        assert!(stopped.stdout.starts_with("INTERRUPTED"), "{signals:?}: {}", stopped.shown());
        assert!(!stopped.stderr.contains("stopped at once"), "{signals:?}: {}", stopped.shown());
    }
}

/// However late it comes: the kernel's follows the shell's when the shell has ended.
#[test]
fn a_hangup_is_never_the_second() {
    let place = Place::new();
    // Ignores the polite request, and ends only when it has been seen that nobody else ends it.
    place.playbook(
        "deaf",
        "  prepare:\n    - { id: deaf, run: hook.exec, with: { command: [sh, -c, 'trap \"\" TERM; until test -e go-on; do sleep 0.1; done'], undo: none } }\n",
    );
    let running = place.start("run deaf.yaml --yes");
    place.wait_for("deaf", "running");
    running.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(1_100));
    running.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    place.write("go-on", "");
    let ended = running.end();
    assert_eq!(ended.code, 130, "{}", ended.shown());
    assert!(ended.stdout.starts_with("INTERRUPTED") && !ended.stderr.contains("stopped at once"), "{}", ended.shown());
}

#[test]
fn a_second_driver_is_kept_out() {
    let place = place();
    place.write("seconds", "60");
    let running = place.start("run move.yaml --yes --no-follow");
    place.wait_for("copy", "running");
    let status = place.line("status --json").json();
    assert_eq!((status["runs"][0]["outcome"].as_str(), status["runs"][0]["driver"]["liveness"].as_str()), (Some("running"), Some("alive")));
    place.timed().bind(|| {
        insta::assert_snapshot!("second_driver", place.line("run move.yaml --yes").shown());
    });
    running.signal(Signal::INT);
    assert_eq!(running.end().code, 130);
}

#[test]
fn a_killed_driver_is_seen_and_succeeded() {
    let place = place();
    place.write("seconds", "2");
    let running = place.start("run move.yaml --yes --no-follow");
    place.wait_for("copy", "running");
    running.signal(Signal::KILL);
    running.end();
    let status = place.line("status --json").json();
    assert_eq!((status["runs"][0]["outcome"].as_str(), status["runs"][0]["driver"]["liveness"].as_str()), (Some("crashed"), Some("gone")));
    assert!(status["next"][0].as_str().unwrap().starts_with("dbmove run"), "{status}");
    place.timed().bind(|| {
        insta::assert_snapshot!("status_left_behind", place.line("status").shown());
    });
    place.write("seconds", "0");
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    assert_eq!(place.line("report --json").json()["run"]["drivers"], 2);
}

/// Without it, what is proposed would look into another journal, in which there is nothing to settle.
#[test]
fn a_state_directory_that_was_typed_is_in_every_command_that_is_proposed() {
    let place = place();
    let here = |line: &str| place.line(&format!("{line} --state-dir there"));
    let proposed = |ended: &Ended| -> Vec<String> {
        let next = ended.json()["next"].as_array().unwrap().iter().map(|command| command.as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert!(!next.is_empty(), "{}", ended.shown());
        next
    };
    place.write("seconds", "60");
    let running = here("plan move.yaml --json");
    assert!(proposed(&running).iter().all(|command| command.ends_with(" --state-dir there")), "{}", running.shown());
    let running = place.start("run move.yaml --yes --no-follow --state-dir there");
    let began = std::time::Instant::now();
    while !here("status").stdout.contains("copy              hook.exec           running") {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", here("status").shown());
        std::thread::sleep(Duration::from_millis(30));
    }
    running.signal(Signal::KILL);
    running.end();
    let next = "dbmove run ".to_owned() + &place.path("move.yaml").display().to_string() + " --state-dir there";
    assert!(here("status").stdout.contains(&next), "{}", here("status").shown());
    assert_eq!(proposed(&here("status --json"))[0], next);
    let nobody = here("ctl move.yaml pause");
    assert!(nobody.stderr.contains("`dbmove undo move.yaml --state-dir there`"), "{}", nobody.shown());
    place.write("seconds", "0");
    for line in
        ["run move.yaml --yes --no-follow --json", "cutover move.yaml --yes --json", "report --json", "audit --json", "status --json"]
    {
        let ended = here(line);
        assert!(proposed(&ended).iter().all(|command| command.ends_with(" --state-dir there")), "{line}: {}", ended.shown());
    }
    let refused = here("cutover move.yaml --yes");
    assert_eq!(refused.code, 4, "{}", refused.shown());
    assert!(refused.stdout.contains("`dbmove rehearse move.yaml --state-dir there` leaves a certificate"), "{}", refused.shown());
    assert!(!place.path(".dbmove").exists());
    // What comes from the environment comes with the next command too.
    let ended = Ended::of(&place.command(&["status", "--json"]).env("DBMOVE_STATE_DIR", "there").output().unwrap());
    assert!(proposed(&ended).iter().all(|command| !command.contains("--state-dir")), "{}", ended.shown());
}

/// A cutover that was begun without a certificate is settled by a command that says so again: without, it would only be undone.
#[test]
fn what_is_proposed_after_a_killed_cutover_goes_on_with_it() {
    let place = place();
    let reason = "the pair's disk is gone";
    let killed = place
        .command(&["cutover", "move.yaml", "--yes", "--without-rehearsal", reason])
        .env("DBMOVE_CRASH_AT", "step.outcome_written#4")
        .output()
        .unwrap();
    assert!(killed.status.code().is_none(), "{killed:?}");
    assert!(place.path("held").exists() && route(&place) == "old\n");
    let status = place.line("status --json").json();
    let next = format!("dbmove cutover {} --without-rehearsal", place.path("move.yaml").display());
    assert_eq!(status["next"][0], format!(r"{next} 'the pair'\''s disk is gone'"));
    let without = place.line("cutover move.yaml --yes");
    assert_eq!(without.code, 4, "{}", without.shown());
    assert!(!place.path("held").exists() && !without.stdout.contains("nothing was touched"), "{}", without.shown());
    assert!(without.stdout.contains("what an earlier driver had begun was undone first (`hold`)"), "{}", without.shown());
    assert_eq!(place.run(&["cutover", "move.yaml", "--yes", "--without-rehearsal", reason]).code, 0);
    assert_eq!(route(&place), "new\n");
}

#[test]
fn an_edited_journal_is_found() {
    let place = place();
    assert_eq!(place.line("rehearse move.yaml").code, 0);
    assert_eq!(place.line("audit").code, 0);
    let journal = rusqlite::Connection::open(place.path(".dbmove/journal.sqlite")).unwrap();
    journal
        .execute_batch("DROP TRIGGER events_are_never_changed; UPDATE events SET body = replace(body, 'move', 'mope') WHERE seq = 1;")
        .unwrap();
    drop(journal);
    let broken = place.line("audit");
    assert_eq!(broken.code, 1, "{}", broken.shown());
    assert!(broken.stdout.starts_with("BROKEN: event 1"), "{}", broken.shown());
    assert_eq!(place.line("audit --json").json()["intact"], false);
}

#[test]
fn a_rehearsal_needs_its_pair() {
    let place = Place::new();
    place.playbook(
        "alone",
        "  cutover:\n    - { id: canary, run: traffic.canary, store: school, with: { url: \"mysql://127.0.0.1:3303/\", user: c } }\n",
    );
    place.settings().bind(|| {
        insta::assert_snapshot!("rehearsal_without_a_pair", place.line("rehearse alone.yaml").shown());
    });
    assert!(!place.path(".dbmove").exists());
}

#[test]
fn verify_compares_once_more_and_does_nothing_else() {
    let place = place();
    let early = place.line("verify move.yaml");
    assert_eq!(early.code, 2, "{}", early.shown());
    assert!(!place.path(".dbmove").exists());
    assert_eq!(place.line("rehearse move.yaml").code, 0);
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    let verified = place.line("verify move.yaml");
    assert_eq!(verified.code, 0, "{}", verified.shown());
    assert!(verified.stderr.contains("check done"), "{}", verified.shown());
    assert!(!verified.stderr.contains("copy") && !verified.stderr.contains("hold"), "{}", verified.shown());
    assert_eq!(place.line("verify move.yaml --json").json()["verdict"]["outcome"], "done");
}

#[test]
fn what_a_verification_found_keeps_the_cutover_away() {
    let place = place();
    place.write("equal", "");
    let text = std::fs::read_to_string(place.path("move.yaml")).unwrap();
    place.write("move.yaml", &text.replace(r#"'test "$HOST" = db1'"#, r#"'test -e equal || { echo two rows differ >&2; exit 1; }'"#));
    assert_eq!(place.line("rehearse move.yaml").code, 0);
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    std::fs::remove_file(place.path("equal")).unwrap();
    let found = place.line("verify move.yaml");
    assert_eq!(found.code, 1, "{}", found.shown());
    let kept = place.line("cutover move.yaml --yes");
    assert_eq!(kept.code, 1, "{}", kept.shown());
    assert!(kept.stdout.contains("two rows differ"), "{}", kept.shown());
    assert_eq!(route(&place), "old\n");
    place.write("equal", "");
    assert_eq!(place.line("cutover move.yaml --yes").code, 0);
    assert_eq!(route(&place), "new\n");
}
