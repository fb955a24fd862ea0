//! The report of one run: what `report.json` holds. Its JSON Schema is made from these types.
//!
//! The format is versioned: fields may be added within a [`FORMAT`], what exists keeps its name and meaning. Durations are in
//! seconds, moments are RFC 3339 in UTC, names and values are as they are (JSON escapes them; terminals get them through
//! [`printable`](crate::telemetry::printable::printable)).

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::load::LoadReport;
use crate::engine::production::Sent;
use crate::verify::difference::ChangedColumn;
use crate::verify::report::{ForeignLook, NotCompared};

/// The version of `report.json`.
pub const FORMAT: u32 = 1;

/// The report of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The format's version.
    pub format: u32,
    /// The build that made the report.
    pub dbmove_version: String,
    /// When it was made.
    #[schemars(with = "String")]
    pub made: Timestamp,
    /// How the run ended, or where it stands.
    pub verdict: Verdict,
    /// Which run.
    pub run: Run,
    /// The stages in order.
    pub stages: Vec<Stage>,
    /// What verifying steps found, in order.
    pub verifications: Vec<Verification>,
    /// What assessing steps found: as the store models it.
    pub findings: Vec<Finding>,
    /// How long writes were held, if they were.
    pub write_gap: Option<WriteGap>,
    /// The newest rollback, if one has begun.
    #[serde(default)]
    pub rollback: Option<Rollback>,
    /// The newest cutover and the newest rollback, second by second.
    #[serde(default)]
    pub timelines: Vec<Timeline>,
    /// What the rehearsal was under, if it was asked to be.
    #[serde(default)]
    pub load: Option<LoadReport>,
    /// All that the rehearsal sent to production's servers, also what drivers sent that were killed.
    #[serde(default)]
    pub sent_to_production: Vec<Sent>,
    /// The certificate this rehearsal left, or the one this run was allowed by.
    pub certificate: Option<Certificate>,
    /// What people answered for.
    pub approvals: Approvals,
    /// What guards told, in order.
    #[serde(default)]
    pub guards: Vec<GuardTold>,
    /// What became of calls of hooks, in order.
    #[serde(default)]
    pub hooks: Vec<HookTold>,
    /// Transient failures that were tried again.
    pub retries: Vec<Retry>,
    /// What was undone.
    pub undos: Vec<Undo>,
    /// Remarks of the engine and of steps.
    pub notes: Vec<Note>,
    /// The journal's end: keep it elsewhere to notice an edited history.
    pub audit: Audit,
    /// The commands that make sense now.
    pub next: Vec<String>,
}

/// How a run ended, or where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// In one word.
    pub outcome: Outcome,
    /// In one sentence.
    pub sentence: String,
    /// What to do about it, where there is something.
    pub hint: Option<String>,
    /// What the driving process ended with; none while one drives or after a crash.
    pub exit_code: Option<u8>,
    /// Who serves the traffic.
    pub serving: Serving,
    /// True if the run is over for good, false if the same command goes on with it.
    pub concluded: bool,
}

/// A verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As far as asked, all is done.
    Done,
    /// Something failed.
    Failed,
    /// Rows differ.
    Differences,
    /// A gate said no.
    Refused,
    /// The deadline would have been missed.
    DeadlineMissed,
    /// Writes were held too long.
    WriteGapExceeded,
    /// A person has to say yes.
    WaitingForApproval,
    /// Another driver took over on request.
    HandedOver,
    /// Stopped on request.
    Interrupted,
    /// A guard fired, and the run ended at its checkpoints.
    StoppedByGuard,
    /// A guard fired, and what it was not to happen to was undone.
    UndoneByGuard,
    /// All that the run made is gone again, as it was asked for.
    Undone,
    /// Clients are on the source again, with all they wrote on the target.
    RolledBack,
    /// Another driver took the run.
    LeaseLost,
    /// A driver is at work.
    Running,
    /// The driver is gone without a word: the same command goes on.
    Crashed,
}

/// Who serves the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Serving {
    /// The source.
    Source,
    /// The target.
    Target,
    /// Not known; the sentence says what to look at.
    Unclear,
}

/// Which run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// The playbook's name.
    pub playbook: String,
    /// The playbook's hash, as last accepted.
    pub playbook_hash: String,
    /// `rehearsal` or `production`.
    pub kind: String,
    /// When it started.
    #[schemars(with = "String")]
    pub started: Timestamp,
    /// Its last event.
    #[schemars(with = "String")]
    pub last: Timestamp,
    /// How many drivers it had: more than one after a crash, an interruption or a handover.
    pub drivers: u32,
    /// The last deadline that was set.
    pub deadline: Option<Deadline>,
}

/// A deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deadline {
    /// As given.
    pub text: String,
    /// The moment.
    #[schemars(with = "String")]
    pub until: Timestamp,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// When it began.
    #[schemars(with = "Option<String>")]
    pub started: Option<Timestamp>,
    /// When it was done.
    #[schemars(with = "Option<String>")]
    pub done: Option<Timestamp>,
    /// From start to done.
    pub seconds: Option<f64>,
    /// Its steps in order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Its id in the playbook.
    pub id: String,
    /// What it does: `mysql.snapshot`.
    pub name: String,
    /// Where it stands.
    pub state: StepState,
    /// True if it keeps running beside others.
    pub service: bool,
    /// True if after it going back means more than undo.
    pub point_of_no_return: bool,
    /// The last attempt's number; 0 if there was none.
    pub attempts: u32,
    /// What was forecast before anything started, without margin.
    pub forecast_seconds: Option<f64>,
    /// Where the forecast came from, or what was missing.
    pub forecast_basis: Option<String>,
    /// What it took: a task's last attempt, a service's way to ready.
    pub seconds: Option<f64>,
    /// What undoing it took.
    pub undo_seconds: Option<f64>,
    /// What it counted.
    pub work: Option<Work>,
    /// What it left behind for later steps and for people.
    pub facts: BTreeMap<String, serde_json::Value>,
    /// Why it failed.
    pub error: Option<StepError>,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    NotBegun,
    /// Begun; left behind if no driver is alive.
    Running,
    /// A service that has caught up.
    Ready,
    /// Done.
    Done,
    /// Stopped on request.
    Stopped,
    /// Waits for a person's yes; nothing was touched.
    Waiting,
    /// Failed.
    Failed,
    /// Being undone.
    Undoing,
    /// Put back.
    Undone,
    /// Its undo failed: a person has to look.
    UndoFailed,
}

/// How much was done how fast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Work {
    /// What was counted.
    pub unit: String,
    /// How many.
    pub amount: u64,
    /// In which time.
    pub seconds: f64,
}

/// A step's error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepError {
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// What one verifying step found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    /// The step.
    pub step: String,
    /// `equal`, `different` or `incomplete`.
    pub verdict: String,
    /// Rows compared.
    pub rows: u64,
    /// The tables.
    pub tables: Vec<Table>,
    /// All differences.
    pub difference_count: u64,
    /// Those that are listed.
    pub differences: Vec<Difference>,
    /// What differs around the rows.
    #[serde(default)]
    pub structure: Vec<StructureDifference>,
    /// How many tables' structure was compared.
    #[serde(default)]
    pub structure_tables: u64,
    /// Who else wrote to the target, and how that was looked for.
    #[serde(default)]
    pub foreign: Option<ForeignLook>,
    /// What was not compared, and why.
    pub not_compared: Vec<NotCompared>,
    /// What is in the databases that move and does not move itself, and why.
    #[serde(default)]
    pub outside: Vec<NotCompared>,
    /// How many differences are gone because rows were copied once more.
    #[serde(default)]
    pub repaired_count: u64,
    /// Those that are listed, as they were found.
    #[serde(default)]
    pub repaired: Vec<Difference>,
    /// The Merkle root over everything verified.
    pub run_root: Option<String>,
}

/// One table's verification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Table {
    /// Its name.
    pub table: String,
    /// Rows compared.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Chunks compared.
    pub chunks: u64,
    /// How long it took.
    pub seconds: f64,
    /// How rows were hashed, and why so.
    pub method: String,
    /// How much of it was compared.
    pub coverage: String,
    /// The source's position as of which it was equal.
    pub verified_at: Option<String>,
    /// Differences found.
    pub differences: u64,
    /// Its Merkle root.
    pub root: Option<String>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: String,
    /// `missing` (on the source only), `extra` (on the target only), `changed` or `duplicate_count`.
    pub kind: String,
    /// The columns that differ, with both values as SQL would write them.
    pub columns: Vec<ChangedColumn>,
    /// In one line.
    pub line: String,
    /// What would make the target equal.
    pub repair_sql: Option<String>,
}

/// A part of a table, or another object, that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StructureDifference {
    /// What differs.
    #[serde(flatten)]
    pub difference: crate::verify::StructureDifference,
    /// In one line.
    pub line: String,
}

/// One finding of an assessing step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Step and id: `assess/keyless-table`.
    pub id: String,
    /// What was found.
    pub finding: serde_json::Value,
}

/// How long writes were held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WriteGap {
    /// The step that began to hold them.
    pub step: String,
    /// How long they were held; none while they are.
    pub seconds: Option<f64>,
    /// How long they might have been.
    pub limit_seconds: f64,
    /// True if the switch was done, false if the holding was undone.
    pub switched: bool,
}

/// Clients pointed back to the source behind the switch, or the attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rollback {
    /// When it began.
    #[schemars(with = "String")]
    pub started: Timestamp,
    /// How long it took until clients were pointed back; none if they were not, or not yet.
    pub seconds: Option<f64>,
    /// How long writes on the target were held; none before that, and while they are.
    pub held_seconds: Option<f64>,
}

/// A cutover or a rollback, second by second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timeline {
    /// `cutover` or `rollback`.
    pub of: String,
    /// When it began.
    #[schemars(with = "String")]
    pub started: Timestamp,
    /// From its beginning to its last moment.
    pub seconds: f64,
    /// What happened, in order.
    pub moments: Vec<Moment>,
}

/// A step of a [`Timeline`], or something that was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Moment {
    /// When it began, from the timeline's beginning.
    pub at_seconds: f64,
    /// How long it took; none while it runs, and of what is only said.
    pub seconds: Option<f64>,
    /// How it ended.
    pub kind: MomentKind,
    /// The step's id, `undo of` a step, or what is said.
    pub what: String,
    /// What the step does: `mysql.fence`.
    pub does: Option<String>,
}

/// How a [`Moment`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MomentKind {
    /// Done.
    Done,
    /// A service was ready.
    Ready,
    /// Stopped on request, or waiting for a person.
    Stopped,
    /// Failed.
    Failed,
    /// Under way, or left behind by a crash.
    Running,
    /// No step: something that holds from this moment on.
    Said,
}

/// A rehearsal's certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// Its hash.
    pub hash: String,
    /// The rehearsal, where the certificate itself is at hand.
    pub rehearsal: Option<String>,
    /// When it expires, likewise.
    #[schemars(with = "Option<String>")]
    pub expires: Option<Timestamp>,
    /// True if this run issued it, false if it was allowed by it.
    pub issued_here: bool,
}

/// What people answered for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approvals {
    /// Why there was no rehearsal.
    pub without_rehearsal: Option<String>,
    /// Changes to the playbook that were accepted on the way.
    pub accepted_changes: Vec<String>,
    /// What people said yes to, in order.
    #[serde(default)]
    pub given: Vec<Approval>,
    /// What people told the run while it was driven, in order.
    #[serde(default)]
    pub told: Vec<Told>,
}

/// Something that a guard told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuardTold {
    /// Its id.
    pub guard: String,
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// `fired`, `quiet`, `unseen` or `seen`.
    pub change: String,
    /// What was found, or why it could not be asked.
    pub found: String,
    /// What was done about it: `paused`, `stopped`, `cutover_undone`, `undone` or `told`.
    pub effect: Option<String>,
}

/// What became of a call of a hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HookTold {
    /// Its id.
    pub hook: String,
    /// The moment: `before-cutover`, `on-failure` …
    pub moment: String,
    /// When it ended.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What a person told a run by `dbmove ctl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Told {
    /// What: `pause`, `throttle 20MiB/s` …
    pub act: String,
    /// Who.
    pub by: String,
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Why.
    pub reason: Option<String>,
    /// From where, as the system knows it.
    pub from: String,
}

/// A person's yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    /// The step that asked.
    pub step: String,
    /// What it asked.
    pub question: String,
    /// Who said yes.
    pub by: String,
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Why, in their words.
    pub reason: Option<String>,
    /// From where, as the system knows it.
    pub from: String,
    /// The playbook it was given for.
    pub playbook_hash: String,
    /// False if the playbook has changed since, so that it no longer counts.
    pub stands: bool,
}

/// A transient failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Retry {
    /// The step.
    pub step: String,
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// The attempt that came next.
    pub attempt: u32,
    /// What had failed.
    pub error: String,
}

/// An undo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Undo {
    /// Why.
    pub why: String,
    /// When it began.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// How far back: a stage, or `everything`.
    pub scope: String,
    /// How long it took; none if it has not come to its end.
    pub seconds: Option<f64>,
    /// Steps whose undo failed, each with why.
    pub failed: BTreeMap<String, String>,
}

/// A remark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// The step it is about.
    pub step: Option<String>,
    /// The words.
    pub text: String,
}

/// The journal's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Audit {
    /// How many events the journal has, of all runs.
    pub events: u64,
    /// The hash of the last one.
    pub head: String,
}

/// The JSON Schema of [`Report`].
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Report).to_value()
}
