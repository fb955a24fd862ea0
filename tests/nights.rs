//! Nights on which the target gets slow: a cutover that was forecast to fit either fits, or is undone before its deadline, and the source serves on.
//!
//! Slow is the target's own process, stopped and let go on many times a second, from a moment and by a share of the time that dice chose. The rehearsal
//! before ran at full speed, so that the forecast of each night is too good, and has to be found wrong on the way. Two nights here, twenty with
//! `DBMOVE_SOAK`; that a night ends before its deadline is asserted there only, since here others use the machine.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "moving/evidence.rs"]
mod evidence;
mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::time::{Duration, Instant};

use dbmove::demo::writers::Writers;
use dbmove::local::LocalServer;
use evidence::{PAIR, Untouched, accepts_writes, ended};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use world::{World, code, number, said, stopped};

/// How often in a second a slow server is stopped.
const STOPS: u32 = 10;

fn signal(pid: u32, name: &str) {
    assert!(std::process::Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// From `after` on the server runs for the rest of `share` only, until cancelled.
fn slow_down(server: &LocalServer, after: Duration, share: f64, cancel: CancellationToken) -> JoinHandle<()> {
    let pid = server.pid();
    tokio::spawn(async move {
        let pause = async |time: Duration| tokio::time::timeout(time, cancel.cancelled()).await.is_err();
        let mut goes_on = pause(after).await;
        while goes_on {
            signal(pid, "-STOP");
            goes_on = pause(Duration::from_secs(1).mul_f64(share) / STOPS).await;
            signal(pid, "-CONT");
            goes_on = goes_on && pause(Duration::from_secs(1).mul_f64(1.0 - share) / STOPS).await;
        }
    })
}

/// A school that was rehearsed, with its writers.
async fn rehearsed(factor: f64) -> (World, Writers, Duration) {
    let mut world = World::start(PAIR[0], PAIR[1], factor).await.with_rehearsal().await;
    let writers = world.write(100.0, 40.0).await;
    let began = Instant::now();
    let rehearsed = world.finished(&["--yes", "rehearse", &world.playbook_argument()]).await;
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    (world, writers, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_night_that_gets_slow_is_undone_in_time() {
    if real::skipped("a_night_that_gets_slow_is_undone_in_time", &PAIR) {
        return;
    }
    let soak = std::env::var_os("DBMOVE_SOAK").is_some();
    let (nights, factor) = if soak { (20, 0.1) } else { (2, 0.05) };
    let seed = std::env::var("DBMOVE_TEST_SEED").map_or_else(|_| rand::random_range(0..1 << 40), |seed| seed.parse().unwrap());
    eprintln!("seed: DBMOVE_TEST_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let (mut done, mut undone, mut latest) = (0, 0, f64::MIN);
    let mut school = None;
    for night in 0..nights {
        if school.is_none() {
            school = Some(rehearsed(factor).await);
        }
        let (world, _, took) = school.as_ref().unwrap();
        // What a rehearsal took is more than a cutover takes: it ends with an undo.
        let deadline = took.mul_f64(1.5).max(Duration::from_secs(8));
        let before = Untouched::now(world).await;
        let (after, share) = (took.mul_f64(dice.random_range(0.0..0.8)), dice.random_range(0.4..0.98));
        let cancel = CancellationToken::new();
        let name = format!("night-{night}");
        let began = Instant::now();
        let playbook = world.playbook_argument();
        let words = format!("{}ms", deadline.as_millis());
        let mut cutover = world.started(&["--yes", "cutover", &playbook, "--deadline", &words, "--new-run"], &name);
        let slow = slow_down(&world.target, after, share, cancel.clone());
        let (exit, said) = ended(&mut cutover, &world.path(&name)).await;
        let late = began.elapsed().as_secs_f64() - deadline.as_secs_f64();
        cancel.cancel();
        slow.await.unwrap();
        latest = latest.max(late);
        eprintln!(
            "night {night}: {:.0} of 100 stopped after {after:.1?}: exit {exit}, {late:+.1} s by a deadline of {deadline:.0?}",
            share * 100.0
        );
        assert!(!soak || late <= 0.0, "it ended {late:.1} s behind its deadline\n{said}");
        match exit {
            0 => {
                done += 1;
                let (world, writers, _) = school.take().unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                stopped(writers).await;
                let verdict = world.ledger_on(&world.target).await;
                assert!(verdict.is_clean(), "{verdict:?}");
            }
            5 => {
                undone += 1;
                assert!(said.contains("DEADLINE"), "{said}");
                assert_eq!(number(&world.source, "SELECT @@global.read_only").await, 0, "{said}");
                assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.source.port()), "{said}");
                assert!(accepts_writes(&world.source).await, "{said}");
                let transfers = "SELECT COUNT(*) FROM school.transfers";
                let then = number(&world.source, transfers).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(number(&world.source, transfers).await > then, "the writers did not go on\n{said}");
                let undo = world.finished(&["--yes", "undo", &playbook]).await;
                assert_eq!(code(&undo), 0, "{}", world::said(&undo));
                assert_eq!(Untouched::now(world).await, before, "{said}");
            }
            other => panic!("exit {other}\n{said}"),
        }
    }
    if let Some((world, writers, _)) = school {
        stopped(writers).await;
        let verdict = world.ledger_on(&world.source).await;
        assert!(verdict.is_clean(), "{verdict:?}");
    }
    eprintln!("{undone} of {nights} slow nights were undone, {done} done; the last to end ended {latest:+.1} s by its deadline");
    assert!(!soak || undone > 0, "no night was slow enough: nothing was tried");
}
