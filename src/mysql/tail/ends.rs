//! The begin and the end of a transaction in the log, of a two-phase one too, and what is handed on then.
//!
//! A two-phase transaction counts when it is committed, wherever it was prepared; until then nothing behind its beginning may be saved as reached.

use std::time::{Duration, Instant};

use super::stream::{Reading, START_OVER};
use super::xa::{self, XaStatement};
use super::{Rows, TailEvent};
use crate::mysql::apply::batch;
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::position::Position;

/// A prepared transaction that holds following back for so long is named.
const NAMED_AFTER: Duration = Duration::from_secs(10);

impl Reading<'_> {
    pub(super) fn begin(&mut self, two_phase: bool) {
        self.transaction.begin();
        self.passed_over = None;
        self.two_phase = two_phase.then(|| self.between.clone());
    }

    pub(super) async fn two_phase(&mut self, statement: XaStatement, at: u32) -> Result<()> {
        match statement {
            XaStatement::Start => {
                self.begin(true);
                Ok(())
            }
            XaStatement::End => Ok(()),
            XaStatement::Commit(xid) => {
                if let Some(begin) = self.passed_over_prepared.remove(&xid).filter(|begin| self.position > *begin) {
                    return Err(self.stop(
                        &format!("the two-phase transaction {xid} has rows of a table that began anew at {begin}, between its prepare and its commit"),
                        &format!("finish two-phase transactions before tables are created, renamed or altered; {START_OVER}"),
                    ));
                }
                let Some(rows) = self.prepared.committed(&xid, &self.position) else {
                    return Err(self.stop(
                        &format!("the two-phase transaction {xid} was committed, and it was prepared before following began: its rows were not seen"),
                        &format!("finish what `XA RECOVER` lists on the source before a run begins; {START_OVER}"),
                    ));
                };
                // They all count from one position: what stands between two of them could not be told apart after a crash.
                let cascades = |rows: &Rows| rows.changes.iter().any(|change| batch::cascades(self.tail.tables.get(rows.table), change));
                if rows.len() > 1 && rows.iter().any(cascades) {
                    return Err(self.stop(
                        &format!("the two-phase transaction {xid} changed other rows too when it deleted or re-keyed a row that foreign keys cascade from"),
                        &format!("keep such transactions from being two-phase ones until the switch is done; {START_OVER}"),
                    ));
                }
                self.send_rows(rows).await?;
                self.ended(at).await
            }
            XaStatement::Rollback(xid) => {
                self.prepared.rolled_back(&xid);
                self.passed_over_prepared.remove(&xid);
                // One that was not prepared is undone before its end.
                self.transaction.begin();
                self.transaction.end();
                self.two_phase = None;
                self.passed(at).await
            }
        }
    }

    pub(super) async fn prepare(&mut self, body: &[u8], at: u32) -> Result<()> {
        let Some((xid, one_phase)) = xa::prepared(body) else {
            return Err(self.stop("the end of a two-phase transaction that can't be read", "keep the log file for a bug report"));
        };
        let begin = self.two_phase.take();
        if one_phase {
            return self.commit(at).await;
        }
        let begin = begin.unwrap_or_else(|| self.between.clone());
        let rows = self.transaction.end();
        if let Some(passed_over) = self.passed_over.take() {
            self.passed_over_prepared.insert(xid.clone(), passed_over);
        }
        self.prepared.hold(xid, rows, begin);
        self.passed(at).await
    }

    /// The place up to which everything may be saved: not behind the beginning of a prepared transaction.
    async fn reached(&mut self) -> Result<Position> {
        self.between = self.position.clone();
        let Some((xid, begin)) = self.prepared.oldest().map(|(xid, begin)| (xid.clone(), begin.clone())) else {
            self.waiting = None;
            return Ok(self.position.clone());
        };
        match &mut self.waiting {
            Some((waiting, since)) if *waiting == xid => {
                if since.is_some_and(|since| since.elapsed() >= NAMED_AFTER) {
                    *since = None;
                    let note = format!(
                        "the two-phase transaction {xid} is prepared since {begin} and holds following back until it is committed or rolled back on the source (`XA RECOVER` lists it)"
                    );
                    self.send(TailEvent::Note(note)).await?;
                }
            }
            waiting => *waiting = Some((xid, Some(Instant::now()))),
        }
        Ok(begin)
    }

    pub(super) async fn commit(&mut self, at: u32) -> Result<()> {
        self.two_phase = None;
        let rows = self.transaction.end();
        self.send_rows(rows).await?;
        self.ended(at).await
    }

    pub(super) async fn ended(&mut self, at: u32) -> Result<()> {
        if let Some(mut change) = self.changing.take() {
            // Everything else of the transaction is handed on, and is applied again, which changes nothing, once the tables are there.
            change.position = self.position.clone();
            return Err(MysqlError::DefinitionChanged(change));
        }
        let position = self.reached().await?;
        self.send(TailEvent::TransactionEnd { position, at }).await
    }

    pub(super) async fn passed(&mut self, at: u32) -> Result<()> {
        if self.transaction.is_open() {
            return Ok(());
        }
        let position = self.reached().await?;
        self.send(TailEvent::Passed { position, at }).await
    }

    pub(super) async fn send_rows(&mut self, rows: Vec<Rows>) -> Result<()> {
        for mut rows in rows {
            rows.permit = self.tail.limit.hold(rows.weight).await;
            self.send(TailEvent::Rows(rows)).await?;
        }
        Ok(())
    }

    pub(super) async fn send(&self, event: TailEvent) -> Result<()> {
        // Nobody takes events any more: the applier has stopped and says why.
        self.out.send(event).await.map_err(|_| MysqlError::Cancelled)
    }
}
