//! The driver's side of guards: a task for each that looks, and what is done about a ruling.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::judge::{Judge, Ruling, Terms};
use super::{BuiltGuard, Change, Effect, Guarded, Look, Place, Sight, Unseen};
use crate::engine::context::Outputs;
use crate::engine::driver::{Driver, Stop};
use crate::engine::journal::{Event, JournalError, RunState};
use crate::engine::moments::pause_facts;
use crate::engine::outcome::Verdict;
use crate::playbook::model::{Moment, StageName};

/// A look that takes longer is one that could not be had.
const LONGEST_LOOK: Duration = Duration::from_secs(10);
/// Looks that wait for the driver at most.
const WAITING: usize = 16;

/// What a guard's task says.
pub(in crate::engine) struct Looked {
    guard: usize,
    began: Instant,
    look: Result<Look, Unseen>,
}

/// One guard that is watched.
struct Watched {
    built: BuiltGuard,
    judge: Judge,
    /// The newest look, and when it began.
    newest: Option<(Instant, Result<Look, Unseen>)>,
    /// A person has switched it off.
    off: bool,
}

/// All guards of a driver, and the tasks that look.
pub(in crate::engine) struct Watching {
    guards: Vec<Watched>,
    pub looks: mpsc::Receiver<Looked>,
    /// Whoever is waited for looks at once.
    hurry: watch::Sender<u64>,
    outputs: watch::Sender<Arc<Outputs>>,
    /// Whether dbmove itself closes clients' connections.
    closing: watch::Sender<bool>,
    /// What a look is for.
    stage: Option<StageName>,
    /// Since when the cutover's first step waits for looks.
    entered: Option<Instant>,
    _tasks: JoinSet<()>,
}

impl Watching {
    /// Nobody looks.
    pub fn nothing() -> Watching {
        Watching {
            guards: Vec::new(),
            looks: mpsc::channel(1).1,
            hurry: watch::Sender::default(),
            outputs: watch::Sender::default(),
            closing: watch::Sender::default(),
            stage: None,
            entered: None,
            _tasks: JoinSet::new(),
        }
    }

    fn start(guards: Vec<BuiltGuard>, sight: &Sight, closing: watch::Sender<bool>, state: &RunState) -> Watching {
        let (say, looks) = mpsc::channel(WAITING);
        let (hurry, outputs) = (watch::Sender::new(0), watch::Sender::new(sight.outputs.clone()));
        let mut tasks = JoinSet::new();
        for (index, built) in guards.iter().enumerate() {
            let (guard, every) = (built.guard.clone(), Terms::of(&built.spec).every);
            let (say, mut hurry, outputs, mut sight) = (say.clone(), hurry.subscribe(), outputs.subscribe(), sight.clone());
            tasks.spawn(async move {
                loop {
                    let began = Instant::now();
                    sight.outputs = outputs.borrow().clone();
                    let look = tokio::time::timeout(LONGEST_LOOK, guard.look(&sight))
                        .await
                        .unwrap_or_else(|_| Err(Unseen(format!("no answer within {} s", LONGEST_LOOK.as_secs()))));
                    if say.send(Looked { guard: index, began, look }).await.is_err() {
                        return;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(every) => {}
                        Ok(()) = hurry.changed() => {}
                    }
                }
            });
        }
        let watched = |built: BuiltGuard| {
            let id = &built.spec.id;
            let fired = state.guards.0.get(id).is_some_and(|guard| guard.fired.is_some());
            let (judge, off) = (Judge::new(Terms::of(&built.spec), fired), state.control.guards_off.contains_key(id));
            Watched { built, judge, newest: None, off }
        };
        Watching {
            guards: guards.into_iter().map(watched).collect(),
            looks,
            hurry,
            outputs,
            closing,
            stage: None,
            entered: None,
            _tasks: tasks,
        }
    }
}

impl Watched {
    fn watches(&self, stage: Option<StageName>) -> bool {
        match (&self.built.spec.stages, stage) {
            _ if self.off => false,
            (Some(stages), Some(stage)) => stages.contains(&stage),
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }
}

impl Driver {
    /// Begins to watch. What stands of guards that the playbook has no more is taken back.
    pub(in crate::engine) async fn watch(&mut self) -> Result<(), JournalError> {
        let guards = self.request.guards.clone();
        for id in self.journal.with_state(|state| state.guards.0.keys().cloned().collect::<Vec<_>>()) {
            if !guards.iter().any(|built| built.spec.id == id) {
                let found = "the playbook has no such guard any more".to_owned();
                for change in [Change::Quiet { found: found.clone() }, Change::Seen { found: found.clone() }] {
                    self.journal.append(Event::Guard(Guarded { guard: id.clone(), change })).await?;
                }
            }
        }
        let directory = self.journal.journal().path().parent().map(std::path::Path::to_owned).unwrap_or_default();
        let (closing, seen) = watch::channel(false);
        let sight = Sight {
            run: self.journal.run().clone(),
            kind: self.request.kind,
            outputs: self.outputs(),
            state_directory: directory,
            closing: seen,
        };
        let state = self.journal.state();
        self.watching = Watching::start(guards, &sight, closing, &state);
        self.steer();
        Ok(())
    }

    /// From now on guards are judged as of this stage. What watches others rests.
    pub(in crate::engine) async fn watch_stage(&mut self, stage: StageName) -> Result<(), JournalError> {
        if self.watching.stage == Some(stage) {
            return Ok(());
        }
        self.watching.stage = Some(stage);
        let mut resting = Vec::new();
        for watched in &mut self.watching.guards {
            if !watched.watches(Some(stage)) && watched.judge.rest() {
                resting.push(watched.built.spec.id.clone());
            }
        }
        for guard in resting {
            let change = Change::Quiet { found: format!("it does not watch `{}`", stage.as_str()) };
            self.journal.append(Event::Guard(Guarded { guard, change })).await?;
        }
        self.steer();
        Ok(())
    }

    /// What the run's steps have left behind is what guards look with.
    pub(in crate::engine) fn tell_guards_outputs(&self) {
        if !self.watching.guards.is_empty() {
            self.watching.outputs.send_replace(self.outputs());
        }
    }

    /// From here on dbmove itself closes connections of clients, or no more.
    pub(in crate::engine) fn closes_connections(&self, closing: bool) {
        self.watching.closing.send_replace(closing);
    }

    /// Why the cutover's first step waits for a guard, if so. The first time it is asked everybody looks at once.
    pub(in crate::engine) fn guards_keep_cutover_back(&mut self) -> Option<String> {
        let watching = &mut self.watching;
        if !watching.guards.iter().any(|watched| watched.watches(Some(StageName::Cutover))) {
            return None;
        }
        let entered = *watching.entered.get_or_insert_with(|| {
            watching.hurry.send_modify(|asked| *asked += 1);
            Instant::now()
        });
        let kept = watching.guards.iter().filter(|watched| watched.watches(Some(StageName::Cutover))).find_map(|watched| {
            let id = &watched.built.spec.id;
            match &watched.newest {
                Some((began, look)) if *began >= entered => match look {
                    Ok(Look::Fails(found)) => Some(format!("the cutover waits for guard `{id}`: {found}")),
                    Err(Unseen(why)) => Some(format!("the cutover waits for guard `{id}`, which can't be asked: {why}")),
                    Ok(Look::Holds(_) | Look::Nothing(_)) => None,
                },
                _ => Some(format!("the cutover waits for a look of guard `{id}`")),
            }
        });
        if kept.is_none() {
            watching.entered = None;
        }
        kept
    }

    /// Whether the playbook has a guard of this id.
    pub(in crate::engine) fn has_guard(&self, id: &str) -> bool {
        self.watching.guards.iter().any(|watched| watched.built.spec.id == id)
    }

    /// A person does not want it judged any more. What stands of it is lifted.
    pub(in crate::engine) async fn switch_guard_off(&mut self, id: &str, by: &str) -> Result<(), JournalError> {
        let Some(watched) = self.watching.guards.iter_mut().find(|watched| watched.built.spec.id == id) else { return Ok(()) };
        watched.off = true;
        watched.judge.rest();
        let stands = self.journal.with_state(|state| state.guards.0.get(id).cloned().unwrap_or_default());
        let found = format!("it was switched off by {by}");
        let quiet = stands.fired.map(|_| Change::Quiet { found: found.clone() });
        let seen = stands.unseen.map(|_| Change::Seen { found });
        for change in [quiet, seen].into_iter().flatten() {
            self.journal.append(Event::Guard(Guarded { guard: id.to_owned(), change })).await?;
        }
        Ok(())
    }

    /// It is judged again, from its next look on.
    pub(in crate::engine) fn switch_guard_on(&mut self, id: &str) {
        if let Some(watched) = self.watching.guards.iter_mut().find(|watched| watched.built.spec.id == id) {
            watched.off = false;
        }
    }

    /// Where the run is, as far as guards care.
    fn place(&self) -> Place {
        let begun = |state: &RunState| state.stages.get(&StageName::Cutover).is_some_and(|stage| stage.started.is_some());
        let over = |state: &RunState| state.switched() || state.stage_done(StageName::Cutover);
        if self.is_switching() || self.journal.with_state(over) {
            Place::Switched
        } else if self.in_cutover() || self.write_gap.is_some() {
            Place::Cutover
        } else if self.watching.stage >= Some(StageName::Cutover) && !self.journal.with_state(begun) {
            Place::Entering
        } else {
            Place::Before
        }
    }

    /// Takes a look in, and does what follows from it.
    pub(in crate::engine) async fn looked(&mut self, looked: Looked) -> Result<(), Stop> {
        let Looked { guard, began, look } = looked;
        let stage = self.watching.stage;
        let Some(watched) = self.watching.guards.get_mut(guard) else { return Ok(()) };
        let spec = watched.built.spec.clone();
        watched.newest = Some((began, look.clone()));
        self.live_guard(&spec.id, &look);
        let Some(watched) = self.watching.guards.get_mut(guard).filter(|watched| watched.watches(stage)) else { return Ok(()) };
        let ruling = watched.judge.rule(Instant::now(), &look);
        let unseen = watched.judge.is_unseen();
        self.note_unseen(&spec.id, unseen, &look).await?;
        let append = |change| Event::Guard(Guarded { guard: spec.id.clone(), change });
        match ruling {
            None => Ok(()),
            Some(Ruling::Quiet(found)) => {
                self.journal.append(append(Change::Quiet { found })).await?;
                self.steer();
                Ok(())
            }
            Some(Ruling::Fires(found)) => {
                let effect = Effect::of(spec.then, self.place());
                let way_back = effect == Effect::Told && self.way_back_runs();
                self.journal.append(append(Change::Fired { found: found.clone(), effect, way_back })).await?;
                self.tell_hooks(Moment::OnGuard, super::facts(&spec.id, &found, effect)).await?;
                match effect {
                    Effect::Paused => {
                        self.steer();
                        let why = self.journal.with_state(pause_facts);
                        self.tell_hooks(Moment::OnPause, why.unwrap_or_default()).await?;
                        Ok(())
                    }
                    Effect::Told => {
                        let back =
                            if way_back { "`dbmove rollback PLAYBOOK` points clients back" } else { "there is no way back but by hand" };
                        tracing::error!(guard = %spec.id, "A guard fired behind the switch: {found}. Nothing is undone by it; {back}");
                        Ok(())
                    }
                    Effect::Stopped | Effect::CutoverUndone | Effect::Undone => {
                        Err(Stop::Verdict(Verdict::StoppedByGuard { guard: spec.id, found, effect }))
                    }
                }
            }
        }
    }

    /// Writes down when a guard can't be asked any more, and when it can again.
    async fn note_unseen(&mut self, guard: &str, unseen: bool, look: &Result<Look, Unseen>) -> Result<(), JournalError> {
        let stood = self.journal.with_state(|state| state.guards.0.get(guard).is_some_and(|guard| guard.unseen.is_some()));
        let change = match look {
            Err(Unseen(why)) if unseen && !stood => Change::Unseen { why: why.clone() },
            Ok(Look::Holds(found) | Look::Fails(found) | Look::Nothing(found)) if stood => Change::Seen { found: found.clone() },
            _ => return Ok(()),
        };
        self.journal.append(Event::Guard(Guarded { guard: guard.to_owned(), change })).await?;
        Ok(())
    }

    /// What `ctl status` is told.
    fn live_guard(&self, guard: &str, look: &Result<Look, Unseen>) {
        let words = match look {
            Ok(Look::Holds(found) | Look::Fails(found) | Look::Nothing(found)) => found.clone(),
            Err(Unseen(why)) => format!("can't be asked: {why}"),
        };
        self.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner).guards.insert(guard.to_owned(), words);
    }
}
