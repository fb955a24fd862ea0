//! The driver's part: starts the loads, looks at them and at how following keeps up, and ends them.
//!
//! Whether the target kept up is judged at the end. But a rehearsal whose target will never catch up would have no end: so once the load has run
//! for as long as asked, following that falls further and further behind ends it at once. While rows are copied it may fall behind and catch up
//! afterwards, so what was seen before the last row went in is left out. But rows go in only once following has come as far as they were read: where
//! copying waits for nothing but that, and following falls further behind all the same, neither has an end.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::judge::{self, Look};
use super::{Clients, LoadContext, LoadFigures, LoadReport};
use crate::engine::context::{Progress, RunKind};
use crate::engine::driver::{Driver, Stop};
use crate::engine::journal::{AfterUndo, Event, JournalError, RunState, Sample, UndoScope};
use crate::engine::outcome::Verdict;
use crate::engine::run::EngineError;
use crate::engine::step::{Failure, StepError};
use crate::playbook::model::StageName;

/// How long loads have to end what they are doing.
const GRACE: Duration = Duration::from_secs(5);

/// How often it is judged whether following will ever catch up.
const JUDGE_EVERY: Duration = Duration::from_secs(5);
/// So many times in a row, and it will not.
const PATIENCE: u32 = 3;

/// The loads that run beside a rehearsal.
pub struct Beside {
    tasks: JoinSet<(String, Result<(), StepError>)>,
    cancel: CancellationToken,
    clients: watch::Sender<Clients>,
    figures: BTreeMap<String, watch::Receiver<LoadFigures>>,
    started: Instant,
    looks: BTreeMap<String, Vec<Look>>,
    /// Looks since nothing but following keeps the target busy.
    trend: BTreeMap<String, Vec<Look>>,
    judged: Instant,
    against: u32,
    /// Why the target will never catch up, if so.
    hopeless: Option<String>,
}

/// What a store's load goes by where steps go by their ids, none of which has a blank.
fn name(store: &str) -> String {
    format!("load of {store}")
}

/// The figures as a step's progress.
fn progress(asked: &str, figures: &LoadFigures) -> Progress {
    let note = if figures.changes == 0 {
        format!("asked {asked}; the log is being read")
    } else {
        format!("asked {asked} = {:.0} writes/s, reached {:.0}", figures.asked_per_second, figures.reached_per_second)
    };
    Progress { done: figures.changes, unit: "writes".to_owned(), rate: Some(figures.reached_per_second), note, ..Progress::default() }
}

fn failed(store: &str, error: &StepError) -> Verdict {
    let message = format!("the load of `{store}` broke off: {}", error.message);
    match error.failure {
        Failure::Refused => Verdict::Refused { step: None, reasons: vec![message], hint: error.hint.clone() },
        _ => Verdict::Failed { step: None, message, hint: error.hint.clone() },
    }
}

fn too_slow(message: String) -> Verdict {
    let hint = "give the target more (its disk, `innodb_flush_log_at_trx_commit` and `sync_binlog` while it follows, its class), or rehearse at less";
    Verdict::Failed { step: None, message, hint: Some(hint.to_owned()) }
}

impl Driver {
    /// Refuses to go on without the load that the rehearsal was asked to run under, as long as something is left to be tried under it. Nothing is
    /// written before that, so that the rehearsal stays as it is.
    pub(in crate::engine) fn check_load_is_given(&self) -> Result<(), Stop> {
        if self.request.kind != RunKind::Rehearsal || self.request.load.is_some() || self.request.give_up {
            return Ok(());
        }
        let state = self.journal.state();
        let going_back = state.undo.as_ref().is_some_and(|undo| match &undo.then {
            AfterUndo::StartAgain => false,
            AfterUndo::Certify | AfterUndo::EndRehearsal => true,
            AfterUndo::End { verdict } => !verdict.resumable(),
        });
        let left = self.graph.steps.iter().any(|built| !state.stage_done(built.stage));
        if state.load_options.is_empty() || going_back || state.rolled_back() || !left {
            return Ok(());
        }
        Err(Stop::Engine(EngineError::LoadLeftOut { run: state.run, options: state.load_options }))
    }

    /// Whether every load can be made; asked before anything is touched.
    pub(in crate::engine) async fn check_load(&self) -> Result<(), Stop> {
        let Some(asked) = self.request.load.as_ref().filter(|_| self.request.kind == RunKind::Rehearsal) else { return Ok(()) };
        let options = asked.options.clone();
        if self.journal.with_state(|state| state.load_options != options) {
            self.journal.append(Event::LoadAsked { options }).await?;
        }
        let checkpoints = self.checkpoints();
        for load in &asked.loads {
            let outputs = self.outputs();
            // It may have much to read.
            let checked = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Stop::Verdict(Verdict::Interrupted)),
                checked = load.check(self.journal.run(), &outputs, &checkpoints) => checked,
            };
            checked.map_err(|error| {
                let begun = self.journal.with_state(|state| !state.begun_in(UndoScope::Everything).is_empty());
                let left = if begun { "the rehearsal ends by that, and is undone".to_owned() } else { self.untouched() };
                let reason = format!("the load of `{}` can't be made: {}; {left}", load.store(), error.message);
                Stop::Verdict(Verdict::Refused { step: None, reasons: vec![reason], hint: error.hint })
            })?;
        }
        Ok(())
    }

    /// Before a stage: starts the loads once there is something to follow, and has the cutover wait until they have run for as long as asked.
    pub(in crate::engine) async fn load_before(&mut self, stage: StageName) -> Result<(), Stop> {
        let Some(asked) = self.request.load.clone().filter(|_| self.request.kind == RunKind::Rehearsal && stage >= StageName::Sync) else {
            return Ok(());
        };
        if self.beside.is_none() {
            let clients = if self.journal.with_state(RunState::switched) { Clients::OnTarget } else { Clients::OnSource };
            let mut beside = Beside {
                tasks: JoinSet::new(),
                cancel: CancellationToken::new(),
                clients: watch::Sender::new(clients),
                figures: BTreeMap::new(),
                started: Instant::now(),
                looks: BTreeMap::new(),
                trend: BTreeMap::new(),
                judged: Instant::now(),
                against: 0,
                hopeless: None,
            };
            self.journal.append(Event::LoadStarted { asked: asked.multiple }).await?;
            for load in asked.loads {
                let (figures, seen) = watch::channel(LoadFigures::default());
                let context = LoadContext {
                    run: self.journal.run().clone(),
                    outputs: self.outputs(),
                    checkpoints: self.checkpoints(),
                    multiple: asked.multiple,
                    cancel: beside.cancel.clone(),
                    clients: beside.clients.subscribe(),
                    figures,
                };
                let store = load.store().to_owned();
                self.observer.load_started(&name(&store));
                beside.figures.insert(store.clone(), seen);
                beside.tasks.spawn(async move { (store, load.run(context).await) });
            }
            self.beside = Some(beside);
        }
        let switched = self.journal.with_state(RunState::switched);
        while stage == StageName::Cutover
            && !switched
            && self.beside.as_ref().is_some_and(|beside| beside.started.elapsed() < asked.at_least)
        {
            self.wait().await?;
        }
        Ok(())
    }

    /// Tells the loads where clients are.
    pub(in crate::engine) fn clients_are(&self, clients: Clients) {
        if let Some(beside) = &self.beside {
            beside.clients.send_replace(clients);
        }
    }

    /// The regular look: at loads that broke off, at what they do, and at how far behind following is.
    pub(in crate::engine) fn look_at_load(&mut self, samples: Option<&mut Vec<Sample>>) -> Result<(), Stop> {
        let Some(beside) = &mut self.beside else { return Ok(()) };
        while let Some(ended) = beside.tasks.try_join_next() {
            let stop = match ended {
                Ok((_, Ok(()))) => continue,
                Ok((store, Err(error))) => failed(&store, &error),
                Err(_) => Verdict::Failed {
                    step: None,
                    message: "the load broke an assertion of its own (a defect in dbmove)".to_owned(),
                    hint: None,
                },
            };
            return Err(Stop::Verdict(stop));
        }
        let asked = self.request.load.as_ref().map(|asked| asked.multiple.to_string()).unwrap_or_default();
        let mut numbers = Vec::new();
        for (store, figures) in &mut beside.figures {
            if figures.has_changed().unwrap_or(false) {
                let progress = progress(&asked, &figures.borrow_and_update());
                self.observer.step_progress(&name(store), &progress);
                self.live.lock().unwrap_or_else(PoisonError::into_inner).steps.insert(name(store), progress);
            }
            numbers.extend(Sample::of_progress(&name(store), &progress(&asked, &figures.borrow())));
        }
        if let Some(samples) = samples {
            samples.extend(numbers);
        }
        let writes = beside.figures.values().any(|figures| figures.borrow().changes > 0);
        if writes && *beside.clients.borrow() == Clients::OnSource {
            let at = beside.started.elapsed().as_secs_f64();
            let copied = self.journal.with_state(|state| state.stage_done(StageName::Sync));
            let copying_waits = self.running.values().any(|running| running.progress.borrow().waits);
            for (index, running) in &self.running {
                let Some(lag) = running.progress.borrow().lag else { continue };
                let (step, ready) = (self.graph.id(*index).to_owned(), *running.ready.borrow());
                let look = Look { at, lag: lag.as_secs_f64() };
                if ready {
                    beside.looks.entry(step.clone()).or_default().push(look);
                }
                let trend = beside.trend.entry(step).or_default();
                if ready && !copied && !copying_waits { trend.clear() } else { trend.push(look) }
            }
            let asked = self.request.load.as_ref().map(|asked| (asked.multiple, asked.at_least));
            if let Some((multiple, at_least)) = asked
                && beside.started.elapsed() >= at_least
                && beside.judged.elapsed() >= JUDGE_EVERY
            {
                beside.judged = Instant::now();
                let reached: f64 = beside.figures.values().map(|figures| figures.borrow().reached_per_second).sum();
                let lags = beside.trend.iter().map(|(step, looks)| judge::lag(step, looks)).filter(|lag| lag.grew.is_some());
                let why = lags.filter_map(|lag| judge::falls_behind(multiple, &lag, reached, self.request.max_write_gap)).next();
                beside.against = if why.is_some() { beside.against + 1 } else { 0 };
                if beside.against >= PATIENCE
                    && let Some(message) = why
                {
                    beside.hopeless = Some(message.clone());
                    return Err(Stop::Verdict(too_slow(message)));
                }
            }
        }
        Ok(())
    }

    /// Ends the loads, and writes down what became of them. Nothing if none runs.
    pub(in crate::engine) async fn end_load(&mut self) -> Result<Option<LoadReport>, JournalError> {
        let Some(mut beside) = self.beside.take() else { return Ok(None) };
        beside.cancel.cancel();
        // What does not end by itself is dropped with the set, and its connections with it.
        let _ = tokio::time::timeout(GRACE, async { while beside.tasks.join_next().await.is_some() {} }).await;
        drop(beside.tasks);
        beside.figures.keys().for_each(|store| self.observer.load_ended(&name(store)));
        self.live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .steps
            .retain(|step, _| !beside.figures.keys().any(|store| *step == name(store)));
        let Some(asked) = self.request.load.as_ref().map(|asked| asked.multiple) else { return Ok(None) };
        let stores: BTreeMap<String, LoadFigures> =
            beside.figures.into_iter().map(|(store, figures)| (store, figures.borrow().clone())).collect();
        let lag: Vec<_> = beside.looks.iter().map(|(step, looks)| judge::lag(step, looks)).collect();
        let reached: f64 = stores.values().map(|figures| figures.reached_per_second).sum();
        let behind: Vec<String> = match beside.hopeless {
            Some(why) => vec![why],
            None => lag.iter().filter_map(|lag| judge::falls_behind(asked, lag, reached, self.request.max_write_gap)).collect(),
        };
        let short: Vec<String> = stores.iter().filter_map(|(store, figures)| judge::falls_short(asked, store, figures)).collect();
        // Nobody saw it keep up where nobody looked: a driver that goes on behind the switch has nothing to look at any more.
        let keeps_up = if behind.is_empty() && lag.is_empty() { None } else { Some(behind.is_empty()) };
        let all = short.is_empty();
        let mut sentences = behind;
        sentences.extend(short);
        if keeps_up.is_none() {
            let why =
                "it could not be looked at: it had not caught up while the load ran, or clients had been switched when this driver began";
            sentences.push(format!("whether following keeps up at {asked} is not known: {why}"));
        }
        if sentences.is_empty() {
            sentences.push(format!("this target keeps up at {asked} ({reached:.0} writes/s)"));
        }
        let report = LoadReport { asked, stores, lag, keeps_up, reached: all, sentences };
        self.journal.append(Event::LoadEnded { load: Box::new(report.clone()) }).await?;
        Ok(Some(report))
    }

    /// At a rehearsal's end: ends the loads, and fails the rehearsal if following did not keep up.
    pub(in crate::engine) async fn judge_load(&mut self) -> Result<(), Stop> {
        match self.end_load().await? {
            Some(report) if report.keeps_up == Some(false) => Err(Stop::Verdict(too_slow(report.sentences.join("; ")))),
            _ => Ok(()),
        }
    }
}
