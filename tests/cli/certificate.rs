//! `dbmove certificate` from outside: what it shows, and each way in which a certificate does not hold.

use super::command::{Ended, Place};

const STAGES: &str = r#"  prepare:
    - { id: make, run: hook.exec, with: { command: [echo, '{"source_version": "5.5.34", "rows": 1200}'], undo: none } }
  cutover:
    - { id: hold, run: hook.exec, with: { command: [touch, held], undo: [rm, -f, held] } }
    - { id: switch, run: traffic.file, point_of_no_return: true, with: { path: "ROUTE", content: "new\n" } }
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("route", "old\n");
    place.playbook("move", &STAGES.replace("ROUTE", &place.path("route").display().to_string()));
    place
}

fn rehearsed() -> Place {
    let place = place();
    let done = place.line("rehearse move.yaml");
    assert_eq!(done.code, 0, "{}", done.shown());
    place
}

fn void(ended: &Ended) -> Vec<String> {
    assert_eq!(ended.code, 4, "{}", ended.shown());
    let value = ended.json();
    assert_eq!(value["holds"], false, "{value}");
    value["void"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap().to_owned()).collect()
}

fn edited(place: &Place, statement: &str) {
    let journal = rusqlite::Connection::open(place.path(".dbmove/journal.sqlite")).unwrap();
    journal.execute_batch(&format!("DROP TRIGGER events_are_never_changed; {statement}")).unwrap();
}

#[test]
fn without_a_rehearsal_there_is_none() {
    let place = place();
    assert_eq!(place.line("certificate show move.yaml").code, 2, "there is no journal");
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    place.timed().bind(|| {
        insta::assert_snapshot!("certificate_none", place.line("certificate show move.yaml").shown());
    });
    for what in ["check", "export"] {
        assert_eq!(place.line(&format!("certificate {what} move.yaml")).code, 4);
    }
}

#[test]
fn it_is_shown_and_holds_until_the_playbook_changes() {
    let place = rehearsed();
    let mut settings = place.timed();
    settings.add_filter(r"(playbook +move, |journal +event \d+, )[0-9a-f]{12}", "$1[HASH]");
    settings.add_filter(r"in (6|7)d\d+h", "in [LEFT]");
    settings.bind(|| {
        insta::assert_snapshot!("certificate", place.line("certificate show move.yaml").shown());
    });
    assert_eq!(place.line("certificate check move.yaml").code, 0);

    let text = std::fs::read_to_string(place.path("move.yaml")).unwrap();
    place.write("move.yaml", &text.replace("[touch, held]", "[touch, holds]"));
    let reasons = void(&place.line("certificate check move.yaml --json"));
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(
        reasons[0].contains("the playbook changed since rehearsal") && reasons[0].ends_with(": step `hold`: `with.command`"),
        "{reasons:?}"
    );
    let refused = place.line("cutover move.yaml --yes");
    assert_eq!(refused.code, 4, "{}", refused.shown());
    assert!(refused.shown().contains("step `hold`: `with.command`"), "{}", refused.shown());
    assert_eq!(place.line("certificate show move.yaml").code, 0, "to look at it is no refusal");
}

#[test]
fn one_that_no_rehearsal_issued_is_refused_whatever_its_hash() {
    let place = rehearsed();
    assert_eq!(place.line("certificate export move.yaml --output kept.json").code, 0);
    assert_eq!(place.line("certificate check move.yaml --file kept.json").code, 0);
    assert_eq!(place.line("certificate export move.yaml").stdout.trim(), std::fs::read_to_string(place.path("kept.json")).unwrap().trim());

    // Edited: its hash does not fit.
    let kept: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(place.path("kept.json")).unwrap()).unwrap();
    let mut forged = kept.clone();
    forged["certificate"]["expires"] = "2031-01-01T00:00:00Z".into();
    place.write("edited.json", &forged.to_string());
    let reasons = void(&place.line("certificate check move.yaml --file edited.json --json"));
    assert!(reasons[0].contains("was edited") && reasons[1].contains("no rehearsal in this journal"), "{reasons:?}");

    // Forged with a hash that fits: it stands in no journal.
    let mut certificate: dbmove::engine::certificate::Certificate = serde_json::from_value(forged["certificate"].take()).unwrap();
    certificate.hash = String::new();
    forged["certificate"] = serde_json::to_value(certificate.seal().unwrap()).unwrap();
    place.write("forged.json", &forged.to_string());
    let reasons = void(&place.line("certificate check move.yaml --file forged.json --json"));
    assert!(reasons.len() == 1 && reasons[0].contains("no rehearsal in this journal"), "{reasons:?}");

    // The same certificate, said to stand elsewhere.
    for (field, value) in [("event", serde_json::json!(7)), ("event_hash", serde_json::json!("0".repeat(64)))] {
        let mut moved = kept.clone();
        moved[field] = value;
        place.write("moved.json", &moved.to_string());
        let reasons = void(&place.line("certificate check move.yaml --file moved.json --json"));
        assert!(reasons.len() == 1 && reasons[0].contains("of the journal, and not event"), "{reasons:?}");
    }

    // Another one was issued since.
    assert_eq!(place.line("certificate check move.yaml --file kept.json --json").json()["newer"], serde_json::Value::Null);
    assert_eq!(place.line("rehearse move.yaml").code, 0);
    let old = place.line("certificate check move.yaml --file kept.json");
    assert!(old.code == 0 && old.stdout.contains("NOT THE NEWEST: rehearsal `"), "{}", old.shown());

    // Another machine's journal does not know it.
    let elsewhere = rehearsed();
    elsewhere.write("kept.json", &kept.to_string());
    assert!(!void(&elsewhere.line("certificate check move.yaml --file kept.json --json")).is_empty());

    for (content, words) in [("{}", "is no exported certificate"), ("not JSON", "is no exported certificate")] {
        place.write("broken.json", content);
        let refused = place.line("certificate check move.yaml --file broken.json");
        assert_eq!(refused.code, 1, "{}", refused.shown());
        assert!(refused.stderr.contains(words), "{}", refused.shown());
    }
    assert_eq!(place.line("certificate check move.yaml --file missing.json").code, 1);
}

#[test]
fn an_edited_journal_lets_nobody_through() {
    let place = rehearsed();
    edited(&place, "UPDATE events SET body = replace(body, '\"rows\":1200', '\"rows\":1300') WHERE kind = 'outcome';");
    let checked = place.line("certificate check move.yaml --json");
    assert!(void(&checked).iter().any(|reason| reason.contains("the journal was edited")), "{}", checked.shown());
    let refused = place.line("cutover move.yaml --yes");
    assert_eq!(refused.code, 4, "{}", refused.shown());
    assert!(refused.stderr.contains("the journal was edited") && refused.stderr.contains("nothing was touched"), "{}", refused.shown());
    assert!(!place.path("held").exists());
    assert_eq!(std::fs::read_to_string(place.path("route")).unwrap(), "old\n");
    // Before the switch it counts for nothing, and with a reason it can be done without.
    assert_eq!(place.line("run move.yaml --yes --no-follow").code, 0);
    // It keeps nobody from going back.
    let undone = place.line("undo move.yaml --yes");
    assert_eq!(undone.code, 0, "{}", undone.shown());
}
