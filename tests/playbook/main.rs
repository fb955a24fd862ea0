//! Playbooks as people write them: good ones, every kind of broken one, and what is made of them.
//!
//! `fixtures/playbooks/broken/NAME.yaml` has its expected message beside it in `NAME.txt`. To add
//! a case, write the yaml, run with `DBMOVE_WRITE_EXPECTED=1`, and read what was written.

#![allow(clippy::unwrap_used)]

mod broken;
mod command;
mod fingerprint;
mod good;
mod schema;
mod vocabulary;

use std::path::{Path, PathBuf};

/// The yaml files of a folder of the repository, by name.
fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty());
    files
}

/// The file's name without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}
