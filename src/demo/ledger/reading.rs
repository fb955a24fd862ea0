//! Reading a ledger back, also one whose writer was killed in the middle of a line.

use std::collections::HashMap;
use std::path::Path;

use super::{HEADER, LedgerError, Transfer};

/// What became of a transfer that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged.
    Kept,
    /// Rolled back, and the user was told so.
    Refused,
    /// Nobody knows: the answer was lost, or whoever waited for it was killed.
    InDoubt,
}

/// A transfer that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The transfer.
    pub transfer: Transfer,
    /// The server that was asked, `host:port`.
    pub endpoint: String,
    /// When its COMMIT was sent, in microseconds since 1970.
    pub begun_at: i64,
    /// When the outcome was known, likewise.
    pub settled_at: Option<i64>,
    /// The outcome.
    pub outcome: Outcome,
}

/// A ledger as its file has it.
#[derive(Clone, Debug, Default)]
pub struct LedgerReading {
    /// Balances by account when it was opened.
    pub opening: HashMap<u64, i64>,
    /// How many seeded transfers there were then.
    pub earlier_transfers: u64,
    /// Everything begun since, by reference.
    pub entries: HashMap<String, Entry>,
}

impl LedgerReading {
    /// Reads the file.
    ///
    /// # Errors
    /// If it can't be read, is no ledger, or has a line that is neither whole nor cut short by a kill.
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        let text = std::fs::read_to_string(path).map_err(|source| LedgerError::File { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, what)| LedgerError::Line { path: path.to_owned(), line, what })
    }

    /// The longest time between two acknowledgements on different servers, in microseconds: how long no
    /// transfer was acknowledged around the switch. `None` if only one server ever acknowledged.
    #[must_use]
    pub fn gap_between_servers(&self) -> Option<i64> {
        let mut kept: Vec<(i64, &str)> = self
            .entries
            .values()
            .filter(|entry| entry.outcome == Outcome::Kept)
            .filter_map(|entry| Some((entry.settled_at?, entry.endpoint.as_str())))
            .collect();
        kept.sort_unstable();
        kept.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].0 - pair[0].0).max()
    }

    /// How many transfers ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.entries.values().filter(|entry| entry.outcome == outcome).count() as u64
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut reading = LedgerReading::default();
        let mut lines = text.split_inclusive('\n').enumerate().peekable();
        match lines.next() {
            Some((_, first)) if first.trim_end() == HEADER => {}
            _ => return Err((1, format!("does not begin with `{}`", HEADER.replace('\t', " ")))),
        }
        let mut opened = false;
        while let Some((index, line)) = lines.next() {
            let cut_short = match lines.peek() {
                None => !line.ends_with('\n'),
                Some((_, next)) => next.trim_end() == "reopened",
            };
            if cut_short && !line.ends_with('\n') {
                break;
            }
            let fields: Vec<&str> = line.trim_end_matches('\n').split('\t').collect();
            opened |= fields == ["opened"];
            match reading.take(&fields) {
                Some(()) => {}
                None if cut_short => {}
                None => return Err((index + 1, format!("`{}` is no ledger line", line.trim_end()))),
            }
        }
        if opened { Ok(reading) } else { Err((1, "the opening balances are not complete".to_owned())) }
    }

    /// Takes in one line; `None` if it makes no sense.
    fn take(&mut self, fields: &[&str]) -> Option<()> {
        match *fields {
            ["opened" | "reopened"] => {}
            ["earlier", count] => self.earlier_transfers = count.parse().ok()?,
            ["balance", account, balance] => {
                self.opening.insert(account.parse().ok()?, balance.parse().ok()?);
            }
            ["begun", reference, from, to, amount, endpoint, at] => {
                let transfer = Transfer {
                    reference: reference.to_owned(),
                    from_account: from.parse().ok()?,
                    to_account: to.parse().ok()?,
                    amount: amount.parse().ok()?,
                };
                let begun_at = at.parse().ok()?;
                let entry = Entry { transfer, endpoint: endpoint.to_owned(), begun_at, settled_at: None, outcome: Outcome::InDoubt };
                if self.entries.insert(reference.to_owned(), entry).is_some() {
                    return None;
                }
            }
            [outcome @ ("kept" | "refused" | "doubt"), reference, at] => {
                let entry = self.entries.get_mut(reference)?;
                entry.settled_at = Some(at.parse().ok()?);
                entry.outcome = match outcome {
                    "kept" => Outcome::Kept,
                    "refused" => Outcome::Refused,
                    _ => Outcome::InDoubt,
                };
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "dbmove-ledger\t1\nearlier\t3\nbalance\t1\t100\nbalance\t2\t100\nopened\n";

    #[test]
    fn a_transfer_without_an_outcome_is_in_doubt() {
        let text = format!(
            "{START}begun\ta\t1\t2\t5\tone:1\t10\nbegun\tb\t1\t2\t5\tone:1\t11\nkept\ta\t12\nbegun\tc\t2\t1\t1\ttwo:2\t20\nkept\tc\t30\n"
        );
        let reading = LedgerReading::parse(&text).unwrap();
        assert_eq!((reading.count(Outcome::Kept), reading.count(Outcome::InDoubt)), (2, 1));
        assert_eq!(reading.gap_between_servers(), Some(18));
        assert_eq!(reading.earlier_transfers, 3);
    }

    #[test]
    fn a_line_cut_short_by_a_kill_was_never_written() {
        for text in
            [format!("{START}begun\ta\t1\t2\t5\tone:1\t10\nkept\ta\t1"), format!("{START}begun\ta\t1\t2\t5\tone:1\t10\nkept\nreopened\n")]
        {
            let reading = LedgerReading::parse(&text).unwrap();
            assert_eq!(reading.count(Outcome::InDoubt), 1, "{text}");
        }
    }

    #[test]
    fn nonsense_in_the_middle_is_an_error_with_its_line() {
        let (line, what) = LedgerReading::parse(&format!("{START}kept\tnever-begun\t1\nbegun\ta\t1\t2\t5\tone:1\t10\n")).unwrap_err();
        assert_eq!(line, 6);
        assert!(what.contains("never-begun"), "{what}");
        assert!(LedgerReading::parse("something else\n").is_err());
        assert!(LedgerReading::parse("dbmove-ledger\t1\nbalance\t1\t5\n").is_err());
    }
}
