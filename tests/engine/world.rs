//! A world to act on: a directory with a ledger. Every effect and every undo is a line in it, so that an effect that
//! happened twice is seen. What acts on it is in [`doubles`](super::doubles).

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dbmove::engine::certificate::Certificate;
use dbmove::engine::context::RunKind;
use dbmove::engine::deadline::Deadline;
use dbmove::engine::guards::BuiltGuard;
use dbmove::engine::journal::{Journal, JournalReader, RunState};
use dbmove::engine::moments::BuiltHook;
use dbmove::engine::observer::Silent;
use dbmove::engine::outcome::{ExitCode, RunOutcome};
use dbmove::engine::run::{BuiltStep, EngineError, Limits, Rehearsed, RunRequest, drive};
use dbmove::engine::step::TargetLease;
use dbmove::playbook::model::{Playbook, StageName, StepSpec};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::doubles::{FileGuard, FileLease, LedgerHook, LedgerStep};

/// The lines of a file of the world.
pub fn lines(world: &Path, file: &str) -> Vec<String> {
    std::fs::read_to_string(world.join(file)).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// `verb step` of each ledger line, without the process.
pub fn ledger(world: &Path) -> Vec<String> {
    lines(world, "ledger").iter().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// What stands in the world: effects applied and not undone. Panics if an effect ever stood twice.
pub fn net(world: &Path) -> BTreeMap<String, i64> {
    let mut net = BTreeMap::new();
    for line in ledger(world) {
        let (verb, id) = line.split_once(' ').unwrap();
        let count = net.entry(id.to_owned()).or_insert(0);
        match verb {
            "apply" => *count += 1,
            "undo" => *count -= 1,
            _ => {}
        }
        assert!((0..=1).contains(count), "the effect of `{id}` stood {count} times");
    }
    net.retain(|_, count| *count != 0);
    net
}

/// What to drive; travels to another process as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scenario {
    pub world: PathBuf,
    pub playbook: Playbook,
    pub rehearsal: bool,
    pub until: StageName,
    pub keep_services: bool,
    pub deadline: Option<String>,
    /// It stands in the playbook alone.
    pub deadline_of_playbook: bool,
    /// When that is, whatever the words say.
    pub deadline_at: Option<Timestamp>,
    pub margin: f64,
    pub give_up: bool,
    pub max_write_gap_ms: u64,
    pub accept_drift: bool,
    pub new_run: bool,
    pub take_over_ms: Option<u64>,
    pub certificate: Option<Certificate>,
    pub unrehearsed: bool,
    pub stop_grace_ms: u64,
    pub switch_limit_ms: u64,
    pub roll_back: bool,
}

/// A world in a temporary directory.
pub struct World {
    pub directory: tempfile::TempDir,
    pub scenario: Scenario,
}

/// A playbook with these stages.
pub fn playbook(stages: Value) -> Playbook {
    serde_json::from_value(json!({ "playbook": "ledger", "stores": {}, "stages": stages })).unwrap()
}

pub fn step(id: &str, with: Value) -> Value {
    json!({ "id": id, "run": "test.ledger", "with": with })
}

pub fn step_with_needs(id: &str, needs: &[&str], with: Value) -> Value {
    json!({ "id": id, "run": "test.ledger", "with": with, "needs": needs })
}

pub fn switch(id: &str, with: Value) -> Value {
    json!({ "id": id, "run": "test.ledger", "with": with, "point_of_no_return": true })
}

/// Every stage, a service, a volatile fence, a point of no return.
pub fn whole_story() -> Value {
    json!({
        "prepare": [step("assess", json!({ "undoable": "nothing", "facts": { "schema_fingerprint": "abc", "source_version": "5.5.34" } }))],
        "sync": [step("snapshot", json!({})), step("follow", json!({ "service": true }))],
        "verify": [step("rows", json!({ "facts": { "run_root": "feed" } }))],
        "cutover": [
            step("fence", json!({ "holds_writes": true, "volatile": true })),
            step("drain", json!({ "fails": "definite", "fails_while": "drain_fails", "acts_first": true })),
            switch("switch", json!({ "foreign_while": "foreign" })),
            step("release", json!({})),
        ],
        "settle": [step("watch", json!({}))],
    })
}

/// The same with a way back, and a step in `settle` that ends it.
pub fn story_with_way_back() -> Value {
    let mut story = whole_story();
    let cutover = story["cutover"].as_array_mut().unwrap();
    cutover.insert(0, step("wait", json!({ "holds_clients": true })));
    let back = json!({ "way_back": true, "broken_while": "broken", "far_while": "far", "bitten_while": "bitten", "take_ms": 20 });
    cutover.insert(3, step("back", back));
    let settle = story["settle"].as_array_mut().unwrap();
    settle.push(step("retire", json!({ "ends_way_back": true, "undoable": "no" })));
    settle.push(step("tidy", json!({})));
    story
}

impl World {
    pub fn new(stages: Value) -> World {
        let directory = tempfile::tempdir().unwrap();
        let scenario = Scenario {
            world: directory.path().to_owned(),
            playbook: playbook(stages),
            rehearsal: false,
            until: StageName::Settle,
            keep_services: false,
            deadline: None,
            deadline_of_playbook: false,
            deadline_at: None,
            margin: 1.25,
            give_up: false,
            max_write_gap_ms: 30_000,
            accept_drift: false,
            new_run: false,
            take_over_ms: None,
            certificate: None,
            unrehearsed: true,
            stop_grace_ms: 2_000,
            switch_limit_ms: 5_000,
            roll_back: false,
        };
        World { directory, scenario }
    }
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
    pub fn put(&self, name: &str) {
        std::fs::write(self.path().join(name), "").unwrap();
    }
    /// What a guard finds from now on.
    pub fn finds(&self, guard: &str, what: &str) {
        // Whole or not at all: it is read all the while.
        std::fs::write(self.path().join("next"), what).unwrap();
        std::fs::rename(self.path().join("next"), self.path().join(format!("guard_{guard}"))).unwrap();
    }
    pub fn take(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).unwrap();
    }
    pub fn reader(&self) -> JournalReader {
        JournalReader::open(&self.path().join("state")).unwrap()
    }
    pub fn state(&self) -> RunState {
        let reader = self.reader();
        let run = reader.runs().unwrap().first().unwrap().run.clone();
        reader.state(&run).unwrap()
    }
    pub fn kinds(&self) -> Vec<String> {
        let reader = self.reader();
        let run = reader.runs().unwrap().first().unwrap().run.clone();
        reader.events(&run, 0).unwrap().iter().map(|event| event.event.kind().to_owned()).collect()
    }
    /// The same while there may be no run yet.
    pub fn kinds_if_any(&self) -> Vec<String> {
        let run =
            JournalReader::open(&self.path().join("state")).ok().and_then(|reader| reader.runs().ok()?.first().map(|run| run.run.clone()));
        if run.is_some() { self.kinds() } else { Vec::new() }
    }
    pub async fn drive(&self) -> Result<RunOutcome, EngineError> {
        self.scenario.drive(CancellationToken::new()).await
    }
    /// Drives in a process of its own and waits for its end.
    pub fn drive_elsewhere(&self, crash_at: Option<&str>) -> ExitStatus {
        self.start_elsewhere(crash_at).wait().unwrap()
    }
    pub fn start_elsewhere(&self, crash_at: Option<&str>) -> std::process::Child {
        std::fs::write(self.path().join("scenario"), serde_json::to_string(&self.scenario).unwrap()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["world::driver_process", "--exact", "--nocapture"]);
        command.env(WORLD, self.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        match crash_at {
            Some(point) => command.env(dbmove::engine::crash::VARIABLE, point),
            None => command.env_remove(dbmove::engine::crash::VARIABLE),
        };
        command.spawn().unwrap()
    }
}

/// Names the world to the process that drives it.
const WORLD: &str = "ENGINE_TEST_WORLD";

/// True if the process was killed with SIGKILL.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

impl Scenario {
    pub fn built(&self) -> Vec<BuiltStep> {
        let built = |(stage, spec): (StageName, &StepSpec)| BuiltStep {
            spec: spec.clone(),
            stage,
            step: Arc::new(LedgerStep::new(&self.world, spec)),
        };
        self.playbook.stages.iter().map(built).collect()
    }
    pub fn request(&self) -> RunRequest {
        let kind = if self.rehearsal { RunKind::Rehearsal } else { RunKind::Production };
        let mut request = RunRequest::new(Arc::new(self.playbook.clone()), kind, self.until);
        request.keep_services = self.keep_services;
        request.deadline = self.deadline.as_ref().map(|text| Deadline::parse(text, &jiff::ZonedDateTime::now()).unwrap());
        request.deadline_typed = request.deadline.is_some() && !self.deadline_of_playbook;
        if let (Some(deadline), Some(at)) = (&mut request.deadline, self.deadline_at) {
            deadline.until = at;
        }
        request.margin = self.margin;
        request.give_up = self.give_up;
        request.rollback_after &= !self.give_up;
        request.max_write_gap = Duration::from_millis(self.max_write_gap_ms);
        request.roll_back = self.roll_back;
        request.accept_drift = self.accept_drift;
        request.new_run = self.new_run;
        request.take_over = self.take_over_ms.map(Duration::from_millis);
        request.rehearsed = if self.unrehearsed {
            Rehearsed::Without { reason: "a test".to_owned() }
        } else {
            Rehearsed::Certificate(self.certificate.clone().map(Box::new))
        };
        request.guards = self
            .playbook
            .guards
            .iter()
            .map(|spec| BuiltGuard { spec: spec.clone(), guard: Arc::new(FileGuard(self.world.join(format!("guard_{}", spec.id)))) })
            .collect();
        request.hooks = self
            .playbook
            .hooks
            .iter()
            .map(|spec| BuiltHook { spec: spec.clone(), hook: Arc::new(LedgerHook { world: self.world.clone(), id: spec.id.clone() }) })
            .collect();
        request.limits = Limits {
            first_retry: Duration::from_millis(5),
            longest_retry: Duration::from_millis(20),
            stop_grace: Duration::from_millis(self.stop_grace_ms),
            point_of_no_return: Duration::from_millis(self.switch_limit_ms),
            undo_while_held: Duration::from_millis(300),
        };
        request
    }
    pub async fn drive(&self, cancel: CancellationToken) -> Result<RunOutcome, EngineError> {
        let journal = Journal::open(&self.world.join("state"))?;
        let lease: Arc<dyn TargetLease> = Arc::new(FileLease(self.world.join(if self.rehearsal { "target_copy" } else { "target" })));
        drive(self.request(), self.built(), vec![lease], journal, Arc::new(Silent), cancel).await
    }
}

/// The driver that the other tests start, kill, and start again, in a process of its own. By itself it proves that such a
/// process drives what it is given and ends with the code of what became of it: what all the others build on.
#[test]
fn driver_process() {
    if let Ok(world) = std::env::var(WORLD) {
        drive_and_exit(&PathBuf::from(world));
    }
    let world = World::new(json!({ "prepare": [step("one", json!({}))] }));
    assert_eq!(world.drive_elsewhere(None).code(), Some(0));
    assert_eq!(net(world.path()), BTreeMap::from([("one".to_owned(), 1)]));
    let nothing = World::new(json!({ "prepare": [step_with_needs("one", &["nobody"], json!({}))] }));
    assert_eq!(nothing.drive_elsewhere(None).code(), Some(2));
    assert_eq!(net(nothing.path()), BTreeMap::new());
}

fn drive_and_exit(world: &Path) -> ! {
    let scenario: Scenario = serde_json::from_str(&std::fs::read_to_string(world.join("scenario")).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let code = runtime.block_on(async {
        let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap();
        tokio::select! {
            result = scenario.drive(cancel) => report(result),
            () = async {
                interrupts.recv().await;
                stop.cancel();
                std::future::pending::<()>().await;
            } => 1,
        }
    });
    std::process::exit(code);
}

fn report(result: Result<RunOutcome, EngineError>) -> i32 {
    match result {
        Ok(outcome) => {
            eprintln!("{}: {}", outcome.verdict, outcome.serving);
            outcome.exit_code().code().into()
        }
        Err(error) => {
            eprintln!("{error}");
            error.exit_code().code().into()
        }
    }
}

/// The stages rehearsed, in a world that cutovers are tried in next, and the certificate of it.
pub async fn rehearsed(stages: Value) -> (World, Certificate) {
    let mut world = World::new(stages);
    world.scenario.rehearsal = true;
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Done, "{}", outcome.verdict);
    world.scenario.rehearsal = false;
    world.scenario.unrehearsed = false;
    let certificate = outcome.certificate.unwrap();
    (world, certificate)
}

/// The words of a refusal, and what to do.
pub async fn refused(world: &World) -> (String, String) {
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Refused, "{}", outcome.verdict);
    (outcome.verdict.to_string(), outcome.verdict.hint().unwrap_or_default().to_owned())
}
