//! Two-phase (XA) transactions in the log.
//!
//! MySQL 5.1 to 5.6 log such a transaction when it is committed, like any other. MariaDB (since 10.5) and MySQL (since 5.7)
//! log it when it is *prepared*: its rows come then, and whether they count is known from a later `XA COMMIT` or
//! `XA ROLLBACK`, other transactions may stand between. So:
//!
//! * The rows of a prepared transaction are held here until its end. They are applied at the place of its commit, which is
//!   when the source made them visible.
//! * While one is held no position behind its beginning may be saved, or its rows would be lost with the process. Reading
//!   again from there is harmless: what came between is applied again.
//! * Held rows are limited by the caller; a transaction that is too large to be held stops the run.

use std::collections::BTreeMap;

use super::Rows;
use crate::mysql::position::Position;

/// What names a two-phase transaction: its two parts and their format.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xid {
    format: u32,
    transaction: Vec<u8>,
    branch: Vec<u8>,
}

impl std::fmt::Display for Xid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "X'{}',X'{}',{}", hex::encode(&self.transaction), hex::encode(&self.branch), self.format)
    }
}

/// A statement of a two-phase transaction, as servers log it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XaStatement {
    /// Rows of it follow.
    Start,
    /// Its rows are complete.
    End,
    /// It counts.
    Commit(Xid),
    /// It does not.
    Rollback(Xid),
}

/// Reads `XA verb X'…',X'…',number`.
#[must_use]
pub fn statement(text: &str) -> Option<XaStatement> {
    let mut words = text.split_ascii_whitespace();
    words.next().filter(|word| word.eq_ignore_ascii_case("XA"))?;
    let verb = words.next()?.to_ascii_uppercase();
    let mut parts = words.next()?.split(',');
    let part = |text: &str| hex::decode(text.strip_prefix("X'")?.strip_suffix('\'')?).ok();
    let transaction = part(parts.next()?)?;
    let branch = part(parts.next()?)?;
    let xid = Xid { format: parts.next()?.parse().ok()?, transaction, branch };
    match verb.as_str() {
        "START" | "BEGIN" => Some(XaStatement::Start),
        "END" => Some(XaStatement::End),
        "COMMIT" => Some(XaStatement::Commit(xid)),
        "ROLLBACK" => Some(XaStatement::Rollback(xid)),
        _ => None,
    }
}

/// Reads the event that ends a transaction's first phase: its name, and whether it is committed with that already.
#[must_use]
pub fn prepared(body: &[u8]) -> Option<(Xid, bool)> {
    let number = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let one_phase = *body.first()? != 0;
    let (format, length, branch_length) = (number(1)?, number(5)? as usize, number(9)? as usize);
    let transaction = body.get(13..13usize.checked_add(length)?)?.to_vec();
    let branch = body.get(13 + length..(13 + length).checked_add(branch_length)?)?.to_vec();
    Some((Xid { format, transaction, branch }, one_phase))
}

/// Transactions between their two phases.
#[derive(Debug, Default)]
pub struct Prepared {
    held: BTreeMap<Xid, Held>,
}

#[derive(Debug)]
struct Held {
    rows: Vec<Rows>,
    /// Where it began: reading from here finds it again.
    begin: Position,
}

impl Prepared {
    /// Holds a transaction's rows.
    pub fn hold(&mut self, xid: Xid, rows: Vec<Rows>, begin: Position) {
        self.held.insert(xid, Held { rows, begin });
    }

    /// Its rows, when it is committed: they count from `end` on.
    pub fn committed(&mut self, xid: &Xid, end: &Position) -> Option<Vec<Rows>> {
        let mut rows = self.held.remove(xid)?.rows;
        rows.iter_mut().for_each(|rows| rows.end = end.clone());
        Some(rows)
    }

    /// Forgets one that was rolled back.
    pub fn rolled_back(&mut self, xid: &Xid) {
        self.held.remove(xid);
    }

    /// Where the oldest began: no later position may be saved.
    #[must_use]
    pub fn oldest(&self) -> Option<(&Xid, &Position)> {
        self.held.iter().map(|(xid, held)| (xid, &held.begin)).min_by(|one, other| one.1.cmp(other.1))
    }

    /// Memory held, roughly, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.held.values().flat_map(|held| &held.rows).map(|rows| rows.weight).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xid(name: &str) -> Xid {
        Xid { format: 1, transaction: name.as_bytes().to_vec(), branch: Vec::new() }
    }

    #[test]
    fn statements_and_the_event_name_the_same_transaction() {
        assert_eq!(statement("XA END X'6f6e65',X'',1"), Some(XaStatement::End));
        assert_eq!(statement("XA COMMIT X'6f6e65',X'',1"), Some(XaStatement::Commit(xid("one"))));
        let two = Xid { format: 7, transaction: b"two".to_vec(), branch: b"b".to_vec() };
        assert_eq!(statement("XA ROLLBACK X'74776f',X'62',7"), Some(XaStatement::Rollback(two.clone())));
        assert_eq!(statement("XA COMMIT 'one'"), None);
        let body = hex::decode("0007000000030000000100000074776f62").unwrap();
        assert_eq!(prepared(&body), Some((two, false)));
        for cut in 0..body.len() {
            assert_eq!(prepared(&body[..cut]), None);
        }
    }

    #[test]
    fn rows_count_from_the_commit_on_and_the_oldest_holds_positions_back() {
        let rows =
            |end: u64| Rows { table: 1, emptied: None, changes: Vec::new(), end: Position::new("b.1", end), weight: 5, permit: None };
        let mut prepared = Prepared::default();
        prepared.hold(xid("one"), vec![rows(20)], Position::new("b.1", 10));
        prepared.hold(xid("a"), vec![rows(40)], Position::new("b.1", 30));
        assert_eq!(prepared.oldest().unwrap().1.offset, 10);
        assert_eq!(prepared.weight(), 10);
        let committed = prepared.committed(&xid("one"), &Position::new("b.1", 60)).unwrap();
        assert_eq!(committed[0].end.offset, 60);
        assert_eq!(prepared.oldest().unwrap().1.offset, 30);
        prepared.rolled_back(&xid("a"));
        assert!(prepared.oldest().is_none());
        assert!(prepared.committed(&xid("one"), &Position::new("b.1", 70)).is_none());
    }
}
