//! `dbmove ctl` from outside: a driver is told, what it is told holds, and the journal says who said it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::command::{Place, acts, mode};

/// Waits in `slow` until the file `on` is there; then `act`, then a cutover of three steps that waits in `hold` for `let`.
const STAGES: &str = r#"  prepare:
    - { id: slow, run: hook.exec, with: { command: [sh, -c, 'while [ ! -e on ]; do sleep 0.05; done'], undo: none } }
    - { id: act, run: hook.exec, with: { command: [touch, acted], undo: none } }
  cutover:
    - { id: hold, run: hook.exec, with: { command: [sh, -c, 'touch held; while [ ! -e let ]; do sleep 0.05; done'], undo: [rm, -f, held] } }
    - { id: switch, run: hook.exec, with: { command: [sh, -c, 'touch switching; while [ ! -e switch ]; do sleep 0.05; done'], probe: [test, -e, switch] }, point_of_no_return: true }
"#;
const CUTOVER: &str = "cutover night.yaml --yes --without-rehearsal test";

fn place() -> Place {
    let place = Place::new();
    place.playbook("night", STAGES);
    place
}

fn told(place: &Place) -> Vec<serde_json::Value> {
    place.line("report --json").json()["approvals"]["told"].as_array().cloned().unwrap()
}

fn socket(place: &Place) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(place.path(".dbmove")).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "socket"))
}

fn appears(place: &Place, name: &str) {
    let began = Instant::now();
    while !place.path(name).exists() {
        assert!(began.elapsed() < Duration::from_secs(30), "`{name}` never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn snapshot(place: &Place, name: &str, shown: &str) {
    let mut settings = place.timed();
    settings.add_filter(r"user id \d+, process \d+", "user id [USER], process [PID]");
    settings.bind(|| insta::assert_snapshot!(name, shown));
}

#[test]
fn without_a_driver_nobody_is_told() {
    let place = place();
    let nothing = place.line("ctl night.yaml pause");
    assert_eq!(nothing.code, 2, "{}", nothing.shown());
    assert!(!place.path(".dbmove").exists(), "asking made a state directory");
    place.write("on", "");
    place.write("let", "");
    place.write("switch", "");
    assert_eq!(place.line("run night.yaml --yes --no-follow").code, 0);
    assert_eq!(socket(&place), None, "the driver left its socket");
    snapshot(&place, "ctl_no_driver", &place.line("ctl night.yaml pause --by alice").shown());
    assert!(told(&place).is_empty());
    for wrong in ["ctl night.yaml throttle fast", "ctl night.yaml throttle 0rows/s", "ctl pause", "ctl night.yaml"] {
        assert_eq!(place.line(wrong).code, 2, "{wrong}");
    }
}

#[test]
fn a_paused_run_starts_nothing_until_it_is_resumed_even_by_another_driver() {
    let place = place();
    let driver = place.start("run night.yaml --yes --no-follow");
    place.wait_for("slow", "running");
    let socket_file = socket(&place).expect("a driver has a socket");
    assert_eq!((mode(&socket_file), mode(&place.path(".dbmove"))), (0o600, 0o700));

    let paused = place.run(&["ctl", "night.yaml", "pause", "--by", "alice", "--reason", "index build"]);
    assert_eq!(paused.code, 0, "{}", paused.shown());
    snapshot(&place, "ctl_pause", &paused.shown());
    let again = place.line("ctl night.yaml pause --by bob --json").json();
    assert_eq!((again["taken"].as_bool(), told(&place).len()), (Some(false), 1), "{again}");
    place.write("on", "");
    place.wait_for("slow", "done");
    std::thread::sleep(Duration::from_millis(700));
    assert!(!place.path("acted").exists(), "a paused run went on");
    snapshot(&place, "ctl_status_paused", &place.line("ctl night.yaml status").shown());
    let status = place.line("status").stdout;
    assert!(status.contains("PAUSED by alice since ") && status.contains(": index build"), "{status}");

    driver.signal(Signal::KILL);
    assert_eq!(driver.end().code, -1);
    assert!(socket_file.exists(), "a killed driver can't tidy up");
    let nobody = place.line("ctl night.yaml resume");
    assert_eq!(nobody.code, 1, "{}", nobody.shown());

    let driver = place.start("run night.yaml --yes --no-follow");
    let began = Instant::now();
    loop {
        let answered = place.line("ctl night.yaml status --json");
        if answered.code == 0 {
            assert_eq!(answered.json()["live"]["control"]["paused"]["by"], "alice", "{}", answered.shown());
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{}", answered.shown());
    }
    assert!(!place.path("acted").exists(), "the next driver forgot the pause");
    assert_eq!(place.line("ctl night.yaml throttle 20MiB/s --by bob").code, 0);
    assert_eq!(place.line("ctl night.yaml resume --by bob").code, 0);
    let ended = driver.end();
    assert_eq!(ended.code, 0, "{}", ended.shown());
    assert!(place.path("acted").exists() && ended.stderr.contains("held back: paused by alice"), "{}", ended.shown());
    let acts: Vec<_> =
        told(&place).iter().map(|told| format!("{} {}", told["act"].as_str().unwrap(), told["by"].as_str().unwrap())).collect();
    assert_eq!(acts, ["pause alice", "throttle 20MiB/s bob", "resume bob"]);
    assert!(told(&place)[0]["from"].as_str().unwrap().starts_with("user id "));
    assert!(place.line("report").stdout.contains("told         pause by alice at "));
    assert_eq!(socket(&place), None);
    assert_eq!(place.line("audit").code, 0);
}

#[test]
fn a_held_cutover_waits_for_go_and_can_be_aborted_until_it_switches() {
    let place = place();
    let driver = place.start("run night.yaml --yes --no-follow");
    place.wait_for("slow", "running");
    let held = place.line("ctl night.yaml hold-cutover --by alice");
    assert_eq!(held.code, 0, "{}", held.shown());
    place.write("on", "");
    assert_eq!(driver.end().code, 0);

    let driver = place.start(CUTOVER);
    place.wait_for("act", "done");
    std::thread::sleep(Duration::from_millis(700));
    assert!(!place.path("held").exists(), "a held cutover began");
    let go = place.line("ctl night.yaml go --by bob");
    assert_eq!(go.code, 0, "{}", go.shown());
    appears(&place, "held");
    let late = place.line("ctl night.yaml hold-cutover");
    assert_eq!(late.code, 4, "{}", late.shown());
    let aborted = place.run(&["ctl", "night.yaml", "abort", "--by", "carol", "--reason", "the board said no"]);
    assert_eq!(aborted.code, 0, "{}", aborted.shown());
    let ended = driver.end();
    assert_eq!(ended.code, 130, "{}", ended.shown());
    assert!(!place.path("held").exists(), "the cutover was not undone");
    let mut settings = place.timed();
    settings.add_filter(r"audit( +)\d+ events", "audit$1[COUNT] events");
    settings.bind(|| insta::assert_snapshot!("ctl_aborted", ended.stdout));

    let driver = place.start(CUTOVER);
    appears(&place, "held");
    place.write("let", "");
    appears(&place, "switching");
    for (act, words) in [("abort", "the point of no return is reached"), ("pause", "clients are being switched")] {
        let refused = place.line(&format!("ctl night.yaml {act}"));
        assert_eq!(refused.code, 4, "{}", refused.shown());
        assert!(refused.stderr.contains(words) && refused.stderr.contains("nothing was changed"), "{}", refused.shown());
    }
    place.write("switch", "");
    let ended = driver.end();
    assert_eq!(ended.code, 0, "{}", ended.shown());
    assert_eq!(told(&place).len(), 3, "a refused act was recorded");
}

#[test]
fn what_is_no_request_is_answered_and_harms_nobody() {
    use std::io::{Read as _, Write as _};
    let place = place();
    let driver = place.start("run night.yaml --yes --no-follow");
    place.wait_for("slow", "running");
    let socket_file = socket(&place).unwrap();
    for said in [
        "\n",
        "{}\n",
        "{\"version\":2,\"run\":\"x\"}\n",
        "{\"version\":1,\"run\":\"other\",\"act\":{\"act\":\"abort\"},\"by\":\"x\"}\n",
        "\u{0}\n",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket_file).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("nothing was done") && answer.ends_with('\n'), "{said:?}: {answer}");
    }
    let hostile = place.run(&["ctl", "night.yaml", "pause", "--by", "a\u{1b}[2J\nRUNNING", "--reason", "x\ny"]);
    assert_eq!(hostile.code, 0, "{}", hostile.shown());
    for line in ["status", "report", "ctl night.yaml status"] {
        let ended = place.line(line);
        assert!(!acts(&ended.stdout) && !ended.stdout.contains("\nRUNNING since"), "{}", ended.shown());
    }
    assert_eq!(place.line("ctl night.yaml resume").code, 0);
    place.write("on", "");
    assert_eq!(driver.end().code, 0);
}

#[test]
fn a_run_is_told_by_its_id_however_long_the_path_of_its_state() {
    let place = place();
    // No socket's address is as long as this.
    let deep = format!("{}/state", "a-directory-of-forty-characters-or-more/".repeat(4));
    std::fs::create_dir_all(place.path(&deep).parent().unwrap()).unwrap();
    let driver = place.start(&format!("--state-dir {deep} run night.yaml --yes --no-follow"));
    let began = Instant::now();
    let run = loop {
        let status = place.line(&format!("--state-dir {deep} status --json"));
        let run = (status.code == 0).then(|| status.json()["runs"][0]["run"].as_str().map(str::to_owned)).flatten();
        let told = run.as_ref().map(|run| place.line(&format!("--state-dir {deep} ctl --run {run} pause --by alice")));
        match (run, told) {
            (Some(run), Some(told)) if told.code == 0 => break run,
            (_, told) => assert!(began.elapsed() < Duration::from_secs(30), "{:?}", told.map(|told| told.shown())),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let status = place.line(&format!("--state-dir {deep} ctl --run {run} status"));
    assert!(status.code == 0 && status.stdout.contains("PAUSED by alice since "), "{}", status.shown());
    assert!(status.stdout.contains("resume"), "a paused run suggests no way on: {}", status.shown());
    let unknown = place.line(&format!("--state-dir {deep} ctl --run 20200101T000000Z-00000000 resume"));
    assert!(unknown.code != 0 && unknown.stderr.contains("20200101T000000Z-00000000"), "{}", unknown.shown());
    let both = place.line(&format!("--state-dir {deep} ctl night.yaml --run {run} resume"));
    assert_eq!(both.code, 2, "{}", both.shown());
    assert_eq!(place.line(&format!("--state-dir {deep} ctl --run {run} resume")).code, 0);
    place.write("on", "");
    assert_eq!(driver.end().code, 0);
}

#[test]
fn an_approval_may_be_given_by_ctl_too() {
    let place = Place::new();
    place.playbook("gated", "  prepare:\n    - { id: go, run: gate.approve, with: { question: \"May it begin?\" } }\n");
    assert_eq!(place.line("run gated.yaml --yes --no-follow").code, 6);
    let nameless = place.line("ctl --run x approve go");
    assert!(nameless.code == 2 && nameless.stderr.contains("nothing was recorded"), "{}", nameless.shown());
    assert_eq!(place.line("ctl gated.yaml approve gone").code, 2);
    let given = place.line("ctl gated.yaml approve go --by alice");
    assert!(given.code == 0 && given.stdout.starts_with("APPROVED: step `go` of run "), "{}", given.shown());
    assert_eq!(place.line("run gated.yaml --yes --no-follow").code, 0);
    let report = place.line("report --json").json();
    let yes = &report["approvals"]["given"][0];
    assert_eq!((yes["by"].as_str(), yes["step"].as_str()), (Some("alice"), Some("go")));
    assert!(yes["from"].as_str().unwrap().starts_with("user id "), "{yes}");
}
