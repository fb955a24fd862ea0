//! Every kind of mistake, with the message a person sees at 80 columns without colour.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dbmove::playbook::problem::{LARGEST_PLAYBOOK, Mistake, PlaybookError};
use dbmove::playbook::{load, load_text};

use crate::vocabulary::VOCABULARY;
use crate::{stem, yaml_files};

#[test]
fn every_broken_playbook_gets_its_message() {
    let write = std::env::var_os("DBMOVE_WRITE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for path in yaml_files("fixtures/playbooks/broken") {
        // By its short name, so that lines break alike on every machine.
        let bytes = std::fs::read(&path).unwrap();
        let result = match std::str::from_utf8(&bytes) {
            Ok(text) => load_text(&format!("{}.yaml", stem(&path)), text, VOCABULARY),
            // Tests run where the manifest lies.
            Err(_) => load(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap(), VOCABULARY),
        };
        let Err(error) = result else {
            wrong.push(format!("{} was accepted", path.display()));
            continue;
        };
        let text = error.render(80, false);
        let expected_path = path.with_extension("txt");
        if write {
            std::fs::write(&expected_path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if text != expected {
            wrong.push(format!("{}:\n{}", path.display(), similar::TextDiff::from_lines(&expected, &text).unified_diff()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_cases_cover_every_kind_of_mistake() {
    let mut found: BTreeSet<Mistake> = BTreeSet::new();
    let mut places = 0;
    for path in yaml_files("fixtures/playbooks/broken") {
        let error = load(&path, VOCABULARY).unwrap_err();
        found.extend(error.problems().iter().map(|problem| problem.mistake));
        for problem in error.problems() {
            assert!(problem.line >= 1 && problem.column >= 1);
            places += 1;
        }
        // In file order.
        let lines: Vec<_> = error.problems().iter().map(|problem| (problem.line, problem.column)).collect();
        assert!(lines.is_sorted(), "{}: {lines:?}", path.display());
    }
    let missing: Vec<_> = Mistake::ALL.iter().filter(|kind| !found.contains(kind)).collect();
    // `WrongStore` by kind needs a second kind of store; the storeless case covers the variant.
    assert!(missing.is_empty(), "no case for {missing:?}");
    assert!(places > 60);
}

#[test]
fn no_message_repeats_a_secret() {
    for path in yaml_files("fixtures/playbooks/broken") {
        let error = load(&path, VOCABULARY).unwrap_err();
        let everything = format!("{}{error:?}{}", error.render(80, true), serde_json::to_string(error.problems()).unwrap());
        assert!(!everything.contains("hunter2") && !everything.contains("12345678"), "{}: {everything}", path.display());
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let path = yaml_files("fixtures/playbooks/broken").into_iter().find(|path| stem(path) == "several_mistakes").unwrap();
    let error = load(&path, VOCABULARY).unwrap_err();
    let kinds: Vec<Mistake> = error.problems().iter().map(|problem| problem.mistake).collect();
    assert_eq!(
        kinds,
        [
            Mistake::InvalidName,
            Mistake::UnknownField,
            Mistake::InvalidValue,
            Mistake::InvalidReference,
            Mistake::UnknownStep,
            Mistake::UnknownStore,
            Mistake::UnknownNeed
        ]
    );
}

#[test]
fn what_is_no_file_is_said() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(load(directory.path(), VOCABULARY).unwrap_err(), PlaybookError::NotAFile { .. }));
    assert!(matches!(load(&directory.path().join("none.yaml"), VOCABULARY).unwrap_err(), PlaybookError::Unreadable { .. }));
    let huge = directory.path().join("huge.yaml");
    std::fs::write(&huge, "# x\n".repeat(usize::try_from(LARGEST_PLAYBOOK).unwrap() / 4 + 1)).unwrap();
    assert!(matches!(load(&huge, VOCABULARY).unwrap_err(), PlaybookError::TooLarge { .. }));
}

#[test]
fn hostile_texts_end_soon_and_without_a_panic() {
    let good = include_str!("../../playbooks/mysql-to-mysql.yaml");
    let start = Instant::now();
    // Every truncation at a character, and every line left out or doubled.
    for (end, _) in good.char_indices().step_by(19) {
        let _ = load_text("cut", &good[..end], VOCABULARY);
    }
    let lines: Vec<&str> = good.lines().collect();
    for left_out in 0..lines.len() {
        let text: String = lines.iter().enumerate().filter(|(index, _)| *index != left_out).map(|(_, line)| format!("{line}\n")).collect();
        let _ = load_text("left out", &text, VOCABULARY).map_err(|error| error.render(80, false));
        let text: String = lines.iter().enumerate().map(|(index, line)| line.repeat(1 + usize::from(index == left_out)) + "\n").collect();
        let _ = load_text("doubled", &text, VOCABULARY).map_err(|error| error.render(80, false));
    }
    let many_steps: String = (0..3000).map(|index| format!("    - {{ id: s{index}, run: hook.exec, with: {{ command: a }} }}\n")).collect();
    let text = format!("playbook: many\nstores: {{}}\nstages:\n  prepare:\n{many_steps}");
    assert!(load_text("many", &text, VOCABULARY).unwrap_err().render(80, false).contains("expected at most 500 steps"));
    let many_fields: String = (0..20_000).map(|index| format!("f{index}: 1\n")).collect();
    assert!(load_text("fields", &many_fields, VOCABULARY).unwrap_err().render(80, false).contains("of which the first 50 are shown"));
    assert!(load_text("aliases", &format!("a: &a {}\nb: [{}]\n", "x".repeat(1000), "*a,".repeat(50_000)), VOCABULARY).is_err());
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}
