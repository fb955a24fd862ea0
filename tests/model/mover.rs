//! The algorithm of `src/mysql/{copy,apply,follow}`, step by step, as states and actions.
//!
//! One action is one thing that the world can see or that a crash can fall behind: a commit in the source's log, its becoming
//! visible, a SELECT of a chunk, a chunk passing the gate, its commit, a batch passing the gate, the commit of one lane, the
//! saving of a position, an entry leaving the delete memory, `kill -9` with the restart. Any of them may come next.
//!
//! Each chunk is one key, so every interleaving of rows and chunks is there. Time is not modelled: "long enough ago to be
//! visible for certain" is "visible at the SELECT", which is what settle time and commit gap stand for.
//!
//! With three levels the copy ends by setting right what cascades left (`src/mysql/verification/mend.rs`): one look at the source
//! when everything logged is visible, and a write if no event came in between. After it nothing is set right any more, and only then
//! are values unique on the target. With a parent and its children they are from the start, which is stricter than dbmove is.

use stateright::{Model, Property};

use crate::source::{Event, LEAF, OnDelete, PARENT, PLACES, Place, Row, Rows, Script, Shape, TWIN, collides};

/// A rule broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// Events of keys that are not copied yet are dropped.
    Rule1DropsEvent,
    /// A chunk's row replaces what an event put there.
    Rule2ChunkOverwrites,
    /// A chunk goes in before the applier passed the position behind its read.
    Rule3ChunkTooEarly,
    /// No deleted key is remembered.
    Rule4ForgetsDeletes,
    /// Entries that left the delete memory leave no trace.
    Rule4ForgottenUnnoticed,
    /// Instead of a memory, deletes between the position at the SELECT and the applied one are filtered.
    FilterInsteadOfMemory,
    /// Events on a chunk's range go on while it goes in.
    Rule5EventsDontWait,
    /// The position is saved before what it describes.
    Rule6PositionBeforeData,
    /// A position in the middle of a transaction is saved; reading goes on behind that transaction.
    Rule7PositionInsideTransaction,
    /// The children of a deleted parent stay on the target.
    CascadeNotCarried,
    /// A chunk of children does not ask which parents went.
    ParentsNotRemembered,
    /// The first SELECT does not wait until the start position is visible.
    NoSettleTime,
    /// After a restart, with an empty delete memory, chunks are read at once.
    NoSettleAfterRestart,
    /// Rows that pass a unique value on are written in different lanes.
    LanesIgnoreUniques,
    /// How far the target may be ahead is not saved.
    NoIntent,
    /// What cascades left while the levels were copied stays.
    NothingMended,
    /// Values are unique on the target before what cascades left is set right.
    UniqueBeforeMended,
    /// A row is set right though an event came to it since it was read.
    MendedOverAnEvent,
    /// After a restart, what came before a cascade in its transaction is written again.
    RepeatedBeforeCascade,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Chunk {
    Waiting,
    /// The SELECT saw `seen` events, and `read_at` were in the log.
    Read {
        row: Option<Row>,
        seen: u8,
        read_at: u8,
    },
    /// Past the gate and judged. `orphan`: the parent went meanwhile.
    Entering {
        row: Option<Row>,
        orphan: bool,
    },
    In,
}

/// The batch that is being written: what is left of it, by lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    lanes: Vec<Vec<(Place, Option<Row>)>>,
    touched: Vec<Place>,
    end: u8,
    alone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub script: u16,
    logged: u8,
    visible: u8,
    // On the target.
    pub target: Rows,
    pub applied: u8,
    pub intent: u8,
    /// The last event that must not be written again.
    sure: u8,
    started: bool,
    pub mended: bool,
    // In the process.
    cursor: u8,
    published: u8,
    replay_until: u8,
    ready: u8,
    settled: u8,
    batch: Option<Batch>,
    pub chunks: [Chunk; PLACES],
    /// Deleted places and the number of the event behind which they were gone.
    deletes: Vec<(Place, u8)>,
    /// The newest entry that left the memory.
    forgotten: u8,
    /// Parents that went.
    parent_went: [bool; PLACES],
    /// The last level's row as the source had it, how far the log was then, and whether an event came to it since.
    mend: Option<(Option<Row>, u8, bool)>,
    pub crashes: u8,
    forgets: u8,
    pub collision: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Commit,
    BecomeVisible,
    StartFollowing,
    Select(Place),
    EnterChunk(Place),
    CommitChunk(Place),
    BeginBatch { events: usize, alone: bool },
    WriteLane(usize),
    SavePosition,
    Forget(usize),
    Look,
    Mend,
    KillAndRestart,
}

pub struct Mover {
    pub scripts: Vec<Script>,
    pub broken: Broken,
    pub crashes: u8,
    pub forgets: u8,
}

impl Mover {
    fn is(&self, broken: Broken) -> bool {
        self.broken == broken
    }

    pub fn script(&self, state: &State) -> &Script {
        &self.scripts[usize::from(state.script)]
    }

    /// Everything logged is applied and everything copied.
    pub fn quiet(&self, state: &State) -> bool {
        state.started && state.mended && state.batch.is_none() && state.cursor == state.logged && copied(state)
    }

    fn may_read(&self, state: &State, place: Place) -> bool {
        let settled = match self.broken {
            Broken::NoSettleTime => true,
            Broken::NoSettleAfterRestart => state.crashes > 0 || state.visible >= state.settled,
            _ => state.visible >= state.settled,
        };
        let turn = self.script(state).shape.copied_before(place).is_none_or(|parent| state.chunks[parent] == Chunk::In);
        state.started && state.published >= state.ready && settled && turn && state.chunks[place] == Chunk::Waiting
    }

    fn may_enter(&self, state: &State, place: Place) -> bool {
        let Chunk::Read { read_at, .. } = state.chunks[place] else { return false };
        let waited = self.is(Broken::Rule3ChunkTooEarly) || state.published >= read_at;
        let gate = state.batch.as_ref().is_none_or(|batch| !batch.touched.contains(&place));
        waited && (gate || self.is(Broken::Rule5EventsDontWait))
    }

    fn enter(&self, state: &mut State, place: Place) {
        let Chunk::Read { row, seen, read_at } = state.chunks[place].clone() else { return };
        if state.forgotten > seen && !self.is(Broken::Rule4ForgottenUnnoticed) {
            state.chunks[place] = Chunk::Waiting;
            return;
        }
        let deleted = match self.broken {
            Broken::Rule4ForgetsDeletes => false,
            Broken::FilterInsteadOfMemory => {
                let between = usize::from(read_at)..usize::from(state.cursor.max(read_at));
                self.script(state).events[between].iter().any(|event| event.deletes() == Some(place))
            }
            _ => state.deletes.iter().any(|(gone, _)| *gone == place),
        };
        // Also if the SELECT saw it already: that has to be harmless.
        let went = self.script(state).shape.parent(place).is_some_and(|parent| state.parent_went[parent]);
        let orphan = went && !self.is(Broken::ParentsNotRemembered);
        state.chunks[place] = Chunk::Entering { row: row.filter(|_| !deleted), orphan };
    }

    fn commit_chunk(&self, state: &mut State, place: Place) {
        let Chunk::Entering { row, orphan } = state.chunks[place].clone() else { return };
        state.chunks[place] = Chunk::In;
        let Some(row) = row else { return };
        if state.target[place].is_some() {
            if self.is(Broken::Rule2ChunkOverwrites) {
                state.target[place] = Some(row);
            }
            return;
        }
        let brought = match self.script(state).on_delete(place) {
            OnDelete::Cascade if orphan && row.has_parent => None,
            OnDelete::SetNull if orphan => Some(Row { has_parent: false, ..row }),
            _ => Some(row),
        };
        state.target[place] = brought;
        state.collision |= self.is_refused(state, &state.target);
    }

    /// Whether the target's unique indexes don't take these rows.
    fn is_refused(&self, state: &State, rows: &Rows) -> bool {
        (state.mended || self.is(Broken::UniqueBeforeMended)) && collides(rows)
    }

    /// Events that the next batch may take: up to a cascading one, which goes alone.
    fn takeable(&self, state: &State) -> usize {
        let shape = self.script(state).shape;
        let waiting = &self.script(state).events[usize::from(state.cursor)..usize::from(state.logged)];
        match waiting.first() {
            Some(event) if event.cascades(shape).is_some() => 1,
            _ => waiting.iter().take_while(|event| event.cascades(shape).is_none()).count(),
        }
    }

    fn touched(&self, script: &Script, events: &[Event]) -> Vec<Place> {
        if let Some(parent) = events.iter().find_map(|event| event.cascades(script.shape)) {
            return script.shape.reached(parent);
        }
        let mut touched: Vec<Place> =
            events.iter().flat_map(|event| event.before.iter().chain(&event.after)).map(|(place, _)| *place).collect();
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    fn may_begin(&self, state: &State, events: usize) -> bool {
        if self.is(Broken::Rule5EventsDontWait) {
            return true;
        }
        let from = usize::from(state.cursor);
        let script = self.script(state);
        let touched = self.touched(script, &script.events[from..from + events]);
        touched.iter().all(|&place| !matches!(state.chunks[place], Chunk::Entering { .. }))
    }

    fn begin(&self, state: &mut State, count: usize, alone: bool) {
        let from = usize::from(state.cursor);
        let script = self.script(state);
        let events = &script.events[from..from + count];
        let end = state.cursor + u8::try_from(count).unwrap();
        for (at, event) in events.iter().enumerate() {
            if let Some(place) = event.deletes() {
                remember(state, place, u8::try_from(from + at + 1).unwrap());
            }
        }
        let end_position = self.end_position(state, end);
        if let Some(parent) = events[0].cascades(script.shape) {
            // One transaction with its position in it.
            state.parent_went[parent] = true;
            let before = state.target;
            if self.is(Broken::CascadeNotCarried) {
                state.target[parent] = None;
            } else {
                script.delete(&mut state.target, parent);
            }
            for place in script.shape.reached(parent) {
                if before[place].is_some() && state.target[place].is_none() && place != parent {
                    remember(state, place, end);
                    state.parent_went[place] = true;
                }
                if before[place] != state.target[place] {
                    event_on(state, place);
                }
            }
            state.sure = end;
            self.end(state, end, end_position);
            return;
        }
        for place in self.touched(script, events) {
            event_on(state, place);
        }
        let mut last: [Option<Option<Row>>; PLACES] = [None; PLACES];
        for event in events {
            if let Some(place) = event.deletes() {
                last[place] = Some(None);
            }
            if let Some((place, row)) = event.after {
                last[place] = Some(Some(row));
            }
        }
        if self.is(Broken::Rule1DropsEvent) {
            for (place, change) in last.iter_mut().enumerate() {
                if state.chunks[place] != Chunk::In {
                    *change = None;
                }
            }
        }
        let changes: Vec<(Place, Option<Row>)> = (0..PLACES).filter_map(|place| Some((place, last[place]?))).collect();
        let linked = !self.is(Broken::LanesIgnoreUniques) && linked(events);
        let lanes = if alone {
            vec![changes]
        } else {
            let (children, parents): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(place, _)| *place != PARENT);
            let children = if linked { vec![children] } else { children.into_iter().map(|change| vec![change]).collect() };
            children.into_iter().chain([parents]).filter(|lane| !lane.is_empty()).collect()
        };
        if !self.is(Broken::NoIntent) {
            state.intent = state.intent.max(end);
        }
        if self.is(Broken::Rule6PositionBeforeData) {
            state.applied = end_position;
        }
        state.batch = Some(Batch { lanes, touched: self.touched(script, events), end, alone });
    }

    fn end_position(&self, state: &State, end: u8) -> u8 {
        let script = self.script(state);
        let position = script.position(usize::from(end));
        let inside = position < usize::from(end);
        let said = if inside && self.is(Broken::Rule7PositionInsideTransaction) { script.next(position).unwrap() } else { position };
        u8::try_from(said).unwrap()
    }

    fn write_lane(&self, state: &mut State, number: usize) {
        let Some(mut batch) = state.batch.take() else { return };
        let lane = batch.lanes.remove(number);
        let mut rows = state.target;
        for (place, _) in &lane {
            rows[*place] = None;
        }
        for (place, row) in &lane {
            rows[*place] = *row;
        }
        if self.is_refused(state, &rows) {
            if state.applied < state.replay_until {
                // The row in the way is the trace of a later event, which is written again.
                let ours: Vec<(Place, u8)> = lane.iter().filter_map(|(place, row)| Some((*place, (*row)?.unique))).collect();
                for (place, row) in rows.iter_mut().enumerate() {
                    let taken = row.map_or(0, |row| row.unique);
                    if taken != 0 && ours.iter().any(|(ours, unique)| *ours != place && *unique == taken) {
                        *row = None;
                    }
                }
            }
            state.collision |= self.is_refused(state, &rows);
        }
        state.target = rows;
        if batch.alone {
            let position = self.end_position(state, batch.end);
            self.end(state, batch.end, position);
        } else {
            state.batch = Some(batch);
        }
    }

    /// Sets right what a cascade left, if no event came to it: a row that is gone, or refers to nothing any more.
    fn mend(&self, state: &mut State) {
        let Some((ours, _, touched)) = state.mend.take() else { return };
        if touched && !self.is(Broken::MendedOverAnEvent) {
            return;
        }
        state.mended = true;
        match (ours, state.target[LEAF]) {
            (None, Some(_)) => state.target[LEAF] = None,
            (Some(ours), Some(theirs)) if ours.unique == theirs.unique => state.target[LEAF] = Some(ours),
            _ => {}
        }
        // The unique index is built now: tried again while a transaction that was written again is half there.
        state.collision |= state.batch.is_none() && state.applied >= state.replay_until && collides(&state.target);
    }

    fn end(&self, state: &mut State, end: u8, position: u8) {
        state.cursor = end;
        state.applied = position;
        state.published = position;
        if !self.is(Broken::NoIntent) {
            state.intent = state.intent.max(end);
        }
        state.batch = None;
    }
}

/// Whether a unique value that one of the child rows gives up or takes links it to the other, or a key change does.
fn linked(events: &[Event]) -> bool {
    let rekeyed = events.iter().any(|event| matches!((event.before, event.after), (Some((a, _)), Some((b, _))) if a != b));
    let values = |place: Place| -> Vec<u8> {
        let images = events.iter().flat_map(|event| event.before.iter().chain(&event.after));
        images.filter(|(at, row)| *at == place && row.unique != 0).map(|(_, row)| row.unique).collect()
    };
    rekeyed || (1..PLACES).any(|one| (one + 1..PLACES).any(|other| values(one).iter().any(|value| values(other).contains(value))))
}

fn copied(state: &State) -> bool {
    state.chunks.iter().all(|chunk| *chunk == Chunk::In)
}

fn event_on(state: &mut State, place: Place) {
    if let Some((_, _, touched)) = state.mend.as_mut().filter(|_| place == LEAF) {
        *touched = true;
    }
}

fn remember(state: &mut State, place: Place, event: u8) {
    state.deletes.retain(|(gone, _)| *gone != place);
    state.deletes.push((place, event));
}

impl Model for Mover {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        (0..self.scripts.len())
            .map(|script| State {
                script: u16::try_from(script).unwrap(),
                logged: 0,
                visible: 0,
                target: [None; PLACES],
                applied: 0,
                intent: 0,
                sure: 0,
                started: false,
                mended: self.is(Broken::NothingMended) || self.scripts[script].shape == Shape::Siblings,
                cursor: 0,
                published: 0,
                replay_until: 0,
                ready: 0,
                settled: 0,
                batch: None,
                chunks: std::array::from_fn(|place| if self.scripts[script].shape.has(place) { Chunk::Waiting } else { Chunk::In }),
                deletes: Vec::new(),
                forgotten: 0,
                parent_went: [false; PLACES],
                mend: None,
                crashes: 0,
                forgets: 0,
                collision: false,
            })
            .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.collision {
            return;
        }
        if self.script(state).next(usize::from(state.logged)).is_some() {
            actions.push(Action::Commit);
        }
        if state.visible < state.logged {
            actions.push(Action::BecomeVisible);
        }
        if !state.started {
            actions.push(Action::StartFollowing);
            return;
        }
        for place in 0..PLACES {
            if self.may_read(state, place) {
                actions.push(Action::Select(place));
            }
            if self.may_enter(state, place) {
                actions.push(Action::EnterChunk(place));
            }
            if matches!(state.chunks[place], Chunk::Entering { .. }) {
                actions.push(Action::CommitChunk(place));
            }
        }
        match &state.batch {
            None => {
                for events in (1..=self.takeable(state)).filter(|&events| self.may_begin(state, events)) {
                    actions.push(Action::BeginBatch { events, alone: true });
                    actions.push(Action::BeginBatch { events, alone: false });
                }
            }
            Some(batch) => {
                actions.extend((0..batch.lanes.len()).map(Action::WriteLane));
                if batch.lanes.is_empty() {
                    actions.push(Action::SavePosition);
                }
            }
        }
        if state.forgets < self.forgets {
            actions.extend((0..state.deletes.len()).map(Action::Forget));
        }
        if !state.mended && copied(state) {
            match state.mend {
                // For longer than a commit takes to become visible.
                None if state.visible == state.logged => actions.push(Action::Look),
                Some((_, read_at, _))
                    if state.published >= read_at
                        && state.batch.as_ref().is_none_or(|batch| ![LEAF, TWIN].iter().any(|place| batch.touched.contains(place))) =>
                {
                    actions.push(Action::Mend);
                }
                _ => {}
            }
        }
        if state.crashes < self.crashes {
            actions.push(Action::KillAndRestart);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let script = self.script(last);
        match action {
            Action::Commit => state.logged = u8::try_from(script.next(usize::from(last.logged))?).ok()?,
            Action::BecomeVisible => state.visible = u8::try_from(script.next(usize::from(last.visible))?).ok()?,
            Action::StartFollowing => {
                let at = state.logged;
                state = State { started: true, applied: at, intent: at, cursor: at, published: at, settled: at, ready: at, ..state };
            }
            Action::Select(place) => {
                let row = script.after[usize::from(last.visible)][place];
                state.chunks[place] = Chunk::Read { row, seen: last.visible, read_at: last.logged };
            }
            Action::EnterChunk(place) => self.enter(&mut state, place),
            Action::CommitChunk(place) => self.commit_chunk(&mut state, place),
            Action::BeginBatch { events, alone } => self.begin(&mut state, events, alone),
            Action::WriteLane(number) => self.write_lane(&mut state, number),
            Action::SavePosition => {
                let end = last.batch.as_ref()?.end;
                let position = self.end_position(last, end);
                self.end(&mut state, end, position);
            }
            Action::Forget(number) => {
                let (_, event) = state.deletes.remove(number);
                state.forgotten = state.forgotten.max(event);
                state.forgets += 1;
            }
            Action::Look => state.mend = Some((script.after[usize::from(last.visible)][LEAF], last.logged, false)),
            Action::Mend => self.mend(&mut state),
            Action::KillAndRestart => {
                let at = state.applied;
                let sure = if self.is(Broken::RepeatedBeforeCascade) { at } else { state.sure };
                for chunk in &mut state.chunks {
                    if *chunk != Chunk::In {
                        *chunk = Chunk::Waiting;
                    }
                }
                state = State {
                    cursor: at.max(sure),
                    published: at,
                    replay_until: state.intent,
                    ready: state.logged,
                    settled: state.logged,
                    batch: None,
                    deletes: Vec::new(),
                    forgotten: 0,
                    parent_went: [false; PLACES],
                    mend: None,
                    crashes: state.crashes + 1,
                    ..state
                };
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("when all is quiet the target equals the source", |model: &Mover, state: &State| {
                !model.quiet(state) || state.target == model.script(state).after[usize::from(state.logged)]
            }),
            Property::always("no unique value is ever in the way", |_, state: &State| !state.collision),
            Property::always("the saved position never says too much", |model: &Mover, state: &State| {
                // What is copied is somewhere between `applied` and `intent`, row by row, or was made room of.
                let replaying = state.applied < state.replay_until;
                let until = usize::from(state.intent.max(state.cursor).max(state.batch.as_ref().map_or(0, |batch| batch.end)));
                let said = &model.script(state).after[usize::from(state.applied)..=until.max(usize::from(state.applied))];
                replaying
                    || !state.started
                    || (0..PLACES)
                        // Before it is set right the last level may hold what a cascade left.
                        .filter(|at| state.mended || *at != LEAF)
                        .all(|at| state.chunks[at] != Chunk::In || said.iter().any(|rows| rows[at] == state.target[at]))
            }),
            Property::sometimes("it comes to an end after a crash", |model: &Mover, state: &State| state.crashes > 0 && model.quiet(state)),
            Property::sometimes("a row is left out of its chunk", |_, state: &State| {
                state.deletes.iter().any(|(place, _)| matches!(state.chunks[*place], Chunk::Entering { row: None, .. }))
            }),
            Property::sometimes("lanes are written in part", |_, state: &State| {
                state.crashes > 0 && state.applied < state.intent && state.batch.is_none()
            }),
        ]
    }
}
