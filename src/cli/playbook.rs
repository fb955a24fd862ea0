//! `dbmove playbook list | show | new | check | schema`.
//!
//! Each function does the whole command and returns what to print. Printing is the caller's.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::answer::{Answer, excerpts};
use crate::engine::outcome::ExitCode;
use crate::playbook::hash::Fingerprint;
use crate::playbook::model::StageName;
use crate::playbook::problem::{LocatedProblem, PlaybookError};
use crate::playbook::ready::{self, READY, ReadyError};
use crate::playbook::vocabulary::Vocabulary;
use crate::playbook::{load, schema as playbook_schema};
use crate::report::next::playbook_word;

/// A ready playbook in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// A ready playbook as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// A playbook that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Where it is.
    pub path: PathBuf,
    /// The ready playbook it was made from.
    pub from: &'static str,
}

/// What `check` found.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// The file.
    pub path: PathBuf,
    /// True if it can be used.
    pub valid: bool,
    /// The playbook's name, if it can be used.
    pub playbook: Option<String>,
    /// Its hash, if it can be used.
    pub hash: Option<String>,
    /// Its stores by name, if it can be used.
    pub stores: Vec<String>,
    /// How many steps each stage has, if it can be used.
    pub steps: Vec<(StageName, usize)>,
    /// In one sentence what is wrong, if it can't be used.
    pub error: Option<String>,
    /// Every mistake, in file order.
    pub problems: Vec<LocatedProblem>,
}

/// The ready playbooks with what each is for.
#[must_use]
pub fn list() -> Answer {
    let listed: Vec<Listed> = READY.iter().map(|ready| Listed { name: ready.name, about: ready.about() }).collect();
    let width = listed.iter().map(|listed| listed.name.len()).max().unwrap_or_default();
    let text = listed.iter().map(|listed| format!("{:width$}  {}\n", listed.name, listed.about)).collect();
    let next = [format!("dbmove playbook show {}", ready::DEFAULT), format!("dbmove playbook new NAME --from {}", ready::DEFAULT)];
    Answer::new("playbook list", ExitCode::Done, &serde_json::json!({ "playbooks": listed }), &next, text)
}

/// A ready playbook's text.
///
/// # Errors
/// If there is none of that name.
pub fn show(name: &str) -> Result<Answer, ReadyError> {
    let ready = ready::find(name)?;
    let next = [format!("dbmove playbook new NAME --from {}", ready.name)];
    Ok(Answer::new("playbook show", ExitCode::Done, &Shown { name: ready.name, text: ready.text }, &next, ready.text.to_owned()))
}

/// Writes `NAME.yaml` into `directory`, made from a ready playbook ([`ready::DEFAULT`] without one).
///
/// # Errors
/// If the name or the ready playbook is none, or the file is there already or can't be written.
pub fn new(directory: &Path, name: &str, from: Option<&str>) -> Result<Answer, ReadyError> {
    let ready = ready::find(from.unwrap_or(ready::DEFAULT))?;
    let path = ready::create(directory, name, ready)?;
    let next = [format!("dbmove playbook check {}", playbook_word(name, Some(&path)))];
    let words =
        format!("wrote `{}`, made from `{}`; adapt its stores and the step `switch`, then run `{}`\n", path.display(), ready.name, next[0]);
    let answer = Answer::new("playbook new", ExitCode::Done, &Written { path, from: ready.name }, &next, String::new());
    Ok(Answer { words, ..answer })
}

/// Whether the playbook in a file can be used. Exit code 2 if not. Contacts no server and resolves no secret.
#[must_use]
pub fn check(path: &Path, vocabulary: Vocabulary, columns: usize, colour: bool) -> Answer {
    let playbook = match load(path, vocabulary) {
        Ok(playbook) => playbook,
        Err(error) => return broken(path, &error, columns, colour),
    };
    let steps: Vec<(StageName, usize)> = StageName::ALL.iter().map(|&stage| (stage, playbook.stages.get(stage).len())).collect();
    let stores: Vec<String> = playbook.stores.keys().cloned().collect();
    let counted: Vec<String> =
        steps.iter().filter(|(_, steps)| *steps > 0).map(|(stage, steps)| format!("{} {steps}", stage.as_str())).collect();
    let words = format!(
        "`{}` is a valid playbook: `{}`, {}, steps: {}\n",
        path.display(),
        playbook.playbook,
        if stores.len() == 1 { "1 store".to_owned() } else { format!("{} stores", stores.len()) },
        counted.join(", "),
    );
    let word = playbook_word(&playbook.playbook, Some(path));
    let next = [format!("dbmove plan {word}"), format!("dbmove rehearse {word}")];
    let data = Checked {
        path: path.to_owned(),
        valid: true,
        hash: Some(Fingerprint::of(&playbook).whole),
        playbook: Some(playbook.playbook),
        stores,
        steps,
        error: None,
        problems: Vec::new(),
    };
    Answer { words, ..Answer::new("playbook check", ExitCode::Done, &data, &next, String::new()) }
}

fn broken(path: &Path, error: &PlaybookError, columns: usize, colour: bool) -> Answer {
    let data = Checked {
        path: path.to_owned(),
        valid: false,
        playbook: None,
        hash: None,
        stores: Vec::new(),
        steps: Vec::new(),
        error: Some(error.to_string()),
        problems: error.problems().to_vec(),
    };
    let next = [format!("dbmove playbook check {}", playbook_word("", Some(path)))];
    let excerpts = excerpts(error, columns, colour);
    let words = if excerpts.is_empty() { format!("error: {error}\n") } else { format!("{excerpts}\n\nerror: {error}\n") };
    Answer { words, ..Answer::new("playbook check", ExitCode::Usage, &data, &next, String::new()) }
}

/// The JSON Schema of playbooks, for editors; the same with `--json`.
#[must_use]
pub fn schema(vocabulary: Vocabulary) -> Answer {
    // `#` asks for the indented form.
    let text = format!("{:#}\n", playbook_schema::schema(vocabulary));
    Answer { json: text.clone(), text, words: String::new(), exit_code: ExitCode::Done }
}
