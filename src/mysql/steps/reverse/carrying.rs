//! Carrying back, behind the switch: what clients write to the target is written to the source, compared there, and clients are kept out of it.
//!
//! All of it ends together: the first thing that says no (a change that the source can't hold, a row that differs, clients on the
//! source) ends the others, and [`super`] notes why there is no way back any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::kept_out::{self, LetIn};
use super::privileged::Privileged;
use super::triggers::{TRIGGERS, aside};
use super::{COMPARED, LOOK_EVERY, Reverse, position_of};
use crate::engine::context::{Progress, StepContext};
use crate::engine::crash;
use crate::engine::step::{Failure, StepError};
use crate::mysql::behind::{self, Ends};
use crate::mysql::bookkeeping;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::error::{MysqlError, Result as MysqlResult};
use crate::mysql::fence;
use crate::mysql::follow;
use crate::mysql::position::Position;
use crate::mysql::status;
use crate::mysql::steps::fence::is_let_go;
use crate::mysql::steps::source_gone;
use crate::mysql::steps::{Meter, stoppable};
use crate::mysql::store::{Following, MysqlStore};
use crate::mysql::triggers_aside;
use crate::mysql::verification::{Engine, Pair, Verifier};
use crate::verify::report::NotCompared;

/// Checkpoint: what changed on the target and does not come back.
pub(super) const NOT_CARRIED: &str = "not_carried";
/// Between two rounds over the keys that came back.
const ROUND_EVERY: Duration = Duration::from_secs(2);
/// Between two comparisons of every table at least, and so many times as long as the last one took: somebody who may write there all the time must
/// not have both servers read without end.
const ALL_EVERY: Duration = Duration::from_secs(300);
/// See [`ALL_EVERY`].
const REST: u32 = 10;
/// Between two looks whether clients are kept out of the source.
const KEPT_OUT_EVERY: Duration = Duration::from_secs(1);

impl Reverse {
    /// Makes the bookkeeping on the source, claims it for this driver, and saves where following starts.
    async fn prepare(&self, context: &StepContext, back: &MysqlStore, start: &Position) -> MysqlResult<()> {
        self.store.prove_copies_in_use(&context.checkpoints).await?;
        let mut source = Session::open(&back.target, Purpose::Catalog).await?;
        bookkeeping::create(&mut source).await?;
        bookkeeping::claim(&mut source, &back.name, &context.run, context.epoch).await?;
        let triggers = match aside(context, &self.store)? {
            Some(triggers) => triggers,
            None => {
                let triggers = triggers_aside::of_source(&self.store).await?;
                context.checkpoints.save(TRIGGERS, &self.store.name, &serde_json::json!(triggers))?;
                triggers
            }
        };
        crash::point("reverse.triggers_noted");
        triggers_aside::drop_all(&self.store, &triggers).await?;
        match bookkeeping::followed(&mut source, &back.name).await? {
            Some(followed) if followed.start == *start => {}
            Some(followed) => {
                return Err(MysqlError::Object {
                    message: format!(
                        "`_dbmove` on the {} belongs to another way back: it began at {}, this one at {start}. Nothing was changed",
                        back.target, followed.start
                    ),
                    hint: "find out which run it is of; drop the schema there if that run is over".to_owned(),
                });
            }
            None => {
                source.run("BEGIN", "saving the start position").await?;
                bookkeeping::hold_lease(&mut source, &back.name, context.epoch).await?;
                bookkeeping::start_following(&mut source, &back.name, start).await?;
                // Their rows are there up to the start; events before a table's own position would be passed over.
                for (_, table) in back.described().await?.shared.tables.iter().filter(|(_, table)| table.key.is_none()) {
                    let statement = bookkeeping::save_keyless(&back.name, table.name(), start);
                    source.write(statement.as_bytes(), "saving the position of a keyless table").await?;
                }
                source.run("COMMIT", "saving the start position").await?;
            }
        }
        source.close().await;
        Ok(())
    }

    /// Waits until the source's lock is let go; `false` if the way back was closed meanwhile.
    pub(super) async fn wait_let_go(&self, context: &StepContext, start: &Position, finish: &CancellationToken) -> Result<bool, StepError> {
        while !is_let_go(context, &self.store)? {
            let note = format!("from {start}; waits for `mysql.disconnect` to let the source's lock go");
            context.report(Progress { unit: "changes".to_owned(), note, ..Progress::default() });
            tokio::select! {
                () = context.cancel.cancelled() => return Err(StepError::cancelled()),
                () = finish.cancelled() => return Ok(false),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        Ok(true)
    }

    /// Follows the target until told to finish.
    pub(super) async fn follow(
        &self,
        context: &StepContext,
        back: &Arc<MysqlStore>,
        start: &Position,
        finish: &CancellationToken,
    ) -> Result<(), StepError> {
        stoppable(context, async {
            let mut source = Session::open(&self.store.source, Purpose::Read).await?;
            if source_gone::is_noted(context, &self.store)? {
                // Also the session of a fence's lock that nobody could let go.
                let closed = fence::disconnect_clients(&mut source, &[]).await?;
                let found =
                    format!("the {} could not be reached behind the switch: clients may have stayed connected there", self.store.source);
                kept_out::let_in(
                    context,
                    &self.store,
                    found,
                    "whoever has SUPER may have written there meanwhile: look at that server's own log",
                )?;
                source_gone::is_back(context, &self.store, closed)?;
            }
            kept_out::look(context, &self.store, &mut source, None).await?;
            source.close().await;
            self.prepare(context, back, start).await
        })
        .await?;
        crash::point("reverse.prepared");
        let floor = position_of(context, COMPARED)?.unwrap_or_else(|| start.clone());
        back.described().await?.shared.touches.track();
        let rounds_end = context.cancel.child_token();
        let result = tokio::select! {
            followed = stoppable(context, follow::follow(back, context.epoch, Some(floor), &context.cancel, finish)) => {
                followed.map_err(|error| match error {
                    MysqlError::DefinitionChanged(change) => StepError::definite(format!(
                        "definitions changed on the target at {}, and the source has the old ones: {}", change.position, change.statement
                    )),
                    error => error.into(),
                })
            }
            error = self.rounds(context, back, &rounds_end) => Err(error),
            error = self.watch(context, back) => Err(error),
            error = self.keep_clients_out(context) => Err(error),
        };
        back.following.send_replace(if result.is_ok() { Following::Finished } else { Following::Off });
        result
    }

    /// Shows how far behind the target the source is.
    async fn watch(&self, context: &StepContext, back: &Arc<MysqlStore>) -> StepError {
        let meter = Meter::default();
        let mut session: Option<Session> = None;
        let mut ends = Ends::default();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let end = async {
                let mut open = match session.take() {
                    Some(open) => open,
                    None => Session::open(&back.source, Purpose::Read).await?,
                };
                let end = status::current_position(&mut open).await?;
                Ok::<_, MysqlError>((open, end))
            };
            let end = match end.await {
                Ok((open, end)) => {
                    session = Some(open);
                    end
                }
                // The tail notices too and connects again; this is only for showing.
                Err(error) if error.transient() => continue,
                Err(error) => return error.into(),
            };
            let applied = back.applied.borrow().clone();
            let behind = ends.behind(Instant::now(), &applied.position, end.clone());
            let lag = behind::lag(&applied, &end, behind);
            if let Err(error) = self.note_not_carried(context, back).await {
                return error;
            }
            let throttle = match back.described().await {
                Ok(described) => described.shared.throttled(),
                Err(error) => return error.into(),
            };
            let let_in = match LetIn::load(context, &self.store) {
                Ok(let_in) => let_in.map(|let_in| format!("; BUT {}", let_in.line())).unwrap_or_default(),
                Err(error) => return error,
            };
            context.report(Progress {
                done: applied.changes,
                total: None,
                unit: "changes".to_owned(),
                rate: meter.rate(applied.changes),
                lag: Some(lag),
                note: format!("a rollback is possible{let_in}; the source is at {} of the target's log", applied.position),
                throttle,
                waits: false,
                not_near: None,
                in_the_way: None,
            });
        }
    }

    /// Notes what changed on the target that rows don't tell (accounts, privileges, views, routines, triggers, events), each once: a rollback does not
    /// take it along. Returns all that is known.
    pub(super) async fn note_not_carried(&self, context: &StepContext, back: &MysqlStore) -> Result<Vec<String>, StepError> {
        let mut known: Vec<String> = match context.load_checkpoint(NOT_CARRIED)? {
            Some(value) => serde_json::from_value(value).unwrap_or_default(),
            None => Vec::new(),
        };
        let before = known.len();
        let notes = back.described().await?.shared.notes();
        for note in notes.into_iter().filter(|note| !is_own_lock(note)) {
            if known.contains(&note) {
                continue;
            }
            let finding = serde_json::json!({
                "level": "warning",
                "object": self.store.name,
                "found": format!("a rollback does not take along: {note}"),
                "fix": format!("do the same on the {} before or behind a rollback", self.store.source),
            });
            context.find(&format!("not-carried-back@{:04}", known.len() + 1), &finding)?;
            known.push(note);
        }
        if known.len() > before {
            context.save_checkpoint(NOT_CARRIED, &serde_json::json!(known))?;
        }
        Ok(known)
    }

    /// Looks whether clients are kept out of the source, again and again.
    async fn keep_clients_out(&self, context: &StepContext) -> StepError {
        let mut session: Option<Session> = None;
        let mut since = Timestamp::now();
        let mut said = String::new();
        let mut privileged = Privileged::default();
        loop {
            tokio::time::sleep(KEPT_OUT_EVERY).await;
            let looked = async {
                let mut open = match session.take() {
                    Some(open) => open,
                    None => Session::open(&self.store.source, Purpose::Read).await?,
                };
                let now = Timestamp::now();
                kept_out::look(context, &self.store, &mut open, Some(since)).await?;
                privileged.look(context, &self.store, &mut open).await?;
                Ok::<_, MysqlError>((open, now))
            };
            match looked.await {
                Ok((open, now)) => {
                    session = Some(open);
                    since = now;
                    said.clear();
                }
                Err(MysqlError::Step(error)) if error.failure != Failure::Transient => return error,
                // Looked at again; while it is away, nobody writes there.
                Err(error) if error.transient() => {}
                Err(error) => {
                    let error = error.to_string();
                    if error != said {
                        tracing::error!(store = %self.store.name, "{error}");
                        said = error;
                    }
                }
            }
        }
    }

    /// Compares every table as a whole, if clients could write on the source since that was done last; not before `next`, which it sets.
    async fn compare_all_again(
        &self,
        context: &StepContext,
        back: &Arc<MysqlStore>,
        next: &mut Instant,
        cancel: &CancellationToken,
    ) -> MysqlResult<()> {
        if Instant::now() < *next {
            return Ok(());
        }
        let Some(let_in) = LetIn::load(context, &self.store)?.filter(|let_in| !let_in.compared) else { return Ok(()) };
        let began = Instant::now();
        tracing::warn!(store = %self.store.name, "every table is compared, because clients could write on the source");
        let verifier = Arc::new(Verifier::new(back, Engine::Auto, true).await?);
        let found = verifier.full(1, &Arc::default(), &context.steering, cancel).await?;
        if let Some(first) = found.differences.first() {
            return Err(StepError::definite(format!(
                "{}; {} rows differ on the source now, the first: {}",
                let_in.found,
                found.difference_count,
                first.line()
            ))
            .into());
        }
        *next = Instant::now() + ALL_EVERY.max(began.elapsed() * REST);
        Ok(kept_out::compared(context, &self.store, &let_in)?)
    }

    /// Compares what came back, round by round, until something differs.
    async fn rounds(&self, context: &StepContext, back: &Arc<MysqlStore>, cancel: &CancellationToken) -> StepError {
        match self.compare(context, back, cancel).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn compare(
        &self,
        context: &StepContext,
        back: &Arc<MysqlStore>,
        cancel: &CancellationToken,
    ) -> Result<std::convert::Infallible, StepError> {
        let _ = back.following.subscribe().wait_for(|state| matches!(state, Following::On(_))).await;
        let verifier = Verifier::new(back, Engine::Client, true).await?;
        refuse_not_compared(&verifier.not_comparable)?;
        let mut pair = Pair::open(back).await?;
        let mut all_next = Instant::now();
        loop {
            tokio::time::sleep(ROUND_EVERY).await;
            match self.compare_all_again(context, back, &mut all_next, cancel).await {
                Ok(()) => {}
                Err(error) if error.transient() => continue,
                Err(error) => return Err(error.into()),
            }
            let begun_at = back.applied.borrow().position.clone();
            let round = match verifier.round(&mut pair, cancel).await {
                Ok(round) => round,
                Err(error) if error.transient() => {
                    if let Ok(opened) = Pair::open(back).await {
                        pair = opened;
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(first) = round.differences.first() {
                let count = round.differences.len();
                return Err(StepError::definite(format!(
                    "{count} rows that came back differ on the source, the first: {}; somebody else writes there, or it can't hold them",
                    first.line()
                )));
            }
            if round.complete {
                context.save_checkpoint(COMPARED, &serde_json::json!(begun_at))?;
            }
        }
    }
}

/// Whether a note is of what a rollback does itself where it can't set `read_only`: an account locked, or unlocked, and nothing else.
fn is_own_lock(note: &str) -> bool {
    let Some((_, statement)) = note.split_once(": ") else { return false };
    let statement = statement.trim_end().to_ascii_uppercase();
    statement.starts_with("ALTER USER") && (statement.ends_with("ACCOUNT LOCK") || statement.ends_with("ACCOUNT UNLOCK"))
}

/// What can't be compared can't be believed.
pub(super) fn refuse_not_compared(left: &[NotCompared]) -> Result<(), StepError> {
    let Some(first) = left.first() else { return Ok(()) };
    let message = format!("what came back can't be compared in {} of the tables, the first: `{}`: {}", left.len(), first.object, first.why);
    Err(StepError::definite(message)
        .hint("the target serves as before; find out who changed the table on the source, and put it back there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollbacks_own_locks_are_no_changes() {
        let note = |statement: &str| format!("accounts or privileges changed on the target at binlog.000002:154: {statement}");
        assert!(is_own_lock(&note("ALTER USER 'app'@'%' ACCOUNT LOCK")) && is_own_lock(&note("ALTER USER 'app'@'%' ACCOUNT UNLOCK")));
        assert!(!is_own_lock(&note("ALTER USER 'app'@'%' ")) && !is_own_lock(&note("GRANT SELECT ON *.* TO 'app'@'%'")));
    }

    #[test]
    fn what_is_not_compared_is_not_believed() {
        assert!(refuse_not_compared(&[]).is_ok());
        let left = NotCompared { object: "school.t".to_owned(), why: "it is not on the target".to_owned() };
        let refused = refuse_not_compared(&[left]).unwrap_err();
        assert_eq!(refused.failure, Failure::Definite);
        assert!(refused.message.contains("`school.t`: it is not on the target"), "{}", refused.message);
    }
}
