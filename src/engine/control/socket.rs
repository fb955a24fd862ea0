//! The socket a driver is steered by: one line of JSON there, one back, and the connection is over.
//!
//! # What it promises
//!
//! * It is there while a driver drives: `control-RUN.socket` in the state directory (0700), mode 0600. It is made under another name and
//!   renamed into place, so it never has another mode, and what a killed driver left is replaced in one go.
//! * A driver makes it only when it holds the run's lease, so a second driver never takes a living one's place. One that has
//!   lost its lease leaves the socket of the next alone: it removes the file only if it is still the one it made.
//! * The kernel says who asks (`SO_PEERCRED`); only this user and root may.
//! * Nobody can block the driver: a request has a size and a time, and at most [`AT_ONCE`] are under way. One that
//!   the driver does not come to answer (a step that is being stopped) is withdrawn, and whether it was is told.
//! * No socket is no reason to end a run: where none can be made (a file system without them) the run goes on, and the journal says so.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{Answer, Asked, Controlled, Live, Reply, Request, VERSION};
use crate::engine::journal::RunJournal;

/// A request or answer is no longer than this, in bytes.
const LONGEST: u64 = 256 << 10;
/// How long one has to be said.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the driver has to come to it.
const DRIVER: Duration = Duration::from_secs(10);
/// How many connections are served at once.
const AT_ONCE: usize = 8;
/// A longer path can't be the address of a socket (108 bytes with their end, by the kernel).
const LONGEST_PATH: usize = 100;

/// Where the socket of a run lies.
#[must_use]
pub fn path(directory: &Path, run: &str) -> PathBuf {
    directory.join(format!("control-{run}.socket"))
}

/// A path as a socket's address: through the open directory where it would be too long.
struct Address {
    /// Keeps `/proc/self/fd/…` what it is.
    _directory: Option<std::fs::File>,
    path: PathBuf,
}

impl Address {
    fn of(path: &Path) -> io::Result<Address> {
        if path.as_os_str().len() <= LONGEST_PATH {
            return Ok(Address { _directory: None, path: path.to_owned() });
        }
        let (directory, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        let directory = std::fs::File::open(directory)?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Address { _directory: Some(directory), path: short })
    }
}

/// A driver's socket; gone when this is dropped.
pub struct Socket {
    path: PathBuf,
    /// Device and inode of the file that was made.
    made: (u64, u64),
    _serving: JoinSet<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody else's by now, if this driver lost its lease.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.made) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Socket {
    /// Listens for a run whose lease is held.
    ///
    /// # Errors
    /// If the socket can't be made.
    pub(in crate::engine) fn listen(
        directory: &Path,
        journal: RunJournal,
        live: Arc<Mutex<Live>>,
        asked: mpsc::Sender<Asked>,
    ) -> io::Result<Socket> {
        let path = path(directory, journal.run());
        let beside = directory.join(format!(".control-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        let listener = UnixListener::bind(Address::of(&beside)?.path)?;
        let placed = std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::symlink_metadata(&beside))
            .and_then(|made| std::fs::rename(&beside, &path).map(|()| (made.dev(), made.ino())));
        let made = placed.inspect_err(|_| {
            let _ = std::fs::remove_file(&beside);
        })?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Desk { journal, live, asked }));
        Ok(Socket { path, made, _serving: serving })
    }
}

/// What an answer is made from.
#[derive(Clone)]
struct Desk {
    journal: RunJournal,
    live: Arc<Mutex<Live>>,
    asked: mpsc::Sender<Asked>,
}

async fn serve(listener: UnixListener, desk: Desk) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < AT_ONCE => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(talk(stream, desk.clone()));
                }
                // No file left to open, most likely: it may be better in a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            },
        }
    }
}

/// One request and its answer.
async fn talk(mut stream: UnixStream, desk: Desk) {
    let answer = match said(&mut stream).await {
        Ok(request) => desk.answer(&stream, request).await,
        Err(message) => Answer::Failed { message },
    };
    // Whoever has gone away misses the answer; the journal has it.
    let _ = tokio::time::timeout(PATIENCE, write(&mut stream, &Reply { version: VERSION, answer })).await;
}

async fn said(stream: &mut UnixStream) -> Result<Request, String> {
    let line = tokio::time::timeout(PATIENCE, read_line(stream))
        .await
        .map_err(|_| format!("the request did not come to its end within {PATIENCE:?}; nothing was done"))?
        .map_err(|error| format!("the request can't be read: {error}; nothing was done"))?;
    // The version first: what a newer one says otherwise may mean something else.
    let version = serde_json::from_str::<serde_json::Value>(&line).ok().and_then(|value| value.get("version")?.as_u64());
    if version != Some(u64::from(VERSION)) {
        let found = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
        return Err(format!("the request's version is {found}, and this driver speaks {VERSION}; nothing was done"));
    }
    serde_json::from_str(&line).map_err(|error| format!("the request can't be understood: {error}; nothing was done"))
}

impl Desk {
    async fn answer(&self, stream: &UnixStream, request: Request) -> Answer {
        let refused = |message: String| Answer::Refused { message };
        let asker = match stream.peer_cred() {
            Ok(asker) => asker,
            Err(error) => return refused(format!("the system does not say who asks: {error}; nothing was done")),
        };
        let (us, user) = (rustix::process::getuid().as_raw(), asker.uid());
        if user != us && user != 0 {
            return refused(format!("the driver runs as user id {us}, and user id {user} asks; nothing was done"));
        }
        let run = self.journal.run();
        if request.run != **run {
            return refused(format!("this driver drives run `{run}`; nothing was done"));
        }
        let Some(act) = request.act else {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (live.pid, live.control) = (std::process::id(), self.journal.with_state(|state| state.control.clone()));
            return Answer::Live(Box::new(live));
        };
        if request.by.trim().is_empty() {
            return refused("who says it is recorded, so a name is needed; nothing was done".to_owned());
        }
        let undoing = |state: &crate::engine::journal::RunState| {
            state.undo.as_ref().filter(|undo| !undo.finished && !undo.told).map(|undo| undo.why.clone())
        };
        if let Some(why) = self.journal.with_state(undoing) {
            return refused(format!("steps are being undone ({why}), and that goes first; nothing was changed"));
        }
        let from = format!("user id {user}{}", asker.pid().map(|pid| format!(", process {pid}")).unwrap_or_default());
        let reason = request.reason.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty());
        let controlled = Controlled { act, by: request.by.trim().to_owned(), reason, from };
        let (answer, answered) = oneshot::channel();
        let busy = || Answer::Failed {
            message: format!(
                "the driver did not come to it within {DRIVER:?}: a step is being stopped, or it is ending. `dbmove status` shows whether it was taken"
            ),
        };
        let asked = async {
            self.asked.send(Asked { controlled, answer }).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(DRIVER, asked).await.ok().flatten().unwrap_or_else(busy)
    }
}

async fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line).await?;
    if line.ends_with('\n') { Ok(line) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is no whole line")) }
}

async fn write(stream: &mut UnixStream, message: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await?;
    stream.flush().await
}

/// Why a driver could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("nobody listens at `{path}`")]
    Nobody {
        /// Where.
        path: PathBuf,
    },
    /// Something else.
    #[error("the driver can't be asked by `{path}`: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Asks the driver of a run.
///
/// # Errors
/// [`AskError`]; whether the request was taken is unknown only if the connection broke after it was said.
pub async fn ask(directory: &Path, request: &Request) -> Result<Reply, AskError> {
    let path = path(directory, &request.run);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::Nobody { path: path.clone() },
        _ => AskError::Io { path: path.clone(), error },
    };
    let talk = async {
        let address = Address::of(&path)?;
        let mut stream = UnixStream::connect(&address.path).await?;
        write(&mut stream, request).await?;
        let line = read_line(&mut stream).await?;
        serde_json::from_str(&line).map_err(io::Error::from)
    };
    match tokio::time::timeout(DRIVER + 2 * PATIENCE, talk).await {
        Ok(answered) => answered.map_err(failed),
        Err(_) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))),
    }
}
