//! Fetches what `${env:…}`, `${file:…}` and `${exec:…}` refer to, without letting it leak.
//!
//! * A **file** is opened without following a link in its last component and judged by the opened
//!   handle, so that it can't be swapped between look and read: it must be a regular file, owned
//!   by the user dbmove runs as or by root, and not accessible to group or others.
//! * A **command** is run without a shell, with nothing on its stdin, in a process group of its
//!   own which is killed when the time is up or the caller stops waiting. It can't ask on the terminal.
//! * Both are bounded in size, must be UTF-8, and lose one line end at their end.
//! * Intermediate copies are wiped. Errors name the reference and never the value; of what a
//!   command says on stderr they show the first line only, without any secret that is known by then. It has dbmove's own environment: getting at
//!   secrets is what it is for.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::quantity::HumanDuration;
use super::reference::TemplateError;

/// What bounds files and commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a command may take.
    pub time: Duration,
    /// How many bytes a file or a command's output may have.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { time: Duration::from_secs(30), bytes: 64 << 10 }
    }
}

/// A reference that can't be resolved. Never holds a resolved value.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The text itself is broken; loading a playbook finds this first.
    #[error(transparent)]
    Malformed(#[from] TemplateError),
    /// The environment variable is not set.
    #[error("the environment variable `{name}` is not set")]
    NotSet {
        /// Its name.
        name: String,
    },
    /// The environment variable is not UTF-8.
    #[error("the environment variable `{name}` is not UTF-8 text")]
    NotUnicode {
        /// Its name.
        name: String,
    },
    /// The file can't be opened or read.
    #[error("`{}` can't be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The last component of the path is a symbolic link.
    #[error("`{}` is a symbolic link; name the file it leads to", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A directory, a pipe, a device.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// Others can read the secret.
    #[error("`{}` has mode {mode:04o} and so is accessible to others; run `chmod 600 {}`", path.display(), shell_word(path))]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else could change the secret.
    #[error("`{}` belongs to user id {owner}, neither to the user dbmove runs as (id {user}) nor to root; run `chown {user} {}`", path.display(), shell_word(path))]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// The file or output is too long for a secret.
    #[error("`{what}` gives more than {bytes} bytes")]
    TooLong {
        /// The file or command.
        what: String,
        /// The limit.
        bytes: u64,
    },
    /// The file or output is not text.
    #[error("`{what}` gives no UTF-8 text without NUL bytes")]
    NotPlainText {
        /// The file or command.
        what: String,
    },
    /// The command can't be started.
    #[error("the command `{program}` can't be started: {cause}")]
    NotStarted {
        /// The program.
        program: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The command said no.
    #[error("the command `{program}` failed ({status}){}", first_line.as_ref().map(|line| format!(": {line}")).unwrap_or_default())]
    Failed {
        /// The program, without its arguments.
        program: String,
        /// Its exit status.
        status: String,
        /// The first line it wrote to stderr.
        first_line: Option<String>,
    },
    /// The command takes too long.
    #[error("the command `{program}` did not end within {} and was killed", HumanDuration(*after))]
    TimedOut {
        /// The program.
        program: String,
        /// The limit.
        after: Duration,
    },
    /// A secret that is empty.
    #[error("`{reference}` gives an empty secret")]
    Empty {
        /// The text of the playbook.
        reference: String,
    },
    /// The step has left nothing yet.
    #[error("step `{step}` has not run, so its output `{output}` is not known")]
    NoSuchStep {
        /// The step.
        step: String,
        /// The output.
        output: String,
    },
    /// The step left other things.
    #[error("step `{step}` left no output `{output}`; it left {}", names(there))]
    NoSuchOutput {
        /// The step.
        step: String,
        /// The output.
        output: String,
        /// What it left.
        there: Vec<String>,
    },
    /// The output is a list or the like.
    #[error("output `{output}` of step `{step}` is neither text nor a number")]
    NotText {
        /// The step.
        step: String,
        /// The output.
        output: String,
    },
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ") }
}

/// A path as one word of a shell, for the commands that messages suggest.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@".contains(c)) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// How much of a command's stderr is kept, in bytes.
const STDERR_KEPT: usize = 2048;

/// An environment variable of this process.
pub(super) fn environment(name: &str) -> Result<Zeroizing<String>, ReferenceError> {
    match std::env::var(name) {
        Ok(value) => Ok(Zeroizing::new(value)),
        Err(std::env::VarError::NotPresent) => Err(ReferenceError::NotSet { name: name.to_owned() }),
        Err(std::env::VarError::NotUnicode(_)) => Err(ReferenceError::NotUnicode { name: name.to_owned() }),
    }
}

/// A file's content.
pub(super) async fn file(path: &Path, limits: Limits) -> Result<Zeroizing<String>, ReferenceError> {
    let (path, for_error) = (path.to_owned(), path.to_owned());
    let read = tokio::task::spawn_blocking(move || read_file(&path, limits)).await;
    read.unwrap_or_else(|cause| Err(ReferenceError::Unreadable { path: for_error, cause: std::io::Error::other(cause) }))
}

fn read_file(path: &Path, limits: Limits) -> Result<Zeroizing<String>, ReferenceError> {
    use rustix::fs::OFlags;
    let unreadable = |cause| ReferenceError::Unreadable { path: path.to_owned(), cause };
    // NONBLOCK: opening a pipe must not wait for a writer. It changes nothing for files.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(_) if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) => {
            return Err(ReferenceError::Link { path: path.to_owned() });
        }
        Err(cause) => return Err(unreadable(cause)),
    };
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(ReferenceError::NotAFile { path: path.to_owned() });
    }
    let (mode, owner, user) = (found.mode() & 0o7777, found.uid(), rustix::process::geteuid().as_raw());
    if owner != user && owner != 0 {
        return Err(ReferenceError::ForeignOwner { path: path.to_owned(), owner, user });
    }
    if mode & 0o077 != 0 {
        return Err(ReferenceError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity(limits)));
    file.take(limits.bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    plain_text(&bytes, limits, || path.display().to_string())
}

/// Room for everything that may be read, so that no partly filled copy is left behind by growing.
fn capacity(limits: Limits) -> usize {
    usize::try_from(limits.bytes.saturating_add(2)).unwrap_or(64 << 10).min(1 << 20)
}

/// The bytes as text without its last line end.
fn plain_text(bytes: &[u8], limits: Limits, what: impl Fn() -> String) -> Result<Zeroizing<String>, ReferenceError> {
    if bytes.len() as u64 > limits.bytes {
        return Err(ReferenceError::TooLong { what: what(), bytes: limits.bytes });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| ReferenceError::NotPlainText { what: what() })?;
    if text.contains('\0') {
        return Err(ReferenceError::NotPlainText { what: what() });
    }
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Zeroizing::new(text.to_owned()))
}

/// A process group that is killed when this is dropped before the command has ended.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Fails only if the group is gone, which is what is wanted.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

/// What a command prints.
pub(super) async fn command(words: &[String], limits: Limits) -> Result<Zeroizing<String>, ReferenceError> {
    let program = words.first().cloned().unwrap_or_default();
    let not_started = |cause| ReferenceError::NotStarted { program: program.clone(), cause };
    let mut child = tokio::process::Command::new(&program)
        .args(words.iter().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (output, complaint) = tokio::join!(read_bounded(stdout, capacity(limits)), read_bounded(stderr, STDERR_KEPT));
        let (output, complaint) = (output?, complaint?);
        Ok::<_, std::io::Error>((child.wait().await?, output, complaint))
    };
    let (status, output, complaint) = match tokio::time::timeout(limits.time, work).await {
        Err(_) => return Err(ReferenceError::TimedOut { program, after: limits.time }),
        Ok(result) => result.map_err(not_started)?,
    };
    // The leader is reaped: its number may already be somebody else's.
    group.0 = None;
    if !status.success() {
        return Err(ReferenceError::Failed { program, status: status.to_string(), first_line: first_line(&complaint) });
    }
    plain_text(&output, limits, || program.clone())
}

/// Reads to the end, keeping at most `room` bytes.
async fn read_bounded(pipe: Option<impl AsyncRead + Unpin>, room: usize) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(room as u64).read_to_end(&mut bytes).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

/// The first line that says something, printable characters only, at most 200 of them.
fn first_line(complaint: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(complaint);
    let line: String = text.lines().find(|line| !line.trim().is_empty())?.trim().chars().filter(|c| !c.is_control()).take(200).collect();
    Some(super::known::without_secrets(&line, []))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::playbook::model::Template;
    use crate::playbook::reference::Resolver;

    async fn secret(text: &str) -> Result<String, String> {
        let limits = Limits { time: Duration::from_secs(5), bytes: 1024 };
        let resolver = Resolver::default().limits(limits);
        let secret = Template(text.to_owned()).resolve_secret(&resolver).await.map_err(|error| error.to_string())?;
        assert!(!format!("{secret:?}").contains(secret.expose_secret()));
        Ok(secret.expose_secret().to_owned())
    }

    fn write(directory: &tempfile::TempDir, name: &str, content: &[u8], mode: u32) -> String {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    #[tokio::test]
    async fn files_are_read_only_if_private() {
        let directory = tempfile::tempdir().unwrap();
        let private = write(&directory, "private", b"hunter2\n", 0o600);
        assert_eq!(secret(&format!("${{file:{private}}}")).await.unwrap(), "hunter2");
        let windows = write(&directory, "windows", b"hunter2\r\n", 0o400);
        assert_eq!(secret(&format!("${{file:{windows}}}")).await.unwrap(), "hunter2");
        let two = write(&directory, "two", b"a\nb\n\n", 0o600);
        assert_eq!(secret(&format!("${{file:{two}}}")).await.unwrap(), "a\nb\n");

        for mode in [0o640, 0o604, 0o644, 0o610] {
            let exposed = write(&directory, "exposed", b"hunter2", mode);
            let error = secret(&format!("${{file:{exposed}}}")).await.unwrap_err();
            assert!(error.contains(&format!("mode {mode:04o}")) && error.contains(&format!("chmod 600 {exposed}")), "{error}");
            assert!(!error.contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn links_pipes_directories_and_long_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let private = write(&directory, "private", b"hunter2", 0o600);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&private, &link).unwrap();
        assert!(secret(&format!("${{file:{}}}", link.display())).await.unwrap_err().contains("symbolic link"));
        assert!(secret(&format!("${{file:{}}}", directory.path().display())).await.unwrap_err().contains("not a regular file"));
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert!(secret(&format!("${{file:{}}}", pipe.display())).await.unwrap_err().contains("not a regular file"));
        let long = write(&directory, "long", &[b'x'; 2000], 0o600);
        let error = secret(&format!("${{file:{long}}}")).await.unwrap_err();
        assert!(error.contains("more than 1024 bytes") && !error.contains("xxx"), "{error}");
        let binary = write(&directory, "binary", b"a\xff", 0o600);
        assert!(secret(&format!("${{file:{binary}}}")).await.unwrap_err().contains("no UTF-8"));
        let empty = write(&directory, "empty", b"\n", 0o600);
        assert!(secret(&format!("${{file:{empty}}}")).await.unwrap_err().contains("empty secret"));
        assert!(secret("${file:/nowhere/at/all}").await.unwrap_err().contains("can't be read"));
    }

    #[tokio::test]
    async fn commands_run_without_a_shell_and_within_bounds() {
        assert_eq!(secret("${exec:printf '%s\n' 'a  b' $HOME}").await.unwrap(), "a  b\n$HOME");
        let error = secret("${exec:sh -c 'echo hunter2; echo first >&2; echo hunter2 >&2; exit 3'}").await.unwrap_err();
        assert_eq!(error, "the command `sh` failed (exit status: 3): first");
        assert!(secret("${exec:dbmove-no-such-command x}").await.unwrap_err().contains("can't be started"));
        assert!(secret("${exec:seq 1000}").await.unwrap_err().contains("more than 1024 bytes"));
        assert_eq!(secret("${exec:sh -c 'seq 100000 >&2; echo ok'}").await.unwrap(), "ok");
        assert!(secret("${exec:true}").await.unwrap_err().contains("empty secret"));
    }

    #[tokio::test]
    async fn a_slow_command_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let text = format!("${{exec:sh -c '(sleep 1; touch {}) & sleep 20'}}", mark.display());
        let resolver = Resolver::default().limits(Limits { time: Duration::from_millis(200), bytes: 1024 });
        let error = Template(text).resolve_secret(&resolver).await.unwrap_err();
        assert_eq!(error.to_string(), "the command `sh` did not end within 200ms and was killed");
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert!(!mark.exists());
    }

    #[tokio::test]
    async fn environment_variables() {
        // Tests can't set variables (that is unsafe in a threaded program); cargo sets these.
        assert_eq!(secret("x${env:CARGO_PKG_NAME}y").await.unwrap(), "xdbmovey");
        assert_eq!(
            secret("${env:DBMOVE_NO_SUCH_VARIABLE}").await.unwrap_err(),
            "the environment variable `DBMOVE_NO_SUCH_VARIABLE` is not set"
        );
    }
}
