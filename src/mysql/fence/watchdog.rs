//! The watchdog: the fenced server itself lifts the fence if dbmove is not there any more. That is the source in a cutover, and the target
//! in a rollback.
//!
//! # Why
//!
//! The fence stands on two things: what keeps clients out ([`KeepOut`]), which stays until somebody takes it back, and a lock that lives as
//! long as its session. If dbmove dies, the server notices that the session's client is gone and lets the lock go, and clients stay out. If the
//! *machine* dies, or the network between, the server notices nothing for hours: neither accounts with SUPER nor replication could write.
//! A school that can't write until somebody is found who knows what to type is worse than a cutover, or a rollback, that has to be tried again.
//!
//! # How
//!
//! A session sends several statements in one packet: sleep, then take back what the fence did. The server has all of it before the fence
//! stands, needs nobody to go on, and leaves no object behind (an event of the event scheduler would have to be created, and is off while
//! the fence stands). While dbmove lives it ends the session in time ([`Watchdog::disarm`]); a session that is killed in its sleep does nothing more.
//!
//! # What must hold
//!
//! * Armed before the first thing that holds writes up.
//! * The statement that must not fail comes first: of a client that is gone, the server may find out at its first answer, and
//!   leaves the rest. So `read_only` is taken back before the lock's session is killed (which is gone by then if the server knows that its
//!   client is), and the event scheduler has a session of its own.
//! * *It does nothing that our account may not.* Where that may not set `read_only` (RDS), it may end its own session, which holds the lock, and
//!   unlock the accounts that it locked. `ALTER USER` would wait for the lock, and nothing may wait before the lock is gone: so each has a session
//!   of its own, and the one waits for the other if it has to. Accounts are unlocked by one statement for all of them, since a second one
//!   might be left out; so none may be among them that our account may not change ([`lock_out::accounts`]), and one that was
//!   dropped meanwhile is passed over.
//! * Disarmed before the point of no return, and proven to be: its sessions are gone, `read_only` is on, and the lock's session lives. Had it
//!   bitten, writes would have passed, and the switch must not be. (That locked accounts are locked still follows: what would unlock them can't
//!   pass while the lock is held.)
//! * One that an earlier driver of the run left is ended before the fence is raised again: it would bite into a fence that is not its own. It is
//!   known by its text, which names run and store, and the session it watches over: that one is ended with it, since it may still hold
//!   its lock. (One of another run bites too late to do harm unnoticed: see the proof above.) The new one is armed before the old one is ended,
//!   because what the dead driver did to keep clients out stands still: there is no moment in which nobody watches over that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::KeepOut;
use super::ending::{ENDING, end_all, of_our_account};
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::lock_out;
use crate::playbook::quantity::HumanDuration;

/// How much longer than `max_write_gap` a watchdog waits where nothing else is asked for: by then the engine, if it lives, has lifted the
/// fence and undone the rest.
pub const MARGIN: Duration = Duration::from_secs(15);

/// A watchdog that would bite while dbmove still has time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`watchdog` is {} and `max_write_gap` {}: the server would let writes through again in the middle of what still has time",
    HumanDuration(*.watchdog),
    HumanDuration(*.max_write_gap)
)]
pub struct TooShort {
    /// After how long it would bite.
    pub watchdog: Duration,
    /// How long writes may be held.
    pub max_write_gap: Duration,
}

impl TooShort {
    /// What to do about it.
    pub const HINT: &str = "make `watchdog` longer than `max_write_gap`, or leave it out: then it is 15 seconds longer";
}

/// After how long a watchdog bites: as asked for, or some time after writes may be held no longer.
///
/// # Errors
/// If it would bite before that.
pub fn patience(asked: Option<HumanDuration>, max_write_gap: Duration) -> std::result::Result<Duration, TooShort> {
    let watchdog = asked.map_or(max_write_gap + MARGIN, |asked| asked.0);
    if watchdog > max_write_gap { Ok(watchdog) } else { Err(TooShort { watchdog, max_write_gap }) }
}

/// What the text of a watchdog begins with in the server's process list, asleep or biting. Names of runs and stores have no characters that
/// could end the comment.
fn mark(name: &str) -> String {
    format!("{MARK}{name}, lock ")
}

/// What the text of every watchdog begins with.
const MARK: &str = "/* dbmove watchdog of ";

/// Whether this is the text of a watchdog, of whichever fence. Asleep it is in nobody's way, so that no other fence has to end it.
pub(super) fn is_one(text: &str) -> bool {
    text.starts_with(MARK)
}

/// The session that a watchdog watches over, by the text behind its mark.
fn lock_of(text: &str, mark: &str) -> Option<u32> {
    text.strip_prefix(mark)?.split(' ').next()?.parse().ok()
}

/// What the server was before, as far as the watchdog brings it back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// Whether `read_only` was off.
    pub writable: bool,
    /// Whether the event scheduler was on.
    pub events: bool,
}

/// How the fence is watched over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// After how long the fence is lifted, counted from before it is raised.
    pub after: Duration,
    /// What it was before.
    pub before: Before,
}

/// What is sent to the server, one packet a session. Every statement bears the mark, so that one which bites is known as well.
fn packets(name: &str, watch: &Watch, keep_out: &KeepOut, lock: u32) -> Vec<String> {
    let marked = |statement: &str| format!("{}{lock} : lifts the fence if dbmove is gone */ {statement}", mark(name));
    let sleep = format!("DO SLEEP({:.3})", watch.after.as_secs_f64());
    let end_lock = format!("KILL {lock}");
    let packet = |statements: &[&str]| {
        let statements = std::iter::once(sleep.as_str()).chain(statements.iter().copied());
        statements.map(marked).collect::<Vec<_>>().join("; ")
    };
    let mut packets = match keep_out {
        KeepOut::ReadOnly if watch.before.writable => vec![packet(&["SET GLOBAL read_only = 0", &end_lock])],
        KeepOut::ReadOnly => vec![packet(&[&end_lock])],
        KeepOut::Accounts(accounts) if accounts.is_empty() => vec![packet(&[&end_lock])],
        KeepOut::Accounts(accounts) => vec![packet(&[&end_lock]), packet(&[&lock_out::unlock_all(accounts)])],
    };
    if watch.before.events {
        packets.push(packet(&["SET GLOBAL event_scheduler = 1"]));
    }
    packets
}

/// Sessions on the server that lift the fence when their time is over.
#[derive(Debug)]
pub struct Watchdog {
    mark: String,
    sleepers: Vec<(u32, JoinHandle<()>)>,
}

impl Watchdog {
    /// Arms it, for the fence of that name (run and store). `lock` is the session that holds, or will hold, the global read lock.
    ///
    /// # Errors
    /// If the server can't be reached, or its sessions don't go to sleep.
    pub async fn arm(server: &Arc<Server>, name: &str, watch: &Watch, keep_out: &KeepOut, lock: u32) -> Result<Watchdog> {
        let mark = mark(name);
        let mut watchdog = Watchdog { mark, sleepers: Vec::new() };
        for packet in packets(name, watch, keep_out, lock) {
            let mut session = Session::open(server, Purpose::Read).await?;
            let id = session.id();
            let sleeper = tokio::spawn(async move {
                // Ended by `disarm`, or it did its work; either is found out by whoever asks what the server says.
                let _ = session.run(&packet, "watching over the fence").await;
            });
            watchdog.sleepers.push((id, sleeper));
        }
        let mut looking = Session::open(server, Purpose::Read).await?;
        watchdog.asleep(&mut looking).await?;
        looking.close().await;
        Ok(watchdog)
    }

    /// Its connections.
    pub fn connections(&self) -> impl Iterator<Item = u32> {
        self.sleepers.iter().map(|(id, _)| *id)
    }

    /// Waits until the server has the packets, which it then does without us.
    async fn asleep(&self, looking: &mut Session) -> Result<()> {
        let deadline = Instant::now() + ENDING;
        loop {
            let asleep = marked(looking, &self.mark).await?;
            if self.connections().all(|id| asleep.contains_key(&id)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(MysqlError::Object {
                    message: format!("the watchdog's sessions on the {} did not start within {} s", looking.server(), ENDING.as_secs()),
                    hint: "look at `SHOW PROCESSLIST` there; writes were not stopped".to_owned(),
                });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends those that an earlier driver left of the run and store, and the sessions they watch over.
    ///
    /// # Errors
    /// If the process list can't be read, or they don't end.
    pub async fn end_others(&self, session: &mut Session) -> Result<u64> {
        let own: BTreeSet<u32> = self.connections().collect();
        end_marked(session, &self.mark, &own).await
    }

    /// Ends it, and waits until it has ended; twice is harmless. Whether it had bitten before is to be asked of the fence.
    ///
    /// # Errors
    /// If its sessions don't end: then it may still bite.
    pub async fn disarm(&self, session: &mut Session) -> Result<()> {
        let ids: BTreeSet<u32> = self.connections().collect();
        end(session, &ids).await
    }
}

/// Ends the watchdogs that an earlier driver left of the run and store, and the sessions they watch over.
///
/// # Errors
/// If the process list can't be read, or they don't end.
pub async fn end_left_behind(session: &mut Session, name: &str) -> Result<u64> {
    end_marked(session, &mark(name), &BTreeSet::new()).await
}

async fn end_marked(session: &mut Session, mark: &str, but: &BTreeSet<u32>) -> Result<u64> {
    let mut left = marked(session, mark).await?;
    left.retain(|id, _| !but.contains(id));
    let locks = left.values().filter_map(|text| lock_of(text, mark));
    let all: BTreeSet<u32> = left.keys().copied().chain(locks).collect();
    end(session, &all).await?;
    Ok(left.len() as u64)
}

async fn end(session: &mut Session, ids: &BTreeSet<u32>) -> Result<()> {
    let shown = "`SHOW PROCESSLIST` shows it as `/* dbmove watchdog`; until then the fence may be lifted at any moment";
    end_all(session, ids, "the fence's watchdog", shown).await
}

/// Connections of our account that are watchdogs, asleep or biting, and their texts.
async fn marked(session: &mut Session, mark: &str) -> Result<BTreeMap<u32, String>> {
    Ok(of_our_account(session).await?.into_iter().filter(|(_, text)| text.starts_with(mark)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::lock_out::LockedOut;

    fn sent(writable: bool, events: bool, keep_out: &KeepOut) -> Vec<Vec<String>> {
        let watch = Watch { after: Duration::from_secs(2), before: Before { writable, events } };
        let mark = "/* dbmove watchdog of run r, store s, lock 7 : lifts the fence if dbmove is gone */ ";
        let bare = |statement: &str| statement.strip_prefix(mark).expect("every statement bears the mark").to_owned();
        packets("run r, store s", &watch, keep_out, 7).iter().map(|packet| packet.split("; ").map(bare).collect()).collect()
    }

    #[test]
    fn what_must_not_fail_comes_first() {
        assert_eq!(sent(true, false, &KeepOut::ReadOnly), [["DO SLEEP(2.000)", "SET GLOBAL read_only = 0", "KILL 7"]]);
        assert_eq!(sent(false, false, &KeepOut::ReadOnly), [["DO SLEEP(2.000)", "KILL 7"]]);
        assert_eq!(sent(true, true, &KeepOut::ReadOnly)[1..], [["DO SLEEP(2.000)", "SET GLOBAL event_scheduler = 1"]]);
        let account = |user: &str| LockedOut { user: user.to_owned(), host: "%".to_owned() };
        let locked = KeepOut::Accounts(vec![account("app"), account("back`tick")]);
        assert_eq!(
            sent(true, false, &locked),
            [["DO SLEEP(2.000)", "KILL 7"], ["DO SLEEP(2.000)", "ALTER USER IF EXISTS `app`@`%`, `back``tick`@`%` ACCOUNT UNLOCK"]]
        );
        assert_eq!(sent(true, false, &KeepOut::Accounts(Vec::new())), [["DO SLEEP(2.000)", "KILL 7"]]);
    }

    #[test]
    fn it_waits_longer_than_writes_may_be_held() {
        let seconds = Duration::from_secs;
        assert_eq!(patience(None, seconds(30)), Ok(seconds(45)));
        assert_eq!(patience(Some(HumanDuration(seconds(31))), seconds(30)), Ok(seconds(31)));
        let error = patience(Some(HumanDuration(seconds(30))), seconds(30)).unwrap_err();
        assert!(error.to_string().contains("`watchdog` is 30s and `max_write_gap` 30s"), "{error}");
    }
}
