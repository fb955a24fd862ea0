//! One driver per run.
//!
//! # The lease
//!
//! A row of the journal says who drives a run (machine, boot, process and its start time), with which epoch, and
//! when that driver last showed a sign of life ([`HEARTBEAT`]). Taking the lease is one transaction that also starts the run if
//! there is none, so two drivers that start at the same moment can't both win. A lease may be taken if it was
//! released, if its owner is provably dead (same machine and process-id namespace: the process is gone, or its pid belongs to another one by now;
//! or the machine has booted since), or if no sign of life came for [`EXPIRY`]. The epoch grows with every taking.
//!
//! A driver that was only slow finds out in three ways, each sufficient: its heartbeat no longer finds its epoch; the journal
//! refuses its writes (checked in the same transaction); and the target refuses them, because the new driver wrote its epoch there
//! ([`TargetLease`](super::step::TargetLease)) before it did anything else. It then cancels everything at once.
//!
//! How a running driver is asked for its run, and lets go of it, is in [`handover`](super::handover).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::RunKind;
use super::crash;
use super::handover::{self, Asked, HANDOVER, RequestId, request_handover, withdraw_request};
use super::journal::{Event, Journal, JournalError, RunJournal, RunStarted, RunState, UndoScope};
use super::step::Epoch;
use crate::playbook::model::StageName;

/// How often a driver shows a sign of life.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// After so long without one, another driver may take over.
pub const EXPIRY: Duration = Duration::from_secs(10);
/// How often one who waits for a lease looks again.
const LOOK: Duration = Duration::from_millis(100);

/// Who drives a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The machine's name.
    pub host: String,
    /// The machine's boot: another one means that every process of before is gone.
    pub boot: String,
    /// The process-id namespace: a pid means nothing in another one.
    pub namespace: String,
    /// The process.
    pub pid: u32,
    /// When the process started, in the kernel's ticks since boot: tells a reused pid from the old one.
    pub started: u64,
}

/// Why a lease could not be had, or is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Another driver has it.
    #[error("run `{run}` is driven by process {} on `{}` (epoch {epoch}); nothing was touched. Wait for it, stop it, or look with `dbmove status`", .owner.pid, .owner.host)]
    Held {
        /// The run.
        run: String,
        /// Who.
        owner: Box<Owner>,
        /// With which epoch.
        epoch: u64,
    },
    /// Another driver took it over.
    #[error("run `{run}` was taken over by another driver (this one's epoch was {epoch}); this one has stopped acting")]
    Lost {
        /// The run.
        run: String,
        /// The epoch that was ours.
        epoch: u64,
    },
}

/// What can be told of an owner from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// The process runs.
    Alive,
    /// The process is gone for sure.
    Gone,
    /// It lives on another machine or in another namespace: only its heartbeat tells.
    OutOfSight,
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The start time of a process, in ticks since boot: field 22 of its `stat`, counted behind the command's name, which may
/// itself hold spaces and parentheses. A zombie is as gone as one that was reaped.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

impl Owner {
    /// This process.
    #[must_use]
    pub fn current() -> Owner {
        let pid = std::process::id();
        Owner {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot: line("/proc/sys/kernel/random/boot_id"),
            namespace: std::fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default(),
            pid,
            started: start_of(pid).unwrap_or_default(),
        }
    }

    /// Whether that process still runs, as far as this one can tell.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        let me = Owner::current();
        if self.host != me.host || me.boot.is_empty() || self.boot.is_empty() {
            return Liveness::OutOfSight;
        }
        if self.boot != me.boot {
            return Liveness::Gone;
        }
        if self.namespace != me.namespace || !Path::new("/proc/self/stat").exists() {
            return Liveness::OutOfSight;
        }
        if start_of(self.pid) == Some(self.started) { Liveness::Alive } else { Liveness::Gone }
    }
}

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Who.
    pub owner: Owner,
    /// With which epoch.
    pub epoch: Epoch,
    /// False if it was released.
    pub held: bool,
    /// The last sign of life.
    pub heartbeat: Timestamp,
}

impl LeaseView {
    /// True if another driver may take it now.
    #[must_use]
    pub fn is_free(&self, now: Timestamp) -> bool {
        if !self.held {
            return true;
        }
        match self.owner.liveness() {
            Liveness::Gone => true,
            // A driver that sits still (a suspended machine, a stopped process) has lost its claim like any other.
            Liveness::Alive | Liveness::OutOfSight => now.duration_since(self.heartbeat).unsigned_abs() > EXPIRY && now > self.heartbeat,
        }
    }
}

pub(super) fn view(connection: &Connection, run: &str) -> rusqlite::Result<Option<LeaseView>> {
    let row: Option<(i64, String, i64, bool)> = connection
        .query_row("SELECT epoch, owner, heartbeat, held FROM leases WHERE run = ?1", params![run], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    Ok(row.and_then(|(epoch, owner, heartbeat, held)| {
        Some(LeaseView {
            owner: serde_json::from_str(&owner).ok()?,
            epoch: Epoch(epoch.unsigned_abs()),
            held,
            heartbeat: Timestamp::from_millisecond(heartbeat).ok()?,
        })
    }))
}

/// What a driver wants to enter.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What to start if there is no run to go on with.
    pub started: RunStarted,
    /// Start a new run though one is under way or finished.
    pub new_run: bool,
    /// Ask a running driver to hand over, and wait so long.
    pub take_over: Option<Duration>,
}

/// A run, entered.
pub(super) struct Entered {
    pub run: Arc<str>,
    pub epoch: Epoch,
    pub state: RunState,
    /// False if the run was started just now.
    pub resumed: bool,
}

/// Why a run could not be entered.
pub(super) enum Refused {
    /// The lease is held.
    Held { run: String, view: Box<LeaseView> },
    /// The newest run is over.
    Finished { run: String },
    /// A new run would hide the newest one.
    Hidden { state: Box<RunState> },
}

/// An id for a new run: sortable by time, unique by chance.
fn new_id() -> String {
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    format!("{now}-{:06x}", rand::random::<u32>() & 0x00ff_ffff)
}

/// Tries once, in one transaction: choose the run or start one, take its lease, fold its events.
fn try_enter(journal: &Journal, entry: &Entry, owner: &Owner) -> Result<Result<Entered, Refused>, JournalError> {
    journal.transaction(|transaction| {
        let sql = |error: rusqlite::Error| journal.failed(&error);
        let (playbook, kind) = (&entry.started.playbook, entry.started.kind);
        let latest = super::journal::latest_run(transaction, playbook, kind).map_err(sql)?;
        let mut resumed = None;
        if let Some(latest) = latest {
            let view = view(transaction, &latest.run).map_err(sql)?;
            if let Some(view) = view.filter(|view| !view.is_free(Timestamp::now())) {
                return Ok(Err(Refused::Held { run: latest.run, view: Box::new(view) }));
            }
            match (latest.concluded, entry.new_run, kind) {
                (false, false, _) => resumed = Some(latest.run),
                (true, false, RunKind::Production) => return Ok(Err(Refused::Finished { run: latest.run })),
                // Every command goes to the newest run: none could settle this one, or bring its clients back.
                (false, true, _) => {
                    let events = super::journal::events_after(transaction, journal.path(), &latest.run, 0)?;
                    let state = RunState::fold(&events).ok_or_else(|| JournalError::UnknownRun(latest.run.clone()))?;
                    if !state.begun_in(UndoScope::Stage { stage: StageName::Cutover }).is_empty() {
                        return Ok(Err(Refused::Hidden { state: Box::new(state) }));
                    }
                }
                // A rehearsal that is over is followed by the next one.
                (true, false, RunKind::Rehearsal) | (true, true, _) => {}
            }
        }
        let run = resumed.clone().unwrap_or_else(new_id);
        if resumed.is_none() {
            journal.append_in(transaction, &run, Event::RunStarted(entry.started.clone()))?;
        }
        let epoch = view(transaction, &run).map_err(sql)?.map_or(1, |view| view.epoch.0 + 1);
        let owner_text = serde_json::to_string(owner).map_err(|error| JournalError::Damaged {
            path: journal.path().to_owned(),
            sequence: None,
            reason: error.to_string(),
        })?;
        transaction
            .execute(
                "INSERT OR REPLACE INTO leases (run, epoch, owner, heartbeat, held) VALUES (?1, ?2, ?3, ?4, 1)",
                params![run, epoch.cast_signed(), owner_text, Timestamp::now().as_millisecond()],
            )
            .map_err(sql)?;
        // Whoever asked before has either entered by now or been outrun.
        handover::outrun(transaction, &run).map_err(sql)?;
        let epoch = Epoch(epoch);
        journal.append_in(transaction, &run, Event::LeaseTaken { epoch, owner: owner.clone() })?;
        let events = super::journal::events_after(transaction, journal.path(), &run, 0)?;
        let state = RunState::fold(&events).ok_or_else(|| JournalError::UnknownRun(run.clone()))?;
        Ok(Ok(Entered { run: run.into(), epoch, state, resumed: resumed.is_some() }))
    })
}

/// Why waiting for a run ended without it.
fn give_up(cancel: &CancellationToken, run: String, view: LeaseView) -> super::run::EngineError {
    if cancel.is_cancelled() {
        return super::run::EngineError::StoppedWaiting { run };
    }
    LeaseError::Held { run, owner: Box::new(view.owner), epoch: view.epoch.0 }.into()
}

/// Enters a run: takes it, starts it, or waits for a handover, unless `refuse` says no to the run as it stands: then its driver is not
/// asked. Cancelled while it waits it takes its request back.
pub(super) async fn enter(
    journal: &Journal,
    entry: Entry,
    refuse: &(dyn Fn(&RunState) -> Result<(), super::run::EngineError> + Sync),
    cancel: &CancellationToken,
) -> Result<Entered, super::run::EngineError> {
    let owner = Owner::current();
    let patience = Instant::now() + entry.take_over.unwrap_or_default();
    let mut asked: Option<(String, RequestId)> = None;
    loop {
        let (try_entry, try_owner) = (entry.clone(), owner.clone());
        match journal.write(move |journal| try_enter(journal, &try_entry, &try_owner)).await? {
            Ok(entered) => {
                crash::point("lease.taken");
                return Ok(entered);
            }
            Err(Refused::Hidden { state }) => return Err(super::run::EngineError::hides(&state)),
            Err(Refused::Finished { run }) => {
                return Err(super::run::EngineError::Finished { run, playbook: entry.started.playbook });
            }
            Err(Refused::Held { run, view }) => {
                let waited_enough = Instant::now() >= patience || cancel.is_cancelled();
                match &asked {
                    Some((of, request)) if *of == run => {
                        if waited_enough && (withdraw_request(journal, *request).await? || Instant::now() >= patience + HANDOVER) {
                            return Err(give_up(cancel, run, *view));
                        }
                    }
                    // Nobody was asked yet, or the run asked for is no longer the newest.
                    _ if waited_enough => return Err(give_up(cancel, run, *view)),
                    _ => {
                        refuse(&journal.reader()?.state(&run)?)?;
                        let request = request_handover(journal, &run).await?;
                        asked = Some((run, request));
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// What one sign of life found.
enum Beat {
    Ours { asked: Option<Asked> },
    Lost,
}

fn beat(journal: &Journal, run: &str, epoch: Epoch) -> Result<Beat, JournalError> {
    journal.transaction(|transaction| {
        let sql = |error: rusqlite::Error| journal.failed(&error);
        let ours = transaction
            .execute(
                "UPDATE leases SET heartbeat = ?3 WHERE run = ?1 AND epoch = ?2 AND held = 1",
                params![run, epoch.0.cast_signed(), Timestamp::now().as_millisecond()],
            )
            .map_err(sql)?;
        if ours == 0 {
            return Ok(Beat::Lost);
        }
        let asked = handover::standing(transaction, run).map_err(sql)?;
        Ok(Beat::Ours { asked })
    })
}

/// Shows signs of life until it is dropped or released.
pub(super) struct Heartbeat {
    tasks: JoinSet<()>,
    /// Cancelled when the lease is gone.
    pub lost: CancellationToken,
    /// The request for the run that stood at the last sign of life.
    pub asked: watch::Receiver<Option<Asked>>,
}

impl Heartbeat {
    pub fn start(journal: &RunJournal) -> Heartbeat {
        let lost = CancellationToken::new();
        let (ask, asked) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(keep(journal.clone(), lost.clone(), ask));
        Heartbeat { tasks, lost, asked }
    }

    /// Stops and lets go of the lease, if it is still ours.
    pub async fn release(mut self, journal: &RunJournal) -> Result<(), JournalError> {
        self.tasks.shutdown().await;
        let me = journal.clone();
        journal
            .journal()
            .write(move |journal| {
                me.append_blocking(Event::LeaseReleased { epoch: me.epoch() })?;
                journal.transaction(|transaction| {
                    transaction
                        .execute(
                            "UPDATE leases SET held = 0 WHERE run = ?1 AND epoch = ?2",
                            params![&**me.run(), me.epoch().0.cast_signed()],
                        )
                        .map_err(|error| journal.failed(&error))?;
                    Ok(())
                })
            })
            .await
    }
}

async fn keep(journal: RunJournal, lost: CancellationToken, ask: watch::Sender<Option<Asked>>) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let (run, epoch) = (journal.run().clone(), journal.epoch());
        match journal.journal().write(move |journal| beat(journal, &run, epoch)).await {
            Ok(Beat::Ours { asked }) => {
                last = Instant::now();
                ask.send_if_modified(|old| {
                    let changed = *old != asked;
                    *old = asked;
                    changed
                });
            }
            Ok(Beat::Lost) => return lost.cancel(),
            // A full disk or a busy file is no loss yet; once nobody can have seen us for the expiry, it is.
            Err(_) if last.elapsed() < EXPIRY => {}
            Err(_) => return lost.cancel(),
        }
    }
}
