//! Stores whose address is an output of a step: bound when they first act, from this run's outputs and no other.

use super::command::{Ended, Place};

/// A port on this machine that nothing listens on.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A playbook whose servers are where the step `provision` says, which is what the file `said` holds.
fn place(source: &str, rehearsal: &str, prepare: &str) -> Place {
    let place = Place::new();
    place.write(
        "move.yaml",
        &format!(
            "playbook: move\nstores:\n  school:\n    kind: mysql\n    source: {{ url: \"{source}\" }}\n    \
             target: {{ url: \"mysql://u@127.0.0.1:${{step:provision.other}}/\" }}\n{rehearsal}    include: [\"school.*\"]\nstages:\n  prepare:\n{prepare}"
        ),
    );
    place
}

const SOURCE: &str = "mysql://u@127.0.0.1:${step:provision.port}/";
const STEPS: &str = "    - { id: provision, run: hook.exec, with: { command: [cat, said], undo: none } }\n    \
                     - { id: assess, run: mysql.assess, store: school, retries: 0 }\n";

fn says_port(place: &Place, port: u16) {
    place.write("said", &format!("{{\"port\": {port}, \"other\": {port}}}\n"));
}

/// The run came to the step that needs the server, and looked for it there.
fn looked_at(ended: &Ended, port: u16) {
    assert_eq!(ended.code, 1, "{}", ended.shown());
    assert!(ended.stdout.contains("step `assess` failed"), "{}", ended.shown());
    assert!(ended.stdout.contains(&format!("127.0.0.1:{port}")), "{}", ended.shown());
}

#[test]
fn a_store_is_bound_when_its_step_has_run() {
    let place = place(SOURCE, "", STEPS);
    assert_eq!(place.line("playbook check move.yaml").code, 0);
    let planned = place.line("plan move.yaml");
    assert_eq!(planned.code, 0, "{}", planned.shown());
    assert!(
        planned.stdout.contains("not known yet: source of store `school`: step `provision` has not run, so its output `port` is not known"),
        "{}",
        planned.shown()
    );

    let (first, second) = (closed_port(), closed_port());
    says_port(&place, first);
    looked_at(&place.line("run move.yaml --yes --no-follow"), first);
    // Resumed: the target is claimed before anything acts, where this run's output says, whatever the command would say now.
    says_port(&place, second);
    let resumed = place.line("run move.yaml --yes --no-follow");
    assert!(!resumed.stderr.contains("provision started"), "{}", resumed.shown());
    assert_eq!(resumed.code, 1, "{}", resumed.shown());
    assert!(format!("{}{}", resumed.stdout, resumed.stderr).contains(&format!("127.0.0.1:{first}")), "{}", resumed.shown());
    // Another run has outputs of its own: nothing of an earlier one is used.
    looked_at(&place.line("run move.yaml --yes --no-follow --new-run"), second);
}

#[test]
fn an_output_that_is_not_there_is_named() {
    let place = place(SOURCE, "", STEPS);
    place.write("said", "{\"prot\": 3306, \"other\": 3307}\n");
    let failed = place.line("run move.yaml --yes --no-follow");
    assert_eq!(failed.code, 1, "{}", failed.shown());
    for words in ["step `assess` failed: source of store `school`: step `provision` left no output `port`", "`prot`"] {
        assert!(failed.stdout.contains(words), "{words}: {}", failed.shown());
    }
    place.write("said", "{\"port\": \"nowhere\", \"other\": 3307}\n");
    let failed = place.line("run move.yaml --yes --no-follow --new-run");
    assert!(failed.code == 1 && failed.stdout.contains("port is not a number"), "{}", failed.shown());
}

#[test]
fn a_rehearsal_that_turns_out_to_be_production_is_refused() {
    let port = closed_port();
    let rehearsal = "    rehearsal: { source: { url: \"mysql://u@127.0.0.1:${step:provision.port}/\" }, target: { url: \"mysql://u@127.0.0.1:2/\" } }\n";
    let place = place(&format!("mysql://u@localhost:{port}/"), rehearsal, STEPS);
    says_port(&place, port);
    let refused = place.line("rehearse move.yaml");
    assert_eq!(refused.code, 4, "{}", refused.shown());
    assert!(refused.stdout.contains("is the production source"), "{}", refused.shown());
}

#[test]
fn the_step_has_to_be_done_before_every_step_of_the_store() {
    for prepare in [
        // After it; beside it; and nowhere.
        "    - { id: assess, run: mysql.assess, store: school }\n    - { id: provision, run: hook.exec, with: { command: [cat, said], undo: none } }\n",
        "    - { id: provision, run: hook.exec, with: { command: [cat, said], undo: none } }\n    - { id: assess, run: mysql.assess, store: school, needs: [] }\n",
        "    - { id: assess, run: mysql.assess, store: school }\n",
    ] {
        let wrong = place(SOURCE, "", prepare).line("playbook check move.yaml");
        assert_eq!(wrong.code, 2, "{}", wrong.shown());
        let said = format!("{}{}", wrong.stdout, wrong.stderr);
        assert!(said.contains("store `school` refers to step `provision`") && said.contains(":5:"), "{}", wrong.shown());
    }
}
