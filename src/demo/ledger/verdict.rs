//! Whether a server keeps what the ledger promised.

use std::collections::HashMap;
use std::path::Path;

use mysql_async::Conn;
use serde::Serialize;

use super::{Bank, LedgerError, LedgerReading, Outcome, Transfer, expected_balances};

/// How many findings are told in words.
const NOTES_KEPT: usize = 20;

/// A server held against the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerVerdict {
    /// Transfers whose COMMIT was answered OK.
    pub acknowledged: u64,
    /// Of those: not on the server.
    pub lost: u64,
    /// Attempted transfers of any outcome that are there more than once.
    pub doubled: u64,
    /// Attempted transfers that are there with other accounts or another amount.
    pub altered: u64,
    /// Answer lost, and the transfer is there.
    pub in_doubt_present: u64,
    /// Answer lost, and it is not there.
    pub in_doubt_absent: u64,
    /// Users were told it was rolled back, and it is there all the same.
    pub refused_present: u64,
    /// On the server, but never attempted.
    pub foreign: u64,
    /// Transfers of before the ledger was opened that are gone, or are there too often.
    pub earlier_missing_or_extra: u64,
    /// Accounts whose balance is not what they had plus the transfers that are there.
    pub wrong_balances: u64,
    /// Sum of all balances when the ledger was opened.
    pub sum_before: i128,
    /// Sum of all balances now.
    pub sum_after: i128,
    /// The first findings, in words.
    pub notes: Vec<String>,
}

impl LedgerVerdict {
    /// Whether every promise was kept. Transfers in doubt may be there or not.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let Self {
            lost, doubled, altered, refused_present, foreign, earlier_missing_or_extra, wrong_balances, sum_before, sum_after, ..
        } = self;
        [lost, doubled, altered, refused_present, foreign, earlier_missing_or_extra, wrong_balances].into_iter().all(|count| *count == 0)
            && sum_before == sum_after
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.notes.len() < NOTES_KEPT {
            self.notes.push(text());
        }
    }
}

/// Holds the server behind `conn` against the ledger in the file. The ledger is read first: transfers begun
/// after that would be taken for foreign, so the bank's writers must have ended.
///
/// # Errors
/// If the ledger or the server can't be read.
pub async fn check(ledger: &Path, conn: &mut Conn, database: &str) -> Result<LedgerVerdict, LedgerError> {
    let reading = LedgerReading::read(ledger)?;
    let Bank { balances, earlier, live } = Bank::read(conn, database).await?;
    Ok(judge(&reading, &balances, earlier, live))
}

fn judge(reading: &LedgerReading, balances: &HashMap<u64, i64>, earlier: u64, present: Vec<Transfer>) -> LedgerVerdict {
    let mut verdict = LedgerVerdict {
        acknowledged: reading.count(Outcome::Kept),
        earlier_missing_or_extra: reading.earlier_transfers.abs_diff(earlier),
        sum_before: reading.opening.values().map(|balance| i128::from(*balance)).sum(),
        sum_after: balances.values().map(|balance| i128::from(*balance)).sum(),
        ..LedgerVerdict::default()
    };
    let mut found: HashMap<&str, u64> = HashMap::new();
    for transfer in &present {
        match reading.entries.get(&transfer.reference) {
            None => {
                verdict.foreign += 1;
                verdict.note(|| format!("transfer `{}` was never attempted", transfer.reference));
            }
            Some(entry) if entry.transfer != *transfer => {
                verdict.altered += 1;
                verdict.note(|| format!("transfer `{}` was {:?} and is {:?}", transfer.reference, entry.transfer, transfer));
            }
            Some(_) => {}
        }
        *found.entry(&transfer.reference).or_default() += 1;
    }
    for (reference, entry) in &reading.entries {
        let times = found.get(reference.as_str()).copied().unwrap_or(0);
        match (entry.outcome, times) {
            (Outcome::Kept, 0) => {
                verdict.lost += 1;
                verdict.note(|| format!("transfer `{reference}`, acknowledged by {}, is lost", entry.endpoint));
            }
            (Outcome::Refused, 1..) => {
                verdict.refused_present += 1;
                verdict.note(|| format!("transfer `{reference}` was refused and is there"));
            }
            (Outcome::InDoubt, 0) => verdict.in_doubt_absent += 1,
            (Outcome::InDoubt, _) => verdict.in_doubt_present += 1,
            (Outcome::Kept, _) | (Outcome::Refused, 0) => {}
        }
        if times > 1 {
            verdict.doubled += 1;
            verdict.note(|| format!("transfer `{reference}` is there {times} times"));
        }
    }
    let expected = expected_balances(&reading.opening, present);
    let accounts: std::collections::BTreeSet<&u64> = expected.keys().chain(balances.keys()).collect();
    for account in accounts {
        let (should, is) = (expected.get(account), balances.get(account));
        if should != is {
            verdict.wrong_balances += 1;
            verdict.note(|| format!("account {account} holds {is:?}, and its transfers make {should:?}"));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;

    fn transfer(reference: &str, amount: i64) -> Transfer {
        Transfer { reference: reference.to_owned(), from_account: 1, to_account: 2, amount }
    }

    fn reading(entries: &[(&str, Outcome)]) -> LedgerReading {
        let entry = |outcome: Outcome, reference: &str| Entry {
            transfer: transfer(reference, 10),
            endpoint: "one:1".to_owned(),
            begun_at: 0,
            settled_at: None,
            outcome,
        };
        LedgerReading {
            opening: HashMap::from([(1, 100), (2, 100)]),
            earlier_transfers: 4,
            entries: entries.iter().map(|(reference, outcome)| ((*reference).to_owned(), entry(*outcome, reference))).collect(),
        }
    }

    fn balances(first: i64, second: i64) -> HashMap<u64, i64> {
        HashMap::from([(1, first), (2, second)])
    }

    #[test]
    fn kept_once_is_clean_and_doubt_may_go_either_way() {
        let book = reading(&[("a", Outcome::Kept), ("b", Outcome::InDoubt), ("c", Outcome::InDoubt), ("d", Outcome::Refused)]);
        let verdict = judge(&book, &balances(80, 120), 4, vec![transfer("a", 10), transfer("b", 10)]);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.acknowledged, verdict.in_doubt_present, verdict.in_doubt_absent), (1, 1, 1));
    }

    #[test]
    fn each_broken_promise_is_seen() {
        let book = reading(&[("a", Outcome::Kept)]);
        let judged = |first, second, earlier, present| judge(&book, &balances(first, second), earlier, present);
        assert_eq!(judged(100, 100, 4, vec![]).lost, 1);
        assert_eq!(judged(80, 120, 4, vec![transfer("a", 10), transfer("a", 10)]).doubled, 1);
        assert_eq!(judged(89, 111, 4, vec![transfer("a", 11)]).altered, 1);
        assert_eq!(judged(80, 120, 4, vec![transfer("a", 10), transfer("x", 10)]).foreign, 1);
        assert_eq!(judged(90, 110, 3, vec![transfer("a", 10)]).earlier_missing_or_extra, 1);
        let twice_applied = judged(80, 120, 4, vec![transfer("a", 10)]);
        assert_eq!((twice_applied.wrong_balances, twice_applied.is_clean()), (2, false));
        let leaked = judged(90, 111, 4, vec![transfer("a", 10)]);
        assert_eq!((leaked.sum_before, leaked.sum_after, leaked.is_clean()), (200, 201, false));
        let refused = judge(&reading(&[("r", Outcome::Refused)]), &balances(90, 110), 4, vec![transfer("r", 10)]);
        assert_eq!(refused.refused_present, 1);
    }
}
