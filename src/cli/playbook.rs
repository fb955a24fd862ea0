//! `dbmove playbook list | show | new | check | schema`.
//!
//! Each function does the whole command and returns what to print: data for `--json`, text for
//! people, and the exit code. Printing is the caller's.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::playbook::hash::Fingerprint;
use crate::playbook::model::StageName;
use crate::playbook::problem::{LocatedProblem, PlaybookError};
use crate::playbook::ready::{self, READY, ReadyError};
use crate::playbook::vocabulary::StepWord;
use crate::playbook::{load, schema as playbook_schema};

/// Exit code: done.
pub const DONE: u8 = 0;
/// Exit code: the command or its playbook is wrong.
pub const USAGE: u8 = 2;

/// What a command found, in both forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer<Data> {
    /// For programs: what `--json` prints.
    pub data: Data,
    /// For people, on stdout where `to_stdout`, else on stderr. Ends with a line end.
    #[serde(skip)]
    pub text: String,
    /// Whether the text is data itself (a list, a playbook) rather than words about it.
    #[serde(skip)]
    pub to_stdout: bool,
    /// What the process ends with.
    #[serde(skip)]
    pub exit_code: u8,
}

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
    /// What makes sense now.
    pub next: Vec<String>,
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
    /// What makes sense now.
    pub next: Vec<String>,
}

/// The ready playbooks with what each is for.
#[must_use]
pub fn list() -> Answer<Vec<Listed>> {
    let data: Vec<Listed> = READY.iter().map(|ready| Listed { name: ready.name, about: ready.about() }).collect();
    let width = data.iter().map(|listed| listed.name.len()).max().unwrap_or_default();
    let text = data.iter().map(|listed| format!("{:width$}  {}\n", listed.name, listed.about)).collect();
    Answer { data, text, to_stdout: true, exit_code: DONE }
}

/// A ready playbook's text.
///
/// # Errors
/// If there is none of that name.
pub fn show(name: &str) -> Result<Answer<Shown>, ReadyError> {
    let ready = ready::find(name)?;
    Ok(Answer { data: Shown { name: ready.name, text: ready.text }, text: ready.text.to_owned(), to_stdout: true, exit_code: DONE })
}

/// Writes `NAME.yaml` into `directory`, made from a ready playbook ([`ready::DEFAULT`] without one).
///
/// # Errors
/// If the name or the ready playbook is none, or the file is there already or can't be written.
pub fn new(directory: &Path, name: &str, from: Option<&str>) -> Result<Answer<Written>, ReadyError> {
    let ready = ready::find(from.unwrap_or(ready::DEFAULT))?;
    let path = ready::create(directory, name, ready)?;
    let next = vec![format!("dbmove playbook check {}", path.display())];
    let text = format!(
        "Wrote `{}`, made from `{}`. Adapt its stores and the step `switch`, then run `{}`.\n",
        path.display(),
        ready.name,
        next[0]
    );
    Ok(Answer { data: Written { path, from: ready.name, next }, text, to_stdout: false, exit_code: DONE })
}

/// Whether the playbook in a file can be used. Exit code 2 if not. Contacts no server and resolves no secret.
#[must_use]
pub fn check(path: &Path, vocabulary: &[StepWord], columns: usize, colour: bool) -> Answer<Checked> {
    match load(path, vocabulary) {
        Ok(playbook) => {
            let steps: Vec<(StageName, usize)> = StageName::ALL.iter().map(|&stage| (stage, playbook.stages.get(stage).len())).collect();
            let stores: Vec<String> = playbook.stores.keys().cloned().collect();
            let counted: Vec<String> =
                steps.iter().filter(|(_, steps)| *steps > 0).map(|(stage, steps)| format!("{} {steps}", stage.as_str())).collect();
            let hash = Fingerprint::of(&playbook).whole;
            let text = format!(
                "`{}` is a valid playbook: `{}`, {}, steps: {}\n",
                path.display(),
                playbook.playbook,
                if stores.len() == 1 { "1 store".to_owned() } else { format!("{} stores", stores.len()) },
                counted.join(", "),
            );
            let next = vec![format!("dbmove assess {}", path.display()), format!("dbmove plan {}", path.display())];
            let data = Checked {
                path: path.to_owned(),
                valid: true,
                playbook: Some(playbook.playbook),
                hash: Some(hash),
                stores,
                steps,
                error: None,
                problems: Vec::new(),
                next,
            };
            Answer { data, text, to_stdout: false, exit_code: DONE }
        }
        Err(error) => broken(path, &error, columns, colour),
    }
}

fn broken(path: &Path, error: &PlaybookError, columns: usize, colour: bool) -> Answer<Checked> {
    let data = Checked {
        path: path.to_owned(),
        valid: false,
        playbook: None,
        hash: None,
        stores: Vec::new(),
        steps: Vec::new(),
        error: Some(error.to_string()),
        problems: error.problems().to_vec(),
        next: vec![format!("dbmove playbook check {}", path.display())],
    };
    Answer { data, text: error.render(columns, colour), to_stdout: false, exit_code: USAGE }
}

/// The JSON Schema of playbooks, for editors.
#[must_use]
pub fn schema(vocabulary: &[StepWord]) -> Answer<serde_json::Value> {
    let data = playbook_schema::schema(vocabulary);
    // `#` asks for the indented form.
    let text = format!("{data:#}\n");
    Answer { data, text, to_stdout: true, exit_code: DONE }
}
