//! The watchdog: the source's own server lifts the fence if dbmove is not there any more.
//!
//! # Why
//!
//! The fence stands on two things: `read_only`, which stays until somebody takes it back, and a lock that lives as long as its session.
//! If dbmove dies, the server notices that the session's client is gone and lets the lock go, and `read_only` stays. If the *machine*
//! dies, or the network between, the server notices nothing for hours: neither accounts with SUPER nor replication could write.
//! A school that can't write until somebody is found who knows what to type is worse than a cutover that has to be tried again.
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
//! * Disarmed before the point of no return, and proven to be: its sessions are gone, `read_only` is on, and the lock's session lives. Had it
//!   bitten, writes would have passed, and the switch must not be.
//! * One that an earlier driver of the run left is ended before another is armed: it would bite into a fence that is not its own. It is
//!   known by its text, which names run and store, and the session it watches over: that one is ended with it, since it may still hold
//!   its lock. (One of another run bites too late to do harm unnoticed: see the proof above.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::kill;
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::error::{MysqlError, Result};

/// What the text of a sleeping watchdog begins with in the server's process list. Names of runs and stores have no characters that could
/// end the comment.
fn mark(name: &str) -> String {
    format!("/* dbmove watchdog of {name}, lock ")
}

/// The session that a sleeping watchdog watches over, by the text behind its mark.
fn lock_of(text: &str, mark: &str) -> Option<u32> {
    text.strip_prefix(mark)?.split(' ').next()?.parse().ok()
}

/// How long sessions that were killed get to end.
const ENDING: Duration = Duration::from_secs(5);

/// What is to be taken back.
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
    /// Run and store.
    pub name: String,
    /// After how long the fence is lifted, counted from before it is raised.
    pub after: Duration,
    /// What it was before.
    pub before: Before,
}

/// Sessions on the server that lift the fence when their time is over.
#[derive(Debug)]
pub struct Watchdog {
    mark: String,
    sleepers: Vec<(u32, JoinHandle<()>)>,
}

impl Watchdog {
    /// Arms it. `lock` is the session that holds, or will hold, the global read lock.
    ///
    /// # Errors
    /// If the server can't be reached, or its sessions don't go to sleep.
    pub async fn arm(source: &Arc<Server>, watch: &Watch, lock: u32) -> Result<Watchdog> {
        let mut packets = Vec::new();
        let mark = mark(&watch.name);
        let sleep = format!("{mark}{lock} : lifts the fence if dbmove is gone */ DO SLEEP({:.3})", watch.after.as_secs_f64());
        let read_only = if watch.before.writable { "; SET GLOBAL read_only = 0" } else { "" };
        packets.push(format!("{sleep}{read_only}; KILL {lock}"));
        if watch.before.events {
            packets.push(format!("{sleep}; SET GLOBAL event_scheduler = 1"));
        }
        let mut watchdog = Watchdog { mark, sleepers: Vec::new() };
        for packet in packets {
            let mut session = Session::open(source, Purpose::Read).await?;
            let id = session.id();
            let sleeper = tokio::spawn(async move {
                // Ended by `disarm`, or it did its work; either is found out by whoever asks what the server says.
                let _ = session.run(&packet, "watching over the fence").await;
            });
            watchdog.sleepers.push((id, sleeper));
        }
        let mut looking = Session::open(source, Purpose::Read).await?;
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
            let asleep = sleeping(looking, &self.mark).await?;
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

    /// Ends it, and waits until it has ended. Whether it had bitten before is to be asked of the fence.
    ///
    /// # Errors
    /// If its sessions don't end: then it may still bite.
    pub async fn disarm(self, session: &mut Session) -> Result<()> {
        let ids: BTreeSet<u32> = self.connections().collect();
        end(session, &ids).await
    }
}

/// Ends the watchdogs that an earlier driver left of the run and store.
///
/// # Errors
/// If the process list can't be read, or they don't end.
pub async fn end_left_behind(session: &mut Session, name: &str) -> Result<u64> {
    let mark = mark(name);
    let left = sleeping(session, &mark).await?;
    let locks = left.values().filter_map(|text| lock_of(text, &mark));
    let all: BTreeSet<u32> = left.keys().copied().chain(locks).collect();
    end(session, &all).await?;
    Ok(left.len() as u64)
}

async fn end(session: &mut Session, ids: &BTreeSet<u32>) -> Result<()> {
    for id in ids {
        kill(session, *id, "ending the fence's watchdog").await?;
    }
    let deadline = Instant::now() + ENDING;
    loop {
        let there = connections(session).await?;
        if ids.iter().all(|id| !there.iter().any(|(connection, _)| connection == id)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(MysqlError::Object {
                message: format!("the watchdog's sessions on the {} did not end within {} s", session.server(), ENDING.as_secs()),
                hint: "end them there: `SHOW PROCESSLIST` shows them as `/* dbmove watchdog`; until then the fence may be lifted at any moment"
                    .to_owned(),
            });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Connections of our account that sleep as watchdogs, and their texts.
async fn sleeping(session: &mut Session, mark: &str) -> Result<BTreeMap<u32, String>> {
    Ok(connections(session).await?.into_iter().filter(|(_, text)| text.starts_with(mark)).collect())
}

/// All connections of our account, and what they run.
async fn connections(session: &mut Session) -> Result<Vec<(u32, String)>> {
    let user = session.server().user.clone();
    let rows = session.rows("SHOW FULL PROCESSLIST", "looking for the fence's watchdog").await?;
    let cell = |row: &[Option<String>], at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
    let ours = rows.iter().filter(|row| cell(row, 1) == user);
    Ok(ours.map(|row| (cell(row, 0).parse().unwrap_or(0), cell(row, 7))).collect())
}
