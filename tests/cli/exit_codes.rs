//! Every exit code of the design, one scene each: what a script that drives dbmove can rely on.
//!
//! | code | means | here | and |
//! | --- | --- | --- | --- |
//! | 0 | done | yes | everywhere |
//! | 1 | error | yes | `tests/refusals.rs` |
//! | 2 | usage | yes | `cli/saying.rs` |
//! | 3 | differences found | no: rows are needed | `tests/corruption.rs` |
//! | 4 | refused by a gate | yes | `cli/driving.rs`, `tests/budget.rs` |
//! | 5 | deadline would be missed: rolled back | yes, with hooks | with servers: `tests/budget.rs` |
//! | 6 | waiting for approval | yes | `cli/gate.rs` |
//! | 7 | lease held by another | yes | `cli/driving.rs`, `engine/leases.rs` |
//! | 130 | interrupted, resumable | yes | `cli/driving.rs` |

use rustix::process::Signal;

use super::command::{Ended, Place};

/// Every step is quick or as slow as the file `seconds` says; the switch is the first step that can't be undone.
const STAGES: &str = r#"  prepare:
    - { id: copy, run: hook.exec, with: { command: [sh, -c, 'exec sleep $(cat seconds)'], undo: none } }
  cutover:
    - { id: switch, run: hook.exec, with: { command: [sh, -c, 'test ! -e broken'] } }
"#;

fn place(seconds: &str) -> Place {
    let place = Place::new();
    place.write("seconds", seconds);
    place.playbook("move", STAGES);
    place
}

const CUTOVER: &str = "cutover move.yaml --yes --without-rehearsal test";

fn done() -> Ended {
    place("0").line(CUTOVER)
}

fn error() -> Ended {
    let place = place("0");
    place.write("broken", "");
    place.line(CUTOVER)
}

fn usage() -> Ended {
    place("0").line("run missing.yaml --yes")
}

fn refused() -> Ended {
    place("0").line("cutover move.yaml --yes")
}

fn deadline_missed() -> Ended {
    let place = place("0");
    assert_eq!(place.line("rehearse move.yaml").code, 0);
    place.write("seconds", "60");
    place.line("cutover move.yaml --yes --deadline 3s")
}

fn waiting() -> Ended {
    let place = Place::new();
    place.playbook("move", "  settle:\n    - { id: go, run: gate.approve, with: { question: \"Go?\" } }\n");
    place.line("cutover move.yaml --yes")
}

fn held() -> Ended {
    let place = place("60");
    let first = place.start("run move.yaml --yes --no-follow");
    place.wait_for("copy", "running");
    let second = place.line("run move.yaml --yes --no-follow");
    first.signal(Signal::INT);
    first.end();
    second
}

fn interrupted() -> Ended {
    let place = place("60");
    let running = place.start("run move.yaml --yes --no-follow");
    place.wait_for("copy", "running");
    running.signal(Signal::INT);
    running.end()
}

#[test]
fn each_end_has_its_code() {
    let scenes: [(fn() -> Ended, i32); 8] =
        [(done, 0), (error, 1), (usage, 2), (refused, 4), (deadline_missed, 5), (waiting, 6), (held, 7), (interrupted, 130)];
    for (scene, code) in scenes {
        let ended = scene();
        assert_eq!(ended.code, code, "{}", ended.shown());
    }
}
