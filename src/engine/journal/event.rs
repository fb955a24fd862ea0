//! What a journal can say: one event for each fact, in the order in which they became true.
//!
//! An event is written before (`intent`) or after (everything else) the fact it tells of. State is
//! nothing but a fold over events ([`RunState`](super::RunState)), so `status`, `report` and a resumed
//! driver see the same run. Events are only ever added to: new kinds and new optional fields may
//! come with newer builds, and an unknown kind is read as [`Event::Unknown`], never refused; what would change
//! the meaning of an old kind needs a new `user_version` of the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::approval::Approval;
use crate::engine::budget::Forecast;
use crate::engine::certificate::Certificate;
use crate::engine::context::RunKind;
use crate::engine::control::Controlled;
use crate::engine::drift::{Change, PlaybookFingerprint};
use crate::engine::guards::Guarded;
use crate::engine::lease::Owner;
use crate::engine::load::LoadReport;
use crate::engine::load::multiple::Multiple;
use crate::engine::moments::Hooked;
use crate::engine::outcome::{Serving, Verdict};
use crate::engine::step::{Epoch, Output, Probe, StepError};
use crate::playbook::model::StageName;

/// What is done to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `Step::run`.
    Run,
    /// `Step::undo`.
    Undo,
}

/// How an intent ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum StepResult {
    /// The end state stands.
    Done {
        /// What the step left behind.
        output: Output,
    },
    /// Stopped on request, cleanly; it goes on from its checkpoints when it is run again.
    Stopped,
    /// Failed.
    Failed {
        /// Why.
        error: RecordedError,
    },
}

/// A step's error as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedError {
    /// What the engine does about it.
    pub failure: crate::engine::step::Failure,
    /// What happened, to which object.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&StepError> for RecordedError {
    fn from(error: &StepError) -> Self {
        RecordedError { failure: error.failure, message: error.message.clone(), hint: error.hint.clone() }
    }
}

/// How far back an undo goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "scope")]
pub enum UndoScope {
    /// The begun steps of one stage.
    Stage {
        /// That stage.
        stage: StageName,
    },
    /// The begun steps of every stage, the point of no return too: the end of a rehearsal.
    Everything,
}

/// What follows an undo that has come to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "then")]
pub enum AfterUndo {
    /// The run ends with this verdict.
    End {
        /// The verdict that led to the undo.
        verdict: Verdict,
    },
    /// The stage starts again from its first step: the driver had crashed inside it.
    StartAgain,
    /// The rehearsal has passed and its certificate is issued.
    Certify,
    /// The rollback of a rehearsal was tried: everything else is undone too.
    EndRehearsal,
}

/// What a run was started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// The playbook's name.
    pub playbook: String,
    /// Where it was read from, for the commands that `status` and `report` suggest; a journal of an older build has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playbook_file: Option<PathBuf>,
    /// Its hash, whole and in parts.
    pub fingerprint: PlaybookFingerprint,
    /// Rehearsal or production.
    pub kind: RunKind,
    /// The build that started it.
    pub dbmove_version: String,
    /// Every step in order, with its stage: what `status` shows before anything has begun.
    pub steps: Vec<PlannedStep>,
}

/// One step as it stood in the playbook when the run started (or when a change was accepted).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its id.
    pub id: String,
    /// What it does: `mysql.snapshot`.
    pub name: String,
    /// Its stage.
    pub stage: StageName,
    /// True if it keeps running beside the steps that follow.
    pub service: bool,
    /// True if it is the run's point of no return.
    pub point_of_no_return: bool,
    /// What a person has to say yes to before it passes, if it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// True if it keeps the way back open behind the point of no return.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_way_back: bool,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A run exists.
    RunStarted(RunStarted),
    /// A driver goes on with a run that exists.
    RunResumed {
        /// True if it is entered only to be undone.
        #[serde(default)]
        give_up: bool,
        /// The build that goes on.
        dbmove_version: String,
        /// The last stage this driver was asked for.
        until: StageName,
    },
    /// A driver holds the run.
    LeaseTaken {
        /// Its epoch.
        epoch: Epoch,
        /// Who.
        owner: Owner,
    },
    /// A driver has let go of the run.
    LeaseReleased {
        /// Its epoch.
        epoch: Epoch,
    },
    /// A stage begins.
    StageStarted {
        /// Which.
        stage: StageName,
    },
    /// All steps of a stage are done (its services ready).
    StageDone {
        /// Which.
        stage: StageName,
    },
    /// A step is about to act. On disk before it does.
    Intent {
        /// The step.
        step: String,
        /// 1 for the first try; the same again after a crash.
        attempt: u32,
        /// Run or undo.
        action: Action,
        /// Run, step and attempt.
        key: String,
    },
    /// How an intent ended.
    Outcome {
        /// The step.
        step: String,
        /// The attempt that ended.
        attempt: u32,
        /// Run or undo.
        action: Action,
        /// How.
        #[serde(flatten)]
        result: StepResult,
        /// Seconds of this attempt.
        seconds: f64,
        /// True if no return value was seen and `probe` told the result.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        settled: bool,
    },
    /// A service has caught up.
    Ready {
        /// The step.
        step: String,
        /// Seconds from its start.
        seconds: f64,
    },
    /// A transient failure; the step is tried again.
    Retry {
        /// The step.
        step: String,
        /// The attempt that comes next.
        attempt: u32,
        /// Seconds until then.
        wait_seconds: f64,
        /// What failed.
        error: String,
    },
    /// What `probe` found for an intent without an outcome.
    Probed {
        /// The step.
        step: String,
        /// What it found.
        #[serde(flatten)]
        probe: Probe,
    },
    /// The playbook changed under the run, in steps not yet begun, and the operator accepted it.
    PlaybookAccepted {
        /// The hashes from now on.
        fingerprint: PlaybookFingerprint,
        /// What changed.
        changes: Vec<Change>,
        /// The steps from now on.
        steps: Vec<PlannedStep>,
    },
    /// A person has said yes to what a step asks. Written by whoever said it, not by the driver.
    Approved(Approval),
    /// A person steered the run.
    Controlled(Controlled),
    /// A guard fired, is quiet again, can't be asked, or can be again.
    Guard(Guarded),
    /// A hook is about to be called, or has ended.
    Hook(Hooked),
    /// A cutover goes ahead without a certificate.
    WithoutRehearsal {
        /// Why, in the operator's words.
        reason: String,
    },
    /// A cutover goes ahead on this certificate.
    CertificateAccepted {
        /// Its hash.
        certificate: String,
    },
    /// A rehearsal has passed.
    CertificateIssued {
        /// What it leaves behind.
        certificate: Box<Certificate>,
    },
    /// From now on this deadline holds.
    DeadlineSet {
        /// As given: `16h`, `06:00 Europe/Berlin`.
        text: String,
        /// The moment.
        until: Timestamp,
    },
    /// What remains, as forecast before anything starts.
    Forecast {
        /// The figures.
        forecast: Forecast,
    },
    /// Writes are held from now on.
    WriteGapStarted {
        /// The step that holds them.
        step: String,
        /// How long they may be held, in seconds.
        limit_seconds: f64,
    },
    /// Writes are no longer held by this run.
    WriteGapEnded {
        /// How long they were, in seconds.
        seconds: f64,
        /// True if the switch was done, false if the holding was undone.
        switched: bool,
    },
    /// A rehearsal was asked to run under load.
    LoadAsked {
        /// The options it was asked with, as a shell takes them: whoever goes on with it has to give them again.
        options: String,
    },
    /// A rehearsal is under load from now on.
    LoadStarted {
        /// How many times production's own rate.
        asked: Multiple,
    },
    /// The load has ended.
    LoadEnded {
        /// What became of it.
        load: Box<LoadReport>,
    },
    /// The point of no return is passed.
    PointOfNoReturn {
        /// The step.
        step: String,
    },
    /// A rollback begins. Clients write on the target until their writes are held.
    RollbackStarted,
    /// Something is about to be undone, newest first.
    UndoStarted {
        /// Why, in words.
        why: String,
        /// How far back.
        #[serde(flatten)]
        scope: UndoScope,
        /// What follows.
        #[serde(flatten)]
        then: AfterUndo,
    },
    /// The undo has come to its end.
    UndoFinished {
        /// Steps whose undo failed, each with why.
        failed: BTreeMap<String, String>,
        /// How long it took, in seconds.
        seconds: f64,
    },
    /// This driver is through.
    RunFinished {
        /// How it ended.
        #[serde(flatten)]
        verdict: Verdict,
        /// Who serves the traffic.
        serving: Serving,
        /// True if the run is over for good; false if it can be driven on.
        concluded: bool,
    },
    /// Something worth reading later, in words.
    Note {
        /// The step it is about, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// The words.
        text: String,
    },
    /// A kind that this build does not know: written by a newer one.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// The kind of [`Event::Approved`], which is looked for by kind.
    pub(in crate::engine) const APPROVED: &'static str = "approved";

    /// The name the event goes by in the journal's `kind` column.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Event::RunStarted(_) => "run_started",
            Event::RunResumed { .. } => "run_resumed",
            Event::LeaseTaken { .. } => "lease_taken",
            Event::LeaseReleased { .. } => "lease_released",
            Event::StageStarted { .. } => "stage_started",
            Event::StageDone { .. } => "stage_done",
            Event::Intent { .. } => "intent",
            Event::Outcome { .. } => "outcome",
            Event::Ready { .. } => "ready",
            Event::Retry { .. } => "retry",
            Event::Probed { .. } => "probed",
            Event::PlaybookAccepted { .. } => "playbook_accepted",
            Event::Approved(_) => Event::APPROVED,
            Event::Controlled(_) => "controlled",
            Event::Guard(_) => "guard",
            Event::Hook(_) => "hook",
            Event::WithoutRehearsal { .. } => "without_rehearsal",
            Event::CertificateAccepted { .. } => "certificate_accepted",
            Event::CertificateIssued { .. } => "certificate_issued",
            Event::DeadlineSet { .. } => "deadline_set",
            Event::Forecast { .. } => "forecast",
            Event::WriteGapStarted { .. } => "write_gap_started",
            Event::WriteGapEnded { .. } => "write_gap_ended",
            Event::LoadAsked { .. } => "load_asked",
            Event::LoadStarted { .. } => "load_started",
            Event::LoadEnded { .. } => "load_ended",
            Event::PointOfNoReturn { .. } => "point_of_no_return",
            Event::RollbackStarted => "rollback_started",
            Event::UndoStarted { .. } => "undo_started",
            Event::UndoFinished { .. } => "undo_finished",
            Event::RunFinished { .. } => "run_finished",
            Event::Note { .. } => "note",
            Event::Unknown => "unknown",
        }
    }
}

/// An event as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// Its number in the whole journal, from 1.
    pub sequence: u64,
    /// The run it belongs to.
    pub run: String,
    /// When it was written.
    pub at: Timestamp,
    /// The fact.
    pub event: Event,
    /// `sha256(previous hash ‖ canonical event)`, in hex.
    pub hash: String,
}
