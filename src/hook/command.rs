//! Runs one command of the operator's own.
//!
//! # What a command gets
//!
//! No shell: the first word is the program (looked up in `PATH` unless it holds a `/`), the rest are its arguments as
//! they are. It inherits dbmove's environment, without what the playbook takes from there as a secret, plus the step's `env`, plus `DBMOVE_RUN`, `DBMOVE_STEP`,
//! `DBMOVE_KIND` (`rehearsal` or `production`), `DBMOVE_ATTEMPT`, `DBMOVE_IDEMPOTENCY_KEY` and `DBMOVE_VERB` (`run`,
//! `probe` or `undo`). The same facts, and the outputs of earlier steps, come as one JSON object on stdin.
//!
//! # What becomes of it
//!
//! It leads a process group of its own. When the step is cancelled, runs out of time or is dropped, the *group* ends:
//! SIGTERM, two seconds' grace, SIGKILL. The leader is not waited for until after the SIGKILL, so that the group's
//! number can't have become another's. A command that ends by itself may leave processes behind on purpose; they
//! are let be, and what they print later is not read.
//!
//! If dbmove itself is killed (`kill -9`), a command under way is not: it runs to its end on its own. That is why a
//! crash is settled by a probe, and why a command without one has to stand being run twice.
//!
//! # Exit codes
//!
//! 0 is done, 75 (`EX_TEMPFAIL`) may heal and is retried, 4 is a refusal, anything else and any signal is a definite
//! failure. The last lines of stderr are part of the error.

use std::collections::BTreeMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::message::{last_lines, printable, without_secrets};
use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Failure, StepError};
use crate::playbook::known;

/// How long a command may run unless the playbook says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// `EX_TEMPFAIL` of `sysexits.h`: try again later.
pub const EXIT_TRY_AGAIN: i32 = 75;
/// dbmove's own code for a gate that said no.
pub const EXIT_REFUSED: i32 = 4;
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// For output still in the pipe when the command has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// How much of each output stream is kept: its end.
const KEPT_OUTPUT: usize = 64 * 1024;
/// How many lines of stderr an error shows.
const SHOWN_LINES: usize = 5;
/// Names that are dbmove's to set.
const OWN_PREFIX: &str = "DBMOVE_";

/// Why a command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// To do the step.
    Run,
    /// To see whether it is done.
    Probe,
    /// To put it back.
    Undo,
    /// Because a moment of a run has come.
    Hook,
}

impl Verb {
    /// As in `DBMOVE_VERB`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Run => "run",
            Verb::Probe => "probe",
            Verb::Undo => "undo",
            Verb::Hook => "hook",
        }
    }
}

/// A program and its arguments; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    program: String,
    arguments: Vec<String>,
}

impl CommandLine {
    /// From the playbook's list of words.
    ///
    /// # Errors
    /// If the list or its first word is empty, or a word holds a zero byte, which no program can be given.
    pub fn new(argument: &str, words: &[String]) -> Result<Self, StepError> {
        let Some((program, arguments)) = words.split_first().filter(|(program, _)| !program.is_empty()) else {
            return Err(StepError::definite(format!("`{argument}` names no program"))
                .hint(format!("write it as a list of words, the program first: `{argument}: [/usr/local/bin/switch, --now]`")));
        };
        if words.iter().any(|word| word.contains('\0')) {
            return Err(StepError::definite(format!("`{argument}` holds a zero byte, which no program can be given")));
        }
        Ok(CommandLine { program: program.clone(), arguments: arguments.to_vec() })
    }

    /// The program as written.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// The whole line for a person, quoted where a word would not stand out.
    #[must_use]
    pub fn shown(&self) -> String {
        std::iter::once(&self.program).chain(&self.arguments).map(|word| shown_word(word)).collect::<Vec<_>>().join(" ")
    }
}

fn shown_word(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./:=@,+%".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", printable(word)) }
}

/// Checks names of environment variables.
///
/// # Errors
/// If a name is empty, holds `=` or a zero byte, or is one of dbmove's own.
pub fn check_names<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<(), StepError> {
    for name in names {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(StepError::definite(format!("`env`: `{}` can't be the name of an environment variable", printable(name))));
        }
        if name.starts_with(OWN_PREFIX) {
            return Err(StepError::definite(format!("`env`: `{}` is set by dbmove itself", printable(name)))
                .hint(format!("choose a name that does not begin with `{OWN_PREFIX}`")));
        }
    }
    Ok(())
}

/// How a command ended, and the end of what it printed. Secrets are replaced in both texts.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// The end of stdout.
    pub stdout: String,
    /// The end of stderr.
    pub stderr: String,
}

/// A command that did not do what it was run for.
#[derive(Debug)]
pub struct CommandFailed {
    /// Why.
    pub error: StepError,
    /// False if it never ran, or said by its exit code that it refused.
    pub may_have_acted: bool,
}

impl From<CommandFailed> for StepError {
    fn from(failed: CommandFailed) -> Self {
        failed.error
    }
}

impl CommandFailed {
    fn never_ran(error: StepError) -> Self {
        CommandFailed { error, may_have_acted: false }
    }

    fn half_way(error: StepError) -> Self {
        CommandFailed { error, may_have_acted: true }
    }
}

impl Ended {
    /// The last line that says anything, stdout before stderr: what a probe found. Printable.
    #[must_use]
    pub fn said(&self) -> Option<String> {
        let line = |text| last_lines(text, 1).first().map(|line| printable(line.trim()));
        line(&self.stdout).or_else(|| line(&self.stderr))
    }

    /// Nothing if the command succeeded, else the error its exit code stands for.
    ///
    /// # Errors
    /// See the module's comment.
    pub fn succeeded(&self, line: &CommandLine, verb: Verb) -> Result<(), CommandFailed> {
        if self.status.success() {
            return Ok(());
        }
        let error = self.failure(line, verb);
        Err(CommandFailed { may_have_acted: error.failure != Failure::Refused, error })
    }

    /// The error of a command that did not succeed.
    #[must_use]
    pub fn failure(&self, line: &CommandLine, verb: Verb) -> StepError {
        let failure = match self.status.code() {
            Some(EXIT_TRY_AGAIN) => Failure::Transient,
            Some(EXIT_REFUSED) => Failure::Refused,
            _ => Failure::Definite,
        };
        let how = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => format!("ended ({})", self.status),
        };
        let lines = last_lines(&self.stderr, SHOWN_LINES);
        let said = if lines.is_empty() {
            "; it printed nothing on stderr".to_owned()
        } else {
            format!("; it said: {}", lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join(" | "))
        };
        StepError::new(failure, format!("the {} command `{}` {how}{said}", verb.as_str(), printable(line.program())))
    }
}

/// Runs `line` to its end.
///
/// # Errors
/// If it can't be started, does not end within `limit`, or the step is cancelled; a command that ran and failed is
/// not an error here, see [`Ended::succeeded`].
pub async fn run(
    context: &StepContext,
    line: &CommandLine,
    verb: Verb,
    environment: &BTreeMap<String, SecretString>,
    limit: Duration,
) -> Result<Ended, CommandFailed> {
    let kind = match context.kind {
        RunKind::Rehearsal => "rehearsal",
        RunKind::Production => "production",
    };
    let key = context.idempotency_key();
    let facts = json!({
        "run": &*context.run, "step": &*context.step, "kind": kind, "attempt": context.attempt,
        "idempotency_key": key, "verb": verb.as_str(), "outputs": &*context.outputs,
    });
    let own = [
        ("DBMOVE_RUN", context.run.to_string()),
        ("DBMOVE_STEP", context.step.to_string()),
        ("DBMOVE_KIND", kind.to_owned()),
        ("DBMOVE_ATTEMPT", context.attempt.to_string()),
        ("DBMOVE_IDEMPOTENCY_KEY", key),
        ("DBMOVE_VERB", verb.as_str().to_owned()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    call(Call { cancel: &context.cancel, facts, own }, line, verb, environment, limit).await
}

/// What a command is told.
pub struct Call<'a> {
    /// Ends it, with all it started.
    pub cancel: &'a CancellationToken,
    /// One JSON object on stdin.
    pub facts: Value,
    /// dbmove's own variables.
    pub own: Vec<(String, String)>,
}

/// Runs `line` to its end, told whatever the caller has to tell it.
///
/// # Errors
/// As [`run`].
pub async fn call(
    Call { cancel, facts, own }: Call<'_>,
    line: &CommandLine,
    verb: Verb,
    environment: &BTreeMap<String, SecretString>,
    limit: Duration,
) -> Result<Ended, CommandFailed> {
    if cancel.is_cancelled() {
        return Err(CommandFailed::never_ran(StepError::cancelled()));
    }
    let mut command = Command::new(&line.program);
    for name in known::variables() {
        command.env_remove(name);
    }
    command
        .args(&line.arguments)
        .envs(environment.iter().map(|(name, value)| (name, value.expose_secret())))
        .envs(own)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| CommandFailed::never_ran(not_started(line, verb, &error)))?;
    // Declared after `child`, so dropped before it: the group is killed while its leader is still ours.
    let mut group = ProcessGroup(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));

    let (stdout, stderr) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let mut input = child.stdin.take();
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let exchange = async {
        let feed = async {
            if let Some(mut input) = input.take() {
                // A command that does not care to read its facts is fine.
                let _ = input.write_all(facts.to_string().as_bytes()).await;
            }
        };
        tokio::join!(feed, keep_end(output, &stdout), keep_end(errors, &stderr));
    };
    tokio::pin!(exchange);
    let out_of_time = tokio::time::sleep(limit);
    tokio::pin!(out_of_time);
    let mut exchanged = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = &mut exchange, if !exchanged => exchanged = true,
            () = cancel.cancelled() => {
                group.stop(&mut child).await;
                return Err(CommandFailed::half_way(StepError::cancelled()));
            }
            () = &mut out_of_time => {
                group.stop(&mut child).await;
                let error = StepError::definite(format!(
                    "the {} command `{}` did not end within {limit:?}; it and every process of its group were killed, what it had done until then stands",
                    verb.as_str(),
                    printable(line.program()),
                ))
                .hint("see why it hangs, or allow more with `timeout`");
                return Err(CommandFailed::half_way(error));
            }
        }
    };
    group.let_be();
    if !exchanged {
        // Something it left running may hold its output open for ever.
        let _ = tokio::time::timeout(LAST_OUTPUT, &mut exchange).await;
    }
    let status = status.map_err(|error| {
        let message = format!("cannot learn how the {} command `{}` ended: {error}", verb.as_str(), printable(line.program()));
        CommandFailed::half_way(StepError::definite(message))
    })?;
    let text = |kept: &Mutex<Vec<u8>>| {
        without_secrets(&String::from_utf8_lossy(&kept.lock().unwrap_or_else(PoisonError::into_inner)), environment)
    };
    Ok(Ended { status, stdout: text(&stdout), stderr: text(&stderr) })
}

fn not_started(line: &CommandLine, verb: Verb, error: &io::Error) -> StepError {
    let program = printable(line.program());
    let message = format!("cannot start the {} command `{program}`: {error}. Nothing was done", verb.as_str());
    match error.kind() {
        io::ErrorKind::NotFound => StepError::definite(message).hint(if program.contains('/') {
            format!("there is no such file, or the interpreter in its first line is missing: `{program}`")
        } else {
            format!("no directory of `PATH` holds `{program}`; write its full path (no shell is involved: pipes and builtins don't work)")
        }),
        io::ErrorKind::PermissionDenied => {
            StepError::definite(message).hint(format!("make `{program}` executable for the user dbmove runs as"))
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory | io::ErrorKind::ExecutableFileBusy => StepError::transient(message),
        _ => StepError::definite(message),
    }
}

/// Reads to the end and keeps the last [`KEPT_OUTPUT`] bytes.
async fn keep_end(stream: Option<impl AsyncRead + Unpin>, kept: &Mutex<Vec<u8>>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..length]);
        // Cut rarely, so that a chatty command does not cost a move per read.
        if kept.len() > 2 * KEPT_OUTPUT {
            let cut = kept.len() - KEPT_OUTPUT;
            kept.drain(..cut);
        }
    }
}

/// The process group of a running command; dropping it kills the group.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // ESRCH: all of it is gone already.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// The command has ended by itself.
    fn let_be(&mut self) {
        self.0 = None;
    }

    /// Ends every process of the group; returns when the leader is gone.
    async fn stop(&mut self, child: &mut Child) {
        self.signal(Signal::TERM);
        let asked = tokio::time::Instant::now();
        while asked.elapsed() < GRACE && !self.leader_ended() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.signal(Signal::KILL);
        self.let_be();
        let _ = child.wait().await;
    }

    /// Whether the leader has ended; leaves it to be waited for, which keeps its number taken.
    fn leader_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        self.0.is_none_or(|leader| !matches!(waitid(WaitId::Pid(leader), options), Ok(None)))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
