//! `dbmove ctl … set`: what is set holds at once and for the next driver, and what can't be set is refused with nothing recorded.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::command::{Ended, Place};
use super::guards::{self, Health};

fn told(place: &Place) -> Vec<String> {
    let told = place.line("report --json").json()["approvals"]["told"].as_array().cloned().unwrap();
    told.iter().map(|told| format!("{} {}", told["act"].as_str().unwrap(), told["by"].as_str().unwrap())).collect()
}

fn deadline(place: &Place) -> (String, f64) {
    let deadline = place.line("status --json").json()["runs"][0]["deadline"].clone();
    (deadline[0].as_str().unwrap().to_owned(), deadline[1].as_f64().unwrap())
}

fn until(place: &Place, line: &str, holds: impl Fn(&Ended) -> bool) -> Ended {
    let began = Instant::now();
    loop {
        let ended = place.line(line);
        if holds(&ended) {
            return ended;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{}", ended.shown());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_guard_is_switched_off_and_on_and_stays_off_for_the_next_driver() {
    let health = Health::start();
    let place = guards::place(&health, "pause", "");
    let driver = place.start("run night.yaml --yes --no-follow");
    place.wait_for("copy", "running");
    health.is(false);
    until(&place, "status", |status| status.stdout.contains("PAUSED by guard `health`"));
    for (line, code, words) in [
        ("ctl night.yaml set guard.health=off", 4, "--reason"),
        ("ctl night.yaml set guard.other=off", 4, "no guard `other`"),
        ("ctl night.yaml set guard.health=quiet", 2, "`on` or `off`"),
        ("ctl night.yaml set readers=9", 2, "can't be set"),
        ("ctl night.yaml set guard.health=on", 0, "NOTHING TO DO"),
    ] {
        let refused = place.line(line);
        assert!(refused.code == code && refused.shown().contains(words), "{line}: {}", refused.shown());
    }
    assert!(told(&place).is_empty(), "what was refused was recorded");
    let off = place.run(&["ctl", "night.yaml", "set", "guard.health=off", "--by", "alice", "--reason", "the probe is broken"]);
    assert_eq!(off.code, 0, "{}", off.shown());
    place.settings().bind(|| insta::assert_snapshot!("ctl_guard_off", off.stdout.lines().next().unwrap()));
    let status = place.line("status").stdout;
    assert!(!status.contains("PAUSED") && status.contains("guard `health` is OFF by alice since "), "{status}");

    // Still off for the next driver, and it goes on to its end though the address is as bad as before.
    driver.signal(Signal::KILL);
    assert_eq!(driver.end().code, -1);
    place.write("copied", "");
    let driver = place.line("run night.yaml --yes --no-follow");
    assert_eq!(driver.code, 0, "{}", driver.shown());

    // Through the cutover too.
    place.write("drained", "");
    place.write("switched", "");
    let driver = place.start(guards::CUTOVER);
    place.wait_for("retire", "done");
    assert_eq!(driver.end().code, 0);
    assert_eq!(told(&place), ["set guard.health=off alice"]);
}

#[test]
fn a_guard_that_is_on_again_fires_again() {
    let health = Health::start();
    let place = guards::place(&health, "pause", "");
    let driver = place.start("run night.yaml --yes --no-follow");
    place.wait_for("copy", "running");
    assert_eq!(place.run(&["ctl", "night.yaml", "set", "guard.health=off", "--reason", "a test"]).code, 0);
    health.is(false);
    let on = place.line("ctl night.yaml set guard.health=on --by bob");
    assert_eq!(on.code, 0, "{}", on.shown());
    until(&place, "status", |status| status.stdout.contains("PAUSED by guard `health`"));
    health.is(true);
    until(&place, "status", |status| !status.stdout.contains("PAUSED"));
    place.write("copied", "");
    assert_eq!(driver.end().code, 0);
}

#[test]
fn a_deadline_and_a_write_gap_are_set_and_outlive_the_driver() {
    let health = Health::start();
    let place = guards::place(&health, "pause", "");
    let with_deadline = format!("{} --deadline 16h", guards::CUTOVER);
    place.write("drained", "");
    place.write("switched", "");
    let driver = place.start(&with_deadline);
    place.wait_for("copy", "running");
    let missed = place.line("ctl night.yaml set deadline=2s");
    assert!(missed.code == 4 && missed.stderr.contains("nothing was changed"), "{}", missed.shown());
    assert_eq!(place.line("ctl night.yaml set deadline=soon").code, 2);
    assert_eq!(deadline(&place).0, "16h");
    assert!(told(&place).is_empty());
    let set = place.line("ctl night.yaml set deadline=3h --by alice");
    assert_eq!(set.code, 0, "{}", set.shown());
    let (text, left) = deadline(&place);
    assert!(text == "3h" && (10_000.0..=10_800.0).contains(&left), "{text} {left}");
    assert_eq!(place.line("ctl night.yaml set max_write_gap=1s500ms --by bob").code, 0);
    assert!(place.line("ctl night.yaml set max_write_gap=1500ms").stdout.contains("NOTHING TO DO"));

    // The driver's own words are what it stands for, so given again they change nothing.
    driver.signal(Signal::KILL);
    assert_eq!(driver.end().code, -1);
    let driver = place.start(&with_deadline);
    until(&place, "ctl night.yaml status", |status| status.code == 0);
    let (text, again) = deadline(&place);
    assert!(text == "3h" && again <= left, "{text} {again}");
    let status = place.line("status").stdout;
    assert!(
        status.contains("the deadline was set by alice since ") && status.contains("`max_write_gap` was set by bob since "),
        "{status}"
    );
    assert!(place.line("ctl night.yaml set max_write_gap=1500ms").stdout.contains("NOTHING TO DO"));
    place.write("copied", "");
    assert_eq!(driver.end().code, 0);
    assert_eq!(told(&place), ["set deadline=3h alice", "set max_write_gap=1s500ms bob"]);
    assert_eq!(place.line("audit").code, 0);
}

#[test]
fn the_playbooks_deadline_takes_back_none_that_a_person_gave() {
    let health = Health::start();
    let place = guards::place(&health, "pause", "");
    let text = std::fs::read_to_string(place.path("night.yaml")).unwrap();
    place.write("night.yaml", &text.replace("stores:\n", "deadline: 16h\nstores:\n"));
    place.write("drained", "");
    place.write("switched", "");
    let driver = place.start(&format!("{} --deadline 3h", guards::CUTOVER));
    place.wait_for("copy", "running");
    driver.signal(Signal::KILL);
    assert_eq!(driver.end().code, -1);
    let driver = place.start(guards::CUTOVER);
    until(&place, "ctl night.yaml status", |status| status.code == 0);
    let (text, left) = deadline(&place);
    assert!(text == "3h" && left <= 10_800.0, "{text} {left}");
    place.write("copied", "");
    assert_eq!(driver.end().code, 0);
}
