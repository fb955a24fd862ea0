//! What is said before anything is driven: help, mistakes, missing things; and how it is said: JSON, colours, hostile text.

use super::command::{Ended, Place, acts};

const COMMANDS: [&str; 14] = [
    "",
    "playbook",
    "assess",
    "schema",
    "schema diff",
    "plan",
    "rehearse",
    "run",
    "verify",
    "cutover",
    "approve",
    "status",
    "report",
    "audit",
];

#[test]
fn help_fits_eighty_columns() {
    let place = Place::new();
    for command in COMMANDS {
        let ended = place.line(&format!("{command} --help"));
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{command}");
        for line in ended.stdout.lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
    }
}

#[test]
fn help() {
    let place = Place::new();
    place.settings().bind(|| {
        insta::assert_snapshot!("help", place.line("--help").shown());
        insta::assert_snapshot!("help_schema_diff", place.line("schema diff --help").shown());
        insta::assert_snapshot!("help_cutover", place.line("cutover --help").shown());
    });
}

#[test]
fn wrong_command_lines() {
    let place = Place::new();
    place.settings().bind(|| {
        insta::assert_snapshot!("unknown_command", place.line("rehears p.yaml").shown());
        insta::assert_snapshot!("unknown_option", place.line("run p.yaml --noinput").shown());
        insta::assert_snapshot!("no_playbook_named", place.line("run").shown());
        insta::assert_snapshot!("nothing", place.line("").shown());
    });
}

#[test]
fn playbooks_that_can_not_be_used() {
    let place = Place::new();
    let broken = place.playbook(
        "broken",
        "  prepare:\n    - { id: look, run: hook.exce, with: { command: [\"true\"] } }\n  cutover:\n    - { id: go, run: hook.exec, with: { comand: [\"true\"] } }\n",
    );
    place.settings().bind(|| {
        insta::assert_snapshot!("missing_playbook", place.line("run missing.yaml --yes").shown());
        insta::assert_snapshot!("broken_playbook", place.line(&format!("rehearse {broken}")).shown());
        insta::assert_snapshot!("broken_playbook_checked", place.line(&format!("playbook check {broken}")).shown());
    });
    let json = place.line(&format!("rehearse {broken} --json"));
    assert_eq!((json.code, json.json()["problems"].as_array().unwrap().len()), (2, 3));
    assert!(!place.path(".dbmove").exists(), "a broken playbook made a state directory");
}

#[test]
fn references_in_words_of_a_command_are_a_mistake() {
    let place = Place::new();
    let file =
        place.playbook("argv", "  prepare:\n    - { id: tell, run: hook.exec, with: { command: [tell, \"${env:TOKEN}\"], undo: none } }\n");
    let ended = place.line(&format!("playbook check {file}"));
    assert_eq!(ended.code, 2, "{}", ended.shown());
    assert!(ended.stderr.contains("through `env`"), "{}", ended.shown());
}

#[test]
fn before_any_run() {
    let place = Place::new();
    place.settings().bind(|| {
        insta::assert_snapshot!("status_without_a_run", place.line("status").shown());
        insta::assert_snapshot!("audit_without_a_run", place.line("audit").shown());
    });
    assert!(!place.path(".dbmove").exists(), "looking made a state directory");
    let elsewhere = place.command(&["status"]).env("DBMOVE_STATE_DIR", "elsewhere").output().unwrap();
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("`elsewhere`"));
    let flag = place.command(&["status", "--state-dir", "flag"]).env("DBMOVE_STATE_DIR", "elsewhere").output().unwrap();
    assert!(String::from_utf8_lossy(&flag.stderr).contains("`flag`"));
}

#[test]
fn values_of_options_are_checked() {
    let place = Place::new();
    let file = place.playbook("p", "  prepare:\n    - { id: look, run: hook.exec, with: { command: [\"true\"], undo: none } }\n");
    for (options, name) in [
        ("--max-write-gap soon", "--max-write-gap"),
        ("--deadline soon", "--deadline"),
        ("--deadline 2020-01-01T00:00:00Z", "--deadline"),
        ("--margin 0.5", "--margin"),
        ("--take-over never", "--take-over"),
        ("--without-rehearsal=", "--without-rehearsal"),
    ] {
        let ended = place.line(&format!("cutover {file} --yes {options}"));
        assert_eq!(ended.code, 2, "{options}: {}", ended.shown());
        assert!(ended.stderr.starts_with(&format!("error: `{name}`")), "{}", ended.shown());
    }
    assert!(!place.path(".dbmove").exists(), "a wrong option made a state directory");
}

/// The plan was made from all that was typed, and so has to be what is done when the command that is shown is copied.
#[test]
fn the_go_ahead_is_for_the_command_that_was_typed() {
    let place = Place::new();
    let file = place.playbook("p", "  cutover:\n    - { id: look, run: hook.exec, with: { command: [\"true\"], undo: none } }\n");
    let typed =
        ["cutover", &file, "--deadline", "16h", "--max-write-gap", "5s", "--without-rehearsal", "it's on fire", "--take-over", "1m"];
    let refused = place.run(&typed);
    let again = r"dbmove cutover p.yaml --deadline 16h --max-write-gap 5s --without-rehearsal 'it'\''s on fire' --take-over 1m --yes";
    assert_eq!(refused.code, 2, "{}", refused.shown());
    assert!(refused.stderr.contains(&format!("this is the plan; `{again}` gives the go-ahead")), "{}", refused.shown());
    let line = format!("--state-dir state run {file} --new-run --no-follow --accept-changes --json");
    assert_eq!(place.line(&line).json()["next"], serde_json::json!([format!("dbmove {line} --yes")]));
    let copied = std::process::Command::new("sh")
        .args(["-c", &again.replacen("dbmove", env!("CARGO_BIN_EXE_dbmove"), 1)])
        .current_dir(place.path(""))
        .output()
        .unwrap();
    assert_eq!(Ended::of(&copied).code, 0, "{}", Ended::of(&copied).shown());
    let report = place.line("report --json").json();
    assert_eq!(report["approvals"]["without_rehearsal"], "it's on fire", "{report}");
}

/// Words that name a command without what it needs would end with exit code 2, were they copied. Where it is only spoken of, it is listed here.
#[test]
fn every_command_that_is_proposed_names_its_playbook() {
    const SPOKEN_OF: [&str; 10] = [
        "`dbmove ctl` can't reach this driver",
        "were set by `dbmove ctl`",
        "`dbmove undo` had begun to undo this run",
        "What `dbmove assess` looks for",
        "another `dbmove assess --try` is under way",
        "what an interrupted `dbmove assess --try` left there",
        "source too, for `dbmove rollback`.",
        "yes, given by `dbmove approve`; without",
        "`dbmove run` (process {run_pid}) handed over",
        "and compare it, until `dbmove rollback` or `mysql.retire`",
    ];
    let with_playbook =
        ["rehearse", "run", "verify", "cutover", "rollback", "undo", "approve", "plan", "ctl", "assess", "schema", "certificate"];
    let lacking = |command: &str| {
        let mut words = command.split_whitespace().filter(|word| !matches!(*word, "diff" | "show" | "export" | "check"));
        let named = words.next().is_some_and(|name| with_playbook.contains(&name));
        named && words.next().is_none_or(|word| word.starts_with('-'))
    };
    let mut found = Vec::new();
    let mut directories = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            // What is said of a command in comments, and the help of options, proposes nothing.
            let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let code = code.join("\n");
            for (begin, _) in code.match_indices("`dbmove ") {
                let command = code[begin + "`dbmove ".len()..].split('`').next().unwrap_or_default();
                let around = |text: &&str| code.match_indices(*text).any(|(at, text)| (at..at + text.len()).contains(&begin));
                if lacking(command) && !SPOKEN_OF.iter().any(around) {
                    found.push(format!("{}: `dbmove {command}`", path.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "they lack a playbook (write PLAYBOOK where it is not known):\n{}", found.join("\n"));
}

#[test]
fn every_command_speaks_json_that_ends_with_next() {
    let place = Place::new();
    let file = place.playbook("p", "  prepare:\n    - { id: look, run: hook.exec, with: { command: [\"true\"], undo: none } }\n");
    for line in [
        "status".to_owned(),
        "report".to_owned(),
        "audit".to_owned(),
        "run missing.yaml".to_owned(),
        format!("plan {file}"),
        format!("playbook check {file}"),
        "playbook list".to_owned(),
        "playbook show mysql-to-mysql".to_owned(),
        "playbook show mysql-to-mysqk".to_owned(),
        "playbook new school".to_owned(),
        format!("run {file}"),
        format!("verify {file}"),
        format!("cutover {file} --yes"),
        format!("approve {file} look"),
        format!("rehearse {file}"),
        format!("run {file} --yes --no-follow"),
        "status".to_owned(),
        "report".to_owned(),
        "audit".to_owned(),
    ] {
        let ended = place.line(&format!("{line} --json"));
        let value = ended.json();
        assert!(value["next"].is_array(), "{line}: {}", ended.shown());
        assert!(value["format"].is_u64(), "{line}: {}", ended.shown());
        if line != "report" || value.get("exit_code").is_some() {
            assert_eq!(value["exit_code"], ended.code, "{line}");
            assert_eq!(
                value["error"].is_object(),
                ended.code != 0 && value.get("verdict").is_none() && value.get("problems").is_none(),
                "{line}: {value}"
            );
        }
        let keys: Vec<&str> = ended.stdout.lines().filter_map(|line| line.strip_prefix("  \"")?.split('"').next()).collect();
        assert_eq!(keys.last(), Some(&"next"), "{line}: {}", ended.shown());
    }
}

#[test]
fn what_a_command_prints_can_not_act_on_the_terminal() {
    let place = Place::new();
    let shout = "printf '\\033[2J\\033]0;owned\\007\\ntable \\342\\200\\256x' >&2; exit 1";
    let stages = format!("  prepare:\n    - {{ id: shout, run: hook.exec, with: {{ command: [sh, -c, {shout:?}], undo: none }} }}\n");
    let file = place.playbook("hostile", &stages);
    let failed = place.line(&format!("rehearse {file}"));
    assert_eq!(failed.code, 1, "{}", failed.shown());
    assert!(failed.stdout.contains("owned"), "the text is shown: {}", failed.shown());
    for ended in [failed, place.line("status"), place.line("report"), place.line("plan hostile.yaml")] {
        assert!(!acts(&ended.stdout) && !acts(&ended.stderr), "{}", ended.shown());
        assert!(!ended.stdout.contains('\u{202e}') && !ended.stderr.contains('\u{202e}'), "{}", ended.shown());
    }
}

#[test]
fn colours_are_asked_for_or_not_there() {
    let place = Place::new();
    let colour = |options: &[&str], no_color: bool| {
        let mut command = place.command(&["status"]);
        command.args(options);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        String::from_utf8(command.output().unwrap().stderr).unwrap().contains('\u{1b}')
    };
    assert!(!colour(&[], false), "stderr is no terminal here");
    assert!(colour(&["--color", "always"], false));
    assert!(!colour(&["--color", "auto"], true));
    assert!(!colour(&["--color", "never"], false));
}

#[test]
fn json_logs_are_json_to_the_last_line() {
    let place = Place::new();
    let file = place.playbook("p", "  prepare:\n    - { id: look, run: hook.exec, with: { command: [sleep, \"0.2\"], undo: none } }\n");
    for line in [format!("rehearse {file} --log-format json -vv"), "status --log-format json --state-dir none".to_owned()] {
        let ended = place.line(&line);
        assert!(!ended.stderr.is_empty());
        for line in ended.stderr.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(value["level"].is_string() && value["target"].is_string(), "{line}");
        }
    }
}

#[test]
fn completions_know_the_commands() {
    let ended = Place::new().line("completions bash");
    assert_eq!(ended.code, 0);
    assert!(ended.stdout.contains("cutover") && ended.stdout.contains("--without-rehearsal"));
}
