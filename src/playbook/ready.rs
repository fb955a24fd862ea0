//! The playbooks that come with dbmove, one per known migration.
//!
//! Each is a file in `playbooks/`, embedded here, and checked by a test against the real steps.
//! [`create`] writes one under a new name, all or nothing and never over something that is there.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::nearest::nearest;
use super::reference::is_name;

/// One playbook that comes with dbmove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyPlaybook {
    /// Its name, which is also its file's name in `playbooks/`.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
}

/// All of them by name. A test compares this list with the folder.
pub const READY: [ReadyPlaybook; 2] = [
    ReadyPlaybook { name: "mysql-behind-haproxy", text: include_str!("../../playbooks/mysql-behind-haproxy.yaml") },
    ReadyPlaybook { name: DEFAULT, text: include_str!("../../playbooks/mysql-to-mysql.yaml") },
];

/// What `dbmove playbook new` starts from if nothing else is named.
pub const DEFAULT: &str = "mysql-to-mysql";

/// Why a ready playbook can't be had or written.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// No such playbook comes with dbmove.
    #[error("no playbook `{name}` comes with dbmove{}", meant.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    Unknown {
        /// What was asked for.
        name: String,
        /// The nearest one there is.
        meant: Option<&'static str>,
    },
    /// The new name can't be a playbook's.
    #[error("`{name}` can't be the name of a playbook: names have 1 to 64 letters, digits, `-` and `_`")]
    BadName {
        /// The name.
        name: String,
    },
    /// There is a file of that name. It is left as it is.
    #[error("`{}` is there already and was left as it is; choose another name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be written. Nothing is left behind.
    #[error("`{}` can't be written: {cause}; nothing was left behind", path.display())]
    NotWritten {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
}

impl ReadyPlaybook {
    /// What it is for: the `about` of its text.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.text.lines().find_map(|line| line.strip_prefix("about:")).map(str::trim).unwrap_or_default()
    }
}

/// The ready playbook of that name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<ReadyPlaybook, ReadyError> {
    READY
        .iter()
        .find(|ready| ready.name == name)
        .copied()
        .ok_or_else(|| ReadyError::Unknown { name: name.to_owned(), meant: nearest(name, READY.iter().map(|ready| ready.name)) })
}

/// Writes a ready playbook to `NAME.yaml` in `directory` and gives the path. The file is there
/// with all of its text or not at all; a file (or link) of that name is never replaced.
///
/// # Errors
/// If the name is none, the file is there already, or it can't be written.
pub fn create(directory: &Path, name: &str, from: ReadyPlaybook) -> Result<PathBuf, ReadyError> {
    if !is_name(name) {
        return Err(ReadyError::BadName { name: name.to_owned() });
    }
    let path = directory.join(format!("{name}.yaml"));
    let not_written = |cause| ReadyError::NotWritten { path: path.clone(), cause };
    let draft = directory.join(format!(".{name}.yaml.{}-{:08x}", std::process::id(), rand::random::<u32>()));
    let written = write_draft(&draft, &renamed(from, name)).and_then(|()| put_in_place(&draft, &path));
    if let Err(cause) = written {
        // Gone already if it was never made; either way nothing of ours stays.
        let _ = std::fs::remove_file(&draft);
        return Err(if cause.kind() == std::io::ErrorKind::AlreadyExists { ReadyError::Exists { path } } else { not_written(cause) });
    }
    Ok(path)
}

/// The text with its own name in its first field.
fn renamed(from: ReadyPlaybook, name: &str) -> String {
    from.text.lines().map(|line| if line.starts_with("playbook:") { format!("playbook: {name}\n") } else { format!("{line}\n") }).collect()
}

fn write_draft(draft: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Moves the draft to its name unless that name is taken. Where the file system can't do that in
/// one call, a second name for the same file does: making it fails if the name is taken.
fn put_in_place(draft: &Path, path: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, draft, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            std::fs::hard_link(draft, path)?;
            std::fs::remove_file(draft)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_under_a_new_name_and_never_over_something() {
        let directory = tempfile::tempdir().unwrap();
        let path = create(directory.path(), "school", READY[0]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().any(|line| line == "playbook: school"));
        assert!(!text.lines().any(|line| line.starts_with("playbook: mysql")));

        let error = create(directory.path(), "school", READY[0]).unwrap_err();
        assert!(matches!(error, ReadyError::Exists { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

        std::os::unix::fs::symlink("elsewhere", directory.path().join("link.yaml")).unwrap();
        assert!(matches!(create(directory.path(), "link", READY[0]).unwrap_err(), ReadyError::Exists { .. }));
        assert!(!directory.path().join("elsewhere").exists());
        // No draft is left.
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn bad_names_and_unknown_ones_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["", "../x", "a/b", "a b", ".hidden"] {
            assert!(matches!(create(directory.path(), name, READY[0]).unwrap_err(), ReadyError::BadName { .. }), "{name}");
        }
        assert!(matches!(create(&directory.path().join("none"), "x", READY[0]).unwrap_err(), ReadyError::NotWritten { .. }));
        assert_eq!(
            find("mysql-to-mysq").unwrap_err().to_string(),
            "no playbook `mysql-to-mysq` comes with dbmove; did you mean `mysql-to-mysql`?"
        );
    }
}
