//! `gate.approve` and `dbmove approve` from outside: exit code 6, the yes, and what it is good for.

use rustix::process::Signal;

use super::command::{Place, acts};

/// Two hooks with a gate between them; what was done is in files.
const STAGES: &str = r#"  prepare:
    - { id: look, run: hook.exec, with: { command: [touch, looked], undo: none } }
    - { id: go, run: gate.approve, with: { question: "May the school be cut over tonight?" } }
    - { id: act, run: hook.exec, with: { command: [touch, acted], undo: [rm, -f, acted] } }
"#;

fn place() -> Place {
    let place = Place::new();
    place.playbook("move", STAGES);
    place
}

fn events(place: &Place, kind: &str) -> Vec<serde_json::Value> {
    let journal = rusqlite::Connection::open(place.path(".dbmove/journal.sqlite")).unwrap();
    let mut found = journal.prepare("SELECT body FROM events WHERE kind = ?1 ORDER BY seq").unwrap();
    let rows = found.query_map([kind], |row| row.get::<_, String>(0)).unwrap();
    rows.map(|row| serde_json::from_str(&row.unwrap()).unwrap()).collect()
}

#[test]
fn a_run_waits_for_a_yes_and_goes_on_after_it() {
    let place = place();
    place.timed().bind(|| {
        insta::assert_snapshot!("gate_plan", place.line("plan move.yaml").shown());
        insta::assert_snapshot!("gate_waits", place.line("run move.yaml --yes --no-follow").shown());
        insta::assert_snapshot!("gate_status_waiting", place.line("status").shown());
    });
    assert!(place.path("looked").exists() && !place.path("acted").exists());

    let json = place.line("run move.yaml --yes --no-follow --json");
    assert_eq!(json.code, 6, "asked again it waits again: {}", json.shown());
    let value = json.json();
    assert_eq!(value["verdict"]["outcome"], "waiting_for_approval");
    assert_eq!(value["next"][0], "dbmove approve move.yaml go");
    assert_eq!(value["verdict"]["concluded"], false);
    assert!(!place.path("acted").exists());

    place.timed().bind(|| {
        let approved = ["approve", "move.yaml", "go", "--by", "Alice", "--reason", "the board agreed"];
        insta::assert_snapshot!("gate_approved", place.run(&approved).shown());
        insta::assert_snapshot!("gate_approved_already", place.line("approve move.yaml go --by Bob").shown());
        insta::assert_snapshot!("gate_status_approved", place.line("status").shown());
    });
    assert_eq!(events(&place, "approved").len(), 1, "the second yes was recorded too");
    assert!(!place.path("acted").exists(), "the approval itself drove the run");

    let done = place.line("run move.yaml --yes --no-follow");
    assert_eq!(done.code, 0, "{}", done.shown());
    assert!(place.path("acted").exists());
    let report = place.line("report --json").json();
    let given = &report["approvals"]["given"][0];
    assert_eq!(
        (given["step"].as_str(), given["by"].as_str(), given["reason"].as_str(), given["stands"].as_bool()),
        (Some("go"), Some("Alice"), Some("the board agreed"), Some(true))
    );
    assert_eq!(given["question"], "May the school be cut over tonight?");
    assert!(given["from"].as_str().unwrap().starts_with("user id "), "{given}");
    assert_eq!(report["stages"][0]["steps"][1]["facts"]["approved_by"], "Alice");
    let words = place.line("report").stdout;
    assert!(words.contains("approved     `go` by Alice at ") && words.contains(": the board agreed"), "{words}");
    assert_eq!(place.line("audit").code, 0, "the approval broke the chain");
}

#[test]
fn an_edited_approval_is_found() {
    let place = place();
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 6);
    assert_eq!(place.line("approve move.yaml go --by Alice").code, 0);
    let journal = rusqlite::Connection::open(place.path(".dbmove/journal.sqlite")).unwrap();
    journal
        .execute_batch(
            "DROP TRIGGER events_are_never_changed; UPDATE events SET body = replace(body, 'Alice', 'Mallory') WHERE kind = 'approved';",
        )
        .unwrap();
    drop(journal);
    let broken = place.line("audit");
    assert_eq!(broken.code, 1, "{}", broken.shown());
    assert!(broken.stdout.contains("approved"), "{}", broken.shown());
}

#[test]
fn a_yes_that_would_count_for_nothing_is_refused() {
    let place = place();
    place.timed().bind(|| {
        insta::assert_snapshot!("gate_no_run", place.line("approve move.yaml go").shown());
    });
    assert!(!place.path(".dbmove").exists(), "a refused approval made a state directory");

    let rehearsed = place.line("rehearse move.yaml");
    assert_eq!(rehearsed.code, 0, "a rehearsal waited for a person: {}", rehearsed.shown());
    place.timed().bind(|| {
        insta::assert_snapshot!("gate_rehearsed", rehearsed.shown());
        insta::assert_snapshot!("gate_only_rehearsed", place.line("approve move.yaml go").shown());
    });
    let report = place.line("report --json").json();
    let facts = &report["stages"][0]["steps"][1]["facts"];
    assert_eq!(facts["approval"], "not asked for: a rehearsal");
    assert!(report["findings"][0]["finding"]["found"].as_str().unwrap().contains("A production run asks: May the school"), "{report}");

    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 6);
    place.timed().bind(|| {
        insta::assert_snapshot!("gate_unknown_step", place.line("approve move.yaml gone").shown());
        insta::assert_snapshot!("gate_other_step", place.line("approve move.yaml look").shown());
    });
    for line in [vec!["approve", "move.yaml", "go", "--by", " "], vec!["approve", "move.yaml", "go", "--reason", ""]] {
        let refused = place.run(&line);
        assert_eq!(refused.code, 2, "{}", refused.shown());
        assert!(refused.stderr.contains(line[3]) && refused.stderr.contains("nothing was recorded"), "{}", refused.shown());
    }
    assert!(events(&place, "approved").is_empty());

    assert_eq!(place.line("approve move.yaml go").code, 0);
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    place.timed().bind(|| {
        insta::assert_snapshot!("gate_run_is_over", place.line("approve move.yaml go").shown());
    });
    let again = place.line("run move.yaml --yes --no-follow --new-run");
    assert_eq!(again.code, 6, "an approval counted for another run: {}", again.shown());
}

#[test]
fn a_yes_is_for_one_playbook() {
    let place = place();
    let text = std::fs::read_to_string(place.path("move.yaml")).unwrap();
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 6);
    assert_eq!(place.line("approve move.yaml go").code, 0);

    place.write("move.yaml", &text.replace("touch, acted", "touch, also, acted"));
    place.timed().bind(|| {
        insta::assert_snapshot!("gate_changed_playbook", place.line("approve move.yaml go").shown());
    });
    let asked = place.line("run move.yaml --yes --no-follow --accept-changes");
    assert_eq!(asked.code, 6, "an approval counted for another playbook: {}", asked.shown());
    assert!(asked.stdout.contains("(void: the playbook has changed since)"), "{}", asked.shown());
    assert!(!place.path("acted").exists());
    assert_eq!(place.line("approve move.yaml go").code, 0);
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    assert_eq!(events(&place, "approved").len(), 2);
}

#[test]
fn a_gate_that_was_passed_asks_again_for_a_changed_playbook() {
    let place = place();
    place.write("move.yaml", "");
    place.playbook(
        "move",
        &format!("{STAGES}  cutover:\n    - {{ id: last, run: hook.exec, with: {{ command: [touch, last], undo: none }} }}\n"),
    );
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 6);
    assert_eq!(place.line("approve move.yaml go").code, 0);
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    let text = std::fs::read_to_string(place.path("move.yaml")).unwrap();
    place.write("move.yaml", &text.replace("touch, last", "touch, very, last"));
    let asked = place.line("cutover move.yaml --yes --accept-changes --without-rehearsal test");
    assert_eq!(asked.code, 6, "{}", asked.shown());
    assert!(!place.path("last").exists());
    assert_eq!(asked.stdout.matches("dbmove approve move.yaml go").count(), 2, "as a hint and as the next command: {}", asked.shown());
    assert_eq!(place.line("approve move.yaml go").code, 0);
    assert_eq!(place.line("cutover move.yaml --yes --without-rehearsal test").code, 0);
    assert!(place.path("last").exists());
}

#[test]
fn a_gate_in_the_cutover_keeps_nobody_waiting() {
    let place = Place::new();
    place.playbook(
        "night",
        r#"  prepare:
    - { id: look, run: hook.exec, with: { command: [touch, looked], undo: none } }
  cutover:
    - { id: first, run: gate.approve, with: { question: "Now?" } }
    - { id: hold, run: hook.exec, with: { command: [touch, held], undo: [rm, -f, held] } }
    - { id: second, run: gate.approve, with: { question: "Still?" } }
    - { id: switch, run: hook.exec, with: { command: [touch, switched] } }
"#,
    );
    let command = "cutover night.yaml --yes --without-rehearsal test";
    let first = place.line(command);
    assert_eq!(first.code, 6, "{}", first.shown());
    assert!(!place.path("held").exists());
    let report = place.line("report --json").json();
    assert_eq!(report["undos"].as_array().map(Vec::len), Some(0), "there was nothing to undo: {report}");
    assert_eq!(report["verdict"]["serving"], "source");

    // The run goes on following meanwhile, and can be taken over as before.
    assert_eq!(place.line("run night.yaml --yes --no-follow").code, 0);
    assert_eq!(place.line("approve night.yaml first").code, 0);
    let second = place.line(command);
    assert_eq!(second.code, 6, "{}", second.shown());
    assert!(!place.path("held").exists(), "writes were held while a person was waited for: {}", second.shown());
    assert!(second.stdout.contains("dbmove approve night.yaml second") && second.stdout.contains("Still?"), "{}", second.shown());
    assert_eq!(place.line("approve night.yaml second").code, 0);
    let done = place.line(command);
    assert_eq!(done.code, 0, "{}", done.shown());
    assert!(place.path("held").exists() && place.path("switched").exists());
}

#[test]
fn a_yes_may_be_given_while_a_driver_is_at_work() {
    let place = Place::new();
    place.playbook(
        "busy",
        r#"  prepare:
    - { id: slow, run: hook.exec, with: { command: [sh, -c, 'while [ ! -e on ]; do sleep 0.05; done'], undo: none } }
    - { id: go, run: gate.approve, with: { question: "Go on?" } }
    - { id: act, run: hook.exec, with: { command: [touch, acted], undo: none } }
"#,
    );
    let running = place.start("run busy.yaml --yes --no-follow");
    place.wait_for("slow", "running");
    let approved = place.line("approve busy.yaml go --json");
    assert_eq!(approved.code, 0, "{}", approved.shown());
    assert_eq!((approved.json()["recorded"].as_bool(), approved.json()["next"][0].as_str()), (Some(true), Some("dbmove status")));
    place.write("on", "");
    let ended = running.end();
    assert_eq!(ended.code, 0, "the driver did not see the approval: {}", ended.shown());
    assert!(place.path("acted").exists());
    assert_eq!(place.line("audit").code, 0);
}

#[test]
fn a_killed_approval_is_there_or_it_is_not() {
    for (point, counts) in [("journal.before_commit", false), ("journal.committed", true)] {
        let place = place();
        assert_eq!(place.line("run move.yaml --yes --no-follow").code, 6);
        let status = place.command(&["approve", "move.yaml", "go"]).env("DBMOVE_CRASH_AT", point).status().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::KILL.as_raw()), "{point}");
        assert_eq!(place.line("audit").code, 0, "{point}");
        let next = place.line("run move.yaml --yes --no-follow");
        assert_eq!(next.code, if counts { 0 } else { 6 }, "{point}: {}", next.shown());
        if !counts {
            assert_eq!(place.line("approve move.yaml go --json").json()["recorded"], true);
            assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
        }
    }
}

#[test]
fn a_driver_killed_at_the_gate_asks_again_and_passes_by_the_same_yes() {
    let place = place();
    // The second step's intent, effect and outcome: before it has asked, after, and after that is on record.
    for point in ["step.intent_written#2", "step.effect_done#2", "step.outcome_written#2"] {
        let status = place
            .command(&["run", "move.yaml", "--yes", "--no-follow", "--new-run"])
            .env("DBMOVE_CRASH_AT", point)
            .output()
            .unwrap()
            .status;
        assert!(!status.success() && status.code().is_none(), "{point}: {status}");
        let waiting = place.line("run move.yaml --yes --no-follow");
        assert_eq!(waiting.code, 6, "{point}: {}", waiting.shown());
        assert_eq!(place.line("approve move.yaml go").code, 0, "{point}");
        let killed =
            place.command(&["run", "move.yaml", "--yes", "--no-follow"]).env("DBMOVE_CRASH_AT", point.replace("#2", "#1")).output();
        assert!(killed.unwrap().status.code().is_none(), "{point}");
        let done = place.line("run move.yaml --yes --no-follow");
        assert_eq!(done.code, 0, "{point}: {}", done.shown());
    }
}

#[test]
fn a_name_is_found_and_hostile_words_do_not_act() {
    let place = place();
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 6);
    let mut command = place.command(&["approve", "move.yaml", "go", "--reason", "yes\u{1b}[2J\nAPPROVED by the board"]);
    let output = command.env("LOGNAME", "carol").env("USER", "dave").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(events(&place, "approved")[0]["by"], "carol");
    for line in ["status", "report", "approve move.yaml go"] {
        let ended = place.line(line);
        assert!(!acts(&ended.stdout) && !acts(&ended.stderr), "{}", ended.shown());
        assert!(!ended.stdout.contains("\nAPPROVED by"), "{}", ended.shown());
    }
    let place = self::place();
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 6);
    let output = place.command(&["approve", "move.yaml", "go"]).env_remove("LOGNAME").env_remove("USER").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(events(&place, "approved")[0]["by"].as_str().is_some_and(|name| !name.is_empty()));
}

#[test]
fn questions_that_can_not_be_asked_are_mistakes() {
    let place = Place::new();
    let long = "a".repeat(501);
    for (with, words) in [
        ("{}", "question"),
        ("{ question: \"\" }", "`question` is empty"),
        ("{ question: \"${env:WHY}\" }", "can't hold a reference"),
        (format!("{{ question: {long} }}").as_str(), "has 501 characters"),
        ("{ question: \"Go?\", default: yes }", "unknown field `default`"),
    ] {
        let file = place.playbook("wrong", &format!("  settle:\n    - {{ id: go, run: gate.approve, with: {with} }}\n"));
        let ended = place.line(&format!("playbook check {file}"));
        assert_eq!(ended.code, 2, "{with}: {}", ended.shown());
        assert!(ended.stderr.contains(words) || ended.stdout.contains(words), "{with}: {}", ended.shown());
    }
    for stage in ["prepare", "sync", "verify", "cutover", "settle"] {
        let file = place.playbook("right", &format!("  {stage}:\n    - {{ id: go, run: gate.approve, with: {{ question: \"Go?\" }} }}\n"));
        let ended = place.line(&format!("playbook check {file}"));
        assert_eq!(ended.code, 0, "{stage}: {}", ended.shown());
    }
    let schema = place.line("playbook schema").json();
    assert!(schema["$defs"]["with.gate.approve"]["properties"]["question"].is_object());
}
