//! `traffic.exec`: a switch by a command is settled by looking, and a rehearsal never runs production's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use dbmove::engine::context::{RunKind, StepContext};
use dbmove::engine::step::{Failure, Output, Probe, Step as _, Undoable};
use dbmove::traffic::check::TrafficCheck;
use dbmove::traffic::exec::{SwitchArguments, TrafficExec};
use serde_json::{Value, json};

use crate::memory::context;

fn made(arguments: Value) -> TrafficExec {
    let arguments: SwitchArguments = serde_json::from_value(arguments).unwrap();
    TrafficExec::new(&arguments, BTreeMap::new()).unwrap()
}

/// A switch that is the existence of a file, and counts how often it was thrown.
fn commands(mark: &Path) -> Value {
    let mark = mark.display();
    json!({
        "command": ["/bin/sh", "-c", format!("echo x >> {mark}.thrown; touch {mark}; echo '{{\"weight\":100}}'")],
        "probe": ["test", "-e", mark.to_string()],
        "undo": ["rm", mark.to_string()],
    })
}

#[tokio::test]
async fn looks_switches_looks_again_and_goes_back() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let thrown = || std::fs::read_to_string(directory.path().join("mark.thrown")).unwrap_or_default().lines().count();
    let (step, context) = (made(commands(&mark)), context("switch", RunKind::Production));
    assert_eq!(step.undoable(), Undoable::Yes);
    assert_eq!(step.probe(&context).await.unwrap(), Probe::NotStarted);
    assert_eq!(step.run(&context).await.unwrap().facts["weight"], 100);
    assert_eq!(step.probe(&context).await.unwrap(), Probe::Done);
    // Again after a crash: it looks, and leaves it.
    assert_eq!(step.run(&context).await.unwrap().facts["already"], true);
    assert_eq!(thrown(), 1);
    step.undo(&context).await.unwrap();
    assert!(!mark.exists());
    // `rm` would fail now; there is nothing to put back.
    step.undo(&context).await.unwrap();
}

#[tokio::test]
async fn a_command_that_only_says_so_is_caught() {
    let context = context("switch", RunKind::Production);
    let error = made(json!({"command": ["true"], "probe": ["false"], "within": "200ms"})).run(&context).await.unwrap_err();
    assert_eq!((error.failure, error.message.as_str()), (Failure::Definite, "`true` succeeded, but `false` says: not switched"));
    let error =
        made(json!({"command": ["true"], "probe": ["true"], "undo": ["true"], "within": "200ms"})).undo(&context).await.unwrap_err();
    assert_eq!(error.message, "`true` succeeded, but `true` says: switched");
}

/// A command that leaves the change to a process behind it, as a control tool does that talks to a daemon. The daemon is the test: it reads
/// `told`, one line for every command.
#[tokio::test]
async fn a_command_that_takes_effect_later_is_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let (mark, told) = (directory.path().join("mark"), directory.path().join("told"));
    let behind = |does: &str| {
        let (mark, told, done) = (mark.display(), told.display(), directory.path().display());
        let wait = format!("while ! test -e {done}/go; do sleep 0.05; done");
        // One behind the other, as they were told.
        let turn = format!("n=$(wc -l < {told}); echo {does} >> {told}");
        let act = format!(
            "{wait}; while test $(cat {done}/done.* 2>/dev/null | wc -l) -lt $n; do sleep 0.05; done; {does} {mark}; echo x > {done}/done.$n"
        );
        json!(["/bin/sh", "-c", format!("touch {told}; {turn}; ({act}) >/dev/null 2>&1 & exit 0")])
    };
    let arguments = json!({"command": behind("touch"), "probe": ["test", "-e", mark], "undo": behind("rm -f"), "within": "200ms"});
    let context = context("switch", RunKind::Production);
    let error = made(arguments.clone()).run(&context).await.unwrap_err();
    assert!(error.message.ends_with("says: not switched"), "{error}");
    // Another driver, with what the journal holds.
    let step = made(arguments);
    assert!(matches!(step.probe(&context).await.unwrap(), Probe::Partly { from } if from.contains("it may still come")));
    step.undo(&context).await.unwrap();
    let lines = || std::fs::read_to_string(&told).unwrap().lines().count();
    assert_eq!(lines(), 2);
    assert_eq!(step.probe(&context).await.unwrap(), Probe::NotStarted);
    step.undo(&context).await.unwrap();
    assert_eq!(lines(), 2);
    std::fs::write(directory.path().join("go"), "").unwrap();
    while !directory.path().join("done.1").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!mark.exists(), "the change came, and nobody had undone it");
}

#[tokio::test]
async fn a_command_that_failed_may_have_acted_unless_it_refused() {
    let directory = tempfile::tempdir().unwrap();
    let undone = directory.path().join("undone");
    let context = context("switch", RunKind::Production);
    let made = |command: Value| made(json!({"command": command, "probe": ["false"], "undo": ["touch", undone], "within": "100ms"}));
    for nothing_done in [json!(["/bin/sh", "-c", "exit 4"]), json!(["/nowhere/at-all"])] {
        let step = made(nothing_done);
        step.run(&context).await.unwrap_err();
        assert_eq!(step.probe(&context).await.unwrap(), Probe::NotStarted);
        step.undo(&context).await.unwrap();
        assert!(!undone.exists());
    }
    let step = made(json!(["/bin/sh", "-c", "echo 'no answer from the daemon' >&2; exit 28"]));
    let error = step.run(&context).await.unwrap_err();
    assert!(error.message.contains("no answer from the daemon"), "{error}");
    assert!(matches!(step.probe(&context).await.unwrap(), Probe::Partly { .. }));
    step.undo(&context).await.unwrap();
    assert!(undone.exists());
}

#[tokio::test]
async fn a_foreign_route_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let step =
        made(json!({"command": ["touch", mark], "undo": ["touch", mark], "probe": ["/bin/sh", "-c", "echo 'points at db9'; exit 3"]}));
    let context = context("switch", RunKind::Production);
    assert_eq!(step.probe(&context).await.unwrap(), Probe::Foreign { found: "points at db9".to_owned() });
    for error in [step.run(&context).await.unwrap_err(), step.undo(&context).await.unwrap_err()] {
        assert_eq!(error.message, "`/bin/sh` found clients pointed somewhere else: points at db9. Nothing was switched");
    }
    assert!(!mark.exists());
}

#[tokio::test]
async fn a_rehearsal_runs_its_own_commands_or_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (production, rehearsal) = (directory.path().join("production"), directory.path().join("rehearsal"));
    let rehearsed = context("switch", RunKind::Rehearsal);

    let step = made(commands(&production));
    for error in [
        step.plan(&rehearsed).await.unwrap_err(),
        step.run(&rehearsed).await.unwrap_err(),
        step.probe(&rehearsed).await.unwrap_err(),
        step.undo(&rehearsed).await.unwrap_err(),
    ] {
        assert_eq!(error.failure, Failure::Refused);
        assert!(error.message.starts_with("`switch` can't be rehearsed: `/bin/sh` would switch production"), "{error}");
    }

    let mut arguments = commands(&production);
    arguments["rehearsal"] = commands(&rehearsal);
    let step = made(arguments);
    step.run(&rehearsed).await.unwrap();
    assert!(rehearsal.exists() && !production.exists());
    step.undo(&rehearsed).await.unwrap();
    assert!(!rehearsal.exists());

    let mut arguments = commands(&production);
    arguments["rehearsal"] = json!({"skip": "the proxy has no test instance"});
    let step = made(arguments);
    assert_eq!(step.run(&rehearsed).await.unwrap().facts["skipped"], "the proxy has no test instance");
    step.undo(&rehearsed).await.unwrap();
    assert!(!production.exists());
    let plan = step.plan(&context("switch", RunKind::Production)).await.unwrap();
    assert_eq!(plan.warnings, ["`switch` was never rehearsed: the proxy has no test instance"]);
}

#[test]
fn broken_arguments_are_named() {
    let refused = |arguments: Value| {
        let arguments: SwitchArguments = serde_json::from_value(arguments).unwrap();
        TrafficExec::new(&arguments, BTreeMap::new()).err().unwrap().message
    };
    let missing = serde_json::from_value::<SwitchArguments>(json!({"command": ["true"]})).unwrap_err();
    assert!(missing.to_string().contains("missing field `probe`"), "{missing}");
    assert_eq!(refused(json!({"command": ["a"], "probe": ["p"], "rehearsal": {"skip": " "}})), "`rehearsal.skip` gives no reason");
    let own = json!({"command": ["a", "b"], "probe": ["p"], "rehearsal": {"command": ["a", "b"], "probe": ["p"], "undo": ["u"]}});
    assert_eq!(refused(own), "`rehearsal` names a production command, `a b`. Nothing was run");
    assert_eq!(refused(json!({"command": ["a"], "probe": []})), "`probe` names no program");
    let step = made(json!({"command": ["a"], "probe": ["p"]}));
    assert!(matches!(step.undoable(), Undoable::No(reason) if reason == "`a` has no `undo` command"));
}

/// A canary that nobody points anywhere: in a rehearsal that leaves the route alone that is no failure of the check, and no success.
#[tokio::test]
async fn a_check_behind_a_route_that_was_left_alone_says_that_it_was_not_rehearsed() {
    let check = TrafficCheck::new(&serde_json::from_value(json!({"timeout": "200ms"})).unwrap(), Arc::default()).unwrap();
    let step = made(json!({"command": ["true"], "probe": ["true"], "rehearsal": {"skip": "the balancer has no test instance"}}));
    let rehearsal = context("switch", RunKind::Rehearsal);
    let left_out = step.run(&rehearsal).await.unwrap();
    assert_eq!(left_out.facts["skipped"], "the balancer has no test instance");
    let behind = |kind: RunKind, output: &Output| {
        let outputs = Arc::new([("switch".to_owned(), output.facts.clone())].into());
        StepContext { outputs, ..context("smoke", kind) }
    };
    let output = check.run(&behind(RunKind::Rehearsal, &left_out)).await.unwrap();
    assert_eq!(output.facts["skipped"], "`switch` left the route alone, so the canary did not reach the target");
    // Only such a route, and only a rehearsal, excuses it.
    let another = Output::default().fact("skipped", "a step that is no route");
    for (kind, output) in [(RunKind::Rehearsal, &another), (RunKind::Production, &left_out)] {
        let error = check.run(&behind(kind, output)).await.unwrap_err();
        assert!(error.message.starts_with("the canary did not reach the target"), "{error}");
    }
    let plan = check.plan(&rehearsal).await.unwrap();
    assert!(plan.lines[0].ends_with("(`skip`) this is not rehearsed"), "{plan:?}");
}
