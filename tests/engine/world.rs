//! A world to act on: a directory with a ledger. Every effect and every undo is a line in it, so that an effect that
//! happened twice is seen.
//!
//! [`LedgerStep`] deliberately breaks the contract that `run` may be called again after it is done: it appends its line
//! every time. An engine that ran blindly after a crash would leave two lines. What a step does is told by its `with`, so that a
//! driver in another process does the same.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dbmove::engine::certificate::Certificate;
use dbmove::engine::context::{Outputs, Progress, RunKind, StepContext};
use dbmove::engine::deadline::Deadline;
use dbmove::engine::guards::{BuiltGuard, Guard, Look, Sight, Unseen};
use dbmove::engine::journal::{Journal, JournalReader, RunState};
use dbmove::engine::moments::{BuiltHook, Hook, HookCall};
use dbmove::engine::observer::Silent;
use dbmove::engine::outcome::RunOutcome;
use dbmove::engine::run::{BuiltStep, EngineError, Limits, Rehearsed, RunRequest, drive};
use dbmove::engine::step::{Epoch, Estimate, Failure, Output, Plan, Probe, Step, StepError, StepKind, TargetLease, Undoable, Work};
use dbmove::playbook::model::{Playbook, StageName, StepSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What a test step does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Behaviour {
    service: bool,
    volatile: bool,
    holds_writes: bool,
    /// `nothing` or `no`.
    undoable: String,
    sleep_ms: u64,
    /// Acts only when this file stands in the world.
    waits_for: String,
    /// Sleeps as many milliseconds as this file of the world says, and reports the rate that it says behind them.
    sleeps_as_in: String,
    /// How long its undo takes.
    undo_ms: u64,
    /// Ignores requests to stop.
    deaf: bool,
    /// `transient`, `definite`, `refused`, `differences`, `waiting`.
    fails: String,
    /// Fails only so many times; 0: always.
    times: u32,
    /// Fails only while this file stands in the world.
    fails_while: String,
    /// Acts before it fails.
    acts_first: bool,
    undo_fails_while: String,
    fails_after_ready_ms: u64,
    /// A service that falls a second behind every second, and is never ready.
    falls_behind: bool,
    estimate_ms: Option<u64>,
    /// Reports this much work per second, of `total`.
    rate: Option<f64>,
    total: Option<u64>,
    facts: BTreeMap<String, Value>,
    foreign_while: String,
    panics: bool,
    /// A service that keeps the way back.
    way_back: bool,
    ends_way_back: bool,
    holds_clients: bool,
    /// There is no way back while this file stands in the world.
    broken_while: String,
    /// The target has let writes through by itself while this file stands in the world.
    bitten_while: String,
    /// How long taking back takes.
    take_ms: u64,
    /// Only so that a test can change it.
    threads: u32,
}

pub struct LedgerStep {
    world: PathBuf,
    id: String,
    behaviour: Behaviour,
}

fn append(path: &Path, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

impl LedgerStep {
    fn write(&self, verb: &str) {
        append(&self.world.join("ledger"), &format!("{verb} {} {}", self.id, std::process::id()));
    }
    fn stands(&self, name: &str) -> bool {
        !name.is_empty() && self.world.join(name).exists()
    }
    fn applied(&self) -> bool {
        net(&self.world).get(&self.id).copied().unwrap_or(0) > 0
    }
    fn failure(&self) -> Option<StepError> {
        let behaviour = &self.behaviour;
        if behaviour.fails.is_empty() || (!behaviour.fails_while.is_empty() && !self.stands(&behaviour.fails_while)) {
            return None;
        }
        let failed = lines(&self.world, "ledger").iter().filter(|line| line.starts_with(&format!("failed {} ", self.id))).count();
        if behaviour.times > 0 && failed >= behaviour.times as usize {
            return None;
        }
        self.write("failed");
        let failure = match behaviour.fails.as_str() {
            "transient" => Failure::Transient,
            "refused" => Failure::Refused,
            "differences" => Failure::Differences,
            "waiting" => Failure::Waiting,
            "lease_lost" => Failure::LeaseLost,
            _ => Failure::Definite,
        };
        Some(StepError::new(failure, format!("`{}` was told to fail", self.id)))
    }
}

#[async_trait]
impl Step for LedgerStep {
    fn name(&self) -> &'static str {
        "test.ledger"
    }
    fn kind(&self) -> StepKind {
        if self.behaviour.service || self.behaviour.way_back { StepKind::Service } else { StepKind::Task }
    }
    fn keeps_way_back(&self) -> bool {
        self.behaviour.way_back
    }
    fn ends_way_back(&self) -> bool {
        self.behaviour.ends_way_back
    }
    fn holds_clients(&self) -> bool {
        self.behaviour.holds_clients
    }
    async fn hold_for_rollback(&self, _context: &StepContext) -> Result<(), StepError> {
        self.write("hold_again");
        Ok(())
    }
    async fn let_through_again(&self, _context: &StepContext) -> Result<(), StepError> {
        self.write("let_through");
        Ok(())
    }
    async fn near_back(&self, _context: &StepContext) -> Result<(), StepError> {
        if self.stands(&self.behaviour.broken_while) {
            return Err(StepError::new(Failure::Refused, "rollback would lose a row"));
        }
        self.write("near");
        Ok(())
    }
    async fn take_back(&self, context: &StepContext, watched: bool) -> Result<Output, StepError> {
        self.write(if watched { "take" } else { "take_unwatched" });
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(self.behaviour.take_ms)) => Ok(Output::default()),
            () = context.cancel.cancelled() => Err(StepError::cancelled()),
        }
    }
    async fn keep_back(&self, _context: &StepContext) -> Result<(), StepError> {
        if self.stands(&self.behaviour.bitten_while) {
            return Err(StepError::definite("the target let writes through by itself"));
        }
        self.write("keep");
        Ok(())
    }
    async fn give_back(&self, _context: &StepContext) -> Result<(), StepError> {
        self.write("give");
        Ok(())
    }
    fn undoable(&self) -> Undoable {
        match self.behaviour.undoable.as_str() {
            "nothing" => Undoable::Nothing,
            "no" => Undoable::No("the test says so".to_owned()),
            _ => Undoable::Yes,
        }
    }
    fn volatile(&self) -> bool {
        self.behaviour.volatile
    }
    fn holds_writes(&self) -> bool {
        self.behaviour.holds_writes
    }
    async fn plan(&self, _context: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan { lines: vec![format!("append `{}` to the ledger", self.id)], warnings: Vec::new() })
    }
    async fn estimate(&self, _context: &StepContext) -> Result<Estimate, StepError> {
        Ok(match self.behaviour.estimate_ms {
            Some(ms) => Estimate::Expected { duration: Duration::from_millis(ms), basis: "the test".to_owned() },
            None => Estimate::Instant,
        })
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        self.write("begin");
        append(&self.world.join("keys"), &format!("{} {}", self.id, context.idempotency_key()));
        if self.behaviour.panics {
            panic!("the test says so");
        }
        if self.behaviour.acts_first && !self.applied() {
            self.write("apply");
        }
        if let Some(error) = self.failure() {
            return Err(error);
        }
        if self.kind() == StepKind::Service {
            if !self.applied() {
                self.write("apply");
            }
            let began = tokio::time::Instant::now();
            if self.behaviour.falls_behind {
                while !context.cancel.is_cancelled() {
                    context.report(Progress { unit: "changes".to_owned(), lag: Some(began.elapsed()), ..Progress::default() });
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                return Err(StepError::cancelled());
            }
            context.ready();
            if self.behaviour.fails_after_ready_ms > 0 {
                tokio::time::sleep(Duration::from_millis(self.behaviour.fails_after_ready_ms)).await;
                return Err(StepError::definite(format!("`{}` broke while following", self.id)));
            }
            context.cancel.cancelled().await;
            self.write("stopped");
            return Err(StepError::cancelled());
        }
        let started = tokio::time::Instant::now();
        let written = if self.stands(&self.behaviour.sleeps_as_in) { lines(&self.world, &self.behaviour.sleeps_as_in) } else { Vec::new() };
        let sleep = written.first().map_or(self.behaviour.sleep_ms, |line| line.parse().unwrap());
        let sleep = Duration::from_millis(sleep);
        let rate = written.get(1).and_then(|line| line.parse().ok()).or(self.behaviour.rate);
        let waits = || !self.behaviour.waits_for.is_empty() && !self.stands(&self.behaviour.waits_for);
        while started.elapsed() < sleep || waits() {
            if let (Some(rate), Some(total)) = (rate, self.behaviour.total) {
                context.report(Progress { done: 0, total: Some(total), unit: "rows".to_owned(), rate: Some(rate), ..Progress::default() });
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
                () = context.cancel.cancelled(), if !self.behaviour.deaf => return Err(StepError::cancelled()),
            }
        }
        if self.behaviour.volatile {
            self.write("hold");
        } else if self.behaviour.undoable == "nothing" {
            self.write("look");
        } else if !self.behaviour.acts_first {
            self.write("apply");
        }
        let mut output = Output { work: Some(Work { unit: "rows".to_owned(), amount: 100, seconds: 0.5 }), ..Output::default() };
        output.facts.clone_from(&self.behaviour.facts);
        Ok(output)
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        self.write("probe");
        if self.stands(&self.behaviour.foreign_while) {
            return Ok(Probe::Foreign { found: "a stranger's ledger".to_owned() });
        }
        Ok(if self.applied() { Probe::Done } else { Probe::NotStarted })
    }
    async fn undo(&self, _context: &StepContext) -> Result<(), StepError> {
        if self.stands(&self.behaviour.undo_fails_while) {
            return Err(StepError::definite(format!("`{}` can't be lifted", self.id)));
        }
        if self.behaviour.volatile {
            self.write("let_go");
        }
        tokio::time::sleep(Duration::from_millis(self.behaviour.undo_ms)).await;
        if self.applied() {
            self.write("undo");
        } else {
            self.write("undo_nothing");
        }
        Ok(())
    }
}

/// A guard that finds what its file says: `bad`, `unseen`, `nothing` or `hangs`, and all well while there is none. Every look is a line beside it.
pub struct FileGuard(PathBuf);

#[async_trait]
impl Guard for FileGuard {
    fn name(&self) -> &'static str {
        "test.file"
    }
    fn condition(&self) -> String {
        "the file says nothing bad".to_owned()
    }
    async fn look(&self, _sight: &Sight) -> Result<Look, Unseen> {
        let found = std::fs::read_to_string(&self.0).unwrap_or_default();
        append(&self.0.with_extension("looks"), found.trim());
        match found.trim() {
            "bad" => Ok(Look::Fails("the file says bad".to_owned())),
            "unseen" => Err(Unseen("the file can't be read".to_owned())),
            "nothing" => Ok(Look::Nothing("there is nothing yet".to_owned())),
            "hangs" => std::future::pending().await,
            _ => Ok(Look::Holds("all is well".to_owned())),
        }
    }
}

/// A hook that writes down its facts. It says no while `no_ID` is there, and does not answer while `slow_ID` is.
pub struct LedgerHook {
    world: PathBuf,
    id: String,
}

#[async_trait]
impl Hook for LedgerHook {
    fn shown(&self) -> String {
        "write it down".to_owned()
    }
    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }
    async fn call(&self, call: &HookCall) -> Result<(), StepError> {
        append(&self.world.join("hook_limits"), &call.limit.as_millis().to_string());
        append(&self.world.join("hooks"), &serde_json::to_string(&call.facts).unwrap());
        let began = tokio::time::Instant::now();
        while self.world.join(format!("slow_{}", self.id)).exists() {
            if began.elapsed() > call.limit {
                return Err(StepError::definite(format!("it took longer than {:?}", call.limit)));
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
                () = call.cancel.cancelled() => return Err(StepError::cancelled()),
            }
        }
        if self.world.join(format!("no_{}", self.id)).exists() { Err(StepError::definite("the test says no")) } else { Ok(()) }
    }
}

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

/// The claims on a target, as a file: the higher epoch wins.
pub struct FileLease(pub PathBuf);

impl FileLease {
    pub fn stands(&self) -> Option<(String, u64)> {
        let text = std::fs::read_to_string(&self.0).ok()?;
        let (run, epoch) = text.split_once(' ')?;
        Some((run.to_owned(), epoch.trim().parse().ok()?))
    }
}

#[async_trait]
impl TargetLease for FileLease {
    fn store(&self) -> &str {
        "school"
    }
    async fn claim(&self, run: &str, epoch: Epoch, _outputs: &Arc<Outputs>) -> Result<(), StepError> {
        if let Some((other, stands)) = self.stands()
            && (other != run || stands > epoch.0)
        {
            return Err(StepError::new(Failure::LeaseLost, format!("the target of `school` is claimed by run `{other}`, epoch {stands}")));
        }
        let next = self.0.with_extension(format!("next{}", std::process::id()));
        std::fs::write(&next, format!("{run} {}", epoch.0)).unwrap();
        std::fs::rename(&next, &self.0).unwrap();
        Ok(())
    }
    async fn release(&self, run: &str, epoch: Epoch) -> Result<(), StepError> {
        if self.stands() == Some((run.to_owned(), epoch.0)) {
            std::fs::remove_file(&self.0).unwrap();
        }
        Ok(())
    }
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
    pub max_write_gap_ms: u64,
    pub accept_drift: bool,
    pub new_run: bool,
    pub take_over_ms: Option<u64>,
    pub certificate: Option<Certificate>,
    pub unrehearsed: bool,
    pub stop_grace_ms: u64,
    pub switch_limit_ms: u64,
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
    cutover.insert(3, step("back", json!({ "way_back": true, "broken_while": "broken", "bitten_while": "bitten", "take_ms": 20 })));
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
            max_write_gap_ms: 30_000,
            accept_drift: false,
            new_run: false,
            take_over_ms: None,
            certificate: None,
            unrehearsed: true,
            stop_grace_ms: 2_000,
            switch_limit_ms: 5_000,
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
            step: Arc::new(LedgerStep {
                world: self.world.clone(),
                id: spec.id.clone(),
                behaviour: serde_json::from_value(Value::Object(spec.with.clone())).unwrap(),
            }),
        };
        self.playbook.stages.iter().map(built).collect()
    }
    pub fn request(&self) -> RunRequest {
        let kind = if self.rehearsal { RunKind::Rehearsal } else { RunKind::Production };
        let mut request = RunRequest::new(Arc::new(self.playbook.clone()), kind, self.until);
        request.keep_services = self.keep_services;
        request.deadline = self.deadline.as_ref().map(|text| Deadline::parse(text, &jiff::ZonedDateTime::now()).unwrap());
        request.max_write_gap = Duration::from_millis(self.max_write_gap_ms);
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
