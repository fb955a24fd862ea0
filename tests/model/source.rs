//! The source of the model: a parent row, two child rows with a unique value, and scripts of transactions on them.
//!
//! A script fixes *what* happens; the checker explores *when*. Its log is made once: events with full images, and for each
//! event what the source holds behind it. Cascades change rows and are in no event, as in InnoDB.

/// A row's place: 0 is the parent table's one key, 1 and 2 are the child table's keys.
pub type Place = usize;

pub const PARENT: Place = 0;
pub const PLACES: usize = 3;

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
    pub fn cascades(&self) -> bool {
        matches!((self.before, self.after), (Some((PARENT, _)), None))
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
    pub on_delete: OnDelete,
    pub events: Vec<Event>,
    /// What the source holds behind so many events.
    pub after: Vec<Rows>,
}

/// Deletes the parent and what it takes with it.
pub fn cascade(rows: &mut Rows, on_delete: OnDelete) {
    rows[PARENT] = None;
    for row in &mut rows[1..] {
        match (row.as_mut(), on_delete) {
            (Some(child), OnDelete::SetNull) => child.has_parent = false,
            (Some(child), OnDelete::Cascade) if child.has_parent => *row = None,
            _ => {}
        }
    }
}

/// Whether two rows hold one unique value.
pub fn collides(rows: &Rows) -> bool {
    matches!((rows[1], rows[2]), (Some(a), Some(b)) if a.unique != 0 && a.unique == b.unique)
}

impl Script {
    /// `None` if the source would refuse a statement.
    pub fn new(first: Rows, words: &[Vec<Statement>], on_delete: OnDelete) -> Option<Script> {
        let mut rows = first;
        let mut script = Script { words: words.to_vec(), on_delete, events: Vec::new(), after: vec![rows] };
        for transaction in words {
            for (number, statement) in transaction.iter().enumerate() {
                let mut event = Event { before: None, after: None, ends: number + 1 == transaction.len() };
                match *statement {
                    Statement::Insert(place, row) => {
                        if rows[place].is_some() || (row.has_parent && rows[PARENT].is_none()) {
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
                        rows[place] = None;
                        if place == PARENT {
                            cascade(&mut rows, on_delete);
                        }
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

    /// The last transaction end at or before so many events.
    pub fn position(&self, events: usize) -> usize {
        (0..=events).rev().find(|&at| at == 0 || self.events[at - 1].ends).unwrap_or(0)
    }

    /// The end of the transaction behind a position.
    pub fn next(&self, position: usize) -> Option<usize> {
        (position + 1..=self.events.len()).find(|&at| self.events[at - 1].ends)
    }
}

/// What a transaction may do.
fn transactions() -> Vec<Vec<Statement>> {
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

/// Every script of `length` transactions that the source accepts, from each first state.
pub fn scripts(length: usize) -> Vec<Script> {
    let some = |unique, has_parent| Some(Row { unique, has_parent });
    let firsts = [[some(0, false), some(1, true), some(2, false)], [some(0, false), some(1, true), None]];
    let all = transactions();
    let mut found = Vec::new();
    for first in firsts {
        for number in 0..all.len().pow(u32::try_from(length).unwrap()) {
            let words: Vec<_> = (0..length).map(|at| all[number / all.len().pow(u32::try_from(at).unwrap()) % all.len()].clone()).collect();
            let parent_dies = words.iter().any(|words| words.contains(&Statement::Delete(PARENT)));
            found.extend(Script::new(first, &words, OnDelete::Cascade));
            if parent_dies {
                found.extend(Script::new(first, &words, OnDelete::SetNull));
            }
        }
    }
    found
}
