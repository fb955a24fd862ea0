//! The playbook: a YAML file that says which stores move and in which steps. Data, not code.
//!
//! # From text to model
//!
//! [`load`] reads a file in four passes, and reports everything they find at once, in file order,
//! with line, column, excerpt and the nearest valid name:
//!
//! 1. `yaml`: text to a tree that knows its places, bounded in size, depth and aliases;
//! 2. `shape`: fields, types and values against the JSON Schema of the [`model`];
//! 3. `stores`, `guards`, `hooks` and `steps`: what a schema can't say (names, order, references, arguments);
//! 4. the tree becomes the [`model::Playbook`], only if nothing was found.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`model`] | what a playbook can say |
//! | [`vocabulary`] | the steps there are, handed in by whoever loads |
//! | [`reference`](mod@reference), [`secret`] | `${…}` references and how they are resolved at use |
//! | [`known`] | the secrets this process knows, kept out of what commands print |
//! | [`address`], [`quantity`] | urls, durations and sizes |
//! | [`hash`] | fingerprints: has a playbook changed, and where |
//! | [`schema`] | the JSON Schema for editors |
//! | [`ready`] | the playbooks that come with dbmove |
//! | [`problem`] | mistakes and how they are shown |

pub mod address;
mod guards;
pub mod hash;
mod hooks;
pub mod known;
mod mask;
pub mod model;
pub mod nearest;
mod order;
pub mod problem;
pub mod quantity;
pub mod ready;
pub mod reference;
pub mod schema;
pub mod secret;
mod shape;
mod steps;
mod stores;
pub mod vocabulary;
mod yaml;

use std::io::Read;
use std::path::Path;

use model::Playbook;
use problem::{LARGEST_PLAYBOOK, Mistake, PlaybookError, Problem};
use vocabulary::Vocabulary;

/// Reads the playbook in a file. Blocks: a file is read.
///
/// # Errors
/// If the file can't be read or has mistakes; all of them are in the error.
pub fn load(path: &Path, vocabulary: Vocabulary) -> Result<Playbook, PlaybookError> {
    let name = path.display().to_string();
    let unreadable = |cause| PlaybookError::Unreadable { path: path.to_owned(), cause };
    // Looked at before it is opened, as opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(PlaybookError::NotAFile { path: path.to_owned() });
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_PLAYBOOK + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_PLAYBOOK {
        return Err(PlaybookError::TooLarge { name });
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| PlaybookError::NotText {
        name: name.clone(),
        offset: error.valid_up_to(),
        reason: "no valid character".to_owned(),
    })?;
    load_text(&name, text, vocabulary)
}

/// Reads the playbook in a text. `name` is what errors call it.
///
/// # Errors
/// If the text has mistakes; all of them are in the error.
pub fn load_text(name: &str, text: &str, vocabulary: Vocabulary) -> Result<Playbook, PlaybookError> {
    if text.len() as u64 > LARGEST_PLAYBOOK {
        return Err(PlaybookError::TooLarge { name: name.to_owned() });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((offset, c)) = text.char_indices().find(|&(_, c)| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        let reason = format!("a control character (U+{:04X})", u32::from(c));
        return Err(PlaybookError::NotText { name: name.to_owned(), offset, reason });
    }
    let (tree, mut problems) = yaml::read(text).map_err(|problem| PlaybookError::mistaken(name, text, vec![problem]))?;
    if matches!(tree.value, yaml::Value::Null) {
        return Err(PlaybookError::Empty { name: name.to_owned() });
    }
    let model = schemars::schema_for!(Playbook);
    problems.extend(shape::check(model.as_value(), &tree, "the playbook").into_iter().map(shape::Finding::into_problem));
    problems.extend(check_name(&tree));
    problems.extend(stores::check(&tree, text));
    problems.extend(guards::check(&tree, text, vocabulary.guards));
    problems.extend(hooks::check(&tree, text, vocabulary.hook));
    problems.extend(steps::check(&tree, text, vocabulary.steps));
    if problems.is_empty() {
        match serde_json::from_value(tree.to_json()) {
            Ok(playbook) => return Ok(playbook),
            // The schema is made from the type, so this is a gap in `shape`; still a message and no panic.
            Err(error) => problems.push(Problem::new(
                Mistake::WrongType,
                0..0,
                format!("the playbook can't be used: {error}"),
                "somewhere in this file",
            )),
        }
    }
    Err(PlaybookError::mistaken(name, text, problems))
}

fn check_name(tree: &yaml::Node) -> Option<Problem> {
    let (name, node) = tree.field_text("playbook")?;
    (!reference::is_name(name)).then(|| stores::bad_name("playbook", name, node.span.clone()))
}
