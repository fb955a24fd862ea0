//! The source of the model: rows that refer to each other, and scripts of transactions on them.
//!
//! They come in three shapes: a parent with two children that hold a unique value, three levels of one row each, and three
//! levels with a second row in the last table, which refers to nothing and may hold the unique value of the first.
//!
//! A script fixes *what* happens; the checker explores *when*. Its log is made once: events with full images, and for each
//! event what the source holds behind it. Cascades change rows and are in no event, as in InnoDB.

/// A row's place: 0 is the parent table's one key; 1 and 2 are the child table's keys, or the next two levels; 3 is the last level's
/// second row, where there is one.
pub type Place = usize;

pub const PARENT: Place = 0;
/// The last level.
pub const LEAF: Place = 2;
/// The second row of the last level.
pub const TWIN: Place = 3;
pub const PLACES: usize = 4;

/// Who refers to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 1 and 2 refer to 0.
    Siblings,
    /// 2 refers to 1, and 1 to 0.
    Levels,
    /// The same, and 3 is in the table of 2.
    Twins,
}

impl Shape {
    pub fn parent(self, place: Place) -> Option<Place> {
        match (self, place) {
            (_, PARENT | TWIN) => None,
            (Shape::Siblings, _) => Some(PARENT),
            (Shape::Levels | Shape::Twins, _) => Some(place - 1),
        }
    }

    /// Whether there may ever be a row.
    pub fn has(self, place: Place) -> bool {
        place != TWIN || self == Shape::Twins
    }

    /// The place that is copied before this one.
    pub fn copied_before(self, place: Place) -> Option<Place> {
        if place == TWIN { self.parent(LEAF) } else { self.parent(place) }
    }

    pub fn children(self, place: Place) -> impl Iterator<Item = Place> {
        (0..PLACES).filter(move |&child| self.parent(child) == Some(place))
    }

    /// The place and all below it.
    pub fn reached(self, place: Place) -> Vec<Place> {
        let mut reached = vec![place];
        let mut at = 0;
        while at < reached.len() {
            reached.extend(self.children(reached[at]));
            at += 1;
        }
        reached
    }
}

/// A row. `unique` is 0 for NULL; the parent row uses neither value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub unique: u8,
    pub has_parent: bool,
}

pub type Rows = [Option<Row>; PLACES];

/// What the foreign key does when the parent row is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnDelete {
    Cascade,
    SetNull,
}

/// A row event: the images before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub before: Option<(Place, Row)>,
    pub after: Option<(Place, Row)>,
    /// The last one of its transaction: behind it is a position.
    pub ends: bool,
}

impl Event {
    /// The parent that this event takes away.
    pub fn cascades(&self, shape: Shape) -> Option<Place> {
        match (self.before, self.after) {
            (Some((place, _)), None) if shape.children(place).next().is_some() => Some(place),
            _ => None,
        }
    }

    /// The place whose row this event takes away.
    pub fn deletes(&self) -> Option<Place> {
        let (before, _) = self.before?;
        (self.after.map(|(after, _)| after) != Some(before)).then_some(before)
    }
}

/// A statement of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    Insert(Place, Row),
    Unique(Place, u8),
    Delete(Place),
    Rekey(Place, Place),
}

/// A script with its log.
#[derive(Clone, Debug)]
pub struct Script {
    pub words: Vec<Vec<Statement>>,
    pub shape: Shape,
    /// What the foreign keys to the parents of the last rows do. Of three levels the first always cascades.
    pub on_delete: OnDelete,
    pub events: Vec<Event>,
    /// What the source holds behind so many events.
    pub after: Vec<Rows>,
}

/// Whether two rows hold one unique value.
pub fn collides(rows: &Rows) -> bool {
    let value = |place: Place| rows[place].map(|row| row.unique).filter(|unique| *unique != 0);
    (0..PLACES).any(|one| value(one).is_some() && (one + 1..PLACES).any(|other| value(one) == value(other)))
}

impl Script {
    /// `None` if the source would refuse a statement.
    pub fn new(shape: Shape, first: Rows, words: &[Vec<Statement>], on_delete: OnDelete) -> Option<Script> {
        let mut rows = first;
        let mut script = Script { words: words.to_vec(), shape, on_delete, events: Vec::new(), after: vec![rows] };
        for transaction in words {
            for (number, statement) in transaction.iter().enumerate() {
                let mut event = Event { before: None, after: None, ends: number + 1 == transaction.len() };
                match *statement {
                    Statement::Insert(place, row) => {
                        let parent = shape.parent(place).map_or(Some(row), |parent| rows[parent]);
                        if rows[place].is_some() || (row.has_parent && parent.is_none()) {
                            return None;
                        }
                        event.after = Some((place, row));
                        rows[place] = Some(row);
                    }
                    Statement::Unique(place, unique) => {
                        let before = rows[place].filter(|row| row.unique != unique)?;
                        let after = Row { unique, ..before };
                        event = Event { before: Some((place, before)), after: Some((place, after)), ..event };
                        rows[place] = Some(after);
                    }
                    Statement::Delete(place) => {
                        event.before = Some((place, rows[place]?));
                        script.delete(&mut rows, place);
                    }
                    Statement::Rekey(from, to) => {
                        let row = rows[from].filter(|_| rows[to].is_none())?;
                        event = Event { before: Some((from, row)), after: Some((to, row)), ..event };
                        rows[from] = None;
                        rows[to] = Some(row);
                    }
                }
                if collides(&rows) {
                    return None;
                }
                script.events.push(event);
                script.after.push(rows);
            }
        }
        Some(script)
    }

    /// What a foreign key does to a row whose parent goes.
    pub fn on_delete(&self, place: Place) -> OnDelete {
        if self.shape != Shape::Siblings && place != LEAF { OnDelete::Cascade } else { self.on_delete }
    }

    /// Deletes a row and what it takes with it.
    pub fn delete(&self, rows: &mut Rows, place: Place) {
        rows[place] = None;
        for child in self.shape.children(place) {
            match (rows[child], self.on_delete(child)) {
                (Some(row), OnDelete::SetNull) => rows[child] = Some(Row { has_parent: false, ..row }),
                (Some(row), OnDelete::Cascade) if row.has_parent => self.delete(rows, child),
                _ => {}
            }
        }
    }

    /// The last transaction end at or before so many events.
    pub fn position(&self, events: usize) -> usize {
        (0..=events).rev().find(|&at| at == 0 || self.events[at - 1].ends).unwrap_or(0)
    }

    /// The end of the transaction behind a position.
    pub fn next(&self, position: usize) -> Option<usize> {
        (position + 1..=self.events.len()).find(|&at| self.events[at - 1].ends)
    }
}

/// What a transaction may do to a parent and two children.
fn on_siblings() -> Vec<Vec<Statement>> {
    use Statement::{Delete, Insert, Rekey, Unique};
    let row = |unique, has_parent| Row { unique, has_parent };
    vec![
        vec![Delete(PARENT)],
        vec![Insert(PARENT, row(0, false))],
        vec![Delete(1)],
        vec![Insert(1, row(1, true))],
        vec![Insert(1, row(2, false))],
        vec![Unique(1, 2)],
        vec![Unique(1, 0)],
        vec![Unique(2, 1)],
        vec![Insert(2, row(1, true))],
        vec![Rekey(1, 2)],
        // The unique values of two rows swapped.
        vec![Unique(1, 0), Unique(2, 1), Unique(1, 2)],
        // A key given up and used again, the value passed on.
        vec![Delete(1), Unique(2, 1), Insert(1, row(0, false))],
    ]
}

/// What a transaction may do to three levels. Values are no matter here, so none is unique.
fn on_levels() -> Vec<Vec<Statement>> {
    use Statement::{Delete, Insert, Unique};
    let row = |has_parent| Row { unique: 0, has_parent };
    vec![
        vec![Delete(PARENT)],
        vec![Insert(PARENT, row(false))],
        vec![Delete(1)],
        vec![Insert(1, row(true))],
        vec![Insert(1, row(false))],
        vec![Delete(LEAF)],
        vec![Insert(LEAF, row(true))],
        vec![Insert(LEAF, row(false))],
        vec![Unique(LEAF, 2)],
        // A row of the last level, and then the first is taken away.
        vec![Insert(LEAF, row(true)), Delete(PARENT), Insert(PARENT, row(false))],
        vec![Unique(LEAF, 1), Delete(1), Insert(1, row(false))],
        // All of it goes and comes again.
        vec![Delete(PARENT), Insert(PARENT, row(false)), Insert(1, row(true)), Insert(LEAF, row(true))],
    ]
}

/// What a transaction may do to three levels whose last has two rows: the second may get the value of the first.
fn on_twins() -> Vec<Vec<Statement>> {
    use Statement::{Delete, Insert, Unique};
    let row = |unique, has_parent| Row { unique, has_parent };
    vec![
        vec![Delete(PARENT)],
        vec![Insert(PARENT, row(0, false))],
        vec![Delete(1)],
        vec![Insert(LEAF, row(1, false))],
        vec![Unique(LEAF, 1)],
        vec![Unique(LEAF, 0), Unique(TWIN, 1)],
        vec![Unique(TWIN, 1)],
        vec![Insert(TWIN, row(1, false))],
        vec![Delete(TWIN)],
        // The last level's row is touched, then the first is taken away, and the value goes to the other.
        vec![Unique(LEAF, 1), Delete(PARENT), Unique(TWIN, 1)],
        vec![Unique(LEAF, 0), Unique(TWIN, 1), Unique(LEAF, 2)],
    ]
}

/// Every script of `length` transactions that the source accepts, from each first state.
pub fn scripts(shape: Shape, length: usize) -> Vec<Script> {
    let some = |unique, has_parent| Some(Row { unique, has_parent });
    let parent = some(0, false);
    let (all, firsts) = match shape {
        Shape::Siblings => (on_siblings(), [[parent, some(1, true), some(2, false), None], [parent, some(1, true), None, None]]),
        Shape::Levels => (on_levels(), [[parent, some(0, true), some(0, true), None], [parent, some(0, true), None, None]]),
        Shape::Twins => {
            (on_twins(), [[parent, some(0, true), some(1, true), some(2, false)], [parent, some(0, true), some(0, true), None]])
        }
    };
    let mut found = Vec::new();
    for first in firsts {
        for number in 0..all.len().pow(u32::try_from(length).unwrap()) {
            let words: Vec<_> = (0..length).map(|at| all[number / all.len().pow(u32::try_from(at).unwrap()) % all.len()].clone()).collect();
            let parent_dies =
                words.iter().flatten().any(|word| matches!(word, Statement::Delete(place) if shape.children(*place).next().is_some()));
            found.extend(Script::new(shape, first, &words, OnDelete::Cascade));
            if parent_dies {
                found.extend(Script::new(shape, first, &words, OnDelete::SetNull));
            }
        }
    }
    found
}
