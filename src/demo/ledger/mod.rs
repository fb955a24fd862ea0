//! What users were promised: every transfer begun, and what became of it.
//!
//! The promise of a bank is simple: a transfer whose COMMIT was answered *yes* exists, once. The
//! ledger is where that answer is written down, outside the server and outside this process: each
//! fact is appended to a file before anything depends on it, so that a writer that is killed leaves
//! a ledger that is still true.
//!
//! | line | written | meaning at the end |
//! | --- | --- | --- |
//! | `begun` | before COMMIT is sent | with no outcome after it: *in doubt* |
//! | `kept` | after COMMIT was answered OK | must be there exactly once |
//! | `refused` | after COMMIT was answered with a rollback | must not be there |
//! | `doubt` | after the answer to COMMIT was lost | may be there once, or not at all |
//!
//! Appending is one `write` into the page cache: it survives the process, not the machine, and is
//! quick enough (microseconds) to happen on an async thread. A line cut short by a kill is
//! recognised (it is the last one, or `reopened` follows it) and counts as never written; any other
//! unreadable line is an error, not something to skip.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::seed::SEEDED_REFERENCE;
use crate::mysql::sql;

mod reading;
mod verdict;

pub use reading::{Entry, LedgerReading, Outcome};
pub use verdict::{LedgerVerdict, check};

const HEADER: &str = "dbmove-ledger\t1";

/// A transfer as a user asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Its unique reference, 36 characters.
    pub reference: String,
    /// Who pays.
    pub from_account: u64,
    /// Who gets it.
    pub to_account: u64,
    /// How much, in cents; more than 0.
    pub amount: i64,
}

/// A ledger that can't be written, read or held against a server.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file could not be written or read.
    #[error("ledger `{}`: {source}", path.display())]
    File {
        /// The ledger's file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A line makes no sense.
    #[error("ledger `{}` line {line}: {what}; the ledger can't be trusted, nothing was judged by it", path.display())]
    Line {
        /// The ledger's file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The server could not be asked.
    #[error("the accounts and transfers of database `{database}` could not be read: {source}")]
    Server {
        /// The database.
        database: String,
        /// What the server or the driver said.
        source: mysql_async::Error,
    },
}

/// The open ledger: shared by all bank writers.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
}

impl Ledger {
    /// Starts a new ledger with the balances as they are: call it before the first writer starts.
    /// A file that is there already is replaced.
    ///
    /// # Errors
    /// If the file can't be written or the accounts can't be read.
    pub async fn open(path: &Path, conn: &mut Conn, database: &str) -> Result<Ledger, LedgerError> {
        let Bank { balances, earlier, .. } = Bank::read(conn, database).await?;
        let mut text = format!("{HEADER}\nearlier\t{earlier}\n");
        for (id, balance) in std::collections::BTreeMap::from_iter(balances) {
            text.push_str(&format!("balance\t{id}\t{balance}\n"));
        }
        text.push_str("opened\n");
        let file = |source| LedgerError::File { path: path.to_owned(), source };
        std::fs::write(path, text).map_err(file)?;
        let opened = OpenOptions::new().append(true).open(path).map_err(file)?;
        Ok(Ledger { path: path.to_owned(), file: Mutex::new(opened) })
    }

    /// Goes on with a ledger that an earlier process left.
    ///
    /// # Errors
    /// If the file can't be read or is no ledger.
    pub fn reopen(path: &Path) -> Result<Ledger, LedgerError> {
        LedgerReading::read(path)?;
        let failed = |source| LedgerError::File { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(failed)?;
        let mut last = [b'\n'];
        file.seek(SeekFrom::End(-1)).map_err(failed)?;
        file.read_exact(&mut last).map_err(failed)?;
        let ledger = Ledger { path: path.to_owned(), file: Mutex::new(file) };
        ledger.append(if last == [b'\n'] { "reopened\n" } else { "\nreopened\n" })?;
        Ok(ledger)
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A COMMIT is about to be sent to `endpoint` (`host:port`).
    ///
    /// # Errors
    /// If it can't be written down: then the COMMIT must not be sent.
    pub fn begin(&self, transfer: &Transfer, endpoint: &str) -> Result<(), LedgerError> {
        let Transfer { reference, from_account, to_account, amount } = transfer;
        self.append(&format!("begun\t{reference}\t{from_account}\t{to_account}\t{amount}\t{endpoint}\t{}\n", now()))
    }

    /// The COMMIT was answered OK.
    ///
    /// # Errors
    /// If it can't be written down.
    pub fn keep(&self, transfer: &Transfer) -> Result<(), LedgerError> {
        self.append(&format!("kept\t{}\t{}\n", transfer.reference, now()))
    }

    /// The COMMIT was answered with an error that means it was rolled back.
    ///
    /// # Errors
    /// If it can't be written down.
    pub fn refuse(&self, transfer: &Transfer) -> Result<(), LedgerError> {
        self.append(&format!("refused\t{}\t{}\n", transfer.reference, now()))
    }

    /// The answer to the COMMIT was lost.
    ///
    /// # Errors
    /// If it can't be written down.
    pub fn doubt(&self, transfer: &Transfer) -> Result<(), LedgerError> {
        self.append(&format!("doubt\t{}\t{}\n", transfer.reference, now()))
    }

    fn append(&self, line: &str) -> Result<(), LedgerError> {
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(line.as_bytes()).map_err(|source| LedgerError::File { path: self.path.clone(), source })
    }
}

/// The bank as a server has it, at one moment.
struct Bank {
    balances: HashMap<u64, i64>,
    /// How many seeded transfers there are.
    earlier: u64,
    /// All other transfers.
    live: Vec<Transfer>,
}

impl Bank {
    /// Reads it in one snapshot: a COMMIT that arrives meanwhile is seen in both tables or in none.
    async fn read(conn: &mut Conn, database: &str) -> Result<Self, LedgerError> {
        let table = |name| format!("{}.{}", sql::identifier(database), sql::identifier(name));
        let (accounts, transfers) = (table("accounts"), table("transfers"));
        let seeded = format!("{SEEDED_REFERENCE}%");
        let read = async {
            conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
            conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
            let balances: Vec<(u64, i64)> = conn.query(format!("SELECT id, balance FROM {accounts}")).await?;
            let earlier: Option<u64> =
                conn.exec_first(format!("SELECT COUNT(*) FROM {transfers} WHERE reference LIKE ?"), (&seeded,)).await?;
            let live = conn
                .exec_map(
                    format!("SELECT reference, from_account, to_account, amount FROM {transfers} WHERE reference NOT LIKE ?"),
                    (&seeded,),
                    |(reference, from_account, to_account, amount)| Transfer { reference, from_account, to_account, amount },
                )
                .await?;
            conn.query_drop("COMMIT").await?;
            Ok(Bank { balances: balances.into_iter().collect(), earlier: earlier.unwrap_or(0), live })
        };
        read.await.map_err(|source| LedgerError::Server { database: database.to_owned(), source })
    }
}

/// Microseconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// The balance every account must have: what it had, and the transfers that are there.
fn expected_balances(opening: &HashMap<u64, i64>, present: impl IntoIterator<Item = Transfer>) -> HashMap<u64, i64> {
    let mut expected = opening.clone();
    for transfer in present {
        *expected.entry(transfer.from_account).or_default() -= transfer.amount;
        *expected.entry(transfer.to_account).or_default() += transfer.amount;
    }
    expected
}
