//! The changes of the transaction that is being read, until its end is seen.
//!
//! A ROLLBACK (whole, or to a savepoint) takes back what transactional tables got since, and leaves
//! what non-transactional tables got: those keep their rows on the source too.

use super::Rows;

/// Changes since BEGIN.
#[derive(Debug, Default)]
pub struct Transaction {
    open: bool,
    rows: Vec<(Rows, bool)>,
    savepoints: Vec<(String, usize)>,
    weight: usize,
    handed_on: bool,
}

/// A rollback that can't be followed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOnAlready;

impl Transaction {
    /// Between BEGIN and the end.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// BEGIN.
    pub fn begin(&mut self) {
        *self = Transaction { open: true, ..Transaction::default() };
    }

    /// Memory held, roughly, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Adds an event's changes; `transactional` tells whether a ROLLBACK takes them back.
    pub fn add(&mut self, rows: Rows, transactional: bool) {
        self.weight += rows.weight;
        self.rows.push((rows, transactional));
    }

    /// SAVEPOINT: a later one of the same name replaces it.
    pub fn savepoint(&mut self, name: String) {
        self.savepoints.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
        self.savepoints.push((name, self.rows.len()));
    }

    /// ROLLBACK TO. An unknown name means the savepoint is older than anything held.
    ///
    /// # Errors
    /// If changes that it takes back were handed on.
    pub fn rollback_to(&mut self, name: &str) -> Result<(), HandedOnAlready> {
        let from = self.savepoints.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, from)| *from);
        match from {
            Some(from) => self.take_back(from),
            None if self.handed_on => return Err(HandedOnAlready),
            None => self.take_back(0),
        }
        Ok(())
    }

    /// ROLLBACK: what is left of the transaction counts.
    ///
    /// # Errors
    /// If changes that it takes back were handed on.
    pub fn rollback(&mut self) -> Result<Vec<Rows>, HandedOnAlready> {
        if self.handed_on {
            return Err(HandedOnAlready);
        }
        self.take_back(0);
        Ok(self.end())
    }

    /// COMMIT: everything counts.
    pub fn end(&mut self) -> Vec<Rows> {
        let rows = std::mem::take(&mut self.rows);
        *self = Transaction::default();
        rows.into_iter().map(|(rows, _)| rows).collect()
    }

    /// Gives away what is held before the end is known, because it is too much to hold.
    pub fn hand_on(&mut self) -> Vec<Rows> {
        self.handed_on = true;
        self.weight = 0;
        self.savepoints.clear();
        std::mem::take(&mut self.rows).into_iter().map(|(rows, _)| rows).collect()
    }

    fn take_back(&mut self, from: usize) {
        let later = self.rows.split_off(from.min(self.rows.len()));
        self.rows.extend(later.into_iter().filter(|(_, transactional)| !transactional));
        self.weight = self.rows.iter().map(|(rows, _)| rows.weight).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::position::Position;

    fn rows(table: usize) -> Rows {
        Rows { table, emptied: None, changes: Vec::new(), end: Position::new("b.1", 4), weight: 10, permit: None }
    }

    fn tables(rows: &[Rows]) -> Vec<usize> {
        rows.iter().map(|rows| rows.table).collect()
    }

    #[test]
    fn a_rollback_keeps_what_non_transactional_tables_got() {
        let mut transaction = Transaction::default();
        transaction.begin();
        transaction.add(rows(1), true);
        transaction.add(rows(2), false);
        assert_eq!(tables(&transaction.rollback().unwrap()), vec![2]);
        assert!(!transaction.is_open());
    }

    #[test]
    fn a_rollback_to_a_savepoint_keeps_what_came_before() {
        let mut transaction = Transaction::default();
        transaction.begin();
        transaction.add(rows(1), true);
        transaction.savepoint("a".into());
        transaction.add(rows(2), true);
        transaction.rollback_to("A").unwrap();
        transaction.add(rows(3), true);
        assert_eq!(transaction.weight(), 20);
        assert_eq!(tables(&transaction.end()), vec![1, 3]);
    }

    #[test]
    fn what_was_handed_on_can_not_be_taken_back() {
        let mut transaction = Transaction::default();
        transaction.begin();
        transaction.add(rows(1), true);
        assert_eq!(tables(&transaction.hand_on()), vec![1]);
        transaction.savepoint("later".into());
        transaction.add(rows(2), true);
        assert_eq!(transaction.rollback_to("earlier"), Err(HandedOnAlready));
        transaction.rollback_to("later").unwrap();
        assert_eq!(transaction.rollback().unwrap_err(), HandedOnAlready);
    }
}
