//! The bank: transfers between two accounts, each promised to a user by the answer to its COMMIT.
//!
//! A transfer locks both accounts in the order of their ids, moves the money, writes the transfer's row
//! and commits, all under the default isolation. The ledger hears of it *before* COMMIT is sent and
//! of the answer after it. Only three answers mean "rolled back" for sure: lock wait timeout,
//! deadlock, and `read_only` (a 5.5 server checks it at COMMIT and rolls back). Anything else that is
//! not OK leaves the transfer in doubt, as it does for a real bank.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::dice::Dice;
use super::ledger::{Ledger, LedgerError, Transfer};
use super::writers::Record;

/// Lock wait timeout, deadlock, `read_only`: answers to COMMIT that mean it was rolled back.
const ROLLED_BACK: [u16; 3] = [1205, 1213, 1290];

/// The most a transfer moves, in cents.
const LARGEST_AMOUNT: u64 = 200;

/// Why something a user asked for did not happen.
#[derive(Debug, thiserror::Error)]
pub(super) enum BankError {
    /// The server, or the way to it.
    #[error(transparent)]
    Server(#[from] mysql_async::Error),
    /// The ledger: nothing may be promised any more.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// One bank writer: makes references that no other has, and books what it does.
#[derive(Debug)]
pub(super) struct Teller {
    era: u32,
    number: usize,
    sequence: u64,
    accounts: u64,
    ledger: Arc<Ledger>,
}

impl Teller {
    /// `era` tells this process' references from those of earlier ones.
    pub(super) fn new(era: u32, number: usize, accounts: u64, ledger: Arc<Ledger>) -> Self {
        // References that begin with zeros are the seeded ones'.
        Teller { era: era.max(1), number, sequence: 0, accounts, ledger }
    }

    fn next(&mut self, dice: &mut Dice) -> Transfer {
        self.sequence += 1;
        let from_account = dice.id(self.accounts);
        let to_account = (from_account + dice.below(self.accounts - 1)) % self.accounts + 1;
        let reference = format!("{:08x}-{:04x}-4000-8000-{:012x}", self.era, self.number & 0xffff, self.sequence & 0xffff_ffff_ffff);
        let amount = i64::try_from(dice.id(LARGEST_AMOUNT)).unwrap_or(1);
        Transfer { reference, from_account, to_account, amount }
    }
}

/// Does one transfer on the server at `endpoint`.
pub(super) async fn transfer(
    conn: &mut Conn,
    endpoint: &str,
    dice: &mut Dice,
    teller: &mut Teller,
    record: &Record,
) -> Result<(), BankError> {
    let transfer = teller.next(dice);
    let Transfer { reference, from_account, to_account, amount } = &transfer;
    conn.query_drop("START TRANSACTION").await?;
    let locked: Vec<(u64, i64)> =
        conn.exec("SELECT id, balance FROM accounts WHERE id IN (?, ?) ORDER BY id FOR UPDATE", (from_account, to_account)).await?;
    if locked.len() != 2 {
        record.setback("account-missing", format!("{endpoint} has not both accounts {from_account} and {to_account}"));
        return Ok(conn.query_drop("ROLLBACK").await?);
    }
    if locked.iter().any(|(id, balance)| id == from_account && balance < amount) {
        conn.query_drop("ROLLBACK").await?;
        record.declined.fetch_add(1, Ordering::AcqRel);
        return Ok(());
    }
    conn.exec_drop("UPDATE accounts SET balance = balance - ?, version = version + 1 WHERE id = ?", (amount, from_account)).await?;
    conn.exec_drop("UPDATE accounts SET balance = balance + ?, version = version + 1 WHERE id = ?", (amount, to_account)).await?;
    conn.exec_drop(
        "INSERT INTO transfers (reference, from_account, to_account, amount, note, created_at) VALUES (?, ?, ?, ?, ?, NOW())",
        (reference, from_account, to_account, amount, dice.one_in(2).then_some("学費 £")),
    )
    .await?;
    teller.ledger.begin(&transfer, endpoint)?;
    record.begun.fetch_add(1, Ordering::AcqRel);
    match conn.query_drop("COMMIT").await {
        Ok(()) => {
            teller.ledger.keep(&transfer)?;
            record.acknowledged.fetch_add(1, Ordering::AcqRel);
            Ok(())
        }
        Err(mysql_async::Error::Server(said)) if ROLLED_BACK.contains(&said.code) => {
            teller.ledger.refuse(&transfer)?;
            record.refused.fetch_add(1, Ordering::AcqRel);
            Err(mysql_async::Error::Server(said).into())
        }
        Err(lost) => {
            teller.ledger.doubt(&transfer)?;
            Err(lost.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transfer_is_between_two_accounts_and_has_its_own_reference() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        std::fs::write(&path, "dbmove-ledger\t1\nearlier\t0\nopened\n").unwrap();
        let mut teller = Teller::new(0, 3, 2, Arc::new(Ledger::reopen(&path).unwrap()));
        let mut dice = Dice::new(1, 1);
        let mut references = std::collections::HashSet::new();
        for _ in 0..100 {
            let transfer = teller.next(&mut dice);
            assert_ne!(transfer.from_account, transfer.to_account);
            assert!((1..=2).contains(&transfer.to_account) && transfer.amount > 0);
            assert_eq!(transfer.reference.len(), 36);
            assert!(!transfer.reference.starts_with(super::super::seed::SEEDED_REFERENCE));
            assert!(references.insert(transfer.reference));
        }
    }
}
