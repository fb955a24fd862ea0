//! What a test's playbook is made of: steps, guards and hooks whose effects are lines in files of the [`world`](super::world), and a target that is
//! a file.
//!
//! [`LedgerStep`] deliberately breaks the contract that `run` may be called again after it is done: it appends its line
//! every time. An engine that ran blindly after a crash would leave two lines. What a step does is told by its `with`, so that a
//! driver in another process does the same.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dbmove::engine::context::{Checkpoints, InTheWay, Outputs, Progress, StepContext};
use dbmove::engine::guards::{Guard, Look, Sight, Unseen};
use dbmove::engine::moments::{Hook, HookCall};
use dbmove::engine::step::{Epoch, Estimate, Failure, Output, Plan, Probe, Step, StepError, StepKind, TargetLease, Undoable, Work};
use dbmove::playbook::model::StepSpec;
use serde::Deserialize;
use serde_json::Value;

use super::world::{ledger, lines, net};

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
    /// A service that is so far behind.
    lag_ms: Option<u64>,
    /// A service that clients would have to wait for while this file stands in the world.
    not_near_while: String,
    /// A service that sees clients in a cutover's way while this file stands in the world.
    in_the_way_while: String,
    /// How long a cutover waits for them.
    patience_ms: u64,
    /// A service that falls a second behind every second, and is never ready.
    falls_behind: bool,
    estimate_ms: Option<u64>,
    /// Reports this much work per second, of `total`.
    rate: Option<f64>,
    total: Option<u64>,
    facts: BTreeMap<String, Value>,
    foreign_while: String,
    /// It is found half done while this file stands in the world.
    half_while: String,
    /// It can't be looked at while this file stands in the world.
    unseen_while: String,
    panics: bool,
    /// A service that keeps the way back.
    way_back: bool,
    ends_way_back: bool,
    holds_clients: bool,
    /// There is no way back while this file stands in the world.
    broken_while: String,
    /// What the target has logged is not on the source while this file stands in the world.
    far_while: String,
    /// The target has let writes through by itself while this file stands in the world.
    bitten_while: String,
    /// How long taking back takes.
    take_ms: u64,
    /// Whoever it holds is let through by itself, until it is told to keep them.
    watched: bool,
    /// How long it takes to be kept.
    keep_ms: u64,
    /// Is told to keep whom it holds in vain, at first: so often.
    keep_retries: usize,
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
    /// As the playbook has it.
    pub fn new(world: &Path, spec: &StepSpec) -> LedgerStep {
        let behaviour = serde_json::from_value(Value::Object(spec.with.clone())).unwrap();
        LedgerStep { world: world.to_owned(), id: spec.id.clone(), behaviour }
    }
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
    async fn keep_held(&self, context: &StepContext) -> Result<(), StepError> {
        if !self.behaviour.watched {
            return Ok(());
        }
        assert!(context.point_of_no_return);
        if self.stands(&self.behaviour.bitten_while) {
            return Err(StepError::definite("the source let writes through by itself"));
        }
        let retried = ledger(&self.world).iter().filter(|line| **line == format!("keep_retry {}", self.id)).count();
        if retried < self.behaviour.keep_retries {
            self.write("keep_retry");
            return Err(StepError::transient("the source was not reached"));
        }
        tokio::time::sleep(Duration::from_millis(self.behaviour.keep_ms)).await;
        self.write("keep_held");
        Ok(())
    }
    async fn hold_for_rollback(&self, _context: &StepContext) -> Result<(), StepError> {
        self.write("hold_again");
        Ok(())
    }
    async fn let_through_again(&self, _context: &StepContext) -> Result<(), StepError> {
        self.write("let_through");
        Ok(())
    }
    async fn near_back(&self, context: &StepContext) -> Result<(), StepError> {
        if self.stands(&self.behaviour.broken_while) {
            return Err(StepError::new(Failure::Refused, "rollback would lose a row"));
        }
        self.write("near");
        while self.stands(&self.behaviour.far_while) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            context.check_cancelled()?;
        }
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
    /// What the file `today_ID` of the world says, while there is one.
    async fn facts_today(&self, _context: &StepContext) -> Result<Option<BTreeMap<String, Value>>, StepError> {
        let today = std::fs::read_to_string(self.world.join(format!("today_{}", self.id)));
        Ok(today.ok().map(|text| serde_json::from_str(&text).unwrap()))
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
            while !self.behaviour.in_the_way_while.is_empty() && !context.cancel.is_cancelled() {
                let patience = Duration::from_millis(self.behaviour.patience_ms);
                let seen = self.stands(&self.behaviour.in_the_way_while);
                let in_the_way = seen.then(|| InTheWay { what: "`app` runs ALTER TABLE".to_owned(), patience });
                context.report(Progress { unit: "changes".to_owned(), in_the_way, ..Progress::default() });
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            while !self.behaviour.not_near_while.is_empty() && !context.cancel.is_cancelled() {
                let not_near = self.stands(&self.behaviour.not_near_while).then(|| "the target is far behind".to_owned());
                context.report(Progress { unit: "changes".to_owned(), not_near, ..Progress::default() });
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if let Some(lag) = self.behaviour.lag_ms {
                context.report(Progress { unit: "changes".to_owned(), lag: Some(Duration::from_millis(lag)), ..Progress::default() });
            }
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
    async fn finish(&self, _context: &StepContext) -> Result<(), StepError> {
        self.write("finish");
        // While its file stands in the world.
        let failed = self.stands(&format!("no_finish_of_{}", self.id));
        if failed { Err(StepError::definite(format!("`{}` can't be finished", self.id)).hint("take the file away")) } else { Ok(()) }
    }
    async fn probe(&self, _context: &StepContext) -> Result<Probe, StepError> {
        self.write("probe");
        if self.stands(&self.behaviour.foreign_while) {
            return Ok(Probe::Foreign { found: "a stranger's ledger".to_owned() });
        }
        if self.stands(&self.behaviour.unseen_while) {
            return Err(StepError::definite("nothing can be seen"));
        }
        if self.stands(&self.behaviour.half_while) {
            return Ok(Probe::Partly { from: "the middle".to_owned() });
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
pub struct FileGuard(pub PathBuf);

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
    pub world: PathBuf,
    pub id: String,
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
    async fn claim(&self, run: &str, epoch: Epoch, _outputs: &Arc<Outputs>, _checkpoints: &Arc<dyn Checkpoints>) -> Result<(), StepError> {
        if self.0.with_extension("unreachable").exists() {
            return Err(StepError::new(Failure::Transient, "the target of `school` can't be reached"));
        }
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
