//! The fence: stops writes to the source, with proof that it holds. A rollback raises one on the target, by the same code.
//!
//! In this order, each bounded in time, on a server that shows our account everybody's connections ([`sight`]):
//!
//! 1. Statements that run get `grace` to end, then their connections are killed. This comes first, because old servers
//!    flush tables in both steps that follow, and can't take that back (see [`let_statements_end`]).
//! 2. `read_only` on: accounts without SUPER get an error at their next write. (5.5 has no
//!    `super_read_only`; accounts with SUPER ignore it, hence the next step.) On a target where our account may not set it, as on
//!    RDS, the accounts of clients are locked instead ([`super::lock_out`]).
//! 3. A session takes `FLUSH TABLES WITH READ LOCK` and holds it: no commit of any account passes.
//!    It waits for running statements; those in its way are killed when `grace` is over, and if that does not help, every client's
//!    connection is closed: one that is idle may hold a table's lock, and old servers don't tell which. (Behind the switch all are.)
//!    RDS and Aurora refuse that lock to everybody. A rollback goes without it there, see [`nobody_left`]; a cutover does not.
//! 4. The proof: a write probe is refused by `read_only`, or seen waiting for the lock (an account with SUPER waits, and is
//!    ended then; one that is let through because dbmove died changes nothing, see [`PROBE`]); and the position stands still over two reads.
//!
//! Before all of that the step turns the event scheduler off: events run on the target from the switch on, and on one server only.
//!
//! What is changed is noted before it is changed (the `read_only` and the `event_scheduler` it had), so that undo puts back
//! what was there. If dbmove, its machine or the network dies while the fence stands, the server itself lifts it, see [`watchdog`]; only
//! from its disarming, which is the last thing before the switch, to the end of that does a dead driver leave `read_only` for undo or a resumed
//! run to decide, and maybe the lock: they find its session, see [`holder`].

mod ending;
mod holder;
pub mod in_the_way;
mod nobody_left;
pub mod watchdog;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use ending::{kill_in_the_way, kill_row_waiters};
use watchdog::{Watch, Watchdog};

pub use ending::{NO_SUCH_TABLE, disconnect_clients, disconnect_other_accounts, ends_by_procedure, is_replication, kill};
pub use holder::end_holder;
pub(crate) use holder::is_refused_in_cluster;

use super::connect::{Purpose, Server, Session};
use super::error::{MysqlError, Result};
use super::foreign::is_of_the_server;
use super::lock_out::{self, LockedOut};
use super::names::Selection;
use super::position::Position;
use super::{sight, sql, status};

/// What the fence of a store's source is called: its watchdog and the session that holds its lock are found by that.
#[must_use]
pub fn name_in_cutover(run: &str, store: &str) -> String {
    format!("run {run}, store {store}")
}

/// What the hold of a store's target in a rollback is called: both servers may be one.
#[must_use]
pub fn name_in_rollback(run: &str, store: &str) -> String {
    format!("rollback of run {run}, store {store}")
}

/// What keeps clients out when the lock is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepOut {
    /// `read_only`.
    ReadOnly,
    /// Where our account may not set that, as on RDS: these accounts are locked.
    Accounts(Vec<LockedOut>),
}

/// "Access denied; you need (at least one of) … privilege".
pub const NOT_ALLOWED: u16 = 1227;

/// The proof that no write passes: needed to read the final position.
pub struct Fence {
    /// Run and store: by it whoever comes later finds the lock's session and the watchdog.
    name: String,
    lock: Session,
    /// Where the lock was refused: what moves, and must not be written to.
    nobody_left: Option<Arc<Selection>>,
    watchdog: Option<Watchdog>,
    keep_out: KeepOut,
    /// The end of the server's log, behind which nothing is written to what moves.
    pub position: Position,
    /// When writes were first refused.
    pub since: Instant,
    /// Connections that were killed.
    pub killed: u64,
}

/// "The MySQL server is running with the --read-only option", "Lock wait timeout", "Can't execute the query because you have a conflicting read lock".
const REFUSED: [u16; 3] = [1290, 1205, 1223];

/// What a statement that waits for the global read lock says of itself: MySQL, MySQL before 5.5.8, MariaDB.
const WAITING: [&str; 3] = ["global read lock", "release of readlock", "backup lock"];

/// Whether a statement in that state waits for the global read lock.
fn waits_for_lock(state: &str) -> bool {
    WAITING.iter().any(|waiting| state.contains(waiting))
}

/// The database that the probe names. There is none of that name.
pub const PROBED: &str = "_dbmove_fence_probe";

/// The probe: refused or held up as every write is. If it is let through after all, because dbmove died while it waited and the lock died with
/// it, it fails, as there is no such database, and leaves nothing behind.
pub const PROBE: &str = "DROP DATABASE `_dbmove_fence_probe`";

/// "Can't drop database; database doesn't exist".
const NO_SUCH_DATABASE: u16 = 1008;

/// Holds up every commit, of all accounts, as long as its session lives.
const TAKE_LOCK: &str = "FLUSH TABLES WITH READ LOCK";

/// How long the lock may take to be let go by the session that holds it.
const LETTING_GO: Duration = Duration::from_secs(2);

/// How long after its grace whoever is in the fence's way may take to end.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// How long the probe may take to show one or the other.
const PROBE_TIME: Duration = Duration::from_secs(3);

/// By what the fence holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    ByLock,
    NobodyLeft,
}

impl Fence {
    /// Raises the fence of that name, and ends what an earlier driver left of it. Without `watch` nobody but us lifts it. Where the server refuses the global read lock it is none, unless
    /// `without_lock` says what moves: then [nobody is left](nobody_left) who could write there.
    ///
    /// # Errors
    /// If it can't be raised within the time, or the proof fails; it is lowered again then.
    pub async fn raise(
        server: &Arc<Server>,
        name: &str,
        keep_out: &KeepOut,
        grace: Duration,
        watch: Option<&Watch>,
        without_lock: Option<&Arc<Selection>>,
        cancel: &CancellationToken,
    ) -> Result<Fence> {
        let mut lock = Session::open(server, Purpose::Read).await?;
        let mut other = Session::open(server, Purpose::Read).await?;
        sight::sees_everybody(&mut other, "Writes were not stopped").await?;
        let watchdog = match watch {
            Some(watch) => {
                let armed = Watchdog::arm(server, name, watch, keep_out, lock.id()).await?;
                armed.end_others(&mut other).await?;
                Some(armed)
            }
            None => None,
        };
        // One that was watched over is gone by now; behind the disarming nobody else sees to it.
        end_holder(&mut other, name).await?;
        holder::make_known(&mut lock, name).await?;
        remove_probed(&mut other).await?;
        let own: Vec<u32> = [lock.id(), other.id()].into_iter().chain(watchdog.iter().flat_map(Watchdog::connections)).collect();
        let since = Instant::now();
        let raised = tokio::select! {
            () = cancel.cancelled() => Err(MysqlError::Cancelled),
            raised = Self::hold(&mut lock, &mut other, &own, keep_out, grace, without_lock.is_some()) => raised,
        };
        match raised {
            Ok((held, position, killed)) => {
                other.close().await;
                let nobody_left = without_lock.filter(|_| held == Held::NobodyLeft).cloned();
                Ok(Fence { name: name.to_owned(), lock, nobody_left, watchdog, keep_out: keep_out.clone(), position, since, killed })
            }
            Err(error) => {
                // The caller lowers it from its note. A statement that waits for the lock would go on waiting, and
                // hold every write up, until what it waits for ends: the server doesn't see that its client left.
                // (Neither session may be used for it: both may be in the middle of a statement.)
                let ended = async { kill(&mut Session::open(server, Purpose::Read).await?, lock.id(), "letting the fence go").await };
                if let Err(left) = ended.await {
                    tracing::warn!(%left, "the session that waited for the global read lock was not ended; undo looks for it again");
                }
                Err(error)
            }
        }
    }

    async fn hold(
        lock: &mut Session,
        other: &mut Session,
        own: &[u32],
        keep_out: &KeepOut,
        grace: Duration,
        may_go_without: bool,
    ) -> Result<(Held, Position, u64)> {
        let deadline = Instant::now() + grace;
        let mut killed = let_statements_end(other, own, deadline).await?;
        // Both wait, on an old server, for the statements that use a table. Idle inside a transaction is in nobody's way.
        killed += match keep_out {
            KeepOut::ReadOnly => cleared(set_read_only(lock, true), other, own, deadline).await?,
            // Not later: the lock would hold it up.
            KeepOut::Accounts(accounts) => cleared(lock_out::set(lock, accounts, true), other, own, deadline).await?,
        };
        match cleared(lock.run(TAKE_LOCK, "taking the global read lock"), other, own, deadline).await {
            Ok(more) => killed += more,
            Err(error) if may_go_without && nobody_left::is_lock_refused(&error) => {
                tracing::info!(%error, "the server refuses the global read lock; every client's connection is closed instead");
                killed += nobody_left::end_clients(other, deadline + LAST_PATIENCE).await?;
                return Ok((Held::NobodyLeft, status::current_position(other).await?, killed));
            }
            Err(error) => return Err(error),
        }
        let position = status::current_position(other).await?;
        probe(&other.server().clone(), other).await?;
        let again = status::current_position(other).await?;
        if again != position {
            return Err(MysqlError::Object {
                message: format!("the fence does not hold: the log of the {} moved from {position} to {again} behind it", other.server()),
                hint: "find what writes there (replication threads, accounts with SUPER, events); nothing was switched".to_owned(),
            });
        }
        Ok((Held::ByLock, position, killed))
    }

    /// Whether it still stands: its session lives, and nothing was written behind it.
    ///
    /// # Errors
    /// If the session is gone, or something was written.
    pub async fn check(&mut self) -> Result<()> {
        let before = self.position.clone();
        match self.look().await? {
            None => Ok(()),
            Some(what) => {
                // Asked once more it has to say so once more.
                self.position = before;
                Err(self.does_not_hold(&what))
            }
        }
    }

    /// What was written behind it to what moves, if anything was. Where the lock is not held that need not be its end: [`Fence::position`] is
    /// behind what was written then, and all up to there is in the log.
    ///
    /// # Errors
    /// If its session is gone, it keeps nobody out any more, or the log of a server that is locked moved.
    pub async fn look(&mut self) -> Result<Option<String>> {
        let Some(moves) = &self.nobody_left else {
            let now = status::current_position(&mut self.lock).await?;
            let moved = format!("the log of the {} moved from {} to {now} behind it", self.lock.server(), self.position);
            return if now == self.position { Ok(None) } else { Err(self.does_not_hold(&moved)) };
        };
        let lets_in = match &self.keep_out {
            KeepOut::ReadOnly if read_only(&mut self.lock).await? => Vec::new(),
            KeepOut::ReadOnly => vec!["`read_only` is off".to_owned()],
            KeepOut::Accounts(locked) => {
                let unlocked = lock_out::unlocked(&mut self.lock).await?;
                let those = locked.iter().filter(|account| unlocked.contains(account));
                those.map(|account| format!("`{}`@`{}` is not locked", account.user, account.host)).collect()
            }
        };
        if !lets_in.is_empty() {
            return Err(self.does_not_hold(&format!("clients may come to the {} again: {}", self.lock.server(), lets_in.join(", "))));
        }
        nobody_left::end_clients(&mut self.lock, Instant::now() + LAST_PATIENCE).await?;
        let (end, written) = nobody_left::written_since(&mut self.lock, moves, &self.position).await?;
        self.position = end;
        Ok(written.map(|what| format!("somebody wrote to the {} behind it: {what}", self.lock.server())))
    }

    fn does_not_hold(&self, what: &str) -> MysqlError {
        MysqlError::Object {
            message: format!("the fence does not hold: {what}"),
            hint: "find what writes there (replication threads, accounts with SUPER, events); nothing was switched".to_owned(),
        }
    }

    /// By what writes are held.
    #[must_use]
    pub fn held_by(&self) -> &'static str {
        match self.nobody_left {
            None => "the global read lock",
            Some(_) => "no client is left",
        }
    }

    /// The connections that it lives by.
    #[must_use]
    pub fn connections(&self) -> Vec<u32> {
        std::iter::once(self.lock.id()).chain(self.watchdog.iter().flat_map(Watchdog::connections)).collect()
    }

    /// Ends the watchdog: from here on only we lift the fence. To be called right before clients are pointed elsewhere.
    ///
    /// # Errors
    /// If it does not end, or had bitten already: then writes may have passed.
    pub async fn disarm(&mut self) -> Result<()> {
        // It stays ours until all of it is proven: if it is asked once more, it has to be proven once more.
        let Some(watchdog) = &self.watchdog else { return Ok(()) };
        let bitten = |server: &Server, why: &str| {
            MysqlError::Object {
            message: format!("the fence of the {server} does not hold any more: {why}"),
            hint: "its watchdog may have lifted it, because dbmove stood still for too long; clients are where they were, so give the same command again"
                .to_owned(),
        }
        };
        let server = self.lock.server().clone();
        // On a session of its own: the lock's may have been ended.
        let mut session = Session::open(&server, Purpose::Read).await?;
        watchdog.disarm(&mut session).await?;
        // What would unlock accounts waits for the lock, so that these are locked if the lock is held.
        let still = self.keep_out != KeepOut::ReadOnly || read_only(&mut session).await?;
        session.close().await;
        if !still {
            return Err(bitten(&server, "`read_only` is off"));
        }
        self.check().await.map_err(|error| bitten(&server, &error.to_string()))?;
        self.watchdog = None;
        Ok(())
    }

    /// Lets the global lock go; what keeps clients out stays as it is. The watchdog, if there still is one, stays too. Whoever has to be certain
    /// that it is gone asks [`end_holder`] next.
    pub async fn release_lock(mut self) {
        let let_go = tokio::time::timeout(LETTING_GO, self.lock.run("UNLOCK TABLES", "letting the global read lock go")).await;
        if matches!(let_go, Ok(Ok(()))) {
            self.lock.close().await;
            return;
        }
        // A session that is lost to us may hold it still: the server need not know that its client is gone.
        let server = self.lock.server().clone();
        drop(self.lock);
        let ended = async {
            let mut session = Session::open(&server, Purpose::Read).await?;
            end_holder(&mut session, &self.name).await?;
            session.close().await;
            Ok::<(), MysqlError>(())
        };
        let why = match tokio::time::timeout(ending::ENDING, ended).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ending::ENDING.as_secs()),
        };
        tracing::warn!(%server, "whether the global read lock was let go is not known ({why}); undo looks for it again");
    }
}

/// A write that must not pass: `read_only` refuses it, or it waits for the global read lock. That it waits is
/// seen in the process list (no time is lost), then it is killed.
async fn probe(source: &Arc<Server>, watcher: &mut Session) -> Result<()> {
    let mut prober = Session::open(source, Purpose::Read).await?;
    let id = prober.id();
    let outcome = {
        let attempt = prober.run(PROBE, "probing the fence");
        tokio::pin!(attempt);
        let deadline = Instant::now() + PROBE_TIME;
        loop {
            tokio::select! {
                outcome = &mut attempt => break Some(outcome),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
            let state = state_of(watcher, id).await?;
            if waits_for_lock(&state) {
                break None;
            }
            if Instant::now() > deadline {
                return Err(MysqlError::Object {
                    message: format!("the fence's write probe on the {source} neither failed nor waits for the lock (it says `{state}`)"),
                    hint: "look at `SHOW PROCESSLIST` there; nothing was switched".to_owned(),
                });
            }
        }
    };
    match outcome {
        None => {
            // Nobody needs it to wait any longer.
            watcher.run(&format!("KILL {id}"), "ending the write probe").await?;
            Ok(())
        }
        Some(Err(error)) if error.code().is_some_and(|code| REFUSED.contains(&code)) => {
            prober.close().await;
            Ok(())
        }
        Some(Err(error)) if error.code() != Some(NO_SUCH_DATABASE) => Err(error),
        Some(_) => Err(MysqlError::Object {
            message: format!("the fence does not hold: a write probe passed on the {source}"),
            hint: "the global read lock has no effect there; fence the source by other means; nothing was switched".to_owned(),
        }),
    }
}

/// Removes the database that the probe names, which an older dbmove may have left. To be called before the fence stands.
///
/// # Errors
/// If there is something in it: then it is not ours, and the probe must not name it.
pub async fn remove_probed(session: &mut Session) -> Result<()> {
    let look = "looking for what a write probe left";
    if session.rows(&format!("SHOW DATABASES LIKE {}", sql::text(&PROBED.replace('_', "\\_"))), look).await?.is_empty() {
        return Ok(());
    }
    let tables = session.rows(&format!("SHOW TABLES FROM {}", sql::identifier(PROBED)), look).await?;
    let routines =
        session.rows(&format!("SELECT 1 FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {}", sql::text(PROBED)), look).await?;
    if !tables.is_empty() || !routines.is_empty() {
        return Err(MysqlError::Object {
            message: format!(
                "the database `{PROBED}` on the {} is not empty, so it is not dbmove's; writes were not stopped, nothing was switched",
                session.server()
            ),
            hint: "the fence is tried by a statement that names it: rename or drop it there".to_owned(),
        });
    }
    tracing::warn!(server = %session.server(), "dropping `{PROBED}`, which is empty: an older dbmove left it");
    session.run(PROBE, "removing what a write probe left").await
}

/// What a session is doing, empty when it has ended. (`information_schema.PROCESSLIST` fails on MySQL 8+ while any session runs a
/// statement that is not text in its character set.)
async fn state_of(watcher: &mut Session, id: u32) -> Result<String> {
    let id = id.to_string();
    let rows = watcher.rows("SHOW PROCESSLIST", "watching the write probe").await?;
    let of = rows.into_iter().find(|row| row.first().is_some_and(|cell| cell.as_deref() == Some(id.as_str())));
    Ok(of.and_then(|row| row.get(6).cloned().flatten()).unwrap_or_default())
}

/// Waits until the statements that run now have ended, and kills those that have not by `deadline`. Only then may the lock
/// be asked for, or `read_only` be set: both flush tables, and on an old server whoever needs a flushed table waits for the last
/// statement that uses it, even if the lock was given up meanwhile.
async fn let_statements_end(session: &mut Session, own: &[u32], deadline: Instant) -> Result<u64> {
    let began = Instant::now();
    let mut left: Option<BTreeSet<(u32, String)>> = None;
    loop {
        let mut running = BTreeSet::new();
        for row in session.rows("SHOW FULL PROCESSLIST", "looking at what runs").await? {
            let cell = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            let id: u32 = cell(0).parse().unwrap_or(0);
            let server_thread = is_of_the_server(&cell(1));
            // One that has run for less than we have waited is another one with the same words.
            let seconds: u64 = cell(5).split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            let another = seconds + 1 < began.elapsed().as_secs();
            let watches = cell(1) == session.server().user && watchdog::is_one(&cell(7));
            if !own.contains(&id) && !server_thread && !another && !watches && ["Query", "Execute"].contains(&cell(4).as_str()) {
                running.insert((id, cell(7)));
            }
        }
        let still: BTreeSet<(u32, String)> = match &left {
            None => running,
            Some(left) => left.intersection(&running).cloned().collect(),
        };
        if still.is_empty() {
            return Ok(0);
        }
        if Instant::now() >= deadline {
            for (id, _) in &still {
                kill(session, *id, "killing a statement in the fence's way").await?;
                tracing::warn!(connection = id, "killed a statement that kept the fence from closing");
            }
            return Ok(still.len() as u64);
        }
        left = Some(still);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs a statement that waits for others, and clears its way: who waits for a row of somebody that the fence already holds
/// up can never go on, and is ended soon; whoever still runs at `deadline` is ended then. Says how many were.
async fn cleared(statement: impl Future<Output = Result<()>>, other: &mut Session, own: &[u32], deadline: Instant) -> Result<u64> {
    const LOOK_EVERY: Duration = Duration::from_millis(150);
    /// How long it may take when nothing runs in its way any more; then somebody idle holds a lock.
    const IDLE_PATIENCE: Duration = Duration::from_millis(500);
    tokio::pin!(statement);
    let mut killed = 0;
    let mut told = false;
    let (mut cleared_running, mut cleared_all) = (false, false);
    loop {
        tokio::select! {
            done = &mut statement => return done.map(|()| killed),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if Instant::now() > deadline + LAST_PATIENCE {
            return Err(MysqlError::Object {
                message: format!("the {} did not let its writes be stopped in time", other.server()),
                hint: "look at `SHOW PROCESSLIST` there for what holds it up; nothing was switched".to_owned(),
            });
        }
        if Instant::now() >= deadline && !cleared_running {
            killed += kill_in_the_way(other, own).await?;
            cleared_running = true;
        } else if Instant::now() >= deadline + IDLE_PATIENCE && !cleared_all {
            let closed = disconnect_clients(other, own).await?;
            tracing::warn!(closed, "closed every client's connection: one that does nothing kept the fence from closing (`LOCK TABLES`?)");
            killed += closed;
            cleared_all = true;
        } else {
            killed += kill_row_waiters(other, own, &mut told).await?;
        }
    }
}

/// Sets the source's `read_only`.
///
/// # Errors
/// If the account may not (SUPER).
pub async fn set_read_only(session: &mut Session, on: bool) -> Result<()> {
    session.run(&format!("SET GLOBAL read_only = {}", u8::from(on)), "setting `read_only`").await
}

/// How long the event scheduler gets to stop.
const SCHEDULER_TIME: Duration = Duration::from_secs(10);

/// Turns the source's event scheduler on or off. Off comes before the lock is asked for: an event whose definer holds SUPER writes
/// though the server is `read_only`, and would go on to write there when the lock is let go after the switch.
///
/// # Errors
/// If the account may not (SUPER), or the scheduler does not stop in time.
pub async fn set_event_scheduler(source: &Arc<Server>, on: bool) -> Result<()> {
    // A session of its own: it may have to be given up in the middle of the statement.
    let mut session = Session::open(source, Purpose::Read).await?;
    let statement = format!("SET GLOBAL event_scheduler = {}", u8::from(on));
    match tokio::time::timeout(SCHEDULER_TIME, session.run(&statement, "setting `event_scheduler`")).await {
        Ok(set) => set?,
        Err(_) => {
            return Err(MysqlError::Object {
                message: format!(
                    "the event scheduler of the {source} did not stop within {} s; nothing was switched",
                    SCHEDULER_TIME.as_secs()
                ),
                hint: "look at `SHOW PROCESSLIST` there for the event that runs; it may be killed".to_owned(),
            });
        }
    }
    session.close().await;
    Ok(())
}

/// Whether the server's event scheduler is on.
///
/// # Errors
/// If it can't be read.
pub async fn event_scheduler(session: &mut Session) -> Result<bool> {
    Ok(session.global_variable("event_scheduler").await?.is_some_and(|value| value.eq_ignore_ascii_case("on") || value == "1"))
}

/// The source's `read_only`, now.
///
/// # Errors
/// If it can't be read.
pub async fn read_only(session: &mut Session) -> Result<bool> {
    // MariaDB from 11.8 on has levels; each refuses an ordinary account.
    Ok(session.global_variable("read_only").await?.is_some_and(|value| !value.eq_ignore_ascii_case("off") && value != "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_lock_says_so_on_every_server() {
        // 5.1 and 5.5 up to 5.5.7; 5.5.8 and later; MariaDB.
        for state in ["Waiting for release of readlock", "Waiting for global read lock", "Waiting for backup lock"] {
            assert!(waits_for_lock(state), "{state}");
        }
        for state in ["", "Waiting for table metadata lock", "Waiting for table flush", "updating", "Waiting for table level lock"] {
            assert!(!waits_for_lock(state), "{state}");
        }
        assert_eq!(PROBE, format!("DROP DATABASE {}", sql::identifier(PROBED)));
    }
}
