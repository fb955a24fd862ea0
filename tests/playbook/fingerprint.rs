//! What counts as a change of a playbook, and which step it touches.

use dbmove::playbook::hash::{Change, Fingerprint, hash};
use dbmove::playbook::load_text;
use dbmove::playbook::model::Playbook;

use crate::vocabulary::VOCABULARY;

const PLAIN: &str = include_str!("../../fixtures/playbooks/good/plain.yaml");

fn read(text: &str) -> Playbook {
    load_text("p", text, VOCABULARY).unwrap_or_else(|error| panic!("{}", error.render(80, false)))
}

/// What changes when `from` is replaced in the plain playbook.
fn changes(from: &str, to: &str) -> Vec<Change> {
    assert!(PLAIN.contains(from), "{from}");
    let (old, new) = (read(PLAIN), read(&PLAIN.replacen(from, to, 1)));
    let changes = Fingerprint::of(&old).changes(&Fingerprint::of(&new));
    assert_eq!(changes.is_empty(), hash(&old) == hash(&new));
    changes
}

#[test]
fn comments_layout_and_about_count_for_nothing() {
    assert_eq!(changes("deadline: 16h", "# soon\ndeadline:    '16h' # really"), []);
    assert_eq!(changes("about: a school moves", "about: another text"), []);
    assert_eq!(changes("{ path: /tmp/route, content: \"new.example\" }", "{ content: new.example, path: /tmp/route }"), []);
    assert_eq!(changes("id: snapshot,", "id: snapshot, needs: [follow],"), []);
}

#[test]
fn each_change_is_named() {
    let step = |id: &str| Change::Step(id.to_owned());
    assert_eq!(changes("deadline: 16h", "deadline: 8h"), [Change::Part("deadline".to_owned())]);
    assert_eq!(changes("[\"school.*\"]", "[\"school.*\", \"more.*\"]"), [Change::Part("stores.school".to_owned())]);
    assert_eq!(changes("/tmp/route", "/tmp/other"), [step("switch")]);
    assert_eq!(changes("id: fence,", "id: fence, retries: 2,"), [step("fence")]);
    assert_eq!(changes("id: snapshot,", "id: snapshot, needs: [follow], retries: 1,"), [step("snapshot")]);
    assert_eq!(
        changes("    - { id: drain,", "    - { id: more, run: hook.exec, with: { command: a } }\n    - { id: drain,"),
        [step("drain"), Change::StepAdded("more".to_owned())]
    );
    assert_eq!(changes("    - { id: rows, run: mysql.verify, store: school }\n", "    []\n"), [Change::StepRemoved("rows".to_owned())]);
    assert_eq!(changes("id: assess", "id: look"), [Change::StepRemoved("assess".to_owned()), Change::StepAdded("look".to_owned())]);
    assert_eq!(Change::Step("fence".to_owned()).step(), Some("fence"));
    assert_eq!(Change::Part("deadline".to_owned()).to_string(), "`deadline` has changed");
}

#[test]
fn the_hash_is_the_same_in_every_build() {
    // A change of this value makes every certificate and every run under way void: raise `FORM` with it.
    insta::assert_snapshot!(hash(&read(PLAIN)), @"da61b46ec3db85cea1333c9dde79ef6d1d4fb88490c922fc7c9df728a7f2fa1e");
}

#[test]
fn a_fingerprint_survives_the_journal() {
    let fingerprint = Fingerprint::of(&read(PLAIN));
    let stored = serde_json::to_string(&fingerprint).unwrap();
    assert_eq!(serde_json::from_str::<Fingerprint>(&stored).unwrap(), fingerprint);
}
