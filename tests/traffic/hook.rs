//! `hook.exec`: what a command is told, what its end means, and that nothing of it outlives a timeout.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use dbmove::engine::context::RunKind;
use dbmove::engine::step::{Failure, Probe, Step as _, Undoable};
use dbmove::hook::exec::{HookArguments, HookExec};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::memory::context;

fn hook(arguments: Value) -> HookExec {
    hook_with(arguments, BTreeMap::new())
}

fn hook_with(arguments: Value, environment: BTreeMap<String, SecretString>) -> HookExec {
    let arguments: HookArguments = serde_json::from_value(arguments).unwrap();
    HookExec::new(&arguments, environment).unwrap()
}

fn shell(script: &str) -> Value {
    json!(["/bin/sh", "-c", script])
}

#[tokio::test]
async fn a_command_gets_its_facts_and_its_last_line_becomes_the_output() {
    let script = r#"read facts; echo noise; printf '{"run":"%s","step":"%s","kind":"%s","attempt":"%s","key":"%s","verb":"%s","mine":"%s","facts":%s}\n' \
        "$DBMOVE_RUN" "$DBMOVE_STEP" "$DBMOVE_KIND" "$DBMOVE_ATTEMPT" "$DBMOVE_IDEMPOTENCY_KEY" "$DBMOVE_VERB" "$MINE" "$facts""#;
    // The facts end without a newline; `read` then says no, and the script goes on.
    let environment = BTreeMap::from([("MINE".to_owned(), SecretString::from("yes"))]);
    let step = hook_with(json!({"command": shell(script), "undo": "none", "env": {"MINE": "${env:MINE}"}}), environment);
    let context = context("tell", RunKind::Rehearsal);
    let output = step.run(&context).await.unwrap();
    let expected = json!({
        "run": "run-1", "step": "tell", "kind": "rehearsal", "attempt": "1", "key": "run-1-tell-1", "verb": "run", "mine": "yes",
        "facts": {
            "run": "run-1", "step": "tell", "kind": "rehearsal", "attempt": 1, "idempotency_key": "run-1-tell-1", "verb": "run",
            "outputs": {"provision": {"endpoint": "db.example"}},
        },
    });
    assert_eq!(serde_json::to_value(&output.facts).unwrap(), expected);
    // A crash between effect and outcome does not lose it.
    assert_eq!(context.load_checkpoint("engine.output").unwrap().unwrap()["facts"], expected);
}

#[tokio::test]
async fn a_last_line_that_is_no_object_is_no_output() {
    for script in ["echo hello", "echo 12", "true", "echo '{\"broken\":'", "echo '{\"a\":1}'; echo done"] {
        let step = hook(json!({"command": shell(script), "undo": "none"}));
        assert!(step.run(&context("quiet", RunKind::Production)).await.unwrap().facts.is_empty(), "{script}");
    }
}

#[tokio::test]
async fn exit_codes_say_what_may_heal_and_stderr_is_shown_harmless() {
    for (end, failure, words) in [
        ("exit 1", Failure::Definite, "exit code 1"),
        ("exit 75", Failure::Transient, "exit code 75"),
        ("exit 4", Failure::Refused, "exit code 4"),
        ("kill -9 $$", Failure::Definite, "killed by signal 9"),
    ] {
        let script = format!("echo early >&2; printf 'bad \\033[31mred\\nlast\\n' >&2; {end}");
        let error = hook(json!({"command": shell(&script), "undo": "none"})).run(&context("h", RunKind::Production)).await.unwrap_err();
        assert_eq!(error.failure, failure, "{end}");
        assert_eq!(
            error.message,
            format!("the run command `/bin/sh` {}; it said: early | bad \\u{{1b}}[31mred | last", words_of(words)),
            "{end}"
        );
    }
    let error = hook(json!({"command": ["false"], "undo": "none"})).run(&context("h", RunKind::Production)).await.unwrap_err();
    assert_eq!(error.message, "the run command `false` ended with exit code 1; it printed nothing on stderr");
}

fn words_of(words: &str) -> String {
    if words.starts_with("exit") { format!("ended with {words}") } else { format!("was {words}") }
}

#[tokio::test]
async fn a_secret_handed_to_a_command_does_not_come_back() {
    let environment = BTreeMap::from([("TOKEN".to_owned(), SecretString::from("hunter22"))]);
    let arguments = |script: &str| json!({"command": shell(script), "undo": "none", "env": {"TOKEN": "${file:/run/token}"}});
    let step = hook_with(arguments("echo \"cannot log in with $TOKEN\" >&2; exit 1"), environment.clone());
    let error = step.run(&context("h", RunKind::Production)).await.unwrap_err();
    assert!(error.message.ends_with("it said: cannot log in with [TOKEN]"), "{}", error.message);
    let step = hook_with(arguments("printf '{\"used\":\"%s\",\"escaped\":\"hunter\\\\u00322\"}\\n' \"$TOKEN\""), environment);
    let output = step.run(&context("h", RunKind::Production)).await.unwrap();
    assert_eq!(serde_json::to_value(output.facts).unwrap(), json!({"used": "[TOKEN]", "escaped": "[TOKEN]"}));
}

#[tokio::test]
async fn no_shell_is_involved() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let word = format!("; touch {}; $(touch {})", mark.display(), mark.display());
    let step = hook(json!({"command": ["printf", "{\"word\":\"%s\"}", word], "undo": "none"}));
    let output = step.run(&context("h", RunKind::Production)).await.unwrap();
    assert_eq!(output.facts["word"], Value::from(word));
    assert!(!mark.exists());
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    let missing = directory.path().join("missing");
    for (program, words, hint) in [
        ("dbmove-no-such-program".to_owned(), "cannot start the run command `dbmove-no-such-program`", "no directory of `PATH` holds"),
        (missing.display().to_string(), "cannot start the run command `", "there is no such file"),
        (plain.display().to_string(), "cannot start the run command `", "make `"),
    ] {
        let error = hook(json!({"command": [program], "undo": "none"})).run(&context("h", RunKind::Production)).await.unwrap_err();
        assert_eq!(error.failure, Failure::Definite);
        assert!(
            error.message.contains(words) && error.message.contains(&program) && error.message.ends_with("Nothing was done"),
            "{error}"
        );
        assert!(error.hint.as_deref().unwrap().starts_with(hint), "{:?}", error.hint);
    }
}

#[test]
fn broken_arguments_are_named() {
    let refused = |arguments: Value| {
        let arguments: HookArguments = serde_json::from_value(arguments).unwrap();
        HookExec::new(&arguments, BTreeMap::new()).err().unwrap().message
    };
    assert_eq!(refused(json!({"command": []})), "`command` names no program");
    assert_eq!(refused(json!({"command": ["true"], "undo": []})), "`undo` names no program");
    assert_eq!(refused(json!({"command": ["true"], "probe": [""]})), "`probe` names no program");
    assert_eq!(refused(json!({"command": ["true", "a\0b"]})), "`command` holds a zero byte, which no program can be given");
    assert_eq!(refused(json!({"command": ["true"], "timeout": "soon"})), "`timeout`: `soon` is not a duration");
    assert_eq!(refused(json!({"command": ["true"], "timeout": "0s"})), "`timeout`: `0s` is not a duration");
    assert_eq!(refused(json!({"command": ["true"], "env": {"DBMOVE_RUN": "x"}})), "`env`: `DBMOVE_RUN` is set by dbmove itself");
    assert_eq!(refused(json!({"command": ["true"], "env": {"a=b": "x"}})), "`env`: `a=b` can't be the name of an environment variable");
    let unknown = serde_json::from_value::<HookArguments>(json!({"command": ["true"], "shell": true})).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `shell`"), "{unknown}");
}

#[tokio::test]
async fn a_probe_answers_by_its_exit_code() {
    let probe = async |script: &str| {
        let step = hook(json!({"command": ["true"], "probe": shell(script), "undo": "none"}));
        step.probe(&context("h", RunKind::Production)).await
    };
    assert_eq!(probe("exit 0").await.unwrap(), Probe::Done);
    assert_eq!(probe("exit 1").await.unwrap(), Probe::NotStarted);
    assert_eq!(probe("echo 'three of five'; exit 2").await.unwrap(), Probe::Partly { from: "three of five".to_owned() });
    assert_eq!(probe("echo 'by bob' >&2; exit 3").await.unwrap(), Probe::Foreign { found: "by bob".to_owned() });
    let error = probe("exit 9").await.unwrap_err();
    assert_eq!(error.message, "the probe command `/bin/sh` ended with exit code 9; it printed nothing on stderr");
    assert_eq!(probe("exit 75").await.unwrap_err().failure, Failure::Transient);

    let without = hook(json!({"command": ["true"], "undo": "none"}));
    let context = context("h", RunKind::Production);
    assert_eq!(without.probe(&context).await.unwrap(), Probe::Partly { from: "unknown; the command is run again".to_owned() });
    let plan = without.plan(&context).await.unwrap();
    assert!(plan.warnings.iter().any(|warning| warning.contains("has to be idempotent")), "{plan:?}");
}

#[tokio::test]
async fn undo_is_a_command_or_nothing_or_impossible() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let context = context("h", RunKind::Production);
    let step = hook(json!({"command": ["touch", mark], "undo": ["rm", "-f", mark]}));
    assert_eq!(step.undoable(), Undoable::Yes);
    step.run(&context).await.unwrap();
    assert!(mark.exists());
    step.undo(&context).await.unwrap();
    step.undo(&context).await.unwrap();
    assert!(!mark.exists());

    assert_eq!(hook(json!({"command": ["true"], "undo": "none"})).undoable(), Undoable::Nothing);
    let step = hook(json!({"command": ["true"]}));
    assert!(matches!(step.undoable(), Undoable::No(reason) if reason.contains("`undo: none`")));
    assert!(step.undo(&context).await.unwrap_err().message.contains("`h` has no `undo`"));
}

/// A script that starts a child which ignores SIGTERM, notes both ids, and hangs.
fn stubborn(directory: &Path) -> (String, std::path::PathBuf) {
    let ids = directory.join("ids");
    let script = format!(
        "echo $$ > {ids}.part; /bin/sh -c 'trap \"\" TERM; echo $$ >> {ids}.part; mv {ids}.part {ids}; while :; do sleep 0.1; done' & wait",
        ids = ids.display()
    );
    (script, ids)
}

async fn ids_in(path: &Path) -> Vec<String> {
    let began = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(path) {
            let ids: Vec<String> = text.lines().map(str::to_owned).collect();
            if ids.len() == 2 {
                return ids;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the command did not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether the process is still there.
fn alive(id: &str) -> bool {
    // A zombie whose parent (init) has not collected it yet is dead all the same.
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

async fn gone(ids: &[String]) {
    let began = Instant::now();
    while ids.iter().any(|id| alive(id)) {
        assert!(began.elapsed() < Duration::from_secs(5), "still alive: {ids:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_timeout_kills_the_whole_process_group() {
    let directory = tempfile::tempdir().unwrap();
    let (script, ids) = stubborn(directory.path());
    let step = hook(json!({"command": shell(&script), "undo": "none", "timeout": "500ms"}));
    let began = Instant::now();
    let error = step.run(&context("h", RunKind::Production)).await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(500) && began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(error.failure, Failure::Definite);
    assert!(error.message.contains("`/bin/sh` did not end within 500ms"), "{error}");
    gone(&ids_in(&ids).await).await;
}

#[tokio::test]
async fn a_cancel_and_a_drop_kill_the_whole_process_group() {
    let directory = tempfile::tempdir().unwrap();
    let (script, ids) = stubborn(directory.path());
    let step = hook(json!({"command": shell(&script), "undo": "none"}));
    let cancelled = context("h", RunKind::Production);
    let (error, started) = tokio::join!(step.run(&cancelled), async {
        let started = ids_in(&ids).await;
        assert!(started.iter().all(|id| alive(id)));
        cancelled.cancel.cancel();
        started
    });
    assert_eq!(error.unwrap_err().failure, Failure::Cancelled);
    gone(&started).await;

    let other = tempfile::tempdir().unwrap();
    let (script, ids) = stubborn(other.path());
    let step = hook(json!({"command": shell(&script), "undo": "none"}));
    let dropped = context("h", RunKind::Production);
    let started = tokio::select! {
        ended = step.run(&dropped) => panic!("{ended:?}"),
        started = ids_in(&ids) => started,
    };
    gone(&started).await;
}

#[tokio::test]
async fn a_process_left_behind_on_purpose_does_not_hold_the_step_up() {
    let began = Instant::now();
    let step = hook(json!({"command": shell("sleep 20 & echo '{\"left\":true}'"), "undo": "none"}));
    let output = step.run(&context("h", RunKind::Production)).await.unwrap();
    assert_eq!(output.facts["left"], Value::from(true));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn much_output_is_neither_kept_nor_waited_for() {
    let script = "i=0; while [ $i -lt 20 ]; do head -c 100000 /dev/zero | tr '\\0' 'x'; echo; i=$((i+1)); done; echo '{\"end\":1}'";
    let output = hook(json!({"command": shell(script), "undo": "none"})).run(&context("h", RunKind::Production)).await.unwrap();
    assert_eq!(output.facts["end"], Value::from(1));
}
