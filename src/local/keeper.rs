//! Starts server processes so that they end with this one.
//!
//! A test binary that is killed must not leave servers behind, and neither must a static that is never dropped. The
//! kernel can promise that (`PR_SET_PDEATHSIG`, asked for through `setpriv` which needs no unsafe code here),
//! but it sends the signal when the *thread* that started the process ends, and threads of an async runtime come and
//! go. So one thread, which lives exactly as long as the process, starts them all.
//!
//! Each server gets a process group of its own: Ctrl-C in a terminal reaches dbmove, not the servers, and dbmove
//! decides what becomes of them.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};

use tokio::sync::oneshot;

struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// The thread's ear, or why it could not be started.
static KEEPER: OnceLock<Result<mpsc::Sender<Request>, String>> = OnceLock::new();

/// Starts `command` with nothing to read and its output in `log`. With `tied`, the kernel kills it when this process
/// ends, however it ends.
pub(super) async fn start(command: Command, log: File, tied: bool) -> io::Result<Child> {
    let mut command = if tied { tied_to_this_process(&command) } else { command };
    command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let keeper = KEEPER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("server-keeper".to_owned())
            .spawn(move || {
                for mut request in receiver {
                    // Nobody is waiting any more: then nobody would own the process.
                    if let Err(Ok(mut orphan)) = request.reply.send(request.command.spawn()) {
                        let _ = orphan.kill();
                        let _ = orphan.wait();
                    }
                }
            })
            .map(|_| sender)
            .map_err(|error| format!("the thread that starts servers could not be started: {error}"))
    });
    let keeper = keeper.as_ref().map_err(|error| io::Error::other(error.as_str()))?;
    let (reply, answer) = oneshot::channel();
    let stopped = || io::Error::other("the thread that starts servers has stopped");
    keeper.send(Request { command, reply }).map_err(|_| stopped())?;
    answer.await.map_err(|_| stopped())?
}

/// The same command through `setpriv`, which `exec`s it: the process id stays the server's.
fn tied_to_this_process(command: &Command) -> Command {
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        tied.current_dir(directory);
    }
    tied
}
