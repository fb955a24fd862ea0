//! `dbmove playbook …` as functions: JSON, text and exit code.

use std::path::Path;

use dbmove::cli::answer::Answer;
use dbmove::cli::playbook;
use dbmove::engine::outcome::ExitCode;
use serde_json::Value;

use crate::vocabulary::VOCABULARY;

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.json).unwrap()
}

#[test]
fn list_and_show() {
    let listed = playbook::list();
    assert_eq!(listed.exit_code, ExitCode::Done);
    assert!(listed.text.contains("mysql-to-mysql        MySQL 5.5"), "{}", listed.text);
    assert!(listed.text.contains("mysql-behind-haproxy  "), "{}", listed.text);
    assert_eq!(playbook::show("mysql-to-mysql").unwrap().text, include_str!("../../playbooks/mysql-to-mysql.yaml"));
    assert!(playbook::show("mysql").unwrap_err().to_string().contains("no playbook `mysql` comes with dbmove"));
}

#[test]
fn a_new_playbook_checks_out() {
    let directory = tempfile::tempdir().unwrap();
    let written = playbook::new(directory.path(), "school", None).unwrap();
    assert_eq!((written.exit_code, &json(&written)["from"]), (ExitCode::Done, &Value::from("mysql-to-mysql")));
    let checked = playbook::check(&directory.path().join("school.yaml"), dbmove::steps::vocabulary(), 80, false);
    let answer = json(&checked);
    assert_eq!((&answer["valid"], &answer["playbook"]), (&Value::from(true), &Value::from("school")), "{}", checked.text);
    assert_eq!(answer["hash"].as_str().map(str::len), Some(64));

    assert!(playbook::new(directory.path(), "school", None).unwrap_err().to_string().contains("was left as it is"));
    assert!(playbook::new(directory.path(), "other", Some("nosuch")).is_err());
}

#[test]
fn a_broken_playbook_is_exit_code_two_with_places_in_json() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/playbooks/broken/unknown_field_top.yaml");
    let checked = playbook::check(&path, VOCABULARY, 80, false);
    let answer = json(&checked);
    assert_eq!((checked.exit_code, &answer["valid"]), (ExitCode::Usage, &Value::from(false)));
    let said = format!("{}{}", checked.text, checked.words);
    assert!(said.contains("did you mean `deadline`?"), "{said}");
    let problem = &answer["problems"][0];
    assert_eq!((&problem["line"], &problem["column"], &problem["mistake"]), (&3.into(), &1.into(), &"unknown_field".into()));
    let missing = playbook::check(Path::new("no-such-file.yaml"), VOCABULARY, 80, false);
    assert_eq!(missing.exit_code, ExitCode::Usage);
    let said = format!("{}{}", missing.text, missing.words);
    assert!(said.contains("playbook `no-such-file.yaml` can't be read"), "{said}");
}

#[test]
fn the_schema_is_printed_as_json() {
    let answer = playbook::schema(VOCABULARY);
    assert!(json(&answer)["$schema"].is_string(), "{}", answer.json);
}
