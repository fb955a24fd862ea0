//! Guards from outside: an address that stops answering pauses a run, stops it, undoes a cutover, and is told of behind the switch.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::command::{Place, acts};

/// Waits in `copy` until the file `copied` is there; a cutover that waits in `drain` for `drained`; a `settle` behind it.
const STAGES: &str = r#"  sync:
    - { id: copy, run: hook.exec, with: { command: [sh, -c, 'while [ ! -e copied ]; do sleep 0.05; done'], undo: none } }
    - { id: index, run: hook.exec, with: { command: [touch, indexed], undo: [rm, -f, indexed] } }
  cutover:
    - { id: hold, run: hook.exec, with: { command: [touch, held], undo: [rm, -f, held] } }
    - { id: drain, run: hook.exec, with: { command: [sh, -c, 'while [ ! -e drained ]; do sleep 0.05; done'], undo: none } }
    - { id: switch, run: hook.exec, with: { command: [sh, -c, 'while [ ! -e switched ]; do sleep 0.05; done'], probe: [test, -e, switched] }, point_of_no_return: true }
  settle:
    - { id: retire, run: hook.exec, with: { command: [touch, retired], undo: none } }
"#;
pub const CUTOVER: &str = "cutover night.yaml --yes --without-rehearsal test";

/// An address that answers well or badly, as it is told.
pub struct Health {
    port: u16,
    well: Arc<AtomicBool>,
}

impl Health {
    pub fn start() -> Health {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, well) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(true)));
        let answers = well.clone();
        // Ends with the test's process; nobody asks it any more by then.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut heard = Vec::new();
                while !heard.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    heard.push(byte[0]);
                }
                let answer = if answers.load(Ordering::SeqCst) {
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                } else {
                    "HTTP/1.1 503 Unavailable\r\nContent-Length: 23\r\n\r\ntoo many \u{1b}[2Jconnections"
                };
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Health { port, well }
    }

    pub fn is(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }
}

pub fn place(health: &Health, then: &str, more: &str) -> Place {
    let place = Place::new();
    place.playbook("night", STAGES);
    let text = std::fs::read_to_string(place.path("night.yaml")).unwrap();
    let guards = format!(
        "guards:\n  - {{ id: health, watch: http.probe, with: {{ url: \"http://127.0.0.1:{}/up\" }}, then: {then}, every: 100ms, quiet_for: 500ms{more} }}\nstores:\n",
        health.port
    );
    place.write("night.yaml", &text.replace("stores:\n", &guards));
    place
}

fn snapshot(place: &Place, name: &str, shown: &str) {
    let mut settings = place.timed();
    settings.add_filter(r"127\.0\.0\.1:\d+/up", "127.0.0.1:[PORT]/up");
    settings.add_filter(r"audit( +)\d+ events", "audit$1[COUNT] events");
    settings.bind(|| insta::assert_snapshot!(name, shown));
}

fn wait_until(place: &Place, words: &str) -> String {
    let began = Instant::now();
    loop {
        let status = place.line("status").stdout;
        if status.contains(words) {
            return status;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "`{words}` never came: {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_guard_pauses_a_run_and_lets_it_go_on() {
    let health = Health::start();
    let place = place(&health, "pause", "");
    snapshot(&place, "guard_plan", &place.line("plan night.yaml").stdout);
    assert_eq!(place.line("plan night.yaml --json").json()["guards"][0]["watch"], "http.probe");
    let driver = place.start("run night.yaml --yes --no-follow");
    place.wait_for("copy", "running");
    health.is(false);
    let status = wait_until(&place, "PAUSED by guard `health` since ");
    assert!(!acts(&status), "{status:?}");
    snapshot(&place, "night_guard_paused", &status);
    let resume = place.line("ctl night.yaml resume");
    assert!(resume.code == 0 && resume.stdout.contains("no person has paused the run; it is paused by guard"), "{}", resume.shown());
    let asked = place.line("ctl night.yaml status");
    assert!(asked.stdout.contains("guard health: `http://127.0.0.1:"), "{}", asked.shown());
    place.write("copied", "");
    place.wait_for("copy", "done");
    assert!(!place.path("indexed").exists(), "a paused run went on");
    health.is(true);
    let ended = driver.end();
    assert_eq!(ended.code, 0, "{}", ended.shown());
    assert!(ended.stderr.contains("guard health FIRED: ") && ended.stderr.contains("guard health is quiet again: "), "{}", ended.shown());
    assert!(ended.stderr.contains("held back: paused by guard `health`"), "{}", ended.shown());
    let report = place.line("report --json").json();
    let told: Vec<_> = report["guards"].as_array().unwrap().iter().map(|told| told["change"].as_str().unwrap()).collect();
    assert_eq!((told, &report["guards"][0]["effect"]), (vec!["fired", "quiet"], &"paused".into()));
    assert!(place.line("report").stdout.contains("guard        `health` fired at "));
    assert_eq!(place.line("audit").code, 0);
}

#[test]
fn a_guard_stops_a_run_and_undoes_a_cutover() {
    let health = Health::start();
    let place = place(&health, "stop", "");
    health.is(false);
    let stopped = place.line("run night.yaml --yes --no-follow");
    assert_eq!(stopped.code, 1, "{}", stopped.shown());
    snapshot(&place, "night_guard_stopped", &stopped.stdout);
    health.is(true);
    place.write("copied", "");
    assert_eq!(place.line("run night.yaml --yes --no-follow").code, 0);

    let driver = place.start(CUTOVER);
    place.wait_for("drain", "running");
    assert!(place.path("held").exists());
    health.is(false);
    let undone = driver.end();
    assert_eq!(undone.code, 1, "{}", undone.shown());
    assert!(!place.path("held").exists() && place.path("indexed").exists(), "{}", undone.shown());
    snapshot(&place, "night_guard_undone", &undone.stdout);
    assert_eq!(place.line("status --json").json()["runs"][0]["outcome"], "undone_by_guard");

    // The cutover's door stays shut, and says why.
    let driver = place.start(CUTOVER);
    let kept = driver.end();
    assert_eq!(kept.code, 1, "{}", kept.shown());
    assert!(kept.stdout.starts_with("STOPPED BY A GUARD") && !place.path("held").exists(), "{}", kept.shown());
}

#[test]
fn behind_the_switch_a_guard_undoes_nothing_and_keeps_settle_back() {
    let health = Health::start();
    let place = place(&health, "undo", ", stages: [cutover, settle]");
    for name in ["copied", "drained"] {
        place.write(name, "");
    }
    let driver = place.start(CUTOVER);
    place.wait_for("switch", "running");
    health.is(false);
    wait_until(&place, "GUARD `health` FIRED at ");
    place.write("switched", "");
    place.wait_for("switch", "done");
    let status = wait_until(&place, "the target serves");
    snapshot(&place, "night_guard_behind_the_switch", &status);
    std::thread::sleep(Duration::from_millis(700));
    assert!(!place.path("retired").exists() && place.path("held").exists());
    health.is(true);
    let ended = driver.end();
    assert_eq!(ended.code, 0, "{}", ended.shown());
    assert!(place.path("retired").exists() && ended.stderr.contains("held back: `settle` waits for guard `health`"), "{}", ended.shown());
}
