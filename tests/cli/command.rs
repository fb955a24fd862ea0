//! Runs the built binary as a user would, and shows all three things it says: exit code, stdout, stderr.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for what must happen soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of its own, with playbooks made of hooks.
pub struct Place {
    directory: tempfile::TempDir,
}

/// How a command ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn of(output: &Output) -> Ended {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ended { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// All three together, for a snapshot.
    pub fn shown(&self) -> String {
        format!("exit code: {}\n----- stdout -----\n{}----- stderr -----\n{}", self.code, self.stdout, self.stderr)
    }

    /// Stdout as one JSON object.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.shown()))
    }
}

impl Place {
    pub fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Writes `NAME.yaml` with these stages; the store is there because a playbook has one, and no step works on it.
    pub fn playbook(&self, name: &str, stages: &str) -> String {
        let file = format!("{name}.yaml");
        let head = format!(
            "playbook: {name}\nstores:\n  school:\n    kind: mysql\n    source: {{ url: \"mysql://u@127.0.0.1:3301/\" }}\n    \
             target: {{ url: \"mysql://u@127.0.0.1:3302/\" }}\n    include: [\"school.*\"]\nstages:\n"
        );
        self.write(&file, &format!("{head}{stages}"));
        file
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        // Whoever runs the tests may ignore hangups (`nohup`), and children would too.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_dbmove")])
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("DBMOVE_") || matches!(&*text, "RUST_LOG" | "NO_COLOR" | "RUST_BACKTRACE") {
                command.env_remove(&name);
            }
        }
        command.env("COLUMNS", "80").env("TERM", "dumb").env("TZ", "UTC");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&self.command(arguments).output().unwrap())
    }

    /// The same, for a line of words.
    pub fn line(&self, line: &str) -> Ended {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub fn start(&self, line: &str) -> Running {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let child = self.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child: Some(child) }
    }

    /// Waits until `status` says that a step is in this state.
    pub fn wait_for(&self, step: &str, state: &str) {
        let began = Instant::now();
        loop {
            let status = self.line("status --json");
            if status.code == 0 {
                let steps = status.json()["runs"][0]["steps"].as_array().cloned().unwrap_or_default();
                if steps.iter().any(|found| found["step"] == step && found["state"] == state) {
                    return;
                }
            }
            assert!(began.elapsed() < PATIENCE, "step `{step}` never was `{state}`: {}", status.shown());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// A snapshot with everything taken out that differs from run to run.
    pub fn settings(&self) -> insta::Settings {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let directory = self.directory.path().display().to_string();
        settings.add_filter(&directory.replace('.', r"\."), "[DIRECTORY]");
        settings.add_filter(r"\d{8}T\d{6}Z-[0-9a-f]+", "[RUN]");
        settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[MOMENT]");
        settings.add_filter(r"(?m)^\d\d:\d\d:\d\d ", "[TIME] ");
        settings.add_filter(r"process \d+ on `[^`]*`", "process [PID] on `[HOST]`");
        settings.add_filter(r"\b[0-9a-f]{64}\b", "[HASH]");
        settings.add_filter(r"certificate( +)[0-9a-f]{12}", "certificate$1[HASH]");
        settings
    }

    /// The same where real steps took real time.
    pub fn timed(&self) -> insta::Settings {
        let mut settings = self.settings();
        settings.add_filter(r"time left [^ ]+", "time left [LEFT]");
        settings.add_filter(r"(?m)  #{1,28}$", "  [BAR]");
        settings.add_filter(r"to spare +\S+", "to spare [LEFT]");
        settings.add_filter(r" +\+\d+\.\d{3}s  ", " [AT]  ");
        settings.add_filter(r"  [#.]{24}", "  [BAR]");
        settings.add_filter(r"\(\d+(\.\d+)?(ms|s)\)", "([TOOK])");
        settings.add_filter(r" +\d+(\.\d+)?(ms|s)\b", " [TOOK]");
        settings
    }
}

/// A command under way; killed if the test ends before it does.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.as_ref().unwrap().id();
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn end(mut self) -> Ended {
        Ended::of(&self.child.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// True if the text holds a character that acts on a terminal.
pub fn acts(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && c != '\n')
}

/// The file's mode.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
