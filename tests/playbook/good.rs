//! Playbooks that can be used, the ready ones first of all.

use dbmove::playbook::model::StageName;
use dbmove::playbook::quantity::HumanDuration;
use dbmove::playbook::ready::{DEFAULT, READY, find};
use dbmove::playbook::{load, load_text};

use crate::vocabulary::VOCABULARY;
use crate::{stem, yaml_files};

#[test]
fn good_playbooks_load() {
    for path in yaml_files("fixtures/playbooks/good") {
        if let Err(error) = load(&path, VOCABULARY) {
            panic!("{}", error.render(80, false));
        }
    }
}

#[test]
fn every_ready_playbook_is_embedded_and_loads() {
    let on_disk: Vec<String> = yaml_files("playbooks").iter().map(|path| stem(path)).collect();
    let embedded: Vec<&str> = READY.iter().map(|ready| ready.name).collect();
    assert_eq!(on_disk, embedded);
    for ready in READY {
        let playbook =
            load_text(ready.name, ready.text, dbmove::steps::vocabulary()).unwrap_or_else(|error| panic!("{}", error.render(80, false)));
        assert_eq!(playbook.playbook, ready.name);
        assert_eq!(playbook.about.as_deref(), Some(ready.about()));
        assert!(!ready.about().is_empty());
    }
}

#[test]
fn the_model_holds_what_was_written() {
    let playbook = load_text("p", find(DEFAULT).unwrap().text, dbmove::steps::vocabulary()).unwrap();
    assert_eq!(playbook.deadline.unwrap().parse().unwrap(), "16h".parse::<HumanDuration>().unwrap().0);
    let store = &playbook.stores["main"];
    assert_eq!((store.include.as_slice(), store.exclude.as_slice()), (&["school.*".to_owned()][..], &["school.tmp_*".to_owned()][..]));
    assert!(store.rehearsal.is_some());
    let ids = |stage: StageName| playbook.stages.get(stage).iter().map(|step| step.id.as_str()).collect::<Vec<_>>();
    assert_eq!(ids(StageName::Sync), ["follow", "snapshot"]);
    assert_eq!(ids(StageName::Cutover), ["canary", "fence", "drain", "last_check", "promote", "back", "switch", "disconnect", "smoke"]);
    let switch = playbook.stages.get(StageName::Cutover).iter().find(|step| step.id == "switch").unwrap();
    assert!(switch.point_of_no_return);
    assert_eq!(switch.with["content"], "${env:TARGET_HOST}:${env:TARGET_PORT}\n");
}

#[test]
fn merged_stores_keep_their_own_fields() {
    let path = yaml_files("fixtures/playbooks/good").into_iter().find(|path| stem(path) == "anchors").unwrap();
    let playbook = load(&path, VOCABULARY).unwrap();
    assert_eq!(playbook.stores["two"].include, ["c.*"]);
    assert_ne!(playbook.stores["two"].source, playbook.stores["one"].source);
    assert_eq!(playbook.stores["two"].target, playbook.stores["one"].target);
    assert_eq!(playbook.stages.get(StageName::Verify)[0].retries, Some(0));
}

#[test]
fn what_has_to_be_as_long_as_the_write_gap_may_be_just_that() {
    let text = find("mysql-behind-haproxy").unwrap().text;
    let check = |hold_for: &str| {
        let text = text.replace("        server: main\n", &format!("        server: main\n        hold_for: {hold_for}\n"));
        load_text("p", &text, dbmove::steps::vocabulary()).map(drop).map_err(|error| error.render(200, false))
    };
    assert_eq!((check("30s"), check("1m")), (Ok(()), Ok(())));
    let error = check("29s").unwrap_err();
    assert!(error.contains("step `hold`: `hold_for` has to be at least as long as `max_write_gap`, which is 30s"), "{error}");
    assert!(error.contains("expected at least 30s"), "{error}");
}
