//! `dbmove undo` from outside: what it asks, what it undoes, and when it refuses.

use super::command::Place;

/// `make` leaves a file that its undo takes away; `stubborn` can be told to fail its undo; `after` fails while a file is missing.
const STAGES: &str = r#"  prepare:
    - { id: make, run: hook.exec, with: { command: [touch, made], undo: [sh, -c, 'test ! -e stubborn && rm -f made'] } }
  sync:
    - { id: copy, run: hook.exec, with: { command: [sh, -c, 'exec sleep $(cat seconds)'], undo: none } }
  cutover:
    - { id: hold, run: hook.exec, with: { command: [touch, held], undo: [rm, -f, held] } }
    - { id: switch, run: traffic.file, point_of_no_return: true, with: { path: "ROUTE", content: "new\n" } }
  settle:
    - { id: after, run: hook.exec, retries: 0, with: { command: [test, -e, settled], undo: none } }
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("seconds", "0");
    place.write("route", "old\n");
    place.playbook("move", &STAGES.replace("ROUTE", &place.path("route").display().to_string()));
    place
}

#[test]
fn without_a_run_there_is_nothing_to_undo() {
    let place = place();
    let refused = place.line("undo move.yaml --yes");
    assert_eq!(refused.code, 2, "{}", refused.shown());
    assert!(!place.path(".dbmove").exists());
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    let refused = place.line("undo move.yaml --rehearsal --yes");
    assert_eq!(refused.code, 2, "the production run was taken for a rehearsal: {}", refused.shown());
    assert!(place.path("made").exists());
}

#[test]
fn a_run_is_given_up_and_another_one_begun() {
    let place = place();
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    place.timed().bind(|| {
        insta::assert_snapshot!("undo_without_go_ahead", place.line("undo move.yaml").shown());
    });
    assert!(place.path("made").exists());
    place.timed().bind(|| {
        insta::assert_snapshot!("undo", place.line("undo move.yaml --yes").shown());
        insta::assert_snapshot!("status_undone", place.line("status").shown());
    });
    assert!(!place.path("made").exists());
    for again in ["undo move.yaml --yes", "run move.yaml --yes --no-follow", "cutover move.yaml --yes --without-rehearsal x"] {
        let refused = place.line(again);
        assert_eq!(refused.code, 4, "{}", refused.shown());
    }
    assert!(!place.path("made").exists());
    assert_eq!(place.line("run move.yaml --yes --no-follow --new-run").code, 0);
    assert!(place.path("made").exists());
    assert_eq!(place.line("audit").code, 0);
}

#[test]
fn a_running_driver_hands_over_to_the_undo() {
    let place = place();
    place.write("seconds", "60");
    let run = place.start("run move.yaml --yes");
    place.wait_for("copy", "running");
    let undone = place.line("undo move.yaml --yes");
    assert_eq!(undone.code, 0, "{}", undone.shown());
    assert!(!place.path("made").exists());
    drop(run);
}

#[test]
fn an_undo_that_fails_says_so_and_is_tried_again() {
    let place = place();
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    place.write("stubborn", "");
    place.timed().bind(|| {
        insta::assert_snapshot!("undo_fails", place.line("undo move.yaml --yes").shown());
    });
    let again = place.line("undo move.yaml --yes");
    assert_eq!(again.code, 1, "{}", again.shown());
    std::fs::remove_file(place.path("stubborn")).unwrap();
    let again = place.line("undo move.yaml --yes");
    assert_eq!(again.code, 0, "{}", again.shown());
    assert!(!place.path("made").exists());
}

#[test]
fn behind_the_switch_nothing_is_undone() {
    let place = place();
    let failed = place.line("cutover move.yaml --yes --without-rehearsal test");
    assert_eq!(failed.code, 1, "{}", failed.shown());
    let route = || std::fs::read_to_string(place.path("route")).unwrap();
    assert_eq!(route(), "new\n");
    place.timed().bind(|| {
        insta::assert_snapshot!("undo_behind_the_switch", place.line("undo move.yaml --yes").shown());
    });
    assert_eq!(route(), "new\n");
    assert!(place.path("made").exists() && place.path("held").exists());
    place.write("settled", "");
    let gone_on = place.line("cutover move.yaml --yes --without-rehearsal test");
    assert_eq!(gone_on.code, 0, "{}", gone_on.shown());
}

#[test]
fn killed_anywhere_an_undo_goes_on() {
    for point in ["undo.started", "undo.intent_written", "undo.effect_done", "undo.outcome_written", "undo.finished", "run.before_finished"]
    {
        for next in ["undo move.yaml --yes", "run move.yaml --yes --no-follow"] {
            let place = place();
            assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
            let killed = place.command(&["undo", "move.yaml", "--yes"]).env("DBMOVE_CRASH_AT", point).output().unwrap();
            assert_eq!(killed.status.code(), None, "`{point}` was not reached");
            let ended = place.line(next);
            let expected = if next.starts_with("undo") { 0 } else { 4 };
            assert_eq!(ended.code, expected, "{point}, {next}: {}", ended.shown());
            assert!(!place.path("made").exists(), "{point}, {next}: {}", ended.shown());
            let over = place.line("run move.yaml --yes --no-follow");
            assert_eq!(over.code, 4, "{point}, {next}: {}", over.shown());
            assert!(over.stderr.contains("is over"), "{point}, {next}: {}", over.shown());
            assert_eq!(place.line("run move.yaml --yes --no-follow --new-run").code, 0);
        }
    }
}
