//! `dbmove playbook …` as functions: data, text and exit code.

use std::path::Path;

use dbmove::cli::playbook;

use crate::vocabulary::VOCABULARY;

#[test]
fn list_and_show() {
    let listed = playbook::list();
    assert_eq!((listed.exit_code, listed.to_stdout), (0, true));
    assert!(listed.text.starts_with("mysql-to-mysql  MySQL 5.5"), "{}", listed.text);
    assert_eq!(listed.data.len(), 1);
    assert_eq!(playbook::show("mysql-to-mysql").unwrap().text, include_str!("../../playbooks/mysql-to-mysql.yaml"));
    assert!(playbook::show("mysql").unwrap_err().to_string().contains("no playbook `mysql` comes with dbmove"));
}

#[test]
fn a_new_playbook_checks_out() {
    let directory = tempfile::tempdir().unwrap();
    let written = playbook::new(directory.path(), "school", None).unwrap();
    assert_eq!((written.exit_code, written.data.from), (0, "mysql-to-mysql"));
    let checked = playbook::check(&written.data.path, VOCABULARY, 80, false);
    assert_eq!((checked.exit_code, checked.data.valid, checked.data.playbook.as_deref()), (0, true, Some("school")));
    assert!(
        checked.text.ends_with("is a valid playbook: `school`, 1 store, steps: prepare 2, sync 2, verify 1, cutover 6\n"),
        "{}",
        checked.text
    );
    assert_eq!(checked.data.hash.map(|hash| hash.len()), Some(64));

    assert!(playbook::new(directory.path(), "school", None).unwrap_err().to_string().contains("was left as it is"));
    assert!(playbook::new(directory.path(), "other", Some("nosuch")).is_err());
}

#[test]
fn a_broken_playbook_is_exit_code_two_with_places_in_json() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/playbooks/broken/unknown_field_top.yaml");
    let checked = playbook::check(&path, VOCABULARY, 80, false);
    assert_eq!((checked.exit_code, checked.data.valid), (2, false));
    assert!(checked.text.contains("did you mean `deadline`?"), "{}", checked.text);
    let json = serde_json::to_value(&checked).unwrap();
    let problem = &json["data"]["problems"][0];
    assert_eq!((&problem["line"], &problem["column"], &problem["mistake"]), (&3.into(), &1.into(), &"unknown_field".into()));
    let missing = playbook::check(Path::new("no-such-file.yaml"), VOCABULARY, 80, false);
    assert_eq!(missing.exit_code, 2);
    assert!(missing.text.contains("playbook `no-such-file.yaml` can't be read"), "{}", missing.text);
}

#[test]
fn the_schema_is_printed_as_json() {
    let answer = playbook::schema(VOCABULARY);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&answer.text).unwrap(), answer.data);
}
