//! `dbmove` itself, as a process of its own: what an operator would type, started, listened to, and killed.
//!
//! A child is asked for JSON on both streams. What it says while it works (stderr, an event a line) is passed on in the
//! story's own lines; its answer (stdout) goes to a file, so that neither stream can block the other.
//!
//! A child is in a process group of its own, so that Ctrl-C reaches the demo and the demo decides; it is killed when
//! its [`Child`] is dropped, and by the kernel should the demo be killed. The kernel's promise ends with the *thread*
//! that started the process: children must be started on the runtime's main thread, where [`tell`](super::super::run::tell) runs.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStderr, Command};

use super::error::DemoError;
use super::narrator::Narrator;
use super::place::Place;
use crate::engine::context::Progress;
use crate::telemetry::{describe, logs};

/// How often the progress of one step is shown.
const SHOWN_EVERY: Duration = Duration::from_secs(2);
/// So much of what a child said is kept for the message of a failure.
const WORDS_KEPT: usize = 6;

/// A running `dbmove`.
#[derive(Debug)]
pub struct Child {
    command: String,
    process: tokio::process::Child,
    pid: u32,
    lines: Lines<BufReader<ChildStderr>>,
    answer: PathBuf,
    shown: HashMap<String, Instant>,
    last_words: Vec<String>,
}

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// What was typed.
    pub command: String,
    /// Its exit status.
    pub status: ExitStatus,
    /// Its answer, if it gave one.
    pub answer: Value,
    last_words: Vec<String>,
}

/// Of every step the end is told; its beginning, and each small step back of an undo, would double the lines.
fn is_noise(words: &str) -> bool {
    let of_a_run = words.contains('`');
    (words.ends_with(" started") && !of_a_run)
        || (words.starts_with("stage ") && words.ends_with(" done"))
        || words.ends_with(" is being undone")
        || words.contains(" undone in ")
}

/// `dbmove` and the words behind it, as typed.
fn typed(words: &[&str]) -> String {
    format!("dbmove {}", words.join(" "))
}

impl Child {
    /// Starts `dbmove` with these words, the playbook after the first of them, and shows the command.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(place: &Place, words: &[&str], narrator: &Narrator) -> Result<Child, DemoError> {
        let command = typed(words);
        let failed = |source| DemoError::Start { command: command.clone(), source };
        let program = std::env::current_exe().map_err(failed)?;
        let answer = place.path().join(format!("answer-{:08x}.json", rand::random::<u32>()));
        let stdout = std::fs::OpenOptions::new().write(true).create_new(true).open(&answer).map_err(failed)?;
        let mut process = Command::new("setpriv");
        process
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(words)
            .args(["--yes", "--no-input", "--json", "--log-format=json", "--progress=lines", "--color=never"])
            .current_dir(place.path())
            .env_remove("RUST_LOG")
            .env("DBMOVE_STATE_DIR", place.state())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for name in ["DBMOVE_MAX_WRITE_GAP", "DBMOVE_DEADLINE", "DBMOVE_MARGIN", "DBMOVE_TAKE_OVER", "DBMOVE_CRASH_AT"] {
            process.env_remove(name);
        }
        let mut process = process.spawn().map_err(failed)?;
        let no_pipe = || DemoError::Start { command: command.clone(), source: std::io::Error::other("it has no standard error") };
        let stderr = process.stderr.take().ok_or_else(no_pipe)?;
        let pid = process.id().ok_or_else(no_pipe)?;
        narrator.command(&command);
        Ok(Child { command, process, pid, lines: BufReader::new(stderr).lines(), answer, shown: HashMap::new(), last_words: Vec::new() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the next thing it says and passes it on. False when it has said everything. Can be given up at any await.
    ///
    /// # Errors
    /// If it can't be listened to.
    pub async fn listen(&mut self, narrator: &Narrator) -> Result<bool, DemoError> {
        let failed = |source| DemoError::Start { command: self.command.clone(), source };
        let Some(line) = self.lines.next_line().await.map_err(failed)? else {
            return Ok(false);
        };
        if let Some(text) = self.worth_telling(&line) {
            narrator.relay(&text);
        }
        Ok(true)
    }

    /// Listens to it until it has ended.
    ///
    /// # Errors
    /// If it can't be listened to or waited for.
    pub async fn to_end(mut self, narrator: &Narrator) -> Result<Ended, DemoError> {
        while self.listen(narrator).await? {}
        self.ended().await
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// If it can't be waited for.
    pub async fn pull_the_plug(mut self) -> Result<Ended, DemoError> {
        let failed = |source| DemoError::Start { command: self.command.clone(), source };
        self.process.start_kill().map_err(failed)?;
        self.ended().await
    }

    /// The error for a child that has said everything and should not have.
    pub async fn ended_early(&mut self) -> DemoError {
        match self.process.wait().await {
            Ok(status) => DemoError::EndedEarly { command: self.command.clone(), status, said: self.last_words.join("; ") },
            Err(source) => DemoError::Start { command: self.command.clone(), source },
        }
    }

    async fn ended(mut self) -> Result<Ended, DemoError> {
        let failed = |source| DemoError::Start { command: self.command.clone(), source };
        let status = self.process.wait().await.map_err(failed)?;
        let answer = std::fs::read_to_string(&self.answer).unwrap_or_default();
        // A child that was killed has answered nothing, or half of it.
        let answer = serde_json::from_str(&answer).unwrap_or_default();
        Ok(Ended { command: self.command, status, answer, last_words: self.last_words })
    }

    /// What a person should see of a line of the child's log.
    fn worth_telling(&mut self, line: &str) -> Option<String> {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            return Some(self.keep(line.to_owned()));
        };
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("target") == logs::PROGRESS {
            return match text("message") {
                "progress" => self.step_progress(text("step"), &event),
                "forecast" | "write gap" => None,
                words if is_noise(words) => None,
                words => Some(self.keep(words.to_owned())),
            };
        }
        let mut words = text("message").to_owned();
        if let Some(error) = event.get("error").and_then(Value::as_str) {
            words = format!("{words} {error}");
        }
        if text("level") == "INFO" { Some(self.keep(words)) } else { Some(self.keep(format!("{}: {words}", text("level").to_lowercase()))) }
    }

    /// Now and then a line on how far a step is.
    fn step_progress(&mut self, step: &str, event: &Value) -> Option<String> {
        if self.shown.get(step).is_some_and(|last| last.elapsed() < SHOWN_EVERY) {
            return None;
        }
        let number = |name: &str| event.get(name).and_then(Value::as_u64);
        let progress = Progress {
            done: number("done").unwrap_or(0),
            total: number("total"),
            unit: event.get("unit").and_then(Value::as_str).unwrap_or_default().to_owned(),
            rate: event.get("rate").and_then(Value::as_f64),
            lag: event.get("lag_seconds").and_then(Value::as_f64).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            note: event.get("note").and_then(Value::as_str).unwrap_or_default().to_owned(),
            throttle: event.get("throttle").and_then(Value::as_str).map(str::to_owned),
            waits: false,
            not_near: None,
            in_the_way: None,
        };
        if progress.done == 0 {
            return None;
        }
        self.shown.insert(step.to_owned(), Instant::now());
        Some(format!("{step} {} {}", describe::figures(&progress), describe::circumstances(&progress)).trim_end().to_owned())
    }

    fn keep(&mut self, words: String) -> String {
        if self.last_words.len() == WORDS_KEPT {
            self.last_words.remove(0);
        }
        self.last_words.push(words.clone());
        words
    }
}

impl Ended {
    /// True if `kill -9` ended it.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    /// The file it wrote its report to.
    #[must_use]
    pub fn report(&self) -> Option<&Path> {
        self.answer.get("report").and_then(Value::as_str).map(Path::new)
    }

    /// Itself, if it ended well.
    ///
    /// # Errors
    /// [`DemoError::Command`] with what it said, if it did not.
    pub fn well(self) -> Result<Ended, DemoError> {
        if self.status.success() {
            return Ok(self);
        }
        let said = |of: &str, name: &str| self.answer.get(of).and_then(|part| part.get(name)).and_then(Value::as_str);
        let said = match said("error", "message").or_else(|| said("verdict", "sentence")) {
            Some(sentence) => sentence.to_owned(),
            None => self.last_words.join("; "),
        };
        Err(DemoError::Command { command: self.command, status: self.status, said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_and_beginnings_are_not() {
        for told in
            ["rehearsal of `school` started", "copy done in 3.2s: 1,200 rows", "stage sync", "undone in 468ms", "fence FAILED after 1s: no"]
        {
            assert!(!is_noise(told), "{told}");
        }
        for noise in ["copy started", "stage sync done", "fence is being undone", "fence undone in 1ms"] {
            assert!(is_noise(noise), "{noise}");
        }
    }

    #[test]
    fn a_command_is_shown_as_typed() {
        assert_eq!(typed(&["run", "school.yaml"]), "dbmove run school.yaml");
    }
}
